//! The decision: a request and a snapshot in, a verdict with its complete reasons out.
//!
//! Layers, in order; the first that denies is the phase of the decision:
//! transport (is the client what it seems) → server (which policy speaks for the port, and does it take this protocol) →
//! request (can the head be read in one way only) → probes → route → forbids → permits.
//! The peer learns only "denied"; reasons and cause go to log, metric, audit record and explain.

use crate::canonical::{self, CanonicalHost, CanonicalPath};
use crate::compile::{Port, Snapshot};
use crate::connection::{By, ConnectionAtoms, Query, Reasons, Says};
use crate::matcher::Asked;
use crate::question::{RequestFacts, RouteFacts};
use crate::request::{Call, Client, Head, Protocol};
use crate::route::{Candidate, RouteRequest, RouteTaken};
use crate::snapshot::ProbeKind;
use heads::{Reading, Way};
use mesh_trust::Timestamp;
use outcome::Judged;
use std::sync::Arc;

pub(crate) mod heads;
mod outcome;

pub(crate) use outcome::grpc_status;
pub use outcome::{
    Cause, Decision, Denial, Facts, Generation, Grounds, Permit, Phase, Refusal, Verdict,
};

/// Answers one request. Same inputs, same answer, on any machine: no clock, no IO. `now` is the time that grants with an
/// end, and policies that look at the time, are judged by.
pub fn decide(
    snapshot: &Snapshot,
    port: u16,
    client: &Client,
    call: &Call<'_>,
    now: Timestamp,
) -> Decision {
    decide_on(&ConnectionAtoms::of(snapshot, client), port, call, now)
}

/// As [`decide`], for one of many requests on a connection: what is constant there was settled in `atoms`.
pub fn decide_on(atoms: &ConnectionAtoms, port: u16, call: &Call<'_>, now: Timestamp) -> Decision {
    decide_by(atoms, port, call, now, By::Matcher)
}

/// As [`decide_on`], but every policy is evaluated by Cedar's own engine, and membership in sets is looked up plainly: what
/// [`decide_on`] must be equal to. Some thousand times slower.
pub fn decide_by_cedar(
    atoms: &ConnectionAtoms,
    port: u16,
    call: &Call<'_>,
    now: Timestamp,
) -> Decision {
    decide_by(atoms, port, call, now, By::Cedar)
}

fn decide_by(
    atoms: &ConnectionAtoms,
    number: u16,
    call: &Call<'_>,
    now: Timestamp,
    by: By,
) -> Decision {
    let snapshot = atoms.snapshot();
    let at = atoms.port_at(number);
    let inquiry = Inquiry {
        atoms,
        port: snapshot.compiled().port(at),
        number,
        now,
        by,
    };
    // Filled in where it stays: a decision is large, and moving it about costs as much as making it.
    let mut decision = Decision(Facts {
        generation: snapshot.generation(),
        verdict: Verdict::Deny,
        status: None,
        grpc_status: None,
        phase: Phase::Permit,
        cause: Cause::NoGrant,
        audit: false,
        break_glass: false,
        port: number,
        route: None,
        spoken: match call {
            Call::Http(head) if head.grpc => Protocol::Grpc,
            Call::Http(_) => Protocol::Http,
            Call::Tcp => Protocol::Tcp,
        },
        path: Judged::Not,
        host: Judged::Not,
        atoms: atoms.clone(),
        at,
        reasons: Reasons::None,
    });
    inquiry.rule(call, &mut decision.0);
    decision.0.conclude();
    decision
}

/// Whether a connection that carries no data may stand on `port`: a declared TCP probe, from where probes come, on a
/// port that no invalid Server claims. A connection that sends a byte is no probe; ask [`decide_on`] then.
pub fn empty_connection_is_probe(atoms: &ConnectionAtoms, port: u16) -> bool {
    let port = atoms.snapshot().compiled_port(port);
    transport_fault(atoms).is_none()
        && port.policy.server.invalid.is_none()
        && probe_holds(atoms, port, |kind| matches!(kind, ProbeKind::Tcp))
}

/// A head in canonical form.
struct Canonical<'a> {
    path: CanonicalPath<'a>,
    host: Option<CanonicalHost<'a>>,
}

/// The canonical head, or the first reason to refuse it; the path comes along if it alone is sound.
fn canonical_head<'a>(head: &Head<'a>, port: &Port) -> Result<Canonical<'a>, (Judged, Refusal)> {
    let path = canonical::path(head.target, head.method, port.policy.paths)
        .map_err(|refusal| (Judged::Not, refusal.into()))?;
    let rest = canonical::method(head.method)
        .map_err(Refusal::from)
        .and_then(|_| Ok(head.host.map(canonical::host).transpose()?));
    match rest {
        Ok(host) => Ok(Canonical { path, host }),
        Err(refusal) => Err((Judged::of(path.into_path()), refusal)),
    }
}

/// One decision in the making.
#[derive(Clone, Copy)]
struct Inquiry<'a> {
    atoms: &'a ConnectionAtoms,
    port: &'a Port,
    /// Number of the port.
    number: u16,
    now: Timestamp,
    by: By,
}

impl Inquiry<'_> {
    fn rule(&self, call: &Call<'_>, facts: &mut Facts) {
        if let Some(fault) = transport_fault(self.atoms) {
            facts.cause = fault;
            return;
        }
        if let Some(why) = &self.port.policy.server.invalid {
            facts.cause = Cause::InvalidServer(why.as_str().into());
            return;
        }
        if self.port.is_distrusted() && self.by == By::Matcher {
            let why = "the compiled policy of this port gave another answer than Cedar";
            facts.cause = Cause::Undecidable(why.into());
            return;
        }
        match call {
            Call::Tcp => self.bytes(facts),
            Call::Http(head) => {
                self.with_reading(head, |reading| {
                    if self.port.is_bytes() && !matches!(reading.way, Way::Probe) {
                        facts.spoken = Protocol::Tcp;
                        self.bytes(facts);
                    } else {
                        self.judge(reading, head, facts);
                    }
                });
            }
        }
    }

    fn bytes(&self, facts: &mut Facts) {
        if self.port.wants_requests() {
            facts.cause = Cause::RawBytes;
            return;
        }
        let query = Query {
            asked: Asked::Bytes,
            route: None,
            request: None,
            now: self.now,
        };
        let says = self.ask(&query, &mut facts.reasons);
        facts.answer(says);
    }

    /// Gives `then` the head in canonical form and where it leads; remembered where nothing else than its text decides
    /// that. Given by reference, as copying what was just written is slow.
    fn with_reading(&self, head: &Head<'_>, then: impl FnOnce(&Reading)) {
        if self.by == By::Cedar || self.port.routes.look_at_headers() {
            return then(&self.read(head));
        }
        let heads = self.atoms.heads();
        heads.with(self.number, head, || self.read(head), then);
    }

    fn read(&self, head: &Head<'_>) -> Reading {
        let request = match canonical_head(head, self.port) {
            Ok(request) => request,
            Err((path, refusal)) => {
                return Reading {
                    path,
                    host: Judged::Not,
                    way: Way::Refused(refusal),
                };
            }
        };
        let way = if self.is_probe(head, &request) {
            Way::Probe
        } else if self.port.routes.is_empty() {
            Way::Route(Asked::DefaultRoute, Arc::clone(&self.port.default_route))
        } else {
            match self.port.routes.choose(&route_request(head, &request)) {
                None => Way::NoRoute,
                Some(chosen) => match chosen.invalid {
                    Some(why) => Way::Invalid(Arc::clone(chosen.taken), Arc::clone(why)),
                    None => {
                        let (route, rule) = (chosen.route, chosen.taken.rule);
                        Way::Route(Asked::Rule { route, rule }, Arc::clone(chosen.taken))
                    }
                },
            }
        };
        Reading {
            path: Judged::of(request.path.into_path()),
            host: request
                .host
                .map(|host| Judged::of(host.into_text()))
                .unwrap_or_default(),
            way,
        }
    }

    fn judge(&self, reading: &Reading, head: &Head<'_>, facts: &mut Facts) {
        let judged = (&reading.path, &reading.host);
        match &reading.way {
            Way::Refused(refusal) => facts.cause = Cause::Refused(*refusal),
            Way::NoRoute => facts.cause = Cause::NoRoute,
            Way::Invalid(taken, why) => {
                facts.route = Some(Arc::clone(taken));
                facts.cause = Cause::InvalidRoute(Arc::clone(why));
            }
            Way::Route(asked, taken) => {
                facts.route = Some(Arc::clone(taken));
                let says = self.ask_for(*asked, taken, head, judged, &mut facts.reasons);
                facts.answer(says);
            }
            Way::Probe => self.probe(head, judged, facts),
        }
        facts.path.clone_from(&reading.path);
        facts.host.clone_from(&reading.host);
    }

    /// A probe needs no permit, but a forbid still closes it.
    fn probe(&self, head: &Head<'_>, judged: (&Judged, &Judged), facts: &mut Facts) {
        let taken = &self.port.probe_route;
        facts.route = Some(Arc::clone(taken));
        let reasons = &mut facts.reasons;
        match self.ask_for(Asked::ProbeRoute, taken, head, judged, reasons) {
            Says::Permitted { .. } | Says::NoPermit => facts.cause = Cause::Probe,
            denied => facts.answer(denied),
        }
    }

    fn ask_for(
        &self,
        asked: Asked,
        taken: &RouteTaken,
        head: &Head<'_>,
        (path, host): (&Judged, &Judged),
        reasons: &mut Reasons,
    ) -> Says {
        let looked_at = self.by == By::Cedar || self.atoms.snapshot().compiled().has_texts();
        let query = Query {
            asked,
            route: Some(RouteFacts {
                kind: &taken.kind,
                namespace: &taken.namespace,
                name: &taken.name,
                rule: taken.rule,
            }),
            // Grants look at nothing of the request but its route.
            request: looked_at.then(|| RequestFacts {
                method: head.method,
                path: path.path_text(head.target).unwrap_or_default(),
                host: host.text(head.host),
                headers: head.headers,
                grpc: head.grpc,
            }),
            now: self.now,
        };
        self.ask(&query, reasons)
    }

    fn ask(&self, query: &Query<'_>, reasons: &mut Reasons) -> Says {
        self.atoms
            .ask(self.number, self.port, query, self.by, reasons)
    }

    /// Whether the request is exactly a declared probe: method, path as it came, port and source.
    fn is_probe(&self, head: &Head<'_>, request: &Canonical<'_>) -> bool {
        let path = request.path.as_str();
        !request.path.is_rewritten()
            && probe_holds(self.atoms, self.port, |kind| match kind {
                ProbeKind::Http(probe) => head.method == "GET" && probe == path,
                ProbeKind::Grpc => {
                    head.grpc && head.method == "POST" && path == "/grpc.health.v1.Health/Check"
                }
                ProbeKind::Tcp => false,
            })
    }
}

fn transport_fault(atoms: &ConnectionAtoms) -> Option<Cause> {
    let client = atoms.client();
    (client.id.is_some() && !client.tls).then_some(Cause::IdentityWithoutTls)
}

/// Every rule that would take the request, best first; none if its head is refused. For explain.
pub(crate) fn requested_route(port: &Port, call: &Call<'_>) -> Vec<Candidate> {
    let Call::Http(head) = call else {
        return Vec::new();
    };
    canonical_head(head, port)
        .map(|request| port.routes.candidates(&route_request(head, &request)))
        .unwrap_or_default()
}

fn route_request<'a>(head: &Head<'a>, request: &'a Canonical<'a>) -> RouteRequest<'a> {
    RouteRequest {
        method: head.method,
        path: request.path.as_str(),
        query: request.path.query(),
        host: request.host.as_ref(),
        headers: head.headers,
    }
}

fn probe_holds(atoms: &ConnectionAtoms, port: &Port, asks: impl Fn(&ProbeKind) -> bool) -> bool {
    let mut probes = port.policy.probes.iter().zip(&port.probe_networks);
    probes.any(|(probe, networks)| asks(&probe.kind) && atoms.in_network_at(*networks))
}

#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;
