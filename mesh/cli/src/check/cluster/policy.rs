//! Whether policy objects are accepted, and in force: what the files of the same objects would be told, and what the
//! controller says of where they are in force.

use super::facts::{Facts, text};
use crate::check::item::Item;
use crate::manifests::{Manifests, MeshSettings, mode, trust_domain};
use mesh_kubernetes::kinds::WITH_STATUS;
use mesh_kubernetes::object;
use mesh_policy::snapshot::{Finding, Severity, Source};
use mesh_policy_index::Proxied;
use serde_json::Value;

const CATEGORY: &str = "policy";

/// Items of one severity; the rest are counted.
const ITEMS_MAX: usize = 20;

/// All policy objects, or those of one namespace.
pub(super) fn check(facts: &Facts, only: Option<&str>) -> Vec<Item> {
    let inside = |namespace: &str| only.is_none_or(|only| only == namespace);
    let mut items = findings(facts)
        .into_iter()
        .filter(|finding| {
            only.is_none()
                || finding
                    .object
                    .as_ref()
                    .is_some_and(|one| inside(&one.namespace))
        })
        .filter_map(|finding| item(&finding, &facts.kubectl))
        .collect::<Vec<_>>();
    let (mut objects, mut in_force, mut untold) = (0, 0, 0);
    for value in objects_with_status(facts) {
        if !inside(text(value, "/metadata/namespace")) {
            continue;
        }
        objects += 1;
        match enforced(value) {
            Told::Yes => in_force += 1,
            Told::Nothing => untold += 1,
            Told::No(reason, message) => {
                items.extend(not_in_force(value, reason, message, &facts.kubectl))
            }
        }
    }
    let head = Item::ok(
        CATEGORY,
        format!(
            "{objects} policy objects, {in_force} of them in force at every proxy that they concern"
        ),
    );
    let mut out = vec![head];
    if untold > 0 && facts.is_installed {
        let says = format!(
            "of {untold} policy objects the controller says nothing about what is stored now"
        );
        let fix = format!(
            "{} -n mesh-system logs deployment/mesh-controller",
            facts.kubectl
        );
        out.push(Item::doubtful(CATEGORY, "MESH-0791", says, fix));
    }
    let more = items.len().saturating_sub(ITEMS_MAX);
    items.sort_by_key(|item| std::cmp::Reverse(item.status as u8));
    out.extend(items.into_iter().take(ITEMS_MAX));
    if more > 0 {
        out.push(Item::doubtful(
            CATEGORY,
            "MESH-0791",
            format!("and {more} more"),
            "mesh authz lint --cluster",
        ));
    }
    out
}

/// What the controller's own code finds.
fn findings(facts: &Facts) -> Vec<Finding> {
    let values = &facts.settings;
    let (Ok(default_policy), Ok(trust_domain)) = (
        mode(&values.default_policy),
        trust_domain(&values.trust_domain),
    ) else {
        return Vec::new();
    };
    let settings = MeshSettings {
        default_policy,
        trust_domain,
    };
    let files = facts.values.iter().map(|(name, value)| {
        let (kind, version) = (text(value, "/kind"), text(value, "/apiVersion"));
        let kept = object::essence(kind, version, value.clone());
        (name.clone(), kept.to_string().into_bytes())
    });
    Manifests::of_kind(files.collect(), &settings, Proxied::WithContainer).findings()
}

fn item(finding: &Finding, kubectl: &str) -> Option<Item> {
    let (title, fix) = match &finding.object {
        Some(one) => {
            let kind = resource(&one.source).unwrap_or_else(|| one.kind.to_lowercase());
            let namespace = match one.namespace.as_str() {
                "" => String::new(),
                namespace => format!(" -n {namespace}"),
            };
            (
                format!("{} {}/{}: ", one.kind, one.namespace, one.name),
                format!("{kubectl}{namespace} edit {kind} {}", one.name),
            )
        }
        None => (
            format!("{}: ", finding.source),
            "mesh authz lint --cluster".to_owned(),
        ),
    };
    let title = match finding.message.starts_with(title.trim_end_matches(": ")) {
        true => String::new(),
        false => title,
    };
    let fix = match &finding.hint {
        Some(hint) => format!("{fix}  # {hint}"),
        None => fix,
    };
    let says = format!("{title}{}", finding.message);
    match finding.severity {
        Severity::Error => Some(Item::broken(CATEGORY, &finding.code, says, fix)),
        Severity::Warning => Some(Item::doubtful(CATEGORY, &finding.code, says, fix)),
        Severity::Info => None,
    }
}

/// `servers.policy.linkerd.io`, from the name of an object among all.
fn resource(source: &Source) -> Option<String> {
    let Source::File { file, .. } = source else {
        return None;
    };
    let kind = WITH_STATUS
        .iter()
        .find(|kind| file.starts_with(&kind.prefix()))?;
    Some(kind.resource())
}

fn objects_with_status(facts: &Facts) -> impl Iterator<Item = &Value> {
    facts.values.iter().filter_map(|(name, value)| {
        // Routes have a status for each parent; what is wrong with them is a finding.
        let known = WITH_STATUS
            .iter()
            .filter(|kind| !kind.kind.ends_with("Route"));
        known
            .into_iter()
            .any(|kind| name.starts_with(&kind.prefix()))
            .then_some(value)
    })
}

/// What the status says of where an object is in force.
#[derive(Debug, PartialEq)]
enum Told<'a> {
    Yes,
    /// Not of what is stored now.
    Nothing,
    No(&'a str, &'a str),
}

fn enforced(object: &Value) -> Told<'_> {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let found = conditions
        .into_iter()
        .flatten()
        .find(|one| text(one, "/type") == "Enforced");
    let Some(found) = found else {
        return Told::Nothing;
    };
    if found.get("observedGeneration") != object.pointer("/metadata/generation") {
        return Told::Nothing;
    }
    match text(found, "/status") {
        "True" => Told::Yes,
        _ => Told::No(text(found, "/reason"), text(found, "/message")),
    }
}

/// Of the reasons those that no finding says.
fn not_in_force(object: &Value, reason: &str, message: &str, kubectl: &str) -> Option<Item> {
    let (kind, namespace, name) = (
        text(object, "/kind"),
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name"),
    );
    let says = format!("{kind} {namespace}/{name} is not in force everywhere: {message}");
    match reason {
        "Pending" => Some(Item::broken(
            CATEGORY,
            "MESH-0791",
            says,
            "mesh check --proxy",
        )),
        "NoProxy" => {
            let fix = format!(
                "{kubectl} annotate namespace {namespace} mesh.internal/inject=enabled  # and start the pods anew"
            );
            Some(Item::doubtful(CATEGORY, "MESH-0791", says, fix))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::item::Status;
    use serde_json::json;

    fn object(reason: &str, status: &str, observed: i64) -> Value {
        json!({
            "kind": "Server", "metadata": { "namespace": "shop", "name": "web", "generation": 3 },
            "status": { "conditions": [{ "type": "Enforced", "status": status, "reason": reason, "message": "m", "observedGeneration": observed }] },
        })
    }

    #[test]
    fn a_status_counts_for_what_is_stored_now() {
        assert_eq!(enforced(&object("Enforced", "True", 3)), Told::Yes);
        assert_eq!(enforced(&object("Enforced", "True", 2)), Told::Nothing);
        assert_eq!(
            enforced(&json!({ "metadata": { "generation": 1 } })),
            Told::Nothing
        );
        assert_eq!(
            enforced(&object("Pending", "False", 3)),
            Told::No("Pending", "m")
        );
    }

    #[test]
    fn what_is_not_in_force_is_an_item_unless_a_finding_says_it() {
        let of = |reason: &str| {
            not_in_force(&object(reason, "False", 3), reason, "m", "kubectl")
                .map(|item| item.status)
        };
        assert_eq!(of("Pending"), Some(Status::Broken));
        assert_eq!(of("NoProxy"), Some(Status::Doubtful));
        assert_eq!(of("UnresolvedRefs"), None);
        assert_eq!(of("NotSupported"), None);
    }
}
