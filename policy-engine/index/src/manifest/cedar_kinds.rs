//! CedarPolicy and ClusterCedarPolicy: policies that are written in Cedar.

use super::cedar_check::{Checked, Statement, check_text};
use super::core_kinds::Locate;
use super::read::{Fields, Reading};
use crate::finding::Code;
use mesh_policy::snapshot::{Effect, Term};

/// A CedarPolicy or ClusterCedarPolicy.
#[derive(Clone, Debug, Default)]
pub(crate) struct CedarPolicies {
    /// Its policies, in order of the text.
    pub(crate) statements: Vec<Statement>,
    /// Why it may hold more than was read, if so: then it closes what it might forbid.
    pub(crate) unread: Option<String>,
    /// How long they count; forbids of an invalid object count without end.
    pub(crate) term: Term,
}

/// Reads the spec of a Cedar kind. What is wrong with the object is noted; what is wrong with single policies is
/// returned with them.
pub(crate) fn read_cedar_policies(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    cluster_wide: bool,
    prefix: &str,
    locate: Locate<'_>,
) -> Checked {
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return Checked::default();
    };
    let mut allow_permits = true;
    if cluster_wide {
        let node = spec.optional(reading, "allowPermits");
        allow_permits = node.and_then(|n| reading.boolean(n, "spec.allowPermits")) == Some(true);
    }
    let mut out = Checked::default();
    if let Some(node) = spec.required(reading, "cedar")
        && let Some(text) = reading.text(node, "spec.cedar")
    {
        match check_text(node, text, prefix, locate) {
            Ok(checked) => out = checked,
            Err(problem) => reading.problems.push(problem),
        }
        let permits = out.statements.iter().filter(|s| s.effect == Effect::Permit);
        let mut permits = permits.peekable();
        if !allow_permits && let Some(permit) = permits.peek() {
            let message = format!(
                "`{}` is a permit for every namespace, and `spec.allowPermits` is not true",
                permit.id
            );
            out.problems.push(super::read::Problem {
                at: node.at,
                code: Code::CedarPermit,
                message,
                hint: None,
            });
        }
    }
    spec.finish(reading);
    out
}
