//! What one file holds, and how far a change of it reaches.
//!
//! A controller keeps the parts of files that did not change, and makes the policy of those workloads anew that a change
//! may concern. What it may concern is overestimated: every word of a file counts as a name of what the file refers to.

use super::Loaded;
use super::resource::{Object, Resources, each_list};
use super::tree::{Node, Value};
use crate::finding::{Code, finding};
use crate::map::HashSet;
use foldhash::fast::FixedState;
use mesh_policy::snapshot::{Finding, ObjectRef};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The objects of one file, and what is wrong with each by itself.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub(crate) resources: Resources,
    pub(super) findings: Vec<Finding>,
    pub(super) reach: Reach,
}

/// Whom a file may concern.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// Namespaces that it has objects of.
    namespaces: BTreeSet<String>,
    /// All words in it, names of other namespaces among them: their hashes, sorted. Of ten thousand objects the words
    /// themselves would be tens of megabytes. Two words of one hash let a change reach further than it must, never less far.
    mentions: Box<[u64]>,
    /// Something in it concerns every namespace.
    everywhere: bool,
    /// Something in it may refer to any namespace in ways that its words do not show.
    looks_everywhere: bool,
}

/// The namespaces whose workloads a change may concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// All.
    Everywhere,
    /// These.
    Namespaces(BTreeSet<String>),
}

/// An object that a file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared<'p> {
    /// What it is called, and where it stands.
    pub object: ObjectRef,
    /// Its annotations.
    pub annotations: &'p BTreeMap<String, String>,
    /// Whether it only says what runs, and no policy: Pods and what makes them, Services, service accounts.
    pub runs: bool,
}

/// Kinds that say what runs. A change of them may change access too, as every new Pod does; it is no change of policy.
const RUNS: &[&str] = &[
    "Pod",
    "Node",
    "Service",
    "EndpointSlice",
    "ServiceAccount",
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
];

impl Part {
    /// Every object that the file declares, valid or not, in no particular order.
    pub fn declared(&self) -> Vec<Declared<'_>> {
        let mut out = Vec::new();
        each_list!(&self.resources, list => out.extend(list.iter().map(|one| Declared {
            object: one.reference(),
            annotations: &one.annotations,
            runs: RUNS.contains(&one.kind),
        })));
        out
    }

    /// Objects that were read before, for a load that nobody asks about its reach.
    pub(crate) fn again(resources: Resources, findings: Vec<Finding>) -> Self {
        Self {
            resources,
            findings,
            reach: Reach::default(),
        }
    }
}

impl Affected {
    /// Whether workloads of a namespace may be concerned.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// Whom a change concerns: `changed` are the parts of all files that are new, gone or different, as they were and as
    /// they are; `now` are all parts as they are.
    pub fn by<'p>(
        changed: impl IntoIterator<Item = &'p Part>,
        now: impl IntoIterator<Item = &'p Part>,
    ) -> Self {
        let (mut reached, mut words) = (BTreeSet::new(), BTreeSet::new());
        let mut reach_out = |reach: &Reach, words: &mut BTreeSet<u64>| {
            reached.extend(reach.namespaces.iter().cloned());
            words.extend(reach.namespaces.iter().map(|name| word(name)));
        };
        for part in changed {
            if part.reach.everywhere {
                return Self::Everywhere;
            }
            reach_out(&part.reach, &mut words);
        }
        let mut others: Vec<&Reach> = now.into_iter().map(|part| &part.reach).collect();
        // A file that refers to a namespace that is reached hands the change on to its own namespaces.
        loop {
            let before = others.len();
            others.retain(|reach| {
                let concerned = !words.is_empty()
                    && (reach.looks_everywhere || words.iter().any(|word| reach.mentions(*word)));
                if concerned {
                    reach_out(reach, &mut words);
                }
                !concerned
            });
            if others.len() == before {
                return Self::Namespaces(reached);
            }
        }
    }
}

impl Reach {
    fn mentions(&self, word: u64) -> bool {
        self.mentions.binary_search(&word).is_ok()
    }

    pub(super) fn of(resources: &Resources, mentions: HashSet<u64>, names_cedar: bool) -> Self {
        let everywhere = !resources.closed.is_empty()
            || !resources.cedar_closed.is_empty()
            || !resources.federations.is_empty()
            || resources.cedar_policies.iter().any(|one| !one.namespaced)
            || resources.invariants.iter().any(|one| !one.namespaced);
        Self {
            namespaces: resources.namespaces_named(),
            mentions: {
                let mut sorted: Box<[u64]> = mentions.into_iter().collect();
                sorted.sort_unstable();
                sorted
            },
            everywhere: everywhere || resources.speaks_of_egress(),
            looks_everywhere: everywhere || names_cedar || !resources.cedar_policies.is_empty(),
        }
    }
}

/// What stands for a word: the same in every load.
fn word(text: &str) -> u64 {
    FixedState::with_seed(0).hash_one(text)
}

/// All texts below a node, and the words that they are made of: an identity names its namespace between dots or slashes.
pub(super) fn mentions(node: &Node, words: &mut HashSet<u64>) {
    let mut add = |text: &str| {
        let all = text.split(['.', '/', '"', ' ', '\n']);
        words.extend(all.filter(|text| !text.is_empty()).map(word));
    };
    match &node.value {
        Value::Text(text) => add(text),
        Value::List(items) => items.iter().for_each(|item| mentions(item, words)),
        Value::Map(entries) => {
            for entry in entries {
                add(&entry.key);
            }
            for entry in entries {
                mentions(&entry.value, words);
            }
        }
        // A name that YAML takes for a number or a boolean is refused where a name must stand.
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Bad => {}
    }
}

/// All parts together: sorted, and what stands twice found.
pub(super) fn join<'p>(parts: impl IntoIterator<Item = &'p Part>) -> Loaded {
    let (mut resources, mut findings) = (Resources::default(), Vec::new());
    for part in parts {
        resources.add(&part.resources);
        findings.extend(part.findings.iter().cloned());
    }
    each_list!(&mut resources, list => settle(list, &mut findings));
    resources
        .closed
        .sort_by(|a, b| (&a.namespace, &a.source).cmp(&(&b.namespace, &b.source)));
    resources
        .cedar_closed
        .sort_by(|a, b| (&a.namespace, &a.source).cmp(&(&b.namespace, &b.source)));
    resources
        .egress_closed
        .sort_by(|a, b| (&a.namespace, &a.source).cmp(&(&b.namespace, &b.source)));
    findings.sort();
    findings.dedup();
    Loaded {
        resources,
        findings,
    }
}

/// Sorts objects, and makes all of those that share group, kind and key invalid.
fn settle<T: Clone>(objects: &mut [Arc<Object<T>>], findings: &mut Vec<Finding>) {
    objects.sort_by(|a, b| {
        (&a.key, a.kind, a.group, &a.source).cmp(&(&b.key, b.kind, b.group, &b.source))
    });
    for same in objects.chunk_by_mut(|a, b| (&a.key, a.kind, a.group) == (&b.key, b.kind, b.group))
    {
        if same.len() < 2 || same.first().is_some_and(|o| o.key.name == "<unnamed>") {
            continue;
        }
        let places: Vec<String> = same.iter().map(|o| o.source.to_string()).collect();
        for object in same.iter_mut() {
            let others: Vec<&str> = places
                .iter()
                .filter(|p| **p != object.source.to_string())
                .map(String::as_str)
                .collect();
            let message = format!(
                "{} stands more than once: also at {}",
                object.title(),
                others.join(", ")
            );
            findings.push(finding(
                Code::DuplicateObject,
                message.clone(),
                Some(object.reference()),
                object.source.clone(),
            ));
            Arc::make_mut(object).invalid.get_or_insert(message);
        }
    }
}
