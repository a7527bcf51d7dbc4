//! Sessions: clients come back to the endpoint that they had, and to the backend that has it.

use super::stage::*;
use super::world::*;
use serde_json::{Value, json};

/// A rule that sends to both endpoints of `echo`, or by weight to others, with sessions.
fn in_sessions(backends: Value, session: Value) -> Value {
    route(json!([{"matches": [every()], "backends": backends, "session": session}]))
}

fn cookie() -> Value {
    json!({"name": "sid", "carrier": "cookie", "path": "/"})
}

/// What the answer sets the cookie to.
fn set(answer: &str) -> Option<&str> {
    let value = header(answer, "set-cookie")?.strip_prefix("sid=")?;
    Some(value.split(';').next().unwrap_or_default())
}

async fn with_cookie(stage: &Stage, value: &str) -> String {
    stage
        .send("GET /", &format!("Cookie: a=b; sid={value}\r\n"), "")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_leads_back_to_the_endpoint_and_says_nothing_of_it() {
    let stage = Stage::new(in_sessions(json!([to("echo", 1)]), cookie())).await;
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..30 {
        let answer = stage.get("/").await;
        let value = set(&answer).expect("a cookie").to_owned();
        seen.insert(app(&answer).to_owned(), value);
    }
    assert_eq!(seen.len(), 2, "both endpoints are in use: {seen:?}");
    for (name, value) in &seen {
        assert!(
            value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()),
            "{value}"
        );
        for _ in 0..20 {
            let answer = with_cookie(&stage, value).await;
            assert_eq!(app(&answer), name);
            assert_eq!(set(&answer), None, "it is as it was");
        }
    }
    let sent = stage.v1.received().last().expect("a request").headers["cookie"].clone();
    assert!(sent.to_str().expect("text").starts_with("a=b; sid="));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_its_backend_whatever_the_weights_until_it_has_none() {
    let stage = Stage::new(in_sessions(json!([to("v1", 1), to("v2", 1)]), cookie())).await;
    let mut value = None;
    for _ in 0..200 {
        let answer = stage.get("/").await;
        if app(&answer) == "v2" {
            value = set(&answer).map(str::to_owned);
            break;
        }
    }
    let value = value.expect("half of the requests go to v2");
    let weights = |v1: u32, v2: u32| in_sessions(json!([to("v1", v1), to("v2", v2)]), cookie());
    write_discovery(&stage.world, &weights(999_999, 1), &Value::Null);
    eventually("new sessions go to v1", async || {
        let mut all = true;
        for _ in 0..20 {
            all &= app(&stage.get("/").await) == "v1";
        }
        all
    })
    .await;
    for _ in 0..20 {
        assert_eq!(app(&with_cookie(&stage, &value).await), "v2");
    }
    write_discovery(&stage.world, &weights(1, 0), &Value::Null);
    eventually("v2 is left", async || {
        let answer = with_cookie(&stage, &value).await;
        app(&answer) == "v1" && set(&answer).is_some_and(|new| new != value)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_replaced_and_said_anew() {
    let stage = Stage::new(in_sessions(json!([to("echo", 1)]), cookie())).await;
    for made_up in [
        "00000000000000000000000000000000",
        "",
        "127.0.0.1:8081",
        "x",
    ] {
        let answer = with_cookie(&stage, made_up).await;
        assert_eq!(status(&answer), "200", "{made_up}");
        let new = set(&answer).expect("another").to_owned();
        let again = with_cookie(&stage, &new).await;
        assert_eq!((app(&again), set(&again)), (app(&answer), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_after_the_sessions_endpoint_failed_goes_anywhere_and_moves_the_session() {
    let rule = json!([{"matches": [every()], "backends": [to("echo", 1)], "session": cookie(),
        "retry": {"attempts": 8, "statuses": [503], "grpc_codes": [], "backoff_ms": 1}}]);
    let stage = Stage::new(route(rule)).await;
    let mut value = String::new();
    for _ in 0..200 {
        let answer = stage.get("/").await;
        if app(&answer) == "v1" {
            value = set(&answer).expect("a cookie").to_owned();
            break;
        }
    }
    stage.v1.will(&[Step::Status(503); 8]);
    let answer = with_cookie(&stage, &value).await;
    assert_eq!((status(&answer), app(&answer)), ("200", "v2"));
    assert!(set(&answer).is_some_and(|new| new != value), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_carries_a_session_that_ends() {
    let session =
        json!({"name": "X-Session", "carrier": "header", "path": "/", "lives_secs": 3600});
    let stage = Stage::new(in_sessions(json!([to("echo", 1)]), session)).await;
    let first = stage.get("/").await;
    let value = header(&first, "x-session").expect("a session").to_owned();
    let (token, end) = value.split_once('.').expect("an end");
    for _ in 0..20 {
        let line = format!("x-session: {value}\r\n");
        let again = stage.send("GET /", &line, "").await;
        assert_eq!(
            (app(&again), header(&again, "x-session")),
            (app(&first), None)
        );
    }
    let end = i64::from_str_radix(end, 16).expect("hexadecimal");
    for wrong in [end - 4_000, end + 4_000] {
        let line = format!("x-session: {token}.{wrong:x}\r\n");
        let answer = stage.send("GET /", &line, "").await;
        assert!(header(&answer, "x-session").is_some(), "begun anew");
    }
}
