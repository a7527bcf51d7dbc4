//! Authentications, and the policies that require them.

use super::{ACCOUNTS, AUTHENTICATIONS, Place, ROUTES, SERVERS};
use serde_json::{Map, Value, json};

const POLICY: &str = "policy.linkerd.io/v1alpha1";

impl Place<'_, '_> {
    pub(super) fn mesh_tls(&mut self, name: &str) -> Value {
        let spec = match self.choices.below(4) {
            0 => {
                let mut reference = Map::new();
                reference.insert("kind".to_owned(), json!("ServiceAccount"));
                reference.insert("name".to_owned(), json!(self.pick(&ACCOUNTS)));
                if self.choices.below(2) == 0 {
                    let namespace = self.some_namespace();
                    let namespace = self.names.namespace(namespace);
                    reference.insert("namespace".to_owned(), json!(namespace));
                }
                json!({ "identityRefs": [reference] })
            }
            1 => {
                let namespace = self.some_namespace();
                let namespace = self.names.namespace(namespace);
                json!({ "identityRefs": [{ "kind": "Namespace", "name": namespace }] })
            }
            _ => {
                let all: Vec<Value> = (0..=self.choices.below(3))
                    .map(|_| json!(self.identity()))
                    .collect();
                json!({ "identities": all })
            }
        };
        self.object((POLICY, "MeshTLSAuthentication"), name, &spec)
    }

    /// An identity as policies write it: Linkerd's form, a suffix, everyone, or a SPIFFE ID.
    fn identity(&mut self) -> String {
        let account = self.pick(&ACCOUNTS);
        let number = self.some_namespace();
        let namespace = self.names.namespace(number);
        match self.choices.below(6) {
            0 => "*".to_owned(),
            1 => format!("*.{namespace}.serviceaccount.identity.linkerd.cluster.local"),
            2 => self.names.id(number, account),
            3 => "spiffe://partner.example/batch".to_owned(),
            _ => format!("{account}.{namespace}.serviceaccount.identity.linkerd.cluster.local"),
        }
    }

    pub(super) fn network(&mut self, name: &str) -> Value {
        let networks: Vec<Value> = (0..=self.choices.below(2)).map(|_| self.block()).collect();
        self.object(
            (POLICY, "NetworkAuthentication"),
            name,
            &json!({ "networks": networks }),
        )
    }

    fn block(&mut self) -> Value {
        match self.choices.below(5) {
            0 => json!({ "cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"] }),
            1 => json!({ "cidr": "10.0.0.1" }),
            2 => json!({ "cidr": "::/0" }),
            3 => json!({ "cidr": "0.0.0.0/0", "except": ["192.168.0.0/16", "10.1.0.1/32"] }),
            _ => json!({ "cidr": "10.1.0.0/16" }),
        }
    }

    pub(super) fn authorization_policy(&mut self, name: &str) -> Value {
        let mut spec = Map::new();
        let target = match self.choices.below(6) {
            0 => json!({ "kind": "Namespace", "name": self.namespace }),
            1 => {
                json!({ "group": "policy.linkerd.io", "kind": "HTTPRoute", "name": self.pick(&ROUTES) })
            }
            2 => {
                json!({ "group": "gateway.networking.k8s.io", "kind": self.pick(&["HTTPRoute", "GRPCRoute"]), "name": self.pick(&ROUTES) })
            }
            _ => {
                json!({ "group": "policy.linkerd.io", "kind": "Server", "name": self.pick(&SERVERS) })
            }
        };
        spec.insert("targetRef".to_owned(), target);
        let references: Vec<Value> = match self.choices.below(6) {
            0 => Vec::new(),
            1 => vec![self.account_reference()],
            2 => vec![
                self.reference("NetworkAuthentication"),
                self.reference("MeshTLSAuthentication"),
            ],
            3 => vec![self.reference("NetworkAuthentication")],
            _ => vec![self.reference("MeshTLSAuthentication")],
        };
        spec.insert("requiredAuthenticationRefs".to_owned(), json!(references));
        self.grant((POLICY, "AuthorizationPolicy"), name, &Value::Object(spec))
    }

    fn reference(&mut self, kind: &str) -> Value {
        let mut reference = Map::new();
        reference.insert("group".to_owned(), json!("policy.linkerd.io"));
        reference.insert("kind".to_owned(), json!(kind));
        reference.insert("name".to_owned(), json!(self.pick(&AUTHENTICATIONS)));
        if self.choices.once_in(4) {
            let namespace = self.some_namespace();
            let namespace = self.names.namespace(namespace);
            reference.insert("namespace".to_owned(), json!(namespace));
        }
        Value::Object(reference)
    }

    fn account_reference(&mut self) -> Value {
        json!({ "kind": "ServiceAccount", "name": self.pick(&ACCOUNTS) })
    }

    pub(super) fn server_authorization(&mut self, name: &str) -> Value {
        let server = match self.choices.below(3) {
            0 => json!({ "selector": { "matchLabels": { "none": "such" } } }),
            1 => json!({ "selector": {} }),
            _ => json!({ "name": self.pick(&SERVERS) }),
        };
        let mut client = match self.choices.below(5) {
            0 => json!({ "unauthenticated": true }),
            1 => json!({ "meshTLS": { "unauthenticatedTLS": true } }),
            2 => json!({ "meshTLS": { "serviceAccounts": [{ "name": self.pick(&ACCOUNTS) }] } }),
            _ => json!({ "meshTLS": { "identities": [self.identity()] } }),
        };
        if let Some(client) = client.as_object_mut()
            && self.choices.once_in(3)
        {
            let block = self.block();
            client.insert("networks".to_owned(), json!([block]));
        }
        self.grant(
            ("policy.linkerd.io/v1beta1", "ServerAuthorization"),
            name,
            &json!({ "server": server, "client": client }),
        )
    }
}
