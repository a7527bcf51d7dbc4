//! Where objects are in force: whether every proxy that they concern holds them. Pure.

use crate::publish::Published;
use crate::reports::Held;
use mesh_policy_index::index::WorkloadKey;
use mesh_policy_index::{Condition, ObjectStatus, Reach};
use std::collections::BTreeMap;

/// Workloads that a message names.
const NAMED_MAX: usize = 3;

/// Whether an object is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enforced {
    /// What the status says.
    pub(super) condition: Condition,
    /// Whether it may be otherwise in a moment without anybody's doing.
    pub(super) passing: bool,
}

/// Ready workloads that objects concern, by name of the object.
pub(super) struct Extent<'a> {
    by_object: BTreeMap<&'a str, Tally<'a>>,
    everyone: Tally<'a>,
}

/// How the workloads stand that something concerns.
#[derive(Clone, Debug, Default)]
struct Tally<'a> {
    proxies: usize,
    /// Proxies that hold another policy than the one that is published, or say nothing.
    lacking: Vec<&'a WorkloadKey>,
    /// Proxies that follow another controller, as far as is known here.
    elsewhere: usize,
    unproxied: Vec<&'a WorkloadKey>,
}

impl<'a> Tally<'a> {
    fn add(&mut self, key: &'a WorkloadKey, says: Says) {
        self.proxies += usize::from(says != Says::NoProxy);
        match says {
            Says::Holds => {}
            Says::Lacks => self.lacking.push(key),
            Says::NothingHere => self.elsewhere += 1,
            Says::NoProxy => self.unproxied.push(key),
        }
    }
}

/// What is known of one workload's proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Holds,
    Lacks,
    /// Nothing, and it may tell another controller.
    NothingHere,
    NoProxy,
}

impl<'a> Extent<'a> {
    /// Of what is published, by what proxies say that they hold. A controller that is not `alone` does not hear all.
    pub(super) fn of(published: &'a Published, held: &Held, alone: bool) -> Self {
        let mut out = Self {
            by_object: BTreeMap::new(),
            everyone: Tally::default(),
        };
        let ready = published.workloads.iter();
        for (key, policy) in ready.filter(|(_, policy)| policy.standing.ready) {
            let says = match (policy.standing.proxied, held.get(key)) {
                (false, _) => Says::NoProxy,
                (true, Some(digest)) if *digest == policy.policy_digest => Says::Holds,
                (true, None) if !alone => Says::NothingHere,
                (true, _) => Says::Lacks,
            };
            out.everyone.add(key, says);
            for object in policy.carried.iter() {
                let tally = out.by_object.entry(object.as_str()).or_default();
                tally.add(key, says);
            }
        }
        out
    }

    /// Whether an object is in force.
    pub(super) fn enforced(&self, object: &ObjectStatus) -> Enforced {
        let settled = |reason, message| Enforced {
            condition: no(reason, message),
            passing: false,
        };
        if object.reach == Reach::Candidate {
            let why =
                "it is a candidate only: it is in force nowhere, whether it is refused or not";
            return settled("Shadow", why.to_owned());
        }
        if !object.accepted.holds {
            let why = "it is refused: it grants nothing, and what it protects stays closed";
            return settled("Invalid", why.to_owned());
        }
        if !object.resolved.holds && object.reach != Reach::Parents {
            let why = "not all that it refers to can be used: it grants nothing";
            return settled("UnresolvedRefs", why.to_owned());
        }
        let tally = match &object.reach {
            Reach::Nobody(reason, why) => return settled(reason, why.clone()),
            Reach::Candidate => None,
            Reach::Everyone => Some(&self.everyone),
            Reach::Snapshots | Reach::Parents => self.by_object.get(object.file.as_str()),
        };
        match tally {
            Some(tally) => tally.enforced(),
            None => Enforced {
                condition: no("NoWorkload", nobody(&object.doubts)),
                passing: true,
            },
        }
    }
}

impl Tally<'_> {
    fn enforced(&self) -> Enforced {
        let pods = self.proxies + self.unproxied.len();
        if !self.lacking.is_empty() {
            let message = format!(
                "{} of {} proxies that it concerns do not hold it yet: {}",
                self.lacking.len(),
                self.proxies,
                names(&self.lacking)
            );
            return Enforced {
                condition: no("Pending", message),
                passing: true,
            };
        }
        if !self.unproxied.is_empty() {
            let message = format!(
                "{} of {pods} pods that it concerns have no proxy, so nothing applies it there: {}",
                self.unproxied.len(),
                names(&self.unproxied)
            );
            return Enforced {
                condition: no("NoProxy", message),
                passing: false,
            };
        }
        Enforced {
            condition: Condition {
                holds: true,
                reason: "Enforced",
                // No number: it would be written again whenever a workload grows or shrinks.
                message: match self.elsewhere {
                    0 => "every proxy that it concerns holds it".to_owned(),
                    _ => "every proxy that it concerns and that follows this controller holds it"
                        .to_owned(),
                },
            },
            passing: false,
        }
    }
}

fn no(reason: &'static str, message: String) -> Condition {
    Condition {
        holds: false,
        reason,
        message,
    }
}

fn nobody(doubts: &str) -> String {
    match doubts {
        "" => "no pod that is ready is concerned by it".to_owned(),
        doubts => format!("no pod that is ready is concerned by it; {doubts}"),
    }
}

fn names(keys: &[&WorkloadKey]) -> String {
    let mut names: Vec<String> = keys
        .iter()
        .take(NAMED_MAX)
        .map(|key| format!("{}/{}", key.namespace, key.name))
        .collect();
    if keys.len() > NAMED_MAX {
        names.push(format!("and {} more", keys.len() - NAMED_MAX));
    }
    names.join(", ")
}
