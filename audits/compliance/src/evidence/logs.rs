//! E7: whether decisions are recorded in full. E8: whether the record can be relied on.

use super::metric::{Number, Reading};
use super::{Evidence, Finding, MESH, Severity, Sheet, Table};
use crate::bundle::{Log, LogKind};
use crate::facts::Facts;
use mesh_trust::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// E7.
pub fn records(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "log",
        "decisions",
        "denied",
        "incomplete",
        "cut",
        "clock back",
        "first",
        "last",
    ]);
    // Decisions, incomplete ones, steps of the clock.
    let mut sums: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for log in &facts.bundle.logs {
        let scope = scope_of(log);
        let incomplete = log.incomplete.values().copied().max().unwrap_or_default();
        let [decisions, missing, back] = sums.entry(scope).or_default();
        *decisions = decisions.saturating_add(log.decisions);
        *missing = missing.saturating_add(incomplete);
        *back = back.saturating_add(log.clock_back);
        if log.clock_back > 0 {
            let message = format!(
                "{} entries of the log {} have a time before an earlier entry's",
                log.clock_back, log.origin
            );
            let finding = Finding::new(
                "e7.clock_steps_back",
                scope,
                &log.origin,
                Severity::Medium,
                message,
            );
            sheet.find(finding.hint("look at the time synchronisation of its machine"));
        }
        if incomplete > 0 {
            let what: Vec<String> = log
                .incomplete
                .iter()
                .map(|(what, count)| format!("{what} ({count})"))
                .collect();
            let message = format!(
                "decisions in the log {} lack: {}",
                log.origin,
                what.join(", ")
            );
            let finding = Finding::new(
                "e7.complete_percent",
                scope,
                &log.origin,
                Severity::Medium,
                message,
            );
            sheet.find(finding.hint("this is a fault of the proxy: report it"));
        }
        let incomplete: Vec<String> = log
            .incomplete
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        table.row(vec![
            log.origin.clone(),
            log.decisions.to_string(),
            log.denied.to_string(),
            if incomplete.is_empty() {
                "0".to_owned()
            } else {
                incomplete.join(", ")
            },
            log.cut.to_string(),
            log.clock_back.to_string(),
            time(log.first),
            time(log.last),
        ]);
    }
    for namespace in &facts.namespaces {
        let told = facts.telemetry(namespace);
        let [decisions, missing, back] = sums.get(namespace.as_str()).copied().unwrap_or_default();
        let otherwise = if told.meshed.is_empty() && decisions == 0 {
            Some(Reading::NotApplicable("no proxy stands there".to_owned()))
        } else {
            told.unknown().map(Reading::Unknown)
        };
        let or = |reading: Reading| otherwise.clone().unwrap_or(reading);
        sheet.read("e7.records", namespace, or(Reading::count(decisions)));
        let percent = match decisions {
            0 => Reading::NotApplicable("nothing was decided in the window".to_owned()),
            all => Reading::Value(Number::percent(all.saturating_sub(missing), all)),
        };
        sheet.read("e7.complete_percent", namespace, or(percent));
        sheet.read("e7.clock_steps_back", namespace, or(Reading::count(back)));
    }
    let back = sums.get(MESH).map_or(0, |sum| sum[2]);
    sheet.read("e7.clock_steps_back", MESH, Reading::count(back));
    let notes = vec![
        "A decision is complete if it has time, generation, source address, target, verdict and layer; an allow also its policies; a client with an identity also the serial number of its certificate.".to_owned(),
        "Whether clocks agree with a time source is not seen; that they do not step back within a log is.".to_owned(),
    ];
    sheet.evidence("E7", "Completeness of decision records", table, notes)
}

/// E8.
pub fn integrity(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "log",
        "records",
        "entries",
        "sealed through",
        "root",
        "gaps",
        "lost",
        "proved",
    ]);
    let mut logs: BTreeMap<&str, Vec<&Log>> = BTreeMap::new();
    for log in &facts.bundle.logs {
        let scope = scope_of(log);
        logs.entry(scope).or_default().push(log);
        if !facts.bundle.scope.without_logs() {
            check(log, scope, &mut sheet);
        }
        let number = |number: Option<u64>| {
            number.map_or_else(|| "-".to_owned(), |number| number.to_string())
        };
        table.row(vec![
            log.origin.clone(),
            kind(log.records).to_owned(),
            log.entries.to_string(),
            number(log.sealed_through),
            log.root.clone().unwrap_or_else(|| "-".to_owned()),
            log.gaps.to_string(),
            log.lost.to_string(),
            match &log.broken {
                None => "yes".to_owned(),
                Some(broken) => format!(
                    "NO: {} at line {}: {}",
                    broken.code, broken.line, broken.message
                ),
            },
        ]);
    }
    missing(facts, &mut sheet);
    let scopes = facts.namespaces.iter().map(String::as_str).chain([MESH]);
    for scope in scopes {
        let none = Vec::new();
        read_integrity(facts, scope, logs.get(scope).unwrap_or(&none), &mut sheet);
    }
    let notes = vec![
        "A log was proved when the bundle was collected; what was after a first bad line was not counted. `mesh audit verify` proves it again from the files.".to_owned(),
        "Who holds a log's signing key can write another history; a copy of the checkpoints elsewhere is the answer to that.".to_owned(),
    ];
    sheet.evidence("E8", "Integrity of the logs", table, notes)
}

fn read_integrity(facts: &Facts<'_>, scope: &str, logs: &[&Log], sheet: &mut Sheet) {
    let expected = scope == MESH || !facts.telemetry(scope).meshed.is_empty();
    let none = match facts.bundle.scope.without_logs() && !logs.is_empty() {
        true => Reading::Unknown(
            "the logs were not read: they stay in the pods of a cluster".to_owned(),
        ),
        false => Reading::NotApplicable("nothing there keeps a log".to_owned()),
    };
    let unread = matches!(none, Reading::Unknown(_));
    let otherwise = (unread || !expected && logs.is_empty()).then_some(&none);
    sheet.count(&["e8.unproved_logs", "e8.unsealed_logs"], scope, otherwise);
    let sum = |of: fn(&Log) -> u64| {
        logs.iter()
            .fold(0, |sum: u64, log| sum.saturating_add(of(log)))
    };
    for (metric, count) in [
        ("e8.gaps", sum(|log| log.gaps)),
        ("e8.lost_records", sum(|log| log.lost)),
    ] {
        sheet.read(
            metric,
            scope,
            otherwise.cloned().unwrap_or(Reading::count(count)),
        );
    }
    let window = &facts.bundle.scope;
    let whole = micros(window.since, window.until);
    let covered = logs.iter().map(|log| {
        let from = log.first.unwrap_or(window.until).max(window.since);
        Number::percent(micros(from, window.until), whole)
    });
    let reading = match (otherwise, covered.min()) {
        (Some(none), _) => none.clone(),
        (None, Some(_)) if whole == 0 => Reading::NotApplicable("the window is empty".to_owned()),
        (None, Some(least)) => Reading::Value(least),
        (None, None) => Reading::Unknown("there is no log".to_owned()),
    };
    sheet.read("e8.window_covered_percent", scope, reading);
}

fn check(log: &Log, scope: &str, sheet: &mut Sheet) {
    if let Some(broken) = &log.broken {
        let message = format!(
            "the log {} is not proved from line {} on: {} {}",
            log.origin, broken.line, broken.code, broken.message
        );
        let finding = Finding::new(
            "e8.unproved_logs",
            scope,
            &log.origin,
            Severity::High,
            message,
        );
        sheet.find(finding.hint("compare it with a copy, and find out who could write the file"));
    }
    if log.sealed_through.is_none() {
        let message = format!(
            "no signed checkpoint covers the log {}: a cut tail would not be found",
            log.origin
        );
        let finding = Finding::new(
            "e8.unsealed_logs",
            scope,
            &log.origin,
            Severity::Medium,
            message,
        );
        sheet.find(finding.hint("keep the checkpoint files with the logs"));
    }
    if log.lost > 0 {
        let message = format!(
            "the log {} says that {} records are missing, in {} gaps",
            log.origin, log.lost, log.gaps
        );
        let finding = Finding::new(
            "e8.lost_records",
            scope,
            &log.origin,
            Severity::High,
            message,
        );
        sheet.find(
            finding
                .hint("give it a disk that keeps up, or let the proxy deny what it cannot record"),
        );
    }
}

/// Workloads in the mesh without a log, and a mesh without a log of changes or certificates.
fn missing(facts: &Facts<'_>, sheet: &mut Sheet) {
    let logs = &facts.bundle.logs;
    let have: BTreeSet<(&str, &str)> = logs
        .iter()
        .filter_map(|log| Some((log.namespace.as_deref()?, log.workload.as_deref()?)))
        .collect();
    let mut find = |scope: &str, subject: &str, message: String| {
        let finding = Finding::new("e8.unproved_logs", scope, subject, Severity::High, message);
        sheet.find(finding.hint("find out where it went: a proxy makes its log when it starts"));
    };
    for one in facts.bundle.workloads.iter().filter(|one| one.meshed) {
        if !have.contains(&(one.namespace.as_str(), one.name.as_str())) {
            let name = format!("{}/{}", one.namespace, one.name);
            find(
                &one.namespace,
                &name,
                format!("there is no decision log of {name}"),
            );
        }
    }
    for (records, what) in [
        (LogKind::Changes, "changes of policy"),
        (LogKind::Issuance, "issued certificates"),
    ] {
        if !logs.iter().any(|log| log.records == records) {
            find(MESH, what, format!("there is no log of {what}"));
        }
    }
}

fn kind(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Decisions => "decisions",
        LogKind::Changes => "changes of policy",
        LogKind::Issuance => "certificates",
        LogKind::Operation => "operation",
    }
}

fn scope_of(log: &Log) -> &str {
    log.namespace.as_deref().unwrap_or(MESH)
}

fn micros(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.unix_micros().saturating_sub(from.unix_micros())).unwrap_or_default()
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
