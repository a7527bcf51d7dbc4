//! Edits keep what they do not touch, and are not made where they cannot be proved.

use super::*;
use serde_json::json;

fn at(line: u32, column: u32) -> Source {
    Source::File {
        file: "a.yaml".to_owned(),
        line,
        column,
        end_line: line,
    }
}

fn edited(text: &str, object: &Source, edit: &Edit) -> Option<String> {
    let line = match object {
        Source::File { line, .. } => *line,
        Source::BuiltIn(_) => 1,
    };
    let document = Document::find(text.as_bytes(), line)?;
    Some(document.edited(object, edit)?.text)
}

fn add(list: &[&str], item: Value) -> Edit {
    Edit::Add {
        list: list.iter().map(|key| (*key).to_owned()).collect(),
        item,
    }
}

fn set(map: &[&str], key: &str, value: &str) -> Edit {
    Edit::Set {
        map: map.iter().map(|key| (*key).to_owned()).collect(),
        key: key.to_owned(),
        value: json!(value),
    }
}

#[test]
fn items_are_added_in_every_common_style() {
    for (text, want) in [
        (
            "a: x\nl:\n- one\n- two # last\nz: 1\n",
            "a: x\nl:\n- one\n- two # last\n- new\nz: 1\n",
        ),
        (
            "a: x\nl:\n    - one\n\n    # more\n",
            "a: x\nl:\n    - one\n    - new\n\n    # more\n",
        ),
        ("a: x\nl: [one, two]\n", "a: x\nl: [new, one, two]\n"),
        ("a: x\nl: []\n", "a: x\nl: [new]\n"),
        (
            "a: x\nl:\n  - k: v\n    m: |\n      text\n      more\nz: 1\n",
            "a: x\nl:\n  - k: v\n    m: |\n      text\n      more\n  - new\nz: 1\n",
        ),
        (
            "{\"a\": \"x\", \"l\": [\"one\"]}\n",
            "{\"a\": \"x\", \"l\": [\"new\", \"one\"]}\n",
        ),
    ] {
        let got = edited(text, &at(1, 1), &add(&["l"], json!("new")));
        let trimmed = |text: &str| text.trim_end().to_owned();
        // What follows the last value of a document is not part of it.
        let want = trimmed(want);
        assert_eq!(got.map(|text| trimmed(&text)), Some(want), "{text}");
    }
}

#[test]
fn keys_are_set_added_and_renamed() {
    let text = "m:\n  k: old # why\n  l: 1\n";
    assert_eq!(
        edited(text, &at(1, 1), &set(&["m"], "k", "new")).as_deref(),
        Some("m:\n  k: new # why\n  l: 1\n")
    );
    assert_eq!(
        edited(text, &at(1, 1), &set(&["m"], "name", "yes")).as_deref(),
        Some("m:\n  k: old # why\n  l: 1\n  name: \"yes\"\n")
    );
    let flow = "m: {k: 'old', l: 1}\n";
    assert_eq!(
        edited(flow, &at(1, 1), &set(&["m"], "k", "new")).as_deref(),
        Some("m: {k: new, l: 1}\n")
    );
    assert_eq!(
        edited(flow, &at(1, 1), &set(&["m"], "name", "1")).as_deref(),
        Some("m: {name: \"1\", k: 'old', l: 1}\n")
    );
    let rename = Edit::Rename {
        line: 2,
        column: 3,
        to: "key".to_owned(),
    };
    assert_eq!(
        edited(text, &at(1, 1), &rename).as_deref(),
        Some("m:\n  key: old # why\n  l: 1\n")
    );
    let taken = Edit::Rename {
        line: 2,
        column: 3,
        to: "l".to_owned(),
    };
    assert_eq!(edited(text, &at(1, 1), &taken), None);
}

#[test]
fn what_cannot_be_proved_is_not_edited() {
    // An alias, a list of lists, a value that is no list, an object that is not there, a text that is broken.
    for (text, list) in [
        ("x: &l [one]\nl: *l\n", "l"),
        ("l:\n- - one\n", "m"),
        ("l: one\n", "l"),
        ("l: [one\n", "l"),
        ("a: 1\na: 2\nl: [one]\n", "l"),
    ] {
        assert_eq!(
            edited(text, &at(1, 1), &add(&[list], json!("new"))),
            None,
            "{text}"
        );
    }
    assert_eq!(
        edited("l: [one]\n", &at(1, 9), &add(&["l"], json!("new"))),
        None
    );
    assert_eq!(
        edited("m: {k: {a: 1}}\n", &at(1, 1), &set(&["m"], "k", "new")),
        None
    );
}

#[test]
fn a_document_is_found_between_its_neighbours_and_takes_their_place_alone() {
    let text = "a: 1\n---\n# two\nl:\n- one\n\n---\nb: 2\n";
    let document = Document::find(text.as_bytes(), 4).unwrap();
    assert_eq!((document.line, document.end_line), (3, 5));
    let new = document
        .edited(&at(4, 1), &add(&["l"], json!("new")))
        .unwrap();
    let change = |line, replaces_to, text: &str| Change {
        file: "a.yaml".to_owned(),
        line,
        replaces_to,
        text: text.to_owned(),
    };
    let changes = [change(3, Some(5), &new.text), change(9, None, "c: 3\n")];
    let after = Change::apply("a.yaml", text.as_bytes(), &changes);
    let want = "a: 1\n---\n# two\nl:\n- one\n- new\n\n---\nb: 2\n---\nc: 3\n";
    assert_eq!(String::from_utf8(after).unwrap(), want);
    assert_eq!(Change::apply("b.yaml", b"x: 1\n", &changes), b"x: 1\n");
}

#[test]
fn text_is_put_before_the_end_of_a_statement() {
    let text = "spec:\n  cedar: |\n    forbid(a);\n    forbid(b); // no more\n";
    let splice = |line, insert: &str| Edit::Splice {
        text: vec!["spec".to_owned(), "cedar".to_owned()],
        line,
        insert: insert.to_owned(),
    };
    let got = edited(text, &at(1, 1), &splice(3, " unless { x }")).unwrap();
    assert_eq!(
        got,
        "spec:\n  cedar: |\n    forbid(a) unless { x };\n    forbid(b); // no more\n"
    );
    // Between quotes a quote would end the string.
    let quoted = "spec: {cedar: \"forbid(a);\"}\n";
    assert_eq!(
        edited(quoted, &at(1, 1), &splice(1, " unless { \"x\" }")),
        None
    );
}

#[test]
fn scalars_read_back_as_strings() {
    for text in [
        "a",
        "a-b.c/d",
        "yes",
        "No",
        "1",
        "1e3",
        "0x1",
        "null",
        "~",
        "",
        "a: b",
        "a #b",
        "2026-01-01T00:00:00Z",
        "*",
        "\"",
        "é",
    ] {
        let document = format!("k: {}\n", scalar(text));
        let root = one_tree(&document, 1).unwrap();
        assert_eq!(
            root.get("k").and_then(Node::as_text),
            Some(text),
            "{document}"
        );
    }
}
