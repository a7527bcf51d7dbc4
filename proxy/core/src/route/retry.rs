//! What is tried again, after which wait, and how much of it: a budget, so that retries never multiply an outage.

use mesh_policy::limits::RETRY_ATTEMPTS_MAX;
use mesh_policy::traffic;

/// Longest wait between two tries before jitter, in microseconds. A client has left long before.
const BACKOFF_MAX_US: u64 = 10_000_000;

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryEnd {
    /// With an answer: its status, and its gRPC code if its head has one (trailers-only).
    Answered {
        /// HTTP status.
        status: u16,
        /// gRPC code.
        grpc: Option<u16>,
    },
    /// Without one; the client would be told this.
    Failed {
        /// HTTP status.
        status: u16,
        /// gRPC code.
        grpc: u16,
        /// Whether something may have been served.
        sent: bool,
    },
}

/// What a request is, as far as repeating it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeatable {
    /// Whether to do it twice is to do it once (RFC 9110 §9.2.2): by its method.
    pub idempotent: bool,
    /// Whether it is gRPC: then codes count, and statuses only where there is no code.
    pub grpc: bool,
}

/// What a rule tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    attempts: u32,
    statuses: Vec<u16>,
    grpc_codes: Vec<u16>,
    backoff_us: u64,
}

impl Retry {
    /// From data; more attempts than [`RETRY_ATTEMPTS_MAX`] are that many.
    pub fn compile(data: &traffic::Retry) -> Self {
        Self {
            attempts: data.attempts.min(RETRY_ATTEMPTS_MAX),
            statuses: data.statuses.clone(),
            grpc_codes: data.grpc_codes.clone(),
            backoff_us: data.backoff_ms.saturating_mul(1_000).min(BACKOFF_MAX_US),
        }
    }

    /// Whether there is to be another try after `tries` that ended so.
    ///
    /// What may have been served is tried again only if that is safe by the method, or if the route names the status.
    pub fn wants(&self, tries: u32, end: TryEnd, request: Repeatable) -> bool {
        if tries > self.attempts {
            return false;
        }
        match end {
            TryEnd::Answered { status, grpc } => match grpc.filter(|_| request.grpc) {
                Some(code) => self.grpc_codes.contains(&code),
                None => self.statuses.contains(&status),
            },
            TryEnd::Failed { sent: false, .. } => true,
            TryEnd::Failed { status, grpc, .. } => {
                request.idempotent
                    || if request.grpc {
                        self.grpc_codes.contains(&grpc)
                    } else {
                        self.statuses.contains(&status)
                    }
            }
        }
    }

    /// Microseconds to wait after `tries`: at least the backoff, doubled for each try after the first, and up to half as
    /// much again, by 64 fresh random bits.
    pub fn wait_us(&self, tries: u32, random: u64) -> u64 {
        let doubled = self
            .backoff_us
            .saturating_mul(1 << tries.saturating_sub(1).min(30));
        let wait = doubled.min(BACKOFF_MAX_US);
        wait + random % (wait / 2 + 1)
    }
}

/// Time over which a budget counts, in seconds.
const WINDOW_SECS: u64 = 10;
/// Share of the requests of that time that may be retries, in percent: Linkerd's, and the default of Gateway API's
/// retry budget.
const SHARE_PERCENT: u64 = 20;
/// Retries per second that may be whatever the share, so that quiet services have retries too.
const AT_LEAST_PER_SEC: u64 = 10;

/// How many retries a service may have, on one core.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// One for each second of the window, by the second modulo its length.
    seconds: [Second; WINDOW_SECS as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    at: u64,
    requests: u64,
    retries: u64,
}

impl Budget {
    /// A request came, its first try.
    pub fn on_request(&mut self, now_us: u64) {
        if let Some(second) = self.now(now_us) {
            second.requests += 1;
        }
    }

    /// Takes one retry out of the budget, if there is one left.
    pub fn take(&mut self, now_us: u64) -> bool {
        let now = now_us / 1_000_000;
        let live = self
            .seconds
            .iter()
            .filter(|second| now.saturating_sub(second.at) < WINDOW_SECS);
        let (requests, retries) = live.fold((0, 0), |(requests, retries), second| {
            (requests + second.requests, retries + second.retries)
        });
        if retries >= requests * SHARE_PERCENT / 100 + AT_LEAST_PER_SEC * WINDOW_SECS {
            return false;
        }
        if let Some(second) = self.now(now_us) {
            second.retries += 1;
        }
        true
    }

    /// The counts of this second.
    fn now(&mut self, now_us: u64) -> Option<&mut Second> {
        let at = now_us / 1_000_000;
        let place = usize::try_from(at % WINDOW_SECS).ok()?;
        let second = self.seconds.get_mut(place)?;
        if second.at != at {
            *second = Second {
                at,
                requests: 0,
                retries: 0,
            };
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests;
