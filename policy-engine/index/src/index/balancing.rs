//! Annotations of Services about how their endpoints share requests: `mesh.internal/balancer`, its key, slow start; and the
//! label of pods that gives them more than one share.
//!
//! A value that cannot be read is reported, and counts as if it did not stand.

use mesh_policy::limits::{ENDPOINT_WEIGHT_MAX, SLOW_START_MS_MAX};
use mesh_policy::traffic::{BalanceBy, BalanceKey, Balancing};
use std::collections::BTreeMap;

const BALANCER: &str = "mesh.internal/balancer";
const KEY: &str = "mesh.internal/balancer-key";
const SLOW_START: &str = "mesh.internal/slow-start";

/// Label of pods.
pub(super) const WEIGHT: &str = "mesh.internal/balancer-weight";

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadBalancing {
    /// `None`: nothing but what holds anyway.
    pub(super) balancing: Option<Balancing>,
    /// What is wrong with them.
    pub(super) problems: Vec<String>,
}

impl ReadBalancing {
    /// Reads the annotations of a Service.
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Self {
        let mut problems = Vec::new();
        let mut by = BalanceBy::PeakEwma;
        let key = annotations.get(KEY).map(|text| key(text));
        match annotations.get(BALANCER).map(String::as_str) {
            None | Some("peak-ewma") => {}
            Some("least-request") => by = BalanceBy::Requests,
            Some("consistent-hash") => match &key {
                Some(Some(key)) => by = BalanceBy::Key(key.clone()),
                Some(None) => {} // said below
                None => problems.push(format!("`{BALANCER}: consistent-hash` needs `{KEY}`")),
            },
            Some(other) => problems.push(format!(
                "`{BALANCER}: {other}` is not `peak-ewma`, `least-request` or `consistent-hash`"
            )),
        }
        match (&key, annotations.get(KEY)) {
            (Some(None), Some(text)) => problems.push(format!(
                "`{KEY}: {text}` is not `source-identity`, `header:<name>` or `cookie:<name>`"
            )),
            (Some(Some(_)), _) if !matches!(by, BalanceBy::Key(_)) => problems.push(format!(
                "`{KEY}` says nothing without `{BALANCER}: consistent-hash`"
            )),
            _ => {}
        }
        let slow_start_ms = match annotations.get(SLOW_START) {
            None => 0,
            Some(text) => {
                let ms = super::patience::duration_ms(text);
                ms.filter(|ms| (1..=SLOW_START_MS_MAX).contains(ms))
                    .unwrap_or_else(|| {
                        problems.push(format!(
                            "`{SLOW_START}: {text}` is not a time from `1ms` to `1h`"
                        ));
                        0
                    })
            }
        };
        let balancing = Balancing { by, slow_start_ms };
        Self {
            balancing: (balancing != Balancing::default()).then_some(balancing),
            problems,
        }
    }
}

/// A key, if the text is one. Names are tokens, as those of headers and of cookies are.
fn key(text: &str) -> Option<BalanceKey> {
    if text == "source-identity" {
        return Some(BalanceKey::SourceIdentity);
    }
    let (kind, name) = text.split_once(':')?;
    let fits = crate::manifest::route_match::is_token(name) && name.len() <= 128;
    match kind {
        _ if !fits => None,
        "header" => Some(BalanceKey::Header(name.to_ascii_lowercase())),
        "cookie" => Some(BalanceKey::Cookie(name.to_owned())),
        _ => None,
    }
}

/// How many shares a pod has, by its label; an error says what is wrong with it.
pub(super) fn weight(labels: &BTreeMap<String, String>) -> Result<u32, String> {
    let Some(text) = labels.get(WEIGHT) else {
        return Ok(1);
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let weight = digits.then(|| text.parse().ok()).flatten();
    weight
        .filter(|weight| (1..=ENDPOINT_WEIGHT_MAX).contains(weight))
        .ok_or_else(|| {
            format!("label `{WEIGHT}: {text}` is not a whole number from 1 to {ENDPOINT_WEIGHT_MAX}: it counts as 1")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> ReadBalancing {
        let own =
            |(key, value): &(&str, &str)| (format!("mesh.internal/{key}"), (*value).to_owned());
        ReadBalancing::of(&annotations.iter().map(own).collect())
    }

    #[test]
    fn what_is_asked_for_is_read() {
        assert_eq!(read(&[]), ReadBalancing::default());
        assert_eq!(read(&[("balancer", "peak-ewma")]), ReadBalancing::default());
        let by = |by| {
            Some(Balancing {
                by,
                slow_start_ms: 0,
            })
        };
        let least = read(&[("balancer", "least-request")]);
        assert_eq!(least.balancing, by(BalanceBy::Requests));
        for (key, want) in [
            ("source-identity", BalanceKey::SourceIdentity),
            ("header:X-User", BalanceKey::Header("x-user".to_owned())),
            ("cookie:Sid", BalanceKey::Cookie("Sid".to_owned())),
        ] {
            let hashed = read(&[("balancer", "consistent-hash"), ("balancer-key", key)]);
            assert_eq!(hashed.problems, [""; 0], "{key}");
            assert_eq!(hashed.balancing, by(BalanceBy::Key(want)), "{key}");
        }
        let slow = read(&[("slow-start", "30s")]).balancing.unwrap();
        assert_eq!((slow.by, slow.slow_start_ms), (BalanceBy::PeakEwma, 30_000));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_asks_for_nothing() {
        for annotations in [
            &[("balancer", "ring-hash")][..],
            &[("balancer", "Least-Request")],
            &[("balancer", "")],
            &[("balancer", "consistent-hash")],
            &[("balancer", "consistent-hash"), ("balancer-key", "header:")],
            &[
                ("balancer", "consistent-hash"),
                ("balancer-key", "header:a b"),
            ],
            &[("balancer", "consistent-hash"), ("balancer-key", "query:q")],
            &[("balancer", "consistent-hash"), ("balancer-key", "x-user")],
            &[("balancer-key", "header:x-user")],
            &[("slow-start", "0")],
            &[("slow-start", "2h")],
            &[("slow-start", "30")],
        ] {
            let read = read(annotations);
            assert_eq!(read.problems.len(), 1, "{annotations:?}: {read:?}");
            assert_eq!(read.balancing, None, "{annotations:?}");
        }
    }

    #[test]
    fn a_pod_has_one_share_unless_its_label_says_more() {
        let of = |text: &str| weight(&BTreeMap::from([(WEIGHT.to_owned(), text.to_owned())]));
        assert_eq!(weight(&BTreeMap::new()), Ok(1));
        assert_eq!((of("1"), of("100")), (Ok(1), Ok(100)));
        for text in ["0", "101", "-1", "+1", "1.5", "", "many"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
