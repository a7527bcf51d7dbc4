//! What a route says about the requests of clients, as it is written: which Services it is for, where it sends them.
//!
//! Whether a Service exists, and may be referred to, is the index's to say ([`crate::index`]).

use super::resource::Key;
use mesh_policy::snapshot::Source;
use mesh_policy::traffic::{Retry, SessionCarrier, Timeouts, TrafficFilter};

/// A Service that a route attaches to, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceParent {
    /// `core` or empty, as it is written: a status repeats it.
    pub(crate) group: String,
    /// The Service. In another namespace than the route's: a consumer route.
    pub(crate) key: Key,
    /// Whether its namespace is written.
    pub(crate) namespace_written: bool,
    /// The port; none: all.
    pub(crate) port: Option<u16>,
    /// Name of the port; where both are given, both must fit.
    pub(crate) section: Option<String>,
    /// Where it is written.
    pub(crate) source: Source,
}

impl ServiceParent {
    /// Whether it means this port.
    pub(crate) fn takes(&self, port: u16, name: Option<&str>) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
            && self
                .section
                .as_deref()
                .is_none_or(|wanted| Some(wanted) == name)
    }
}

/// A port of an EgressNetwork that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EgressParent {
    /// The EgressNetwork.
    pub(crate) key: Key,
    /// Whether its namespace is written: a status repeats it.
    pub(crate) namespace_written: bool,
    /// The port that is dialled.
    pub(crate) port: u16,
    /// Where it is written.
    pub(crate) source: Source,
}

/// A Server that a route attaches to, in the route's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerParent {
    /// The Server.
    pub(crate) name: String,
    /// Whether its namespace is written: a status repeats it.
    pub(crate) namespace_written: bool,
    /// Where it is written.
    pub(crate) source: Source,
}

/// What one rule of a route does with requests of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outbound {
    pub(crate) filters: Vec<OutboundFilter>,
    /// `None`: not given; requests go where they were going, to the Service itself (as with Linkerd).
    pub(crate) backends: Option<Vec<BackendRef>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<Retry>,
    pub(crate) session: Option<SessionPersistence>,
}

/// `sessionPersistence` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionPersistence {
    /// `None`: one is made of the rule's place.
    pub(crate) name: Option<String>,
    pub(crate) carrier: SessionCarrier,
    pub(crate) lives_secs: Option<u32>,
    pub(crate) permanent: bool,
}

impl Outbound {
    /// Everything that it names: backends, and mirrors of its own and of backends.
    pub(crate) fn backend_refs(&self) -> Vec<&BackendRef> {
        fn mirrors(filters: &[OutboundFilter]) -> impl Iterator<Item = &BackendRef> {
            filters.iter().filter_map(|filter| match filter {
                OutboundFilter::Mirror { to, .. } => Some(to),
                OutboundFilter::Plain(_) => None,
            })
        }
        let mut out: Vec<&BackendRef> = mirrors(&self.filters).collect();
        for backend in self.backends.iter().flatten() {
            out.push(backend);
            out.extend(mirrors(&backend.filters));
        }
        out
    }
}

/// A filter whose mirror is not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutboundFilter {
    /// One that names no backend.
    Plain(TrafficFilter),
    /// A copy of some requests.
    Mirror {
        to: BackendRef,
        numerator: u32,
        denominator: u32,
    },
}

/// A backend, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendRef {
    /// Empty: the core group.
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) key: Key,
    /// Always given for a Service.
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) filters: Vec<OutboundFilter>,
    pub(crate) source: Source,
}

impl BackendRef {
    /// Whether it is a Service.
    pub(crate) fn is_service(&self) -> bool {
        self.group.is_empty() && self.kind == "Service"
    }
}

/// A ReferenceGrant: who may refer from elsewhere to what is in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReferenceGrant {
    pub(crate) from: Vec<GrantedFrom>,
    pub(crate) to: Vec<GrantedTo>,
}

/// Objects that may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantedFrom {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantedTo {
    pub(crate) group: String,
    pub(crate) kind: String,
    /// `None`: all of the kind.
    pub(crate) name: Option<String>,
}

impl ReferenceGrant {
    /// Whether routes of this group, kind and namespace may name this Service as a backend.
    pub(crate) fn lets(&self, from: (&str, &str, &str), service: &str) -> bool {
        let from_fits = |one: &GrantedFrom| (&*one.group, &*one.kind, &*one.namespace) == from;
        let to_fits = |one: &GrantedTo| {
            one.group.is_empty()
                && one.kind == "Service"
                && one.name.as_ref().is_none_or(|name| name == service)
        };
        self.from.iter().any(from_fits) && self.to.iter().any(to_fits)
    }
}
