//! When a request is tried again, and when never.

use super::*;

const SEC: u64 = 1_000_000;
const GET: Repeatable = Repeatable {
    idempotent: true,
    grpc: false,
};
const POST: Repeatable = Repeatable {
    idempotent: false,
    grpc: false,
};
const RPC: Repeatable = Repeatable {
    idempotent: false,
    grpc: true,
};

fn retry() -> Retry {
    Retry::compile(&traffic::Retry {
        attempts: 2,
        statuses: vec![502, 503],
        grpc_codes: vec![14],
        backoff_ms: 25,
    })
}

#[test]
fn only_what_the_route_names_is_tried_again_and_only_so_often() {
    let answered = |status, grpc| TryEnd::Answered { status, grpc };
    let failed = |status, grpc, sent| TryEnd::Failed { status, grpc, sent };
    for (tries, end, request, want) in [
        (1, answered(503, None), GET, true),
        (1, answered(503, None), POST, true), // the route says so
        (1, answered(500, None), GET, false),
        (1, answered(200, None), GET, false),
        (2, answered(503, None), GET, true),
        (3, answered(503, None), GET, false), // two retries, not three
        (1, answered(200, Some(14)), RPC, true),
        (1, answered(200, Some(13)), RPC, false),
        (1, answered(200, Some(0)), RPC, false),
        (1, answered(503, None), RPC, true), // no code: somebody before the application
        (1, answered(200, Some(14)), GET, false), // not gRPC, whatever it says
        (1, failed(503, 14, false), POST, true), // nothing was passed on
        (1, failed(503, 14, false), RPC, true),
        (1, failed(502, 14, true), GET, true),
        (1, failed(502, 14, true), POST, true), // named
        (1, failed(504, 4, true), GET, true),
        (1, failed(504, 4, true), POST, false), // may have been served, and nobody named it
        (1, failed(504, 4, true), RPC, false),
        (1, failed(502, 14, true), RPC, true),
        (3, failed(503, 14, false), GET, false),
    ] {
        assert_eq!(
            retry().wants(tries, end, request),
            want,
            "{tries} {end:?} {request:?}"
        );
    }
}

#[test]
fn waits_double_with_jitter_above_and_have_an_end() {
    let retry = retry();
    for (tries, least) in [
        (1, 25_000),
        (2, 50_000),
        (3, 100_000),
        (10, 10_000_000),
        (200, 10_000_000),
    ] {
        for random in [0, 1, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            let wait = retry.wait_us(tries, random);
            assert!(
                (least..=least + least / 2).contains(&wait),
                "{tries}: {wait}"
            );
        }
        assert_ne!(retry.wait_us(tries, 1), retry.wait_us(tries, 2), "jitter");
    }
    let none = Retry::compile(&traffic::Retry {
        attempts: 1,
        statuses: Vec::new(),
        grpc_codes: Vec::new(),
        backoff_ms: 0,
    });
    assert_eq!(none.wait_us(1, u64::MAX), 0);
}

#[test]
fn attempts_have_a_limit() {
    let many = Retry::compile(&traffic::Retry {
        attempts: 1_000,
        statuses: vec![503],
        grpc_codes: Vec::new(),
        backoff_ms: 0,
    });
    let end = TryEnd::Answered {
        status: 503,
        grpc: None,
    };
    assert!(many.wants(RETRY_ATTEMPTS_MAX, end, GET));
    assert!(!many.wants(RETRY_ATTEMPTS_MAX + 1, end, GET));
}

/// How many retries a budget gives at a time.
fn drain(budget: &mut Budget, now_us: u64) -> u64 {
    let mut taken = 0;
    while taken < 1_000_000 && budget.take(now_us) {
        taken += 1;
    }
    taken
}

#[test]
fn a_quiet_service_has_ten_retries_a_second_over_ten_seconds() {
    let mut budget = Budget::default();
    let start = 1_000 * SEC;
    assert_eq!(drain(&mut budget, start), 100);
    assert_eq!(
        drain(&mut budget, start + 9 * SEC),
        0,
        "the window is not over"
    );
    assert_eq!(drain(&mut budget, start + 10 * SEC), 100);
}

#[test]
fn a_busy_service_has_a_fifth_of_its_requests_more() {
    let mut budget = Budget::default();
    for second in 0..10 {
        for _ in 0..1_000 {
            budget.on_request(second * SEC);
        }
    }
    assert_eq!(drain(&mut budget, 9 * SEC), 2_000 + 100);
    assert_eq!(drain(&mut budget, 9 * SEC), 0);
    // What is older than ten seconds gives nothing any more: neither requests nor the retries of then.
    assert_eq!(drain(&mut budget, 30 * SEC), 100);
}
