//! The identity CA: key store, issuance log, attestation and the SPIFFE Workload API, in one process.
//!
//! A process connects to the Workload API; the kernel says which process it is; a launch record or a registration says
//! which workload that is; the issuing desk records, signs and releases its SVID; and the stream follows until the
//! process ends. What a certificate says is decided in [`mesh_issuance`]; here are the edges.
//!
//! - [`run()`], [`CaConfig`]: a whole CA
//! - [`inspect`], [`CaStatus`]: what its files say
//! - [`error`]: what can go wrong
//! - `store`, `record`: its files and its log
//! - `signer`: the process that holds private keys, and how it is asked; [`serve_signer`], [`SignerStart`]
//! - `issuing`: the one place where certificates are signed
//! - `registry`: attestation
//! - `svids`, `jwt`, `rate`: SVIDs in force, tokens and their keys, and how often one may ask; `own_svid`: the CA's own
//! - `agent`: what every service for workloads shares; `workload_api`, `sds`: SPIFFE's and Envoy's
//! - `broker`: the same on behalf of others, for those who are named; [`BrokerConfig`]
//! - [`Oidc`]: where readers outside of SPIFFE find the keys of tokens; `public_http`: documents for everybody
//! - [`network`]: issuance for whoever no Unix socket reaches; [`kubernetes`]: evidence that an API server judges
//! - `nodes`: machines that join, and what their agents get; [`joined`]: such an agent
//! - `denials`: whom nobody trusts any more
//! - `probes`: how it is, for kubelet and Prometheus
//! - `federation`: our bundle for other trust domains, and theirs for our verifiers; [`BundleEndpoint`]
//! - `launch`, `listen`, `authority`: its sockets
//! - `audit`: the same log in a Merkle tree, and what operators asked
//! - [`adoption`]: root and issuer that others keep, cert-manager for instance
//! - [`ceremony`]: roots that are made offline, in shares
//! - `trust`: authorities, who verifies, rotation of the root
//! - `limits`: every limit, with its reason

pub mod adoption;
mod agent;
mod audit;
mod authority;
mod broker;
pub mod ceremony;
#[cfg(test)]
mod crash;
mod denials;
pub mod error;
mod federation;
mod issuing;
pub mod joined;
mod jwt;
pub mod kubernetes;
mod launch;
mod limits;
mod listen;
pub mod network;
mod nodes;
mod oidc;
mod own_svid;
mod pem;
mod probes;
mod proto;
mod public_http;
mod rate;
mod record;
mod registry;
mod run;
mod sds;
mod signer;
mod status;
mod store;
mod svids;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trust;
mod workload_api;

pub use broker::BrokerConfig;
pub use error::CaError;
pub use federation::endpoint::{BundleEndpoint, EndpointProof};
pub use network::NetworkConfig;
pub use oidc::Oidc;
pub use registry::Registration;
pub use run::{CaConfig, run};
pub use signer::Signing;
pub use signer::error::SignerError;
pub use signer::link::SignerStart;
pub use signer::process::{SignerConfig, serve as serve_signer};
pub use signer::token::TokenConfig;
pub use status::{AuthorityStatus, CaStatus, LogStatus, inspect};
pub use trust::error::TrustStateError;
