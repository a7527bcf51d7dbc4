//! The kinds of `mesh.internal`.

use super::schema::{
    WALKED_MAX, any_text, anything, boolean, described, integer, list, list_of, object, rule, text,
    text_of,
};
use super::{Column, Kind, Scope, Version};
use serde_json::Value;

const GROUP: &str = "mesh.internal";

/// Bytes of Cedar text in one object (policy-engine/core/src/limits.rs, `CEDAR_TEXT_BYTES_MAX`).
const CEDAR_BYTES_MAX: u64 = mesh_policy::limits::CEDAR_TEXT_BYTES_MAX as u64;

/// All kinds of our group.
pub(super) fn kinds() -> Vec<Kind> {
    vec![
        cedar_policy(),
        cluster_cedar_policy(),
        invariant(),
        federation(),
        http_fault(),
        mesh_issuer(),
        mesh_cluster_issuer(),
    ]
}

/// What both kinds of issuer say of somebody who gets the identity of a service account that it is not.
fn mapping(more: &[(&str, Value)], required: &[&str]) -> Value {
    let user = described(
        text_of(512),
        "Who asks, as the API server knows it: `system:serviceaccount:cert-manager:cert-manager` for Certificates.",
    );
    let certificate = described(
        text_of(253),
        "Name of the Certificate that the request must be made for; any if it is left out.",
    );
    let account = described(
        text_of(253),
        "Service account of the request's namespace whose identity is issued.",
    );
    let mut fields = vec![
        ("user", user),
        ("certificate", certificate),
        ("serviceAccount", account),
    ];
    fields.extend(more.iter().cloned());
    rule(
        object(&fields, &[&["user", "serviceAccount"], required].concat()),
        "!self.user.startsWith('system:serviceaccount:') || self.user.split(':').size() == 4",
        "a service account is `system:serviceaccount:NAMESPACE:NAME`",
    )
}

fn mesh_issuer() -> Kind {
    let mapping = mapping(&[], &[]);
    let spec = object(&[("mappings", list_of(mapping, 0, WALKED_MAX))], &[]);
    let spec = described(
        spec,
        "cert-manager's CertificateRequests of this namespace that name it get SVIDs, once somebody has approved them.",
    );
    let columns = issuer_columns();
    kind(
        "MeshIssuer",
        "meshissuers",
        &[],
        Scope::Namespaced,
        spec,
        columns,
    )
}

fn mesh_cluster_issuer() -> Kind {
    let namespace = described(
        text_of(63),
        "Namespace of the requests that it is for, and of the service account.",
    );
    let mapping = mapping(&[("namespace", namespace)], &["namespace"]);
    let namespaces = described(
        list(text_of(63)),
        "Namespaces whose requests may name it; all if it is left out.",
    );
    let spec = object(
        &[
            ("namespaces", namespaces),
            ("mappings", list_of(mapping, 0, WALKED_MAX)),
        ],
        &[],
    );
    let spec = described(
        spec,
        "cert-manager's CertificateRequests that name it get SVIDs, once somebody has approved them.",
    );
    let columns = issuer_columns();
    kind(
        "MeshClusterIssuer",
        "meshclusterissuers",
        &[],
        Scope::Cluster,
        spec,
        columns,
    )
}

fn issuer_columns() -> Vec<Column> {
    let path = r#".status.conditions[?(@.type=="Ready")].reason"#;
    vec![Column("Reason", path, "Why it is ready or not.")]
}

fn kind(
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    scope: Scope,
    spec: Value,
    columns: Vec<Column>,
) -> Kind {
    Kind {
        group: GROUP,
        kind: name,
        plural,
        short,
        scope,
        versions: vec![Version::new("v1alpha1", spec)],
        columns,
    }
}

fn cedar() -> Value {
    described(
        text_of(CEDAR_BYTES_MAX),
        "Permits and forbids, written in Cedar.",
    )
}

fn cedar_policy() -> Kind {
    let spec = described(
        object(&[("cedar", cedar())], &["cedar"]),
        "Policies for the Servers of this namespace.",
    );
    kind(
        "CedarPolicy",
        "cedarpolicies",
        &["cedar"],
        Scope::Namespaced,
        spec,
        vec![],
    )
}

fn cluster_cedar_policy() -> Kind {
    let permits = described(
        boolean(),
        "Whether permits are meant: they would open every namespace.",
    );
    let spec = described(
        object(&[("cedar", cedar()), ("allowPermits", permits)], &["cedar"]),
        "Guard rails: policies for the Servers of every namespace.",
    );
    let columns = vec![Column(
        "Permits",
        ".spec.allowPermits",
        "Whether it may hold permits.",
    )];
    kind(
        "ClusterCedarPolicy",
        "clustercedarpolicies",
        &["ccedar"],
        Scope::Cluster,
        spec,
        columns,
    )
}

fn invariant() -> Kind {
    let from = rule(
        object(
            &[
                ("namespaces", list(text_of(63))),
                ("identities", list(text())),
                ("unauthenticated", boolean()),
            ],
            &[],
        ),
        "has(self.namespaces) || has(self.identities) || has(self.unauthenticated)",
        "names nobody; leave `from` out to mean everybody",
    );
    let server = object(
        &[("name", text_of(253)), ("namespace", text_of(63))],
        &["name"],
    );
    let to = rule(
        object(
            &[("namespaces", list(text_of(63))), ("servers", list(server))],
            &[],
        ),
        "has(self.namespaces) || has(self.servers)",
        "names nothing; leave `to` out to mean everything",
    );
    let deny = rule(
        object(&[("from", from), ("to", to)], &[]),
        "has(self.from) || has(self.to)",
        "one of `from` and `to` must stand",
    );
    let spec = rule(
        object(
            &[
                (
                    "description",
                    described(text(), "What must hold, in words."),
                ),
                (
                    "forbid",
                    described(
                        cedar(),
                        "No request that one of these forbids matches may be allowed.",
                    ),
                ),
                (
                    "allow",
                    described(
                        cedar(),
                        "Every request that one of these permits matches must be allowed.",
                    ),
                ),
                (
                    "deny",
                    described(
                        deny,
                        "No request of these clients to these Servers may be allowed.",
                    ),
                ),
            ],
            &["description"],
        ),
        "[has(self.forbid), has(self.allow), has(self.deny)].filter(x, x).size() == 1",
        "exactly one of `forbid`, `allow` and `deny` must stand",
    );
    let spec = described(
        spec,
        "What must be provable of all policies of the namespace; never evaluated.",
    );
    let columns = vec![Column(
        "Description",
        ".spec.description",
        "What must hold.",
    )];
    kind(
        "Invariant",
        "invariants",
        &[],
        Scope::Namespaced,
        spec,
        columns,
    )
}

fn http_fault() -> Kind {
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
    let percent = || described(integer(1, 100), "Share of the requests.");
    let delay = object(
        &[
            ("percent", percent()),
            ("duration", described(text_of(32), "How long they wait.")),
        ],
        &["percent", "duration"],
    );
    let abort = rule(
        object(
            &[
                ("percent", percent()),
                ("httpStatus", integer(400, 599)),
                ("grpcStatus", integer(1, 16)),
            ],
            &["percent"],
        ),
        "has(self.httpStatus) || has(self.grpcStatus)",
        "`httpStatus`, `grpcStatus` or both must stand",
    );
    let bandwidth = object(
        &[
            ("percent", percent()),
            ("bytesPerSecond", integer(1, i64::from(u32::MAX))),
        ],
        &["percent", "bytesPerSecond"],
    );
    let clients = described(
        list_of(text(), 1, mesh_policy::limits::FAULT_CLIENTS_MAX as u64),
        "Whose requests are disturbed, by identity; nobody else's ever are.",
    );
    let spec = rule(
        object(
            &[
                ("targetRef", target),
                ("identities", clients),
                ("until", described(text_of(64), "When it ends, RFC 3339.")),
                ("delay", described(delay, "Requests wait.")),
                (
                    "abort",
                    described(abort, "Requests are answered in place of the application."),
                ),
                (
                    "bandwidth",
                    described(bandwidth, "Answers come no faster than this."),
                ),
            ],
            &["targetRef", "identities", "until"],
        ),
        "has(self.delay) || has(self.abort) || has(self.bandwidth)",
        "one of `delay`, `abort` and `bandwidth` must stand",
    );
    let spec = described(
        spec,
        "Faults that are injected into allowed requests of named clients, for a test.",
    );
    let columns = vec![
        Column(
            "Server",
            ".spec.targetRef.name",
            "The Server that injects it.",
        ),
        Column("Until", ".spec.until", "When it ends."),
    ];
    kind(
        "HTTPFault",
        "httpfaults",
        &[],
        Scope::Namespaced,
        spec,
        columns,
    )
}

fn federation() -> Kind {
    let domain = described(text_of(255), "The foreign trust domain.");
    let wildcards = described(
        boolean(),
        "Whether `*` and the authenticated modes cover its workloads.",
    );
    let spec = object(
        &[
            ("trustDomain", domain),
            ("includeInWildcards", wildcards),
            ("bundle", described(any_text(), "Its trust bundle.")),
            ("bundleEndpoint", anything()),
            ("bundleEndpointURL", any_text()),
            ("bundleEndpointProfile", any_text()),
            ("endpointSPIFFEID", any_text()),
        ],
        &["trustDomain"],
    );
    let spec = described(
        spec,
        "A foreign trust domain whose workloads this mesh knows.",
    );
    let columns = vec![
        Column(
            "Trust domain",
            ".spec.trustDomain",
            "The foreign trust domain.",
        ),
        Column(
            "Wildcards",
            ".spec.includeInWildcards",
            "Whether `*` covers it.",
        ),
    ];
    kind(
        "Federation",
        "federations",
        &[],
        Scope::Cluster,
        spec,
        columns,
    )
}
