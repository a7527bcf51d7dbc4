//! The settled readings of the book, in their order. What concerns paths and headers alone is tested with the decision.

use crate::world::{Ask, MESHED, SERVER, SHOP, World, policy, route};
use mesh_policy::snapshot::ProbeKind;
use mesh_policy_index::Mode;

const DENIED: &str = "permit 403";

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn annotated_pod(annotations: &str) -> String {
    SHOP.replace(
        "metadata: {name: cart, namespace: shop,",
        &format!("metadata: {{name: cart, annotations: {{{annotations}}}, namespace: shop,"),
    )
}

#[test]
fn reading_01_an_invalid_default_means_deny_on_pod_and_namespace() {
    for name in [
        "config.linkerd.io/default-inbound-policy",
        "mesh.internal/default-inbound-policy",
    ] {
        let pod = annotated_pod(&format!("{name}: allow"));
        let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
        assert_eq!(
            (world.answer(&Ask::plain()).as_str(), world.errors()),
            (DENIED, vec!["MESH-0362"])
        );
        assert_eq!(
            world.answer(&Ask::plain().pod("web")),
            "allow",
            "the other pod has the cluster's default"
        );
        let namespace = SHOP.replace(
            "metadata: {name: shop}",
            &format!("metadata: {{name: shop, annotations: {{{name}: ''}}}}"),
        );
        let world = World::default_policy(Mode::AllUnauthenticated, &[&namespace]);
        assert_eq!(world.answer(&Ask::plain().pod("web")), DENIED);
        assert_eq!(
            world.errors(),
            ["MESH-0362"],
            "reported once, on the namespace"
        );
    }
}

#[test]
fn reading_01_a_pod_overrides_its_namespace_and_both_names_must_agree() {
    let namespace = |text: &str| {
        text.replace("metadata: {name: shop}", "metadata: {name: shop, annotations: {config.linkerd.io/default-inbound-policy: all-unauthenticated}}")
    };
    assert_eq!(
        World::of(&[&namespace(SHOP)]).answer(&Ask::plain()),
        "allow"
    );
    let pod = namespace(&annotated_pod(
        "mesh.internal/default-inbound-policy: all-authenticated",
    ));
    assert_eq!(World::of(&[&pod]).answer(&Ask::plain()), DENIED);
    let both = annotated_pod(
        "mesh.internal/default-inbound-policy: all-unauthenticated, config.linkerd.io/default-inbound-policy: deny",
    );
    let world = World::of(&[&both]);
    assert_eq!(
        (world.answer(&Ask::plain()).as_str(), world.errors()),
        (DENIED, vec!["MESH-0362"])
    );
}

#[test]
fn reading_06_an_invalid_server_denies_its_port_probes_included() {
    let probed = SHOP.replace(
        "- name: app\n    ports:",
        "- name: app\n    livenessProbe: {httpGet: {path: /live, port: http}}\n    ports:",
    );
    let ask = || Ask::plain().path("/live");
    assert_eq!(
        World::of(&[&probed, SERVER]).reasons(&ask()),
        ["default/probe"]
    );
    for invalid in [
        SERVER.replace("HTTP/1", "HTTP"),
        SERVER.replace("port: http", "port: http, accessPolicy: everyone"),
        SERVER.replace("port: http", "port: http, extra: 1"),
        SERVER.replace("v1beta3", "v1beta1").replace(
            "port: http",
            "port: http, accessPolicy: all-unauthenticated",
        ),
        SERVER.replace("v1beta3", "v7"),
        format!("{SERVER}---{SERVER}"),
    ] {
        let world = World::default_policy(
            Mode::AllUnauthenticated,
            &[&probed, &invalid, MESHED, &meshed_policy()],
        );
        for ask in [
            ask(),
            Ask::meshed("shop/web"),
            Ask::meshed("shop/web").path("/live"),
        ] {
            assert_eq!(world.answer(&ask), "server 403", "{invalid}");
        }
        assert_eq!(
            world.answer(&Ask::meshed("shop/web").tcp()),
            "server -",
            "{invalid}"
        );
        assert_eq!(
            world.answer(&Ask::plain().port(9090)),
            "allow",
            "other ports are not concerned"
        );
        assert!(world.errors().contains(&"MESH-0383"));
    }
}

#[test]
fn reading_06_an_unreadable_server_makes_the_default_deny_until_it_is_mended() {
    let unreadable = SERVER
        .replace("name: cart, namespace", "name: other, namespace")
        .replace("port: http", "port: [http]");
    let world = World::default_policy(
        Mode::AllUnauthenticated,
        &[SHOP, SERVER, &unreadable, MESHED, &meshed_policy()],
    );
    assert_eq!(world.answer(&Ask::plain().port(9090)), DENIED);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web")),
        "allow",
        "Servers that can be read work on"
    );
}

#[test]
fn reading_06_an_invalid_route_takes_what_can_be_read_of_it_and_denies() {
    let bad = route("bad", "{value: /admin}").replace(
        "rules: [",
        "rules: [{matches: [{path: {value: relative}}, {path: {value: /ops}, method: get}]}, ",
    );
    let all = route("all", "{value: /}");
    let policies = [
        policy("a", "HTTPRoute all", &["MeshTLSAuthentication meshed"]),
        policy("b", "HTTPRoute bad", &["MeshTLSAuthentication meshed"]),
        meshed_policy(),
    ]
    .concat();
    let world = World::of(&[SHOP, SERVER, MESHED, &bad, &all, &policies]);
    for (path, want) in [
        ("/admin/x", "route 403"),
        ("/ops", "route 403"),
        ("/relative", "allow"),
        ("/", "allow"),
    ] {
        let got = world.answer(&Ask::meshed("shop/web").path(path));
        assert!(
            got == want || (want != "allow" && got != "allow"),
            "{path}: {got}"
        );
    }
    assert_ne!(
        world.answer(&Ask::meshed("shop/web").path("/admin")),
        "allow"
    );
}

#[test]
fn reading_06_an_invalid_pod_denies_on_every_port() {
    let pod = SHOP.replace(
        "{containerPort: 9090, name: admin}",
        "{containerPort: ninety, name: admin}",
    );
    let world = World::default_policy(
        Mode::AllUnauthenticated,
        &[&pod, SERVER, MESHED, &meshed_policy()],
    );
    assert_eq!(world.answer(&Ask::meshed("shop/web")), "server 403");
    assert_eq!(world.answer(&Ask::meshed("shop/web").port(1)), "server 403");
}

#[test]
fn reading_07_localhost_has_no_permit_of_its_own() {
    for ip in ["127.0.0.1", "::1"] {
        assert_eq!(
            World::of(&[SHOP, SERVER]).answer(&Ask::plain().ip(ip)),
            DENIED
        );
        assert_eq!(World::of(&[SHOP]).answer(&Ask::plain().ip(ip)), DENIED);
    }
}

#[test]
fn reading_09_a_federated_domain_is_covered_by_the_wildcard_only_if_it_says_so() {
    let federation = |fields: &str| {
        format!(
            "apiVersion: mesh.internal/v1alpha1\nkind: Federation\nmetadata: {{name: f}}\nspec: {{{fields}}}\n"
        )
    };
    let foreign = || Ask::identity("spiffe://partner.example/ns/x/sa/y");
    for (fields, wildcard) in [
        (
            "trustDomain: partner.example, includeInWildcards: true",
            true,
        ),
        (
            "trustDomain: partner.example, includeInWildcards: false",
            false,
        ),
        ("trustDomain: partner.example", false),
        (
            "trustDomain: other.example, includeInWildcards: true",
            false,
        ),
        (
            "trustDomain: partner.example, includeInWildcards: 'true'",
            false,
        ),
        (
            "trustDomain: partner.example, includeInWildcards: true, more: 1",
            false,
        ),
    ] {
        let world = World::of(&[SHOP, SERVER, MESHED, &meshed_policy(), &federation(fields)]);
        assert_eq!(world.answer(&foreign()) == "allow", wildcard, "{fields}");
    }
    let listed = MESHED.replace("'*'", "spiffe://partner.example/ns/x/sa/y");
    assert_eq!(
        World::of(&[SHOP, SERVER, &listed, &meshed_policy()]).answer(&foreign()),
        "allow",
        "a listed exact id matches"
    );
}

#[test]
fn reading_09_a_service_account_needs_no_object_but_lint_warns() {
    let world = World::of(&[
        SHOP,
        SERVER,
        &policy("p", "Server cart", &["ServiceAccount ghost"]),
    ]);
    assert_eq!(world.answer(&Ask::meshed("shop/ghost")), "allow");
    assert_eq!(world.findings("MESH-0377").len(), 1);
    let known = World::of(&[
        SHOP,
        SERVER,
        &policy("p", "Server cart", &["ServiceAccount web"]),
    ]);
    assert_eq!(known.findings("MESH-0377").len(), 0);
}

fn grpc_route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: g, namespace: shop}}\nspec:\n  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: cart}}]\n  rules: [{rule}]\n"
    )
}

#[test]
fn reading_10_each_protocol_takes_its_kind_of_route_and_says_what_it_leaves() {
    let http = route("h", "{value: /}");
    let grpc = grpc_route("{}");
    for (protocol, routes) in [
        ("unknown", "h"),
        ("HTTP/1", "h"),
        ("HTTP/2", "h"),
        ("gRPC", "g"),
        ("opaque", ""),
        ("TLS", ""),
    ] {
        let server = SERVER.replace("HTTP/1", protocol);
        let world = World::of(&[SHOP, &server, &http, &grpc]);
        let snapshot = world.snapshot("shop", "cart");
        let names: String = snapshot
            .ports
            .get(&8080)
            .unwrap()
            .routes
            .iter()
            .map(|r| r.name.as_str())
            .collect();
        assert_eq!(names, routes, "{protocol}");
        assert_eq!(
            world.findings("MESH-0371").len(),
            2 - routes.len(),
            "{protocol}"
        );
    }
}

#[test]
fn reading_10_bytes_are_judged_by_the_grants_of_the_server() {
    let server = SERVER.replace("HTTP/1", "opaque");
    let on_route = policy("r", "HTTPRoute h", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, &server, MESHED, &route("h", "{value: /}"), &on_route]);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").tcp()),
        "permit -",
        "a grant on a route opens no bytes"
    );
    let world = World::of(&[SHOP, &server, MESHED, &meshed_policy()]);
    assert_eq!(world.answer(&Ask::meshed("shop/web").tcp()), "allow");
}

#[test]
fn reading_11_raw_bytes_are_refused_where_requests_are_judged() {
    let limit = "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: l, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, total: {requestsPerSecond: 1}}\n";
    let valid = route("r", "{value: /}");
    let invalid = route("r", "{value: relative}");
    for (protocol, more, want) in [
        ("HTTP/1", "", "server -"),
        ("HTTP/2", "", "server -"),
        ("gRPC", "", "server -"),
        ("unknown", "", "allow"),
        ("unknown", valid.as_str(), "server -"),
        ("unknown", invalid.as_str(), "server -"),
        ("unknown", limit, "server -"),
        ("unknown", &limit.replace("1}", "0}"), "server -"),
        ("opaque", limit, "allow"),
    ] {
        let world = World::of(&[
            SHOP,
            &SERVER.replace("HTTP/1", protocol),
            MESHED,
            &meshed_policy(),
            more,
        ]);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web").tcp()),
            want,
            "{protocol} {more}"
        );
    }
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  containers:
  - ports: [{containerPort: 8080, name: http}]
    livenessProbe: {httpGet: {path: /live, port: http}}
    readinessProbe: {grpc: {port: 9000}}
  - startupProbe: {tcpSocket: {port: 9100}}
    livenessProbe: {httpGet: {path: /x, port: http}}
    readinessProbe: {httpGet: {path: /tls, port: 8443, scheme: HTTPS}}
";

#[test]
fn reading_12_probes_come_from_the_node_where_its_address_is_known() {
    let placed = format!("{PROBED}status: {{podIP: 10.0.0.5, hostIP: 192.168.7.7}}\n");
    let probe = |ip: &str| Ask::plain().path("/live").ip(ip);
    assert_eq!(
        World::of(&[&placed, SERVER]).answer(&probe("192.168.7.7")),
        "allow"
    );
    assert_eq!(
        World::of(&[&placed, SERVER]).answer(&probe("192.168.7.8")),
        DENIED
    );
    assert_eq!(
        World::of(&[PROBED, SERVER]).answer(&probe("203.0.113.1")),
        "allow",
        "else from the probe networks"
    );
}

#[test]
fn reading_12_probes_are_taken_exactly_and_port_names_are_those_of_the_container() {
    let world = World::of(&[PROBED]);
    let snapshot = world.snapshot("shop", "cart");
    let kinds = |port: u16| -> Vec<ProbeKind> {
        snapshot
            .ports
            .get(&port)
            .map(|p| p.probes.iter().map(|p| p.kind.clone()).collect())
            .unwrap_or_default()
    };
    assert_eq!(kinds(8080), [ProbeKind::Http("/live".into())]);
    assert_eq!(kinds(9000), [ProbeKind::Grpc]);
    assert_eq!(kinds(9100), [ProbeKind::Tcp]);
    assert_eq!(kinds(8443), [], "TLS of the application hides the path");
    assert_eq!(
        world.findings("MESH-0381").len(),
        1,
        "the second container has no port `http`"
    );
    for (ask, want) in [
        (Ask::plain().path("/live"), "allow"),
        (Ask::plain().path("/live?verbose"), "allow"),
        (Ask::plain().path("//live"), DENIED),
        (Ask::plain().path("/%6Cive"), DENIED),
        (Ask::plain().path("/live").method("HEAD"), DENIED),
        (Ask::plain().path("/live").port(9000), DENIED),
        (
            Ask::plain().port(9000).grpc("/grpc.health.v1.Health/Check"),
            "allow",
        ),
        (
            Ask::plain().port(9000).grpc("/grpc.health.v1.Health/Watch"),
            DENIED,
        ),
        (Ask::plain().port(9100).tcp(), "permit -"),
    ] {
        assert_eq!(
            world.answer(&ask),
            want,
            "{:?} {:?}",
            ask.0.method,
            ask.0.path
        );
    }
}

#[test]
fn reading_13_every_value_of_a_header_must_match() {
    let canary = route("canary", "{value: /}").replace(
        "{path: {value: /}}",
        "{headers: [{name: X-Env, value: canary}]}",
    );
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        &canary,
        &policy("p", "HTTPRoute canary", &["MeshTLSAuthentication meshed"]),
    ]);
    let ask = |values: &[&str]| Ask::meshed("shop/web").header("x-env", values);
    assert_eq!(world.answer(&ask(&["canary"])), "allow");
    assert_eq!(world.answer(&ask(&["canary", "prod"])), "route 404");
    assert_eq!(world.answer(&ask(&["canary,prod"])), "route 404");
    assert_eq!(world.answer(&Ask::meshed("shop/web")), "route 404");
}

fn server_authorization(client: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {{name: s, namespace: shop}}\nspec: {{server: {{name: cart}}, client: {client}}}\n"
    )
}

#[test]
fn reading_14_networks_empty_match_nobody_and_omitted_mean_the_cluster() {
    for (client, near, far) in [
        ("{unauthenticated: true}", true, false),
        ("{unauthenticated: true, networks: []}", false, false),
        ("{unauthenticated: true, networks: }", false, false),
        (
            "{unauthenticated: true, networks: [{cidr: 0.0.0.0/0}]}",
            true,
            true,
        ),
        (
            "{unauthenticated: true, networks: [{cidr: 203.0.113.0/24}]}",
            false,
            true,
        ),
        (
            "{unauthenticated: true, networks: [{cidr: 203.0.113.77/24}]}",
            false,
            true,
        ),
        (
            "{unauthenticated: true, networks: [{cidr: '::ffff:10.0.0.0/104'}]}",
            true,
            false,
        ),
        (
            "{unauthenticated: true, networks: {cidr: 0.0.0.0/0}}",
            false,
            false,
        ),
    ] {
        let world = World::of(&[SHOP, SERVER, &server_authorization(client)]);
        assert_eq!(
            world.answer(&Ask::plain()) == "allow",
            near,
            "{client} from the cluster"
        );
        assert_eq!(
            world.answer(&Ask::plain().ip("::ffff:10.1.2.3")) == "allow",
            near,
            "{client} from a mapped address"
        );
        assert_eq!(
            world.answer(&Ask::plain().ip("203.0.113.9")) == "allow",
            far,
            "{client} from outside"
        );
    }
    let masked = World::of(&[
        SHOP,
        SERVER,
        &server_authorization("{unauthenticated: true, networks: [{cidr: 203.0.113.77/24}]}"),
    ]);
    assert_eq!(masked.findings("MESH-0376").len(), 1);
}

#[test]
fn reading_15_reasons_name_the_grants() {
    let server = SERVER.replace(
        "port: http",
        "port: http, accessPolicy: all-unauthenticated",
    );
    let required = annotated_pod("config.linkerd.io/proxy-require-identity-inbound-ports: '8080'");
    let world = World::of(&[
        &required,
        &server,
        MESHED,
        &meshed_policy(),
        &server_authorization("{meshTLS: {identities: ['*']}}"),
    ]);
    let want = [
        "AuthorizationPolicy/shop/p/0",
        "ServerAuthorization/shop/s/0",
        "default/all-authenticated",
    ];
    assert_eq!(world.reasons(&Ask::meshed("shop/web")), want);
    assert_eq!(world.answer(&Ask::plain()), DENIED);
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
fn reading_16_a_denial_of_one_pod_behind_a_service_wins() {
    let server = "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: special, namespace: shop}\nspec: {podSelector: {matchLabels: {special: 'yes'}}, port: web}\n";
    let world = World::default_policy(Mode::AllUnauthenticated, &[SERVICES]);
    let record = world.decide(&Ask::plain().service("front").port(80));
    assert_eq!(
        (record.server.workload.as_deref(), record.server.port),
        (Some("one"), 8080),
        "through the name of the port"
    );
    let world = World::default_policy(Mode::AllUnauthenticated, &[SERVICES, server]);
    let record = world.decide(&Ask::plain().service("front").port(80));
    assert_eq!(
        (record.server.workload.as_deref(), record.server.port),
        (Some("two"), 9080)
    );
    assert_eq!(
        world.answer(&Ask::plain().service("front").port(80)),
        DENIED
    );
    assert_eq!(
        world
            .decide(&Ask::plain().service("front").port(81))
            .server
            .port,
        8081
    );
    assert_eq!(
        world
            .decide(&Ask::plain().service("front").port(82))
            .server
            .port,
        82
    );
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
        Ask::plain().ip("ten"),
        Ask::plain().ip("10.0.0.1/32"),
    ] {
        assert_eq!(world.answer(&ask), "transport -", "{:?}", ask.0.client);
        assert_eq!(world.answer(&ask.pod("ghost")), "transport -");
    }
}

#[test]
fn services_have_their_ready_pods_with_address_and_identity() {
    let unready = SERVICES.replace(
        "status: {podIP: 10.0.0.2}",
        "status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}",
    );
    for (text, want) in [
        (SERVICES.to_owned(), vec!["10.0.0.1:8080", "10.0.0.2:9080"]),
        (unready, vec!["10.0.0.1:8080"]),
    ] {
        let services = World::of(&[&text]).index.services();
        assert_eq!(
            services.iter().map(|s| s.port).collect::<Vec<_>>(),
            [80, 81, 82],
            "UDP is none of ours"
        );
        let first = services.first().unwrap();
        let endpoints: Vec<String> = first
            .endpoints
            .iter()
            .map(|e| format!("{}:{}", e.ip, e.port))
            .collect();
        assert_eq!(endpoints, want);
        assert_eq!(
            first.endpoints.first().unwrap().identity.as_str(),
            "spiffe://cluster.local/ns/shop/sa/front"
        );
        assert!(!first.opaque);
    }
    let annotated = SERVICES.replace(
        "{name: front, namespace: shop}",
        "{name: front, namespace: shop, annotations: {config.linkerd.io/opaque-ports: '80,raw'}}",
    );
    let opaque: Vec<bool> = World::of(&[&annotated])
        .index
        .services()
        .iter()
        .map(|s| s.opaque)
        .collect();
    assert_eq!(opaque, [true, true, false]);
}

const DEPLOYED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: pay, namespace: shop}
spec: {template: {metadata: {labels: {app: pay}, annotations: {config.linkerd.io/default-inbound-policy: all-unauthenticated}}, spec: {serviceAccountName: pay, containers: [{ports: [{containerPort: 8080}]}]}}}
";

#[test]
fn a_template_stands_for_its_pods_until_there_are_some() {
    let world = World::of(&[DEPLOYED]);
    assert_eq!(world.answer(&Ask::plain().pod("pay")), "allow");
    assert_eq!(
        world.snapshot("shop", "pay").workload.owner.as_deref(),
        Some("Deployment/pay")
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: pay-7d9-x, namespace: shop, labels: {app: pay, pod-template-hash: 7d9}, ownerReferences: [{kind: ReplicaSet, name: pay-7d9}]}\nspec: {containers: []}\n";
    let world = World::of(&[DEPLOYED, pod]);
    let names: Vec<&str> = world
        .index
        .workloads()
        .map(|(key, _)| key.name.as_str())
        .collect();
    assert_eq!(names, ["pay-7d9-x"]);
    assert_eq!(
        world.answer(&Ask::plain().pod("pay")),
        DENIED,
        "the pod has no annotation, and is what `pay` means now"
    );
}
