//! `mesh-proxy --config FILE`: the data plane alone, without the rest of the mesh; `mesh-proxy capture`: what brings
//! connections to it; `mesh-proxy tap`: what goes through it now.

mod capture_command;
mod tap_command;

use clap::{Parser, Subcommand};
use mesh_platform::System;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Gives memory back as connections end, and does not fragment under load.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The mesh's data plane: one proxy beside one application.
#[derive(Parser)]
#[command(
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration, YAML: a file, or `env:NAME` for an environment variable.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// What to log, as `level` or `target=level,…`.
    #[arg(long, value_name = "FILTER", env = "MESH_LOG", default_value = "info")]
    log: EnvFilter,
}

#[derive(Subcommand)]
enum Command {
    Capture(mesh_proxy::capture::CaptureArgs),
    Tap(tap_command::TapArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => {}
        Some(Command::Capture(args)) => {
            return match capture_command::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(error, 1),
            };
        }
        Some(Command::Tap(args)) => {
            return match tap_command::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(error, 1),
            };
        }
    }
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let platform = System::new();
    // Without a command clap demands it.
    let path = arguments.config.as_deref().unwrap_or(Path::new(""));
    let config = match mesh_proxy::config::file::load(&*platform, path) {
        Ok(config) => config,
        Err(error) => return failed(error, 2),
    };
    match mesh_proxy::run(config, platform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error, 1),
    }
}

#[expect(clippy::print_stderr, reason = "a command tells its user why it ends")]
fn failed(error: impl miette::Diagnostic + Send + Sync + 'static, code: u8) -> ExitCode {
    eprintln!("{:?}", miette::Report::new(error));
    ExitCode::from(code)
}
