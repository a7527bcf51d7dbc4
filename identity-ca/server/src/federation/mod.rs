//! Federation: our bundle for other trust domains, and theirs for our verifiers (SPIFFE Federation).
//!
//! Nothing of it is on by default. Relations are made and ended by a person (`mesh trust federate`), and kept on disk with
//! the bundle that each held last: that one stays in force, whatever becomes of its endpoint, until a newer one is fetched
//! or the relation ends. What is held travels with our own bundle, in a map by domain; anchors of two domains are never
//! pooled, so a foreign root verifies nobody but its own. Who may come in is policy's to say.
//!
//! - [`book`]: relations, on disk and in force
//! - [`fetch`]: one fetch; [`keep`]: when, and what comes of it
//! - [`endpoint`]: our own bundle, over HTTPS; [`publish`]: the sequence numbers of what it serves
//! - [`error`]: what can go wrong

pub(crate) mod book;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod fetch;
pub(crate) mod keep;
pub(crate) mod publish;
#[cfg(test)]
mod tests;

use mesh_trust::TrustBundle;
use mesh_trust::jwt::JwtBundle;

/// Folder below the CA's directory.
pub(crate) const FOLDER: &str = "federation";

/// What other domains' bundles say, of those that we federate with. Domains without anchors, or without keys for tokens,
/// do not appear: nothing of theirs is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Counts changes since the CA started.
    pub(crate) revision: u64,
    /// Anchors, one bundle for each domain.
    pub(crate) x509: Vec<TrustBundle>,
    /// Keys for tokens, one bundle for each domain.
    pub(crate) jwt: Vec<JwtBundle>,
}
