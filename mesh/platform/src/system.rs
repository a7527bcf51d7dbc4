//! Clocks, randomness and whole files behind one trait, so that a test can be the world.

use crate::{PlatformError, files};
use mesh_trust::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// All that the edges ask of the operating system and a simulation must answer from a seed.
pub trait Platform: Send + Sync {
    /// Now, for validity periods and the times in logs; may jump in both directions.
    fn wall_clock(&self) -> Timestamp;

    /// Now, for timeouts and backoff; never goes back.
    fn monotonic(&self) -> Tick;

    /// Fills `out` with unpredictable bytes: jitter, identifiers, serials. Private keys come from the crypto provider,
    /// never from here.
    fn fill_random(&self, out: &mut [u8]);

    /// A random number, every one as likely: for pauses that must not fall together.
    fn dice(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path and what to do.
    fn read_file(&self, path: &Path) -> Result<Vec<u8>, PlatformError>;
}

/// A point on the monotonic clock: microseconds since the process made its [`System`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// The point `micros` microseconds after the start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The point `wait` later; saturates.
    #[must_use]
    pub const fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(wait)))
    }

    /// How long ago `earlier` was; zero if it is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Whole microseconds, at most `u64::MAX` (half a million years).
const fn micros_of(wait: Duration) -> u64 {
    let micros = wait.as_micros();
    if micros > u64::MAX as u128 {
        u64::MAX
    } else {
        micros as u64
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}us", self.0)
    }
}

/// The real world.
pub struct System {
    start: Instant,
    random: SystemRandom,
}

impl System {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            random: SystemRandom::new(),
        })
    }
}

impl Platform for System {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn wall_clock(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        };
        Timestamp::from_unix_micros(micros)
    }

    fn monotonic(&self) -> Tick {
        Tick(micros_of(self.start.elapsed()))
    }

    fn fill_random(&self, out: &mut [u8]) {
        if self.random.fill(out).is_err() {
            // getrandom(2) cannot fail once the kernel has booted. Going on with bytes that can be guessed would be
            // worse than ending.
            tracing::error!("the kernel gives no random bytes; the process ends");
            std::process::abort();
        }
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u8>, PlatformError> {
        files::read(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_saturate_in_both_directions() {
        let late = Tick::from_micros(u64::MAX - 1);
        assert_eq!(late.plus(Duration::from_secs(1)).micros(), u64::MAX);
        assert_eq!(
            Tick::from_micros(5).since(Tick::from_micros(9)),
            Duration::ZERO
        );
        assert_eq!(
            Tick::from_micros(9).since(Tick::from_micros(5)),
            Duration::from_micros(4)
        );
        assert_eq!(Tick::default().plus(Duration::MAX).micros(), u64::MAX);
    }

    #[test]
    fn the_real_clocks_run_forward_and_bytes_differ() {
        let world: Arc<dyn Platform> = System::new();
        let (tick, time) = (world.monotonic(), world.wall_clock());
        assert!(world.monotonic() >= tick);
        assert!(
            time.unix_secs() > 1_700_000_000,
            "the machine's clock is wrong or ours is: {time}"
        );
        let (mut one, mut two) = ([0u8; 32], [0u8; 32]);
        world.fill_random(&mut one);
        world.fill_random(&mut two);
        assert_ne!(one, two);
    }
}
