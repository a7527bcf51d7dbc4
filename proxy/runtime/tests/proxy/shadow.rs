//! A candidate beside the policy in force: what it would decide is counted and recorded, and what is decided stays.

use super::world::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// [`cart_policy`] for `web`, its grant part of one set alone.
fn annotated(protocol: &str, value: &str) -> String {
    cart_policy(protocol, &[WEB]).replace(
        "kind: AuthorizationPolicy\nmetadata: { ",
        &format!(
            "kind: AuthorizationPolicy\nmetadata: {{ annotations: {{ mesh.internal/shadow: {value} }}, "
        ),
    )
}

/// A world that records nothing of what it allows but what is new.
fn unsampled(policy: &str) -> World {
    let mut world = World::new(policy);
    world.sample = "0.0";
    world.start_cart();
    world.start_web();
    world
}

/// What the proxy of `cart` counts under a name, with its labels.
async fn counted(world: &World, series: &str) -> Option<u64> {
    let text = get(world.address(1, 15020), "/metrics").await;
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(series);
        rest.is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

async fn has_candidate(world: &World, there: u64) {
    eventually("the candidate of the new manifests", || async {
        counted(world, "mesh_shadow_candidate").await == Some(there)
    })
    .await;
}

fn series(live: &str, candidate: &str, reason: &str) -> String {
    format!(
        "mesh_shadow_decisions_total{{target_port=\"8080\",srv_kind=\"server\",srv_namespace=\"shop\",srv_name=\"cart-http\",live=\"{live}\",candidate=\"{candidate}\",phase=\"permit\",reason=\"{reason}\"}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_candidate_takes_away_goes_through_and_is_counted_and_recorded() {
    let mut world = unsampled(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    // The first use of the grant is recorded, and no later one.
    for _ in 0..3 {
        assert_eq!(status(&get(world.web_to_cart(), "/items").await), "200");
    }
    assert_eq!(counted(&world, "mesh_shadow_tried_total").await, None);
    world.write_policy(&annotated("HTTP/1", "remove"));
    has_candidate(&world, 1).await;
    for _ in 0..5 {
        assert_eq!(status(&get(world.web_to_cart(), "/items").await), "200");
    }
    let lost = series("allow", "deny", "no-grant");
    assert_eq!(counted(&world, &lost).await, Some(5));
    assert_eq!(counted(&world, "mesh_shadow_tried_total").await, Some(5));
    // Without annotation nothing is tried any more.
    world.write_policy(&cart_policy("HTTP/1", &[WEB]));
    has_candidate(&world, 0).await;
    assert_eq!(status(&get(world.web_to_cart(), "/items").await), "200");
    assert_eq!(counted(&world, "mesh_shadow_tried_total").await, Some(5));
    let records = world.cart_records();
    let shadows: Vec<_> = records.iter().map(|record| &record["shadow"]).collect();
    let denied = json!({ "verdict": "deny", "phase": "permit", "status": 403, "reasons": [] });
    assert_eq!(shadows, [&json!(null), &denied], "{records:?}");
    assert!(records.iter().all(|record| record["verdict"] == "allow"));
    assert_eq!(records[1]["first"], true, "no part of the sample");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_candidate_would_grant_is_denied_and_recorded_with_its_reasons() {
    let mut world = unsampled(&annotated("HTTP/1", "add"));
    has_candidate(&world, 1).await;
    // Nobody listens for the application: if a byte were sent there, the answer would be 502.
    for _ in 0..3 {
        assert_eq!(status(&get(world.web_to_cart(), "/items").await), "403");
    }
    // Neither of the two lets in who has no identity.
    assert_eq!(status(&get(world.cart_plain(), "/items").await), "403");
    let gained = series("deny", "allow", "AuthorizationPolicy/shop/callers/0");
    assert_eq!(counted(&world, &gained).await, Some(3));
    assert_eq!(counted(&world, "mesh_shadow_tried_total").await, Some(4));
    let records = world.cart_records();
    let granted = json!({ "verdict": "allow", "phase": "permit", "status": 200,
        "reasons": ["AuthorizationPolicy/shop/callers/0"] });
    let shadows: Vec<_> = records.iter().map(|record| &record["shadow"]).collect();
    assert_eq!(
        shadows,
        [&granted, &granted, &granted, &json!(null)],
        "{records:?}"
    );
    assert!(records.iter().all(|record| record["verdict"] == "deny"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_tried_as_requests_are() {
    for (value, echoed, verdict, other) in [
        ("remove", true, "allow", "deny"),
        ("add", false, "deny", "allow"),
    ] {
        let mut world = World::of_bytes(&annotated("opaque", value));
        let _app = echo(world.cart_app()).await;
        let mut stream = TcpStream::connect(world.web_to_cart())
            .await
            .expect("a connection");
        stream.write_all(b"x").await.expect("room");
        let mut byte = [0; 1];
        let read = stream.read(&mut byte).await;
        assert_eq!(matches!(read, Ok(1)), echoed, "{value}: {read:?}");
        drop(stream);
        let records = world.cart_records();
        assert_eq!(records[0]["verdict"], verdict, "{value}");
        assert_eq!(
            records[0]["shadow"]["verdict"], other,
            "{value}: {records:?}"
        );
        assert_eq!(
            records[0]["shadow"].get("status"),
            None,
            "bytes have no status"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_its_limit_is_not_compared() {
    // The candidate grants more, to others: what both allow is compared with no limit.
    let more = "---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: more, namespace: shop, annotations: { mesh.internal/shadow: add } }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: cart-http }
  requiredAuthenticationRefs: [{ kind: ServiceAccount, name: other }]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: { name: one, namespace: shop }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: cart-http }
  total: { requestsPerSecond: 1 }
";
    let mut world = World::running(&(cart_policy("HTTP/1", &[WEB]) + more));
    let _app = mirror(world.cart_app()).await;
    has_candidate(&world, 1).await;
    for _ in 0..6 {
        get(world.web_to_cart(), "/items").await;
    }
    let records = world.cart_records();
    let over = records.iter().filter(|record| record["status"] == 429);
    let over: Vec<_> = over.collect();
    assert!(!over.is_empty(), "{records:?}");
    for record in over {
        assert_eq!(record["shadow"], json!(null), "{record:?}");
    }
}
