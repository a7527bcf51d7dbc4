//! Formulas of one kind of question: what is possible there, what is allowed, what is claimed, what differs.

use crate::session::{Answer, Session};
use cedar_policy::{Authorizer, Decision, Policy, PolicySet, RequestEnv, Response, Schema};
use cedar_policy_symcc::{
    CompiledPolicy, CompiledPolicySet, Env, disjoint_asserts, implies_asserts,
    matches_equivalent_asserts, never_errors_asserts, never_matches_asserts,
};
use mesh_policy::cedar::model::{self, Asker, Facts, Target};
use mesh_policy::snapshot::SnapshotData;
use mesh_policy_index::index::Claim;
use mesh_trust::Timestamp;

/// All questions of one kind: about one target, by one kind of client.
pub(crate) struct Questions {
    environment: RequestEnv,
    schema: &'static Schema,
    facts: Facts,
}

/// [`Questions`], and what is allowed of them.
pub(crate) struct Kind {
    questions: Questions,
    allowed: CompiledPolicySet,
    probe: bool,
}

impl Kind {
    /// `policies` decide it, `claims` are asked about.
    pub(crate) fn of(
        about: (&Target, Asker),
        sets: &SnapshotData,
        now: Timestamp,
        policies: &[Policy],
        claims: &[Policy],
    ) -> Result<Self, String> {
        let (target, _) = about;
        let named: Vec<&Policy> = policies.iter().chain(claims).collect();
        let questions = Questions::of(about, sets, Some(now), &named)?;
        let standing = target.probe.then(model::permit_all).transpose()?;
        let all = PolicySet::from_policies(policies.iter().cloned().chain(standing))
            .map_err(|error| error.to_string())?;
        let allowed = CompiledPolicySet::compile(&all, &questions.environment, questions.schema)
            .map_err(|error| unsupported(&error))?;
        Ok(Self {
            questions,
            allowed,
            probe: target.probe,
        })
    }

    /// The questions.
    pub(crate) fn questions(&self) -> &Questions {
        &self.questions
    }

    /// A request that `claim` matches and that is allowed.
    pub(crate) fn allows(&self, session: &mut Session, claim: &Policy) -> Result<Answer, String> {
        let claimed = self.questions.among(claim)?.into_compiled_policyset();
        Ok(session.ask(&disjoint_asserts(&claimed, &self.allowed)))
    }

    /// A request that `claim` matches and that is denied.
    pub(crate) fn denies(&self, session: &mut Session, claim: &Policy) -> Result<Answer, String> {
        let claimed = self.questions.among(claim)?.into_compiled_policyset();
        Ok(session.ask(&implies_asserts(&claimed, &self.allowed)))
    }

    /// The whole question as text, if it has one: two that are written alike have one answer.
    pub(crate) fn name(
        &self,
        policies: &[Policy],
        texts: &[Policy],
        claim: &Claim,
    ) -> Option<String> {
        let kind = match claim {
            Claim::Never(_) => "never",
            Claim::Always(_) => "always",
        };
        let named = texts.iter().chain(policies);
        let all = self.questions.name(named)?;
        Some(format!(
            "{kind}\n{}\n{} claims\n{all}",
            self.probe,
            texts.len()
        ))
    }
}

impl Questions {
    /// All questions about a target, at `now` or at any time. `named` are the policies that are asked about.
    pub(crate) fn of(
        (target, asker): (&Target, Asker),
        sets: &SnapshotData,
        now: Option<Timestamp>,
        named: &[&Policy],
    ) -> Result<Self, String> {
        Ok(Self {
            environment: target.environment(asker)?,
            schema: model::schema()?,
            facts: target.facts(asker, sets, now, named)?,
        })
    }

    /// All questions, whatever they are about.
    pub(crate) fn anywhere(asker: Asker, requests: bool) -> Result<Self, String> {
        let (environment, facts) = model::anywhere(asker, requests)?;
        Ok(Self {
            environment,
            schema: model::schema()?,
            facts,
        })
    }

    /// Whether there can be a request at all. Nothing is proved by facts that contradict each other, nor by a solver that
    /// calls everything impossible.
    ///
    /// # Errors
    /// Why there can be none, or why that is not known.
    pub(crate) fn possible(&self, session: &mut Session) -> Result<(), String> {
        let facts = self.facts.alone()?;
        match session.ask(&never_matches_asserts(&self.compiled(&facts)?)) {
            Answer::Unknown(why) => Err(why),
            Answer::Impossible => Err(
                "no request is possible at all: either what is known of every request contradicts itself, or the solver does not tell the truth"
                    .to_owned(),
            ),
            Answer::Possible(found) => match by_cedar(facts, &found)?.decision() {
                Decision::Allow => Ok(()),
                Decision::Deny => Err(NO_REQUEST.to_owned()),
            },
        }
    }

    /// Whether `policy` can be evaluated about every request.
    ///
    /// # Errors
    /// Why it cannot, or why that is not known.
    pub(crate) fn evaluated(&self, session: &mut Session, policy: &Policy) -> Result<(), String> {
        match session.ask(&never_errors_asserts(&self.among(policy)?)) {
            Answer::Impossible => Ok(()),
            Answer::Unknown(why) => Err(why),
            Answer::Possible(found) => {
                let response = by_cedar(self.facts.and(policy)?, &found)?;
                match response.diagnostics().errors().next() {
                    Some(error) => Err(format!(
                        "it cannot be evaluated about every request: {error}"
                    )),
                    None => Err(NO_REQUEST.to_owned()),
                }
            }
        }
    }

    /// A question that the two have different answers to.
    pub(crate) fn differ(
        &self,
        session: &mut Session,
        (one, other): (&Policy, &Policy),
    ) -> Result<Answer, String> {
        let (one, other) = (self.among(one)?, self.among(other)?);
        Ok(session.ask(&matches_equivalent_asserts(&one, &other)))
    }

    /// A question that `policy` holds of.
    pub(crate) fn hold(&self, session: &mut Session, policy: &Policy) -> Result<Answer, String> {
        Ok(session.ask(&never_matches_asserts(&self.among(policy)?)))
    }

    /// What is known of the questions and these policies, as text.
    pub(crate) fn name<'p>(&self, policies: impl Iterator<Item = &'p Policy>) -> Option<String> {
        let mut name = self.facts.alone().ok()?.to_cedar()?;
        for policy in policies {
            name.push('\n');
            name.push_str(&policy.to_cedar()?);
        }
        Some(name)
    }

    /// A policy, as far as it is about these questions.
    fn among(&self, policy: &Policy) -> Result<CompiledPolicy, String> {
        self.compiled(&self.facts.and(policy)?)
    }

    fn compiled(&self, policy: &Policy) -> Result<CompiledPolicy, String> {
        CompiledPolicy::compile(policy, &self.environment, self.schema).map_err(|e| unsupported(&e))
    }
}

const NO_REQUEST: &str = "the solver found something that is no request";

/// What Cedar itself says of a policy about what a solver found.
fn by_cedar(policy: Policy, found: &Env) -> Result<Response, String> {
    let alone = PolicySet::from_policies([policy]).map_err(|error| error.to_string())?;
    Ok(Authorizer::new().is_authorized(&found.request, &alone, &found.entities))
}

fn unsupported(error: &cedar_policy_symcc::err::Error) -> String {
    let mut text = format!("not supported by the symbolic compiler: {error}");
    if let cedar_policy_symcc::err::Error::PolicyNotWellTyped { errs } = error {
        for error in errs {
            text.push_str("; ");
            text.push_str(&error.to_string());
        }
    }
    text
}
