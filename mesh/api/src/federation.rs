//! Relations with other trust domains on the wire: what is served to them, and what is held of theirs.

use crate::error::CodedError;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// Where our own bundle is served; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointStatus>,
    /// Domains whose bundles are fetched, in order.
    pub relations: Vec<RelationStatus>,
}

/// The endpoint of our own bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Address that it listens on.
    pub listen: SocketAddr,
    /// `https_spiffe` or `https_web`.
    pub profile: String,
    /// Who it is by its SVID; absent in `https_web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_id: Option<SpiffeId>,
    /// `spiffe_sequence` that it serves; absent until the first bundle is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// How often it asks others to fetch, seconds.
    pub refresh_secs: u64,
    /// When somebody fetched it last; absent: nobody since the CA started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<Timestamp>,
}

/// A domain whose bundle is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelationStatus {
    /// Which.
    pub trust_domain: TrustDomain,
    /// Where its bundle is.
    pub url: String,
    /// `https_spiffe` or `https_web`.
    pub profile: String,
    /// Who the endpoint must be; absent in `https_web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_id: Option<SpiffeId>,
    /// File of the roots by which it is known; absent in `https_spiffe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_roots: Option<PathBuf>,
    /// The bundle in force; absent: nothing from that domain is trusted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldStatus>,
    /// Pause between two fetches, seconds.
    pub refresh_secs: u64,
    /// Fetches that failed since the last that did not.
    pub failures: u32,
    /// When it was tried last; absent: not since the CA started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<Timestamp>,
    /// Why the last fetch failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CodedError>,
}

/// A bundle of another domain that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatus {
    /// Its `spiffe_sequence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// SHA-256 of each anchor's certificate, lower-case hex.
    pub anchors: Vec<String>,
    /// Ids of its keys for tokens.
    pub jwt_keys: Vec<String>,
    /// When this content came into force.
    pub since: Timestamp,
    /// When it was last fetched, or given by a person.
    pub confirmed_at: Timestamp,
    /// Seconds since then.
    pub age_secs: u64,
    /// Whether a person gave it, and nothing was fetched yet.
    pub given: bool,
}
