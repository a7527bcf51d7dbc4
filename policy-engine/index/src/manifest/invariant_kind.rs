//! Invariant: what must hold of every policy of the mesh. Read and checked, never evaluated.

use super::cedar_check::{Checked, Statement, check_text};
use super::core_kinds::Locate;
use super::identity::{Identity, is_label};
use super::policy_kinds::read_identities;
use super::read::{Fields, Reading};
use super::refs::{read_name, read_namespace};
use super::resource::Key;
use super::tree::Node;
use crate::finding::Code;
use mesh_policy::snapshot::Effect;

/// An Invariant.
#[derive(Clone, Debug, Default)]
pub(crate) struct InvariantSpec {
    pub(crate) description: String,
    pub(crate) claim: Option<ClaimSpec>,
    /// What is wrong with its policies, if anything.
    pub(crate) broken: Option<String>,
}

/// What it claims.
#[derive(Clone, Debug)]
pub(crate) enum ClaimSpec {
    /// No request that one of these forbids matches may be allowed.
    Forbid(Vec<Statement>),
    /// Every request that one of these permits matches must be allowed.
    Allow(Vec<Statement>),
    /// No request of these clients to these Servers may be allowed.
    Deny(Deny),
}

/// Clients and Servers that must stay apart. An empty list: all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deny {
    pub(crate) clients: Vec<ClientSpec>,
    pub(crate) servers: Vec<ServerSpec>,
}

/// One kind of client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientSpec {
    Identity(Identity),
    /// Clients without an identity.
    Unauthenticated,
}

/// One or all Servers of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerSpec {
    Namespace(String),
    Server(Key),
}

/// Reads an Invariant. `own` is its namespace; none if it is cluster-wide. Problems with single policies are returned.
pub(crate) fn read_invariant(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    own: Option<&str>,
    prefix: &str,
    locate: Locate<'_>,
) -> (InvariantSpec, Checked) {
    let (mut out, mut all) = (InvariantSpec::default(), Checked::default());
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return (out, all);
    };
    let text = spec.required_text(reading, "description");
    out.description = text.unwrap_or_default().trim().to_owned();
    if text.is_some() && out.description.is_empty() {
        reading.problem(
            spec.at,
            Code::BadValue,
            "`spec.description` is empty; say what must hold",
        );
    }
    let claims = ["forbid", "allow", "deny"];
    let stand = claims.iter().filter(|key| spec.stands(key)).count();
    if stand != 1 {
        let code = if stand == 0 {
            Code::Missing
        } else {
            Code::Conflict
        };
        let message = "exactly one of `spec.forbid`, `spec.allow` and `spec.deny` must stand";
        reading.problem(spec.at, code, message);
    }
    for (key, wanted) in [("forbid", Effect::Forbid), ("allow", Effect::Permit)] {
        if let Some(node) = spec.optional(reading, key) {
            let checked = read_claim(reading, node, key, wanted, prefix, locate);
            let statements = checked.statements.clone();
            all.problems.extend(checked.problems);
            all.doubts.extend(checked.doubts);
            out.claim = Some(match wanted {
                Effect::Forbid => ClaimSpec::Forbid(statements),
                Effect::Permit => ClaimSpec::Allow(statements),
            });
        }
    }
    if let Some(mut deny) = spec.optional_fields(reading, "deny") {
        out.claim = Some(ClaimSpec::Deny(read_deny(reading, &mut deny, own)));
        deny.finish(reading);
    }
    out.broken = all.problems.first().map(|p| p.message.clone());
    spec.finish(reading);
    (out, all)
}

fn read_claim(
    reading: &mut Reading,
    node: &Node,
    key: &str,
    wanted: Effect,
    prefix: &str,
    locate: Locate<'_>,
) -> Checked {
    let path = format!("spec.{key}");
    let Some(text) = reading.text(node, &path) else {
        return Checked::default();
    };
    let checked = match check_text(node, text, prefix, locate) {
        Ok(checked) => checked,
        Err(problem) => {
            reading.problems.push(problem);
            return Checked::default();
        }
    };
    let other = checked.statements.iter().find(|s| s.effect != wanted);
    if let Some(other) = other.filter(|s| s.broken.is_none()) {
        let (is, should) = match wanted {
            Effect::Forbid => ("permit", "forbid"),
            Effect::Permit => ("forbid", "permit"),
        };
        let message = format!("`{}` is a {is}; `{path}` takes {should} policies", other.id);
        reading.problem(node.at, Code::BadInvariant, message);
    }
    checked
}

fn read_deny(reading: &mut Reading, deny: &mut Fields<'_>, own: Option<&str>) -> Deny {
    let mut out = Deny::default();
    if !deny.stands("from") && !deny.stands("to") {
        let message = "one of `spec.deny.from` and `spec.deny.to` must stand";
        reading.problem(deny.at, Code::Missing, message);
    }
    if let Some(mut from) = deny.optional_fields(reading, "from") {
        let namespaces = read_namespaces(reading, &mut from);
        out.clients.extend(
            namespaces
                .into_iter()
                .map(|(n, _)| ClientSpec::Identity(Identity::Namespace(n))),
        );
        let items = from
            .optional_list(reading, "identities")
            .unwrap_or_default();
        let identities = read_identities(reading, items, "spec.deny.from.identities");
        out.clients
            .extend(identities.into_iter().map(ClientSpec::Identity));
        let open = from.optional(reading, "unauthenticated");
        if open.and_then(|n| reading.boolean(n, "spec.deny.from.unauthenticated")) == Some(true) {
            out.clients.push(ClientSpec::Unauthenticated);
        }
        not_empty(reading, &from, out.clients.is_empty(), "spec.deny.from");
        from.finish(reading);
    }
    if let Some(mut to) = deny.optional_fields(reading, "to") {
        for (namespace, at) in read_namespaces(reading, &mut to) {
            confined(reading, at, own, &namespace);
            out.servers.push(ServerSpec::Namespace(namespace));
        }
        for item in to.optional_list(reading, "servers").unwrap_or_default() {
            out.servers.extend(read_server(reading, item, own));
        }
        not_empty(reading, &to, out.servers.is_empty(), "spec.deny.to");
        to.finish(reading);
    }
    out
}

/// A list that stands and holds nothing would mean everything, or nothing; nobody could tell which was meant.
fn not_empty(reading: &mut Reading, fields: &Fields<'_>, empty: bool, path: &str) {
    if empty {
        let message = format!("`{path}` names nothing; leave it out to mean all");
        reading.problem(fields.at, Code::BadValue, message);
    }
}

fn read_namespaces<'n>(
    reading: &mut Reading,
    fields: &mut Fields<'n>,
) -> Vec<(String, super::tree::Place)> {
    let path = fields.path("namespaces");
    let items = fields
        .optional_list(reading, "namespaces")
        .unwrap_or_default();
    let mut out = Vec::new();
    for item in items {
        match reading.text(item, &path) {
            Some(name) if is_label(name) => out.push((name.to_owned(), item.at)),
            Some(name) => {
                let message = format!("`{path}: {name}` is not the name of a namespace");
                reading.problem(item.at, Code::BadValue, message);
            }
            None => {}
        }
    }
    out
}

fn read_server(reading: &mut Reading, item: &Node, own: Option<&str>) -> Option<ServerSpec> {
    let mut fields = reading.fields(item, "spec.deny.to.servers")?;
    let at = fields.at;
    let name = read_name(reading, &mut fields, "name", true);
    let namespace = read_namespace(reading, &mut fields).map(|n| n.or(own));
    fields.finish(reading);
    match (namespace?, name) {
        (Some(namespace), Some(name)) => {
            confined(reading, at, own, namespace);
            Some(ServerSpec::Server(Key::new(namespace, name)))
        }
        (None, _) => {
            let message = "`namespace` is missing: a cluster-wide Invariant has none of its own";
            reading.problem(at, Code::Missing, message);
            None
        }
        (_, None) => None,
    }
}

fn confined(reading: &mut Reading, at: super::tree::Place, own: Option<&str>, namespace: &str) {
    if let Some(own) = own.filter(|own| *own != namespace) {
        let message = format!(
            "an Invariant of namespace `{own}` speaks only about the Servers there, not about those of `{namespace}`"
        );
        reading.problem(at, Code::BadValue, message);
    }
}
