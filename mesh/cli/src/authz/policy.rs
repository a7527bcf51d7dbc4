//! Where decisions come from: manifests on disk, or the snapshots that running proxies enforce. The same code decides.

use super::target::To;
use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::manifests::{Manifests, MeshSettings};
use clap::Args;
use mesh_platform::{Platform as _, System};
use mesh_policy::Snapshot;
use mesh_policy::decide::Generation;
use mesh_policy::request::TargetRecord;
use mesh_policy_index::index::WorkloadKey;
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Which policy is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct PolicyArgs {
    /// Manifests: a file or a folder, more than once if need be. Without it the running mesh, or the cluster, is asked.
    #[arg(short, long = "file", value_name = "DIR")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: MeshSettings,
    #[command(flatten)]
    pub(crate) live: LiveArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Time to decide at, RFC 3339: matters where grants end, or policies look at the time. Now, if not given.
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::time)]
    pub(crate) at: Option<Timestamp>,
}

impl PolicyArgs {
    /// The manifests that are asked, with the settings that they are read under; `None` if a mesh on this machine is.
    ///
    /// # Errors
    /// Exit code 2 if files cannot be read, 11 if a cluster does not answer.
    pub(crate) fn manifests(&self) -> Result<Option<(Manifests, MeshSettings)>, Fault> {
        if !self.files.is_empty() {
            let manifests = Manifests::read(&self.files, &self.settings)?;
            return Ok(Some((manifests, self.settings.clone())));
        }
        if self.cluster.is_meant(&self.live) {
            return self.cluster.manifests(&self.settings).map(Some);
        }
        Ok(None)
    }

    /// The time that questions are decided at.
    pub(crate) fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(|| System::new().wall_clock())
    }
}

/// A source of decisions.
pub(crate) enum Policy {
    /// Manifests, of files or of a cluster.
    Static(Box<Manifests>, TrustDomain),
    /// Running proxies; their snapshots as far as they were asked for.
    Live(Box<Live>, BTreeMap<WorkloadKey, Snapshot>),
}

/// One pod port that a target means, with the policy that holds there.
pub(crate) struct Place {
    /// The workload.
    pub(crate) workload: WorkloadKey,
    /// Port of the pod.
    pub(crate) port: u16,
    /// Its policy.
    pub(crate) snapshot: Snapshot,
}

/// Why no verdict can be given.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum UndecidableError {
    /// The target of a live question has no proxy that could be asked.
    #[error("no proxy of the running mesh answers for `{asked}`")]
    #[diagnostic(code("MESH-0606"), help("{known}; ask about manifests with `-f DIR`"))]
    NoProxy {
        /// The target.
        asked: String,
        /// Who there is.
        known: String,
    },
}

impl Policy {
    /// The source that `args` name.
    ///
    /// # Errors
    /// Exit code 2 if manifests cannot be read, 11 if no mesh runs.
    pub(crate) fn open(args: &PolicyArgs) -> Result<Self, Fault> {
        let Some((manifests, settings)) = args.manifests()? else {
            let live =
                Live::find(&args.live).map_err(|fault| fault.with_exit(Exit::Undecidable))?;
            return Ok(Self::Live(Box::new(live), BTreeMap::new()));
        };
        Ok(Self::Static(Box::new(manifests), settings.trust_domain))
    }

    /// Trust domain of `namespace/account`.
    ///
    /// # Errors
    /// Exit code 11 if the running mesh names a malformed one.
    pub(crate) fn trust_domain(&self) -> Result<TrustDomain, Fault> {
        match self {
            Self::Static(_, trust_domain) => Ok(trust_domain.clone()),
            Self::Live(live, _) => TrustDomain::parse(&live.running.trust_domain)
                .map_err(|error| Fault::undecidable(&error)),
        }
    }

    /// Every pod port that `target` means; empty if nothing has that name.
    ///
    /// # Errors
    /// Exit code 11 if a proxy that should answer does not.
    pub(crate) fn places(&mut self, target: &TargetRecord) -> Result<Vec<Place>, Fault> {
        match self {
            Self::Static(manifests, _) => {
                let Ok(found) = manifests.index.resolve(target) else {
                    return Ok(Vec::new());
                };
                let mut places = Vec::new();
                for (workload, port) in found {
                    if let Some(data) = manifests.index.snapshot(&workload, Generation::default()) {
                        places.push(Place {
                            workload,
                            port,
                            snapshot: Snapshot::compile(data)?,
                        });
                    }
                }
                Ok(places)
            }
            Self::Live(live, snapshots) => live::wait(live_places(live, snapshots, target))
                .map_err(|fault| fault.with_exit(Exit::Undecidable)),
        }
    }

    /// As [`Policy::places`], for `--to`: a workload of that name, else a Service.
    ///
    /// # Errors
    /// As [`Policy::places`]; for a running mesh also if nobody there has the name.
    pub(crate) fn places_of(&mut self, to: &To) -> Result<(TargetRecord, Vec<Place>), Fault> {
        for target in to.readings() {
            let places = self.places(&target)?;
            if !places.is_empty() {
                return Ok((target, places));
            }
        }
        let target = if to.service_only {
            to.service()
        } else {
            to.pod()
        };
        match self {
            Self::Static(..) => Ok((target, Vec::new())),
            Self::Live(live, _) => Err(no_proxy(live, &target)),
        }
    }

    /// The fault of a running mesh in which nobody answers for `target`.
    pub(crate) fn nobody(&self, target: &TargetRecord) -> Option<Fault> {
        match self {
            Self::Static(..) => None,
            Self::Live(live, _) => Some(no_proxy(live, target)),
        }
    }
}

fn no_proxy(live: &Live, target: &TargetRecord) -> Fault {
    let name = target
        .pod
        .as_ref()
        .or(target.service.as_ref())
        .cloned()
        .unwrap_or_default();
    let names: Vec<_> = live
        .proxies()
        .map(|(w, _)| format!("{}/{}", w.namespace, w.name))
        .collect();
    Fault::undecidable(&UndecidableError::NoProxy {
        asked: format!("{}/{name}:{}", target.namespace, target.port),
        known: format!("workloads with a proxy: {}", names.join(", ")),
    })
}

async fn live_places(
    live: &Live,
    snapshots: &mut BTreeMap<WorkloadKey, Snapshot>,
    target: &TargetRecord,
) -> Result<Vec<Place>, Fault> {
    let found = match (&target.pod, &target.service) {
        (Some(pod), _) => vec![(pod.clone(), target.port)],
        (None, Some(service)) => {
            let discovery = live.discovery().await?;
            let ports = discovery.services.into_iter().filter(|port| {
                port.namespace == target.namespace
                    && port.name == *service
                    && port.port == target.port
            });
            ports
                .flat_map(|port| port.endpoints)
                .map(|endpoint| (endpoint.workload, endpoint.port))
                .collect()
        }
        (None, None) => Vec::new(),
    };
    let mut places = Vec::new();
    for (name, port) in found {
        let Some((_, proxy)) = live
            .proxies()
            .find(|(w, _)| w.namespace == target.namespace && w.name == name)
        else {
            continue;
        };
        let workload = WorkloadKey {
            namespace: target.namespace.clone(),
            name,
        };
        let snapshot = match snapshots.get(&workload) {
            Some(snapshot) => snapshot.clone(),
            None => {
                let snapshot = live::snapshot(proxy).await?;
                snapshots.insert(workload.clone(), snapshot.clone());
                snapshot
            }
        };
        places.push(Place {
            workload,
            port,
            snapshot,
        });
    }
    Ok(places)
}
