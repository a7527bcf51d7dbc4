//! A small world for tests: one workload, its Servers, routes, grants and clients.

use crate::decide::{Decision, Generation, decide};
use crate::request::{Call, Client, Head};
use crate::snapshot::*;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::collections::BTreeMap;

pub(crate) const PORT: u16 = 8080;

/// When decisions are made: 2026-01-01T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

pub(crate) fn at(line: u32) -> Source {
    Source::File {
        file: "policy.yaml".to_owned(),
        line,
        column: 1,
        end_line: line + 5,
    }
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn account(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
}

pub(crate) fn caller(id: &SpiffeId, ip: &str) -> Client {
    Client {
        id: Some(id.clone()),
        ip: ip.parse().unwrap(),
        tls: true,
        serial: None,
        expires: None,
    }
}

/// A meshed client in namespace `shop`, from 10.0.0.9.
pub(crate) fn meshed(name: &str) -> Client {
    caller(&account(name), "10.0.0.9")
}

pub(crate) fn plaintext(ip: &str) -> Client {
    Client {
        id: None,
        ip: ip.parse().unwrap(),
        tls: false,
        serial: None,
        expires: None,
    }
}

pub(crate) fn anonymous_tls() -> Client {
    Client {
        tls: true,
        ..plaintext("10.0.0.9")
    }
}

pub(crate) fn server(name: &str, protocol: ServerProtocol) -> ServerInfo {
    ServerInfo {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        default: false,
        mode: "deny".to_owned(),
        protocol,
        invalid: None,
        source: at(1),
        shadowed: Vec::new(),
    }
}

pub(crate) fn default_server() -> ServerInfo {
    ServerInfo {
        default: true,
        ..server("default", ServerProtocol::Unknown)
    }
}

pub(crate) fn port_of(server: ServerInfo) -> PortPolicy {
    PortPolicy {
        server,
        routes: Vec::new(),
        probes: Vec::new(),
        grants: Vec::new(),
        rate_limit: None,
        paths: PathOptions::default(),
        l7_limits: false,
        faults: Vec::new(),
    }
}

pub(crate) fn route(name: &str, prefix: &str) -> Route {
    let one = RouteMatch {
        path: PathMatch::Prefix(prefix.to_owned()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    };
    Route {
        kind: "HTTPRoute".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created: None,
        hostnames: Vec::new(),
        rules: vec![RouteRule {
            matches: vec![one],
            filters: Vec::new(),
        }],
        invalid: None,
        source: at(20),
    }
}

pub(crate) fn on_server(name: &str) -> Scope {
    Scope::Server {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn on_route(name: &str) -> Scope {
    Scope::Route {
        kind: "HTTPRoute".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn grant(id: &str, scope: Scope, who: Who) -> Grant {
    Grant {
        id: id.to_owned(),
        effect: Effect::Permit,
        scope,
        who,
        networks: None,
        audit: false,
        term: Term::default(),
        source: at(40),
    }
}

/// A snapshot in the making. Port 8080 has Server `shop/http`; every other port has default policy `deny`.
#[derive(Clone)]
pub(crate) struct World(pub(crate) SnapshotData);

impl World {
    pub(crate) fn new(protocol: ServerProtocol) -> Self {
        Self(SnapshotData {
            generation: Generation(7),
            workload: WorkloadInfo {
                namespace: "shop".to_owned(),
                name: "cart-0".to_owned(),
                owner: None,
                service_account: "cart".to_owned(),
                ips: Vec::new(),
                node_ip: None,
                source: at(1),
            },
            trust_domain: domain("cluster.local"),
            wildcard_domains: Vec::new(),
            ports: BTreeMap::from([(PORT, port_of(server("http", protocol)))]),
            other_ports: port_of(default_server()),
            grants: Vec::new(),
            identity_sets: BTreeMap::new(),
            network_sets: BTreeMap::new(),
            cedar_policies: Vec::new(),
            egress: Vec::new(),
            findings: Vec::new(),
        })
    }

    pub(crate) fn http() -> Self {
        Self::new(ServerProtocol::Http1)
    }

    pub(crate) fn port(mut self, change: impl FnOnce(&mut PortPolicy)) -> Self {
        change(self.0.ports.get_mut(&PORT).unwrap());
        self
    }

    pub(crate) fn route(self, route: Route) -> Self {
        self.port(|port| port.routes.push(route))
    }

    pub(crate) fn identities(mut self, id: &str, members: Vec<IdentityPattern>) -> Self {
        self.0.identity_sets.insert(
            id.to_owned(),
            IdentitySet {
                members,
                source: at(60),
            },
        );
        self
    }

    pub(crate) fn networks(mut self, id: &str, blocks: &[(&str, &[&str])]) -> Self {
        let block = |(cidr, except): &(&str, &[&str])| Network {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let networks = blocks.iter().map(block).collect();
        self.0.network_sets.insert(
            id.to_owned(),
            NetworkSet {
                networks,
                source: at(80),
            },
        );
        self
    }

    /// Adds a grant that every port refers to.
    pub(crate) fn grant(mut self, grant: Grant) -> Self {
        let index = u32::try_from(self.0.grants.len()).unwrap();
        self.0.grants.push(grant);
        self.0
            .ports
            .values_mut()
            .for_each(|port| port.grants.push(index));
        self.0.other_ports.grants.push(index);
        self
    }

    /// Grants Server `shop/http` to the account `web` of namespace `shop`.
    pub(crate) fn web_may(self, id: &str, scope: Scope) -> Self {
        let set = format!("MeshTLSAuthentication/shop/{id}");
        self.identities(&set, vec![IdentityPattern::Exact(account("web"))])
            .grant(grant(
                &format!("AuthorizationPolicy/shop/{id}/0"),
                scope,
                Who::Identities(set),
            ))
    }

    pub(crate) fn probe(mut self, kind: ProbeKind) -> Self {
        self = self.networks("probes", &[("0.0.0.0/0", &[]), ("::/0", &[])]);
        self.port(|port| {
            port.probes.push(Probe {
                kind,
                networks: "probes".to_owned(),
                source: at(90),
            })
        })
    }

    pub(crate) fn compile(&self) -> Snapshot {
        Snapshot::compile(self.0.clone()).unwrap()
    }

    pub(crate) fn get(&self, client: &Client, target: &str) -> Decision {
        self.send(client, "GET", target, false)
    }

    pub(crate) fn send(&self, client: &Client, method: &str, target: &str, grpc: bool) -> Decision {
        let headers = BTreeMap::new();
        let head = Head {
            method,
            target,
            host: Some("cart"),
            grpc,
            headers: &headers,
        };
        decide(&self.compile(), PORT, client, &Call::Http(head), NOW)
    }

    pub(crate) fn tcp(&self, client: &Client) -> Decision {
        decide(&self.compile(), PORT, client, &Call::Tcp, NOW)
    }
}

/// Verdict, phase, status and reasons in one line: `deny permit 403 []`.
pub(crate) fn short(decision: &Decision) -> String {
    let status = decision
        .status
        .map_or("-".to_owned(), |status| status.to_string());
    let status = match decision.grpc_status {
        Some(grpc) => format!("{status}/{grpc}"),
        None => status,
    };
    let reasons = decision.reasons();
    let reasons: Vec<&str> = reasons.iter().map(|reason| &**reason).collect();
    format!(
        "{} {} {status} [{}]",
        word(decision.verdict),
        word(decision.phase),
        reasons.join(" ")
    )
}

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}
