//! Exit codes: every number that the command can end with, in one place.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It worked; for a verdict: allowed.
    Ok = 0,
    /// It failed, or something that was checked is broken.
    Failure = 1,
    /// The command line, or input that it names, cannot be understood.
    Usage = 2,
    /// Only warnings, under `--fail-on warn`.
    Warnings = 3,
    /// Gave up waiting.
    Timeout = 4,
    /// The verdict is: denied.
    Denied = 10,
    /// No verdict can be given from what is known.
    Undecidable = 11,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<mesh_policy::decide::Verdict> for Exit {
    fn from(verdict: mesh_policy::decide::Verdict) -> Self {
        match verdict {
            mesh_policy::decide::Verdict::Allow => Self::Ok,
            mesh_policy::decide::Verdict::Deny => Self::Denied,
        }
    }
}
