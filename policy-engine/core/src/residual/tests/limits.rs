//! What is refused, and what a program tells of itself.

use super::{TRUE, ask, compile, facts, speed, template, when};
use crate::fuzzing::questions::{Facts, names, trust_domain};
use crate::fuzzing::{policy_set, schema};
use crate::residual::Program;
use cedar_policy::{ValidationMode, Validator};

#[test]
fn what_only_cedar_can_evaluate_is_refused() {
    for condition in [
        r#"decimal("1.0").lessThan(decimal("2.0"))"#,
        r#"context.req.headers.getTag("a").containsAny(context.req.headers.getTag("b"))"#,
        r#"context.req.headers.hasTag(context.req.method)"#,
        r#"context.conn == context.conn"#,
        r#"{a: 1}.a == 1"#,
        r#"(if context.conn.tls then [1] else [2]).contains(1)"#,
        r#"[[1]].contains([1])"#,
        r#"Mesh::Workload::"a".ns == "a""#,
        r#"Mesh::Server::"a/b" in Mesh::NamedServers::"a""#,
        r#"principal in resource"#,
        r#"context.conn.nets == 1"#,
        r#"ip(context.req.path).isIpv4()"#,
        r#"principal in Other::"a""#,
        r#"principal is Other"#,
        r#"context.conn.ip has x"#,
    ] {
        assert!(compile(&when(condition)).is_err(), "{condition}");
    }
    let many: Vec<String> = (0..65).map(|number| format!("\"{number}\"")).collect();
    let many = many.join(", ");
    let tag = r#"context.req.headers.getTag("a")"#;
    assert!(compile(&when(&format!("{tag}.containsAll([{many}])"))).is_err());
    assert!(compile(&when(&format!("{tag}.containsAny([{many}])"))).is_ok());
    let template = "permit(principal == ?principal, action, resource);";
    let template = cedar_policy::Template::parse(None, template).unwrap();
    let template = template.to_pst().unwrap();
    assert!(Program::compile(&template, &names(), &trust_domain()).is_err());
}

/// What Cedar alone could answer too, but at fifty times the cost.
#[test]
fn common_conditions_are_compiled() {
    for condition in [
        "true",
        "false || context.conn.tls",
        r#"["GET", "HEAD"].contains(context.req.method)"#,
        "[1, 2].contains(context.conn.port)",
        r#"context.conn.nets.contains(Mesh::NetSet::"a")"#,
        r#"context.conn.nets == [Mesh::NetSet::"a"]"#,
        r#"[Mesh::NetSet::"a"] == context.conn.nets"#,
        r#"context.req.headers.getTag("a") == ["b"]"#,
        r#"["b"] == context.req.headers.getTag("a")"#,
        r#"context.req.headers.getTag("a").containsAll(["b"])"#,
        r#"context.req.headers.getTag("a").containsAny(["b", "c"])"#,
        r#"principal in Mesh::Namespace::"cluster.local/shop""#,
    ] {
        let compiled = compile(&when(condition));
        assert!(compiled.is_ok(), "{condition}: {:?}", compiled.err());
    }
    let many = |count: usize, of: &str, one: fn(usize) -> String| {
        let all: Vec<String> = (0..count).map(one).collect();
        compile(&when(&format!("[{}].contains({of})", all.join(", "))))
    };
    let beyond = crate::limits::PROGRAM_SET_MAX + 1;
    assert!(many(beyond, "context.req.method", |n| format!("\"{n}\"")).is_ok());
    assert!(many(beyond, "context.conn.port", |n| n.to_string()).is_ok());
    let tags: Vec<String> = (0..64).map(|n| format!("\"{n}\"")).collect();
    let tags = format!(
        "context.req.headers.getTag(\"a\").containsAll([{}])",
        tags.join(", ")
    );
    assert!(compile(&when(&tags)).is_ok());
    let set = |count: usize| {
        let all: Vec<String> = (0..count)
            .map(|n| format!("ip(\"10.0.{}.{}\")", n / 256, n % 256))
            .collect();
        format!("[{}].contains(context.conn.ip)", all.join(", "))
    };
    assert!(compile(&when(&set(crate::limits::PROGRAM_SET_MAX))).is_ok());
    assert!(compile(&when(&set(crate::limits::PROGRAM_SET_MAX + 1))).is_err());
}

#[test]
fn nesting_is_bounded_and_chains_are_not_nesting() {
    let nested = |depth: usize| when(&format!("{}true{}", "!(".repeat(depth), ")".repeat(depth)));
    assert!(compile(&nested(50)).is_ok());
    assert!(compile(&nested(80)).is_err());
    let (facts, domain) = (facts(), trust_domain());
    for operator in [" && ", " || "] {
        let chain = |count: usize| vec!["context.conn.tls"; count].join(operator);
        assert_eq!(ask(&chain(70), &facts), TRUE);
        // Cedar goes down once for each, and on a thread of 2 MiB does not come so far.
        let program = compile(&when(&chain(500))).unwrap();
        assert_eq!(program.holds(&facts.question(&domain)), Ok(true));
    }
}

#[test]
fn the_deepest_program_runs_on_a_small_stack() {
    for (open, close) in [
        ("!(", ")"),
        ("[", "].contains(true)"),
        ("(if true then ", " else false)"),
        ("(if true == (", ") then true else false)"),
    ] {
        let nested = |depth: usize| {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            compile(&when(&format!("{open}context.conn.tls{close}")))
        };
        let deepest = (1..70).rev().find_map(|depth| nested(depth).ok()).unwrap();
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        let thread = small.spawn(move || {
            let domain = trust_domain();
            deepest.holds(&facts().question(&domain))
        });
        assert!(thread.unwrap().join().unwrap().is_ok());
    }
}

#[test]
fn programs_tell_what_they_look_at() {
    for (condition, request, time, headers) in [
        ("true", false, false, ""),
        (
            r#"principal.ns == "a" && context.conn.port == 1"#,
            false,
            false,
            "",
        ),
        (r#"context has req && resource.rule == 1"#, false, false, ""),
        (
            "context.conn.certNotAfter == context.conn.certNotAfter",
            false,
            false,
            "",
        ),
        (r#"context.now < datetime("2026-11-21")"#, false, true, ""),
        (
            r#"[context.now].contains(datetime("2026-11-21"))"#,
            false,
            true,
            "",
        ),
        (r#"context.req.path like "*""#, true, false, ""),
        ("context.req has host", true, false, ""),
        ("context has req.grpcMethod", true, false, ""),
        ("context.req.grpc", true, false, ""),
        (
            r#"context.req.headers.hasTag("x-b") || context.req.headers.getTag("x-a").isEmpty()"#,
            true,
            false,
            "x-a x-b",
        ),
        (r#"context.req.headers.hasTag("X-A")"#, true, false, ""),
    ] {
        let program = compile(&when(condition)).unwrap();
        let seen: Vec<&str> = program.headers().collect();
        let all = (
            program.looks_at_request(),
            program.looks_at_time(),
            &*seen.join(" "),
        );
        assert_eq!(all, (request, time, headers), "{condition}");
    }
}

/// A constant answer must not depend on whether the request is there, only on whether there is a route.
#[test]
fn what_does_not_look_at_the_request_needs_none() {
    let headless = Facts {
        request: None,
        ..facts()
    };
    let domain = trust_domain();
    for condition in [
        "context has req",
        "resource is Mesh::Route",
        "resource.rule == 10",
    ] {
        let program = compile(&when(condition)).unwrap();
        assert!(!program.looks_at_request());
        assert_eq!(
            program.holds(&headless.question(&domain)),
            Ok(true),
            "{condition}"
        );
    }
}

/// Those that are timed pass strict validation.
#[test]
fn sound_policies_are_compiled() {
    let validator = Validator::new(schema().unwrap().clone());
    for policy in speed::POLICIES {
        let set = policy_set(template(policy)).unwrap();
        let result = validator.validate(&set, ValidationMode::Strict);
        assert!(result.validation_passed(), "{policy}: {result}");
        compile(policy).unwrap();
    }
}
