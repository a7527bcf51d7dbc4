//! Server and ServerAuthorization.

use super::core_kinds::read_port_ref;
use super::identity::Identity;
use super::network::read_networks;
use super::policy_kinds::{Version, read_identities, since};
use super::read::{Fields, Reading};
use super::refs::{read_name, read_namespace};
use super::resource::{SaClient, Selects, Server, ServerAuthorization, Target};
use super::selector::read_selector;
use super::tree::Node;
use crate::Mode;
use crate::finding::Code;
use mesh_policy::snapshot::{PathOptions, ServerProtocol};
use std::collections::BTreeMap;

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
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return server;
    };
    let pods = spec.optional(reading, "podSelector");
    let external = spec.optional(reading, "externalWorkloadSelector");
    server.selects = pods
        .and_then(|n| read_selector(reading, n, "spec.podSelector"))
        .map(Selects::Pods);
    if let Some(node) = external {
        since(
            reading,
            node,
            "spec.externalWorkloadSelector",
            version,
            Version::V1Beta2,
            "v1beta2",
        );
        let readable = read_selector(reading, node, "spec.externalWorkloadSelector").is_some();
        if spec.stands("podSelector") {
            let message =
                "`spec.podSelector` and `spec.externalWorkloadSelector` exclude each other";
            reading.problem(node.at, Code::Conflict, message);
        } else if readable && version >= Version::V1Beta2 {
            server.selects = Some(Selects::External);
        }
    } else if !spec.stands("podSelector") && !spec.stands("externalWorkloadSelector") {
        reading.problem(
            spec.at,
            Code::Missing,
            "`spec.podSelector` is missing (`{}` selects every pod of the namespace)",
        );
    }
    server.port = spec
        .required(reading, "port")
        .and_then(|n| read_port_ref(reading, n, "spec.port"));
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
        since(
            reading,
            node,
            "spec.accessPolicy",
            version,
            Version::V1Beta3,
            "v1beta3",
        );
        server.access = read_mode(reading, node, "spec.accessPolicy").unwrap_or_default();
    }
    spec.finish(reading);
    server
}

fn read_mode(reading: &mut Reading, node: &Node, path: &str) -> Option<Mode> {
    match reading.text(node, path)?.parse::<Mode>() {
        Ok(mode) => Some(mode),
        Err(error) => {
            reading.problem_with_hint(
                node.at,
                Code::BadValue,
                format!("`{path}`: {error}"),
                Code::BadDefault.hint().into(),
            );
            None
        }
    }
}

fn read_path_options(
    reading: &mut Reading,
    root: &Fields<'_>,
    annotations: &BTreeMap<String, String>,
) -> PathOptions {
    let mut keep = |name: &str| match annotations.get(name).map(String::as_str) {
        Some("keep") => true,
        Some(other) => {
            let message = format!("annotation `{name}` may only be `keep`, not `{other}`");
            reading.problem(root.at, Code::BadValue, message);
            false
        }
        None => false,
    };
    PathOptions {
        keep_escapes: keep("mesh.internal/path-escapes"),
        keep_parameters: keep("mesh.internal/path-parameters"),
    }
}

/// Reads a ServerAuthorization.
pub(crate) fn read_server_authorization(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    own: &str,
) -> ServerAuthorization {
    let mut out = ServerAuthorization {
        target: None,
        networks: None,
        client: SaClient::Nobody,
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    if let Some(mut server) = spec.required_fields(reading, "server") {
        let name = server.optional_text(reading, "name");
        let selector = server.optional(reading, "selector");
        out.target = match (name, selector) {
            (Some(name), None) if !server.stands("selector") => {
                Some(Target::Server(name.to_owned()))
            }
            (None, Some(node)) if !server.stands("name") => {
                read_selector(reading, node, "spec.server.selector").map(Target::Servers)
            }
            _ => {
                let message =
                    "exactly one of `spec.server.name` and `spec.server.selector` must stand";
                reading.problem(server.at, Code::Conflict, message);
                None
            }
        };
        server.finish(reading);
    }
    if let Some(mut client) = spec.required_fields(reading, "client") {
        // INVARIANT: `networks` that stand but cannot be read never become the cluster networks.
        if client.stands("networks") {
            let items = client
                .optional_list(reading, "networks")
                .unwrap_or_default();
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
    let open = client
        .optional(reading, "unauthenticated")
        .and_then(|n| reading.boolean(n, "spec.client.unauthenticated"));
    let Some(mut tls) = client.optional_fields(reading, "meshTLS") else {
        return if open == Some(true) {
            SaClient::Unauthenticated
        } else {
            SaClient::Nobody
        };
    };
    if open == Some(true) {
        reading.problem(
            tls.at,
            Code::Conflict,
            "`unauthenticated` and `meshTLS` exclude each other",
        );
    }
    let any = tls
        .optional(reading, "unauthenticatedTLS")
        .and_then(|n| reading.boolean(n, "spec.client.meshTLS.unauthenticatedTLS"));
    let mut members = Vec::new();
    let identities = tls.optional_list(reading, "identities").unwrap_or_default();
    members.extend(read_identities(
        reading,
        identities,
        "spec.client.meshTLS.identities",
    ));
    let accounts = tls
        .optional_list(reading, "serviceAccounts")
        .unwrap_or_default();
    for (index, item) in accounts.iter().enumerate() {
        let path = format!("spec.client.meshTLS.serviceAccounts[{index}]");
        let Some(mut account) = reading.fields(item, &path) else {
            continue;
        };
        let name = read_name(reading, &mut account, "name", true);
        let namespace = read_namespace(reading, &mut account).map(|n| n.unwrap_or(own).to_owned());
        account.finish(reading);
        if let (Some(namespace), Some(name)) = (namespace, name) {
            members.push(Identity::ServiceAccount {
                namespace,
                name: name.to_owned(),
            });
        }
    }
    if any == Some(true) && !(identities.is_empty() && accounts.is_empty()) {
        reading.problem(
            tls.at,
            Code::Conflict,
            "`unauthenticatedTLS` excludes `identities` and `serviceAccounts`",
        );
    }
    tls.finish(reading);
    if any == Some(true) {
        SaClient::AnyTls
    } else {
        SaClient::Identities(members)
    }
}
