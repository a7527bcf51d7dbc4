//! A whole policy as one condition: its scope and its clauses.

use super::tree::{Tree, any, eq, every, is_a, is_in, not, uid_of, variable};
use cedar_policy::Policy;
use cedar_policy::pst::{
    self, ActionConstraint, EntityOrSlot, EntityType, PrincipalConstraint, ResourceConstraint, Var,
};

/// What a policy asks of a question, in the order in which Cedar evaluates it.
pub(crate) fn condition(policy: &Policy) -> Result<Tree, String> {
    let pst::Policy::Static(fixed) = policy.to_pst().map_err(|error| error.to_string())? else {
        return Err(SLOTS.to_owned());
    };
    let body = fixed.body();
    let principal = match &body.principal {
        PrincipalConstraint::Any => Scope::default(),
        PrincipalConstraint::Eq(one) => Scope::is(one),
        PrincipalConstraint::In(one) => Scope::within(None, one),
        PrincipalConstraint::Is(kind) => Scope::of_kind(kind),
        PrincipalConstraint::IsIn(kind, one) => Scope::within(Some(kind), one),
    };
    let resource = match &body.resource {
        ResourceConstraint::Any => Scope::default(),
        ResourceConstraint::Eq(one) => Scope::is(one),
        ResourceConstraint::In(one) => Scope::within(None, one),
        ResourceConstraint::Is(kind) => Scope::of_kind(kind),
        ResourceConstraint::IsIn(kind, one) => Scope::within(Some(kind), one),
    };
    let mut all = principal.conditions(Var::Principal)?;
    let action = |uid: &pst::EntityUID| eq(variable(Var::Action), uid_of(uid.clone()));
    match &body.action {
        ActionConstraint::Any => {}
        ActionConstraint::Eq(uid) => all.push(action(uid)),
        ActionConstraint::In(uids) => all.push(any(uids.iter().map(action).collect())),
    }
    all.extend(resource.conditions(Var::Resource)?);
    all.extend(body.clauses().iter().map(|clause| match clause {
        pst::Clause::When(tree) => tree.clone(),
        pst::Clause::Unless(tree) => not(tree.clone()),
    }));
    Ok(every(all))
}

/// What a policy's scope asks of the principal or the resource.
#[derive(Default)]
struct Scope<'a> {
    kind: Option<&'a EntityType>,
    is: Option<&'a EntityOrSlot>,
    within: Option<&'a EntityOrSlot>,
}

impl<'a> Scope<'a> {
    fn is(one: &'a EntityOrSlot) -> Self {
        Self {
            is: Some(one),
            ..Self::default()
        }
    }

    fn of_kind(kind: &'a EntityType) -> Self {
        Self {
            kind: Some(kind),
            ..Self::default()
        }
    }

    fn within(kind: Option<&'a EntityType>, one: &'a EntityOrSlot) -> Self {
        Self {
            kind,
            is: None,
            within: Some(one),
        }
    }

    fn conditions(&self, of: Var) -> Result<Vec<Tree>, String> {
        let of = variable(of);
        let mut all = Vec::new();
        all.extend(self.kind.map(|kind| is_a(of.clone(), kind.clone())));
        if let Some(one) = self.is {
            all.push(eq(of.clone(), entity(one)?));
        }
        if let Some(group) = self.within {
            all.push(is_in(of, entity(group)?));
        }
        Ok(all)
    }
}

const SLOTS: &str = "a policy with slots is no static policy";

fn entity(constraint: &EntityOrSlot) -> Result<Tree, String> {
    match constraint {
        EntityOrSlot::Entity(uid) => Ok(uid_of(uid.clone())),
        EntityOrSlot::Slot(_) => Err(SLOTS.to_owned()),
    }
}
