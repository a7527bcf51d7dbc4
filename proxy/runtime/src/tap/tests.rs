//! What a tap tells, to whom, and when it is over.

use super::*;
use crate::answer::Answer;
use crate::audit::Records;
use crate::config::file::parse;
use crate::live::{End, Kill};
use crate::state::Shared;
use http_body::Body as _;
use mesh_platform::System;
use std::pin::Pin;
use std::time::Duration;

const SECOND: u64 = 1_000_000;

#[test]
fn there_are_so_many_in_each_second() {
    let two = PerSecond::new(2);
    assert!(two.take(999_999) && two.take(999_999) && !two.take(999_999));
    assert!(two.take(1_000_000) && two.take(1_999_999) && !two.take(1_999_999));
    assert!(two.take(9_000_000));
}

#[test]
fn a_core_that_comes_late_begins_no_second_anew() {
    let two = PerSecond::new(2);
    assert!(two.take(2_000_000) && two.take(2_000_000));
    assert!(!two.take(1_999_999), "counted with the second that runs");
    assert!(!two.take(2_000_001), "which has had its two");
}

fn shared() -> Arc<Shared> {
    let config = parse(include_str!("../../sample.yaml"), "proxy.yaml").expect("valid");
    Arc::new(Shared::new(config, System::new(), Records::default()))
}

fn told() -> Arc<Told> {
    Arc::new(Told::for_test("/\u{9b}2J\u{202e}"))
}

async fn next(answer: &mut Answer) -> Option<String> {
    let frame = std::future::poll_fn(|cx| Pin::new(answer.body_mut()).poll_frame(cx));
    let data = frame.await?.expect("no fault").into_data();
    Some(String::from_utf8(data.expect("lines").into()).expect("text"))
}

#[tokio::test]
async fn the_first_line_says_that_it_is_open_and_the_last_what_was_missed() {
    let shared = shared();
    let mut answer = answer(&shared, "", "a test", Kill::default());
    assert_eq!(
        next(&mut answer).await.as_deref(),
        Some("{\"kind\":\"open\"}\n")
    );
    let tap = shared.taps.open.load()[0].clone();
    tap.tell(&told(), 0);
    let line = next(&mut answer).await.expect("a line");
    assert!(
        line.contains("/\\u009b2J\\u202e") && line.is_ascii(),
        "{line}"
    );
    // Neither read nor told when the proxy stops.
    tap.tell(&told(), 0);
    tap.tell(&told(), 0);
    shared.stop();
    let last = next(&mut answer).await.expect("a last line");
    assert_eq!(
        last,
        "{\"kind\":\"missed\",\"over_rate\":0,\"slow_reader\":2}\n"
    );
    assert_eq!(next(&mut answer).await, None);
}

#[tokio::test]
async fn who_is_no_longer_trusted_is_told_nothing_more() {
    let (shared, kill) = (shared(), Kill::default());
    let mut answer = answer(&shared, "", "a test", kill.clone());
    next(&mut answer).await;
    shared.taps.open.load()[0].tell(&told(), 0);
    kill.end(End::PeerExpired);
    assert_eq!(next(&mut answer).await, None);
}

/// Whether a tap whose lines nobody takes is over, as whoever carries them is told without reading.
async fn ends(answer: &Answer) -> bool {
    let ended = std::future::poll_fn(|cx| answer.body().poll_ended(cx));
    tokio::time::timeout(Duration::from_secs(1), ended)
        .await
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_let_go() {
    let (shared, kill) = (shared(), Kill::default());
    let one = answer(&shared, "", "a test", kill.clone());
    assert!(!ends(&one).await);
    kill.end(End::PeerExpired);
    assert!(ends(&one).await);
    drop(one);
    let all: Vec<_> = (0..TAP_READERS)
        .map(|_| answer(&shared, "", "a test", Kill::default()))
        .collect();
    let first = shared.taps.open.load()[0].clone();
    // Waits already when it is displaced.
    let (ended, late) = tokio::join!(ends(&all[0]), async {
        tokio::task::yield_now().await;
        let late = shared.platform.monotonic().micros() + (TAP_UNREAD_SECS + 1) * SECOND;
        shared.taps.open(TapFilter::default(), late)
    });
    assert!(ended && late.is_some() && first.is_displaced());
    assert!(!ends(&all[1]).await);
    let (ended, ()) = tokio::join!(ends(&all[1]), async {
        tokio::task::yield_now().await;
        shared.stop();
    });
    assert!(ended);
}

fn full(taps: &Taps) -> Vec<Arc<Tap>> {
    let open = (0..TAP_READERS).map(|_| taps.open(TapFilter::default(), 0));
    open.map(|one| one.expect("a tap").0).collect()
}

#[test]
fn readers_are_few_and_leave_their_place() {
    let taps = Taps::default();
    assert!(taps.are_idle());
    let all = full(&taps);
    assert!(taps.open(TapFilter::default(), 0).is_none());
    taps.close(&all[0]);
    assert!(taps.open(TapFilter::default(), 0).is_some() && !taps.are_idle());
    assert!(taps.open(TapFilter::default(), 0).is_none());
    all.iter().for_each(|tap| taps.close(tap));
    assert!(!taps.are_idle(), "the one that came later");
}

#[test]
fn a_place_that_nobody_reads_at_goes_to_who_asks() {
    let taps = Taps::default();
    let all = full(&taps);
    let late = (TAP_UNREAD_SECS + 1) * SECOND;
    for tap in &all[1..] {
        tap.read_us.store(late, Ordering::Relaxed);
    }
    let at_the_limit = TAP_UNREAD_SECS * SECOND;
    assert!(taps.open(TapFilter::default(), at_the_limit).is_none());
    assert!(taps.open(TapFilter::default(), late).is_some());
    let displaced = |tap: &Arc<Tap>| tap.is_displaced();
    assert!(displaced(&all[0]) && !all[1..].iter().any(displaced));
    assert!(taps.open(TapFilter::default(), late).is_none(), "all read");
}

#[test]
fn what_is_said_of_requests_is_said_of_no_byte_stream() {
    let taps = Taps::default();
    let web = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    let of = |query: &str| TapFilter::read(query).unwrap();
    let inbound = Way::Inbound {
        client: Some(&web),
        port: 8080,
    };
    let line = Line {
        method: "GET",
        path: "/items",
        host: Some("cart"),
    };
    let request = Asked {
        way: inbound,
        protocol: Protocol::Http,
        request: Some(line),
    };
    let stream = Asked {
        protocol: Protocol::Tcp,
        request: None,
        ..request
    };
    let leaving = Asked {
        way: Way::Outbound {
            service: "shop/cart:80",
        },
        ..request
    };
    for (query, want) in [
        ("", [true, true, true]),
        ("method=GET", [true, false, true]),
        ("method=get", [false, false, false]),
        ("path=/", [true, false, true]),
        ("path=/items/", [false, false, false]),
        ("host=cart", [true, false, true]),
        ("host=Cart", [false, false, false]),
        ("protocol=tcp", [false, true, false]),
        ("protocol=http", [true, false, true]),
        ("direction=inbound", [true, true, false]),
        ("direction=outbound", [false, false, true]),
        ("target=8080", [true, true, false]),
        ("target=808", [false, false, false]),
        ("target=shop/cart:80", [false, false, true]),
        (
            "from=spiffe://cluster.local/ns/shop/sa/web",
            [true, true, false],
        ),
        (
            "from=spiffe://prod.example/ns/shop/sa/web",
            [false, false, false],
        ),
    ] {
        let (tap, _receiver) = taps.open(of(query), 0).unwrap();
        let got = [request, stream, leaving].map(|asked| tap.wants(&asked));
        assert_eq!(got, want, "{query}");
        taps.close(&tap);
    }
}
