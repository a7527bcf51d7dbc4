//! Lines: their form, what cannot be forged in them, and going on after a crash.

use super::*;
use crate::entry::{Gap, GapCause, Line};
use crate::testing::{decision, start};
use proptest::prelude::*;

fn line_of(entry: Entry) -> (Vec<u8>, Line) {
    let bytes = ChainState::genesis("shop.cart").append(entry).unwrap();
    let line = serde_json::from_slice(&bytes).unwrap();
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
fn a_line_has_exactly_the_documented_form() {
    let gap = Gap {
        time: mesh_trust::Timestamp::from_unix_secs(0),
        lost: 3,
        cause: GapCause::QueueFull,
    };
    let mut chain = ChainState::genesis("o");
    let text = String::from_utf8(chain.append(Entry::Gap(gap)).unwrap()).unwrap();
    // Computed by hand: printf '%b' with sha256sum over the documented bytes.
    let body = r#""kind":"gap","record":{"time":"1970-01-01T00:00:00.000000Z","lost":3,"cause":"queue-full"}"#;
    assert!(text.ends_with(&format!("{body}}}\n")), "{text}");
    assert!(text.starts_with(r#"{"seq":0,"prev":""#), "{text}");
    assert_eq!(chain.next_seq(), 1);
    assert!(text.contains(&format!(r#""hash":"{}""#, chain.head())));
}

#[test]
fn the_genesis_names_the_origin() {
    assert_ne!(
        ChainState::genesis("shop.cart").head(),
        ChainState::genesis("shop.card").head()
    );
    let known = ring::digest::digest(&SHA256, b"mesh.audit.genesis.v1\0shop.cart");
    assert_eq!(ChainState::genesis("shop.cart").head().0, known.as_ref());
}

#[test]
fn hostile_text_stays_inside_its_field_and_off_the_terminal() {
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
        assert!(bytes.ends_with(b"}\n"));
        assert!(
            bytes[..bytes.len() - 1]
                .iter()
                .all(|byte| (0x20..0x7f).contains(byte)),
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
fn a_long_text_is_cut_and_its_length_is_told_beside_it() {
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
fn a_text_cannot_pretend_to_be_cut() {
    let (_, line) = line_of(with_path(r#"/x"},"cut":{"request.raw_path":5"#));
    assert!(line.cut.is_empty());
}

#[test]
fn equal_keys_and_other_spellings_are_no_line() {
    let good = ChainState::genesis("o")
        .append(Entry::Start(start("o")))
        .unwrap();
    let good = String::from_utf8(good).unwrap();
    let good = good.trim_end();
    assert!(Parts::of(good.as_bytes()).is_some());
    for (from, to) in [
        (r#"{"seq":0"#, r#"{"seq":00"#),
        (r#"{"seq":0"#, r#"{"seq":+0"#),
        (r#"{"seq":0"#, r#"{ "seq":0"#),
        (r#"{"seq":0"#, r#"{"seq":7,"seq":0"#),
        (r#"{"seq":0"#, r#"{"seq":"#),
        (r#","prev""#, r#", "prev""#),
        ("}}", "}}\t"),
        (r#""kind""#, "\"kind\u{e9}\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(Parts::of(bad.as_bytes()).is_none(), "{bad}");
    }
    let upper = good.replacen(
        |c: char| c.is_ascii_lowercase() && c.is_ascii_hexdigit() && c != 's' && c != 'e',
        "A",
        1,
    );
    assert_ne!(upper, good);
    assert!(Parts::of(upper.as_bytes()).is_none());
}

#[test]
fn a_chain_goes_on_after_a_crash_at_any_byte() {
    let mut chain = ChainState::genesis("o");
    let mut log = chain.append(Entry::Start(start("o"))).unwrap();
    let first = (log.len(), chain.clone());
    log.extend(chain.append(with_path("/x")).unwrap());
    for cut in 0..=log.len() {
        let resumed = ChainState::resume(&log[..cut], true).unwrap();
        let (want, kept) = match cut {
            _ if cut == log.len() => (Some(&chain), log.len()),
            _ if cut >= first.0 => (Some(&first.1), first.0),
            _ => (None, 0),
        };
        assert_eq!(resumed.state.as_ref(), want, "cut at {cut}");
        assert_eq!(resumed.torn_bytes, (cut - kept) as u64);
    }
}

#[test]
fn an_edited_last_line_is_not_gone_on_from() {
    let mut chain = ChainState::genesis("o");
    let mut log = chain.append(with_path("/secret")).unwrap();
    let at = log.len() - 10;
    log[at] ^= 1;
    assert_eq!(ChainState::resume(&log, true), Err(ResumeError::BrokenLine));
    assert_eq!(
        ChainState::resume(b"no line feed at all", false),
        Err(ResumeError::LineTooLong)
    );
}

proptest! {
    #[test]
    fn any_text_comes_back_from_a_line(text in any::<String>()) {
        let (bytes, line) = line_of(with_path(&text));
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        match line.entry {
            Entry::Decision(record) => prop_assert_eq!(record.request.unwrap().raw_path, text),
            _ => prop_assert!(false),
        }
    }

    #[test]
    fn the_line_reader_takes_any_bytes(bytes in any::<Vec<u8>>(), whole in any::<bool>()) {
        let _ = Parts::of(&bytes);
        let _ = ChainState::resume(&bytes, whole);
    }
}

#[test]
fn a_hash_of_another_length_is_refused() {
    for text in [
        "",
        "00",
        &"0".repeat(62),
        &"0".repeat(63),
        &"0".repeat(66),
        &"0".repeat(1_000),
        &"g".repeat(64),
    ] {
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Hash>(&json).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<Hash>(&format!("\"{}\"", "0f".repeat(32))).is_ok());
}
