//! Rotation of trust anchors as a state machine. No IO, no clock: facts and times are arguments.
//!
//! ```text
//!            rotate                    gate 1              both waves hold            gate 2, drained
//! Steady ───────────▶ Proving ───────────────▶ CuttingOver ────────────▶ Retiring ───────────────▶ Dropping ──▶ Steady
//!   ▲                    │ abort                    │ abort                  │ abort                    ▲  acks
//!   │                    ▼                          ▼                        ▼                          │
//!   └───── acks ──── Dropping(new)          Retiring(drop new) ◀─────────────┘             distrust ────┘ from anywhere
//! ```
//! - **Proving** (STAGE, PROVE): the bundle has both roots; nothing is signed under the new one but the canary.
//! - **Gate 1**: every live verifier has acknowledged the bundle after its real verifier accepted the canary.
//! - **CuttingOver**: a hundredth, then a tenth of the holders get leaves under the new root; refused handshakes halt it.
//! - **Retiring**: everybody gets leaves under the root that stays. **Gate 2**: nobody alive holds one under the other.
//! - **Dropping**: the bundle has one root again; once that is acknowledged, the keys of the other are destroyed.
//!
//! An abort after the cutover began is the same way back: all leaves move to the old root by evidence, then the new one is
//! dropped. Distrust skips the gates. Whoever holds a [`TrustState`] persists it before anybody learns of it, and then
//! does what it says; so a crash at any moment is followed by doing that again.

pub mod gates;
pub mod roster;

pub use gates::{Blocker, Reason};
pub use roster::{Holder, Roster};

use crate::authority::Authority;
use crate::key::sha256;
use crate::limits::{DRAIN_SECS, HANDSHAKES_REFUSED_MAX, WAIVERS_MAX};
use data_encoding::HEXLOWER;
use mesh_trust::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Parts of the holders that get a leaf under the new root before all others do.
const WAVES: [f64; 2] = [0.01, 0.10];

/// Names an authority: SHA-256 of its root's certificate, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthorityId(String);

/// Where the trust of a domain stands. What is persisted, and all that must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrustState {
    /// `spiffe_sequence` of the bundle. Never goes back.
    pub generation: u64,
    /// Roots in the bundle. INVARIANT: never empty, and `active` is one of them.
    pub anchors: Vec<AuthorityId>,
    /// Where a rotation stands.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// Verifiers that a person decided not to wait for in this rotation: SPIFFE IDs, or with `#` and the instance.
    #[serde(default)]
    pub waived: BTreeSet<String>,
    /// Why nothing moves on by itself, until somebody resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Authorities whose private keys are to be destroyed.
    #[serde(default)]
    pub retired: BTreeSet<AuthorityId>,
}

/// Step of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase", deny_unknown_fields)]
pub enum Phase {
    /// One authority, nothing under way.
    Steady {
        /// It.
        active: AuthorityId,
    },
    /// Both roots are in the bundle; leaves come from the old one.
    Proving {
        /// In force.
        old: AuthorityId,
        /// To be proven.
        new: AuthorityId,
    },
    /// Some holders get leaves under the new root.
    CuttingOver {
        /// All others' leaves.
        old: AuthorityId,
        /// Theirs.
        new: AuthorityId,
        /// From 0.
        wave: u8,
        /// Holders whose [`Holder::place`] is at most this are in the wave.
        up_to: u64,
        /// Handshakes refused before it began.
        refused_before: u64,
    },
    /// All holders get leaves under `keep`; nobody may need `drop` afterwards.
    Retiring {
        /// Stays.
        keep: AuthorityId,
        /// Goes.
        drop: AuthorityId,
        /// Whether `drop` is the newer one: the rotation was aborted.
        aborted: bool,
        /// Since when gate 2 is open without interruption.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_since: Option<Timestamp>,
    },
    /// The bundle has lost `drop`; all verifiers are to say so.
    Dropping {
        /// Stays.
        keep: AuthorityId,
        /// Gone.
        drop: AuthorityId,
    },
}

/// What happened, or what somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed, or a fact changed.
    Tick,
    /// Rotate to this authority, whose key and issuer are at hand.
    Rotate {
        /// It.
        new: AuthorityId,
    },
    /// Go back to the old authority.
    Abort,
    /// Trust `drop` no more, at once and without gates; `keep` signs from now on.
    Distrust {
        /// Compromised.
        drop: AuthorityId,
        /// Trusted and used instead; need not be in the bundle yet.
        keep: AuthorityId,
    },
    /// Do not wait for this verifier in this rotation.
    Waive {
        /// SPIFFE ID, or with `#` and the instance.
        name: String,
    },
    /// Go on after a halt.
    Resume,
}

/// Facts that a step may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who verifies, and who holds which leaf.
    pub roster: &'a Roster,
    /// How long other trust domains may take to fetch our bundle, seconds; none if we serve it to nobody.
    pub federation_secs: Option<u64>,
    /// How long gate 2 must be open before the root is dropped, seconds: requests on old connections end meanwhile.
    pub drain_secs: u64,
    /// Wall clock.
    pub now: Timestamp,
}

/// A new state, and why it is right: what goes into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// To be persisted, then followed.
    pub state: TrustState,
    /// The evidence, in one sentence.
    pub evidence: String,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum RotationError {
    /// One at a time.
    #[error("a rotation is under way ({phase})")]
    #[diagnostic(
        code("MESH-0900"),
        help("`mesh trust status` shows it; `mesh trust abort` takes it back")
    )]
    UnderWay {
        /// Where it stands.
        phase: &'static str,
    },
    /// The authority is in the bundle already.
    #[error("the authority `{id}` is trusted already")]
    #[diagnostic(
        code("MESH-0901"),
        help("a rotation needs another root; `mesh trust rotate` makes one")
    )]
    SameAuthority {
        /// It.
        id: AuthorityId,
    },
    /// Nothing to abort, or past that.
    #[error("there is nothing to abort: {why}")]
    #[diagnostic(
        code("MESH-0902"),
        help("`mesh trust status` shows where the rotation stands")
    )]
    NothingToAbort {
        /// Why.
        why: &'static str,
    },
    /// A root that is not in the bundle, or the one that would have to stay.
    #[error("`{id}` cannot be distrusted: {why}")]
    #[diagnostic(
        code("MESH-0903"),
        help("`mesh trust bundle` lists the roots by fingerprint")
    )]
    CannotDistrust {
        /// The root.
        id: AuthorityId,
        /// Why.
        why: &'static str,
    },
    /// Nobody of that name holds anything up.
    #[error("`{name}` holds nothing up")]
    #[diagnostic(
        code("MESH-0904"),
        help("`mesh trust status` lists what a rotation waits for, by name")
    )]
    NothingToWaive {
        /// The name given.
        name: String,
    },
    /// Not halted.
    #[error("the rotation is not halted")]
    #[diagnostic(code("MESH-0905"), help("`mesh trust status` says what it waits for"))]
    NotHalted,
}

impl AuthorityId {
    /// The name of `root`.
    pub fn of(root: &Authority) -> Self {
        Self(HEXLOWER.encode(&root.fingerprint()))
    }

    /// The name of a root, from its certificate.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self(HEXLOWER.encode(&sha256(der)))
    }

    /// In full, 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 12 digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl TryFrom<String> for AuthorityId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain =
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if plain {
            Ok(Self(text))
        } else {
            Err("an authority is named by 64 lower-case hex digits")
        }
    }
}

impl From<AuthorityId> for String {
    fn from(id: AuthorityId) -> Self {
        id.0
    }
}

impl Phase {
    /// Its name, for people and programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Steady { .. } => "steady",
            Self::Proving { .. } => "proving",
            Self::CuttingOver { .. } => "cutting over",
            Self::Retiring { aborted: true, .. } => "rolling back",
            Self::Retiring { .. } => "retiring",
            Self::Dropping { .. } => "dropping",
        }
    }
}

impl TrustState {
    /// The first state of a trust domain.
    pub fn first(active: AuthorityId, now: Timestamp) -> Self {
        Self {
            generation: 1,
            anchors: vec![active.clone()],
            phase: Phase::Steady { active },
            since: now,
            waived: BTreeSet::new(),
            halted: None,
            retired: BTreeSet::new(),
        }
    }

    /// Whether the parts of a state that was read fit together.
    pub fn is_coherent(&self) -> bool {
        let has = |id| self.anchors.contains(id);
        let distinct = self.anchors.iter().collect::<BTreeSet<_>>().len() == self.anchors.len();
        let phase = match &self.phase {
            Phase::Steady { active } => has(active) && self.anchors.len() == 1,
            Phase::Proving { old, new } | Phase::CuttingOver { old, new, .. } => {
                has(old) && has(new) && old != new
            }
            Phase::Retiring { keep, drop, .. } => has(keep) && has(drop) && keep != drop,
            Phase::Dropping { keep, drop } => has(keep) && !has(drop),
        };
        self.generation > 0 && distinct && phase && !self.retired.iter().any(has)
    }

    /// Under which authority `holder` gets its next leaf.
    pub fn authority_for(&self, holder: &Holder) -> &AuthorityId {
        match &self.phase {
            Phase::Steady { active } => active,
            Phase::Proving { old, .. } => old,
            Phase::CuttingOver {
                old, new, up_to, ..
            } => {
                if holder.place() <= *up_to {
                    new
                } else {
                    old
                }
            }
            Phase::Retiring { keep, .. } | Phase::Dropping { keep, .. } => keep,
        }
    }

    /// The authority whose canary verifiers must accept: the one that all leaves will be under.
    pub fn canary(&self) -> &AuthorityId {
        match &self.phase {
            Phase::Steady { active } => active,
            Phase::Proving { new, .. } | Phase::CuttingOver { new, .. } => new,
            Phase::Retiring { keep, .. } | Phase::Dropping { keep, .. } => keep,
        }
    }

    /// All authorities whose keys must be at hand.
    pub fn authorities(&self) -> BTreeSet<&AuthorityId> {
        let mut all: BTreeSet<_> = self.anchors.iter().collect();
        all.insert(self.canary());
        all
    }

    /// What the phase waits for. Empty: it moves on at the next tick, unless halted.
    pub fn blockers(&self, facts: &Facts<'_>) -> Vec<Blocker> {
        gates::blockers(self, facts)
    }

    /// What would break if `drop` were distrusted now in favour of `keep`.
    pub fn blast_radius(
        &self,
        drop: &AuthorityId,
        keep: &AuthorityId,
        facts: &Facts<'_>,
    ) -> Vec<Blocker> {
        gates::blast_radius(self, drop, keep, facts)
    }

    /// The state after `event`; none if nothing changes.
    ///
    /// # Errors
    /// [`RotationError`]; nothing changes then either.
    pub fn step(
        &self,
        event: &Event,
        facts: &Facts<'_>,
    ) -> Result<Option<Transition>, RotationError> {
        match event {
            Event::Tick => Ok(self.tick(facts)),
            Event::Rotate { new } => self.rotate(new, facts).map(Some),
            Event::Abort => self.abort(facts).map(Some),
            Event::Distrust { drop, keep } => self.distrust(drop, keep, facts).map(Some),
            Event::Waive { name } => self.waive(name, facts).map(Some),
            Event::Resume => self.resume(facts).map(Some),
        }
    }

    /// The same with the keys of `id` destroyed.
    pub fn destroyed(&self, id: &AuthorityId) -> Transition {
        let mut state = self.clone();
        state.retired.remove(id);
        Transition {
            state,
            evidence: format!("the private keys of authority {id} were destroyed"),
        }
    }

    fn enter(&self, phase: Phase, now: Timestamp) -> Self {
        Self {
            phase,
            since: now,
            halted: None,
            ..self.clone()
        }
    }

    /// With other roots in the bundle, and so in the next generation.
    fn with_anchors(mut self, anchors: Vec<AuthorityId>) -> Self {
        self.generation = self.generation.saturating_add(1);
        self.anchors = anchors;
        self
    }

    fn rotate(&self, new: &AuthorityId, facts: &Facts<'_>) -> Result<Transition, RotationError> {
        let Phase::Steady { active } = &self.phase else {
            return Err(RotationError::UnderWay {
                phase: self.phase.name(),
            });
        };
        if self.anchors.contains(new) {
            return Err(RotationError::SameAuthority { id: new.clone() });
        }
        let phase = Phase::Proving {
            old: active.clone(),
            new: new.clone(),
        };
        let mut anchors = self.anchors.clone();
        anchors.push(new.clone());
        let mut state = self.enter(phase, facts.now).with_anchors(anchors);
        state.waived.clear();
        let evidence = format!("somebody asked for a rotation from {active} to {new}");
        Ok(Transition { state, evidence })
    }

    fn tick(&self, facts: &Facts<'_>) -> Option<Transition> {
        if self.halted.is_some() {
            return None;
        }
        match &self.phase {
            Phase::Steady { .. } => None,
            Phase::Proving { old, new } => self.prove(old, new, facts),
            Phase::CuttingOver {
                old,
                new,
                wave,
                refused_before,
                ..
            } => self.cut_over(old, new, *wave, *refused_before, facts),
            Phase::Retiring {
                keep,
                drop,
                aborted,
                clear_since,
            } => self.retire(keep, drop, *aborted, *clear_since, facts),
            Phase::Dropping { keep, drop } => self.finish(keep, drop, facts),
        }
    }

    fn prove(&self, old: &AuthorityId, new: &AuthorityId, facts: &Facts<'_>) -> Option<Transition> {
        if !self.blockers(facts).is_empty() {
            return None;
        }
        let phase = Phase::CuttingOver {
            old: old.clone(),
            new: new.clone(),
            wave: 0,
            up_to: facts.roster.place_of_part(wave_part(0)),
            refused_before: facts.roster.handshakes_refused(),
        };
        let evidence = format!(
            "gate 1: {} verifiers accepted the canary of {new} in generation {}; waived: {}",
            facts.roster.heard().count(),
            self.generation,
            self.waived.len()
        );
        Some(Transition {
            state: self.enter(phase, facts.now),
            evidence,
        })
    }

    fn cut_over(
        &self,
        old: &AuthorityId,
        new: &AuthorityId,
        wave: u8,
        refused_before: u64,
        facts: &Facts<'_>,
    ) -> Option<Transition> {
        let refused = facts
            .roster
            .handshakes_refused()
            .saturating_sub(refused_before);
        if refused > HANDSHAKES_REFUSED_MAX {
            let mut state = self.clone();
            let why = format!(
                "{refused} handshakes were refused for their chains since the cutover began"
            );
            state.halted = Some(why.clone());
            return Some(Transition {
                state,
                evidence: format!("halted: {why}"),
            });
        }
        if !self.blockers(facts).is_empty() {
            return None;
        }
        let next = wave.saturating_add(1);
        let phase = if usize::from(next) < WAVES.len() {
            Phase::CuttingOver {
                old: old.clone(),
                new: new.clone(),
                wave: next,
                up_to: facts.roster.place_of_part(wave_part(next)),
                refused_before,
            }
        } else {
            Phase::Retiring {
                keep: new.clone(),
                drop: old.clone(),
                aborted: false,
                clear_since: None,
            }
        };
        let evidence = format!(
            "wave {}: all of its live holders use leaves under {new}, {refused} handshakes refused",
            wave.saturating_add(1)
        );
        Some(Transition {
            state: self.enter(phase, facts.now),
            evidence,
        })
    }

    fn retire(
        &self,
        keep: &AuthorityId,
        drop: &AuthorityId,
        aborted: bool,
        clear_since: Option<Timestamp>,
        facts: &Facts<'_>,
    ) -> Option<Transition> {
        let clear = self.blockers(facts).is_empty();
        let remember = |clear_since| {
            let phase = Phase::Retiring {
                keep: keep.clone(),
                drop: drop.clone(),
                aborted,
                clear_since,
            };
            TrustState {
                phase,
                ..self.clone()
            }
        };
        match (clear, clear_since) {
            (false, None) => None,
            (false, Some(_)) => {
                let evidence = format!("a leaf under {drop} turned up");
                Some(Transition {
                    state: remember(None),
                    evidence,
                })
            }
            (true, None) => {
                let evidence =
                    format!("gate 2: nobody alive holds a leaf under {drop}; connections drain");
                Some(Transition {
                    state: remember(Some(facts.now)),
                    evidence,
                })
            }
            (true, Some(since)) if since.secs_until(facts.now) < facts.drain_secs => None,
            (true, Some(since)) => {
                let phase = Phase::Dropping {
                    keep: keep.clone(),
                    drop: drop.clone(),
                };
                let anchors = self
                    .anchors
                    .iter()
                    .filter(|id| *id != drop)
                    .cloned()
                    .collect();
                let evidence =
                    format!("gate 2: nobody alive holds a leaf under {drop} since {since}");
                Some(Transition {
                    state: self.enter(phase, facts.now).with_anchors(anchors),
                    evidence,
                })
            }
        }
    }

    fn finish(
        &self,
        keep: &AuthorityId,
        drop: &AuthorityId,
        facts: &Facts<'_>,
    ) -> Option<Transition> {
        if !self.blockers(facts).is_empty() {
            return None;
        }
        let mut state = self.enter(
            Phase::Steady {
                active: keep.clone(),
            },
            facts.now,
        );
        state.waived.clear();
        state.retired.insert(drop.clone());
        let evidence = format!(
            "{} verifiers acknowledged generation {}, without {drop}",
            facts.roster.heard().count(),
            self.generation
        );
        Some(Transition { state, evidence })
    }

    fn abort(&self, facts: &Facts<'_>) -> Result<Transition, RotationError> {
        let back = |keep: &AuthorityId, drop: &AuthorityId| Phase::Retiring {
            keep: keep.clone(),
            drop: drop.clone(),
            aborted: true,
            clear_since: None,
        };
        let phase = match &self.phase {
            Phase::Steady { .. } => {
                return Err(RotationError::NothingToAbort {
                    why: "no rotation is under way",
                });
            }
            Phase::Dropping { .. } => {
                return Err(RotationError::NothingToAbort {
                    why: "the root was dropped; the rotation ends forward",
                });
            }
            Phase::Retiring { aborted: true, .. } => {
                return Err(RotationError::NothingToAbort {
                    why: "it is being rolled back",
                });
            }
            Phase::Proving { old, new } | Phase::CuttingOver { old, new, .. } => back(old, new),
            Phase::Retiring { keep, drop, .. } => back(drop, keep),
        };
        let evidence = format!(
            "somebody aborted the rotation while it was {}",
            self.phase.name()
        );
        Ok(Transition {
            state: self.enter(phase, facts.now),
            evidence,
        })
    }

    fn distrust(
        &self,
        drop: &AuthorityId,
        keep: &AuthorityId,
        facts: &Facts<'_>,
    ) -> Result<Transition, RotationError> {
        let refused = |why| RotationError::CannotDistrust {
            id: drop.clone(),
            why,
        };
        if !self.anchors.contains(drop) {
            return Err(refused("it is not in the bundle"));
        }
        if drop == keep || self.retired.contains(keep) {
            return Err(refused("no other authority is there to take its place"));
        }
        let radius = self.blast_radius(drop, keep, facts);
        let phase = Phase::Dropping {
            keep: keep.clone(),
            drop: drop.clone(),
        };
        // Other roots of a rotation under way go too: one authority is left, whose state is certain.
        let mut state = self
            .enter(phase, facts.now)
            .with_anchors(vec![keep.clone()]);
        let gone = self.anchors.iter().filter(|id| *id != keep).cloned();
        state.retired.extend(gone);
        let evidence = format!(
            "somebody distrusted {drop} at once in favour of {keep}; {} verifiers or holders were not ready for it",
            radius.len()
        );
        Ok(Transition { state, evidence })
    }

    fn waive(&self, name: &str, facts: &Facts<'_>) -> Result<Transition, RotationError> {
        let holds_up = self
            .blockers(facts)
            .iter()
            .any(|blocker| blocker.is_named(name));
        if !holds_up || self.waived.len() >= WAIVERS_MAX {
            return Err(RotationError::NothingToWaive {
                name: name.to_owned(),
            });
        }
        let mut state = self.clone();
        state.waived.insert(name.to_owned());
        Ok(Transition {
            state,
            evidence: format!("somebody decided not to wait for `{name}`"),
        })
    }

    fn resume(&self, facts: &Facts<'_>) -> Result<Transition, RotationError> {
        if self.halted.is_none() {
            return Err(RotationError::NotHalted);
        }
        let mut state = Self {
            halted: None,
            ..self.clone()
        };
        if let Phase::CuttingOver { refused_before, .. } = &mut state.phase {
            *refused_before = facts.roster.handshakes_refused();
        }
        Ok(Transition {
            state,
            evidence: "somebody resumed it after the halt".to_owned(),
        })
    }
}

impl<'a> Facts<'a> {
    /// Facts with the usual drain and no federation.
    pub fn new(roster: &'a Roster, now: Timestamp) -> Self {
        Self {
            roster,
            federation_secs: None,
            drain_secs: DRAIN_SECS,
            now,
        }
    }
}

fn wave_part(wave: u8) -> f64 {
    WAVES.get(usize::from(wave)).copied().unwrap_or(1.0)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
