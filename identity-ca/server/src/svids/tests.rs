//! A day in a second: renewals, outages and ends, on a clock that jumps.

use super::*;
use crate::issuing::Desk;
use crate::record::{LOG_FILE, Lines};
use crate::testing::{NOW, World, domain, id};
use mesh_issuance::Profile;
use mesh_platform::{PlatformError, process};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk that is full on demand.
struct Disk {
    inner: Box<dyn Lines>,
    full: Arc<AtomicBool>,
}

impl Lines for Disk {
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(PlatformError::NoSpace {
                doing: "append to",
                path: LOG_FILE.into(),
            });
        }
        self.inner.append(line)
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        self.inner.sync()
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    svids: Svids,
    full: Arc<AtomicBool>,
    process: Arc<PidFd>,
}

impl Bench {
    fn new(lifetime_secs: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = World::flowing(NOW);
        let profile = Profile::leaf(lifetime_secs).unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let disk = Arc::clone(&full);
        let desk = Desk::open(dir.path(), &domain(), profile, world.clone()).unwrap();
        let desk = desk.map_recorder(|recorder| {
            recorder.with_lines(|inner| Box::new(Disk { inner, full: disk }))
        });
        let process = Arc::new(PidFd::open(std::process::id()).unwrap());
        Self {
            _dir: dir,
            svids: Svids::new(
                Arc::new(crate::issuing::Issuing::new(desk)),
                watch::Sender::new(Arc::default()).subscribe(),
                world,
            ),
            full,
            process,
        }
    }

    fn follow(&self, service_account: &str) -> watch::Receiver<Slot> {
        let pid = std::process::id();
        let identity = id(&format!("ns/shop/sa/{service_account}"));
        let owner = Owner {
            pid,
            start_time_ticks: process::start_time_ticks(pid).unwrap(),
            identity,
        };
        self.svids.follow(owner, "test", &self.process)
    }
}

fn ready(slot: &Slot) -> Option<Arc<Material>> {
    match slot {
        Slot::Ready(material) => Some(Arc::clone(material)),
        _ => None,
    }
}

async fn first(slots: &mut watch::Receiver<Slot>) -> Arc<Material> {
    ready(&slots.wait_for(|slot| ready(slot).is_some()).await.unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn in_a_day_an_svid_of_an_hour_is_renewed_dozens_of_times_and_no_key_comes_twice() {
    let bench = Bench::new(3_600);
    let mut slots = bench.follow("cart");
    let (mut serials, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let day = tokio::time::sleep(Duration::from_secs(86_400));
    tokio::pin!(day);
    loop {
        tokio::select! {
            changed = slots.changed() => changed.unwrap(),
            () = &mut day => break,
        }
        let material = ready(&slots.borrow_and_update()).expect("never without one");
        assert!(material.not_after > bench.svids.platform.wall_clock());
        assert!(serials.insert(material.serial.clone()) && keys.insert(material.key.to_vec()));
    }
    assert!((34..=49).contains(&serials.len()), "{}", serials.len());
}

#[tokio::test(start_paused = true)]
async fn an_outage_within_the_life_is_not_seen_and_one_beyond_it_says_why() {
    let bench = Bench::new(3_600);
    let mut slots = bench.follow("cart");
    let before = first(&mut slots).await;
    bench.full.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    assert_eq!(
        ready(&slots.borrow_and_update()).unwrap().serial,
        before.serial,
        "the one in force stays"
    );
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert!(
        matches!(*slots.borrow_and_update(), Slot::Unavailable(_)),
        "it has ended"
    );
    bench.full.store(false, Ordering::SeqCst);
    let after = tokio::time::timeout(Duration::from_secs(600), first(&mut slots))
        .await
        .expect("it recovers by itself");
    assert_ne!(after.serial, before.serial);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_is_not_renewed() {
    let bench = Bench::new(3_600);
    let mut slots = bench.follow("cart");
    let old = first(&mut slots).await;
    let mut again = bench.follow("cart");
    assert_eq!(
        first(&mut again).await.serial,
        old.serial,
        "two streams share one"
    );
    drop((slots, again));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.svids.len(), 1, "kept for the next stream");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.svids.len(), 0);
    assert_ne!(first(&mut bench.follow("cart")).await.serial, old.serial);
}

#[tokio::test(start_paused = true)]
async fn a_first_issuance_that_fails_says_so_and_the_next_one_begins_anew() {
    let bench = Bench::new(3_600);
    bench.full.store(true, Ordering::SeqCst);
    let mut slots = bench.follow("cart");
    let failed = slots
        .wait_for(|slot| !matches!(slot, Slot::Pending))
        .await
        .unwrap()
        .clone();
    assert!(
        matches!(failed, Slot::Unavailable(IssuanceError::NotRecorded { .. })),
        "{failed:?}"
    );
    assert_eq!(bench.svids.len(), 0);
    bench.full.store(false, Ordering::SeqCst);
    first(&mut bench.follow("cart")).await;
}

#[tokio::test]
async fn the_svid_goes_with_its_process() {
    let bench = Bench::new(3_600);
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let (pid, process) = (child.id(), Arc::new(PidFd::open(child.id()).unwrap()));
    let owner = Owner {
        pid,
        start_time_ticks: process.start_time_ticks().unwrap(),
        identity: id("ns/shop/sa/cart"),
    };
    let mut slots = bench.svids.follow(owner, "test", &process);
    first(&mut slots).await;
    assert_eq!(bench.svids.len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = async {
        while bench.svids.len() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .expect("forgotten");
}

#[tokio::test]
async fn an_identity_that_asks_too_often_is_limited_and_others_are_not() {
    let bench = Bench::new(3_600);
    let mut limited = 0;
    for n in 0..14 {
        // A process that starts again and again: another pid each time.
        let owner = Owner {
            pid: n,
            start_time_ticks: 1,
            identity: id("ns/shop/sa/cart"),
        };
        let mut slots = bench.svids.follow(owner, "test", &bench.process);
        let slot = slots
            .wait_for(|slot| !matches!(slot, Slot::Pending))
            .await
            .unwrap()
            .clone();
        limited += usize::from(matches!(
            slot,
            Slot::Unavailable(IssuanceError::RateLimited { .. })
        ));
    }
    assert_eq!(limited, 4);
    first(&mut bench.follow("web")).await;
}
