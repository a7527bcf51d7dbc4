//! The command as people and pipelines use it: exit codes, places in messages, answers that programs read.
//!
//! - `run`: the command and what it prints
//! - `command`: the parts that every mesh has: explain, replay, lint, identity, check
//! - `logs`: logs proved, witnessed, redacted
//! - `fixes`: what explain offers against a denial, applied to the files
//! - `questions`: questions beyond one request
//! - `usage`: policy from use: cases, what is unused, suggestions, a candidate beside the live policy
//! - `shadow`: a candidate made by annotations, and what proxies recorded of one
//! - `import`: policies of other meshes, and every command of the guides
//! - `audit`: reports over a bundle
//! - `kubernetes`: install and inject, in a pipe
//! - `up`: a local mesh with keys in a token
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests write files themselves")]

mod audit;
mod command;
mod fixes;
mod import;
mod kubernetes;
mod logs;
mod outside;
mod questions;
mod run;
mod shadow;
mod up;
mod usage;
