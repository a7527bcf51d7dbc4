//! What the tasks of an injector share.

use crate::InjectorConfig;
use crate::authority::Authority;
use mesh_platform::Platform;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What the tasks of an injector share.
pub(crate) struct Shared {
    pub(crate) config: InjectorConfig,
    pub(crate) client: mesh_kubernetes::Client,
    pub(crate) platform: Arc<dyn Platform>,
    /// What is served with.
    pub(crate) serving: Arc<Serving>,
    /// The authority that must be in the webhook configurations, PEM. It runs ahead of `serving` while keys change.
    anchor: Mutex<String>,
    /// In which configurations it is: for pods, for policies.
    pub(crate) known: [AtomicBool; 2],
    pub(crate) counts: Counts,
}

/// The certificate that is served with; replaced while connections go on.
pub(crate) struct Serving {
    key: RwLock<Arc<CertifiedKey>>,
    made_at: AtomicU64,
}

/// What was asked and answered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) injected: AtomicU64,
    pub(crate) not_asked: AtomicU64,
    pub(crate) disabled: AtomicU64,
    pub(crate) already: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) undecided: AtomicU64,
    pub(crate) policies_allowed: AtomicU64,
    pub(crate) policies_denied: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    /// Answers within each bound of [`BOUNDS`], and all.
    pub(crate) within: [AtomicU64; BOUNDS.len() + 1],
    pub(crate) micros: AtomicU64,
}

/// Bounds of the histogram of answers, in microseconds.
pub(crate) const BOUNDS: [u64; 8] = [500, 1_000, 2_500, 5_000, 10_000, 20_000, 100_000, 1_000_000];

impl Counts {
    /// One more of `which`.
    pub(crate) fn add(&self, which: &AtomicU64) {
        which.fetch_add(1, Ordering::Relaxed);
    }

    /// One answer that took so long.
    pub(crate) fn took(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        let bounds = BOUNDS.iter().copied().chain([u64::MAX]);
        for (slot, bound) in self.within.iter().zip(bounds) {
            if micros <= bound {
                slot.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Shared {
    pub(crate) fn new(
        config: InjectorConfig,
        client: mesh_kubernetes::Client,
        platform: Arc<dyn Platform>,
        first: Authority,
    ) -> Self {
        Self {
            config,
            client,
            platform,
            anchor: Mutex::new(first.anchor.clone()),
            serving: Arc::new(Serving::new(&first)),
            known: Default::default(),
            counts: Counts::default(),
        }
    }

    /// The authority that must be in the webhook configurations.
    pub(crate) fn anchor(&self) -> String {
        self.anchor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on this one must be there too.
    pub(crate) fn announce(&self, anchor: &str) {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = anchor.to_owned();
    }

    /// Now, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.platform.wall_clock().unix_secs()
    }

    /// Whether all configurations that there should be have the authority.
    pub(crate) fn is_known_everywhere(&self) -> bool {
        let [pods, policies] = &self.known;
        (self.config.policies_only || pods.load(Ordering::Acquire))
            && policies.load(Ordering::Acquire)
    }

    /// Why API servers cannot use it yet, if so.
    pub(crate) fn why_not_ready(&self) -> Option<&'static str> {
        let [pods, policies] = &self.known;
        let needed = match self.config.policies_only {
            true => policies,
            false => pods,
        };
        (!needed.load(Ordering::Acquire))
            .then_some("its authority is not in the webhook configuration yet")
    }
}

impl Serving {
    fn new(first: &Authority) -> Self {
        Self {
            key: RwLock::new(Arc::clone(&first.key)),
            made_at: AtomicU64::new(u64::try_from(first.made_at).unwrap_or(0)),
        }
    }

    /// Serves with `next` from now on.
    pub(crate) fn replace(&self, next: &Authority) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next.key);
        self.made_at
            .store(u64::try_from(next.made_at).unwrap_or(0), Ordering::Relaxed);
    }

    /// When what is served with was made, seconds since 1970.
    pub(crate) fn made_at(&self) -> i64 {
        i64::try_from(self.made_at.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.key.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use mesh_platform::{Platform, PlatformError, System, Tick};
    use mesh_trust::Timestamp;
    use std::path::Path;

    /// A world whose clock stands, at so many seconds since 1970.
    pub(crate) struct At(pub(crate) i64);

    impl Platform for At {
        fn wall_clock(&self) -> Timestamp {
            Timestamp::from_unix_micros(self.0 * 1_000_000)
        }

        fn monotonic(&self) -> Tick {
            Tick::default()
        }

        fn fill_random(&self, out: &mut [u8]) {
            System::new().fill_random(out);
        }

        fn read_file(&self, path: &Path) -> Result<Vec<u8>, PlatformError> {
            System::new().read_file(path)
        }
    }
}
