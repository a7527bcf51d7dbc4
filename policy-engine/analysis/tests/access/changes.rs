//! What two policies decide differently.

use crate::world::{NOW, SETTING, clients, grant, index, key, network, pod, route};
use mesh_policy::Snapshot;
use mesh_policy::decide::{Generation, Verdict, decide};
use mesh_policy::request::{Client, RequestRecord};
use mesh_policy_analysis::classes::clients as client_classes;
use mesh_policy_analysis::classes::request::requests;
use mesh_policy_analysis::diff::diff;
use mesh_policy_analysis::survey::client;
use mesh_policy_analysis::world::{World, deciding_part};
use mesh_policy_index::Index;
use mesh_policy_index::replay::Replay;
use proptest::prelude::*;

fn verdict(index: &Index, record: &RequestRecord) -> Verdict {
    Replay::new(index, NOW).decide(record).verdict
}

#[test]
fn a_grant_that_moved_to_another_line_is_no_change() {
    let base =
        pod("shop", "cart") + &grant("shop", "g", "Server cart", &["ServiceAccount shop/web"]);
    let found = diff(
        &index(&base),
        &index(&format!("# a comment\n\n{base}")),
        SETTING,
    )
    .unwrap();
    assert!(found.is_empty() && found.exact, "{found:?}");
    assert!(found.new_findings.is_empty() && found.gone_findings.is_empty());
}

#[test]
fn a_fault_that_is_injected_decides_nothing() {
    let base =
        pod("shop", "cart") + &grant("shop", "g", "Server cart", &["ServiceAccount shop/web"]);
    let fault = "---\napiVersion: mesh.internal/v1alpha1\nkind: HTTPFault\nmetadata: {name: f, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, identities: ['spiffe://cluster.local/ns/shop/sa/web'], until: '2027-01-31T18:00:00Z', abort: {percent: 5, httpStatus: 503}}\n";
    let (before, after) = (index(&base), index(&(base + fault)));
    let data = |index: &Index| World::snapshot(index, &key("shop", "cart")).unwrap();
    assert!(!data(&after).ports[&8080].faults.is_empty());
    assert_eq!(deciding_part(data(&before)), deciding_part(data(&after)));
    let found = diff(&before, &after, SETTING).unwrap();
    assert!(found.is_empty() && found.exact, "{found:?}");
}

#[test]
fn what_is_gained_and_lost_is_shown_by_requests_that_replay_decides_so() {
    let base = pod("shop", "cart");
    let before =
        index(&(base.clone() + &grant("shop", "old", "Server cart", &["ServiceAccount shop/web"])));
    let after = index(&(base + &grant("shop", "new", "Server cart", &["ServiceAccount dev/tool"])));
    let found = diff(&before, &after, SETTING).unwrap();
    let [gained] = found.gained.as_slice() else {
        panic!("{found:?}")
    };
    let [lost] = found.lost.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (&gained.access.who[..], &lost.access.who[..]),
        (&["dev/tool".to_owned()][..], &["shop/web".to_owned()][..])
    );
    for (change, verdicts) in [
        (gained, (Verdict::Deny, Verdict::Allow)),
        (lost, (Verdict::Allow, Verdict::Deny)),
    ] {
        let record = &change.access.witness;
        assert_eq!(
            (verdict(&before, record), verdict(&after, record)),
            verdicts
        );
        assert_eq!((change.before.verdict, change.after.verdict), verdicts);
    }
}

#[test]
fn workloads_and_ports_of_one_side_count() {
    let open =
        pod("shop", "cart") + &grant("shop", "g", "Server cart", &["ServiceAccount shop/web"]);
    let (none, some) = (
        index(&pod("shop", "web")),
        index(&(pod("shop", "web") + &open)),
    );
    let found = diff(&none, &some, SETTING).unwrap();
    assert!(
        found.gained.len() == 1 && found.lost.is_empty(),
        "{found:?}"
    );
    let back = diff(&some, &none, SETTING).unwrap();
    assert!(back.lost.len() == 1 && back.gained.is_empty(), "{back:?}");
}

#[test]
fn where_two_route_tables_cross_the_difference_is_found() {
    // Before: /a on any host. After: also any path on one host, which wins there. Neither rule's own witness is decided
    // differently; only a request that both take is.
    let base = pod("shop", "cart")
        + &grant("shop", "g", "HTTPRoute one", &["ServiceAccount shop/web"])
        + &route("shop", "one", "cart", "{path: {value: /a}}");
    let two = route("shop", "two", "cart", "{path: {value: /}}")
        .replace("  rules:", "  hostnames: [h.example]\n  rules:");
    let (before, after) = (index(&base), index(&(base.clone() + &two)));
    let found = diff(&before, &after, SETTING).unwrap();
    let [lost] = found.lost.as_slice() else {
        panic!("{found:?}")
    };
    let witness = &lost.access.witness;
    assert_eq!(witness.host.as_deref(), Some("h.example"));
    assert!(found.gained.is_empty() && found.exact);
    assert_eq!(verdict(&before, witness), Verdict::Allow);
    assert_eq!(verdict(&after, witness), Verdict::Deny);
}

const IDS: [&str; 4] = ["dev/a", "dev/b", "shop/c", "ops/d"];

/// A small world out of numbers.
fn small(picks: &[(u8, u8, u8, bool)], routes: &[u8]) -> String {
    let mut text = pod("shop", "cart") + &pod("shop", "web") + &pod("dev", "tool");
    text += &clients("shop", "all", &["*"]);
    text += &clients("shop", "devs", &["spiffe://cluster.local/ns/dev/*"]);
    text += &network("shop", "lan", "10.0.0.0/8", &["10.1.0.0/16"]);
    for (n, route_of) in routes.iter().enumerate() {
        let matches = [
            "{path: {value: /a}}",
            "{path: {value: /a/b}}",
            "{path: {value: /a}, method: POST}",
            "{path: {type: Exact, value: /a}}",
        ];
        text += &route(
            "shop",
            &format!("r{n}"),
            "cart",
            matches[usize::from(*route_of) % 4],
        );
    }
    for (n, (who, target, _, lan)) in picks.iter().enumerate() {
        let who = match who % 6 {
            4 => "MeshTLSAuthentication all".to_owned(),
            5 => "MeshTLSAuthentication devs".to_owned(),
            n => format!("ServiceAccount {}", IDS[usize::from(n)]),
        };
        let target = match target % 4 {
            0 => "Server cart",
            1 => "Server web",
            2 => "HTTPRoute r0",
            _ => "HTTPRoute r1",
        };
        let mut refs = vec![who.as_str()];
        if *lan {
            refs.push("NetworkAuthentication lan");
        }
        text += &grant("shop", &format!("g{n}"), target, &refs);
    }
    text
}

/// Questions that two worlds answer differently, each class asked by itself: (gained, lost).
fn brute(before: &Index, after: &Index) -> (usize, usize) {
    let (mut gained, mut lost) = (0, 0);
    for name in ["cart", "web"] {
        let data = [before, after].map(|index| {
            index
                .snapshot(&key("shop", name), Generation::default())
                .unwrap()
        });
        let views = data.clone().map(|data| Snapshot::compile(data).unwrap());
        let who = client_classes(&[&data[0], &data[1]], &[], None);
        for port in [8080, 9] {
            let asked = requests(&[&views[0], &views[1]], port, NOW, None);
            for class in &who.who {
                for network in &who.networks {
                    for request in &asked.classes {
                        let client: Client = client(class, network.address);
                        let allow = |view| {
                            decide(view, port, &client, &request.ask.call(), NOW).verdict
                                == Verdict::Allow
                        };
                        gained += usize::from(!allow(&views[0]) && allow(&views[1]));
                        lost += usize::from(allow(&views[0]) && !allow(&views[1]));
                    }
                }
            }
        }
    }
    (gained, lost)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_difference_is_what_brute_force_finds(
        one in prop::collection::vec(any::<(u8, u8, u8, bool)>(), 0..5),
        other in prop::collection::vec(any::<(u8, u8, u8, bool)>(), 0..5),
        routes in prop::collection::vec(any::<u8>(), 0..3),
        more in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let (before, after) = (index(&small(&one, &routes)), index(&small(&other, &more)));
        let same = diff(&before, &before, SETTING).unwrap();
        prop_assert!(same.is_empty() && same.exact);
        let found = diff(&before, &after, SETTING).unwrap();
        let (gained, lost) = brute(&before, &after);
        prop_assert_eq!((found.gained.is_empty(), found.lost.is_empty()), (gained == 0, lost == 0), "{:?}", found);
        for change in &found.gained {
            prop_assert_eq!(verdict(&before, &change.access.witness), Verdict::Deny);
            prop_assert_eq!(verdict(&after, &change.access.witness), Verdict::Allow);
        }
        for change in &found.lost {
            prop_assert_eq!(verdict(&before, &change.access.witness), Verdict::Allow);
            prop_assert_eq!(verdict(&after, &change.access.witness), Verdict::Deny);
        }
    }
}

#[test]
fn a_match_more_in_a_rule_is_a_difference() {
    let rule = |matches: &str| {
        pod("shop", "cart")
            + &clients("shop", "web", &["spiffe://cluster.local/ns/shop/sa/web"])
            + &route("shop", "read", "cart", matches)
            + &grant(
                "shop",
                "g",
                "HTTPRoute read",
                &["MeshTLSAuthentication web"],
            )
    };
    let one = "{path: {type: PathPrefix, value: /orders}, method: GET}";
    let two = format!("{one}, {{path: {{type: Exact, value: /x}}, method: DELETE}}");
    let (before, after) = (index(&rule(one)), index(&rule(&two)));
    let found = diff(&before, &after, SETTING).unwrap();
    assert_eq!((found.gained.len(), found.lost.len()), (1, 0), "{found:?}");
    assert_eq!(found.gained[0].access.witness.path.as_deref(), Some("/x"));
    let back = diff(&after, &before, SETTING).unwrap();
    assert_eq!((back.gained.len(), back.lost.len()), (0, 1), "{back:?}");
}
