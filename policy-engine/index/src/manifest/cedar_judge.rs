//! One policy text: parsed, validated strictly, its entity ids well-formed.
//!
//! A judgement depends on the text alone, and costs some 0.2 ms, most of it in Cedar's parser. Judgements are remembered,
//! so that a thousand policies cost nothing when a file beside them changes.

use super::identity::{is_label, is_subdomain};
use super::resource::Key;
use crate::finding::Code;
use crate::limits::JUDGED_BYTES_MAX;
use cedar_policy::{
    EntityUid, Policy, PolicySet, Schema, Template, ValidationMode, ValidationWarning, Validator,
};
use mesh_policy::snapshot::Effect;
use mesh_trust::{SpiffeId, TrustDomain};
use miette::Diagnostic;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

/// The vocabulary of policies; the same file that decisions are made with.
const SCHEMA: &str = include_str!("../../../core/src/mesh.cedarschema");

/// Entities that a policy may be away from principal, resource and context, so that what the proxy knows answers it.
const DEREFERENCES_MAX: u32 = 1;

/// What there is to say of a policy text, whoever wrote it where.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// `None` if it cannot be told.
    pub(crate) effect: Option<Effect>,
    /// `@id` and `@audit`, as they stand.
    pub(crate) id: Option<String>,
    pub(crate) audit: Option<String>,
    pub(crate) mentions: Vec<Mention>,
    /// Why it cannot be evaluated, if so.
    pub(crate) problems: Vec<Remark>,
    pub(crate) doubts: Vec<Remark>,
}

/// Something wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Remark {
    /// Lines of the policy before the place.
    pub(crate) line: usize,
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// What a policy refers to by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mention {
    IdentitySet(String),
    NetworkSet(String),
    Server(Key),
    /// Servers of a namespace.
    Servers(String),
    Route(String, Key),
}

/// Judges the text of one policy, which the scan has measured.
pub(crate) fn judge(text: &str) -> Arc<Judgement> {
    static REMEMBERED: OnceLock<Mutex<Memory>> = OnceLock::new();
    let remembered = REMEMBERED.get_or_init(Mutex::default);
    // A lock that somebody died under costs the memory, never an answer.
    if let Ok(memory) = remembered.lock()
        && let Some(known) = memory.judgements.get(text)
    {
        return Arc::clone(known);
    }
    let judgement = Arc::new(judge_anew(text));
    if let Ok(mut memory) = remembered.lock() {
        memory.keep(text, &judgement);
    }
    judgement
}

#[derive(Default)]
struct Memory {
    judgements: HashMap<String, Arc<Judgement>>,
    /// Of all texts.
    bytes: usize,
}

impl Memory {
    fn keep(&mut self, text: &str, judgement: &Arc<Judgement>) {
        if self.bytes + text.len() > JUDGED_BYTES_MAX {
            (self.judgements, self.bytes) = (HashMap::new(), 0);
        }
        let before = self
            .judgements
            .insert(text.to_owned(), Arc::clone(judgement));
        if before.is_none() {
            self.bytes += text.len();
        }
    }
}

fn judge_anew(text: &str) -> Judgement {
    let mut out = Judgement::default();
    match Policy::parse(None, text) {
        Ok(policy) => {
            out.effect = Some(effect(policy.effect()));
            out.id = policy.annotation("id").map(str::to_owned);
            out.audit = policy.annotation("audit").map(str::to_owned);
            out.mentions(&policy);
            out.headers(&policy);
            out.validate(&policy, text);
        }
        Err(error) => match Template::parse(None, text) {
            Ok(template) => {
                out.effect = Some(effect(template.effect()));
                let message = "a policy with a slot (`?principal`, `?resource`) is a template, and nobody fills it in";
                out.problem(0, Code::CedarTemplate, message);
            }
            Err(_) => {
                let message = format!("it cannot be read: {error}");
                out.problem(line_of(&error, text), Code::CedarSyntax, message);
            }
        },
    }
    out
}

impl Judgement {
    fn problem(&mut self, line: usize, code: Code, message: impl Into<String>) {
        self.problems.push(Remark {
            line,
            code,
            message: message.into(),
        });
    }

    fn mentions(&mut self, policy: &Policy) {
        for literal in policy.entity_literals() {
            match mention(&literal) {
                Ok(mention) => self.mentions.extend(mention),
                Err(why) => {
                    let message = format!("`{literal}` can be nothing: {why}");
                    self.problem(0, Code::CedarEntity, message);
                }
            }
        }
        self.mentions.sort();
        self.mentions.dedup();
    }

    /// Headers that can never be there: then a forbid about them would forbid nothing, in silence.
    fn headers(&mut self, policy: &Policy) {
        let mut wrong = Vec::new();
        match policy.to_json() {
            Ok(json) => header_names(&json, &mut wrong),
            Err(error) => wrong.push(error.to_string()),
        }
        for why in wrong {
            self.problem(0, Code::CedarEntity, why);
        }
    }

    fn validate(&mut self, policy: &Policy, text: &str) {
        let set = PolicySet::from_policies([policy.clone()]).map_err(|e| e.to_string());
        let (validator, set) = match (validator(), set) {
            (Ok(validator), Ok(set)) => (validator, set),
            (Err(why), _) | (_, Err(why)) => {
                self.problem(0, Code::CedarInvalid, why);
                return;
            }
        };
        // Whoever reads the message knows the policy by a better name.
        let name = format!("for policy `{}`, ", policy.id());
        let remark = |code, error: &dyn Diagnostic| {
            let message = error.to_string();
            Remark {
                line: line_of(error, text),
                code,
                message: message.strip_prefix(&name).unwrap_or(&message).to_owned(),
            }
        };
        let result = validator.validate_with_level(&set, ValidationMode::Strict, DEREFERENCES_MAX);
        let errors = result.validation_errors();
        self.problems
            .extend(errors.map(|error| remark(Code::CedarInvalid, error)));
        for warning in result.validation_warnings() {
            if matches!(
                warning,
                ValidationWarning::ImpossiblePolicy(_)
                    | ValidationWarning::InvalidActionApplication(_)
            ) {
                self.problems.push(remark(Code::CedarImpossible, warning));
            } else {
                self.doubts.push(remark(Code::CedarDoubt, warning));
            }
        }
        for remarks in [&mut self.problems, &mut self.doubts] {
            remarks.sort();
            remarks.dedup();
        }
    }
}

fn effect(effect: cedar_policy::Effect) -> Effect {
    match effect {
        cedar_policy::Effect::Permit => Effect::Permit,
        cedar_policy::Effect::Forbid => Effect::Forbid,
    }
}

/// What is wrong with the header names of a policy, in its JSON form.
fn header_names(json: &serde_json::Value, wrong: &mut Vec<String>) {
    match json {
        serde_json::Value::Array(items) => items.iter().for_each(|item| header_names(item, wrong)),
        serde_json::Value::Object(fields) => {
            for (key, item) in fields {
                if key == "hasTag" || key == "getTag" {
                    let name = item.pointer("/right/Value").and_then(|name| name.as_str());
                    wrong.extend(match name {
                        None => Some("the name of a header must be a string literal".to_owned()),
                        Some(name) => no_header(name),
                    });
                }
                header_names(item, wrong);
            }
        }
        _ => {}
    }
}

/// Why no header of a request has this name: they are tokens (RFC 9110 §5.1), and policies see them in lower case.
fn no_header(name: &str) -> Option<String> {
    let of_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let why = if name.is_empty() || !name.chars().all(of_token) {
        "which is no name of a header"
    } else if name.chars().any(|c| c.is_ascii_uppercase()) {
        "and header names are in lower case here"
    } else {
        return None;
    };
    Some(format!(
        "header `{}` can be nothing: {why}",
        name.escape_debug()
    ))
}

/// Lines of `text` before the place that an error of Cedar's points to.
fn line_of(error: &dyn Diagnostic, text: &str) -> usize {
    let offset = error
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or(0, |label| label.offset());
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|b| **b == b'\n').count()
}

/// Strict validation against the schema: built once per process.
pub(crate) fn validator() -> Result<&'static Validator, String> {
    static VALIDATOR: OnceLock<Result<Validator, String>> = OnceLock::new();
    VALIDATOR
        .get_or_init(|| {
            let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA)
                .map_err(|error| format!("the policy schema cannot be read: {error}"))?;
            Ok(Validator::new(schema))
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// What an entity of a policy refers to. An id that none of its type can have would make a forbid forbid nothing, in
/// silence, so it is refused; whether a well-formed one stands for anything only the index knows.
fn mention(entity: &EntityUid) -> Result<Option<Mention>, String> {
    let id: &str = entity.id().unescaped();
    let named = |text: &str| match text.split_once('/') {
        Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
            Some(Key::new(namespace, name))
        }
        _ => None,
    };
    let form = |wanted: &str| format!("the id is `{wanted}`");
    Ok(match entity.type_name().to_string().as_str() {
        "Mesh::IdentitySet" => Some(Mention::IdentitySet(id.to_owned())),
        "Mesh::NetSet" => Some(Mention::NetworkSet(id.to_owned())),
        "Mesh::TrustDomain" => {
            TrustDomain::parse(id).map_err(|error| error.to_string())?;
            None
        }
        "Mesh::Namespace" => {
            let parts = id.split_once('/');
            if !parts.is_some_and(|(td, ns)| TrustDomain::parse(td).is_ok() && is_label(ns)) {
                return Err(form("<trust domain>/<namespace>"));
            }
            None
        }
        "Mesh::Workload" => {
            SpiffeId::parse(id).map_err(|error| error.to_string())?;
            None
        }
        "Mesh::Server" if id == "default" => None,
        "Mesh::Server" => Some(Mention::Server(
            named(id).ok_or_else(|| form("<namespace>/<name>"))?,
        )),
        "Mesh::NamedServers" if is_label(id) => Some(Mention::Servers(id.to_owned())),
        "Mesh::NamedServers" => return Err(form("<namespace>")),
        "Mesh::RouteObj" => {
            let route = id.split_once('/').and_then(|(kind, key)| {
                let known = ["HTTPRoute", "GRPCRoute"].iter().any(|k| {
                    kind == *k || kind.strip_prefix(k).is_some_and(|r| r.starts_with('.'))
                });
                let key = named(key).filter(|_| known)?;
                Some(Mention::Route(kind.to_owned(), key))
            });
            Some(route.ok_or_else(|| form("HTTPRoute/<namespace>/<name>"))?)
        }
        _ => None,
    })
}
