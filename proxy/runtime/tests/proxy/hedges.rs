//! A second try beside a slow first: which requests have one, who answers, and what becomes of the other.

use super::stage::*;
use super::world::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SLOW: Step = Step::Slow(Duration::from_secs(20));

/// Its endpoints share by requests alone: by latency the slow one would get nothing more.
async fn stage(rules: Value) -> Stage {
    let fields = json!({"routes": route(rules), "balancing": {"by": "requests"}});
    Stage::with(&fields, false).await
}

async fn hedged(after: Value) -> Stage {
    stage(json!([{"matches": [every()], "backends": [to("echo", 1)], "hedge": after}])).await
}

/// Sends until a request is taken by `v1`, which answers nothing for long; that request's answer and how long it took.
async fn caught(stage: &Stage, line: &str, body: &str) -> (String, Duration) {
    stage.v1.will(&[SLOW]);
    let before = stage.v1.count();
    for _ in 0..100 {
        let began = Instant::now();
        let answer = stage.send(line, "", body).await;
        if stage.v1.count() > before {
            return (answer, began.elapsed());
        }
    }
    panic!("no request went to v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_the_second_counts_and_the_first_is_taken_back() {
    let stage = hedged(json!({"afterMs": 100})).await;
    let (answer, took) = caught(&stage, "GET /a", "").await;
    assert_eq!((status(&answer), app(&answer)), ("200", "v2"));
    assert!(
        (Duration::from_millis(100)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    eventually("the first is reset", async || stage.v1.given_up() == 1).await;
    let second = [("won", "second")];
    assert_eq!(stage.counted("mesh_hedges_total", &second).await, 1.0);

    let (answer, _) = caught(&stage, "PUT /b", "the body").await;
    assert_eq!((status(&answer), app(&answer)), ("200", "v2"));
    for origin in [&stage.v1, &stage.v2] {
        let last = origin.received().pop().expect("a request");
        assert_eq!((&*last.line, &last.body[..]), ("PUT /b", &b"the body"[..]));
    }
    assert_eq!(stage.counted("mesh_hedges_total", &second).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_done_twice_is_sent_once() {
    let rules = json!([
        {"matches": [prefix("/limit")], "backends": [to("echo", 1)], "hedge": {"afterMs": 50},
         "timeouts": {"request_ms": 700}},
        {"matches": [prefix("/alone")], "backends": [to("v1", 1)], "hedge": {"afterMs": 50},
         "timeouts": {"request_ms": 700}},
    ]);
    let stage = stage(rules).await;
    let (answer, _) = caught(&stage, "POST /limit", "x").await;
    assert_eq!(status(&answer), "504");
    let large = "x".repeat(100_000);
    let (answer, _) = caught(&stage, "PUT /limit", &large).await;
    assert_eq!(status(&answer), "504");
    let (answer, _) = caught(&stage, "GET /alone", "").await;
    assert_eq!(status(&answer), "504", "there is no other endpoint");
    assert_eq!(stage.counted("mesh_hedges_total", &[]).await, 0.0);
    let body = [("why", "body")];
    assert_eq!(
        stage.counted("mesh_retries_refused_total", &body).await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_does_not_win_while_something_better_may_come() {
    let stage = hedged(json!({"afterMs": 50})).await;
    // The second answers at once, and badly; the first well, and late.
    stage.v1.will(&[Step::Slow(Duration::from_millis(400))]);
    let before = stage.v1.count();
    let mut answer = String::new();
    for _ in 0..100 {
        stage.v2.script.lock().expect("no panic").clear();
        let sent = stage.send("GET /", "", "");
        let second = async {
            eventually("v1 has it, or v2 had", async || {
                stage.v1.count() > before || stage.v2.count() > 0
            })
            .await;
            stage.v2.will(&[Step::Status(503)]);
        };
        (answer, _) = tokio::join!(sent, second);
        if stage.v1.count() > before {
            break;
        }
        stage.v2.received.lock().expect("no panic").clear();
    }
    assert_eq!((status(&answer), app(&answer)), ("200", "v1"), "{answer}");
    let first = [("won", "first")];
    assert_eq!(stage.counted("mesh_hedges_total", &first).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_percentile_is_known_once_there_were_answers() {
    let stage = hedged(json!({"percentile": 95})).await;
    for _ in 0..40 {
        assert_eq!(status(&stage.get("/").await), "200");
    }
    let (answer, took) = caught(&stage, "GET /", "").await;
    assert_eq!((status(&answer), app(&answer)), ("200", "v2"));
    assert!(took < Duration::from_secs(5), "{took:?}");
    eventually("the first is reset", async || stage.v1.given_up() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hedges_end_with_the_budget_of_retries() {
    let stage = hedged(json!({"afterMs": 1})).await;
    // All are slow, so that each request wants a second try; a hundred and a fifth of the requests may have one.
    for origin in [&stage.v1, &stage.v2] {
        origin.will(&vec![Step::Slow(Duration::from_millis(20)); 600]);
    }
    for _ in 0..20 {
        let many = (0..10).map(|_| stage.get("/"));
        let many: Vec<_> = many.map(Box::pin).collect();
        for answer in join_all(many).await {
            assert_eq!(status(&answer), "200");
        }
    }
    let hedges = stage.counted("mesh_hedges_total", &[]).await;
    assert!((90.0..=145.0).contains(&hedges), "{hedges}");
    let refused = [("why", "budget")];
    let refused = stage.counted("mesh_retries_refused_total", &refused).await;
    assert!(refused > 20.0, "{refused}");
}

/// All of these at once.
async fn join_all<F: Future + Unpin>(mut all: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (one, out) in all.iter_mut().zip(&mut done) {
            if out.is_none()
                && let std::task::Poll::Ready(ended) = std::pin::Pin::new(one).poll(cx)
            {
                *out = Some(ended);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
