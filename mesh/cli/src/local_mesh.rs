//! mesh.yaml: which workloads `mesh up` starts on this machine, and what is expected of them.
//!
//! [`LocalMesh`] is the valid form; start at [`LocalMesh::parse`].
//!
//! - [`file`]: the text form
//! - [`check`]: from the text form to the valid one

mod check;
mod file;

use crate::bundle_endpoint::LocalEndpoint;
use check::Check;
use mesh_trust::TrustDomain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A mesh on one machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LocalMesh {
    /// `metadata.name`.
    pub(crate) name: String,
    /// `spec.trustDomain`; `cluster.local` by default.
    pub(crate) trust_domain: TrustDomain,
    /// Where the trust bundle is served to other trust domains; nowhere by default.
    pub(crate) bundle_endpoint: Option<LocalEndpoint>,
    /// Where the proxies send spans; nowhere by default.
    pub(crate) traces: Option<Traces>,
    /// Files and folders of manifests, relative to the folder of mesh.yaml.
    pub(crate) manifests: Vec<PathBuf>,
    /// What runs, in the order of the file.
    pub(crate) workloads: Vec<Workload>,
    /// What each caller should experience.
    pub(crate) expectations: Vec<Expectation>,
}

/// A collector of spans, as the proxies are told of it (docs/reference/proxy-config.md).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Traces {
    /// Who it is.
    #[serde(flatten)]
    pub(crate) collector: Collector,
    /// What it speaks.
    pub(crate) protocol: OtlpProtocol,
    /// Share of requests without a trace for which one begins; the proxy's default if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<f64>,
    /// Whether it gets metrics too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<Metrics>,
}

/// How a collector gets metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metrics {
    /// How often; the proxy's default if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interval_secs: Option<u64>,
}

/// Who takes spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Collector {
    /// `namespace/name:port` of a service in the mesh.
    Service(String),
    /// A host with a port, outside of it.
    Address(String),
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OtlpProtocol {
    /// gRPC.
    #[default]
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

/// One process, and its proxy if it is meshed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Workload {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name, unique in its namespace.
    pub(crate) name: String,
    /// Service account: its identity. The workload's name by default.
    pub(crate) service_account: String,
    /// Pod labels that Servers and Services select by; `app: <name>` by default.
    pub(crate) labels: BTreeMap<String, String>,
    /// Program and arguments, never empty. A first word `mesh` means this very program.
    pub(crate) command: Vec<String>,
    /// Added to the environment of the process.
    pub(crate) env: BTreeMap<String, String>,
    /// Ports it listens on.
    pub(crate) ports: Vec<Port>,
    /// Services it calls.
    pub(crate) upstreams: Vec<Upstream>,
    /// What it calls outside of the mesh.
    pub(crate) outside: Vec<Outside>,
    /// Whether it gets a proxy and an SVID.
    pub(crate) meshed: bool,
}

/// A port of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Port {
    /// Name, as Servers and Services refer to it.
    pub(crate) name: String,
    /// Number, never 0.
    pub(crate) port: u16,
}

/// A Service that a workload calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Upstream {
    /// Namespace of the Service.
    pub(crate) namespace: String,
    /// Name of the Service.
    pub(crate) service: String,
    /// Port of the Service.
    pub(crate) port: u16,
    /// How the workload calls it; the Service's name by default.
    pub(crate) name: String,
}

/// An address outside of the mesh that a workload calls; through its proxy, if it has one and policy lets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Outside {
    /// How the workload calls it.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

impl Outside {
    /// The variable that tells a meshed application where to dial.
    pub(crate) fn variable(&self) -> String {
        variable("MESH_UPSTREAM_", &self.name)
    }

    /// The variable that tells an application without a proxy where it is.
    pub(crate) fn plain_variable(&self) -> String {
        variable("MESH_PLAIN_", &self.name)
    }
}

impl Upstream {
    /// The variable that tells a meshed application where to dial.
    pub(crate) fn variable(&self) -> String {
        variable("MESH_UPSTREAM_", &self.name)
    }

    /// The variable that tells an application without a proxy where the pod is.
    pub(crate) fn plain_variable(&self) -> String {
        variable("MESH_PLAIN_", &self.name)
    }
}

impl Port {
    /// The variable that tells the application where to listen for this port.
    pub(crate) fn variable(&self) -> String {
        variable("MESH_APP_ADDR_", &self.name)
    }
}

/// `name` as the end of an environment variable: upper case, `-` becomes `_`.
pub(crate) fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// What one caller should experience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Expectation {
    /// Name of the calling workload.
    pub(crate) from: String,
    /// Name of the upstream.
    pub(crate) to: String,
    /// What it speaks.
    pub(crate) protocol: AppProtocol,
    /// Whether it gets through.
    pub(crate) expect: Expected,
    /// The exact outcome, as the application reports it (`200`, `403`, `grpc:7`, `closed`), if one is demanded.
    pub(crate) outcome: Option<String>,
}

/// What an application speaks to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AppProtocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
}

/// Whether a call should get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expected {
    /// It should.
    Allow,
    /// It should not.
    Deny,
}

/// Why a mesh.yaml cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum LocalMeshError {
    /// Not YAML, a wrong type, or an unknown field.
    #[error("`{file}:{line}:{column}` cannot be read as a mesh.yaml: {why}")]
    #[diagnostic(
        code("MESH-0601"),
        help(
            "compare it with examples/shop/mesh.yaml; docs/reference/mesh-yaml.md names every field"
        )
    )]
    Syntax {
        /// The file.
        file: String,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Column, from 1; 0 if unknown.
        column: u64,
        /// What the parser says.
        why: String,
    },
    /// A value that has the right type and no meaning.
    #[error("`{file}:{line}:{column}`: {why}")]
    #[diagnostic(code("MESH-0602"), help("{hint}"))]
    Value {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong.
        why: String,
        /// What to write instead.
        hint: &'static str,
    },
}

impl LocalMesh {
    /// Reads and checks the text of a mesh.yaml; `file` names it in errors.
    ///
    /// # Errors
    /// [`LocalMeshError`] with line and column of the first fault.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, LocalMeshError> {
        let read: file::LocalMeshFile = serde_saphyr::from_str(text).map_err(|error| {
            let (line, column) = error
                .location()
                .map_or((0, 0), |at| (at.line(), at.column()));
            let why = error.without_snippet().to_string();
            let why = why.lines().next().unwrap_or_default();
            // The parser repeats the place in its text; ours stands in front already.
            let why = why
                .split(": ")
                .last()
                .filter(|_| why.starts_with("line "))
                .unwrap_or(why)
                .to_owned();
            LocalMeshError::Syntax {
                file: file.to_owned(),
                line,
                column,
                why,
            }
        })?;
        Check { file }.mesh(read)
    }

    /// The workload that is called `name` (or `namespace/name`).
    pub(crate) fn workload(&self, name: &str) -> Option<&Workload> {
        let (namespace, name) = name
            .split_once('/')
            .map_or((None, name), |(ns, name)| (Some(ns), name));
        self.workloads
            .iter()
            .find(|w| w.name == name && namespace.is_none_or(|ns| ns == w.namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "apiVersion: mesh.internal/v1alpha1
kind: LocalMesh
metadata:
  name: small
spec:
  workloads:
    - name: web
      namespace: shop
      command: [mesh, demo-app, --role, web]
      upstreams:
        - {service: shop/orders-v1, port: 8080}
  expectations:
    - {from: web, to: orders-v1, protocol: http, expect: allow, outcome: \"200\"}
";

    #[test]
    fn defaults_are_filled_in() {
        let mesh = LocalMesh::parse("mesh.yaml", SMALL).expect("a valid file");
        let web = mesh.workload("shop/web").expect("web");
        assert_eq!(mesh.trust_domain.as_str(), "cluster.local");
        assert_eq!((web.service_account.as_str(), web.meshed), ("web", true));
        assert_eq!(web.labels.get("app").map(String::as_str), Some("web"));
        assert_eq!(web.upstreams[0].variable(), "MESH_UPSTREAM_ORDERS_V1");
        assert_eq!(web.upstreams[0].plain_variable(), "MESH_PLAIN_ORDERS_V1");
    }

    #[test]
    fn a_bundle_endpoint_is_served_only_if_it_is_asked_for() {
        let mesh = LocalMesh::parse("mesh.yaml", SMALL).expect("a valid file");
        assert_eq!(mesh.bundle_endpoint, None);
        let with = |endpoint: &str| {
            let text = SMALL.replace("spec:\n", &format!("spec:\n  bundleEndpoint: {endpoint}\n"));
            let mesh = LocalMesh::parse("mesh.yaml", &text).expect(endpoint);
            let flags = mesh
                .bundle_endpoint
                .expect("an endpoint")
                .flags("/m".as_ref());
            let flags: Vec<_> = flags.iter().map(|flag| flag.to_string_lossy()).collect();
            flags.join(" ")
        };
        assert_eq!(
            with("{listen: '127.0.0.1:8443'}"),
            "--bundle-endpoint 127.0.0.1:8443 --bundle-refresh 300s"
        );
        assert_eq!(
            with("{listen: '[::1]:1', certificate: a.pem, key: /k.pem, refreshSeconds: 60}"),
            "--bundle-endpoint [::1]:1 --bundle-refresh 60s \
             --bundle-endpoint-certificate /m/a.pem --bundle-endpoint-key /k.pem"
        );
    }

    #[test]
    fn spans_go_to_one_collector_if_any() {
        let mesh = LocalMesh::parse("mesh.yaml", SMALL).expect("a valid file");
        assert_eq!(mesh.traces, None);
        let with = |traces: &str| {
            let of = format!("spec:\n  traces: {traces}\n");
            LocalMesh::parse("mesh.yaml", &SMALL.replace("spec:\n", &of))
        };
        let traces = with("{ service: shop/collector:4317 }")
            .expect("valid")
            .traces;
        let json = serde_json::to_value(traces).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({"service": "shop/collector:4317", "protocol": "grpc"})
        );
        let traces = with("{ address: \"[::1]:4318\", protocol: http, sample: 1 }");
        let json = serde_json::to_value(traces.expect("valid").traces).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({"address": "[::1]:4318", "protocol": "http", "sample": 1.0})
        );
        for (metrics, json) in [
            ("{}", serde_json::json!({})),
            (
                "{ intervalSeconds: 5 }",
                serde_json::json!({"intervalSecs": 5}),
            ),
        ] {
            let text = format!("{{ address: \"[::1]:4318\", metrics: {metrics} }}");
            let traces = with(&text).expect("valid").traces;
            let traces = serde_json::to_value(traces).expect("JSON");
            assert_eq!(traces["metrics"], json);
        }
        for (traces, why) in [
            ("{}", "one collector"),
            (
                "{ address: \"127.0.0.1:1\", metrics: { intervalSeconds: 0 } }",
                "`intervalSeconds` is 0",
            ),
            (
                "{ address: \"127.0.0.1:1\", metrics: { intervalSeconds: 3601 } }",
                "`intervalSeconds` is 3601",
            ),
            ("{ metrics: {} }", "one collector"),
            (
                "{ service: shop/collector:4317, address: \"127.0.0.1:1\" }",
                "one collector",
            ),
            ("{ service: collector:4317 }", "no service port"),
            ("{ service: shop/collector }", "no service port"),
            ("{ service: shop/collector:0 }", "no service port"),
            ("{ address: collector }", "no host with a port"),
            ("{ address: \"127.0.0.1:1\", sample: 1.5 }", "no share"),
        ] {
            let error = with(traces).expect_err("a fault").to_string();
            assert!(error.contains(why), "{traces}: {error}");
        }
        assert!(with("{ address: \"127.0.0.1:1\", protocol: zipkin }").is_err());
        assert!(with("{ address: \"127.0.0.1:1\", metrics: yes }").is_err());
    }

    #[test]
    fn what_is_outside_has_a_name_and_an_address() {
        let with = |entry: &str| {
            let of = format!(
                "      outside: [{entry}]\n  expectations:\n    - {{from: web, to: api, protocol: http, expect: deny}}"
            );
            LocalMesh::parse("mesh.yaml", &SMALL.replace("  expectations:", &of))
        };
        let mesh = with("{name: api, address: '203.0.113.7:443'}").expect("a valid file");
        let api = &mesh.workload("web").expect("web").outside[0];
        assert_eq!(api.address.to_string(), "203.0.113.7:443");
        assert_eq!(api.variable(), "MESH_UPSTREAM_API");
        for (entry, why) in [
            ("{name: api, address: api.example:443}", "no address"),
            ("{name: api, address: '203.0.113.7'}", "no address"),
            ("{name: api, address: '203.0.113.7:0'}", "no address"),
            (
                "{name: API, address: '203.0.113.7:443'}",
                "no Kubernetes name",
            ),
            (
                "{name: orders-v1, address: '203.0.113.7:443'}",
                "declared twice",
            ),
            (
                "{name: other, address: '203.0.113.7:443'}",
                "no upstream `api`",
            ),
        ] {
            let error = with(entry).expect_err(entry).to_string();
            assert!(error.contains(why), "{entry}: {error}");
        }
    }

    #[test]
    fn faults_are_named_with_line_and_column() {
        for (from, to, place, why) in [
            (
                "kind: LocalMesh",
                "kind: Mesh",
                "mesh.yaml:2:",
                "kind is `Mesh`",
            ),
            (
                "  name: small",
                "  name: Small",
                "mesh.yaml:4:",
                "no Kubernetes name",
            ),
            (
                "namespace: shop",
                "namespaces: shop",
                "mesh.yaml:8:",
                "namespaces",
            ),
            (
                "command: [mesh, demo-app, --role, web]",
                "command: []",
                "mesh.yaml:9:",
                "no command",
            ),
            (
                "shop/orders-v1",
                "orders-v1",
                "mesh.yaml:11:",
                "names no namespace",
            ),
            ("port: 8080", "port: 0", "mesh.yaml:11:", "port 0"),
            (
                "spec:\n",
                "spec:\n  bundleEndpoint: {listen: 8443}\n",
                "mesh.yaml:6:",
                "is no address",
            ),
            (
                "spec:\n",
                "spec:\n  bundleEndpoint: {listen: '127.0.0.1:8443', certificate: a.pem}\n",
                "mesh.yaml:6:",
                "go together",
            ),
            (
                "spec:\n",
                "spec:\n  bundleEndpoint: {listen: '127.0.0.1:8443', refreshSeconds: 29}\n",
                "mesh.yaml:6:",
                "29",
            ),
            ("port: 8080", "port: 80800", "mesh.yaml:11:", ""),
            (
                "from: web",
                "from: wob",
                "mesh.yaml:13:",
                "no workload `wob`",
            ),
            (
                "to: orders-v1",
                "to: orders",
                "mesh.yaml:13:",
                "no upstream `orders`",
            ),
            ("expect: allow", "expect: maybe", "mesh.yaml:13:", "maybe"),
        ] {
            let text = SMALL.replace(from, to);
            let error = LocalMesh::parse("mesh.yaml", &text)
                .expect_err(to)
                .to_string();
            assert!(
                error.contains(place) && error.contains(why),
                "{to}: {error}"
            );
        }
    }

    #[test]
    fn the_same_workload_twice_is_refused() {
        let again = "    - {name: web, namespace: shop, command: [mesh]}\n  expectations";
        let text = SMALL.replace("  expectations", again);
        let error = LocalMesh::parse("mesh.yaml", &text)
            .expect_err("two of one name")
            .to_string();
        assert!(error.contains("declared twice"), "{error}");
    }
}
