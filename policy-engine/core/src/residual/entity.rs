//! Entities: which ones a question's principal, action and resource are, and what they are in.
//!
//! No entity store is built. Ids are compared piece by piece with the facts they would be made of.

use crate::question::{Question, RouteFacts, SetNames, Target};
use cedar_policy::pst;
use mesh_trust::TrustDomain;

/// The entities that a question has by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Var {
    Principal,
    Action,
    Resource,
}

/// The entity types of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TrustDomain,
    Namespace,
    IdentitySet,
    NetSet,
    Workload,
    Anonymous,
    NamedServers,
    Server,
    RouteObj,
    Route,
    Headers,
    Action,
}

/// A literal entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uid {
    kind: Kind,
    id: Box<str>,
    /// Of a network set: its place, if the snapshot has it.
    network_set: Option<u32>,
}

/// What a principal or a resource can be in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Everything is in itself.
    Itself(Uid),
    IdentitySet(u32),
    TrustDomain(Box<str>),
    /// Trust domain and namespace of a principal.
    Namespace(Box<str>),
    /// A namespace in our trust domain.
    OurNamespace(Box<str>),
    NamedServers(Box<str>),
    /// Id of the Server, for it and for routes on it.
    Server(Box<str>),
    RouteObject(Box<str>),
}

impl Kind {
    const NAMED: [(Self, &'static str); 12] = [
        (Self::TrustDomain, "TrustDomain"),
        (Self::Namespace, "Namespace"),
        (Self::IdentitySet, "IdentitySet"),
        (Self::NetSet, "NetSet"),
        (Self::Workload, "Workload"),
        (Self::Anonymous, "Anonymous"),
        (Self::NamedServers, "NamedServers"),
        (Self::Server, "Server"),
        (Self::RouteObj, "RouteObj"),
        (Self::Route, "Route"),
        (Self::Headers, "Headers"),
        (Self::Action, "Action"),
    ];

    pub(super) fn of(kind: &pst::EntityType) -> Option<Self> {
        let [namespace] = kind.0.namespace.as_slice() else {
            return None;
        };
        if namespace.as_str() != "Mesh" {
            return None;
        }
        let name = kind.0.id.as_str();
        let known = Self::NAMED.iter().find(|(_, known)| *known == name);
        known.map(|(kind, _)| *kind)
    }

    /// Its name in the schema, without the namespace.
    pub(super) fn name(self) -> Option<&'static str> {
        let known = Self::NAMED.iter().find(|(kind, _)| *kind == self);
        known.map(|(_, name)| *name)
    }
}

impl Uid {
    pub(super) fn of(uid: &pst::EntityUID, names: &SetNames) -> Option<Self> {
        let kind = Kind::of(&uid.ty)?;
        let network_set = match kind {
            Kind::NetSet => names.network_place(&uid.eid),
            _ => None,
        };
        let id = uid.eid.as_str().into();
        Some(Self {
            kind,
            id,
            network_set,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its place, if it is a network set that the snapshot has.
    pub(super) fn network_set(&self) -> Option<u32> {
        self.network_set
    }
}

impl Group {
    /// What being in `uid` means for a principal; `None`: nobody is.
    pub(super) fn of_principals(uid: &Uid, names: &SetNames) -> Option<Self> {
        match uid.kind {
            Kind::Workload | Kind::Anonymous => Some(Self::Itself(uid.clone())),
            Kind::IdentitySet => names.identity_place(&uid.id).map(Self::IdentitySet),
            Kind::TrustDomain => Some(Self::TrustDomain(uid.id.clone())),
            Kind::Namespace => Some(Self::Namespace(uid.id.clone())),
            _ => None,
        }
    }

    /// What being in `uid` means for a resource; `None`: nothing is.
    pub(super) fn of_resources(uid: &Uid, trust_domain: &TrustDomain) -> Option<Self> {
        match uid.kind {
            Kind::Route => Some(Self::Itself(uid.clone())),
            Kind::Server => Some(Self::Server(uid.id.clone())),
            Kind::NamedServers => Some(Self::NamedServers(uid.id.clone())),
            Kind::RouteObj => Some(Self::RouteObject(uid.id.clone())),
            Kind::TrustDomain => Some(Self::TrustDomain(uid.id.clone())),
            Kind::Namespace => uid
                .id
                .strip_prefix(trust_domain.as_str())
                .and_then(|rest| rest.strip_prefix('/'))
                .map(|namespace| Self::OurNamespace(namespace.into())),
            _ => None,
        }
    }

    pub(super) fn has_principal(&self, question: &Question<'_>) -> bool {
        if let Self::Itself(uid) = self {
            return is(Var::Principal, uid, question);
        }
        let Some(id) = question.asker.id else {
            return false;
        };
        match self {
            Self::IdentitySet(place) => question.asker.identity_sets.binary_search(place).is_ok(),
            Self::TrustDomain(name) => id.trust_domain().as_str() == &**name,
            Self::Namespace(whole) => id.service_account().is_some_and(|(namespace, _)| {
                is_joined(whole, &[id.trust_domain().as_str(), "/", namespace])
            }),
            _ => false,
        }
    }

    pub(super) fn has_resource(&self, question: &Question<'_>) -> bool {
        let target = &question.target;
        match self {
            Self::Itself(uid) => is(Var::Resource, uid, question),
            Self::TrustDomain(name) => target.trust_domain.as_str() == &**name,
            Self::OurNamespace(name) => target.namespace == &**name,
            Self::NamedServers(name) => target.server.is_some() && target.namespace == &**name,
            Self::Server(id) => after_server_id(id, target) == Some(""),
            Self::RouteObject(id) => target.route.is_some_and(|route| {
                is_joined(id, &[route.kind, "/", route.namespace, "/", route.name])
            }),
            Self::IdentitySet(_) | Self::Namespace(_) => false,
        }
    }
}

/// Whether the action is `request`. The route tells, because it is constant where the request is not.
pub(super) fn is_request(question: &Question<'_>) -> bool {
    question.target.route.is_some()
}

pub(super) fn kind_of(var: Var, question: &Question<'_>) -> Kind {
    match var {
        Var::Principal if question.asker.id.is_some() => Kind::Workload,
        Var::Principal => Kind::Anonymous,
        Var::Action => Kind::Action,
        Var::Resource if is_request(question) => Kind::Route,
        Var::Resource => Kind::Server,
    }
}

/// Whether `var` is the entity `uid`.
pub(super) fn is(var: Var, uid: &Uid, question: &Question<'_>) -> bool {
    if kind_of(var, question) != uid.kind {
        return false;
    }
    match var {
        Var::Principal => match question.asker.id {
            Some(id) => id.as_str() == &*uid.id,
            None if question.asker.tls => &*uid.id == "tls-no-cert",
            None => &*uid.id == "plaintext",
        },
        Var::Action if is_request(question) => &*uid.id == "request",
        Var::Action => &*uid.id == "connect",
        Var::Resource => match question.target.route {
            Some(route) => is_route(&uid.id, &question.target, route),
            None => after_server_id(&uid.id, &question.target) == Some(""),
        },
    }
}

/// What follows the Server's id in `text`.
fn after_server_id<'t>(text: &'t str, target: &Target<'_>) -> Option<&'t str> {
    match target.server {
        Some(name) => after(text, &[target.namespace, "/", name]),
        None => text.strip_prefix("default"),
    }
}

/// `<server id> <kind>/<namespace>/<name>/<rule>`
fn is_route(text: &str, target: &Target<'_>, route: RouteFacts<'_>) -> bool {
    let pieces = [" ", route.kind, "/", route.namespace, "/", route.name, "/"];
    after_server_id(text, target)
        .and_then(|rest| after(rest, &pieces))
        .is_some_and(|rule| is_number(rule, route.rule))
}

/// Whether `text` is the decimal form of `number`.
fn is_number(text: &str, number: u32) -> bool {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    plain && text.parse() == Ok(number)
}

fn is_joined(text: &str, pieces: &[&str]) -> bool {
    after(text, pieces) == Some("")
}

fn after<'t>(text: &'t str, pieces: &[&str]) -> Option<&'t str> {
    pieces
        .iter()
        .try_fold(text, |rest, piece| rest.strip_prefix(*piece))
}
