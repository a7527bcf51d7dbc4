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

#[test]
fn the_configuration_may_stand_in_a_variable() {
    // CARGO_PKG_NAME is there in every test, and is no configuration.
    let platform = mesh_platform::System::new();
    let load =
        |name: &str| file::load(&*platform, std::path::Path::new(name)).expect_err("a fault");
    let said = load("env:CARGO_PKG_NAME").to_string();
    assert!(said.starts_with("env:CARGO_PKG_NAME"), "{said}");
    let said = load("env:NO_SUCH_VARIABLE_OF_A_PROXY").to_string();
    assert!(said.contains("NO_SUCH_VARIABLE_OF_A_PROXY"), "{said}");
}

#[test]
fn a_controller_may_be_named() {
    for (text, want) in [
        ("127.0.0.1:15010", Some("127.0.0.1:15010")),
        ("[fd00::1]:15010", Some("[fd00::1]:15010")),
        (
            "mesh-controller.mesh-system.svc:15010",
            Some("mesh-controller.mesh-system.svc:15010"),
        ),
        ("controller.:1", Some("controller.:1")),
        ("localhost:65535", Some("localhost:65535")),
        ("localhost:65536", None),
        ("localhost:0", None),
        ("127.0.0.1:0", None),
        ("127.0.0.300:80", None),
        ("10.0.0:80", None),
        ("fd00::1:80", None),
        ("localhost", None),
        (":80", None),
        ("a..b:80", None),
        ("-a:80", None),
        ("a b:80", None),
        ("http://a:80", None),
        ("user@a:80", None),
    ] {
        let read = text.parse::<HostPort>().ok().map(|host| host.to_string());
        assert_eq!(read.as_deref(), want, "{text}");
    }
    let long = format!("{}:80", "a.".repeat(128));
    assert!(long.parse::<HostPort>().is_err(), "a name of 255 bytes");
}

/// The sample, with redirected connections.
fn redirected(inbound: &str, outbound: &str) -> String {
    sample()
        .replacen(
            "  ports: ",
            &format!("  transparent: \"{inbound}\"\n  ports: "),
            1,
        )
        .replacen(
            "outbound:\n",
            &format!("outboundTransparent: \"{outbound}\"\noutbound:\n"),
            1,
        )
}

#[test]
fn redirected_connections_have_listeners_of_their_own() {
    let text = redirected("0.0.0.0:15006", "127.0.0.1:15001");
    let config = parse(&text, "proxy.yaml").expect("valid");
    let own = config.own_ports();
    for port in [15001, 15006, 15008, 15020] {
        assert!(own.contains(port), "{port}");
    }
    assert!(!own.contains(8080));
    for (inbound, outbound, key) in [
        ("0.0.0.0:15008", "127.0.0.1:15001", "inbound.transparent"),
        ("0.0.0.0:15006", "127.0.0.1:15020", "outboundTransparent"),
        ("0.0.0.0:15006", "127.0.0.1:15006", "outboundTransparent"),
        ("0.0.0.0:15006", "0.0.0.0:15001", "outboundTransparent"),
        ("15006", "127.0.0.1:15001", "inbound.transparent"),
    ] {
        let said = fault(&redirected(inbound, outbound));
        assert!(
            said.contains(&format!("`{key}`")),
            "{inbound} {outbound}: {said}"
        );
    }
}

#[test]
fn what_leaves_is_not_guessed_at() {
    let controller = sample()
        .lines()
        .find(|line| line.trim_start().starts_with("controller:"))
        .expect("a controller")
        .to_owned();
    let text = redirected("0.0.0.0:15006", "127.0.0.1:15001");
    let alone = text.replace(&controller, "  manifests: ./manifests");
    assert!(
        fault(&alone).contains("`outboundTransparent`"),
        "{}",
        fault(&alone)
    );
    let both = "  manifests: ./manifests\n  discovery: ./discovery.json";
    parse(&text.replace(&controller, both), "proxy.yaml").expect("valid");
    let twice = format!("{controller}\n  discovery: ./discovery.json");
    assert!(fault(&text.replace(&controller, &twice)).contains("`policy.discovery`"));
}

#[test]
fn nobody_in_the_mesh_taps_unless_they_are_named() {
    let with = |tap: &str| format!("{}tap: {tap}\n", sample());
    assert!(
        parse(&sample(), "proxy.yaml")
            .expect("valid")
            .tap
            .is_empty()
    );
    let who = "spiffe://cluster.local/ns/mesh-system/sa/mesh-tap";
    let config = parse(
        &with(&format!("{{ identities: [\"{who}\"] }}")),
        "proxy.yaml",
    );
    assert_eq!(config.expect("valid").tap[0].as_str(), who);
    for bad in ["{ identities: [\"*\"] }", "{ identities: [mesh-tap] }"] {
        let said = fault(&with(bad));
        assert!(said.contains("`tap.identities[0]`"), "{bad}: {said}");
    }
    assert!(fault(&with("{}")).starts_with("MESH-0451"));
}

#[test]
fn traces_go_to_one_collector() {
    let with = |traces: &str| format!("{}traces: {traces}\n", sample());
    assert!(
        parse(&sample(), "proxy.yaml")
            .expect("valid")
            .traces
            .is_none(),
        "off by default"
    );
    let config = parse(
        &with("{ service: \"observability/collector:4317\" }"),
        "proxy.yaml",
    )
    .expect("valid");
    let traces = config.traces.expect("traces");
    assert!(
        matches!(traces.collector, Collector::Service(name) if name.to_string() == "observability/collector:4317")
    );
    assert_eq!((traces.protocol, traces.sample), (OtlpProtocol::Grpc, 0.01));
    assert_eq!(traces.metrics, None, "metrics are off by default");
    for (metrics, secs) in [
        ("{}", 60),
        ("{ intervalSecs: 1 }", 1),
        ("{ intervalSecs: 3600 }", 3600),
    ] {
        let text = with(&format!(
            "{{ address: \"127.0.0.1:4317\", metrics: {metrics} }}"
        ));
        let traces = parse(&text, "proxy.yaml").expect("valid").traces;
        let every = traces.and_then(|traces| traces.metrics);
        assert_eq!(
            every,
            Some(std::time::Duration::from_secs(secs)),
            "{metrics}"
        );
    }
    for (traces, want) in [
        ("{}", "`traces`"),
        ("{ endpoints: [] }", "`traces`"),
        (
            "{ service: \"a/b:1\", address: \"127.0.0.1:4317\" }",
            "`traces`",
        ),
        ("{ service: collector }", "`traces.service`"),
        ("{ address: collector }", "`traces.address`"),
        ("{ address: \"http://collector:4317\" }", "`traces.address`"),
        (
            "{ endpoints: [{ proxy: \"10.0.0.1:15008\", port: 4317, identity: anybody }] }",
            "`traces.endpoints[0].identity`",
        ),
        (
            "{ address: \"127.0.0.1:4317\", sample: 2 }",
            "`traces.sample`",
        ),
        (
            "{ address: \"127.0.0.1:4317\", attributes: { team: \"\" } }",
            "`traces.attributes`",
        ),
        (
            "{ address: \"127.0.0.1:4317\", metrics: { intervalSecs: 0 } }",
            "`traces.metrics.intervalSecs`",
        ),
        (
            "{ address: \"127.0.0.1:4317\", metrics: { intervalSecs: 3601 } }",
            "`traces.metrics.intervalSecs`",
        ),
        ("{ metrics: {} }", "`traces`"),
    ] {
        let said = fault(&with(traces));
        assert!(
            said.starts_with("MESH-0452") && said.contains(want),
            "{traces}: {said}"
        );
    }
    for traces in [
        "{ address: \"127.0.0.1:4317\", protocol: thrift }",
        "{ adress: \"127.0.0.1:4317\" }",
        "{ address: \"127.0.0.1:4317\", metrics: true }",
        "{ address: \"127.0.0.1:4317\", metrics: { address: \"127.0.0.1:4318\" } }",
    ] {
        assert!(fault(&with(traces)).starts_with("MESH-0451"), "{traces}");
    }
}
