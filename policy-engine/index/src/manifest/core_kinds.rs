//! Namespaces, pods, workloads with pod templates, and Services. Unknown fields are ignored, as newer Kubernetes has more.

use super::identity::is_port_name;
use super::read::{Fields, Reading};
use super::resource;
use super::resource::{
    ContainerPort, EndpointSlice, OtherPort, Pod, PortRef, Probe, ProbeTarget, Service,
    ServicePort, SliceEndpoint, SlicePort, Template,
};
use super::tree::{Node, Place};
use crate::finding::Code;
use crate::index::PROXY_CONTAINER;
use mesh_policy::request::canonical_ip;
use mesh_policy::snapshot::Source;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Makes a [`Source`] of a place in the file that is being read.
pub(crate) type Locate<'a> = &'a dyn Fn(Place, u32) -> Source;

/// Reads a number or a name.
pub(crate) fn read_port_ref(reading: &mut Reading, node: &Node, path: &str) -> Option<PortRef> {
    let Some(text) = node.as_text() else {
        if !matches!(node.value, super::tree::Value::Int(_)) {
            reading.expected(node, path, "a port number or the name of a port");
            return None;
        }
        return reading.port(node, path).map(PortRef::Number);
    };
    if is_port_name(text) {
        return Some(PortRef::Name(text.to_owned()));
    }
    let message = format!("`{path}: {text}` is not the name of a port");
    reading.problem(node.at, Code::BadValue, message);
    // A quoted number can be read well enough to close the port that it means.
    text.parse().ok().filter(|n| *n != 0).map(PortRef::Number)
}

fn read_ip(reading: &mut Reading, node: &Node, path: &str) -> Option<IpAddr> {
    let text = reading.text(node, path)?;
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(ip) => Some(canonical_ip(ip)),
        Err(_) => {
            reading.problem(
                node.at,
                Code::BadValue,
                format!("`{path}: {text}` is not an address"),
            );
            None
        }
    }
}

/// Addresses of a status: one alone, then a list of `{ip}` that holds it again (dual stack).
fn read_ips(
    reading: &mut Reading,
    status: &mut Fields<'_>,
    one: &'static str,
    list: &'static str,
) -> Vec<IpAddr> {
    let (one_path, list_path) = (status.path(one), status.path(list));
    let first = status.optional(reading, one);
    let mut out: Vec<IpAddr> = first
        .and_then(|node| read_ip(reading, node, &one_path))
        .into_iter()
        .collect();
    let items = status.optional_list(reading, list).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{list_path}[{index}]");
        let node = reading
            .fields(item, &path)
            .and_then(|mut fields| fields.optional(reading, "ip"));
        let ip = node.and_then(|node| read_ip(reading, node, &format!("{path}.ip")));
        out.extend(ip.filter(|ip| !out.contains(ip)));
    }
    out
}

/// Reads a Pod's `spec` and `status`.
pub(crate) fn read_pod(reading: &mut Reading, root: &mut Fields<'_>, locate: Locate<'_>) -> Pod {
    let mut pod = match root.required(reading, "spec") {
        Some(spec) => read_pod_spec(reading, spec, "spec", locate),
        None => Pod::default(),
    };
    pod.ready = true;
    if let Some(mut status) = root.optional_fields(reading, "status") {
        read_status(reading, &mut status, &mut pod);
    }
    pod
}

fn read_status(reading: &mut Reading, status: &mut Fields<'_>, pod: &mut Pod) {
    pod.ips = read_ips(reading, status, "podIP", "podIPs");
    pod.host_ips = read_ips(reading, status, "hostIP", "hostIPs");
    let phase = status.optional_text(reading, "phase");
    if matches!(phase, Some("Succeeded" | "Failed")) {
        pod.ready = false;
    }
    for item in status
        .optional_list(reading, "conditions")
        .unwrap_or_default()
    {
        let Some(mut fields) = reading.fields(item, "status.conditions") else {
            continue;
        };
        let kind = fields.optional_text(reading, "type");
        let value = fields.optional_text(reading, "status");
        if kind == Some("Ready") && value != Some("True") {
            pod.ready = false;
        }
    }
}

fn read_pod_spec(reading: &mut Reading, node: &Node, path: &str, locate: Locate<'_>) -> Pod {
    let mut pod = Pod::default();
    let Some(mut fields) = reading.fields(node, path) else {
        return pod;
    };
    let account = fields.optional_text(reading, "serviceAccountName");
    let account = account.or_else(|| fields.optional_text(reading, "serviceAccount"));
    pod.service_account = account
        .filter(|a| !a.is_empty())
        .unwrap_or("default")
        .to_owned();
    let node = fields.optional_text(reading, "nodeName");
    pod.node = node.filter(|name| !name.is_empty()).map(str::to_owned);
    let mut number = 0;
    for key in ["containers", "initContainers"] {
        for item in fields.optional_list(reading, key).unwrap_or_default() {
            let path = format!("{path}.{key}[{number}]");
            if let Some(mut container) = reading.fields(item, &path) {
                read_container(reading, &mut container, number, &mut pod, locate);
            }
            number += 1;
        }
    }
    pod
}

fn read_container(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    container: usize,
    pod: &mut Pod,
    locate: Locate<'_>,
) {
    if fields.optional_text(reading, "name") == Some(PROXY_CONTAINER) {
        pod.has_proxy = true;
    }
    let path = fields.path("ports");
    for (index, item) in fields
        .optional_list(reading, "ports")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}[{index}]");
        let Some(mut port) = reading.fields(item, &path) else {
            continue;
        };
        let number = port
            .required(reading, "containerPort")
            .and_then(|n| reading.port(n, &format!("{path}.containerPort")));
        let name = port.optional_text(reading, "name").map(str::to_owned);
        let protocol = port.choice(reading, "protocol", &["TCP", "UDP", "SCTP"]);
        match (number, protocol) {
            (Some(port), None | Some("TCP")) => pod.ports.push(ContainerPort {
                name,
                port,
                container,
            }),
            (Some(port), Some(protocol)) => {
                pod.other_ports.push(OtherPort::new(name, port, protocol));
            }
            (None, _) => {}
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let path = fields.path(key);
        let Some(node) = fields.optional(reading, key) else {
            continue;
        };
        let Some(mut probe) = reading.fields(node, &path) else {
            continue;
        };
        if let Some((kind, port)) = read_probe(reading, &mut probe) {
            let source = locate(node.at, node.end_line);
            pod.probes.push(Probe {
                kind,
                port,
                container,
                source,
            });
        }
    }
}

fn read_probe(reading: &mut Reading, probe: &mut Fields<'_>) -> Option<(ProbeTarget, PortRef)> {
    if let Some(mut get) = probe.optional_fields(reading, "httpGet") {
        let port_path = get.path("port");
        let port = get
            .required(reading, "port")
            .and_then(|n| read_port_ref(reading, n, &port_path));
        let path = get.optional_text(reading, "path").unwrap_or("/");
        if get.optional_text(reading, "scheme") == Some("HTTPS") {
            let message = format!(
                "the HTTPS probe of `{path}` ends in the application's own TLS, where no proxy sees it: it is not let through unauthenticated"
            );
            reading.doubt(get.at, Code::DeadProbe, message);
            return None;
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        return Some((ProbeTarget::Http(path), port?));
    }
    for (key, kind) in [("tcpSocket", ProbeTarget::Tcp), ("grpc", ProbeTarget::Grpc)] {
        if let Some(mut target) = probe.optional_fields(reading, key) {
            let path = target.path("port");
            let port = target
                .required(reading, "port")
                .and_then(|n| read_port_ref(reading, n, &path));
            return Some((kind, port?));
        }
    }
    None
}

/// Reads the pod template of a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob.
pub(crate) fn read_template(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    kind: &str,
    locate: Locate<'_>,
) -> Template {
    let empty = Template {
        labels: Default::default(),
        annotations: Default::default(),
        pod: Pod::default(),
    };
    let mut spec = root.required_fields(reading, "spec");
    if kind == "CronJob" {
        spec = spec.and_then(|mut s| s.required_fields(reading, "jobTemplate"));
        spec = spec.and_then(|mut s| s.required_fields(reading, "spec"));
    }
    let Some(mut spec) = spec else { return empty };
    let Some(mut template) = spec.required_fields(reading, "template") else {
        return empty;
    };
    let mut labels = None;
    let mut annotations = None;
    if let Some(mut metadata) = template.optional_fields(reading, "metadata") {
        labels = read_strings(reading, &mut metadata, "labels");
        annotations = read_strings(reading, &mut metadata, "annotations");
    }
    let path = template.path("spec");
    let pod = match template.required(reading, "spec") {
        Some(node) => read_pod_spec(reading, node, &path, locate),
        None => Pod::default(),
    };
    Template {
        labels: labels.unwrap_or_default(),
        annotations: annotations.unwrap_or_default(),
        pod,
    }
}

/// A mapping of strings, `labels` and the like.
pub(crate) fn read_strings(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    key: &'static str,
) -> Option<std::collections::BTreeMap<String, String>> {
    let path = fields.path(key);
    fields
        .lenient(reading, key)
        .and_then(|node| reading.text_map(node, &path))
}

/// `clusterIPs`, else `clusterIP`; `None`, the word, means that there is none: whether it stands is told too.
fn read_cluster_ips(reading: &mut Reading, spec: &mut Fields<'_>) -> (Vec<IpAddr>, bool) {
    let one = spec.optional(reading, "clusterIP");
    let list = spec
        .optional_list(reading, "clusterIPs")
        .unwrap_or_default();
    let nodes: Vec<&Node> = one.into_iter().chain(list).collect();
    let (mut out, mut headless) = (Vec::new(), false);
    for node in nodes {
        if node.as_text() == Some("None") {
            headless = true;
            continue;
        }
        if let Some(ip) = read_ip(reading, node, "spec.clusterIPs")
            && !out.contains(&ip)
        {
            out.push(ip);
        }
    }
    (out, headless)
}

/// Label of nodes that names the zone in which they stand.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Reads a Node: of all that it says only where it stands counts.
pub(crate) fn read_node(labels: &BTreeMap<String, String>) -> resource::Node {
    let zone = labels.get(ZONE).filter(|zone| !zone.is_empty());
    resource::Node {
        zone: zone.cloned(),
    }
}

/// Zones that one endpoint may be for (Kubernetes: 8), and bytes of a zone's name.
const FOR_ZONES_MAX: usize = 8;
const ZONE_BYTES_MAX: usize = 63;

/// `zone` and `hints.forZones` of an endpoint of a slice. A name that no label could have is none.
fn read_zones(
    reading: &mut Reading,
    endpoint: &mut Fields<'_>,
    path: &str,
) -> (Option<String>, Vec<String>) {
    let fits = |name: &&str| (1..=ZONE_BYTES_MAX).contains(&name.len());
    let zone = endpoint.optional_text(reading, "zone").filter(fits);
    let zone = zone.map(str::to_owned);
    let mut for_zones = Vec::new();
    if let Some(mut hints) = endpoint.optional_fields(reading, "hints") {
        let listed = hints.optional_list(reading, "forZones").unwrap_or_default();
        for item in listed.iter().take(FOR_ZONES_MAX) {
            let Some(mut fields) = reading.fields(item, path) else {
                continue;
            };
            let name = fields.optional_text(reading, "name").filter(fits);
            for_zones.extend(name.map(str::to_owned));
        }
    }
    (zone, for_zones)
}

/// Label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads an EndpointSlice. Endpoints that say nothing of their readiness are ready, as Kubernetes has it; names instead of
/// addresses (`addressType: FQDN`) are none.
pub(crate) fn read_endpoint_slice(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    labels: &BTreeMap<String, String>,
) -> EndpointSlice {
    let mut slice = EndpointSlice {
        service: labels.get(SERVICE_NAME).cloned(),
        ..EndpointSlice::default()
    };
    let addresses = root.optional_text(reading, "addressType") != Some("FQDN");
    let ports = root.optional_list(reading, "ports").unwrap_or_default();
    for (index, item) in ports.iter().enumerate() {
        let path = format!("ports[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let name = fields.optional_text(reading, "name");
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        let protocol = fields.choice(reading, "protocol", &["TCP", "UDP", "SCTP"]);
        let port = fields
            .optional(reading, "port")
            .and_then(|node| reading.port(node, &format!("{path}.port")));
        if let Some(port) = port.filter(|_| protocol.is_none_or(|it| it == "TCP")) {
            slice.ports.push(SlicePort { name, port });
        }
    }
    let endpoints = root.optional_list(reading, "endpoints").unwrap_or_default();
    for (index, item) in endpoints.iter().enumerate().filter(|_| addresses) {
        let path = format!("endpoints[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let conditions = fields.optional_fields(reading, "conditions");
        let ready = conditions.and_then(|mut conditions| {
            let ready = conditions.optional(reading, "ready")?;
            reading.boolean(ready, &format!("{path}.conditions.ready"))
        });
        let addresses = fields
            .optional_list(reading, "addresses")
            .unwrap_or_default();
        // Clients take the first; the others are the same endpoint.
        let first = addresses.first();
        let first = first.and_then(|node| read_ip(reading, node, &format!("{path}.addresses[0]")));
        let (zone, for_zones) = read_zones(reading, &mut fields, &path);
        let endpoint = first.map(|ip| SliceEndpoint {
            ip,
            for_zones,
            zone,
        });
        slice
            .ready
            .extend(endpoint.filter(|_| ready != Some(false)));
    }
    slice
}

/// Reads a Service's `spec`.
pub(crate) fn read_service(reading: &mut Reading, root: &mut Fields<'_>) -> Service {
    let mut service = Service::default();
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return service;
    };
    service.selector = read_strings(reading, &mut spec, "selector").filter(|s| !s.is_empty());
    (service.addresses, service.headless) = read_cluster_ips(reading, &mut spec);
    let distribution = spec.optional_text(reading, "trafficDistribution");
    service.traffic_distribution = distribution.map(str::to_owned);
    if spec.optional_text(reading, "type") == Some("ExternalName") {
        service.selector = None;
    }
    for (index, item) in spec
        .optional_list(reading, "ports")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("spec.ports[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let port = fields
            .required(reading, "port")
            .and_then(|n| reading.port(n, &format!("{path}.port")));
        let protocol = fields.choice(reading, "protocol", &["TCP", "UDP", "SCTP"]);
        let target = fields.optional(reading, "targetPort");
        let named = target.map(|n| read_port_ref(reading, n, &format!("{path}.targetPort")));
        let name = fields.optional_text(reading, "name").map(str::to_owned);
        let app_protocol = fields
            .optional_text(reading, "appProtocol")
            .map(str::to_owned);
        let Some(port) = port else { continue };
        let target = match named {
            Some(Some(target)) => target,
            Some(None) => continue,
            None => PortRef::Number(port),
        };
        if let Some(protocol) = protocol.filter(|protocol| *protocol != "TCP") {
            let other = OtherPort::new(name, port, protocol);
            service.other_ports.push(other);
        } else {
            service.ports.push(ServicePort {
                name,
                port,
                target,
                app_protocol,
            });
        }
    }
    service
}
