//! Where Linkerd's resources mean something else here: each difference with its place and what to write.

use crate::ours::trust_domain;
use mesh_policy_index::Mode;
use mesh_policy_index::import::{LinkerdConfig, Report, Status, linkerd};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  containers:
  - name: app
    ports: [{containerPort: 8080, name: http}]
";

/// A Server that lets the pod itself in, as Linkerd does without being told.
const SERVER: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: cart, namespace: shop}
spec: {podSelector: {matchLabels: {app: cart}}, port: http, proxyProtocol: HTTP/1}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: localhost, namespace: shop}
spec: {networks: [{cidr: 127.0.0.1/32}, {cidr: '::1/128'}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: localhost, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: cart}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: NetworkAuthentication, name: localhost}]
";

fn check_with(parts: &[&str], change: impl FnOnce(&mut LinkerdConfig)) -> Report {
    let mut config = LinkerdConfig::new(trust_domain());
    config.linkerd_default = Mode::Deny;
    change(&mut config);
    let files = [("l.yaml".to_owned(), parts.join("---\n").into_bytes())];
    linkerd(&files, &config).unwrap()
}

fn check(parts: &[&str]) -> Report {
    check_with(parts, |_| {})
}

/// Asserts one change: its code, line, words of its message and words of its hint.
fn changed(report: &Report, code: &str, line: u32, message: &str, hint: &str) {
    let found = report.facts.iter().find(|f| {
        f.code == Some(code)
            && f.place.line == line
            && f.message.contains(message)
            && f.hint.as_ref().is_some_and(|h| h.contains(hint))
    });
    assert!(
        found.is_some(),
        "{code} at {line}: {message} / {hint}\n{:#?}",
        report.facts
    );
    assert!(!report.is_exact());
}

#[test]
fn what_means_the_same_is_kept() {
    let report = check(&[POD, SERVER]);
    assert!(report.is_exact(), "{:#?}", report.facts);
    assert_eq!(report.summary.kept, 3);
    assert!(
        report
            .facts
            .iter()
            .all(|f| f.status == Status::Kept && f.code.is_none())
    );
}

#[test]
fn a_default_policy_that_was_open_is_told_for_each_workload() {
    let report = check_with(&[POD], |c| c.linkerd_default = Mode::AllUnauthenticated);
    changed(
        &report,
        "MESH-0348",
        1,
        "no Server speaks for 8080",
        "config.linkerd.io/default-inbound-policy: all-unauthenticated",
    );
    let annotated = POD.replace(
        "labels:",
        "annotations: {config.linkerd.io/default-inbound-policy: all-unauthenticated}, labels:",
    );
    assert!(
        check_with(&[&annotated], |c| c.linkerd_default =
            Mode::AllUnauthenticated)
        .is_exact()
    );
}

#[test]
fn an_empty_list_of_authentications_admits_nobody() {
    let open = "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: open, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, requiredAuthenticationRefs: []}\n";
    changed(
        &check(&[POD, SERVER, open]),
        "MESH-0348",
        26,
        "empty `requiredAuthenticationRefs`",
        "mesh.internal/allow-unauthenticated",
    );
    let meant = open.replace(
        "namespace: shop}",
        "namespace: shop, annotations: {mesh.internal/allow-unauthenticated: meant}}",
    );
    assert!(check(&[POD, SERVER, &meant]).is_exact());
}

#[test]
fn localhost_has_no_standing_permit() {
    let alone = SERVER.split("---\n").next().unwrap();
    changed(
        &check(&[POD, alone]),
        "MESH-0348",
        9,
        "127.0.0.1",
        "127.0.0.1/32 and ::1/128",
    );
}

fn identities(list: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: MeshTLSAuthentication\nmetadata: {{name: some, namespace: shop}}\nspec: {{identities: [{list}]}}\n"
    )
}

#[test]
fn stars_and_suffixes_mean_others() {
    changed(
        &check(&[POD, SERVER, &identities("'*'")]),
        "MESH-0349",
        26,
        "`*` means every client",
        "name identities",
    );
    changed(
        &check(&[
            POD,
            SERVER,
            &identities("'*.identity.linkerd.cluster.local'"),
        ]),
        "MESH-0348",
        26,
        "matches nobody",
        "spiffe://cluster.local/ns/<namespace>/*",
    );
    let exact = identities(
        "'*.shop.serviceaccount.identity.linkerd.cluster.local', 'web.shop.serviceaccount.identity.linkerd.cluster.local'",
    );
    assert!(check(&[POD, SERVER, &exact]).is_exact());
}

#[test]
fn invalid_annotations_close_and_do_not_open() {
    let mode = POD.replace(
        "labels:",
        "annotations: {config.linkerd.io/default-inbound-policy: open}, labels:",
    );
    changed(
        &check(&[&mode, SERVER]),
        "MESH-0348",
        1,
        "Linkerd warns and takes",
        "config.linkerd.io/default-inbound-policy: deny",
    );
    let ports = POD.replace(
        "labels:",
        "annotations: {config.linkerd.io/proxy-require-identity-inbound-ports: 'x y'}, labels:",
    );
    changed(
        &check(&[&ports, SERVER]),
        "MESH-0348",
        1,
        "Linkerd takes the list for empty",
        "ports, ranges or names",
    );
}

#[test]
fn unknown_fields_make_an_object_invalid() {
    let typo = SERVER.replace("proxyProtocol:", "proxyprotocol:");
    changed(
        &check(&[POD, &typo]),
        "MESH-0348",
        12,
        "Kubernetes drops the field",
        "did you mean `proxyProtocol`?",
    );
}

const ROUTE: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: a, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: cart}]
  rules: [{matches: [{path: {value: /a}}]}]
";

#[test]
fn probes_stay_open_beside_routes() {
    let probed = POD.replace(
        "name: http}]",
        "name: http}]\n    livenessProbe: {httpGet: {path: /live, port: http}}",
    );
    assert!(check(&[&probed, SERVER]).is_exact());
    changed(
        &check(&[&probed, SERVER, ROUTE]),
        "MESH-0349",
        8,
        "stays open without identity",
        "NetworkAuthentication",
    );
    let tcp = POD.replace(
        "name: http}]",
        "name: http}]\n    livenessProbe: {tcpSocket: {port: http}}",
    );
    changed(
        &check(&[&tcp, SERVER]),
        "MESH-0349",
        8,
        "Linkerd knows probes of HTTP only",
        "",
    );
    let odd = POD.replace(
        "name: http}]",
        "name: http}]\n    livenessProbe: {httpGet: {path: /a//b, port: http}}",
    );
    changed(
        &check(&[&odd, SERVER]),
        "MESH-0348",
        8,
        "canonical form",
        "canonical",
    );
}

#[test]
fn bytes_do_not_pass_routes() {
    let detected = SERVER.replace(", proxyProtocol: HTTP/1", "");
    changed(
        &check(&[POD, &detected, ROUTE]),
        "MESH-0348",
        9,
        "bytes that are no HTTP request",
        "proxyProtocol: opaque",
    );
}

#[test]
fn regular_expressions_rank_otherwise() {
    let regex = ROUTE
        .replace("name: a,", "name: r,")
        .replace("{value: /a}", "{type: RegularExpression, value: '/.*'}");
    changed(
        &check(&[POD, SERVER, ROUTE, &regex]),
        "MESH-0349",
        33,
        "ranks below every prefix",
        "prefixes or exact",
    );
}

#[test]
fn what_is_only_checked_is_told() {
    let machine = "apiVersion: workload.linkerd.io/v1beta1\nkind: ExternalWorkload\nmetadata: {name: e, namespace: shop}\nspec: {meshTLS: {identity: 'spiffe://root.example/vm', serverName: a.b}, ports: [{port: 80}], workloadIPs: [{ip: 192.0.2.1}]}\n";
    changed(
        &check(&[POD, SERVER, machine]),
        "MESH-0349",
        26,
        "Linkerd enforces it",
        "",
    );
}
