//! Linkerd's own suite, cases 18 to 22 and 26: what is a valid object, and what becomes of one that is not.

use crate::linkerd_model::Says::{Allow, Forbidden};
use crate::side_by_side::{Admission, Scene, admissions, refusals};
use crate::why::{
    EXACT_NAMES, SAME, SPIFFE_DOMAIN_ALONE, SPIFFE_NAMESPACE, SPIFFE_UPPER_CASE, UNKNOWN_FIELD,
};
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, policy, route, server_authorization,
};

/// What an object grants to `shop/web`, to nobody in particular, and to TLS without identity.
fn grants(parts: &[&str]) -> [bool; 3] {
    let world = World::of(parts);
    [Ask::meshed("shop/web"), Ask::plain(), Ask::bare_tls()]
        .map(|ask| world.answer(&ask) == "allow")
}

#[test]
fn case_18_a_server_authorization_works_by_name_and_by_label() {
    let labelled = SERVER.replace(
        "name: cart, namespace",
        "labels: {tier: back}, name: cart, namespace",
    );
    let client = "{meshTLS: {serviceAccounts: [{name: web}]}}";
    for (server, selected) in [
        ("{name: cart}", true),
        ("{selector: {matchLabels: {tier: back}}}", true),
        ("{selector: {}}", true),
        (
            "{selector: {matchExpressions: [{key: tier, operator: In, values: [back, front]}]}}",
            true,
        ),
        ("{name: other}", false),
        ("{selector: {matchLabels: {tier: front}}}", false),
    ] {
        let scene = Scene::of(&[SHOP, &labelled, &server_authorization(server, client)]);
        let (says, ours) = if selected {
            (Allow, "allow")
        } else {
            (Forbidden, DENIED)
        };
        scene.answers(&[
            (Ask::meshed("shop/web"), says, ours, SAME),
            (Ask::meshed("shop/other"), Forbidden, DENIED, SAME),
            // Networks that are not given are those of the cluster.
            (
                Ask::meshed("shop/web").ip("203.0.113.9"),
                Forbidden,
                DENIED,
                SAME,
            ),
        ]);
        if selected {
            assert_eq!(
                scene.world.reasons(&Ask::meshed("shop/web")),
                ["ServerAuthorization/shop/s/0"],
                "{server}"
            );
        }
    }
}

/// What a ServerAuthorization's `client` admits, and whether each side takes the object.
const CLIENTS: &[(Admission<'_>, [bool; 3])] = &[
    (
        ("{unauthenticated: true}", true, true, SAME),
        [true, true, true],
    ),
    (
        ("{meshTLS: {unauthenticatedTLS: true}}", true, true, SAME),
        [true, false, true],
    ),
    (
        (
            "{meshTLS: {unauthenticatedTLS: true, identities: []}}",
            true,
            true,
            SAME,
        ),
        [true, false, true],
    ),
    (
        ("{meshTLS: {identities: ['*']}}", true, true, SAME),
        [true, false, false],
    ),
    (
        (
            "{meshTLS: {identities: ['web.shop.serviceaccount.identity.linkerd.cluster.local']}}",
            true,
            true,
            SAME,
        ),
        [true, false, false],
    ),
    (
        (
            "{meshTLS: {identities: ['spiffe://td/x'], serviceAccounts: [{name: web, namespace: shop}]}}",
            true,
            true,
            SAME,
        ),
        [true, false, false],
    ),
    (
        (
            "{unauthenticated: true, meshTLS: {identities: ['*']}}",
            false,
            false,
            SAME,
        ),
        [false; 3],
    ),
    (
        (
            "{unauthenticated: true, meshTLS: {unauthenticatedTLS: true}}",
            false,
            false,
            SAME,
        ),
        [false; 3],
    ),
    (
        ("{unauthenticated: true, meshTLS: {}}", false, false, SAME),
        [false; 3],
    ),
    (
        (
            "{meshTLS: {unauthenticatedTLS: true, identities: ['*']}}",
            false,
            false,
            SAME,
        ),
        [false; 3],
    ),
    (
        (
            "{meshTLS: {unauthenticatedTLS: true, serviceAccounts: [{name: web}]}}",
            false,
            false,
            SAME,
        ),
        [false; 3],
    ),
    (
        ("{unauthenticated: 'true'}", false, false, SAME),
        [false; 3],
    ),
    (
        (
            "{unauthenticated: true, networks: [{cidr: 10.0.0.0/8, except: [10.0.0.0/7]}]}",
            false,
            false,
            SAME,
        ),
        [false; 3],
    ),
    (
        (
            "{unauthenticated: true, extra: 1}",
            true,
            false,
            UNKNOWN_FIELD,
        ),
        [false; 3],
    ),
    // Valid, but they name nobody: Linkerd passes them over silently, here each is an error of the whole.
    (("{}", true, true, SAME), [false; 3]),
    (("{unauthenticated: false}", true, true, SAME), [false; 3]),
    (("{meshTLS: {}}", true, true, SAME), [false; 3]),
    (
        ("{meshTLS: {identities: []}}", true, true, SAME),
        [false; 3],
    ),
    (
        ("{networks: [{cidr: 0.0.0.0/0}]}", true, true, SAME),
        [false; 3],
    ),
];

#[test]
fn case_18_contradictory_clients_are_refused_and_grant_nothing() {
    for server in ["{name: cart}", "{selector: {}}"] {
        let whole = |client: &str| server_authorization(server, client);
        let rows: Vec<Admission<'_>> = CLIENTS.iter().map(|(row, _)| *row).collect();
        admissions(whole, &rows);
        for ((client, ..), want) in CLIENTS {
            let parts = [SHOP, SERVER, &whole(client)];
            assert_eq!(grants(&parts), *want, "{client}");
            assert_eq!(
                World::of(&parts).errors().is_empty(),
                want[0],
                "{client}: who admits nobody is told"
            );
        }
    }
    admissions(
        |server| server_authorization(server, "{unauthenticated: true}"),
        &[
            ("{name: cart}", true, true, SAME),
            ("{selector: {}}", true, true, SAME),
            ("{name: cart, selector: {}}", false, false, SAME),
            ("{}", false, false, SAME),
        ],
    );
    let both = server_authorization("{name: cart, selector: {}}", "{unauthenticated: true}");
    assert_eq!(grants(&[SHOP, SERVER, &both]), [false; 3]);
    let alpha = server_authorization("{name: cart}", "{unauthenticated: true}")
        .replace("v1beta1", "v1alpha1");
    assert_eq!(
        grants(&[SHOP, SERVER, &alpha]),
        [true; 3],
        "both versions are read alike"
    );
}

#[test]
fn case_19_exceptions_must_lie_inside_their_block_and_not_cover_it() {
    let rows: &[Admission<'_>] = &[
        (
            "{cidr: 10.0.0.0/8, except: [10.9.0.0/16, 10.8.0.1]}",
            true,
            true,
            SAME,
        ),
        ("{cidr: 10.1.2.3}", true, true, SAME),
        ("{cidr: 10.0.0.0/8, except: []}", true, true, SAME),
        ("{cidr: '::/0'}", true, true, SAME),
        (
            "{cidr: 10.0.0.0/8, except: [192.168.0.0/16]}",
            false,
            false,
            SAME,
        ),
        (
            "{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}",
            false,
            false,
            SAME,
        ),
        (
            "{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}",
            false,
            false,
            SAME,
        ),
        (
            "{cidr: 10.0.0.0/8, except: ['fd00::/8']}",
            false,
            false,
            SAME,
        ),
        ("{cidr: 10.1.2.3, except: [10.1.2.3]}", false, false, SAME),
        ("{cidr: ten}", false, false, SAME),
        ("{except: [10.0.0.1]}", false, false, SAME),
        ("10.0.0.0/8", false, false, SAME),
        ("{cidr: 10.0.0.0/33}", false, false, SAME),
        ("", false, false, SAME),
        (
            "{cidr: 10.0.0.0/8, excepts: [10.9.0.0/16]}",
            true,
            false,
            UNKNOWN_FIELD,
        ),
    ];
    let whole = |network: &str| NETWORK.replace("{cidr: 10.1.2.3}", network);
    admissions(whole, rows);
    let on_server = policy("p", "Server cart", &["NetworkAuthentication near"]);
    for (network, _, valid, _) in rows.iter().filter(|(n, ..)| !n.contains("::/0")) {
        let granted = grants(&[SHOP, SERVER, &whole(network), &on_server]);
        assert_eq!(granted, [*valid; 3], "{network}");
    }
    let holed = whole("{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}");
    Scene::of(&[SHOP, SERVER, &holed, &on_server]).answers(&[
        (Ask::plain(), Allow, "allow", SAME),
        (Ask::plain().ip("10.9.1.1"), Forbidden, DENIED, SAME),
        (Ask::plain().ip("10.10.0.0"), Allow, "allow", SAME),
    ]);
}

#[test]
fn case_20_an_authorization_policy_takes_one_identity_and_one_network() {
    let base = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let start = base.find("requiredAuthenticationRefs").unwrap();
    let whole = |refs: &str| format!("{}requiredAuthenticationRefs: {refs}\n", &base[..start]);
    let mesh = "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: meshed}";
    let near = "{group: policy.linkerd.io, kind: NetworkAuthentication, name: near}";
    let account = "{kind: ServiceAccount, name: web}";
    let listed = |refs: &[&str]| format!("[{}]", refs.join(", "));
    let valid = [
        listed(&[mesh]),
        listed(&[mesh, near]),
        listed(&[near, account]),
        listed(&[account]),
        "[{group: core, kind: ServiceAccount, name: web, namespace: shop}]".to_owned(),
    ];
    let invalid = [
        listed(&[mesh, mesh]),
        listed(&[near, near]),
        listed(&[mesh, account]),
        listed(&[account, account]),
        "[{kind: MeshTLSAuthentication, name: meshed}]".to_owned(),
        "[{kind: NetworkAuthentication, name: near}]".to_owned(),
        "[{group: policy.linkerd.io, kind: ServiceAccount, name: web}]".to_owned(),
        "[{group: policy.linkerd.io, kind: Server, name: cart}]".to_owned(),
        "[{group: policy.linkerd.io, kind: MeshTLSAuthentication}]".to_owned(),
        "{}".to_owned(),
        String::new(),
    ];
    let extra = "[{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: meshed, extra: 1}]";
    let mut rows: Vec<Admission<'_>> = valid
        .iter()
        .map(|r| (r.as_str(), true, true, SAME))
        .collect();
    rows.extend(invalid.iter().map(|r| (r.as_str(), false, false, SAME)));
    rows.push((extra, true, false, UNKNOWN_FIELD));
    // An empty list is a valid object; what it grants is case 8.
    rows.push(("[]", true, true, SAME));
    admissions(whole, &rows);
    for (refs, _, valid, _) in rows.iter().filter(|(refs, ..)| *refs != "[]") {
        let world = World::of(&[SHOP, SERVER, MESHED, NETWORK, &whole(refs)]);
        assert_eq!(
            world.answer(&Ask::meshed("shop/web")) == "allow",
            *valid,
            "{refs}"
        );
        assert_eq!(world.errors().is_empty(), *valid, "{refs}");
    }
    let missing = base[..start].trim_end().to_owned() + "\n";
    assert_eq!(refusals(&missing), ["MESH-0357"], "no list at all");
}

#[test]
fn case_20_a_policy_targets_servers_routes_and_its_own_namespace() {
    let base = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let whole = |target: &str| {
        base.replace(
            "{group: 'policy.linkerd.io', kind: Server, name: cart}",
            target,
        )
    };
    let rows: &[Admission<'_>] = &[
        (
            "{group: policy.linkerd.io, kind: Server, name: cart}",
            true,
            true,
            SAME,
        ),
        ("{kind: Namespace, name: shop}", true, true, SAME),
        (
            "{group: core, kind: Namespace, name: shop}",
            true,
            true,
            SAME,
        ),
        (
            "{group: policy.linkerd.io, kind: HTTPRoute, name: a}",
            true,
            true,
            SAME,
        ),
        (
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}",
            true,
            true,
            SAME,
        ),
        (
            "{group: gateway.networking.k8s.io, kind: GRPCRoute, name: a}",
            true,
            true,
            SAME,
        ),
        (
            "{group: apps, kind: Deployment, name: cart}",
            false,
            false,
            SAME,
        ),
        ("{kind: Namespace, name: other}", false, false, SAME),
        (
            "{group: policy.linkerd.io, kind: Namespace, name: shop}",
            false,
            false,
            SAME,
        ),
        (
            "{group: policy.linkerd.io, kind: GRPCRoute, name: a}",
            false,
            false,
            SAME,
        ),
        ("{kind: Server, name: cart}", false, false, SAME),
        (
            "{group: policy.linkerd.io, kind: Server}",
            false,
            false,
            SAME,
        ),
        ("{group: policy.linkerd.io, name: cart}", false, false, SAME),
        ("[]", false, false, SAME),
        (
            "{group: policy.linkerd.io, kind: server, name: cart}",
            true,
            false,
            EXACT_NAMES,
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: Cart}",
            true,
            false,
            EXACT_NAMES,
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: cart, namespace: shop}",
            true,
            false,
            UNKNOWN_FIELD,
        ),
    ];
    admissions(whole, rows);
    for (target, ..) in rows.iter().filter(|(.., ours, _)| !ours) {
        let world = World::of(&[SHOP, SERVER, MESHED, &whole(target)]);
        assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED, "{target}");
    }
}

#[test]
fn case_21_a_mesh_tls_authentication_has_identities_or_references_and_not_both() {
    let rows: &[Admission<'_>] = &[
        ("{identities: ['*']}", true, true, SAME),
        (
            "{identityRefs: [{kind: ServiceAccount, name: web}]}",
            true,
            true,
            SAME,
        ),
        (
            "{identityRefs: [{kind: ServiceAccount, name: web, namespace: shop}]}",
            true,
            true,
            SAME,
        ),
        (
            "{identityRefs: [{group: core, kind: ServiceAccount, name: web}]}",
            true,
            true,
            SAME,
        ),
        (
            "{identityRefs: [{group: '', kind: Namespace, name: shop}]}",
            true,
            true,
            SAME,
        ),
        (
            "{identityRefs: [{kind: Namespace, name: shop, namespace: shop}]}",
            false,
            false,
            SAME,
        ),
        ("{identityRefs: [{kind: Namespace}]}", false, false, SAME),
        (
            "{identityRefs: [{kind: Pod, name: web}]}",
            false,
            false,
            SAME,
        ),
        (
            "{identityRefs: [{group: apps, kind: ServiceAccount, name: web}]}",
            false,
            false,
            SAME,
        ),
        (
            "{identities: ['*'], identityRefs: [{kind: ServiceAccount, name: web}]}",
            false,
            false,
            SAME,
        ),
        ("{identities: ['*'], identityRefs: []}", false, false, SAME),
        ("{identities: []}", false, false, SAME),
        ("{identityRefs: []}", false, false, SAME),
        ("{}", false, false, SAME),
        ("{identities: '*'}", false, false, SAME),
        ("{identities: [1]}", false, false, SAME),
        ("{identities: ['*', 'x.*']}", false, false, SAME),
        ("{identities: ['*'], other: 1}", true, false, UNKNOWN_FIELD),
    ];
    let whole = |spec: &str| MESHED.replace("{identities: ['*']}", spec);
    admissions(whole, rows);
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    for (spec, _, valid, _) in rows {
        let granted = grants(&[SHOP, SERVER, &whole(spec), &on_server]);
        assert_eq!(granted, [*valid, false, false], "{spec}");
    }
}

#[test]
fn case_22_identities_follow_their_grammar() {
    let rows: &[Admission<'_>] = &[
        ("*", true, true, SAME),
        ("*.x", true, true, SAME),
        (
            "*.shop.serviceaccount.identity.linkerd.cluster.local",
            true,
            true,
            SAME,
        ),
        ("a.b.c", true, true, SAME),
        ("spiffe://cluster.local/ns/shop/sa/cart", true, true, SAME),
        ("spiffe://t-d_1.x/A-b_c.D", true, true, SAME),
        ("", false, false, SAME),
        ("x.*", false, false, SAME),
        ("*x", false, false, SAME),
        ("*.*", false, false, SAME),
        ("a..b", false, false, SAME),
        ("a.", false, false, SAME),
        (".a", false, false, SAME),
        ("*.", false, false, SAME),
        ("A.b", false, false, SAME),
        ("a_b", false, false, SAME),
        ("-a.b", false, false, SAME),
        ("spiffe://", false, false, SAME),
        ("spiffe:///x", false, false, SAME),
        ("spiffe://td/", false, false, SAME),
        ("spiffe://td/a/", false, false, SAME),
        ("spiffe://td//a", false, false, SAME),
        ("spiffe://td/./a", false, false, SAME),
        ("spiffe://td/../a", false, false, SAME),
        ("spiffe://td/a/..", false, false, SAME),
        ("spiffe://t!d/a", false, false, SAME),
        ("spiffe://td:8/a", false, false, SAME),
        ("spiffe://u@td/a", false, false, SAME),
        ("spiffe://*/ns/a/sa/b", false, false, SAME),
        ("spiffe://td/a b", false, false, SAME),
        ("spiffe://td/a?x", false, false, SAME),
        ("spiffe://td/a#x", false, false, SAME),
        ("spiffe://td/a%20", false, false, SAME),
        ("spiffe://td/*", false, false, SAME),
        ("spiffe://td/ns/*", false, false, SAME),
        ("spiffe://td/ns/a/sa/*", false, false, SAME),
        ("https://td/a", false, false, SAME),
        ("spiffe://td/ns/shop/*", false, true, SPIFFE_NAMESPACE),
        ("spiffe://Td/a", false, true, SPIFFE_UPPER_CASE),
        ("SPIFFE://td/a", false, true, SPIFFE_UPPER_CASE),
        ("spiffe://td", true, false, SPIFFE_DOMAIN_ALONE),
    ];
    admissions(|id| MESHED.replace("'*'", &format!("'{id}'")), rows);
    let client = |id: &str| format!("{{meshTLS: {{identities: ['{id}']}}}}");
    for (id, _, valid, _) in rows {
        let document = server_authorization("{name: cart}", &client(id));
        assert_eq!(
            refusals(&document).is_empty(),
            *valid,
            "{id} in a ServerAuthorization"
        );
    }
}

#[test]
fn case_26_a_relative_path_is_refused_and_an_egress_parent_needs_a_port() {
    admissions(
        |path| route("r", path),
        &[
            ("{type: Exact, value: /a}", true, true, SAME),
            ("{type: RegularExpression, value: '.*'}", true, true, SAME),
            ("{type: Exact, value: relative}", false, false, SAME),
            ("{type: PathPrefix, value: relative}", false, false, SAME),
            ("{value: relative}", false, false, SAME),
            ("{value: ''}", false, false, SAME),
        ],
    );
    let parent = |kind: &str| route("r", "{value: /}").replace("kind: Server, name: cart", kind);
    admissions(
        parent,
        &[
            ("kind: EgressNetwork, name: all", false, false, SAME),
            (
                "kind: EgressNetwork, name: all, port: 443",
                true,
                true,
                SAME,
            ),
        ],
    );
}
