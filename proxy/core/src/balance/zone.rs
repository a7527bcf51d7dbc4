//! Whether a request stays near, with the endpoints of the proxy's own zone, where a service asks for that.
//!
//! Near endpoints have room for so many requests under way at a time; what comes while they have more goes to the others.
//! The room is learned as TCP learns a window. What a request costs on a side is the latency of its answers over the share
//! of them that were no failures. While it costs more than [`SPILL_RATIO`] times as much near as far, the room is made
//! smaller than what is under way; while it does not, and the room is used, it grows: at first by one with each answer, once
//! it was too large by one for each time that it was filled. So a zone with too little room serves what it can, one that
//! only fails or is slow serves nothing, and one that was left comes back.
//!
//! One request in [`PROBE_EVERY`] goes to the other side, so that both are known.
//!
//! The latency is the mean of logarithms, and not the peak: where every endpoint answers slowly now and then, all that were
//! asked would be slow, and those far away that were not asked would be fast.

/// How much more a request may cost near than far before the zone counts as full. Less is noise, and what crosses zones is
/// paid for.
pub const SPILL_RATIO: f64 = 2.0;

/// One request in so many goes to the side that was not chosen.
pub const PROBE_EVERY: u64 = 50;

/// Time in which an old answer loses 63 % of its weight, in microseconds: a queue that grows is seen before it is long.
const DECAY_US: f64 = 200_000.0;

/// The weight of one answer in what is known of its side, at most: what is known is of sixteen answers or more, however
/// rare they are.
const WEIGHT_MAX: f64 = 1.0 / 16.0;

/// And at least, for thousands at one moment.
const WEIGHT_MIN: f64 = 1.0 / 4_096.0;

/// The least share of good answers that is counted with: a side whose answers all fail costs a hundred times as much.
const GOOD_MIN: f64 = 0.01;

/// The room before anything is known of it.
const ROOM_FIRST: f64 = 16.0;

/// What is left of the room when it is made smaller.
const SHRINK: f64 = 0.875;

/// What the answers of a side were.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Side {
    /// The mean of the logarithms of their latencies in microseconds; `None` before the first.
    latency_ln: Option<f64>,
    /// The share of them that were no failures.
    good: f64,
    /// When the last one came.
    at_us: u64,
}

/// Both sides, and the room of the near one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Zone {
    near: Side,
    far: Side,
    /// Requests that may be under way near.
    room: f64,
    /// When it was made smaller last.
    shrunk_us: Option<u64>,
}

/// The endpoints of a side, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crowd {
    /// All.
    pub(super) all: u32,
    /// Those that may be picked.
    pub(super) open: u32,
    /// Requests under way at them.
    pub(super) pending: u64,
}

/// One answer, or that there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether it came from a near endpoint.
    pub(super) near: bool,
    /// How long it took.
    pub(super) took_us: u64,
    /// Whether it was no failure.
    pub(super) good: bool,
}

impl Default for Zone {
    fn default() -> Self {
        let unknown = Side {
            latency_ln: None,
            good: 1.0,
            at_us: 0,
        };
        Self {
            near: unknown,
            far: unknown,
            room: ROOM_FIRST,
            shrunk_us: None,
        }
    }
}

impl Zone {
    /// Which side a request goes to: `true`, the near one. `random` are 64 random bits.
    pub(super) fn stays_near(&self, near: Crowd, far: Crowd, random: u64) -> bool {
        if near.open == 0 || far.open == 0 {
            return far.open == 0;
        }
        // Endpoints that are left out took their part of the room with them.
        let room = self.room * f64::from(near.open) / f64::from(near.all);
        // For a part of a place, a part of the requests.
        let part = super::unit(random.rotate_left(32));
        let stays = near.pending as f64 + part < room;
        stays != random.is_multiple_of(PROBE_EVERY)
    }

    /// Something was given up after so long. It may have taken far longer, so that it makes nothing faster, and it is no
    /// failure either.
    pub(super) fn on_wait(&mut self, near: bool, waited_us: u64, now_us: u64) {
        let side = if near { &mut self.near } else { &mut self.far };
        let waited_ln = (waited_us.max(1) as f64).ln();
        if side.latency_ln.is_none_or(|mean| waited_ln >= mean) {
            side.observe(waited_us, true, now_us);
        }
    }

    /// Something ended, while so many requests were under way near, it among them.
    pub(super) fn on_answer(&mut self, answer: Answer, pending: u64, now_us: u64) {
        let side = if answer.near {
            &mut self.near
        } else {
            &mut self.far
        };
        side.observe(answer.took_us, answer.good, now_us);
        let pending = pending as f64;
        if self.is_full() {
            // What is done shows after a latency; until then it is not done again.
            let shows_us = self.near.latency_ln.map_or(0.0, f64::exp);
            let waited = self.shrunk_us.is_none_or(|at| {
                let since = now_us.saturating_sub(at);
                since as f64 >= shows_us
            });
            if waited {
                self.room = self.room.min(pending) * SHRINK;
                self.shrunk_us = Some(now_us);
            }
        } else if answer.near && pending >= self.room / 2.0 {
            // Room that nobody uses says nothing of how much there is.
            self.room += match self.shrunk_us {
                None => 1.0,
                Some(_) => 1.0 / self.room.max(1.0),
            };
        }
    }

    /// Whether requests cost too much near. A side that nobody asked yet says nothing.
    fn is_full(&self) -> bool {
        let costs = self.near.cost_ln().zip(self.far.cost_ln());
        costs.is_some_and(|(near, far)| near - far > SPILL_RATIO.ln())
    }
}

impl Side {
    fn observe(&mut self, took_us: u64, good: bool, now_us: u64) {
        let gap = now_us.saturating_sub(self.at_us) as f64;
        let weight = (1.0 - (-gap / DECAY_US).exp()).clamp(WEIGHT_MIN, WEIGHT_MAX);
        let took_ln = (took_us.max(1) as f64).ln();
        self.latency_ln = Some(match self.latency_ln {
            // A failure that comes fast makes nothing faster.
            Some(mean) if !good && took_ln < mean => mean,
            Some(mean) => mean + (took_ln - mean) * weight,
            None => took_ln,
        });
        self.good += (f64::from(u8::from(good)) - self.good) * weight;
        self.at_us = now_us;
    }

    /// The logarithm of what a request costs; `None` where nobody asked yet.
    fn cost_ln(&self) -> Option<f64> {
        self.latency_ln
            .map(|latency| latency - self.good.max(GOOD_MIN).ln())
    }
}
