//! Where policy comes from: the controller's stream, or a folder of manifests.
//!
//! What came last stays in force whatever happens to its source. A policy that cannot be compiled denies everything, as
//! it may take away what the one before granted; before the first one, everything is denied too.

mod controller;
mod discovery_file;
mod manifests;

use crate::admin::sha256;
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

/// Compiles a policy and puts it into force, unless it is there already, or older than the one there.
fn install(shared: &Shared, data: SnapshotData) -> Result<(), String> {
    let config = &shared.config;
    let digest = digest(&data)?;
    if let Some(current) = shared.policy.load().as_ref() {
        if shared.policy_is.load().digest == digest {
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
    let (workload, trust_domain) = (data.workload.clone(), data.trust_domain.clone());
    match Snapshot::compile(data) {
        Ok(snapshot) => shared.install_policy(snapshot, digest),
        Err(error) => {
            // The policy in force may grant what this one takes away: nothing is granted until one can be read.
            tracing::error!(generation, %error, "policy cannot be compiled; everything is denied");
            let closed =
                Snapshot::deny_all(workload, trust_domain).map_err(|error| error.to_string())?;
            let digest = self::digest(&closed.data())?;
            shared.install_policy(closed, digest);
        }
    }
    tracing::info!(generation, "policy in force");
    Ok(())
}

/// SHA-256 of a policy's JSON, lower-case hex: equal policy has equal bytes.
fn digest(data: &SnapshotData) -> Result<String, String> {
    let json = serde_json::to_vec(data).map_err(|error| error.to_string())?;
    Ok(sha256(&json))
}
