//! Every source file begins by saying what it is for, and none grows past what one sitting can hold.

use crate::tree;

/// Lines past which only tables may go on (CONTRIBUTING.md, "Size").
const LINES_MAX: usize = 1_000;

#[test]
fn every_source_file_begins_with_its_purpose() {
    for file in tree::rust_files() {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        let first = text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with("#!["))
            .unwrap_or_default();
        assert!(
            first.starts_with("//!"),
            "{} does not begin with //!",
            file.display()
        );
    }
}

#[test]
fn no_source_file_is_longer_than_a_sitting() {
    for file in tree::rust_files() {
        let lines = std::fs::read_to_string(&file)
            .expect("a readable source file")
            .lines()
            .count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines: find the seam",
            file.display()
        );
    }
}
