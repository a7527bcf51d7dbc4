//! Keeps the injector's authority in the two webhook configurations, and replaces certificate and authority in time.
//!
//! Both objects are watched, not asked again and again: when somebody applies them anew without `caBundle`, or a sibling
//! changes them, they are looked at and, only if ours is missing, changed.

use crate::InjectorError;
use crate::anchors;
use crate::authority::{Authority, seconds};
use crate::limits::{HANDOVER, RENEW_AFTER, RETRY_PAUSE, TICK};
use crate::state::Shared;
use futures_util::StreamExt;
use mesh_cluster::names::WEBHOOKS;
use mesh_kubernetes::KubernetesError;
use mesh_kubernetes::webhooks::{self, Configuration, Kind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{sleep, timeout};

/// Keeps everything in order; never ready.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let pods = async {
        if !shared.config.policies_only {
            watch(&shared, Kind::Mutating, 0).await;
        }
    };
    tokio::join!(pods, watch(&shared, Kind::Validating, 1), renew(&shared),);
}

/// Keeps one configuration; `which` is its place in [`Shared::known`].
async fn watch(shared: &Shared, kind: Kind, which: usize) {
    let mut events = webhooks::watch(&shared.client, kind, WEBHOOKS);
    let mut current: Option<Configuration> = None;
    loop {
        // The clock wakes too: an authority that is announced must be added though nobody touched the object.
        match timeout(TICK, events.next()).await {
            Ok(Some(Ok(object))) => current = object,
            Ok(Some(Err(error))) => {
                log(kind, &error.to_string());
                sleep(RETRY_PAUSE).await;
                continue;
            }
            Ok(None) => return,
            Err(_elapsed) => {}
        }
        let known = match &current {
            None => {
                log(kind, "there is no such object");
                false
            }
            Some(object) => match settle(shared, kind, object).await {
                Ok(known) => known,
                Err(error) => {
                    log(kind, &error.to_string());
                    sleep(RETRY_PAUSE).await;
                    false
                }
            },
        };
        if let Some(slot) = shared.known.get(which) {
            slot.store(known, Ordering::Release);
        }
    }
}

/// Adds the authority where it is missing. Whether it is there: after a change the watch tells, and not before.
async fn settle(
    shared: &Shared,
    kind: Kind,
    object: &Configuration,
) -> Result<bool, KubernetesError> {
    let (own, now) = (shared.anchor(), shared.now());
    let changes: Vec<(String, String)> = object
        .bundles
        .iter()
        .filter_map(|(name, bundle)| Some((name.clone(), anchors::with_own(bundle, &own, now)?)))
        .collect();
    if changes.is_empty() {
        return Ok(true);
    }
    // A sibling may have been faster: the watch then brings what it wrote.
    webhooks::set_bundles(&shared.client, kind, WEBHOOKS, &object.version, &changes).await?;
    Ok(false)
}

fn log(kind: Kind, why: &str) {
    let error = InjectorError::Webhooks {
        object: format!("{} {WEBHOOKS}", kind.name()),
        why: why.to_owned(),
    };
    tracing::warn!(code = "MESH-0753", "{error}");
}

/// Makes a new certificate in time: first its authority is announced, and only when API servers know that it is served with.
async fn renew(shared: &Shared) {
    loop {
        sleep(TICK).await;
        if !is_due(shared.now(), shared.serving.made_at()) {
            continue;
        }
        match Authority::new(&*shared.platform) {
            Ok(next) => {
                shared.announce(&next.anchor);
                // Both watches look again within a TICK of their own.
                sleep(TICK + HANDOVER).await;
                if shared.is_known_everywhere() {
                    shared.serving.replace(&next);
                    tracing::info!("a new certificate for the webhooks");
                } else {
                    tracing::warn!(
                        code = "MESH-0753",
                        "the next authority is not in the webhook configurations; the old certificate stays"
                    );
                }
            }
            Err(error) => tracing::error!(code = "MESH-0751", "{error}"),
        }
    }
}

/// Whether a certificate made at `made_at` is to be replaced at `now`. A clock that went back makes none valid longer.
fn is_due(now: i64, made_at: i64) -> bool {
    now.abs_diff(made_at) >= seconds(RENEW_AFTER).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LIFE;

    #[test]
    fn a_certificate_is_replaced_long_before_it_ends() {
        let made = 1_800_000_000;
        let (renew, life) = (seconds(RENEW_AFTER), seconds(LIFE));
        assert!(!is_due(made, made) && !is_due(made + renew - 1, made));
        assert!(is_due(made + renew, made) && is_due(made + life, made));
        assert!(
            is_due(made - renew, made),
            "the clock was set back by half a day"
        );
        assert!(renew + seconds(TICK + TICK + HANDOVER) < life);
    }
}
