//! Linkerd's annotations of Services about endpoints that fail: `balancer.linkerd.io/failure-accrual`.
//!
//! A value that cannot be read is reported, and its default holds; a breaker of a kind that is not known is none.

use mesh_policy::traffic::FailureAccrual;
use std::collections::BTreeMap;

/// What all the annotations begin with.
const PREFIX: &str = "balancer.linkerd.io/failure-accrual";

/// The kind of breaker that is known.
const CONSECUTIVE: &str = "consecutive";

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
        if kind == "unified" {
            out.not_applied.push(format!("`{PREFIX}: unified`"));
            return out;
        }
        if kind != CONSECUTIVE {
            let problem = format!("`{PREFIX}: {kind}` is not `{CONSECUTIVE}`");
            out.problems.push(problem);
            return out;
        }
        let mut accrual = FailureAccrual::default();
        let mut read = |key: &str, what: &str, take: &mut dyn FnMut(&str) -> Option<()>| {
            let name = format!("{PREFIX}-{CONSECUTIVE}-{key}");
            if let Some(text) = annotations.get(&name)
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
        read("max-failures", "a whole number above 0", &mut |text| {
            let number = text.parse().ok();
            accrual.max_failures = number.filter(|n| (1..=FAILURES_MAX).contains(n))?;
            Some(())
        });
        read("min-penalty", PENALTY, &mut |text| {
            accrual.min_penalty_ms = penalty(text)?;
            Some(())
        });
        read("max-penalty", PENALTY, &mut |text| {
            accrual.max_penalty_ms = penalty(text)?;
            Some(())
        });
        read("jitter-ratio", "a number from 0 to 100", &mut |text| {
            let ratio: f64 = text.parse().ok()?;
            accrual.jitter_percent = percent(ratio)?;
            Some(())
        });
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
        };
        assert_eq!(all.accrual, Some(wanted));
    }

    #[test]
    fn the_rest_says_nothing_without_a_kind_that_is_known() {
        let alone = breaker(&[("-consecutive-max-failures", "3")]);
        assert_eq!(alone, Breaker::default());
        let unified = breaker(&[("", "unified")]);
        assert_eq!((unified.accrual, unified.not_applied.len()), (None, 1));
        let unknown = breaker(&[("", "Consecutive")]);
        assert_eq!((unknown.accrual, unknown.problems.len()), (None, 1));
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
