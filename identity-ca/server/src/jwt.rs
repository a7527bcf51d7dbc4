//! JWT-SVIDs: the keys that sign them, apart from the issuer's, and the desk that hands them out.
//!
//! Keys come and go as [`mesh_issuance::jwt::rota`] says; every change is on disk before it is in the bundle, and a key
//! signs only after it was published. The signer holds them; the CA has their public halves. Tokens are not in the issuance log: they live for five minutes, a burst of them
//! would bury the certificates. Each has a number of its own, and the CA's own log names it with subject and audience.

use crate::error::{CaError, IssuanceError};
use crate::federation::Foreign;
use crate::limits::{TOKEN_BURST, TOKEN_REFILL};
use crate::rate::RateLimit;
use crate::signer::{HeldKey, Signing};
use mesh_issuance::jwt::{self, IssuedJwt, JwtIssueError, JwtRequest, rota};
use mesh_platform::Platform;
use mesh_trust::jwt::{JwtBundle, JwtBundles, JwtKey};
use mesh_trust::{SpiffeId, TrustDomain};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

mod queue;
mod store;

use queue::Queue;
use store::{Held, KeyStore};

/// Why no token was handed out.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum TokenError {
    /// The request, or the key, was of no use.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Issue(#[from] JwtIssueError),
    /// More than its share.
    #[error("`{id}` asks for tokens too often")]
    #[diagnostic(
        code("MESH-0263"),
        help(
            "keep a token for half of its life; one identity gets 200 at once and 100 more each second"
        )
    )]
    RateLimited {
        /// Who.
        id: SpiffeId,
    },
    /// The CA is on another machine, and gives none.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Elsewhere(IssuanceError),
    /// Too many wait for the signer, or nobody asks it any more.
    #[error(transparent)]
    #[diagnostic(transparent)]
    NotSigned(IssuanceError),
    /// No key may sign now.
    #[error("no key for JWT-SVIDs may sign at this time")]
    #[diagnostic(
        code("MESH-0264"),
        help(
            "the clock was set back, or the CA's directory cannot be written: look at `date -u` and at the CA's log"
        )
    )]
    NoKey,
}

/// Who hands out JWT-SVIDs on this machine: the CA here, or one on another machine.
#[tonic::async_trait]
pub(crate) trait TokenSource: Send + Sync {
    /// The public keys of our own trust domain, as they change.
    fn bundle(&self) -> watch::Receiver<Arc<JwtBundle>>;

    /// A token, if the identity is within its rate.
    async fn mint(&self, request: &JwtRequest) -> Result<String, TokenError>;
}

#[tonic::async_trait]
impl TokenSource for Tokens {
    fn bundle(&self) -> watch::Receiver<Arc<JwtBundle>> {
        Self::bundle(self)
    }

    async fn mint(&self, request: &JwtRequest) -> Result<String, TokenError> {
        Ok(Self::mint(self, request).await?.token)
    }
}

/// The keys, and who may ask how often. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// One changes keys at a time, and may wait for disk and signer.
    store: Arc<Mutex<KeyStore>>,
    /// Private halves may lie about that no list names.
    unswept: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<Held>>>,
    queue: Queue,
    rate: Arc<Mutex<RateLimit>>,
    bundle: Arc<watch::Sender<Arc<JwtBundle>>>,
    domain: TrustDomain,
    issuer: Option<Arc<str>>,
    platform: Arc<dyn Platform>,
}

impl Tokens {
    /// Opens the keys in `dir`, or has the first made. `issuer` is the address that tokens name as theirs (`iss`).
    pub(crate) fn open(
        dir: &Path,
        domain: &TrustDomain,
        issuer: Option<&str>,
        signing: &Signing,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, CaError> {
        let store = KeyStore::open(dir, signing)?;
        let held = store.load()?;
        let bundle = Arc::new(watch::Sender::new(Arc::new(bundle_of(domain, &held))));
        let this = Self {
            store: Arc::new(Mutex::new(store)),
            unswept: Arc::default(),
            held: Arc::new(Mutex::new(held)),
            queue: Queue::start()?,
            rate: Arc::new(Mutex::new(RateLimit::new(TOKEN_BURST, TOKEN_REFILL))),
            bundle,
            domain: domain.clone(),
            issuer: issuer.map(Arc::from),
            platform,
        };
        if let Err(error) = this.maintain() {
            let signs = rota::signing(&turns(&this.held()), this.platform.wall_clock());
            if signs.is_none() {
                return Err(error);
            }
            tracing::warn!(%error, "the keys for JWT-SVIDs could not be changed; those in force go on");
        }
        Ok(this)
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The public keys, as they change.
    pub(crate) fn bundle(&self) -> watch::Receiver<Arc<JwtBundle>> {
        self.bundle.subscribe()
    }

    /// Does what is due: a new key, an old one that goes.
    pub(crate) fn maintain(&self) -> Result<(), CaError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.held().clone();
        let due = rota::due(&turns(&before), self.platform.wall_clock());
        if due == rota::Due::default() {
            self.sweep(&store);
            return Ok(());
        }
        let mut next = Vec::new();
        for (place, held) in before.iter().enumerate() {
            if due.remove.contains(&place) {
                tracing::info!(
                    kid = held.kid(),
                    "took a key for JWT-SVIDs out of the bundle"
                );
                continue;
            }
            next.push(if due.retire.contains(&place) {
                tracing::info!(
                    kid = held.kid(),
                    "has the private half of a key for JWT-SVIDs destroyed"
                );
                held.retired()
            } else {
                held.clone()
            });
        }
        if let Some(turn) = due.make {
            let made = store.make(turn)?;
            tracing::info!(kid = made.kid(), signs = %turn.signs, "published a key for JWT-SVIDs");
            next.push(made);
        }
        store.save(&next)?;
        let bundle = bundle_of(&self.domain, &next);
        *self.held() = next;
        self.bundle.send_replace(Arc::new(bundle));
        self.unswept.store(true, Ordering::Relaxed);
        self.sweep(&store);
        Ok(())
    }

    /// Destroys what the list in force no longer names. A signer that is between two lives does it at the next upkeep.
    fn sweep(&self, store: &KeyStore) {
        if !self.unswept.load(Ordering::Relaxed) {
            return;
        }
        let held = self.held().clone();
        match store.sweep(&held) {
            Ok(()) => self.unswept.store(false, Ordering::Relaxed),
            Err(error) => tracing::warn!(
                %error,
                "a private half of a key for JWT-SVIDs is not destroyed yet"
            ),
        }
    }

    /// Hands out a token, if the identity is within its rate.
    pub(crate) async fn mint(&self, request: &JwtRequest) -> Result<IssuedJwt, TokenError> {
        let tick = self.platform.monotonic();
        let within = self
            .rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&request.id, tick);
        if !within {
            return Err(TokenError::RateLimited {
                id: request.id.clone(),
            });
        }
        let now = self.platform.wall_clock();
        let (kid, key) = self.signer(now).ok_or(TokenError::NoKey)?;
        let mut random = [0; 16];
        self.platform.fill_random(&mut random);
        let unsigned = jwt::prepare(
            request,
            &self.domain,
            self.issuer.as_deref(),
            &kid,
            random,
            now,
        )?;
        let issued = self.queue.sign(key, unsigned).await?;
        tracing::info!(identity = %request.id, audience = ?request.audience, jti = issued.token_id, kid, expires = %issued.expires, "issued a JWT-SVID");
        Ok(issued)
    }

    /// The key that signs now. The lock is not held while it does.
    fn signer(&self, now: mesh_trust::Timestamp) -> Option<(String, Arc<HeldKey>)> {
        let all = self.held();
        let held = all.get(rota::signing(&turns(&all), now)?)?;
        Some((held.kid().to_owned(), held.signer()?))
    }
}

fn turns(held: &[Held]) -> Vec<rota::Turn> {
    held.iter().map(Held::turn).collect()
}

fn bundle_of(domain: &TrustDomain, held: &[Held]) -> JwtBundle {
    held.iter()
        .fold(JwtBundle::new(domain.clone()), |bundle, held| {
            match JwtKey::from_p256_point(held.public().point()) {
                Ok(key) => bundle.with_key(held.kid(), key),
                // INVARIANT: all keys are of P-256: `KeyStore` makes and reads no others.
                Err(_) => bundle,
            }
        })
}

/// The bundles of all domains as one value: ours, and those of `foreign` that are not ours.
pub(crate) fn bundles_with(own: &JwtBundle, foreign: &Foreign) -> JwtBundles {
    let others = foreign.jwt.iter();
    let others = others.filter(|other| other.domain() != own.domain());
    others.chain([own]).cloned().collect()
}

#[cfg(test)]
mod tests;
