//! The trust stream for verifiers that no Unix socket reaches: pods' proxies, and the controller.
//!
//! Who calls is whoever the SVID on the connection names, and which of its processes that is says the serial number: this
//! CA noted at the issuance for which pod it was. An acknowledgment counts if the key of an SVID of the same identity
//! signed it, and only for the pod that this SVID was issued to.

use super::service::{Following, Updates, close, nobody, streaming, verify};
use crate::error::coded;
use crate::issuing::Issuing;
use crate::limits::{ATTESTATION_WAIT, PODS_LOOK, TRUST_STREAMS_MAX};
use crate::network::Cluster;
use crate::trust::error::TrustError;
use mesh_api::accept::Caller;
use mesh_api::proto::trust_server::Trust as TrustService;
use mesh_api::proto::{AcknowledgeReply, TrustAcknowledgment, TrustUpdate, WatchTrustRequest};
use mesh_issuance::rotation::{Holder, Phase};
use mesh_platform::Platform;
use mesh_trust::VerifiedPeer;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Request, Response, Status};

/// Answers verifiers on the network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RemoteTrust {
    issuing: Issuing,
    platform: Arc<dyn Platform>,
    places: Arc<Semaphore>,
    /// True once the CA ends.
    stopping: watch::Receiver<bool>,
}

/// Who proved to be at the other end.
fn peer<T>(request: &Request<T>) -> Result<VerifiedPeer, Status> {
    let caller = request.extensions().get::<Caller>();
    caller
        .and_then(|caller| caller.peer.clone())
        .ok_or_else(nobody)
}

impl RemoteTrust {
    pub(crate) fn new(
        issuing: Issuing,
        platform: Arc<dyn Platform>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            issuing,
            platform,
            places: Arc::new(Semaphore::new(TRUST_STREAMS_MAX)),
            stopping,
        }
    }

    /// Opens the stream of the pod that `peer` is.
    async fn open(&self, peer: &VerifiedPeer) -> Result<(Holder, u64), Status> {
        let (id, serial) = (peer.id().clone(), peer.serial().to_owned());
        let opened = self.issuing.with_desk(move |desk| {
            let holder = desk.trust.roster.holder_of(&id, &serial)?.clone();
            let stream = desk.trust.roster.opened(&holder)?;
            Some((holder, stream))
        });
        let opened = opened
            .await
            .map_err(|error| Status::unavailable(coded(&error)))?;
        // An SVID whose successor was acknowledged already, or one that this CA knows nothing of.
        opened.ok_or_else(|| Status::failed_precondition("no SVID of this process is in force"))
    }

    async fn stream(
        &self,
        peer: &VerifiedPeer,
        out: &mpsc::Sender<Result<TrustUpdate, Status>>,
    ) -> Result<(), Status> {
        let (holder, stream) = self.open(peer).await?;
        let following = Following {
            issuing: &self.issuing,
            holder: &holder,
            stream,
            pushed: false,
            stopping: self.stopping.clone(),
        };
        let outcome = following.send(out, || true).await;
        close(&self.issuing, holder, stream).await?;
        outcome
    }

    async fn answer(
        &self,
        peer: &VerifiedPeer,
        ack: &TrustAcknowledgment,
    ) -> Result<(), TrustError> {
        let published = self.issuing.published().borrow().clone();
        let (signer, ack) = verify(ack, &published.bundles, self.platform.wall_clock())?;
        if signer.id() != peer.id() {
            return Err(TrustError::OthersAck {
                id: signer.id().clone(),
                by: peer.id().clone(),
            });
        }
        self.issuing
            .with_desk(move |desk| {
                let holder = desk.trust.roster.holder_of(signer.id(), &ack.serial);
                let holder = holder.cloned().ok_or_else(|| TrustError::UnknownSvid {
                    id: signer.id().clone(),
                    serial: ack.serial.clone(),
                })?;
                desk.acknowledge(&holder, &ack)
            })
            .await??;
        self.issuing.trust_moved();
        Ok(())
    }
}

/// While a rotation waits, finds out which of the pods that it waits for have ended: such a pod verifies nobody, though
/// its SVID is good for hours. A pod that nothing is known of is waited for.
pub(crate) async fn forget_ended_pods(issuing: Issuing, cluster: Arc<dyn Cluster>) {
    let mut published = issuing.published();
    loop {
        let rotating = |phase: &Phase| !matches!(phase, Phase::Steady { .. });
        if published
            .wait_for(|published| rotating(&published.state.phase))
            .await
            .is_err()
        {
            return;
        }
        let away = issuing
            .with_desk(|desk| desk.pods_away())
            .await
            .unwrap_or_default();
        // Several identities may be of one pod.
        let mut ended = BTreeMap::new();
        for (holder, pod) in away {
            let known = ended.get(&pod).copied();
            let gone = match known {
                Some(gone) => gone,
                None => match cluster.pod(&pod.namespace, &pod.name).await {
                    Ok(found) => pod.has_ended(found.as_ref()),
                    Err(why) => {
                        tracing::warn!(why, %pod, "cannot find out whether a pod has ended; the rotation waits for it");
                        false
                    }
                },
            };
            ended.insert(pod, gone);
            if gone {
                let forgotten = issuing.with_desk(move |desk| {
                    tracing::info!(id = %holder.id, instance = holder.instance, "the pod has ended; the rotation does not wait for it");
                    desk.trust.roster.ended(&holder);
                });
                let _ = forgotten.await;
                issuing.trust_moved();
            }
        }
        tokio::time::sleep(PODS_LOOK).await;
    }
}

#[tonic::async_trait]
impl TrustService for RemoteTrust {
    type WatchStream = Updates;

    async fn watch(
        &self,
        request: Request<WatchTrustRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = peer(&request)?;
        let place =
            tokio::time::timeout(ATTESTATION_WAIT, Arc::clone(&self.places).acquire_owned());
        let place = place
            .await
            .map_err(|_elapsed| Status::resource_exhausted("too many trust streams"))?
            .map_err(|_| nobody())?;
        let this = self.clone();
        Ok(streaming(place, |out| async move {
            this.stream(&peer, &out).await
        }))
    }

    async fn acknowledge(
        &self,
        request: Request<TrustAcknowledgment>,
    ) -> Result<Response<AcknowledgeReply>, Status> {
        let peer = peer(&request)?;
        match self.answer(&peer, request.get_ref()).await {
            Ok(()) => Ok(Response::new(AcknowledgeReply {})),
            Err(error) => {
                tracing::info!(id = %peer.id(), %error, "an acknowledgment counts for nothing");
                Err(Status::failed_precondition(coded(&error)))
            }
        }
    }
}
