//! The agent as a verifier of its CA: a rotation waits for it as for everybody who verifies, and it acknowledges a bundle
//! once it believes it, with what its real verifier says of the canary.

use crate::limits::NODE_RETRY;
use mesh_api::trust::{Outcome, Update, follow};
use mesh_ca_client::node::NodeLink;
use mesh_platform::Platform;
use mesh_trust::tls;
use std::convert::Infallible;
use std::sync::Arc;

/// Acknowledges for ever, as the node.
pub(super) async fn acknowledge(link: NodeLink, platform: Arc<dyn Platform>) -> Infallible {
    let mut pause = NODE_RETRY.0;
    loop {
        let mut said = None;
        let ended = match link.connect_as(&link.identity()).await {
            Ok(channel) => {
                let apply = |update: &Update, _again: bool| {
                    let outcome = outcome(&link, update, &*platform)?;
                    let saying = (
                        update.generation,
                        outcome.identity.svid().serial().to_owned(),
                    );
                    if said.as_ref() == Some(&saying) {
                        return None;
                    }
                    said = Some(saying);
                    Some(outcome)
                };
                let ended = follow(link.address(), channel, apply).await;
                ended.err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        tracing::debug!(why = ended, "the trust stream of the node ended");
        pause = if said.is_some() {
            NODE_RETRY.0
        } else {
            (pause * 2).min(NODE_RETRY.1)
        };
        tokio::time::sleep(pause).await;
    }
}

/// What comes of an update; nothing while the bundle in force is older: it is told on the node's own stream.
fn outcome(link: &NodeLink, update: &Update, platform: &dyn Platform) -> Option<Outcome> {
    let bundles = link.bundles();
    let held = bundles.get(link.domain())?.sequence()?;
    if held < update.generation {
        return None;
    }
    let now = platform.wall_clock();
    let canary = tls::check_chain(&bundles, update.canary.chain(), now);
    Some(Outcome {
        identity: link.identity(),
        canary: canary.map(drop).map_err(|why| why.to_string()),
        now,
        refused_handshakes: 0,
    })
}
