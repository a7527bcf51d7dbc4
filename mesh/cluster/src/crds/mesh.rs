//! The kinds of `mesh.internal`.

use super::schema::{any_text, anything, boolean, described, list, object, rule, text, text_of};
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
    ]
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
