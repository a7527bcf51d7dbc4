//! Tells the authors of policy what became of it: `status.conditions` of policy objects, `status.parents` of routes (as
//! Gateway API has it), and an event where something is refused.
//!
//! Every controller decides alike; one of them, who holds a Lease, writes. Nothing is written that stands there already, and
//! nothing about a spec that is not in force yet. Policy never waits for this, and nothing depends on it.
//!
//! - [`conditions`]: what a list of conditions should be; [`entries`]: what the entries of a route should be
//! - [`enforced`]: whether every proxy that an object concerns holds it
//! - [`writer`]: what is known, and what is due
//! - [`events`]: what is told once

mod conditions;
mod enforced;
mod entries;
mod events;
mod writer;

use crate::limits::STATUS_SETTLE;
use crate::publish::Published;
use crate::state::Shared;
use data_encoding::HEXLOWER;
use mesh_kubernetes::Client;
use mesh_kubernetes::kinds::WITH_STATUS;
use mesh_kubernetes::lease::{self, Lease};
use mesh_kubernetes::object;
use mesh_kubernetes::watch::watch as watch_kinds;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use writer::Writer;

/// What we are called in a status.
const CONTROLLER: &str = mesh_kubernetes::status::FIELD_MANAGER;

/// The Lease of the one who writes, in the control plane's namespace.
const LEASE: &str = "mesh-controller-status";

/// Changes that may wait to be taken; the watches wait then.
const CHANGES_QUEUED_MAX: usize = 1_024;

/// Writes whenever we hold the Lease; never ends.
pub(crate) async fn keep_told(shared: Arc<Shared>, client: Client) {
    let (tell, mut holds) = watch::channel(false);
    let holder = holder(&shared);
    let lease = Lease {
        namespace: shared.config.index.control_plane_namespace.clone(),
        name: LEASE.to_owned(),
        holder: holder.clone(),
    };
    let mut tasks = JoinSet::new();
    let platform = Arc::clone(&shared.platform);
    let clock = move || platform.wall_clock().to_string();
    tasks.spawn(lease::hold(client.clone(), lease, clock, tell));
    loop {
        if holds.wait_for(|holds| *holds).await.is_err() {
            return;
        }
        tracing::info!("this controller writes statuses");
        let mut lost = holds.clone();
        tokio::select! {
            () = write_while_asked(&shared, &client, &holder) => {}
            _ = lost.wait_for(|holds| !*holds) => {
                tracing::info!("another controller may write statuses");
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

/// Follows objects, policy and what proxies hold, and writes what differs; ends only when the watches do.
async fn write_while_asked(shared: &Shared, client: &Client, holder: &str) {
    let (tell, mut changes) = mpsc::channel(CHANGES_QUEUED_MAX);
    let watching = watch_kinds(client.clone(), WITH_STATUS, object::status, tell);
    let writing = async {
        let mut writer = Writer::new(holder);
        let mut published = shared.published.subscribe();
        let mut held = shared.reports.watch_held();
        let mut again = None;
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => writer.take(change),
                    None => return,
                },
                changed = published.changed() => if changed.is_err() { return },
                changed = held.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again.unwrap_or(Duration::MAX)), if again.is_some() => {}
            }
            // Many changes come together, and each pass looks at every object.
            tokio::time::sleep(STATUS_SETTLE).await;
            while let Ok(change) = changes.try_recv() {
                writer.take(change);
            }
            let held = held.borrow_and_update().clone();
            let policy = published.borrow_and_update().clone();
            if let Some(policy) = policy {
                let platform = &shared.platform;
                let time = || platform.wall_clock().to_string();
                let heard = (&held, is_alone(shared, &policy));
                again = writer.write(client, &policy, heard, time).await;
            }
        }
    };
    tokio::join!(watching, writing);
}

/// Whether no other controller is there that proxies may follow: a pod with our own identity.
fn is_alone(shared: &Shared, policy: &Published) -> bool {
    let identity = shared.identity.borrow();
    let Some(own) = identity.as_ref().map(|identity| &identity.id) else {
        return false;
    };
    let controllers = policy
        .workloads
        .values()
        .filter(|policy| policy.standing.ready && policy.identity.as_ref() == Some(own));
    controllers.count() <= 1
}

#[cfg(test)]
mod tests;
