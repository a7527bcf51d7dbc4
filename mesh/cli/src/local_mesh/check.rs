//! From the text form of mesh.yaml to the valid one: every name is checked, every default filled in.

use super::file::{
    BundleEndpointFile, ExpectationFile, LocalMeshFile, MetricsFile, OutsideFile, TracesFile,
    UpstreamFile, WorkloadFile,
};
use super::{
    Collector, Expectation, LocalMesh, LocalMeshError, Metrics, Outside, Port, Traces, Upstream,
    Workload,
};
use crate::bundle_endpoint::LocalEndpoint;
use mesh_issuance::limits::{REFRESH_SECS, REFRESH_SECS_MAX, REFRESH_SECS_MIN};
use mesh_proxy::config::HostPort;
use mesh_proxy::limits::METRICS_SECS_MAX;
use mesh_trust::TrustDomain;
use serde_saphyr::{Location, Spanned};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Workloads one file may start. Each costs two processes and a few loopback addresses.
const WORKLOADS_MAX: usize = 100;
/// Upstreams one workload may declare: its proxy listens on one loopback address for each.
const UPSTREAMS_MAX: usize = 100;
/// Longest Kubernetes name of a namespace or Service (RFC 1123 label).
const LABEL_BYTES_MAX: usize = 63;
/// Trust domain if the file names none.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The only version there is.
const API_VERSION: &str = "mesh.internal/v1alpha1";

/// Turns the text form into the valid form; holds what errors need.
pub(super) struct Check<'a> {
    pub(super) file: &'a str,
}

impl Check<'_> {
    fn fault(&self, at: Location, why: String, hint: &'static str) -> LocalMeshError {
        LocalMeshError::Value {
            file: self.file.to_owned(),
            line: at.line(),
            column: at.column(),
            why,
            hint,
        }
    }

    pub(super) fn mesh(&self, read: LocalMeshFile) -> Result<LocalMesh, LocalMeshError> {
        self.exactly(&read.api_version, "apiVersion", API_VERSION)?;
        self.exactly(&read.kind, "kind", "LocalMesh")?;
        let trust_domain = match &read.spec.trust_domain {
            Some(name) => TrustDomain::parse(&name.value).map_err(|error| {
                self.fault(
                    name.referenced,
                    error.to_string(),
                    "a trust domain is lower case, like `cluster.local`",
                )
            })?,
            None => TrustDomain::parse(DEFAULT_TRUST_DOMAIN).map_err(|error| {
                self.fault(
                    Location::UNKNOWN,
                    error.to_string(),
                    "name `spec.trustDomain`",
                )
            })?,
        };
        let at = read.spec.workloads.referenced;
        if read.spec.workloads.value.len() > WORKLOADS_MAX {
            let why = format!(
                "{} workloads are more than {WORKLOADS_MAX}",
                read.spec.workloads.value.len()
            );
            return Err(self.fault(at, why, "split the file in two meshes"));
        }
        let mut seen = BTreeSet::new();
        let mut workloads = Vec::new();
        for workload in read.spec.workloads.value {
            let place = workload.name.referenced;
            let workload = self.workload(workload)?;
            if !seen.insert((workload.namespace.clone(), workload.name.clone())) {
                let why = format!(
                    "workload `{}/{}` is declared twice",
                    workload.namespace, workload.name
                );
                return Err(self.fault(
                    place,
                    why,
                    "give each workload of a namespace its own name",
                ));
            }
            workloads.push(workload);
        }
        let mut mesh = LocalMesh {
            name: self.label(&read.metadata.name, "metadata.name")?,
            trust_domain,
            bundle_endpoint: match &read.spec.bundle_endpoint {
                Some(endpoint) => Some(self.bundle_endpoint(endpoint)?),
                None => None,
            },
            traces: match &read.spec.traces {
                Some(traces) => Some(self.traces(traces, at)?),
                None => None,
            },
            manifests: read
                .spec
                .manifests
                .iter()
                .map(|path| self.relative(path))
                .collect::<Result<_, _>>()?,
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
            let hint =
                "write the program and its arguments as a list: `[mesh, demo-app, --role, web]`";
            return Err(self.fault(
                read.command.referenced,
                format!("workload `{name}` has no command"),
                hint,
            ));
        }
        let mut labels = read.labels;
        labels
            .entry("app".to_owned())
            .or_insert_with(|| name.clone());
        let mut ports: Vec<Port> = Vec::new();
        for port in read.ports {
            let (at, port) = (
                port.port.referenced,
                Port {
                    name: self.label(&port.name, "port name")?,
                    port: self.port(&port.port)?,
                },
            );
            if ports
                .iter()
                .any(|other| other.name == port.name || other.port == port.port)
            {
                let why = format!("port `{}` ({}) is declared twice", port.name, port.port);
                return Err(self.fault(
                    at,
                    why,
                    "name and number of a port are unique in a workload",
                ));
            }
            ports.push(port);
        }
        let upstreams = self.upstreams(&read.upstreams)?;
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
            outside: self.outside(&read.outside, &upstreams)?,
            upstreams,
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
                return Err(self.fault(
                    at,
                    format!("`{}` names no namespace", upstream.service.value),
                    hint,
                ));
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
                return Err(self.fault(
                    at,
                    format!("upstream `{name}` is declared twice"),
                    "set `name` to tell them apart",
                ));
            }
            if upstreams.len() == UPSTREAMS_MAX {
                let why = format!("there are more than {UPSTREAMS_MAX} upstreams");
                return Err(self.fault(at, why, "a workload this connected should be two"));
            }
            let (namespace, service) = (namespace.to_owned(), service.to_owned());
            upstreams.push(Upstream {
                namespace,
                service,
                port: self.port(&upstream.port)?,
                name,
            });
        }
        Ok(upstreams)
    }

    fn outside(
        &self,
        read: &[OutsideFile],
        upstreams: &[Upstream],
    ) -> Result<Vec<Outside>, LocalMeshError> {
        let mut all: Vec<Outside> = Vec::new();
        for one in read {
            let name = self.label(&one.name, "name of what is outside")?;
            let upstream = upstreams.iter().any(|other| other.name == name);
            if upstream || all.iter().any(|other| other.name == name) {
                let why = format!("upstream `{name}` is declared twice");
                let hint = "names are unique among `upstreams` and `outside`";
                return Err(self.fault(one.name.referenced, why, hint));
            }
            if all.len() + upstreams.len() == UPSTREAMS_MAX {
                let why = format!("there are more than {UPSTREAMS_MAX} upstreams");
                let hint = "a workload this connected should be two";
                return Err(self.fault(one.name.referenced, why, hint));
            }
            let address = one.address.value.parse::<SocketAddr>().ok();
            let address = address
                .filter(|address| address.port() > 0)
                .ok_or_else(|| {
                    let why = format!("`{}` is no address with a port", one.address.value);
                    self.fault(
                        one.address.referenced,
                        why,
                        "write it like `203.0.113.7:443`",
                    )
                })?;
            all.push(Outside { name, address });
        }
        Ok(all)
    }

    fn expectation(
        &self,
        read: ExpectationFile,
        mesh: &LocalMesh,
    ) -> Result<Expectation, LocalMeshError> {
        let Some(caller) = mesh.workload(&read.from.value) else {
            let why = format!("there is no workload `{}`", read.from.value);
            return Err(self.fault(
                read.from.referenced,
                why,
                "`from` is the name of a workload of this file",
            ));
        };
        let mut upstreams = caller.upstreams.iter().map(|upstream| &upstream.name);
        let mut outside = caller.outside.iter().map(|outside| &outside.name);
        if !upstreams.any(|name| *name == read.to.value)
            && !outside.any(|name| *name == read.to.value)
        {
            let why = format!(
                "workload `{}` has no upstream `{}`",
                read.from.value, read.to.value
            );
            return Err(self.fault(
                read.to.referenced,
                why,
                "`to` is the name of an upstream of the workload `from`",
            ));
        }
        Ok(Expectation {
            from: read.from.value,
            to: read.to.value,
            protocol: read.protocol,
            expect: read.expect,
            outcome: read.outcome,
        })
    }

    fn exactly(
        &self,
        found: &Spanned<String>,
        field: &str,
        wanted: &'static str,
    ) -> Result<(), LocalMeshError> {
        if found.value == wanted {
            return Ok(());
        }
        let why = format!("{field} is `{}`, not `{wanted}`", found.value);
        Err(self.fault(
            found.referenced,
            why,
            "a mesh.yaml is of kind `LocalMesh`, apiVersion `mesh.internal/v1alpha1`",
        ))
    }

    fn bundle_endpoint(&self, read: &BundleEndpointFile) -> Result<LocalEndpoint, LocalMeshError> {
        let at = read.listen.referenced;
        let listen = read.listen.value.parse().map_err(|_| {
            let why = format!("`{}` is no address with a port", read.listen.value);
            self.fault(at, why, "write `listen: \"192.0.2.1:8443\"`")
        })?;
        let certificate = match (&read.certificate, &read.key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some((self.relative(chain)?, self.relative(key)?)),
            (Some(_), None) | (None, Some(_)) => {
                let why = "`certificate` and `key` go together".to_owned();
                let hint = "give both, or none: then the endpoint shows an SVID of the CA";
                return Err(self.fault(at, why, hint));
            }
        };
        let refresh_secs = match &read.refresh_seconds {
            None => REFRESH_SECS,
            Some(secs) if (REFRESH_SECS_MIN..=REFRESH_SECS_MAX).contains(&secs.value) => secs.value,
            Some(secs) => {
                let why = format!("`refreshSeconds` is {}", secs.value);
                let hint = "it goes from 30 seconds to a day, 86400";
                return Err(self.fault(secs.referenced, why, hint));
            }
        };
        Ok(LocalEndpoint {
            listen,
            certificate,
            refresh_secs,
        })
    }

    /// `place`: where the file is, if `traces` names nothing.
    fn traces(&self, read: &TracesFile, place: Location) -> Result<Traces, LocalMeshError> {
        let collector = match (&read.service, &read.address) {
            (Some(service), None) => {
                if !is_service_port(&service.value) {
                    let why = format!("`{}` is no service port", service.value);
                    let hint = "write `service: observability/collector:4317`";
                    return Err(self.fault(service.referenced, why, hint));
                }
                Collector::Service(service.value.clone())
            }
            (None, Some(address)) => {
                if address.value.parse::<HostPort>().is_err() {
                    let why = format!("`{}` is no host with a port", address.value);
                    let hint = "write `address: \"127.0.0.1:4317\"`";
                    return Err(self.fault(address.referenced, why, hint));
                }
                Collector::Address(address.value.clone())
            }
            (service, address) => {
                let at = service.as_ref().or(address.as_ref());
                let at = at.map_or(place, |text| text.referenced);
                let why = "`traces` names one collector".to_owned();
                return Err(self.fault(at, why, "give `service` or `address`"));
            }
        };
        if let Some(sample) = &read.sample
            && !(0.0..=1.0).contains(&sample.value)
        {
            let why = format!("`sample` is {}, which is no share", sample.value);
            return Err(self.fault(sample.referenced, why, "write a number from 0 to 1"));
        }
        Ok(Traces {
            collector,
            protocol: read.protocol,
            sample: read.sample.as_ref().map(|sample| sample.value),
            metrics: match &read.metrics {
                Some(metrics) => Some(self.metrics(metrics)?),
                None => None,
            },
        })
    }

    fn metrics(&self, read: &MetricsFile) -> Result<Metrics, LocalMeshError> {
        let Some(secs) = &read.interval_seconds else {
            return Ok(Metrics::default());
        };
        if !(1..=METRICS_SECS_MAX).contains(&secs.value) {
            let why = format!("`intervalSeconds` is {}", secs.value);
            let hint = "it goes from 1 second to an hour, 3600";
            return Err(self.fault(secs.referenced, why, hint));
        }
        Ok(Metrics {
            interval_secs: Some(secs.value),
        })
    }

    fn label(&self, text: &Spanned<String>, field: &str) -> Result<String, LocalMeshError> {
        if is_label(&text.value) {
            return Ok(text.value.clone());
        }
        let why = format!("{field} `{}` is no Kubernetes name", text.value);
        Err(self.fault(
            text.referenced,
            why,
            "use lower-case letters, digits and `-`, at most 63, not `-` at an end",
        ))
    }

    fn port(&self, port: &Spanned<u16>) -> Result<u16, LocalMeshError> {
        if port.value == 0 {
            return Err(self.fault(
                port.referenced,
                "port 0 is no port".to_owned(),
                "ports go from 1 to 65535",
            ));
        }
        Ok(port.value)
    }

    fn relative(&self, path: &Spanned<String>) -> Result<PathBuf, LocalMeshError> {
        let read = Path::new(&path.value);
        if path.value.is_empty() {
            return Err(self.fault(
                path.referenced,
                "a path is empty".to_owned(),
                "name a file or a folder of manifests",
            ));
        }
        Ok(read.to_path_buf())
    }
}

/// `namespace/name:port`.
fn is_service_port(text: &str) -> bool {
    let parts = text.split_once('/').and_then(|(namespace, rest)| {
        let (name, port) = rest.rsplit_once(':')?;
        Some((namespace, name, port.parse::<u16>().ok()?))
    });
    parts.is_some_and(|(namespace, name, port)| is_label(namespace) && is_label(name) && port > 0)
}

/// Whether `text` is an RFC 1123 label, as Kubernetes wants for namespaces and Services.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
