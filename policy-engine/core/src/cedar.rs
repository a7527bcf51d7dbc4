//! Grants to Cedar policies, and Cedar's answer.
//!
//! Policies are built as syntax trees, never by pasting text, and validated strictly against `mesh.cedarschema`.
//! Stricter than Cedar itself: an answer with any error in it is no answer, because the policy that failed could have
//! been a forbid, and Cedar skips what it cannot evaluate.
//!
//! A permit that cannot become a policy grants nothing and is reported; a forbid that cannot closes its ports.

use crate::snapshot::{Grant, Scope, Who};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId,
    PolicySet, Request, RestrictedExpression, Schema, Validator,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

mod generate;

pub use generate::GeneratedPolicy;
pub(crate) use generate::{Generator, KnownPolicies, texts};

const SCHEMA_TEXT: &str = include_str!("mesh.cedarschema");

/// Types, actions and validator: built once per process.
pub(crate) struct Vocabulary {
    schema: Schema,
    validator: Validator,
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

    /// The parents of a Server.
    pub(crate) fn server_parents(&self, named: Option<(&str, &str)>) -> HashSet<EntityUid> {
        named
            .map(|(namespace, _)| uid(&self.named_servers, namespace))
            .into_iter()
            .collect()
    }

    fn route_object(&self, kind: &str, namespace: &str, name: &str) -> EntityUid {
        uid(&self.route_object, &format!("{kind}/{namespace}/{name}"))
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// The policies that bear on one port, by the identity set that their scope demands.
///
/// A question is put to those alone whose scope can cover it: leaving out a policy whose principal or resource does not
/// match its scope changes no answer, and spares a proxy with 10,000 grants from evaluating each.
#[derive(Default)]
pub(crate) struct Slice {
    /// Policies for any principal.
    anyone: Vec<Arc<Built>>,
    /// Policies for principals in an identity set, by its id.
    members: HashMap<String, Vec<Arc<Built>>>,
    /// A forbid that could not become a policy: everything is denied.
    broken_forbid: Option<Arc<str>>,
}

/// A grant and what became of it; kept from one snapshot to the next.
pub(crate) struct Built {
    grant: Grant,
    /// The policy, or why there is none.
    policy: Result<Policy, String>,
    reference: GrantRef,
}

#[derive(Clone)]
struct GrantRef {
    id: Arc<str>,
    audit: bool,
    forbid: bool,
}

/// Cedar's answer, judged by the mesh's stricter rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// At least one permit holds, no forbid does, nothing failed.
    Permitted {
        reasons: Arc<[Arc<str>]>,
        audit: bool,
    },
    /// At least one forbid holds.
    Forbidden { reasons: Arc<[Arc<str>]> },
    /// Something could not be evaluated.
    Undecidable { why: Arc<str> },
    /// Silence is no.
    NoPermit,
}

/// The client's side of a question: constant for a connection.
pub(crate) struct Subject {
    identity_sets: Vec<Arc<str>>,
    principal: EntityUid,
    entity: Option<Entity>,
    context: Context,
}

impl Subject {
    /// `identity_sets` and `net_sets` are those that the client is in.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        principal: EntityUid,
        identity_sets: Vec<Arc<str>>,
        tls: bool,
        net_sets: Vec<EntityUid>,
    ) -> Result<Self, String> {
        let known = principal.type_name() == &vocabulary.workload;
        let parents = || {
            identity_sets
                .iter()
                .map(|set| vocabulary.identity_set(set))
                .collect()
        };
        let entity = known.then(|| Entity::new_no_attrs(principal.clone(), parents()));
        let nets = RestrictedExpression::new_set(
            net_sets
                .into_iter()
                .map(RestrictedExpression::new_entity_uid),
        );
        let fields = [
            ("tls".to_owned(), RestrictedExpression::new_bool(tls)),
            ("nets".to_owned(), nets),
        ];
        let conn = RestrictedExpression::new_record(fields).map_err(|error| error.to_string())?;
        let context =
            Context::from_pairs([("conn".to_owned(), conn)]).map_err(|error| error.to_string())?;
        Ok(Self {
            identity_sets,
            principal,
            entity,
            context,
        })
    }
}

/// What is asked for: a Server's bytes, or a request that a route took on it.
#[derive(Clone)]
pub(crate) struct Object {
    action: EntityUid,
    resource: EntityUid,
    /// Kind, namespace and name of the route that took the request.
    route: Option<[String; 3]>,
    entities: Vec<Entity>,
}

impl Object {
    /// Bytes on a Server (or on a port of the default policy).
    pub(crate) fn server(vocabulary: &Vocabulary, named: Option<(&str, &str)>) -> Self {
        let resource = vocabulary.server(named);
        let entity = Entity::new_no_attrs(resource.clone(), vocabulary.server_parents(named));
        Self {
            action: vocabulary.connect.clone(),
            resource,
            route: None,
            entities: vec![entity],
        }
    }

    /// A request on a Server; `route` is kind, namespace, name and rule, the kind of a built-in one being `default`.
    pub(crate) fn request(
        vocabulary: &Vocabulary,
        named: Option<(&str, &str)>,
        (kind, namespace, name, rule): (&str, &str, &str, u32),
    ) -> Self {
        let server = vocabulary.server(named);
        let server_id: &str = server.id().unescaped();
        let resource = uid(
            &vocabulary.route,
            &format!("{server_id} {kind}/{namespace}/{name}/{rule}"),
        );
        let parents = HashSet::from([
            server.clone(),
            vocabulary.route_object(kind, namespace, name),
        ]);
        let entities = vec![
            Entity::new_no_attrs(server, vocabulary.server_parents(named)),
            Entity::new_no_attrs(resource.clone(), parents),
        ];
        let route = Some([kind, namespace, name].map(str::to_owned));
        Self {
            action: vocabulary.request.clone(),
            resource,
            route,
            entities,
        }
    }
}

impl Object {
    /// Whether a policy of this scope can cover the resource; only routes are told apart here.
    fn may_be_in(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Route {
                kind,
                namespace,
                name,
            } => self
                .route
                .as_ref()
                .is_some_and(|[k, ns, n]| (k, ns, n) == (kind, namespace, name)),
            Scope::Server { .. } | Scope::NamespaceServers { .. } | Scope::Default => true,
        }
    }
}

impl Slice {
    fn add(&mut self, built: &Arc<Built>) {
        match (&built.policy, &built.grant.who) {
            (Ok(_), Who::Identities(set)) => self
                .members
                .entry(set.clone())
                .or_default()
                .push(Arc::clone(built)),
            (Ok(_), Who::Anyone | Who::AnyTls) => self.anyone.push(Arc::clone(built)),
            (Err(why), _) if built.reference.forbid => {
                self.broken_forbid = Some(format!("{}: {why}", built.grant.id).into());
            }
            (Err(_), _) => {}
        }
    }

    /// Asks Cedar. Whatever goes wrong on the way is an [`Answer::Undecidable`].
    pub(crate) fn ask(
        &self,
        vocabulary: &Vocabulary,
        subject: &Subject,
        object: &Object,
    ) -> Answer {
        if let Some(broken) = &self.broken_forbid {
            return Answer::Undecidable {
                why: Arc::clone(broken),
            };
        }
        let of_sets = subject
            .identity_sets
            .iter()
            .filter_map(|set| self.members.get(&**set))
            .flatten();
        let candidates = self
            .anyone
            .iter()
            .chain(of_sets)
            .filter(|built| object.may_be_in(&built.grant.scope));
        let (mut policies, mut grants) = (PolicySet::new(), HashMap::new());
        for built in candidates {
            let Ok(policy) = &built.policy else { continue };
            grants.insert(policy.id().clone(), built.reference.clone());
            if let Err(error) = policies.add(policy.clone()) {
                return Answer::Undecidable {
                    why: error.to_string().into(),
                };
            }
        }
        evaluate(vocabulary, &policies, &grants, subject, object)
    }
}

/// Cedar's answer over these policies.
fn evaluate(
    vocabulary: &Vocabulary,
    policies: &PolicySet,
    grants: &HashMap<PolicyId, GrantRef>,
    subject: &Subject,
    object: &Object,
) -> Answer {
    let schema = Some(&vocabulary.schema);
    let (principal, context) = (subject.principal.clone(), subject.context.clone());
    let (action, resource) = (object.action.clone(), object.resource.clone());
    let request = match Request::new(principal, action, resource, context, schema) {
        Ok(request) => request,
        Err(error) => {
            return Answer::Undecidable {
                why: error.to_string().into(),
            };
        }
    };
    let entities = object.entities.iter().chain(&subject.entity).cloned();
    match Entities::from_entities(entities, schema) {
        Ok(entities) => judge(
            grants,
            &Authorizer::new().is_authorized(&request, policies, &entities),
        ),
        Err(error) => Answer::Undecidable {
            why: error.to_string().into(),
        },
    }
}

/// The mesh's stricter reading of a response.
fn judge(grants: &HashMap<PolicyId, GrantRef>, response: &cedar_policy::Response) -> Answer {
    if let Some(error) = response.diagnostics().errors().next() {
        return Answer::Undecidable {
            why: error.to_string().into(),
        };
    }
    let mut reasons = BTreeSet::new();
    let (mut audit, mut forbidden) = (true, false);
    for id in response.diagnostics().reason() {
        let Some(grant) = grants.get(id) else {
            return Answer::Undecidable {
                why: format!("`{id}` is no policy of this port").into(),
            };
        };
        reasons.insert(Arc::clone(&grant.id));
        audit &= grant.audit;
        forbidden |= grant.forbid;
    }
    let reasons: Arc<[Arc<str>]> = reasons.into_iter().collect();
    match response.decision() {
        cedar_policy::Decision::Allow if forbidden || reasons.is_empty() => Answer::Undecidable {
            why: "Cedar allowed without a permit".into(),
        },
        cedar_policy::Decision::Allow => Answer::Permitted { reasons, audit },
        cedar_policy::Decision::Deny if reasons.is_empty() => Answer::NoPermit,
        cedar_policy::Decision::Deny => Answer::Forbidden { reasons },
    }
}

#[cfg(test)]
mod tests;
