//! The proxy as a verifier: takes bundles from the CA's trust stream, tries the canary with the verifier in force, and
//! acknowledges.
//!
//! While the stream has given a bundle, that one is applied, not what comes with the SVID: two streams have no order
//! between them, and an older bundle must never replace a newer one. A Workload API that has no such stream (SPIRE's)
//! gives bundles with the SVID as ever.

use crate::config::IdentitySource;
use crate::denials;
use crate::identity::{self, Identity};
use crate::limits::{CONTROL_RETRY_MAX, CONTROL_RETRY_MIN};
use crate::state::Shared;
use mesh_api::trust::{Outcome, TrustStreamError, Update, channel, follow};
use mesh_ca_client::RemoteCa;
use mesh_trust::tls;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The CA that gives the SVID, where it has a trust stream.
enum Ca<'a> {
    Socket(&'a Path),
    Network(&'a RemoteCa),
}

impl<'a> Ca<'a> {
    fn of(source: &'a IdentitySource) -> Option<Self> {
        match source {
            IdentitySource::WorkloadApi(endpoint) => {
                let socket = endpoint.strip_prefix("unix:")?;
                Some(Self::Socket(Path::new(
                    socket.strip_prefix("//").unwrap_or(socket),
                )))
            }
            IdentitySource::Ca(ca) => Some(Self::Network(ca)),
            IdentitySource::Files { .. } => None,
        }
    }

    async fn follow(
        &self,
        shared: &Shared,
        identity: &Identity,
        apply: impl FnMut(&Update, bool) -> Option<Outcome>,
    ) -> Result<(), TrustStreamError> {
        match self {
            Self::Socket(socket) => {
                follow(&socket.display().to_string(), channel(socket)?, apply).await
            }
            Self::Network(ca) => {
                let bundles = Arc::clone(&identity.bundles);
                let channel = mesh_ca_client::connect(ca, identity.tls(), bundles).await?;
                // One connection for both: thousands of proxies hold one each.
                tokio::select! {
                    ended = follow(&ca.address, channel.clone(), apply) => ended,
                    never = denials::follow_beside(shared, &channel) => match never {},
                }
            }
        }
    }
}

/// Follows the trust stream of the CA that gives the SVID, for as long as the proxy lives.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    let Some(ca) = Ca::of(&shared.config.identity) else {
        return;
    };
    let mut pause = CONTROL_RETRY_MIN;
    let mut changes = shared.watch_changes();
    loop {
        // The CA asks whoever has an SVID; before that there is nothing to answer with.
        let Some(identity) = shared.identity.load_full() else {
            // An error means that the proxy was dropped.
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut reported = None;
        let apply = |update: &Update, again: bool| {
            // A new SVID is acknowledged too: the CA learns that the one before is not shown any more.
            if again && reported == Some(report(&shared)) {
                return None;
            }
            let outcome = take(&shared, update);
            if !again && outcome.is_some() {
                shared.steering.heard(update);
            }
            reported = outcome.is_some().then(|| report(&shared));
            outcome
        };
        let ended = ca.follow(&shared, &identity, apply).await;
        pause = if reported.is_some() {
            CONTROL_RETRY_MIN
        } else {
            (pause * 2).min(CONTROL_RETRY_MAX)
        };
        match ended {
            Ok(()) => {}
            // One on the network is the mesh's own, and may be of a version that is about to be replaced.
            Err(error @ TrustStreamError::NotServed { .. }) if matches!(ca, Ca::Socket(_)) => {
                return tracing::info!(%error, "bundles come with the SVID");
            }
            Err(error) => tracing::warn!(%error, "trying again; the last bundle stays in force"),
        }
        tokio::time::sleep(pause).await;
    }
}

/// What an acknowledgment says beyond its generation: SVID in use, handshakes refused.
fn report(shared: &Shared) -> (u64, u64) {
    let version = shared
        .identity
        .load()
        .as_ref()
        .map_or(0, |identity| identity.rotations);
    (version, shared.refused_handshakes.load(Ordering::Relaxed))
}

/// Puts the bundles of an update into force and says what the verifier in force makes of the canary.
fn take(shared: &Shared, update: &Update) -> Option<Outcome> {
    if let Err(why) = identity::install_bundles(shared, update.generation, &update.bundles) {
        tracing::error!(
            generation = update.generation,
            why,
            "the bundle cannot be used; the last one stays in force"
        );
        return None;
    }
    let identity = shared.identity.load_full()?;
    let now = shared.platform.wall_clock();
    let canary = tls::check_chain(&identity.bundles, update.canary.chain(), now);
    if let Err(why) = &canary {
        tracing::error!(generation = update.generation, %why, "the canary is refused");
    }
    Some(Outcome {
        identity: identity.tls().clone(),
        canary: canary.map(drop).map_err(|why| why.to_string()),
        now,
        refused_handshakes: shared.refused_handshakes.load(Ordering::Relaxed),
    })
}
