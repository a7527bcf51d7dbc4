//! YAML that is read with its places, and YAML that is refused: bombs, aliases, duplicates, tags.

use super::*;
use crate::limits::{DOCUMENTS_MAX, FILE_BYTES_MAX, FINDINGS_EACH_MAX};

fn only(text: &str) -> Document {
    let mut documents = read(text.as_bytes());
    assert_eq!(documents.len(), 1, "one document in {text:?}");
    documents.pop().unwrap()
}

/// Line, column and code of each defect.
fn defects(bytes: &[u8]) -> Vec<(u32, u32, &'static str)> {
    let documents = read(bytes);
    documents
        .iter()
        .flat_map(|d| &d.defects)
        .map(|d| (d.at.line, d.at.column, d.code.text()))
        .collect()
}

#[test]
fn every_kind_of_broken_text_is_refused_at_its_place() {
    let deep = format!("a: {}1{}", "[".repeat(70), "]".repeat(70));
    let deep_block = (0..70)
        .map(|n| format!("{}- \n", " ".repeat(n)))
        .collect::<String>();
    let mut wrong = Vec::new();
    for (text, want, what) in [
        ("a: [1, 2\nb: 3\n", (2, 2, "MESH-0350"), "an open bracket"),
        (
            "a: b: c\n",
            (1, 5, "MESH-0350"),
            "a mapping inside a plain value",
        ),
        ("a: \"x\n", (1, 4, "MESH-0350"), "an open string"),
        ("a:\n\t- b\n", (2, 2, "MESH-0350"), "a tab for indentation"),
        ("a: 1\nb: 2\na: 3\n", (3, 1, "MESH-0352"), "a key twice"),
        (
            "a:\n  x: 1\n  \"x\": 2\n",
            (3, 3, "MESH-0352"),
            "a key twice, once in quotes",
        ),
        ("a: !!str 1\n", (1, 4, "MESH-0353"), "a tag"),
        (
            "a: !custom {b: 1}\n",
            (1, 4, "MESH-0353"),
            "a tag of one's own",
        ),
        ("a: .nan\n", (1, 4, "MESH-0353"), "not a number"),
        ("a: -.inf\n", (1, 4, "MESH-0353"), "infinity"),
        (
            "a: 99999999999999999999\n",
            (1, 4, "MESH-0353"),
            "a number past 64 bits",
        ),
        ("a: &x [*x]\n", (1, 8, "MESH-0353"), "a cyclic alias"),
        (
            "a: &x {b: {c: *x}}\n",
            (1, 15, "MESH-0353"),
            "a cyclic alias, deeper",
        ),
        ("a: *x\n", (1, 4, "MESH-0350"), "an alias without anchor"),
        ("<<: {a: 1}\nb: 2\n", (1, 1, "MESH-0353"), "a merge key"),
        ("? [a]\n: b\n", (1, 3, "MESH-0353"), "a list as key"),
        (
            "a: x\u{0}y\n",
            (1, 5, "MESH-0350"),
            "NUL, which the scanner takes for the end",
        ),
        (
            "a: b\n  \u{feff}c: d\n",
            (2, 3, "MESH-0350"),
            "a byte order mark inside",
        ),
        (
            deep.as_str(),
            (1, 67, "MESH-0351"),
            "nesting past the limit",
        ),
        (
            deep_block.as_str(),
            (65, 65, "MESH-0351"),
            "nesting past the limit by indentation",
        ),
    ] {
        let found = defects(text.as_bytes());
        if found.first() != Some(&want) {
            wrong.push(format!("{what}: wanted {want:?}, got {found:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn bytes_that_are_no_utf8_are_refused_at_their_place() {
    assert_eq!(defects(b"a: b\nc: \xff\n"), [(2, 4, "MESH-0350")]);
    assert_eq!(defects(b"\xff\xfea\x00:\x00"), [(1, 1, "MESH-0350")]);
}

#[test]
fn an_alias_bomb_is_refused_before_it_grows() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert_eq!(
        defects(text.as_bytes()).first().map(|d| d.2),
        Some("MESH-0351")
    );
    let text = format!(
        "a: &a \"{}\"\nb: [{}]\n",
        "x".repeat(100_000),
        vec!["*a"; 1000].join(", ")
    );
    assert_eq!(
        defects(text.as_bytes()).first().map(|d| d.2),
        Some("MESH-0351"),
        "a long string many times"
    );
}

#[test]
fn too_much_text_is_refused() {
    let document = format!("a: \"{}\"\n", "x".repeat(DOCUMENT_BYTES_MAX));
    assert_eq!(defects(document.as_bytes()), [(1, 1, "MESH-0351")]);
    assert_eq!(
        defects(&vec![b'\n'; FILE_BYTES_MAX + 1]),
        [(1, 1, "MESH-0351")]
    );
    let documents = "---\n{}\n".repeat(DOCUMENTS_MAX + 1);
    assert_eq!(
        defects(documents.as_bytes()).first().map(|d| d.2),
        Some("MESH-0351")
    );
    assert_eq!(read(documents.as_bytes()).len(), 1, "none of them is read");
    let ended = "a: 1\n...\n".repeat(DOCUMENTS_MAX + 1);
    assert_eq!(read(ended.as_bytes()).len(), 1, "nor of those");
    let twice = "a: 1\n".repeat(1_000);
    assert_eq!(defects(twice.as_bytes()).len(), FINDINGS_EACH_MAX + 1);
    let many = format!("a: [{}]\n", "1,".repeat(NODES_MAX + 1));
    assert_eq!(
        defects(many.as_bytes()).first().map(|d| d.2),
        Some("MESH-0351")
    );
}

#[test]
fn a_broken_document_leaves_the_others_and_their_lines_alone() {
    let documents = read(b"a: 1\n---\nb: [\n--- # third\nc: 3\n...\n---\n# nothing\n---\nd: 4\n");
    let shown: Vec<(bool, u32)> = documents
        .iter()
        .map(|d| (d.complete, d.root.at.line))
        .collect();
    assert_eq!(shown, [(true, 1), (false, 3), (true, 5), (true, 10)]);
    assert_eq!(
        documents.last().unwrap().root.get("d").unwrap().at,
        Place {
            line: 10,
            column: 4
        }
    );
}

#[test]
fn what_stood_before_the_break_can_be_read() {
    let document = only("kind: Server\nspec:\n  port: 80\n  list: [1, 2\nx: {");
    assert!(!document.complete);
    assert_eq!(
        document.root.get("kind").and_then(Node::as_text),
        Some("Server")
    );
    assert_eq!(
        document
            .root
            .get("spec")
            .and_then(|s| s.get("port"))
            .map(|p| &p.value),
        Some(&Value::Int(80))
    );
}

#[test]
fn neither_value_of_a_repeated_key_is_used() {
    let document = only("a: 1\na: 2\na: 3\n");
    assert_eq!(document.root.get("a").map(|n| &n.value), Some(&Value::Bad));
    assert!(matches!(&document.root.value, Value::Map(entries) if entries.len() == 1));
}

#[test]
fn plain_values_are_read_as_yaml_1_2_and_never_as_1_1() {
    for (text, want) in [
        ("yes", Value::Text("yes".into())),
        ("off", Value::Text("off".into())),
        ("010", Value::Text("010".into())),
        ("1_000", Value::Text("1_000".into())),
        ("22:30", Value::Text("22:30".into())),
        (
            "2020-01-01T00:00:00Z",
            Value::Text("2020-01-01T00:00:00Z".into()),
        ),
        ("10.0.0.1", Value::Text("10.0.0.1".into())),
        ("0x1F", Value::Int(31)),
        ("-7", Value::Int(-7)),
        ("0", Value::Int(0)),
        ("1.5", Value::Float(1.5)),
        ("1e3", Value::Float(1000.0)),
        ("true", Value::Bool(true)),
        ("~", Value::Null),
        ("", Value::Null),
        ("'1'", Value::Text("1".into())),
        ("\"null\"", Value::Text("null".into())),
    ] {
        let document = only(&format!("a: {text}\nb: 1\n"));
        assert_eq!(
            document.root.get("a").map(|n| n.value.clone()),
            Some(want),
            "{text}"
        );
    }
}

#[test]
fn aliases_within_the_budget_stand_for_their_value() {
    let document = only("a: &x {b: 1}\nc: *x\n");
    assert_eq!(document.root.get("a"), document.root.get("c"));
    assert!(document.defects.is_empty());
}

#[test]
fn a_byte_order_mark_at_the_start_is_ignored() {
    let documents = read(b"\xEF\xBB\xBFa: 1\n");
    assert_eq!(
        documents.first().unwrap().root.get("a").unwrap().at,
        Place { line: 1, column: 4 }
    );
}

#[test]
fn json_is_read_with_tabs_and_duplicate_keys_are_found() {
    let document = only("{\n\t\"a\": {\"b\": [1, null, \"x\\/y\"]}\n}");
    assert!(document.defects.is_empty(), "{:?}", document.defects);
    assert_eq!(
        document.root.get("a").unwrap().at,
        Place { line: 2, column: 7 }
    );
    assert_eq!(defects(b"{\"a\": 1, \"a\": 2}"), [(1, 10, "MESH-0352")]);
}

#[test]
fn directives_alone_are_no_document() {
    assert_eq!(read(b"%YAML 1.2\n---\na: 1\n").len(), 1);
    assert_eq!(read(b"# only\n\n---\n---\n").len(), 0);
}
