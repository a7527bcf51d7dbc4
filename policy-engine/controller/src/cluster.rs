//! Objects of an API server as sources of policy, each as if it were a file of its own.
//!
//! Nothing is read before every kind was listed once: policy from half of the objects could allow what the other half
//! forbids. What was listed stays when the API server is gone, and is replaced when it lists again. Nodes say no more than
//! which zone pods are in: nothing waits for them.

use crate::limits::{FILES_MAX, SOURCE_BYTES_MAX};
use crate::sources::{SourceError, SourceFile, Sources};
use mesh_kubernetes::Client;
use mesh_kubernetes::kinds::{Kind, NODES, POLICY_SOURCES};
use mesh_kubernetes::object::essence;
use mesh_kubernetes::watch::{Change, watch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Changes that may wait to be taken; the watches wait then.
const CHANGES_QUEUED_MAX: usize = 1_024;

/// What is known of the cluster. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    held: Arc<Mutex<Held>>,
    told: Arc<Notify>,
}

#[derive(Default)]
struct Held {
    sources: Sources,
    bytes: u64,
    /// Resources that were listed, or of which the API server says that it has none.
    known: BTreeSet<String>,
    /// Why others are not.
    troubles: BTreeMap<String, String>,
}

impl Cluster {
    /// Takes in what the API server says; never ends.
    pub(crate) async fn follow(self, client: Client) {
        let (tell, mut changes) = mpsc::channel(CHANGES_QUEUED_MAX);
        let nodes = watch(client.clone(), NODES, essence, tell.clone());
        let watching = watch(client, POLICY_SOURCES, essence, tell);
        let taking = async {
            while let Some(change) = changes.recv().await {
                self.held().take(change);
                self.told.notify_one();
            }
        };
        tokio::join!(watching, nodes, taking);
    }

    /// Told after every change.
    pub(crate) fn told(&self) -> Arc<Notify> {
        Arc::clone(&self.told)
    }

    /// Whether every kind is known; the error says why not, once that is known.
    pub(crate) fn complete(&self) -> Result<(), Option<String>> {
        self.held().complete()
    }

    /// All objects as they are known.
    pub(crate) fn read(&self) -> Result<Sources, SourceError> {
        let held = self.held();
        held.complete().map_err(|why| SourceError::NotListed {
            why: why.unwrap_or_else(|| "it was asked just now".to_owned()),
        })?;
        if held.sources.files.len() > FILES_MAX {
            return Err(SourceError::ClusterTooLarge {
                limit: FILES_MAX as u64,
                what: "objects",
            });
        }
        if held.bytes > SOURCE_BYTES_MAX {
            return Err(SourceError::ClusterTooLarge {
                limit: SOURCE_BYTES_MAX,
                what: "bytes of objects",
            });
        }
        Ok(held.sources.clone())
    }

    /// Names of all namespaces, sorted.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        let prefix = "Namespace/";
        self.held()
            .sources
            .files
            .range(prefix.to_owned()..)
            .map_while(|(name, _)| name.strip_prefix(prefix))
            .map(str::to_owned)
            .collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn complete(&self) -> Result<(), Option<String>> {
        let missing = |kind: &&Kind| !self.known.contains(&kind.resource());
        if !POLICY_SOURCES.iter().any(|kind| missing(&kind)) {
            return Ok(());
        }
        let why = self
            .troubles
            .iter()
            .map(|(resource, why)| format!("{resource}: {why}"))
            .collect::<Vec<_>>()
            .join("; ");
        Err(Some(why).filter(|why| !why.is_empty()))
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Listed {
                kind,
                objects,
                revision,
            } => {
                self.clear(kind);
                self.knows(kind);
                self.reached(revision);
                for (name, json) in objects {
                    self.put(name, json);
                }
            }
            Change::Applied {
                name,
                json,
                revision,
            } => {
                self.reached(revision);
                self.put(name, json);
            }
            Change::Removed { name, revision } => {
                self.reached(revision);
                self.remove(&name);
            }
            Change::Absent { kind } => {
                self.clear(kind);
                self.knows(kind);
            }
            Change::Trouble { kind, why } => {
                tracing::warn!(
                    resource = kind.resource(),
                    why,
                    "cannot be watched; what is known of it stays"
                );
                if !self.known.contains(&kind.resource()) {
                    self.troubles.insert(kind.resource(), why);
                }
            }
        }
    }

    fn knows(&mut self, kind: &Kind) {
        self.troubles.remove(&kind.resource());
        self.known.insert(kind.resource());
    }

    fn reached(&mut self, revision: u64) {
        self.sources.revision = self.sources.revision.max(revision);
    }

    fn put(&mut self, name: String, json: Vec<u8>) {
        self.remove(&name);
        self.bytes += json.len() as u64;
        self.sources.files.insert(name, SourceFile::new(json));
    }

    fn remove(&mut self, name: &str) {
        if let Some(old) = self.sources.files.remove(name) {
            self.bytes -= old.bytes.len() as u64;
        }
    }

    /// Forgets all objects of a kind.
    fn clear(&mut self, kind: &Kind) {
        let prefix = kind.prefix();
        let names: Vec<String> = self
            .sources
            .files
            .range(prefix.clone()..)
            .take_while(|(name, _)| name.starts_with(&prefix))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(resource: &str) -> &'static Kind {
        POLICY_SOURCES
            .iter()
            .find(|kind| kind.resource() == resource)
            .unwrap()
    }

    fn listed(resource: &str, names: &[&str], revision: u64) -> Change {
        let objects = names
            .iter()
            .map(|name| ((*name).to_owned(), b"{}".to_vec()))
            .collect();
        Change::Listed {
            kind: kind(resource),
            objects,
            revision,
        }
    }

    fn all_but(resource: &str) -> Held {
        let mut held = Held::default();
        for kind in POLICY_SOURCES
            .iter()
            .filter(|kind| kind.resource() != resource)
        {
            held.take(Change::Absent { kind });
        }
        held
    }

    #[test]
    fn nothing_is_read_before_every_kind_is_known() {
        let mut held = all_but("servers.policy.linkerd.io");
        assert_eq!(held.complete(), Err(None));
        held.take(Change::Trouble {
            kind: kind("servers.policy.linkerd.io"),
            why: "forbidden".to_owned(),
        });
        assert_eq!(
            held.complete(),
            Err(Some("servers.policy.linkerd.io: forbidden".to_owned()))
        );
        held.take(listed("servers.policy.linkerd.io", &[], 3));
        assert_eq!(held.complete(), Ok(()));
        let cluster = Cluster {
            held: Arc::new(Mutex::new(held)),
            told: Arc::default(),
        };
        assert_eq!(cluster.read().unwrap().revision, 3);
        assert!(Cluster::default().read().is_err());
    }

    #[test]
    fn nodes_are_taken_in_and_nothing_waits_for_them() {
        let mut held = all_but("");
        held.take(Change::Trouble {
            kind: &NODES[0],
            why: "forbidden".to_owned(),
        });
        assert_eq!(held.complete(), Ok(()));
        held.take(Change::Listed {
            kind: &NODES[0],
            objects: [("Node/n1".to_owned(), b"{}".to_vec())].into(),
            revision: 7,
        });
        assert!(held.sources.files.contains_key("Node/n1"));
        assert_eq!(held.complete(), Ok(()));
    }

    #[test]
    fn a_list_replaces_what_was_known_of_its_kind_and_of_no_other() {
        let mut held = all_but("");
        held.take(listed(
            "httproutes.policy.linkerd.io",
            &[
                "HTTPRoute.policy.linkerd.io/a/x",
                "HTTPRoute.policy.linkerd.io/a/y",
            ],
            5,
        ));
        held.take(listed(
            "httproutes.gateway.networking.k8s.io",
            &["HTTPRoute.gateway.networking.k8s.io/a/x"],
            6,
        ));
        held.take(listed(
            "httproutes.policy.linkerd.io",
            &["HTTPRoute.policy.linkerd.io/a/z"],
            9,
        ));
        let names: Vec<_> = held.sources.files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "HTTPRoute.gateway.networking.k8s.io/a/x",
                "HTTPRoute.policy.linkerd.io/a/z"
            ]
        );
        assert_eq!((held.bytes, held.sources.revision), (4, 9));
    }

    #[test]
    fn trouble_with_a_known_kind_forgets_nothing_and_revisions_never_go_back() {
        let mut held = all_but("");
        held.take(Change::Applied {
            name: "Pod/a/p".to_owned(),
            json: b"{\"a\":1}".to_vec(),
            revision: 12,
        });
        held.take(Change::Trouble {
            kind: kind("pods"),
            why: "connection refused".to_owned(),
        });
        assert!(held.sources.files.contains_key("Pod/a/p"));
        assert_eq!(held.complete(), Ok(()));
        held.take(Change::Removed {
            name: "Pod/a/p".to_owned(),
            revision: 4,
        });
        assert!(held.sources.files.is_empty());
        assert_eq!((held.bytes, held.sources.revision), (0, 12));
    }
}
