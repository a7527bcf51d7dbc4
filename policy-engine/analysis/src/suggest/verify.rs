//! What suggested manifests allow beyond what was seen: every class of clients and requests, decided by the data path.

use super::observe::{Class, Observed};
use crate::classes::Who;
use crate::classes::request::AskProtocol;
use crate::error::AnalysisError;
use crate::survey::{Setting, Survey, compile, known_identities};
use crate::world::{AskedPort, World, ports, title};
use mesh_policy::decide::Verdict;
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy_index::Index;
use mesh_policy_index::replay::Replay;
use mesh_trust::Timestamp;
use serde::Serialize;

/// Something that is allowed and was not seen.
#[derive(Clone, Debug, Serialize)]
pub struct Excess {
    /// `namespace/workload:port`.
    pub to: String,
    /// What allows it.
    pub reasons: Vec<String>,
    /// One such request.
    pub witness: RequestRecord,
}

/// What was asked of the manifests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    /// Whether every class was asked.
    pub exact: bool,
    /// Why not.
    pub notes: Vec<String>,
    /// Questions that were decided.
    pub decisions: usize,
    /// What is allowed and was not seen.
    pub excess: Vec<Excess>,
    /// What was seen and is not allowed: `identity: class on target`.
    pub missing: Vec<String>,
}

/// Asks `index`, which is of the suggested manifests, everything it tells apart, and all that was seen.
///
/// # Errors
/// [`AnalysisError`] of the first workload that has no answer: nothing is claimed then.
pub fn verify(
    index: &Index,
    observed: &mut Observed<'_>,
    now: Timestamp,
) -> Result<Verified, AnalysisError> {
    let mut out = Verified {
        exact: true,
        ..Verified::default()
    };
    let home = index.config().trust_domain.clone();
    let known = known_identities(index, &home);
    let setting = Setting {
        now,
        known: &known,
        texts: &[],
        structural: false,
    };
    for key in World::workloads(index) {
        let Some(data) = World::snapshot(index, &key) else {
            continue;
        };
        let view = compile(&key, data)?;
        for port in ports(&[&view.data()]) {
            let survey = Survey::of(&key, &view, port, setting)?;
            out.decisions = out.decisions.saturating_add(survey.decisions());
            out.exact &= survey.inexact.is_empty();
            let notes = survey.inexact.iter();
            out.notes
                .extend(notes.map(|why| format!("{}:{}: {why}", title(&key), port.text())));
            beyond(&survey, port, observed, &mut out);
        }
    }
    replay_seen(index, observed, now, &mut out);
    Ok(out)
}

/// Allowed questions of a port that nobody was seen asking.
fn beyond(survey: &Survey, port: AskedPort, observed: &mut Observed<'_>, out: &mut Verified) {
    let target = match port {
        AskedPort::Own(number) => observed.port(survey.workload.clone(), number),
        AskedPort::Other(_) => None,
    };
    for allowed in &survey.allowed {
        if allowed
            .reasons
            .iter()
            .all(|reason| &**reason == "default/probe")
        {
            continue;
        }
        let who = survey.clients.who.get(allowed.who);
        let asked = survey.requests.get(allowed.request).map(|one| &one.ask);
        let seen = match (&target, who.map(|who| &who.who), asked) {
            (Some(target), Some(Who::Named(id)), Some(ask)) => {
                let request = (ask.protocol != AskProtocol::Tcp).then(|| {
                    let path = ask.path.split('?').next().unwrap_or_default();
                    (ask.method.as_str(), path)
                });
                observed.holds(target, &id.to_string(), request)
            }
            _ => false,
        };
        if let Some(witness) = survey.witness(allowed).filter(|_| !seen) {
            out.excess.push(Excess {
                to: format!("{}:{}", title(&survey.workload), port.text()),
                reasons: allowed.reasons.iter().map(ToString::to_string).collect(),
                witness,
            });
        }
    }
}

/// Every identity that was seen on a port, with every class that was seen there: allowed exactly if both were seen
/// together.
fn replay_seen(index: &Index, observed: &Observed<'_>, now: Timestamp, out: &mut Verified) {
    let mut replay = Replay::new(index, now);
    for (key, number, port) in observed.places() {
        let Some(classes) = observed.classes.get(port) else {
            continue;
        };
        let everybody: std::collections::BTreeSet<&String> = classes
            .values()
            .flat_map(|clients| clients.keys())
            .collect();
        for (class, clients) in classes {
            let Some(seen) = clients.values().next() else {
                continue;
            };
            for id in &everybody {
                let request = RequestRecord {
                    client: ClientRecord {
                        spiffe_id: Some((*id).clone()),
                        ip: None,
                        tls: Some(true),
                    },
                    server: TargetRecord {
                        namespace: key.namespace.clone(),
                        pod: Some(key.name.clone()),
                        service: None,
                        port: *number,
                    },
                    protocol: match class {
                        Class::Bytes => Protocol::Tcp,
                        Class::Request(..) => Protocol::Http,
                    },
                    method: match class {
                        Class::Bytes => None,
                        Class::Request(method, _) => Some(method.clone()),
                    },
                    path: (*class != Class::Bytes).then(|| seen.example.clone()),
                    host: None,
                    headers: Default::default(),
                };
                let decision = replay.decide(&request);
                out.decisions = out.decisions.saturating_add(1);
                let to = format!("{}:{number}", title(key));
                match (decision.verdict, clients.contains_key(*id)) {
                    (Verdict::Allow, false) => out.excess.push(Excess {
                        to,
                        reasons: decision.reasons,
                        witness: request,
                    }),
                    (Verdict::Deny, true) => {
                        out.missing.push(format!("{id}: {} on {to}", class.text()));
                    }
                    _ => {}
                }
            }
        }
    }
}
