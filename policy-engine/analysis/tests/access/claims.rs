//! What must hold.

use crate::world::{NOW, clients, grant, index, pod};
use mesh_policy::decide::Verdict;
use mesh_policy::snapshot::Severity;
use mesh_policy_analysis::graph::Selector;
use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_index::Index;
use mesh_policy_index::replay::Replay;

fn no_path(index: &Index, from: &str, to: &str) -> Proof {
    let question = Question::NoPath(Selector::parse(from).unwrap(), Selector::parse(to).unwrap());
    prove(index, &question, NOW)
}

fn world(more: &str) -> Index {
    index(&(pod("dev", "tool") + &pod("shop", "cart") + &pod("payments", "ledger") + more))
}

const INVARIANT: &str = "---\napiVersion: mesh.internal/v1alpha1\nkind: Invariant\nmetadata: {name: apart}\nspec:\n  description: dev never reaches payments\n";

/// An invariant; `claim` is indented by two.
fn invariant(claim: &str) -> String {
    format!("{INVARIANT}  {claim}\n")
}

fn proof(index: &Index) -> Proof {
    let [invariant] = index.invariants() else {
        panic!("{:?}", index.findings())
    };
    prove(index, &Question::Invariant(invariant), NOW)
}

fn replayed(index: &Index, proof: &Proof, verdict: Verdict) {
    let Proof::Violated { witness, .. } = proof else {
        panic!("{proof:?}")
    };
    assert!(!witness.is_empty());
    for one in witness {
        assert_eq!(
            Replay::new(index, NOW).decide(&one.request).verdict,
            verdict
        );
    }
}

#[test]
fn a_way_over_a_third_is_a_way() {
    let half = grant("shop", "g1", "Server cart", &["ServiceAccount dev/tool"]);
    let whole = half.clone()
        + &grant(
            "payments",
            "g2",
            "Server ledger",
            &["ServiceAccount shop/cart"],
        );
    assert!(
        matches!(no_path(&world(&half), "dev", "payments"), Proof::Holds { decisions } if decisions > 0)
    );
    let open = world(&whole);
    let found = no_path(&open, "dev", "payments");
    replayed(&open, &found, Verdict::Allow);
    let Proof::Violated { why, witness } = found else {
        unreachable!()
    };
    assert_eq!(
        (why.as_str(), witness.len()),
        ("dev/tool -> shop/cart -> payments/ledger", 2)
    );
}

#[test]
fn an_account_without_a_workload_is_of_its_namespace_too() {
    let open = world(&grant(
        "payments",
        "g",
        "Server ledger",
        &["ServiceAccount dev/forgotten"],
    ));
    replayed(&open, &no_path(&open, "dev", "payments"), Verdict::Allow);
    assert!(matches!(
        no_path(&open, "dev/tool", "payments"),
        Proof::Holds { .. }
    ));
}

#[test]
fn whoever_is_let_in_without_an_identity_lets_dev_in() {
    let anyone = "---\napiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {name: open, namespace: payments}\nspec: {server: {name: ledger}, client: {unauthenticated: true}}\n";
    let open = world(anyone);
    replayed(&open, &no_path(&open, "dev", "payments"), Verdict::Allow);
    replayed(
        &open,
        &prove(&open, &Question::DenyAnonymous, NOW),
        Verdict::Allow,
    );
    assert!(matches!(
        prove(&world(""), &Question::DenyAnonymous, NOW),
        Proof::Holds { .. }
    ));
}

#[test]
fn an_identity_that_is_forbidden_may_come_without_it() {
    let open = "---\napiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {name: open, namespace: payments}\nspec: {server: {name: ledger}, client: {unauthenticated: true}}\n";
    let forbid = "---\napiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {name: named, namespace: payments}\nspec: {cedar: 'forbid(principal is Mesh::Workload, action, resource);'}\n";
    let world = world(&(open.to_owned() + forbid));
    assert!(
        world
            .findings()
            .iter()
            .all(|f| f.severity != Severity::Error),
        "{:?}",
        world.findings()
    );
    replayed(
        &world,
        &no_path(&world, "dev/tool", "payments"),
        Verdict::Allow,
    );
}

#[test]
fn a_name_that_nobody_has_proves_nothing() {
    for (from, to) in [("dve", "payments"), ("dev", "payment")] {
        assert!(
            matches!(no_path(&world(""), from, to), Proof::Undecided { .. }),
            "{from} {to}"
        );
    }
}

#[test]
fn an_invariant_holds_until_a_grant_speaks_against_it() {
    let claim = invariant("deny: {from: {namespaces: [dev]}, to: {namespaces: [payments]}}");
    assert!(
        matches!(proof(&world(&claim)), Proof::Holds { decisions } if decisions > 0),
        "{:?}",
        proof(&world(&claim))
    );
    for identities in [
        &["spiffe://cluster.local/ns/dev/sa/tool"],
        &["spiffe://cluster.local/ns/dev/*"],
        &["*"],
    ] {
        let more = clients("payments", "them", identities)
            + &grant(
                "payments",
                "g",
                "Server ledger",
                &["MeshTLSAuthentication them"],
            );
        let open = world(&(claim.clone() + &more));
        replayed(&open, &proof(&open), Verdict::Allow);
    }
    // Another namespace's access does not concern it.
    let other = world(
        &(claim
            + &grant(
                "payments",
                "g",
                "Server ledger",
                &["ServiceAccount shop/cart"],
            )),
    );
    assert!(matches!(proof(&other), Proof::Holds { .. }));
}

#[test]
fn what_must_always_be_allowed_is_violated_by_a_denial() {
    let claim = invariant(
        "allow: 'permit(principal == Mesh::Workload::\"spiffe://cluster.local/ns/shop/sa/cart\", action == Mesh::Action::\"request\", resource in Mesh::Server::\"payments/ledger\");'",
    );
    let closed = world(&claim);
    let found = proof(&closed);
    replayed(&closed, &found, Verdict::Deny);
}

#[test]
fn a_claim_about_attributes_of_requests_is_never_proved() {
    let claim = invariant(
        "forbid: 'forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.path like \"/admin/*\" };'",
    );
    assert!(
        matches!(proof(&world(&claim)), Proof::Undecided { .. }),
        "{:?}",
        proof(&world(&claim))
    );
    // But what it names is tried.
    let open = world(
        &(claim
            + &grant(
                "payments",
                "g",
                "Server ledger",
                &["ServiceAccount dev/tool"],
            )),
    );
    replayed(&open, &proof(&open), Verdict::Allow);
}

#[test]
fn a_claim_that_cannot_be_read_is_not_proved() {
    for claim in [
        "deny: {from: {namespaces: []}}",
        "forbid: 'forbid(principal, action, resource) when { nonsense };'",
    ] {
        let broken = world(&invariant(claim));
        for invariant in broken.invariants() {
            let found = prove(&broken, &Question::Invariant(invariant), NOW);
            assert!(
                matches!(found, Proof::Undecided { .. }),
                "{claim}: {found:?}"
            );
        }
    }
}
