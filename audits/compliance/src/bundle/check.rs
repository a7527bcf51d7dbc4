//! What must hold of the facts of a bundle before anything is concluded from them.

use super::{Bundle, BundleError};
use crate::limits::HOURS_MAX;
use mesh_policy_index::Mode;
use std::collections::BTreeSet;

/// Refuses facts that cannot be, and lists that are not in their order.
pub(super) fn check(bundle: &Bundle) -> Result<(), BundleError> {
    let scope = &bundle.scope;
    if scope.since > scope.until {
        return Err(contradiction("scope", "its window ends before it begins"));
    }
    if scope.default_policy.parse::<Mode>().is_err() {
        return Err(contradiction("scope", "its default policy is none"));
    }
    sorted("files", &bundle.files, |one| one.name.clone())?;
    sorted("workloads", &bundle.workloads, |one| {
        (one.namespace.clone(), one.name.clone())
    })?;
    sorted("logs", &bundle.logs, |one| one.origin.clone())?;
    sorted("certificates", &bundle.certificates, |one| {
        one.serial.clone()
    })?;
    sorted("observed certificates", &bundle.observed, |one| {
        (one.serial.clone(), one.spiffe_id.clone())
    })?;
    sorted("denials", &bundle.denials, |one| {
        (one.namespace.clone(), one.hour)
    })?;
    if !bundle.actions.is_sorted() {
        return Err(contradiction("actions", "they are not in their order"));
    }
    sorted("zones", &bundle.zones, |one| one.name.clone())?;
    for workload in &bundle.workloads {
        if workload.allow_sample_ppm > 1_000_000 {
            return Err(contradiction("a workload", "its sample is more than all"));
        }
    }
    let hours: BTreeSet<i64> = bundle.denials.iter().map(|one| one.hour).collect();
    if hours.len() > HOURS_MAX {
        return Err(contradiction("denials", "they are of too many hours"));
    }
    names(bundle)?;
    logs(bundle)?;
    counts(bundle)
}

/// Names that become scopes must be names: what is no namespace could imitate one in a report.
fn names(bundle: &Bundle) -> Result<(), BundleError> {
    let workloads = bundle.workloads.iter();
    let named = workloads.flat_map(|one| [&one.namespace, &one.name]);
    let logs = bundle.logs.iter().filter_map(|one| one.namespace.as_ref());
    let traffic = bundle.traffic.iter().map(|one| &one.namespace);
    let denials = bundle.denials.iter().map(|one| &one.namespace);
    let zones = bundle
        .zones
        .iter()
        .flat_map(|one| one.namespaces.iter().chain(&one.from));
    let mut all = named.chain(logs).chain(traffic).chain(denials).chain(zones);
    match all.find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(contradiction(
            &format!("`{}`", name.escape_debug()),
            "it is no name of a namespace or workload",
        )),
    }
}

/// Letters, digits, `-`, `.` and `_`, as objects have them.
fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn logs(bundle: &Bundle) -> Result<(), BundleError> {
    for log in &bundle.logs {
        if log.denied > log.decisions || log.decisions > log.entries && !log.counts_allows {
            let what = format!("log `{}`", log.origin);
            return Err(contradiction(&what, "its counts exceed each other"));
        }
    }
    Ok(())
}

/// Every class must lie in the window, and count something.
fn counts(bundle: &Bundle) -> Result<(), BundleError> {
    let scope = &bundle.scope;
    for one in &bundle.traffic {
        if one.count == 0 {
            return Err(contradiction("a class of traffic", "it counts nothing"));
        }
        let outside = |time: Option<_>| time.is_some_and(|t| t < scope.since || t > scope.until);
        if outside(one.first) || outside(one.last) || one.first > one.last {
            return Err(contradiction(
                "a class of traffic",
                "it is not of the window",
            ));
        }
        if one.client.is_some() && !one.tls {
            return Err(contradiction(
                "a class of traffic",
                "it has an identity, but no TLS",
            ));
        }
    }
    Ok(())
}

/// Strictly ascending: sorted, and nothing twice.
fn sorted<T, K: Ord>(what: &str, all: &[T], key: impl Fn(&T) -> K) -> Result<(), BundleError> {
    let out_of_order = |pair: &[T]| match pair {
        [a, b] => key(a) >= key(b),
        _ => false,
    };
    match all.windows(2).position(out_of_order) {
        None => Ok(()),
        Some(at) => Err(contradiction(
            what,
            &format!("number {} is not after the one before it", at + 2),
        )),
    }
}

fn contradiction(what: &str, why: &str) -> BundleError {
    BundleError::Contradiction {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}
