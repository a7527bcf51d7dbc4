//! Policy end to end: manifests in, decisions out.

mod findings;
mod linkerd_suite;
mod properties;
mod readings;
mod stricter;
mod world;
