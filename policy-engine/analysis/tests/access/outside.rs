//! What may leave the mesh, in questions about whole meshes.

use crate::world::{NOW, SETTING, grant, home, index, key, pod};
use mesh_policy::Snapshot;
use mesh_policy::decide::Verdict;
use mesh_policy_analysis::diff::{Diff, diff};
use mesh_policy_analysis::graph::{Graph, OUTSIDE, Selector, Step};
use mesh_policy_analysis::outside::Scope;
use mesh_policy_analysis::outside::access::{Outgoing, Where, outgoing};
use mesh_policy_analysis::outside::change::{OutsideChange, differences};
use mesh_policy_analysis::outside::sent::Sent;
use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_analysis::world::World;
use mesh_policy_index::Index;

fn network(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

/// A route on port 443 of `guard` in mesh-system.
fn route(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "HTTPRoute" | "GRPCRoute" => "v1",
        _ => "v1alpha2",
    };
    format!(
        "---\napiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: mesh-system}}\nspec: {{parentRefs: [{{group: policy.linkerd.io, kind: EgressNetwork, name: guard, port: 443}}], {spec}}}\n"
    )
}

fn guard() -> String {
    network("mesh-system", "guard", "trafficPolicy: Deny")
}

fn tls(name: &str, hostnames: &str) -> String {
    route(
        "TLSRoute",
        name,
        &format!("hostnames: [{hostnames}], rules: [{{backendRefs: []}}]"),
    )
}

fn pods() -> String {
    pod("shop", "cart") + &pod("shop", "web")
}

fn compared(before: &str, after: &str) -> Diff {
    diff(
        &index(&(pods() + before)),
        &index(&(pods() + after)),
        SETTING,
    )
    .unwrap()
}

/// Ports, and what may be sent there.
fn what(change: &OutsideChange) -> (Vec<&str>, Vec<&str>) {
    (
        change.access.ports.iter().map(String::as_str).collect(),
        change.access.sent.iter().map(String::as_str).collect(),
    )
}

#[test]
fn a_guard_that_goes_opens_everything_outside_for_all_workloads_at_once() {
    let found = compared(&guard(), "");
    assert!(
        found.exact && found.gained.is_empty() && !found.is_empty(),
        "{found:?}"
    );
    let [gained] = found.outside.gained.as_slice() else {
        panic!("{found:?}")
    };
    assert!(found.outside.lost.is_empty());
    assert_eq!(gained.workloads, ["shop/cart", "shop/web"]);
    assert_eq!(what(gained), (vec![], vec![]), "any port, anything");
    assert!(gained.access.to.is_empty(), "any address: {gained:?}");
    assert_eq!(gained.access.reasons, []);
    let closed = &gained.closed_by[0];
    assert_eq!(closed.policy, "EgressNetwork/mesh-system/guard/deny");
    assert!(closed.source.starts_with("all.yaml:"), "{closed:?}");
    let (before, after) = (
        gained.before.as_ref().unwrap(),
        gained.after.as_ref().unwrap(),
    );
    assert_eq!(before.decision.verdict, Verdict::Deny);
    assert_eq!(after.decision.verdict, Verdict::Allow);
    assert_eq!(after.cause, "no EgressNetwork speaks for this address");
    let back = compared("", &guard());
    assert_eq!((back.outside.gained.len(), back.outside.lost.len()), (0, 1));
}

#[test]
fn one_more_name_is_one_more_name() {
    let before = guard() + &tls("bank", "api.bank.example, '*.cdn.example'");
    let after = guard() + &tls("bank", "api.bank.example, '*.cdn.example', '*.example'");
    let found = compared(&before, &after);
    let [gained] = found.outside.gained.as_slice() else {
        panic!("{found:?}")
    };
    assert!(found.exact && found.outside.lost.is_empty(), "{found:?}");
    assert_eq!(
        what(gained),
        (vec!["443"], vec!["TLS to any other name under *.example"])
    );
    assert_eq!(
        gained.access.reasons[0].policy,
        "TLSRoute/mesh-system/bank/0"
    );
    assert!(gained.access.reasons[0].source.starts_with("all.yaml:"));
    let Sent::Tls {
        server_name: Some(name),
    } = &gained.access.witness.sent
    else {
        panic!("{gained:?}")
    };
    assert!(
        name.ends_with(".example") && !name.ends_with(".cdn.example"),
        "{name}"
    );
}

#[test]
fn an_exception_that_goes_is_found_at_its_own_addresses() {
    let holed = |except: &str| {
        network(
            "shop",
            "far",
            &format!("trafficPolicy: Deny, networks: [{{cidr: 203.0.113.0/24{except}}}]"),
        )
    };
    let found = compared(&holed(", except: [203.0.113.64/32]"), &holed(""));
    let [lost] = found.outside.lost.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(lost.access.to, ["203.0.113.64/32"]);
    assert_eq!(lost.access.reasons, [], "nobody spoke for it");
    assert_eq!(lost.closed_by[0].policy, "EgressNetwork/shop/far/deny");
    assert_eq!(lost.access.witness.to.ip().to_string(), "203.0.113.64");
    assert!(found.outside.gained.is_empty() && found.exact);
}

#[test]
fn requests_are_told_apart_by_all_that_routes_look_at() {
    let rule = |matches: &str| {
        guard()
            + &route(
                "HTTPRoute",
                "api",
                &format!("hostnames: [api.example], rules: [{{matches: [{matches}]}}]"),
            )
    };
    for (before, after, want) in [
        (
            "{path: {type: Exact, value: /a}}",
            "{path: {type: PathPrefix, value: /a}}",
            &["HTTP to api.example: below /a"][..],
        ),
        (
            "{method: GET}",
            "{method: GET}, {method: PUT}",
            &["HTTP to api.example: PUT"],
        ),
        (
            "{headers: [{name: x-team, value: red}]}",
            "{headers: [{name: x-team, value: red}]}, {headers: [{name: x-team, value: blue}]}",
            &["HTTP to api.example: with x-team: blue"],
        ),
        (
            "{queryParams: [{name: q, value: '1'}]}",
            "{queryParams: [{name: q, value: '1'}]}, {queryParams: [{name: q, value: '2'}]}",
            &["HTTP to api.example: with ?q=2"],
        ),
    ] {
        let found = compared(&rule(before), &rule(after));
        let [gained] = found.outside.gained.as_slice() else {
            panic!("{after}: {found:?}")
        };
        assert_eq!(what(gained), (vec!["443"], want.to_vec()));
        assert!(found.exact && found.outside.lost.is_empty());
    }
}

#[test]
fn a_regular_expression_is_tried_and_the_answer_says_so() {
    let rule = |path: &str| {
        guard()
            + &route(
                "HTTPRoute",
                "api",
                &format!(
                    "rules: [{{matches: [{{path: {{type: RegularExpression, value: {path}}}}}]}}]"
                ),
            )
    };
    let found = compared(&rule("/a"), &rule("/b+"));
    assert!(
        !found.exact && !found.outside.gained.is_empty(),
        "{found:?}"
    );
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.contains("regular expressions")),
        "{found:?}"
    );
    // Nothing is found that differs, and that is not said to be all.
    let found = compared(&rule("/a"), &rule("/(a)"));
    assert!(!found.exact && found.outside.is_empty(), "{found:?}");
}

#[test]
fn more_combinations_than_are_asked_are_reported() {
    let headers: String = (0..16)
        .map(|n| format!("{{headers: [{{name: x-{n}, value: a}}]}}, "))
        .collect();
    let rule = |more: &str| {
        guard()
            + &route(
                "HTTPRoute",
                "api",
                &format!("rules: [{{matches: [{headers}{more}]}}]"),
            )
    };
    let found = compared(
        &rule("{method: GET, path: {type: Exact, value: /a}}"),
        &rule("{method: PUT, path: {type: Exact, value: /a}}"),
    );
    assert!(!found.exact, "{found:?}");
    assert!(
        found.notes.iter().any(|note| note.contains("20000")),
        "{:?}",
        found.notes
    );
    assert_eq!(
        (found.outside.gained.len(), found.outside.lost.len()),
        (1, 1),
        "tried all the same"
    );
}

#[test]
fn a_network_that_moved_to_another_line_is_no_change() {
    let one = guard() + &tls("bank", "api.bank.example");
    // With an expression that would be tried, were it looked at.
    let regex = route(
        "HTTPRoute",
        "api",
        "rules: [{matches: [{path: {type: RegularExpression, value: /a+}}]}]",
    );
    for text in [one.clone(), guard() + &regex] {
        let found = compared(&text, &format!("# a comment\n\n\n{text}"));
        assert!(found.is_empty() && found.exact, "{found:?}");
    }
}

#[test]
fn a_workload_of_one_side_gains_what_it_reaches() {
    let elsewhere = network("other", "own", "trafficPolicy: Deny") + &pod("other", "one");
    for (text, count) in [(elsewhere, 1), (guard(), 0)] {
        let (none, some) = (index(&text), index(&(text + &pods())));
        let found = diff(&none, &some, SETTING).unwrap();
        // The cluster's own addresses are none outside.
        assert_eq!(found.outside.gained.len(), count, "{found:?}");
        for gained in &found.outside.gained {
            assert!(gained.access.to.is_empty() && gained.access.sent.is_empty());
            assert!(gained.before.is_none() && gained.closed_by.is_empty());
        }
        let back = diff(&some, &none, SETTING).unwrap();
        assert_eq!(back.outside.lost.len(), count, "{back:?}");
    }
}

#[test]
fn where_nobody_is_kept_in_one_workload_more_opens_nothing() {
    let after = index(&(pods() + &pod("shop", "new")));
    let found = diff(&index(&pods()), &after, SETTING).unwrap();
    assert!(found.outside.is_empty(), "{found:?}");
}

fn ask(text: &str, asked: Where<'_>) -> Vec<Outgoing> {
    outgoing(&index(&(pods() + text)), |_| true, asked).unwrap()
}

#[test]
fn who_gets_out_is_told_apart_by_service_account() {
    let only = tls("bank", "api.bank.example").replace(
        "namespace: mesh-system}",
        "namespace: mesh-system, annotations: {mesh.internal/service-accounts: cart}}",
    );
    let text = guard() + &only;
    let to = Where {
        to: Some("203.0.113.7:443".parse().unwrap()),
        sent: None,
    };
    let found = ask(&text, to);
    let [cart] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(cart.workloads, ["shop/cart"]);
    assert!(cart.exact);
    assert_eq!(cart.access[0].sent, ["TLS to api.bank.example"]);
    assert_eq!(cart.access[0].witness.to, to.to.unwrap());
    for (name, count) in [("api.bank.example", 1), ("evil.example", 0)] {
        let sent = Sent::Tls {
            server_name: Some(name.to_owned()),
        };
        let found = ask(
            &text,
            Where {
                sent: Some(&sent),
                ..to
            },
        );
        assert_eq!(found.len(), count, "{name}: {found:?}");
    }
    let elsewhere = Where {
        to: Some("203.0.113.7:8443".parse().unwrap()),
        sent: None,
    };
    assert!(ask(&text, elsewhere).is_empty());
}

#[test]
fn what_a_workload_reaches_is_listed_with_what_lets_it_out() {
    let text = guard() + &tls("bank", "api.bank.example");
    let world = index(&(pods() + &text));
    let found = outgoing(&world, |one| *one == key("shop", "web"), Where::default()).unwrap();
    let [web] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(web.workloads, ["shop/web"]);
    let [out] = web.access.as_slice() else {
        panic!("{web:?}")
    };
    assert_eq!(out.sent, ["TLS to api.bank.example"]);
    assert_eq!(out.reasons[0].policy, "TLSRoute/mesh-system/bank/0");
}

fn way_out(world: &Index) -> Proof {
    let [from, to] = ["dev", "outside"].map(|text| Selector::parse(text).unwrap());
    prove(world, &Question::NoPath(from, to), NOW)
}

#[test]
fn who_gets_out_over_others_is_found() {
    // `dev` gets out of nothing itself, but calls `shop`, which does.
    let closed = network("dev", "none", "trafficPolicy: Deny");
    let calls = grant("shop", "g", "Server cart", &["ServiceAccount dev/tool"]);
    let text = pod("dev", "tool") + &pods() + &closed;
    let world = index(&text);
    assert!(
        matches!(way_out(&world), Proof::Holds { .. }),
        "nobody to go over"
    );
    let world = index(&(text.clone() + &calls));
    let Proof::Violated { why, witness } = way_out(&world) else {
        panic!("{:?}", way_out(&world))
    };
    assert!(why.contains("-> shop/cart -> outside"), "{why}");
    assert_eq!(witness.len(), 1, "the call; the last step has no record");
    let world = index(&(text + &calls + &guard()));
    assert!(
        matches!(way_out(&world), Proof::Holds { .. }),
        "nobody gets out"
    );
}

#[test]
fn an_edge_to_outside_names_what_lets_it_out() {
    let world = index(&(pods() + &guard() + &tls("bank", "api.bank.example")));
    let mut graph = Graph::of(&world, &home(), None, SETTING).unwrap();
    assert!(graph.edges.is_empty(), "only if it is asked for");
    graph.add_outside(&world).unwrap();
    let edges = graph.reach(&["shop/web".to_owned()], 1);
    let [edge] = edges.as_slice() else {
        panic!("{edges:?}")
    };
    assert_eq!(edge.to, OUTSIDE);
    assert_eq!(edge.grants[0].policy, "TLSRoute/mesh-system/bank/0");
    let Step::Leaves(leaves) = &edge.witness else {
        panic!("{edge:?}")
    };
    assert_eq!((leaves.from.as_str(), leaves.to.port()), ("shop/web", 443));
}

#[test]
fn a_namespace_called_outside_is_a_namespace() {
    let world = index(&(pods() + &pod("dev", "tool") + &pod("outside", "x")));
    assert!(
        matches!(way_out(&world), Proof::Holds { .. }),
        "nobody is let in there"
    );
}

#[test]
fn methods_of_grpc_are_told_apart_from_paths_beside_them() {
    let grpc = |matches: &str| {
        route(
            "GRPCRoute",
            "rpc",
            &format!("rules: [{{matches: [{matches}]}}]"),
        )
    };
    let http = |rule: &str| {
        route(
            "HTTPRoute",
            "web",
            &format!("rules: [{{matches: [{{path: {{value: /a}}}}]{rule}}}]"),
        )
    };
    // A route that is invalid takes all below /a, and with it the method b of a service that is called so.
    let torn =
        http(", filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}]");
    let before = guard() + &grpc("{method: {method: b}}");
    let found = compared(&before, &(before.clone() + &torn));
    let [lost] = found.outside.lost.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        lost.access.sent,
        ["HTTP without a host: POST /a/b", "HTTP: POST /a/b"]
    );
    assert!(found.outside.gained.is_empty() && found.exact);
    // Every method of every service was open; what has more segments, or fewer, was not.
    let before = guard()
        + &grpc("{}")
            .replace(", matches: [{}]", "")
            .replace("matches: [{}]", "name: all");
    let found = compared(&before, &(before.clone() + &http("")));
    let [gained] = found.outside.gained.as_slice() else {
        panic!("{found:?}")
    };
    let sent = &gained.access.sent;
    let is = |what: &str| sent.iter().any(|sent| *sent == format!("HTTP: {what}"));
    assert!(
        is("POST far below /a") && is("any other method below /a"),
        "{gained:?}"
    );
    assert!(!is("POST below /a"), "a method, which was open: {gained:?}");
}

#[test]
fn one_address_and_port_is_asked_about_alone() {
    let at = |to: &str| Where {
        to: Some(to.parse().unwrap()),
        sent: None,
    };
    let text = guard()
        + &network(
            "mesh-system",
            "far",
            "trafficPolicy: Allow, networks: [{cidr: 203.0.113.0/24}]",
        )
        + &tls("bank", "api.bank.example");
    let sent = |to: &str| -> Vec<Vec<String>> {
        let found = ask(&text, at(to));
        let access = found.into_iter().flat_map(|one| one.access);
        access.map(|one| one.sent).collect()
    };
    assert_eq!(sent("203.0.113.7:443"), [Vec::<String>::new()], "anything");
    assert_eq!(sent("198.51.100.7:443"), [["TLS to api.bank.example"]]);
    assert!(sent("198.51.100.7:80").is_empty());
    // Nobody speaks for the cluster's own, and who asks about one is told so.
    assert_eq!(sent("10.0.0.7:80").len(), 1);
}

#[test]
fn what_would_cost_too_much_is_not_asked_and_named() {
    let world = index(&(pods() + &guard()));
    let data = World::snapshot(&world, &key("shop", "web")).unwrap();
    let view = Snapshot::compile(data).unwrap();
    let scope = Scope {
        decisions_max: 3,
        ..Scope::default()
    };
    let (found, inexact) = differences(None, Some(&view), scope);
    assert!(found.is_empty(), "{found:?}");
    assert!(
        inexact.0[0].contains("any other port") && inexact.0[0].contains("the limit is 3"),
        "{inexact:?}"
    );
}

#[test]
fn what_leaves_in_a_laxer_manner_is_gained() {
    const TLS: &str = "mesh.internal/originate-tls: \"443\", mesh.internal/tls-roots: system";
    let requests = |annotations: &str| {
        let spec = "hostnames: [api.example], rules: [{backendRefs: []}]";
        let route = route("HTTPRoute", "api", spec).replace("port: 443", "port: 80");
        let name = "namespace: mesh-system";
        let named = format!("{name}, annotations: {{{annotations}}}}}");
        guard()
            + &route.replace(
                &format!("{name}}}\nspec: {{parentRefs"),
                &format!("{named}\nspec: {{parentRefs"),
            )
    };
    let unbound = "mesh.internal/bind-names: \"false\"";
    let lax = format!("{TLS}, mesh.internal/tls-min-version: \"1.2\"");
    for (before, after, gained, was, is) in [
        (
            "",
            unbound,
            true,
            "to the addresses of `api.example` alone",
            "to whatever address",
        ),
        (
            unbound,
            "",
            false,
            "to whatever address",
            "to the addresses of `api.example` alone",
        ),
        (
            TLS,
            unbound,
            true,
            "in TLS 1.3 or later to port 443",
            "as it is",
        ),
        (
            TLS,
            "",
            true,
            "in TLS 1.3 or later to port 443",
            "to the addresses",
        ),
        ("", TLS, true, "to the addresses", "by roots of the system"),
        (TLS, &lax, true, "TLS 1.3", "TLS 1.2"),
        (&lax, TLS, false, "TLS 1.2", "TLS 1.3"),
    ] {
        let found = compared(&requests(before), &requests(after));
        let (mine, others) = match gained {
            true => (&found.outside.gained, &found.outside.lost),
            false => (&found.outside.lost, &found.outside.gained),
        };
        let [change] = mine.as_slice() else {
            panic!("{before} -> {after}: {found:?}")
        };
        assert!(
            others.is_empty() && change.closed_by.is_empty(),
            "{found:?}"
        );
        let (ports, sent) = what(change);
        assert_eq!(ports, ["80"]);
        let of_route = |what: &&str| what.starts_with("HTTP to api.example");
        assert!(!sent.is_empty() && sent.iter().all(of_route), "{sent:?}");
        let words =
            [&change.before, &change.after].map(|said| said.as_ref().unwrap().cause.clone());
        assert!(words[0].contains(was) && words[1].contains(is), "{words:?}");
    }
    let same = compared(&requests(TLS), &requests(TLS));
    assert!(same.outside.is_empty(), "{same:?}");
}
