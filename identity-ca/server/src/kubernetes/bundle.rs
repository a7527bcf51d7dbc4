//! Our trust bundle as a ClusterTrustBundle of our signer, where the API server has them: kubelets put it into volumes.
//!
//! It is written when the bundle changes, and when the object is not what we wrote; nothing is asked for in between.

use super::served;
use super::signing::Signing;
use crate::limits::PUBLISH_RETRY;
use mesh_issuance::attestation::pod_certificate::SIGNER;
use mesh_kubernetes::kinds::CLUSTER_TRUST_BUNDLE;
use mesh_kubernetes::trust_bundle::{self, Bundle, Held};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Name of the object: API servers demand the signer's in front.
pub const TRUST_BUNDLE: &str = "mesh.internal:identity:bundle";

/// Longest pause before a bundle that was refused is written again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Keeps the bundle published for as long as it is polled, once the API server has such bundles.
pub(crate) async fn keep(signing: Signing) -> Infallible {
    let without = "the trust bundle is in ConfigMaps alone";
    let version = served(&signing.client, &CLUSTER_TRUST_BUNDLE, without).await;
    // None: not looked at yet.
    let (seen, mut seen_by_us) = watch::channel(None::<Option<Held>>);
    let look = trust_bundle::follow(&signing.client, version, TRUST_BUNDLE, move |held| {
        seen.send_replace(Some(held));
    });
    tokio::pin!(look);
    let mut published = signing.issuing.published();
    let mut pause = PUBLISH_RETRY;
    let mut said = String::new();
    loop {
        let wanted = wanted(&signing);
        let stands = seen_by_us.borrow_and_update().clone();
        let differs = stands.is_some_and(|held| !held.is_some_and(|held| wanted.is(&held)));
        if differs {
            match trust_bundle::apply(&signing.client, version, &wanted).await {
                Ok(()) => {
                    tracing::info!(
                        generation = wanted.generation,
                        name = TRUST_BUNDLE,
                        "published the trust bundle"
                    );
                    (pause, said) = (PUBLISH_RETRY, String::new());
                }
                Err(error) => {
                    let why = error.to_string();
                    if why != said {
                        tracing::error!(
                            why,
                            "the ClusterTrustBundle could not be published; trying again"
                        );
                        said = why;
                    }
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(PAUSE_MAX);
                    continue;
                }
            }
        }
        tokio::select! {
            // The watch never ends.
            () = &mut look => return std::future::pending().await,
            _ = seen_by_us.changed() => {}
            stepped = published.changed() => if stepped.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

fn wanted(signing: &Signing) -> Bundle {
    let published = signing.issuing.published().borrow().clone();
    let anchors = published.bundles.get(&signing.domain);
    let anchors = anchors.map_or(&[][..], |bundle| bundle.anchors());
    Bundle {
        name: TRUST_BUNDLE.to_owned(),
        signer: SIGNER.to_owned(),
        pem: mesh_trust::bundle::to_pem(anchors),
        generation: published.state.generation,
    }
}
