//! The one place where certificates are signed, and the order in which it happens.
//!
//! Authorise, reserve a serial, build what will be signed, lint it, append the intent and flush, sign, compare with what
//! was linted, append the end, release. [`Issuing`] does this for whatever waits at the same moment, so that one flush
//! serves many; the cost of a certificate is then the cost of its signature.

mod queue;

pub(crate) use queue::{Issuing, Turn};

use crate::adoption::Adoption;
use crate::audit::LogCopy;
use crate::error::{CaError, IssuanceError};
use crate::probes::{Health, Probes};
use crate::record::Recorder;
use crate::signer;
use crate::store::{HeldAuthority, Store};
use crate::trust::custody::Custody;
use crate::trust::{Requester, Trust, desk, file};
use data_encoding::HEXLOWER;
use mesh_issuance::adoption::preflight::Adoptable;
use mesh_issuance::issue::{self, Issued, Linted, Request};
use mesh_issuance::rotation::roster::HeldLeaf;
use mesh_issuance::rotation::{AuthorityId, Holder, Phase, TrustState};
use mesh_issuance::{Authority, Profile, Serial};
use mesh_platform::Platform;
use mesh_trust::{Denials, Denied, Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;

/// A leaf with its issuer: the chain that a peer is shown.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) leaf: Issued,
    pub(crate) issuer: CertificateDer<'static>,
    /// Authorities between issuer and root, upwards.
    pub(crate) above: Vec<CertificateDer<'static>>,
    /// Whose root is above them.
    pub(crate) authority: AuthorityId,
}

impl Chain {
    /// Leaf first, without the root.
    pub(crate) fn whole(&self) -> Vec<CertificateDer<'static>> {
        let leaf_and_issuer = [self.leaf.certificate(), &self.issuer];
        leaf_and_issuer
            .into_iter()
            .chain(&self.above)
            .cloned()
            .collect()
    }
}

/// A leaf that may be signed: on whose behalf, and by whom.
struct Prepared {
    linted: Linted,
    /// None: nobody whom a rotation would wait for.
    holder: Option<Holder>,
    authority: AuthorityId,
}

/// Authorities, trust, log, and the clock: all that it takes to issue.
pub(crate) struct Desk {
    store: Store,
    domain: TrustDomain,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) recorder: Recorder,
    profile: Profile,
    pub(crate) custody: Custody,
    pub(crate) trust: Trust,
    /// Root and issuer that others keep; none: they are our own.
    pub(crate) adoption: Option<Adoption>,
    /// Who wants to know how the CA is.
    pub(crate) probes: Option<Probes>,
}

/// Whether there is no CA in `dir` yet.
///
/// # Errors
/// [`CaError::Incomplete`] if parts of one are there.
pub(crate) fn is_new(dir: &Path) -> Result<bool, CaError> {
    Ok(!dir.join(file::STATE_FILE).exists() && Store::new(dir).is_new()?)
}

impl Desk {
    /// Opens the CA in `dir`, or makes root and issuer if there is nothing yet.
    #[cfg(test)]
    pub(crate) fn open(
        dir: &Path,
        domain: &TrustDomain,
        profile: Profile,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, CaError> {
        Self::open_with(dir, domain, profile, platform, (None, None))
    }

    /// Opens the CA in `dir`; if there is nothing yet, begins with `first`, or makes root and issuer. What it records goes
    /// to `copy` too.
    pub(crate) fn open_with(
        dir: &Path,
        domain: &TrustDomain,
        profile: Profile,
        platform: Arc<dyn Platform>,
        (first, copy): (Option<&Adoptable>, Option<LogCopy>),
    ) -> Result<Self, CaError> {
        let store = Store::new(dir);
        store.recover()?;
        let new = is_new(dir)?;
        if !new {
            store.check_log_is_there()?;
        }
        let mut recorder = Recorder::open(dir)?;
        if new && recorder.ledger().leaves() > 0 {
            return Err(store.missing("root.key"));
        }
        check_log_domain(&store, &recorder, domain)?;
        recorder.copy_to(copy);
        let now = platform.wall_clock();
        let state = file::read(dir, recorder.ledger())?;
        let custody = match &state {
            Some((state, _)) => Custody::load(dir, domain, state, recorder.ledger())?,
            None if new && let Some(first) = first => {
                recorder.start(domain, now)?;
                let mut custody = Custody::empty(dir);
                let id = custody.keep_copy(domain, first)?;
                tracing::info!(%domain, root = %id, "began a trust domain whose root others keep");
                custody
            }
            None if new => {
                recorder.start(domain, now)?;
                first_start(&store, domain, &mut recorder, &*platform)?;
                Custody::of_first(dir, domain)?
            }
            None => Custody::of_first(dir, domain)?,
        };
        custody.check_roots(now)?;
        if !new {
            recorder.start(domain, now)?;
        }
        let confirm = match &state {
            Some((_, false)) => None,
            Some((_, true)) => Some("a step that nobody had learned of was undone by a restart"),
            None => Some("one authority"),
        };
        let state = match state {
            Some((state, _)) => state,
            None => TrustState::first(custody.only()?.clone(), now),
        };
        let mut roster = desk::roster_of(recorder.ledger());
        roster.forget_expired(now);
        let mut desk = Self {
            trust: Trust::new(state, roster, domain, &custody)?,
            store,
            domain: domain.clone(),
            platform,
            recorder,
            profile,
            custody,
            adoption: None,
            probes: None,
        };
        if let Some(evidence) = confirm {
            desk.confirm_state(evidence)?;
        }
        desk.follow_state()?;
        if let Err(error) = desk.maintain() {
            // The issuer in force goes on, unless it is over.
            let pair = desk.custody.get(desk.signing_authority());
            if !pair.is_some_and(|pair| pair.issuer.authority.validity().holds(now)) {
                return Err(error.into());
            }
            tracing::warn!(%error, "the issuer could not be renewed");
        }
        Ok(desk)
    }

    /// The trust anchor that most leaves are under.
    #[cfg(test)]
    pub(crate) fn root(&self) -> &Authority {
        &self
            .custody
            .get(self.signing_authority())
            .expect("in custody")
            .root
    }

    /// The issuer of most leaves.
    #[cfg(test)]
    pub(crate) fn issuer(&self) -> &Authority {
        &self
            .custody
            .get(self.signing_authority())
            .expect("in custody")
            .issuer
            .authority
    }

    /// Whose CA this is.
    pub(crate) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Life of a leaf that asks for none in particular, seconds.
    pub(crate) fn leaf_secs(&self) -> u64 {
        self.profile.lifetime_secs()
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        self.store.dir()
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.platform.wall_clock()
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
        self.trust.roster.forget_expired(now);
        self.recorder.flush()?;
        let renewed = self
            .custody
            .ids()
            .iter()
            .try_for_each(|id| self.renew_issuer(id, now));
        self.tell_probes();
        renewed
    }

    /// Tells whoever wants to know how the CA is.
    pub(crate) fn tell_probes(&self) {
        let Some(probes) = &self.probes else { return };
        let Some(pair) = self.custody.get(self.signing_authority()) else {
            return;
        };
        let state = &self.trust.state;
        probes.is(Health {
            issuer_until: pair.issuer.authority.validity().not_after,
            generation: state.generation,
            rotating: !matches!(state.phase, Phase::Steady { .. }),
            verifiers: self.verifier_counts(),
            leaves: self.recorder.ledger().leaves(),
            findings: self.adoption.as_ref().map_or(0, Adoption::findings),
        });
    }

    fn renew_issuer(&mut self, id: &AuthorityId, now: Timestamp) -> Result<(), IssuanceError> {
        // Issuers below a root that others keep are renewed by them.
        let Some(pair) = self.custody.get(id).filter(|pair| pair.root_key.is_some()) else {
            return Ok(());
        };
        let validity = pair.issuer.authority.validity();
        if now
            < validity
                .not_before
                .plus_secs(i64::try_from(validity.secs() / 2).unwrap_or(i64::MAX))
        {
            return Ok(());
        }
        self.replace_issuer(id, "the issuer is past half of its life", now)
    }

    /// Puts other issuers in the place of those that are denied.
    pub(crate) fn replace_denied_issuer(&mut self, denials: &Denials) -> Result<(), IssuanceError> {
        for id in self.custody.ids() {
            let Some(pair) = self.custody.get(&id) else {
                continue;
            };
            let issuer = &pair.issuer.authority;
            let by = [
                Denied::Issuer(HEXLOWER.encode(issuer.key_id())),
                Denied::Key(HEXLOWER.encode(&issuer.key().fingerprint())),
                Denied::Serial(issuer.serial().to_owned()),
            ];
            if by.iter().any(|by| denials.contains(by)) {
                self.replace_issuer(&id, "the issuer was denied", self.platform.wall_clock())?;
            }
        }
        Ok(())
    }

    fn replace_issuer(
        &mut self,
        id: &AuthorityId,
        why: &str,
        now: Timestamp,
    ) -> Result<(), IssuanceError> {
        let Some(pair) = self.custody.get_mut(id) else {
            return Ok(());
        };
        let Some(root_key) = &pair.root_key else {
            tracing::error!(
                why,
                issuer = pair.issuer.authority.subject_text(),
                "the issuer is to be replaced, and only its keeper can do that"
            );
            return Ok(());
        };
        let (pkcs8, public) = signer::generate()?;
        let linted = issue::prepare_issuer(
            public,
            &Profile::issuer(),
            &pair.root,
            serial(&*self.platform)?,
            now,
        )?;
        let issued = record_and_sign(&mut self.recorder, linted, root_key, why, now)?;
        let authority = authority(&issued, &self.domain)?;
        let not_stored = |why: CaError| IssuanceError::NotStored {
            why: why.to_string(),
        };
        pair.store
            .replace_issuer(&pkcs8, &authority)
            .map_err(not_stored)?;
        let key = signer::KeyInMemory::read(&pkcs8).ok_or(IssuanceError::KeyGeneration)?;
        tracing::info!(issuer = authority.subject_text(), not_after = %authority.validity().not_after, "renewed the issuer");
        pair.issuer = HeldAuthority { authority, key };
        Ok(())
    }

    /// Issues what is asked for, with one flush for all. Each request has its own outcome.
    pub(crate) fn issue(
        &mut self,
        requests: Vec<(Request, Requester)>,
    ) -> Vec<Result<Chain, IssuanceError>> {
        let now = self.platform.wall_clock();
        let mut prepared: Vec<Result<Prepared, IssuanceError>> = Vec::with_capacity(requests.len());
        for (request, requester) in requests {
            let leaf = self.prepare(request, &requester, now);
            prepared.push(leaf.and_then(|leaf| self.intend(leaf, &requester.evidence, now)));
        }
        if let Err(error) = self.recorder.flush() {
            // Nothing is signed after a failed flush, so nobody will show these leaves; that the roster still has them
            // only makes a rotation wait.
            return prepared
                .into_iter()
                .map(|outcome| outcome.and(Err(error.clone())))
                .collect();
        }
        prepared
            .into_iter()
            .map(|leaf| self.sign(leaf?, now))
            .collect()
    }

    fn prepare(
        &self,
        request: Request,
        requester: &Requester,
        now: Timestamp,
    ) -> Result<Prepared, IssuanceError> {
        let holder = requester.holder(&request.id);
        let authority = match &holder {
            Some(holder) => self.trust.state.authority_for(holder),
            None => self.signing_authority(),
        };
        let authority = authority.clone();
        let linted = self.prepare_under(&authority, request, now)?;
        Ok(Prepared {
            linted,
            holder,
            authority,
        })
    }

    fn prepare_under(
        &self,
        authority: &AuthorityId,
        request: Request,
        now: Timestamp,
    ) -> Result<Linted, IssuanceError> {
        let serial = serial(&*self.platform)?;
        let pair = self.custody.get(authority).ok_or(IssuanceError::Stopped)?;
        Ok(issue::prepare(
            request,
            &self.profile,
            &pair.issuer.authority,
            serial,
            now,
        )?)
    }

    /// Records a leaf, and remembers it: from now on its holder may show it.
    fn intend(
        &mut self,
        leaf: Prepared,
        evidence: &str,
        now: Timestamp,
    ) -> Result<Prepared, IssuanceError> {
        let Some(holder) = &leaf.holder else {
            self.recorder.intend(&leaf.linted, evidence, now)?;
            return Ok(leaf);
        };
        let held = (holder, &leaf.authority);
        self.recorder
            .intend_for(&leaf.linted, evidence, held, now)?;
        let held = HeldLeaf {
            serial: leaf.linted.serial().to_hex(),
            authority: leaf.authority.clone(),
            not_after: leaf.linted.validity().not_after,
        };
        self.trust.roster.issued(holder, held);
        Ok(leaf)
    }

    fn sign(&mut self, leaf: Prepared, now: Timestamp) -> Result<Chain, IssuanceError> {
        let serial = leaf.linted.serial().to_hex();
        let signed = self.sign_under(&leaf.authority, leaf.linted, now);
        if let (Err(_), Some(holder)) = (&signed, &leaf.holder) {
            self.trust.roster.failed(holder, &serial);
        }
        signed
    }

    fn sign_under(
        &mut self,
        authority: &AuthorityId,
        linted: Linted,
        now: Timestamp,
    ) -> Result<Chain, IssuanceError> {
        let pair = self.custody.get(authority).ok_or(IssuanceError::Stopped)?;
        let leaf = sign(&mut self.recorder, linted, &pair.issuer.key, now)?;
        Ok(Chain {
            leaf,
            issuer: pair.issuer.authority.certificate().clone(),
            above: pair.above.clone(),
            authority: authority.clone(),
        })
    }

    /// Issues a leaf that no verifier will hold, under the authority named.
    pub(crate) fn issue_under(
        &mut self,
        authority: &AuthorityId,
        request: Request,
        evidence: &str,
    ) -> Result<Chain, IssuanceError> {
        let now = self.now();
        let linted = self.prepare_under(authority, request, now)?;
        self.recorder.intend(&linted, evidence, now)?;
        self.recorder.flush()?;
        self.sign_under(authority, linted, now)
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
    let (root, issuer) = make_authority(recorder, platform, domain, "first start", now)?;
    store.create(domain, (&root.0, &root.1), (&issuer.0, &issuer.1))?;
    tracing::info!(%domain, dir = %store.dir().display(), "made the root and the issuer of a new trust domain");
    Ok(())
}

/// A key and its certificate.
pub(crate) type Fresh = (signer::Pkcs8, Authority);

/// Makes a root and an issuer below it. They are in the log, and nowhere else yet.
pub(crate) fn make_authority(
    recorder: &mut Recorder,
    platform: &dyn Platform,
    domain: &TrustDomain,
    evidence: &str,
    now: Timestamp,
) -> Result<(Fresh, Fresh), IssuanceError> {
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
        &record_and_sign(recorder, linted, &root_key, evidence, now)?,
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
        &record_and_sign(recorder, linted, &root_key, evidence, now)?,
        domain,
    )?;
    recorder.flush()?;
    Ok(((root_pkcs8, root), (issuer_pkcs8, issuer)))
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

/// Refuses a root that counts no longer, or not yet.
pub(crate) fn check_root(store: &Store, root: &Authority, now: Timestamp) -> Result<(), CaError> {
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

#[cfg(test)]
mod tests;
