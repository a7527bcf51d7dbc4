//! The order of an issuance, and what is left when it is cut off at any step.

use super::queue::{Queue, Waiting};
use super::*;
use crate::limits::{ISSUANCE_QUEUE_MAX, ISSUANCE_WAIT_MAX};
use crate::record::{LOG_FILE, Lines, replay};
use crate::testing::{DAY, NOW, World, domain, open, request};
use mesh_platform::PlatformError;
use mesh_trust::{Svid, TrustBundle, TrustBundles};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

fn verify(chain: &Chain, root: &Authority, now: Timestamp) -> Result<String, String> {
    let svid = Svid::parse(vec![chain.leaf.certificate().clone(), chain.issuer.clone()])
        .map_err(|e| e.to_string())?;
    let bundle =
        TrustBundle::new(domain(), vec![root.certificate().clone()]).map_err(|e| e.to_string())?;
    let peer = TrustBundles::from(bundle)
        .verify(&svid, now)
        .map_err(|e| e.to_string())?;
    Ok(peer.serial().to_owned())
}

#[test]
fn what_is_issued_verifies_under_the_root_and_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    let chain = desk.issue(vec![request()]).remove(0).unwrap();
    let serial = verify(&chain, desk.root(), NOW).unwrap();
    let log = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&serial)).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains(r#""kind":"intent""#) && lines[0].contains(r#""evidence":"test""#),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains(r#""kind":"final""#), "{}", lines[1]);
    assert!(!log.contains("PRIVATE"));
}

/// Fails at one step, and counts.
struct Failing {
    inner: Box<dyn Lines>,
    step: Arc<AtomicUsize>,
    fail_at: usize,
    /// Whether what fails stays failed, as a full disk does.
    for_good: bool,
}

impl Failing {
    fn check(&self, doing: &'static str) -> Result<(), PlatformError> {
        let step = self.step.fetch_add(1, Ordering::SeqCst);
        if step == self.fail_at || (self.for_good && step > self.fail_at) {
            return Err(PlatformError::NoSpace {
                doing,
                path: PathBuf::from(LOG_FILE),
            });
        }
        Ok(())
    }
}

impl Lines for Failing {
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError> {
        self.check("append to")?;
        self.inner.append(line)
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        self.check("flush")?;
        self.inner.sync()
    }
}

fn failing(desk: Desk, fail_at: usize, for_good: bool) -> (Desk, Arc<AtomicUsize>) {
    let step = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&step);
    let wrap = |inner| {
        Box::new(Failing {
            inner,
            step: counter,
            fail_at,
            for_good,
        }) as Box<dyn Lines>
    };
    (
        desk.map_recorder(|recorder| recorder.with_lines(wrap)),
        step,
    )
}

fn serials_with(log: &str, kind: &str) -> BTreeSet<String> {
    let kind = format!(r#""kind":"{kind}""#);
    let serial = |line: &str| {
        line.split(r#""serial":""#)
            .nth(1)
            .and_then(|rest| rest.split('"').next().map(str::to_owned))
    };
    log.lines()
        .filter(|line| line.contains(&kind))
        .filter_map(serial)
        .collect()
}

#[test]
fn a_disk_that_fails_at_any_step_leaves_no_certificate_without_record() {
    for for_good in [false, true] {
        for fail_at in 0..=5 {
            let dir = tempfile::tempdir().unwrap();
            let world = World::at(NOW);
            // Two requests: intent, intent, flush, final, final.
            let (mut desk, _) = failing(open(dir.path(), &world).unwrap(), fail_at, for_good);
            let outcomes = desk.issue(vec![request(), request()]);
            let released: Vec<_> = outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().ok())
                .collect();
            let expected = match (fail_at, for_good) {
                (5, _) => 2,
                (0 | 1, false) | (4, _) | (3, false) => 1,
                _ => 0,
            };
            assert_eq!(
                released.len(),
                expected,
                "step {fail_at}, for good {for_good}"
            );
            for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                assert!(
                    matches!(error, IssuanceError::NotRecorded { .. }),
                    "step {fail_at}: {error}"
                );
            }
            assert_eq!(
                desk.in_doubt(),
                fail_at == 2 || (for_good && fail_at < 2),
                "step {fail_at}, for good {for_good}"
            );
            let log = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
            let (intents, finals) = (serials_with(&log, "intent"), serials_with(&log, "final"));
            for chain in &released {
                let serial = chain.leaf.serial().to_hex();
                assert!(
                    intents.contains(&serial) && finals.contains(&serial),
                    "step {fail_at}: {serial}"
                );
            }
            drop(desk);
            // The next start reads the log and issues.
            let mut desk = open(dir.path(), &world).unwrap();
            assert!(
                desk.issue(vec![request()]).remove(0).is_ok(),
                "step {fail_at}"
            );
        }
    }
}

#[test]
fn after_a_failed_flush_nothing_is_issued_until_the_log_was_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let (mut desk, _) = failing(open(dir.path(), &world).unwrap(), 1, false);
    assert!(matches!(
        desk.issue(vec![request()]).remove(0),
        Err(IssuanceError::NotRecorded { .. })
    ));
    assert!(matches!(
        desk.issue(vec![request()]).remove(0),
        Err(IssuanceError::Stopped)
    ));
    assert!(matches!(desk.maintain(), Err(IssuanceError::Stopped)));
}

#[test]
fn a_disk_that_is_full_for_a_while_delays_issuance_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut desk, _) = failing(open(dir.path(), &World::at(NOW)).unwrap(), 0, false);
    assert!(matches!(
        desk.issue(vec![request()]).remove(0),
        Err(IssuanceError::NotRecorded { .. })
    ));
    assert!(desk.issue(vec![request()]).remove(0).is_ok());
}

#[test]
fn a_torn_last_line_is_dropped_and_a_torn_first_start_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    desk.issue(vec![request()]).remove(0).unwrap();
    let root = desk.root().clone();
    drop(desk);
    let path = dir.path().join(LOG_FILE);
    let whole = std::fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    for cut in [last + 1, (last + whole.len()) / 2, whole.len() - 1] {
        std::fs::File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &whole[..cut]))
            .unwrap();
        let mut desk = open(dir.path(), &world).unwrap();
        assert_eq!(desk.root(), &root);
        assert_eq!(
            desk.recorder_mut().ledger().open(),
            1,
            "the intent stands, without its end"
        );
        desk.issue(vec![request()]).remove(0).unwrap();
        assert!(replay(&path).is_ok());
    }
}

#[test]
fn randomness_that_repeats_itself_cannot_repeat_a_serial() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    world.stuck.store(true, Ordering::SeqCst);
    assert!(desk.issue(vec![request()]).remove(0).is_ok());
    let again = desk.issue(vec![request(), request()]);
    assert!(
        again
            .iter()
            .all(|outcome| matches!(outcome, Err(IssuanceError::Log(_)))),
        "{again:?}"
    );
    drop(desk);
    let mut desk = open(dir.path(), &world).unwrap();
    assert!(
        matches!(
            desk.issue(vec![request()]).remove(0),
            Err(IssuanceError::Log(_))
        ),
        "also after a restart"
    );
    world.set(NOW.plus_secs(-3_600 * 24));
    assert!(
        open(dir.path(), &world).is_err(),
        "a clock set back before the root is refused"
    );
}

#[test]
fn a_key_is_certified_once() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    let (mut first, evidence) = request();
    assert!(
        desk.issue(vec![(first.clone(), evidence.clone())])
            .remove(0)
            .is_ok()
    );
    first.id = crate::testing::id("ns/shop/sa/thief");
    for _ in 0..2 {
        let again = desk
            .issue(vec![(first.clone(), evidence.clone())])
            .remove(0);
        assert!(matches!(again, Err(IssuanceError::Log(_))), "{again:?}");
        drop(desk);
        desk = open(dir.path(), &world).unwrap();
    }
    let (mut issuers, _) = request();
    issuers.key = desk.issuer().key().clone();
    assert!(desk.issue(vec![(issuers, evidence)]).remove(0).is_err());
}

#[test]
fn the_issuer_is_renewed_at_half_of_its_life_and_old_leaves_stay_valid() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    let (root, first) = (desk.root().clone(), desk.issuer().clone());
    world.set(NOW.plus_secs(7 * DAY / 2 - 3_600));
    desk.maintain().unwrap();
    assert_eq!(desk.issuer(), &first, "not yet");
    let old = desk.issue(vec![request()]).remove(0).unwrap();
    let later = NOW.plus_secs(7 * DAY / 2 + 60);
    world.set(later);
    desk.maintain().unwrap();
    let second = desk.issuer().clone();
    assert!(
        second.key() != first.key()
            && second.subject() != first.subject()
            && second.key_id() != first.key_id()
    );
    assert_eq!(desk.root(), &root);
    let new = desk.issue(vec![request()]).remove(0).unwrap();
    for chain in [&old, &new] {
        verify(chain, &root, later).unwrap();
    }
    assert_ne!(old.issuer, new.issuer);
    drop(desk);
    let desk = open(dir.path(), &world).unwrap();
    assert_eq!(
        (desk.issuer(), desk.root()),
        (&second, &root),
        "a restart keeps both"
    );
}

#[test]
fn a_ca_that_slept_past_its_issuers_end_wakes_with_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let first = open(dir.path(), &world).unwrap().issuer().clone();
    world.set(NOW.plus_secs(30 * DAY));
    let mut desk = open(dir.path(), &world).unwrap();
    assert_ne!(desk.issuer(), &first);
    verify(
        &desk.issue(vec![request()]).remove(0).unwrap(),
        desk.root(),
        NOW.plus_secs(30 * DAY),
    )
    .unwrap();
}

#[test]
fn forty_years_of_upkeep_end_with_the_root_and_no_leaf_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut desk = open(dir.path(), &world).unwrap();
    let end = desk.root().validity().not_after;
    let mut now = end.plus_secs(-12 * DAY);
    while now < end {
        world.set(now);
        let _ = desk.maintain();
        if let Ok(chain) = desk.issue(vec![request()]).remove(0) {
            assert!(chain.leaf.validity().not_after < end);
            verify(&chain, desk.root(), now).unwrap();
        }
        now = now.plus_secs(3_600);
    }
    drop(desk);
    world.set(end.plus_secs(1));
    assert!(matches!(
        open(dir.path(), &world),
        Err(CaError::RootNotInForce { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_together_shares_a_flush_and_every_serial_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, steps) = failing(
        open(dir.path(), &World::at(NOW)).unwrap(),
        usize::MAX,
        false,
    );
    let issuing = Issuing::new(desk);
    let all: Vec<_> = (0..300)
        .map(|_| {
            tokio::spawn({
                let issuing = issuing.clone();
                async move {
                    let (request, evidence) = request();
                    issuing
                        .issue(request, evidence, Turn::First)
                        .await
                        .unwrap()
                        .leaf
                        .serial()
                        .to_hex()
                }
            })
        })
        .collect();
    let mut serials = BTreeSet::new();
    for task in all {
        assert!(serials.insert(task.await.unwrap()));
    }
    assert!(
        steps.load(Ordering::SeqCst) < 900,
        "600 lines and fewer than 300 flushes: {steps:?}"
    );
}

/// A disk that stands still while it is told to.
struct Stuck {
    inner: Box<dyn Lines>,
    stuck: Arc<AtomicBool>,
}

impl Lines for Stuck {
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError> {
        self.inner.append(line)
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        while self.stuck.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.inner.sync()
    }
}

/// A disk that brings down whoever writes to it, once it is told to; and notes which threads did.
struct Falling {
    inner: Box<dyn Lines>,
    falls: Arc<AtomicBool>,
    threads: Arc<std::sync::Mutex<Vec<std::thread::ThreadId>>>,
}

impl Lines for Falling {
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError> {
        let thread = std::thread::current().id();
        let mut threads = self.threads.lock().unwrap();
        if !threads.contains(&thread) {
            threads.push(thread);
        }
        drop(threads);
        // Time for others to come.
        std::thread::sleep(Duration::from_millis(1));
        assert!(!self.falls.load(Ordering::SeqCst), "it fell");
        self.inner.append(line)
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        self.inner.sync()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_thread_serves_all_and_a_panic_refuses_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let falls = Arc::new(AtomicBool::new(false));
    let threads = Arc::default();
    let (fallen, seen) = (Arc::clone(&falls), Arc::clone(&threads));
    let desk = open(dir.path(), &World::at(NOW))
        .unwrap()
        .map_recorder(|recorder| {
            recorder.with_lines(|inner| {
                Box::new(Falling {
                    inner,
                    falls: fallen,
                    threads: seen,
                })
            })
        });
    let issuing = Issuing::new(desk);
    let ask_many = || {
        (0..100)
            .map(|_| {
                let issuing = issuing.clone();
                tokio::spawn(async move {
                    let (request, evidence) = request();
                    issuing.issue(request, evidence, Turn::First).await
                })
            })
            .collect::<Vec<_>>()
    };
    for task in ask_many() {
        assert!(task.await.unwrap().is_ok());
    }
    // One who comes as the last one leaves is served by another.
    let served_by = threads.lock().unwrap().len();
    assert!(
        served_by <= 3,
        "{served_by} threads for 100 who waited at once"
    );

    falls.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    for task in ask_many() {
        let answer = task.await.unwrap();
        assert!(matches!(answer, Err(IssuanceError::Stopped)), "{answer:?}");
    }
    assert!(begun.elapsed() < ISSUANCE_WAIT_MAX, "they waited in vain");
    // Nobody knows what state the desk is in: what was repaired meanwhile counts for nothing.
    falls.store(false, Ordering::SeqCst);
    for task in ask_many() {
        assert!(matches!(task.await.unwrap(), Err(IssuanceError::Stopped)));
    }
    assert!(!issuing.maintain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_stuck_disk_longer_than_two_seconds_and_renewals_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = Arc::new(AtomicBool::new(true));
    let disk = Arc::clone(&stuck);
    let desk = open(dir.path(), &World::at(NOW))
        .unwrap()
        .map_recorder(|recorder| {
            recorder.with_lines(|inner| Box::new(Stuck { inner, stuck: disk }))
        });
    let issuing = Issuing::new(desk);
    let begun = tokio::time::Instant::now();
    let ask = |turn| {
        let issuing = issuing.clone();
        tokio::spawn(async move {
            let (request, evidence) = request();
            issuing.issue(request, evidence, turn).await
        })
    };
    // The first one is at the disk; the others wait in the queue.
    let first = ask(Turn::First);
    let late: Vec<_> = (0..3).map(|_| ask(Turn::First)).collect();
    let mut busy = 0;
    for task in late.into_iter().chain([first]) {
        busy += usize::from(matches!(task.await.unwrap(), Err(IssuanceError::Busy)));
    }
    let waited = begun.elapsed();
    assert_eq!(busy, 4);
    assert!(
        waited >= ISSUANCE_WAIT_MAX && waited < 3 * ISSUANCE_WAIT_MAX,
        "{waited:?}"
    );
    stuck.store(false, Ordering::SeqCst);
    assert!(
        ask(Turn::Renewal).await.unwrap().is_ok(),
        "the disk is back"
    );
    let mut queue = Queue::default();
    let waiting = |evidence: &str| {
        let (reply, answer) = oneshot::channel();
        let (request, _) = request();
        (
            Waiting {
                request,
                requester: Requester {
                    evidence: evidence.to_owned(),
                    instance: None,
                    node: None,
                },
                reply,
            },
            answer,
        )
    };
    let mut answers = Vec::new();
    for (turn, name) in [
        (Turn::First, "a"),
        (Turn::Renewal, "b"),
        (Turn::First, "c"),
        (Turn::Renewal, "d"),
    ] {
        let (waiting, answer) = waiting(name);
        queue.push(turn, waiting).unwrap();
        answers.push(answer);
    }
    answers.remove(2);
    let order: Vec<_> = queue
        .next()
        .into_iter()
        .map(|one| one.requester.evidence)
        .collect();
    assert_eq!(
        order,
        ["b", "d", "a"],
        "renewals first, and who gave up is passed over"
    );
    let mut kept = Vec::new();
    let refused = loop {
        let (waiting, answer) = waiting("first");
        kept.push(answer);
        if let Err(error) = queue.push(Turn::First, waiting) {
            break error;
        }
    };
    assert!(matches!(refused, IssuanceError::Busy));
    assert_eq!(kept.len() - 1, ISSUANCE_QUEUE_MAX / 4 * 3);
    assert!(
        queue.push(Turn::Renewal, waiting("renewal").0).is_ok(),
        "places are left for renewals"
    );
}
