//! When to read the sources again: the kernel's word, and every two seconds a look of our own.

use crate::limits::{POLL, SETTLE, SETTLE_MAX};
use crate::sources::{self, Stamps};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Tells changes below some paths.
pub(crate) struct ChangeWatch {
    roots: Vec<PathBuf>,
    told: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Roots under watch.
    watched: BTreeMap<PathBuf, Watched>,
    /// What is looked for below what is watched.
    wanted: Wanted,
    stamps: Option<Stamps>,
    poll: tokio::time::Interval,
}

/// What the kernel was asked to watch. What was replaced has another inode, and must be watched anew.
#[derive(PartialEq, Eq)]
struct Watched {
    place: PathBuf,
    inode: (u64, u64),
    /// Whether everything below is watched too.
    whole: bool,
}

impl Watched {
    /// A file is watched in its directory: who writes it anew and renames, as most editors do, puts another in its place.
    fn of(real: &Path) -> Option<Self> {
        let (place, whole) = match real.parent() {
            Some(parent) if real.is_file() => (parent, false),
            _ => (real, true),
        };
        let metadata = std::fs::metadata(place).ok()?;
        Some(Self {
            place: place.to_owned(),
            inode: (metadata.dev(), metadata.ino()),
            whole,
        })
    }

    fn covers(&self, other: &Self) -> bool {
        self == other || (self.whole && other.place.starts_with(&self.place))
    }
}

/// Real paths of the roots. Beside a root that is a file there may be others, which are nobody's business.
#[derive(Clone, Default)]
struct Wanted(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event may be about a root. One without a path, like a full queue, may be about all.
    fn is_in(&self, event: &notify::Event) -> bool {
        let wanted = self.lock();
        let about = |path: &PathBuf| wanted.iter().any(|root| path.starts_with(root));
        event.paths.is_empty() || event.paths.iter().any(about)
    }
}

impl ChangeWatch {
    /// Begins to watch. Take it before the first reading, so that no change falls in between.
    pub(crate) fn new(roots: &[PathBuf]) -> Self {
        let told = Arc::new(Notify::new());
        let wanted = Wanted::default();
        let (teller, looked_for) = (Arc::clone(&told), wanted.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| {
                tells_change(&event.kind) && looked_for.is_in(&event)
            }) {
                teller.notify_one();
            }
        })
        .map_err(|error| {
            tracing::warn!(%error, "the kernel tells no changes of files; they are found by looking every 2 s");
        })
        .ok();
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Self {
            roots: roots.to_vec(),
            told,
            watcher,
            watched: BTreeMap::new(),
            wanted,
            stamps: None,
            poll,
        };
        watch.watch_roots();
        watch.stamps = sources::stamps(&watch.roots).ok();
        watch
    }

    /// Ready when the sources may have changed and have come to rest.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::select! {
                () = self.told.notified() => {
                    settle(&self.told).await;
                    return;
                }
                _ = self.poll.tick() => {
                    self.watch_roots();
                    let now = sources::stamps(&self.roots).ok();
                    if now != self.stamps {
                        self.stamps = now;
                        return;
                    }
                }
            }
        }
    }

    /// Watches each root that is there and is not watched as what it is now.
    fn watch_roots(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for root in &self.roots {
            // The directory itself, not the link to it.
            let real = std::fs::canonicalize(root).ok();
            let now = real.as_deref().and_then(Watched::of);
            let (Some(real), Some(now)) = (real, now) else {
                self.watched.remove(root);
                continue;
            };
            self.wanted.lock().insert(real);
            if self.watched.get(root) == Some(&now) {
                continue;
            }
            // For another file in it, or as a part of another root.
            let mut others = self.watched.iter().filter(|(other, _)| *other != root);
            if !others.any(|(_, other)| other.covers(&now)) {
                // A watch of what stood here before may be gone already.
                let _ = watcher.unwatch(&now.place);
                let mode = match now.whole {
                    true => RecursiveMode::Recursive,
                    false => RecursiveMode::NonRecursive,
                };
                if let Err(error) = watcher.watch(&now.place, mode) {
                    tracing::warn!(root = %root.display(), %error, "changes below are found by looking every 2 s");
                    continue;
                }
            }
            self.watched.insert(root.clone(), now);
        }
    }
}

/// Waits for a moment without changes, but not for long.
pub(crate) async fn settle(told: &Notify) {
    let deadline = Instant::now() + SETTLE_MAX;
    while Instant::now() < deadline {
        if timeout(SETTLE, told.notified()).await.is_err() {
            break;
        }
    }
}

/// Our own reading is no change.
fn tells_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests write the files that are watched"
)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;
    use tokio::task::yield_now;

    async fn is_told(watch: &ChangeWatch) -> bool {
        let told = timeout(Duration::from_secs(10), watch.told.notified());
        told.await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_told_of_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, draft) = (folder.path().join("a.yaml"), folder.path().join("draft"));
        fs::write(&file, "a").unwrap();
        let watch = ChangeWatch::new(std::slice::from_ref(&file));
        for round in 0..3 {
            fs::write(&draft, "b").unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let told = tokio::select! {
                biased;
                () = watch.told.notified() => true,
                () = yield_now() => false,
            };
            assert!(!told, "of a neighbour, round {round}");
            fs::rename(&draft, &file).unwrap();
            assert!(is_told(&watch).await, "round {round}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = timeout(Duration::from_millis(1), watch.told.notified()).await; // the rest of it
        }
    }

    #[tokio::test]
    async fn a_file_inside_of_a_watched_directory_leaves_that_watched() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("sub");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("a.yaml"), "a").unwrap();
        let watch = ChangeWatch::new(&[folder.path().to_owned(), inner.join("a.yaml")]);
        fs::create_dir(inner.join("deeper")).unwrap();
        assert!(is_told(&watch).await);
        fs::write(inner.join("deeper/b.yaml"), "b").unwrap();
        assert!(is_told(&watch).await);
    }
}
