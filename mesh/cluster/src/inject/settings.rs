//! What the installation says about proxies, and what the annotations of a pod or namespace may change.

use super::Refusal;
use crate::install::Values;
use crate::install::values::{ProxyValues, UID_MAX, is_cpu, is_log, is_memory};
use crate::names::{INJECT, INJECTED_BY, LINKERD_CONFIG, PREFIX, ports};
use mesh_trust::TrustDomain;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// What the injector is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Image of the proxy, with its tag.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// What holds for each proxy.
    pub proxy: ProxyValues,
    /// Whether a CNI plugin redirects the traffic of pods.
    #[serde(default)]
    pub cni: bool,
}

impl From<&Values> for Settings {
    fn from(values: &Values) -> Self {
        Self {
            image: values.image_with_tag(),
            image_pull_policy: values.image.pull_policy.clone(),
            trust_domain: values.trust_domain.clone(),
            proxy: values.proxy.clone(),
            cni: values.cni.enabled,
        }
    }
}

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("the injector's settings cannot be used: {why}")]
#[diagnostic(
    code("MESH-0733"),
    help(
        "they are written by `mesh install`; see charts/mesh/templates/injector.yaml for their form"
    )
)]
pub struct SettingsError {
    why: String,
}

impl Settings {
    /// Reads YAML.
    ///
    /// # Errors
    /// [`SettingsError`] if a field is unknown, missing or not allowed.
    pub fn read(text: &str) -> Result<Self, SettingsError> {
        let error = |why: String| SettingsError { why };
        let settings: Self = serde_saphyr::from_str(text).map_err(|e| error(e.to_string()))?;
        let values = Values {
            proxy: settings.proxy.clone(),
            trust_domain: settings.trust_domain.clone(),
            ..Values::default()
        };
        values.check().map_err(|e| error(e.to_string()))?;
        if TrustDomain::parse(&settings.trust_domain).is_err() || settings.image.is_empty() {
            return Err(error("no image, or no trust domain".to_owned()));
        }
        Ok(settings)
    }
}

/// The proxy of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// User and group.
    pub uid: u32,
    /// What it logs.
    pub log_level: String,
    /// CPU and memory, set aside and allowed; empty ones are not set.
    pub resources: ProxyValues,
    /// Ports of the pod that traffic enters past the proxy.
    pub skip_inbound: Ports,
    /// Ports elsewhere that traffic goes to past the proxy.
    pub skip_outbound: Ports,
    /// Addresses and blocks of addresses that traffic goes to past the proxy, with commas between; empty for none.
    pub skip_subnets: String,
    /// Ports of UDP, of the pod and elsewhere, that datagrams reach without any policy.
    pub skip_udp: Ports,
}

/// Ports and ranges of ports, each from its first to its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Reads `8080,9000-9010`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let range = |text: &str| match text.split_once('-') {
            Some((first, last)) => Some((port(first)?, port(last)?)).filter(|(a, b)| a <= b),
            None => port(text).map(|port| (port, port)),
        };
        text.split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(range)
            .collect::<Option<_>>()
            .map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// Blocks of addresses as they are written, without spaces and empty entries; `None` if one is none.
fn subnets(text: &str) -> Option<String> {
    let fits = |block: &str| {
        let (address, bits) = block
            .split_once('/')
            .map_or((block, None), |(a, b)| (a, Some(b)));
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
    };
    let blocks: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|block| !block.is_empty())
        .collect();
    blocks
        .iter()
        .all(|block| fits(block))
        .then(|| blocks.join(","))
}

/// What settings must be.
pub(super) const CPU: &str = "CPU in cores or thousandths: `0.5`, `500m`";
pub(super) const MEMORY: &str = "bytes, with a unit or not: `64Mi`";
pub(super) const LOG: &str = "a level (`info`), or `target=level` with commas between";
pub(super) const UID: &str = "a user from 1 to 2147483647";
pub(super) const SUBNETS: &str = "addresses and blocks with commas between: `10.0.0.0/8,fd00::1`";
pub(super) const PORTS: &str = "ports and ranges with commas between: `25,9000-9010`";
pub(super) const NOT_ADMIN: &str = "ports without 15020, which goes past the proxy anyway";
pub(super) const NOT_OURS: &str = "ports without those of the proxy itself";

/// Settings of one workload that have a meaning here, by what stands behind either prefix.
pub(super) const KNOWN: &[&str] = &[
    "proxy-uid",
    "proxy-log-level",
    "proxy-cpu-request",
    "proxy-cpu-limit",
    "proxy-memory-request",
    "proxy-memory-limit",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-subnets",
    "skip-udp-ports",
];

/// Annotations that the policy engine reads (docs/reference/resources.md), and that are none of the injector's business.
pub(super) const OF_POLICY: &[&str] = &[
    "default-inbound-policy",
    "proxy-require-identity-inbound-ports",
    "require-identity-inbound-ports",
    "opaque-ports",
    "admission-webhooks",
];

/// Levels of annotations, the first that has one counts: the pod's own, then its namespace's; ours before Linkerd's.
struct Levels<'a> {
    pod: &'a BTreeMap<String, String>,
    namespace: &'a BTreeMap<String, String>,
}

impl<'a> Levels<'a> {
    /// The annotation `name` with its full key.
    fn get(&self, name: &str) -> Option<(String, &'a str)> {
        [self.pod, self.namespace].into_iter().find_map(|level| {
            [PREFIX, LINKERD_CONFIG].into_iter().find_map(|prefix| {
                let key = format!("{prefix}{name}");
                let value = level.get(&key)?;
                Some((key, value.as_str()))
            })
        })
    }

    /// The annotation, if it stands and is what it must be.
    fn checked<T>(
        &self,
        name: &str,
        what: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some((annotation, value)) = self.get(name) else {
            return Ok(None);
        };
        match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Refusal::Setting {
                annotation,
                value: value.to_owned(),
                what,
            }),
        }
    }
}

impl Settings {
    /// What holds for one pod.
    ///
    /// # Errors
    /// [`Refusal::Setting`]: a pod whose settings cannot be read would not be what its author meant.
    pub(super) fn for_pod(
        &self,
        pod: &BTreeMap<String, String>,
        namespace: &BTreeMap<String, String>,
        warnings: &mut Vec<String>,
    ) -> Result<Proxy, Refusal> {
        let levels = Levels { pod, namespace };
        let uid = |text: &str| {
            text.parse::<u32>()
                .ok()
                .filter(|uid| (1..=UID_MAX).contains(uid))
        };
        let text_if =
            |fits: fn(&str) -> bool| move |text: &str| fits(text).then(|| text.to_owned());
        let mut resources = self.proxy.clone();
        for (name, slot, what, fits) in [
            (
                "proxy-cpu-request",
                &mut resources.cpu_request,
                CPU,
                is_cpu as fn(&str) -> bool,
            ),
            ("proxy-cpu-limit", &mut resources.cpu_limit, CPU, is_cpu),
            (
                "proxy-memory-request",
                &mut resources.memory_request,
                MEMORY,
                is_memory,
            ),
            (
                "proxy-memory-limit",
                &mut resources.memory_limit,
                MEMORY,
                is_memory,
            ),
        ] {
            if let Some(value) = levels.checked(name, what, text_if(fits))? {
                *slot = value;
            }
        }
        let log_level = levels.checked("proxy-log-level", LOG, text_if(is_log))?;
        let ports = |name| {
            levels
                .checked(name, PORTS, Ports::parse)
                .map(Option::unwrap_or_default)
        };
        let proxy = Proxy {
            uid: levels
                .checked("proxy-uid", UID, uid)?
                .unwrap_or(self.proxy.uid),
            log_level: log_level.unwrap_or_else(|| self.proxy.log_level.clone()),
            resources,
            skip_inbound: ports("skip-inbound-ports")?,
            skip_outbound: ports("skip-outbound-ports")?,
            skip_subnets: levels
                .checked("skip-subnets", SUBNETS, subnets)?
                .unwrap_or_default(),
            skip_udp: ports("skip-udp-ports")?,
        };
        if let Some(port) = ports::PROXY
            .iter()
            .find(|port| proxy.skip_inbound.contains(**port))
        {
            return Err(Refusal::Setting {
                annotation: format!("{PREFIX}skip-inbound-ports"),
                value: proxy.skip_inbound.to_string(),
                what: if *port == ports::ADMIN {
                    NOT_ADMIN
                } else {
                    NOT_OURS
                },
            });
        }
        warn_of_gaps(&proxy, warnings);
        warn_of_unknown(pod, warnings);
        Ok(proxy)
    }
}

/// Codes of what is reported and refuses nothing.
pub(super) const UNKNOWN: &str = "MESH-0737";
const GAP: &str = "MESH-0738";

pub(super) fn warn_of_gaps(proxy: &Proxy, warnings: &mut Vec<String>) {
    if !proxy.skip_inbound.is_empty() {
        warnings.push(format!(
            "{GAP}: traffic to ports {} enters past the proxy: without identity, policy and record",
            proxy.skip_inbound
        ));
    }
    if !proxy.skip_outbound.is_empty() {
        warnings.push(format!(
            "{GAP}: traffic to ports {} leaves past the proxy, in plain",
            proxy.skip_outbound
        ));
    }
    if !proxy.skip_subnets.is_empty() {
        warnings.push(format!(
            "{GAP}: traffic to {} leaves past the proxy, in plain",
            proxy.skip_subnets
        ));
    }
    if !proxy.skip_udp.is_empty() {
        warnings.push(format!(
            "{GAP}: datagrams at ports {} enter and leave without identity, policy and record",
            proxy.skip_udp
        ));
    }
}

/// Annotations of the pod with our prefixes that nobody reads: a typing error, or a setting of Linkerd without a meaning here.
fn warn_of_unknown(pod: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
    for key in pod.keys() {
        let (name, linkerd) = match (key.strip_prefix(PREFIX), key.strip_prefix(LINKERD_CONFIG)) {
            (Some(name), _) => (name, false),
            (_, Some(name)) => (name, true),
            _ => continue,
        };
        let ours = [INJECT, INJECTED_BY].contains(&key.as_str());
        if ours || KNOWN.contains(&name) || OF_POLICY.contains(&name) {
            continue;
        }
        warnings.push(unknown(key, linkerd));
    }
}

/// What is said of an annotation that nobody reads.
pub(super) fn unknown(key: &str, linkerd: bool) -> String {
    if linkerd {
        format!("{UNKNOWN}: the annotation `{key}` has no meaning in this mesh")
    } else {
        format!("{UNKNOWN}: the annotation `{key}` is not known, and does nothing")
    }
}
