//! E9: changes of policy, who made and approved them, and what must hold whatever they say.

use super::metric::Reading;
use super::{Evidence, Finding, MESH, Severity, Sheet, Table};
use crate::bundle::{Change, LogKind};
use crate::facts::Facts;
use mesh_policy_analysis::prove::{Proof, Question, prove};

/// E9.
pub fn changes(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "time",
        "generation",
        "files",
        "workloads",
        "access gained",
        "access lost",
        "author",
        "approver",
        "policy digest",
    ]);
    for change in &facts.bundle.changes {
        check(change, &mut sheet);
        let none = || "-".to_owned();
        let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
        table.row(vec![
            change.time.to_string(),
            change.generation.to_string(),
            if change.initial {
                "(the first policy)".to_owned()
            } else {
                change.files.join(", ")
            },
            change.workloads_changed.to_string(),
            number(change.gained),
            number(change.lost),
            change.author.clone().unwrap_or_else(none),
            change.approver.clone().unwrap_or_else(none),
            change.digest.clone(),
        ]);
    }
    let count = facts
        .bundle
        .changes
        .iter()
        .filter(|one| !one.initial)
        .count() as u64;
    let otherwise = match unknown(facts) {
        Some(why) => Some(Reading::Unknown(why)),
        None if count == 0 => Some(Reading::NotApplicable(
            "policy did not change in the window".to_owned(),
        )),
        None => None,
    };
    let changes = match &otherwise {
        Some(Reading::Unknown(why)) => Reading::Unknown(why.clone()),
        _ => Reading::count(count),
    };
    sheet.read("e9.changes", MESH, changes);
    let checks = [
        "e9.without_author",
        "e9.without_approver",
        "e9.without_effect_known",
    ];
    sheet.count(&checks, MESH, otherwise.as_ref());
    invariants(facts, &mut sheet, &mut table);
    let notes = vec![
        "A change is what the controller put into force. Its author and approver are known only if they were given with it: `mesh audit collect --approvals`.".to_owned(),
        "Changes of programs, of the CA's configuration and of the machines are not seen.".to_owned(),
    ];
    sheet.evidence("E9", "Change control of policy", table, notes)
}

fn unknown(facts: &Facts<'_>) -> Option<String> {
    let mut logs = facts.bundle.logs.iter();
    match logs.find(|log| log.records == LogKind::Changes) {
        None => Some("there is no log of changes".to_owned()),
        Some(log) => log.broken.as_ref().map(|broken| {
            format!(
                "the log of changes is not proved from line {} on",
                broken.line
            )
        }),
    }
}

fn check(change: &Change, sheet: &mut Sheet) {
    if change.initial {
        return;
    }
    let subject = format!("generation {}", change.generation);
    let files = change.files.join(", ");
    let mut find = |check: &str, severity, what: &str, hint: &str| {
        let message = format!(
            "the change to generation {} at {} ({files}) has {what}",
            change.generation, change.time
        );
        sheet.find(Finding::new(check, MESH, &subject, severity, message).hint(hint));
    };
    let given = "say who changed and who approved the policy of this digest: `mesh audit collect --approvals FILE`";
    if change.author.is_none() {
        find(
            "e9.without_author",
            Severity::Medium,
            "no known author",
            given,
        );
    }
    match &change.approver {
        None => find(
            "e9.without_approver",
            Severity::Medium,
            "no known approver",
            given,
        ),
        Some(approver) if change.author.as_ref() == Some(approver) => {
            find(
                "e9.without_approver",
                Severity::Medium,
                "no approver but its author",
                given,
            );
        }
        Some(_) => {}
    }
    if change.gained.is_none() || change.lost.is_none() {
        find(
            "e9.without_effect_known",
            Severity::Low,
            "no record of the access it gave and took",
            "keep policy under version control, and `mesh authz diff` its revisions",
        );
    }
}

/// Proves every invariant about the policy of the bundle.
fn invariants(facts: &Facts<'_>, sheet: &mut Sheet, table: &mut Table) {
    let all = facts.index.invariants();
    for one in all {
        let proof = prove(
            &facts.index,
            &Question::Invariant(one),
            facts.bundle.scope.until,
        );
        let mut find = |check: &str, severity, message: String| {
            let finding = Finding::new(check, MESH, &one.id, severity, message);
            sheet.find(
                finding
                    .at(&one.source)
                    .hint("`mesh authz prove` shows a request that contradicts it"),
            );
        };
        let said = match &proof {
            Proof::Holds { decisions } => format!("holds ({decisions} decisions)"),
            Proof::Violated { why, .. } => {
                find(
                    "e9.invariants_violated",
                    Severity::High,
                    format!("{} is violated: {why}", one.id),
                );
                format!("VIOLATED: {why}")
            }
            Proof::Undecided { why } => {
                find(
                    "e9.invariants_undecided",
                    Severity::Medium,
                    format!("{} is not decided: {why}", one.id),
                );
                format!("undecided: {why}")
            }
        };
        let mut row = vec![
            facts.bundle.scope.until.to_string(),
            facts.bundle.scope.generation.to_string(),
            one.id.clone(),
        ];
        row.extend(std::iter::repeat_n("-".to_owned(), 5));
        row.push(said);
        table.row(row);
    }
    sheet.read("e9.invariants", MESH, Reading::count(all.len() as u64));
    let none = Reading::NotApplicable("no invariant is written".to_owned());
    let checks = ["e9.invariants_violated", "e9.invariants_undecided"];
    sheet.count(&checks, MESH, all.is_empty().then_some(&none));
}
