//! cvc5 itself, where one is installed that is new enough: named by MESH_SOLVER, or `cvc5`. Else each test says that it is
//! skipped, and why.

use crate::world::{NOW, clients, grant, index, network, pod, route};
use crate::{by_classes, cedar, invariant, question};
use mesh_policy::request::RequestRecord;
use mesh_policy_analysis::graph::Selector;
use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_index::Index;
use mesh_policy_symbolic::{Outcome, Prover, Session, VERSION_MIN, Verdict, outcome};
use std::path::PathBuf;
use std::time::Duration;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn solver(test: &str) -> Option<Session> {
    let program =
        std::env::var_os("MESH_SOLVER").map_or_else(|| PathBuf::from("cvc5"), PathBuf::from);
    match Session::open(&program, PATIENCE) {
        Ok(session) => Some(session),
        Err(fault) => {
            let (major, minor, patch) = VERSION_MIN;
            println!("skipped: {test} needs cvc5 {major}.{minor}.{patch} or newer: {fault}");
            None
        }
    }
}

/// What the solver says of the one invariant, after classes and solver were held against each other.
fn verdict(session: Session, index: &Index) -> Verdict {
    let verdict = Prover::new(index, NOW, session).prove(&question(index));
    let classes = by_classes(index);
    assert_ne!(
        outcome(&classes, &verdict),
        Outcome::Disagreement,
        "{classes:?} {verdict:?}"
    );
    verdict
}

fn proved(test: &str, index: &Index) {
    let Some(session) = solver(test) else { return };
    let verdict = verdict(session, index);
    assert!(
        matches!(verdict, Verdict::Proved { formulas } if formulas > 0),
        "{verdict:?}"
    );
}

fn refuted(test: &str, index: &Index) -> Option<RequestRecord> {
    match verdict(solver(test)?, index) {
        Verdict::Refuted { witness, .. } => Some(witness.request),
        other => panic!("{other:?}"),
    }
}

fn ledger(more: &[&str]) -> Index {
    index(
        &(pod("dev", "tool") + &pod("shop", "cart") + &pod("payments", "ledger") + &more.concat()),
    )
}

fn admin() -> String {
    invariant(
        "forbid: 'forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.path like \"/admin/*\" };'",
    )
}

fn readers(path: &str) -> String {
    cedar(
        "payments",
        &format!(
            "permit(principal is Mesh::Workload, action == Mesh::Action::\"request\", resource) when {{ context.req.path like \"{path}\" }};"
        ),
    )
}

#[test]
fn what_classes_leave_undecided_is_proved() {
    let mesh = ledger(&[&readers("/public/*"), &admin()]);
    assert!(matches!(by_classes(&mesh), Proof::Undecided { .. }));
    proved("what_classes_leave_undecided_is_proved", &mesh);
}

#[test]
fn patterns_that_overlap_are_found_to() {
    for path in ["/admin/*", "*", "/a*"] {
        let mesh = ledger(&[&readers(path), &admin()]);
        if let Some(request) = refuted("patterns_that_overlap_are_found_to", &mesh) {
            assert!(request.path.unwrap().starts_with("/admin/"));
        }
    }
}

#[test]
fn a_forbid_that_covers_the_claim_proves_it() {
    let forbid = "---\napiVersion: mesh.internal/v1alpha1\nkind: ClusterCedarPolicy\nmetadata: {name: guard}\nspec: {cedar: 'forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.path like \"/adm*\" };'}\n";
    proved(
        "a_forbid_that_covers_the_claim_proves_it",
        &ledger(&[&readers("*"), forbid, &admin()]),
    );
}

#[test]
fn routes_bound_paths() {
    let on_public = "{path: {type: PathPrefix, value: /public}}";
    let granted = [
        route("payments", "read", "ledger", on_public),
        grant(
            "payments",
            "g",
            "HTTPRoute read",
            &["ServiceAccount shop/cart"],
        ),
    ]
    .concat();
    proved("routes_bound_paths", &ledger(&[&granted, &admin()]));
    let on_all = granted.replace("/public", "/");
    if let Some(request) = refuted("routes_bound_paths", &ledger(&[&on_all, &admin()])) {
        assert_eq!(
            request.client.spiffe_id.unwrap(),
            "spiffe://cluster.local/ns/shop/sa/cart"
        );
    }
}

#[test]
fn who_is_in_a_set_is_known() {
    let claim = invariant("deny: {from: {namespaces: [dev]}, to: {namespaces: [payments]}}");
    let open = |identities: &[&str]| {
        let them = clients("payments", "them", identities)
            + &grant(
                "payments",
                "g",
                "Server ledger",
                &["MeshTLSAuthentication them"],
            );
        ledger(&[&claim, &them])
    };
    let test = "who_is_in_a_set_is_known";
    proved(
        test,
        &open(&[
            "spiffe://cluster.local/ns/shop/*",
            "spiffe://cluster.local/other",
        ]),
    );
    proved(test, &open(&["spiffe://elsewhere.example/ns/dev/sa/tool"]));
    for identities in [
        &["spiffe://cluster.local/ns/dev/sa/tool"][..],
        &["spiffe://cluster.local/ns/dev/*"],
        &["spiffe://cluster.local/ns/shop/sa/cart", "*"],
    ] {
        let Some(request) = refuted(test, &open(identities)) else {
            return;
        };
        let id = request.client.spiffe_id.unwrap();
        assert!(id.starts_with("spiffe://cluster.local/ns/dev/sa/"), "{id}");
    }
}

#[test]
fn attributes_and_sets_speak_of_the_same_client() {
    let written = |text: &str| {
        ledger(&[
            &cedar("payments", text),
            &invariant(
                "forbid: 'forbid(principal in Mesh::Namespace::\"cluster.local/dev\", action, resource in Mesh::Namespace::\"cluster.local/payments\");'",
            ),
        ])
    };
    let test = "attributes_and_sets_speak_of_the_same_client";
    for text in [
        "permit(principal is Mesh::Workload, action, resource) when { principal has ns && principal.ns == \"shop\" };",
        "permit(principal is Mesh::Workload, action, resource) when { principal.trustDomain != \"cluster.local\" };",
        "permit(principal == Mesh::Workload::\"spiffe://cluster.local/ns/shop/sa/cart\", action, resource);",
        "permit(principal is Mesh::Workload, action, resource) when { principal.id == \"spiffe://cluster.local/ns/shop/sa/cart\" };",
        "permit(principal is Mesh::Workload, action, resource) when { principal.id like \"spiffe://cluster.local/ns/shop/*\" };",
        "permit(principal, action, resource) when { !context.conn.tls };",
        "permit(principal, action, resource) when { context.conn.port == 9 };",
        "permit(principal, action, resource) when { context.now < datetime(\"2025-01-01\") };",
    ] {
        let mesh = written(text);
        if text.contains("port == 9") {
            // Any port that nothing else is said of.
            let request = refuted(test, &mesh);
            assert!(request.is_none_or(|request| request.server.port == 9));
        } else {
            proved(test, &mesh);
        }
    }
    for text in [
        "permit(principal is Mesh::Workload, action, resource) when { principal has ns && principal.ns != \"shop\" };",
        "permit(principal is Mesh::Workload, action, resource) when { principal has sa && principal.sa == \"tool\" };",
        "permit(principal is Mesh::Workload, action, resource) when { principal.id like \"*/dev/*\" };",
        "permit(principal, action, resource) when { context.conn.ip.isInRange(ip(\"10.1.0.0/16\")) };",
        "permit(principal, action, resource) when { context.conn.tls };",
    ] {
        refuted(test, &written(text));
    }
}

#[test]
fn networks_are_what_their_blocks_say() {
    let test = "networks_are_what_their_blocks_say";
    let from = |cidr: &str, except: &[&str]| {
        let grants = network("payments", "office", cidr, except)
            + &clients("payments", "all", &["*"])
            + &grant(
                "payments",
                "g",
                "Server ledger",
                &["MeshTLSAuthentication all", "NetworkAuthentication office"],
            );
        ledger(&[
            &grants,
            &invariant(
                "forbid: 'forbid(principal, action, resource) when { context.conn.ip.isInRange(ip(\"10.9.0.0/16\")) };'",
            ),
        ])
    };
    proved(test, &from("192.168.0.0/16", &[]));
    proved(test, &from("10.0.0.0/8", &["10.9.0.0/16"]));
    proved(test, &from("2001:db8::/32", &[]));
    refuted(test, &from("10.0.0.0/8", &["10.9.1.0/24"]));
    refuted(test, &from("0.0.0.0/0", &[]));
}

#[test]
fn headers_are_asked_about() {
    let test = "headers_are_asked_about";
    let claim = invariant(
        "forbid: 'forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.method == \"DELETE\" };'",
    );
    let written = |more: &str| {
        let text = format!(
            "permit(principal is Mesh::Workload, action == Mesh::Action::\"request\", resource) when {{ context.req.headers.hasTag(\"x-team\") && context.req.headers.getTag(\"x-team\").contains(\"a\"){more} }};"
        );
        ledger(&[&cedar("payments", &text), &claim])
    };
    proved(test, &written(" && context.req.method == \"GET\""));
    if let Some(request) = refuted(test, &written("")) {
        assert!(request.headers["x-team"].contains(&"a".to_owned()));
        assert_eq!(request.method.as_deref(), Some("DELETE"));
    }
}

#[test]
fn what_must_be_allowed_is_proved_and_refuted() {
    let test = "what_must_be_allowed_is_proved_and_refuted";
    let claim = invariant(
        "allow: 'permit(principal == Mesh::Workload::\"spiffe://cluster.local/ns/shop/sa/cart\", action == Mesh::Action::\"request\", resource in Mesh::Server::\"payments/ledger\") when { context.req.path like \"/public/*\" };'",
    );
    let given = grant(
        "payments",
        "g",
        "Server ledger",
        &["ServiceAccount shop/cart"],
    );
    proved(test, &ledger(&[&claim, &given]));
    proved(test, &ledger(&[&claim, &readers("/pub*")]));
    refuted(test, &ledger(&[&claim]));
    refuted(test, &ledger(&[&claim, &readers("/public/x*")]));
    let forbid = cedar(
        "payments",
        "forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.path == \"/public/secret\" };",
    );
    if let Some(request) = refuted(test, &ledger(&[&claim, &given, &forbid])) {
        assert_eq!(request.path.as_deref(), Some("/public/secret"));
    }
}

#[test]
fn nobody_without_an_identity_is_a_claim_too() {
    let anyone = "---\napiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {name: open, namespace: payments}\nspec: {server: {name: ledger}, client: {unauthenticated: true}}\n";
    let test = "nobody_without_an_identity_is_a_claim_too";
    for (mesh, holds) in [
        (ledger(&[]), true),
        (ledger(&[&readers("*")]), true),
        (ledger(&[anyone]), false),
        (
            ledger(&[&cedar("payments", "permit(principal, action, resource);")]),
            false,
        ),
    ] {
        let Some(session) = solver(test) else { return };
        let verdict = Prover::new(&mesh, NOW, session).prove(&Question::DenyAnonymous);
        let classes = prove(&mesh, &Question::DenyAnonymous, NOW);
        assert_ne!(
            outcome(&classes, &verdict),
            Outcome::Disagreement,
            "{classes:?} {verdict:?}"
        );
        match (&verdict, holds) {
            (Verdict::Proved { .. }, true) => {}
            (Verdict::Refuted { witness, .. }, false) => {
                assert_eq!(witness.request.client.spiffe_id, None);
            }
            _ => panic!("{verdict:?}"),
        }
    }
}

#[test]
fn paths_over_others_are_not_supported() {
    let test = "paths_over_others_are_not_supported";
    let Some(session) = solver(test) else { return };
    let mesh = ledger(&[]);
    let question = Question::NoPath(
        Selector::parse("dev").unwrap(),
        Selector::parse("payments").unwrap(),
    );
    let verdict = Prover::new(&mesh, NOW, session).prove(&question);
    assert!(
        matches!(&verdict, Verdict::Unknown { why } if why.contains("not supported")),
        "{verdict:?}"
    );
}
