//! Where services are: what a proxy needs to reach them, and who it must find there.

use mesh_policy::traffic::{Balancing, FailureAccrual, ServiceRoute};
use mesh_trust::SpiffeId;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// All services that a workload may look up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// By namespace, name, port.
    pub services: Vec<ServicePort>,
    /// Addresses of pods, for connections that name no service. None where no proxy redirects connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodAddress>,
    /// The zone of the proxy that is told this, if it is known. A controller tells it beside, since all else is the same for
    /// all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// What is known of the protocol.
    pub protocol: ProtocolHint,
    /// Addresses of the Service itself (cluster IPs); none for a headless one, and in a mesh on one machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Ready endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ready endpoints without a proxy: reached in plaintext, where nobody has an identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmeshed: Vec<SocketAddr>,
    /// Routes attached to this port, of all namespaces, sorted by age, namespace and name. None: every request goes to
    /// the endpoints. Which of them a client follows: [`mesh_policy::traffic`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<ServiceRoute>,
    /// When endpoints are left out for their answers; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_accrual: Option<FailureAccrual>,
    /// How endpoints share requests; `None`: by latency and requests under way, all alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,
    /// Shares of `endpoints`, in their order; none: one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
    /// Zones whose clients are to use each of `endpoints`, in their order; none: requests stay in no zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<Vec<String>>,
}

/// What discovery knows of a port's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolHint {
    /// To be detected.
    #[default]
    Detect,
    /// Bytes: opaque port, or a Server says so.
    Opaque,
}

/// One pod behind a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The mesh listener of its proxy (TLS, our ALPN).
    pub proxy: SocketAddr,
    /// Port of the pod that is meant.
    pub port: u16,
    /// Who must answer.
    pub identity: SpiffeId,
    /// Pod name, for metrics and errors.
    pub workload: String,
}

/// One pod, by its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodAddress {
    /// The address.
    pub ip: IpAddr,
    /// `namespace/name`, for metrics and errors.
    pub workload: String,
    /// Who must answer there; `None`: a pod outside the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
    /// The mesh listener of its proxy. Absent beside an `identity`, the pod cannot be reached: what is promised to be
    /// meshed is never spoken to in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_controller_leaves_out_is_empty() {
        let old = r#"{"services":[{"namespace":"shop","name":"cart","port":80,"protocol":"detect","endpoints":[]}]}"#;
        let read: Discovery = serde_json::from_str(old).unwrap();
        assert!(read.pods.is_empty() && read.services[0].addresses.is_empty());
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }

    #[test]
    fn fields_of_a_later_kind_are_refused() {
        for newer in [
            r#"{"services":[],"pods":[{"ip":"10.0.0.1","workload":"a/b","plaintext":true}]}"#,
            r#"{"services":[],"nodes":[]}"#,
        ] {
            assert!(serde_json::from_str::<Discovery>(newer).is_err(), "{newer}");
        }
    }
}
