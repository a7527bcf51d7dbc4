//! What single policies become.

use crate::generate::cluster;
use crate::ours::{ALL, NOW, import, index, text, trust_domain};
use mesh_policy::decide::Verdict;
use mesh_policy::request::RequestRecord;
use mesh_policy_index::Index;
use mesh_policy_index::import::{Fact, ImportConfig, Imported, Status, istio};
use mesh_policy_index::replay::Replay;
use mesh_trust::TrustDomain;

/// A policy in `shop` with these fields of `spec`.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn peer(name: &str, namespace: &str, metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}{metadata}}}\nspec: {{{spec}}}\n"
    )
}

const STRICT: &str = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n";

/// Whether `account` (`shop/web`, or nobody) may `GET path` at a port of a workload of `shop`.
fn may(index: &Index, account: Option<&str>, to: &str, path: &str) -> bool {
    let (pod, port) = to.split_once(':').unwrap();
    let id = account
        .map(|a| a.replace('/', "/sa/"))
        .map(|a| format!("spiffe://cluster.local/ns/{a}"));
    let request = serde_json::json!({
        "client": {"spiffe_id": id, "ip": "10.1.2.3"},
        "server": {"namespace": "shop", "pod": pod, "port": port.parse::<u16>().unwrap()},
        "method": "GET", "path": path, "host": "cart",
    });
    let request: RequestRecord = serde_json::from_value(request).unwrap();
    Replay::new(index, NOW).decide(&request).verdict == Verdict::Allow
}

fn facts(imported: &Imported, status: Status) -> Vec<&Fact> {
    imported
        .report
        .facts
        .iter()
        .filter(|f| f.status == status && f.code != Some("MESH-0346"))
        .collect()
}

/// Facts of a code.
fn coded<'i>(imported: &'i Imported, code: &str) -> Vec<&'i Fact> {
    imported
        .report
        .facts
        .iter()
        .filter(|f| f.code == Some(code))
        .collect()
}

#[test]
fn a_policy_without_rules_closes_what_it_selects() {
    let imported = import(&policy("nothing", ""), ALL);
    let index = index(&imported);
    assert!(!may(&index, Some("shop/web"), "cart-v1:8080", "/"));
    assert!(
        text(&imported).contains("kind: Server")
            && !text(&imported).contains("kind: AuthorizationPolicy")
    );
    assert!(facts(&imported, Status::NotKept).is_empty());
}

#[test]
fn an_empty_rule_lets_everyone_in_and_says_why() {
    let imported = import(&policy("all", "rules: [{}]"), ALL);
    assert!(may(&index(&imported), None, "cart-v1:8080", "/"));
    let reason = "mesh.internal/allow-unauthenticated: \"imported: Istio asks for no source in AuthorizationPolicy shop/all rule 0, and mTLS is not STRICT\"";
    assert!(text(&imported).contains(reason), "{}", text(&imported));
}

#[test]
fn strict_mtls_asks_everyone_for_an_identity() {
    let imported = import(&format!("{STRICT}{}", policy("all", "rules: [{}]")), ALL);
    let index = index(&imported);
    assert!(may(&index, Some("other/one"), "cart-v1:8080", "/"));
    assert!(!may(&index, None, "cart-v1:8080", "/"));
    assert!(!text(&imported).contains("allow-unauthenticated"));
}

#[test]
fn a_mesh_with_mtls_and_no_policy_admits_identities() {
    let imported = import(STRICT, ALL);
    let index = index(&imported);
    assert!(may(&index, Some("other/one"), "db:9090", "/") && !may(&index, None, "db:9090", "/"));
    assert!(imported.report.is_exact(), "{:#?}", imported.report.facts);
}

#[test]
fn workloads_that_no_policy_selects_stay_closed_and_are_named() {
    let imported = import(
        &policy("cart", "selector: {matchLabels: {app: cart}}, rules: [{}]"),
        ALL,
    );
    assert!(!may(&index(&imported), Some("shop/web"), "db:9090", "/"));
    let named: Vec<&str> = coded(&imported, "MESH-0346")
        .iter()
        .map(|f| f.object.as_str())
        .collect();
    assert_eq!(named, ["Deployment shop/db", "Deployment ops/desk"]);
}

#[test]
fn cluster_local_points_to_the_trust_domain_of_the_mesh() {
    let config = ImportConfig::new(TrustDomain::parse("prod.example").unwrap());
    let policy = policy(
        "web",
        "rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web, other.example/ns/a/sa/b]}}]}]",
    );
    let files = [
        ("c.yaml".to_owned(), cluster(ALL).into_bytes()),
        ("p.yaml".to_owned(), policy.into_bytes()),
    ];
    let imported = istio(&files, &config).unwrap();
    let text = text(&imported);
    assert!(
        text.contains("- spiffe://prod.example/ns/shop/sa/web"),
        "{text}"
    );
    assert!(
        text.contains("- spiffe://other.example/ns/a/sa/b") && !text.contains("cluster.local"),
        "{text}"
    );
}

#[test]
fn a_path_with_slash_and_star_does_not_hold_the_path_without() {
    let imported = import(
        &policy("p", "rules: [{to: [{operation: {paths: [/a/*]}}]}]"),
        ALL,
    );
    let index = index(&imported);
    for (path, want) in [
        ("/a/b", true),
        ("/a/", true),
        ("/a/b/c", true),
        ("/a", false),
        ("/ab", false),
        ("/", false),
    ] {
        assert_eq!(
            may(&index, Some("shop/web"), "cart-v1:8080", path),
            want,
            "{path}"
        );
    }
    assert!(
        !text(&imported).contains("CedarPolicy"),
        "routes can say it"
    );
    // Istio leaves the rule out on the port that carries bytes.
    assert!(!text(&imported).contains("all-9090-below-a"));
}

#[test]
fn the_narrower_of_two_rules_keeps_its_own_clients() {
    let rules = "rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {paths: [/*]}}]}, {from: [{source: {principals: [cluster.local/ns/shop/sa/bot]}}], to: [{operation: {paths: [/a/b]}}]}]";
    let index = index(&import(&policy("p", rules), ALL));
    assert!(
        may(&index, Some("shop/web"), "cart-v1:8080", "/a/b")
            && may(&index, Some("shop/web"), "cart-v1:8080", "/c")
    );
    assert!(
        may(&index, Some("shop/bot"), "cart-v1:8080", "/a/b")
            && !may(&index, Some("shop/bot"), "cart-v1:8080", "/c")
    );
}

#[test]
fn excluded_blocks_become_exceptions() {
    let imported = import(
        &policy(
            "p",
            "rules: [{from: [{source: {ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.0/16]}}]}]",
        ),
        ALL,
    );
    let text = text(&imported);
    assert!(
        text.contains("cidr: \"10.0.0.0/8\"") && text.contains("- \"10.1.0.0/16\""),
        "{text}"
    );
    assert!(
        !may(&index(&imported), Some("shop/web"), "cart-v1:8080", "/"),
        "10.1.2.3 is excluded"
    );
}

#[test]
fn what_denies_becomes_a_forbid_for_bytes_too() {
    let imported = import(
        &policy(
            "no",
            "action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]",
        ),
        ALL,
    );
    let text = text(&imported);
    assert!(text.contains("context.req.method == \"DELETE\""), "{text}");
    // On the port that is looked at, Istio denies all bytes; on the one that carries bytes, too; on the one for HTTP there are none.
    let (_, bytes) = text.split_once("@id(\"rule-0-bytes\")").expect(&text);
    assert!(
        bytes.contains(
            "resource in [Mesh::Server::\"shop/all-7070\", Mesh::Server::\"shop/all-9090\"]"
        ) && !bytes.contains("shop/all-8080"),
        "{text}"
    );
}

#[test]
fn tokens_are_not_kept_and_their_place_is_told() {
    let rule = "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]";
    let imported = import(&policy("cards", rule), ALL);
    assert!(!may(
        &index(&imported),
        Some("shop/web"),
        "cart-v1:8080",
        "/"
    ));
    let told = coded(&imported, "MESH-0341");
    assert!(
        told.iter()
            .any(|f| f.part.as_deref() == Some("spec.rules[0].from[0].source.requestPrincipals")),
        "{told:#?}"
    );
    assert_eq!(
        (told[0].place.file.as_str(), told[0].place.line),
        ("istio.yaml", 5)
    );
    // Denying without a token: nobody has one here, so everything is denied.
    let imported = import(
        &policy(
            "no",
            "action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]",
        ),
        ALL,
    );
    assert!(!coded(&imported, "MESH-0342").is_empty());
    assert!(!may(
        &index(&imported),
        Some("shop/web"),
        "cart-v1:8080",
        "/"
    ));
}

#[test]
fn what_istio_does_not_enforce_is_left_out() {
    let dry = policy("dry", "action: DENY, rules: [{}]").replace(
        "namespace: shop",
        "namespace: shop, annotations: {istio.io/dry-run: 'true'}",
    );
    let imported = import(
        &format!(
            "{dry}{}{}",
            policy("all", "rules: [{}]"),
            policy("audit", "action: AUDIT, rules: [{}]")
        ),
        ALL,
    );
    assert!(may(&index(&imported), None, "cart-v1:8080", "/"));
    assert_eq!(coded(&imported, "MESH-0343").len(), 2);
}

#[test]
fn nothing_is_allowed_behind_a_waypoint_that_is_not_imported() {
    let all = policy("all", "rules: [{}]");
    let imported = import(
        &format!(
            "{all}{}",
            policy(
                "way",
                "targetRefs: [{kind: Service, group: '', name: cart-v1}], rules: [{}]"
            )
        ),
        ALL,
    );
    let index = index(&imported);
    assert!(
        !may(&index, Some("shop/web"), "cart-v1:8080", "/"),
        "behind the waypoint"
    );
    assert!(
        may(&index, Some("shop/web"), "cart-v2:8080", "/"),
        "beside it"
    );
    assert_eq!(coded(&imported, "MESH-0345").len(), 1);
    let gateway = format!(
        "{all}{}",
        policy("way", "targetRefs: [{kind: Gateway, name: g}], rules: [{}]")
    );
    let imported = import(&gateway, ALL);
    assert!(
        !may(
            &crate::ours::index(&imported),
            Some("shop/web"),
            "cart-v2:8080",
            "/"
        ),
        "a Gateway may stand before any of them"
    );
    let deny = format!(
        "{all}{}",
        policy(
            "way",
            "action: DENY, targetRefs: [{kind: Service, name: cart-v1}], rules: [{}]"
        )
    );
    let imported = import(&deny, ALL);
    let index = crate::ours::index(&imported);
    assert!(
        !may(&index, Some("shop/web"), "cart-v1:8080", "/")
            && may(&index, Some("shop/web"), "cart-v2:8080", "/")
    );
}

#[test]
fn of_two_modes_without_age_the_strictest_counts_and_else_the_oldest() {
    let all = policy("all", "rules: [{}]");
    let two = |a: &str, b: &str| {
        format!(
            "{all}{}{}",
            peer("a", "shop", a, "mtls: {mode: STRICT}"),
            peer("b", "shop", b, "mtls: {mode: PERMISSIVE}")
        )
    };
    let imported = import(&two("", ""), ALL);
    assert!(!may(&index(&imported), None, "cart-v1:8080", "/"));
    assert_eq!(coded(&imported, "MESH-0342").len(), 2);
    let aged = two(
        ", creationTimestamp: '2024-02-01T00:00:00Z'",
        ", creationTimestamp: '2024-01-01T00:00:00Z'",
    );
    assert!(
        may(&index(&import(&aged, ALL)), None, "cart-v1:8080", "/"),
        "b is older"
    );
    let disable = format!(
        "{all}{}{}",
        peer("a", "shop", "", "mtls: {mode: STRICT}"),
        peer("b", "shop", "", "mtls: {mode: DISABLE}")
    );
    assert!(
        !may(
            &index(&import(&disable, ALL)),
            Some("shop/web"),
            "cart-v1:8080",
            "/"
        ),
        "neither is the stricter one"
    );
}

#[test]
fn a_selector_in_the_root_namespace_selects_no_mode() {
    let ignored = peer(
        "a",
        "istio-system",
        "",
        "selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}",
    );
    let imported = import(&format!("{}{ignored}", policy("all", "rules: [{}]")), ALL);
    assert!(may(&index(&imported), None, "cart-v1:8080", "/"));
    assert_eq!(coded(&imported, "MESH-0343").len(), 1);
}

#[test]
fn a_server_excludes_pods_that_other_policies_select() {
    let text = text(&import(
        &format!(
            "{}{}",
            policy("all", "rules: [{}]"),
            policy(
                "no",
                "action: DENY, selector: {matchLabels: {role: admin}}, rules: [{}]"
            )
        ),
        ALL,
    ));
    let not_in = "    matchExpressions:\n      - key: role\n        operator: NotIn\n        values:\n          - admin\n";
    assert!(text.contains(not_in), "{text}");
}

#[test]
fn without_workloads_there_is_a_server_for_each_port_that_is_named() {
    let named =
        "selector: {matchLabels: {app: cart}}, rules: [{to: [{operation: {ports: ['8080']}}]}]";
    let imported = import(
        &format!(
            "{}{}",
            policy("named", named),
            policy("other", "selector: {matchLabels: {app: none}}, rules: [{}]")
        ),
        &[],
    );
    assert!(may(&index(&imported), None, "cart-v1:8080", "/"));
    let told: Vec<(Status, &str)> = coded(&imported, "MESH-0344")
        .iter()
        .map(|f| (f.status, f.object.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Status::KeptStricter, "AuthorizationPolicy shop/named"),
            (Status::NotKept, "AuthorizationPolicy shop/other"),
        ]
    );
}

#[test]
fn services_that_contradict_each_other_close_the_port() {
    let other = "---\napiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: shop}\nspec: {selector: {app: cart}, ports: [{name: tcp, port: 1, targetPort: 8080}]}\n";
    let imported = import(&format!("{other}{}", policy("all", "rules: [{}]")), ALL);
    let index = index(&imported);
    assert!(!may(&index, None, "cart-v1:8080", "/") && may(&index, None, "cart-v1:7070", "/"));
    assert!(!coded(&imported, "MESH-0342").is_empty());
}

#[test]
fn more_paths_than_routes_can_take_are_said_in_cedar() {
    let paths: Vec<String> = (0..600).map(|n| format!("/p{n}")).collect();
    let imported = import(
        &policy(
            "many",
            &format!(
                "rules: [{{to: [{{operation: {{paths: [{}]}}}}]}}]",
                paths.join(", ")
            ),
        ),
        ALL,
    );
    assert!(!text(&imported).contains("kind: HTTPRoute"));
    let index = index(&imported);
    assert!(
        may(&index, None, "cart-v1:8080", "/p599") && !may(&index, None, "cart-v1:8080", "/p600")
    );
}

#[test]
fn a_denial_that_meets_probes_is_told() {
    let probed = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: probed, namespace: shop, labels: {app: cart}}\nspec: {containers: [{name: a, ports: [{containerPort: 8080}], livenessProbe: {httpGet: {path: /live, port: 8080}}}]}\n";
    let imported = import(
        &format!("{probed}{}", policy("no", "action: DENY, rules: [{}]")),
        ALL,
    );
    let told = coded(&imported, "MESH-0342");
    assert!(
        told.iter().any(|f| f.message.contains("probes on Server")),
        "{told:#?}"
    );
}

#[test]
fn other_kinds_of_istio_are_named_and_those_of_others_are_not() {
    let others = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: cards, namespace: shop}\nspec: {jwtRules: [{issuer: i}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n---\napiVersion: example.org/v1\nkind: Thing\nmetadata: {name: t}\n";
    let imported = import(&format!("{others}{}", policy("all", "rules: [{}]")), ALL);
    let named: Vec<&str> = coded(&imported, "MESH-0347")
        .iter()
        .map(|f| f.object.as_str())
        .collect();
    assert_eq!(
        named,
        ["RequestAuthentication shop/cards", "VirtualService shop/v"]
    );
}

#[test]
fn items_of_a_list_are_read() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1\n  kind: AuthorizationPolicy\n  metadata: {name: a, namespace: shop}\n  spec: {rules: [{}]}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems:\n- metadata: {name: b, namespace: shop}\n  spec: {action: DENY, rules: [{}]}\n";
    let imported = import(list, ALL);
    assert!(!may(&index(&imported), None, "cart-v1:8080", "/"));
    assert!(
        imported
            .report
            .facts
            .iter()
            .any(|f| f.object == "AuthorizationPolicy shop/b" && f.place.line == 13)
    );
}

#[test]
fn what_is_written_names_its_origin_and_is_sorted() {
    let imported = import(
        &format!(
            "{STRICT}{}",
            policy("all", "rules: [{to: [{operation: {methods: [GET]}}]}]")
        ),
        ALL,
    );
    assert_eq!(
        imported
            .files
            .iter()
            .map(|f| f.name.as_str())
            .collect::<Vec<_>>(),
        ["ops.yaml", "shop.yaml"]
    );
    for file in &imported.files {
        let documents: Vec<&str> = file.text.split("---\n").skip(1).collect();
        assert!(
            documents
                .iter()
                .all(|d| d.starts_with("# from istio.yaml:")),
            "{}",
            file.text
        );
    }
    let mut sorted = imported.report.written.clone();
    let rank = |kind: &str| {
        [
            "Server",
            "HTTPRoute",
            "GRPCRoute",
            "MeshTLSAuthentication",
            "NetworkAuthentication",
            "AuthorizationPolicy",
            "CedarPolicy",
        ]
        .iter()
        .position(|k| *k == kind)
    };
    sorted
        .sort_by(|a, b| (&a.file, rank(&a.kind), &a.name).cmp(&(&b.file, rank(&b.kind), &b.name)));
    assert_eq!(imported.report.written, sorted);
    assert!(imported.report.written.iter().all(|w| !w.from.is_empty()));
    let _ = trust_domain();
}

#[test]
fn names_stay_names_however_long_what_they_are_made_of() {
    let long = "a-service-account-with-a-long-name-that-goes-on-and-on-up-to-63";
    let path = "/a/path/that/is/longer/than/any/name/of/an/object/may/be/in/this/mesh";
    let rules = |end: &str| {
        format!(
            "rules: [{{from: [{{source: {{principals: [cluster.local/ns/shop/sa/{long}, cluster.local/ns/shop/sa/web]}}}}], to: [{{operation: {{methods: [OPTIONS], paths: ['{path}/{end}', '{path}/{end}/*']}}}}]}}]"
        )
    };
    let both = policy("one", &rules("x")) + &policy("two", &rules("y"));
    let imported = import(&both, ALL);
    let index = index(&imported);
    let errors: Vec<_> = index
        .findings()
        .iter()
        .filter(|f| f.severity == mesh_policy::snapshot::Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(text(&imported).contains("spec:"));
}
