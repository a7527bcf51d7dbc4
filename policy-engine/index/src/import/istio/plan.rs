//! What is to be written: for each class and port a Server, its grants, and its policies in Cedar.
//!
//! INVARIANT: nothing here allows what Istio would not. A piece of a rule becomes a grant only if authentications and
//! routes can say all of it; else a permit in Cedar whose condition is never wider; else nothing. What denies becomes a
//! forbid whose condition is never narrower.

use super::cedar::{Action as CedarAction, Statement};
use super::condition::{Cond, Doubt, Setting, Side, conjunction};
use super::fit::fit;
use super::model::{Action, Attribute, Clause, Mtls, Objects, Policy, Rule, Want};
use super::pattern::{PathText, Text, canonical_path};
use super::protocol::Protocol;
use super::routes::{Access, Path, routes};
use super::scope::{Class, Scopes};
use super::who::{Block, Ids, Sources, Who, sources};
use crate::import::report::Status;
use crate::manifest::route_match::METHODS;
use cedar_policy::pst::Effect;
use mesh_policy::snapshot::Source;
use mesh_trust::TrustDomain;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Whose words a grant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Places of a policy and of its rule.
    Rule { policy: usize, rule: usize },
    /// No ALLOW policy selects the workload, so Istio allows what is not denied.
    NoAllowPolicy,
}

/// A Server with all that is to stand on it.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    /// Place of its class.
    pub(crate) class: usize,
    pub(crate) port: u16,
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// Grants on everything.
    pub(crate) whole: BTreeMap<Who, BTreeSet<Origin>>,
    /// Grants on some requests.
    pub(crate) requests: Vec<RequestGrant>,
    /// Policies in Cedar, with the policy they come from.
    pub(crate) statements: Vec<(usize, Origin, Statement)>,
}

/// A grant on some requests, in both forms.
#[derive(Clone, Debug)]
pub(crate) struct RequestGrant {
    /// Place of the policy.
    pub(crate) policy: usize,
    pub(crate) who: Who,
    pub(crate) access: Access,
    pub(crate) origin: Origin,
    /// The same in Cedar, for when there are too many routes.
    pub(crate) statement: Statement,
}

/// What is known of one rule when all is planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) doubts: Vec<Doubt>,
    /// Whether it granted or denied anything.
    pub(crate) counts: bool,
}

impl Outcome {
    fn doubt(&mut self, doubt: Doubt) {
        if !self.doubts.contains(&doubt) {
            self.doubts.push(doubt);
        }
    }
}

/// The whole plan.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) servers: Vec<ServerPlan>,
    /// By policy and rule.
    pub(crate) outcomes: BTreeMap<(usize, usize), Outcome>,
}

/// Plans every class.
pub(crate) fn plan(objects: &Objects, scopes: &Scopes, trust_domain: &TrustDomain) -> Plan {
    let mut planner = Planner {
        objects,
        trust_domain,
        plan: Plan::default(),
    };
    for (number, class) in scopes.classes.iter().enumerate() {
        for port in class.ports.keys() {
            planner.server(number, class, *port);
        }
    }
    planner.plan
}

struct Planner<'a> {
    objects: &'a Objects,
    trust_domain: &'a TrustDomain,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn server(&mut self, number: usize, class: &Class, port: u16) {
        let known = class.ports.get(&port).and_then(|p| p.protocol.zip(p.mode));
        let mut server = ServerPlan {
            class: number,
            port,
            name: format!("{}-{port}", class.name),
            protocol: known.map_or(Protocol::Detected, |(protocol, _)| protocol),
            whole: BTreeMap::new(),
            requests: Vec::new(),
            statements: Vec::new(),
        };
        // A Server without grants denies everything.
        if let Some((protocol, mode)) = known.filter(|_| class.closed.is_none()) {
            let setting = Setting {
                trust_domain: self.trust_domain,
                mode,
                port,
                bytes: false,
            };
            let server_id = format!("{}/{}", class.namespace, server.name);
            let mut one = OneServer {
                setting,
                protocol,
                server_id,
                plan: &mut server,
                outcomes: &mut self.plan.outcomes,
            };
            one.policies(self.objects, &class.policies);
        }
        self.plan.servers.push(server);
    }
}

/// The planning of one Server.
struct OneServer<'p, 'a> {
    setting: Setting<'a>,
    protocol: Protocol,
    server_id: String,
    plan: &'p mut ServerPlan,
    outcomes: &'p mut BTreeMap<(usize, usize), Outcome>,
}

impl OneServer<'_, '_> {
    fn policies(&mut self, objects: &Objects, policies: &[usize]) {
        let mut allows = false;
        for at in policies {
            let Some(policy) = objects.policies.get(*at) else {
                continue;
            };
            allows |= policy.action == Action::Allow;
            for (number, rule) in policy.rules.iter().enumerate() {
                let origin = Origin::Rule {
                    policy: *at,
                    rule: number,
                };
                self.outcomes.entry((*at, number)).or_default();
                if policy.action == Action::Allow {
                    self.allow(*at, number, rule, origin);
                } else {
                    // Tokens come with requests; bytes are not asked for any.
                    let bytes = policy.tokens.is_none();
                    self.deny(*at, number, rule, origin, bytes);
                }
            }
        }
        if !allows {
            let ids = if self.setting.mode == Mtls::Strict {
                Ids::Verified
            } else {
                Ids::Anyone
            };
            self.grant_whole(
                Who {
                    ids,
                    networks: None,
                },
                Origin::NoAllowPolicy,
            );
        }
        self.too_many_routes(objects);
        self.bytes_beside_routes(objects);
    }

    /// What routes cannot take is said in Cedar.
    fn too_many_routes(&mut self, objects: &Objects) {
        let accesses: Vec<Access> = self
            .plan
            .requests
            .iter()
            .map(|r| r.access.clone())
            .collect();
        if routes(&accesses, true).is_some() {
            return;
        }
        for grant in std::mem::take(&mut self.plan.requests) {
            let Origin::Rule { rule: number, .. } = grant.origin else {
                continue;
            };
            let rule = objects
                .policies
                .get(grant.policy)
                .and_then(|p| p.rules.get(number));
            if let Some(rule) = rule {
                self.say(grant.policy, number, rule, grant.origin, grant.statement);
            }
        }
    }

    fn outcome(&mut self, policy: usize, rule: usize) -> &mut Outcome {
        self.outcomes.entry((policy, rule)).or_default()
    }

    fn grant_whole(&mut self, who: Who, origin: Origin) {
        self.plan.whole.entry(who).or_default().insert(origin);
    }

    fn allow(&mut self, policy: usize, number: usize, rule: &Rule, origin: Origin) {
        let of_requests = rule.asks_of_requests();
        if of_requests && !self.protocol.has_requests() {
            // Istio leaves such a rule out where it sees no requests.
            return;
        }
        let mut said = Said::default();
        let pieces = rule.pieces();
        for clauses in &pieces {
            let mut doubts = Vec::new();
            let cond = conjunction(clauses, Side::Under, &self.setting, &mut doubts);
            let outcome = self.outcome(policy, number);
            doubts.into_iter().for_each(|doubt| outcome.doubt(doubt));
            if cond != Cond::Never {
                said.piece(clauses, cond, of_requests, &self.setting, self.protocol);
            }
        }
        self.outcome(policy, number).counts |= !said.whole.is_empty() || !said.requests.is_empty();
        let action = if of_requests {
            CedarAction::Requests
        } else {
            CedarAction::Any
        };
        let statement = |cond: Cond| Statement {
            id: format!("rule-{number}"),
            effect: Effect::Permit,
            action,
            servers: BTreeSet::from([self.server_id.clone()]),
            verified: self.setting.mode == Mtls::Strict,
            cond,
        };
        let cedar = (!said.cedar.is_empty()).then(|| statement(Cond::any(said.cedar)));
        let requests = said
            .requests
            .into_iter()
            .map(|((access, networks), (ids, cond))| RequestGrant {
                policy,
                who: Who { ids, networks },
                access,
                origin,
                statement: statement(cond),
            });
        let requests: Vec<RequestGrant> = requests.collect();
        for (networks, ids) in said.whole {
            self.grant_whole(Who { ids, networks }, origin);
        }
        self.plan.requests.extend(requests);
        if let Some(statement) = cedar {
            self.say(policy, number, rule, origin, statement);
        }
    }

    /// Adds a policy in Cedar, in parts if it is too large.
    fn say(
        &mut self,
        policy: usize,
        number: usize,
        rule: &Rule,
        origin: Origin,
        statement: Statement,
    ) {
        let allows = statement.effect == Effect::Permit;
        let (parts, whole) = fit(statement);
        let outcome = self.outcome(policy, number);
        outcome.counts |= !parts.is_empty();
        if !whole {
            let message = if allows {
                "a list of exclusions is too long for a policy: what depends on it is not allowed"
            } else {
                "a list of exclusions is too long for a policy: it excludes nothing"
            };
            outcome.doubt(Doubt {
                part: format!("spec.rules[{number}]"),
                source: rule.source.clone(),
                status: Status::KeptStricter,
                message: message.to_owned(),
            });
        }
        self.plan
            .statements
            .extend(parts.into_iter().map(|part| (policy, origin, part)));
    }

    fn deny(&mut self, policy: usize, number: usize, rule: &Rule, origin: Origin, of_bytes: bool) {
        let mut forms = Vec::new();
        if self.protocol.has_requests() {
            forms.push(false);
        }
        // Of a rule that asks only of connections one form says both.
        if of_bytes && self.protocol.has_bytes() && (rule.asks_of_requests() || forms.is_empty()) {
            forms.push(true);
        }
        for bytes in forms {
            let setting = Setting {
                bytes,
                ..self.setting
            };
            let mut doubts = Vec::new();
            let cond = rule_condition(rule, &setting, &mut doubts);
            let outcome = self.outcome(policy, number);
            doubts.into_iter().for_each(|doubt| outcome.doubt(doubt));
            let action = match (rule.asks_of_requests(), bytes) {
                (false, _) => CedarAction::Any,
                (true, false) => CedarAction::Requests,
                (true, true) => CedarAction::Bytes,
            };
            let suffix = if action == CedarAction::Bytes {
                "-bytes"
            } else {
                ""
            };
            let statement = Statement {
                id: format!("rule-{number}{suffix}"),
                effect: Effect::Forbid,
                action,
                servers: BTreeSet::from([self.server_id.clone()]),
                verified: false,
                cond,
            };
            self.say(policy, number, rule, origin, statement);
        }
    }

    /// Bytes that are no request are refused on a port with routes, whoever may send them.
    fn bytes_beside_routes(&mut self, objects: &Objects) {
        if self.protocol != Protocol::Detected || self.plan.requests.is_empty() {
            return;
        }
        let port = self.setting.port;
        let whole = self.plan.whole.values().flatten().copied();
        let any = self
            .plan
            .statements
            .iter()
            .filter(|(_, _, s)| s.action == CedarAction::Any && s.effect == Effect::Permit);
        let origins: BTreeSet<Origin> = whole.chain(any.map(|(_, origin, _)| *origin)).collect();
        for origin in origins {
            let Origin::Rule { policy, rule } = origin else {
                continue;
            };
            let found = objects.policies.get(policy).and_then(|p| p.rules.get(rule));
            let Some(found) = found else { continue };
            let doubt = Doubt {
                part: format!("spec.rules[{rule}]"),
                source: found.source.clone(),
                status: Status::KeptStricter,
                message: format!(
                    "on port {port} only requests are let through, for other rules ask about them; name the port of the Service `tcp-...` if it carries bytes"
                ),
            };
            self.outcome(policy, rule).doubt(doubt);
        }
    }
}

/// Where clients must come from; `None`: from anywhere.
type Networks = Option<Vec<Block>>;

/// What the pieces of a rule that allows say, each in the plainest form that says all of it.
#[derive(Default)]
struct Said {
    /// Whom they admit to everything, by where they must come from.
    whole: BTreeMap<Networks, Ids>,
    /// Whom they admit to some requests, by these and by where they must come from; and the same as a condition.
    requests: BTreeMap<(Access, Networks), (Ids, Cond)>,
    /// What only Cedar can say.
    cedar: Vec<Cond>,
}

impl Said {
    fn piece(
        &mut self,
        clauses: &[&Clause],
        cond: Cond,
        of_requests: bool,
        setting: &Setting<'_>,
        protocol: Protocol,
    ) {
        let who = match sources_of(clauses, setting) {
            Sources::Of(who) => Some(who),
            Sources::Nobody => return,
            Sources::NeedCedar => None,
        };
        match (who, access(clauses, protocol)) {
            (Some(who), Some(_)) if !of_requests => match self.whole.entry(who.networks) {
                Entry::Vacant(entry) => _ = entry.insert(who.ids),
                Entry::Occupied(mut entry) => entry.get_mut().join(who.ids),
            },
            (Some(who), Some(access)) => match self.requests.entry((access, who.networks)) {
                Entry::Vacant(entry) => _ = entry.insert((who.ids, cond)),
                Entry::Occupied(mut entry) => {
                    let (ids, before) = entry.get_mut();
                    ids.join(who.ids);
                    *before = Cond::any([std::mem::replace(before, Cond::Never), cond]);
                }
            },
            _ => self.cedar.push(cond),
        }
    }
}

/// The condition of a whole rule that denies.
fn rule_condition(rule: &Rule, setting: &Setting<'_>, doubts: &mut Vec<Doubt>) -> Cond {
    let mut any = |alternatives: &[Vec<Clause>]| {
        if alternatives.is_empty() {
            return Cond::Always;
        }
        let parts: Vec<Cond> = alternatives
            .iter()
            .map(|clauses| {
                conjunction(
                    &clauses.iter().collect::<Vec<_>>(),
                    Side::Over,
                    setting,
                    doubts,
                )
            })
            .collect();
        Cond::any(parts)
    };
    let (from, to) = (any(&rule.from), any(&rule.to));
    let when: Vec<&Clause> = rule.when.iter().collect();
    let when = conjunction(&when, Side::Over, setting, doubts);
    Cond::all([from, to, when])
}

/// Sources of a piece; without mTLS no identity is looked at, and what asks for one was found to never hold.
fn sources_of(clauses: &[&Clause], setting: &Setting<'_>) -> Sources {
    let asked: Vec<&Clause> = clauses
        .iter()
        .filter(|c| setting.mode != Mtls::Disable || !c.attribute.is_identity())
        .copied()
        .collect();
    sources(&asked, setting.trust_domain, setting.mode)
}

/// The requests that the clauses are about, if routes can say it. Clauses about connections do not count.
fn access(clauses: &[&Clause], protocol: Protocol) -> Option<Access> {
    let mut out = Access {
        paths: BTreeSet::from([Path::All]),
        methods: BTreeSet::new(),
    };
    for clause in clauses.iter().filter(|c| c.attribute.is_of_requests()) {
        if !clause.not_values.is_empty() {
            return None;
        }
        match clause.attribute {
            Attribute::Path => {
                let paths: Option<BTreeSet<Path>> =
                    clause.values.iter().map(|w| path(w, protocol)).collect();
                out.paths = paths?;
            }
            // A GRPCRoute has no methods.
            Attribute::Method if protocol != Protocol::Grpc => {
                let methods: Option<BTreeSet<String>> = clause.values.iter().map(method).collect();
                out.methods = methods?;
            }
            _ => return None,
        }
    }
    Some(out)
}

fn path(want: &Want, protocol: Protocol) -> Option<Path> {
    let Want::Path(PathText::Text(text)) = want else {
        return None;
    };
    let canonical = |text: &str| canonical_path(text).as_deref() == Some(text);
    match text {
        Text::Present => Some(Path::All),
        Text::Prefix(prefix) if prefix == "/" => Some(Path::All),
        Text::Exact(text) if protocol == Protocol::Grpc => {
            is_grpc_method(text).then(|| Path::Exact(text.clone()))
        }
        Text::Exact(text) => canonical(text).then(|| Path::Exact(text.clone())),
        Text::Prefix(prefix) if protocol != Protocol::Grpc => {
            let base = prefix.strip_suffix('/')?;
            (base.len() > 1 && !base.ends_with('/') && canonical(base))
                .then(|| Path::Below(base.to_owned()))
        }
        Text::Prefix(_) | Text::Suffix(_) => None,
    }
}

/// Whether a path is that of a gRPC method: `/<service>/<method>`.
fn is_grpc_method(path: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let parts = path.strip_prefix('/').and_then(|p| p.split_once('/'));
    parts.is_some_and(|(service, method)| service.split('.').all(name) && name(method))
}

/// A method that HTTPRoutes know.
fn method(want: &Want) -> Option<String> {
    match want {
        Want::Text(Text::Exact(method)) if METHODS.contains(&method.as_str()) => {
            Some(method.clone())
        }
        _ => None,
    }
}

/// Where an origin stands, if it is a rule's.
pub(crate) fn source_of(objects: &Objects, origin: Origin) -> Option<(&Policy, &Source)> {
    let Origin::Rule { policy, rule } = origin else {
        return None;
    };
    let policy = objects.policies.get(policy)?;
    Some((policy, &policy.rules.get(rule)?.source))
}
