//! `mesh version`.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Args;
use serde::Serialize;

/// Prints the version.
#[derive(Args, Clone, Debug)]
pub(crate) struct VersionArgs {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    os: &'static str,
    architecture: &'static str,
    mesh_protocol: &'static str,
}

/// Prints the version and what it was built for.
pub(crate) fn run(args: &VersionArgs, output: &mut Output) -> Result<Exit, Fault> {
    let version = Version {
        name: "mesh",
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
        mesh_protocol: "mesh.internal/1",
    };
    output.value(args.output, &version, |output, version| {
        let Version {
            name,
            version,
            os,
            architecture,
            mesh_protocol,
        } = version;
        output.line(format_args!(
            "{name} {version} ({architecture}-{os}, {mesh_protocol})"
        ))
    })?;
    Ok(Exit::Ok)
}
