//! Programs beside Cedar's Authorizer, timed in one run.

use super::super::Program;
use crate::fuzzing::cedar_world::World;
use crate::fuzzing::questions::{Facts, Request, names, trust_domain};
use crate::question::RouteFacts;
use cedar_policy::{Authorizer, Policy, PolicyId, PolicySet, pst};
use mesh_trust::SpiffeId;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What people write: office hours, break-glass grants, paths by method, tenants by header, networks, certificates.
pub(super) const POLICIES: [&str; 8] = [
    r#"permit(principal is Mesh::Workload, action == Mesh::Action::"request", resource in Mesh::NamedServers::"shop")
       when { ["GET", "HEAD"].contains(context.req.method) && context.req.path like "/catalog/*" };"#,
    r#"permit(principal in Mesh::IdentitySet::"shop", action == Mesh::Action::"request", resource)
       when { context.req.headers.hasTag("x-tenant") && context.req.headers.getTag("x-tenant").contains("blue") };"#,
    r#"forbid(principal, action, resource)
       unless { context.conn.nets.contains(Mesh::NetSet::"cluster") || context.conn.ip.isInRange(ip("10.0.0.0/8")) };"#,
    r#"permit(principal is Mesh::Workload, action, resource)
       when { principal has ns && ["shop", "pay", "web"].contains(principal.ns)
              && context.now >= datetime("2026-01-01") && context.now < datetime("2027-01-01") };"#,
    r#"forbid(principal, action == Mesh::Action::"request", resource)
       when { context.req.path like "/admin/*" && !(principal in Mesh::IdentitySet::"web") };"#,
    r#"permit(principal is Mesh::Workload, action == Mesh::Action::"request", resource)
       when { context.req has grpcService && context.req.grpcService == "shop.Cart"
              && context.req has grpcMethod && ["Add", "Remove", "List"].contains(context.req.grpcMethod) };"#,
    r#"forbid(principal, action, resource)
       when { context.conn has certNotAfter
              && context.conn.certNotAfter.durationSince(context.now) < duration("10m") };"#,
    r#"permit(principal is Mesh::Workload in Mesh::Namespace::"cluster.local/shop", action == Mesh::Action::"request",
              resource in Mesh::RouteObj::"HTTPRoute/shop/cart")
       when { context.now.toTime() >= duration("8h") && context.now.toTime() < duration("18h")
              && context.req has host && context.req.host like "*.shop.example*" };"#,
];

fn facts() -> Facts {
    let value = |text: &str| vec![text.to_owned()];
    let headers = ["accept", "traceparent", "user-agent", "x-request-id"]
        .map(|name| (name.to_owned(), value("anything")));
    let mut headers = BTreeMap::from(headers);
    headers.insert("x-tenant".to_owned(), value("blue"));
    Facts {
        id: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
        ip: "10.1.2.3".parse().unwrap(),
        tls: true,
        cert_not_after: Some("2026-11-22T00:00:00Z".parse().unwrap()),
        identity_sets: vec![1],
        network_sets: vec![0, 1],
        namespace: "shop",
        server: Some("http"),
        port: 8080,
        route: Some(RouteFacts {
            kind: "HTTPRoute",
            namespace: "shop",
            name: "cart",
            rule: 0,
        }),
        request: Some(Request {
            method: "GET",
            path: "/catalog/books/9783161484100",
            host: Some("www.shop.example:8080"),
            headers,
            grpc: false,
        }),
        now: "2026-11-21T11:29:00Z".parse().unwrap(),
    }
}

/// Median and 99th percentile of one call, the clock's own 20 to 40 ns included.
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn time(mut call: impl FnMut()) -> (Duration, Duration) {
    let mut each: Vec<Duration> = (0..20_000)
        .map(|_| {
            let begin = Instant::now();
            call();
            begin.elapsed()
        })
        .collect();
    each.sort_unstable();
    (each[10_000], each[19_800])
}

#[test]
#[ignore = "a measurement"]
fn programs_beside_cedar() {
    let (names, domain, facts) = (names(), trust_domain(), facts());
    let question = facts.question(&domain);
    println!(
        "{:>9} {:>24} {:>24}",
        "policies", "programs p50, p99", "Cedar p50, p99"
    );
    for count in [1, 8, 64] {
        let (mut programs, mut policies) = (Vec::new(), PolicySet::new());
        for (index, text) in POLICIES.iter().cycle().take(count).enumerate() {
            let policy = Policy::parse(Some(PolicyId::new(index.to_string())), text).unwrap();
            let pst::Policy::Static(body) = policy.to_pst().unwrap() else {
                panic!("{text}");
            };
            programs.push(Program::compile(body.body(), &names, &domain).unwrap());
            policies.add(policy).unwrap();
        }
        let world = World::of(&question, &names, ["x-tenant"].into_iter()).unwrap();
        let authorizer = Authorizer::new();
        let holding = programs
            .iter()
            .filter(|program| program.holds(&question) == Ok(true));
        assert!(
            count == 1 || holding.count() * 2 >= count / 2,
            "a fair mixture"
        );
        let (p50, p99) = time(|| {
            for program in &programs {
                let _ = black_box(program.holds(black_box(&question)));
            }
        });
        let (cedar_p50, cedar_p99) = time(|| {
            let response = authorizer.is_authorized(&world.request, &policies, &world.entities);
            black_box(response);
        });
        println!("{count:>9} {p50:>12.1?} {p99:>10.1?}  {cedar_p50:>12.1?} {cedar_p99:>10.1?}");
    }
}
