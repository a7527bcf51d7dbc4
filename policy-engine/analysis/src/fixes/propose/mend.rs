//! Mistakes that mend themselves: a field whose name is nearly right.

use super::Maker;
use mesh_policy::snapshot::{Finding, Source};
use mesh_policy_index::edit::Edit;

impl Maker<'_> {
    /// Proposes to rename every field of these findings whose right name is plain.
    pub(super) fn mend_all<'f>(&mut self, findings: impl Iterator<Item = &'f Finding>) {
        let mut draft = self.draft();
        let mut names = Vec::new();
        for finding in findings {
            let (Some(edit), Some(object)) = (rename(finding), &finding.object) else {
                continue;
            };
            if draft
                .edit(self.denied.files, &object.source, &edit)
                .is_some()
            {
                let Edit::Rename { to, .. } = edit else {
                    continue;
                };
                names.push(format!("`{to}` ({})", finding.source));
            }
        }
        if !names.is_empty() {
            self.offer(
                draft,
                format!("mend the name of {}", names.join(" and ")),
                None,
            );
        }
    }
}

/// The renaming that a finding about an unknown field hints at.
fn rename(finding: &Finding) -> Option<Edit> {
    let hint = finding.hint.as_deref()?;
    let to = hint.strip_prefix("did you mean `")?.strip_suffix("`?")?;
    let Source::File { line, column, .. } = &finding.source else {
        return None;
    };
    Some(Edit::Rename {
        line: *line,
        column: *column,
        to: to.to_owned(),
    })
}
