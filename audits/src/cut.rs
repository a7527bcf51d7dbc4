//! Long texts of an entry are cut: what strangers send must not fill the disk. What was cut is said beside it.

use crate::entry::{Action, AllowClass, ChangedObject, Entry, Said};
use crate::limits::{
    HOST_BYTES_MAX, IDENTITY_BYTES_MAX, ISSUANCE_BYTES_MAX, LIST_MAX, METHOD_BYTES_MAX,
    NAME_BYTES_MAX, PATH_BYTES_MAX, PEOPLE_MAX,
};
use mesh_policy::equivalence::Assurance;
use mesh_policy::record::DecisionRecord;
use std::collections::BTreeMap;

/// Which texts were cut, by the path of the field, and how long they were. Beside the entry, so that no content can
/// pretend to be cut.
pub type Cut = BTreeMap<String, u64>;

impl Entry {
    /// Cuts what is longer than [`crate::limits`] allows and says so.
    pub(crate) fn cut(&mut self) -> Cut {
        let mut cut = Cut::new();
        match self {
            Self::Start(start) => cut_text(&mut start.origin, NAME_BYTES_MAX, "origin", &mut cut),
            Self::Decision(record) => cut_decision(record, &mut cut),
            Self::Gap(_) | Self::Retired(_) => {}
            Self::Equivalence(equivalence) => {
                if let Assurance::Differs { grant, case, .. } = &mut equivalence.found {
                    cut_text(grant, IDENTITY_BYTES_MAX, "found.grant", &mut cut);
                    cut_text(case, PATH_BYTES_MAX, "found.case", &mut cut);
                }
            }
            Self::Change(change) => {
                cut_list(&mut change.files, "files", &mut cut);
                cut_said(change.author.as_mut(), "author.who", &mut cut);
                cut_said(change.approver.as_mut(), "approver.who", &mut cut);
                if let Some(objects) = &mut change.objects {
                    cut_objects(objects, &mut cut);
                }
            }
            Self::Effect(effect) => {
                cut_text(&mut effect.digest, NAME_BYTES_MAX, "digest", &mut cut);
                cut_list(&mut effect.access, "access", &mut cut);
            }
            Self::Issuance(line) => {
                cut_text(&mut line.text, ISSUANCE_BYTES_MAX, "text", &mut cut);
            }
            Self::Counts(counts) => {
                if counts.classes.len() > LIST_MAX {
                    cut.insert("classes".to_owned(), counts.classes.len() as u64);
                    counts.classes.truncate(LIST_MAX);
                }
                for (index, class) in counts.classes.iter_mut().enumerate() {
                    cut_class(class, index, &mut cut);
                }
            }
            Self::BreakGlass(used) => {
                let texts = [
                    (&mut used.action, "action"),
                    (&mut used.grant, "grant"),
                    (&mut used.by, "by"),
                    (&mut used.reason, "reason"),
                ];
                cut_texts(texts, &mut cut);
            }
            Self::Trust(Action {
                action, by, detail, ..
            })
            | Self::Admin(Action {
                action, by, detail, ..
            }) => {
                let texts = [(action, "action"), (by, "by"), (detail, "detail")];
                cut_texts(texts, &mut cut);
            }
            Self::Redaction(redaction) => {
                let texts = [(&mut redaction.by, "by"), (&mut redaction.why, "why")];
                cut_texts(texts, &mut cut);
                cut_list(&mut redaction.fields, "fields", &mut cut);
            }
        }
        cut
    }
}

fn cut_decision(record: &mut DecisionRecord, cut: &mut Cut) {
    let client = &mut record.client;
    cut_option(
        &mut client.spiffe_id,
        IDENTITY_BYTES_MAX,
        "client.spiffe_id",
        cut,
    );
    cut_option(&mut client.ip, NAME_BYTES_MAX, "client.ip", cut);
    cut_option(&mut client.serial, NAME_BYTES_MAX, "client.serial", cut);
    let server = &mut record.server;
    cut_text(
        &mut server.namespace,
        NAME_BYTES_MAX,
        "server.namespace",
        cut,
    );
    cut_option(&mut server.name, NAME_BYTES_MAX, "server.name", cut);
    cut_option(&mut server.workload, NAME_BYTES_MAX, "server.workload", cut);
    if let Some(egress) = &mut record.egress {
        cut_text(&mut egress.to, NAME_BYTES_MAX, "egress.to", cut);
        let name = &mut egress.server_name;
        cut_option(name, HOST_BYTES_MAX, "egress.server_name", cut);
    }
    if let Some(route) = &mut record.route {
        cut_text(&mut route.kind, NAME_BYTES_MAX, "route.kind", cut);
        cut_text(&mut route.namespace, NAME_BYTES_MAX, "route.namespace", cut);
        cut_text(&mut route.name, NAME_BYTES_MAX, "route.name", cut);
    }
    if let Some(request) = &mut record.request {
        cut_text(&mut request.method, METHOD_BYTES_MAX, "request.method", cut);
        cut_option(&mut request.path, PATH_BYTES_MAX, "request.path", cut);
        cut_text(
            &mut request.raw_path,
            PATH_BYTES_MAX,
            "request.raw_path",
            cut,
        );
        cut_option(&mut request.host, HOST_BYTES_MAX, "request.host", cut);
    }
    cut_list(&mut record.reasons, "reasons", cut);
    if let Some(shadow) = &mut record.shadow {
        cut_list(&mut shadow.reasons, "shadow.reasons", cut);
    }
    if let Some(fault) = &mut record.fault {
        cut_text(&mut fault.name, NAME_BYTES_MAX, "fault.name", cut);
    }
    if record.near_misses.len() > LIST_MAX {
        cut.insert("near_misses".to_owned(), record.near_misses.len() as u64);
        record.near_misses.truncate(LIST_MAX);
    }
}

fn cut_class(class: &mut AllowClass, index: usize, cut: &mut Cut) {
    let path = |field: &str| format!("classes[{index}].{field}");
    let short = |text: &Option<String>, limit| text.as_ref().is_none_or(|text| text.len() <= limit);
    // Paths are built only for what is cut: there may be hundreds of classes in a line.
    if !short(&class.client, IDENTITY_BYTES_MAX) {
        cut_option(&mut class.client, IDENTITY_BYTES_MAX, &path("client"), cut);
    }
    if !short(&class.method, METHOD_BYTES_MAX) {
        cut_option(&mut class.method, METHOD_BYTES_MAX, &path("method"), cut);
    }
    if class.reasons.len() > LIST_MAX || class.reasons.iter().any(|r| r.len() > NAME_BYTES_MAX) {
        cut_list(&mut class.reasons, &path("reasons"), cut);
    }
}

fn cut_said(said: Option<&mut Said>, path: &str, cut: &mut Cut) {
    let Some(said) = said else {
        return;
    };
    if said.who.len() > PEOPLE_MAX {
        cut.insert(path.to_owned(), said.who.len() as u64);
        said.who.truncate(PEOPLE_MAX);
    }
    cut_list(&mut said.who, path, cut);
}

fn cut_objects(objects: &mut Vec<ChangedObject>, cut: &mut Cut) {
    if objects.len() > LIST_MAX {
        cut.insert("objects".to_owned(), objects.len() as u64);
        objects.truncate(LIST_MAX);
    }
    for (index, one) in objects.iter_mut().enumerate() {
        if one.object.len() > NAME_BYTES_MAX {
            let path = format!("objects[{index}].object");
            cut_text(&mut one.object, NAME_BYTES_MAX, &path, cut);
        }
    }
}

fn cut_texts<const N: usize>(texts: [(&mut String, &str); N], cut: &mut Cut) {
    for (text, path) in texts {
        cut_text(text, NAME_BYTES_MAX, path, cut);
    }
}

fn cut_list(list: &mut Vec<String>, path: &str, cut: &mut Cut) {
    if list.len() > LIST_MAX {
        cut.insert(path.to_owned(), list.len() as u64);
        list.truncate(LIST_MAX);
    }
    for (index, item) in list.iter_mut().enumerate() {
        if item.len() > NAME_BYTES_MAX {
            cut_text(item, NAME_BYTES_MAX, &format!("{path}[{index}]"), cut);
        }
    }
}

fn cut_option(text: &mut Option<String>, limit: usize, path: &str, cut: &mut Cut) {
    if let Some(text) = text {
        cut_text(text, limit, path, cut);
    }
}

fn cut_text(text: &mut String, limit: usize, path: &str, cut: &mut Cut) {
    if text.len() > limit {
        cut.insert(path.to_owned(), text.len() as u64);
        text.truncate(text.floor_char_boundary(limit));
    }
}
