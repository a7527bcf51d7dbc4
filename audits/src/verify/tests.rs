//! Every way to spoil a log is found, at the right line (threat AU3).

use super::*;
use crate::entry::{Entry, Gap, GapCause, Retired, RetiredWhy};
use crate::line::encode;
use crate::testing::{ORIGIN, TestLog, decision, key, start};
use mesh_trust::Timestamp;

/// A small generator (splitmix64), so that a failing place can be met again.
struct Places(u64);

impl Places {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn check(log: &TestLog, trust: &Trust) -> Result<Verified, FirstBad> {
    walk(log, trust, &mut |_, _| {})
}

fn decided(number: u64) -> Entry {
    Entry::Decision(Box::new(decision(number)))
}

/// 600 lines in three segments, each sealed when it was closed; the last is being written.
fn segmented() -> (TestLog, Trust) {
    let mut log = TestLog::default();
    log.append(Entry::Start(start(ORIGIN)));
    let mut older = Vec::new();
    for number in 1..600 {
        if number == 200 || number == 400 {
            older.extend(log.seal().newest);
            log.segments.push(Vec::new());
        }
        log.append(decided(number));
    }
    let trust = Trust {
        older,
        ..log.seal()
    };
    (log, trust)
}

#[test]
fn a_whole_log_is_proved_and_counted_and_handed_over_in_order() {
    let (mut log, _) = TestLog::of(10);
    let gap = Gap {
        time: Timestamp::from_unix_secs(0),
        lost: 41,
        cause: GapCause::Storage,
    };
    log.append(Entry::Gap(gap));
    log.append(Entry::Start(start(ORIGIN)));
    let trust = log.seal();
    let mut seen = Vec::new();
    let verified = walk(&log, &trust, &mut |place, line| {
        assert_eq!(Parts::of(line).unwrap().seq, place.seq);
        seen.push(place.seq);
    })
    .unwrap();
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
    let counts = ["decision", "gap", "start", "change"].map(|kind| verified.count(kind));
    assert_eq!(
        (verified.lines, counts, verified.lost),
        (12, [9, 1, 2, 0], 41)
    );
    assert_eq!(
        (verified.origin.as_str(), verified.sealed_through),
        (ORIGIN, Some(11))
    );
    assert_eq!(verified.damaged_hashes, 0);
}

#[test]
fn au3_a_flipped_bit_is_found_at_its_line_at_1000_places() {
    let (log, trust) = TestLog::of(600);
    let mut places = Places(1);
    for _ in 0..1_000 {
        let mut spoiled = log.clone();
        let lines = spoiled.lines();
        let (line, bit) = (places.below(lines.len()), places.below(8));
        let byte = places.below(lines[line].len());
        lines[line][byte] ^= 1 << bit;
        let bad =
            check(&spoiled, &trust).expect_err(&format!("line {line}, byte {byte}, bit {bit}"));
        assert_eq!(
            bad.place.line,
            line as u64 + 1,
            "byte {byte}, bit {bit}: {bad}"
        );
        assert!(bad.proven <= line as u64);
    }
}

#[test]
fn au3_a_deleted_repeated_or_moved_line_is_found_at_1000_places() {
    let (log, trust) = TestLog::of(600);
    let mut places = Places(2);
    for round in 0..1_000 {
        let mut spoiled = log.clone();
        let lines = spoiled.lines();
        let (one, two) = (places.below(lines.len()), places.below(lines.len()));
        let first = match round % 3 {
            0 => {
                lines.remove(one);
                one
            }
            1 => {
                let copy = lines[one].clone();
                lines.insert(two, copy);
                // Put right after or before itself, the second of the two is the one too many.
                if two == one { one + 1 } else { two }
            }
            _ if one == two => continue,
            _ => {
                lines.swap(one, two);
                one.min(two)
            }
        };
        let bad = check(&spoiled, &trust).expect_err(&format!("round {round}: {one}, {two}"));
        assert_eq!(
            bad.place.line,
            first as u64 + 1,
            "round {round}: {one}, {two}: {bad}"
        );
    }
}

#[test]
fn au3_a_tail_cut_at_1000_places_is_found() {
    let (log, trust) = TestLog::of(600);
    let whole = log.segments[0].concat();
    let mut places = Places(3);
    for _ in 0..1_000 {
        let cut = places.below(whole.len());
        let mut spoiled = log.clone();
        spoiled.segments[0] = vec![whole[..cut].to_vec()];
        let bad = check(&spoiled, &trust).expect_err(&format!("cut at {cut}"));
        let kept = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(
            (bad.place.line, bad.why),
            (kept + 1, Why::TailMissing { sealed: 599 })
        );
    }
}

#[test]
fn lines_after_the_checkpoint_may_be_there_and_a_torn_one_is_told() {
    let (mut log, trust) = TestLog::of(5);
    log.append(decided(9));
    log.lines().push(b"{\"seq\":6,\"ki".to_vec());
    let verified = check(&log, &trust).unwrap();
    assert_eq!(
        (verified.lines, verified.torn_bytes, verified.sealed_through),
        (6, 12, Some(4))
    );
}

#[test]
fn who_edits_line_and_stored_hash_is_found_by_the_root_and_placed_by_the_segment() {
    for (segment, at) in [(0, 7u64), (1, 250), (2, 599)] {
        let (mut log, trust) = segmented();
        let forged = encode(at, decided(9_999), None).unwrap();
        let first = segment as u64 * 200;
        log.segments[segment][(at - first) as usize] = forged.bytes;
        let last_of_segment = (first + 199).min(599);
        // The edit alone is placed exactly.
        let bad = check(&log, &trust).unwrap_err();
        assert_eq!((bad.place.seq, bad.why), (at, Why::Edited));
        for (tile, bytes) in &mut log.tiles {
            let covered = u64::from(tile.width());
            let start = tile.index() * 256;
            if tile.level() == 0 && (start..start + covered).contains(&at) {
                let from = (at - start) as usize * 32;
                bytes[from..from + 32].copy_from_slice(&forged.leaf.0);
            }
        }
        let bad = check(&log, &trust).unwrap_err();
        let why = Why::NotAsSealed {
            from: first,
            through: last_of_segment,
        };
        assert_eq!((bad.place.seq, bad.why, bad.proven), (first, why, first));
        assert_eq!(bad.place.file, format!("cart{segment}"));
    }
}

#[test]
fn damaged_hashes_do_not_condemn_lines_that_the_root_proves() {
    let (mut log, trust) = TestLog::of(600);
    let tile = *log.tiles.keys().next().unwrap();
    log.tiles.get_mut(&tile).unwrap()[40] ^= 1;
    assert_eq!(check(&log, &trust).unwrap().damaged_hashes, 1);
    log.tiles.clear();
    let verified = check(&log, &trust).unwrap();
    assert_eq!((verified.lines, verified.damaged_hashes), (600, 3));
    // Without them an edit is found too, but not placed.
    let forged = encode(300, decided(9_999), None).unwrap();
    log.lines()[300] = forged.bytes;
    let bad = check(&log, &trust).unwrap_err();
    assert!(matches!(bad.why, Why::NotAsSealed { .. }), "{bad}");
}

#[test]
fn retired_segments_may_be_gone_and_others_may_not() {
    let (mut log, _) = segmented();
    log.append(Entry::Retired(Retired {
        time: Timestamp::from_unix_secs(0),
        through: 199,
        lines: 200,
        why: RetiredWhy::Size,
    }));
    let trust = log.seal();
    assert!(check(&log, &trust).is_ok(), "announced, not deleted yet");
    log.segments.remove(0);
    let verified = check(&log, &trust).unwrap();
    assert_eq!((verified.first, verified.lines), (200, 401));
    // An edit behind the gap is still placed.
    let mut edited = log.clone();
    edited.segments[0][3][30] ^= 1;
    let bad = check(&edited, &trust).unwrap_err();
    assert_eq!(bad.place.seq, 203);
    // One more segment than was announced.
    let mut more = log.clone();
    more.segments.remove(0);
    let bad = check(&more, &trust).unwrap_err();
    assert_eq!(bad.why, Why::HeadMissing { first: 400 });
    // One in the middle.
    let (mut middle, trust) = segmented();
    middle.segments.remove(1);
    let bad = check(&middle, &trust).unwrap_err();
    let why = Why::OutOfOrder {
        expected: 200,
        found: 400,
    };
    assert_eq!((bad.why, bad.proven), (why, 200));
    // Retired lines without their hashes.
    log.tiles.clear();
    let trust = log.clone().seal();
    log.tiles.clear();
    let bad = check(&log, &trust).unwrap_err();
    assert_eq!(bad.why, Why::HashesMissing { first: 200 });
}

#[test]
fn a_checkpoint_that_somebody_else_kept_shows_another_history() {
    let (log, _) = TestLog::of(100);
    let kept = log.checkpoint(1);
    let (mut same, mut other) = (log.clone(), TestLog::default());
    other.append(Entry::Start(start(ORIGIN)));
    for number in 100..150 {
        same.append(decided(number));
    }
    for number in 1..150 {
        other.append(decided(number + u64::from(number == 60)));
    }
    let with = |log: &mut TestLog| Trust {
        witnessed: vec![kept.clone()],
        ..log.seal()
    };
    let trust = with(&mut same);
    assert_eq!(check(&same, &trust).unwrap().witnessed, Some(100));
    let trust = with(&mut other);
    let bad = check(&other, &trust).unwrap_err();
    assert_eq!(
        bad.why,
        Why::SplitView {
            size: 100,
            common: 0
        }
    );
    // Put back to an older state: whole in itself, and shorter than what was seen.
    let (mut older, _) = TestLog::of(50);
    let trust = with(&mut older);
    let bad = check(&older, &trust).unwrap_err();
    assert_eq!(
        (bad.place.line, bad.why),
        (51, Why::TailMissing { sealed: 99 })
    );
}

#[test]
fn a_log_of_another_origin_or_without_a_checkpoint_is_refused() {
    let mut log = TestLog::default();
    log.append(Entry::Start(start("shop.other")));
    let trust = log.seal();
    let bad = check(&log, &trust).unwrap_err();
    assert_eq!(
        (bad.place.line, bad.why),
        (
            1,
            Why::Origin {
                found: "shop.other".to_owned()
            }
        )
    );
    let (log, _) = TestLog::of(5);
    let bad = check(&log, &Trust::default()).unwrap_err();
    assert_eq!((bad.why, bad.proven), (Why::NoCheckpoint, 0));
    let note = log.checkpoint(1).note().to_string();
    assert!(Checkpoint::open(note.as_bytes(), key(2).verifier()).is_err());
}

#[test]
fn a_log_without_its_head_is_refused_even_with_new_places() {
    // Written by somebody who knows the form and holds the key, but begins in the middle.
    let (log, trust) = TestLog::of(10);
    let mut cut = log.clone();
    cut.lines().drain(..4);
    let bad = check(&cut, &trust).unwrap_err();
    assert_eq!(
        (bad.place.line, bad.why),
        (1, Why::HeadMissing { first: 4 })
    );
}

#[test]
fn a_tail_that_was_cut_before_a_restart_stays_on_record() {
    let (mut log, _) = TestLog::of(5);
    log.lines().truncate(3);
    let restart = crate::entry::Start {
        missing_from: Some(3),
        ..start(ORIGIN)
    };
    log.append(Entry::Start(restart));
    assert_eq!(log.size(), 6);
    let trust = log.seal();
    let bad = check(&log, &trust).unwrap_err();
    assert_eq!(
        (bad.place.line, bad.why),
        (
            4,
            Why::TailWasMissing {
                from: 3,
                through: 4
            }
        )
    );
}

#[test]
fn a_text_beside_the_entry_that_was_not_logged_is_found() {
    let mut log = TestLog::default();
    log.append(Entry::Start(start(ORIGIN)));
    let salting = crate::redact::Salting {
        fields: &crate::redact::Redactable::ALL,
        fill_random: &|salt| salt.fill(3),
    };
    let encoded = encode(1, decided(1), Some(&salting)).unwrap();
    log.append_encoded(encoded);
    let trust = log.seal();
    check(&log, &trust).unwrap();
    let text = String::from_utf8(log.lines()[1].clone()).unwrap();
    log.lines()[1] = text
        .replace(r#","127.64.1.1"]"#, r#","127.64.1.9"]"#)
        .into_bytes();
    let bad = check(&log, &trust).unwrap_err();
    let field = "client.ip".to_owned();
    assert_eq!((bad.place.line, bad.why), (2, Why::Opening { field }));
    // Taken out is no damage.
    let line = text.trim_end().as_bytes();
    let redacted = crate::redact::redact(line, &crate::redact::Redactable::ALL);
    log.lines()[1] = [&redacted.unwrap().unwrap()[..], b"\n"].concat();
    check(&log, &trust).unwrap();
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    struct Endless(TestLog);
    impl ReadTile for Endless {
        type Error = crate::testing::NoTile;
        fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, Self::Error> {
            self.0.read_tile(tile)
        }
    }
    impl LogSource for Endless {
        fn segments(&self) -> Vec<String> {
            vec!["endless".to_owned()]
        }
        fn open(&self, _: usize) -> io::Result<Box<dyn BufRead + '_>> {
            Ok(Box::new(io::BufReader::new(io::repeat(b'x'))))
        }
    }
    let (log, trust) = TestLog::of(5);
    let bad = walk(&Endless(log), &trust, &mut |_, _| {}).unwrap_err();
    assert_eq!((bad.place.line, bad.why), (1, Why::Form));
}

#[test]
fn the_first_bad_line_is_named_with_file_line_and_code() {
    use miette::Diagnostic;
    let (mut log, trust) = TestLog::of(5);
    log.lines().remove(2);
    let bad = check(&log, &trust).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "cart0:3: line 3 stands where line 2 should: lines were removed, repeated or moved"
    );
    assert_eq!(bad.code().unwrap().to_string(), "MESH-0512");
    assert!(bad.help().is_some());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn a_million_lines_are_proved_in_ten_seconds() {
    let (log, trust) = TestLog::of(100_000);
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        check(&log, &trust).unwrap();
    }
    let taken = begun.elapsed();
    let bytes = log.segments[0].concat().len() / 100_000;
    eprintln!("1,000,000 lines of {bytes} bytes in {taken:?}");
    assert!(taken.as_secs() < 10, "{taken:?}");
}
