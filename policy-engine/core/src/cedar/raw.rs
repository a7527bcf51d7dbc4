//! Policies that people wrote in Cedar: read, confined to their namespace, validated, and compiled where possible.
//!
//! The boundary of a namespaced policy is not asked of its author: it is conjoined as the first clause, through the syntax
//! tree, so that outside its namespace a policy is false before anything else of it is evaluated. In particular a
//! forbid that fails to evaluate can deny only there.

use super::{GeneratedPolicy, PolicyRef, Vocabulary, generate};
use crate::limits::CEDAR_TEXT_BYTES_MAX;
use crate::question::SetNames;
use crate::residual::Program;
use crate::snapshot::{CedarText, Effect};
use cedar_policy::{Policy, PolicyId, PolicySet, ValidationMode, pst};
use mesh_trust::TrustDomain;
use std::sync::Arc;

/// One policy that was written in Cedar, and what became of it.
pub(crate) struct Raw {
    pub(crate) reference: PolicyRef,
    built: Result<Sound, Arc<str>>,
}

/// A policy that can be evaluated.
struct Sound {
    policy: Policy,
    /// `None`: only Cedar can evaluate it.
    program: Option<Program>,
    headers: Vec<Arc<str>>,
}

impl Raw {
    /// Reads one text. Nothing here fails: what cannot be evaluated grants nothing, or closes.
    pub(crate) fn build(
        vocabulary: &Vocabulary,
        text: &CedarText,
        names: &SetNames,
        trust_domain: &TrustDomain,
    ) -> Self {
        let reference = PolicyRef {
            id: Arc::from(text.id.as_str()),
            audit: text.audit,
            break_glass: text.term.break_glass.is_some(),
            effect: text.effect,
        };
        let built = sound(vocabulary, text, names, trust_domain)
            .map_err(|why| Arc::from(format!("{}: {why}", text.id).as_str()));
        Self { reference, built }
    }

    /// Why it cannot be evaluated.
    pub(crate) fn fault(&self) -> Option<&Arc<str>> {
        self.built.as_ref().err()
    }

    /// The policy, if it can be evaluated.
    pub(crate) fn policy(&self) -> Option<(&Policy, &PolicyRef)> {
        let sound = self.built.as_ref().ok()?;
        Some((&sound.policy, &self.reference))
    }

    /// Its compiled form; `None` if only Cedar can evaluate it, or nobody.
    pub(crate) fn program(&self) -> Option<&Program> {
        self.built.as_ref().ok()?.program.as_ref()
    }

    /// Exchanges the compiled forms of two policies; see `Snapshot::with_compiled_of`.
    pub(crate) fn take_program_of(&mut self, other: &mut Self) {
        if let (Ok(mine), Ok(theirs)) = (&mut self.built, &mut other.built) {
            std::mem::swap(&mut mine.program, &mut theirs.program);
        }
    }

    /// Whether only Cedar can evaluate it, at each decision.
    pub(crate) fn needs_cedar(&self) -> bool {
        self.built
            .as_ref()
            .is_ok_and(|sound| sound.program.is_none())
    }

    /// Whether its answer may change by the passing of time alone. Its own end is no such thing: that is known.
    pub(crate) fn looks_at_time(&self) -> bool {
        match &self.built {
            Ok(sound) => sound.program.as_ref().is_none_or(Program::looks_at_time),
            Err(_) => false,
        }
    }

    /// As it is evaluated, for printing.
    pub(crate) fn generated(&self, text: &CedarText) -> Option<GeneratedPolicy> {
        let (policy, _) = self.policy()?;
        Some(GeneratedPolicy {
            id: text.id.clone(),
            cedar: policy.to_cedar()?,
            source: text.source.to_string(),
        })
    }

    /// Names of the headers that it looks at.
    pub(crate) fn headers(&self) -> &[Arc<str>] {
        self.built.as_ref().map_or(&[], |sound| &sound.headers)
    }
}

/// The first forbid that cannot be evaluated: it might have forbidden anything.
pub(crate) fn broken_forbid(raw: &[Raw]) -> Option<&Arc<str>> {
    raw.iter()
        .filter(|raw| raw.reference.effect == Effect::Forbid)
        .find_map(Raw::fault)
}

fn sound(
    vocabulary: &Vocabulary,
    text: &CedarText,
    names: &SetNames,
    trust_domain: &TrustDomain,
) -> Result<Sound, String> {
    if let Some(why) = &text.invalid {
        return Err(why.clone());
    }
    if text.text.len() > CEDAR_TEXT_BYTES_MAX {
        return Err(format!(
            "{} bytes; the limit is {CEDAR_TEXT_BYTES_MAX}",
            text.text.len()
        ));
    }
    let written = Policy::parse(Some(PolicyId::new(&text.id)), &text.text)
        .map_err(|error| error.to_string())?;
    let template = confined(vocabulary, text, &written, trust_domain)?;
    let fixed = pst::StaticPolicy::try_from(template).map_err(|error| error.to_string())?;
    let policy =
        Policy::from_pst(pst::Policy::Static(fixed.clone())).map_err(|error| error.to_string())?;
    check_sets(vocabulary, &policy, names)?;
    validate(vocabulary, &policy)?;
    let program = Program::compile(fixed.body(), names, trust_domain).ok();
    let headers = match &program {
        Some(program) => program.headers().map(Arc::from).collect(),
        None => header_names(&policy)?,
    };
    Ok(Sound {
        policy,
        program,
        headers,
    })
}

/// The policy with its boundary and its end as its first clauses.
fn confined(
    vocabulary: &Vocabulary,
    text: &CedarText,
    written: &Policy,
    trust_domain: &TrustDomain,
) -> Result<pst::Template, String> {
    let pst::Policy::Static(written) = written.to_pst().map_err(|error| error.to_string())? else {
        return Err("a policy with slots is no static policy".to_owned());
    };
    let body = written.body().clone();
    let said = match body.effect {
        pst::Effect::Permit => Effect::Permit,
        pst::Effect::Forbid => Effect::Forbid,
    };
    if said != text.effect {
        return Err("its text has another effect than its record".to_owned());
    }
    let boundary = text.confined_to.as_ref().map(|namespace| {
        let namespace = vocabulary.namespace_of(trust_domain.as_str(), namespace);
        let literal = pst::Literal::EntityUID(namespace.into());
        pst::Clause::When(Arc::new(pst::Expr::BinaryOp {
            op: pst::BinaryOp::In,
            left: Arc::new(pst::Expr::Var(pst::Var::Resource)),
            right: Arc::new(pst::Expr::Literal(literal)),
        }))
    });
    let clauses: Vec<pst::Clause> = boundary
        .into_iter()
        .chain(text.term.expires.map(generate::before))
        .chain(body.clauses().iter().cloned())
        .collect();
    pst::Template::new(
        body.id.clone(),
        body.effect,
        body.principal,
        body.action,
        body.resource,
    )
    .try_with_clauses(clauses)
    .map(|template| template.with_annotations(body.annotations))
    .map_err(|error| error.to_string())
}

/// A set that does not exist holds nobody: a forbid that names one would silently forbid nothing.
fn check_sets(vocabulary: &Vocabulary, policy: &Policy, names: &SetNames) -> Result<(), String> {
    for entity in policy.entity_literals() {
        let (kind, id): (_, &str) = (entity.type_name(), entity.id().unescaped());
        let unknown = (kind == &vocabulary.identity_set && names.identity_place(id).is_none())
            || (kind == &vocabulary.net_set && names.network_place(id).is_none());
        if unknown {
            return Err(format!("`{entity}` does not exist"));
        }
    }
    Ok(())
}

fn validate(vocabulary: &Vocabulary, policy: &Policy) -> Result<(), String> {
    let set = PolicySet::from_policies([policy.clone()]).map_err(|error| error.to_string())?;
    let result = vocabulary.validator.validate(&set, ValidationMode::Strict);
    match result.validation_errors().next() {
        None => Ok(()),
        Some(error) => Err(error.to_string()),
    }
}

/// Names of the headers that a policy looks at which only Cedar can evaluate.
///
/// # Errors
/// A name that is no literal: which header it means is known only when the request is there, too late to fetch it.
fn header_names(policy: &Policy) -> Result<Vec<Arc<str>>, String> {
    let mut names = Vec::new();
    let json = policy.to_json().map_err(|error| error.to_string())?;
    collect_tags(&json, &mut names)?;
    Ok(names)
}

fn collect_tags(json: &serde_json::Value, names: &mut Vec<Arc<str>>) -> Result<(), String> {
    match json {
        serde_json::Value::Array(items) => {
            items.iter().try_for_each(|item| collect_tags(item, names))
        }
        serde_json::Value::Object(fields) => fields.iter().try_for_each(|(key, item)| {
            if key == "hasTag" || key == "getTag" {
                let name = item.pointer("/right/Value").and_then(|name| name.as_str());
                names.push(Arc::from(name.ok_or(
                    "a header is named by something that is no string literal",
                )?));
            }
            collect_tags(item, names)
        }),
        _ => Ok(()),
    }
}
