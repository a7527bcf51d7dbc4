//! Server and what grants: the kinds of `policy.linkerd.io`, but for its routes.

use super::schema::{
    WALKED_MAX, any_text, boolean, choice, described, integer, list, list_of, networks, object,
    port, rule, selector, text, text_of,
};
use super::{Column, Kind, Scope, Version};
use serde_json::Value;

pub(super) const GROUP: &str = "policy.linkerd.io";

/// The default policies, as a Server's `accessPolicy` may name them too.
const MODES: [&str; 6] = [
    "deny",
    "all-authenticated",
    "all-unauthenticated",
    "cluster-authenticated",
    "cluster-unauthenticated",
    "audit",
];

/// Kinds that grant, and what they grant on.
pub(super) fn kinds() -> Vec<Kind> {
    vec![
        server(),
        server_authorization(),
        authorization_policy(),
        mesh_tls_authentication(),
        network_authentication(),
        rate_limit(),
    ]
}

pub(super) fn kind(
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    versions: Vec<Version>,
    columns: Vec<Column>,
) -> Kind {
    Kind {
        group: GROUP,
        kind: name,
        plural,
        short,
        scope: Scope::Namespaced,
        versions,
        columns,
    }
}

fn server() -> Kind {
    let versions = vec![
        Version::deprecated(
            "v1alpha1",
            server_spec(1),
            "policy.linkerd.io/v1alpha1 Server is deprecated; use v1beta3",
        ),
        Version::deprecated(
            "v1beta1",
            server_spec(1),
            "policy.linkerd.io/v1beta1 Server is deprecated; use v1beta3",
        ),
        Version::new("v1beta2", server_spec(2)),
        Version::new("v1beta3", server_spec(3)),
    ];
    let columns = vec![
        Column("Port", ".spec.port", "The port that it selects."),
        Column("Protocol", ".spec.proxyProtocol", "What is spoken there."),
        Column(
            "Access Policy",
            ".spec.accessPolicy",
            "Its default policy; deny if none stands.",
        ),
    ];
    kind("Server", "servers", &["srv"], versions, columns)
}

/// `beta`: fields came with v1beta2 and v1beta3.
fn server_spec(beta: u8) -> Value {
    let mut fields = vec![
        (
            "podSelector",
            described(selector(), "Pods of the namespace; `{}` selects all."),
        ),
        (
            "port",
            described(port(), "Number of a port, or name of container ports."),
        ),
        (
            "proxyProtocol",
            choice(&["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"]),
        ),
    ];
    if beta < 2 {
        return object(&fields, &["podSelector", "port"]);
    }
    fields.push(("externalWorkloadSelector", selector()));
    if beta > 2 {
        fields.push((
            "accessPolicy",
            described(choice(&MODES), "Default policy of this Server."),
        ));
    }
    rule(
        object(&fields, &["port"]),
        "has(self.podSelector) != has(self.externalWorkloadSelector)",
        "exactly one of `podSelector` and `externalWorkloadSelector` must stand (`podSelector: {}` selects every pod of the namespace)",
    )
}

fn server_authorization() -> Kind {
    let server = rule(
        object(&[("name", text_of(253)), ("selector", selector())], &[]),
        "has(self.name) != has(self.selector)",
        "exactly one of `name` and `selector` must stand",
    );
    let account = object(
        &[("name", text_of(253)), ("namespace", text_of(63))],
        &["name"],
    );
    let tls = rule(
        object(
            &[
                ("unauthenticatedTLS", boolean()),
                ("identities", list(text())),
                ("serviceAccounts", list(account)),
            ],
            &[],
        ),
        "!has(self.unauthenticatedTLS) || !self.unauthenticatedTLS || (!has(self.identities) && !has(self.serviceAccounts))",
        "`unauthenticatedTLS` excludes `identities` and `serviceAccounts`",
    );
    let client = rule(
        object(
            &[
                ("networks", networks(0)),
                ("unauthenticated", boolean()),
                ("meshTLS", tls),
            ],
            &[],
        ),
        "!has(self.unauthenticated) || !self.unauthenticated || !has(self.meshTLS)",
        "`unauthenticated` and `meshTLS` exclude each other",
    );
    let spec = object(
        &[("server", server), ("client", client)],
        &["server", "client"],
    );
    let versions = vec![
        Version::deprecated(
            "v1alpha1",
            spec.clone(),
            "policy.linkerd.io/v1alpha1 ServerAuthorization is deprecated; use v1beta1",
        ),
        Version::new("v1beta1", spec),
    ];
    let columns = vec![Column(
        "Server",
        ".spec.server.name",
        "The Server that it opens.",
    )];
    kind(
        "ServerAuthorization",
        "serverauthorizations",
        &["saz", "serverauthz", "srvauthz"],
        versions,
        columns,
    )
}

fn authorization_policy() -> Kind {
    let target = rule(
        object(
            &[
                ("group", any_text()),
                ("kind", text_of(63)),
                ("name", text_of(253)),
            ],
            &["kind", "name"],
        ),
        "self.kind == 'Namespace' ? !has(self.group) || self.group in ['', 'core'] \
         : self.kind == 'Server' ? has(self.group) && self.group == 'policy.linkerd.io' \
         : self.kind == 'HTTPRoute' ? has(self.group) && self.group in ['policy.linkerd.io', 'gateway.networking.k8s.io'] \
         : self.kind == 'GRPCRoute' && has(self.group) && self.group == 'gateway.networking.k8s.io'",
        "must be a Server or HTTPRoute of policy.linkerd.io, an HTTPRoute or GRPCRoute of gateway.networking.k8s.io, or the policy's own Namespace; `group` must stand",
    );
    let reference = rule(
        object(
            &[
                ("group", any_text()),
                ("kind", text_of(63)),
                ("name", text_of(253)),
                ("namespace", text_of(63)),
            ],
            &["kind", "name"],
        ),
        "self.kind == 'ServiceAccount' ? !has(self.group) || self.group in ['', 'core'] \
         : self.kind in ['MeshTLSAuthentication', 'NetworkAuthentication'] && has(self.group) && self.group == 'policy.linkerd.io'",
        "must be a MeshTLSAuthentication or NetworkAuthentication with `group: policy.linkerd.io`, or a ServiceAccount",
    );
    let references = rule(
        rule(
            list_of(reference, 0, WALKED_MAX),
            "self.filter(r, r.kind in ['MeshTLSAuthentication', 'ServiceAccount']).size() <= 1",
            "at most one MeshTLSAuthentication or ServiceAccount: all that stand must hold",
        ),
        "self.filter(r, r.kind == 'NetworkAuthentication').size() <= 1",
        "at most one NetworkAuthentication: all that stand must hold",
    );
    let spec = object(
        &[
            ("targetRef", target),
            (
                "requiredAuthenticationRefs",
                described(
                    references,
                    "All must hold. An empty list grants nothing without the annotation mesh.internal/allow-unauthenticated.",
                ),
            ),
        ],
        &["targetRef", "requiredAuthenticationRefs"],
    );
    let columns = vec![
        Column("Target", ".spec.targetRef.kind", "What it opens."),
        Column("Name", ".spec.targetRef.name", "Its name."),
    ];
    kind(
        "AuthorizationPolicy",
        "authorizationpolicies",
        &["authzpolicy"],
        vec![Version::new("v1alpha1", spec)],
        columns,
    )
}

fn mesh_tls_authentication() -> Kind {
    let reference = rule(
        object(
            &[
                ("group", any_text()),
                ("kind", choice(&["ServiceAccount", "Namespace"])),
                ("name", text_of(253)),
                ("namespace", text_of(63)),
            ],
            &["kind", "name"],
        ),
        "self.kind != 'Namespace' || !has(self.namespace)",
        "a Namespace has no `namespace`",
    );
    let spec = rule(
        object(
            &[
                (
                    "identities",
                    described(
                        list_of(text(), 1, super::schema::LIST_MAX),
                        "`*`, DNS forms, or SPIFFE IDs.",
                    ),
                ),
                (
                    "identityRefs",
                    list_of(reference, 1, super::schema::LIST_MAX),
                ),
            ],
            &[],
        ),
        "has(self.identities) != has(self.identityRefs)",
        "exactly one of `identities` and `identityRefs` must stand",
    );
    kind(
        "MeshTLSAuthentication",
        "meshtlsauthentications",
        &["meshtlsauthn"],
        vec![Version::new("v1alpha1", spec)],
        vec![Column("Identities", ".spec.identities", "Who it means.")],
    )
}

fn network_authentication() -> Kind {
    let spec = object(&[("networks", networks(1))], &["networks"]);
    kind(
        "NetworkAuthentication",
        "networkauthentications",
        &["netauthn", "networkauthn"],
        vec![Version::new("v1alpha1", spec)],
        vec![Column(
            "Networks",
            ".spec.networks[*].cidr",
            "Blocks of addresses.",
        )],
    )
}

/// Requests per second that a limit may name (policy-engine/index/src/limits.rs).
const RATE_MAX: i64 = mesh_policy_index::limits::RATE_MAX;

fn rate_limit() -> Kind {
    let rate = || {
        object(
            &[("requestsPerSecond", integer(1, RATE_MAX))],
            &["requestsPerSecond"],
        )
    };
    let target = rule(
        object(
            &[
                ("group", any_text()),
                ("kind", text_of(63)),
                ("name", text_of(253)),
            ],
            &["kind", "name"],
        ),
        "self.kind == 'Server' && has(self.group) && self.group == 'policy.linkerd.io'",
        "must be a Server with `group: policy.linkerd.io`",
    );
    let client = object(
        &[
            ("group", any_text()),
            ("kind", choice(&["ServiceAccount"])),
            ("name", text_of(253)),
            ("namespace", text_of(63)),
        ],
        &["kind", "name"],
    );
    let exception = object(
        &[
            ("requestsPerSecond", integer(1, RATE_MAX)),
            ("clientRefs", list(client)),
        ],
        &["requestsPerSecond", "clientRefs"],
    );
    let spec = object(
        &[
            ("targetRef", target),
            ("total", rate()),
            ("identity", rate()),
            ("overrides", list_of(exception, 0, WALKED_MAX)),
        ],
        &["targetRef"],
    );
    let spec = rule(
        spec,
        "!has(self.total) || !has(self.identity) || self.identity.requestsPerSecond <= self.total.requestsPerSecond",
        "`identity` allows more than `total`",
    );
    let spec = rule(
        spec,
        "!has(self.total) || !has(self.overrides) || self.overrides.all(o, o.requestsPerSecond <= self.total.requestsPerSecond)",
        "an override allows more than `total`",
    );
    let columns = vec![
        Column(
            "Server",
            ".spec.targetRef.name",
            "The Server that it limits.",
        ),
        Column(
            "Total",
            ".spec.total.requestsPerSecond",
            "Requests per second of all clients.",
        ),
        Column(
            "Identity",
            ".spec.identity.requestsPerSecond",
            "Requests per second of each identity.",
        ),
    ];
    kind(
        "HTTPLocalRateLimitPolicy",
        "httplocalratelimitpolicies",
        &["ratelimit"],
        vec![Version::new("v1alpha1", spec)],
        columns,
    )
}
