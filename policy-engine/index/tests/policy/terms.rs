//! Grants with an end, and broken glass.

use crate::raw_cedar::{FORBID, PERMIT, object, texts};
use crate::world::{MESHED, SERVER, SHOP, World, policy};
use mesh_policy::snapshot::{Effect, Term};

const END: &str = "2027-02-01T12:00:00Z";

fn annotated(manifest: &str, annotations: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = annotations
        .iter()
        .map(|(key, value)| format!("mesh.internal/{key}: '{value}'"))
        .collect();
    let born = "creationTimestamp: '2027-01-31T12:00:00Z'";
    manifest.replacen(
        "namespace: shop}",
        &format!(
            "namespace: shop, {born}, annotations: {{{}}}}}",
            pairs.join(", ")
        ),
        1,
    )
}

fn authorization() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn server_authorization() -> String {
    "apiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {name: p, namespace: shop}\nspec: {server: {name: cart}, client: {meshTLS: {identities: ['*']}}}\n".to_owned()
}

fn cedar() -> String {
    object(
        "CedarPolicy",
        "name: x, namespace: shop",
        "",
        &format!("{PERMIT}\n{FORBID}"),
    )
}

/// Terms of the grants and of the Cedar texts of `cart`, by id.
fn terms(manifest: &str) -> Vec<(String, Term)> {
    let world = World::of(&[SHOP, SERVER, MESHED, manifest]);
    let snapshot = world.snapshot("shop", "cart");
    let grants = snapshot
        .grants
        .iter()
        .map(|g| (g.id.clone(), g.term.clone()));
    let texts = texts(&world, "shop", "cart")
        .into_iter()
        .map(|t| (t.id, t.term));
    grants.chain(texts).collect()
}

/// What must not be read as a term.
const REFUSED: &[(&[(&str, &str)], &str)] = &[
    (&[("expires", "tomorrow")], "no time"),
    (&[("expires", "")], "nothing"),
    (&[("expires", "2027-02-01")], "a day"),
    (
        &[("expires", "2027-02-01T12:00:00.0001Z")],
        "less than a millisecond",
    ),
    (&[("break-glass", "incident 4711")], "no end"),
    (&[("break-glass", ""), ("expires", END)], "no reason"),
    (&[("break-glass", "  "), ("expires", END)], "a blank reason"),
    (
        &[
            ("break-glass", "why"),
            ("expires", "2027-02-01T12:00:00.001Z"),
        ],
        "more than a day",
    ),
    (
        &[("break-glass", "why"), ("expires", "never")],
        "broken glass without an end that can be read",
    ),
];

#[test]
fn a_term_reaches_every_grant_and_policy_of_its_object() {
    let want = Term {
        expires: Some(END.parse().unwrap()),
        break_glass: Some("incident 4711".into()),
    };
    let annotations = [("expires", END), ("break-glass", " incident 4711")];
    for (manifest, ids) in [
        (authorization(), vec!["AuthorizationPolicy/shop/p/0"]),
        (server_authorization(), vec!["ServerAuthorization/shop/p/0"]),
        (
            cedar(),
            vec!["CedarPolicy/shop/x/0", "CedarPolicy/shop/x/1"],
        ),
    ] {
        let manifest = annotated(&manifest, &annotations);
        let expected: Vec<_> = ids
            .iter()
            .map(|id| ((*id).to_owned(), want.clone()))
            .collect();
        assert_eq!(terms(&manifest), expected, "{manifest}");
        let world = World::of(&[SHOP, SERVER, MESHED, &manifest]);
        assert_eq!(world.errors(), Vec::<&str>::new());
        let listed = world.index.terms();
        let listed: Vec<_> = listed.into_iter().map(|t| (t.id, t.term)).collect();
        assert_eq!(listed, expected, "a command can say which have expired");
    }
}

#[test]
fn standing_grants_are_not_listed() {
    let world = World::of(&[SHOP, SERVER, MESHED, &authorization(), &cedar()]);
    assert_eq!(world.index.terms(), []);
}

#[test]
fn a_term_that_cannot_be_read_takes_the_grant_away() {
    for manifest in [authorization(), server_authorization()] {
        assert_eq!(terms(&manifest).len(), 1);
        for (annotations, what) in REFUSED {
            let manifest = annotated(&manifest, annotations);
            assert_eq!(terms(&manifest), [], "{what}");
            let world = World::of(&[SHOP, SERVER, MESHED, &manifest]);
            assert_eq!(world.errors(), ["MESH-0330"], "{what}");
            assert_eq!(world.index.terms(), [], "{what}");
        }
    }
}

#[test]
fn a_term_that_cannot_be_read_takes_cedar_permits_away_and_leaves_forbids_without_end() {
    for (annotations, what) in REFUSED {
        let manifest = annotated(&cedar(), annotations);
        let world = World::of(&[SHOP, &manifest]);
        let found = texts(&world, "shop", "cart");
        let [forbid] = found.as_slice() else {
            panic!("{what}: {found:?}")
        };
        assert_eq!(
            (forbid.effect, &forbid.term),
            (Effect::Forbid, &Term::default()),
            "{what}"
        );
        assert_eq!(
            forbid.invalid, None,
            "{what}: what was read whole is enforced as it is"
        );
        assert_eq!(world.errors(), ["MESH-0330"], "{what}");
    }
}

#[test]
fn a_term_of_a_cluster_wide_policy_counts_too() {
    let rails = object(
        "ClusterCedarPolicy",
        &format!("name: rails, annotations: {{mesh.internal/expires: '{END}'}}"),
        "",
        FORBID,
    );
    let world = World::of(&[SHOP, &rails]);
    let found = texts(&world, "shop", "cart");
    assert_eq!(
        found.first().unwrap().term.expires,
        Some(END.parse().unwrap())
    );
}

#[test]
fn broken_glass_of_unknown_age_is_a_warning() {
    for manifest in [authorization(), cedar()] {
        let manifest = annotated(&manifest, &[("expires", END), ("break-glass", "why")])
            .replace("creationTimestamp: '2027-01-31T12:00:00Z', ", "");
        let world = World::of(&[SHOP, SERVER, MESHED, &manifest]);
        assert_eq!(world.findings("MESH-0331").len(), 1);
        assert_eq!(world.errors(), Vec::<&str>::new());
        assert!(!world.index.terms().is_empty());
    }
}

#[test]
fn terms_of_policies_that_grant_nothing_are_not_listed() {
    let dangling = policy("p", "Server cart", &["MeshTLSAuthentication ghost"]);
    let manifest = annotated(&dangling, &[("expires", END)]);
    assert_eq!(World::of(&[SHOP, SERVER, &manifest]).index.terms(), []);
}
