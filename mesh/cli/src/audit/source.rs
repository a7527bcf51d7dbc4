//! What a report is made of: a running mesh, the state directory that one left, or a bundle alone.

use super::collect::{self, Given};
use crate::fault::Fault;
use crate::live::LiveArgs;
use crate::parts::ApiServerArgs;
use clap::Args;
use mesh_compliance::bundle::{self, Bundle};
use mesh_compliance::limits::BUNDLE_BYTES_MAX;
use mesh_platform::files;
use mesh_trust::Timestamp;
use std::path::PathBuf;
use std::time::Duration;

/// What is reported on.
#[derive(Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// A bundle that `mesh audit collect` wrote, and nothing else: the window and all settings are in it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "zones", "approvals", "leaf_lifetime", "kubernetes"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    collected: CollectedArgs,
}

/// What is collected.
#[derive(Args, Clone, Debug)]
pub(crate) struct CollectedArgs {
    #[command(flatten)]
    pub(super) live: LiveArgs,
    /// Begin of the window: how long ago (`30d`, `12h`, `10m`), or a time, RFC 3339. Of a mesh that has ended, before its
    /// last record.
    #[arg(long, value_name = "AGE|TIME", default_value = "30d", value_parser = since)]
    pub(super) since: Since,
    /// Zones whose borders are to be proved: a file of YAML, docs/guides/audit-reports.md.
    #[arg(long, value_name = "FILE")]
    pub(super) zones: Option<PathBuf>,
    /// Who made and who approved which policy: a file of YAML, docs/guides/audit-reports.md.
    #[arg(long, value_name = "FILE")]
    pub(super) approvals: Option<PathBuf>,
    /// Longest life of a workload's certificate that is accepted.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::arguments::duration)]
    pub(super) leaf_lifetime: Duration,
    /// Of a Kubernetes cluster: its objects, the generation in force, and what proxies count. Logs stay in their pods, so what
    /// rests on them is insufficient data.
    #[arg(long, conflicts_with = "state")]
    pub(super) kubernetes: bool,
    #[command(flatten)]
    pub(super) api_server: ApiServerArgs,
}

/// Begin of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// So long before its end.
    Ago(Duration),
    /// This time.
    At(Timestamp),
}

/// A bundle and its bytes.
pub(crate) struct Source {
    /// As it is written to files.
    pub(crate) bytes: Vec<u8>,
    /// The same, read.
    pub(crate) bundle: Bundle,
}

impl SourceArgs {
    /// The bundle that the arguments mean.
    ///
    /// # Errors
    /// Exit code 2 if a named file cannot be read as what it should be, 1 if nothing can be collected.
    pub(crate) fn open(&self) -> Result<Source, Fault> {
        match &self.bundle {
            Some(file) => {
                let bytes =
                    files::read_limited(file, BUNDLE_BYTES_MAX).map_err(|e| Fault::usage(&e))?;
                let bundle = bundle::read(&bytes).map_err(|error| Fault::usage(&error))?;
                Ok(Source { bytes, bundle })
            }
            None => self.collected.open(),
        }
    }
}

impl CollectedArgs {
    /// Collects a bundle.
    ///
    /// # Errors
    /// As [`SourceArgs::open`].
    pub(crate) fn open(&self) -> Result<Source, Fault> {
        let given = Given::read(self.zones.as_deref(), self.approvals.as_deref())?;
        let bundle = collect::collect(self, given)?;
        let bytes = bundle::write(&bundle)?;
        Ok(Source { bytes, bundle })
    }
}

impl Since {
    /// The time, in a window that ends at `until`.
    pub(crate) fn time(self, until: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(age) => {
                let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
                Timestamp::from_unix_micros(until.unix_micros().saturating_sub(micros))
            }
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = crate::arguments::time(text) {
        return Ok(Since::At(time));
    }
    crate::arguments::duration(text)
        .map(Since::Ago)
        .map_err(|_| {
            format!("`{text}` is neither an age nor a time: write `30d` or `2026-01-31T12:00:00Z`")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_some_time_ago_or_at_a_time() {
        let until = Timestamp::from_unix_secs(1_000_000);
        let at = |text: &str| since(text).map(|since| since.time(until).unix_micros() / 1_000_000);
        assert_eq!(at("1d"), Ok(1_000_000 - 86_400));
        assert_eq!(at("1970-01-01T00:00:07Z"), Ok(7));
        for text in ["", "yesterday", "30", "-1d", "2026-13-01T00:00:00Z"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
