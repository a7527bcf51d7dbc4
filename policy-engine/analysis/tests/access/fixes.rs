//! Every fix that is offered lets the request through, once its documents are written into their files.

use crate::world::{NOW, clients, grant, home, key, network, pod, route};
use mesh_policy::Snapshot;
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy::record::{DecisionRecord, decide_record};
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy_analysis::fixes::{Action, Denied, Fix, Fixes, Patch, Place, fixes};
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, load};
use proptest::prelude::*;

/// Files of manifests.
type Files = Vec<(String, Vec<u8>)>;

fn files(text: &str) -> Files {
    vec![("all.yaml".to_owned(), text.as_bytes().to_vec())]
}

fn built(files: &Files) -> Index {
    let loaded = load(files.iter().map(|(name, content)| (name.clone(), content)));
    Index::build(&loaded, &IndexConfig::new(home()))
}

fn decided(files: &Files, place: &WorkloadKey, record: &RequestRecord) -> DecisionRecord {
    let data = built(files).snapshot(place, Generation::default()).unwrap();
    let port = record.server.port;
    decide_record(&Snapshot::compile(data).unwrap(), record, port, NOW)
}

/// The files as whoever follows a fix leaves them.
fn patched(files: &Files, fix: &Fix) -> Files {
    let mut out = files.clone();
    for patch in fix
        .patches
        .iter()
        .filter(|patch| patch.action == Action::Create)
    {
        if !out.iter().any(|(name, _)| *name == patch.file) {
            out.push((patch.file.clone(), Vec::new()));
        }
    }
    for (name, content) in &mut out {
        *content = Patch::apply(name, content, &fix.patches);
    }
    out
}

fn asked(from: Option<&str>, ip: &str, (method, path): (&str, &str)) -> RequestRecord {
    RequestRecord {
        client: ClientRecord {
            spiffe_id: from.map(str::to_owned),
            ip: Some(ip.to_owned()),
            tls: None,
        },
        server: TargetRecord {
            namespace: "shop".to_owned(),
            pod: Some("cart".to_owned()),
            service: None,
            port: 8080,
        },
        protocol: Protocol::Http,
        method: Some(method.to_owned()),
        path: Some(path.to_owned()),
        host: None,
        headers: Default::default(),
    }
}

const WEB: Option<&str> = Some("spiffe://cluster.local/ns/shop/sa/web");
const GET: (&str, &str) = ("GET", "/a");

fn found(files: &Files, record: &RequestRecord) -> Fixes {
    let (index, workload) = (built(files), key("shop", "cart"));
    let data = index.snapshot(&workload, Generation::default()).unwrap();
    fixes(&Denied {
        index: &index,
        files,
        record,
        places: &[Place {
            snapshot: Snapshot::compile(data).unwrap(),
            workload,
            port: record.server.port,
        }],
        now: NOW,
    })
}

/// The fixes of a request, each followed and decided again from the files alone.
fn proved(text: &str, record: &RequestRecord) -> Fixes {
    proved_files(&files(text), record)
}

fn proved_files(files: &Files, record: &RequestRecord) -> Fixes {
    let place = key("shop", "cart");
    let before = decided(files, &place, record);
    let found = found(files, record);
    if before.verdict == Verdict::Allow {
        assert_eq!(found.fixes, [], "an allowed request needs no fix");
    }
    for fix in &found.fixes {
        let after = patched(files, fix);
        let verdict = decided(&after, &place, record);
        let text = String::from_utf8_lossy(&after[0].1).into_owned();
        assert_eq!(
            verdict.verdict,
            Verdict::Allow,
            "{}: {verdict:?}\n{text}",
            fix.what
        );
        assert!(fix.blast.gained >= 1, "{}", fix.what);
    }
    found
}

fn first(found: &Fixes) -> (&str, &str, bool) {
    let fix = found
        .fixes
        .first()
        .unwrap_or_else(|| panic!("no fix: {found:?}"));
    (&fix.what, &fix.patches[0].yaml, fix.needs_owner.is_some())
}

fn base() -> String {
    pod("shop", "cart") + &pod("shop", "web") + &pod("dev", "laptop")
}

#[test]
fn an_identity_is_added_to_the_authentication_that_nearly_admits_it() {
    let text = base()
        + &clients(
            "shop",
            "callers",
            &["spiffe://cluster.local/ns/shop/sa/other"],
        )
        + &grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        );
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    assert_eq!(
        first(&found).0,
        "add shop/web to MeshTLSAuthentication shop/callers"
    );
    assert!(
        first(&found)
            .1
            .contains("spiffe://cluster.local/ns/shop/sa/web")
    );
    assert_eq!(found.fixes[0].patches[0].action, Action::Replace);
    assert_eq!(found.fixes[1].patches[0].action, Action::Append);
}

#[test]
fn the_fix_that_opens_least_comes_first() {
    // The authentication serves two Servers, so adding to it opens both; a grant of its own opens one.
    let text = base()
        + &clients(
            "shop",
            "callers",
            &["spiffe://cluster.local/ns/shop/sa/other"],
        )
        + &grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        )
        + &grant(
            "shop",
            "h",
            "Server web",
            &["MeshTLSAuthentication callers"],
        );
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    assert!(
        first(&found)
            .0
            .starts_with("add AuthorizationPolicy shop/cart-from-shop-web"),
        "{found:?}"
    );
    let opened: Vec<usize> = found.fixes.iter().map(|fix| fix.blast.gained).collect();
    assert!(opened[0] < opened[1], "{opened:?}");
}

#[test]
fn a_network_is_widened_by_exactly_the_address() {
    let text = base()
        + &clients("shop", "callers", &[WEB.unwrap()])
        + &network("shop", "office", "10.0.0.0/8", &["10.9.0.0/16"])
        + &grant(
            "shop",
            "g",
            "Server cart",
            &[
                "MeshTLSAuthentication callers",
                "NetworkAuthentication office",
            ],
        );
    let found = proved(&text, &asked(WEB, "10.9.1.2", GET));
    let fix = found
        .fixes
        .iter()
        .find(|fix| fix.what.starts_with("add 10.9.1.2/32 to"))
        .unwrap();
    assert!(fix.patches[0].yaml.contains("10.9.1.2/32"));
    assert_eq!(fix.blast.gained, 1);
}

#[test]
fn a_route_gets_one_match_more_and_no_prefix() {
    let text = base()
        + &route(
            "shop",
            "read",
            "cart",
            "{path: {type: PathPrefix, value: /orders}, method: GET}",
        )
        + &clients("shop", "callers", &[WEB.unwrap()])
        + &grant(
            "shop",
            "g",
            "HTTPRoute read",
            &["MeshTLSAuthentication callers"],
        );
    let found = proved(&text, &asked(WEB, "10.0.0.9", ("DELETE", "/x/y")));
    assert_eq!(
        first(&found).0,
        "let HTTPRoute shop/read rule 0 take DELETE /x/y"
    );
    assert_eq!(found.fixes[0].blast.gained, 1);
}

#[test]
fn an_expired_grant_is_renewed() {
    let mut text = base() + &clients("shop", "callers", &[WEB.unwrap()]);
    text += &grant(
        "shop",
        "g",
        "Server cart",
        &["MeshTLSAuthentication callers"],
    )
    .replace(
        "{name: g, namespace: shop}",
        "{name: g, namespace: shop, annotations: {mesh.internal/expires: '2025-12-31T00:00:00Z'}}",
    );
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    let fix = found
        .fixes
        .iter()
        .find(|fix| fix.what.starts_with("renew"))
        .unwrap();
    assert!(
        fix.patches[0].yaml.contains("2026-01-02T00:00:00Z"),
        "{}",
        fix.patches[0].yaml
    );
}

#[test]
fn a_broken_grant_is_pointed_at_and_mended() {
    let sound = base() + &clients("shop", "callers", &[WEB.unwrap()]);
    let policy = grant(
        "shop",
        "g",
        "Server cart",
        &["MeshTLSAuthentication callers"],
    );
    // A misspelt field.
    let found = proved(
        &(sound.clone()
            + &policy.replace("requiredAuthenticationRefs", "requiredAuthenticationRef")),
        &asked(WEB, "10.0.0.9", GET),
    );
    assert!(found.hindrances.iter().any(|one| {
        one.text
            .contains("AuthorizationPolicy shop/g was meant for this and grants nothing")
    }));
    assert!(
        found
            .fixes
            .iter()
            .any(|fix| fix.what.contains("`requiredAuthenticationRefs`")),
        "{found:?}"
    );
    // A misspelt name.
    let found = proved(
        &(sound.clone() + &policy.replace("name: callers", "name: caller")),
        &asked(WEB, "10.0.0.9", GET),
    );
    let refer =
        "let AuthorizationPolicy shop/g refer to MeshTLSAuthentication shop/callers, not to caller";
    assert!(found.fixes.iter().any(|fix| fix.what == refer), "{found:?}");
    // An authentication that is not there.
    let found = proved(&(base() + &policy), &asked(WEB, "10.0.0.9", GET));
    let create = "create MeshTLSAuthentication shop/callers, which AuthorizationPolicy shop/g requires, for shop/web";
    assert!(
        found.fixes.iter().any(|fix| fix.what == create),
        "{found:?}"
    );
    // A policy that requires nobody.
    let found = proved(
        &(base() + &grant("shop", "g", "Server cart", &[])),
        &asked(WEB, "10.0.0.9", GET),
    );
    assert!(
        found
            .fixes
            .iter()
            .any(|fix| fix.what == "let AuthorizationPolicy shop/g require shop/web"),
        "{found:?}"
    );
}

#[test]
fn an_invalid_server_is_mended_before_anything_is_granted() {
    let text = base().replace("proxyProtocol: HTTP/1", "proxyProtocl: HTTP/1")
        + &clients(
            "shop",
            "callers",
            &["spiffe://cluster.local/ns/shop/sa/other"],
        )
        + &grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        );
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    assert!(
        first(&found)
            .0
            .starts_with("mend the name of `proxyProtocol`"),
        "{found:?}"
    );
    assert!(
        found
            .hindrances
            .iter()
            .any(|one| one.text.contains("MESH-0358")),
        "{found:?}"
    );
    let text = base().replace("proxyProtocol: HTTP/1", "proxyProtocol: HTTP/9");
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    assert_eq!(found.fixes, []);
    assert!(
        found
            .hindrances
            .iter()
            .any(|one| one.text.contains("MESH-0359")),
        "{found:?}"
    );
}

#[test]
fn a_port_without_server_gets_one_that_takes_nothing_away() {
    let text = base().replace("port: http, ", "port: 9999, ");
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    assert!(
        first(&found)
            .0
            .starts_with("add Server shop/cart-8080 and AuthorizationPolicy"),
        "{found:?}"
    );
    assert_eq!(found.fixes[0].blast.lost, 0);
}

const FORBID: &str = "---\napiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {name: guard, namespace: shop}\nspec:\n  cedar: |\n    @id(\"no-web\")\n    forbid(principal, action, resource)\n    when { principal has sa && principal.sa == \"web\" };\n    @id(\"other\")\n    forbid(principal, action, resource)\n    when { principal has sa && principal.sa == \"nobody\" };\n";

#[test]
fn an_exception_from_a_forbid_needs_its_owner_and_names_one_client() {
    let text = base()
        + FORBID
        + &clients("shop", "callers", &[WEB.unwrap()])
        + &grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        );
    for text in [
        text.clone(),
        text.replace("kind: CedarPolicy", "kind: ClusterCedarPolicy")
            .replace("{name: guard, namespace: shop}", "{name: guard}"),
    ] {
        let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
        let (what, yaml, owner) = first(&found);
        assert!(owner, "{what}");
        assert!(
            what.contains("except shop/web from") && what.contains("/no-web"),
            "{what}"
        );
        assert!(
            yaml.contains(
                "unless { principal == Mesh::Workload::\"spiffe://cluster.local/ns/shop/sa/web\" };"
            ),
            "{yaml}"
        );
        assert!(found.fixes.iter().all(|fix| fix.needs_owner.is_some()));
        assert!(
            found
                .hindrances
                .iter()
                .any(|one| one.text.contains("a forbid wins over every grant"))
        );
    }
}

#[test]
fn a_client_without_identity_is_let_in_by_its_owner_alone() {
    let text = base()
        + &clients("shop", "callers", &[WEB.unwrap()])
        + &grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        );
    let found = proved(&text, &asked(None, "10.0.0.9", GET));
    assert!(!found.fixes.is_empty());
    assert!(
        found.fixes.iter().all(|fix| fix.needs_owner.is_some()),
        "{found:?}"
    );
    assert!(
        found
            .hindrances
            .iter()
            .any(|one| one.text.contains("the client has no identity"))
    );
}

#[test]
fn what_no_policy_can_allow_has_a_reason_and_no_fix() {
    let text = base()
        + &route(
            "shop",
            "read",
            "cart",
            "{path: {type: PathPrefix, value: /}}",
        );
    for (record, said) in [
        (
            asked(WEB, "10.0.0.9", ("GET", "/a%2Fb")),
            "the client must ask otherwise",
        ),
        (
            asked(Some("spiffe://"), "10.0.0.9", GET),
            "no policy can allow it",
        ),
        (
            RequestRecord {
                protocol: Protocol::Tcp,
                ..asked(WEB, "10.0.0.9", GET)
            },
            "raw bytes pass only",
        ),
        (
            RequestRecord {
                client: ClientRecord {
                    tls: Some(false),
                    ..asked(WEB, "10.0.0.9", GET).client
                },
                ..asked(WEB, "10.0.0.9", GET)
            },
            "counts only over mutual TLS",
        ),
    ] {
        let found = proved(&text, &record);
        assert_eq!(found.fixes, []);
        assert!(
            found.hindrances.iter().any(|one| one.text.contains(said)),
            "{said}: {found:?}"
        );
    }
}

#[test]
fn documents_keep_their_comments_and_their_neighbours() {
    let text = base()
        + "---\n# who calls\napiVersion: policy.linkerd.io/v1alpha1\nkind: MeshTLSAuthentication\nmetadata:\n  name: callers\n  namespace: shop\nspec:\n  # by hand\n  identityRefs:\n    - kind: ServiceAccount # the old one\n      name: other\n\n# end\n---\n"
        + &grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        );
    let files = files(&text);
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    let fix = found
        .fixes
        .iter()
        .find(|fix| fix.what.starts_with("add shop/web to"))
        .unwrap();
    let after = String::from_utf8(patched(&files, fix)[0].1.clone()).unwrap();
    let added = "      name: other\n    - {kind: ServiceAccount, name: web, namespace: shop}\n";
    assert_eq!(after, text.replace("      name: other\n", added));
}

#[test]
fn json_stays_json() {
    let mut files = files(&base());
    let json = |value: serde_json::Value| serde_json::to_vec_pretty(&value).unwrap();
    files.push(("callers.json".to_owned(), json(serde_json::json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "MeshTLSAuthentication",
        "metadata": {"name": "callers", "namespace": "shop"}, "spec": {"identities": ["spiffe://cluster.local/ns/shop/sa/other"]},
    }))));
    files.push((
        "g.yaml".to_owned(),
        grant(
            "shop",
            "g",
            "Server cart",
            &["MeshTLSAuthentication callers"],
        )
        .into_bytes(),
    ));
    let found = proved_files(&files, &asked(WEB, "10.0.0.9", GET));
    let fix = found
        .fixes
        .iter()
        .find(|fix| fix.what.starts_with("add shop/web to"))
        .unwrap();
    assert!(
        serde_json::from_str::<serde_json::Value>(&fix.patches[0].yaml).is_ok(),
        "{}",
        fix.patches[0].yaml
    );
}

/// Manifests by chance, sound ones and others.
fn manifests() -> impl Strategy<Value = String> {
    let identities = prop::sample::select(vec![
        "spiffe://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/other",
        "*.dev.serviceaccount.identity.mesh-system.cluster.local",
        "*",
    ]);
    let callers =
        prop::collection::vec(identities, 1..3).prop_map(|ids| clients("shop", "callers", &ids));
    let office = prop::sample::select(vec!["10.0.0.0/8", "192.0.2.7/32"])
        .prop_map(|cidr| network("shop", "office", cidr, &[]));
    let routes = prop::sample::select(vec![
        String::new(),
        route(
            "shop",
            "read",
            "cart",
            "{path: {type: PathPrefix, value: /a}, method: GET}",
        ),
        route("shop", "read", "cart", "{path: {type: Exact, value: /b}}")
            + &route("shop", "rest", "cart", "{method: POST}"),
        route("shop", "read", "cart", "{path: {tpe: Exact, value: /a}}"),
    ]);
    let policy = (
        prop::sample::select(vec!["Server cart", "HTTPRoute read", "Server web"]),
        prop::sample::select(vec![
            vec!["MeshTLSAuthentication callers"],
            vec!["NetworkAuthentication office"],
            vec![
                "MeshTLSAuthentication callers",
                "NetworkAuthentication office",
            ],
            vec!["ServiceAccount dev/laptop"],
            vec!["MeshTLSAuthentication caller"],
            vec![],
        ]),
        prop::sample::select(vec!["", "expired", "misspelt"]),
    );
    let policies = prop::collection::vec(policy, 0..4).prop_map(|all| {
        let mut out = String::new();
        for (number, (target, refs, how)) in all.iter().enumerate() {
            let text = grant("shop", &format!("g{number}"), target, refs);
            out += &match *how {
                "expired" => text.replace("namespace: shop}\nspec", "namespace: shop, annotations: {mesh.internal/expires: '2025-01-01T00:00:00Z'}}\nspec"),
                "misspelt" => text.replace("targetRef", "targetReff"),
                _ => text,
            };
        }
        out
    });
    let cedar = prop::sample::select(vec!["", FORBID]);
    let server = prop::sample::select(vec!["port: http,", "prt: http,", "port: 9999,"]);
    (callers, office, routes, policies, cedar, server).prop_map(|(a, b, c, d, e, server)| {
        base().replace("port: http,", server) + &a + &b + &c + &d + e
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_fix_of_any_denial_flips_the_verdict(
        text in manifests(),
        from in prop::sample::select(vec![WEB, Some("spiffe://cluster.local/ns/dev/sa/laptop"), Some("spiffe://other.example/x"), None]),
        ip in prop::sample::select(vec!["10.0.0.9", "192.0.2.8", "::1"]),
        head in prop::sample::select(vec![GET, ("POST", "/b"), ("DELETE", "/x y")]),
    ) {
        let record = asked(from, ip, head);
        let before = decided(&files(&text), &key("shop", "cart"), &record);
        let found = proved(&text, &record);
        // Silence of every grant can always be broken by one more.
        if before.verdict == Verdict::Deny && before.phase == mesh_policy::decide::Phase::Permit {
            prop_assert!(!found.fixes.is_empty(), "{before:?}\n{text}");
        }
        if before.verdict == Verdict::Deny && found.fixes.is_empty() {
            prop_assert!(!found.hindrances.is_empty(), "{before:?}\n{text}");
        }
    }
}

#[test]
fn among_many_grants_the_nearest_are_tried_and_the_count_is_that_of_the_whole() {
    // Three hundred grants on the port: only the nearest are compiled for each try. One of them admits web to all but
    // its network, and another lets web in from there already for one route.
    let mut text = base() + &network("shop", "office", "192.0.2.0/24", &[]);
    for number in 0..300 {
        let id = format!("spiffe://cluster.local/ns/team/sa/app{number}");
        text += &clients("shop", &format!("c{number}"), &[&id]);
        let refs = format!("MeshTLSAuthentication c{number}");
        text += &grant("shop", &format!("g{number}"), "Server cart", &[&refs]);
    }
    text += &clients("shop", "callers", &[WEB.unwrap()]);
    text += &grant(
        "shop",
        "near",
        "Server cart",
        &[
            "MeshTLSAuthentication callers",
            "NetworkAuthentication office",
        ],
    );
    let found = proved(&text, &asked(WEB, "10.0.0.9", GET));
    let widened = found
        .fixes
        .iter()
        .find(|fix| fix.what == "add 10.0.0.9/32 to NetworkAuthentication shop/office");
    let made = found
        .fixes
        .iter()
        .find(|fix| fix.what.starts_with("add AuthorizationPolicy"));
    for fix in [widened, made] {
        let blast = fix.unwrap_or_else(|| panic!("{found:?}")).blast;
        // The one class of requests, and bytes are none on a Server for HTTP.
        assert_eq!(
            (blast.gained, blast.lost, blast.exact),
            (1, 0, true),
            "{found:?}"
        );
    }
    // The same questions without the three hundred give the same count.
    let few = text
        .split("---\n")
        .filter(|one| !one.contains("name: g") && !one.contains("name: c1"));
    let few: Vec<&str> = few.collect();
    let small = proved(&few.join("---\n"), &asked(WEB, "10.0.0.9", GET));
    let counts = |found: &Fixes| -> Vec<_> { found.fixes.iter().map(|fix| fix.blast).collect() };
    assert_eq!(counts(&small)[..2], counts(&found)[..2]);
}
