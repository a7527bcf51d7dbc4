//! Sides of conditions: what allows never asks less, what denies never more.

use super::*;

fn setting(domain: &TrustDomain) -> Setting<'_> {
    Setting {
        trust_domain: domain,
        mode: Mtls::Permissive,
        port: 8080,
        bytes: false,
    }
}

fn clause(attribute: Attribute, values: Vec<Want>, not_values: Vec<Want>) -> Clause {
    Clause {
        attribute,
        values,
        not_values,
        path: "spec.rules[0]".into(),
        source: Source::BuiltIn("test".into()),
    }
}

fn made(clause: &Clause, side: Side, change: impl FnOnce(&mut Setting<'_>)) -> (Cond, Vec<Status>) {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let mut setting = setting(&domain);
    change(&mut setting);
    let mut doubts = Vec::new();
    let cond = conjunction(&[clause], side, &setting, &mut doubts);
    (cond, doubts.iter().map(|d| d.status).collect())
}

fn text(text: &str) -> Want {
    Want::Text(Text::parse(text))
}

#[test]
fn what_cannot_be_asked_allows_nothing_and_denies_everything() {
    let token = Attribute::Foreign("request.auth.principal".into(), true);
    for (values, not_values) in [
        (vec![text("*")], vec![]),
        (vec![], vec![text("*")]),
        (vec![text("a")], vec![text("b")]),
    ] {
        let clause = clause(token.clone(), values, not_values);
        assert_eq!(
            made(&clause, Side::Under, |_| {}),
            (Cond::Never, vec![Status::NotKept])
        );
        assert_eq!(
            made(&clause, Side::Over, |_| {}),
            (Cond::Always, vec![Status::KeptStricter])
        );
    }
}

#[test]
fn an_opposite_is_made_for_the_other_side() {
    let header = |values: Vec<Want>, not_values: Vec<Want>| {
        clause(Attribute::Header("x".into()), values, not_values)
    };
    let has = |v: &str| {
        Cond::Ask(Ask::HeaderHas {
            name: "x".into(),
            value: v.into(),
        })
    };
    let is = |v: &str| {
        Cond::Ask(Ask::HeaderIs {
            name: "x".into(),
            value: v.into(),
        })
    };
    let one = header(vec![text("a")], vec![]);
    let none = header(vec![], vec![text("a")]);
    assert_eq!(made(&one, Side::Under, |_| {}).0, is("a"));
    assert_eq!(made(&one, Side::Over, |_| {}).0, has("a"));
    assert_eq!(made(&none, Side::Under, |_| {}).0, Cond::not(has("a")));
    assert_eq!(made(&none, Side::Over, |_| {}).0, Cond::not(is("a")));
}

#[test]
fn parts_of_header_values_cannot_be_asked() {
    for pattern in ["a*", "*a"] {
        let clause = clause(Attribute::Header("x".into()), vec![text(pattern)], vec![]);
        assert_eq!(
            made(&clause, Side::Under, |_| {}),
            (Cond::Never, vec![Status::KeptStricter])
        );
        let stands = Cond::Ask(Ask::HeaderStands("x".into()));
        assert_eq!(
            made(&clause, Side::Over, |_| {}),
            (stands, vec![Status::KeptStricter])
        );
    }
}

#[test]
fn a_value_that_may_come_in_pieces_is_denied_whatever_the_pieces_are() {
    let stands = |name: &str| Cond::Ask(Ask::HeaderStands(name.into()));
    for (name, value) in [("x", "a,b"), ("x", "a; b"), ("cookie", "a=1")] {
        let header = clause(Attribute::Header(name.into()), vec![text(value)], vec![]);
        assert_eq!(
            made(&header, Side::Over, |_| {}),
            (stands(name), vec![Status::KeptStricter])
        );
        let none = clause(Attribute::Header(name.into()), vec![], vec![text(value)]);
        assert_eq!(
            made(&none, Side::Under, |_| {}).0,
            Cond::not(stands(name)),
            "what is not to stand may not stand in pieces either"
        );
    }
}

#[test]
fn ambiguous_paths_allow_nothing_and_deny_what_they_might_become() {
    let path = |text: &str| {
        clause(
            Attribute::Path,
            vec![Want::Path(PathText::parse(text).unwrap())],
            vec![],
        )
    };
    for text in ["/a//b", "/a//*", "/a/%2e%2e/*"] {
        assert_eq!(
            made(&path(text), Side::Under, |_| {}).0,
            Cond::Never,
            "{text}"
        );
    }
    assert_eq!(made(&path("/a//*"), Side::Over, |_| {}).0, Cond::Always);
    let canonical = Cond::Ask(Ask::Path(Text::Exact("/a/b".into())));
    assert_eq!(made(&path("/a//b"), Side::Over, |_| {}).0, canonical);
    assert_eq!(made(&path("/a%2fb"), Side::Over, |_| {}).0, Cond::Never);
}

#[test]
fn ports_are_settled_at_once_and_bytes_have_no_requests() {
    let port = |port: u16| clause(Attribute::Port, vec![Want::Port(port)], vec![]);
    assert_eq!(made(&port(8080), Side::Under, |_| {}).0, Cond::Always);
    assert_eq!(made(&port(9090), Side::Over, |_| {}).0, Cond::Never);
    let not = clause(Attribute::Port, vec![], vec![Want::Port(8080)]);
    assert_eq!(made(&not, Side::Over, |_| {}).0, Cond::Never);
    let method = clause(Attribute::Method, vec![], vec![text("GET")]);
    assert_eq!(
        made(&method, Side::Under, |s| s.bytes = true),
        (Cond::Never, vec![])
    );
    assert_eq!(
        made(&method, Side::Over, |s| s.bytes = true),
        (Cond::Always, vec![])
    );
}

#[test]
fn without_mtls_nobody_has_an_identity() {
    let disable = |s: &mut Setting<'_>| s.mode = Mtls::Disable;
    let yes = clause(Attribute::Principal, vec![text("*")], vec![]);
    let no = clause(Attribute::Namespace, vec![], vec![text("a")]);
    for side in [Side::Under, Side::Over] {
        assert_eq!(made(&yes, side, disable).0, Cond::Never);
        assert_eq!(made(&no, side, disable).0, Cond::Always);
    }
}

#[test]
fn templates_have_their_own_number_of_segments() {
    let path = |text: &str| {
        clause(
            Attribute::Path,
            vec![Want::Path(PathText::parse(text).unwrap())],
            vec![],
        )
    };
    let (cond, doubts) = made(&path("/a/{*}/b"), Side::Under, |_| {});
    assert!(doubts.is_empty());
    let Cond::All(parts) = cond else {
        panic!("{cond:?}")
    };
    // The form, one segment and not two, and each character that no operator takes.
    assert_eq!(parts.len(), 2 + NOT_IN_TEMPLATES.len());
    let (cond, _) = made(&path("/a/{*}/b"), Side::Over, |_| {});
    assert!(matches!(cond, Cond::All(parts) if parts.len() == 2));
    assert_eq!(
        made(&path("/a/{*}/{**}"), Side::Over, |_| {}).1,
        [Status::KeptStricter]
    );
    assert_eq!(
        made(&path("/a/{*}/{**}"), Side::Under, |_| {}).1,
        [Status::KeptStricter]
    );
}
