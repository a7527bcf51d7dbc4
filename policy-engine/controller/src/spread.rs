//! The trust bundle in every namespace, where pods mount it before they have an SVID.
//!
//! Kubernetes' own namespaces are left alone: nothing there is in the mesh. A bundle that is not there yet delays the
//! pods that mount it, no more; so a failed write is only tried again.

use crate::cluster::Cluster;
use crate::state::Shared;
use mesh_kubernetes::{Client, config_map};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Name and key of the ConfigMap; the CA writes the same into its own namespace.
pub(crate) const CONFIG_MAP: (&str, &str) = ("mesh-trust-bundle", "ca-bundle.crt");

/// Namespaces that come with Kubernetes.
const SYSTEM: &[&str] = &["kube-system", "kube-public", "kube-node-lease"];

/// Pause before failed writes are tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the bundle of our own SVID in every namespace; never ends.
pub(crate) async fn keep_spread(shared: Arc<Shared>, cluster: Cluster, client: Client) {
    let mut written: BTreeMap<String, String> = BTreeMap::new();
    let mut identity = shared.identity.subscribe();
    let mut published = shared.published.subscribe();
    loop {
        let bundle = identity
            .borrow_and_update()
            .as_ref()
            .map(|identity| identity.bundle_pem.clone());
        // Namespaces come and go with the objects that policy is made of.
        published.mark_unchanged();
        let mut failed = false;
        if let Some(bundle) = bundle {
            let namespaces = cluster.namespaces();
            written.retain(|namespace, _| namespaces.contains(namespace));
            for namespace in namespaces {
                let old = written.get(&namespace);
                if SYSTEM.contains(&namespace.as_str()) || old == Some(&bundle) {
                    continue;
                }
                let (name, key) = CONFIG_MAP;
                match config_map::apply(&client, &namespace, name, key, &bundle).await {
                    Ok(()) => drop(written.insert(namespace, bundle.clone())),
                    Err(error) => {
                        tracing::warn!(%error, namespace, "the trust bundle could not be written; trying again");
                        failed = true;
                    }
                }
            }
        }
        tokio::select! {
            changed = identity.changed() => if changed.is_err() { return },
            changed = published.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}
