//! A second try beside a first that takes unusually long: at another endpoint, of what may be done twice, within the budget
//! of retries. The first good answer is passed on, and the other try is taken back.

use super::route::{Bodies, Way};
use super::send::{Failed, Passage, Reply};
use super::{By, Listener};
use crate::body::Body;
use http::Method;
use http::request::Parts;
use mesh_proxy_core::balance::EndpointId;
use mesh_proxy_core::route::hedge::Hedge;
use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How a try ended.
type Sent = Result<Reply, Failed>;

impl Way<'_> {
    /// What the rule says of a second try, if this request may have one.
    pub(super) fn hedge(&self, tries: u32, method: &Method) -> Option<Hedge> {
        let hedge = self.plan.hedge?;
        // What goes outside the mesh is drawn by its share, not by load.
        let only_in_mesh = || self.passage.to.known.borrow().unmeshed.is_empty();
        (tries == 1 && method.is_idempotent() && only_in_mesh()).then_some(hedge)
    }

    /// One try, and a second one beside it if `hedge` says so.
    pub(super) async fn hedged(
        &self,
        parts: &Parts,
        bodies: &mut Bodies,
        until: Option<Instant>,
        hedge: Hedge,
    ) -> Sent {
        let (core, to) = (self.passage.core, self.passage.to);
        let began_us = core.now_us();
        let took_us = || core.now_us().saturating_sub(began_us);
        let (one, other) = (Cell::default(), Cell::default());
        let passage = Passage {
            picked: Some(&one),
            ..self.passage
        };
        let body = bodies.next();
        let mut first = pin!(passage.send(parts.clone(), body, &self.admitted, until));
        let after = to.hedge_after(hedge);
        let late = async {
            match after {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            sent = &mut first => {
                to.took(took_us(), &sent);
                return sent;
            }
            () = late => {}
        }
        let Some((by, body)) = self.second(one.get(), bodies) else {
            let sent = first.await;
            to.took(took_us(), &sent);
            return sent;
        };
        let second_us = core.now_us();
        let passage = Passage {
            by,
            picked: Some(&other),
            ..self.passage
        };
        let mut second = pin!(passage.send(parts.clone(), body, &self.admitted, until));
        let outrun = |picked: &Cell<Option<EndpointId>>, since_us: u64| {
            let now_us = core.now_us();
            to.outrun(picked.get(), now_us.saturating_sub(since_us), now_us);
        };
        let (sent, won) = tokio::select! {
            biased;
            sent = &mut first => match is_good(&sent) {
                true => {
                    outrun(&other, second_us);
                    (sent, "first")
                }
                false => better(sent, second.await, "second"),
            },
            sent = &mut second => match is_good(&sent) {
                true => {
                    outrun(&one, began_us);
                    (sent, "second")
                }
                false => better(sent, first.await, "first"),
            },
        };
        core.meter.hedged(won);
        to.took(took_us(), &sent);
        sent
    }

    /// How a second try is sent, if there is another endpoint, its body is there, and the budget has one left.
    fn second(&self, first: Option<EndpointId>, bodies: &Bodies) -> Option<(By, Body)> {
        let (core, to) = (self.passage.core, self.passage.to);
        let first = first?; // not even the first has an endpoint yet
        let random = core.random.next();
        let known = to.known.borrow();
        known.balancer.pick_other(first, random, core.now_us())?;
        drop(known);
        let Some(body) = bodies.again() else {
            core.meter.retry_refused("body");
            return None;
        };
        if !to.take_retry(core) {
            core.meter.retry_refused("budget");
            return None;
        }
        Some((By::Other(first), body))
    }
}

/// Whether an answer counts while another may come: not one that says that its endpoint fails.
fn is_good(sent: &Sent) -> bool {
    matches!(sent, Ok(reply) if !reply.parts.status.is_server_error())
}

/// Of two that are both over the one that is passed on, and which won: `after`, unless both are no good and the one before
/// it is an answer at least.
fn better(before: Sent, after: Sent, name: &'static str) -> (Sent, &'static str) {
    let won = if is_good(&after) { name } else { "neither" };
    if won == name || before.is_err() {
        count(&before);
        return (after, won);
    }
    count(&after);
    (before, won)
}

/// Counts an answer that nobody will see.
fn count(sent: &Sent) {
    if let Ok(reply) = sent
        && let Some(measure) = &reply.held.measure
    {
        measure.answered_with(reply.parts.status);
    }
}

impl Listener {
    /// How long a first try is waited for; `None`: until it ends.
    fn hedge_after(&self, hedge: Hedge) -> Option<Duration> {
        let mut latencies = self.latencies.borrow_mut();
        let us = hedge.after_us(latencies.get_or_insert_default())?;
        Some(Duration::from_micros(us))
    }

    /// An answer took so long.
    fn took(&self, us: u64, sent: &Sent) {
        if is_good(sent)
            && let Some(latencies) = &mut *self.latencies.borrow_mut()
        {
            latencies.observe(us);
        }
    }

    /// An endpoint had not answered for so long when another had.
    pub(super) fn outrun(&self, endpoint: Option<EndpointId>, waited_us: u64, now_us: u64) {
        if let Some(id) = endpoint {
            let mut known = self.known.borrow_mut();
            known.balancer.on_outrun(id, waited_us, now_us);
        }
    }
}

impl Bodies {
    /// A body to be sent beside one that is under way.
    fn again(&self) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::Empty),
            Self::Once(_) => None,
            Self::Kept(kept) => kept.whole().map(Body::text),
        }
    }
}
