//! Cedar kinds among the objects: what an unreadable one closes, and what of a faulty one still holds.
//!
//! A Cedar object may hold a forbid. So whatever cannot be read of it closes all that it might have covered: the Servers
//! of its namespace, or those of every namespace. What was read whole but is faulty (its term, a single policy, a
//! namesake) grants nothing, and its sound forbids stay in force.

use super::{Context, Fields, Input, Loader, Meta, Reading, source};
use crate::finding::{Code, finding};
use crate::manifest::cedar_kinds::{CedarPolicies, read_cedar_policies};
use crate::manifest::invariant_kind::read_invariant;
use crate::manifest::kinds::Kind;
use crate::manifest::read::{Problem, near};
use crate::manifest::resource::{Closed, Object};
use crate::manifest::term::read_term;
use crate::manifest::tree::{Node, Place};
use std::sync::Arc;

/// Group of our own kinds.
const OWN_GROUP: &str = "mesh.internal";

/// Notes what is wrong with the term of a grant: the object is invalid then.
pub(super) fn check_term(reading: &mut Reading, at: Place, meta: &Meta) {
    let read = read_term(&meta.annotations, meta.created);
    for message in read.problems {
        reading.problem(at, Code::BadTerm, message);
    }
    if read.undated {
        reading.doubt(at, Code::UndatedBreakGlass, UNDATED);
    }
}

const UNDATED: &str = "a break-glass grant has no creation time, so it cannot be told whether it ends within 24 hours";

impl Loader {
    /// Reads a CedarPolicy or ClusterCedarPolicy.
    pub(super) fn cedar_policies(
        &mut self,
        context: &Context<'_>,
        mut reading: Reading,
        mut root: Fields<'_>,
        (meta, misplaced): (Meta, Option<Problem>),
    ) {
        let file = context.input.file;
        let cluster_wide = context.kind == Kind::ClusterCedarPolicy;
        let prefix = prefix(context, &meta);
        let locate = |at: Place, end: u32| source(file, at, end);
        let mut checked =
            read_cedar_policies(&mut reading, &mut root, cluster_wide, &prefix, &locate);
        let (at, placed) = (root.at, meta.placed);
        let note = |code, message: &str| Problem {
            at,
            code,
            message: message.to_owned(),
            hint: None,
        };
        let term = read_term(&meta.annotations, meta.created);
        let term_problems = term.problems.iter().map(|m| note(Code::BadTerm, m));
        checked.problems.extend(term_problems);
        checked.problems.extend(misplaced);
        if term.undated {
            checked.doubts.push(note(Code::UndatedBreakGlass, UNDATED));
        }
        if cluster_wide && namespace_node(context.input).is_some() {
            let message = "`metadata.namespace` does not confine a ClusterCedarPolicy; write a CedarPolicy, or remove it";
            checked.problems.push(note(Code::BadValue, message));
        }
        let spec = CedarPolicies {
            statements: checked.statements,
            unread: None,
            term: term.term,
        };
        let mut object = self.object_of(context, reading, root, meta, spec);
        object.spec.unread.clone_from(&object.invalid);
        if object.spec.unread.is_some() {
            self.unread(context.input, &object, placed);
        }
        let reference = object.reference();
        for problem in checked.problems {
            object
                .invalid
                .get_or_insert_with(|| problem.message.clone());
            self.problem(file, problem, &reference);
        }
        for doubt in checked.doubts {
            self.problem(file, doubt, &reference);
        }
        self.resources.cedar_policies.push(Arc::new(object));
    }

    /// Reads an Invariant.
    pub(super) fn invariant(
        &mut self,
        context: &Context<'_>,
        mut reading: Reading,
        mut root: Fields<'_>,
        meta: Meta,
    ) {
        let file = context.input.file;
        let prefix = prefix(context, &meta);
        let locate = |at: Place, end: u32| source(file, at, end);
        let own = context.namespaced.then(|| meta.key.namespace.clone());
        let (spec, checked) =
            read_invariant(&mut reading, &mut root, own.as_deref(), &prefix, &locate);
        reading.problems.extend(checked.problems);
        reading.doubts.extend(checked.doubts);
        let object = self.object_of(context, reading, root, meta, spec);
        if let Some(why) = &object.invalid {
            let message = format!("{} is not proved: {why}", object.title());
            let reference = Some(object.reference());
            let found = finding(
                Code::BadInvariant,
                message,
                reference,
                object.source.clone(),
            );
            self.findings.push(found);
        }
        self.resources.invariants.push(Arc::new(object));
    }

    /// An object of a Cedar kind that could not be read whole.
    fn unread(&mut self, input: &Input<'_>, object: &Object<CedarPolicies>, placed: bool) {
        if !placed {
            let why = format!("the namespace of a {} cannot be read", object.kind);
            self.close_cedar(input, None, &why);
            return;
        }
        let what = if object.namespaced {
            format!("namespace `{}`", object.key.namespace)
        } else {
            "every namespace".to_owned()
        };
        let message = format!(
            "{} cannot be read whole and may hold a forbid: everything in {what} is denied until it is mended",
            object.title()
        );
        self.findings.push(finding(
            Code::CedarCloses,
            message,
            Some(object.reference()),
            object.source.clone(),
        ));
    }

    /// A document whose kind cannot be told: did it hold Cedar policies?
    pub(super) fn maybe_cedar(&mut self, input: &Input<'_>, api: Option<&str>, why: &str) {
        let may = match api {
            Some(api) => api.split('/').next() == Some(OWN_GROUP),
            None => input.names_cedar,
        };
        if may {
            let namespace = namespace_node(input).and_then(Node::as_text);
            self.close_cedar(input, namespace, why);
        }
    }

    /// A kind of our own group that is none, but nearly that of Cedar policies.
    pub(super) fn nearly_cedar(&mut self, input: &Input<'_>, group: &str, kind: &str) {
        let names = ["CedarPolicy", "ClusterCedarPolicy"];
        let like = kind.to_ascii_lowercase().contains("cedar")
            || names.iter().any(|name| near(name, kind));
        if group == OWN_GROUP && like {
            let namespace = namespace_node(input).and_then(Node::as_text);
            let why = format!("a document looks like a CedarPolicy, but its kind is `{kind}`");
            self.close_cedar(input, namespace, &why);
        }
    }

    /// Closes a namespace, or all, for what an unreadable document may have forbidden there.
    fn close_cedar(&mut self, input: &Input<'_>, namespace: Option<&str>, why: &str) {
        let source = source(input.file, input.root.at, input.root.end_line);
        let what = namespace.map_or_else(
            || "every namespace".to_owned(),
            |namespace| format!("namespace `{namespace}`"),
        );
        let message = format!(
            "{why}, and it may hold a forbid: everything in {what} is denied until it is mended"
        );
        self.findings
            .push(finding(Code::CedarCloses, message, None, source.clone()));
        self.resources.cedar_closed.push(Closed {
            namespace: namespace.map(str::to_owned),
            why: why.to_owned(),
            source,
        });
    }
}

/// What the ids of an object's policies begin with. Cluster-wide kinds have an empty namespace there, and no object of a
/// namespaced kind has: the ids of both never collide, and all have four parts.
fn prefix(context: &Context<'_>, meta: &Meta) -> String {
    let namespace = if context.namespaced {
        meta.key.namespace.as_str()
    } else {
        ""
    };
    format!("{}/{namespace}/{}", context.name, meta.key.name)
}

/// The node of `metadata.namespace`, if it stands.
pub(super) fn namespace_node<'n>(input: &Input<'n>) -> Option<&'n Node> {
    input.root.get("metadata").and_then(|m| m.get("namespace"))
}
