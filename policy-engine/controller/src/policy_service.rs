//! `Policy.WatchWorkload`: each proxy gets the policy of its own workload, now and after every change; with
//! `Policy.ReportEquivalence` it says what came of holding that against Cedar. `Policy.WatchDiscovery`: each proxy gets what it
//! lacks of where everything is.
//!
//! ```text
//! unknown --1 s--> denied everything --appears--> known --gone from the manifests--> denied everything
//! known, or appears, with another service account than the asker's: the stream ends with PermissionDenied
//! ```
//! Discovery, the same for all, is told apart; to proxies that do not ask for that, in one piece beside the
//! policy: when it is another than before, or each time, to those that do not keep it.
//! A slow reader gets the newest update, not every one. A stream ends with the SVID it was opened with.

use crate::discovery::Teller;
use crate::limits::{REPORT_BYTES_MAX, UNKNOWN_GRACE};
use crate::publish::{Published, Update, WorkloadPolicy, deny_all, may_ask, nowhere};
use crate::state::{Shared, WatcherCount};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use mesh_api::accept::Caller;
use mesh_api::admin::EquivalenceStatus;
use mesh_api::proto::policy_server::Policy;
use mesh_api::proto::{
    DiscoveryUpdate, EquivalenceReport, EquivalenceReportReply, WatchDiscoveryRequest,
    WatchWorkloadRequest, WorkloadUpdate,
};
use mesh_api::slices::{SLICES, read_digests};
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

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Policy for WatchPolicy {
    type WatchWorkloadStream = Stream<WorkloadUpdate>;
    type WatchDiscoveryStream = Stream<DiscoveryUpdate>;

    async fn watch_workload(
        &self,
        request: Request<WatchWorkloadRequest>,
    ) -> Result<Response<Self::WatchWorkloadStream>, Status> {
        let asker = asker(&request)?;
        let request = request.into_inner();
        let form = match (request.discovery_apart, request.keeps_discovery) {
            (true, _) => Form::Apart,
            (false, true) => Form::Kept { has: Bytes::new() },
            (false, false) => Form::EachTime { has: Bytes::new() },
        };
        let seat = Seat::of(&self.0, asker, request.namespace, request.workload)?;
        let watch = Watch {
            sent: Sent::Nothing,
            form,
            unknown_at: Instant::now() + UNKNOWN_GRACE,
            _count: self.0.watcher(&seat.key),
            seat,
        };
        let updates = try_unfold(watch, |mut watch| async move {
            let update = watch.next().await?;
            Ok(Some((update, watch)))
        });
        Ok(Response::new(Box::pin(updates)))
    }

    async fn watch_discovery(
        &self,
        request: Request<WatchDiscoveryRequest>,
    ) -> Result<Response<Self::WatchDiscoveryStream>, Status> {
        let asker = asker(&request)?;
        let request = request.into_inner();
        let seat = Seat::of(&self.0, asker, request.namespace, request.workload)?;
        if request.slices != u32::from(SLICES) {
            let why = format!("discovery has {SLICES} slices here, not {}", request.slices);
            return Err(Status::invalid_argument(why));
        }
        let has = read_digests(&request.has)
            .ok_or_else(|| Status::invalid_argument("not one digest for each slice"))?;
        let places = Places {
            seat,
            teller: Teller::New(has),
        };
        let updates = try_unfold(places, |mut places| async move {
            let update = places.next().await?;
            Ok(Some((update, places)))
        });
        Ok(Response::new(Box::pin(updates)))
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

/// Who asks about which workload, on one stream.
struct Seat {
    shared: Arc<Shared>,
    asker: Asker,
    key: WorkloadKey,
    published: watch::Receiver<Option<Arc<Published>>>,
}

impl Seat {
    /// # Errors
    /// Nobody may ask about workloads of another namespace.
    fn of(
        shared: &Arc<Shared>,
        asker: Asker,
        namespace: String,
        name: String,
    ) -> Result<Self, Status> {
        let key = WorkloadKey { namespace, name };
        if !may_ask(asker.id(), &key, shared.config.trust_domain()) {
            return Err(refuse(&asker, &key));
        }
        Ok(Self {
            published: shared.published.subscribe(),
            shared: Arc::clone(shared),
            asker,
            key,
        })
    }

    /// The workload's policy; `None` if it is in no manifest.
    ///
    /// # Errors
    /// It is not the asker's.
    fn policy<'p>(&self, current: &'p Published) -> Result<Option<&'p WorkloadPolicy>, Status> {
        match current.workloads.get(&self.key) {
            Some(policy) if policy.identity.as_ref() != Some(self.asker.id()) => {
                Err(refuse(&self.asker, &self.key))
            }
            found => Ok(found),
        }
    }

    /// Whether the SVID is good still. Asked before each message: a stream may always have something to tell, and never wait.
    ///
    /// # Errors
    /// The stream is at its end.
    fn in_time(&self) -> Result<(), Status> {
        match self.shared.platform.wall_clock() > self.asker.peer.not_after() {
            true => Err(Status::unauthenticated(
                "your SVID has expired; connect with the new one",
            )),
            false => Ok(()),
        }
    }

    /// Waits until something else is published, the SVID ends, or until then.
    ///
    /// # Errors
    /// The controller ends.
    async fn wait(&mut self, until: Option<Instant>) -> Result<(), Status> {
        let now = self.shared.platform.wall_clock();
        let svid_ends = Duration::from_secs(now.secs_until(self.asker.peer.not_after()) + 1);
        let wait = until.map_or(svid_ends, |until| {
            svid_ends.min(until.saturating_duration_since(Instant::now()))
        });
        tokio::select! {
            changed = self.published.changed() => {
                changed.map_err(|_ended| Status::unavailable("the controller ends"))
            }
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

/// One stream of policy.
struct Watch {
    seat: Seat,
    sent: Sent,
    form: Form,
    /// When an unknown workload is told so.
    unknown_at: Instant,
    _count: WatcherCount,
}

/// How the proxy is told discovery.
enum Form {
    /// On a stream of its own.
    Apart,
    /// Beside the policy, when it is another than the one that it has.
    Kept { has: Bytes },
    /// Beside the policy each time, without zones.
    EachTime { has: Bytes },
}

impl Form {
    /// Whether `current` is news beside a policy that is not.
    fn lacks(&self, current: &Published) -> bool {
        match self {
            Self::Apart => false,
            Self::Kept { has } => !same(has, current.whole()),
            Self::EachTime { has } => !same(has, current.zoneless()),
        }
    }

    /// What an update says of it.
    fn tell(&mut self, now: impl Fn(bool) -> Bytes) -> Bytes {
        match self {
            Self::Apart => Bytes::new(),
            Self::Kept { has } => {
                let now = now(true);
                match same(&now, &std::mem::replace(has, now.clone())) {
                    true => Bytes::new(),
                    false => now,
                }
            }
            Self::EachTime { has } => {
                *has = now(false);
                has.clone()
            }
        }
    }
}

/// Megabytes, and mostly one and the same place.
fn same(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() || one == other
}

/// What the proxy has.
enum Sent {
    Nothing,
    DenyAll,
    Update(Arc<Update>),
}

/// What is to be done now.
enum Step {
    Send(WorkloadUpdate),
    Wait(Option<Instant>),
}

impl Watch {
    /// The next update, or why there will be none.
    async fn next(&mut self) -> Result<WorkloadUpdate, Status> {
        loop {
            self.seat.in_time()?;
            // Held no longer than this: nobody knows when a slow reader is asked to write again.
            let current = self.seat.published.borrow_and_update().clone();
            let step = self.step(current.as_deref())?;
            drop(current);
            match step {
                Step::Send(update) => return Ok(update),
                Step::Wait(until) => self.seat.wait(until).await?,
            }
        }
    }

    fn step(&mut self, current: Option<&Published>) -> Result<Step, Status> {
        // Nothing was ever read: saying "deny all" would cut off what works, and we know nothing.
        let Some(current) = current else {
            return Ok(Step::Wait(None));
        };
        let Some(policy) = self.seat.policy(current)? else {
            return Ok(match self.sent {
                Sent::DenyAll => Step::Wait(None),
                Sent::Nothing if Instant::now() < self.unknown_at => {
                    Step::Wait(Some(self.unknown_at))
                }
                Sent::Nothing | Sent::Update(_) => {
                    self.sent = Sent::DenyAll;
                    Step::Send(self.denied(current))
                }
            });
        };
        if let Sent::Update(sent) = &self.sent
            && Arc::ptr_eq(sent, &policy.update)
            && !self.form.lacks(current)
        {
            return Ok(Step::Wait(None));
        }
        self.sent = Sent::Update(Arc::clone(&policy.update));
        let discovery_json = self.form.tell(|zones| match zones {
            true => current.whole().clone(),
            false => current.zoneless().clone(),
        });
        let update = policy.update.message(&self.seat.key, discovery_json);
        Ok(Step::Send(update))
    }

    /// What a workload is told that is in no manifest.
    fn denied(&mut self, current: &Published) -> WorkloadUpdate {
        let Seat {
            asker, key, shared, ..
        } = &self.seat;
        let domain = shared.config.trust_domain();
        WorkloadUpdate {
            discovery_json: self.form.tell(|_| nowhere()),
            ..deny_all(key, asker.id(), domain, current.generation)
        }
    }
}

/// One stream of discovery.
struct Places {
    seat: Seat,
    teller: Teller,
}

impl Places {
    /// The next message, or why there will be none. Who is in no manifest is told nothing: what it has it may keep, since
    /// with nothing in its place it would take the whole mesh to be outside of it.
    async fn next(&mut self) -> Result<DiscoveryUpdate, Status> {
        loop {
            self.seat.in_time()?;
            let current = self.seat.published.borrow_and_update().clone();
            if let Some(current) = current
                && self.seat.policy(&current)?.is_some()
                && let Some(update) = self.teller.next(&current.discovery)
            {
                return Ok(update);
            }
            self.seat.wait(None).await?;
        }
    }
}
