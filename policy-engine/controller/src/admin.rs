//! What the controller says about itself on its Unix socket: see the table in [`mesh_api::admin`].
//!
//! Beyond that table: `/snapshot?NAMESPACE/WORKLOAD` (the policy it serves for one workload) and `/discovery`.

use crate::state::Shared;
use mesh_api::admin::{AuditStatus, ControllerStatus, FindingCounts, WorkloadStatus};
use mesh_api::admin_http::Answer;
use mesh_policy::snapshot::Severity;
use mesh_policy_index::index::WorkloadKey;

/// Answers one question.
pub(crate) fn answer(shared: &Shared, path: &str, query: Option<&str>) -> Answer {
    let current = shared.current();
    match path {
        "/live" => Answer::text(200, "live\n"),
        "/ready" => match why_not_ready(shared) {
            None => Answer::text(200, "ready\n"),
            Some(why) => Answer::text(503, format!("{why}\n")),
        },
        "/status" => Answer::json(&status(shared)),
        "/findings" => Answer::json(
            &current
                .map(|current| current.findings.clone())
                .unwrap_or_default(),
        ),
        "/workloads" => Answer::json(&workloads(shared)),
        "/discovery" => Answer::json(
            &current
                .map(|current| current.discovery.discovery())
                .unwrap_or_default(),
        ),
        "/snapshot" => {
            let key = query
                .and_then(|query| query.split_once('/'))
                .map(|(namespace, name)| WorkloadKey {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                });
            let found = current.and_then(|current| {
                current
                    .workloads
                    .get(&key?)
                    .map(|policy| policy.update.clone())
            });
            found.map_or_else(Answer::not_found, |update| {
                Answer::json_bytes(update.policy.json())
            })
        }
        _ => Answer::not_found(),
    }
}

/// Answers kubelet and Prometheus, who show no identity: how it is, and no names.
pub(crate) fn answer_anybody(shared: &Shared, path: &str) -> Answer {
    match path {
        "/live" | "/ready" => answer(shared, path, None),
        "/metrics" => Answer {
            content_type: "text/plain; version=0.0.4",
            ..Answer::text(200, metrics(&status(shared), identity_ends(shared)))
        },
        _ => Answer::text(404, "/metrics, /ready, /live\n"),
    }
}

/// When our own SVID ends, seconds since 1970; 0 without one.
fn identity_ends(shared: &Shared) -> i64 {
    let identity = shared.identity.borrow();
    identity
        .as_ref()
        .map_or(0, |identity| identity.not_after.unix_secs())
}

/// Prometheus' text format.
fn metrics(status: &ControllerStatus, identity_ends: i64) -> String {
    let mut out = String::new();
    let gauges = [
        (
            "ready",
            "Whether policy is served.",
            i64::from(status.ready),
        ),
        (
            "generation",
            "Generation of the policy in force.",
            signed(status.generation),
        ),
        (
            "workloads",
            "Workloads that have a policy.",
            signed(status.workloads),
        ),
        (
            "watchers",
            "Proxies that follow their policy.",
            signed(status.watchers),
        ),
        (
            "svid_expires_seconds",
            "When its own SVID ends, in seconds since 1970.",
            identity_ends,
        ),
    ];
    for (name, help, value) in gauges {
        out.push_str(&format!(
            "# HELP mesh_controller_{name} {help}\n# TYPE mesh_controller_{name} gauge\nmesh_controller_{name} {value}\n"
        ));
    }
    out.push_str("# HELP mesh_controller_findings Findings of the policy in force, by severity.\n# TYPE mesh_controller_findings gauge\n");
    let findings = &status.findings;
    for (severity, count) in [
        ("error", findings.errors),
        ("warning", findings.warnings),
        ("info", findings.infos),
    ] {
        out.push_str(&format!(
            "mesh_controller_findings{{severity=\"{severity}\"}} {count}\n"
        ));
    }
    out
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn why_not_ready(shared: &Shared) -> Option<String> {
    if shared.identity.borrow().is_none() {
        return Some("no SVID yet".to_owned());
    }
    if shared.published.borrow().is_none() {
        let why = shared.held_back();
        return Some(why.unwrap_or_else(|| "the manifests have not been read yet".to_owned()));
    }
    None
}

fn status(shared: &Shared) -> ControllerStatus {
    let current = shared.current();
    let current = current.as_deref();
    let count = |severity| current.map_or(0, |current| current.count(severity));
    let audit = shared.audit.counts();
    let why_not_ready = why_not_ready(shared);
    ControllerStatus {
        ready: why_not_ready.is_none(),
        why_not_ready,
        generation: current.map_or(0, |current| current.generation),
        digest: current
            .map(|current| current.digest.clone())
            .unwrap_or_default(),
        trust_domain: shared.config.trust_domain().clone(),
        spiffe_id: shared
            .identity
            .borrow()
            .as_ref()
            .map(|identity| identity.id.clone()),
        listen: shared.config.listen,
        sources: shared.config.sources.names(),
        files: current.map_or(0, |current| current.files),
        workloads: current.map_or(0, |current| current.workloads.len() as u64),
        watchers: shared.watcher_counts().values().sum(),
        findings: FindingCounts {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            infos: count(Severity::Info),
        },
        last_change: current.map(|current| current.since),
        held_back: shared.held_back(),
        audit: AuditStatus {
            written: audit.written,
            lost: audit.lost,
            failing: audit.failing,
        },
        started_at: shared.started_at,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn workloads(shared: &Shared) -> Vec<WorkloadStatus> {
    let watchers = shared.watcher_counts();
    let current = shared.current();
    let workloads = current.iter().flat_map(|current| &current.workloads);
    workloads
        .map(|(key, policy)| WorkloadStatus {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            identity: policy.identity.clone(),
            generation: policy.update.generation,
            digest: policy.digest.clone(),
            watchers: watchers.get(key).copied().unwrap_or(0),
            equivalence: shared.reports.of(key),
        })
        .collect()
}
