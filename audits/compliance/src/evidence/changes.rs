//! E9: changes of policy, who made and approved them, what people did to trust and the mesh, and what must hold whatever
//! policies say.

use super::metric::Reading;
use super::{Evidence, Finding, MESH, Severity, Sheet, Table};
use crate::bundle::{ActionKind, Change, LogKind, Said, SaidBy};
use crate::facts::Facts;
use mesh_policy_analysis::prove::{Proof, Question, prove};

/// E9.
pub fn changes(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "time",
        "generation",
        "what changed",
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
            what_changed(change),
            change.workloads_changed.to_string(),
            number(change.gained),
            number(change.lost),
            change.author.as_ref().map_or_else(none, Said::text),
            change.approver.as_ref().map_or_else(none, Said::text),
            change.digest.clone(),
        ]);
    }
    let count = facts
        .bundle
        .changes
        .iter()
        .filter(|one| one.is_of_policy())
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
        "e9.approvals_not_logged",
    ];
    sheet.count(&checks, MESH, otherwise.as_ref());
    actions(facts, &mut sheet, &mut table);
    invariants(facts, &mut sheet, &mut table);
    let notes = vec![
        "A change is what the controller put into force, as its log says. Who made and who approved it is said by annotations that were written with it (whoever may write the object may write them), by the owner of the file, by the field manager that an API server noted (programs name themselves), or by a file of approvals when the bundle was collected (no log holds that).".to_owned(),
        "Access gained and lost are pairs of a class of clients and a class of requests at a port; outside of the mesh, of a workload and what it may send there. `mesh audit collect` keeps them in words.".to_owned(),
        "Who did something to trust or to the mesh is the user of the process that asked. Changes of programs, of configuration and of the machines are not seen.".to_owned(),
    ];
    sheet.evidence(
        "E9",
        "Change control of policy, and what was done to trust and the mesh",
        table,
        notes,
    )
}

pub(super) fn unknown(facts: &Facts<'_>) -> Option<String> {
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
    if !change.is_of_policy() {
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
    let given = "write `mesh.internal/author` and `mesh.internal/approver` into the objects with each change, or give the approvals of this digest: `mesh audit collect --approvals FILE`";
    if change.author.is_none() {
        find(
            "e9.without_author",
            Severity::Medium,
            "no known author",
            given,
        );
    }
    if !change.is_approved() {
        let what = match change.approver {
            None => "no known approver",
            Some(_) => "no approver but its author",
        };
        find("e9.without_approver", Severity::Medium, what, given);
    } else if let Some(Said {
        from: SaidBy::Collector,
        ..
    }) = change.approver
    {
        find(
            "e9.approvals_not_logged",
            Severity::Low,
            "an approver that no log names, only a file that was given to the collector",
            "write `mesh.internal/approver` into the objects with each change: then the log of changes holds it",
        );
    }
    if change.gained.is_none() || change.lost.is_none() {
        find(
            "e9.without_effect_known",
            Severity::Low,
            "no record of the access it gave and took",
            "the controller finds it after the change, and did not: `mesh authz diff` two revisions of the policy",
        );
    }
}

fn what_changed(change: &Change) -> String {
    let objects = change.objects.as_deref().unwrap_or_default();
    match change {
        one if one.initial => "(the first policy)".to_owned(),
        one if one.objects.is_none() => one.files.join(", "),
        _ if objects.is_empty() => "(what runs)".to_owned(),
        _ => objects.join(", "),
    }
}

/// What people did to trust and to the mesh.
fn actions(facts: &Facts<'_>, sheet: &mut Sheet, table: &mut Table) {
    for (kind, metric) in [
        (ActionKind::Trust, "e9.trust_actions"),
        (ActionKind::Admin, "e9.admin_actions"),
    ] {
        let all = facts.bundle.actions.iter().filter(|one| one.kind == kind);
        sheet.read(metric, MESH, Reading::count(all.clone().count() as u64));
        for one in all {
            let mut row = vec![
                one.time.to_string(),
                "-".to_owned(),
                format!("{} ({}): {}", one.action, one.subject, one.detail),
            ];
            row.extend(std::iter::repeat_n("-".to_owned(), 3));
            row.extend([one.by.clone(), "-".to_owned(), "-".to_owned()]);
            table.row(row);
        }
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
