//! Probe endpoints: open to the node, to nobody else, and for nothing but the probe (settled reading 12).

use super::*;

#[test]
fn reading_12_probes_stay_open_whether_or_not_routes_are_attached() {
    let world = World::http().probe(ProbeKind::Http("/healthz".into()));
    let from = plaintext("10.0.0.1");
    assert_eq!(
        short(&world.get(&from, "/healthz")),
        "allow permit 200 [default/probe]"
    );
    assert_eq!(
        short(&world.get(&from, "/healthz?x=1")),
        "allow permit 200 [default/probe]"
    );
    assert_eq!(
        short(&world.clone().route(route("r", "/a")).get(&from, "/healthz")),
        "allow permit 200 [default/probe]"
    );
    let opaque = World::new(ServerProtocol::Opaque).probe(ProbeKind::Http("/healthz".into()));
    assert_eq!(
        short(&opaque.get(&from, "/healthz")),
        "allow permit 200 [default/probe]",
        "before reading 10"
    );
}

#[test]
fn reading_12_a_probe_is_exact() {
    let world = World::http().probe(ProbeKind::Http("/healthz".into()));
    let from = plaintext("10.0.0.1");
    for target in [
        "/healthz/",
        "/healthz/x",
        "/Healthz",
        "//healthz",
        "/x/../healthz",
        "/health%7a",
        "/./healthz",
        "/",
    ] {
        assert_eq!(
            short(&world.get(&from, target)),
            "deny permit 403 []",
            "{target}"
        );
    }
    for target in ["/healthz;x", "/healthz#", "/%2fhealthz"] {
        assert_eq!(
            short(&world.get(&from, target)),
            "deny request 400 []",
            "{target}"
        );
    }
    for method in ["POST", "HEAD", "get"] {
        assert_eq!(
            short(&world.send(&from, method, "/healthz", false)),
            "deny permit 403 []",
            "{method}"
        );
    }
    let elsewhere = decide(&world.compile(), PORT + 1, &from, &Call::Tcp, NOW);
    assert_eq!(elsewhere.verdict, Verdict::Deny);
}

#[test]
fn reading_12_probes_come_from_their_networks_only() {
    let world = World::http()
        .probe(ProbeKind::Http("/healthz".into()))
        .networks("probes", &[("10.0.0.1/32", &[])]);
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.1"), "/healthz")),
        "allow permit 200 [default/probe]"
    );
    assert_eq!(
        short(&world.get(&plaintext("::ffff:10.0.0.1"), "/healthz")),
        "allow permit 200 [default/probe]"
    );
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.2"), "/healthz")),
        "deny permit 403 []"
    );
    assert_eq!(
        short(
            &world
                .networks("probes", &[])
                .get(&plaintext("10.0.0.1"), "/healthz")
        ),
        "deny permit 403 []"
    );
}

#[test]
fn reading_12_grpc_probes_are_health_checks_and_nothing_else() {
    let world = World::new(ServerProtocol::Grpc).probe(ProbeKind::Grpc);
    let from = plaintext("10.0.0.1");
    let send = |method, target, grpc| short(&world.send(&from, method, target, grpc));
    assert_eq!(
        send("POST", "/grpc.health.v1.Health/Check", true),
        "allow permit 200 [default/probe]"
    );
    assert_eq!(
        send("POST", "/grpc.health.v1.Health/Watch", true),
        "deny permit 403/7 []"
    );
    assert_eq!(
        send("POST", "/grpc.health.v1.Health/Check/", true),
        "deny permit 403/7 []"
    );
    assert_eq!(
        send("GET", "/grpc.health.v1.Health/Check", true),
        "deny permit 403/7 []"
    );
    assert_eq!(
        send("POST", "/grpc.health.v1.Health/Check", false),
        "deny permit 403 []"
    );
}

#[test]
fn reading_12_a_connection_with_data_is_no_probe() {
    let world = World::new(ServerProtocol::Opaque).probe(ProbeKind::Tcp);
    assert_eq!(
        short(&world.tcp(&plaintext("10.0.0.1"))),
        "deny permit - []"
    );
    let snapshot = world.compile();
    let empty = |port| {
        empty_connection_is_probe(
            &ConnectionAtoms::of(&snapshot, &plaintext("10.0.0.1")),
            port,
        )
    };
    assert!(empty(PORT) && !empty(PORT + 1));
    let http = World::http().probe(ProbeKind::Http("/".into())).compile();
    assert!(!empty_connection_is_probe(
        &ConnectionAtoms::of(&http, &plaintext("10.0.0.1")),
        PORT
    ));
}

#[test]
fn reading_12_a_forbid_closes_a_probe_too() {
    let forbid = Grant {
        effect: Effect::Forbid,
        ..grant("CedarPolicy/shop/no/0", on_server("http"), Who::Anyone)
    };
    let world = World::http()
        .probe(ProbeKind::Http("/healthz".into()))
        .grant(forbid);
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.1"), "/healthz")),
        "deny forbid 403 [CedarPolicy/shop/no/0]"
    );
}
