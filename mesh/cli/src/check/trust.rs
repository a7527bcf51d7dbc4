//! Checks of trust: who has acknowledged the bundle, and whether a rotation stands still.

use super::item::Item;
use crate::live::Live;
use mesh_api::trust::TrustStatus;

const CATEGORY: &str = "trust";
/// Blockers that are named here; `mesh trust status` names all.
const BLOCKERS_SHOWN: usize = 3;

/// What the CA says of trust.
pub(super) async fn check(live: &Live) -> Vec<Item> {
    match crate::trust::status_of(live).await {
        Ok(status) => items(&status),
        Err(fault) => {
            let fix = format!("tail -n 20 {}", live.state.join("log/ca.log").display());
            vec![Item::broken(CATEGORY, "MESH-0930", fault.message(), fix)]
        }
    }
}

fn items(status: &TrustStatus) -> Vec<Item> {
    let counts = status.verifiers;
    let says = format!(
        "bundle generation {} with {} roots, acknowledged by {} of {} verifiers",
        status.generation,
        status.roots.len(),
        counts.acknowledged,
        counts.all
    );
    let mut items = Vec::new();
    // Plain SPIFFE clients cannot acknowledge; who has a stream must.
    if counts.acknowledged >= counts.connected {
        items.push(Item::ok(CATEGORY, says));
    } else {
        items.push(Item::doubtful(
            CATEGORY,
            "MESH-0932",
            says,
            "mesh trust status",
        ));
    }
    if let Some(why) = &status.halted {
        let says = format!("a rotation halted: {why}");
        items.push(Item::broken(
            CATEGORY,
            "MESH-0933",
            says,
            "mesh trust resume",
        ));
    }
    if status.phase != "steady" {
        let names = status.blockers.iter().take(BLOCKERS_SHOWN);
        let names: Vec<_> = names
            .map(|blocker| format!("{} {}", blocker.name, blocker.reason))
            .collect();
        let waits = if names.is_empty() {
            String::new()
        } else {
            format!(
                "; it waits for {}: {}",
                status.blockers.len(),
                names.join("; ")
            )
        };
        let says = format!("a rotation is {}{waits}", status.phase);
        items.push(Item::doubtful(
            CATEGORY,
            "MESH-0932",
            says,
            "mesh trust status",
        ));
    }
    items
}
