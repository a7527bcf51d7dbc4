//! Linkerd's own suite, cases 13 to 17: what a workload's annotations and labels do, and what deletions undo.

use crate::linkerd_model::Says::{Allow, Closed, Forbidden};
use crate::side_by_side::Scene;
use crate::why::{BAD_DEFAULT, BAD_PORT_LIST, SAME};
use crate::world::{Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, annotated_pod, policy};
use mesh_policy::snapshot::ServerProtocol;
use mesh_policy_index::Mode;

#[test]
fn case_13_an_annotation_sets_each_of_the_six_modes() {
    for mode in Mode::ALL {
        let pod = annotated_pod(&format!("config.linkerd.io/default-inbound-policy: {mode}"));
        let scene = Scene::of(&[&pod]);
        let yes = (Allow, "allow");
        let no = (Forbidden, DENIED);
        let [meshed, plain, far] = match mode {
            Mode::Deny => [no, no, no],
            Mode::AllAuthenticated => [yes, no, yes],
            Mode::AllUnauthenticated | Mode::Audit => [yes, yes, yes],
            Mode::ClusterAuthenticated => [yes, no, no],
            Mode::ClusterUnauthenticated => [yes, yes, no],
        };
        scene.answers(&[
            (Ask::meshed("shop/web"), meshed.0, meshed.1, SAME),
            (Ask::plain(), plain.0, plain.1, SAME),
            (
                Ask::meshed("shop/web").ip("203.0.113.9"),
                far.0,
                far.1,
                SAME,
            ),
        ]);
        if mode != Mode::Deny {
            assert_eq!(
                scene.world.reasons(&Ask::meshed("shop/web")),
                [format!("default/{mode}")]
            );
        }
        let record = scene.world.decide(&Ask::meshed("shop/web"));
        assert_eq!(record.audit, mode == Mode::Audit, "{mode}");
    }
}

#[test]
fn case_13_a_bogus_mode_is_deny_and_not_the_default_of_the_cluster() {
    for bogus in ["allow", "", "Deny", "all-authenticated "] {
        let pod = annotated_pod(&format!(
            "config.linkerd.io/default-inbound-policy: '{bogus}'"
        ));
        let scene = Scene::default_policy(Mode::AllUnauthenticated, &[&pod]);
        scene.answers(&[(Ask::plain(), Allow, DENIED, BAD_DEFAULT)]);
        assert_eq!(scene.world.errors(), ["MESH-0362"], "{bogus}");
    }
}

#[test]
fn case_14_requiring_identity_upgrades_the_allowing_modes_only() {
    let required =
        annotated_pod("config.linkerd.io/proxy-require-identity-inbound-ports: '8080,7000-7001'");
    for (mode, upgraded) in [
        (Mode::AllUnauthenticated, "all-authenticated"),
        (Mode::ClusterUnauthenticated, "cluster-authenticated"),
        (Mode::AllAuthenticated, "all-authenticated"),
        (Mode::ClusterAuthenticated, "cluster-authenticated"),
        (Mode::Deny, "deny"),
        (Mode::Audit, "audit"),
    ] {
        let scene = Scene::default_policy(mode, &[&required]);
        let (listed, other) = match mode {
            Mode::Audit => ((Allow, "allow"), (Allow, "allow")),
            Mode::AllUnauthenticated | Mode::ClusterUnauthenticated => {
                ((Forbidden, DENIED), (Allow, "allow"))
            }
            _ => ((Forbidden, DENIED), (Forbidden, DENIED)),
        };
        scene.answers(&[
            (Ask::plain(), listed.0, listed.1, SAME),
            (Ask::plain().port(7001), listed.0, listed.1, SAME),
            (Ask::plain().port(9090), other.0, other.1, SAME),
            (Ask::plain().port(7002), other.0, other.1, SAME),
        ]);
        let snapshot = scene.world.snapshot("shop", "cart");
        let shown = |port: u16| snapshot.ports.get(&port).map(|p| p.server.mode.as_str());
        assert_eq!([shown(8080), shown(7001)], [Some(upgraded); 2], "{mode}");
        assert_eq!(
            [shown(9090), shown(7002)],
            [Some(mode.as_str()), None],
            "{mode}"
        );
        assert_eq!(snapshot.other_ports.server.mode, mode.as_str());
    }
}

#[test]
fn case_14_an_unreadable_list_requires_identity_everywhere() {
    let pod = annotated_pod("config.linkerd.io/proxy-require-identity-inbound-ports: '8080;9090'");
    let scene = Scene::default_policy(Mode::AllUnauthenticated, &[&pod]);
    scene.answers(&[
        (Ask::plain(), Allow, DENIED, BAD_PORT_LIST),
        (Ask::plain().port(4444), Allow, DENIED, BAD_PORT_LIST),
        (Ask::meshed("shop/web"), Allow, "allow", SAME),
    ]);
}

#[test]
fn case_15_opaque_ports_carry_bytes_judged_by_the_default_policy() {
    let pod = annotated_pod("config.linkerd.io/opaque-ports: '9090,4000-4001'");
    let scene = Scene::default_policy(Mode::AllAuthenticated, &[&pod]);
    scene.answers(&[
        (
            Ask::meshed("shop/web").port(9090).tcp(),
            Allow,
            "allow",
            SAME,
        ),
        (Ask::plain().port(9090).tcp(), Closed, "permit -", SAME),
        // What looks like a request is bytes there, and its refusal is no HTTP answer.
        (Ask::plain().port(4001), Closed, "permit -", SAME),
        (Ask::plain().port(4002), Forbidden, DENIED, SAME),
    ]);
    let snapshot = scene.world.snapshot("shop", "cart");
    for (port, want) in [
        (8080, ServerProtocol::Unknown),
        (9090, ServerProtocol::Opaque),
        (4000, ServerProtocol::Opaque),
        (4001, ServerProtocol::Opaque),
    ] {
        assert_eq!(
            snapshot.ports.get(&port).unwrap().server.protocol,
            want,
            "{port}"
        );
    }
    // A Server's protocol comes before the annotation.
    let server = SERVER.replace("port: http", "port: 9090");
    let world = World::of(&[&pod, &server]);
    let protocol = world
        .snapshot("shop", "cart")
        .ports
        .get(&9090)
        .unwrap()
        .server
        .protocol;
    assert_eq!(protocol, ServerProtocol::Http1);
}

#[test]
fn case_16_a_pod_that_leaves_the_selector_falls_to_the_default_policy() {
    let other = SHOP.replace("labels: {app: cart}", "labels: {app: basket}");
    let scene = Scene::default_policy(Mode::AllUnauthenticated, &[SHOP, SERVER]);
    scene.answers(&[(Ask::plain(), Forbidden, DENIED, SAME)]);
    let scene = scene.becomes(&[&other, SERVER]);
    scene.answers(&[(Ask::plain(), Allow, "allow", SAME)]);
    assert_eq!(
        scene.world.reasons(&Ask::plain()),
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
    for (kind, name, rest) in [
        (
            "MeshTLSAuthentication",
            "meshed",
            [SHOP, SERVER, NETWORK, &both],
        ),
        (
            "NetworkAuthentication",
            "near",
            [SHOP, SERVER, MESHED, &both],
        ),
    ] {
        let scene = Scene::of(&[SHOP, SERVER, MESHED, NETWORK, &both]);
        scene.answers(&[(Ask::meshed("shop/web"), Allow, "allow", SAME)]);
        let scene = scene.without(kind, name, &rest);
        scene.answers(&[(Ask::meshed("shop/web"), Forbidden, DENIED, SAME)]);
        assert_eq!(scene.world.errors(), ["MESH-0364"], "{kind}");
    }
}

#[test]
fn case_17_a_reset_that_leaves_objects_out_takes_their_grants_away() {
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let scene = Scene::of(&[SHOP, SERVER, MESHED, &on_server]);
    scene.answers(&[(Ask::meshed("shop/web"), Allow, "allow", SAME)]);
    let scene = scene.without("AuthorizationPolicy", "p", &[SHOP, SERVER, MESHED]);
    scene.answers(&[(Ask::meshed("shop/web"), Forbidden, DENIED, SAME)]);
}
