//! Nothing is left out: each numbered rule has a test that says its number, each difference a row and a line in the book.

use crate::why;
use std::collections::BTreeSet;

/// The sources of these tests.
const SOURCES: &[&str] = &[
    include_str!("cases_admission.rs"),
    include_str!("cases_grants.rs"),
    include_str!("cases_ports.rs"),
    include_str!("cases_runtime.rs"),
    include_str!("cases_workloads.rs"),
    include_str!("catalogue.rs"),
    include_str!("catalogue_heads.rs"),
    include_str!("catalogue_objects.rs"),
    include_str!("readings_01_05.rs"),
    include_str!("readings_06.rs"),
    include_str!("readings_07_11.rs"),
    include_str!("readings_12_16.rs"),
    include_str!("routes.rs"),
    include_str!("traps.rs"),
];

/// Names of all tests: functions below `#[test]`.
fn tests() -> BTreeSet<&'static str> {
    let after = SOURCES
        .iter()
        .flat_map(|text| text.split("#[test]\nfn ").skip(1));
    after.filter_map(|text| text.split('(').next()).collect()
}

/// Numbers of a series that no test names.
fn missing(series: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let tests = tests();
    let named = |prefix: &str| tests.iter().any(|name| name.starts_with(prefix));
    let prefixes = numbers.into_iter().map(|n| format!("{series}{n:02}_"));
    prefixes.filter(|prefix| !named(prefix)).collect()
}

/// A source without the names that it imports: what is left of a name is a use.
fn without_imports(text: &str) -> String {
    let (before, after) = text.split_once("use crate::why::").unwrap_or((text, ""));
    let (_, after) = after.split_once(';').unwrap_or(("", after));
    format!("{before}{after}")
}

#[test]
fn every_case_trap_and_reading_has_a_test_with_its_number() {
    assert_eq!(missing("case_", 1..=26), Vec::<String>::new());
    assert_eq!(missing("trap_", 1..=12), Vec::<String>::new());
    assert_eq!(missing("reading_", 1..=16), Vec::<String>::new());
    assert_eq!(
        missing("case_", [27]),
        ["case_27_"],
        "what is missing is found"
    );
}

#[test]
fn every_entry_of_the_catalogue_that_policy_answers_has_a_test_with_its_number() {
    assert_eq!(missing("pa", 1..=18), Vec::<String>::new());
    assert_eq!(missing("ho", (1..=9).chain([12])), Vec::<String>::new());
    assert_eq!(missing("hd", [2, 3, 11]), Vec::<String>::new());
    assert_eq!(
        missing("cp", [1].into_iter().chain(3..=7).chain([12, 13])),
        Vec::<String>::new()
    );
    assert_eq!(missing("pd", [1, 9, 11, 12]), Vec::<String>::new());
}

#[test]
fn no_number_is_beyond_its_list() {
    for (series, last) in [("case_", 26), ("trap_", 12), ("reading_", 16)] {
        for name in tests().into_iter().filter(|name| name.starts_with(series)) {
            let number: u32 = name[series.len()..]
                .split('_')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=last).contains(&number), "{name}");
        }
    }
}

#[test]
fn every_difference_is_shown_by_a_row_and_printed_in_the_book() {
    let book = include_str!("../../../../docs/reference/linkerd.md");
    // What is told of Services' routes has tests elsewhere.
    let (book, _) = book.split_once("\n## Routes of Services\n").unwrap();
    let rows: BTreeSet<&str> = book.lines().filter(|line| line.starts_with("| ")).collect();
    let more = [
        include_str!("fields_policies.rs"),
        include_str!("fields_workloads.rs"),
    ];
    let used: Vec<String> = SOURCES
        .iter()
        .chain(&more)
        .map(|text| without_imports(text))
        .collect();
    for (name, difference) in why::ALL {
        let shown = used.iter().any(|text| text.contains(&format!(" {name}")));
        assert!(shown, "no row shows {name}");
        let difference = difference.unwrap();
        let row = format!(
            "| {} | {} | {} |",
            difference.linkerd, difference.ours, difference.because
        );
        assert!(
            rows.contains(row.as_str()),
            "docs/reference/linkerd.md lacks:\n{row}"
        );
    }
    let printed = rows
        .iter()
        .filter(|row| !row.starts_with("| Linkerd "))
        .count();
    assert_eq!(
        printed,
        why::ALL.len(),
        "the book has differences that no test has"
    );
}

#[test]
fn every_reading_is_in_the_book() {
    let book = include_str!("../../../../docs/reference/linkerd.md");
    for number in 1..=16 {
        assert!(book.contains(&format!("\n{number}. ")), "reading {number}");
    }
}
