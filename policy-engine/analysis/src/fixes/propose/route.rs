//! A request that no route takes: one match more.

use super::Maker;
use crate::fixes::manifests;
use mesh_policy::request::{Call, Protocol};
use mesh_policy::snapshot::Route;
use mesh_policy_index::Index;
use mesh_policy_index::edit::Edit;
use serde_json::{Value, json};

/// Routes that are tried for one match more, and rules of each.
const ROUTES_TRIED_MAX: usize = 3;
const RULES_TRIED_MAX: usize = 2;

impl Maker<'_> {
    pub(super) fn missing_route(&mut self) {
        let Some((matched, said)) = self.matched() else {
            return;
        };
        let routes: Vec<Route> = self
            .port()
            .routes
            .iter()
            .filter(|r| r.invalid.is_none())
            .cloned()
            .collect();
        let broken: Vec<Route> = self
            .port()
            .routes
            .iter()
            .filter(|r| r.invalid.is_some())
            .cloned()
            .collect();
        for route in broken {
            let text = format!(
                "{} {}/{} is invalid, so not all of its matches are read: {}",
                route.kind,
                route.namespace,
                route.name,
                route.invalid.unwrap_or_default()
            );
            self.hinder(text, Some(route.source.to_string()));
            self.mend_object(&route.source);
        }
        for route in routes.iter().take(ROUTES_TRIED_MAX) {
            for rule in 0..route.rules.len().min(RULES_TRIED_MAX) {
                let list = ["spec", "rules", &rule.to_string(), "matches"].map(str::to_owned);
                let edit = Edit::Add {
                    list: list.to_vec(),
                    item: matched.clone(),
                };
                let mut draft = self.draft();
                if draft
                    .edit(self.denied.files, &route.source, &edit)
                    .is_some()
                {
                    let name = format!(
                        "{} {}/{} rule {rule}",
                        route.kind, route.namespace, route.name
                    );
                    self.offer(draft, format!("let {name} take {said}"), None);
                }
            }
        }
        self.new_route(&matched, &said);
    }

    fn new_route(&mut self, matched: &Value, said: &str) {
        let server = self.port().server.clone();
        let grpc = self.denial.decision.spoken == Protocol::Grpc;
        let kind = if grpc { "GRPCRoute" } else { "HTTPRoute" };
        let Some(name) = self.free(kind, &server.namespace, &[&server.name, said]) else {
            return;
        };
        let text = manifests::route((&server.namespace, &name), &server.name, matched, grpc);
        let mut draft = self.draft();
        if draft
            .append(self.denied.files, &server.source, text)
            .is_some()
        {
            self.offer(
                draft,
                format!("add {kind} {}/{name} for {said}", server.namespace),
                None,
            );
        }
    }

    /// A match of exactly this request, and what it is in words.
    fn matched(&self) -> Option<(Value, String)> {
        let Call::Http(head) = self.denied.record.call() else {
            return None;
        };
        let path = self.denial.decision.canonical_path(head.target)?.to_owned();
        if self.denial.decision.spoken == Protocol::Grpc {
            let (service, method) = path.strip_prefix('/')?.split_once('/')?;
            let matched = json!({"method": {"service": service, "method": method}});
            return Some((matched, format!("{service}/{method}")));
        }
        let matched = json!({"path": {"type": "Exact", "value": path}, "method": head.method});
        Some((matched, format!("{} {path}", head.method)))
    }

    /// A name that no object of this kind has.
    pub(super) fn free(&self, kind: &str, namespace: &str, parts: &[&str]) -> Option<String> {
        let base = manifests::name(parts);
        let numbered = (2..10).map(|number| manifests::name(&[&number.to_string(), &base]));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(|name| {
            let known = |index: &Index| index.has(kind, namespace, name);
            !known(self.denied.index) && !known(&self.state.index)
        })
    }
}
