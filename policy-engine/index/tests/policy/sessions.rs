//! `sessionPersistence` of routes on Services.

use crate::service_routes::{FRONT, SERVICES, codes, http, reasons, routes};
use crate::world::World;
use mesh_policy::traffic::{Session, SessionCarrier};

const BACKEND: &str = "backendRefs: [{name: v1, port: 80}]";

fn world(rule: &str) -> World {
    World::of(&[SERVICES, &http("r", FRONT, &format!("{rule}, {BACKEND}"))])
}

fn session(rule: &str) -> Session {
    let world = world(rule);
    let found = routes(&world, 80);
    let rule = found.first().and_then(|route| route.rules.first().cloned());
    rule.and_then(|rule| rule.session).expect("a session")
}

#[test]
fn sessions_are_read_as_gateway_api_writes_them() {
    let plain =
        session("matches: [{path: {value: /cart}}], sessionPersistence: {sessionName: sid}");
    let want = Session {
        name: "sid".to_owned(),
        carrier: SessionCarrier::Cookie,
        path: "/cart".to_owned(),
        lives_secs: None,
        permanent: false,
    };
    assert_eq!(plain, want);
    let lasting = session(
        "sessionPersistence: {sessionName: sid, type: Cookie, absoluteTimeout: 1h30m, cookieConfig: {lifetimeType: Permanent}}",
    );
    let want = Session {
        path: "/".to_owned(),
        lives_secs: Some(5_400),
        permanent: true,
        ..want
    };
    assert_eq!(lasting, want);
    let header = session("sessionPersistence: {sessionName: X-Session, type: Header}");
    assert_eq!(
        (&*header.name, header.carrier),
        ("X-Session", SessionCarrier::Header)
    );
    let world = world("sessionPersistence: {idleTimeout: 5m}");
    assert_eq!(codes(&world), ["MESH-0379"], "not applied, and said");
    assert_eq!(reasons(&world), ("Accepted", "ResolvedRefs"));
}

#[test]
fn a_session_without_a_name_gets_one_of_its_own_that_tells_nothing() {
    let rules = "sessionPersistence: {}, backendRefs: [{name: v1, port: 80}]}, {matches: [{path: {value: /b}}], sessionPersistence: {type: Header}, backendRefs: [{name: v1, port: 80}]";
    let world = World::of(&[SERVICES, &http("secret-name", FRONT, rules)]);
    let found = routes(&world, 80);
    let names: Vec<String> = found[0]
        .rules
        .iter()
        .map(|rule| rule.session.as_ref().unwrap().name.clone())
        .collect();
    assert!(names[0].starts_with("mesh-session-"), "{names:?}");
    assert!(names[1].starts_with("x-session-"), "{names:?}");
    assert_ne!(names[0].get(13..), names[1].get(10..));
    assert!(names.iter().all(|name| !name.contains("secret")));
}

#[test]
fn what_a_session_cannot_be_is_refused_with_its_route() {
    for (session, says) in [
        ("{type: Query}", "must be one of"),
        ("{sessionName: 'a b'}", "is no name of a cookie"),
        ("{sessionName: ''}", "is no name of a cookie"),
        (
            "{type: Header, sessionName: mesh-client-id}",
            "is no name of a header",
        ),
        (
            "{type: Header, sessionName: L5D-Session}",
            "is no name of a header",
        ),
        (
            "{type: Header, sessionName: Host}",
            "is no name of a header",
        ),
        (
            "{type: Header, sessionName: cookie}",
            "is no name of a header",
        ),
        (
            "{type: Header, sessionName: Keep-Alive}",
            "is no name of a header",
        ),
        (
            "{type: Header, sessionName: x-spiffe-id}",
            "is no name of a header",
        ),
        ("{absoluteTimeout: 0s}", "is not a duration from `1s`"),
        ("{absoluteTimeout: 500ms}", "is not a duration from `1s`"),
        ("{absoluteTimeout: 8761h}", "is not a duration from `1s`"),
        ("{absoluteTimeout: soon}", "is not a duration from `1s`"),
        ("{cookieConfig: {lifetimeType: Permanent}}", "needs"),
        ("{cookieConfig: {lifetimeType: Eternal}}", "must be one of"),
        (
            "{type: Header, cookieConfig: {lifetimeType: Session}}",
            "stands beside",
        ),
        ("{novelty: 1}", "unknown field"),
    ] {
        let world = world(&format!("sessionPersistence: {session}"));
        let found = world.index.findings();
        assert!(
            found.iter().any(|one| one.message.contains(says)),
            "{session}: {found:?}"
        );
        assert_eq!(routes(&world, 80), [], "{session}");
        assert_eq!(reasons(&world).0, "UnsupportedValue", "{session}");
    }
}
