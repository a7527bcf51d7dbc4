//! Least-privilege policy from recorded traffic: what was allowed, and nothing else, as manifests.
//!
//! What was seen becomes classes: identity × Server × (method and path pattern, or gRPC method). Classes that the same
//! identities use become one route, one authentication and one policy. [`verify`] asks the result everything it could
//! allow; whatever was not seen is an excess. Denied records suggest nothing.
//!
//! - [`observe`]: records to classes
//! - [`pattern`]: paths to patterns
//! - [`write`]: classes to manifests
//! - [`verify`]: what the manifests allow beyond what was seen

pub mod observe;
pub mod pattern;
pub mod verify;
pub mod write;

pub use observe::{Observed, Settings, Skipped};
pub use verify::{Excess, Verified, verify};
pub use write::{Suggested, manifests};

#[cfg(test)]
mod tests;
