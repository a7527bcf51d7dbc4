//! Bounds on series, and merging of cores.

use super::*;

fn key(peer: &str) -> EdgeKey {
    let (peer, target) = (peer.into(), "shop/cart:8080".into());
    EdgeKey {
        direction: Direction::Inbound,
        peer,
        target,
        protocol: Protocol::Http,
    }
}

fn denied(reason: &str) -> Denied<'_> {
    Denied {
        phase: Phase::Permit,
        status: Some(403),
        grpc_status: None,
        reason,
    }
}

#[test]
fn made_up_peers_do_not_become_series_without_bound() {
    let mut registry = Registry::bounded("shop/cart", 10);
    for n in 0..1_000 {
        let edge = registry.edge(&key(&format!("peer-{n}")));
        registry.on_denied(edge, denied("no-grant"));
    }
    assert_eq!(registry.edges().len(), 11, "ten and `other`");
    let other = registry
        .edges()
        .into_iter()
        .find(|(key, _)| &*key.peer == OTHER)
        .unwrap()
        .1;
    assert_eq!(other.denied_total(), 990, "counted all the same");
}

#[test]
fn made_up_reasons_do_not_become_series_without_bound() {
    let mut registry = Registry::new("shop/cart");
    let edge = registry.edge(&key("a"));
    (0..1_000).for_each(|n| registry.on_denied(edge, denied(&format!("reason-{n}"))));
    let series = registry.edges()[0].1;
    assert!(series.denied.len() <= DENIALS_MAX + 1);
    assert_eq!(series.denied_total(), 1_000);
}

#[test]
fn made_up_clients_do_not_become_authz_series_without_bound() {
    let mut registry = Registry::new("shop/cart");
    for n in 0..AUTHZ_MAX + 500 {
        registry.on_authz(&AuthzKey {
            http: true,
            verdict: Verdict::Deny,
            port: 8080,
            tls: true,
            client: Some(format!("spiffe://x/{n}").into()),
            default: false,
            server_namespace: "shop".into(),
            server_name: "cart".into(),
            grant: None,
        });
    }
    assert_eq!(registry.authz().count(), AUTHZ_MAX + 1);
    assert_eq!(
        registry.authz().map(|(_, count)| count).sum::<u64>(),
        (AUTHZ_MAX + 500) as u64
    );
}

#[test]
fn a_handle_of_another_registry_changes_nothing() {
    let mut one = Registry::new("shop/cart");
    one.edge(&key("a"));
    let second = one.edge(&key("b"));
    let mut two = Registry::new("shop/cart");
    two.on_answer(second, 200, 1);
    assert!(two.edges().is_empty());
}

#[test]
fn merging_cores_adds_everything() {
    let mut cores = [Registry::new("shop/cart"), Registry::new("shop/cart")];
    for (n, core) in cores.iter_mut().enumerate() {
        core.edge(&key(&format!("only-{n}")));
        let edge = core.edge(&key("both"));
        core.on_open(edge);
        core.on_allowed(edge);
        core.on_answer(edge, 200, 100);
        core.on_denied(edge, denied("no-grant"));
        core.on_failed(edge, Failure::Reset);
        core.on_close(edge, 3, 4);
        core.count("mesh_handshakes_total", 2);
        core.set_gauge("mesh_generation", n as f64);
    }
    let mut all = Registry::new("shop/cart");
    cores.iter().for_each(|core| all.merge(core));
    let (_, both) = all
        .edges()
        .into_iter()
        .find(|(key, _)| &*key.peer == "both")
        .unwrap();
    assert_eq!(
        (
            both.requests,
            both.allowed,
            both.denied_total(),
            both.failed_total()
        ),
        (4, 2, 2, 2)
    );
    assert_eq!(
        (both.answers, both.open, both.bytes_in, both.bytes_out),
        ([0, 0, 2, 0, 0, 0], 0, 6, 8)
    );
    assert_eq!((both.duration.count(), all.edges().len()), (2, 3));
    assert_eq!(
        all.counters().next(),
        Some(("mesh_handshakes_total", None, 4))
    );
    assert_eq!(all.gauges().next(), Some(("mesh_generation", 1.0)));
}
