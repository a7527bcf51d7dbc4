//! Policy end to end: manifests in, decisions out.

#[cfg(test)]
mod findings;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod linkerd_suite;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod raw_cedar;
#[cfg(test)]
mod raw_cedar_decisions;
#[cfg(test)]
mod readings;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod stricter;
#[cfg(test)]
mod terms;
#[cfg(test)]
mod world;
