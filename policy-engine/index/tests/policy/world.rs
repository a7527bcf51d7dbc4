//! A mesh out of text, and clients that ask it.

use mesh_policy::decide::{Generation, Phase, Verdict};
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy::snapshot::{Finding, SnapshotData};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, IndexConfig, Mode, WorkloadKey, load};
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::BTreeMap;

/// When decisions are made: 2026-01-01T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

/// A mesh of manifests.
pub(crate) struct World {
    pub(crate) index: Index,
}

/// Namespace `shop` with the pods `cart` (8080 `http`, 9090 `admin`) and `web`.
pub(crate) const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  serviceAccountName: cart
  containers:
  - name: app
    ports: [{containerPort: 8080, name: http}, {containerPort: 9090, name: admin}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, containers: [{name: app}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
";

/// A Server `cart` on port `http` of the pods of `cart`.
pub(crate) const SERVER: &str = "
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: cart, namespace: shop}
spec: {podSelector: {matchLabels: {app: cart}}, port: http, proxyProtocol: HTTP/1}
";

/// Everyone with an identity.
pub(crate) const MESHED: &str = "
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: meshed, namespace: shop}
spec: {identities: ['*']}
";

/// The address of [`Ask::plain`] alone.
pub(crate) const NETWORK: &str = "
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: near, namespace: shop}
spec: {networks: [{cidr: 10.1.2.3}]}
";

/// A request for which no permit holds.
pub(crate) const DENIED: &str = "permit 403";

/// [`SHOP`] with annotations on the pod `cart`.
pub(crate) fn annotated_pod(annotations: &str) -> String {
    SHOP.replace(
        "metadata: {name: cart, namespace: shop,",
        &format!("metadata: {{name: cart, annotations: {{{annotations}}}, namespace: shop,"),
    )
}

/// [`SHOP`] with annotations on the namespace.
pub(crate) fn annotated_namespace(annotations: &str) -> String {
    SHOP.replace(
        "metadata: {name: shop}",
        &format!("metadata: {{name: shop, annotations: {{{annotations}}}}}"),
    )
}

/// A ServerAuthorization named `s`.
pub(crate) fn server_authorization(server: &str, client: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {{name: s, namespace: shop}}\nspec: {{server: {server}, client: {client}}}\n"
    )
}

pub(crate) fn config() -> IndexConfig {
    IndexConfig::new(TrustDomain::parse("cluster.local").unwrap())
}

/// An AuthorizationPolicy on a target (`Server cart`), requiring `refs` (`MeshTLSAuthentication meshed`).
pub(crate) fn policy(name: &str, target: &str, refs: &[&str]) -> String {
    let split = |text: &str| {
        text.split_once(' ')
            .map(|(k, n)| (k.to_owned(), n.to_owned()))
            .unwrap()
    };
    let group = |kind: &str| match kind {
        "ServiceAccount" | "Namespace" => "",
        "GRPCRoute" => "gateway.networking.k8s.io",
        _ => "policy.linkerd.io",
    };
    let one = |text: &str| {
        let (kind, name) = split(text);
        format!("{{group: '{}', kind: {kind}, name: {name}}}", group(&kind))
    };
    let refs: Vec<String> = refs.iter().map(|r| one(r)).collect();
    format!(
        "\n---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRef: {}\n  requiredAuthenticationRefs: [{}]\n",
        one(target),
        refs.join(", ")
    )
}

/// An HTTPRoute on Server `cart` with one rule for one path.
pub(crate) fn route(name: &str, path: &str) -> String {
    format!(
        "\n---\napiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: cart}}]\n  rules: [{{matches: [{{path: {path}}}]}}]\n"
    )
}

/// An object that was created at the start of a year.
pub(crate) fn dated(year: &str, object: &str) -> String {
    let created = format!("metadata: {{creationTimestamp: '{year}-01-01T00:00:00Z', ");
    object.replace("metadata: {", &created)
}

pub(crate) fn join(parts: &[&str]) -> String {
    parts.join("\n---\n")
}

impl World {
    pub(crate) fn of(parts: &[&str]) -> Self {
        Self::with(&config(), parts)
    }

    pub(crate) fn with(config: &IndexConfig, parts: &[&str]) -> Self {
        let loaded = load([("all.yaml".to_owned(), join(parts).into_bytes())]);
        Self {
            index: Index::build(&loaded, config),
        }
    }

    pub(crate) fn default_policy(mode: Mode, parts: &[&str]) -> Self {
        Self::with(
            &IndexConfig {
                default_policy: mode,
                ..config()
            },
            parts,
        )
    }

    pub(crate) fn decide(&self, ask: &Ask) -> DecisionRecord {
        Replay::new(&self.index, NOW).decide(&ask.0)
    }

    /// `allow`, or phase and status of the denial.
    pub(crate) fn answer(&self, ask: &Ask) -> String {
        let record = self.decide(ask);
        match record.verdict {
            Verdict::Allow => {
                assert_eq!(
                    record.phase,
                    Phase::Permit,
                    "an allow is decided by permits"
                );
                "allow".to_owned()
            }
            Verdict::Deny => {
                let phase = serde_json::to_value(record.phase).unwrap();
                let status = record.status.map_or("-".to_owned(), |s| s.to_string());
                format!("{} {status}", phase.as_str().unwrap())
            }
        }
    }

    pub(crate) fn reasons(&self, ask: &Ask) -> Vec<String> {
        self.decide(ask).reasons
    }

    pub(crate) fn snapshot(&self, namespace: &str, name: &str) -> SnapshotData {
        let key = WorkloadKey {
            namespace: namespace.into(),
            name: name.into(),
        };
        self.index.snapshot(&key, Generation(1)).unwrap()
    }

    pub(crate) fn findings(&self, code: &str) -> Vec<&Finding> {
        self.index
            .findings()
            .iter()
            .filter(|f| f.code == code)
            .collect()
    }

    /// Codes of severity error.
    pub(crate) fn errors(&self) -> Vec<&str> {
        let errors = self
            .index
            .findings()
            .iter()
            .filter(|f| f.severity == mesh_policy::snapshot::Severity::Error);
        errors.map(|f| f.code.as_str()).collect()
    }
}

/// A question, built up.
#[derive(Clone, Debug)]
pub(crate) struct Ask(pub(crate) RequestRecord);

impl Ask {
    fn from(spiffe_id: Option<String>) -> Self {
        Self(RequestRecord {
            client: ClientRecord {
                spiffe_id,
                ip: Some("10.1.2.3".into()),
                tls: None,
            },
            server: TargetRecord {
                namespace: "shop".into(),
                pod: Some("cart".into()),
                service: None,
                port: 8080,
            },
            protocol: Protocol::Http,
            method: Some("GET".into()),
            path: Some("/".into()),
            host: Some("cart".into()),
            headers: BTreeMap::new(),
        })
    }

    /// The question in one line, for tables.
    pub(crate) fn describe(&self) -> String {
        let record = &self.0;
        let who = match (&record.client.spiffe_id, record.client.tls) {
            (Some(id), _) => id
                .trim_start_matches("spiffe://cluster.local/ns/")
                .to_owned(),
            (None, Some(true)) => "tls".to_owned(),
            (None, _) => "plain".to_owned(),
        };
        let ip = record.client.ip.as_deref().unwrap_or("-");
        let what = match record.protocol {
            Protocol::Tcp => "bytes".to_owned(),
            _ => {
                let method = record.method.as_deref().unwrap_or("gRPC");
                format!("{method} {}", record.path.as_deref().unwrap_or("-"))
            }
        };
        let host = record.host.as_deref().filter(|h| *h != "cart");
        let host = host.map_or(String::new(), |h| format!(" host {h}"));
        let headers = &record.headers;
        let headers = if headers.is_empty() {
            String::new()
        } else {
            format!(" {headers:?}")
        };
        format!(
            "{who} {ip} -> :{} {what}{host}{headers}",
            record.server.port
        )
    }

    /// A client with the identity of a service account of ours, `shop/web`.
    pub(crate) fn meshed(account: &str) -> Self {
        let (namespace, name) = account.split_once('/').unwrap();
        Self::from(Some(format!(
            "spiffe://cluster.local/ns/{namespace}/sa/{name}"
        )))
    }

    pub(crate) fn identity(id: &str) -> Self {
        Self::from(Some(id.to_owned()))
    }

    pub(crate) fn plain() -> Self {
        Self::from(None)
    }

    /// TLS without identity.
    pub(crate) fn bare_tls() -> Self {
        let mut ask = Self::from(None);
        ask.0.client.tls = Some(true);
        ask
    }

    pub(crate) fn ip(mut self, ip: &str) -> Self {
        self.0.client.ip = Some(ip.to_owned());
        self
    }

    pub(crate) fn pod(mut self, name: &str) -> Self {
        self.0.server.pod = Some(name.to_owned());
        self
    }

    pub(crate) fn service(mut self, name: &str) -> Self {
        self.0.server.pod = None;
        self.0.server.service = Some(name.to_owned());
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.0.server.port = port;
        self
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        self.0.path = Some(path.to_owned());
        self
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.0.method = Some(method.to_owned());
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.0.host = Some(host.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: &str, values: &[&str]) -> Self {
        self.0.headers.insert(
            name.to_owned(),
            values.iter().map(|v| (*v).to_owned()).collect(),
        );
        self
    }

    pub(crate) fn grpc(mut self, path: &str) -> Self {
        self.0.protocol = Protocol::Grpc;
        self.0.method = None;
        self.path(path)
    }

    pub(crate) fn tcp(mut self) -> Self {
        self.0.protocol = Protocol::Tcp;
        (self.0.method, self.0.path, self.0.host) = (None, None, None);
        self
    }
}
