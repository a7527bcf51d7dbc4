//! A request that no grant covers: a grant that nearly does, one that was meant to, or a new one.

use super::Maker;
use crate::fixes::Proposal;
use crate::fixes::draft::Draft;
use crate::fixes::manifests::{self, Target};
use crate::fixes::near::{Lacks, nearest};
use mesh_policy::snapshot::{Grant, ObjectRef, Scope, ServerProtocol, Source, Who};
use mesh_policy_index::BrokenGrant;
use mesh_policy_index::edit::Edit;
use mesh_trust::Timestamp;
use serde_json::{Value, json};

/// Grants that nearly hold and are tried, and grants that are broken.
const NEAR_TRIED_MAX: usize = 3;
const BROKEN_TRIED_MAX: usize = 4;
/// Seconds that an expired grant is renewed for: long enough to do better, too short to forget.
const RENEWED_SECS: i64 = 24 * 3600;
/// Edits between a name that is not there and one that is meant.
const NAME_EDITS_MAX: usize = 2;

impl Maker<'_> {
    pub(super) fn missing_grant(&mut self) {
        if self.client.id.is_none() {
            let text = "the client has no identity: give it one, by a proxy of its own, before any policy is opened";
            self.hinder(text, None);
        }
        self.broken_grants();
        self.near_grants();
        self.new_grant();
    }

    /// Policies that were meant for this port and grant nothing.
    fn broken_grants(&mut self) {
        let broken = self
            .state
            .index
            .broken_grants(&self.denial.key, self.denial.port);
        for one in broken.iter().take(BROKEN_TRIED_MAX) {
            let policy = &one.policy;
            let name = format!("{} {}/{}", policy.kind, policy.namespace, policy.name);
            for finding in &one.findings {
                let text = format!(
                    "{name} was meant for this and grants nothing: {} {}",
                    finding.code, finding.message
                );
                self.hinder(text, Some(finding.source.to_string()));
            }
            self.mend_all(one.findings.iter());
            for missing in &one.missing {
                self.mend_reference(one, missing);
            }
            if !one.missing.is_empty() {
                self.create_missing(one);
            }
            if one.requires_none {
                self.require_client(one, &name);
            }
        }
    }

    /// A reference whose name is nearly right.
    fn mend_reference(&mut self, broken: &BrokenGrant, missing: &ObjectRef) {
        let names = self
            .denied
            .index
            .authentications(&missing.kind, &missing.namespace);
        let near = names
            .iter()
            .map(|name| (distance(name, &missing.name), name))
            .min();
        let Some((_, name)) = near.filter(|(edits, _)| *edits <= NAME_EDITS_MAX) else {
            return;
        };
        let edit = Edit::Set {
            map: Vec::new(),
            key: "name".to_owned(),
            value: Value::from(name.as_str()),
        };
        let mut draft = self.draft();
        if draft
            .edit(self.denied.files, &missing.source, &edit)
            .is_some()
        {
            let policy = &broken.policy;
            let what = format!(
                "let {} {}/{} refer to {} {}/{name}, not to {}",
                policy.kind,
                policy.namespace,
                policy.name,
                missing.kind,
                missing.namespace,
                missing.name
            );
            self.offer(draft, what, None);
        }
    }

    /// The authentications that a policy refers to, made for exactly this client.
    fn create_missing(&mut self, broken: &BrokenGrant) {
        let mut draft = self.draft();
        let mut what = Vec::new();
        for missing in &broken.missing {
            let place = (missing.namespace.as_str(), missing.name.as_str());
            let text = match (missing.kind.as_str(), self.id()) {
                ("MeshTLSAuthentication", Some(id)) => manifests::identity(place, id),
                ("NetworkAuthentication", _) => manifests::address(place, self.client.ip),
                _ => return,
            };
            if draft
                .append(self.denied.files, &broken.policy.source, text)
                .is_none()
            {
                return;
            }
            what.push(format!(
                "{} {}/{}",
                missing.kind, missing.namespace, missing.name
            ));
        }
        let what = format!(
            "create {}, which {} {}/{} requires, for {}",
            what.join(" and "),
            broken.policy.kind,
            broken.policy.namespace,
            broken.policy.name,
            self.who()
        );
        let owner = self.without_identity();
        self.offer(draft, what, owner);
    }

    /// A policy that requires nobody, made to require this client.
    fn require_client(&mut self, broken: &BrokenGrant, name: &str) {
        let home = &self.data().trust_domain;
        let Some(account) = self.id().and_then(|id| manifests::account(id, home)) else {
            return;
        };
        let edit = Edit::Add {
            list: vec!["spec".to_owned(), "requiredAuthenticationRefs".to_owned()],
            item: account,
        };
        let mut draft = self.draft();
        if draft
            .edit(self.denied.files, &broken.policy.source, &edit)
            .is_some()
        {
            let what = format!("let {name} require {}", self.who());
            self.offer(draft, what, None);
        }
    }

    /// Grants of this port that lack little.
    fn near_grants(&mut self) {
        let asker = (self.client, self.denied.now);
        let covers = |grant: &Grant| self.covers(&grant.scope);
        let data = self.data();
        let near = nearest(
            (&self.denial.snapshot, &data),
            self.denial.port,
            asker,
            covers,
        );
        let nearest = near.iter().take(NEAR_TRIED_MAX);
        let proposals: Vec<Proposal> = nearest
            .filter_map(|(lacks, grant)| self.widened(*lacks, grant))
            .collect();
        self.found.proposals.extend(proposals);
    }

    /// Whether a scope is that of the request.
    fn covers(&self, scope: &Scope) -> bool {
        let server = &self.port().server;
        let named = !server.default;
        match scope {
            Scope::Server { namespace, name } => {
                named && (namespace, name) == (&server.namespace, &server.name)
            }
            Scope::NamespaceServers { namespace } => named && *namespace == server.namespace,
            Scope::Default => server.default,
            Scope::Route {
                kind,
                namespace,
                name,
            } => self.denial.decision.route.as_deref().is_some_and(|taken| {
                (&taken.kind, &taken.namespace, &taken.name) == (kind, namespace, name)
            }),
        }
    }

    /// A grant with what it lacks, by exactly this identity, this address, this day.
    fn widened(&self, lacks: Lacks, grant: &Grant) -> Option<Proposal> {
        let mut out = self.from.clone();
        let name = grant.id.trim_end_matches("/0").replacen('/', " ", 1);
        if lacks.who {
            let Who::Identities(set) = &grant.who else {
                return None;
            };
            self.add_identity(&mut out.draft, set)?;
            out.what
                .push(format!("add {} to {}", self.who(), readable(set)));
        }
        if lacks.network {
            let set = grant.networks.as_ref()?;
            self.add_address(&mut out.draft, set)?;
            out.what.push(format!(
                "add {} to {}",
                manifests::block(self.client.ip),
                readable(set)
            ));
            out.needs_owner = out.needs_owner.or(self.without_identity());
        }
        if lacks.time {
            let end = in_seconds(self.denied.now, RENEWED_SECS);
            self.renew(&mut out.draft, &grant.source, &end)?;
            out.what.push(format!("renew {name} until {end}"));
            if grant.term.break_glass.is_some() {
                let owner = format!(
                    "{name} is broken glass: whoever answers for the incident must renew it"
                );
                out.needs_owner = out.needs_owner.or(Some(owner));
            }
        }
        (out.what.len() > self.from.what.len()).then_some(out)
    }

    fn add_identity(&self, draft: &mut Draft, set: &str) -> Option<()> {
        let id = self.id()?;
        let source = self.data().identity_sets.get(set)?.source.clone();
        let (kind, _) = set.split_once('/')?;
        let way = |list: &str| -> Vec<String> {
            let keys: &[&str] = match kind {
                "MeshTLSAuthentication" => &["spec"],
                _ => &["spec", "client", "meshTLS"],
            };
            keys.iter()
                .chain([&list])
                .map(|key| (*key).to_owned())
                .collect()
        };
        let mut edits = vec![Edit::Add {
            list: way("identities"),
            item: Value::from(id.to_string()),
        }];
        if let Some(account) = manifests::account(id, &self.data().trust_domain) {
            let item = match kind {
                "MeshTLSAuthentication" => account,
                _ => json!({"name": account.get("name"), "namespace": account.get("namespace")}),
            };
            let list = match kind {
                "MeshTLSAuthentication" => way("identityRefs"),
                _ => way("serviceAccounts"),
            };
            edits.push(Edit::Add { list, item });
        }
        match kind {
            "MeshTLSAuthentication" | "ServerAuthorization" => {
                draft.edit_one(self.denied.files, &source, &edits)
            }
            _ => None,
        }
    }

    fn add_address(&self, draft: &mut Draft, set: &str) -> Option<()> {
        let source = self.data().network_sets.get(set)?.source.clone();
        let keys: &[&str] = match set.split_once('/')?.0 {
            "NetworkAuthentication" => &["spec", "networks"],
            "ServerAuthorization" => &["spec", "client", "networks"],
            _ => return None,
        };
        let edit = Edit::Add {
            list: keys.iter().map(|key| (*key).to_owned()).collect(),
            item: json!({"cidr": manifests::block(self.client.ip)}),
        };
        draft.edit(self.denied.files, &source, &edit)
    }

    fn renew(&self, draft: &mut Draft, policy: &Source, end: &str) -> Option<()> {
        let edit = Edit::Set {
            map: vec!["metadata".to_owned(), "annotations".to_owned()],
            key: "mesh.internal/expires".to_owned(),
            value: Value::from(end),
        };
        draft.edit(self.denied.files, policy, &edit)
    }

    /// A grant to exactly this client, on the route that took the request, or the Server if none did.
    fn new_grant(&mut self) {
        let server = self.port().server.clone();
        let mut draft = self.draft();
        let mut what = Vec::new();
        let target = if server.default {
            match self.new_server(&mut draft) {
                Some(target) => {
                    what.push(format!("Server {}/{}", server.namespace, target.name));
                    target
                }
                None => return,
            }
        } else {
            self.target()
        };
        if self
            .grant_to_client(&mut draft, &target, &mut what)
            .is_some()
        {
            let made = what.join(" and ");
            let to = match self.client.id {
                Some(_) => String::new(),
                None => " (no identity is asked)".to_owned(),
            };
            let text = format!(
                "add {made}: {} may reach {} {}{to}",
                self.who(),
                target.kind,
                target.name
            );
            let owner = self.without_identity();
            self.offer(draft, text, owner);
        }
    }

    fn grant_to_client(
        &self,
        draft: &mut Draft,
        target: &Target,
        what: &mut Vec<String>,
    ) -> Option<()> {
        let server = &self.port().server;
        let namespace = server.namespace.as_str();
        let who = self.who();
        let beside = match server.default {
            true => &self.data().workload.source,
            false => &server.source,
        };
        let name = |kind: &str| self.free(kind, namespace, &[&target.name, "from", &who]);
        let files = self.denied.files;
        let account = self
            .id()
            .and_then(|id| manifests::account(id, &self.data().trust_domain));
        let reference = match (account, self.id()) {
            (Some(account), _) => account,
            (None, Some(id)) => {
                let name = name("MeshTLSAuthentication")?;
                draft.append(files, beside, manifests::identity((namespace, &name), id))?;
                what.push(format!("MeshTLSAuthentication {namespace}/{name}"));
                manifests::reference("MeshTLSAuthentication", &name)
            }
            (None, None) if self.client.id.is_some() => return None,
            (None, None) => {
                let name = name("NetworkAuthentication")?;
                let text = manifests::address((namespace, &name), self.client.ip);
                draft.append(files, beside, text)?;
                what.push(format!("NetworkAuthentication {namespace}/{name}"));
                manifests::reference("NetworkAuthentication", &name)
            }
        };
        let name = name("AuthorizationPolicy")?;
        let text = manifests::authorization((namespace, &name), target, &[reference]);
        draft.append(files, beside, text)?;
        what.push(format!("AuthorizationPolicy {namespace}/{name}"));
        Some(())
    }

    /// What a new grant is for.
    fn target(&self) -> Target {
        let server = Target {
            group: "policy.linkerd.io",
            kind: "Server",
            name: self.port().server.name.clone(),
        };
        let Some(taken) = self.denial.decision.route.as_deref() else {
            return server;
        };
        let kinds = ["HTTPRoute", "GRPCRoute"];
        let kind = kinds
            .into_iter()
            .find(|kind| taken.kind.split('.').next() == Some(kind));
        match kind.zip(self.state.index.route_group(&taken.source)) {
            Some((kind, group)) => Target {
                group,
                kind,
                name: taken.name.clone(),
            },
            None => server,
        }
    }

    /// A Server for a port that has none, which keeps what the default policy allows there.
    fn new_server(&self, draft: &mut Draft) -> Option<Target> {
        let server = &self.port().server;
        let port = self.denial.port.to_string();
        let name = self.free("Server", &server.namespace, &[&self.denial.key.name, &port])?;
        let labels = self.state.index.labels(&self.denial.key)?;
        let protocol = (server.protocol == ServerProtocol::Opaque).then_some("opaque");
        let text = manifests::server(
            (&server.namespace, &name),
            labels,
            self.denial.port,
            (protocol, &server.mode),
        );
        let workload = &self.data().workload.source;
        draft.append(self.denied.files, workload, text)?;
        Some(Target {
            group: "policy.linkerd.io",
            kind: "Server",
            name,
        })
    }

    /// Why the owner must agree to a client without identity.
    fn without_identity(&self) -> Option<String> {
        let text = "it lets in an address without identity, and whoever can take that address";
        self.client.id.is_none().then(|| text.to_owned())
    }
}

/// `MeshTLSAuthentication/shop/web` as `MeshTLSAuthentication shop/web`.
fn readable(id: &str) -> String {
    id.replacen('/', " ", 1)
}

/// RFC 3339, whole seconds.
fn in_seconds(now: Timestamp, secs: i64) -> String {
    let whole = Timestamp::from_unix_secs(now.unix_secs()).plus_secs(secs);
    whole.to_string().replace(".000000", "")
}

/// Edits between two names.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let change = get(&row, j) + usize::from(a != *b);
            next.push(change.min(get(&row, j + 1) + 1).min(get(&next, j) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
