//! One request to a service that has routes: the rule that takes it, what that changes, the backend that gets it, how
//! long is waited and what is tried again. What is decided is decided by [`mesh_proxy_core::route`].

use super::http::Outgoing;
use super::mirror::Copy;
use super::send::{Failed, Passage, Reply, within};
use super::{By, Listener};
use crate::answer::{Answer, Limit, Trouble, redirect};
use crate::body::{Arriving, Body};
use crate::config::ServiceName;
use crate::core::Core;
use crate::live::Kill;
use crate::replay::Kept;
use crate::serve::http1::OnSwitch;
use crate::telemetry::Meter;
use http::request::Parts;
use http::{Method, Request};
use mesh_policy::route::RouteRequest;
use mesh_proxy_core::http_hygiene::upgrade::restore;
use mesh_proxy_core::http_hygiene::{Admitted, HeaderView, Upgrade, grpc_code, to_app};
use mesh_proxy_core::metrics::Failure;
use mesh_proxy_core::metrics::routes::{RouteKey, Routed};
use mesh_proxy_core::route::filter::{Redirection, canonical_path};
use mesh_proxy_core::route::retry::{Repeatable, TryEnd};
use mesh_proxy_core::route::session::Token;
use mesh_proxy_core::route::{Backend, Plan, Rule, ServiceRoutes};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Routes that requests to one service follow, and the backends they lead to, on one core.
pub(super) struct Routing {
    routes: Arc<ServiceRoutes>,
    /// By their place in [`ServiceRoutes::services`]. Weak: two services may send to each other.
    backends: RefCell<Vec<Weak<Listener>>>,
    /// Under which a request is counted that no rule took.
    unrouted: RouteKey,
}

impl Routing {
    /// Nobody was sent to `service` by them yet.
    pub(super) fn new(routes: Arc<ServiceRoutes>, service: &str) -> Self {
        let unknown = routes.services().iter().map(|_| Weak::new());
        let none: Arc<str> = Arc::from("none");
        Self {
            unrouted: RouteKey {
                service: Arc::from(service),
                route: none.clone(),
                rule: 0,
                backend: none,
            },
            backends: RefCell::new(unknown.collect()),
            routes,
        }
    }

    /// Whether it is of these routes.
    pub(super) fn follows(&self, routes: &Arc<ServiceRoutes>) -> bool {
        Arc::ptr_eq(&self.routes, routes)
    }

    /// Whom a backend is reached by. Backends share balancers and connections with whatever else leads to their service.
    fn listener(&self, call: &Outgoing<'_>, backend: &Backend) -> Option<Rc<Listener>> {
        let known = self.backends.borrow().get(backend.service)?.upgrade();
        if known.is_some() {
            return known;
        }
        let service = self.routes.services().get(backend.service)?;
        let listener = if call
            .listener
            .is_to(&service.namespace, &service.name, service.port)
        {
            call.listener.clone()
        } else {
            call.core.destinations.service(ServiceName {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                port: service.port,
            })
        };
        if let Some(place) = self.backends.borrow_mut().get_mut(backend.service) {
            *place = Rc::downgrade(&listener);
        }
        Some(listener)
    }

    /// The backend that has the endpoint of a session, if that may be had.
    fn holder<'p>(&self, call: &Outgoing<'_>, plan: &'p Plan, token: Token) -> Option<&'p Backend> {
        let mut backends = plan.kept_backends();
        backends.find(|backend| {
            let listener = self.listener(call, backend);
            listener.is_some_and(|listener| listener.holds(call.core, token))
        })
    }

    fn choose(&self, parts: &Parts) -> Option<&Rule> {
        self.routes.choose(&RouteRequest {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            host: None,
            headers: &HeaderView(&parts.headers),
        })
    }
}

/// A request counted when it is over, or when its client has left.
struct Count {
    meter: Meter,
    key: RouteKey,
    routed: Routed,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.meter.routed(&self.key, self.routed);
    }
}

/// Answers one admitted request by the routes of its service.
pub(super) async fn answer(
    call: &Outgoing<'_>,
    routing: &Routing,
    parts: Parts,
    body: Arriving,
    upgrade: Option<(Upgrade, OnSwitch)>,
) -> Result<Answer, Failed> {
    let mut count = Count {
        meter: call.core.meter.clone(),
        key: routing.unrouted.clone(),
        routed: Routed::default(),
    };
    let started_us = call.core.now_us();
    let result = follow(call, routing, parts, body, upgrade, &mut count).await;
    count.routed.duration_us = Some(call.core.now_us().saturating_sub(started_us));
    count.routed.status = Some(match &result {
        Ok(answer) => answer.status().as_u16(),
        Err(failed) => failed.status().as_u16(),
    });
    result
}

async fn follow(
    call: &Outgoing<'_>,
    routing: &Routing,
    mut parts: Parts,
    body: Arriving,
    upgrade: Option<(Upgrade, OnSwitch)>,
    count: &mut Count,
) -> Result<Answer, Failed> {
    let arrived = Instant::now();
    parts.extensions.clear();
    canonical_path(&mut parts)?;
    let rule = routing.choose(&parts).ok_or_else(|| Trouble::NoRoute {
        service: call.listener.name.clone(),
    })?;
    count.key.route = rule.route.clone();
    count.key.rule = rule.number;
    let plan = rule.plan.as_ref().map_err(|why| Trouble::UnusableRoute {
        route: rule.route.to_string(),
        rule: rule.number,
        why: why.clone(),
    })?;
    let mut admitted = call.admitted.clone();
    let (_, port) = call.listener.place(&call.core.shared.config.namespace);
    let now = || call.core.shared.platform.wall_clock();
    // Before filters, which may take away what the client says.
    let asked = plan.session.as_ref();
    let asked = asked.and_then(|session| session.asked(&parts.headers, now));
    if let Some(to) = plan.filters.apply(&mut parts, &mut admitted, port)? {
        return Ok(redirected(&to));
    }
    let had = asked.and_then(|token| routing.holder(call, plan, token));
    let backend = match had {
        Some(backend) => backend,
        None => backend(call, rule, plan)?,
    };
    count.key.backend = backend.name.clone();
    let copies = match upgrade {
        Some(_) => Vec::new(),
        None => copies(call, routing, plan, &parts, &admitted),
    };
    if let Some(to) = backend.filters.apply(&mut parts, &mut admitted, port)? {
        return Ok(redirected(&to));
    }
    let to = routing
        .listener(call, backend)
        .ok_or_else(|| Trouble::NoEndpoint {
            service: backend.name.to_string(),
        })?;
    let mut way = Way {
        passage: Passage {
            by: match &plan.session {
                None => {
                    to.refresh(call.core);
                    to.by(call.core, &parts.headers)
                }
                Some(_) => By::Session(asked.filter(|_| had.is_some())),
            },
            ..call.to(&to)
        },
        plan,
        admitted,
        deadline: sooner(plan.request_limit.map(|limit| arrived + limit), call.due),
        count,
    };
    let (mut answer, token) = match upgrade {
        Some((upgrade, upgrading)) => way.tunnel(call, parts, upgrade, upgrading).await?,
        None => {
            let reply = way.exchange(parts, body, copies).await?;
            let token = reply.token;
            (call.respond(reply), token)
        }
    };
    plan.filters.apply_to_answer(answer.headers_mut());
    backend.filters.apply_to_answer(answer.headers_mut());
    if let (Some(session), Some(token)) = (&plan.session, token)
        && asked != Some(token)
    {
        session.tell(answer.headers_mut(), token, now);
    }
    Ok(answer)
}

/// The backend that gets this request.
fn backend<'r>(call: &Outgoing<'_>, rule: &Rule, plan: &'r Plan) -> Result<&'r Backend, Trouble> {
    let backend = plan.backend(call.core.random.next());
    let backend = backend.ok_or_else(|| Trouble::NoBackend {
        route: rule.route.to_string(),
        rule: rule.number,
    })?;
    match &backend.invalid {
        None => Ok(backend),
        Some(why) => Err(Trouble::InvalidBackend {
            backend: backend.name.to_string(),
            route: rule.route.to_string(),
            why: why.clone(),
        }),
    }
}

fn redirected(to: &Redirection) -> Answer {
    // INVARIANT: a location is made of text.
    redirect(to.status.as_u16(), to.location.to_str().unwrap_or_default())
}

/// The copies that the rule wants of this request, as its filters left it.
fn copies(
    call: &Outgoing<'_>,
    routing: &Routing,
    plan: &Plan,
    parts: &Parts,
    admitted: &Admitted,
) -> Vec<Copy> {
    let wanted = plan.mirrors.iter();
    let wanted = wanted.filter(|mirror| mirror.wants(call.core.random.next()));
    let copies = wanted.filter_map(|mirror| {
        let to = match mirror.to.invalid {
            None => routing.listener(call, &mirror.to),
            Some(_) => None,
        };
        let (mut parts, mut admitted) = (parts.clone(), admitted.clone());
        let (_, port) = call.listener.place(&call.core.shared.config.namespace);
        let onward = mirror.to.filters.apply(&mut parts, &mut admitted, port);
        match (to, onward) {
            (Some(to), Ok(None)) => Some(Copy::new(call.core, to, admitted, parts)),
            _ => {
                call.core.meter.mirrored(Some("invalid"));
                None
            }
        }
    });
    copies.collect()
}

/// The one that comes first.
fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A request on its way to the backend that was drawn for it.
pub(super) struct Way<'a> {
    pub(super) passage: Passage<'a>,
    pub(super) plan: &'a Plan,
    pub(super) admitted: Admitted,
    /// When the whole of it is over: by the rule, or by what its client said.
    deadline: Option<Instant>,
    count: &'a mut Count,
}

/// The body of a request, for as many tries as it can be had.
pub(super) enum Bodies {
    Empty,
    Once(Option<Arriving>),
    Kept(Kept),
}

impl Bodies {
    pub(super) fn next(&mut self) -> Body {
        match self {
            Self::Empty => Body::Empty,
            Self::Once(body) => body
                .take()
                .map_or(Body::Empty, |body| Body::request(body, Kill::default())),
            Self::Kept(kept) => kept.begin(),
        }
    }

    fn can_repeat(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(_) => false,
            Self::Kept(kept) => kept.can_repeat(),
        }
    }
}

impl Way<'_> {
    /// Tries until there is an answer to be passed on, or nothing more to be tried.
    async fn exchange(
        &mut self,
        parts: Parts,
        body: Arriving,
        copies: Vec<Copy>,
    ) -> Result<Reply, Failed> {
        let mut bodies = self.bodies(body, copies);
        self.passage.to.count_request(self.passage.core);
        let mut tries = 0;
        loop {
            tries += 1;
            let until = self.until();
            let sent = match self.hedge(tries, &parts.method) {
                None => {
                    let (head, body) = (parts.clone(), bodies.next());
                    self.passage.send(head, body, &self.admitted, until).await
                }
                // Boxed: two tries need twice the room.
                Some(hedge) => Box::pin(self.hedged(&parts, &mut bodies, until, hedge)).await,
            };
            let sent = sent.map_err(|failed| self.timed(failed));
            let Some(wait) = self.wait_before_next(tries, &sent, &bodies, &parts.method) else {
                return sent;
            };
            if let Ok(reply) = sent
                && let Some(measure) = &reply.held.measure
            {
                measure.answered_with(reply.parts.status); // nobody else will see it
            }
            self.count.routed.retries += 1;
            // An endpoint that is the request's own had its chance.
            self.passage.by = match self.passage.by {
                By::Session(_) => By::Session(None),
                By::Load | By::Other(_) | By::Key(_) => By::Load,
            };
            sleep(wait).await;
        }
    }

    /// Keeps the body where it may be needed again, and sends the copies once all of it is there.
    fn bodies(&self, body: Arriving, copies: Vec<Copy>) -> Bodies {
        if body.is_end_stream() {
            copies.into_iter().for_each(|copy| copy.send(None));
            return Bodies::Empty;
        }
        let again = self.plan.retry.is_some() || self.plan.hedge.is_some();
        if copies.is_empty() && !again {
            return Bodies::Once(Some(body));
        }
        let kept = Kept::new(body);
        for copy in copies {
            kept.when_whole(Box::new(|whole| match whole {
                Ok(body) => copy.send(Some(body)),
                Err(why) => copy.dropped(why.as_str()),
            }));
        }
        Bodies::Kept(kept)
    }

    /// When this try is over.
    fn until(&self) -> Option<Instant> {
        let of_try = self.plan.try_limit.map(|limit| Instant::now() + limit);
        sooner(of_try, self.deadline)
    }

    /// Counts a try that was late, and says which limit it was.
    fn timed(&mut self, failed: Failed) -> Failed {
        match failed {
            Failed::Trouble(Trouble::TimedOut {
                service,
                limit,
                sent,
            }) => {
                self.count.routed.timeouts += 1;
                let whole = limit != Limit::Client && self.is_over(Duration::ZERO);
                let limit = if whole { Limit::Request } else { limit };
                Failed::Trouble(Trouble::TimedOut {
                    service,
                    limit,
                    sent,
                })
            }
            Failed::Trouble(Trouble::NoTimeLeft) => {
                self.count.routed.timeouts += 1;
                failed
            }
            other => other,
        }
    }

    /// Whether the whole request's limit is over by then.
    fn is_over(&self, wait: Duration) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() + wait >= deadline)
    }

    /// How long to wait before the next try; `None`: there is none.
    fn wait_before_next(
        &self,
        tries: u32,
        sent: &Result<Reply, Failed>,
        bodies: &Bodies,
        method: &Method,
    ) -> Option<Duration> {
        let retry = self.plan.retry.as_ref()?;
        let grpc = self.admitted.grpc;
        let end = match sent {
            Ok(reply) => TryEnd::Answered {
                status: reply.parts.status.as_u16(),
                grpc: grpc_code(&reply.parts.headers),
            },
            Err(Failed::Refused(_))
            | Err(Failed::Trouble(Trouble::NoIdentity { .. } | Trouble::NoTimeLeft)) => {
                return None;
            }
            Err(Failed::Trouble(trouble)) => TryEnd::Failed {
                status: trouble.status().as_u16(),
                grpc: u16::from(trouble.grpc_status()),
                sent: trouble.may_be_served(),
            },
        };
        let request = Repeatable {
            idempotent: method.is_idempotent(),
            grpc,
        };
        if !retry.wants(tries, end, request) {
            return None;
        }
        let core = self.passage.core;
        if !bodies.can_repeat() {
            core.meter.retry_refused("body");
            return None;
        }
        let wait = Duration::from_micros(retry.wait_us(tries, core.random.next()));
        if self.is_over(wait) {
            core.meter.retry_refused("time");
            return None;
        }
        if !self.passage.to.take_retry(core) {
            core.meter.retry_refused("budget");
            return None;
        }
        Some(wait)
    }

    /// An upgrade follows routes like any request; it is tried once.
    async fn tunnel(
        &mut self,
        call: &Outgoing<'_>,
        mut parts: Parts,
        upgrade: Upgrade,
        upgrading: OnSwitch,
    ) -> Result<(Answer, Option<Token>), Failed> {
        to_app(&mut parts, &self.admitted, None)?;
        restore(&mut parts, upgrade);
        let request = Request::from_parts(parts, Body::Empty);
        let outside = self.passage.outside_drawn();
        let opened = within(self.until(), async {
            match &outside {
                Some(outside) => self.passage.open_outside(request, outside).await,
                None => self.passage.open(request).await,
            }
        });
        match opened.await {
            Some(opened) => {
                let opened = opened?;
                let token = opened.token;
                Ok((call.switch(opened, upgrade, upgrading), token))
            }
            None => {
                self.passage.measure(None).failed(Failure::Timeout);
                Err(self.timed(Failed::Trouble(self.passage.late(true))))
            }
        }
    }
}

impl Listener {
    /// Counts a request, which earns retries for its service.
    fn count_request(&self, core: &Core) {
        self.retries.borrow_mut().on_request(core.now_us());
    }

    /// Takes a retry out of the budget of the service, if there is one left.
    pub(super) fn take_retry(&self, core: &Core) -> bool {
        self.retries.borrow_mut().take(core.now_us())
    }
}
