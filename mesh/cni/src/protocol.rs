//! What a container runtime asks, and is answered: variables and JSON in, JSON out (CNI 1.1.0, sections 2 to 5). No IO.

use crate::error::CniError;
use crate::limits::{LOOKUP, LOOKUP_SECS_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Versions that are spoken, oldest first. Before 0.3.0 no plugin was told what those before it did.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest.
pub const NEWEST: &str = "1.1.0";

/// `type` of the plugin in configurations, and name of its program.
pub const PLUGIN: &str = "mesh-cni";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A container gets its network.
    Add,
    /// Is its network as it was made?
    Check,
    /// A container loses its network.
    Delete,
    /// Containers that are not listed are gone.
    Collect,
    /// Could a container get its network now?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Command {
    /// Reads `CNI_COMMAND`.
    ///
    /// # Errors
    /// [`CniError::Environment`]
    pub fn parse(text: &str) -> Result<Self, CniError> {
        Ok(match text {
            "ADD" => Self::Add,
            "CHECK" => Self::Check,
            "DEL" => Self::Delete,
            "GC" => Self::Collect,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => {
                return Err(environment(
                    "CNI_COMMAND",
                    format!("`{text}` is no command that is known"),
                ));
            }
        })
    }

    /// The oldest version that has it.
    fn since(self) -> &'static str {
        match self {
            Self::Add | Self::Delete | Self::Version => "0.3.0",
            Self::Check => "0.4.0",
            Self::Collect | Self::Status => "1.1.0",
        }
    }
}

/// The variables that a runtime sets; absent ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: String,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_NETNS`
    pub netns: String,
    /// `CNI_IFNAME`
    pub interface: String,
    /// `CNI_ARGS`
    pub args: String,
}

/// A pod, as a runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of those that had this name, if the runtime says so.
    pub uid: Option<String>,
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Environment {
    /// The network namespace.
    ///
    /// # Errors
    /// [`CniError::Environment`] if there is none, or no path.
    pub fn netns(&self) -> Result<PathBuf, CniError> {
        match self.netns.as_str() {
            "" => Err(environment("CNI_NETNS", "it is not set")),
            path if path.starts_with('/') => Ok(path.into()),
            path => Err(environment("CNI_NETNS", format!("`{path}` is no path"))),
        }
    }

    /// Container and interface, which every runtime names.
    ///
    /// # Errors
    /// [`CniError::Environment`]
    pub fn check(&self) -> Result<(), CniError> {
        if self.container.is_empty() {
            return Err(environment("CNI_CONTAINERID", "it is not set"));
        }
        if self.interface.is_empty() {
            return Err(environment("CNI_IFNAME", "it is not set"));
        }
        Ok(())
    }

    /// Which pod the container is of; none if the runtime knows of no pods.
    ///
    /// # Errors
    /// [`CniError::Environment`] if it names half of one, one twice, or what cannot be a name: a pod that is not told from
    /// others could be taken for one without proxy.
    pub fn pod(&self) -> Result<Option<PodName>, CniError> {
        let fault = |why: String| environment("CNI_ARGS", why);
        let (mut namespace, mut name, mut uid) = (None, None, None);
        for pair in self.args.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| fault(format!("`{pair}` is no `KEY=VALUE`")))?;
            let slot = match key {
                "K8S_POD_NAMESPACE" => &mut namespace,
                "K8S_POD_NAME" => &mut name,
                "K8S_POD_UID" => &mut uid,
                _ => continue,
            };
            if !is_name(value) {
                return Err(fault(format!("`{pair}` is no name")));
            }
            if slot.replace(value.to_owned()).is_some() {
                return Err(fault(format!("`{key}` stands there twice")));
            }
        }
        match (namespace, name) {
            (Some(namespace), Some(name)) => Ok(Some(PodName {
                namespace,
                name,
                uid,
            })),
            (None, None) => Ok(None),
            _ => Err(fault(
                "it names only one of K8S_POD_NAMESPACE and K8S_POD_NAME".to_owned(),
            )),
        }
    }
}

/// Names of Kubernetes (RFC 1123), which stand in paths of its API.
fn is_name(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.chars().all(|c| ends(c) || c == '-' || c == '.')
}

fn environment(variable: &'static str, why: impl Into<String>) -> CniError {
    CniError::Environment {
        variable,
        why: why.into(),
    }
}

/// Our part of a network configuration, with what the runtime adds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Version that runtime and plugins speak.
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// How the API server is reached.
    pub kubeconfig: PathBuf,
    /// Namespaces whose pods have no proxy: their network must come up before an API server can be asked.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// Seconds for the API server to answer.
    #[serde(default)]
    timeout_secs: Option<u64>,
    /// What the plugins before us did, as they wrote it.
    #[serde(default)]
    prev_result: Option<Box<RawValue>>,
}

impl Config {
    /// Reads what a runtime writes to stdin.
    ///
    /// # Errors
    /// [`CniError::Config`]; [`CniError::Version`] if the version is not spoken, or has no such command.
    pub fn read(stdin: &[u8], command: Command) -> Result<Self, CniError> {
        let fault = |undecodable| {
            move |error: serde_json::Error| CniError::Config {
                why: error.to_string(),
                undecodable,
            }
        };
        // The version first: what another one calls its fields is not known.
        let value: Value = serde_json::from_slice(stdin).map_err(fault(true))?;
        let version = value.get("cniVersion").and_then(Value::as_str);
        let version = version.unwrap_or_default();
        let refused = |why| CniError::Version {
            version: version.to_owned(),
            why,
        };
        let index = |version: &str| VERSIONS.iter().position(|one| *one == version);
        let spoken = index(version).ok_or_else(|| refused("is not spoken here"))?;
        if index(command.since()).is_some_and(|since| spoken < since) {
            return Err(refused("has no such command"));
        }
        let config: Self = serde_json::from_slice(stdin).map_err(fault(false))?;
        let wrong = |why: String| CniError::Config {
            why,
            undecodable: false,
        };
        if !config.kubeconfig.is_absolute() {
            return Err(wrong("`kubeconfig` is no absolute path".to_owned()));
        }
        if let Some(secs) = config.timeout_secs
            && !(1..=LOOKUP_SECS_MAX).contains(&secs)
        {
            return Err(wrong(format!(
                "`timeoutSecs: {secs}` is not from 1 to {LOOKUP_SECS_MAX}"
            )));
        }
        Ok(config)
    }

    /// Time for the API server to answer.
    pub fn timeout(&self) -> Duration {
        self.timeout_secs.map_or(LOOKUP, Duration::from_secs)
    }

    /// What the plugins before us did: our answer too, byte for byte, since we add no interface and no address.
    ///
    /// # Errors
    /// [`CniError::Config`] if there were none: alone this plugin makes no network.
    pub fn result(&self) -> Result<&str, CniError> {
        let text = self.prev_result.as_deref().map(RawValue::get);
        text.filter(|text| text.starts_with('{'))
            .ok_or_else(|| CniError::Config {
                why: "there is no `prevResult`: this plugin comes after one that makes a network"
                    .to_owned(),
                undecodable: false,
            })
    }
}

/// The answer to `VERSION`.
pub fn versions(stdin: &[u8]) -> String {
    let value: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let asked = value.get("cniVersion").and_then(Value::as_str);
    let spoken = asked.filter(|version| VERSIONS.contains(version));
    json!({ "cniVersion": spoken.unwrap_or(NEWEST), "supportedVersions": VERSIONS }).to_string()
}

#[cfg(test)]
mod tests;
