//! Issuance of SVIDs: what a certificate will say, whether it may say so, and when to ask for the next. No IO, no clock,
//! no randomness: times, serials and jitter are arguments, and the private key is behind a trait.
//!
//! A certificate comes into being in two steps, and there is no other way:
//! [`prepare`](issue::prepare) builds the to-be-signed bytes and lints them; [`sign`](issue::sign) takes that proof and
//! signs exactly those bytes.
//!
//! - [`attestation`]: from evidence to an identity
//! - [`key`]: public keys that may be certified; start at [`PublicKey::from_spki`]
//! - [`csr`]: a certificate request is a key and a proof of possession; start at [`csr::parse`]
//! - [`profile`]: lifetimes and the clamp to the issuer's; start at [`Profile::validity`]
//! - [`adoption`]: issuers, roots and requests that cert-manager keeps; start at [`adoption::preflight`]
//! - [`ceremony`]: roots that are made offline, their key in shares; start at [`ceremony::shares::split`]
//! - [`authority`]: certificates that sign others; start at [`Authority::parse`]
//! - [`issue`]: prepare and sign
//! - [`federation`]: other trust domains' bundles: which one counts, when to look for the next; start at [`federation::judge`]
//! - [`lint`]: the rules a certificate must keep, one by one; start at [`lint::RULES`]
//! - [`jwt`]: JWT-SVIDs, and which key signs them when; start at [`jwt::sign`]
//! - [`renewal`]: when to renew, and what to do when that fails; start at [`renewal::Renewal`]
//! - [`rotation`]: trust anchors exchanged under load; start at [`rotation::TrustState`]
//! - [`signing`]: what is said to a signer in a process of its own; start at [`signing::Question`]
//! - [`log`]: entries of the issuance log and their hash chain
//! - [`limits`]: every limit, with its reason

pub mod adoption;
pub mod attestation;
pub mod authority;
pub mod ceremony;
pub mod csr;
mod der;
pub mod federation;
pub mod issue;
pub mod jwt;
pub mod key;
pub mod limits;
pub mod lint;
pub mod log;
pub mod profile;
pub mod renewal;
pub mod rotation;
pub mod signing;
#[cfg(test)]
mod testing;

pub use authority::Authority;
pub use issue::{Issued, Linted, Serial, Signer, SignerFailed};
pub use key::PublicKey;
pub use profile::Profile;
