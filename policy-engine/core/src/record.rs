//! Decision records: one shape for the log, for explain's JSON and for replay (see docs/reference/records.md).

use crate::compile::Snapshot;
use crate::decide::{Generation, Phase, Verdict, decide};
use crate::request::{Call, Client, ClientRecord, Head, Protocol, RequestRecord, canonical_ip};
use crate::route::RouteTaken;
use mesh_trust::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

/// One decision, complete enough to be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// When; absent in static answers.
    pub time: Option<Timestamp>,
    /// Which policy.
    pub generation: Generation,
    /// Who asked.
    pub client: RecordClient,
    /// Where.
    pub server: RecordServer,
    /// Where to, if it left the mesh: then the client is the workload itself, and `server` names the EgressNetwork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<RecordEgress>,
    /// The route that took it.
    pub route: Option<RecordRoute>,
    /// What was asked; absent for TCP.
    pub request: Option<RecordRequest>,
    /// Allowed or not.
    pub verdict: Verdict,
    /// HTTP status of the decision, also for gRPC; absent for TCP and transport.
    pub status: Option<u16>,
    /// gRPC status, if the request was gRPC.
    pub grpc_status: Option<u8>,
    /// Which layer decided.
    pub phase: Phase,
    /// Ids of all grants that hold, sorted.
    pub reasons: Vec<String>,
    /// Whether every permit that holds is an audit one.
    pub audit: bool,
    /// Whether a proxy recorded it only because it was the first of its client, grant and route in the hour: it is no
    /// part of the sample.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// Grants that almost held; filled by explain.
    pub near_misses: Vec<NearMiss>,
    /// What the candidate beside the policy in force decides, if it decides otherwise.
    pub shadow: Option<RecordShadow>,
    /// The fault that a proxy injected into the allowed request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<RecordFault>,
}

/// A fault that was injected for a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordFault {
    /// `HTTPFault/<namespace>/<name>`.
    pub name: String,
    /// How long it waited, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The HTTP status, or code of gRPC, that the proxy answered in place of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<u16>,
    /// The rate of its answer, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u32>,
}

/// Decision of a candidate: it was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordShadow {
    /// Allowed or not.
    pub verdict: Verdict,
    /// Which layer decided.
    pub phase: Phase,
    /// HTTP status of the decision, also for gRPC; absent for TCP and transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Ids of all grants that hold, sorted.
    pub reasons: Vec<String>,
}

/// Client of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordClient {
    /// Verified identity.
    pub spiffe_id: Option<String>,
    /// Address.
    pub ip: Option<String>,
    /// Whether the proxy terminated TLS.
    pub tls: bool,
    /// Serial of the leaf.
    pub serial: Option<String>,
    /// End of the leaf's validity.
    pub expires: Option<Timestamp>,
}

impl RecordClient {
    /// A client as it stands in a record.
    pub fn of(client: &Client) -> Self {
        Self {
            spiffe_id: client.id.as_ref().map(ToString::to_string),
            ip: Some(client.ip.to_string()),
            tls: client.tls,
            serial: client.serial.clone(),
            expires: client.expires,
        }
    }

    /// A client whose record could not be read, as it was given.
    fn unread(record: &ClientRecord) -> Self {
        let tls = record.tls.unwrap_or(record.spiffe_id.is_some());
        Self {
            spiffe_id: record.spiffe_id.clone(),
            ip: record.ip.clone(),
            tls,
            serial: None,
            expires: None,
        }
    }
}

/// Server of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordServer {
    /// Namespace.
    pub namespace: String,
    /// Server object, or `default`; absent if the workload is unknown.
    pub name: Option<String>,
    /// Pod.
    pub workload: Option<String>,
    /// Port of the pod.
    pub port: u16,
    /// Whether the default policy spoke.
    pub default: bool,
}

/// Where something went that left the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordEgress {
    /// Address and port that were dialled.
    pub to: String,
    /// Server name that its TLS asks for.
    pub server_name: Option<String>,
    /// Port to which the proxy began that TLS itself, for a request in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<u16>,
    /// Address and port to which the proxy led it, where the name that let it out does not have the one that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// Route of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordRoute {
    /// `HTTPRoute`, `GRPCRoute`, or `default`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Index of the rule.
    pub rule: u32,
}

impl RecordRoute {
    /// A route as it stands in a record.
    pub(crate) fn of(taken: &RouteTaken) -> Self {
        Self {
            kind: taken.kind.clone(),
            namespace: taken.namespace.clone(),
            name: taken.name.clone(),
            rule: taken.rule,
        }
    }
}

/// Request of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordRequest {
    /// Method.
    pub method: String,
    /// Canonical path, without query; absent if the path was refused.
    pub path: Option<String>,
    /// Target as it came.
    pub raw_path: String,
    /// Canonical host.
    pub host: Option<String>,
}

/// A permit that did not hold, with the clauses that did and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearMiss {
    /// Id of the grant.
    pub policy: String,
    /// `file:line` of the grant.
    pub source: String,
    /// Clauses that hold.
    pub holds: Vec<String>,
    /// Clauses that fail.
    pub fails: Vec<String>,
}

/// Why the client of a request record cannot be read: denied in phase `transport`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum ClientFault {
    /// The identity.
    #[error("the client's identity cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0304"),
        help("write `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, or null")
    )]
    Identity {
        /// What is wrong with it.
        why: String,
    },
    /// The address.
    #[error("the client's address `{text}` is no IP address")]
    #[diagnostic(code("MESH-0304"), help("write an IPv4 or IPv6 address without port"))]
    Address {
        /// What was given.
        text: String,
    },
}

impl TryFrom<&ClientRecord> for Client {
    type Error = ClientFault;

    fn try_from(record: &ClientRecord) -> Result<Self, ClientFault> {
        let read = |text: &str| {
            SpiffeId::parse(text).map_err(|error| ClientFault::Identity {
                why: error.to_string(),
            })
        };
        let id = record.spiffe_id.as_deref().map(read).transpose()?;
        let text = record.ip.as_deref().unwrap_or("127.0.0.1");
        let ip = text.parse().map_err(|_| ClientFault::Address {
            text: text.to_owned(),
        })?;
        let tls = record.tls.unwrap_or(id.is_some());
        Ok(Self {
            id,
            ip: canonical_ip(ip),
            tls,
            serial: None,
            expires: None,
        })
    }
}

impl RequestRecord {
    /// The call that this record describes. A method that is not named is `GET`, for gRPC `POST`; a path that is not
    /// named is `/`.
    pub fn call(&self) -> Call<'_> {
        let grpc = self.protocol == Protocol::Grpc;
        match self.protocol {
            Protocol::Tcp => Call::Tcp,
            Protocol::Http | Protocol::Grpc => Call::Http(Head {
                method: self
                    .method
                    .as_deref()
                    .unwrap_or(if grpc { "POST" } else { "GET" }),
                target: self.path.as_deref().unwrap_or("/"),
                host: self.host.as_deref(),
                grpc,
                headers: &self.headers,
            }),
        }
    }
}

/// Decides a request record against the policy of the workload it reaches, on `port` of that workload.
pub fn decide_record(
    snapshot: &Snapshot,
    record: &RequestRecord,
    port: u16,
    now: Timestamp,
) -> DecisionRecord {
    match Client::try_from(&record.client) {
        Ok(client) => {
            let call = record.call();
            decide(snapshot, port, &client, &call, now).record(None, &client, &call)
        }
        Err(_) => denied_unread(snapshot, record, port),
    }
}

/// The record of a request whose client cannot be read: denied before anything else is looked at.
fn denied_unread(snapshot: &Snapshot, record: &RequestRecord, port: u16) -> DecisionRecord {
    let server = &snapshot.port(port).server;
    let blank = DecisionRecord::denied_early(record, snapshot.generation(), Phase::Transport);
    let server = RecordServer {
        namespace: server.namespace.clone(),
        name: Some(server.name.clone()),
        workload: Some(snapshot.workload().name.clone()),
        port,
        default: server.default,
    };
    DecisionRecord { server, ..blank }
}

impl DecisionRecord {
    /// The record of a request to a pod or Service that policy does not know: denied in phase `server`, unless its
    /// client cannot be read, which is phase `transport`.
    pub fn unknown_target(record: &RequestRecord, generation: Generation) -> Self {
        match Client::try_from(&record.client) {
            Ok(client) => {
                let client = RecordClient::of(&client);
                Self {
                    client,
                    ..Self::denied_early(record, generation, Phase::Server)
                }
            }
            Err(_) => Self::denied_early(record, generation, Phase::Transport),
        }
    }

    /// A denial before any policy was looked at.
    fn denied_early(record: &RequestRecord, generation: Generation, phase: Phase) -> Self {
        let request = match record.call() {
            Call::Http(head) => Some(RecordRequest {
                method: head.method.to_owned(),
                path: None,
                raw_path: head.target.to_owned(),
                host: None,
            }),
            Call::Tcp => None,
        };
        let speaks = phase != Phase::Transport && record.protocol != Protocol::Tcp;
        Self {
            time: None,
            generation,
            client: RecordClient::unread(&record.client),
            server: RecordServer {
                namespace: record.server.namespace.clone(),
                name: None,
                workload: record.server.pod.clone(),
                port: record.server.port,
                default: false,
            },
            egress: None,
            route: None,
            request,
            verdict: Verdict::Deny,
            status: speaks.then_some(403),
            grpc_status: (speaks && record.protocol == Protocol::Grpc).then_some(7),
            phase,
            reasons: Vec::new(),
            audit: false,
            first: false,
            near_misses: Vec::new(),
            shadow: None,
            fault: None,
        }
    }
}

#[cfg(test)]
mod tests;
