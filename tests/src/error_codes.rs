//! Every error code in the source has a page in docs/errors.md, and every page a code.

use crate::tree;
use regex::Regex;
use std::collections::BTreeSet;

#[test]
fn codes_in_the_source_and_pages_in_the_book_are_the_same() {
    let code = Regex::new(r#""(MESH-\d{4})""#).expect("a valid pattern");
    let mut used = BTreeSet::new();
    for file in tree::rust_files() {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        let product = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        if file.components().any(|c| c.as_os_str() == "tests") || file.ends_with("tests.rs") {
            continue;
        }
        used.extend(code.captures_iter(product).map(|c| c[1].to_owned()));
    }
    let book =
        std::fs::read_to_string(tree::root().join("docs/errors.md")).expect("docs/errors.md");
    let heading = Regex::new(r"(?m)^## (MESH-\d{4}): \S").expect("a valid pattern");
    let pages: Vec<_> = heading
        .captures_iter(&book)
        .map(|c| c[1].to_owned())
        .collect();
    let unique: BTreeSet<_> = pages.iter().cloned().collect();
    assert_eq!(pages.len(), unique.len(), "a code has two pages");
    let missing: Vec<_> = used.difference(&unique).collect();
    let stale: Vec<_> = unique.difference(&used).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "codes without a page: {missing:?}; pages without a code: {stale:?}"
    );
}

#[test]
fn every_page_says_what_to_do() {
    let book =
        std::fs::read_to_string(tree::root().join("docs/errors.md")).expect("docs/errors.md");
    for page in book.split("\n## MESH-").skip(1) {
        let title = page.lines().next().unwrap_or_default();
        assert!(
            page.contains("**What to do.**"),
            "MESH-{title}: no `**What to do.**`"
        );
        assert!(
            page.contains("**Likely cause.**"),
            "MESH-{title}: no `**Likely cause.**`"
        );
    }
}
