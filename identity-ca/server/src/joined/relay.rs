//! The CA's trust stream for the proxies of this machine: each on a connection of its own, as the workload that it is.
//!
//! An acknowledgment counts only from whoever it is about, so the agent does not speak for its proxies: it passes on what
//! they sign themselves, to a CA that knows their SVIDs.

use crate::agent::{Agent, Caller, nobody};
use crate::error::coded;
use crate::limits::TRUST_STREAMS_PER_PROCESS_MAX;
use crate::listen::{Counted, Counts};
use crate::svids::Material;
use crate::trust::service::{Updates, streaming};
use mesh_api::proto::trust_client::TrustClient;
use mesh_api::proto::trust_server::Trust as TrustService;
use mesh_api::proto::{AcknowledgeReply, TrustAcknowledgment, TrustUpdate, WatchTrustRequest};
use mesh_ca_client::node::NodeLink;
use mesh_trust::Svid;
use mesh_trust::tls::TlsIdentity;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Passes the trust stream on. Cheap to clone.
#[derive(Clone)]
pub(super) struct RelayedTrust {
    agent: Agent,
    link: NodeLink,
    streams: Counts,
    /// By pid: the connection of whoever follows, for its acknowledgments.
    channels: Arc<Mutex<HashMap<u32, Arc<Channel>>>>,
}

/// A process that follows, until it goes.
struct Follows {
    relay: RelayedTrust,
    pid: u32,
    channel: Arc<Channel>,
}

impl Drop for Follows {
    fn drop(&mut self) {
        let mut channels = self.relay.channels();
        // It may have connected anew before the end of its first stream was noticed.
        if channels
            .get(&self.pid)
            .is_some_and(|held| Arc::ptr_eq(held, &self.channel))
        {
            channels.remove(&self.pid);
        }
    }
}

fn identity(material: &Material) -> Result<TlsIdentity, Status> {
    let unusable = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let svid = Svid::parse(material.chain.clone()).map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(material.key.to_vec()));
    TlsIdentity::new(svid, key).map_err(|error| unusable(&error))
}

impl RelayedTrust {
    pub(super) fn new(agent: Agent, link: NodeLink) -> Self {
        Self {
            agent,
            link,
            streams: Counts::default(),
            channels: Arc::default(),
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<u32, Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stream(
        &self,
        caller: &Caller,
        out: &mpsc::Sender<Result<TrustUpdate, Status>>,
    ) -> Result<(), Status> {
        let entitled = caller.attest().await?;
        let mut waits = caller.waits_with_svids(&entitled)?;
        let first = loop {
            caller.recheck(&entitled)?;
            if let Some((svids, _)) = waits.state()? {
                break svids.first().cloned().ok_or_else(nobody)?;
            }
            caller.wait(&mut waits, out).await?;
        };
        let connected = self.link.connect_as(&identity(&first)?).await;
        let channel = connected.map_err(|error| Status::unavailable(coded(&error)))?;
        let mut updates = TrustClient::new(channel.clone())
            .watch(WatchTrustRequest {})
            .await?
            .into_inner();
        let channel = Arc::new(channel);
        self.channels().insert(caller.pid(), Arc::clone(&channel));
        let _follows = Follows {
            relay: self.clone(),
            pid: caller.pid(),
            channel,
        };
        loop {
            caller.recheck(&entitled)?;
            tokio::select! {
                update = updates.message() => {
                    let ended = || Status::unavailable("the CA's trust stream ended");
                    let update = update?.ok_or_else(ended)?;
                    if out.send(Ok(update)).await.is_err() {
                        return Ok(());
                    }
                }
                waited = caller.wait(&mut waits, out) => {
                    waited?;
                    // Marks what changed as seen.
                    let _ = waits.state();
                    let _ = waits.tokens();
                }
            }
        }
    }
}

#[tonic::async_trait]
impl TrustService for RelayedTrust {
    type WatchStream = Updates;

    async fn watch(
        &self,
        request: Request<WatchTrustRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.agent.caller(&request)?;
        let counted: Counted = self
            .streams
            .take(caller.pid(), TRUST_STREAMS_PER_PROCESS_MAX, usize::MAX)
            .ok_or_else(|| Status::resource_exhausted("too many trust streams of one process"))?;
        let this = self.clone();
        Ok(streaming(counted, |out| async move {
            this.stream(&caller, &out).await
        }))
    }

    async fn acknowledge(
        &self,
        request: Request<TrustAcknowledgment>,
    ) -> Result<Response<AcknowledgeReply>, Status> {
        let caller = self.agent.caller(&request)?;
        let channel = self.channels().get(&caller.pid()).cloned();
        let channel =
            channel.ok_or_else(|| Status::failed_precondition("open the trust stream first"))?;
        TrustClient::new(Channel::clone(&channel))
            .acknowledge(request.into_inner())
            .await
    }
}
