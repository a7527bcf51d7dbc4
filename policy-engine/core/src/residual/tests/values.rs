//! Operators on numbers, texts, addresses and times.

use super::{FALSE, TRUE, ask, facts, table};
use crate::fuzzing::Answer;
use crate::fuzzing::questions::Facts;
use mesh_trust::Timestamp;

#[test]
fn longs_overflow_as_cedars_do() {
    table(&[
        (
            "context.conn.port + 1 == 8081 && 2 - context.conn.port == -8078",
            TRUE,
        ),
        (
            "context.conn.port * 2 >= 16160 && -(context.conn.port) < 0",
            TRUE,
        ),
        (
            "8079 < context.conn.port && 8080 <= context.conn.port",
            TRUE,
        ),
        (
            "8080 < context.conn.port || 8080 > context.conn.port",
            FALSE,
        ),
        ("9223372036854775807 + 1 == 0", Answer::Overflow),
        ("-9223372036854775808 - 1 == 0", Answer::Overflow),
        ("4611686018427387904 * 2 == 0", Answer::Overflow),
        ("-(-9223372036854775808) == 0", Answer::Overflow),
        ("-(9223372036854775807) == -9223372036854775807", TRUE),
        (r#"1 + "1" == 2"#, Answer::Type),
        (r#""1" < "2""#, Answer::Type),
        ("true < false", Answer::Type),
        (r#"-"1" == 0"#, Answer::Type),
    ]);
}

#[test]
fn like_matches_characters() {
    for (path, pattern, want) in [
        ("/shop.Cart/Add", "/shop.Cart/Add", TRUE),
        ("/shop.Cart/Add", "/shop.Cart/Ad", FALSE),
        ("/shop.Cart/Add", "*", TRUE),
        ("/shop.Cart/Add", "/shop*", TRUE),
        ("/shop.Cart/Add", "*Add", TRUE),
        ("/shop.Cart/Add", "*Ad", FALSE),
        ("/shop.Cart/Add", "/*Cart*d", TRUE),
        ("/shop.Cart/Add", "/*Add*d", FALSE),
        ("/shop.Cart/Add", "*shop*shop*", FALSE),
        ("aab", "a*ab", TRUE),
        ("ab", "a*ab", FALSE),
        ("aba", "ab*ba", FALSE),
        ("abab", "*ab", TRUE),
        ("abcabd", "*ab*d", TRUE),
        ("", "", TRUE),
        ("", "*", TRUE),
        ("a", "", FALSE),
        ("a*b", r"a\*b", TRUE),
        ("aXb", r"a\*b", FALSE),
        ("é", "*", TRUE),
        ("aéb", "a*b", TRUE),
        ("aéb", "aé*", TRUE),
        ("è", "*\u{e9}", FALSE),
        ("**", "***", TRUE),
    ] {
        let mut asked = facts();
        asked.request.as_mut().unwrap().path = path;
        let condition = format!(r#"context.req.path like "{pattern}""#);
        assert_eq!(ask(&condition, &asked), want, "`{path}`: {condition}");
    }
    table(&[("1 like \"1\"", Answer::Type)]);
}

#[test]
fn addresses_are_in_ranges() {
    for (ip, range, want) in [
        ("10.1.2.3", "10.1.2.3", TRUE),
        ("10.1.2.4", "10.1.2.3", FALSE),
        ("10.0.0.0", "10.0.0.0/8", TRUE),
        ("10.255.255.255", "10.0.0.0/8", TRUE),
        ("9.255.255.255", "10.0.0.0/8", FALSE),
        ("11.0.0.0", "10.0.0.0/8", FALSE),
        ("10.9.9.9", "10.1.2.3/8", TRUE),
        ("255.255.255.255", "0.0.0.0/0", TRUE),
        ("::1", "0.0.0.0/0", FALSE),
        ("10.1.2.3", "::/0", FALSE),
        ("ffff::", "::/0", TRUE),
        (
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::/32",
            TRUE,
        ),
        ("2001:db9::", "2001:db8::/32", FALSE),
        (
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::1/32",
            TRUE,
        ),
        ("2001:db8::1", "2001:db8::1/128", TRUE),
    ] {
        let mut asked = facts();
        asked.ip = ip.parse().unwrap();
        for condition in [
            format!(r#"context.conn.ip.isInRange(ip("{range}"))"#),
            format!(r#"(if true then context.conn.ip else ip("::")).isInRange(ip("{range}"))"#),
        ] {
            assert_eq!(ask(&condition, &asked), want, "{ip}: {condition}");
        }
    }
    table(&[
        (r#"context.conn.ip == ip("10.1.2.3")"#, TRUE),
        (r#"context.conn.ip == ip("10.1.2.3/32")"#, TRUE),
        (r#"context.conn.ip == ip("10.1.2.3/31")"#, FALSE),
        (r#"ip("10.0.0.0/8") == ip("10.0.0.1/8")"#, FALSE),
        (r#"ip("10.0.0.0/9").isInRange(ip("10.0.0.0/8"))"#, TRUE),
        (r#"ip("10.0.0.0/8").isInRange(ip("10.0.0.0/9"))"#, FALSE),
        (
            r#"context.conn.ip.isIpv4() && !context.conn.ip.isIpv6()"#,
            TRUE,
        ),
        (r#"ip("::").isIpv6() && !ip("::").isIpv4()"#, TRUE),
        (
            r#"ip("127.0.0.0/8").isLoopback() && !ip("127.0.0.0/7").isLoopback()"#,
            TRUE,
        ),
        (
            r#"ip("::1").isLoopback() && !ip("::1/127").isLoopback()"#,
            TRUE,
        ),
        (
            r#"ip("224.0.0.0/4").isMulticast() && !ip("224.0.0.0/3").isMulticast()"#,
            TRUE,
        ),
        (
            r#"ip("ff00::/8").isMulticast() && !ip("ff00::/7").isMulticast()"#,
            TRUE,
        ),
        (r#"ip("10.0.0.0/33").isIpv4()"#, Answer::Extension),
        (r#"ip("10.0.0.0/08").isIpv4()"#, Answer::Extension),
        (r#"ip("::ffff:10.1.2.3").isIpv6()"#, Answer::Extension),
        (r#"ip(1).isIpv6()"#, Answer::Type),
        (r#""::".isIpv6()"#, Answer::Type),
        (r#"context.conn.ip.isInRange("::/0")"#, Answer::Type),
        (r#"context.conn.ip < ip("::")"#, Answer::Type),
    ]);
}

#[test]
fn times_are_whole_milliseconds_since_the_epoch() {
    table(&[
        (r#"context.now == datetime("2026-11-21T11:29:00Z")"#, TRUE),
        (
            r#"context.now == datetime("2026-11-21T12:29:00.000+0100")"#,
            TRUE,
        ),
        (r#"context.now < datetime("2026-11-21T11:29:00Z")"#, FALSE),
        (
            r#"context.now < datetime("2026-11-21T11:29:00.001Z")"#,
            TRUE,
        ),
        (r#"context.now >= datetime("2026-11-21T11:29:00Z")"#, TRUE),
        (r#"context.now > datetime("2026-11-21T11:29:00Z")"#, FALSE),
        (
            r#"context.conn.certNotAfter == datetime("2026-11-22")"#,
            TRUE,
        ),
        (r#"context.now.toDate() == datetime("2026-11-21")"#, TRUE),
        (r#"context.now.toTime() == duration("11h29m")"#, TRUE),
        (
            r#"datetime("1969-12-31T23:59:59.999Z").toTime() == duration("23h59m59s999ms")"#,
            TRUE,
        ),
        (
            r#"datetime("1969-12-31T23:59:59.999Z").toDate() == datetime("1969-12-31")"#,
            TRUE,
        ),
        (
            r#"context.now.offset(duration("-1d")) == datetime("2026-11-20T11:29:00Z")"#,
            TRUE,
        ),
        (
            r#"context.conn.certNotAfter.durationSince(context.now) == duration("12h31m")"#,
            TRUE,
        ),
        (
            r#"context.now.durationSince(context.conn.certNotAfter) < duration("0ms")"#,
            TRUE,
        ),
        (
            r#"duration("1d2h3m4s5ms").toMilliseconds() == 93784005"#,
            TRUE,
        ),
        (r#"duration("1d2h3m4s5ms").toSeconds() == 93784"#, TRUE),
        (r#"duration("1d2h3m4s5ms").toMinutes() == 1563"#, TRUE),
        (r#"duration("1d2h3m4s5ms").toHours() == 26"#, TRUE),
        (
            r#"duration("-1d2h").toDays() == -1 && duration("-1ms").toSeconds() == 0"#,
            TRUE,
        ),
        (
            r#"context.now.offset(duration("9223372036854775807ms")) == context.now"#,
            Answer::Extension,
        ),
        (
            r#"context.now.durationSince(datetime("1970-01-01").offset(duration("-9223372036854775808ms"))) == duration("0ms")"#,
            Answer::Extension,
        ),
        (
            r#"datetime("1970-01-01").offset(duration("-9223372036854775808ms")).toDate() == context.now"#,
            Answer::Extension,
        ),
        (
            r#"datetime("2026-02-29") == context.now"#,
            Answer::Extension,
        ),
        (
            r#"datetime("2026-11-21T11:29:60Z") == context.now"#,
            Answer::Extension,
        ),
        (
            r#"datetime("2026-11-21T11:29:00") == context.now"#,
            Answer::Extension,
        ),
        (r#"duration("1ms1h") == duration("0ms")"#, Answer::Extension),
        (r#"duration("") == duration("0ms")"#, Answer::Extension),
        (r#"context.now < duration("1h")"#, Answer::Type),
        (r#"context.now < 0"#, Answer::Type),
        (r#"context.now == duration("1h")"#, FALSE),
        (
            r#"duration("1h").offset(duration("1h")) == context.now"#,
            Answer::Type,
        ),
        (r#"context.now.toDays() == 0"#, Answer::Type),
    ]);
}

#[test]
fn times_before_and_beyond_four_digit_years_are_compared() {
    for (micros, want) in [(i64::MIN, TRUE), (-1, TRUE), (0, FALSE), (i64::MAX, FALSE)] {
        let asked = Facts {
            now: Timestamp::from_unix_micros(micros),
            ..facts()
        };
        let condition = r#"context.now < datetime("1970-01-01")"#;
        assert_eq!(ask(condition, &asked), want, "{micros}");
    }
}
