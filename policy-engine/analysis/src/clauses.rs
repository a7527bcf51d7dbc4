//! The clauses of grants, one by one: each identity and each network that an authentication names, and which of them
//! hold for a client. Held or not is answered by the data path's own index of sets, given one set per clause.

use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::request::Client;
use mesh_policy::snapshot::{
    IdentityPattern, IdentitySet, Network, NetworkSet, PortPolicy, SnapshotData, Who,
};
use std::collections::{BTreeMap, BTreeSet};

/// One clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The set that it stands in, `MeshTLSAuthentication/shop/web` say.
    pub set: String,
    /// The set, and what the clause says: unique.
    pub name: String,
    /// `file:line` of the set.
    pub source: String,
    /// Why it holds for nobody, if so.
    pub empty: Option<String>,
    kind: Kind,
    /// Its name in the snapshot of single clauses.
    probe: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Identity,
    Network,
}

/// All clauses of a snapshot that somebody wrote.
pub struct Clauses {
    all: Vec<Clause>,
    /// A snapshot with one set per clause; `None` if it does not compile: then none holds.
    probes: Option<Snapshot>,
}

impl std::fmt::Debug for Clauses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.all).finish()
    }
}

impl Clauses {
    /// The clauses of `data`, by set.
    pub fn of(data: &SnapshotData) -> Self {
        let mut all = Vec::new();
        let mut probes = data.clone();
        probes.ports.clear();
        probes.grants.clear();
        probes.other_ports.grants.clear();
        probes.other_ports.routes.clear();
        probes.cedar_policies.clear();
        probes.identity_sets = BTreeMap::new();
        probes.network_sets = BTreeMap::new();
        for (id, set) in data.identity_sets.iter().filter(|(id, _)| is_written(id)) {
            for (at, member) in set.members.iter().enumerate() {
                let probe = format!("{id}#{at}");
                let single = IdentitySet {
                    members: vec![member.clone()],
                    source: set.source.clone(),
                };
                probes.identity_sets.insert(probe.clone(), single);
                all.push(Clause {
                    set: id.clone(),
                    name: format!("{id}: {}", pattern(member)),
                    source: set.source.to_string(),
                    empty: matches!(member, IdentityPattern::Nobody(_))
                        .then(|| "this identity matches nobody here".to_owned()),
                    kind: Kind::Identity,
                    probe,
                });
            }
        }
        for (id, set) in data.network_sets.iter().filter(|(id, _)| is_written(id)) {
            for (at, network) in set.networks.iter().enumerate() {
                let probe = format!("{id}#{at}");
                let single = NetworkSet {
                    networks: vec![network.clone()],
                    source: set.source.clone(),
                };
                probes.network_sets.insert(probe.clone(), single);
                all.push(Clause {
                    set: id.clone(),
                    name: format!("{id}: {}", block(network)),
                    source: set.source.to_string(),
                    empty: None,
                    kind: Kind::Network,
                    probe,
                });
            }
        }
        Self {
            all,
            probes: Snapshot::compile(probes).ok(),
        }
    }

    /// Every clause.
    pub fn all(&self) -> &[Clause] {
        &self.all
    }

    /// Which clauses hold for a client, by place in [`Clauses::all`].
    pub fn held(&self, client: &Client) -> Vec<bool> {
        let Some(probes) = &self.probes else {
            return vec![false; self.all.len()];
        };
        let atoms = ConnectionAtoms::of(probes, client);
        let holds = |clause: &Clause| match clause.kind {
            Kind::Identity => atoms.in_identity_set(&clause.probe),
            Kind::Network => atoms.in_network_set(&clause.probe),
        };
        self.all.iter().map(holds).collect()
    }
}

/// Sets that the grants of a port ask for, each with the ids of these grants.
pub fn sets_of<'d>(
    data: &'d SnapshotData,
    port: &PortPolicy,
) -> BTreeMap<&'d str, BTreeSet<&'d str>> {
    let mut out: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let numbers = port.grants.iter().filter_map(|n| usize::try_from(*n).ok());
    for grant in numbers.filter_map(|n| data.grants.get(n)) {
        if let Who::Identities(set) = &grant.who {
            out.entry(set).or_default().insert(&grant.id);
        }
        if let Some(set) = &grant.networks {
            out.entry(set).or_default().insert(&grant.id);
        }
    }
    out
}

/// Whether a grant, or set, of this id stands in a manifest; the others are defaults.
pub fn is_written(id: &str) -> bool {
    !id.starts_with("default/") && !id.starts_with("probe/")
}

/// A member of a set, in words.
pub(crate) fn pattern(member: &IdentityPattern) -> String {
    match member {
        IdentityPattern::Any => "*".to_owned(),
        IdentityPattern::Exact(id) => id.to_string(),
        IdentityPattern::Namespace {
            trust_domain,
            namespace,
        } => format!("spiffe://{trust_domain}/ns/{namespace}/*"),
        IdentityPattern::Nobody(text) => text.clone(),
    }
}

fn block(network: &Network) -> String {
    let except: Vec<String> = network.except.iter().map(ToString::to_string).collect();
    if except.is_empty() {
        network.cidr.to_string()
    } else {
        format!("{} except {}", network.cidr, except.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{index, request};
    use mesh_policy::decide::Generation;

    #[test]
    fn clauses_hold_one_by_one() {
        let index = index();
        let key = index.workloads().next().expect("a workload").0.clone();
        let data = index.snapshot(&key, Generation::default()).expect("data");
        let clauses = Clauses::of(&data);
        let held = |account: &str, ip: &str| {
            let mut client = request(account, "/").client;
            client.ip = Some(ip.to_owned());
            let client = Client::try_from(&client).expect("a client");
            let held = clauses.held(&client);
            let names = clauses.all().iter().zip(held).filter(|(_, held)| *held);
            names
                .map(|(clause, _)| clause.name.clone())
                .collect::<Vec<_>>()
        };
        let web = "MeshTLSAuthentication/shop/web: spiffe://cluster.local/ns/shop/sa/web";
        let local = "NetworkAuthentication/shop/local: 127.0.0.0/8";
        assert_eq!(held("web", "127.0.0.1"), [web, local]);
        assert_eq!(held("web", "10.0.0.1"), [web]);
        assert_eq!(held("intruder", "10.0.0.1"), Vec::<String>::new());
        assert_eq!(clauses.all().len(), 3);
    }
}
