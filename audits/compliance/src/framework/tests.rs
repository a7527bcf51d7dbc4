//! Mappings are whole, or refused with a place.

use super::*;

const GOOD: &str = "framework: mine
title: Mine
version: '1'
revision: 1
source: us
controls:
  - id: a
    title: A
    needs: [e1.plaintext_edges <= 0]
    not_covered: much
";

#[test]
fn every_built_in_mapping_can_be_read_and_is_honest() {
    for name in names() {
        let framework = built_in(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(framework.id, name);
        for control in &framework.controls {
            let id = format!("{name} {}", control.id);
            assert!(!control.evidence().is_empty(), "{id}");
            assert!(
                control.not_covered.len() > 10,
                "{id} says what is not covered"
            );
            let words = format!("{} {}", control.title, control.not_covered).to_lowercase();
            assert!(!words.contains("complian"), "{id}");
        }
    }
    assert_eq!(names().count(), 11);
}

#[test]
fn an_unknown_framework_is_refused_with_those_that_there_are() {
    let error = built_in("iso-9000").expect_err("unknown");
    assert!(
        matches!(&error, FrameworkError::Unknown { asked, known } if asked == "iso-9000" && known.contains("soc2"))
    );
}

#[test]
fn a_broken_mapping_is_refused_at_its_line() {
    assert!(parse("m.yaml", GOOD).is_ok());
    for (from, to, line, why) in [
        (
            "e1.plaintext_edges <= 0",
            "e1.plaintext_edges < 0",
            9,
            "comparison",
        ),
        (
            "e1.plaintext_edges <= 0",
            "e1.plain_edges <= 0",
            9,
            "no metric",
        ),
        (
            "    not_covered: much\n",
            "    not_covered: ' '\n",
            7,
            "not_covered",
        ),
        (
            "    needs: [e1.plaintext_edges <= 0]\n",
            "",
            7,
            "needs nothing",
        ),
        (
            "    needs: [e1.plaintext_edges <= 0]\n",
            "    needs: [e1.plaintext_edges <= 0]\n    stages: { initial: [e7.records >= 1], advanced: [e7.records >= 1], optimal: [e7.records >= 1] }\n",
            7,
            "stages and needs",
        ),
        (
            "    needs: [e1.plaintext_edges <= 0]\n",
            "    stages: { initial: [e7.records >= 1], advanced: [], optimal: [e7.records >= 1] }\n",
            7,
            "stages needs nothing",
        ),
        (
            "    not_covered: much\n",
            "    not_covered: much\n  - { id: a, title: B, needs: [e7.records >= 1], not_covered: all }\n",
            11,
            "stands twice",
        ),
    ] {
        let text = GOOD.replace(from, to);
        let error = parse("m.yaml", &text).expect_err(why);
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("m.yaml:{line}")) && text.contains(why),
            "{text}"
        );
        assert!(matches!(error, FrameworkError::Meaning { .. }), "{text}");
    }
    for (from, to) in [
        ("title: Mine\n", "title: Mine\nowner: me\n"),
        ("revision: 1", "revision: one"),
        ("framework: mine", "framework: 'my own'"),
        ("controls:", "controls: []\nothers:"),
        ("    title: A\n", ""),
    ] {
        let error = parse("m.yaml", &GOOD.replace(from, to)).expect_err(to);
        assert!(
            matches!(error, FrameworkError::Form { .. }),
            "{to}: {error}"
        );
    }
}
