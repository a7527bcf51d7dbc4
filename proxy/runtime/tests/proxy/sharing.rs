//! How endpoints of a service share requests, and when one is left out for its failures.

use super::stage::*;
use super::world::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Waits until the service `echo`, with these fields, is known. `mark` is a path that was used for nothing before: where
/// its requests go shows that the fields beside it are in force.
async fn known(stage: &Stage, mark: &str, of_echo: &Value) {
    let mut fields = of_echo.clone();
    fields["routes"] = route(json!([
        {"matches": [prefix(mark)], "backends": []},
        {"matches": [every()], "backends": [to("echo", 1)]},
    ]));
    write_services(&stage.world, &fields, &json!({}));
    eventually("the fields are known", async || {
        status(&stage.get(mark).await) == "500"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_one_key_go_to_one_endpoint_with_and_without_routes() {
    let by = |key: Value| json!({"balancing": {"by": {"key": key}, "slow_start_ms": 0}});
    let header = by(json!({"header": "x-user"}));
    let stage = Stage::with(&header, false).await;
    let of = async |line: &str| app(&stage.send("GET /", line, "").await).to_owned();
    let mut owners = BTreeMap::new();
    for user in 0..24 {
        let line = format!("x-user: user-{user}\r\n");
        let owner = of(&line).await;
        for _ in 0..4 {
            assert_eq!(of(&line).await, owner, "{line}");
        }
        owners.insert(line, owner);
    }
    assert!(owners.values().any(|app| app == "v1") && owners.values().any(|app| app == "v2"));
    assert_eq!(of("").await.len(), 2, "what has no key goes by load");

    known(&stage, "/by-header", &header).await;
    for (line, owner) in &owners {
        assert_eq!(of(line).await, *owner, "under routes, and after a change");
    }
    known(&stage, "/by-cookie", &by(json!({"cookie": "sid"}))).await;
    let first = of("Cookie: a=b; sid=1\r\n").await;
    for _ in 0..10 {
        assert_eq!(of("Cookie: sid=1\r\n").await, first);
    }
    known(&stage, "/by-identity", &by(json!("sourceIdentity"))).await;
    let first = of("").await;
    for _ in 0..10 {
        assert_eq!(of("x-user: ada\r\n").await, first, "all of one client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_shares() {
    let stage = Stage::new(Value::Array(Vec::new())).await;
    let fields = json!({"weights": [1, 9], "balancing": {"by": "requests", "slow_start_ms": 0}});
    known(&stage, "/by-requests", &fields).await;
    let mut to_v2 = 0;
    for _ in 0..200 {
        to_v2 += u32::from(app(&stage.get("/").await) == "v2");
    }
    assert!((160..=198).contains(&to_v2), "{to_v2}");
}

/// A stage whose `v1` is left out for half a minute after three failures, and answers late for 300 requests. A client of
/// `/known` sees that this is known; requests of `/patient` have the route's own limit.
async fn failing_late(http2: bool) -> Stage {
    let stage = Stage::speaking(Value::Array(Vec::new()), http2).await;
    let accrual = json!({"max_failures": 3, "min_penalty_ms": 30_000, "max_penalty_ms": 60_000, "jitter_percent": 0});
    let routes = route(json!([
        {"matches": [prefix("/known")], "backends": []},
        {"matches": [prefix("/patient")], "backends": [to("v1", 1)], "timeouts": {"request_ms": 30}},
        {"matches": [every()], "backends": [to("v1", 1)]},
    ]));
    write_services(
        &stage.world,
        &json!({"routes": routes}),
        &json!({"failure_accrual": accrual}),
    );
    eventually("the breaker is known", async || {
        status(&stage.get("/known").await) == "500"
    })
    .await;
    stage
        .v1
        .will(&[Step::Slow(Duration::from_millis(400)); 300]);
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_a_hurry_has_no_endpoint_left_out() {
    let stage = failing_late(false).await;
    for ms in [1, 2, 3, 20].repeat(6) {
        let given = format!("x-envoy-expected-rq-timeout-ms: {ms}\r\n");
        let answer = stage.send("GET /", &given, "").await;
        assert_eq!(status(&answer), "504", "{ms}: {answer}");
    }
    assert_eq!(status(&stage.get("/").await), "200");
    // The route's own limit is no client's choice.
    for _ in 0..3 {
        assert_eq!(status(&stage.get("/patient").await), "504");
    }
    let left_out = stage.get("/").await;
    assert!(left_out.contains("MESH-0473"), "{left_out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_grpc_in_a_hurry_has_none_left_out_either() {
    let stage = failing_late(true).await;
    let to = stage.world.web_to_cart();
    for timeout in ["500u", "1m", "20m"].repeat(6) {
        let code = grpc_code(to, Some(timeout)).await;
        assert_eq!(code.as_deref(), Some("4"), "{timeout}");
    }
    stage.v1.script.lock().expect("no panic").clear();
    stage.v1.will(&[Step::Grpc("0")]);
    assert_eq!(grpc_code(to, None).await.as_deref(), Some("0"));
    let before = stage.v1.count();
    stage.v1.will(&[Step::Grpc("4"); 4]);
    for want in ["4", "4", "4", "14"] {
        assert_eq!(grpc_code(to, Some("9S")).await.as_deref(), Some(want));
    }
    assert_eq!(stage.v1.count(), before + 3, "with time left it has failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_on_successes_leaves_out_what_fails_every_other_time() {
    let stage = Stage::new(Value::Array(Vec::new())).await;
    let accrual = json!({"max_failures": 100, "min_penalty_ms": 30_000, "max_penalty_ms": 60_000, "jitter_percent": 0,
        "success_rate": {"percent_min": 80, "window_ms": 10_000, "requests_min": 6}});
    let routes = route(json!([
        {"matches": [prefix("/known")], "backends": []},
        {"matches": [every()], "backends": [to("v1", 1)]},
    ]));
    write_services(
        &stage.world,
        &json!({"routes": routes}),
        &json!({"failure_accrual": accrual}),
    );
    eventually("the breaker is known", async || {
        status(&stage.get("/known").await) == "500"
    })
    .await;
    let before = stage.v1.count();
    stage
        .v1
        .will(&[Step::Status(503), Step::Status(200)].repeat(20));
    let mut open = 0;
    for _ in 0..40 {
        open += usize::from(stage.get("/").await.contains("MESH-0473"));
    }
    let reached = stage.v1.count() - before;
    assert!((5..=12).contains(&reached), "{reached}");
    assert_eq!(open, 40 - reached, "the rest fails at once");
}

/// The discovery file says that this proxy is in zone `a`.
#[tokio::test(flavor = "multi_thread")]
async fn requests_stay_in_the_zone_until_it_fails() {
    let stage = Stage::new(Value::Array(Vec::new())).await;
    known(&stage, "/zones", &json!({"zones": [["a"], ["b"]]})).await;
    // Two of 100 go to the other side to know it. Answers that were slow by chance let more go for a while; these come back.
    eventually("requests stay in the zone", async || {
        let mut near = 0;
        for _ in 0..100 {
            near += u32::from(app(&stage.get("/").await) == "v1");
        }
        near >= 60
    })
    .await;
    let own = [("zone", "own")];
    let counted = stage.counted("mesh_zone_requests_total", &own).await;
    assert!(counted >= 60.0, "{counted}");

    stage.v1.will(&[Step::Status(503); 1_000]);
    let mut near = 0;
    for number in 0..700 {
        let failed = status(&stage.get("/").await) == "503";
        near += u32::from(failed && number >= 600);
    }
    assert!(near <= 20, "{near} of 100 to a zone that fails");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_without_endpoints_keeps_nobody() {
    let stage = Stage::new(Value::Array(Vec::new())).await;
    known(&stage, "/elsewhere", &json!({"zones": [["b"], ["c"]]})).await;
    for _ in 0..100 {
        assert_eq!(status(&stage.get("/").await), "200");
    }
    // How many went where says nothing: one after the other they go to whoever was faster. That nothing is preferred, the
    // counter tells.
    assert_eq!(stage.counted("mesh_zone_requests_total", &[]).await, 0.0);
}
