//! Chooses the endpoint for a request: of two drawn at random the one with less load; or, for requests that have a key,
//! always the same one.
//!
//! Two random choices, not least-loaded: load figures are late, and everyone would run to the same idle endpoint.
//! Load is peak-EWMA latency times requests under way: a slow answer counts at once, a fast one slowly; or requests under
//! way alone ([`Load`]). Where endpoints have shares of different size, or one is new, a lot decides among all of them, in
//! proportion to share by load: of two the one with less load would get all that comes while nothing waits. An endpoint
//! that cannot be connected to is left out for a time that doubles with every failure, then tried with one request. So is one
//! whose answers failed too often in a row, if there is a [`Breaker`].
//!
//! ```text
//! Ready --connect failed, or the breaker's last failure--> Ejected{until} --until passed--> trial: one request --answered--> Ready
//!                                                             ^------------------failed, twice as long------'
//! ```
//! Where a service asks for it, requests stay with the endpoints that are near while those do well enough ([`zone`]).
//! Never dials, never waits; one balancer per service port and core, so there is no lock.
//!
//! - [`breaker`]: when an endpoint is left out for its answers
//! - [`key`]: what requests that go to one endpoint have in common
//! - [`zone`]: when a request leaves the zone

pub mod breaker;
pub mod key;
pub mod zone;

pub use breaker::{Breaker, SuccessRate};

use breaker::Outcomes;
use zone::{Answer, Crowd, Zone};

/// Latency assumed of an endpoint that has not answered yet.
const FIRST_RTT_US: f64 = 30_000.0;

/// Latency below which none is forgotten: nothing answers sooner. Without it a latency that nobody renews becomes 0 after
/// two hours, requests under way would count for nothing, and a share by it would have no end.
const RTT_MIN_US: f64 = 1.0;

/// Tuning, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceConfig {
    /// Time in which an old latency loses 63 % of its weight.
    pub decay_us: u64,
    /// How long an endpoint is left out after its first failure in a row.
    pub eject_min_us: u64,
    /// The longest time it is left out. Also the longest it stays unnoticed after it returned.
    pub eject_max_us: u64,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            decay_us: 10_000_000,
            eject_min_us: 100_000,
            eject_max_us: 5_000_000,
        }
    }
}

/// What an endpoint's load is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// Its latency, where a slow answer counts at once, times the requests under way.
    #[default]
    PeakEwma,
    /// The requests under way.
    Requests,
}

/// The least that a new endpoint gets, of what its weight says: less would never warm it up.
const NEW_SHARE_MIN: f64 = 0.1;

/// Names an endpoint of one balancer; ids are never used again, so a late report about a removed one changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(u64);

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Here; report [`Balancer::on_start`].
    Endpoint(EndpointId),
    /// No endpoint can be tried before this time.
    AllEjected {
        /// When the first one may be tried.
        retry_at_us: u64,
    },
    /// There is no endpoint.
    Empty,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer that is no failure of the endpoint.
    Answered,
    /// With an answer that says that the endpoint fails: 5xx, or a gRPC code that means the same.
    Rejected,
    /// The connection broke, or no answer in time: its latency counts too, since waiting it was.
    Failed,
    /// The client went away: says nothing about the endpoint.
    Cancelled,
}

impl Outcome {
    /// What an answer says of its endpoint: by its status, and by its gRPC code if it has one.
    pub fn of_answer(status: u16, grpc_code: Option<u16>) -> Self {
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: the others are about the request.
        let failed = status >= 500 || matches!(grpc_code, Some(2 | 4 | 13 | 14 | 15));
        if failed {
            Self::Rejected
        } else {
            Self::Answered
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Health {
    Ready,
    /// Left out until then; afterwards one trial.
    Ejected {
        until_us: u64,
        trial: bool,
        why: Why,
    },
}

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// No connection.
    Connect,
    /// The breaker opened.
    Answers,
}

#[derive(Debug)]
struct Endpoint<E> {
    id: EndpointId,
    address: E,
    pending: u32,
    rtt_us: f64,
    rtt_at_us: u64,
    /// Connections that failed in a row.
    failures: u32,
    /// Requests that failed in a row, as the breaker counts them.
    strikes: u32,
    /// Times in a row that the breaker left it out.
    penalties: u32,
    /// How its requests ended, if a breaker looks at their share.
    outcomes: Option<Box<Outcomes>>,
    health: Health,
    /// Its share beside that of the others.
    weight: u32,
    /// When it joined others that were there already.
    joined_us: Option<u64>,
    /// Whether it is in this zone.
    near: bool,
}

/// The endpoints of one service port.
#[derive(Debug)]
pub struct Balancer<E> {
    config: BalanceConfig,
    breaker: Option<Breaker>,
    load: Load,
    /// How long an endpoint that joins is new, in microseconds.
    slow_start_us: u64,
    /// Whether some share is not 1.
    uneven: bool,
    /// Until when some endpoint is new.
    new_until_us: u64,
    /// Whether some endpoints are near and others are not.
    zoned: bool,
    /// How near endpoints do beside the others.
    zone: Zone,
    /// INVARIANT: sorted by id; new ones get higher ids and go to the end.
    endpoints: Vec<Endpoint<E>>,
    next_id: u64,
}

impl<E: Eq> Balancer<E> {
    /// No endpoint yet.
    pub fn new(config: BalanceConfig) -> Self {
        Self {
            config,
            breaker: None,
            load: Load::default(),
            slow_start_us: 0,
            uneven: false,
            new_until_us: 0,
            zoned: false,
            zone: Zone::default(),
            endpoints: Vec::new(),
            next_id: 0,
        }
    }

    /// Sets the breaker, or takes it away: what is left out already comes back by its trial.
    pub fn set_breaker(&mut self, breaker: Option<Breaker>) {
        self.breaker = breaker;
    }

    /// Sets what load is, and for how long an endpoint that joins is new: it gets a tenth of its share at first, all of it
    /// after `slow_start_us` microseconds.
    pub fn set_load(&mut self, load: Load, slow_start_us: u64) {
        (self.load, self.slow_start_us) = (load, slow_start_us);
    }

    /// Says which endpoints are near. Where all are, or none is, nothing is preferred.
    pub fn set_near(&mut self, near: impl Fn(&E) -> bool) {
        for endpoint in &mut self.endpoints {
            endpoint.near = near(&endpoint.address);
        }
        let some = |near| self.endpoints.iter().any(|one| one.near == near);
        self.zoned = some(true) && some(false);
    }

    /// Whether an endpoint is near; `None` where nothing is preferred.
    pub fn is_near(&self, id: EndpointId) -> Option<bool> {
        let at = self.place(id).filter(|_| self.zoned)?;
        self.endpoints.get(at).map(|endpoint| endpoint.near)
    }

    /// Makes the set the given one, each with its share, 1 where it is 0; those in both keep load and health. Returns what
    /// left.
    pub fn update(&mut self, wanted: impl IntoIterator<Item = (E, u32)>, now_us: u64) -> Vec<E> {
        let joins = !self.endpoints.is_empty();
        let mut old = std::mem::take(&mut self.endpoints);
        let mut new: Vec<Endpoint<E>> = Vec::with_capacity(old.len());
        for (address, weight) in wanted {
            if new.iter().any(|known| known.address == address) {
                continue;
            }
            let mut endpoint = match old.iter().position(|known| known.address == address) {
                Some(at) => old.swap_remove(at),
                None => {
                    let id = EndpointId(self.next_id);
                    let mut endpoint = Endpoint::new(id, address, now_us);
                    endpoint.joined_us = joins.then_some(now_us);
                    if joins {
                        self.new_until_us = now_us.saturating_add(self.slow_start_us);
                    }
                    self.next_id += 1;
                    endpoint
                }
            };
            endpoint.weight = weight.max(1);
            new.push(endpoint);
        }
        new.sort_by_key(|endpoint| endpoint.id);
        self.uneven = new.iter().any(|endpoint| endpoint.weight != 1);
        self.endpoints = new;
        old.into_iter().map(|endpoint| endpoint.address).collect()
    }

    /// Chooses; `random` is 64 fresh random bits.
    pub fn pick(&self, random: u64, now_us: u64) -> Pick {
        match self.pick_near(random, now_us, |_| true) {
            Some(id) => Pick::Endpoint(id),
            None => self.none_open(now_us),
        }
    }

    /// One that is `meant`, of the side that the request goes to if there is one there.
    fn pick_near(
        &self,
        random: u64,
        now_us: u64,
        meant: impl Fn(&Endpoint<E>) -> bool,
    ) -> Option<EndpointId> {
        let side = self.side(random, now_us);
        let there = side
            .and_then(|near| self.pick_of(random, now_us, |one| one.near == near && meant(one)));
        there.or_else(|| self.pick_of(random, now_us, meant))
    }

    /// Whether a request goes to near endpoints or to the others; `None`: to all.
    fn side(&self, random: u64, now_us: u64) -> Option<bool> {
        if !self.zoned {
            return None;
        }
        let [near, far] = self.crowds(now_us);
        // Other bits than those that draw endpoints.
        Some(self.zone.stays_near(near, far, mixed(random)))
    }

    /// Near endpoints and the others, counted.
    fn crowds(&self, now_us: u64) -> [Crowd; 2] {
        let (mut near, mut far) = (Crowd::default(), Crowd::default());
        for endpoint in &self.endpoints {
            let crowd = if endpoint.near { &mut near } else { &mut far };
            crowd.all += 1;
            crowd.pending += u64::from(endpoint.pending);
            crowd.open += u32::from(endpoint.is_open(now_us));
        }
        [near, far]
    }

    /// Of two drawn of those that are open and `meant`, the one with less load; by lot, where shares are uneven.
    fn pick_of(
        &self,
        random: u64,
        now_us: u64,
        meant: impl Fn(&Endpoint<E>) -> bool,
    ) -> Option<EndpointId> {
        let open = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_open(now_us) && meant(endpoint));
        if self.uneven || now_us < self.new_until_us {
            return self.by_lot(open, random, now_us);
        }
        let count = open.clone().count();
        if count == 0 {
            return None;
        }
        let (first, second) = two_of(count, random);
        let (first, second) = (
            open.clone().nth(first)?,
            second.and_then(|at| open.clone().nth(at)),
        );
        let less = |other: &&Endpoint<E>| self.load(other, now_us) < self.load(first, now_us);
        Some(second.filter(less).unwrap_or(first).id)
    }

    /// Chooses for a request that has a key: of all that are open the same one each time, so that one that comes or goes
    /// moves no keys but its own (rendezvous hashing, Thaler and Ravishankar, 1998). `place` is a hash of an endpoint, which
    /// is the same everywhere.
    pub fn pick_by_key(&self, key: u64, now_us: u64, place: impl Fn(&E) -> u64) -> Pick {
        let open = self.endpoints.iter().filter(|one| one.is_open(now_us));
        let best = open
            .map(|one| (one.rank(mixed(key ^ place(&one.address))), one.id))
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        match best {
            Some((_, id)) => Pick::Endpoint(id),
            None => self.none_open(now_us),
        }
    }

    /// One of `open`, each as likely as its share by its load.
    fn by_lot<'e>(
        &'e self,
        open: impl Iterator<Item = &'e Endpoint<E>> + Clone,
        random: u64,
        now_us: u64,
    ) -> Option<EndpointId> {
        let share = |endpoint: &Endpoint<E>| {
            let whole = f64::from(endpoint.weight) * endpoint.warm(now_us, self.slow_start_us);
            whole / self.load(endpoint, now_us)
        };
        let all: f64 = open.clone().map(share).sum();
        let mut at = unit(random) * all;
        let mut last = None;
        for endpoint in open {
            last = Some(endpoint.id);
            at -= share(endpoint);
            if at < 0.0 {
                break;
            }
        }
        last
    }

    /// Expected wait, or requests; never less than 1.
    fn load(&self, endpoint: &Endpoint<E>, now_us: u64) -> f64 {
        match self.load {
            Load::PeakEwma => endpoint.expected_wait(now_us, &self.config),
            Load::Requests => f64::from(endpoint.pending) + 1.0,
        }
    }

    /// Chooses one that is not `other`; `None`: there is none that may be picked.
    pub fn pick_other(&self, other: EndpointId, random: u64, now_us: u64) -> Option<EndpointId> {
        self.pick_near(random, now_us, |endpoint| endpoint.id != other)
    }

    /// The first endpoint of which `wanted` is true, if it may be picked now.
    pub fn find(&self, now_us: u64, wanted: impl Fn(&E) -> bool) -> Option<EndpointId> {
        let mut all = self.endpoints.iter();
        let one = all.find(|endpoint| wanted(&endpoint.address))?;
        one.is_open(now_us).then_some(one.id)
    }

    fn none_open(&self, now_us: u64) -> Pick {
        let times = self.endpoints.iter().map(|endpoint| match endpoint.health {
            // A trial is under way: ask again soon, its end may open the endpoint.
            Health::Ejected { trial: true, .. } | Health::Ready => {
                now_us.saturating_add(self.config.eject_min_us)
            }
            Health::Ejected {
                until_us,
                trial: false,
                ..
            } => until_us,
        });
        times
            .min()
            .map_or(Pick::Empty, |retry_at_us| Pick::AllEjected { retry_at_us })
    }

    /// The address of an endpoint, while it is in the set.
    pub fn get(&self, id: EndpointId) -> Option<&E> {
        self.endpoints
            .get(self.place(id)?)
            .map(|endpoint| &endpoint.address)
    }

    fn place(&self, id: EndpointId) -> Option<usize> {
        let found = self
            .endpoints
            .binary_search_by_key(&id, |endpoint| endpoint.id);
        found.ok()
    }

    /// An endpoint answered, or did not, after so long.
    fn on_answer(&mut self, id: EndpointId, took_us: u64, good: bool, now_us: u64) {
        if let Some(near) = self.is_near(id) {
            let [crowd, _] = self.crowds(now_us);
            let answer = Answer {
                near,
                took_us,
                good,
            };
            self.zone.on_answer(answer, crowd.pending, now_us);
        }
    }

    /// An endpoint had not answered after so long, and nobody waits any more.
    fn on_wait(&mut self, id: EndpointId, waited_us: u64, now_us: u64) {
        if let Some(near) = self.is_near(id) {
            self.zone.on_wait(near, waited_us, now_us);
        }
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// How many may be picked now.
    pub fn ready(&self, now_us: u64) -> usize {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.is_open(now_us))
            .count()
    }

    /// A request goes to an endpoint.
    pub fn on_start(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.pending = endpoint.pending.saturating_add(1);
            if let Health::Ejected { trial, .. } = &mut endpoint.health {
                *trial = true;
            }
        }
    }

    /// A request that was reported by [`Balancer::on_start`] at `started_us` is over. `random` is for the jitter of a
    /// breaker's penalty.
    pub fn on_end(
        &mut self,
        id: EndpointId,
        outcome: Outcome,
        started_us: u64,
        now_us: u64,
        random: u64,
    ) {
        let (config, breaker) = (self.config, self.breaker);
        let failed = matches!(outcome, Outcome::Rejected | Outcome::Failed);
        // Looked at before the endpoint is: how many others are left out.
        let may_eject = failed
            && breaker.is_some_and(|breaker| {
                breaker.may_eject(self.ejected_besides(id, now_us), self.endpoints.len())
            });
        let took_us = now_us.saturating_sub(started_us);
        if outcome != Outcome::Cancelled {
            self.on_answer(id, took_us, !failed, now_us);
        }
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        endpoint.pending = endpoint.pending.saturating_sub(1);
        if outcome != Outcome::Cancelled {
            endpoint.observe(took_us, now_us, &config);
        }
        // What began before the breaker opened says nothing of how the endpoint is now: the trial alone does.
        if matches!(endpoint.health, Health::Ejected { why: Why::Answers, until_us, .. } if started_us < until_us)
        {
            return;
        }
        if let Health::Ejected { trial, .. } = &mut endpoint.health {
            *trial = false;
        }
        if let Some(rate) = breaker.and_then(|breaker| breaker.success_rate)
            && outcome != Outcome::Cancelled
        {
            let outcomes = endpoint.outcomes.get_or_insert_default();
            outcomes.add(!failed, &rate, now_us);
        }
        match (outcome, breaker) {
            (Outcome::Answered, _) | (Outcome::Rejected, None) => endpoint.recover(),
            (Outcome::Rejected | Outcome::Failed, Some(breaker)) => {
                endpoint.strike(outcome, may_eject.then_some(&breaker), now_us, random);
            }
            (Outcome::Failed, None) | (Outcome::Cancelled, _) => {}
        }
    }

    /// A request was taken away from an endpoint that had not answered it for so long, because another had. It is over
    /// already; that it took at least so long is no failure, and counts where it is more than what is left of what was known:
    /// an endpoint that never answers in time would be forgotten otherwise, and preferred.
    pub fn on_outrun(&mut self, id: EndpointId, waited_us: u64, now_us: u64) {
        let config = self.config;
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        let waited = waited_us as f64;
        if waited > endpoint.rtt_us * endpoint.freshness(now_us, &config) {
            (endpoint.rtt_us, endpoint.rtt_at_us) = (waited, now_us);
            self.on_wait(id, waited_us, now_us);
        }
    }

    /// No connection to an endpoint could be made (or its identity was wrong). Call [`Balancer::on_end`] beside it if a
    /// request was started. `random` spreads the return over half the time, so that cores and proxies do not return as one.
    pub fn on_connect_failed(&mut self, id: EndpointId, random: u64, now_us: u64) {
        let config = self.config;
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        // Many requests fail with one connect; only the first of a round counts.
        if matches!(endpoint.health, Health::Ejected { until_us, .. } if until_us > now_us) {
            return;
        }
        let doubled = config
            .eject_min_us
            .saturating_mul(1 << endpoint.failures.min(30));
        let longest = doubled.min(config.eject_max_us);
        let wait = longest - random % (longest / 2 + 1);
        endpoint.failures = endpoint.failures.saturating_add(1);
        endpoint.health = Health::Ejected {
            until_us: now_us.saturating_add(wait),
            trial: false,
            why: Why::Connect,
        };
    }

    /// How many endpoints besides this one are left out for their answers.
    fn ejected_besides(&self, id: EndpointId, now_us: u64) -> usize {
        let others = self.endpoints.iter().filter(|one| one.id != id);
        let ejected = others.filter(|one| {
            matches!(one.health, Health::Ejected { why: Why::Answers, until_us, trial } if trial || until_us > now_us)
        });
        ejected.count()
    }

    fn endpoint(&mut self, id: EndpointId) -> Option<&mut Endpoint<E>> {
        let at = self.place(id)?;
        self.endpoints.get_mut(at)
    }
}

impl<E> Endpoint<E> {
    fn new(id: EndpointId, address: E, now_us: u64) -> Self {
        let rtt_us = FIRST_RTT_US;
        Self {
            id,
            address,
            pending: 0,
            rtt_us,
            rtt_at_us: now_us,
            failures: 0,
            strikes: 0,
            penalties: 0,
            outcomes: None,
            health: Health::Ready,
            weight: 1,
            joined_us: None,
            near: false,
        }
    }

    /// It answers as it should.
    fn recover(&mut self) {
        (self.failures, self.strikes, self.penalties) = (0, 0, 0);
        self.health = Health::Ready;
    }

    /// A request failed; one failure too many leaves the endpoint out, and so do too few successes, and the failure of its
    /// trial. Without a breaker it stays, for too many others are left out.
    fn strike(&mut self, outcome: Outcome, breaker: Option<&Breaker>, now_us: u64, random: u64) {
        self.strikes = self.strikes.saturating_add(1);
        let opens = |breaker: &&Breaker| {
            let few = |rate| {
                let outcomes = self.outcomes.as_ref();
                outcomes.is_some_and(|outcomes| outcomes.too_few(&rate, now_us))
            };
            let on_trial = matches!(
                self.health,
                Health::Ejected {
                    why: Why::Answers,
                    ..
                }
            );
            on_trial
                || self.strikes >= breaker.failures_max
                || breaker.success_rate.is_some_and(few)
        };
        if let Some(breaker) = breaker.filter(opens) {
            let wait = breaker.penalty_us(self.penalties, random);
            self.penalties = self.penalties.saturating_add(1);
            // What it did before says nothing of how it is when it comes back.
            self.outcomes = None;
            self.health = Health::Ejected {
                until_us: now_us.saturating_add(wait),
                trial: false,
                why: Why::Answers,
            };
        } else if outcome == Outcome::Rejected {
            // It can be connected to.
            self.failures = 0;
            self.health = Health::Ready;
        }
    }

    fn is_open(&self, now_us: u64) -> bool {
        match self.health {
            Health::Ready => true,
            Health::Ejected {
                until_us, trial, ..
            } => until_us <= now_us && !trial,
        }
    }

    /// Expected wait: latency, forgotten with time, times the requests before this one and itself.
    fn expected_wait(&self, now_us: u64, config: &BalanceConfig) -> f64 {
        let rtt_us = self.rtt_us * self.freshness(now_us, config);
        rtt_us.max(RTT_MIN_US) * (f64::from(self.pending) + 1.0)
    }

    /// Which part of its share it gets: less while it is new.
    fn warm(&self, now_us: u64, slow_start_us: u64) -> f64 {
        match self.joined_us {
            Some(joined) if slow_start_us > 0 => {
                let age = now_us.saturating_sub(joined) as f64;
                (age / slow_start_us as f64).clamp(NEW_SHARE_MIN, 1.0)
            }
            _ => 1.0,
        }
    }

    /// Its rank for a key, from the bits that the two make: the highest has the key, in proportion to the weights.
    fn rank(&self, bits: u64) -> f64 {
        -f64::from(self.weight) / unit(bits).ln()
    }

    fn observe(&mut self, rtt_us: u64, now_us: u64, config: &BalanceConfig) {
        let rtt = rtt_us as f64;
        let old = self.freshness(now_us, config);
        self.rtt_us = if rtt > self.rtt_us {
            rtt
        } else {
            self.rtt_us * old + rtt * (1.0 - old)
        };
        self.rtt_at_us = now_us;
    }

    /// What is left of the last latency: 1 at once, towards 0 with age.
    fn freshness(&self, now_us: u64, config: &BalanceConfig) -> f64 {
        let age = now_us.saturating_sub(self.rtt_at_us) as f64;
        (-age / config.decay_us.max(1) as f64).exp()
    }
}

/// A number between 0 and 1, never either, from 52 bits: with its half as many as a double holds.
fn unit(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// All bits of all bits (SplitMix64, Steele and others, 2014).
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Two different places below `count`, or the one there is.
fn two_of(count: usize, random: u64) -> (usize, Option<usize>) {
    let (high, low) = (random >> 32, random & 0xffff_ffff);
    let below = |bits: u64, bound: usize| ((bits * bound as u64) >> 32) as usize;
    let first = below(high, count);
    if count == 1 {
        return (0, None);
    }
    // Of the others, counted from the one after the first.
    let second = (first + 1 + below(low, count - 1)) % count;
    (first, Some(second))
}

#[cfg(test)]
mod shares;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod zones;
