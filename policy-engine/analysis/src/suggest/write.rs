//! Classes to manifests.

use super::observe::{Class, Facts, Observed, Port, Settings, rpc, speaks_grpc};
use mesh_trust::{SpiffeId, TrustDomain};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Matches of one rule, and rules of one route, that Gateway API allows for sure.
const MATCHES_MAX: usize = 8;
const RULES_MAX: usize = 16;

/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;

/// Manifests, and what is doubtful about them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Suggested {
    /// The objects, in the order that people read them.
    pub objects: Vec<Value>,
    /// What to look at before they are used.
    pub warnings: Vec<String>,
}

/// Writes what was seen as manifests; `home` is the mesh's own trust domain.
pub fn manifests(observed: &Observed<'_>, home: &TrustDomain, settings: Settings) -> Suggested {
    let mut out = Suggested::default();
    for (port, classes) in &observed.classes {
        let Some(facts) = observed.ports.get(port) else {
            continue;
        };
        let mut groups: BTreeMap<BTreeSet<&str>, Vec<&Class>> = BTreeMap::new();
        for (class, clients) in classes {
            let who = clients.keys().map(String::as_str).collect();
            groups.entry(who).or_default().push(class);
            for (id, seen) in clients.iter().filter(|(_, seen)| seen.count < settings.few) {
                out.warnings.push(format!(
                    "{id} was seen only {} times: {} on {}/{}:{}",
                    seen.count,
                    class.text(),
                    port.namespace,
                    port.server,
                    port.port
                ));
            }
            if let Class::Request(_, pattern) = class
                && pattern.is_wide()
            {
                out.warnings.push(format!(
                    "{} on {}/{}:{} stands for more than {} words: is each of them meant?",
                    class.text(),
                    port.namespace,
                    port.server,
                    port.port,
                    settings.words_max
                ));
            }
        }
        let grpc = speaks_grpc(facts, classes.keys());
        if facts.protocol.is_none() {
            out.objects.push(server(
                port,
                facts,
                grpc,
                classes.contains_key(&Class::Bytes),
            ));
        }
        for (number, (who, classes)) in groups.iter().enumerate() {
            let writer = Writer { port, home, grpc };
            out.objects.extend(writer.group(number, who, classes));
        }
    }
    out
}

fn server(port: &Port, facts: &Facts, grpc: bool, bytes: bool) -> Value {
    let protocol = match (grpc, bytes) {
        (true, _) => "gRPC",
        (_, true) => "opaque",
        // A record does not say which HTTP it was.
        (false, false) => "unknown",
    };
    json!({
        "apiVersion": "policy.linkerd.io/v1beta3",
        "kind": "Server",
        "metadata": { "name": port.server, "namespace": port.namespace },
        "spec": {
            "podSelector": { "matchLabels": facts.labels },
            "port": port.port,
            "proxyProtocol": protocol,
        },
    })
}

struct Writer<'a> {
    port: &'a Port,
    home: &'a TrustDomain,
    grpc: bool,
}

impl Writer<'_> {
    /// The objects for classes that the same identities use.
    fn group(&self, number: usize, who: &BTreeSet<&str>, classes: &[&Class]) -> Vec<Value> {
        let base = format!("{}-suggested-{number}", self.port.server);
        let mut out = vec![self.authentication(&base, who)];
        let matches: Vec<Value> = classes.iter().filter_map(|class| self.one(class)).collect();
        let bytes = classes.iter().all(|class| **class == Class::Bytes);
        if matches.is_empty() && !bytes {
            // Requests that no route can name: granting the Server as a whole would grant all others too.
            return Vec::new();
        }
        if bytes {
            out.push(self.policy(
                &base,
                &base,
                ("policy.linkerd.io", "Server", &self.port.server),
            ));
            return out;
        }
        let rules: Vec<Value> = matches
            .chunks(MATCHES_MAX)
            .map(|matches| json!({ "matches": matches }))
            .collect();
        for (part, rules) in rules.chunks(RULES_MAX).enumerate() {
            let name = if part == 0 {
                base.clone()
            } else {
                format!("{base}-{part}")
            };
            let kind = if self.grpc { "GRPCRoute" } else { "HTTPRoute" };
            out.push(self.route(&name, kind, rules));
            out.push(self.policy(&name, &base, ("gateway.networking.k8s.io", kind, &name)));
        }
        out
    }

    fn one(&self, class: &Class) -> Option<Value> {
        let Class::Request(method, pattern) = class else {
            return None;
        };
        let exact = pattern.exact();
        if self.grpc {
            let (service, name) = rpc(exact.as_deref()?)?;
            return Some(json!({ "method": { "service": service, "method": name } }));
        }
        let path = match exact {
            Some(path) => json!({ "type": "Exact", "value": path }),
            None => json!({ "type": "RegularExpression", "value": pattern.regex() }),
        };
        Some(json!({ "method": method, "path": path }))
    }

    fn authentication(&self, name: &str, who: &BTreeSet<&str>) -> Value {
        let (mut accounts, mut others) = (Vec::new(), Vec::new());
        for id in who {
            let parsed = SpiffeId::parse(id).ok();
            let mine = parsed
                .as_ref()
                .filter(|id| id.trust_domain() == self.home)
                .and_then(|id| id.service_account());
            match mine {
                Some((namespace, name)) => accounts.push(
                    json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace }),
                ),
                None => others.push(json!(id)),
            }
        }
        let mut spec = serde_json::Map::new();
        if !accounts.is_empty() {
            spec.insert("identityRefs".to_owned(), Value::Array(accounts));
        }
        if !others.is_empty() {
            spec.insert("identities".to_owned(), Value::Array(others));
        }
        json!({
            "apiVersion": "policy.linkerd.io/v1alpha1",
            "kind": "MeshTLSAuthentication",
            "metadata": self.metadata(name),
            "spec": spec,
        })
    }

    fn route(&self, name: &str, kind: &str, rules: &[Value]) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": self.metadata(name),
            "spec": {
                "parentRefs": [{ "group": "policy.linkerd.io", "kind": "Server", "name": self.port.server }],
                "rules": rules,
            },
        })
    }

    fn policy(&self, name: &str, set: &str, target: (&str, &str, &str)) -> Value {
        let (group, kind, target) = target;
        json!({
            "apiVersion": "policy.linkerd.io/v1alpha1",
            "kind": "AuthorizationPolicy",
            "metadata": self.metadata(name),
            "spec": {
                "targetRef": { "group": group, "kind": kind, "name": shortened(target) },
                "requiredAuthenticationRefs": [{
                    "group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": shortened(set),
                }],
            },
        })
    }

    fn metadata(&self, name: &str) -> Value {
        json!({ "name": shortened(name), "namespace": self.port.namespace })
    }
}

/// A name that Kubernetes takes. Two long names that become one would be a finding, and grant nothing.
fn shortened(name: &str) -> &str {
    let end = name.len().saturating_sub(NAME_BYTES_MAX);
    name.get(end..).unwrap_or(name)
}
