//! The objects of one namespace. Names are few, so that references meet what they name and objects meet each other.

use crate::mesh::{Make, NAMESPACES, Names};
use mesh_policy::fuzzing::choices::Choices;
use serde_json::{Map, Value, json};

mod broken;
mod cedar;
mod egress;
mod grants;
mod routes;
mod workloads;

pub use broken::break_it;
pub use cedar::{forbid, guard_rails};
pub use egress::egress;

/// Labels `app` of pods, which Servers select by.
pub const APPS: [&str; 2] = ["cart", "web"];

/// Service accounts.
pub const ACCOUNTS: [&str; 3] = ["cart", "web", "batch"];

/// Names of Servers.
pub const SERVERS: [&str; 3] = ["api", "admin", "bytes"];

/// Names of routes.
pub const ROUTES: [&str; 3] = ["read", "write", "all"];

/// Names of authentications.
pub const AUTHENTICATIONS: [&str; 3] = ["near", "far", "friends"];

/// A namespace in the making.
#[derive(Debug)]
pub struct Place<'c, 'd> {
    number: usize,
    names: Names,
    namespace: String,
    choices: &'c mut Choices<'d>,
}

impl<'c, 'd> Place<'c, 'd> {
    /// A namespace, by its number.
    pub fn new(number: usize, names: Names, choices: &'c mut Choices<'d>) -> Self {
        Self {
            number,
            names,
            namespace: names.namespace(number),
            choices,
        }
    }

    /// All objects of the namespace, itself included.
    pub fn all(&mut self, make: Make) -> Vec<Value> {
        let mut objects = vec![self.namespace()];
        self.several(&mut objects, 2, Self::pod);
        self.some_of(&mut objects, &SERVERS, Self::server);
        self.some_of(&mut objects, &ROUTES, Self::http_route);
        self.some_of(&mut objects, &ROUTES[..2], Self::grpc_route);
        self.some_of(&mut objects, &AUTHENTICATIONS, Self::mesh_tls);
        self.some_of(&mut objects, &AUTHENTICATIONS[..2], Self::network);
        self.some_of(
            &mut objects,
            &["p0", "p1", "p2", "p3"],
            Self::authorization_policy,
        );
        self.some_of(&mut objects, &["s0", "s1"], Self::server_authorization);
        if self.choices.once_in(6) {
            objects.push(self.rate_limit());
        }
        if make == Make::WithCedar {
            self.some_of(&mut objects, &["c0", "c1"], Self::cedar_policy);
        }
        objects
    }

    fn several(
        &mut self,
        objects: &mut Vec<Value>,
        at_most: usize,
        one: impl Fn(&mut Self, usize) -> Value,
    ) {
        for number in 0..=self.choices.below(at_most) {
            objects.push(one(self, number));
        }
    }

    /// An object for about two names of three.
    fn some_of(
        &mut self,
        objects: &mut Vec<Value>,
        names: &[&str],
        one: impl Fn(&mut Self, &str) -> Value,
    ) {
        for name in names {
            if self.choices.below(3) != 0 {
                let object = one(self, name);
                objects.push(object);
            }
        }
    }

    fn namespace(&mut self) -> Value {
        let mut meta = Map::new();
        meta.insert("name".to_owned(), json!(self.namespace));
        if self.choices.once_in(3) {
            let mode = self.mode();
            let annotations = json!({ "mesh.internal/default-inbound-policy": mode });
            meta.insert("annotations".to_owned(), annotations);
        }
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": meta })
    }

    /// One of the six default policies, by name.
    fn mode(&mut self) -> &'static str {
        self.pick(&[
            "deny",
            "all-authenticated",
            "all-unauthenticated",
            "cluster-authenticated",
            "cluster-unauthenticated",
            "audit",
        ])
    }

    /// An object of the namespace.
    fn object(&mut self, (api, kind): (&str, &str), name: &str, spec: &Value) -> Value {
        let mut meta = Map::new();
        meta.insert("name".to_owned(), json!(name));
        meta.insert("namespace".to_owned(), json!(self.namespace));
        if self.choices.once_in(3) {
            let year = 2020 + self.choices.below(3);
            let born = format!("{year}-01-01T00:00:00Z");
            meta.insert("creationTimestamp".to_owned(), json!(born));
        }
        json!({ "apiVersion": api, "kind": kind, "metadata": meta, "spec": spec })
    }

    /// A grant's object: some end, at the time of the requests or a second later.
    fn grant(&mut self, kind: (&str, &str), name: &str, spec: &Value) -> Value {
        let mut object = self.object(kind, name, spec);
        let end = match self.choices.below(8) {
            0 => "2026-01-01T00:00:00Z",
            1..4 => "2026-01-01T00:00:01Z",
            _ => return object,
        };
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            let mut annotations = Map::new();
            annotations.insert("mesh.internal/expires".to_owned(), json!(end));
            if self.choices.below(3) != 0 {
                annotations.insert("mesh.internal/break-glass".to_owned(), json!("incident 1"));
                meta.insert(
                    "creationTimestamp".to_owned(),
                    json!("2025-12-31T12:00:00Z"),
                );
            }
            meta.insert("annotations".to_owned(), Value::Object(annotations));
        }
        object
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        self.choices.pick(from).unwrap_or_default()
    }

    /// One of our namespaces, this one twice as often.
    fn some_namespace(&mut self) -> usize {
        match self.choices.below(3) {
            0 => (self.number + 1) % NAMESPACES.len(),
            _ => self.number,
        }
    }
}
