//! Whom each policy speaks for: workloads sorted into classes that the same policies select.
//!
//! A class is a label query. It asks for every label of the selectors that match, and excludes the others by a label that
//! its workloads do not have; so whatever pod it selects, known or not, exactly these policies select it too, and no
//! two classes give one pod different policies. A pod that no class selects has no Server, and the default policy denies.

use super::model::{Action, Labels, Objects, Policy};
use super::mtls::{Modes, PortMode};
use super::protocol::{Protocol, protocols};
use crate::index::Index;
use crate::index::Workload;
use crate::manifest::Resources;
use crate::manifest::resource::{Object, PortRef, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Workloads that the same policies select, in one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) namespace: String,
    /// For names of objects; unique in the namespace.
    pub(crate) name: String,
    /// Labels that its pods have.
    pub(crate) labels: Labels,
    /// Values that the labels of its pods do not have.
    pub(crate) excluded: BTreeMap<String, BTreeSet<String>>,
    /// Places in [`Objects::policies`] of those that are enforced on it.
    pub(crate) policies: Vec<usize>,
    /// Places in [`Objects::peers`] of those that bear on it.
    pub(crate) peers: Vec<usize>,
    /// Why nothing may be allowed here, and by which policy, if so.
    pub(crate) closed: Option<usize>,
    pub(crate) ports: BTreeMap<u16, ClassPort>,
    /// Ports with declared probes.
    pub(crate) probed: BTreeSet<u16>,
}

impl Class {
    /// Whether its Servers select the pods of a workload.
    pub(crate) fn selects(&self, workload: &Workload) -> bool {
        let excluded = |(key, values): (&String, &BTreeSet<String>)| {
            workload.labels.get(key).is_some_and(|v| values.contains(v))
        };
        self.namespace == workload.key.namespace
            && is_within(&self.labels, &workload.labels)
            && !self.excluded.iter().any(excluded)
    }
}

/// One port of a class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassPort {
    /// `None` if Services contradict each other.
    pub(crate) protocol: Option<Protocol>,
    /// `None` if PeerAuthentications contradict each other.
    pub(crate) mode: PortMode,
}

/// What is known of the cluster besides policies.
pub(crate) struct Cluster<'a> {
    pub(crate) index: &'a Index,
    pub(crate) resources: &'a Resources,
    pub(crate) root_namespace: &'a str,
}

impl Cluster<'_> {
    /// The namespace, if ztunnel enforces policies in it, which sees no requests.
    pub(crate) fn ambient(&self, namespace: &str) -> Option<&Object<()>> {
        let mut namespaces = self.resources.namespaces.iter().map(Arc::as_ref);
        namespaces.find(|n| n.key.name == namespace && is_ambient(&n.labels))
    }
}

fn is_ambient(labels: &Labels) -> bool {
    let mode = labels.get("istio.io/dataplane-mode");
    mode.is_some_and(|mode| mode == "ambient")
}

/// Everything that scoping found.
pub(crate) struct Scopes {
    /// By namespace and name.
    pub(crate) classes: Vec<Class>,
    /// Workloads that no object of Istio speaks for, as places in the index.
    pub(crate) untouched: Vec<usize>,
    /// Places of policies that select no known workload.
    pub(crate) idle: BTreeSet<usize>,
    /// Places of PeerAuthentications whose scope others claim too, so that Istio's choice cannot be told.
    pub(crate) contested: BTreeSet<usize>,
}

/// How a policy reaches workloads.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    policy: usize,
    /// `None`: every namespace.
    namespace: Option<String>,
    /// Empty: every workload.
    labels: Labels,
    /// Whether it is judged at a proxy that is not imported: then nothing may be allowed behind it.
    closes: bool,
}

impl Reach {
    fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
    }
}

/// Sorts workloads into classes.
pub(crate) fn scopes(objects: &Objects, cluster: &Cluster<'_>) -> Scopes {
    let reaches = reaches(objects, cluster);
    let modes = Modes::new(&objects.peers, cluster.root_namespace);
    let mut builder = Builder {
        objects,
        cluster,
        reaches: &reaches,
        modes: &modes,
        drafts: BTreeMap::new(),
    };
    for (number, workload) in cluster.index.workload_list().iter().enumerate() {
        builder.add(Member::known(number, workload, cluster));
    }
    builder.phantoms();
    builder.finish()
}

/// What policies reach: workloads by selector, or what stands behind the targets of `targetRefs`.
fn reaches(objects: &Objects, cluster: &Cluster<'_>) -> Vec<Reach> {
    let mut out = Vec::new();
    for (policy, object) in objects.policies.iter().enumerate() {
        if object.dry_run || object.action == Action::Audit {
            continue;
        }
        let own = &object.key.namespace;
        let here = if own == cluster.root_namespace {
            None
        } else {
            Some(own.clone())
        };
        let whole = |namespace: Option<String>| Reach {
            policy,
            namespace,
            labels: Labels::new(),
            closes: true,
        };
        if object.targets.is_empty() {
            out.push(Reach {
                policy,
                namespace: here,
                labels: object.selector.clone(),
                closes: false,
            });
            continue;
        }
        for target in &object.targets {
            match target.kind.as_str() {
                // Nothing of this mesh is behind it.
                "ServiceEntry" => {}
                "Service" => {
                    let of_name =
                        |s: &&Object<Service>| s.key.namespace == *own && s.key.name == target.name;
                    let mut services = cluster.resources.services.iter().map(Arc::as_ref);
                    let service = services.find(of_name);
                    let labels = service.and_then(|s| s.spec.selector.clone());
                    match labels {
                        // Denying is done as well at the pods; what a waypoint allows is not what a pod allows.
                        // The ports of its rules are those of the Service, and not of the pods.
                        Some(labels) => out.push(Reach {
                            policy,
                            namespace: Some(own.clone()),
                            labels,
                            closes: object.action != Action::Deny || !object.ports().is_empty(),
                        }),
                        None => out.push(whole(Some(own.clone()))),
                    }
                }
                "GatewayClass" => out.push(whole(here.clone())),
                _ => out.push(whole(Some(own.clone()))),
            }
        }
    }
    out
}

/// A workload, or what a policy says of one that is not known.
struct Member {
    /// Place in the index.
    workload: Option<usize>,
    namespace: String,
    labels: Labels,
    /// What to call it.
    title: String,
    ports: BTreeSet<u16>,
    protocols: BTreeMap<u16, BTreeSet<Protocol>>,
    probed: BTreeSet<u16>,
}

impl Member {
    fn known(number: usize, workload: &Workload, cluster: &Cluster<'_>) -> Self {
        let mut ports: BTreeSet<u16> = workload.pod.ports.iter().map(|p| p.port).collect();
        let protocols = protocols(workload, &cluster.resources.services);
        ports.extend(protocols.keys());
        let probed = workload
            .pod
            .probes
            .iter()
            .filter_map(|p| workload.probe_port(p))
            .collect();
        Self {
            workload: Some(number),
            namespace: workload.key.namespace.clone(),
            labels: workload.labels.clone(),
            title: format!("{} {}", workload.kind, workload.object_name),
            ports,
            protocols,
            probed,
        }
    }
}

/// What makes two workloads one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClassKey {
    namespace: String,
    labels: Labels,
    excluded: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
struct Draft {
    members: Vec<Member>,
}

struct Builder<'a> {
    objects: &'a Objects,
    cluster: &'a Cluster<'a>,
    reaches: &'a [Reach],
    modes: &'a Modes<'a>,
    drafts: BTreeMap<ClassKey, Draft>,
}

impl Builder<'_> {
    /// Label queries that some object makes in a namespace, each once.
    fn queries<'s>(&'s self, namespace: &str) -> BTreeSet<&'s Labels> {
        let reaches = self
            .reaches
            .iter()
            .filter(|r| r.covers(namespace))
            .map(|r| &r.labels);
        let peers = self.modes.queries(namespace);
        reaches
            .chain(peers)
            .filter(|labels| !labels.is_empty())
            .collect()
    }

    fn add(&mut self, member: Member) {
        let mut key = ClassKey {
            namespace: member.namespace.clone(),
            labels: Labels::new(),
            excluded: BTreeMap::new(),
        };
        let queries = self.queries(&member.namespace);
        let (met, unmet): (Vec<&Labels>, Vec<&Labels>) = queries
            .into_iter()
            .partition(|query| is_within(query, &member.labels));
        for query in met {
            key.labels
                .extend(query.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        for query in unmet {
            let excluded = query
                .iter()
                .any(|(k, v)| key.labels.get(k).is_some_and(|own| own != v));
            if excluded {
                continue;
            }
            // One label that it does not have; there is one, or the query would be met.
            let missing = query.iter().find(|(k, v)| member.labels.get(*k) != Some(v));
            if let Some((k, v)) = missing {
                key.excluded.entry(k.clone()).or_default().insert(v.clone());
            }
        }
        self.drafts.entry(key).or_default().members.push(member);
    }

    /// A class for each query of a namespace that no known workload meets: its ports are those that policies name.
    fn phantoms(&mut self) {
        let mut wanted: BTreeSet<(String, Labels)> = BTreeSet::new();
        let known = self.cluster.index.workload_list();
        let peers = self.objects.peers.iter().filter(|p| !p.selector.is_empty());
        let peers = peers.map(|p| (Some(p.key.namespace.clone()), p.selector.clone()));
        let reaches = self
            .reaches
            .iter()
            .filter(|r| !r.closes)
            .map(|r| (r.namespace.clone(), r.labels.clone()));
        for (namespace, labels) in reaches.chain(peers) {
            let Some(namespace) = namespace else { continue };
            let mut here = known.iter().filter(|w| w.key.namespace == namespace);
            if !here.any(|w| is_within(&labels, &w.labels)) {
                wanted.insert((namespace, labels));
            }
        }
        for (namespace, labels) in wanted {
            let member = Member {
                workload: None,
                title: String::new(),
                namespace,
                labels,
                ports: BTreeSet::new(),
                protocols: BTreeMap::new(),
                probed: BTreeSet::new(),
            };
            self.add(member);
        }
    }

    fn finish(self) -> Scopes {
        let mut out = Scopes {
            classes: Vec::new(),
            untouched: Vec::new(),
            idle: (0..self.objects.policies.len()).collect(),
            contested: BTreeSet::new(),
        };
        let mut names: BTreeSet<(String, String)> = BTreeSet::new();
        for (key, draft) in &self.drafts {
            let in_force = |reach: &&Reach| {
                reach.covers(&key.namespace) && is_within(&reach.labels, &key.labels)
            };
            let reaches: Vec<&Reach> = self.reaches.iter().filter(in_force).collect();
            let peers = self.modes.bearing(&key.namespace, &key.labels);
            out.contested
                .extend(self.modes.contested(&key.namespace, &key.labels));
            let known = draft.members.iter().any(|m| m.workload.is_some());
            if known {
                for reach in &reaches {
                    out.idle.remove(&reach.policy);
                }
            }
            // A RequestAuthentication alone opens nothing.
            let asked = |r: &&Reach| {
                let policy = self.objects.policies.get(r.policy);
                policy.is_some_and(|p| p.tokens.is_none())
            };
            if !reaches.iter().any(asked) && peers.is_empty() {
                out.untouched
                    .extend(draft.members.iter().filter_map(|m| m.workload));
                continue;
            }
            let class = self.class(key, draft, &reaches, peers, &mut names);
            out.classes.push(class);
        }
        out.untouched.sort_unstable();
        self.contradictions(&mut out.classes);
        out.classes
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        out
    }

    /// A pod may be selected by several classes, to which the same policies speak. If Services say different things of a
    /// port to them, it cannot be told which Server the pod gets.
    fn contradictions(&self, classes: &mut [Class]) {
        for workload in self.cluster.index.workload_list() {
            let mut spoken: BTreeMap<u16, BTreeSet<Option<Protocol>>> = BTreeMap::new();
            for class in classes.iter().filter(|c| c.selects(workload)) {
                for (number, port) in &class.ports {
                    spoken.entry(*number).or_default().insert(port.protocol);
                }
            }
            spoken.retain(|_, protocols| protocols.len() > 1);
            for class in classes.iter_mut().filter(|c| c.selects(workload)) {
                for (_, port) in class
                    .ports
                    .iter_mut()
                    .filter(|(n, _)| spoken.contains_key(n))
                {
                    port.protocol = None;
                }
            }
        }
    }

    fn class(
        &self,
        key: &ClassKey,
        draft: &Draft,
        reaches: &[&Reach],
        peers: Vec<usize>,
        names: &mut BTreeSet<(String, String)>,
    ) -> Class {
        let mut policies: Vec<usize> = reaches
            .iter()
            .filter(|r| !r.closes)
            .map(|r| r.policy)
            .collect();
        policies.sort_unstable();
        policies.dedup();
        let ports = self.ports(key, draft, &policies, &peers);
        let mut name = class_name(key, &draft.members);
        let base = name.clone();
        let mut number = 2;
        while !names.insert((key.namespace.clone(), name.clone())) {
            name = format!("{base}-{number}");
            number += 1;
        }
        Class {
            namespace: key.namespace.clone(),
            name,
            labels: key.labels.clone(),
            excluded: key.excluded.clone(),
            policies,
            peers,
            closed: reaches.iter().find(|r| r.closes).map(|r| r.policy),
            ports,
            probed: draft
                .members
                .iter()
                .flat_map(|m| m.probed.iter().copied())
                .collect(),
        }
    }
    /// Ports that workloads, Services or policies name, each with what it speaks and its mode.
    fn ports(
        &self,
        key: &ClassKey,
        draft: &Draft,
        policies: &[usize],
        peers: &[usize],
    ) -> BTreeMap<u16, ClassPort> {
        let policies = policies
            .iter()
            .filter_map(|at| self.objects.policies.get(*at));
        let mut numbers: BTreeSet<u16> = policies.flat_map(Policy::ports).collect();
        let peers = peers.iter().filter_map(|at| self.objects.peers.get(*at));
        numbers.extend(peers.flat_map(|peer| peer.ports.keys()));
        numbers.extend(draft.members.iter().flat_map(|m| &m.ports));
        let ambient = self.cluster.ambient(&key.namespace).is_some()
            || draft.members.iter().any(|m| is_ambient(&m.labels));
        let port = |number: u16| {
            let members = draft.members.iter();
            let spoken: BTreeSet<Protocol> = members
                .filter_map(|m| m.protocols.get(&number))
                .flatten()
                .copied()
                .collect();
            let protocol = match spoken.len() {
                _ if ambient => Some(Protocol::Bytes),
                0 => Some(Protocol::Detected),
                1 => spoken.first().copied(),
                _ => None,
            };
            let mode = self.modes.of(&key.namespace, &key.labels, number);
            ClassPort { protocol, mode }
        };
        numbers.into_iter().map(|n| (n, port(n))).collect()
    }
}

/// A name that people know the class by: the application's label, else the workload's own name, else what it is selected by.
fn class_name(key: &ClassKey, members: &[Member]) -> String {
    for label in ["app.kubernetes.io/name", "app", "k8s-app"] {
        let mut values = members.iter().map(|m| m.labels.get(label));
        let first = values.next().flatten();
        if let Some(value) = first
            && values.all(|v| v == Some(value))
        {
            // What else policies select it by tells it from other classes of the application.
            let others = key
                .labels
                .iter()
                .filter(|(k, _)| *k != label)
                .map(|(_, v)| v.as_str());
            let words: Vec<&str> = std::iter::once(value.as_str()).chain(others).collect();
            return name_part(&words.join("-"));
        }
    }
    if let [only] = members
        && let Some((_, name)) = only.title.split_once(' ')
    {
        return name_part(name);
    }
    let values: Vec<&str> = key.labels.values().map(String::as_str).collect();
    if values.is_empty() {
        "all".to_owned()
    } else {
        name_part(&values.join("-"))
    }
}

/// `text` as part of an object's name: lower-case letters, digits and single hyphens, at most 40.
pub(crate) fn name_part(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(40) {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    let out = out.trim_end_matches('-');
    if out.is_empty() {
        "x".to_owned()
    } else {
        out.to_owned()
    }
}

/// Whether labels have everything that a query asks for.
pub(crate) fn is_within(query: &Labels, labels: &Labels) -> bool {
    query.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// The number of a Service's target port on a workload.
pub(crate) fn target_ports(workload: &Workload, target: &PortRef) -> BTreeSet<u16> {
    workload.ports_of(target)
}
