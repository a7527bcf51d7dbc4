//! What is known of the objects, what was written, and what is due.

use super::conditions::desired as desired_conditions;
use super::enforced::{Enforced, Extent};
use super::entries::{Entries, desired as desired_entries};
use super::events::Events;
use crate::limits::{STATUS_PATIENCE, STATUS_RETRY};
use crate::publish::Published;
use crate::reports::Held;
use mesh_kubernetes::kinds::{Kind, ROUTES, WITH_STATUS};
use mesh_kubernetes::object;
use mesh_kubernetes::status::{self, Written};
use mesh_kubernetes::watch::Change;
use mesh_kubernetes::{Client, KubernetesError};
use mesh_policy_index::{ObjectStatus, RouteStatus};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// What Linkerd's controller is called among those who write a status. It has statuses of its own for some kinds.
const LINKERD: &str = "policy.linkerd.io";

/// How often one status is written without having changed: somebody else writes it too, and has other ideas.
const REWRITES_MAX: u32 = 5;

/// Trouble that is remembered as told.
const TOLD_MAX: usize = 1_000;

/// An object as the API server has it, as far as its status goes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Seen {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
    pub(super) resource_version: String,
    /// [`object::STATUS_WRITERS`]
    #[serde(default)]
    pub(super) status_writers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) parents: Entries,
    #[serde(default)]
    pub(super) conditions: Vec<Value>,
}

/// What is known of the objects, and of what was written.
pub(super) struct Writer {
    /// By name, as [`object::name`] gives it.
    seen: BTreeMap<String, Seen>,
    /// Versions that were written over: the watch has yet to tell what came of it.
    written: BTreeMap<String, String>,
    /// What was written last, apart from times, and how often.
    rewrites: BTreeMap<String, (String, u32)>,
    /// Since when an object is in a state that may pass.
    passing: BTreeMap<String, Instant>,
    /// Resources whose definitions have no status to write.
    without: BTreeSet<String>,
    events: Events,
    /// Trouble that was told once.
    told: BTreeSet<String>,
}

impl Writer {
    pub(super) fn new(holder: &str) -> Self {
        Self {
            seen: BTreeMap::new(),
            written: BTreeMap::new(),
            rewrites: BTreeMap::new(),
            passing: BTreeMap::new(),
            without: BTreeSet::new(),
            events: Events::new(holder),
            told: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self, change: Change) {
        match change {
            Change::Listed { kind, objects, .. } => {
                self.clear(kind);
                for (name, json) in objects {
                    self.put(name, &json);
                }
            }
            Change::Applied { name, json, .. } => self.put(name, &json),
            Change::Removed { name, .. } => self.remove(&name),
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

    fn remove(&mut self, name: &str) {
        self.seen.remove(name);
        self.written.remove(name);
        self.rewrites.remove(name);
        self.passing.remove(name);
    }

    /// Forgets all objects of a kind, and what is known of its definition.
    fn clear(&mut self, kind: &Kind) {
        let prefix = kind.prefix();
        let names: Vec<String> = self
            .seen
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .cloned()
            .collect();
        names.iter().for_each(|name| self.remove(name));
        self.without.remove(&kind.resource());
    }

    #[cfg(test)]
    pub(super) fn knows(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    fn tell(&mut self, trouble: String) {
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        if self.told.insert(trouble.clone()) {
            tracing::warn!("{trouble}");
        }
    }

    /// Writes what differs; when to look again without a change.
    pub(super) async fn write(
        &mut self,
        client: &Client,
        policy: &Published,
        (held, alone): (&Held, bool),
        time: impl Fn() -> String,
    ) -> Option<Duration> {
        let pass = self.pass(policy, (held, alone), Instant::now(), &time);
        let mut again = pass.again;
        let mut soon = |pause: Duration| again = Some(again.map_or(pause, |old| old.min(pause)));
        for due in pass.due {
            match due.write(client).await {
                Ok(Written::Yes) => self.wrote(due),
                Ok(Written::Overtaken) => {}
                Ok(Written::NotFound) => {
                    if let Err(error) = self.not_found(client, &due).await {
                        soon(STATUS_RETRY);
                        self.tell(error.to_string());
                    }
                }
                Err(error) => {
                    soon(STATUS_RETRY);
                    self.tell(error.to_string());
                }
            }
        }
        match self.events.tell(client, pass.events).await {
            Ok(true) => {}
            Ok(false) => soon(Duration::from_secs(1)),
            Err(error) => {
                soon(STATUS_RETRY);
                self.tell(error.to_string());
            }
        }
        again
    }

    pub(super) fn wrote(&mut self, due: Due) {
        let stamp = stamp(&due.value);
        let count = match self.rewrites.get(&due.name) {
            Some((before, count)) if *before == stamp => count.saturating_add(1),
            _ => 1,
        };
        self.rewrites.insert(due.name.clone(), (stamp, count));
        self.written.insert(due.name, due.version);
    }

    /// The object is gone, or its definition has no status, as older ones of Linkerd's do not.
    async fn not_found(&mut self, client: &Client, due: &Due) -> Result<(), KubernetesError> {
        let (Some(kind), Some(version)) = (due.kind(), due.api_version()) else {
            return Ok(());
        };
        if !status::is_served(client, kind, version).await? {
            let resource = kind.resource();
            self.tell(format!(
                "the definition of {resource} has no status, so none is written; `mesh install --crds` has one that does"
            ));
            self.without.insert(resource);
        }
        Ok(())
    }

    /// What is due now.
    pub(super) fn pass(
        &mut self,
        policy: &Published,
        (held, alone): (&Held, bool),
        now: Instant,
        time: &impl Fn() -> String,
    ) -> Pass {
        let extent = Extent::of(policy, held, alone);
        let routes: BTreeMap<String, &RouteStatus> = policy
            .route_statuses
            .iter()
            .map(|one| (route_name(one), one))
            .collect();
        let mut pass = Pass::default();
        for object in &policy.object_statuses {
            let Some(seen) = self.seen.get(&object.file) else {
                continue;
            };
            // Of another spec than the one in force: a change is on its way.
            if seen.metadata.generation != object.generation {
                continue;
            }
            self.events.add(object, seen, time, &mut pass.events);
            let enforced = extent.enforced(object);
            let route = routes.get(&object.file).copied();
            // Whether a route of Services is in force is not told.
            let told =
                route.is_none_or(|route| route.parents.iter().any(|one| one.kind != "Service"));
            if let Some(rest) = self.waits(&object.file, &enforced, now).filter(|_| told) {
                pass.wait(rest);
                continue;
            }
            if let Some(due) = self.due(object, route, &enforced, time) {
                pass.due.push(due);
            }
        }
        pass
    }

    /// How long a state that may pass is given to do so.
    fn waits(&mut self, name: &str, enforced: &Enforced, now: Instant) -> Option<Duration> {
        if !enforced.passing {
            self.passing.remove(name);
            return None;
        }
        let since = *self.passing.entry(name.to_owned()).or_insert(now);
        let rest = STATUS_PATIENCE.saturating_sub(now.duration_since(since));
        Some(rest).filter(|rest| !rest.is_zero())
    }

    fn due(
        &mut self,
        object: &ObjectStatus,
        route: Option<&RouteStatus>,
        enforced: &Enforced,
        time: &impl Fn() -> String,
    ) -> Option<Due> {
        let name = &object.file;
        let seen = self.seen.get(name)?;
        let version = &seen.metadata.resource_version;
        // Told already: a change is on its way.
        if self.written.get(name) == Some(version) {
            return None;
        }
        let (field, value) = match route {
            Some(route) => {
                let now = &seen.status.parents;
                (
                    "parents",
                    desired_entries(now, route, &enforced.condition, &time())?,
                )
            }
            None => {
                let wanted = [
                    ("Accepted", &doubtful(object)),
                    ("ResolvedRefs", &object.resolved),
                    ("Enforced", &enforced.condition),
                ];
                let now = &seen.status.conditions;
                let conditions = desired_conditions(now, &wanted, object.generation, &time())?;
                ("conditions", conditions)
            }
        };
        let due = Due {
            version: version.clone(),
            api_version: seen.api_version.clone(),
            object: (seen.metadata.namespace.clone(), seen.metadata.name.clone()),
            name: name.clone(),
            field,
            value: Value::from(value),
        };
        self.is_ours(&due).then_some(due)
    }

    /// Whether nobody else looks after this status.
    fn is_ours(&mut self, due: &Due) -> bool {
        let Some(kind) = due.kind() else {
            return false;
        };
        let resource = kind.resource();
        if self.without.contains(&resource) {
            return false;
        }
        let writers = self
            .seen
            .get(&due.name)
            .map(|seen| &seen.metadata.status_writers);
        // Entries of routes have their controller's name, and stand side by side.
        if !ROUTES.contains(kind) && writers.is_some_and(|all| all.iter().any(|one| one == LINKERD))
        {
            self.tell(format!(
                "Linkerd's controller writes statuses of {resource}, which are left to it"
            ));
            return false;
        }
        let again = self.rewrites.get(&due.name);
        if again
            .is_some_and(|(before, count)| *count >= REWRITES_MAX && *before == stamp(&due.value))
        {
            self.tell(format!(
                "somebody else writes the status of {} again and again; it is left alone until it would change",
                due.name
            ));
            return false;
        }
        true
    }
}

/// Whether an object is accepted, with what is doubtful about it.
fn doubtful(object: &ObjectStatus) -> mesh_policy_index::Condition {
    let mut accepted = object.accepted.clone();
    if accepted.holds {
        accepted.message.clone_from(&object.doubts);
    }
    accepted
}

fn route_name(status: &RouteStatus) -> String {
    object::name(
        status.group,
        status.kind,
        Some(&status.namespace),
        &status.name,
    )
}

/// A value as text, without the times of transitions.
fn stamp(value: &Value) -> String {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.shift_remove("lastTransitionTime");
                map.values_mut().for_each(strip);
            }
            Value::Array(all) => all.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = value.clone();
    strip(&mut value);
    value.to_string()
}

/// What one look at all objects came to.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) due: Vec<Due>,
    pub(super) events: Vec<mesh_kubernetes::events::Warning>,
    /// When to look again.
    pub(super) again: Option<Duration>,
}

impl Pass {
    fn wait(&mut self, rest: Duration) {
        self.again = Some(self.again.map_or(rest, |old| old.min(rest)));
    }
}

/// One write.
#[derive(Debug, PartialEq)]
pub(super) struct Due {
    pub(super) name: String,
    /// The version that it is for.
    pub(super) version: String,
    pub(super) api_version: String,
    pub(super) object: (String, String),
    pub(super) field: &'static str,
    pub(super) value: Value,
}

impl Due {
    fn kind(&self) -> Option<&'static Kind> {
        WITH_STATUS
            .iter()
            .find(|kind| self.name.starts_with(&kind.prefix()))
    }

    fn api_version(&self) -> Option<&str> {
        self.api_version.split_once('/').map(|(_, version)| version)
    }

    async fn write(&self, client: &Client) -> Result<Written, KubernetesError> {
        let (Some(kind), Some(version)) = (self.kind(), self.api_version()) else {
            return Ok(Written::Overtaken);
        };
        status::write(
            client,
            (kind, version),
            (&self.object.0, &self.object.1),
            &self.version,
            (self.field, &self.value),
        )
        .await
    }
}
