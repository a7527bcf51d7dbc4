//! Policies written in Cedar, from a few that look at everything there is to look at.

use super::Place;
use crate::mesh::Names;
use mesh_policy::fuzzing::choices::Choices;
use serde_json::{Value, json};

impl Place<'_, '_> {
    pub(super) fn cedar_policy(&mut self, name: &str) -> Value {
        let text = format!(
            "{}\n{}",
            statement(self.number, self.names, self.choices),
            statement(self.number, self.names, self.choices)
        );
        self.grant(
            ("mesh.internal/v1alpha1", "CedarPolicy"),
            name,
            &json!({ "cedar": text }),
        )
    }
}

/// A ClusterCedarPolicy now and then; one in four may permit.
pub fn guard_rails(names: Names, choices: &mut Choices<'_>) -> Vec<Value> {
    if choices.below(2) == 0 {
        return Vec::new();
    }
    let permits = choices.once_in(4);
    let effect = if permits { "permit" } else { "forbid" };
    let condition = condition(0, names, choices);
    let spec = json!({
        "cedar": format!("{effect}(principal, action == Mesh::Action::\"request\", resource) when {{ {condition} }};"),
        "allowPermits": permits,
    });
    vec![cluster("rails", &spec)]
}

/// A guard rail that forbids all requests to a namespace, or all but reading.
pub fn forbid(namespace: usize, names: Names, but_reading: bool) -> Value {
    let namespace = names.namespace(namespace);
    let unless = if but_reading {
        " unless { context.req.method == \"GET\" }"
    } else {
        ""
    };
    let text = format!(
        "forbid(principal, action == Mesh::Action::\"request\", resource in Mesh::Namespace::\"cluster.local/{namespace}\"){unless};"
    );
    cluster("added", &json!({ "cedar": text }))
}

fn cluster(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "mesh.internal/v1alpha1",
        "kind": "ClusterCedarPolicy",
        "metadata": { "name": name },
        "spec": spec,
    })
}

fn statement(namespace: usize, names: Names, choices: &mut Choices<'_>) -> String {
    let effect = choices.pick(&["permit", "permit", "forbid"]);
    let effect = effect.unwrap_or("forbid");
    let own = names.namespace(namespace);
    let resource = match choices.below(4) {
        0 => format!("resource in Mesh::Server::\"{own}/api\""),
        1 => format!("resource in Mesh::NamedServers::\"{own}\""),
        2 => format!("resource in Mesh::RouteObj::\"HTTPRoute/{own}/read\""),
        _ => "resource".to_owned(),
    };
    let principal = match choices.below(4) {
        0 => format!(
            "principal == Mesh::Workload::\"{}\"",
            names.id(namespace, "web")
        ),
        1 => "principal is Mesh::Workload".to_owned(),
        2 => format!(
            "principal in Mesh::Namespace::\"cluster.local/{}\"",
            names.namespace(namespace + 1)
        ),
        _ => "principal".to_owned(),
    };
    if choices.once_in(5) && !resource.contains("RouteObj") {
        return format!(
            "{effect}({principal}, action == Mesh::Action::\"connect\", {resource}) when {{ context.conn.tls && context.conn.port != 9090 }};"
        );
    }
    let condition = condition(namespace, names, choices);
    format!(
        "{effect}({principal}, action == Mesh::Action::\"request\", {resource}) when {{ {condition} }};"
    )
}

fn condition(namespace: usize, names: Names, choices: &mut Choices<'_>) -> String {
    let own = names.namespace(namespace);
    let one = |choices: &mut Choices<'_>| {
        match choices.below(11) {
        0 => "context.req.method == \"POST\"".to_owned(),
        1 => "context.req.path like \"/a*\"".to_owned(),
        2 => "context.req has host && context.req.host == \"cart\"".to_owned(),
        3 => {
            "context.req.headers.hasTag(\"x-team\") && context.req.headers.getTag(\"x-team\") == [\"blue\"]"
                .to_owned()
        }
        4 => "context.conn.ip.isInRange(ip(\"10.1.0.0/16\"))".to_owned(),
        5 => format!(
            "context.conn.nets.contains(Mesh::NetSet::\"NetworkAuthentication/{own}/near\")"
        ),
        6 => "context.now < datetime(\"2026-01-01T00:00:00.001Z\")".to_owned(),
        7 => "context.req has grpcService && context.req.grpcService == \"shop.Cart\"".to_owned(),
        8 => format!("resource.kind == \"HTTPRoute\" && resource.ns == \"{own}\""),
        9 => "context.conn has certNotAfter && context.conn.certNotAfter > context.now".to_owned(),
        _ => "context.conn.port == 8080".to_owned(),
    }
    };
    let (first, second) = (one(choices), one(choices));
    match choices.below(4) {
        0 => format!("({first}) && ({second})"),
        1 => format!("({first}) || ({second})"),
        2 => format!("!({first})"),
        _ => first,
    }
}
