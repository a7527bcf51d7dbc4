//! The tests that docs/reference/identity-tests.md names exist.

use crate::tree;
use regex::Regex;
use std::collections::BTreeSet;

#[test]
fn every_test_that_the_table_of_threats_names_exists() {
    let page = tree::root().join("docs/reference/identity-tests.md");
    let page = std::fs::read_to_string(page).expect("the table");
    let name = Regex::new("`([a-z0-9]+(?:_[a-z0-9]+)+)`").expect("a valid pattern");
    let named: BTreeSet<_> = name.captures_iter(&page).map(|c| c[1].to_owned()).collect();
    assert!(named.len() > 50, "the table is read: {named:?}");
    let function = Regex::new(r"(?m)^\s*(?:async )?fn ([a-z0-9_]+)\(").expect("a valid pattern");
    let mut there = BTreeSet::new();
    for file in tree::rust_files() {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        there.extend(function.captures_iter(&text).map(|c| c[1].to_owned()));
    }
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "named and not there: {missing:?}");
}
