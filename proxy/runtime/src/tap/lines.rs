//! What one reader is told: lines over its connection, until it goes or is let go.

use super::{Tap, direction, verdict};
use crate::account::Told;
use crate::answer::Answer;
use crate::body::Body;
use crate::limits::{TAP_IDLE_SECS, TAP_READERS};
use crate::live::{End, Kill, Slot};
use crate::state::{Shared, stopping};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use mesh_api::tap::{TapClient, TapConnection, TapDecision, TapFilter, TapLine, TapRequest};
use mesh_api::terminal;
use mesh_policy::request::Protocol;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How often a reader is told what it misses, and looked after.
const TICK: Duration = Duration::from_secs(1);

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

pub(super) fn line(told: &Told, workload: String) -> TapLine {
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

pub(super) fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Body::text(text));
    *answer.status_mut() = status;
    answer
}
