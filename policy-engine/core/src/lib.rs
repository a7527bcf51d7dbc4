//! The authorization decision. Pure: no clock, no IO, no HTTP library, no Kubernetes.
//!
//! - [`request`]: the request record, and the facts parsed from it or from live traffic
//! - [`canonical`]: the one canonicalizer of paths and hosts; what it returns is judged, recorded and forwarded
//! - [`snapshot`]: everything one workload's proxy needs to decide; data form and compiled form
//! - [`route`]: which route takes a request (Gateway API precedence)
//! - [`cedar`]: grants to Cedar policies, validated strictly; Cedar's answer
//! - [`compile`]: the compiled snapshot; start at [`Snapshot::compile`]
//! - [`connection`]: what is settled once per connection
//! - [`question`]: what a policy is evaluated on
//! - [`residual`]: policies written in Cedar, compiled to small programs
//! - [`decide`]: the decision; start at [`decide::decide`]
//! - [`explain`]: the same decision with every layer, reason and near miss
//! - [`record`]: decision records, and deciding a request record
//! - [`limits`]: every bound, with its reason

pub mod canonical;
pub mod cedar;
pub mod compile;
pub mod connection;
pub mod decide;
pub mod explain;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
#[expect(dead_code, reason = "the decision does not ask yet")]
mod question;
pub mod record;
pub mod request;
#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(dead_code, reason = "the decision does not ask yet")
)]
mod residual;
pub mod route;
pub mod snapshot;

pub use compile::{Snapshot, SnapshotError};
