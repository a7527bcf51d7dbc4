//! Attestation: which workload is the process at the other end of a Unix socket?
//!
//! The kernel says which process connected. It is a workload if it is the process of a launch record, or a descendant
//! of one that allows that, or if a registration names its user and program. A record names a process by pid *and*
//! start time, holds a pidfd, and ends with its process, so a pid that is used again never inherits an identity.
//! Ancestors are walked twice and must give the same answer: processes come and go while we look.

use crate::error::CaError;
use crate::limits::{ANCESTORS_MAX, IDENTITIES_PER_PROCESS_MAX, LAUNCH_RECORDS_MAX};
use mesh_platform::process::{self, PeerProcess, PidFd};
use mesh_platform::systemd;
use mesh_trust::{Denials, SpiffeId, TrustDomain};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// An identity for processes that nobody launches: by user, by program, by systemd unit, or by several of them.
///
/// The program is the file that runs; an interpreter runs whatever it is told to, so name a user too where that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// User id of the process; none: any.
    pub uid: Option<u32>,
    /// File that the process runs, absolute; none: any.
    pub executable: Option<PathBuf>,
    /// Service of the system manager that the process belongs to, `cart.service`; none: any.
    pub unit: Option<String>,
    /// Who it is.
    pub identity: SpiffeId,
}

/// A process that was started as a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launched {
    pub(crate) pid: u32,
    pub(crate) start_time_ticks: u64,
    pub(crate) uid: u32,
    /// None: not checked.
    pub(crate) executable: Option<PathBuf>,
    pub(crate) descendants: bool,
    pub(crate) identity: SpiffeId,
    /// For logs.
    pub(crate) workload: String,
}

/// An identity that a process may have, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entitlement {
    pub(crate) identity: SpiffeId,
    pub(crate) evidence: String,
}

/// Why a launch record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub(crate) enum LaunchError {
    #[error("there is no process {pid} that started at {start_time_ticks}")]
    #[diagnostic(
        code("MESH-0250"),
        help("the process ended before it was registered; start it again")
    )]
    NoProcess { pid: u32, start_time_ticks: u64 },
    #[error("`{namespace}/{service_account}` makes no SPIFFE ID: {why}")]
    #[diagnostic(
        code("MESH-0251"),
        help("namespaces and service accounts are names of a-z, 0-9 and `-`")
    )]
    Identity {
        namespace: String,
        service_account: String,
        why: String,
    },
    #[error("there are {LAUNCH_RECORDS_MAX} launch records already")]
    #[diagnostic(code("MESH-0252"), help("end workloads, or use several meshes"))]
    TooMany,
}

#[derive(Debug)]
struct Record {
    launched: Launched,
    pidfd: Arc<PidFd>,
}

/// Launch records and registrations. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    records: Arc<Mutex<HashMap<u32, Record>>>,
    registrations: Arc<[Registration]>,
    denials: Option<watch::Receiver<Arc<Denials>>>,
    generation: Arc<watch::Sender<u64>>,
}

impl Registry {
    /// A registry with these registrations and no launch record.
    pub(crate) fn new(
        registrations: Vec<Registration>,
        domain: &TrustDomain,
    ) -> Result<Self, CaError> {
        for registration in &registrations {
            let refuse = |why| {
                Err(CaError::Registration {
                    identity: registration.identity.clone(),
                    why,
                })
            };
            if registration.uid.is_none()
                && registration.executable.is_none()
                && registration.unit.is_none()
            {
                return refuse("it names neither a user nor an executable nor a unit");
            }
            if registration
                .executable
                .as_ref()
                .is_some_and(|path| !path.is_absolute())
            {
                return refuse("its executable is no absolute path");
            }
            if registration
                .unit
                .as_ref()
                .is_some_and(|unit| !unit.ends_with(".service"))
            {
                return refuse("its unit is no service");
            }
            if registration.identity.trust_domain() != domain
                || registration.identity.path().is_empty()
            {
                return refuse("it is no workload of the CA's trust domain");
            }
        }
        let generation = Arc::new(watch::Sender::new(0));
        Ok(Self {
            records: Arc::default(),
            registrations: registrations.into(),
            denials: None,
            generation,
        })
    }

    /// The same registry, which knows nobody whose identity is denied.
    pub(crate) fn with_denials(mut self, denials: watch::Receiver<Arc<Denials>>) -> Self {
        self.denials = Some(denials);
        self
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a record comes or goes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Has everybody looked at anew.
    pub(crate) fn changed(&self) {
        self.generation
            .send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// Takes a launch record, in the place of an older one of the same process. It goes when the process ends.
    pub(crate) fn register(&self, launched: Launched) -> Result<(), LaunchError> {
        let gone = || LaunchError::NoProcess {
            pid: launched.pid,
            start_time_ticks: launched.start_time_ticks,
        };
        let pidfd = Arc::new(PidFd::open(launched.pid).map_err(|_| gone())?);
        if pidfd.start_time_ticks() != Some(launched.start_time_ticks) {
            return Err(gone());
        }
        let (pid, start) = (launched.pid, launched.start_time_ticks);
        {
            let mut records = self.lock();
            if records
                .get(&pid)
                .is_some_and(|known| known.launched == launched)
            {
                return Ok(());
            }
            if records.len() >= LAUNCH_RECORDS_MAX && !records.contains_key(&pid) {
                return Err(LaunchError::TooMany);
            }
            tracing::info!(pid, workload = launched.workload, identity = %launched.identity, "registered a launch");
            records.insert(
                pid,
                Record {
                    launched,
                    pidfd: Arc::clone(&pidfd),
                },
            );
        }
        self.changed();
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = pidfd.exited().await {
                // It cannot be watched, so it cannot be trusted.
                tracing::warn!(pid, %error, "dropped a launch record");
            }
            this.remove(pid, Some(start));
        });
        Ok(())
    }

    /// Drops the record of `pid`; with a start time, only that of this very process.
    pub(crate) fn remove(&self, pid: u32, start_time_ticks: Option<u64>) {
        let removed = {
            let mut records = self.lock();
            let same = records.get(&pid).is_some_and(|record| {
                start_time_ticks.is_none_or(|start| record.launched.start_time_ticks == start)
            });
            if same { records.remove(&pid) } else { None }
        };
        if let Some(Record { launched, .. }) = removed {
            tracing::info!(pid, workload = launched.workload, "dropped a launch record");
            self.changed();
        }
    }

    /// Who `peer` may be now, best first; empty if nobody, or if it has ended.
    pub(crate) fn entitlements(&self, peer: &PeerProcess) -> Vec<Entitlement> {
        let Some(pidfd) = &peer.pidfd else {
            return Vec::new();
        };
        let mut first = self.look_once(peer, pidfd);
        let second = self.look_once(peer, pidfd);
        if first != second || !pidfd.is_alive() {
            return Vec::new();
        }
        if let Some(denials) = &self.denials {
            let denials = denials.borrow();
            first.retain(|found| !denials.denies_identity(&found.identity));
        }
        first
    }

    fn look_once(&self, peer: &PeerProcess, pidfd: &PidFd) -> Vec<Entitlement> {
        let mut found: Vec<Entitlement> = self.launch_of(peer, pidfd).into_iter().collect();
        for registration in self.registrations.iter() {
            let new = !found
                .iter()
                .any(|known| known.identity == registration.identity);
            if new && found.len() < IDENTITIES_PER_PROCESS_MAX && matches(registration, peer, pidfd)
            {
                let evidence = evidence(registration, peer);
                found.push(Entitlement {
                    identity: registration.identity.clone(),
                    evidence,
                });
            }
        }
        found
    }

    /// The launch record of the process, or of the nearest ancestor that has one. The nearest decides: a child that was
    /// launched as another workload is not its parent's workload.
    fn launch_of(&self, peer: &PeerProcess, pidfd: &PidFd) -> Option<Entitlement> {
        let own_start = pidfd.start_time_ticks()?;
        let records = self.lock();
        let (mut pid, mut start) = (peer.pid, own_start);
        for generation in 0..=ANCESTORS_MAX {
            if let Some(Record { launched, pidfd }) = records.get(&pid) {
                let same = launched.start_time_ticks == start
                    && pidfd.is_alive()
                    && launched.uid == peer.uid;
                let program = launched
                    .executable
                    .as_ref()
                    .is_none_or(|wanted| pidfd.executable().as_ref() == Some(wanted));
                let inherits = generation == 0 || launched.descendants;
                return (same && program && inherits).then(|| Entitlement {
                    identity: launched.identity.clone(),
                    evidence: format!(
                        "launch pid={} uid={} workload={} record_pid={pid} record_start={start}",
                        peer.pid, peer.uid, launched.workload
                    ),
                });
            }
            pid = process::parent_of(pid)?;
            let parents_start = process::start_time_ticks(pid)?;
            // A parent is never younger than its child; if it seems so, its pid was used again.
            if parents_start > start {
                return None;
            }
            start = parents_start;
        }
        None
    }
}

fn evidence(registration: &Registration, peer: &PeerProcess) -> String {
    let mut text = format!("registration pid={} uid={}", peer.pid, peer.uid);
    if let Some(unit) = &registration.unit {
        text.push_str(" unit=");
        text.push_str(unit);
    }
    text
}

fn matches(registration: &Registration, peer: &PeerProcess, pidfd: &PidFd) -> bool {
    registration.uid.is_none_or(|uid| uid == peer.uid)
        && registration
            .executable
            .as_ref()
            .is_none_or(|wanted| pidfd.executable().as_ref() == Some(wanted))
        // Read before the last look at the pidfd, which says that all this was of the same process.
        && registration
            .unit
            .as_ref()
            .is_none_or(|wanted| systemd::unit_of(peer.pid).as_ref() == Some(wanted))
}

#[cfg(test)]
mod tests;
