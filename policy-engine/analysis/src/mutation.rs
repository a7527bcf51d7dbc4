//! How good cases are: policy is made wrong on purpose, one change at a time, and a case should notice each.

use crate::cases::{Bench, Case};
use crate::diff::inside;
use crate::survey::Setting;
use mesh_policy::decide::Verdict;
use mesh_policy::request::RequestRecord;
use mesh_policy_index::mutate::{Mutant, mutants};
use mesh_policy_index::{Index, Loaded};
use mesh_trust::Timestamp;
use serde::Serialize;

/// What came of all mutants.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Mutation {
    /// Mutants that there are.
    pub mutants: usize,
    /// Those that were tried; fewer if there are more than were asked for.
    pub tried: usize,
    /// Those that made a case fail.
    pub killed: usize,
    /// Those that decide every class of requests as the policy itself does: no case can notice.
    pub equivalent: usize,
    /// Percent of the others that were killed, rounded down; 100 if there is none.
    pub score: usize,
    /// Mutants that no case noticed, by place.
    pub survivors: Vec<Survivor>,
}

/// A change that no case noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Survivor {
    /// `file:line` of what was changed.
    pub source: String,
    /// The object: `kind/namespace/name`.
    pub object: String,
    /// What was changed in it.
    pub change: String,
    /// A request that would notice, if one was found.
    pub witness: Option<Witness>,
}

/// A request that a mutant decides otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Witness {
    /// The verdict of the policy as it is: what a case would expect.
    pub verdict: Verdict,
    /// The request.
    pub request: RequestRecord,
}

/// Makes mutants, at most `limit` of them, evenly spread, and runs the cases on each. Cases that fail already say nothing
/// and are left out. `index` is that of `loaded`.
pub fn mutate(
    loaded: &Loaded,
    index: &Index,
    cases: &[Case],
    now: Timestamp,
    limit: usize,
) -> Mutation {
    let mut bench = Bench::new(index, now);
    let passing: Vec<&Case> = cases
        .iter()
        .filter(|case| bench.run(case).passed())
        .collect();
    let all = mutants(loaded);
    let step = all.len().div_ceil(limit.max(1)).max(1);
    let mut out = Mutation {
        mutants: all.len(),
        ..Mutation::default()
    };
    for mutant in all.iter().step_by(step) {
        out.tried += 1;
        let changed = Index::build(&mutant.apply(loaded), index.config());
        let mut bench = Bench::new(&changed, now);
        if passing.iter().any(|case| !bench.run(case).passed()) {
            out.killed += 1;
        } else {
            match difference(index, &changed, now) {
                Difference::None => out.equivalent += 1,
                Difference::Unknown => out.survivors.push(survivor(mutant, None)),
                Difference::Found(one) => out.survivors.push(survivor(mutant, Some(*one))),
            }
        }
    }
    out.survivors.sort_by(|a, b| {
        let key = |one: &Survivor| (one.source.clone(), one.object.clone(), one.change.clone());
        key(a).cmp(&key(b))
    });
    let counted = out.killed.saturating_add(out.survivors.len());
    out.score = out
        .killed
        .saturating_mul(100)
        .checked_div(counted)
        .unwrap_or(100);
    out
}

enum Difference {
    None,
    Found(Box<Witness>),
    /// Not every class could be asked, so it is not said that there is none.
    Unknown,
}

fn difference(before: &Index, after: &Index, now: Timestamp) -> Difference {
    let setting = Setting {
        now,
        known: &[],
        texts: &[],
        structural: false,
    };
    let Ok(found) = inside(before, after, setting) else {
        return Difference::Unknown;
    };
    match found.gained.first().or(found.lost.first()) {
        Some(change) => Difference::Found(Box::new(Witness {
            verdict: change.before.verdict,
            request: change.access.witness.clone(),
        })),
        None if found.exact => Difference::None,
        None => Difference::Unknown,
    }
}

fn survivor(mutant: &Mutant, witness: Option<Witness>) -> Survivor {
    let object = &mutant.object;
    Survivor {
        source: object.source.to_string(),
        object: format!("{}/{}/{}", object.kind, object.namespace, object.name),
        change: mutant.change.clone(),
        witness,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, POD, POLICY, case, decide, index, loaded_of};

    fn mutation(cases: &[Case], limit: usize) -> Mutation {
        let out = mutate(&loaded_of(&[POD, POLICY]), &index(), cases, NOW, limit);
        assert_eq!(out.tried, out.killed + out.equivalent + out.survivors.len());
        out
    }

    #[test]
    fn without_cases_every_mutant_survives_and_its_witness_is_decided_otherwise() {
        let out = mutation(&[], usize::MAX);
        assert_eq!((out.killed, out.score), (0, 0));
        assert!(out.survivors.len() > 10, "{out:#?}");
        let index = index();
        for one in &out.survivors {
            assert!(one.source.starts_with("policy.yaml:"), "{one:?}");
            let witness = one.witness.as_ref().expect("a witness");
            assert_eq!(decide(&index, &witness.request).verdict, witness.verdict);
        }
    }

    #[test]
    fn cases_made_of_the_witnesses_kill_every_mutant() {
        let mut cases: Vec<Case> = Vec::new();
        for round in 0.. {
            let out = mutation(&cases, usize::MAX);
            if out.survivors.is_empty() {
                assert_eq!(out.score, 100);
                return;
            }
            assert!(round < 5, "{out:#?}");
            for witness in out.survivors.into_iter().filter_map(|one| one.witness) {
                let mut one = case("web", "/", witness.verdict);
                one.request = witness.request;
                cases.push(one);
            }
        }
    }

    #[test]
    fn a_case_that_fails_already_kills_nothing() {
        let wrong = case("web", "/orders", Verdict::Deny);
        assert_eq!(mutation(&[wrong], usize::MAX).killed, 0);
    }

    #[test]
    fn a_limit_spreads_evenly_and_is_told() {
        let out = mutation(&[], 5);
        assert!(
            out.tried <= 5 && out.tried >= 3 && out.mutants > 15,
            "{out:?}"
        );
    }
}
