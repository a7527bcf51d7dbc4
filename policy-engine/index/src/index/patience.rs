//! Annotations of Services and routes: retries and timeouts, which are Linkerd's, and hedges, which are ours.
//!
//! What a route's own annotations say comes before what its rules say, and that before what the annotations of the Service
//! say (as with Linkerd). A value that cannot be read is reported and counts as if it did not stand: one more try is
//! never made by mistake.

use crate::limits::RETRY_BACKOFF_MS;
use mesh_policy::limits::{HEDGE_MS_MAX, RETRY_ATTEMPTS_MAX};
use mesh_policy::traffic::{Hedge, Retry, Timeouts};
use std::collections::BTreeMap;

/// Annotations about waiting that are known, and not applied.
const NOT_APPLIED: [&str; 2] = ["timeout.linkerd.io/response", "timeout.linkerd.io/idle"];

/// When a second try of a request is made beside the first.
const HEDGE_AFTER: &str = "mesh.internal/hedge-after";

/// What annotations of one object ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Patience {
    /// `timeout.linkerd.io/request`.
    request_ms: Option<u64>,
    /// `retry.linkerd.io/timeout`: one try.
    try_ms: Option<u64>,
    /// `retry.linkerd.io/http`.
    statuses: Vec<u16>,
    /// `retry.linkerd.io/grpc`.
    grpc_codes: Vec<u16>,
    /// `retry.linkerd.io/limit`.
    limit: Option<u32>,
    /// `mesh.internal/hedge-after`.
    hedge: Option<Hedge>,
    /// What is wrong with them.
    pub(super) problems: Vec<String>,
    /// What is known, and not applied.
    pub(super) not_applied: Vec<&'static str>,
}

impl Patience {
    /// Reads the annotations of a Service or a route.
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Self {
        let mut out = Self::default();
        // Most objects have none.
        let some = annotations.keys().any(|key| {
            key.starts_with("retry.linkerd.io/")
                || key.starts_with("timeout.linkerd.io/")
                || key == HEDGE_AFTER
        });
        if !some {
            return out;
        }
        let mut problems = Vec::new();
        let mut read = |name: &'static str, what: &str, take: &mut dyn FnMut(&str) -> bool| {
            if let Some(text) = annotations.get(name)
                && !take(text)
            {
                problems.push(format!("`{name}: {text}` is not {what}"));
            }
        };
        const DURATION: &str = "a whole number with `ms`, `s`, `m`, `h` or `d`";
        read("timeout.linkerd.io/request", DURATION, &mut |text| {
            out.request_ms = duration_ms(text);
            out.request_ms.is_some()
        });
        read("retry.linkerd.io/timeout", DURATION, &mut |text| {
            out.try_ms = duration_ms(text);
            out.try_ms.is_some()
        });
        read(
            "retry.linkerd.io/http",
            "a list of statuses such as `502`, `500-504`, `5xx` or `gateway-error`",
            &mut |text| {
                out.statuses = statuses(text).unwrap_or_default();
                !out.statuses.is_empty()
            },
        );
        read(
            "retry.linkerd.io/grpc",
            "a list of `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`",
            &mut |text| {
                out.grpc_codes = grpc_codes(text).unwrap_or_default();
                !out.grpc_codes.is_empty()
            },
        );
        let limit = format!("a number from 1 to {RETRY_ATTEMPTS_MAX}");
        read("retry.linkerd.io/limit", &limit, &mut |text| {
            out.limit = text
                .parse()
                .ok()
                .filter(|n| (1..=RETRY_ATTEMPTS_MAX).contains(n));
            out.limit.is_some()
        });
        let hedge = "a percentile from `p50` to `p99`, or a time from `1ms` to `1m`";
        read(HEDGE_AFTER, hedge, &mut |text| {
            out.hedge = hedge_after(text);
            out.hedge.is_some()
        });
        out.problems = problems;
        out.not_applied = NOT_APPLIED
            .into_iter()
            .filter(|name| annotations.contains_key(*name))
            .collect();
        out
    }

    /// Whether it asks for anything that can be done.
    pub(super) fn asks(&self) -> bool {
        self.request_ms.is_some() || self.retries() || self.hedge.is_some()
    }

    /// Whether it asks for second tries beside the first.
    pub(super) fn hedges(&self) -> bool {
        self.hedge.is_some()
    }

    /// When a second try is made beside the first; what a route says comes before what its Service says.
    pub(super) fn hedge(&self, of_service: &Self) -> Option<Hedge> {
        self.hedge.or(of_service.hedge)
    }

    fn retries(&self) -> bool {
        !self.statuses.is_empty() || !self.grpc_codes.is_empty()
    }

    /// The limit of one try, which belongs to the retries that ask for it.
    fn try_ms(&self) -> Option<u64> {
        self.try_ms.filter(|_| self.retries())
    }

    fn retry(&self, statuses: &[u16], grpc_codes: &[u16]) -> Option<Retry> {
        (!statuses.is_empty() || !grpc_codes.is_empty()).then(|| Retry {
            attempts: self.limit.unwrap_or(1),
            statuses: statuses.to_vec(),
            grpc_codes: grpc_codes.to_vec(),
            backoff_ms: RETRY_BACKOFF_MS,
        })
    }

    /// Retries of a route of this kind: an HTTPRoute knows statuses, a GRPCRoute codes.
    fn retry_for(&self, grpc: bool) -> Option<Retry> {
        if grpc {
            self.retry(&[], &self.grpc_codes)
        } else {
            self.retry(&self.statuses, &[])
        }
    }
}

/// What one rule comes to: of the route's annotations, of the rule itself, of the Service's annotations.
pub(super) fn merge(
    of_route: &Patience,
    (timeouts, retry): (Timeouts, Option<Retry>),
    of_service: &Patience,
    grpc: bool,
) -> (Timeouts, Option<Retry>) {
    let retry = of_route
        .retry_for(grpc)
        .or(retry)
        .or_else(|| of_service.retry_for(grpc));
    let service_try = of_service.try_ms().filter(|_| !of_route.retries());
    let timeouts = Timeouts {
        request_ms: of_route
            .request_ms
            .or(timeouts.request_ms)
            .or(of_service.request_ms),
        backend_request_ms: of_route
            .try_ms()
            .or(timeouts.backend_request_ms)
            .or(service_try),
    };
    (timeouts, retry)
}

/// What a Service asks for by itself, whichever protocol is spoken.
pub(super) fn own(of_service: &Patience) -> (Timeouts, Option<Retry>) {
    let timeouts = Timeouts {
        request_ms: of_service.request_ms,
        backend_request_ms: of_service.try_ms(),
    };
    let retry = of_service.retry(&of_service.statuses, &of_service.grpc_codes);
    (timeouts, retry)
}

/// `p95`, or a duration.
fn hedge_after(text: &str) -> Option<Hedge> {
    let Some(percent) = text.strip_prefix('p') else {
        let ms = duration_ms(text).filter(|ms| (1..=HEDGE_MS_MAX).contains(ms))?;
        return Some(Hedge::AfterMs(ms));
    };
    let two_digits = percent.len() == 2 && percent.bytes().all(|byte| byte.is_ascii_digit());
    let percent: u8 = two_digits.then(|| percent.parse().ok()).flatten()?;
    (50..=99)
        .contains(&percent)
        .then_some(Hedge::Percentile(percent))
}

/// A duration as Linkerd writes it: one whole number and one unit; 0 needs none.
pub(super) fn duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn statuses(text: &str) -> Option<Vec<u16>> {
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        let status: u16 = digits.then(|| text.parse().ok()).flatten()?;
        (100..=599).contains(&status).then_some(status)
    };
    let mut out = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let (first, last) = match entry {
            "5xx" => (500, 599),
            "gateway-error" => (502, 504),
            _ => match entry.split_once('-') {
                Some((first, last)) => (status(first)?, status(last)?),
                None => (status(entry)?, status(entry)?),
            },
        };
        if first > last {
            return None;
        }
        out.extend(first..=last);
    }
    out.sort_unstable();
    out.dedup();
    Some(out)
}

fn grpc_codes(text: &str) -> Option<Vec<u16>> {
    let code = |name: &str| match name.trim() {
        "cancelled" => Some(1),
        "deadline-exceeded" => Some(4),
        "resource-exhausted" => Some(8),
        "internal" => Some(13),
        "unavailable" => Some(14),
        _ => None,
    };
    let mut out = text.split(',').map(code).collect::<Option<Vec<u16>>>()?;
    out.sort_unstable();
    out.dedup();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(annotations: &[(&str, &str)]) -> Patience {
        let annotations = annotations.iter();
        let owned = annotations.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Patience::of(&owned.collect())
    }

    #[test]
    fn values_are_read_as_linkerd_writes_them() {
        let read = patience(&[
            ("timeout.linkerd.io/request", "2m"),
            ("retry.linkerd.io/timeout", "300ms"),
            ("retry.linkerd.io/http", "gateway-error, 429"),
            ("retry.linkerd.io/grpc", "unavailable,cancelled"),
            ("retry.linkerd.io/limit", "3"),
            ("timeout.linkerd.io/idle", "1s"),
            ("mesh.internal/hedge-after", "p95"),
        ]);
        assert_eq!(read.hedge, Some(Hedge::Percentile(95)));
        let fixed = patience(&[("mesh.internal/hedge-after", "1m")]);
        assert_eq!(fixed.hedge, Some(Hedge::AfterMs(60_000)));
        assert!(fixed.asks() && fixed.problems.is_empty());
        assert_eq!(fixed.hedge(&read), Some(Hedge::AfterMs(60_000)));
        assert_eq!(Patience::default().hedge(&read), read.hedge);
        assert_eq!(read.problems, Vec::<String>::new());
        assert_eq!(read.not_applied, ["timeout.linkerd.io/idle"]);
        let (timeouts, retry) = own(&read);
        assert_eq!(
            (timeouts.request_ms, timeouts.backend_request_ms),
            (Some(120_000), Some(300))
        );
        let retry = retry.unwrap();
        assert_eq!(retry.statuses, [429, 502, 503, 504]);
        assert_eq!(retry.grpc_codes, [1, 14]);
        assert_eq!((retry.attempts, retry.backoff_ms), (3, 25));
        assert_eq!(
            patience(&[("retry.linkerd.io/http", "5xx")]).statuses.len(),
            100
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_is_said_and_asks_for_nothing() {
        for (key, value) in [
            ("timeout.linkerd.io/request", "10"),
            ("timeout.linkerd.io/request", "1.5s"),
            ("timeout.linkerd.io/request", "1m30s"),
            ("timeout.linkerd.io/request", ""),
            ("timeout.linkerd.io/request", "18446744073709551615d"),
            ("retry.linkerd.io/timeout", "s"),
            ("retry.linkerd.io/http", ""),
            ("retry.linkerd.io/http", "4xx"),
            ("retry.linkerd.io/http", "504-500"),
            ("retry.linkerd.io/http", "600"),
            ("retry.linkerd.io/http", "99"),
            ("retry.linkerd.io/http", "503,"),
            ("retry.linkerd.io/http", "+50"),
            ("retry.linkerd.io/grpc", "unknown"),
            ("retry.linkerd.io/grpc", ""),
            ("retry.linkerd.io/limit", "0"),
            ("retry.linkerd.io/limit", "11"),
            ("retry.linkerd.io/limit", "-1"),
            ("mesh.internal/hedge-after", ""),
            ("mesh.internal/hedge-after", "p"),
            ("mesh.internal/hedge-after", "p49"),
            ("mesh.internal/hedge-after", "p100"),
            ("mesh.internal/hedge-after", "p+9"),
            ("mesh.internal/hedge-after", "95"),
            ("mesh.internal/hedge-after", "0"),
            ("mesh.internal/hedge-after", "2m"),
        ] {
            let read = patience(&[(key, value)]);
            assert_eq!(read.problems.len(), 1, "{key}: {value}");
            assert!(!read.asks() && read.limit.is_none(), "{key}: {value}");
        }
    }

    #[test]
    fn a_route_comes_before_its_rules_and_they_before_the_service() {
        let of_service = patience(&[
            ("retry.linkerd.io/http", "500"),
            ("retry.linkerd.io/grpc", "internal"),
            ("retry.linkerd.io/timeout", "1s"),
            ("timeout.linkerd.io/request", "9s"),
        ]);
        let of_route = patience(&[
            ("retry.linkerd.io/http", "503"),
            ("timeout.linkerd.io/request", "3s"),
        ]);
        let nothing = Patience::default();
        let rule = Timeouts {
            request_ms: Some(5_000),
            backend_request_ms: Some(700),
        };
        let in_rule = Retry {
            attempts: 2,
            statuses: vec![502],
            grpc_codes: Vec::new(),
            backoff_ms: 1,
        };
        let statuses = |retry: Option<Retry>| retry.map(|retry| retry.statuses);

        let (timeouts, retry) = merge(&of_route, (rule, Some(in_rule.clone())), &of_service, false);
        assert_eq!(
            (timeouts.request_ms, timeouts.backend_request_ms),
            (Some(3_000), Some(700))
        );
        assert_eq!(statuses(retry), Some(vec![503]));
        let (timeouts, retry) = merge(&nothing, (rule, Some(in_rule)), &of_service, false);
        assert_eq!(timeouts.request_ms, Some(5_000));
        assert_eq!(statuses(retry), Some(vec![502]));
        let none = (Timeouts::default(), None);
        let (timeouts, retry) = merge(&nothing, none.clone(), &of_service, true);
        assert_eq!(
            (timeouts.request_ms, timeouts.backend_request_ms),
            (Some(9_000), Some(1_000))
        );
        assert_eq!(retry.unwrap().grpc_codes, [13]);
        // The route's retries say nothing of one try; that of the Service belongs to the Service's.
        assert_eq!(
            merge(&of_route, none, &of_service, false)
                .0
                .backend_request_ms,
            None
        );
    }
}
