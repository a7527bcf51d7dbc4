//! Namespaces that ask for proxies, pods that should have one, and proxies.

use super::facts::{Facts, PROXIES_MAX, text};
use crate::check::item::Item;
use crate::cluster::exposition::Metrics;
use crate::cluster::proxies::{ProxyPod, has_proxy};
use mesh_cluster::inject::{self, Namespace, Outcome, Settings};
use mesh_cluster::install::VERSION;
use mesh_cluster::names::{INJECT, LINKERD_INJECT, NAMESPACE};
use serde_json::Value;
use std::collections::BTreeMap;

/// Items of one kind; the rest are counted.
const ITEMS_MAX: usize = 10;

/// Labels that keep a namespace out of the injector's sight, when their value is `disabled`.
const OPT_OUT: [&str; 2] = [
    "mesh.internal/admission",
    "config.linkerd.io/admission-webhooks",
];

/// Namespaces that the injector never looks at.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", NAMESPACE];

/// Seconds of an SVID that are left when its renewal has failed for long.
const SVID_SECS_MIN: u64 = 60;

fn marks(object: &Value, path: &str) -> BTreeMap<String, String> {
    let map = object.pointer(path).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn namespace_of(value: &Value) -> Namespace {
    Namespace {
        name: text(value, "/metadata/name").to_owned(),
        annotations: marks(value, "/metadata/annotations"),
        labels: marks(value, "/metadata/labels"),
    }
}

/// Whether whoever asks for a proxy gets one.
pub(super) fn namespaces(facts: &Facts, only: Option<&str>) -> Vec<Item> {
    const CATEGORY: &str = "injection";
    let (mut asking, mut items) = (0, Vec::new());
    let all: BTreeMap<String, Namespace> = facts
        .namespaces()
        .map(namespace_of)
        .filter(|one| only.is_none_or(|only| only == one.name))
        .map(|one| (one.name.clone(), one))
        .collect();
    for namespace in all.values() {
        match asks(namespace, &facts.kubectl) {
            Asks::No => {}
            Asks::Yes => asking += 1,
            Asks::Badly(item) => items.push(item),
        }
    }
    let settings = Settings::from(&facts.settings);
    let pods = facts.pods().filter(|pod| runs(pod) && !has_proxy(pod));
    let unmeshed: Vec<Item> = pods
        .filter_map(|pod| {
            let namespace = all.get(text(pod, "/metadata/namespace"))?;
            unmeshed(pod, namespace, &settings, &facts.kubectl)
        })
        .collect();
    if items.is_empty() && unmeshed.is_empty() {
        let says = format!(
            "{asking} namespaces ask for proxies, and every pod that is to have one has it"
        );
        return vec![Item::ok(CATEGORY, says)];
    }
    items.extend(cut(CATEGORY, unmeshed, &facts.kubectl));
    items
}

/// The first of many items, and how many more there are.
fn cut(category: &'static str, mut items: Vec<Item>, kubectl: &str) -> Vec<Item> {
    if items.len() > ITEMS_MAX {
        let says = format!("and {} more like these", items.len() - ITEMS_MAX);
        let code = items.first().and_then(|item| item.code.clone());
        let fix =
            format!("{kubectl} get pods -A; mesh check -n NAMESPACE shows those of one namespace");
        items.truncate(ITEMS_MAX);
        items.push(Item::doubtful(
            category,
            code.as_deref().unwrap_or("MESH-0789"),
            says,
            fix,
        ));
    }
    items
}

/// What a namespace says about proxies.
enum Asks {
    No,
    Yes,
    /// It asks in a way that has no effect.
    Badly(Item),
}

fn asks(namespace: &Namespace, kubectl: &str) -> Asks {
    const CATEGORY: &str = "injection";
    let name = &namespace.name;
    let broken =
        |says: String, fix: String| Asks::Badly(Item::broken(CATEGORY, "MESH-0789", says, fix));
    let said = [INJECT, LINKERD_INJECT]
        .into_iter()
        .find_map(|key| Some((key, namespace.annotations.get(key)?)));
    let Some((key, value)) = said else {
        let label = [INJECT, LINKERD_INJECT]
            .into_iter()
            .find(|key| namespace.labels.contains_key(*key));
        return match label {
            Some(label) => broken(
                format!(
                    "namespace {name} has the label {label}, which does nothing: it is an annotation"
                ),
                format!(
                    "{kubectl} annotate namespace {name} {INJECT}=enabled && {kubectl} label namespace {name} {label}-"
                ),
            ),
            None => Asks::No,
        };
    };
    if value == "disabled" {
        return Asks::No;
    }
    if !matches!(value.as_str(), "enabled" | "ingress") {
        return broken(
            format!("namespace {name} has {key}={value}, which is no value: no pod is made there"),
            format!("{kubectl} annotate --overwrite namespace {name} {key}=enabled"),
        );
    }
    if SYSTEM.contains(&name.as_str()) {
        return broken(
            format!("namespace {name} asks for proxies, and the injector never looks at it"),
            format!("{kubectl} annotate namespace {name} {key}-"),
        );
    }
    let out = OPT_OUT.into_iter().find(|label| {
        namespace
            .labels
            .get(*label)
            .is_some_and(|value| value == "disabled")
    });
    match out {
        Some(label) => broken(
            format!(
                "namespace {name} asks for proxies, and its label {label}=disabled keeps the injector away"
            ),
            format!("{kubectl} label namespace {name} {label}-"),
        ),
        None => Asks::Yes,
    }
}

fn runs(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// A pod without proxy that would get one now, or be refused.
fn unmeshed(
    pod: &Value,
    namespace: &Namespace,
    settings: &Settings,
    kubectl: &str,
) -> Option<Item> {
    const CATEGORY: &str = "injection";
    if SYSTEM.contains(&namespace.name.as_str()) {
        return None;
    }
    let name = format!("{}/{}", namespace.name, text(pod, "/metadata/name"));
    let why = match inject::decide(pod, namespace, settings).outcome {
        Outcome::Skip(_) => return None,
        Outcome::Inject(_) => format!(
            "pod {name} has no proxy, though it is to have one: it is older than that wish, or was made past the injector"
        ),
        Outcome::Refuse(refusal) => {
            format!("pod {name} has no proxy, and cannot have one: {refusal}")
        }
    };
    let fix = match owner(pod) {
        Some(owner) => format!("{kubectl} -n {} rollout restart {owner}", namespace.name),
        None => format!(
            "{kubectl} -n {} delete pod {}",
            namespace.name,
            text(pod, "/metadata/name")
        ),
    };
    Some(Item::doubtful(CATEGORY, "MESH-0789", why, fix))
}

/// What makes the pod anew: `deployment/cart`.
fn owner(pod: &Value) -> Option<String> {
    let owner = pod.pointer("/metadata/ownerReferences/0")?;
    let (kind, name) = (text(owner, "/kind"), text(owner, "/name"));
    match kind {
        // The ReplicaSet of a Deployment ends in a hash.
        "ReplicaSet" => Some(format!("deployment/{}", name.rsplit_once('-')?.0)),
        "StatefulSet" | "DaemonSet" => Some(format!("{}/{name}", kind.to_lowercase())),
        _ => None,
    }
}

/// Whether proxies are well, as they say themselves.
pub(super) fn proxies(facts: &Facts, only: Option<&str>) -> Vec<Item> {
    const CATEGORY: &str = "proxies";
    let (mut well, mut items) = (0, Vec::new());
    let all = facts.proxies.iter();
    for (pod, metrics) in all.filter(|(pod, _)| only.is_none_or(|only| only == pod.namespace)) {
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(error) if error.is_refusal() => {
                let fix = format!("{} auth can-i get pods/proxy -A", facts.kubectl);
                items.push(Item::doubtful(
                    CATEGORY,
                    "MESH-0771",
                    error.to_string(),
                    fix,
                ));
                return items;
            }
            Err(error) => {
                let says = format!("the proxy of {} does not answer: {error}", pod.title());
                items.push(Item::broken(
                    CATEGORY,
                    "MESH-0790",
                    says,
                    describe(pod, facts),
                ));
                continue;
            }
        };
        match judge(pod, metrics, facts) {
            Some(item) => items.push(item),
            None => well += 1,
        }
    }
    items = cut(CATEGORY, items, &facts.kubectl);
    items.insert(
        0,
        Item::ok(
            CATEGORY,
            format!("{well} proxies are ready, hold policy and an SVID"),
        ),
    );
    if facts.unasked > 0 {
        let says = format!(
            "{PROXIES_MAX} proxies were asked, {} were not",
            facts.unasked
        );
        items.push(Item::doubtful(
            CATEGORY,
            "MESH-0790",
            says,
            "mesh check --proxy -n NAMESPACE",
        ));
    }
    items
}

fn describe(pod: &ProxyPod, facts: &Facts) -> String {
    format!(
        "{} -n {} logs {} -c mesh-proxy",
        facts.kubectl, pod.namespace, pod.name
    )
}

fn judge(pod: &ProxyPod, metrics: &Metrics, facts: &Facts) -> Option<Item> {
    const CATEGORY: &str = "proxies";
    let (title, logs) = (pod.title(), describe(pod, facts));
    let is = |name: &str| metrics.count(name) == Some(1);
    let says = if metrics.count("mesh_policy_generation").unwrap_or(0) == 0 {
        format!("the proxy of {title} has no policy: everything is denied")
    } else if !is("mesh_ready") {
        format!("the proxy of {title} is not ready")
    } else if metrics.count("mesh_svid_remaining_seconds").unwrap_or(0) < SVID_SECS_MIN {
        format!("the SVID of {title} ends, or has ended")
    } else if !is("mesh_controller_connected") {
        let says =
            format!("the proxy of {title} does not follow the controller: the last policy stays");
        return Some(Item::doubtful(CATEGORY, "MESH-0790", says, logs));
    } else if pod.injected_by != VERSION && !pod.injected_by.is_empty() {
        let says = format!(
            "the proxy of {title} is version {}, and this command {VERSION}",
            pod.injected_by
        );
        let fix = format!(
            "{} -n {} delete pod {}",
            facts.kubectl, pod.namespace, pod.name
        );
        return Some(Item::doubtful(CATEGORY, "MESH-0790", says, fix));
    } else {
        return None;
    };
    Some(Item::broken(CATEGORY, "MESH-0790", says, logs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(annotations: &[(&str, &str)], labels: &[(&str, &str)]) -> Namespace {
        let map = |all: &[(&str, &str)]| {
            all.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        Namespace {
            name: "shop".to_owned(),
            annotations: map(annotations),
            labels: map(labels),
        }
    }

    #[test]
    fn a_wish_without_effect_is_named_with_what_mends_it() {
        for (one, says, fix) in [
            (
                namespace(&[], &[(INJECT, "enabled")]),
                "which does nothing",
                "annotate namespace shop",
            ),
            (
                namespace(&[(INJECT, "true")], &[]),
                "which is no value",
                "annotate --overwrite",
            ),
            (
                namespace(&[(INJECT, "enabled")], &[(OPT_OUT[0], "disabled")]),
                "keeps the injector away",
                "label namespace shop mesh.internal/admission-",
            ),
            (
                Namespace {
                    name: "kube-system".to_owned(),
                    ..namespace(&[(LINKERD_INJECT, "enabled")], &[])
                },
                "never looks at it",
                "linkerd.io/inject-",
            ),
        ] {
            let Asks::Badly(item) = asks(&one, "kubectl") else {
                panic!("{one:?}");
            };
            assert!(item.says.contains(says), "{item:?}");
            assert!(
                item.fix.as_deref().unwrap_or_default().contains(fix),
                "{item:?}"
            );
        }
        assert!(matches!(
            asks(&namespace(&[(INJECT, "enabled")], &[]), "k"),
            Asks::Yes
        ));
        assert!(matches!(
            asks(&namespace(&[(INJECT, "disabled")], &[]), "k"),
            Asks::No
        ));
        assert!(matches!(asks(&namespace(&[], &[]), "k"), Asks::No));
    }

    #[test]
    fn a_pod_that_is_to_have_a_proxy_and_has_none_is_named_with_its_owner() {
        let settings = Settings::from(&mesh_cluster::install::Values::default());
        let meshed = namespace(&[(INJECT, "enabled")], &[]);
        let pod = json!({
            "metadata": { "name": "cart-7d-x", "namespace": "shop", "ownerReferences": [{ "kind": "ReplicaSet", "name": "cart-7d" }] },
            "spec": { "containers": [{ "name": "app", "image": "x" }] },
        });
        let item = unmeshed(&pod, &meshed, &settings, "kubectl").expect("an item");
        assert_eq!(
            item.fix.as_deref(),
            Some("kubectl -n shop rollout restart deployment/cart")
        );
        assert_eq!(
            unmeshed(&pod, &namespace(&[], &[]), &settings, "kubectl").map(|item| item.says),
            None
        );
        let mut own = pod.clone();
        own["metadata"]["annotations"] = json!({ INJECT: "disabled" });
        assert_eq!(
            unmeshed(&own, &meshed, &settings, "kubectl").map(|item| item.says),
            None
        );
        let mut host = pod;
        host["spec"]["hostNetwork"] = json!(true);
        let item = unmeshed(&host, &meshed, &settings, "kubectl").expect("an item");
        assert!(item.says.contains("cannot have one"), "{}", item.says);
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let one = || Item::doubtful("c", "MESH-0789", "x", "y");
        let items = cut("c", (0..14).map(|_| one()).collect(), "kubectl");
        assert_eq!(items.len(), ITEMS_MAX + 1);
        assert!(items[ITEMS_MAX].says.contains("4 more"));
    }
}
