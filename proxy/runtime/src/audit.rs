//! Decision records on their way to the log, never in the way of a request.

use crate::config::ProxyConfig;
use crate::error::ProxyError;
use mesh_api::admin::AuditStatus;
use mesh_audits::Entry;
use mesh_audits::entry::{AllowCounts, Equivalence};
use mesh_platform::Platform;
use mesh_platform::audit_log::{AuditHandle, AuditLog, AuditLogConfig};
use mesh_policy::record::DecisionRecord;
use std::path::Path;
use std::sync::Arc;

/// Where cores put their records. Without a log they are dropped; metrics count decisions in any case.
#[derive(Clone, Default)]
pub(crate) struct Records(Option<AuditHandle>);

impl Records {
    /// Hands over a record; if the queue is full, it is counted and the log says that a gap is there.
    pub(crate) fn send(&self, record: DecisionRecord) {
        if let Some(log) = &self.0 {
            log.record(Entry::Decision(Box::new(record)));
        }
    }

    /// Hands over counts of what was allowed. False if the log does not take them now: they are not lost then, because
    /// whoever counted keeps them.
    pub(crate) fn send_counts(&self, counts: AllowCounts) -> bool {
        match &self.0 {
            Some(log) => log.offer(Entry::Counts(counts)),
            None => true,
        }
    }

    /// Whether nothing may be allowed now, because the log is strict and takes nothing.
    pub(crate) fn refuses(&self) -> bool {
        self.0.as_ref().is_some_and(AuditHandle::refuses)
    }

    /// Counts a request that was refused because it could not be recorded; the log's next gap tells of it.
    pub(crate) fn count_unrecorded(&self) {
        if let Some(log) = &self.0 {
            log.count_lost();
        }
    }

    /// Writes what came of holding the policy in force against Cedar.
    pub(crate) fn send_equivalence(&self, equivalence: Equivalence) {
        if let Some(log) = &self.0 {
            log.record(Entry::Equivalence(equivalence));
        }
    }

    pub(crate) fn status(&self) -> AuditStatus {
        self.0.as_ref().map_or_else(AuditStatus::default, |log| {
            let counts = log.counts();
            AuditStatus {
                written: counts.written,
                lost: counts.lost,
                failing: counts.failing,
            }
        })
    }
}

/// Opens the log that the configuration names. Drop the log last: that writes and seals what is queued.
///
/// # Errors
/// [`ProxyError::Audit`]: a proxy that was told to record does not run unrecorded.
pub(crate) fn open(
    config: &ProxyConfig,
    platform: Arc<dyn Platform>,
) -> Result<(Option<AuditLog>, Records), ProxyError> {
    let Some(audit) = &config.audit else {
        return Ok((None, Records::default()));
    };
    let fault = |why: String| ProxyError::Audit {
        path: audit.file.clone(),
        why,
    };
    let name = audit.file.file_name().and_then(|name| name.to_str());
    let origin = name
        .and_then(|name| name.strip_suffix(".jsonl"))
        .ok_or_else(|| fault("its name must end in `.jsonl`".to_owned()))?;
    let directory = audit.file.parent().unwrap_or(Path::new("."));
    let log = AuditLog::open(
        &AuditLogConfig {
            allow_sample: Some(audit.allow_sample),
            retention: audit.retention,
            when_full: audit.when_full,
            redactable: audit.redactable.clone(),
            ..AuditLogConfig::new(directory.to_owned(), origin, env!("CARGO_PKG_VERSION"))
        },
        platform,
    )
    .map_err(|error| fault(error.to_string()))?;
    let records = Records(Some(log.handle()));
    Ok((Some(log), records))
}
