//! API server, definitions, control plane, rights, webhooks.

use super::API;
use super::facts::{Facts, policy_kinds, text};
use crate::check::item::Item;
use crate::cluster::proxies::has_proxy;
use mesh_cluster::inject::policy;
use mesh_cluster::install::VERSION;
use mesh_cluster::install::values::BY_POLICY;
use mesh_cluster::names::{NAMESPACE, PART_OF_LABEL, PROXY};
use mesh_kubernetes::KubernetesError;
use mesh_trust::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// The oldest minor version of Kubernetes 1 with native sidecars.
const MINOR_MIN: u32 = 33;

/// How far clocks may be apart, in seconds: SVIDs begin no more than this before they are issued.
const SKEW_MAX_SECS: i64 = 5;

/// How old the Lease of a node may be that renews it every 10 s.
const LEASE_MAX_SECS: i64 = 60;

/// What makes the installation what this version would install. An upgrade keeps the values that are there, which
/// `mesh install` does not know.
fn mend(facts: &Facts) -> String {
    mend_of(facts.is_installed, &facts.kubectl)
}

fn mend_of(is_installed: bool, kubectl: &str) -> String {
    let cluster = kubectl.strip_prefix("kubectl").unwrap_or_default();
    match is_installed {
        true => format!("mesh upgrade{cluster} | {kubectl} apply -f -"),
        false => format!("mesh install | {kubectl} apply -f -"),
    }
}

/// Version and clocks.
pub(super) fn api(facts: &Facts) -> Vec<Item> {
    let mut items = vec![
        Item::ok(API, "the API server answers"),
        version(&facts.server.version),
    ];
    items.extend(clock(facts));
    items.extend(nodes(facts));
    items
}

/// Whether the API server is new enough.
pub(super) fn version(version: &str) -> Item {
    const CATEGORY: &str = "kubernetes-version";
    let minor = version
        .trim_start_matches('v')
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u32>().ok());
    match minor {
        Some(minor) if minor >= MINOR_MIN => Item::ok(CATEGORY, format!("Kubernetes {version}")),
        _ => Item::broken(
            CATEGORY,
            "MESH-0783",
            format!("Kubernetes {version} is older than 1.{MINOR_MIN}: it has no native sidecars"),
            format!("upgrade the cluster to Kubernetes 1.{MINOR_MIN} or newer"),
        ),
    }
}

fn clock(facts: &Facts) -> Option<Item> {
    let date = http_date(facts.server.date.as_deref()?)?;
    let apart = facts.now.unix_secs() - date.unix_secs();
    let says = format!(
        "the clocks of this machine and of the API server are {} s apart",
        apart.abs()
    );
    Some(if apart.abs() <= SKEW_MAX_SECS {
        Item::ok(API, says)
    } else {
        let fix = "timedatectl set-ntp true";
        Item::doubtful(API, "MESH-0782", says, fix)
    })
}

/// `Sun, 29 Nov 2026 15:28:00 GMT`.
fn http_date(date: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = date.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|one| *one == month)? + 1;
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

/// A node renews its Lease every 10 s, by its own clock.
fn nodes(facts: &Facts) -> Vec<Item> {
    let (Ok(leases), Some(server)) = (
        &facts.leases,
        facts.server.date.as_deref().and_then(http_date),
    ) else {
        return Vec::new();
    };
    let mut items = Vec::new();
    for lease in leases {
        let Ok(renewed) = text(lease, "/spec/renewTime").parse::<Timestamp>() else {
            continue;
        };
        let age = server.unix_secs() - renewed.unix_secs();
        let node = text(lease, "/metadata/name");
        let why = if age < -SKEW_MAX_SECS {
            format!(
                "the clock of node {node} is {} s ahead of the API server's",
                -age
            )
        } else if age > LEASE_MAX_SECS {
            format!(
                "node {node} was heard of {age} s ago: its clock is behind, or its kubelet is gone"
            )
        } else {
            continue;
        };
        let fix = format!("{} describe node {node}", facts.kubectl);
        items.push(Item::doubtful(API, "MESH-0782", why, fix));
    }
    if items.is_empty() && !leases.is_empty() {
        let says = format!("the clocks of {} nodes agree with it", leases.len());
        items.push(Item::ok(API, says));
    }
    items
}

/// Whether the kinds that policy is written in are there, in versions that are read, with a status.
fn definitions_of(served: &dyn Fn(&str) -> Option<bool>) -> (usize, Vec<Item>) {
    const CATEGORY: &str = "definitions";
    let fix = "mesh install --crds | kubectl apply -f -";
    let (mut good, mut items) = (0, Vec::new());
    for kind in policy_kinds() {
        let resource = kind.resource();
        match served(&resource) {
            Some(true) => good += 1,
            Some(false) => items.push(Item::doubtful(
                CATEGORY,
                "MESH-0784",
                format!("{resource} has no status: what became of its objects is not told"),
                fix,
            )),
            None => items.push(Item::broken(
                CATEGORY,
                "MESH-0784",
                format!("{resource} is missing, or served in no version that is read"),
                fix,
            )),
        }
    }
    (good, items)
}

/// The same, of a cluster.
pub(super) fn definitions(facts: &Facts) -> Vec<Item> {
    let served = |resource: &str| facts.objects.served.get(resource).map(|one| one.status);
    let (good, mut items) = definitions_of(&served);
    items.insert(
        0,
        Item::ok("definitions", format!("{good} kinds of policy are defined")),
    );
    items
}

/// Whether what was installed is there, and runs.
pub(super) fn parts(facts: &Facts) -> Vec<Item> {
    const CATEGORY: &str = "control plane";
    if !facts.is_installed {
        let says = format!("nothing is installed in namespace {NAMESPACE}");
        return vec![Item::broken(CATEGORY, "MESH-0785", says, mend(facts))];
    }
    let mut items = Vec::new();
    let (mut there, mut refused) = (0, 0);
    for (wanted, found) in &facts.installed {
        match found {
            Ok(Some(_)) => there += 1,
            Ok(None) => {
                let says = format!("{} {} is missing", text(wanted, "/kind"), title(wanted));
                items.push(Item::broken(CATEGORY, "MESH-0785", says, mend(facts)));
            }
            Err(_) => refused += 1,
        }
    }
    if refused > 0 {
        items.push(not_seen(facts, CATEGORY, refused));
    }
    let says = format!("{there} objects of the installation are there");
    items.insert(0, Item::ok(CATEGORY, says));
    for (_, found) in facts.of_kind("Deployment") {
        if let Ok(Some(deployment)) = found {
            items.extend(deployment_items(facts, deployment));
        }
    }
    items
}

fn not_seen(facts: &Facts, category: &'static str, count: usize) -> Item {
    let first = facts
        .installed
        .iter()
        .find_map(|(_, found)| found.as_ref().err());
    let why = first.map(ToString::to_string).unwrap_or_default();
    let fix = format!("{} auth can-i --list -n {NAMESPACE}", facts.kubectl);
    let says = format!("{count} objects of the installation could not be looked at: {why}");
    Item::doubtful(category, "MESH-0771", says, fix)
}

fn title(object: &Value) -> String {
    match text(object, "/metadata/namespace") {
        "" => text(object, "/metadata/name").to_owned(),
        namespace => format!("{namespace}/{}", text(object, "/metadata/name")),
    }
}

fn deployment_items(facts: &Facts, deployment: &Value) -> Vec<Item> {
    const CATEGORY: &str = "control plane";
    let name = text(deployment, "/metadata/name");
    let number = |path: &str| {
        deployment
            .pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let (wanted, ready) = (number("/spec/replicas"), number("/status/readyReplicas"));
    let mut items = Vec::new();
    if ready >= wanted && wanted > 0 {
        items.push(Item::ok(
            CATEGORY,
            format!("{name}: {ready} of {wanted} ready"),
        ));
    } else {
        let why = facts
            .pods()
            .filter(|pod| belongs(pod, name))
            .find_map(waits);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let says = format!("{name}: {ready} of {wanted} ready{why}");
        let fix = format!(
            "{} -n {NAMESPACE} describe pods -l app.kubernetes.io/component={}",
            facts.kubectl,
            name.trim_start_matches("mesh-")
        );
        items.push(Item::broken(CATEGORY, "MESH-0786", says, fix));
    }
    let image = text(deployment, "/spec/template/spec/containers/0/image");
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let own = facts.settings.image_with_tag();
    if image != own && tag != VERSION {
        let says = format!("{name} runs image {image}, and this command is version {VERSION}");
        items.push(Item::doubtful(CATEGORY, "MESH-0786", says, mend(facts)));
    }
    items
}

fn belongs(pod: &Value, deployment: &str) -> bool {
    text(pod, "/metadata/namespace") == NAMESPACE
        && text(pod, "/metadata/name").starts_with(&format!("{deployment}-"))
}

/// Why a pod does not run, in Kubernetes' words.
pub(super) fn waits(pod: &Value) -> Option<String> {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|one| text(one, "/type") == "PodScheduled" && text(one, "/status") == "False");
    if let Some(one) = unscheduled {
        return Some(text(one, "/message").to_owned());
    }
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    let waiting = statuses.into_iter().flatten().find_map(|one| {
        let (reason, message) = (
            text(one, "/state/waiting/reason"),
            text(one, "/state/waiting/message"),
        );
        (!reason.is_empty()).then(|| format!("{reason} {message}").trim().to_owned())
    });
    waiting.or_else(|| {
        let ready = |one: &Value| one.get("ready").and_then(Value::as_bool) == Some(true);
        let statuses = pod
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array);
        let unready = statuses.into_iter().flatten().any(|one| !ready(one));
        unready.then(|| format!("pod {} is not ready", text(pod, "/metadata/name")))
    })
}

/// Whether the service accounts may what this version needs.
pub(super) fn rights(facts: &Facts) -> Vec<Item> {
    const CATEGORY: &str = "rights";
    let (mut good, mut items) = (0, Vec::new());
    for kind in ["ClusterRole", "Role"] {
        for (wanted, found) in facts.of_kind(kind) {
            let Ok(Some(found)) = found else { continue };
            let (missing, more) = (without(wanted, found), without(found, wanted));
            if missing.is_empty() && more.is_empty() {
                good += 1;
            }
            let name = title(wanted);
            if let Some(rule) = missing.first() {
                let says = format!(
                    "{kind} {name} lacks {} rules, the first: {rule}",
                    missing.len()
                );
                items.push(Item::broken(CATEGORY, "MESH-0785", says, mend(facts)));
            } else if let Some(rule) = more.first() {
                let says = format!("{kind} {name} permits more than this version needs: {rule}");
                items.push(Item::doubtful(CATEGORY, "MESH-0785", says, mend(facts)));
            }
        }
    }
    items.insert(
        0,
        Item::ok(
            CATEGORY,
            format!("{good} roles are what this version needs"),
        ),
    );
    items
}

/// Rules of the one role that the other has not.
fn without(one: &Value, other: &Value) -> Vec<String> {
    let rules = |role: &Value| -> BTreeSet<String> {
        let all = role.pointer("/rules").and_then(Value::as_array);
        all.into_iter().flatten().map(rule).collect()
    };
    rules(one).difference(&rules(other)).cloned().collect()
}

/// A rule in words whose order means nothing.
fn rule(rule: &Value) -> String {
    let words = |key: &str| {
        let all = rule.get(key).and_then(Value::as_array);
        let mut all: Vec<&str> = all
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        all.sort_unstable();
        all.join(",")
    };
    let names = match words("resourceNames") {
        empty if empty.is_empty() => String::new(),
        names => format!(" named {names}"),
    };
    let group = match words("apiGroups") {
        empty if empty.is_empty() => String::new(),
        group => format!(" of {group}"),
    };
    format!("{} {}{group}{names}", words("verbs"), words("resources"))
}

/// Whether new pods get their proxies.
pub(super) fn webhooks(facts: &Facts) -> Vec<Item> {
    const CATEGORY: &str = "webhooks";
    let mut items = Vec::new();
    for kind in [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ] {
        for (wanted, found) in facts.of_kind(kind) {
            let Ok(Some(found)) = found else { continue };
            let hooks = found.pointer("/webhooks").and_then(Value::as_array);
            for hook in hooks.into_iter().flatten() {
                if text(hook, "/clientConfig/caBundle").is_empty() {
                    let says = format!(
                        "{kind} {} has no authority for {}: nobody is called",
                        title(wanted),
                        text(hook, "/name")
                    );
                    items.push(Item::broken(CATEGORY, "MESH-0787", says, restart(facts)));
                } else {
                    let says = format!("{} is called under an authority", text(hook, "/name"));
                    items.push(Item::ok(CATEGORY, says));
                }
            }
        }
    }
    items.push(way(
        &facts.settings.injector.by,
        &facts.serves_policies,
        &facts.kubectl,
    ));
    items.extend(facts.tried.as_ref().map(|tried| injection(facts, tried)));
    items
}

/// Who adds proxies to pods, and whether that one is there.
fn way(by: &str, serves_policies: &Result<bool, KubernetesError>, kubectl: &str) -> Item {
    const CATEGORY: &str = "webhooks";
    if by != BY_POLICY {
        return Item::ok(
            CATEGORY,
            "proxies are added by the webhook of mesh-injector",
        );
    }
    match serves_policies {
        Ok(true) => Item::ok(
            CATEGORY,
            "proxies are added by admission policies of the API server",
        ),
        Ok(false) => Item::broken(
            CATEGORY,
            "MESH-0787",
            format!(
                "proxies are to be added by admission policies (`injector.by: policy`), and the API server has no MutatingAdmissionPolicy of {}: Kubernetes 1.36 has",
                policy::API_VERSION
            ),
            format!("mesh upgrade --set injector.by=webhook | {kubectl} apply -f -"),
        ),
        Err(error) => Item::doubtful(
            CATEGORY,
            "MESH-0771",
            error.to_string(),
            format!("{kubectl} api-resources --api-group=admissionregistration.k8s.io"),
        ),
    }
}

fn restart(facts: &Facts) -> String {
    format!(
        "{} -n {NAMESPACE} rollout restart deployment/mesh-injector",
        facts.kubectl
    )
}

fn injection(facts: &Facts, tried: &Result<Value, KubernetesError>) -> Item {
    const CATEGORY: &str = "webhooks";
    match tried {
        Ok(pod) if has_proxy(pod) => Item::ok(CATEGORY, "a pod that was tried gets its proxy"),
        Ok(_) => Item::broken(
            CATEGORY,
            "MESH-0787",
            format!("a pod that was tried asks for a proxy and gets no container {PROXY}"),
            mend(facts),
        ),
        Err(error) => {
            let why = error.to_string();
            if why.contains("failed calling webhook") {
                let says = format!(
                    "the injector does not answer, so no pod that it is asked about is made: {why}"
                );
                return Item::broken(CATEGORY, "MESH-0787", says, restart(facts));
            }
            let fix = format!("{} auth can-i create pods -n default", facts.kubectl);
            let says = format!("whether pods get their proxies could not be tried: {why}");
            Item::doubtful(CATEGORY, "MESH-0787", says, fix)
        }
    }
}

/// Whether an object is one of an installation of this mesh.
pub(super) fn is_ours(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    labels
        .and_then(|labels| labels.get(PART_OF_LABEL))
        .and_then(Value::as_str)
        == Some(mesh_cluster::names::PART_OF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::item::Status;
    use serde_json::json;

    #[test]
    fn versions_before_native_sidecars_and_unreadable_ones_are_refused() {
        for (text, want) in [
            ("v1.34.1", Status::Ok),
            ("v1.33.0-eks-1", Status::Ok),
            ("v1.32.9", Status::Broken),
            ("v1", Status::Broken),
            ("", Status::Broken),
        ] {
            assert_eq!(version(text).status, want, "{text}");
        }
    }

    #[test]
    fn what_is_installed_is_mended_with_the_values_that_it_has() {
        assert_eq!(
            mend_of(true, "kubectl --context blue"),
            "mesh upgrade --context blue | kubectl --context blue apply -f -"
        );
        assert_eq!(
            mend_of(false, "kubectl"),
            "mesh install | kubectl apply -f -"
        );
    }

    #[test]
    fn policies_that_nobody_serves_are_a_fault_only_of_who_chose_them() {
        let refused = || {
            Err(KubernetesError::Failed {
                what: "list".to_owned(),
                why: "down".to_owned(),
            })
        };
        for (by, served, want) in [
            ("webhook", Ok(true), Status::Ok),
            ("webhook", Ok(false), Status::Ok),
            ("webhook", refused(), Status::Ok),
            ("policy", Ok(true), Status::Ok),
            ("policy", Ok(false), Status::Broken),
            ("policy", refused(), Status::Doubtful),
        ] {
            let item = way(by, &served, "kubectl --context blue");
            assert_eq!(item.status, want, "{by} {served:?}");
        }
        let item = way("policy", &Ok(false), "kubectl --context blue");
        assert!(item.says.contains("1.36"), "{}", item.says);
    }

    #[test]
    fn the_clock_of_a_server_is_read_from_its_answer() {
        let date = http_date("Sun, 29 Nov 2026 15:28:00 GMT").expect("a date");
        assert_eq!(date.to_string().get(..19), Some("2026-11-29T15:28:00"));
        for text in ["", "yesterday", "Sun, 29 Foo 2026 15:28:00 GMT", "Sun, 29"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn roles_are_compared_rule_by_rule_whatever_their_order() {
        let role = |resources: &[&str]| json!({ "rules": [{ "apiGroups": [""], "resources": resources, "verbs": ["list", "watch"] }] });
        assert_eq!(without(&role(&["a", "b"]), &role(&["b", "a"])), [""; 0]);
        assert_eq!(
            without(&role(&["a", "b"]), &role(&["a"])),
            ["list,watch a,b"]
        );
        assert_eq!(without(&role(&["a"]), &json!({})), ["list,watch a"]);
    }

    #[test]
    fn definitions_that_lack_or_have_no_status_are_named() {
        let (good, items) = definitions_of(&|resource| match resource {
            "servers.policy.linkerd.io" => None,
            "invariants.mesh.internal" => Some(false),
            _ => Some(true),
        });
        assert_eq!(items.len(), 2);
        assert!(good > 5);
        let of = |name: &str| {
            items
                .iter()
                .find(|one| one.says.contains(name))
                .expect("an item")
                .status
        };
        assert_eq!(of("servers."), Status::Broken);
        assert_eq!(of("invariants."), Status::Doubtful);
    }

    #[test]
    fn why_a_pod_does_not_run_is_said_in_kubernetes_words() {
        let unscheduled = json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False", "message": "no volume" }] } });
        assert_eq!(waits(&unscheduled).as_deref(), Some("no volume"));
        let pulling = json!({ "status": { "containerStatuses": [{ "ready": false, "state": { "waiting": { "reason": "ErrImagePull", "message": "gone" } } }] } });
        assert_eq!(waits(&pulling).as_deref(), Some("ErrImagePull gone"));
        let unready = json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": [{ "ready": false }] } });
        assert_eq!(waits(&unready).as_deref(), Some("pod p is not ready"));
        assert_eq!(
            waits(&json!({ "status": { "containerStatuses": [{ "ready": true }] } })),
            None
        );
    }
}
