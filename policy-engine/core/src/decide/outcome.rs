//! What a decision is: its verdict, phase, cause and facts, and the two proofs that come of it, permit and denial.

use crate::canonical::{HostRefusal, MethodRefusal, PathRefusal};
use crate::compile::{PortAt, Snapshot};
use crate::connection::{ConnectionAtoms, Reasons, Says};
use crate::record::{
    DecisionRecord, RecordClient, RecordRequest, RecordRoute, RecordServer, RecordShadow,
};
use crate::request::{Call, Client, Protocol};
use crate::route::RouteTaken;
use crate::snapshot::{ServerInfo, WorkloadInfo};
use crate::texts::Reason;
use mesh_trust::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Counts changes of policy; equal generations of one source mean equal policy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Goes through.
    Allow,
    /// Does not.
    Deny,
}

/// Which layer decided (settled reading 4), in the order of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// TLS, identity or address of the client.
    Transport,
    /// The port: unknown workload, invalid Server, protocol not allowed.
    Server,
    /// The request itself was refused (400).
    Request,
    /// No route takes it (404), or the one that does is invalid (403).
    Route,
    /// A forbid holds, or could not be evaluated.
    Forbid,
    /// Permits: one holds (allow), or none does (403).
    Permit,
    /// Allowed, but over its limit (429).
    RateLimit,
    /// The workload's own proxy, about what leaves the mesh.
    Egress,
}

/// Why a request head is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum Refusal {
    /// Its target.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Path(#[from] PathRefusal),
    /// Its host.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Host(#[from] HostRefusal),
    /// Its method.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Method(#[from] MethodRefusal),
}

/// What exactly decided, finer than [`Phase`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// At least one permit holds.
    Granted,
    /// A declared probe, from where probes come.
    Probe,
    /// An identity without TLS: the two facts contradict each other.
    IdentityWithoutTls,
    /// The Server that claims the port is invalid; with the reason.
    InvalidServer(Arc<str>),
    /// Raw bytes where policy is made for requests.
    RawBytes,
    /// The head can be read in more than one way.
    Refused(Refusal),
    /// No attached route takes the request.
    NoRoute,
    /// The route that takes the request is invalid; with the reason.
    InvalidRoute(Arc<str>),
    /// A forbid holds.
    Forbidden,
    /// Something could not be evaluated, so it might have forbidden.
    Undecidable(Arc<str>),
    /// Silence is no.
    #[default]
    NoGrant,
    /// Granted, but over the limit.
    RateLimited,
}

/// The gRPC status that goes with the HTTP status of a refusal.
pub(crate) fn grpc_status(status: u16) -> Option<u8> {
    match status {
        400 => Some(3),
        404 => Some(5),
        403 => Some(7),
        429 => Some(8),
        _ => None,
    }
}

/// What follows from a cause.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) phase: Phase,
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u8>,
}

impl Cause {
    /// What is said to a client that speaks `spoken`.
    pub(super) fn outcome(&self, spoken: Protocol) -> Outcome {
        let (verdict, phase, status) = self.table();
        let speaks = spoken != Protocol::Tcp && phase != Phase::Transport;
        Outcome {
            verdict,
            phase,
            status: speaks.then_some(status),
            grpc_status: grpc_status(status).filter(|_| speaks && spoken == Protocol::Grpc),
        }
    }

    /// The table of outcomes: verdict, phase, and the HTTP status of a request.
    fn table(&self) -> (Verdict, Phase, u16) {
        match self {
            Self::Granted | Self::Probe => (Verdict::Allow, Phase::Permit, 200),
            Self::IdentityWithoutTls => (Verdict::Deny, Phase::Transport, 403),
            Self::InvalidServer(_) | Self::RawBytes => (Verdict::Deny, Phase::Server, 403),
            Self::Refused(_) => (Verdict::Deny, Phase::Request, 400),
            Self::NoRoute => (Verdict::Deny, Phase::Route, 404),
            Self::InvalidRoute(_) => (Verdict::Deny, Phase::Route, 403),
            Self::Forbidden | Self::Undecidable(_) => (Verdict::Deny, Phase::Forbid, 403),
            Self::NoGrant => (Verdict::Deny, Phase::Permit, 403),
            Self::RateLimited => (Verdict::Deny, Phase::RateLimit, 429),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted => f.write_str("granted"),
            Self::Probe => f.write_str("a declared probe"),
            Self::IdentityWithoutTls => f.write_str("an identity without TLS"),
            Self::InvalidServer(why) => write!(f, "the Server is invalid: {why}"),
            Self::RawBytes => f.write_str("raw TCP where policy is made for requests"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::NoRoute => f.write_str("no attached route takes the request"),
            Self::InvalidRoute(why) => write!(f, "the route is invalid: {why}"),
            Self::Forbidden => f.write_str("a forbid holds"),
            Self::Undecidable(why) => write!(f, "cannot be decided: {why}"),
            Self::NoGrant => f.write_str("no grant covers it"),
            Self::RateLimited => f.write_str("over the rate limit"),
        }
    }
}

/// The reason of what no permit allows, but a probe declares.
const PROBE: &str = "default/probe";

/// All that is known of a decision. Read through [`Decision`], [`Permit`] and [`Denial`]; nobody else makes one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// Which policy decided.
    pub generation: Generation,
    /// Allowed or not.
    pub verdict: Verdict,
    /// HTTP status, for gRPC too; 200 if allowed; `None` for bytes and in phase transport.
    pub status: Option<u16>,
    /// gRPC status of a denied gRPC request: 3, 5, 7 or 8.
    pub grpc_status: Option<u8>,
    /// Which layer decided.
    pub phase: Phase,
    /// What exactly decided.
    pub cause: Cause,
    /// Allowed, and every permit that holds is an audit one.
    pub audit: bool,
    /// Allowed, and one of the permits that hold is broken glass: the decision is recorded, never sampled.
    pub break_glass: bool,
    /// Port of the workload.
    pub port: u16,
    /// The route that took the request, with its filters; `None` for bytes, and before a route is chosen.
    pub route: Option<Arc<RouteTaken>>,
    /// How it was judged: a request on an opaque port is bytes.
    pub spoken: Protocol,
    /// The path that was judged.
    pub(super) path: Judged,
    /// The host that was judged.
    pub(super) host: Judged,
    pub(super) atoms: ConnectionAtoms,
    pub(super) at: PortAt,
    pub(super) reasons: Reasons,
}

/// A part of a request in the form that was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Judged {
    /// It was not there, not looked at, or refused.
    #[default]
    Not,
    /// Exactly as it came.
    AsCame,
    /// In this form.
    As(Arc<str>),
}

impl Judged {
    pub(super) fn of(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(_) => Self::AsCame,
            Cow::Owned(text) => Self::As(text.into()),
        }
    }

    /// The text, `came` being what came.
    pub(super) fn text<'a>(&'a self, came: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Not => None,
            Self::AsCame => came,
            Self::As(text) => Some(text),
        }
    }

    /// As [`Judged::text`], for a path; `target` is what came, with its query.
    pub(super) fn path_text<'a>(&'a self, target: &'a str) -> Option<&'a str> {
        match self {
            Self::AsCame => target.split('?').next(),
            _ => self.text(None),
        }
    }
}

/// The answer to one request.
///
/// Its facts are read-only (`decision.verdict`, `decision.reasons`); only [`decide`] makes one.
#[derive(Clone, Debug)]
#[must_use = "a decision that nobody looks at protects nothing"]
pub struct Decision(pub(super) Facts);

/// Leave to forward one request. Only an allowed [`Decision`] yields it; forwarding takes it by value.
#[derive(Debug)]
#[must_use = "a permit is for one request: forward it, or drop it knowingly"]
pub struct Permit(Facts);

/// A decision that is no.
#[derive(Clone, Debug)]
pub struct Denial(Facts);

impl Deref for Decision {
    type Target = Facts;
    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl Deref for Permit {
    type Target = Facts;
    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl Deref for Denial {
    type Target = Facts;
    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl Decision {
    /// Leave to forward, or the denial.
    ///
    /// # Errors
    /// The [`Denial`], if the verdict is deny.
    #[expect(
        clippy::result_large_err,
        reason = "both sides carry the facts; a box would be one allocation more per denial"
    )]
    pub fn permit(self) -> Result<Permit, Denial> {
        match self.0.verdict {
            Verdict::Allow => Ok(Permit(self.0)),
            Verdict::Deny => Err(Denial(self.0)),
        }
    }

    /// The denial that this permission becomes when a rate limit is exceeded; a denial stays as it is.
    pub fn rate_limited(self) -> Self {
        match self.0.verdict {
            Verdict::Deny => self,
            Verdict::Allow => Self(self.0.turned(Cause::RateLimited)),
        }
    }

    /// The record of this decision. `client` and `call` are those that were decided on.
    pub fn record(
        &self,
        time: Option<Timestamp>,
        client: &Client,
        call: &Call<'_>,
    ) -> DecisionRecord {
        self.0.record(time, client, call)
    }
}

impl Permit {
    /// The decision again, for its record.
    pub fn into_decision(self) -> Decision {
        Decision(self.0)
    }
}

impl Denial {
    /// The decision again, for its record.
    pub fn into_decision(self) -> Decision {
        Decision(self.0)
    }
}

/// What an allow rests on, to be recognized at the next request of the same connection without listing it: Server, route
/// and reasons. Keep few: each holds the policy that it was made under.
#[derive(Clone, Debug)]
pub struct Grounds {
    atoms: ConnectionAtoms,
    port: u16,
    route: Option<Arc<RouteTaken>>,
    cause: Cause,
    audit: bool,
    reasons: Reasons,
}

impl Grounds {
    /// Whether `facts` are those of an allow with exactly these reasons, and route and Server. False also where that
    /// cannot be told at once: of another connection, after a change of policy, and once a grant may have ended.
    pub fn are_of(&self, facts: &Facts) -> bool {
        let same_route = match (&self.route, &facts.route) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same_route
            && self.atoms.are(&facts.atoms)
            && self.port == facts.port
            && self.cause == facts.cause
            && self.audit == facts.audit
            && facts.reasons.are_still(&self.reasons)
    }

    /// Whether `facts` are of the same connection under the same policy: if not, these grounds are of the past.
    pub fn is_in_force_at(&self, facts: &Facts) -> bool {
        self.atoms.are(&facts.atoms)
    }
}

impl Facts {
    /// What this allow rests on; `None` of a denial.
    pub fn grounds(&self) -> Option<Grounds> {
        (self.verdict == Verdict::Allow).then(|| Grounds {
            atoms: self.atoms.clone(),
            port: self.port,
            route: self.route.clone(),
            cause: self.cause.clone(),
            audit: self.audit,
            reasons: self.reasons.clone(),
        })
    }

    /// Of an allow all permits that hold, of a deny the forbids that hold; sorted, each once. Listed anew at each call.
    pub fn reasons(&self) -> Vec<Arc<str>> {
        let mut reasons = self.atoms.reasons(&self.reasons);
        if self.cause == Cause::Probe {
            reasons.push(Arc::from(PROBE));
            reasons.sort();
            reasons.dedup();
        }
        reasons
    }

    /// The first of [`Facts::reasons`], without listing the others: a label for metrics.
    pub fn first_reason(&self) -> Option<Reason<'_>> {
        let first = self.atoms.first_reason(&self.reasons);
        match self.cause {
            Cause::Probe => first.into_iter().chain([Reason::whole(PROBE)]).min(),
            _ => first,
        }
    }

    /// Which Server spoke.
    pub fn server(&self) -> &ServerInfo {
        let compiled = self.atoms.snapshot().compiled();
        &compiled.port(self.at).policy.server
    }

    /// The workload whose policy this is.
    pub fn workload(&self) -> &WorkloadInfo {
        self.atoms.snapshot().workload()
    }

    /// The policy that decided.
    pub fn snapshot(&self) -> &Snapshot {
        self.atoms.snapshot()
    }

    /// The path that was judged, without query; `None` for bytes and if the path was refused. `raw` is the target that was
    /// decided on.
    pub fn canonical_path<'a>(&'a self, raw: &'a str) -> Option<&'a str> {
        self.path.path_text(raw)
    }

    /// The host that was judged, `name` or `name:port`. `raw` is the host that was decided on.
    pub fn canonical_host<'a>(&'a self, raw: Option<&'a str>) -> Option<&'a str> {
        self.host.text(raw)
    }

    /// The path to forward, if it is not the one that came.
    pub fn rewritten_path(&self) -> Option<&str> {
        self.path.text(None)
    }

    /// The host to forward, if it is not the one that came.
    pub fn rewritten_host(&self) -> Option<&str> {
        self.host.text(None)
    }

    /// The target to forward: the path that was judged, with the query as it came. Borrowed if nothing changed.
    pub fn forward_target<'a>(&self, raw: &'a str) -> Cow<'a, str> {
        match (self.rewritten_path(), raw.split_once('?')) {
            (None, _) => Cow::Borrowed(raw),
            (Some(judged), Some((_, query))) => Cow::Owned(format!("{judged}?{query}")),
            (Some(judged), None) => Cow::Owned(judged.to_owned()),
        }
    }

    /// What the policies said.
    pub(super) fn answer(&mut self, says: Says) {
        self.cause = match says {
            Says::Permitted { audit, break_glass } => {
                (self.audit, self.break_glass) = (audit, break_glass);
                Cause::Granted
            }
            Says::Forbidden => Cause::Forbidden,
            Says::Undecidable(why) => Cause::Undecidable(why),
            Says::NoPermit => Cause::NoGrant,
        };
    }

    /// Verdict, phase and status, as they follow from the cause.
    pub(super) fn conclude(&mut self) {
        let outcome = self.cause.outcome(self.spoken);
        self.verdict = outcome.verdict;
        self.phase = outcome.phase;
        self.status = outcome.status;
        self.grpc_status = outcome.grpc_status;
    }

    /// The same facts with this outcome, and no reasons.
    pub(super) fn turned(self, cause: Cause) -> Self {
        let mut turned = Self {
            cause,
            reasons: Reasons::None,
            audit: false,
            break_glass: false,
            ..self
        };
        turned.conclude();
        turned
    }

    /// See [`Decision::record`].
    fn record(&self, time: Option<Timestamp>, client: &Client, call: &Call<'_>) -> DecisionRecord {
        let request = match call {
            Call::Http(head) if self.spoken != Protocol::Tcp => Some(RecordRequest {
                method: head.method.to_owned(),
                path: self.canonical_path(head.target).map(str::to_owned),
                raw_path: head.target.to_owned(),
                host: self.canonical_host(head.host).map(str::to_owned),
            }),
            _ => None,
        };
        let server = self.server();
        DecisionRecord {
            time,
            generation: self.generation,
            client: RecordClient::of(client),
            server: RecordServer {
                namespace: server.namespace.clone(),
                name: Some(server.name.clone()),
                workload: Some(self.workload().name.clone()),
                port: self.port,
                default: server.default,
            },
            egress: None,
            route: self.route.as_deref().map(RecordRoute::of),
            request,
            verdict: self.verdict,
            status: self.status,
            grpc_status: self.grpc_status,
            phase: self.phase,
            reasons: self.reason_ids(),
            audit: self.audit,
            first: false,
            near_misses: Vec::new(),
            shadow: None,
            fault: None,
        }
    }

    /// This decision as that of a candidate, for the record of the one that counts.
    pub fn as_shadow(&self) -> RecordShadow {
        RecordShadow {
            verdict: self.verdict,
            phase: self.phase,
            status: self.status,
            reasons: self.reason_ids(),
        }
    }

    fn reason_ids(&self) -> Vec<String> {
        let reasons = self.reasons();
        reasons.iter().map(|reason| reason.to_string()).collect()
    }
}
