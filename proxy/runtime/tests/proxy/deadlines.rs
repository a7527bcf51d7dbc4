//! The time that a client gives a request: what is left of it reaches the application, and a request that has none goes
//! nowhere.

use super::stage::*;
use super::world::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";

/// What the application was told at its request of this number, counted from 0.
fn told(origin: &Origin, number: usize) -> Option<u64> {
    let received = &origin.received()[number];
    let value = received.headers.get(EXPECTED)?;
    Some(value.to_str().expect("text").parse().expect("a number"))
}

fn expecting(ms: &str) -> String {
    format!("{EXPECTED}: {ms}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_sees_what_waits_and_tries_have_left() {
    let stage = Stage::new(route(json!([
        {"matches": [prefix("/again")], "backends": [to("v1", 1)],
         "retry": {"attempts": 2, "statuses": [503], "grpc_codes": [], "backoff_ms": 200}},
        {"matches": [prefix("/route")], "backends": [to("v1", 1)], "timeouts": {"request_ms": 5_000}},
        {"matches": [prefix("/try")], "backends": [to("v1", 1)],
         "timeouts": {"request_ms": 5_000, "backend_request_ms": 1_000}},
        {"matches": [every()], "backends": [to("v1", 1)]},
    ])))
    .await;
    stage.v1.will(&[Step::Status(503), Step::Status(503)]);
    let answer = stage.send("GET /again", &expecting("3000"), "").await;
    assert_eq!(status(&answer), "200");
    let seen: Vec<u64> = (0..3).filter_map(|at| told(&stage.v1, at)).collect();
    let [first, second, third] = seen[..] else {
        panic!("three tries: {seen:?}");
    };
    assert!((2_500..3_000).contains(&first), "{seen:?}");
    assert!(second <= first - 200, "the first wait: {seen:?}");
    assert!(third <= second - 400, "and the second: {seen:?}");

    // The smaller of the route's limits and the client's.
    for (path, given, within) in [
        ("/route", "60000", 4_000..5_000),
        ("/route", "900", 400..900),
        ("/try", "60000", 500..1_000),
        ("/try", "700", 200..700),
        ("/", "60000", 59_000..60_000),
    ] {
        let at = stage.v1.count();
        let answer = stage
            .send(&format!("GET {path}"), &expecting(given), "")
            .await;
        assert_eq!(status(&answer), "200");
        let left = told(&stage.v1, at).expect("a time");
        assert!(within.contains(&left), "{path}, {given}: {left}");
    }
    // A route's limit alone is told as well; nothing is told where there is none.
    let at = stage.v1.count();
    stage.get("/route").await;
    stage.get("/").await;
    assert!(told(&stage.v1, at).is_some_and(|left| left < 5_000));
    assert_eq!(told(&stage.v1, at + 1), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_time_passes_as_it_came() {
    let stage = Stage::new(route(
        json!([{"matches": [every()], "backends": [to("v1", 1)]}]),
    ))
    .await;
    for lines in [
        expecting("soon"),
        expecting("-5"),
        expecting("0"),
        expecting("1") + &expecting("2"),
    ] {
        let at = stage.v1.count();
        stage.v1.will(&[Step::Slow(Duration::from_millis(50))]);
        let answer = stage.send("GET /", &lines, "").await;
        assert_eq!(status(&answer), "200", "{lines}");
        let received = &stage.v1.received()[at].headers;
        let values = received.get_all(EXPECTED).iter();
        let seen: String = values
            .map(|value| expecting(value.to_str().expect("text")))
            .collect();
        assert_eq!(seen, lines);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_time_is_over_is_not_waited_for() {
    let stage = Stage::new(Value::Array(Vec::new())).await;
    for origin in [&stage.v1, &stage.v2] {
        origin.will(&[Step::Slow(Duration::from_secs(5))]);
    }
    let began = Instant::now();
    let answer = stage.send("GET /", &expecting("100"), "").await;
    assert!(
        status(&answer) == "504" && answer.contains("the time that the client gave it"),
        "without any route: {answer}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));

    let routes = route(json!([{"matches": [every()], "backends": [to("v1", 1)],
        "timeouts": {"request_ms": 60_000},
        "retry": {"attempts": 5, "statuses": [503], "grpc_codes": [], "backoff_ms": 150}}]));
    write_discovery(&stage.world, &routes, &Value::Null);
    for origin in [&stage.v1, &stage.v2] {
        origin.script.lock().expect("no panic").clear();
    }
    // Before, a request without the client's word had no such field; the one above had it.
    let before = stage.v1.count();
    eventually("the route is followed", async || {
        stage.get("/").await;
        let received = stage.v1.received();
        let mut since = received.iter().skip(before);
        since.any(|request| request.headers.contains_key(EXPECTED))
    })
    .await;
    // The wait before another try would outlast it: the client gets the last answer, and nothing else is sent.
    let before = stage.v1.count();
    stage.v1.will(&[Step::Status(503); 6]);
    let answer = stage.send("GET /", &expecting("100"), "").await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert_eq!(stage.v1.count(), before + 1);
    let refused = [("why", "time")];
    assert_eq!(
        stage.counted("mesh_retries_refused_total", &refused).await,
        1.0
    );
}

/// The code of a call of gRPC that may take so long.
async fn call(stage: &Stage, timeout: &str) -> Option<String> {
    grpc_code(stage.world.web_to_cart(), Some(timeout)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_carry_their_own_time_and_end_with_4() {
    let stage = Stage::speaking(
        route(json!([
            {"matches": [every()], "backends": [to("v1", 1)], "timeouts": {"request_ms": 2_000}},
        ])),
        true,
    )
    .await;
    stage.v1.will(&[Step::Grpc("0"), Step::Grpc("0")]);
    assert_eq!(call(&stage, "7S").await.as_deref(), Some("0"));
    let told = stage.v1.received()[0].headers["grpc-timeout"].clone();
    let told = told.to_str().expect("text");
    let micros: u64 = told
        .strip_suffix('u')
        .expect("microseconds")
        .parse()
        .expect("a number");
    assert!(
        (5_000_000..7_000_000).contains(&micros),
        "the route's limit ends with the head, the call does not: {told}"
    );
    assert_eq!(call(&stage, "soon").await.as_deref(), Some("0"));
    let received = stage.v1.received()[1].headers["grpc-timeout"].clone();
    assert_eq!(received, "soon", "its server says what is wrong");

    let before = stage.v1.count();
    assert_eq!(call(&stage, "0S").await.as_deref(), Some("4"));
    assert_eq!(stage.v1.count(), before, "not sent");
    stage.v1.will(&[Step::Slow(Duration::from_secs(5))]);
    let began = Instant::now();
    assert_eq!(call(&stage, "150m").await.as_deref(), Some("4"));
    assert!(began.elapsed() < Duration::from_millis(1_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_proxy_tells_its_application_what_is_left() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n{}\r\n",
        expecting("2000")
    );
    let answer = raw(world.web_to_cart(), head.as_bytes()).await;
    let (_, received) = answer.split_once("\r\n\r\n").expect("a body");
    let left: u64 = header(received, EXPECTED)
        .expect("a time")
        .parse()
        .expect("a number");
    assert!((1_000..2_000).contains(&left), "{received}");
    let denied = raw(world.cart_plain(), head.replace("2000", "1").as_bytes()).await;
    assert_eq!(
        status(&denied),
        "403",
        "whoever may not call is told so first"
    );
}
