//! `mesh check` of a Kubernetes cluster.
//!
//! - [`facts`]: all that is looked at, in one go and side by side
//! - [`plane`]: API server, definitions, control plane, rights, webhooks
//! - [`cni`]: the CNI plugin, where it is installed
//! - [`certificates`]: trust bundle, authorities, what the control plane shows of its own
//! - [`workloads`]: namespaces that ask for proxies, pods, proxies
//! - [`policy`]: whether policy objects are accepted and in force
//! - [`pre`]: what stands in the way of an installation

mod certificates;
mod cni;
mod facts;
mod plane;
mod policy;
mod pre;
mod workloads;

use super::Scope;
use super::item::Item;
use crate::cluster::ClusterArgs;
use crate::fault::Fault;
use crate::live;
use facts::Facts;
use mesh_kubernetes::KubernetesError;

/// Heading of the first items.
const API: &str = "kubernetes-api";

/// Checks a cluster, in the namespace that is named, if one is.
pub(super) fn check(
    cluster: &ClusterArgs,
    scope: Scope,
    namespace: Option<&str>,
) -> Result<Vec<Item>, Fault> {
    live::wait(async {
        let kubectl = cluster.kubectl();
        let client = match cluster.connect().await {
            Ok(client) => client,
            Err(error) => return Ok(vec![unreachable(&error, &kubectl)]),
        };
        if scope == Scope::Pre {
            return Ok(match pre::check(&client, &kubectl).await {
                Ok(items) => items,
                Err(error) => vec![unreachable(&error, &kubectl)],
            });
        }
        let facts = match Facts::gather(&client, kubectl.clone(), scope).await {
            Ok(facts) => facts,
            Err(error) => return Ok(vec![unreachable(&error, &kubectl)]),
        };
        let all = scope == Scope::All;
        let mut items = Vec::new();
        items.extend(plane::api(&facts));
        if all || scope == Scope::Policy {
            items.extend(plane::definitions(&facts));
        }
        if all {
            items.extend(plane::parts(&facts));
            items.extend(plane::rights(&facts));
            items.extend(cni::check(&facts));
        }
        if all || scope == Scope::Certs {
            items.extend(plane::webhooks(&facts));
            items.extend(certificates::check(&facts));
        }
        if all || scope == Scope::Proxy {
            items.extend(workloads::namespaces(&facts, namespace));
            items.extend(workloads::proxies(&facts, namespace));
        }
        if all || scope == Scope::Policy {
            items.extend(policy::check(&facts, namespace));
        }
        Ok(items)
    })
}

/// The API server cannot be asked, or not by us: nothing else can be said.
fn unreachable(error: &KubernetesError, kubectl: &str) -> Item {
    let fix = match error {
        KubernetesError::NoConfiguration { .. } => "kubectl config get-contexts".to_owned(),
        KubernetesError::Refused { .. } => format!("{kubectl} auth can-i --list"),
        _ => format!("{kubectl} cluster-info"),
    };
    let code = miette::Diagnostic::code(error).map(|code| code.to_string());
    Item::broken(
        API,
        code.as_deref().unwrap_or("MESH-0772"),
        error.to_string(),
        fix,
    )
}
