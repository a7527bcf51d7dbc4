//! Where policy comes from: the controller's stream, or a folder of manifests.
//!
//! What came last stays in force whatever happens to its source. A policy that cannot be compiled denies everything, as
//! it may take away what the one before granted; before the first one, everything is denied too.

mod controller;
mod discovery_file;
mod manifests;

use crate::config::PolicySource;
use crate::error::ProxyError;
use crate::state::Shared;
use mesh_policy::Snapshot;
use mesh_policy::snapshot::SnapshotData;
use std::sync::Arc;
use tokio::task::spawn_local;

/// Reads static manifests once, so that a folder without this workload stops the start. A controller is asked later.
///
/// # Errors
/// [`ProxyError::Manifests`].
pub(crate) fn check(shared: &Shared) -> Result<(), ProxyError> {
    match &shared.config.policy {
        PolicySource::Controller { .. } => Ok(()),
        PolicySource::Manifests {
            folder,
            default_policy,
            discovery,
        } => {
            manifests::read_once(shared, folder, *default_policy)?;
            discovery
                .as_ref()
                .map_or(Ok(()), |file| discovery_file::read_once(shared, file))
        }
    }
}

/// Keeps policy and discovery fresh for as long as the proxy lives.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    match &shared.config.policy {
        PolicySource::Controller { address, identity } => {
            controller::follow(&shared, address, identity).await
        }
        PolicySource::Manifests {
            folder,
            default_policy,
            discovery,
        } => {
            if let Some(file) = discovery.clone() {
                let shared = shared.clone();
                spawn_local(async move { discovery_file::follow(&shared, &file).await });
            }
            manifests::follow(&shared, folder, *default_policy).await;
        }
    }
}

/// Compiles a policy and puts it into force, unless it is older than the one there.
fn install(shared: &Shared, data: SnapshotData) -> Result<(), String> {
    let config = &shared.config;
    let current = shared.policy.load_full();
    if let Some(current) = &current {
        if current.data() == &data {
            return Ok(());
        }
        if data.generation < current.generation() {
            return Err(format!(
                "generation {} is older than {}, which is in force",
                data.generation.0,
                current.generation().0
            ));
        }
    }
    if data.workload.namespace != config.namespace {
        return Err(format!("it is for namespace `{}`", data.workload.namespace));
    }
    let generation = data.generation.0;
    let snapshot = Snapshot::compile(data.clone()).or_else(|error| {
        // The policy in force may grant what this one takes away: nothing is granted until one can be read.
        tracing::error!(generation, %error, "policy cannot be compiled; everything is denied");
        Snapshot::deny_all(data.workload, data.trust_domain)
    });
    shared.install_policy(snapshot.map_err(|error| error.to_string())?);
    tracing::info!(generation, "policy in force");
    Ok(())
}
