//! A policy's scope: principal, action and resource.

use super::super::Unsupported;
use super::super::entity::{Kind, Var};
use super::super::node::Test;
use super::Compiler;
use cedar_policy::pst::{
    self, ActionConstraint, EntityOrSlot, EntityType, PrincipalConstraint, ResourceConstraint,
};

impl Compiler<'_> {
    /// The tests of the scope, in Cedar's order.
    pub(super) fn scope(&self, policy: &pst::Template) -> Result<Vec<Test>, Unsupported> {
        use PrincipalConstraint as P;
        use ResourceConstraint as R;
        let mut tests = match &policy.principal {
            P::Any => Vec::new(),
            P::Eq(uid) => vec![self.equal(Var::Principal, uid)?],
            P::In(uid) => vec![self.inside(Var::Principal, uid)?],
            P::Is(kind) => vec![is_a(Var::Principal, kind)?],
            P::IsIn(kind, uid) => vec![
                is_a(Var::Principal, kind)?,
                self.inside(Var::Principal, uid)?,
            ],
        };
        match &policy.action {
            ActionConstraint::Any => {}
            ActionConstraint::Eq(uid) => {
                tests.push(Test::Itself(Var::Action, self.known_uid(uid)?));
            }
            ActionConstraint::In(uids) => {
                let uids = uids.iter().map(|uid| self.known_uid(uid));
                tests.push(self.is_in(Var::Action, uids.collect::<Result<_, _>>()?));
            }
        }
        match &policy.resource {
            R::Any => {}
            R::Eq(uid) => tests.push(self.equal(Var::Resource, uid)?),
            R::In(uid) => tests.push(self.inside(Var::Resource, uid)?),
            R::Is(kind) => tests.push(is_a(Var::Resource, kind)?),
            R::IsIn(kind, uid) => {
                tests.push(is_a(Var::Resource, kind)?);
                tests.push(self.inside(Var::Resource, uid)?);
            }
        }
        Ok(tests)
    }

    fn equal(&self, var: Var, uid: &EntityOrSlot) -> Result<Test, Unsupported> {
        Ok(Test::Itself(var, self.known_uid(entity(uid)?)?))
    }

    fn inside(&self, var: Var, uid: &EntityOrSlot) -> Result<Test, Unsupported> {
        Ok(self.is_in(var, vec![self.known_uid(entity(uid)?)?]))
    }
}

fn is_a(var: Var, kind: &EntityType) -> Result<Test, Unsupported> {
    let kind = Kind::of(kind).ok_or(Unsupported("an unknown entity type"))?;
    Ok(Test::IsA(var, kind))
}

fn entity(constraint: &EntityOrSlot) -> Result<&pst::EntityUID, Unsupported> {
    match constraint {
        EntityOrSlot::Entity(uid) => Ok(uid),
        EntityOrSlot::Slot(_) => Err(Unsupported("a template")),
    }
}
