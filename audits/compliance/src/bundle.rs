//! The snapshot bundle: all that a report is made of, in one file that anybody can run again.
//!
//! A bundle holds the policy as manifests, who ran, what was counted in the decision logs, what the CA logged, the logs'
//! own state, and what was asked of the report: its window and its zones. It holds no request and no path: counts by
//! class alone. [`form`] writes and reads it as lines.

mod check;
pub mod form;

use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use mesh_trust::{Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use form::{BundleError, digest, read, seal, write};

/// A whole bundle. Lists are sorted, so that equal facts have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What it is about.
    pub scope: Scope,
    /// Manifests, by name.
    pub files: Vec<ManifestFile>,
    /// Who runs, in the mesh or beside it, by namespace and name.
    pub workloads: Vec<Workload>,
    /// State of each log, by origin.
    pub logs: Vec<Log>,
    /// Decisions by class.
    pub traffic: Vec<Traffic>,
    /// Denials by namespace and hour.
    pub denials: Vec<DenialHour>,
    /// Certificates that the CA logged, by serial.
    pub certificates: Vec<Certificate>,
    /// Certificates that clients showed, by serial.
    pub observed: Vec<Observed>,
    /// Changes of policy, in their order.
    pub changes: Vec<Change>,
    /// What people did to trust, to the mesh, and with grants for emergencies, by time.
    pub actions: Vec<Action>,
    /// Zones whose borders are to be proved, by name.
    pub zones: Vec<Zone>,
}

/// One line of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "item", rename_all = "kebab-case")]
pub enum Item {
    /// Always the first.
    Scope(Scope),
    /// A file of manifests.
    File(ManifestFile),
    /// A workload.
    Workload(Workload),
    /// A log.
    Log(Log),
    /// A class of decisions.
    Traffic(Traffic),
    /// Denials of an hour.
    Denials(DenialHour),
    /// A certificate of the issuance log.
    Certificate(Certificate),
    /// A certificate on the wire.
    Observed(Observed),
    /// A change of policy.
    Change(Change),
    /// Something that somebody did.
    Action(Action),
    /// A zone.
    Zone(Zone),
}

/// What a bundle is about, and under which settings its policy is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Begin of the window: earlier decisions and changes are not counted.
    pub since: Timestamp,
    /// End of the window, and the time at which everything is judged.
    pub until: Timestamp,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Default policy of ports without a Server.
    pub default_policy: String,
    /// Generation of the policy; 0 if it was not in force anywhere.
    pub generation: u64,
    /// `running`, `state`, `cluster` or `files`: what it was collected from.
    pub collected_from: String,
    /// Version of the program that collected it.
    pub collector: String,
    /// Longest life of a workload's certificate that the organisation accepts, seconds.
    pub leaf_lifetime_secs_max: u64,
}

/// A file of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name, as reports give places in it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Something that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service account.
    pub service_account: String,
    /// Whether a proxy of the mesh stands before it.
    pub meshed: bool,
    /// Share of allowed requests that its proxy records, millionths; 1,000,000: all. 0 without a proxy.
    pub allow_sample_ppm: u32,
}

/// A log, and whether it was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Whose: `shop.orders`, `controller`, `issuance`.
    pub origin: String,
    /// What it records.
    pub records: LogKind,
    /// Namespace of its workload; none for one of the control plane.
    pub namespace: Option<String>,
    /// Its workload.
    pub workload: Option<String>,
    /// Entries that were proved, all of the log.
    pub entries: u64,
    /// Decisions within the window that were proved.
    pub decisions: u64,
    /// Of these, denials.
    pub denied: u64,
    /// Decisions that lack something they must have, by what.
    pub incomplete: BTreeMap<String, u64>,
    /// Decisions of which the log cut a text.
    pub cut: u64,
    /// Gaps that the log notes, within the window.
    pub gaps: u64,
    /// Entries that those gaps say are missing.
    pub lost: u64,
    /// Entries whose time lies before the one of an earlier entry.
    pub clock_back: u64,
    /// Time of the first entry.
    pub first: Option<Timestamp>,
    /// Time of the last.
    pub last: Option<Timestamp>,
    /// The last entry that a signature covers; none: a cut tail would not be found.
    pub sealed_through: Option<u64>,
    /// Hash of that entry, or root of the tree, lower-case hex.
    pub root: Option<String>,
    /// Whether every allow is counted by class, beside the records of a sample.
    pub counts_allows: bool,
    /// Why it is not proved to its end, if so. Nothing after that place was counted.
    pub broken: Option<Broken>,
}

/// What a log records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// Decisions of a proxy.
    Decisions,
    /// Changes of policy.
    Changes,
    /// Certificates.
    Issuance,
    /// What those who operate the mesh did.
    Operation,
}

/// Why a log is not proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broken {
    /// `MESH-nnnn`.
    pub code: String,
    /// In words.
    pub message: String,
    /// The first bad line, from 1; 0 if the log could not be begun.
    pub line: u64,
}

/// Decisions that have all of this in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Namespace of the server.
    pub namespace: String,
    /// Workload.
    pub workload: String,
    /// Port of the pod.
    pub port: u16,
    /// The Server that spoke for the port; none: the default policy.
    pub server: Option<String>,
    /// Identity of the client, if it was verified.
    pub client: Option<String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// An address it came from.
    pub ip: Option<String>,
    /// How the bytes were read.
    pub protocol: Protocol,
    /// Method of HTTP.
    pub method: Option<String>,
    /// `kind/namespace/name/rule`.
    pub route: Option<String>,
    /// Allowed or not.
    pub verdict: Verdict,
    /// Layer that decided.
    pub phase: Phase,
    /// HTTP status.
    pub status: Option<u16>,
    /// All policies that allow it, or forbid it.
    pub reasons: Vec<String>,
    /// Allowed by audit policies alone.
    pub audit: bool,
    /// Decisions that were counted.
    pub count: u64,
    /// Time of the first.
    pub first: Option<Timestamp>,
    /// Time of the last.
    pub last: Option<Timestamp>,
}

/// Denials of one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenialHour {
    /// Namespace of the server.
    pub namespace: String,
    /// Begin of the hour, seconds since 1970.
    pub hour: i64,
    /// How many.
    pub count: u64,
}

/// A certificate that the CA intended to sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// Root, issuer or leaf.
    pub what: What,
    /// The identity in it.
    pub spiffe_id: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
    /// When it was intended.
    pub time: Timestamp,
    /// SHA-256 of its key, hex.
    pub key_sha256: String,
    /// Key identifier of its issuer, hex; none for a root.
    pub signed_by: Option<String>,
    /// How the requester was attested.
    pub evidence: String,
    /// What became of it.
    pub state: Issuance,
}

/// Kind of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A trust anchor.
    Root,
    /// Signs leaves.
    Issuer,
    /// A workload's.
    Leaf,
}

/// What became of an intent to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Issuance {
    /// Signed.
    Signed,
    /// Not signed.
    Failed,
    /// Neither is logged.
    Open,
}

/// A certificate that clients showed to proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The identity in it.
    pub spiffe_id: String,
    /// End of its validity, as the proxy saw it.
    pub expires: Option<Timestamp>,
    /// Namespace of the server that saw it first.
    pub seen_in: String,
    /// Decisions about its holder.
    pub count: u64,
    /// Of these, allowed.
    pub allowed: u64,
    /// Time of the last.
    pub last: Option<Timestamp>,
    /// Time of the last that was allowed.
    pub last_allowed: Option<Timestamp>,
}

/// A change of policy that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When.
    pub time: Timestamp,
    /// The new generation.
    pub generation: u64,
    /// SHA-256 over all sources, hex.
    pub digest: String,
    /// Files that are new, changed or gone.
    pub files: Vec<String>,
    /// Workloads whose policy changed.
    pub workloads_changed: u64,
    /// Policy objects that are new (`+`), different (`~`) or gone (`-`); none: only what runs changed. Absent: not known.
    pub objects: Option<Vec<String>>,
    /// Who made it, if that is known.
    pub author: Option<Said>,
    /// Who agreed to it, if that is known.
    pub approver: Option<Said>,
    /// Pairs of a class of clients and a class of requests that it allowed.
    pub gained: Option<u64>,
    /// Pairs that it took away.
    pub lost: Option<u64>,
    /// Whether every class was asked for these two.
    pub exact: Option<bool>,
    /// The same in words.
    pub access: Vec<String>,
    /// Whether it is the policy that the mesh started with, not a change of one.
    pub initial: bool,
}

/// What was said of people, and how it was known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Whom it names.
    pub who: Vec<String>,
    /// The weakest of its ways of knowing.
    pub from: SaidBy,
}

/// How it is known who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaidBy {
    /// An annotation of the object, in the log of changes.
    Annotation,
    /// The field manager that an API server noted, in the log of changes.
    FieldManager,
    /// The owner of the file, in the log of changes.
    FileOwner,
    /// Whoever collected the bundle said so, in a file of approvals; no log holds it.
    Collector,
}

/// Something that somebody did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// When.
    pub time: Timestamp,
    /// To what.
    pub kind: ActionKind,
    /// What, in a word: `opened`, `closed`, `rotate`, `deny`, `start`.
    pub action: String,
    /// The grant; else whose log says so.
    pub subject: String,
    /// Who, as far as the log says.
    pub by: String,
    /// What came of it, or what for.
    pub detail: String,
    /// When a grant ends by itself.
    pub until: Option<Timestamp>,
}

/// What something was done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// A grant for emergencies.
    BreakGlass,
    /// Anchors, issuers, the deny list.
    Trust,
    /// The mesh itself.
    Admin,
}

impl Scope {
    /// Whether logs were out of the collector's reach: that they are not proved says nothing about them then.
    pub fn without_logs(&self) -> bool {
        self.collected_from == "cluster"
    }
}

impl Said {
    /// For people: the names, and in brackets how they are known.
    pub fn text(&self) -> String {
        let from = match self.from {
            SaidBy::Annotation => "annotation",
            SaidBy::FieldManager => "field manager",
            SaidBy::FileOwner => "file owner",
            SaidBy::Collector => "given when collected",
        };
        format!("{} [{from}]", self.who.join(", "))
    }
}

impl Change {
    /// Whether it is a change of policy; else only what runs changed. One of which it is not known counts.
    pub fn is_of_policy(&self) -> bool {
        !self.initial && self.objects.as_ref().is_none_or(|all| !all.is_empty())
    }

    /// Whether somebody agreed to it who did not make it.
    pub fn is_approved(&self) -> bool {
        // `ben (CHG-4711)` is ben.
        let name = |text: &String| {
            text.split(" (")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let made: Vec<String> = self
            .author
            .iter()
            .flat_map(|said| said.who.iter().map(name))
            .collect();
        let mut agreed = self
            .approver
            .iter()
            .flat_map(|said| said.who.iter().map(name));
        agreed.any(|who| !who.is_empty() && !made.contains(&who))
    }
}

/// A part of the mesh that only some may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its name: `cde`, `phi`, `prod`.
    pub name: String,
    /// Namespaces in it.
    pub namespaces: Vec<String>,
    /// Namespaces, beside its own, whose identities may reach it.
    #[serde(default)]
    pub from: Vec<String>,
}

impl Bundle {
    /// Everything as lines, in the order that a bundle has.
    pub fn items(&self) -> impl Iterator<Item = Item> + '_ {
        fn each<'b, T: Clone>(
            all: &'b [T],
            item: fn(T) -> Item,
        ) -> impl Iterator<Item = Item> + 'b {
            all.iter().cloned().map(item)
        }
        std::iter::once(Item::Scope(self.scope.clone()))
            .chain(each(&self.files, Item::File))
            .chain(each(&self.workloads, Item::Workload))
            .chain(each(&self.logs, Item::Log))
            .chain(each(&self.traffic, Item::Traffic))
            .chain(each(&self.denials, Item::Denials))
            .chain(each(&self.certificates, Item::Certificate))
            .chain(each(&self.observed, Item::Observed))
            .chain(each(&self.changes, Item::Change))
            .chain(each(&self.actions, Item::Action))
            .chain(each(&self.zones, Item::Zone))
    }

    /// A bundle of nothing but a scope.
    pub fn of(scope: Scope) -> Self {
        Self {
            scope,
            files: Vec::new(),
            workloads: Vec::new(),
            logs: Vec::new(),
            traffic: Vec::new(),
            denials: Vec::new(),
            certificates: Vec::new(),
            observed: Vec::new(),
            changes: Vec::new(),
            actions: Vec::new(),
            zones: Vec::new(),
        }
    }

    fn add(&mut self, item: Item) -> Result<(), &'static str> {
        match item {
            Item::Scope(_) => return Err("there is a second scope"),
            Item::File(one) => self.files.push(one),
            Item::Workload(one) => self.workloads.push(one),
            Item::Log(one) => self.logs.push(one),
            Item::Traffic(one) => self.traffic.push(one),
            Item::Denials(one) => self.denials.push(one),
            Item::Certificate(one) => self.certificates.push(one),
            Item::Observed(one) => self.observed.push(one),
            Item::Change(one) => self.changes.push(one),
            Item::Action(one) => self.actions.push(one),
            Item::Zone(one) => self.zones.push(one),
        }
        Ok(())
    }
}
