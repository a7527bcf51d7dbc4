//! Manifests in, per-workload policy snapshots out. Pure: files come as bytes, time does not come at all.
//!
//! - [`manifest`]: YAML and JSON to typed objects with file and line; start at [`manifest::load`]
//! - [`import`]: policies of other meshes to manifests of this one; start at [`import::istio`]
//! - [`index`]: objects to workloads, Servers, grants, routes; start at [`index::Index::build`]
//! - [`edit`]: changes to manifests, in their text; [`index::Index::with`] compiles them
//! - [`mutate`]: policy made wrong on purpose; start at [`mutate::mutants`]
//! - [`replay`]: recorded requests through the index; start at [`replay::Replay::new`]
//! - [`mode`]: default policies
//! - `map`: maps for names
//! - [`limits`]: every bound

pub mod edit;
mod finding;
pub mod import;
pub mod index;
pub mod limits;
pub mod manifest;
mod map;
pub mod mode;
pub mod mutate;
pub mod replay;

pub use index::{
    BrokenGrant, Claim, ClaimText, Concern, Condition, Index, IndexConfig, Invariant, NamedTerm,
    ObjectStatus, ParentStatus, PodAddress, Proxied, Reach, Refusal, ResolveError, RouteStatus,
    ServiceEndpoint, ServiceEndpoints, Slice, Standing, WorkloadKey,
};
pub use manifest::{Loaded, load};
pub use mode::Mode;
