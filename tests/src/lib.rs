//! Scenarios over several crates, and checks of the tree itself: arrows between crates, error codes, module heads, rights.
#![cfg(test)]

mod arrows;
mod error_codes;
mod module_heads;
mod rights;
mod threat_tests;
mod tree;
