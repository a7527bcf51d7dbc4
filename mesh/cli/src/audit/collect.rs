//! `mesh audit collect`: a snapshot bundle of a state directory, or of a cluster.
//!
//! - [`classes`]: what makes a class of decisions
//! - [`logs`]: decisions and changes, counted as they are proved
//! - [`issuance`]: the CA's log
//! - [`cluster`]: the same of a Kubernetes cluster, without logs
//! - [`given`]: what the logs do not know: zones, and who approved what
//!
//! Of a mesh that has ended, the window ends at its last record, so that collecting it twice gives the same bundle.

mod classes;
mod cluster;
mod given;
pub(super) mod issuance;
mod logs;

use super::source::CollectedArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{Live, LiveError};
use crate::manifests;
use crate::output::Output;
use clap::Args;
pub(super) use given::Given;
use logs::Counted;
use mesh_compliance::bundle::{Action, Bundle, Log, LogKind, ManifestFile, Scope, Workload};
use mesh_platform::{Platform as _, System, files};
use mesh_trust::{Timestamp, TrustDomain};
use std::path::{Path, PathBuf};

/// Bytes of a proxy's configuration: one that `mesh up` wrote has about 2 KiB.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What is collected, and where to.
#[derive(Args, Clone, Debug)]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    collected: CollectedArgs,
    /// The file that is written.
    #[arg(long, value_name = "FILE", default_value = "bundle.jsonl")]
    out: PathBuf,
}

/// Writes a bundle.
pub(super) fn run(args: &CollectArgs, output: &mut Output) -> Result<Exit, Fault> {
    let source = args.collected.open()?;
    files::write_atomic(&args.out, &source.bytes, 0o600)?;
    let bundle = &source.bundle;
    output.line(format_args!(
        "{}  {}",
        mesh_compliance::bundle::digest(&source.bytes),
        args.out.display()
    ))?;
    output.talk(format_args!(
        "{} to {}: {} files of policy, {} workloads, {} logs, {} classes of traffic, {} certificates",
        bundle.scope.since,
        bundle.scope.until,
        bundle.files.len(),
        bundle.workloads.len(),
        bundle.logs.len(),
        bundle.traffic.len(),
        bundle.certificates.len(),
    ));
    Ok(Exit::Ok)
}

/// Collects what a state directory holds.
pub(super) fn collect(args: &CollectedArgs, given: Given) -> Result<Bundle, Fault> {
    if args.kubernetes {
        return cluster::collect(args, &given);
    }
    let live = Live::read_or_ended(&args.live)?;
    let alive = live.supervisor_is_alive();
    let malformed = |why: String| LiveError::Malformed {
        from: live.state.display().to_string(),
        why,
    };
    let trust_domain =
        TrustDomain::parse(&live.running.trust_domain).map_err(|e| malformed(e.to_string()))?;
    let audit = live.state.join("audit");
    let issued = issuance::read(&live.state.join("ca"))?;
    let until = if alive {
        System::new().wall_clock()
    } else {
        let last = logs::last_times(&audit)?
            .into_iter()
            .chain(issued.log.as_ref().and_then(|log| log.last));
        last.max()
            .ok_or_else(|| malformed("no log in it holds an entry".to_owned()))?
    };
    let since = args.since.time(until).min(until);
    let counted = logs::count(&audit, &live, since, until)?;
    let scope = Scope {
        since,
        until,
        trust_domain,
        default_policy: live.running.default_policy.clone(),
        generation: counted.generation,
        collected_from: if alive { "running" } else { "state" }.to_owned(),
        collector: env!("CARGO_PKG_VERSION").to_owned(),
        leaf_lifetime_secs_max: args.leaf_lifetime.as_secs(),
    };
    let mut bundle = Bundle::of(scope);
    bundle.files = policy(&live)?;
    bundle.workloads = workloads(&live);
    bundle.certificates = issued.certificates;
    bundle.zones = given.zones.clone();
    let in_window = |one: &Action| (since..=until).contains(&one.time);
    bundle.actions = issued.actions.into_iter().filter(in_window).collect();
    fill(&mut bundle, counted, issued.log, &given);
    Ok(bundle)
}

fn fill(bundle: &mut Bundle, counted: Counted, issuance: Option<Log>, given: &Given) {
    bundle.logs = counted.logs;
    bundle.logs.extend(issuance);
    bundle.logs.sort_by(|a, b| a.origin.cmp(&b.origin));
    bundle.traffic = counted.traffic;
    bundle.denials = counted.denials;
    bundle.observed = counted.observed;
    bundle.changes = counted.changes;
    bundle.actions.extend(counted.actions);
    bundle.actions.sort();
    for change in &mut bundle.changes {
        given.approve(change);
    }
}

/// The manifests that the mesh reads, with names relative to the working directory where they are below it.
fn policy(live: &Live) -> Result<Vec<ManifestFile>, Fault> {
    let generated = live.state.join("manifests");
    let mut paths = live.running.manifests.clone();
    if !paths.contains(&generated) {
        paths.push(generated);
    }
    let here = std::path::absolute(".").unwrap_or_default();
    let mut out = Vec::new();
    for (name, bytes) in manifests::contents(&paths)? {
        let short = Path::new(&name)
            .strip_prefix(&here)
            .map(|path| path.display().to_string());
        out.push(ManifestFile {
            name: short.unwrap_or(name),
            // What is no UTF-8 is no YAML either: the engine refuses it, and so it does in the bundle.
            text: String::from_utf8_lossy(&bytes).into_owned(),
        });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out.dedup_by(|a, b| a.name == b.name);
    Ok(out)
}

fn workloads(live: &Live) -> Vec<Workload> {
    let mut out: Vec<Workload> = live
        .running
        .workloads
        .iter()
        .map(|one| Workload {
            namespace: one.namespace.clone(),
            name: one.name.clone(),
            service_account: one.service_account.clone(),
            meshed: one.proxy.is_some(),
            allow_sample_ppm: match one.proxy {
                Some(_) => allow_sample(&live.state, &one.namespace, &one.name),
                None => 0,
            },
        })
        .collect();
    out.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    out
}

/// The share of allowed requests that a proxy records, from its configuration. What cannot be read counts as none: then
/// nothing is concluded from what is not on record.
fn allow_sample(state: &Path, namespace: &str, name: &str) -> u32 {
    let file = state
        .join("config")
        .join(format!("{namespace}.{name}.yaml"));
    let share = || {
        let text = files::read_limited(&file, CONFIG_BYTES_MAX).ok()?;
        // `mesh up` writes JSON, which is YAML.
        let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
        config.pointer("/audit/allowSample")?.as_f64()
    };
    let share = share().unwrap_or_default().clamp(0.0, 1.0);
    // Between 0 and a million.
    (share * 1_000_000.0).round() as u32
}

/// The later of two times that may be missing.
fn later(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.max(b)
}

/// A log of which nothing is known but its name.
fn empty_log(origin: &str, records: LogKind) -> Log {
    Log {
        origin: origin.to_owned(),
        records,
        namespace: None,
        workload: None,
        entries: 0,
        decisions: 0,
        denied: 0,
        incomplete: std::collections::BTreeMap::new(),
        cut: 0,
        gaps: 0,
        lost: 0,
        clock_back: 0,
        first: None,
        last: None,
        sealed_through: None,
        root: None,
        counts_allows: false,
        broken: None,
    }
}
