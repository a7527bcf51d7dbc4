//! Trust: who a peer is, and why we believe it. No IO and no clock; times are arguments.
//!
//! - [`id`]: SPIFFE IDs and trust domains; start at [`SpiffeId::parse`]
//! - [`svid`]: X.509-SVIDs and their leaf checks; start at [`Svid::parse`]
//! - [`authority`]: what a certificate must be to sign others
//! - [`bundle`]: trust anchors per domain, in memory, PEM and JSON; start at [`TrustBundle::from_json`]
//! - [`deny`]: who is not trusted all the same; start at [`Denials::deny`]
//! - [`path`]: from an SVID to a trusted peer; start at [`TrustBundles::verify`]
//! - [`jwt`]: JWT-SVIDs and the keys that may sign them; start at [`JwtSvid::verify`]
//! - [`statement`]: what a workload signs outside of handshakes
//! - [`tls`]: rustls configurations whose handshake yields a [`VerifiedPeer`]
//! - [`certificate`], [`quoted`], [`limits`], [`time`]: facts of a certificate, hostile text, bounds, points in time

pub mod authority;
pub mod bundle;
pub mod certificate;
pub mod deny;
#[cfg(test)]
mod forge;
pub mod id;
pub mod jwt;
pub mod limits;
pub mod path;
pub mod quoted;
pub mod statement;
mod strict_json;
pub mod svid;
pub mod time;
pub mod tls;

pub use bundle::{TrustBundle, TrustBundles};
pub use deny::{Denials, Denied};
pub use id::{SpiffeId, TrustDomain};
pub use jwt::JwtSvid;
pub use path::VerifiedPeer;
pub use svid::Svid;
pub use time::Timestamp;
