//! The kinds that are read, by group and version.

use super::policy_kinds::{GATEWAY_GROUP, POLICY_GROUP, Version};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Namespace,
    ServiceAccount,
    Pod,
    Node,
    Template,
    Service,
    EndpointSlice,
    Server,
    ServerAuthorization,
    AuthorizationPolicy,
    MeshTls,
    NetworkAuthentication,
    RateLimit,
    HttpFault,
    EgressNetwork,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    ReferenceGrant,
    ServiceProfile,
    ExternalWorkload,
    Federation,
    CedarPolicy,
    ClusterCedarPolicy,
    Invariant,
}

/// One row for each group, kind and the versions that are read.
pub(crate) struct Row(
    pub(crate) &'static str,
    pub(crate) &'static str,
    pub(crate) Kind,
    pub(crate) &'static [(&'static str, Version)],
);

const V1: &[(&str, Version)] = &[("v1", Version::V1)];

const ALPHA: &[(&str, Version)] = &[("v1alpha1", Version::V1Alpha1)];

const SERVER_VERSIONS: &[(&str, Version)] = &[
    ("v1alpha1", Version::V1Alpha1),
    ("v1beta1", Version::V1Beta1),
    ("v1beta2", Version::V1Beta2),
    ("v1beta3", Version::V1Beta3),
];

const ALPHA_BETA: &[(&str, Version)] = &[
    ("v1alpha1", Version::V1Alpha1),
    ("v1beta1", Version::V1Beta1),
];

const GATEWAY_VERSIONS: &[(&str, Version)] = &[("v1beta1", Version::V1Beta1), ("v1", Version::V1)];

const TLS_ROUTE_VERSIONS: &[(&str, Version)] = &[
    ("v1alpha2", Version::V1Alpha1),
    ("v1alpha3", Version::V1Beta1),
    ("v1", Version::V1),
];

const TCP_ROUTE_VERSIONS: &[(&str, Version)] =
    &[("v1alpha2", Version::V1Alpha1), ("v1", Version::V1)];

pub(crate) const KINDS: &[Row] = &[
    Row("", "Namespace", Kind::Namespace, V1),
    Row("", "ServiceAccount", Kind::ServiceAccount, V1),
    Row("", "Pod", Kind::Pod, V1),
    Row("", "Node", Kind::Node, V1),
    Row("", "Service", Kind::Service, V1),
    Row("discovery.k8s.io", "EndpointSlice", Kind::EndpointSlice, V1),
    Row("apps", "Deployment", Kind::Template, V1),
    Row("apps", "StatefulSet", Kind::Template, V1),
    Row("apps", "DaemonSet", Kind::Template, V1),
    Row("apps", "ReplicaSet", Kind::Template, V1),
    Row("batch", "Job", Kind::Template, V1),
    Row("batch", "CronJob", Kind::Template, V1),
    Row(POLICY_GROUP, "Server", Kind::Server, SERVER_VERSIONS),
    Row(
        POLICY_GROUP,
        "ServerAuthorization",
        Kind::ServerAuthorization,
        ALPHA_BETA,
    ),
    Row(
        POLICY_GROUP,
        "AuthorizationPolicy",
        Kind::AuthorizationPolicy,
        ALPHA,
    ),
    Row(POLICY_GROUP, "MeshTLSAuthentication", Kind::MeshTls, ALPHA),
    Row(
        POLICY_GROUP,
        "NetworkAuthentication",
        Kind::NetworkAuthentication,
        ALPHA,
    ),
    Row(
        POLICY_GROUP,
        "HTTPLocalRateLimitPolicy",
        Kind::RateLimit,
        ALPHA,
    ),
    Row(POLICY_GROUP, "EgressNetwork", Kind::EgressNetwork, ALPHA),
    Row(POLICY_GROUP, "HTTPRoute", Kind::HttpRoute, SERVER_VERSIONS),
    Row(
        GATEWAY_GROUP,
        "HTTPRoute",
        Kind::HttpRoute,
        GATEWAY_VERSIONS,
    ),
    Row(GATEWAY_GROUP, "GRPCRoute", Kind::GrpcRoute, V1),
    Row(
        GATEWAY_GROUP,
        "TLSRoute",
        Kind::TlsRoute,
        TLS_ROUTE_VERSIONS,
    ),
    Row(
        GATEWAY_GROUP,
        "TCPRoute",
        Kind::TcpRoute,
        TCP_ROUTE_VERSIONS,
    ),
    Row(
        GATEWAY_GROUP,
        "ReferenceGrant",
        Kind::ReferenceGrant,
        GATEWAY_VERSIONS,
    ),
    Row(
        "linkerd.io",
        "ServiceProfile",
        Kind::ServiceProfile,
        &[("v1alpha2", Version::V1Alpha1)],
    ),
    Row(
        "workload.linkerd.io",
        "ExternalWorkload",
        Kind::ExternalWorkload,
        ALPHA_BETA,
    ),
    Row("mesh.internal", "Federation", Kind::Federation, ALPHA),
    Row("mesh.internal", "CedarPolicy", Kind::CedarPolicy, ALPHA),
    Row(
        "mesh.internal",
        "ClusterCedarPolicy",
        Kind::ClusterCedarPolicy,
        ALPHA,
    ),
    Row("mesh.internal", "Invariant", Kind::Invariant, ALPHA),
    Row("mesh.internal", "HTTPFault", Kind::HttpFault, ALPHA),
];

/// Gateway API kinds that are not ours to read.
pub(crate) const GATEWAY_OTHERS: [&str; 6] = [
    "Gateway",
    "GatewayClass",
    "UDPRoute",
    "BackendTLSPolicy",
    "XListenerSet",
    "ListenerSet",
];
