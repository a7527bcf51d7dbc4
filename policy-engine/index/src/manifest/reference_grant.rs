//! ReferenceGrant of Gateway API: a namespace lets routes of other namespaces name its Services as backends.
//!
//! One that cannot be read whole grants nothing.

use super::read::{Fields, Reading};
use super::refs::{read_name, read_namespace};
use super::traffic::{GrantedFrom, GrantedTo, ReferenceGrant};
use super::tree::Node;
use crate::finding::Code;

/// Reads a ReferenceGrant.
pub(crate) fn read_reference_grant(reading: &mut Reading, root: &mut Fields<'_>) -> ReferenceGrant {
    let mut out = ReferenceGrant::default();
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    for (path, item) in entries(reading, &mut spec, "from") {
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let read = read_group_kind(reading, &mut fields);
        if !fields.stands("namespace") {
            let message = format!("`{}` is missing", fields.path("namespace"));
            reading.problem(fields.at, Code::Missing, message);
        }
        let namespace = read_namespace(reading, &mut fields).flatten();
        if let (Some((group, kind)), Some(namespace)) = (read, namespace) {
            out.from.push(GrantedFrom {
                group,
                kind,
                namespace: namespace.to_owned(),
            });
        }
        fields.finish(reading);
    }
    for (path, item) in entries(reading, &mut spec, "to") {
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let read = read_group_kind(reading, &mut fields);
        // An empty name means all, as no name does.
        let named = fields.stands("name");
        let name = match fields.optional_text(reading, "name") {
            Some("") => Some(None),
            Some(_) => {
                read_name(reading, &mut fields, "name", true).map(|name| Some(name.to_owned()))
            }
            None if named => None,
            None => Some(None),
        };
        if let (Some((group, kind)), Some(name)) = (read, name) {
            out.to.push(GrantedTo { group, kind, name });
        }
        fields.finish(reading);
    }
    spec.finish(reading);
    out
}

/// The entries of a list that must have some.
fn entries<'n>(
    reading: &mut Reading,
    spec: &mut Fields<'n>,
    key: &'static str,
) -> Vec<(String, &'n Node)> {
    let path = spec.path(key);
    let at = spec.at;
    let items = spec.required_list(reading, key);
    if items.is_some_and(<[Node]>::is_empty) {
        let message = format!("`{path}` is empty: nothing would be granted");
        reading.problem(at, Code::BadValue, message);
    }
    items
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, item)| (format!("{path}[{index}]"), item))
        .collect()
}

/// Group and kind; the group must stand, though it may be empty.
fn read_group_kind(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<(String, String)> {
    let group = fields.required_text(reading, "group");
    let kind = fields.required_text(reading, "kind");
    Some((group?.to_owned(), kind?.to_owned()))
}
