//! `mesh-proxy --config FILE`: the data plane alone, without the rest of the mesh.

use clap::Parser;
use mesh_platform::System;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Gives memory back as connections end, and does not fragment under load.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The mesh's data plane: one proxy beside one application.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration, YAML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log, as `level` or `target=level,…`.
    #[arg(long, value_name = "FILTER", env = "MESH_LOG", default_value = "info")]
    log: EnvFilter,
}

fn main() -> miette::Result<ExitCode> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let platform = System::new();
    let config = match mesh_proxy::config::file::load(&*platform, &arguments.config) {
        Ok(config) => config,
        Err(error) => {
            report(error);
            return Ok(ExitCode::from(2));
        }
    };
    mesh_proxy::run(config, platform)?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "a command tells its user why it ends")]
fn report(error: mesh_proxy::ProxyError) {
    eprintln!("{:?}", miette::Report::new(error));
}
