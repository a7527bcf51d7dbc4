//! What is settled once per connection: who the client is, which identity and network sets it is in.
//!
//! All that a grant asks, apart from the route, is constant for a connection and a snapshot. So these atoms are
//! computed once, and Cedar's answer for one route is remembered: the same question has the same answer.

use crate::cedar::{Answer, Object, Subject};
use crate::compile::Port;
use crate::compile::Snapshot;
use crate::limits::REMEMBERED_ANSWERS_MAX;
use crate::request::{Client, canonical_ip};
use crate::snapshot::{IdentityPattern, SnapshotData};
use mesh_trust::{SpiffeId, TrustDomain};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Identity sets, by who is in them.
#[derive(Default)]
pub(crate) struct IdentityIndex {
    any: Vec<Arc<str>>,
    any_domains: HashSet<TrustDomain>,
    exact: HashMap<SpiffeId, Vec<Arc<str>>>,
    namespaces: HashMap<TrustDomain, HashMap<String, Vec<Arc<str>>>>,
}

impl IdentityIndex {
    pub(crate) fn build(data: &SnapshotData) -> Self {
        let mut index = Self::default();
        index.any_domains.insert(data.trust_domain.clone());
        index
            .any_domains
            .extend(data.wildcard_domains.iter().cloned());
        for (id, set) in &data.identity_sets {
            let id: Arc<str> = Arc::from(id.as_str());
            for member in &set.members {
                let id = Arc::clone(&id);
                match member {
                    IdentityPattern::Any => index.any.push(id),
                    IdentityPattern::Exact(exact) => {
                        index.exact.entry(exact.clone()).or_default().push(id)
                    }
                    IdentityPattern::Namespace {
                        trust_domain,
                        namespace,
                    } => {
                        let domain = index.namespaces.entry(trust_domain.clone()).or_default();
                        domain.entry(namespace.clone()).or_default().push(id);
                    }
                    IdentityPattern::Nobody(_) => {}
                }
            }
        }
        index
    }

    /// Ids of the sets that `id` is in.
    pub(crate) fn sets_of(&self, id: &SpiffeId) -> BTreeSet<Arc<str>> {
        let mut sets = BTreeSet::new();
        if self.any_domains.contains(id.trust_domain()) {
            sets.extend(self.any.iter().cloned());
        }
        sets.extend(self.exact.get(id).into_iter().flatten().cloned());
        if let Some((namespace, _)) = id.service_account() {
            let domain = self.namespaces.get(id.trust_domain());
            sets.extend(
                domain
                    .and_then(|domain| domain.get(namespace))
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        sets
    }
}

/// A client as one snapshot sees it: the constant half of every decision on its connection.
///
/// Make it when the connection stands, and again for every new snapshot: answers are those of the snapshot it was made
/// of. It stays on its thread.
pub struct ConnectionAtoms {
    snapshot: Snapshot,
    client: Client,
    identity_sets: BTreeSet<Arc<str>>,
    network_sets: BTreeSet<Arc<str>>,
    subject: Result<Subject, String>,
    /// By port and route rule; see [`ConnectionAtoms::answer`].
    answers: RefCell<HashMap<(u32, Asked), Answer>>,
}

/// What is asked of a port, as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Bytes,
    DefaultRoute,
    ProbeRoute,
    Rule { route: u32, rule: u32 },
}

impl ConnectionAtoms {
    /// Looks a client up in all identity and network sets of a snapshot.
    pub fn of(snapshot: &Snapshot, client: &Client) -> Self {
        let compiled = snapshot.compiled();
        let client = Client {
            ip: canonical_ip(client.ip),
            ..client.clone()
        };
        let identity_sets = client
            .id
            .as_ref()
            .map(|id| compiled.identities.sets_of(id))
            .unwrap_or_default();
        let network_sets: BTreeSet<Arc<str>> = compiled
            .data
            .network_sets
            .keys()
            .filter(|set| snapshot.in_network(set, client.ip))
            .map(|set| Arc::from(set.as_str()))
            .collect();
        let vocabulary = compiled.vocabulary;
        let principal = match &client.id {
            Some(id) => vocabulary.workload(id.as_str()),
            None => vocabulary.anonymous(client.tls),
        };
        let nets = network_sets
            .iter()
            .map(|set| vocabulary.net_set(set))
            .collect();
        let subject = Subject::new(
            vocabulary,
            principal,
            identity_sets.iter().cloned().collect(),
            client.tls,
            nets,
        );
        let answers = RefCell::default();
        Self {
            snapshot: snapshot.clone(),
            client,
            identity_sets,
            network_sets,
            subject,
            answers,
        }
    }

    /// The snapshot that decides.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The client, its address in canonical form.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn in_identity_set(&self, set: &str) -> bool {
        self.identity_sets.contains(set)
    }

    pub(crate) fn in_network_set(&self, set: &str) -> bool {
        self.network_sets.contains(set)
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.client.ip
    }

    /// Cedar's answer on one port, remembered.
    pub(crate) fn answer(
        &self,
        port: &Port,
        asked: Asked,
        object: impl FnOnce() -> Object,
    ) -> Answer {
        let key = (port.index, asked);
        if let Some(known) = self.answers.borrow().get(&key) {
            return known.clone();
        }
        let answer = match &self.subject {
            Ok(subject) => port
                .slice
                .ask(self.snapshot.compiled().vocabulary, subject, &object()),
            Err(why) => Answer::Undecidable {
                why: why.as_str().into(),
            },
        };
        let mut answers = self.answers.borrow_mut();
        if answers.len() >= REMEMBERED_ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(key, answer.clone());
        answer
    }
}
