//! Servers that are gone, open, closed, selecting more, or read in another way.

use super::{Collector, List, valid};
use crate::Mode;
use crate::manifest::resource::{Resources, Selector, Selects, Server};
use mesh_policy::snapshot::ServerProtocol;

const SERVERS: List<Server> = |resources| &mut resources.servers;

pub(super) fn collect(resources: &Resources, out: &mut Collector) {
    for (at, server) in valid(&resources.servers) {
        out.without(server, at, SERVERS);
        let modes: &[Mode] = match server.spec.access {
            Mode::Deny => &[Mode::AllUnauthenticated, Mode::Audit],
            Mode::AllUnauthenticated => &[Mode::AllAuthenticated, Mode::Deny],
            _ => &[Mode::AllUnauthenticated, Mode::Deny],
        };
        for mode in modes {
            let change = format!("with accessPolicy {mode} for {}", server.spec.access);
            out.with(server, at, SERVERS, change, |server| {
                server.spec.access = *mode;
            });
        }
        let other = match server.spec.protocol {
            ServerProtocol::Opaque | ServerProtocol::Tls => ServerProtocol::Http1,
            _ => ServerProtocol::Opaque,
        };
        let name = if other == ServerProtocol::Opaque {
            "opaque"
        } else {
            "HTTP/1"
        };
        let change = format!("with proxyProtocol {name}");
        out.with(server, at, SERVERS, change, move |server| {
            server.spec.protocol = other;
        });
        if let Some(Selects::Pods(selector)) = &server.spec.selects {
            for (change, wider) in wider(selector) {
                let change = format!("with podSelector {change}");
                out.with(server, at, SERVERS, change, move |server| {
                    server.spec.selects = Some(Selects::Pods(wider.clone()));
                });
            }
        }
    }
}

/// Selectors without one of their parts.
pub(super) fn wider(selector: &Selector) -> Vec<(String, Selector)> {
    let labels = selector.labels.iter().map(|(key, value)| {
        let mut wider = selector.clone();
        wider.labels.remove(key);
        (format!("without `{key}: {value}`"), wider)
    });
    let expressions = selector.expressions.iter().enumerate().map(|(at, one)| {
        let mut wider = selector.clone();
        super::take_out(&mut wider.expressions, at);
        (format!("without its expression on `{}`", one.key), wider)
    });
    labels.chain(expressions).collect()
}
