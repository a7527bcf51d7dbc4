//! Nothing is lost silently: over crashes, cut tails, broken files, full queues and full disks.

use super::*;
use crate::System;
use mesh_audits::checkpoint::PublicKey;
use mesh_audits::entry::PolicyChange;
use mesh_audits::verify::{FirstBad, Seal, Verified, Why, verify};
use std::io::Write;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> AuditLogConfig {
        AuditLogConfig {
            directory: self.0.path().join("audit"),
            origin: "shop.cart".into(),
            version: "0.1.0".into(),
        }
    }

    fn open(&self) -> AuditLog {
        AuditLog::open(&self.config(), System::new()).unwrap()
    }

    fn verify(&self) -> Result<Verified, FirstBad> {
        let config = self.config();
        let key =
            PublicKey::parse(&files::read_to_string(&config.public_key_path()).unwrap()).unwrap();
        let checkpoint =
            Checkpoint::parse(&files::read(&config.checkpoint_path()).unwrap()).unwrap();
        let log = files::read(&config.log_path()).unwrap();
        verify(
            log.as_slice(),
            "log",
            Some("shop.cart"),
            Seal::Signed(checkpoint, key),
        )
    }
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
        (verified.changes, verified.starts, verified.gaps),
        (1_500, 3, 0)
    );
    assert_eq!(verified.sealed_through, Some(verified.lines - 1));
    use std::os::unix::fs::MetadataExt;
    for private in [
        dir.config().log_path(),
        dir.config().checkpoint_path(),
        dir.config().key_path(),
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
        dir.verify()
            .is_ok_and(|verified| verified.changes == 1 && verified.sealed_through == Some(1))
    });
    assert!(sealed, "no checkpoint after 2 s");
}

#[test]
fn a_torn_last_line_is_dropped_and_noted() {
    let dir = Dir::new();
    drop(dir.open());
    let mut raw = std::fs::OpenOptions::new()
        .append(true)
        .open(dir.config().log_path())
        .unwrap();
    raw.write_all(b"{\"seq\":1,\"prev\":\"0123").unwrap();
    drop(dir.open());
    assert_eq!(dir.verify().unwrap().starts, 2);
    assert!(
        files::read_to_string(&dir.config().log_path())
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
    let text = files::read_to_string(&dir.config().log_path()).unwrap();
    let kept: String = text.split_inclusive('\n').take(4).collect();
    std::fs::OpenOptions::new()
        .write(true)
        .open(dir.config().log_path())
        .unwrap()
        .set_len(kept.len() as u64)
        .unwrap();
    drop(dir.open());
    let bad = dir.verify().unwrap_err();
    assert_eq!((bad.line, bad.why), (5, Why::TailWasMissing { sealed: 9 }));
}

#[test]
fn a_broken_log_is_moved_aside_and_the_new_one_says_so() {
    let dir = Dir::new();
    drop(dir.open());
    let path = dir.config().log_path();
    let mut bytes = files::read(&path).unwrap();
    bytes[20] ^= 1;
    files::write_atomic(&path, &bytes, 0o600).unwrap();
    drop(dir.open());
    let verified = dir.verify().unwrap();
    assert_eq!((verified.starts, verified.gaps), (1, 1));
    let aside = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .any(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("shop.cart.jsonl.broken-")
        });
    assert!(aside);
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
        (verified.changes, verified.lost),
        (taken + 1, 5_000 - taken)
    );
}

#[test]
fn a_disk_that_refuses_is_loud_counted_and_gone_on_from() {
    let dir = Dir::new();
    files::create_dir_private(&dir.config().directory).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.config().log_path()).unwrap();
    // /dev/full reads as endless zeros, so the log is opened by hand.
    let counts = Arc::new(Counts::default());
    let found = Found {
        file: AppendFile::open(Path::new("/dev/full"), 0o600).unwrap(),
        chain: ChainState::genesis("shop.cart"),
        first: vec![change(0)],
    };
    let key = load_or_make_key(&dir.config()).unwrap();
    let writer = writer::Writer::new(
        &dir.config(),
        System::new(),
        key,
        found,
        Arc::clone(&counts),
    );
    let (queue, entries) = sync_channel(16);
    let thread = std::thread::spawn(move || writer.run(&entries));
    let handle = AuditHandle { queue, counts };
    (0..5).for_each(|generation| _ = handle.record(change(generation)));
    handle.flush();
    let counted = handle.counts();
    assert_eq!((counted.written, counted.lost), (0, 5));
    assert!(
        counted
            .failing
            .is_some_and(|why| why.contains("no space left"))
    );
    assert!(
        !dir.config().checkpoint_path().exists(),
        "nothing is sealed that is not on the disk"
    );
    handle.queue.send(Message::Stop).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_reported_until_it_can() {
    let dir = Dir::new();
    let blocked = dir.config().checkpoint_path();
    std::fs::create_dir_all(&blocked).unwrap();
    let log = dir.open();
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
    std::fs::remove_dir(&blocked).unwrap();
    log.handle().flush();
    assert_eq!(log.handle().counts().failing, None);
    assert_eq!(dir.verify().unwrap().sealed_through, Some(2));
    drop(log);
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
