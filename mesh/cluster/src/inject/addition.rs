//! What is added to a pod: the capture, the proxy, their volumes, and marks that say so.

use super::refusal::VOLUMES;
use super::settings::{Proxy, Settings};
use crate::names::{
    CAPTURE, INJECTED_BY, LOG_DIR, MESHED_LABEL, NAMESPACE, PROXY, RUN_DIR, TOKEN_AUDIENCE,
    TOKEN_DIR, TOKEN_SECS, TRUST_CONFIG_MAP, TRUST_DIR, TRUST_KEY, WITNESS_UIDS, ports,
};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Seconds that a proxy may take until its first policy is there; kubelet starts it anew after that.
const START_SECS_MAX: u32 = 120;

/// Lets a node be drained although the pod has volumes on it: nothing in ours is missed.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// What is added to one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// They run before all others, in this order.
    init_containers: Vec<Value>,
    volumes: Vec<Value>,
    annotations: Vec<(&'static str, String)>,
    labels: Vec<(&'static str, String)>,
    /// Which of the fields that are added to stand in the pod.
    stands: Stands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stands {
    metadata: bool,
    annotations: bool,
    labels: bool,
    volumes: bool,
    init_containers: bool,
}

impl Addition {
    pub(super) fn new(pod: &Value, proxy: &Proxy, settings: &Settings) -> Self {
        let stands = |path| pod.pointer(path).is_some_and(|v| !v.is_null());
        let mut annotations = vec![(INJECTED_BY, env!("CARGO_PKG_VERSION").to_owned())];
        // Somebody's own list is theirs to complete.
        if pod
            .get("metadata")
            .and_then(|m| m.get("annotations")?.get(SAFE_TO_EVICT))
            .is_none()
        {
            annotations.push((SAFE_TO_EVICT, "mesh-run,mesh-log".to_owned()));
        }
        Self {
            init_containers: vec![capture(proxy, settings), sidecar(pod, proxy, settings)],
            volumes: volumes(),
            annotations,
            labels: vec![(MESHED_LABEL, "true".to_owned())],
            stands: Stands {
                metadata: stands("/metadata"),
                annotations: stands("/metadata/annotations"),
                labels: stands("/metadata/labels"),
                volumes: stands("/spec/volumes"),
                init_containers: stands("/spec/initContainers"),
            },
        }
    }

    /// The addition as a JSON patch (RFC 6902), for an API server.
    pub fn patch(&self) -> Vec<Value> {
        let mut out = Vec::new();
        let mut add = |path: String, value: Value| {
            out.push(json!({ "op": "add", "path": path, "value": value }));
        };
        if !self.stands.metadata {
            add("/metadata".to_owned(), json!({}));
        }
        for (stands, path, entries) in [
            (
                self.stands.annotations,
                "/metadata/annotations",
                &self.annotations,
            ),
            (self.stands.labels, "/metadata/labels", &self.labels),
        ] {
            if stands {
                for (key, value) in entries {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    add(format!("{path}/{key}"), value.as_str().into());
                }
            } else {
                let all: Map<String, Value> = entries
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), value.as_str().into()))
                    .collect();
                add(path.to_owned(), all.into());
            }
        }
        if self.stands.volumes {
            for volume in &self.volumes {
                add("/spec/volumes/-".to_owned(), volume.clone());
            }
        } else {
            add("/spec/volumes".to_owned(), self.volumes.clone().into());
        }
        if self.stands.init_containers {
            for (index, container) in self.init_containers.iter().enumerate() {
                add(format!("/spec/initContainers/{index}"), container.clone());
            }
        } else {
            add(
                "/spec/initContainers".to_owned(),
                self.init_containers.clone().into(),
            );
        }
        out
    }

    /// Adds it to the pod, or template, that it was made for.
    pub fn apply(&self, pod: &mut Value) {
        if let Some(map) = entry(pod, "metadata", json!({})).as_object_mut() {
            for (field, entries) in [("annotations", &self.annotations), ("labels", &self.labels)] {
                let below = map.entry(field).or_insert(Value::Null);
                for (key, value) in entries {
                    *entry(below, key, Value::Null) = value.as_str().into();
                }
            }
        }
        let spec = entry(pod, "spec", json!({}));
        if let Some(list) = entry(spec, "volumes", json!([])).as_array_mut() {
            list.extend(self.volumes.iter().cloned());
        }
        if let Some(list) = entry(spec, "initContainers", json!([])).as_array_mut() {
            list.splice(0..0, self.init_containers.iter().cloned());
        }
    }
}

/// Takes away what [`Addition::apply`] adds; whether anything was there.
pub fn remove(pod: &mut Value) -> bool {
    let before = pod.clone();
    for (path, ours) in [
        ("/spec/initContainers", &[CAPTURE, PROXY][..]),
        ("/spec/volumes", &VOLUMES[..]),
    ] {
        if let Some(list) = pod.pointer_mut(path).and_then(Value::as_array_mut) {
            list.retain(|item| {
                !item
                    .get("name")
                    .and_then(Value::as_str)
                    .is_some_and(|name| ours.contains(&name))
            });
        }
    }
    for (path, key) in [
        ("/metadata/annotations", INJECTED_BY),
        ("/metadata/annotations", SAFE_TO_EVICT),
        ("/metadata/labels", MESHED_LABEL),
    ] {
        if let Some(map) = pod.pointer_mut(path).and_then(Value::as_object_mut)
            && (key != SAFE_TO_EVICT
                || map.get(key).and_then(Value::as_str) == Some("mesh-run,mesh-log"))
        {
            map.shift_remove(key);
        }
    }
    for (parent, field) in [
        ("/spec", "initContainers"),
        ("/spec", "volumes"),
        ("/metadata", "annotations"),
        ("/metadata", "labels"),
    ] {
        let empty = |v: &Value| {
            v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty)
        };
        let stood = before
            .pointer(&format!("{parent}/{field}"))
            .is_some_and(|v| !empty(v));
        if let Some(map) = pod.pointer_mut(parent).and_then(Value::as_object_mut)
            && stood
            && map.get(field).is_some_and(empty)
        {
            map.shift_remove(field);
        }
    }
    *pod != before
}

/// The field `key` of a mapping, made with `value` where it does not stand or is null.
fn entry<'v>(of: &'v mut Value, key: &str, value: Value) -> &'v mut Value {
    if !of.is_object() {
        *of = json!({});
    }
    let slot = &mut of[key];
    if slot.is_null() {
        *slot = value;
    }
    slot
}

/// Seconds that a pod's traffic may take to be captured by the CNI plugin. The plugin is done before any container runs; only
/// an address of IPv6 may still be coming.
const WITNESS_SECS: u32 = 10;

/// Redirects the pod's traffic, and ends. Only here are NET_ADMIN and root needed; not even the proxy has them.
///
/// With the CNI plugin it has no rights at all and is only a witness: it lets the pod start once its traffic is redirected,
/// and fails it if nobody did that. What it is told of exceptions is what the plugin reads.
fn capture(proxy: &Proxy, settings: &Settings) -> Value {
    let mut args = vec!["capture".to_owned(), format!("--uid={}", proxy.uid)];
    if !proxy.skip_inbound.is_empty() {
        args.push(format!("--skip-inbound-ports={}", proxy.skip_inbound));
    }
    if !proxy.skip_outbound.is_empty() {
        args.push(format!("--skip-outbound-ports={}", proxy.skip_outbound));
    }
    if !proxy.skip_subnets.is_empty() {
        args.push(format!("--skip-subnets={}", proxy.skip_subnets));
    }
    if !proxy.skip_udp.is_empty() {
        args.push(format!("--skip-udp-ports={}", proxy.skip_udp));
    }
    let (uid, capabilities) = if settings.cni {
        args.extend(["--check", "--unprivileged"].map(str::to_owned));
        args.push(format!("--wait={WITNESS_SECS}"));
        // The proxy's own traffic is not redirected: as its user there would be nothing to see.
        let other = WITNESS_UIDS.into_iter().find(|uid| *uid != proxy.uid);
        (other.unwrap_or_default(), json!({ "drop": ["ALL"] }))
    } else {
        (
            0,
            json!({ "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"] }),
        )
    };
    json!({
        "name": CAPTURE,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/mesh-proxy"],
        "args": args,
        "resources": { "requests": { "cpu": "10m", "memory": "8Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": capabilities,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": uid != 0,
            "runAsUser": uid,
            "runAsGroup": uid,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// The proxy, as a native sidecar: it starts before the application's own init containers and ends after its last container.
fn sidecar(pod: &Value, proxy: &Proxy, settings: &Settings) -> Value {
    let field = |path: &str| json!({ "fieldRef": { "apiVersion": "v1", "fieldPath": path } });
    let mut env = vec![
        json!({ "name": "POD_NAME", "valueFrom": field("metadata.name") }),
        json!({ "name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace") }),
    ];
    let traces = traces(pod, settings);
    if traces.is_some() {
        for (name, path) in [
            ("POD_UID", "metadata.uid"),
            ("NODE_NAME", "spec.nodeName"),
            ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ] {
            env.push(json!({ "name": name, "valueFrom": field(path) }));
        }
    }
    let configuration = configuration(settings) + traces.as_deref().unwrap_or_default();
    env.push(json!({ "name": "MESH_LOG", "value": proxy.log_level }));
    // Last: it names the others.
    env.push(json!({ "name": "MESH_PROXY_CONFIG", "value": configuration }));
    let probe = |path: &str| json!({ "path": path, "port": ports::ADMIN, "scheme": "HTTP" });
    json!({
        "name": PROXY,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["/mesh-proxy"],
        "args": ["--config", "env:MESH_PROXY_CONFIG"],
        "env": env,
        "ports": [{ "name": "mesh-admin", "containerPort": ports::ADMIN, "protocol": "TCP" }],
        // The application starts once its proxy has identity and policy: until then all it tried would be refused. Policy
        // is served by the pod's name, which is there before its containers are, so nothing waits in a circle.
        "startupProbe": { "httpGet": probe("/ready"), "periodSeconds": 1, "failureThreshold": START_SECS_MAX },
        "readinessProbe": { "httpGet": probe("/ready"), "periodSeconds": 5 },
        "livenessProbe": { "httpGet": probe("/live"), "periodSeconds": 10, "failureThreshold": 6 },
        "resources": resources(proxy),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": proxy.uid,
            "runAsGroup": proxy.uid,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [
            { "name": "mesh-run", "mountPath": RUN_DIR },
            { "name": "mesh-log", "mountPath": LOG_DIR },
            { "name": "mesh-token", "mountPath": TOKEN_DIR, "readOnly": true },
            { "name": "mesh-trust", "mountPath": TRUST_DIR, "readOnly": true },
        ],
    })
}

/// What the proxy's configuration says of traces, if spans go anywhere. Whose they are is said by OpenTelemetry's names for
/// Kubernetes; the service is what the pod's labels call it, else its service account.
fn traces(pod: &Value, settings: &Settings) -> Option<String> {
    let values = &settings.proxy;
    let (kind, collector) = match (&values.traces_service, &values.traces_address) {
        (service, _) if !service.is_empty() => ("service", service),
        (_, address) if !address.is_empty() => ("address", address),
        _ => return None,
    };
    let label = |name: &str| pod.pointer("/metadata/labels")?.get(name)?.as_str();
    let service = ["app.kubernetes.io/name", "app"]
        .into_iter()
        .find_map(label)
        .filter(|name| !name.is_empty() && name.bytes().all(is_of_label))
        .unwrap_or("$(SERVICE_ACCOUNT)");
    let metrics = match values.metrics_interval_secs {
        0 => String::new(),
        secs => format!("  metrics: {{ intervalSecs: {secs} }}\n"),
    };
    Some(format!(
        r#"traces:
  {kind}: "{collector}"
  protocol: {protocol}
  sample: {sample}
{metrics}  attributes:
    service.name: "{service}"
    k8s.namespace.name: "$(POD_NAMESPACE)"
    k8s.pod.name: "$(POD_NAME)"
    k8s.pod.uid: "$(POD_UID)"
    k8s.node.name: "$(NODE_NAME)"
"#,
        protocol = values.traces_protocol,
        sample = values.traces_sample,
    ))
}

/// What values of labels are made of: nothing that could end a text of YAML.
fn is_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn resources(proxy: &Proxy) -> Value {
    let set = |cpu: &str, memory: &str| -> Map<String, Value> {
        let both = [("cpu", cpu), ("memory", memory)];
        let given = both
            .into_iter()
            .filter(|(_, quantity)| !quantity.is_empty());
        given
            .map(|(name, quantity)| (name.to_owned(), quantity.into()))
            .collect()
    };
    let values = &proxy.resources;
    let mut out = Map::new();
    for (name, part) in [
        ("requests", set(&values.cpu_request, &values.memory_request)),
        ("limits", set(&values.cpu_limit, &values.memory_limit)),
    ] {
        if !part.is_empty() {
            out.insert(name.to_owned(), part.into());
        }
    }
    out.into()
}

/// The proxy's configuration (docs/reference/proxy-config.md). Kubernetes puts the pod's name for `$(POD_NAME)`.
fn configuration(settings: &Settings) -> String {
    let domain = &settings.trust_domain;
    let identity = |name: &str| format!("spiffe://{domain}/ns/{NAMESPACE}/sa/{name}");
    let mut out = String::new();
    for line in [
        "workload: { namespace: $(POD_NAMESPACE), name: $(POD_NAME) }".to_owned(),
        format!("trustDomain: {domain}"),
        "identity:".to_owned(),
        "  ca:".to_owned(),
        format!(
            "    address: mesh-identity.{NAMESPACE}.svc:{}",
            ports::IDENTITY
        ),
        format!("    identity: {}", identity("mesh-identity")),
        format!("    token: {TOKEN_DIR}/token"),
        format!("    bundle: {TRUST_DIR}/{TRUST_KEY}"),
        "policy:".to_owned(),
        "  controller:".to_owned(),
        format!(
            "    address: mesh-controller.{NAMESPACE}.svc:{}",
            ports::CONTROLLER
        ),
        format!("    identity: {}", identity("mesh-controller")),
        "inbound:".to_owned(),
        format!("  mesh: 0.0.0.0:{}", ports::MESH),
        format!("  transparent: 0.0.0.0:{}", ports::INBOUND),
        format!("outboundTransparent: 127.0.0.1:{}", ports::OUTBOUND),
        "admin:".to_owned(),
        format!("  listen: 0.0.0.0:{}", ports::ADMIN),
        format!("  socket: {RUN_DIR}/proxy.sock"),
        format!("audit: {{ file: {LOG_DIR}/audit.jsonl, allowSample: 0.01 }}"),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{line}");
    }
    out
}

// The folder of the admin socket is not in memory: a file system there has the sticky bit, as /tmp has, and the proxy
// keeps nothing in a folder that is meant for many.
fn volumes() -> Vec<Value> {
    let [run, log, token, trust] = VOLUMES;
    let source = json!({
        "serviceAccountToken": { "audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECS, "path": "token" },
    });
    let anchors = json!([{ "key": TRUST_KEY, "path": TRUST_KEY }]);
    vec![
        json!({ "name": run, "emptyDir": {} }),
        json!({ "name": log, "emptyDir": {} }),
        json!({ "name": token, "projected": { "sources": [source] } }),
        json!({ "name": trust, "configMap": { "name": TRUST_CONFIG_MAP, "items": anchors } }),
    ]
}
