//! What a cluster has of an older version of the mesh, and this version does not install.
//!
//! Only what is certainly ours: it has our label, stands in our namespace or, without one, has our prefix, and nobody else
//! made it. What holds data is named, and stays.

use super::{InstallError, Values, objects, reference};
use crate::crds::{self, Which};
use crate::names::{CNI_NAMESPACE, NAMESPACE, PART_OF, PART_OF_LABEL, TRUST_CONFIG_MAP};
use crate::yaml;
use serde_json::Value;
use std::collections::BTreeSet;

/// Kinds of which versions of the mesh install objects, `apiVersion` and kind, in the order in which they are removed:
/// webhooks first, so that nothing is asked of who is gone; definitions last.
pub const KINDS: &[(&str, &str)] = &[
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicyBinding",
    ),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy"),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
    ),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("v1", "ServiceAccount"),
    ("v1", "Namespace"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
];

/// What the names of our objects begin with that have no namespace.
const PREFIX: &str = "mesh-";

/// What parts of the mesh make while they run, with our label: installed by nobody, needed by all.
const MADE_LATER: &[(&str, &str)] = &[("ConfigMap", TRUST_CONFIG_MAP)];

/// What the names of our own definitions end with.
const OWN_GROUP: &str = ".mesh.internal";

/// An object of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// `apiVersion`, of [`KINDS`].
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// All of it.
    pub object: Value,
}

/// What is not installed any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surplus {
    /// Names of objects, as `kubectl delete -f -` takes them.
    pub remove: Vec<Value>,
    /// What stays although nobody installs it.
    pub keep: Vec<Kept>,
}

impl Surplus {
    /// What is to be removed, as YAML documents.
    pub fn text(&self) -> String {
        let documents = self.remove.iter();
        documents
            .map(|object| format!("---\n{}", yaml::write(object)))
            .collect()
    }
}

/// Something that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Kind and name.
    pub title: String,
    /// Why.
    pub why: &'static str,
}

/// Which of `found` an installation with these values does not have. `definitions`: those are removed too, and every object
/// of theirs goes with them.
///
/// # Errors
/// As [`super::render`].
pub fn surplus(
    values: &Values,
    found: &[Found],
    definitions: bool,
) -> Result<Surplus, InstallError> {
    let mut installed: BTreeSet<Name> = BTreeSet::new();
    for object in objects(values)?.iter().chain(&crds::all(Which::All)) {
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let (version, kind) = (text("apiVersion"), text("kind"));
        installed.insert(Name::of(
            version.unwrap_or_default(),
            kind.unwrap_or_default(),
            object,
        ));
    }
    let mut out = Surplus::default();
    for one in found {
        let name = Name::of(one.api_version, one.kind, &one.object);
        if !is_ours(one, &name) || installed.contains(&name) {
            continue;
        }
        let why = match one.kind {
            "PersistentVolumeClaim" => Some("the keys and the log of a CA may lie in it"),
            "CustomResourceDefinition" if !definitions => {
                Some("every object of its kind would go with it: `--crds`")
            }
            _ => None,
        };
        match why {
            Some(why) => out.keep.push(Kept {
                title: format!("{} {}", one.kind, name.name),
                why,
            }),
            None => {
                let mut object = one.object.clone();
                if let Some(fields) = object.as_object_mut() {
                    // Items of lists do not say what they are.
                    fields.insert("apiVersion".to_owned(), one.api_version.into());
                    fields.insert("kind".to_owned(), one.kind.into());
                }
                out.remove.extend(reference(&object));
            }
        }
    }
    Ok(out)
}

/// What an object is called, whatever its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Name {
    fn of(api_version: &str, kind: &str, object: &Value) -> Self {
        let text = |path: &str| {
            let text = object.pointer(path).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }
}

/// Whether an object is certainly one of an installation: `mesh` is a name that others may give their own things too.
fn is_ours(found: &Found, name: &Name) -> bool {
    let metadata = |path: &str| found.object.pointer(&format!("/metadata/{path}"));
    let label = metadata("labels").and_then(|labels| labels.get(PART_OF_LABEL));
    let owners = metadata("ownerReferences").and_then(Value::as_array);
    let in_place = match (name.namespace.as_str(), found.kind) {
        ("", "CustomResourceDefinition") => name.name.ends_with(OWN_GROUP),
        // The control plane's holds what is nobody's to remove.
        ("", "Namespace") => name.name == CNI_NAMESPACE,
        ("", _) => name.name.starts_with(PREFIX),
        (namespace, _) => [NAMESPACE, CNI_NAMESPACE].contains(&namespace),
    };
    in_place
        && !MADE_LATER.contains(&(found.kind, name.name.as_str()))
        && label.and_then(Value::as_str) == Some(PART_OF)
        && owners.is_none_or(|owners| owners.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(kind: &'static str, namespace: &str, name: &str) -> Found {
        let api_version = KINDS
            .iter()
            .find_map(|(version, one)| (*one == kind).then_some(*version))
            .expect("a kind");
        let mut metadata =
            json!({ "name": name, "uid": "u", "labels": { PART_OF_LABEL: PART_OF } });
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        Found {
            api_version,
            kind,
            object: json!({ "metadata": metadata, "spec": {} }),
        }
    }

    fn removed(found: &[Found], definitions: bool) -> Vec<String> {
        let surplus = surplus(&Values::default(), found, definitions).expect("values");
        let name = |one: &Value| {
            let text = |path: &str| one.pointer(path).and_then(Value::as_str).unwrap_or("-");
            format!(
                "{} {} {} {}",
                text("/apiVersion"),
                text("/kind"),
                text("/metadata/namespace"),
                text("/metadata/name")
            )
        };
        surplus.remove.iter().map(name).collect()
    }

    /// Everything that these values install, as a cluster has it.
    fn installed(values: &Values) -> Vec<Found> {
        let all = objects(values).expect("objects").into_iter();
        let all = all.chain(crds::all(Which::All));
        let one = |object: Value| {
            let kind = object["kind"].as_str()?;
            let (api_version, kind) = *KINDS.iter().find(|(_, one)| *one == kind)?;
            Some(Found {
                api_version,
                kind,
                object,
            })
        };
        all.filter_map(one).collect()
    }

    #[test]
    fn what_is_installed_stays_and_every_kind_of_it_is_looked_at() {
        let all = installed(&Values::default());
        assert_eq!(removed(&all, true), [""; 0]);
        let objects = objects(&Values::default()).expect("objects").len();
        let definitions = crds::all(Which::All).len();
        assert_eq!(all.len(), objects + definitions);
    }

    #[test]
    fn what_other_values_installed_goes() {
        let with = Values::default().set("identity.externalIssuer=true");
        let more = installed(&with.expect("values"));
        let gone = removed(&more, false);
        assert_eq!(gone.len(), more.len() - installed(&Values::default()).len());
        assert!(!gone.is_empty());
    }

    #[test]
    fn a_plugin_that_is_no_longer_wanted_goes_with_its_namespace_and_the_control_plane_stays() {
        let with = Values::default().set("cni.enabled=true").expect("allowed");
        let mut all = installed(&with);
        // Somebody else makes the namespace now.
        let values = Values::default()
            .set("createNamespace=false")
            .expect("allowed");
        let surplus = surplus(&values, &all, true).expect("values");
        let names: Vec<&str> = surplus
            .remove
            .iter()
            .filter_map(|one| one["metadata"]["name"].as_str())
            .collect();
        assert!(
            names.len() >= 7 && names.iter().all(|name| *name == "mesh-cni"),
            "{names:?}"
        );
        assert!(surplus.remove.iter().any(|one| one["kind"] == "Namespace"));
        all.retain(|one| one.kind == "Namespace");
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn what_an_older_version_had_is_named_and_nothing_else_of_it() {
        let old = [
            found("Deployment", NAMESPACE, "mesh-old"),
            found("ClusterRole", "", "mesh-old"),
            found("ServiceAccount", NAMESPACE, "mesh-old"),
        ];
        assert_eq!(
            removed(&old, false),
            [
                "apps/v1 Deployment mesh-system mesh-old",
                "rbac.authorization.k8s.io/v1 ClusterRole - mesh-old",
                "v1 ServiceAccount mesh-system mesh-old",
            ]
        );
        let all = surplus(&Values::default(), &old, false).expect("values");
        assert_eq!(
            all.remove[0]["metadata"].as_object().map(|all| all.len()),
            Some(2)
        );
    }

    #[test]
    fn what_is_made_later_or_may_be_somebody_elses_stays() {
        let mut unlabelled = found("Deployment", NAMESPACE, "mesh-old");
        unlabelled.object["metadata"]["labels"] = json!({});
        let mut owned = found("ConfigMap", NAMESPACE, "mesh-made");
        owned.object["metadata"]["ownerReferences"] = json!([{ "kind": "Deployment" }]);
        let mut other = found("Deployment", NAMESPACE, "mesh-other");
        other.object["metadata"]["labels"][PART_OF_LABEL] = "meshes".into();
        let foreign = [
            unlabelled,
            owned,
            other,
            found("Deployment", "shop", "mesh-old"),
            found("ConfigMap", NAMESPACE, TRUST_CONFIG_MAP),
            found("ClusterRole", "", "meshes"),
            found("ClusterRole", "", "another-mesh"),
            found("CustomResourceDefinition", "", "olds.policy.linkerd.io"),
            found("CustomResourceDefinition", "", "mesh-olds.example.com"),
        ];
        assert_eq!(removed(&foreign, true), [""; 0]);
    }

    #[test]
    fn what_holds_data_is_named_and_stays() {
        let data = [
            found("PersistentVolumeClaim", NAMESPACE, "mesh-old"),
            found("CustomResourceDefinition", "", "olds.mesh.internal"),
        ];
        let kept = surplus(&Values::default(), &data, false).expect("values");
        assert!(kept.remove.is_empty());
        let titles: Vec<&str> = kept.keep.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "PersistentVolumeClaim mesh-old",
                "CustomResourceDefinition olds.mesh.internal"
            ]
        );
        let told = surplus(&Values::default(), &data, true).expect("values");
        assert_eq!(told.keep.len(), 1, "a claim stays whatever is said");
        assert_eq!(told.remove.len(), 1);
    }
}
