//! Faults for a test: injected into allowed requests of whom they name, and seen by nobody else.

use super::stage::*;
use super::streams;
use super::world::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

/// An HTTPFault on the Server of `cart`, with these lines of its spec.
fn fault(name: &str, client: &str, until: &str, lines: &str) -> String {
    format!(
        "---
apiVersion: mesh.internal/v1alpha1
kind: HTTPFault
metadata: {{ name: {name}, namespace: shop }}
spec:
  targetRef: {{ group: policy.linkerd.io, kind: Server, name: cart-http }}
  identities: [\"{client}\"]
  until: \"{until}\"
{lines}
"
    )
}

const LATER: &str = "2999-01-01T00:00:00Z";
const PAST: &str = "2001-01-01T00:00:00Z";
const ABORT: &str = "  abort: { percent: 100, httpStatus: 418, grpcStatus: 10 }";

async fn world_with(protocol: &str, allowed: &[&str], faults: &str) -> (World, Origin) {
    let world = World::running(&(cart_policy(protocol, allowed) + faults));
    let app = Origin::start("cart", world.cart_app(), protocol == "gRPC").await;
    (world, app)
}

async fn counted(world: &World, name: &str) -> f64 {
    let text = mesh_api::admin::get(&world.cart_socket(), "/metrics").await;
    let text = String::from_utf8(text.expect("metrics")).expect("text");
    let samples = mesh_proxy_core::exposition::parse(&text).expect("samples");
    let wanted = samples.iter().filter(|sample| sample.name == name);
    wanted.map(|sample| sample.value).sum()
}

const INJECTED: &str = "mesh_faults_injected_total";

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_answers_whom_it_names_and_is_recorded_whatever_is_sampled() {
    let mut world =
        World::new(&(cart_policy("HTTP/1", &[WEB]) + &fault("teapot", WEB, LATER, ABORT)));
    world.sample = "0.0";
    world.start_cart();
    world.start_web();
    let app = Origin::start("cart", world.cart_app(), false).await;
    for _ in 0..3 {
        let answer = get(world.web_to_cart(), "/a").await;
        assert!(
            status(&answer) == "418" && answer.contains("MESH-0448: HTTPFault `shop/teapot`"),
            "{answer}"
        );
    }
    assert_eq!(app.count(), 0, "not served");
    assert_eq!(counted(&world, INJECTED).await, 3.0);
    let records = world.cart_records();
    assert_eq!(records.len(), 3, "{records:#?}");
    for record in records {
        assert_eq!(record["verdict"], "allow");
        let said = json!({"name": "HTTPFault/shop/teapot", "abort": 418});
        assert_eq!(record["fault"], said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_is_denied_as_without_the_fault() {
    let slow = fault(
        "slow",
        WEB,
        LATER,
        "  delay: { percent: 100, duration: 5s }",
    );
    let faults = fault("teapot", WEB, LATER, ABORT) + &slow;
    let (mut world, app) = world_with("HTTP/1", &[OTHER], &faults).await;
    let began = Instant::now();
    let answer = get(world.web_to_cart(), "/").await;
    assert_eq!(status(&answer), "403");
    assert!(!answer.contains("HTTPFault") && !answer.contains("MESH-0448"));
    assert!(began.elapsed() < Duration::from_secs(3), "at once");
    assert_eq!((app.count(), counted(&world, INJECTED).await), (0, 0.0));
    let records = world.cart_records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["verdict"], "deny");
    assert_eq!(records[0].get("fault"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_others_or_one_that_is_over_or_invalid_disturbs_nobody() {
    for (faults, what) in [
        (fault("f", OTHER, LATER, ABORT), "another client"),
        (fault("f", WEB, PAST, ABORT), "over"),
        (fault("f", "*", LATER, ABORT), "a wildcard"),
        (
            fault(
                "f",
                WEB,
                LATER,
                "  abort: { percent: 100, httpStatus: 200 }",
            ),
            "no error",
        ),
        (
            fault("f", WEB, LATER, ABORT).replace(&format!("  until: \"{LATER}\"\n"), ""),
            "no end",
        ),
    ] {
        let (world, app) = world_with("HTTP/1", &[WEB], &faults).await;
        let answer = get(world.web_to_cart(), "/").await;
        assert_eq!((status(&answer), app.count()), ("200", 1), "{what}");
        assert_eq!(counted(&world, INJECTED).await, 0.0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_comes_before_the_application_and_counts_against_the_clients_time() {
    let slow = "  delay: { percent: 100, duration: 300ms }";
    let (world, app) = world_with("HTTP/1", &[WEB], &fault("slow", WEB, LATER, slow)).await;
    let began = Instant::now();
    assert_eq!(status(&get(world.web_to_cart(), "/").await), "200");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let timed = async |ms: u32| {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\nx-envoy-expected-rq-timeout-ms: {ms}\r\n\r\n"
        );
        raw(world.web_to_cart(), head.as_bytes()).await
    };
    assert_eq!(status(&timed(2_000).await), "200");
    let told = &app.received()[1].headers["x-envoy-expected-rq-timeout-ms"];
    let left: u32 = told.to_str().expect("text").parse().expect("a number");
    assert!((500..=1_700).contains(&left), "{left}");
    assert_eq!(status(&timed(100).await), "504");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(app.count(), 2, "what had no time left was not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_request_ends_when_policy_no_longer_allows_it() {
    let slow = fault(
        "slow",
        WEB,
        LATER,
        "  delay: { percent: 100, duration: 1m }",
    );
    let (world, app) = world_with("HTTP/1", &[WEB], &slow).await;
    let to = world.web_to_cart();
    let waiting = tokio::spawn(async move { get(to, "/").await });
    eventually("it waits", async || counted(&world, INJECTED).await > 0.0).await;
    world.write_policy(&(cart_policy("HTTP/1", &[OTHER]) + &slow));
    let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let answer = answer.expect("an end").expect("no panic");
    assert_eq!((status(&answer), app.count()), ("403", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_at_the_rate_of_the_fault() {
    let rate = "  bandwidth: { percent: 100, bytesPerSecond: 10 }";
    let (world, app) = world_with("HTTP/1", &[WEB], &fault("drops", WEB, LATER, rate)).await;
    let began = Instant::now();
    let answer = get(world.web_to_cart(), "/").await;
    assert!(answer.ends_with("\r\n\r\ncart"), "{answer}");
    assert!(began.elapsed() >= Duration::from_millis(390));
    assert_eq!(app.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_grpc_gets_the_code_of_grpc() {
    let (world, app) = world_with("gRPC", &[WEB], &fault("abort", WEB, LATER, ABORT)).await;
    let response = streams::call(world.web_to_cart(), "/say.Say/Once").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "10");
    let message = response.headers()["grpc-message"].to_str().expect("text");
    assert!(message.contains("MESH-0448"), "{message}");
    assert_eq!(app.count(), 0);
}

/// What a fault is for: the routes of its client meet it as they meet an application that fails.
#[tokio::test(flavor = "multi_thread")]
async fn retries_of_a_route_meet_a_fault() {
    let stage = Stage::new(route(
        json!([{"matches": [every()], "backends": [to("v1", 1)],
        "retry": {"attempts": 3, "statuses": [503], "grpc_codes": [], "backoff_ms": 1}}]),
    ))
    .await;
    let abort = fault(
        "abort",
        WEB,
        LATER,
        "  abort: { percent: 100, httpStatus: 503 }",
    );
    stage
        .world
        .write_policy(&(policy() + &abort.replace("cart-http", "port-8081")));
    eventually("the fault is in force", async || {
        status(&stage.get("/").await) == "503"
    })
    .await;
    let before = counted(&stage.world, INJECTED).await;
    let answer = stage.get("/").await;
    assert!(answer.contains("MESH-0448"), "{answer}");
    assert_eq!(counted(&stage.world, INJECTED).await, before + 4.0);
    assert_eq!(
        Value::from(stage.v2.count()),
        Value::from(0),
        "and no other backend"
    );
}
