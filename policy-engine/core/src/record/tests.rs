//! Records: their JSON shapes, and what malformed ones become.

use super::*;
use crate::fixtures::*;

fn request(text: &str) -> RequestRecord {
    serde_json::from_str(text).unwrap()
}

#[test]
fn unknown_fields_of_a_request_are_refused() {
    for text in [
        r#"{"client":{},"server":{"namespace":"a","port":1},"surprise":1}"#,
        r#"{"client":{"id":"x"},"server":{"namespace":"a","port":1}}"#,
        r#"{"client":{},"server":{"namespace":"a","port":70000}}"#,
        r#"{"client":{},"server":{"namespace":"a","port":1},"protocol":"HTTP"}"#,
    ] {
        assert!(
            serde_json::from_str::<RequestRecord>(text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn reading_16_an_unknown_target_is_denied_in_phase_server() {
    let record = |rest: &str| {
        format!(
            r#"{{"client":{{"ip":"10.0.0.9"}},"server":{{"namespace":"shop","pod":"gone","port":80}}{rest}}}"#
        )
    };
    let answer = |rest: &str| {
        let answer = DecisionRecord::unknown_target(&request(&record(rest)), Generation(3));
        assert_eq!(
            (answer.verdict, answer.reasons.len(), answer.generation),
            (Verdict::Deny, 0, Generation(3))
        );
        (answer.phase, answer.status, answer.grpc_status)
    };
    assert_eq!(
        answer(r#","method":"GET","path":"/""#),
        (Phase::Server, Some(403), None)
    );
    assert_eq!(
        answer(r#","protocol":"grpc","path":"/a.B/C""#),
        (Phase::Server, Some(403), Some(7))
    );
    assert_eq!(answer(r#","protocol":"tcp""#), (Phase::Server, None, None));
    let odd = request(&record("").replace("10.0.0.9", "10.0.0"));
    let answer = DecisionRecord::unknown_target(&odd, Generation(3));
    assert_eq!(
        (answer.phase, answer.status, answer.client.ip.as_deref()),
        (Phase::Transport, None, Some("10.0.0"))
    );
}

#[test]
fn a_record_is_decided_like_live_traffic() {
    let world = World::http()
        .route(route("r", "/a"))
        .web_may("web", on_route("r"));
    let snapshot = world.compile();
    let ask = |path: &str| {
        let text = format!(
            r#"{{"client":{{"spiffe_id":"spiffe://cluster.local/ns/shop/sa/web","ip":"::ffff:10.0.0.9"}},
                "server":{{"namespace":"shop","pod":"cart-0","port":8080}},"method":"GET","path":"{path}","host":"cart"}}"#
        );
        decide_record(&snapshot, &request(&text), PORT, NOW)
    };
    for path in ["/a", "/b", "/a/../b", "/%2f"] {
        let live = world.get(&meshed("web"), path);
        let recorded = ask(path);
        assert_eq!(
            (recorded.verdict, recorded.phase, recorded.status),
            (live.verdict, live.phase, live.status),
            "{path}"
        );
        assert_eq!(recorded.client.ip.as_deref(), Some("10.0.0.9"));
    }
}

#[test]
fn records_survive_the_wire() {
    let world = World::http().web_may("web", on_server("http"));
    let headers = std::collections::BTreeMap::new();
    let call = Call::Http(Head {
        method: "GET",
        target: "/",
        host: None,
        grpc: false,
        headers: &headers,
    });
    let record = world.get(&meshed("web"), "/").record(
        Some(Timestamp::from_unix_secs(1)),
        &meshed("web"),
        &call,
    );
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(
        serde_json::from_str::<DecisionRecord>(&text).unwrap(),
        record
    );
}

#[test]
fn what_a_record_leaves_out_is_filled_in() {
    let plain = request(r#"{"client":{},"server":{"namespace":"a","port":1}}"#);
    let Call::Http(head) = plain.call() else {
        panic!("http is the default")
    };
    assert_eq!((head.method, head.target, head.grpc), ("GET", "/", false));
    let grpc = request(
        r#"{"client":{},"server":{"namespace":"a","port":1},"protocol":"grpc","path":"/a.B/C"}"#,
    );
    let Call::Http(head) = grpc.call() else {
        panic!("gRPC is HTTP")
    };
    assert_eq!((head.method, head.grpc), ("POST", true));
    let client = Client::try_from(&plain.client).unwrap();
    assert_eq!(
        (client.ip.to_string().as_str(), client.tls),
        ("127.0.0.1", false)
    );
}
