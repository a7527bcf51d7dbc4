//! The one place where certificates are signed, and the order in which it happens.
//!
//! Authorise, reserve a serial, build what will be signed, lint it, append the intent and flush, sign, compare with what
//! was linted, append the end, release. [`Issuing`] does this for whatever waits at the same moment, so that one flush
//! serves many; the cost of a certificate is then the cost of its signature.

use crate::error::{CaError, IssuanceError};
use crate::limits::{ISSUANCE_BATCH_MAX, ISSUANCE_QUEUE_MAX, ISSUANCE_WAIT_MAX};
use crate::record::Recorder;
use crate::signer;
use crate::store::{HeldAuthority, Store};
use data_encoding::HEXLOWER;
use mesh_issuance::issue::{self, Issued, Linted, Request};
use mesh_issuance::{Authority, Profile, Serial};
use mesh_platform::Platform;
use mesh_trust::{Denials, Denied, Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// A leaf with its issuer: the chain that a peer is shown.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) leaf: Issued,
    pub(crate) issuer: CertificateDer<'static>,
}

/// Root, issuer, log, and the clock: all that it takes to issue.
pub(crate) struct Desk {
    store: Store,
    platform: Arc<dyn Platform>,
    recorder: Recorder,
    profile: Profile,
    root: HeldAuthority,
    issuer: HeldAuthority,
}

impl Desk {
    /// Opens the CA in `dir`, or makes root and issuer if there is nothing yet.
    pub(crate) fn open(
        dir: &Path,
        domain: &TrustDomain,
        profile: Profile,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, CaError> {
        let store = Store::new(dir);
        store.recover()?;
        let new = store.is_new()?;
        if !new {
            store.check_log_is_there()?;
        }
        let mut recorder = Recorder::open(dir)?;
        if new && recorder.ledger().leaves() > 0 {
            return Err(store.missing("root.key"));
        }
        check_log_domain(&store, &recorder, domain)?;
        let now = platform.wall_clock();
        let (root, issuer) = if new {
            recorder.start(domain, now)?;
            first_start(&store, domain, &mut recorder, &*platform)?;
            store.load(domain)?
        } else {
            let held = store.load(domain)?;
            check_root(&store, &held.0.authority, now)?;
            recorder.start(domain, now)?;
            held
        };
        let mut desk = Self {
            store,
            platform,
            recorder,
            profile,
            root,
            issuer,
        };
        if let Err(error) = desk.maintain() {
            // The issuer in force goes on, unless it is over.
            if !desk.issuer.authority.validity().holds(now) {
                return Err(error.into());
            }
            tracing::warn!(%error, "the issuer could not be renewed");
        }
        Ok(desk)
    }

    /// The trust anchor.
    pub(crate) fn root(&self) -> &Authority {
        &self.root.authority
    }

    /// The issuer in force.
    #[cfg(test)]
    pub(crate) fn issuer(&self) -> &Authority {
        &self.issuer.authority
    }

    /// Whether nothing can be issued until the CA starts again.
    pub(crate) fn in_doubt(&self) -> bool {
        self.recorder.in_doubt()
    }

    /// Renews the issuer once half of its life is over, and forgets what ended. The old issuer's leaves stay valid:
    /// they carry it in their chain, and the root anchors both.
    pub(crate) fn maintain(&mut self) -> Result<(), IssuanceError> {
        let now = self.platform.wall_clock();
        self.recorder.forget_expired(now);
        self.recorder.flush()?;
        let validity = self.issuer.authority.validity();
        if now
            < validity
                .not_before
                .plus_secs(i64::try_from(validity.secs() / 2).unwrap_or(i64::MAX))
        {
            return Ok(());
        }
        self.replace_issuer("the issuer is past half of its life", now)
    }

    /// Puts another issuer in the place of the present one if that is denied.
    pub(crate) fn replace_denied_issuer(&mut self, denials: &Denials) -> Result<(), IssuanceError> {
        let key_id = HEXLOWER.encode(self.issuer.authority.key_id());
        let key = HEXLOWER.encode(&self.issuer.authority.key().fingerprint());
        let serial = self.issuer.authority.serial().to_owned();
        let by = [
            Denied::Issuer(key_id),
            Denied::Key(key),
            Denied::Serial(serial),
        ];
        if by.iter().any(|by| denials.contains(by)) {
            self.replace_issuer("the issuer was denied", self.platform.wall_clock())?;
        }
        Ok(())
    }

    fn replace_issuer(&mut self, why: &str, now: Timestamp) -> Result<(), IssuanceError> {
        let (pkcs8, public) = signer::generate()?;
        let linted = issue::prepare_issuer(
            public,
            &Profile::issuer(),
            &self.root.authority,
            serial(&*self.platform)?,
            now,
        )?;
        let issued = record_and_sign(&mut self.recorder, linted, &self.root.key, why, now)?;
        let authority = authority(&issued, self.root.authority.domain())?;
        let not_stored = |why: CaError| IssuanceError::NotStored {
            why: why.to_string(),
        };
        self.store
            .replace_issuer(&pkcs8, &authority)
            .map_err(not_stored)?;
        let key = signer::KeyInMemory::read(&pkcs8).ok_or(IssuanceError::KeyGeneration)?;
        tracing::info!(issuer = authority.subject_text(), not_after = %authority.validity().not_after, "renewed the issuer");
        self.issuer = HeldAuthority { authority, key };
        Ok(())
    }

    /// Issues what is asked for, with one flush for all. Each request has its own outcome.
    pub(crate) fn issue(
        &mut self,
        requests: Vec<(Request, String)>,
    ) -> Vec<Result<Chain, IssuanceError>> {
        let now = self.platform.wall_clock();
        let mut prepared: Vec<Result<Linted, IssuanceError>> = Vec::with_capacity(requests.len());
        for (request, evidence) in requests {
            let linted = self.prepare(request, now);
            prepared.push(linted.and_then(|linted| {
                self.recorder
                    .intend(&linted, &evidence, now)
                    .map(|()| linted)
            }));
        }
        if let Err(error) = self.recorder.flush() {
            return prepared
                .into_iter()
                .map(|outcome| outcome.and(Err(error.clone())))
                .collect();
        }
        prepared
            .into_iter()
            .map(|linted| self.sign(linted?, now))
            .collect()
    }

    fn prepare(&self, request: Request, now: Timestamp) -> Result<Linted, IssuanceError> {
        let serial = serial(&*self.platform)?;
        Ok(issue::prepare(
            request,
            &self.profile,
            &self.issuer.authority,
            serial,
            now,
        )?)
    }

    fn sign(&mut self, linted: Linted, now: Timestamp) -> Result<Chain, IssuanceError> {
        let leaf = sign(&mut self.recorder, linted, &self.issuer.key, now)?;
        Ok(Chain {
            leaf,
            issuer: self.issuer.authority.certificate().clone(),
        })
    }

    #[cfg(test)]
    pub(crate) fn recorder_mut(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    #[cfg(test)]
    pub(crate) fn map_recorder(self, map: impl FnOnce(Recorder) -> Recorder) -> Self {
        Self {
            recorder: map(self.recorder),
            ..self
        }
    }
}

/// Makes root and issuer; their issuance is in the log like any other.
fn first_start(
    store: &Store,
    domain: &TrustDomain,
    recorder: &mut Recorder,
    platform: &dyn Platform,
) -> Result<(), CaError> {
    let now = platform.wall_clock();
    let (root_pkcs8, root_public) = signer::generate()?;
    let root_key = signer::KeyInMemory::read(&root_pkcs8).ok_or(IssuanceError::KeyGeneration)?;
    let linted = issue::prepare_root(
        root_public,
        &Profile::root(),
        domain,
        serial(platform)?,
        now,
    )
    .map_err(IssuanceError::from)?;
    let root = authority(
        &record_and_sign(recorder, linted, &root_key, "first start", now)?,
        domain,
    )?;
    let (issuer_pkcs8, issuer_public) = signer::generate()?;
    let linted = issue::prepare_issuer(
        issuer_public,
        &Profile::issuer(),
        &root,
        serial(platform)?,
        now,
    )
    .map_err(IssuanceError::from)?;
    let issuer = authority(
        &record_and_sign(recorder, linted, &root_key, "first start", now)?,
        domain,
    )?;
    recorder.flush()?;
    store.create(domain, (&root_pkcs8, &root), (&issuer_pkcs8, &issuer))?;
    tracing::info!(%domain, dir = %store.dir().display(), "made the root and the issuer of a new trust domain");
    Ok(())
}

fn record_and_sign(
    recorder: &mut Recorder,
    linted: Linted,
    key: &signer::KeyInMemory,
    evidence: &str,
    now: Timestamp,
) -> Result<Issued, IssuanceError> {
    recorder.intend(&linted, evidence, now)?;
    recorder.flush()?;
    sign(recorder, linted, key, now)
}

/// Signs what is on disk as intended, and records that, before anybody gets it.
fn sign(
    recorder: &mut Recorder,
    linted: Linted,
    key: &signer::KeyInMemory,
    now: Timestamp,
) -> Result<Issued, IssuanceError> {
    let serial = linted.serial().to_hex();
    match issue::sign(linted, key) {
        Ok(issued) => recorder.signed(&issued, now).map(|()| issued),
        Err(error) => {
            recorder.failed(serial, error.to_string(), now);
            Err(error.into())
        }
    }
}

fn authority(issued: &Issued, domain: &TrustDomain) -> Result<Authority, IssuanceError> {
    Authority::parse(issued.certificate(), domain).map_err(|error| {
        IssuanceError::Issue(issue::IssueError::Encode {
            why: error.to_string(),
        })
    })
}

/// Draws a serial. Zero, which is none, comes up once in 2^128 draws.
fn serial(platform: &dyn Platform) -> Result<Serial, IssuanceError> {
    let mut random = [0; 16];
    platform.fill_random(&mut random);
    Serial::new(random, None).ok_or(IssuanceError::KeyGeneration)
}

fn check_log_domain(
    store: &Store,
    recorder: &Recorder,
    wanted: &TrustDomain,
) -> Result<(), CaError> {
    match recorder.ledger().trust_domain() {
        Some(found) if found != wanted => Err(CaError::OtherDomain {
            dir: store.dir().to_owned(),
            found: found.clone(),
            wanted: wanted.clone(),
        }),
        _ => Ok(()),
    }
}

fn check_root(store: &Store, root: &Authority, now: Timestamp) -> Result<(), CaError> {
    let validity = root.validity();
    if validity.holds(now) {
        return Ok(());
    }
    let (not_before, not_after) = (validity.not_before, validity.not_after);
    Err(CaError::RootNotInForce {
        not_before,
        not_after,
        now,
        dir: store.dir().to_owned(),
    })
}

/// A desk that many tasks share. What waits while the disk is busy is issued together: renewals first, because whoever
/// renews has something to lose, then in order of arrival. Nobody waits longer than [`ISSUANCE_WAIT_MAX`].
#[derive(Clone)]
pub(crate) struct Issuing {
    desk: Arc<Mutex<Desk>>,
    queue: Arc<Mutex<Queue>>,
    denials: Option<watch::Receiver<Arc<Denials>>>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Holds an SVID that is in force.
    Renewal,
    /// Has none yet.
    First,
}

#[derive(Default)]
struct Queue {
    renewals: VecDeque<Waiting>,
    firsts: VecDeque<Waiting>,
}

impl Queue {
    /// Takes a place, unless there is none. First requests leave a part of the places to renewals.
    fn push(&mut self, turn: Turn, waiting: Waiting) -> Result<(), IssuanceError> {
        let taken = self.renewals.len() + self.firsts.len();
        let (places, line) = match turn {
            Turn::Renewal => (ISSUANCE_QUEUE_MAX, &mut self.renewals),
            Turn::First => (ISSUANCE_QUEUE_MAX / 4 * 3, &mut self.firsts),
        };
        if taken >= places {
            return Err(IssuanceError::Busy);
        }
        line.push_back(waiting);
        Ok(())
    }

    /// Those who are next. Who gave up waiting is passed over: nobody would get the certificate.
    fn next(&mut self) -> Vec<Waiting> {
        let mut batch = Vec::new();
        while batch.len() < ISSUANCE_BATCH_MAX {
            let next = self.renewals.pop_front();
            let Some(waiting) = next.or_else(|| self.firsts.pop_front()) else {
                break;
            };
            if !waiting.reply.is_closed() {
                batch.push(waiting);
            }
        }
        batch
    }
}

struct Waiting {
    request: Request,
    evidence: String,
    reply: oneshot::Sender<Result<Chain, IssuanceError>>,
}

impl Issuing {
    pub(crate) fn new(desk: Desk) -> Self {
        Self {
            desk: Arc::new(Mutex::new(desk)),
            queue: Arc::default(),
            denials: None,
        }
    }

    /// The same, which issues nothing to an identity or for a key that is denied.
    pub(crate) fn with_denials(mut self, denials: watch::Receiver<Arc<Denials>>) -> Self {
        self.denials = Some(denials);
        self
    }

    fn check_denials(&self, request: &Request) -> Result<(), IssuanceError> {
        let Some(denials) = &self.denials else {
            return Ok(());
        };
        let denials = denials.borrow();
        let key = Denied::Key(HEXLOWER.encode(&request.key.fingerprint()));
        if denials.denies_identity(&request.id) || denials.contains(&key) {
            return Err(IssuanceError::Denied {
                id: request.id.clone(),
            });
        }
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues one certificate.
    ///
    /// # Errors
    /// [`IssuanceError::Busy`] at once if too many wait, and in any case after [`ISSUANCE_WAIT_MAX`].
    pub(crate) async fn issue(
        &self,
        request: Request,
        evidence: String,
        turn: Turn,
    ) -> Result<Chain, IssuanceError> {
        self.check_denials(&request)?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            request,
            evidence,
            reply,
        };
        self.queue().push(turn, waiting)?;
        let this = self.clone();
        // Whoever gets the desk first serves all that wait; the others find the queue empty.
        tokio::task::spawn_blocking(move || this.serve());
        match tokio::time::timeout(ISSUANCE_WAIT_MAX, answer).await {
            Ok(answered) => answered.unwrap_or(Err(IssuanceError::Stopped)),
            Err(_elapsed) => Err(IssuanceError::Busy),
        }
    }

    fn serve(&self) {
        // A desk whose holder panicked is in an unknown state: nobody is served any more.
        let Ok(mut desk) = self.desk.lock() else {
            return self.refuse_all();
        };
        loop {
            let batch = self.queue().next();
            if batch.is_empty() {
                return;
            }
            let (requests, replies): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| ((waiting.request, waiting.evidence), waiting.reply))
                .unzip();
            for (outcome, reply) in desk.issue(requests).into_iter().zip(replies) {
                // A caller that gave up finds nothing; the log knows what was signed.
                let _ = reply.send(outcome);
            }
        }
    }

    fn refuse_all(&self) {
        *self.queue() = Queue::default();
    }

    /// Does what is due, and says whether the CA can go on.
    pub(crate) async fn maintain(&self) -> bool {
        let desk = Arc::clone(&self.desk);
        let done = tokio::task::spawn_blocking(move || {
            let Ok(mut desk) = desk.lock() else {
                return false;
            };
            if let Err(error) = desk.maintain() {
                tracing::warn!(%error, "the CA could not do its upkeep; the issuer in force goes on");
            }
            !desk.in_doubt()
        });
        done.await.unwrap_or(false)
    }

    /// Puts another issuer in the place of the present one if `denials` name that.
    pub(crate) async fn replace_denied_issuer(&self, denials: Arc<Denials>) {
        let desk = Arc::clone(&self.desk);
        let done = tokio::task::spawn_blocking(move || {
            let mut desk = desk.lock().map_err(|_| IssuanceError::Stopped)?;
            desk.replace_denied_issuer(&denials)
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!(%error, "the issuer is denied and could not be replaced: nobody trusts what it signs");
        }
    }

    /// The root's certificate.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.desk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .root()
            .certificate()
            .clone()
    }
}

#[cfg(test)]
mod tests;
