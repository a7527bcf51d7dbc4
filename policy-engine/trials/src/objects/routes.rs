//! HTTPRoutes and GRPCRoutes on Servers.

use super::{Place, SERVERS};
use serde_json::{Map, Value, json};

/// Paths that routes name. Requests ask for these and for their neighbours.
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/healthz", "/shop.Cart"];

impl Place<'_, '_> {
    pub(super) fn http_route(&mut self, name: &str) -> Value {
        let api = self.pick(&[
            "policy.linkerd.io/v1beta3",
            "policy.linkerd.io/v1beta2",
            "gateway.networking.k8s.io/v1",
        ]);
        let one = Self::http_match;
        self.route((api, "HTTPRoute"), name, one)
    }

    pub(super) fn grpc_route(&mut self, name: &str) -> Value {
        self.route(
            ("gateway.networking.k8s.io/v1", "GRPCRoute"),
            name,
            Self::grpc_match,
        )
    }

    fn route(&mut self, kind: (&str, &str), name: &str, one: impl Fn(&mut Self) -> Value) -> Value {
        let mut spec = Map::new();
        let parent =
            json!({ "group": "policy.linkerd.io", "kind": "Server", "name": self.pick(&SERVERS) });
        spec.insert("parentRefs".to_owned(), json!([parent]));
        if self.choices.once_in(4) {
            let host = self.pick(&["cart", "*.example", "shop.example"]);
            spec.insert("hostnames".to_owned(), json!([host]));
        }
        let rules: Vec<Value> = (0..=self.choices.below(2))
            .map(|_| {
                let matches: Vec<Value> = (0..=self.choices.below(2)).map(|_| one(self)).collect();
                json!({ "matches": matches })
            })
            .collect();
        spec.insert("rules".to_owned(), json!(rules));
        self.object(kind, name, &Value::Object(spec))
    }

    fn http_match(&mut self) -> Value {
        let mut all = Map::new();
        let kind = self.pick(&["PathPrefix", "PathPrefix", "Exact", "RegularExpression"]);
        let value = match kind {
            "RegularExpression" => self.pick(&["/a(/.*)?", "/[a-z]+", "/.*"]),
            _ => self.pick(&PATHS),
        };
        if self.choices.below(5) != 0 {
            all.insert("path".to_owned(), json!({ "type": kind, "value": value }));
        }
        if self.choices.once_in(3) {
            let method = self.pick(&["GET", "POST"]);
            all.insert("method".to_owned(), json!(method));
        }
        if self.choices.once_in(5) {
            all.insert("headers".to_owned(), self.header());
        }
        if self.choices.once_in(6) {
            let query = json!([{ "name": "q", "value": self.pick(&["1", "2"]) }]);
            all.insert("queryParams".to_owned(), query);
        }
        Value::Object(all)
    }

    fn header(&mut self) -> Value {
        json!([{ "name": "x-team", "value": self.pick(&["blue", "red"]) }])
    }

    fn grpc_match(&mut self) -> Value {
        let mut all = Map::new();
        let method = match self.choices.below(4) {
            0 => json!({ "service": "shop.Cart" }),
            1 => json!({ "method": "Get" }),
            2 => json!({ "type": "RegularExpression", "service": "shop\\..*" }),
            _ => json!({ "service": "shop.Cart", "method": self.pick(&["Get", "Put"]) }),
        };
        all.insert("method".to_owned(), method);
        if self.choices.once_in(5) {
            all.insert("headers".to_owned(), self.header());
        }
        Value::Object(all)
    }
}
