//! Trust bundle, authorities, and what the control plane shows of its own certificates.

use super::facts::{Facts, text};
use crate::check::item::Item;
use crate::cluster::proxies::has_proxy;
use crate::identity;
use crate::output::duration;
use mesh_cluster::names::{NAMESPACE, TRUST_CONFIG_MAP, TRUST_KEY};
use mesh_trust::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const CATEGORY: &str = "certificates";

/// Below this share of its life an authority needs a look.
const LIFE_PARTS: u64 = 10;

/// Seconds before the end of a certificate of the control plane by which it must have been renewed.
const RENEWED_BEFORE_SECS: u64 = 600;

/// Namespaces that a message names.
const NAMED_MAX: usize = 5;

/// Everything that ends, and whether everybody trusts the same.
pub(super) fn check(facts: &Facts) -> Vec<Item> {
    let mut items = bundles(facts);
    items.extend(parts(facts));
    items
}

fn bundles(facts: &Facts) -> Vec<Item> {
    let kubectl = &facts.kubectl;
    let restart = format!("{kubectl} -n {NAMESPACE} rollout restart deployment/mesh-controller");
    let maps = match &facts.bundles {
        Ok(maps) => maps,
        Err(error) => {
            let fix = format!("{kubectl} auth can-i list configmaps -A");
            return vec![Item::doubtful(
                CATEGORY,
                "MESH-0771",
                error.to_string(),
                fix,
            )];
        }
    };
    let key = format!("/data/{TRUST_KEY}");
    let texts: BTreeMap<&str, &str> = maps
        .iter()
        .map(|map| (text(map, "/metadata/namespace"), text(map, &key)))
        .collect();
    let Some(ours) = texts.get(NAMESPACE).filter(|pem| !pem.is_empty()) else {
        let says = format!(
            "there is no trust bundle: ConfigMap {NAMESPACE}/{TRUST_CONFIG_MAP} is missing or empty"
        );
        let fix = format!("{kubectl} -n {NAMESPACE} logs deployment/mesh-identity");
        return vec![Item::broken(CATEGORY, "MESH-0788", says, fix)];
    };
    let mut items = roots(facts, ours);
    let meshed: BTreeSet<&str> = facts
        .pods()
        .filter(|pod| has_proxy(pod))
        .map(|pod| text(pod, "/metadata/namespace"))
        .collect();
    let differing: BTreeSet<&str> = texts
        .iter()
        .filter(|(_, pem)| *pem != ours)
        .map(|(namespace, _)| *namespace)
        .collect();
    let missing: BTreeSet<&str> = meshed
        .into_iter()
        .filter(|namespace| !texts.contains_key(namespace))
        .collect();
    for (what, namespaces) in [("differs in", &differing), ("is missing in", &missing)] {
        if !namespaces.is_empty() {
            let says = format!("the trust bundle {what} {}", few(namespaces));
            items.push(Item::broken(CATEGORY, "MESH-0788", says, restart.clone()));
        }
    }
    if differing.is_empty() && missing.is_empty() {
        let says = format!("the trust bundle is the same in {} namespaces", texts.len());
        items.push(Item::ok(CATEGORY, says));
    }
    items
}

fn few(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).copied().collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn roots(facts: &Facts, pem: &str) -> Vec<Item> {
    let fix = "mesh trust status; see docs/guides/rotate-the-root.md";
    match identity::chain(pem.as_bytes(), Path::new(TRUST_CONFIG_MAP)) {
        Ok(roots) => roots
            .iter()
            .map(|root| {
                let says = format!("root `{}`", root.subject);
                life(&says, (root.not_before, root.not_after), facts.now, fix)
            })
            .collect(),
        Err(error) => vec![Item::broken(CATEGORY, "MESH-0788", error.to_string(), fix)],
    }
}

/// Whether something that ends has enough of its life left.
fn life(says: &str, (from, until): (Timestamp, Timestamp), now: Timestamp, fix: &str) -> Item {
    let (rest, whole) = (now.secs_until(until), from.secs_until(until));
    if rest == 0 {
        let says = format!("{says} has expired at {until}");
        Item::broken(CATEGORY, "MESH-0788", says, fix)
    } else if rest < whole / LIFE_PARTS {
        let says = format!("{says} ends in {}", duration(rest));
        Item::doubtful(CATEGORY, "MESH-0788", says, fix)
    } else {
        Item::ok(CATEGORY, format!("{says}, {} left", duration(rest)))
    }
}

/// What ends of each part, as it says itself: label and series of the time, seconds since 1970.
const ENDS: [(&str, &str, &str); 3] = [
    ("identity", "issuer", "mesh_ca_issuer_expires_seconds"),
    ("controller", "SVID", "mesh_controller_svid_expires_seconds"),
    (
        "injector",
        "webhook certificate",
        "mesh_injector_certificate_expires_seconds",
    ),
];

fn parts(facts: &Facts) -> Vec<Item> {
    let mut items = Vec::new();
    for (part, pod, metrics) in &facts.parts {
        let logs = format!("{} -n {NAMESPACE} logs {pod}", facts.kubectl);
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(error) if error.is_refusal() => {
                let fix = format!("{} auth can-i get pods/proxy -n {NAMESPACE}", facts.kubectl);
                items.push(Item::doubtful(
                    CATEGORY,
                    "MESH-0771",
                    error.to_string(),
                    fix,
                ));
                return items;
            }
            Err(error) => {
                items.push(Item::doubtful(
                    CATEGORY,
                    "MESH-0786",
                    error.to_string(),
                    logs,
                ));
                continue;
            }
        };
        for (_, what, series) in ENDS.iter().filter(|(of, ..)| of == part) {
            let end = metrics
                .count(series)
                .and_then(|end| i64::try_from(end).ok());
            let Some(end) = end.filter(|end| *end > 0) else {
                let says = format!("{pod} has no {what}");
                items.push(Item::broken(CATEGORY, "MESH-0788", says, logs.clone()));
                continue;
            };
            let rest = facts.now.secs_until(Timestamp::from_unix_secs(end));
            let says = format!("{what} of {pod}, {} left", duration(rest));
            items.push(match rest {
                0 => Item::broken(
                    CATEGORY,
                    "MESH-0788",
                    format!("{what} of {pod} has expired"),
                    logs.clone(),
                ),
                rest if rest < RENEWED_BEFORE_SECS => {
                    Item::doubtful(CATEGORY, "MESH-0788", says, logs.clone())
                }
                _ => Item::ok(CATEGORY, says),
            });
        }
        items.extend(ca(part, pod, metrics, &logs));
    }
    items
}

/// What only a CA says.
fn ca(
    part: &str,
    pod: &str,
    metrics: &crate::cluster::exposition::Metrics,
    logs: &str,
) -> Vec<Item> {
    let mut items = Vec::new();
    if part != "identity" {
        return items;
    }
    if metrics.count("mesh_ca_ready") != Some(1) {
        let says = format!("{pod} issues no SVIDs");
        items.push(Item::broken(CATEGORY, "MESH-0788", says, logs));
    }
    if metrics
        .count("mesh_ca_findings")
        .is_some_and(|count| count > 0)
    {
        let says = format!("{pod} finds something wrong with the root or issuer that others keep");
        items.push(Item::broken(CATEGORY, "MESH-0788", says, logs));
    }
    let count = |name: &str| metrics.count(name).unwrap_or_default();
    if count("mesh_ca_rotating") == 1 {
        let says = format!(
            "a root is being replaced: {} of {} verifiers acknowledged the bundle",
            count("mesh_ca_verifiers_acknowledged"),
            count("mesh_ca_verifiers")
        );
        items.push(Item::doubtful(CATEGORY, "MESH-0932", says, logs));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::item::Status;

    #[test]
    fn the_end_of_a_root_is_said_before_it_comes() {
        let at = Timestamp::from_unix_secs;
        for (now, want) in [
            (0, Status::Ok),
            (899, Status::Ok),
            (901, Status::Doubtful),
            (1_000, Status::Broken),
        ] {
            assert_eq!(
                life("x", (at(0), at(1_000)), at(now), "f").status,
                want,
                "{now}"
            );
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let names: BTreeSet<&str> = ["a", "b", "c", "d", "e", "f"].into();
        assert_eq!(few(&names), "a, b, c, d, e and 1 more");
    }
}
