//! Tells the authors of routes what became of them: `status.parents` of HTTPRoutes and GRPCRoutes, as Gateway API has it.
//!
//! Every controller decides alike; one of them, who holds a Lease, writes. Nothing is written that stands there already, and
//! nothing about a spec that is not in force yet. Policy never waits for this, and nothing depends on it.

mod entries;

use crate::limits::{STATUS_RETRY, STATUS_SETTLE};
use crate::publish::Published;
use crate::state::Shared;
use data_encoding::HEXLOWER;
use entries::{Entries, desired};
use mesh_kubernetes::Client;
use mesh_kubernetes::kinds::{Kind, ROUTES};
use mesh_kubernetes::lease::{self, Lease};
use mesh_kubernetes::status::{self, Written};
use mesh_kubernetes::watch::{Change, watch as watch_kinds};
use mesh_kubernetes::{KubernetesError, object};
use mesh_policy_index::RouteStatus;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// What we are called in a status.
const CONTROLLER: &str = "mesh.internal/controller";

/// The Lease of the one who writes, in the control plane's namespace.
const LEASE: &str = "mesh-controller-status";

/// Changes that may wait to be taken; the watches wait then.
const CHANGES_QUEUED_MAX: usize = 1_024;

/// A route as the API server has it, as far as its status goes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Seen {
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    generation: Option<i64>,
    resource_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Status {
    #[serde(default)]
    parents: Entries,
}

/// Writes whenever we hold the Lease; never ends.
pub(crate) async fn keep_told(shared: Arc<Shared>, client: Client) {
    let (tell, mut holds) = watch::channel(false);
    let lease = Lease {
        namespace: shared.config.index.control_plane_namespace.clone(),
        name: LEASE.to_owned(),
        holder: holder(&shared),
    };
    let mut tasks = JoinSet::new();
    let platform = Arc::clone(&shared.platform);
    let clock = move || platform.wall_clock().to_string();
    tasks.spawn(lease::hold(client.clone(), lease, clock, tell));
    loop {
        if holds.wait_for(|holds| *holds).await.is_err() {
            return;
        }
        tracing::info!("this controller writes the status of routes");
        let mut lost = holds.clone();
        tokio::select! {
            () = write_while_asked(&shared, &client) => {}
            _ = lost.wait_for(|holds| !*holds) => {
                tracing::info!("another controller may write the status of routes");
            }
        }
    }
}

/// Who we are among the controllers: the name of the pod for people, and a number for two of one name.
fn holder(shared: &Shared) -> String {
    let name = mesh_platform::files::read_limited(Path::new("/proc/sys/kernel/hostname"), 256);
    let name = name.unwrap_or_default();
    let mut number = [0; 4];
    shared.platform.fill_random(&mut number);
    format!(
        "{}_{}",
        String::from_utf8_lossy(&name).trim(),
        HEXLOWER.encode(&number)
    )
}

/// Follows routes and policy, and writes what differs; ends only when the watches do.
async fn write_while_asked(shared: &Shared, client: &Client) {
    let (tell, mut changes) = mpsc::channel(CHANGES_QUEUED_MAX);
    let watching = watch_kinds(client.clone(), ROUTES, object::status, tell);
    let writing = async {
        let mut writer = Writer::default();
        let mut published = shared.published.subscribe();
        let mut again = false;
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => writer.take(change),
                    None => return,
                },
                changed = published.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(STATUS_RETRY), if again => {}
            }
            // Many changes come together, and each pass looks at every route.
            tokio::time::sleep(STATUS_SETTLE).await;
            while let Ok(change) = changes.try_recv() {
                writer.take(change);
            }
            let policy = published.borrow_and_update().clone();
            if let Some(policy) = policy {
                again = writer.write(shared, client, &policy).await;
            }
        }
    };
    tokio::join!(watching, writing);
}

/// What is known of the routes, and of what was written.
#[derive(Default)]
struct Writer {
    /// By name, as [`object::name`] gives it.
    seen: BTreeMap<String, Seen>,
    /// Versions that were written over: the watch has yet to tell what came of it.
    written: BTreeMap<String, String>,
    /// Trouble that was told once.
    told: BTreeSet<String>,
}

impl Writer {
    fn take(&mut self, change: Change) {
        match change {
            Change::Listed { kind, objects, .. } => {
                self.clear(kind);
                for (name, json) in objects {
                    self.put(name, &json);
                }
            }
            Change::Applied { name, json, .. } => self.put(name, &json),
            Change::Removed { name, .. } => {
                self.seen.remove(&name);
                self.written.remove(&name);
            }
            Change::Absent { kind } => self.clear(kind),
            // What is known of it stays.
            Change::Trouble { .. } => {}
        }
    }

    fn put(&mut self, name: String, json: &[u8]) {
        match serde_json::from_slice::<Seen>(json) {
            Ok(seen) => drop(self.seen.insert(name, seen)),
            // A status that another controller wrote in a way of its own: ours would destroy it.
            Err(error) => {
                self.seen.remove(&name);
                self.tell(format!(
                    "the status of {name} cannot be read, and is left alone: {error}"
                ));
            }
        }
    }

    fn clear(&mut self, kind: &Kind) {
        let prefix = kind.prefix();
        self.seen.retain(|name, _| !name.starts_with(&prefix));
        self.written.retain(|name, _| !name.starts_with(&prefix));
    }

    fn tell(&mut self, trouble: String) {
        if self.told.insert(trouble.clone()) {
            tracing::warn!("{trouble}");
        }
    }

    /// Writes what differs; whether to try again without a change.
    async fn write(&mut self, shared: &Shared, client: &Client, policy: &Published) -> bool {
        let mut again = false;
        for due in self.due(&policy.route_statuses, || {
            shared.platform.wall_clock().to_string()
        }) {
            match due.write(client).await {
                Ok(Written::Yes) => drop(self.written.insert(due.name, due.version)),
                Ok(Written::Overtaken) => {}
                Err(error) => {
                    again = true;
                    self.tell(error.to_string());
                }
            }
        }
        if !again {
            self.told.clear();
        }
        again
    }

    /// The writes that are due.
    fn due(&self, statuses: &[RouteStatus], time: impl Fn() -> String) -> Vec<Due> {
        let mut out = Vec::new();
        for status in statuses {
            let name = object::name(
                status.group,
                status.kind,
                Some(&status.namespace),
                &status.name,
            );
            let Some(seen) = self.seen.get(&name) else {
                continue;
            };
            let version = &seen.metadata.resource_version;
            // Of another spec than the one in force, or told already: a change is on its way.
            if seen.metadata.generation != status.generation
                || self.written.get(&name) == Some(version)
            {
                continue;
            }
            if let Some(parents) = desired(&seen.status.parents, status, &time()) {
                out.push(Due {
                    version: version.clone(),
                    api_version: seen.api_version.clone(),
                    kind: (status.group, status.kind),
                    object: (seen.metadata.namespace.clone(), seen.metadata.name.clone()),
                    name,
                    parents,
                });
            }
        }
        out
    }
}

/// One write.
#[derive(Debug, PartialEq)]
struct Due {
    name: String,
    /// The version that it is for.
    version: String,
    api_version: String,
    kind: (&'static str, &'static str),
    object: (String, String),
    parents: Entries,
}

impl Due {
    async fn write(&self, client: &Client) -> Result<Written, KubernetesError> {
        let kind = ROUTES.iter().find(|one| (one.group, one.kind) == self.kind);
        let version = self.api_version.split_once('/').map(|(_, version)| version);
        let (Some(kind), Some(version)) = (kind, version) else {
            return Ok(Written::Overtaken);
        };
        let parents = serde_json::Value::from(self.parents.clone());
        status::write(
            client,
            (kind, version),
            (&self.object.0, &self.object.1),
            &self.version,
            ("parents", &parents),
        )
        .await
    }
}

#[cfg(test)]
mod tests;
