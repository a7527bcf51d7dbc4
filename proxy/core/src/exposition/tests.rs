//! What is written is read back, and nothing else is.

use super::*;
use crate::metrics::routes::{RouteKey, Routed};
use crate::metrics::{AuthzKey, Denied, Direction, EdgeHandle, EdgeKey, Failure};
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use proptest::prelude::*;

const PEER: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn edge(registry: &mut Registry, direction: Direction, peer: &str) -> EdgeHandle {
    registry.edge(&EdgeKey {
        direction,
        peer: peer.into(),
        target: "shop/cart:8080".into(),
        protocol: Protocol::Http,
    })
}

fn registry() -> Registry {
    let mut registry = Registry::new("shop/cart");
    let inbound = edge(&mut registry, Direction::Inbound, PEER);
    for (status, duration) in [(200, 120), (200, 180), (404, 90), (503, 5_000)] {
        registry.on_allowed(inbound);
        registry.on_answer(inbound, status, duration);
    }
    registry.on_failed(inbound, Failure::Application);
    registry.on_denied(
        inbound,
        Denied {
            phase: Phase::Permit,
            status: Some(403),
            grpc_status: None,
            reason: "no-grant",
        },
    );
    registry.on_open(inbound);
    registry.on_authz(&AuthzKey {
        http: true,
        verdict: Verdict::Allow,
        port: 8080,
        tls: true,
        client: Some(PEER.into()),
        default: false,
        server_namespace: "shop".into(),
        server_name: "cart-http".into(),
        grant: Some("AuthorizationPolicy/shop/web-to-cart/0".into()),
    });
    registry.on_authz(&AuthzKey {
        http: false,
        verdict: Verdict::Deny,
        port: 9000,
        tls: false,
        client: None,
        default: true,
        server_namespace: "shop".into(),
        server_name: "default".into(),
        grant: None,
    });
    registry.count_by("mesh_detections_total", "result", "http1", 3);
    registry.set_gauge("mesh_policy_generation", 7.0);
    registry
}

#[test]
fn lines_that_no_proxy_writes_are_refused_with_their_number() {
    for line in [
        "x",
        "1x 2",
        "x{a=\"b\"",
        "x{a=\"b\" 1",
        "x{a=b} 1",
        "x{a=\"\\q\"} 1",
        "x{a=\"b\"}1",
        "x one",
        "x 1 2 3",
        "x 1 now",
        "x{=\"a\"} 1",
        "x{a=\"1\",a=\"2\"} 1",
        "x{a=\"1\"b=\"2\"} 1",
        "{a=\"1\"} 1",
        "x{a=\"b\"} ",
    ] {
        let text = format!("# comment\nok 1\n{line}\n");
        assert!(
            matches!(parse(&text), Err(ExpositionError::Line { line: 3, .. })),
            "{line}: {:?}",
            parse(&text)
        );
    }
}

#[test]
fn endless_metrics_are_cut_off() {
    let text = "x 1\n".repeat(read::SAMPLES_MAX + 1);
    assert_eq!(
        parse(&text),
        Err(ExpositionError::TooMany {
            max: read::SAMPLES_MAX
        })
    );
}

#[test]
fn a_label_cannot_forge_a_line() {
    let mut registry = Registry::new("shop/cart");
    let hostile = "x\"} 1\nmesh_allowed_total{peer=\"boss\\";
    let edge = edge(&mut registry, Direction::Inbound, hostile);
    registry.on_allowed(edge);
    let samples = parse(&render(&registry)).unwrap();
    assert!(
        samples.iter().all(|sample| sample.label("peer") == hostile),
        "{samples:?}"
    );
}

#[test]
fn requests_that_took_a_route_are_read_back() {
    let mut registry = registry();
    let key = RouteKey {
        service: "shop/cart:80".into(),
        route: "HTTPRoute/shop/canary".into(),
        rule: 1,
        backend: "shop/cart-v2:80".into(),
    };
    for status in [Some(200), Some(204), Some(503), None] {
        let routed = Routed {
            status,
            retries: 3,
            timeouts: 1,
            duration_us: status.map(|_| 700),
        };
        registry.on_routed(&key, routed);
    }
    let samples = parse(&render(&registry)).unwrap();
    let value = |name: &str, class: &str| {
        let found = samples.iter().find(|sample| {
            sample.name == name
                && sample.label("service") == "shop/cart:80"
                && sample.label("route") == "HTTPRoute/shop/canary"
                && sample.label("rule") == "1"
                && sample.label("backend") == "shop/cart-v2:80"
                && sample.label("class") == class
        });
        found.map(|sample| sample.value)
    };
    let requests = |class| value("mesh_route_requests_total", class);
    assert_eq!(
        (
            requests("2xx"),
            requests("5xx"),
            requests("0xx"),
            requests("4xx")
        ),
        (Some(2.0), Some(1.0), Some(1.0), None)
    );
    assert_eq!(value("mesh_route_retries_total", ""), Some(12.0));
    assert_eq!(value("mesh_route_timeouts_total", ""), Some(4.0));
    assert_eq!(value("mesh_route_duration_seconds_count", ""), Some(3.0));
}

#[test]
fn what_was_counted_is_read_back() {
    let text = render(&registry());
    let edges = edges(&parse(&text).unwrap());
    assert_eq!(edges.len(), 1);
    let edge = &edges[0];
    assert_eq!(
        (
            edge.workload.as_str(),
            edge.direction.as_str(),
            edge.peer.as_str()
        ),
        ("shop/cart", "inbound", PEER)
    );
    assert_eq!(
        (edge.requests, edge.allowed, edge.failed, edge.open),
        (5, 4, 1, 1)
    );
    assert_eq!(
        edge.denied,
        [("permit".to_owned(), Some(403), "no-grant".to_owned(), 1)]
    );
    assert_eq!((edge.duration.count(), edge.duration.sum_us()), (4, 5_390));
    assert_eq!(
        edge.duration.quantile_us(0.5),
        registry().edges()[0].1.duration.quantile_us(0.5)
    );
}

#[test]
fn names_and_labels_are_those_that_dashboards_know() {
    let text = render(&registry());
    for line in [
        "# TYPE http_server_request_duration_seconds histogram",
        "inbound_http_authz_allow_total{target_port=\"8080\",tls=\"true\",client_id=\"spiffe://cluster.local/ns/shop/sa/web\",srv_group=\"policy.linkerd.io\",srv_kind=\"server\",srv_namespace=\"shop\",srv_name=\"cart-http\",srv_port=\"8080\",authz_group=\"policy.linkerd.io\",authz_kind=\"AuthorizationPolicy\",authz_namespace=\"shop\",authz_name=\"web-to-cart\"} 1",
        "inbound_tcp_authz_deny_total{target_port=\"9000\",tls=\"false\",client_id=\"\",srv_group=\"\",srv_kind=\"default\",srv_namespace=\"shop\",srv_name=\"default\",srv_port=\"9000\"} 1",
        "mesh_detections_total{result=\"http1\"} 3",
        "mesh_policy_generation 7",
    ] {
        assert!(
            text.lines().any(|written| written == line),
            "{line}\nin\n{text}"
        );
    }
    assert!(text.contains("le=\"0.00015\"} 2\n"), "{text}");
}

#[test]
fn each_family_is_described_once() {
    let text = render(&registry());
    let mut types: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let all = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), all, "{text}");
}

proptest! {
    #[test]
    fn any_label_survives_the_round_trip(peer in "[ -~\n\\\\\"äß]{0,40}") {
        let mut registry = Registry::new("shop/cart");
        edge(&mut registry, Direction::Outbound, &peer);
        let samples = parse(&render(&registry)).unwrap();
        prop_assert!(samples.iter().all(|sample| sample.label("peer") == peer));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text).map(|samples| edges(&samples));
    }
}
