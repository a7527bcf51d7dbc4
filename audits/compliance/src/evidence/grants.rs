//! E4: what grants open. E5: which of them are used, and who may reach what. E12: broken glass.

use super::metric::Reading;
use super::{Evidence, Finding, Fix, MESH, Place, Severity, Sheet, Table};
use crate::bundle::ActionKind;
use crate::facts::{Facts, GrantFact, UseFact};
use mesh_policy_analysis::unused::State;
use std::collections::BTreeMap;

/// E4.
pub fn grants(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "grant",
        "lets in",
        "opens",
        "owner",
        "reason",
        "until",
        "declared at",
    ]);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for grant in facts
        .grants
        .values()
        .filter(|one| !one.expired(facts.bundle.scope.until))
    {
        let scope = scope_of(grant);
        *counts.entry(scope).or_default() += 1;
        let opens = check(grant, scope, &mut sheet);
        let none = || "-".to_owned();
        table.row(vec![
            grant.id.clone(),
            grant.who.join(", "),
            if opens.is_empty() {
                none()
            } else {
                opens.join(", ")
            },
            grant.owner.clone().unwrap_or_else(none),
            grant.reason.clone().unwrap_or_else(none),
            grant
                .term
                .expires
                .map_or_else(|| "always".to_owned(), |end| end.to_string()),
            grant.source.to_string(),
        ]);
    }
    for scope in scopes(facts, &counts) {
        let count = counts.get(scope).copied().unwrap_or_default();
        sheet.read("e4.grants", scope, Reading::count(count));
        let none = Reading::NotApplicable("no grant is in force there".to_owned());
        let checks = [
            "e4.wildcard_grants",
            "e4.unauthenticated_grants",
            "e4.any_network_grants",
            "e4.cross_namespace_grants",
            "e4.foreign_domain_grants",
            "e4.without_owner",
            "e4.without_reason",
        ];
        sheet.count(&checks, scope, (count == 0).then_some(&none));
    }
    let notes = vec![
        "Grants in force on some workload of the manifests; those that are in force nowhere stand under E5.".to_owned(),
        "What a policy written in Cedar opens is told by whom it was found to let in, among all classes of clients.".to_owned(),
    ];
    sheet.evidence("E4", "Grants", table, notes)
}

/// The checks that a grant fails, noted; in words.
fn check(grant: &GrantFact, scope: &str, sheet: &mut Sheet) -> Vec<&'static str> {
    let id = grant.id.as_str();
    let mut opens = Vec::new();
    let mut find = |check: &str, severity, message: String, hint: &str| {
        sheet.find(
            Finding::new(check, scope, id, severity, message)
                .at(&grant.source)
                .hint(hint),
        );
    };
    if grant.wildcard {
        opens.push("every identity");
        find(
            "e4.wildcard_grants",
            Severity::High,
            format!("{id} lets in every identity"),
            "name the identities that need it; `mesh authz suggest` writes them from recorded traffic",
        );
    }
    if grant.unauthenticated {
        opens.push("no identity");
        find(
            "e4.unauthenticated_grants",
            Severity::High,
            format!("{id} lets in clients without an identity"),
            "require an authentication",
        );
        if grant.any_network {
            opens.push("every address");
            find(
                "e4.any_network_grants",
                Severity::High,
                format!("{id} lets in clients without an identity from every address"),
                "require an authentication, or name networks",
            );
        }
    }
    if !grant.cross_namespace.is_empty() {
        opens.push("other namespaces");
        find(
            "e4.cross_namespace_grants",
            Severity::Low,
            format!(
                "{id} lets in identities of {}",
                grant.cross_namespace.join(", ")
            ),
            "confirm that its owner knows them",
        );
    }
    if !grant.foreign_domains.is_empty() {
        opens.push("other trust domains");
        find(
            "e4.foreign_domain_grants",
            Severity::Medium,
            format!(
                "{id} lets in identities of the trust domains {}",
                grant.foreign_domains.join(", ")
            ),
            "confirm that these domains are still trusted with it",
        );
    }
    if grant.owner.is_none() {
        find(
            "e4.without_owner",
            Severity::Low,
            format!("{id} names no owner"),
            "add the annotation `mesh.internal/owner` to its object",
        );
    }
    if grant.reason.is_none() {
        find(
            "e4.without_reason",
            Severity::Low,
            format!("{id} gives no reason"),
            "add the annotation `mesh.internal/reason` to its object",
        );
    }
    opens
}

/// E5.
pub fn review(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "grant",
        "state",
        "uses",
        "last use",
        "owner",
        "reason",
        "until",
        "declared at",
    ]);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, used) in &facts.uses {
        let scope = if used.namespace.is_empty() {
            MESH
        } else {
            &used.namespace
        };
        *counts.entry(scope).or_default() += 1;
        let grant = facts.grants.get(id);
        let state = state(facts, id, used, grant, scope, &mut sheet);
        let none = || "-".to_owned();
        table.row(vec![
            id.clone(),
            state,
            used.count.to_string(),
            used.last.map_or_else(none, |last| last.to_string()),
            grant.and_then(|one| one.owner.clone()).unwrap_or_else(none),
            grant
                .and_then(|one| one.reason.clone())
                .unwrap_or_else(none),
            grant
                .and_then(|one| one.term.expires)
                .map_or_else(none, |end| end.to_string()),
            used.source.clone(),
        ]);
    }
    for scope in scopes(facts, &counts) {
        read_review(facts, scope, counts.contains_key(scope), &mut sheet);
    }
    let notes = vec![
        "A use is an allowed request or connection with the grant among its reasons: as proxies count them by class, every one; as recorded where the log has no counts. The time of the last use is the end of the stretch of time that it was counted in. Who may reach which asset by which grant stands in the access review.".to_owned(),
    ];
    sheet.evidence("E5", "Access review", table, notes)
}

fn read_review(facts: &Facts<'_>, scope: &str, any: bool, sheet: &mut Sheet) {
    let none = Reading::NotApplicable("no grant stands there".to_owned());
    let otherwise = (!any).then_some(&none);
    sheet.count(&["e5.expired_grants", "e5.dead_grants"], scope, otherwise);
    let doubt = if scope == MESH {
        facts.namespaces.iter().find_map(|name| doubt(facts, name))
    } else {
        doubt(facts, scope)
    };
    for check in ["e5.unused_grants", "e5.unneeded_grants"] {
        let found = sheet.found(check, scope);
        let reading = match (otherwise, &doubt) {
            (Some(none), _) => none.clone(),
            // That nothing is unused holds whatever else was not recorded.
            (None, Some(why)) if found > 0 => {
                Reading::Unknown(format!("{found} were not seen in use, but {why}"))
            }
            (None, _) => Reading::count(found),
        };
        sheet.read(check, scope, reading);
    }
}

/// Why a use might have been missed.
fn doubt(facts: &Facts<'_>, namespace: &str) -> Option<String> {
    let told = facts.telemetry(namespace);
    let sampled = told
        .sample_ppm
        .map(|_| format!("the record holds {}", told.sampling()));
    told.unknown().or(sampled)
}

fn state(
    facts: &Facts<'_>,
    id: &str,
    used: &UseFact,
    grant: Option<&GrantFact>,
    scope: &str,
    sheet: &mut Sheet,
) -> String {
    let now = facts.bundle.scope.until;
    let expired = grant.is_some_and(|one| one.expired(now));
    let (check, severity, message) = match (&used.state, expired) {
        (_, true) => (
            "e5.expired_grants",
            Severity::Low,
            format!("{id} has ended, and still stands in the manifests"),
        ),
        (State::NeverApplies(why), _) => (
            "e5.dead_grants",
            Severity::Low,
            format!("{id} can never apply: {why}"),
        ),
        (State::NeverUsed, _) => (
            "e5.unused_grants",
            Severity::Medium,
            format!("no recorded request used {id}"),
        ),
        (State::NeverNeeded, _) => (
            "e5.unneeded_grants",
            Severity::Low,
            format!("all that {id} allowed was allowed by others too"),
        ),
        (State::Used, _) => return "used".to_owned(),
    };
    let mut finding = Finding::new(check, scope, id, severity, message)
        .hint("ask its owner whether it is needed; if not, remove it");
    finding.place = match grant {
        Some(one) => Place::of(&one.source),
        None => place_of(facts, &used.source),
    };
    if check != "e5.unneeded_grants" {
        finding.fix = finding
            .place
            .as_ref()
            .and_then(|place| removal(facts, place));
    }
    sheet.find(finding);
    match (&used.state, expired) {
        (_, true) => "expired".to_owned(),
        (State::NeverApplies(why), _) => format!("never applies: {why}"),
        (State::NeverUsed, _) => "never used".to_owned(),
        _ => "never needed".to_owned(),
    }
}

/// Takes the whole document out of its file, if it is all of it that the place covers.
fn removal(facts: &Facts<'_>, place: &Place) -> Option<Fix> {
    let text = &facts
        .bundle
        .files
        .iter()
        .find(|one| one.name == place.file)?
        .text;
    let lines: Vec<&str> = text.lines().collect();
    let (first, last) = (
        usize::try_from(place.line).ok()?,
        usize::try_from(place.end_line).ok()?,
    );
    let inside = lines.get(first.checked_sub(1)?..last)?;
    // A Cedar policy among others, or an item of a list, is no document of its own.
    let whole = inside.iter().any(|line| line.starts_with("kind:"))
        && inside.iter().any(|line| line.starts_with("apiVersion:"));
    whole.then(|| Fix {
        what: "remove the grant".to_owned(),
        line: place.line,
        end_line: place.end_line,
        text: String::new(),
    })
}

/// `file:line` as a place of that one line.
fn place_of(facts: &Facts<'_>, source: &str) -> Option<Place> {
    let (file, line) = source.rsplit_once(':')?;
    let line = line.parse().ok()?;
    facts
        .bundle
        .files
        .iter()
        .any(|one| one.name == file)
        .then(|| Place {
            file: file.to_owned(),
            line,
            end_line: line,
        })
}

/// E12.
pub fn break_glass(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let now = facts.bundle.scope.until;
    let mut table = Table::new(&[
        "grant",
        "reason",
        "until",
        "state",
        "uses",
        "last use",
        "declared at",
    ]);
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for grant in facts.grants.values() {
        let Some(reason) = &grant.term.break_glass else {
            continue;
        };
        let scope = scope_of(grant);
        let used = facts.uses.get(&grant.id);
        let uses = used.map_or(0, |one| one.count);
        let sum = counts.entry(scope).or_default();
        sum.0 += 1;
        sum.1 = sum.1.saturating_add(uses);
        let open = !grant.expired(now);
        if open {
            let message = format!("the break-glass grant {} is in force: {reason}", grant.id);
            let finding = Finding::new("e12.open", scope, &grant.id, Severity::Medium, message);
            sheet.find(
                finding
                    .at(&grant.source)
                    .hint("remove it once the emergency is over"),
            );
        }
        if grant.term.expires.is_none() {
            let message = format!("the break-glass grant {} has no end", grant.id);
            let finding = Finding::new("e12.unbounded", scope, &grant.id, Severity::High, message);
            sheet.find(
                finding
                    .at(&grant.source)
                    .hint("give it an end with `mesh.internal/expires`"),
            );
        }
        let none = || "-".to_owned();
        table.row(vec![
            grant.id.clone(),
            reason.clone(),
            grant.term.expires.map_or_else(none, |end| end.to_string()),
            if open { "open" } else { "closed" }.to_owned(),
            uses.to_string(),
            used.and_then(|one| one.last)
                .map_or_else(none, |last| last.to_string()),
            grant.source.to_string(),
        ]);
    }
    let opened = opened(facts, &mut table);
    for scope in scopes(facts, &counts) {
        let count = opened.get(scope).copied().unwrap_or_default();
        let reading = crate::evidence::changes::unknown(facts)
            .map_or(Reading::count(count), Reading::Unknown);
        sheet.read("e12.opened", scope, reading);
        let (grants, uses) = counts.get(scope).copied().unwrap_or_default();
        sheet.read("e12.break_glass_grants", scope, Reading::count(grants));
        let unknown = (scope != MESH)
            .then(|| facts.telemetry(scope).unknown())
            .flatten();
        let reading = unknown.map_or(Reading::count(uses), Reading::Unknown);
        sheet.read("e12.uses", scope, reading);
        sheet.count(&["e12.open", "e12.unbounded"], scope, None);
    }
    let notes = vec!["Every use of a break-glass grant is recorded, never sampled. When one was opened or closed, and by whom, is what the controller's log says; grants that are no longer in the manifests stand with that alone.".to_owned()];
    sheet.evidence("E12", "Break-glass access", table, notes)
}

/// Grants that the log of changes says were opened, by scope; what it says of each becomes a row.
fn opened(facts: &Facts<'_>, table: &mut Table) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let acts = facts.bundle.actions.iter();
    for one in acts.filter(|one| one.kind == ActionKind::BreakGlass) {
        let scope = match one.subject.split('/').nth(1) {
            Some(namespace) if !namespace.is_empty() => namespace,
            _ => MESH,
        };
        if one.action == "opened" {
            *counts.entry(scope.to_owned()).or_default() += 1;
        }
        let none = || "-".to_owned();
        table.row(vec![
            one.subject.clone(),
            one.detail.clone(),
            one.until.map_or_else(none, |end| end.to_string()),
            format!("{} at {} by {}", one.action, one.time, one.by),
            none(),
            none(),
            none(),
        ]);
    }
    counts
}

/// All namespaces, and the mesh if something of it was counted.
fn scopes<'f, V>(
    facts: &'f Facts<'_>,
    counts: &BTreeMap<&str, V>,
) -> impl Iterator<Item = &'f str> {
    let mesh = counts.contains_key(MESH).then_some(MESH);
    facts.namespaces.iter().map(String::as_str).chain(mesh)
}

fn scope_of(grant: &GrantFact) -> &str {
    if grant.namespace.is_empty() {
        MESH
    } else {
        &grant.namespace
    }
}
