//! Discovery as it is looked up: services by name and by address, their routes, pods by address.

use mesh_api::discovery::{Discovery, Endpoint, PodAddress, ProtocolHint, ServicePort};
use mesh_api::slices::Slices;
use mesh_proxy_core::route::ServiceRoutes;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// All that discovery said last. Services and pods are where [`Slices`] keep them; beside these is only what is looked up in
/// other ways.
#[derive(Default)]
pub(crate) struct Services {
    /// Counts changes; 0 before the first word.
    pub(crate) version: u64,
    pub(crate) slices: Slices,
    /// The zone of this proxy, if it is known.
    pub(crate) zone: Option<String>,
    /// Routes of services that have some which this workload follows, compiled.
    routes: HashMap<Name, Arc<ServiceRoutes>>,
    by_address: HashMap<SocketAddr, Name>,
    /// Addresses of services, whatever their ports.
    addresses: HashSet<IpAddr>,
    /// Proxy and port of endpoints that take bytes.
    opaque: HashSet<(SocketAddr, u16)>,
}

/// Namespace, name and port.
type Name = (String, String, u16);

/// What stands behind an address that an application dialled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Behind<'a> {
    /// A port of a Service.
    Service(&'a ServicePort),
    /// A Service, which has no such port.
    NoSuchPort,
    /// A pod.
    Pod(&'a PodAddress),
    /// Nobody that discovery knows.
    Outside,
}

/// How a pod is reached at one of its ports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PodWay {
    /// Through its proxy, which must have this identity; `opaque`: without detection.
    Mesh { endpoint: Endpoint, opaque: bool },
    /// In plaintext: it is outside the mesh.
    Plain,
    /// Not at all: it is in the mesh, and where its proxy is nobody knows.
    Nowhere,
}

impl Services {
    pub(crate) fn new(version: u64, slices: Slices, zone: Option<String>) -> Self {
        let mut all = Self {
            version,
            slices,
            zone,
            routes: HashMap::new(),
            by_address: HashMap::new(),
            addresses: HashSet::new(),
            opaque: HashSet::new(),
        };
        for service in all.slices.services() {
            for address in &service.addresses {
                let ip = address.to_canonical();
                all.addresses.insert(ip);
                // Addresses are given out once; were one said twice, the first by name has it.
                let name = name_of(service);
                let at = SocketAddr::new(ip, service.port);
                let known = all.by_address.entry(at).or_insert_with(|| name.clone());
                if name < *known {
                    *known = name;
                }
            }
            if service.protocol == ProtocolHint::Opaque {
                let endpoints = service.endpoints.iter();
                all.opaque
                    .extend(endpoints.map(|endpoint| (endpoint.proxy, endpoint.port)));
            }
        }
        all
    }

    /// All of it, as the admin socket tells it.
    pub(crate) fn discovery(&self) -> Discovery {
        Discovery {
            zone: self.zone.clone(),
            ..self.slices.discovery()
        }
    }

    /// Compiles the routes that clients in `client` follow. What `before` compiled of equal routes stays as it is, so that
    /// whoever uses it sees no change.
    pub(crate) fn with_routes(mut self, client: &str, before: &Self) -> Self {
        let routed = self.slices.services();
        for service in routed.filter(|service| !service.routes.is_empty()) {
            let name = name_of(service);
            let same = before.get(&name.0, &name.1, name.2);
            let same = same.is_some_and(|before| before.routes == service.routes);
            let compiled = match before.routes.get(&name).filter(|_| same) {
                Some(compiled) => Some(compiled.clone()),
                None => ServiceRoutes::compile(&service.routes, &name.0, client).map(Arc::new),
            };
            let Some(compiled) = compiled else { continue };
            if !same {
                for (rule, why) in compiled.unusable() {
                    tracing::warn!(route = %rule.route, rule = rule.number, why, "a rule cannot be applied: its requests fail");
                }
            }
            self.routes.insert(name, compiled);
        }
        self
    }

    /// The routes that this workload follows to a service; `None`: straight to its endpoints.
    pub(crate) fn routes(&self, service: &ServicePort) -> Option<&Arc<ServiceRoutes>> {
        if service.routes.is_empty() {
            return None;
        }
        self.routes.get(&name_of(service))
    }

    pub(crate) fn get(&self, namespace: &str, name: &str, port: u16) -> Option<&ServicePort> {
        self.slices.service(namespace, name, port)
    }

    /// The endpoints of a service that are for clients in this proxy's zone; none: it does not ask for that, or nobody knows
    /// the zone.
    pub(crate) fn near(&self, service: &ServicePort) -> HashSet<Endpoint> {
        let Some(own) = &self.zone else {
            return HashSet::new();
        };
        let pairs = service.endpoints.iter().zip(&service.zones);
        let near = pairs.filter(|(_, zones)| zones.contains(own));
        near.map(|(endpoint, _)| endpoint.clone()).collect()
    }

    /// What stands behind `to`, a canonical address.
    pub(crate) fn behind(&self, to: SocketAddr) -> Behind<'_> {
        let service = self.by_address.get(&to);
        let service = service.and_then(|(namespace, name, port)| self.get(namespace, name, *port));
        if let Some(service) = service {
            return Behind::Service(service);
        }
        if self.addresses.contains(&to.ip()) {
            return Behind::NoSuchPort;
        }
        match self.slices.pod(to.ip()) {
            Some(pod) => Behind::Pod(pod),
            None => Behind::Outside,
        }
    }

    /// How the pod at `to` is reached. A pod that discovery forgot meanwhile is nowhere.
    pub(crate) fn pod(&self, to: SocketAddr) -> PodWay {
        let Some(pod) = self.slices.pod(to.ip()) else {
            return PodWay::Nowhere;
        };
        match (&pod.identity, pod.proxy) {
            (Some(identity), Some(proxy)) => PodWay::Mesh {
                endpoint: Endpoint {
                    proxy,
                    port: to.port(),
                    identity: identity.clone(),
                    workload: pod.workload.clone(),
                },
                opaque: self.opaque.contains(&(proxy, to.port())),
            },
            (None, None) => PodWay::Plain,
            _ => PodWay::Nowhere,
        }
    }
}

fn name_of(service: &ServicePort) -> Name {
    let (namespace, name) = (service.namespace.clone(), service.name.clone());
    (namespace, name, service.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/db";

    fn known_as(version: u64, data: Discovery) -> Services {
        let zone = data.zone.clone();
        Services::new(version, data.into(), zone)
    }

    fn known() -> Services {
        let text = format!(
            r#"{{"services":[
            {{"namespace":"shop","name":"db","port":5432,"protocol":"opaque","addresses":["10.96.0.7","fd00:96::7"],
              "endpoints":[{{"proxy":"10.0.0.7:15008","port":5432,"identity":"{ID}","workload":"db-0"}}]}},
            {{"namespace":"web","name":"db","port":5432,"protocol":"detect","addresses":["::ffff:10.96.0.7"],"endpoints":[]}}],
            "pods":[{{"ip":"10.0.0.7","workload":"shop/db-0","identity":"{ID}","proxy":"10.0.0.7:15008"}},
            {{"ip":"10.0.0.8","workload":"shop/old"}},
            {{"ip":"10.0.0.9","workload":"shop/starting","identity":"{ID}"}},
            {{"ip":"10.0.0.10","workload":"shop/odd","proxy":"10.0.0.10:15008"}},
            {{"ip":"10.0.0.11","workload":"shop/gone"}},
            {{"ip":"10.0.0.11","workload":"shop/new","identity":"{ID}","proxy":"10.0.0.11:15008"}}]}}"#
        );
        known_as(1, serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn routes_are_compiled_once_and_for_those_who_follow_them() {
        let routed = |weight: u32| -> Discovery {
            let text = format!(
                r#"{{"services":[{{"namespace":"shop","name":"cart","port":80,"protocol":"detect","endpoints":[],
                "routes":[{{"kind":"HTTPRoute","namespace":"web","name":"mine","created":null,"source":{{"builtIn":"test"}},
                "rules":[{{"matches":[{{"path":{{"prefix":"/"}},"method":null,"headers":[],"query":[]}}],
                "backends":[{{"namespace":"shop","name":"cart","port":80,"weight":{weight}}}]}}]}}]}}]}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let before = Services::default();
        let first = known_as(1, routed(1)).with_routes("web", &before);
        let service = |all: &Services| all.get("shop", "cart", 80).unwrap().clone();
        let of = |all: &Services| all.routes(&service(all)).cloned();
        let compiled = of(&first).unwrap();
        let again = known_as(2, routed(1)).with_routes("web", &first);
        assert!(Arc::ptr_eq(&compiled, &of(&again).unwrap()), "unchanged");
        let changed = known_as(3, routed(2)).with_routes("web", &again);
        assert!(!Arc::ptr_eq(&compiled, &of(&changed).unwrap()), "changed");
        let another = known_as(1, routed(1)).with_routes("orders", &before);
        assert!(
            of(&another).is_none(),
            "routes of another namespace's clients"
        );
    }

    #[test]
    fn near_is_what_is_for_the_own_zone() {
        let of = |zone: Option<&str>, zones: &str| -> Vec<String> {
            let endpoint = |at: u8| {
                format!(
                    r#"{{"proxy":"10.0.0.{at}:15008","port":80,"identity":"{ID}","workload":"db-{at}"}}"#
                )
            };
            let text = format!(
                r#"{{"services":[{{"namespace":"shop","name":"cart","port":80,"protocol":"detect",
                "endpoints":[{},{},{}]{zones}}}],"zone":{}}}"#,
                endpoint(1),
                endpoint(2),
                endpoint(3),
                serde_json::to_string(&zone).unwrap()
            );
            let data = serde_json::from_str(&text).unwrap();
            let known = known_as(1, data);
            let near = known.near(known.get("shop", "cart", 80).unwrap());
            let mut names: Vec<String> = near.into_iter().map(|one| one.workload).collect();
            names.sort();
            names
        };
        let zones = r#","zones":[["a"],["b"],["b","a"]]"#;
        assert_eq!(of(Some("a"), zones), ["db-1", "db-3"]);
        assert_eq!(of(Some("b"), zones), ["db-2", "db-3"]);
        assert_eq!(of(Some("c"), zones), [""; 0], "a zone without endpoints");
        assert_eq!(of(None, zones), [""; 0], "nobody knows the zone");
        assert_eq!(of(Some("a"), ""), [""; 0], "nobody asked for it");
    }

    #[test]
    fn an_address_is_a_service_a_pod_or_outside() {
        let known = known();
        for (to, want) in [
            ("10.96.0.7:5432", "shop/db"),
            ("[fd00:96::7]:5432", "shop/db"),
            ("10.96.0.7:5433", "no such port"),
            ("10.0.0.7:5432", "shop/db-0"),
            ("10.0.0.8:80", "shop/old"),
            ("10.0.0.99:80", "outside"),
            ("[::ffff:10.96.0.7]:5432", "outside"), // callers make it canonical
        ] {
            let found = match known.behind(to.parse().unwrap()) {
                Behind::Service(service) => format!("{}/{}", service.namespace, service.name),
                Behind::NoSuchPort => "no such port".to_owned(),
                Behind::Pod(pod) => pod.workload.clone(),
                Behind::Outside => "outside".to_owned(),
            };
            assert_eq!(found, want, "{to}");
        }
    }

    #[test]
    fn only_a_pod_outside_the_mesh_is_spoken_to_in_plaintext() {
        let known = known();
        let way = |to: &str| known.pod(to.parse().unwrap());
        let mesh = |to: &str, want: bool| match way(to) {
            PodWay::Mesh { endpoint, opaque } => {
                assert_eq!(endpoint.identity.as_str(), ID, "{to}");
                assert_eq!(opaque, want, "{to}");
            }
            other => panic!("{to}: {other:?}"),
        };
        mesh("10.0.0.7:5432", true);
        mesh("10.0.0.7:9187", false);
        mesh("10.0.0.11:80", false);
        assert_eq!(way("10.0.0.8:80"), PodWay::Plain);
        assert_eq!(way("10.0.0.9:80"), PodWay::Nowhere, "no proxy");
        assert_eq!(way("10.0.0.10:80"), PodWay::Nowhere, "no identity");
        assert_eq!(way("10.0.0.99:80"), PodWay::Nowhere, "forgotten");
    }
}
