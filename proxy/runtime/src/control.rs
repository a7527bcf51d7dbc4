//! Where policy comes from: the controller's stream, or a folder of manifests.
//!
//! What came last stays in force whatever happens to its source. A policy that cannot be compiled denies everything, as
//! it may take away what the one before granted; before the first one, everything is denied too.

mod controller;
mod discovery_file;
mod manifests;
mod places;

use crate::admin::sha256;
use crate::config::PolicySource;
use crate::cross_check::caught;
use crate::error::ProxyError;
use crate::shadow::Policy;
use crate::state::Shared;
use mesh_policy::Snapshot;
use mesh_policy::decide::Generation;
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

/// A policy as it came, with the candidate that is tried beside it.
struct Offer {
    policy: SnapshotData,
    candidate: Option<SnapshotData>,
}

impl Offer {
    /// SHA-256 of both as JSON.
    fn digests(&self) -> Result<(String, Option<String>), String> {
        let candidate = self.candidate.as_ref().map(digest).transpose()?;
        Ok((digest(&self.policy)?, candidate))
    }

    /// Gives both a generation.
    fn number(&mut self, generation: Generation) {
        self.policy.generation = generation;
        if let Some(candidate) = &mut self.candidate {
            candidate.generation = generation;
        }
    }
}

/// Compiles a policy and puts it into force, unless it is there already, or older than what its source said before. `newest`
/// is the newest generation of this source: of one stream, as another controller may count from elsewhere.
fn install(shared: &Shared, mut offer: Offer, newest: &mut Generation) -> Result<(), String> {
    let config = &shared.config;
    let generation = offer.policy.generation;
    if generation < *newest {
        return Err(format!(
            "generation {} is older than {}, which came before it",
            generation.0, newest.0
        ));
    }
    *newest = generation;
    if let Some(current) = shared.policy.load().as_ref()
        && generation < current.generation()
    {
        // The same policy as another controller counts it: nothing is decided otherwise.
        offer.number(current.generation());
        if shared.policy_is.load().is_of(&offer.digests()?) {
            return Ok(());
        }
        offer.number(generation);
    }
    let digests = offer.digests()?;
    let Offer {
        policy: data,
        candidate,
    } = offer;
    if shared.policy.load().is_some() && shared.policy_is.load().is_of(&digests) {
        return Ok(());
    }
    if data.workload.namespace != config.namespace {
        return Err(format!("it is for namespace `{}`", data.workload.namespace));
    }
    let generation = data.generation.0;
    let (workload, trust_domain) = (data.workload.clone(), data.trust_domain.clone());
    match Snapshot::compile(data) {
        Ok(snapshot) => {
            let candidate =
                candidate.and_then(|candidate| compile_beside(shared, &snapshot, candidate));
            let policy = Policy {
                snapshot,
                candidate,
            };
            shared.install_policy(policy, digests);
        }
        Err(error) => {
            // The policy in force may grant what this one takes away: nothing is granted until one can be read.
            tracing::error!(generation, %error, "policy cannot be compiled; everything is denied");
            let closed =
                Snapshot::deny_all(workload, trust_domain).map_err(|error| error.to_string())?;
            let digest = self::digest(&closed.data())?;
            shared.install_policy(Policy::alone(closed), (digest, None));
        }
    }
    tracing::info!(generation, "policy in force");
    Ok(())
}

/// Compiles a candidate; one that cannot be used is reported, and no more: nothing depends on it.
fn compile_beside(shared: &Shared, policy: &Snapshot, candidate: SnapshotData) -> Option<Snapshot> {
    let (mine, its) = (policy.workload(), &candidate.workload);
    let compiled = if (&mine.namespace, &mine.name) == (&its.namespace, &its.name) {
        let compiled = caught(|| Snapshot::compile(candidate));
        compiled.and_then(|compiled| compiled.map_err(|error| error.to_string()))
    } else {
        Err(format!("it is for `{}/{}`", its.namespace, its.name))
    };
    compiled.map_err(|why| report_candidate(shared, &why)).ok()
}

/// Says that there is a candidate, and that it is not tried.
fn report_candidate(shared: &Shared, why: &str) {
    tracing::error!(
        code = "MESH-0421",
        why,
        "the candidate cannot be used and is not tried; the policy in force is not concerned"
    );
    shared.telemetry.count("mesh_shadow_refused_total");
}

/// SHA-256 of a policy's JSON, lower-case hex: equal policy has equal bytes.
fn digest(data: &SnapshotData) -> Result<String, String> {
    let json = serde_json::to_vec(data).map_err(|error| error.to_string())?;
    Ok(sha256(&json))
}

#[cfg(test)]
mod tests;
