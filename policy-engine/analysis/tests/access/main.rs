//! Questions beyond one request, held against single decisions.
#![cfg(test)]

mod changes;
mod claims;
mod fixes;
mod large;
mod outside;
mod outside_random;
mod reach;
mod world;
