//! Events about objects that are refused: one for each object, version of its spec and code.
//!
//! The name of an event says all of that, so one that another controller told, or this one before it began anew, is not told
//! again.

use super::CONTROLLER;
use super::writer::Seen;
use data_encoding::HEXLOWER;
use mesh_kubernetes::events::{About, Warning, warn};
use mesh_kubernetes::{Client, KubernetesError};
use mesh_policy_index::ObjectStatus;
use ring::digest::{SHA256, digest};
use std::collections::BTreeSet;

/// Events told in one go; the rest follow a second later. A thousand broken objects are no reason to flood an API server.
const TOLD_AT_ONCE: usize = 20;

/// Events that are remembered as told; beyond, all are forgotten, and the API server says which of them stand.
const REMEMBERED_MAX: usize = 100_000;

/// Characters of an object's name that its event's name begins with.
const NAME_CHARS_MAX: usize = 200;

/// What was told.
pub(super) struct Events {
    holder: String,
    told: BTreeSet<String>,
}

impl Events {
    pub(super) fn new(holder: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            told: BTreeSet::new(),
        }
    }

    /// Adds what is to be told of an object.
    pub(super) fn add(
        &self,
        object: &ObjectStatus,
        seen: &Seen,
        time: &impl Fn() -> String,
        out: &mut Vec<Warning>,
    ) {
        let mut codes = BTreeSet::new();
        for refusal in &object.refusals {
            let name = name(seen, &refusal.code);
            if !codes.insert(&refusal.code) || self.told.contains(&name) {
                continue;
            }
            out.push(Warning {
                name,
                reporter: (CONTROLLER, self.holder.clone()),
                reason: "PolicyRefused",
                action: "Refuse",
                note: format!("{}: {}", refusal.code, refusal.message),
                time: time(),
                about: About {
                    api_version: seen.api_version.clone(),
                    kind: seen.kind.clone(),
                    namespace: seen.metadata.namespace.clone(),
                    name: seen.metadata.name.clone(),
                    uid: seen.metadata.uid.clone(),
                    resource_version: seen.metadata.resource_version.clone(),
                },
            });
        }
    }

    /// Tells them, not all at once; whether all were told.
    pub(super) async fn tell(
        &mut self,
        client: &Client,
        warnings: Vec<Warning>,
    ) -> Result<bool, KubernetesError> {
        let all = warnings.len() <= TOLD_AT_ONCE;
        for warning in warnings.into_iter().take(TOLD_AT_ONCE) {
            warn(client, &warning).await?;
            if self.told.len() >= REMEMBERED_MAX {
                self.told.clear();
            }
            self.told.insert(warning.name);
        }
        Ok(all)
    }
}

fn name(seen: &Seen, code: &str) -> String {
    let metadata = &seen.metadata;
    let generation = metadata.generation.unwrap_or_default();
    let text = format!("{}/{generation}/{code}", metadata.uid);
    let hash = HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref());
    let begin: String = metadata.name.chars().take(NAME_CHARS_MAX).collect();
    let begin = begin.trim_end_matches(['.', '-']);
    format!("{begin}.{}", hash.get(..16).unwrap_or_default())
}
