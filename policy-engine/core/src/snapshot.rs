//! Everything one workload's proxy needs to decide.
//!
//! [`SnapshotData`] is what travels and is stored; [`Snapshot`] is its compiled form. Producers fill the data in and
//! never write Cedar: grants become policies in [`crate::cedar`], in one place, for controller, proxy and command alike.

pub use crate::compile::{Snapshot, SnapshotError};
use crate::decide::Generation;
use crate::egress::EgressNetwork;
use ipnet::IpNet;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Policy for one workload, as data. Lists are sorted where order has no meaning, so equal policy has equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotData {
    /// Grows with every change that the source of policy saw; never goes back.
    pub generation: Generation,
    /// Whose policy this is.
    pub workload: WorkloadInfo,
    /// The mesh's own trust domain.
    pub trust_domain: TrustDomain,
    /// Foreign trust domains that `*` covers (`Federation` with `includeInWildcards`).
    pub wildcard_domains: Vec<TrustDomain>,
    /// Ports that the workload declares or a Server claims.
    pub ports: BTreeMap<u16, PortPolicy>,
    /// Every other port.
    pub other_ports: PortPolicy,
    /// Grants that some port refers to, by id.
    pub grants: Vec<Grant>,
    /// Identity sets that some grant refers to, by their id.
    pub identity_sets: BTreeMap<String, IdentitySet>,
    /// Network sets that some grant or probe refers to, by their id.
    pub network_sets: BTreeMap<String, NetworkSet>,
    /// Policies that were written in Cedar and bear on this workload: those of its namespace, and cluster-wide ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cedar_policies: Vec<CedarText>,
    /// What it may reach outside of the mesh, in the order that breaks ties; nothing: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressNetwork>,
    /// What is wrong with objects that bear on this workload: dead policies for explain.
    pub findings: Vec<Finding>,
}

/// The workload of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadInfo {
    /// Its namespace.
    pub namespace: String,
    /// Pod name; for a workload known only by its Deployment, the Deployment's name.
    pub name: String,
    /// Owning workload, `Deployment/cart` and the like, if known.
    pub owner: Option<String>,
    /// Its service account (`default` if none is named).
    pub service_account: String,
    /// Its addresses, if known.
    pub ips: Vec<IpAddr>,
    /// Address of its node, if known: the only source of unauthenticated probes then.
    pub node_ip: Option<IpAddr>,
    /// Where it is declared.
    pub source: Source,
}

/// What applies to one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortPolicy {
    /// The Server that claims it, or the default policy.
    pub server: ServerInfo,
    /// Attached routes, in the order that breaks ties: older first, then namespace and name; objects without a
    /// creation time after those that have one. Empty: every request takes the default route.
    pub routes: Vec<Route>,
    /// Unauthenticated probe endpoints.
    pub probes: Vec<Probe>,
    /// Indexes into [`SnapshotData::grants`] of all grants that could apply here.
    pub grants: Vec<u32>,
    /// Local rate limit.
    pub rate_limit: Option<RateLimit>,
    /// Opt-outs from path canonicalization.
    pub paths: PathOptions,
    /// Whether any rate limit names this Server (raw TCP is refused then, settled reading 11).
    pub l7_limits: bool,
    /// Faults that are injected into allowed requests, the older first. They decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// Which Server speaks for a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerInfo {
    /// Namespace of the Server, or of the workload for a default.
    pub namespace: String,
    /// Name of the Server; for a default, `default`.
    pub name: String,
    /// Whether this is the default policy and no Server object.
    pub default: bool,
    /// Mode of the default policy or `accessPolicy` in force, after inheritance and require-identity: its text form.
    pub mode: String,
    /// How bytes on this port are read.
    pub protocol: ServerProtocol,
    /// Why everything is denied here (an invalid Server that still claims its port), if so.
    pub invalid: Option<String>,
    /// Where it is declared.
    pub source: Source,
    /// Servers that select the port too but lost to this one.
    pub shadowed: Vec<ObjectRef>,
}

/// `spec.proxyProtocol` of a Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServerProtocol {
    /// To be detected.
    #[serde(rename = "unknown")]
    Unknown,
    /// HTTP/1.x.
    #[serde(rename = "HTTP/1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "HTTP/2")]
    Http2,
    /// gRPC.
    #[serde(rename = "gRPC")]
    Grpc,
    /// Bytes.
    #[serde(rename = "opaque")]
    Opaque,
    /// TLS that the application terminates.
    #[serde(rename = "TLS")]
    Tls,
}

impl ServerProtocol {
    /// Whether what arrives is read as bytes, whatever it is: nothing that is said of requests has an effect.
    pub fn carries_bytes(self) -> bool {
        match self {
            Self::Opaque | Self::Tls => true,
            Self::Unknown | Self::Http1 | Self::Http2 | Self::Grpc => false,
        }
    }
}

/// One permit (or forbid), before it becomes a Cedar policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// `<kind>/<namespace>/<name>/<part>`, or `default/<mode>`, `default/probe`: stable over generations.
    pub id: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// What it covers.
    pub scope: Scope,
    /// Which client it covers.
    pub who: Who,
    /// Id of the network set the client must be in; `None`: any address.
    pub networks: Option<String>,
    /// Allowed, and recorded as an audit allow.
    pub audit: bool,
    /// How long it counts, and whether its use is always recorded.
    #[serde(default, skip_serializing_if = "Term::is_standing")]
    pub term: Term,
    /// Where it is declared.
    pub source: Source,
}

/// How long a grant counts, and why it is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Term {
    /// It counts before this instant and not from it on (whole milliseconds, as Cedar's `datetime`); `None`: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Why this grant is broken glass: each of its uses is recorded, never sampled. `None`: an ordinary grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
}

impl Term {
    /// Whether it is that of an ordinary grant: no end, no watch.
    pub fn is_standing(&self) -> bool {
        *self == Self::default()
    }
}

/// One policy that was written in Cedar (`CedarPolicy`, `ClusterCedarPolicy`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CedarText {
    /// `<kind>/<namespace>/<name>/<id>`: stable over generations; no two are equal.
    pub id: String,
    /// Permit or forbid; the text must agree.
    pub effect: Effect,
    /// Cedar text of this one static policy, as its author wrote it. Its boundary is added when it is compiled.
    pub text: String,
    /// The namespace whose Servers alone it may speak about; `None`: all.
    pub confined_to: Option<String>,
    /// Why it cannot be evaluated, if so: a permit then grants nothing, a forbid closes all that it might cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// Allowed, and recorded as an audit allow (`@audit("true")`).
    #[serde(default)]
    pub audit: bool,
    /// How long it counts, and whether its use is always recorded.
    #[serde(default, skip_serializing_if = "Term::is_standing")]
    pub term: Term,
    /// Where it is declared.
    pub source: Source,
}

/// Effect of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Allows what it covers.
    Permit,
    /// Denies what it covers, whatever permits say.
    Forbid,
}

/// What a grant covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Scope {
    /// A Server, with all its routes.
    Server {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// One route object.
    Route {
        /// `HTTPRoute` or `GRPCRoute`.
        kind: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Every named Server of a namespace; never a default policy.
    NamespaceServers {
        /// Namespace.
        namespace: String,
    },
    /// The default policy of the workload's ports.
    Default,
}

/// Which client a grant covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Who {
    /// Everybody, unauthenticated clients too.
    Anyone,
    /// Whoever the proxy terminated TLS for, with or without an identity.
    AnyTls,
    /// Verified identities in the set of this id.
    Identities(String),
}

/// Identities that one authentication names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySet {
    /// Who is in it.
    pub members: Vec<IdentityPattern>,
    /// Where it is declared.
    pub source: Source,
}

/// One member of an identity set (settled reading 9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum IdentityPattern {
    /// `*`: any verified identity of our trust domain and of [`SnapshotData::wildcard_domains`].
    Any,
    /// Exactly this identity.
    Exact(SpiffeId),
    /// `/ns/<namespace>/sa/<anything>` of that trust domain.
    Namespace {
        /// Trust domain.
        trust_domain: TrustDomain,
        /// Namespace.
        namespace: String,
    },
    /// Valid text that matches nobody here (a foreign suffix, say), kept for explain.
    Nobody(String),
}

/// Networks that one authentication names. An address is in it if some entry covers it and none of that entry's exceptions does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSet {
    /// Entries, host bits masked.
    pub networks: Vec<Network>,
    /// Where it is declared.
    pub source: Source,
}

/// One entry of a network set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The block.
    pub cidr: IpNet,
    /// Blocks taken out of it.
    pub except: Vec<IpNet>,
}

/// A route object attached to a Server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `HTTPRoute` or `GRPCRoute`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// `spec.hostnames`, lower case; empty: any.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<RouteRule>,
    /// Why it is invalid, if so: its readable matches still take their requests, and deny them (settled reading 6).
    pub invalid: Option<String>,
    /// Where it is declared.
    pub source: Source,
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// Any of these; never empty (a rule without matches has the one that matches every path).
    pub matches: Vec<RouteMatch>,
    /// What the inbound proxy does to requests it takes.
    pub filters: Vec<Filter>,
}

/// All of its parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// Path.
    pub path: PathMatch,
    /// Method.
    pub method: Option<String>,
    /// Headers, names lower case.
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    pub query: Vec<ValueMatch>,
}

/// How a path is matched; always against the canonical path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments from the start.
    Prefix(String),
    /// A regular expression over the whole path (anchored), ranked below every prefix.
    Regex(String),
    /// `/<service>/<method>` of a gRPC request; the closer service wins, then the closer method.
    Rpc {
        /// The service, all if not named.
        service: Option<TextMatch>,
        /// The method, all if not named.
        method: Option<TextMatch>,
    },
}

/// A match on the values of one header or query parameter: every value must match, and there must be one (settled reading 13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueMatch {
    /// Header name in lower case, or parameter name.
    pub name: String,
    /// What each value must be.
    pub value: TextMatch,
}

/// How one value is matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TextMatch {
    /// Byte for byte.
    Exact(String),
    /// A regular expression over the whole value (anchored).
    Regex(String),
}

/// A filter that the inbound side applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Filter {
    /// Changes request headers.
    RequestHeaderModifier {
        /// Replaced or added.
        set: Vec<(String, String)>,
        /// Added.
        add: Vec<(String, String)>,
        /// Removed.
        remove: Vec<String>,
    },
    /// Answers with a redirect.
    RequestRedirect {
        /// Scheme.
        scheme: Option<String>,
        /// Host.
        hostname: Option<String>,
        /// Port.
        port: Option<u16>,
        /// Full path.
        path: Option<String>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
}

/// A probe endpoint that stays reachable without authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What may be asked.
    pub kind: ProbeKind,
    /// Id of the network set it may come from.
    pub networks: String,
    /// Where it is declared.
    pub source: Source,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ProbeKind {
    /// `GET` of exactly this path (query ignored); the raw path must be canonical already.
    Http(String),
    /// `grpc.health.v1.Health/Check`.
    Grpc,
    /// A connection without data.
    Tcp,
}

/// Local rate limit of a Server, requests per second and proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// All clients together.
    pub total: Option<u32>,
    /// Each identity; clients without one share a bucket.
    pub identity: Option<u32>,
    /// In place of `identity` for these.
    pub overrides: Vec<(Vec<SpiffeId>, u32)>,
}

/// What is done, for a test of whoever calls, to requests that are allowed: they wait, are answered by the proxy instead of
/// the application, or get their answers slowly. It never decides whether a request is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Whose requests: verified identities, sorted, never empty. Nobody else's, and never those of clients without one.
    pub clients: Vec<SpiffeId>,
    /// It counts before this instant and not from it on.
    pub until: Timestamp,
    /// Requests wait before they are passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Requests are answered by the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
    /// Bodies of answers are held to a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<FaultBandwidth>,
    /// Where it is declared.
    pub source: Source,
}

/// A wait before a request is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// Share of the requests, 1 to 100.
    pub percent: u8,
    /// How long, in milliseconds; 1 to [`crate::limits::FAULT_DELAY_MS_MAX`].
    pub ms: u64,
}

/// An answer in place of the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// Share of the requests, 1 to 100.
    pub percent: u8,
    /// HTTP status, 400 to 599; `None`: requests that are no gRPC pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// gRPC code, 1 to 16; `None`: calls of gRPC pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
}

/// A rate to which the body of an answer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultBandwidth {
    /// Share of the requests, 1 to 100.
    pub percent: u8,
    /// Bytes per second of each answer, at least 1.
    pub bytes_per_second: u32,
}

/// Opt-outs from path canonicalization by annotation of the Server (settled reading 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathOptions {
    /// `mesh.internal/path-escapes: keep`: `%2F` and `%5C` pass.
    pub keep_escapes: bool,
    /// `mesh.internal/path-parameters: keep`: `;` passes.
    pub keep_parameters: bool,
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Where it is declared.
    pub source: Source,
}

/// Where something is declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Source {
    /// Lines of a file; line numbers start at 1, both ends included.
    File {
        /// Path as the loader was given it.
        file: String,
        /// First line.
        line: u32,
        /// Column of the first line, from 1.
        column: u32,
        /// Last line.
        end_line: u32,
    },
    /// Built in, with the setting it comes from (`--default-policy deny`, say).
    BuiltIn(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, .. } => write!(f, "{file}:{line}"),
            Self::BuiltIn(what) => write!(f, "<{what}>"),
        }
    }
}

/// Something wrong or doubtful in the manifests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// `MESH-nnnn`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What, in one sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Which object, if it could be told.
    pub object: Option<ObjectRef>,
    /// Where.
    pub source: Source,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object has no effect, or denies.
    Error,
    /// It works, perhaps not as meant.
    Warning,
    /// Worth knowing.
    Info,
}
