//! What evidence is computed from: the bundle, its policy as the engine reads it, and every port asked in full, once.

mod grants;
mod ports;
mod telemetry;

use crate::bundle::{Bundle, LogKind};
use mesh_policy_analysis::survey::known_identities;
use mesh_policy_index::{Index, IndexConfig, Mode, load};
use mesh_trust::SpiffeId;
use std::collections::{BTreeMap, BTreeSet};

pub use grants::{GrantFact, UseFact};
pub use ports::{Opening, PortFact, ReviewLine, ZoneFact};
pub use telemetry::Telemetry;

/// Facts of one bundle.
pub struct Facts<'b> {
    /// The bundle.
    pub bundle: &'b Bundle,
    /// Its policy.
    pub index: Index,
    /// Identities of the mesh's workloads.
    pub known: Vec<SpiffeId>,
    /// Every namespace that something in the bundle is in, sorted.
    pub namespaces: Vec<String>,
    /// What is known of each namespace's traffic.
    pub telemetry: BTreeMap<String, Telemetry>,
    /// Every port of every workload, and what its policy is.
    pub ports: Vec<PortFact>,
    /// Grants that somebody wrote, by id.
    pub grants: BTreeMap<String, GrantFact>,
    /// Use of each of them by the traffic of the bundle.
    pub uses: BTreeMap<String, UseFact>,
    /// Who may reach what.
    pub review: Vec<ReviewLine>,
    /// Why the review may not be complete.
    pub review_notes: BTreeSet<String>,
    /// Each zone, examined.
    pub zones: Vec<ZoneFact>,
}

impl<'b> Facts<'b> {
    /// Reads a bundle's policy and asks it everything that evidence needs.
    pub fn of(bundle: &'b Bundle) -> Self {
        let scope = &bundle.scope;
        let files = bundle.files.iter();
        let loaded = load(files.map(|file| (file.name.clone(), file.text.as_bytes())));
        let config = IndexConfig {
            // Checked when the bundle was read.
            default_policy: scope.default_policy.parse().unwrap_or(Mode::Deny),
            ..IndexConfig::new(scope.trust_domain.clone())
        };
        let index = Index::build(&loaded, &config);
        drop(loaded);
        let known = known_identities(&index, &scope.trust_domain);
        let namespaces = namespaces(bundle, &index);
        let telemetry = telemetry::of(bundle, &namespaces);
        let mut facts = Self {
            bundle,
            known,
            telemetry,
            namespaces,
            ports: Vec::new(),
            grants: BTreeMap::new(),
            uses: BTreeMap::new(),
            review: Vec::new(),
            review_notes: BTreeSet::new(),
            zones: Vec::new(),
            index,
        };
        ports::examine(&mut facts);
        grants::annotate(&mut facts);
        grants::uses(&mut facts);
        facts
    }

    /// The telemetry of a namespace.
    pub fn telemetry(&self, namespace: &str) -> &Telemetry {
        const NONE: &Telemetry = &Telemetry::NONE;
        self.telemetry.get(namespace).unwrap_or(NONE)
    }

    /// The issuance log, if there is one that was proved.
    pub fn issuance_told(&self) -> Result<(), String> {
        let mut logs = self.bundle.logs.iter();
        match logs.find(|log| log.records == LogKind::Issuance) {
            None => Err("there is no issuance log".to_owned()),
            Some(log) => match &log.broken {
                None => Ok(()),
                Some(broken) => Err(format!(
                    "the issuance log is not proved from line {} on",
                    broken.line
                )),
            },
        }
    }
}

/// Namespace of a service account's SPIFFE ID of the trust domain `home`, if it is one.
pub fn namespace_of(id: &str, home: &mesh_trust::TrustDomain) -> Option<String> {
    let id = SpiffeId::parse(id).ok()?;
    if id.trust_domain() != home {
        return None;
    }
    id.service_account()
        .map(|(namespace, _)| namespace.to_owned())
}

fn namespaces(bundle: &Bundle, index: &Index) -> Vec<String> {
    let home = &bundle.scope.trust_domain;
    let mut all: BTreeSet<String> = index
        .workloads()
        .map(|(key, _)| key.namespace.clone())
        .collect();
    let policies = index.policy_objects().into_iter().map(|one| one.namespace);
    all.extend(policies.filter(|name| !name.is_empty()));
    all.extend(bundle.workloads.iter().map(|one| one.namespace.clone()));
    all.extend(bundle.traffic.iter().map(|one| one.namespace.clone()));
    let certified = bundle.certificates.iter();
    all.extend(certified.filter_map(|one| namespace_of(&one.spiffe_id, home)));
    all.into_iter().collect()
}
