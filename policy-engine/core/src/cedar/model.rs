//! All questions that can be put to Cedar about a port, at once: for a solver, which knows the schema and nothing else.
//!
//! Left alone, a solver answers about questions that the mesh never asks: an identity over plaintext, a Server in two
//! namespaces, a member of an identity set that lists nobody. So what `ask` makes of a question is said here again, as
//! facts about questions. A fact that does not hold of every question makes a proof worthless; one that is missing only
//! costs a proof. Therefore: what is not said here is free, and what is said is tried against `ask` (`tests`).
//!
//! - `facts.cedar`: what holds of every question
//! - [`place`]: the port, the Server, the route that is asked for
//! - [`client`]: who is in which set
//! - [`tree`]: Cedar expressions, as they are read

mod client;
mod place;
pub(crate) mod tree;

use super::{Vocabulary, generate, raw::Raw, vocabulary};
use crate::compile::Snapshot;
use crate::snapshot::{Effect, Grant, SnapshotData};
use cedar_policy::{
    EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, RequestEnv, Schema, pst,
};
use mesh_trust::Timestamp;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use tree::Tree;

pub use place::Target;

const FACTS_TEXT: &str = include_str!("model/facts.cedar");

/// The schema of all questions.
///
/// # Errors
/// Why it cannot be read, though it is compiled in.
pub fn schema() -> Result<&'static Schema, String> {
    vocabulary().map(|vocabulary| &vocabulary.schema)
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A client with a verified identity.
    Workload,
    /// A client without.
    Anonymous,
}

impl Asker {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Workload, Self::Anonymous];

    fn kind(self, vocabulary: &Vocabulary) -> &EntityTypeName {
        match self {
            Self::Workload => &vocabulary.workload,
            Self::Anonymous => &vocabulary.anonymous,
        }
    }
}

/// A port, as all questions about it see it.
#[derive(Clone, Debug)]
pub struct PortModel {
    /// Why everything is denied there, whatever is asked.
    pub closed: Option<String>,
    /// Every policy that can bear on it, each under an id of its own.
    pub policies: Vec<Policy>,
    /// What can be asked for there.
    pub targets: Vec<Target>,
}

impl PortModel {
    /// The model of one port of a workload; any port without a policy of its own stands for all of them.
    ///
    /// # Errors
    /// What Cedar says of it; nothing can be proved then.
    pub fn of(snapshot: &Snapshot, port: u16) -> Result<Self, String> {
        let vocabulary = vocabulary()?;
        if let Some(why) = &snapshot.port(port).server.invalid {
            return Ok(Self {
                closed: Some(why.clone()),
                policies: Vec::new(),
                targets: Vec::new(),
            });
        }
        let (closed, policies) = match policies(vocabulary, snapshot, port) {
            Ok(policies) => (None, policies),
            Err(why) => (Some(why), Vec::new()),
        };
        Ok(Self {
            closed,
            policies,
            targets: place::targets(vocabulary, snapshot, port)?,
        })
    }
}

/// The policies of a port, or the forbid that cannot be evaluated and so denies everything.
fn policies(
    vocabulary: &Vocabulary,
    snapshot: &Snapshot,
    port: u16,
) -> Result<Vec<Policy>, String> {
    let compiled = snapshot.compiled();
    if let Some(why) = &compiled.broken_text {
        return Err(why.to_string());
    }
    let data = snapshot.data();
    let indexes = snapshot.port(port).grants.iter();
    let grants: Vec<Grant> = indexes
        .filter_map(|&index| data.grants.get(usize::try_from(index).ok()?))
        .cloned()
        .collect();
    let ids: Vec<String> = (0..grants.len())
        .map(|place| format!("grant {place}"))
        .collect();
    let mut policies = Vec::with_capacity(grants.len());
    let made = generate::checked(vocabulary, &data, &grants, &ids);
    for (policy, grant) in made.into_iter().zip(&grants) {
        match policy {
            Ok(policy) => policies.push(policy),
            Err(why) if grant.effect == Effect::Forbid => {
                return Err(format!("{}: {why}", grant.id));
            }
            Err(_) => {}
        }
    }
    let written = compiled.texts.iter().filter_map(Raw::policy);
    policies.extend(written.map(|(policy, _)| policy.clone()));
    Ok(policies)
}

impl Target {
    /// The kind of question.
    ///
    /// # Errors
    /// As [`schema`].
    pub fn environment(&self, asker: Asker) -> Result<RequestEnv, String> {
        let vocabulary = vocabulary()?;
        let (action, resource) = self.kind();
        Ok(RequestEnv::new(
            asker.kind(vocabulary).clone(),
            action.clone(),
            resource.clone(),
        ))
    }

    /// What is true of every question for this target at `now`, about whatever `policies` name. Sets are those of `sets`;
    /// one that is not there holds nobody.
    ///
    /// # Errors
    /// What cannot be put into Cedar's words.
    pub fn facts(
        &self,
        asker: Asker,
        sets: &SnapshotData,
        now: Timestamp,
        policies: &[&Policy],
    ) -> Result<Facts, String> {
        let vocabulary = vocabulary()?;
        let named: BTreeSet<EntityUid> = policies
            .iter()
            .flat_map(|policy| policy.entity_literals())
            .collect();
        let mut facts = standing(asker, self.is_request())?.to_vec();
        facts.extend(self.place_facts(vocabulary, &named, now)?);
        facts.extend(self.probe_facts(sets));
        facts.extend(client::network_facts(vocabulary, sets, &named));
        if asker == Asker::Workload {
            let by_name = policies.iter().any(|policy| looks_into_ids(policy));
            facts.extend(client::identity_facts(vocabulary, sets, &named, by_name));
        }
        Ok(Facts(facts))
    }
}

/// What is true of every question of one kind.
#[derive(Clone, Debug)]
pub struct Facts(Vec<Tree>);

impl Facts {
    /// A permit that holds exactly of the questions that there can be: where it never does, the facts are wrong.
    ///
    /// # Errors
    /// What Cedar says of it.
    pub fn alone(&self) -> Result<Policy, String> {
        built(
            pst::Template::new(
                pst::PolicyID(pst::SmolStr::from("facts")),
                pst::Effect::Permit,
                pst::PrincipalConstraint::Any,
                pst::ActionConstraint::Any,
                pst::ResourceConstraint::Any,
            ),
            self.clauses().collect(),
        )
    }

    /// `policy` as a permit of those questions alone: where it holds of none of them, it can never apply.
    ///
    /// # Errors
    /// What Cedar says of it.
    pub fn and(&self, policy: &Policy) -> Result<Policy, String> {
        let pst::Policy::Static(fixed) = policy.to_pst().map_err(|error| error.to_string())? else {
            return Err("a policy with slots is no static policy".to_owned());
        };
        let body = fixed.body().clone();
        let clauses = self
            .clauses()
            .chain(body.clauses().iter().cloned())
            .collect();
        let template = pst::Template::new(
            body.id.clone(),
            pst::Effect::Permit,
            body.principal,
            body.action,
            body.resource,
        );
        built(template, clauses)
    }

    fn clauses(&self) -> impl Iterator<Item = pst::Clause> {
        self.0.iter().cloned().map(pst::Clause::When)
    }
}

fn built(template: pst::Template, clauses: Vec<pst::Clause>) -> Result<Policy, String> {
    let template = template
        .try_with_clauses(clauses)
        .map_err(|error| error.to_string())?;
    let fixed = pst::StaticPolicy::try_from(template).map_err(|error| error.to_string())?;
    Policy::from_pst(pst::Policy::Static(fixed)).map_err(|error| error.to_string())
}

/// A permit of everything.
///
/// # Errors
/// None that is known.
pub fn permit_all() -> Result<Policy, String> {
    let text = "permit(principal, action, resource);";
    Policy::parse(Some(PolicyId::new("permit all")), text).map_err(|error| error.to_string())
}

/// The facts of `facts.cedar` about one kind of question.
fn standing(asker: Asker, request: bool) -> Result<Vec<Tree>, String> {
    static PARSED: OnceLock<Result<Vec<pst::Template>, String>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| {
        let error = |error: &dyn std::fmt::Display| error.to_string();
        let set: PolicySet = FACTS_TEXT.parse().map_err(|e| error(&e))?;
        set.policies()
            .map(|policy| match policy.to_pst() {
                Ok(pst::Policy::Static(fixed)) => Ok(fixed.body().clone()),
                Ok(_) => Err("a fact has slots".to_owned()),
                Err(e) => Err(error(&e)),
            })
            .collect()
    });
    let facts = parsed.as_ref().map_err(Clone::clone)?.iter();
    let bears = |fact: &&pst::Template| {
        let of_client = match (&fact.principal, asker) {
            (pst::PrincipalConstraint::Is(kind), Asker::Workload) => {
                kind.0.id.as_str() == "Workload"
            }
            (pst::PrincipalConstraint::Is(kind), Asker::Anonymous) => {
                kind.0.id.as_str() == "Anonymous"
            }
            _ => true,
        };
        of_client && (request || matches!(fact.action, pst::ActionConstraint::Any))
    };
    let clauses = facts.filter(bears).flat_map(|fact| fact.clauses());
    clauses
        .map(|clause| match clause {
            pst::Clause::When(fact) => Ok(fact.clone()),
            pst::Clause::Unless(_) => Err("a fact is said with `unless`".to_owned()),
        })
        .collect()
}

/// Whether a policy compares the text of the client's SPIFFE ID.
fn looks_into_ids(policy: &Policy) -> bool {
    let Ok(pst::Policy::Static(fixed)) = policy.to_pst() else {
        return true;
    };
    let looks = |expr: &pst::Expr| match expr {
        pst::Expr::GetAttr { expr, attr } if attr == "id" => {
            matches!(**expr, pst::Expr::Var(pst::Var::Principal)).then_some(true)
        }
        _ => None,
    };
    let clauses = fixed.body().clauses().iter();
    let mut trees = clauses.map(|clause| match clause {
        pst::Clause::When(tree) | pst::Clause::Unless(tree) => tree,
    });
    trees.any(|tree| tree.reduce(&looks, &|one, other| one || other, false))
}

#[cfg(test)]
pub(crate) mod tests;
