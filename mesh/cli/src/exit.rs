//! Exit codes: every number that the command can end with, in one place.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It worked; for a verdict: allowed.
    Ok,
    /// It failed, or something that was checked is broken.
    Failure,
    /// The command line, or input that it names, cannot be understood.
    Usage,
    /// Only warnings, under `--fail-on warn`.
    Warnings,
    /// Gave up waiting.
    Timeout,
    /// The verdict is: denied.
    Denied,
    /// No verdict can be given from what is known.
    Undecidable,
    /// As another command ended that it ran.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Warnings => 3,
            Exit::Timeout => 4,
            Exit::Denied => 10,
            Exit::Undecidable => 11,
            Exit::Command(code) => code,
        })
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
