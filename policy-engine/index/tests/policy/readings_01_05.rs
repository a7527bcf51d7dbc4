//! Settled readings 1 to 5: defaults, empty references, paths, refusals, statuses.

use crate::linkerd_model::Says::{Allow, Closed, Forbidden, NotFound};
use crate::side_by_side::Scene;
use crate::why::{
    BAD_DEFAULT, BAD_PORT_LIST, CANONICAL_PATH, DEFAULT_DENY, EMPTY_REFS, REFUSED_HEAD, SAME,
};
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, annotated_namespace, annotated_pod, join,
    policy, route, server_authorization,
};
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy_index::Mode;

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn web() -> Ask {
    Ask::meshed("shop/web")
}

const LINKERDS: &str = "config.linkerd.io/default-inbound-policy";
const OURS: &str = "mesh.internal/default-inbound-policy";

#[test]
fn reading_01_the_cluster_default_is_deny_unless_an_installation_wants_another() {
    Scene::untold(&[SHOP]).answers(&[(web(), Allow, DENIED, DEFAULT_DENY)]);
    for mode in Mode::ALL {
        let world = World::default_policy(mode, &[SHOP]);
        assert_eq!(
            world.answer(&web()) == "allow",
            mode != Mode::Deny,
            "{mode}"
        );
        assert_eq!(
            world.snapshot("shop", "cart").other_ports.server.mode,
            mode.as_str()
        );
    }
}

#[test]
fn reading_01_an_invalid_default_means_deny_for_that_workload_alone() {
    for name in [LINKERDS, OURS] {
        let pod = annotated_pod(&format!("{name}: allow"));
        let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
        assert_eq!(world.answer(&Ask::plain()), DENIED);
        assert_eq!(world.errors(), ["MESH-0362"], "and it is a finding");
        assert_eq!(
            world.answer(&Ask::plain().pod("web")),
            "allow",
            "the other pod has the cluster's default"
        );
    }
    let pod = annotated_pod(&format!("{LINKERDS}: allow"));
    let rows = [(Ask::plain(), Allow, DENIED, BAD_DEFAULT)];
    Scene::default_policy(Mode::AllUnauthenticated, &[&pod]).answers(&rows);
}

#[test]
fn reading_01_an_invalid_default_of_a_namespace_means_deny_for_its_workloads() {
    for name in [LINKERDS, OURS] {
        let namespace = annotated_namespace(&format!("{name}: ''"));
        let world = World::default_policy(Mode::AllUnauthenticated, &[&namespace]);
        assert_eq!(world.answer(&Ask::plain().pod("web")), DENIED);
        assert_eq!(
            world.errors(),
            ["MESH-0362"],
            "reported once, on the namespace"
        );
    }
    let own = annotated_pod(&format!("{OURS}: all-unauthenticated")).replace(
        "metadata: {name: shop}",
        &format!("metadata: {{name: shop, annotations: {{{LINKERDS}: no}}}}"),
    );
    let world = World::of(&[&own]);
    assert_eq!(
        world.answer(&Ask::plain()),
        "allow",
        "a pod that says for itself does not ask its namespace"
    );
}

#[test]
fn reading_01_pod_before_namespace_before_cluster() {
    let namespace = |text: &str| {
        text.replace(
            "metadata: {name: shop}",
            &format!("metadata: {{name: shop, annotations: {{{LINKERDS}: all-unauthenticated}}}}"),
        )
    };
    Scene::of(&[&namespace(SHOP)]).answers(&[(Ask::plain(), Allow, "allow", SAME)]);
    let pod = namespace(&annotated_pod(&format!("{LINKERDS}: all-authenticated")));
    Scene::of(&[&pod]).answers(&[
        (Ask::plain(), Forbidden, DENIED, SAME),
        (web(), Allow, "allow", SAME),
    ]);
    // The level comes before the name: Linkerd's name on the pod before ours on the namespace.
    let mixed = annotated_pod(&format!("{LINKERDS}: deny")).replace(
        "metadata: {name: shop}",
        &format!("metadata: {{name: shop, annotations: {{{OURS}: all-unauthenticated}}}}"),
    );
    assert_eq!(World::of(&[&mixed]).answer(&Ask::plain()), DENIED);
}

const DEPLOYED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: pay, namespace: shop, annotations: {config.linkerd.io/default-inbound-policy: audit}}
spec: {template: {metadata: {labels: {app: pay}, annotations: {config.linkerd.io/default-inbound-policy: all-unauthenticated}}, spec: {serviceAccountName: pay, containers: [{ports: [{containerPort: 8080}]}]}}}
";

#[test]
fn reading_01_a_template_speaks_for_its_pods_until_there_are_some() {
    let world = World::of(&[DEPLOYED]);
    let ask = || Ask::plain().pod("pay");
    assert_eq!(
        world.reasons(&ask()),
        ["default/all-unauthenticated"],
        "the template, not the Deployment itself"
    );
    assert_eq!(
        world.snapshot("shop", "pay").workload.owner.as_deref(),
        Some("Deployment/pay")
    );
    let silent = DEPLOYED.replace(
        ", annotations: {config.linkerd.io/default-inbound-policy: all-unauthenticated}",
        "",
    );
    let namespace = annotated_namespace(&format!("{OURS}: cluster-unauthenticated"));
    assert_eq!(
        World::of(&[&silent]).answer(&ask()),
        DENIED,
        "then the cluster"
    );
    assert_eq!(
        World::of(&[&namespace, &silent]).reasons(&ask()),
        ["default/cluster-unauthenticated"],
        "the namespace before it"
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: pay-7d9-x, namespace: shop, labels: {app: pay, pod-template-hash: 7d9}, ownerReferences: [{kind: ReplicaSet, name: pay-7d9}]}\nspec: {containers: []}\n";
    let world = World::of(&[DEPLOYED, pod]);
    let names: Vec<&str> = world
        .index
        .workloads()
        .map(|(key, _)| key.name.as_str())
        .collect();
    assert_eq!(names, ["pay-7d9-x"]);
    // Kubernetes copies a template's annotations when it makes a pod: what the pod carries is what was rolled out.
    assert_eq!(
        world.answer(&ask()),
        DENIED,
        "the pod has no annotation, and is what `pay` means now"
    );
}

#[test]
fn reading_01_of_two_names_ours_counts_and_a_difference_is_reported() {
    for (ours, linkerds, want, code) in [
        ("all-unauthenticated", "deny", "allow", Some("MESH-0391")),
        ("deny", "all-unauthenticated", DENIED, Some("MESH-0391")),
        ("all-unauthenticated", "all-unauthenticated", "allow", None),
        ("all-unauthenticated", "bogus", DENIED, Some("MESH-0362")),
        ("bogus", "all-unauthenticated", DENIED, Some("MESH-0362")),
    ] {
        let both = format!("{OURS}: {ours}, {LINKERDS}: {linkerds}");
        for manifests in [annotated_pod(&both), annotated_namespace(&both)] {
            let world = World::of(&[&manifests]);
            assert_eq!(world.answer(&Ask::plain()), want, "{both}");
            let found = code.is_none_or(|code| world.findings(code).len() == 1);
            assert!(found, "{both}: {:?}", world.index.findings());
            assert_eq!(world.index.findings().is_empty(), code.is_none(), "{both}");
        }
    }
}

const REQUIRED: &str = "config.linkerd.io/proxy-require-identity-inbound-ports";
const REQUIRED_OURS: &str = "mesh.internal/require-identity-inbound-ports";

#[test]
fn reading_01_an_unparsable_list_of_ports_that_require_identity_means_every_port() {
    for list in [
        "8080;9090",
        "8080,ninety",
        "0",
        "65536",
        "9-8",
        "-1",
        "8080-",
        "1-2-3",
        "ghost",
        "80 81",
    ] {
        let pod = annotated_pod(&format!("{REQUIRED}: '{list}'"));
        let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
        for port in [8080, 9090, 12345] {
            assert_eq!(
                world.answer(&Ask::plain().port(port)),
                DENIED,
                "{list} {port}"
            );
            assert_eq!(
                world.reasons(&web().port(port)),
                ["default/all-authenticated"],
                "{list} {port}"
            );
        }
        assert_eq!(world.errors(), ["MESH-0363"], "{list}");
    }
    let pod = annotated_pod(&format!("{REQUIRED}: '8080;9090'"));
    let rows = [(Ask::plain().port(12345), Allow, DENIED, BAD_PORT_LIST)];
    Scene::default_policy(Mode::AllUnauthenticated, &[&pod]).answers(&rows);
}

#[test]
fn reading_01_lists_have_ports_ranges_and_names_of_ports() {
    for (list, required) in [
        ("8080", vec![8080]),
        ("8080-8082, 9000", vec![8080, 8081, 8082, 9000]),
        ("http", vec![8080]),
        ("http,admin,", vec![8080, 9090]),
        ("", vec![]),
    ] {
        let pod = annotated_pod(&format!("{REQUIRED}: '{list}'"));
        let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
        for port in [8079, 8080, 8081, 8082, 8083, 9000, 9090] {
            let want = if required.contains(&port) {
                DENIED
            } else {
                "allow"
            };
            assert_eq!(
                world.answer(&Ask::plain().port(port)),
                want,
                "`{list}` {port}"
            );
        }
        assert_eq!(world.errors(), Vec::<&str>::new(), "`{list}`");
    }
}

#[test]
fn reading_01_of_two_lists_ours_counts_and_an_unreadable_one_closes_either_way() {
    for (ours, linkerds, plain, code) in [
        ("8080", "9090", [DENIED, "allow"], Some("MESH-0391")),
        ("8080,9090", "9090, 8080", [DENIED, DENIED], None),
        ("8080", "8080", [DENIED, "allow"], None),
        ("8080", "ninety", [DENIED, DENIED], Some("MESH-0363")),
        ("eighty", "8080", [DENIED, DENIED], Some("MESH-0363")),
    ] {
        let pod = annotated_pod(&format!(
            "{REQUIRED_OURS}: '{ours}', {REQUIRED}: '{linkerds}'"
        ));
        let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
        let got = [8080, 9090].map(|port| world.answer(&Ask::plain().port(port)));
        assert_eq!(got, plain, "{ours} {linkerds}");
        assert_eq!(
            world.index.findings().is_empty(),
            code.is_none(),
            "{ours} {linkerds}"
        );
        assert!(
            code.is_none_or(|code| !world.findings(code).is_empty()),
            "{ours} {linkerds}"
        );
    }
}

#[test]
fn reading_01_a_wide_list_costs_no_snapshot_of_its_size() {
    let pod = annotated_pod(&format!("{REQUIRED}: '1-65535'"));
    let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
    assert!(world.snapshot("shop", "cart").ports.len() < 10);
    assert_eq!(world.answer(&Ask::plain().port(4444)), DENIED);
}

const MEANT: &str =
    "namespace: shop, annotations: {mesh.internal/allow-unauthenticated: 'public page'}}";

#[test]
fn reading_02_empty_references_grant_only_with_a_reason_on_that_policy() {
    let open = policy("p", "Server cart", &[]);
    let meant = open.replace("namespace: shop}", MEANT);
    Scene::of(&[SHOP, SERVER, &open]).answers(&[(Ask::plain(), Allow, DENIED, EMPTY_REFS)]);
    Scene::of(&[SHOP, SERVER, &meant]).answers(&[(Ask::plain(), Allow, "allow", SAME)]);
    for reason in ["''", "' '", "true", "[a]"] {
        let blank = meant.replace("'public page'", reason);
        let world = World::of(&[SHOP, SERVER, &blank]);
        assert_eq!(world.answer(&Ask::plain()), DENIED, "{reason} is no reason");
        assert!(!world.errors().is_empty(), "{reason}");
    }
    let other = policy("q", "Server cart", &["NetworkAuthentication near"])
        .replace("namespace: shop}", MEANT);
    let world = World::of(&[SHOP, SERVER, NETWORK, &open, &other]);
    assert_eq!(
        world.answer(&Ask::plain().ip("10.9.9.9")),
        DENIED,
        "another policy's reason is none"
    );
    let server = SERVER.replace("namespace: shop}", MEANT);
    assert_eq!(
        World::of(&[SHOP, &server, &open]).answer(&Ask::plain()),
        DENIED,
        "nor is the Server's"
    );
}

#[test]
fn reading_02_what_grants_nothing_is_an_error_and_what_is_meant_a_warning() {
    let open = policy("p", "Server cart", &[]);
    let world = World::of(&[SHOP, SERVER, &open]);
    assert_eq!(world.errors(), ["MESH-0366"]);
    let world = World::of(&[SHOP, SERVER, &open.replace("namespace: shop}", MEANT)]);
    assert_eq!(world.errors(), Vec::<&str>::new());
    let told = world.findings("MESH-0367");
    assert!(
        told.first().unwrap().message.contains("public page"),
        "with the reason: {told:?}"
    );
}

#[test]
fn reading_02_the_reason_opens_nothing_that_requires_authentication() {
    let closed = meshed_policy().replace("namespace: shop}", MEANT);
    let world = World::of(&[SHOP, SERVER, MESHED, &closed]);
    assert_eq!(
        (
            world.answer(&web()).as_str(),
            world.answer(&Ask::plain()).as_str()
        ),
        ("allow", DENIED)
    );
    let dangling = World::of(&[SHOP, SERVER, &closed]);
    assert_eq!(
        dangling.answer(&Ask::plain()),
        DENIED,
        "a lost reference is no empty list"
    );
}

/// A Server whose routes `/a` (granted) and `/b` (not) show which path was judged.
fn routed(server: &str) -> Scene {
    let (a, b) = (route("a", "{value: /a}"), route("b", "{value: /b}"));
    let on_a = policy("p", "HTTPRoute a", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, server, MESHED, &a, &b, &on_a])
}

#[test]
fn reading_03_one_canonical_form_is_matched_and_recorded() {
    let scene = routed(SERVER);
    scene.answers(&[
        (web().path("/%61"), NotFound, "allow", CANONICAL_PATH),
        (web().path("//a//x"), NotFound, "allow", CANONICAL_PATH),
        (web().path("/b/../a"), Forbidden, "allow", CANONICAL_PATH),
        (web().path("/a/./../b"), Allow, DENIED, CANONICAL_PATH),
        (web().path("/a/x?q=/../b"), Allow, "allow", SAME),
    ]);
    for (raw, canonical) in [
        ("/a/%7e%2D", "/a/~-"),
        ("/a/%c3%a9%3f", "/a/%C3%A9%3F"),
        ("/a///x//", "/a/x/"),
        ("/a/b/../c/.", "/a/c/"),
        ("/a/%2525", "/a/%2525"),
    ] {
        let request = scene.world.decide(&web().path(raw)).request.unwrap();
        assert_eq!(
            (request.path.as_deref(), request.raw_path.as_str()),
            (Some(canonical), raw)
        );
    }
}

#[test]
fn reading_03_ambiguous_paths_are_refused_with_400() {
    let everyone = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    for path in [
        "/..",
        "/a/../../b",
        "/%2e%2e/a", // above the root
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a%00b",
        "/a\\b", // separators and NUL, hidden or not
        "/a%",
        "/a%4",
        "/a%zz", // bad escapes
        "/a#b",
        "/a b",
        "/a\tb",
        "/a\u{7f}b",
        "/a\u{e9}b", // bytes that no path carries
        "/a%0Ab",
        "/a%1fb",
        "/a%7Fb",
        "/a%C2%85", // escapes of control characters
        "/a%C3",
        "/a%C0%AF",
        "/a%ED%A0%80",
        "/a%FF", // escapes of invalid UTF-8
        "/a;b",
        "/a;",
        "/..;/b", // parameters
        "a",
        "",
        "http://cart/a",
        "*", // no leading slash
    ] {
        assert_eq!(
            everyone.answer(&Ask::plain().path(path)),
            "request 400",
            "`{path}`"
        );
    }
    routed(SERVER).answers(&[
        (web().path("/a/..;/b"), Allow, "request 400", REFUSED_HEAD),
        (web().path("/a/%00"), Allow, "request 400", REFUSED_HEAD),
    ]);
}

#[test]
fn reading_03_an_asterisk_is_for_options_alone() {
    let everyone = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    for (method, want) in [
        ("OPTIONS", "allow"),
        ("GET", "request 400"),
        ("options", "request 400"),
    ] {
        assert_eq!(
            everyone.answer(&Ask::plain().method(method).path("*")),
            want,
            "{method}"
        );
    }
    let scene = routed(SERVER);
    assert_eq!(
        scene.world.answer(&web().method("OPTIONS").path("*")),
        "route 404",
        "no route has it"
    );
}

#[test]
fn reading_03_a_server_may_opt_out_and_then_the_bytes_are_matched_as_they_are() {
    let with = |annotation: &str| {
        SERVER.replace(
            "name: cart, namespace",
            &format!("annotations: {{{annotation}}}, name: cart, namespace"),
        )
    };
    let escapes = with("mesh.internal/path-escapes: keep");
    let parameters = with("mesh.internal/path-parameters: keep");
    for (server, path, want, recorded) in [
        (&escapes, "/a/x%2fy", "allow", Some("/a/x%2fy")),
        (&escapes, "/a%2f..%2fb", "route 404", Some("/a%2f..%2fb")),
        (&escapes, "/a/%5C", "allow", Some("/a/%5C")),
        (&escapes, "/a/%00", "request 400", None),
        (&escapes, "/a/\\", "request 400", None),
        (&escapes, "/a/x;y", "request 400", None),
        (&parameters, "/a/x;y=z", "allow", Some("/a/x;y=z")),
        (&parameters, "/a;x", "route 404", Some("/a;x")),
        (&parameters, "/a/x%2fy", "request 400", None),
    ] {
        let scene = routed(server);
        assert_eq!(scene.world.answer(&web().path(path)), want, "{path}");
        let request = scene.world.decide(&web().path(path)).request.unwrap();
        assert_eq!(request.path.as_deref(), recorded, "{path}");
    }
    for wrong in [
        "mesh.internal/path-escapes: 'true'",
        "mesh.internal/path-parameters: Keep",
        "mesh.internal/path-escapes: ''",
    ] {
        let world = World::of(&[SHOP, &with(wrong), MESHED, &meshed_policy()]);
        assert_eq!(
            world.answer(&web()),
            "server 403",
            "{wrong}: an unknown opt-out makes the Server invalid"
        );
    }
}

#[test]
fn reading_03_the_query_is_no_part_of_a_path_match() {
    routed(SERVER).answers(&[
        (web().path("/a?/b"), Allow, "allow", SAME),
        (web().path("/b?/a"), Forbidden, DENIED, SAME),
        (web().path("/c?x=/a"), NotFound, "route 404", SAME),
        // `%3F` is a letter of the path.
        (web().path("/a%3Fx"), NotFound, "route 404", SAME),
    ]);
    let exact = route("e", "{type: Exact, value: /e}");
    let on_e = policy("p", "HTTPRoute e", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &exact, &on_e]).answers(&[
        (web().path("/e?x=1"), Allow, "allow", SAME),
        (web().path("/e?"), Allow, "allow", SAME),
    ]);
}

#[test]
fn reading_04_a_refused_request_is_denied_with_400_in_phase_request_without_reasons() {
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    for ask in [
        Ask::plain().path("/a%2Fb"),
        Ask::plain().host("a, b"),
        Ask::plain().host(""),
        Ask::plain().method("GE T"),
        Ask::plain().method(""),
    ] {
        let record = world.decide(&ask);
        assert_eq!(
            (record.verdict, record.status, record.phase),
            (Verdict::Deny, Some(400), Phase::Request)
        );
        assert_eq!(
            (record.reasons, record.audit),
            (Vec::new(), false),
            "{}",
            ask.describe()
        );
    }
}

#[test]
fn reading_04_each_phase_has_its_denials() {
    let (a, bad) = (
        route("a", "{value: /a}"),
        route("bad", "{value: /bad}, novelty: 1"),
    );
    let server = SERVER.replace("HTTP/1", "unknown");
    let world = World::of(&[SHOP, &server, MESHED, &a, &bad]);
    for (ask, phase, status) in [
        (Ask::identity("no identity"), Phase::Transport, None),
        (Ask::plain().pod("ghost"), Phase::Server, Some(403)),
        (web().tcp(), Phase::Server, None),
        (web().path("/%2F"), Phase::Request, Some(400)),
        (web().path("/c"), Phase::Route, Some(404)),
        (web().path("/bad"), Phase::Route, Some(403)),
        (web().path("/a"), Phase::Permit, Some(403)),
    ] {
        let record = world.decide(&ask);
        assert_eq!(
            (record.phase, record.status),
            (phase, status),
            "{}",
            ask.describe()
        );
        assert_eq!(record.verdict, Verdict::Deny);
    }
    let names: Vec<String> = [
        Phase::Transport,
        Phase::Server,
        Phase::Request,
        Phase::Route,
        Phase::Forbid,
        Phase::Permit,
        Phase::RateLimit,
    ]
    .iter()
    .map(|p| {
        serde_json::to_value(p)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    })
    .collect();
    assert_eq!(
        names,
        [
            "transport",
            "server",
            "request",
            "route",
            "forbid",
            "permit",
            "rate-limit"
        ]
    );
}

#[test]
fn reading_05_status_is_the_http_one_with_grpcs_beside_it() {
    let server = SERVER.replace("HTTP/1", "gRPC");
    let grpc = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, namespace: shop}\nspec:\n  parentRefs: [{group: policy.linkerd.io, kind: Server, name: cart}]\n  rules: [{matches: [{method: {service: shop.Cart}}]}]\n";
    let on_g = policy("p", "GRPCRoute g", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, &server, MESHED, grpc, &on_g]);
    for (ask, status, grpc_status) in [
        (web().grpc("/shop.Cart/Add"), Some(200), None),
        (Ask::plain().grpc("/shop.Cart/Add"), Some(403), Some(7)),
        (web().grpc("/shop.Other/Add"), Some(404), Some(5)),
        (web().grpc("/shop.Cart/A%2Fdd"), Some(400), Some(3)),
        (
            Ask::identity("no identity").grpc("/shop.Cart/Add"),
            None,
            None,
        ),
        (web().tcp(), None, None),
        (
            Ask::plain().path("/shop.Cart/Add").method("POST"),
            Some(403),
            None,
        ),
    ] {
        let record = world.decide(&ask);
        assert_eq!(
            (record.status, record.grpc_status),
            (status, grpc_status),
            "{}",
            ask.describe()
        );
    }
}

#[test]
fn reading_05_bytes_have_no_status_allowed_or_not() {
    let server = SERVER.replace("HTTP/1", "opaque");
    let scene = Scene::of(&[SHOP, &server, MESHED, &meshed_policy()]);
    scene.answers(&[
        (web().tcp(), Allow, "allow", SAME),
        (Ask::plain().tcp(), Closed, "permit -", SAME),
        (Ask::plain(), Closed, "permit -", SAME),
    ]);
    assert_eq!(scene.world.decide(&web().tcp()).status, None);
}

#[test]
fn reading_05_an_invalid_server_answers_403_and_7() {
    let invalid = SERVER.replace("HTTP/1", "HTTP");
    let world = World::of(&[SHOP, &invalid]);
    let record = world.decide(&web().grpc("/a.B/C"));
    assert_eq!(
        (record.status, record.grpc_status, record.phase),
        (Some(403), Some(7), Phase::Server)
    );
    let granted = join(&[
        SHOP,
        SERVER,
        &server_authorization("{name: cart}", "{unauthenticated: true}"),
    ]);
    assert_eq!(World::of(&[&granted]).decide(&web()).status, Some(200));
}
