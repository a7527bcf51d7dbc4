//! What a rule asks of the client's identity, as a condition.
//!
//! Istio matches the text of the certificate's URI: of any trust domain, and with patterns for namespaces. What allows
//! asks for less, namely for `ns` and `sa` of a regular identity; what denies asks the text as Istio does, so that an
//! identity of an unusual form does not slip by.

use super::condition::{Ask, Cond, Glob, Side};
use super::pattern::Text;
use super::who::localize;
use mesh_trust::TrustDomain;

/// A condition, and what is doubtful about it.
pub(crate) type Asked = (Cond, Option<String>);

/// `principals`: the SPIFFE ID without its scheme.
pub(crate) fn principal(text: &Text, side: Side, own: &TrustDomain) -> Asked {
    let text = localize(text, own);
    let literal = Cond::Ask(Ask::Principal(text.clone()));
    if side == Side::Under {
        return (literal, None);
    }
    match other_name(&text, own) {
        Some((Some(alias), domain)) => {
            let why = format!(
                "`{domain}` may be another name of this mesh's trust domain (Istio's `trustDomainAliases`): the same identities of `{own}` count too"
            );
            let alias = Cond::Ask(Ask::Principal(alias));
            (Cond::any([literal, alias]), Some(why))
        }
        Some((None, domain)) => {
            let why = format!("`{domain}*` is part of a trust domain: every identity counts");
            (Cond::Ask(Ask::Principal(Text::Present)), Some(why))
        }
        None => (literal, None),
    }
}

/// The same principal of the mesh's own trust domain, if the one that is named might be an alias of it, and the name. No
/// principal if not even the name is whole.
fn other_name(text: &Text, own: &TrustDomain) -> Option<(Option<Text>, String)> {
    let literal = text.literal();
    match (text, literal.split_once('/')) {
        (Text::Present, _) | (Text::Exact(_), None) | (Text::Suffix(_), None) => None,
        // Of every trust domain.
        (Text::Suffix(_), Some(("", _))) => None,
        (Text::Suffix(_), Some((domain, path))) => {
            let alias = Text::Exact(format!("{own}/{path}"));
            Some((Some(alias), domain.to_owned()))
        }
        (Text::Prefix(start), None) if own.as_str().starts_with(start.as_str()) => None,
        (Text::Prefix(start), None) => Some((None, start.clone())),
        (_, Some((domain, _))) if domain == own.as_str() => None,
        (_, Some((domain, path))) => {
            let alias = text.map(|_| format!("{own}/{path}"));
            Some((Some(alias), domain.to_owned()))
        }
    }
}

/// `namespaces`: Istio asks the URI for `.*/ns/<value>/.*`, where `*` of the value is any text.
pub(crate) fn namespace(text: &Text, side: Side) -> Asked {
    let value = match text {
        Text::Present => "*".to_owned(),
        Text::Exact(text) => text.clone(),
        Text::Prefix(text) => format!("{text}*"),
        Text::Suffix(text) => format!("*{text}"),
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
    if !value.bytes().all(known) {
        // Istio takes the value for a part of a regular expression.
        let why = match side {
            Side::Under => "no namespace has such a name: it allows nobody",
            Side::Over => {
                "no namespace has such a name, but it may be a regular expression: every identity counts"
            }
        };
        let cond = match side {
            Side::Under => Cond::Never,
            Side::Over => Cond::Ask(Ask::Principal(Text::Present)),
        };
        return (cond, Some(why.to_owned()));
    }
    match side {
        Side::Under if text.literal().contains('*') => {
            let why = "`*` within a namespace cannot be asked for: it allows nobody";
            (Cond::Never, Some(why.to_owned()))
        }
        Side::Under => (Cond::Ask(Ask::Namespace(text.clone())), None),
        Side::Over => (named(&format!("*/ns/{value}/*")), None),
    }
}

/// `serviceAccounts`: Istio asks the URI for `.*/ns/<namespace>/sa/<name>`.
pub(crate) fn account(namespace: &str, name: &str, side: Side) -> Cond {
    match side {
        Side::Under => Cond::Ask(Ask::Account {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        Side::Over => named(&format!("*/ns/{namespace}/sa/{name}")),
    }
}

/// Whether the whole SPIFFE ID looks so; `*` is any text, and so is `.`, which Istio takes for any character.
fn named(pattern: &str) -> Cond {
    let mut globs = Vec::new();
    for part in pattern.split_inclusive(['*', '.']) {
        let text = part.trim_end_matches(['*', '.']);
        if !text.is_empty() {
            globs.push(Glob::Text(text.to_owned()));
        }
        if text.len() < part.len() && globs.last() != Some(&Glob::Star) {
            globs.push(Glob::Star);
        }
    }
    Cond::Ask(Ask::Identity(globs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> TrustDomain {
        TrustDomain::parse("prod.example").unwrap()
    }

    fn of(text: &str) -> Cond {
        Cond::Ask(Ask::Principal(Text::parse(text)))
    }

    #[test]
    fn a_denial_of_another_trust_domain_means_ours_too_for_it_may_be_an_alias() {
        for (text, alias) in [
            ("old.example/ns/a/sa/b", "prod.example/ns/a/sa/b"),
            ("old.example/ns/a/*", "prod.example/ns/a/*"),
            ("*.example/ns/a/sa/b", "prod.example/ns/a/sa/b"),
        ] {
            let (cond, doubt) = principal(&Text::parse(text), Side::Over, &own());
            assert_eq!(cond, Cond::any([of(text), of(alias)]), "{text}");
            assert!(doubt.is_some());
            let (cond, doubt) = principal(&Text::parse(text), Side::Under, &own());
            assert_eq!(
                (cond, doubt),
                (of(text), None),
                "what allows, allows that alone"
            );
        }
        let (cond, _) = principal(&Text::parse("old*"), Side::Over, &own());
        assert_eq!(cond, of("*"));
        for text in [
            "prod.example/ns/a/sa/b",
            "prod.example/*",
            "prod*",
            "*",
            "*/sa/b",
            "*b",
            "nobody",
        ] {
            let found = principal(&Text::parse(text), Side::Over, &own());
            assert_eq!(found, (of(text), None), "{text}");
        }
        let (cond, _) = principal(&Text::parse("cluster.local/ns/a/*"), Side::Over, &own());
        assert_eq!(cond, of("prod.example/ns/a/*"));
    }

    #[test]
    fn what_denies_a_namespace_looks_at_the_whole_identity() {
        let text = |text: &str| Glob::Text(text.to_owned());
        for (value, want) in [
            ("a", vec![Glob::Star, text("/ns/a/"), Glob::Star]),
            (
                "*",
                vec![Glob::Star, text("/ns/"), Glob::Star, text("/"), Glob::Star],
            ),
            (
                "a*b",
                vec![
                    Glob::Star,
                    text("/ns/a"),
                    Glob::Star,
                    text("b/"),
                    Glob::Star,
                ],
            ),
            (
                "a.b",
                vec![
                    Glob::Star,
                    text("/ns/a"),
                    Glob::Star,
                    text("b/"),
                    Glob::Star,
                ],
            ),
        ] {
            let found = namespace(&Text::parse(value), Side::Over);
            assert_eq!(found, (Cond::Ask(Ask::Identity(want)), None), "{value}");
        }
        assert_eq!(
            account("a", "b.c", Side::Over),
            Cond::Ask(Ask::Identity(vec![
                Glob::Star,
                text("/ns/a/sa/b"),
                Glob::Star,
                text("c")
            ]))
        );
    }

    #[test]
    fn what_is_no_plain_namespace_allows_nobody_and_denies_everybody() {
        for value in ["a|b", "(a)", "a/b", "[ab]", "a b"] {
            let text = Text::parse(value);
            let (under, doubt) = namespace(&text, Side::Under);
            assert_eq!(under, Cond::Never, "{value}");
            assert!(doubt.is_some());
            assert_eq!(namespace(&text, Side::Over).0, of("*"), "{value}");
        }
        let (cond, doubt) = namespace(&Text::parse("a*b"), Side::Under);
        assert!(cond == Cond::Never && doubt.is_some());
        let plain = Text::parse("a*");
        let asked = Cond::Ask(Ask::Namespace(plain.clone()));
        assert_eq!(namespace(&plain, Side::Under), (asked, None));
    }
}
