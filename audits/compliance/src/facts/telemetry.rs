//! Whether the logs tell what a namespace's workloads were asked.

use crate::bundle::{Bundle, LogKind, Workload};
use std::collections::BTreeMap;

/// What is known of a namespace's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Workloads in the mesh.
    pub meshed: Vec<String>,
    /// Workloads beside it.
    pub unmeshed: Vec<String>,
    /// Why some of its traffic is not known; empty: all decisions are, or a sample of them.
    pub missing: Vec<String>,
    /// The smallest share of allowed requests that is on record, millionths; none: all are, or are counted.
    pub sample_ppm: Option<u32>,
    /// Whether some of it is counted by class, and a sample recorded.
    pub counted: bool,
}

impl Telemetry {
    /// Of a namespace where nothing runs.
    pub const NONE: Self = Self {
        meshed: Vec::new(),
        unmeshed: Vec::new(),
        missing: Vec::new(),
        sample_ppm: None,
        counted: false,
    };

    /// Whether anything runs there.
    pub fn is_empty(&self) -> bool {
        self.meshed.is_empty() && self.unmeshed.is_empty()
    }

    /// Why nothing can be said about its traffic, if so.
    pub fn unknown(&self) -> Option<String> {
        match (self.missing.first(), self.meshed.is_empty()) {
            (Some(first), _) => Some(match self.missing.len() {
                1 => first.clone(),
                more => format!("{first}; and {} more", more - 1),
            }),
            (None, true) if !self.unmeshed.is_empty() => {
                Some("no proxy of the mesh sees its traffic".to_owned())
            }
            (None, _) => None,
        }
    }

    /// How much of what was allowed is on record, for people.
    pub fn sampling(&self) -> String {
        match self.sample_ppm {
            None if self.meshed.is_empty() => "none: nothing of it is in the mesh".to_owned(),
            None if self.counted => {
                "every denial, and exact counts by class of what was allowed".to_owned()
            }
            None => "every decision".to_owned(),
            Some(ppm) => format!("every denial, {} of what was allowed", percent_of_ppm(ppm)),
        }
    }
}

/// `1 %` for 10,000 millionths.
fn percent_of_ppm(ppm: u32) -> String {
    let (whole, part) = (ppm / 10_000, ppm % 10_000);
    let part = format!("{part:04}");
    match part.trim_end_matches('0') {
        "" => format!("{whole} %"),
        part => format!("{whole}.{part} %"),
    }
}

/// The telemetry of each namespace.
pub(super) fn of(bundle: &Bundle, namespaces: &[String]) -> BTreeMap<String, Telemetry> {
    let mut out: BTreeMap<String, Telemetry> = namespaces
        .iter()
        .map(|name| (name.clone(), Telemetry::default()))
        .collect();
    let logs: BTreeMap<(&str, &str), &crate::bundle::Log> = bundle
        .logs
        .iter()
        .filter(|log| log.records == LogKind::Decisions)
        .filter_map(|log| Some(((log.namespace.as_deref()?, log.workload.as_deref()?), log)))
        .collect();
    for workload in &bundle.workloads {
        let here = out.entry(workload.namespace.clone()).or_default();
        if workload.meshed {
            here.meshed.push(workload.name.clone());
            let log = logs.get(&(workload.namespace.as_str(), workload.name.as_str()));
            add(here, workload, log.copied());
        } else {
            here.unmeshed.push(workload.name.clone());
        }
    }
    out
}

fn add(here: &mut Telemetry, workload: &Workload, log: Option<&crate::bundle::Log>) {
    let name = format!("{}/{}", workload.namespace, workload.name);
    match log {
        None => here
            .missing
            .push(format!("there is no decision log of {name}")),
        Some(log) => {
            if let Some(broken) = &log.broken {
                here.missing.push(match broken.line {
                    0 => format!(
                        "the decision log of {name} was not read: {}",
                        broken.message
                    ),
                    line => format!("the decision log of {name} is not proved from line {line} on"),
                });
            }
            here.counted |= log.counts_allows && workload.allow_sample_ppm < 1_000_000;
            if !log.counts_allows && workload.allow_sample_ppm < 1_000_000 {
                let least = here.sample_ppm.unwrap_or(workload.allow_sample_ppm);
                here.sample_ppm = Some(least.min(workload.allow_sample_ppm));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_read_well() {
        for (ppm, text) in [
            (10_000, "1 %"),
            (1_000_000, "100 %"),
            (2_500, "0.25 %"),
            (0, "0 %"),
            (1, "0.0001 %"),
        ] {
            assert_eq!(percent_of_ppm(ppm), text);
        }
    }
}
