//! What of an object counts for the mesh, as JSON. Pure.
//!
//! Objects change all the time in ways that mean nothing to us: managed fields, heartbeats in a status, bookkeeping
//! annotations. What is left here changes only with what policy and discovery are made of, so that a new generation
//! means something.

use serde_json::{Map, Value};

/// Annotation in which `kubectl apply` keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Annotation that stands for the field manager which wrote the spec last. It is made here of `managedFields`: what an
/// object itself says under this name is dropped.
pub const FIELD_MANAGER: &str = "mesh.internal/field-manager";

/// Conditions of a pod that decide whether it is an endpoint.
const READY: &str = "Ready";

/// What of a pod's status says where it is and whether it can be reached.
const POD_STATUS: &[&str] = &["phase", "podIP", "podIPs", "hostIP", "hostIPs"];

/// What of the metadata is kept.
const METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "ownerReferences",
    "creationTimestamp",
];

/// What of a container is kept: all that the mesh looks at, and none of its environment, where secrets may be.
const CONTAINER: &[&str] = &[
    "name",
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
];

/// What of a pod's spec is kept.
const POD_SPEC: &[&str] = &[
    "serviceAccountName",
    "serviceAccount",
    "hostNetwork",
    "nodeName",
];

/// What of a Service's spec is kept.
const SERVICE_SPEC: &[&str] = &[
    "selector",
    "ports",
    "clusterIP",
    "clusterIPs",
    "type",
    "externalName",
    "publishNotReadyAddresses",
    "trafficDistribution",
];

/// What of an EndpointSlice is kept.
const ENDPOINT_SLICE: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "addressType",
    "ports",
    "endpoints",
];

/// What of one of its endpoints is kept.
const ENDPOINT: &[&str] = &["addresses", "conditions", "zone", "hints"];

/// The label of a node that is kept: the only thing of it that counts.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Name of an object among all: `Server.policy.linkerd.io/shop/cart`; no two objects share one.
pub fn name(group: &str, kind: &str, namespace: Option<&str>, name: &str) -> String {
    let kind = if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    };
    match namespace {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// Leaves of `object` all but the bookkeeping of who wrote what: for those who write its status.
pub fn whole(kind: &str, api_version: &str, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), Value::from(api_version));
        fields.insert("kind".to_owned(), Value::from(kind));
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
    }
    object
}

/// Leaves of `object` what counts. Policy kinds keep their whole spec: an unknown field in it must be seen.
pub fn essence(kind: &str, api_version: &str, object: Value) -> Value {
    let Value::Object(mut object) = object else {
        return object;
    };
    object.insert("apiVersion".to_owned(), Value::from(api_version));
    object.insert("kind".to_owned(), Value::from(kind));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        // Of policy it is told what became of a change. The number changes with the spec alone, so it makes nothing new
        // that is not.
        let generation = metadata
            .get("generation")
            .filter(|_| api_version != "v1")
            .cloned();
        let manager = last_manager(metadata).filter(|_| api_version != "v1" || kind == "Namespace");
        keep(metadata, METADATA);
        if let Some(generation) = generation {
            metadata.insert("generation".to_owned(), generation);
        }
        if let Some(notes) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            notes.shift_remove(LAST_APPLIED);
            notes.shift_remove(FIELD_MANAGER);
        }
        if let Some(manager) = manager {
            let notes = metadata
                .entry("annotations")
                .or_insert_with(|| Value::Object(Map::new()));
            if let Some(notes) = notes.as_object_mut() {
                notes.insert(FIELD_MANAGER.to_owned(), Value::from(manager));
            }
        }
    }
    let core = api_version == "v1";
    match kind {
        "Pod" if core => pod(&mut object),
        "Service" if core => {
            object.shift_remove("status");
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                keep(spec, SERVICE_SPEC);
            }
        }
        "Node" if core => {
            keep(&mut object, &["apiVersion", "kind", "metadata"]);
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                keep(metadata, &["name", "labels"]);
                if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
                    keep(labels, &[ZONE]);
                }
            }
        }
        "EndpointSlice" => {
            keep(&mut object, ENDPOINT_SLICE);
            let endpoints = object.get_mut("endpoints").and_then(Value::as_array_mut);
            for endpoint in endpoints.into_iter().flatten() {
                if let Some(endpoint) = endpoint.as_object_mut() {
                    keep(endpoint, ENDPOINT);
                }
            }
        }
        _ => {
            object.shift_remove("status");
        }
    }
    Value::Object(object)
}

/// Who wrote to the object last, subresources such as the status apart.
fn last_manager(metadata: &Map<String, Value>) -> Option<String> {
    let all = metadata.get("managedFields")?.as_array()?;
    let text = |one: &Value, field: &str| Some(one.get(field)?.as_str()?.to_owned());
    all.iter()
        .filter(|one| text(one, "subresource").is_none_or(|sub| sub.is_empty()))
        // RFC 3339 in UTC with whole seconds, as the API server writes it: the order of the texts is that of the times.
        .max_by_key(|one| text(one, "time"))
        .and_then(|one| text(one, "manager"))
}

/// Where [`status`] leaves the names of those who wrote into an object's status.
pub const STATUS_WRITERS: &str = "statusWriters";

/// Leaves of an object what its status is about: the status itself, who wrote it, and which version of what it speaks of.
pub fn status(kind: &str, api_version: &str, object: Value) -> Value {
    let Value::Object(mut object) = object else {
        return object;
    };
    object.insert("apiVersion".to_owned(), Value::from(api_version));
    object.insert("kind".to_owned(), Value::from(kind));
    keep(&mut object, &["apiVersion", "kind", "metadata", "status"]);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let writers = status_writers(metadata);
        keep(
            metadata,
            &["name", "namespace", "uid", "generation", "resourceVersion"],
        );
        metadata.insert(STATUS_WRITERS.to_owned(), writers.into());
    }
    Value::Object(object)
}

/// Managers of fields of the status (`metadata.managedFields`).
fn status_writers(metadata: &Map<String, Value>) -> Vec<Value> {
    let entries = metadata.get("managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("subresource").and_then(Value::as_str) == Some("status"))
        .filter_map(|entry| entry.get("manager").cloned())
        .collect()
}

fn keep(map: &mut Map<String, Value>, fields: &[&str]) {
    map.retain(|key, _| fields.contains(&key.as_str()));
}

fn pod(object: &mut Map<String, Value>) {
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let ready = status
            .get("conditions")
            .and_then(Value::as_array)
            .and_then(|all| {
                all.iter()
                    .find(|one| one.get("type").and_then(Value::as_str) == Some(READY))
            })
            .and_then(|ready| ready.get("status"))
            .and_then(Value::as_str)
            // A pod that says nothing of itself yet is no endpoint.
            .unwrap_or("Unknown")
            .to_owned();
        keep(status, POD_STATUS);
        let condition = serde_json::json!([{ "type": READY, "status": ready }]);
        status.insert("conditions".to_owned(), condition);
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|key, _| {
            POD_SPEC.contains(&key.as_str()) || key == "containers" || key == "initContainers"
        });
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    keep(container, CONTAINER);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_objects_are_distinct_and_readable() {
        assert_eq!(
            name("policy.linkerd.io", "Server", Some("shop"), "cart"),
            "Server.policy.linkerd.io/shop/cart"
        );
        assert_eq!(name("", "Namespace", None, "shop"), "Namespace/shop");
        assert_ne!(
            name("policy.linkerd.io", "HTTPRoute", Some("a"), "r"),
            name("gateway.networking.k8s.io", "HTTPRoute", Some("a"), "r")
        );
    }

    #[test]
    fn a_pod_keeps_where_it_is_and_loses_its_environment() {
        let pod = json!({
            "metadata": { "name": "cart-0", "namespace": "shop", "resourceVersion": "7", "managedFields": [{}],
                          "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b" } },
            "spec": { "serviceAccountName": "cart", "volumes": [{}], "containers": [{
                "name": "app", "env": [{ "name": "PASSWORD", "value": "x" }], "args": ["--secret=x"],
                "ports": [{ "containerPort": 80 }], "readinessProbe": { "httpGet": { "port": 80 } } }] },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "startTime": "now", "containerStatuses": [{}],
                        "conditions": [{ "type": "Initialized", "status": "True" },
                                       { "type": "Ready", "status": "True", "lastProbeTime": "now" }] }
        });
        assert_eq!(
            essence("Pod", "v1", pod),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "cart-0", "namespace": "shop", "annotations": { "a": "b" } },
                "spec": { "serviceAccountName": "cart", "containers": [{
                    "name": "app", "ports": [{ "containerPort": 80 }], "readinessProbe": { "httpGet": { "port": 80 } } }] },
                "status": { "phase": "Running", "podIP": "10.0.0.1",
                            "conditions": [{ "type": "Ready", "status": "True" }] }
            })
        );
    }

    #[test]
    fn of_a_node_only_its_zone_is_kept() {
        let node = json!({
            "metadata": { "name": "n1", "uid": "u", "creationTimestamp": "now", "annotations": { "a": "b" },
                          "labels": { "topology.kubernetes.io/zone": "a", "heat": "rising" } },
            "spec": { "podCIDR": "10.0.0.0/24" }, "status": { "conditions": [{ "lastHeartbeatTime": "now" }] }
        });
        assert_eq!(
            essence("Node", "v1", node),
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": "a" } }
            })
        );
    }

    #[test]
    fn a_pod_that_says_nothing_of_its_readiness_is_not_ready() {
        let pod = json!({ "metadata": { "name": "p" }, "status": { "phase": "Pending" } });
        let kept = essence("Pod", "v1", pod);
        assert_eq!(
            kept.pointer("/status/conditions/0/status"),
            Some(&json!("Unknown"))
        );
    }

    #[test]
    fn policy_keeps_its_whole_spec_and_no_status() {
        let policy = json!({
            "metadata": { "name": "p", "namespace": "shop", "generation": 3 },
            "spec": { "targetRef": {}, "unknown": 1 }, "status": { "conditions": [] }, "extra": true
        });
        let kept = essence("AuthorizationPolicy", "policy.linkerd.io/v1alpha1", policy);
        assert_eq!(kept.pointer("/spec/unknown"), Some(&json!(1)));
        assert_eq!(kept.pointer("/extra"), Some(&json!(true)));
        assert_eq!(kept.pointer("/status"), None);
        assert_eq!(kept.pointer("/metadata/generation"), Some(&json!(3)));
        let service = json!({ "metadata": { "name": "s", "generation": 3 } });
        let kept = essence("Service", "v1", service);
        assert_eq!(kept.pointer("/metadata/generation"), None);
    }

    #[test]
    fn a_route_keeps_the_number_of_its_spec_and_apart_from_it_its_status() {
        let route = json!({
            "metadata": { "name": "r", "namespace": "shop", "uid": "u", "generation": 3, "resourceVersion": "12", "labels": { "a": "b" },
                          "managedFields": [{ "manager": "kubectl" }, { "manager": "another", "subresource": "status" }] },
            "spec": { "rules": [] }, "status": { "parents": [1] }
        });
        let version = "gateway.networking.k8s.io/v1";
        let kept = essence("HTTPRoute", version, route.clone());
        assert_eq!(kept.pointer("/metadata/generation"), Some(&json!(3)));
        assert_eq!(kept.pointer("/metadata/resourceVersion"), None);
        assert_eq!(kept.pointer("/status"), None);
        assert_eq!(
            status("HTTPRoute", version, route),
            json!({
                "apiVersion": version, "kind": "HTTPRoute",
                "metadata": { "name": "r", "namespace": "shop", "uid": "u", "generation": 3, "resourceVersion": "12",
                              "statusWriters": ["another"] },
                "status": { "parents": [1] }
            })
        );
    }

    #[test]
    fn what_is_no_object_stays_what_it_is() {
        assert_eq!(essence("Pod", "v1", json!([1])), json!([1]));
    }
}
