//! What is asked for: the port, the Server, the route, and what a request must be to take that route.

use super::client::covered;
use crate::cedar::tree::{
    Tree, and, any, begins, context, datetime, entity, eq, every, get, is_in, not, number,
    resource, text, truth,
};
use crate::cedar::{Vocabulary, ask};
use crate::compile::{Port, Snapshot};
use crate::matcher::Asked;
use crate::question::{RouteFacts, Target as Place, millis};
use crate::snapshot::{PathMatch, ProbeKind, RouteMatch, SnapshotData, TextMatch};
use cedar_policy::{Entities, EntityTypeName, EntityUid, EvalResult};
use mesh_trust::Timestamp;
use std::collections::BTreeSet;

/// One thing that can be asked for on a port.
#[derive(Clone, Debug)]
pub struct Target {
    /// For people: `bytes`, or the route.
    pub what: String,
    /// Whether this is a declared probe: that needs no permit, but a forbid closes it.
    pub probe: bool,
    /// Paths that its matches name: a request for one of them may well take it.
    pub paths: Vec<String>,
    /// As the matcher is asked.
    pub(crate) asked: Asked,
    action: EntityUid,
    resource: EntityUid,
    /// The resource with all that it lies in.
    place: Entities,
    /// What the port can be.
    port: Tree,
    /// What a request must be; `None`: bytes.
    request: Option<Tree>,
    /// The network set that a probe must come from.
    from: Option<String>,
}

/// All that can be asked for on `port`; nothing of it is allowed anywhere else.
pub(super) fn targets(
    vocabulary: &Vocabulary,
    snapshot: &Snapshot,
    port: u16,
) -> Result<Vec<Target>, String> {
    let data = snapshot.data();
    let making = Making {
        vocabulary,
        data: &data,
        port: snapshot.compiled_port(port),
        number: port,
    };
    making.targets()
}

struct Making<'a> {
    vocabulary: &'a Vocabulary,
    data: &'a SnapshotData,
    port: &'a Port,
    number: u16,
}

impl Making<'_> {
    fn targets(&self) -> Result<Vec<Target>, String> {
        let mut targets = Vec::new();
        if !self.port.wants_requests() {
            targets.push(self.target("bytes".to_owned(), Asked::Bytes, None, None)?);
        }
        let policy = &self.port.policy;
        for probe in &policy.probes {
            let asked = match &probe.kind {
                ProbeKind::Http(path) => ("GET", path.as_str(), None),
                ProbeKind::Grpc => ("POST", "/grpc.health.v1.Health/Check", Some(true)),
                // It carries no data, and no question is asked about it.
                ProbeKind::Tcp => continue,
            };
            let (method, path, grpc) = asked;
            let mut is = vec![
                eq(context(&["req", "method"]), text(method)),
                eq(context(&["req", "path"]), text(path)),
            ];
            is.extend(grpc.map(|grpc| eq(context(&["req", "grpc"]), truth(grpc))));
            let taken = &self.port.probe_route;
            let what = format!("probe {path}");
            let target = self.target(
                what,
                Asked::ProbeRoute,
                Some((&taken.kind, "", &taken.name, 0)),
                Some(every(is)),
            )?;
            targets.push(Target {
                probe: true,
                from: Some(probe.networks.clone()),
                ..target
            });
        }
        if self.port.is_bytes() {
            return Ok(targets);
        }
        if policy.routes.is_empty() {
            let taken = &self.port.default_route;
            let name = (taken.kind.as_str(), "", taken.name.as_str(), 0);
            let all = Some(truth(true));
            targets.push(self.target(
                "requests".to_owned(),
                Asked::DefaultRoute,
                Some(name),
                all,
            )?);
        }
        let routes = policy.routes.iter().zip(0u32..);
        for (route, index) in routes.filter(|(route, _)| route.invalid.is_none()) {
            for (rule, number) in route.rules.iter().zip(0u32..) {
                let asked = Asked::Rule {
                    route: index,
                    rule: number,
                };
                let name = (
                    route.kind.as_str(),
                    route.namespace.as_str(),
                    route.name.as_str(),
                    number,
                );
                let what = format!(
                    "{} {}/{} rule {number}",
                    route.kind, route.namespace, route.name
                );
                let takes = any(rule.matches.iter().map(takes).collect());
                targets.push(Target {
                    paths: rule.matches.iter().filter_map(named).collect(),
                    ..self.target(what, asked, Some(name), Some(takes))?
                });
            }
        }
        Ok(targets)
    }

    fn target(
        &self,
        what: String,
        asked: Asked,
        route: Option<(&str, &str, &str, u32)>,
        request: Option<Tree>,
    ) -> Result<Target, String> {
        let route = route.map(|(kind, namespace, name, rule)| RouteFacts {
            kind,
            namespace,
            name,
            rule,
        });
        let place = Place {
            trust_domain: &self.data.trust_domain,
            namespace: &self.port.policy.server.namespace,
            server: self.port.named().map(|(_, name)| name),
            port: self.number,
            route,
        };
        let mut entities = Vec::new();
        let resource = ask::resource(self.vocabulary, &place, &mut entities)?;
        Ok(Target {
            what,
            probe: false,
            paths: Vec::new(),
            asked,
            action: match route {
                Some(_) => self.vocabulary.request.clone(),
                None => self.vocabulary.connect.clone(),
            },
            resource,
            place: Entities::from_entities(entities, None).map_err(|error| error.to_string())?,
            port: self.number(),
            request,
            from: None,
        })
    }

    /// This port alone; a port without policy of its own stands for all of them.
    fn number(&self) -> Tree {
        let is = |port: u16| eq(context(&["conn", "port"]), number(i64::from(port)));
        match self.data.ports.contains_key(&self.number) {
            true => is(self.number),
            false => not(any(self.data.ports.keys().copied().map(is).collect())),
        }
    }
}

/// What a request must be for a match to take it, as far as it is said of method and path. Hosts, headers, queries and
/// regular expressions are left open.
fn takes(one: &RouteMatch) -> Tree {
    let path = || context(&["req", "path"]);
    let of_path = match &one.path {
        PathMatch::Exact(exact) => eq(path(), text(exact)),
        PathMatch::Prefix(prefix) => match prefix.trim_end_matches('/') {
            "" => truth(true),
            prefix => any(vec![
                eq(path(), text(prefix)),
                begins(path(), &format!("{prefix}/")),
            ]),
        },
        PathMatch::Rpc {
            service: Some(TextMatch::Exact(service)),
            method,
        } => match method {
            Some(TextMatch::Exact(method)) => eq(path(), text(&format!("/{service}/{method}"))),
            _ => begins(path(), &format!("/{service}/")),
        },
        PathMatch::Regex(_) | PathMatch::Rpc { .. } => truth(true),
    };
    match &one.method {
        Some(method) => and(of_path, eq(context(&["req", "method"]), text(method))),
        None => of_path,
    }
}

/// The path that a match names.
fn named(one: &RouteMatch) -> Option<String> {
    match &one.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(path.clone()),
        PathMatch::Rpc {
            service: Some(TextMatch::Exact(service)),
            method,
        } => match method {
            Some(TextMatch::Exact(method)) => Some(format!("/{service}/{method}")),
            _ => Some(format!("/{service}/Any")),
        },
        PathMatch::Regex(_) | PathMatch::Rpc { .. } => None,
    }
}

impl Target {
    pub(super) fn kind(&self) -> (&EntityUid, &EntityTypeName) {
        (&self.action, self.resource.type_name())
    }

    pub(crate) fn is_request(&self) -> bool {
        self.request.is_some()
    }

    /// Which resource this is, what it has, and which of `named` it lies in; when, and on which port.
    pub(super) fn place_facts(
        &self,
        vocabulary: &Vocabulary,
        named: &BTreeSet<EntityUid>,
        now: Option<Timestamp>,
    ) -> Result<Vec<Tree>, String> {
        let mut facts = vec![eq(resource(), entity(&self.resource)), self.port.clone()];
        facts.extend(now.map(|now| {
            let now = datetime(&ask::rfc3339_millis(millis(now)));
            eq(context(&["now"]), now)
        }));
        facts.extend(self.request.clone());
        let itself = self.place.get(&self.resource);
        for (name, value) in itself.into_iter().flat_map(|entity| entity.attrs()) {
            let value = match value.map_err(|error| error.to_string())? {
                EvalResult::Bool(value) => truth(value),
                EvalResult::Long(value) => number(value),
                EvalResult::String(value) => text(&value),
                other => return Err(format!("`{name}` of a resource is {other}")),
            };
            facts.push(eq(get(resource(), name), value));
        }
        for uid in named {
            let kind = uid.type_name();
            let holds_resources = [
                &vocabulary.trust_domain,
                &vocabulary.namespace,
                &vocabulary.named_servers,
                &vocabulary.server,
                &vocabulary.route_object,
            ]
            .contains(&kind);
            if holds_resources && *uid != self.resource {
                let inside = self.place.is_ancestor_of(uid, &self.resource);
                facts.push(eq(is_in(resource(), entity(uid)), truth(inside)));
            }
        }
        Ok(facts)
    }

    /// Where a probe must come from.
    pub(super) fn probe_facts(&self, sets: &SnapshotData) -> Option<Tree> {
        let from = self.from.as_ref()?;
        Some(
            sets.network_sets
                .get(from)
                .map_or_else(|| truth(false), covered),
        )
    }
}
