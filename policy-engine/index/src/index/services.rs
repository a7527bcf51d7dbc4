//! Names to workloads: what a request record means by a pod or a Service, and where Services are.

use super::annotations::OPAQUE_PORTS;
use super::balancing::{self, ReadBalancing};
use super::breaker::Breaker;
use super::workloads::Workload;
use super::{Index, Proxied, WorkloadKey, snapshot, zones};
use crate::manifest::resource::{EndpointSlice, Object, PortRef, Service, ServicePort};
use mesh_policy::request::TargetRecord;
use mesh_policy::traffic::{Balancing, FailureAccrual, ServiceRoute};
use mesh_trust::SpiffeId;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Why a target is no workload. Requests to it are denied (settled reading 16).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum ResolveError {
    /// Neither pod nor Service, or both.
    #[error("the target names {what}")]
    #[diagnostic(
        code("MESH-0386"),
        help("a target names exactly one of `pod` and `service`")
    )]
    Unclear {
        /// What it names.
        what: &'static str,
    },
    /// No such pod.
    #[error("no pod or workload `{name}` in namespace `{namespace}`")]
    #[diagnostic(
        code("MESH-0387"),
        help(
            "`mesh authz explain` reads the manifests that it is given: is the workload among them?"
        )
    )]
    UnknownPod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// No such Service, or an invalid one.
    #[error("no valid Service `{name}` in namespace `{namespace}`")]
    #[diagnostic(
        code("MESH-0388"),
        help("is the Service among the manifests, and valid?")
    )]
    UnknownService {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// The Service has no such port.
    #[error("Service `{namespace}/{name}` has no TCP port {port}")]
    #[diagnostic(
        code("MESH-0389"),
        help("name the port of the Service, not its `targetPort`")
    )]
    UnknownPort {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Port.
        port: u16,
    },
    /// Nothing stands behind the Service.
    #[error("Service `{namespace}/{name}` selects no pod with its target port {port}")]
    #[diagnostic(
        code("MESH-0390"),
        help("compare the selector of the Service with the labels of the pods")
    )]
    NoPods {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Port of the Service.
        port: u16,
    },
}

/// One port of one Service, with what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// The name of the port.
    pub port_name: Option<String>,
    /// Whether clients must send bytes: an opaque-ports annotation, a Server or `appProtocol` says so.
    pub opaque: bool,
    /// `appProtocol` of the port.
    pub app_protocol: Option<String>,
    /// Addresses of the Service itself; none: headless, not of a cluster, or without a selector and without slices. Who stands
    /// behind the last kind nobody here knows, so it must not be taken for one that nobody stands behind.
    pub addresses: Vec<IpAddr>,
    /// Ready pods with an address.
    pub endpoints: Vec<ServiceEndpoint>,
    /// Ready endpoints of slices that are no pods, such as the API server's.
    pub others: Vec<SocketAddr>,
    /// Routes attached to this port, of all namespaces, the oldest first.
    pub routes: Vec<ServiceRoute>,
    /// When endpoints are left out for their answers.
    pub failure_accrual: Option<FailureAccrual>,
    /// How endpoints share requests; `None`: as they do anyway.
    pub balancing: Option<Balancing>,
}

/// One pod behind a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// The pod.
    pub workload: WorkloadKey,
    /// Its address.
    pub ip: IpAddr,
    /// Port of the pod.
    pub port: u16,
    /// Its service account.
    pub service_account: String,
    /// Who must answer there.
    pub identity: SpiffeId,
    /// Whether a proxy stands in front of it. Without one nobody proves anything there.
    pub proxied: bool,
    /// How many shares of the requests it gets.
    pub weight: u32,
    /// Zones whose clients are to use it; none: nobody asked for that, or where it stands is not known.
    pub zones: Vec<String>,
}

/// A pod with an address, whether or not a Service selects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// The pod.
    pub workload: WorkloadKey,
    /// One of its addresses.
    pub ip: IpAddr,
    /// Who must answer there, if a proxy stands in front of it.
    pub identity: Option<SpiffeId>,
}

impl Index {
    /// The workloads, each with its port, that a target means, sorted.
    ///
    /// # Errors
    /// [`ResolveError`] if it means none.
    pub fn resolve(&self, target: &TargetRecord) -> Result<Vec<(WorkloadKey, u16)>, ResolveError> {
        let found = self.find(target)?;
        Ok(found
            .into_iter()
            .filter_map(|(at, port)| Some((self.workloads.get(at)?.key.clone(), port)))
            .collect())
    }

    /// As [`Index::resolve`], by place among the workloads.
    pub(crate) fn find(&self, target: &TargetRecord) -> Result<Vec<(usize, u16)>, ResolveError> {
        match (&target.pod, &target.service) {
            (Some(pod), None) => self.find_pod(&target.namespace, pod, target.port),
            (None, Some(service)) => self.find_service(&target.namespace, service, target.port),
            (None, None) => Err(ResolveError::Unclear {
                what: "neither pod nor Service",
            }),
            (Some(_), Some(_)) => Err(ResolveError::Unclear {
                what: "both a pod and a Service",
            }),
        }
    }

    fn find_pod(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<Vec<(usize, u16)>, ResolveError> {
        let key = WorkloadKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let owner = crate::manifest::resource::Key::new(namespace, name);
        let named = self.by_key.get(&key).map(std::slice::from_ref);
        let found = named
            .or_else(|| self.by_owner.get(&owner).map(Vec::as_slice))
            .unwrap_or_default();
        if found.is_empty() {
            return Err(ResolveError::UnknownPod {
                namespace: key.namespace,
                name: key.name,
            });
        }
        Ok(found.iter().map(|at| (*at, port)).collect())
    }

    fn find_service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<Vec<(usize, u16)>, ResolveError> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let at = self
            .services
            .get(&crate::manifest::resource::Key::new(&namespace, &name));
        let service = at
            .and_then(|at| self.resources.services.get(*at))
            .filter(|s| s.invalid.is_none());
        let Some(service) = service else {
            return Err(ResolveError::UnknownService { namespace, name });
        };
        let Some(service_port) = service.spec.ports.iter().find(|p| p.port == port) else {
            return Err(ResolveError::UnknownPort {
                namespace,
                name,
                port,
            });
        };
        let found = self.behind(service, service_port);
        if found.is_empty() {
            return Err(ResolveError::NoPods {
                namespace,
                name,
                port,
            });
        }
        Ok(found)
    }

    /// Workloads behind a Service port, ready or not.
    fn behind(&self, service: &Object<Service>, port: &ServicePort) -> Vec<(usize, u16)> {
        let Some(selector) = &service.spec.selector else {
            let listed = self.listed(service, port);
            return listed
                .filter_map(|(ip, port)| Some((self.pod_at(ip)?, port)))
                .collect();
        };
        let near = self
            .by_namespace
            .get(&service.key.namespace)
            .into_iter()
            .flatten();
        let near = near.filter_map(|at| Some((*at, self.workloads.get(*at)?)));
        let selected =
            near.filter(|(_, w)| selector.iter().all(|(k, v)| w.labels.get(k) == Some(v)));
        selected
            .filter_map(|(at, w)| Some((at, target_port(w, &port.target)?)))
            .collect()
    }

    /// Where slices say that a Service port without selector is.
    fn listed<'i>(
        &'i self,
        service: &'i Object<Service>,
        port: &'i ServicePort,
    ) -> impl Iterator<Item = (IpAddr, u16)> + 'i {
        let ready = self.slices_of(service).flat_map(|slice| {
            let ports = slice.spec.ports.iter().filter(|one| one.name == port.name);
            ports.flat_map(|at| slice.spec.ready.iter().map(|one| (one.ip, at.port)))
        });
        let distinct: BTreeSet<(IpAddr, u16)> = ready.collect();
        distinct.into_iter()
    }

    /// The valid slices of a Service without selector. With one, its pods say the same sooner.
    pub(super) fn slices_of<'i>(
        &'i self,
        service: &'i Object<Service>,
    ) -> impl Iterator<Item = &'i Object<EndpointSlice>> {
        let slices = self.endpoint_slices.get(&service.key);
        let slices = slices.filter(|_| service.spec.selector.is_none());
        let slices = slices.into_iter().flatten();
        slices
            .filter_map(|at| self.resources.endpoint_slices.get(*at).map(AsRef::as_ref))
            .filter(|slice| slice.invalid.is_none())
    }

    /// The pod that has this address for itself.
    fn pod_at(&self, ip: IpAddr) -> Option<usize> {
        self.by_address.get(&ip).copied()
    }

    /// Every port of every valid Service with its ready pods, sorted by namespace, name and port.
    pub fn services(&self) -> Vec<ServiceEndpoints> {
        let mut out: Vec<ServiceEndpoints> = Vec::new();
        for service in self
            .resources
            .services
            .iter()
            .filter(|s| s.invalid.is_none())
        {
            let ports = service.spec.ports.iter();
            out.extend(ports.map(|port| self.endpoints(service, port)));
        }
        out.sort_by(|a, b| (&a.namespace, &a.name, a.port).cmp(&(&b.namespace, &b.name, b.port)));
        out
    }

    /// Every address of every pod that has not ended, sorted. Two pods never share one, but those in the network of their
    /// node do: they stand for their node, and are left out.
    pub fn pods(&self) -> Vec<PodAddress> {
        let mut out = Vec::new();
        for workload in self.workloads.iter().filter(|w| w.kind == "Pod") {
            let info = &workload.info;
            let identity = SpiffeId::for_service_account(
                &self.config.trust_domain,
                &info.namespace,
                &info.service_account,
            );
            let proxied = self.is_proxied(workload);
            for ip in info
                .ips
                .iter()
                .filter(|ip| !workload.pod.host_ips.contains(ip))
            {
                out.push(PodAddress {
                    workload: workload.key.clone(),
                    ip: *ip,
                    identity: identity.clone().ok().filter(|_| proxied),
                });
            }
        }
        out.sort_by(|a, b| (a.ip, &a.workload).cmp(&(b.ip, &b.workload)));
        out
    }

    fn is_proxied(&self, workload: &Workload) -> bool {
        match self.config.proxied {
            Proxied::All => true,
            Proxied::WithContainer => workload.pod.has_proxy,
        }
    }

    fn endpoints(&self, service: &Object<Service>, port: &ServicePort) -> ServiceEndpoints {
        let mut opaque = opaque_by_annotation(service, port) || opaque_by_app_protocol(port);
        let mut endpoints = Vec::new();
        let listed_zones = self.listed_zones(service);
        let stays = zones::stays(service).unwrap_or(false);
        for (at, target) in self.behind(service, port) {
            let Some(workload) = self.workloads.get(at) else {
                continue;
            };
            opaque |= self.is_opaque(workload, target);
            let ready = workload.kind == "Pod" && workload.pod.ready && workload.invalid.is_none();
            let info = &workload.info;
            let id = SpiffeId::for_service_account(
                &self.config.trust_domain,
                &info.namespace,
                &info.service_account,
            );
            if let (true, Some(ip), Ok(identity)) = (ready, info.ips.first(), id) {
                endpoints.push(ServiceEndpoint {
                    workload: workload.key.clone(),
                    ip: *ip,
                    port: target,
                    service_account: info.service_account.clone(),
                    identity,
                    proxied: self.is_proxied(workload),
                    weight: balancing::weight(&workload.labels).unwrap_or(1),
                    zones: match service.spec.selector {
                        None => listed_zones.get(ip).cloned().unwrap_or_default(),
                        Some(_) => {
                            let own = self.zone_of(workload).filter(|_| stays);
                            own.map(str::to_owned).into_iter().collect()
                        }
                    },
                });
            }
        }
        let known = service.spec.selector.is_some() || self.slices_of(service).next().is_some();
        let listed = self.listed(service, port);
        let others = listed
            .filter(|(ip, _)| self.pod_at(*ip).is_none())
            .map(|(ip, port)| SocketAddr::new(ip, port))
            .collect();
        ServiceEndpoints {
            namespace: service.key.namespace.clone(),
            name: service.key.name.clone(),
            port: port.port,
            port_name: port.name.clone(),
            opaque,
            app_protocol: port.app_protocol.clone(),
            addresses: match known {
                true => service.spec.addresses.clone(),
                false => Vec::new(),
            },
            endpoints,
            others,
            routes: self.routes_of(service, port),
            failure_accrual: Breaker::of(&service.annotations).accrual,
            balancing: ReadBalancing::of(&service.annotations).balancing,
        }
    }

    /// Whether a port of a workload takes bytes: its Server says so, or without Server its annotation.
    fn is_opaque(&self, workload: &Workload, port: u16) -> bool {
        let claims = snapshot::claims(self, workload);
        match claims.get(&port).and_then(|c| c.first()) {
            Some(server) => server.spec.protocol.carries_bytes(),
            None => workload.opaque.contains(port),
        }
    }
}

/// Where a Service port leads on a workload.
fn target_port(workload: &Workload, target: &PortRef) -> Option<u16> {
    match target {
        PortRef::Number(number) => Some(*number),
        PortRef::Name(_) => workload.ports_of(target).first().copied(),
    }
}

fn opaque_by_annotation(service: &Object<Service>, port: &ServicePort) -> bool {
    OPAQUE_PORTS.said(&service.annotations).is_some_and(|said| {
        let set = super::ports::PortSet::parse(said.value, &[]);
        let named = port
            .name
            .as_ref()
            .is_some_and(|name| set.unreadable.contains(name));
        let target = matches!(port.target, PortRef::Number(target) if set.ports.contains(&target));
        named || target || set.ports.contains(&port.port)
    })
}

fn opaque_by_app_protocol(port: &ServicePort) -> bool {
    matches!(
        port.app_protocol.as_deref(),
        Some("linkerd.io/opaque" | "linkerd.io/tcp" | "https" | "tls" | "tcp")
    )
}
