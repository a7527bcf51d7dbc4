//! What the mesh is on Kubernetes: the objects of its control plane, its CRDs, what is added to a pod, what admission
//! answers. Pure: JSON and settings in, JSON and text out; no API server, no clock.
//!
//! - [`names`]: namespaces, ports, paths and annotations that all parts agree on
//! - [`crds`]: the custom resource definitions; start at [`crds::all`]
//! - [`install`]: the control plane from the chart's templates; start at [`install::render`]
//! - [`inject`]: whether a pod gets a proxy, and what is added then; start at [`inject::decide`]
//! - [`manifest`]: the same for workloads in YAML; start at [`manifest::each`]
//! - [`admission`]: AdmissionReviews in and out; start at [`admission::mutate`] and [`admission::validate`]

pub mod admission;
pub mod crds;
pub mod inject;
pub mod install;
pub mod manifest;
pub mod names;
mod yaml;
