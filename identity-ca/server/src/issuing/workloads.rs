//! The CA as the issuer of its own machine's workloads.

use super::{Issuing, Turn};
use crate::error::IssuanceError;
use crate::signer;
use crate::svids::{Issuer, Material, Slot};
use crate::trust::{Published, Requester};
use mesh_issuance::issue::Request;
use mesh_trust::SpiffeId;
use std::sync::Arc;
use tokio::sync::watch;

#[tonic::async_trait]
impl Issuer for Issuing {
    async fn issue(
        &self,
        identity: &SpiffeId,
        requester: Requester,
        turn: Turn,
    ) -> Result<Material, IssuanceError> {
        let (pkcs8, key) = signer::generate()?;
        let request = Request {
            id: identity.clone(),
            key,
            lifetime_secs: None,
            backdate_secs_max: None,
        };
        let chain = Issuing::issue(self, request, requester, turn).await?;
        Ok(Material {
            identity: chain.leaf.id().clone(),
            chain: chain.whole(),
            key: pkcs8,
            not_after: chain.leaf.validity().not_after,
            serial: chain.leaf.serial().to_hex(),
            authority: Some(chain.authority),
        })
    }

    async fn misplaced(
        &self,
        slot: &watch::Sender<Slot>,
        (identity, requester): (&SpiffeId, Requester),
    ) {
        let holder = requester.holder(identity);
        let elsewhere = |published: &Arc<Published>| match (&*slot.borrow(), &holder) {
            (Slot::Ready(material), Some(holder)) => {
                material.authority.as_ref() != Some(published.state.authority_for(holder))
            }
            _ => false,
        };
        if self.published().wait_for(elsewhere).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
