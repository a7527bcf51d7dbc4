//! Imports: Istio's policies mean here at most what they meant there.
//!
//! - [`istio_model`]: Istio's evaluation, written down from its documentation and not from the importer
//! - [`generate`]: random policies and requests of a small world
//! - [`properties`]: what is imported never allows more, and exactly the same where the report says so
//! - [`translation`]: single rules, as sentences
//! - [`attacks`]: requests that Istio refuses, by what is easily lost on the way
//! - [`refusals`]: input that ends an import
//! - [`linkerd`]: where Linkerd's resources mean something else here
//! - [`ours`]: this mesh's own answers
#![cfg(test)]

mod attacks;
mod generate;
mod istio_model;
mod linkerd;
mod ours;
mod properties;
mod refusals;
mod translation;
