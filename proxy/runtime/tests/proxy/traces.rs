//! Spans of both proxies at a collector: under the client's trace, with identity and decision, and never in a request's way.

use super::world::*;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_api::otlp::metrics::{ExportMetrics, GRPC_PATH as METRICS_METHOD};
use mesh_api::otlp::{
    ExportRequest, GRPC_PATH as SPANS_METHOD, KIND_CLIENT, KIND_SERVER, Span, attribute,
};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that speaks gRPC and HTTP, and keeps what it receives. Other paths it answers with 200.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    received: Arc<Mutex<Vec<ExportRequest>>>,
    /// Metrics, each message with the moment at which it came, whether it was taken or not.
    pub(crate) metrics: Arc<Mutex<Vec<(Instant, ExportMetrics)>>>,
    /// The first word of each export, and its peer's certificate as its proxy told it.
    pub(crate) clients: Arc<Mutex<Vec<Option<String>>>>,
    /// Answered in place of 0 and 200, once each.
    pub(crate) refusals: Arc<Mutex<Vec<(u16, u16)>>>,
    /// What it says in `Retry-After` when it refuses.
    pub(crate) retry_after: Arc<Mutex<Option<String>>>,
}

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

impl Collector {
    pub(crate) async fn start(at: SocketAddr) -> Self {
        let collector = Self::default();
        let listener = TcpListener::bind(at).await.expect("an address");
        let serving = collector.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let collector = serving.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let collector = collector.clone();
                        async move { collector.answer(request).await }
                    });
                    let mut first = [0; 1];
                    let http2 =
                        matches!(stream.peek(&mut first).await, Ok(1)) && preface(&stream).await;
                    let io = TokioIo::new(stream);
                    if http2 {
                        let builder =
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(io, service).await.ok();
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        builder.serve_connection(io, service).await.ok();
                    }
                });
            }
        });
        collector
    }

    async fn answer(self, request: Request<Incoming>) -> io::Result<Response<Answer>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path = parts.uri.path().to_owned();
        let kind = parts.headers.get("content-type");
        let kind = kind.map_or(&b""[..], |kind| kind.as_bytes());
        let grpc = kind == b"application/grpc";
        // Read before it is refused: what is no message is the proxy's fault.
        let (mut spans, mut metrics) = (None, None);
        match (path.as_str(), kind) {
            (SPANS_METHOD, b"application/grpc") => spans = Some(ExportRequest::read_grpc(&body)),
            ("/v1/traces", b"application/x-protobuf") => spans = Some(ExportRequest::read(&body)),
            (METRICS_METHOD, b"application/grpc") => {
                metrics = Some(ExportMetrics::read_grpc(&body));
            }
            ("/v1/metrics", b"application/x-protobuf") => {
                metrics = Some(ExportMetrics::read(&body));
            }
            _ => return Ok(Response::new(Full::new(Bytes::from(path)).boxed_unsync())),
        }
        if grpc {
            assert_eq!(parts.headers["te"], "trailers");
        }
        let refusal = self.refusals.lock().expect("no panic").pop();
        let (status, code) = refusal.unwrap_or((200, 0));
        if let Some(metrics) = metrics {
            let mut all = self.metrics.lock().expect("no panic");
            all.push((Instant::now(), metrics.expect("metrics")));
        }
        if refusal.is_none() {
            let client = parts.headers.get("mesh-client-id");
            let client = client.map(|id| id.to_str().expect("text").to_owned());
            self.clients.lock().expect("no panic").push(client);
            let mut received = self.received.lock().expect("no panic");
            received.extend(spans.map(|spans| spans.expect("spans")));
        }
        if !grpc {
            let mut response = Response::new(Full::default().boxed_unsync());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let after = self.retry_after.lock().expect("no panic").clone();
            if let Some(after) = after.filter(|_| refusal.is_some()) {
                let after = after.parse().expect("a value");
                response.headers_mut().insert("retry-after", after);
            }
            return Ok(response);
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        let frames = [
            Frame::data(Bytes::from_static(&[0; 5])),
            Frame::trailers(trailers),
        ];
        let frames = futures_util::stream::iter(frames.map(Ok));
        let mut response = Response::new(http_body_util::StreamBody::new(frames).boxed_unsync());
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().expect("a value"));
        Ok(response)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().expect("no panic");
        received
            .iter()
            .flat_map(|request| request.spans().cloned())
            .collect()
    }

    /// The spans, once there are so many.
    async fn wait_for(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans"), async || {
            self.spans().len() >= count
        })
        .await;
        let spans = self.spans();
        assert_eq!(spans.len(), count);
        spans
    }
}

async fn preface(stream: &TcpStream) -> bool {
    let mut bytes = [0; 3];
    while stream.peek(&mut bytes).await.is_ok_and(|read| read < 3) {
        tokio::task::yield_now().await;
    }
    &bytes == b"PRI"
}

/// Both proxies, and a collector outside the mesh.
async fn world(allowed: &[&str], protocol: &str, sample: &str) -> (World, Collector) {
    let mut world = World::new(&cart_policy("HTTP/1", allowed));
    let at = world.address(4, 4317);
    world.traces = format!(
        "traces: {{ address: \"{at}\", protocol: {protocol}, sample: {sample}, attributes: {{ deployment.environment.name: test }} }}\n"
    );
    let collector = Collector::start(at).await;
    world.start_cart();
    world.start_web();
    (world, collector)
}

async fn ask(to: SocketAddr, path: &str, headers: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: cart:8000\r\nConnection: close\r\n{headers}\r\n");
    raw(to, request.as_bytes()).await
}

fn sampled(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of(span: &Span, key: &str) -> String {
    attribute(&span.attributes, key).unwrap_or_default()
}

fn side(spans: &[Span], kind: i32) -> &Span {
    let mut found = spans.iter().filter(|span| span.kind == kind);
    let span = found.next().expect("a span of that side");
    assert!(found.next().is_none(), "one of each side");
    span
}

async fn counted(world: &World, name: &str, why: &str) -> f64 {
    let text = mesh_api::admin::get(&world.path("web/admin.sock"), "/metrics").await;
    let text = String::from_utf8(text.expect("metrics")).expect("text");
    let samples = mesh_proxy_core::exposition::parse(&text).expect("samples");
    let wanted = samples
        .iter()
        .filter(|one| one.name == name && one.label("why") == why);
    wanted.map(|one| one.value).sum()
}

const EXPORTED: &str = "mesh_trace_spans_exported_total";
const DROPPED: &str = "mesh_trace_spans_dropped_total";

#[tokio::test(flavor = "multi_thread")]
async fn both_proxies_stand_in_the_trace_of_the_client() {
    for protocol in ["grpc", "http"] {
        let (world, collector) = world(&[WEB], protocol, "0").await;
        let _app = mirror(world.cart_app()).await;
        let answer = ask(world.web_to_cart(), "/items?token=secret", &sampled("01")).await;
        assert_eq!(status(&answer), "200");
        let spans = collector.wait_for(2).await;
        let (client, server) = (side(&spans, KIND_CLIENT), side(&spans, KIND_SERVER));
        for span in [client, server] {
            assert_eq!(hex(&span.trace_id), TRACE);
            assert_eq!(span.name, "GET");
            assert_eq!(span.status, None);
            assert_eq!(of(span, "http.response.status_code"), "200");
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        }
        assert_eq!(hex(&client.parent_span_id), PARENT);
        assert_eq!(server.parent_span_id, client.span_id);
        let onward = format!("traceparent: 00-{TRACE}-{}-01", hex(&server.span_id));
        assert!(
            answer.contains(&onward),
            "the application is below both: {answer}"
        );
        assert_eq!(of(client, "mesh.server.spiffe_id"), CART);
        assert_eq!(of(client, "url.full"), "http://cart:8000/items");
        assert_eq!(of(server, "mesh.client.spiffe_id"), WEB);
        assert_eq!(of(server, "mesh.verdict"), "allow");
        assert_eq!(
            of(server, "mesh.reason"),
            "AuthorizationPolicy/shop/callers/0"
        );
        assert_eq!(of(server, "mesh.server"), "shop/cart-http");
        assert_eq!(of(server, "url.path"), "/items");
        let received = collector.received.lock().expect("no panic").clone();
        assert!(
            !format!("{received:?}").contains("secret"),
            "no query is told"
        );
        let mut whose: Vec<_> = received
            .iter()
            .map(|request| {
                let resource = request.resource_spans[0].resource.as_ref().expect("whose");
                let get = |key| attribute(&resource.attributes, key).unwrap_or_default();
                assert_eq!(get("deployment.environment.name"), "test");
                (
                    get("service.namespace"),
                    get("service.name"),
                    get("mesh.spiffe_id"),
                )
            })
            .collect();
        whose.sort();
        let want = [("cart", CART), ("web", WEB)];
        assert_eq!(
            whose,
            want.map(|(name, id)| ("shop".to_owned(), name.to_owned(), id.to_owned()))
        );
        // Counted once the collector has answered.
        eventually("it is counted", async || {
            counted(&world, EXPORTED, "").await == 1.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_goes_on_as_it_came() {
    let (world, collector) = world(&[WEB], "grpc", "0").await;
    let _app = mirror(world.cart_app()).await;
    for headers in [
        String::new(),
        sampled("00"),
        "traceparent: nonsense\r\ntracestate: a=1\r\n".to_owned(),
        format!("b3: {TRACE}-{PARENT}\r\n"),
        format!("b3: {TRACE}-{PARENT}-0\r\n"),
    ] {
        let answer = ask(world.web_to_cart(), "/", &headers).await;
        assert_eq!(status(&answer), "200");
        for line in headers.lines() {
            assert!(answer.contains(line), "{line}: {answer}");
        }
        assert_eq!(
            answer.contains("traceparent"),
            headers.contains("traceparent")
        );
    }
    // One that is, so that the others would have come.
    ask(
        world.web_to_cart(),
        "/",
        &format!("b3: {TRACE}-{PARENT}-1\r\n"),
    )
    .await;
    let spans = collector.wait_for(2).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_begins_where_the_request_enters_the_mesh() {
    let (world, collector) = world(&[WEB], "grpc", "1").await;
    let _app = mirror(world.cart_app()).await;
    ask(world.web_to_cart(), "/", "tracestate: a=1\r\n").await;
    let spans = collector.wait_for(2).await;
    let (client, server) = (side(&spans, KIND_CLIENT), side(&spans, KIND_SERVER));
    assert!(client.parent_span_id.is_empty());
    assert_eq!(client.trace_id, server.trace_id);
    assert_eq!(server.parent_span_id, client.span_id);
    // A stranger's request begins one at the server's proxy, which denies it.
    let answer = ask(world.cart_plain(), "/", "").await;
    assert_eq!(status(&answer), "403");
    let spans = collector.wait_for(3).await;
    let denied = &spans[2];
    assert!(denied.parent_span_id.is_empty() && denied.trace_id != client.trace_id);
    assert_eq!(of(denied, "mesh.verdict"), "deny");
    assert_eq!(of(denied, "mesh.reason"), "no-grant");
    assert_eq!(of(denied, "mesh.client.spiffe_id"), "");
    assert_eq!(denied.status, None, "the fault of its client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_mesh_begins_no_trace_for_another() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    let collector = Collector::start(at).await;
    world.start_web();
    world.traces = format!("traces: {{ address: \"{at}\", sample: 1 }}\n");
    world.start_cart();
    let _app = mirror(world.cart_app()).await;
    for _ in 0..3 {
        assert_eq!(status(&ask(world.web_to_cart(), "/", "").await), "200");
    }
    ask(world.web_to_cart(), "/last", &sampled("01")).await;
    let spans = collector.wait_for(1).await;
    assert_eq!(of(&spans[0], "url.path"), "/last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_an_error_of_the_client_and_not_of_the_server() {
    let (world, collector) = world(&[], "grpc", "0").await;
    let answer = ask(world.web_to_cart(), "/", &sampled("01")).await;
    assert_eq!(status(&answer), "403");
    let spans = collector.wait_for(2).await;
    let (client, server) = (side(&spans, KIND_CLIENT), side(&spans, KIND_SERVER));
    assert_eq!(of(server, "mesh.verdict"), "deny");
    assert_eq!(of(server, "mesh.phase"), "permit");
    assert!(server.status.is_none() && client.status.is_some());
    assert_eq!(of(client, "error.type"), "403");
    // What is refused before it is decided has a span as well.
    let answer = raw(
        world.web_to_cart(),
        format!(
            "GET /a;b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n",
            sampled("01")
        )
        .as_bytes(),
    )
    .await;
    assert_eq!(status(&answer), "400");
    let spans = collector.wait_for(4).await;
    let refused = spans[2..]
        .iter()
        .find(|span| span.kind == KIND_SERVER)
        .expect("one");
    assert_eq!(of(refused, "mesh.phase"), "request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_not_there_is_an_error_with_its_cause() {
    let (world, collector) = world(&[WEB], "grpc", "0").await;
    let answer = ask(world.web_to_cart(), "/", &sampled("01")).await;
    assert_eq!(status(&answer), "502");
    let spans = collector.wait_for(2).await;
    let server = side(&spans, KIND_SERVER);
    assert_eq!(of(server, "error.type"), "connect");
    assert_eq!(of(server, "http.response.status_code"), "502");
    assert_eq!(of(server, "mesh.verdict"), "allow");
    assert!(side(&spans, KIND_CLIENT).status.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_no_request() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    world.traces = format!("traces: {{ address: \"{}\" }}\n", world.address(4, 4317));
    world.start_cart();
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    many(&world, 20, &sampled("01")).await;
    for _ in 0..40 {
        if counted(&world, DROPPED, "unsent").await >= 20.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(counted(&world, DROPPED, "unsent").await, 20.0);
    assert_eq!(counted(&world, EXPORTED, "").await, 0.0);
    // It comes, and spans with it.
    let collector = Collector::start(world.address(4, 4317)).await;
    many(&world, 1, &sampled("01")).await;
    eventually("both sides", async || collector.spans().len() >= 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_no_request_either() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let at = world.address(4, 4317);
    world.traces = format!("traces: {{ address: \"{at}\" }}\n");
    let silent = TcpListener::bind(at).await.expect("an address");
    world.start_cart();
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    // More than a batch and the queue hold.
    let took = many(&world, 3_000, &sampled("01")).await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    let full = counted(&world, DROPPED, "full").await;
    assert!(full >= (3_000 - 2_048 - 2 * 512) as f64, "{full}");
    let began = Instant::now();
    world.stop();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_may_take_later_is_sent_again() {
    for (protocol, refusal) in [("grpc", (200, 14)), ("http", (503, 0))] {
        let (world, collector) = world(&[WEB], protocol, "0").await;
        let _app = mirror(world.cart_app()).await;
        collector
            .refusals
            .lock()
            .expect("no panic")
            .extend([refusal; 2]);
        ask(world.web_to_cart(), "/", &sampled("01")).await;
        collector.wait_for(2).await;
        assert_eq!(counted(&world, DROPPED, "refused").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_never_takes_is_dropped_at_once() {
    for (protocol, refusal) in [("grpc", (200, 3)), ("http", (400, 0))] {
        let (world, collector) = world(&[WEB], protocol, "0").await;
        let _app = mirror(world.cart_app()).await;
        collector
            .refusals
            .lock()
            .expect("no panic")
            .extend([refusal; 2]);
        ask(world.web_to_cart(), "/first", &sampled("01")).await;
        eventually("dropped", async || {
            counted(&world, DROPPED, "refused").await == 1.0
        })
        .await;
        eventually("both", async || {
            collector.refusals.lock().expect("no panic").is_empty()
        })
        .await;
        ask(world.web_to_cart(), "/second", &sampled("01")).await;
        let spans = collector.wait_for(2).await;
        assert_eq!(of(side(&spans, KIND_SERVER), "url.path"), "/second");
    }
}

/// `web` sends its spans to a collector behind the proxy of `cart`, expecting `identity` there.
async fn in_the_mesh(allowed: &[&str], identity: &str, protocol: &str) -> (World, Collector) {
    let kind = if protocol == "grpc" {
        "HTTP/2"
    } else {
        "HTTP/1"
    };
    let mut world = World::new(&cart_policy(kind, allowed));
    let collector = Collector::start(world.cart_app()).await;
    world.start_cart();
    world.traces = format!(
        "traces: {{ endpoints: [{{ proxy: \"{}\", port: 8080, identity: \"{identity}\" }}], protocol: {protocol} }}\n",
        world.cart_mesh()
    );
    world.start_web();
    (world, collector)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_in_the_mesh_gets_spans_by_mutual_tls() {
    for protocol in ["grpc", "http"] {
        let (world, collector) = in_the_mesh(&[WEB], CART, protocol).await;
        ask(world.web_to_cart(), "/", &sampled("01")).await;
        let spans = collector.wait_for(1).await;
        assert_eq!(hex(&spans[0].trace_id), TRACE);
        let clients = collector.clients.lock().expect("no panic").clone();
        assert_eq!(clients, [Some(WEB.to_owned())], "{protocol}: who sent it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_in_the_mesh_gets_them() {
    // Somebody else than who was promised.
    let (world, collector) = in_the_mesh(&[WEB], WEB, "grpc").await;
    ask(world.web_to_cart(), "/", &sampled("01")).await;
    for _ in 0..40 {
        if counted(&world, DROPPED, "unsent").await >= 1.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(counted(&world, DROPPED, "unsent").await, 1.0);
    assert!(collector.spans().is_empty());
    // One whose policy does not let us.
    let (world, collector) = in_the_mesh(&[], CART, "grpc").await;
    ask(world.web_to_cart(), "/", &sampled("01")).await;
    eventually("refused", async || {
        counted(&world, DROPPED, "refused").await == 1.0
    })
    .await;
    assert!(collector.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_endpoints_in_the_mesh_gets_nothing() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    world.discovers = true;
    let collector = Collector::start(world.address(5, 4317)).await;
    let discovery = serde_json::json!({"services": [
        {"namespace": "shop", "name": "collector", "port": 4317, "protocol": "detect",
         "endpoints": [], "unmeshed": [world.address(5, 4317)]},
    ]});
    std::fs::write(world.path("discovery.json"), discovery.to_string()).expect("a file");
    world.start_cart();
    world.traces = "traces: { service: \"shop/collector:4317\" }\n".to_owned();
    world.start_web();
    let _app = prompt(world.cart_app()).await;
    many(&world, 1, &sampled("01")).await;
    for _ in 0..40 {
        if counted(&world, DROPPED, "unsent").await >= 1.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(counted(&world, DROPPED, "unsent").await, 1.0);
    assert!(collector.spans().is_empty(), "nothing in plaintext");
}
