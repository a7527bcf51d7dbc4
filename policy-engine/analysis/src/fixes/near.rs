//! Grants that nearly hold: what each lacks, and which of them are worth a look.

use super::Denied;
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::request::Client;
use mesh_policy::snapshot::{Effect, Grant, SnapshotData, Who};
use mesh_trust::Timestamp;
use std::collections::BTreeSet;

/// Policies of the namespaces that are all compiled for each change that is tried. Past it only the nearest grants are:
/// compiling ten thousand takes 100 ms, and those that are far from the request can neither allow nor forbid it.
const COMPILED_MAX: usize = 256;

/// What a grant lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lacks {
    pub(super) who: bool,
    pub(super) network: bool,
    pub(super) time: bool,
}

impl Lacks {
    fn count(self) -> usize {
        [self.who, self.network, self.time]
            .iter()
            .filter(|one| **one)
            .count()
    }
}

/// Permits of a port that pass `filter`, the nearest first.
pub(super) fn nearest<'s>(
    (snapshot, data): (&Snapshot, &'s SnapshotData),
    port: u16,
    (client, now): (&Client, Timestamp),
    filter: impl Fn(&Grant) -> bool,
) -> Vec<(Lacks, &'s Grant)> {
    let atoms = ConnectionAtoms::of(snapshot, client);
    let grants = snapshot.port(port).grants.iter();
    let grants = grants.filter_map(|at| data.grants.get(usize::try_from(*at).ok()?));
    let permits = grants.filter(|grant| grant.effect == Effect::Permit && filter(grant));
    let mut out: Vec<(Lacks, &Grant)> = permits
        .map(|grant| {
            let lacks = Lacks {
                who: match &grant.who {
                    Who::Anyone => false,
                    Who::AnyTls => !client.tls,
                    Who::Identities(set) => !atoms.in_identity_set(set),
                },
                network: grant
                    .networks
                    .as_ref()
                    .is_some_and(|set| !atoms.in_network_set(set)),
                time: grant.term.expires.is_some_and(|end| end <= now),
            };
            (lacks, grant)
        })
        .collect();
    // A grant to this client that lacks something else was meant for it more than one to others.
    out.sort_by_cached_key(|(lacks, grant)| {
        (lacks.count(), lacks.who, is_fixed(grant), grant.id.clone())
    });
    out
}

/// Whether a grant names its client by itself, so that no authentication can be widened.
fn is_fixed(grant: &Grant) -> bool {
    matches!(&grant.who, Who::Identities(set) if set.starts_with("ServiceAccount/"))
}

/// Ids of the grants that are compiled; `None`: all, for there are few.
pub(super) fn kept(denied: &Denied<'_>, client: &Client) -> Option<BTreeSet<String>> {
    let namespaces: BTreeSet<&str> = denied
        .places
        .iter()
        .map(|place| place.workload.namespace.as_str())
        .collect();
    let policies = namespaces
        .into_iter()
        .map(|name| denied.index.policies_in(name));
    if policies.sum::<usize>() <= COMPILED_MAX {
        return None;
    }
    let mut out = BTreeSet::new();
    for place in denied.places {
        let data = place.snapshot.data();
        let near = nearest(
            (&place.snapshot, &data),
            place.port,
            (client, denied.now),
            |_| true,
        );
        out.extend(
            near.iter()
                .take(COMPILED_MAX)
                .map(|(_, grant)| grant.id.clone()),
        );
        let broken = denied.index.broken_grants(&place.workload, place.port);
        out.extend(broken.iter().take(COMPILED_MAX).map(|one| {
            format!(
                "{}/{}/{}/0",
                one.policy.kind, one.policy.namespace, one.policy.name
            )
        }));
    }
    Some(out)
}
