//! Manifests to Istio's objects.
//!
//! Nothing is guessed: what Istio's admission would refuse, what this import does not know, and every broken document is
//! a finding, and one finding ends the import. Half a policy that was understood might be the half that allows.

mod rules;

use super::model::{Action, Labels, Mtls, Objects, Other, PeerAuthentication, Policy, Target};
use super::tokens;
use super::values::port;
use crate::finding::{Code, finding};
use crate::import::TokenAction;
use crate::manifest::meta::{Meta, read_meta};
use crate::manifest::object::source;
use crate::manifest::read::{Fields, Reading};
use crate::manifest::resource::Key;
use crate::manifest::tree::{self, Document, Node, Value};
use mesh_policy::snapshot::{Finding, ObjectRef, Source};
use std::collections::BTreeMap;

const SECURITY: &str = "security.istio.io";

/// Groups whose every kind is about who may come in: what is not known of them is not left out.
const ABOUT_ACCESS: [&str; 3] = [SECURITY, "rbac.istio.io", "authentication.istio.io"];

/// Reads every document of the files.
pub(crate) fn read<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    tokens: TokenAction,
) -> (Objects, Vec<Finding>) {
    let mut reader = Reader {
        objects: Objects::default(),
        findings: Vec::new(),
        tokens,
    };
    for (file, bytes) in files {
        for document in tree::read(bytes) {
            reader.document(file, &document);
        }
    }
    reader.twice();
    reader.findings.sort();
    (reader.objects, reader.findings)
}

struct Reader {
    objects: Objects,
    findings: Vec<Finding>,
    tokens: TokenAction,
}

impl Reader {
    fn document(&mut self, file: &str, document: &Document) {
        for defect in &document.defects {
            let source = source(file, defect.at, defect.at.line);
            self.findings
                .push(finding(defect.code, defect.message.clone(), None, source));
        }
        self.object(file, &document.root, None, None);
    }

    /// An object, or each item of a list. Items of a typed list may leave version and kind out.
    fn object(&mut self, file: &str, root: &Node, api: Option<&str>, kind: Option<&str>) {
        let text = |key| root.get(key).and_then(Node::as_text);
        let (api, kind) = (text("apiVersion").or(api), text("kind").or(kind));
        let (Some(api), Some(kind)) = (api, kind) else {
            if ["apiVersion", "kind"].iter().any(|k| root.get(k).is_some()) {
                let message = "`apiVersion` or `kind` is missing, or is not a string: it cannot be told whether this is a policy";
                self.refuse(Code::NotAnObject, message, file, root);
            }
            return;
        };
        if let (Some(item), Some(Value::List(items))) = (
            kind.strip_suffix("List"),
            root.get("items").map(|n| &n.value),
        ) {
            let typed = (!item.is_empty()).then_some((api, item));
            for node in items {
                self.object(file, node, typed.map(|t| t.0), typed.map(|t| t.1));
            }
            return;
        }
        if kind.ends_with("List") && root.get("items").is_some() {
            self.refuse(Code::NotAnObject, "`items` is not a list", file, root);
            return;
        }
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        if group != "istio.io" && !group.ends_with(".istio.io") {
            return;
        }
        if group == SECURITY && !["v1", "v1beta1"].contains(&version) {
            let message = format!("`{api}` is no version of {kind} that is read (v1beta1, v1)");
            self.refuse(Code::UnknownVersion, message, file, root);
            return;
        }
        match (group, kind) {
            (SECURITY, "AuthorizationPolicy") => self.policy(file, root),
            (SECURITY, "PeerAuthentication") => self.peer(file, root),
            (SECURITY, "RequestAuthentication") => self.tokens(file, root),
            _ if ABOUT_ACCESS.contains(&group) => {
                let message = format!(
                    "{kind} of `{api}` is not known, and may deny what nothing else denies"
                );
                self.refuse(Code::UnknownVersion, message, file, root);
            }
            _ => self.other(file, root, kind),
        }
    }

    fn refuse(&mut self, code: Code, message: impl Into<String>, file: &str, root: &Node) {
        let source = source(file, root.at, root.at.line);
        self.findings
            .push(finding(code, message.into(), None, source));
    }

    fn other(&mut self, file: &str, root: &Node, kind: &str) {
        let metadata = |key| {
            root.get("metadata")
                .and_then(|m| m.get(key))
                .and_then(Node::as_text)
        };
        let (namespace, name) = (metadata("namespace").unwrap_or("default"), metadata("name"));
        self.objects.others.push(Other {
            kind: kind.to_owned(),
            title: format!("{kind} {namespace}/{}", name.unwrap_or("<unnamed>")),
            source: source(file, root.at, root.end_line),
        });
    }

    fn policy(&mut self, file: &str, root: &Node) {
        let mut one = One::new(file, "AuthorizationPolicy");
        let Some((mut fields, meta)) = one.head(root) else {
            return self.findings.extend(one.finish());
        };
        let mut policy = Policy {
            key: meta.key.clone(),
            source: source(file, root.at, root.end_line),
            action: Action::Allow,
            action_source: source(file, root.at, root.at.line),
            provider: None,
            selector: Labels::new(),
            targets: Vec::new(),
            rules: Vec::new(),
            dry_run: one.dry_run(&meta, root),
            tokens: None,
        };
        if let Some(mut spec) = one.spec(&mut fields) {
            one.policy_spec(&mut spec, &mut policy);
            spec.finish(&mut one.reading);
        }
        // Istio knows dry runs of these two actions only.
        policy.dry_run &= matches!(policy.action, Action::Allow | Action::Deny);
        fields.finish(&mut one.reading);
        self.objects.policies.push(policy);
        self.findings.extend(one.finish());
    }

    fn tokens(&mut self, file: &str, root: &Node) {
        let mut one = One::new(file, "RequestAuthentication");
        let Some((mut fields, meta)) = one.head(root) else {
            return self.findings.extend(one.finish());
        };
        let mut policy = Policy {
            key: meta.key,
            source: source(file, root.at, root.end_line),
            action: Action::Deny,
            action_source: source(file, root.at, root.at.line),
            provider: None,
            selector: Labels::new(),
            targets: Vec::new(),
            rules: Vec::new(),
            dry_run: false,
            tokens: Some(Default::default()),
        };
        if let Some(mut spec) = one.spec(&mut fields) {
            one.scope(&mut spec, &mut policy);
            tokens::read(&mut one, &mut spec, &mut policy, self.tokens);
            spec.finish(&mut one.reading);
        }
        fields.finish(&mut one.reading);
        self.objects.policies.push(policy);
        self.findings.extend(one.finish());
    }

    fn peer(&mut self, file: &str, root: &Node) {
        let mut one = One::new(file, "PeerAuthentication");
        let Some((mut fields, meta)) = one.head(root) else {
            return self.findings.extend(one.finish());
        };
        let mut peer = PeerAuthentication {
            key: meta.key.clone(),
            source: source(file, root.at, root.end_line),
            created: meta.created,
            selector: Labels::new(),
            mode: None,
            ports: BTreeMap::new(),
        };
        if let Some(mut spec) = one.spec(&mut fields) {
            peer.selector = one.selector(&mut spec);
            if let Some(node) = spec.optional(&mut one.reading, "mtls") {
                peer.mode = one.mode(node, "spec.mtls");
            }
            let at = spec.at;
            if let Some(node) = spec.optional(&mut one.reading, "portLevelMtls") {
                peer.ports = one.port_modes(node);
            }
            if !peer.ports.is_empty() && peer.selector.is_empty() {
                let message = "`spec.portLevelMtls` needs a `selector` with labels; Istio has no modes of ports without one";
                one.reading.problem(at, Code::Conflict, message);
            }
            spec.finish(&mut one.reading);
        }
        fields.finish(&mut one.reading);
        self.objects.peers.push(peer);
        self.findings.extend(one.finish());
    }

    /// The same object twice: which one Istio has cannot be told.
    fn twice(&mut self) {
        let policies = self.objects.policies.iter().map(|p| (p.title(), &p.source));
        let peers = self.objects.peers.iter().map(|p| (p.title(), &p.source));
        let mut seen: BTreeMap<String, &Source> = BTreeMap::new();
        let mut found = Vec::new();
        for (title, source) in policies.chain(peers) {
            if let Some(first) = seen.get(&title) {
                let message = format!("{title} stands more than once: also at {first}");
                found.push(finding(
                    Code::DuplicateObject,
                    message,
                    None,
                    source.clone(),
                ));
            } else {
                seen.insert(title, source);
            }
        }
        self.findings.extend(found);
    }
}

/// The reading of one object.
pub(super) struct One<'a> {
    file: &'a str,
    kind: &'static str,
    key: Key,
    pub(super) reading: Reading,
}

impl<'a> One<'a> {
    fn new(file: &'a str, kind: &'static str) -> Self {
        Self {
            file,
            kind,
            key: Key::new("default", "<unnamed>"),
            reading: Reading::new(true),
        }
    }

    fn head<'n>(&mut self, root: &'n Node) -> Option<(Fields<'n>, Meta)> {
        let mut fields = self.reading.fields(root, "")?;
        fields.ignore(&["apiVersion", "kind", "status"]);
        let meta = read_meta(&mut self.reading, &mut fields, false, true);
        self.key = meta.key.clone();
        Some((fields, meta))
    }

    /// `spec`, which may be missing or empty: a policy that allows nothing.
    fn spec<'n>(&mut self, fields: &mut Fields<'n>) -> Option<Fields<'n>> {
        let node = fields.lenient(&mut self.reading, "spec")?;
        self.reading.fields(node, "spec")
    }

    fn finish(self) -> Vec<Finding> {
        let object = ObjectRef {
            kind: self.kind.to_owned(),
            namespace: self.key.namespace,
            name: self.key.name,
            source: Source::BuiltIn("import".to_owned()),
        };
        let file = self.file;
        let problems = self.reading.problems.into_iter().map(|problem| {
            let source = source(file, problem.at, problem.at.line);
            let object = ObjectRef {
                source: source.clone(),
                ..object.clone()
            };
            let mut made = finding(problem.code, problem.message, Some(object), source);
            made.hint = problem.hint.or(made.hint);
            made
        });
        problems.collect()
    }

    pub(super) fn at(&self, node: &Node) -> Source {
        source(self.file, node.at, node.end_line)
    }

    fn dry_run(&mut self, meta: &Meta, root: &Node) -> bool {
        match meta.annotations.get("istio.io/dry-run").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let message = format!(
                    "annotation `istio.io/dry-run` must be `true` or `false`, not `{other}`"
                );
                self.reading.problem(root.at, Code::BadValue, message);
                false
            }
        }
    }

    /// `selector` or `targetRefs`.
    fn scope(&mut self, spec: &mut Fields<'_>, policy: &mut Policy) {
        policy.selector = self.selector(spec);
        self.targets(spec, policy);
        if spec.stands("selector") && !policy.targets.is_empty() {
            self.reading.problem(
                spec.at,
                Code::Conflict,
                "`selector` and `targetRefs` exclude each other",
            );
        }
    }

    fn policy_spec(&mut self, spec: &mut Fields<'_>, policy: &mut Policy) {
        self.scope(spec, policy);
        let action = spec.optional(&mut self.reading, "action");
        if let Some(node) = action {
            policy.action_source = self.at(node);
            policy.action = match self.reading.text(node, "spec.action") {
                Some("ALLOW") | None => Action::Allow,
                Some("DENY") => Action::Deny,
                Some("AUDIT") => Action::Audit,
                Some("CUSTOM") => Action::Custom,
                Some(other) => {
                    let message = format!(
                        "`spec.action` must be one of ALLOW, DENY, AUDIT, CUSTOM, not `{other}`"
                    );
                    self.reading.problem(node.at, Code::BadValue, message);
                    Action::Deny
                }
            };
        }
        if let Some(mut provider) = spec.optional_fields(&mut self.reading, "provider") {
            policy.provider = provider
                .required_text(&mut self.reading, "name")
                .map(str::to_owned);
            if policy.action != Action::Custom {
                self.reading.problem(
                    provider.at,
                    Code::Conflict,
                    "`spec.provider` is for the action CUSTOM",
                );
            }
            provider.finish(&mut self.reading);
        }
        for (number, node) in spec
            .optional_list(&mut self.reading, "rules")
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let path = format!("spec.rules[{number}]");
            policy.rules.extend(self.rule(node, &path));
        }
    }

    /// `selector.matchLabels`; nothing selects everything.
    fn selector(&mut self, spec: &mut Fields<'_>) -> Labels {
        let Some(mut selector) = spec.optional_fields(&mut self.reading, "selector") else {
            return Labels::new();
        };
        let node = selector.optional(&mut self.reading, "matchLabels");
        let labels = node
            .and_then(|n| self.reading.text_map(n, "spec.selector.matchLabels"))
            .unwrap_or_default();
        for (key, value) in &labels {
            if key.is_empty() || key.contains('*') || value.contains('*') {
                let message = format!(
                    "`spec.selector.matchLabels.{key}: {value}` is no label; selectors have no wildcards"
                );
                self.reading.problem(selector.at, Code::BadValue, message);
            }
        }
        selector.finish(&mut self.reading);
        labels
    }

    fn targets(&mut self, spec: &mut Fields<'_>, policy: &mut Policy) {
        let one = spec
            .optional(&mut self.reading, "targetRef")
            .map(|n| (n, "spec.targetRef".to_owned()));
        let list = spec
            .optional_list(&mut self.reading, "targetRefs")
            .unwrap_or_default();
        let list = list
            .iter()
            .enumerate()
            .map(|(n, node)| (node, format!("spec.targetRefs[{n}]")));
        for (node, path) in one.into_iter().chain(list) {
            let Some(mut fields) = self.reading.fields(node, &path) else {
                continue;
            };
            fields.optional_text(&mut self.reading, "group");
            fields.optional_text(&mut self.reading, "namespace");
            let kind = fields.required_text(&mut self.reading, "kind");
            let name = fields.required_text(&mut self.reading, "name");
            fields.finish(&mut self.reading);
            if let (Some(kind), Some(name)) = (kind, name) {
                policy.targets.push(Target {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    source: self.at(node),
                });
            }
        }
    }

    fn mode(&mut self, node: &Node, path: &str) -> Option<Mtls> {
        let mut fields = self.reading.fields(node, path)?;
        let modes = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"];
        let mode = match fields.choice(&mut self.reading, "mode", &modes) {
            Some("DISABLE") => Some(Mtls::Disable),
            Some("PERMISSIVE") => Some(Mtls::Permissive),
            Some("STRICT") => Some(Mtls::Strict),
            _ => None,
        };
        fields.finish(&mut self.reading);
        mode
    }

    fn port_modes(&mut self, node: &Node) -> BTreeMap<u16, Option<Mtls>> {
        let Value::Map(entries) = &node.value else {
            self.reading
                .expected(node, "spec.portLevelMtls", "a mapping");
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for entry in entries {
            let path = format!("spec.portLevelMtls.{}", entry.key);
            let mode = self.mode(&entry.value, &path);
            match port(&entry.key) {
                Some(port) => _ = out.insert(port, mode),
                None => self.reading.problem(
                    entry.at,
                    Code::BadValue,
                    format!("`{path}` is no port from 1 to 65535"),
                ),
            }
        }
        out
    }
}
