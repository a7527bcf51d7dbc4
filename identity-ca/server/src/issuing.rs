//! The one place where certificates are signed, and the order in which it happens.
//!
//! Authorise, reserve a serial, build what will be signed, lint it, append the intent and flush, sign, compare with what
//! was linted, append the end, release. [`Issuing`] does this for whatever waits at the same moment, so that one flush
//! serves many; the cost of a certificate is then the cost of its signature.

mod queue;
mod workloads;

pub(crate) use queue::{Issuing, Turn};

use crate::adoption::Adoption;
use crate::audit::LogCopy;
use crate::error::{CaError, IssuanceError};
use crate::probes::{Health, Probes};
use crate::record::Recorder;
use crate::signer::{HeldKey, Signing};
use crate::store::{HeldAuthority, Store};
use crate::trust::custody::Custody;
use crate::trust::{Requester, Trust, desk, file};
use data_encoding::HEXLOWER;
use mesh_issuance::adoption::preflight::Adoptable;
use mesh_issuance::issue::{self, Issued, Linted, Request};
use mesh_issuance::rotation::roster::HeldLeaf;
use mesh_issuance::rotation::{AuthorityId, Holder, Phase, TrustState};
use mesh_issuance::{Authority, Profile, Serial, Signer};
use mesh_platform::Platform;
use mesh_trust::{Denials, Denied, Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
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
        let signing = crate::testing::signing(dir)?;
        Self::open_with(dir, domain, profile, platform, (&signing, None, None))
    }

    /// Opens the CA in `dir`; if there is nothing yet, begins with `first`, or makes root and issuer. What it records goes
    /// to `copy` too.
    pub(crate) fn open_with(
        dir: &Path,
        domain: &TrustDomain,
        profile: Profile,
        platform: Arc<dyn Platform>,
        (signing, first, copy): (&Signing, Option<&Adoptable>, Option<LogCopy>),
    ) -> Result<Self, CaError> {
        let store = Store::new(dir);
        store.recover(signing)?;
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
            Some((state, _)) => Custody::load(dir, domain, (state, recorder.ledger()), signing)?,
            None if new && let Some(first) = first => {
                recorder.start(domain, now)?;
                let mut custody = Custody::empty(dir, signing);
                let id = custody.keep_copy(domain, first)?;
                tracing::info!(%domain, root = %id, "began a trust domain whose root others keep");
                custody
            }
            None if new => {
                recorder.start(domain, now)?;
                first_start((&store, signing), domain, &mut recorder, &*platform)?;
                Custody::of_first(dir, domain, signing)?
            }
            None => Custody::of_first(dir, domain, signing)?,
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

    /// Serial numbers of what was issued to the machine `node` and has not ended.
    pub(crate) fn serials_on(&self, node: &str) -> Vec<String> {
        let leaves = self.recorder.ledger().leaves_in_force();
        leaves
            .filter(|leaf| leaf.node.as_deref() == Some(node))
            .map(|leaf| leaf.serial)
            .collect()
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
        let signing = self.custody.signing().clone();
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
        let key = signing.make()?;
        let linted = issue::prepare_issuer(
            key.public_key().clone(),
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
            .replace_issuer((&key, &authority), &signing)
            .map_err(not_stored)?;
        // From where it stays: a signer that is started again finds it there.
        let key = pair.store.open_issuer(&signing).map_err(not_stored)?;
        tracing::info!(issuer = authority.subject_text(), not_after = %authority.validity().not_after, "renewed the issuer");
        let old = std::mem::replace(&mut pair.issuer, HeldAuthority { authority, key });
        if let Err(error) = signing.retire(&old.key) {
            tracing::warn!(%error, issuer = old.authority.subject_text(), "the key of the issuer before could not be destroyed in its token");
        }
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
            prepared.push(leaf.and_then(|leaf| self.intend(leaf, &requester, now)));
        }
        if let Err(error) = self.recorder.flush() {
            // Nothing is signed after a failed flush, so nobody will show these leaves; that the roster still has them
            // only makes a rotation wait.
            return prepared
                .into_iter()
                .map(|outcome| outcome.and(Err(error.clone())))
                .collect();
        }
        self.sign_all(prepared, now)
    }

    /// Signs what is recorded, with one question to the signer for each authority that is needed.
    fn sign_all(
        &mut self,
        prepared: Vec<Result<Prepared, IssuanceError>>,
        now: Timestamp,
    ) -> Vec<Result<Chain, IssuanceError>> {
        let mut outcomes: Vec<Option<Result<Chain, IssuanceError>>> = Vec::new();
        let mut by_authority: BTreeMap<AuthorityId, Vec<(usize, Prepared)>> = BTreeMap::new();
        for (place, leaf) in prepared.into_iter().enumerate() {
            match leaf {
                Ok(leaf) => {
                    outcomes.push(None);
                    let of = by_authority.entry(leaf.authority.clone());
                    of.or_default().push((place, leaf));
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        for (authority, leaves) in by_authority {
            let (places, leaves): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
            for (place, outcome) in places.into_iter().zip(self.sign(&authority, leaves, now)) {
                if let Some(at) = outcomes.get_mut(place) {
                    *at = Some(outcome);
                }
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Err(IssuanceError::Stopped)))
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
        requester: &Requester,
        now: Timestamp,
    ) -> Result<Prepared, IssuanceError> {
        let Some(holder) = &leaf.holder else {
            self.recorder
                .intend(&leaf.linted, &requester.evidence, now)?;
            return Ok(leaf);
        };
        let held = (holder, &leaf.authority);
        self.recorder
            .intend_for(&leaf.linted, requester, held, now)?;
        let held = HeldLeaf {
            serial: leaf.linted.serial().to_hex(),
            authority: leaf.authority.clone(),
            not_after: leaf.linted.validity().not_after,
        };
        self.trust.roster.issued(holder, held);
        Ok(leaf)
    }

    fn sign(
        &mut self,
        authority: &AuthorityId,
        leaves: Vec<Prepared>,
        now: Timestamp,
    ) -> Vec<Result<Chain, IssuanceError>> {
        let (linted, holders): (Vec<_>, Vec<_>) = leaves
            .into_iter()
            .map(|leaf| {
                let serial = leaf.linted.serial().to_hex();
                (leaf.linted, (leaf.holder, serial))
            })
            .unzip();
        let signed = self.sign_under(authority, linted, now);
        for (outcome, (holder, serial)) in signed.iter().zip(holders) {
            if let (Err(_), Some(holder)) = (outcome, holder) {
                self.trust.roster.failed(&holder, &serial);
            }
        }
        signed
    }

    fn sign_under(
        &mut self,
        authority: &AuthorityId,
        linted: Vec<Linted>,
        now: Timestamp,
    ) -> Vec<Result<Chain, IssuanceError>> {
        let Some(pair) = self.custody.get(authority) else {
            return linted.iter().map(|_| Err(IssuanceError::Stopped)).collect();
        };
        let chain = |leaf| Chain {
            leaf,
            issuer: pair.issuer.authority.certificate().clone(),
            above: pair.above.clone(),
            authority: authority.clone(),
        };
        sign(&mut self.recorder, linted, &pair.issuer.key, now)
            .into_iter()
            .map(|leaf| leaf.map(chain))
            .collect()
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
        let mut signed = self.sign_under(authority, vec![linted], now);
        signed.pop().unwrap_or(Err(IssuanceError::Stopped))
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
    (store, signing): (&Store, &Signing),
    domain: &TrustDomain,
    recorder: &mut Recorder,
    platform: &dyn Platform,
) -> Result<(), CaError> {
    let (root, issuer) = make_authority(recorder, (platform, signing), domain, "first start")?;
    store.create(domain, (&root.0, &root.1), (&issuer.0, &issuer.1))?;
    tracing::info!(%domain, dir = %store.dir().display(), "made the root and the issuer of a new trust domain");
    Ok(())
}

/// A key and its certificate.
pub(crate) type Fresh = (HeldKey, Authority);

/// Makes a root and an issuer below it. They are in the log, and nowhere else yet.
pub(crate) fn make_authority(
    recorder: &mut Recorder,
    (platform, signing): (&dyn Platform, &Signing),
    domain: &TrustDomain,
    evidence: &str,
) -> Result<(Fresh, Fresh), IssuanceError> {
    let now = platform.wall_clock();
    let root_key = signing.make()?;
    let linted = issue::prepare_root(
        root_key.public_key().clone(),
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
    let issuer_key = signing.make()?;
    let linted = issue::prepare_issuer(
        issuer_key.public_key().clone(),
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
    Ok(((root_key, root), (issuer_key, issuer)))
}

fn record_and_sign(
    recorder: &mut Recorder,
    linted: Linted,
    key: &HeldKey,
    evidence: &str,
    now: Timestamp,
) -> Result<Issued, IssuanceError> {
    recorder.intend(&linted, evidence, now)?;
    recorder.flush()?;
    let mut signed = sign(recorder, vec![linted], key, now);
    signed.pop().unwrap_or(Err(IssuanceError::Stopped))
}

/// Signs what is on disk as intended, and records that, before anybody gets it.
fn sign(
    recorder: &mut Recorder,
    linted: Vec<Linted>,
    key: &HeldKey,
    now: Timestamp,
) -> Vec<Result<Issued, IssuanceError>> {
    let serials: Vec<_> = linted.iter().map(|leaf| leaf.serial().to_hex()).collect();
    issue::sign_all(linted, key)
        .into_iter()
        .zip(serials)
        .map(|(signed, serial)| match signed {
            Ok(issued) => recorder.signed(&issued, now).map(|()| issued),
            Err(error) => {
                recorder.failed(serial, error.to_string(), now);
                Err(error.into())
            }
        })
        .collect()
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
