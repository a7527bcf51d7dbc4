//! A Kubernetes cluster as commands ask it: which one, its objects as manifests, and what its proxies count.
//!
//! - [`proxies`]: pods with a proxy, and what these say, through the API server
//! - [`exposition`]: counts and histograms in Prometheus' text

pub(crate) mod exposition;
pub(crate) mod proxies;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::manifests::{Manifests, MeshSettings};
use clap::Args;
use mesh_cluster::install::Values;
use mesh_cluster::names::{CONFIG, NAMESPACE};
use mesh_kubernetes::kinds::POLICY_SOURCES;
use mesh_kubernetes::{Client, KubernetesError, object, read};
use mesh_policy_index::Proxied;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Which cluster is asked, if one is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct ClusterArgs {
    /// Ask the Kubernetes cluster of the kubeconfig. That is done anyway if no mesh runs on this machine and there is a
    /// kubeconfig, or under the name `kubectl mesh`.
    #[arg(long)]
    pub(crate) cluster: bool,
    /// Kubeconfig to use in place of `KUBECONFIG` and `~/.kube/config`.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use in place of its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// Why a cluster gives no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum ClusterError {
    /// Nothing is installed there, or something that this version cannot read.
    #[error("what is installed in namespace `mesh-system` cannot be told: {why}")]
    #[diagnostic(
        code("MESH-0781"),
        help("`mesh check` says more; `mesh install | kubectl apply -f -` installs")
    )]
    NotInstalled {
        /// What is wrong.
        why: String,
    },
}

impl ClusterArgs {
    /// Whether a cluster is meant, and not the mesh on this machine.
    pub(crate) fn is_meant(&self, live: &LiveArgs) -> bool {
        if self.cluster || self.kubeconfig.is_some() || self.context.is_some() {
            return true;
        }
        live.state.is_none()
            && has_kubeconfig()
            && (called_by_kubectl() || Live::read(live).is_err())
    }

    /// A connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`KubernetesError::NoConfiguration`]
    pub(crate) async fn connect(&self) -> Result<Client, KubernetesError> {
        mesh_kubernetes::connect(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// The same as words of a command: for whoever is told to run kubectl.
    pub(crate) fn kubectl(&self) -> String {
        let mut out = "kubectl".to_owned();
        if let Some(kubeconfig) = &self.kubeconfig {
            out.push_str(&format!(" --kubeconfig {}", kubeconfig.display()));
        }
        if let Some(context) = &self.context {
            out.push_str(&format!(" --context {context}"));
        }
        out
    }

    /// The cluster's objects, read as the controller reads them, under the settings that are installed there.
    ///
    /// # Errors
    /// Exit code 11 if the cluster does not answer, or a kind may not be listed.
    pub(crate) fn manifests(
        &self,
        settings: &MeshSettings,
    ) -> Result<(Manifests, MeshSettings), Fault> {
        let work = async {
            let client = self.connect().await?;
            let asked = (
                values(&client),
                read::objects(&client, POLICY_SOURCES, object::essence),
            );
            let (values, objects) = tokio::join!(asked.0, asked.1);
            let installed = match values? {
                Some(values) => installed(&values)?,
                // The policies of a cluster can be looked at before anything is installed.
                None => settings.clone(),
            };
            let files = objects?.files.into_iter().collect();
            Ok((files, installed))
        };
        let (files, settings) =
            live::wait(work).map_err(|fault: Fault| fault.with_exit(Exit::Undecidable))?;
        let manifests = Manifests::of_kind(files, &settings, Proxied::WithContainer);
        Ok((manifests, settings))
    }
}

/// The values of the installation; none if there is none.
///
/// # Errors
/// [`KubernetesError`], or [`ClusterError::NotInstalled`] for values that this version cannot read.
pub(crate) async fn values(client: &Client) -> Result<Option<Values>, Fault> {
    let Some(text) = values_text(client).await? else {
        return Ok(None);
    };
    let values = Values::read(&text);
    values.map(Some).map_err(|error| {
        let why = format!("ConfigMap {CONFIG}: {error}");
        Fault::from(ClusterError::NotInstalled { why })
    })
}

/// The values of the installation as they stand there, perhaps those of another version; none if there is none.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub(crate) async fn values_text(client: &Client) -> Result<Option<String>, KubernetesError> {
    let text = |map: Value| Some(map.pointer("/data/values.yaml")?.as_str()?.to_owned());
    let map = config(client).await?;
    Ok(map.map(|map| text(map).unwrap_or_default()))
}

/// The ConfigMap of the installation; none if there is none.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub(crate) async fn config(client: &Client) -> Result<Option<Value>, KubernetesError> {
    let like = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": NAMESPACE, "name": CONFIG },
    });
    read::named(client, &like).await
}

/// The settings that an installation was made with.
fn installed(values: &Values) -> Result<MeshSettings, ClusterError> {
    let wrong = |why| ClusterError::NotInstalled { why };
    Ok(MeshSettings {
        default_policy: crate::manifests::mode(&values.default_policy).map_err(wrong)?,
        trust_domain: crate::manifests::trust_domain(&values.trust_domain).map_err(wrong)?,
    })
}

/// Whether this is `kubectl mesh`: kubectl runs what is called `kubectl-mesh` on the `PATH`.
fn called_by_kubectl() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref()
        .and_then(Path::file_name)
        .is_some_and(|name| name == "kubectl-mesh")
}

/// Whether a kubeconfig is where it is looked for, or a pod's service account is.
fn has_kubeconfig() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("KUBECONFIG").is_some()
        || set("KUBERNETES_SERVICE_HOST").is_some()
        || set("HOME").is_some_and(|home| Path::new(&home).join(".kube/config").is_file())
}
