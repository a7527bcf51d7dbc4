//! `mesh injector`: the webhooks, as the pods of `mesh install` run them.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::parts::{asked_to_end, log_to_stderr, runtime};
use clap::Args;
use mesh_cluster::inject::Settings;
use mesh_injector::InjectorConfig;
use mesh_platform::{System, files as disk};
use std::net::SocketAddr;
use std::path::Path;

/// Bytes of its settings; they have 300.
const SETTINGS_BYTES_MAX: u64 = 64 << 10;

/// Runs the webhooks that add proxies to pods and check policies.
#[derive(Args, Clone, Debug)]
pub(crate) struct InjectorArgs {
    /// Where API servers reach it, TLS.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Where it answers `/metrics`, `/ready` and `/live`.
    #[arg(long, value_name = "IP:PORT")]
    admin: SocketAddr,
    /// What it adds to pods: a file, or `env:NAME` for a variable.
    #[arg(long, value_name = "FILE|env:NAME")]
    config: String,
    /// Only checks policies: admission policies of the API server add proxies to pods (`injector.by: policy`).
    #[arg(long)]
    policies_only: bool,
}

/// Settings that are not there.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum ConfigError {
    #[error("the variable `{name}` is not set, or is no text")]
    #[diagnostic(
        code("MESH-0759"),
        help("`mesh install` sets it in the Deployment mesh-injector")
    )]
    NoVariable { name: String },
}

/// Runs the injector until it is ended.
pub(crate) fn injector(args: &InjectorArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let text = settings_text(&args.config)?;
    let config = InjectorConfig {
        listen: args.listen,
        admin: args.admin,
        settings: Settings::read(&text).map_err(|error| Fault::usage(&error))?,
        policies_only: args.policies_only,
    };
    runtime()?.block_on(mesh_injector::run(config, System::new(), asked_to_end()))?;
    Ok(Exit::Ok)
}

fn settings_text(from: &str) -> Result<String, Fault> {
    match from.strip_prefix("env:") {
        Some(name) => {
            let found = std::env::var_os(name).and_then(|value| value.into_string().ok());
            found.ok_or_else(|| {
                Fault::usage(&ConfigError::NoVariable {
                    name: name.to_owned(),
                })
            })
        }
        None => {
            let bytes = disk::read_limited(Path::new(from), SETTINGS_BYTES_MAX)
                .map_err(|error| Fault::usage(&error))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}
