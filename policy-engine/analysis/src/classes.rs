//! The finite classes of clients and requests that a policy tells apart.
//!
//! - [`client`]: who asks: named identities, and one that stands for each kind of the others
//! - [`network`]: where from
//! - [`request`]: what is asked of a port: one witness for each rule of its routes
//! - [`literals`]: what policies written in Cedar compare with

pub mod client;
pub mod literals;
pub mod network;
pub mod request;
pub(crate) mod sample;

pub use client::{ClientClass, Who};
pub use network::{NetworkClass, network_classes};
pub use request::{Ask, RequestClass};

pub(crate) use client::fresh;
pub(crate) use request::encoded;

use literals::Literals;
use mesh_policy::snapshot::{Network, SnapshotData};
use mesh_trust::SpiffeId;

/// The classes of the clients of some snapshots together.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Who.
    pub who: Vec<ClientClass>,
    /// From where.
    pub networks: Vec<NetworkClass>,
}

/// What the Cedar texts of snapshots, and further ones, compare with; `None` if there are no texts.
pub fn literals_of(views: &[&SnapshotData], further: &[String]) -> Option<Literals> {
    let texts = views
        .iter()
        .flat_map(|data| data.cedar_policies.iter().map(|text| &text.text));
    let mut found = None;
    for text in texts.chain(further) {
        found.get_or_insert_with(Literals::default).add(text);
    }
    found
}

/// The classes of all clients of `views`. `known` are identities that exist: with Cedar texts about, each is asked for.
pub fn clients(
    views: &[&SnapshotData],
    known: &[SpiffeId],
    literals: Option<&Literals>,
) -> Clients {
    let sets = views.iter().flat_map(|data| data.network_sets.values());
    let mut all: Vec<Vec<Network>> = sets.map(|set| set.networks.clone()).collect();
    for block in literals.iter().flat_map(|found| &found.networks) {
        all.push(vec![Network {
            cidr: *block,
            except: Vec::new(),
        }]);
    }
    all.sort_by(|a, b| {
        let key = |set: &[Network]| {
            set.iter()
                .map(|n| (n.cidr, n.except.clone()))
                .collect::<Vec<_>>()
        };
        key(a).cmp(&key(b))
    });
    all.dedup();
    Clients {
        who: client::client_classes(views, known, literals),
        networks: network_classes(all.iter().map(Vec::as_slice)),
    }
}
