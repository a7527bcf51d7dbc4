//! What people give beside the logs: zones, and who approved which policy.

use crate::fault::Fault;
use mesh_compliance::bundle::{Change, Said, SaidBy, Zone};
use mesh_platform::files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Bytes of such a file; one line a zone or approval.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What was given.
#[derive(Clone, Debug, Default)]
pub(in crate::audit) struct Given {
    /// Zones, by name.
    pub(super) zones: Vec<Zone>,
    approvals: Vec<Approval>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZonesFile {
    zones: Vec<Zone>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalsFile {
    approvals: Vec<Approval>,
}

/// Who made and who approved the policy of a digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    digest: String,
    author: Option<String>,
    approver: Option<String>,
}

/// Why a file that was given says nothing.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum GivenError {
    #[error("{file}:{line}:{column}: {why}")]
    #[diagnostic(
        code("MESH-0673"),
        help("the forms of these files are in docs/guides/audit-reports.md")
    )]
    Malformed {
        file: String,
        line: u64,
        column: u64,
        why: String,
    },
}

impl Given {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// Exit code 2 with the place of the first fault.
    pub(in crate::audit) fn read(
        zones: Option<&Path>,
        approvals: Option<&Path>,
    ) -> Result<Self, Fault> {
        let mut given = Self::default();
        if let Some(file) = zones {
            let read: ZonesFile = read(file)?;
            given.zones = read.zones;
            given.zones.sort_by(|a, b| a.name.cmp(&b.name));
            check_zones(file, &given.zones)?;
        }
        if let Some(file) = approvals {
            let read: ApprovalsFile = read(file)?;
            given.approvals = read.approvals;
        }
        Ok(given)
    }

    /// Says who made and approved a change, where its record does not.
    pub(super) fn approve(&self, change: &mut Change) {
        for one in self
            .approvals
            .iter()
            .filter(|one| one.digest == change.digest)
        {
            let said = |who: &Option<String>| {
                who.clone().map(|who| Said {
                    who: vec![who],
                    from: SaidBy::Collector,
                })
            };
            // What people say of a commit is worth more than whose file it was.
            let by_owner = |said: &Said| said.from == SaidBy::FileOwner;
            if change.author.as_ref().is_none_or(by_owner) && one.author.is_some() {
                change.author = said(&one.author);
            }
            if change.approver.is_none() {
                change.approver = said(&one.approver);
            }
        }
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Fault> {
    let bytes = files::read_limited(file, FILE_BYTES_MAX).map_err(|error| Fault::usage(&error))?;
    let text = String::from_utf8_lossy(&bytes);
    serde_saphyr::from_str(&text).map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((1, 1), |at| (at.line(), at.column()));
        let why = error.without_snippet().to_string();
        let why = why.lines().next().unwrap_or_default().to_owned();
        malformed(file, line, column, why)
    })
}

fn check_zones(file: &Path, zones: &[Zone]) -> Result<(), Fault> {
    for pair in zones.windows(2) {
        if let [a, b] = pair
            && a.name == b.name
        {
            return Err(malformed(
                file,
                1,
                1,
                format!("zone `{}` stands twice", a.name),
            ));
        }
    }
    match zones
        .iter()
        .find(|zone| zone.name.is_empty() || zone.namespaces.is_empty())
    {
        Some(zone) => {
            let why = format!(
                "zone `{}` has no name or no namespace: nothing would be proved of it",
                zone.name
            );
            Err(malformed(file, 1, 1, why))
        }
        None => Ok(()),
    }
}

fn malformed(file: &Path, line: u64, column: u64, why: String) -> Fault {
    Fault::usage(&GivenError::Malformed {
        file: file.display().to_string(),
        line,
        column,
        why,
    })
}
