//! Grants to Cedar policies, and Cedar's answer.
//!
//! Policies are built as syntax trees, never by pasting text, and validated strictly against `mesh.cedarschema`.
//! Stricter than Cedar itself: an answer with any error in it is no answer, because the policy that failed could have
//! been a forbid, and Cedar skips what it cannot evaluate.
//!
//! A permit that cannot become a policy grants nothing and is reported; a forbid that cannot closes its ports.
//!
//! - [`generate`]: grants become policies
//! - [`raw`]: policies that people wrote in Cedar, read, confined to their namespace and validated
//! - [`ask`]: a question as Cedar's request and entities
//! - [`model`]: all questions at once, for a solver; [`tree`], [`condition`]: expressions for it
//!
//! On the data path only what [`crate::residual`] cannot compile comes here; everything else is answered by
//! [`crate::matcher`], and Cedar is what it is compared with.

use crate::question::Question;
use crate::snapshot::{Effect, Grant, Scope, SnapshotData, Who};
use cedar_policy::{
    Authorizer, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Schema, Validator,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

mod ask;
pub(crate) mod clauses;
pub(crate) mod condition;
mod generate;
pub mod model;
pub(crate) mod raw;
pub(crate) mod tree;

pub(crate) use ask::{Setting, rfc3339_millis};
pub use generate::GeneratedPolicy;
pub(crate) use generate::{checked, texts};
use raw::Raw;

const SCHEMA_TEXT: &str = include_str!("mesh.cedarschema");

/// Types, actions and validator: built once per process.
pub(crate) struct Vocabulary {
    schema: Schema,
    validator: Validator,
    trust_domain: EntityTypeName,
    namespace: EntityTypeName,
    headers: EntityTypeName,
    identity_set: EntityTypeName,
    net_set: EntityTypeName,
    workload: EntityTypeName,
    anonymous: EntityTypeName,
    named_servers: EntityTypeName,
    server: EntityTypeName,
    route_object: EntityTypeName,
    route: EntityTypeName,
    connect: EntityUid,
    request: EntityUid,
}

/// The vocabulary, or why the schema that is compiled in cannot be read.
pub(crate) fn vocabulary() -> Result<&'static Vocabulary, String> {
    static VOCABULARY: OnceLock<Result<Vocabulary, String>> = OnceLock::new();
    VOCABULARY
        .get_or_init(Vocabulary::build)
        .as_ref()
        .map_err(Clone::clone)
}

impl Vocabulary {
    fn build() -> Result<Self, String> {
        let (schema, _warnings) =
            Schema::from_cedarschema_str(SCHEMA_TEXT).map_err(|error| error.to_string())?;
        let name = |text: &str| {
            text.parse::<EntityTypeName>()
                .map_err(|error| error.to_string())
        };
        let action = name("Mesh::Action")?;
        Ok(Self {
            validator: Validator::new(schema.clone()),
            schema,
            trust_domain: name("Mesh::TrustDomain")?,
            namespace: name("Mesh::Namespace")?,
            headers: name("Mesh::Headers")?,
            identity_set: name("Mesh::IdentitySet")?,
            net_set: name("Mesh::NetSet")?,
            workload: name("Mesh::Workload")?,
            anonymous: name("Mesh::Anonymous")?,
            named_servers: name("Mesh::NamedServers")?,
            server: name("Mesh::Server")?,
            route_object: name("Mesh::RouteObj")?,
            route: name("Mesh::Route")?,
            connect: uid(&action, "connect"),
            request: uid(&action, "request"),
        })
    }

    /// A client with a verified identity.
    pub(crate) fn workload(&self, spiffe_id: &str) -> EntityUid {
        uid(&self.workload, spiffe_id)
    }

    /// A client without one.
    pub(crate) fn anonymous(&self, tls: bool) -> EntityUid {
        uid(
            &self.anonymous,
            if tls { "tls-no-cert" } else { "plaintext" },
        )
    }

    /// An identity set.
    pub(crate) fn identity_set(&self, id: &str) -> EntityUid {
        uid(&self.identity_set, id)
    }

    /// A network set.
    pub(crate) fn net_set(&self, id: &str) -> EntityUid {
        uid(&self.net_set, id)
    }

    /// A Server, or the place of the default policy. No Server can take that place: its id has a slash.
    pub(crate) fn server(&self, named: Option<(&str, &str)>) -> EntityUid {
        match named {
            Some((namespace, name)) => uid(&self.server, &format!("{namespace}/{name}")),
            None => uid(&self.server, "default"),
        }
    }

    /// A namespace of a trust domain.
    fn namespace_of(&self, trust_domain: &str, namespace: &str) -> EntityUid {
        uid(&self.namespace, &format!("{trust_domain}/{namespace}"))
    }

    fn route_object(&self, kind: &str, namespace: &str, name: &str) -> EntityUid {
        uid(&self.route_object, &format!("{kind}/{namespace}/{name}"))
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// What the mesh knows of a policy besides its text.
#[derive(Clone, Debug)]
pub(crate) struct PolicyRef {
    /// The reason that records name.
    pub(crate) id: Arc<str>,
    pub(crate) audit: bool,
    pub(crate) break_glass: bool,
    pub(crate) effect: Effect,
}

impl PolicyRef {
    pub(crate) fn of(grant: &Grant) -> Self {
        Self {
            id: Arc::from(grant.id.as_str()),
            audit: grant.audit,
            break_glass: grant.term.break_glass.is_some(),
            effect: grant.effect,
        }
    }
}

/// The answer of the policies, judged by the mesh's stricter rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// At least one permit holds, no forbid does, nothing failed.
    Permitted {
        reasons: BTreeSet<Arc<str>>,
        audit: bool,
        break_glass: bool,
    },
    /// At least one forbid holds.
    Forbidden { reasons: BTreeSet<Arc<str>> },
    /// Something could not be evaluated.
    Undecidable { why: Arc<str> },
    /// Silence is no.
    NoPermit,
}

impl Answer {
    fn undecidable(why: &impl ToString) -> Self {
        Self::Undecidable {
            why: why.to_string().into(),
        }
    }
}

/// Cedar's answer over the grants of one port and the policies that were written in Cedar.
///
/// Policies are made for this question alone, and only those whose scope can cover it: leaving out a policy whose principal or
/// resource does not match its scope changes no answer. Whatever goes wrong on the way is an [`Answer::Undecidable`].
pub(crate) fn ask(
    vocabulary: &Vocabulary,
    setting: &Setting<'_>,
    question: &Question<'_>,
    (data, grants): (&SnapshotData, &[u32]),
    raw: &[Raw],
) -> Answer {
    if let Some(why) = raw::broken_forbid(raw) {
        return Answer::Undecidable {
            why: Arc::clone(why),
        };
    }
    let mut generated = Vec::new();
    for &index in grants {
        let grant = usize::try_from(index)
            .ok()
            .and_then(|at| data.grants.get(at));
        let Some(grant) = grant.filter(|grant| may_cover(setting, grant, question)) else {
            continue;
        };
        match generate::policy(vocabulary, data, grant, &format!("{index}")) {
            Ok(policy) => generated.push((policy, PolicyRef::of(grant))),
            Err(why) if grant.effect == Effect::Forbid => {
                return Answer::undecidable(&format!("{}: {why}", grant.id));
            }
            Err(_) => {}
        }
    }
    let generated = generated
        .iter()
        .map(|(policy, reference)| (policy, reference));
    answer(
        vocabulary,
        setting,
        question,
        generated.chain(raw.iter().filter_map(Raw::policy)),
    )
}

/// Whether the scope of a grant can cover what is asked. A forbid that refers to a set which does not exist always may.
fn may_cover(setting: &Setting<'_>, grant: &Grant, question: &Question<'_>) -> bool {
    let identity = match &grant.who {
        Who::Identities(set) => Some(setting.names.identity_place(set)),
        Who::Anyone | Who::AnyTls => None,
    };
    let missing_network = grant
        .networks
        .as_ref()
        .is_some_and(|set| setting.names.network_place(set).is_none());
    if missing_network || identity == Some(None) {
        return true;
    }
    let member = identity
        .flatten()
        .is_none_or(|place| question.asker.identity_sets.binary_search(&place).is_ok());
    let route = match &grant.scope {
        Scope::Route {
            kind,
            namespace,
            name,
        } => question.target.route.is_some_and(|route| {
            (route.kind, route.namespace, route.name) == (kind, namespace, name)
        }),
        Scope::Server { .. } | Scope::NamespaceServers { .. } | Scope::Default => true,
    };
    member && route
}

/// Cedar's answer over these policies.
pub(crate) fn answer<'p>(
    vocabulary: &Vocabulary,
    setting: &Setting<'_>,
    question: &Question<'_>,
    policies: impl Iterator<Item = (&'p Policy, &'p PolicyRef)>,
) -> Answer {
    let (mut set, mut references) = (PolicySet::new(), HashMap::new());
    for (policy, reference) in policies {
        references.insert(policy.id().clone(), reference);
        if let Err(error) = set.add(policy.clone()) {
            return Answer::undecidable(&error);
        }
    }
    let (request, entities) = match setting.put(vocabulary, question) {
        Ok(asked) => asked,
        Err(why) => return Answer::undecidable(&why),
    };
    judge(
        &references,
        &Authorizer::new().is_authorized(&request, &set, &entities),
    )
}

/// The mesh's stricter reading of a response.
fn judge(references: &HashMap<PolicyId, &PolicyRef>, response: &cedar_policy::Response) -> Answer {
    if let Some(error) = response.diagnostics().errors().next() {
        return Answer::undecidable(error);
    }
    let mut reasons = BTreeSet::new();
    let (mut audit, mut break_glass, mut forbidden) = (true, false, false);
    for id in response.diagnostics().reason() {
        let Some(policy) = references.get(id) else {
            return Answer::undecidable(&format!("`{id}` is no policy of this port"));
        };
        reasons.insert(Arc::clone(&policy.id));
        audit &= policy.audit;
        break_glass |= policy.break_glass;
        forbidden |= policy.effect == Effect::Forbid;
    }
    match response.decision() {
        cedar_policy::Decision::Allow if forbidden || reasons.is_empty() => {
            Answer::undecidable(&"Cedar allowed without a permit")
        }
        cedar_policy::Decision::Allow => Answer::Permitted {
            reasons,
            audit,
            break_glass,
        },
        cedar_policy::Decision::Deny if reasons.is_empty() => Answer::NoPermit,
        cedar_policy::Decision::Deny => Answer::Forbidden { reasons },
    }
}

#[cfg(test)]
mod tests;
