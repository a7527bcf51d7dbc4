//! PeerAuthentications to the mode of each port: workload before namespace before mesh, the oldest of each.
//!
//! Manifests rarely say which of two is older. Then the stricter mode holds; if one of them is DISABLE there is no
//! stricter one, and nothing is allowed on the port.

use super::model::{Labels, Mtls, PeerAuthentication};
use super::scope::is_within;
use crate::manifest::resource::Created;
use std::collections::BTreeSet;

/// The mode of a port; `None` if it cannot be told.
pub(crate) type PortMode = Option<Mtls>;

/// All PeerAuthentications by what they are for.
pub(crate) struct Modes<'a> {
    peers: &'a [PeerAuthentication],
    root_namespace: &'a str,
}

/// What Istio makes of several objects for one scope.
struct Level<'a> {
    /// The one that counts, or all that might.
    candidates: Vec<(usize, &'a PeerAuthentication)>,
}

impl Level<'_> {
    /// The mode that this level gives, if it gives one; `inherited` is that of the level above.
    fn mode(&self, inherited: PortMode, port: Option<u16>) -> PortMode {
        let of = |peer: &PeerAuthentication| {
            let own = peer.mode.or(inherited);
            match port.and_then(|port| peer.ports.get(&port)) {
                Some(mode) => mode.or(own),
                None => own,
            }
        };
        let modes: BTreeSet<PortMode> = self.candidates.iter().map(|(_, peer)| of(peer)).collect();
        match modes.len() {
            0 => inherited,
            1 => modes.first().copied().flatten(),
            _ if modes.contains(&None) || modes.contains(&Some(Mtls::Disable)) => None,
            _ => Some(Mtls::Strict),
        }
    }
}

impl<'a> Modes<'a> {
    pub(crate) fn new(peers: &'a [PeerAuthentication], root_namespace: &'a str) -> Self {
        Self {
            peers,
            root_namespace,
        }
    }

    /// Whether Istio ignores it: a selector in the root namespace selects nothing.
    pub(crate) fn is_ignored(peer: &PeerAuthentication, root_namespace: &str) -> bool {
        peer.key.namespace == root_namespace && !peer.selector.is_empty()
    }

    /// The labels that objects of a namespace select by.
    pub(crate) fn queries(&self, namespace: &str) -> Vec<&'a Labels> {
        let here = |p: &&PeerAuthentication| {
            p.key.namespace == namespace && !Self::is_ignored(p, self.root_namespace)
        };
        self.peers
            .iter()
            .filter(here)
            .map(|p| &p.selector)
            .collect()
    }

    fn levels(&self, namespace: &str, labels: &Labels) -> [Level<'a>; 3] {
        let root = self.root_namespace;
        let mesh = |p: &PeerAuthentication| p.key.namespace == root && p.selector.is_empty();
        let of_namespace = |p: &PeerAuthentication| {
            namespace != root && p.key.namespace == namespace && p.selector.is_empty()
        };
        let of_workload = |p: &PeerAuthentication| {
            namespace != root
                && p.key.namespace == namespace
                && !p.selector.is_empty()
                && is_within(&p.selector, labels)
        };
        [
            self.level(mesh),
            self.level(of_namespace),
            self.level(of_workload),
        ]
    }

    fn level(&self, belongs: impl Fn(&PeerAuthentication) -> bool) -> Level<'a> {
        let mut candidates: Vec<_> = self
            .peers
            .iter()
            .enumerate()
            .filter(|(_, p)| belongs(p))
            .collect();
        let age = |peer: &PeerAuthentication| match peer.created {
            Created::At(time) => Some(time),
            Created::Unreadable | Created::Unknown => None,
        };
        if candidates.iter().all(|(_, p)| age(p).is_some()) {
            candidates.sort_by_key(|(_, p)| (p.created, &p.key));
            candidates.truncate(1);
        }
        Level { candidates }
    }

    /// The mode of one port of the workloads with these labels.
    pub(crate) fn of(&self, namespace: &str, labels: &Labels, port: u16) -> PortMode {
        let [mesh, of_namespace, of_workload] = self.levels(namespace, labels);
        let mode = mesh.mode(Some(Mtls::Permissive), None);
        let mode = of_namespace.mode(mode, None);
        of_workload.mode(mode, Some(port))
    }

    /// Places of those that bear on the workloads with these labels.
    pub(crate) fn bearing(&self, namespace: &str, labels: &Labels) -> Vec<usize> {
        let levels = self.levels(namespace, labels);
        let mut out: Vec<usize> = levels
            .iter()
            .flat_map(|l| l.candidates.iter().map(|(at, _)| *at))
            .collect();
        out.sort_unstable();
        out
    }

    /// Places of those that others contest.
    pub(crate) fn contested(&self, namespace: &str, labels: &Labels) -> Vec<usize> {
        let levels = self.levels(namespace, labels);
        let contested = levels.iter().filter(|l| l.candidates.len() > 1);
        contested
            .flat_map(|l| l.candidates.iter().map(|(at, _)| *at))
            .collect()
    }
}
