//! SPIFFE-ID §2 as tables, and the round trip as a property.

use super::*;
use proptest::prelude::*;

type Refusal = fn(Quoted) -> IdError;

const NAME_255: &str = concat!(
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
);

#[test]
fn spiffe_ids_of_the_grammar_are_accepted_unchanged() {
    let longest = format!("spiffe://td/{}", "a".repeat(2_048 - "spiffe://td/".len()));
    let widest = format!("spiffe://{NAME_255}/x");
    for (input, section) in [
        (
            "spiffe://prod.example",
            "2.1: the ID of the trust domain itself",
        ),
        ("spiffe://prod.example/ns/shop/sa/cart", "2.2"),
        (
            "spiffe://prod_1.example-2/a.b/c-d/e_f",
            "2.1, 2.2: all special characters",
        ),
        (
            "spiffe://prod.example/Ns/SHOP",
            "2.2: the path is case-sensitive",
        ),
        ("spiffe://1.2.3.4/x", "2.1: an address is a name"),
        ("spiffe://-/x", "2.1: no DNS rules"),
        ("spiffe://./x", "2.1: no DNS rules"),
        ("spiffe://td/...", "2.2: three dots are a name"),
        ("spiffe://td/.a/..b/c..", "2.2: dots within a segment"),
        (&longest, "2.3: 2,048 bytes"),
        (&widest, "2.3: a trust domain of 255 bytes"),
    ] {
        assert_eq!(
            SpiffeId::parse(input).map(|id| id.to_string()),
            Ok(input.to_owned()),
            "SPIFFE-ID §{section}"
        );
    }
}

#[test]
fn everything_else_is_refused_with_the_rule_it_breaks() {
    let too_long = format!("spiffe://td/{}", "a".repeat(2_049 - "spiffe://td/".len()));
    let too_wide = format!("spiffe://{NAME_255}a/x");
    let table: &[(&str, Refusal, &str)] = &[
        ("", IdError::Scheme, "2"),
        ("prod.example/ns/shop", IdError::Scheme, "2"),
        ("https://prod.example/ns/shop", IdError::Scheme, "2"),
        ("spiffe:/prod.example/x", IdError::Scheme, "2"),
        ("spiffe:prod.example/x", IdError::Scheme, "2"),
        (" spiffe://prod.example/x", IdError::Scheme, "2"),
        ("spiffé://td/x", IdError::Scheme, "2"),
        ("SPIFFE://prod.example/x", IdError::UpperCase, "2"),
        ("Spiffe://prod.example/x", IdError::UpperCase, "2"),
        ("spiffe://Prod.example/x", IdError::UpperCase, "2.1"),
        ("spiffe://", IdError::NoTrustDomain, "2.1"),
        ("spiffe:///x", IdError::NoTrustDomain, "2.1"),
        ("spiffe://user@td/x", IdError::UserInfo, "2"),
        ("spiffe://user:secret@td/x", IdError::UserInfo, "2"),
        ("spiffe://@td/x", IdError::UserInfo, "2"),
        ("spiffe://td:8443/x", IdError::Port, "2"),
        ("spiffe://td:/x", IdError::Port, "2"),
        ("spiffe://[::1]/x", IdError::TrustDomainCharacter, "2.1"),
        ("spiffe://t%64/x", IdError::TrustDomainCharacter, "2.1"),
        ("spiffe://t d/x", IdError::TrustDomainCharacter, "2.1"),
        ("spiffe://t*/x", IdError::TrustDomainCharacter, "2.1"),
        ("spiffe://t\0d/x", IdError::TrustDomainCharacter, "2.1"),
        ("spiffe://tд/x", IdError::TrustDomainCharacter, "2.1"),
        ("spiffe://td\\x", IdError::TrustDomainCharacter, "2.1"),
        (&too_wide, IdError::TrustDomainTooLong, "2.3"),
        (&too_long, IdError::TooLong, "2.3"),
        ("spiffe://td?", IdError::Query, "2"),
        ("spiffe://td/x?y=z", IdError::Query, "2"),
        ("spiffe://td#", IdError::Fragment, "2"),
        ("spiffe://td/x#y", IdError::Fragment, "2"),
        ("spiffe://td/x#y?z", IdError::Fragment, "2"),
        ("spiffe://td/", IdError::TrailingSlash, "2.2"),
        ("spiffe://td/x/", IdError::TrailingSlash, "2.2"),
        ("spiffe://td//", IdError::TrailingSlash, "2.2"),
        ("spiffe://td//x", IdError::EmptySegment, "2.2"),
        ("spiffe://td/ns//shop", IdError::EmptySegment, "2.2"),
        ("spiffe://td/x//", IdError::EmptySegment, "2.2"),
        ("spiffe://td/.", IdError::DotSegment, "2.2"),
        ("spiffe://td/a/./b", IdError::DotSegment, "2.2"),
        ("spiffe://td/a/../b", IdError::DotSegment, "2.2"),
        ("spiffe://td/a/..", IdError::DotSegment, "2.2"),
        ("spiffe://td/%2e%2e/b", IdError::PercentEncoding, "2.2"),
        ("spiffe://td/a%2fb", IdError::PercentEncoding, "2.2"),
        ("spiffe://td/*", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a b", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a\0b", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a\n", IdError::PathCharacter, "2.2"),
        ("spiffe://td/caf\u{e9}", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a\\b", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a;b", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a@b", IdError::PathCharacter, "2.2"),
        ("spiffe://td/a:b", IdError::PathCharacter, "2.2"),
    ];
    for (input, want, section) in table {
        assert_eq!(
            SpiffeId::parse(input),
            Err(want(Quoted::new(input))),
            "{input:?}: SPIFFE-ID §{section}"
        );
    }
}

#[test]
fn configuration_may_shout_the_scheme_and_the_trust_domain_but_not_the_path() {
    let id =
        SpiffeId::parse_config("SPIFFE://Prod.EXAMPLE/ns/Shop").expect("allowed in configuration");
    assert_eq!(id.as_str(), "spiffe://prod.example/ns/Shop");
    assert_eq!(
        id,
        SpiffeId::parse("spiffe://prod.example/ns/Shop").expect("canonical")
    );
    assert_eq!(
        SpiffeId::parse_config("SPIFFE://TD")
            .expect("no path")
            .as_str(),
        "spiffe://td"
    );
    for (input, want) in [
        ("HTTP://TD/x", IdError::Scheme as Refusal),
        ("SPIFFE://TD/x/", IdError::TrailingSlash),
        ("SPIFFE://TD/%2E", IdError::PercentEncoding),
        ("SPIFFE://T\u{212a}/x", IdError::TrustDomainCharacter),
        ("SPIFFE://TD?/x", IdError::Query),
    ] {
        assert_eq!(
            SpiffeId::parse_config(input),
            Err(want(Quoted::new(input))),
            "{input:?}"
        );
    }
}

#[test]
fn trust_domains_follow_the_grammar() {
    assert_eq!(
        TrustDomain::parse("cluster.local")
            .expect("valid")
            .id()
            .as_str(),
        "spiffe://cluster.local"
    );
    for (input, want) in [
        ("", IdError::NoTrustDomain as Refusal),
        ("Cluster.local", IdError::UpperCase),
        ("spiffe://td", IdError::Port),
        ("td/x", IdError::TrustDomainCharacter),
        ("td?x", IdError::TrustDomainCharacter),
        ("td:1", IdError::Port),
    ] {
        assert_eq!(
            TrustDomain::parse(input),
            Err(want(Quoted::new(input))),
            "{input:?}"
        );
    }
}

#[test]
fn service_accounts_become_ids_and_back() {
    let domain = TrustDomain::parse("cluster.local").expect("valid");
    let id = SpiffeId::for_service_account(&domain, "shop", "cart").expect("valid");
    assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(id.service_account(), Some(("shop", "cart")));
    assert_eq!(id.path(), "/ns/shop/sa/cart");
}

#[test]
fn a_service_account_cannot_smuggle_a_segment() {
    let domain = TrustDomain::parse("cluster.local").expect("valid");
    for (namespace, name, want) in [
        ("shop/sa/cart", "x", IdError::PathCharacter as Refusal),
        ("shop", "../admin", IdError::PathCharacter),
        ("shop", "..", IdError::DotSegment),
        ("", "cart", IdError::EmptySegment),
        ("shop", "", IdError::EmptySegment),
        ("shop", "a%2fb", IdError::PercentEncoding),
        ("shop", "a?b", IdError::PathCharacter),
    ] {
        let refused = SpiffeId::for_service_account(&domain, namespace, name).expect_err(name);
        assert_eq!(
            std::mem::discriminant(&refused),
            std::mem::discriminant(&want(Quoted::new(""))),
            "{refused}"
        );
    }
}

#[test]
fn only_the_exact_form_is_a_service_account() {
    for path in [
        "",
        "/ns/shop",
        "/ns/shop/sa",
        "/ns/shop/sa/cart/x",
        "/x/ns/shop/sa/cart",
        "/ns/shop/ra/cart",
        "/NS/shop/sa/cart",
    ] {
        let id = SpiffeId::parse(&format!("spiffe://td{path}")).expect("valid");
        assert_eq!(id.service_account(), None, "{id}");
    }
}

#[test]
fn json_takes_the_canonical_form_only() {
    assert!(serde_json::from_str::<SpiffeId>(r#""spiffe://td/x""#).is_ok());
    assert!(serde_json::from_str::<SpiffeId>(r#""SPIFFE://td/x""#).is_err());
    assert!(serde_json::from_str::<TrustDomain>(r#""TD""#).is_err());
}

proptest! {
    #[test]
    fn parse_after_print_is_identity(domain in "[a-z0-9._-]{1,255}", path in "(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,30}){0,20}") {
        let text = format!("spiffe://{domain}{path}");
        let id = SpiffeId::parse(&text).expect("in the grammar");
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(id.path(), &path);
        prop_assert_eq!(id.trust_domain().as_str(), &domain);
        prop_assert_eq!(SpiffeId::parse(&id.to_string()), Ok(id));
    }

    #[test]
    fn whatever_is_accepted_prints_as_it_was_read(text in "\\PC{0,40}|spiffe://[a-zA-Z0-9._%/?#@:-]{0,40}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(SpiffeId::parse_config(&text), Ok(id));
        }
    }

    #[test]
    fn accepted_text_matches_the_grammar_as_the_standard_writes_it(text in "spiffe://[a-zA-Z0-9._%/?#@:*\\x00-]{0,24}") {
        let plain = plain_oracle(&text);
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), plain, "{}", text);
    }
}

/// The grammar read slowly, sharing no code with the parser.
fn plain_oracle(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or("");
    !domain.is_empty()
        && domain
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c))
        && parts.all(|part| {
            !matches!(part, "" | "." | "..")
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        })
}
