//! Tap: accounts of requests and byte streams for whoever looks at them now. Filters are asked here, before anything is kept;
//! a reader gets so many a second and no more, and one that is slow misses some: both are counted and told to it.
//!
//! Nobody is waited for: a core leaves what it has to tell in a bounded queue. As long as nobody looks, all that a request
//! costs is one load of a counter.

use crate::account::Told;
use crate::answer::Answer;
use crate::body::{Arriving, Body};
use crate::guarded::WireRefusal;
use crate::limits::{
    PARTING, TAP_ACCOUNTS, TAP_IDLE_SECS, TAP_QUEUE, TAP_READERS, TAP_UNREAD_SECS,
};
use crate::live::{End, Kill, Slot};
use crate::serve::Service;
use crate::state::{Shared, stopping};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use mesh_api::admin::Direction;
use mesh_api::tap::{
    PATH, RATE_DEFAULT, TapClient, TapConnection, TapDecision, TapFilter, TapLine, TapRequest,
};
use mesh_api::terminal;
use mesh_policy::decide::Verdict;
use mesh_policy::request::Protocol;
use mesh_proxy_core::metrics;
use mesh_trust::SpiffeId;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

/// How often a reader is told what it misses, and looked after.
const TICK: Duration = Duration::from_secs(1);

/// Who looks now.
#[derive(Default)]
pub(crate) struct Taps {
    /// How many are in `open`: what each request looks at.
    count: AtomicUsize,
    open: ArcSwap<Vec<Arc<Tap>>>,
    /// Held by those who come and go.
    changing: Mutex<()>,
}

/// One reader, as cores see it.
pub(crate) struct Tap {
    filter: TapFilter,
    sender: mpsc::Sender<Arc<Told>>,
    kept: PerSecond,
    told: PerSecond,
    over_rate: AtomicU64,
    slow_reader: AtomicU64,
    /// When its reader last took something, or could have; monotonic, in microseconds.
    read_us: AtomicU64,
    /// Its place went to another reader.
    displaced: watch::Sender<bool>,
}

/// What is known of a request or byte stream when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) way: Way<'a>,
    pub(crate) protocol: Protocol,
    /// None of a byte stream.
    pub(crate) request: Option<Line<'a>>,
}

/// Where something comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// From this client to a port of the workload.
    Inbound {
        client: Option<&'a SpiffeId>,
        port: u16,
    },
    /// To this service.
    Outbound { service: &'a str },
}

/// What a request asks for, as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) method: &'a str,
    /// Without the query.
    pub(crate) path: &'a str,
    pub(crate) host: Option<&'a str>,
}

/// So many in each second, on any core.
struct PerSecond {
    max: u32,
    /// The second, and how many there were in it.
    window: AtomicU64,
}

impl PerSecond {
    fn new(max: u32) -> Self {
        Self {
            max,
            window: AtomicU64::new(0),
        }
    }

    fn take(&self, now_us: u64) -> bool {
        let second = (now_us / 1_000_000) & u64::from(u32::MAX);
        let next = |window: u64| {
            let (of, count) = (window >> 32, window & u64::from(u32::MAX));
            // A core that read the clock a moment earlier and comes late is counted with the others: a second that is
            // over never begins again, or the next would have its rate twice.
            let (of, count) = if of < second {
                (second, 0)
            } else {
                (of, count)
            };
            (count < u64::from(self.max)).then_some(of << 32 | (count + 1))
        };
        let updated = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        updated.is_ok()
    }
}

impl Taps {
    /// Whether nobody looks. A tap that opens now sees what comes a moment later.
    pub(crate) fn are_idle(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Who wants to know of what has just come.
    pub(crate) fn wanting(&self, asked: &Asked<'_>, now_us: u64) -> Vec<Arc<Tap>> {
        let open = self.open.load();
        let wanting = open.iter().filter(|tap| tap.wants(asked));
        let kept = wanting.filter(|tap| {
            let kept = tap.kept.take(now_us);
            if !kept {
                tap.over_rate.fetch_add(1, Ordering::Relaxed);
            }
            kept
        });
        kept.cloned().collect()
    }

    /// Opens a tap; `None`: there are as many as there may be, and all are read.
    fn open(
        &self,
        filter: TapFilter,
        now_us: u64,
    ) -> Option<(Arc<Tap>, mpsc::Receiver<Arc<Told>>)> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.open.load().as_ref().clone();
        if open.len() >= TAP_READERS {
            // Whoever stopped reading keeps nobody out.
            let unread = open.iter().position(|tap| tap.is_unread(now_us))?;
            open.swap_remove(unread).displaced.send_replace(true);
        }
        let (sender, receiver) = mpsc::channel(TAP_QUEUE);
        let tap = Arc::new(Tap {
            told: PerSecond::new(filter.rate.unwrap_or(RATE_DEFAULT)),
            kept: PerSecond::new(TAP_ACCOUNTS),
            filter,
            sender,
            over_rate: AtomicU64::new(0),
            slow_reader: AtomicU64::new(0),
            read_us: AtomicU64::new(now_us),
            displaced: watch::Sender::new(false),
        });
        open.push(tap.clone());
        self.set(open);
        Some((tap, receiver))
    }

    fn close(&self, tap: &Arc<Tap>) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.open.load().as_ref().clone();
        open.retain(|one| !Arc::ptr_eq(one, tap));
        self.set(open);
    }

    fn set(&self, open: Vec<Arc<Tap>>) {
        let count = open.len();
        self.open.store(Arc::new(open));
        self.count.store(count, Ordering::Relaxed);
    }
}

impl Tap {
    /// What can be said before it has ended.
    fn wants(&self, asked: &Asked<'_>) -> bool {
        let filter = &self.filter;
        let is_there = match asked.way {
            Way::Inbound { client, port } => {
                is(filter.direction, Some(Direction::Inbound))
                    && is(filter.from.as_ref(), client)
                    && filter
                        .target
                        .as_deref()
                        .is_none_or(|wanted| wanted.parse() == Ok(port))
            }
            Way::Outbound { service } => {
                is(filter.direction, Some(Direction::Outbound))
                    && filter.from.is_none()
                    && is(filter.target.as_deref(), Some(service))
            }
        };
        let line = asked.request;
        let path = line.map(|line| line.path);
        is_there
            && is(filter.protocol, Some(asked.protocol))
            && is(filter.method.as_deref(), line.map(|line| line.method))
            && is(filter.host.as_deref(), line.and_then(|line| line.host))
            && filter
                .path
                .as_deref()
                .is_none_or(|wanted| path.is_some_and(|path| path.starts_with(wanted)))
    }

    /// Something has ended that [`Taps::wanting`] kept.
    pub(crate) fn tell(&self, told: &Arc<Told>, now_us: u64) {
        let verdict = told
            .decided
            .as_ref()
            .map(|decided| verdict(decided.allowed));
        if !self.filter.wants_end(told.status, verdict) {
            return;
        }
        let missed = if !self.told.take(now_us) {
            &self.over_rate
        } else if self.sender.try_send(told.clone()).is_err() {
            &self.slow_reader
        } else {
            return;
        };
        missed.fetch_add(1, Ordering::Relaxed);
    }

    fn is_displaced(&self) -> bool {
        *self.displaced.borrow()
    }

    fn is_unread(&self, now_us: u64) -> bool {
        let read_us = self.read_us.load(Ordering::Relaxed);
        now_us.saturating_sub(read_us) > TAP_UNREAD_SECS * 1_000_000
    }

    /// What was missed since this was asked last.
    fn missed(&self) -> Option<TapLine> {
        let (over_rate, slow_reader) = (
            self.over_rate.swap(0, Ordering::Relaxed),
            self.slow_reader.swap(0, Ordering::Relaxed),
        );
        (over_rate + slow_reader > 0).then_some(TapLine::Missed {
            over_rate,
            slow_reader,
        })
    }
}

/// Whether a filter that asks for one value, if it asks, gets it.
fn is<T: PartialEq>(wanted: Option<T>, value: Option<T>) -> bool {
    wanted.is_none() || wanted == value
}

fn direction(direction: metrics::Direction) -> Direction {
    match direction {
        metrics::Direction::Inbound => Direction::Inbound,
        metrics::Direction::Outbound => Direction::Outbound,
    }
}

const fn verdict(allowed: bool) -> Verdict {
    if allowed {
        Verdict::Allow
    } else {
        Verdict::Deny
    }
}

/// What ends a tap although its reader is trusted: its place went to another, or the proxy stops.
pub(crate) struct Over {
    displaced: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
}

impl Over {
    fn of(shared: &Shared, tap: &Tap) -> Self {
        Self {
            displaced: tap.displaced.subscribe(),
            stopping: shared.watch_stopping(),
        }
    }

    /// Resolves once it is over.
    pub(crate) async fn wait(mut self) {
        tokio::select! {
            () = stopping(&mut self.displaced) => {}
            () = stopping(&mut self.stopping) => {}
        }
    }
}

/// Lines for one reader. Dropping it ends the tap.
pub(crate) struct Lines {
    shared: Arc<Shared>,
    tap: Arc<Tap>,
    receiver: mpsc::Receiver<Arc<Told>>,
    /// Of a reader in the mesh: ended once it is no longer trusted.
    kill: Kill,
    tick: Interval,
    /// Ticks since the last line.
    idle: u64,
    stage: Stage,
    /// Wakes whoever carries these lines when they are over, though their reader takes none.
    over: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
}

/// Opening --first line--> Telling --displaced, or stopping: what was missed--> Told
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was told yet.
    Opening,
    /// What ends is told.
    Telling,
    /// There is nothing more.
    Told,
}

impl Lines {
    /// What ends it.
    pub(crate) fn over(&self) -> Over {
        Over::of(&self.shared, &self.tap)
    }

    fn is_over(&self) -> bool {
        self.tap.is_displaced() || self.shared.is_stopping()
    }

    /// Ready once there is nothing more to tell, whether or not anybody reads; nobody is told why.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(end) = self.kill.poll(Slot::Response, cx) {
            return Poll::Ready(end);
        }
        // Asked no more once it is ready: what it waits for stays true.
        if self.is_over() || self.over.borrow_mut().as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Revoked);
        }
        Poll::Pending
    }

    /// The last line: what waits here is not told any more.
    fn last(&mut self) -> Option<TapLine> {
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {
            self.tap.slow_reader.fetch_add(1, Ordering::Relaxed);
        }
        self.tap.missed()
    }

    /// The next lines; `None`: there are no more. Asked at least once a second by a reader that reads.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            if self.stage == Stage::Told || self.kill.is_ended() {
                return Poll::Ready(None); // who is no longer trusted is told nothing more
            }
            if self.poll_over(cx).is_ready() {
                self.stage = Stage::Told;
                return Poll::Ready(self.last().map(|line| frame(&[Some(line)])));
            }
            if self.stage == Stage::Opening {
                self.stage = Stage::Telling;
                return Poll::Ready(Some(frame(&[Some(TapLine::Open)])));
            }
            let now_us = self.shared.platform.monotonic().micros();
            self.tap.read_us.store(now_us, Ordering::Relaxed);
            let told = match self.receiver.poll_recv(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(told)) => Some(told),
                Poll::Pending if self.tick.poll_tick(cx).is_pending() => return Poll::Pending,
                Poll::Pending => None,
            };
            self.idle += 1;
            let lines = [
                self.tap.missed(),
                told.map(|told| line(&told, self.shared.config.workload_name())),
                // So that a reader that is gone is noticed although there is nothing to tell.
                (self.idle >= TAP_IDLE_SECS).then_some(TapLine::Idle),
            ];
            if lines.iter().any(Option::is_some) {
                self.idle = 0;
                return Poll::Ready(Some(frame(&lines)));
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.taps.close(&self.tap);
        tracing::info!("a tap was closed");
    }
}

/// Lines as they are sent: clients chose some of what they say, and somebody may read them on a terminal.
fn frame(lines: &[Option<TapLine>]) -> Frame<Bytes> {
    let mut text = String::new();
    for line in lines.iter().flatten() {
        // Every line has a form in JSON.
        if let Ok(line) = serde_json::to_string(line) {
            text += &terminal::json(&line);
            text.push('\n');
        }
    }
    Frame::data(text.into())
}

fn line(told: &Told, workload: String) -> TapLine {
    let client = told.client.as_ref().map(|(ip, id)| TapClient {
        ip: *ip,
        spiffe_id: id.clone(),
    });
    let decision = told.decided.as_ref().map(|decided| TapDecision {
        verdict: verdict(decided.allowed),
        phase: decided.phase.to_owned(),
        reason: decided.reason.clone(),
        server: decided.server.clone(),
        route: decided.route.clone(),
        generation: decided.generation,
    });
    let failure = told.failure.map(str::to_owned);
    if let Some(carried) = told.stream {
        return TapLine::Connection(Box::new(TapConnection {
            time: told.started,
            duration_us: told.took_us,
            workload,
            direction: direction(told.direction),
            target: told.target.clone(),
            client,
            server: told.server.clone(),
            decision,
            failure,
            from_client_bytes: carried.from_client,
            to_client_bytes: carried.to_client,
        }));
    }
    TapLine::Request(Box::new(TapRequest {
        time: told.started,
        duration_us: told.took_us,
        workload,
        direction: direction(told.direction),
        protocol: if told.grpc {
            Protocol::Grpc
        } else {
            Protocol::Http
        },
        method: told.method.to_string(),
        path: told.path.clone(),
        host: told.host.clone(),
        target: told.target.clone(),
        client,
        server: told.server.clone(),
        decision,
        status: told.status,
        grpc_status: told.grpc_status,
        failure,
        tries: told.tries,
        trace_id: told.place.map(|place| {
            let digits = place.trace.iter().map(|byte| format!("{byte:02x}"));
            digits.collect()
        }),
        headers: told
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    }))
}

/// Answers a question for a tap. `who`: the identity that asks, or that it came over the socket of this user. `kill` ends it.
pub(crate) fn answer(shared: &Arc<Shared>, query: &str, who: &str, kill: Kill) -> Answer {
    let filter = match TapFilter::read(query) {
        Ok(filter) => filter,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let now_us = shared.platform.monotonic().micros();
    let Some((tap, receiver)) = shared.taps.open(filter, now_us) else {
        let why = format!("{TAP_READERS} taps are open, which is as many as there may be\n");
        return text(StatusCode::TOO_MANY_REQUESTS, why);
    };
    // Who looked at requests is a thing to know.
    tracing::warn!(who, query, "a tap was opened");
    shared.telemetry.count("mesh_taps_opened_total");
    let mut tick = interval_at(Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let over = Over::of(shared, &tap);
    let lines = Lines {
        shared: shared.clone(),
        tap,
        receiver,
        kill,
        tick,
        idle: 0,
        stage: Stage::Opening,
        over: RefCell::new(Box::pin(over.wait())),
    };
    let mut answer = Response::new(Body::Lines(Box::new(lines)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Body::text(text));
    *answer.status_mut() = status;
    answer
}

/// What a mesh connection to the admin port gets, of an identity that may tap.
pub(crate) struct Remote {
    shared: Arc<Shared>,
    who: SpiffeId,
    kill: Kill,
}

impl Remote {
    /// `None`: this identity may not. `kill` ends the connection, and what is told over it.
    pub(crate) fn of(
        shared: &Arc<Shared>,
        who: Option<&SpiffeId>,
        kill: &Kill,
    ) -> Option<Rc<Self>> {
        let who = who.filter(|who| shared.config.tap.contains(who))?.clone();
        let (shared, kill) = (shared.clone(), kill.clone());
        Some(Rc::new(Self { shared, who, kill }))
    }
}

impl Service for Remote {
    fn answer(
        self: Rc<Self>,
        request: Request<Arriving>,
    ) -> impl Future<Output = Answer> + 'static {
        let uri = request.uri();
        let answer = if request.method() == Method::GET && uri.path() == PATH {
            answer(
                &self.shared,
                uri.query().unwrap_or_default(),
                self.who.as_str(),
                self.kill.clone(),
            )
        } else {
            text(StatusCode::NOT_FOUND, "not found\n".to_owned())
        };
        if let Body::Lines(lines) = answer.body()
            && request.version() < Version::HTTP_2
        {
            // The library waits for ever for a reader that takes nothing; here its connection carries nothing else.
            let (over, kill) = (lines.over(), self.kill.clone());
            spawn_local(async move {
                over.wait().await;
                sleep(PARTING).await;
                kill.end(End::Revoked);
            });
        }
        std::future::ready(answer)
    }

    fn on_refused(&self, refusal: &WireRefusal) {
        tracing::info!(
            who = self.who.as_str(),
            why = refusal.why.as_str(),
            "refused a question for a tap"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Records;
    use crate::config::file::parse;
    use http_body::Body as _;
    use mesh_platform::System;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn there_are_so_many_in_each_second() {
        let two = PerSecond::new(2);
        assert!(two.take(999_999) && two.take(999_999) && !two.take(999_999));
        assert!(two.take(1_000_000) && two.take(1_999_999) && !two.take(1_999_999));
        assert!(two.take(9_000_000));
    }

    #[test]
    fn a_core_that_comes_late_begins_no_second_anew() {
        let two = PerSecond::new(2);
        assert!(two.take(2_000_000) && two.take(2_000_000));
        assert!(!two.take(1_999_999), "counted with the second that runs");
        assert!(!two.take(2_000_001), "which has had its two");
    }

    fn shared() -> Arc<Shared> {
        let config = parse(include_str!("../sample.yaml"), "proxy.yaml").expect("valid");
        Arc::new(Shared::new(config, System::new(), Records::default()))
    }

    fn told() -> Arc<Told> {
        Arc::new(Told::for_test("/\u{9b}2J\u{202e}"))
    }

    async fn next(answer: &mut Answer) -> Option<String> {
        let frame = std::future::poll_fn(|cx| Pin::new(answer.body_mut()).poll_frame(cx));
        let data = frame.await?.expect("no fault").into_data();
        Some(String::from_utf8(data.expect("lines").into()).expect("text"))
    }

    #[tokio::test]
    async fn the_first_line_says_that_it_is_open_and_the_last_what_was_missed() {
        let shared = shared();
        let mut answer = answer(&shared, "", "a test", Kill::default());
        assert_eq!(
            next(&mut answer).await.as_deref(),
            Some("{\"kind\":\"open\"}\n")
        );
        let tap = shared.taps.open.load()[0].clone();
        tap.tell(&told(), 0);
        let line = next(&mut answer).await.expect("a line");
        assert!(
            line.contains("/\\u009b2J\\u202e") && line.is_ascii(),
            "{line}"
        );
        // Neither read nor told when the proxy stops.
        tap.tell(&told(), 0);
        tap.tell(&told(), 0);
        shared.stop();
        let last = next(&mut answer).await.expect("a last line");
        assert_eq!(
            last,
            "{\"kind\":\"missed\",\"over_rate\":0,\"slow_reader\":2}\n"
        );
        assert_eq!(next(&mut answer).await, None);
    }

    #[tokio::test]
    async fn who_is_no_longer_trusted_is_told_nothing_more() {
        let (shared, kill) = (shared(), Kill::default());
        let mut answer = answer(&shared, "", "a test", kill.clone());
        next(&mut answer).await;
        shared.taps.open.load()[0].tell(&told(), 0);
        kill.end(End::PeerExpired);
        assert_eq!(next(&mut answer).await, None);
    }

    /// Whether a tap whose lines nobody takes is over, as whoever carries them is told without reading.
    async fn ends(answer: &Answer) -> bool {
        let ended = std::future::poll_fn(|cx| answer.body().poll_ended(cx));
        tokio::time::timeout(Duration::from_secs(1), ended)
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go() {
        let (shared, kill) = (shared(), Kill::default());
        let one = answer(&shared, "", "a test", kill.clone());
        assert!(!ends(&one).await);
        kill.end(End::PeerExpired);
        assert!(ends(&one).await);
        drop(one);
        let all: Vec<_> = (0..TAP_READERS)
            .map(|_| answer(&shared, "", "a test", Kill::default()))
            .collect();
        let first = shared.taps.open.load()[0].clone();
        // Waits already when it is displaced.
        let (ended, late) = tokio::join!(ends(&all[0]), async {
            tokio::task::yield_now().await;
            let late = shared.platform.monotonic().micros() + (TAP_UNREAD_SECS + 1) * SECOND;
            shared.taps.open(TapFilter::default(), late)
        });
        assert!(ended && late.is_some() && first.is_displaced());
        assert!(!ends(&all[1]).await);
        let (ended, ()) = tokio::join!(ends(&all[1]), async {
            tokio::task::yield_now().await;
            shared.stop();
        });
        assert!(ended);
    }

    fn full(taps: &Taps) -> Vec<Arc<Tap>> {
        let open = (0..TAP_READERS).map(|_| taps.open(TapFilter::default(), 0));
        open.map(|one| one.expect("a tap").0).collect()
    }

    #[test]
    fn readers_are_few_and_leave_their_place() {
        let taps = Taps::default();
        assert!(taps.are_idle());
        let all = full(&taps);
        assert!(taps.open(TapFilter::default(), 0).is_none());
        taps.close(&all[0]);
        assert!(taps.open(TapFilter::default(), 0).is_some() && !taps.are_idle());
        assert!(taps.open(TapFilter::default(), 0).is_none());
        all.iter().for_each(|tap| taps.close(tap));
        assert!(!taps.are_idle(), "the one that came later");
    }

    #[test]
    fn a_place_that_nobody_reads_at_goes_to_who_asks() {
        let taps = Taps::default();
        let all = full(&taps);
        let late = (TAP_UNREAD_SECS + 1) * SECOND;
        for tap in &all[1..] {
            tap.read_us.store(late, Ordering::Relaxed);
        }
        let at_the_limit = TAP_UNREAD_SECS * SECOND;
        assert!(taps.open(TapFilter::default(), at_the_limit).is_none());
        assert!(taps.open(TapFilter::default(), late).is_some());
        let displaced = |tap: &Arc<Tap>| tap.is_displaced();
        assert!(displaced(&all[0]) && !all[1..].iter().any(displaced));
        assert!(taps.open(TapFilter::default(), late).is_none(), "all read");
    }

    #[test]
    fn what_is_said_of_requests_is_said_of_no_byte_stream() {
        let taps = Taps::default();
        let web = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let of = |query: &str| TapFilter::read(query).unwrap();
        let inbound = Way::Inbound {
            client: Some(&web),
            port: 8080,
        };
        let line = Line {
            method: "GET",
            path: "/items",
            host: Some("cart"),
        };
        let request = Asked {
            way: inbound,
            protocol: Protocol::Http,
            request: Some(line),
        };
        let stream = Asked {
            protocol: Protocol::Tcp,
            request: None,
            ..request
        };
        let leaving = Asked {
            way: Way::Outbound {
                service: "shop/cart:80",
            },
            ..request
        };
        for (query, want) in [
            ("", [true, true, true]),
            ("method=GET", [true, false, true]),
            ("method=get", [false, false, false]),
            ("path=/", [true, false, true]),
            ("path=/items/", [false, false, false]),
            ("host=cart", [true, false, true]),
            ("host=Cart", [false, false, false]),
            ("protocol=tcp", [false, true, false]),
            ("protocol=http", [true, false, true]),
            ("direction=inbound", [true, true, false]),
            ("direction=outbound", [false, false, true]),
            ("target=8080", [true, true, false]),
            ("target=808", [false, false, false]),
            ("target=shop/cart:80", [false, false, true]),
            (
                "from=spiffe://cluster.local/ns/shop/sa/web",
                [true, true, false],
            ),
            (
                "from=spiffe://prod.example/ns/shop/sa/web",
                [false, false, false],
            ),
        ] {
            let (tap, _receiver) = taps.open(of(query), 0).unwrap();
            let got = [request, stream, leaving].map(|asked| tap.wants(&asked));
            assert_eq!(got, want, "{query}");
            taps.close(&tap);
        }
    }
}
