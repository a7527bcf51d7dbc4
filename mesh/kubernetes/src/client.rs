//! A connection to an API server: the one of this pod, or the one that a kubeconfig names.

use crate::error::{KubernetesError, root_cause};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;

/// Time for a connection, and for the first byte of an answer to anything but a watch.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects: to what `kubeconfig` and `context` name, else to what `KUBECONFIG` names, else from inside a pod.
///
/// Nothing is sent yet. The token of a pod is read again as the kubelet renews it.
///
/// # Errors
/// [`KubernetesError::NoConfiguration`] if neither can be read.
pub async fn connect(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, KubernetesError> {
    let fault = |error: &dyn std::error::Error| KubernetesError::NoConfiguration {
        why: root_cause(error),
    };
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = match (kubeconfig, context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| fault(&error))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|error| fault(&error))?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options)
            .await
            .map_err(|error| fault(&error))?,
        (None, None) => Config::infer().await.map_err(|error| fault(&error))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Two TLS libraries in one process: the library must not choose between them.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::try_from(config).map_err(|error| fault(&error))
}
