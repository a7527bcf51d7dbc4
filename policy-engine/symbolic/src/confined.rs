//! Whether policies that people wrote in Cedar stay in their namespaces: outside, each neither holds nor fails.
//!
//! The mesh conjoins the boundary itself, so this proves its construction, policy by policy, without trusting it.

use crate::formula::Questions;
use crate::session::{Answer, Session};
use mesh_policy::Snapshot;
use mesh_policy::cedar::model::{Asker, Bounded, bounded};
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Whether one policy stays inside.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Confinement {
    /// Of nothing outside it holds or fails.
    Proved {
        /// Formulas that the solver was asked about.
        formulas: usize,
    },
    /// The solver found something outside, and Cedar agrees that it holds there.
    Refuted {
        /// In words.
        why: String,
    },
    /// It is not known. That is no success.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Adds every policy of a snapshot that has a namespace, by its id; what is known already is not asked again.
///
/// # Errors
/// Why the policies of this snapshot cannot be looked at.
pub fn confined(
    snapshot: &Snapshot,
    session: &mut Session,
    known: &mut BTreeMap<String, Confinement>,
) -> Result<(), String> {
    for policy in bounded(snapshot)? {
        if let Entry::Vacant(place) = known.entry(policy.id.clone()) {
            place.insert(stays(&policy, session));
        }
    }
    Ok(())
}

fn stays(policy: &Bounded, session: &mut Session) -> Confinement {
    let before = session.asked();
    for asker in Asker::ALL {
        for requests in [false, true] {
            let found = Questions::anywhere(asker, requests).and_then(|questions| {
                questions.evaluated(session, &policy.outside)?;
                let found = questions.hold(session, &policy.outside)?;
                questions.possible(session)?;
                Ok(found)
            });
            match found {
                Ok(Answer::Impossible) => {}
                Ok(Answer::Possible(found)) => {
                    let why = format!(
                        "it holds outside of {}: {}",
                        policy.namespace, found.request
                    );
                    return Confinement::Refuted { why };
                }
                Ok(Answer::Unknown(why)) | Err(why) => return Confinement::Unknown { why },
            }
        }
    }
    Confinement::Proved {
        formulas: session.asked() - before,
    }
}
