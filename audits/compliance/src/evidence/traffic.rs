//! E1: how traffic was protected. E6: what was denied.

use super::metric::{Number, Reading};
use super::{Evidence, Finding, MESH, Severity, Sheet, Table};
use crate::bundle::Traffic;
use crate::facts::Facts;
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use std::collections::BTreeMap;

/// Denials in an hour below which no hour is called a spike.
const SPIKE_MIN: u64 = 100;
/// How many times the usual denials of an hour make a spike.
const SPIKE_TIMES: u64 = 10;

/// Decisions about one client at one port.
#[derive(Default)]
struct Edge {
    allowed: u64,
    denied: u64,
}

/// Who, whether over TLS, and where to.
type EdgeKey<'t> = (&'t str, &'t str, u16, Option<&'t str>, bool, &'static str);

/// E1.
pub fn protection(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut edges: BTreeMap<EdgeKey<'_>, Edge> = BTreeMap::new();
    let mut shares: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for class in facts.bundle.traffic.iter().filter(|class| !is_probe(class)) {
        let key = (
            class.namespace.as_str(),
            class.workload.as_str(),
            class.port,
            class.client.as_deref(),
            class.tls,
            protocol(class.protocol),
        );
        let edge = edges.entry(key).or_default();
        if class.verdict == Verdict::Allow {
            edge.allowed = edge.allowed.saturating_add(class.count);
            let (protected, all) = shares.entry(&class.namespace).or_default();
            *all = all.saturating_add(class.count);
            if class.client.is_some() {
                *protected = protected.saturating_add(class.count);
            }
        } else {
            edge.denied = edge.denied.saturating_add(class.count);
        }
    }
    let mut table = Table::new(&["from", "to", "protocol", "protection", "allowed", "denied"]);
    for ((namespace, workload, port, client, tls, protocol), edge) in &edges {
        let to = format!("{namespace}/{workload}:{port}");
        let from = client.unwrap_or("(no identity)");
        let protection = match (client, tls) {
            (Some(_), _) => "mutual TLS",
            (None, true) => "TLS, no identity",
            (None, false) => "plaintext",
        };
        if edge.allowed > 0 && client.is_none() {
            sheet.find(unprotected(namespace, &to, *tls, edge.allowed));
        }
        table.row(vec![
            from.to_owned(),
            to,
            (*protocol).to_owned(),
            protection.to_owned(),
            edge.allowed.to_string(),
            edge.denied.to_string(),
        ]);
    }
    for namespace in &facts.namespaces {
        let share = shares.get(namespace.as_str()).copied();
        read_protection(facts, namespace, share, &mut sheet);
    }
    let notes = vec![
        "Counts are of decisions that proxies of the mesh recorded as servers. What two workloads without a proxy say to each other is not seen.".to_owned(),
        "Version, cipher suite and key exchange of a connection are not on record. Between proxies only TLS 1.3 with mutual authentication is offered.".to_owned(),
        "Bytes are not counted.".to_owned(),
    ];
    sheet.evidence("E1", "Protection of traffic in transit", table, notes)
}

fn read_protection(
    facts: &Facts<'_>,
    namespace: &str,
    share: Option<(u64, u64)>,
    sheet: &mut Sheet,
) {
    let told = facts.telemetry(namespace);
    let checks = ["e1.plaintext_edges", "e1.anonymous_edges"];
    let unknown = told.unknown().map(Reading::Unknown);
    let silent = if told.is_empty() {
        Reading::NotApplicable("nothing runs there".to_owned())
    } else if told.sample_ppm.is_some() {
        let why = format!(
            "nothing that was allowed is on record, which holds {}",
            told.sampling()
        );
        Reading::Unknown(why)
    } else {
        Reading::NotApplicable("nothing was allowed in the window".to_owned())
    };
    match (unknown, share) {
        (Some(unknown), _) => {
            sheet.read("e1.mtls_percent", namespace, unknown.clone());
            // What was seen is so, whatever else there may be.
            for check in checks {
                let found = sheet.found(check, namespace);
                let reading = if found > 0 {
                    Reading::count(found)
                } else {
                    unknown.clone()
                };
                sheet.read(check, namespace, reading);
            }
        }
        (None, Some((protected, all))) => {
            let percent = Reading::Value(Number::percent(protected, all));
            sheet.read("e1.mtls_percent", namespace, percent);
            sheet.count(&checks, namespace, None);
        }
        (None, None) => {
            sheet.read("e1.mtls_percent", namespace, silent.clone());
            sheet.count(&checks, namespace, Some(&silent));
        }
    }
}

fn unprotected(namespace: &str, to: &str, tls: bool, count: u64) -> Finding {
    let (check, how) = if tls {
        ("e1.anonymous_edges", "over TLS without an identity")
    } else {
        ("e1.plaintext_edges", "in plaintext")
    };
    Finding::new(
        check,
        namespace,
        to,
        Severity::High,
        format!("{count} requests or connections to {to} were allowed {how}"),
    )
    .hint("let in verified identities alone: a Server with a grant to them, and the default policy `deny`; `mesh authz who-can` names what lets them in now")
}

/// E6.
pub fn denials(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut rows: BTreeMap<[String; 4], u64> = BTreeMap::new();
    let mut sums: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for class in facts
        .bundle
        .traffic
        .iter()
        .filter(|one| one.verdict == Verdict::Deny)
    {
        let [denied, anonymous, limited] = sums.entry(&class.namespace).or_default();
        *denied = denied.saturating_add(class.count);
        if class.client.is_none() {
            *anonymous = anonymous.saturating_add(class.count);
        }
        if class.phase == Phase::RateLimit {
            *limited = limited.saturating_add(class.count);
        }
        let from = class.client.as_deref().unwrap_or(if class.tls {
            "(TLS, no identity)"
        } else {
            "(plaintext)"
        });
        let why = match class.reasons.as_slice() {
            [] => phase(class.phase).to_owned(),
            reasons => format!("{}: {}", phase(class.phase), reasons.join(", ")),
        };
        let status = class
            .status
            .map_or_else(|| "-".to_owned(), |status| status.to_string());
        let to = format!("{}/{}:{}", class.namespace, class.workload, class.port);
        let sum = rows.entry([from.to_owned(), to, why, status]).or_default();
        *sum = sum.saturating_add(class.count);
    }
    let mut table = Table::new(&["from", "to", "layer and rule", "status", "denied"]);
    for (cells, count) in rows {
        table.row(cells.into_iter().chain([count.to_string()]).collect());
    }
    spikes(facts, &mut sheet);
    for namespace in &facts.namespaces {
        let told = facts.telemetry(namespace);
        let sum = sums.get(namespace.as_str()).copied().unwrap_or_default();
        let otherwise = if told.is_empty() && sum == [0; 3] {
            Some(Reading::NotApplicable("nothing runs there".to_owned()))
        } else {
            told.unknown().map(Reading::Unknown)
        };
        for (metric, count) in ["e6.denied", "e6.denied_anonymous", "e6.rate_limited"]
            .iter()
            .zip(sum)
        {
            let reading = otherwise.clone().unwrap_or(Reading::count(count));
            sheet.read(metric, namespace, reading);
        }
        sheet.count(&["e6.spikes"], namespace, otherwise.as_ref());
    }
    let notes = vec![
        "Every denial is recorded, none is sampled; records that a log says are missing are counted by E8.".to_owned(),
        "Requests that a proxy refuses of its own application went nowhere, and are counted apart from those of clients.".to_owned(),
    ];
    sheet.evidence("E6", "Denied attempts", table, notes)
}

/// Hours far above the usual one: the median of the hours that had denials.
fn spikes(facts: &Facts<'_>, sheet: &mut Sheet) {
    let mut hours: BTreeMap<&str, Vec<(u64, i64)>> = BTreeMap::new();
    for one in &facts.bundle.denials {
        hours
            .entry(&one.namespace)
            .or_default()
            .push((one.count, one.hour));
    }
    for (namespace, mut hours) in hours {
        hours.sort_unstable();
        let usual = hours
            .get(hours.len().saturating_sub(1) / 2)
            .map_or(0, |one| one.0);
        let least = SPIKE_MIN.max(usual.saturating_mul(SPIKE_TIMES));
        for (count, hour) in hours.into_iter().filter(|one| one.0 > least) {
            let begin = mesh_trust::Timestamp::from_unix_secs(hour);
            let scope = if namespace.is_empty() {
                MESH
            } else {
                namespace
            };
            sheet.find(
                Finding::new(
                    "e6.spikes",
                    scope,
                    &begin.to_string(),
                    Severity::Medium,
                    format!("{count} denials in the hour from {begin}; {usual} are usual"),
                )
                .hint("look at who was denied what: `mesh audit evidence E6` over that hour"),
            );
        }
    }
}

/// Whether nothing but a declared probe allowed it.
fn is_probe(class: &Traffic) -> bool {
    class.verdict == Verdict::Allow
        && !class.reasons.is_empty()
        && class.reasons.iter().all(|reason| reason == "default/probe")
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Grpc => "gRPC",
        Protocol::Tcp => "TCP",
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Transport => "transport",
        Phase::Server => "server",
        Phase::Request => "request",
        Phase::Route => "route",
        Phase::Forbid => "forbid",
        Phase::Permit => "permit",
        Phase::RateLimit => "rate-limit",
        Phase::Egress => "egress",
    }
}
