//! E2: certificates of the CA's log. E10: those, held against certificates on the wire.

use super::metric::Reading;
use super::{Evidence, Finding, MESH, Severity, Sheet, Table};
use crate::bundle::{Certificate, Issuance, Observed, What};
use crate::facts::{Facts, namespace_of};
use mesh_trust::{SpiffeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds that `notBefore` may lie before the issuance: it is no part of the life that was asked for.
const BACKDATE_SECS_MAX: i64 = 3_600;

/// E2.
pub fn inventory(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let scope = &facts.bundle.scope;
    let signed = facts
        .bundle
        .certificates
        .iter()
        .filter(|one| one.state == Issuance::Signed);
    let current: Vec<&Certificate> = signed
        .filter(|one| one.not_after >= scope.since && one.time <= scope.until)
        .collect();
    let newest = newest(facts);
    let mut table = Table::new(&[
        "identity",
        "kind",
        "serial",
        "valid from",
        "valid until",
        "issuer",
        "state",
    ]);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for one in &current {
        let place = scope_of(facts, one);
        *counts.entry(place.clone()).or_default() += 1;
        check_one(facts, one, &place, &mut sheet);
        let is_newest = newest
            .get(&(one.what as u8, one.spiffe_id.as_str()))
            .is_some_and(|top| top.serial == one.serial);
        let state = match (one.not_after < scope.until, is_newest) {
            (true, true) => "EXPIRED, and the newest",
            (true, false) => "expired, replaced",
            (false, true) => "in use",
            (false, false) => "replaced",
        };
        table.row(vec![
            one.spiffe_id.clone(),
            what(one.what).to_owned(),
            one.serial.clone(),
            one.not_before.to_string(),
            one.not_after.to_string(),
            one.signed_by.clone().unwrap_or_else(|| "itself".to_owned()),
            state.to_owned(),
        ]);
    }
    reused_keys(facts, &mut sheet);
    lives(facts, &newest, &mut sheet);
    let told = facts.issuance_told();
    for namespace in &facts.namespaces {
        let count = counts.get(namespace).copied().unwrap_or_default();
        let meshed = !facts.telemetry(namespace).meshed.is_empty();
        let otherwise = match &told {
            Err(why) => Some(Reading::Unknown(why.clone())),
            Ok(()) if count == 0 && !meshed => {
                Some(Reading::NotApplicable("no certificate is of it".to_owned()))
            }
            Ok(()) => None,
        };
        let reading = otherwise.clone().unwrap_or(Reading::count(count));
        sheet.read("e2.certificates", namespace, reading);
        let checks = [
            "e2.expired",
            "e2.over_lifetime",
            "e2.unrotated",
            "e2.unattested",
            "e2.reused_keys",
        ];
        sheet.count(&checks, namespace, otherwise.as_ref());
    }
    let otherwise = told.err().map(Reading::Unknown);
    let authorities = counts.get(MESH).copied().unwrap_or_default();
    sheet.read(
        "e2.certificates",
        MESH,
        otherwise.clone().unwrap_or(Reading::count(authorities)),
    );
    sheet.count(&["e2.expired", "e2.reused_keys"], MESH, otherwise.as_ref());
    let notes = vec![
        "The inventory is the CA's issuance log. Certificates of other authorities are not in it; E10 holds it against what clients showed.".to_owned(),
        "How private keys are kept, and whether a root is offline, is not seen.".to_owned(),
    ];
    sheet.evidence("E2", "Certificates and keys", table, notes)
}

/// The newest certificate of each identity and kind.
fn newest<'b>(facts: &Facts<'b>) -> BTreeMap<(u8, &'b str), &'b Certificate> {
    let mut out: BTreeMap<(u8, &str), &Certificate> = BTreeMap::new();
    for one in facts
        .bundle
        .certificates
        .iter()
        .filter(|one| one.state == Issuance::Signed)
    {
        let top = out
            .entry((one.what as u8, one.spiffe_id.as_str()))
            .or_insert(one);
        if (one.not_after, one.time) > (top.not_after, top.time) {
            *top = one;
        }
    }
    out
}

fn check_one(facts: &Facts<'_>, one: &Certificate, place: &str, sheet: &mut Sheet) {
    if one.what != What::Leaf {
        return;
    }
    let subject = format!("{} {}", one.spiffe_id, one.serial);
    let backdated = secs_between(one.not_before, one.time).clamp(0, BACKDATE_SECS_MAX);
    let lifetime = secs_between(one.not_before, one.not_after).saturating_sub(backdated);
    let most = facts.bundle.scope.leaf_lifetime_secs_max;
    if u64::try_from(lifetime).unwrap_or_default() > most {
        let message = format!(
            "the certificate {} of {} lives {lifetime} s; {most} s are accepted",
            one.serial, one.spiffe_id
        );
        let finding = Finding::new(
            "e2.over_lifetime",
            place,
            &subject,
            Severity::Medium,
            message,
        );
        sheet.find(finding.hint("lower `--svid-ttl`, or accept more with `--leaf-lifetime`"));
    }
    if one.evidence.trim().is_empty() {
        let message = format!(
            "nothing is recorded of how the holder of {} was attested",
            one.serial
        );
        let finding = Finding::new("e2.unattested", place, &subject, Severity::High, message);
        sheet.find(finding.hint("find out who asked for it; the CA of this mesh records its evidence for every certificate"));
    }
}

/// Certificates that share a key: who has one of them can use both.
fn reused_keys(facts: &Facts<'_>, sheet: &mut Sheet) {
    let mut keys: BTreeMap<&str, Vec<&Certificate>> = BTreeMap::new();
    for one in facts
        .bundle
        .certificates
        .iter()
        .filter(|one| one.state == Issuance::Signed)
    {
        keys.entry(&one.key_sha256).or_default().push(one);
    }
    for (key, all) in keys.into_iter().filter(|(_, all)| all.len() > 1) {
        for one in all {
            let message = format!(
                "the key {key} of {} is in another certificate too",
                one.spiffe_id
            );
            let place = scope_of(facts, one);
            let finding = Finding::new(
                "e2.reused_keys",
                &place,
                &one.serial,
                Severity::High,
                message,
            );
            sheet.find(finding.hint("renew both with fresh keys"));
        }
    }
}

/// Whether those who run have a certificate that lives, and whether it is renewed in time.
fn lives(facts: &Facts<'_>, newest: &BTreeMap<(u8, &str), &Certificate>, sheet: &mut Sheet) {
    let scope = &facts.bundle.scope;
    let running: BTreeSet<String> = facts
        .bundle
        .workloads
        .iter()
        .filter(|one| one.meshed)
        .filter_map(|one| {
            SpiffeId::for_service_account(&scope.trust_domain, &one.namespace, &one.service_account)
                .ok()
        })
        .map(|id| id.to_string())
        .collect();
    for one in newest.values() {
        let leaf = one.what == What::Leaf;
        if leaf && !running.contains(&one.spiffe_id) {
            continue;
        }
        let place = scope_of(facts, one);
        let kind = what(one.what);
        if one.not_after < scope.until {
            let message = format!(
                "the newest {kind} certificate of {} ended at {}",
                one.spiffe_id, one.not_after
            );
            let finding = Finding::new(
                "e2.expired",
                &place,
                &one.spiffe_id,
                Severity::High,
                message,
            );
            sheet.find(finding.hint(
                "look at the CA and at the workload's agent: `mesh check`, `mesh identity show`",
            ));
            continue;
        }
        let life = secs_between(one.not_before, one.not_after);
        let age = secs_between(one.not_before, scope.until);
        if leaf && life > 0 && age.saturating_mul(5) > life.saturating_mul(4) {
            let message = format!(
                "the certificate of {} has less than a fifth of its life left, and no newer one is logged",
                one.spiffe_id
            );
            let finding = Finding::new(
                "e2.unrotated",
                &place,
                &one.spiffe_id,
                Severity::Medium,
                message,
            );
            sheet
                .find(finding.hint("renewal is due at 50 to 70 % of a life: look at `mesh check`"));
        }
    }
}

/// E10.
pub fn reconciliation(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let home = &facts.bundle.scope.trust_domain;
    let logged: BTreeMap<&str, &Certificate> = facts
        .bundle
        .certificates
        .iter()
        .map(|one| (one.serial.as_str(), one))
        .collect();
    let mut table = Table::new(&[
        "identity",
        "serial",
        "valid until",
        "decisions",
        "allowed",
        "last seen",
        "in the issuance log",
    ]);
    let (mut counts, mut foreign): (BTreeMap<&str, u64>, u64) = (BTreeMap::new(), 0);
    for one in &facts.bundle.observed {
        let own = SpiffeId::parse(&one.spiffe_id).is_ok_and(|id| id.trust_domain() == home);
        let known = logged.get(one.serial.as_str()).copied();
        let said = if own {
            *counts.entry(&one.seen_in).or_default() += 1;
            reconcile(one, known, &mut sheet)
        } else {
            foreign += 1;
            "of another trust domain"
        };
        let time =
            |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        table.row(vec![
            one.spiffe_id.clone(),
            one.serial.clone(),
            time(one.expires),
            one.count.to_string(),
            one.allowed.to_string(),
            time(one.last),
            said.to_owned(),
        ]);
    }
    let issuance = facts.issuance_told().err();
    for namespace in &facts.namespaces {
        let told = facts.telemetry(namespace);
        let count = counts.get(namespace.as_str()).copied().unwrap_or_default();
        let otherwise = match (&issuance, told.unknown()) {
            (Some(why), _) => Some(Reading::Unknown(why.clone())),
            (None, Some(why)) => Some(Reading::Unknown(why)),
            (None, None) if count == 0 => Some(Reading::NotApplicable(
                "no client showed a certificate".to_owned(),
            )),
            (None, None) => None,
        };
        let reading = otherwise.clone().unwrap_or(Reading::count(count));
        sheet.read("e10.observed", namespace, reading);
        for check in [
            "e10.unknown_certificates",
            "e10.mismatched_certificates",
            "e10.expired_in_use",
        ] {
            // What was seen is so, whatever else is not known.
            let found = sheet.found(check, namespace);
            let reading = match &otherwise {
                Some(reading) if found == 0 || check != "e10.expired_in_use" => reading.clone(),
                _ => Reading::count(found),
            };
            sheet.read(check, namespace, reading);
        }
    }
    let notes = vec![
        format!("{foreign} certificates of other trust domains were seen; their issuers' logs are not at hand."),
        "Proxies record the serial number and end of the certificate that a client showed, of every denial and of the recorded allows.".to_owned(),
    ];
    sheet.evidence(
        "E10",
        "Issuance log against certificates on the wire",
        table,
        notes,
    )
}

/// Holds one certificate on the wire against the log, in words.
fn reconcile(one: &Observed, known: Option<&Certificate>, sheet: &mut Sheet) -> &'static str {
    let place = one.seen_in.as_str();
    let subject = format!("{} {}", one.spiffe_id, one.serial);
    if let (Some(expires), Some(last)) = (one.expires, one.last_allowed)
        && last > expires
    {
        let message = format!(
            "{} was let in at {last} with a certificate that ended at {expires}",
            one.spiffe_id
        );
        let finding = Finding::new(
            "e10.expired_in_use",
            place,
            &subject,
            Severity::High,
            message,
        );
        sheet.find(finding.hint("the clock of that proxy may be wrong: compare it"));
    }
    let mut wrong = |check: &str, message: String| {
        let finding = Finding::new(check, place, &subject, Severity::High, message);
        sheet.find(finding.hint(
            "somebody may hold a key of the CA: treat it as compromised until this is explained",
        ));
    };
    match known {
        None => {
            wrong(
                "e10.unknown_certificates",
                format!(
                    "{} showed the certificate {}, which the CA never logged",
                    one.spiffe_id, one.serial
                ),
            );
            "NO"
        }
        Some(known) if known.state != Issuance::Signed => {
            wrong(
                "e10.unknown_certificates",
                format!(
                    "{} showed the certificate {}, which by the CA's log was never signed",
                    one.spiffe_id, one.serial
                ),
            );
            "intent alone"
        }
        Some(known)
            if known.spiffe_id != one.spiffe_id
                || one.expires.is_some_and(|end| end != known.not_after) =>
        {
            wrong(
                "e10.mismatched_certificates",
                format!(
                    "the certificate {} that {} showed was logged for {} until {}",
                    one.serial, one.spiffe_id, known.spiffe_id, known.not_after
                ),
            );
            "as another"
        }
        Some(_) => "yes",
    }
}

/// The namespace of a workload's certificate; the mesh for authorities and other identities.
fn scope_of(facts: &Facts<'_>, one: &Certificate) -> String {
    match one.what {
        What::Root | What::Issuer => MESH.to_owned(),
        What::Leaf => namespace_of(&one.spiffe_id, &facts.bundle.scope.trust_domain)
            .unwrap_or_else(|| MESH.to_owned()),
    }
}

fn what(what: What) -> &'static str {
    match what {
        What::Root => "root",
        What::Issuer => "issuer",
        What::Leaf => "workload",
    }
}

fn secs_between(from: Timestamp, to: Timestamp) -> i64 {
    to.unix_micros().saturating_sub(from.unix_micros()) / 1_000_000
}
