//! Nothing is lost silently: over crashes, cut tails, broken files, full queues and full disks (threats AU3, AU4, AU6).

use super::*;
use crate::log_files::LogFiles;
use crate::{System, files};
use mesh_audits::entry::PolicyChange;
use mesh_audits::verify::{FirstBad, Trust, Verified, Why, walk};
use mesh_tlog::{Checkpoint, VerifierKey};
use std::io::{BufRead, Write};
use std::path::Path;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> AuditLogConfig {
        AuditLogConfig::new(self.0.path().join("audit"), "shop.cart", "0.1.0")
    }

    fn files(&self) -> TreeLogConfig {
        self.config().files()
    }

    fn open(&self) -> AuditLog {
        AuditLog::open(&self.config(), System::new()).unwrap()
    }

    fn verify(&self) -> Result<Verified, FirstBad> {
        verify(&self.files())
    }
}

fn verify(files: &TreeLogConfig) -> Result<Verified, FirstBad> {
    let key = files::read_to_string(&files.public_key_path()).unwrap();
    let key = VerifierKey::parse(&key).unwrap();
    let log = LogFiles::open(&files.lines_path()).unwrap();
    let newest = log.checkpoint().unwrap();
    let trust = Trust {
        newest: newest.map(|bytes| Checkpoint::open(bytes, &key).unwrap()),
        older: log.sealed(&key),
        witnessed: Vec::new(),
    };
    walk(&log, &trust, &mut |_, _| {})
}

fn change(generation: u64) -> Entry {
    Entry::Change(PolicyChange {
        time: Timestamp::from_unix_secs(1_790_000_000),
        generation,
        digest: "00".into(),
        files: vec!["a.yaml".into()],
        workloads_changed: 1,
        errors: 0,
        warnings: 0,
        author: None,
        approver: None,
        objects: None,
    })
}

#[test]
fn what_was_given_is_written_sealed_and_goes_on_after_a_restart() {
    let dir = Dir::new();
    for round in 0..3 {
        let log = dir.open();
        for generation in 0..500 {
            assert!(log.handle().record(change(generation)), "round {round}");
        }
    }
    let verified = dir.verify().unwrap();
    assert_eq!(
        ["change", "start", "gap"].map(|kind| verified.count(kind)),
        [1_500, 3, 0]
    );
    assert_eq!(verified.sealed_through, Some(verified.lines - 1));
    use std::os::unix::fs::MetadataExt;
    for private in [
        dir.files().lines_path(),
        dir.files().checkpoint_path(),
        dir.files().key_path(),
    ] {
        assert_eq!(
            std::fs::metadata(&private).unwrap().mode() & 0o777,
            0o600,
            "{}",
            private.display()
        );
    }
}

#[test]
fn a_checkpoint_comes_within_its_interval_without_being_asked() {
    let dir = Dir::new();
    let log = dir.open();
    log.handle().record(change(1));
    let sealed = (0..40).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        dir.verify().is_ok_and(|verified| {
            verified.count("change") == 1 && verified.sealed_through == Some(1)
        })
    });
    assert!(sealed, "no checkpoint after 2 s");
}

#[test]
fn a_torn_last_line_is_dropped_and_noted() {
    let dir = Dir::new();
    drop(dir.open());
    let mut raw = std::fs::OpenOptions::new()
        .append(true)
        .open(dir.files().lines_path())
        .unwrap();
    raw.write_all(b"{\"seq\":1,\"kind\":\"0123").unwrap();
    drop(dir.open());
    assert_eq!(dir.verify().unwrap().count("start"), 2);
    assert!(
        files::read_to_string(&dir.files().lines_path())
            .unwrap()
            .contains("\"torn_bytes\":21")
    );
}

#[test]
fn a_tail_that_was_cut_while_we_were_away_stays_on_record() {
    let dir = Dir::new();
    let log = dir.open();
    (0..9).for_each(|generation| _ = log.handle().record(change(generation)));
    drop(log);
    let text = files::read_to_string(&dir.files().lines_path()).unwrap();
    let kept: String = text.split_inclusive('\n').take(4).collect();
    std::fs::OpenOptions::new()
        .write(true)
        .open(dir.files().lines_path())
        .unwrap()
        .set_len(kept.len() as u64)
        .unwrap();
    drop(dir.open());
    let bad = dir.verify().unwrap_err();
    assert_eq!(
        (bad.place.line, bad.why),
        (
            5,
            Why::TailWasMissing {
                from: 4,
                through: 9
            }
        )
    );
    // The hashes of the missing lines are still in the tree: from a copy of them the log is whole again.
    let now = files::read_to_string(&dir.files().lines_path()).unwrap();
    let rest: Vec<&str> = now.split_inclusive('\n').skip(4).collect();
    assert!(rest[0].starts_with("{\"seq\":10,"), "{}", rest[0]);
    files::write_atomic(
        &dir.files().lines_path(),
        [&text[..], &rest.concat()].concat().as_bytes(),
        0o600,
    )
    .unwrap();
    assert_eq!(dir.verify().unwrap().lines, 11);
}

#[test]
fn a_log_of_another_key_is_moved_aside_and_the_new_one_says_so() {
    let dir = Dir::new();
    drop(dir.open());
    std::fs::remove_file(dir.files().key_path()).unwrap();
    drop(dir.open());
    let verified = dir.verify().unwrap();
    assert_eq!((verified.count("start"), verified.count("gap")), (1, 1));
    let names = std::fs::read_dir(dir.config().directory).unwrap();
    let aside = names
        .filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_string_lossy().contains(".broken-")
        })
        .count();
    assert_eq!(aside, 2, "the lines and the hashes");
}

#[test]
fn one_writer_at_a_time() {
    let dir = Dir::new();
    let _first = dir.open();
    let second = AuditLog::open(&dir.config(), System::new());
    assert!(matches!(
        second,
        Err(AuditLogError::Platform(PlatformError::Locked { .. }))
    ));
}

/// A platform whose clock waits for the test: the writer stands still inside it.
struct Gated(Arc<System>, Mutex<()>);

impl Platform for Gated {
    fn wall_clock(&self) -> Timestamp {
        self.0.wall_clock()
    }
    fn monotonic(&self) -> crate::Tick {
        let _open = self.1.lock().unwrap();
        self.0.monotonic()
    }
    fn fill_random(&self, out: &mut [u8]) {
        self.0.fill_random(out);
    }
    fn read_file(&self, path: &Path) -> Result<Vec<u8>, PlatformError> {
        self.0.read_file(path)
    }
}

#[test]
fn a_full_queue_never_waits_and_its_losses_are_counted_in_the_log() {
    let dir = Dir::new();
    let gated = Arc::new(Gated(System::new(), Mutex::new(())));
    let log = AuditLog::open_with_queue(&dir.config(), Arc::clone(&gated) as Arc<dyn Platform>, 16)
        .unwrap();
    log.handle().flush();
    let shut = gated.1.lock().unwrap();
    let taken = (0..5_000)
        .filter(|generation| log.handle().record(change(*generation)))
        .count() as u64;
    assert!((1..=5_000 - 100).contains(&taken), "{taken}");
    assert_eq!(log.handle().counts().lost, 5_000 - taken);
    drop(shut);
    log.handle().flush();
    log.handle().record(change(6_000));
    drop(log);
    let verified = dir.verify().unwrap();
    assert_eq!(
        (verified.count("change"), verified.lost),
        (taken + 1, 5_000 - taken)
    );
}

/// A log whose disk is full: the kernel's own full device in the place of the lines.
fn on_a_full_disk(dir: &Dir, when_full: WhenFull) -> AuditLog {
    let config = AuditLogConfig {
        when_full,
        ..dir.config()
    };
    drop(AuditLog::open(&config, System::new()).unwrap());
    let (mut log, found) = TreeLog::open(&config.files(), Timestamp::from_unix_secs(0)).unwrap();
    log.replace_file(Path::new("/dev/full"));
    let counts = Arc::new(Counts {
        strict: when_full == WhenFull::Strict,
        ..Counts::default()
    });
    let first = first_entries(&config, &found, Timestamp::from_unix_secs(0));
    let writer = writer::Writer::new(&config, System::new(), log, first, Arc::clone(&counts));
    let (queue, entries) = sync_channel(16);
    let thread = std::thread::spawn(move || writer.run(&entries));
    AuditLog {
        handle: AuditHandle { queue, counts },
        thread: Some(thread),
    }
}

#[test]
fn au4_a_full_disk_is_loud_and_what_is_lost_is_counted() {
    let dir = Dir::new();
    let log = on_a_full_disk(&dir, WhenFull::Count);
    (0..5).for_each(|generation| _ = log.handle().record(change(generation)));
    log.handle().flush();
    let counted = log.handle().counts();
    assert_eq!((counted.written, counted.lost), (0, 5));
    assert!(
        counted
            .failing
            .is_some_and(|why| why.contains("no space left"))
    );
    assert!(!log.handle().refuses(), "counting is not refusing");
    drop(log);
    assert_eq!(
        dir.verify().unwrap().sealed_through,
        Some(0),
        "nothing is sealed that is not on the disk"
    );
}

#[test]
fn au4_a_strict_log_on_a_full_disk_says_that_nothing_may_be_allowed() {
    let dir = Dir::new();
    let log = on_a_full_disk(&dir, WhenFull::Strict);
    log.handle().record(change(1));
    log.handle().flush();
    assert!(log.handle().refuses());
    drop(log);
    // With room again it takes entries, and says what was lost.
    let config = AuditLogConfig {
        when_full: WhenFull::Strict,
        ..dir.config()
    };
    let log = AuditLog::open(&config, System::new()).unwrap();
    log.handle().flush();
    assert!(!log.handle().refuses());
}

#[test]
fn au4_a_strict_log_refuses_from_the_first_loss_until_it_has_told_of_it() {
    let dir = Dir::new();
    let config = AuditLogConfig {
        when_full: WhenFull::Strict,
        ..dir.config()
    };
    let gated = Arc::new(Gated(System::new(), Mutex::new(())));
    let log =
        AuditLog::open_with_queue(&config, Arc::clone(&gated) as Arc<dyn Platform>, 4).unwrap();
    log.handle().flush();
    let shut = gated.1.lock().unwrap();
    let lost = (0..100).any(|generation| !log.handle().record(change(generation)));
    assert!(lost && log.handle().refuses());
    drop(shut);
    log.handle().flush();
    assert!(!log.handle().refuses());
    drop(log);
    assert!(dir.verify().unwrap().lost > 0);
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_reported_until_it_can() {
    let dir = Dir::new();
    let log = dir.open();
    log.handle().flush();
    let blocked = dir.files().checkpoint_path();
    std::fs::remove_file(&blocked).unwrap();
    std::fs::create_dir_all(blocked.join("x")).unwrap();
    log.handle().record(change(1));
    log.handle().flush();
    assert!(log.handle().counts().failing.is_some());
    log.handle().record(change(2));
    log.handle().flush();
    assert_eq!(
        log.handle().counts().written,
        3,
        "lines are written all the same"
    );
    std::fs::remove_dir_all(&blocked).unwrap();
    log.handle().flush();
    assert_eq!(log.handle().counts().failing, None);
    drop(log);
    assert_eq!(dir.verify().unwrap().sealed_through, Some(2));
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    for origin in ["", "..", ".hidden", "a/b", "a\0b", "é"] {
        let config = AuditLogConfig {
            origin: origin.into(),
            ..Dir::new().config()
        };
        assert!(
            matches!(
                AuditLog::open(&config, System::new()),
                Err(AuditLogError::Origin { .. })
            ),
            "{origin:?}"
        );
    }
}

/// Where the child of the next test writes; set only in the child.
const CHILD: &str = "MESH_TEST_AUDIT_CHILD";

#[test]
fn au6_child_that_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let config = AuditLogConfig::new(directory.into(), "shop.cart", "0.1.0");
    let log = AuditLog::open(&config, System::new()).unwrap();
    let mut out = std::io::stderr();
    for generation in 0.. {
        log.handle().record(change(generation));
        if generation % 16 == 15 {
            log.handle().flush();
            writeln!(out, "acknowledged {generation}").unwrap();
        }
    }
}

#[test]
fn au6_kill_9_loses_nothing_that_was_acknowledged() {
    let dir = Dir::new();
    let mut changes = 0;
    for round in 0..6 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "au6_child_that_is_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, dir.config().directory)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = 3 + round * 7;
        let mut last = 0;
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                last = number.parse::<u64>().unwrap();
                if last / 16 >= wanted {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let more = lines.map_while(Result::ok);
        let last = more
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
            .fold(last, u64::max);
        let verified = dir.verify().unwrap();
        assert!(
            verified.count("change") > changes + last,
            "round {round}: {} of {changes} + {last}",
            verified.count("change")
        );
        changes = verified.count("change");
        assert_eq!(verified.damaged_hashes, 0);
    }
    drop(dir.open());
    let verified = dir.verify().unwrap();
    assert_eq!((verified.count("start"), verified.count("gap")), (7, 0));
}
