//! Input that ends an import: a code, a place, and nothing imported. Half of the policies might be the half that allows.

use crate::generate::cluster;
use crate::ours::{ALL, trust_domain};
use mesh_policy::snapshot::{Finding, Source};
use mesh_policy_index::import::{
    CustomAction, ImportConfig, ImportError, Imported, LinkerdConfig, istio, linkerd,
};

fn import(text: &str) -> Result<Imported, ImportError> {
    let files = [
        ("cluster.yaml".to_owned(), cluster(ALL).into_bytes()),
        ("istio.yaml".to_owned(), text.as_bytes().to_vec()),
    ];
    istio(&files, &ImportConfig::new(trust_domain()))
}

fn findings(error: ImportError) -> Vec<Finding> {
    match error {
        ImportError::Input { findings } => findings,
        other => panic!("{other}"),
    }
}

/// Asserts that a text is refused with this code at this line of it.
fn refused(text: &str, code: &str, line: u32) {
    let found = findings(import(text).expect_err(text));
    let at = |f: &Finding| matches!(&f.source, Source::File { file, line: at, .. } if file == "istio.yaml" && *at == line);
    assert!(
        found.iter().any(|f| f.code == code && at(f)),
        "{code} at line {line} of\n{text}\n{found:#?}"
    );
}

/// A policy whose `spec` this is, from line 4 on.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\n{spec}\n"
    )
}

fn source(fields: &str) -> String {
    policy(&format!(
        "spec:\n  rules:\n  - from:\n    - source: {{{fields}}}"
    ))
}

fn operation(fields: &str) -> String {
    policy(&format!(
        "spec:\n  rules:\n  - to:\n    - operation: {{{fields}}}"
    ))
}

#[test]
fn broken_yaml_is_refused_at_its_place() {
    refused("kind: [AuthorizationPolicy\n", "MESH-0350", 2);
    refused(
        &format!("{}---\nkind: {{\n", policy("spec: {}")),
        "MESH-0350",
        7,
    );
    refused("a: &a [*a]\n", "MESH-0353", 1);
    refused(&policy("spec: {<<: {rules: [{}]}}"), "MESH-0353", 4);
    refused(
        &policy("spec: {action: DENY, action: ALLOW}"),
        "MESH-0352",
        4,
    );
    refused(&policy("spec: !secret {}"), "MESH-0353", 4);
}

#[test]
fn aliases_and_sizes_are_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..9 {
        let again = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{again}]\n"));
    }
    let found = findings(import(&bomb).unwrap_err());
    assert!(found.iter().any(|f| f.code == "MESH-0351"), "{found:#?}");
    let huge = format!("# {}\n", "x".repeat(11 * 1024 * 1024));
    refused(&huge, "MESH-0351", 1);
    let many = vec!["{source: {principals: [a]}}"; 100].join(", ");
    let other = vec!["{operation: {methods: [GET]}}"; 100].join(", ");
    refused(
        &policy(&format!(
            "spec: {{rules: [{{from: [{many}], to: [{other}]}}]}}"
        )),
        "MESH-0351",
        4,
    );
}

#[test]
fn actions_that_are_none_are_refused() {
    refused(&policy("spec:\n  action: PERMIT"), "MESH-0359", 5);
    refused(&policy("spec:\n  action: allow"), "MESH-0359", 5);
    refused(&policy("spec:\n  action: [ALLOW]"), "MESH-0356", 5);
}

#[test]
fn an_external_provider_is_refused_unless_denial_is_asked_for() {
    let text = policy(
        "spec:\n  action: CUSTOM\n  provider: {name: oracle}\n  rules: [{to: [{operation: {paths: [/a]}}]}]",
    );
    refused(&text, "MESH-0340", 5);
    let config = ImportConfig {
        custom: CustomAction::Deny,
        ..ImportConfig::new(trust_domain())
    };
    let files = [
        ("c.yaml".to_owned(), cluster(ALL).into_bytes()),
        ("i.yaml".to_owned(), text.into_bytes()),
    ];
    assert!(istio(&files, &config).is_ok());
}

#[test]
fn what_istio_itself_refuses_is_refused() {
    for (text, code, line) in [
        (source("principal: [a]"), "MESH-0358", 7),
        (source(""), "MESH-0359", 7),
        (source("principals: []"), "MESH-0359", 7),
        (source("principals: ['']"), "MESH-0359", 7),
        (source("principals: a"), "MESH-0356", 7),
        (source("principals: [1]"), "MESH-0356", 7),
        (source("principals: null"), "MESH-0356", 7),
        (source("ipBlocks: [10.0.0.0/33]"), "MESH-0359", 7),
        (source("notIpBlocks: [localhost]"), "MESH-0359", 7),
        (source("serviceAccounts: ['*']"), "MESH-0359", 7),
        (source("serviceAccounts: [a/b/c]"), "MESH-0359", 7),
        (
            source("serviceAccounts: [a], principals: [b]"),
            "MESH-0360",
            7,
        ),
        (operation("ports: [8080]"), "MESH-0356", 7),
        (operation("ports: ['http']"), "MESH-0359", 7),
        (operation("ports: ['0']"), "MESH-0359", 7),
        (operation("paths: ['/{a}']"), "MESH-0359", 7),
        (operation("paths: ['/{**}/{*}']"), "MESH-0359", 7),
        (operation("path: [/a]"), "MESH-0358", 7),
        (policy("spec:\n  rules:\n  - from: []"), "MESH-0359", 6),
        (
            policy("spec:\n  rules:\n  - when: [{key: source.color, values: [red]}]"),
            "MESH-0359",
            6,
        ),
        (
            policy("spec:\n  rules:\n  - when: [{key: source.ip}]"),
            "MESH-0357",
            6,
        ),
        (
            policy("spec:\n  rules:\n  - when: [{values: [a]}]"),
            "MESH-0357",
            6,
        ),
        (policy("spec:\n  rule: []"), "MESH-0358", 5),
        (policy("spec:\n  rules:"), "MESH-0356", 5),
        (
            policy("spec:\n  selector: {matchExpressions: []}"),
            "MESH-0358",
            5,
        ),
        (
            policy("spec:\n  selector: {matchLabels: {app: '*'}}"),
            "MESH-0359",
            5,
        ),
        (
            policy(
                "spec: {selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: cart}]}",
            ),
            "MESH-0360",
            4,
        ),
        (policy("spec:\n  provider: {name: x}"), "MESH-0360", 5),
        (
            policy("spec: {}").replace("istio.io/v1\n", "istio.io/v1alpha1\n"),
            "MESH-0355",
            1,
        ),
        (
            policy("spec: {}").replace("name: p,", "name: P_,"),
            "MESH-0359",
            3,
        ),
        (policy("spec: {}").replace("name: p,", ""), "MESH-0357", 3),
        (
            format!(
                "{}---\n{}",
                policy("spec: {}"),
                policy("spec: {action: DENY}")
            ),
            "MESH-0361",
            6,
        ),
    ] {
        refused(&text, code, line);
    }
}

#[test]
fn a_dry_run_that_is_neither_true_nor_false_is_refused() {
    let text = policy("spec: {}").replace(
        "namespace: shop",
        "namespace: shop, annotations: {istio.io/dry-run: maybe}",
    );
    refused(&text, "MESH-0359", 1);
}

#[test]
fn peer_authentications_are_checked_as_well() {
    let peer = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
        )
    };
    refused(&peer("{mtls: {mode: strict}}"), "MESH-0359", 4);
    refused(&peer("{mtls: STRICT}"), "MESH-0356", 4);
    refused(&peer("{tls: {mode: STRICT}}"), "MESH-0358", 4);
    refused(
        &peer("{portLevelMtls: {8080: {mode: STRICT}}}"),
        "MESH-0360",
        4,
    );
    refused(
        &peer("{selector: {matchLabels: {app: a}}, portLevelMtls: {http: {mode: STRICT}}}"),
        "MESH-0359",
        4,
    );
}

#[test]
fn a_broken_workload_ends_the_import_too() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: 1}}\nspec: {containers: []}\n";
    refused(text, "MESH-0356", 3);
}

#[test]
fn a_check_of_linkerd_needs_documents_that_can_be_read() {
    let files = [("a.yaml".to_owned(), b"kind: [Server\n".to_vec())];
    let found = findings(linkerd(&files, &LinkerdConfig::new(trust_domain())).unwrap_err());
    assert!(found.iter().any(|f| f.code == "MESH-0350"), "{found:#?}");
}
