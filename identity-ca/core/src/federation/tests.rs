//! Addresses, relations, which bundle counts, and when the next one is fetched.

use super::*;
use crate::testing::TestKey;
use mesh_trust::TrustBundle;
use mesh_trust::jwt::{JwtBundle, JwtKey};

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn key() -> JwtKey {
    JwtKey::from_p256_point(TestKey::new().public.point()).unwrap()
}

/// A bundle of `partner.example` that trusts `keys` alone.
fn bundle(sequence: Option<u64>, keys: &[(&str, &JwtKey)]) -> WholeBundle {
    let of = domain("partner.example");
    let x509 = TrustBundle::new(of.clone(), Vec::new()).unwrap();
    let jwt = keys.iter().fold(JwtBundle::new(of), |jwt, (kid, key)| {
        jwt.with_key(*kid, (*key).clone())
    });
    let whole = WholeBundle::new(x509, jwt).unwrap();
    match sequence {
        Some(sequence) => whole.with_sequence(sequence),
        None => whole,
    }
}

#[test]
fn only_a_bundle_that_is_newer_takes_the_place_of_another() {
    let (one, two) = (key(), key());
    let (a, b) = (&[("a", &one)][..], &[("a", &two)][..]);
    let held = bundle(Some(7), a);
    let judged = |fetched: &WholeBundle| judge(Some(&held), fetched);
    assert_eq!(judged(&bundle(Some(8), b)), Ok(News::Newer));
    assert_eq!(
        judged(&bundle(Some(8), a)),
        Ok(News::Newer),
        "a number alone"
    );
    assert_eq!(judged(&bundle(Some(7), a)), Ok(News::Same));
    assert_eq!(judged(&bundle(Some(u64::MAX), b)), Ok(News::Newer));
    let refused = |fetched: &WholeBundle| judged(fetched).unwrap_err();
    let of = domain("partner.example");
    for older in [a, b] {
        let wanted = StaleBundle::Rollback {
            domain: of.clone(),
            held: 7,
            found: 6,
        };
        assert_eq!(refused(&bundle(Some(6), older)), wanted, "whatever it says");
    }
    let disagrees = StaleBundle::SameSequence {
        domain: of.clone(),
        sequence: 7,
    };
    assert_eq!(refused(&bundle(Some(7), b)), disagrees);
    assert_eq!(refused(&bundle(Some(7), &[])), disagrees, "fewer keys too");
    let unnumbered = StaleBundle::NoSequence {
        domain: of,
        held: 7,
    };
    assert_eq!(refused(&bundle(None, a)), unnumbered);
}

#[test]
fn without_numbers_the_content_decides() {
    let (one, two) = (key(), key());
    let held = bundle(None, &[("a", &one)]);
    let judged = |fetched: &WholeBundle| judge(Some(&held), fetched);
    assert_eq!(judged(&bundle(None, &[("a", &one)])), Ok(News::Same));
    assert_eq!(judged(&bundle(None, &[("a", &two)])), Ok(News::Newer));
    assert_eq!(judged(&bundle(Some(0), &[("a", &one)])), Ok(News::Newer));
    assert_eq!(judge(None, &bundle(Some(0), &[])), Ok(News::Newer));
}

#[test]
fn addresses_that_could_be_read_in_two_ways_are_refused() {
    for (text, host, port, path) in [
        ("https://partner.example", "partner.example", 443, "/"),
        ("https://partner.example:8443", "partner.example", 8443, "/"),
        ("https://127.0.0.1:1/b/c.json", "127.0.0.1", 1, "/b/c.json"),
        ("https://[::1]:8443/", "[::1]", 8443, "/"),
        ("https://[::1]/x", "[::1]", 443, "/x"),
    ] {
        let url = EndpointUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((url.host(), url.port(), url.path()), (host, port, path));
        assert_eq!(url.as_str(), text);
    }
    for text in [
        "",
        "partner.example",
        "http://partner.example",
        "HTTPS://partner.example",
        "https://",
        "https:///x",
        "https://:443",
        "https://user@partner.example",
        "https://partner.example:0",
        "https://partner.example:",
        "https://partner.example:+1",
        "https://partner.example:65536",
        "https://partner.example?x",
        "https://partner.example/?x",
        "https://partner.example/#x",
        "https://partner.example/a b",
        "https://partner.example/\u{e4}",
        "https://partner.example\r\nHost: x",
        "https://[::1",
        "https://::1/",
        "https://[x]/",
        &format!(
            "https://partner.example/{}",
            "x".repeat(ENDPOINT_URL_BYTES_MAX)
        ),
    ] {
        let refused = EndpointUrl::parse(text);
        assert!(
            matches!(refused, Err(RelationError::Url { .. })),
            "{text}: {refused:?}"
        );
    }
}

#[test]
fn a_relation_is_with_another_domain_and_its_own_endpoint() {
    let own = domain("cluster.local");
    let relation = |of: &str, profile| {
        let url = EndpointUrl::parse("https://partner.example").unwrap();
        Relation::new(&own, domain(of), url, profile)
    };
    let spiffe = |id: &str| Profile::HttpsSpiffe {
        endpoint_id: SpiffeId::parse(id).unwrap(),
    };
    let web = Profile::HttpsWeb {
        roots: "/roots.pem".into(),
    };
    assert!(relation("partner.example", web.clone()).is_ok());
    assert!(relation("partner.example", spiffe("spiffe://partner.example/ca")).is_ok());
    assert_eq!(
        relation("cluster.local", web),
        Err(RelationError::OwnDomain {
            domain: own.clone()
        })
    );
    for other in [
        "spiffe://third.example/ca",
        "spiffe://cluster.local/ca",
        "spiffe://partner.example",
    ] {
        let refused = relation("partner.example", spiffe(other));
        assert!(
            matches!(refused, Err(RelationError::EndpointId { .. })),
            "{other}: {refused:?}"
        );
    }
}

#[test]
fn fetches_are_neither_hurried_nor_forgotten_whatever_a_domain_asks_for() {
    assert_eq!(refresh_secs(None), REFRESH_SECS);
    assert_eq!(refresh_secs(Some(0)), REFRESH_SECS_MIN);
    assert_eq!(refresh_secs(Some(u64::MAX)), REFRESH_SECS_MAX);
    for dice in [0, 1, 59_999, 60_000, u64::MAX] {
        let pause = pause(Some(300), 0, dice).as_millis();
        assert!((240_000..=300_000).contains(&pause), "{dice}: {pause}");
    }
}

#[test]
fn failures_are_tried_again_soon_and_then_ever_later() {
    let secs = |failures| pause(Some(300), failures, 0).as_secs();
    let pauses: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, 100, u32::MAX].map(secs).into();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300, 300]);
    assert_eq!(pause(Some(30), u32::MAX, u64::MAX).as_millis(), 26_385);
}
