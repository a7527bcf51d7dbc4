//! The account of one request: what it asked, who was asked, what was decided and how it ended, for whoever wants to know.
//! Most requests have none, and cost a look at their headers at most; where nobody is to be told, not even that.
//!
//! An account is written by the [`crate::telemetry::Measure`] of its request and told when the last part of the request is
//! over. Telling is an entry in a bounded queue: it waits for nobody, and what finds no room is counted.

use crate::answer::Answer;
use crate::body::Arriving;
use crate::core::Core;
use crate::limits::HEADERS_MAX;
use crate::live::Peer;
use crate::random::Random;
use crate::state::Shared;
use crate::telemetry::Meter;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Version};
use mesh_platform::Tick;
use mesh_policy::decide::{Facts, Verdict};
use mesh_proxy_core::http_hygiene::{Entry, grpc_code, is_grpc};
use mesh_proxy_core::metrics::{Direction, Failure, phase_label};
use mesh_proxy_core::trace::{Context, Said, SpanId, TraceId, said};
use mesh_trust::{SpiffeId, Timestamp};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Fields that a trace adds to a request at most: those of B3.
const TOLD_FIELDS: usize = 2;
/// Bytes of a path or host that are told; clients choose them.
const TEXT_BYTES_MAX: usize = 1_024;

/// Makes the accounts of one core.
pub(crate) struct Accounts {
    traces: Option<Traced>,
}

/// How traces are made.
struct Traced {
    /// Share of requests without a trace for which one begins.
    sample: f64,
    queue: mpsc::Sender<Told>,
    meter: Meter,
}

/// One account that is being written.
pub(crate) struct Account {
    core: Rc<Core>,
    began: Tick,
    told: RefCell<Option<Told>>,
}

/// What became of one request.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its place in a trace.
    pub(crate) place: Place,
    pub(crate) direction: Direction,
    pub(crate) grpc: bool,
    /// The version of HTTP, where it is known.
    pub(crate) version: Option<&'static str>,
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) host: Option<String>,
    /// Who asks, of what comes in.
    pub(crate) client: Option<(IpAddr, Option<SpiffeId>)>,
    /// Port of the workload; or the service that was asked.
    pub(crate) target: String,
    /// Who was to answer, of what goes out.
    pub(crate) server: Option<SpiffeId>,
    pub(crate) started: Timestamp,
    pub(crate) took_us: u64,
    pub(crate) decided: Option<Decided>,
    /// Endpoints that it was sent to, of what goes out.
    pub(crate) tries: u32,
    /// `None`: its client did not wait.
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) failure: Option<&'static str>,
}

/// The place of a request in a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) trace: TraceId,
    pub(crate) own: SpanId,
    pub(crate) parent: Option<SpanId>,
}

/// What was decided about it.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) allowed: bool,
    pub(crate) phase: &'static str,
    /// Of an allow the first grant, of a denial what `mesh_denied_total` calls it.
    pub(crate) reason: String,
    pub(crate) generation: Option<u64>,
    /// Namespace and name of the Server.
    pub(crate) server: Option<String>,
    /// Kind, namespace, name and rule of the route.
    pub(crate) route: Option<String>,
}

impl Accounts {
    pub(crate) fn new(shared: &Shared, meter: &Meter) -> Self {
        let config = shared.config.traces.as_ref();
        let traces = config.zip(shared.traces.as_ref()).map(|(config, queue)| {
            let meter = meter.clone();
            Traced {
                sample: config.sample,
                queue: queue.sender(),
                meter,
            }
        });
        Self { traces }
    }
}

impl Traced {
    /// The place of a request in its trace, if it is sampled; its headers tell the next hop. `begins`: nobody in the mesh saw
    /// it before, so a trace may begin here.
    fn place(&self, random: &Random, headers: &mut HeaderMap, begins: bool) -> Option<Place> {
        // The next hop counts the fields: that a request is traced must not be what makes it one too many.
        if headers.len() + TOLD_FIELDS > HEADERS_MAX {
            return None;
        }
        let drawn = || begins && random.happens(self.sample);
        let context = match said(headers) {
            Said::NotSampled => return None,
            Said::Sampled(context) => context,
            Said::Undecided(context) => drawn().then_some(context)?,
            Said::Nothing => {
                drawn().then_some(())?;
                let [high, low] = [random.next(), random.next()].map(u64::to_be_bytes);
                let mut trace = [0; 16];
                let (first, second) = trace.split_at_mut(8);
                first.copy_from_slice(&high);
                second.copy_from_slice(&low);
                Context::begin(trace)
            }
        };
        let own = random.next().to_be_bytes();
        context.tell(headers, &own);
        Some(Place {
            trace: context.trace,
            own,
            parent: context.parent,
        })
    }
}

impl Account {
    /// Begins the account of a request that came in, if somebody wants it. Headers change here, before they are judged.
    pub(crate) fn inbound(
        core: &Rc<Core>,
        request: &mut Request<Arriving>,
        peer: &Peer,
        entry: Entry,
    ) -> Option<Rc<Self>> {
        let traced = core.accounts.traces.as_ref()?;
        let begins = entry == Entry::Plain;
        let place = traced.place(&core.random, request.headers_mut(), begins)?;
        Some(Self::of(
            core,
            request,
            Told {
                client: Some((peer.client.ip, peer.client.id.clone())),
                version: (entry == Entry::Plain).then(|| version(request.version())),
                ..Told::new(place, Direction::Inbound, peer.port.to_string())
            },
        ))
    }

    /// Begins the account of a request to `service`, if somebody wants it. Headers change here, before they are routed.
    pub(crate) fn outbound(
        core: &Rc<Core>,
        request: &mut Request<Arriving>,
        service: &str,
    ) -> Option<Rc<Self>> {
        let traced = core.accounts.traces.as_ref()?;
        let place = traced.place(&core.random, request.headers_mut(), true)?;
        Some(Self::of(
            core,
            request,
            Told {
                version: Some(version(request.version())),
                ..Told::new(place, Direction::Outbound, service.to_owned())
            },
        ))
    }

    fn of(core: &Rc<Core>, request: &Request<Arriving>, told: Told) -> Rc<Self> {
        let uri = request.uri();
        let named = uri.authority().map(http::uri::Authority::as_str);
        let host = named.or_else(|| request.headers().get(HOST)?.to_str().ok());
        let platform = &core.shared.platform;
        let told = Told {
            grpc: request.version() == Version::HTTP_2 && is_grpc(request.headers()),
            method: request.method().clone(),
            path: cut(uri.path()),
            host: host.map(without_user).map(cut),
            started: platform.wall_clock(),
            ..told
        };
        Rc::new(Self {
            core: core.clone(),
            began: platform.monotonic(),
            told: RefCell::new(Some(told)),
        })
    }

    fn tell(&self, write: impl FnOnce(&mut Told)) {
        if let Some(told) = &mut *self.told.borrow_mut() {
            write(told);
        }
    }

    /// It was decided by policy. `reason`: of a denial, in a word.
    pub(crate) fn decided(&self, facts: &Facts, reason: &str) {
        let allowed = facts.verdict == Verdict::Allow;
        let grant = allowed.then(|| facts.first_reason()).flatten();
        let server = facts.server();
        let server = (!server.default).then(|| format!("{}/{}", server.namespace, server.name));
        let route = facts.route.as_ref().map(|route| {
            format!(
                "{}/{}/{}/{}",
                route.kind, route.namespace, route.name, route.rule
            )
        });
        self.tell(|told| {
            told.decided = Some(Decided {
                allowed,
                phase: phase_label(facts.phase),
                reason: grant.map_or_else(|| reason.to_owned(), |grant| grant.to_string()),
                generation: Some(facts.generation.0),
                server,
                route,
            });
        });
    }

    /// It was denied, before or beside the policy of a Server.
    pub(crate) fn denied(&self, phase: &'static str, reason: &str) {
        self.tell(|told| {
            told.decided = Some(Decided {
                allowed: false,
                phase,
                reason: reason.to_owned(),
                generation: None,
                server: None,
                route: None,
            });
        });
    }

    /// It goes to an endpoint, who must be `server` if it is in the mesh.
    pub(crate) fn endpoint(&self, server: Option<&SpiffeId>) {
        self.tell(|told| told.server = server.cloned());
    }

    /// It was sent.
    pub(crate) fn sent(&self) {
        self.tell(|told| told.tries += 1);
    }

    /// It, or one try of it, failed.
    pub(crate) fn failed(&self, why: Failure) {
        self.tell(|told| told.failure = Some(why.as_str()));
    }

    /// The trailers of its answer.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        self.tell(|told| told.grpc_status = grpc_code(trailers).or(told.grpc_status));
    }
}

/// Writes the head of the answer into the account. A try that failed is nothing where another was answered well.
pub(crate) fn answered(account: Option<Rc<Account>>, answer: Answer) -> Answer {
    if let Some(account) = account {
        account.tell(|told| {
            told.status = Some(answer.status().as_u16());
            told.grpc_status = told.grpc.then(|| grpc_code(answer.headers())).flatten();
            if !answer.status().is_server_error() {
                told.failure = None;
            }
        });
    }
    answer
}

impl Drop for Account {
    fn drop(&mut self) {
        let (Some(mut told), Some(traced)) = (self.told.take(), &self.core.accounts.traces) else {
            return;
        };
        let now = self.core.shared.platform.monotonic();
        told.took_us = now.micros().saturating_sub(self.began.micros());
        if traced.queue.try_send(told).is_err() {
            traced.meter.span_dropped();
        }
    }
}

impl Told {
    fn new(place: Place, direction: Direction, target: String) -> Self {
        Self {
            place,
            direction,
            grpc: false,
            version: None,
            method: Method::GET,
            path: String::new(),
            host: None,
            client: None,
            target,
            server: None,
            started: Timestamp::default(),
            took_us: 0,
            decided: None,
            tries: 0,
            status: None,
            grpc_status: None,
            failure: None,
        }
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// A host without the user and password that some put before it.
fn without_user(host: &str) -> &str {
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// As much of a text as is told.
fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("/a"), "/a");
        assert_eq!(cut(&"x".repeat(5_000)).len(), TEXT_BYTES_MAX);
        let odd = format!("x{}", "é".repeat(2_000));
        assert_eq!(cut(&odd).len(), TEXT_BYTES_MAX - 1);
    }
}
