//! Connections of the application that were redirected here on their way out: where they were going tells who must answer.
//!
//! An address is a service's, a pod's, or outside the mesh, where [`egress`] decides. What discovery says is meshed is never spoken to in plaintext;
//! before the first word of discovery nothing leaves at all.

use super::plain::{self, Reason};
use super::{Listener, OUTSIDE, egress, take as take_meshed};
use crate::account::Account;
use crate::config::ServiceName;
use crate::core::Core;
use crate::io::BreakOff;
use crate::limits::{DESTINATION_IDLE, DESTINATIONS_MAX, DISCOVERY_WAIT};
use crate::live::Kill;
use crate::original;
use crate::services::{Behind, PodWay, Services};
use crate::telemetry::Ask;
use mesh_api::discovery::ServicePort;
use mesh_proxy_core::metrics::Failure;
use mesh_proxy_core::redirect;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How often it is looked whether discovery has come.
const DISCOVERY_POLL: Duration = Duration::from_millis(20);

/// Handles one connection from accept to end.
pub(crate) async fn take(core: Rc<Core>, stream: TcpStream, from: SocketAddr) {
    let original = original::destination(&stream);
    let is_here = |ip| core.locals.contain(ip);
    let to = match redirect::outbound(original, &core.own_ports, is_here) {
        Ok(to) => to,
        Err(why) => {
            core.meter.misdirected(why);
            stream.break_off();
            return tracing::info!(%from, to = ?original, why = why.as_str(), "refused a connection that leads nowhere");
        }
    };
    if !discovery_came(&core).await {
        nowhere(&core, &stream, OUTSIDE);
        return tracing::warn!(%to, "reset a connection: nobody has said yet who is in the mesh");
    }
    match way(&core, to) {
        Way::Mesh(listener) => take_meshed(core, listener, stream, from).await,
        Way::Plain {
            name,
            endpoints,
            reason,
        } => plain::pass(&core, stream, &name, &endpoints, (reason, &Kill::default())).await,
        Way::Outside => egress::take(core, Listener::to_outside(to), to, stream, from).await,
        Way::Nowhere { name, why } => {
            nowhere(&core, &stream, &name);
            tracing::warn!(%to, target = name, why, "reset a connection");
        }
    }
}

fn nowhere(core: &Core, stream: &TcpStream, name: &str) {
    let account = Account::stream_out(core, name);
    let measure = core.meter.outbound(name, None, Ask::Tcp).telling(account);
    measure.failed(Failure::NoEndpoint);
    stream.break_off();
}

async fn discovery_came(core: &Core) -> bool {
    let deadline = Instant::now() + DISCOVERY_WAIT;
    while core.shared.discovery.load().version == 0 {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(DISCOVERY_POLL).await;
    }
    true
}

/// How a connection goes on.
enum Way {
    Mesh(Rc<Listener>),
    /// Out of the mesh, if policy lets it.
    Outside,
    Plain {
        name: String,
        endpoints: Vec<SocketAddr>,
        reason: Reason,
    },
    Nowhere {
        name: String,
        why: &'static str,
    },
}

fn way(core: &Core, to: SocketAddr) -> Way {
    let discovery = core.shared.discovery.load();
    match discovery.behind(to) {
        Behind::Service(service) => to_service(core, &discovery, service),
        Behind::NoSuchPort => Way::Nowhere {
            name: OUTSIDE.to_owned(),
            why: "the service at this address has no such port",
        },
        Behind::Pod(pod) => to_pod(core, &discovery, &pod.workload, to),
        Behind::Outside => Way::Outside,
    }
}

fn to_service(core: &Core, discovery: &Services, service: &ServicePort) -> Way {
    let name = ServiceName {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        port: service.port,
    };
    // With routes each request is drawn for, not the connection.
    let drawn = match discovery.routes(service) {
        Some(_) => None,
        None => plain_endpoints(service, core.random.next()),
    };
    match drawn {
        Some(endpoints) => Way::Plain {
            name: name.to_string(),
            endpoints,
            reason: Reason::UnmeshedEndpoint,
        },
        None => Way::Mesh(core.destinations.listener(Destination::Service(name))),
    }
}

fn plain_endpoints(service: &ServicePort, random: u64) -> Option<Vec<SocketAddr>> {
    plain::drawn(&service.unmeshed, service.endpoints.len(), random)
}

fn to_pod(core: &Core, discovery: &Services, workload: &str, to: SocketAddr) -> Way {
    match discovery.pod(to) {
        PodWay::Mesh { .. } => {
            let pod = Destination::Pod(to, workload.to_owned());
            Way::Mesh(core.destinations.listener(pod))
        }
        PodWay::Plain => Way::Plain {
            name: format!("{workload}:{}", to.port()),
            endpoints: vec![to],
            reason: Reason::UnmeshedPod,
        },
        PodWay::Nowhere => Way::Nowhere {
            name: format!("{workload}:{}", to.port()),
            why: "the pod is in the mesh, and discovery does not say where its proxy is",
        },
    }
}

/// What a listener for redirected connections leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Destination {
    Service(ServiceName),
    /// A pod by its address, with its name: an address that went to another pod is another destination (RD10).
    Pod(SocketAddr, String),
}

/// The destinations that one core has in use, so that their balancers and connections live on between connections of the
/// application.
#[derive(Default)]
pub(crate) struct Destinations(RefCell<HashMap<Destination, Used>>);

struct Used {
    listener: Rc<Listener>,
    last: Instant,
}

impl Destinations {
    /// To a service, wherever a request for it came from.
    pub(super) fn service(&self, name: ServiceName) -> Rc<Listener> {
        self.listener(Destination::Service(name))
    }

    fn listener(&self, destination: Destination) -> Rc<Listener> {
        let mut all = self.0.borrow_mut();
        let last = Instant::now();
        if let Some(used) = all.get_mut(&destination) {
            used.last = last;
            return used.listener.clone();
        }
        let listener = match &destination {
            Destination::Service(name) => Listener::to_service(name.clone()),
            Destination::Pod(at, workload) => Listener::to_pod(*at, workload),
        };
        if all.len() < DESTINATIONS_MAX {
            let listener = listener.clone();
            all.insert(destination, Used { listener, last });
        }
        listener
    }

    /// Forgets what nobody uses. Called now and then.
    pub(crate) fn sweep(&self, now_us: u64) {
        let unused = |used: &Used| {
            let quiet_us = now_us.saturating_sub(used.listener.used_us.get());
            Rc::strong_count(&used.listener) == 1
                && used.last.elapsed() > DESTINATION_IDLE
                && Duration::from_micros(quiet_us) > DESTINATION_IDLE
        };
        self.0.borrow_mut().retain(|_, used| !unused(used));
        let all = self.0.borrow();
        all.values().for_each(|used| used.listener.sweep());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(meshed: usize, unmeshed: u8) -> ServicePort {
        let endpoint = r#"{"proxy":"10.0.0.7:15008","port":80,"identity":"spiffe://cluster.local/ns/shop/sa/cart","workload":"cart"}"#;
        let text = format!(
            r#"{{"namespace":"shop","name":"cart","port":80,"protocol":"detect","endpoints":[{}]}}"#,
            vec![endpoint; meshed].join(",")
        );
        let mut service: ServicePort = serde_json::from_str(&text).unwrap();
        service.unmeshed = (0..unmeshed)
            .map(|host| SocketAddr::from(([10, 0, 1, host], 80)))
            .collect();
        service
    }

    #[test]
    fn endpoints_outside_the_mesh_get_their_share_and_no_more() {
        for (meshed, unmeshed, want) in [(3, 1, 25), (1, 1, 50), (0, 2, 100), (4, 0, 0), (0, 0, 0)]
        {
            let service = service(meshed, unmeshed);
            let drawn = (0..100).filter(|random| plain_endpoints(&service, *random).is_some());
            assert_eq!(drawn.count(), want, "{meshed} meshed, {unmeshed} not");
        }
    }

    #[test]
    fn each_endpoint_is_tried_first_in_turn() {
        let service = service(0, 3);
        let first = |random| plain_endpoints(&service, random).unwrap()[0];
        let mut firsts = vec![first(0), first(1), first(2)];
        firsts.sort();
        assert_eq!(firsts, service.unmeshed);
    }

    #[test]
    fn destinations_are_shared_and_bounded() {
        let all = Destinations::default();
        let pod = |n: usize, name: &str| {
            let port = u16::try_from(n + 1).unwrap();
            all.listener(Destination::Pod(
                SocketAddr::from(([10, 0, 0, 1], port)),
                name.to_owned(),
            ))
        };
        let first = pod(0, "a/b");
        assert!(Rc::ptr_eq(&first, &pod(0, "a/b")));
        assert!(!Rc::ptr_eq(&first, &pod(0, "a/c")), "RD10");
        (1..2 * DESTINATIONS_MAX).for_each(|n| drop(pod(n, "a/b")));
        assert_eq!(all.0.borrow().len(), DESTINATIONS_MAX, "RX8");
        let now_us = 600_000_000;
        all.sweep(now_us);
        assert_eq!(all.0.borrow().len(), DESTINATIONS_MAX, "used just now");
        let old = Instant::now().checked_sub(2 * DESTINATION_IDLE).unwrap();
        all.0
            .borrow_mut()
            .values_mut()
            .for_each(|used| used.last = old);
        let backend = all
            .0
            .borrow()
            .values()
            .next()
            .map(|used| used.listener.clone());
        let backend = backend.expect("one");
        backend.used_us.set(now_us);
        let (kept, name) = (Rc::ptr_eq(&backend, &first), backend.name.clone());
        drop(backend);
        all.sweep(now_us);
        let left = all.0.borrow();
        let names: Vec<&String> = left.values().map(|used| &used.listener.name).collect();
        assert_eq!(
            left.len(),
            if kept { 1 } else { 2 },
            "what is held, and what routes send to"
        );
        assert!(names.contains(&&name), "{names:?}");
    }
}
