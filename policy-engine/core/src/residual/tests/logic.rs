//! Logic, scopes, entities and facts.

use super::{FALSE, TRUE, ask, ask_policy, bytes, facts, table};
use crate::fuzzing::Answer;
use crate::fuzzing::questions::Facts;
use mesh_trust::SpiffeId;

#[test]
fn logic_stops_where_cedar_stops() {
    let fails = "context.conn.port + 9223372036854775807 > 0";
    for (condition, want) in [
        ("true && !false", TRUE),
        ("false && FAILS", FALSE),
        ("true && FAILS", Answer::Overflow),
        ("FAILS && false", Answer::Overflow),
        ("true || FAILS", TRUE),
        ("false || FAILS", Answer::Overflow),
        ("FAILS || true", Answer::Overflow),
        ("false || false || true || FAILS", TRUE),
        (
            "true && (false || (true && (context.conn.tls || FAILS)))",
            TRUE,
        ),
        ("if context.conn.tls then true else FAILS", TRUE),
        ("if !context.conn.tls then FAILS else false", FALSE),
        ("if FAILS then true else true", Answer::Overflow),
        (
            "(if context.conn.tls then 1 else 9223372036854775807 + 1) == 1",
            TRUE,
        ),
        ("!(FAILS)", Answer::Overflow),
        ("(FAILS) == (1 == 1)", Answer::Overflow),
        ("(1 == 1) == context.conn.tls", TRUE),
        ("1 && true", Answer::Type),
        ("true && 1", Answer::Type),
        ("!\"true\"", Answer::Type),
        ("if 1 then true else true", Answer::Type),
    ] {
        let condition = condition.replace("FAILS", fails);
        assert_eq!(ask(&condition, &facts()), want, "{condition}");
    }
}

#[test]
fn clauses_are_asked_in_order() {
    let policy = |clauses: &str| format!("forbid(principal, action, resource) {clauses};");
    for (clauses, want) in [
        ("", TRUE),
        ("when { true } unless { false }", TRUE),
        ("when { true } unless { true }", FALSE),
        (
            "unless { true } when { 1 + 9223372036854775807 == 0 }",
            FALSE,
        ),
        (
            "when { 1 + 9223372036854775807 == 0 } unless { true }",
            Answer::Overflow,
        ),
        ("unless { 1 + 9223372036854775807 == 0 }", Answer::Overflow),
    ] {
        assert_eq!(ask_policy(&policy(clauses), &facts()), want, "{clauses}");
    }
}

#[test]
fn scopes_admit_whom_they_name() {
    let web = r#"Mesh::Workload::"spiffe://cluster.local/ns/shop/sa/web""#;
    for (scope, on_request, on_bytes) in [
        ("principal, action, resource", TRUE, TRUE),
        (
            &format!("principal == {web}, action, resource"),
            TRUE,
            FALSE,
        ),
        (
            &format!("principal in {web}, action, resource"),
            TRUE,
            FALSE,
        ),
        (
            "principal == Mesh::Workload::\"web\", action, resource",
            FALSE,
            FALSE,
        ),
        (
            "principal == Mesh::Anonymous::\"plaintext\", action, resource",
            FALSE,
            TRUE,
        ),
        (
            "principal == Mesh::Anonymous::\"tls-no-cert\", action, resource",
            FALSE,
            FALSE,
        ),
        ("principal is Mesh::Workload, action, resource", TRUE, FALSE),
        (
            "principal is Mesh::Anonymous, action, resource",
            FALSE,
            TRUE,
        ),
        (
            "principal in Mesh::IdentitySet::\"shop\", action, resource",
            TRUE,
            FALSE,
        ),
        (
            "principal in Mesh::IdentitySet::\"web\", action, resource",
            FALSE,
            FALSE,
        ),
        (
            "principal in Mesh::IdentitySet::\"nobody\", action, resource",
            FALSE,
            FALSE,
        ),
        (
            "principal in Mesh::TrustDomain::\"cluster.local\", action, resource",
            TRUE,
            FALSE,
        ),
        (
            "principal in Mesh::TrustDomain::\"cluster\", action, resource",
            FALSE,
            FALSE,
        ),
        (
            "principal in Mesh::Namespace::\"cluster.local/shop\", action, resource",
            TRUE,
            FALSE,
        ),
        (
            "principal in Mesh::Namespace::\"cluster.local/sho\", action, resource",
            FALSE,
            FALSE,
        ),
        (
            "principal in Mesh::Namespace::\"shop\", action, resource",
            FALSE,
            FALSE,
        ),
        (
            "principal is Mesh::Workload in Mesh::IdentitySet::\"shop\", action, resource",
            TRUE,
            FALSE,
        ),
        (
            "principal, action == Mesh::Action::\"request\", resource",
            TRUE,
            FALSE,
        ),
        (
            "principal, action == Mesh::Action::\"connect\", resource",
            FALSE,
            TRUE,
        ),
        (
            "principal, action in [Mesh::Action::\"connect\", Mesh::Action::\"request\"], resource",
            TRUE,
            TRUE,
        ),
        ("principal, action, resource is Mesh::Route", TRUE, FALSE),
        ("principal, action, resource is Mesh::Server", FALSE, TRUE),
        (
            "principal, action, resource == Mesh::Server::\"shop/http\"",
            FALSE,
            TRUE,
        ),
        (
            "principal, action, resource in Mesh::Server::\"shop/http\"",
            TRUE,
            TRUE,
        ),
        (
            "principal, action, resource in Mesh::Server::\"shop/https\"",
            FALSE,
            FALSE,
        ),
        (
            "principal, action, resource in Mesh::Server::\"default\"",
            FALSE,
            FALSE,
        ),
        (
            "principal, action, resource in Mesh::NamedServers::\"shop\"",
            TRUE,
            TRUE,
        ),
        (
            "principal, action, resource in Mesh::NamedServers::\"pay\"",
            FALSE,
            FALSE,
        ),
        (
            "principal, action, resource in Mesh::Namespace::\"cluster.local/shop\"",
            TRUE,
            TRUE,
        ),
        (
            "principal, action, resource in Mesh::Namespace::\"other.local/shop\"",
            FALSE,
            FALSE,
        ),
        (
            "principal, action, resource in Mesh::TrustDomain::\"cluster.local\"",
            TRUE,
            TRUE,
        ),
        (
            "principal, action, resource in Mesh::RouteObj::\"HTTPRoute/pay/cart\"",
            TRUE,
            FALSE,
        ),
        (
            "principal, action, resource in Mesh::RouteObj::\"HTTPRoute/pay/car\"",
            FALSE,
            FALSE,
        ),
        (
            "principal, action, resource == Mesh::Route::\"shop/http HTTPRoute/pay/cart/10\"",
            TRUE,
            FALSE,
        ),
        (
            "principal, action, resource == Mesh::Route::\"shop/http HTTPRoute/pay/cart/010\"",
            FALSE,
            FALSE,
        ),
        (
            "principal, action, resource == Mesh::Route::\"shop/http HTTPRoute/pay/cart/1\"",
            FALSE,
            FALSE,
        ),
    ] {
        let policy = format!("permit({scope});");
        assert_eq!(
            ask_policy(&policy, &facts()),
            on_request,
            "{scope}: request"
        );
        assert_eq!(ask_policy(&policy, &bytes()), on_bytes, "{scope}: bytes");
    }
}

#[test]
fn the_default_policy_is_no_named_server() {
    let default = Facts {
        server: None,
        ..bytes()
    };
    for (condition, want) in [
        (r#"resource == Mesh::Server::"default""#, TRUE),
        (r#"resource == Mesh::Server::"shop/default""#, FALSE),
        (r#"resource in Mesh::NamedServers::"shop""#, FALSE),
        (r#"resource in Mesh::Namespace::"cluster.local/shop""#, TRUE),
        (r#"resource.name == "default" && resource.isDefault"#, TRUE),
    ] {
        assert_eq!(ask(condition, &default), want, "{condition}");
    }
    let named = Facts {
        server: Some("default"),
        ..bytes()
    };
    assert_eq!(ask("resource.isDefault", &named), FALSE);
    assert_eq!(
        ask(r#"resource in Mesh::NamedServers::"shop""#, &named),
        TRUE
    );
    assert_eq!(ask(r#"resource == Mesh::Server::"default""#, &named), FALSE);
}

#[test]
fn entities_are_in_sets_of_literals() {
    table(&[
        (
            r#"principal in [Mesh::IdentitySet::"web", Mesh::IdentitySet::"shop"]"#,
            TRUE,
        ),
        (
            r#"principal in [Mesh::IdentitySet::"web", Mesh::IdentitySet::"a"]"#,
            FALSE,
        ),
        (r#"action in [Mesh::Action::"request"]"#, TRUE),
        (
            r#"resource in [Mesh::RouteObj::"a/b/c", Mesh::RouteObj::"HTTPRoute/pay/cart"]"#,
            TRUE,
        ),
        (
            r#"principal is Mesh::Workload in Mesh::IdentitySet::"a""#,
            FALSE,
        ),
        (r#"principal != resource"#, TRUE),
        (r#"principal == principal"#, TRUE),
        (r#"Mesh::Action::"request" == action"#, TRUE),
        (r#"Mesh::Server::"a" == Mesh::Server::"a""#, TRUE),
        (
            r#"[Mesh::Action::"connect", Mesh::Action::"request"].contains(action)"#,
            TRUE,
        ),
        (r#"[Mesh::Action::"connect"].contains(action)"#, FALSE),
        (r#"1 is Mesh::Workload"#, Answer::Type),
        (r#"Mesh::NetSet::"a" is Mesh::NetSet"#, TRUE),
        (r#"Mesh::NetSet::"a" is Mesh::Server"#, FALSE),
    ]);
}

#[test]
fn facts_are_the_questions() {
    table(&[
        (
            r#"principal.id == "spiffe://cluster.local/ns/shop/sa/web""#,
            TRUE,
        ),
        (r#"principal.trustDomain == "cluster.local""#, TRUE),
        (r#"principal.ns == "shop" && principal.sa == "web""#, TRUE),
        (
            r#"resource.ns == "shop" && resource.kind == "HTTPRoute""#,
            TRUE,
        ),
        (r#"resource.name == "cart" && resource.rule == 10"#, TRUE),
        ("resource.isDefault", Answer::Absent),
        ("context.conn.port == 8080 && context.conn.tls", TRUE),
        (
            r#"context.req.method == "GET" && context.req.path == "/shop.Cart/Add""#,
            TRUE,
        ),
        (r#""cart:8080" == context.req.host"#, TRUE),
        (
            r#"context.req.grpc && context.req.grpcService == "shop.Cart""#,
            TRUE,
        ),
        (r#"context.req.grpcMethod != "Add""#, FALSE),
        (r#"context.conn.port == "8080""#, FALSE),
        ("context.req.method < 1", Answer::Type),
    ]);
}

#[test]
fn absent_facts_are_errors_and_has_sees_it() {
    let mut bare = facts();
    bare.id = Some(SpiffeId::parse("spiffe://cluster.local/web").unwrap());
    bare.cert_not_after = None;
    let request = bare.request.as_mut().unwrap();
    (request.host, request.grpc) = (None, false);
    for fact in [
        "principal.ns",
        "principal.sa",
        "context.conn.certNotAfter",
        "context.req.host",
        "context.req.grpcService",
        "context.req.grpcMethod",
    ] {
        let (base, name) = fact.rsplit_once('.').unwrap();
        let (variable, path) = fact.split_once('.').unwrap();
        for has in [
            format!("{base} has {name}"),
            format!("{variable} has {path}"),
        ] {
            assert_eq!(ask(&has, &bare), FALSE, "{has}");
            assert_eq!(ask(&has, &facts()), TRUE, "{has}");
        }
        assert_eq!(
            ask(&format!("{fact} == {fact}"), &bare),
            Answer::Absent,
            "{fact}"
        );
        assert_eq!(ask(&format!("{fact} == {fact}"), &facts()), TRUE, "{fact}");
    }
    for (condition, want) in [
        ("context has req", FALSE),
        ("context has req.host", FALSE),
        ("context.req has host", Answer::Absent),
        ("context.req has headers", Answer::Absent),
        ("context.req.headers has x", Answer::Absent),
        (r#"context.req.headers.hasTag("x-a")"#, Answer::Absent),
        (r#"context.req.headers.hasTag("X-A")"#, Answer::Absent),
        (
            r#"context.req.headers.getTag("x-a").isEmpty()"#,
            Answer::Absent,
        ),
        (r#"context.req.path == """#, Answer::Absent),
        ("principal has id", FALSE),
        ("resource has isDefault", TRUE),
        ("resource has rule || action has x || context has x", FALSE),
        (
            "context has conn.nets && context has conn.tls && context has now",
            TRUE,
        ),
        ("principal.id == principal.id", Answer::Absent),
    ] {
        assert_eq!(ask(condition, &bytes()), want, "{condition}");
    }
}
