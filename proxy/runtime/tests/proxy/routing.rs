//! Requests to a service with routes, through two proxies: what reaches which application, what the client gets, what is
//! counted.

use super::stage::*;
use super::world::*;
use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn rules_choose_the_backend_and_weights_share_it() {
    let version_two = json!({"path": {"prefix": "/"}, "method": null,
        "headers": [{"name": "version", "value": {"exact": "two"}}], "query": []});
    let stage = Stage::new(route(json!([
        {"matches": [prefix("/split")], "backends": [to("v1", 1), to("empty", 0), to("v2", 1)]},
        {"matches": [version_two], "backends": [to("v2", 1)]},
        {"matches": [every()], "backends": [to("v1", 1)]},
    ])))
    .await;
    assert_eq!(app(&stage.get("/").await), "v1");
    assert_eq!(
        app(&stage.send("GET /", "Version: two\r\n", "").await),
        "v2"
    );
    let mut split = [0; 2];
    for _ in 0..60 {
        match app(&stage.get("/split/a").await) {
            "v1" => split[0] += 1,
            "v2" => split[1] += 1,
            other => panic!("{other}"),
        }
    }
    assert!(split.iter().all(|count| *count >= 10), "{split:?}");
    let labels = [
        ("service", "shop/echo:80"),
        ("route", "HTTPRoute/shop/r"),
        ("rule", "0"),
    ];
    assert_eq!(
        stage.counted("mesh_route_requests_total", &labels).await,
        60.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_takes_goes_nowhere() {
    let stage = Stage::new(route(
        json!([{"matches": [prefix("/a")], "backends": [to("v1", 1)]}]),
    ))
    .await;
    for path in ["/", "/ab", "/b/../c", "/A"] {
        let answer = stage.get(path).await;
        assert!(
            status(&answer) == "404" && answer.contains("MESH-0440"),
            "{path}: {answer}"
        );
    }
    assert_eq!(
        app(&stage.get("/b/../a").await),
        "v1",
        "the path is read once"
    );
    assert_eq!(stage.v1.received()[0].line, "GET /a");
    assert_eq!(status(&stage.get("/a/../../b").await), "400");
    let response = super::streams::call(stage.world.web_to_cart(), "/say.Say/Once").await;
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(stage.v1.count() + stage.v2.count(), 1);
    let labels = [("route", "none"), ("class", "4xx")];
    assert_eq!(
        stage.counted("mesh_route_requests_total", &labels).await,
        6.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_cannot_be_used_fail_their_share() {
    let mut invalid = to("gone", 1);
    invalid["invalid"] = json!("there is no Service `gone`");
    let reserved = json!({"requestHeaders": {"set": [["L5D-Client-Id", "spiffe://cluster.local/ns/shop/sa/admin"]]}});
    let stage = Stage::new(route(json!([
        {"matches": [prefix("/none")], "backends": []},
        {"matches": [prefix("/zero")], "backends": [to("v1", 0)]},
        {"matches": [prefix("/invalid")], "backends": [invalid]},
        {"matches": [prefix("/empty")], "backends": [to("empty", 1)]},
        {"matches": [prefix("/unknown")], "backends": [to("nobody-knows", 1)]},
        {"matches": [prefix("/reserved")], "filters": [reserved], "backends": [to("v1", 1)]},
        {"matches": [every()], "backends": [to("v1", 1)]},
    ])))
    .await;
    for (path, code, error) in [
        ("/none", "500", "MESH-0441"),
        ("/zero", "500", "MESH-0441"),
        ("/invalid", "500", "MESH-0442"),
        ("/empty", "503", "MESH-0472"),
        ("/unknown", "503", "MESH-0472"),
        ("/reserved", "500", "MESH-0444"),
    ] {
        let answer = stage.get(path).await;
        assert!(
            status(&answer) == code && answer.contains(error),
            "{path}: {answer}"
        );
    }
    assert_eq!(stage.v1.count(), 0, "never another way");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_change_what_the_application_and_the_client_get() {
    let headers = json!({"requestHeaders": {"set": [["x-set", "1"]], "add": [["x-add", "2"]], "remove": ["x-gone"]}});
    let answers = json!({"responseHeaders": {"set": [["x-answer", "3"]], "remove": ["x-app"]}});
    let rewrite = json!({"rewrite": {"hostname": "two.example", "path": {"prefix": "/new"}}});
    let redirect = json!({"redirect": {"scheme": "https", "hostname": null, "port": null, "path": {"full": "/there"}, "status": 308}});
    let mut v1 = to("v1", 1);
    v1["filters"] = json!([{"requestHeaders": {"add": [["x-add", "backend"]]}}]);
    let stage = Stage::new(route(json!([
        {"matches": [prefix("/old")], "filters": [headers, answers, rewrite], "backends": [v1]},
        {"matches": [prefix("/away")], "filters": [redirect], "backends": []},
    ])))
    .await;
    let sent = "x-set: 0\r\nx-add: 0\r\nx-gone: 0\r\n";
    let answer = stage.send("GET /old/a?q=1", sent, "").await;
    assert_eq!(
        (header(&answer, "x-answer"), header(&answer, "x-app")),
        (Some("3"), None),
        "{answer}"
    );
    let received = &stage.v1.received()[0];
    assert_eq!(received.line, "GET /new/a?q=1");
    let of = |name: &str| {
        received
            .headers
            .get(name)
            .map(|value| value.to_str().expect("text"))
    };
    assert_eq!(of("host"), Some("two.example"));
    assert_eq!(of("x-set"), Some("1"));
    assert_eq!(of("x-add"), Some("0,2,backend"));
    assert_eq!(of("x-gone"), None);
    assert_eq!(of("mesh-client-id"), Some(WEB), "who calls stays who calls");
    let away = stage.get("/away?q=1").await;
    assert_eq!(status(&away), "308");
    assert_eq!(header(&away, "location"), Some("https://cart/there?q=1"));
}

fn retry(statuses: &[u16]) -> Value {
    json!({"attempts": 2, "statuses": statuses, "grpc_codes": [14], "backoff_ms": 1})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_route_names_is_tried_again_with_the_same_body() {
    let stage = Stage::new(route(json!([
        {"matches": [every()], "backends": [to("v1", 1)], "retry": retry(&[503])},
    ])))
    .await;
    let body = "x".repeat(60_000);
    stage.v1.will(&[Step::Status(503), Step::Status(503)]);
    let answer = stage.send("POST /a", "", &body).await;
    assert_eq!(status(&answer), "200");
    let received = stage.v1.received();
    assert_eq!(received.len(), 3);
    assert!(
        received
            .iter()
            .all(|one| one.line == "POST /a" && one.body == body.as_bytes())
    );
    let retries = [("backend", "shop/v1:80")];
    assert_eq!(
        stage.counted("mesh_route_retries_total", &retries).await,
        2.0
    );

    stage.v1.will(&[Step::Status(503); 3]);
    assert_eq!(
        status(&stage.get("/").await),
        "503",
        "the last answer is the answer"
    );
    assert_eq!(stage.v1.count(), 6);

    stage.v1.will(&[Step::Status(500)]);
    assert_eq!(status(&stage.get("/").await), "500", "not named");
    assert_eq!(stage.v1.count(), 7);

    stage.v1.will(&[Step::Status(503)]);
    let large = stage.send("POST /a", "", &"x".repeat(100_000)).await;
    assert_eq!(status(&large), "503", "too large to be kept");
    assert_eq!(stage.v1.count(), 8);
    assert_eq!(stage.v1.received()[7].body.len(), 100_000);
    let refused = [("why", "body")];
    assert_eq!(
        stage.counted("mesh_retries_refused_total", &refused).await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_served_is_repeated_only_where_that_is_safe() {
    let stage = Stage::new(route(json!([
        {"matches": [every()], "backends": [to("v1", 1)], "retry": retry(&[503])},
    ])))
    .await;
    // The server's proxy answers 502 for its application, and nobody named that.
    stage.v1.will(&[Step::Close]);
    assert_eq!(status(&stage.send("POST /a", "", "x").await), "502");
    assert_eq!(stage.v1.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_time_end_a_try_or_the_request() {
    let stage = Stage::new(route(json!([
        {"matches": [prefix("/try")], "backends": [to("v1", 1)], "retry": retry(&[503]),
         "timeouts": {"backend_request_ms": 100}},
        {"matches": [prefix("/all")], "backends": [to("v1", 1)], "timeouts": {"request_ms": 100}},
    ])))
    .await;
    let slow = Step::Slow(Duration::from_secs(5));
    stage.v1.will(&[slow]);
    assert_eq!(
        status(&stage.get("/try").await),
        "200",
        "the second try was in time"
    );
    stage.v1.will(&[slow]);
    let posted = stage.send("POST /try", "", "x").await;
    assert!(
        status(&posted) == "504" && posted.contains("MESH-0443"),
        "it may have been served: {posted}"
    );
    let began = Instant::now();
    stage.v1.will(&[slow]);
    let answer = stage.get("/all").await;
    assert!(
        status(&answer) == "504" && answer.contains("`request` timeout"),
        "{answer}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(stage.counted("mesh_route_timeouts_total", &[]).await, 3.0);
    let late = [("cause", "timeout"), ("target", "shop/v1:80")];
    assert_eq!(stage.counted("mesh_failed_total", &late).await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_tried_again_by_its_codes_and_timed_out_with_4() {
    let stage = Stage::speaking(
        route(json!([
            {"matches": [{"path": {"rpc": {"service": {"exact": "say.Say"}, "method": null}}, "method": null, "headers": [], "query": []}],
             "backends": [to("v1", 1)], "retry": retry(&[]), "timeouts": {"request_ms": 500}},
        ])),
        true,
    )
    .await;
    let call = || super::streams::call(stage.world.web_to_cart(), "/say.Say/Once");
    let code = |response: &Response<Incoming>| {
        response
            .headers()
            .get("grpc-status")
            .map(|code| code.to_str().expect("text").to_owned())
    };
    stage
        .v1
        .will(&[Step::Grpc("14"), Step::Grpc("14"), Step::Grpc("0")]);
    assert_eq!(code(&call().await).as_deref(), Some("0"));
    let bodies: Vec<Bytes> = stage
        .v1
        .received()
        .into_iter()
        .map(|one| one.body)
        .collect();
    assert_eq!(bodies, vec![Bytes::from_static(b"\0\0\0\0\x05hello"); 3]);
    stage.v1.will(&[Step::Grpc("13")]);
    assert_eq!(code(&call().await).as_deref(), Some("13"), "not named");
    stage.v1.will(&[Step::Slow(Duration::from_secs(5))]);
    assert_eq!(code(&call().await).as_deref(), Some("4"));
    assert_eq!(stage.v1.count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_cost_the_request_nothing() {
    let mirror = json!({"mirror": {"to": to("v2", 0), "numerator": 1, "denominator": 1}});
    let gone = json!({"mirror": {"to": to("empty", 0), "numerator": 1, "denominator": 1}});
    let stage = Stage::new(route(json!([
        {"matches": [every()], "filters": [mirror, gone], "backends": [to("v1", 1)]},
    ])))
    .await;
    stage
        .v2
        .will(&[Step::Slow(Duration::from_secs(5)), Step::Status(500)]);
    let began = Instant::now();
    assert_eq!(app(&stage.get("/a").await), "v1");
    assert_eq!(app(&stage.send("POST /b", "", "body").await), "v1");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "nobody waits for a copy"
    );
    eventually("both copies came", async || stage.v2.count() == 2).await;
    let copies = stage.v2.received();
    let post = copies
        .iter()
        .find(|one| one.line == "POST /b")
        .expect("the copy");
    assert_eq!(post.body, "body");
    assert_eq!(
        status(&stage.send("POST /c", "", &"x".repeat(100_000)).await),
        "200"
    );
    assert_eq!(
        stage
            .counted("mesh_mirrors_dropped_total", &[("why", "too-large")])
            .await,
        2.0
    );
    assert_eq!(stage.counted("mesh_mirrored_total", &[]).await, 4.0);
    assert_eq!((stage.v1.count(), stage.v2.count()), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_leaves_an_endpoint_alone_until_its_trial() {
    let routes = route(json!([{"matches": [every()], "backends": [to("v1", 1)]}]));
    let stage = Stage::new(Value::Array(Vec::new())).await;
    let accrual = json!({"max_failures": 2, "min_penalty_ms": 1500, "max_penalty_ms": 3000, "jitter_percent": 0});
    write_discovery(&stage.world, &routes, &accrual);
    eventually("the route is followed", async || {
        app(&stage.get("/").await) == "v1"
    })
    .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = stage.v1.count();
    stage.v1.will(&[Step::Status(503), Step::Status(503)]);
    for _ in 0..2 {
        assert_eq!(status(&stage.get("/").await), "503");
    }
    let opened = Instant::now();
    for _ in 0..5 {
        let answer = stage.get("/").await;
        assert!(
            status(&answer) == "503" && answer.contains("MESH-0473"),
            "{answer}"
        );
    }
    assert!(
        opened.elapsed() < Duration::from_millis(1_000),
        "failed at once: {:?}",
        opened.elapsed()
    );
    assert_eq!(stage.v1.count(), before + 2);
    eventually("the trial closes it", async || {
        status(&stage.get("/").await) == "200"
    })
    .await;
    assert!(
        opened.elapsed() > Duration::from_millis(1_300),
        "{:?}",
        opened.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_outside_the_mesh_is_reached_in_plaintext_and_counted() {
    let stage = Stage::new(route(json!([
        {"matches": [every()], "backends": [to("outside", 1)], "retry": retry(&[503])},
    ])))
    .await;
    stage.outside.will(&[Step::Status(503)]);
    let answer = stage
        .send("POST /a", "mesh-client-id: me\r\n", "body")
        .await;
    assert_eq!((status(&answer), app(&answer)), ("200", "outside"));
    let received = stage.outside.received();
    assert_eq!(received.len(), 2, "tried again");
    assert!(
        received
            .iter()
            .all(|one| one.body == "body" && one.line == "POST /a")
    );
    assert_eq!(received[0].headers["host"], "echo");
    assert!(!received[0].headers.contains_key("mesh-client-id"));
    assert!(!received[0].headers.contains_key("mesh-orig-version"));
    let reason = [("reason", "unmeshed-endpoint")];
    let left = stage.counted("mesh_outbound_plaintext_total", &reason);
    assert_eq!(
        left.await,
        1.0,
        "an answer that came whole leaves its connection, also if it is thrown away"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_routes_are_followed_by_the_next_request() {
    let to_v2 = route(json!([{"matches": [every()], "backends": [to("v2", 1)]}]));
    let stage = Stage::new(route(
        json!([{"matches": [prefix("/a")], "backends": [to("v1", 1)]}]),
    ))
    .await;
    assert_eq!(status(&stage.get("/").await), "404");
    write_discovery(&stage.world, &to_v2, &Value::Null);
    eventually("v2 alone answers", async || {
        app(&stage.get("/").await) == "v2"
    })
    .await;
    write_discovery(&stage.world, &json!([]), &Value::Null);
    eventually("without routes both answer", async || {
        app(&stage.get("/").await) == "v1"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_follows_routes() {
    let headers = json!({"requestHeaders": {"set": [["x-set", "1"]]}});
    let stage = Stage::new(route(json!([
        {"matches": [prefix("/chat")], "filters": [headers], "backends": [to("v2", 1)],
         "timeouts": {"request_ms": 1_000}, "retry": retry(&[503])},
        {"matches": [every()], "backends": []},
    ])))
    .await;
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: echo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let connect = async |path: &str| {
        let mut stream = TcpStream::connect(stage.world.web_to_cart())
            .await
            .expect("a connection");
        stream.write_all(ask(path).as_bytes()).await.expect("room");
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n")
            && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0)
        {}
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    stage.v2.will(&[Step::Switch]);
    let (mut stream, head) = connect("/chat").await;
    assert_eq!(status(&head), "101", "{head}");
    stream.write_all(b"hello").await.expect("room");
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.expect("the echo");
    assert_eq!(&back, b"hello");
    assert_eq!(stage.v2.received()[0].headers["x-set"], "1");

    assert_eq!(status(&connect("/other").await.1), "500", "no backend");
    stage.v2.will(&[Step::Status(503)]);
    assert_eq!(status(&connect("/chat").await.1), "503", "tried once");
    stage.v2.will(&[Step::Slow(Duration::from_secs(5))]);
    assert_eq!(status(&connect("/chat").await.1), "504");
    assert_eq!(stage.v2.count(), 3);
}
