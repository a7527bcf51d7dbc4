//! Faults that the proxies of a Server inject: which of them count, and what is said of each.
//!
//! An invalid fault injects nothing, and neither does one of nobody: what is left out here only ends a test.

use super::Index;
use crate::finding::Code;
use crate::manifest::resource::{HttpFault, Object, Server};
use mesh_policy::limits::FAULTS_MAX;
use mesh_policy::snapshot::{Fault, IdentityPattern};
use mesh_trust::SpiffeId;

impl Index {
    /// The faults of a Server, oldest first.
    pub(super) fn faults_of(&self, server: &Object<Server>) -> Vec<Fault> {
        if server.spec.protocol.carries_bytes() {
            return Vec::new();
        }
        let named = self.faults.get(&server.key).into_iter().flatten();
        let faults = named.filter_map(|at| self.resources.faults.get(*at));
        faults
            .filter_map(|fault| self.fault(fault))
            .take(FAULTS_MAX)
            .collect()
    }

    fn fault(&self, fault: &Object<HttpFault>) -> Option<Fault> {
        let spec = &fault.spec;
        let clients = self.clients(spec);
        if fault.invalid.is_some() || clients.is_empty() {
            return None;
        }
        Some(Fault {
            namespace: fault.key.namespace.clone(),
            name: fault.key.name.clone(),
            clients,
            until: spec.until?,
            delay: spec.delay,
            abort: spec.abort,
            bandwidth: spec.bandwidth,
            source: fault.source.clone(),
        })
    }

    fn clients(&self, spec: &HttpFault) -> Vec<SpiffeId> {
        let domain = &self.config.trust_domain;
        let ids = spec.clients.iter().filter_map(|one| {
            match one.pattern(domain) {
                IdentityPattern::Exact(id) => Some(id),
                // Reading refused what names many.
                IdentityPattern::Any
                | IdentityPattern::Namespace { .. }
                | IdentityPattern::Nobody(_) => None,
            }
        });
        let mut ids: Vec<SpiffeId> = ids.collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// What a fault of `server` does, or why it does nothing; `None`: it is invalid, which is said already.
    pub(super) fn about_fault(
        &self,
        fault: &Object<HttpFault>,
        server: &Object<Server>,
    ) -> Option<(Code, String)> {
        let idle = |why: String| {
            let message = format!("{} has no effect: {why}", fault.title());
            Some((Code::IdleFault, message))
        };
        if server.spec.protocol.carries_bytes() {
            return idle(format!("{} carries bytes, not requests", server.title()));
        }
        if fault.invalid.is_none() && self.clients(&fault.spec).is_empty() {
            return idle("nobody in the mesh has one of its identities".to_owned());
        }
        let done = self.fault(fault)?;
        let same = self.faults_of(server);
        if same.iter().any(|one| one.name == done.name) {
            Some((Code::FaultInjected, said(&done, server)))
        } else {
            idle(format!("{} has {FAULTS_MAX} older ones", server.title()))
        }
    }
}

fn said(fault: &Fault, server: &Object<Server>) -> String {
    let mut parts = Vec::new();
    if let Some(delay) = fault.delay {
        parts.push(format!("{} % wait {} ms", delay.percent, delay.ms));
    }
    if let Some(abort) = fault.abort {
        let http = abort.status.map(|status| status.to_string());
        let grpc = abort.grpc_status.map(|code| format!("gRPC {code}"));
        let with: Vec<String> = http.into_iter().chain(grpc).collect();
        parts.push(format!(
            "{} % are answered with {}",
            abort.percent,
            with.join(", ")
        ));
    }
    if let Some(rate) = fault.bandwidth {
        parts.push(format!(
            "{} % get {} bytes of their answer a second",
            rate.percent, rate.bytes_per_second
        ));
    }
    let clients: Vec<&str> = fault.clients.iter().map(SpiffeId::as_str).collect();
    format!(
        "until {} requests of {} to {} are disturbed: {}",
        fault.until,
        clients.join(", "),
        server.title(),
        parts.join("; ")
    )
}
