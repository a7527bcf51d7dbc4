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
use tokio::time::Instant;
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
        let mut told_since = None;
        let ended = tokio::select! {
            ended = stream(shared, address, identity, &mut told_since) => ended,
            changed = async { changes.wait_for(|now| now.identity != known).await.is_ok() } => {
                if !changed { return; }
                pause = CONTROL_RETRY_MIN;
                tracing::debug!("identity changed: asking the controller anew");
                continue;
            }
        };
        shared.control_connected.store(false, Ordering::Relaxed);
        tracing::warn!(%address, why = ended, "no policy stream; the last policy stays in force");
        pause = pause_after(pause, told_since.map(|since| since.elapsed()));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CONTROL_RETRY_MAX);
    }
}

/// How long to wait after a connection on which policy was told for so long. One that ends soon after its first word ends
/// for a reason that the next one may meet as well, and each costs a handshake and the whole policy.
pub(super) fn pause_after(pause: Duration, told_for: Option<Duration>) -> Duration {
    match told_for {
        Some(told_for) if told_for > CONTROL_RETRY_MAX => CONTROL_RETRY_MIN,
        _ => pause,
    }
}

/// One stream, until it ends; says why, and since when policy was told.
async fn stream(
    shared: &Shared,
    address: &HostPort,
    identity: &SpiffeId,
    told_since: &mut Option<Instant>,
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
    let mut newest = Generation::default();
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
                told_since.get_or_insert_with(Instant::now);
                shared.control_connected.store(true, Ordering::Relaxed);
                if let Err(why) = take(shared, &update, &mut newest) {
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

/// Takes an update of a stream on which no generation after `newest` came yet.
pub(super) fn take(
    shared: &Shared,
    update: &WorkloadUpdate,
    newest: &mut Generation,
) -> Result<(), String> {
    let read: Result<SnapshotData, _> = serde_json::from_slice(&update.snapshot_json);
    let is_known = read.as_ref().is_ok_and(|policy| !is_of_no_manifest(policy));
    let policy = read
        .map_err(|error| format!("policy: {error}"))
        .and_then(|policy| take_policy(shared, policy, update, newest));
    // Whatever became of the policy: a later update of this stream may say that discovery is as it was in this one.
    policy.and(take_discovery(shared, update, is_known))
}

/// Whether a controller made it for a workload that it does not know.
fn is_of_no_manifest(policy: &SnapshotData) -> bool {
    policy
        .findings
        .iter()
        .any(|found| found.code == "MESH-0712")
}

fn take_policy(
    shared: &Shared,
    policy: SnapshotData,
    update: &WorkloadUpdate,
    newest: &mut Generation,
) -> Result<(), String> {
    let candidate = (!update.candidate_json.is_empty())
        .then(|| serde_json::from_slice(&update.candidate_json))
        .transpose()
        .unwrap_or_else(|error| {
            report_candidate(shared, &error.to_string());
            None
        });
    install(shared, Offer { policy, candidate }, newest)
}

/// What an update says of discovery itself: all of it, from a controller that does not tell it apart, and the zone.
///
/// A controller that does not know the workload says that nothing is anywhere. With that in force the whole mesh would be
/// outside of it, and be left to in plaintext as soon as another controller's policy lets anything out: it is no word of
/// who is in the mesh.
fn take_discovery(shared: &Shared, update: &WorkloadUpdate, is_known: bool) -> Result<(), String> {
    let zone = Some(&update.zone).filter(|zone| !zone.is_empty()).cloned();
    if update.discovery_json.is_empty() {
        shared.install_zone(zone);
        return Ok(());
    }
    let discovery: Discovery = serde_json::from_slice(&update.discovery_json)
        .map_err(|error| format!("discovery: {error}"))?;
    if !is_known && discovery.services.is_empty() && discovery.pods.is_empty() {
        shared.install_zone(zone);
        return Ok(());
    }
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
