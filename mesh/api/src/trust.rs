//! Trust bundles on the wire: how a CA stands, and what is signed in an acknowledgment.
//!
//! [`follow`] is the verifier's side of the trust stream: it hands each update to its caller and sends what comes of it.

use crate::error::CodedError;
use crate::federation::FederationStatus;
use crate::proto::trust_client::TrustClient;
use crate::proto::{TrustAcknowledgment, TrustUpdate, WatchTrustRequest};
use mesh_trust::bundle::BundleError;
use mesh_trust::statement::{self, StatementError};
use mesh_trust::svid::SvidError;
use mesh_trust::tls::TlsIdentity;
use mesh_trust::{Svid, Timestamp, TrustBundles, TrustDomain};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// What an acknowledgment is signed for; see [`statement::sign`].
pub const PURPOSE: &str = "acknowledge a trust bundle";

/// How long to wait for the CA's socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an acknowledgment may take.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a change of what an acknowledgment says may wait.
pub const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Largest update: a bundle map and a canary.
const UPDATE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How the trust of a domain stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustStatus {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// `spiffe_sequence` of the bundle.
    pub generation: u64,
    /// `steady`, `proving`, `cutting over`, `retiring`, `rolling back` or `dropping`.
    pub phase: String,
    /// Since when.
    pub since: Timestamp,
    /// Why it does not go on by itself, if somebody must resume it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Roots in the bundle.
    pub roots: Vec<RootStatus>,
    /// Processes that verify peers.
    pub verifiers: VerifierCounts,
    /// What a rotation waits for, by name.
    pub blockers: Vec<BlockerStatus>,
    /// Whom it does not wait for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
    /// Largest difference between a verifier's wall clock and the CA's, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_secs_max: Option<i64>,
    /// What would break, of a distrust that was not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast_radius: Option<Vec<BlockerStatus>>,
    /// Root and issuer that others keep; absent if they are the CA's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptStatus>,
    /// Other trust domains; absent if nothing is served to them and none is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederationStatus>,
    /// The bundle as SPIFFE JSON.
    pub bundle_json: String,
    /// The roots as PEM.
    pub bundle_pem: String,
}

/// A root in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// SHA-256 of its certificate, lower-case hex.
    pub sha256: String,
    /// Its subject.
    pub subject: String,
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
    /// Whether new leaves come from it, all or some.
    pub signs: bool,
    /// Leaves under it that somebody may show.
    pub leaves: u64,
}

/// Root and issuer that others keep, as they were last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptStatus {
    /// Where they are.
    pub place: String,
    /// Subject of the issuer in force.
    pub issuer: String,
    /// Serial number of the issuer in force, lower-case hex.
    pub issuer_serial: String,
    /// Last moment of the issuer in force, or of what is above it.
    pub issuer_until: Timestamp,
    /// What is wrong with what was read, or will be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<CodedError>,
}

/// Counts of verifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifierCounts {
    /// All that are alive, or may be.
    pub all: u64,
    /// Of these, with a trust stream.
    pub connected: u64,
    /// Of these, that acknowledged the bundle in force.
    pub acknowledged: u64,
}

/// One thing that a rotation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockerStatus {
    /// A SPIFFE ID, or what else there is to wait for.
    pub name: String,
    /// Which of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// For programs: `notAcknowledged`, `canaryRefused`, `away`, `cannotAcknowledge`, `outside`, `holdsLeaf`, `federation`.
    pub kind: String,
    /// For people.
    pub reason: String,
}

/// Why a trust stream ended, or an update is not believed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum TrustStreamError {
    /// Not reachable, or gone.
    #[error("the trust stream of `{ca}` ended: {why}")]
    #[diagnostic(
        code("MESH-0916"),
        help("the CA is down or stopping; the last bundle stays in force meanwhile")
    )]
    Ended {
        /// The CA: its socket, or `host:port`.
        ca: String,
        /// In the transport's words.
        why: String,
    },
    /// The source of identity has no such stream.
    #[error("`{ca}` is a SPIFFE Workload API without trust stream")]
    #[diagnostic(
        code("MESH-0917"),
        help(
            "it is not the mesh's own CA: bundles come with the SVID, and rotations there are not acknowledged"
        )
    )]
    NotServed {
        /// The socket, or `host:port`.
        ca: String,
    },
    /// A bundle that cannot be used.
    #[error("the trust update of generation {generation} cannot be used")]
    #[diagnostic(
        code("MESH-0918"),
        help("the last bundle stays in force; look at the CA's log")
    )]
    Bundle {
        /// Its generation.
        generation: u64,
        /// The rule broken.
        #[source]
        source: BundleError,
    },
    /// A canary that is no SVID.
    #[error("the canary of generation {generation} is no SVID")]
    #[diagnostic(
        code("MESH-0919"),
        help("the last bundle stays in force; look at the CA's log")
    )]
    Canary {
        /// Its generation.
        generation: u64,
        /// The rule broken.
        #[source]
        source: SvidError,
    },
    /// Not signed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Statement(#[from] StatementError),
}

/// An update of the trust stream, read.
#[derive(Clone, Debug)]
pub struct Update {
    /// `spiffe_sequence` of the own bundle.
    pub generation: u64,
    /// All bundles to be applied.
    pub bundles: TrustBundles,
    /// What must verify under them.
    pub canary: Svid,
    /// Whether the SVID in use is to be replaced now. Who has SVIDs pushed gets one anyway.
    pub renew: bool,
    challenge: Vec<u8>,
}

/// What came of an update, in the words of the verifier that applied it.
pub struct Outcome {
    /// The SVID in use from now on, with its key.
    pub identity: TlsIdentity,
    /// What the verifier in force says of the canary.
    pub canary: Result<(), String>,
    /// Wall clock.
    pub now: Timestamp,
    /// Handshakes refused for their chains since the start.
    pub refused_handshakes: u64,
}

impl Update {
    /// Reads an update.
    ///
    /// # Errors
    /// [`TrustStreamError::Bundle`], [`TrustStreamError::Canary`].
    pub fn read(update: TrustUpdate) -> Result<Self, TrustStreamError> {
        let generation = update.generation;
        let bundles = TrustBundles::from_json(&update.bundles_json)
            .map_err(|source| TrustStreamError::Bundle { generation, source })?;
        let canary = update
            .canary
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let canary = Svid::parse(canary)
            .map_err(|source| TrustStreamError::Canary { generation, source })?;
        Ok(Self {
            generation,
            bundles,
            canary,
            renew: update.renew,
            challenge: update.challenge,
        })
    }

    /// The signed answer to this update.
    ///
    /// # Errors
    /// [`TrustStreamError::Statement`].
    pub fn acknowledge(&self, outcome: &Outcome) -> Result<TrustAcknowledgment, TrustStreamError> {
        let mut ack = TrustAcknowledgment {
            generation: self.generation,
            challenge: self.challenge.clone(),
            canary_refusal: outcome.canary.clone().err().unwrap_or_default(),
            clock_unix_micros: outcome.now.unix_micros(),
            refused_handshakes: outcome.refused_handshakes,
            chain: outcome
                .identity
                .svid()
                .chain()
                .iter()
                .map(|der| der.to_vec())
                .collect(),
            signature: Vec::new(),
        };
        ack.signature = statement::sign(&outcome.identity, PURPOSE, &octets(&ack))?;
        Ok(ack)
    }
}

/// The octets of an acknowledgment that are signed: its fields but chain and signature, each number in eight octets.
pub fn octets(ack: &TrustAcknowledgment) -> Vec<u8> {
    let length = u64::try_from(ack.challenge.len()).unwrap_or(u64::MAX);
    [
        &ack.generation.to_be_bytes()[..],
        &length.to_be_bytes(),
        &ack.challenge,
        &ack.clock_unix_micros.to_be_bytes(),
        &ack.refused_handshakes.to_be_bytes(),
        ack.canary_refusal.as_bytes(),
    ]
    .concat()
}

/// A connection to a Unix socket, made when it is first used.
pub fn channel(socket: &Path) -> Result<Channel, TrustStreamError> {
    let ended = |why: String| TrustStreamError::Ended {
        ca: socket.display().to_string(),
        why,
    };
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()));
    let endpoint = endpoint.map_err(|error| ended(error.to_string()))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
}

/// Follows the trust stream of the CA `ca`, which `channel` leads to, until it ends. `apply` puts an update into force and says what came of
/// it. It is asked about the last update again every [`REPORT_EVERY`], with `true`, and answers if there is news: another
/// SVID in use, or handshakes refused.
///
/// # Errors
/// [`TrustStreamError`]; whoever calls tries again.
pub async fn follow(
    ca: &str,
    channel: Channel,
    mut apply: impl FnMut(&Update, bool) -> Option<Outcome>,
) -> Result<(), TrustStreamError> {
    let ended = |status: tonic::Status| match status.code() {
        Code::Unimplemented => TrustStreamError::NotServed { ca: ca.to_owned() },
        _ => TrustStreamError::Ended {
            ca: ca.to_owned(),
            why: status.message().to_owned(),
        },
    };
    let mut client = TrustClient::new(channel).max_decoding_message_size(UPDATE_BYTES_MAX);
    let mut stream = client
        .watch(WatchTrustRequest {})
        .await
        .map_err(ended)?
        .into_inner();
    let mut last: Option<Update> = None;
    loop {
        let (update, again) = match tokio::time::timeout(REPORT_EVERY, stream.message()).await {
            Ok(message) => match message.map_err(ended)? {
                Some(message) => (&*last.insert(Update::read(message)?), false),
                None => return Err(ended(tonic::Status::unavailable("it was closed"))),
            },
            Err(_) => match &last {
                Some(update) => (update, true),
                None => continue,
            },
        };
        let Some(outcome) = apply(update, again) else {
            continue;
        };
        let mut request = Request::new(update.acknowledge(&outcome)?);
        request.set_timeout(ACKNOWLEDGE_TIMEOUT);
        // An acknowledgment that was overtaken is refused, and answers nothing: the newer update is on its way.
        if let Err(status) = client.acknowledge(request).await
            && status.code() != Code::FailedPrecondition
        {
            return Err(ended(status));
        }
    }
}
