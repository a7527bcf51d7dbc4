//! A report: evidence of a bundle, held against frameworks. The same bundle and mappings give the same bytes.

use crate::bundle::{self, Bundle, LogKind};
use crate::evidence::{self, Evidence, Finding, Table};
use crate::facts::Facts;
use crate::framework::Framework;
use crate::judge::{FrameworkResult, judge};
use crate::limits::REVIEW_MAX;
use data_encoding::HEXLOWER;
use mesh_trust::Timestamp;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the form of a report.
pub const VERSION: u32 = 1;
const FORMAT: &str = "mesh.internal/audit-report";

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `mesh.internal/audit-report`.
    pub report: String,
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program that wrote it.
    pub generator: String,
    /// SHA-256 of the bundle it is made of, hex.
    pub bundle_sha256: String,
    /// What it is about.
    pub scope: ReportScope,
    /// How each framework stands.
    pub frameworks: Vec<FrameworkResult>,
    /// Everything that is not as it should be.
    pub findings: Vec<Finding>,
    /// The evidence.
    pub evidence: Vec<Evidence>,
    /// Who may reach which asset, by which grants.
    pub access_review: Table,
    /// Why the access review may not be complete.
    pub access_review_notes: Vec<String>,
}

/// What a report is about, and what it does not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportScope {
    /// Begin of the window.
    pub since: Timestamp,
    /// Its end, at which everything is judged.
    pub until: Timestamp,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Default policy of ports without a Server.
    pub default_policy: String,
    /// Generation of the policy.
    pub generation: u64,
    /// SHA-256 over names and texts of all manifests, hex.
    pub policy_sha256: String,
    /// What the bundle was collected from, and by which version.
    pub collected: String,
    /// Each namespace, and how much of it is seen.
    pub namespaces: Vec<NamespaceScope>,
    /// Workloads that stand outside the mesh: nothing here speaks about what they say to each other.
    pub unmeshed: Vec<String>,
    /// Each log, its end as it was proved, and whether it was.
    pub logs: Vec<LogScope>,
}

/// How much of a namespace is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceScope {
    /// The namespace.
    pub namespace: String,
    /// Workloads in the mesh.
    pub meshed: usize,
    /// Workloads outside.
    pub unmeshed: usize,
    /// What of its decisions is on record.
    pub sampling: String,
    /// Why some of its traffic is not known; empty: it is.
    pub missing: Vec<String>,
}

/// A log that the report rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogScope {
    /// Whose.
    pub origin: String,
    /// What it records.
    pub records: LogKind,
    /// Entries that were proved.
    pub entries: u64,
    /// Hash of the last sealed entry, or root of the tree.
    pub root: Option<String>,
    /// Whether it was proved to its end.
    pub proved: bool,
}

/// Why a report cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("{file}:{line}:{column}: the report cannot be read: {why}")]
#[diagnostic(
    code("MESH-0565"),
    help("name the `report.json` of a report, written by this version of `mesh`")
)]
pub struct ReportError {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What the reader says.
    pub why: String,
}

/// Makes a report of the bundle with these bytes. `bundle_sha256` is [`bundle::digest`] of them.
pub fn run(bundle: &Bundle, bundle_sha256: &str, frameworks: &[Framework]) -> Report {
    let facts = Facts::of(bundle);
    let mut all = evidence::all(&facts);
    let mut findings: Vec<Finding> = all.iter().flat_map(|one| one.findings.clone()).collect();
    findings.sort_by(|a, b| (a.severity, a).cmp(&(b.severity, b)));
    let results = frameworks.iter().map(|one| judge(one, &all, &findings));
    let frameworks = results.collect();
    for one in &mut all {
        one.table.shorten();
        one.findings.clear();
    }
    let mut access_review = review(&facts);
    access_review.rows.truncate(REVIEW_MAX);
    Report {
        report: FORMAT.to_owned(),
        version: VERSION,
        generator: env!("CARGO_PKG_VERSION").to_owned(),
        bundle_sha256: bundle_sha256.to_owned(),
        scope: scope(&facts),
        frameworks,
        findings,
        evidence: all,
        access_review,
        access_review_notes: facts.review_notes.iter().cloned().collect(),
    }
}

/// Evidence of one kind, with its whole table.
pub fn evidence(bundle: &Bundle, id: &str) -> Option<Evidence> {
    let facts = Facts::of(bundle);
    evidence::all(&facts)
        .into_iter()
        .find(|one| one.id.eq_ignore_ascii_case(id))
}

/// The whole access review of a bundle, and why it may not be complete.
pub fn access_review(bundle: &Bundle) -> (Table, Vec<String>) {
    let facts = Facts::of(bundle);
    let notes = facts.review_notes.iter().cloned().collect();
    (review(&facts), notes)
}

impl Report {
    /// Reads `report.json`.
    ///
    /// # Errors
    /// [`ReportError`] with the place of the first fault.
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, ReportError> {
        let wrong = |line, column, why: String| ReportError {
            file: file.to_owned(),
            line,
            column,
            why,
        };
        #[derive(Deserialize)]
        struct Any {
            report: String,
            version: u32,
        }
        let json =
            |error: serde_json::Error| wrong(error.line(), error.column(), error.to_string());
        let any: Any = serde_json::from_slice(text).map_err(json)?;
        if any.report != FORMAT {
            return Err(wrong(1, 1, format!("it is no `{FORMAT}`")));
        }
        if any.version != VERSION {
            let why = format!(
                "it has version {}; this program reads {VERSION}",
                any.version
            );
            return Err(wrong(1, 1, why));
        }
        serde_json::from_slice(text).map_err(json)
    }

    /// The text of `report.json`.
    pub fn to_json(&self) -> String {
        // Texts, numbers, lists and maps with text keys always have a JSON form.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// All findings, by their ids.
    pub fn by_id(&self) -> BTreeMap<&str, &Finding> {
        let findings = self.findings.iter();
        findings.map(|one| (one.id.as_str(), one)).collect()
    }

    /// Whether any control is not satisfied.
    pub fn has_failures(&self) -> bool {
        let mut controls = self.frameworks.iter().flat_map(|one| &one.controls);
        controls.any(|one| one.status == crate::judge::Status::NotSatisfied)
    }
}

fn scope(facts: &Facts<'_>) -> ReportScope {
    let (bundle, scope) = (facts.bundle, &facts.bundle.scope);
    let namespaces = facts.namespaces.iter().map(|name| {
        let told = facts.telemetry(name);
        NamespaceScope {
            namespace: name.clone(),
            meshed: told.meshed.len(),
            unmeshed: told.unmeshed.len(),
            sampling: told.sampling(),
            missing: told.missing.clone(),
        }
    });
    let unmeshed = bundle.workloads.iter().filter(|one| !one.meshed);
    let logs = bundle.logs.iter().map(|log| LogScope {
        origin: log.origin.clone(),
        records: log.records,
        entries: log.entries,
        root: log.root.clone(),
        proved: log.broken.is_none(),
    });
    ReportScope {
        since: scope.since,
        until: scope.until,
        trust_domain: scope.trust_domain.to_string(),
        default_policy: scope.default_policy.clone(),
        generation: scope.generation,
        policy_sha256: policy_sha256(bundle),
        collected: format!("from {} by mesh {}", scope.collected_from, scope.collector),
        namespaces: namespaces.collect(),
        unmeshed: unmeshed
            .map(|one| format!("{}/{}", one.namespace, one.name))
            .collect(),
        logs: logs.collect(),
    }
}

/// SHA-256 over names and texts of all manifests, each with its length as 8 bytes before it.
fn policy_sha256(bundle: &Bundle) -> String {
    let mut context = Context::new(&SHA256);
    for file in &bundle.files {
        for part in [&file.name, &file.text] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    HEXLOWER.encode(context.finish().as_ref())
}

/// Who may reach which asset: the matrix that owners confirm.
fn review(facts: &Facts<'_>) -> Table {
    let mut table = Table::new(&[
        "asset", "port", "who", "what", "from", "by", "owner", "last use",
    ]);
    let mut last: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (id, used) in &facts.uses {
        if let Some(time) = used.last {
            last.insert(id, time);
        }
    }
    for line in &facts.review {
        let policies: Vec<&str> = line
            .access
            .reasons
            .iter()
            .map(|one| one.policy.as_str())
            .collect();
        let owners: std::collections::BTreeSet<&str> = policies
            .iter()
            .filter_map(|id| facts.grants.get(*id)?.owner.as_deref())
            .collect();
        let used = policies.iter().filter_map(|id| last.get(id)).max();
        let list = |all: &[String], none: &str| match all {
            [] => none.to_owned(),
            all => all.join(", "),
        };
        let owners: Vec<&str> = owners.into_iter().collect();
        table.row(vec![
            line.asset.clone(),
            line.port.clone(),
            list(&line.access.who, "nobody"),
            list(&line.access.requests, "-"),
            list(&line.access.from, "any address"),
            policies.join(", "),
            if owners.is_empty() {
                "-".to_owned()
            } else {
                owners.join(", ")
            },
            used.map_or_else(|| "-".to_owned(), |time| time.to_string()),
        ]);
    }
    table
}

/// The findings with these ids, by scope.
pub(crate) fn by_scope<'r>(
    known: &BTreeMap<&str, &'r Finding>,
    ids: &[String],
) -> BTreeMap<&'r str, Vec<&'r Finding>> {
    let mut out: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in ids.iter().filter_map(|id| known.get(id.as_str()).copied()) {
        out.entry(&finding.scope).or_default().push(finding);
    }
    out
}

/// The bundle with these bytes and its report.
///
/// # Errors
/// [`bundle::BundleError`].
pub fn of_bytes(
    bytes: &[u8],
    frameworks: &[Framework],
) -> Result<(Bundle, Report), bundle::BundleError> {
    let read = bundle::read(bytes)?;
    let report = run(&read, &bundle::digest(bytes), frameworks);
    Ok((read, report))
}
