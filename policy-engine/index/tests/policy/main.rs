//! Policy end to end: manifests in, decisions out.

#[cfg(test)]
mod findings;
#[cfg(test)]
mod linkerd_suite;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod readings;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod stricter;
#[cfg(test)]
mod world;
