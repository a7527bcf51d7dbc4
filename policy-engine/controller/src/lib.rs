//! Watches the sources of policy and serves each proxy its own snapshot.
//!
//! ```text
//! files ─watch─▶ sources ─bytes─▶ publish ─Published─▶ policy_service ─mTLS─▶ proxies
//!                                    │    └▶ admin (Unix socket)
//!                                    ├▶ generation (stored before it is published)
//!                                    └▶ audit log (what changed)
//! ```
//! - [`config`]: what it is told
//! - [`sources`]: files under the manifest paths, read whole
//! - [`watch`]: when to read them again
//! - [`cluster`]: objects of a Kubernetes API server in their place; [`origin`]: one or the other
//! - [`spread`]: the trust bundle in every namespace of a cluster
//! - [`status`]: what became of policy objects, told to the API server by one controller of several
//! - [`publish`]: files to one update per workload; pure but for the caller's clock
//! - [`discovery`]: where everything is, in slices, of which proxies get those that they lack
//! - [`generation`]: a number that never goes back
//! - [`authorship`]: who made and who approved a change; [`effects`]: what access it gave and took
//! - [`identity`]: its own SVID, kept fresh
//! - [`serve`]: mTLS connections; [`policy_service`]: who may watch what
//! - [`reports`]: what proxies say of the policy that they hold
//! - [`admin`]: what it says about itself
//!
//! The rules: what cannot be read grants nothing; sources that are gone leave the last policy in force; a workload
//! that is in no manifest any more is denied everything.

mod admin;
mod authorship;
mod cluster;
pub mod config;
mod control;
mod discovery;
mod effects;
mod error;
mod generation;
mod identity;
pub mod limits;
mod origin;
mod policy_service;
mod publish;
mod reports;
mod serve;
mod sources;
mod spread;
mod state;
mod status;
mod trust;
mod watch;

#[cfg(test)]
mod tests;

pub use config::{ControllerConfig, IdentitySource, PolicySources};
pub use control::run;
pub use error::ControllerError;
