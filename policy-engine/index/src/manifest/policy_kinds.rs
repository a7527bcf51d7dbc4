//! The kinds of `policy.linkerd.io` and `mesh.internal` that decide: checked as Linkerd's admission webhooks do, and
//! where those fail open, more strictly (the settled readings of the book).

use super::core_kinds::{Locate, read_port_ref};
use super::identity::{Identity, is_label, is_subdomain};
use super::network::read_networks;
use super::read::{Fields, Reading};
use super::resource::{
    AuthenticationKind, AuthenticationRef, AuthorizationPolicy, Federation, Key, MeshTls, NetworkEntry, RateLimit,
    SaClient, Selects, Server, ServerAuthorization, Target,
};
use super::selector::read_selector;
use super::tree::Node;
use crate::Mode;
use crate::finding::Code;
use crate::limits::RATE_MAX;
use mesh_policy::snapshot::{PathOptions, ServerProtocol};
use mesh_trust::TrustDomain;
use std::collections::BTreeMap;

/// The group of Linkerd's policy kinds.
pub(crate) const POLICY_GROUP: &str = "policy.linkerd.io";
/// The group of Gateway API.
pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Version of a kind, by its place in the list of versions that the kind has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1Alpha1,
    V1Beta1,
    V1Beta2,
    V1Beta3,
    V1,
}

/// A field that older versions of the kind do not have (settled reading 14).
pub(crate) fn since(reading: &mut Reading, node: &Node, path: &str, has: Version, needs: Version, needs_text: &str) {
    if has < needs {
        let message = format!("`{path}` exists from {needs_text} on, which is newer than this object's version");
        reading.problem(node.at, Code::UnknownField, message);
    }
}

/// Reads a Server.
pub(crate) fn read_server(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    annotations: &BTreeMap<String, String>,
    version: Version,
) -> Server {
    let mut server = Server {
        selects: None,
        port: None,
        protocol: ServerProtocol::Unknown,
        access: Mode::Deny,
        paths: read_path_options(reading, root, annotations),
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else { return server };
    let pods = spec.optional(reading, "podSelector");
    let external = spec.optional(reading, "externalWorkloadSelector");
    server.selects = pods.and_then(|n| read_selector(reading, n, "spec.podSelector")).map(Selects::Pods);
    if let Some(node) = external {
        since(reading, node, "spec.externalWorkloadSelector", version, Version::V1Beta2, "v1beta2");
        let readable = read_selector(reading, node, "spec.externalWorkloadSelector").is_some();
        if spec.stands("podSelector") {
            let message = "`spec.podSelector` and `spec.externalWorkloadSelector` exclude each other";
            reading.problem(node.at, Code::Conflict, message);
        } else if readable && version >= Version::V1Beta2 {
            server.selects = Some(Selects::External);
        }
    } else if !spec.stands("podSelector") && !spec.stands("externalWorkloadSelector") {
        reading.problem(spec.at, Code::Missing, "`spec.podSelector` is missing (`{}` selects every pod of the namespace)");
    }
    server.port = spec.required(reading, "port").and_then(|n| read_port_ref(reading, n, "spec.port"));
    let protocols = ["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"];
    server.protocol = match spec.choice(reading, "proxyProtocol", &protocols) {
        Some("HTTP/1") => ServerProtocol::Http1,
        Some("HTTP/2") => ServerProtocol::Http2,
        Some("gRPC") => ServerProtocol::Grpc,
        Some("opaque") => ServerProtocol::Opaque,
        Some("TLS") => ServerProtocol::Tls,
        _ => ServerProtocol::Unknown,
    };
    if let Some(node) = spec.optional(reading, "accessPolicy") {
        since(reading, node, "spec.accessPolicy", version, Version::V1Beta3, "v1beta3");
        server.access = read_mode(reading, node, "spec.accessPolicy").unwrap_or_default();
    }
    spec.finish(reading);
    server
}

fn read_mode(reading: &mut Reading, node: &Node, path: &str) -> Option<Mode> {
    match reading.text(node, path)?.parse::<Mode>() {
        Ok(mode) => Some(mode),
        Err(error) => {
            reading.problem_with_hint(node.at, Code::BadValue, format!("`{path}`: {error}"), Code::BadDefault.hint().into());
            None
        }
    }
}

fn read_path_options(reading: &mut Reading, root: &Fields<'_>, annotations: &BTreeMap<String, String>) -> PathOptions {
    let mut keep = |name: &str| match annotations.get(name).map(String::as_str) {
        Some("keep") => true,
        Some(other) => {
            let message = format!("annotation `{name}` may only be `keep`, not `{other}`");
            reading.problem(root.at, Code::BadValue, message);
            false
        }
        None => false,
    };
    PathOptions { keep_escapes: keep("mesh.internal/path-escapes"), keep_parameters: keep("mesh.internal/path-parameters") }
}

/// Reads a ServerAuthorization.
pub(crate) fn read_server_authorization(reading: &mut Reading, root: &mut Fields<'_>, own: &str) -> ServerAuthorization {
    let mut out = ServerAuthorization { target: None, networks: None, client: SaClient::Nobody };
    let Some(mut spec) = root.required_fields(reading, "spec") else { return out };
    if let Some(mut server) = spec.required_fields(reading, "server") {
        let name = server.optional_text(reading, "name");
        let selector = server.optional(reading, "selector");
        out.target = match (name, selector) {
            (Some(name), None) if !server.stands("selector") => Some(Target::Server(name.to_owned())),
            (None, Some(node)) if !server.stands("name") => {
                read_selector(reading, node, "spec.server.selector").map(Target::Servers)
            }
            _ => {
                let message = "exactly one of `spec.server.name` and `spec.server.selector` must stand";
                reading.problem(server.at, Code::Conflict, message);
                None
            }
        };
        server.finish(reading);
    }
    if let Some(mut client) = spec.required_fields(reading, "client") {
        // INVARIANT: `networks` that stand but cannot be read never become the cluster networks.
        if client.stands("networks") {
            let items = client.optional_list(reading, "networks").unwrap_or_default();
            out.networks = Some(read_networks(reading, items, "spec.client.networks"));
        } else {
            client.ignore(&["networks"]);
        }
        out.client = read_client(reading, &mut client, own);
        client.finish(reading);
    }
    spec.finish(reading);
    out
}

fn read_client(reading: &mut Reading, client: &mut Fields<'_>, own: &str) -> SaClient {
    let open = client.optional(reading, "unauthenticated").and_then(|n| reading.boolean(n, "spec.client.unauthenticated"));
    let Some(mut tls) = client.optional_fields(reading, "meshTLS") else {
        return if open == Some(true) { SaClient::Unauthenticated } else { SaClient::Nobody };
    };
    if open == Some(true) {
        reading.problem(tls.at, Code::Conflict, "`unauthenticated` and `meshTLS` exclude each other");
    }
    let any = tls.optional(reading, "unauthenticatedTLS").and_then(|n| reading.boolean(n, "spec.client.meshTLS.unauthenticatedTLS"));
    let mut members = Vec::new();
    let identities = tls.optional_list(reading, "identities").unwrap_or_default();
    members.extend(read_identities(reading, identities, "spec.client.meshTLS.identities"));
    for (index, item) in tls.optional_list(reading, "serviceAccounts").unwrap_or_default().iter().enumerate() {
        let path = format!("spec.client.meshTLS.serviceAccounts[{index}]");
        let Some(mut account) = reading.fields(item, &path) else { continue };
        let name = read_name(reading, &mut account, "name", true);
        let namespace = read_namespace(reading, &mut account).map(|n| n.unwrap_or(own).to_owned());
        account.finish(reading);
        if let (Some(namespace), Some(name)) = (namespace, name) {
            members.push(Identity::ServiceAccount { namespace, name: name.to_owned() });
        }
    }
    if any == Some(true) && (tls.stands("identities") || tls.stands("serviceAccounts")) {
        reading.problem(tls.at, Code::Conflict, "`unauthenticatedTLS` excludes `identities` and `serviceAccounts`");
    }
    tls.finish(reading);
    if any == Some(true) { SaClient::AnyTls } else { SaClient::Identities(members) }
}

fn read_identities(reading: &mut Reading, items: &[Node], path: &str) -> Vec<Identity> {
    let mut out = Vec::new();
    for (index, node) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(text) = reading.text(node, &path) else { continue };
        match Identity::parse(text) {
            Ok(identity) => out.push(identity),
            Err(why) => reading.problem(node.at, Code::BadValue, format!("`{path}: {text}` is not an identity: {why}")),
        }
    }
    out
}

fn read_name<'n>(reading: &mut Reading, fields: &mut Fields<'n>, key: &'static str, dots: bool) -> Option<&'n str> {
    let path = fields.path(key);
    let at = fields.at;
    let name = fields.required_text(reading, key)?;
    if (dots && is_subdomain(name)) || is_label(name) {
        return Some(name);
    }
    reading.problem(at, Code::BadValue, format!("`{path}: {name}` is not the name of an object"));
    None
}

/// The `namespace` of a reference: `Some(None)` if it is not given, `None` if it cannot be read.
fn read_namespace<'n>(reading: &mut Reading, fields: &mut Fields<'n>) -> Option<Option<&'n str>> {
    let (path, at) = (fields.path("namespace"), fields.at);
    let stands = fields.stands("namespace");
    match fields.optional_text(reading, "namespace") {
        Some(name) if is_label(name) => Some(Some(name)),
        Some(name) => {
            reading.problem(at, Code::BadValue, format!("`{path}: {name}` is not the name of a namespace"));
            None
        }
        None if stands => None,
        None => Some(None),
    }
}

/// Group and kind of a reference; the core group may be written `core`, empty or not at all.
fn read_kind<'n>(reading: &mut Reading, fields: &mut Fields<'n>) -> Option<(&'n str, &'n str)> {
    let group = fields.optional_text(reading, "group");
    let group_spoiled = group.is_none() && fields.stands("group");
    let kind = fields.required_text(reading, "kind")?;
    if group_spoiled {
        return None;
    }
    let group = group.unwrap_or("");
    Some((if group == "core" { "" } else { group }, kind))
}

fn refuse_kind(reading: &mut Reading, fields: &Fields<'_>, path: &str, group: &str, kind: &str, wanted: &str) {
    let (at, needs) = (fields.at, [("Server", POLICY_GROUP), ("MeshTLSAuthentication", POLICY_GROUP), ("NetworkAuthentication", POLICY_GROUP), ("HTTPRoute", POLICY_GROUP), ("GRPCRoute", GATEWAY_GROUP)]);
    let right_group = needs.iter().find(|(k, g)| *k == kind && *g != group && wanted.contains(kind));
    let shown = if group.is_empty() { "the core group".to_owned() } else { format!("group `{group}`") };
    let message = format!("`{path}` must be {wanted}, not `{kind}` of {shown}");
    match right_group {
        Some((_, needs)) => reading.problem_with_hint(at, Code::BadValue, message, format!("add `group: {needs}`")),
        None => reading.problem(at, Code::BadValue, message),
    }
}

/// Reads an AuthorizationPolicy.
pub(crate) fn read_authorization_policy(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    own: &str,
    annotations: &BTreeMap<String, String>,
    locate: Locate<'_>,
) -> AuthorizationPolicy {
    let open = annotations.get("mesh.internal/allow-unauthenticated").map(|reason| reason.trim().to_owned());
    let mut out = AuthorizationPolicy { target: None, authentications: Vec::new(), open };
    if out.open.as_deref() == Some("") {
        reading.problem(root.at, Code::BadValue, "annotation `mesh.internal/allow-unauthenticated` must give a reason");
    }
    let Some(mut spec) = root.required_fields(reading, "spec") else { return out };
    if let Some(mut target) = spec.required_fields(reading, "targetRef") {
        out.target = read_target(reading, &mut target, own);
        target.finish(reading);
    }
    let refs = spec.required_list(reading, "requiredAuthenticationRefs").unwrap_or_default();
    for (index, item) in refs.iter().enumerate() {
        let path = format!("spec.requiredAuthenticationRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else { continue };
        let reference = read_authentication_ref(reading, &mut fields, &path, own);
        out.authentications.extend(reference.map(|(kind, key)| {
            let source = locate(item.at, item.end_line);
            AuthenticationRef { kind, key, source }
        }));
        fields.finish(reading);
    }
    let count = |network: bool| {
        out.authentications.iter().filter(|r| (r.kind == AuthenticationKind::Network) == network).count()
    };
    if count(false) > 1 {
        let message = "at most one MeshTLSAuthentication or ServiceAccount may be required: all of them would have to hold";
        reading.problem(spec.at, Code::Conflict, message);
    }
    if count(true) > 1 {
        let message = "at most one NetworkAuthentication may be required: all of them would have to hold";
        reading.problem(spec.at, Code::Conflict, message);
    }
    spec.finish(reading);
    out
}

fn read_target(reading: &mut Reading, target: &mut Fields<'_>, own: &str) -> Option<Target> {
    let (group, kind) = read_kind(reading, target)?;
    let name = read_name(reading, target, "name", true)?;
    match (group, kind) {
        (POLICY_GROUP, "Server") => Some(Target::Server(name.to_owned())),
        ("", "Namespace") if name == own => Some(Target::Namespace),
        ("", "Namespace") => {
            let message = format!("`spec.targetRef` may only name the policy's own namespace `{own}`, not `{name}`");
            reading.problem(target.at, Code::BadValue, message);
            None
        }
        (POLICY_GROUP, "HTTPRoute") => Some(Target::Route { group: POLICY_GROUP, kind: "HTTPRoute", name: name.to_owned() }),
        (GATEWAY_GROUP, "HTTPRoute") => Some(Target::Route { group: GATEWAY_GROUP, kind: "HTTPRoute", name: name.to_owned() }),
        (GATEWAY_GROUP, "GRPCRoute") => Some(Target::Route { group: GATEWAY_GROUP, kind: "GRPCRoute", name: name.to_owned() }),
        _ => {
            refuse_kind(reading, target, "spec.targetRef", group, kind, "a Server, Namespace, HTTPRoute or GRPCRoute");
            None
        }
    }
}

fn read_authentication_ref(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    own: &str,
) -> Option<(AuthenticationKind, Key)> {
    let (group, kind) = read_kind(reading, fields)?;
    let name = read_name(reading, fields, "name", true)?;
    let namespace = read_namespace(reading, fields)?.unwrap_or(own);
    let kind = match (group, kind) {
        (POLICY_GROUP, "MeshTLSAuthentication") => AuthenticationKind::MeshTls,
        (POLICY_GROUP, "NetworkAuthentication") => AuthenticationKind::Network,
        ("", "ServiceAccount") => AuthenticationKind::ServiceAccount,
        _ => {
            let wanted = "a MeshTLSAuthentication, NetworkAuthentication or ServiceAccount";
            refuse_kind(reading, fields, path, group, kind, wanted);
            return None;
        }
    };
    Some((kind, Key::new(namespace, name)))
}

/// Reads a MeshTLSAuthentication.
pub(crate) fn read_mesh_tls(reading: &mut Reading, root: &mut Fields<'_>, own: &str) -> MeshTls {
    let mut out = MeshTls { members: Vec::new() };
    let Some(mut spec) = root.required_fields(reading, "spec") else { return out };
    let identities = spec.optional_list(reading, "identities").unwrap_or_default();
    out.members = read_identities(reading, identities, "spec.identities");
    let refs = spec.optional_list(reading, "identityRefs").unwrap_or_default();
    for (index, item) in refs.iter().enumerate() {
        let path = format!("spec.identityRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else { continue };
        out.members.extend(read_identity_ref(reading, &mut fields, &path, own));
        fields.finish(reading);
    }
    match (spec.stands("identities"), spec.stands("identityRefs")) {
        (true, true) => {
            reading.problem(spec.at, Code::Conflict, "`spec.identities` and `spec.identityRefs` exclude each other");
        }
        (false, false) => {
            reading.problem(spec.at, Code::Missing, "one of `spec.identities` and `spec.identityRefs` must stand");
        }
        _ if identities.is_empty() && refs.is_empty() => {
            reading.problem(spec.at, Code::BadValue, "the list of identities is empty; at least one is needed");
        }
        _ => {}
    }
    spec.finish(reading);
    out
}

fn read_identity_ref(reading: &mut Reading, fields: &mut Fields<'_>, path: &str, own: &str) -> Option<Identity> {
    let (group, kind) = read_kind(reading, fields)?;
    let name = read_name(reading, fields, "name", true)?.to_owned();
    let stands = fields.stands("namespace");
    let namespace = read_namespace(reading, fields)?;
    match (group, kind) {
        ("", "ServiceAccount") => {
            Some(Identity::ServiceAccount { namespace: namespace.unwrap_or(own).to_owned(), name })
        }
        ("", "Namespace") if stands => {
            let message = format!("`{path}` names a Namespace, which is in no namespace: remove `namespace`");
            reading.problem(fields.at, Code::Conflict, message);
            None
        }
        ("", "Namespace") => Some(Identity::Namespace(name)),
        _ => {
            refuse_kind(reading, fields, path, group, kind, "a ServiceAccount or Namespace");
            None
        }
    }
}

/// Reads a NetworkAuthentication.
pub(crate) fn read_network_authentication(reading: &mut Reading, root: &mut Fields<'_>) -> Vec<NetworkEntry> {
    let Some(mut spec) = root.required_fields(reading, "spec") else { return Vec::new() };
    let at = spec.at;
    let items = spec.required_list(reading, "networks");
    if items.is_some_and(<[Node]>::is_empty) {
        reading.problem(at, Code::BadValue, "`spec.networks` is empty; at least one is needed");
    }
    let networks = read_networks(reading, items.unwrap_or_default(), "spec.networks");
    spec.finish(reading);
    networks
}

/// Reads an HTTPLocalRateLimitPolicy. What can be read of an invalid one still limits.
pub(crate) fn read_rate_limit(reading: &mut Reading, root: &mut Fields<'_>, own: &str) -> RateLimit {
    let mut out = RateLimit { server: None, total: None, identity: None, overrides: Vec::new() };
    let Some(mut spec) = root.required_fields(reading, "spec") else { return out };
    if let Some(mut target) = spec.required_fields(reading, "targetRef") {
        match read_kind(reading, &mut target) {
            Some((POLICY_GROUP, "Server")) => {
                out.server = read_name(reading, &mut target, "name", true).map(str::to_owned);
            }
            Some((group, kind)) => {
                target.ignore(&["name"]);
                refuse_kind(reading, &target, "spec.targetRef", group, kind, "a Server");
            }
            None => target.ignore(&["name"]),
        }
        target.finish(reading);
    }
    for (key, slot) in [("total", &mut out.total), ("identity", &mut out.identity)] {
        if let Some(mut fields) = spec.optional_fields(reading, key) {
            *slot = read_rate(reading, &mut fields);
            fields.finish(reading);
        }
    }
    for (index, item) in spec.optional_list(reading, "overrides").unwrap_or_default().iter().enumerate() {
        let Some(mut fields) = reading.fields(item, &format!("spec.overrides[{index}]")) else { continue };
        let rate = read_rate(reading, &mut fields);
        let clients = read_clients(reading, &mut fields, own);
        fields.finish(reading);
        out.overrides.extend(rate.map(|rate| (clients, rate)));
    }
    let over = |rate: u32| out.total.is_some_and(|total| rate > total);
    if out.identity.is_some_and(over) {
        reading.problem(spec.at, Code::Conflict, "`spec.identity.requestsPerSecond` is larger than `spec.total.requestsPerSecond`");
    }
    if out.overrides.iter().any(|(_, rate)| over(*rate)) {
        reading.problem(spec.at, Code::Conflict, "an override is larger than `spec.total.requestsPerSecond`");
    }
    spec.finish(reading);
    out
}

fn read_rate(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<u32> {
    let path = fields.path("requestsPerSecond");
    let node = fields.required(reading, "requestsPerSecond")?;
    reading.integer(node, &path, 1..=RATE_MAX).and_then(|n| u32::try_from(n).ok())
}

fn read_clients(reading: &mut Reading, fields: &mut Fields<'_>, own: &str) -> Vec<Key> {
    let path = fields.path("clientRefs");
    let mut out = Vec::new();
    for (index, item) in fields.required_list(reading, "clientRefs").unwrap_or_default().iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(mut client) = reading.fields(item, &path) else { continue };
        let kind = read_kind(reading, &mut client);
        let name = read_name(reading, &mut client, "name", true);
        let namespace = read_namespace(reading, &mut client).map(|n| n.unwrap_or(own));
        match (kind, namespace, name) {
            (Some(("", "ServiceAccount")), Some(namespace), Some(name)) => out.push(Key::new(namespace, name)),
            (Some((group, kind)), _, _) if (group, kind) != ("", "ServiceAccount") => {
                refuse_kind(reading, &client, &path, group, kind, "a ServiceAccount");
            }
            _ => {}
        }
        client.finish(reading);
    }
    out
}

/// Reads a Federation.
pub(crate) fn read_federation(reading: &mut Reading, root: &mut Fields<'_>) -> Federation {
    let mut out = Federation { domain: None, in_wildcards: false };
    let Some(mut spec) = root.required_fields(reading, "spec") else { return out };
    let at = spec.at;
    if let Some(text) = spec.required_text(reading, "trustDomain") {
        match TrustDomain::parse(text) {
            Ok(domain) => out.domain = Some(domain),
            Err(error) => reading.problem(at, Code::BadValue, format!("`spec.trustDomain`: {error}")),
        }
    }
    let wildcards = spec.optional(reading, "includeInWildcards");
    out.in_wildcards = wildcards.and_then(|n| reading.boolean(n, "spec.includeInWildcards")) == Some(true);
    // How its trust bundle is fetched is the identity authority's to check.
    spec.ignore(&["bundle", "bundleEndpoint", "bundleEndpointURL", "bundleEndpointProfile", "endpointSPIFFEID"]);
    spec.finish(reading);
    out
}
