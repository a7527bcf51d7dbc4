//! The SPIFFE Workload API, compiled from `proto/workload.proto`.
#![expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

tonic::include_proto!("_");
