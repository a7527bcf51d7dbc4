//! Answers of the admin sockets, as JSON. Fields are only ever added; readers ignore those they do not know.
//!
//! | socket | path | answer |
//! |---|---|---|
//! | proxy | `/status` | [`ProxyStatus`] |
//! | proxy | `/identity` | [`IdentityStatus`] |
//! | proxy | `/edges` | [`EdgeStats`] |
//! | proxy | `/snapshot` | `mesh_policy::snapshot::SnapshotData` |
//! | proxy | `/discovery` | [`crate::discovery::Discovery`] |
//! | proxy | `/tap` | a stream of [`crate::tap::TapLine`] |
//! | proxy | `/ready`, `/live` | 200 or 503, the reason as text |
//! | proxy | `/metrics` | Prometheus text |
//! | controller | `/status` | [`ControllerStatus`] |
//! | controller | `/findings` | list of `mesh_policy::snapshot::Finding` |
//! | controller | `/workloads` | list of [`WorkloadStatus`] |

use mesh_policy::decide::Phase;
use mesh_policy::equivalence::Assurance;
use mesh_policy::request::Protocol;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

pub use crate::admin_http::{AdminError, get};

/// How a proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Namespace of its workload.
    pub namespace: String,
    /// Name of its workload.
    pub workload: String,
    /// Whether it takes traffic.
    pub ready: bool,
    /// What it waits for, if it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not_ready: Option<String>,
    /// The policy in force; absent: everything is denied.
    pub snapshot: Option<SnapshotStatus>,
    /// Whether the policy stream stands now.
    pub controller_connected: bool,
    /// Who it is; absent before the first SVID.
    pub spiffe_id: Option<SpiffeId>,
    /// Seconds until its SVID ends.
    pub svid_remaining_secs: Option<u64>,
    /// Connections open now, both directions.
    pub live_connections: u64,
    /// State of its decision log.
    pub audit: AuditStatus,
    /// When the process started.
    pub started_at: Timestamp,
    /// Its process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
}

/// The policy in force in a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of its JSON, lower-case hex.
    pub digest: String,
    /// When it came into force here.
    pub in_force_since: Timestamp,
    /// What came of holding its compiled form against Cedar; absent until that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equivalence: Option<Assurance>,
    /// Why nothing is compared with Cedar any more, if that failed; absent as long as it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

/// State of an audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Lines written since the start.
    pub written: u64,
    /// Records that could not be written since the start; the log holds a gap line for them, or will.
    pub lost: u64,
    /// Why it cannot write now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

/// The SVID in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Who.
    pub spiffe_id: SpiffeId,
    /// Serial number of the leaf, lower-case hex.
    pub serial: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// Seconds until then.
    pub remaining_secs: u64,
    /// Distinguished name of the issuer, as text.
    pub issued_by: String,
    /// Leaf first, PEM. Never the key.
    pub chain_pem: String,
    /// How often the SVID was replaced since the start.
    pub rotations: u64,
    /// Trust anchors known, by trust domain.
    pub anchors: Vec<AnchorStatus>,
}

/// The trust bundle of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorStatus {
    /// Whose anchors.
    pub trust_domain: TrustDomain,
    /// SHA-256 of each anchor's DER, lower-case hex.
    pub sha256: Vec<String>,
    /// Anchors, PEM.
    pub pem: String,
}

/// Who talks to whom through one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeStats {
    /// Each edge once, sorted.
    pub edges: Vec<Edge>,
}

/// Counts of one (direction, peer, target, protocol) since the proxy started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Seen from the proxy.
    pub direction: Direction,
    /// SPIFFE ID of the other side, or `unauthenticated`; of an outbound edge, who must answer.
    pub peer: String,
    /// The proxy's workload, `namespace/name`.
    pub local: String,
    /// What was asked for: `namespace/service:port` outbound, `namespace/workload:port` inbound.
    pub target: String,
    /// How the bytes were read.
    pub protocol: Protocol,
    /// Requests (HTTP, gRPC) or connections (TCP), decided or not.
    pub requests: u64,
    /// Of these, allowed.
    pub allowed: u64,
    /// Of these, denied, by reason.
    pub denied: Vec<DeniedCount>,
    /// Of those allowed, failed for another cause: no endpoint, reset, 5xx.
    pub failed: u64,
    /// Median time to the answer, microseconds; absent without any.
    pub p50_us: Option<u64>,
    /// 99th percentile of the same.
    pub p99_us: Option<u64>,
}

/// Which side of a proxy an edge is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Others to its workload.
    Inbound,
    /// Its workload to others.
    Outbound,
}

/// Denials of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedCount {
    /// Layer that refused.
    pub phase: Phase,
    /// HTTP status of the decision; absent for TCP.
    pub status: Option<u16>,
    /// gRPC status, for gRPC.
    pub grpc_status: Option<u8>,
    /// In words of a bounded set, `no grant` for instance.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// How the controller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// Whether it serves policy.
    pub ready: bool,
    /// What it waits for, if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not_ready: Option<String>,
    /// Generation of the policy that it serves.
    pub generation: u64,
    /// SHA-256 over all sources, lower-case hex.
    pub digest: String,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Who it is; absent before its first SVID.
    pub spiffe_id: Option<SpiffeId>,
    /// Where proxies reach it.
    pub listen: SocketAddr,
    /// Directories and files it reads.
    pub sources: Vec<String>,
    /// Files in them.
    pub files: u64,
    /// Workloads it has policy for.
    pub workloads: u64,
    /// Proxies that watch now.
    pub watchers: u64,
    /// What is wrong with the sources.
    pub findings: FindingCounts,
    /// When the policy changed last.
    pub last_change: Option<Timestamp>,
    /// Why the newest sources are not in force, if so (generation not stored, say).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// State of its change log.
    pub audit: AuditStatus,
    /// When the process started.
    pub started_at: Timestamp,
    /// Its process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
}

/// Findings by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingCounts {
    /// Objects that have no effect, or deny.
    pub errors: u64,
    /// Objects that work, perhaps not as meant.
    pub warnings: u64,
    /// Worth knowing.
    pub infos: u64,
}

/// One workload, as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Who may watch its policy; absent if its service account makes no SPIFFE ID.
    pub identity: Option<SpiffeId>,
    /// Generation of the newest update for it.
    pub generation: u64,
    /// SHA-256 of its policy (generation aside), lower-case hex.
    pub digest: String,
    /// Proxies that watch it now.
    pub watchers: u64,
    /// What its proxy said last of the policy that it holds; absent until it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equivalence: Option<EquivalenceStatus>,
}

/// What a proxy found when it held its policy against Cedar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EquivalenceStatus {
    /// Generation of the policy.
    pub generation: u64,
    /// When the proxy said so.
    pub at: Timestamp,
    /// What it found.
    pub found: Assurance,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_have_the_shape_that_programs_read() {
        let edge = Edge {
            direction: Direction::Inbound,
            peer: "unauthenticated".into(),
            local: "shop/cart".into(),
            target: "shop/cart:8080".into(),
            protocol: Protocol::Grpc,
            requests: 3,
            allowed: 1,
            denied: vec![DeniedCount {
                phase: Phase::Permit,
                status: Some(403),
                grpc_status: Some(7),
                reason: "no grant".into(),
                count: 2,
            }],
            failed: 0,
            p50_us: Some(210),
            p99_us: None,
        };
        let text = serde_json::to_string(&EdgeStats {
            edges: vec![edge.clone()],
        })
        .unwrap();
        assert!(
            text.contains(r#""direction":"inbound","peer":"unauthenticated""#),
            "{text}"
        );
        assert!(
            text.contains(
                r#"{"phase":"permit","status":403,"grpc_status":7,"reason":"no grant","count":2}"#
            ),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<EdgeStats>(&text).unwrap().edges,
            [edge]
        );
    }

    #[test]
    fn a_reader_of_today_takes_an_answer_of_tomorrow() {
        let status: AuditStatus =
            serde_json::from_str(r#"{"written":1,"lost":0,"since":"tomorrow"}"#).unwrap();
        assert_eq!(status.written, 1);
    }
}
