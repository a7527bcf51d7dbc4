//! Who can, what can, the matrix and the graph.

use crate::world::{NOW, SETTING, clients, grant, home, index, key, network, pod, route};
use mesh_policy::Snapshot;
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy_analysis::access::{PortAnswer, client_of, matrix, what_can, who_can};
use mesh_policy_analysis::graph::{Graph, Selector};
use mesh_policy_analysis::survey::Survey;
use mesh_policy_index::Index;
use mesh_policy_index::replay::Replay;
use mesh_trust::SpiffeId;
use std::collections::BTreeSet;

fn ask(index: &Index, namespace: &str, name: &str, port: u16) -> (Survey, PortAnswer) {
    let key = key(namespace, name);
    let data = index.snapshot(&key, Generation::default()).unwrap();
    let survey = who_can(&key, &Snapshot::compile(data).unwrap(), port, SETTING, None).unwrap();
    let answer = PortAnswer::of(&survey);
    (survey, answer)
}

fn shop(more: &str) -> Index {
    index(&(pod("shop", "cart") + &pod("shop", "web") + &pod("dev", "tool") + more))
}

#[test]
fn silence_lets_nobody_in() {
    let (survey, answer) = ask(&shop(""), "shop", "cart", 8080);
    assert!(answer.exact && answer.access.is_empty(), "{answer:?}");
    assert!(survey.decisions() > 0, "nobody was asked");
}

#[test]
fn equal_answers_stand_together_in_the_widest_words_that_are_true() {
    for (identities, want) in [
        (&["*"][..], vec!["every identity of cluster.local"]),
        (
            &["spiffe://cluster.local/ns/dev/*"],
            vec!["any identity of namespace dev"],
        ),
        (&["spiffe://cluster.local/ns/shop/sa/web"], vec!["shop/web"]),
    ] {
        let world = shop(
            &(clients("shop", "them", identities)
                + &grant("shop", "g", "Server cart", &["MeshTLSAuthentication them"])),
        );
        let (_, answer) = ask(&world, "shop", "cart", 8080);
        let who: Vec<_> = answer
            .access
            .iter()
            .flat_map(|one| one.who.clone())
            .collect();
        assert_eq!(who, want, "{identities:?}");
        assert_eq!(
            answer.access[0].reasons[0].policy,
            "AuthorizationPolicy/shop/g/0"
        );
        assert!(answer.access[0].reasons[0].source.starts_with("all.yaml:"));
    }
}

#[test]
fn a_namespace_is_not_called_whole_where_one_of_it_has_another_answer() {
    let world = shop(
        &(clients("shop", "devs", &["spiffe://cluster.local/ns/dev/*"])
            + &grant("shop", "g", "Server cart", &["MeshTLSAuthentication devs"])
            + &grant("shop", "own", "Server cart", &["ServiceAccount dev/tool"])),
    );
    let (_, answer) = ask(&world, "shop", "cart", 8080);
    let mut who: Vec<_> = answer.access.iter().map(|one| one.who.join(" ")).collect();
    who.sort();
    assert_eq!(who, ["any other identity of namespace dev", "dev/tool"]);
}

#[test]
fn a_hole_in_a_network_stays_outside() {
    let world = shop(
        &(network("shop", "lan", "10.0.0.0/8", &["10.1.0.0/16"])
            + &grant(
                "shop",
                "g",
                "Server cart",
                &["NetworkAuthentication lan", "ServiceAccount shop/web"],
            )),
    );
    let (_, answer) = ask(&world, "shop", "cart", 8080);
    let [access] = answer.access.as_slice() else {
        panic!("{answer:?}")
    };
    let from: Vec<ipnet::IpNet> = access
        .from
        .iter()
        .map(|block| block.parse().unwrap())
        .collect();
    let inside = |ip: &str| {
        from.iter()
            .any(|block| block.contains(&ip.parse::<std::net::IpAddr>().unwrap()))
    };
    assert!(inside("10.0.0.1") && inside("10.2.0.0") && !inside("10.1.2.3") && !inside("11.0.0.0"));
}

#[test]
fn a_rule_that_better_ones_cover_is_said_to_be_unreachable() {
    let world = shop(
        &(route("shop", "all", "cart", "{path: {value: /a}}")
            + &route("shop", "covered", "cart", "{path: {value: /a}}")
            + &route(
                "shop",
                "post",
                "cart",
                "{path: {value: /b}, method: POST}, {path: {value: /b}, headers: [{name: x, value: y}]}",
            )
            + &grant("shop", "g", "HTTPRoute post", &["ServiceAccount shop/web"])),
    );
    let (survey, answer) = ask(&world, "shop", "cart", 8080);
    assert_eq!(survey.shadowed, ["HTTPRoute shop/covered rule 0"]);
    assert!(answer.exact && answer.notes.len() == 1);
    let [access] = answer.access.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(access.requests, ["HTTPRoute shop/post rule 0 (POST /b)"]);
}

#[test]
fn every_answer_is_a_decision_of_replay_and_so_is_every_silence() {
    let world = shop(
        &(route("shop", "read", "cart", "{path: {value: /a}, method: GET}")
            + &route(
                "shop",
                "write",
                "cart",
                "{path: {type: RegularExpression, value: '/[a-c]+/x'}}",
            )
            + &clients("shop", "any", &["*"])
            + &network("shop", "lan", "10.0.0.0/8", &["10.0.0.0/30"])
            + &grant(
                "shop",
                "g1",
                "HTTPRoute read",
                &["MeshTLSAuthentication any"],
            )
            + &grant(
                "shop",
                "g2",
                "HTTPRoute write",
                &["NetworkAuthentication lan"],
            )
            + &grant("shop", "g3", "Server cart", &["ServiceAccount shop/web"])),
    );
    let (survey, _) = ask(&world, "shop", "cart", 8080);
    let mut replay = Replay::new(&world, NOW);
    let mut allows = 0;
    for who in 0..survey.clients.who.len() {
        for network in 0..survey.clients.networks.len() {
            for request in 0..survey.requests.len() {
                let found = survey
                    .allowed
                    .iter()
                    .find(|a| (a.who, a.network, a.request) == (who, network, request));
                let reasons = found
                    .map(|a| a.reasons.clone())
                    .unwrap_or_else(|| Vec::new().into());
                let asked = mesh_policy_analysis::survey::Allowed {
                    who,
                    network,
                    request,
                    reasons,
                };
                let record = replay.decide(&survey.witness(&asked).unwrap());
                assert_eq!(
                    record.verdict == Verdict::Allow,
                    found.is_some(),
                    "{record:?}"
                );
                let listed: Vec<String> = asked.reasons.iter().map(ToString::to_string).collect();
                assert_eq!(record.reasons, listed);
                allows += usize::from(found.is_some());
            }
        }
    }
    assert!(allows >= 10, "{allows}");
}

#[test]
fn what_an_identity_can_reach_is_the_column_of_who_can() {
    let world = shop(&grant(
        "shop",
        "g",
        "Server cart",
        &["ServiceAccount dev/tool"],
    ));
    let id = |text: &str| client_of(Some(SpiffeId::parse(text).unwrap()));
    let reached = what_can(
        &world,
        &id("spiffe://cluster.local/ns/dev/sa/tool"),
        SETTING,
    )
    .unwrap();
    let places: Vec<_> = reached
        .iter()
        .map(|one| format!("{}:{}", one.workload, one.port))
        .collect();
    assert_eq!(places, ["shop/cart:8080"]);
    for nobody in [
        "spiffe://cluster.local/ns/dev/sa/other",
        "spiffe://elsewhere.example/ns/dev/sa/tool",
    ] {
        assert!(what_can(&world, &id(nobody), SETTING).unwrap().is_empty());
    }
    assert!(
        what_can(&world, &client_of(None), SETTING)
            .unwrap()
            .is_empty()
    );
    let matrix = matrix(&world, &home(), SETTING).unwrap();
    let cells: Vec<_> = matrix
        .cells
        .iter()
        .map(|c| (c.from.as_str(), c.to.as_str(), c.ports[0].all))
        .collect();
    assert_eq!(
        cells,
        [("dev/tool", "shop/cart", false)],
        "bytes are refused on an HTTP Server"
    );
}

#[test]
fn a_way_over_others_is_found_and_the_smallest_cut_closes_it() {
    // dev -> a -> pay and dev -> b -> pay; both last hops stand on grants of their own, the first two on one.
    let text = ["a", "b", "pay"].map(|name| pod("shop", name)).concat()
        + &pod("dev", "tool")
        + &clients("shop", "dev", &["spiffe://cluster.local/ns/dev/sa/tool"])
        + "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: all, namespace: shop}\nspec:\n  targetRef: {kind: Namespace, name: shop}\n  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: dev}]\n"
        + &grant("shop", "from-a", "Server pay", &["ServiceAccount shop/a"])
        + &grant("shop", "from-b", "Server pay", &["ServiceAccount shop/b"]);
    let world = index(&text);
    let graph = Graph::of(&world, &home(), None, SETTING).unwrap();
    let start = ["dev/tool".to_owned()];
    let goal = BTreeSet::from(["shop/pay".to_owned()]);
    assert_eq!(graph.reach(&start, 1).len(), 3);
    assert_eq!(graph.reach(&start, 0).len(), 0);
    let cut = graph.cut(&start, &goal);
    let names: Vec<_> = cut
        .grants
        .iter()
        .map(|grant| grant.policy.as_str())
        .collect();
    assert_eq!(
        (names, cut.smallest),
        (vec!["AuthorizationPolicy/shop/all/0"], true)
    );
    assert!(
        graph
            .path(&start, &goal, &cut.grants.into_iter().collect())
            .is_none()
    );
    // The way back does not exist.
    assert!(
        graph
            .path(
                &["shop/pay".to_owned()],
                &BTreeSet::from(["dev/tool".to_owned()]),
                &BTreeSet::new()
            )
            .is_none()
    );
}

#[test]
fn the_smallest_cut_is_found_where_the_cheapest_hop_misleads() {
    // dev -> a and dev -> b by a grant each; a and b -> pay by one. Cutting hop by hop from the start takes two.
    let text = ["a", "b", "pay"].map(|name| pod("shop", name)).concat()
        + &pod("dev", "tool")
        + &clients(
            "shop",
            "both",
            &[
                "spiffe://cluster.local/ns/shop/sa/a",
                "spiffe://cluster.local/ns/shop/sa/b",
            ],
        )
        + &grant("shop", "to-a", "Server a", &["ServiceAccount dev/tool"])
        + &grant("shop", "to-b", "Server b", &["ServiceAccount dev/tool"])
        + &grant("shop", "pay", "Server pay", &["MeshTLSAuthentication both"]);
    let graph = Graph::of(&index(&text), &home(), None, SETTING).unwrap();
    let goal = BTreeSet::from(["shop/pay".to_owned()]);
    let cut = graph.cut(&["dev/tool".to_owned()], &goal);
    let names: Vec<_> = cut
        .grants
        .iter()
        .map(|grant| grant.policy.as_str())
        .collect();
    assert_eq!(
        (names, cut.smallest),
        (vec!["AuthorizationPolicy/shop/pay/0"], true)
    );
}

#[test]
fn selectors_are_a_namespace_or_a_workload_of_it() {
    assert!(Selector::parse("dev").is_ok_and(|one| one.workload.is_none()));
    assert!(
        Selector::parse("dev/tool")
            .is_ok_and(|one| one.has(&key("dev", "tool")) && !one.has(&key("dev", "x")))
    );
    for wrong in ["", "/", "dev/", "/x", "a/b/c"] {
        assert!(Selector::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Selector::parse("dve").unwrap().among(&shop("")).is_err());
}

#[test]
fn a_cut_of_many_grants_is_the_smallest_at_once() {
    // Forty ways of two hops each: the first hops share one grant by their clients, the second hops have one each.
    let mut text = pod("a", "start") + &pod("z", "goal");
    for number in 0..40 {
        let name = format!("m{number}");
        text += &pod("mid", &name);
        text += &grant(
            "mid",
            &format!("in{number}"),
            &format!("Server {name}"),
            &["ServiceAccount a/start"],
        );
        text += &grant(
            "z",
            &format!("out{number}"),
            "Server goal",
            &[&format!("ServiceAccount mid/{name}")],
        );
    }
    text += &clients(
        "z",
        "all",
        &["*.mid.serviceaccount.identity.mesh-system.cluster.local"],
    );
    text += &grant("z", "wide", "Server goal", &["MeshTLSAuthentication all"]);
    let world = index(&text);
    let graph = Graph::of(&world, &home(), None, SETTING).unwrap();
    let goal = BTreeSet::from(["z/goal".to_owned()]);
    let cut = graph.cut(&["a/start".to_owned()], &goal);
    assert!(cut.smallest);
    assert_eq!(cut.grants.len(), 40);
    let removed = cut.grants.iter().cloned().collect();
    assert!(
        graph
            .path(&["a/start".to_owned()], &goal, &removed)
            .is_none()
    );
    // Of the two ends the cheaper is cut.
    let cut = graph.cut(&["mid/m0".to_owned()], &goal);
    assert_eq!((cut.grants.len(), cut.smallest), (2, true));
}

#[test]
fn declared_probes_are_classes_of_requests_and_open_to_everybody() {
    let probed = pod("shop", "cart").replace(
        "containerPort: 8080, name: http}]",
        "containerPort: 8080, name: http}], livenessProbe: {httpGet: {path: /alive, port: 8080}}, readinessProbe: {grpc: {port: 8080}}",
    );
    let world = index(&probed);
    let (survey, answer) = ask(&world, "shop", "cart", 8080);
    for class in [
        "probe (GET /alive)",
        "probe (POST /grpc.health.v1.Health/Check)",
    ] {
        assert!(
            survey.requests.iter().any(|one| one.what == class),
            "{class}: {:?}",
            survey.requests
        );
        let open = answer
            .access
            .iter()
            .find(|row| row.requests.iter().any(|one| one == class));
        assert_eq!(
            open.map(|row| row.who.as_slice()),
            Some(&["everybody".to_owned()][..]),
            "{class}"
        );
    }
}
