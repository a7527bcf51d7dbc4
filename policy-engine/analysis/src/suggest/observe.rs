//! Records to classes.

use super::pattern::{Pattern, widened};
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy::record::{DecisionRecord, RecordRequest};
use mesh_policy::snapshot::ServerProtocol;
use mesh_policy_index::{Index, WorkloadKey};
use mesh_trust::SpiffeId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Different paths of one port that are told apart: some hundred bytes each.
const PATHS_MAX: usize = 100_000;

/// Labels that change from pod to pod: a Server that selected by them would select one alone.
const POD_LABELS: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
];

/// How classes are made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Different words at one place of a path; more become "any".
    pub words_max: usize,
    /// Records of a class that are few.
    pub few: u64,
}

/// A port that is to have policy: that of a Server, or of a workload without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Namespace.
    pub namespace: String,
    /// Name of the Server, there already or to be.
    pub server: String,
    /// The port.
    pub port: u16,
}

/// What is known of a port.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How its Server reads; `None`: there is no Server yet.
    pub protocol: Option<ServerProtocol>,
    /// What a Server would select by.
    pub labels: BTreeMap<String, String>,
}

/// What was asked, as policy can name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Bytes.
    Bytes,
    /// A request with this method and such a path.
    Request(String, Pattern),
}

impl Class {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Bytes => "bytes".to_owned(),
            Self::Request(method, pattern) => match pattern.exact() {
                Some(path) => format!("{method} {path}"),
                None => format!("{method} {}", pattern.regex()),
            },
        }
    }
}

/// How often something was seen, and when.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Records.
    pub count: u64,
    /// A path that was asked for.
    pub example: String,
}

/// Records that suggest nothing, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Denied: what was refused is never suggested.
    pub denied: u64,
    /// Declared probes, which need no grant.
    pub probes: u64,
    /// Clients without an identity: there is nobody to name.
    pub anonymous: u64,
    /// Workloads that the manifests do not name, or whose pods have no labels.
    pub strangers: u64,
    /// A text was cut by the log, or a path is missing.
    pub cut: u64,
    /// More different paths than are told apart.
    pub paths: u64,
    /// Methods that no route can name.
    pub methods: u64,
    /// Bytes where requests were seen too, or requests where a Server reads bytes.
    pub mixed: u64,
}

/// Who asked, and how often.
pub type Clients = BTreeMap<String, Seen>;

/// What was seen and allowed.
#[derive(Debug)]
pub struct Observed<'i> {
    index: &'i Index,
    known: BTreeMap<(WorkloadKey, u16), Option<Port>>,
    /// The ports.
    pub ports: BTreeMap<Port, Facts>,
    /// The classes of each.
    pub classes: BTreeMap<Port, BTreeMap<Class, Clients>>,
    /// What suggests nothing.
    pub skipped: Skipped,
    /// Records that suggest something.
    pub records: u64,
}

/// Methods that a route can name.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

impl<'i> Observed<'i> {
    /// Nothing seen yet; `index` says which workloads and Servers there are.
    pub fn new(index: &'i Index) -> Self {
        Self {
            index,
            known: BTreeMap::new(),
            ports: BTreeMap::new(),
            classes: BTreeMap::new(),
            skipped: Skipped::default(),
            records: 0,
        }
    }

    /// Learns from one record.
    pub fn add(&mut self, record: &DecisionRecord, cut: bool) {
        match self.learn(record, cut) {
            Ok(()) => self.records = self.records.saturating_add(1),
            Err(skipped) => {
                let count = skipped(&mut self.skipped);
                *count = count.saturating_add(1);
            }
        }
    }

    fn learn(
        &mut self,
        record: &DecisionRecord,
        cut: bool,
    ) -> Result<(), fn(&mut Skipped) -> &mut u64> {
        if record.verdict == Verdict::Deny {
            return Err(|skipped| &mut skipped.denied);
        }
        if record
            .reasons
            .iter()
            .all(|reason| reason == "default/probe")
        {
            return Err(|skipped| &mut skipped.probes);
        }
        if cut {
            return Err(|skipped| &mut skipped.cut);
        }
        let id = record.client.spiffe_id.as_deref();
        let Some(id) = id.filter(|id| SpiffeId::parse(id).is_ok()) else {
            return Err(|skipped| &mut skipped.anonymous);
        };
        let key = WorkloadKey {
            namespace: record.server.namespace.clone(),
            name: record.server.workload.clone().unwrap_or_default(),
        };
        let Some(port) = self.port(key, record.server.port) else {
            return Err(|skipped| &mut skipped.strangers);
        };
        let (class, example) = match &record.request {
            None => (Class::Bytes, String::new()),
            Some(RecordRequest {
                method,
                path: Some(path),
                ..
            }) => {
                if !METHODS.contains(&method.as_str()) {
                    return Err(|skipped| &mut skipped.methods);
                }
                (
                    Class::Request(method.clone(), Pattern::of(path)),
                    path.clone(),
                )
            }
            Some(_) => return Err(|skipped| &mut skipped.cut),
        };
        let classes = self.classes.entry(port).or_default();
        if classes.len() >= PATHS_MAX && !classes.contains_key(&class) {
            return Err(|skipped| &mut skipped.paths);
        }
        let clients = classes.entry(class).or_default();
        let seen = clients
            .entry(id.to_owned())
            .or_insert(Seen { count: 0, example });
        seen.count = seen.count.saturating_add(1);
        Ok(())
    }

    /// The port that a workload's port is, for policy.
    pub fn port(&mut self, key: WorkloadKey, number: u16) -> Option<Port> {
        if let Some(known) = self.known.get(&(key.clone(), number)) {
            return known.clone();
        }
        let found = self.find(&key, number);
        let port = found.map(|(port, facts)| {
            self.ports.entry(port.clone()).or_insert(facts);
            port
        });
        self.known.insert((key, number), port.clone());
        port
    }

    fn find(&self, key: &WorkloadKey, number: u16) -> Option<(Port, Facts)> {
        let data = self.index.snapshot(key, Generation::default())?;
        let server = &data.ports.get(&number).unwrap_or(&data.other_ports).server;
        let mut labels = self.index.labels(key)?.clone();
        labels.retain(|label, _| !POD_LABELS.contains(&label.as_str()));
        let owner = data.workload.owner.as_deref().unwrap_or(&key.name);
        let owner = owner.rsplit('/').next().unwrap_or(owner);
        let name = if server.default {
            // Without labels there is nothing to select by: a Server would select every pod of the namespace.
            (!labels.is_empty()).then(|| format!("{owner}-{number}"))?
        } else {
            server.name.clone()
        };
        let port = Port {
            namespace: key.namespace.clone(),
            server: name,
            port: number,
        };
        let facts = Facts {
            protocol: (!server.default).then_some(server.protocol),
            labels,
        };
        Some((port, facts))
    }

    /// Every port of a workload that records spoke of, with what it is for policy.
    pub fn places(&self) -> impl Iterator<Item = (&WorkloadKey, &u16, &Port)> {
        let known = self.known.iter();
        known.filter_map(|((key, number), port)| Some((key, number, port.as_ref()?)))
    }

    /// Settles what was seen: too many words become "any", and bytes are not mixed with requests.
    pub fn settle(&mut self, settings: Settings) {
        for (port, classes) in &mut self.classes {
            let Some(facts) = self.ports.get(port) else {
                continue;
            };
            unmix(classes, facts.protocol, &mut self.skipped);
            if speaks_grpc(facts, classes.keys()) {
                // Services have the methods that they have: each is named.
                continue;
            }
            let mut by_method: BTreeMap<String, BTreeSet<Pattern>> = BTreeMap::new();
            for class in classes.keys() {
                if let Class::Request(method, pattern) = class {
                    let patterns = by_method.entry(method.clone()).or_default();
                    patterns.insert(pattern.clone());
                }
            }
            for (method, patterns) in by_method {
                for (before, after) in widened(&patterns, settings.words_max) {
                    if before == after {
                        continue;
                    }
                    let before = Class::Request(method.clone(), before);
                    let moved = classes.remove(&before).unwrap_or_default();
                    let into = classes
                        .entry(Class::Request(method.clone(), after))
                        .or_default();
                    for (id, seen) in moved {
                        let known = into.entry(id).or_insert(Seen {
                            count: 0,
                            ..seen.clone()
                        });
                        known.count = known.count.saturating_add(seen.count);
                    }
                }
            }
        }
        self.classes.retain(|_, classes| !classes.is_empty());
    }

    /// Whether an identity was seen asking for such a request on a port.
    pub fn holds(&self, port: &Port, id: &str, asked: Option<(&str, &str)>) -> bool {
        let Some(classes) = self.classes.get(port) else {
            return false;
        };
        classes.iter().any(|(class, clients)| {
            let same = match (class, asked) {
                (Class::Bytes, None) => true,
                (Class::Request(method, pattern), Some((asked, path))) => {
                    method == asked && pattern.takes(path)
                }
                _ => false,
            };
            same && clients.contains_key(id)
        })
    }
}

/// Whether a port speaks gRPC: its Server says so, or there is none and all that was seen looks so.
pub(super) fn speaks_grpc<'c>(facts: &Facts, mut classes: impl Iterator<Item = &'c Class>) -> bool {
    match facts.protocol {
        Some(protocol) => protocol == ServerProtocol::Grpc,
        None => classes.all(|class| match class {
            Class::Request(method, pattern) if method == "POST" => {
                rpc(&pattern.exact().unwrap_or_default())
                    .is_some_and(|(service, _)| service.contains('.'))
            }
            _ => false,
        }),
    }
}

/// Service and method of a gRPC path.
pub(super) fn rpc(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let plain = !service.is_empty() && !method.is_empty() && !method.contains('/');
    plain.then_some((service, method))
}

/// A Server reads bytes or requests; what it would not read so is left out.
fn unmix(
    classes: &mut BTreeMap<Class, Clients>,
    protocol: Option<ServerProtocol>,
    skipped: &mut Skipped,
) {
    let bytes = protocol.is_some_and(ServerProtocol::carries_bytes)
        || !classes.keys().any(|class| *class != Class::Bytes);
    classes.retain(|class, clients| {
        let fits = (*class == Class::Bytes) == bytes;
        if !fits {
            let records: u64 = clients.values().map(|seen| seen.count).sum();
            skipped.mixed = skipped.mixed.saturating_add(records);
        }
        fits
    });
}
