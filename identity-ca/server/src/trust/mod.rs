//! The trust of a domain while the CA runs: which authorities there are, who verifies, where a rotation stands.
//!
//! [`mesh_issuance::rotation`] decides; here its steps are recorded, written to disk and then followed, in this order. All
//! of it is a part of the [`Desk`](crate::issuing::Desk), under its lock: what is issued and what is decided about it can
//! never disagree.
//!
//! - [`custody`]: the authorities with their keys, each in a folder of its own
//! - [`file`]: the state on disk, and the issuance log as its witness
//! - [`desk`]: steps, updates for verifiers, acknowledgments
//! - [`service`]: the trust stream beside the Workload API; [`remote`]: the one on the network
//! - [`admin`]: what `mesh trust` asks for
//! - [`keep`]: what happens by itself

pub(crate) mod admin;
pub(crate) mod custody;
pub(crate) mod desk;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod keep;
pub(crate) mod remote;
pub(crate) mod service;
#[cfg(test)]
pub(crate) mod tests;

use crate::agent::Anchors;
use crate::federation::Foreign;
use mesh_issuance::rotation::{AuthorityId, Holder, Roster, TrustState};
use mesh_platform::process::{self, PidFd};
use mesh_trust::{SpiffeId, Timestamp, TrustBundles};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::sync::watch;

/// What everybody may know of the state: made anew with each step.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Where a rotation stands, and under which authority who gets leaves.
    pub(crate) state: TrustState,
    /// All bundles: our own, with its sequence, and federated ones.
    pub(crate) bundles: TrustBundles,
    /// Which of the federated ones these are.
    pub(crate) foreign: u64,
}

/// The trust of a domain.
pub(crate) struct Trust {
    pub(crate) state: TrustState,
    pub(crate) roster: Roster,
    canary: Option<Canary>,
    published: watch::Sender<Arc<Published>>,
    /// The same bundles as the Workload API hands them out: told before the step lets anybody else to the desk.
    anchors: watch::Sender<Arc<Anchors>>,
    /// What is held of other domains. It changes apart from our own state, and no step waits for it.
    pub(crate) foreign: watch::Receiver<Arc<Foreign>>,
    /// How long other domains may take to fetch our bundle, seconds; none if it is served to nobody.
    pub(crate) federation_secs: Option<u64>,
    /// How long gate 2 must be open before a root is dropped, seconds.
    pub(crate) drain_secs: u64,
}

/// A chain that every verifier must accept; its key was never kept.
struct Canary {
    authority: AuthorityId,
    chain: Vec<CertificateDer<'static>>,
    renew_at: Timestamp,
}

/// Who asks for a certificate: what attestation found, and which process it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requester {
    /// For the log.
    pub(crate) evidence: String,
    /// See [`Holder::instance`]: `<pid>.<start time>` for a process of this machine, a pod's name and UID for a pod; none:
    /// it verifies nobody.
    pub(crate) instance: Option<String>,
    /// The machine that it is on, where that is known and not the CA's own.
    pub(crate) node: Option<String>,
}

impl Requester {
    /// The holder of what it gets.
    pub(crate) fn holder(&self, id: &SpiffeId) -> Option<Holder> {
        Some(Holder {
            id: id.clone(),
            instance: self.instance.clone()?,
        })
    }
}

/// The instance of a process of this machine.
pub(crate) fn instance(pid: u32, start_time_ticks: u64) -> String {
    format!("{pid}.{start_time_ticks}")
}

/// Whether an instance may still run: false only for a process of this machine that certainly does not.
pub(crate) fn may_run(instance: &str) -> bool {
    let process = instance
        .split_once('.')
        .and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    let Some((pid, start)): Option<(u32, u64)> = process else {
        return true;
    };
    // One that has ended and was not waited for still has its pid and start time; one that cannot be watched may run.
    let ended = PidFd::open(pid).is_ok_and(|process| !process.is_alive());
    !ended && process::start_time_ticks(pid) == Some(start)
}
