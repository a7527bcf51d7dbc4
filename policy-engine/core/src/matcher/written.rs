//! The rules of a grant as a Cedar expression: what [`super::Matcher::grant_holds`] computes, for all clients at once.

use super::{Asked, Matcher, Rule};
use crate::cedar::tree::{
    Tree, any, binary, contains, context, datetime, entity, every, is_in, principal, truth,
};
use crate::cedar::{Vocabulary, rfc3339_millis};
use crate::question::SetNames;
use crate::snapshot::{Effect, Grant};
use cedar_policy::pst::BinaryOp;
use std::collections::BTreeSet;

/// What a policy that holds counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bearing {
    forbids: bool,
    audit: bool,
    break_glass: bool,
}

impl Bearing {
    fn new(effect: Effect, audit: bool, break_glass: bool) -> Self {
        Self {
            forbids: effect == Effect::Forbid,
            audit,
            break_glass,
        }
    }

    pub(crate) fn of(grant: &Grant) -> Self {
        Self::new(grant.effect, grant.audit, grant.term.break_glass.is_some())
    }
}

impl Matcher {
    /// Every id that rules have, with what they count as.
    pub(crate) fn bearings(&self) -> BTreeSet<(String, Bearing)> {
        let rules = self.rules.iter();
        let named = rules.filter_map(|rule| {
            let id = self.reasons.get(rule.reason)?;
            Some((id.to_string(), rule.bearing()))
        });
        named.collect()
    }

    /// Whether a grant of this id that counts so holds where `asked` is asked for; `None` if a rule refers to a set that
    /// `names` does not have.
    pub(crate) fn written(
        &self,
        (id, bearing): &(String, Bearing),
        asked: Asked,
        vocabulary: &Vocabulary,
        names: &SetNames,
    ) -> Option<Tree> {
        let rules = self
            .of_grant(id)
            .filter(|(_, rule)| rule.bearing() == *bearing && rule.reach.covers(asked));
        let ways = rules.map(|(index, rule)| {
            let mut all = vec![self.whom(index, vocabulary, names)?];
            all.extend(rule.written(vocabulary, names)?);
            Some(every(all))
        });
        ways.collect::<Option<Vec<Tree>>>().map(any)
    }

    /// Who is given the rule to look at.
    fn whom(&self, index: u32, vocabulary: &Vocabulary, names: &SetNames) -> Option<Tree> {
        if self.anyone.binary_search(&index).is_ok() {
            return Some(truth(true));
        }
        let sets = self.members.iter().filter(|(_, rule)| *rule == index);
        let sets = sets.map(|(set, _)| {
            let name = names.identity.get(usize::try_from(*set).ok()?)?;
            Some(is_in(principal(), entity(&vocabulary.identity_set(name))))
        });
        sets.collect::<Option<Vec<Tree>>>().map(any)
    }
}

impl Rule {
    fn bearing(&self) -> Bearing {
        Bearing::new(self.effect, self.audit, self.break_glass)
    }

    /// What it asks of a client besides that, and when; `None`: a set that `names` does not have.
    fn written(&self, vocabulary: &Vocabulary, names: &SetNames) -> Option<Vec<Tree>> {
        let mut all = Vec::new();
        if self.tls_only {
            all.push(context(&["conn", "tls"]));
        }
        if let Some(place) = self.network {
            let name = names.network.get(usize::try_from(place).ok()?)?;
            let set = entity(&vocabulary.net_set(name));
            all.push(contains(context(&["conn", "nets"]), set));
        }
        if self.until != i64::MAX {
            let end = datetime(&rfc3339_millis(self.until));
            all.push(binary(BinaryOp::Less, context(&["now"]), end));
        }
        Some(all)
    }
}
