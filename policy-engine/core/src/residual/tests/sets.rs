//! Sets, network sets and headers.

use super::{FALSE, TRUE, ask, bytes, compile, facts, table, when};
use crate::fuzzing::Answer;
use crate::fuzzing::questions::trust_domain;
use crate::residual::EvalError;

#[test]
fn sets_compare_as_sets() {
    table(&[
        (r#"["GET", "HEAD"].contains(context.req.method)"#, TRUE),
        (r#"["PUT", "HEAD"].contains(context.req.method)"#, FALSE),
        (r#"[context.req.method, "HEAD"].contains("GET")"#, TRUE),
        ("[443, 8080, 443].contains(context.conn.port)", TRUE),
        (
            "[443, context.conn.port + 9223372036854775807].contains(443)",
            Answer::Overflow,
        ),
        (
            r#"["GET", 1].contains(1) && ["GET", 1].contains("GET")"#,
            TRUE,
        ),
        (
            "[1].contains(context.conn.port + 9223372036854775807)",
            Answer::Overflow,
        ),
        (
            r#"[ip("::1"), context.conn.ip].contains(ip("10.1.2.3"))"#,
            TRUE,
        ),
        (r#"[ip("10.1.2.3")].contains(context.conn.ip)"#, TRUE),
        (
            r#"[datetime("2026-11-21")].contains(context.now.toDate())"#,
            TRUE,
        ),
        (r#"["a", "b"].containsAll([context.req.method])"#, FALSE),
        (
            r#"["GET", "b"].containsAll([context.req.method, "b"])"#,
            TRUE,
        ),
        (r#"[context.req.method, "b"].containsAll(["b", "b"])"#, TRUE),
        (r#"[context.req.method].containsAll(["GET", "b"])"#, FALSE),
        (r#"[context.req.method].containsAny(["GET", "b"])"#, TRUE),
        (r#"["GET", "b"].containsAny([context.req.method])"#, TRUE),
        (r#"["c", "b"].containsAny([context.req.method])"#, FALSE),
        (r#"[1, 2] == [2, 1, 1] && [1, 2] != [1]"#, TRUE),
        (r#"[context.req.method, "GET"] == ["GET"]"#, TRUE),
        (r#"["GET", "b"] == [context.req.method]"#, FALSE),
        (r#"["GET"] == [context.req.method, "b"]"#, FALSE),
        ("[1].isEmpty() || [context.conn.port].isEmpty()", FALSE),
        (
            "[].isEmpty() && [].containsAll([]) && ![].contains(1)",
            TRUE,
        ),
        (
            "[1].containsAll([]) && ![].containsAll([1]) && ![].containsAny([1])",
            TRUE,
        ),
        (
            "[context.conn.port + 9223372036854775807].isEmpty()",
            Answer::Overflow,
        ),
        (r#"[principal, resource].contains(principal)"#, TRUE),
    ]);
}

#[test]
fn networks_are_the_clients() {
    table(&[
        (r#"context.conn.nets.contains(Mesh::NetSet::"cart")"#, TRUE),
        (
            r#"context.conn.nets.contains(Mesh::NetSet::"cluster")"#,
            FALSE,
        ),
        (
            r#"context.conn.nets.contains(Mesh::NetSet::"nowhere")"#,
            FALSE,
        ),
        (r#"context.conn.nets.contains(principal)"#, FALSE),
        (
            r#"context.conn.nets.containsAll([Mesh::NetSet::"cart", Mesh::NetSet::"lan"])"#,
            TRUE,
        ),
        (
            r#"context.conn.nets.containsAll([Mesh::NetSet::"cart", Mesh::NetSet::"nowhere"])"#,
            FALSE,
        ),
        (
            r#"context.conn.nets.containsAny([Mesh::NetSet::"cluster", Mesh::NetSet::"lan"])"#,
            TRUE,
        ),
        (
            r#"[Mesh::NetSet::"cart"].containsAll(context.conn.nets)"#,
            FALSE,
        ),
        (
            r#"[Mesh::NetSet::"lan", Mesh::NetSet::"cart"] == context.conn.nets"#,
            TRUE,
        ),
        (r#"context.conn.nets.isEmpty()"#, FALSE),
    ]);
    assert_eq!(ask("context.conn.nets.isEmpty()", &bytes()), TRUE);
}

#[test]
fn headers_are_sets_of_their_values() {
    table(&[
        (r#"context.req.headers.hasTag("x-a")"#, TRUE),
        (r#"context.req.headers.hasTag("x-c")"#, FALSE),
        (r#"context.req.headers.hasTag("X-A")"#, FALSE),
        (r#"context.req.headers.getTag("x-b").contains("two")"#, TRUE),
        (
            r#"context.req.headers.getTag("x-b").contains("three")"#,
            FALSE,
        ),
        (r#"context.req.headers.getTag("x-b").contains(1)"#, FALSE),
        (
            r#"context.req.headers.getTag("x-b") == ["two", "one"]"#,
            TRUE,
        ),
        (r#"["one"] == context.req.headers.getTag("x-b")"#, FALSE),
        (
            r#"context.req.headers.getTag("x-b").containsAll(["one", "two"])"#,
            TRUE,
        ),
        (
            r#"context.req.headers.getTag("x-a").containsAll(["one", "two"])"#,
            FALSE,
        ),
        (
            r#"["one", "two", "six"].containsAll(context.req.headers.getTag("x-b"))"#,
            TRUE,
        ),
        (
            r#"["one", "six"].containsAll(context.req.headers.getTag("x-b"))"#,
            FALSE,
        ),
        (
            r#"context.req.headers.getTag("x-b").containsAny(["two", "six"])"#,
            TRUE,
        ),
        (r#"context.req.headers.getTag("x-a").isEmpty()"#, FALSE),
        (
            r#"context.req.headers.getTag("x-c").isEmpty()"#,
            Answer::Absent,
        ),
        (
            r#"context.req.headers.getTag("X-A").contains("one")"#,
            Answer::Absent,
        ),
        (
            r#"context.req.headers.getTag("x-c").contains("a")"#,
            Answer::Absent,
        ),
        // The set's error comes before the member's.
        (
            r#"context.req.headers.getTag("x-c").contains(1 + "a")"#,
            Answer::Absent,
        ),
    ]);
}

#[test]
fn an_unreadable_header_is_an_error() {
    struct Unreadable;
    impl crate::request::Headers for Unreadable {
        fn for_each_value(&self, _: &str, each: &mut dyn FnMut(&[u8])) {
            [&b"one"[..], b"\xff", b"one"].into_iter().for_each(each);
        }
    }
    let (facts, domain) = (facts(), trust_domain());
    let mut question = facts.question(&domain);
    question.request.as_mut().unwrap().headers = &Unreadable;
    for condition in [
        r#"context.req.headers.hasTag("x-a")"#,
        r#"context.req.headers.getTag("x-a").contains("one")"#,
        r#"context.req.headers.getTag("x-a").containsAny(["one"])"#,
    ] {
        let program = compile(&when(condition)).unwrap();
        let answer = program.holds(&question);
        assert_eq!(answer, Err(EvalError::UnreadableHeader), "{condition}");
    }
}
