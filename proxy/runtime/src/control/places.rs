//! Where everything is, as the controller tells it: in slices, of which those come that this proxy lacks.
//!
//! What is in force stays until a whole discovery is there to take its place ([`mesh_api::slices`]), whatever becomes of the
//! stream. The next stream goes on from it. After news that do not come to what they should the next one begins with nothing
//! instead, and brings all anew. What is wrong with discovery alone is waited out here: policy comes on the same connection.

use crate::limits::{CONTROL_RETRY_MIN, DISCOVERY_RETRY_MAX, POLICY_BYTES_MAX};
use crate::state::Shared;
use mesh_api::proto::policy_client::PolicyClient;
use mesh_api::proto::{DiscoveryUpdate, WatchDiscoveryRequest};
use mesh_api::slices::{Receiver, SLICES, SliceError};
use std::future::pending;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Why a stream of discovery ended.
enum Ended {
    /// What may as well be wrong with the whole connection, or with who asks.
    Broken(String),
    /// What came cannot be used.
    Refused(SliceError),
    /// The controller does not tell it.
    Untold(Status),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable
            | Code::Cancelled
            | Code::Unknown
            | Code::Unauthenticated
            | Code::PermissionDenied => Self::Broken(status.to_string()),
            _ => Self::Untold(status),
        }
    }
}

/// Follows discovery on a connection; says why that can be used no longer. Never ends with a controller that does not tell
/// discovery apart: it tells it beside the policy.
pub(super) async fn follow(shared: &Shared, mut client: PolicyClient<Channel>) -> String {
    client = client.max_decoding_message_size(POLICY_BYTES_MAX);
    let mut pause = CONTROL_RETRY_MIN;
    let mut anew = false;
    loop {
        let in_force = shared.discovery.load().slices.clone();
        let request = WatchDiscoveryRequest {
            namespace: shared.config.namespace.clone(),
            workload: shared.config.workload.clone(),
            slices: u32::from(SLICES),
            has: match anew {
                true => Vec::new(),
                false => in_force.has(),
            },
        };
        let ended = match client.watch_discovery(request).await {
            Ok(response) => {
                let receiver = match anew {
                    true => Receiver::anew(in_force),
                    false => Receiver::new(in_force),
                };
                listen(shared, response.into_inner(), receiver, &mut pause).await
            }
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::info!("the controller tells discovery in one piece");
                // Waits for as long as the connection stands: not with a state that others replace meanwhile.
                drop(in_force);
                return pending().await;
            }
            Err(status) => status.into(),
        };
        match ended {
            Ended::Broken(why) => return format!("discovery: {why}"),
            Ended::Refused(why) => {
                tracing::error!(
                    code = "MESH-0716",
                    why = %why,
                    ?pause,
                    "news of discovery cannot be used; the last one stays in force, and they are asked for again"
                );
                shared.telemetry.count("mesh_discovery_refused_total");
                // Anything else is wrong with the news, and would be so again.
                anew = matches!(why, SliceError::Digest);
            }
            Ended::Untold(status) => {
                if status.code() == Code::InvalidArgument {
                    // The next request would say the same.
                    pause = DISCOVERY_RETRY_MAX;
                }
                tracing::error!(
                    code = "MESH-0716",
                    why = %status,
                    ?pause,
                    "the controller does not tell discovery; the last one stays in force, and it is asked again"
                );
                shared.telemetry.count("mesh_discovery_refused_total");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DISCOVERY_RETRY_MAX);
    }
}

async fn listen(
    shared: &Shared,
    mut updates: Streaming<DiscoveryUpdate>,
    mut receiver: Receiver,
    pause: &mut Duration,
) -> Ended {
    loop {
        let message = match updates.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ended::Broken("the controller closed the stream".to_owned()),
            Err(status) => return status.into(),
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
