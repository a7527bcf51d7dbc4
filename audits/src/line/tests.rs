//! Lines: their form, and what cannot be forged in them (threats AU1, AU2).

use super::*;
use crate::entry::{Gap, GapCause};
use crate::testing::{decision, start};
use mesh_tlog::leaf_hash;
use proptest::prelude::*;

fn line_of(entry: Entry) -> (Vec<u8>, Line) {
    let mut bytes = encode(7, entry, None).unwrap().bytes;
    assert_eq!(bytes.pop(), Some(b'\n'));
    let line = Line::read(&bytes).unwrap();
    (bytes, line)
}

fn with_path(path: &str) -> Entry {
    let mut record = decision(1);
    if let Some(request) = &mut record.request {
        request.raw_path = path.to_owned();
    }
    Entry::Decision(Box::new(record))
}

#[test]
fn a_line_has_exactly_the_documented_form_and_is_its_own_leaf() {
    let gap = Gap {
        time: mesh_trust::Timestamp::from_unix_secs(0),
        lost: 3,
        cause: GapCause::QueueFull,
    };
    let encoded = encode(12, Entry::Gap(gap), None).unwrap();
    let text = r#"{"seq":12,"kind":"gap","record":{"time":"1970-01-01T00:00:00.000000Z","lost":3,"cause":"queue-full"}}"#;
    assert_eq!(encoded.bytes, format!("{text}\n").as_bytes());
    assert_eq!(encoded.leaf, leaf_hash(text.as_bytes()));
    let parts = Parts::of(text.as_bytes()).unwrap();
    assert_eq!((parts.seq, parts.kind), (12, "gap"));
    assert_eq!(
        (parts.leaf(), parts.entry()),
        (encoded.leaf, text.as_bytes().to_vec())
    );
}

#[test]
fn au1_hostile_text_stays_inside_its_field_and_off_the_terminal() {
    for hostile in [
        "/\r\n{\"seq\":9}",
        "/\u{0}\u{7f}\u{1b}[2J",
        "/\u{202e}\u{2066}rtl",
        "/\u{9b}31m",
        "/\",\"verdict\":\"allow",
        "/\\\",\"verdict\":\"allow",
        "/\u{fffd}\u{1f600}\u{10ffff}",
        "/\u{2028}\u{2029}\u{feff}",
    ] {
        let (bytes, line) = line_of(with_path(hostile));
        assert!(
            bytes.iter().all(|byte| (0x20..0x7f).contains(byte)),
            "{hostile:?}"
        );
        match line.entry {
            Entry::Decision(record) => {
                assert_eq!(record.request.unwrap().raw_path, hostile);
                assert_eq!(record.verdict, mesh_policy::decide::Verdict::Deny);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn au1_invalid_utf8_reaches_a_log_only_as_replacement_characters() {
    let path = String::from_utf8_lossy(b"/\xff\xfe\xc0\x80\xed\xa0\x80").into_owned();
    let (bytes, line) = line_of(with_path(&path));
    assert!(String::from_utf8(bytes).unwrap().contains("\\ufffd"));
    assert_eq!(line.entry, with_path(&path));
}

#[test]
fn au1_a_value_of_a_mebibyte_is_cut_and_its_length_is_told_beside_it() {
    let (bytes, line) = line_of(with_path(&"/é".repeat(1 << 20)));
    assert!(
        bytes.len() < 8 * crate::limits::PATH_BYTES_MAX,
        "{}",
        bytes.len()
    );
    assert_eq!(line.cut.get("request.raw_path"), Some(&(3 << 20)));
    let (_, short) = line_of(with_path("/short"));
    assert!(short.cut.is_empty());
}

#[test]
fn au1_every_text_of_every_kind_is_capped() {
    use crate::entry::{
        Action, AllowClass, AllowCounts, BreakGlass, ChangeEffect, ChangedObject, How,
        IssuanceLine, PolicyChange, Redaction, Said, SaidBy, Start,
    };
    let time = mesh_trust::Timestamp::from_unix_secs(0);
    let huge = || "x".repeat(1 << 20);
    let class = AllowClass {
        generation: 1,
        client: Some(huge()),
        tls: true,
        server: mesh_policy::record::RecordServer::default(),
        route: None,
        method: Some(huge()),
        reasons: vec![huge(); 300],
        audit: false,
        count: 1,
    };
    let said = || Said {
        who: vec![huge(); 300],
        from: SaidBy::Annotation,
    };
    let action = || Action {
        time,
        action: huge(),
        by: huge(),
        detail: huge(),
    };
    let verdict = mesh_policy::decide::Verdict::Deny;
    let decided = mesh_policy::record::DecisionRecord {
        shadow: Some(mesh_policy::record::RecordShadow {
            verdict,
            phase: mesh_policy::decide::Phase::Forbid,
            status: Some(403),
            reasons: vec![huge(); 300],
        }),
        ..decision(1)
    };
    let entries = [
        Entry::Decision(Box::new(decided)),
        Entry::Counts(AllowCounts {
            time,
            from: time,
            core: 0,
            classes: vec![class],
            other: 0,
        }),
        Entry::Change(PolicyChange {
            time,
            generation: 1,
            digest: String::new(),
            files: vec![huge(); 300],
            workloads_changed: 0,
            errors: 0,
            warnings: 0,
            objects: Some(vec![
                ChangedObject {
                    object: huge(),
                    how: How::Added,
                };
                300
            ]),
            author: Some(said()),
            approver: Some(said()),
        }),
        Entry::Effect(ChangeEffect {
            time,
            generation: 1,
            digest: huge(),
            gained: 0,
            lost: 0,
            exact: true,
            access: vec![huge(); 300],
        }),
        Entry::Issuance(IssuanceLine {
            time,
            line: 1,
            text: huge(),
        }),
        Entry::BreakGlass(BreakGlass {
            time,
            action: huge(),
            grant: huge(),
            by: huge(),
            reason: huge(),
            until: None,
        }),
        Entry::Redaction(Redaction {
            time,
            from: 0,
            through: 0,
            lines: 0,
            fields: vec![huge()],
            by: huge(),
            why: huge(),
        }),
        Entry::Trust(action()),
        Entry::Admin(action()),
        Entry::Start(Start {
            origin: huge(),
            ..start("o")
        }),
    ];
    for entry in entries {
        let (bytes, line) = line_of(entry);
        assert!(bytes.len() < 512 * 1024, "{} bytes", bytes.len());
        assert!(!line.cut.is_empty());
    }
}

#[test]
fn au2_a_text_cannot_forge_keys_or_pretend_to_be_cut_or_open() {
    for hostile in [
        r#"/x"},"cut":{"request.raw_path":5"#,
        r#"/x"}},"open":{"client.ip":["00","1.2.3.4"]}"#,
        r#"/x","open":{"#,
        r#"/x"}},"salted":["client.ip"]"#,
    ] {
        let (bytes, line) = line_of(with_path(hostile));
        assert!(line.cut.is_empty() && line.salted.is_empty() && line.open.is_empty());
        assert_eq!(line.entry, with_path(hostile));
        let parts = Parts::of(&bytes).unwrap();
        assert!(!parts.is_open());
        assert_eq!(parts.leaf(), leaf_hash(&bytes));
    }
}

#[test]
fn equal_keys_and_other_spellings_are_no_line() {
    let good = encode(0, Entry::Start(start("o")), None).unwrap().bytes;
    let good = String::from_utf8(good).unwrap();
    let good = good.trim_end();
    assert!(Parts::of(good.as_bytes()).is_some());
    for (from, to) in [
        (r#"{"seq":0"#, r#"{"seq":00"#),
        (r#"{"seq":0"#, r#"{"seq":+0"#),
        (r#"{"seq":0"#, r#"{"seq":-0"#),
        (r#"{"seq":0"#, r#"{ "seq":0"#),
        (r#"{"seq":0"#, r#"{"seq":7,"seq":0"#),
        (r#"{"seq":0"#, r#"{"seq":"#),
        (r#"{"seq":0"#, r#"{"seq":99999999999999999999"#),
        (r#","kind""#, r#", "kind""#),
        (r#""kind":"start""#, r#""kind":"Start""#),
        (r#""kind":"start""#, r#""kind":"st\u0061rt""#),
        (r#","record":{"#, r#","other":{"#),
        ("}}", "}}\t"),
        ("}}", "}} "),
        (r#""kind""#, "\"kind\u{e9}\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(Parts::of(bad.as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn a_foreign_record_has_the_same_form_and_a_limit_of_its_own() {
    #[derive(serde::Serialize)]
    #[serde(tag = "kind", content = "record", rename_all = "lowercase")]
    enum Foreign {
        Intent { serial: String },
    }
    let entry = Foreign::Intent {
        serial: "01".into(),
    };
    let encoded = encode_foreign(3, &entry, 100).unwrap();
    assert_eq!(
        encoded.bytes,
        b"{\"seq\":3,\"kind\":\"intent\",\"record\":{\"serial\":\"01\"}}\n"
    );
    assert!(matches!(
        encode_foreign(3, &entry, 20),
        Err(EncodeError::TooLong { limit: 20, .. })
    ));
}

proptest! {
    #[test]
    fn any_text_comes_back_from_a_line(text in any::<String>()) {
        let (bytes, line) = line_of(with_path(&text));
        prop_assert!(!bytes.contains(&b'\n'));
        prop_assert_eq!(line.entry, with_path(&text));
    }

    #[test]
    fn the_line_reader_takes_any_bytes(bytes in any::<Vec<u8>>()) {
        let _ = Parts::of(&bytes);
    }
}
