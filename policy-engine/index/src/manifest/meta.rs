//! Names, labels and the like, which all objects have. Never strict: metadata holds much that is none of ours.

use super::core_kinds::read_strings;
use super::identity::{is_label, is_subdomain};
use super::read::{Fields, Reading};
use super::resource::{Created, Key};
use super::shadow::Shadow;
use super::tree::Value;
use crate::finding::Code;
use std::collections::BTreeMap;

/// Name, labels and the like.
pub(crate) struct Meta {
    pub(crate) key: Key,
    /// The namespace is certain: given and readable, or not given in a document that was read to its end.
    pub(crate) placed: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) created: Created,
    pub(crate) generation: Option<i64>,
    pub(crate) owners: Vec<(String, String)>,
    /// Which sets it is part of; both, until its annotation is looked at.
    pub(crate) shadow: Shadow,
}

pub(crate) fn read_meta(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    cluster_wide: bool,
    complete: bool,
) -> Meta {
    let unnamed = Key::new(if cluster_wide { "" } else { "default" }, "<unnamed>");
    let mut meta = Meta {
        key: unnamed,
        placed: complete || cluster_wide,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: Created::Unknown,
        generation: None,
        owners: Vec::new(),
        shadow: Shadow::No,
    };
    // Metadata holds much that is none of ours; it is never strict.
    let strict = std::mem::replace(&mut reading.strict, false);
    if let Some(mut fields) = root.required_fields(reading, "metadata") {
        read_meta_fields(reading, &mut fields, cluster_wide, &mut meta);
    } else {
        meta.placed = cluster_wide || !root.stands("metadata") && complete;
    }
    reading.strict = strict;
    meta
}

fn read_meta_fields(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    cluster_wide: bool,
    meta: &mut Meta,
) {
    if let Some(node) = fields.required(reading, "name")
        && let Some(name) = reading.text(node, "metadata.name")
    {
        if is_subdomain(name) {
            meta.key.name = name.to_owned();
        } else {
            reading.problem(node.at, Code::BadValue, format!("`metadata.name: {name}` is not the name of an object: lower-case letters, digits, `-` and `.`"));
        }
    }
    if !cluster_wide && fields.stands("namespace") {
        let node = fields.optional(reading, "namespace");
        let name = node.and_then(|n| {
            reading
                .text(n, "metadata.namespace")
                .map(|text| (n.at, text))
        });
        meta.placed = name.is_some_and(|(_, name)| is_label(name));
        match name {
            Some((_, name)) if is_label(name) => meta.key.namespace = name.to_owned(),
            Some((at, name)) => reading.problem(
                at,
                Code::BadValue,
                format!("`metadata.namespace: {name}` is not the name of a namespace"),
            ),
            None if node.is_none() && !reading.spoiled => meta.placed = true,
            None => {}
        }
    }
    meta.labels = read_strings(reading, fields, "labels").unwrap_or_default();
    meta.annotations = read_strings(reading, fields, "annotations").unwrap_or_default();
    if let Some(node) = fields.optional(reading, "creationTimestamp") {
        meta.created = match reading
            .text(node, "metadata.creationTimestamp")
            .map(str::parse)
        {
            Some(Ok(time)) => Created::At(time),
            Some(Err(_)) => {
                reading.problem(
                    node.at,
                    Code::BadValue,
                    "`metadata.creationTimestamp` is not an RFC 3339 time",
                );
                Created::Unreadable
            }
            None => Created::Unreadable,
        };
    }
    // Only told to whoever reads the object's status: nothing depends on it, so nothing is wrong with it.
    if let Some(Value::Int(generation)) = fields
        .optional(reading, "generation")
        .map(|node| &node.value)
    {
        meta.generation = Some(*generation);
    }
    for item in fields
        .optional_list(reading, "ownerReferences")
        .unwrap_or_default()
    {
        let Some(mut owner) = reading.fields(item, "metadata.ownerReferences") else {
            continue;
        };
        let kind = owner.optional_text(reading, "kind");
        let name = owner.optional_text(reading, "name");
        if let (Some(kind), Some(name)) = (kind, name) {
            meta.owners.push((kind.to_owned(), name.to_owned()));
        }
    }
}
