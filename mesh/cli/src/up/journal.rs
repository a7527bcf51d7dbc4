//! What those who operate a mesh on one machine did, in the mesh's one log: starts and ends, and which parts ended by
//! themselves.

use super::UpError;
use mesh_audits::entry::{Action, Entry};
use mesh_platform::audit_log::{AuditLog, AuditLogConfig};
use mesh_platform::{Platform, System};
use std::path::Path;
use std::sync::Arc;

/// Origin of the log: `supervisor.jsonl` beside those of the proxies.
pub(crate) const SUPERVISOR: &str = "supervisor";

/// The open log. Dropping it writes and seals what was given.
pub(super) struct Journal {
    log: AuditLog,
    by: String,
    platform: Arc<System>,
}

impl Journal {
    /// Opens the log in the folder of logs.
    ///
    /// # Errors
    /// [`UpError::StateDir`]: a mesh that cannot record does not start.
    pub(super) fn open(folder: &Path) -> Result<Self, UpError> {
        let platform = System::new();
        let config = AuditLogConfig::new(folder.to_owned(), SUPERVISOR, env!("CARGO_PKG_VERSION"));
        let log = AuditLog::open(&config, Arc::clone(&platform) as Arc<dyn Platform>);
        let log = log.map_err(|error| UpError::StateDir {
            path: folder.display().to_string(),
            why: error.to_string(),
        })?;
        let (uid, pid) = (rustix::process::getuid().as_raw(), std::process::id());
        Ok(Self {
            log,
            by: format!("uid {uid} (pid {pid})"),
            platform,
        })
    }

    /// What the operator did.
    pub(super) fn did(&self, action: &str, detail: String) {
        self.note(action, self.by.clone(), detail);
    }

    /// What happened by itself.
    pub(super) fn happened(&self, action: &str, detail: String) {
        self.note(action, "nobody".to_owned(), detail);
    }

    fn note(&self, action: &str, by: String, detail: String) {
        // A full queue is counted in the log itself.
        let _ = self.log.handle().record(Entry::Admin(Action {
            time: self.platform.wall_clock(),
            action: action.to_owned(),
            by,
            detail,
        }));
    }
}
