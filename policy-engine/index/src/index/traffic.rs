//! Routes attached to Services: which ports of which Services take them, and where their requests may go.
//!
//! A backend that does not exist, or that may not be referred to, keeps its share of the requests and answers them with an
//! error (Gateway API): a typing error must not move traffic elsewhere unseen. A route that is invalid, or whose parent
//! does not exist, is accepted by nobody; requests go as they would without it.

use super::Index;
use super::patience::{self, Patience};
use super::routes::canonical_path;
use crate::finding::Code;
use crate::limits::SERVICE_ROUTES_MAX;
use crate::manifest::resource::{Key, Object, Route, Rule, Service, ServicePort};
use crate::manifest::traffic::{BackendRef, OutboundFilter, ServiceParent, SessionPersistence};
use mesh_policy::snapshot::{PathMatch, PathOptions, RouteMatch};
use mesh_policy::traffic::{
    Backend, ServiceRoute, ServiceRule, Session, SessionCarrier, TrafficFilter,
};

/// Kind of the route that stands for what a Service's own annotations ask for.
const SERVICE_KIND: &str = "Service";

/// Why a backend gets no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// It is no Service.
    Kind,
    /// It is in another namespace, and no ReferenceGrant there names it.
    NotPermitted,
    /// There is no such Service.
    NoService,
    /// The Service has no such port.
    NoPort,
    /// The Service cannot be read.
    InvalidService,
}

impl Unresolved {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Kind => Code::BackendKind,
            Self::NotPermitted => Code::BackendNotPermitted,
            Self::NoService | Self::NoPort | Self::InvalidService => Code::BackendMissing,
        }
    }

    /// What is wrong with `backend`, as a sentence.
    pub(super) fn message(&self, backend: &BackendRef) -> String {
        let Key { namespace, name } = &backend.key;
        let port = backend.port.unwrap_or_default();
        match self {
            Self::Kind => {
                let (kind, group) = (&backend.kind, &backend.group);
                let of = if group.is_empty() {
                    "the core group".to_owned()
                } else {
                    format!("group `{group}`")
                };
                format!("backend `{namespace}/{name}` is a `{kind}` of {of}, and no Service")
            }
            Self::NotPermitted => format!(
                "backend `{namespace}/{name}` is in another namespace, and no ReferenceGrant of `{namespace}` permits it"
            ),
            Self::NoService => format!("there is no Service `{namespace}/{name}` for a backend"),
            Self::NoPort => {
                format!("Service `{namespace}/{name}`, which is a backend, has no TCP port {port}")
            }
            Self::InvalidService => {
                format!("Service `{namespace}/{name}`, which is a backend, is invalid")
            }
        }
    }
}

/// Why a Service does not take a route that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAttached {
    /// There is no such Service.
    NoService,
    /// It cannot be read.
    InvalidService,
    /// Clients dial its pods.
    Headless,
    /// It has no port of this number and name.
    NoPort,
    /// Older routes fill every port that the route is for.
    Full,
}

impl NotAttached {
    pub(super) fn message(&self, parent: &ServiceParent) -> String {
        let Key { namespace, name } = &parent.key;
        match self {
            Self::NoService => format!("there is no Service `{namespace}/{name}` to attach to"),
            Self::InvalidService => format!("Service `{namespace}/{name}` is invalid"),
            Self::Headless => format!(
                "Service `{namespace}/{name}` is headless: clients dial its pods, and no route applies"
            ),
            Self::NoPort => {
                let port = parent.port.map(|port| format!(" {port}"));
                let section = parent.section.as_ref();
                let section = section.map(|section| format!(" of the name `{section}`"));
                format!(
                    "Service `{namespace}/{name}` has no TCP port{}{}",
                    port.unwrap_or_default(),
                    section.unwrap_or_default()
                )
            }
            Self::Full => format!(
                "the ports of Service `{namespace}/{name}` have {SERVICE_ROUTES_MAX} older routes each, which is the limit"
            ),
        }
    }
}

impl Index {
    /// Routes attached to a port of a Service: the older, then namespace and name.
    pub(super) fn routes_of(
        &self,
        service: &Object<Service>,
        port: &ServicePort,
    ) -> Vec<ServiceRoute> {
        let own = Patience::of(&service.annotations);
        let attached = self.attached(service, port).take(SERVICE_ROUTES_MAX);
        let mut out: Vec<ServiceRoute> = attached
            .map(|route| self.service_route(route, service, port, &own))
            .collect();
        let producers = |route: &ServiceRoute| route.namespace == service.key.namespace;
        if own.asks() && !out.iter().any(producers) {
            out.push(own_route(service, port, &own));
        }
        out
    }

    /// Valid routes that name a port of a Service, oldest first.
    fn attached<'i>(
        &'i self,
        service: &'i Object<Service>,
        port: &'i ServicePort,
    ) -> impl Iterator<Item = &'i Object<Route>> {
        let headless = service.spec.headless;
        self.service_routes
            .get(&service.key)
            .into_iter()
            .flatten()
            .filter_map(|at| self.resources.routes.get(*at))
            .map(AsRef::as_ref)
            .filter(move |route| {
                let takes = |parent: &ServiceParent| {
                    parent.key == service.key && parent.takes(port.port, port.name.as_deref())
                };
                !headless && route.invalid.is_none() && route.spec.services.iter().any(takes)
            })
    }

    /// Whether a parent takes a route.
    pub(super) fn attaches(
        &self,
        route: &Object<Route>,
        parent: &ServiceParent,
    ) -> Result<(), NotAttached> {
        let service = self.service(&parent.key).ok_or(NotAttached::NoService)?;
        if service.invalid.is_some() {
            return Err(NotAttached::InvalidService);
        }
        if service.spec.headless {
            return Err(NotAttached::Headless);
        }
        let ports = service.spec.ports.iter();
        let mut ports = ports
            .filter(|port| parent.takes(port.port, port.name.as_deref()))
            .peekable();
        if ports.peek().is_none() {
            return Err(NotAttached::NoPort);
        }
        // An invalid route is accepted by nobody, and for another reason.
        let mut has_room = ports.map(|port| {
            let older = self.attached(service, port);
            let older = older.take_while(|one| !std::ptr::eq(*one, route));
            older.take(SERVICE_ROUTES_MAX).count() < SERVICE_ROUTES_MAX
        });
        if route.invalid.is_none() && !has_room.any(|room| room) {
            return Err(NotAttached::Full);
        }
        Ok(())
    }

    /// Whether a route, as far as it is attached to `parents`, may send requests to a backend.
    pub(super) fn resolves<'k>(
        &self,
        route: &Object<Route>,
        parents: impl IntoIterator<Item = &'k Key>,
        backend: &BackendRef,
    ) -> Result<(), Unresolved> {
        if !backend.is_service() {
            return Err(Unresolved::Kind);
        }
        // Before anything is said of what is there: who may not refer to it need not learn it.
        let own = backend.key.namespace == route.key.namespace;
        // Requests go to the parent anyway; a consumer route needs nobody's leave for that.
        let mut parents = parents.into_iter();
        if !own && !parents.all(|parent| *parent == backend.key) && !self.permits(route, backend) {
            return Err(Unresolved::NotPermitted);
        }
        let service = self.service(&backend.key).ok_or(Unresolved::NoService)?;
        if service.invalid.is_some() {
            return Err(Unresolved::InvalidService);
        }
        let has = |port: u16| service.spec.ports.iter().any(|one| one.port == port);
        if backend.port.is_some_and(has) {
            Ok(())
        } else {
            Err(Unresolved::NoPort)
        }
    }

    fn service(&self, key: &Key) -> Option<&Object<Service>> {
        let at = self.services.get(key)?;
        self.resources.services.get(*at).map(AsRef::as_ref)
    }

    fn permits(&self, route: &Object<Route>, backend: &BackendRef) -> bool {
        let from = (route.group, route.kind, &*route.key.namespace);
        self.reference_grants
            .get(&backend.key.namespace)
            .into_iter()
            .flatten()
            .filter_map(|at| self.resources.reference_grants.get(*at))
            .any(|grant| grant.invalid.is_none() && grant.spec.lets(from, &backend.key.name))
    }

    fn service_route(
        &self,
        route: &Object<Route>,
        service: &Object<Service>,
        port: &ServicePort,
        of_service: &Patience,
    ) -> ServiceRoute {
        let own = Patience::of(&route.annotations);
        let rule = |(number, rule): (usize, &Rule)| {
            let outbound = &rule.outbound;
            let filters = self.filters(route, service, &outbound.filters);
            let redirects = filters
                .iter()
                .any(|filter| matches!(filter, TrafficFilter::Redirect { .. }));
            let backends = match &outbound.backends {
                _ if redirects => Vec::new(),
                Some(backends) => backends
                    .iter()
                    .map(|backend| self.backend(route, service, backend))
                    .collect(),
                None => vec![itself(service, port)],
            };
            let (timeouts, retry) = (outbound.timeouts, outbound.retry.clone());
            let grpc = route.kind == "GRPCRoute";
            let (timeouts, retry) = patience::merge(&own, (timeouts, retry), of_service, grpc);
            ServiceRule {
                matches: rule.matches.iter().map(canonical_match).collect(),
                filters,
                backends,
                timeouts,
                retry,
                hedge: own.hedge(of_service),
                session: outbound
                    .session
                    .as_ref()
                    .map(|session| session_of(session, route, number, &rule.matches)),
            }
        };
        ServiceRoute {
            kind: route.kind.to_owned(),
            namespace: route.key.namespace.clone(),
            name: route.key.name.clone(),
            created: route.created.time(),
            rules: route.spec.rules.iter().enumerate().map(rule).collect(),
            source: route.source.clone(),
        }
    }

    fn backend(
        &self,
        route: &Object<Route>,
        service: &Object<Service>,
        backend: &BackendRef,
    ) -> Backend {
        let unresolved = self.resolves(route, [&service.key], backend).err();
        Backend {
            namespace: backend.key.namespace.clone(),
            name: backend.key.name.clone(),
            port: backend.port.unwrap_or_default(),
            weight: backend.weight,
            filters: self.filters(route, service, &backend.filters),
            invalid: unresolved.map(|why| why.message(backend)),
        }
    }

    fn filters(
        &self,
        route: &Object<Route>,
        service: &Object<Service>,
        filters: &[OutboundFilter],
    ) -> Vec<TrafficFilter> {
        let filters = filters.iter().map(|filter| match filter {
            OutboundFilter::Plain(filter) => filter.clone(),
            OutboundFilter::Mirror {
                to,
                numerator,
                denominator,
            } => TrafficFilter::Mirror {
                to: self.backend(route, service, to),
                numerator: *numerator,
                denominator: *denominator,
            },
        });
        filters.collect()
    }
}

/// A rule's sessions, with a name and a path where the rule says none.
fn session_of(
    session: &SessionPersistence,
    route: &Object<Route>,
    number: usize,
    matches: &[RouteMatch],
) -> Session {
    // A hash: what routes are called is no business of whoever gets the cookie.
    let made = || {
        let Key { namespace, name } = &route.key;
        let place = format!("{}/{namespace}/{name}/{number}", route.kind);
        let hash = place.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        match session.carrier {
            SessionCarrier::Cookie => format!("mesh-session-{hash:016x}"),
            SessionCarrier::Header => format!("x-session-{hash:016x}"),
        }
    };
    let path = match matches {
        [one] => match &one.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str(),
            PathMatch::Regex(_) | PathMatch::Rpc { .. } => "/",
        },
        _ => "/",
    };
    Session {
        name: session.name.clone().unwrap_or_else(made),
        carrier: session.carrier,
        path: path.to_owned(),
        lives_secs: session.lives_secs,
        permanent: session.permanent,
    }
}

/// Paths as requests have them when they are matched.
fn canonical_match(one: &RouteMatch) -> RouteMatch {
    let mut one = one.clone();
    if let PathMatch::Exact(path) | PathMatch::Prefix(path) = &mut one.path
        && let Some(canonical) = canonical_path(path, PathOptions::default())
    {
        *path = canonical;
    }
    one
}

/// The port that requests were sent to, as the backend of a rule that names none.
fn itself(service: &Object<Service>, port: &ServicePort) -> Backend {
    Backend {
        namespace: service.key.namespace.clone(),
        name: service.key.name.clone(),
        port: port.port,
        weight: 1,
        filters: Vec::new(),
        invalid: None,
    }
}

/// What a Service's annotations ask for where no producer route says where its requests go.
fn own_route(service: &Object<Service>, port: &ServicePort, own: &Patience) -> ServiceRoute {
    let (timeouts, retry) = patience::own(own);
    ServiceRoute {
        kind: SERVICE_KIND.to_owned(),
        namespace: service.key.namespace.clone(),
        name: service.key.name.clone(),
        created: service.created.time(),
        rules: vec![ServiceRule {
            matches: vec![RouteMatch {
                path: PathMatch::Prefix("/".to_owned()),
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
            }],
            filters: Vec::new(),
            backends: vec![itself(service, port)],
            timeouts,
            retry,
            hedge: own.hedge(&Patience::default()),
            session: None,
        }],
        source: service.source.clone(),
    }
}
