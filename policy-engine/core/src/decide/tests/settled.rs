//! What a connection has settled, and what each request must be asked anew: headers, the protocol, the time.

use super::*;
use std::collections::BTreeMap;

type Lines = BTreeMap<String, Vec<String>>;

fn lines(name: &str, value: &str) -> Lines {
    BTreeMap::from([(name.to_owned(), vec![value.to_owned()])])
}

/// One head, always the same text.
fn head(headers: &dyn crate::request::Headers, grpc: bool) -> Call<'_> {
    Call::Http(Head {
        method: "POST",
        target: "/grpc.health.v1.Health/Check",
        host: Some("cart"),
        grpc,
        headers,
    })
}

#[test]
fn a_route_that_looks_at_headers_is_chosen_anew_for_each_request() {
    let mut beta = route("beta", "/");
    beta.rules[0].matches[0].headers = vec![ValueMatch {
        name: "x-version".to_owned(),
        value: TextMatch::Exact("beta".to_owned()),
    }];
    let world = World::http()
        .route(beta)
        .route(route("all", "/"))
        .web_may("web", on_route("all"));
    let atoms = ConnectionAtoms::of(&world.compile(), &meshed("web"));
    let (beta, none) = (lines("x-version", "beta"), Lines::new());
    for (headers, want) in [
        (&none, "allow permit 200 [AuthorizationPolicy/shop/web/0]"),
        (&beta, "deny permit 403 []"),
        (&none, "allow permit 200 [AuthorizationPolicy/shop/web/0]"),
    ] {
        let decision = decide_on(&atoms, PORT, &head(headers, false), NOW);
        assert_eq!(short(&decision), want, "{headers:?}");
    }
}

#[test]
fn the_same_head_is_a_probe_as_grpc_and_none_as_http() {
    let world = World::new(ServerProtocol::Unknown).probe(ProbeKind::Grpc);
    let atoms = ConnectionAtoms::of(&world.compile(), &plaintext("10.0.0.9"));
    let none = Lines::new();
    for (grpc, verdict) in [
        (true, Verdict::Allow),
        (false, Verdict::Deny),
        (true, Verdict::Allow),
        (false, Verdict::Deny),
    ] {
        let decision = decide_on(&atoms, PORT, &head(&none, grpc), NOW);
        assert_eq!(decision.verdict, verdict, "gRPC: {grpc}");
    }
}

#[test]
fn a_grant_ends_on_a_connection_that_has_used_it() {
    let end = NOW.plus_secs(60);
    let mut ending = grant(
        "AuthorizationPolicy/shop/late/0",
        on_server("http"),
        Who::Anyone,
    );
    ending.term.expires = Some(end);
    let mut later = grant(
        "AuthorizationPolicy/shop/later/0",
        on_server("http"),
        Who::Anyone,
    );
    later.term.expires = Some(end.plus_secs(60));
    let snapshot = World::http().grant(later).grant(ending).compile();
    let atoms = ConnectionAtoms::of(&snapshot, &meshed("web"));
    let none = Lines::new();
    for (now, reasons) in [
        (NOW, 2),
        (NOW.plus_secs(59), 2),
        (end, 1),
        (end.plus_secs(59), 1),
        (end.plus_secs(60), 0),
        (NOW, 2),
    ] {
        let decision = decide_on(&atoms, PORT, &head(&none, false), now);
        let allowed = decision.verdict == Verdict::Allow;
        assert_eq!(
            (allowed, decision.reasons().len()),
            (reasons > 0, reasons),
            "{now}"
        );
    }
    let ends = [Some(end), Some(end.plus_secs(60)), None];
    let times = [NOW, end, end.plus_secs(60)];
    assert_eq!(times.map(|now| snapshot.next_change(now)), ends);
}

fn written(effect: Effect, text: &str) -> CedarText {
    CedarText {
        id: "CedarPolicy/shop/own/p".to_owned(),
        effect,
        text: text.to_owned(),
        confined_to: Some("shop".to_owned()),
        invalid: None,
        audit: false,
        term: Term::default(),
        source: at(7),
    }
}

#[test]
fn a_header_that_a_policy_looks_at_and_that_is_no_text_denies() {
    struct Raw(&'static [u8]);
    impl crate::request::Headers for Raw {
        fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            if name == "x-role" {
                each(self.0);
                each(b"user");
            }
        }
    }
    let mut world = open();
    world.0.cedar_policies.push(written(
        Effect::Forbid,
        "forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.headers.hasTag(\"x-role\") && context.req.headers.getTag(\"x-role\").contains(\"guest\") };",
    ));
    let snapshot = world.compile();
    let call = |value| {
        decide(
            &snapshot,
            PORT,
            &meshed("web"),
            &head(&Raw(value), false),
            NOW,
        )
        .verdict
    };
    assert_eq!(call(b"admin"), Verdict::Allow);
    assert_eq!(call(b"guest"), Verdict::Deny);
    assert_eq!(
        call(b"gue\xffst"),
        Verdict::Deny,
        "who knows what its reader makes of it"
    );
}

#[test]
fn a_policy_that_looks_at_the_time_may_change_its_answer_each_second() {
    let mut world = open();
    world.0.cedar_policies.push(written(
        Effect::Forbid,
        "forbid(principal, action, resource) when { context.now.toTime() < duration(\"6h\") };",
    ));
    assert_eq!(world.compile().next_change(NOW), Some(NOW.plus_secs(1)));
}

#[test]
fn one_broken_glass_among_ordinary_permits_is_recorded_as_such_in_any_order() {
    let mut glass = grant(
        "AuthorizationPolicy/shop/glass/0",
        on_server("http"),
        Who::Anyone,
    );
    glass.term.break_glass = Some("an incident".to_owned());
    let plain = grant(EVERYONE, on_server("http"), Who::Anyone);
    let none = Lines::new();
    for (first, second, recorded) in [
        (glass.clone(), plain.clone(), true),
        (plain.clone(), glass, true),
        (plain.clone(), plain, false),
    ] {
        let snapshot = World::http().grant(first).grant(second).compile();
        let decision = decide(&snapshot, PORT, &meshed("web"), &head(&none, false), NOW);
        assert_eq!(
            (decision.verdict, decision.break_glass),
            (Verdict::Allow, recorded)
        );
    }
}

#[test]
fn a_port_that_is_distrusted_denies_under_this_snapshot_and_cedar_still_answers() {
    let world = open();
    let (snapshot, next) = (world.compile(), world.compile());
    assert!(snapshot.is(&snapshot.clone()) && !snapshot.is(&next));
    snapshot.distrust(PORT);
    assert!(
        snapshot.is_distrusted(PORT) && !snapshot.is_distrusted(1) && !next.is_distrusted(PORT)
    );
    let (none, client) = (Lines::new(), meshed("web"));
    let atoms = ConnectionAtoms::of(&snapshot, &client);
    let denied = decide_on(&atoms, PORT, &head(&none, false), NOW);
    assert_eq!((denied.verdict, denied.reasons().len()), (Verdict::Deny, 0));
    let by_cedar = decide_by_cedar(&atoms, PORT, &head(&none, false), NOW);
    assert_eq!(by_cedar.verdict, Verdict::Allow);
    let other = decide(&next, PORT, &client, &head(&none, false), NOW);
    assert_eq!(other.verdict, Verdict::Allow);
}

#[test]
fn what_is_forwarded_is_named_only_where_it_is_not_what_came() {
    let snapshot = open().compile();
    let none = Lines::new();
    let ask = |target, host| {
        let call = Call::Http(Head {
            method: "GET",
            target,
            host: Some(host),
            grpc: false,
            headers: &none,
        });
        let decision = decide(&snapshot, PORT, &meshed("web"), &call, NOW);
        let owned = |text: Option<&str>| text.map(str::to_owned);
        (
            owned(decision.rewritten_path()),
            owned(decision.rewritten_host()),
        )
    };
    assert_eq!(ask("/a", "cart"), (None, None));
    assert_eq!(
        ask("//a/./b", "CART"),
        (Some("/a/b".to_owned()), Some("cart".to_owned()))
    );
}

#[test]
fn the_label_of_a_decision_is_the_first_of_its_reasons() {
    let world = open().web_may("web", on_server("http"));
    let cedar = written(
        Effect::Permit,
        "permit(principal is Mesh::Workload, action, resource);",
    );
    let mut with_text = world.clone();
    with_text.0.cedar_policies.push(cedar);
    let probed = world.clone().probe(ProbeKind::Grpc);
    let none = Lines::new();
    for (world, client, first) in [
        (&world, meshed("web"), Some(EVERYONE)),
        (&with_text, meshed("web"), Some(EVERYONE)),
        (&probed, plaintext("10.0.0.9"), Some(EVERYONE)),
        (
            &World::http().probe(ProbeKind::Grpc),
            meshed("web"),
            Some("default/probe"),
        ),
        (&World::http(), meshed("web"), None),
    ] {
        let decision = decide(&world.compile(), PORT, &client, &head(&none, true), NOW);
        let label = decision.first_reason().map(|reason| reason.to_string());
        assert_eq!(label.as_deref(), first);
        let reasons = decision.reasons();
        assert_eq!(label.as_deref(), reasons.first().map(|reason| &**reason));
    }
}

#[test]
fn reasons_of_all_kinds_are_sorted_together() {
    let late = grant(
        "ServerAuthorization/shop/z/0",
        on_server("http"),
        Who::Anyone,
    );
    let mut world = World::http().grant(late);
    let cedar = written(
        Effect::Permit,
        "permit(principal is Mesh::Workload, action, resource);",
    );
    world.0.cedar_policies.push(cedar);
    let decision = world.get(&meshed("web"), "/");
    let want = "allow permit 200 [CedarPolicy/shop/own/p ServerAuthorization/shop/z/0]";
    assert_eq!(short(&decision), want);
    let first = decision.first_reason().map(|reason| reason.to_string());
    assert_eq!(first.as_deref(), Some("CedarPolicy/shop/own/p"));
}

#[test]
fn a_probe_is_on_record_as_the_route_that_it_took() {
    let snapshot = World::new(ServerProtocol::Unknown)
        .probe(ProbeKind::Grpc)
        .compile();
    let (none, client) = (Lines::new(), plaintext("10.0.0.9"));
    let call = head(&none, true);
    let record = decide(&snapshot, PORT, &client, &call, NOW).record(None, &client, &call);
    let route = record.route.unwrap();
    assert_eq!(
        (route.kind.as_str(), route.name.as_str()),
        ("default", "probe")
    );
}

#[test]
fn what_is_read_as_bytes_has_no_request_in_its_record() {
    let snapshot = raw(ServerProtocol::Opaque).compile();
    let (none, client) = (Lines::new(), meshed("web"));
    let call = head(&none, false);
    let record = decide(&snapshot, PORT, &client, &call, NOW).record(None, &client, &call);
    assert_eq!(
        (record.verdict, record.status, record.request),
        (Verdict::Allow, None, None)
    );
}

#[test]
fn nothing_is_answered_in_a_protocol_where_the_transport_was_refused() {
    let mut odd = meshed("web");
    odd.tls = false;
    let decision = open().send(&odd, "POST", "/shop.Cart/Add", true);
    let said = (decision.phase, decision.status, decision.grpc_status);
    assert_eq!(said, (Phase::Transport, None, None));
}

#[test]
fn a_client_is_in_the_sets_that_name_it_and_in_no_others() {
    let snapshot = World::http()
        .web_may("web", on_server("http"))
        .networks("near", &[("10.0.0.0/8", &["10.1.0.0/16"])])
        .compile();
    let set = "MeshTLSAuthentication/shop/web";
    for (name, ip, known, near) in [
        ("web", "10.0.0.9", true, true),
        ("api", "10.1.0.9", false, false),
    ] {
        let atoms = ConnectionAtoms::of(&snapshot, &caller(&account(name), ip));
        assert_eq!(
            (atoms.in_identity_set(set), atoms.in_network_set("near")),
            (known, near)
        );
        assert!(
            !atoms.in_identity_set("near") && !atoms.in_network_set(set),
            "other kinds"
        );
        assert!(
            !atoms.in_identity_set("none") && !atoms.in_network_set("none"),
            "no such set"
        );
    }
}

#[test]
fn an_identity_without_tls_is_no_tcp_probe() {
    let snapshot = World::new(ServerProtocol::Opaque)
        .probe(ProbeKind::Tcp)
        .compile();
    let probes = |client: &Client| {
        let atoms = ConnectionAtoms::of(&snapshot, client);
        empty_connection_is_probe(&atoms, PORT)
    };
    assert!(probes(&plaintext("10.0.0.9")));
    let mut odd = meshed("web");
    odd.tls = false;
    assert!(!probes(&odd));
}

#[test]
fn a_client_that_several_sets_name_in_several_ways_is_in_each_of_them() {
    let of_shop = IdentityPattern::Namespace {
        trust_domain: domain("cluster.local"),
        namespace: "shop".to_owned(),
    };
    let web = IdentityPattern::Exact(account("web"));
    let forms = [
        vec![of_shop],
        vec![web.clone(), web],
        vec![IdentityPattern::Any],
    ];
    // Whatever the order of their names.
    for names in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
        let mut world = World::http();
        for (name, form) in names.iter().zip(&forms) {
            world = world.identities(name, form.clone());
        }
        for name in names {
            let text =
                format!("forbid(principal in Mesh::IdentitySet::\"{name}\", action, resource);");
            let mut forbidden =
                world
                    .clone()
                    .grant(grant(EVERYONE, on_server("http"), Who::Anyone));
            forbidden
                .0
                .cedar_policies
                .push(written(Effect::Forbid, &text));
            let atoms = ConnectionAtoms::of(&forbidden.compile(), &meshed("web"));
            assert!(atoms.in_identity_set(name), "{name} of {names:?}");
            let denied = forbidden.get(&meshed("web"), "/");
            assert_eq!(denied.verdict, Verdict::Deny, "{name} of {names:?}");
        }
    }
}

/// All that a log counts apart: the Server, the route, the reasons, and whether they are all audit ones.
fn counted_as(decision: &Decision, call: &Call<'_>) -> crate::record::DecisionRecord {
    let record = decision.record(None, &meshed("web"), call);
    crate::record::DecisionRecord {
        request: None,
        ..record
    }
}

#[test]
fn an_allow_is_recognized_only_while_it_rests_on_the_same() {
    let ending = |id, until| Grant {
        term: Term {
            expires: Some(until),
            ..Term::default()
        },
        ..grant(id, on_server("http"), Who::Anyone)
    };
    let mut world = open()
        .route(route("health", "/grpc.health.v1.Health"))
        .route(route("all", "/"))
        .web_may("web", on_route("health"))
        .grant(ending(
            "AuthorizationPolicy/shop/early/0",
            NOW.plus_secs(10),
        ))
        .grant(ending("AuthorizationPolicy/shop/late/0", NOW.plus_secs(20)));
    world.0.cedar_policies.push(written(
        Effect::Permit,
        "permit(principal, action == Mesh::Action::\"request\", resource) when { context.req.method == \"PUT\" };",
    ));
    let snapshot = world.compile();
    let atoms = ConnectionAtoms::of(&snapshot, &meshed("web"));
    let none = Lines::new();
    let call = |method, target| {
        Call::Http(Head {
            method,
            target,
            host: Some("cart"),
            grpc: false,
            headers: &none,
        })
    };
    let calls = [
        call("GET", "/grpc.health.v1.Health/Check"),
        call("GET", "/a"),
        call("GET", "/b"),
        call("PUT", "/a"),
    ];
    let times = [0, 5, 10, 15, 20, 25].map(|after| NOW.plus_secs(after));
    let mut recognized = 0;
    for (one, then) in at_all_times(&calls, &times) {
        let earlier = decide_on(&atoms, PORT, one, then);
        let grounds = earlier.grounds().unwrap();
        for (other, now) in at_all_times(&calls, &times) {
            let later = decide_on(&atoms, PORT, other, now);
            let same = counted_as(&earlier, one) == counted_as(&later, other);
            let known = grounds.are_of(&later);
            assert!(same || !known, "{one:?} at {then}, {other:?} at {now}");
            assert!(
                known || !same || now < then,
                "{one:?} at {then}, {other:?} at {now}"
            );
            recognized += usize::from(known);
        }
    }
    assert!(recognized > 0);
    let put = decide_on(&atoms, PORT, &calls[3], NOW).reasons();
    assert!(
        put.iter()
            .any(|reason| &**reason == "CedarPolicy/shop/own/p"),
        "{put:?}"
    );
}

fn at_all_times<'a, 'b>(
    calls: &'a [Call<'b>],
    times: &'a [Timestamp],
) -> impl Iterator<Item = (&'a Call<'b>, Timestamp)> {
    calls
        .iter()
        .flat_map(|call| times.iter().map(move |time| (call, *time)))
}

#[test]
fn nothing_is_recognized_under_another_policy_or_on_another_connection() {
    let world = open();
    let (first, second) = (world.compile(), world.compile());
    let none = Lines::new();
    let call = head(&none, false);
    let of = |snapshot| ConnectionAtoms::of(snapshot, &meshed("web"));
    let atoms = of(&first);
    let decision = decide_on(&atoms, PORT, &call, NOW);
    let grounds = decision.grounds().unwrap();
    assert!(grounds.are_of(&decision) && grounds.is_in_force_at(&decision));
    for other in [of(&first), of(&second)] {
        let decision = decide_on(&other, PORT, &call, NOW);
        assert!(!grounds.are_of(&decision) && !grounds.is_in_force_at(&decision));
    }
    let by_cedar = decide_by_cedar(&atoms, PORT, &call, NOW);
    assert!(!grounds.are_of(&by_cedar));
}

#[test]
fn a_denial_has_no_grounds_and_a_probe_is_not_a_grant() {
    let none = Lines::new();
    let (as_grpc, plain) = (head(&none, true), head(&none, false));
    let denied = decide(&World::http().compile(), PORT, &meshed("web"), &plain, NOW);
    assert!(denied.grounds().is_none());
    let snapshot = open().probe(ProbeKind::Grpc).compile();
    let atoms = ConnectionAtoms::of(&snapshot, &plaintext("10.0.0.9"));
    let probe = decide_on(&atoms, PORT, &as_grpc, NOW);
    let request = decide_on(&atoms, PORT, &plain, NOW);
    assert_eq!(
        (&probe.cause, &request.cause),
        (&Cause::Probe, &Cause::Granted)
    );
    let closed = World::new(ServerProtocol::Unknown)
        .probe(ProbeKind::Grpc)
        .compile();
    let atoms = ConnectionAtoms::of(&closed, &plaintext("10.0.0.9"));
    let alone = || decide_on(&atoms, PORT, &as_grpc, NOW);
    assert!(alone().grounds().unwrap().are_of(&alone()));
    assert!(!probe.grounds().unwrap().are_of(&request));
    assert!(!request.grounds().unwrap().are_of(&probe));
}

/// One grant covers both: what tells the two apart is the route, or the port, alone.
#[test]
fn an_allow_on_another_route_or_port_is_another_allow() {
    let mut world = open().route(route("a", "/a")).route(route("b", "/b"));
    let again = world.0.ports[&PORT].clone();
    world.0.ports.insert(PORT + 1, again);
    let snapshot = world.compile();
    let atoms = ConnectionAtoms::of(&snapshot, &meshed("web"));
    let none = Lines::new();
    let get = |port, target| {
        let head = Head {
            method: "GET",
            target,
            host: Some("cart"),
            grpc: false,
            headers: &none,
        };
        decide_on(&atoms, port, &Call::Http(head), NOW)
    };
    let first = get(PORT, "/a");
    let grounds = first.grounds().unwrap();
    assert!(grounds.are_of(&get(PORT, "/a/b")));
    for other in [get(PORT, "/b"), get(PORT + 1, "/a")] {
        assert_eq!(other.reasons(), first.reasons());
        assert!(!grounds.are_of(&other));
    }
}
