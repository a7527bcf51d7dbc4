//! `Policy.WatchWorkload`: each proxy gets the policy of its own workload, now and after every change; with
//! `Policy.ReportEquivalence` it says what came of holding that against Cedar.
//!
//! ```text
//! unknown --1 s--> denied everything --appears--> known --gone from the manifests--> denied everything
//! known, or appears, with another service account than the asker's: the stream ends with PermissionDenied
//! ```
//! Discovery, which may be megabytes, is sent when it is another than before, to proxies that keep it.
//! A slow reader gets the newest update, not every one. A stream ends with the SVID it was opened with.

use crate::limits::{REPORT_BYTES_MAX, UNKNOWN_GRACE};
use crate::publish::{Published, deny_all, may_ask};
use crate::state::{Shared, WatcherCount};
use bytes::Bytes;
use mesh_api::accept::Caller;
use mesh_api::admin::EquivalenceStatus;
use mesh_api::proto::policy_server::Policy;
use mesh_api::proto::{
    EquivalenceReport, EquivalenceReportReply, WatchWorkloadRequest, WorkloadUpdate,
};
use mesh_policy::equivalence::Assurance;
use mesh_policy_index::index::WorkloadKey;
use mesh_trust::{SpiffeId, VerifiedPeer};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct WatchPolicy(Arc<Shared>);

impl WatchPolicy {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

/// SHA-256, hex.
const DIGEST_CHARS: usize = 64;

type Updates = Pin<Box<dyn tokio_stream::Stream<Item = Result<WorkloadUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl Policy for WatchPolicy {
    type WatchWorkloadStream = Updates;

    async fn watch_workload(
        &self,
        request: Request<WatchWorkloadRequest>,
    ) -> Result<Response<Updates>, Status> {
        let asker = asker(&request)?;
        let request = request.into_inner();
        let key = WorkloadKey {
            namespace: request.namespace,
            name: request.workload,
        };
        if !may_ask(asker.id(), &key, self.0.config.trust_domain()) {
            return Err(refuse(&asker, &key));
        }
        let watch = Watch::new(&self.0, asker, key, request.keeps_discovery);
        Ok(Response::new(Box::pin(futures_util::stream::unfold(
            Some(watch),
            |watch| async {
                let mut watch = watch?;
                match watch.next().await {
                    Ok(update) => Some((Ok(update), Some(watch))),
                    Err(status) => Some((Err(status), None)),
                }
            },
        ))))
    }

    async fn report_equivalence(
        &self,
        request: Request<EquivalenceReport>,
    ) -> Result<Response<EquivalenceReportReply>, Status> {
        let asker = asker(&request)?;
        let report = request.into_inner();
        let key = WorkloadKey {
            namespace: report.namespace,
            name: report.workload,
        };
        let current = self.0.current();
        let policy = current.as_ref().and_then(|it| it.workloads.get(&key));
        // A workload that is in no manifest has no identity either: nobody speaks for it.
        if policy.and_then(|policy| policy.identity.as_ref()) != Some(asker.id()) {
            return Err(refuse(&asker, &key));
        }
        let json = report.assurance_json;
        let found = (json.len() <= REPORT_BYTES_MAX)
            .then(|| serde_json::from_slice::<Assurance>(&json).ok())
            .flatten()
            .ok_or_else(|| Status::invalid_argument("the report cannot be read"))?;
        if let Assurance::Differs { port, grant, case } = &found {
            tracing::error!(
                code = "MESH-0429",
                workload = format!("{}/{}", key.namespace, key.name),
                generation = report.generation,
                port,
                grant,
                case,
                "a proxy found that its compiled policy and Cedar differ"
            );
        }
        let status = EquivalenceStatus {
            generation: report.generation,
            at: self.0.platform.wall_clock(),
            found,
        };
        let digest = match report.policy_digest {
            // An older proxy: what it holds is known if its number is that of what it was sent.
            empty if empty.is_empty() => policy
                .filter(|policy| policy.update.generation == status.generation)
                .map(|policy| policy.policy_digest.clone()),
            digest => Some(digest).filter(|digest| digest.len() == DIGEST_CHARS),
        };
        if let Some(digest) = digest {
            self.0.reports.take_held(&key, digest);
        }
        self.0.reports.take(key, status);
        Ok(Response::new(EquivalenceReportReply {}))
    }
}

/// Who asks, proved by the handshake.
fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    let asker = request.extensions().get::<Caller>().and_then(Asker::of);
    asker.ok_or_else(|| Status::unauthenticated("no proved identity on this connection"))
}

/// Who asks.
#[derive(Clone, Debug)]
struct Asker {
    peer: VerifiedPeer,
    from: SocketAddr,
}

impl Asker {
    fn of(caller: &Caller) -> Option<Self> {
        Some(Self {
            peer: caller.peer.clone()?,
            from: caller.from,
        })
    }

    fn id(&self) -> &SpiffeId {
        self.peer.id()
    }
}

/// One refusal, in the log with who and what; the asker learns only that it may not.
fn refuse(asker: &Asker, key: &WorkloadKey) -> Status {
    tracing::warn!(
        id = %asker.id(),
        from = %asker.from,
        serial = asker.peer.serial(),
        workload = format!("{:?}/{:?}", key.namespace, key.name),
        "a proxy asked for policy that is not its own"
    );
    Status::permission_denied("not the service account of this workload")
}

/// One stream.
struct Watch {
    shared: Arc<Shared>,
    asker: Asker,
    key: WorkloadKey,
    published: watch::Receiver<Option<Arc<Published>>>,
    sent: Sent,
    /// Whether the proxy keeps discovery that is left out.
    keeps_discovery: bool,
    /// The discovery that it has; empty: none.
    discovery: Bytes,
    /// When an unknown workload is told so.
    unknown_at: Instant,
    _count: WatcherCount,
}

/// What the proxy has.
enum Sent {
    Nothing,
    DenyAll,
    Update(Arc<WorkloadUpdate>),
}

/// What is to be done now.
enum Step {
    Send(WorkloadUpdate),
    Wait(Option<Instant>),
    End(Status),
}

impl Watch {
    fn new(shared: &Arc<Shared>, asker: Asker, key: WorkloadKey, keeps_discovery: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            published: shared.published.subscribe(),
            sent: Sent::Nothing,
            keeps_discovery,
            discovery: Bytes::new(),
            unknown_at: Instant::now() + UNKNOWN_GRACE,
            _count: shared.watcher(&key),
            asker,
            key,
        }
    }

    /// The next update, or why there will be none.
    async fn next(&mut self) -> Result<WorkloadUpdate, Status> {
        loop {
            let current = self.published.borrow_and_update().clone();
            let until = match self.step(current.as_deref()) {
                Step::Send(update) => return Ok(self.news_of(update, current.as_deref())),
                Step::End(status) => return Err(status),
                Step::Wait(until) => until,
            };
            let now = self.shared.platform.wall_clock();
            let svid_ends = Duration::from_secs(now.secs_until(self.asker.peer.not_after()) + 1);
            if now > self.asker.peer.not_after() {
                return Err(Status::unauthenticated(
                    "your SVID has expired; connect with the new one",
                ));
            }
            let wait = until.map_or(svid_ends, |until| {
                svid_ends.min(until.saturating_duration_since(Instant::now()))
            });
            tokio::select! {
                changed = self.published.changed() => if changed.is_err() {
                    return Err(Status::unavailable("the controller ends"));
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The update as this proxy understands it: without a discovery that it has, or, for an older one, without zones.
    fn news_of(
        &mut self,
        mut update: WorkloadUpdate,
        current: Option<&Published>,
    ) -> WorkloadUpdate {
        if !self.keeps_discovery {
            return match current {
                Some(current) => current.for_older(update),
                None => update,
            };
        }
        if update.discovery_json == self.discovery {
            update.discovery_json = Bytes::new();
        } else {
            self.discovery = update.discovery_json.clone();
        }
        update
    }

    fn step(&mut self, current: Option<&Published>) -> Step {
        // Nothing was ever read: saying "deny all" would cut off what works, and we know nothing.
        let Some(current) = current else {
            return Step::Wait(None);
        };
        match current.workloads.get(&self.key) {
            Some(policy) if policy.identity.as_ref() != Some(self.asker.id()) => {
                Step::End(refuse(&self.asker, &self.key))
            }
            Some(policy) => match &self.sent {
                Sent::Update(sent) if Arc::ptr_eq(sent, &policy.update) => Step::Wait(None),
                _ => {
                    self.sent = Sent::Update(Arc::clone(&policy.update));
                    Step::Send((*policy.update).clone())
                }
            },
            None => match self.sent {
                Sent::DenyAll => Step::Wait(None),
                Sent::Nothing if Instant::now() < self.unknown_at => {
                    Step::Wait(Some(self.unknown_at))
                }
                Sent::Nothing | Sent::Update(_) => {
                    self.sent = Sent::DenyAll;
                    let domain = self.shared.config.trust_domain();
                    Step::Send(deny_all(
                        &self.key,
                        self.asker.id(),
                        domain,
                        current.generation,
                    ))
                }
            },
        }
    }
}
