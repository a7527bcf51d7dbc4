//! Grants and routes that change nothing while the rest stands; and those that look so and do.

use crate::world::{Ask, MESHED, NETWORK, SERVER, SHOP, World, dated, policy, route};

/// Codes and names of what is too much.
fn surplus(parts: &[&str]) -> Vec<String> {
    let world = World::of(parts);
    let found = world.index.surplus();
    let name = |f: &mesh_policy::snapshot::Finding| {
        format!("{} {}", f.code, f.object.as_ref().unwrap().name)
    };
    found.iter().map(name).collect()
}

#[test]
fn a_grant_that_another_includes_is_named_and_taking_it_away_changes_nothing() {
    let web = policy("web", "Server cart", &["ServiceAccount web"]);
    let all = policy("all", "Server cart", &["MeshTLSAuthentication meshed"]);
    let namespace = policy("ns", "Namespace shop", &["MeshTLSAuthentication meshed"]);
    let narrower = policy(
        "near",
        "Server cart",
        &["MeshTLSAuthentication meshed", "NetworkAuthentication near"],
    );
    for wide in [&all, &namespace] {
        for narrow in [&web, &narrower] {
            let parts = [SHOP, SERVER, MESHED, NETWORK, wide, narrow];
            let name = if std::ptr::eq(narrow, &web) {
                "web"
            } else {
                "near"
            };
            assert_eq!(surplus(&parts), [format!("MESH-0393 {name}")]);
            let (with, without) = (World::of(&parts), World::of(&parts[..5]));
            for ask in [
                Ask::meshed("shop/web"),
                Ask::meshed("shop/other"),
                Ask::plain(),
            ] {
                assert_eq!(with.answer(&ask), without.answer(&ask));
            }
        }
    }
}

#[test]
fn of_two_equal_grants_one_is_too_much() {
    let (one, two) = (
        policy("one", "Server cart", &["ServiceAccount web"]),
        policy("two", "Server cart", &["ServiceAccount web"]),
    );
    assert_eq!(surplus(&[SHOP, SERVER, &one, &two]), ["MESH-0393 two"]);
}

#[test]
fn a_grant_that_says_more_in_any_way_is_not_too_much() {
    let web = policy("web", "Server cart", &["ServiceAccount web"]);
    let other = policy("other", "Server cart", &["ServiceAccount other"]);
    assert!(
        surplus(&[SHOP, SERVER, &web, &other]).is_empty(),
        "another client"
    );
    let near = policy(
        "near",
        "Server cart",
        &["MeshTLSAuthentication meshed", "NetworkAuthentication near"],
    );
    assert!(
        surplus(&[SHOP, SERVER, MESHED, NETWORK, &web, &near]).is_empty(),
        "from other addresses"
    );
    // The wider one ends.
    let ends = policy("all", "Server cart", &["MeshTLSAuthentication meshed"]).replace(
        "{name: all,",
        "{name: all, annotations: {mesh.internal/expires: '2099-01-01T00:00:00Z'},",
    );
    assert!(ends.contains("expires"), "{ends}");
    assert!(surplus(&[SHOP, SERVER, MESHED, &web, &ends]).is_empty());
    // The wider one grants nothing.
    let dead = policy("all", "Server cart", &["MeshTLSAuthentication nobody"]);
    assert!(surplus(&[SHOP, SERVER, &web, &dead]).is_empty());
    // A route's grant opens the route alone.
    let read = route("read", "{value: /read}");
    let on_route = policy("r", "HTTPRoute read", &["MeshTLSAuthentication meshed"]);
    assert!(surplus(&[SHOP, SERVER, MESHED, &read, &web, &on_route]).is_empty());
}

#[test]
fn a_route_that_others_leave_nothing_to_is_named() {
    let old = dated("2020", &route("old", "{value: /x}"));
    let copy = route("copy", "{value: /x}");
    let grant = policy("g", "HTTPRoute copy", &["MeshTLSAuthentication meshed"]);
    let parts = [SHOP, SERVER, MESHED, &old, &copy, &grant];
    assert_eq!(surplus(&parts), ["MESH-0394 copy"]);
    let denied = World::of(&parts).decide(&Ask::meshed("shop/web").path("/x"));
    assert_eq!(denied.route.unwrap().name, "old");

    let regex = route("regex", "{type: RegularExpression, value: '/[0-9]+'}");
    let all = route("all", "{value: /}");
    assert_eq!(surplus(&[SHOP, SERVER, &regex, &all]), ["MESH-0394 regex"]);
}

#[test]
fn a_route_that_keeps_any_request_is_not_named() {
    let old = dated("2020", &route("old", "{value: /x}"));
    for (matches, why) in [
        ("{type: Exact, value: /x}", "an exact path comes first"),
        ("{value: /x/y}", "a longer prefix comes first"),
        ("{value: /}", "a shorter prefix takes the rest"),
    ] {
        let other = route("other", matches);
        assert!(surplus(&[SHOP, SERVER, &old, &other]).is_empty(), "{why}");
    }
    let hosted =
        route("other", "{value: /x}").replace("rules:", "hostnames: [shop.example]\n  rules:");
    assert!(
        surplus(&[SHOP, SERVER, &old, &hosted]).is_empty(),
        "a hostname comes first"
    );
}
