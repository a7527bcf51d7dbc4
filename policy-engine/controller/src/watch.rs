//! When to read the sources again: the kernel's word, and every two seconds a look of our own.

use crate::limits::{POLL, SETTLE, SETTLE_MAX};
use crate::sources::{self, Stamps};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Tells changes below some paths.
pub(crate) struct ChangeWatch {
    roots: Vec<PathBuf>,
    told: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Roots under watch, with the inode they had: a root that was replaced must be watched anew.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    stamps: Option<Stamps>,
    poll: tokio::time::Interval,
}

impl ChangeWatch {
    /// Begins to watch. Take it before the first reading, so that no change falls in between.
    pub(crate) fn new(roots: &[PathBuf]) -> Self {
        let told = Arc::new(Notify::new());
        let teller = Arc::clone(&told);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| tells_change(&event.kind)) {
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
            let Ok(metadata) = std::fs::metadata(root) else {
                self.watched.remove(root);
                continue;
            };
            let inode = (metadata.dev(), metadata.ino());
            if self.watched.get(root) == Some(&inode) {
                continue;
            }
            // The directory itself, not the link to it. A watch of what stood here before may be gone already.
            let real = std::fs::canonicalize(root).unwrap_or_else(|_| root.clone());
            let _ = watcher.unwatch(&real);
            match watcher.watch(&real, RecursiveMode::Recursive) {
                Ok(()) => {
                    self.watched.insert(root.clone(), inode);
                }
                Err(error) => {
                    tracing::warn!(root = %root.display(), %error, "changes below are found by looking every 2 s");
                }
            }
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
