//! The trust stream: bundles with their generation and canary to every verifier, and its acknowledgments.
//!
//! It stands on the socket of the Workload API, so the kernel says who calls, and attestation who that is. An
//! acknowledgment counts if the process that sends it is the one that was asked, and if the key of an SVID that this CA
//! issued to that process signed it.

use super::error::TrustError;
use super::{Published, instance};
use crate::error::coded;
use crate::issuing::Issuing;
use crate::limits::{ATTESTATION_WAIT, CANARY_RESEND, TRUST_STREAMS_PER_PROCESS_MAX};
use crate::listen::{Counted, Counts, Peer};
use crate::registry::Registry;
use mesh_api::proto::trust_server::Trust as TrustService;
use mesh_api::proto::{AcknowledgeReply, TrustAcknowledgment, TrustUpdate, WatchTrustRequest};
use mesh_api::trust::{PURPOSE, octets};
use mesh_issuance::rotation::roster::Acknowledgment;
use mesh_issuance::rotation::{AuthorityId, Holder};
use mesh_platform::Platform;
use mesh_trust::{Svid, Timestamp, TrustBundles, VerifiedPeer, statement};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Letters of a refusal that are kept.
const REFUSAL_CHARS_MAX: usize = 500;

/// Answers verifiers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TrustStreams {
    pub(crate) registry: Registry,
    pub(crate) issuing: Issuing,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) streams: Counts,
    /// True once the CA ends.
    pub(crate) stopping: watch::Receiver<bool>,
}

pub(crate) fn nobody() -> Status {
    Status::permission_denied("no identity issued")
}

/// Which process calls, and which instances of which identities it is.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(nobody)
}

/// One verifier that is told of every step.
pub(crate) struct Following<'a> {
    pub(crate) issuing: &'a Issuing,
    pub(crate) holder: &'a Holder,
    pub(crate) stream: u64,
    /// Whether it gets its SVIDs pushed; else it is told when to ask for one.
    pub(crate) pushed: bool,
    /// True once the CA ends.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Following<'_> {
    /// Sends updates for as long as somebody reads them and `entitled` holds.
    pub(crate) async fn send(
        &self,
        out: &mpsc::Sender<Result<TrustUpdate, Status>>,
        entitled: impl Fn() -> bool,
    ) -> Result<(), Status> {
        let mut published = self.issuing.published();
        let mut stopping = self.stopping.clone();
        let stopped = || Status::unavailable("the CA is stopping");
        loop {
            let told = self.concern(&published.borrow_and_update());
            if !entitled() {
                return Err(nobody());
            }
            let (holder, stream) = (self.holder.clone(), self.stream);
            let update = self
                .issuing
                .with_desk(move |desk| desk.trust_update(&holder, stream));
            let update = update
                .await
                .map_err(|error| Status::unavailable(coded(&error)))?;
            let update = update.map_err(|error| Status::unavailable(coded(&error)))?;
            if out.send(Ok(update)).await.is_err() {
                return Ok(());
            }
            let news = published.wait_for(|published| self.concern(published) != told);
            tokio::select! {
                changed = news => drop(changed.map_err(|_| stopped())?),
                () = tokio::time::sleep(CANARY_RESEND) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped()),
                () = out.closed() => return Ok(()),
            }
        }
    }

    /// What it must be told of: our bundle, those of other domains, and which root is to be above its SVID.
    fn concern(&self, published: &Published) -> (u64, u64, Option<AuthorityId>) {
        let state = &published.state;
        let above = || state.authority_for(self.holder).clone();
        let above = (!self.pushed).then(above);
        (state.generation, published.foreign, above)
    }
}

/// Notes that a stream has ended.
pub(crate) async fn close(issuing: &Issuing, holder: Holder, stream: u64) -> Result<(), Status> {
    issuing
        .with_desk(move |desk| desk.trust.roster.closed(&holder, stream))
        .await
        .map_err(|error| Status::unavailable(coded(&error)))?;
    issuing.trust_moved();
    Ok(())
}

impl TrustStreams {
    /// The holders that the caller is. Waits a little: a stream may be opened before the SVID is issued.
    async fn holders(&self, peer: &Peer) -> Result<Vec<Holder>, Status> {
        let process = peer.0.pidfd.as_ref().ok_or_else(nobody)?;
        let start = process.start_time_ticks().ok_or_else(nobody)?;
        let instance = instance(peer.0.pid, start);
        let deadline = tokio::time::Instant::now() + ATTESTATION_WAIT;
        let mut changes = self.registry.changes();
        loop {
            changes.mark_unchanged();
            let found = self.registry.entitlements(&peer.0);
            if !found.is_empty() {
                let holder = |id| Holder {
                    id,
                    instance: instance.clone(),
                };
                return Ok(found
                    .into_iter()
                    .map(|found| holder(found.identity))
                    .collect());
            }
            if !matches!(
                tokio::time::timeout_at(deadline, changes.changed()).await,
                Ok(Ok(()))
            ) {
                return Err(nobody());
            }
        }
    }

    async fn stream(
        &self,
        peer: &Peer,
        out: &mpsc::Sender<Result<TrustUpdate, Status>>,
    ) -> Result<(), Status> {
        let holders = self.holders(peer).await?;
        let (holder, stream) = self.open(holders).await?;
        let outcome = self.updates(peer, &holder, stream, out).await;
        close(&self.issuing, holder, stream).await?;
        outcome
    }

    /// Opens the stream of the first identity that has an SVID; waits for it, since both are asked for together.
    async fn open(&self, holders: Vec<Holder>) -> Result<(Holder, u64), Status> {
        let deadline = tokio::time::Instant::now() + ATTESTATION_WAIT;
        loop {
            let wanted = holders.clone();
            let opened = self.issuing.with_desk(move |desk| {
                let mut opened = wanted.into_iter().filter_map(|holder| {
                    let stream = desk.trust.roster.opened(&holder)?;
                    Some((holder, stream))
                });
                opened.next()
            });
            if let Some(opened) = opened
                .await
                .map_err(|error| Status::unavailable(coded(&error)))?
            {
                return Ok(opened);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Status::failed_precondition(
                    "no SVID of this process is in force",
                ));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn updates(
        &self,
        peer: &Peer,
        holder: &Holder,
        stream: u64,
        out: &mpsc::Sender<Result<TrustUpdate, Status>>,
    ) -> Result<(), Status> {
        let process = peer.0.pidfd.as_ref().ok_or_else(nobody)?;
        let entitled = || {
            let all = self.registry.entitlements(&peer.0);
            all.iter().any(|found| found.identity == holder.id)
        };
        let following = Following {
            issuing: &self.issuing,
            holder,
            stream,
            pushed: true,
            stopping: self.stopping.clone(),
        };
        tokio::select! {
            outcome = following.send(out, entitled) => outcome,
            _ = process.exited() => Err(nobody()),
        }
    }

    /// Takes an acknowledgment from the process `instance`, as the kernel names it.
    pub(crate) async fn answer(
        &self,
        instance: String,
        ack: &TrustAcknowledgment,
    ) -> Result<(), TrustError> {
        let published = self.issuing.published().borrow().clone();
        let (signer, ack) = verify(ack, &published.bundles, self.platform.wall_clock())?;
        let holder = Holder {
            id: signer.id().clone(),
            instance,
        };
        self.issuing
            .with_desk(move |desk| desk.acknowledge(&holder, &ack))
            .await??;
        self.issuing.trust_moved();
        Ok(())
    }
}

/// Checks what an acknowledgment proves by itself: an SVID of ours, and a signature by its key.
pub(crate) fn verify(
    ack: &TrustAcknowledgment,
    bundles: &TrustBundles,
    now: Timestamp,
) -> Result<(VerifiedPeer, Acknowledgment), TrustError> {
    let chain = ack
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()));
    let svid = Svid::parse(chain.collect()).map_err(TrustError::NoSvid)?;
    statement::verify(&svid, PURPOSE, &octets(ack), &ack.signature)?;
    let peer = bundles.verify(&svid, now).map_err(TrustError::Untrusted)?;
    let found = ack.challenge.len();
    let challenge = ack.challenge.as_slice().try_into();
    let challenge = challenge.map_err(|_| TrustError::Challenge { found })?;
    let refusal = ack.canary_refusal.chars().filter(|c| !c.is_control());
    let skew_micros = ack.clock_unix_micros.saturating_sub(now.unix_micros());
    let ack = Acknowledgment {
        generation: ack.generation,
        challenge,
        serial: peer.serial().to_owned(),
        canary: if ack.canary_refusal.is_empty() {
            Ok(())
        } else {
            Err(refusal.take(REFUSAL_CHARS_MAX).collect())
        },
        skew_secs: skew_micros / 1_000_000,
        refused_handshakes: ack.refused_handshakes,
    };
    Ok((peer, ack))
}

/// The updates of a stream, as they are handed to the server.
pub(crate) type Updates = ReceiverStream<Result<TrustUpdate, Status>>;

/// A stream that `tell` fills; what it ends with is said last. `place` is kept until then.
pub(crate) fn streaming<T>(
    place: impl Send + 'static,
    tell: impl FnOnce(mpsc::Sender<Result<TrustUpdate, Status>>) -> T,
) -> Response<Updates>
where
    T: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (out, messages) = mpsc::channel(1);
    let told = tell(out.clone());
    tokio::spawn(async move {
        let _place = place;
        if let Err(status) = told.await {
            // Nobody listens: nothing to say.
            let _ = out.send(Err(status)).await;
        }
    });
    Response::new(ReceiverStream::new(messages))
}

#[tonic::async_trait]
impl TrustService for TrustStreams {
    type WatchStream = Updates;

    async fn watch(
        &self,
        request: Request<WatchTrustRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = peer(&request)?;
        let counted: Counted = self
            .streams
            .take(peer.0.pid, TRUST_STREAMS_PER_PROCESS_MAX, usize::MAX)
            .ok_or_else(|| Status::resource_exhausted("too many trust streams of one process"))?;
        let this = self.clone();
        Ok(streaming(counted, |out| async move {
            this.stream(&peer, &out).await
        }))
    }

    async fn acknowledge(
        &self,
        request: Request<TrustAcknowledgment>,
    ) -> Result<Response<AcknowledgeReply>, Status> {
        let peer = peer(&request)?;
        let start = peer
            .0
            .pidfd
            .as_ref()
            .and_then(|process| process.start_time_ticks());
        let instance = instance(peer.0.pid, start.ok_or_else(nobody)?);
        match self.answer(instance, request.get_ref()).await {
            Ok(()) => Ok(Response::new(AcknowledgeReply {})),
            Err(error) => {
                tracing::info!(pid = peer.0.pid, %error, "an acknowledgment counts for nothing");
                Err(Status::failed_precondition(coded(&error)))
            }
        }
    }
}
