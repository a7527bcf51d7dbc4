//! Who may, and who may not: what the application receives, what the client hears, what the log says.

use super::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_identity_reaches_the_application_and_is_named_to_it() {
    let mut world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let answer = get(world.web_to_cart(), "/items?page=2").await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        answer.contains("GET /items?page=2 HTTP/1.1\r\n"),
        "{answer}"
    );
    assert!(
        answer
            .to_lowercase()
            .contains(&format!("mesh-client-id: {WEB}\r\n")),
        "{answer}"
    );
    let records = world.cart_records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["verdict"], "allow");
    assert_eq!(
        records[0]["reasons"][0],
        "AuthorizationPolicy/shop/callers/0"
    );
    assert_eq!(records[0]["client"]["spiffe_id"], WEB);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_without_a_grant_gets_403_and_the_application_nothing() {
    let mut world = World::running(&cart_policy(
        "HTTP/1",
        &["spiffe://cluster.local/ns/shop/sa/other"],
    ));
    // Nobody listens for the application: if a byte were sent there, the answer would be 502.
    let answer = get(world.web_to_cart(), "/items").await;
    assert_eq!(status(&answer), "403", "{answer}");
    assert!(
        !answer.contains("callers"),
        "the client learns no reason: {answer}"
    );
    let records = world.cart_records();
    assert_eq!(
        (&records[0]["verdict"], &records[0]["phase"]),
        (&"deny".into(), &"permit".into()),
        "{records:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_proxy_is_denied_where_an_identity_is_demanded() {
    let mut world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let answer = get(world.cart_plain(), "/items").await;
    assert_eq!(status(&answer), "403", "{answer}");
    let records = world.cart_records();
    assert_eq!(records[0]["client"]["spiffe_id"], serde_json::Value::Null);
    assert_eq!(records[0]["client"]["tls"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_only_proxies_set_never_come_from_a_client() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let request = "GET / HTTP/1.1\r\nHost: cart\r\nmesh-client-id: spiffe://cluster.local/ns/shop/sa/admin\r\n\
        L5D-Client-Id: admin\r\nmesh_client_id: admin\r\nx-forwarded-client-cert: By=admin\r\n\
        mesh-orig-version: HTTP/1.0\r\nx-kept: yes\r\nConnection: close\r\n\r\n";
    let answer = raw(world.web_to_cart(), request.as_bytes()).await;
    let (response_head, received) = answer.split_once("\r\n\r\n").expect("a response");
    let received = received.to_lowercase();
    assert!(
        !received.contains("admin") && !received.contains("x-forwarded-client-cert"),
        "{received}"
    );
    assert!(
        !received.contains("mesh-orig-version") && received.contains("x-kept: yes"),
        "{received}"
    );
    assert_eq!(
        received.matches("client-id").count(),
        2,
        "one of ours, one in Linkerd's name: {received}"
    );
    assert!(
        !response_head.contains("liar"),
        "the application's word on identities is not passed on: {response_head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hd10_what_a_client_says_of_its_address_is_not_believed() {
    let policy = cart_policy("HTTP/1", &[])
        + "---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: { name: office, namespace: shop }
spec: { networks: [{ cidr: 10.1.0.0/16 }] }
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: office, namespace: shop }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: cart-http }
  requiredAuthenticationRefs: [{ group: policy.linkerd.io, kind: NetworkAuthentication, name: office }]
";
    let world = World::running(&policy);
    let _app = mirror(world.cart_app()).await;
    for header in [
        "X-Forwarded-For: 10.1.2.3",
        "Forwarded: for=10.1.2.3",
        "X-Real-IP: 10.1.2.3",
        "True-Client-IP: 10.1.2.3",
    ] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: cart\r\n{header}\r\nConnection: close\r\n\r\n");
        for to in [world.cart_plain(), world.web_to_cart()] {
            let answer = raw(to, request.as_bytes()).await;
            assert_eq!(status(&answer), "403", "{header}: {answer}");
        }
    }
    // The policy does let in whoever really comes from such a network: here, from loopback.
    world.write_policy(&policy.replace("10.1.0.0/16", "127.0.0.0/8"));
    eventually("the new policy is in force", || async {
        status(&get(world.cart_plain(), "/").await) == "200"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_judged_is_what_the_application_receives() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    for (sent, want) in [
        ("/a/../admin", Ok("/admin")),
        ("/a/./b", Ok("/a/b")),
        ("//admin", Ok("/admin")),
        ("/%61dmin", Ok("/admin")),
        ("/a%252e", Ok("/a%252e")),
        ("/x?a=/../y", Ok("/x?a=/../y")),
        ("/a%2fb", Err("400")),
        ("/a%5cb", Err("400")),
        ("/a%00", Err("400")),
        ("/a;x=y", Err("400")),
        ("/../etc", Err("400")),
    ] {
        let answer = get(world.web_to_cart(), sent).await;
        match want {
            Ok(path) => assert!(
                answer.contains(&format!("GET {path} HTTP/1.1\r\n")),
                "{sent}: {answer}"
            ),
            Err(code) => assert_eq!(status(&answer), code, "{sent}: {answer}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    for (name, request) in [
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: cart\r\nHost: other\r\n\r\n",
        ),
        (
            "host and target",
            "GET http://evil/admin HTTP/1.1\r\nHost: cart\r\n\r\n",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "not chunked last",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "length with sign",
            "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "CONNECT",
            "CONNECT cart:80 HTTP/1.1\r\nHost: cart:80\r\n\r\n",
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ] {
        for to in [world.web_to_cart(), world.cart_plain()] {
            let request = request.replace("\r\nHost", "\r\nConnection: close\r\nHost");
            let answer = raw(to, request.as_bytes()).await;
            assert!(
                matches!(status(&answer), "400" | "405" | "none"),
                "{name} to {to}: {answer}"
            );
        }
    }
}
