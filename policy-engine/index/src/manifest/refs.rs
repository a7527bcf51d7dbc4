//! References from one object to another: group, kind, name, namespace.

use super::identity::{is_label, is_subdomain};
use super::policy_kinds::{GATEWAY_GROUP, POLICY_GROUP};
use super::read::{Fields, Reading};
use crate::finding::Code;

pub(crate) fn read_name<'n>(
    reading: &mut Reading,
    fields: &mut Fields<'n>,
    key: &'static str,
    dots: bool,
) -> Option<&'n str> {
    let path = fields.path(key);
    let at = fields.at;
    let name = fields.required_text(reading, key)?;
    if (dots && is_subdomain(name)) || is_label(name) {
        return Some(name);
    }
    reading.problem(
        at,
        Code::BadValue,
        format!("`{path}: {name}` is not the name of an object"),
    );
    None
}

/// The `namespace` of a reference: `Some(None)` if it is not given, `None` if it cannot be read.
pub(crate) fn read_namespace<'n>(
    reading: &mut Reading,
    fields: &mut Fields<'n>,
) -> Option<Option<&'n str>> {
    let (path, at) = (fields.path("namespace"), fields.at);
    let stands = fields.stands("namespace");
    match fields.optional_text(reading, "namespace") {
        Some(name) if is_label(name) => Some(Some(name)),
        Some(name) => {
            reading.problem(
                at,
                Code::BadValue,
                format!("`{path}: {name}` is not the name of a namespace"),
            );
            None
        }
        None if stands => None,
        None => Some(None),
    }
}

/// Group and kind of a reference; the core group may be written `core`, empty or not at all.
pub(crate) fn read_kind<'n>(
    reading: &mut Reading,
    fields: &mut Fields<'n>,
) -> Option<(&'n str, &'n str)> {
    let group = fields.optional_text(reading, "group");
    let group_spoiled = group.is_none() && fields.stands("group");
    let kind = fields.required_text(reading, "kind")?;
    if group_spoiled {
        return None;
    }
    let group = group.unwrap_or("");
    Some((if group == "core" { "" } else { group }, kind))
}

/// The name of the Server that a `targetRef` leads to: nothing else may stand there.
pub(crate) fn read_server_target(reading: &mut Reading, spec: &mut Fields<'_>) -> Option<String> {
    let path = spec.path("targetRef");
    let mut target = spec.required_fields(reading, "targetRef")?;
    let name = match read_kind(reading, &mut target) {
        Some((POLICY_GROUP, "Server")) => read_name(reading, &mut target, "name", true),
        Some((group, kind)) => {
            target.ignore(&["name"]);
            refuse_kind(reading, &target, &path, group, kind, "a Server");
            None
        }
        None => {
            target.ignore(&["name"]);
            None
        }
    };
    let name = name.map(str::to_owned);
    target.finish(reading);
    name
}

pub(crate) fn refuse_kind(
    reading: &mut Reading,
    fields: &Fields<'_>,
    path: &str,
    group: &str,
    kind: &str,
    wanted: &str,
) {
    let (at, needs) = (
        fields.at,
        [
            ("Server", POLICY_GROUP),
            ("MeshTLSAuthentication", POLICY_GROUP),
            ("NetworkAuthentication", POLICY_GROUP),
            ("HTTPRoute", POLICY_GROUP),
            ("GRPCRoute", GATEWAY_GROUP),
        ],
    );
    let right_group = needs
        .iter()
        .find(|(k, g)| *k == kind && *g != group && wanted.contains(kind));
    let shown = if group.is_empty() {
        "the core group".to_owned()
    } else {
        format!("group `{group}`")
    };
    let message = format!("`{path}` must be {wanted}, not `{kind}` of {shown}");
    match right_group {
        Some((_, needs)) => {
            reading.problem_with_hint(at, Code::BadValue, message, format!("add `group: {needs}`"))
        }
        None => reading.problem(at, Code::BadValue, message),
    }
}
