//! What whoever mends policy asks the index: which grants were meant for a port and grant nothing, which names are taken.

use super::snapshot::claims;
use super::{Index, WorkloadKey, route_key};
use crate::manifest::cedar_kinds::CedarPolicies;
use crate::manifest::resource::{AuthenticationKind, Key, Object};
use mesh_policy::snapshot::{Finding, ObjectRef, Severity, Source, WorkloadInfo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A policy that was meant to grant something, and grants nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenGrant {
    /// The policy.
    pub policy: ObjectRef,
    /// What is wrong with it, and with the authentications that it requires.
    pub findings: Vec<Finding>,
    /// Authentications that it requires and that no manifest has.
    pub missing: Vec<ObjectRef>,
    /// Whether it requires none, which grants nothing.
    pub requires_none: bool,
}

impl Index {
    /// Policies for a port of a workload, or for a route there, that grant nothing because something is wrong.
    pub fn broken_grants(&self, workload: &WorkloadKey, port: u16) -> Vec<BrokenGrant> {
        let found = self
            .by_key
            .get(workload)
            .and_then(|at| self.workloads.get(*at));
        let Some(workload) = found else {
            return Vec::new();
        };
        let claims = claims(self, workload);
        let Some(server) = claims.get(&port).and_then(|all| all.first()) else {
            return Vec::new();
        };
        let (key, policies) = (&server.key, &self.policies);
        let routes = self.routes.get(key).into_iter().flatten();
        let of_routes = routes
            .filter_map(|at| self.resources.routes.get(*at))
            .filter_map(|route| policies.by_route.get(&route_key(route)))
            .flatten();
        let of_server = policies.by_server.get(key).into_iter().flatten();
        let of_namespace = policies
            .by_namespace
            .get(&key.namespace)
            .into_iter()
            .flatten();
        let numbers = of_server.chain(of_namespace).chain(of_routes);
        let mut out: Vec<BrokenGrant> = numbers.filter_map(|at| self.broken_policy(*at)).collect();
        let named = policies.named.get(key).into_iter().flatten();
        out.extend(named.filter_map(|at| {
            let policy = self.resources.server_authorizations.get(*at)?;
            let grants = self.authorities.server_authorizations.get(*at)?.is_some();
            (!grants).then(|| self.broken(policy, false))
        }));
        out.sort_by(|a, b| a.policy.cmp(&b.policy));
        out.dedup();
        out
    }

    fn broken_policy(&self, at: usize) -> Option<BrokenGrant> {
        let policy = self.resources.authorization_policies.get(at)?;
        if self.authorities.policies.get(at)?.is_some() {
            return None;
        }
        let requires_none = policy.spec.authentications.is_empty() && policy.spec.open.is_none();
        let mut out = self.broken(policy, requires_none);
        for reference in &policy.spec.authentications {
            let kind = match reference.kind {
                AuthenticationKind::MeshTls => "MeshTLSAuthentication",
                AuthenticationKind::Network => "NetworkAuthentication",
                AuthenticationKind::ServiceAccount => continue,
            };
            let key = &reference.key;
            out.findings.extend(self.errors_of(kind, key));
            if !self.has(kind, &key.namespace, &key.name) {
                out.missing.push(ObjectRef {
                    kind: kind.to_owned(),
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    source: reference.source.clone(),
                });
            }
        }
        Some(out)
    }

    fn broken<T>(&self, policy: &Object<T>, requires_none: bool) -> BrokenGrant {
        BrokenGrant {
            policy: policy.reference(),
            findings: self.errors_of(policy.kind, &policy.key),
            missing: Vec::new(),
            requires_none,
        }
    }

    /// What makes an object grant nothing.
    fn errors_of(&self, kind: &str, key: &Key) -> Vec<Finding> {
        let name = (kind.to_owned(), key.namespace.clone(), key.name.clone());
        let numbers = self.findings_of.get(&name).into_iter().flatten();
        numbers
            .filter_map(|at| self.findings.get(*at))
            .filter(|finding| finding.severity == Severity::Error)
            .cloned()
            .collect()
    }

    /// How many AuthorizationPolicies and ServerAuthorizations a namespace has.
    pub fn policies_in(&self, namespace: &str) -> usize {
        fn count<T>(all: &[Arc<Object<T>>], namespace: &str) -> usize {
            let inside = all.iter().filter(|one| one.key.namespace == namespace);
            inside.count()
        }
        count(&self.resources.authorization_policies, namespace)
            + count(&self.resources.server_authorizations, namespace)
    }

    /// Whether an object of this kind has this name.
    pub fn has(&self, kind: &str, namespace: &str, name: &str) -> bool {
        fn any<T>(all: &[Arc<Object<T>>], kind: &str, key: &Key) -> bool {
            all.iter().any(|one| one.kind == kind && one.key == *key)
        }
        let (all, key) = (&self.resources, &Key::new(namespace, name));
        any(&all.authorization_policies, kind, key)
            || any(&all.mesh_tls, kind, key)
            || any(&all.network_authentications, kind, key)
            || any(&all.servers, kind, key)
            || any(&all.routes, kind, key)
    }

    /// Where the object stands that holds a policy written in Cedar.
    pub fn cedar_object(&self, id: &str) -> Option<Source> {
        let mut objects = self.resources.cedar_policies.iter();
        let holds = |object: &&Arc<Object<_>>| cedar_ids(object).any(|one| one == id);
        Some(objects.find(holds)?.source.clone())
    }

    /// Names of the authentications of a kind in a namespace.
    pub fn authentications(&self, kind: &str, namespace: &str) -> Vec<String> {
        fn names<T>(all: &[Arc<Object<T>>], namespace: &str) -> Vec<String> {
            let inside = all.iter().filter(|one| one.key.namespace == namespace);
            inside.map(|one| one.key.name.clone()).collect()
        }
        match kind {
            "MeshTLSAuthentication" => names(&self.resources.mesh_tls, namespace),
            "NetworkAuthentication" => names(&self.resources.network_authentications, namespace),
            _ => Vec::new(),
        }
    }

    /// Every policy that grants or forbids, with its annotations: what its owner says of it.
    pub fn annotated_policies(
        &self,
    ) -> impl Iterator<Item = (ObjectRef, &BTreeMap<String, String>)> {
        fn all<T>(
            objects: &[Arc<Object<T>>],
        ) -> impl Iterator<Item = (ObjectRef, &BTreeMap<String, String>)> {
            objects
                .iter()
                .map(|one| (one.reference(), &one.annotations))
        }
        let all_of = &self.resources;
        all(&all_of.authorization_policies)
            .chain(all(&all_of.server_authorizations))
            .chain(all(&all_of.cedar_policies))
    }

    /// Whether it is a workload, and what is known of it.
    pub fn workload(&self, workload: &WorkloadKey) -> Option<&WorkloadInfo> {
        let at = self.by_key.get(workload)?;
        Some(&self.workloads.get(*at)?.info)
    }

    /// The API group of the route that stands at a place.
    pub fn route_group(&self, source: &Source) -> Option<&'static str> {
        let mut routes = self.resources.routes.iter();
        Some(routes.find(|route| route.source == *source)?.group)
    }

    /// Labels of a workload's pods.
    pub fn labels(&self, workload: &WorkloadKey) -> Option<&BTreeMap<String, String>> {
        let at = self.by_key.get(workload)?;
        Some(&self.workloads.get(*at)?.labels)
    }
}

fn cedar_ids(object: &Object<CedarPolicies>) -> impl Iterator<Item = &str> {
    object.spec.statements.iter().map(|one| one.id.as_str())
}
