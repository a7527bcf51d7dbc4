//! Zones: where pods run, which Services ask that requests stay there, and for whose clients an endpoint is.
//!
//! Of a Service with a selector the pods say it: each is for the zone of its node, if `trafficDistribution` or the topology
//! annotation asks for that. Of one without, its slices do, as they do for kube-proxy.

use super::Index;
use super::workloads::Workload;
use crate::manifest::resource::{Object, Service, SliceEndpoint};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Annotation of Services that asks for the same as `trafficDistribution`, and is older.
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// Whether requests to a Service are to stay in the zone of their client.
///
/// # Errors
/// What it says that is not known, and so asks for nothing.
pub(super) fn stays(service: &Object<Service>) -> Result<bool, String> {
    let distribution = match service.spec.traffic_distribution.as_deref() {
        None => false,
        Some("PreferClose" | "PreferSameZone" | "PreferSameNode") => true,
        Some(other) => {
            return Err(format!(
                "`spec.trafficDistribution: {other}` is not `PreferSameZone`, `PreferClose` or `PreferSameNode`: it asks for nothing"
            ));
        }
    };
    match service.annotations.get(TOPOLOGY_MODE).map(String::as_str) {
        None | Some("Disabled" | "disabled") => Ok(distribution),
        Some("Auto" | "auto") => Ok(true),
        Some(other) => Err(format!(
            "`{TOPOLOGY_MODE}: {other}` is not `Auto` or `Disabled`: it asks for nothing"
        )),
    }
}

impl Index {
    /// The zone of the node that a workload runs on.
    pub(crate) fn zone_of(&self, workload: &Workload) -> Option<&str> {
        let node = workload.pod.node.as_deref()?;
        self.zones.get(node).map(String::as_str)
    }

    /// The zone in which a workload runs, if its node is known and says it.
    pub fn zone(&self, workload: &super::WorkloadKey) -> Option<&str> {
        let at = self.by_key.get(workload)?;
        self.zone_of(self.workloads.get(*at)?)
    }

    /// For which zones each address is that the slices of a Service list.
    pub(super) fn listed_zones(&self, service: &Object<Service>) -> BTreeMap<IpAddr, Vec<String>> {
        let stays = stays(service).unwrap_or(false);
        let mut out: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for slice in self.slices_of(service) {
            for endpoint in &slice.spec.ready {
                let zones = out.entry(endpoint.ip).or_default();
                for zone in meant_for(endpoint, stays) {
                    if !zones.contains(zone) {
                        zones.push(zone.clone());
                    }
                }
            }
        }
        out
    }
}

/// Zones that an endpoint of a slice is for: those of its hints; without any its own, if the Service asks for that.
fn meant_for(endpoint: &SliceEndpoint, stays: bool) -> &[String] {
    let own = endpoint.zone.as_ref().filter(|_| stays);
    match endpoint.for_zones.as_slice() {
        [] => own.map(std::slice::from_ref).unwrap_or_default(),
        hints => hints,
    }
}
