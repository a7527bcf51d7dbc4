//! What a rotation waits for, by name and reason. Reads facts; decides nothing else.

use super::roster::{Holder, Presence};
use super::{AuthorityId, Facts, Phase, TrustState};
use crate::limits::OUTSIDE_SECS;
use mesh_trust::Timestamp;
use std::fmt;

/// One thing that a rotation waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// A SPIFFE ID, or what else there is to wait for.
    pub name: String,
    /// Which of its processes; absent if it is none.
    pub instance: Option<String>,
    /// Why.
    pub reason: Reason,
}

/// Why it is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It listens, and has not acknowledged.
    NotAcknowledged {
        /// Wanted.
        generation: u64,
        /// What it acknowledged last.
        last: Option<u64>,
    },
    /// Its verifier refused the canary.
    CanaryRefused {
        /// In its words.
        why: String,
    },
    /// It is not connected, and its SVID is still good.
    Away {
        /// After this it cannot verify anybody any more.
        until: Timestamp,
    },
    /// It takes its SVID from the Workload API and cannot acknowledge anything.
    CannotAcknowledge {
        /// End of its newest SVID.
        until: Timestamp,
    },
    /// It takes certificates from the Kubernetes API, where it finds the bundle too: it is given the time to.
    Outside {
        /// When it has had it.
        until: Timestamp,
    },
    /// It may still show a leaf under the root that goes.
    HoldsLeaf {
        /// Serial number, hex.
        serial: String,
        /// Its end.
        until: Timestamp,
    },
    /// Other trust domains have not had the time to fetch the bundle.
    Federation {
        /// When they have had it.
        until: Timestamp,
    },
}

impl Blocker {
    fn holder(holder: &Holder, reason: Reason) -> Self {
        Self {
            name: holder.id.to_string(),
            instance: Some(holder.instance.clone()),
            reason,
        }
    }

    /// Whether somebody who says `name` means this one.
    pub fn is_named(&self, name: &str) -> bool {
        names(&self.name, self.instance.as_deref(), name)
    }
}

fn names(id: &str, instance: Option<&str>, name: &str) -> bool {
    match name.split_once('#') {
        Some((id_named, instance_named)) => id == id_named && instance == Some(instance_named),
        None => id == name,
    }
}

impl Reason {
    /// Its name, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAcknowledged { .. } => "notAcknowledged",
            Self::CanaryRefused { .. } => "canaryRefused",
            Self::Away { .. } => "away",
            Self::CannotAcknowledge { .. } => "cannotAcknowledge",
            Self::Outside { .. } => "outside",
            Self::HoldsLeaf { .. } => "holdsLeaf",
            Self::Federation { .. } => "federation",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAcknowledged {
                generation,
                last: Some(last),
            } => {
                write!(
                    f,
                    "has not acknowledged generation {generation} (last: {last})"
                )
            }
            Self::NotAcknowledged {
                generation,
                last: None,
            } => {
                write!(f, "has not acknowledged generation {generation}")
            }
            Self::CanaryRefused { why } => write!(f, "refuses the canary: {why}"),
            Self::Away { until } => write!(f, "is not connected; its SVID is good until {until}"),
            Self::CannotAcknowledge { until } => {
                write!(
                    f,
                    "is a plain SPIFFE client and cannot acknowledge; its SVID is good until {until}"
                )
            }
            Self::Outside { until } => write!(
                f,
                "has its certificate from the Kubernetes API; it has until {until} to take the bundle"
            ),
            Self::HoldsLeaf { serial, until } => {
                write!(
                    f,
                    "may still show SVID {serial} under the root that goes, until {until}"
                )
            }
            Self::Federation { until } => write!(
                f,
                "other trust domains have until {until} to fetch the bundle"
            ),
        }
    }
}

impl TrustState {
    fn is_waived(&self, holder: &Holder) -> bool {
        self.waived
            .iter()
            .any(|name| names(holder.id.as_str(), Some(&holder.instance), name))
    }
}

/// See [`TrustState::blockers`].
pub(super) fn blockers(state: &TrustState, facts: &Facts<'_>) -> Vec<Blocker> {
    match &state.phase {
        Phase::Steady { .. } => Vec::new(),
        Phase::Proving { .. } => {
            let mut found = unacknowledged(state, facts);
            found.extend(federation(state, facts));
            found
        }
        Phase::CuttingOver { new, up_to, .. } => not_moved(state, new, *up_to, facts),
        Phase::Retiring { drop, .. } => holders(state, drop, facts),
        Phase::Dropping { .. } => unacknowledged(state, facts),
    }
}

/// Verifiers that have not said that they apply the bundle.
fn unacknowledged(state: &TrustState, facts: &Facts<'_>) -> Vec<Blocker> {
    let verifiers = facts
        .roster
        .verifiers()
        .filter(|(holder, _)| !state.is_waived(holder));
    verifiers
        .filter_map(|(holder, verifier)| {
            let done = verifier
                .acknowledged
                .is_some_and(|last| last >= state.generation);
            if done {
                return None;
            }
            // Nobody will ever hear of these whether they trust the new root. What they hold is waited for at gate 2.
            if holder.is_outside() {
                let until = state.since.plus_secs(OUTSIDE_SECS);
                let proving = matches!(state.phase, Phase::Proving { .. });
                let waits = proving && facts.now < until;
                return waits.then(|| Blocker::holder(holder, Reason::Outside { until }));
            }
            let until = verifier.svid_ends;
            let reason = match (&verifier.refusal, verifier.presence) {
                (Some((generation, why)), _) if *generation >= state.generation => {
                    Reason::CanaryRefused { why: why.clone() }
                }
                (_, Presence::Away) => Reason::Away { until },
                (_, Presence::Plain) => Reason::CannotAcknowledge { until },
                (_, Presence::Connected) => Reason::NotAcknowledged {
                    generation: state.generation,
                    last: verifier.acknowledged,
                },
            };
            Some(Blocker::holder(holder, reason))
        })
        .collect()
}

/// Connected holders of a wave that do not use a leaf under `new` yet.
fn not_moved(state: &TrustState, new: &AuthorityId, up_to: u64, facts: &Facts<'_>) -> Vec<Blocker> {
    let in_wave = facts.roster.verifiers().filter(|(holder, verifier)| {
        holder.place() <= up_to
            && verifier.presence == Presence::Connected
            && !state.is_waived(holder)
    });
    in_wave
        .flat_map(|(holder, _)| {
            facts
                .roster
                .leaves_of(holder)
                .map(move |leaf| (holder, leaf))
        })
        .filter(|(_, leaf)| leaf.authority != *new)
        .map(|(holder, leaf)| holds(holder, &leaf.serial, leaf.not_after))
        .collect()
}

/// Everybody who may still show a leaf under `drop`.
fn holders(state: &TrustState, drop: &AuthorityId, facts: &Facts<'_>) -> Vec<Blocker> {
    let leaves = facts
        .roster
        .leaves()
        .filter(|(_, leaf)| leaf.authority == *drop);
    leaves
        .filter(|(holder, _)| !state.is_waived(holder))
        .map(|(holder, leaf)| holds(holder, &leaf.serial, leaf.not_after))
        .collect()
}

fn holds(holder: &Holder, serial: &str, until: Timestamp) -> Blocker {
    Blocker::holder(
        holder,
        Reason::HoldsLeaf {
            serial: serial.to_owned(),
            until,
        },
    )
}

/// Name of what is waited for on behalf of other trust domains. No SPIFFE ID is called so.
const FEDERATION: &str = "federation";

fn federation(state: &TrustState, facts: &Facts<'_>) -> Option<Blocker> {
    let secs = i64::try_from(facts.federation_secs?).unwrap_or(i64::MAX);
    let until = state.since.plus_secs(secs);
    let waived = state.waived.contains(FEDERATION);
    (facts.now < until && !waived).then(|| Blocker {
        name: FEDERATION.to_owned(),
        instance: None,
        reason: Reason::Federation { until },
    })
}

/// See [`TrustState::blast_radius`].
pub(super) fn blast_radius(
    state: &TrustState,
    drop: &AuthorityId,
    keep: &AuthorityId,
    facts: &Facts<'_>,
) -> Vec<Blocker> {
    let known = state.anchors.contains(keep);
    let verifiers = facts.roster.verifiers().filter_map(|(holder, verifier)| {
        let ready = known
            && verifier
                .acknowledged
                .is_some_and(|last| last >= state.generation);
        let until = verifier.svid_ends;
        let reason = match verifier.presence {
            _ if ready => return None,
            Presence::Away => Reason::Away { until },
            Presence::Plain => Reason::CannotAcknowledge { until },
            Presence::Connected => Reason::NotAcknowledged {
                generation: state.generation,
                last: verifier.acknowledged,
            },
        };
        Some(Blocker::holder(holder, reason))
    });
    let leaves = facts
        .roster
        .leaves()
        .filter(|(_, leaf)| leaf.authority == *drop);
    verifiers
        .chain(leaves.map(|(holder, leaf)| holds(holder, &leaf.serial, leaf.not_after)))
        .collect()
}
