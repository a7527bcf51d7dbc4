//! Linkerd's annotations of Services about endpoints that fail: `balancer.linkerd.io/failure-accrual`.
//!
//! A value that cannot be read is reported, and its default holds; a breaker of a kind that is not known is none.

use mesh_policy::traffic::{FailureAccrual, SuccessRate};
use std::collections::BTreeMap;

/// What all the annotations begin with.
const PREFIX: &str = "balancer.linkerd.io/failure-accrual";

/// The kinds of breakers that are known: failures in a row, and beside them the share of successes.
const CONSECUTIVE: &str = "consecutive";
const UNIFIED: &str = "unified";

/// What the annotations about the share of successes begin with.
const ALPHA: &str = "balancer.alpha.linkerd.io/failure-accrual";

/// How many endpoints may be left out at one time: ours.
const EJECTED_MAX: &str = "mesh.internal/max-ejected-percent";

/// Longest window, an hour; shortest, Linkerd's.
const WINDOW_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// Most requests that a share may need (Linkerd).
const REQUESTS_MAX: u32 = 1_000_000;

/// Most failures in a row, and the longest penalty: a day. What is more was not meant.
const FAILURES_MAX: u32 = 1_000_000;
const PENALTY_MS_MAX: u64 = 86_400_000;

/// Largest jitter, as a share of the penalty (Linkerd).
const JITTER_RATIO_MAX: f64 = 100.0;

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Breaker {
    /// `None`: no endpoint is left out.
    pub(super) accrual: Option<FailureAccrual>,
    /// What is wrong with them.
    pub(super) problems: Vec<String>,
    /// What is known, and not applied.
    pub(super) not_applied: Vec<String>,
}

impl Breaker {
    /// Reads the annotations of a Service.
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Self {
        let mut out = Self::default();
        let Some(kind) = annotations.get(PREFIX) else {
            return out;
        };
        if ![CONSECUTIVE, UNIFIED].contains(&kind.as_str()) {
            let problem = format!("`{PREFIX}: {kind}` is not `{CONSECUTIVE}` or `{UNIFIED}`");
            out.problems.push(problem);
            return out;
        }
        let mut accrual = FailureAccrual::default();
        let mut read = |name: &str, what: &str, take: &mut dyn FnMut(&str) -> Option<()>| {
            if let Some(text) = annotations.get(name)
                && take(text).is_none()
            {
                out.problems.push(format!("`{name}: {text}` is not {what}"));
            }
        };
        let penalty = |text: &str| {
            let ms = super::patience::duration_ms(text)?;
            (1..=PENALTY_MS_MAX).contains(&ms).then_some(ms)
        };
        const PENALTY: &str = "a time from `1ms` to `1d`";
        let key = |key: &str| format!("{PREFIX}-{CONSECUTIVE}-{key}");
        let name = key("max-failures");
        read(&name, "a whole number above 0", &mut |text| {
            let number = text.parse().ok();
            accrual.max_failures = number.filter(|n| (1..=FAILURES_MAX).contains(n))?;
            Some(())
        });
        read(&key("min-penalty"), PENALTY, &mut |text| {
            accrual.min_penalty_ms = penalty(text)?;
            Some(())
        });
        read(&key("max-penalty"), PENALTY, &mut |text| {
            accrual.max_penalty_ms = penalty(text)?;
            Some(())
        });
        let name = key("jitter-ratio");
        read(&name, "a number from 0 to 100", &mut |text| {
            let ratio: f64 = text.parse().ok()?;
            accrual.jitter_percent = percent(ratio)?;
            Some(())
        });
        read(EJECTED_MAX, "a whole number from 0 to 100", &mut |text| {
            let percent = text.parse().ok().filter(|percent| *percent <= 100)?;
            accrual.ejected_percent_max = Some(percent);
            Some(())
        });
        if kind == UNIFIED {
            let mut rate = SuccessRate::default();
            let key = |key: &str| format!("{ALPHA}-{key}");
            let name = key("success-rate-threshold");
            read(&name, "a number above 0, at most 1", &mut |text| {
                let share: f64 = text.parse().ok()?;
                rate.percent_min = percent(share).filter(|share| (1..=100).contains(share))?;
                Some(())
            });
            let name = key("success-rate-window");
            read(&name, "a time from `10ms` to `1h`", &mut |text| {
                let ms = super::patience::duration_ms(text)?;
                rate.window_ms = WINDOW_MS.contains(&ms).then_some(ms)?;
                Some(())
            });
            let name = key("success-rate-min-requests");
            read(&name, "a whole number above 0", &mut |text| {
                let number = text.parse().ok();
                rate.requests_min = number.filter(|n| (1..=REQUESTS_MAX).contains(n))?;
                Some(())
            });
            accrual.success_rate = Some(rate);
            let retry_after = key("honor-retry-after");
            if annotations
                .get(&retry_after)
                .is_some_and(|said| said != "false")
            {
                out.not_applied.push(format!("`{retry_after}`"));
            }
        }
        if accrual.min_penalty_ms > accrual.max_penalty_ms {
            out.problems.push(format!(
                "the shortest penalty of `{PREFIX}` is longer than the longest; the longest is raised to it"
            ));
            accrual.max_penalty_ms = accrual.min_penalty_ms;
        }
        out.accrual = Some(accrual);
        out
    }
}

/// A ratio in whole percent.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 10,000, as it is compared before"
)]
fn percent(ratio: f64) -> Option<u32> {
    (0.0..=JITTER_RATIO_MAX)
        .contains(&ratio)
        .then(|| (ratio * 100.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(annotations: &[(&str, &str)]) -> Breaker {
        let annotations = annotations.iter();
        let named = annotations.map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()));
        Breaker::of(&named.collect())
    }

    #[test]
    fn a_breaker_has_linkerds_values_unless_others_are_given() {
        assert_eq!(breaker(&[]), Breaker::default());
        let plain = breaker(&[("", "consecutive")]);
        assert_eq!(plain.accrual, Some(FailureAccrual::default()));
        let all = breaker(&[
            ("", "consecutive"),
            ("-consecutive-max-failures", "3"),
            ("-consecutive-min-penalty", "500ms"),
            ("-consecutive-max-penalty", "2m"),
            ("-consecutive-jitter-ratio", "0.25"),
        ]);
        assert_eq!(all.problems, [""; 0]);
        let wanted = FailureAccrual {
            max_failures: 3,
            min_penalty_ms: 500,
            max_penalty_ms: 120_000,
            jitter_percent: 25,
            ..FailureAccrual::default()
        };
        assert_eq!(all.accrual, Some(wanted));
    }

    #[test]
    fn the_rest_says_nothing_without_a_kind_that_is_known() {
        let alone = breaker(&[("-consecutive-max-failures", "3")]);
        assert_eq!(alone, Breaker::default());
        let unknown = breaker(&[("", "Consecutive")]);
        assert_eq!((unknown.accrual, unknown.problems.len()), (None, 1));
    }

    fn unified(annotations: &[(&str, &str)]) -> Breaker {
        let kind = (PREFIX.to_owned(), UNIFIED.to_owned());
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Breaker::of(&annotations.iter().map(own).chain([kind]).collect())
    }

    #[test]
    fn a_unified_breaker_looks_at_the_share_of_successes_too() {
        let rate = |read: Breaker| read.accrual.and_then(|accrual| accrual.success_rate);
        assert_eq!(rate(unified(&[])), Some(SuccessRate::default()));
        assert_eq!(rate(breaker(&[("", "consecutive")])), None);
        const A: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
        const B: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
        const C: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";
        let all = unified(&[
            (A, "0.95"),
            (B, "30s"),
            (C, "20"),
            (EJECTED_MAX, "50"),
            (
                "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
                "3",
            ),
        ]);
        assert_eq!(all.problems, [""; 0]);
        let wanted = SuccessRate {
            percent_min: 95,
            window_ms: 30_000,
            requests_min: 20,
        };
        let accrual = all.accrual.unwrap();
        assert_eq!(accrual.success_rate, Some(wanted));
        assert_eq!(
            (accrual.max_failures, accrual.ejected_percent_max),
            (3, Some(50))
        );
        for (key, value) in [
            (A, "0"),
            (A, "1.01"),
            (A, "-0.5"),
            (A, "NaN"),
            (A, "80%"),
            (B, "9ms"),
            (B, "2h"),
            (B, "10"),
            (C, "0"),
            (C, "1000001"),
            (EJECTED_MAX, "101"),
            (EJECTED_MAX, "-1"),
            (EJECTED_MAX, "half"),
        ] {
            let read = unified(&[(key, value)]);
            assert_eq!(read.problems.len(), 1, "{key}: {value}");
            assert_eq!(rate(read), Some(SuccessRate::default()), "{key}: {value}");
        }
        let after = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";
        assert_eq!(unified(&[(after, "true")]).not_applied.len(), 1);
        assert_eq!(unified(&[(after, "false")]).not_applied.len(), 0);
    }

    #[test]
    fn a_value_that_cannot_be_read_is_said_and_its_default_holds() {
        for (key, value) in [
            ("max-failures", "0"),
            ("max-failures", "-1"),
            ("max-failures", "1000001"),
            ("max-failures", "many"),
            ("min-penalty", "0"),
            ("min-penalty", "2d"),
            ("min-penalty", "1"),
            ("max-penalty", ""),
            ("jitter-ratio", "-0.1"),
            ("jitter-ratio", "101"),
            ("jitter-ratio", "NaN"),
        ] {
            let key = format!("-consecutive-{key}");
            let read = breaker(&[("", "consecutive"), (&key, value)]);
            assert_eq!(read.problems.len(), 1, "{key}: {value}");
            assert_eq!(
                read.accrual,
                Some(FailureAccrual::default()),
                "{key}: {value}"
            );
        }
        let crossed = breaker(&[("", "consecutive"), ("-consecutive-min-penalty", "2m")]);
        assert_eq!(crossed.problems.len(), 1);
        assert_eq!(crossed.accrual.unwrap().max_penalty_ms, 120_000);
    }
}
