//! Sources to one update per workload. Pure: the clock and the disk are the caller's.
//!
//! Ten thousand workloads have ten thousand policies, and most of each is also in others: see [`encoded`].

mod encoded;

use crate::discovery::{InOnePiece, Sliced};
use crate::limits::{CANDIDATE_UPDATE_BYTES_MAX, NAME_BYTES_MAX};
use crate::sources::{SourceFile, Sources};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use encoded::{Encoded, Pieces};
use mesh_api::discovery::{Discovery, Endpoint, PodAddress, ProtocolHint, ServicePort};
use mesh_api::proto::WorkloadUpdate;
use mesh_policy::decide::Generation;
use mesh_policy::egress::closed_to_all;
use mesh_policy::snapshot::{
    Finding, PathOptions, PortPolicy, ServerInfo, ServerProtocol, Severity, SnapshotData, Source,
    WorkloadInfo,
};
use mesh_policy_index::index::{
    Index, IndexConfig, Proxied, ServiceEndpoints, WorkloadKey, beside,
};
use mesh_policy_index::manifest::{self, Affected, Part};
use mesh_policy_index::{ObjectStatus, RouteStatus, Standing};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use ring::digest::{Context, SHA256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// What each file holds, and the digest of its content, by its name.
pub(crate) type Parts = BTreeMap<String, ([u8; 32], Arc<Part>)>;

/// Everything that is served, of one generation.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) generation: u64,
    /// Of sources and settings.
    pub(crate) digest: String,
    /// When it came into force.
    pub(crate) since: Timestamp,
    pub(crate) workloads: BTreeMap<WorkloadKey, WorkloadPolicy>,
    /// Where everything is, the same for all workloads.
    pub(crate) discovery: Arc<Sliced>,
    /// The same for proxies that do not ask for slices.
    pub(crate) in_one_piece: Arc<InOnePiece>,
    pub(crate) findings: Vec<Finding>,
    /// What became of routes.
    pub(crate) route_statuses: Vec<RouteStatus>,
    /// What became of every policy object, routes among them; empty outside a cluster.
    pub(crate) object_statuses: Vec<ObjectStatus>,
    pub(crate) files: u64,
    parts: Parts,
    /// What updates have in common.
    pieces: Pieces,
}

/// What one workload is served.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadPolicy {
    /// Who may watch it; `None` if its service account makes no SPIFFE ID.
    pub(crate) identity: Option<SpiffeId>,
    /// SHA-256 of policy, candidate and zone, generation aside.
    pub(crate) digest: String,
    /// SHA-256 of the policy alone, generation aside: what a proxy calls the policy that it holds.
    pub(crate) policy_digest: String,
    /// Names of the objects that the policy is made of, in a cluster.
    pub(crate) carried: Arc<BTreeSet<String>>,
    /// Whether it can be in force there.
    pub(crate) standing: Standing,
    /// The same object as long as nothing changed for this workload. Discovery is told beside it.
    pub(crate) update: Arc<Update>,
}

/// What a workload is sent of policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// The one that it came with.
    pub(crate) generation: u64,
    /// JSON of its [`SnapshotData`].
    pub(crate) policy: Encoded,
    /// The same of the candidate, if it has one.
    pub(crate) candidate: Option<Encoded>,
    /// The zone that it runs in; empty: nobody knows.
    pub(crate) zone: String,
}

impl Update {
    /// As it travels, with this discovery beside it.
    pub(crate) fn message(&self, key: &WorkloadKey, discovery_json: Bytes) -> WorkloadUpdate {
        let candidate = self.candidate.as_ref().filter(|candidate| {
            let beside = self.policy.len() + discovery_json.len();
            fits(key, beside, candidate.len())
        });
        WorkloadUpdate {
            generation: self.generation,
            snapshot_json: self.policy.json(),
            candidate_json: candidate.map_or_else(Vec::new, Encoded::json),
            zone: self.zone.clone(),
            discovery_json,
        }
    }
}

/// Settings that turn sources into updates.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) index: IndexConfig,
    pub(crate) proxy_port: u16,
}

impl Publishing {
    /// The settings as text: they are part of the policy's digest.
    pub(crate) fn text(&self) -> String {
        format!("{:?} {}", self.index, self.proxy_port)
    }

    /// Builds everything that `sources` say. Files that did not change since `before` are not read again, the policy of
    /// workloads that no changed file concerns is not made again, and updates that say nothing new are taken over.
    pub(crate) fn publish(
        &self,
        sources: &Sources,
        (generation, digest): (u64, String),
        since: Timestamp,
        before: Option<&Published>,
    ) -> Published {
        let parts = read_parts(sources, before);
        let loaded = manifest::join(parts.values().map(|(_, part)| part.as_ref()));
        let index = Index::build(&loaded, &self.index);
        let candidate = Index::candidate(&loaded, &self.index);
        let services = index.services();
        let discovery = Discovery {
            services: services
                .iter()
                .map(|service| self.service(service))
                .collect(),
            pods: self.pods(&index),
            zone: None,
        };
        let discovery = Sliced::of(discovery, before.map(|before| &before.discovery));
        let in_one_piece = match before {
            Some(before) if Arc::ptr_eq(&before.discovery, &discovery) => {
                Arc::clone(&before.in_one_piece)
            }
            Some(before) => Arc::new(before.in_one_piece.next(&discovery)),
            None => Arc::default(),
        };
        let affected = before.map_or(Affected::Everywhere, |before| affected(before, &parts));
        let mut pieces = before.map_or_else(Pieces::default, |before| before.pieces.clone());
        let workloads = index
            .workloads()
            .filter_map(|(key, info)| {
                let old = before.and_then(|before| before.workloads.get(key));
                let zone = index.zone(key).unwrap_or_default();
                if let Some(old) = old
                    && !affected.includes(&key.namespace)
                    && old.update.zone == zone
                {
                    // A pod that becomes ready, or gets a proxy, is in its namespace, so it was included.
                    return Some((key.clone(), old.clone()));
                }
                let neutral = index.snapshot(key, Generation(0))?;
                let standing = index.standing(key)?;
                let tried = candidate
                    .as_ref()
                    .and_then(|index| index.snapshot(key, Generation(0)))
                    .and_then(|candidate| beside(candidate, &neutral));
                let of = (info, standing, zone);
                let made = (neutral, tried);
                let policy = self.workload(key, of, made, generation, (old, &mut pieces));
                Some((key.clone(), policy))
            })
            .collect();
        pieces.forget_unused(before.map(|before| &before.pieces));
        let mut findings = index.findings().to_vec();
        findings.extend(sources.findings.iter().cloned());
        let (mut route_statuses, mut object_statuses) = (index.route_statuses(), Vec::new());
        if self.in_cluster() {
            object_statuses = index.object_statuses();
        }
        if let Some(candidate) = &candidate {
            findings.extend(candidate.findings_beside(&index));
            let (objects, routes) = candidate.statuses_beside();
            route_statuses.extend(routes);
            object_statuses.extend(objects.into_iter().filter(|_| self.in_cluster()));
        }
        findings.sort();
        Published {
            generation,
            digest,
            since,
            workloads,
            discovery,
            in_one_piece,
            findings,
            route_statuses,
            object_statuses,
            files: sources.files.len() as u64,
            parts,
            pieces,
        }
    }

    fn workload(
        &self,
        key: &WorkloadKey,
        (info, standing, zone): (&WorkloadInfo, Standing, &str),
        (mut neutral, mut candidate): (SnapshotData, Option<SnapshotData>),
        generation: u64,
        (old, pieces): (Option<&WorkloadPolicy>, &mut Pieces),
    ) -> WorkloadPolicy {
        let snapshot_json = json(&neutral);
        let tried_json = candidate.as_ref().map_or_else(Vec::new, json);
        let digest = digest_of(&[&snapshot_json, &tried_json, zone.as_bytes()]);
        let policy_digest = HEXLOWER.encode(ring::digest::digest(&SHA256, &snapshot_json).as_ref());
        let carried = match self.in_cluster() {
            true => carried(&neutral),
            false => BTreeSet::new(),
        };
        let update = match old {
            Some(old) if old.digest == digest => Arc::clone(&old.update),
            _ => {
                neutral.generation = Generation(generation);
                let policy = Encoded::of(&neutral, pieces);
                if let Some(candidate) = &mut candidate {
                    candidate.generation = Generation(generation);
                }
                let candidate = candidate.map(|candidate| Encoded::of(&candidate, pieces));
                Arc::new(Update {
                    generation,
                    candidate: candidate.filter(|one| fits(key, policy.len(), one.len())),
                    policy,
                    zone: zone.to_owned(),
                })
            }
        };
        let identity = SpiffeId::for_service_account(
            &self.index.trust_domain,
            &info.namespace,
            &info.service_account,
        )
        .ok();
        WorkloadPolicy {
            identity,
            digest,
            policy_digest,
            carried: pieces.names(carried),
            standing,
            update,
        }
    }

    /// On one machine all workloads share their addresses, and files have no status.
    fn in_cluster(&self) -> bool {
        self.index.proxied == Proxied::WithContainer
    }

    /// Pods by address, for proxies that connections are redirected to. On one machine there are none, and all
    /// workloads share their addresses.
    fn pods(&self, index: &Index) -> Vec<PodAddress> {
        if !self.in_cluster() {
            return Vec::new();
        }
        let pods = index.pods().into_iter();
        pods.map(|pod| PodAddress {
            ip: pod.ip,
            workload: format!("{}/{}", pod.workload.namespace, pod.workload.name),
            proxy: pod
                .identity
                .is_some()
                .then(|| SocketAddr::new(pod.ip, self.proxy_port)),
            identity: pod.identity,
        })
        .collect()
    }

    fn service(&self, service: &ServiceEndpoints) -> ServicePort {
        let meshed = || service.endpoints.iter().filter(|one| one.proxied);
        ServicePort {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: service.port,
            protocol: if service.opaque {
                ProtocolHint::Opaque
            } else {
                ProtocolHint::Detect
            },
            addresses: service.addresses.clone(),
            routes: service.routes.clone(),
            failure_accrual: service.failure_accrual,
            balancing: service.balancing.clone(),
            weights: match meshed().all(|endpoint| endpoint.weight == 1) {
                true => Vec::new(),
                false => meshed().map(|endpoint| endpoint.weight).collect(),
            },
            // As kube-proxy has it: while one endpoint is for nobody's zone, none is.
            zones: match meshed().any(|endpoint| endpoint.zones.is_empty()) {
                true => Vec::new(),
                false => meshed().map(|endpoint| endpoint.zones.clone()).collect(),
            },
            unmeshed: service
                .endpoints
                .iter()
                .filter(|endpoint| !endpoint.proxied)
                .map(|endpoint| SocketAddr::new(endpoint.ip, endpoint.port))
                .chain(service.others.iter().copied())
                .collect(),
            endpoints: meshed()
                .map(|endpoint| Endpoint {
                    proxy: SocketAddr::new(endpoint.ip, self.proxy_port),
                    port: endpoint.port,
                    identity: endpoint.identity.clone(),
                    workload: endpoint.workload.name.clone(),
                })
                .collect(),
        }
    }
}

/// Whether a candidate finds room beside the policy and its discovery; if not, it is left out, and said so.
fn fits(key: &WorkloadKey, beside: usize, candidate: usize) -> bool {
    let bytes = beside.saturating_add(candidate);
    let fits = bytes <= CANDIDATE_UPDATE_BYTES_MAX;
    if !fits {
        tracing::error!(
            code = "MESH-0715",
            workload = format!("{}/{}", key.namespace, key.name),
            bytes,
            "a candidate finds no room beside the policy; its proxy does not try it"
        );
    }
    fits
}

/// Names of the objects that a policy is made of, as far as they are files. Pods are none: nobody asks where a pod is in
/// force, and with its own name in it no two would have the same.
fn carried(policy: &SnapshotData) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut add = |source: &Source| {
        if let Source::File { file, .. } = source
            && !file.starts_with("Pod/")
            && !out.contains(file.as_str())
        {
            out.insert(file.clone());
        }
    };
    let ports = policy.ports.values().chain([&policy.other_ports]);
    let mut limits = Vec::new();
    for port in ports {
        add(&port.server.source);
        port.routes.iter().for_each(|route| add(&route.source));
        port.faults.iter().for_each(|fault| add(&fault.source));
        limits.extend(port.rate_limit.as_ref());
    }
    policy.grants.iter().for_each(|grant| add(&grant.source));
    let sets = policy.identity_sets.values().map(|set| &set.source);
    sets.for_each(&mut add);
    let sets = policy.network_sets.values().map(|set| &set.source);
    sets.for_each(&mut add);
    let texts = policy.cedar_policies.iter().map(|text| &text.source);
    texts.for_each(&mut add);
    for network in &policy.egress {
        add(&network.source);
        let routes = network.ports.values().flat_map(|port| &port.routes);
        routes.for_each(|route| add(&route.source));
    }
    out.extend(limits.into_iter().map(|limit| {
        let kind = ("policy.linkerd.io", "HTTPLocalRateLimitPolicy");
        mesh_kubernetes::object::name(kind.0, kind.1, Some(&limit.namespace), &limit.name)
    }));
    out
}

/// The files as objects; those that are as they were, from `before`.
fn read_parts(sources: &Sources, before: Option<&Published>) -> Parts {
    let read = |(name, file): (&String, &SourceFile)| {
        let kept = before
            .and_then(|before| before.parts.get(name))
            .filter(|(digest, _)| *digest == file.digest)
            .map(|(_, part)| Arc::clone(part));
        let part = kept.unwrap_or_else(|| Arc::new(manifest::read_part(name, &file.bytes)));
        (name.clone(), (file.digest, part))
    };
    sources.files.iter().map(read).collect()
}

/// Whom the difference between the files of `before` and these concerns.
fn affected(before: &Published, parts: &Parts) -> Affected {
    let differs = |name: &str, one: &[u8; 32], others: &Parts| {
        others.get(name).is_none_or(|(other, _)| one != other)
    };
    let old = before
        .parts
        .iter()
        .filter(|(name, (digest, _))| differs(name, digest, parts));
    let new = parts
        .iter()
        .filter(|(name, (digest, _))| differs(name, digest, &before.parts));
    let changed = old.chain(new).map(|(_, (_, part))| part.as_ref());
    Affected::by(changed, parts.values().map(|(_, part)| part.as_ref()))
}

impl Published {
    /// Discovery in one piece.
    pub(crate) fn whole(&self) -> &Bytes {
        self.in_one_piece.whole(&self.discovery)
    }

    /// The same without zones.
    pub(crate) fn zoneless(&self) -> &Bytes {
        self.in_one_piece.zoneless(&self.discovery)
    }

    /// What each file holds.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Workloads whose update is not the one they had.
    pub(crate) fn changed_workloads(&self, before: Option<&Self>) -> u64 {
        let had = |key: &WorkloadKey| before.and_then(|before| before.workloads.get(key));
        let new = self
            .workloads
            .iter()
            .filter(|(key, policy)| {
                had(key).is_none_or(|old| !Arc::ptr_eq(&old.update, &policy.update))
            })
            .count() as u64;
        let gone = before.map_or(0, |before| {
            before
                .workloads
                .keys()
                .filter(|key| !self.workloads.contains_key(*key))
                .count() as u64
        });
        new + gone
    }

    /// Findings of this severity.
    pub(crate) fn count(&self, severity: Severity) -> u64 {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count() as u64
    }
}

/// What a proxy is told whose workload is in no manifest: everything is denied, and why.
pub(crate) fn deny_all(
    key: &WorkloadKey,
    peer: &SpiffeId,
    domain: &TrustDomain,
    generation: u64,
) -> WorkloadUpdate {
    let source = Source::BuiltIn("workload in no manifest".to_owned());
    let why = format!(
        "workload `{}/{}` is in no manifest",
        key.namespace, key.name
    );
    let service_account = peer
        .service_account()
        .map(|(_, name)| name.to_owned())
        .unwrap_or_default();
    let snapshot = SnapshotData {
        generation: Generation(generation),
        workload: WorkloadInfo {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            owner: None,
            service_account,
            ips: Vec::new(),
            node_ip: None,
            source: source.clone(),
        },
        trust_domain: domain.clone(),
        wildcard_domains: Vec::new(),
        ports: BTreeMap::new(),
        other_ports: PortPolicy {
            server: ServerInfo {
                namespace: key.namespace.clone(),
                name: "default".to_owned(),
                default: true,
                mode: "deny".to_owned(),
                protocol: ServerProtocol::Unknown,
                invalid: Some(why.clone()),
                source: source.clone(),
                shadowed: Vec::new(),
            },
            routes: Vec::new(),
            probes: Vec::new(),
            grants: Vec::new(),
            rate_limit: None,
            paths: PathOptions::default(),
            l7_limits: false,
            faults: Vec::new(),
        },
        grants: Vec::new(),
        identity_sets: BTreeMap::new(),
        network_sets: BTreeMap::new(),
        cedar_policies: Vec::new(),
        egress: vec![closed_to_all(&why, source.clone())],
        findings: vec![Finding {
            code: "MESH-0712".to_owned(),
            severity: Severity::Error,
            message: why,
            hint: Some("add a Pod or Deployment of this name to the manifests".to_owned()),
            object: None,
            source,
        }],
    };
    WorkloadUpdate {
        generation,
        snapshot_json: json(&snapshot),
        discovery_json: Bytes::new(),
        candidate_json: Vec::new(),
        zone: String::new(),
    }
}

/// What a proxy is told of discovery whose workload is in no manifest, if it asks for it in one piece: nothing is anywhere.
pub(crate) fn nowhere() -> Bytes {
    json(&Discovery::default()).into()
}

/// Whether a proxy may ask about `key` at all: its own namespace, our trust domain, names of a sane length.
pub(crate) fn may_ask(peer: &SpiffeId, key: &WorkloadKey, domain: &TrustDomain) -> bool {
    let fits = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
    peer.trust_domain() == domain
        && fits(&key.namespace)
        && fits(&key.name)
        && peer
            .service_account()
            .is_some_and(|(namespace, _)| namespace == key.namespace)
}

/// Our own data types always have a JSON form: no map with other than text and number keys, no failing `Serialize`.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn digest_of(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    HEXLOWER.encode(context.finish().as_ref())
}

#[cfg(test)]
mod tests;
