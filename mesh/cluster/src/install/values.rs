//! What can be set about an installation: the values of the chart.

mod forms;

use crate::names::PROXY_UID;
use forms::{
    is_bundle_name, is_cidr, is_duration, is_file_name, is_host_port, is_image, is_label, is_name,
    is_path, is_service_port, is_share, is_tag, is_variable, is_whole_image,
};
pub(crate) use forms::{is_cpu, is_log, is_memory};
use mesh_policy_index::Mode;
use mesh_trust::TrustDomain;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The chart's values with their reasons.
pub const DEFAULTS: &str = include_str!("../../../../charts/mesh/values.yaml");

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Values {
    /// Whether the namespace is among the objects.
    pub create_namespace: bool,
    /// The image of all parts.
    pub image: Image,
    /// First part of all SPIFFE IDs.
    pub trust_domain: String,
    /// Default policy of the cluster.
    pub default_policy: String,
    /// Three replicas of each part.
    pub high_availability: bool,
    /// What the control plane logs.
    pub log_level: String,
    /// Priority of the control plane's pods; empty for none.
    pub priority_class_name: String,
    /// What holds for the CA.
    pub identity: IdentityValues,
    /// What holds for each proxy.
    pub proxy: ProxyValues,
    /// What holds for the injection.
    pub injector: InjectorValues,
    /// Who redirects the traffic of pods.
    pub cni: CniValues,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    /// Registry and repository.
    pub name: String,
    /// Tag; empty for the chart's version.
    pub tag: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

/// What holds for each proxy unless a pod's annotations say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyValues {
    /// User and group.
    pub uid: u32,
    /// What it logs.
    pub log_level: String,
    /// CPU that is set aside; empty for none.
    pub cpu_request: String,
    /// CPU that it may use; empty for no limit.
    pub cpu_limit: String,
    /// Memory that is set aside.
    pub memory_request: String,
    /// Memory that it may use.
    pub memory_limit: String,
    /// `namespace/name:port` of the collector in the mesh that gets spans; empty for none.
    pub traces_service: String,
    /// Host and port of a collector outside of it; empty for none.
    pub traces_address: String,
    /// `grpc` or `http`.
    pub traces_protocol: String,
    /// Share of requests without a trace for which one begins.
    pub traces_sample: String,
    /// Seconds from one push of metrics to that collector to the next; 0: it gets none.
    pub metrics_interval_secs: u32,
}

/// What holds for the CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IdentityValues {
    /// PersistentVolumeClaim of its keys that is there already.
    pub claim: String,
    /// Whether one is among the objects; without any, keys live as long as the pod.
    pub make_claim: bool,
    /// Its size.
    pub storage: String,
    /// Its StorageClass; empty for the cluster's default.
    pub storage_class: String,
    /// Secret in which others keep the issuer; empty: root and issuer are the CA's own.
    pub issuer_secret: String,
    /// ConfigMap of the roots to trust; empty: `ca.crt` of that Secret.
    pub roots_config_map: String,
    /// ClusterTrustBundle of the roots to trust, in place of that ConfigMap.
    pub roots_trust_bundle: String,
    /// Life of SVIDs.
    pub svid_ttl: String,
    /// Whether cert-manager's requests that name a mesh issuer are answered.
    pub external_issuer: bool,
    /// Keys in a token.
    pub pkcs11: Pkcs11Values,
    /// Our bundle for other trust domains.
    pub bundle_endpoint: BundleEndpointValues,
}

/// A PKCS #11 token in which the CA's keys lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pkcs11Values {
    /// The vendor's module in the CA's container; empty: keys lie in files.
    pub module: String,
    /// Label of the token.
    pub token: String,
    /// Label of keys that are made in it.
    pub key: String,
    /// Secret whose key `pin` is the user PIN.
    pub pin_secret: String,
    /// Image of the CA with its tag; empty for that of all parts.
    pub image: String,
    /// Secret with files that the module reads; empty for none.
    pub config_secret: String,
    /// Variable of the environment that says where they are; empty for none.
    pub config_variable: String,
    /// The one of them that it names; empty for their folder.
    pub config_file: String,
    /// Folder that the module writes; empty for none.
    pub files: String,
    /// TCP port of the token; 0: it is not reached over the network.
    pub port: u16,
    /// Its addresses; empty for any.
    pub cidr: String,
}

/// Where the trust bundle is served to other trust domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BundleEndpointValues {
    /// Whether it is.
    pub enabled: bool,
    /// Type of its Service.
    pub service_type: String,
    /// Secret with a certificate of the Web; empty: the endpoint shows an SVID.
    pub certificate_secret: String,
    /// How often others are asked to fetch.
    pub refresh: String,
}

impl Default for Pkcs11Values {
    fn default() -> Self {
        Self {
            module: String::new(),
            token: String::new(),
            key: "mesh-ca".to_owned(),
            pin_secret: String::new(),
            image: String::new(),
            config_secret: String::new(),
            config_variable: String::new(),
            config_file: String::new(),
            files: String::new(),
            port: 0,
            cidr: String::new(),
        }
    }
}

impl Default for BundleEndpointValues {
    fn default() -> Self {
        Self {
            enabled: false,
            service_type: "ClusterIP".to_owned(),
            certificate_secret: String::new(),
            refresh: "5m".to_owned(),
        }
    }
}

impl Default for IdentityValues {
    fn default() -> Self {
        Self {
            claim: String::new(),
            make_claim: true,
            storage: "1Gi".to_owned(),
            storage_class: String::new(),
            issuer_secret: String::new(),
            roots_config_map: String::new(),
            roots_trust_bundle: String::new(),
            svid_ttl: "24h".to_owned(),
            external_issuer: false,
            pkcs11: Pkcs11Values::default(),
            bundle_endpoint: BundleEndpointValues::default(),
        }
    }
}

/// What holds for the injection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectorValues {
    /// Who adds proxies to pods: `webhook`, or `policy` of the API server.
    pub by: String,
    /// `Fail` or `Ignore`.
    pub failure_policy: String,
}

/// The CNI plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CniValues {
    /// Whether it redirects the traffic of pods, in place of an init container with rights.
    pub enabled: bool,
    /// The nodes' folder of plugins.
    pub bin_dir: String,
    /// The nodes' folder of network configurations.
    pub conf_dir: String,
}

impl Default for CniValues {
    fn default() -> Self {
        Self {
            enabled: false,
            bin_dir: "/opt/cni/bin".to_owned(),
            conf_dir: "/etc/cni/net.d".to_owned(),
        }
    }
}

/// An injector of ours adds proxies.
pub const BY_WEBHOOK: &str = "webhook";

/// The API server adds them, by admission policies.
pub const BY_POLICY: &str = "policy";

impl Default for Values {
    fn default() -> Self {
        Self {
            create_namespace: true,
            image: Image::default(),
            trust_domain: "cluster.local".to_owned(),
            default_policy: "deny".to_owned(),
            high_availability: false,
            log_level: "info".to_owned(),
            priority_class_name: "system-cluster-critical".to_owned(),
            identity: IdentityValues::default(),
            proxy: ProxyValues::default(),
            injector: InjectorValues::default(),
            cni: CniValues::default(),
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self {
            name: "localhost/mesh".to_owned(),
            tag: String::new(),
            pull_policy: "IfNotPresent".to_owned(),
        }
    }
}

impl Default for ProxyValues {
    fn default() -> Self {
        Self {
            uid: PROXY_UID,
            log_level: "warn".to_owned(),
            cpu_request: "10m".to_owned(),
            cpu_limit: String::new(),
            memory_request: "16Mi".to_owned(),
            memory_limit: String::new(),
            traces_service: String::new(),
            traces_address: String::new(),
            traces_protocol: "grpc".to_owned(),
            traces_sample: "0.01".to_owned(),
            metrics_interval_secs: 0,
        }
    }
}

impl Default for InjectorValues {
    fn default() -> Self {
        Self {
            by: BY_WEBHOOK.to_owned(),
            failure_policy: "Fail".to_owned(),
        }
    }
}

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum ValuesError {
    /// No such value, or of another type.
    #[error("the values cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0730"),
        help("the values are those of charts/mesh/values.yaml: `mesh install --values`")
    )]
    Unreadable {
        /// What is wrong.
        why: String,
    },
    /// Not allowed there.
    #[error("`{key}: {value}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0731"),
        help("`mesh install --values` prints what each value may be")
    )]
    NotAllowed {
        /// The value's key.
        key: &'static str,
        /// What was set.
        value: String,
        /// What it may be.
        why: &'static str,
    },
}

impl Values {
    /// Reads YAML; what does not stand is as in [`DEFAULTS`].
    ///
    /// # Errors
    /// [`ValuesError`]
    pub fn read(text: &str) -> Result<Self, ValuesError> {
        let values: Self = serde_saphyr::from_str(text).map_err(unreadable)?;
        values.check()?;
        Ok(values)
    }

    /// The same with `key=value` set, as `helm --set` does: keys with dots, numbers and booleans as such.
    ///
    /// # Errors
    /// [`ValuesError`]
    pub fn set(self, assignment: &str) -> Result<Self, ValuesError> {
        self.set_all(&[assignment])
    }

    /// The same with several of them, the last of which counts: what they are together is checked, not on the way.
    ///
    /// # Errors
    /// [`ValuesError`]
    pub fn set_all<T: AsRef<str>>(self, assignments: &[T]) -> Result<Self, ValuesError> {
        let values = assignments.iter().try_fold(self, |values, assignment| {
            values.set_unchecked(assignment.as_ref())
        })?;
        values.check()?;
        Ok(values)
    }

    fn set_unchecked(self, assignment: &str) -> Result<Self, ValuesError> {
        let (key, text) = assignment
            .split_once('=')
            .ok_or_else(|| ValuesError::Unreadable {
                why: format!("`{assignment}` is no `key=value`"),
            })?;
        let mut json = self.to_json();
        let mut slot = Some(&mut json);
        for part in key.split('.') {
            slot = slot.and_then(|value| value.get_mut(part));
        }
        let Some(slot) = slot.filter(|slot| !slot.is_object()) else {
            let why = format!("there is no value `{key}`");
            return Err(ValuesError::Unreadable { why });
        };
        // The type that stands there decides: a tag of `1.30` stays text.
        *slot = match slot {
            Value::String(_) => Value::from(text),
            _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        serde_json::from_value(json).map_err(|error| ValuesError::Unreadable {
            why: format!("`{key}`: {error}"),
        })
    }

    /// The values as JSON, all of them.
    pub fn to_json(&self) -> Value {
        // Strings, numbers and booleans always have a JSON form.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The image with its tag.
    pub fn image_with_tag(&self) -> String {
        let tag = match self.image.tag.as_str() {
            "" => super::VERSION,
            tag => tag,
        };
        format!("{}:{tag}", self.image.name)
    }

    /// Whether all values may be what they are. charts/mesh/values.schema.json tells Helm the same.
    ///
    /// # Errors
    /// [`ValuesError::NotAllowed`] with the first that may not.
    pub fn check(&self) -> Result<(), ValuesError> {
        const LOG: &str = "a level (`info`), or `target=level` with commas between";
        const CPU: &str = "CPU in cores or thousandths: `0.5`, `500m`";
        const MEMORY: &str = "bytes, with a unit or not: `64Mi`";
        const FOLDER: &str = "an absolute path of letters, digits, `.`, `_`, `-`, `+`";
        let proxy = &self.proxy;
        let identity = &self.identity;
        let checks: [Check<'_>; 27] = [
            (
                "image.name",
                &self.image.name,
                is_image(&self.image.name),
                "registry and repository, lower case, without tag",
            ),
            (
                "image.tag",
                &self.image.tag,
                is_tag(&self.image.tag),
                "letters, digits, `.`, `_`, `-`",
            ),
            (
                "image.pullPolicy",
                &self.image.pull_policy,
                ["Always", "IfNotPresent", "Never"].contains(&self.image.pull_policy.as_str()),
                "one of Always, IfNotPresent, Never",
            ),
            (
                "trustDomain",
                &self.trust_domain,
                TrustDomain::parse(&self.trust_domain).is_ok(),
                "lower-case letters, digits, `.`, `-`, `_`",
            ),
            (
                "defaultPolicy",
                &self.default_policy,
                self.default_policy.parse::<Mode>().is_ok(),
                "one of deny, all-authenticated, all-unauthenticated, cluster-authenticated, cluster-unauthenticated, audit",
            ),
            ("logLevel", &self.log_level, is_log(&self.log_level), LOG),
            (
                "priorityClassName",
                &self.priority_class_name,
                is_name(&self.priority_class_name),
                "the name of a PriorityClass, or nothing",
            ),
            (
                "identity.claim",
                &self.identity.claim,
                is_name(&self.identity.claim),
                "the name of a PersistentVolumeClaim, or nothing",
            ),
            (
                "identity.storage",
                &identity.storage,
                !identity.storage.is_empty() && is_memory(&identity.storage),
                MEMORY,
            ),
            (
                "identity.storageClass",
                &identity.storage_class,
                is_name(&identity.storage_class),
                "the name of a StorageClass, or nothing",
            ),
            (
                "identity.issuerSecret",
                &identity.issuer_secret,
                is_name(&identity.issuer_secret),
                "the name of a Secret of mesh-system, or nothing",
            ),
            (
                "identity.rootsConfigMap",
                &identity.roots_config_map,
                is_name(&identity.roots_config_map),
                "the name of a ConfigMap of mesh-system, or nothing",
            ),
            (
                "identity.rootsTrustBundle",
                &identity.roots_trust_bundle,
                is_bundle_name(&identity.roots_trust_bundle),
                "the name of a ClusterTrustBundle that is not our own, or nothing",
            ),
            (
                "identity.svidTtl",
                &identity.svid_ttl,
                is_duration(&identity.svid_ttl),
                "numbers with units: `24h`, `1h30m`",
            ),
            (
                "proxy.logLevel",
                &proxy.log_level,
                is_log(&proxy.log_level),
                LOG,
            ),
            (
                "proxy.cpuRequest",
                &proxy.cpu_request,
                is_cpu(&proxy.cpu_request),
                CPU,
            ),
            (
                "proxy.cpuLimit",
                &proxy.cpu_limit,
                is_cpu(&proxy.cpu_limit),
                CPU,
            ),
            (
                "proxy.memoryRequest",
                &proxy.memory_request,
                is_memory(&proxy.memory_request),
                MEMORY,
            ),
            (
                "proxy.memoryLimit",
                &proxy.memory_limit,
                is_memory(&proxy.memory_limit),
                MEMORY,
            ),
            (
                "proxy.tracesService",
                &proxy.traces_service,
                proxy.traces_service.is_empty() || is_service_port(&proxy.traces_service),
                "a service with its port, `observability/collector:4317`, or nothing",
            ),
            (
                "proxy.tracesAddress",
                &proxy.traces_address,
                proxy.traces_address.is_empty() || is_host_port(&proxy.traces_address),
                "a host with its port, `collector.example:4317`, or nothing",
            ),
            (
                "proxy.tracesProtocol",
                &proxy.traces_protocol,
                ["grpc", "http"].contains(&proxy.traces_protocol.as_str()),
                "grpc or http",
            ),
            (
                "proxy.tracesSample",
                &proxy.traces_sample,
                is_share(&proxy.traces_sample),
                "a number from 0 to 1",
            ),
            (
                "injector.by",
                &self.injector.by,
                [BY_WEBHOOK, BY_POLICY].contains(&self.injector.by.as_str()),
                "webhook or policy",
            ),
            (
                "injector.failurePolicy",
                &self.injector.failure_policy,
                ["Fail", "Ignore"].contains(&self.injector.failure_policy.as_str()),
                "Fail or Ignore",
            ),
            (
                "cni.binDir",
                &self.cni.bin_dir,
                is_path(&self.cni.bin_dir),
                FOLDER,
            ),
            (
                "cni.confDir",
                &self.cni.conf_dir,
                is_path(&self.cni.conf_dir),
                FOLDER,
            ),
        ];
        refuse_first(&checks)?;
        if !identity.roots_config_map.is_empty() && identity.issuer_secret.is_empty() {
            return Err(ValuesError::NotAllowed {
                key: "identity.rootsConfigMap",
                value: identity.roots_config_map.clone(),
                why: "nothing without `identity.issuerSecret`: the CA's own root is not in it",
            });
        }
        if !identity.roots_trust_bundle.is_empty()
            && (identity.issuer_secret.is_empty() || !identity.roots_config_map.is_empty())
        {
            return Err(ValuesError::NotAllowed {
                key: "identity.rootsTrustBundle",
                value: identity.roots_trust_bundle.clone(),
                why: "nothing without `identity.issuerSecret`, nor beside `identity.rootsConfigMap`",
            });
        }
        if !proxy.traces_service.is_empty() && !proxy.traces_address.is_empty() {
            return Err(ValuesError::NotAllowed {
                key: "proxy.tracesAddress",
                value: proxy.traces_address.clone(),
                why: "nothing beside `proxy.tracesService`: spans go to one collector",
            });
        }
        let interval = proxy.metrics_interval_secs;
        let nobody = proxy.traces_service.is_empty() && proxy.traces_address.is_empty();
        if interval > METRICS_SECS_MAX || (interval > 0 && nobody) {
            return Err(ValuesError::NotAllowed {
                key: "proxy.metricsIntervalSecs",
                value: interval.to_string(),
                why: "0, or up to 3600 beside `proxy.tracesService` or `proxy.tracesAddress`: the collector that gets them",
            });
        }
        if self.injector.by == BY_POLICY && self.injector.failure_policy != "Fail" {
            return Err(ValuesError::NotAllowed {
                key: "injector.failurePolicy",
                value: self.injector.failure_policy.clone(),
                why: "Fail beside `injector.by: policy`: an API server that answers has its policies",
            });
        }
        if self.injector.by == BY_POLICY && self.cni.enabled {
            return Err(ValuesError::NotAllowed {
                key: "cni.enabled",
                value: "true".to_owned(),
                why: "false beside `injector.by: policy`, whose pods redirect their traffic themselves",
            });
        }
        if self.injector.by == BY_POLICY && interval > 0 {
            return Err(ValuesError::NotAllowed {
                key: "proxy.metricsIntervalSecs",
                value: interval.to_string(),
                why: "0 beside `injector.by: policy`, which does not write it for proxies",
            });
        }
        identity.pkcs11.check()?;
        identity.bundle_endpoint.check()?;
        if proxy.uid == 0 || proxy.uid > UID_MAX {
            return Err(ValuesError::NotAllowed {
                key: "proxy.uid",
                value: proxy.uid.to_string(),
                why: "a user from 1 to 2147483647: root's traffic is the applications'",
            });
        }
        Ok(())
    }
}

impl Pkcs11Values {
    fn check(&self) -> Result<(), ValuesError> {
        const PATH: &str = "an absolute path of letters, digits, `.`, `_`, `-`, `+`, or nothing";
        const LABEL: &str = "1 to 32 letters, digits, spaces, `.`, `_`, `-`";
        const SECRET: &str = "the name of a Secret of mesh-system, or nothing";
        let optional = |text: &str, fits: fn(&str) -> bool| text.is_empty() || fits(text);
        let checks: [Check<'_>; 10] = [
            (
                "identity.pkcs11.module",
                &self.module,
                optional(&self.module, is_path),
                PATH,
            ),
            (
                "identity.pkcs11.token",
                &self.token,
                optional(&self.token, is_label),
                LABEL,
            ),
            ("identity.pkcs11.key", &self.key, is_label(&self.key), LABEL),
            (
                "identity.pkcs11.pinSecret",
                &self.pin_secret,
                is_name(&self.pin_secret),
                SECRET,
            ),
            (
                "identity.pkcs11.image",
                &self.image,
                optional(&self.image, is_whole_image),
                "registry and repository with tag or digest, or nothing",
            ),
            (
                "identity.pkcs11.configSecret",
                &self.config_secret,
                is_name(&self.config_secret),
                SECRET,
            ),
            (
                "identity.pkcs11.configVariable",
                &self.config_variable,
                optional(&self.config_variable, is_variable),
                "the name of a variable, or nothing",
            ),
            (
                "identity.pkcs11.configFile",
                &self.config_file,
                optional(&self.config_file, is_file_name),
                "a key of that Secret, or nothing",
            ),
            (
                "identity.pkcs11.files",
                &self.files,
                optional(&self.files, is_path),
                PATH,
            ),
            (
                "identity.pkcs11.cidr",
                &self.cidr,
                optional(&self.cidr, is_cidr),
                "addresses as CIDR, `10.1.2.3/32`, or nothing",
            ),
        ];
        refuse_first(&checks)?;
        let alone = |key, value: &str, why| {
            Err(ValuesError::NotAllowed {
                key,
                value: value.to_owned(),
                why,
            })
        };
        if !self.module.is_empty() && (self.token.is_empty() || self.pin_secret.is_empty()) {
            let why = "nothing without `identity.pkcs11.token` and `identity.pkcs11.pinSecret`";
            return alone("identity.pkcs11.module", &self.module, why);
        }
        if self.module.is_empty() && *self != Self::default() {
            let why = "what every other value of `identity.pkcs11` needs: without it keys would lie in files";
            return alone("identity.pkcs11.module", "", why);
        }
        if self.config_secret.is_empty()
            && !(self.config_variable.is_empty() && self.config_file.is_empty())
        {
            let why = "what `configVariable` and `configFile` speak of";
            return alone("identity.pkcs11.configSecret", "", why);
        }
        if !self.config_file.is_empty() && self.config_variable.is_empty() {
            let why = "nothing without `configVariable`, which names it";
            return alone("identity.pkcs11.configFile", &self.config_file, why);
        }
        if !self.cidr.is_empty() && self.port == 0 {
            let why = "nothing without `identity.pkcs11.port`";
            return alone("identity.pkcs11.cidr", &self.cidr, why);
        }
        Ok(())
    }
}

impl BundleEndpointValues {
    fn check(&self) -> Result<(), ValuesError> {
        refuse_first(&[
            (
                "identity.bundleEndpoint.serviceType",
                &self.service_type,
                ["ClusterIP", "NodePort", "LoadBalancer"].contains(&self.service_type.as_str()),
                "one of ClusterIP, NodePort, LoadBalancer",
            ),
            (
                "identity.bundleEndpoint.certificateSecret",
                &self.certificate_secret,
                is_name(&self.certificate_secret),
                "the name of a Secret of mesh-system, or nothing",
            ),
            (
                "identity.bundleEndpoint.refresh",
                &self.refresh,
                is_duration(&self.refresh),
                "numbers with units: `5m`, `1h30m`",
            ),
        ])?;
        if !self.enabled && *self != Self::default() {
            return Err(ValuesError::NotAllowed {
                key: "identity.bundleEndpoint.enabled",
                value: "false".to_owned(),
                why: "true, if anything is said of the endpoint",
            });
        }
        Ok(())
    }
}

/// Key, value, whether it fits, and what would.
type Check<'a> = (&'static str, &'a str, bool, &'static str);

/// The first that does not fit.
fn refuse_first(checks: &[Check<'_>]) -> Result<(), ValuesError> {
    match checks.iter().find(|(_, _, fits, _)| !fits) {
        None => Ok(()),
        Some((key, value, _, why)) => Err(ValuesError::NotAllowed {
            key,
            value: (*value).to_owned(),
            why,
        }),
    }
}

/// Largest user that Kubernetes takes.
pub(crate) const UID_MAX: u32 = 2_147_483_647;
/// As a proxy has it.
const METRICS_SECS_MAX: u32 = 3_600;

fn unreadable(error: impl std::fmt::Display) -> ValuesError {
    ValuesError::Unreadable {
        why: error.to_string(),
    }
}
