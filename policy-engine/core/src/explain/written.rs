//! Policies that were written in Cedar, as an explanation shows them: clause by clause.

use super::{Note, View};
use crate::cedar::clauses::clauses;
use crate::connection::Query;
use crate::matcher::Asked;
use crate::question::{RequestFacts, RouteFacts};
use crate::record::NearMiss;
use crate::request::{Call, Protocol};
use crate::snapshot::{CedarText, Effect};
use std::fmt::Write as _;

impl View<'_> {
    /// Permits in Cedar that do not hold, each with the clauses that do and do not.
    pub(super) fn written_misses(&self) -> Vec<NearMiss> {
        let mut out = Vec::new();
        for (place, text) in self.written(Effect::Permit) {
            let (holds, fails) = self.clauses_of(place);
            if !fails.is_empty() {
                out.push(NearMiss {
                    policy: text.id.clone(),
                    source: text.source.to_string(),
                    holds,
                    fails,
                });
            }
        }
        out
    }

    /// Forbids in Cedar that struck, with the clauses that made them, or that could not be evaluated.
    pub(super) fn written_forbids(&self) -> Vec<Note> {
        let mut out = Vec::new();
        for (place, text) in self.written(Effect::Forbid) {
            if !self.reasons.iter().any(|reason| **reason == *text.id) {
                continue;
            }
            let (holds, _) = self.clauses_of(place);
            out.extend(holds.into_iter().map(|clause| Note {
                text: format!("{} holds: {clause}", text.id),
                source: Some(text.source.to_string()),
            }));
        }
        out
    }

    /// Where the policy stands that could not be evaluated.
    pub(super) fn undecidable_text(&self) -> Option<Note> {
        let cause = self.decision.cause.to_string();
        let mut texts = self.data.cedar_policies.iter();
        let found = texts.find(|text| cause.contains(&format!("{}: ", text.id)))?;
        Some(Note {
            text: format!("{} could not be evaluated", found.id),
            source: Some(found.source.to_string()),
        })
    }

    /// Policies of an effect that can be evaluated, with their places.
    fn written(&self, effect: Effect) -> impl Iterator<Item = (usize, &CedarText)> {
        let compiled = self.atoms.snapshot().compiled();
        let texts = self.data.cedar_policies.iter().zip(&compiled.texts);
        texts
            .enumerate()
            .filter(move |(_, (text, raw))| text.effect == effect && raw.fault().is_none())
            .map(|(place, (text, _))| (place, text))
    }

    /// The clauses of the policy at a place that hold, and those that do not.
    fn clauses_of(&self, place: usize) -> (Vec<String>, Vec<String>) {
        let (mut holds, mut fails) = (Vec::new(), Vec::new());
        let compiled = self.atoms.snapshot().compiled();
        let sound = compiled.texts.get(place).and_then(|raw| raw.policy());
        let Some(((policy, _), query)) = sound.zip(self.query()) else {
            return (holds, fails);
        };
        let question = self.atoms.question(self.decision.port, self.port, &query);
        let domain = &compiled.trust_domain;
        let setting = compiled.setting_of(self.data.names());
        for clause in clauses(policy, self.data.names(), domain) {
            match clause.holds(compiled.vocabulary, &setting, &question) {
                Ok(true) => holds.push(clause.text),
                Ok(false) => fails.push(clause.text),
                Err(why) => {
                    let mut text = clause.text;
                    // Writing to a String cannot fail.
                    let _ = write!(text, " ({why})");
                    fails.push(text);
                }
            }
        }
        (holds, fails)
    }

    /// What the policies were asked; `None` if the decision fell before.
    fn query(&self) -> Option<Query<'_>> {
        let bytes = Query {
            asked: Asked::Bytes,
            route: None,
            request: None,
            now: self.now,
        };
        let (Call::Http(head), false) = (self.call, self.decision.spoken == Protocol::Tcp) else {
            return Some(bytes);
        };
        let taken = self.decision.route.as_deref()?;
        Some(Query {
            route: Some(RouteFacts {
                kind: &taken.kind,
                namespace: &taken.namespace,
                name: &taken.name,
                rule: taken.rule,
            }),
            request: Some(RequestFacts {
                method: head.method,
                path: self
                    .decision
                    .canonical_path(head.target)
                    .unwrap_or_default(),
                host: self.decision.canonical_host(head.host),
                headers: head.headers,
                grpc: head.grpc,
            }),
            ..bytes
        })
    }
}
