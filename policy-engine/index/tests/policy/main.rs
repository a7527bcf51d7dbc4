//! Policy end to end: manifests in, decisions out.
//!
//! - `cases_*`: Linkerd's own suite, cases 1 to 26, with both answers side by side
//! - `traps`: where Linkerd fails open or stays silent
//! - `readings`: the settled readings
//! - `shadow`: a candidate beside what is in force
//! - `side_by_side`, `linkerd_model`, `why`: tables of both answers, Linkerd's computed, each difference with its reason
//! - `world`: a mesh out of text, and clients that ask it

#[cfg(test)]
mod cases_admission;
#[cfg(test)]
mod cases_grants;
#[cfg(test)]
mod cases_ports;
#[cfg(test)]
mod cases_runtime;
#[cfg(test)]
mod cases_workloads;
#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod catalogue_heads;
#[cfg(test)]
mod catalogue_objects;
#[cfg(test)]
mod complete;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fields_policies;
#[cfg(test)]
mod fields_workloads;
#[cfg(test)]
mod findings;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod linkerd_model;
#[cfg(test)]
mod origination;
#[cfg(test)]
mod other_protocols;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod raw_cedar;
#[cfg(test)]
mod raw_cedar_decisions;
#[cfg(test)]
mod readings_01_05;
#[cfg(test)]
mod readings_06;
#[cfg(test)]
mod readings_07_11;
#[cfg(test)]
mod readings_12_16;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod service_routes;
#[cfg(test)]
mod services;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod shadow;
#[cfg(test)]
mod side_by_side;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod surplus;
#[cfg(test)]
mod terms;
#[cfg(test)]
mod traps;
#[cfg(test)]
mod why;
#[cfg(test)]
mod world;
#[cfg(test)]
mod zones;
