//! Where requests to a Service go: the routes attached to it, as data.
//!
//! This is routing, not authorization: it says which backend a client's proxy sends a request to, and how patiently. Who
//! may call is decided by the proxy of the backend, whatever is said here. Matches are those of [`crate::snapshot`].
//!
//! Of the routes of one Service, those in the client's own namespace (*consumer* routes, Gateway API GEP-1426) stand in
//! for all others; those in the Service's namespace (*producer* routes) are for everybody else.

use crate::snapshot::{RouteMatch, Source};
use mesh_trust::Timestamp;
use serde::{Deserialize, Serialize};

/// One HTTPRoute or GRPCRoute attached to one port of a Service. Producers leave out routes that are not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRoute {
    /// `HTTPRoute` or `GRPCRoute`.
    pub kind: String,
    /// Namespace; another than the Service's: a consumer route.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.creationTimestamp`: of two equal matches the older route's wins, then the name decides.
    pub created: Option<Timestamp>,
    /// Its rules, in order.
    pub rules: Vec<ServiceRule>,
    /// Where it is declared.
    pub source: Source,
}

/// One rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRule {
    /// Any of these; never empty (a rule without matches has the one that matches every request).
    pub matches: Vec<RouteMatch>,
    /// What is done to requests and answers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<TrafficFilter>,
    /// Where requests go, by weight. Empty, or with a sum of weights of 0: they are answered with 500 (Gateway API),
    /// unless a filter redirects.
    pub backends: Vec<Backend>,
    /// How long is waited.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// When a second try is made beside the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Whether clients come back to the endpoint that they had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// A Service port that requests are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Its share: weight over the sum of weights of the rule; 0 to 1,000,000.
    pub weight: u32,
    /// What is done to what goes to this backend alone, after the rule's filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<TrafficFilter>,
    /// Why it cannot be used (no such Service, no ReferenceGrant, a kind that is not known): its share gets 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
}

/// How long is waited, in milliseconds. `None` or 0: without limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// From the request's arrival to the end of its answer's head, all tries together (`timeouts.request`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_ms: Option<u64>,
    /// One try (`timeouts.backendRequest`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request_ms: Option<u64>,
}

/// What is tried again, where that is safe: nothing of the answer has been passed on, and the body can be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries after the first; 1 to [`crate::limits::RETRY_ATTEMPTS_MAX`].
    pub attempts: u32,
    /// HTTP statuses that are tried again, sorted.
    pub statuses: Vec<u16>,
    /// gRPC codes that are tried again, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_codes: Vec<u16>,
    /// Shortest wait before the next try, in milliseconds; doubled each time, and jittered.
    pub backoff_ms: u64,
}

/// When a second try of a request is made at another endpoint, beside the first; the first good answer counts. Only of
/// what may be done twice, and within the budget of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Hedge {
    /// So many milliseconds after the first, 1 to [`crate::limits::HEDGE_MS_MAX`].
    AfterMs(u64),
    /// Once the first has taken longer than so many percent of those before it, 50 to 99.
    Percentile(u8),
}

/// How clients come back to the endpoint that they had (Gateway API, `sessionPersistence`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Name of the cookie or header.
    pub name: String,
    /// What carries it.
    pub carrier: SessionCarrier,
    /// `Path` of the cookie.
    pub path: String,
    /// How long a session lasts, in seconds; `None`: as long as its endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lives_secs: Option<u32>,
    /// Whether a cookie outlives the client's own session, for as long as this one lasts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionCarrier {
    /// `Set-Cookie`, then `Cookie`.
    Cookie,
    /// A header of both answers and requests.
    Header,
}

/// How the endpoints of a Service share requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balancing {
    /// By what.
    #[serde(default)]
    pub by: BalanceBy,
    /// For how long an endpoint that joins others gets less than its share, in milliseconds.
    #[serde(default)]
    pub slow_start_ms: u64,
}

/// What an endpoint is chosen by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum BalanceBy {
    /// Of two drawn the one with the smaller product of latency and requests under way.
    #[default]
    PeakEwma,
    /// Of two drawn the one with fewer requests under way.
    Requests,
    /// The same one for the same key; what has none as [`BalanceBy::PeakEwma`].
    Key(BalanceKey),
}

/// What requests that go to one endpoint have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum BalanceKey {
    /// The first value of this header, in lower case.
    Header(String),
    /// This cookie.
    Cookie(String),
    /// The identity of the client's own proxy.
    SourceIdentity,
}

/// When an endpoint of a Service is left out for its answers: a breaker on consecutive failures, as Linkerd has it, and
/// beside it one on the share of successes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureAccrual {
    /// Failures in a row (5xx, their gRPC codes, no answer) after which it is left out; at least 1.
    pub max_failures: u32,
    /// How long it is left out the first time, in milliseconds; doubled each time that the one request of its probation
    /// fails too.
    pub min_penalty_ms: u64,
    /// The longest time, in milliseconds.
    pub max_penalty_ms: u64,
    /// Up to this share of each penalty is added at random, in percent.
    pub jitter_percent: u32,
    /// The share of successes, if that counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// The share of a Service's endpoints that may be left out for their answers at one time, in percent; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_percent_max: Option<u32>,
}

/// The share of successes below which an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessRate {
    /// In percent of the requests of the window, 1 to 100.
    pub percent_min: u32,
    /// How far back requests count, in milliseconds.
    pub window_ms: u64,
    /// Requests below which their share means nothing; at least 1.
    pub requests_min: u32,
}

impl Default for SuccessRate {
    /// Linkerd's values.
    fn default() -> Self {
        Self {
            percent_min: 80,
            window_ms: 10_000,
            requests_min: 5,
        }
    }
}

impl Default for FailureAccrual {
    /// Linkerd's values.
    fn default() -> Self {
        Self {
            max_failures: 7,
            min_penalty_ms: 1_000,
            max_penalty_ms: 60_000,
            jitter_percent: 50,
            success_rate: None,
            ejected_percent_max: None,
        }
    }
}

/// What is done to a request, or to its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TrafficFilter {
    /// Changes headers of the request.
    RequestHeaders(HeaderChange),
    /// Changes headers of the answer.
    ResponseHeaders(HeaderChange),
    /// Answers with a redirect, and goes nowhere.
    Redirect {
        /// `http` or `https`; `None`: as it came.
        scheme: Option<String>,
        /// Host; `None`: as it came.
        hostname: Option<String>,
        /// Port; `None`: the scheme's if a scheme is named, otherwise the one that was called.
        port: Option<u16>,
        /// Path; `None`: as it came.
        path: Option<PathChange>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// Changes host or path.
    Rewrite {
        /// The host that the backend gets.
        hostname: Option<String>,
        /// The path that it gets.
        path: Option<PathChange>,
    },
    /// Sends a copy elsewhere; its answer is thrown away and never waited for.
    Mirror {
        /// Where to; its weight means nothing.
        to: Backend,
        /// Share of the requests that is copied: `numerator` of `denominator`.
        numerator: u32,
        /// Never 0.
        denominator: u32,
    },
}

/// A change of headers: names in lower case. Set, then add, then remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChange {
    /// Replaced or added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    /// Removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A change of the path; the query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathChange {
    /// The whole path.
    Full(String),
    /// What a prefix match held, by whole segments.
    Prefix(String),
}
