//! A slow, plain reading of the rules over [`SnapshotData`], with neither the matcher nor Cedar in it.
//!
//! It is the third opinion: tests, fuzzing and the equivalence run compare it with [`crate::decide::decide_on`] and
//! [`crate::decide::decide_by_cedar`]. It shares the canonicalizer and the choice of routes with them (tests of their own
//! pin those) and nothing else. It does not read policies that were written in Cedar.

use crate::canonical;
use crate::decide::{Phase, Verdict};
use crate::request::{Call, Client, Head, canonical_ip};
use crate::route::{RouteRequest, RouteTable, RouteTaken};
use crate::snapshot::*;
use mesh_trust::{SpiffeId, Timestamp};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a decision must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Allowed or not.
    pub verdict: Verdict,
    /// Which layer decided.
    pub phase: Phase,
    /// HTTP status; `None` for bytes and in phase transport.
    pub status: Option<u16>,
    /// All reasons.
    pub reasons: BTreeSet<String>,
}

/// Reads the rules for one request at `now`. Only for data without `cedar_policies`.
pub fn reading(
    data: &SnapshotData,
    number: u16,
    client: &Client,
    call: &Call<'_>,
    now: Timestamp,
) -> Reading {
    let port = data.ports.get(&number).unwrap_or(&data.other_ports);
    let bytes = matches!(call, Call::Tcp);
    let deny = |phase, status: u16| Reading {
        verdict: Verdict::Deny,
        phase,
        status: (!(bytes || phase == Phase::Transport)).then_some(status),
        reasons: BTreeSet::new(),
    };
    if client.id.is_some() && !client.tls {
        return deny(Phase::Transport, 0);
    }
    if port.server.invalid.is_some() {
        return deny(Phase::Server, 403);
    }
    let asked = |route, ok| Asked {
        data,
        port,
        client,
        now,
        route,
        ok,
    };
    let opaque = matches!(
        port.server.protocol,
        ServerProtocol::Opaque | ServerProtocol::Tls
    );
    let Call::Http(head) = call else {
        let unknown = port.server.protocol == ServerProtocol::Unknown;
        let raw = opaque
            || unknown && port.routes.is_empty() && !port.l7_limits && port.rate_limit.is_none();
        return if raw {
            asked(None, None).permits()
        } else {
            deny(Phase::Server, 403)
        };
    };
    if is_probe(data, port, client, head) {
        let mut said = asked(None, Some(200)).permits();
        if said.phase == Phase::Permit {
            said.verdict = Verdict::Allow;
            said.status = Some(200);
            said.reasons.insert("default/probe".to_owned());
        }
        return said;
    }
    if opaque {
        return asked(None, None).permits();
    }
    let path = canonical::path(head.target, head.method, port.paths);
    let host = head.host.map(canonical::host).transpose();
    let (Ok(path), Ok(_), Ok(host)) = (path, canonical::method(head.method), host) else {
        return deny(Phase::Request, 400);
    };
    if port.routes.is_empty() {
        return asked(None, Some(200)).permits();
    }
    let request = RouteRequest {
        method: head.method,
        path: path.as_str(),
        query: path.query(),
        host: host.as_ref(),
        headers: head.headers,
    };
    let (table, _) = RouteTable::compile(&port.routes);
    match table.choose(&request) {
        None => deny(Phase::Route, 404),
        Some(chosen) if chosen.invalid.is_some() => deny(Phase::Route, 403),
        Some(chosen) => asked(Some(chosen.taken), Some(200)).permits(),
    }
}

fn is_probe(data: &SnapshotData, port: &PortPolicy, client: &Client, head: &Head<'_>) -> bool {
    let raw = head.target.split('?').next();
    let path = canonical::path(head.target, head.method, port.paths);
    let host_is_sound = head.host.is_none_or(|host| canonical::host(host).is_ok());
    let method_is_sound = canonical::method(head.method).is_ok();
    host_is_sound
        && method_is_sound
        && path.is_ok_and(|path| {
            raw == Some(path.as_str())
                && port.probes.iter().any(|probe| {
                    let asks = match &probe.kind {
                        ProbeKind::Http(text) => head.method == "GET" && text == path.as_str(),
                        ProbeKind::Grpc => {
                            head.grpc
                                && head.method == "POST"
                                && path.as_str() == "/grpc.health.v1.Health/Check"
                        }
                        ProbeKind::Tcp => false,
                    };
                    asks && in_net(data, &probe.networks, canonical_ip(client.ip))
                })
        })
}

/// One question to the grants of a port.
struct Asked<'a> {
    data: &'a SnapshotData,
    port: &'a PortPolicy,
    client: &'a Client,
    now: Timestamp,
    route: Option<&'a RouteTaken>,
    /// Status if allowed; `None` for bytes.
    ok: Option<u16>,
}

impl Asked<'_> {
    fn permits(&self) -> Reading {
        let all = self.port.grants.iter();
        let grants: Vec<&Grant> = all
            .filter_map(|&index| self.data.grants.get(usize::try_from(index).ok()?))
            .collect();
        let said = |verdict, phase, status, reasons| Reading {
            verdict,
            phase,
            status,
            reasons,
        };
        let denied = self.ok.map(|_| 403);
        if grants.iter().any(|grant| self.is_broken_forbid(grant)) {
            return said(Verdict::Deny, Phase::Forbid, denied, BTreeSet::new());
        }
        let that_hold = |effect| -> BTreeSet<String> {
            let held = grants
                .iter()
                .filter(|grant| grant.effect == effect && self.holds(grant));
            held.map(|grant| grant.id.clone()).collect()
        };
        let (forbids, permits) = (that_hold(Effect::Forbid), that_hold(Effect::Permit));
        match (forbids.is_empty(), permits.is_empty()) {
            (false, _) => said(Verdict::Deny, Phase::Forbid, denied, forbids),
            (true, false) => said(Verdict::Allow, Phase::Permit, self.ok, permits),
            (true, true) => said(Verdict::Deny, Phase::Permit, denied, BTreeSet::new()),
        }
    }

    fn is_broken_forbid(&self, grant: &Grant) -> bool {
        let no_identities = matches!(&grant.who, Who::Identities(set) if !self.data.identity_sets.contains_key(set));
        let no_networks = grant
            .networks
            .as_ref()
            .is_some_and(|set| !self.data.network_sets.contains_key(set));
        grant.effect == Effect::Forbid && (no_identities || no_networks)
    }

    /// Whether a grant covers this client on this port, the request having taken this route.
    fn holds(&self, grant: &Grant) -> bool {
        let who = match &grant.who {
            Who::Anyone => true,
            Who::AnyTls => self.client.tls,
            Who::Identities(set) => self
                .client
                .id
                .as_ref()
                .is_some_and(|id| in_set(self.data, set, id)),
        };
        let network = grant
            .networks
            .as_ref()
            .is_none_or(|set| in_net(self.data, set, canonical_ip(self.client.ip)));
        let in_time = grant.term.expires.is_none_or(|end| {
            self.now.unix_micros().div_euclid(1_000) < end.unix_micros().div_euclid(1_000)
        });
        who && network && in_time && self.covers(&grant.scope)
    }

    fn covers(&self, scope: &Scope) -> bool {
        let server = &self.port.server;
        match scope {
            Scope::Server { namespace, name } => {
                !server.default && (namespace, name) == (&server.namespace, &server.name)
            }
            Scope::NamespaceServers { namespace } => {
                !server.default && *namespace == server.namespace
            }
            Scope::Default => server.default,
            Scope::Route {
                kind,
                namespace,
                name,
            } => self.route.is_some_and(|route| {
                (kind, namespace, name) == (&route.kind, &route.namespace, &route.name)
            }),
        }
    }
}

fn in_set(data: &SnapshotData, set: &str, id: &SpiffeId) -> bool {
    let is = |member: &IdentityPattern| match member {
        IdentityPattern::Any => {
            *id.trust_domain() == data.trust_domain
                || data.wildcard_domains.contains(id.trust_domain())
        }
        IdentityPattern::Exact(exact) => exact == id,
        IdentityPattern::Namespace {
            trust_domain,
            namespace,
        } => id
            .as_str()
            .strip_prefix(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/"))
            .is_some_and(|rest| !rest.contains('/')),
        IdentityPattern::Nobody(_) => false,
    };
    let set = data.identity_sets.get(set);
    set.is_some_and(|set| set.members.iter().any(is))
}

fn in_net(data: &SnapshotData, set: &str, ip: IpAddr) -> bool {
    let set = data.network_sets.get(set);
    set.is_some_and(|set| {
        set.networks.iter().any(|network| {
            network.cidr.contains(&ip) && network.except.iter().all(|hole| !hole.contains(&ip))
        })
    })
}
