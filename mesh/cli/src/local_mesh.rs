//! mesh.yaml: which workloads `mesh up` starts on this machine, and what is expected of them.
//!
//! [`LocalMeshFile`] is the text form (unknown fields refused); [`LocalMesh`] is the valid form, in which every name has
//! been checked and every default filled in. Start at [`LocalMesh::read`].

use mesh_trust::TrustDomain;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Workloads one file may start. Each costs two processes and a few loopback addresses.
pub(crate) const WORKLOADS_MAX: usize = 100;
/// Upstreams one workload may declare: its proxy listens on one loopback address for each.
pub(crate) const UPSTREAMS_MAX: usize = 100;
/// Longest Kubernetes name of a namespace or Service (RFC 1123 label).
const LABEL_BYTES_MAX: usize = 63;
/// Trust domain if the file names none.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The only version there is.
const API_VERSION: &str = "mesh.internal/v1alpha1";

/// mesh.yaml as text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LocalMeshFile {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    metadata: MetadataFile,
    spec: SpecFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataFile {
    name: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpecFile {
    trust_domain: Option<Spanned<String>>,
    #[serde(default)]
    manifests: Vec<Spanned<String>>,
    workloads: Spanned<Vec<WorkloadFile>>,
    #[serde(default)]
    expectations: Vec<ExpectationFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadFile {
    name: Spanned<String>,
    namespace: Spanned<String>,
    service_account: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    command: Spanned<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<PortFile>,
    #[serde(default)]
    upstreams: Vec<UpstreamFile>,
    #[serde(default = "meshed_by_default")]
    meshed: bool,
}

fn meshed_by_default() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortFile {
    name: Spanned<String>,
    port: Spanned<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamFile {
    service: Spanned<String>,
    port: Spanned<u16>,
    name: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectationFile {
    from: Spanned<String>,
    to: Spanned<String>,
    protocol: AppProtocol,
    expect: Expected,
    outcome: Option<String>,
}

/// A mesh on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LocalMesh {
    /// `metadata.name`.
    pub(crate) name: String,
    /// `spec.trustDomain`; `cluster.local` by default.
    pub(crate) trust_domain: TrustDomain,
    /// Files and folders of manifests, relative to the folder of mesh.yaml.
    pub(crate) manifests: Vec<PathBuf>,
    /// What runs, in the order of the file.
    pub(crate) workloads: Vec<Workload>,
    /// What each caller should experience.
    pub(crate) expectations: Vec<Expectation>,
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
        help("compare it with examples/shop/mesh.yaml; docs/reference/mesh-yaml.md names every field")
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
        let read: LocalMeshFile = serde_saphyr::from_str(text).map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            let why = error.without_snippet().to_string();
            let why = why.lines().next().unwrap_or_default();
            // The parser repeats the place in its text; ours stands in front already.
            let why = why.split(": ").last().filter(|_| why.starts_with("line ")).unwrap_or(why).to_owned();
            LocalMeshError::Syntax { file: file.to_owned(), line, column, why }
        })?;
        Check { file }.mesh(read)
    }

    /// The workload that is called `name` (or `namespace/name`).
    pub(crate) fn workload(&self, name: &str) -> Option<&Workload> {
        let (namespace, name) = name.split_once('/').map_or((None, name), |(ns, name)| (Some(ns), name));
        self.workloads.iter().find(|w| w.name == name && namespace.is_none_or(|ns| ns == w.namespace))
    }
}

/// Turns the text form into the valid form; holds what errors need.
struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn fault(&self, at: Location, why: String, hint: &'static str) -> LocalMeshError {
        LocalMeshError::Value { file: self.file.to_owned(), line: at.line(), column: at.column(), why, hint }
    }

    fn mesh(&self, read: LocalMeshFile) -> Result<LocalMesh, LocalMeshError> {
        self.exactly(&read.api_version, "apiVersion", API_VERSION)?;
        self.exactly(&read.kind, "kind", "LocalMesh")?;
        let trust_domain = match &read.spec.trust_domain {
            Some(name) => TrustDomain::parse(&name.value).map_err(|error| {
                self.fault(name.referenced, error.to_string(), "a trust domain is lower case, like `cluster.local`")
            })?,
            None => TrustDomain::parse(DEFAULT_TRUST_DOMAIN)
                .map_err(|error| self.fault(Location::UNKNOWN, error.to_string(), "name `spec.trustDomain`"))?,
        };
        let at = read.spec.workloads.referenced;
        if read.spec.workloads.value.len() > WORKLOADS_MAX {
            let why = format!("{} workloads are more than {WORKLOADS_MAX}", read.spec.workloads.value.len());
            return Err(self.fault(at, why, "split the file in two meshes"));
        }
        let mut seen = BTreeSet::new();
        let mut workloads = Vec::new();
        for workload in read.spec.workloads.value {
            let place = workload.name.referenced;
            let workload = self.workload(workload)?;
            if !seen.insert((workload.namespace.clone(), workload.name.clone())) {
                let why = format!("workload `{}/{}` is declared twice", workload.namespace, workload.name);
                return Err(self.fault(place, why, "give each workload of a namespace its own name"));
            }
            workloads.push(workload);
        }
        let mut mesh = LocalMesh {
            name: self.label(&read.metadata.name, "metadata.name")?,
            trust_domain,
            manifests: read.spec.manifests.iter().map(|path| self.relative(path)).collect::<Result<_, _>>()?,
            workloads,
            expectations: Vec::new(),
        };
        for expectation in read.spec.expectations {
            let expectation = self.expectation(expectation, &mesh)?;
            mesh.expectations.push(expectation);
        }
        Ok(mesh)
    }

    fn workload(&self, read: WorkloadFile) -> Result<Workload, LocalMeshError> {
        let name = self.label(&read.name, "name")?;
        if read.command.value.first().is_none_or(String::is_empty) {
            let hint = "write the program and its arguments as a list: `[mesh, demo-app, --role, web]`";
            return Err(self.fault(read.command.referenced, format!("workload `{name}` has no command"), hint));
        }
        let mut labels = read.labels;
        labels.entry("app".to_owned()).or_insert_with(|| name.clone());
        let mut ports: Vec<Port> = Vec::new();
        for port in read.ports {
            let (at, port) =
                (port.port.referenced, Port { name: self.label(&port.name, "port name")?, port: self.port(&port.port)? });
            if ports.iter().any(|other| other.name == port.name || other.port == port.port) {
                let why = format!("port `{}` ({}) is declared twice", port.name, port.port);
                return Err(self.fault(at, why, "name and number of a port are unique in a workload"));
            }
            ports.push(port);
        }
        Ok(Workload {
            namespace: self.label(&read.namespace, "namespace")?,
            service_account: match &read.service_account {
                Some(account) => self.label(account, "serviceAccount")?,
                None => name.clone(),
            },
            labels,
            command: read.command.value,
            env: read.env,
            ports,
            upstreams: self.upstreams(&read.upstreams)?,
            meshed: read.meshed,
            name,
        })
    }

    fn upstreams(&self, read: &[UpstreamFile]) -> Result<Vec<Upstream>, LocalMeshError> {
        let mut upstreams: Vec<Upstream> = Vec::new();
        for upstream in read {
            let at = upstream.service.referenced;
            let hint = "write `service: namespace/name`";
            let Some((namespace, service)) = upstream.service.value.split_once('/') else {
                return Err(self.fault(at, format!("`{}` names no namespace", upstream.service.value), hint));
            };
            for part in [namespace, service] {
                if !is_label(part) {
                    return Err(self.fault(at, format!("`{part}` is no Kubernetes name"), hint));
                }
            }
            let name = match &upstream.name {
                Some(name) => self.label(name, "upstream name")?,
                None => service.to_owned(),
            };
            if upstreams.iter().any(|other| other.name == name) {
                return Err(self.fault(at, format!("upstream `{name}` is declared twice"), "set `name` to tell them apart"));
            }
            if upstreams.len() == UPSTREAMS_MAX {
                let why = format!("there are more than {UPSTREAMS_MAX} upstreams");
                return Err(self.fault(at, why, "a workload this connected should be two"));
            }
            let (namespace, service) = (namespace.to_owned(), service.to_owned());
            upstreams.push(Upstream { namespace, service, port: self.port(&upstream.port)?, name });
        }
        Ok(upstreams)
    }

    fn expectation(&self, read: ExpectationFile, mesh: &LocalMesh) -> Result<Expectation, LocalMeshError> {
        let Some(caller) = mesh.workload(&read.from.value) else {
            let why = format!("there is no workload `{}`", read.from.value);
            return Err(self.fault(read.from.referenced, why, "`from` is the name of a workload of this file"));
        };
        if !caller.upstreams.iter().any(|upstream| upstream.name == read.to.value) {
            let why = format!("workload `{}` has no upstream `{}`", read.from.value, read.to.value);
            return Err(self.fault(read.to.referenced, why, "`to` is the name of an upstream of the workload `from`"));
        }
        Ok(Expectation {
            from: read.from.value,
            to: read.to.value,
            protocol: read.protocol,
            expect: read.expect,
            outcome: read.outcome,
        })
    }

    fn exactly(&self, found: &Spanned<String>, field: &str, wanted: &'static str) -> Result<(), LocalMeshError> {
        if found.value == wanted {
            return Ok(());
        }
        let why = format!("{field} is `{}`, not `{wanted}`", found.value);
        Err(self.fault(found.referenced, why, "a mesh.yaml is of kind `LocalMesh`, apiVersion `mesh.internal/v1alpha1`"))
    }

    fn label(&self, text: &Spanned<String>, field: &str) -> Result<String, LocalMeshError> {
        if is_label(&text.value) {
            return Ok(text.value.clone());
        }
        let why = format!("{field} `{}` is no Kubernetes name", text.value);
        Err(self.fault(text.referenced, why, "use lower-case letters, digits and `-`, at most 63, not `-` at an end"))
    }

    fn port(&self, port: &Spanned<u16>) -> Result<u16, LocalMeshError> {
        if port.value == 0 {
            return Err(self.fault(port.referenced, "port 0 is no port".to_owned(), "ports go from 1 to 65535"));
        }
        Ok(port.value)
    }

    fn relative(&self, path: &Spanned<String>) -> Result<PathBuf, LocalMeshError> {
        let read = Path::new(&path.value);
        if path.value.is_empty() {
            return Err(self.fault(path.referenced, "a path is empty".to_owned(), "name a file or a folder of manifests"));
        }
        Ok(read.to_path_buf())
    }
}

/// Whether `text` is an RFC 1123 label, as Kubernetes wants for namespaces and Services.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
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
    fn faults_are_named_with_line_and_column() {
        for (from, to, place, why) in [
            ("kind: LocalMesh", "kind: Mesh", "mesh.yaml:2:", "kind is `Mesh`"),
            ("  name: small", "  name: Small", "mesh.yaml:4:", "no Kubernetes name"),
            ("namespace: shop", "namespaces: shop", "mesh.yaml:8:", "namespaces"),
            ("command: [mesh, demo-app, --role, web]", "command: []", "mesh.yaml:9:", "no command"),
            ("shop/orders-v1", "orders-v1", "mesh.yaml:11:", "names no namespace"),
            ("port: 8080", "port: 0", "mesh.yaml:11:", "port 0"),
            ("port: 8080", "port: 80800", "mesh.yaml:11:", ""),
            ("from: web", "from: wob", "mesh.yaml:13:", "no workload `wob`"),
            ("to: orders-v1", "to: orders", "mesh.yaml:13:", "no upstream `orders`"),
            ("expect: allow", "expect: maybe", "mesh.yaml:13:", "maybe"),
        ] {
            let text = SMALL.replace(from, to);
            let error = LocalMesh::parse("mesh.yaml", &text).expect_err(to).to_string();
            assert!(error.contains(place) && error.contains(why), "{to}: {error}");
        }
    }

    #[test]
    fn the_same_workload_twice_is_refused() {
        let again = "    - {name: web, namespace: shop, command: [mesh]}\n  expectations";
        let text = SMALL.replace("  expectations", again);
        let error = LocalMesh::parse("mesh.yaml", &text).expect_err("two of one name").to_string();
        assert!(error.contains("declared twice"), "{error}");
    }
}
