//! A whole mesh as it is asked about: its workloads, each with its policy, from manifests or from running proxies.

use ipnet::IpNet;
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::{Finding, PortPolicy, SnapshotData, Source};
use mesh_policy_index::{Index, IndexConfig, WorkloadKey};
use std::collections::{BTreeMap, BTreeSet};

/// Workloads and their policy. Snapshots are made when they are asked for: all at once might not fit into memory.
pub trait World {
    /// Every workload, sorted.
    fn workloads(&self) -> Vec<WorkloadKey>;
    /// Its service account, namespace first.
    fn account(&self, workload: &WorkloadKey) -> Option<(String, String)>;
    /// Its policy; `None` if there is no such workload.
    fn snapshot(&self, workload: &WorkloadKey) -> Option<SnapshotData>;
    /// What is wrong or doubtful.
    fn findings(&self) -> Vec<Finding>;
    /// Addresses of the cluster: what nobody speaks for there does not leave the mesh.
    fn cluster(&self) -> Vec<IpNet> {
        IndexConfig::private_networks()
    }
}

impl World for Index {
    fn workloads(&self) -> Vec<WorkloadKey> {
        Index::workloads(self).map(|(key, _)| key.clone()).collect()
    }

    fn account(&self, workload: &WorkloadKey) -> Option<(String, String)> {
        let info = self.workload(workload)?;
        Some((info.namespace.clone(), info.service_account.clone()))
    }

    fn snapshot(&self, workload: &WorkloadKey) -> Option<SnapshotData> {
        Index::snapshot(self, workload, Generation::default())
    }

    fn findings(&self) -> Vec<Finding> {
        Index::findings(self).to_vec()
    }

    fn cluster(&self) -> Vec<IpNet> {
        self.config().cluster_networks.clone()
    }
}

/// Snapshots that are at hand already: those of running proxies, say.
#[derive(Clone, Debug, Default)]
pub struct Snapshots(pub BTreeMap<WorkloadKey, SnapshotData>);

impl World for Snapshots {
    fn workloads(&self) -> Vec<WorkloadKey> {
        self.0.keys().cloned().collect()
    }

    fn account(&self, workload: &WorkloadKey) -> Option<(String, String)> {
        let info = &self.0.get(workload)?.workload;
        Some((info.namespace.clone(), info.service_account.clone()))
    }

    fn snapshot(&self, workload: &WorkloadKey) -> Option<SnapshotData> {
        self.0.get(workload).cloned()
    }

    fn findings(&self) -> Vec<Finding> {
        let all = self.0.values().flat_map(|data| &data.findings);
        let sorted: BTreeSet<&Finding> = all.collect();
        sorted.into_iter().cloned().collect()
    }
}

/// `namespace/name`.
pub fn title(workload: &WorkloadKey) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

/// Ports of which policy speaks: the declared ones, and one that stands for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskedPort {
    /// A port with policy of its own.
    Own(u16),
    /// Any other; this number stands for them.
    Other(u16),
}

impl AskedPort {
    /// The number that is asked with.
    pub fn number(self) -> u16 {
        match self {
            Self::Own(number) | Self::Other(number) => number,
        }
    }

    /// For people: the number, or `any other port`.
    pub fn text(self) -> String {
        match self {
            Self::Own(number) => number.to_string(),
            Self::Other(_) => "any other port".to_owned(),
        }
    }
}

/// All ports of snapshots of one workload, and one that stands for the others.
pub fn ports(views: &[&SnapshotData]) -> Vec<AskedPort> {
    let own: BTreeSet<u16> = views
        .iter()
        .flat_map(|data| data.ports.keys().copied())
        .collect();
    let other = (1..=u16::MAX).rev().find(|port| !own.contains(port));
    let own = own.into_iter().map(AskedPort::Own);
    own.chain(other.map(AskedPort::Other)).collect()
}

/// The policy of a port.
pub fn port_policy(data: &SnapshotData, port: u16) -> &PortPolicy {
    data.ports.get(&port).unwrap_or(&data.other_ports)
}

/// The data without what no decision about a caller looks at: places in files, findings, the count of changes, faults that
/// are injected after it, and what the workload itself may reach outside of the mesh ([`crate::outside`]). Two snapshots
/// that are equal so decide every request alike.
pub fn deciding_part(mut data: SnapshotData) -> SnapshotData {
    let nowhere = || Source::BuiltIn(String::new());
    data.generation = Generation::default();
    data.findings.clear();
    data.egress.clear();
    data.workload.source = nowhere();
    for grant in &mut data.grants {
        grant.source = nowhere();
    }
    for set in data.identity_sets.values_mut() {
        set.source = nowhere();
    }
    for set in data.network_sets.values_mut() {
        set.source = nowhere();
    }
    for text in &mut data.cedar_policies {
        text.source = nowhere();
    }
    let others = std::iter::once(&mut data.other_ports);
    for port in data.ports.values_mut().chain(others) {
        port.server.source = nowhere();
        port.server.shadowed.clear();
        port.faults.clear();
        for route in &mut port.routes {
            route.source = nowhere();
        }
        for probe in &mut port.probes {
            probe.source = nowhere();
        }
    }
    data
}
