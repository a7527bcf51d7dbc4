//! Every way to spoil a log is found, at the right line.

use super::*;
use crate::chain::ChainState;
use crate::entry::{Gap, GapCause};
use crate::testing::{decision, key, log, start};
use mesh_trust::Timestamp;

const ORIGIN: &str = "shop.cart";

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

fn sealed(chain: &ChainState) -> Seal {
    let checkpoint = key(1).sign(
        ORIGIN,
        chain.next_seq() - 1,
        chain.head(),
        Timestamp::from_unix_secs(1_790_000_000),
    );
    Seal::Signed(checkpoint, key(1).public())
}

fn check(lines: &[Vec<u8>], seal: Seal) -> Result<Verified, FirstBad> {
    verify(lines.concat().as_slice(), "cart.jsonl", Some(ORIGIN), seal)
}

#[test]
fn a_whole_log_is_proved_and_counted() {
    let (mut lines, mut chain) = log(ORIGIN, 10);
    let gap = Gap {
        time: Timestamp::from_unix_secs(0),
        lost: 41,
        cause: GapCause::Storage,
    };
    lines.push(chain.append(Entry::Gap(gap)).unwrap());
    lines.push(chain.append(Entry::Start(start(ORIGIN))).unwrap());
    let verified = check(&lines, sealed(&chain)).unwrap();
    assert_eq!(
        (
            verified.lines,
            verified.decisions,
            verified.gaps,
            verified.lost,
            verified.starts
        ),
        (12, 9, 1, 41, 2)
    );
    assert_eq!(
        (verified.origin.as_str(), verified.sealed_through),
        (ORIGIN, Some(11))
    );
    assert_eq!(check(&lines, Seal::Missing).unwrap().sealed_through, None);
}

#[test]
fn a_flipped_bit_is_found_at_its_line_at_1000_places() {
    let (lines, chain) = log(ORIGIN, 200);
    let mut places = Places(1);
    for _ in 0..1_000 {
        let (line, bit) = (places.below(lines.len()), places.below(8));
        let byte = places.below(lines[line].len());
        let mut spoiled = lines.clone();
        spoiled[line][byte] ^= 1 << bit;
        let bad = check(&spoiled, sealed(&chain))
            .expect_err(&format!("line {line}, byte {byte}, bit {bit}"));
        assert_eq!(bad.line, line as u64 + 1, "byte {byte}, bit {bit}: {bad}");
    }
}

#[test]
fn a_deleted_repeated_or_moved_line_is_found_at_1000_places() {
    let (lines, chain) = log(ORIGIN, 200);
    let mut places = Places(2);
    for round in 0..1_000 {
        let (one, two) = (places.below(lines.len()), places.below(lines.len()));
        let mut spoiled = lines.clone();
        let first = match round % 3 {
            0 => {
                spoiled.remove(one);
                one
            }
            1 => {
                spoiled.insert(two, lines[one].clone());
                // Put right after or before itself, the second of the two is the one too many.
                if two == one { one + 1 } else { two }
            }
            _ if one == two => continue,
            _ => {
                spoiled.swap(one, two);
                one.min(two)
            }
        };
        let bad =
            check(&spoiled, sealed(&chain)).expect_err(&format!("round {round}: {one}, {two}"));
        assert_eq!(
            bad.line,
            first as u64 + 1,
            "round {round}: {one}, {two}: {bad}"
        );
    }
}

#[test]
fn a_tail_cut_at_1000_places_is_found() {
    let (lines, chain) = log(ORIGIN, 200);
    let whole = lines.concat();
    let mut places = Places(3);
    for _ in 0..1_000 {
        let cut = places.below(whole.len());
        let bad = verify(&whole[..cut], "cart.jsonl", None, sealed(&chain))
            .expect_err(&format!("cut at {cut}"));
        let kept = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(
            (bad.line, bad.why),
            (kept + 1, Why::TailMissing { sealed: 199 })
        );
    }
}

#[test]
fn lines_after_the_checkpoint_may_be_there_and_a_torn_one_is_told() {
    let (mut lines, mut chain) = log(ORIGIN, 5);
    let seal = sealed(&chain);
    lines.push(
        chain
            .append(Entry::Decision(Box::new(decision(9))))
            .unwrap(),
    );
    lines.push(b"{\"seq\":6,\"pr".to_vec());
    let verified = check(&lines, seal).unwrap();
    assert_eq!(
        (verified.lines, verified.torn_bytes, verified.sealed_through),
        (6, 12, Some(4))
    );
}

#[test]
fn a_log_rewritten_with_good_hashes_is_found_by_its_checkpoint() {
    let (_, chain) = log(ORIGIN, 50);
    let mut forged = ChainState::genesis(ORIGIN);
    let mut lines = vec![forged.append(Entry::Start(start(ORIGIN))).unwrap()];
    for number in 1..60 {
        let mut record = decision(number);
        record.verdict = mesh_policy::decide::Verdict::Allow;
        lines.push(forged.append(Entry::Decision(Box::new(record))).unwrap());
    }
    let bad = check(&lines, sealed(&chain)).unwrap_err();
    assert_eq!((bad.line, bad.why), (50, Why::NotAsSealed));
    assert!(
        check(&lines, Seal::Missing).is_ok(),
        "without a seal nobody can know"
    );
}

#[test]
fn a_line_of_another_history_is_found_where_it_does_not_follow() {
    let (lines, chain) = log(ORIGIN, 20);
    let mut other = ChainState::genesis(ORIGIN);
    let mut others = vec![other.append(Entry::Start(start(ORIGIN))).unwrap()];
    others.extend((1..20).map(|number| {
        other
            .append(Entry::Decision(Box::new(decision(number + 100))))
            .unwrap()
    }));
    // At line 1 both follow from the same start, so it is the line after it that does not.
    for (replaced, found) in [(1, 2), (7, 7), (18, 18)] {
        let mut spoiled = lines.clone();
        spoiled[replaced] = others[replaced].clone();
        let bad = check(&spoiled, sealed(&chain)).unwrap_err();
        assert_eq!(
            (bad.seq, bad.why),
            (found, Why::Unlinked),
            "line {replaced} replaced"
        );
    }
}

#[test]
fn a_checkpoint_of_another_key_or_another_log_is_refused() {
    let (lines, chain) = log(ORIGIN, 5);
    let Seal::Signed(checkpoint, _) = sealed(&chain) else {
        unreachable!()
    };
    let bad = check(&lines, Seal::Signed(checkpoint, key(2).public())).unwrap_err();
    assert_eq!(bad.why, Why::Checkpoint(CheckpointError::Signature));
    let other = key(1).sign("shop.other", 4, chain.head(), Timestamp::from_unix_secs(0));
    let bad = check(&lines, Seal::Signed(other, key(1).public())).unwrap_err();
    assert_eq!(
        bad.why,
        Why::Origin {
            found: Some("shop.other".to_owned())
        }
    );
}

#[test]
fn another_log_in_its_place_is_refused() {
    let (lines, _) = log("shop.other", 5);
    let bad = check(&lines, Seal::Missing).unwrap_err();
    assert_eq!(
        (bad.line, bad.why),
        (
            1,
            Why::Origin {
                found: Some("shop.other".to_owned())
            }
        )
    );
}

#[test]
fn a_log_without_its_head_is_refused_even_with_new_places() {
    // Written by somebody who knows the form, but begins with a decision.
    let mut chain = ChainState::genesis(ORIGIN);
    let lines = [chain
        .append(Entry::Decision(Box::new(decision(1))))
        .unwrap()];
    assert_eq!(
        check(&lines, Seal::Missing).unwrap_err().why,
        Why::Origin { found: None }
    );
}

#[test]
fn a_tail_that_was_cut_before_a_restart_stays_on_record() {
    let (mut lines, mut chain) = log(ORIGIN, 5);
    let restart = crate::entry::Start {
        missing_through: Some(90),
        ..start(ORIGIN)
    };
    lines.push(chain.append(Entry::Start(restart)).unwrap());
    let bad = check(&lines, sealed(&chain)).unwrap_err();
    assert_eq!((bad.line, bad.why), (6, Why::TailWasMissing { sealed: 90 }));
}

#[test]
fn an_empty_log_is_whole_only_without_a_seal() {
    assert_eq!(check(&[], Seal::Missing).unwrap(), Verified::default());
    let (_, chain) = log(ORIGIN, 1);
    assert_eq!(
        check(&[], sealed(&chain)).unwrap_err().why,
        Why::TailMissing { sealed: 0 }
    );
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    let bad = verify(endless, "x", None, Seal::Missing).unwrap_err();
    assert_eq!(bad.why, Why::Form);
}

#[test]
fn the_first_bad_line_is_named_with_file_line_and_code() {
    use miette::Diagnostic;
    let (mut lines, chain) = log(ORIGIN, 5);
    lines.remove(2);
    let bad = check(&lines, sealed(&chain)).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "cart.jsonl:3: line 3 stands where line 2 should: lines were removed, repeated or moved"
    );
    assert_eq!(bad.code().unwrap().to_string(), "MESH-0512");
    assert!(bad.help().is_some());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn a_million_lines_are_proved_in_ten_seconds() {
    let (lines, _) = log(ORIGIN, 10_000);
    let body: Vec<u8> = lines.concat();
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        verify(body.as_slice(), "x", None, Seal::Missing).unwrap();
    }
    let taken = begun.elapsed();
    eprintln!(
        "1,000,000 lines of {} bytes in {taken:?}",
        body.len() / 10_000
    );
    assert!(taken.as_secs() < 10, "{taken:?}");
}
