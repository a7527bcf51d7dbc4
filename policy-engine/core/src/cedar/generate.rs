//! Grants become policies: ids, syntax trees, strict validation, and what is kept from one snapshot to the next.

use super::{Built, GrantRef, Slice, Vocabulary, uid};
use crate::snapshot::{Effect, Finding, Grant, ObjectRef, Scope, Severity, SnapshotData, Who};
use cedar_policy::pst::{self, SmolStr};
use cedar_policy::{EntityUid, Policy, PolicyId, PolicySet, ValidationMode};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Policies by id, from one snapshot to the next: a grant that did not change is neither built nor validated again.
pub(crate) type KnownPolicies = HashMap<String, Arc<Built>>;

/// Turns the grants of one snapshot into policies, and hands out the slice of each port.
pub(crate) struct Generator {
    vocabulary: &'static Vocabulary,
    /// In the order of the grants, with the ids of their policies.
    built: Vec<(String, Arc<Built>)>,
    slices: HashMap<Vec<u32>, Arc<Slice>>,
}

impl Generator {
    /// Builds what `known` does not have yet.
    pub(crate) fn new(
        vocabulary: &'static Vocabulary,
        data: &SnapshotData,
        known: &KnownPolicies,
    ) -> Self {
        let still_there = |id: &String, grant: &Grant| {
            let built = known
                .get(id)
                .filter(|built| built.policy.is_ok() && built.grant == *grant)?;
            missing_set(data, grant)
                .is_none()
                .then(|| Arc::clone(built))
        };
        let ids = policy_ids(&data.grants);
        let mut fresh: Vec<(usize, Result<Policy, String>)> = Vec::new();
        let mut built: Vec<Option<Arc<Built>>> = Vec::with_capacity(ids.len());
        for (index, (id, grant)) in ids.iter().zip(&data.grants).enumerate() {
            let old = still_there(id, grant);
            if old.is_none() {
                fresh.push((index, policy(vocabulary, data, grant, id)));
            }
            built.push(old);
        }
        refuse_invalid(vocabulary, &mut fresh);
        for (index, policy) in fresh {
            if let Some((place, grant)) = built.get_mut(index).zip(data.grants.get(index)) {
                let forbid = grant.effect == Effect::Forbid;
                let reference = GrantRef {
                    id: Arc::from(grant.id.as_str()),
                    audit: grant.audit,
                    forbid,
                };
                *place = Some(Arc::new(Built {
                    grant: grant.clone(),
                    policy,
                    reference,
                }));
            }
        }
        let built = ids
            .into_iter()
            .zip(built)
            .filter_map(|(id, built)| Some((id, built?)))
            .collect();
        Self {
            vocabulary,
            built,
            slices: HashMap::new(),
        }
    }

    /// The vocabulary that policies are written in.
    pub(crate) fn vocabulary(&self) -> &'static Vocabulary {
        self.vocabulary
    }

    /// The policies of the grants with these indexes; `Err` with an index that there is not.
    pub(crate) fn slice(&mut self, grants: &[u32]) -> Result<Arc<Slice>, u32> {
        let mut key = grants.to_vec();
        key.sort_unstable();
        key.dedup();
        if let Some(known) = self.slices.get(&key) {
            return Ok(Arc::clone(known));
        }
        let mut slice = Slice::default();
        for &index in &key {
            let (_, built) = usize::try_from(index)
                .ok()
                .and_then(|at| self.built.get(at))
                .ok_or(index)?;
            slice.add(built);
        }
        let slice = Arc::new(slice);
        self.slices.insert(key, Arc::clone(&slice));
        Ok(slice)
    }

    /// Grants that are no policy.
    pub(crate) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.built
            .iter()
            .filter_map(|(_, built)| Some(finding(&built.grant, built.policy.as_ref().err()?)))
    }

    /// What the next snapshot need not build again.
    pub(crate) fn into_known(self) -> KnownPolicies {
        self.built.into_iter().collect()
    }
}

/// Id, text and source of every policy, in the order of the grants.
pub(crate) fn texts(data: &SnapshotData, known: &KnownPolicies) -> Vec<GeneratedPolicy> {
    let texts = policy_ids(&data.grants).into_iter().filter_map(|id| {
        let built = known.get(&id)?;
        let cedar = built.policy.as_ref().ok()?.to_cedar()?;
        Some(GeneratedPolicy {
            id,
            cedar,
            source: built.grant.source.to_string(),
        })
    });
    texts.collect()
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
fn policy(
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
pub(super) fn refuse_invalid(
    vocabulary: &Vocabulary,
    policies: &mut [(usize, Result<Policy, String>)],
) {
    let valid = policies
        .iter()
        .filter_map(|(_, policy)| policy.as_ref().ok().cloned());
    let set = match PolicySet::from_policies(valid) {
        Ok(set) => set,
        Err(error) => {
            // Cannot happen, ids being distinct; if it does, none of them is known to be sound.
            policies
                .iter_mut()
                .for_each(|(_, policy)| *policy = Err(error.to_string()));
            return;
        }
    };
    let result = vocabulary.validator.validate(&set, ValidationMode::Strict);
    let errors: HashMap<&PolicyId, String> = result
        .validation_errors()
        .map(|error| (error.policy_id(), error.to_string()))
        .collect();
    for (_, policy) in policies {
        let error = policy
            .as_ref()
            .ok()
            .and_then(|policy| errors.get(policy.id()));
        if let Some(error) = error.cloned() {
            *policy = Err(error);
        }
    }
}

fn finding(grant: &Grant, why: &str) -> Finding {
    let mut parts = grant.id.split('/');
    let object = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(namespace), Some(name), Some(_)) => Some(ObjectRef {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: grant.source.clone(),
        }),
        _ => None,
    };
    let (effect, hint) = match grant.effect {
        Effect::Permit => ("grants nothing", "mend what it refers to"),
        Effect::Forbid => (
            "closes the ports it covers",
            "mend what it refers to, or remove it",
        ),
    };
    Finding {
        code: "MESH-0311".to_owned(),
        severity: Severity::Error,
        message: format!("`{}` {effect}: {why}", grant.id),
        hint: Some(hint.to_owned()),
        object,
        source: grant.source.clone(),
    }
}
