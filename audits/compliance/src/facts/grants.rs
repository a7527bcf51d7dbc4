//! Grants as their owners wrote them, and what traffic used of them.

use super::Facts;
use crate::bundle::Traffic;
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy::record::{DecisionRecord, RecordClient, RecordServer};
use mesh_policy::snapshot::{CedarText, Grant, IdentityPattern, SnapshotData, Source, Term, Who};
use mesh_policy_analysis::classes::Who as Class;
use mesh_policy_analysis::unused::{State, Uses};
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::BTreeMap;

/// Annotation of a policy that names its owner.
pub(crate) const OWNER: &str = "mesh.internal/owner";
/// Annotation of a policy that says what it is for.
pub(crate) const REASON: &str = "mesh.internal/reason";
/// Annotation that says why everybody may come in.
const OPEN_REASON: &str = "mesh.internal/allow-unauthenticated";

/// A grant in force somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFact {
    /// `<kind>/<namespace>/<name>/<part>`.
    pub id: String,
    /// Namespace of its object; empty for one of the whole mesh.
    pub namespace: String,
    /// Every identity of a trust domain.
    pub wildcard: bool,
    /// Clients without an identity.
    pub unauthenticated: bool,
    /// From every address.
    pub any_network: bool,
    /// Other namespaces it names.
    pub cross_namespace: Vec<String>,
    /// Other trust domains it names.
    pub foreign_domains: Vec<String>,
    /// Whom it names, in words.
    pub who: Vec<String>,
    /// How long it counts.
    pub term: Term,
    /// Whether it is written in Cedar: whom it names is then told by the access review alone.
    pub cedar: bool,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub reason: Option<String>,
    /// Where it is declared.
    pub source: Source,
}

/// What traffic used of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseFact {
    /// How it stands.
    pub state: State,
    /// Decisions that it was a reason of.
    pub count: u64,
    /// Time of the last.
    pub last: Option<Timestamp>,
    /// Namespace of its object.
    pub namespace: String,
    /// `file:line`.
    pub source: String,
}

impl GrantFact {
    /// A grant of a snapshot.
    pub(super) fn of(grant: &Grant, data: &SnapshotData) -> Self {
        let mut fact = Self::empty(&grant.id, &grant.term, &grant.source);
        fact.any_network = match &grant.networks {
            None => true,
            Some(set) => data.network_sets.get(set).is_some_and(|set| {
                let mut all = set.networks.iter();
                all.any(|one| one.cidr.prefix_len() == 0 && one.except.is_empty())
            }),
        };
        match &grant.who {
            Who::Anyone => fact.open("anybody"),
            Who::AnyTls => fact.open("anybody over TLS"),
            Who::Identities(set) => {
                let members = data
                    .identity_sets
                    .get(set)
                    .map(|set| set.members.as_slice());
                for member in members.unwrap_or_default() {
                    fact.member(member, data);
                }
            }
        }
        fact
    }

    /// A policy that was written in Cedar.
    pub(super) fn written(text: &CedarText) -> Self {
        let mut fact = Self::empty(&text.id, &text.term, &text.source);
        fact.cedar = true;
        fact.who.push("as its Cedar text says".to_owned());
        fact
    }

    fn empty(id: &str, term: &Term, source: &Source) -> Self {
        Self {
            id: id.to_owned(),
            namespace: namespace_of_grant(id),
            wildcard: false,
            unauthenticated: false,
            any_network: false,
            cross_namespace: Vec::new(),
            foreign_domains: Vec::new(),
            who: Vec::new(),
            term: term.clone(),
            cedar: false,
            owner: None,
            reason: None,
            source: source.clone(),
        }
    }

    fn open(&mut self, who: &str) {
        self.unauthenticated = true;
        self.who.push(who.to_owned());
    }

    fn member(&mut self, member: &IdentityPattern, data: &SnapshotData) {
        let home = &data.trust_domain;
        match member {
            IdentityPattern::Any => {
                self.wildcard = true;
                self.who.push("*".to_owned());
                data.wildcard_domains
                    .iter()
                    .for_each(|domain| self.foreign(domain.as_str()));
            }
            IdentityPattern::Exact(id) => {
                self.who.push(Class::Named(id.clone()).text(home));
                match id.service_account() {
                    _ if id.trust_domain() != home => {
                        self.foreign(id.trust_domain().as_str());
                    }
                    Some((namespace, _)) => self.crosses(namespace),
                    None => {}
                }
            }
            IdentityPattern::Namespace {
                trust_domain,
                namespace,
            } => {
                self.who.push(format!("{namespace}/*"));
                if trust_domain != home {
                    self.foreign(trust_domain.as_str());
                } else {
                    self.crosses(namespace);
                }
            }
            IdentityPattern::Nobody(text) => self.who.push(format!("nobody ({text})")),
        }
    }

    /// Notes whom a policy written in Cedar was seen to let in: its text cannot be read as a list of names.
    pub(super) fn lets_in(&mut self, who: &Class, home: &TrustDomain) {
        if !self.cedar {
            return;
        }
        match who {
            Class::Tls | Class::Plaintext => self.unauthenticated = true,
            Class::Domain(domain) if domain == home => self.wildcard = true,
            Class::Foreign => self.foreign("any"),
            Class::Domain(domain) => self.foreign(domain.as_str()),
            Class::Namespace(domain, _) if domain != home => self.foreign(domain.as_str()),
            Class::Namespace(_, namespace) => self.crosses(namespace),
            Class::Named(id) if id.trust_domain() != home => {
                self.foreign(id.trust_domain().as_str())
            }
            Class::Named(id) => {
                if let Some((namespace, _)) = id.service_account() {
                    self.crosses(namespace);
                }
            }
        }
    }

    fn foreign(&mut self, domain: &str) {
        insert(&mut self.foreign_domains, domain);
    }

    fn crosses(&mut self, namespace: &str) {
        // A policy of the whole mesh is of no namespace that could be crossed.
        if namespace != self.namespace && !self.namespace.is_empty() {
            insert(&mut self.cross_namespace, namespace);
        }
    }

    /// Whether it ended at or before `now`.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.term.expires.is_some_and(|end| end <= now)
    }
}

/// Owners and reasons, from annotations of the objects.
pub(super) fn annotate(facts: &mut Facts<'_>) {
    let mut by_object: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    for (object, annotations) in facts.index.annotated_policies() {
        let said = |name: &str| {
            let text = annotations.get(name).map(|text| text.trim());
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let key = format!("{}/{}/{}", object.kind, object.namespace, object.name);
        let reason = said(REASON).or_else(|| said(OPEN_REASON));
        by_object.insert(key, (said(OWNER), reason));
    }
    for fact in facts.grants.values_mut() {
        let object = fact.id.rsplit_once('/').map(|(object, _)| object);
        if let Some((owner, reason)) = object.and_then(|object| by_object.get(object)) {
            fact.owner.clone_from(owner);
            fact.reason.clone_from(reason);
        }
        if fact.reason.is_none() {
            fact.reason.clone_from(&fact.term.break_glass);
        }
    }
}

/// Uses of every policy by the traffic of the bundle.
pub(super) fn uses(facts: &mut Facts<'_>) {
    let now = facts.bundle.scope.until;
    let mut counts: BTreeMap<&str, (u64, Option<Timestamp>)> = BTreeMap::new();
    let mut uses = Uses::new(&facts.index);
    for class in &facts.bundle.traffic {
        uses.add(&record_of(class));
        for reason in &class.reasons {
            let seen = counts.entry(reason).or_default();
            seen.0 = seen.0.saturating_add(class.count);
            seen.1 = seen.1.max(class.last);
        }
    }
    let parts = uses.report(&facts.index.policy_objects(), facts.index.findings(), now);
    let of_policies = parts.into_iter().filter(|one| match one.kind {
        "policy" => true,
        // In force nowhere.
        "object" => {
            one.name.starts_with("AuthorizationPolicy/")
                || one.name.starts_with("ServerAuthorization/")
        }
        _ => false,
    });
    facts.uses = of_policies
        .map(|part| {
            let (count, last) = counts.get(part.name.as_str()).copied().unwrap_or_default();
            let fact = UseFact {
                state: part.state,
                count,
                last,
                namespace: namespace_of_grant(&part.name),
                source: part.source,
            };
            (part.name, fact)
        })
        .collect();
}

/// A decision of a class, as far as uses look at it.
fn record_of(class: &Traffic) -> DecisionRecord {
    DecisionRecord {
        time: class.last,
        generation: Generation::default(),
        client: RecordClient {
            spiffe_id: class.client.clone(),
            ip: class.ip.clone(),
            tls: class.tls,
            serial: None,
            expires: None,
        },
        server: RecordServer {
            namespace: class.namespace.clone(),
            name: Some(class.server.clone().unwrap_or_else(|| "default".to_owned())),
            workload: Some(class.workload.clone()),
            port: class.port,
            default: class.server.is_none(),
        },
        egress: None,
        route: None,
        request: None,
        verdict: class.verdict,
        status: class.status,
        grpc_status: None,
        phase: class.phase,
        reasons: class.reasons.clone(),
        audit: class.audit && class.verdict == Verdict::Allow,
        first: false,
        near_misses: Vec::new(),
        shadow: None,
        fault: None,
    }
}

/// Puts a text into a sorted list, once.
fn insert(list: &mut Vec<String>, text: &str) {
    if let Err(at) = list.binary_search_by(|one| one.as_str().cmp(text)) {
        list.insert(at, text.to_owned());
    }
}

/// The namespace in `<kind>/<namespace>/<name>/<part>`.
fn namespace_of_grant(id: &str) -> String {
    id.split('/').nth(1).unwrap_or_default().to_owned()
}
