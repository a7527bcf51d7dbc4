//! The answers of the plugin. What it knows of the world comes through [`World`], so they can be tried without any.
//!
//! ```text
//! ADD     no pod named, namespace left out, pod without proxy -> prevResult as it came
//!         pod with a proxy  -> its rules in its network namespace, compared as the kernel has them; then prevResult
//!         anything unclear  -> error: the runtime makes no pod, and tries again
//! CHECK   as ADD, but the rules are only compared
//! DEL, GC nothing: rules end with their namespace. Never an error: a pod that is gone must be let go
//! STATUS  whether there is a kubeconfig
//! ```

use crate::error::CniError;
use crate::pod;
use crate::protocol::{Command, Config, Environment, NEWEST, PodName, VERSIONS, versions};
use mesh_proxy_core::capture::Capture;
use serde_json::Value;
use std::path::Path;

/// What the plugin asks of the world outside.
pub trait World {
    /// The pod, as the API server has it now.
    ///
    /// # Errors
    /// [`CniError::Lookup`] also if there is no such pod.
    fn pod(&self, config: &Config, name: &PodName) -> Result<Value, CniError>;

    /// Puts the rules into a network namespace, in place of those that are there, and sees that they are.
    ///
    /// # Errors
    /// [`CniError::Namespace`], [`CniError::Capture`].
    fn capture(&self, netns: &Path, rules: &Capture) -> Result<(), CniError>;

    /// Sees that the rules are there.
    ///
    /// # Errors
    /// As [`World::capture`].
    fn verify(&self, netns: &Path, rules: &Capture) -> Result<(), CniError>;

    /// Whether there is a way to the API server, as far as this node goes.
    ///
    /// # Errors
    /// [`CniError::Lookup`].
    fn is_ready(&self, config: &Config) -> Result<(), CniError>;
}

/// What is written to stdout, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// JSON, or nothing.
    pub text: String,
    /// Whether it is an error.
    pub is_error: bool,
}

/// Code for a node on which no pod can get its network now (CNI 1.1.0, `STATUS`).
const UNAVAILABLE: u32 = 50;

/// Answers a runtime.
pub fn answer(environment: &Environment, stdin: &[u8], world: &dyn World) -> Answer {
    let command = match Command::parse(&environment.command) {
        Ok(command) => command,
        Err(error) => return refusal(&error, error.number(), stdin),
    };
    match done(command, environment, stdin, world) {
        Ok(text) => Answer {
            text,
            is_error: false,
        },
        Err(error) => {
            let number = match (command, &error) {
                (Command::Status, CniError::Lookup { .. }) => UNAVAILABLE,
                _ => error.number(),
            };
            refusal(&error, number, stdin)
        }
    }
}

fn refusal(error: &CniError, number: u32, stdin: &[u8]) -> Answer {
    // In the runtime's version if that is one; its errors look the same in all.
    let config: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let version = config.get("cniVersion").and_then(Value::as_str);
    let version = version.filter(|version| VERSIONS.contains(version));
    Answer {
        text: error.to_json(version.unwrap_or(NEWEST), number).to_string(),
        is_error: true,
    }
}

fn done(
    command: Command,
    environment: &Environment,
    stdin: &[u8],
    world: &dyn World,
) -> Result<String, CniError> {
    match command {
        Command::Version => return Ok(versions(stdin)),
        Command::Delete | Command::Collect => return Ok(String::new()),
        Command::Add | Command::Check | Command::Status => {}
    }
    let config = Config::read(stdin, command)?;
    if command == Command::Status {
        world.is_ready(&config)?;
        return Ok(String::new());
    }
    environment.check()?;
    let netns = environment.netns()?;
    let result = config.result()?;
    let rules = match environment.pod()? {
        // No runtime of Kubernetes: whatever this is, it is no pod, and has no proxy.
        None => None,
        Some(name) if config.exclude_namespaces.contains(&name.namespace) => None,
        Some(name) => rules(&config, &name, world)?,
    };
    match (command, rules) {
        (_, None) => {}
        (Command::Add, Some(rules)) => world.capture(&netns, &rules)?,
        (_, Some(rules)) => world.verify(&netns, &rules)?,
    }
    Ok(match command {
        Command::Add => result.to_owned(),
        _ => String::new(),
    })
}

fn rules(config: &Config, name: &PodName, world: &dyn World) -> Result<Option<Capture>, CniError> {
    let found = world.pod(config, name)?;
    if let Some(uid) = &name.uid
        && !pod::is_same(&found, uid)
    {
        return Err(CniError::Lookup {
            pod: name.to_string(),
            why: format!("the API server knows another pod of this name, not {uid}"),
        });
    }
    pod::wanted(&found).map_err(|why| CniError::Pod {
        pod: name.to_string(),
        why,
    })
}

#[cfg(test)]
mod tests;
