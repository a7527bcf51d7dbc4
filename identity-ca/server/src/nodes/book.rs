//! Tokens and nodes: on disk before they count.

use crate::error::CaError;
use crate::limits::NODES_FILE_BYTES_MAX;
use crate::store::Store;
use mesh_issuance::attestation::join::{JoinError, JoinToken, bundle_hash};
use mesh_issuance::attestation::node::{Node, Nodes, Workloads};
use mesh_platform::Platform;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Name of the book in the CA's directory.
const FILE: &str = "nodes.json";

/// Why the book was not changed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum BookError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Join(#[from] JoinError),
    #[error("there is no node `{name}`, and no open token for one")]
    #[diagnostic(code("MESH-0992"), help("`mesh node list` lists those that joined"))]
    Unknown { name: String },
    #[error("the book of nodes was not changed: {why}")]
    #[diagnostic(
        code("MESH-0993"),
        help("make the CA's directory writable, with free space, and try again")
    )]
    NotStored { why: String },
}

/// The book in force, and whose agents are connected. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeBook {
    store: Arc<Mutex<Store>>,
    nodes: Arc<watch::Sender<Arc<Nodes>>>,
    connected: Arc<Mutex<BTreeMap<String, u32>>>,
    domain: TrustDomain,
    platform: Arc<dyn Platform>,
}

/// An agent's stream, for as long as it stands.
pub(crate) struct Connected {
    book: NodeBook,
    node: String,
    /// It has ended already.
    released: bool,
}

impl NodeBook {
    /// Reads the book in `dir`; none is an empty one.
    pub(crate) fn open(
        dir: &Path,
        domain: &TrustDomain,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, CaError> {
        let store = Store::new(dir);
        let nodes = match store.read_if_there(FILE, NODES_FILE_BYTES_MAX)? {
            None => Nodes::default(),
            Some(text) => serde_json::from_slice(&text)
                .map_err(|error| store.corrupt(FILE, &error.to_string()))?,
        };
        Ok(Self {
            store: Arc::new(Mutex::new(store)),
            nodes: Arc::new(watch::Sender::new(Arc::new(nodes))),
            connected: Arc::default(),
            domain: domain.clone(),
            platform,
        })
    }

    /// The book, as it changes.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.subscribe()
    }

    /// The book now.
    pub(crate) fn current(&self) -> Arc<Nodes> {
        self.nodes.borrow().clone()
    }

    /// The node whose agent has the identity `id`, if one has.
    pub(crate) fn by_identity(&self, id: &SpiffeId) -> Option<(String, Node)> {
        let nodes = self.current();
        let (name, node) = nodes.by_identity(&self.domain, id)?;
        Some((name.to_owned(), node.clone()))
    }

    /// Puts the book that `change` makes of the present one on disk, and then into force. Waits for the disk.
    fn change<T>(
        &self,
        change: impl FnOnce(&Nodes) -> Result<(T, Nodes), BookError>,
    ) -> Result<T, BookError> {
        // One change at a time, from the reading to the writing: a token is spent once.
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, next) = change(&self.current())?;
        let not_stored = |why: String| BookError::NotStored { why };
        let text = serde_json::to_vec(&next).map_err(|error| not_stored(error.to_string()))?;
        store
            .write(FILE, &text)
            .map_err(|error| not_stored(error.to_string()))?;
        self.nodes.send_replace(Arc::new(next));
        Ok(outcome)
    }

    /// Makes a token that lets `node` in to speak for `workloads`, and says when it ends. `anchors` are whom it will
    /// believe.
    pub(crate) fn make_token(
        &self,
        node: (&str, Vec<Workloads>),
        anchors: &[CertificateDer<'_>],
        lifetime_secs: u64,
    ) -> Result<(JoinToken, Timestamp), BookError> {
        let mut secret = Zeroizing::new([0; 32]);
        self.platform.fill_random(&mut *secret);
        let hash = bundle_hash(anchors.iter().map(|anchor| &**anchor));
        let now = self.platform.wall_clock();
        self.change(|nodes| {
            let (token, next) = nodes.make_token(node, (*secret, hash), lifetime_secs, now)?;
            let ends = next.token_ends(&token).unwrap_or(now);
            Ok(((token, ends), next))
        })
    }

    /// Spends the token with this secret, and says whose it was.
    pub(crate) fn join(&self, secret: &[u8; 32]) -> Result<String, BookError> {
        let now = self.platform.wall_clock();
        self.change(|nodes| Ok(nodes.join(secret, now)?))
    }

    /// Forgets a node, and its tokens.
    pub(crate) fn remove(&self, name: &str) -> Result<(), BookError> {
        self.change(|nodes| {
            let next = nodes.without(name);
            let unknown = || BookError::Unknown {
                name: name.chars().take(64).collect(),
            };
            Ok(((), next.ok_or_else(unknown)?))
        })
    }

    fn lock_connected(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the agent of `node` follows.
    pub(crate) fn connected(&self, node: &str) -> Connected {
        *self.lock_connected().entry(node.to_owned()).or_default() += 1;
        Connected {
            book: self.clone(),
            node: node.to_owned(),
            released: false,
        }
    }

    /// Whether the agent of `node` follows.
    pub(crate) fn is_connected(&self, node: &str) -> bool {
        self.lock_connected().contains_key(node)
    }

    /// Whose nodes these are.
    pub(crate) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Tokens that still count.
    pub(crate) fn open_tokens(&self) -> usize {
        self.current().open_tokens(self.platform.wall_clock())
    }
}

impl Connected {
    /// Ends it, and does `last` if the node has no other stream: before one that begins meanwhile can say anything, and
    /// once, if two end together.
    pub(crate) fn leave(&mut self, last: impl FnOnce()) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let mut connected = self.book.lock_connected();
        let Some(streams) = connected.get_mut(&self.node) else {
            return;
        };
        *streams -= 1;
        if *streams == 0 {
            connected.remove(&self.node);
            last();
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.leave(|| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World, domain};
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn of_streams_that_end_at_once_exactly_one_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let book = NodeBook::open(dir.path(), &domain(), World::at(NOW)).unwrap();
        for _ in 0..200 {
            let last = AtomicU32::new(0);
            let begin = std::sync::Barrier::new(2);
            let streams = [book.connected("worker-1"), book.connected("worker-1")];
            std::thread::scope(|scope| {
                for mut stream in streams {
                    let (last, begin) = (&last, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        stream.leave(|| {
                            last.fetch_add(1, Ordering::Relaxed);
                        });
                        // Nothing is left to do when it is dropped.
                        stream.leave(|| unreachable!());
                    });
                }
            });
            assert_eq!(last.into_inner(), 1);
            assert!(!book.is_connected("worker-1"));
        }
        let (one, two) = (book.connected("a"), book.connected("a"));
        drop(one);
        assert!(book.is_connected("a"));
        drop(two);
        assert!(!book.is_connected("a"));
    }
}
