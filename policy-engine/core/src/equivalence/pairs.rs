//! Every policy of a port twice, for a solver: as Cedar has it, and as its compiled form says it.
//!
//! [`super::check`] tries grants on cases and leaves out policies that people wrote in Cedar, whose cases have no end. What
//! is compiled is written down as an expression here instead, from the compiled form alone, and a solver may be asked
//! whether the two can differ. Not covered: which sets a client is in, which route takes a request, and what the policies
//! that hold amount to.

use crate::cedar::condition::condition;
use crate::cedar::model::{self, Target, permit_where};
use crate::cedar::tree::{Tree, any, differ, or, truth};
use crate::cedar::vocabulary;
use crate::compile::Snapshot;
use crate::matcher::Bearing;
use crate::residual::Kinds;
use cedar_policy::Policy;
use std::collections::BTreeMap;

/// One policy twice, each a permit of the questions that it holds of, whatever its effect.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The reason that records name.
    pub id: String,
    /// As Cedar has it.
    pub cedar: Policy,
    /// As the compiled form says it.
    pub compiled: Policy,
}

/// The policies of a port.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Grants: neither side can fail.
    pub grants: Vec<Pair>,
    /// Policies that people wrote in Cedar. Those that only Cedar evaluates are not among them.
    pub texts: Vec<Pair>,
}

impl Pairs {
    /// The policies that bear on one target of a port.
    ///
    /// # Errors
    /// What no expression says.
    pub fn of(snapshot: &Snapshot, port: u16, target: &Target) -> Result<Self, String> {
        Ok(Self {
            grants: grants(snapshot, port, target)?,
            texts: texts(snapshot, target)?,
        })
    }
}

impl Pair {
    fn new(id: &str, cedar: Tree, compiled: Tree) -> Result<Self, String> {
        Ok(Self {
            id: id.to_owned(),
            cedar: permit_where(id, vec![cedar])?,
            compiled: permit_where(id, vec![compiled])?,
        })
    }

    /// Both as permits of the questions that they can be evaluated about.
    ///
    /// # Errors
    /// What Cedar says of it.
    pub fn evaluated(&self) -> Result<Self, String> {
        let evaluated = |policy| Ok::<_, String>(or(condition(policy)?, truth(true)));
        Self::new(
            &self.id,
            evaluated(&self.cedar)?,
            evaluated(&self.compiled)?,
        )
    }
}

/// A permit of the questions that one of these pairs has two answers to.
///
/// # Errors
/// What Cedar says of it.
pub fn differing(pairs: &[Pair]) -> Result<Policy, String> {
    let differ = |pair: &Pair| Ok(differ(condition(&pair.cedar)?, condition(&pair.compiled)?));
    let any_of = pairs.iter().map(differ).collect::<Result<_, String>>()?;
    permit_where("differing", vec![any(any_of)])
}

/// Grants by id and by what they count as. What only the matcher has is there too, beside a policy that never holds.
fn grants(snapshot: &Snapshot, port: u16, target: &Target) -> Result<Vec<Pair>, String> {
    let vocabulary = vocabulary()?;
    let data = snapshot.data();
    let matcher = &snapshot.compiled_port(port).matcher;
    let rules = matcher.bearings().into_iter();
    let mut ways: BTreeMap<(String, Bearing), Vec<Tree>> =
        rules.map(|rule| (rule, Vec::new())).collect();
    for (grant, policy) in model::grants(vocabulary, snapshot, port) {
        let bearing = Bearing::of(&grant);
        let of_grant = ways.entry((grant.id, bearing)).or_default();
        // What could not become a policy holds of nothing.
        of_grant.extend(policy.ok().map(|policy| condition(&policy)).transpose()?);
    }
    let pairs = ways.into_iter().map(|(of, ways)| {
        let compiled = matcher.written(&of, target.asked, vocabulary, data.names());
        let compiled = compiled.ok_or_else(|| format!("`{}` refers to an unknown set", of.0))?;
        Pair::new(&of.0, any(ways), compiled)
    });
    pairs.collect()
}

fn texts(snapshot: &Snapshot, target: &Target) -> Result<Vec<Pair>, String> {
    let data = snapshot.data();
    let kinds = Kinds {
        names: data.names(),
        trust_domain: &data.trust_domain,
        requests: target.is_request(),
    };
    let compiled = snapshot.compiled().texts.iter();
    let compiled = compiled.filter_map(|raw| Some((raw.policy()?, raw.program()?)));
    let pairs = compiled.map(|((policy, reference), program)| {
        let written = program.written(&kinds);
        let written = written.map_err(|error| format!("`{}`: {error}", reference.id))?;
        Pair::new(&reference.id, condition(policy)?, written)
    });
    pairs.collect()
}
