//! What a control needs of a metric: `e1.mtls_percent >= 100`.

use crate::evidence::metric::{Metric, Number, Reading, metric};
use std::cmp::Ordering;
use std::fmt;

/// A metric, a comparison, a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The metric.
    pub metric: &'static Metric,
    comparison: Comparison,
    threshold: Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Exactly,
}

impl Need {
    /// Reads `METRIC >= NUMBER`, `METRIC <= NUMBER` or `METRIC == NUMBER`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, comparison, number] = words.as_slice() else {
            return Err(format!("`{text}` is not `METRIC >= NUMBER`"));
        };
        let metric = metric(name).ok_or_else(|| format!("there is no metric `{name}`"))?;
        let comparison = match *comparison {
            ">=" => Comparison::AtLeast,
            "<=" => Comparison::AtMost,
            "==" => Comparison::Exactly,
            other => return Err(format!("`{other}` is no comparison: write >=, <= or ==")),
        };
        let threshold = Number::parse(number)
            .ok_or_else(|| format!("`{number}` is no number with two decimals at most"))?;
        Ok(Self {
            metric,
            comparison,
            threshold,
        })
    }

    /// Whether a reading meets it; none if that cannot be told, or need not be.
    pub fn met(&self, reading: &Reading) -> Option<bool> {
        let Reading::Value(number) = reading else {
            return None;
        };
        let order = number.cmp(&self.threshold);
        Some(match self.comparison {
            Comparison::AtLeast => order != Ordering::Less,
            Comparison::AtMost => order != Ordering::Greater,
            Comparison::Exactly => order == Ordering::Equal,
        })
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comparison = match self.comparison {
            Comparison::AtLeast => ">=",
            Comparison::AtMost => "<=",
            Comparison::Exactly => "==",
        };
        write!(f, "{} {comparison} {}", self.metric.id, self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_as_they_are_written() {
        for text in [
            "e1.mtls_percent >= 100",
            "e3.audit_ports <= 0",
            "e9.invariants == 0.25",
        ] {
            assert_eq!(Need::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_need_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "not `METRIC"),
            ("e1.mtls_percent", "not `METRIC"),
            ("e1.mtls_percent >= 100 percent", "not `METRIC"),
            ("e1.nothing >= 1", "no metric `e1.nothing`"),
            ("e1.mtls_percent > 99", "`>` is no comparison"),
            ("e1.mtls_percent >= -1", "`-1` is no number"),
            ("e1.mtls_percent >= 1.005", "`1.005` is no number"),
            ("e1.mtls_percent >= 1.", "`1.` is no number"),
            ("e1.mtls_percent >= 99999999999999999999", "is no number"),
        ] {
            let error = Need::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_share_that_is_nearly_all_is_not_all() {
        let need = Need::parse("e1.mtls_percent >= 100").expect("a need");
        let share = |part, all| need.met(&Reading::Value(Number::percent(part, all)));
        assert_eq!(share(999_999, 1_000_000), Some(false));
        assert_eq!(share(1_000_000, 1_000_000), Some(true));
        assert_eq!(share(u64::MAX - 1, u64::MAX), Some(false));
        assert_eq!(need.met(&Reading::Unknown(String::new())), None);
        assert_eq!(need.met(&Reading::NotApplicable(String::new())), None);
    }
}
