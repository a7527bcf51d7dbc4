//! Trust at the desk: steps of a rotation, updates for verifiers, acknowledgments.

use super::custody::{Custody, Made};
use super::error::TrustError;
use super::{Canary, Published, Trust, file, may_run};
use crate::agent::Anchors;
use crate::error::{CaError, IssuanceError};
use crate::federation::Foreign;
use crate::issuing::{Desk, make_authority};
use crate::signer;
use mesh_api::proto::TrustUpdate;
use mesh_api::trust::{BlockerStatus, RootStatus, TrustStatus, VerifierCounts};
use mesh_issuance::attestation::kubernetes::BoundPod;
use mesh_issuance::issue::Request;
use mesh_issuance::limits::{CANARY_LIFETIME_SECS, DRAIN_SECS};
use mesh_issuance::rotation::roster::{Acknowledgment, Challenge, HeldLeaf, Presence};
use mesh_issuance::rotation::{
    AuthorityId, Blocker, Event, Facts, Holder, Phase, Roster, Transition, TrustState,
};
use mesh_trust::{SpiffeId, Timestamp, TrustBundle, TrustBundles, TrustDomain};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Path of the identity of canaries. Nobody has their keys, and no policy should name them.
const CANARY_PATH: &str = "mesh/canary";

/// Shortest part of a fingerprint that names a root.
const FINGERPRINT_DIGITS_MIN: usize = 8;

impl Trust {
    /// Trust in `state`; verifiers are those that hold `leaves`.
    pub(crate) fn new(
        state: TrustState,
        roster: Roster,
        domain: &TrustDomain,
        custody: &Custody,
    ) -> Result<Self, CaError> {
        // Nobody else is trusted until the desk is told of relations.
        let (_, foreign) = watch::channel(Arc::<Foreign>::default());
        let bundles = bundles_of(&state, domain, custody, &foreign.borrow())?;
        let anchors = watch::Sender::new(Arc::new(anchors_of(&bundles)));
        let published = watch::Sender::new(Arc::new(Published {
            state: state.clone(),
            bundles,
            foreign: 0,
        }));
        Ok(Self {
            state,
            roster,
            canary: None,
            published,
            anchors,
            foreign,
            federation_secs: None,
            drain_secs: DRAIN_SECS,
        })
    }

    /// Follows every step.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Bundles for the Workload API.
    pub(crate) fn anchors(&self) -> watch::Receiver<Arc<Anchors>> {
        self.anchors.subscribe()
    }

    fn facts(&self, now: Timestamp) -> Facts<'_> {
        Facts {
            drain_secs: self.drain_secs,
            federation_secs: self.federation_secs,
            ..Facts::new(&self.roster, now)
        }
    }
}

/// Who holds a leaf by the log, for a CA that starts: nobody is connected yet.
pub(crate) fn roster_of(ledger: &mesh_issuance::log::Ledger) -> Roster {
    let mut roster = Roster::default();
    let mut leaves: Vec<_> = ledger.leaves_in_force().collect();
    leaves.sort_unstable_by_key(|leaf| leaf.line);
    for leaf in leaves {
        let (Some(instance), Some(authority)) = (&leaf.holder, &leaf.authority) else {
            continue;
        };
        let holder = Holder {
            id: leaf.spiffe_id.clone(),
            instance: instance.clone(),
        };
        let held = HeldLeaf {
            serial: leaf.serial.clone(),
            authority: authority.clone(),
            not_after: leaf.not_after,
        };
        roster.issued(&holder, held);
    }
    roster.all_away();
    roster
}

/// Anchors as the Workload API hands them out.
fn anchors_of(bundles: &TrustBundles) -> Anchors {
    bundles
        .iter()
        .map(|bundle| (bundle.domain().clone(), bundle.anchors().to_vec()))
        .collect()
}

fn bundles_of(
    state: &TrustState,
    domain: &TrustDomain,
    custody: &Custody,
    foreign: &Foreign,
) -> Result<TrustBundles, CaError> {
    let roots = state.anchors.iter().filter_map(|id| custody.get(id));
    let roots = roots.map(|pair| pair.root.certificate().clone()).collect();
    let bundle =
        TrustBundle::new(domain.clone(), roots).map_err(|source| CaError::Bundle { source })?;
    let mut bundles = TrustBundles::from(bundle.with_sequence(state.generation));
    let others = foreign.x509.iter().filter(|other| other.domain() != domain);
    others.for_each(|other| bundles.insert(other.clone()));
    Ok(bundles)
}

impl Desk {
    /// Takes a step, if the event makes one: recorded, on disk, followed.
    pub(crate) fn trust_event(&mut self, event: &Event) -> Result<bool, TrustError> {
        let now = self.now();
        self.refresh_roster(now);
        match self.trust.state.step(event, &self.trust.facts(now))? {
            None => Ok(false),
            Some(transition) => {
                self.commit(transition)?;
                self.follow_state()?;
                self.tell_probes();
                Ok(true)
            }
        }
    }

    /// Makes a new authority and rotates to it.
    pub(crate) fn rotate(&mut self) -> Result<(), TrustError> {
        // Before keys are made for nothing.
        let probe = Event::Rotate {
            new: AuthorityId::of_certificate(b"probe"),
        };
        self.trust
            .state
            .step(&probe, &self.trust.facts(self.now()))?;
        let new = self.new_authority("a rotation")?;
        self.trust_event(&Event::Rotate { new }).map(drop)
    }

    /// What would break if `root` were distrusted now, and, if that is confirmed, distrusts it.
    pub(crate) fn distrust(
        &mut self,
        root: &str,
        confirmed: bool,
    ) -> Result<Vec<Blocker>, TrustError> {
        let drop = self.root_named(root)?;
        let now = self.now();
        self.refresh_roster(now);
        let other = self
            .trust
            .state
            .anchors
            .iter()
            .find(|id| **id != drop)
            .cloned();
        let keep = match other {
            Some(other) => other,
            None if confirmed => self.new_authority("a distrusted root")?,
            None => AuthorityId::of_certificate(b"not made yet"),
        };
        let radius = self
            .trust
            .state
            .blast_radius(&drop, &keep, &self.trust.facts(now));
        if confirmed {
            self.trust_event(&Event::Distrust { drop, keep })?;
        }
        Ok(radius)
    }

    fn root_named(&self, text: &str) -> Result<AuthorityId, TrustError> {
        if text.is_empty() {
            return Ok(self.signing_authority().clone());
        }
        let anchors = &self.trust.state.anchors;
        let long_enough = text.len() >= FINGERPRINT_DIGITS_MIN;
        let mut found = anchors
            .iter()
            .filter(|id| long_enough && id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (first, _) => Err(TrustError::Root {
                text: text.to_owned(),
                found: usize::from(first.is_some()) * 2,
            }),
        }
    }

    /// An authority that nobody trusts yet: the one that was put where others keep ours, or one that is made here.
    fn new_authority(&mut self, why: &str) -> Result<AuthorityId, TrustError> {
        match &self.adoption {
            None => self.make(why),
            Some(adoption) => {
                let next = adoption.next().ok_or_else(|| TrustError::KeptElsewhere {
                    place: adoption.place().to_owned(),
                })?;
                Ok(self.custody.keep_copy(&self.domain().clone(), &next)?)
            }
        }
    }

    /// Makes an authority that nobody trusts yet.
    fn make(&mut self, why: &str) -> Result<AuthorityId, TrustError> {
        let domain = self.domain().clone();
        let signing = self.custody.signing().clone();
        let (root, issuer) = make_authority(
            &mut self.recorder,
            (&*self.platform, &signing),
            &domain,
            why,
        )?;
        let made = Made {
            root: (&root.0, &root.1),
            issuer: (&issuer.0, &issuer.1),
        };
        Ok(self.custody.keep(&domain, &made)?)
    }

    /// Follows what is held of other domains, from now on. They may take `federation_secs` to fetch our own bundle.
    pub(crate) fn federate(
        &mut self,
        foreign: watch::Receiver<Arc<Foreign>>,
        federation_secs: Option<u64>,
    ) -> Result<(), CaError> {
        self.trust.foreign = foreign;
        self.trust.federation_secs = federation_secs;
        self.follow_state()
    }

    /// Records a step, writes it to disk, takes it over. Nobody has learned of it yet.
    pub(crate) fn commit(&mut self, transition: Transition) -> Result<(), CaError> {
        let Transition { state, evidence } = transition;
        let (bytes, sha256) = file::encode(&state);
        tracing::info!(
            generation = state.generation,
            phase = state.phase.name(),
            evidence,
            "trust"
        );
        self.recorder
            .trust_changed(state.generation, sha256, evidence, self.now())?;
        if let Err(error) = file::write(self.dir(), &bytes) {
            // The log is a step ahead of the disk: only a start can tell which of the two holds.
            self.recorder.doubt();
            return Err(error);
        }
        self.trust.state = state;
        Ok(())
    }

    /// Does what the state says: destroys what is retired, tells everybody. Doing it twice does no harm.
    pub(crate) fn follow_state(&mut self) -> Result<(), CaError> {
        let domain = self.domain().clone();
        let retired: Vec<_> = self.trust.state.retired.iter().cloned().collect();
        let foreign = self.trust.foreign.borrow().clone();
        let bundles = bundles_of(&self.trust.state, &domain, &self.custody, &foreign)?;
        let state = self.trust.state.clone();
        let anchors = anchors_of(&bundles);
        self.trust.anchors.send_if_modified(|held| {
            let changes = **held != anchors;
            *held = Arc::new(anchors);
            changes
        });
        self.trust.published.send_replace(Arc::new(Published {
            state,
            bundles,
            foreign: foreign.revision,
        }));
        for id in retired {
            self.custody.destroy(&id, &domain)?;
            let transition = self.trust.state.destroyed(&id);
            self.commit(transition)?;
        }
        Ok(())
    }

    /// The state as the log is to know it, when the CA starts: its first one, or one whose next step was interrupted.
    pub(crate) fn confirm_state(&mut self, evidence: &str) -> Result<(), CaError> {
        let state = self.trust.state.clone();
        self.commit(Transition {
            state,
            evidence: evidence.to_owned(),
        })
    }

    /// Forgets leaves that ended and processes that did.
    fn refresh_roster(&mut self, now: Timestamp) {
        self.trust.roster.forget_expired(now);
        if matches!(self.trust.state.phase, Phase::Steady { .. }) {
            return;
        }
        let gone: Vec<_> = self
            .trust
            .roster
            .verifiers()
            .filter(|(holder, _)| !may_run(&holder.instance))
            .map(|(holder, _)| holder.clone())
            .collect();
        gone.iter()
            .for_each(|holder| self.trust.roster.ended(holder));
    }

    /// What a verifier is sent on its stream, with a challenge that only its answer can have.
    pub(crate) fn trust_update(
        &mut self,
        holder: &Holder,
        stream: u64,
    ) -> Result<TrustUpdate, TrustError> {
        let canary = self.canary()?;
        let mut challenge: Challenge = [0; 32];
        self.platform.fill_random(&mut challenge);
        let published = self.trust.published.borrow().clone();
        let generation = published.state.generation;
        self.trust
            .roster
            .challenged(holder, stream, generation, challenge);
        Ok(TrustUpdate {
            generation,
            bundles_json: published.bundles.to_json().into_bytes(),
            challenge: challenge.to_vec(),
            canary,
            renew: self.is_misplaced(holder),
        })
    }

    /// Whether the newest leaf of `holder` is under another root than it is to be.
    fn is_misplaced(&self, holder: &Holder) -> bool {
        let wanted = self.trust.state.authority_for(holder);
        let newest = self.trust.roster.leaves_of(holder).last();
        newest.is_some_and(|leaf| leaf.authority != *wanted)
    }

    /// Pods that verify peers, are not connected and may have ended, for whoever can find out.
    pub(crate) fn pods_away(&self) -> Vec<(Holder, BoundPod)> {
        let away = self
            .trust
            .roster
            .verifiers()
            .filter(|(_, verifier)| verifier.presence != Presence::Connected);
        away.filter_map(|(holder, _)| Some((holder.clone(), BoundPod::parse(&holder.instance)?)))
            .collect()
    }

    /// A canary of the authority that all leaves will be under; made anew when half of its life is over.
    fn canary(&mut self) -> Result<Vec<Vec<u8>>, TrustError> {
        let now = self.now();
        let authority = self.trust.state.canary().clone();
        let fresh = self
            .trust
            .canary
            .as_ref()
            .is_some_and(|canary| canary.authority == authority && now < canary.renew_at);
        if !fresh {
            let text = format!("{}/{CANARY_PATH}", self.domain().id());
            // INVARIANT: a trust domain with a fixed path is a SPIFFE ID.
            let id = SpiffeId::parse(&text).map_err(|_| IssuanceError::KeyGeneration)?;
            let (_, key) = signer::generate()?;
            let request = Request {
                id,
                key,
                lifetime_secs: Some(CANARY_LIFETIME_SECS),
                backdate_secs_max: None,
            };
            let chain = self.issue_under(&authority, request, "a canary; its key was not kept")?;
            let life = now.secs_until(chain.leaf.validity().not_after);
            let renew_at = now.plus_secs(i64::try_from(life / 2).unwrap_or(0));
            let chain = chain.whole();
            self.trust.canary = Some(Canary {
                authority,
                chain,
                renew_at,
            });
        }
        let chain = self.trust.canary.iter().flat_map(|canary| &canary.chain);
        Ok(chain.map(|der| der.to_vec()).collect())
    }

    /// Takes an acknowledgment whose signature was checked; the holder was attested.
    pub(crate) fn acknowledge(
        &mut self,
        holder: &Holder,
        ack: &Acknowledgment,
    ) -> Result<(), TrustError> {
        self.trust.roster.acknowledge(holder, ack)?;
        if let Err(why) = &ack.canary {
            tracing::warn!(id = %holder.id, instance = holder.instance, generation = ack.generation, why, "a verifier refuses the canary");
        }
        Ok(())
    }

    /// How it stands, for people and programs.
    pub(crate) fn trust_status(&mut self) -> TrustStatus {
        let now = self.now();
        self.refresh_roster(now);
        let trust = &self.trust;
        let bundle = trust.published.borrow().bundles.get(self.domain()).cloned();
        let signing: BTreeSet<_> = self.signing_authorities().into_iter().collect();
        let roots = trust
            .state
            .anchors
            .iter()
            .filter_map(|id| Some((id, self.custody.get(id)?)));
        let roots = roots.map(|(id, pair)| {
            let root = &pair.root;
            RootStatus {
                sha256: id.as_str().to_owned(),
                subject: root.subject_text().to_owned(),
                not_before: root.validity().not_before,
                not_after: root.validity().not_after,
                signs: signing.contains(id),
                leaves: trust
                    .roster
                    .leaves()
                    .filter(|(_, leaf)| leaf.authority == *id)
                    .count() as u64,
            }
        });
        let verifiers = || trust.roster.verifiers().map(|(_, verifier)| verifier);
        let [all, connected, acknowledged] = self.verifier_counts();
        TrustStatus {
            trust_domain: self.domain().clone(),
            generation: trust.state.generation,
            phase: trust.state.phase.name().to_owned(),
            since: trust.state.since,
            halted: trust.state.halted.clone(),
            roots: roots.collect(),
            verifiers: VerifierCounts {
                all,
                connected,
                acknowledged,
            },
            blockers: trust
                .state
                .blockers(&trust.facts(now))
                .iter()
                .map(blocker_status)
                .collect(),
            waived: trust.state.waived.iter().cloned().collect(),
            skew_secs_max: verifiers()
                .filter_map(|v| v.skew_secs)
                .max_by_key(|skew| skew.abs()),
            blast_radius: None,
            kept: self.adoption_status(),
            federation: None,
            bundle_json: bundle
                .as_ref()
                .map(TrustBundle::to_json)
                .unwrap_or_default(),
            bundle_pem: bundle.as_ref().map(TrustBundle::to_pem).unwrap_or_default(),
        }
    }

    /// Verifiers: all, with a trust stream, that acknowledged the bundle in force.
    pub(crate) fn verifier_counts(&self) -> [u64; 3] {
        let generation = Some(self.trust.state.generation);
        let mut counts = [0; 3];
        // Whoever is outside is never heard of: counted, it would look like a proxy that does not follow.
        for (_, verifier) in self.trust.roster.heard() {
            let is = [
                true,
                verifier.presence == Presence::Connected,
                verifier.acknowledged >= generation,
            ];
            for (count, is) in counts.iter_mut().zip(is) {
                *count += u64::from(is);
            }
        }
        counts
    }

    /// Authorities that new leaves come from, now.
    fn signing_authorities(&self) -> Vec<AuthorityId> {
        match &self.trust.state.phase {
            Phase::CuttingOver { old, new, .. } => vec![old.clone(), new.clone()],
            _ => vec![self.signing_authority().clone()],
        }
    }

    /// The authority that most leaves come from, now.
    pub(crate) fn signing_authority(&self) -> &AuthorityId {
        match &self.trust.state.phase {
            Phase::Proving { old, .. } | Phase::CuttingOver { old, .. } => old,
            _ => self.trust.state.canary(),
        }
    }
}

/// A blocker on the wire.
pub(crate) fn blocker_status(blocker: &Blocker) -> BlockerStatus {
    BlockerStatus {
        name: blocker.name.clone(),
        instance: blocker.instance.clone(),
        kind: blocker.reason.kind().to_owned(),
        reason: blocker.reason.to_string(),
    }
}
