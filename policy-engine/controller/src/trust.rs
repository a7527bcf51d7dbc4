//! The controller as a verifier: takes bundles from the CA's trust stream, tries the canary, acknowledges; see the same
//! part of the proxy.

use crate::config::IdentitySource;
use crate::identity::Identity;
use crate::limits::IDENTITY_RETRY;
use crate::state::Shared;
use mesh_api::trust::{Outcome, TrustStreamError, Update, channel, follow};
use mesh_trust::tls;
use std::sync::Arc;

/// Follows the trust stream; ends only if the source of identity has none.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    let source = shared.config.identity.clone();
    if matches!(source, IdentitySource::Files { .. }) {
        return;
    }
    let mut identity = shared.identity.subscribe();
    loop {
        let current = match identity.wait_for(Option::is_some).await {
            Ok(current) => current.clone(),
            Err(_) => return,
        };
        let Some(current) = current else { continue };
        let mut acknowledged = None;
        let apply = |update: &Update, again: bool| {
            // A new SVID is acknowledged too: the CA learns that the one before is not shown any more.
            let serial = shared
                .identity
                .borrow()
                .as_ref()
                .map(|identity| identity.serial.clone());
            if again && acknowledged == serial {
                return None;
            }
            let outcome = take(&shared, update)?;
            if !again {
                shared.steering.heard(update);
            }
            acknowledged = Some(outcome.identity.svid().serial().to_owned());
            Some(outcome)
        };
        match follow_at(&source, &current, apply).await {
            Ok(()) => {}
            // One on the network is the mesh's own, and may be of a version that is about to be replaced.
            Err(error @ TrustStreamError::NotServed { .. })
                if matches!(source, IdentitySource::WorkloadApi(_)) =>
            {
                return tracing::info!(%error, "bundles come with the SVID");
            }
            Err(error) => tracing::warn!(%error, "trying again; the last bundle stays in force"),
        }
        tokio::time::sleep(IDENTITY_RETRY.0).await;
    }
}

/// Follows the stream of whoever gives the SVID, as its holder.
async fn follow_at(
    source: &IdentitySource,
    identity: &Identity,
    apply: impl FnMut(&Update, bool) -> Option<Outcome>,
) -> Result<(), TrustStreamError> {
    match source {
        IdentitySource::WorkloadApi(socket) => {
            follow(&socket.display().to_string(), channel(socket)?, apply).await
        }
        IdentitySource::Ca(ca) => {
            let bundles = Arc::clone(&identity.bundles);
            let channel = mesh_ca_client::connect(ca, &identity.tls, bundles).await?;
            follow(&ca.address, channel, apply).await
        }
        IdentitySource::Files { .. } => Ok(()),
    }
}

/// Puts the bundles of an update into force and says what the verifier in force makes of the canary.
fn take(shared: &Shared, update: &Update) -> Option<Outcome> {
    match install(shared, update) {
        Ok(identity) => {
            let now = shared.platform.wall_clock();
            let canary = tls::check_chain(&identity.bundles, update.canary.chain(), now);
            Some(Outcome {
                identity: identity.tls.clone(),
                canary: canary.map(drop).map_err(|why| why.to_string()),
                now,
                refused_handshakes: 0,
            })
        }
        Err(why) => {
            tracing::error!(
                generation = update.generation,
                why,
                "the bundle cannot be used; the last one stays in force"
            );
            None
        }
    }
}

fn install(shared: &Shared, update: &Update) -> Result<Arc<Identity>, String> {
    let domain = shared.config.trust_domain();
    if update
        .bundles
        .get(domain)
        .is_none_or(|own| own.anchors().is_empty())
    {
        return Err(format!("it has no anchor of `{domain}`"));
    }
    let mut streamed = shared.streamed_bundles();
    if let Some((held, _)) = &*streamed
        && *held > update.generation
    {
        return Err(format!("generation {} after {held}", update.generation));
    }
    let current = shared
        .identity
        .borrow()
        .clone()
        .ok_or("there is no SVID yet")?;
    *streamed = Some((update.generation, update.bundles.clone()));
    if *current.bundles == update.bundles {
        return Ok(current);
    }
    let identity = Arc::new(Identity::of(current.tls.clone(), update.bundles.clone())?);
    tracing::info!(generation = update.generation, "trust bundle in force");
    shared.identity.send_replace(Some(Arc::clone(&identity)));
    Ok(identity)
}
