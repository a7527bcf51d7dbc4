//! Linkerd's own suite, cases 9 to 12: which Server and which route.

use crate::linkerd_model::Says::{Allow, Forbidden, NotFound};
use crate::side_by_side::Scene;
use crate::why::{PROBES_STAY, SAME};
use crate::world::{Ask, DENIED, MESHED, SERVER, SHOP, World, dated, policy, route};
use mesh_policy::snapshot::ProbeKind;

#[test]
fn case_09_a_route_policy_covers_its_route_and_a_server_policy_all_of_them() {
    let (a, b) = (route("a", "{value: /a}"), route("b", "{value: /b}"));
    let on_a = policy("on-a", "HTTPRoute a", &["MeshTLSAuthentication meshed"]);
    let web = || Ask::meshed("shop/web");
    Scene::of(&[SHOP, SERVER, MESHED, &a, &b, &on_a]).answers(&[
        (web().path("/a"), Allow, "allow", SAME),
        (Ask::plain().path("/a"), Forbidden, DENIED, SAME),
        (web().path("/b"), Forbidden, DENIED, SAME),
        (web().path("/c"), NotFound, "route 404", SAME),
    ]);
    let on_server = policy(
        "on-server",
        "Server cart",
        &["MeshTLSAuthentication meshed"],
    );
    Scene::of(&[SHOP, SERVER, MESHED, &a, &b, &on_a, &on_server]).answers(&[
        (web().path("/b"), Allow, "allow", SAME),
        (web().path("/c"), NotFound, "route 404", SAME),
    ]);
}

fn dated_server(name: &str, meta: &str, access: &str) -> String {
    let named = format!("name: {name}{meta}, namespace");
    SERVER
        .replace("name: cart, namespace", &named)
        .replace("port: http", &format!("port: http, accessPolicy: {access}"))
}

#[test]
fn case_10_of_two_servers_on_a_port_the_older_wins_until_it_goes() {
    let old = dated_server(
        "z-old",
        ", creationTimestamp: '2020-01-01T00:00:00Z'",
        "deny",
    );
    let young = dated_server(
        "a-young",
        ", creationTimestamp: '2021-01-01T00:00:00Z'",
        "all-unauthenticated",
    );
    let scene = Scene::of(&[SHOP, &old, &young]);
    scene.answers(&[(Ask::plain(), Forbidden, DENIED, SAME)]);
    let snapshot = scene.world.snapshot("shop", "cart");
    let server = &snapshot.ports.get(&8080).unwrap().server;
    let shadowed: Vec<&str> = server.shadowed.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((server.name.as_str(), shadowed), ("z-old", vec!["a-young"]));
    assert_eq!(
        scene.world.findings("MESH-0368").len(),
        1,
        "the loser is reported"
    );
    scene
        .without("Server", "z-old", &[SHOP, &young])
        .answers(&[(Ask::plain(), Allow, "allow", SAME)]);
}

#[test]
fn case_10_servers_of_one_age_are_taken_by_name_and_undated_ones_last() {
    let (open, shut) = ("all-unauthenticated", "deny");
    let same = ", creationTimestamp: '2020-01-01T00:00:00Z'";
    for (first, second, want) in [
        (
            dated_server("a", same, open),
            dated_server("b", same, shut),
            "allow",
        ),
        (
            dated_server("b", same, open),
            dated_server("a", same, shut),
            DENIED,
        ),
        (
            dated_server("a", "", open),
            dated_server("b", "", shut),
            "allow",
        ),
        (
            dated_server("a", "", open),
            dated_server("z", ", creationTimestamp: '2030-01-01T00:00:00Z'", shut),
            DENIED,
        ),
    ] {
        let says = if want == "allow" { Allow } else { Forbidden };
        Scene::of(&[SHOP, &first, &second]).answers(&[(Ask::plain(), says, want, SAME)]);
    }
}

#[test]
fn case_11_routes_stand_in_the_order_of_their_creation_and_keep_it_when_one_goes() {
    let dated = |name: &str, year: &str| dated(year, &route(name, "{value: /same}"));
    let routes = [
        dated("c", "2020"),
        dated("a", "2022"),
        dated("b", "2021"),
        route("0a", "{value: /same}"),
    ];
    let names = |without: &str| -> Vec<String> {
        let mut parts = vec![SHOP, SERVER];
        parts.extend(
            routes
                .iter()
                .map(String::as_str)
                .filter(|r| !r.contains(&format!("name: {without},"))),
        );
        let snapshot = World::of(&parts).snapshot("shop", "cart");
        snapshot
            .ports
            .get(&8080)
            .unwrap()
            .routes
            .iter()
            .map(|r| r.name.clone())
            .collect()
    };
    assert_eq!(names("none"), ["c", "b", "a", "0a"]);
    assert_eq!(names("b"), ["c", "a", "0a"]);
    let on_c = policy("p", "HTTPRoute c", &["MeshTLSAuthentication meshed"]);
    let mut parts = vec![SHOP, SERVER, MESHED, &on_c];
    parts.extend(routes.iter().map(String::as_str));
    // The oldest of the four takes the request, so the grant on it decides.
    Scene::of(&parts).answers(&[(Ask::meshed("shop/web").path("/same"), Allow, "allow", SAME)]);
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  containers:
  - ports: [{containerPort: 8080, name: http}]
    livenessProbe: {httpGet: {path: '/live?x=1', port: http}}
";

#[test]
fn case_12_a_probe_is_open_with_and_without_routes() {
    let probe = || Ask::plain().path("/live");
    Scene::of(&[PROBED, SERVER]).answers(&[
        (probe(), Allow, "allow", SAME),
        (probe().method("POST"), Forbidden, DENIED, SAME),
        (Ask::plain().path("/livez"), Forbidden, DENIED, SAME),
    ]);
    Scene::of(&[PROBED, SERVER, &route("a", "{value: /a}")]).answers(&[
        (probe(), NotFound, "allow", PROBES_STAY),
        (probe().method("POST"), NotFound, "route 404", SAME),
        (Ask::plain().path("/livez"), NotFound, "route 404", SAME),
    ]);
    Scene::of(&[PROBED, SERVER, &route("all", "{value: /}")]).answers(&[(
        probe(),
        Forbidden,
        "allow",
        PROBES_STAY,
    )]);
    let world = World::of(&[PROBED, SERVER]);
    assert_eq!(world.reasons(&probe()), ["default/probe"]);
    let probes = world
        .snapshot("shop", "cart")
        .ports
        .get(&8080)
        .unwrap()
        .probes
        .clone();
    let shown: Vec<_> = probes.into_iter().map(|p| (p.kind, p.networks)).collect();
    assert_eq!(
        shown,
        [(ProbeKind::Http("/live".into()), "probe/networks".to_owned())]
    );
}

#[test]
fn case_12_a_port_without_server_has_its_probes_beside_the_default_policy() {
    Scene::of(&[PROBED]).answers(&[
        (Ask::plain().path("/live"), Allow, "allow", SAME),
        (Ask::plain().path("/"), Forbidden, DENIED, SAME),
        (
            Ask::plain().path("/live").port(9090),
            Forbidden,
            DENIED,
            SAME,
        ),
    ]);
}
