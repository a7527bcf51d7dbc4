//! Workloads: pods, and one pod that stands for each template that has none yet.

use super::annotations::{
    DEFAULT_POLICY, OPAQUE_PORTS, REQUIRE_IDENTITY, Said, Setting, default_policy,
};
use super::ports::PortSet;
use super::{Index, IndexConfig, NamespaceDefaults};
use crate::Mode;
use crate::finding::Code;
use crate::limits::LISTED_PORTS_MAX;
use crate::manifest::resource::{Key, Object, OtherPort, Pod, PortRef, Probe, Resources, Template};
use crate::map::{HashMap, HashSet};
use mesh_policy::snapshot::{Finding, ObjectRef, Source, WorkloadInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Which workload: namespace and pod, or the workload whose template stands for its pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A workload with its defaults settled.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) key: WorkloadKey,
    pub(crate) info: WorkloadInfo,
    /// Kind of its object: `Pod`, or that of the template.
    pub(crate) kind: &'static str,
    /// Name of its object.
    pub(crate) object_name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) pod: Pod,
    /// Why it denies everything, if so.
    pub(crate) invalid: Option<String>,
    pub(crate) mode: Mode,
    /// Where the default policy comes from.
    pub(crate) mode_source: Source,
    pub(crate) require_identity: Listed,
    pub(crate) opaque: Listed,
}

/// Ports that an annotation lists, with the rule for wide lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    ports: BTreeSet<u16>,
    every: bool,
}

impl Listed {
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.every || self.ports.contains(&port)
    }

    /// Whether ports that nobody names are treated as listed: then they need no policy each.
    pub(crate) fn covers_others(&self) -> bool {
        self.every || self.ports.len() > LISTED_PORTS_MAX
    }

    /// The ports that need a policy of their own.
    pub(crate) fn single(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().copied().filter(|_| !self.covers_others())
    }
}

impl Workload {
    /// Its object, for findings.
    pub(crate) fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.to_owned(),
            namespace: self.key.namespace.clone(),
            name: self.object_name.clone(),
            source: self.info.source.clone(),
        }
    }

    /// Ports of this pod that a Server's `port` selects.
    pub(crate) fn ports_of(&self, port: &PortRef) -> BTreeSet<u16> {
        match port {
            PortRef::Number(number) => BTreeSet::from([*number]),
            PortRef::Name(name) => self
                .pod
                .ports
                .iter()
                .filter(|p| p.name.as_ref() == Some(name))
                .map(|p| p.port)
                .collect(),
        }
    }

    /// A declared port that is not of TCP, and that a reference means too.
    pub(crate) fn other_port(&self, port: &PortRef) -> Option<&OtherPort> {
        let mut ports = self.pod.other_ports.iter();
        ports.find(|other| match port {
            PortRef::Number(number) => other.port == *number,
            PortRef::Name(name) => other.name.as_ref() == Some(name),
        })
    }

    /// The port of a probe, looked up in the probe's own container.
    pub(crate) fn probe_port(&self, probe: &Probe) -> Option<u16> {
        match &probe.port {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => {
                let mut ports = self
                    .pod
                    .ports
                    .iter()
                    .filter(|p| p.container == probe.container);
                ports
                    .find(|p| p.name.as_ref() == Some(name))
                    .map(|p| p.port)
            }
        }
    }
}

/// All workloads, sorted by key; keys are unique.
pub(crate) fn collect(
    resources: &Resources,
    namespaces: &HashMap<String, NamespaceDefaults>,
    config: &IndexConfig,
    findings: &mut Vec<Finding>,
) -> Vec<Workload> {
    let everywhere = resources.closed.iter().find(|c| c.namespace.is_none());
    let everywhere = everywhere.map(|c| (c.why.clone(), c.source.clone()));
    let mut builder = Builder {
        namespaces,
        config,
        everywhere,
        findings,
    };
    let owners = Owners::of(resources);
    let mut out: BTreeMap<WorkloadKey, Workload> = BTreeMap::new();
    for pod in &resources.pods {
        let owner = owners.of_pod(pod);
        let workload = builder.workload(pod, owner, &pod.labels, &pod.annotations, &pod.spec);
        // Of two pods of one name both are invalid; either denies everything.
        out.insert(workload.key.clone(), workload);
    }
    let owned: HashSet<(String, Option<String>)> = out
        .values()
        .map(|w| (w.key.namespace.clone(), w.info.owner.clone()))
        .collect();
    let names = template_names(&resources.templates);
    for template in &resources.templates {
        let owner = owners.of_template(template);
        let title = format!("{}/{}", template.kind, template.key.name);
        if owner != title || owned.contains(&(template.key.namespace.clone(), Some(title.clone())))
        {
            continue;
        }
        let spec = &template.spec;
        let mut workload = builder.workload(
            template,
            Some(owner),
            &spec.labels,
            &spec.annotations,
            &spec.pod,
        );
        if out.contains_key(&workload.key) || names.get(&template.key).is_some_and(|n| *n > 1) {
            workload.key.name = format!(
                "{}.{}",
                template.kind.to_ascii_lowercase(),
                template.key.name
            );
            workload.info.name.clone_from(&workload.key.name);
        }
        out.insert(workload.key.clone(), workload);
    }
    out.into_values().collect()
}

/// How many kinds of template share a name.
fn template_names(templates: &[Arc<Object<Template>>]) -> HashMap<Key, usize> {
    let mut kinds: HashMap<Key, BTreeSet<&str>> = HashMap::default();
    for template in templates {
        kinds
            .entry(template.key.clone())
            .or_default()
            .insert(template.kind);
    }
    kinds
        .into_iter()
        .map(|(key, kinds)| (key, kinds.len()))
        .collect()
}

/// Workloads by namespace and bare name of their owner.
pub(crate) fn by_owner(workloads: &[Workload]) -> HashMap<Key, Vec<usize>> {
    let mut out: HashMap<Key, Vec<usize>> = HashMap::default();
    for (number, workload) in workloads.iter().enumerate() {
        let name = workload
            .info
            .owner
            .as_deref()
            .and_then(|o| o.split_once('/'))
            .map(|(_, name)| name);
        if let Some(name) = name {
            out.entry(Key::new(&workload.key.namespace, name))
                .or_default()
                .push(number);
        }
    }
    out
}

/// Pods by their addresses. Those in the network of their node stand for it, and have none of their own.
pub(crate) fn by_address(workloads: &[Workload]) -> HashMap<IpAddr, usize> {
    let pods = workloads.iter().enumerate();
    let pods = pods.filter(|(_, workload)| workload.kind == "Pod");
    pods.flat_map(|(at, workload)| {
        let own = workload.info.ips.iter();
        let own = own.filter(|ip| !workload.pod.host_ips.contains(ip));
        own.map(move |ip| (*ip, at))
    })
    .collect()
}

/// Workloads by namespace.
pub(crate) fn by_namespace(workloads: &[Workload]) -> HashMap<String, Vec<usize>> {
    let mut out: HashMap<String, Vec<usize>> = HashMap::default();
    for (number, workload) in workloads.iter().enumerate() {
        out.entry(workload.key.namespace.clone())
            .or_default()
            .push(number);
    }
    out
}

/// Who owns whom: a ReplicaSet belongs to its Deployment, a Job to its CronJob.
struct Owners {
    templates: HashMap<(String, String, String), (String, String)>,
}

impl Owners {
    fn of(resources: &Resources) -> Self {
        let mut templates = HashMap::default();
        for template in &resources.templates {
            if let Some(owner) = template.owners.first() {
                let key = (
                    template.key.namespace.clone(),
                    template.kind.to_owned(),
                    template.key.name.clone(),
                );
                templates.insert(key, owner.clone());
            }
        }
        Self { templates }
    }

    fn of_pod(&self, pod: &Object<Pod>) -> Option<String> {
        let (kind, name) = pod.owners.first()?;
        let key = (pod.key.namespace.clone(), kind.clone(), name.clone());
        if let Some((kind, name)) = self.templates.get(&key) {
            return Some(format!("{kind}/{name}"));
        }
        let hash = pod.labels.get("pod-template-hash");
        if kind == "ReplicaSet"
            && let Some(deployment) = hash
                .and_then(|h| name.strip_suffix(h.as_str()))
                .and_then(|n| n.strip_suffix('-'))
        {
            return Some(format!("Deployment/{deployment}"));
        }
        Some(format!("{kind}/{name}"))
    }

    fn of_template(&self, template: &Object<Template>) -> String {
        let key = (
            template.key.namespace.clone(),
            template.kind.to_owned(),
            template.key.name.clone(),
        );
        let own = (template.kind.to_owned(), template.key.name.clone());
        let (kind, name) = self.templates.get(&key).unwrap_or(&own);
        format!("{kind}/{name}")
    }
}

struct Builder<'a> {
    namespaces: &'a HashMap<String, NamespaceDefaults>,
    config: &'a IndexConfig,
    /// Why every namespace is closed, if so.
    everywhere: Option<(String, Source)>,
    findings: &'a mut Vec<Finding>,
}

/// What the workload's own annotations say about a setting, else those of its namespace; and whether its own do.
fn said<'a>(
    namespaces: &'a HashMap<String, NamespaceDefaults>,
    setting: Setting,
    namespace: &str,
    own: &'a BTreeMap<String, String>,
) -> Option<(Said<'a>, bool)> {
    let from_own = setting.said(own).map(|said| (said, true));
    from_own.or_else(|| {
        let said = setting.said(&namespaces.get(namespace)?.annotations);
        said.map(|said| (said, false))
    })
}

impl Builder<'_> {
    fn workload<T>(
        &mut self,
        object: &Object<T>,
        owner: Option<String>,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        pod: &Pod,
    ) -> Workload {
        let key = WorkloadKey {
            namespace: object.key.namespace.clone(),
            name: object.key.name.clone(),
        };
        let (mode, mode_source) = self.mode(object, annotations);
        let require_identity = self.require_identity(object, annotations, pod);
        let opaque = self.opaque(object, annotations, pod);
        let service_account = if pod.service_account.is_empty() {
            "default"
        } else {
            &pod.service_account
        };
        let info = WorkloadInfo {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            owner,
            service_account: service_account.to_owned(),
            ips: pod.ips.clone(),
            node_ip: pod.host_ips.first().copied(),
            source: object.source.clone(),
        };
        Workload {
            key,
            info,
            kind: object.kind,
            object_name: object.key.name.clone(),
            labels: labels.clone(),
            pod: pod.clone(),
            invalid: object.invalid.clone(),
            mode,
            mode_source,
            require_identity,
            opaque,
        }
    }

    /// The default policy: closed namespace, else pod, else namespace, else cluster. What is invalid or contradicts
    /// itself is `deny`.
    fn mode<T>(
        &mut self,
        object: &Object<T>,
        annotations: &BTreeMap<String, String>,
    ) -> (Mode, Source) {
        let namespace = &object.key.namespace;
        let defaults = self.namespaces.get(namespace);
        if let Some((_, source)) = self
            .everywhere
            .as_ref()
            .or(defaults.and_then(|d| d.closed.as_ref()))
        {
            return (Mode::Deny, source.clone());
        }
        let Some((said, own)) = said(self.namespaces, DEFAULT_POLICY, namespace, annotations)
        else {
            let setting = format!("--default-policy {}", self.config.default_policy);
            return (self.config.default_policy, Source::BuiltIn(setting));
        };
        let source = match defaults.and_then(|d| d.source.clone()) {
            Some(source) if !own => source,
            _ => object.source.clone(),
        };
        let mode = default_policy(said);
        // What a Namespace says is reported there, once.
        if own {
            DEFAULT_POLICY.compare(said, object, self.findings);
            if let Err(why) = &mode {
                let message = format!("{why}: the default policy is `deny`");
                Index::note(self.findings, Code::BadDefault, object, message);
            }
        }
        (mode.unwrap_or(Mode::Deny), source)
    }

    fn require_identity<T>(
        &mut self,
        object: &Object<T>,
        annotations: &BTreeMap<String, String>,
        pod: &Pod,
    ) -> Listed {
        let namespace = &object.key.namespace;
        let Some((said, own)) = said(self.namespaces, REQUIRE_IDENTITY, namespace, annotations)
        else {
            return Listed::default();
        };
        let sets: Vec<PortSet> = said
            .values()
            .map(|text| PortSet::parse(text, &pod.ports))
            .collect();
        if own {
            REQUIRE_IDENTITY.compare(said, object, self.findings);
        }
        let unreadable: Vec<&str> = sets
            .iter()
            .flat_map(|set| &set.unreadable)
            .map(String::as_str)
            .collect();
        if !unreadable.is_empty() {
            let message = format!(
                "`{}` in the list of ports that require an identity is no port of this pod: every port requires one",
                unreadable.join("`, `")
            );
            Index::note(self.findings, Code::BadPortList, object, message);
        }
        Listed {
            every: !unreadable.is_empty(),
            ports: sets.into_iter().next().unwrap_or_default().ports,
        }
    }

    fn opaque<T>(
        &mut self,
        object: &Object<T>,
        annotations: &BTreeMap<String, String>,
        pod: &Pod,
    ) -> Listed {
        let namespace = &object.key.namespace;
        let Some((said, own)) = said(self.namespaces, OPAQUE_PORTS, namespace, annotations) else {
            return Listed::default();
        };
        let set = PortSet::parse(said.value, &pod.ports);
        if own {
            OPAQUE_PORTS.compare(said, object, self.findings);
            if !set.unreadable.is_empty() {
                let message = format!(
                    "`{}` in the list of opaque ports is no port of this pod and is left out",
                    set.unreadable.join("`, `")
                );
                Index::note(self.findings, Code::BadPortList, object, message);
            }
        }
        Listed {
            every: false,
            ports: set.ports,
        }
    }
}
