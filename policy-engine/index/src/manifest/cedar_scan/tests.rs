//! The scan against Cedar's own parser: same policies, and never a deeper tree than it says.

use super::*;
use cedar_policy::{Policy, PolicySet, pst};
use proptest::prelude::*;
use std::str::FromStr;

fn texts(text: &str) -> Vec<&str> {
    policies(text).unwrap().iter().map(|p| p.text).collect()
}

fn code(text: &str) -> Option<Code> {
    policies(text).err().map(|refusal| refusal.code)
}

fn when(condition: &str) -> String {
    format!("permit(principal, action, resource) when {{ {condition} }};")
}

#[test]
fn policies_are_cut_at_semicolons_that_stand_outside_of_strings_and_comments() {
    let text = r#"
// forbid everything; or not
@id("a;b")
permit(principal, action, resource);

forbid(principal, action, resource) when { "x;\"};{" == "\\" }; // ;
permit(principal, action, resource)
  // ; }
;"#;
    let found = policies(text).unwrap();
    let lines: Vec<usize> = found.iter().map(|p| p.line).collect();
    assert_eq!(lines, [2, 5, 6]);
    let first = found.first().unwrap();
    assert!(first.text.starts_with("@id") && first.text.ends_with("resource);"));
    assert!(found.get(2).unwrap().text.ends_with("// ; }\n;"));
    assert_eq!(texts("  \n// nothing\n"), Vec::<&str>::new());
    assert_eq!(texts(""), Vec::<&str>::new());
}

#[test]
fn what_cannot_be_cut_is_refused_with_its_line() {
    for (text, line, what) in [
        ("permit(principal, action, resource", 0, "an open bracket"),
        (
            "\n\npermit(principal;\n",
            2,
            "a policy that ends in a bracket",
        ),
        (
            "permit(principal, action, resource)) ;",
            0,
            "a bracket too many",
        ),
        (
            "permit(principal, action, resource] ;",
            0,
            "another bracket",
        ),
        ("\npermit(\"abc", 1, "a string without end"),
        ("permit(\"abc\\\n\");", 0, "a line break behind a backslash"),
        ("\n permit & forbid;", 1, "half an operator"),
        (
            "permit(principal, action, resource) when { 'x' };",
            0,
            "a quote of another language",
        ),
        (
            "permit\u{200b}(principal, action, resource);",
            0,
            "an invisible character",
        ),
        ("# comment\n", 0, "a comment of another language"),
        (
            "permit(principal, action, resource) when { a \\ b };",
            0,
            "a backslash",
        ),
    ] {
        let refused = policies(text).unwrap_err();
        assert_eq!(
            (refused.code, refused.line),
            (Code::CedarSyntax, line),
            "{what}"
        );
    }
}

#[test]
fn a_text_without_forbid_that_begins_as_a_permit_is_surely_one() {
    for (text, want) in [
        ("permit(principal action, resource);", true),
        ("@id(\"x\") @audit permit(;;", false),
        ("@permit forbid(principal, action, resource);", false),
        ("@forbid permit(principal, action, resource);", false),
        (
            "permit(principal, action, resource) when { \"} ; forBid(\" };",
            false,
        ),
        ("permit(principal, action, resource) // forbid\n;", false),
        ("permit(principal, action, resource)", false),
        ("Permit(principal, action, resource);", false),
        ("fobid(principal, action, resource);", false),
        (";", false),
        ("@permit;", false),
    ] {
        let sure = policies(text).is_ok_and(|found| found.iter().all(|p| p.surely_permit));
        assert_eq!(sure, want, "{text}");
    }
}

#[test]
fn calculations_are_seen() {
    let one = |text: &str| {
        policies(text)
            .unwrap()
            .into_iter()
            .next()
            .map(|p| p.calculates)
    };
    for (condition, calculates) in [
        ("context.conn.port + 1 == 2", true),
        ("context.conn.port * 2 == 2", true),
        ("context.conn.port - 1 == 2", true),
        ("context.now.offset(duration(\"1h\")) < context.now", false),
        ("context.conn.port == -1", false),
        ("[-1, -2].contains(-3) && -1 < 2", false),
        ("\"a + b\" == \"c * d\" // + \n", false),
    ] {
        assert_eq!(one(&when(condition)), Some(calculates), "{condition}");
    }
}

#[test]
fn texts_past_a_bound_are_refused_before_any_parser_sees_them() {
    let nested = |open: &str, close: &str, n: usize| {
        when(&format!("{}true{}", open.repeat(n), close.repeat(n)))
    };
    let chain = |link: &str, n: usize| when(&format!("true{}", link.repeat(n)));
    for (text, what) in [
        (nested("(", ")", 100_000 / 4), "brackets"),
        (nested("[", "]", 64), "sets"),
        (nested("{a: ", "}", 64), "records"),
        (nested("!", "", 64), "negations"),
        (nested("if true then true else ", "", 64), "branches"),
        (nested("(true || ", ")", 33), "brackets and operators"),
        (chain(" || true", 64), "alternatives"),
        (chain(" && true", 64), "conjunctions"),
        (chain(".a", 64), "attributes"),
        (chain("[\"a\"]", 64), "indexes"),
        (
            when(&format!(
                "{}true{}{}",
                "(".repeat(31),
                ")".repeat(31),
                ".a".repeat(34)
            )),
            "attributes of brackets",
        ),
        (chain("(1)", 64), "calls of calls"),
        (chain(" + 1", 64), "sums"),
        (chain(" == 1", 64), "comparisons"),
        (
            format!(
                "permit(principal, action, resource) {};",
                "when { true } ".repeat(65)
            ),
            "clauses",
        ),
        (
            "permit(principal, action, resource);".repeat(257),
            "policies",
        ),
        (format!("//{}", "x".repeat(65_535)), "bytes"),
    ] {
        assert_eq!(code(&text), Some(Code::CedarLimit), "{what}");
    }
    for (text, what) in [
        (nested("(", ")", 62), "brackets"),
        (chain(" || true", 62), "alternatives"),
        (format!("//{}", "x".repeat(65_534)), "bytes"),
        (
            "permit(principal, action, resource);".repeat(256),
            "policies",
        ),
        (
            when(&vec![vec!["true"; 30].join(" && "); 30].join(" || ")),
            "900 atoms, flat",
        ),
        (
            when(&format!("[{}].contains(1)", "1, ".repeat(20_000))),
            "a long set",
        ),
    ] {
        assert_eq!(code(&text), None, "{what}");
    }
}

/// The worst that the scan lets pass must not exhaust the stack of a thread that was not made for it.
#[test]
fn what_passes_is_parsed_and_validated_on_a_small_stack() {
    let wrap = |open: &str, close: &str, n: usize, core: &str| {
        when(&format!("{}{core}{}", open.repeat(n), close.repeat(n)))
    };
    let worst = [
        wrap("(", ")", 62, "true"),
        wrap("[", "]", 60, "true"),
        wrap("{a: ", "}", 60, "true"),
        wrap("if true then true else ", "", 60, "true"),
        wrap("(true && ", ")", 31, "true"),
        wrap("!(", ")", 30, "true"),
        wrap("ip(", ")", 60, "true"),
        wrap("", " || true", 62, "true"),
        wrap("", ".a", 60, "context"),
        wrap("", " + 1", 60, "1"),
    ];
    let run = move || {
        for text in worst {
            let found = policies(&text).unwrap();
            let piece = found.first().unwrap();
            if let Ok(policy) = Policy::parse(None, piece.text) {
                let set = PolicySet::from_policies([policy]).unwrap();
                let validator = super::super::cedar_judge::validator().unwrap();
                validator.validate_with_level(&set, cedar_policy::ValidationMode::Strict, 1);
            }
        }
    };
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    small.spawn(run).unwrap().join().unwrap();
}

fn depth(expr: &pst::Expr) -> usize {
    let of = |parts: &[&std::sync::Arc<pst::Expr>]| {
        1 + parts.iter().map(|p| depth(p)).max().unwrap_or(0)
    };
    match expr {
        pst::Expr::UnaryOp { expr, .. }
        | pst::Expr::GetAttr { expr, .. }
        | pst::Expr::HasAttr { expr, .. }
        | pst::Expr::Like { expr, .. } => of(&[expr]),
        pst::Expr::BinaryOp { left, right, .. } => of(&[left, right]),
        pst::Expr::Is { expr, in_expr, .. } => {
            of(&[expr]).max(in_expr.as_ref().map_or(0, |e| of(&[e])))
        }
        pst::Expr::IfThenElse {
            cond,
            then_expr,
            else_expr,
        } => of(&[cond, then_expr, else_expr]),
        pst::Expr::Set(parts) => of(&parts.iter().collect::<Vec<_>>()),
        pst::Expr::Record(parts) => of(&parts.values().collect::<Vec<_>>()),
        _ => 1,
    }
}

/// Ways to put an expression into a larger one; most need no brackets, so that operators meet in every order.
const FORMS: &[(&str, &str)] = &[
    ("(", ")"),
    ("!", ""),
    ("!(", ")"),
    ("-(", ")"),
    ("", " && true"),
    ("true && ", ""),
    ("", " || true"),
    ("true || ", ""),
    ("(", ") == 1"),
    ("(", ") != 1"),
    ("(", ") >= 1"),
    ("1 + ", ""),
    ("", " - 1"),
    ("", " * 1"),
    ("if ", " then 1 else 2"),
    ("if true then ", " else 2"),
    ("if true then 1 else ", ""),
    ("[1, ", ", 2]"),
    ("{a: ", ", then: 1}"),
    ("", ".a"),
    ("(", ").then.if.else"),
    ("(", ")[\"a b\"]"),
    ("", ".contains(1)"),
    ("[1].contains(", ")"),
    ("ip(", ")"),
    ("(", ") has a.then.c"),
    ("(", ") like \"a*\""),
    ("(", ") is Mesh::Server in principal"),
    ("1 in ", ""),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_tree_is_deeper_than_the_limit_says(forms in prop::collection::vec((0..FORMS.len(), 0..40_usize), 0..5)) {
        let mut text = "principal".to_owned();
        for (form, times) in forms {
            let (before, after) = FORMS[form];
            text = format!("{}{text}{}", before.repeat(times), after.repeat(times));
        }
        let text = when(&text);
        if policies(&text).is_ok() && let Ok(policy) = Policy::parse(None, &text) {
            let pst::Policy::Static(policy) = policy.to_pst().unwrap() else { unreachable!() };
            let deepest = policy.body().clauses().iter().map(|c| match c {
                pst::Clause::When(e) | pst::Clause::Unless(e) => depth(e),
            }).max();
            // An attribute behind `has` and a negated comparison are one level more than their text.
            prop_assert!(deepest.unwrap_or(0) <= CEDAR_DEPTH_MAX + 2, "{text}");
        }
    }

    #[test]
    fn what_cedar_reads_is_cut_into_the_same_policies(parts in prop::collection::vec(prop::sample::select(vec![
        "permit(principal, action, resource);", "forbid (principal, action, resource) when { true };", "@id(\"a\")",
        "@audit ", "//", "// ;\n", "\n", "\r", "\"", "\\\"", "\\", ";", "{", "}", "(", ")", " ", "unless { \"a\" == \"};\" }", "permit",
        "permit(principal, action, resource)", "?principal", "\u{a0}", "\u{2028}", "x", "::", "&&", "'",
    ]), 0..12)) {
        let text = parts.concat();
        if let Ok(set) = PolicySet::from_str(&text) {
            let found = policies(&text);
            let found = found.map_err(|r| TestCaseError::fail(format!("{text:?}: {}", r.message)))?;
            prop_assert_eq!(found.len(), set.policies().count() + set.templates().count(), "{:?}", text);
            for piece in found.iter().filter(|p| !p.text.contains('?')) {
                let policy = Policy::parse(None, piece.text);
                let policy = policy.map_err(|e| TestCaseError::fail(format!("{:?}: {e}", piece.text)))?;
                let forbid = policy.effect() == cedar_policy::Effect::Forbid;
                prop_assert!(!(forbid && piece.surely_permit));
            }
        }
    }
}
