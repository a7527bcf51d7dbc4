//! The kinds of objects that the controller watches.

use kube::core::{ApiResource, GroupVersionKind};

/// One kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty: core.
    pub group: &'static str,
    /// Versions that are read, the one to ask for first in front.
    pub versions: &'static [&'static str],
    /// `AuthorizationPolicy`.
    pub kind: &'static str,
    /// `authorizationpolicies`.
    pub plural: &'static str,
    /// Whether every API server has it. Others come with a CRD, and may come later.
    pub built_in: bool,
    /// Whether its objects have a namespace.
    pub namespaced: bool,
    /// Which of its objects are read, as a label selector; `None`: all.
    pub labels: Option<&'static str>,
    /// Which of them, as a field selector; `None`: all.
    pub fields: Option<&'static str>,
}

const fn built_in(kind: &'static str, plural: &'static str) -> Kind {
    Kind {
        group: "",
        versions: &["v1"],
        kind,
        plural,
        built_in: true,
        namespaced: true,
        labels: None,
        fields: None,
    }
}

const fn custom(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        versions,
        kind,
        plural,
        built_in: false,
        namespaced: true,
        labels: None,
        fields: None,
    }
}

const LINKERD: &str = "policy.linkerd.io";
const GATEWAY: &str = "gateway.networking.k8s.io";
const MESH: &str = "mesh.internal";
const ALPHA: &[&str] = &["v1alpha1"];

/// What policy and discovery are made of. Newest version first: an object of an older one loses nothing in it.
pub const POLICY_SOURCES: &[Kind] = &[
    Kind {
        namespaced: false,
        ..built_in("Namespace", "namespaces")
    },
    built_in("Pod", "pods"),
    built_in("Service", "services"),
    // Those that Kubernetes makes of selectors say what Pods and Services say, later.
    Kind {
        group: "discovery.k8s.io",
        labels: Some("endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io"),
        ..built_in("EndpointSlice", "endpointslices")
    },
    SERVER,
    SERVER_AUTHORIZATION,
    AUTHORIZATION_POLICY,
    MESH_TLS,
    NETWORK_AUTHENTICATION,
    RATE_LIMIT,
    EGRESS_NETWORK,
    LINKERD_HTTP_ROUTE,
    HTTP_ROUTE,
    GRPC_ROUTE,
    TLS_ROUTE,
    TCP_ROUTE,
    custom(
        GATEWAY,
        &["v1", "v1beta1"],
        "ReferenceGrant",
        "referencegrants",
    ),
    custom(
        "linkerd.io",
        &["v1alpha2"],
        "ServiceProfile",
        "serviceprofiles",
    ),
    custom(
        "workload.linkerd.io",
        &["v1beta1", "v1alpha1"],
        "ExternalWorkload",
        "externalworkloads",
    ),
    FEDERATION,
    CEDAR_POLICY,
    CLUSTER_CEDAR_POLICY,
    INVARIANT,
    HTTP_FAULT,
];

/// Nodes: where pods run, and so in which zone. No part of policy, which waits for none of them.
pub const NODES: &[Kind] = &[NODE];

const NODE: Kind = Kind {
    namespaced: false,
    ..built_in("Node", "nodes")
};

const SERVER: Kind = custom(
    LINKERD,
    &["v1beta3", "v1beta2", "v1beta1", "v1alpha1"],
    "Server",
    "servers",
);
const SERVER_AUTHORIZATION: Kind = custom(
    LINKERD,
    &["v1beta1", "v1alpha1"],
    "ServerAuthorization",
    "serverauthorizations",
);
const AUTHORIZATION_POLICY: Kind = custom(
    LINKERD,
    ALPHA,
    "AuthorizationPolicy",
    "authorizationpolicies",
);
const MESH_TLS: Kind = custom(
    LINKERD,
    ALPHA,
    "MeshTLSAuthentication",
    "meshtlsauthentications",
);
const NETWORK_AUTHENTICATION: Kind = custom(
    LINKERD,
    ALPHA,
    "NetworkAuthentication",
    "networkauthentications",
);
const RATE_LIMIT: Kind = custom(
    LINKERD,
    ALPHA,
    "HTTPLocalRateLimitPolicy",
    "httplocalratelimitpolicies",
);
const EGRESS_NETWORK: Kind = custom(LINKERD, ALPHA, "EgressNetwork", "egressnetworks");
const FEDERATION: Kind = Kind {
    namespaced: false,
    ..custom(MESH, ALPHA, "Federation", "federations")
};
const CEDAR_POLICY: Kind = custom(MESH, ALPHA, "CedarPolicy", "cedarpolicies");
const CLUSTER_CEDAR_POLICY: Kind = Kind {
    namespaced: false,
    ..custom(MESH, ALPHA, "ClusterCedarPolicy", "clustercedarpolicies")
};
const INVARIANT: Kind = custom(MESH, ALPHA, "Invariant", "invariants");
const HTTP_FAULT: Kind = custom(MESH, ALPHA, "HTTPFault", "httpfaults");

/// cert-manager's requests, and the kinds that name us as their issuer.
pub const CERTIFICATE_REQUESTS: &[Kind] = &[CERTIFICATE_REQUEST, MESH_ISSUER, MESH_CLUSTER_ISSUER];
/// cert-manager's CertificateRequest.
pub const CERTIFICATE_REQUEST: Kind = custom(
    "cert-manager.io",
    &["v1"],
    "CertificateRequest",
    "certificaterequests",
);
/// An issuer for its namespace.
pub const MESH_ISSUER: Kind = custom(MESH, ALPHA, "MeshIssuer", "meshissuers");
/// An issuer for all namespaces.
pub const MESH_CLUSTER_ISSUER: Kind = Kind {
    namespaced: false,
    ..custom(MESH, ALPHA, "MeshClusterIssuer", "meshclusterissuers")
};

const CERTIFICATES: &str = "certificates.k8s.io";
const FROM_BETA: &[&str] = &["v1", "v1beta1"];

/// Requests of kubelets for the certificates of pods, those to our signer (KEP-4317).
pub const POD_CERTIFICATE_REQUEST: Kind = Kind {
    fields: Some("spec.signerName=mesh.internal/identity"),
    ..custom(
        CERTIFICATES,
        FROM_BETA,
        "PodCertificateRequest",
        "podcertificaterequests",
    )
};
/// Bundles of trust anchors (KEP-3257).
pub const CLUSTER_TRUST_BUNDLE: Kind = Kind {
    namespaced: false,
    ..custom(
        CERTIFICATES,
        FROM_BETA,
        "ClusterTrustBundle",
        "clustertrustbundles",
    )
};

const ADMISSION: &str = "admissionregistration.k8s.io";

/// What the API server itself checks before it stores something.
pub const ADMISSION_POLICY: Kind = Kind {
    namespaced: false,
    ..custom(
        ADMISSION,
        &["v1"],
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    )
};
/// Where such a check counts.
pub const ADMISSION_POLICY_BINDING: Kind = Kind {
    namespaced: false,
    ..custom(
        ADMISSION,
        &["v1"],
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    )
};

/// Linkerd's own HTTPRoute.
const LINKERD_HTTP_ROUTE: Kind = custom(
    LINKERD,
    &["v1beta3", "v1beta2", "v1beta1", "v1alpha1"],
    "HTTPRoute",
    "httproutes",
);
/// Gateway API's HTTPRoute.
const HTTP_ROUTE: Kind = custom(GATEWAY, &["v1", "v1beta1"], "HTTPRoute", "httproutes");
/// Gateway API's GRPCRoute.
const GRPC_ROUTE: Kind = custom(GATEWAY, &["v1"], "GRPCRoute", "grpcroutes");

/// Gateway API's TLSRoute.
const TLS_ROUTE: Kind = custom(
    GATEWAY,
    &["v1", "v1alpha3", "v1alpha2"],
    "TLSRoute",
    "tlsroutes",
);
/// Gateway API's TCPRoute.
const TCP_ROUTE: Kind = custom(GATEWAY, &["v1", "v1alpha2"], "TCPRoute", "tcproutes");

/// Those of [`POLICY_SOURCES`] that are routes: their status has an entry for each parent.
pub const ROUTES: &[Kind] = &[
    LINKERD_HTTP_ROUTE,
    HTTP_ROUTE,
    GRPC_ROUTE,
    TLS_ROUTE,
    TCP_ROUTE,
];

/// Those of [`POLICY_SOURCES`] whose status says what became of them.
pub const WITH_STATUS: &[Kind] = &[
    SERVER,
    SERVER_AUTHORIZATION,
    AUTHORIZATION_POLICY,
    MESH_TLS,
    NETWORK_AUTHENTICATION,
    RATE_LIMIT,
    EGRESS_NETWORK,
    LINKERD_HTTP_ROUTE,
    HTTP_ROUTE,
    GRPC_ROUTE,
    TLS_ROUTE,
    TCP_ROUTE,
    FEDERATION,
    CEDAR_POLICY,
    CLUSTER_CEDAR_POLICY,
    INVARIANT,
    HTTP_FAULT,
];

impl Kind {
    /// `servers.policy.linkerd.io`, as Kubernetes writes it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// What the names of all its objects begin with, and of no others.
    pub fn prefix(&self) -> String {
        crate::object::name(self.group, self.kind, None, "")
    }

    /// `v1`, `policy.linkerd.io/v1beta3`.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    pub(crate) fn api_resource(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_stands_twice_and_names_are_as_kubernetes_writes_them() {
        let mut names: Vec<String> = POLICY_SOURCES.iter().map(Kind::resource).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let known = |kinds: &[Kind]| kinds.iter().all(|kind| POLICY_SOURCES.contains(kind));
        assert!(known(ROUTES) && known(WITH_STATUS));
        assert!(names.contains(&"servers.policy.linkerd.io".to_owned()));
        assert!(names.contains(&"pods".to_owned()));
    }
}
