//! What a line of the log says.

use mesh_policy::equivalence::Assurance;
use mesh_policy::record::{DecisionRecord, RecordRoute, RecordServer};
use mesh_trust::Timestamp;
use serde::{Deserialize, Serialize};

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What access that gave and took.
    Effect(ChangeEffect),
    /// A line of the CA's issuance log.
    Issuance(IssuanceLine),
    /// A proxy held the compiled form of a policy in force against Cedar.
    Equivalence(Equivalence),
    /// How many requests were allowed, by class.
    Counts(AllowCounts),
    /// Old lines were deleted because their time was over. Their hashes stay.
    Retired(Retired),
    /// Texts were taken out of lines. Their commitments stay.
    Redaction(Redaction),
    /// A grant for emergencies was opened, used or closed.
    BreakGlass(BreakGlass),
    /// Trust changed: anchors, issuers, federation, a deny list.
    Trust(Action),
    /// Somebody operated the mesh.
    Admin(Action),
}

/// A writer opened the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// When.
    pub time: Timestamp,
    /// Whose log this is, `shop.cart` or `controller`; the same in every start of a log.
    pub origin: String,
    /// Version of the program.
    pub version: String,
    /// Bytes of unfinished last lines that a crash left, and that were dropped. A checkpoint never covered them.
    pub torn_bytes: u64,
    /// The first line that was missing when the log was opened, of those up to this one that a signed checkpoint covers:
    /// its tail had been cut. Their hashes are still there, so this line has the place after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_from: Option<u64>,
    /// Share of allowed requests that are recorded one by one, 0 to 1. Denials are recorded all, allows counted all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_sample: Option<f64>,
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
    /// Policy objects that are new, different or gone, sorted; workloads and Services are none. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<ChangedObject>>,
    /// Who made it, as far as the sources say; absent if they do not say it of every object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Said>,
    /// Who agreed to it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<Said>,
}

/// A policy object that a change concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangedObject {
    /// `kind/namespace/name`; `kind/name` of one without namespace.
    pub object: String,
    /// What became of it.
    pub how: How,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is new.
    Added,
    /// It says something else.
    Changed,
    /// It is gone.
    Removed,
}

/// What a source says of people, and how it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Whom it names, sorted: names as they are written, or `uid 1000`.
    pub who: Vec<String>,
    /// The weakest of its ways of knowing.
    pub from: SaidBy,
}

/// How a source knows who did something, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaidBy {
    /// An annotation of the object: whoever may write the object may write this.
    Annotation,
    /// The field manager that the API server noted: programs name themselves.
    FieldManager,
    /// The owner of the file: the kernel knows it; who else may write the file is not seen.
    FileOwner,
}

/// What access a change of policy gave and took. It follows the change in the log: to find it takes time, and policy does
/// not wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeEffect {
    /// When it was found.
    pub time: Timestamp,
    /// The generation that the change made.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// Pairs of a class of clients and a class of requests at a port that are allowed since then and were not before; and
    /// of a workload and a class of what it may send outside of the mesh.
    pub gained: u64,
    /// Pairs that were allowed before and are not any more.
    pub lost: u64,
    /// Whether every class was asked. If not, there may be more.
    pub exact: bool,
    /// The same in words, `+` and `-` in front; cut if there are many.
    pub access: Vec<String>,
}

/// A line of the CA's issuance log, as it stands there. Its own chain of hashes stays checkable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuanceLine {
    /// When it was copied.
    pub time: Timestamp,
    /// Its number there, from 1; none is left out.
    pub line: u64,
    /// The line, without its line feed.
    pub text: String,
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

/// Allowed requests of a stretch of time, counted exactly; those that are recorded one by one are among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowCounts {
    /// Its end.
    pub time: Timestamp,
    /// Its beginning. The stretches of one core follow each other; where one is missing nothing was allowed, or a crash
    /// lost it: then a start follows.
    pub from: Timestamp,
    /// Which core of the writer counted.
    pub core: u64,
    /// How many of each class.
    pub classes: Vec<AllowClass>,
    /// How many of classes that found no room.
    pub other: u64,
}

/// Allowed requests that policy does not tell apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowClass {
    /// Which policy.
    pub generation: u64,
    /// Verified identity of the client.
    pub client: Option<String>,
    /// Whether the proxy terminated mutual TLS.
    pub tls: bool,
    /// Where.
    pub server: RecordServer,
    /// The route that took them.
    pub route: Option<RecordRoute>,
    /// Method; absent for TCP.
    pub method: Option<String>,
    /// Grants that hold, sorted.
    pub reasons: Vec<String>,
    /// Whether every permit that holds is an audit one.
    pub audit: bool,
    /// How many.
    pub count: u64,
}

/// Old lines were deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    /// When.
    pub time: Timestamp,
    /// The last line deleted; all before it are gone too.
    pub through: u64,
    /// How many were deleted this time.
    pub lines: u64,
    /// Which limit they were beyond.
    pub why: RetiredWhy,
}

/// Which limit retired lines were beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetiredWhy {
    /// How old lines may become.
    Age,
    /// How much room they may take.
    Size,
}

/// Texts were taken out of lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// When.
    pub time: Timestamp,
    /// The first line that was looked at.
    pub from: u64,
    /// The last line that was looked at.
    pub through: u64,
    /// Lines that lost a text.
    pub lines: u64,
    /// Paths of the fields.
    pub fields: Vec<String>,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// A grant for emergencies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// When.
    pub time: Timestamp,
    /// `opened`, `used` or `closed`.
    pub action: String,
    /// Id of the grant.
    pub grant: String,
    /// Who did it.
    pub by: String,
    /// What for.
    pub reason: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Somebody did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// When.
    pub time: Timestamp,
    /// What, in a word: `rotate`, `deny`, `start`, `stop`.
    pub action: String,
    /// Who.
    pub by: String,
    /// To what, and what came of it.
    pub detail: String,
}
