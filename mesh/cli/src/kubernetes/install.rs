//! `mesh install` and `mesh uninstall`: YAML for kubectl. They talk to no cluster, so what will be done can be read first.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::kubernetes::text::text_of;
use crate::output::Output;
use clap::Args;
use mesh_cluster::crds::Which;
use mesh_cluster::install::{self, Values, files, values};
use mesh_platform::files as disk;
use std::path::PathBuf;

/// Which part of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Part {
    /// Only the resource definitions.
    #[arg(long, conflicts_with = "skip_crds")]
    crds: bool,
    /// Only the control plane, for whoever installs definitions on another way.
    #[arg(long)]
    skip_crds: bool,
    /// Without Linkerd's definitions, where Linkerd is installed: they are its own.
    #[arg(long)]
    own_crds: bool,
}

/// Prints the mesh as YAML: `mesh install | kubectl apply -f -`. Applied again, it is an upgrade.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    part: Part,
    /// Print what can be set, with its defaults, and nothing else.
    #[arg(long, conflicts_with = "crds")]
    values: bool,
    #[command(flatten)]
    settings: InstallSettings,
}

/// What can be set about an installation.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstallSettings {
    /// Three replicas of controller and injector; the same as `--set highAvailability=true`.
    #[arg(long)]
    ha: bool,
    /// A CNI plugin redirects the traffic of pods, which so need no rights; the same as `--set cni.enabled=true`.
    #[arg(long)]
    cni: bool,
    /// File of values, YAML; `-` is stdin.
    #[arg(short = 'f', long = "values-file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// One value; may stand several times, the last counts.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Prints the names of what `mesh install` made: `mesh uninstall | kubectl delete -f -`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UninstallArgs {
    /// The resource definitions too: every policy of every namespace goes with them.
    #[arg(long)]
    crds: bool,
    #[command(flatten)]
    settings: InstallSettings,
}

/// Writes the files below `charts/` that are made from code.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChartsArgs {
    /// The folder `charts`.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl InstallSettings {
    fn values(&self) -> Result<Values, Fault> {
        let mut values = match &self.file {
            Some(path) => Values::read(&text_of(path)?).map_err(|error| Fault::usage(&error))?,
            None => Values::default(),
        };
        values = values
            .set_all(&self.set)
            .map_err(|error| Fault::usage(&error))?;
        values.high_availability |= self.ha;
        values.cni.enabled |= self.cni;
        Ok(values)
    }
}

/// Prints definitions, control plane, or both.
pub(crate) fn install(args: &InstallArgs, output: &mut Output) -> Result<Exit, Fault> {
    if args.values {
        output.text(values::DEFAULTS)?;
        return Ok(Exit::Ok);
    }
    print(&args.part, &args.settings.values()?, output)?;
    Ok(Exit::Ok)
}

/// Prints what a part of an installation with these values is.
pub(super) fn print(part: &Part, values: &Values, output: &mut Output) -> Result<(), Fault> {
    let which = if part.own_crds {
        Which::Own
    } else {
        Which::All
    };
    if !part.skip_crds {
        output.text(install::render_crds(which))?;
    }
    if !part.crds {
        output.text(install::render(values)?)?;
    }
    Ok(())
}

/// Prints what is to be deleted, the webhooks first.
pub(crate) fn uninstall(args: &UninstallArgs, output: &mut Output) -> Result<Exit, Fault> {
    output.text(install::render_removal(&args.settings.values()?)?)?;
    if args.crds {
        output.text(install::render_crds(Which::All))?;
    }
    Ok(Exit::Ok)
}

/// Writes the files anew.
pub(crate) fn charts(args: &ChartsArgs, output: &mut Output) -> Result<Exit, Fault> {
    let made = files::made()?;
    for (path, text) in &made {
        disk::write_atomic(&args.dir.join(path), text.as_bytes(), 0o644)?;
    }
    output.talk(format_args!(
        "{} files in {}",
        made.len(),
        args.dir.display()
    ));
    Ok(Exit::Ok)
}
