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

mod client;
mod place;

use super::condition::condition;
use super::tree::{Tree, entity, is_in, not, resource};
use super::{Vocabulary, generate, raw::Raw, vocabulary};
use crate::compile::Snapshot;
use crate::snapshot::{Effect, Grant, SnapshotData};
use cedar_policy::{
    EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, RequestEnv, Schema, pst,
};
use mesh_trust::Timestamp;
use std::collections::BTreeSet;
use std::sync::OnceLock;

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
    let mut policies = Vec::new();
    for (grant, policy) in grants(vocabulary, snapshot, port) {
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

/// The grants of a port, each with its policy, under an id of its own, or why there is none.
pub(crate) fn grants(
    vocabulary: &Vocabulary,
    snapshot: &Snapshot,
    port: u16,
) -> Vec<(Grant, Result<Policy, String>)> {
    let data = snapshot.data();
    let indexes = snapshot.port(port).grants.iter();
    let grants: Vec<Grant> = indexes
        .filter_map(|&index| data.grants.get(usize::try_from(index).ok()?))
        .cloned()
        .collect();
    let ids: Vec<String> = (0..grants.len())
        .map(|place| format!("grant {place}"))
        .collect();
    let policies = generate::checked(vocabulary, &data, &grants, &ids);
    grants.into_iter().zip(policies).collect()
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

    /// What is true of every question for this target at `now`, or at any time, about whatever `policies` name. Sets are
    /// those of `sets`; one that is not there holds nobody.
    ///
    /// # Errors
    /// What cannot be put into Cedar's words.
    pub fn facts(
        &self,
        asker: Asker,
        sets: &SnapshotData,
        now: Option<Timestamp>,
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
        permit_where("facts", self.0.clone())
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

/// All questions, whatever they are about, by one kind of client: their kind, and what is true of every one.
///
/// # Errors
/// As [`schema`].
pub fn anywhere(asker: Asker, requests: bool) -> Result<(RequestEnv, Facts), String> {
    let vocabulary = vocabulary()?;
    let (action, resource) = match requests {
        true => (&vocabulary.request, &vocabulary.route),
        false => (&vocabulary.connect, &vocabulary.server),
    };
    let environment = RequestEnv::new(
        asker.kind(vocabulary).clone(),
        action.clone(),
        resource.clone(),
    );
    Ok((environment, Facts(standing(asker, requests)?)))
}

/// A policy that people wrote and that has a namespace.
#[derive(Clone, Debug)]
pub struct Bounded {
    /// The reason that records name.
    pub id: String,
    /// Where it may hold.
    pub namespace: String,
    /// A permit of what it holds of elsewhere; it cannot be evaluated where the policy cannot be.
    pub outside: Policy,
}

/// The policies of a snapshot that people wrote for one namespace, as they are evaluated.
///
/// # Errors
/// What cannot be put into Cedar's words.
pub fn bounded(snapshot: &Snapshot) -> Result<Vec<Bounded>, String> {
    let vocabulary = vocabulary()?;
    let data = snapshot.data();
    let texts = data.cedar_policies.iter().zip(&snapshot.compiled().texts);
    let bounded = texts.filter_map(|(text, raw)| {
        let (policy, _) = raw.policy()?;
        Some((text, text.confined_to.as_ref()?, policy))
    });
    bounded
        .map(|(text, namespace, policy)| {
            let uid = vocabulary.namespace_of(data.trust_domain.as_str(), namespace);
            let outside = not(is_in(resource(), entity(&uid)));
            Ok(Bounded {
                id: text.id.clone(),
                namespace: namespace.clone(),
                outside: permit_where(&text.id, vec![outside, condition(policy)?])?,
            })
        })
        .collect()
}

/// A permit of the questions that all of these conditions hold of.
///
/// # Errors
/// What Cedar says of it.
pub(crate) fn permit_where(id: &str, all: Vec<Tree>) -> Result<Policy, String> {
    let template = pst::Template::new(
        pst::PolicyID(pst::SmolStr::from(id)),
        pst::Effect::Permit,
        pst::PrincipalConstraint::Any,
        pst::ActionConstraint::Any,
        pst::ResourceConstraint::Any,
    );
    built(template, all.into_iter().map(pst::Clause::When).collect())
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
