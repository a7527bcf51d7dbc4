//! Grants become policies: ids, syntax trees, strict validation.

use super::ask::rfc3339_millis;
use super::{Vocabulary, uid};
use crate::question::millis;
use crate::snapshot::{Effect, Grant, Scope, SnapshotData, Who};
use cedar_policy::pst::{self, SmolStr};
use cedar_policy::{EntityUid, Policy, PolicyId, PolicySet, ValidationMode};
use mesh_trust::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Id, text and source of every policy that the grants become, in the order of the grants.
pub(crate) fn texts(vocabulary: &Vocabulary, data: &SnapshotData) -> Vec<GeneratedPolicy> {
    let ids = policy_ids(&data.grants);
    let policies = checked(vocabulary, data, &data.grants, &ids);
    let made = policies.into_iter().zip(&data.grants).zip(ids);
    let texts = made.filter_map(|((policy, grant), id)| {
        Some(GeneratedPolicy {
            id,
            cedar: policy.ok()?.to_cedar()?,
            source: grant.source.to_string(),
        })
    });
    texts.collect()
}

/// The policies of these grants, strictly validated, or why there is none; `ids` are distinct. About 50 µs each.
pub(crate) fn checked(
    vocabulary: &Vocabulary,
    data: &SnapshotData,
    grants: &[Grant],
    ids: &[String],
) -> Vec<Result<Policy, String>> {
    let mut policies: Vec<Result<Policy, String>> = ids
        .iter()
        .zip(grants)
        .map(|(id, grant)| policy(vocabulary, data, grant, id))
        .collect();
    refuse_invalid(vocabulary, &mut policies);
    policies
}

/// One generated policy, for printing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GeneratedPolicy {
    /// Its id: the grant's, with its scope where a default policy would be ambiguous.
    pub id: String,
    /// Cedar text.
    pub cedar: String,
    /// `file:line` of the object it comes from.
    pub source: String,
}

/// A stable id for each grant's policy: its own id; what several grants may share gets its scope, then a number.
pub(super) fn policy_ids(grants: &[Grant]) -> Vec<String> {
    let mut taken = HashSet::new();
    let ids = grants.iter().map(|grant| {
        let plain = match (&grant.scope, grant.id.starts_with("default/")) {
            (Scope::Server { namespace, name }, true) => {
                format!("{}@Server/{namespace}/{name}", grant.id)
            }
            _ => grant.id.clone(),
        };
        let mut id = plain.clone();
        let mut number = 2;
        while !taken.insert(id.clone()) {
            id = format!("{plain}#{number}");
            number += 1;
        }
        id
    });
    ids.collect()
}

/// The set that a grant refers to and that does not exist, if there is one.
fn missing_set(data: &SnapshotData, grant: &Grant) -> Option<String> {
    match (&grant.who, &grant.networks) {
        (Who::Identities(set), _) if !data.identity_sets.contains_key(set) => {
            Some(format!("identity set `{set}` does not exist"))
        }
        (_, Some(set)) if !data.network_sets.contains_key(set) => {
            Some(format!("network set `{set}` does not exist"))
        }
        _ => None,
    }
}

/// One grant as a policy, or why it grants nothing.
pub(super) fn policy(
    vocabulary: &Vocabulary,
    data: &SnapshotData,
    grant: &Grant,
    id: &str,
) -> Result<Policy, String> {
    if let Some(missing) = missing_set(data, grant) {
        return Err(missing);
    }
    let mut clauses = Vec::new();
    let principal = match &grant.who {
        Who::Anyone => pst::PrincipalConstraint::Any,
        Who::AnyTls => {
            clauses.push(pst::Clause::When(conn("tls")));
            pst::PrincipalConstraint::Any
        }
        Who::Identities(set) => pst::PrincipalConstraint::In(entity(vocabulary.identity_set(set))),
    };
    if let Some(set) = &grant.networks {
        clauses.push(pst::Clause::When(in_network(vocabulary.net_set(set))));
    }
    clauses.extend(grant.term.expires.map(before));
    let (action, resource) = match &grant.scope {
        Scope::Server { namespace, name } => (
            pst::ActionConstraint::Any,
            vocabulary.server(Some((namespace, name))),
        ),
        Scope::NamespaceServers { namespace } => (
            pst::ActionConstraint::Any,
            uid(&vocabulary.named_servers, namespace),
        ),
        Scope::Default => (pst::ActionConstraint::Any, vocabulary.server(None)),
        Scope::Route {
            kind,
            namespace,
            name,
        } => (
            pst::ActionConstraint::Eq(vocabulary.request.clone().into()),
            vocabulary.route_object(kind, namespace, name),
        ),
    };
    let effect = match grant.effect {
        Effect::Permit => pst::Effect::Permit,
        Effect::Forbid => pst::Effect::Forbid,
    };
    let mut annotations =
        BTreeMap::from([("src".to_owned(), SmolStr::from(grant.source.to_string()))]);
    if grant.audit {
        annotations.insert("audit".to_owned(), SmolStr::from("true"));
    }
    if let Some(reason) = &grant.term.break_glass {
        annotations.insert("breakGlass".to_owned(), SmolStr::from(reason.as_str()));
    }
    let resource = pst::ResourceConstraint::In(entity(resource));
    let template = pst::Template::new(id, effect, principal, action, resource)
        .try_with_clauses(clauses)
        .map_err(|error| error.to_string())?
        .with_annotations(annotations);
    let fixed = pst::StaticPolicy::try_from(template).map_err(|error| error.to_string())?;
    Policy::from_pst(pst::Policy::Static(fixed)).map_err(|error| error.to_string())
}

fn entity(uid: EntityUid) -> pst::EntityOrSlot {
    pst::EntityOrSlot::Entity(uid.into())
}

/// `context.conn.<field>`
fn conn(field: &str) -> Arc<pst::Expr> {
    let get = |expr, attr: &str| {
        Arc::new(pst::Expr::GetAttr {
            expr,
            attr: SmolStr::from(attr),
        })
    };
    get(
        get(Arc::new(pst::Expr::Var(pst::Var::Context)), "conn"),
        field,
    )
}

/// `when { context.now < datetime("…") }`
pub(super) fn before(end: Timestamp) -> pst::Clause {
    let text = rfc3339_millis(millis(end));
    let literal = Arc::new(pst::Expr::Literal(pst::Literal::String(text.into())));
    let end = pst::Expr::UnaryOp {
        op: pst::UnaryOp::Datetime,
        expr: literal,
    };
    let now = pst::Expr::GetAttr {
        expr: Arc::new(pst::Expr::Var(pst::Var::Context)),
        attr: SmolStr::from("now"),
    };
    pst::Clause::When(Arc::new(pst::Expr::BinaryOp {
        op: pst::BinaryOp::Less,
        left: Arc::new(now),
        right: Arc::new(end),
    }))
}

/// `context.conn.nets.contains(<set>)`
fn in_network(set: EntityUid) -> Arc<pst::Expr> {
    let set = Arc::new(pst::Expr::Literal(pst::Literal::EntityUID(set.into())));
    Arc::new(pst::Expr::BinaryOp {
        op: pst::BinaryOp::Contains,
        left: conn("nets"),
        right: set,
    })
}

/// Takes out the policies that do not pass strict validation.
pub(super) fn refuse_invalid(vocabulary: &Vocabulary, policies: &mut [Result<Policy, String>]) {
    let valid = policies
        .iter()
        .filter_map(|policy| policy.as_ref().ok().cloned());
    let set = match PolicySet::from_policies(valid) {
        Ok(set) => set,
        Err(error) => {
            // Cannot happen, ids being distinct; if it does, none of them is known to be sound.
            policies
                .iter_mut()
                .for_each(|policy| *policy = Err(error.to_string()));
            return;
        }
    };
    let result = vocabulary.validator.validate(&set, ValidationMode::Strict);
    let errors: HashMap<&PolicyId, String> = result
        .validation_errors()
        .map(|error| (error.policy_id(), error.to_string()))
        .collect();
    for policy in policies {
        let error = policy
            .as_ref()
            .ok()
            .and_then(|policy| errors.get(policy.id()));
        if let Some(error) = error.cloned() {
            *policy = Err(error);
        }
    }
}
