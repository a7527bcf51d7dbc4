//! The YAML form of the configuration, and how it becomes a [`ProxyConfig`].

use super::{
    Audit, Collector, HostPort, IdentitySource, InboundPort, Limits, OtlpProtocol, Outbound,
    PolicySource, ProxyConfig, ServiceName, Target, Traces,
};
use crate::error::ProxyError;
use crate::limits;
use mesh_api::discovery::Endpoint;
use mesh_audits::redact::Redactable;
use mesh_ca_client::RemoteCa;
use mesh_platform::Platform;
use mesh_platform::audit_log::WhenFull;
use mesh_platform::tree_log::Retention;
use mesh_proxy_core::redirect;
use mesh_trust::{SpiffeId, TrustDomain};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The file, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyConfigFile {
    workload: WorkloadFile,
    #[serde(default = "default_trust_domain")]
    trust_domain: String,
    identity: IdentityFile,
    policy: PolicyFile,
    inbound: InboundFile,
    #[serde(default)]
    outbound: Vec<OutboundFile>,
    outbound_transparent: Option<String>,
    admin: AdminFile,
    #[serde(default)]
    audit: Option<AuditFile>,
    traces: Option<TracesFile>,
    tap: Option<TapFile>,
    #[serde(default = "one")]
    cores: usize,
    #[serde(default = "default_drain_secs")]
    drain_secs: u64,
    #[serde(default)]
    limits: LimitsFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadFile {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityFile {
    workload_api: Option<String>,
    files: Option<IdentityFilesFile>,
    ca: Option<CaFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaFile {
    address: String,
    identity: String,
    token: PathBuf,
    bundle: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityFilesFile {
    chain: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyFile {
    controller: Option<ControllerFile>,
    manifests: Option<PathBuf>,
    default_policy: Option<String>,
    discovery: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ControllerFile {
    address: String,
    identity: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InboundFile {
    mesh: String,
    transparent: Option<String>,
    #[serde(default)]
    ports: Vec<PortFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortFile {
    listen: String,
    port: u16,
    app: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutboundFile {
    listen: String,
    service: Option<String>,
    endpoints: Option<Vec<EndpointFile>>,
    outside: Option<String>,
    #[serde(default)]
    protocol: ProtocolFile,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolFile {
    #[default]
    Detect,
    Opaque,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointFile {
    proxy: String,
    port: u16,
    identity: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdminFile {
    listen: String,
    socket: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuditFile {
    file: PathBuf,
    #[serde(default = "default_allow_sample")]
    allow_sample: f64,
    #[serde(default)]
    when_full: WhenFullFile,
    #[serde(default)]
    retain_days: Option<u64>,
    #[serde(default)]
    retain_megabytes: Option<u64>,
    #[serde(default)]
    redactable: Vec<Redactable>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TapFile {
    identities: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TracesFile {
    service: Option<String>,
    endpoints: Option<Vec<EndpointFile>>,
    address: Option<String>,
    #[serde(default)]
    protocol: OtlpFile,
    #[serde(default = "default_trace_sample")]
    sample: f64,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    metrics: Option<MetricsFile>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetricsFile {
    #[serde(default = "default_metrics_secs")]
    interval_secs: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OtlpFile {
    #[default]
    Grpc,
    Http,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum WhenFullFile {
    #[default]
    Count,
    Strict,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitsFile {
    handshake_secs: Option<u64>,
    handshakes_at_once: Option<usize>,
    detect_secs: Option<u64>,
    header_secs: Option<u64>,
    connect_millis: Option<u64>,
    connections: Option<usize>,
}

fn default_trust_domain() -> String {
    "cluster.local".to_owned()
}

fn one() -> usize {
    1
}

fn default_drain_secs() -> u64 {
    30
}

fn default_allow_sample() -> f64 {
    0.01
}

fn default_trace_sample() -> f64 {
    0.01
}

fn default_metrics_secs() -> u64 {
    limits::METRICS_SECS
}

/// Attributes of a process that may be given for its spans, and bytes of each name and value.
const ATTRIBUTES_MAX: usize = 32;
/// See [`ATTRIBUTES_MAX`].
const ATTRIBUTE_BYTES_MAX: usize = 256;

/// What stands before the name of an environment variable that holds the configuration, in place of a file.
const VARIABLE: &str = "env:";

/// Reads and checks the file at `path`; `env:NAME` is the text in that environment variable.
///
/// # Errors
/// [`ProxyError`] with file, line and what to do.
pub fn load(platform: &dyn Platform, path: &Path) -> Result<ProxyConfig, ProxyError> {
    let unreadable = |why: String| ProxyError::ConfigUnreadable {
        path: path.to_owned(),
        why,
    };
    if let Some(name) = path.to_str().and_then(|path| path.strip_prefix(VARIABLE)) {
        let text = variable(name).map_err(unreadable)?;
        return parse(&text, &path.display().to_string());
    }
    let bytes = platform
        .read_file(path)
        .map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| unreadable("the file is not UTF-8 text".to_owned()))?;
    parse(&text, &path.display().to_string())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the argument names this variable, and nothing else is read"
)]
fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("the environment variable `{name}`: {error}"))
}

/// Reads and checks `text`; `name` stands in errors.
///
/// # Errors
/// [`ProxyError`] with line and what to do.
pub fn parse(text: &str, name: &str) -> Result<ProxyConfig, ProxyError> {
    let file: ProxyConfigFile = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(
            || name.to_owned(),
            |at| format!("{name}:{}:{}", at.line(), at.column()),
        );
        ProxyError::ConfigSyntax {
            place,
            why: first_line(&error.without_snippet().to_string()),
        }
    })?;
    Checker { name }.config(file)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Turns the parts of a file into their valid forms.
struct Checker<'a> {
    name: &'a str,
}

impl Checker<'_> {
    fn fault(&self, key: &str, value: impl Display, why: impl Display, hint: &str) -> ProxyError {
        ProxyError::ConfigValue {
            file: self.name.to_owned(),
            key: key.to_owned(),
            value: value.to_string(),
            why: why.to_string(),
            hint: hint.to_owned(),
        }
    }

    fn config(&self, file: ProxyConfigFile) -> Result<ProxyConfig, ProxyError> {
        let trust_domain = TrustDomain::parse(&file.trust_domain).map_err(|error| {
            self.fault(
                "trustDomain",
                &file.trust_domain,
                error,
                "lower-case letters, digits, dots, dashes and underscores",
            )
        })?;
        let ports = file.inbound.ports.iter().enumerate();
        let outbound = file.outbound.into_iter().enumerate();
        let config = ProxyConfig {
            namespace: self.name_part("workload.namespace", file.workload.namespace)?,
            workload: self.name_part("workload.name", file.workload.name)?,
            identity: self.identity_source(file.identity, &trust_domain)?,
            trust_domain,
            policy: self.policy(file.policy)?,
            mesh: self.address("inbound.mesh", &file.inbound.mesh)?,
            transparent: self.maybe_address("inbound.transparent", file.inbound.transparent)?,
            ports: ports
                .map(|(i, port)| self.port(i, port))
                .collect::<Result<_, _>>()?,
            outbound: outbound
                .map(|(i, entry)| self.outbound(i, entry))
                .collect::<Result<_, _>>()?,
            outbound_transparent: self
                .maybe_address("outboundTransparent", file.outbound_transparent)?,
            admin: self.address("admin.listen", &file.admin.listen)?,
            admin_socket: file.admin.socket,
            audit: file.audit.map(|audit| self.audit(audit)).transpose()?,
            traces: file.traces.map(|traces| self.traces(traces)).transpose()?,
            tap: self.tap(file.tap)?,
            cores: self.within("cores", file.cores, 1, 256)?,
            drain: Duration::from_secs(self.within("drainSecs", file.drain_secs, 0, 3_600)?),
            limits: self.limits(&file.limits)?,
        };
        self.no_port_twice(&config)?;
        self.redirection(&config)?;
        Ok(config)
    }

    fn name_part(&self, key: &str, value: String) -> Result<String, ProxyError> {
        let fits = !value.is_empty()
            && value.len() <= 253
            && value
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if fits {
            return Ok(value);
        }
        Err(self.fault(
            key,
            &value,
            "not a Kubernetes name",
            "lower-case letters, digits, dashes and dots, at most 253",
        ))
    }

    fn address(&self, key: &str, value: &str) -> Result<SocketAddr, ProxyError> {
        SocketAddr::from_str(value).map_err(|_| {
            self.fault(
                key,
                value,
                "not an address with a port",
                "write it like `127.0.0.1:8080` or `[::1]:8080`",
            )
        })
    }

    fn maybe_address(
        &self,
        key: &str,
        value: Option<String>,
    ) -> Result<Option<SocketAddr>, ProxyError> {
        value.map(|value| self.address(key, &value)).transpose()
    }

    fn host_port(&self, key: &str, value: &str) -> Result<HostPort, ProxyError> {
        HostPort::from_str(value).map_err(|why| {
            self.fault(
                key,
                value,
                why,
                "write it like `10.0.0.1:15010`, `[fd00::1]:15010` or `mesh-controller.mesh-system.svc:15010`",
            )
        })
    }

    fn spiffe_id(&self, key: &str, value: &str) -> Result<SpiffeId, ProxyError> {
        SpiffeId::parse_config(value).map_err(|error| {
            self.fault(
                key,
                value,
                error,
                "write it like `spiffe://cluster.local/ns/shop/sa/cart`",
            )
        })
    }

    fn within<T: PartialOrd + Display + Copy>(
        &self,
        key: &str,
        value: T,
        min: T,
        max: T,
    ) -> Result<T, ProxyError> {
        if value >= min && value <= max {
            return Ok(value);
        }
        Err(self.fault(key, value, "out of range", &format!("from {min} to {max}")))
    }

    fn identity_source(
        &self,
        file: IdentityFile,
        trust_domain: &TrustDomain,
    ) -> Result<IdentitySource, ProxyError> {
        match (file.workload_api, file.files, file.ca) {
            (Some(socket), None, None) if socket.starts_with("unix:/") => {
                Ok(IdentitySource::WorkloadApi(socket))
            }
            (Some(socket), None, None) => Err(self.fault(
                "identity.workloadApi",
                socket,
                "not a Unix socket",
                "write it like `unix:///run/mesh/workload-api.sock`",
            )),
            (None, Some(files), None) => Ok(IdentitySource::Files {
                chain: files.chain,
                key: files.key,
                bundle: files.bundle,
            }),
            (None, None, Some(ca)) => self.remote_ca(ca, trust_domain),
            (workload_api, files, ca) => {
                let given = [workload_api.is_some(), files.is_some(), ca.is_some()];
                let found = if given.contains(&true) {
                    "several"
                } else {
                    "empty"
                };
                Err(self.fault(
                    "identity",
                    found,
                    "one source is needed",
                    "give one of `workloadApi`, `files` and `ca`",
                ))
            }
        }
    }

    fn remote_ca(
        &self,
        file: CaFile,
        trust_domain: &TrustDomain,
    ) -> Result<IdentitySource, ProxyError> {
        let named = file
            .address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !named {
            return Err(self.fault(
                "identity.ca.address",
                &file.address,
                "not a host with a port",
                "write it like `mesh-identity.mesh-system.svc:15011`",
            ));
        }
        Ok(IdentitySource::Ca(RemoteCa {
            address: file.address,
            identity: self.spiffe_id("identity.ca.identity", &file.identity)?,
            trust_domain: trust_domain.clone(),
            token: file.token,
            bundle: file.bundle,
        }))
    }

    fn policy(&self, file: PolicyFile) -> Result<PolicySource, ProxyError> {
        match (file.controller, file.manifests) {
            (Some(_), None) if file.discovery.is_some() => Err(self.fault(
                "policy.discovery",
                "set",
                "a controller says where services are",
                "leave `discovery` out",
            )),
            (Some(controller), None) => Ok(PolicySource::Controller {
                address: self.host_port("policy.controller.address", &controller.address)?,
                identity: self.spiffe_id("policy.controller.identity", &controller.identity)?,
            }),
            (None, Some(folder)) => {
                let mode = file.default_policy.unwrap_or_else(|| "deny".to_owned());
                let default_policy = mesh_policy_index::Mode::from_str(&mode).map_err(|error| {
                    self.fault("policy.defaultPolicy", &mode, error, "one of all-authenticated, all-unauthenticated, cluster-authenticated, cluster-unauthenticated, deny, audit")
                })?;
                Ok(PolicySource::Manifests {
                    folder,
                    default_policy,
                    discovery: file.discovery,
                })
            }
            (controller, _) => {
                let found = if controller.is_some() {
                    "both"
                } else {
                    "empty"
                };
                Err(self.fault(
                    "policy",
                    found,
                    "one source is needed",
                    "give either `controller` or `manifests`",
                ))
            }
        }
    }

    fn port(&self, index: usize, file: &PortFile) -> Result<InboundPort, ProxyError> {
        let key = |part: &str| format!("inbound.ports[{index}].{part}");
        Ok(InboundPort {
            listen: self.address(&key("listen"), &file.listen)?,
            port: self.within(&key("port"), file.port, 1, u16::MAX)?,
            app: self.address(&key("app"), &file.app)?,
        })
    }

    fn outbound(&self, index: usize, file: OutboundFile) -> Result<Outbound, ProxyError> {
        let key = |part: &str| format!("outbound[{index}].{part}");
        let listen = self.address(&key("listen"), &file.listen)?;
        let target = match (file.service, file.endpoints, file.outside) {
            (None, None, Some(outside)) if file.protocol == ProtocolFile::Detect => {
                let to = self.address(&key("outside"), &outside)?;
                Target::Outside(redirect::canonical(to))
            }
            (None, None, Some(_)) => {
                return Err(self.fault(
                    &key("protocol"),
                    "opaque",
                    "policy says what has to be known of what goes outside",
                    "leave `protocol` out",
                ));
            }
            (Some(service), None, None) if file.protocol == ProtocolFile::Detect => {
                Target::Service(self.service(&key("service"), &service)?)
            }
            (Some(_), None, None) => {
                return Err(self.fault(
                    &key("protocol"),
                    "opaque",
                    "discovery says whether a service is opaque",
                    "leave `protocol` out",
                ));
            }
            (None, Some(endpoints), None) => Target::Endpoints {
                endpoints: endpoints
                    .iter()
                    .enumerate()
                    .map(|(i, endpoint)| self.endpoint(&key(&format!("endpoints[{i}]")), endpoint))
                    .collect::<Result<_, _>>()?,
                opaque: file.protocol == ProtocolFile::Opaque,
            },
            (service, endpoints, outside) => {
                let given = [service.is_some(), endpoints.is_some(), outside.is_some()];
                let found = if given.contains(&true) {
                    "several"
                } else {
                    "empty"
                };
                return Err(self.fault(
                    &key("service"),
                    found,
                    "one target is needed",
                    "give one of `service`, `endpoints` and `outside`",
                ));
            }
        };
        Ok(Outbound { listen, target })
    }

    fn service(&self, key: &str, text: &str) -> Result<ServiceName, ProxyError> {
        let parts = text.split_once('/').and_then(|(namespace, rest)| {
            let (name, port) = rest.rsplit_once(':')?;
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            (!namespace.is_empty() && !name.is_empty())
                .then(|| (namespace.to_owned(), name.to_owned(), port))
        });
        let (namespace, name, port) = parts.ok_or_else(|| {
            self.fault(
                key,
                text,
                "not a service port",
                "write it like `shop/cart:80`",
            )
        })?;
        Ok(ServiceName {
            namespace,
            name,
            port,
        })
    }

    fn endpoint(&self, key: &str, file: &EndpointFile) -> Result<Endpoint, ProxyError> {
        Ok(Endpoint {
            proxy: self.address(&format!("{key}.proxy"), &file.proxy)?,
            port: self.within(&format!("{key}.port"), file.port, 1, u16::MAX)?,
            identity: self.spiffe_id(&format!("{key}.identity"), &file.identity)?,
            workload: file.proxy.clone(),
        })
    }

    fn audit(&self, file: AuditFile) -> Result<Audit, ProxyError> {
        Ok(Audit {
            file: file.file,
            allow_sample: self.within("audit.allowSample", file.allow_sample, 0.0, 1.0)?,
            when_full: match file.when_full {
                WhenFullFile::Count => WhenFull::Count,
                WhenFullFile::Strict => WhenFull::Strict,
            },
            retention: Retention {
                age: file
                    .retain_days
                    .map(|days| self.within("audit.retainDays", days, 1, 36_500))
                    .transpose()?
                    .map(|days| Duration::from_secs(days * 86_400)),
                bytes: file
                    .retain_megabytes
                    .map(|size| self.within("audit.retainMegabytes", size, 1, 1 << 30))
                    .transpose()?
                    .map(|size| size << 20),
            },
            redactable: file.redactable,
        })
    }

    fn tap(&self, file: Option<TapFile>) -> Result<Vec<SpiffeId>, ProxyError> {
        let identities = file.map(|file| file.identities).unwrap_or_default();
        let read = identities.iter().enumerate();
        read.map(|(i, id)| self.spiffe_id(&format!("tap.identities[{i}]"), id))
            .collect()
    }

    fn traces(&self, file: TracesFile) -> Result<Traces, ProxyError> {
        let collector = match (file.service, file.endpoints, file.address) {
            (Some(service), None, None) => {
                Collector::Service(self.service("traces.service", &service)?)
            }
            (None, Some(endpoints), None) if !endpoints.is_empty() => {
                let endpoints = endpoints.iter().enumerate();
                let read =
                    endpoints.map(|(i, one)| self.endpoint(&format!("traces.endpoints[{i}]"), one));
                Collector::Endpoints(read.collect::<Result<_, _>>()?)
            }
            (None, None, Some(address)) => {
                Collector::Address(self.host_port("traces.address", &address)?)
            }
            (service, endpoints, address) => {
                let given = [service.is_some(), endpoints.is_some(), address.is_some()];
                let many = given.into_iter().filter(|given| *given).count() > 1;
                return Err(self.fault(
                    "traces",
                    if many { "several" } else { "empty" },
                    "one collector is needed",
                    "give one of `service`, `endpoints` and `address`",
                ));
            }
        };
        // Later, a value that is empty would be none, and a long one stand in every batch.
        let odd = |(key, value): &(&String, &String)| {
            [key, value]
                .iter()
                .any(|text| text.is_empty() || text.len() > ATTRIBUTE_BYTES_MAX)
        };
        if file.attributes.len() > ATTRIBUTES_MAX || file.attributes.iter().any(|one| odd(&one)) {
            return Err(self.fault(
                "traces.attributes",
                format!("{} attributes", file.attributes.len()),
                "too many, or one that is empty or too long",
                &format!(
                    "at most {ATTRIBUTES_MAX}, names and values of 1 to {ATTRIBUTE_BYTES_MAX} bytes"
                ),
            ));
        }
        Ok(Traces {
            collector,
            protocol: match file.protocol {
                OtlpFile::Grpc => OtlpProtocol::Grpc,
                OtlpFile::Http => OtlpProtocol::Http,
            },
            sample: self.within("traces.sample", file.sample, 0.0, 1.0)?,
            attributes: file.attributes,
            metrics: file
                .metrics
                .map(|metrics| {
                    let key = "traces.metrics.intervalSecs";
                    self.within(key, metrics.interval_secs, 1, limits::METRICS_SECS_MAX)
                })
                .transpose()?
                .map(Duration::from_secs),
        })
    }

    fn limits(&self, file: &LimitsFile) -> Result<Limits, ProxyError> {
        let secs = |key: &str, value: Option<u64>, default: u64| {
            self.within(key, value.unwrap_or(default), 1, 600)
                .map(Duration::from_secs)
        };
        Ok(Limits {
            handshake: secs(
                "limits.handshakeSecs",
                file.handshake_secs,
                limits::HANDSHAKE_SECS,
            )?,
            handshakes_at_once: self.within(
                "limits.handshakesAtOnce",
                file.handshakes_at_once
                    .unwrap_or(limits::HANDSHAKES_AT_ONCE),
                1,
                100_000,
            )?,
            detect: secs("limits.detectSecs", file.detect_secs, limits::DETECT_SECS)?,
            header: secs("limits.headerSecs", file.header_secs, limits::HEADER_SECS)?,
            connect: Duration::from_millis(self.within(
                "limits.connectMillis",
                file.connect_millis.unwrap_or(limits::CONNECT_MILLIS),
                1,
                60_000,
            )?),
            connections: self.within(
                "limits.connections",
                file.connections.unwrap_or(limits::CONNECTIONS),
                1,
                1_000_000,
            )?,
        })
    }

    /// Redirected connections need ports of their own, and somebody who says where they were going.
    fn redirection(&self, config: &ProxyConfig) -> Result<(), ProxyError> {
        let listeners = [
            ("inbound.transparent", config.transparent),
            ("outboundTransparent", config.outbound_transparent),
        ];
        let mut taken = vec![config.mesh.port(), config.admin.port()];
        for (key, address) in listeners {
            let Some(address) = address else { continue };
            if taken.contains(&address.port()) {
                return Err(self.fault(
                    key,
                    address,
                    "another listener of the proxy has this port",
                    "give mesh, admin and both transparent listeners ports of their own",
                ));
            }
            taken.push(address.port());
        }
        let Some(outbound) = config.outbound_transparent else {
            return Ok(());
        };
        if !outbound.ip().is_loopback() {
            return Err(self.fault(
                "outboundTransparent",
                outbound,
                "not a loopback address",
                "only the application beside the proxy may leave through it: `127.0.0.1:15001`",
            ));
        }
        if let PolicySource::Manifests {
            discovery: None, ..
        } = config.policy
        {
            return Err(self.fault(
                "outboundTransparent",
                outbound,
                "nothing says where services are",
                "give `policy.discovery` beside `policy.manifests`, or a controller",
            ));
        }
        Ok(())
    }

    fn no_port_twice(&self, config: &ProxyConfig) -> Result<(), ProxyError> {
        let mut seen = std::collections::BTreeSet::new();
        for port in &config.ports {
            if !seen.insert(port.port) {
                return Err(self.fault(
                    "inbound.ports",
                    port.port,
                    "the port is listed twice",
                    "list each port of the workload once",
                ));
            }
        }
        Ok(())
    }
}
