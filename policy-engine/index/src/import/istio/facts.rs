//! What became of each object and rule, for the report.

mod workloads;

use super::condition::Doubt;
use super::model::{Action, Objects, Policy, Tokens};
use super::plan::{Origin, Outcome, Plan};
use super::scope::{Cluster, Scopes};
use super::write::Output;
use crate::import::report::{Fact, FactPlace, Status};
use mesh_policy::snapshot::Source;
use std::collections::BTreeSet;

/// A part of a rule that this mesh cannot ask.
const NO_COUNTERPART: &str = "MESH-0341";
/// A part that allows less than it did.
const STRICTER: &str = "MESH-0342";
/// What Istio does not enforce.
const NOT_ENFORCED: &str = "MESH-0343";
/// Workloads or ports that are not known.
const UNKNOWN_WORKLOAD: &str = "MESH-0344";
/// What is judged at a gateway or waypoint.
const AT_A_GATEWAY: &str = "MESH-0345";
/// A workload that no policy selects.
const UNSELECTED: &str = "MESH-0346";
/// A kind that is not imported.
const OTHER_KIND: &str = "MESH-0347";

/// Makes the facts.
pub(crate) fn facts(
    objects: &Objects,
    scopes: &Scopes,
    cluster: &Cluster<'_>,
    plan: &Plan,
    output: &Output,
) -> Vec<Fact> {
    let mut maker = Maker {
        scopes,
        plan,
        output,
        facts: Vec::new(),
    };
    for (at, policy) in objects.policies.iter().enumerate() {
        maker.policy(at, policy);
    }
    for (at, peer) in objects.peers.iter().enumerate() {
        maker.peer(at, peer, cluster.root_namespace);
    }
    for class in &scopes.classes {
        maker.closed_ports(class, objects);
    }
    let namespaces: BTreeSet<&str> = scopes
        .classes
        .iter()
        .map(|c| c.namespace.as_str())
        .collect();
    for namespace in namespaces.iter().filter_map(|n| cluster.ambient(n)) {
        maker.ambient(namespace);
    }
    maker.probes(objects);
    for workload in cluster.index.workload_list() {
        maker.open_probes(workload);
    }
    for other in &objects.others {
        maker.other(other);
    }
    for at in &scopes.untouched {
        maker.untouched(*at, cluster);
    }
    maker.facts
}

struct Maker<'a> {
    scopes: &'a Scopes,
    plan: &'a Plan,
    output: &'a Output,
    facts: Vec<Fact>,
}

impl Maker<'_> {
    fn add(
        &mut self,
        status: Status,
        code: Option<&'static str>,
        object: String,
        part: Option<String>,
        source: &Source,
        message: impl Into<String>,
    ) -> &mut Fact {
        let at = self.facts.len();
        self.facts.push(Fact {
            place: FactPlace::from(source),
            status,
            code,
            object,
            part,
            message: message.into(),
            became: Vec::new(),
            hint: None,
        });
        // INVARIANT: pushed on the line above.
        #[expect(clippy::indexing_slicing, reason = "the element was pushed just now")]
        &mut self.facts[at]
    }

    fn policy(&mut self, at: usize, policy: &Policy) {
        if self.not_enforced(policy) {
            return;
        }
        self.targets(at, policy);
        if let Some(tokens) = &policy.tokens {
            self.tokens(at, policy, tokens);
            return;
        }
        let title = policy.title();
        if policy.action == Action::Custom {
            let provider = policy.provider.as_deref().unwrap_or_default();
            let message = format!(
                "action CUSTOM: the provider `{provider}` cannot be asked, and what it would have been asked about is denied"
            );
            let (part, source) = (Some("spec.action".into()), &policy.action_source);
            let status = Status::KeptStricter;
            self.add(status, Some(STRICTER), title.clone(), part, source, message);
        }
        if !self.workloads_are_known(at, policy) {
            return;
        }
        if policy.rules.is_empty() {
            let message = if policy.action == Action::Allow {
                "it has no rule: what it selects is closed, unless another policy allows"
            } else {
                "it has no rule, and denies nothing"
            };
            let servers = self.servers_of(at);
            self.add(Status::Kept, None, title, None, &policy.source, message)
                .became = servers;
            return;
        }
        for number in 0..policy.rules.len() {
            self.rule(at, policy, number);
        }
    }

    /// Whether Istio itself does not enforce it; then that is said.
    fn not_enforced(&mut self, policy: &Policy) -> bool {
        let (part, source, message) = if policy.dry_run {
            let message = "annotation `istio.io/dry-run`: Istio only reports what this would do, and so it is left out";
            (None, &policy.source, message)
        } else if policy.action == Action::Audit {
            let message =
                "action AUDIT allows and denies nothing; this mesh records every denial anyway";
            (Some("spec.action".into()), &policy.action_source, message)
        } else {
            return false;
        };
        let (status, code) = (Status::NotKept, Some(NOT_ENFORCED));
        self.add(status, code, policy.title(), part, source, message);
        true
    }

    /// Whether anything was written for it; and if it speaks for unknown workloads, that is said.
    fn workloads_are_known(&mut self, at: usize, policy: &Policy) -> bool {
        let classes = self.scopes.classes.iter();
        let ports: BTreeSet<String> = classes
            .filter(|c| c.policies.contains(&at))
            .flat_map(|c| c.ports.keys().map(u16::to_string))
            .collect();
        let written = !ports.is_empty();
        let (status, message) = if !written {
            let message = "it selects no workload of these files, and names no port: nothing is written for it";
            (Status::NotKept, message.to_owned())
        } else if self.scopes.idle.contains(&at) {
            let ports: Vec<String> = ports.into_iter().collect();
            let message = format!(
                "it selects no workload of these files: Servers are written for the ports that are named ({}), other ports stay closed",
                ports.join(", ")
            );
            (Status::KeptStricter, message)
        } else {
            return true;
        };
        // What stands behind a target was told with it.
        if written || policy.targets.is_empty() {
            let (code, title) = (Some(UNKNOWN_WORKLOAD), policy.title());
            let fact = self.add(status, code, title, None, &policy.source, message);
            fact.hint = Some("add the manifests of the workloads (Deployments, Pods, Services), so that all ports are known".into());
        }
        written
    }

    /// A RequestAuthentication: what is denied in its place.
    fn tokens(&mut self, at: usize, policy: &Policy, tokens: &Tokens) {
        let origin = |rule| Origin::Rule { policy: at, rule };
        let rules = 0..policy.rules.len();
        let became = rules.filter_map(|rule| self.output.became.get(&origin(rule)));
        let became: BTreeSet<String> = became.flatten().cloned().collect();
        let mut message = "this mesh checks no tokens of end users".to_owned();
        if !became.is_empty() {
            message += ": requests that may carry one are denied";
        }
        if !tokens.unseen.is_empty() {
            let names: Vec<&str> = tokens.unseen.iter().map(String::as_str).collect();
            message += &format!(
                "; one in the query (`{}`) is not looked for, as `--tokens in-headers` says",
                names.join("`, `")
            );
        }
        let title = policy.title();
        let fact = self.add(
            Status::NotKept,
            Some(OTHER_KIND),
            title,
            None,
            &policy.source,
            message,
        );
        fact.became = became.into_iter().collect();
        for rule in 0..policy.rules.len() {
            let outcome = self.plan.outcomes.get(&(at, rule));
            for doubt in outcome.into_iter().flat_map(|o| &o.doubts) {
                self.doubt(policy, doubt);
            }
        }
    }

    fn servers_of(&self, policy: usize) -> Vec<String> {
        let classes = self
            .scopes
            .classes
            .iter()
            .enumerate()
            .filter(|(_, c)| c.policies.contains(&policy));
        let servers: BTreeSet<String> = classes
            .filter_map(|(at, _)| self.output.servers.get(&at))
            .flatten()
            .cloned()
            .collect();
        servers.into_iter().collect()
    }

    fn targets(&mut self, at: usize, policy: &Policy) {
        let closed: Vec<String> = self
            .scopes
            .classes
            .iter()
            .filter(|c| c.closed == Some(at))
            .map(|c| format!("{}/{}", c.namespace, c.name))
            .collect();
        for (number, target) in policy.targets.iter().enumerate() {
            let part = Some(format!("spec.targetRefs[{number}]"));
            let what = format!("{} `{}`", target.kind, target.name);
            if target.kind == "ServiceEntry" {
                let message = format!(
                    "{what} is outside of the mesh; only what comes in to workloads is imported"
                );
                self.add(
                    Status::NotKept,
                    Some(AT_A_GATEWAY),
                    policy.title(),
                    part,
                    &target.source,
                    message,
                );
            } else if policy.action == Action::Deny && target.kind == "Service" && closed.is_empty()
            {
                let message = format!(
                    "{what} is judged at a waypoint; here its pods themselves deny the same, whoever asks them"
                );
                self.add(
                    Status::KeptStricter,
                    Some(AT_A_GATEWAY),
                    policy.title(),
                    part,
                    &target.source,
                    message,
                );
            } else {
                let behind = if closed.is_empty() {
                    "no known workload".to_owned()
                } else {
                    closed.join(", ")
                };
                let message = format!(
                    "{what} is judged at a gateway or waypoint, which is not imported; nothing is allowed to what may be behind it: {behind}"
                );
                let fact = self.add(
                    Status::NotKept,
                    Some(AT_A_GATEWAY),
                    policy.title(),
                    part,
                    &target.source,
                    message,
                );
                fact.hint = Some("write policies for these workloads by hand, or attach the policy to them with a `selector`".into());
            }
        }
    }

    fn rule(&mut self, at: usize, policy: &Policy, number: usize) {
        let Some(rule) = policy.rules.get(number) else {
            return;
        };
        let nothing = Outcome::default();
        let outcome = self.plan.outcomes.get(&(at, number)).unwrap_or(&nothing);
        let origin = Origin::Rule {
            policy: at,
            rule: number,
        };
        let became: Vec<String> = self
            .output
            .became
            .get(&origin)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let allows = policy.action == Action::Allow;
        let worst = if outcome.doubts.is_empty() {
            Status::Kept
        } else if allows && !outcome.counts {
            Status::NotKept
        } else {
            Status::KeptStricter
        };
        let verb = if allows { "allow" } else { "den" };
        let message = match (worst, outcome.counts) {
            (Status::Kept, true) if allows => "it allows what it allowed".to_owned(),
            (Status::Kept, true) => "it denies what it denied".to_owned(),
            (Status::Kept, false) => format!(
                "it {verb}{} nothing on the ports that are known",
                if allows { "s" } else { "ies" }
            ),
            (Status::NotKept, _) => "nothing of it can be allowed".to_owned(),
            (Status::KeptStricter, _) if allows => "it allows less than it did".to_owned(),
            (Status::KeptStricter, _) => "it denies more than it did".to_owned(),
        };
        let code = match worst {
            Status::Kept => None,
            Status::KeptStricter => Some(STRICTER),
            Status::NotKept => Some(NO_COUNTERPART),
        };
        let part = Some(format!("spec.rules[{number}]"));
        self.add(worst, code, policy.title(), part, &rule.source, message)
            .became = became;
        for doubt in &outcome.doubts {
            self.doubt(policy, doubt);
        }
    }

    fn doubt(&mut self, policy: &Policy, doubt: &Doubt) {
        let code = if doubt.status == Status::NotKept {
            NO_COUNTERPART
        } else {
            STRICTER
        };
        self.add(
            doubt.status,
            Some(code),
            policy.title(),
            Some(doubt.part.clone()),
            &doubt.source,
            doubt.message.clone(),
        );
    }
}
