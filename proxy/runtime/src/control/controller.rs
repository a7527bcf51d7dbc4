//! The controller's streams over mutual TLS: policy, one message at once, then one per change; and discovery beside it
//! ([`super::places`]).

use super::{Offer, install, places, report_candidate};
use crate::config::HostPort;
use crate::limits::{CONTROL_RETRY_MAX, CONTROL_RETRY_MIN, POLICY_BYTES_MAX};
use crate::state::Shared;
use mesh_api::discovery::Discovery;
use mesh_api::proto::policy_client::PolicyClient;
use mesh_api::proto::{EquivalenceReport, WatchWorkloadRequest, WorkloadUpdate};
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::SnapshotData;
use mesh_trust::SpiffeId;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::transport::Channel;

/// Time for the controller to take a report: updates wait meanwhile.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Follows the stream, and begins anew whenever it ends or this proxy's identity changes.
pub(super) async fn follow(shared: &Shared, address: &HostPort, identity: &SpiffeId) {
    let mut changes = shared.watch_changes();
    let mut pause = CONTROL_RETRY_MIN;
    loop {
        let known = changes.borrow_and_update().identity;
        if shared.identity.load().is_none() {
            // Nothing to show yet: wait for the first SVID.
            if changes.wait_for(|now| now.identity != known).await.is_err() {
                return;
            }
            continue;
        }
        let ended = tokio::select! {
            ended = stream(shared, address, identity, &mut pause) => ended,
            changed = async { changes.wait_for(|now| now.identity != known).await.is_ok() } => {
                if !changed { return; }
                pause = CONTROL_RETRY_MIN;
                tracing::debug!("identity changed: asking the controller anew");
                continue;
            }
        };
        shared.control_connected.store(false, Ordering::Relaxed);
        tracing::warn!(%address, why = ended, "no policy stream; the last policy stays in force");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CONTROL_RETRY_MAX);
    }
}

/// One stream, until it ends; says why.
async fn stream(
    shared: &Shared,
    address: &HostPort,
    identity: &SpiffeId,
    pause: &mut Duration,
) -> String {
    let channel = match connect(shared, address, identity).await {
        Ok(channel) => channel,
        Err(why) => return why,
    };
    let mut client = PolicyClient::new(channel).max_decoding_message_size(POLICY_BYTES_MAX);
    let request = WatchWorkloadRequest {
        namespace: shared.config.namespace.clone(),
        workload: shared.config.workload.clone(),
        keeps_discovery: true,
        discovery_apart: true,
    };
    let mut updates = match client.watch_workload(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status.to_string(),
    };
    let mut tried = shared.cross_checks.watch_tried();
    // What was found before this stream stood is news to this controller.
    tried.mark_changed();
    // A change of policy does not wait for discovery, which may be megabytes.
    let places = places::follow(shared, client.clone());
    tokio::pin!(places);
    loop {
        let message = tokio::select! {
            message = updates.message() => message,
            why = &mut places => return why,
            _ = tried.changed() => {
                report(shared, &mut client).await;
                continue;
            }
        };
        match message {
            Ok(Some(update)) => {
                *pause = CONTROL_RETRY_MIN;
                shared.control_connected.store(true, Ordering::Relaxed);
                if let Err(why) = take(shared, &update) {
                    tracing::error!(
                        generation = update.generation,
                        why,
                        "a policy that cannot be used; the last one stays in force"
                    );
                    shared.telemetry.count("mesh_policy_refused_total");
                }
            }
            Ok(None) => return "the controller closed the stream".to_owned(),
            Err(status) => return status.to_string(),
        }
    }
}

/// Tells the controller what came of holding the policy in force against Cedar, if that is known.
async fn report(shared: &Shared, client: &mut PolicyClient<Channel>) {
    let Some(policy) = shared.policy.load_full() else {
        return;
    };
    let Some(found) = shared.cross_checks.assurance(&policy) else {
        return;
    };
    let mut request = tonic::Request::new(EquivalenceReport {
        namespace: shared.config.namespace.clone(),
        workload: shared.config.workload.clone(),
        generation: policy.generation().0,
        assurance_json: serde_json::to_vec(&found).unwrap_or_default(),
        policy_digest: neutral_digest((*policy.data()).clone()),
    });
    request.set_timeout(REPORT_TIMEOUT);
    if let Err(status) = client.report_equivalence(request).await {
        // The status of this proxy says it too; an older controller cannot be told.
        tracing::debug!(%status, "the controller did not take the report");
    }
}

/// What the policy is called that is in force: a controller that began anew, or another one, numbers it otherwise.
fn neutral_digest(mut policy: SnapshotData) -> String {
    policy.generation = Generation(0);
    super::digest(&policy).unwrap_or_default()
}

pub(super) fn take(shared: &Shared, update: &WorkloadUpdate) -> Result<(), String> {
    let policy = take_policy(shared, update);
    // Whatever became of the policy: a later update of this stream may say that discovery is as it was in this one.
    policy.and(take_discovery(shared, update))
}

fn take_policy(shared: &Shared, update: &WorkloadUpdate) -> Result<(), String> {
    let policy = serde_json::from_slice(&update.snapshot_json)
        .map_err(|error| format!("policy: {error}"))?;
    let candidate = (!update.candidate_json.is_empty())
        .then(|| serde_json::from_slice(&update.candidate_json))
        .transpose()
        .unwrap_or_else(|error| {
            report_candidate(shared, &error.to_string());
            None
        });
    install(shared, Offer { policy, candidate })
}

/// What an update says of discovery itself: all of it, from a controller that does not tell it apart, and the zone.
fn take_discovery(shared: &Shared, update: &WorkloadUpdate) -> Result<(), String> {
    let zone = Some(&update.zone).filter(|zone| !zone.is_empty()).cloned();
    if update.discovery_json.is_empty() {
        shared.install_zone(zone);
        return Ok(());
    }
    let discovery: Discovery = serde_json::from_slice(&update.discovery_json)
        .map_err(|error| format!("discovery: {error}"))?;
    shared.install_discovery(Discovery { zone, ..discovery });
    Ok(())
}

async fn connect(
    shared: &Shared,
    address: &HostPort,
    expected: &SpiffeId,
) -> Result<Channel, String> {
    let identity = shared.identity.load_full().ok_or("no SVID yet")?;
    let config = identity.client_for(expected, b"h2")?;
    // A name is looked up each time: the controller may have moved (fault F12).
    mesh_api::dial::connect(&address.to_string(), config).await
}
