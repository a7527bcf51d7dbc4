//! Linkerd's own policy tests, input and expected outcome, with our stricter expectation where there is one.

use crate::world::{Ask, MESHED, SERVER, SHOP, World, policy, route};
use mesh_policy::snapshot::{ProbeKind, ServerProtocol};
use mesh_policy_index::Mode;

const DENIED: &str = "permit 403";

fn open_mesh(parts: &[&str]) -> World {
    World::default_policy(Mode::AllUnauthenticated, parts)
}

#[test]
fn case_01_a_server_alone_denies_everyone_and_audit_lets_everyone_in_on_record() {
    let world = open_mesh(&[SHOP, SERVER]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED);
    assert_eq!(world.answer(&Ask::plain()), DENIED);
    let audit = SERVER.replace("port: http", "port: http, accessPolicy: audit");
    let world = open_mesh(&[SHOP, &audit]);
    for ask in [Ask::meshed("shop/web"), Ask::plain()] {
        let record = world.decide(&ask);
        assert_eq!(record.reasons, ["default/audit"]);
        assert!(record.audit, "only the audit permit holds");
    }
}

#[test]
fn case_02_a_policy_on_a_server_with_a_wildcard_admits_the_meshed_only() {
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        &policy("p", "Server cart", &["MeshTLSAuthentication meshed"]),
    ]);
    assert_eq!(
        world.reasons(&Ask::meshed("other/any")),
        ["AuthorizationPolicy/shop/p/0"]
    );
    assert_eq!(world.answer(&Ask::plain()), DENIED);
    assert_eq!(world.answer(&Ask::bare_tls()), DENIED);
}

#[test]
fn case_03_a_namespace_target_covers_its_servers_and_no_port_without_server() {
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        &policy("p", "Namespace shop", &["MeshTLSAuthentication meshed"]),
    ]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), "allow");
    assert_eq!(world.answer(&Ask::plain()), DENIED);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").port(9090)),
        DENIED,
        "9090 has no Server"
    );
}

#[test]
fn case_04_a_namespace_reference_admits_the_service_accounts_of_that_namespace_only() {
    let refs = MESHED.replace(
        "identities: ['*']",
        "identityRefs: [{kind: Namespace, name: shop}]",
    );
    let world = World::of(&[
        SHOP,
        SERVER,
        &refs,
        &policy("p", "Server cart", &["MeshTLSAuthentication meshed"]),
    ]);
    assert_eq!(world.answer(&Ask::meshed("shop/anything")), "allow");
    assert_eq!(world.answer(&Ask::meshed("shop2/web")), DENIED);
    assert_eq!(
        world.answer(&Ask::identity("spiffe://other.example/ns/shop/sa/web")),
        DENIED
    );
}

const NETWORK: &str = "
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: near, namespace: shop}
spec: {networks: [{cidr: 10.1.2.3}]}
";

#[test]
fn case_05_a_network_alone_admits_that_address_even_unmeshed() {
    let world = World::of(&[
        SHOP,
        SERVER,
        NETWORK,
        &policy("p", "Server cart", &["NetworkAuthentication near"]),
    ]);
    assert_eq!(world.answer(&Ask::plain()), "allow");
    assert_eq!(world.answer(&Ask::plain().ip("10.1.2.4")), DENIED);
}

#[test]
fn case_06_two_authentications_of_one_policy_must_both_hold() {
    let refs = ["MeshTLSAuthentication meshed", "NetworkAuthentication near"];
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        NETWORK,
        &policy("p", "Server cart", &refs),
    ]);
    for (ask, want) in [
        (Ask::meshed("shop/web"), "allow"),
        (Ask::meshed("shop/web").ip("10.9.9.9"), DENIED),
        (Ask::plain(), DENIED),
        (Ask::plain().ip("10.9.9.9"), DENIED),
    ] {
        assert_eq!(world.answer(&ask), want, "{:?}", ask.0.client);
    }
}

#[test]
fn case_07_of_two_policies_either_suffices() {
    let (a, b) = (
        policy("a", "Server cart", &["MeshTLSAuthentication meshed"]),
        policy("b", "Server cart", &["NetworkAuthentication near"]),
    );
    let world = World::of(&[SHOP, SERVER, MESHED, NETWORK, &a, &b]);
    assert_eq!(
        world.reasons(&Ask::meshed("shop/web")),
        [
            "AuthorizationPolicy/shop/a/0",
            "AuthorizationPolicy/shop/b/0"
        ]
    );
    assert_eq!(
        world.reasons(&Ask::meshed("shop/web").ip("10.9.9.9")),
        ["AuthorizationPolicy/shop/a/0"]
    );
    assert_eq!(
        world.reasons(&Ask::plain()),
        ["AuthorizationPolicy/shop/b/0"]
    );
    assert_eq!(world.answer(&Ask::plain().ip("10.9.9.9")), DENIED);
}

#[test]
fn case_08_empty_references_admit_everyone_only_with_a_stated_reason() {
    let open = policy("p", "Server cart", &[]);
    let world = World::of(&[SHOP, SERVER, &open]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED);
    assert_eq!(world.errors(), ["MESH-0366"]);
    let meant = open.replace(
        "namespace: shop}",
        "namespace: shop, annotations: {mesh.internal/allow-unauthenticated: public page}}",
    );
    let world = World::of(&[SHOP, SERVER, &meant]);
    assert_eq!(world.answer(&Ask::plain()), "allow");
    assert_eq!(world.findings("MESH-0367").len(), 1, "and it is reported");
    let blank = meant.replace("public page", "''");
    assert_eq!(
        World::of(&[SHOP, SERVER, &blank]).answer(&Ask::plain()),
        DENIED,
        "an empty reason is none"
    );
}

#[test]
fn case_09_a_route_policy_covers_its_route_and_a_server_policy_all_of_them() {
    let (a, b) = (route("a", "{value: /a}"), route("b", "{value: /b}"));
    let on_a = policy("on-a", "HTTPRoute a", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &a, &b, &on_a]);
    for (ask, want) in [
        (Ask::meshed("shop/web").path("/a"), "allow"),
        (Ask::plain().path("/a"), DENIED),
        (Ask::meshed("shop/web").path("/b"), DENIED),
        (Ask::meshed("shop/web").path("/c"), "route 404"),
    ] {
        assert_eq!(world.answer(&ask), want, "{:?}", ask.0.path);
    }
    let on_server = policy(
        "on-server",
        "Server cart",
        &["MeshTLSAuthentication meshed"],
    );
    let world = World::of(&[SHOP, SERVER, MESHED, &a, &b, &on_a, &on_server]);
    assert_eq!(world.answer(&Ask::meshed("shop/web").path("/b")), "allow");
}

#[test]
fn case_10_of_two_servers_on_a_port_the_older_wins_until_it_goes() {
    let server = |name: &str, year: &str, access: &str| {
        SERVER
            .replace(
                "name: cart, namespace",
                &format!("name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z', namespace"),
            )
            .replace("port: http", &format!("port: http, accessPolicy: {access}"))
    };
    let (old, young) = (
        server("z-old", "2020", "deny"),
        server("a-young", "2021", "all-unauthenticated"),
    );
    let world = World::of(&[SHOP, &old, &young]);
    assert_eq!(world.answer(&Ask::plain()), DENIED);
    let snapshot = world.snapshot("shop", "cart");
    let server = &snapshot.ports.get(&8080).unwrap().server;
    assert_eq!(
        (
            server.name.as_str(),
            server.shadowed.first().map(|s| s.name.as_str())
        ),
        ("z-old", Some("a-young"))
    );
    assert_eq!(world.findings("MESH-0368").len(), 1);
    assert_eq!(World::of(&[SHOP, &young]).answer(&Ask::plain()), "allow");
}

#[test]
fn case_10_servers_of_one_age_are_taken_by_name_and_undated_ones_last() {
    let server = |name: &str, meta: &str| {
        SERVER.replace(
            "name: cart, namespace",
            &format!("name: {name}{meta}, namespace"),
        )
    };
    let winner = |parts: &[&str]| {
        World::of(parts)
            .snapshot("shop", "cart")
            .ports
            .get(&8080)
            .unwrap()
            .server
            .name
            .clone()
    };
    assert_eq!(winner(&[SHOP, &server("b", ""), &server("a", "")]), "a");
    let dated = server("z", ", creationTimestamp: '2030-01-01T00:00:00Z'");
    assert_eq!(winner(&[SHOP, &server("a", ""), &dated]), "z");
}

#[test]
fn case_11_routes_stand_in_the_order_of_their_creation() {
    let dated = |name: &str, year: &str| {
        route(name, "{value: /same}").replace(
            "metadata: {",
            &format!("metadata: {{creationTimestamp: '{year}-01-01T00:00:00Z', "),
        )
    };
    let world = World::of(&[
        SHOP,
        SERVER,
        &dated("c", "2020"),
        &dated("a", "2022"),
        &dated("b", "2021"),
        &route("0a", "{value: /same}"),
    ]);
    let snapshot = world.snapshot("shop", "cart");
    let names: Vec<&str> = snapshot
        .ports
        .get(&8080)
        .unwrap()
        .routes
        .iter()
        .map(|r| r.name.as_str())
        .collect();
    assert_eq!(names, ["c", "b", "a", "0a"]);
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  containers:
  - ports: [{containerPort: 8080, name: http}]
    livenessProbe: {httpGet: {path: '/live?x=1', port: http}}
";

#[test]
fn case_12_a_probe_is_open_with_and_without_routes() {
    for routes in [String::new(), route("a", "{value: /a}")] {
        let world = World::of(&[PROBED, SERVER, &routes]);
        assert_eq!(
            world.reasons(&Ask::plain().path("/live")),
            ["default/probe"]
        );
        assert_eq!(
            world.answer(&Ask::plain().path("/live").method("POST")),
            if routes.is_empty() {
                DENIED
            } else {
                "route 404"
            }
        );
        assert_eq!(
            world.answer(&Ask::plain().path("/livez")),
            if routes.is_empty() {
                DENIED
            } else {
                "route 404"
            }
        );
    }
    let snapshot = World::of(&[PROBED]).snapshot("shop", "cart");
    let probe = snapshot
        .ports
        .get(&8080)
        .unwrap()
        .probes
        .first()
        .unwrap()
        .clone();
    assert_eq!(
        (probe.kind, probe.networks.as_str()),
        (ProbeKind::Http("/live".into()), "probe/networks")
    );
}

#[test]
fn case_13_an_annotation_sets_each_of_the_six_modes() {
    for mode in Mode::ALL {
        let pod = SHOP.replace(
            "metadata: {name: cart, namespace: shop,",
            &format!("metadata: {{name: cart, annotations: {{config.linkerd.io/default-inbound-policy: {mode}}}, namespace: shop,"),
        );
        let world = World::of(&[&pod]);
        let (meshed, plain, far) = (
            Ask::meshed("shop/web"),
            Ask::plain(),
            Ask::meshed("shop/web").ip("203.0.113.9"),
        );
        let answers = [
            world.answer(&meshed),
            world.answer(&plain),
            world.answer(&far),
        ];
        let want = match mode {
            Mode::Deny => [DENIED, DENIED, DENIED],
            Mode::AllAuthenticated => ["allow", DENIED, "allow"],
            Mode::AllUnauthenticated | Mode::Audit => ["allow", "allow", "allow"],
            Mode::ClusterAuthenticated => ["allow", DENIED, DENIED],
            Mode::ClusterUnauthenticated => ["allow", "allow", DENIED],
        };
        assert_eq!(answers, want, "{mode}");
        if mode != Mode::Deny {
            assert_eq!(world.reasons(&meshed), [format!("default/{mode}")]);
        }
    }
}

#[test]
fn case_14_requiring_identity_upgrades_the_allowing_modes_only() {
    for (mode, want) in [
        (Mode::AllUnauthenticated, "all-authenticated"),
        (Mode::ClusterUnauthenticated, "cluster-authenticated"),
        (Mode::AllAuthenticated, "all-authenticated"),
        (Mode::ClusterAuthenticated, "cluster-authenticated"),
        (Mode::Deny, "deny"),
        (Mode::Audit, "audit"),
    ] {
        let pod = SHOP.replace(
            "metadata: {name: cart, namespace: shop,",
            "metadata: {name: cart, annotations: {config.linkerd.io/proxy-require-identity-inbound-ports: '8080,7000'}, namespace: shop,",
        );
        let snapshot = World::default_policy(mode, &[&pod]).snapshot("shop", "cart");
        let shown = |port: u16| snapshot.ports.get(&port).map(|p| p.server.mode.clone());
        assert_eq!(
            (shown(8080).as_deref(), shown(7000).as_deref()),
            (Some(want), Some(want)),
            "{mode}"
        );
        assert_eq!(
            (
                shown(9090).as_deref(),
                snapshot.other_ports.server.mode.as_str()
            ),
            (Some(mode.as_str()), mode.as_str())
        );
    }
}

#[test]
fn case_15_opaque_ports_are_opaque() {
    let pod = SHOP.replace(
        "metadata: {name: cart, namespace: shop,",
        "metadata: {name: cart, annotations: {config.linkerd.io/opaque-ports: '9090,4000-4001'}, namespace: shop,",
    );
    let snapshot = World::of(&[&pod]).snapshot("shop", "cart");
    for (port, want) in [
        (8080, ServerProtocol::Unknown),
        (9090, ServerProtocol::Opaque),
        (4001, ServerProtocol::Opaque),
    ] {
        assert_eq!(
            snapshot.ports.get(&port).unwrap().server.protocol,
            want,
            "{port}"
        );
    }
}

#[test]
fn case_16_a_pod_that_leaves_the_selector_falls_to_the_default_policy() {
    let other = SHOP.replace("labels: {app: cart}", "labels: {app: basket}");
    assert_eq!(open_mesh(&[SHOP, SERVER]).answer(&Ask::plain()), DENIED);
    assert_eq!(
        open_mesh(&[&other, SERVER]).reasons(&Ask::plain()),
        ["default/all-unauthenticated"]
    );
}

#[test]
fn case_17_without_the_authentication_there_is_no_grant() {
    let both = policy(
        "p",
        "Server cart",
        &["MeshTLSAuthentication meshed", "NetworkAuthentication near"],
    );
    for parts in [
        [SHOP, SERVER, NETWORK, &both],
        [SHOP, SERVER, MESHED, &both],
    ] {
        let world = World::of(&parts);
        assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED);
        assert_eq!(world.errors(), ["MESH-0364"]);
    }
}

fn server_authorization(server: &str, client: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {{name: s, namespace: shop}}\nspec: {{server: {server}, client: {client}}}\n"
    )
}

#[test]
fn case_18_a_server_authorization_works_by_name_and_by_label() {
    let labelled = SERVER.replace(
        "name: cart, namespace",
        "labels: {tier: back}, name: cart, namespace",
    );
    for server in [
        "{name: cart}",
        "{selector: {matchLabels: {tier: back}}}",
        "{selector: {}}",
    ] {
        let authorization =
            server_authorization(server, "{meshTLS: {serviceAccounts: [{name: web}]}}");
        let world = World::of(&[SHOP, &labelled, &authorization]);
        assert_eq!(
            world.reasons(&Ask::meshed("shop/web")),
            ["ServerAuthorization/shop/s/0"],
            "{server}"
        );
        assert_eq!(world.answer(&Ask::meshed("shop/other")), DENIED);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web").ip("203.0.113.9")),
            DENIED,
            "outside of the cluster networks"
        );
    }
    for server in ["{name: other}", "{selector: {matchLabels: {tier: front}}}"] {
        let authorization =
            server_authorization(server, "{meshTLS: {serviceAccounts: [{name: web}]}}");
        assert_eq!(
            World::of(&[SHOP, &labelled, &authorization]).answer(&Ask::meshed("shop/web")),
            DENIED,
            "{server}"
        );
    }
}

#[test]
fn case_18_contradictory_server_authorizations_grant_nothing() {
    for (client, meshed, plain, tls) in [
        ("{unauthenticated: true}", true, true, true),
        ("{meshTLS: {unauthenticatedTLS: true}}", true, false, true),
        ("{meshTLS: {identities: ['*']}}", true, false, false),
        (
            "{meshTLS: {identities: ['web.shop.serviceaccount.identity.linkerd.cluster.local']}}",
            true,
            false,
            false,
        ),
        (
            "{unauthenticated: true, meshTLS: {identities: ['*']}}",
            false,
            false,
            false,
        ),
        (
            "{unauthenticated: true, meshTLS: {unauthenticatedTLS: true}}",
            false,
            false,
            false,
        ),
        (
            "{meshTLS: {unauthenticatedTLS: true, identities: ['*']}}",
            false,
            false,
            false,
        ),
        (
            "{meshTLS: {unauthenticatedTLS: true, serviceAccounts: [{name: web}]}}",
            false,
            false,
            false,
        ),
        ("{}", false, false, false),
        ("{unauthenticated: false}", false, false, false),
        ("{meshTLS: {}}", false, false, false),
        ("{meshTLS: {identities: []}}", false, false, false),
        ("{networks: [{cidr: 0.0.0.0/0}]}", false, false, false),
        ("{unauthenticated: 'true'}", false, false, false),
    ] {
        for server in ["{name: cart}", "{selector: {}}"] {
            let world = World::of(&[SHOP, SERVER, &server_authorization(server, client)]);
            let got = [Ask::meshed("shop/web"), Ask::plain(), Ask::bare_tls()]
                .map(|ask| world.answer(&ask) == "allow");
            assert_eq!(got, [meshed, plain, tls], "{client}");
            assert_eq!(world.errors().is_empty(), meshed, "{client} is reported");
        }
    }
    let both = server_authorization("{name: cart, selector: {}}", "{unauthenticated: true}");
    assert_eq!(
        World::of(&[SHOP, SERVER, &both]).answer(&Ask::plain()),
        DENIED
    );
    let neither = server_authorization("{}", "{unauthenticated: true}");
    assert_eq!(
        World::of(&[SHOP, SERVER, &neither]).answer(&Ask::plain()),
        DENIED
    );
}

#[test]
fn case_19_exceptions_must_lie_inside_their_block_and_not_cover_it() {
    for (networks, valid) in [
        ("{cidr: 10.0.0.0/8, except: [10.9.0.0/16, 10.8.0.1]}", true),
        ("{cidr: 10.1.2.3}", true),
        ("{cidr: 10.0.0.0/8, except: []}", true),
        ("{cidr: 10.0.0.0/8, except: [192.168.0.0/16]}", false),
        ("{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}", false),
        ("{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}", false),
        ("{cidr: 10.0.0.0/8, except: ['fd00::/8']}", false),
        ("{cidr: 10.1.2.3, except: [10.1.2.3]}", false),
        ("{cidr: ten}", false),
        ("{except: [10.0.0.1]}", false),
        ("10.0.0.0/8", false),
        ("{cidr: 10.0.0.0/33}", false),
        ("{cidr: 10.0.0.0/8, excepts: []}", false),
    ] {
        let network = NETWORK.replace("{cidr: 10.1.2.3}", networks);
        let world = World::of(&[
            SHOP,
            SERVER,
            &network,
            &policy("p", "Server cart", &["NetworkAuthentication near"]),
        ]);
        assert_eq!(
            world.answer(&Ask::plain()),
            if valid { "allow" } else { DENIED },
            "{networks}"
        );
        assert_eq!(
            world.errors().is_empty(),
            valid,
            "{networks}: {:?}",
            world.errors()
        );
    }
    let world = World::of(&[
        SHOP,
        SERVER,
        &NETWORK.replace(
            "{cidr: 10.1.2.3}",
            "{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}",
        ),
        &policy("p", "Server cart", &["NetworkAuthentication near"]),
    ]);
    assert_eq!(
        world.answer(&Ask::plain().ip("10.9.1.1")),
        DENIED,
        "the exception holds"
    );
}

#[test]
fn case_20_an_authorization_policy_takes_one_identity_and_one_network_and_its_own_namespace() {
    let base = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let refs = |list: &str| {
        base.replace(
            &base[base.find("requiredAuthenticationRefs").unwrap()..],
            &format!("requiredAuthenticationRefs: {list}\n"),
        )
    };
    let mesh = "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: meshed}";
    let near = "{group: policy.linkerd.io, kind: NetworkAuthentication, name: near}";
    let account = "{kind: ServiceAccount, name: web}";
    for (list, valid) in [
        (format!("[{mesh}]"), true),
        (format!("[{mesh}, {near}]"), true),
        (format!("[{account}, {near}]"), true),
        (format!("[{account}]"), true),
        (format!("[{mesh}, {mesh}]"), false),
        (format!("[{near}, {near}]"), false),
        (format!("[{mesh}, {account}]"), false),
        (format!("[{account}, {account}]"), false),
        (
            "[{kind: MeshTLSAuthentication, name: meshed}]".into(),
            false,
        ),
        (
            "[{group: policy.linkerd.io, kind: Server, name: cart}]".into(),
            false,
        ),
        (
            "[{group: policy.linkerd.io, kind: MeshTLSAuthentication}]".into(),
            false,
        ),
        (
            "[{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: meshed, extra: 1}]"
                .into(),
            false,
        ),
        ("{}".into(), false),
        ("".into(), false),
    ] {
        let world = World::of(&[SHOP, SERVER, MESHED, NETWORK, &refs(&list)]);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web")),
            if valid { "allow" } else { DENIED },
            "{list}"
        );
        assert_eq!(world.errors().is_empty(), valid, "{list}");
    }
    for target in [
        "{group: apps, kind: Deployment, name: cart}",
        "{kind: Namespace, name: other}",
        "{group: policy.linkerd.io, kind: Namespace, name: shop}",
        "{kind: Server, name: cart}",
        "{group: policy.linkerd.io, kind: Server}",
        "{group: policy.linkerd.io, kind: server, name: cart}",
        "{group: policy.linkerd.io, kind: Server, name: cart, namespace: shop}",
        "{group: policy.linkerd.io, kind: Server, name: Cart}",
        "[]",
    ] {
        let wrong = base.replace(
            "{group: 'policy.linkerd.io', kind: Server, name: cart}",
            target,
        );
        assert_ne!(wrong, base);
        let world = World::of(&[SHOP, SERVER, MESHED, &wrong]);
        assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED, "{target}");
        assert!(!world.errors().is_empty(), "{target} is reported");
    }
    let missing = "\n---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}}\n";
    let world = World::of(&[SHOP, SERVER, missing]);
    assert_eq!(
        (world.answer(&Ask::plain()).as_str(), world.errors()),
        (DENIED, vec!["MESH-0357"])
    );
}

#[test]
fn case_21_a_mesh_tls_authentication_has_identities_or_references_and_not_both() {
    for (spec, valid) in [
        ("{identities: ['*']}", true),
        ("{identityRefs: [{kind: ServiceAccount, name: web}]}", true),
        (
            "{identityRefs: [{kind: ServiceAccount, name: web, namespace: shop}]}",
            true,
        ),
        (
            "{identityRefs: [{group: core, kind: ServiceAccount, name: web}]}",
            true,
        ),
        ("{identityRefs: [{kind: Namespace, name: shop}]}", true),
        (
            "{identityRefs: [{kind: Namespace, name: shop, namespace: shop}]}",
            false,
        ),
        ("{identityRefs: [{kind: Namespace}]}", false),
        ("{identityRefs: [{kind: Pod, name: web}]}", false),
        (
            "{identityRefs: [{group: apps, kind: ServiceAccount, name: web}]}",
            false,
        ),
        (
            "{identities: ['*'], identityRefs: [{kind: ServiceAccount, name: web}]}",
            false,
        ),
        ("{identities: ['*'], identityRefs: []}", false),
        ("{identities: []}", false),
        ("{identityRefs: []}", false),
        ("{}", false),
        ("{identities: '*'}", false),
        ("{identities: [1]}", false),
        ("{identities: ['*'], other: 1}", false),
        ("{identities: ['*', 'x.*']}", false),
    ] {
        let authentication = MESHED.replace("{identities: ['*']}", spec);
        let world = World::of(&[
            SHOP,
            SERVER,
            &authentication,
            &policy("p", "Server cart", &["MeshTLSAuthentication meshed"]),
        ]);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web")),
            if valid { "allow" } else { DENIED },
            "{spec}"
        );
        assert_eq!(
            world.errors().is_empty(),
            valid,
            "{spec}: {:?}",
            world.errors()
        );
    }
}

#[test]
fn case_23_spiffe_ids_match_exactly_and_suffixes_match_dns_forms_only() {
    for (identity, allowed) in [
        ("spiffe://cluster.local/ns/shop/sa/web", true),
        ("SPIFFE://Cluster.Local/ns/shop/sa/web", true),
        ("spiffe://cluster.local/ns/shop/*", true),
        (
            "web.shop.serviceaccount.identity.linkerd.cluster.local",
            true,
        ),
        ("*.shop.serviceaccount.identity.any.cluster.local", true),
        ("spiffe://cluster.local/ns/shop/sa/we", false),
        ("spiffe://cluster.local/ns/shop/sa/webb", false),
        ("spiffe://cluster.local/ns/sho/*", false),
        ("spiffe://other.example/ns/shop/sa/web", false),
        ("*.cluster.local", false),
        ("*.local", false),
        (
            "web.shop.serviceaccount.identity.linkerd.other.example",
            false,
        ),
    ] {
        let authentication = MESHED.replace("'*'", &format!("'{identity}'"));
        let world = World::of(&[
            SHOP,
            SERVER,
            &authentication,
            &policy("p", "Server cart", &["MeshTLSAuthentication meshed"]),
        ]);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web")),
            if allowed { "allow" } else { DENIED },
            "{identity}"
        );
    }
}

fn limit(spec: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {{name: l, namespace: shop}}\nspec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: cart}}, {spec}}}\n"
    )
}

#[test]
fn case_25_rate_limits_are_positive_and_none_exceeds_the_total() {
    for (spec, valid) in [
        (
            "total: {requestsPerSecond: 100}, identity: {requestsPerSecond: 5}, overrides: [{requestsPerSecond: 10, clientRefs: [{kind: ServiceAccount, name: web}]}]",
            true,
        ),
        ("identity: {requestsPerSecond: 5}", true),
        (
            "total: {requestsPerSecond: 4}, identity: {requestsPerSecond: 5}",
            false,
        ),
        (
            "total: {requestsPerSecond: 4}, overrides: [{requestsPerSecond: 10, clientRefs: [{kind: ServiceAccount, name: web}]}]",
            false,
        ),
        ("total: {requestsPerSecond: 0}", false),
        ("total: {requestsPerSecond: -1}", false),
        ("total: {}", false),
        ("total: {requestsPerSecond: 5.5}", false),
        (
            "overrides: [{requestsPerSecond: 1, clientRefs: [{kind: Pod, name: web}]}]",
            false,
        ),
        ("overrides: [{requestsPerSecond: 1}]", false),
    ] {
        let world = World::of(&[SHOP, SERVER, &limit(spec)]);
        assert_eq!(
            world.errors().is_empty(),
            valid,
            "{spec}: {:?}",
            world.errors()
        );
        let snapshot = world.snapshot("shop", "cart");
        assert!(
            snapshot.ports.get(&8080).unwrap().l7_limits,
            "{spec}: raw bytes stay refused"
        );
    }
    let world = World::of(&[
        SHOP,
        SERVER,
        &limit(
            "total: {requestsPerSecond: 100}, overrides: [{requestsPerSecond: 10, clientRefs: [{kind: ServiceAccount, name: web}]}]",
        ),
    ]);
    let limit = world
        .snapshot("shop", "cart")
        .ports
        .get(&8080)
        .unwrap()
        .rate_limit
        .clone()
        .unwrap();
    assert_eq!((limit.total, limit.identity), (Some(100), None));
    assert_eq!(
        limit.overrides.first().unwrap().0.first().unwrap().as_str(),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
}

#[test]
fn case_26_a_relative_path_is_refused_and_an_egress_parent_needs_a_port() {
    let relative = route("r", "{type: Exact, value: relative}");
    assert_eq!(
        World::of(&[SHOP, SERVER, &relative]).errors(),
        ["MESH-0359"]
    );
    let egress = |port: &str| {
        route("r", "{value: /}").replace(
            "kind: Server, name: cart",
            &format!("kind: EgressNetwork, name: all{port}"),
        )
    };
    assert_eq!(
        World::of(&[SHOP, SERVER, &egress("")]).errors(),
        ["MESH-0357"]
    );
    assert_eq!(
        World::of(&[SHOP, SERVER, &egress(", port: 443")]).errors(),
        Vec::<&str>::new()
    );
}
