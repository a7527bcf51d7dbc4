//! Values of Istio's rules: exact, prefix, suffix and presence texts, and path templates.

use mesh_policy::canonical;
use mesh_policy::snapshot::PathOptions;

/// How a text is matched (AuthorizationPolicy, "Rule"). `*` in front is looked at first, as Istio does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Text {
    /// `*`: any value that is not empty.
    Present,
    Exact(String),
    /// `abc*`
    Prefix(String),
    /// `*abc`
    Suffix(String),
}

impl Text {
    pub(crate) fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Present
        } else if let Some(rest) = text.strip_prefix('*') {
            Self::Suffix(rest.to_owned())
        } else if let Some(rest) = text.strip_suffix('*') {
            Self::Prefix(rest.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    /// What it spells out.
    pub(crate) fn literal(&self) -> &str {
        match self {
            Self::Present => "",
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
        }
    }

    /// The same, with `change` done to what it spells out.
    pub(crate) fn map(&self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Present => Self::Present,
            Self::Exact(text) => Self::Exact(change(text)),
            Self::Prefix(text) => Self::Prefix(change(text)),
            Self::Suffix(text) => Self::Suffix(change(text)),
        }
    }
}

/// A path that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathText {
    Text(Text),
    Template(Vec<Piece>),
}

/// A piece of a path template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Piece {
    Literal(String),
    /// `{*}`: one segment, not empty.
    One,
    /// `{**}`: any number of segments, none too.
    Many,
}

impl PathText {
    /// Reads a path of a rule.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence. Istio's own admission refuses the same.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(['{', '}']) {
            return Ok(Self::Text(Text::parse(text)));
        }
        if text.replace("{*}", "").replace("{**}", "").contains('*') {
            return Err("a path template may not have `*` outside of `{*}` and `{**}`".into());
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut many = false;
        for (number, segment) in text.split('/').enumerate() {
            if number > 0 {
                push_literal(&mut pieces, "/");
            }
            match segment {
                "{*}" | "{**}" if many => {
                    return Err("`{**}` must be the last operator of a path template".into());
                }
                "{*}" => pieces.push(Piece::One),
                "{**}" => {
                    many = true;
                    pieces.push(Piece::Many);
                }
                other if other.contains(['{', '}']) => {
                    return Err(
                        "`{` and `}` may only stand in `{*}` and `{**}`, each a whole segment"
                            .into(),
                    );
                }
                other => push_literal(&mut pieces, other),
            }
        }
        Ok(Self::Template(pieces))
    }

    /// Whether some path that is written otherwise may become one that this means, once it is in canonical form. Such a
    /// text cannot be asked of canonical paths alone.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let doubtful = |text: &str| {
            text.contains("//")
                || text.contains(['%', ';', '\\', '?', '#'])
                || text.split('/').any(|s| s == "." || s == "..")
        };
        match self {
            // An exact path in canonical form is what it seems.
            Self::Text(Text::Exact(text)) => canonical_path(text).as_deref() != Some(text),
            Self::Text(text) => doubtful(text.literal()),
            Self::Template(pieces) => pieces.iter().any(|piece| match piece {
                Piece::Literal(text) => doubtful(text),
                Piece::One | Piece::Many => false,
            }),
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Literal(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Literal(text.to_owned())),
    }
}

/// The form that a path has when it is judged; `None` if every such request is refused.
pub(crate) fn canonical_path(path: &str) -> Option<String> {
    let canonical = canonical::path(path, "GET", PathOptions::default()).ok()?;
    // A query is no part of a path: nothing that has one can be meant.
    canonical
        .query()
        .is_none()
        .then(|| canonical.into_path().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_front_is_looked_at_first() {
        for (text, want) in [
            ("*", Text::Present),
            ("abc", Text::Exact("abc".into())),
            ("abc*", Text::Prefix("abc".into())),
            ("*abc", Text::Suffix("abc".into())),
            ("*abc*", Text::Suffix("abc*".into())),
            ("a*c", Text::Exact("a*c".into())),
            ("**", Text::Suffix("*".into())),
        ] {
            assert_eq!(Text::parse(text), want, "{text}");
        }
    }

    #[test]
    fn templates_are_whole_segments() {
        let literal = |text: &str| Piece::Literal(text.into());
        for (text, want) in [
            ("/a/{*}", vec![literal("/a/"), Piece::One]),
            (
                "/{*}/b/{**}",
                vec![literal("/"), Piece::One, literal("/b/"), Piece::Many],
            ),
            (
                "/a/{**}/b",
                vec![literal("/a/"), Piece::Many, literal("/b")],
            ),
            ("/a/{**}", vec![literal("/a/"), Piece::Many]),
        ] {
            assert_eq!(
                PathText::parse(text),
                Ok(PathText::Template(want)),
                "{text}"
            );
        }
        for text in [
            "/{a}",
            "/a{*}",
            "/{*}a",
            "/{**}/{*}",
            "/{**}/{**}",
            "/{*}/b*",
            "/}",
            "/{",
            "*/{*}",
        ] {
            assert!(PathText::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_that_others_turn_into_are_ambiguous() {
        for text in [
            "/a//b", "/a/../b*", "/./*", "/%61*", "/a;b*", "/a/..", "*//x", "/%41", "/a?b", "a",
            "/a/./{*}",
        ] {
            assert!(
                PathText::parse(text).is_ok_and(|p| p.is_ambiguous()),
                "{text}"
            );
        }
        for text in [
            "/a", "/a/", "/a*", "/a.b/*", "*.html", "/a/{*}", "/", "*", "/%20",
        ] {
            assert!(
                PathText::parse(text).is_ok_and(|p| !p.is_ambiguous()),
                "{text}"
            );
        }
    }
}
