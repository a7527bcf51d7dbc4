//! Paths to patterns: what varies from request to request is told from what names something.

use std::collections::{BTreeMap, BTreeSet};

/// Digits and letters of a segment that is taken for an identifier in hexadecimal.
const HEX_LEAST: usize = 16;

/// One segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Exactly this.
    Literal(String),
    /// A number.
    Number,
    /// A UUID.
    Uuid,
    /// A long number in hexadecimal.
    Hex,
    /// Any one segment: more different words were seen here than a list should have.
    Any,
}

/// A path whose segments may vary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(pub Vec<Segment>);

impl Segment {
    fn of(text: &str) -> Self {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        if digits(text) {
            Self::Number
        } else if is_uuid(text) {
            Self::Uuid
        } else if text.len() >= HEX_LEAST && hex(text) {
            Self::Hex
        } else {
            Self::Literal(text.to_owned())
        }
    }

    fn takes(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Any => !text.is_empty(),
            // Every UUID, number and identifier in hexadecimal is of one class alone.
            _ => Self::of(text) == *self,
        }
    }

    fn regex(&self) -> String {
        match self {
            Self::Literal(text) => regex_syntax::escape(text),
            Self::Number => "[0-9]+".to_owned(),
            Self::Uuid => {
                "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
                    .to_owned()
            }
            // At least one letter before or after the digits: numbers alone are another class.
            Self::Hex => format!(
                "(?:[0-9]*[A-Fa-f][0-9A-Fa-f]{{{},}}|[0-9A-Fa-f]{{{},}}[A-Fa-f][0-9]*)",
                HEX_LEAST - 1,
                HEX_LEAST - 1
            ),
            Self::Any => "[^/]+".to_owned(),
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && parts
            .iter()
            .all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Pattern {
    /// The narrowest pattern of a canonical path.
    pub fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        Self(path.split('/').map(Segment::of).collect())
    }

    /// Whether a canonical path is one of its.
    pub fn takes(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut texts = path.split('/');
        let all = self
            .0
            .iter()
            .all(|segment| texts.next().is_some_and(|text| segment.takes(text)));
        all && texts.next().is_none()
    }

    /// The path, if it does not vary.
    pub fn exact(&self) -> Option<String> {
        let texts = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            _ => None,
        });
        let texts: Option<Vec<&str>> = texts.collect();
        texts.map(|texts| format!("/{}", texts.join("/")))
    }

    /// As a regular expression over the whole path.
    pub fn regex(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(Segment::regex).collect();
        format!("/{}", texts.join("/"))
    }

    /// Whether a segment stands for any word.
    pub fn is_wide(&self) -> bool {
        self.0.contains(&Segment::Any)
    }
}

/// What each pattern becomes if no place may hold more than `words_max` different words under one beginning. Patterns
/// that become equal are one from then on.
pub fn widened(patterns: &BTreeSet<Pattern>, words_max: usize) -> BTreeMap<Pattern, Pattern> {
    let mut now: Vec<(Pattern, Pattern)> = patterns
        .iter()
        .map(|one| (one.clone(), one.clone()))
        .collect();
    let longest = patterns.iter().map(|one| one.0.len()).max().unwrap_or(0);
    for depth in 0..longest {
        let mut words: BTreeMap<Vec<Segment>, BTreeSet<Segment>> = BTreeMap::new();
        for (_, one) in &now {
            if let Some(segment @ Segment::Literal(_)) = one.0.get(depth) {
                let before = one.0.iter().take(depth).cloned().collect();
                words.entry(before).or_default().insert(segment.clone());
            }
        }
        words.retain(|_, seen| seen.len() > words_max);
        for (_, one) in &mut now {
            let before: Vec<Segment> = one.0.iter().take(depth).cloned().collect();
            if !words.contains_key(&before) {
                continue;
            }
            if let Some(segment) = one.0.get_mut(depth)
                && *segment != Segment::Literal(String::new())
            {
                *segment = Segment::Any;
            }
        }
    }
    now.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_told_from_what_names() {
        for (path, regex) in [
            ("/orders/17", "/orders/[0-9]+"),
            ("/a.b/x", r"/a\.b/x"),
            ("/", "/"),
            ("/v1/", "/v1/"),
        ] {
            assert_eq!(Pattern::of(path).regex(), regex);
        }
        assert_eq!(
            Pattern::of("/orders/new").exact().as_deref(),
            Some("/orders/new")
        );
        assert_eq!(Pattern::of("/orders/17").exact(), None);
        let uuid = Pattern::of("/u/123e4567-e89b-12d3-a456-426614174000");
        assert_eq!(uuid.0[1], Segment::Uuid);
        assert_eq!(Pattern::of("/b/deadbeefdeadbeef").0[1], Segment::Hex);
    }

    #[test]
    fn a_pattern_takes_what_it_was_made_of_and_nothing_longer() {
        for path in [
            "/",
            "/orders",
            "/orders/17",
            "/orders/17/",
            "/b/deadbeef00000000",
        ] {
            let pattern = Pattern::of(path);
            assert!(pattern.takes(path), "{path}");
            assert!(!pattern.takes(&format!("{path}/x")), "{path}");
        }
        assert!(!Pattern::of("/orders/17").takes("/orders/x"));
        assert!(!Pattern(vec![Segment::Any]).takes("/"));
    }

    #[test]
    fn too_many_words_become_any_and_few_do_not() {
        let paths = |count: usize| -> BTreeSet<Pattern> {
            (0..count)
                .map(|n| Pattern::of(&format!("/users/u{n}x/cart")))
                .chain([Pattern::of("/users/12/cart"), Pattern::of("/health")])
                .collect()
        };
        let few = widened(&paths(3), 3);
        assert!(few.iter().all(|(before, after)| before == after));
        let many = widened(&paths(4), 3);
        let kinds: BTreeSet<&Pattern> = many.values().collect();
        let texts: Vec<String> = kinds.iter().map(|one| one.regex()).collect();
        assert_eq!(texts, ["/health", "/users/[^/]+/cart"]);
    }
}
