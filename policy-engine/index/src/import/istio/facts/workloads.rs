//! Facts about workloads: modes of mTLS, ports that are closed, probes, workloads without policy; and about other kinds.

use super::{Maker, NOT_ENFORCED, OTHER_KIND, STRICTER, UNKNOWN_WORKLOAD, UNSELECTED};
use crate::import::istio::condition::Cond;
use crate::import::istio::model::{Mtls, Objects, Other, PeerAuthentication};
use crate::import::istio::mtls::Modes;
use crate::import::istio::plan::Origin;
use crate::import::istio::scope::{Class, Cluster};
use crate::import::report::Status;
use crate::import::{OTHERWISE, describe_probe};
use crate::index::Workload;
use crate::manifest::resource::Object;
use cedar_policy::pst::Effect;
use std::collections::BTreeSet;

impl Maker<'_> {
    pub(super) fn peer(&mut self, at: usize, peer: &PeerAuthentication, root_namespace: &str) {
        let title = peer.title();
        if Modes::is_ignored(peer, root_namespace) {
            let message = "Istio ignores a selector in the root namespace, and so it is left out";
            self.add(
                Status::NotKept,
                Some(NOT_ENFORCED),
                title,
                None,
                &peer.source,
                message,
            );
            return;
        }
        let servers: BTreeSet<String> = self
            .scopes
            .classes
            .iter()
            .enumerate()
            .filter(|(_, class)| class.peers.contains(&at))
            .filter_map(|(class, _)| self.output.servers.get(&class))
            .flatten()
            .cloned()
            .collect();
        if servers.is_empty() {
            let message =
                "it bears on no known workload, or an older one of the same scope counts instead";
            self.add(
                Status::NotKept,
                Some(UNKNOWN_WORKLOAD),
                title,
                None,
                &peer.source,
                message,
            );
            return;
        }
        let mode = peer.mode.map_or("no mode of its own", Mtls::name);
        let (status, code, message) = if self.scopes.contested.contains(&at) {
            let message = format!(
                "{mode}: several PeerAuthentications have the same scope and no age, so the strictest counts"
            );
            (Status::KeptStricter, Some(STRICTER), message)
        } else {
            (
                Status::Kept,
                None,
                format!("{mode}; between proxies of this mesh there is mTLS in any case"),
            )
        };
        self.add(status, code, title, None, &peer.source, message)
            .became = servers.into_iter().collect();
    }

    /// Ports on which nothing is allowed because what they speak, or whether they ask for mTLS, cannot be told.
    pub(super) fn closed_ports(&mut self, class: &Class, objects: &Objects) {
        for (port, known) in &class.ports {
            let why = match (known.protocol, known.mode) {
                (None, _) => "Services contradict each other on what it speaks",
                (_, None) => "PeerAuthentications contradict each other",
                _ => continue,
            };
            let policy = class
                .policies
                .first()
                .and_then(|at| objects.policies.get(*at));
            let peer = class.peers.first().and_then(|at| objects.peers.get(*at));
            let found = policy
                .map(|p| (p.title(), &p.source))
                .or(peer.map(|p| (p.title(), &p.source)));
            let Some((title, source)) = found else {
                continue;
            };
            let message = format!(
                "port {port} of {}/{}: {why}, so nothing is allowed on it",
                class.namespace, class.name
            );
            self.add(
                Status::KeptStricter,
                Some(STRICTER),
                title,
                None,
                source,
                message,
            );
        }
    }

    /// Istio asks probes at a port of its own; here what denies denies them too.
    pub(super) fn probes(&mut self, objects: &Objects) {
        let mut told = BTreeSet::new();
        for server in &self.plan.servers {
            let Some(class) = self.scopes.classes.get(server.class) else {
                continue;
            };
            if !class.probed.contains(&server.port) {
                continue;
            }
            for (policy, origin, statement) in &server.statements {
                let Origin::Rule { rule, .. } = origin else {
                    continue;
                };
                // Probes carry no token.
                let of_tokens = objects
                    .policies
                    .get(*policy)
                    .is_some_and(|p| p.tokens.is_some());
                if statement.effect == Effect::Forbid
                    && (!of_tokens || statement.cond == Cond::Always)
                {
                    told.insert((
                        *policy,
                        *rule,
                        format!("{}/{}", server.name, class.namespace),
                    ));
                }
            }
        }
        for (policy, rule, server) in told {
            let Some((policy, found)) = objects
                .policies
                .get(policy)
                .and_then(|p| Some((p, p.rules.get(rule)?)))
            else {
                continue;
            };
            let server = server
                .split_once('/')
                .map_or(String::new(), |(name, namespace)| {
                    format!("{namespace}/{name}")
                });
            let message = format!(
                "probes on Server {server} are denied where this rule matches them; Istio lets probes past its policies"
            );
            let part = Some(format!("spec.rules[{rule}]"));
            let fact = self.add(
                Status::KeptStricter,
                Some(STRICTER),
                policy.title(),
                part,
                &found.source,
                message,
            );
            fact.hint = Some("narrow the rule so that it leaves the path of the probe out".into());
        }
    }

    pub(super) fn ambient(&mut self, namespace: &Object<()>) {
        let title = format!("Namespace {}", namespace.key.name);
        let message = "ambient mode: policies are enforced where no requests are seen, so its ports carry bytes here; rules about requests allow nothing, and deny whatever else they ask matches";
        self.add(Status::Kept, None, title, None, &namespace.source, message);
    }

    /// Istio asks its policies about what looks like a probe, unless the kubelet asked its agent; this mesh does not.
    pub(super) fn open_probes(&mut self, workload: &Workload) {
        let mut classes = self.scopes.classes.iter().filter(|c| c.selects(workload));
        let restricts = |class: &Class| {
            let strict =
                |port: &super::super::scope::ClassPort| port.mode != Some(Mtls::Permissive);
            !class.policies.is_empty() || class.closed.is_some() || class.ports.values().any(strict)
        };
        if !classes.any(restricts) {
            return;
        }
        let title = format!(
            "{} {}/{}",
            workload.kind, workload.key.namespace, workload.object_name
        );
        for probe in &workload.pod.probes {
            let Some(port) = workload.probe_port(probe) else {
                continue;
            };
            let message = format!(
                "{} is let through without identity, whoever sends it; Istio asks its policies",
                describe_probe(&probe.kind, port)
            );
            let (status, title) = (Status::NotKept, title.clone());
            let fact = self.add(status, Some(OTHERWISE), title, None, &probe.source, message);
            fact.hint = Some("nothing is to be done if the answer is no secret; else forbid its path in a CedarPolicy".into());
        }
    }

    pub(super) fn other(&mut self, other: &Other) {
        let message = if ["EnvoyFilter", "WasmPlugin"].contains(&other.kind.as_str()) {
            "this kind is not imported: if it denies anything, write that by hand"
        } else {
            "this kind is not imported"
        };
        self.add(
            Status::NotKept,
            Some(OTHER_KIND),
            other.title.clone(),
            None,
            &other.source,
            message,
        );
    }

    pub(super) fn untouched(&mut self, at: usize, cluster: &Cluster<'_>) {
        let Some(workload) = cluster.index.workload_list().get(at) else {
            return;
        };
        let title = format!(
            "{} {}/{}",
            workload.kind, workload.key.namespace, workload.object_name
        );
        let message = "no policy of Istio selects it, so Istio lets everyone in; here the default policy does not";
        let fact = self.add(
            Status::KeptStricter,
            Some(UNSELECTED),
            title,
            None,
            &workload.info.source,
            message,
        );
        fact.hint = Some("write a Server and an AuthorizationPolicy for it; for the old access, annotate its pods with `mesh.internal/default-inbound-policy: all-unauthenticated`".into());
    }
}
