//! Policies written in Cedar: which workloads they bear on, and what stands in for those that cannot be evaluated.
//!
//! INVARIANT: a forbid never gets lost. One that cannot be evaluated, and any object that may have held one, is a
//! [`CedarText`] with a reason to be invalid, for every workload that it could have covered. A permit that cannot be
//! evaluated, or whose object is invalid, is not there at all.

use super::Index;
use super::authority::Authorities;
use crate::finding::{Code, finding};
use crate::manifest::cedar_check::Statement;
use crate::manifest::cedar_judge::Mention;
use crate::manifest::cedar_kinds::CedarPolicies;
use crate::manifest::resource::{Closed, Object, Resources};
use crate::map::{HashMap, HashSet};
use mesh_policy::limits::CEDAR_TEXTS_MAX;
use mesh_policy::snapshot::{
    CedarText, Effect, Finding, IdentitySet, NetworkSet, ObjectRef, SnapshotData, Term,
};
use std::collections::{BTreeMap, BTreeSet};

/// Every Cedar policy that counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct CedarTexts {
    /// Sorted by id.
    entries: Vec<Entry>,
    /// Entries that bear on every workload, and those of one namespace, in order.
    everywhere: Vec<usize>,
    by_namespace: HashMap<String, Vec<usize>>,
    /// What stands in for all policies of a namespace (`None`: of every one) that has too many.
    too_many: HashMap<Option<String>, CedarText>,
    /// Objects that bear on every workload, and on those of one namespace, whether anything of them counts or not.
    pub(crate) objects_everywhere: Vec<ObjectRef>,
    pub(crate) objects_of: HashMap<String, Vec<ObjectRef>>,
}

/// One policy, and the sets that it mentions.
#[derive(Clone, Debug)]
struct Entry {
    text: CedarText,
    identity_sets: Vec<String>,
    network_sets: Vec<String>,
}

impl CedarTexts {
    /// Settles what counts; what refers to nothing is a finding.
    pub(crate) fn resolve(
        resources: &Resources,
        authorities: &Authorities,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut out = Self::default();
        for object in &resources.cedar_policies {
            out.object(object, authorities, findings);
        }
        out.entries
            .extend(resources.cedar_closed.iter().map(closing_document));
        out.settle();
        out.bound(findings);
        out
    }

    fn object(
        &mut self,
        object: &Object<CedarPolicies>,
        authorities: &Authorities,
        findings: &mut Vec<Finding>,
    ) {
        let list = if object.namespaced {
            let namespace = object.key.namespace.clone();
            self.objects_of.entry(namespace).or_default()
        } else {
            &mut self.objects_everywhere
        };
        list.push(object.reference());
        if let Some(why) = &object.spec.unread {
            self.entries.push(closing_object(object, why));
            return;
        }
        for statement in &object.spec.statements {
            let missing = missing_sets(statement, authorities);
            for why in &missing {
                findings.push(finding(
                    Code::CedarReference,
                    format!("`{}` {why}", statement.id),
                    Some(object.reference()),
                    statement.source.clone(),
                ));
            }
            let invalid = statement.broken.clone().or(missing.into_iter().next());
            let counts = match statement.effect {
                Effect::Permit => object.invalid.is_none() && invalid.is_none(),
                Effect::Forbid => true,
            };
            if counts {
                self.entries.push(entry(object, statement, invalid));
            }
        }
    }

    /// Sorts by id. Namesakes are invalid but their forbids stay: the same text once, another under an id of its own.
    fn settle(&mut self) {
        self.entries
            .sort_by(|a, b| (&a.text.id, &a.text.source).cmp(&(&b.text.id, &b.text.source)));
        let same = |a: &Entry, b: &Entry| {
            (&a.text.id, &a.text.text, &a.text.term) == (&b.text.id, &b.text.text, &b.text.term)
        };
        self.entries.dedup_by(|b, a| same(a, b));
        let mut taken = HashSet::default();
        for entry in &mut self.entries {
            let id = entry.text.id.clone();
            let mut copy = 2;
            while !taken.insert(entry.text.id.clone()) {
                entry.text.id = format!("{id}~{copy}");
                copy += 1;
            }
        }
        self.entries.sort_by(|a, b| a.text.id.cmp(&b.text.id));
        for (number, entry) in self.entries.iter().enumerate() {
            match &entry.text.confined_to {
                None => self.everywhere.push(number),
                Some(namespace) => self
                    .by_namespace
                    .entry(namespace.clone())
                    .or_default()
                    .push(number),
            }
        }
    }

    /// Closes where more policies bear on one workload than a proxy will hold: it would refuse the whole snapshot, and go
    /// on with an older one.
    fn bound(&mut self, findings: &mut Vec<Finding>) {
        let wide = self.everywhere.len();
        let mut over: Vec<Option<String>> = Vec::new();
        if wide > CEDAR_TEXTS_MAX {
            over.push(None);
        } else {
            let full = |own: &Vec<usize>| wide + own.len() > CEDAR_TEXTS_MAX;
            let own = self.by_namespace.iter().filter(|(_, own)| full(own));
            over.extend(own.map(|(namespace, _)| Some(namespace.clone())));
            over.sort();
        }
        for namespace in over {
            let what = namespace.as_ref().map_or_else(
                || "every namespace".to_owned(),
                |namespace| format!("namespace `{namespace}`"),
            );
            let why = format!(
                "more than {CEDAR_TEXTS_MAX} policies in Cedar, cluster-wide ones included, bear on each workload of {what}"
            );
            let numbers = match &namespace {
                Some(namespace) => self.by_namespace.get(namespace),
                None => Some(&self.everywhere),
            };
            let last = numbers.and_then(|n| n.last());
            let Some(last) = last.and_then(|n| self.entries.get(*n)) else {
                continue;
            };
            let source = last.text.source.clone();
            let message = format!("{why}: everything in {what} is denied until some are removed");
            findings.push(finding(Code::CedarCloses, message, None, source.clone()));
            let id = format!("CedarPolicy/{}/*/*", namespace.as_deref().unwrap_or(""));
            let closing = closing(id, namespace.clone(), why, source);
            self.too_many.insert(namespace, closing.text);
        }
    }

    /// Every text, sorted by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &CedarText> {
        self.entries.iter().map(|entry| &entry.text)
    }

    /// Puts into a snapshot what bears on its workload, and the sets that this mentions.
    pub(crate) fn add_to(&self, snapshot: &mut SnapshotData, authorities: &Authorities) {
        let namespace = &snapshot.workload.namespace;
        let instead = self.too_many.get(&None);
        if let Some(closing) = instead.or_else(|| self.too_many.get(&Some(namespace.clone()))) {
            snapshot.cedar_policies.push(closing.clone());
            return;
        }
        let own = self.by_namespace.get(namespace);
        let mut numbers: Vec<usize> = self.everywhere.clone();
        numbers.extend(own.into_iter().flatten());
        numbers.sort_unstable();
        for entry in numbers
            .iter()
            .filter_map(|number| self.entries.get(*number))
        {
            snapshot.cedar_policies.push(entry.text.clone());
            let (identities, networks) = (&entry.identity_sets, &entry.network_sets);
            snapshot
                .identity_sets
                .extend(chosen(&authorities.identity_sets, identities));
            snapshot
                .network_sets
                .extend(chosen(&authorities.network_sets, networks));
        }
    }
}

fn entry(object: &Object<CedarPolicies>, statement: &Statement, invalid: Option<String>) -> Entry {
    let (identity_sets, network_sets) = sets(statement);
    Entry {
        text: CedarText {
            id: statement.id.clone(),
            effect: statement.effect,
            text: statement.text.clone(),
            confined_to: object.namespaced.then(|| object.key.namespace.clone()),
            invalid,
            audit: statement.audit,
            term: object.spec.term.clone(),
            source: statement.source.clone(),
        },
        identity_sets,
        network_sets,
    }
}

/// The forbid that an object stands for as a whole.
fn closing_object(object: &Object<CedarPolicies>, why: &str) -> Entry {
    let reference = object.reference();
    let id = format!(
        "{}/{}/{}/*",
        reference.kind, reference.namespace, reference.name
    );
    let namespace = object.namespaced.then(|| object.key.namespace.clone());
    let why = format!("{} cannot be read whole: {why}", object.title());
    closing(id, namespace, why, object.source.clone())
}

/// The forbid that a document stands for whose kind cannot be told.
fn closing_document(closed: &Closed) -> Entry {
    let namespace = closed.namespace.clone();
    let id = format!(
        "document/{}/{}/*",
        namespace.as_deref().unwrap_or_default(),
        closed.source
    );
    closing(id, namespace, closed.why.clone(), closed.source.clone())
}

fn closing(
    id: String,
    confined_to: Option<String>,
    why: String,
    source: mesh_policy::snapshot::Source,
) -> Entry {
    Entry {
        text: CedarText {
            id,
            effect: Effect::Forbid,
            text: String::new(),
            confined_to,
            invalid: Some(why),
            audit: false,
            term: Term::default(),
            source,
        },
        identity_sets: Vec::new(),
        network_sets: Vec::new(),
    }
}

/// Ids of the identity sets and network sets that a policy mentions.
fn sets(statement: &Statement) -> (Vec<String>, Vec<String>) {
    let (mut identities, mut networks) = (Vec::new(), Vec::new());
    for mention in &statement.mentions {
        match mention {
            Mention::IdentitySet(id) => identities.push(id.clone()),
            Mention::NetworkSet(id) => networks.push(id.clone()),
            Mention::Server(_) | Mention::Servers(_) | Mention::Route(..) => {}
        }
    }
    (identities, networks)
}

/// What a policy mentions that is no set, or that of an invalid object.
pub(crate) fn missing_sets(statement: &Statement, authorities: &Authorities) -> Vec<String> {
    let (identities, networks) = sets(statement);
    let missing = |kind: &str, ids: Vec<String>, known: &dyn Fn(&str) -> bool| -> Vec<String> {
        ids.into_iter()
            .filter(|id| !known(id))
            .map(|id| format!("mentions {kind} `{id}`, which does not exist or is invalid"))
            .collect()
    };
    let mut out = missing("identity set", identities, &|id| {
        authorities.identity_sets.contains_key(id)
    });
    out.extend(missing("network set", networks, &|id| {
        authorities.network_sets.contains_key(id)
    }));
    out
}

/// The sets that a policy mentions, as far as they exist.
pub(crate) fn mentioned_sets(
    statement: &Statement,
    authorities: &Authorities,
) -> (BTreeMap<String, IdentitySet>, BTreeMap<String, NetworkSet>) {
    let (identities, networks) = sets(statement);
    (
        chosen(&authorities.identity_sets, &identities).collect(),
        chosen(&authorities.network_sets, &networks).collect(),
    )
}

fn chosen<'a, S: Clone>(
    known: &'a BTreeMap<String, S>,
    ids: &'a [String],
) -> impl Iterator<Item = (String, S)> + 'a {
    ids.iter()
        .filter_map(|id| known.get(id).map(|set| (id.clone(), set.clone())))
}

/// What policies mention that stands for nothing, or for nothing that they may speak about.
pub(crate) fn lint(index: &Index, findings: &mut Vec<Finding>) {
    let resources = &index.resources;
    let servers: HashSet<_> = resources.servers.iter().map(|s| &s.key).collect();
    let routes: BTreeSet<(String, _)> = resources
        .routes
        .iter()
        .map(|route| (super::routes::shown_kind(index, route), &route.key))
        .collect();
    for object in &resources.cedar_policies {
        let own = object.namespaced.then_some(object.key.namespace.as_str());
        for statement in &object.spec.statements {
            for mention in &statement.mentions {
                let (what, namespace, exists) = match mention {
                    Mention::Server(key) => (
                        format!("Server {}/{}", key.namespace, key.name),
                        &key.namespace,
                        servers.contains(key),
                    ),
                    Mention::Servers(namespace) => (
                        format!("the Servers of namespace {namespace}"),
                        namespace,
                        index.servers.contains_key(namespace),
                    ),
                    Mention::Route(kind, key) => (
                        format!("{kind} {}/{}", key.namespace, key.name),
                        &key.namespace,
                        routes.contains(&(kind.clone(), key)),
                    ),
                    Mention::IdentitySet(_) | Mention::NetworkSet(_) => continue,
                };
                let why = if own.is_some_and(|own| own != namespace) {
                    "which is not in the namespace that it is confined to"
                } else if exists {
                    continue;
                } else {
                    "which does not exist"
                };
                findings.push(finding(
                    Code::CedarElsewhere,
                    format!("`{}` mentions {what}, {why}", statement.id),
                    Some(object.reference()),
                    statement.source.clone(),
                ));
            }
        }
    }
}
