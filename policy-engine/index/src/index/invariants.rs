//! Invariants: what must hold of the whole, for whoever proves it. Nothing here changes a decision.

use super::Index;
use super::authority::Authorities;
use super::cedar_texts::{mentioned_sets, missing_sets};
use crate::finding::Code;
use crate::manifest::cedar_check::Statement;
use crate::manifest::cedar_judge::validator;
use crate::manifest::invariant_kind::{ClaimSpec, ClientSpec, Deny, InvariantSpec, ServerSpec};
use crate::manifest::resource::{Key, Object, Resources};
use cedar_policy::{
    EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, ValidationMode, pst,
};
use mesh_policy::snapshot::{Finding, IdentityPattern, IdentitySet, NetworkSet, Source};
use mesh_trust::TrustDomain;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What must hold, whatever policies are written: an object of kind `Invariant`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// `Invariant/<namespace>/<name>`; the namespace of a cluster-wide one is empty.
    pub id: String,
    /// The namespace whose Servers alone it speaks about; `None`: all. As for a CedarPolicy, this boundary is not in
    /// the texts: `resource in Mesh::Namespace::"<trust domain>/<namespace>"` belongs to each.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What it is for, in its author's words.
    pub description: String,
    /// What it claims, or why that cannot be told. An invariant that cannot be told is not proved.
    pub claim: Result<Claim, String>,
    /// Identity sets that its texts mention.
    pub identity_sets: BTreeMap<String, IdentitySet>,
    /// Network sets that its texts mention.
    pub network_sets: BTreeMap<String, NetworkSet>,
    /// Where it is declared.
    pub source: Source,
}

/// What an [`Invariant`] claims. Every text is one static policy, validated strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No request that one of these forbid policies matches may ever be allowed.
    Never(Vec<ClaimText>),
    /// Every request that one of these permit policies matches must be allowed.
    Always(Vec<ClaimText>),
}

/// One policy of a [`Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimText {
    /// `Invariant/<namespace>/<name>/<part>`.
    pub id: String,
    /// Cedar text.
    pub text: String,
    /// Where it is declared.
    pub source: Source,
}

/// All invariants, sorted by namespace and name; what cannot be proved is a finding.
pub(crate) fn resolve(
    resources: &Resources,
    authorities: &Authorities,
    domain: &TrustDomain,
    findings: &mut Vec<Finding>,
) -> Vec<Invariant> {
    let mut out = Vec::with_capacity(resources.invariants.len());
    for object in &resources.invariants {
        let invariant = invariant(object, authorities, domain);
        // An invalid object has its findings from where it was read.
        if let (None, Err(why)) = (&object.invalid, &invariant.claim) {
            let message = format!("{} is not proved: {why}", object.title());
            Index::note(findings, Code::BadInvariant, object, message);
        }
        out.push(invariant);
    }
    out
}

fn invariant(
    object: &Object<InvariantSpec>,
    authorities: &Authorities,
    domain: &TrustDomain,
) -> Invariant {
    let reference = object.reference();
    let id = format!("Invariant/{}/{}", reference.namespace, reference.name);
    let (mut identity_sets, mut network_sets) = (BTreeMap::new(), BTreeMap::new());
    let mut texts = |statements: &[Statement]| -> Result<Vec<ClaimText>, String> {
        let mut out = Vec::new();
        for statement in statements {
            if let Some(why) = missing_sets(statement, authorities).into_iter().next() {
                return Err(format!("`{}` {why}", statement.id));
            }
            let (identities, networks) = mentioned_sets(statement, authorities);
            identity_sets.extend(identities);
            network_sets.extend(networks);
            out.push(ClaimText {
                id: statement.id.clone(),
                text: statement.text.clone(),
                source: statement.source.clone(),
            });
        }
        Ok(out)
    };
    let claim = match (&object.invalid, &object.spec.claim) {
        (Some(why), _) => Err(why.clone()),
        (None, None) => Err("it claims nothing".to_owned()),
        (None, Some(ClaimSpec::Forbid(statements))) => texts(statements).map(Claim::Never),
        (None, Some(ClaimSpec::Allow(statements))) => texts(statements).map(Claim::Always),
        (None, Some(ClaimSpec::Deny(deny))) => {
            let id = format!("{id}/0");
            deny_text(&id, deny, domain).map(|text| {
                Claim::Never(vec![ClaimText {
                    id,
                    text,
                    source: object.source.clone(),
                }])
            })
        }
    };
    Invariant {
        id,
        namespace: object.namespaced.then(|| object.key.namespace.clone()),
        name: object.key.name.clone(),
        description: object.spec.description.clone(),
        claim,
        identity_sets,
        network_sets,
        source: object.source.clone(),
    }
}

/// `deny` as one forbid policy, built as a syntax tree and validated as a written one is.
fn deny_text(id: &str, deny: &Deny, domain: &TrustDomain) -> Result<String, String> {
    let clients = deny.clients.iter().map(|client| client_is(client, domain));
    let servers = deny.servers.iter().map(|server| server_is(server, domain));
    let clauses = [
        any(clients.collect::<Result<_, String>>()?),
        any(servers.collect::<Result<_, String>>()?),
    ];
    let template = pst::Template::new(
        PolicyId::new(id),
        pst::Effect::Forbid,
        pst::PrincipalConstraint::Any,
        pst::ActionConstraint::Any,
        pst::ResourceConstraint::Any,
    )
    .try_with_clauses(
        clauses
            .into_iter()
            .flatten()
            .map(pst::Clause::When)
            .collect::<Vec<_>>(),
    )
    .map_err(|error| error.to_string())?;
    let fixed = pst::StaticPolicy::try_from(template).map_err(|error| error.to_string())?;
    let policy = Policy::from_pst(pst::Policy::Static(fixed)).map_err(|error| error.to_string())?;
    let set = PolicySet::from_policies([policy.clone()]).map_err(|error| error.to_string())?;
    let result = validator()?.validate(&set, ValidationMode::Strict);
    if let Some(error) = result.validation_errors().next() {
        return Err(error.to_string());
    }
    if let Some(warning) = result.validation_warnings().next() {
        return Err(warning.to_string());
    }
    policy
        .to_cedar()
        .ok_or_else(|| "the policy has no text form".to_owned())
}

/// Whether one of these holds; `None` if there are none. As a balanced tree: a long list must not nest deeply.
fn any(mut all: Vec<Arc<pst::Expr>>) -> Option<Arc<pst::Expr>> {
    while all.len() > 1 {
        let mut pairs = all.chunks_exact(2);
        let mut next: Vec<_> = pairs
            .by_ref()
            .filter_map(|pair| match pair {
                [left, right] => Some(binary(pst::BinaryOp::Or, left.clone(), right.clone())),
                _ => None,
            })
            .collect();
        next.extend(pairs.remainder().iter().cloned());
        all = next;
    }
    all.pop()
}

fn client_is(client: &ClientSpec, domain: &TrustDomain) -> Result<Arc<pst::Expr>, String> {
    let principal = pst::Var::Principal;
    let identity = match client {
        ClientSpec::Unauthenticated => return is(principal, "Mesh::Anonymous"),
        ClientSpec::Identity(identity) => identity.pattern(domain),
    };
    match identity {
        // Wider than the wildcard of a grant, which covers only the domains that are listed for it.
        IdentityPattern::Any => is(principal, "Mesh::Workload"),
        IdentityPattern::Exact(id) => {
            let workload = entity("Mesh::Workload", &id.to_string())?;
            Ok(binary(pst::BinaryOp::Eq, var(principal), workload))
        }
        IdentityPattern::Namespace {
            trust_domain,
            namespace,
        } => in_namespace(principal, &trust_domain, &namespace),
        IdentityPattern::Nobody(text) => Err(format!(
            "identity `{text}` matches nobody in trust domain `{domain}`"
        )),
    }
}

fn server_is(server: &ServerSpec, domain: &TrustDomain) -> Result<Arc<pst::Expr>, String> {
    let resource = pst::Var::Resource;
    match server {
        ServerSpec::Namespace(namespace) => in_namespace(resource, domain, namespace),
        ServerSpec::Server(Key { namespace, name }) => {
            let server = entity("Mesh::Server", &format!("{namespace}/{name}"))?;
            Ok(binary(pst::BinaryOp::In, var(resource), server))
        }
    }
}

fn in_namespace(
    of: pst::Var,
    domain: &TrustDomain,
    namespace: &str,
) -> Result<Arc<pst::Expr>, String> {
    let namespace = entity("Mesh::Namespace", &format!("{domain}/{namespace}"))?;
    Ok(binary(pst::BinaryOp::In, var(of), namespace))
}

fn is(of: pst::Var, kind: &str) -> Result<Arc<pst::Expr>, String> {
    // The tree has a form of its own for types; that of any entity has it.
    let some = pst::EntityUID::from(uid(kind, "")?);
    Ok(Arc::new(pst::Expr::Is {
        expr: var(of),
        entity_type: some.ty,
        in_expr: None,
    }))
}

fn var(of: pst::Var) -> Arc<pst::Expr> {
    Arc::new(pst::Expr::Var(of))
}

fn entity(kind: &str, id: &str) -> Result<Arc<pst::Expr>, String> {
    let literal = pst::Literal::EntityUID(uid(kind, id)?.into());
    Ok(Arc::new(pst::Expr::Literal(literal)))
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind = kind
        .parse::<EntityTypeName>()
        .map_err(|error| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn binary(op: pst::BinaryOp, left: Arc<pst::Expr>, right: Arc<pst::Expr>) -> Arc<pst::Expr> {
    Arc::new(pst::Expr::BinaryOp { op, left, right })
}
