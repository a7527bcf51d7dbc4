//! Documents to objects: which kind, which version, what is wrong, who is who twice.

mod cedar;
mod egress;

use super::checked_only::check_external_workload;
use super::core_kinds::{read_endpoint_slice, read_node, read_pod, read_service, read_template};
use super::egress::{read_egress_network, read_stream_route};
use super::fault_kind::read_fault;
use super::kinds::{GATEWAY_OTHERS, KINDS, Kind, Row};
use super::limit_kinds::{read_federation, read_rate_limit};
use super::meta::{Meta, read_meta};
use super::part::{Part, Reach, mentions};
use super::policy_kinds::{
    GATEWAY_GROUP, POLICY_GROUP, Version, read_authorization_policy, read_mesh_tls,
    read_network_authentication,
};
use super::read::{Fields, Problem, Reading};
use super::reference_grant::read_reference_grant;
use super::resource::{Closed, Object, Resources};
use super::route::{RouteKind, read_route};
use super::server_kinds::{read_server, read_server_authorization};
use super::service_profile::check_service_profile;
use super::shadow::{Shadow, read_shadow};
use super::tree::{self, Defect, Document, Node, Place, Value};
use crate::finding::{Code, finding};
use crate::limits::FINDINGS_EACH_MAX;
use crate::map::HashSet;
use cedar::{check_term, namespace_node};
use mesh_policy::snapshot::{Finding, ObjectRef, Source};
use std::sync::Arc;

/// What one object is read from.
pub(super) struct Input<'a> {
    file: &'a str,
    pub(super) root: &'a Node,
    defects: Vec<&'a Defect>,
    complete: bool,
    /// Whether the text of a faulty document names a Cedar kind.
    names_cedar: bool,
    /// Whether the text of a faulty document names an EgressNetwork.
    names_egress: bool,
    /// `apiVersion` and `kind` that the list around it gives.
    api: Option<&'a str>,
    kind: Option<&'a str>,
}

impl Input<'_> {
    /// Whether nothing of it is missing or in doubt.
    pub(super) fn is_whole(&self) -> bool {
        self.complete && self.defects.is_empty()
    }
}

/// Collects what files hold.
#[derive(Default)]
pub(crate) struct Loader {
    resources: Resources,
    findings: Vec<Finding>,
    /// Hashes of the words of the texts that were read.
    mentions: HashSet<u64>,
    /// Some document is of a Cedar kind, or may have been.
    names_cedar: bool,
}

impl Loader {
    /// Reads one file.
    pub(crate) fn file(&mut self, file: &str, bytes: &[u8]) {
        for document in tree::read(bytes) {
            self.document(file, &document);
        }
    }

    /// Reads documents of a file that stand behind so many lines.
    pub(crate) fn documents(&mut self, file: &str, text: &str, lines_before: u32) {
        for document in tree::read_documents(text, lines_before) {
            self.document(file, &document);
        }
    }

    /// Reads one document of a file, behind so many lines.
    pub(crate) fn text(&mut self, file: &str, text: &str, lines_before: u32) {
        for document in tree::read_at(text, lines_before) {
            self.document(file, &document);
        }
    }

    /// What was read so far, as one part of a load.
    pub(crate) fn part(self) -> Part {
        let reach = Reach::of(&self.resources, self.mentions, self.names_cedar);
        Part {
            resources: self.resources,
            findings: self.findings,
            reach,
        }
    }

    fn document(&mut self, file: &str, document: &Document) {
        mentions(&document.root, &mut self.mentions);
        self.names_cedar |= document.names_cedar;
        let input = Input {
            file,
            root: &document.root,
            defects: document.defects.iter().collect(),
            complete: document.complete,
            names_cedar: document.names_cedar,
            names_egress: document.names_egress,
            api: None,
            kind: None,
        };
        self.any(&input);
    }

    fn any(&mut self, input: &Input<'_>) {
        let text = |key| input.root.get(key).and_then(Node::as_text);
        let kind = text("kind").or(input.kind);
        let api = text("apiVersion").or(input.api);
        if let Some(item_kind) = kind.and_then(|k| k.strip_suffix("List"))
            && input.kind.is_none()
            && input.root.get("items").is_some()
        {
            self.list(input, api, item_kind);
            return;
        }
        match (kind, &input.root.value) {
            (Some(kind), Value::Map(_)) => self.object(input, api, kind),
            // An item of a typed list: its kind is known, and nothing else.
            (Some(kind), _) => self.no_object(input, api, kind),
            (None, Value::Map(_)) => self.without_kind(input, api),
            (None, _) if input.complete && input.defects.is_empty() => {
                let message = format!("expected an object, found {}", input.root.describe());
                self.note(input.file, input.root.at, Code::NotAnObject, message, None);
            }
            (None, _) => self.without_kind(input, api),
        }
    }

    /// A `List`: each item is read as if it stood alone, with the defects that lie in it.
    fn list(&mut self, input: &Input<'_>, api: Option<&str>, item_kind: &str) {
        let Some(Value::List(items)) = input.root.get("items").map(|n| &n.value) else {
            self.defects(input, None);
            self.close(input, None, "the items of a list cannot be read");
            self.maybe_cedar(input, api, "the items of a list cannot be read");
            self.maybe_egress(input, api, "the items of a list cannot be read");
            return;
        };
        let mut claimed = 0;
        for (index, item) in items.iter().enumerate() {
            let next = items.get(index + 1);
            let inside = |d: &&&Defect| d.at >= item.at && next.is_none_or(|n| d.at < n.at);
            let defects: Vec<&Defect> = input.defects.iter().filter(inside).copied().collect();
            claimed += defects.len();
            let typed = !item_kind.is_empty();
            self.any(&Input {
                file: input.file,
                root: item,
                defects,
                complete: input.complete || next.is_some(),
                names_cedar: input.names_cedar,
                names_egress: input.names_egress,
                api: api.filter(|_| typed),
                kind: if typed { Some(item_kind) } else { Some("") }.filter(|k| !k.is_empty()),
            });
        }
        if claimed < input.defects.len() {
            self.defects(input, None);
        }
        if !input.complete || claimed < input.defects.len() {
            self.close(input, None, "a list cannot be read to its end");
            self.maybe_cedar(input, None, "a list cannot be read to its end");
            self.maybe_egress(input, None, "a list cannot be read to its end");
        }
    }

    /// An item of a list of some kind that is no mapping: it says nothing, and may have been meant to close something.
    fn no_object(&mut self, input: &Input<'_>, api: Option<&str>, kind: &str) {
        self.defects(input, None);
        if input.defects.is_empty() {
            let found = input.root.describe();
            let message = format!("expected an object of kind `{kind}`, found {found}");
            self.note(input.file, input.root.at, Code::NotAnObject, message, None);
        }
        let why = format!("an item of a list of kind `{kind}` cannot be read");
        if matches!(kind, "Server" | "Namespace") || !input.complete || !input.defects.is_empty() {
            self.close(input, None, &why);
        }
        self.maybe_cedar(input, api, &why);
        if kind == "EgressNetwork" {
            self.close_egress(input, None, &why);
        }
    }

    /// A document whose kind cannot be told. It may have been a Server.
    fn without_kind(&mut self, input: &Input<'_>, api: Option<&str>) {
        self.defects(input, None);
        let maybe_server = !input.complete
            || !input.defects.is_empty()
            || api.is_some_and(|a| a.starts_with(POLICY_GROUP));
        if input.complete && input.defects.is_empty() {
            self.note(
                input.file,
                input.root.at,
                Code::NotAnObject,
                "`kind` is missing, or is not a string",
                None,
            );
        }
        if maybe_server {
            let namespace = input
                .root
                .get("metadata")
                .and_then(|m| m.get("namespace"))
                .and_then(Node::as_text);
            self.close(
                input,
                namespace,
                "a document cannot be read well enough to tell its kind",
            );
        }
        let why = "a document cannot be read well enough to tell its kind";
        self.maybe_cedar(input, api, why);
        self.maybe_egress(input, api, why);
    }

    fn close(&mut self, input: &Input<'_>, namespace: Option<&str>, why: &str) {
        let source = source(input.file, input.root.at, input.root.end_line);
        let message = match namespace {
            Some(namespace) => format!(
                "{why}; the default policy of namespace `{namespace}` is `deny` until it is mended"
            ),
            None => format!("{why}; every namespace's default policy is `deny` until it is mended"),
        };
        let code = if namespace.is_some() {
            Code::NamespaceClosed
        } else {
            Code::UnknownDocument
        };
        self.findings
            .push(finding(code, message, None, source.clone()));
        let namespace = namespace.map(str::to_owned);
        self.resources.closed.push(Closed {
            namespace,
            why: why.to_owned(),
            source,
        });
    }

    fn defects(&mut self, input: &Input<'_>, object: Option<&ObjectRef>) {
        for defect in &input.defects {
            self.note(
                input.file,
                defect.at,
                defect.code,
                defect.message.clone(),
                object.cloned(),
            );
        }
    }

    fn note(
        &mut self,
        file: &str,
        at: Place,
        code: Code,
        message: impl Into<String>,
        object: Option<ObjectRef>,
    ) {
        self.findings
            .push(finding(code, message, object, source(file, at, at.line)));
    }

    fn problem(&mut self, file: &str, problem: Problem, object: &ObjectRef) {
        let mut made = finding(
            problem.code,
            problem.message,
            Some(object.clone()),
            source(file, problem.at, problem.at.line),
        );
        made.hint = problem.hint.or(made.hint);
        self.findings.push(made);
    }

    fn object(&mut self, input: &Input<'_>, api: Option<&str>, kind_name: &str) {
        // A group without version is of that group; only the core group has none.
        let split = |a| match str::split_once(a, '/') {
            Some((group, version)) => (Some(group), version),
            None if a.contains('.') => (Some(a), ""),
            None => (Some(""), a),
        };
        let (group, version_name) = api.map_or((None, ""), split);
        let row = KINDS
            .iter()
            .find(|r| r.1 == kind_name && group.is_none_or(|g| g == r.0));
        let Some(Row(row_group, row_kind, kind, versions)) = row else {
            self.unknown_kind(input, group.unwrap_or(""), kind_name);
            return;
        };
        let known = versions.iter().find(|(name, _)| *name == version_name);
        let strict = !matches!(
            kind,
            Kind::Namespace
                | Kind::ServiceAccount
                | Kind::Pod
                | Kind::Node
                | Kind::Template
                | Kind::Service
                | Kind::EndpointSlice
        );
        let mut reading = Reading::new(strict);
        if known.is_none() {
            let read: Vec<&str> = versions.iter().map(|(name, _)| *name).collect();
            let message = match api {
                Some(api) => format!(
                    "`{api}` is no version of {row_kind} that is read ({})",
                    read.join(", ")
                ),
                None => format!("`apiVersion` is missing for kind {row_kind}"),
            };
            let place = input.root.get("apiVersion").map_or(input.root.at, |n| n.at);
            reading.problem(place, Code::UnknownVersion, message);
        }
        let version = known.or(versions.last()).map_or(Version::V1, |(_, v)| *v);
        let Some(mut root) = reading.fields(input.root, "") else {
            return;
        };
        root.ignore(&["apiVersion", "kind", "status"]);
        let cluster_wide = matches!(
            kind,
            Kind::Namespace | Kind::Node | Kind::Federation | Kind::ClusterCedarPolicy
        ) || *kind == Kind::Invariant && namespace_node(input).is_none();
        let meta = read_meta(&mut reading, &mut root, cluster_wide, input.complete);
        let context = Context {
            input,
            kind: *kind,
            group: row_group,
            name: row_kind,
            version,
            namespaced: !cluster_wide,
        };
        self.typed(&context, reading, root, meta);
    }

    fn unknown_kind(&mut self, input: &Input<'_>, group: &str, kind: &str) {
        let ours = group.ends_with("linkerd.io") || group == "mesh.internal";
        let silent = matches!(
            (group, kind),
            (
                "mesh.internal",
                "LocalMesh" | "PolicyTest" | "MeshIssuer" | "MeshClusterIssuer"
            ) | ("multicluster.linkerd.io", _)
        );
        let gateway = group == GATEWAY_GROUP && !GATEWAY_OTHERS.contains(&kind);
        let alike = KINDS
            .iter()
            .any(|r| r.1 == kind && (r.0 == POLICY_GROUP || r.0 == "mesh.internal"));
        if silent {
        } else if ours || gateway {
            let message = format!("kind `{kind}` of `{group}` is not read");
            self.note(
                input.file,
                input.root.at,
                Code::UnknownVersion,
                message,
                None,
            );
            if kind.eq_ignore_ascii_case("Server") {
                let namespace = input
                    .root
                    .get("metadata")
                    .and_then(|m| m.get("namespace"))
                    .and_then(Node::as_text);
                self.close(
                    input,
                    Some(namespace.unwrap_or("default")),
                    "a document looks like a Server, but its kind is not",
                );
            }
            self.nearly_cedar(input, group, kind);
        } else if alike {
            let message = format!(
                "`{kind}` of group `{group}` is ignored; the kind of this mesh is in another group"
            );
            self.note(
                input.file,
                input.root.at,
                Code::LooksLikePolicy,
                message,
                None,
            );
        }
        if !input.defects.is_empty() && (ours || gateway || alike) || !input.complete {
            self.defects(input, None);
        }
    }

    fn typed(
        &mut self,
        context: &Context<'_>,
        mut reading: Reading,
        mut root: Fields<'_>,
        mut meta: Meta,
    ) {
        let r = &mut reading;
        let place = (context.input, context.kind);
        let misplaced = match read_shadow(r, place, &meta.annotations) {
            Ok(shadow) => {
                meta.shadow = shadow;
                None
            }
            Err(problem) => Some(problem),
        };
        match context.kind {
            // One fault of theirs does not close all that they might forbid.
            Kind::CedarPolicy | Kind::ClusterCedarPolicy => {
                return self.cedar_policies(context, reading, root, (meta, misplaced));
            }
            // Whose annotation is no business of policy.
            _ if !r.strict => r.doubts.extend(misplaced),
            _ => r.problems.extend(misplaced),
        }
        let own = meta.key.namespace.clone();
        let file = context.input.file;
        let locate = |at: Place, end: u32| source(file, at, end);
        if matches!(
            context.kind,
            Kind::ServerAuthorization | Kind::AuthorizationPolicy
        ) {
            check_term(r, root.at, &meta);
        }
        match context.kind {
            Kind::Namespace => {
                root.ignore(&["spec"]);
                let object = self.object_of(context, reading, root, meta, ());
                if object.key.name == "<unnamed>" {
                    // Its annotations might have closed any namespace.
                    self.close(
                        context.input,
                        None,
                        "the name of a Namespace cannot be read",
                    );
                }
                self.resources.namespaces.push(Arc::new(object));
            }
            Kind::ServiceAccount => {
                let object = self.object_of(context, reading, root, meta, ());
                self.resources.service_accounts.push(Arc::new(object));
            }
            Kind::Pod => {
                let spec = read_pod(r, &mut root, &locate);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.pods.push(Arc::new(object));
            }
            Kind::Node => {
                let spec = read_node(&meta.labels);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.nodes.push(Arc::new(object));
            }
            Kind::Template => {
                let spec = read_template(r, &mut root, context.name, &locate);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.templates.push(Arc::new(object));
            }
            Kind::Service => {
                let spec = read_service(r, &mut root);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.services.push(Arc::new(object));
            }
            Kind::EndpointSlice => {
                let spec = read_endpoint_slice(r, &mut root, &meta.labels);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.endpoint_slices.push(Arc::new(object));
            }
            Kind::Server => {
                let spec = read_server(r, &mut root, &meta.annotations, context.version);
                let placed = meta.placed;
                let object = self.object_of(context, reading, root, meta, spec);
                if !placed {
                    self.close(
                        context.input,
                        None,
                        "the namespace of a Server cannot be read",
                    );
                } else if object.spec.selects.is_none() || object.spec.port.is_none() {
                    let namespace = object.key.namespace.clone();
                    self.close(
                        context.input,
                        Some(&namespace),
                        &format!("selector or port of {} cannot be read", object.title()),
                    );
                }
                self.resources.servers.push(Arc::new(object));
            }
            Kind::ServerAuthorization => {
                let spec = read_server_authorization(r, &mut root, &own);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.server_authorizations.push(Arc::new(object));
            }
            Kind::AuthorizationPolicy => {
                let spec =
                    read_authorization_policy(r, &mut root, &own, &meta.annotations, &locate);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.authorization_policies.push(Arc::new(object));
            }
            Kind::MeshTls => {
                let spec = read_mesh_tls(r, &mut root, &own);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.mesh_tls.push(Arc::new(object));
            }
            Kind::NetworkAuthentication => {
                let spec = read_network_authentication(r, &mut root);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources
                    .network_authentications
                    .push(Arc::new(object));
            }
            Kind::RateLimit => {
                let spec = read_rate_limit(r, &mut root, &own);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.rate_limits.push(Arc::new(object));
            }
            Kind::HttpFault => {
                let spec = read_fault(r, &mut root, meta.created);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.faults.push(Arc::new(object));
            }
            Kind::HttpRoute | Kind::GrpcRoute => {
                let grpc = context.kind == Kind::GrpcRoute;
                let kind = RouteKind::new(grpc, context.group, context.version, &own);
                let spec = read_route(r, &mut root, kind, &locate);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.routes.push(Arc::new(object));
            }
            Kind::TlsRoute | Kind::TcpRoute => {
                let names_hosts = context.kind == Kind::TlsRoute;
                let kind = RouteKind::new(false, context.group, context.version, &own).of_clients();
                let spec = read_stream_route(r, &mut root, kind, names_hosts, &locate);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.routes.push(Arc::new(object));
            }
            Kind::ReferenceGrant => {
                let spec = read_reference_grant(r, &mut root);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.reference_grants.push(Arc::new(object));
            }
            Kind::Federation => {
                let spec = read_federation(r, &mut root);
                let object = self.object_of(context, reading, root, meta, spec);
                self.resources.federations.push(Arc::new(object));
            }
            Kind::CedarPolicy | Kind::ClusterCedarPolicy => {}
            Kind::Invariant => self.invariant(context, reading, root, meta),
            Kind::EgressNetwork => {
                let network = read_egress_network(r, &mut root);
                let placed = meta.placed;
                let object = self.object_of(context, reading, root, meta, network);
                if !placed {
                    let why = "the namespace of an EgressNetwork cannot be read";
                    self.close_egress(context.input, None, why);
                }
                self.resources.egress_networks.push(Arc::new(object));
            }
            Kind::ServiceProfile => {
                check_service_profile(r, &mut root);
                self.object_of(context, reading, root, meta, ());
            }
            Kind::ExternalWorkload => {
                check_external_workload(r, &mut root, context.version == Version::V1Alpha1);
                self.object_of(context, reading, root, meta, ());
            }
        }
    }

    /// Closes the reading of an object: unknown fields, findings, validity.
    fn object_of<T>(
        &mut self,
        context: &Context<'_>,
        mut reading: Reading,
        root: Fields<'_>,
        meta: Meta,
        spec: T,
    ) -> Object<T> {
        root.finish(&mut reading);
        let input = context.input;
        let mut object = Object {
            key: meta.key,
            kind: context.name,
            group: context.group,
            namespaced: context.namespaced,
            labels: meta.labels,
            annotations: meta.annotations,
            created: meta.created,
            generation: meta.generation,
            owners: meta.owners,
            shadow: meta.shadow,
            source: source(input.file, input.root.at, input.root.end_line),
            invalid: None,
            spec,
        };
        let first = reading.problems.first().map(|p| p.message.clone());
        let first = first.or_else(|| input.defects.first().map(|d| d.message.clone()));
        let spoiled = (reading.spoiled || !input.complete)
            .then(|| "part of the document cannot be read".to_owned());
        object.invalid = first.or(spoiled);
        self.resources.shadowed |= object.shadow != Shadow::No;
        let reference = object.reference();
        self.defects(input, Some(&reference));
        let mut all = reading.problems;
        all.extend(reading.doubts);
        let rest = all.split_off(all.len().min(FINDINGS_EACH_MAX));
        let more = rest.len();
        all.extend(rest.into_iter().next().map(|first| Problem {
            message: format!("and {more} more in this object"),
            ..first
        }));
        for problem in all {
            self.problem(input.file, problem, &reference);
        }
        object
    }
}

/// What is known of an object before its fields are read.
struct Context<'a> {
    input: &'a Input<'a>,
    kind: Kind,
    group: &'static str,
    name: &'static str,
    version: Version,
    namespaced: bool,
}

pub(crate) fn source(file: &str, at: Place, end_line: u32) -> Source {
    Source::File {
        file: file.to_owned(),
        line: at.line,
        column: at.column,
        end_line: end_line.max(at.line),
    }
}
