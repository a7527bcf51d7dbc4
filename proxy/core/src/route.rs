//! Where a request to a Service goes: the routes attached to it, compiled for the clients of one namespace.
//!
//! Matches and their precedence are those of [`mesh_policy::route`], as for routes attached to a Server. What is added
//! here is what a client's proxy does: which routes bear on it, what they change, which backend gets the request.
//!
//! - [`filter`]: changes of headers, host and path, redirects
//! - [`hedge`]: when a second try is made beside the first
//! - [`retry`]: what is tried again, when, and how much of it
//! - [`session`]: how clients come back to the endpoint that they had
//!
//! A rule that cannot be applied in full still takes its requests, and they fail: a mistake in a narrow rule must not
//! hand its requests to a wider one.

pub mod filter;
pub mod hedge;
pub mod retry;
pub mod session;

use filter::{FilterFault, Filters};
use hedge::Hedge;
use mesh_policy::route::{RouteRequest, RouteTable};
use mesh_policy::snapshot::{Route, RouteMatch, RouteRule};
use mesh_policy::traffic::{self, ServiceRoute, ServiceRule, TrafficFilter};
use retry::Retry;
use session::Session;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A port of a Service that requests are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendService {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for BackendService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// The routes that clients of one namespace follow to one Service port.
#[derive(Debug)]
pub struct ServiceRoutes {
    table: RouteTable,
    /// By route, then rule, as the table counts them.
    rules: Vec<Vec<Rule>>,
    services: Vec<BackendService>,
}

/// One rule of a route.
#[derive(Debug)]
pub struct Rule {
    /// `HTTPRoute/<namespace>/<name>`: for metrics and errors.
    pub route: Arc<str>,
    /// Its place in the route.
    pub number: u32,
    /// What it does; an error says why it can do nothing.
    pub plan: Result<Plan, String>,
}

/// What is done with the requests of one rule.
#[derive(Debug)]
pub struct Plan {
    /// Changes and redirects, whatever the backend.
    pub filters: Filters,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// From arrival to the end of the answer's head, all tries together.
    pub request_limit: Option<Duration>,
    /// The same of one try.
    pub try_limit: Option<Duration>,
    /// What is tried again.
    pub retry: Option<Retry>,
    /// When a second try is made beside the first; never where there are sessions, which it would break.
    pub hedge: Option<Hedge>,
    /// How clients come back to the endpoint that they had.
    pub session: Option<Session>,
    backends: Vec<Backend>,
    /// Sum of the weights of `backends`.
    weights: u64,
}

/// Where a share of a rule's requests goes.
#[derive(Debug)]
pub struct Backend {
    /// Its place in [`ServiceRoutes::services`].
    pub service: usize,
    /// [`BackendService`] as text: for metrics and errors.
    pub name: Arc<str>,
    /// What is done to its requests after the rule's filters.
    pub filters: Filters,
    /// Why its requests fail, if they do.
    pub invalid: Option<String>,
    weight: u32,
}

/// Where copies of requests go.
#[derive(Debug)]
pub struct Mirror {
    /// Whom they go to; its weight means nothing.
    pub to: Backend,
    numerator: u32,
    denominator: u32,
}

impl ServiceRoutes {
    /// Compiles those of `routes` that a client in the namespace `client` follows to a Service in the namespace
    /// `service`: its own consumer routes if there are any, otherwise the producer routes. `None` if no route bears on
    /// it: its requests go straight to the endpoints.
    pub fn compile(routes: &[ServiceRoute], service: &str, client: &str) -> Option<Self> {
        let of = |namespace: &str| -> Vec<&ServiceRoute> {
            let all = routes.iter();
            all.filter(|route| route.namespace == namespace).collect()
        };
        let mut followed = of(client);
        if followed.is_empty() {
            followed = of(service);
        }
        if followed.is_empty() {
            return None;
        }
        let matched: Vec<Route> = followed.iter().map(|route| for_matching(route)).collect();
        let (table, problems) = RouteTable::compile(&matched);
        let mut services = Vec::new();
        let rules = (0u32..).zip(&followed).map(|(index, route)| {
            let name: Arc<str> =
                Arc::from(format!("{}/{}/{}", route.kind, route.namespace, route.name));
            let unreadable = problems.iter().find(|problem| problem.route == index);
            let rules = (0u32..).zip(&route.rules).map(|(number, rule)| Rule {
                route: name.clone(),
                number,
                plan: match unreadable {
                    Some(problem) => Err(problem.why.clone()),
                    None => Plan::compile(rule, &mut services).map_err(|fault| fault.to_string()),
                },
            });
            rules.collect()
        });
        Some(Self {
            rules: rules.collect(),
            table,
            services,
        })
    }

    /// The rule that takes a request; `None`: no route wants it.
    pub fn choose(&self, request: &RouteRequest<'_>) -> Option<&Rule> {
        let chosen = self.table.choose(request)?;
        let rules = self.rules.get(usize::try_from(chosen.route).ok()?)?;
        rules.get(usize::try_from(chosen.taken.rule).ok()?)
    }

    /// The Services that rules send to, each once.
    pub fn services(&self) -> &[BackendService] {
        &self.services
    }

    /// Rules that can do nothing, for the log.
    pub fn unusable(&self) -> impl Iterator<Item = (&Rule, &str)> {
        let rules = self.rules.iter().flatten();
        rules.filter_map(|rule| Some((rule, rule.plan.as_ref().err()?.as_str())))
    }
}

/// A route as the table of matches takes it. Routes of a Service have no hostnames: the address that was dialled says
/// which Service is meant (Gateway API, GEP-1426).
fn for_matching(route: &ServiceRoute) -> Route {
    let rules = route.rules.iter().map(|rule| RouteRule {
        matches: rule.matches.clone(),
        filters: Vec::new(),
    });
    Route {
        kind: route.kind.clone(),
        namespace: route.namespace.clone(),
        name: route.name.clone(),
        created: route.created,
        hostnames: Vec::new(),
        rules: rules.collect(),
        invalid: None,
        source: route.source.clone(),
    }
}

impl Plan {
    fn compile(
        rule: &ServiceRule,
        services: &mut Vec<BackendService>,
    ) -> Result<Self, FilterFault> {
        let filters = Filters::compile(&rule.filters, &rule.matches)?;
        let mut mirrors = Vec::new();
        for one in &rule.filters {
            if let TrafficFilter::Mirror {
                to,
                numerator,
                denominator,
            } = one
            {
                mirrors.push(Mirror {
                    to: Backend::compile(to, &rule.matches, services)?,
                    numerator: *numerator,
                    denominator: *denominator,
                });
            }
        }
        let backends = rule
            .backends
            .iter()
            .map(|backend| Backend::compile(backend, &rule.matches, services))
            .collect::<Result<Vec<_>, _>>()?;
        let millis = |limit: Option<u64>| {
            limit
                .filter(|limit| *limit > 0)
                .map(|limit| Duration::from_millis(limit.min(TIMEOUT_MAX_MS)))
        };
        Ok(Self {
            filters,
            mirrors,
            request_limit: millis(rule.timeouts.request_ms),
            try_limit: millis(rule.timeouts.backend_request_ms),
            retry: rule.retry.as_ref().map(Retry::compile),
            hedge: match rule.session {
                None => rule.hedge.as_ref().map(Hedge::compile),
                Some(_) => None,
            },
            session: rule.session.as_ref().map(Session::compile).transpose()?,
            weights: backends
                .iter()
                .map(|backend| u64::from(backend.weight))
                .sum(),
            backends,
        })
    }

    /// Those that a session may lead back to: what has no share is left, and so is what is invalid.
    pub fn kept_backends(&self) -> impl Iterator<Item = &Backend> {
        let all = self.backends.iter();
        all.filter(|backend| backend.weight > 0 && backend.invalid.is_none())
    }

    /// The backend that gets a request, by weight; `random` is 64 fresh random bits. `None`: no backend has a share.
    pub fn backend(&self, random: u64) -> Option<&Backend> {
        let mut at = below(random, self.weights);
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }
}

/// Longest timeout that is kept, 365 days: what is longer is meant as none.
const TIMEOUT_MAX_MS: u64 = 365 * 24 * 3_600_000;

/// A number below `bound`, each as likely; 0 if there is none.
pub(crate) fn below(random: u64, bound: u64) -> u64 {
    let wide = u128::from(random) * u128::from(bound);
    u64::try_from(wide >> 64).unwrap_or_default()
}

impl Backend {
    fn compile(
        data: &traffic::Backend,
        matches: &[RouteMatch],
        services: &mut Vec<BackendService>,
    ) -> Result<Self, FilterFault> {
        let service = BackendService {
            namespace: data.namespace.clone(),
            name: data.name.clone(),
            port: data.port,
        };
        let name = Arc::from(service.to_string());
        let at = services.iter().position(|known| *known == service);
        let at = at.unwrap_or_else(|| {
            services.push(service);
            services.len() - 1
        });
        Ok(Self {
            service: at,
            name,
            filters: Filters::compile(&data.filters, matches)?,
            invalid: data.invalid.clone(),
            weight: data.weight,
        })
    }
}

impl Mirror {
    /// Whether a request is copied; `random` is 64 fresh random bits.
    pub fn wants(&self, random: u64) -> bool {
        let place = below(random, u64::from(self.denominator));
        self.denominator > 0 && place < u64::from(self.numerator)
    }
}

#[cfg(test)]
mod tests;
