//! Where everything is, as the controller tells it: in slices, of which those come that this proxy lacks.
//!
//! What is in force stays until a whole discovery is there to take its place ([`mesh_api::slices`]), whatever becomes of the
//! stream. The next stream goes on from it. After news that cannot be used the next one begins with nothing instead, and
//! brings all anew.

use crate::limits::{CONTROL_RETRY_MAX, CONTROL_RETRY_MIN, POLICY_BYTES_MAX};
use crate::state::Shared;
use mesh_api::proto::policy_client::PolicyClient;
use mesh_api::proto::{DiscoveryUpdate, WatchDiscoveryRequest};
use mesh_api::slices::{Receiver, SLICES, SliceError, Slices};
use std::future::pending;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

/// Why a stream of discovery ended.
enum Ended {
    /// The connection, or the controller's word.
    Broken(String),
    /// What came cannot be used.
    Refused(SliceError),
}

/// Follows discovery on a connection; says why that can be used no longer. Never ends with a controller that does not tell
/// discovery apart: it tells it beside the policy.
pub(super) async fn follow(shared: &Shared, mut client: PolicyClient<Channel>) -> String {
    client = client.max_decoding_message_size(POLICY_BYTES_MAX);
    let mut pause = CONTROL_RETRY_MIN;
    let mut whole = shared.discovery.load().slices.clone();
    loop {
        let request = WatchDiscoveryRequest {
            namespace: shared.config.namespace.clone(),
            workload: shared.config.workload.clone(),
            slices: u32::from(SLICES),
            has: whole.has(),
        };
        let ended = match client.watch_discovery(request).await {
            Ok(response) => listen(shared, response.into_inner(), whole, &mut pause).await,
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::info!("the controller tells discovery in one piece");
                return pending().await;
            }
            Err(status) => Ended::Broken(status.to_string()),
        };
        match ended {
            Ended::Broken(why) => return format!("discovery: {why}"),
            Ended::Refused(why) => {
                tracing::error!(
                    code = "MESH-0716",
                    why = %why,
                    "news of discovery cannot be used; the last one stays in force, and all is asked for anew"
                );
                shared.telemetry.count("mesh_discovery_refused_total");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CONTROL_RETRY_MAX);
        whole = Slices::default();
    }
}

async fn listen(
    shared: &Shared,
    mut updates: Streaming<DiscoveryUpdate>,
    whole: Slices,
    pause: &mut Duration,
) -> Ended {
    let mut receiver = Receiver::new(whole);
    loop {
        let message = match updates.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ended::Broken("the controller closed the stream".to_owned()),
            Err(status) => return Ended::Broken(status.to_string()),
        };
        match receiver.take(&message) {
            Ok(None) => {}
            Ok(Some(whole)) => {
                shared.install_slices(whole);
                *pause = CONTROL_RETRY_MIN;
            }
            Err(why) => return Ended::Refused(why),
        }
    }
}

#[cfg(test)]
mod tests;
