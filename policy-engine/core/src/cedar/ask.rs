//! A question as Cedar reads it: a request, and the entities that it and the policies may look at.

use super::{Vocabulary, uid};
use crate::question::{Asker, HeaderNames, Question, RequestFacts, SetNames, Target, millis};
use crate::request::Headers;
use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression as Value};
use mesh_trust::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// What all questions of one snapshot share.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// What set places stand for.
    pub(crate) names: &'a SetNames,
    /// Headers that some policy looks at.
    pub(crate) headers: &'a HeaderNames,
}

impl<'a> Setting<'a> {
    /// The question as a request and its entities.
    ///
    /// # Errors
    /// What Cedar says of it; the question cannot be decided then.
    pub(super) fn put(
        &self,
        vocabulary: &Vocabulary,
        question: &Question<'_>,
    ) -> Result<(Request, Entities), String> {
        let mut entities = Vec::new();
        let principal = self.principal(vocabulary, &question.asker, &mut entities)?;
        let resource = resource(vocabulary, &question.target, &mut entities)?;
        let action = match question.target.route {
            Some(_) => vocabulary.request.clone(),
            None => vocabulary.connect.clone(),
        };
        let mut context = vec![
            (
                "conn".to_owned(),
                self.connection(vocabulary, &question.asker, question.target.port)?,
            ),
            ("now".to_owned(), datetime(question.now)),
        ];
        if let Some(request) = &question.request {
            let request = self.request(vocabulary, request, &mut entities)?;
            context.push(("req".to_owned(), request));
        }
        let context = Context::from_pairs(context).map_err(|error| error.to_string())?;
        let schema = Some(&vocabulary.schema);
        let request = Request::new(principal, action, resource, context, schema)
            .map_err(|error| error.to_string())?;
        let mut seen = HashSet::new();
        entities.retain(|entity: &Entity| seen.insert(entity.uid()));
        let entities =
            Entities::from_entities(entities, schema).map_err(|error| error.to_string())?;
        Ok((request, entities))
    }

    fn principal(
        &self,
        vocabulary: &Vocabulary,
        asker: &Asker<'_>,
        entities: &mut Vec<Entity>,
    ) -> Result<EntityUid, String> {
        let Some(id) = asker.id else {
            return Ok(vocabulary.anonymous(asker.tls));
        };
        let principal = vocabulary.workload(id.as_str());
        let domain = id.trust_domain().as_str();
        let text = |text: &str| Value::new_string(text.to_owned());
        let mut attributes = BTreeMap::from([
            ("id".to_owned(), text(id.as_str())),
            ("trustDomain".to_owned(), text(domain)),
        ]);
        let sets = named(asker.identity_sets, &self.names.identity);
        let mut parents: HashSet<EntityUid> =
            sets.map(|set| vocabulary.identity_set(set)).collect();
        parents.insert(uid(&vocabulary.trust_domain, domain));
        if let Some((namespace, account)) = id.service_account() {
            attributes.insert("ns".to_owned(), text(namespace));
            attributes.insert("sa".to_owned(), text(account));
            parents.insert(vocabulary.namespace_of(domain, namespace));
            entities.push(namespace_entity(vocabulary, domain, namespace));
        }
        entities.push(entity(principal.clone(), attributes, parents)?);
        Ok(principal)
    }

    fn connection(
        &self,
        vocabulary: &Vocabulary,
        asker: &Asker<'_>,
        port: u16,
    ) -> Result<Value, String> {
        let nets = named(asker.network_sets, &self.names.network)
            .map(|set| Value::new_entity_uid(vocabulary.net_set(set)));
        let mut fields = vec![
            ("ip".to_owned(), Value::new_ip(asker.ip.to_string())),
            ("port".to_owned(), Value::new_long(i64::from(port))),
            ("tls".to_owned(), Value::new_bool(asker.tls)),
            ("nets".to_owned(), Value::new_set(nets)),
        ];
        fields.extend(
            asker
                .cert_not_after
                .map(|end| ("certNotAfter".to_owned(), datetime(end))),
        );
        Value::new_record(fields).map_err(|error| error.to_string())
    }

    fn request(
        &self,
        vocabulary: &Vocabulary,
        request: &RequestFacts<'_>,
        entities: &mut Vec<Entity>,
    ) -> Result<Value, String> {
        let text = |text: &str| Value::new_string(text.to_owned());
        let headers = uid(&vocabulary.headers, "request");
        let tags = self
            .headers
            .iter()
            .filter_map(|name| {
                let values = header_values(request.headers, name);
                (!values.is_empty()).then(|| {
                    (
                        name.to_string(),
                        Value::new_set(values.iter().map(|v| text(v))),
                    )
                })
            })
            .collect::<Vec<_>>();
        let entity = Entity::new_with_tags(headers.clone(), [], [], tags)
            .map_err(|error| error.to_string())?;
        entities.push(entity);
        let mut fields = vec![
            ("method".to_owned(), text(request.method)),
            ("path".to_owned(), text(request.path)),
            ("headers".to_owned(), Value::new_entity_uid(headers)),
            ("grpc".to_owned(), Value::new_bool(request.grpc)),
        ];
        fields.extend(request.host.map(|host| ("host".to_owned(), text(host))));
        if let Some((service, method)) = request.grpc_names() {
            fields.push(("grpcService".to_owned(), text(service)));
            fields.push(("grpcMethod".to_owned(), text(method)));
        }
        Value::new_record(fields).map_err(|error| error.to_string())
    }
}

/// The Server or the route that is asked for, with all that it lies in.
pub(super) fn resource(
    vocabulary: &Vocabulary,
    target: &Target<'_>,
    entities: &mut Vec<Entity>,
) -> Result<EntityUid, String> {
    let text = |text: &str| Value::new_string(text.to_owned());
    let named = target.server.map(|name| (target.namespace, name));
    let server = vocabulary.server(named);
    let domain = target.trust_domain.as_str();
    let mut parents = HashSet::from([vocabulary.namespace_of(domain, target.namespace)]);
    if named.is_some() {
        parents.insert(uid(&vocabulary.named_servers, target.namespace));
    }
    let attributes = BTreeMap::from([
        ("ns".to_owned(), text(target.namespace)),
        ("name".to_owned(), text(target.server.unwrap_or("default"))),
        ("isDefault".to_owned(), Value::new_bool(named.is_none())),
    ]);
    entities.push(namespace_entity(vocabulary, domain, target.namespace));
    entities.push(entity(server.clone(), attributes, parents)?);
    let Some(route) = target.route else {
        return Ok(server);
    };
    let id = format!(
        "{} {}/{}/{}/{}",
        server.id().unescaped(),
        route.kind,
        route.namespace,
        route.name,
        route.rule
    );
    let resource = uid(&vocabulary.route, &id);
    let object = vocabulary.route_object(route.kind, route.namespace, route.name);
    let attributes = BTreeMap::from([
        ("ns".to_owned(), text(target.namespace)),
        ("kind".to_owned(), text(route.kind)),
        ("name".to_owned(), text(route.name)),
        ("rule".to_owned(), Value::new_long(i64::from(route.rule))),
    ]);
    let parents = HashSet::from([server, object]);
    entities.push(entity(resource.clone(), attributes, parents)?);
    Ok(resource)
}

fn namespace_entity(vocabulary: &Vocabulary, trust_domain: &str, namespace: &str) -> Entity {
    let domain = uid(&vocabulary.trust_domain, trust_domain);
    Entity::new_no_attrs(
        vocabulary.namespace_of(trust_domain, namespace),
        HashSet::from([domain]),
    )
}

fn entity(
    uid: EntityUid,
    attributes: BTreeMap<String, Value>,
    parents: HashSet<EntityUid>,
) -> Result<Entity, String> {
    Entity::new(uid, attributes.into_iter().collect(), parents).map_err(|error| error.to_string())
}

fn named<'n>(places: &[u32], names: &'n [Arc<str>]) -> impl Iterator<Item = &'n str> {
    places
        .iter()
        .filter_map(|&place| names.get(usize::try_from(place).ok()?))
        .map(|name| &**name)
}

/// The values of a header, each once. They are UTF-8: requests with others are refused before.
fn header_values(headers: &dyn Headers, name: &str) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    headers.for_each_value(name, &mut |value| {
        values.insert(String::from_utf8_lossy(value).into_owned());
    });
    values
}

fn datetime(time: Timestamp) -> Value {
    Value::new_datetime(rfc3339_millis(millis(time)))
}

/// Milliseconds since the epoch as Cedar's `datetime` literal: `2026-11-25T03:30:00.000Z`. Years outside 0000 to 9999
/// become the end that is nearer.
pub(crate) fn rfc3339_millis(millis: i64) -> String {
    const FIRST: i64 = -62_167_219_200_000;
    const LAST: i64 = 253_402_300_799_999;
    let millis = millis.clamp(FIRST, LAST);
    let time = Timestamp::from_unix_micros(millis.saturating_mul(1_000)).to_string();
    // A timestamp is written with six digits of a second; the last three are 0 here.
    match time.strip_suffix("000Z") {
        Some(to_the_milli) => format!("{to_the_milli}Z"),
        None => time,
    }
}
