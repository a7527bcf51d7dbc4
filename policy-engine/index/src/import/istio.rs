//! Istio's AuthorizationPolicy and PeerAuthentication as resources of this mesh.
//!
//! - [`read`]: manifests to [`model`], [`values`] of rules and their [`pattern`]; [`tokens`] that nobody checks here
//! - [`scope`]: whom each policy speaks for, with [`mtls`] and [`protocol`] of each port
//! - [`plan`]: rules to grants: [`who`] and [`routes`] where resources can say it, else [`condition`] (of identities: [`identity`]) and [`cedar`], in policies that [`fit`] and are [gathered](gather)
//! - [`write`]: the plan as manifests; [`facts`]: what became of what

mod cedar;
mod condition;
mod facts;
mod fit;
mod gather;
mod identity;
mod model;
mod mtls;
mod pattern;
mod plan;
mod protocol;
mod read;
mod routes;
mod scope;
mod tokens;
mod values;
mod who;
mod write;

use super::report::Report;
use super::{CustomAction, ImportConfig, ImportError, Imported, ImportedFile};
use crate::Mode;
use crate::finding::{Code, finding};
use crate::index::{Index, IndexConfig};
use crate::manifest::load;
use mesh_policy::snapshot::{Finding, Severity};
use model::{Action, Objects};
use scope::{Cluster, Scopes};

/// Kinds of Kubernetes itself, whose mistakes end the import: who a policy speaks for depends on them.
const CORE: [&str; 10] = [
    "Namespace",
    "ServiceAccount",
    "Pod",
    "Service",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "Job",
    "CronJob",
];

/// Imports the Istio objects of some files.
///
/// # Errors
/// [`ImportError::Input`] with every finding about input that cannot be understood: nothing is imported then.
pub(super) fn import(
    files: &[(String, Vec<u8>)],
    config: &ImportConfig,
) -> Result<Imported, ImportError> {
    let named = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let (objects, mut findings) = read::read(named, config.tokens);
    findings.extend(custom_actions(&objects, config));
    let loaded = load(files.iter().cloned());
    let of_core = |f: &&Finding| {
        f.severity == Severity::Error
            && f.object
                .as_ref()
                .is_some_and(|o| CORE.contains(&o.kind.as_str()))
    };
    findings.extend(loaded.findings.iter().filter(of_core).cloned());
    findings.sort();
    findings.dedup();
    if !findings.is_empty() {
        return Err(ImportError::Input { findings });
    }
    let settings = IndexConfig {
        default_policy: config.default_policy,
        ..IndexConfig::new(config.trust_domain.clone())
    };
    let index = Index::build(&loaded, &settings);
    let cluster = Cluster {
        index: &index,
        resources: &loaded.resources,
        root_namespace: &config.root_namespace,
    };
    let scopes = scope::scopes(&objects, &cluster);
    let findings = open_by_default(&scopes, &index);
    if !findings.is_empty() {
        return Err(ImportError::Input { findings });
    }
    let plan = plan::plan(&objects, &scopes, &config.trust_domain);
    let output = write::write(&objects, &scopes, &plan, &config.trust_domain)
        .map_err(|why| ImportError::Cedar { why })?;
    let facts = facts::facts(&objects, &scopes, &cluster, &plan, &output);
    let files = output
        .files
        .into_iter()
        .map(|(name, text)| ImportedFile { name, text });
    Ok(Imported {
        files: files.collect(),
        report: Report::new("istio", facts, output.written),
        has_policies: objects.policies.iter().any(|p| p.tokens.is_none())
            || !objects.peers.is_empty(),
    })
}

/// Workloads that policies of Istio select and whose ports would be open here where no Server speaks for them.
fn open_by_default(scopes: &Scopes, index: &Index) -> Vec<Finding> {
    let workloads = index.workload_list().iter().enumerate();
    let open = workloads.filter(|(at, w)| !scopes.untouched.contains(at) && w.mode != Mode::Deny);
    let found = open.map(|(_, workload)| {
        let message = format!(
            "{} {}/{}: the default policy is `{}`, so ports that no file names would be open, though policies of Istio hold for them",
            workload.kind,
            workload.key.namespace,
            workload.object_name,
            workload.mode.as_str()
        );
        let mut made = finding(Code::Conflict, message, None, workload.info.source.clone());
        made.hint = Some("import with the default policy `deny`, and without annotations that say otherwise".to_owned());
        made
    });
    found.collect()
}

/// Policies whose action asks somebody whom this mesh cannot ask.
fn custom_actions(objects: &Objects, config: &ImportConfig) -> Vec<Finding> {
    if config.custom == CustomAction::Deny {
        return Vec::new();
    }
    let custom = objects
        .policies
        .iter()
        .filter(|p| p.action == Action::Custom && !p.dry_run);
    let found = custom.map(|policy| {
        let provider = policy.provider.as_deref().unwrap_or_default();
        let message = format!(
            "{} asks the provider `{provider}`, which this mesh cannot ask",
            policy.title()
        );
        finding(
            Code::CustomAction,
            message,
            None,
            policy.action_source.clone(),
        )
    });
    found.collect()
}
