//! How long a grant counts, from annotations: `mesh.internal/expires` and `mesh.internal/break-glass`.

use super::resource::Created;
use crate::limits::{BREAK_GLASS_SECS_MAX, REASON_BYTES_MAX};
use mesh_policy::snapshot::Term;
use mesh_trust::Timestamp;
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// RFC 3339 time from which on the object no longer counts.
pub(crate) const EXPIRES: &str = "mesh.internal/expires";
/// Why this grant is broken glass.
pub(crate) const BREAK_GLASS: &str = "mesh.internal/break-glass";

/// What annotations say of a term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadTerm {
    /// The term; that of a standing grant if anything is wrong.
    pub(crate) term: Term,
    /// What is wrong. An object with such a problem grants nothing: an end that cannot be read has passed.
    pub(crate) problems: Vec<String>,
    /// Broken glass whose age is not known, so that its end could not be compared with it.
    pub(crate) undated: bool,
}

/// Reads the term of an object.
pub(crate) fn read_term(annotations: &BTreeMap<String, String>, created: Created) -> ReadTerm {
    let mut out = ReadTerm::default();
    let expires = annotations.get(EXPIRES).map(|text| end(text));
    let reason = annotations.get(BREAK_GLASS).map(|text| reason(text));
    for problem in [
        expires.as_ref().and_then(|e| e.as_ref().err()),
        reason.as_ref().and_then(|r| r.as_ref().err()),
    ] {
        out.problems.extend(problem.cloned());
    }
    let end = expires.and_then(Result::ok);
    if reason.is_some() {
        match (end, created) {
            (None, _) if annotations.contains_key(EXPIRES) => {}
            (None, _) => out.problems.push(format!(
                "annotation `{BREAK_GLASS}` needs an end: set `{EXPIRES}` too"
            )),
            (Some(end), Created::At(created)) if end > created.plus_secs(BREAK_GLASS_SECS_MAX) => {
                out.problems.push(format!(
                    "annotation `{BREAK_GLASS}` allows at most {} hours: `{EXPIRES}` may be {} at the latest",
                    BREAK_GLASS_SECS_MAX / 3600,
                    created.plus_secs(BREAK_GLASS_SECS_MAX)
                ));
            }
            (Some(_), Created::At(_)) => {}
            (Some(_), Created::Unknown | Created::Unreadable) => out.undated = true,
        }
    }
    if out.problems.is_empty() {
        out.term = Term {
            expires: end,
            break_glass: reason.and_then(Result::ok),
        };
    }
    out
}

fn end(text: &str) -> Result<Timestamp, String> {
    instant(text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        format!("annotation `{EXPIRES}: {shown}` is not an RFC 3339 time since 1970 with at most milliseconds")
    })
}

/// An RFC 3339 time of this era, in whole milliseconds: what Cedar's `datetime` holds without rounding.
pub(crate) fn instant(text: &str) -> Option<Timestamp> {
    static FORM: OnceLock<Option<Regex>> = OnceLock::new();
    let form = FORM.get_or_init(|| {
        Regex::new(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?(Z|[+-][0-9]{2}:[0-9]{2})$").ok()
    });
    let well_formed = form.as_ref().is_some_and(|form| form.is_match(text));
    let time = text.parse::<Timestamp>().ok();
    time.filter(|time| well_formed && time.unix_secs() >= 0)
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("annotation `{BREAK_GLASS}` must give a reason"));
    }
    if text.len() > REASON_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "the reason in annotation `{BREAK_GLASS}` must be one line of at most {REASON_BYTES_MAX} bytes"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(annotations: &[(&str, &str)], created: Created) -> ReadTerm {
        let own = |(k, v): &(&str, &str)| (format!("mesh.internal/{k}"), (*v).to_owned());
        read_term(&annotations.iter().map(own).collect(), created)
    }

    fn at(text: &str) -> Created {
        Created::At(text.parse().unwrap())
    }

    #[test]
    fn ends_are_rfc_3339_in_whole_milliseconds() {
        for (text, want) in [
            ("2027-01-31T18:00:00Z", Some("2027-01-31T18:00:00Z")),
            ("2027-01-31T18:00:00.25Z", Some("2027-01-31T18:00:00.250Z")),
            ("2027-01-31T18:00:00+02:00", Some("2027-01-31T16:00:00Z")),
            ("9999-12-30T00:00:00Z", Some("9999-12-30T00:00:00Z")),
            ("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00Z")),
            ("1969-12-31T23:59:59Z", None),
            ("2027-01-31T18:00:00", None),
            ("2027-01-31", None),
            ("2027-01-31 18:00:00Z", None),
            ("2027-01-31t18:00:00z", None),
            ("2027-02-30T18:00:00Z", None),
            ("2027-01-31T25:00:00Z", None),
            ("2027-01-31T18:00:00.0001Z", None),
            ("2027-01-31T18:00:00Z[UTC]", None),
            (" 2027-01-31T18:00:00Z", None),
            ("+002027-01-31T18:00:00Z", None),
            ("1801418400", None),
            ("tomorrow", None),
            ("", None),
        ] {
            let read = term(&[("expires", text)], Created::Unknown);
            let want = want.map(|w| w.parse::<Timestamp>().unwrap());
            assert_eq!(read.term.expires, want, "{text}");
            assert_eq!(read.problems.len(), usize::from(want.is_none()), "{text}");
            assert!(!read.undated, "{text}: no broken glass");
        }
    }

    #[test]
    fn broken_glass_needs_a_reason_and_an_end_within_a_day_of_its_making() {
        let born = at("2027-01-31T18:00:00Z");
        let glass =
            |reason: &str, end: &str| term(&[("break-glass", reason), ("expires", end)], born);
        let sound = glass(" incident 4711 ", "2027-02-01T18:00:00Z");
        assert_eq!(sound.problems, Vec::<String>::new());
        assert_eq!(sound.term.break_glass.as_deref(), Some("incident 4711"));
        for (read, what) in [
            (glass("", "2027-02-01T17:00:00Z"), "no reason"),
            (glass(" \t", "2027-02-01T17:00:00Z"), "a blank reason"),
            (glass("a\nb", "2027-02-01T17:00:00Z"), "two lines"),
            (
                glass(&"a".repeat(1025), "2027-02-01T17:00:00Z"),
                "a long reason",
            ),
            (
                glass("why", "2027-02-01T18:00:00.001Z"),
                "a day and a millisecond",
            ),
            (glass("why", "soon"), "an unreadable end"),
            (term(&[("break-glass", "why")], born), "no end"),
        ] {
            assert_eq!(read.problems.len(), 1, "{what}: {:?}", read.problems);
            assert_eq!(read.term, Term::default(), "{what}");
        }
    }

    #[test]
    fn broken_glass_of_unknown_age_is_a_doubt() {
        let glass = [("break-glass", "why"), ("expires", "2027-02-01T18:00:00Z")];
        for created in [Created::Unknown, Created::Unreadable] {
            let read = term(&glass, created);
            assert!(read.undated && read.problems.is_empty());
            assert!(read.term.break_glass.is_some());
        }
        assert!(!term(&glass, at("2027-02-01T00:00:00Z")).undated);
        assert_eq!(term(&[], Created::Unknown), ReadTerm::default());
    }
}
