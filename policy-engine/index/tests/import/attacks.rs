//! Ways around an import: requests that Istio refuses, each by something that is easily lost on the way.

use crate::generate::cluster;
use crate::ours::{ALL, NOW, index_with, text, trust_domain};
use mesh_policy::decide::Verdict;
use mesh_policy::request::RequestRecord;
use mesh_policy_index::Mode;
use mesh_policy_index::import::{
    Fact, ImportConfig, ImportError, Imported, Status, TokenAction, istio,
};
use mesh_policy_index::replay::Replay;
use mesh_trust::TrustDomain;
use serde_json::{Value, json};

fn policy(name: &str, spec: &str) -> String {
    object("AuthorizationPolicy", name, spec)
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

/// Everyone may come in, but for what denies.
fn all() -> String {
    policy("all", "rules: [{}]")
}

fn try_import(
    files: &str,
    change: impl FnOnce(&mut ImportConfig),
) -> Result<Imported, ImportError> {
    let mut config = ImportConfig::new(trust_domain());
    change(&mut config);
    let files = [
        ("cluster.yaml".to_owned(), cluster(ALL).into_bytes()),
        ("istio.yaml".to_owned(), files.as_bytes().to_vec()),
    ];
    istio(&files, &config)
}

fn import(files: &str) -> Imported {
    try_import(files, |_| {}).unwrap_or_else(|error| panic!("{error:?}\n{files}"))
}

/// Whether a request to a workload of `shop` is let through: `change` is merged into a `GET /` of shop/web.
fn may(imported: &Imported, pod: &str, port: u16, change: Value) -> bool {
    may_among("", imported, pod, port, change)
}

/// The same, with more workloads.
fn may_among(more: &str, imported: &Imported, pod: &str, port: u16, change: Value) -> bool {
    let mut request = json!({
        "client": {"spiffe_id": "spiffe://cluster.local/ns/shop/sa/web", "ip": "10.1.2.3"},
        "server": {"namespace": "shop", "pod": pod, "port": port},
        "method": "GET", "path": "/", "host": "cart",
    });
    for (key, value) in change.as_object().unwrap() {
        request[key] = value.clone();
    }
    let request: RequestRecord = serde_json::from_value(request).unwrap();
    let index = index_with(imported, more);
    Replay::new(&index, NOW).decide(&request).verdict == Verdict::Allow
}

fn cart(imported: &Imported, change: Value) -> bool {
    may(imported, "cart-v1", 8080, change)
}

fn client(id: &str) -> Value {
    json!({"client": {"spiffe_id": format!("spiffe://{id}"), "ip": "10.1.2.3"}})
}

fn header(name: &str, values: &[&str]) -> Value {
    json!({"headers": {name: values}})
}

fn told<'i>(imported: &'i Imported, words: &str) -> &'i Fact {
    let mut facts = imported.report.facts.iter();
    facts
        .find(|f| f.message.contains(words))
        .unwrap_or_else(|| panic!("{words}: {:#?}", imported.report.facts))
}

#[test]
fn an_identity_of_an_unusual_form_does_not_slip_past_a_denied_namespace() {
    for values in ["shop", "sh*", "s*p", "'*'", "s.op"] {
        let denied =
            format!("action: DENY, rules: [{{from: [{{source: {{namespaces: [{values}]}}}}]}}]");
        let imported = import(&format!("{}{}", all(), policy("no", &denied)));
        for id in [
            "cluster.local/ns/shop/sa/web",
            "other.example/ns/shop/sa/web",
            "cluster.local/x/ns/shop/y",
        ] {
            assert!(!cart(&imported, client(id)), "{values}: {id}");
        }
        assert_eq!(
            cart(&imported, client("cluster.local/x/ns/ops/y")),
            values != "'*'",
            "{values}"
        );
        assert!(cart(
            &imported,
            json!({"client": {"spiffe_id": null, "ip": "10.1.2.3"}})
        ));
    }
    let allowed = "rules: [{from: [{source: {notNamespaces: [shop]}}]}]";
    let imported = import(&policy("others", allowed));
    assert!(!cart(&imported, client("cluster.local/x/ns/shop/y")));
    assert!(cart(&imported, client("cluster.local/ns/ops/sa/admin")));
}

#[test]
fn a_namespace_that_is_a_regular_expression_allows_nobody_and_denies_everybody() {
    let source = "rules: [{from: [{source: {namespaces: ['(shop|ops)']}}]}]";
    let imported = import(&policy("some", source));
    assert!(!cart(&imported, json!({})));
    assert_eq!(
        told(&imported, "no namespace has such a name").place.line,
        5
    );
    let imported = import(&format!(
        "{}{}",
        all(),
        policy("no", &format!("action: DENY, {source}"))
    ));
    assert!(!cart(&imported, json!({})));
}

#[test]
fn a_denied_service_account_is_that_of_every_trust_domain() {
    let denied = "action: DENY, rules: [{from: [{source: {serviceAccounts: [web]}}]}]";
    let imported = import(&format!("{}{}", all(), policy("no", denied)));
    for id in [
        "cluster.local/ns/shop/sa/web",
        "other.example/ns/shop/sa/web",
        "a/b/ns/shop/sa/web",
    ] {
        assert!(!cart(&imported, client(id)), "{id}");
    }
    assert!(cart(&imported, client("cluster.local/ns/shop/sa/webs")));
}

#[test]
fn a_denial_by_an_older_name_of_the_trust_domain_holds_under_the_new_one() {
    let denied =
        "action: DENY, rules: [{from: [{source: {principals: [old.example/ns/shop/sa/web]}}]}]";
    let config = |config: &mut ImportConfig| {
        config.trust_domain = TrustDomain::parse("new.example").unwrap();
    };
    let imported = try_import(&format!("{}{}", all(), policy("no", denied)), config).unwrap();
    let cedar = text(&imported);
    for id in [
        "spiffe://old.example/ns/shop/sa/web",
        "spiffe://new.example/ns/shop/sa/web",
    ] {
        assert!(cedar.contains(id), "{id}: {cedar}");
    }
    let fact = told(&imported, "may be another name of this mesh's trust domain");
    assert_eq!((fact.status, fact.place.line), (Status::KeptStricter, 10));
    // What allows the old name does not allow the new one.
    let allowed = "rules: [{from: [{source: {principals: [old.example/ns/shop/sa/web]}}]}]";
    let imported = try_import(&policy("yes", allowed), config).unwrap();
    assert!(
        !text(&imported).contains("new.example"),
        "{}",
        text(&imported)
    );
}

#[test]
fn a_denied_value_does_not_come_in_pieces() {
    let denied = |key: &str, value: &str| {
        let spec = format!(
            "action: DENY, rules: [{{when: [{{key: 'request.headers[{key}]', values: ['{value}']}}]}}]"
        );
        import(&format!("{}{}", all(), policy("no", &spec)))
    };
    let joined = denied("x-roles", "a,b");
    assert!(!cart(&joined, header("x-roles", &["a", "b"])));
    assert!(!cart(&joined, header("x-roles", &["a,b"])));
    assert!(cart(&joined, json!({})));
    let cookie = denied("cookie", "admin=1; a=2");
    assert!(!cart(&cookie, header("cookie", &["admin=1", "a=2"])));
}

#[test]
fn a_template_takes_no_character_that_envoy_leaves_out() {
    for template in ["/a/{*}", "/a/{**}"] {
        let imported = import(&policy(
            "t",
            &format!("rules: [{{to: [{{operation: {{paths: ['{template}']}}}}]}}]"),
        ));
        assert!(cart(&imported, json!({"path": "/a/b.c-d~e"})), "{template}");
        for path in [
            "/a/<b>", "/a/\"b", "/a/b*", "/a/{b}", "/a/b|c", "/a/[b]", "/a/b^`",
        ] {
            assert!(
                !cart(&imported, json!({"path": path})),
                "{template}: {path}"
            );
        }
    }
}

const CARDS: &str = "jwtRules: [{issuer: i}]";

#[test]
fn who_may_carry_a_token_that_nobody_checks_is_denied() {
    let cards = |spec: &str| {
        format!(
            "{}{}",
            all(),
            object("RequestAuthentication", "cards", spec)
        )
    };
    // A token may stand in the query, which no policy sees.
    let imported = import(&cards(CARDS));
    assert!(!cart(&imported, json!({})));
    let fact = told(&imported, "query parameter access_token");
    assert_eq!((fact.status, fact.place.line), (Status::KeptStricter, 10));
    // Bytes carry none.
    assert!(may(
        &imported,
        "cart-v1",
        9090,
        json!({"protocol": "tcp", "method": null, "path": null, "host": null})
    ));
    let in_headers = |spec: &str| {
        try_import(&cards(spec), |config| {
            config.tokens = TokenAction::InHeaders
        })
        .unwrap()
    };
    let imported = in_headers(CARDS);
    assert!(cart(&imported, json!({})));
    for value in ["Bearer forged", "Basic x", ""] {
        assert!(
            !cart(&imported, header("authorization", &[value])),
            "{value}"
        );
    }
    let fact = told(
        &imported,
        "one in the query (`access_token`) is not looked for",
    );
    assert_eq!(
        (fact.status, fact.code),
        (Status::NotKept, Some("MESH-0347"))
    );
    let elsewhere = in_headers(
        "jwtRules: [{issuer: i, fromHeaders: [{name: X-Card, prefix: 'Card '}], fromCookies: [card]}]",
    );
    for name in ["x-card", "cookie"] {
        assert!(!cart(&elsewhere, header(name, &["x"])), "{name}");
    }
    assert!(
        cart(&elsewhere, header("authorization", &["Bearer x"])),
        "Istio does not look there"
    );
    // Without a place in the query, the strict form is no stricter.
    let headers = import(&cards(
        "jwtRules: [{issuer: i, fromHeaders: [{name: x-card}]}]",
    ));
    assert!(cart(&headers, json!({})) && !cart(&headers, header("x-card", &["x"])));
    let query = import(&cards("jwtRules: [{issuer: i, fromParams: [card]}]"));
    assert!(!cart(&query, json!({})));
}

#[test]
fn nobody_writes_the_headers_that_istio_makes_of_a_token() {
    let cards = "jwtRules: [{issuer: i, fromHeaders: [{name: x-card}], outputPayloadToHeader: X-Payload, outputClaimToHeaders: [{header: x-user, claim: sub}]}]";
    let imported = import(&format!(
        "{}{}",
        all(),
        object("RequestAuthentication", "cards", cards)
    ));
    for name in ["x-payload", "x-user"] {
        assert!(!cart(&imported, header(name, &["root"])), "{name}");
    }
    assert!(cart(&imported, json!({})));
}

#[test]
fn tokens_are_denied_where_istio_would_look_at_them() {
    let cards = format!("selector: {{matchLabels: {{version: v1}}}}, {CARDS}");
    let imported = import(&format!(
        "{}{}",
        all(),
        object("RequestAuthentication", "cards", &cards)
    ));
    assert!(!cart(&imported, json!({})));
    assert!(may(&imported, "cart-v2", 8080, json!({})));
    // Alone it opens nothing that was not opened.
    let alone = import(&format!(
        "{}{}",
        policy("db", "selector: {matchLabels: {app: db}}, rules: [{}]"),
        object(
            "RequestAuthentication",
            "cards",
            "jwtRules: [{issuer: i, fromHeaders: [{name: x}]}]"
        )
    ));
    assert!(!cart(&alone, json!({})) && may(&alone, "db", 8080, json!({})));
    assert!(!may(&alone, "db", 8080, header("x", &["t"])));
    // In the root namespace it is for all.
    let root = object("RequestAuthentication", "cards", CARDS)
        .replace("namespace: shop", "namespace: istio-system");
    let imported = import(&format!("{}{root}", all()));
    assert!(!cart(&imported, json!({})) && !may(&imported, "db", 8080, json!({})));
}

#[test]
fn rules_of_tokens_that_cannot_be_understood_end_the_import() {
    for spec in [
        "jwtRules: [{}]",
        "jwtRules: [{issuer: i, fromBody: [x]}]",
        "jwtRules: [{issuer: i, fromHeaders: [{name: 'x y'}]}]",
        "jwtRules: [{issuer: i, fromHeaders: [{}]}]",
        "jwtRules: [{issuer: i, fromHeaders: []}]",
        "jwtRules: {}",
        "rules: []",
    ] {
        let text = object("RequestAuthentication", "cards", spec);
        assert!(try_import(&text, |_| {}).is_err(), "{spec}");
    }
}

#[test]
fn a_denial_of_a_port_of_a_service_is_not_taken_for_one_of_its_pods() {
    let no = "action: DENY, targetRefs: [{kind: Service, name: cart-v1}], rules: [{to: [{operation: {ports: ['80']}}]}]";
    let imported = import(&format!("{}{}", all(), policy("no", no)));
    assert!(!cart(&imported, json!({})));
    assert_eq!(
        told(&imported, "is judged at a gateway or waypoint").code,
        Some("MESH-0345")
    );
}

#[test]
fn an_external_provider_is_not_left_out_as_a_dry_run() {
    let text = policy(
        "ask",
        "action: CUSTOM, provider: {name: oracle}, rules: [{}]",
    )
    .replace(
        "namespace: shop",
        "namespace: shop, annotations: {istio.io/dry-run: 'true'}",
    );
    let Err(ImportError::Input { findings }) = try_import(&text, |_| {}) else {
        panic!("it is imported")
    };
    assert!(
        findings.iter().any(|f| f.code == "MESH-0340"),
        "{findings:#?}"
    );
}

#[test]
fn a_port_that_carries_bytes_by_its_number_is_denied_as_bytes_are() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: sql, namespace: shop}\nspec: {selector: {app: db}, ports: [{port: 3306}]}\n";
    let no = policy(
        "no",
        "action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]",
    );
    let imported = import(&format!("{service}{}{no}", all()));
    assert!(
        !may(&imported, "db", 3306, json!({})),
        "Istio sees no method there and denies all"
    );
    assert!(may(&imported, "db", 8080, json!({})));
}

#[test]
fn a_pod_of_two_classes_does_not_get_the_more_open_port() {
    // `third` lacks both labels that `no` asks for; so the Servers for `first` select it, and those for `second`, whose
    // names come first.
    let pod = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\nspec: {{containers: [{{name: a, ports: [{{containerPort: 5000}}]}}]}}\n"
        )
    };
    let service = |name: &str, port: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{{labels}}}, ports: [{{name: {port}, port: 5000}}]}}\n"
        )
    };
    let pods = [
        pod("first", "k: one, y: '2'"),
        pod("second", "app: aaa, x: '1'"),
        pod("third", "k: three"),
    ]
    .concat();
    let import_with = |spoken: &str| {
        let policies = [
            service("first", spoken, "k: one"),
            service("second", "http", "app: aaa"),
            service("third", spoken, "k: three"),
            policy(
                "no",
                "selector: {matchLabels: {x: '1', y: '2'}}, action: DENY, rules: [{}]",
            ),
            policy(
                "some",
                "action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]",
            ),
            all(),
        ];
        import(&format!("{pods}{}", policies.concat()))
    };
    let alike = import_with("http");
    assert!(may_among(&pods, &alike, "third", 5000, json!({})));
    let apart = import_with("tcp");
    assert!(!may_among(&pods, &apart, "third", 5000, json!({})));
    told(&apart, "Services contradict each other");
}

#[test]
fn what_might_be_a_policy_is_not_passed_over() {
    let fine = policy("no", "action: DENY, rules: [{}]");
    for (text, code) in [
        (fine.replace("apiVersion: ", "apiversion: "), "MESH-0354"),
        (fine.replace("kind: ", "Kind: "), "MESH-0354"),
        (fine.replace("kind: AuthorizationPolicy", "kind: AuthorisationPolicy"), "MESH-0355"),
        ("---\napiVersion: rbac.istio.io/v1alpha1\nkind: ServiceRole\nmetadata: {name: a, namespace: shop}\n".to_owned(), "MESH-0355"),
        ("---\napiVersion: v1\nkind: List\nitems: {a: b}\n".to_owned(), "MESH-0354"),
    ] {
        let Err(ImportError::Input { findings }) = try_import(&format!("{}{text}", all()), |_| {}) else {
            panic!("{text}")
        };
        assert!(findings.iter().any(|f| f.code == code), "{code} {text} {findings:#?}");
    }
}

#[test]
fn a_mapped_block_is_not_taken_for_ipv4() {
    for block in ["::ffff:10.0.0.0/104", "0:0:0:0:0:ffff:a00:0/104"] {
        let text = policy(
            "p",
            &format!("rules: [{{from: [{{source: {{ipBlocks: ['{block}']}}}}]}}]"),
        );
        assert!(try_import(&text, |_| {}).is_err(), "{block}");
    }
}

#[test]
fn an_open_default_policy_is_refused_where_policies_of_istio_hold() {
    let one = policy("some", "selector: {matchLabels: {app: cart}}");
    let open = |config: &mut ImportConfig| config.default_policy = Mode::AllUnauthenticated;
    assert!(try_import(&one, open).is_err());
    let annotated = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: cart}, annotations: {config.linkerd.io/default-inbound-policy: all-unauthenticated}}\nspec: {containers: [{name: a}]}\n";
    let Err(ImportError::Input { findings }) = try_import(&format!("{one}{annotated}"), |_| {})
    else {
        panic!("it is imported")
    };
    assert!(
        findings[0].message.contains("all-unauthenticated"),
        "{findings:#?}"
    );
    assert!(
        try_import(
            &format!("{one}{}", annotated.replace("app: cart", "app: other")),
            |_| {}
        )
        .is_ok()
    );
}

#[test]
fn a_probe_that_stays_open_is_told_with_its_place() {
    let probed = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: probed, namespace: shop, labels: {app: cart}}\nspec:\n  containers:\n  - name: a\n    ports: [{containerPort: 8080}]\n    livenessProbe: {httpGet: {path: /live, port: 8080}}\n";
    let imported = import(&format!("{probed}{}", policy("nothing", "")));
    let fact = told(&imported, "the probe `GET /live` of port 8080");
    assert_eq!(
        (fact.status, fact.code, fact.place.line),
        (Status::NotKept, Some("MESH-0349"), 9)
    );
    assert!(!imported.report.is_exact());
    let probe = json!({"client": {"ip": "10.1.2.3"}, "path": "/live"});
    assert!(may_among(probed, &imported, "probed", 8080, probe));
}

#[test]
fn what_ztunnel_cannot_see_allows_nothing() {
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n";
    let get = policy("get", "rules: [{to: [{operation: {methods: [GET]}}]}]");
    assert!(cart(&import(&get), json!({})));
    let imported = import(&format!("{namespace}{get}"));
    assert!(!cart(&imported, json!({})));
    told(&imported, "ambient mode");
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {istio.io/dataplane-mode: ambient, app: p}}\nspec: {containers: [{name: a, ports: [{containerPort: 8080}]}]}\n";
    let of_pod = get.replace("spec: {", "spec: {selector: {matchLabels: {app: p}}, ");
    let imported = import(&format!("{pod}{of_pod}"));
    assert!(!may_among(pod, &imported, "p", 8080, json!({})));
    // Whatever is not asked of requests is as it was.
    let web = "rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]";
    assert!(cart(
        &import(&format!("{namespace}{}", policy("web", web))),
        json!({})
    ));
}

#[test]
fn options_of_everything_is_no_path() {
    let below = policy("below", "rules: [{to: [{operation: {paths: ['/*']}}]}]");
    let everything = json!({"method": "OPTIONS", "path": "*"});
    assert!(!cart(&import(&below), everything));
}
