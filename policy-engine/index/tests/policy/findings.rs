//! What lint says of objects that are each valid, but not together.

use crate::world::{Ask, MESHED, SERVER, SHOP, World, policy, route};

/// Codes of all findings.
fn codes(parts: &[&str]) -> Vec<String> {
    World::of(parts)
        .index
        .findings()
        .iter()
        .map(|f| f.code.clone())
        .collect()
}

fn limit(name: &str, meta: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {{name: {name}, namespace: shop{meta}}}\nspec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: cart}}, total: {{requestsPerSecond: 9}}}}\n"
    )
}

#[test]
fn a_sound_mesh_has_nothing_but_what_is_worth_knowing() {
    let found = codes(&[
        SHOP,
        SERVER,
        &policy("p", "Server cart", &["ServiceAccount web"]),
    ]);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(
        codes(&[
            SHOP,
            SERVER,
            MESHED,
            &policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
        ]),
        ["MESH-0374"]
    );
}

#[test]
fn each_doubt_has_its_code() {
    let network = "apiVersion: policy.linkerd.io/v1alpha1\nkind: NetworkAuthentication\nmetadata: {name: n, namespace: shop}\nspec: {networks: [{cidr: 10.0.0.0/8}]}\n";
    let idle = SERVER.replace("app: cart", "app: ghost");
    let second = SERVER.replace("name: cart, namespace", "name: zart, namespace");
    let opaque = SERVER.replace("HTTP/1", "opaque");
    for (parts, code, what) in [
        (
            vec![
                SHOP,
                SERVER,
                network,
                &policy("p", "Server cart", &["NetworkAuthentication n"]),
            ],
            "MESH-0375",
            "a network alone",
        ),
        (vec![SHOP, &idle], "MESH-0370", "a Server of no pod"),
        (vec![SHOP, SERVER, &second], "MESH-0368", "a second Server"),
        (
            vec![SHOP, &opaque, &route("r", "{value: /}")],
            "MESH-0371",
            "a route on bytes",
        ),
        (
            vec![SHOP, &route("r", "{value: /}")],
            "MESH-0364",
            "a route on no Server",
        ),
        (
            vec![SHOP, SERVER, &limit("a", ""), &limit("b", "")],
            "MESH-0373",
            "a second rate limit",
        ),
        (
            vec![SHOP, &opaque, &limit("a", "")],
            "MESH-0373",
            "a rate limit on bytes",
        ),
        (
            vec![SHOP, &limit("a", "")],
            "MESH-0364",
            "a rate limit on no Server",
        ),
        (
            vec![
                SHOP,
                &policy("p", "Namespace shop", &["ServiceAccount web"]),
            ],
            "MESH-0385",
            "a namespace without Servers",
        ),
        (
            vec![SHOP, &policy("p", "Server cart", &["ServiceAccount web"])],
            "MESH-0364",
            "a policy on no Server",
        ),
        (
            vec![
                SHOP,
                SERVER,
                &policy("p", "HTTPRoute r", &["ServiceAccount web"]),
            ],
            "MESH-0364",
            "a policy on no route",
        ),
        (
            vec![SHOP, SERVER, &MESHED.replace("'*'", "'*.x.example'")],
            "MESH-0378",
            "an identity of nobody",
        ),
    ] {
        assert_eq!(codes(&parts), [code], "{what}");
    }
}

#[test]
fn of_two_rate_limits_the_older_counts() {
    let (young, old) = (
        limit("a", ", creationTimestamp: '2024-01-01T00:00:00Z'"),
        limit("b", ", creationTimestamp: '2020-01-01T00:00:00Z'"),
    );
    let world = World::of(&[SHOP, SERVER, &young, &old]);
    assert_eq!(
        world
            .snapshot("shop", "cart")
            .ports
            .get(&8080)
            .unwrap()
            .rate_limit
            .as_ref()
            .unwrap()
            .name,
        "b"
    );
}

#[test]
fn a_reference_that_differs_by_case_is_told_the_right_name() {
    let text = policy("p", "Server cart", &["ServiceAccount web"]);
    let server = SERVER.replace("name: cart, namespace", "name: kart, namespace");
    let world = World::of(&[SHOP, &server, &text]);
    assert!(
        world
            .findings("MESH-0364")
            .first()
            .unwrap()
            .message
            .contains("Server shop/cart, which does not exist")
    );
    assert_ne!(world.answer(&Ask::meshed("shop/web")), "allow");
}
