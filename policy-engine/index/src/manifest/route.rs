//! HTTPRoute and GRPCRoute of both groups.
//!
//! Attached to a Server a route says which requests a grant is for; attached to a Service it says where clients send
//! them; attached to an EgressNetwork it says what they may reach. An invalid route stays attached to its Servers with the matches that can be read, so that it takes their requests
//! and denies them; a Service does not accept it, and requests go where they went without it.

use super::core_kinds::Locate;
use super::egress::read_egress_parent;
use super::identity::is_subdomain;
use super::policy_kinds::{GATEWAY_GROUP, POLICY_GROUP, Version, since};
use super::read::{Fields, Reading};
use super::refs::{read_name, read_namespace};
use super::resource::{Key, Route, Rule};
use super::route_backend::{read_backends, read_retry, read_timeouts};
use super::route_filter::{check_together, read_filter};
use super::route_match::{every_request, read_grpc_match, read_http_match};
use super::route_session::read_session;
use super::traffic::{EgressParent, Outbound, ServerParent, ServiceParent};
use super::tree::Node;
use crate::finding::Code;
use mesh_policy::snapshot::{PathMatch, Source};

/// Which route is read: its kind, group and version, and what for.
#[derive(Clone, Copy)]
pub(crate) struct RouteKind<'a> {
    pub(crate) grpc: bool,
    pub(crate) group: &'static str,
    pub(crate) version: Version,
    /// The route's own namespace.
    pub(crate) namespace: &'a str,
    /// A parent is a Server, or might be one: the proxies of its pods apply the route.
    pub(crate) inbound: bool,
    /// A parent is a Service or an EgressNetwork: the proxies of clients apply the route.
    pub(crate) outbound: bool,
}

impl<'a> RouteKind<'a> {
    /// The same, applied by the proxies of clients.
    pub(crate) fn of_clients(mut self) -> Self {
        self.outbound = true;
        self
    }

    /// A route whose parents are not known yet.
    pub(crate) fn new(
        grpc: bool,
        group: &'static str,
        version: Version,
        namespace: &'a str,
    ) -> Self {
        Self {
            grpc,
            group,
            version,
            namespace,
            inbound: false,
            outbound: false,
        }
    }
}

/// What a parent reference names.
pub(super) enum Parent {
    /// A Server of the route's namespace.
    Server(ServerParent),
    /// A Service.
    Service(ServiceParent),
    /// An EgressNetwork, if the reference can be read.
    Egress(Option<EgressParent>),
    /// A Server, but none that the route can attach to.
    NoServer,
    /// What is not ours, or cannot be read well enough.
    Other,
}

/// Reads a route.
pub(crate) fn read_route(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    mut kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Route {
    let mut out = Route::default();
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    for (index, item) in spec
        .optional_list(reading, "parentRefs")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("spec.parentRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let source = locate(item.at, item.end_line);
        match read_parent(reading, &mut fields, &path, kind, &source) {
            Parent::Server(parent) => out.servers.push(parent),
            Parent::Service(parent) => out.services.push(parent),
            Parent::Egress(parent) => {
                out.egress.extend(parent);
                kind.outbound = true;
            }
            Parent::NoServer => kind.inbound = true,
            Parent::Other => {}
        }
        fields.finish(reading);
    }
    kind.inbound |= !out.servers.is_empty();
    kind.outbound |= !out.services.is_empty();
    for (index, item) in spec
        .optional_list(reading, "hostnames")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        out.hostnames.extend(read_hostname(
            reading,
            item,
            &format!("spec.hostnames[{index}]"),
        ));
    }
    if kind.group == GATEWAY_GROUP {
        spec.ignore(&["useDefaultGateways"]);
    }
    if spec.stands("rules") {
        let rules = spec.optional_list(reading, "rules");
        for (index, item) in rules.unwrap_or_default().iter().enumerate() {
            out.rules.extend(read_rule(
                reading,
                item,
                &format!("spec.rules[{index}]"),
                kind,
                locate,
            ));
        }
    } else {
        spec.ignore(&["rules"]);
        out.rules.push(Rule {
            matches: vec![every_request(kind.grpc)],
            filters: Vec::new(),
            outbound: Outbound::default(),
        });
    }
    spec.finish(reading);
    out
}

/// What a parent reference names. A reference whose group or kind cannot be read might name a Server, and counts as if it
/// did: the route is invalid and only denies.
pub(super) fn read_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    route: RouteKind<'_>,
    source: &Source,
) -> Parent {
    let group = fields.optional_text(reading, "group");
    let parent = fields.optional_text(reading, "kind");
    let unclear =
        (group.is_none() && fields.stands("group")) || (parent.is_none() && fields.stands("kind"));
    let (group, parent) = if unclear {
        (POLICY_GROUP, "Server")
    } else {
        (group.unwrap_or(route.group), parent.unwrap_or("Gateway"))
    };
    match (group, parent) {
        ("" | "core", "Service") => read_service_parent(reading, fields, group, route, source),
        (POLICY_GROUP, "Server") => read_server_parent(reading, fields, path, route, source),
        (POLICY_GROUP, "EgressNetwork") => {
            let own = route.namespace;
            Parent::Egress(read_egress_parent(reading, fields, path, own, source))
        }
        _ => read_other_parent(reading, fields, path, (group, parent)),
    }
}

fn read_server_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    route: RouteKind<'_>,
    source: &Source,
) -> Parent {
    let name = fields.required_text(reading, "name");
    let namespace = fields.optional_text(reading, "namespace");
    let port_path = fields.path("port");
    let port = fields.optional(reading, "port");
    port.and_then(|n| reading.port(n, &port_path));
    let section = fields.optional(reading, "sectionName");
    for (what, node) in [("port", port), ("sectionName", section)] {
        if let Some(node) = node {
            let message = format!("`{path}.{what}` may not stand in a reference to a Server");
            reading.problem(node.at, Code::Conflict, message);
        }
    }
    if namespace.is_none_or(|n| n == route.namespace) {
        return name.map_or(Parent::NoServer, |name| {
            Parent::Server(ServerParent {
                name: name.to_owned(),
                namespace_written: namespace.is_some(),
                source: source.clone(),
            })
        });
    }
    let message = format!(
        "`{path}` refers to a Server of another namespace; a route attaches in its own only"
    );
    reading.doubt(fields.at, Code::IdleRoute, message);
    Parent::NoServer
}

/// A reference to a Service whose name or namespace cannot be read refers to none.
fn read_service_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    group: &str,
    route: RouteKind<'_>,
    source: &Source,
) -> Parent {
    let name = read_name(reading, fields, "name", false);
    let namespace_written = fields.stands("namespace");
    let namespace = read_namespace(reading, fields);
    let port_path = fields.path("port");
    let port = fields.optional(reading, "port");
    let port = port.map(|n| reading.port(n, &port_path));
    let section = fields.optional_text(reading, "sectionName");
    let (Some(name), Some(namespace), Some(port)) = (name, namespace, transpose(port)) else {
        return Parent::Other;
    };
    Parent::Service(ServiceParent {
        group: group.to_owned(),
        key: Key::new(namespace.unwrap_or(route.namespace), name),
        namespace_written,
        port,
        section: section.filter(|s| !s.is_empty()).map(str::to_owned),
        source: source.clone(),
    })
}

/// `None` if a port stands that cannot be read: it must not become all ports.
fn transpose(port: Option<Option<u16>>) -> Option<Option<u16>> {
    port.map_or(Some(None), |read| read.map(Some))
}

fn read_other_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    (group, parent): (&str, &str),
) -> Parent {
    fields.required_text(reading, "name");
    fields.optional_text(reading, "namespace");
    let port_path = fields.path("port");
    let port = fields.optional(reading, "port");
    port.and_then(|n| reading.port(n, &port_path));
    fields.optional(reading, "sectionName");
    let (code, message, what) = match (group, parent) {
        (other, "Server") => {
            let message = format!(
                "`{path}` refers to a Server of group `{other}`; Servers are of `{POLICY_GROUP}`"
            );
            (Code::IdleRoute, message, Parent::NoServer)
        }
        (other, "Service") => {
            let message = format!(
                "`{path}` refers to a Service of group `{other}`; write `group: \"\"` for a Service of Kubernetes"
            );
            (Code::IdleRoute, message, Parent::Other)
        }
        (POLICY_GROUP, other) => {
            let message = format!(
                "`{path}` refers to kind `{other}` of `{POLICY_GROUP}`, to which no route attaches; write `kind: Server`"
            );
            (Code::IdleRoute, message, Parent::NoServer)
        }
        _ => return Parent::Other,
    };
    reading.doubt(fields.at, code, message);
    what
}

pub(crate) fn read_hostname(reading: &mut Reading, node: &Node, path: &str) -> Option<String> {
    let text = reading.text(node, path)?;
    let name = text.strip_prefix("*.").unwrap_or(text);
    let address = name.parse::<std::net::IpAddr>().is_ok();
    if is_subdomain(name) && text.len() <= 253 && !address {
        return Some(text.to_owned());
    }
    let message = format!(
        "`{path}: {text}` is not a hostname: lower-case DNS name, `*.` in front or not, no address, no port"
    );
    reading.problem(node.at, Code::BadValue, message);
    None
}

fn read_rule(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<Rule> {
    let mut fields = reading.fields(node, path)?;
    let mut rule = Rule {
        matches: Vec::new(),
        filters: Vec::new(),
        outbound: Outbound::default(),
    };
    if kind.group == GATEWAY_GROUP {
        fields.optional_text(reading, "name");
        if let Some(node) = fields.optional(reading, "sessionPersistence")
            && kind.outbound
        {
            let path = format!("{path}.sessionPersistence");
            rule.outbound.session = read_session(reading, node, &path);
        }
    }
    let listed = fields.stands("matches");
    let items = fields.optional_list(reading, "matches");
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        let read = if kind.grpc {
            read_grpc_match
        } else {
            read_http_match
        };
        rule.matches.extend(read(reading, item, &path));
    }
    if !listed || items.is_some_and(<[Node]>::is_empty) {
        rule.matches.push(every_request(kind.grpc));
    }
    for (index, item) in fields
        .optional_list(reading, "filters")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}.filters[{index}]");
        if let Some(read) = read_filter(reading, item, &path, kind, locate) {
            rule.filters.extend(read.inbound);
            rule.outbound.filters.extend(read.outbound);
        }
    }
    rule.outbound.backends = read_backends(reading, &mut fields, kind, locate);
    read_patience(reading, &mut fields, path, kind, &mut rule.outbound);
    if kind.outbound {
        let backends = rule.outbound.backends.as_ref();
        let has_backends = backends.is_some_and(|all| !all.is_empty());
        let prefix =
            |one: &mesh_policy::snapshot::RouteMatch| matches!(one.path, PathMatch::Prefix(_));
        let prefixes_only = rule.matches.iter().all(prefix);
        let filters = &rule.outbound.filters;
        let beside = (has_backends, prefixes_only);
        check_together(reading, node.at, path, filters, beside);
    }
    fields.finish(reading);
    Some(rule)
}

/// Timeouts and retries, which an HTTPRoute alone has.
fn read_patience(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    kind: RouteKind<'_>,
    out: &mut Outbound,
) {
    if kind.grpc {
        return;
    }
    if let Some(node) = fields.optional(reading, "timeouts") {
        let path = format!("{path}.timeouts");
        if kind.group == POLICY_GROUP {
            since(
                reading,
                node,
                &path,
                kind.version,
                Version::V1Beta3,
                "v1beta3",
            );
        }
        out.timeouts = read_timeouts(reading, node, &path);
    }
    if kind.group == GATEWAY_GROUP
        && let Some(node) = fields.optional(reading, "retry")
    {
        out.retry = read_retry(reading, node, &format!("{path}.retry"));
    }
}
