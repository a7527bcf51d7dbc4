//! Policies written in Cedar, from manifest to decision: forbids win, boundaries hold, what is broken closes.

use crate::raw_cedar::{FORBID, PERMIT, cedar, object};
use crate::world::{Ask, MESHED, NOW, SERVER, SHOP, World, policy, route};
use mesh_policy::decide::Verdict;
use mesh_policy_index::replay::Replay;
use mesh_trust::Timestamp;
use proptest::prelude::*;

/// A second namespace with the same pod, Server and grant.
fn bank() -> String {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: bank, labels: {app: cart}}\nspec: {containers: [{name: app, ports: [{containerPort: 8080, name: http}]}]}\n";
    let of_bank = |text: &str| text.replace("namespace: shop", "namespace: bank");
    [
        pod,
        &of_bank(SERVER),
        &of_bank(MESHED),
        &of_bank(&granted()),
    ]
    .join("\n---\n")
}

fn granted() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn in_bank() -> Ask {
    let mut ask = Ask::meshed("shop/web");
    ask.0.server.namespace = "bank".into();
    ask
}

fn rails(spec: &str, text: &str) -> String {
    object("ClusterCedarPolicy", "name: rails", spec, text)
}

/// A world where `shop/web` is granted what it asks in both namespaces, and something beside.
fn beside(objects: &[&str]) -> World {
    let (granted, bank) = (granted(), bank());
    let mut parts = vec![SHOP, SERVER, MESHED, &granted, &bank];
    parts.extend(objects);
    World::of(&parts)
}

#[test]
fn a_forbid_of_a_namespace_wins_there_and_only_there() {
    let world = beside(&[&cedar(FORBID)]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), "forbid 403");
    assert_eq!(
        world.reasons(&Ask::meshed("shop/web")),
        ["CedarPolicy/shop/x/0"]
    );
    assert_eq!(world.answer(&in_bank()), "allow");
    let named = cedar("forbid(principal, action, resource in Mesh::Server::\"bank/cart\");");
    assert_eq!(
        beside(&[&named]).answer(&in_bank()),
        "allow",
        "a boundary cannot be written away"
    );
    let either = cedar(
        "forbid(principal, action, resource) when { true || resource in Mesh::Server::\"bank/cart\" };",
    );
    assert_eq!(beside(&[&either]).answer(&in_bank()), "allow");
}

#[test]
fn a_permit_of_a_namespace_opens_there_and_only_there() {
    let ask = Ask::plain();
    let mut foreign = ask.clone();
    foreign.0.server.namespace = "bank".into();
    for text in [
        PERMIT,
        "permit(principal, action, resource) when { true || resource in Mesh::Namespace::\"cluster.local/bank\" };",
    ] {
        let world = beside(&[&cedar(text)]);
        assert_eq!(world.answer(&ask), "allow");
        assert_eq!(world.reasons(&ask), ["CedarPolicy/shop/x/0"]);
        assert_ne!(world.answer(&foreign), "allow");
    }
    let wide = beside(&[&rails("  allowPermits: true\n", PERMIT)]);
    assert_eq!(
        (wide.answer(&ask), wide.answer(&foreign)),
        ("allow".into(), "allow".into())
    );
    let silent = beside(&[&rails("", PERMIT)]);
    assert_ne!(silent.answer(&ask), "allow");
}

#[test]
fn a_cluster_wide_forbid_wins_everywhere() {
    let world = beside(&[&rails("", FORBID), &cedar(PERMIT)]);
    for ask in [Ask::meshed("shop/web"), in_bank(), Ask::plain()] {
        assert_eq!(world.answer(&ask), "forbid 403");
        assert_eq!(world.reasons(&ask), ["ClusterCedarPolicy//rails/0"]);
    }
}

#[test]
fn whatever_may_have_held_a_forbid_denies_what_it_covers() {
    for (broken, what) in [
        (cedar("forbid(principal, action"), "a text that cannot be cut"),
        (cedar("fobid(principal, action, resource);"), "a policy that cannot be parsed"),
        (cedar("forbid(principal, action, resource) when { context.nothing };"), "an invalid forbid"),
        (cedar(FORBID).replace("spec:", "spec:\n  newer: 1"), "an unknown field"),
        (cedar("forbid(principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/ghost\", action, resource);"), "a set that there is not"),
        ("apiVersion: mesh.internal/v1alpha1\nkind: CedarPolcy\nmetadata: {name: x, namespace: shop}\n".to_owned(), "a misspelt kind"),
    ] {
        let world = beside(&[&broken]);
        assert_eq!(world.answer(&Ask::meshed("shop/web")), "forbid 403", "{what}");
        assert_eq!(world.answer(&in_bank()), "allow", "{what}: no further than it could have reached");
    }
    for (broken, what) in [
        (
            rails("", "forbid(principal, action"),
            "a cluster-wide object",
        ),
        (
            "apiVersion: [\nkind: CedarPolicy\n".to_owned(),
            "a document of unknown kind",
        ),
    ] {
        let world = beside(&[&broken]);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web")),
            "forbid 403",
            "{what}"
        );
        assert_eq!(world.answer(&in_bank()), "forbid 403", "{what}");
    }
    let permit = beside(&[&cedar("permit(principal action, resource);")]);
    assert_eq!(
        permit.answer(&Ask::meshed("shop/web")),
        "allow",
        "a broken permit is nobody's forbid"
    );
}

#[test]
fn conditions_see_method_path_header_and_network() {
    let request = |condition: &str| {
        cedar(&format!(
            "forbid(principal, action == Mesh::Action::\"request\", resource) unless {{ {condition} }};"
        ))
    };
    let ask = || {
        Ask::meshed("shop/web")
            .method("POST")
            .path("/a/../orders/7?x=1")
            .host("cart")
    };
    for (condition, want) in [
        ("context.req.method == \"POST\"", "allow"),
        ("context.req.method == \"GET\"", "forbid 403"),
        ("context.req.path like \"/orders/*\"", "allow"),
        ("context.req.path == \"/a/../orders/7\"", "forbid 403"),
        (
            "context.req has host && context.req.host == \"cart\"",
            "allow",
        ),
        (
            "context.req.headers.hasTag(\"x-tenant\") && context.req.headers.getTag(\"x-tenant\") == [\"blue\"]",
            "allow",
        ),
        (
            "context.req.headers.hasTag(\"x-tenant\") && context.req.headers.getTag(\"x-tenant\") == [\"red\"]",
            "forbid 403",
        ),
        ("context.req.headers.hasTag(\"x-other\")", "forbid 403"),
        ("context.conn.ip.isInRange(ip(\"10.1.0.0/16\"))", "allow"),
        (
            "context.conn.ip.isInRange(ip(\"10.2.0.0/16\"))",
            "forbid 403",
        ),
        (
            "principal has ns && principal.ns == \"shop\" && principal has sa && principal.sa == \"web\"",
            "allow",
        ),
        (
            "principal in Mesh::Namespace::\"cluster.local/shop\"",
            "allow",
        ),
        (
            "principal in Mesh::Namespace::\"cluster.local/bank\"",
            "forbid 403",
        ),
        (
            "principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/meshed\"",
            "allow",
        ),
    ] {
        let world = beside(&[&request(condition)]);
        assert_eq!(
            world.answer(&ask().header("X-Tenant", &["blue"])),
            want,
            "{condition}"
        );
    }
    let two = ask().header("x-tenant", &["blue", "red"]);
    let exact = request(
        "context.req.headers.hasTag(\"x-tenant\") && context.req.headers.getTag(\"x-tenant\") == [\"blue\"]",
    );
    assert_eq!(
        beside(&[&exact]).answer(&two),
        "forbid 403",
        "a second value is not smuggled in"
    );
}

#[test]
fn a_forbid_may_speak_of_one_route() {
    let text = cedar(
        "forbid(principal, action == Mesh::Action::\"request\", resource in Mesh::RouteObj::\"HTTPRoute/shop/a\");",
    );
    let world = beside(&[
        &route("a", "{value: /a}"),
        &route("b", "{value: /b}"),
        &text,
    ]);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").path("/a/x")),
        "forbid 403"
    );
    assert_eq!(world.answer(&Ask::meshed("shop/web").path("/b/x")), "allow");
}

/// Whether `shop/web` is let in at a time, given an object.
fn at(world: &World, time: &str) -> bool {
    let now: Timestamp = time.parse().unwrap();
    let record = Replay::new(&world.index, now).decide(&Ask::meshed("shop/web").0);
    record.verdict == Verdict::Allow
}

#[test]
fn a_term_ends_a_grant_a_permit_and_a_forbid_to_the_millisecond() {
    const END: &str = "mesh.internal/expires: '2027-02-01T12:00:00.500Z'";
    let ending = |text: &str| {
        text.replacen(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{{END}}}}}"),
            1,
        )
    };
    let (before, from) = ("2027-02-01T12:00:00.499Z", "2027-02-01T12:00:00.500Z");
    for grant in [ending(&granted()), ending(&cedar(PERMIT))] {
        let world = World::of(&[SHOP, SERVER, MESHED, &grant]);
        assert_eq!(
            (at(&world, before), at(&world, from)),
            (true, false),
            "{grant}"
        );
    }
    let world = beside(&[&ending(&cedar(FORBID))]);
    assert_eq!((at(&world, before), at(&world, from)), (false, true));
    let unreadable = ending(&cedar(FORBID)).replace("2027-02-01T12:00:00.500Z", "soon");
    let world = beside(&[&unreadable]);
    assert_eq!(
        (at(&world, before), at(&world, "2099-01-01T00:00:00Z")),
        (false, false),
        "an end that cannot be read opens nothing"
    );
    assert!(NOW < before.parse().unwrap());
}

/// Pieces of texts, most of them sound alone, many not together.
const PARTS: &[&str] = &[
    "permit(principal, action, resource);",
    "forbid(principal, action, resource);",
    "permit(principal, action, resource",
    "permit",
    "forbid",
    "(principal, action, resource)",
    "(principal, action, resource in Mesh::Server::\"bank/cart\")",
    "(principal, action, resource in Mesh::Namespace::\"cluster.local/bank\")",
    " when { true }",
    " when { true || resource in Mesh::NamedServers::\"bank\" }",
    " unless { resource in Mesh::Namespace::\"cluster.local/shop\" }",
    " when { context.nothing }",
    ";",
    "}",
    "\"",
    "// ",
    "@id(\"a\") ",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_changes_a_verdict_outside_of_its_namespace(parts in prop::collection::vec(prop::sample::select(PARTS), 0..9)) {
        let text = parts.concat();
        let world = beside(&[&cedar(&text)]);
        prop_assert_eq!(world.answer(&in_bank()), "allow", "{}", text);
        let mut plain = Ask::plain();
        plain.0.server.namespace = "bank".into();
        prop_assert_ne!(world.answer(&plain), "allow", "{}", text);
    }

    #[test]
    fn a_forbid_at_the_end_of_any_text_is_never_lost(parts in prop::collection::vec(prop::sample::select(PARTS), 0..9), wide in any::<bool>()) {
        let text = format!("{}\n{FORBID}", parts.concat());
        let object = if wide { rails("  allowPermits: true\n", &text) } else { cedar(&text) };
        prop_assert_eq!(beside(&[&object]).answer(&Ask::meshed("shop/web")), "forbid 403", "{}", text);
    }
}
