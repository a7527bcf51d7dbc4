//! The tests that docs/reference/identity-tests.md and threat-tests.md name exist, and no number of the catalogue is left out.

use crate::tree;
use regex::Regex;
use std::collections::BTreeSet;

const PAGES: [&str; 2] = ["identity-tests.md", "threat-tests.md"];

fn page(name: &str) -> String {
    let page = tree::root().join("docs/reference").join(name);
    std::fs::read_to_string(page).expect("a page of the book")
}

#[test]
fn every_test_that_the_tables_of_threats_name_exists() {
    let name = Regex::new("`([a-z0-9]+(?:_[a-z0-9]+)+)`").expect("a valid pattern");
    let pages = PAGES.map(page).concat();
    let named: BTreeSet<_> = name
        .captures_iter(&pages)
        .map(|c| c[1].to_owned())
        .filter(|name| !name.starts_with("mesh_"))
        .collect();
    assert!(named.len() > 200, "the tables are read: {named:?}");
    let function = Regex::new(r"(?m)^\s*(?:async )?fn ([a-z0-9_]+)\(").expect("a valid pattern");
    let mut there = BTreeSet::new();
    for file in tree::rust_files() {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        there.extend(function.captures_iter(&text).map(|c| c[1].to_owned()));
    }
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "named and not there: {missing:?}");
}

/// How many entries each group of the catalogue has.
const CATALOGUE: [(&str, u32); 13] = [
    ("PD", 19),
    ("PA", 18),
    ("HO", 12),
    ("HD", 13),
    ("H1-", 18),
    ("H2-", 18),
    ("GW", 12),
    ("CR", 9),
    ("RD", 12),
    ("RX", 10),
    ("CP", 14),
    ("AU", 6),
    ("F", 25),
];

#[test]
fn no_number_of_the_catalogue_is_left_out() {
    let page = page("threat-tests.md");
    let first_columns: String = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .map(|(first, _)| format!("{first} "))
        .collect();
    let there = |number: &str| {
        first_columns
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .any(|word| word == number)
    };
    let missing: Vec<_> = CATALOGUE
        .into_iter()
        .flat_map(|(group, last)| (1..=last).map(move |number| format!("{group}{number}")))
        .filter(|number| !there(number))
        .collect();
    assert!(
        missing.is_empty(),
        "neither a test nor a reason: {missing:?}"
    );
}
