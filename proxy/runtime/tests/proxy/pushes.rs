//! Metrics of a proxy at a collector: what they say, how often they come, and that nobody waits for them.

use super::traces::Collector;
use super::world::*;
use mesh_api::otlp::attribute;
use mesh_api::otlp::metrics::{CUMULATIVE, Data, ExportMetrics, Metric, Number, NumberPoint};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// `web` with a collector outside the mesh that gets metrics each second, and spans of what is marked alone.
async fn world(protocol: &str) -> (World, Collector) {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    let collector = Collector::start(at).await;
    world.start_cart();
    world.traces = traces(at, protocol, 1);
    world.start_web();
    (world, collector)
}

fn traces(at: SocketAddr, protocol: &str, secs: u64) -> String {
    format!(
        "traces: {{ address: \"{at}\", protocol: {protocol}, sample: 0, metrics: {{ intervalSecs: {secs} }}, attributes: {{ k8s.pod.name: web-0 }} }}\n"
    )
}

impl Collector {
    /// All that came, in order; and when.
    fn pushes(&self) -> Vec<(Instant, ExportMetrics)> {
        self.metrics.lock().expect("no panic").clone()
    }

    async fn wait_for_pushes(&self, count: usize) -> Vec<(Instant, ExportMetrics)> {
        for _ in 0..400 {
            if self.pushes().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let pushes = self.pushes();
        assert!(pushes.len() >= count, "{} pushes", pushes.len());
        pushes
    }

    fn refuse(&self, how: &[(u16, u16)], retry_after: Option<&str>) {
        *self.retry_after.lock().expect("no panic") = retry_after.map(str::to_owned);
        let refusals = how.iter().rev().copied();
        self.refusals.lock().expect("no panic").extend(refusals);
    }
}

fn metric<'m>(message: &'m ExportMetrics, name: &str) -> Option<&'m Metric> {
    message.metrics().find(|metric| metric.name == name)
}

fn points<'m>(message: &'m ExportMetrics, name: &str) -> &'m [NumberPoint] {
    match metric(message, name).and_then(|metric| metric.data.as_ref()) {
        Some(Data::Sum(sum)) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
            &sum.data_points
        }
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        Some(Data::Histogram(_)) | None => &[],
    }
}

fn value(point: &NumberPoint) -> i64 {
    match point.value {
        Some(Number::Int(value)) => value,
        other => panic!("{other:?}"),
    }
}

/// Sum of the series of a name.
fn total(message: &ExportMetrics, name: &str) -> i64 {
    points(message, name).iter().map(value).sum()
}

async fn pushed(world: &World, outcome: &str) -> f64 {
    let text = mesh_api::admin::get(&world.path("web/admin.sock"), "/metrics").await;
    let text = String::from_utf8(text.expect("metrics")).expect("text");
    let samples = mesh_proxy_core::exposition::parse(&text).expect("samples");
    let wanted = samples
        .iter()
        .filter(|one| one.name == "mesh_metrics_pushes_total" && one.label("outcome") == outcome);
    wanted.map(|one| one.value).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_come_with_whose_they_are_and_since_when() {
    for protocol in ["grpc", "http"] {
        let (world, collector) = world(protocol).await;
        let _app = prompt(world.cart_app()).await;
        many(&world, 20, "").await;
        let before = collector.pushes().len();
        // The first of all knows of none before it.
        let pushes = collector.wait_for_pushes(before + 3).await;
        let (_, last) = pushes.last().expect("one");
        assert_eq!(total(last, "mesh_requests_total"), 20, "{protocol}");
        let point = &points(last, "mesh_requests_total")[0];
        let label = |key| attribute(&point.attributes, key).unwrap_or_default();
        assert_eq!(label("workload"), "shop/web");
        assert_eq!(
            (label("direction"), label("peer")),
            ("outbound".to_owned(), CART.to_owned())
        );
        assert!(
            point.start_time_unix_nano > 0 && point.start_time_unix_nano < point.time_unix_nano
        );
        let resource = last.resource_metrics[0].resource.as_ref().expect("whose");
        let of = |key| attribute(&resource.attributes, key).unwrap_or_default();
        assert_eq!(
            (of("service.name"), of("service.namespace")),
            ("web".to_owned(), "shop".to_owned())
        );
        assert_eq!(
            (of("k8s.pod.name"), of("mesh.spiffe_id")),
            ("web-0".to_owned(), WEB.to_owned())
        );
        let times = |message: &ExportMetrics| {
            let point = &points(message, "mesh_metrics_pushes_total")[0];
            (point.start_time_unix_nano, point.time_unix_nano)
        };
        let [.., (_, one), (_, other)] = &pushes[..] else {
            panic!("two");
        };
        let (one, other) = (times(one), times(other));
        assert_eq!(one.0, other.0, "since the same start");
        assert!(one.1 < other.1);
        assert!(
            collector
                .clients
                .lock()
                .expect("no panic")
                .iter()
                .all(Option::is_none)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pushed_unless_somebody_asks_for_it() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    let collector = Collector::start(at).await;
    world.start_cart();
    world.traces = format!("traces: {{ address: \"{at}\", sample: 1 }}\n");
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    many(&world, 5, "").await;
    eventually("spans", async || {
        !collector.clients.lock().expect("no panic").is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(collector.pushes().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_down_lacks_samples_and_no_counts() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    world.start_cart();
    world.traces = traces(at, "http", 1);
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    many(&world, 30, "").await;
    eventually("it was tried", async || {
        pushed(&world, "unsent").await >= 1.0
    })
    .await;
    assert_eq!(pushed(&world, "taken").await, 0.0);
    let collector = Collector::start(at).await;
    let pushes = collector.wait_for_pushes(1).await;
    assert_eq!(total(&pushes[0].1, "mesh_requests_total"), 30);
    assert!(total(&pushes[0].1, "mesh_metrics_pushes_total") >= 1);
    eventually("it is counted", async || {
        pushed(&world, "taken").await >= 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_no_request_and_no_memory() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    world.traces = traces(at, "http", 1);
    let silent = TcpListener::bind(at).await.expect("an address");
    world.start_cart();
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    // While a push hangs.
    let (stream, _) = silent.accept().await.expect("a connection");
    let took = many(&world, 2_000, "").await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    for _ in 0..200 {
        if pushed(&world, "unsent").await >= 1.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        pushed(&world, "unsent").await >= 1.0,
        "it is given up after its time"
    );
    let began = Instant::now();
    world.stop();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drop((stream, silent));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_counted_and_the_next_push_has_all() {
    for (protocol, refusal, outcome) in [
        ("http", (400, 0), "refused"),
        ("http", (503, 0), "unsent"),
        ("grpc", (200, 3), "refused"),
        ("grpc", (200, 14), "unsent"),
    ] {
        let (world, collector) = world(protocol).await;
        let _app = prompt(world.cart_app()).await;
        many(&world, 3, "").await;
        let before = collector.wait_for_pushes(1).await.len();
        collector.refuse(&[refusal], None);
        eventually("counted", async || pushed(&world, outcome).await == 1.0).await;
        let pushes = collector.wait_for_pushes(before + 3).await;
        let (_, last) = pushes.last().expect("one");
        assert_eq!(total(last, "mesh_requests_total"), 3);
        eventually("taken again", async || pushed(&world, "taken").await >= 2.0).await;
        assert_eq!(pushed(&world, outcome).await, 1.0, "{protocol} {refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_asks_for_time_gets_it() {
    for (after, at_least, at_most) in [
        ("3", 2_900, 6_000),
        // Nothing that it says makes it sooner, and what cannot be read is nothing.
        ("0", 900, 2_500),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 900, 2_500),
        ("-5", 900, 2_500),
    ] {
        let (world, collector) = world("http").await;
        collector.wait_for_pushes(1).await;
        let before = collector.pushes().len();
        collector.refuse(&[(429, 0)], Some(after));
        let pushes = collector.wait_for_pushes(before + 2).await;
        eventually("it was refused", async || {
            pushed(&world, "unsent").await == 1.0
        })
        .await;
        // Of the pushes since then one was refused; the pause after it is the longest.
        let moments: Vec<Instant> = pushes[before..].iter().map(|(at, _)| *at).collect();
        let pauses = moments
            .windows(2)
            .map(|pair| pair[1].duration_since(pair[0]));
        let longest = pauses.max().expect("two").as_millis();
        assert!(
            (at_least..at_most).contains(&longest),
            "{after}: {longest} ms"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_counts_leave_when_the_proxy_ends() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    let collector = Collector::start(at).await;
    world.start_cart();
    world.traces = traces(at, "http", 3_600);
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    many(&world, 7, "").await;
    world.stop();
    let pushes = collector.wait_for_pushes(1).await;
    let (_, last) = pushes.last().expect("one");
    assert_eq!(total(last, "mesh_requests_total"), 7);
}

/// `web` pushes to a collector behind the proxy of `cart`, expecting `identity` there.
async fn in_the_mesh(allowed: &[&str], identity: &str) -> (World, Collector) {
    let mut world = World::new(&cart_policy("HTTP/2", allowed));
    let collector = Collector::start(world.cart_app()).await;
    world.start_cart();
    world.traces = format!(
        "traces: {{ endpoints: [{{ proxy: \"{}\", port: 8080, identity: \"{identity}\" }}], metrics: {{ intervalSecs: 1 }} }}\n",
        world.cart_mesh()
    );
    world.start_web();
    (world, collector)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_in_the_mesh_gets_metrics_by_mutual_tls() {
    let (_world, collector) = in_the_mesh(&[WEB], CART).await;
    collector.wait_for_pushes(1).await;
    eventually("told who sent it", async || {
        collector.clients.lock().expect("no panic").first() == Some(&Some(WEB.to_owned()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_in_the_mesh_gets_metrics() {
    // Somebody else than who was promised.
    let (world, collector) = in_the_mesh(&[WEB], WEB).await;
    eventually("unsent", async || pushed(&world, "unsent").await >= 1.0).await;
    assert_eq!(collector.pushes().len(), 0);
    // One whose policy does not let us.
    let (world, collector) = in_the_mesh(&[], CART).await;
    eventually("refused", async || pushed(&world, "refused").await >= 1.0).await;
    assert_eq!(collector.pushes().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_endpoints_in_the_mesh_gets_no_metrics() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    world.discovers = true;
    let collector = Collector::start(world.address(5, 4317)).await;
    let discovery = serde_json::json!({"services": [
        {"namespace": "shop", "name": "collector", "port": 4317, "protocol": "detect",
         "endpoints": [], "unmeshed": [world.address(5, 4317)]},
    ]});
    std::fs::write(world.path("discovery.json"), discovery.to_string()).expect("a file");
    world.start_cart();
    world.traces =
        "traces: { service: \"shop/collector:4317\", metrics: { intervalSecs: 1 } }\n".to_owned();
    world.start_web();
    eventually("unsent", async || pushed(&world, "unsent").await >= 1.0).await;
    assert_eq!(collector.pushes().len(), 0, "nothing in plaintext");
}
