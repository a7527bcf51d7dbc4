//! Random meshes, random requests, and what must be true of every decision on them. For tests, fuzzing and long runs; no
//! part of the product.
//!
//! - [`mesh`]: manifests taken from bytes: valid ones above all, some broken
//! - [`objects`]: one function per kind of object
//! - [`asks`]: requests made of the names, addresses and times that such meshes mention
//! - [`departures`]: what leaves such meshes
//! - [`equality`]: the matcher, Cedar and a plain reading of the rules give one answer
//! - [`laws`]: what a change of the manifests may change in the answers
//! - [`random`]: seeded bytes

pub mod asks;
pub mod departures;
pub mod equality;
pub mod laws;
pub mod mesh;
pub mod objects;
pub mod random;
