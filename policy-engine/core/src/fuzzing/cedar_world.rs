//! A question as Cedar sees it: its request and its entities.

use super::schema;
use crate::question::{Question, RequestFacts, SetNames, millis};
use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use mesh_trust::Timestamp;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Request and entities of one question.
pub(crate) struct World {
    pub(crate) request: Request,
    pub(crate) entities: Entities,
}

type Attributes = HashMap<String, RestrictedExpression>;

impl World {
    /// `headers` are the names that become tags, if the request has them.
    pub(crate) fn of<'h>(
        question: &Question<'_>,
        names: &SetNames,
        headers: impl Iterator<Item = &'h str>,
    ) -> Result<Self, String> {
        let mut entities = Vec::new();
        let principal = principal(question, names, &mut entities)?;
        let server = server(question, &mut entities)?;
        let (action, resource) = match question.target.route {
            None => ("connect", server),
            Some(_) => ("request", route(question, server, &mut entities)?),
        };
        namespaces(question, &mut entities)?;
        let mut context = vec![
            ("conn".to_owned(), connection(question, names)?),
            ("now".to_owned(), datetime(question.now)?),
        ];
        if let Some(request) = &question.request {
            entities.push(header_entity(request, headers)?);
            context.push(("req".to_owned(), request_record(request)?));
        }
        let context = Context::from_pairs(context).map_err(text)?;
        let action = uid("Action", action)?;
        Ok(Self {
            request: Request::new(principal, action, resource, context, schema()).map_err(text)?,
            entities: Entities::from_entities(entities, schema()).map_err(text)?,
        })
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind: EntityTypeName = format!("Mesh::{kind}").parse().map_err(text)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn strings(pairs: &[(&str, &str)]) -> Attributes {
    let pairs = pairs.iter();
    pairs
        .map(|(name, text)| ((*name).to_owned(), string(text)))
        .collect()
}

/// Any datetime, also those that have no text of their own because their year does not have four digits.
fn datetime(time: Timestamp) -> Result<RestrictedExpression, String> {
    let millis = millis(time);
    let whole = millis.checked_mul(1_000).map(Timestamp::from_unix_micros);
    let shown = whole.map(|time| time.to_string()).unwrap_or_default();
    match shown.strip_suffix("000Z") {
        Some(text) if text.len() == "2026-11-21T11:29:00.000".len() => {
            Ok(RestrictedExpression::new_datetime(format!("{text}Z")))
        }
        _ => format!(r#"datetime("1970-01-01").offset(duration("{millis}ms"))"#)
            .parse()
            .map_err(text),
    }
}

fn principal(
    question: &Question<'_>,
    names: &SetNames,
    entities: &mut Vec<Entity>,
) -> Result<EntityUid, String> {
    let asker = &question.asker;
    let Some(id) = asker.id else {
        let kind = if asker.tls {
            "tls-no-cert"
        } else {
            "plaintext"
        };
        return uid("Anonymous", kind);
    };
    let trust_domain = id.trust_domain().as_str();
    let mut attributes = strings(&[("id", id.as_str()), ("trustDomain", trust_domain)]);
    let mut parents = HashSet::from([uid("TrustDomain", trust_domain)?]);
    if let Some((namespace, account)) = id.service_account() {
        attributes.extend(strings(&[("ns", namespace), ("sa", account)]));
        parents.insert(uid("Namespace", &format!("{trust_domain}/{namespace}"))?);
    }
    for place in asker.identity_sets {
        parents.insert(uid("IdentitySet", name(&names.identity, *place)?)?);
    }
    let principal = uid("Workload", id.as_str())?;
    entities.push(Entity::new(principal.clone(), attributes, parents).map_err(text)?);
    Ok(principal)
}

fn name(names: &[std::sync::Arc<str>], place: u32) -> Result<&str, String> {
    let found = usize::try_from(place).ok().and_then(|at| names.get(at));
    found
        .map(|name| &**name)
        .ok_or_else(|| format!("no set has place {place}"))
}

fn server(question: &Question<'_>, entities: &mut Vec<Entity>) -> Result<EntityUid, String> {
    let target = &question.target;
    let ours = format!("{}/{}", target.trust_domain, target.namespace);
    let mut parents = HashSet::from([uid("Namespace", &ours)?]);
    let id = match target.server {
        Some(name) => {
            parents.insert(uid("NamedServers", target.namespace)?);
            format!("{}/{name}", target.namespace)
        }
        None => "default".to_owned(),
    };
    let mut attributes = strings(&[
        ("ns", target.namespace),
        ("name", target.server.unwrap_or("default")),
    ]);
    let is_default = RestrictedExpression::new_bool(target.server.is_none());
    attributes.insert("isDefault".to_owned(), is_default);
    let server = uid("Server", &id)?;
    entities.push(Entity::new(server.clone(), attributes, parents).map_err(text)?);
    Ok(server)
}

fn route(
    question: &Question<'_>,
    server: EntityUid,
    entities: &mut Vec<Entity>,
) -> Result<EntityUid, String> {
    let route = question.target.route.ok_or("no route")?;
    let object = format!("{}/{}/{}", route.kind, route.namespace, route.name);
    let id = format!("{} {object}/{}", server.id().unescaped(), route.rule);
    let mut attributes = strings(&[
        ("ns", question.target.namespace),
        ("kind", route.kind),
        ("name", route.name),
    ]);
    let rule = RestrictedExpression::new_long(route.rule.into());
    attributes.insert("rule".to_owned(), rule);
    let parents = HashSet::from([server, uid("RouteObj", &object)?]);
    let route = uid("Route", &id)?;
    entities.push(Entity::new(route.clone(), attributes, parents).map_err(text)?);
    Ok(route)
}

/// The namespaces of client and Server, each in its trust domain.
fn namespaces(question: &Question<'_>, entities: &mut Vec<Entity>) -> Result<(), String> {
    let ours = (
        question.target.trust_domain.as_str(),
        question.target.namespace,
    );
    let theirs = question
        .asker
        .id
        .and_then(|id| Some((id.trust_domain().as_str(), id.service_account()?.0)));
    for (domain, namespace) in BTreeSet::from([Some(ours), theirs]).into_iter().flatten() {
        let parents = HashSet::from([uid("TrustDomain", domain)?]);
        let namespace = uid("Namespace", &format!("{domain}/{namespace}"))?;
        entities.push(Entity::new_no_attrs(namespace, parents));
    }
    Ok(())
}

fn connection(question: &Question<'_>, names: &SetNames) -> Result<RestrictedExpression, String> {
    let asker = &question.asker;
    let mut nets = Vec::new();
    for place in asker.network_sets {
        let set = uid("NetSet", name(&names.network, *place)?)?;
        nets.push(RestrictedExpression::new_entity_uid(set));
    }
    let ip = RestrictedExpression::new_ip(asker.ip.to_string());
    let port = RestrictedExpression::new_long(question.target.port.into());
    let mut fields = vec![
        ("ip".to_owned(), ip),
        ("port".to_owned(), port),
        ("tls".to_owned(), RestrictedExpression::new_bool(asker.tls)),
        ("nets".to_owned(), RestrictedExpression::new_set(nets)),
    ];
    if let Some(end) = asker.cert_not_after {
        fields.push(("certNotAfter".to_owned(), datetime(end)?));
    }
    RestrictedExpression::new_record(fields).map_err(text)
}

fn request_record(request: &RequestFacts<'_>) -> Result<RestrictedExpression, String> {
    let headers = RestrictedExpression::new_entity_uid(uid("Headers", "request")?);
    let mut fields = vec![
        ("method".to_owned(), string(request.method)),
        ("path".to_owned(), string(request.path)),
        ("headers".to_owned(), headers),
        (
            "grpc".to_owned(),
            RestrictedExpression::new_bool(request.grpc),
        ),
    ];
    if let Some(host) = request.host {
        fields.push(("host".to_owned(), string(host)));
    }
    if let Some((service, method)) = request.grpc_names() {
        fields.push(("grpcService".to_owned(), string(service)));
        fields.push(("grpcMethod".to_owned(), string(method)));
    }
    RestrictedExpression::new_record(fields).map_err(text)
}

fn header_entity<'h>(
    request: &RequestFacts<'_>,
    names: impl Iterator<Item = &'h str>,
) -> Result<Entity, String> {
    let mut tags = Vec::new();
    for name in names {
        let mut values = Vec::new();
        request.headers.for_each_value(name, &mut |value| {
            values.push(string(&String::from_utf8_lossy(value)));
        });
        if !values.is_empty() {
            tags.push((name.to_owned(), RestrictedExpression::new_set(values)));
        }
    }
    Entity::new_with_tags(uid("Headers", "request")?, [], [], tags).map_err(text)
}
