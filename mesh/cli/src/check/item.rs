//! What one check says.

use serde::Serialize;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Status {
    /// Well.
    #[serde(rename = "ok")]
    Ok,
    /// It works, and needs a look.
    #[serde(rename = "warn")]
    Doubtful,
    /// It does not work.
    #[serde(rename = "fail")]
    Broken,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Item {
    /// Heading it stands under.
    pub(super) category: &'static str,
    /// How it went.
    pub(super) status: Status,
    /// What was found, in one sentence.
    pub(super) says: String,
    /// `MESH-nnnn`, unless it went well.
    pub(super) code: Option<String>,
    /// The command that mends it, unless it went well.
    pub(super) fix: Option<String>,
}

impl Item {
    /// A check that went well.
    pub(super) fn ok(category: &'static str, says: impl Into<String>) -> Self {
        Self {
            category,
            status: Status::Ok,
            says: says.into(),
            code: None,
            fix: None,
        }
    }

    /// Something that needs a look.
    pub(super) fn doubtful(
        category: &'static str,
        code: &str,
        says: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Doubtful,
            ..Self::broken(category, code, says, fix)
        }
    }

    /// Something that does not work.
    pub(super) fn broken(
        category: &'static str,
        code: &str,
        says: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (code, fix) = (Some(code.to_owned()), Some(fix.into()));
        Self {
            category,
            status: Status::Broken,
            says: says.into(),
            code,
            fix,
        }
    }
}
