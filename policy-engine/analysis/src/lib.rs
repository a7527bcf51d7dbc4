//! Questions about policy beyond one request. Pure, and by the code of the data path: every answer is a set of decisions.
//!
//! - [`world`]: a whole mesh, as it is asked about
//! - [`classes`]: the finite classes of clients and requests that a policy tells apart
//! - [`survey`]: one port, asked in full; start at [`survey::Survey::of`]
//! - [`access`]: who can, what can, and the matrix of workloads
//! - [`diff`]: what two policies decide differently, each with a request that shows it
//! - [`outside`]: who reaches what outside of the mesh, and what two policies let out differently
//! - [`prove`]: what must hold, and whether it does
//! - [`graph`]: who reaches whom, and what to remove to keep two apart
//! - [`blast`]: how much a change opens and closes
//! - [`fixes`]: what would let a denied request through
//! - [`cases`]: policy tests: requests and what is expected of them
//! - [`clauses`]: each identity and network that an authentication names
//! - [`coverage`]: which parts of policy cases exercised
//! - [`mutation`]: policy made wrong on purpose, and whether a case notices
//! - [`records`]: decision records, read from answers and logs, and their classes
//! - [`unused`]: what recorded traffic did not use, and what can never apply
//! - [`suggest`]: least-privilege policy from recorded traffic
//! - [`shadow`]: one policy beside another, over recorded traffic
//! - [`error`]: why there is no answer

pub mod access;
pub mod blast;
pub mod cases;
pub mod classes;
pub mod clauses;
pub mod coverage;
pub mod diff;
pub mod error;
pub mod fixes;
pub mod graph;
pub mod mutation;
pub mod outside;
pub mod prove;
pub mod records;
pub mod shadow;
pub mod suggest;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod unused;
pub mod world;
