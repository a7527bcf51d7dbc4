//! What every service of the Workload API's socket shares: who calls, whether it is still who it was, and what a stream
//! waits for.
//!
//! Each stream is one task that says everything anew whenever anything changes, and asks the [`Registry`] before each
//! message whether the process is still who it was ([`Caller::recheck`]). When it is not, the stream ends with
//! `PermissionDenied`: what the client holds is no longer its own (redaction).

use crate::broker::Broker;
use crate::error::IssuanceError;
use crate::error::coded;
use crate::federation::Foreign;
use crate::jwt::TokenSource;
use crate::limits::{ATTESTATION_WAIT, RETRY_AFTER_SECS, STREAMS_PER_PROCESS_MAX};
use crate::listen::{Counted, Counts, Peer};
use crate::registry::{Entitlement, Registry};
use crate::svids::{Material, Owner, Slot, Svids};
use mesh_platform::Platform;
use mesh_platform::process::PidFd;
use mesh_trust::jwt::JwtBundle;
use mesh_trust::{Denials, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Status};

/// Anchors by trust domain, ours among them.
pub(crate) type Anchors = std::collections::BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>;

/// Everything that workloads are answered from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) registry: Registry,
    pub(crate) svids: Svids,
    pub(crate) tokens: Arc<dyn TokenSource>,
    /// Whose tokens are not believed any more.
    pub(crate) denials: watch::Receiver<Arc<Denials>>,
    pub(crate) anchors: watch::Receiver<Arc<Anchors>>,
    /// Keys for tokens of other domains.
    pub(crate) foreign: watch::Receiver<Arc<Foreign>>,
    pub(crate) streams: Counts,
    /// True once the CA ends.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) platform: Arc<dyn Platform>,
}

/// A call that was let in.
pub(crate) struct Caller {
    pub(crate) agent: Agent,
    peer: Peer,
    /// Who asks in its place; none: it asks itself.
    broker: Option<Broker>,
    _counted: Counted,
}

/// The answer to whom nothing is given; the words are known to client libraries.
pub(crate) fn nobody() -> Status {
    Status::permission_denied("no identity issued")
}

fn stopping() -> Status {
    Status::unavailable("the CA is stopping")
}

impl Agent {
    /// Lets a call in, unless its process has too many.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(nobody)?;
        let counted = self
            .streams
            .take(peer.0.pid, STREAMS_PER_PROCESS_MAX, usize::MAX)
            .ok_or_else(|| {
                Status::resource_exhausted(format!(
                    "more than {STREAMS_PER_PROCESS_MAX} streams of one process"
                ))
            })?;
        Ok(Caller {
            agent: self.clone(),
            peer,
            broker: None,
            _counted: counted,
        })
    }

    /// A call by which `broker` asks in the place of the process `workload`.
    pub(crate) fn on_behalf_of(&self, workload: Peer, broker: Broker, counted: Counted) -> Caller {
        Caller {
            agent: self.clone(),
            peer: workload,
            broker: Some(broker),
            _counted: counted,
        }
    }
}

impl Caller {
    /// Its process id, when it connected.
    pub(crate) fn pid(&self) -> u32 {
        self.peer.0.pid
    }

    /// Who the caller is, waiting a little for its launch record.
    pub(crate) async fn attest(&self) -> Result<Vec<Entitlement>, Status> {
        let mut changes = self.agent.registry.changes();
        let search = async {
            loop {
                changes.mark_unchanged();
                let found = self.agent.registry.entitlements(&self.peer.0);
                if !found.is_empty() {
                    return found;
                }
                if changes.changed().await.is_err() {
                    return Vec::new();
                }
            }
        };
        match tokio::time::timeout(ATTESTATION_WAIT, search).await {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => {
                tracing::info!(
                    pid = self.peer.0.pid,
                    uid = self.peer.0.uid,
                    "a process asked for an identity and has none"
                );
                Err(nobody())
            }
        }
    }

    /// Whether the caller is still who it was.
    pub(crate) fn recheck(&self, before: &[Entitlement]) -> Result<(), Status> {
        let now = self.agent.registry.entitlements(&self.peer.0);
        let same = now.len() == before.len()
            && now
                .iter()
                .zip(before)
                .all(|(now, before)| now.identity == before.identity);
        if !same {
            return Err(nobody());
        }
        match &self.broker {
            Some(broker) => broker.recheck(&self.agent),
            None => Ok(()),
        }
    }

    /// Whether its process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.peer.0.pidfd.as_ref().is_some_and(PidFd::is_alive)
    }

    /// What a stream with no SVIDs waits for.
    pub(crate) fn waits(&self) -> Waits {
        Waits {
            registry: self.agent.registry.changes(),
            anchors: self.agent.anchors.clone(),
            tokens: self.agent.tokens.bundle(),
            foreign: self.agent.foreign.clone(),
            stopping: self.agent.stopping.clone(),
            svids: Vec::new(),
        }
    }

    /// What a stream with the SVIDs of `entitled` waits for; they are issued if they are not in force.
    pub(crate) fn waits_with_svids(&self, entitled: &[Entitlement]) -> Result<Waits, Status> {
        let process = self.process()?;
        let start_time_ticks = process.start_time_ticks().ok_or_else(nobody)?;
        let follow = |entitlement: &Entitlement| {
            let owner = Owner {
                pid: self.peer.0.pid,
                start_time_ticks,
                identity: entitlement.identity.clone(),
            };
            self.agent
                .svids
                .follow(owner, &entitlement.evidence, &process)
        };
        Ok(Waits {
            svids: entitled.iter().map(follow).collect(),
            ..self.waits()
        })
    }

    /// Waits until something may have changed, the CA stops or the caller has gone.
    pub(crate) async fn wait<T>(
        &self,
        waits: &mut Waits,
        out: &mpsc::Sender<Result<T, Status>>,
    ) -> Result<(), Status> {
        let Some(process) = self.peer.0.pidfd.as_ref() else {
            return Err(nobody());
        };
        tokio::select! {
            changed = waits.registry.changed() => changed.map_err(|_| stopping()),
            changed = waits.anchors.changed() => changed.map_err(|_| stopping()),
            changed = waits.tokens.changed() => changed.map_err(|_| stopping()),
            changed = waits.foreign.changed() => changed.map_err(|_| stopping()),
            () = any_changed(&mut waits.svids) => Ok(()),
            _ = waits.stopping.wait_for(|stopping| *stopping) => Err(stopping()),
            _ = process.exited() => Err(nobody()),
            () = out.closed() => Err(Status::cancelled("the client has gone")),
        }
    }

    /// The caller's process, for those who outlive this stream.
    fn process(&self) -> Result<Arc<PidFd>, Status> {
        let held = self.peer.0.pidfd.as_ref().ok_or_else(nobody)?;
        let again = PidFd::open(held.pid()).map_err(|_| nobody())?;
        // Alive after the second was opened: both are the same process.
        if held.is_alive() {
            Ok(Arc::new(again))
        } else {
            Err(nobody())
        }
    }
}

/// What a stream waits for.
pub(crate) struct Waits {
    registry: watch::Receiver<u64>,
    anchors: watch::Receiver<Arc<Anchors>>,
    tokens: watch::Receiver<Arc<JwtBundle>>,
    foreign: watch::Receiver<Arc<Foreign>>,
    stopping: watch::Receiver<bool>,
    svids: Vec<watch::Receiver<Slot>>,
}

/// SVIDs, the default one first, and all anchors.
pub(crate) type State = (Vec<Arc<Material>>, Arc<Anchors>);

impl Waits {
    /// Everything there is to say, or nothing while something is still being issued.
    pub(crate) fn state(&mut self) -> Result<Option<State>, Status> {
        let mut ready = Vec::with_capacity(self.svids.len());
        for slot in &mut self.svids {
            match &*slot.borrow_and_update() {
                Slot::Pending => return Ok(None),
                Slot::Ready(material) => ready.push(Arc::clone(material)),
                Slot::Unavailable(error) => return Err(unavailable(error)),
            }
        }
        Ok(Some((ready, self.anchors())))
    }

    /// The anchors in force.
    pub(crate) fn anchors(&mut self) -> Arc<Anchors> {
        self.anchors.borrow_and_update().clone()
    }

    /// The keys for JWT-SVIDs in force: ours, and what is held of other domains.
    pub(crate) fn tokens(&mut self) -> (Arc<JwtBundle>, Arc<Foreign>) {
        let own = self.tokens.borrow_and_update().clone();
        (own, self.foreign.borrow_and_update().clone())
    }
}

/// Clients try again after `Unavailable`.
fn unavailable(error: &IssuanceError) -> Status {
    let mut status = Status::unavailable(coded(error));
    if matches!(
        error,
        IssuanceError::Busy | IssuanceError::RateLimited { .. }
    ) {
        // What HTTP calls so too, and what gRPC's retries look at (in milliseconds).
        let metadata = status.metadata_mut();
        metadata.insert("retry-after", RETRY_AFTER_SECS.into());
        metadata.insert("grpc-retry-pushback-ms", (RETRY_AFTER_SECS * 1_000).into());
    }
    status
}

/// Ready once one of `slots` changed; never, if there are none.
async fn any_changed(slots: &mut [watch::Receiver<Slot>]) {
    if slots.is_empty() {
        std::future::pending::<()>().await;
    }
    let waits = slots.iter_mut().map(|slot| {
        Box::pin(async move {
            // A sender that went leaves its last word, which `state` reads.
            if slot.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    futures_util::future::select_all(waits).await;
}

/// What tells one state from another: serials and anchors.
#[derive(Clone, PartialEq)]
pub(crate) struct Mark(Vec<String>, Arc<Anchors>);

impl Mark {
    /// The mark of a state.
    pub(crate) fn of((svids, anchors): &State) -> Self {
        Self(
            svids.iter().map(|svid| svid.serial.clone()).collect(),
            Arc::clone(anchors),
        )
    }
}
