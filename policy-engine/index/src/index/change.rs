//! What policy would be with some documents changed, without reading the others again.

use super::Index;
use super::terms::grant_id;
use crate::edit::Change;
use crate::manifest::cedar_judge::Mention;
use crate::manifest::object::Loader;
use crate::manifest::resource::{
    All, AuthenticationKind, Closed, Key, Object, Resources, each_list,
};
use crate::manifest::{Part, join};
use mesh_policy::snapshot::{Finding, Severity, Source};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which part of policy is compiled.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The workloads of these namespaces; `None`: all.
    pub namespaces: Concern,
    /// Of AuthorizationPolicies and ServerAuthorizations those whose grants have these ids, and those that use an
    /// authentication that changes; `None`: all. What is left out only grants: a request that a part allows is allowed
    /// by the whole.
    pub grants: Option<BTreeSet<String>>,
}

/// Namespaces whose workloads something can concern; `None`: those of all.
pub type Concern = Option<BTreeSet<String>>;

impl Index {
    /// The index of the same manifests with changes made, cut down to a part. Of its findings it
    /// has those of what changed, and the errors of before elsewhere.
    pub fn with(&self, changes: &[Change], slice: &Slice) -> Self {
        let namespaces = &slice.namespaces;
        let mut resources = self
            .resources
            .slice(slice, &self.changed_authentications(changes));
        for change in changes.iter().filter(|c| c.replaces_to.is_some()) {
            resources.retain(&|source| !change.covers(source));
        }
        let stays = |finding: &&Finding| {
            let namespace = finding.object.as_ref().map(|object| &object.namespace);
            let inside =
                |names: &BTreeSet<String>| namespace.is_none_or(|name| names.contains(name));
            finding.severity == Severity::Error
                && namespaces.as_ref().is_none_or(inside)
                && !changes.iter().any(|change| change.covers(&finding.source))
        };
        let findings = self.findings.iter().filter(stays).cloned().collect();
        let mut parts = vec![Part::again(resources, findings)];
        parts.extend(changes.iter().map(Change::read));
        let loaded = join(&parts);
        Self::build(&loaded, &self.config)
    }

    /// Whether changes are about nothing but who is granted what: policies and authentications.
    pub fn is_about_grants(&self, changes: &[Change]) -> bool {
        changes.iter().all(|change| {
            let [before, after] = self.sides(change);
            before.only_grants() && after.only_grants()
        })
    }

    /// Whom changes can concern: the namespaces of what they replace and of what they say, and for an authentication
    /// those of the policies that use it.
    pub fn concern(&self, changes: &[Change]) -> Concern {
        let mut out = BTreeSet::new();
        for change in changes {
            for side in self.sides(change) {
                out.extend(self.concern_of(&side)?);
            }
        }
        Some(out)
    }

    /// Authentications that changes replace or say.
    fn changed_authentications(&self, changes: &[Change]) -> BTreeSet<Key> {
        let mut out = BTreeSet::new();
        for change in changes {
            for side in self.sides(change) {
                out.extend(side.mesh_tls.iter().map(|one| one.key.clone()));
                let networks = side.network_authentications.iter();
                out.extend(networks.map(|one| one.key.clone()));
            }
        }
        out
    }

    /// What a change takes the place of, and what it says.
    fn sides(&self, change: &Change) -> [Resources; 2] {
        let before = match change.replaces_to {
            Some(_) => self.resources.clone_where(&|source| change.covers(source)),
            None => Resources::default(),
        };
        [before, change.read().resources]
    }

    fn concern_of(&self, changed: &Resources) -> Concern {
        let everywhere = !changed.federations.is_empty()
            || changed.cedar_policies.iter().any(|one| !one.namespaced)
            || changed.all_closed().any(|one| one.namespace.is_none())
            || changed.speaks_of_egress();
        if everywhere {
            return None;
        }
        let mut out = changed.namespaces_named();
        for one in &changed.mesh_tls {
            out.extend(self.users(AuthenticationKind::MeshTls, &one.key)?);
        }
        for one in &changed.network_authentications {
            out.extend(self.users(AuthenticationKind::Network, &one.key)?);
        }
        Some(out)
    }

    /// Namespaces of the policies that use an authentication.
    fn users(&self, kind: AuthenticationKind, key: &Key) -> Concern {
        let policies = self
            .resources
            .authorization_policies
            .iter()
            .filter(|policy| {
                let mut references = policy.spec.authentications.iter();
                references.any(|one| one.kind == kind && one.key == *key)
            });
        let mut out: BTreeSet<String> = policies.map(|one| one.key.namespace.clone()).collect();
        let set = match kind {
            AuthenticationKind::MeshTls => "MeshTLSAuthentication",
            AuthenticationKind::Network => "NetworkAuthentication",
            AuthenticationKind::ServiceAccount => "ServiceAccount",
        };
        let id = format!("{set}/{}/{}", key.namespace, key.name);
        for object in &self.resources.cedar_policies {
            let mut mentions = object.spec.statements.iter().flat_map(|one| &one.mentions);
            let mentioned = mentions.any(|mention| {
                matches!(mention, Mention::IdentitySet(set) | Mention::NetworkSet(set) if *set == id)
            });
            if mentioned && !object.namespaced {
                return None;
            }
            if mentioned {
                out.insert(object.key.namespace.clone());
            }
        }
        Some(out)
    }
}

impl Change {
    /// What its text holds.
    fn read(&self) -> Part {
        let mut loader = Loader::default();
        loader.text(&self.file, &self.text, self.line.saturating_sub(1));
        loader.part()
    }

    /// Whether something stands in the lines whose place it takes.
    fn covers(&self, source: &Source) -> bool {
        let (Source::File { file, line, .. }, Some(end)) = (source, self.replaces_to) else {
            return false;
        };
        *file == self.file && (self.line..=end).contains(line)
    }
}

impl Resources {
    /// What decisions about workloads of some namespaces look at.
    fn slice(&self, slice: &Slice, changed: &BTreeSet<Key>) -> Self {
        let everywhere = slice.namespaces.is_none();
        if everywhere && slice.grants.is_none() {
            return self.clone();
        }
        let inside = |key: &Key| {
            slice
                .namespaces
                .as_ref()
                .is_none_or(|names| names.contains(&key.namespace))
        };
        let granting =
            |id: &dyn Fn() -> String| slice.grants.as_ref().is_none_or(|ids| ids.contains(&id()));
        let authorization_policies = chosen(&self.authorization_policies, |o| {
            let mut references = o.spec.authentications.iter();
            inside(&o.key)
                && (granting(&|| grant_id(o)) || references.any(|one| changed.contains(&one.key)))
        });
        let used: BTreeSet<&Key> = authorization_policies
            .iter()
            .flat_map(|one| one.spec.authentications.iter().map(|of| &of.key))
            .collect();
        let cedar_policies = chosen(&self.cedar_policies, |o| !o.namespaced || inside(&o.key));
        // A text may mention any set by its name.
        let needed = |key: &Key| {
            !cedar_policies.is_empty()
                || slice.grants.is_none() && inside(key)
                || used.contains(key)
                || changed.contains(key)
        };
        let server_authorizations = chosen(&self.server_authorizations, |o| {
            inside(&o.key) && granting(&|| grant_id(o))
        });
        let routes = chosen(&self.routes, |o| inside(&o.key));
        // A route names Services anywhere; they must not be missed in the part when the whole has them.
        let routed: BTreeSet<&Key> = routes.iter().flat_map(|o| o.spec.service_keys()).collect();
        Self {
            namespaces: self.namespaces.clone(),
            service_accounts: chosen(&self.service_accounts, |o| inside(&o.key)),
            pods: chosen(&self.pods, |o| inside(&o.key)),
            nodes: self.nodes.clone(),
            templates: chosen(&self.templates, |o| inside(&o.key)),
            services: chosen(&self.services, |o| {
                inside(&o.key) || routed.contains(&o.key)
            }),
            endpoint_slices: chosen(&self.endpoint_slices, |o| {
                let service = o.spec.service.as_ref();
                let service = service.map(|name| Key::new(&o.key.namespace, name));
                inside(&o.key) || service.is_some_and(|key| routed.contains(&key))
            }),
            servers: chosen(&self.servers, |o| inside(&o.key)),
            server_authorizations,
            mesh_tls: chosen(&self.mesh_tls, |o| needed(&o.key)),
            network_authentications: chosen(&self.network_authentications, |o| needed(&o.key)),
            reference_grants: self.reference_grants.clone(),
            rate_limits: chosen(&self.rate_limits, |o| inside(&o.key)),
            faults: chosen(&self.faults, |o| inside(&o.key)),
            federations: self.federations.clone(),
            egress_networks: self.egress_networks.clone(),
            invariants: Vec::new(),
            closed: self.closed.clone(),
            cedar_closed: self.cedar_closed.clone(),
            egress_closed: self.egress_closed.clone(),
            shadowed: self.shadowed,
            routes,
            authorization_policies,
            cedar_policies,
        }
    }

    /// Whether it holds policies and authentications alone.
    fn only_grants(mut self) -> bool {
        self.server_authorizations.clear();
        self.authorization_policies.clear();
        self.mesh_tls.clear();
        self.network_authentications.clear();
        let mut rest = self.all_closed().count();
        each_list!(&self, list => rest += list.len());
        rest == 0
    }

    /// Whether it holds nothing but invariants, and at least one.
    pub fn are_invariants(&self) -> bool {
        let mut all = self.all_closed().count();
        each_list!(self, list => all += list.len());
        all == self.invariants.len() && all > 0
    }

    /// Keeps what stands where `keep` says so.
    fn retain(&mut self, keep: &dyn Fn(&Source) -> bool) {
        each_list!(&mut *self, list => list.retain(|one| keep(&one.source)));
        self.closed.retain(|one| keep(&one.source));
        self.cedar_closed.retain(|one| keep(&one.source));
        self.egress_closed.retain(|one| keep(&one.source));
    }

    fn clone_where(&self, keep: &dyn Fn(&Source) -> bool) -> Self {
        let close = |list: &[Closed]| -> Vec<Closed> {
            list.iter()
                .filter(|one| keep(&one.source))
                .cloned()
                .collect()
        };
        Self {
            namespaces: chosen(&self.namespaces, |o| keep(&o.source)),
            service_accounts: chosen(&self.service_accounts, |o| keep(&o.source)),
            pods: chosen(&self.pods, |o| keep(&o.source)),
            nodes: chosen(&self.nodes, |o| keep(&o.source)),
            templates: chosen(&self.templates, |o| keep(&o.source)),
            services: chosen(&self.services, |o| keep(&o.source)),
            endpoint_slices: chosen(&self.endpoint_slices, |o| keep(&o.source)),
            servers: chosen(&self.servers, |o| keep(&o.source)),
            server_authorizations: chosen(&self.server_authorizations, |o| keep(&o.source)),
            authorization_policies: chosen(&self.authorization_policies, |o| keep(&o.source)),
            mesh_tls: chosen(&self.mesh_tls, |o| keep(&o.source)),
            network_authentications: chosen(&self.network_authentications, |o| keep(&o.source)),
            routes: chosen(&self.routes, |o| keep(&o.source)),
            rate_limits: chosen(&self.rate_limits, |o| keep(&o.source)),
            faults: chosen(&self.faults, |o| keep(&o.source)),
            federations: chosen(&self.federations, |o| keep(&o.source)),
            egress_networks: chosen(&self.egress_networks, |o| keep(&o.source)),
            cedar_policies: chosen(&self.cedar_policies, |o| keep(&o.source)),
            invariants: chosen(&self.invariants, |o| keep(&o.source)),
            reference_grants: chosen(&self.reference_grants, |o| keep(&o.source)),
            closed: close(&self.closed),
            cedar_closed: close(&self.cedar_closed),
            egress_closed: close(&self.egress_closed),
            shadowed: self.shadowed,
        }
    }
}

fn chosen<T>(all: &[Arc<Object<T>>], keep: impl Fn(&Object<T>) -> bool) -> All<T> {
    all.iter().filter(|one| keep(one)).cloned().collect()
}
