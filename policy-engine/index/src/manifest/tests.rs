//! Manifests that are read, and manifests that are refused, each with its place.

use super::*;
use mesh_policy::snapshot::{Severity, Source};

fn load_text(text: &str) -> Loaded {
    load([("policy.yaml".to_owned(), text.as_bytes().to_vec())])
}

/// Code, line, column and message of every error.
fn errors(text: &str) -> Vec<(String, u32, u32, String)> {
    let findings = load_text(text)
        .findings
        .into_iter()
        .filter(|f| f.severity == Severity::Error);
    let place = |source: &Source| match source {
        Source::File {
            file, line, column, ..
        } => {
            assert_eq!(file, "policy.yaml");
            (*line, *column)
        }
        Source::BuiltIn(what) => panic!("{what} is no place in a file"),
    };
    findings
        .map(|f| {
            assert!(
                f.hint.is_some_and(|h| !h.is_empty()),
                "{} says what to do",
                f.code
            );
            let (line, column) = place(&f.source);
            (f.code, line, column, f.message)
        })
        .collect()
}

const SERVER: &str = "\
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata:
  name: cart
  namespace: shop
spec:
  podSelector: {}
  port: 8080
";

#[test]
fn every_mistake_in_a_server_is_found_with_line_column_and_expectation() {
    let mut wrong = Vec::new();
    for (from, to, want, says) in [
        (
            "port: 8080",
            "port: [8080]",
            ("MESH-0356", 8, 9),
            "a port number or the name of a port, not a list",
        ),
        (
            "port: 8080",
            "port: 0",
            ("MESH-0359", 8, 9),
            "from 1 to 65535, not 0",
        ),
        (
            "port: 8080",
            "port: 65536",
            ("MESH-0359", 8, 9),
            "from 1 to 65535",
        ),
        (
            "port: 8080",
            "port: 80.5",
            ("MESH-0356", 8, 9),
            "not a fractional number",
        ),
        (
            "port: 8080",
            "port: '8080'",
            ("MESH-0359", 8, 9),
            "not the name of a port",
        ),
        (
            "port: 8080",
            "port: Not_A_Name",
            ("MESH-0359", 8, 9),
            "not the name of a port",
        ),
        (
            "  port: 8080\n",
            "",
            ("MESH-0357", 7, 3),
            "`spec.port` is missing",
        ),
        (
            "  podSelector: {}\n",
            "",
            ("MESH-0357", 7, 3),
            "`spec.podSelector` is missing",
        ),
        (
            "podSelector: {}",
            "podSelector:",
            ("MESH-0356", 7, 14),
            "empty",
        ),
        (
            "podSelector: {}",
            "podSelektor: {}",
            ("MESH-0358", 7, 3),
            "unknown field `spec.podSelektor`",
        ),
        (
            "podSelector: {}",
            "podSelector: {matchlabels: {a: b}}",
            ("MESH-0358", 7, 17),
            "unknown field `spec.podSelector.matchlabels`",
        ),
        (
            "podSelector: {}",
            "podSelector: {matchLabels: {a: 1}}",
            ("MESH-0356", 7, 34),
            "a string, not the number 1",
        ),
        (
            "podSelector: {}",
            "podSelector: {matchExpressions: [{key: a, operator: Is}]}",
            ("MESH-0359", 7, 55),
            "one of In, NotIn",
        ),
        (
            "podSelector: {}",
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            ("MESH-0360", 7, 36),
            "must not be empty",
        ),
        (
            "podSelector: {}",
            "podSelector: {}\n  externalWorkloadSelector: {}",
            ("MESH-0360", 8, 29),
            "exclude each other",
        ),
        (
            "podSelector: {}",
            "podSelector: {}\n  podSelector: {}",
            ("MESH-0352", 8, 3),
            "stands twice",
        ),
        (
            "port: 8080",
            "port: 8080\n  proxyProtocol: http",
            ("MESH-0359", 9, 18),
            "HTTP/1",
        ),
        (
            "port: 8080",
            "port: 8080\n  accessPolicy: open",
            ("MESH-0359", 9, 17),
            "not a default policy",
        ),
        (
            "port: 8080",
            "port: 8080\n  accessPolicy: true",
            ("MESH-0356", 9, 17),
            "a string, not the boolean true",
        ),
        (
            "name: cart",
            "name: Cart",
            ("MESH-0359", 4, 9),
            "not the name of an object",
        ),
        (
            "  name: cart\n",
            "",
            ("MESH-0357", 4, 3),
            "`metadata.name` is missing",
        ),
        (
            "namespace: shop",
            "namespace: a.b",
            ("MESH-0359", 5, 14),
            "not the name of a namespace",
        ),
        (
            "namespace: shop",
            "annotations: {mesh.internal/path-escapes: all}",
            ("MESH-0359", 1, 1),
            "may only be `keep`",
        ),
        (
            "namespace: shop",
            "annotations: {a: 1}",
            ("MESH-0356", 5, 20),
            "a string",
        ),
        (
            "namespace: shop",
            "creationTimestamp: yesterday",
            ("MESH-0359", 5, 22),
            "RFC 3339",
        ),
        (
            "v1beta3",
            "v9",
            ("MESH-0355", 1, 13),
            "no version of Server that is read",
        ),
        (
            "spec:",
            "specs:",
            ("MESH-0358", 6, 1),
            "unknown field `specs`",
        ),
        (
            "kind: Server",
            "kind: Servr",
            ("MESH-0355", 1, 1),
            "kind `Servr`",
        ),
        (
            "kind: Server",
            "kind: [Server]",
            ("MESH-0354", 1, 1),
            "`kind` is missing",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\n",
            "",
            ("MESH-0355", 1, 1),
            "`apiVersion` is missing",
        ),
    ] {
        let text = SERVER.replace(from, to);
        assert_ne!(text, SERVER, "{from}");
        let found = errors(&text);
        let mut hits = found
            .iter()
            .filter(|(code, line, column, _)| (code.as_str(), *line, *column) == want);
        if !hits.any(|h| h.3.contains(says)) {
            wrong.push(format!("{to}: wanted {want:?} `{says}`, found {found:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(errors(SERVER), []);
}

#[test]
fn a_near_miss_of_a_field_is_suggested() {
    let loaded = load_text(&SERVER.replace("podSelector", "podselector"));
    let finding = loaded
        .findings
        .iter()
        .find(|f| f.code == "MESH-0358")
        .unwrap();
    assert_eq!(finding.hint.as_deref(), Some("did you mean `podSelector`?"));
}

#[test]
fn fields_newer_than_the_version_of_a_server_make_it_invalid() {
    for (version, access, external) in [
        ("v1alpha1", false, false),
        ("v1beta1", false, false),
        ("v1beta2", false, true),
        ("v1beta3", true, true),
    ] {
        let text = SERVER.replace("v1beta3", version);
        assert_eq!(errors(&text), [], "{version}");
        let with_access = text.replace("port: 8080", "port: 8080\n  accessPolicy: audit");
        assert_eq!(
            errors(&with_access).is_empty(),
            access,
            "{version} with accessPolicy"
        );
        let with_external = text.replace("podSelector", "externalWorkloadSelector");
        assert_eq!(
            errors(&with_external).is_empty(),
            external,
            "{version} with externalWorkloadSelector"
        );
    }
}

const ROUTE: &str = "\
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: cart}]
  hostnames: [a.example]
  rules:
  - matches:
    - path: {type: Exact, value: /a}
";

#[test]
fn every_mistake_in_a_route_is_found() {
    for (from, to, code, says) in [
        ("value: /a", "value: a", "MESH-0359", "must start with `/`"),
        ("value: /a", "value: '/a?b'", "MESH-0359", "without query"),
        (
            "type: Exact",
            "type: Prefix",
            "MESH-0359",
            "one of Exact, PathPrefix, RegularExpression",
        ),
        (
            "type: Exact, value: /a",
            "type: RegularExpression, value: '('",
            "MESH-0359",
            "regular expression",
        ),
        (
            "type: Exact, value: /a",
            "type: RegularExpression, value: 'a)|(b'",
            "MESH-0359",
            "regular expression",
        ),
        (
            "type: Exact, value: /a",
            "type: RegularExpression, value: '(a{1000}){1000}'",
            "MESH-0359",
            "regular expression",
        ),
        ("type: Exact", "kind: Exact", "MESH-0358", "unknown field"),
        (
            "- path: {type: Exact, value: /a}",
            "- path: {value: /a}\n      method: get",
            "MESH-0359",
            "one of GET",
        ),
        (
            "- path: {type: Exact, value: /a}",
            "- headers: [{name: 'x y', value: a}]",
            "MESH-0359",
            "name of a header",
        ),
        (
            "- path: {type: Exact, value: /a}",
            "- headers: [{name: x, value: a}, {name: X, value: b}]",
            "MESH-0360",
            "stands twice",
        ),
        (
            "- path: {type: Exact, value: /a}",
            "- headers: [{name: x}]",
            "MESH-0357",
            "value` is missing",
        ),
        (
            "- path: {type: Exact, value: /a}",
            "- header: [{name: x, value: a}]",
            "MESH-0358",
            "unknown field",
        ),
        (
            "hostnames: [a.example]",
            "hostnames: [A.example]",
            "MESH-0359",
            "not a hostname",
        ),
        (
            "hostnames: [a.example]",
            "hostnames: ['a.*']",
            "MESH-0359",
            "not a hostname",
        ),
        (
            "hostnames: [a.example]",
            "hostnames: [10.0.0.1]",
            "MESH-0359",
            "not a hostname",
        ),
        (
            "hostnames: [a.example]",
            "hostnames: ['a.example:80']",
            "MESH-0359",
            "not a hostname",
        ),
        (
            "hostnames: [a.example]",
            "hostnames: a.example",
            "MESH-0356",
            "a list",
        ),
        ("name: cart}", "name: cart, port: 80}", "MESH-0360", "port"),
        (
            "name: cart}",
            "name: cart, sectionName: x}",
            "MESH-0360",
            "sectionName",
        ),
        (
            "rules:",
            "timeout: 1s\n  rules:",
            "MESH-0358",
            "unknown field `spec.timeout`",
        ),
        (
            "  - matches:",
            "  - filters: [{type: RequestMirror, requestMirror: {}}]\n    matches:",
            "MESH-0359",
            "not supported",
        ),
        (
            "  - matches:",
            "  - filters: [{type: ExtensionRef, extensionRef: {}}]\n    matches:",
            "MESH-0359",
            "not supported",
        ),
        (
            "  - matches:",
            "  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: l5d-client-id, value: me}]}}]\n    matches:",
            "MESH-0359",
            "may not change",
        ),
        (
            "  - matches:",
            "  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: \"a\\r\\nb\"}]}}]\n    matches:",
            "MESH-0359",
            "no header",
        ),
        (
            "  - matches:",
            "  - timeouts: {request: soon}\n    matches:",
            "MESH-0359",
            "not a duration",
        ),
    ] {
        let text = ROUTE.replace(from, to);
        assert_ne!(text, ROUTE, "{from}");
        let found = errors(&text);
        assert!(
            found.iter().any(|f| f.0 == code && f.3.contains(says)),
            "{to}: wanted {code} `{says}`, found {found:#?}"
        );
    }
    assert_eq!(errors(ROUTE), []);
}

#[test]
fn timeouts_exist_from_v1beta3_of_the_policy_group_and_in_gateway_api() {
    let timed = ROUTE.replace(
        "  - matches:",
        "  - timeouts: {request: 10s, backendRequest: 500ms}\n    matches:",
    );
    for (version, valid) in [
        ("policy.linkerd.io/v1alpha1", false),
        ("policy.linkerd.io/v1beta2", false),
        ("policy.linkerd.io/v1beta3", true),
        ("gateway.networking.k8s.io/v1", true),
        ("gateway.networking.k8s.io/v1beta1", true),
    ] {
        let text = timed.replace(
            "apiVersion: policy.linkerd.io/v1beta3",
            &format!("apiVersion: {version}"),
        );
        assert_eq!(errors(&text).is_empty(), valid, "{version}");
    }
}

#[test]
fn unknown_fields_are_ignored_in_core_kinds_only() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, uid: x, managedFields: []}\nspec: {newField: 1, containers: [{name: a, image: b, novelty: {}}]}\nfuture: 1\n";
    assert_eq!(errors(pod), []);
    assert_eq!(errors(&format!("{SERVER}future: 1\n")).len(), 1);
    assert_eq!(errors(&format!("{SERVER}status: {{anything: 1}}\n")), []);
}

#[test]
fn what_kubectl_prints_is_read_as_if_it_stood_alone() {
    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- apiVersion: policy.linkerd.io/v1beta3\n  kind: Server\n  metadata: {name: a, namespace: shop}\n  spec: {podSelector: {}, port: 1}\n- apiVersion: policy.linkerd.io/v1beta3\n  kind: Server\n  metadata: {name: b, namespace: shop}\n  spec: {podSelector: {}, port: 1, port: 2}\n";
    let loaded = load_text(list);
    let servers: Vec<(&str, bool)> = loaded
        .resources
        .servers
        .iter()
        .map(|s| (s.key.name.as_str(), s.invalid.is_none()))
        .collect();
    assert_eq!(
        servers,
        [("a", true), ("b", false)],
        "a mistake in one item is none in the other"
    );
    let typed = "apiVersion: policy.linkerd.io/v1beta3\nkind: ServerList\nitems:\n- metadata: {name: a}\n  spec: {podSelector: {}, port: 1}\n";
    assert_eq!(load_text(typed).resources.servers.len(), 1);
    let twice = "apiVersion: v1\nkind: List\nitems: []\nitems: []\n";
    assert_eq!(
        load_text(twice).resources.closed.len(),
        1,
        "a list that cannot be read might hold a Server"
    );
}

#[test]
fn the_same_object_twice_is_invalid_twice() {
    let other = SERVER.replace("v1beta3", "v1beta1").replace("8080", "9090");
    let loaded = load([
        ("a.yaml".to_owned(), SERVER.as_bytes().to_vec()),
        ("b.yaml".to_owned(), other.into_bytes()),
    ]);
    assert_eq!(
        loaded
            .resources
            .servers
            .iter()
            .filter(|s| s.invalid.is_some())
            .count(),
        2
    );
    let messages: Vec<&str> = loaded
        .findings
        .iter()
        .filter(|f| f.code == "MESH-0361")
        .map(|f| f.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "Server shop/cart stands more than once: also at a.yaml:1",
            "Server shop/cart stands more than once: also at b.yaml:1"
        ]
    );
}

#[test]
fn kinds_that_are_not_ours_are_ignored_and_look_alikes_are_pointed_out() {
    let quiet = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: 1}\n---\napiVersion: mesh.internal/v1alpha1\nkind: LocalMesh\nmetadata: {name: a}\nworkloads: []\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\n";
    assert!(load_text(quiet).findings.is_empty());
    let alike = load_text(&SERVER.replace("policy.linkerd.io", "policy.linkerd.oi"));
    assert_eq!(
        alike
            .findings
            .iter()
            .map(|f| f.code.as_str())
            .collect::<Vec<_>>(),
        ["MESH-0382"]
    );
    let newer = "apiVersion: mesh.internal/v1alpha1\nkind: Shield\nmetadata: {name: a}\nspec: {}\n";
    assert_eq!(
        errors(newer).first().map(|e| e.0.clone()).as_deref(),
        Some("MESH-0355"),
        "a policy that is not read is said"
    );
}

#[test]
fn kinds_that_are_only_checked_say_so() {
    for text in [
        "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {name: a.b.svc.cluster.local}\nspec: {routes: [{name: x, condition: {pathRegex: /}}]}\n",
        "apiVersion: workload.linkerd.io/v1beta1\nkind: ExternalWorkload\nmetadata: {name: e}\nspec: {meshTLS: {identity: 'spiffe://td/x', serverName: a.b}, ports: [{port: 80}], workloadIPs: [{ip: 10.0.0.1}]}\n",
    ] {
        let codes: Vec<String> = load_text(text)
            .findings
            .into_iter()
            .map(|f| f.code)
            .collect();
        assert_eq!(codes, ["MESH-0379"], "{text}");
        assert!(
            !errors(&format!("{text}novelty: 1\n")).is_empty(),
            "and they are checked"
        );
    }
}

#[test]
fn names_that_look_alike_are_refused() {
    let cyrillic = SERVER.replace("name: cart", "name: c\u{0430}rt");
    assert_eq!(
        errors(&cyrillic).first().map(|e| e.0.clone()).as_deref(),
        Some("MESH-0359")
    );
}

#[test]
fn a_server_with_a_group_but_no_version_is_a_server_still() {
    let loaded = load_text(&SERVER.replace("policy.linkerd.io/v1beta3", "policy.linkerd.io"));
    assert!(
        loaded
            .resources
            .servers
            .first()
            .is_some_and(|s| s.invalid.is_some())
    );
}

#[test]
fn a_route_whose_server_has_the_wrong_group_says_so() {
    let text = ROUTE
        .replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1")
        .replace("group: policy.linkerd.io, ", "");
    let codes: Vec<String> = load_text(&text)
        .findings
        .into_iter()
        .map(|f| f.code)
        .collect();
    assert_eq!(codes, ["MESH-0371"]);
}

#[test]
fn a_namespace_without_name_might_have_closed_any() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {annotations: {config.linkerd.io/default-inbound-policy: deny}}\n";
    assert_eq!(load_text(text).resources.closed.len(), 1);
}

#[test]
fn an_item_of_a_typed_list_that_is_no_mapping_is_a_finding_and_closes_what_it_may_have_closed() {
    let list = |kind: &str, api: &str, items: &str| {
        load([(
            "a.yaml".to_owned(),
            format!("apiVersion: {api}\nkind: {kind}List\nitems: [{items}]\n").into_bytes(),
        )])
    };
    let codes = |loaded: &Loaded| -> Vec<String> {
        loaded.findings.iter().map(|f| f.code.clone()).collect()
    };
    for items in ["text", "[1]", "5"] {
        let loaded = list("AuthorizationPolicy", "policy.linkerd.io/v1alpha1", items);
        assert_eq!(codes(&loaded), ["MESH-0354"], "{items}");
        assert!(
            loaded.resources.authorization_policies.is_empty()
                && loaded.resources.closed.is_empty()
        );
        let loaded = list("Server", "policy.linkerd.io/v1beta3", items);
        assert_eq!(codes(&loaded), ["MESH-0354", "MESH-0384"], "{items}");
        assert_eq!(loaded.resources.closed.len(), 1);
        let loaded = list("CedarPolicy", "mesh.internal/v1alpha1", items);
        assert!(codes(&loaded).contains(&"MESH-0354".to_owned()), "{items}");
        assert_eq!(loaded.resources.cedar_closed.len(), 1);
    }
}

/// A file as it is, and read piece by piece.
fn whole_and_pieces(text: &str, about: usize) -> (usize, [String; 2]) {
    let pieces = Piece::of("a.yaml", text.as_bytes(), about);
    let parts: Vec<Part> = pieces.iter().map(Piece::read).collect();
    let whole = load([("a.yaml".to_owned(), text.as_bytes())]);
    let shown = [whole, join(&parts)].map(|loaded| format!("{loaded:#?}"));
    (pieces.len(), shown)
}

#[test]
fn a_file_in_pieces_is_the_file() {
    use proptest::prelude::*;
    let texts: Vec<String> = [
        SERVER,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop}\n",
        "kind: Server\n",
        "a: [\n",
        "text: |\n  --- no marker\n",
        "text: |\n---\n",
        "%YAML 1.2\n",
        "# nothing\n",
        "...\na: 1\n",
        "a: &x 1\nb: *x\n",
        "- 1\n",
        "{\"a\": 1}\n",
        "",
    ]
    .map(str::to_owned)
    .to_vec();
    let one = (prop::sample::select(texts), any::<bool>());
    let marks = prop::sample::select(&["---\n", "--- \n", "--- # here\n", "---a\n"][..]);
    let file = prop::collection::vec((marks, one), 0..12);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let cut = std::cell::Cell::new(0);
    runner
        .run(&(file, 1usize..400), |(file, about)| {
            let mut text = String::new();
            for (mark, (document, crlf)) in file {
                text.push_str(mark);
                match crlf {
                    true => text.push_str(&document.replace('\n', "\r\n")),
                    false => text.push_str(&document),
                }
            }
            let (pieces, [whole, joined]) = whole_and_pieces(&text, about);
            cut.set(cut.get().max(pieces));
            prop_assert_eq!(whole, joined, "{}", text);
            Ok(())
        })
        .unwrap();
    assert!(cut.get() > 4, "files were cut");
}

#[test]
fn what_only_the_whole_can_tell_is_not_cut() {
    let many = "---\na: 1\n".repeat(crate::limits::DOCUMENTS_MAX + 1);
    let ended = "a: 1\n...\n".repeat(crate::limits::DOCUMENTS_MAX + 1);
    let json = format!("[{}\n---\n1]", "1,\n".repeat(100));
    for text in [&many, &ended, "\u{feff}\u{0}---\n", "{\n\"a\":\n1}\n"] {
        let (pieces, [whole, joined]) = whole_and_pieces(text, 1);
        assert_eq!(pieces, 1, "{text:.20}");
        assert_eq!(whole, joined);
    }
    let (_, [whole, joined]) = whole_and_pieces(&json, 1);
    assert_eq!(whole, joined, "looks like JSON, and is none");
}
