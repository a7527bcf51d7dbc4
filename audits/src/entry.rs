//! What a line of the log says.

use crate::chain::Hash;
use crate::limits::{
    HOST_BYTES_MAX, IDENTITY_BYTES_MAX, LIST_MAX, METHOD_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX,
};
use mesh_policy::equivalence::Assurance;
use mesh_policy::record::DecisionRecord;
use mesh_trust::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "record", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Entry {
    /// A writer opened the log: always its first line, and one more after every restart.
    Start(Start),
    /// A decision.
    Decision(Box<DecisionRecord>),
    /// Entries that are missing here.
    Gap(Gap),
    /// The controller put a new policy into force.
    Change(PolicyChange),
    /// A proxy held the compiled form of a policy in force against Cedar.
    Equivalence(Equivalence),
}

/// A writer opened the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// When.
    pub time: Timestamp,
    /// Whose log this is, `shop.cart` or `controller`; the same in every start of a log.
    pub origin: String,
    /// Version of the program.
    pub version: String,
    /// Bytes of an unfinished last line that a crash left, and that were dropped. A checkpoint never covered them.
    pub torn_bytes: u64,
    /// The signed checkpoint that the log did not reach when it was opened: its tail had been cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_through: Option<u64>,
}

/// Entries that could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// When the gap was noted, which is when writing went on.
    pub time: Timestamp,
    /// How many entries are missing.
    pub lost: u64,
    /// Why.
    pub cause: GapCause,
}

/// Why entries are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// They came faster than the disk took them.
    QueueFull,
    /// The disk refused them: full, read-only, broken.
    Storage,
    /// The log was found broken and moved aside; this one begins anew.
    BrokenLog,
}

/// The controller put a new policy into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// When.
    pub time: Timestamp,
    /// The new generation.
    pub generation: u64,
    /// SHA-256 over the names and contents of all sources, lower-case hex.
    pub digest: String,
    /// Files that are new, changed or gone, sorted.
    pub files: Vec<String>,
    /// Workloads whose policy or endpoints changed.
    pub workloads_changed: u64,
    /// Findings of severity error.
    pub errors: u64,
    /// Findings of severity warning.
    pub warnings: u64,
}

/// What a proxy found when it held the compiled form of a policy in force against Cedar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalence {
    /// When it was done.
    pub time: Timestamp,
    /// The generation.
    pub generation: u64,
    /// What was tried, and whether the two differ.
    pub found: Assurance,
}

/// A line as a reader of the log sees it; [`crate::verify`] is what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// Its place, from 0.
    pub seq: u64,
    /// Hash of the line before.
    pub prev: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
    /// Texts that were cut, with the bytes (or items) they had.
    #[serde(default)]
    pub cut: Cut,
}

/// Which texts were cut, by the path of the field, and how long they were. Beside the entry, so that no content can
/// pretend to be cut.
pub type Cut = BTreeMap<String, u64>;

impl Entry {
    /// Cuts what is longer than [`crate::limits`] allows and says so.
    pub(crate) fn cut(&mut self) -> Cut {
        let mut cut = Cut::new();
        match self {
            Self::Start(start) => cut_text(&mut start.origin, NAME_BYTES_MAX, "origin", &mut cut),
            Self::Decision(record) => cut_decision(record, &mut cut),
            Self::Gap(_) => {}
            Self::Equivalence(equivalence) => {
                if let Assurance::Differs { grant, case, .. } = &mut equivalence.found {
                    cut_text(grant, IDENTITY_BYTES_MAX, "found.grant", &mut cut);
                    cut_text(case, PATH_BYTES_MAX, "found.case", &mut cut);
                }
            }
            Self::Change(change) => cut_list(&mut change.files, "files", &mut cut),
        }
        cut
    }
}

fn cut_decision(record: &mut DecisionRecord, cut: &mut Cut) {
    let client = &mut record.client;
    cut_option(
        &mut client.spiffe_id,
        IDENTITY_BYTES_MAX,
        "client.spiffe_id",
        cut,
    );
    cut_option(&mut client.ip, NAME_BYTES_MAX, "client.ip", cut);
    cut_option(&mut client.serial, NAME_BYTES_MAX, "client.serial", cut);
    let server = &mut record.server;
    cut_text(
        &mut server.namespace,
        NAME_BYTES_MAX,
        "server.namespace",
        cut,
    );
    cut_option(&mut server.name, NAME_BYTES_MAX, "server.name", cut);
    cut_option(&mut server.workload, NAME_BYTES_MAX, "server.workload", cut);
    if let Some(route) = &mut record.route {
        cut_text(&mut route.kind, NAME_BYTES_MAX, "route.kind", cut);
        cut_text(&mut route.namespace, NAME_BYTES_MAX, "route.namespace", cut);
        cut_text(&mut route.name, NAME_BYTES_MAX, "route.name", cut);
    }
    if let Some(request) = &mut record.request {
        cut_text(&mut request.method, METHOD_BYTES_MAX, "request.method", cut);
        cut_option(&mut request.path, PATH_BYTES_MAX, "request.path", cut);
        cut_text(
            &mut request.raw_path,
            PATH_BYTES_MAX,
            "request.raw_path",
            cut,
        );
        cut_option(&mut request.host, HOST_BYTES_MAX, "request.host", cut);
    }
    cut_list(&mut record.reasons, "reasons", cut);
    if record.near_misses.len() > LIST_MAX {
        cut.insert("near_misses".to_owned(), record.near_misses.len() as u64);
        record.near_misses.truncate(LIST_MAX);
    }
}

fn cut_list(list: &mut Vec<String>, path: &str, cut: &mut Cut) {
    if list.len() > LIST_MAX {
        cut.insert(path.to_owned(), list.len() as u64);
        list.truncate(LIST_MAX);
    }
    for (index, item) in list.iter_mut().enumerate() {
        if item.len() > NAME_BYTES_MAX {
            cut_text(item, NAME_BYTES_MAX, &format!("{path}[{index}]"), cut);
        }
    }
}

fn cut_option(text: &mut Option<String>, limit: usize, path: &str, cut: &mut Cut) {
    if let Some(text) = text {
        cut_text(text, limit, path, cut);
    }
}

fn cut_text(text: &mut String, limit: usize, path: &str, cut: &mut Cut) {
    if text.len() > limit {
        cut.insert(path.to_owned(), text.len() as u64);
        text.truncate(text.floor_char_boundary(limit));
    }
}
