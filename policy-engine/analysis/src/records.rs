//! Decision records as they stand in answers and logs: read, asked again, and put into classes.

use crate::cases::route_text;
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A decision, and whether the log cut one of its texts, or one was redacted.
    Decision(Box<DecisionRecord>, bool),
    /// A decision of a workload's own proxy about what leaves the mesh: it is about no caller.
    Left(Box<DecisionRecord>),
    /// So many decisions are missing here.
    Lost(u64),
    /// Something else of a log: a start, a change of policy.
    Other,
}

/// Why a line is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NoRecord {
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub why: String,
}

/// As much of a line as tells a log from an answer.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
    #[serde(default)]
    cut: BTreeMap<String, u64>,
    #[serde(default)]
    salted: Vec<String>,
    // Texts in whose place the record has a commitment, each with its salt.
    #[serde(default)]
    open: BTreeMap<String, (String, String)>,
}

#[derive(Deserialize)]
struct Gap {
    lost: u64,
}

/// Reads a line: a decision record as replay writes it, or an entry of an audit log, which has one inside.
///
/// # Errors
/// [`NoRecord`]. Unknown fields of a decision record are refused.
pub fn read(line: &[u8]) -> Result<Entry, NoRecord> {
    let text = std::str::from_utf8(line).map_err(|error| NoRecord {
        column: error.valid_up_to().saturating_add(1),
        why: "it is not UTF-8".to_owned(),
    })?;
    let shape: Shape<'_> = serde_json::from_str(text).map_err(|error| no_record(&error))?;
    match (shape.kind.as_deref(), shape.record) {
        (None, None) => {
            let record = serde_json::from_str(text).map_err(|error| no_record(&error))?;
            Ok(decision(record, false))
        }
        (Some("decision"), Some(record)) => {
            let mut record: DecisionRecord =
                serde_json::from_str(record.get()).map_err(|error| no_record(&error))?;
            let redacted = shape
                .salted
                .iter()
                .any(|field| !shape.open.contains_key(field));
            for (field, (_, text)) in shape.open {
                if let Some(place) = text_of(&mut record, &field) {
                    *place = text;
                }
            }
            let whole = shape.cut.is_empty() && !redacted;
            Ok(decision(record, !whole))
        }
        (Some("gap"), Some(gap)) => {
            let gap: Gap = serde_json::from_str(gap.get()).map_err(|error| no_record(&error))?;
            Ok(Entry::Lost(gap.lost))
        }
        (
            Some(
                "start" | "change" | "effect" | "issuance" | "equivalence" | "counts" | "retired"
                | "redaction" | "break-glass" | "trust" | "admin",
            ),
            Some(_),
        ) => Ok(Entry::Other),
        (kind, _) => Err(NoRecord {
            column: 1,
            why: format!(
                "an entry of kind `{}` is neither a decision record nor one of an audit log",
                kind.unwrap_or_default()
            ),
        }),
    }
}

/// A decision, about a caller or about what leaves the mesh.
fn decision(record: DecisionRecord, cut: bool) -> Entry {
    match record.egress {
        Some(_) => Entry::Left(Box::new(record)),
        None => Entry::Decision(Box::new(record), cut),
    }
}

/// The text of a record that a log may hold as a commitment.
fn text_of<'a>(record: &'a mut DecisionRecord, field: &str) -> Option<&'a mut String> {
    let request = record.request.as_mut();
    match field {
        "client.ip" => record.client.ip.as_mut(),
        "request.raw_path" => request.map(|request| &mut request.raw_path),
        "request.path" => request.and_then(|request| request.path.as_mut()),
        "request.host" => request.and_then(|request| request.host.as_mut()),
        _ => None,
    }
}

fn no_record(error: &serde_json::Error) -> NoRecord {
    let why = error.to_string();
    // The reader counts lines of its own input, which is this line alone.
    let why = why
        .rsplit_once(" at line ")
        .map_or(why.as_str(), |(why, _)| why);
    NoRecord {
        column: error.column().max(1),
        why: why.to_owned(),
    }
}

/// The request of a decision record. Records hold no headers: what a route or policy asks of them is not known.
pub fn request(record: &DecisionRecord) -> RequestRecord {
    let on_grpc = record.route.as_ref().is_some_and(|r| r.kind == "GRPCRoute");
    let protocol = match &record.request {
        None => Protocol::Tcp,
        Some(_) if on_grpc || record.grpc_status.is_some() => Protocol::Grpc,
        Some(_) => Protocol::Http,
    };
    let request = record.request.as_ref();
    RequestRecord {
        client: ClientRecord {
            spiffe_id: record.client.spiffe_id.clone(),
            ip: record.client.ip.clone(),
            tls: Some(record.client.tls),
        },
        server: TargetRecord {
            namespace: record.server.namespace.clone(),
            pod: record.server.workload.clone(),
            service: None,
            port: record.server.port,
        },
        protocol,
        method: request.map(|r| r.method.clone()),
        path: request.map(|r| r.raw_path.clone()),
        host: request.and_then(|r| r.host.clone()),
        headers: BTreeMap::new(),
    }
}

/// What decisions have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Class {
    /// Identity of the client, if it had one.
    pub from: Option<String>,
    /// `namespace/workload:port`.
    pub to: String,
    /// Method; none for bytes.
    pub method: Option<String>,
    /// `kind/namespace/name/rule`.
    pub route: Option<String>,
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// Layer that decided.
    pub phase: String,
    /// HTTP status.
    pub status: Option<u16>,
    /// Reasons, sorted.
    pub reasons: Vec<String>,
}

impl Class {
    /// The class of a record.
    pub fn of(record: &DecisionRecord) -> Self {
        Self {
            from: record.client.spiffe_id.clone(),
            to: target(record),
            method: record.request.as_ref().map(|r| r.method.clone()),
            route: route_text(record),
            verdict: match record.verdict {
                Verdict::Allow => "allow",
                Verdict::Deny => "deny",
            },
            phase: phase(record.phase),
            status: record.status,
            reasons: record.reasons.clone(),
        }
    }
}

/// Classes that are told apart: about 1 KiB each.
pub const CLASSES_MAX: usize = 1_000_000;

/// Decisions counted by class.
#[derive(Debug, Default)]
pub struct Classes {
    /// Places in `all`, by what makes the class; its text is made for the first of a class alone.
    places: HashMap<Vec<u8>, usize>,
    all: Vec<Counted>,
    key: Vec<u8>,
    /// Decisions of classes beyond [`CLASSES_MAX`].
    pub beyond: u64,
}

/// One class, how often it was seen, and the first of its requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Decisions.
    pub count: u64,
    /// What they have in common.
    #[serde(flatten)]
    pub class: Class,
    /// The first request.
    pub example: RequestRecord,
}

impl Classes {
    /// Counts the decision of a request.
    pub fn add(&mut self, decision: &DecisionRecord, request: &RequestRecord) {
        self.key.clear();
        key_of(decision, &mut self.key);
        if let Some(place) = self.places.get(self.key.as_slice()) {
            if let Some(known) = self.all.get_mut(*place) {
                known.count = known.count.saturating_add(1);
            }
        } else if self.all.len() >= CLASSES_MAX {
            self.beyond = self.beyond.saturating_add(1);
        } else {
            self.places.insert(self.key.clone(), self.all.len());
            self.all.push(Counted {
                count: 1,
                class: Class::of(decision),
                example: request.clone(),
            });
        }
    }

    /// The classes, most frequent first.
    pub fn counted(&self) -> Vec<&Counted> {
        let mut all: Vec<&Counted> = self.all.iter().collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.class.cmp(&b.class)));
        all
    }
}

/// What makes the class of a decision, as bytes: no two classes have the same.
fn key_of(decision: &DecisionRecord, key: &mut Vec<u8>) {
    let mut text = |text: Option<&str>| {
        let length = text.map_or(0, |text| text.len() as u64 + 1);
        key.extend_from_slice(&length.to_le_bytes());
        key.extend_from_slice(text.unwrap_or_default().as_bytes());
    };
    let (server, route) = (&decision.server, decision.route.as_ref());
    text(decision.client.spiffe_id.as_deref());
    text(Some(&server.namespace));
    text(server.workload.as_deref());
    text(decision.request.as_ref().map(|r| r.method.as_str()));
    text(route.map(|route| route.kind.as_str()));
    text(route.map(|route| route.namespace.as_str()));
    text(route.map(|route| route.name.as_str()));
    decision
        .reasons
        .iter()
        .for_each(|reason| text(Some(reason)));
    key.extend_from_slice(&route.map_or(0, |route| route.rule).to_le_bytes());
    key.extend_from_slice(&server.port.to_le_bytes());
    key.extend_from_slice(&decision.status.unwrap_or_default().to_le_bytes());
    key.extend_from_slice(&[decision.verdict as u8, decision.phase as u8]);
}

/// `namespace/workload:port` of a record.
pub(crate) fn target(record: &DecisionRecord) -> String {
    let server = &record.server;
    let workload = server.workload.as_deref().unwrap_or("?");
    format!("{}/{workload}:{}", server.namespace, server.port)
}

pub(crate) fn phase(phase: Phase) -> String {
    crate::cases::text(&phase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{decide, index, request as asked};

    #[test]
    fn an_answer_and_an_entry_of_a_log_are_the_same_record() {
        let decision = decide(&index(), &asked("web", "/orders?q=1"));
        let text = serde_json::to_string(&decision).expect("JSON");
        let plain = read(text.as_bytes()).expect("a record");
        assert_eq!(plain, Entry::Decision(Box::new(decision.clone()), false));
        let line = format!(
            r#"{{"seq":3,"prev":"00","hash":"11","kind":"decision","record":{text},"cut":{{"request.path":9}}}}"#
        );
        let logged = read(line.as_bytes()).expect("a line");
        assert_eq!(logged, Entry::Decision(Box::new(decision.clone()), true));
        // Asked again, it is decided again.
        assert_eq!(decide(&index(), &request(&decision)), decision);
    }

    #[test]
    fn what_left_the_mesh_is_no_decision_about_a_caller() {
        let mut decision = decide(&index(), &asked("web", "/orders"));
        decision.egress = Some(mesh_policy::record::RecordEgress {
            to: "203.0.113.7:443".to_owned(),
            server_name: None,
            tls_port: None,
            instead: None,
        });
        let text = serde_json::to_string(&decision).expect("JSON");
        let left = Ok(Entry::Left(Box::new(decision)));
        assert_eq!(read(text.as_bytes()), left);
        let line = format!(r#"{{"kind":"decision","record":{text}}}"#);
        assert_eq!(read(line.as_bytes()), left);
    }

    #[test]
    fn other_entries_of_a_log_are_told_apart() {
        let gap = r#"{"seq":1,"kind":"gap","record":{"time":"2026-01-01T00:00:00Z","lost":7,"cause":"storage"}}"#;
        assert_eq!(read(gap.as_bytes()), Ok(Entry::Lost(7)));
        for kind in ["start", "change", "equivalence"] {
            let line = format!(r#"{{"kind":"{kind}","record":{{}}}}"#);
            assert_eq!(read(line.as_bytes()), Ok(Entry::Other), "{kind}");
        }
    }

    #[test]
    fn decisions_of_a_class_are_counted_together_and_others_apart() {
        let index = index();
        let mut classes = Classes::default();
        for (account, path) in [
            ("web", "/orders/1"),
            ("web", "/orders/2"),
            ("admin", "/orders/1"),
            ("web", "/none"),
            ("intruder", "/orders/1"),
        ] {
            let asked = asked(account, path);
            classes.add(&decide(&index, &asked), &asked);
        }
        let counted = classes.counted();
        let counts: Vec<u64> = counted.iter().map(|one| one.count).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(counted[0].example.path.as_deref(), Some("/orders/1"));
        assert_eq!(counted[0].class.verdict, "allow");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (line, why) in [
            (&b"{"[..], "EOF"),
            (b"[1]", ""),
            (b"{}", "missing field"),
            (b"\xff\xfe", "UTF-8"),
            (br#"{"kind":"trace","record":{}}"#, "trace"),
            (br#"{"kind":"decision"}"#, "decision"),
            (
                br#"{"kind":"decision","record":{"time":null}}"#,
                "missing field",
            ),
            (
                br#"{"client":{"spiffe_id":null},"server":{"namespace":"a","port":80}}"#,
                "",
            ),
            (br#"{"time":null,"generation":1,"extra":2}"#, ""),
        ] {
            let error = read(line).expect_err(why);
            assert!(error.why.contains(why) && error.column > 0, "{error:?}");
        }
    }
}
