//! AuthorizationPolicy and its authentications: checked as Linkerd's admission webhooks do, and
//! where those fail open, more strictly (the settled readings of the book).

use super::core_kinds::Locate;
use super::identity::Identity;
use super::network::read_networks;
use super::read::{Fields, Reading};
use super::refs::{read_kind, read_name, read_namespace, refuse_kind};
use super::resource::{
    AuthenticationKind, AuthenticationRef, AuthorizationPolicy, Key, MeshTls, NetworkEntry, Target,
};
use super::tree::Node;
use crate::finding::Code;
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
pub(crate) fn since(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    has: Version,
    needs: Version,
    needs_text: &str,
) {
    if has < needs {
        let message = format!(
            "`{path}` exists from {needs_text} on, which is newer than this object's version"
        );
        reading.problem(node.at, Code::UnknownField, message);
    }
}

pub(crate) fn read_identities(reading: &mut Reading, items: &[Node], path: &str) -> Vec<Identity> {
    let mut out = Vec::new();
    for (index, node) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(text) = reading.text(node, &path) else {
            continue;
        };
        match Identity::parse(text) {
            Ok(identity) => out.push(identity),
            Err(why) => reading.problem(
                node.at,
                Code::BadValue,
                format!("`{path}: {text}` is not an identity: {why}"),
            ),
        }
    }
    out
}

/// Reads an AuthorizationPolicy.
pub(crate) fn read_authorization_policy(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    own: &str,
    annotations: &BTreeMap<String, String>,
    locate: Locate<'_>,
) -> AuthorizationPolicy {
    let open = annotations
        .get("mesh.internal/allow-unauthenticated")
        .map(|reason| reason.trim().to_owned());
    let mut out = AuthorizationPolicy {
        target: None,
        authentications: Vec::new(),
        open,
    };
    if out.open.as_deref() == Some("") {
        reading.problem(
            root.at,
            Code::BadValue,
            "annotation `mesh.internal/allow-unauthenticated` must give a reason",
        );
    }
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    if let Some(mut target) = spec.required_fields(reading, "targetRef") {
        out.target = read_target(reading, &mut target, own);
        target.finish(reading);
    }
    let refs = spec
        .required_list(reading, "requiredAuthenticationRefs")
        .unwrap_or_default();
    for (index, item) in refs.iter().enumerate() {
        let path = format!("spec.requiredAuthenticationRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let reference = read_authentication_ref(reading, &mut fields, &path, own);
        out.authentications.extend(reference.map(|(kind, key)| {
            let source = locate(item.at, item.end_line);
            AuthenticationRef { kind, key, source }
        }));
        fields.finish(reading);
    }
    let count = |network: bool| {
        out.authentications
            .iter()
            .filter(|r| (r.kind == AuthenticationKind::Network) == network)
            .count()
    };
    if count(false) > 1 {
        let message = "at most one MeshTLSAuthentication or ServiceAccount may be required: all of them would have to hold";
        reading.problem(spec.at, Code::Conflict, message);
    }
    if count(true) > 1 {
        let message =
            "at most one NetworkAuthentication may be required: all of them would have to hold";
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
            let message = format!(
                "`spec.targetRef` may only name the policy's own namespace `{own}`, not `{name}`"
            );
            reading.problem(target.at, Code::BadValue, message);
            None
        }
        (POLICY_GROUP, "HTTPRoute") => Some(Target::Route {
            group: POLICY_GROUP,
            kind: "HTTPRoute",
            name: name.to_owned(),
        }),
        (GATEWAY_GROUP, "HTTPRoute") => Some(Target::Route {
            group: GATEWAY_GROUP,
            kind: "HTTPRoute",
            name: name.to_owned(),
        }),
        (GATEWAY_GROUP, "GRPCRoute") => Some(Target::Route {
            group: GATEWAY_GROUP,
            kind: "GRPCRoute",
            name: name.to_owned(),
        }),
        _ => {
            refuse_kind(
                reading,
                target,
                "spec.targetRef",
                group,
                kind,
                "a Server, Namespace, HTTPRoute or GRPCRoute",
            );
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
    let mut out = MeshTls {
        members: Vec::new(),
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    let identities = spec
        .optional_list(reading, "identities")
        .unwrap_or_default();
    out.members = read_identities(reading, identities, "spec.identities");
    let refs = spec
        .optional_list(reading, "identityRefs")
        .unwrap_or_default();
    for (index, item) in refs.iter().enumerate() {
        let path = format!("spec.identityRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        out.members
            .extend(read_identity_ref(reading, &mut fields, &path, own));
        fields.finish(reading);
    }
    match (spec.stands("identities"), spec.stands("identityRefs")) {
        (true, true) => {
            reading.problem(
                spec.at,
                Code::Conflict,
                "`spec.identities` and `spec.identityRefs` exclude each other",
            );
        }
        (false, false) => {
            reading.problem(
                spec.at,
                Code::Missing,
                "one of `spec.identities` and `spec.identityRefs` must stand",
            );
        }
        _ if identities.is_empty() && refs.is_empty() => {
            reading.problem(
                spec.at,
                Code::BadValue,
                "the list of identities is empty; at least one is needed",
            );
        }
        _ => {}
    }
    spec.finish(reading);
    out
}

fn read_identity_ref(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    own: &str,
) -> Option<Identity> {
    let (group, kind) = read_kind(reading, fields)?;
    let name = read_name(reading, fields, "name", true)?.to_owned();
    let stands = fields.stands("namespace");
    let namespace = read_namespace(reading, fields)?;
    match (group, kind) {
        ("", "ServiceAccount") => Some(Identity::ServiceAccount {
            namespace: namespace.unwrap_or(own).to_owned(),
            name,
        }),
        ("", "Namespace") if stands => {
            let message =
                format!("`{path}` names a Namespace, which is in no namespace: remove `namespace`");
            reading.problem(fields.at, Code::Conflict, message);
            None
        }
        ("", "Namespace") => Some(Identity::Namespace(name)),
        _ => {
            refuse_kind(
                reading,
                fields,
                path,
                group,
                kind,
                "a ServiceAccount or Namespace",
            );
            None
        }
    }
}

/// Reads a NetworkAuthentication.
pub(crate) fn read_network_authentication(
    reading: &mut Reading,
    root: &mut Fields<'_>,
) -> Vec<NetworkEntry> {
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return Vec::new();
    };
    let at = spec.at;
    let items = spec.required_list(reading, "networks");
    if items.is_some_and(<[Node]>::is_empty) {
        reading.problem(
            at,
            Code::BadValue,
            "`spec.networks` is empty; at least one is needed",
        );
    }
    let networks = read_networks(reading, items.unwrap_or_default(), "spec.networks");
    spec.finish(reading);
    networks
}
