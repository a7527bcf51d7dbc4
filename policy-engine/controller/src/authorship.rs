//! Who made and who approved a change of policy, as far as its sources say. Pure.
//!
//! Known are the owner of a file, from the kernel, and the field manager of an object, from the API server. Annotations
//! ([`AUTHOR`], [`APPROVER`]) say more, and are believed as far as whoever may write the object is. One that stood there
//! before speaks of the change before: it counts only if it was written with this one.

use crate::publish::Parts;
use crate::sources::{SourceFile, Sources};
use mesh_audits::entry::{ChangedObject, How, Said, SaidBy};
use mesh_kubernetes::object::FIELD_MANAGER;
use mesh_policy::snapshot::{ObjectRef, Source};
use mesh_policy_index::manifest::Declared;
use std::collections::{BTreeMap, BTreeSet};

/// Annotation that names who made a change.
const AUTHOR: &str = "mesh.internal/author";
/// Annotation that names who agreed to it, and best also where: `ben (CHG-4711)`.
const APPROVER: &str = "mesh.internal/approver";

/// What is known of one change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authorship {
    /// Files that are new, changed or gone, sorted.
    pub(crate) files: Vec<String>,
    /// Policy objects that are; `None` if there was nothing to compare with.
    pub(crate) objects: Option<Vec<ChangedObject>>,
    pub(crate) author: Option<Said>,
    pub(crate) approver: Option<Said>,
}

/// Sources, and what was read from them.
pub(crate) type Read<'a> = (&'a Sources, &'a Parts);

/// Compares two states of the sources.
pub(crate) fn of(before: Option<Read<'_>>, after: Read<'_>) -> Authorship {
    let Some(before) = before else {
        return Authorship {
            files: after.0.changed_since(&Sources::default()),
            ..Authorship::default()
        };
    };
    let files = after.0.changed_since(before.0);
    let changes: Vec<Changed> = files
        .iter()
        .flat_map(|file| changed_in(file, before, after))
        .collect();
    let mut objects: Vec<ChangedObject> = changes
        .iter()
        .map(|one| ChangedObject {
            object: one.object.clone(),
            how: one.how,
        })
        .collect();
    objects.sort();
    objects.dedup();
    Authorship {
        files,
        author: of_all(changes.iter().map(|one| one.author.as_ref())),
        approver: of_all(changes.iter().map(|one| one.approver.as_ref())),
        objects: Some(objects),
    }
}

/// One object that a change concerns.
struct Changed {
    object: String,
    how: How,
    author: Option<(String, SaidBy)>,
    approver: Option<(String, SaidBy)>,
}

/// Names of all, if all have one.
fn of_all<'a>(said: impl Iterator<Item = Option<&'a (String, SaidBy)>>) -> Option<Said> {
    let all: Vec<_> = said.collect::<Option<_>>()?;
    let from = all.iter().map(|(_, from)| *from).min()?;
    let who: BTreeSet<&String> = all.iter().map(|(who, _)| who).collect();
    Some(Said {
        who: who.into_iter().cloned().collect(),
        from,
    })
}

/// An object, its text, and its annotations.
struct Stand<'a> {
    text: &'a [u8],
    declared: Declared<'a>,
}

fn changed_in(file: &str, before: Read<'_>, after: Read<'_>) -> Vec<Changed> {
    let (old, new) = (objects_of(file, before), objects_of(file, after));
    let now = after.0.files.get(file);
    let (mut out, mut differ) = (Vec::new(), false);
    for (name, stand) in &new {
        let was = old.get(name);
        if was.is_some_and(|was| was.text == stand.text) {
            continue;
        }
        differ = true;
        if is_policy(was, Some(stand)) {
            out.push(Changed {
                object: name.clone(),
                how: was.map_or(How::Added, |_| How::Changed),
                author: author(was, stand).or_else(|| known(now, Some(stand))),
                approver: said(APPROVER, was, stand),
            });
        }
    }
    for (name, stand) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        differ = true;
        if is_policy(Some(stand), None) {
            out.push(Changed {
                object: name.clone(),
                how: How::Removed,
                author: known(now, None),
                approver: None,
            });
        }
    }
    if !differ {
        // Nothing in it is an object that differs: a document that cannot be read, say, which closes what it may protect.
        out.push(Changed {
            object: format!("file {file}"),
            how: How::Changed,
            author: known(now, None),
            approver: None,
        });
    }
    out
}

/// Objects by name. One that stands twice in a file is taken as one, of both texts' last.
fn objects_of<'a>(file: &str, (sources, parts): Read<'a>) -> BTreeMap<String, Stand<'a>> {
    let (Some(source), Some((_, part))) = (sources.files.get(file), parts.get(file)) else {
        return BTreeMap::new();
    };
    let lines = ends_of_lines(&source.bytes);
    part.declared()
        .into_iter()
        .map(|declared| {
            let text = text_of(&declared.object.source, &source.bytes, &lines);
            (name_of(&declared.object), Stand { text, declared })
        })
        .collect()
}

/// Where each line ends, from the first on.
fn ends_of_lines(bytes: &[u8]) -> Vec<usize> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines
        .scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        })
        .collect()
}

/// The lines that an object stands in. A file may have ten thousand objects, and policy waits for this.
fn text_of<'a>(source: &Source, bytes: &'a [u8], lines: &[usize]) -> &'a [u8] {
    let Source::File { line, end_line, .. } = source else {
        return bytes;
    };
    let end_of = |line: u32| match line {
        0 => 0,
        line => lines.get(line as usize - 1).copied().unwrap_or(bytes.len()),
    };
    bytes
        .get(end_of(line.saturating_sub(1))..end_of(*end_line))
        .unwrap_or(bytes)
}

fn name_of(object: &ObjectRef) -> String {
    match object.namespace.as_str() {
        "" => format!("{}/{}", object.kind, object.name),
        namespace => format!("{}/{namespace}/{}", object.kind, object.name),
    }
}

/// Whether a change of it is one of policy: of what only runs, if its annotations changed, which set defaults.
fn is_policy(was: Option<&Stand<'_>>, is: Option<&Stand<'_>>) -> bool {
    match (was, is) {
        (Some(was), Some(is)) => {
            !is.declared.runs || was.declared.annotations != is.declared.annotations
        }
        (Some(one), None) | (None, Some(one)) => !one.declared.runs,
        (None, None) => false,
    }
}

/// What an annotation says that was written with the change.
fn said(annotation: &str, was: Option<&Stand<'_>>, is: &Stand<'_>) -> Option<(String, SaidBy)> {
    let of = |stand: &Stand<'_>| stand.declared.annotations.get(annotation).cloned();
    let now = of(is).filter(|text| !text.trim().is_empty())?;
    let stale = was.and_then(of).is_some_and(|before| before == now);
    (!stale).then(|| (now.trim().to_owned(), SaidBy::Annotation))
}

/// The author that annotations name. With a new approval beside it, the same author made this change too: else whoever
/// approves their own change could leave their name as it was, and be taken for somebody else than the file's owner.
fn author(was: Option<&Stand<'_>>, is: &Stand<'_>) -> Option<(String, SaidBy)> {
    said(AUTHOR, was, is).or_else(|| {
        said(APPROVER, was, is)?;
        said(AUTHOR, None, is)
    })
}

/// Whom the kernel or the API server names.
fn known(file: Option<&SourceFile>, is: Option<&Stand<'_>>) -> Option<(String, SaidBy)> {
    match file?.owner {
        Some(uid) => Some((format!("uid {uid}"), SaidBy::FileOwner)),
        None => {
            let manager = is?.declared.annotations.get(FIELD_MANAGER)?;
            Some((manager.clone(), SaidBy::FieldManager))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy_index::manifest::read_part;
    use std::sync::Arc;

    fn state(files: &[(&str, &str)], owner: Option<u32>) -> (Sources, Parts) {
        let mut sources = Sources::default();
        let mut parts = Parts::new();
        for (name, text) in files {
            let file = SourceFile {
                owner,
                ..SourceFile::new(text.as_bytes().to_vec())
            };
            let part = Arc::new(read_part(name, &file.bytes));
            parts.insert((*name).to_owned(), (file.digest, part));
            sources.files.insert((*name).to_owned(), file);
        }
        (sources, parts)
    }

    fn compared(before: &[(&str, &str)], after: &[(&str, &str)], owner: Option<u32>) -> Authorship {
        let (before, after) = (state(before, owner), state(after, owner));
        of(Some((&before.0, &before.1)), (&after.0, &after.1))
    }

    fn server(name: &str, port: u16, notes: &str) -> String {
        format!(
            "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata:\n  name: {name}\n  namespace: shop\n  annotations: {{{notes}}}\nspec:\n  podSelector: {{}}\n  port: {port}\n---\n"
        )
    }

    fn names(said: &Option<Said>) -> Option<(Vec<&str>, SaidBy)> {
        said.as_ref()
            .map(|said| (said.who.iter().map(String::as_str).collect(), said.from))
    }

    #[test]
    fn only_what_differs_is_named_and_the_owner_of_the_file_with_it() {
        let before = server("a", 1, "") + &server("b", 2, "");
        let after = server("a", 1, "") + &server("b", 3, "") + &server("c", 4, "");
        let found = compared(&[("x.yaml", &before)], &[("x.yaml", &after)], Some(1000));
        let objects = found.objects.clone().unwrap();
        let of: Vec<_> = objects.iter().map(|o| (o.object.as_str(), o.how)).collect();
        assert_eq!(
            of,
            [
                ("Server/shop/b", How::Changed),
                ("Server/shop/c", How::Added)
            ]
        );
        assert_eq!(
            names(&found.author),
            Some((vec!["uid 1000"], SaidBy::FileOwner))
        );
        assert_eq!(found.approver, None);
    }

    #[test]
    fn an_object_is_all_of_its_lines_and_no_others() {
        let line = |name: &str, port: u16| {
            format!(
                "{{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {{name: {name}, namespace: shop}}, spec: {{podSelector: {{}}, port: {port}}}}}"
            )
        };
        let text = |ports: [u16; 3]| {
            let [a, b, c] = ports;
            [line("a", a), line("b", b), line("c", c)].join("\n---\n")
        };
        for (after, changed) in [
            ([9, 2, 3], "Server/shop/a"),
            ([1, 9, 3], "Server/shop/b"),
            // The last line has no end.
            ([1, 2, 9], "Server/shop/c"),
        ] {
            let found = compared(&[("x", &text([1, 2, 3]))], &[("x", &text(after))], Some(0));
            let objects = found.objects.unwrap();
            let names: Vec<_> = objects.iter().map(|one| one.object.as_str()).collect();
            assert_eq!(names, [changed]);
        }
    }

    #[test]
    fn an_approval_counts_for_the_change_it_was_written_with_and_for_no_later_one() {
        let by = r#"mesh.internal/author: ana, mesh.internal/approver: "ben (1)""#;
        let (plain, approved) = (server("a", 1, ""), server("a", 2, by));
        let found = compared(&[("x", &plain)], &[("x", &approved)], Some(0));
        assert_eq!(
            names(&found.author),
            Some((vec!["ana"], SaidBy::Annotation))
        );
        assert_eq!(
            names(&found.approver),
            Some((vec!["ben (1)"], SaidBy::Annotation))
        );
        // The annotations are the same and the port is not: nobody approved this.
        let later = server("a", 3, by);
        let found = compared(&[("x", &approved)], &[("x", &later)], Some(0));
        assert_eq!(
            names(&found.author),
            Some((vec!["uid 0"], SaidBy::FileOwner))
        );
        assert_eq!(found.approver, None);
        let renewed = server("a", 3, &by.replace("(1)", "(2)"));
        let found = compared(&[("x", &approved)], &[("x", &renewed)], Some(0));
        assert_eq!(
            names(&found.approver),
            Some((vec!["ben (2)"], SaidBy::Annotation))
        );
        assert_eq!(
            names(&found.author),
            Some((vec!["ana"], SaidBy::Annotation)),
            "with a new approval the author is the one who stands there"
        );
        for empty in ["\"\"", "\"  \""] {
            let text = server("a", 2, &format!("mesh.internal/approver: {empty}"));
            assert_eq!(
                compared(&[("x", &plain)], &[("x", &text)], Some(0)).approver,
                None
            );
        }
    }

    #[test]
    fn one_object_without_an_approver_leaves_the_change_without_one() {
        let by = "mesh.internal/approver: ben";
        let after = server("a", 1, by) + &server("b", 2, "");
        assert_eq!(compared(&[], &[("x", &after)], Some(0)).approver, None);
        let after = server("a", 1, by) + &server("b", 2, by);
        assert!(compared(&[], &[("x", &after)], Some(0)).approver.is_some());
        // And what is removed carries no annotation.
        let found = compared(&[("x", &after)], &[("x", &server("a", 1, by))], Some(7));
        assert_eq!(found.objects.unwrap()[0].how, How::Removed);
        assert_eq!(
            names(&found.author),
            Some((vec!["uid 7"], SaidBy::FileOwner))
        );
        assert_eq!(found.approver, None);
        let found = compared(&[("x", &after)], &[], Some(7));
        assert_eq!(found.author, None, "a file that is gone has no owner");
    }

    #[test]
    fn the_field_manager_is_believed_of_an_api_server_alone() {
        let note = format!("{FIELD_MANAGER}: argocd");
        let after = server("a", 1, &note);
        let found = compared(&[], &[("x", &after)], None);
        assert_eq!(
            names(&found.author),
            Some((vec!["argocd"], SaidBy::FieldManager))
        );
        let found = compared(&[], &[("x", &after)], Some(5));
        assert_eq!(
            names(&found.author),
            Some((vec!["uid 5"], SaidBy::FileOwner))
        );
    }

    #[test]
    fn what_runs_is_no_policy_unless_its_annotations_change() {
        let pod = |image: &str, notes: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, annotations: {{{notes}}}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
            )
        };
        let open = "config.linkerd.io/default-inbound-policy: all-unauthenticated";
        let found = compared(&[], &[("x", &pod("a", ""))], Some(0));
        assert_eq!(found.objects, Some(Vec::new()));
        let found = compared(&[("x", &pod("a", ""))], &[("x", &pod("b", ""))], Some(0));
        assert_eq!(found.objects, Some(Vec::new()));
        let found = compared(&[("x", &pod("a", ""))], &[("x", &pod("a", open))], Some(0));
        assert_eq!(found.objects.unwrap()[0].object, "Pod/shop/p");
    }

    #[test]
    fn a_file_that_changed_without_an_object_is_named_itself() {
        let found = compared(&[("x", "# a\n")], &[("x", "kind: [\n")], Some(0));
        assert_eq!(found.objects.unwrap()[0].object, "file x");
        let (sources, parts) = state(&[("x", "")], Some(0));
        assert_eq!(of(None, (&sources, &parts)).objects, None);
    }
}
