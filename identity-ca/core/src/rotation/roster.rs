//! Who verifies and who holds which leaf: facts from the issuance log, from processes that end, and from acknowledgments.
//!
//! An acknowledgment counts only from the process that it is about, for the challenge that this process was sent with
//! this generation, and with a leaf that this CA issued to it. Everything else changes nothing (invariant I6).

use super::AuthorityId;
use crate::attestation::kubernetes::is_outside;
use crate::key::sha256;
use mesh_trust::{SpiffeId, Timestamp};
use std::collections::BTreeMap;

/// Random octets that bind an acknowledgment to one update on one stream.
pub type Challenge = [u8; 32];

/// One process (or node) that holds SVIDs of one identity, and so verifies peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Who.
    pub id: SpiffeId,
    /// Which of its processes: never used again for another one.
    pub instance: String,
}

/// How a verifier can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// Its trust stream stands.
    Connected,
    /// It had one, or nothing is known since the CA started.
    Away,
    /// It never opened one.
    Plain,
}

/// A verifier, as far as a rotation is concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verifier {
    /// How it can be reached.
    pub presence: Presence,
    /// Newest generation that it acknowledged with an accepted canary.
    pub acknowledged: Option<u64>,
    /// Generation whose canary it refused, and why.
    pub refusal: Option<(u64, String)>,
    /// End of its newest SVID: afterwards it can complete no handshake.
    pub svid_ends: Timestamp,
    /// Its wall clock minus ours when it acknowledged, seconds.
    pub skew_secs: Option<i64>,
    challenge: Option<(u64, Challenge)>,
    /// Stream that stands; a later one replaces it.
    stream: u64,
    refused_handshakes: u64,
}

/// A leaf that its holder may show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldLeaf {
    /// Serial number, hex.
    pub serial: String,
    /// The authority above it.
    pub authority: AuthorityId,
    /// Its last moment.
    pub not_after: Timestamp,
}

/// What a verifier says. Its signature was checked by whoever received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgment {
    /// The bundle that it applies.
    pub generation: u64,
    /// As it was sent.
    pub challenge: Challenge,
    /// Leaf that it shows from now on, whose key signed this.
    pub serial: String,
    /// What its real verifier said of the canary.
    pub canary: Result<(), String>,
    /// Its wall clock minus ours, seconds.
    pub skew_secs: i64,
    /// Handshakes that it refused for their chains since it started.
    pub refused_handshakes: u64,
}

/// Why an acknowledgment counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AckError {
    /// No stream of that process.
    #[error("nobody asked `{id}` for an acknowledgment")]
    #[diagnostic(
        code("MESH-0910"),
        help("open the trust stream first; acknowledgments answer its updates")
    )]
    NotAsked {
        /// Who.
        id: SpiffeId,
    },
    /// For another update than the newest.
    #[error("an acknowledgment of generation {found}; wanted is {wanted}")]
    #[diagnostic(
        code("MESH-0911"),
        help("it was overtaken by a newer bundle; the newer update is to be answered")
    )]
    Late {
        /// Acknowledged.
        found: u64,
        /// Sent last.
        wanted: u64,
    },
    /// With octets that were never sent to that process.
    #[error("the challenge is not the one that `{id}` was sent")]
    #[diagnostic(
        code("MESH-0912"),
        help("acknowledgments cannot be passed on; look at who sent it")
    )]
    WrongChallenge {
        /// Who.
        id: SpiffeId,
    },
    /// With a leaf that is not its own.
    #[error("`{id}` has no SVID with serial number {serial}")]
    #[diagnostic(
        code("MESH-0913"),
        help("an acknowledgment is signed with the SVID in use, of the same process")
    )]
    NotItsLeaf {
        /// Who.
        id: SpiffeId,
        /// The serial number given.
        serial: String,
    },
}

/// All verifiers and their leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Roster {
    // INVARIANT: leaves in order of issuance, never empty.
    entries: BTreeMap<Holder, (Verifier, Vec<HeldLeaf>)>,
    streams: u64,
    /// Refused handshakes of verifiers that are gone.
    refused_before: u64,
}

impl Holder {
    /// Whether it takes its certificates from the Kubernetes API, and so has no trust stream.
    pub fn is_outside(&self) -> bool {
        is_outside(&self.instance)
    }

    /// Its place among all holders, uniform over all values: who is in which wave.
    pub fn place(&self) -> u64 {
        let hash = sha256(format!("{}#{}", self.id, self.instance).as_bytes());
        hash.iter()
            .take(8)
            .fold(0, |place, octet| place << 8 | u64::from(*octet))
    }
}

impl Roster {
    /// Notes a leaf that will be signed for `holder`: from now on it may be shown.
    pub fn issued(&mut self, holder: &Holder, leaf: HeldLeaf) {
        let (verifier, leaves) = self.entries.entry(holder.clone()).or_insert_with(|| {
            let verifier = Verifier {
                presence: Presence::Plain,
                acknowledged: None,
                refusal: None,
                svid_ends: leaf.not_after,
                skew_secs: None,
                challenge: None,
                stream: 0,
                refused_handshakes: 0,
            };
            (verifier, Vec::new())
        });
        verifier.svid_ends = verifier.svid_ends.max(leaf.not_after);
        leaves.push(leaf);
    }

    /// Notes that a leaf was not signed after all.
    pub fn failed(&mut self, holder: &Holder, serial: &str) {
        if let Some((_, leaves)) = self.entries.get_mut(holder) {
            leaves.retain(|leaf| leaf.serial != serial);
            if leaves.is_empty() {
                self.ended(holder);
            }
        }
    }

    /// After a start nothing is known of streams: whoever holds a leaf must be heard of anew.
    pub fn all_away(&mut self) {
        for (verifier, _) in self.entries.values_mut() {
            verifier.presence = Presence::Away;
            verifier.challenge = None;
            verifier.acknowledged = None;
            verifier.refusal = None;
        }
    }

    /// Notes that the trust stream of `holder` stands; none if it holds no leaf. The number names the stream.
    pub fn opened(&mut self, holder: &Holder) -> Option<u64> {
        let (verifier, _) = self.entries.get_mut(holder)?;
        self.streams = self.streams.saturating_add(1);
        verifier.presence = Presence::Connected;
        verifier.stream = self.streams;
        verifier.challenge = None;
        Some(self.streams)
    }

    /// The holder of identity `id` that may show the leaf of this serial number.
    pub fn holder_of(&self, id: &SpiffeId, serial: &str) -> Option<&Holder> {
        let first = Holder {
            id: id.clone(),
            instance: String::new(),
        };
        let of_id = self
            .entries
            .range(first..)
            .take_while(|(holder, _)| holder.id == *id);
        let mut found =
            of_id.filter(|(_, (_, leaves))| leaves.iter().any(|leaf| leaf.serial == serial));
        found.next().map(|(holder, _)| holder)
    }

    /// Notes what was sent on a stream: only its answer counts.
    pub fn challenged(
        &mut self,
        holder: &Holder,
        stream: u64,
        generation: u64,
        challenge: Challenge,
    ) {
        if let Some((verifier, _)) = self.entries.get_mut(holder)
            && verifier.stream == stream
        {
            verifier.challenge = Some((generation, challenge));
        }
    }

    /// Notes that a stream ended. An older one than the one that stands changes nothing.
    pub fn closed(&mut self, holder: &Holder, stream: u64) {
        if let Some((verifier, _)) = self.entries.get_mut(holder)
            && verifier.stream == stream
        {
            verifier.presence = Presence::Away;
            verifier.challenge = None;
        }
    }

    /// Notes that the process has ended: it verifies nobody and shows nothing.
    pub fn ended(&mut self, holder: &Holder) {
        if let Some((verifier, _)) = self.entries.remove(holder) {
            self.refused_before = self
                .refused_before
                .saturating_add(verifier.refused_handshakes);
        }
    }

    /// Takes an acknowledgment from `holder`, as attested. A second one of the same changes nothing.
    ///
    /// # Errors
    /// [`AckError`]; nothing changes then.
    pub fn acknowledge(&mut self, holder: &Holder, ack: &Acknowledgment) -> Result<(), AckError> {
        let id = || holder.id.clone();
        let not_asked = || AckError::NotAsked { id: id() };
        let (verifier, leaves) = self.entries.get_mut(holder).ok_or_else(not_asked)?;
        let (generation, challenge) = verifier.challenge.ok_or_else(not_asked)?;
        if ack.generation != generation {
            return Err(AckError::Late {
                found: ack.generation,
                wanted: generation,
            });
        }
        if ack.challenge != challenge {
            return Err(AckError::WrongChallenge { id: id() });
        }
        let Some(at) = leaves.iter().position(|leaf| leaf.serial == ack.serial) else {
            return Err(AckError::NotItsLeaf {
                id: id(),
                serial: ack.serial.clone(),
            });
        };
        // What was issued before the leaf in use is not shown any more; what was issued after it may be, soon.
        leaves.drain(..at);
        verifier.skew_secs = Some(ack.skew_secs);
        verifier.refused_handshakes = verifier.refused_handshakes.max(ack.refused_handshakes);
        match &ack.canary {
            Ok(()) => {
                verifier.acknowledged = verifier.acknowledged.max(Some(generation));
                verifier.refusal = None;
            }
            Err(why) => verifier.refusal = Some((generation, why.clone())),
        }
        Ok(())
    }

    /// Forgets leaves that ended before `now`, and whoever has none left.
    pub fn forget_expired(&mut self, now: Timestamp) {
        let mut gone = Vec::new();
        for (holder, (_, leaves)) in &mut self.entries {
            leaves.retain(|leaf| leaf.not_after.plus_secs(1) > now);
            if leaves.is_empty() {
                gone.push(holder.clone());
            }
        }
        gone.iter().for_each(|holder| self.ended(holder));
    }

    /// All verifiers.
    pub fn verifiers(&self) -> impl Iterator<Item = (&Holder, &Verifier)> {
        self.entries
            .iter()
            .map(|(holder, (verifier, _))| (holder, verifier))
    }

    /// Those that can acknowledge: all but whoever takes its certificates from the Kubernetes API.
    pub fn heard(&self) -> impl Iterator<Item = (&Holder, &Verifier)> {
        self.verifiers().filter(|(holder, _)| !holder.is_outside())
    }

    /// All leaves that somebody may show.
    pub fn leaves(&self) -> impl Iterator<Item = (&Holder, &HeldLeaf)> {
        self.entries
            .iter()
            .flat_map(|(holder, (_, leaves))| leaves.iter().map(move |leaf| (holder, leaf)))
    }

    /// The leaves of one holder, oldest first.
    pub fn leaves_of(&self, holder: &Holder) -> impl Iterator<Item = &HeldLeaf> {
        self.entries
            .get(holder)
            .into_iter()
            .flat_map(|(_, leaves)| leaves.iter())
    }

    /// Handshakes refused for their chains, as all verifiers counted them.
    pub fn handshakes_refused(&self) -> u64 {
        let now = self
            .entries
            .values()
            .map(|(verifier, _)| verifier.refused_handshakes);
        now.fold(self.refused_before, u64::saturating_add)
    }

    /// The place up to which `part` of the holders stand, but at least one of them.
    pub fn place_of_part(&self, part: f64) -> u64 {
        // A wave proves something only if it has somebody who is heard of.
        let mut places: Vec<u64> = self.heard().map(|(holder, _)| holder.place()).collect();
        places.sort_unstable();
        let count = (places.len() as f64 * part).ceil().max(1.0) as usize;
        places.get(count.saturating_sub(1)).copied().unwrap_or(0)
    }
}
