//! The decision on one connection or request to outside: its verdict, its cause, and the permit that comes of an allow.

use super::{
    Compiled, CompiledPort, Layer, Origination, Speakers, Speaks, TlsOrigin, TrafficPolicy,
};
use crate::canonical::{self, CanonicalHost, CanonicalPath};
use crate::decide::{Generation, Phase, Refusal, Verdict, grpc_status};
use crate::record::{
    DecisionRecord, RecordClient, RecordEgress, RecordRequest, RecordRoute, RecordServer,
};
use crate::request::{Head, Headers};
use crate::route::{Chosen, RouteRequest, RouteTable, RouteTaken};
use crate::snapshot::PathOptions;
use mesh_trust::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What is seen of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Bytes that are neither of the others, or that nobody looked at.
    Bytes,
    /// A TLS ClientHello, with the server name that it asks for.
    Tls(Option<&'a str>),
    /// A request.
    Http(Head<'a>),
}

/// What exactly decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody speaks for the address.
    Unrestricted,
    /// Every layer that speaks allows.
    Granted,
    /// The network denies, and no route is attached to it at this port.
    Denied,
    /// Routes are attached, and none of them takes this.
    NoRoute,
    /// Routes are attached that judge something else than what came.
    WrongProtocol(Speaks),
    /// Routes name servers, and the client names none.
    NoServerName,
    /// The server name is none.
    BadServerName,
    /// The head can be read in more than one way.
    Refused(Refusal),
    /// The route that takes this is invalid; with the reason.
    InvalidRoute(Arc<str>),
    /// The network is invalid; with the reason.
    InvalidNetwork(Arc<str>),
    /// A route begins TLS, and the request names no DNS name that the certificate could be for.
    NoTlsName,
    /// A route of another network begins TLS to this port, which this network does not let out to.
    TlsPort(u16),
    /// The routes of two layers that take this begin TLS in different ways.
    TlsDiffers,
    /// The mesh's network lets this out to the addresses of its name alone, and a route of the namespace begins TLS, which
    /// is held to no address.
    TlsUnbound,
    /// A name let it out, and the address is not one of that name; with what is known of it.
    OtherAddress(Arc<str>),
    /// A name let it out, and nobody said which addresses that name has; with the reason.
    NameUnknown(Arc<str>),
}

impl Cause {
    /// In a word of a bounded set, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unrestricted => "unrestricted",
            Self::Granted => "granted",
            Self::Denied => "egress-denied",
            Self::NoRoute => "egress-no-route",
            Self::WrongProtocol(_) => "egress-wrong-protocol",
            Self::NoServerName => "egress-no-server-name",
            Self::BadServerName => "egress-bad-server-name",
            Self::Refused(_) => "refused",
            Self::InvalidRoute(_) => "egress-invalid-route",
            Self::InvalidNetwork(_) => "egress-invalid-network",
            Self::NoTlsName => "egress-no-tls-name",
            Self::TlsPort(_) => "egress-tls-port",
            Self::TlsDiffers => "egress-tls-differs",
            Self::TlsUnbound => "egress-tls-unbound",
            Self::OtherAddress(_) => "egress-other-address",
            Self::NameUnknown(_) => "egress-name-unknown",
        }
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::Unrestricted | Self::Granted => Verdict::Allow,
            _ => Verdict::Deny,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrestricted => f.write_str("no EgressNetwork speaks for this address"),
            Self::Granted => f.write_str("allowed"),
            Self::Denied => f.write_str(
                "its traffic policy is `Deny`, and no route is attached to it at this port",
            ),
            Self::NoRoute => {
                f.write_str("no route that is attached to it at this port takes this host")
            }
            Self::WrongProtocol(Speaks::Http) => {
                f.write_str("its routes at this port are for HTTP, and this is something else")
            }
            Self::WrongProtocol(Speaks::Tls) => {
                f.write_str("its routes at this port are for TLS, and this is something else")
            }
            Self::WrongProtocol(Speaks::Tcp) => f.write_str("its routes at this port are for TCP"),
            Self::NoServerName => f.write_str(
                "its routes at this port name servers, and the client names none (no SNI)",
            ),
            Self::BadServerName => f.write_str("the server name (SNI) is no DNS name"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::InvalidRoute(why) => write!(f, "the route that takes this is invalid: {why}"),
            Self::InvalidNetwork(why) => write!(f, "it is invalid and denies everything: {why}"),
            Self::NoTlsName => f.write_str(
                "the route that takes this begins TLS, and the request names no DNS name that a certificate could be for",
            ),
            Self::TlsPort(port) => write!(
                f,
                "a route of another network begins TLS to port {port}, and this one does not let TLS with that server name out there"
            ),
            Self::TlsDiffers => f.write_str(
                "its route, and that of the network asked before, begin TLS in different ways",
            ),
            Self::TlsUnbound => f.write_str(
                "it lets this out to the addresses of its name alone, and a route of the namespace begins TLS by roots of its own choice, to any address",
            ),
            Self::OtherAddress(why) => write!(f, "the name that lets it out does not lead there: {why}"),
            Self::NameUnknown(why) => write!(f, "the addresses of the name that lets it out are not known: {why}"),
        }
    }
}

/// The answer to one connection or request.
#[derive(Clone, Debug)]
#[must_use = "a decision that nobody looks at protects nothing"]
pub struct EgressDecision {
    /// Which policy decided.
    pub generation: Generation,
    /// Where it goes.
    pub to: SocketAddr,
    /// What exactly decided.
    pub cause: Cause,
    /// Namespace and name of the network that denied; of an allow, of the last that was asked.
    pub network: Option<(String, String)>,
    /// `EgressNetwork/<ns>/<name>/allow` or `/deny`, `<kind>/<ns>/<name>/<rule>`: of an allow one for each layer, of a
    /// deny that of the layer that denied.
    pub reasons: Vec<String>,
    /// The route that took it: of the layer that decided last.
    pub route: Option<Arc<RouteTaken>>,
    /// Path to forward, of a request.
    path: Option<String>,
    /// Host to forward, of a request that has one.
    host: Option<String>,
    /// TLS that must be begun; of an allow.
    tls: Option<Origination>,
    /// The host or server name, without port.
    name: Option<String>,
    /// Whether some layer lets it out by that name, to its addresses alone.
    by_name: bool,
    /// Where it was led in place of `to`.
    instead: Option<SocketAddr>,
}

/// Leave for one connection or request to outside. Only an allowed [`EgressDecision`] yields it.
#[derive(Debug)]
#[must_use = "a permit is for one connection or request: forward it, or drop it knowingly"]
pub struct EgressPermit {
    path: Option<String>,
    host: Option<String>,
    tls: Option<Origination>,
}

impl EgressPermit {
    /// The path that was judged, without query: the one to forward.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The host that was judged: the one to forward.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// TLS that must be begun for it: without, it may not be sent.
    pub fn tls(&self) -> Option<&Origination> {
        self.tls.as_ref()
    }
}

impl EgressDecision {
    /// Allowed or not.
    pub fn verdict(&self) -> Verdict {
        self.cause.verdict()
    }

    /// TLS that must be begun for what was allowed.
    pub fn tls(&self) -> Option<&Origination> {
        self.tls.as_ref()
    }

    /// The name that let it out, whose addresses alone it may go to. TLS that is begun is held against a certificate, which
    /// says more.
    pub fn bound_to(&self) -> Option<&str> {
        let bound = self.by_name && self.tls.is_none() && self.verdict() == Verdict::Allow;
        self.name.as_deref().filter(|_| bound)
    }

    /// The same decision, turned into a denial: the address is not one of the name that let it out.
    pub fn at_other_address(self, why: &str) -> Self {
        self.denied_by(Cause::OtherAddress(why.into()))
    }

    /// The same decision, turned into a denial for now: which addresses the name has that let it out is not known.
    pub fn at_unknown_address(self, why: &str) -> Self {
        self.denied_by(Cause::NameUnknown(why.into()))
    }

    /// Whether what this allows may go to another address instead, where the decision about the same is `there`: some network
    /// speaks for that and lets it out, in the same TLS or in none.
    pub fn allows_instead(&self, there: &Self) -> bool {
        there.cause == Cause::Granted && there.tls == self.tls
    }

    fn denied_by(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self.tls = None;
        self.reasons = match &self.network {
            Some((namespace, name)) => vec![format!("EgressNetwork/{namespace}/{name}/deny")],
            None => Vec::new(),
        };
        self
    }

    /// The same decision, about something that is led to an address of its name in place of the one that was dialled.
    pub fn led_to(mut self, instead: SocketAddr) -> Self {
        self.instead = Some(instead);
        self
    }

    /// Leave to forward.
    ///
    /// # Errors
    /// The decision, if it is no.
    #[expect(
        clippy::result_large_err,
        reason = "made once for each connection or request to outside"
    )]
    pub fn permit(self) -> Result<EgressPermit, Self> {
        match self.verdict() {
            Verdict::Allow => Ok(EgressPermit {
                path: self.path,
                host: self.host,
                tls: self.tls,
            }),
            Verdict::Deny => Err(self),
        }
    }

    /// HTTP status of the answer to a request.
    pub fn status(&self) -> u16 {
        match self.cause {
            Cause::Unrestricted | Cause::Granted => 200,
            Cause::Refused(_) => 400,
            // The client may well try again.
            Cause::NameUnknown(_) => 503,
            _ => 403,
        }
    }

    /// gRPC code of the answer to a call that is denied.
    pub fn grpc_status(&self) -> Option<u8> {
        match self.cause {
            Cause::NameUnknown(_) => Some(14),
            _ => grpc_status(self.status()),
        }
    }

    /// The record of this decision; `namespace` is the workload's own, and `seen` what was decided on.
    pub fn record(
        &self,
        time: Option<Timestamp>,
        client: RecordClient,
        namespace: &str,
        seen: &Seen<'_>,
    ) -> DecisionRecord {
        let (request, grpc) = match seen {
            Seen::Http(head) => (
                Some(RecordRequest {
                    method: head.method.to_owned(),
                    path: self.path.clone(),
                    raw_path: head.target.to_owned(),
                    host: self.host.clone(),
                }),
                head.grpc,
            ),
            Seen::Bytes | Seen::Tls(_) => (None, false),
        };
        let status = request.as_ref().map(|_| self.status());
        let network = self.network.as_ref();
        DecisionRecord {
            time,
            generation: self.generation,
            client,
            server: RecordServer {
                namespace: network
                    .map_or(namespace, |(namespace, _)| namespace)
                    .to_owned(),
                name: network.map(|(_, name)| name.clone()),
                workload: None,
                port: self.to.port(),
                default: false,
            },
            egress: Some(RecordEgress {
                to: self.to.to_string(),
                server_name: match (seen, &self.tls) {
                    (Seen::Tls(name), _) => name.map(str::to_owned),
                    (_, Some(tls)) => Some(tls.server_name.clone()),
                    (Seen::Bytes | Seen::Http(_), None) => None,
                },
                tls_port: self.tls.as_ref().map(|tls| tls.origin.port),
                instead: self.instead.map(|instead| instead.to_string()),
            }),
            route: self.route.as_deref().map(RecordRoute::of),
            request,
            verdict: self.verdict(),
            status,
            grpc_status: status.filter(|_| grpc).and_then(|_| self.grpc_status()),
            phase: Phase::Egress,
            reasons: self.reasons.clone(),
            audit: false,
            first: false,
            near_misses: Vec::new(),
            shadow: None,
            fault: None,
        }
    }
}

/// What is judged, in the one form in which it is matched and forwarded.
struct Canonical<'a> {
    method: &'a str,
    path: Option<CanonicalPath<'a>>,
    host: Option<CanonicalHost<'a>>,
    headers: &'a dyn Headers,
    speaks: Speaks,
}

/// What one layer says.
struct Said<'t> {
    cause: Cause,
    reason: String,
    route: Option<Arc<RouteTaken>>,
    tls: Option<&'t Arc<TlsOrigin>>,
    by_name: bool,
}

/// Headers of what has none.
static NO_HEADERS: BTreeMap<String, Vec<String>> = BTreeMap::new();

/// Bytes that nobody looked at.
const BYTES: Canonical<'static> = Canonical {
    method: "",
    path: None,
    host: None,
    headers: &NO_HEADERS,
    speaks: Speaks::Tcp,
};

impl Speakers<'_> {
    /// Decides about what is seen of a connection. Same inputs, same answer.
    pub fn decide(&self, seen: &Seen<'_>) -> EgressDecision {
        let mut decision = EgressDecision {
            generation: self.generation,
            to: self.to,
            cause: Cause::Unrestricted,
            network: None,
            reasons: Vec::new(),
            route: None,
            path: None,
            host: None,
            tls: None,
            name: None,
            by_name: false,
            instead: None,
        };
        let read = canonical(seen);
        match &read {
            // A head that can be read in two ways goes nowhere, whoever speaks for the address.
            Err(cause @ Cause::Refused(_)) => {
                decision.cause = cause.clone();
                return decision;
            }
            Err(_) => {}
            Ok(read) => {
                decision.path = read.path.as_ref().map(|path| path.as_str().to_owned());
                let host = read.host.as_ref().filter(|_| read.speaks == Speaks::Http);
                decision.host = host.map(|host| host.text().into_owned());
                let name = read.host.as_ref().map(|host| host.name().to_owned());
                decision.name = name;
            }
        }
        for network in self.networks.iter().flatten() {
            let port = self.to.port();
            let said = match &read {
                _ if network.needs_no_reading(port) => network.judge(&BYTES, port),
                Ok(read) => network.judge(read, port),
                Err(cause) => network.otherwise(cause.clone()),
            };
            decision.take(network, said);
            if decision.verdict() == Verdict::Deny {
                return decision;
            }
        }
        decision.reasons.sort();
        if let Ok(read) = &read {
            self.begin_tls(read, &mut decision);
        }
        decision
    }

    /// If a route of what was allowed begins TLS: what leaves is TLS to that port, and every layer must let out that.
    ///
    /// What leaves so is held to a certificate and to no address. Where the mesh lets a name out to its addresses alone, only
    /// the mesh may say that a certificate does in their place: a namespace would choose who vouches for the server, and
    /// dial whom it likes.
    fn begin_tls(&self, read: &Canonical<'_>, decision: &mut EgressDecision) {
        let mut networks = self.networks.iter().flatten();
        let begins = |network: &&Compiled| network.begins(read, self.to.port()).cloned();
        let Some(origin) = networks.find_map(begins) else {
            return;
        };
        let host = read.host.as_ref().filter(|host| is_dns(host));
        let begins = |network: &Compiled| network.begins(read, self.to.port()).is_some();
        let of_mesh = |network: &&Compiled| network.layer == Layer::Mesh && begins(network);
        let by_mesh = self.networks.iter().flatten().any(of_mesh);
        for network in self.networks.iter().flatten() {
            let own = network.begins(read, self.to.port());
            let tls = Canonical {
                host: host.cloned(),
                speaks: Speaks::Tls,
                ..BYTES
            };
            let there = || network.judge(&tls, origin.port);
            let lets_out = || there().cause == Cause::Granted;
            let bound = || network.judge(read, self.to.port()).by_name || there().by_name;
            let cause = match own {
                Some(_) if host.is_none() => Cause::NoTlsName,
                Some(own) if *own != origin => Cause::TlsDiffers,
                None if !lets_out() => Cause::TlsPort(origin.port),
                None if !by_mesh && bound() => Cause::TlsUnbound,
                Some(_) | None => continue,
            };
            return decision.take(network, network.denied(cause));
        }
        decision.tls = host.map(|host| Origination {
            server_name: host.name().to_owned(),
            origin,
        });
    }
}

impl EgressDecision {
    /// Notes what a layer says; what denies is the only reason.
    fn take(&mut self, network: &Compiled, said: Said<'_>) {
        self.network = Some((network.namespace.clone(), network.name.clone()));
        self.cause = said.cause;
        self.route = said.route;
        self.by_name |= said.by_name;
        if self.verdict() == Verdict::Deny {
            self.reasons.clear();
        }
        self.reasons.push(said.reason);
    }
}

/// Whether a host is a name, and no address.
fn is_dns(host: &CanonicalHost<'_>) -> bool {
    !host.name().starts_with('[') && host.name().parse::<Ipv4Addr>().is_err()
}

/// The canonical form of what is seen, or why it has none.
fn canonical<'a>(seen: &Seen<'a>) -> Result<Canonical<'a>, Cause> {
    let refused = |refusal: Refusal| Cause::Refused(refusal);
    match *seen {
        Seen::Bytes => Ok(BYTES),
        Seen::Tls(name) => {
            let host = name.map(canonical::host).transpose();
            let host = host.map_err(|_| Cause::BadServerName)?;
            if host.as_ref().is_some_and(|host| host.port().is_some()) {
                return Err(Cause::BadServerName);
            }
            Ok(Canonical {
                host,
                speaks: Speaks::Tls,
                ..BYTES
            })
        }
        Seen::Http(head) => {
            let options = PathOptions::default();
            let path = canonical::path(head.target, head.method, options)
                .map_err(|why| refused(why.into()))?;
            canonical::method(head.method).map_err(|why| refused(why.into()))?;
            let host = head.host.map(canonical::host).transpose();
            Ok(Canonical {
                method: head.method,
                path: Some(path),
                host: host.map_err(|why| refused(why.into()))?,
                headers: head.headers,
                speaks: Speaks::Http,
            })
        }
    }
}

impl Canonical<'_> {
    /// The route that takes it. Routes of TLS and TCP are for every path; those of TCP for every host.
    fn chosen<'t>(&self, speaks: Speaks, table: &'t RouteTable) -> Option<Chosen<'t>> {
        let path = self.path.as_ref().filter(|_| speaks == Speaks::Http);
        table.choose(&RouteRequest {
            method: self.method,
            path: path.map_or("/", CanonicalPath::as_str),
            query: path.and_then(CanonicalPath::query),
            host: self.host.as_ref(),
            headers: self.headers,
        })
    }
}

impl Compiled {
    /// What this network says; only its own word counts.
    fn judge(&self, asked: &Canonical<'_>, port: u16) -> Said<'_> {
        if let Some(why) = &self.invalid {
            return self.denied(Cause::InvalidNetwork(why.clone()));
        }
        let Some(CompiledPort {
            speaks,
            table,
            tls,
            bound,
        }) = self.ports.get(&port)
        else {
            return self.otherwise(Cause::Denied);
        };
        // Routes of TCP take whatever comes; the others only what they can judge.
        if *speaks != Speaks::Tcp && *speaks != asked.speaks {
            return self.otherwise(Cause::WrongProtocol(*speaks));
        }
        let Some(chosen) = asked.chosen(*speaks, table) else {
            return self.otherwise(match (speaks, &asked.host) {
                (Speaks::Tls, None) => Cause::NoServerName,
                _ => Cause::NoRoute,
            });
        };
        let route = Some(chosen.taken.clone());
        match chosen.invalid {
            Some(why) => Said {
                route,
                ..self.denied(Cause::InvalidRoute(why.clone()))
            },
            None => Said {
                cause: Cause::Granted,
                reason: route_reason(chosen.taken),
                route,
                tls: tls.get(&chosen.route),
                // A network that allows lets out whatever name is said, so it rests on none.
                by_name: self.traffic == TrafficPolicy::Deny && bound.contains(&chosen.route),
            },
        }
    }

    /// What it says of what no route takes.
    fn otherwise(&self, cause: Cause) -> Said<'_> {
        match self.traffic {
            TrafficPolicy::Allow if self.invalid.is_none() => Said {
                cause: Cause::Granted,
                reason: self.reason("allow"),
                route: None,
                tls: None,
                by_name: false,
            },
            TrafficPolicy::Allow | TrafficPolicy::Deny => self.denied(cause),
        }
    }

    /// TLS that it begins for a request that it lets out.
    fn begins(&self, asked: &Canonical<'_>, port: u16) -> Option<&Arc<TlsOrigin>> {
        if asked.speaks != Speaks::Http || self.needs_no_reading(port) {
            return None;
        }
        self.judge(asked, port).tls
    }

    fn denied(&self, cause: Cause) -> Said<'_> {
        Said {
            cause,
            reason: self.reason("deny"),
            route: None,
            tls: None,
            by_name: false,
        }
    }

    fn reason(&self, says: &str) -> String {
        format!("EgressNetwork/{}/{}/{says}", self.namespace, self.name)
    }
}

fn route_reason(taken: &RouteTaken) -> String {
    let RouteTaken {
        kind,
        namespace,
        name,
        rule,
        ..
    } = taken;
    format!("{kind}/{namespace}/{name}/{rule}")
}
