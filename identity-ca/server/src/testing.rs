//! What the tests of several modules share: a world whose clock can be set, and a CA in a temporary directory.

use crate::issuing::Desk;
use crate::signer::Signing;
use crate::signer::link::SignerStart;
use crate::signer::process::SignerConfig;
use crate::trust::Requester;
use crate::{CaError, signer};
use mesh_issuance::Profile;
use mesh_issuance::issue::Request;
use mesh_platform::{Platform, PlatformError, System, Tick, files};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

/// The time at which all tests begin.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_795_260_000);
pub(crate) const DAY: i64 = 86_400;

/// A world whose clock stands where it is put, plus the time of tokio where that runs.
pub(crate) struct World {
    now_micros: AtomicI64,
    start: Option<tokio::time::Instant>,
    /// Randomness that repeats itself.
    pub(crate) stuck: AtomicBool,
    system: Arc<System>,
}

impl World {
    pub(crate) fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            now_micros: now.unix_micros().into(),
            start: None,
            stuck: false.into(),
            system: System::new(),
        })
    }

    /// Moves with tokio's clock.
    pub(crate) fn flowing(now: Timestamp) -> Arc<Self> {
        let start = Some(tokio::time::Instant::now());
        Arc::new(Self {
            now_micros: now.unix_micros().into(),
            start,
            stuck: false.into(),
            system: System::new(),
        })
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.now_micros.store(now.unix_micros(), Ordering::SeqCst);
    }

    fn flown(&self) -> Duration {
        self.start.map(|start| start.elapsed()).unwrap_or_default()
    }
}

impl Platform for World {
    fn wall_clock(&self) -> Timestamp {
        Timestamp::from_unix_micros(
            self.now_micros.load(Ordering::SeqCst) + self.flown().as_micros() as i64,
        )
    }

    fn monotonic(&self) -> Tick {
        Tick::default().plus(self.flown())
    }

    fn fill_random(&self, out: &mut [u8]) {
        if self.stuck.load(Ordering::SeqCst) {
            out.fill(7)
        } else {
            self.system.fill_random(out)
        }
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u8>, PlatformError> {
        files::read(path)
    }
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/{path}")).unwrap()
}

/// A signer in a thread, for the CA in `dir`.
pub(crate) fn in_thread(dir: &Path) -> SignerStart {
    SignerStart::DangerThread(SignerConfig {
        dir: dir.to_owned(),
        ..SignerConfig::default()
    })
}

/// The same, started.
pub(crate) fn signing(dir: &Path) -> Result<Signing, CaError> {
    Ok(Signing::start(in_thread(dir))?)
}

pub(crate) fn open(dir: &Path, world: &Arc<World>) -> Result<Desk, CaError> {
    Desk::open(
        dir,
        &domain(),
        Profile::leaf(86_400).unwrap(),
        world.clone(),
    )
}

pub(crate) fn request() -> (Request, Requester) {
    let (_, key) = signer::generate().unwrap();
    (
        Request {
            id: id("ns/shop/sa/cart"),
            key,
            lifetime_secs: None,
            backdate_secs_max: None,
        },
        Requester {
            evidence: "test".to_owned(),
            instance: Some("test".to_owned()),
            node: None,
        },
    )
}

/// A disk without space, for a log.
pub(crate) struct Full;

impl crate::record::Lines for Full {
    fn append(&mut self, _: &[u8]) -> Result<(), PlatformError> {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        Err(PlatformError::from_io("write", Path::new("log"), full))
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        Ok(())
    }
}
