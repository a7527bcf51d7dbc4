//! This mesh's own answer to a request of the model, from imported manifests through index and decision.

use crate::generate::{WORKLOADS, cluster};
use crate::istio_model::Request;
use mesh_policy::decide::Verdict;
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy::snapshot::Severity;
use mesh_policy_index::import::{CustomAction, ImportConfig, Imported, istio};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, IndexConfig, load};
use mesh_trust::{Timestamp, TrustDomain};

/// No policy that is imported looks at the time.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

/// Every workload of the small world.
pub(crate) const ALL: &[usize] = &[0, 1, 2, 3];

/// Imports a text beside the workloads that are known; CUSTOM becomes a denial.
pub(crate) fn import(text: &str, known: &[usize]) -> Imported {
    let config = ImportConfig {
        custom: CustomAction::Deny,
        ..ImportConfig::new(trust_domain())
    };
    let files = [
        ("cluster.yaml".to_owned(), cluster(known).into_bytes()),
        ("istio.yaml".to_owned(), text.as_bytes().to_vec()),
    ];
    istio(&files, &config).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

/// The index of the workloads and what was imported for them; what is written passes every check.
pub(crate) fn index(imported: &Imported) -> Index {
    index_with(imported, "")
}

/// The same, with more manifests.
pub(crate) fn index_with(imported: &Imported, more: &str) -> Index {
    let written = imported
        .files
        .iter()
        .map(|f| (f.name.clone(), f.text.clone().into_bytes()));
    let files = written.chain([
        ("cluster.yaml".to_owned(), cluster(ALL).into_bytes()),
        ("more.yaml".to_owned(), more.as_bytes().to_vec()),
    ]);
    let index = Index::build(&load(files), &IndexConfig::new(trust_domain()));
    let errors: Vec<_> = index
        .findings()
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{}", text(imported));
    index
}

pub(crate) fn text(imported: &Imported) -> String {
    imported.files.iter().map(|f| f.text.as_str()).collect()
}

pub(crate) fn record(place: usize, request: &Request) -> RequestRecord {
    let http = request.http.as_ref();
    RequestRecord {
        client: ClientRecord {
            spiffe_id: request.principal.as_ref().map(|p| format!("spiffe://{p}")),
            ip: Some(request.ip.clone()),
            tls: None,
        },
        server: TargetRecord {
            namespace: WORKLOADS[place].namespace.to_owned(),
            pod: Some(WORKLOADS[place].name.to_owned()),
            service: None,
            port: request.port,
        },
        protocol: if http.is_some() {
            Protocol::Http
        } else {
            Protocol::Tcp
        },
        method: http.map(|h| h.method.clone()),
        path: http.map(|h| h.path.clone()),
        host: http.map(|h| h.host.clone()),
        headers: http.map(|h| h.headers.clone()).unwrap_or_default(),
    }
}

pub(crate) fn decide(
    replay: &mut Replay<'_>,
    place: usize,
    request: &Request,
) -> (bool, DecisionRecord) {
    let decision = replay.decide(&record(place, request));
    (decision.verdict == Verdict::Allow, decision)
}
