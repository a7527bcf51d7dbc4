//! What is on disk after crashes, rotation and retirement.
#![expect(clippy::disallowed_methods, reason = "the tests damage files")]

use super::*;
use mesh_audits::entry::{Entry, Retired, RetiredWhy};
use mesh_audits::line::encode;
use mesh_audits::verify::{FirstBad, Trust, Verified, Why, walk};
use mesh_tlog::note::VerifierKey;
use std::io::Write;

const NOW: Timestamp = Timestamp::from_unix_secs(1_790_000_000);

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> TreeLogConfig {
        TreeLogConfig {
            directory: self.0.path().join("logs"),
            origin: "shop.cart".into(),
            bundles: true,
        }
    }

    fn open(&self) -> (TreeLog, Found) {
        TreeLog::open(&self.config(), NOW).unwrap()
    }

    fn key(&self) -> VerifierKey {
        VerifierKey::parse(&files::read_to_string(&self.config().public_key_path()).unwrap())
            .unwrap()
    }

    fn newest(&self) -> Checkpoint {
        Checkpoint::open(
            &files::read(&self.config().checkpoint_path()).unwrap(),
            &self.key(),
        )
        .unwrap()
    }

    fn files(&self) -> LogFiles {
        LogFiles::open(&self.config().lines_path()).unwrap()
    }

    fn verify(&self) -> Result<Verified, FirstBad> {
        let trust = Trust {
            newest: Some(self.newest()),
            older: self.files().sealed(&self.key()),
            witnessed: Vec::new(),
        };
        walk(&self.files(), &trust, &mut |_, _| {})
    }
}

fn line(seq: u64) -> Encoded {
    let entry = Entry::Retired(Retired {
        time: NOW,
        // Announces nothing that is beyond the log.
        through: 0,
        lines: seq,
        why: RetiredWhy::Size,
    });
    encode(seq, entry, None).unwrap()
}

fn write(log: &mut TreeLog, count: u64) {
    let lines: Vec<Encoded> = (log.size()..log.size() + count).map(line).collect();
    log.append(&lines).unwrap();
}

#[test]
fn a_log_goes_on_after_a_crash_at_any_byte_of_its_tail() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    write(&mut log, 300);
    log.seal(NOW).unwrap();
    let sealed = log.file.length();
    write(&mut log, 3);
    drop(log);
    let whole = files::read(&dir.config().lines_path()).unwrap();
    let ends: Vec<usize> = (0..whole.len())
        .filter(|at| whole[*at] == b'\n')
        .map(|at| at + 1)
        .collect();
    for cut in (sealed as usize..=whole.len())
        .step_by(7)
        .chain([whole.len()])
    {
        std::fs::write(dir.config().lines_path(), &whole[..cut]).unwrap();
        let (mut log, found) = dir.open();
        let kept = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(log.size(), kept as u64, "cut at {cut}");
        assert_eq!(found.torn_bytes, (cut - ends[kept - 1]) as u64);
        assert_eq!((found.missing_from, found.moved_aside), (None, false));
        write(&mut log, 1);
        log.seal(NOW).unwrap();
        assert_eq!(dir.verify().unwrap().lines, kept as u64 + 1);
        drop(log);
        // Back to the checkpoint of before for the next cut.
        std::fs::remove_dir_all(dir.config().tlog_path()).unwrap();
        std::fs::write(dir.config().lines_path(), &whole[..sealed as usize]).unwrap();
        let (mut log, _) = dir.open();
        log.seal(NOW).unwrap();
    }
}

#[test]
fn hashes_that_a_power_cut_took_are_made_again_from_the_lines() {
    for damage in ["tile", "tile/0/001.p/44", "tile/1", "tile/entries"] {
        let dir = Dir::new();
        let (mut log, _) = dir.open();
        write(&mut log, 300);
        log.seal(NOW).unwrap();
        drop(log);
        let path = dir.config().tlog_path().join(damage);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::write(&path, vec![0; 44 * 32]).unwrap();
        }
        let (mut log, found) = dir.open();
        assert_eq!((log.size(), &found), (300, &Found::default()), "{damage}");
        write(&mut log, 1);
        log.seal(NOW).unwrap();
        let verified = dir.verify().unwrap();
        assert_eq!(
            (verified.lines, verified.damaged_hashes),
            (301, 0),
            "{damage}"
        );
    }
}

#[test]
fn lines_that_were_edited_while_hashes_are_gone_are_not_gone_on_from() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    write(&mut log, 300);
    log.seal(NOW).unwrap();
    drop(log);
    let mut bytes = files::read(&dir.config().lines_path()).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(dir.config().lines_path(), &bytes).unwrap();
    // With the hashes the log goes on, and the verifier names the line.
    let (mut log, found) = dir.open();
    assert_eq!(found, Found::default());
    write(&mut log, 1);
    log.seal(NOW).unwrap();
    assert!(matches!(
        dir.verify().unwrap_err().why,
        Why::Edited | Why::Form
    ));
    drop(log);
    std::fs::remove_dir_all(dir.config().tlog_path().join("tile")).unwrap();
    let (log, found) = dir.open();
    assert!(found.moved_aside);
    assert_eq!(log.size(), 0);
}

#[test]
fn a_file_of_another_form_is_moved_aside_whole() {
    let dir = Dir::new();
    files::create_dir_private(&dir.config().directory).unwrap();
    let old = r#"{"seq":0,"prev":"00","hash":"00","kind":"start","record":{}}"#.to_owned() + "\n";
    std::fs::write(dir.config().lines_path(), &old).unwrap();
    let (mut log, found) = dir.open();
    assert!(found.moved_aside);
    let aside: Vec<_> = std::fs::read_dir(dir.config().directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".jsonl.broken-"))
        .collect();
    assert_eq!(std::fs::read_to_string(&aside[0]).unwrap(), old);
    write(&mut log, 1);
    log.seal(NOW).unwrap();
    drop(log);
    // The same for a line that was put behind what is signed.
    let mut file = std::fs::File::options()
        .append(true)
        .open(dir.config().lines_path())
        .unwrap();
    file.write_all(b"{}\n").unwrap();
    let later = TreeLog::open(&dir.config(), NOW.plus_secs(1)).unwrap();
    assert!(later.1.moved_aside);
}

#[test]
fn bundles_hold_the_entries_that_the_tiles_hash() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    write(&mut log, 200);
    log.seal(NOW).unwrap();
    drop(log);
    let (mut log, _) = dir.open();
    write(&mut log, 100);
    log.seal(NOW).unwrap();
    let mut seq = 0;
    for (tile, count) in [("000", 256), ("001.p/44", 44)] {
        let tlog = dir.config().tlog_path();
        let bytes = files::read(&tlog.join("tile/entries").join(tile)).unwrap();
        let hashes = files::read(&tlog.join("tile/0").join(tile)).unwrap();
        let entries = bundle::entries(&bytes).unwrap();
        assert_eq!(entries.len(), count);
        for (entry, hash) in entries.iter().zip(hashes.chunks(32)) {
            assert_eq!(*entry, line(seq).bytes.strip_suffix(b"\n").unwrap());
            assert_eq!(mesh_tlog::leaf_hash(entry).0, hash);
            seq += 1;
        }
    }
    assert!(
        !dir.config().tlog_path().join("tile/entries/000.p").exists(),
        "old partial files go"
    );
}

#[test]
fn lines_are_found_and_proved_in_every_segment() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    for _ in 0..3 {
        write(&mut log, 300);
        log.rotate(NOW).unwrap();
    }
    write(&mut log, 50);
    log.seal(NOW).unwrap();
    assert_eq!(dir.verify().unwrap().lines, 950);
    let (files, newest) = (dir.files(), dir.newest());
    for seq in (0..950)
        .step_by(13)
        .chain([299, 300, 599, 600, 899, 900, 949])
    {
        let text = files.line(seq).unwrap().unwrap();
        assert_eq!([&text[..], b"\n"].concat(), line(seq).bytes, "{seq}");
        let proof = files.prove(seq, &newest, None).unwrap();
        proof.verify(line(seq).leaf, &dir.key(), &[], 0).unwrap();
    }
    assert_eq!(files.line(950).unwrap(), None);
    assert!(matches!(
        files.prove(950, &newest, None),
        Err(crate::log_files::NotProved::Beyond {
            seq: 950,
            size: 950
        })
    ));
    drop(log);
    let (log, found) = dir.open();
    assert_eq!((log.size(), found), (950, Found::default()));
}

#[test]
fn a_crash_inside_a_rotation_loses_nothing() {
    // After the checkpoint was put beside, before the file was renamed.
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    write(&mut log, 300);
    log.seal(NOW).unwrap();
    let bytes = files::read(&dir.config().checkpoint_path()).unwrap();
    files::write_atomic(&dir.config().sealed_path(300), &bytes, 0o600).unwrap();
    drop(log);
    let (mut log, found) = dir.open();
    assert_eq!((log.size(), found), (300, Found::default()));
    write(&mut log, 10);
    log.seal(NOW).unwrap();
    assert_eq!(dir.verify().unwrap().lines, 310);
    // After it was renamed, before the next one was begun.
    log.rotate(NOW).unwrap();
    drop(log);
    std::fs::remove_file(dir.config().lines_path()).unwrap();
    let (mut log, found) = dir.open();
    assert_eq!((log.size(), found), (310, Found::default()));
    write(&mut log, 10);
    log.seal(NOW).unwrap();
    assert_eq!(dir.verify().unwrap().lines, 320);
}

#[test]
fn proofs_survive_the_deletion_of_what_they_prove() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    for _ in 0..4 {
        write(&mut log, 300);
        log.rotate(NOW).unwrap();
    }
    let length = |first| files::length(&dir.config().segment_path(first)).unwrap();
    let newest_two = length(600) + length(900);
    let keep = |bytes| Retention {
        bytes: Some(bytes),
        age: None,
    };
    assert_eq!(log.overdue(keep(1 << 30), NOW).unwrap(), None);
    assert_eq!(log.overdue(Retention::default(), NOW).unwrap(), None);
    let old = Retention {
        age: Some(Duration::from_secs(60)),
        bytes: None,
    };
    assert_eq!(log.overdue(old, NOW).unwrap(), None);
    let later = log.overdue(old, NOW.plus_secs(61)).unwrap().unwrap();
    assert_eq!(
        (later.segments.len(), later.through, later.by_age),
        (4, 1_199, true)
    );
    let overdue = log.overdue(keep(newest_two), NOW).unwrap().unwrap();
    assert_eq!(
        (&overdue.segments[..], overdue.through, overdue.by_age),
        (&[0, 300][..], 599, false)
    );
    let entry = Entry::Retired(Retired {
        time: NOW,
        through: 599,
        lines: 600,
        why: RetiredWhy::Size,
    });
    log.append(&[encode(log.size(), entry, None).unwrap()])
        .unwrap();
    log.seal(NOW).unwrap();
    log.retire(&overdue).unwrap();
    let verified = dir.verify().unwrap();
    assert_eq!((verified.first, verified.lines), (600, 601));
    // Whoever has a copy of a deleted line can prove it.
    assert_eq!(dir.files().line(5).unwrap(), None);
    let proof = dir.files().prove(5, &dir.newest(), None).unwrap();
    proof.verify(line(5).leaf, &dir.key(), &[], 0).unwrap();
    drop(log);
    let (log, found) = dir.open();
    assert_eq!((log.size(), found), (1_201, Found::default()));
}

#[test]
fn an_edited_segment_is_not_deleted() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    write(&mut log, 300);
    log.rotate(NOW).unwrap();
    let path = dir.config().segment_path(0);
    let mut bytes = files::read(&path).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let overdue = Overdue {
        segments: vec![0],
        through: 299,
        by_age: false,
    };
    assert!(matches!(
        log.retire(&overdue),
        Err(AuditLogError::NotAsSealed { .. })
    ));
    assert!(path.exists());
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    for origin in ["", "..", ".hidden", "a/b", "a+b", "a\0b", "é"] {
        let config = TreeLogConfig {
            origin: origin.into(),
            ..Dir::new().config()
        };
        assert!(
            matches!(
                TreeLog::open(&config, NOW),
                Err(AuditLogError::Origin { .. })
            ),
            "{origin:?}"
        );
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn a_proof_is_made_in_a_millisecond() {
    let dir = Dir::new();
    let (mut log, _) = dir.open();
    for _ in 0..20 {
        write(&mut log, 5_000);
    }
    log.seal(NOW).unwrap();
    let (files, newest) = (dir.files(), dir.newest());
    let begun = std::time::Instant::now();
    let count = 200u64;
    for number in 0..count {
        files.prove(number * 499, &newest, None).unwrap();
    }
    let each = begun.elapsed() / count as u32;
    eprintln!("a proof in a log of {} lines: {each:?}", log.size());
    assert!(each < Duration::from_millis(1), "{each:?}");
    std::io::stderr().flush().unwrap();
}
