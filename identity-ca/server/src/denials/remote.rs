//! The deny list for verifiers that no Unix socket reaches: pods' proxies, and the controller.
//!
//! Who follows it is whoever the SVID on the connection names, and which of its processes that is says the serial number,
//! as in [`crate::trust::remote`]. Whom the list denies is not told of it.

use super::{Follower, ListSource};
use crate::agent::nobody;
use crate::error::coded;
use crate::issuing::Issuing;
use crate::limits::{ATTESTATION_WAIT, TRUST_STREAMS_MAX};
use mesh_api::accept::Caller;
use mesh_api::proto::denials_server::Denials as DenialsService;
use mesh_api::proto::{DenialsAck, DenialsUpdate};
use mesh_trust::{Denials, Denied, VerifiedPeer};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Streams the list over the network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RemoteDenials {
    issuing: Issuing,
    list: ListSource,
    places: Arc<Semaphore>,
    /// True once the CA ends.
    stopping: watch::Receiver<bool>,
}

/// Whether `peer` is on the list itself.
pub(crate) fn is_denied(list: &Denials, peer: &VerifiedPeer) -> bool {
    list.denies_identity(peer.id()) || list.contains(&Denied::Serial(peer.serial().to_owned()))
}

impl RemoteDenials {
    pub(crate) fn new(issuing: Issuing, list: ListSource, stopping: watch::Receiver<bool>) -> Self {
        Self {
            issuing,
            list,
            places: Arc::new(Semaphore::new(TRUST_STREAMS_MAX)),
            stopping,
        }
    }

    /// Which process of its identity the peer is.
    async fn follower(&self, peer: &VerifiedPeer) -> Result<Follower, Status> {
        let (id, serial) = (peer.id().clone(), peer.serial().to_owned());
        let found = self.issuing.with_desk(move |desk| {
            let holder = desk.trust.roster.holder_of(&id, &serial)?;
            Some(holder.instance.clone())
        });
        let found = found
            .await
            .map_err(|error| Status::unavailable(coded(&error)))?;
        let instance = found
            .ok_or_else(|| Status::failed_precondition("no SVID of this process is in force"))?;
        Ok(Follower {
            id: peer.id().clone(),
            pid: 0,
            instance,
        })
    }

    async fn stream(
        &self,
        peer: &VerifiedPeer,
        mut acks: Streaming<DenialsAck>,
        out: &mpsc::Sender<Result<DenialsUpdate, Status>>,
    ) -> Result<(), Status> {
        let enforcing = self.list.enforcers.begin(self.follower(peer).await?);
        let mut lists = self.list.lists.clone();
        let mut stopping = self.stopping.clone();
        lists.mark_changed();
        loop {
            if lists.has_changed().unwrap_or(false) {
                let list = lists.borrow_and_update().clone();
                if is_denied(&list, peer) {
                    return Err(nobody());
                }
                let list_json = list.to_json().into_bytes();
                if out.send(Ok(DenialsUpdate { list_json })).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                ack = acks.message() => match ack? {
                    Some(ack) => self.list.acknowledged(&enforcing, ack.generation),
                    None => return Ok(()),
                },
                changed = lists.changed() => match changed {
                    Ok(()) => lists.mark_changed(),
                    Err(_) => return Err(Status::unavailable("the CA is stopping")),
                },
                _ = stopping.wait_for(|stopping| *stopping) => {
                    return Err(Status::unavailable("the CA is stopping"));
                }
                () = out.closed() => return Ok(()),
            }
        }
    }
}

#[tonic::async_trait]
impl DenialsService for RemoteDenials {
    type WatchStream = ReceiverStream<Result<DenialsUpdate, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<DenialsAck>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = request.extensions().get::<Caller>();
        let peer = caller.and_then(|caller| caller.peer.clone());
        let peer = peer.ok_or_else(nobody)?;
        let place =
            tokio::time::timeout(ATTESTATION_WAIT, Arc::clone(&self.places).acquire_owned());
        let place = place
            .await
            .map_err(|_elapsed| Status::resource_exhausted("too many streams of the deny list"))?
            .map_err(|_| nobody())?;
        let this = self.clone();
        let acks = request.into_inner();
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            let _place = place;
            if let Err(status) = this.stream(&peer, acks, &out).await {
                // Nobody listens: nothing to say.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
