//! `mesh policy cedar`: the Cedar policies that manifests become, as the engine evaluates them.

use super::policy::{Policy, PolicyArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live;
use crate::output::{Format, Output};
use clap::Args;
use mesh_policy::Snapshot;
use mesh_policy::cedar::GeneratedPolicy;
use mesh_policy::compile::generated;
use mesh_policy::snapshot::{IdentityPattern, IdentitySet, Network, NetworkSet};
use mesh_policy_index::index::WorkloadKey;
use serde::Serialize;
use std::collections::BTreeMap;

/// Whose policies.
#[derive(Args, Clone, Debug)]
pub(crate) struct CedarArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Only those that bear on this workload.
    #[arg(long, value_name = "NS/NAME")]
    workload: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Policies of one workload.
#[derive(Serialize)]
struct Generated {
    workload: String,
    policies: Vec<GeneratedPolicy>,
    /// Who is in the sets that policies name.
    identity_sets: BTreeMap<String, IdentitySet>,
    /// The addresses in the sets that policies name.
    network_sets: BTreeMap<String, NetworkSet>,
}

/// Why nothing is printed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum CedarError {
    #[error("there is no workload `{asked}`")]
    #[diagnostic(code("MESH-0619"), help("there are: {known}"))]
    NoWorkload { asked: String, known: String },
    #[error("there is no workload")]
    #[diagnostic(
        code("MESH-0681"),
        help(
            "{hint}; policies are compiled for each workload, and without one there is nothing to show"
        )
    )]
    None { hint: &'static str },
}

/// The workloads that are asked about, with their policies.
///
/// # Errors
/// Exit code 2 if there is none of that name.
pub(crate) fn chosen(args: &CedarArgs) -> Result<Vec<(WorkloadKey, Snapshot)>, Fault> {
    let snapshots = snapshots(args)?;
    let name = |key: &WorkloadKey| format!("{}/{}", key.namespace, key.name);
    let known: Vec<_> = snapshots.iter().map(|(key, _)| name(key)).collect();
    let asked = args.workload.as_ref();
    let found: Vec<_> = snapshots
        .into_iter()
        .filter(|(key, _)| asked.is_none_or(|asked| *asked == name(key)))
        .collect();
    if known.is_empty() {
        let hint = if args.policy.files.is_empty() {
            "no proxy of the running mesh answers"
        } else {
            "name the files of Pods, Deployments and the like too"
        };
        return Err(Fault::usage(&CedarError::None { hint }));
    }
    if found.is_empty() {
        let (asked, known) = (args.workload.clone().unwrap_or_default(), known.join(", "));
        return Err(Fault::usage(&CedarError::NoWorkload { asked, known }));
    }
    Ok(found)
}

/// Prints the policies.
pub(crate) fn run(args: &CedarArgs, output: &mut Output) -> Result<Exit, Fault> {
    let found: Vec<Generated> = chosen(args)?
        .iter()
        .map(|(key, snapshot)| Generated {
            workload: format!("{}/{}", key.namespace, key.name),
            policies: generated(snapshot).to_vec(),
            identity_sets: snapshot.data().identity_sets.clone(),
            network_sets: snapshot.data().network_sets.clone(),
        })
        .collect();
    output.value(args.output, &found, |output, found| {
        for one in found {
            output.line(format_args!(
                "// workload {}, policies: {}",
                one.workload,
                one.policies.len()
            ))?;
            for policy in &one.policies {
                output.line(format_args!(
                    "\n// {} ({})\n{}",
                    policy.id,
                    policy.source,
                    policy.cedar.trim_end()
                ))?;
            }
            for (id, set) in &one.identity_sets {
                let members: Vec<_> = set.members.iter().map(member).collect();
                output.line(format_args!(
                    "\n// {id} ({}): {}",
                    set.source,
                    members.join(", ")
                ))?;
            }
            for (id, set) in &one.network_sets {
                let blocks: Vec<_> = set.networks.iter().map(block).collect();
                output.line(format_args!(
                    "\n// {id} ({}): {}",
                    set.source,
                    blocks.join(", ")
                ))?;
            }
            output.line("")?;
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

/// A member of an identity set, in words.
fn member(pattern: &IdentityPattern) -> String {
    match pattern {
        IdentityPattern::Any => "any verified identity".to_owned(),
        IdentityPattern::Exact(id) => id.to_string(),
        IdentityPattern::Namespace {
            trust_domain,
            namespace,
        } => format!("spiffe://{trust_domain}/ns/{namespace}/sa/*"),
        IdentityPattern::Nobody(text) => format!("`{text}` (matches nobody)"),
    }
}

/// A block of addresses with what is taken out of it.
fn block(network: &Network) -> String {
    let except: Vec<_> = network
        .except
        .iter()
        .map(|block| format!(" except {block}"))
        .collect();
    format!("{}{}", network.cidr, except.concat())
}

fn snapshots(args: &CedarArgs) -> Result<Vec<(WorkloadKey, Snapshot)>, Fault> {
    let mut found = Vec::new();
    match Policy::open(&args.policy)? {
        Policy::Static(manifests, _) => {
            for (key, _) in manifests.index.workloads() {
                if let Some(snapshot) = manifests.snapshot(key)? {
                    found.push((key.clone(), snapshot));
                }
            }
        }
        Policy::Live(live, _) => live::wait(async {
            for (workload, proxy) in live.proxies() {
                let key = WorkloadKey {
                    namespace: workload.namespace.clone(),
                    name: workload.name.clone(),
                };
                found.push((key, live::snapshot(proxy).await?));
            }
            Ok(())
        })?,
    }
    Ok(found)
}
