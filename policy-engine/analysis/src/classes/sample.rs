//! One text that a regular expression of a route takes.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Bytes of a sample: longer ones help nobody, and `(a{1000}){1000}` stops here.
const SAMPLE_BYTES_MAX: usize = 2048;

/// A text that `pattern` takes as a whole, as far as one is found easily; the caller asks the real expression.
pub(crate) fn sample(pattern: &str) -> Option<String> {
    let tree = regex_syntax::parse(pattern).ok()?;
    let mut out = String::new();
    walk(&tree, &mut out)?;
    Some(out)
}

fn walk(tree: &Hir, out: &mut String) -> Option<()> {
    if out.len() > SAMPLE_BYTES_MAX {
        return None;
    }
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => out.push(of_class(class)?),
        HirKind::Repetition(repetition) => {
            // Once where that is allowed: `/a/.+` and `/a/.*` read better with something in them.
            let least = repetition.min.max(1);
            let times = repetition.max.map_or(least, |most| most.min(least));
            for _ in 0..times {
                walk(&repetition.sub, out)?;
            }
        }
        HirKind::Capture(capture) => walk(&capture.sub, out)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| walk(part, out))?,
        HirKind::Alternation(parts) => walk(parts.first()?, out)?,
    }
    Some(())
}

/// A character of the class that may stand in a path.
fn of_class(class: &Class) -> Option<char> {
    let plain = ('a'..='z')
        .chain('0'..='9')
        .chain('A'..='Z')
        .chain("-_./".chars());
    match class {
        Class::Unicode(class) => {
            let takes = |c: &char| {
                class
                    .ranges()
                    .iter()
                    .any(|r| r.start() <= *c && *c <= r.end())
            };
            let first = class.ranges().first().map(|range| range.start());
            plain.into_iter().find(takes).or(first)
        }
        Class::Bytes(class) => {
            let takes = |c: &char| {
                let byte = u8::try_from(*c);
                byte.is_ok_and(|b| {
                    class
                        .ranges()
                        .iter()
                        .any(|r| r.start() <= b && b <= r.end())
                })
            };
            plain.into_iter().find(takes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_by_their_expression() {
        for pattern in [
            "/orders/[0-9]+",
            "/a/.*",
            "(GET|POST)",
            r"/v\d/x{2,5}",
            "/(a|b)?/c$",
        ] {
            let found = sample(pattern).expect(pattern);
            let whole = regex_syntax::parse(pattern).is_ok();
            assert!(whole && !found.is_empty(), "{pattern}: {found}");
        }
        assert_eq!(sample("/orders/[0-9]+").as_deref(), Some("/orders/0"));
    }

    #[test]
    fn an_expression_that_explodes_or_is_broken_has_none() {
        for pattern in ["(a{1000}){1000}", "(", "[^\\s\\S]"] {
            assert_eq!(sample(pattern), None, "{pattern}");
        }
    }
}
