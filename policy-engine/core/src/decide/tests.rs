//! Decisions: what has no number among the settled readings, and what all tests here share.
//!
//! - `readings_01_08`, `readings_09_16`: each settled reading that this crate decides, by number
//! - `probes`: reading 12
//! - `heads`: what is remembered of a connection's requests
//! - `settled`: what is asked anew for each request of a connection

use super::*;
use crate::fixtures::*;
use crate::snapshot::*;

mod heads;
mod probes;
mod readings_01_08;
mod readings_09_16;
mod settled;

const EVERYONE: &str = "AuthorizationPolicy/shop/open/0";
const WEB: &str = "AuthorizationPolicy/shop/web/0";

fn open() -> World {
    World::http().grant(grant(EVERYONE, on_server("http"), Who::Anyone))
}

fn raw(protocol: ServerProtocol) -> World {
    World::new(protocol).web_may("web", on_server("http"))
}

#[test]
fn silence_is_no() {
    assert_eq!(
        short(&World::http().get(&meshed("web"), "/")),
        "deny permit 403 []"
    );
    assert_eq!(
        short(&raw(ServerProtocol::Opaque).tcp(&meshed("api"))),
        "deny permit - []"
    );
}

#[test]
fn an_identity_without_tls_is_believed_by_nobody() {
    let liar = Client {
        tls: false,
        ..meshed("web")
    };
    assert_eq!(short(&open().get(&liar, "/")), "deny transport - []");
    assert_eq!(short(&open().tcp(&liar)), "deny transport - []");
}

#[test]
fn route_grants_add_to_server_grants_and_open_nothing_else() {
    let world = World::http()
        .route(route("a", "/a"))
        .route(route("b", "/b"))
        .web_may("web", on_route("a"));
    assert_eq!(
        short(&world.get(&meshed("web"), "/a")),
        format!("allow permit 200 [{WEB}]")
    );
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.9"), "/a")),
        "deny permit 403 []"
    );
    assert_eq!(
        short(&world.get(&meshed("web"), "/b")),
        "deny permit 403 []"
    );
    assert_eq!(short(&world.get(&meshed("web"), "/c")), "deny route 404 []");
    let world = world.web_may("server", on_server("http"));
    assert_eq!(
        short(&world.get(&meshed("web"), "/b")),
        "allow permit 200 [AuthorizationPolicy/shop/server/0]"
    );
    assert_eq!(world.get(&meshed("web"), "/a").reasons().len(), 2);
}

#[test]
fn identity_and_network_of_one_grant_must_both_hold() {
    let both = Grant {
        networks: Some("nets".into()),
        ..grant(WEB, on_server("http"), Who::Identities("ids".into()))
    };
    let world = World::http()
        .identities("ids", vec![IdentityPattern::Exact(account("web"))])
        .networks("nets", &[("10.0.0.9/32", &[])])
        .grant(both);
    assert_eq!(world.get(&meshed("web"), "/").verdict, Verdict::Allow);
    for client in [
        meshed("api"),
        plaintext("10.0.0.9"),
        caller(&account("web"), "10.0.0.8"),
        anonymous_tls(),
    ] {
        assert_eq!(
            short(&world.get(&client, "/")),
            "deny permit 403 []",
            "{client:?}"
        );
    }
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies() {
    let forbid = Grant {
        effect: Effect::Forbid,
        ..grant(
            "CedarPolicy/shop/x/0",
            on_server("http"),
            Who::Identities("gone".into()),
        )
    };
    let world = open()
        .probe(ProbeKind::Http("/healthz".into()))
        .grant(forbid);
    let denied = world.get(&meshed("web"), "/");
    assert_eq!(short(&denied), "deny forbid 403 []");
    assert!(matches!(denied.cause, Cause::Undecidable(_)));
    assert_eq!(
        short(&world.get(&meshed("web"), "/healthz")),
        "deny forbid 403 []"
    );
}

#[test]
fn only_an_allowed_decision_yields_a_permit() {
    let permit = open().get(&meshed("web"), "/").permit().expect("allowed");
    assert_eq!(permit.generation, Generation(7));
    let denial = World::http()
        .get(&meshed("web"), "/")
        .permit()
        .expect_err("denied");
    assert_eq!(
        (denial.status, denial.into_decision().verdict),
        (Some(403), Verdict::Deny)
    );
}

#[test]
fn records_say_what_was_decided() {
    let world = World::http()
        .route(route("all", "/"))
        .web_may("web", on_server("http"));
    let headers = std::collections::BTreeMap::new();
    let call = Call::Http(Head {
        method: "GET",
        target: "/a//b?q",
        host: Some("Cart.:8080"),
        grpc: false,
        headers: &headers,
    });
    let decision = decide(&world.compile(), PORT, &meshed("web"), &call, NOW);
    let record = serde_json::to_value(decision.record(None, &meshed("web"), &call)).unwrap();
    let want = serde_json::json!({
        "time": null, "generation": 7,
        "client": {"spiffe_id": "spiffe://cluster.local/ns/shop/sa/web", "ip": "10.0.0.9", "tls": true, "serial": null, "expires": null},
        "server": {"namespace": "shop", "name": "http", "workload": "cart-0", "port": 8080, "default": false},
        "route": {"kind": "HTTPRoute", "namespace": "shop", "name": "all", "rule": 0},
        "request": {"method": "GET", "path": "/a/b", "raw_path": "/a//b?q", "host": "cart:8080"},
        "verdict": "allow", "status": 200, "grpc_status": null, "phase": "permit",
        "reasons": ["AuthorizationPolicy/shop/web/0"], "audit": false, "near_misses": [], "shadow": null,
    });
    assert_eq!(record, want);
}

#[test]
fn a_proxy_without_policy_denies_everything() {
    let snapshot = Snapshot::deny_all(World::http().0.workload, domain("cluster.local")).unwrap();
    let headers = std::collections::BTreeMap::new();
    let http = Call::Http(Head {
        method: "GET",
        target: "/",
        host: None,
        grpc: false,
        headers: &headers,
    });
    for client in [meshed("web"), plaintext("127.0.0.1")] {
        assert_eq!(
            short(&decide(&snapshot, 80, &client, &http, NOW)),
            "deny server 403 []"
        );
        assert_eq!(
            short(&decide(&snapshot, 80, &client, &Call::Tcp, NOW)),
            "deny server - []"
        );
    }
}
