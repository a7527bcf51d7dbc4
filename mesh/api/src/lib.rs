//! Wire types between the edges, and their conversions. Inside a crate, wire types do not travel.
//!
//! - [`proto`]: gRPC services compiled from `proto/mesh.proto`
//! - [`discovery`]: service endpoints as a proxy receives them
//! - [`slices`]: the same in slices, of which those travel that changed; [`slices::Receiver`] puts them together
//! - [`admin`]: what proxies, CA and controller answer on their admin sockets, as JSON; [`admin::get`] asks
//! - [`admin_http`]: the little HTTP that carries those answers; [`admin_http::serve`] answers
//! - [`dial`], [`accept`]: gRPC over TLS between parts of the mesh, from both sides
//! - [`trust`]: bundles, their acknowledgment, rotations; [`trust::follow`] follows
//! - [`federation`]: how relations with other trust domains stand
//! - [`otlp`]: spans and metrics as an OpenTelemetry collector takes them
//! - [`tap`]: requests of a proxy as they end, for who looks at them
//! - [`terminal`]: texts of others, made so that they steer no terminal
//! - [`error`]: the coded error object, `MESH-nnnn`

pub mod accept;
pub mod admin;
pub mod admin_http;
pub mod dial;
pub mod discovery;
pub mod error;
pub mod federation;
pub mod otlp;
pub mod slices;
pub mod tap;
pub mod terminal;
pub mod trust;

/// gRPC services compiled from `proto/mesh.proto`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod proto {
    tonic::include_proto!("mesh.v1");
}
