//! Configuration files that are read, and those that are refused with place and hint.

use super::file::parse;
use super::*;

/// The sample that `mesh explain MESH-0451` shows, comments and all.
fn sample() -> String {
    include_str!("../../sample.yaml").to_owned()
}

fn fault(text: &str) -> String {
    let error = parse(text, "proxy.yaml").expect_err("a fault");
    let code = miette::Diagnostic::code(&error)
        .map(|code| code.to_string())
        .unwrap_or_default();
    format!("{code} {error}")
}

#[test]
fn the_sample_is_valid() {
    let config = parse(&sample(), "proxy.yaml").expect("a valid sample");
    assert_eq!(config.workload_name(), "shop/cart");
    assert!(
        matches!(&config.outbound[0].target, Target::Service(name) if name.to_string() == "shop/catalog:80")
    );
}

#[test]
fn what_is_not_said_has_a_default() {
    let text = sample();
    let kept = |line: &&str| {
        !["cores", "drainSecs", "limits", "trustDomain", "audit"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let text: String = text
        .lines()
        .filter(kept)
        .map(|line| format!("{line}\n"))
        .collect();
    let config = parse(&text, "proxy.yaml").expect("valid");
    assert_eq!(
        (
            config.cores,
            config.drain.as_secs(),
            config.trust_domain.as_str()
        ),
        (1, 30, "cluster.local")
    );
    assert_eq!(config.limits.connections, crate::limits::CONNECTIONS);
    assert!(config.audit.is_none());
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    let said = fault(&sample().replace("drainSecs: 30", "drainSeconds: 30"));
    assert!(
        said.starts_with("MESH-0451 proxy.yaml:") && said.contains("drainSeconds"),
        "{said}"
    );
}

#[test]
fn values_that_cannot_be_used_are_named() {
    for (from, to, want) in [
        (
            "mesh: \"127.1.2.1:15008\"",
            "mesh: \"127.1.2.1\"",
            "inbound.mesh",
        ),
        (
            "service: \"shop/catalog:80\"",
            "service: \"catalog\"",
            "outbound[0].service",
        ),
        ("allowSample: 0.01", "allowSample: 1.5", "audit.allowSample"),
        ("cores: 1", "cores: 0", "cores"),
        (
            "sa/mesh-controller }",
            "sa/ }",
            "policy.controller.identity",
        ),
        ("port: 8080, app", "port: 0, app", "inbound.ports[0].port"),
        ("unix:///run", "tcp://run", "identity.workloadApi"),
        (
            "trustDomain: cluster.local",
            "trustDomain: Cluster.Local",
            "trustDomain",
        ),
        ("name: cart }", "name: \"../cart\" }", "workload.name"),
    ] {
        let text = sample();
        assert!(text.contains(from), "the sample has no {from}");
        let said = fault(&text.replacen(from, to, 1));
        assert!(
            said.starts_with("MESH-0452") && said.contains(&format!("`{want}`")),
            "{to}: {said}"
        );
    }
}

#[test]
fn two_sources_or_none_are_refused() {
    let both = sample().replace("  # or: manifests: ./manifests", "  manifests: ./manifests");
    assert!(fault(&both).contains("`policy`"));
    let none = sample().replace("  workloadApi: unix:///run/mesh/workload-api.sock", "  {}");
    assert!(fault(&none).contains("`identity`"), "{}", fault(&none));
}

#[test]
fn a_port_listed_twice_is_refused() {
    let line = "  - { listen: \"127.1.2.1:8080\", port: 8080, app: \"127.1.2.2:8080\" }\n";
    let said = fault(&sample().replace(line, &format!("{line}{line}")));
    assert!(said.contains("listed twice"), "{said}");
}
