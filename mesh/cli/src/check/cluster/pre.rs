//! `mesh check --pre`: what stands in the way of an installation.

use super::facts::text;
use super::{API, plane};
use crate::check::item::Item;
use mesh_cluster::install::{self, VERSION, Values};
use mesh_cluster::names::{CONFIG, NAMESPACE};
use mesh_kubernetes::read::{self, Right};
use mesh_kubernetes::{Client, KubernetesError};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Annotation of the StorageClass that claims without one get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Everything that can be seen before anything is installed.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub(super) async fn check(client: &Client, kubectl: &str) -> Result<Vec<Item>, KubernetesError> {
    let server = read::server(client).await?;
    let mut items = vec![
        Item::ok(API, "the API server answers"),
        plane::version(&server.version),
    ];
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "servers.policy.linkerd.io" },
    });
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": NAMESPACE, "name": CONFIG },
    });
    let (rights, namespaces, classes, crd, config) = tokio::join!(
        rights(client, kubectl),
        read::list(client, ("v1", "Namespace"), ("", "")),
        read::list(client, ("storage.k8s.io/v1", "StorageClass"), ("", "")),
        read::named(client, &crd),
        read::named(client, &config),
    );
    items.extend(rights?);
    items.extend(security(&namespaces, kubectl));
    items.push(storage(&classes));
    items.push(existing(&crd, &config));
    Ok(items)
}

/// Whether everything that `mesh install` prints may be made.
async fn rights(client: &Client, kubectl: &str) -> Result<Vec<Item>, KubernetesError> {
    const CATEGORY: &str = "rights to install";
    let wanted = wanted();
    let asked = wanted.iter().map(|right| read::may(client, right));
    let answers = futures_util::future::join_all(asked.collect::<Vec<_>>()).await;
    let mut items = Vec::new();
    let mut good = 0;
    for (right, answer) in wanted.iter().zip(answers) {
        if answer? {
            good += 1;
            continue;
        }
        let dot = if right.group.is_empty() { "" } else { "." };
        let what = format!("{}{dot}{}", right.resource, right.group);
        let place = match right.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" -n {namespace}"),
        };
        let says = format!("you may not {} {what}{place}", right.verb);
        let fix = format!(
            "{kubectl} auth can-i {} {what}{place}  # ask whoever runs the cluster for it",
            right.verb
        );
        items.push(Item::broken(CATEGORY, "MESH-0792", says, fix));
    }
    items.insert(
        0,
        Item::ok(
            CATEGORY,
            format!("{good} of {} kinds of objects may be made", wanted.len()),
        ),
    );
    Ok(items)
}

/// One right for each kind of object, and for the definitions.
fn wanted() -> BTreeSet<Right> {
    let right = |api_version: &str, kind: &str, namespace: &str| {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = kind.to_lowercase();
        let resource = match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        };
        Right {
            verb: "create".to_owned(),
            group: group.to_owned(),
            resource,
            namespace: namespace.to_owned(),
        }
    };
    let objects = install::objects(&Values::default()).unwrap_or_default();
    let mut out: BTreeSet<Right> = objects
        .iter()
        .map(|one| {
            let namespace = text(one, "/metadata/namespace");
            right(text(one, "/apiVersion"), text(one, "/kind"), namespace)
        })
        .collect();
    out.insert(right(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "",
    ));
    out
}

/// Namespaces whose pods cannot get a proxy: the container that redirects traffic needs more than they allow.
fn security(namespaces: &Result<Vec<Value>, KubernetesError>, kubectl: &str) -> Vec<Item> {
    const CATEGORY: &str = "pod security";
    let namespaces = match namespaces {
        Ok(namespaces) => namespaces,
        Err(error) => {
            let fix = format!("{kubectl} auth can-i list namespaces");
            return vec![Item::doubtful(
                CATEGORY,
                "MESH-0771",
                error.to_string(),
                fix,
            )];
        }
    };
    let label = "/metadata/labels/pod-security.kubernetes.io~1enforce";
    let strict: Vec<&str> = namespaces
        .iter()
        .filter(|one| matches!(text(one, label), "baseline" | "restricted"))
        .map(|one| text(one, "/metadata/name"))
        .filter(|name| *name != NAMESPACE && !name.starts_with("kube-"))
        .collect();
    if strict.is_empty() {
        return vec![Item::ok(CATEGORY, "no namespace refuses proxies")];
    }
    let says = format!(
        "these namespaces enforce PodSecurity and refuse `mesh-capture`, so pods there can have a proxy only with `mesh install --cni`: {}",
        strict.join(", ")
    );
    let name = strict.first().copied().unwrap_or_default();
    let fix = format!(
        "{kubectl} label --overwrite namespace {name} pod-security.kubernetes.io/enforce=privileged"
    );
    vec![Item::doubtful(CATEGORY, "MESH-0793", says, fix)]
}

/// The CA keeps its keys in a claim.
fn storage(classes: &Result<Vec<Value>, KubernetesError>) -> Item {
    const CATEGORY: &str = "storage";
    let default = |class: &&Value| {
        class
            .pointer("/metadata/annotations")
            .and_then(|all| all.get(DEFAULT_CLASS))
            .and_then(Value::as_str)
            == Some("true")
    };
    match classes {
        Ok(classes) => match classes.iter().find(default) {
            Some(class) => Item::ok(
                CATEGORY,
                format!(
                    "the CA's keys go to StorageClass {}",
                    text(class, "/metadata/name")
                ),
            ),
            None => Item::doubtful(
                CATEGORY,
                "MESH-0793",
                "there is no default StorageClass: the claim of the CA's keys may wait forever",
                "mesh install --set identity.storageClass=NAME | kubectl apply -f -",
            ),
        },
        Err(error) => Item::doubtful(
            CATEGORY,
            "MESH-0771",
            error.to_string(),
            "kubectl auth can-i list storageclasses",
        ),
    }
}

/// What is there already: this mesh, or Linkerd.
fn existing(
    crd: &Result<Option<Value>, KubernetesError>,
    config: &Result<Option<Value>, KubernetesError>,
) -> Item {
    const CATEGORY: &str = "what is there";
    match (crd, config) {
        (_, Ok(Some(_))) => Item::ok(
            CATEGORY,
            format!(
                "a mesh is installed in {NAMESPACE}: to install version {VERSION} is an upgrade"
            ),
        ),
        (Ok(Some(crd)), _) if !plane::is_ours(crd) => Item::doubtful(
            CATEGORY,
            "MESH-0794",
            "the definitions of policy.linkerd.io are Linkerd's own; they are not to be replaced while Linkerd runs",
            "mesh install --own-crds | kubectl apply -f -",
        ),
        (Err(error), _) | (_, Err(error)) => Item::doubtful(
            CATEGORY,
            "MESH-0771",
            error.to_string(),
            "kubectl auth can-i --list",
        ),
        _ => Item::ok(CATEGORY, "neither a mesh nor Linkerd's definitions"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::item::Status;

    #[test]
    fn every_kind_that_is_installed_is_asked_about_by_its_plural() {
        let wanted = wanted();
        let names: BTreeSet<&str> = wanted.iter().map(|right| right.resource.as_str()).collect();
        for name in [
            "networkpolicies",
            "clusterroles",
            "customresourcedefinitions",
            "mutatingwebhookconfigurations",
            "deployments",
            "namespaces",
        ] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
    }

    #[test]
    fn strict_namespaces_and_foreign_definitions_are_named() {
        let namespace = |name: &str, level: &str| json!({ "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": level } } });
        let all = Ok(vec![
            namespace("shop", "restricted"),
            namespace("open", "privileged"),
            namespace("kube-system", "baseline"),
        ]);
        let items = security(&all, "kubectl");
        assert!(items[0].says.ends_with(": shop"), "{items:?}");
        let theirs = Ok(Some(json!({ "metadata": { "name": "x" } })));
        assert_eq!(
            existing(&theirs, &Ok(None)).code.as_deref(),
            Some("MESH-0794")
        );
        let ours = Ok(Some(
            json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": "mesh" } } }),
        ));
        assert_eq!(existing(&ours, &Ok(None)).status, Status::Ok);
    }
}
