//! Manifests in, per-workload policy snapshots out. Pure: files come as bytes, time does not come at all.
//!
//! - [`manifest`]: YAML and JSON to typed objects with file and line; start at [`manifest::load`]
//! - [`index`]: objects to workloads, Servers, grants, routes; start at [`index::Index::build`]
//! - [`mutate`]: policy made wrong on purpose; start at [`mutate::mutants`]
//! - [`replay`]: recorded requests through the index; start at [`replay::Replay::new`]
//! - [`mode`]: default policies
//! - [`limits`]: every bound

mod finding;
pub mod index;
pub mod limits;
pub mod manifest;
pub mod mode;
pub mod mutate;
pub mod replay;

pub use index::{
    Claim, ClaimText, Index, IndexConfig, Invariant, NamedTerm, ResolveError, ServiceEndpoint,
    ServiceEndpoints, WorkloadKey,
};
pub use manifest::{Loaded, load};
pub use mode::Mode;
