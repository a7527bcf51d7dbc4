//! mesh.yaml as text: what may stand where. Unknown fields are refused; names are checked in [`super::check`].

use super::{AppProtocol, Expected, OtlpProtocol};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// mesh.yaml as text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalMeshFile {
    pub(super) api_version: Spanned<String>,
    pub(super) kind: Spanned<String>,
    pub(super) metadata: MetadataFile,
    pub(super) spec: SpecFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetadataFile {
    pub(super) name: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpecFile {
    pub(super) trust_domain: Option<Spanned<String>>,
    pub(super) bundle_endpoint: Option<BundleEndpointFile>,
    pub(super) traces: Option<TracesFile>,
    #[serde(default)]
    pub(super) manifests: Vec<Spanned<String>>,
    pub(super) workloads: Spanned<Vec<WorkloadFile>>,
    #[serde(default)]
    pub(super) expectations: Vec<ExpectationFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BundleEndpointFile {
    pub(super) listen: Spanned<String>,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) refresh_seconds: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TracesFile {
    pub(super) service: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) protocol: OtlpProtocol,
    pub(super) sample: Option<Spanned<f64>>,
    pub(super) metrics: Option<MetricsFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MetricsFile {
    pub(super) interval_seconds: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadFile {
    pub(super) name: Spanned<String>,
    pub(super) namespace: Spanned<String>,
    pub(super) service_account: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) command: Spanned<Vec<String>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) ports: Vec<PortFile>,
    #[serde(default)]
    pub(super) upstreams: Vec<UpstreamFile>,
    #[serde(default)]
    pub(super) outside: Vec<OutsideFile>,
    #[serde(default = "meshed_by_default")]
    pub(super) meshed: bool,
}

fn meshed_by_default() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortFile {
    pub(super) name: Spanned<String>,
    pub(super) port: Spanned<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamFile {
    pub(super) service: Spanned<String>,
    pub(super) port: Spanned<u16>,
    pub(super) name: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutsideFile {
    pub(super) name: Spanned<String>,
    pub(super) address: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectationFile {
    pub(super) from: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) protocol: AppProtocol,
    pub(super) expect: Expected,
    pub(super) outcome: Option<String>,
}
