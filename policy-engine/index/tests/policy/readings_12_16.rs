//! Settled readings 12 to 16: probes, headers, versions and networks, reasons, targets.

use crate::linkerd_model::Says::{Allow, Closed, Forbidden, NotFound};
use crate::side_by_side::{Scene, refusals};
use crate::why::{HEADER_VALUES, NEWER_FIELD, PROBE_KINDS, PROBE_SOURCE, PROBES_STAY, SAME};
use crate::world::{
    Ask, DENIED, MESHED, SERVER, SHOP, World, annotated_pod, policy, route, server_authorization,
};
use mesh_policy::snapshot::ProbeKind;
use mesh_policy_index::Mode;

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn web() -> Ask {
    Ask::meshed("shop/web")
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  containers:
  - ports: [{containerPort: 8080, name: http}]
    livenessProbe: {httpGet: {path: '/live?verbose', port: http}}
    readinessProbe: {grpc: {port: 9000, service: shop.Cart}}
  - startupProbe: {tcpSocket: {port: 9100}}
    livenessProbe: {httpGet: {path: /x, port: http}}
    readinessProbe: {httpGet: {path: /tls, port: 8443, scheme: HTTPS}}
";

/// Kinds of the probes on a port.
fn probes(parts: &[&str], port: u16) -> Vec<ProbeKind> {
    let snapshot = World::of(parts).snapshot("shop", "cart");
    let found = snapshot
        .ports
        .get(&port)
        .map(|p| p.probes.iter().map(|p| p.kind.clone()).collect());
    found.unwrap_or_default()
}

#[test]
fn reading_12_the_exact_method_path_and_port_of_a_declared_probe_stay_open() {
    let live = || Ask::plain().path("/live");
    Scene::of(&[PROBED]).answers(&[
        (live(), Allow, "allow", SAME),
        (live().path("/live?other=1"), Allow, "allow", SAME),
        (live().method("HEAD"), Forbidden, DENIED, SAME),
        (live().method("POST"), Forbidden, DENIED, SAME),
        (live().path("/live/"), Forbidden, DENIED, SAME),
        (live().path("/live/x"), Forbidden, DENIED, SAME),
        (live().path("/Live"), Forbidden, DENIED, SAME),
        (live().port(9000), Forbidden, DENIED, SAME),
        // The raw path must be canonical already: nobody who probes writes it otherwise.
        (live().path("//live"), Forbidden, DENIED, SAME),
        (live().path("/%6Cive"), Forbidden, DENIED, SAME),
        (live().path("/x/../live"), Forbidden, DENIED, SAME),
    ]);
    let record = World::of(&[PROBED]).decide(&live());
    assert_eq!(record.reasons, ["default/probe"]);
    assert_eq!(record.client.spiffe_id, None, "unauthenticated");
}

#[test]
fn reading_12_probes_stay_open_whether_or_not_routes_are_attached() {
    let live = || Ask::plain().path("/live");
    let catch_all = route("all", "{value: /}");
    let narrow = route("a", "{value: /a}");
    Scene::of(&[PROBED, SERVER]).answers(&[(live(), Allow, "allow", SAME)]);
    Scene::of(&[PROBED, SERVER, &catch_all]).answers(&[(live(), Forbidden, "allow", PROBES_STAY)]);
    Scene::of(&[PROBED, SERVER, &narrow]).answers(&[(live(), NotFound, "allow", PROBES_STAY)]);
}

#[test]
fn reading_12_grpc_probes_are_health_checks_and_tcp_probes_carry_nothing() {
    let check = "/grpc.health.v1.Health/Check";
    Scene::of(&[PROBED]).answers(&[
        (
            Ask::plain().port(9000).grpc(check),
            Forbidden,
            "allow",
            PROBE_KINDS,
        ),
        (
            Ask::plain().port(9000).grpc("/grpc.health.v1.Health/Watch"),
            Forbidden,
            DENIED,
            SAME,
        ),
        (Ask::plain().port(9000).path(check), Forbidden, DENIED, SAME),
        (Ask::plain().port(8080).grpc(check), Forbidden, DENIED, SAME),
        // A record of bytes is taken to carry data, so it is never a probe.
        (Ask::plain().port(9100).tcp(), Closed, "permit -", SAME),
    ]);
    assert_eq!(probes(&[PROBED], 8080), [ProbeKind::Http("/live".into())]);
    assert_eq!(probes(&[PROBED], 9000), [ProbeKind::Grpc]);
    assert_eq!(probes(&[PROBED], 9100), [ProbeKind::Tcp]);
}

#[test]
fn reading_12_probes_come_before_points_10_and_11() {
    let live = || Ask::plain().path("/live");
    for protocol in ["opaque", "TLS", "HTTP/2", "gRPC", "unknown"] {
        let server = SERVER.replace("HTTP/1", protocol);
        assert_eq!(
            World::of(&[PROBED, &server]).answer(&live()),
            "allow",
            "{protocol}"
        );
    }
    let grpc = SERVER.replace("port: http", "port: 9000");
    let check = Ask::plain().port(9000).grpc("/grpc.health.v1.Health/Check");
    assert_eq!(
        World::of(&[PROBED, &grpc]).answer(&check),
        "allow",
        "on an HTTP/1 Server too"
    );
}

#[test]
fn reading_12_a_port_that_an_invalid_server_claims_has_no_probe() {
    let live = || Ask::plain().path("/live");
    let invalid = SERVER.replace("HTTP/1", "HTTP");
    assert_eq!(World::of(&[PROBED, &invalid]).answer(&live()), "server 403");
    assert_eq!(probes(&[PROBED, &invalid], 8080), []);
    assert_eq!(
        probes(&[PROBED, &invalid], 9000),
        [ProbeKind::Grpc],
        "its other ports have theirs"
    );
    let broken = PROBED.replace("containerPort: 8080", "containerPort: 0");
    assert_eq!(
        World::of(&[&broken]).answer(&live()),
        "server 403",
        "nor has an invalid pod"
    );
}

#[test]
fn reading_12_probes_come_from_the_node_where_its_address_is_known() {
    let placed = |status: &str| format!("{PROBED}status: {{podIP: 10.0.0.5{status}}}\n");
    let live = |ip: &str| Ask::plain().path("/live").ip(ip);
    let one = placed(", hostIP: 192.168.7.7");
    Scene::of(&[&one, SERVER]).answers(&[
        (live("192.168.7.7"), Allow, "allow", SAME),
        (live("192.168.7.8"), Allow, DENIED, PROBE_SOURCE),
        (live("10.0.0.5"), Allow, DENIED, PROBE_SOURCE),
    ]);
    assert_eq!(
        World::of(&[&one]).answer(&live("::ffff:192.168.7.7")),
        "allow",
        "a mapped address is the same"
    );
    let two = placed(", hostIP: 192.168.7.7, hostIPs: [{ip: 192.168.7.7}, {ip: 'fd00::7'}]");
    for (ip, want) in [
        ("192.168.7.7", "allow"),
        ("fd00::7", "allow"),
        ("fd00::8", DENIED),
    ] {
        assert_eq!(
            World::of(&[&two, SERVER]).answer(&live(ip)),
            want,
            "dual stack: {ip}"
        );
    }
    let listed_only = placed(", hostIPs: [{ip: 192.168.7.7}]");
    assert_eq!(
        World::of(&[&listed_only]).answer(&live("192.168.7.8")),
        DENIED
    );
    for nowhere in [PROBED.to_owned(), placed(""), placed(", hostIP: ''")] {
        assert_eq!(
            World::of(&[&nowhere, SERVER]).answer(&live("203.0.113.1")),
            "allow",
            "else from the probe networks"
        );
    }
}

#[test]
fn reading_12_the_probe_networks_of_an_installation_hold_where_no_node_is_known() {
    let mut settings = crate::world::config();
    settings.probe_networks = vec!["192.168.0.0/16".parse().unwrap()];
    let world = World::with(&settings, &[PROBED, SERVER]);
    for (ip, want) in [("192.168.1.1", "allow"), ("10.0.0.1", DENIED)] {
        assert_eq!(
            world.answer(&Ask::plain().path("/live").ip(ip)),
            want,
            "{ip}"
        );
    }
}

#[test]
fn reading_12_what_cannot_be_a_probe_is_reported() {
    let messages: Vec<String> = World::of(&[PROBED])
        .findings("MESH-0381")
        .iter()
        .map(|f| f.message.clone())
        .collect();
    assert!(
        messages
            .iter()
            .any(|m| m.contains("no port of its container")),
        "`http` is a port of the other container: {messages:?}"
    );
    assert!(
        messages.iter().any(|m| m.contains("HTTPS")),
        "TLS of the application hides the path: {messages:?}"
    );
    assert_eq!(messages.len(), 2);
    assert_eq!(probes(&[PROBED], 8443), []);
    for path in ["//live", "/a/../live", "/%6cive", "/a b"] {
        let odd = PROBED.replace("/live?verbose", path);
        assert_eq!(World::of(&[&odd]).findings("MESH-0381").len(), 3, "{path}");
    }
}

#[test]
fn reading_13_every_value_of_a_header_must_match_and_values_are_never_joined() {
    let canary = route(
        "canary",
        "{value: /}, headers: [{name: X-Env, value: canary}]",
    );
    let on_canary = policy("p", "HTTPRoute canary", &["MeshTLSAuthentication meshed"]);
    let ask = |values: &[&str]| web().header("x-env", values);
    Scene::of(&[SHOP, SERVER, MESHED, &canary, &on_canary]).answers(&[
        (ask(&["canary"]), Allow, "allow", SAME),
        (ask(&["canary", "canary"]), Allow, "allow", SAME),
        (ask(&["canary", "prod"]), Allow, "route 404", HEADER_VALUES),
        (ask(&["prod", "canary"]), Allow, "route 404", HEADER_VALUES),
        (ask(&["canary,prod"]), NotFound, "route 404", SAME),
        (ask(&["canary, canary"]), NotFound, "route 404", SAME),
        (ask(&["Canary"]), NotFound, "route 404", SAME),
        (ask(&[]), NotFound, "route 404", SAME),
        (web(), NotFound, "route 404", SAME),
    ]);
    let listed = canary.replace("value: canary", "type: RegularExpression, value: 'a, ?b'");
    let world = World::of(&[SHOP, SERVER, MESHED, &listed, &on_canary]);
    assert_eq!(world.answer(&ask(&["a, b"])), "allow");
    assert_eq!(
        world.answer(&ask(&["a", "b"])),
        "route 404",
        "two values are not their list"
    );
}

#[test]
fn reading_14_fields_exist_from_their_version_on() {
    for (version, access, external) in [
        ("v1alpha1", false, false),
        ("v1beta1", false, false),
        ("v1beta2", false, true),
        ("v1beta3", true, true),
    ] {
        let server = SERVER.replace("v1beta3", version);
        assert_eq!(refusals(&server), Vec::<String>::new(), "{version}");
        let with_access = server.replace("port: http", "port: http, accessPolicy: audit");
        assert_eq!(
            refusals(&with_access).is_empty(),
            access,
            "{version} with accessPolicy"
        );
        let with_external = server.replace("podSelector", "externalWorkloadSelector");
        assert_eq!(
            refusals(&with_external).is_empty(),
            external,
            "{version} with externalWorkloadSelector"
        );
        // Earlier is point 6: the port that can be read denies; where it cannot, the default does.
        let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP, &with_access]);
        assert_eq!(
            world.answer(&Ask::plain()),
            if access { "allow" } else { "server 403" },
            "{version}"
        );
        let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP, &with_external]);
        assert_eq!(
            world.answer(&Ask::plain()),
            if external { "allow" } else { DENIED },
            "{version}"
        );
    }
    let newer = SERVER
        .replace("v1beta3", "v1beta1")
        .replace("port: http", "port: http, accessPolicy: audit");
    Scene::of(&[SHOP, &newer]).answers(&[(Ask::plain(), Allow, "server 403", NEWER_FIELD)]);
}

#[test]
fn reading_14_networks_empty_match_nobody_and_omitted_mean_the_cluster() {
    let scene = |client: &str| {
        let authorization = server_authorization("{name: cart}", client);
        Scene::of(&[SHOP, SERVER, &authorization])
    };
    let far = || Ask::plain().ip("203.0.113.9");
    let omitted = scene("{unauthenticated: true}");
    omitted.answers(&[
        (Ask::plain(), Allow, "allow", SAME),
        (far(), Forbidden, DENIED, SAME),
        (Ask::plain().ip("fd00::1"), Allow, "allow", SAME),
        (Ask::plain().ip("100.64.0.1"), Allow, "allow", SAME),
        (Ask::plain().ip("2001:db8::1"), Forbidden, DENIED, SAME),
    ]);
    let empty = scene("{unauthenticated: true, networks: []}");
    empty.answers(&[
        (Ask::plain(), Forbidden, DENIED, SAME),
        (far(), Forbidden, DENIED, SAME),
    ]);
    assert_eq!(
        empty.world.errors(),
        ["MESH-0366"],
        "who admits nobody is told"
    );
    scene("{unauthenticated: true, networks: [{cidr: 0.0.0.0/0}]}").answers(&[
        (Ask::plain(), Allow, "allow", SAME),
        (far(), Allow, "allow", SAME),
        (Ask::plain().ip("fd00::1"), Forbidden, DENIED, SAME),
    ]);
    for spoilt in [
        "{unauthenticated: true, networks: }",
        "{unauthenticated: true, networks: {cidr: 0.0.0.0/0}}",
    ] {
        assert_eq!(
            scene(spoilt).world.answer(&Ask::plain()),
            DENIED,
            "{spoilt}: never the cluster networks"
        );
    }
}

#[test]
fn reading_14_host_bits_are_masked_with_a_warning_and_mapped_addresses_are_ipv4() {
    let world = |network: &str| {
        let client = format!("{{unauthenticated: true, networks: [{network}]}}");
        World::of(&[SHOP, SERVER, &server_authorization("{name: cart}", &client)])
    };
    for (network, inside, outside, warnings) in [
        ("{cidr: 203.0.113.77/24}", "203.0.113.9", "203.0.114.9", 1),
        ("{cidr: 203.0.113.0/24}", "203.0.113.9", "203.0.114.9", 0),
        (
            "{cidr: 203.0.0.0/8, except: [203.0.113.7/24]}",
            "203.0.114.9",
            "203.0.113.9",
            1,
        ),
        (
            "{cidr: '::ffff:203.0.113.0/120'}",
            "203.0.113.9",
            "203.0.114.9",
            0,
        ),
        (
            "{cidr: '::ffff:203.0.113.9'}",
            "203.0.113.9",
            "203.0.113.8",
            0,
        ),
        (
            "{cidr: '2001:db8::1/32'}",
            "2001:db8:1::9",
            "2001:db9::1",
            1,
        ),
    ] {
        let world = world(network);
        assert_eq!(world.answer(&Ask::plain().ip(inside)), "allow", "{network}");
        assert_eq!(world.answer(&Ask::plain().ip(outside)), DENIED, "{network}");
        assert_eq!(world.findings("MESH-0376").len(), warnings, "{network}");
        assert_eq!(world.errors(), Vec::<&str>::new(), "{network}");
    }
    assert_eq!(
        world("{cidr: 203.0.113.0/24}").answer(&Ask::plain().ip("::ffff:203.0.113.9")),
        "allow"
    );
    let mut settings = crate::world::config();
    settings.cluster_networks = vec!["::ffff:203.0.113.0/120".parse().unwrap()];
    let own = World::with(
        &settings,
        &[
            SHOP,
            SERVER,
            &server_authorization("{name: cart}", "{unauthenticated: true}"),
        ],
    );
    assert_eq!(
        own.answer(&Ask::plain().ip("203.0.113.9")),
        "allow",
        "in the settings too"
    );
}

#[test]
fn reading_15_reasons_of_an_allow_are_all_permits_that_hold_sorted() {
    let server = SERVER.replace(
        "port: http",
        "port: http, accessPolicy: all-unauthenticated",
    );
    let probed = PROBED.replace("metadata: {name: cart,", "metadata: {annotations: {config.linkerd.io/proxy-require-identity-inbound-ports: '8080'}, name: cart,");
    let authorization = server_authorization("{name: cart}", "{meshTLS: {identities: ['*']}}");
    let world = World::of(&[&probed, &server, MESHED, &meshed_policy(), &authorization]);
    // After the upgrade by the list of ports that require an identity.
    let grants = [
        "AuthorizationPolicy/shop/p/0",
        "ServerAuthorization/shop/s/0",
        "default/all-authenticated",
    ];
    assert_eq!(world.reasons(&web()), grants);
    assert_eq!(world.answer(&Ask::plain()), DENIED);
    assert_eq!(
        world.reasons(&Ask::plain().path("/live")),
        ["default/probe"]
    );
    let mut all = grants.to_vec();
    all.push("default/probe");
    assert_eq!(
        world.reasons(&web().path("/live")),
        all,
        "a probe's own permit beside the others"
    );
    for mode in Mode::ALL.into_iter().filter(|m| *m != Mode::Deny) {
        assert_eq!(
            World::default_policy(mode, &[SHOP]).reasons(&web()),
            [format!("default/{mode}")]
        );
    }
}

#[test]
fn reading_15_reasons_of_a_denial_name_no_permit() {
    let world = World::of(&[SHOP, SERVER, MESHED, &meshed_policy()]);
    for ask in [
        Ask::plain(),
        Ask::plain().path("/%2F"),
        Ask::plain().pod("ghost"),
        web().tcp(),
    ] {
        assert_eq!(
            world.reasons(&ask),
            Vec::<String>::new(),
            "{}",
            ask.describe()
        );
    }
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {selector: {tier: front}, ports: [{port: 80, targetPort: web}, {name: raw, port: 81, targetPort: 8081}, {port: 82}, {port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: shop, labels: {tier: front}}
spec: {serviceAccountName: front, containers: [{ports: [{containerPort: 8080, name: web}]}]}
status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: shop, labels: {tier: front, special: 'yes'}}
spec: {serviceAccountName: front, containers: [{ports: [{containerPort: 9080, name: web}]}]}
status: {podIP: 10.0.0.2}
";

#[test]
fn reading_16_service_ports_go_through_their_target_port() {
    let world = World::default_policy(Mode::AllUnauthenticated, &[SERVICES]);
    for (port, pod, target) in [(80, "one", 8080), (81, "one", 8081), (82, "one", 82)] {
        let record = world.decide(&Ask::plain().service("front").port(port));
        assert_eq!(
            (record.server.workload.as_deref(), record.server.port),
            (Some(pod), target),
            "{port}"
        );
    }
}

#[test]
fn reading_16_of_several_pods_behind_a_service_a_denial_wins() {
    let server = "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: special, namespace: shop}\nspec: {podSelector: {matchLabels: {special: 'yes'}}, port: web}\n";
    let ask = || Ask::plain().service("front").port(80);
    assert_eq!(
        World::default_policy(Mode::AllUnauthenticated, &[SERVICES]).answer(&ask()),
        "allow"
    );
    let world = World::default_policy(Mode::AllUnauthenticated, &[SERVICES, server]);
    let record = world.decide(&ask());
    assert_eq!(
        (record.server.workload.as_deref(), record.server.port),
        (Some("two"), 9080)
    );
    assert_eq!(world.answer(&ask()), DENIED);
}

#[test]
fn reading_16_unknown_targets_are_denied_in_phase_server() {
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP, SERVICES]);
    for ask in [
        Ask::plain().pod("ghost"),
        Ask::plain().service("ghost"),
        Ask::plain().service("front").port(53),
        Ask::plain().service("front").port(8080),
        Ask::plain().service("front").pod("cart"),
    ] {
        assert_eq!(world.answer(&ask), "server 403", "{:?}", ask.0.server);
        assert_eq!(
            world.decide(&ask.clone().grpc("/a.B/C")).grpc_status,
            Some(7)
        );
        assert_eq!(world.answer(&ask.tcp()), "server -");
    }
    let mut elsewhere = Ask::plain();
    elsewhere.0.server.namespace = "other".into();
    assert_eq!(world.answer(&elsewhere), "server 403");
}

#[test]
fn reading_16_a_malformed_client_is_denied_in_phase_transport() {
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    for ask in [
        Ask::identity("spiffe://"),
        Ask::identity("web"),
        Ask::identity("spiffe://Cluster.Local/ns/shop/sa/web"),
        Ask::identity(""),
        Ask::plain().ip("ten"),
        Ask::plain().ip("10.0.0.1/32"),
        Ask::plain().ip(""),
    ] {
        assert_eq!(world.answer(&ask), "transport -", "{:?}", ask.0.client);
        assert_eq!(world.answer(&ask.pod("ghost")), "transport -");
    }
}

#[test]
fn reading_16_tls_true_without_an_identity_is_tls_without_identity() {
    let any_tls = server_authorization("{name: cart}", "{meshTLS: {unauthenticatedTLS: true}}");
    Scene::of(&[SHOP, SERVER, &any_tls]).answers(&[
        (Ask::bare_tls(), Allow, "allow", SAME),
        (web(), Allow, "allow", SAME),
        (Ask::plain(), Forbidden, DENIED, SAME),
    ]);
    Scene::of(&[SHOP, SERVER, MESHED, &meshed_policy()]).answers(&[(
        Ask::bare_tls(),
        Forbidden,
        DENIED,
        SAME,
    )]);
    let mut contradiction = web();
    contradiction.0.client.tls = Some(false);
    let pod = annotated_pod("config.linkerd.io/default-inbound-policy: all-unauthenticated");
    assert_eq!(
        World::of(&[&pod]).answer(&contradiction),
        "transport -",
        "an identity without TLS is none"
    );
}
