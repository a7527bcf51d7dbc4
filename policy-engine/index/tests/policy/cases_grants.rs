//! Linkerd's own suite, cases 1 to 8: who may pass a Server.

use crate::linkerd_model::Says::{Allow, Forbidden};
use crate::side_by_side::Scene;
use crate::why::{EMPTY_REFS, SAME};
use crate::world::{Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, policy};
use mesh_policy_index::Mode;

const ALL: Mode = Mode::AllUnauthenticated;

#[test]
fn case_01_a_server_alone_denies_everyone_and_audit_lets_everyone_in_on_record() {
    Scene::default_policy(ALL, &[SHOP, SERVER]).answers(&[
        (Ask::meshed("shop/web"), Forbidden, DENIED, SAME),
        (Ask::plain(), Forbidden, DENIED, SAME),
    ]);
    let audit = SERVER.replace("port: http", "port: http, accessPolicy: audit");
    let scene = Scene::default_policy(ALL, &[SHOP, &audit]);
    scene.answers(&[
        (Ask::meshed("shop/web"), Allow, "allow", SAME),
        (Ask::plain(), Allow, "allow", SAME),
    ]);
    for ask in [Ask::meshed("shop/web"), Ask::plain()] {
        let record = scene.world.decide(&ask);
        assert_eq!(record.reasons, ["default/audit"]);
        assert!(record.audit, "only the audit permit holds");
    }
}

#[test]
fn case_02_a_policy_on_a_server_with_a_wildcard_admits_the_meshed_only() {
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let scene = Scene::of(&[SHOP, SERVER, MESHED, &on_server]);
    scene.answers(&[
        (Ask::meshed("other/any"), Allow, "allow", SAME),
        (Ask::plain(), Forbidden, DENIED, SAME),
        (Ask::bare_tls(), Forbidden, DENIED, SAME),
    ]);
    assert_eq!(
        scene.world.reasons(&Ask::meshed("other/any")),
        ["AuthorizationPolicy/shop/p/0"]
    );
}

#[test]
fn case_03_a_namespace_target_covers_its_servers_and_no_port_without_server() {
    let on_namespace = policy("p", "Namespace shop", &["MeshTLSAuthentication meshed"]);
    let second = SERVER
        .replace("name: cart, namespace", "name: admin, namespace")
        .replace("port: http", "port: admin");
    Scene::of(&[SHOP, SERVER, &second, MESHED, &on_namespace]).answers(&[
        (Ask::meshed("shop/web"), Allow, "allow", SAME),
        (Ask::meshed("shop/web").port(9090), Allow, "allow", SAME),
        (Ask::plain(), Forbidden, DENIED, SAME),
        // 7070 has no Server: its default policy alone speaks.
        (Ask::meshed("shop/web").port(7070), Forbidden, DENIED, SAME),
    ]);
}

#[test]
fn case_04_a_namespace_reference_admits_the_service_accounts_of_that_namespace_only() {
    let refs = MESHED.replace(
        "identities: ['*']",
        "identityRefs: [{kind: Namespace, name: shop}]",
    );
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, &refs, &on_server]).answers(&[
        (Ask::meshed("shop/anything"), Allow, "allow", SAME),
        (Ask::meshed("shop2/web"), Forbidden, DENIED, SAME),
        (
            Ask::identity("spiffe://other.example/ns/shop/sa/web"),
            Forbidden,
            DENIED,
            SAME,
        ),
        (
            Ask::identity("spiffe://cluster.local/ns/shop"),
            Forbidden,
            DENIED,
            SAME,
        ),
        (Ask::plain(), Forbidden, DENIED, SAME),
    ]);
}

#[test]
fn case_05_a_network_alone_admits_that_address_even_unmeshed() {
    let on_server = policy("p", "Server cart", &["NetworkAuthentication near"]);
    Scene::of(&[SHOP, SERVER, NETWORK, &on_server]).answers(&[
        (Ask::plain(), Allow, "allow", SAME),
        (Ask::meshed("shop/web"), Allow, "allow", SAME),
        (Ask::plain().ip("10.1.2.4"), Forbidden, DENIED, SAME),
        (
            Ask::meshed("shop/web").ip("10.1.2.4"),
            Forbidden,
            DENIED,
            SAME,
        ),
    ]);
}

#[test]
fn case_06_two_authentications_of_one_policy_must_both_hold() {
    let refs = ["MeshTLSAuthentication meshed", "NetworkAuthentication near"];
    let both = policy("p", "Server cart", &refs);
    Scene::of(&[SHOP, SERVER, MESHED, NETWORK, &both]).answers(&[
        (Ask::meshed("shop/web"), Allow, "allow", SAME),
        (
            Ask::meshed("shop/web").ip("10.9.9.9"),
            Forbidden,
            DENIED,
            SAME,
        ),
        (Ask::plain(), Forbidden, DENIED, SAME),
        (Ask::plain().ip("10.9.9.9"), Forbidden, DENIED, SAME),
    ]);
}

#[test]
fn case_07_of_two_policies_either_suffices() {
    let a = policy("a", "Server cart", &["MeshTLSAuthentication meshed"]);
    let b = policy("b", "Server cart", &["NetworkAuthentication near"]);
    let scene = Scene::of(&[SHOP, SERVER, MESHED, NETWORK, &a, &b]);
    let far = || Ask::meshed("shop/web").ip("10.9.9.9");
    scene.answers(&[
        (Ask::meshed("shop/web"), Allow, "allow", SAME),
        (far(), Allow, "allow", SAME),
        (Ask::plain(), Allow, "allow", SAME),
        (Ask::plain().ip("10.9.9.9"), Forbidden, DENIED, SAME),
    ]);
    for (ask, reasons) in [
        (
            Ask::meshed("shop/web"),
            vec![
                "AuthorizationPolicy/shop/a/0",
                "AuthorizationPolicy/shop/b/0",
            ],
        ),
        (far(), vec!["AuthorizationPolicy/shop/a/0"]),
        (Ask::plain(), vec!["AuthorizationPolicy/shop/b/0"]),
    ] {
        assert_eq!(scene.world.reasons(&ask), reasons, "{}", ask.describe());
    }
}

#[test]
fn case_08_empty_references_admit_everyone_only_with_a_stated_reason() {
    let open = policy("p", "Server cart", &[]);
    let silent = Scene::of(&[SHOP, SERVER, &open]);
    silent.answers(&[
        (Ask::meshed("shop/web"), Allow, DENIED, EMPTY_REFS),
        (Ask::plain(), Allow, DENIED, EMPTY_REFS),
        (Ask::plain().ip("203.0.113.9"), Allow, DENIED, EMPTY_REFS),
    ]);
    assert_eq!(silent.world.errors(), ["MESH-0366"]);
    let meant = open.replace(
        "namespace: shop}",
        "namespace: shop, annotations: {mesh.internal/allow-unauthenticated: public page}}",
    );
    let scene = Scene::of(&[SHOP, SERVER, &meant]);
    scene.answers(&[
        (Ask::plain(), Allow, "allow", SAME),
        (Ask::plain().ip("203.0.113.9"), Allow, "allow", SAME),
    ]);
    assert_eq!(
        scene.world.findings("MESH-0367").len(),
        1,
        "and it is reported"
    );
    let blank = meant.replace("public page", "''");
    assert_eq!(
        World::of(&[SHOP, SERVER, &blank]).answer(&Ask::plain()),
        DENIED,
        "an empty reason is none"
    );
}
