//! Pods and Servers.

use super::{APPS, Place};
use serde_json::{Map, Value, json};

impl Place<'_, '_> {
    /// A pod whose service account, label and place are among the few that there are.
    pub(super) fn pod(&mut self, number: usize) -> Value {
        let account = APPS.get(number % APPS.len()).copied().unwrap_or_default();
        let app = match self.choices.below(6) {
            0 => "odd",
            _ => account,
        };
        let mut meta = Map::new();
        meta.insert("name".to_owned(), json!(format!("pod{number}")));
        meta.insert("namespace".to_owned(), json!(self.namespace));
        meta.insert(
            "labels".to_owned(),
            json!({ "app": app, "tier": self.pick(&["front", "back"]) }),
        );
        if let Some(annotations) = self.pod_annotations() {
            meta.insert("annotations".to_owned(), annotations);
        }
        let mut container = json!({
            "name": "app",
            "ports": [
                { "name": "http", "containerPort": 8080 },
                { "name": "admin", "containerPort": 9090 },
            ],
        });
        if let Some(container) = container.as_object_mut()
            && self.choices.below(2) == 0
        {
            container.insert("livenessProbe".to_owned(), self.probe());
        }
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": { "serviceAccountName": account, "containers": [container] },
        });
        if let Some(pod) = pod.as_object_mut()
            && self.choices.below(2) == 0
        {
            let status = json!({
                "podIP": format!("10.0.{}.{}", self.number, number + 1),
                "hostIP": "192.168.0.1",
            });
            pod.insert("status".to_owned(), status);
        }
        pod
    }

    fn pod_annotations(&mut self) -> Option<Value> {
        let one = match self.choices.below(8) {
            0 => json!({ "config.linkerd.io/default-inbound-policy": self.mode() }),
            1 => {
                json!({ "config.linkerd.io/opaque-ports": self.pick(&["9090", "1-100", "8080,9090"]) })
            }
            2 => json!({ "mesh.internal/require-identity-inbound-ports": "8080" }),
            _ => return None,
        };
        Some(one)
    }

    fn probe(&mut self) -> Value {
        match self.choices.below(4) {
            0 => json!({ "grpc": { "port": 9090 } }),
            1 => json!({ "tcpSocket": { "port": 9090 } }),
            _ => json!({ "httpGet": { "path": "/healthz", "port": "http" } }),
        }
    }

    pub(super) fn server(&mut self, name: &str) -> Value {
        let selector = match self.choices.below(6) {
            0 => json!({}),
            1 => json!({ "matchLabels": { "tier": self.pick(&["front", "back"]) } }),
            2 => {
                json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": [self.pick(&APPS)] }] })
            }
            3 => json!({ "matchExpressions": [{ "key": "app", "operator": "Exists" }] }),
            _ => json!({ "matchLabels": { "app": self.pick(&APPS) } }),
        };
        let port = match self.choices.below(4) {
            0 => json!("admin"),
            1 => json!(9090),
            2 => json!(8080),
            _ => json!("http"),
        };
        let mut spec = Map::new();
        spec.insert("podSelector".to_owned(), selector);
        spec.insert("port".to_owned(), port);
        if self.choices.below(3) != 0 {
            let protocol = self.pick(&["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"]);
            spec.insert("proxyProtocol".to_owned(), json!(protocol));
        }
        let versions = [
            "policy.linkerd.io/v1beta1",
            "policy.linkerd.io/v1beta2",
            "policy.linkerd.io/v1beta3",
        ];
        let mut version = self.pick(&versions);
        if self.choices.once_in(5) {
            // Only the last version has the field.
            version = "policy.linkerd.io/v1beta3";
            spec.insert("accessPolicy".to_owned(), json!(self.mode()));
        }
        self.object((version, "Server"), name, &Value::Object(spec))
    }

    pub(super) fn rate_limit(&mut self) -> Value {
        let spec = json!({
            "targetRef": { "group": "policy.linkerd.io", "kind": "Server", "name": self.pick(&super::SERVERS) },
            "total": { "requestsPerSecond": 100 },
        });
        self.object(
            ("policy.linkerd.io/v1alpha1", "HTTPLocalRateLimitPolicy"),
            "limit",
            &spec,
        )
    }
}
