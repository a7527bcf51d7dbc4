//! Why a request is decided as it is: the same decision as the data path's, layer by layer, each fact with its place.
//!
//! [`explain`] calls [`decide_on`] and never decides by itself. What it adds is read off the snapshot: shadowed
//! Servers, routes that lost, clauses of grants that hold and fail, and objects without effect.

use crate::compile::{Port, Snapshot};
use crate::connection::ConnectionAtoms;
use crate::decide::{Cause, Decision, Phase, Verdict, decide_on, requested_route};
use crate::limits::NEAR_MISSES_MAX;
use crate::original::Data;
use crate::question::millis;
use crate::record::{DecisionRecord, NearMiss, decide_record};
use crate::request::{Call, Client, Protocol, RequestRecord};
use crate::snapshot::{Effect, Grant, RateLimit, Scope, Severity, Who};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

mod text;
mod written;

/// A decision with its layers. As JSON: the decision record with `near_misses` filled, and `layers` beside its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The decision.
    #[serde(flatten)]
    pub decision: DecisionRecord,
    /// In one phrase, what decided.
    pub cause: String,
    /// Every layer in the order of evaluation; those after the one that denied are skipped.
    pub layers: Vec<Layer>,
}

/// One layer of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// `transport`, `server`, `request`, `route`, `forbid`, `permit`, `rate-limit`, `dead`.
    pub layer: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What it found, in one phrase.
    pub summary: String,
    /// `file:line` of the object it found.
    pub source: Option<String>,
    /// Further facts: shadowed Servers, runners-up, grants that hold, objects without effect.
    pub notes: Vec<Note>,
}

/// How a layer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Passed.
    Ok,
    /// Nothing there.
    None,
    /// Denied here.
    Denied,
    /// Not reached.
    Skipped,
    /// Worth knowing; decides nothing.
    Info,
}

/// One fact with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The fact.
    pub text: String,
    /// `file:line`, if it has one.
    pub source: Option<String>,
}

impl Explanation {
    /// The explanation as text for people: lines of at most 100 columns, no colours, ends with a line break.
    pub fn to_text(&self) -> String {
        text::render(self)
    }
}

/// Decides a request record and says why.
pub fn explain(
    snapshot: &Snapshot,
    record: &RequestRecord,
    port: u16,
    now: Timestamp,
) -> Explanation {
    let client = match Client::try_from(&record.client) {
        Ok(client) => client,
        Err(fault) => return unread_client(snapshot, record, port, fault.to_string(), now),
    };
    let call = record.call();
    let atoms = ConnectionAtoms::of(snapshot, &client);
    let decision = decide_on(&atoms, port, &call, now);
    let compiled = snapshot.compiled_port(port);
    let view = View {
        data: snapshot.data(),
        atoms: &atoms,
        port: compiled,
        call: &call,
        decision: &decision,
        reasons: decision.reasons(),
        now,
    };
    let mut answer = decision.record(None, &client, &call);
    answer.near_misses = view.near_misses();
    let layers = [
        view.transport(),
        view.server(),
        view.request(),
        view.route(),
        view.forbid(),
        view.permit(),
    ];
    let layers = layers
        .into_iter()
        .chain(view.rate_limit())
        .chain(dead(snapshot))
        .collect();
    Explanation {
        decision: answer,
        cause: decision.cause.to_string(),
        layers,
    }
}

fn unread_client(
    snapshot: &Snapshot,
    record: &RequestRecord,
    port: u16,
    fault: String,
    now: Timestamp,
) -> Explanation {
    let denied = Layer::new("transport", Outcome::Denied, fault.clone());
    let skipped = ["server", "request", "route", "forbid", "permit"].map(Layer::skipped);
    let layers = std::iter::once(denied)
        .chain(skipped)
        .chain(dead(snapshot))
        .collect();
    Explanation {
        decision: decide_record(snapshot, record, port, now),
        cause: fault,
        layers,
    }
}

impl Layer {
    fn new(layer: &'static str, outcome: Outcome, summary: impl Into<String>) -> Self {
        Self {
            layer,
            outcome,
            summary: summary.into(),
            source: None,
            notes: Vec::new(),
        }
    }

    fn skipped(layer: &'static str) -> Self {
        Self::new(layer, Outcome::Skipped, "not reached")
    }
}

/// All that the layers are read off.
struct View<'a> {
    data: Data,
    atoms: &'a ConnectionAtoms,
    port: &'a Port,
    call: &'a Call<'a>,
    decision: &'a Decision,
    reasons: Vec<Arc<str>>,
    now: Timestamp,
}

impl View<'_> {
    /// How `layer` went, seen from the phase that decided.
    fn outcome(&self, phase: Phase) -> Outcome {
        let denied = self.decision.verdict == Verdict::Deny;
        match phase.cmp(&self.decision.phase) {
            Ordering::Less => Outcome::Ok,
            Ordering::Equal if denied => Outcome::Denied,
            Ordering::Equal => Outcome::Ok,
            Ordering::Greater => Outcome::Skipped,
        }
    }

    fn transport(&self) -> Layer {
        let client = self.atoms.client();
        let ip = client.ip;
        let summary = match (&client.id, client.tls) {
            (Some(id), true) => format!("mTLS, {id} from {ip}"),
            (Some(id), false) => {
                format!("{id} without TLS from {ip}: the two contradict each other")
            }
            (None, true) => format!("TLS without identity, from {ip}"),
            (None, false) => format!("plaintext from {ip}"),
        };
        Layer::new("transport", self.outcome(Phase::Transport), summary)
    }

    fn server(&self) -> Layer {
        let outcome = self.outcome(Phase::Server);
        if outcome == Outcome::Skipped {
            return Layer::skipped("server");
        }
        let server = &self.port.policy.server;
        let name = match server.default {
            true => format!("default policy `{}` of {}", server.mode, server.namespace),
            false => format!("Server {}/{}", server.namespace, server.name),
        };
        let summary = match &self.decision.cause {
            Cause::InvalidServer(_) | Cause::RawBytes => format!("{name}: {}", self.decision.cause),
            _ => name,
        };
        let shadowed = server.shadowed.iter().map(|other| Note {
            text: format!(
                "shadowed: {} {}/{}",
                other.kind, other.namespace, other.name
            ),
            source: Some(other.source.to_string()),
        });
        let source = Some(server.source.to_string());
        Layer {
            source,
            notes: shadowed.collect(),
            ..Layer::new("server", outcome, summary)
        }
    }

    fn request(&self) -> Layer {
        let outcome = self.outcome(Phase::Request);
        let (Call::Http(head), false) = (self.call, outcome == Outcome::Skipped) else {
            let bytes = matches!(self.call, Call::Tcp) && outcome != Outcome::Skipped;
            return if bytes {
                Layer::new("request", Outcome::None, "raw TCP")
            } else {
                Layer::skipped("request")
            };
        };
        if self.decision.spoken == Protocol::Tcp {
            return Layer::new(
                "request",
                Outcome::None,
                "not read: this port is opaque, its bytes are judged as TCP",
            );
        }
        let path = self.decision.canonical_path(head.target);
        let summary = match (&self.decision.cause, path) {
            (Cause::Refused(refusal), _) => format!("{} {}: {refusal}", head.method, head.target),
            (_, Some(path)) if !head.target.starts_with(path) => {
                format!("{} {path} (came as {})", head.method, head.target)
            }
            (_, Some(path)) => format!("{} {path}", head.method),
            (_, None) => head.method.to_owned(),
        };
        let host = self.decision.canonical_host(head.host);
        let notes = host
            .map(|host| Note {
                text: format!("host {host}"),
                source: None,
            })
            .into_iter()
            .collect();
        Layer {
            notes,
            ..Layer::new("request", outcome, summary)
        }
    }

    fn route(&self) -> Layer {
        let outcome = self.outcome(Phase::Route);
        if outcome == Outcome::Skipped {
            return Layer::skipped("route");
        }
        if self.decision.spoken == Protocol::Tcp {
            return Layer::new("route", Outcome::None, "bytes take no route");
        }
        let Some(route) = &self.decision.route else {
            let attached = self.port.policy.routes.len();
            return Layer::new(
                "route",
                outcome,
                format!("none of {attached} attached routes takes the request"),
            );
        };
        let summary = match (route.kind.as_str(), &self.decision.cause) {
            ("default", _) if route.name == "probe" => "a declared probe".to_owned(),
            ("default", _) => "no routes attached, every request passes to the grants".to_owned(),
            (kind, Cause::InvalidRoute(why)) => {
                format!(
                    "{kind} {}/{} rule {} is invalid: {why}",
                    route.namespace, route.name, route.rule
                )
            }
            (kind, _) => format!(
                "{kind} {}/{} rule {}",
                route.namespace, route.name, route.rule
            ),
        };
        let source = (route.kind != "default").then(|| route.source.to_string());
        let notes = if source.is_some() {
            self.runners_up()
        } else {
            Vec::new()
        };
        Layer {
            source,
            notes,
            ..Layer::new("route", outcome, summary)
        }
    }

    fn runners_up(&self) -> Vec<Note> {
        let candidates = requested_route(self.port, self.call);
        let mut candidates = candidates.iter();
        let Some(winner) = candidates.next() else {
            return Vec::new();
        };
        let notes = candidates.map(|other| {
            let taken = &other.taken;
            let name = format!(
                "{} {}/{} rule {}",
                taken.kind, taken.namespace, taken.name, taken.rule
            );
            let text = format!("runner-up: {name}, {}", other.why_behind(winner));
            Note {
                text,
                source: Some(taken.source.to_string()),
            }
        });
        notes.collect()
    }

    fn forbid(&self) -> Layer {
        match self.outcome(Phase::Forbid) {
            Outcome::Skipped => Layer::skipped("forbid"),
            Outcome::Denied => {
                let summary = self.decision.cause.to_string();
                let notes = self.reasons().into_iter().chain(self.undecidable_text());
                Layer {
                    notes: notes.chain(self.written_forbids()).collect(),
                    ..Layer::new("forbid", Outcome::Denied, summary)
                }
            }
            _ => Layer::new("forbid", Outcome::None, "none holds"),
        }
    }

    fn permit(&self) -> Layer {
        let outcome = self.outcome(Phase::Permit);
        if outcome == Outcome::Skipped {
            return Layer::skipped("permit");
        }
        let permits = self
            .grants()
            .filter(|grant| grant.effect == Effect::Permit)
            .count();
        let summary = match (self.reasons.len(), self.decision.audit) {
            (0, _) => format!("0 of {permits} hold"),
            (count, true) => format!("{count} hold, audit ones alone: allowed and recorded"),
            (count, false) => format!("{count} hold"),
        };
        Layer {
            notes: self.reasons(),
            ..Layer::new("permit", outcome, summary)
        }
    }

    /// The reasons of the decision, with their places.
    fn reasons(&self) -> Vec<Note> {
        let place = |reason: &str| {
            let grant = self.grants().find(|grant| grant.id == reason);
            let mut texts = self.data.cedar_policies.iter();
            grant
                .map(|grant| grant.source.to_string())
                .or_else(|| Some(texts.find(|text| text.id == reason)?.source.to_string()))
                .or_else(|| self.probe_source(reason))
        };
        let notes = self.reasons.iter().map(|reason| Note {
            text: reason.to_string(),
            source: place(reason),
        });
        notes.collect()
    }

    fn probe_source(&self, reason: &str) -> Option<String> {
        let probe = self
            .port
            .policy
            .probes
            .first()
            .filter(|_| reason == "default/probe")?;
        Some(probe.source.to_string())
    }

    fn rate_limit(&self) -> Option<Layer> {
        let limit = self.port.policy.rate_limit.as_ref()?;
        let skipped = self.decision.verdict == Verdict::Deny;
        Some(match skipped {
            true => Layer::skipped("rate-limit"),
            false => Layer::new(
                "rate-limit",
                Outcome::Info,
                describe_limit(limit, self.atoms.client()),
            ),
        })
    }

    fn grants(&self) -> impl Iterator<Item = &Grant> {
        let all = &self.data.grants;
        let indexes = self.port.policy.grants.iter();
        indexes.filter_map(|&index| all.get(usize::try_from(index).ok()?))
    }

    /// Permits that do not hold, closest first. Of interest if nothing else allowed the request.
    fn near_misses(&self) -> Vec<NearMiss> {
        let reached = matches!(self.decision.phase, Phase::Route | Phase::Permit);
        if !reached || (self.decision.verdict == Verdict::Allow && !self.decision.audit) {
            return Vec::new();
        }
        let permits = self.grants().filter(|grant| grant.effect == Effect::Permit);
        let mut misses: Vec<NearMiss> = permits.map(|grant| self.clauses(grant)).collect();
        if self.decision.phase == Phase::Permit {
            misses.extend(self.written_misses());
        }
        misses.retain(|miss| !miss.fails.is_empty());
        let closeness = |miss: &NearMiss| (miss.fails.len(), Reverse(miss.holds.len()));
        misses.sort_by(|a, b| {
            closeness(a)
                .cmp(&closeness(b))
                .then_with(|| a.policy.cmp(&b.policy))
        });
        misses.truncate(NEAR_MISSES_MAX);
        misses
    }

    /// What a grant asks, split by whether it holds.
    fn clauses(&self, grant: &Grant) -> NearMiss {
        let (holds, text) = self.scope_clause(&grant.scope);
        let mut clauses = vec![(holds, text)];
        match &grant.who {
            Who::Anyone => {}
            Who::AnyTls => clauses.push((self.atoms.client().tls, "client speaks TLS".to_owned())),
            Who::Identities(set) => {
                clauses.push((
                    self.atoms.in_identity_set(set),
                    format!("identity in {}", readable(set)),
                ));
            }
        }
        if let Some(end) = grant.term.expires {
            let holds = millis(self.now) < millis(end);
            clauses.push((holds, format!("before {end}")));
        }
        if let Some(set) = &grant.networks {
            clauses.push((
                self.atoms.in_network_set(set),
                format!("network in {}", readable(set)),
            ));
        }
        let pick = |wanted: bool| {
            clauses
                .iter()
                .filter(|(holds, _)| *holds == wanted)
                .map(|(_, text)| text.clone())
                .collect()
        };
        NearMiss {
            policy: grant.id.clone(),
            source: grant.source.to_string(),
            holds: pick(true),
            fails: pick(false),
        }
    }

    fn scope_clause(&self, scope: &Scope) -> (bool, String) {
        let named = self.port.named();
        match scope {
            Scope::Server { namespace, name } => (
                named == Some((namespace, name)),
                format!("on Server {namespace}/{name}"),
            ),
            Scope::NamespaceServers { namespace } => {
                let holds = named.is_some_and(|(of, _)| of == namespace);
                (holds, format!("on a Server of namespace {namespace}"))
            }
            Scope::Default => (named.is_none(), "on a port without Server".to_owned()),
            Scope::Route {
                kind,
                namespace,
                name,
            } => {
                let taken = self.decision.route.as_deref();
                let holds = taken.is_some_and(|route| {
                    (&route.kind, &route.namespace, &route.name) == (kind, namespace, name)
                });
                (holds, format!("on route {kind} {namespace}/{name}"))
            }
        }
    }
}

/// `MeshTLSAuthentication/shop/web` as `MeshTLSAuthentication shop/web`.
fn readable(id: &str) -> String {
    id.replacen('/', " ", 1)
}

fn describe_limit(limit: &RateLimit, client: &Client) -> String {
    let total = limit.total.map(|rate| format!("{rate}/s in all"));
    let own = client
        .id
        .as_ref()
        .and_then(|id| limit.overrides.iter().find(|(ids, _)| ids.contains(id)));
    let each = match own {
        Some((_, rate)) => Some(format!("{rate}/s for this identity")),
        None => limit
            .identity
            .map(|rate| format!("{rate}/s for each identity")),
    };
    let rates: Vec<String> = total.into_iter().chain(each).collect();
    format!("{}/{}: {}", limit.namespace, limit.name, rates.join(", "))
}

/// Objects that were meant to matter and do not, or deny.
fn dead(snapshot: &Snapshot) -> Option<Layer> {
    let findings = snapshot
        .findings()
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    let notes: Vec<Note> = findings
        .map(|finding| Note {
            text: format!("{} {}", finding.code, finding.message),
            source: Some(finding.source.to_string()),
        })
        .collect();
    let summary = format!("{} objects without effect, or denying", notes.len());
    (!notes.is_empty()).then(|| Layer {
        notes,
        ..Layer::new("dead", Outcome::Info, summary)
    })
}

#[cfg(test)]
mod tests;
