//! The Kubernetes API as the mesh's edges see it. No type of the client library leaves this crate but [`Client`].
//!
//! - [`client`]: a connection, from inside a pod or from a kubeconfig; start at [`connect`]
//! - [`kinds`]: what the controller watches, in which versions
//! - [`watch`]: objects as they are, one [`Change`](watch::Change) after the other
//! - [`object`]: what of an object counts, and how it is named
//! - [`review`]: who a service account token belongs to
//! - [`status`]: what became of an object, written into it
//! - [`events`]: what whoever looks at it should know
//! - [`lease`]: who of several does so
//! - [`read`]: a cluster looked at once
//! - [`exec`]: a command in a pod, and what it prints
//! - [`config_map`]: small texts for pods to mount
//! - [`named`]: one Secret or ConfigMap that somebody named
//! - [`namespace`]: what a namespace says about itself
//! - [`trust_bundle`]: a ClusterTrustBundle, written and read
//! - [`webhooks`]: the authorities by which API servers know a webhook

pub mod client;
pub mod config_map;
mod error;
pub mod events;
pub mod exec;
pub mod kinds;
pub mod lease;
pub mod named;
pub mod namespace;
pub mod object;
pub mod read;
pub mod review;
pub mod status;
pub mod trust_bundle;
pub mod watch;
pub mod webhooks;

pub use client::connect;
pub use error::KubernetesError;
pub use kube::Client;
