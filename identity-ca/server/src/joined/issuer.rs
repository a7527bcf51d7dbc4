//! SVIDs and tokens that a CA elsewhere issues to the processes of this machine.

use super::follow::{Ended, Replace, Told};
use super::state::Cache;
use crate::error::IssuanceError;
use crate::issuing::Turn;
use crate::jwt::{TokenError, TokenSource};
use crate::svids::{Issuer, Material, Slot};
use crate::trust::Requester;
use mesh_ca_client::node::{Asked, Held, NodeError, NodeLink};
use mesh_issuance::jwt::JwtRequest;
use mesh_platform::Platform;
use mesh_trust::jwt::JwtBundle;
use mesh_trust::{Denials, SpiffeId};
use std::sync::Arc;
use tokio::sync::watch;

/// A CA on another machine, as the issuer of this one's workloads.
pub(super) struct Elsewhere {
    link: NodeLink,
    replace: watch::Receiver<Replace>,
    keys: watch::Receiver<Arc<JwtBundle>>,
    denials: watch::Receiver<Arc<Denials>>,
    ended: Ended,
    cache: Cache,
    platform: Arc<dyn Platform>,
}

impl Elsewhere {
    pub(super) fn new(
        link: NodeLink,
        told: &Told,
        ended: Ended,
        cache: Cache,
        platform: Arc<dyn Platform>,
    ) -> Self {
        Self {
            link,
            replace: told.replace.subscribe(),
            keys: told.keys.subscribe(),
            denials: told.denials.subscribe(),
            ended,
            cache,
            platform,
        }
    }

    /// Keeps what was issued for an outage; that it cannot be kept is no reason to withhold it.
    async fn keep(&self, material: &Material) {
        let kept = self.cache.kept(material);
        let identity = material.identity.clone();
        let written = tokio::task::spawn_blocking(move || {
            if let Err(error) = kept.write() {
                tracing::warn!(%error, %identity, "an SVID could not be kept for an outage of the CA");
            }
        });
        let _ = written.await;
    }

    /// The last SVID of an identity, while its CA cannot be reached.
    async fn kept(&self, identity: &SpiffeId) -> Option<Material> {
        let (cache, identity) = (self.cache.clone(), identity.clone());
        let (denials, now) = (self.denials.borrow().clone(), self.platform.wall_clock());
        let found = tokio::task::spawn_blocking(move || cache.find(&identity, &denials, now));
        found.await.ok().flatten()
    }
}

fn material(held: &Held) -> Material {
    let svid = held.tls.svid();
    Material {
        identity: svid.id().clone(),
        chain: svid.chain().to_vec(),
        key: held.pkcs8.clone(),
        not_after: svid.not_after(),
        serial: svid.serial().to_owned(),
        authority: None,
    }
}

#[tonic::async_trait]
impl Issuer for Elsewhere {
    async fn issue(
        &self,
        identity: &SpiffeId,
        requester: Requester,
        turn: Turn,
    ) -> Result<Material, IssuanceError> {
        let asked = Asked {
            identity: identity.clone(),
            process: requester.instance.unwrap_or_default(),
            evidence: requester.evidence,
            renewal: turn == Turn::Renewal,
        };
        let error = match self.link.certify(&asked).await {
            Ok(held) => {
                let material = material(&held);
                self.keep(&material).await;
                return Ok(material);
            }
            Err(error) => error,
        };
        // Who renews has one in force. A refusal is an answer, and an old SVID no way around it.
        if turn == Turn::First
            && matches!(error, NodeError::Unreachable { .. })
            && let Some(kept) = self.kept(identity).await
        {
            tracing::warn!(%error, %identity, not_after = %kept.not_after, "the CA cannot be reached; a process gets the last SVID of its identity");
            return Ok(kept);
        }
        Err(IssuanceError::Elsewhere {
            why: error.to_string(),
        })
    }

    async fn misplaced(&self, slot: &watch::Sender<Slot>, _owner: (&SpiffeId, Requester)) {
        let mut replace = self.replace.clone();
        let named = |replace: &Replace| match &*slot.borrow() {
            Slot::Ready(material) => replace.contains(&material.serial),
            Slot::Pending | Slot::Unavailable(_) => false,
        };
        if replace.wait_for(named).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn ended(&self, process: &str) {
        self.ended.note(process);
    }
}

#[tonic::async_trait]
impl TokenSource for Elsewhere {
    fn bundle(&self) -> watch::Receiver<Arc<JwtBundle>> {
        self.keys.clone()
    }

    async fn mint(&self, request: &JwtRequest) -> Result<String, TokenError> {
        let minted = self.link.mint(&request.id, &request.audience).await;
        minted.map_err(|error| {
            TokenError::Elsewhere(IssuanceError::Elsewhere {
                why: error.to_string(),
            })
        })
    }
}
