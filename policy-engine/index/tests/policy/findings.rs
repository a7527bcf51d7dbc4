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

/// Codes of the findings that the snapshot of `cart` carries to its proxy.
fn carried(parts: &[&str]) -> Vec<String> {
    let found = World::of(parts).snapshot("shop", "cart").findings;
    found.into_iter().map(|f| f.code).collect()
}

#[test]
fn a_snapshot_carries_what_is_wrong_with_its_own_objects_alone() {
    let bad = crate::world::annotated_pod("config.linkerd.io/default-inbound-policy: nonsense");
    let of_pod = carried(&[&bad]);
    assert!(!of_pod.is_empty());
    let world = World::of(&[&bad]);
    assert_eq!(world.snapshot("shop", "web").findings, [], "another pod's");
    let open = crate::world::server_authorization("{name: cart}", "{unauthenticated: true}");
    assert_eq!(carried(&[SHOP, SERVER, &open]), ["MESH-0367"]);
    assert_eq!(carried(&[SHOP, SERVER]), Vec::<String>::new());
    let wide = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    assert_eq!(
        carried(&[SHOP, SERVER, MESHED, &wide]),
        ["MESH-0374"],
        "what it refers to"
    );
    assert_eq!(
        carried(&[SHOP, SERVER, MESHED]),
        Vec::<String>::new(),
        "refers to nothing"
    );
    let broken = route("r", "{value: no-slash}");
    let second = SERVER.replace("name: cart, namespace", "name: zart, namespace");
    for (what, parts) in [
        ("a route", vec![SHOP, SERVER, &broken]),
        ("a Server", vec![SHOP, SERVER, &second]),
        (
            "a rate limit",
            vec![SHOP, SERVER, &limit("a", ""), &limit("b", "")],
        ),
    ] {
        assert_eq!(carried(&parts), codes(&parts), "{what}");
        assert_eq!(carried(&parts).len(), 1, "{what}");
        assert_eq!(
            World::of(&parts).snapshot("shop", "web").findings,
            [],
            "{what}"
        );
    }
    let bad =
        crate::world::annotated_namespace("config.linkerd.io/default-inbound-policy: nonsense");
    assert!(!carried(&[&bad]).is_empty(), "its namespace");
}

#[test]
fn what_might_hold_anything_is_told_to_every_workload() {
    let files = [("a.yaml", SHOP), ("b.yaml", "kind: [broken")];
    let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    let index =
        mesh_policy_index::Index::build(&mesh_policy_index::load(files), &crate::world::config());
    let world = World { index };
    for pod in ["cart", "web"] {
        let codes: Vec<String> = world
            .snapshot("shop", pod)
            .findings
            .into_iter()
            .map(|f| f.code)
            .collect();
        assert_eq!(codes, ["MESH-0384"], "{pod}");
    }
}

#[test]
fn the_default_account_is_there_without_being_declared() {
    let to = |account: &str| codes(&[SHOP, SERVER, &policy("p", "Server cart", &[account])]);
    assert_eq!(to("ServiceAccount default"), Vec::<String>::new());
    assert_eq!(to("ServiceAccount ghost"), ["MESH-0377"]);
}

#[test]
fn a_server_authorization_for_everybody_is_reported() {
    let open = crate::world::server_authorization("{name: cart}", "{unauthenticated: true}");
    assert_eq!(codes(&[SHOP, SERVER, &open]), ["MESH-0367"]);
}

#[test]
fn a_probe_of_a_port_that_nobody_names_opens_no_port() {
    let pod = SHOP.replace(
        "    ports: [{containerPort: 8080",
        "    livenessProbe: {httpGet: {path: /live, port: ghost}}\n    readinessProbe: {httpGet: {path: /ready, port: http}}\n    ports: [{containerPort: 8080",
    );
    let snapshot = World::of(&[&pod]).snapshot("shop", "cart");
    assert_eq!(snapshot.other_ports.probes, []);
    let probes: Vec<usize> = snapshot
        .ports
        .values()
        .map(|port| port.probes.len())
        .collect();
    assert_eq!(probes.iter().sum::<usize>(), 1, "{probes:?}");
}
