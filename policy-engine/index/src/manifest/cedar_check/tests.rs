//! Single texts: names, references, places.

use super::*;
use crate::manifest::tree;

fn check_at(yaml: &str) -> Result<Checked, Problem> {
    let document = tree::read(yaml.as_bytes()).into_iter().next().unwrap();
    let node = document.root.get("cedar").unwrap();
    let locate = |at: Place, end_line: u32| Source::File {
        file: "x.yaml".into(),
        line: at.line,
        column: at.column,
        end_line,
    };
    check_text(node, node.as_text().unwrap(), "CedarPolicy/shop/x", &locate)
}

/// Checks a text as the literal block that starts on line 2.
fn check(text: &str) -> Checked {
    let indented: String = text.lines().map(|l| format!("  {l}\n")).collect();
    check_at(&format!("cedar: |\n{indented}")).unwrap()
}

fn codes(checked: &Checked) -> Vec<(Code, u32)> {
    let of = |p: &Problem| (p.code, p.at.line);
    checked.problems.iter().map(of).collect()
}

fn when(condition: &str) -> String {
    format!("permit(principal, action, resource)\nwhen {{ {condition} }};")
}

#[test]
fn ids_come_from_annotations_or_from_the_place() {
    let text = "@id(\"first\")\npermit(principal, action, resource);\nforbid(principal, action, resource);\n@id(\"9\")\npermit(principal, action, resource);";
    let checked = check(text);
    assert_eq!(codes(&checked), []);
    let ids: Vec<&str> = checked.statements.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "CedarPolicy/shop/x/first",
            "CedarPolicy/shop/x/1",
            "CedarPolicy/shop/x/9"
        ]
    );
}

#[test]
fn an_id_that_is_none_or_stands_twice_is_refused_and_replaced() {
    let permit = "permit(principal, action, resource);";
    for (first, second, want) in [
        ("@id(\"a\")", "@id(\"a\")", ["a", "#1"]),
        ("@id(\"1\")", "", ["1", "#1"]),
        ("@id(\"A\")", "", ["#0", "1"]),
        ("@id(\"a/b\")", "", ["#0", "1"]),
        ("@id(\"*\")", "@id(\"#0\")", ["#0", "#1"]),
        ("@id(\"\")", "@id(\"a b\")", ["#0", "#1"]),
        ("@id", "", ["#0", "1"]),
    ] {
        let checked = check(&format!("{first} {permit}\n{second} {permit}"));
        let ids: Vec<&str> = checked
            .statements
            .iter()
            .map(|s| s.id.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(ids, want, "{first} {second}");
        let wrong = want.iter().filter(|id| id.starts_with('#')).count();
        assert_eq!(codes(&checked).len(), wrong, "{first} {second}");
        assert!(
            checked
                .problems
                .iter()
                .all(|p| p.code == Code::CedarAnnotation)
        );
    }
}

#[test]
fn audit_is_true_or_false_and_for_permits() {
    for (text, audit, problems) in [
        (
            "@audit(\"true\") permit(principal, action, resource);",
            true,
            0,
        ),
        (
            "@audit(\"false\") permit(principal, action, resource);",
            false,
            0,
        ),
        (
            "@audit(\"false\") forbid(principal, action, resource);",
            false,
            0,
        ),
        (
            "@audit(\"yes\") permit(principal, action, resource);",
            false,
            1,
        ),
        ("@audit permit(principal, action, resource);", false, 1),
        (
            "@audit(\"true\") forbid(principal, action, resource);",
            false,
            1,
        ),
    ] {
        let checked = check(text);
        assert_eq!(checked.statements.first().unwrap().audit, audit, "{text}");
        assert_eq!(checked.problems.len(), problems, "{text}");
    }
}

#[test]
fn what_strict_validation_refuses_is_refused_here() {
    for (condition, code, what) in [
        (
            "principal.ns == \"shop\"",
            Code::CedarInvalid,
            "an optional attribute, not asked for",
        ),
        (
            "principal.nss == \"shop\"",
            Code::CedarInvalid,
            "an attribute that there is not",
        ),
        (
            "context.user == \"x\"",
            Code::CedarInvalid,
            "a context that there is not",
        ),
        (
            "principal in Mesh::Workgroup::\"x\"",
            Code::CedarInvalid,
            "a type that there is not",
        ),
        (
            "context.conn.port == \"80\"",
            Code::CedarInvalid,
            "a number compared with a string",
        ),
        (
            "ip(context.req.path).isLoopback()",
            Code::CedarInvalid,
            "an address out of a string",
        ),
        (
            "ip(\"300.0.0.1\") == context.conn.ip",
            Code::CedarInvalid,
            "no address",
        ),
        (
            "context.now < datetime(\"tomorrow\")",
            Code::CedarInvalid,
            "no time",
        ),
        (
            "action == Mesh::Action::\"write\"",
            Code::CedarInvalid,
            "an action that there is not",
        ),
        (
            "Mesh::Workload::\"spiffe://td/ns/a/sa/b\".id == \"x\"",
            Code::CedarInvalid,
            "an entity that the proxy does not know",
        ),
        ("false", Code::CedarImpossible, "never"),
        (
            "principal is Mesh::Server",
            Code::CedarImpossible,
            "a principal that is none",
        ),
        (
            "principal == Mesh::Anonymous::\"nobody\"",
            Code::CedarInvalid,
            "a client that there is not",
        ),
    ] {
        let text = when(condition);
        let checked = check(&text);
        let statement = checked.statements.first().unwrap();
        assert!(statement.broken.is_some(), "{what}: {:?}", checked.problems);
        assert!(
            checked.problems.iter().any(|p| p.code == code),
            "{what}: {:?}",
            checked.problems
        );
        let forbid = check(&text.replace("permit(", "forbid("));
        let forbid = forbid.statements.first().unwrap();
        assert!(
            forbid.broken.is_some() && forbid.effect == Effect::Forbid,
            "{what}"
        );
    }
}

#[test]
fn the_schema_offers_what_the_guide_says() {
    for condition in [
        "principal has ns && principal.ns == \"shop\"",
        "principal in Mesh::Namespace::\"cluster.local/shop\"",
        "principal == Mesh::Workload::\"spiffe://cluster.local/ns/shop/sa/web\"",
        "context.conn.tls && context.conn.port == 8080",
        "context.conn.ip.isInRange(ip(\"10.0.0.0/8\"))",
        "context.now < datetime(\"2027-01-01T00:00:00Z\")",
        "context.conn has certNotAfter && context.now < context.conn.certNotAfter",
        "resource in Mesh::Server::\"shop/cart\"",
        "resource in Mesh::Namespace::\"cluster.local/shop\"",
    ] {
        let checked = check(&when(condition));
        assert_eq!(codes(&checked), [], "{condition}: {:?}", checked.problems);
    }
    let headers = "permit(principal, action == Mesh::Action::\"request\", resource)\nwhen { context.req.headers.hasTag(\"x-a\") && context.req.headers.getTag(\"x-a\").contains(\"b\") };";
    assert_eq!(codes(&check(headers)), []);
}

#[test]
fn an_id_that_no_entity_can_have_is_refused() {
    for (entity, sound) in [
        ("principal in Mesh::Namespace::\"shop\"", false),
        ("principal in Mesh::Namespace::\"Cluster/shop\"", false),
        (
            "principal in Mesh::Namespace::\"cluster.local/shop/x\"",
            false,
        ),
        ("principal in Mesh::TrustDomain::\"spiffe://x\"", false),
        ("principal in Mesh::TrustDomain::\"x.example\"", true),
        ("principal == Mesh::Workload::\"web\"", false),
        (
            "principal == Mesh::Workload::\"spiffe://x/ns/../sa\"",
            false,
        ),
        ("resource in Mesh::Server::\"cart\"", false),
        ("resource in Mesh::Server::\"shop/Cart\"", false),
        ("resource in Mesh::Server::\"default\"", true),
        ("resource in Mesh::NamedServers::\"shop/x\"", false),
        ("resource in Mesh::NamedServers::\"shop\"", true),
        ("resource in Mesh::RouteObj::\"shop/r\"", false),
        ("resource in Mesh::RouteObj::\"TCPRoute/shop/r\"", false),
        ("resource in Mesh::RouteObj::\"HTTPRoute/shop/r\"", true),
        (
            "resource in Mesh::RouteObj::\"HTTPRoute.policy.linkerd.io/shop/r\"",
            true,
        ),
    ] {
        let checked = check(&when(entity));
        let refused = checked.problems.iter().any(|p| p.code == Code::CedarEntity);
        assert_eq!(refused, !sound, "{entity}: {:?}", checked.problems);
        assert_eq!(
            checked.statements.first().unwrap().broken.is_some(),
            !sound,
            "{entity}"
        );
    }
}

#[test]
fn a_policy_that_cannot_be_parsed_is_a_forbid_unless_it_surely_is_a_permit() {
    for (text, effect) in [
        ("permit(principal action, resource);", Effect::Permit),
        (
            "permit(principal, action, resource) when { ipp(\"x\") };",
            Effect::Permit,
        ),
        (
            "permit(principal, action, resource) forbid(principal, action, resource);",
            Effect::Forbid,
        ),
        ("forbid(principal action, resource);", Effect::Forbid),
        ("fobid(principal, action, resource);", Effect::Forbid),
        ("allow(principal, action, resource);", Effect::Forbid),
        ("permit(principal, action, resource)", Effect::Forbid),
        (
            "permit(principal == ?principal, action, resource);",
            Effect::Permit,
        ),
        (
            "forbid(principal == ?principal, action, resource);",
            Effect::Forbid,
        ),
        (
            "permit(principal == ?principal action, resource);",
            Effect::Permit,
        ),
        ("nonsense", Effect::Forbid),
    ] {
        let checked = check(text);
        let statement = checked.statements.first().unwrap();
        assert_eq!(statement.effect, effect, "{text}");
        assert!(statement.broken.is_some(), "{text}");
    }
}

#[test]
fn a_text_without_policy_is_refused() {
    for text in ["''", "\"// nothing\"", "' '"] {
        let refused = check_at(&format!("cedar: {text}\n")).unwrap_err();
        assert_eq!(refused.code, Code::CedarSyntax, "{text}");
    }
}

#[test]
fn problems_have_the_line_of_the_policy_in_the_file() {
    let text = "\n// a comment\npermit(principal, action, resource);\nforbid(\n  principal,\n  action,\n  resource\n)\nwhen {\n  context.nothing\n};";
    let indented: String = text.lines().map(|l| format!("  {l}\n")).collect();
    let checked = check_at(&format!("a: b\ncedar: |\n{indented}")).unwrap();
    assert!(!checked.problems.is_empty());
    for found in codes(&checked) {
        assert_eq!(found, (Code::CedarInvalid, 12));
    }
    let second = checked.statements.get(1).unwrap();
    let Source::File {
        line,
        end_line,
        column,
        ..
    } = second.source
    else {
        panic!("a place in a file")
    };
    assert_eq!((line, end_line, column), (6, 13, 3));
    // Forms whose lines are not those of the text stay within the value.
    for yaml in [
        "a: b\ncedar: \"permit(principal, action, resource);\\n\\n\\nforbid(principal, action);\"\n",
        "a: b\ncedar: >\n  permit(principal, action, resource);\n\n  forbid(principal, action);\n",
    ] {
        let checked = check_at(yaml).unwrap();
        assert!(
            checked
                .problems
                .iter()
                .all(|p| (2..=6).contains(&p.at.line)),
            "{yaml}"
        );
        assert!(!checked.problems.is_empty());
    }
}

#[test]
fn confusable_texts_and_calculating_forbids_are_doubts() {
    let mixed = check(&when(
        "resource in Mesh::Server::\"shop/cart\" || \"p\u{430}yments\" == \"x\"",
    ));
    assert!(
        mixed.doubts.iter().any(|d| d.code == Code::CedarDoubt),
        "{mixed:?}"
    );
    let sum = when("context.conn.port + 1 == 8081");
    assert_eq!(check(&sum).doubts.len(), 0);
    let forbid = check(&sum.replace("permit(", "forbid("));
    let found: Vec<Code> = forbid.doubts.iter().map(|d| d.code).collect();
    assert_eq!(found, [Code::CedarMayFail]);
}

#[test]
fn a_header_that_no_request_has_is_refused() {
    for (name, sound) in [
        ("\"x-tenant\"", true),
        ("\"x_a.b~\"", true),
        ("\"X-Tenant\"", false),
        ("\"x tenant\"", false),
        ("\"\"", false),
        ("\"x:\"", false),
        ("\"x-\u{fc}\"", false),
        ("context.req.method", false),
    ] {
        let text = format!(
            "forbid(principal, action == Mesh::Action::\"request\", resource)\nwhen {{ context.req.headers.hasTag({name}) }};"
        );
        let checked = check(&text);
        let broken = checked.statements.first().unwrap().broken.is_some();
        assert_eq!(broken, !sound, "{name}: {:?}", checked.problems);
        assert!(checked.problems.iter().all(|p| p.code == Code::CedarEntity));
    }
}
