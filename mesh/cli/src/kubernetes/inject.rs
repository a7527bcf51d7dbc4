//! `mesh inject` and `mesh uninject`: manifests in, manifests out. What is no workload comes out byte for byte.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::kubernetes::text::text_of;
use crate::output::{Output, printable};
use clap::Args;
use mesh_cluster::inject::{self, Namespace, Outcome, Settings, Skip};
use mesh_cluster::install::Values;
use mesh_cluster::manifest::{self, ManifestError};
use std::path::PathBuf;

/// Asks for proxies in manifests: `mesh inject app.yaml | kubectl apply -f -`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InjectArgs {
    /// Manifests; `-` is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Add the proxy itself, as the injector would, for clusters without one; not the annotation that asks for it.
    #[arg(long)]
    manual: bool,
    /// One value of the installation, with `--manual`; may stand several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "manual")]
    set: Vec<String>,
}

/// Takes proxies, and what asks for them, out of manifests.
#[derive(Args, Clone, Debug)]
pub(crate) struct UninjectArgs {
    /// Manifests; `-` is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

/// Why manifests cannot be changed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum InjectError {
    /// A workload that cannot be meshed.
    #[error("{workload}: {refusal}")]
    #[diagnostic(code("MESH-0757"), help("{hint}"))]
    Refused {
        workload: String,
        refusal: String,
        hint: String,
    },
    /// Nothing to do anything with.
    #[error("there is no workload in the manifests")]
    #[diagnostic(
        code("MESH-0758"),
        help(
            "workloads are Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs"
        )
    )]
    Nothing,
}

/// Prints the manifests with workloads that ask for a proxy, or have one.
pub(crate) fn inject(args: &InjectArgs, output: &mut Output) -> Result<Exit, Fault> {
    let text = text_of(&args.file)?;
    let mut values = Values::default();
    for assignment in &args.set {
        values = values
            .set(assignment)
            .map_err(|error| Fault::usage(&error))?;
    }
    let (mut seen, mut notes) = (0, Vec::new());
    let out = manifest::each(&text, |workload| {
        seen += 1;
        let title = workload.title.clone();
        // Decided as the webhook will decide, so that what it would refuse is refused here.
        let mut wanted = workload.pod.clone();
        let disabled = matches!(
            decide(&wanted, &values).outcome,
            Outcome::Skip(Skip::Disabled)
        );
        if disabled {
            notes.push(format!("{title}: stays outside, as it says itself"));
            return Ok(());
        }
        manifest::annotate(&mut wanted, "enabled");
        let decision = decide(&wanted, &values);
        notes.extend(
            decision
                .warnings
                .iter()
                .map(|warning| format!("{title}: {warning}")),
        );
        match decision.outcome {
            Outcome::Refuse(refusal) => return Err(refused(title, &refusal)),
            Outcome::Skip(_) => notes.push(format!("{title}: has a proxy already")),
            Outcome::Inject(addition) if args.manual => {
                addition.apply(workload.pod);
                notes.push(format!("{title}: has a proxy now"));
            }
            Outcome::Inject(_) => {
                *workload.pod = wanted;
                notes.push(format!("{title}: asks for a proxy"));
            }
        }
        Ok::<(), Fault>(())
    })?;
    finish(&out, seen, notes, output)
}

/// Prints the manifests without proxies.
pub(crate) fn uninject(args: &UninjectArgs, output: &mut Output) -> Result<Exit, Fault> {
    let text = text_of(&args.file)?;
    let (mut seen, mut notes) = (0, Vec::new());
    let out = manifest::each(&text, |workload| {
        seen += 1;
        let what = if manifest::uninject(workload.pod) {
            "asks for no proxy any more"
        } else {
            "had none"
        };
        notes.push(format!("{}: {what}", workload.title));
        Ok::<(), ManifestError>(())
    })?;
    finish(&out, seen, notes, output)
}

fn decide(pod: &serde_json::Value, values: &Values) -> inject::Decision {
    inject::decide(pod, &Namespace::default(), &Settings::from(values))
}

fn refused(workload: String, refusal: &inject::Refusal) -> Fault {
    let hint = miette::Diagnostic::help(refusal)
        .map(|help| help.to_string())
        .unwrap_or_default();
    let code = miette::Diagnostic::code(refusal)
        .map(|code| code.to_string())
        .unwrap_or_default();
    let refusal = format!("{code}: {refusal}");
    Fault::from(InjectError::Refused {
        workload,
        refusal,
        hint,
    })
}

fn finish(text: &str, seen: usize, notes: Vec<String>, output: &mut Output) -> Result<Exit, Fault> {
    if seen == 0 {
        return Err(Fault::usage(&InjectError::Nothing));
    }
    output.text(text)?;
    output.flush()?;
    for note in notes {
        output.talk(printable(&note));
    }
    Ok(Exit::Ok)
}
