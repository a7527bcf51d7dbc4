//! The decision: a request and a snapshot in, a verdict with its complete reasons out.
//!
//! Layers, in order; the first that denies is the phase of the decision:
//! transport (is the client what it seems) → server (which policy speaks for the port, and does it take this protocol) →
//! request (can the head be read in one way only) → probes → route → forbids → permits.
//! The peer learns only "denied"; reasons and cause go to log, metric, audit record and explain.

use crate::canonical::{self, CanonicalHost, CanonicalPath};
use crate::cedar::{Answer, Object};
use crate::compile::{Port, Snapshot, probe_is_open};
use crate::connection::{Asked, ConnectionAtoms};
use crate::request::{Call, Client, Head, Protocol};
use crate::route::{Candidate, RouteRequest, RouteTaken};
use crate::snapshot::ProbeKind;
use std::sync::Arc;

mod outcome;

pub use outcome::{Cause, Decision, Denial, Facts, Generation, Permit, Phase, Refusal, Verdict};

/// Answers one request. Same inputs, same answer, on any machine: no clock, no cache, no IO.
pub fn decide(snapshot: &Snapshot, port: u16, client: &Client, call: &Call<'_>) -> Decision {
    decide_on(&ConnectionAtoms::of(snapshot, client), port, call)
}

/// As [`decide`], for one of many requests on a connection: what is constant there was settled in `atoms`.
pub fn decide_on(atoms: &ConnectionAtoms, port: u16, call: &Call<'_>) -> Decision {
    let compiled = atoms.snapshot().compiled_port(port);
    let ruling = rule(atoms, compiled, call);
    let spoken = match call {
        Call::Http(_) if ruling.as_bytes => Protocol::Tcp,
        Call::Http(head) if head.grpc => Protocol::Grpc,
        Call::Http(_) => Protocol::Http,
        Call::Tcp => Protocol::Tcp,
    };
    let (reasons, audit) = (ruling.reasons, ruling.audit);
    let blank = Facts {
        generation: atoms.snapshot().generation(),
        verdict: Verdict::Deny,
        status: None,
        grpc_status: None,
        phase: Phase::Transport,
        cause: Cause::NoGrant,
        reasons: Arc::default(),
        audit: false,
        server: Arc::clone(&compiled.server),
        workload: Arc::clone(&atoms.snapshot().compiled().workload),
        port,
        route: ruling.route,
        canonical_path: ruling.path,
        canonical_host: ruling.host,
        spoken,
    };
    Decision(Facts {
        reasons,
        audit,
        ..blank.turned(ruling.cause)
    })
}

/// Whether a connection that carries no data may stand on `port`: a declared TCP probe, from where probes come, on a
/// port that no invalid Server claims. A connection that sends a byte is no probe; ask [`decide_on`] then.
pub fn empty_connection_is_probe(atoms: &ConnectionAtoms, port: u16) -> bool {
    let port = atoms.snapshot().compiled_port(port);
    transport_fault(atoms).is_none()
        && port.server.invalid.is_none()
        && probe_holds(atoms, port, |kind| matches!(kind, ProbeKind::Tcp))
}

/// What [`rule`] found.
#[derive(Default)]
struct Ruling {
    cause: Cause,
    reasons: Arc<[Arc<str>]>,
    audit: bool,
    route: Option<Arc<RouteTaken>>,
    path: Option<String>,
    host: Option<String>,
    /// A request that was judged as bytes.
    as_bytes: bool,
}

impl Ruling {
    fn because(cause: Cause) -> Self {
        Self {
            cause,
            ..Self::default()
        }
    }

    /// What Cedar said.
    fn answered(self, answer: Answer) -> Self {
        match answer {
            Answer::Permitted { reasons, audit } => Self {
                cause: Cause::Granted,
                reasons,
                audit,
                ..self
            },
            Answer::Forbidden { reasons } => Self {
                cause: Cause::Forbidden,
                reasons,
                ..self
            },
            Answer::Undecidable { why } => Self {
                cause: Cause::Undecidable(why),
                ..self
            },
            Answer::NoPermit => Self {
                cause: Cause::NoGrant,
                ..self
            },
        }
    }
}

fn rule(atoms: &ConnectionAtoms, port: &Port, call: &Call<'_>) -> Ruling {
    if let Some(fault) = transport_fault(atoms) {
        return Ruling::because(fault);
    }
    if let Some(why) = &port.server.invalid {
        return Ruling::because(Cause::InvalidServer(why.as_str().into()));
    }
    match call {
        Call::Tcp => rule_bytes(atoms, port),
        Call::Http(head) if port.is_bytes() => match canonical_head(head, port) {
            (_, Ok(request)) if is_probe(atoms, port, head, &request) => {
                rule_probe(atoms, port, request)
            }
            _ => Ruling {
                as_bytes: true,
                ..rule_bytes(atoms, port)
            },
        },
        Call::Http(head) => rule_request(atoms, port, head),
    }
}

fn transport_fault(atoms: &ConnectionAtoms) -> Option<Cause> {
    let client = atoms.client();
    (client.id.is_some() && !client.tls).then_some(Cause::IdentityWithoutTls)
}

fn rule_bytes(atoms: &ConnectionAtoms, port: &Port) -> Ruling {
    if port.wants_requests() {
        return Ruling::because(Cause::RawBytes);
    }
    Ruling::default().answered(atoms.answer(port, Asked::Bytes, || port.bytes.clone()))
}

/// A head in canonical form.
struct Canonical<'a> {
    path: CanonicalPath<'a>,
    host: Option<CanonicalHost>,
}

/// The canonical head, or the first reason to refuse it; the path comes along if it alone is sound.
fn canonical_head<'a>(
    head: &Head<'a>,
    port: &Port,
) -> (Option<String>, Result<Canonical<'a>, Refusal>) {
    let path = match canonical::path(head.target, head.method, port.policy.paths) {
        Ok(path) => path,
        Err(refusal) => return (None, Err(refusal.into())),
    };
    let text = path.as_str().to_owned();
    let rest = canonical::method(head.method)
        .map_err(Refusal::from)
        .and_then(|_| {
            let host = head.host.map(canonical::host).transpose()?;
            Ok(Canonical { path, host })
        });
    (Some(text), rest)
}

fn rule_request(atoms: &ConnectionAtoms, port: &Port, head: &Head<'_>) -> Ruling {
    let (path, request) = canonical_head(head, port);
    let request = match request {
        Ok(request) => request,
        Err(refusal) => {
            return Ruling {
                path,
                ..Ruling::because(Cause::Refused(refusal))
            };
        }
    };
    if is_probe(atoms, port, head, &request) {
        return rule_probe(atoms, port, request);
    }
    let ruling = rule_routed(atoms, port, head, &request);
    Ruling {
        path,
        host: request.host.map(CanonicalHost::into_text),
        ..ruling
    }
}

fn rule_routed(
    atoms: &ConnectionAtoms,
    port: &Port,
    head: &Head<'_>,
    request: &Canonical<'_>,
) -> Ruling {
    if port.routes.is_empty() {
        let taken = &port.default_route;
        let answer = atoms.answer(port, Asked::DefaultRoute, || object(atoms, port, taken));
        return Ruling {
            route: Some(Arc::clone(taken)),
            ..Ruling::default()
        }
        .answered(answer);
    }
    let Some(chosen) = port.routes.choose(&route_request(head, request)) else {
        return Ruling::because(Cause::NoRoute);
    };
    let ruling = Ruling {
        route: Some(Arc::clone(&chosen.taken)),
        ..Ruling::default()
    };
    if let Some(why) = chosen.invalid {
        return Ruling {
            cause: Cause::InvalidRoute(why),
            ..ruling
        };
    }
    let asked = Asked::Rule {
        route: chosen.route,
        rule: chosen.taken.rule,
    };
    ruling.answered(atoms.answer(port, asked, || object(atoms, port, &chosen.taken)))
}

/// Every rule that would take the request, best first; none if its head is refused. For explain.
pub(crate) fn requested_route(port: &Port, call: &Call<'_>) -> Vec<Candidate> {
    let Call::Http(head) = call else {
        return Vec::new();
    };
    let (_, request) = canonical_head(head, port);
    request
        .map(|request| port.routes.candidates(&route_request(head, &request)))
        .unwrap_or_default()
}

fn route_request<'a>(head: &Head<'a>, request: &'a Canonical<'_>) -> RouteRequest<'a> {
    RouteRequest {
        method: head.method,
        path: request.path.as_str(),
        query: request.path.query(),
        host: request.host.as_ref(),
        headers: head.headers,
    }
}

fn object(atoms: &ConnectionAtoms, port: &Port, route: &RouteTaken) -> Object {
    let vocabulary = atoms.snapshot().compiled().vocabulary;
    Object::request(
        vocabulary,
        port.named(),
        (&route.kind, &route.namespace, &route.name, route.rule),
    )
}

/// Whether the request is exactly a declared probe: method, path as it came, port and source.
fn is_probe(
    atoms: &ConnectionAtoms,
    port: &Port,
    head: &Head<'_>,
    request: &Canonical<'_>,
) -> bool {
    let path = request.path.as_str();
    !request.path.is_rewritten()
        && probe_holds(atoms, port, |kind| match kind {
            ProbeKind::Http(probe) => head.method == "GET" && probe == path,
            ProbeKind::Grpc => {
                head.grpc && head.method == "POST" && path == "/grpc.health.v1.Health/Check"
            }
            ProbeKind::Tcp => false,
        })
}

fn probe_holds(atoms: &ConnectionAtoms, port: &Port, asks: impl Fn(&ProbeKind) -> bool) -> bool {
    let snapshot = atoms.snapshot();
    port.policy
        .probes
        .iter()
        .any(|probe| asks(&probe.kind) && probe_is_open(snapshot, probe, atoms.ip()))
}

/// A probe needs no permit, but a forbid still closes it.
fn rule_probe(atoms: &ConnectionAtoms, port: &Port, request: Canonical<'_>) -> Ruling {
    let taken = &port.probe_route;
    let ruling = Ruling {
        route: Some(Arc::clone(taken)),
        path: Some(request.path.into_path().into_owned()),
        host: request.host.map(CanonicalHost::into_text),
        ..Ruling::default()
    };
    let others = match atoms.answer(port, Asked::ProbeRoute, || object(atoms, port, taken)) {
        Answer::Permitted { reasons, .. } => reasons,
        Answer::NoPermit => Arc::default(),
        denied => return ruling.answered(denied),
    };
    let mut reasons: Vec<Arc<str>> = others.iter().cloned().collect();
    reasons.push(Arc::from("default/probe"));
    reasons.sort();
    Ruling {
        cause: Cause::Probe,
        reasons: reasons.into(),
        ..ruling
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
