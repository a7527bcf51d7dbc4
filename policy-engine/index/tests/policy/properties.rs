//! Properties of the whole: order means nothing, and breaking a grant never opens.

use crate::world::{Ask, MESHED, SERVER, SHOP, config, policy, route};
use mesh_policy::decide::Verdict;
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, load};
use proptest::prelude::*;

/// Documents of a small mesh with every kind of grant, each of which some question needs.
fn documents() -> Vec<String> {
    let network = "apiVersion: policy.linkerd.io/v1alpha1\nkind: NetworkAuthentication\nmetadata: {name: near, namespace: shop}\nspec: {networks: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}]}\n";
    let authorization = "apiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {name: s, namespace: shop}\nspec: {server: {selector: {matchLabels: {a: b}}}, client: {meshTLS: {serviceAccounts: [{name: web}]}, networks: [{cidr: 10.0.0.0/8}]}}\n";
    let admin = SERVER
        .replace("name: cart,", "name: admin, labels: {a: b},")
        .replace("port: http", "port: admin");
    let named = MESHED
        .replace("meshed", "named")
        .replace("'*'", "'spiffe://cluster.local/ns/shop/sa/web'");
    let open = policy("open", "HTTPRoute b", &[]).replace(
        "namespace: shop}",
        "namespace: shop, annotations: {mesh.internal/allow-unauthenticated: meant}}",
    );
    let mut out: Vec<String> = SHOP.split("---\n").map(str::to_owned).collect();
    out.extend([
        SERVER.to_owned(),
        admin,
        MESHED.to_owned(),
        named,
        network.to_owned(),
        authorization.to_owned(),
    ]);
    out.extend([route("a", "{value: /a}"), route("b", "{value: /b}"), open]);
    out.push(policy(
        "both",
        "Server cart",
        &["MeshTLSAuthentication named", "NetworkAuthentication near"],
    ));
    out.push(policy(
        "route",
        "HTTPRoute a",
        &["MeshTLSAuthentication meshed"],
    ));
    out.push(policy(
        "all",
        "Namespace shop",
        &["ServiceAccount web", "NetworkAuthentication near"],
    ));
    out
}

/// Kinds whose loss may not open anything.
fn is_grant(document: &str) -> bool {
    [
        "AuthorizationPolicy",
        "ServerAuthorization",
        "MeshTLSAuthentication",
        "NetworkAuthentication",
    ]
    .iter()
    .any(|kind| document.contains(&format!("kind: {kind}\n")))
}

fn index(documents: &[String], files: usize) -> Index {
    let mut parts = vec![Vec::new(); files];
    for (number, document) in documents.iter().enumerate() {
        parts[number % files].push(document.trim_start_matches("\n---").to_owned());
    }
    let files = parts
        .iter()
        .enumerate()
        .map(|(number, docs)| (format!("{number}.yaml"), docs.join("\n---\n").into_bytes()));
    Index::build(&load(files), &config())
}

/// Every question of a small universe.
fn questions() -> Vec<Ask> {
    let mut out = Vec::new();
    let clients = [
        || Ask::meshed("shop/web"),
        || Ask::meshed("shop/other"),
        || Ask::identity("spiffe://other.example/ns/shop/sa/web"),
        Ask::plain,
        Ask::bare_tls,
    ];
    for client in clients {
        for ip in ["10.1.2.3", "10.9.0.1", "203.0.113.9"] {
            for port in [8080, 9090, 7070] {
                out.push(client().ip(ip).port(port).tcp());
                for path in ["/a", "/b", "/c"] {
                    out.push(client().ip(ip).port(port).path(path));
                }
            }
        }
    }
    out
}

fn allowed(index: &Index) -> Vec<bool> {
    let mut replay = Replay::new(index, crate::world::NOW);
    questions()
        .iter()
        .map(|ask| replay.decide(&ask.0).verdict == Verdict::Allow)
        .collect()
}

/// Ways to spoil a document, from a typing error to its loss.
fn spoil(document: &str, how: usize, at: usize) -> Option<String> {
    let lines: Vec<&str> = document.lines().collect();
    let line = at % lines.len().max(1);
    let replaced = |text: String| {
        let mut lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        if let Some(slot) = lines.get_mut(line) {
            *slot = text;
        }
        lines.join("\n")
    };
    let old = lines.get(line).copied().unwrap_or_default();
    Some(match how {
        0 => return None,
        1 => replaced(String::new()),
        2 => replaced(format!("{old}{old}")),
        3 => replaced(old.replace(": ", ": [")),
        4 => replaced(old.replacen("name: ", "nane: ", 1)),
        5 => replaced(old.replace("spiffe://", "spifffe://")),
        6 => replaced(old.replace("10.0.0.0/8", "10.0.0.0/99")),
        7 => document.chars().take(at % document.len().max(1)).collect(),
        8 => replaced(old.replace("kind: ", "kind: X")),
        9 => replaced(old.replace('}', ", novelty: 1}")),
        10 => replaced(old.replace("shop", "shpo")),
        _ => document
            .replace("v1alpha1", "v1omega1")
            .replace("v1beta1", "v1omega1"),
    })
}

#[test]
fn the_small_mesh_allows_and_denies_enough_to_mean_something() {
    let all = allowed(&index(&documents(), 1));
    let yes = all.iter().filter(|a| **a).count();
    assert!(yes > 10 && yes < all.len() / 2, "{yes} of {}", all.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_files_and_documents_means_nothing(seed in any::<u64>(), files in 1usize..4) {
        let mut shuffled = documents();
        let mut state = seed | 1;
        for last in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            shuffled.swap(last, (state >> 33) as usize % (last + 1));
        }
        prop_assert_eq!(allowed(&index(&shuffled, files)), allowed(&index(&documents(), 1)));
    }

    #[test]
    fn spoiling_or_losing_a_grant_or_authentication_never_opens(which in any::<prop::sample::Index>(), how in 0usize..12, at in any::<usize>()) {
        let mut spoiled = documents();
        let grants: Vec<usize> = spoiled.iter().enumerate().filter(|(_, d)| is_grant(d)).map(|(n, _)| n).collect();
        let victim = grants[which.index(grants.len())];
        match spoil(&spoiled[victim], how, at) {
            Some(text) => spoiled[victim] = text,
            None => _ = spoiled.remove(victim),
        }
        let (before, after) = (allowed(&index(&documents(), 1)), allowed(&index(&spoiled, 1)));
        for ((ask, before), after) in questions().iter().zip(before).zip(after) {
            prop_assert!(before || !after, "opened {:?} by {:?}", ask.0, spoiled.get(victim));
        }
    }
}

#[test]
fn a_snapshot_survives_its_journey_as_json_and_has_the_same_bytes_each_time() {
    let index = index(&documents(), 1);
    for (key, _) in index.workloads() {
        let data = index
            .snapshot(key, mesh_policy::decide::Generation(3))
            .unwrap();
        let text = serde_json::to_string(&data).unwrap();
        assert_eq!(
            serde_json::from_str::<mesh_policy::snapshot::SnapshotData>(&text).unwrap(),
            data
        );
        let mut reversed = documents();
        reversed.reverse();
        let other = self::index(&reversed, 1)
            .snapshot(key, mesh_policy::decide::Generation(3))
            .unwrap();
        assert_eq!(
            data.grants.iter().map(|g| &g.id).collect::<Vec<_>>(),
            other.grants.iter().map(|g| &g.id).collect::<Vec<_>>()
        );
    }
}
