//! The account of one request, or of one byte stream: what it asked, who was asked, what was decided and how it ended, for
//! whoever wants to know: a collector of spans ([`crate::traces`]), or somebody who looks ([`crate::tap`]). Most requests have
//! none, and cost a look at their headers at most; where nobody is to be told, not even that.
//!
//! An account is written by the [`crate::telemetry::Measure`] of its request and told when the last part of the request is
//! over. Telling is an entry in a bounded queue: it waits for nobody, and what finds no room is counted.

use crate::answer::Answer;
use crate::body::Arriving;
use crate::core::Core;
use crate::limits::HEADERS_MAX;
use crate::live::{End, Peer};
use crate::random::Random;
use crate::state::Shared;
use crate::tap::{Asked, Line, Tap, Way};
use crate::telemetry::Meter;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Uri, Version};
use mesh_api::tap::HEADERS_TOLD;
use mesh_platform::Tick;
use mesh_policy::decide::{Facts, Phase, Verdict};
use mesh_policy::record::RecordRequest;
use mesh_policy::request::{Client, Protocol};
use mesh_proxy_core::http_hygiene::{Entry, Refusal, RequestRefusal, grpc_code, is_grpc};
use mesh_proxy_core::metrics::{Direction, Failure, phase_label};
use mesh_proxy_core::trace::{Context, Said, SpanId, TraceId, said};
use mesh_trust::{SpiffeId, Timestamp};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Fields that a trace adds to a request at most: those of B3.
const TOLD_FIELDS: usize = 2;
/// Bytes of a path or host that are told; clients choose them.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of a method that is told although its request was refused as bytes.
const METHOD_BYTES_MAX: usize = 32;
/// Bytes of a header that are told.
const HEADER_BYTES_MAX: usize = 256;

/// Makes the accounts of one core.
pub(crate) struct Accounts {
    traces: Option<Rc<Traced>>,
}

/// How traces are made.
struct Traced {
    /// Share of requests without a trace for which one begins.
    sample: f64,
    queue: mpsc::Sender<Arc<Told>>,
    meter: Meter,
}

/// One account that is being written.
pub(crate) struct Account {
    shared: Arc<Shared>,
    began: Tick,
    told: RefCell<Option<Told>>,
    /// Where its span goes, if it is sampled.
    traced: Option<Rc<Traced>>,
    /// Who looks at it.
    taps: Vec<Arc<Tap>>,
}

/// What became of one request, or byte stream.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its place in a trace, if it is sampled.
    pub(crate) place: Option<Place>,
    pub(crate) direction: Direction,
    /// Of a byte stream, which has nothing that only requests have.
    pub(crate) stream: Option<Carried>,
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
    /// It was ended from here, and that is why it failed.
    pub(crate) ended: bool,
    /// Those that may be told, if somebody looks.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Bytes of a byte stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) from_client: u64,
    pub(crate) to_client: u64,
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
            Rc::new(Traced {
                sample: config.sample,
                queue: queue.sender(),
                meter,
            })
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
        core: &Core,
        request: &mut Request<Arriving>,
        peer: &Peer,
        entry: Entry,
    ) -> Option<Rc<Self>> {
        Self::begin(core, request, entry == Entry::Plain, to_port(peer))
    }

    /// Begins the account of a request to `service`, if somebody wants it. Headers change here, before they are routed.
    pub(crate) fn outbound(
        core: &Core,
        request: &mut Request<Arriving>,
        service: &str,
    ) -> Option<Rc<Self>> {
        Self::begin(core, request, true, to_service(service))
    }

    /// `plain`: it comes from no other proxy, so a trace may begin here, and its version of HTTP is what its client speaks.
    fn begin(
        core: &Core,
        request: &mut Request<Arriving>,
        plain: bool,
        (way, client): Whose<'_>,
    ) -> Option<Rc<Self>> {
        let traces = core.accounts.traces.as_ref();
        let place =
            traces.and_then(|traced| traced.place(&core.random, request.headers_mut(), plain));
        if place.is_none() && core.shared.taps.are_idle() {
            return None;
        }
        let grpc = request.version() == Version::HTTP_2 && is_grpc(request.headers());
        let uri = request.uri();
        let named = uri.authority().map(http::uri::Authority::as_str);
        let host = named.or_else(|| request.headers().get(HOST)?.to_str().ok());
        let host = host.map(without_user);
        let asked = Asked {
            way,
            protocol: if grpc { Protocol::Grpc } else { Protocol::Http },
            request: Some(Line {
                method: request.method().as_str(),
                path: uri.path(),
                host,
            }),
        };
        let began = core.shared.platform.monotonic();
        let taps = wanting(core, &asked, began);
        if place.is_none() && taps.is_empty() {
            return None;
        }
        let told = Told {
            place,
            version: plain.then(|| version(request.version())),
            grpc,
            method: request.method().clone(),
            path: cut(uri.path(), TEXT_BYTES_MAX),
            host: host.map(|host| cut(host, TEXT_BYTES_MAX)),
            headers: match taps.is_empty() {
                true => Vec::new(),
                false => headers_told(request.headers()),
            },
            ..Told::new(core, way, client)
        };
        let traced = traces.filter(|_| place.is_some()).cloned();
        Some(Self::of(core, told, (began, traced, taps)))
    }

    /// Begins the account of a byte stream to a port of the workload, if somebody looks.
    pub(crate) fn stream_in(core: &Core, peer: &Peer) -> Option<Rc<Self>> {
        Self::stream(core, to_port(peer))
    }

    /// Begins the account of a byte stream to `service`, if somebody looks.
    pub(crate) fn stream_out(core: &Core, service: &str) -> Option<Rc<Self>> {
        Self::stream(core, to_service(service))
    }

    fn stream(core: &Core, (way, client): Whose<'_>) -> Option<Rc<Self>> {
        if core.shared.taps.are_idle() {
            return None;
        }
        let asked = Asked {
            way,
            protocol: Protocol::Tcp,
            request: None,
        };
        let began = core.shared.platform.monotonic();
        let taps = wanting(core, &asked, began);
        if taps.is_empty() {
            return None;
        }
        let told = Told {
            stream: Some(Carried::default()),
            ..Told::new(core, way, client)
        };
        Some(Self::of(core, told, (began, None, taps)))
    }

    /// The account of a request of a client that was refused as bytes, and is answered already.
    pub(crate) fn refused_in(
        core: &Core,
        peer: &Peer,
        request: Option<&RecordRequest>,
        why: RequestRefusal,
    ) {
        Self::refused(core, to_port(peer), request, why);
    }

    /// The same of a request of the application to `service`.
    pub(crate) fn refused_out(
        core: &Core,
        service: &str,
        request: Option<&RecordRequest>,
        why: RequestRefusal,
    ) {
        Self::refused(core, to_service(service), request, why);
    }

    /// What could not be read has the method `-`, or no path.
    fn refused(
        core: &Core,
        (way, client): Whose<'_>,
        request: Option<&RecordRequest>,
        why: RequestRefusal,
    ) {
        if core.shared.taps.are_idle() {
            return;
        }
        let method = request.map_or("", |request| &request.method);
        let target = request.map_or("", |request| &request.raw_path);
        let target = told_of(target);
        let path = target.as_ref().map_or("", Uri::path);
        let host = target.as_ref().and_then(Uri::authority);
        let host = host.map(|host| without_user(host.as_str()));
        let asked = Asked {
            way,
            protocol: Protocol::Http,
            request: Some(Line { method, path, host }),
        };
        let began = core.shared.platform.monotonic();
        let taps = wanting(core, &asked, began);
        if taps.is_empty() {
            return;
        }
        let told = Told {
            method: method_of(method),
            path: cut(path, TEXT_BYTES_MAX),
            host: host.map(|host| cut(host, TEXT_BYTES_MAX)),
            status: Some(Refusal::from(why).status.as_u16()),
            ..Told::new(core, way, client)
        };
        let account = Self::of(core, told, (began, None, taps));
        account.denied(phase_label(Phase::Request), why.as_str());
    }

    fn of(
        core: &Core,
        told: Told,
        (began, traced, taps): (Tick, Option<Rc<Traced>>, Vec<Arc<Tap>>),
    ) -> Rc<Self> {
        Rc::new(Self {
            shared: core.shared.clone(),
            began,
            told: RefCell::new(Some(told)),
            traced,
            taps,
        })
    }

    /// Nobody is told of it.
    pub(crate) fn forget(&self) {
        self.told.take();
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
        self.tell(|told| {
            if !told.ended {
                told.failure = Some(why.as_str());
            }
        });
    }

    /// It was ended from here, whatever it is answered.
    pub(crate) fn ended(&self, why: End) {
        self.tell(|told| {
            let why = match why {
                End::Revoked => Failure::Revoked,
                End::PeerExpired => Failure::Identity,
            };
            told.failure = Some(why.as_str());
            told.ended = true;
        });
    }

    /// Nobody could be reached to send it to; if a try said why, that stays.
    pub(crate) fn nowhere(&self) {
        self.tell(|told| {
            told.failure.get_or_insert(Failure::NoEndpoint.as_str());
        });
    }

    /// The byte stream stands: tries before it that failed are nothing.
    pub(crate) fn opened(&self) {
        self.tell(|told| told.failure = None);
    }

    /// The byte stream ended, after so many bytes.
    pub(crate) fn carried(&self, carried: Carried) {
        self.tell(|told| told.stream = Some(carried));
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
            if !answer.status().is_server_error() && !told.ended {
                told.failure = None;
            }
        });
    }
    answer
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(mut told) = self.told.take() else {
            return;
        };
        let now_us = self.shared.platform.monotonic().micros();
        told.took_us = now_us.saturating_sub(self.began.micros());
        let told = Arc::new(told);
        for tap in &self.taps {
            tap.tell(&told, now_us);
        }
        if let Some(traced) = &self.traced
            && traced.queue.try_send(told).is_err()
        {
            traced.meter.span_dropped();
        }
    }
}

/// Whose request or byte stream it is, and who asks, of what comes in.
type Whose<'a> = (Way<'a>, Option<&'a Client>);

fn to_port(peer: &Peer) -> Whose<'_> {
    let way = Way::Inbound {
        client: peer.client.id.as_ref(),
        port: peer.port,
    };
    (way, Some(&peer.client))
}

fn to_service(service: &str) -> Whose<'_> {
    (Way::Outbound { service }, None)
}

fn wanting(core: &Core, asked: &Asked<'_>, now: Tick) -> Vec<Arc<Tap>> {
    match core.shared.taps.are_idle() {
        true => Vec::new(),
        false => core.shared.taps.wanting(asked, now.micros()),
    }
}

impl Told {
    /// Of an answered request for this path.
    #[cfg(test)]
    pub(crate) fn for_test(path: &str) -> Self {
        Self {
            place: None,
            direction: Direction::Inbound,
            stream: None,
            grpc: false,
            version: None,
            method: Method::GET,
            path: path.to_owned(),
            host: None,
            client: None,
            target: "8080".to_owned(),
            server: None,
            started: Timestamp::from_unix_secs(0),
            took_us: 0,
            decided: None,
            tries: 0,
            status: Some(200),
            grpc_status: None,
            failure: None,
            ended: false,
            headers: Vec::new(),
        }
    }

    fn new(core: &Core, way: Way<'_>, client: Option<&Client>) -> Self {
        let (direction, target) = match way {
            Way::Inbound { port, .. } => (Direction::Inbound, port.to_string()),
            Way::Outbound { service } => (Direction::Outbound, service.to_owned()),
        };
        Self {
            place: None,
            direction,
            stream: None,
            grpc: false,
            version: None,
            method: Method::default(),
            path: String::new(),
            host: None,
            client: client.map(|client| (client.ip, client.id.clone())),
            target,
            server: None,
            started: core.shared.platform.wall_clock(),
            took_us: 0,
            decided: None,
            tries: 0,
            status: None,
            grpc_status: None,
            failure: None,
            ended: false,
            headers: Vec::new(),
        }
    }
}

/// Headers of a list of ours; whatever else stands there is nobody's business.
fn headers_told(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let told = HEADERS_TOLD.into_iter();
    told.filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name, cut(value, HEADER_BYTES_MAX)))
    })
    .collect()
}

fn method_of(text: &str) -> Method {
    let read = Method::from_bytes(cut(text, METHOD_BYTES_MAX).as_bytes());
    read.or_else(|_| Method::from_bytes(b"-"))
        .unwrap_or_default()
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// The target of a request that was refused as bytes, as it came: only what is read as one is told, or a part of it that
/// is nobody's business might be told for a path.
fn told_of(target: &str) -> Option<Uri> {
    target.parse().ok()
}

/// A host without the user and password that some put before it.
fn without_user(host: &str) -> &str {
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// As much of a text as is told.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_cannot_be_read_is_none_of_http() {
        assert_eq!(method_of("BREW"), "BREW");
        assert_eq!(method_of("G ET"), "-");
        assert_eq!(method_of(""), "-");
        assert_eq!(method_of(&"X".repeat(99)).as_str().len(), METHOD_BYTES_MAX);
    }

    #[test]
    fn of_a_target_the_path_is_told_and_no_user_or_query() {
        for (target, want) in [
            ("/a?token=hush", Some(("/a", None))),
            ("/a#hush", Some(("/a", None))),
            ("*", Some(("*", None))),
            ("http://user:hush@cart/a?hush", Some(("/a", Some("cart")))),
            ("user:hush@cart:80", Some(("", Some("cart:80")))),
            ("user:hush@cart/a", None),
            ("http:/user:hush@cart/a", None),
            ("http://user:hush@/a b", None),
            ("", None),
        ] {
            let read = told_of(target);
            let host = read.as_ref().and_then(Uri::authority);
            let host = host.map(|host| without_user(host.as_str()));
            let got = read.as_ref().map(|uri| (uri.path(), host));
            assert_eq!(got, want, "{target}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("/a", 10), "/a");
        assert_eq!(cut(&"x".repeat(5_000), 1_024).len(), 1_024);
        let odd = format!("x{}", "é".repeat(2_000));
        assert_eq!(cut(&odd, 1_024).len(), 1_023);
    }
}
