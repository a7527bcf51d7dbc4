//! `/live`, `/ready` and `/metrics` over plain HTTP, for kubelet and Prometheus: how the CA is, and no names.

use crate::error::CaError;
use mesh_api::admin_http::{self, Answer};
use mesh_trust::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How a CA is that issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Last moment of the issuer in force.
    pub(crate) issuer_until: Timestamp,
    /// Generation of the trust bundle.
    pub(crate) generation: u64,
    /// Whether a rotation is under way.
    pub(crate) rotating: bool,
    /// Verifiers: all, with a trust stream, that acknowledged the bundle in force.
    pub(crate) verifiers: [u64; 3],
    /// Leaves begun since the log does.
    pub(crate) leaves: u64,
    /// What is wrong with root and issuer where others keep them.
    pub(crate) findings: u64,
}

/// Where a CA stands on its way to serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not there yet, for this reason.
    Waiting(String),
    /// It issues.
    Open(Health),
}

/// What probes look at.
#[derive(Clone)]
pub(crate) struct Probes {
    /// From the desk.
    stage: watch::Sender<Stage>,
    /// Whether somebody can reach the CA over the network; true where it does not serve the network.
    reachable: watch::Sender<bool>,
}

impl Probes {
    pub(crate) fn new(serves_network: bool) -> Self {
        Self {
            stage: watch::Sender::new(Stage::Waiting("it has just started".to_owned())),
            reachable: watch::Sender::new(!serves_network),
        }
    }

    /// Says what the CA waits for before it can issue.
    pub(crate) fn waits_for(&self, why: &str) {
        self.stage.send_replace(Stage::Waiting(why.to_owned()));
    }

    /// Says how the CA is.
    pub(crate) fn is(&self, health: Health) {
        self.stage.send_replace(Stage::Open(health));
    }

    /// Says that the network is served.
    pub(crate) fn reachable(&self) {
        self.reachable.send_replace(true);
    }

    fn why_not_ready(&self) -> Option<String> {
        match &*self.stage.borrow() {
            Stage::Waiting(why) => Some(why.clone()),
            Stage::Open(_) if !*self.reachable.borrow() => {
                Some("it has no certificate of its own for the network yet".to_owned())
            }
            Stage::Open(_) => None,
        }
    }

    fn answer(&self, path: &str) -> Answer {
        match path {
            "/live" => Answer::text(200, "live\n"),
            "/ready" => match self.why_not_ready() {
                None => Answer::text(200, "ready\n"),
                Some(why) => Answer::text(503, format!("not ready: {why}\n")),
            },
            "/metrics" => Answer {
                content_type: "text/plain; version=0.0.4",
                ..Answer::text(200, self.metrics())
            },
            _ => Answer::text(404, "/metrics, /ready, /live\n"),
        }
    }

    /// Prometheus' text format.
    fn metrics(&self) -> String {
        let mut out = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: i64| {
            out.push_str(&format!(
                "# HELP mesh_ca_{name} {help}\n# TYPE mesh_ca_{name} {kind}\nmesh_ca_{name} {value}\n"
            ));
        };
        let ready = self.why_not_ready().is_none();
        one(
            "ready",
            "gauge",
            "Whether SVIDs are issued.",
            i64::from(ready),
        );
        let Stage::Open(health) = &*self.stage.borrow() else {
            return out;
        };
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let [all, connected, acknowledged] = health.verifiers.map(count);
        for (name, kind, help, value) in [
            (
                "issuer_expires_seconds",
                "gauge",
                "When the issuer in force ends, in seconds since 1970.",
                health.issuer_until.unix_secs(),
            ),
            (
                "bundle_generation",
                "gauge",
                "Generation of the trust bundle.",
                count(health.generation),
            ),
            (
                "rotating",
                "gauge",
                "Whether a rotation of the root is under way.",
                i64::from(health.rotating),
            ),
            ("verifiers", "gauge", "Processes that hold an SVID.", all),
            (
                "verifiers_connected",
                "gauge",
                "Of these, with a trust stream.",
                connected,
            ),
            (
                "verifiers_acknowledged",
                "gauge",
                "Of these, that acknowledged the bundle in force.",
                acknowledged,
            ),
            (
                "leaves_total",
                "counter",
                "SVIDs that were begun since the issuance log was.",
                count(health.leaves),
            ),
            (
                "findings",
                "gauge",
                "What is wrong with root and issuer where others keep them.",
                count(health.findings),
            ),
        ] {
            one(name, kind, help, value);
        }
        out
    }
}

/// Opens the port, where one is wanted, and serves it for as long as the task lives.
pub(crate) async fn serve(
    address: Option<SocketAddr>,
    probes: Probes,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Result<(), CaError> {
    let Some(address) = address else {
        return Ok(());
    };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| CaError::Network {
            listen: address,
            why: source.to_string(),
        })?;
    let probes = Arc::new(probes);
    tasks.spawn(admin_http::serve(listener, move |path, _| {
        probes.answer(path)
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(probes: &Probes, path: &str) -> (u16, String) {
        let answer = probes.answer(path);
        (
            answer.status,
            String::from_utf8(answer.body.to_vec()).unwrap(),
        )
    }

    #[test]
    fn a_ca_that_waits_is_alive_and_says_what_for() {
        let probes = Probes::new(true);
        assert_eq!(text(&probes, "/live").0, 200);
        probes.waits_for("no issuer yet");
        let (status, why) = text(&probes, "/ready");
        assert_eq!(status, 503);
        assert!(why.contains("no issuer yet"), "{why}");
        assert!(text(&probes, "/metrics").1.contains("mesh_ca_ready 0\n"));
    }

    #[test]
    fn a_ca_is_ready_once_it_issues_and_can_be_reached() {
        let probes = Probes::new(true);
        probes.is(Health {
            issuer_until: Timestamp::from_unix_secs(1_800_000_000),
            generation: 3,
            rotating: false,
            verifiers: [5, 4, 2],
            leaves: 9,
            findings: 1,
        });
        assert_eq!(text(&probes, "/ready").0, 503);
        probes.reachable();
        assert_eq!(text(&probes, "/ready"), (200, "ready\n".to_owned()));
        let metrics = text(&probes, "/metrics").1;
        for line in [
            "mesh_ca_ready 1",
            "mesh_ca_issuer_expires_seconds 1800000000",
            "mesh_ca_verifiers_connected 4",
            "mesh_ca_findings 1",
        ] {
            assert!(
                metrics.lines().any(|found| found == line),
                "{line}: {metrics}"
            );
        }
        assert_eq!(text(&probes, "/trust").0, 404);
    }
}
