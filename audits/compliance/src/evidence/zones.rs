//! E11: whether zones can be reached only from where they may be, by deciding every class of requests.

use super::metric::Reading;
use super::{Evidence, Finding, MESH, Severity, Sheet, Table};
use crate::facts::{Facts, ZoneFact};

/// E11.
pub fn zones(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "zone",
        "namespaces",
        "may be reached from",
        "workloads",
        "decisions",
        "result",
    ]);
    for fact in &facts.zones {
        let zone = &fact.zone;
        let result = examine(fact, &mut sheet);
        table.row(vec![
            zone.name.clone(),
            zone.namespaces.join(", "),
            if zone.from.is_empty() {
                "itself alone".to_owned()
            } else {
                format!("itself, {}", zone.from.join(", "))
            },
            fact.workloads.to_string(),
            fact.decisions.to_string(),
            result,
        ]);
    }
    // Nobody said what is to be kept apart, so nothing can be said about it.
    let zones = match facts.zones.len() {
        0 => Reading::Unknown("no zone was named (`--zones FILE`)".to_owned()),
        count => Reading::count(count as u64),
    };
    sheet.read("e11.zones", MESH, zones);
    let none = Reading::NotApplicable("no zone was named (`--zones FILE`)".to_owned());
    let checks = ["e11.zones_open", "e11.zones_undecided"];
    sheet.count(&checks, MESH, facts.zones.is_empty().then_some(&none));
    let notes = vec![
        "A zone is proved closed only if every class of clients and requests was decided at every port of its workloads, and none from outside was allowed. Declared probes are left out.".to_owned(),
        "The proof is about the mesh's policy. It does not speak about workloads without a proxy, and does not replace a test of penetration.".to_owned(),
    ];
    sheet.evidence("E11", "Segmentation", table, notes)
}

fn examine(fact: &ZoneFact, sheet: &mut Sheet) -> String {
    let zone = &fact.zone;
    if let Some(first) = fact.openings.first() {
        let more = match fact.openings.len() {
            1 => String::new(),
            more => format!(", and {} more", more - 1),
        };
        let witness = first
            .witness
            .as_ref()
            .and_then(|one| serde_json::to_string(one).ok());
        let message = format!(
            "zone {} is open: {} may reach {} by {}{more}",
            zone.name,
            first.who,
            first.asset,
            first.by.join(", ")
        );
        let finding = Finding::new("e11.zones_open", MESH, &zone.name, Severity::High, message);
        let hint = format!(
            "`mesh authz replay` shows it with {}",
            witness.unwrap_or_default()
        );
        sheet.find(finding.hint(&hint));
        return format!("OPEN: {} -> {}{more}", first.who, first.asset);
    }
    if let Some(why) = fact.notes.iter().next() {
        let message = format!("whether zone {} is closed cannot be told: {why}", zone.name);
        let finding = Finding::new(
            "e11.zones_undecided",
            MESH,
            &zone.name,
            Severity::Medium,
            message,
        );
        sheet.find(finding.hint("undecided is no success: simplify the policies that it names"));
        return format!("undecided: {why}");
    }
    "closed: proved over all classes".to_owned()
}
