//! The interfaces of others that we serve, compiled from `proto/`: the SPIFFE Workload and Broker APIs, and Envoy's SDS.
#![expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

tonic::include_proto!("_");

/// The Workload API's descriptor, for server reflection.
pub(crate) const WORKLOAD_DESCRIPTOR: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/workload.bin"));

/// The Broker API.
#[allow(
    dead_code,
    reason = "references to objects of Kubernetes are refused by their name"
)]
pub mod broker {
    tonic::include_proto!("spiffe.broker");
}

/// The Broker API's descriptor, for server reflection.
pub(crate) const BROKER_DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/broker.bin"));

/// Details of errors.
pub mod rpc {
    tonic::include_proto!("google.rpc");
}

/// Envoy's packages, nested as their names are: generated code finds its types that way.
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    tonic::include_proto!("envoy.extensions.transport_sockets.tls.v3");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }
        pub mod secret {
            pub mod v3 {
                tonic::include_proto!("envoy.service.secret.v3");
            }
        }
    }
}
