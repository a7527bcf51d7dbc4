//! Where the sources of policy come from: files that are watched, or an API server.

use crate::cluster::Cluster;
use crate::config::PolicySources;
use crate::error::ControllerError;
use crate::sources::{self, SourceError, Sources};
use crate::watch::{ChangeWatch, settle};
use mesh_kubernetes::Client;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What tells that sources changed.
pub(crate) enum Origin {
    Files {
        roots: Vec<PathBuf>,
        watch: ChangeWatch,
    },
    Cluster {
        cluster: Cluster,
        client: Client,
        told: Arc<Notify>,
    },
}

/// What reads them, on whichever thread.
#[derive(Clone)]
pub(crate) enum Reader {
    Files(Vec<PathBuf>),
    Cluster(Cluster),
}

impl Origin {
    /// Begins to watch; the tasks that it takes are spawned on `tasks`.
    ///
    /// # Errors
    /// [`ControllerError::NoSources`] without any path; [`ControllerError::Kubernetes`] if there is no way to an API
    /// server. One that does not answer now is waited for.
    pub(crate) async fn open(
        sources: &PolicySources,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, ControllerError> {
        match sources {
            PolicySources::Manifests(roots) if roots.is_empty() => Err(ControllerError::NoSources),
            PolicySources::Manifests(roots) => Ok(Self::Files {
                watch: ChangeWatch::new(roots),
                roots: roots.clone(),
            }),
            PolicySources::Cluster {
                kubeconfig,
                context,
            } => {
                let client =
                    mesh_kubernetes::connect(kubeconfig.as_deref(), context.as_deref()).await?;
                let cluster = Cluster::default();
                let told = cluster.told();
                tasks.spawn(cluster.clone().follow(client.clone()));
                Ok(Self::Cluster {
                    cluster,
                    client,
                    told,
                })
            }
        }
    }

    /// The API server, if that is where sources are.
    pub(crate) fn cluster(&self) -> Option<(Cluster, Client)> {
        match self {
            Self::Files { .. } => None,
            Self::Cluster {
                cluster, client, ..
            } => Some((cluster.clone(), client.clone())),
        }
    }

    pub(crate) fn reader(&self) -> Reader {
        match self {
            Self::Files { roots, .. } => Reader::Files(roots.clone()),
            Self::Cluster { cluster, .. } => Reader::Cluster(cluster.clone()),
        }
    }

    /// Waits until there is something whole to read; says what it waits for whenever that is new.
    pub(crate) async fn ready(&mut self, say: impl Fn(String)) {
        let Self::Cluster { cluster, told, .. } = self else {
            return;
        };
        let mut said = None;
        while let Err(why) = cluster.complete() {
            if let Some(why) = why.filter(|why| said.as_ref() != Some(why)) {
                say(why.clone());
                said = Some(why);
            }
            told.notified().await;
        }
    }

    /// Ready when the sources may have changed and have come to rest.
    pub(crate) async fn changed(&mut self) {
        match self {
            Self::Files { watch, .. } => watch.changed().await,
            Self::Cluster { told, .. } => {
                told.notified().await;
                settle(told).await;
            }
        }
    }
}

impl Reader {
    /// All sources as they are now.
    pub(crate) fn read(&self) -> Result<Sources, SourceError> {
        match self {
            Self::Files(roots) => sources::read(roots),
            Self::Cluster(cluster) => cluster.read(),
        }
    }
}
