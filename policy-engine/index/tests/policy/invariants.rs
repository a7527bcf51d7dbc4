//! Invariants: read, checked, handed on, and never part of a decision.

use crate::world::{MESHED, SERVER, SHOP, World};
use mesh_policy_index::{Claim, Invariant};

fn invariant(meta: &str, spec: &str) -> String {
    format!(
        "apiVersion: mesh.internal/v1alpha1\nkind: Invariant\nmetadata: {{{meta}}}\nspec:\n  description: what must hold\n{spec}"
    )
}

const FORBID: &str =
    "  forbid: 'forbid(principal, action, resource) unless { context.conn.tls };'\n";

fn one(text: &str) -> Invariant {
    let world = World::of(&[SHOP, SERVER, MESHED, text]);
    let [found] = world.index.invariants() else {
        panic!("{:?}", world.index.invariants())
    };
    found.clone()
}

/// Texts of a claim that nothing may be allowed against.
fn never(text: &str) -> Vec<String> {
    match one(text).claim {
        Ok(Claim::Never(texts)) => texts.into_iter().map(|t| t.text).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_invariant_is_cluster_wide_unless_it_has_a_namespace() {
    let wide = one(&invariant("name: i", FORBID));
    assert_eq!(
        (wide.id.as_str(), wide.namespace.as_deref()),
        ("Invariant//i", None)
    );
    assert_eq!(wide.description, "what must hold");
    let own = one(&invariant("name: i, namespace: shop", FORBID));
    assert_eq!(
        (own.id.as_str(), own.namespace.as_deref()),
        ("Invariant/shop/i", Some("shop"))
    );
    assert_eq!(never(&invariant("name: i", FORBID)).len(), 1);
}

#[test]
fn invariants_change_no_snapshot() {
    let without = World::of(&[SHOP, SERVER]).snapshot("shop", "cart");
    let everything = invariant(
        "name: i",
        "  forbid: 'forbid(principal, action, resource);'\n",
    );
    let broken = invariant("name: j", "  forbid: 'nonsense'\n");
    let with = World::of(&[SHOP, SERVER, &everything, &broken]).snapshot("shop", "cart");
    assert_eq!(without.cedar_policies, with.cedar_policies);
    assert_eq!(without.grants, with.grants);
}

#[test]
fn what_must_be_allowed_is_a_permit() {
    let text = invariant(
        "name: i",
        "  allow: 'permit(principal is Mesh::Workload, action, resource);'\n",
    );
    assert!(matches!(one(&text).claim, Ok(Claim::Always(texts)) if texts.len() == 1));
}

#[test]
fn clients_and_servers_that_must_stay_apart_become_one_forbid() {
    let text = invariant(
        "name: i",
        "  deny:\n    from: {namespaces: [dev], identities: ['spiffe://b.example/ns/x/sa/y', '*.lab.serviceaccount.identity.l.cluster.local'], unauthenticated: true}\n    to: {namespaces: [bank], servers: [{namespace: shop, name: cart}]}\n",
    );
    let texts = never(&text);
    let [text] = texts.as_slice() else {
        panic!("{texts:?}")
    };
    for part in [
        "Mesh::Namespace::\"cluster.local/dev\"",
        "Mesh::Namespace::\"cluster.local/lab\"",
        "principal == Mesh::Workload::\"spiffe://b.example/ns/x/sa/y\"",
        "principal is Mesh::Anonymous",
        "resource in Mesh::Namespace::\"cluster.local/bank\"",
        "resource in Mesh::Server::\"shop/cart\"",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("forbid"));
    let all = never(&invariant(
        "name: i",
        "  deny: {from: {identities: ['*']}}\n",
    ));
    assert!(
        all.iter()
            .all(|t| t.contains("principal is Mesh::Workload")),
        "{all:?}"
    );
    let own = never(&invariant(
        "name: i, namespace: shop",
        "  deny: {to: {servers: [{name: cart}]}}\n",
    ));
    assert!(
        own.iter()
            .all(|t| t.contains("Mesh::Server::\"shop/cart\"")),
        "{own:?}"
    );
    let many: Vec<String> = (0..2_000).map(|n| format!("n{n}")).collect();
    let many = invariant(
        "name: i",
        &format!("  deny: {{from: {{namespaces: [{}]}}}}\n", many.join(", ")),
    );
    assert_eq!(never(&many).len(), 1, "a long list stays flat");
}

#[test]
fn an_invariant_that_cannot_be_told_is_an_error_and_not_proved() {
    for (spec, what) in [
        ("", "no claim"),
        (
            "  forbid: 'forbid(principal, action, resource);'\n  deny: {to: {namespaces: [a]}}\n",
            "two claims",
        ),
        (
            "  forbid: 'permit(principal, action, resource);'\n",
            "a permit in place of a forbid",
        ),
        (
            "  allow: 'forbid(principal, action, resource);'\n",
            "a forbid in place of a permit",
        ),
        (
            "  forbid: 'forbid(principal, action, resource) when { false };'\n",
            "what never happens is no invariant",
        ),
        (
            "  forbid: 'forbid(principal, action, resource) when { context.x };'\n",
            "an invalid policy",
        ),
        (
            "  forbid: 'forbid(principal, action'\n",
            "a text that cannot be cut",
        ),
        (
            "  forbid: 'forbid(principal action, resource);'\n",
            "a text that cannot be parsed",
        ),
        ("  forbid: ''\n", "an empty text"),
        (
            "  forbid: 'forbid(principal == ?principal, action, resource);'\n",
            "a template",
        ),
        (
            "  forbid: 'forbid(principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/ghost\", action, resource);'\n",
            "a set that there is not",
        ),
        (
            "  forbid: 'forbid(principal, action, resource in Mesh::Server::\"cart\");'\n",
            "a malformed id",
        ),
        ("  deny: {}\n", "neither side"),
        ("  deny: {from: {}}\n", "an empty side"),
        (
            "  deny: {from: {namespaces: []}, to: {namespaces: [a]}}\n",
            "an empty list",
        ),
        ("  deny: {from: {unauthenticated: false}}\n", "nobody"),
        ("  deny: {from: {namespaces: [A]}}\n", "no namespace"),
        ("  deny: {from: {identities: ['x.*']}}\n", "no identity"),
        (
            "  deny: {from: {identities: ['a.b.example']}}\n",
            "an identity of nobody",
        ),
        (
            "  deny: {to: {servers: [{name: cart}]}}\n",
            "a Server of no namespace",
        ),
        (
            "  deny: {to: {namespaces: [a], ports: [1]}}\n",
            "an unknown field",
        ),
        (
            "  unknown: 1\n  deny: {to: {namespaces: [a]}}\n",
            "an unknown claim",
        ),
    ] {
        let text = invariant("name: i", spec);
        let world = World::of(&[SHOP, SERVER, MESHED, &text]);
        let found = world.index.invariants();
        assert!(
            found.iter().all(|i| i.claim.is_err()) && found.len() == 1,
            "{what}: {found:?}"
        );
        assert_eq!(
            world
                .findings("MESH-0332")
                .iter()
                .filter(|f| f.message.contains("not proved"))
                .count(),
            1,
            "{what}"
        );
    }
    let silent = invariant("name: i", FORBID).replace("what must hold", "' '");
    assert!(one(&silent).claim.is_err());
}

#[test]
fn an_invariant_of_a_namespace_speaks_only_about_its_servers() {
    for spec in [
        "  deny: {to: {namespaces: [bank]}}\n",
        "  deny: {to: {servers: [{namespace: bank, name: x}]}}\n",
    ] {
        assert!(
            one(&invariant("name: i, namespace: shop", spec))
                .claim
                .is_err(),
            "{spec}"
        );
        assert!(one(&invariant("name: i", spec)).claim.is_ok(), "{spec}");
    }
}

#[test]
fn sets_that_an_invariant_mentions_come_with_it() {
    let spec = "  forbid: 'forbid(principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/meshed\", action, resource);'\n";
    let found = one(&invariant("name: i", spec));
    assert!(
        found
            .identity_sets
            .contains_key("MeshTLSAuthentication/shop/meshed")
    );
}

#[test]
fn namesakes_are_not_proved() {
    let text = invariant("name: i", FORBID);
    let world = World::of(&[SHOP, &text, &text]);
    assert!(world.index.invariants().iter().all(|i| i.claim.is_err()));
}
