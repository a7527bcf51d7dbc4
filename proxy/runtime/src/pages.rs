//! Gives back what was touched at a start or a change of policy, and is not needed while traffic flows.

use crate::state::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Time after a change in which what it needs is still at work: compilation, and Cedar's check of what was compiled.
const SETTLED: Duration = Duration::from_secs(1);

/// Shortest pause between two times: what was given back and is in use is mapped again, some hundred pages of it.
const PAUSE: Duration = Duration::from_secs(10);

/// Gives pages back once the proxy has started, and after each change of policy or identity, for as long as it lives.
pub(crate) async fn keep_few(shared: Arc<Shared>) {
    let mut changes = shared.watch_changes();
    loop {
        sleep(SETTLED).await;
        changes.borrow_and_update();
        match mesh_pages::give_back() {
            Ok(bytes) => tracing::debug!(bytes, "file pages were given back"),
            Err(error) => {
                return tracing::debug!(%error, "file pages cannot be given back here");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}
