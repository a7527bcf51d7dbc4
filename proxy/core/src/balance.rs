//! Chooses the endpoint for a request: of two drawn at random the one with less load.
//!
//! Two random choices, not least-loaded: load figures are late, and everyone would run to the same idle endpoint.
//! Load is peak-EWMA latency times requests under way: a slow answer counts at once, a fast one slowly. An endpoint that
//! cannot be connected to is left out for a time that doubles with every failure, then tried with one request. So is one
//! whose answers failed too often in a row, if there is a [`Breaker`].
//!
//! ```text
//! Ready --connect failed, or the breaker's last failure--> Ejected{until} --until passed--> trial: one request --answered--> Ready
//!                                                             ^------------------failed, twice as long------'
//! ```
//! Never dials, never waits; one balancer per service port and core, so there is no lock.

/// Latency assumed of an endpoint that has not answered yet.
const FIRST_RTT_US: f64 = 30_000.0;

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

/// When an endpoint is left out for its answers: a breaker on consecutive failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row; 0 counts as 1.
    pub failures_max: u32,
    /// How long the endpoint is left out the first time, in microseconds; doubled each time that its trial fails.
    pub penalty_min_us: u64,
    /// The longest time, before jitter.
    pub penalty_max_us: u64,
    /// Up to this share of each penalty is added at random, in percent.
    pub jitter_percent: u32,
}

impl Breaker {
    /// How long an endpoint is left out after `penalties` others in a row.
    fn penalty_us(&self, penalties: u32, random: u64) -> u64 {
        let doubled = self.penalty_min_us.saturating_mul(1 << penalties.min(30));
        let longest = doubled.min(self.penalty_max_us.max(self.penalty_min_us));
        let jitter = longest.saturating_mul(u64::from(self.jitter_percent)) / 100;
        longest.saturating_add(random % (jitter + 1))
    }
}

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
    health: Health,
}

/// The endpoints of one service port.
#[derive(Debug)]
pub struct Balancer<E> {
    config: BalanceConfig,
    breaker: Option<Breaker>,
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
            endpoints: Vec::new(),
            next_id: 0,
        }
    }

    /// Sets the breaker, or takes it away: what is left out already comes back by its trial.
    pub fn set_breaker(&mut self, breaker: Option<Breaker>) {
        self.breaker = breaker;
    }

    /// Makes the set the given one; those in both keep load and health. Returns what left.
    pub fn update(&mut self, wanted: impl IntoIterator<Item = E>, now_us: u64) -> Vec<E> {
        let mut old = std::mem::take(&mut self.endpoints);
        let mut new: Vec<Endpoint<E>> = Vec::with_capacity(old.len());
        for address in wanted {
            if new.iter().any(|known| known.address == address) {
                continue;
            }
            match old.iter().position(|known| known.address == address) {
                Some(at) => new.push(old.swap_remove(at)),
                None => {
                    new.push(Endpoint::new(EndpointId(self.next_id), address, now_us));
                    self.next_id += 1;
                }
            }
        }
        new.sort_by_key(|endpoint| endpoint.id);
        self.endpoints = new;
        old.into_iter().map(|endpoint| endpoint.address).collect()
    }

    /// Chooses; `random` is 64 fresh random bits.
    pub fn pick(&self, random: u64, now_us: u64) -> Pick {
        let open = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_open(now_us));
        let count = open.clone().count();
        if count == 0 {
            return self.none_open(now_us);
        }
        let (first, second) = two_of(count, random);
        let chosen = match (
            open.clone().nth(first),
            second.and_then(|at| open.clone().nth(at)),
        ) {
            (Some(a), Some(b)) if b.load(now_us, &self.config) < a.load(now_us, &self.config) => b,
            (Some(a), _) => a,
            (None, _) => return self.none_open(now_us),
        };
        Pick::Endpoint(chosen.id)
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
        let at = self
            .endpoints
            .binary_search_by_key(&id, |endpoint| endpoint.id)
            .ok()?;
        self.endpoints.get(at).map(|endpoint| &endpoint.address)
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
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        endpoint.pending = endpoint.pending.saturating_sub(1);
        if outcome != Outcome::Cancelled {
            endpoint.observe(now_us.saturating_sub(started_us), now_us, &config);
        }
        // What began before the breaker opened says nothing of how the endpoint is now: the trial alone does.
        if matches!(endpoint.health, Health::Ejected { why: Why::Answers, until_us, .. } if started_us < until_us)
        {
            return;
        }
        if let Health::Ejected { trial, .. } = &mut endpoint.health {
            *trial = false;
        }
        match (outcome, breaker) {
            (Outcome::Answered, _) | (Outcome::Rejected, None) => endpoint.recover(),
            (Outcome::Rejected | Outcome::Failed, Some(breaker)) => {
                endpoint.strike(outcome, &breaker, now_us, random);
            }
            (Outcome::Failed, None) | (Outcome::Cancelled, _) => {}
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

    fn endpoint(&mut self, id: EndpointId) -> Option<&mut Endpoint<E>> {
        let at = self
            .endpoints
            .binary_search_by_key(&id, |endpoint| endpoint.id)
            .ok()?;
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
            health: Health::Ready,
        }
    }

    /// It answers as it should.
    fn recover(&mut self) {
        (self.failures, self.strikes, self.penalties) = (0, 0, 0);
        self.health = Health::Ready;
    }

    /// A request failed; one failure too many leaves the endpoint out, and so does that of its trial.
    fn strike(&mut self, outcome: Outcome, breaker: &Breaker, now_us: u64, random: u64) {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes >= breaker.failures_max {
            let wait = breaker.penalty_us(self.penalties, random);
            self.penalties = self.penalties.saturating_add(1);
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
    fn load(&self, now_us: u64, config: &BalanceConfig) -> f64 {
        self.rtt_us * self.weight(now_us, config) * (f64::from(self.pending) + 1.0)
    }

    fn observe(&mut self, rtt_us: u64, now_us: u64, config: &BalanceConfig) {
        let rtt = rtt_us as f64;
        let old = self.weight(now_us, config);
        self.rtt_us = if rtt > self.rtt_us {
            rtt
        } else {
            self.rtt_us * old + rtt * (1.0 - old)
        };
        self.rtt_at_us = now_us;
    }

    /// What is left of the last latency: 1 at once, towards 0 with age.
    fn weight(&self, now_us: u64, config: &BalanceConfig) -> f64 {
        let age = now_us.saturating_sub(self.rtt_at_us) as f64;
        (-age / config.decay_us.max(1) as f64).exp()
    }
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
mod tests;
