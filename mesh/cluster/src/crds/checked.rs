//! Kinds of Linkerd whose objects can be applied as they are: EgressNetwork, and two that are checked and not enforced.

use super::linkerd;
use super::schema::{
    any_text, anything, boolean, choice, described, integer, list, list_of, networks, object,
    port_number, rule, text, text_of,
};
use super::{Column, Kind, Scope, Version};
use serde_json::Value;

/// EgressNetwork, ServiceProfile, ExternalWorkload.
pub(super) fn kinds() -> Vec<Kind> {
    vec![egress_network(), service_profile(), external_workload()]
}

fn egress_network() -> Kind {
    let spec = object(
        &[
            ("trafficPolicy", choice(&["Allow", "Deny"])),
            ("networks", networks(1)),
        ],
        &["trafficPolicy"],
    );
    linkerd::kind(
        "EgressNetwork",
        "egressnetworks",
        &[],
        vec![Version::new("v1alpha1", spec)],
        vec![Column("Traffic", ".spec.trafficPolicy", "Allow or Deny.")],
    )
}

fn service_profile() -> Kind {
    let class = object(
        &[("condition", anything()), ("isFailure", boolean())],
        &["condition"],
    );
    let route = object(
        &[
            ("name", text()),
            (
                "condition",
                described(anything(), "`all`, `any`, `not`, `pathRegex`, `method`."),
            ),
            ("responseClasses", list(class)),
            ("isRetryable", boolean()),
            ("timeout", any_text()),
        ],
        &["name", "condition"],
    );
    let number = serde_json::json!({ "type": "number", "minimum": 0 });
    let budget = object(
        &[
            ("retryRatio", number),
            ("minRetriesPerSecond", integer(0, i64::from(u32::MAX))),
            ("ttl", any_text()),
        ],
        &["ttl"],
    );
    let destination = object(
        &[
            ("authority", text()),
            (
                "weight",
                serde_json::json!({ "x-kubernetes-int-or-string": true }),
            ),
        ],
        &["authority", "weight"],
    );
    let spec = object(
        &[
            ("routes", list(route)),
            ("retryBudget", budget),
            ("dstOverrides", list(destination)),
            ("opaquePorts", list(any_text())),
        ],
        &[],
    );
    Kind {
        group: "linkerd.io",
        kind: "ServiceProfile",
        plural: "serviceprofiles",
        short: &["sp"],
        scope: Scope::Namespaced,
        versions: vec![Version::new("v1alpha2", spec)],
        columns: vec![],
    }
}

fn external_workload() -> Kind {
    // The field's name changed with v1beta1.
    let spec = |field| {
        let tls = object(
            &[("identity", text_of(253)), ("serverName", text_of(253))],
            &["identity", "serverName"],
        );
        let port = object(
            &[
                ("name", text_of(15)),
                ("port", port_number()),
                ("protocol", choice(&["TCP"])),
            ],
            &["port"],
        );
        let address = object(&[("ip", text_of(64))], &["ip"]);
        let spec: Value = object(
            &[
                (field, tls),
                ("ports", list_of(port, 0, 256)),
                ("workloadIPs", list_of(address, 0, 2)),
            ],
            &[field],
        );
        rule(
            spec,
            "!has(self.ports) || self.ports.all(p, !has(p.name) || self.ports.exists_one(q, has(q.name) && q.name == p.name))",
            "two ports have the same name",
        )
    };
    Kind {
        group: "workload.linkerd.io",
        kind: "ExternalWorkload",
        plural: "externalworkloads",
        short: &[],
        scope: Scope::Namespaced,
        versions: vec![
            Version::new("v1alpha1", spec("meshTls")),
            Version::new("v1beta1", spec("meshTLS")),
        ],
        columns: vec![Column(
            "Addresses",
            ".spec.workloadIPs[*].ip",
            "Where it is.",
        )],
    }
}
