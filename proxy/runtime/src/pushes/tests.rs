//! What is pushed is what `/metrics` says, each series once; and when the next push comes.

use super::*;
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use mesh_proxy_core::exposition::{Sample, parse, render};
use mesh_proxy_core::metrics::routes::{RouteKey, Routed};
use mesh_proxy_core::metrics::shadow::ShadowKey;
use mesh_proxy_core::metrics::{AuthzKey, Denied, Direction, EdgeKey, Failure};
use std::collections::BTreeMap;

const SINCE: i64 = 1_700_000_000;

/// Something of everything that is counted, with labels that need care.
fn registry(edges: usize) -> Registry {
    let mut all = Registry::new("shop/cart");
    for number in 0..edges {
        let edge = all.edge(&EdgeKey {
            direction: [Direction::Inbound, Direction::Outbound][number % 2],
            peer: format!("spiffe://cluster.local/ns/shop/sa/\"{number}\\\n\u{7}").into(),
            target: "shop/cart:8080".into(),
            protocol: [Protocol::Http, Protocol::Grpc, Protocol::Tcp][number % 3],
        });
        for (status, took_us) in [(200, 40), (200, 75), (404, 5_000), (503, u64::MAX / 4)] {
            all.on_allowed(edge);
            all.on_answer(edge, status, took_us);
        }
        all.on_failed(edge, Failure::Application);
        for (grpc_status, reason) in [(None, "no-grant"), (Some(7), "Policy/shop/x")] {
            let (phase, status) = (Phase::Permit, Some(403));
            let denied = Denied {
                phase,
                status,
                grpc_status,
                reason,
            };
            all.on_denied(edge, denied);
        }
        all.on_open(edge);
        all.on_open(edge);
        all.on_close(edge, 17, 4_711);
    }
    for (http, verdict, grant) in [
        (
            true,
            Verdict::Allow,
            Some("AuthorizationPolicy/shop/web-to-cart/0"),
        ),
        (true, Verdict::Deny, None),
        (false, Verdict::Allow, Some("default/all-authenticated")),
        (false, Verdict::Deny, None),
    ] {
        all.on_authz(&AuthzKey {
            http,
            verdict,
            port: 8080,
            tls: http,
            client: grant.map(Into::into),
            default: !http,
            server_namespace: "shop".into(),
            server_name: "cart".into(),
            grant: grant.map(Into::into),
        });
    }
    let route = RouteKey {
        service: "shop/cart:80".into(),
        route: "HTTPRoute/shop/canary".into(),
        rule: 1,
        backend: "shop/cart-v2:80".into(),
    };
    for status in [Some(200), None] {
        let (retries, timeouts) = (3, 1);
        let duration_us = status.map(|_| 700);
        all.on_routed(
            &route,
            Routed {
                status,
                retries,
                timeouts,
                duration_us,
            },
        );
    }
    for candidate in [Verdict::Allow, Verdict::Deny] {
        all.on_shadow(ShadowKey {
            port: 80,
            default: false,
            server_namespace: "shop".into(),
            server_name: "cart".into(),
            candidate,
            phase: Phase::Forbid,
            reason: "CedarPolicy/shop/x/0".into(),
        });
    }
    all.on_fault("shop/slow", "delay");
    all.count("mesh_panics_total", 2);
    all.count_by("mesh_handshakes_failed_total", "why", "no-certificate", 3);
    all.count_by("mesh_handshakes_failed_total", "why", "not-trusted", 4);
    all.set_gauge("mesh_ready", 1.0);
    all.set_gauge("mesh_svid_remaining_seconds", 1234.5);
    all
}

fn whose() -> Resource {
    Resource {
        attributes: vec![KeyValue::text("service.name", "cart")],
    }
}

fn pushed(registry: &Registry, protocol: OtlpProtocol) -> Vec<ExportMetrics> {
    let times = (SINCE, SINCE + 60);
    let times = (
        Timestamp::from_unix_secs(times.0),
        Timestamp::from_unix_secs(times.1),
    );
    let read = |message: Bytes| match protocol {
        OtlpProtocol::Http => ExportMetrics::read(&message).unwrap(),
        OtlpProtocol::Grpc => ExportMetrics::read_grpc(&message).unwrap(),
    };
    let messages = messages(registry, protocol, &whose(), times);
    messages.into_iter().map(read).collect()
}

/// A series by name and labels.
type Key = (String, BTreeMap<String, String>);

fn key(name: &str, ending: &str, attributes: &[KeyValue], le: Option<f64>) -> Key {
    let text = |one: &KeyValue| match one.value.clone().unwrap().value.unwrap() {
        mesh_api::otlp::Value::Text(text) => (one.key.clone(), text),
        other => panic!("{other:?}"),
    };
    let mut labels: BTreeMap<_, _> = attributes.iter().map(text).collect();
    assert_eq!(labels.len(), attributes.len(), "no label twice");
    if let Some(le) = le {
        let le = if le.is_infinite() {
            "+Inf".to_owned()
        } else {
            le.to_string()
        };
        labels.insert("le".to_owned(), le);
    }
    (format!("{name}{ending}"), labels)
}

/// What was pushed, as Prometheus has it: buckets as series that hold those below.
fn as_samples(pushed: &[ExportMetrics]) -> BTreeMap<Key, f64> {
    let mut all = BTreeMap::new();
    let mut put = |key: Key, value: f64| {
        let twice = all.insert(key.clone(), value);
        assert_eq!(twice, None, "{key:?} twice");
    };
    for metric in pushed.iter().flat_map(ExportMetrics::metrics) {
        let name = &metric.name;
        let number = |point: &NumberPoint| match point.value.unwrap() {
            Number::Int(value) => value as f64,
            Number::Double(value) => value,
        };
        match metric.data.as_ref().unwrap() {
            Data::Sum(Sum { data_points, .. }) | Data::Gauge(Gauge { data_points }) => {
                for point in data_points {
                    put(key(name, "", &point.attributes, None), number(point));
                }
            }
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    let of = |ending, le| key(name, ending, &point.attributes, le);
                    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
                    let mut below = 0;
                    for (count, bound) in point.bucket_counts.iter().zip(bounds) {
                        below += count;
                        put(of("_bucket", Some(bound)), below as f64);
                    }
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    assert_eq!(below, point.count);
                    put(of("_count", None), point.count as f64);
                    put(of("_sum", None), point.sum.unwrap());
                }
            }
        }
    }
    all
}

fn scraped(registry: &Registry) -> BTreeMap<Key, f64> {
    let samples = parse(&render(registry)).unwrap();
    let keyed = |Sample {
                     name,
                     labels,
                     value,
                 }| ((name, labels), value);
    samples.into_iter().map(keyed).collect()
}

#[test]
fn what_is_pushed_is_what_is_scraped_no_more_and_no_less() {
    for edges in [0, 1, 7, 900] {
        let registry = registry(edges);
        let scraped = scraped(&registry);
        assert!(scraped.len() > 20 + 10 * edges);
        for protocol in [OtlpProtocol::Http, OtlpProtocol::Grpc] {
            assert_eq!(as_samples(&pushed(&registry, protocol)), scraped, "{edges}");
        }
    }
}

#[test]
fn kinds_and_descriptions_are_those_of_the_text() {
    let registry = registry(4);
    let text = render(&registry);
    let pushed = pushed(&registry, OtlpProtocol::Http);
    let mut seen = 0;
    for metric in pushed.iter().flat_map(ExportMetrics::metrics) {
        let kind = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
                "counter"
            }
            Data::Gauge(_) => "gauge",
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, CUMULATIVE);
                assert_eq!(metric.unit, "s");
                "histogram"
            }
        };
        let (name, help) = (&metric.name, &metric.description);
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        assert!(text.contains(&head), "{head}");
        seen += 1;
    }
    assert_eq!(
        seen,
        text.matches("# TYPE").count(),
        "each has a series here"
    );
    let unit = |name: &str| {
        let mut all = pushed.iter().flat_map(ExportMetrics::metrics);
        all.find(|one| one.name == name).unwrap().unit.clone()
    };
    assert_eq!(unit("mesh_connection_bytes_total"), "By");
    assert_eq!(unit("mesh_svid_remaining_seconds"), "s");
    assert_eq!(unit("mesh_requests_total"), "");
}

#[test]
fn counts_are_since_the_start_and_of_one_moment() {
    let nanos = |secs: i64| u64::try_from(secs).unwrap() * 1_000_000_000;
    for message in pushed(&registry(900), OtlpProtocol::Grpc) {
        for metric in message.metrics() {
            let (times, start): (Vec<_>, _) = match metric.data.as_ref().unwrap() {
                Data::Sum(Sum { data_points, .. }) => (points(data_points), nanos(SINCE)),
                Data::Gauge(Gauge { data_points }) => (points(data_points), 0),
                Data::Histogram(Histogram { data_points, .. }) => {
                    let times =
                        |one: &HistogramPoint| (one.start_time_unix_nano, one.time_unix_nano);
                    (data_points.iter().map(times).collect(), nanos(SINCE))
                }
            };
            assert!(times.iter().all(|one| *one == (start, nanos(SINCE + 60))));
        }
    }
}

fn points(all: &[NumberPoint]) -> Vec<(u64, u64)> {
    let times = |one: &NumberPoint| (one.start_time_unix_nano, one.time_unix_nano);
    all.iter().map(times).collect()
}

#[test]
fn messages_are_bounded_and_each_says_whose_it_is() {
    let registry = registry(1_000);
    let times = (
        Timestamp::from_unix_secs(SINCE),
        Timestamp::from_unix_secs(SINCE),
    );
    let messages = messages(&registry, OtlpProtocol::Http, &whose(), times);
    assert!(messages.len() > 5, "{}", messages.len());
    for (at, message) in messages.iter().enumerate() {
        assert!(message.len() < 4 << 20, "{}", message.len());
        let read = ExportMetrics::read(message).unwrap();
        let [resource] = &read.resource_metrics[..] else {
            panic!("{} resources", read.resource_metrics.len());
        };
        assert_eq!(resource.resource.as_ref(), Some(&whose()));
        let [scope] = &resource.scope_metrics[..] else {
            panic!("{} scopes", resource.scope_metrics.len());
        };
        assert_eq!(scope.scope.as_ref().unwrap().name, "mesh-proxy");
        let points = |metric: &Metric| match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => sum.data_points.len(),
            Data::Gauge(gauge) => gauge.data_points.len(),
            Data::Histogram(histogram) => histogram.data_points.len(),
        };
        let all: usize = read.metrics().map(points).sum();
        assert!(
            read.metrics().all(|metric| points(metric) > 0),
            "none is empty"
        );
        match at + 1 == messages.len() {
            true => assert!((1..=METRICS_POINTS).contains(&all)),
            false => assert_eq!(all, METRICS_POINTS),
        }
    }
}

#[test]
fn a_long_label_is_cut_as_in_the_text() {
    let mut all = Registry::new("shop/cart");
    let edge = all.edge(&EdgeKey {
        direction: Direction::Inbound,
        peer: "ä".repeat(600).into(),
        target: "t".into(),
        protocol: Protocol::Tcp,
    });
    all.on_allowed(edge);
    assert_eq!(as_samples(&pushed(&all, OtlpProtocol::Http)), scraped(&all));
    let (_, labels) = scraped(&all).into_keys().next().unwrap();
    assert_eq!(labels["peer"].chars().count(), 512);
}

fn asked(secs: Option<u64>) -> Result<(), NotTaken> {
    Err(NotTaken::Later(
        "503".to_owned(),
        secs.map(Duration::from_secs),
    ))
}

#[test]
fn a_collector_that_fails_is_asked_again_in_doubling_pauses() {
    let mut pace = Pace::new(Duration::from_secs(10));
    let pauses: Vec<u64> = (0..7).map(|_| pace.after(&asked(None)).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 10, 10, 10]);
    assert_eq!(pace.after(&Ok(())).as_secs(), 10);
    assert_eq!(pace.after(&asked(None)).as_secs(), 1, "from the beginning");
    // What it never takes it is not asked to take again, before there are new counts.
    let never = Err(NotTaken::Never("400".to_owned()));
    assert_eq!(pace.after(&never).as_secs(), 10);
    let mut short = Pace::new(Duration::from_millis(100));
    assert_eq!(
        short.after(&asked(None)).as_millis(),
        100,
        "never later than usual"
    );
}

#[test]
fn what_a_collector_asks_for_is_heard_within_bounds() {
    for (secs, want) in [
        (0, 1),
        (1, 1),
        (7, 7),
        (599, 599),
        (601, 600),
        (u64::MAX, 600),
    ] {
        let mut pace = Pace::new(Duration::from_secs(60));
        assert_eq!(pace.after(&asked(Some(secs))).as_secs(), want, "{secs}");
    }
    // A pause that was earned by failing is not made shorter.
    let mut pace = Pace::new(Duration::from_secs(60));
    let pauses: Vec<u64> = (0..4)
        .map(|_| pace.after(&asked(Some(2))).as_secs())
        .collect();
    assert_eq!(pauses, [2, 2, 4, 8]);
}

#[test]
fn the_first_push_comes_within_the_interval() {
    let every = Duration::from_secs(60);
    let shares: Vec<Duration> = (0..100_000)
        .step_by(7_919)
        .map(|dice| share_of(every, dice))
        .collect();
    assert!(shares.iter().all(|share| *share < every));
    assert!(share_of(every, u64::MAX) < every);
    let different: std::collections::BTreeSet<_> = shares.iter().collect();
    assert!(different.len() > 5);
    assert!(share_of(Duration::ZERO, 5).is_zero());
}
