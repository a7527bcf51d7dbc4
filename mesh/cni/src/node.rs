//! The plugin's world: API server and kernel of a node.

use crate::error::CniError;
use crate::limits::CREDENTIAL_BYTES_MAX;
use crate::plugin::World;
use crate::protocol::{Config, PodName};
use mesh_kubernetes::read;
use mesh_platform::{PlatformError, files, net_namespace};
use mesh_proxy::capture::{self, CaptureError};
use mesh_proxy_core::capture::Capture;
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;

/// This node.
#[derive(Clone, Copy, Debug)]
pub struct Node;

impl World for Node {
    fn pod(&self, config: &Config, name: &PodName) -> Result<Value, CniError> {
        let fault = |why: String| CniError::Lookup {
            pod: name.to_string(),
            why,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| fault(format!("no thread can wait for it: {error}")))?;
        let like = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": name.namespace, "name": name.name },
        });
        let asked = async {
            let client = mesh_kubernetes::connect(Some(&config.kubeconfig), None).await?;
            read::named(&client, &like).await
        };
        let within = config.timeout();
        let answered = runtime.block_on(async { tokio::time::timeout(within, asked).await });
        // What still waits for a name or a connection is not waited for.
        runtime.shutdown_background();
        match answered {
            Err(_elapsed) => Err(fault(format!(
                "the API server did not answer within {} s",
                within.as_secs()
            ))),
            Ok(Err(error)) => Err(fault(error.to_string())),
            Ok(Ok(None)) => Err(fault("the API server knows no such pod".to_owned())),
            Ok(Ok(Some(pod))) => Ok(pod),
        }
    }

    fn capture(&self, netns: &Path, rules: &Capture) -> Result<(), CniError> {
        inside(netns, || {
            capture::install(rules)?;
            capture::verify(rules)
        })
    }

    fn verify(&self, netns: &Path, rules: &Capture) -> Result<(), CniError> {
        inside(netns, || capture::verify(rules))
    }

    fn is_ready(&self, config: &Config) -> Result<(), CniError> {
        let found = files::read_limited(&config.kubeconfig, CREDENTIAL_BYTES_MAX);
        found.map(drop).map_err(|error| CniError::Lookup {
            pod: "any".to_owned(),
            why: error.to_string(),
        })
    }
}

fn inside(
    netns: &Path,
    what: impl FnOnce() -> Result<(), CaptureError> + Send,
) -> Result<(), CniError> {
    let fault = |error: PlatformError| CniError::Namespace {
        why: match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    Ok(net_namespace::within(netns, what).map_err(fault)??)
}
