//! The authorization decision. Pure: no clock, no IO, no HTTP library, no Kubernetes.
//!
//! - [`request`]: the request record, and the facts parsed from it or from live traffic
//! - [`canonical`]: the one canonicalizer of paths and hosts; what it returns is judged, recorded and forwarded
//! - [`snapshot`]: everything one workload's proxy needs to decide; data form and compiled form
//! - [`route`]: which route takes a request (Gateway API precedence)
//! - [`compile`]: the compiled snapshot; start at [`Snapshot::compile`]
//! - [`fields`]: names of HTTP fields that have an owner
//! - [`traffic`]: where requests to a Service go, as data
//! - [`egress`]: what a workload may reach outside of the mesh: data and decision
//! - [`connection`]: what is settled once per connection
//! - `original`: the data of a snapshot, packed while nobody looks at it
//! - `texts`: many texts that begin alike, in one piece of memory
//! - `matcher`: the grants of a port, compiled: what answers on the data path
//! - `question`: one question to the policies, the same for Cedar and for compiled programs
//! - `residual`: policies that were written in Cedar, compiled
//! - [`cedar`]: grants to Cedar policies, validated strictly; Cedar's answer
//! - [`decide`]: the decision; start at [`decide::decide`]
//! - [`equivalence`]: the matcher against Cedar: for each generation, and for samples of live decisions
//! - [`explain`]: the same decision with every layer, reason and near miss
//! - [`record`]: decision records, and deciding a request record
//! - [`plain`]: a slow, plain reading of the rules, to compare with
//! - [`limits`]: every bound, with its reason

pub mod canonical;
pub mod cedar;
pub mod compile;
pub mod connection;
pub mod decide;
pub mod egress;
pub mod equivalence;
pub mod explain;
pub mod fields;
#[cfg(test)]
mod fixtures;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
mod matcher;
mod networks;
mod original;
pub mod plain;
mod question;
pub mod record;
pub mod request;
mod residual;
pub mod route;
pub mod snapshot;
mod texts;
pub mod traffic;

pub use compile::{Snapshot, SnapshotError};
pub use original::Data;
pub use texts::Reason;
