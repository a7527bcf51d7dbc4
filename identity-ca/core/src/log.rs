//! The issuance log: one line an entry, each with the hash of the line before it. Encoding and replay only; the bytes
//! are written by whoever has a disk.
//!
//! An *intent* is on disk before anything is signed, a *final* follows the signature. So a crash leaves an intent
//! without certificate, never a certificate without intent: what the log does not know was not issued by this CA.
//!
//! A line is `{"prev":"<hash>","entry":{…},"hash":"<hash>"}`, where `hash` is SHA-256 over a fixed prefix, the raw
//! `prev` and the octets of `entry` as they stand in the line.

use crate::issue::{Issued, Kind, Linted};
use crate::limits::{EVIDENCE_BYTES_MAX, LOG_LINE_BYTES_MAX};
use crate::rotation::{AuthorityId, Holder};
use data_encoding::HEXLOWER;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

const PREFIX: &[u8] = b"mesh issuance log v1\0";

/// SHA-256.
pub type Hash = [u8; 32];

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Entry {
    /// A CA opened the log.
    Start {
        /// When.
        time: Timestamp,
        /// Whose CA.
        trust_domain: TrustDomain,
        /// Version of the program.
        version: String,
    },
    /// Something will be signed.
    Intent(Box<Intent>),
    /// It was signed, and may have been released.
    Final {
        /// When.
        time: Timestamp,
        /// Which intent.
        serial: String,
        /// SHA-256 of the certificate, hex.
        certificate_sha256: String,
    },
    /// It was not signed.
    Failed {
        /// When.
        time: Timestamp,
        /// Which intent.
        serial: String,
        /// Why not.
        why: String,
    },
    /// The trust of the domain changes: a step of a rotation, before anybody learns of it.
    Trust {
        /// When.
        time: Timestamp,
        /// `spiffe_sequence` of the bundle from now on.
        generation: u64,
        /// SHA-256 of the state's file, hex.
        state_sha256: String,
        /// Why the step is right.
        evidence: String,
    },
}

/// What will be signed, for whom, and on what evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// When.
    pub time: Timestamp,
    /// Serial number, hex; never used before.
    pub serial: String,
    /// `root`, `issuer` or `leaf`.
    pub what: What,
    /// The identity in it.
    pub spiffe_id: SpiffeId,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the public key, hex; never used before.
    pub key_sha256: String,
    /// SHA-256 of what will be signed, hex.
    pub tbs_sha256: String,
    /// Key identifier of the signer, hex; absent for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// How the requester was attested.
    pub evidence: String,
    /// Which process or node of that identity holds it; absent for what no verifier holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The authority whose root is above it; absent in older logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityId>,
    /// The machine that it was issued to, where that is known: a node of the cluster, or one that joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A leaf that was, or may have been, signed, and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveLeaf {
    /// Serial number, hex.
    pub serial: String,
    /// The identity in it.
    pub spiffe_id: SpiffeId,
    /// Which process or node of that identity holds it.
    pub holder: Option<String>,
    /// The authority whose root is above it.
    pub authority: Option<AuthorityId>,
    /// The machine that it was issued to, where that is known.
    pub node: Option<String>,
    /// Its last moment.
    pub not_after: Timestamp,
    /// Line of its intent: the order of issuance, whatever clocks said.
    pub line: u64,
}

/// A recorded step of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustMark {
    /// `spiffe_sequence` of the bundle.
    pub generation: u64,
    /// SHA-256 of the state's file, hex.
    pub state_sha256: String,
}

/// [`Kind`] in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A trust anchor.
    Root,
    /// Signs leaves.
    Issuer,
    /// A workload's SVID.
    Leaf,
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum LogError {
    /// A line that is none of ours.
    #[error("line {line} of the issuance log is unreadable: {why}")]
    #[diagnostic(
        code("MESH-0220"),
        help("the log was damaged or edited: restore it from a backup; it is left as it is")
    )]
    Unreadable {
        /// From 1.
        line: u64,
        /// In the reader's words.
        why: String,
    },
    /// The chain of hashes is broken.
    #[error("line {line} of the issuance log does not follow the line before it")]
    #[diagnostic(
        code("MESH-0221"),
        help(
            "a line was changed, removed or added: restore the log from a backup; it is left as it is"
        )
    )]
    Broken {
        /// From 1.
        line: u64,
    },
    /// Lines that contradict each other.
    #[error("line {line} of the issuance log cannot be: {why}")]
    #[diagnostic(
        code("MESH-0222"),
        help(
            "two CAs may have written the same log: restore it from a backup; it is left as it is"
        )
    )]
    Contradiction {
        /// From 1.
        line: u64,
        /// What it contradicts.
        why: &'static str,
    },
    /// A serial or key that an unexpired certificate has.
    #[error("the {what} was used for another certificate")]
    #[diagnostic(
        code("MESH-0223"),
        help(
            "make a fresh key for each certificate; if the CA made it, its source of randomness is broken"
        )
    )]
    Reused {
        /// `serial number` or `key`.
        what: &'static str,
    },
    /// An entry that has no JSON form or is too long.
    #[error("an entry of the issuance log cannot be written: {why}")]
    #[diagnostic(code("MESH-0224"), help("report this as a fault of the CA"))]
    Encode {
        /// In the encoder's words.
        why: String,
    },
}

/// The end of a log: how many lines, and the hash of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head {
    /// Lines.
    pub lines: u64,
    /// Hash of the last; zero for an empty log.
    pub hash: Hash,
}

#[derive(Serialize)]
struct LineOut<'a> {
    prev: String,
    entry: &'a RawValue,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn<'a> {
    prev: String,
    #[serde(borrow)]
    entry: &'a RawValue,
    hash: String,
}

impl Head {
    /// The line that says `entry`, line feed included, and the head after it. The caller keeps the new head only once
    /// the line is written.
    ///
    /// # Errors
    /// [`LogError::Encode`].
    pub fn append(&self, entry: &Entry) -> Result<(Vec<u8>, Self), LogError> {
        let encode = |error: serde_json::Error| LogError::Encode {
            why: error.to_string(),
        };
        let text =
            RawValue::from_string(serde_json::to_string(entry).map_err(encode)?).map_err(encode)?;
        let hash = self.next_hash(text.get());
        let line = LineOut {
            prev: HEXLOWER.encode(&self.hash),
            entry: &text,
            hash: HEXLOWER.encode(&hash),
        };
        let mut bytes = serde_json::to_vec(&line).map_err(encode)?;
        bytes.push(b'\n');
        if bytes.len() > LOG_LINE_BYTES_MAX {
            return Err(LogError::Encode {
                why: format!("{} bytes", bytes.len()),
            });
        }
        Ok((
            bytes,
            Self {
                lines: self.lines.saturating_add(1),
                hash,
            },
        ))
    }

    fn next_hash(&self, entry: &str) -> Hash {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [PREFIX, &self.hash, entry.as_bytes()] {
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    /// Reads the line after this head.
    fn read(&self, line: &[u8]) -> Result<(Entry, Self), LogError> {
        let number = self.lines.saturating_add(1);
        let unreadable = |why: String| LogError::Unreadable { line: number, why };
        if line.len() > LOG_LINE_BYTES_MAX {
            return Err(unreadable(format!("{} bytes", line.len())));
        }
        let read: LineIn<'_> =
            serde_json::from_slice(line).map_err(|error| unreadable(error.to_string()))?;
        let hash = self.next_hash(read.entry.get());
        if read.prev != HEXLOWER.encode(&self.hash) || read.hash != HEXLOWER.encode(&hash) {
            return Err(LogError::Broken { line: number });
        }
        let entry = serde_json::from_str(read.entry.get())
            .map_err(|error| unreadable(error.to_string()))?;
        Ok((
            entry,
            Self {
                lines: number,
                hash,
            },
        ))
    }
}

impl Intent {
    /// The intent to sign `linted`.
    pub fn new(linted: &Linted, evidence: &str, time: Timestamp) -> Self {
        let evidence = evidence
            .get(..evidence.floor_char_boundary(EVIDENCE_BYTES_MAX))
            .unwrap_or_default();
        Self {
            time,
            serial: linted.serial().to_hex(),
            what: linted.kind().into(),
            spiffe_id: linted.id().clone(),
            not_before: linted.validity().not_before,
            not_after: linted.validity().not_after,
            key_sha256: HEXLOWER.encode(&linted.key().fingerprint()),
            tbs_sha256: HEXLOWER.encode(&linted.tbs_fingerprint()),
            signed_by: linted.signed_by().map(|id| HEXLOWER.encode(id)),
            evidence: evidence.to_owned(),
            holder: None,
            authority: None,
            node: None,
        }
    }

    /// The same for a leaf that `holder` will show, below the root of `authority`.
    #[must_use]
    pub fn held_by(mut self, holder: &Holder, authority: &AuthorityId) -> Self {
        self.holder = Some(holder.instance.clone());
        self.authority = Some(authority.clone());
        self
    }

    /// The same for what is issued to the machine `node`.
    #[must_use]
    pub fn on(mut self, node: Option<&str>) -> Self {
        self.node = node.map(str::to_owned);
        self
    }
}

impl Entry {
    /// The end of a successful intent.
    pub fn signed(issued: &Issued, time: Timestamp) -> Self {
        Self::Final {
            time,
            serial: issued.serial().to_hex(),
            certificate_sha256: HEXLOWER.encode(&issued.fingerprint()),
        }
    }
}

impl From<Kind> for What {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Root => Self::Root,
            Kind::Issuer => Self::Issuer,
            Kind::Leaf => Self::Leaf,
        }
    }
}

/// All that a CA must remember of its log: where it ends, and what unexpired certificates use.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    head: Head,
    trust_domain: Option<TrustDomain>,
    // Serials of intents without an end.
    open: BTreeSet<String>,
    live: BTreeMap<String, Live>,
    keys: BTreeSet<String>,
    leaves: u64,
    last: Option<Timestamp>,
    // The last two steps of trust, the older one first.
    trust: [Option<TrustMark>; 2],
}

/// What is remembered of an unexpired certificate.
#[derive(Clone, Debug)]
struct Live {
    key_sha256: String,
    not_after: Timestamp,
    line: u64,
    // Leaves only.
    leaf: Option<Held>,
}

/// Who holds a leaf, and where.
#[derive(Clone, Debug)]
struct Held {
    spiffe_id: SpiffeId,
    holder: Option<String>,
    authority: Option<AuthorityId>,
    node: Option<String>,
}

impl Ledger {
    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// [`LogError`]; the ledger is then as before.
    pub fn replay(&mut self, line: &[u8]) -> Result<(), LogError> {
        let (entry, head) = self.head.read(line)?;
        let contradiction = |why| LogError::Contradiction {
            line: head.lines,
            why,
        };
        match &entry {
            Entry::Start { trust_domain, .. }
                if self
                    .trust_domain
                    .as_ref()
                    .is_some_and(|known| known != trust_domain) =>
            {
                return Err(contradiction("it is of another trust domain"));
            }
            Entry::Start { .. } => {}
            _ if self.trust_domain.is_none() => {
                return Err(contradiction("a log begins with `start`"));
            }
            Entry::Intent(intent) if self.live.contains_key(&intent.serial) => {
                return Err(contradiction("its serial number was used before"));
            }
            Entry::Final { serial, .. } | Entry::Failed { serial, .. }
                if !self.open.contains(serial) =>
            {
                return Err(contradiction("it ends what was not begun"));
            }
            Entry::Trust { generation, .. }
                if self.trust[1]
                    .as_ref()
                    .is_some_and(|last| *generation < last.generation) =>
            {
                return Err(contradiction("a generation of trust went back"));
            }
            Entry::Intent(_) | Entry::Final { .. } | Entry::Failed { .. } | Entry::Trust { .. } => {
            }
        }
        self.commit(&entry, head);
        Ok(())
    }

    /// Refuses a serial or key that an unexpired certificate has, or may have.
    ///
    /// # Errors
    /// [`LogError::Reused`].
    pub fn check_unused(&self, intent: &Intent) -> Result<(), LogError> {
        if self.live.contains_key(&intent.serial) {
            return Err(LogError::Reused {
                what: "serial number",
            });
        }
        if self.keys.contains(&intent.key_sha256) {
            return Err(LogError::Reused { what: "key" });
        }
        Ok(())
    }

    /// Remembers an entry whose line was written, with the head that [`Head::append`] gave for it.
    pub fn commit(&mut self, entry: &Entry, head: Head) {
        self.head = head;
        match entry {
            Entry::Start {
                time, trust_domain, ..
            } => {
                self.trust_domain = Some(trust_domain.clone());
                self.last = Some(*time);
            }
            Entry::Intent(intent) => {
                self.open.insert(intent.serial.clone());
                self.keys.insert(intent.key_sha256.clone());
                let leaf = (intent.what == What::Leaf).then(|| Held {
                    spiffe_id: intent.spiffe_id.clone(),
                    holder: intent.holder.clone(),
                    authority: intent.authority.clone(),
                    node: intent.node.clone(),
                });
                let live = Live {
                    key_sha256: intent.key_sha256.clone(),
                    not_after: intent.not_after,
                    line: head.lines,
                    leaf,
                };
                self.live.insert(intent.serial.clone(), live);
                self.leaves = self
                    .leaves
                    .saturating_add(u64::from(intent.what == What::Leaf));
                self.last = Some(intent.time);
            }
            Entry::Final { time, serial, .. } | Entry::Failed { time, serial, .. } => {
                self.open.remove(serial);
                self.last = Some(*time);
            }
            Entry::Trust {
                time,
                generation,
                state_sha256,
                ..
            } => {
                let mark = TrustMark {
                    generation: *generation,
                    state_sha256: state_sha256.clone(),
                };
                self.trust.rotate_left(1);
                self.trust[1] = Some(mark);
                self.last = Some(*time);
            }
        }
    }

    /// Forgets certificates that ended before `now`, so that the ledger holds no more than lives.
    pub fn forget_expired(&mut self, now: Timestamp) {
        let (open, keys) = (&mut self.open, &mut self.keys);
        self.live.retain(|serial, live| {
            let keep = live.not_after.plus_secs(1) >= now;
            if !keep {
                open.remove(serial);
                keys.remove(&live.key_sha256);
            }
            keep
        });
    }

    /// Where the log ends.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Whose log it is; none while it is empty.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// Unexpired certificates that were, or may have been, signed.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Leaves among them, in no order.
    pub fn leaves_in_force(&self) -> impl Iterator<Item = LiveLeaf> {
        self.live.iter().filter_map(|(serial, live)| {
            let held = live.leaf.clone()?;
            Some(LiveLeaf {
                serial: serial.clone(),
                spiffe_id: held.spiffe_id,
                holder: held.holder,
                authority: held.authority,
                node: held.node,
                not_after: live.not_after,
                line: live.line,
            })
        })
    }

    /// Whether an unexpired certificate has, or may have, the key of this fingerprint.
    pub fn has_key(&self, fingerprint: &Hash) -> bool {
        self.keys.contains(&HEXLOWER.encode(fingerprint))
    }

    /// The last two recorded steps of trust, the older one first.
    pub fn trust_marks(&self) -> &[Option<TrustMark>; 2] {
        &self.trust
    }

    /// Intents without an end: the CA was killed between the two, or is at work.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Leaves ever begun.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Time of the last entry.
    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue;
    use crate::testing::{NOW, World};

    fn start() -> Entry {
        Entry::Start {
            time: NOW,
            trust_domain: TrustDomain::parse("cluster.local").unwrap(),
            version: "0.1.0".into(),
        }
    }

    fn write(ledger: &mut Ledger, log: &mut Vec<u8>, entry: &Entry) {
        let (line, head) = ledger.head().append(entry).unwrap();
        ledger.commit(entry, head);
        log.extend(line);
    }

    fn log_of_one_leaf() -> (Vec<u8>, Ledger) {
        let world = World::new();
        let (mut ledger, mut log) = (Ledger::default(), Vec::new());
        write(&mut ledger, &mut log, &start());
        let linted = world.prepare("ns/shop/sa/cart");
        write(
            &mut ledger,
            &mut log,
            &Entry::Intent(Box::new(Intent::new(&linted, "launch pid=1", NOW))),
        );
        let issued = issue::sign(linted, &world.issuer_key).unwrap();
        write(&mut ledger, &mut log, &Entry::signed(&issued, NOW));
        (log, ledger)
    }

    fn replay(log: &[u8]) -> Result<Ledger, LogError> {
        let mut ledger = Ledger::default();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            ledger.replay(line.strip_suffix(b"\n").unwrap_or(line))?;
        }
        Ok(ledger)
    }

    #[test]
    fn a_replayed_log_gives_the_ledger_that_wrote_it() {
        let (log, written) = log_of_one_leaf();
        let read = replay(&log).unwrap();
        assert_eq!(
            (read.head(), read.open(), read.live(), read.leaves()),
            (written.head(), 0, 1, 1)
        );
        assert_eq!(read.trust_domain(), written.trust_domain());
    }

    #[test]
    fn every_flipped_bit_of_a_log_is_found() {
        let (log, _) = log_of_one_leaf();
        for at in 0..log.len() {
            for bit in [0x01, 0x20] {
                let mut changed = log.clone();
                changed[at] ^= bit;
                assert!(replay(&changed).is_err(), "octet {at}, bit {bit:#x}");
            }
        }
    }

    #[test]
    fn lines_removed_doubled_or_swapped_are_found() {
        let (log, _) = log_of_one_leaf();
        let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        for order in [
            vec![0, 2],
            vec![1, 2],
            vec![0, 2, 1],
            vec![0, 1, 1],
            vec![0, 0, 1, 2],
            vec![0, 1, 2, 2],
        ] {
            let changed: Vec<u8> = order.iter().flat_map(|at| lines[*at].to_vec()).collect();
            assert!(replay(&changed).is_err(), "{order:?}");
        }
    }

    #[test]
    fn honest_hashes_do_not_excuse_lines_that_contradict_each_other() {
        let (log, ledger) = log_of_one_leaf();
        let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        let entry =
            |at: usize, head: Head| head.read(lines[at].strip_suffix(b"\n").unwrap()).unwrap();
        let (_, one) = entry(0, Head::default());
        let (intent, two) = entry(1, one);
        let (end, _) = entry(2, two);
        let other = Entry::Start {
            time: NOW,
            trust_domain: TrustDomain::parse("other.example").unwrap(),
            version: String::new(),
        };
        for again in [intent, end, other] {
            let (line, _) = ledger.head().append(&again).unwrap();
            let error = replay(&[&log[..], &line].concat()).unwrap_err();
            assert!(
                matches!(error, LogError::Contradiction { line: 4, .. }),
                "{again:?}: {error}"
            );
        }
        let (line, _) = Head::default()
            .append(&Entry::Failed {
                time: NOW,
                serial: "01".into(),
                why: String::new(),
            })
            .unwrap();
        assert!(matches!(
            replay(&line),
            Err(LogError::Contradiction { line: 1, .. })
        ));
    }

    #[test]
    fn serials_and_keys_of_unexpired_certificates_are_never_used_again() {
        let world = World::new();
        let (mut ledger, mut log) = (Ledger::default(), Vec::new());
        write(&mut ledger, &mut log, &start());
        let first = Intent::new(&world.prepare("ns/a/sa/b"), "", NOW);
        ledger.check_unused(&first).unwrap();
        write(
            &mut ledger,
            &mut log,
            &Entry::Intent(Box::new(first.clone())),
        );
        let same_serial = Intent {
            key_sha256: "00".into(),
            ..first.clone()
        };
        let same_key = Intent {
            serial: "00".into(),
            ..first.clone()
        };
        for mut ledger in [ledger.clone(), replay(&log).unwrap()] {
            assert_eq!(
                ledger.check_unused(&same_serial),
                Err(LogError::Reused {
                    what: "serial number"
                })
            );
            assert_eq!(
                ledger.check_unused(&same_key),
                Err(LogError::Reused { what: "key" })
            );
            ledger.forget_expired(first.not_after);
            assert_eq!(ledger.live(), 1, "the last second counts");
            ledger.forget_expired(first.not_after.plus_secs(2));
            assert_eq!((ledger.live(), ledger.open()), (0, 0));
        }
    }

    #[test]
    fn evidence_is_cut_at_a_character() {
        let linted = World::new().prepare("ns/a/sa/b");
        let intent = Intent::new(&linted, &"ä".repeat(EVIDENCE_BYTES_MAX), NOW);
        assert_eq!(intent.evidence.len(), EVIDENCE_BYTES_MAX);
        let long = Entry::Failed {
            time: NOW,
            serial: "01".into(),
            why: "x".repeat(LOG_LINE_BYTES_MAX),
        };
        assert!(matches!(
            Head::default().append(&long),
            Err(LogError::Encode { .. })
        ));
    }
}
