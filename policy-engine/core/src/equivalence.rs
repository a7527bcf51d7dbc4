//! Whether the compiled matcher and Cedar give the same answers.
//!
//! [`Sample`] is one live decision, taken aside to be made again by Cedar off the data path. [`check`] tries every grant
//! of a snapshot on every combination of what it asks: as Cedar's answer is a function of the set of policies that hold,
//! and each policy asks few things, that is exhaustive, at a cost linear in the grants. [`Pairs`] has every policy twice,
//! for a solver that is asked whether the two can differ.

use crate::compile::Snapshot;
use crate::connection::ConnectionAtoms;
use crate::decide::{Decision, Generation, decide_by_cedar};
use crate::record::DecisionRecord;
use crate::request::{Call, Client, Head, Protocol};
use mesh_trust::Timestamp;
use std::collections::BTreeMap;

mod check;
mod pairs;

pub use check::{Assurance, check};
pub use pairs::{Pair, Pairs, differing};

/// One decision with all that it was made of, to be made again later, on any thread.
#[derive(Debug)]
pub struct Sample {
    snapshot: Snapshot,
    client: Client,
    port: u16,
    head: Option<OwnedHead>,
    now: Timestamp,
    record: DecisionRecord,
}

/// A head, as far as some policy or route looks at it.
#[derive(Debug)]
struct OwnedHead {
    method: String,
    target: String,
    host: Option<String>,
    grpc: bool,
    headers: OwnedHeaders,
}

/// Values of headers, as bytes, by lower-case name.
#[derive(Debug, Default)]
struct OwnedHeaders(BTreeMap<String, Vec<Vec<u8>>>);

impl crate::request::Headers for OwnedHeaders {
    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        let values = self.0.get(name).into_iter().flatten();
        values.for_each(|value| each(value));
    }
}

/// Cedar gave another answer than the matcher.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// What the matcher decided.
    pub matcher: DecisionRecord,
    /// What Cedar decides.
    pub cedar: DecisionRecord,
}

impl Sample {
    /// Takes a decision aside. `client`, `call` and `now` are those that it was made on.
    pub fn of(decision: &Decision, client: &Client, call: &Call<'_>, now: Timestamp) -> Self {
        let snapshot = decision.snapshot().clone();
        let head = match call {
            Call::Tcp => None,
            Call::Http(head) => Some(OwnedHead::of(&snapshot, decision.port, head)),
        };
        Self {
            client: client.clone(),
            port: decision.port,
            head,
            now,
            record: decision.record(Some(now), client, call),
            snapshot,
        }
    }

    /// Which policy decided.
    pub fn generation(&self) -> Generation {
        self.snapshot.generation()
    }

    /// The policy that decided.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The port that was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Has Cedar decide again.
    ///
    /// # Errors
    /// [`Mismatch`] if it decides anything else: verdict, phase, status, reasons, or what was judged.
    pub fn check(&self) -> Result<(), Box<Mismatch>> {
        let atoms = ConnectionAtoms::of(&self.snapshot, &self.client);
        let call = match &self.head {
            None => Call::Tcp,
            Some(head) => Call::Http(head.borrowed()),
        };
        let cedar = decide_by_cedar(&atoms, self.port, &call, self.now);
        let cedar = cedar.record(Some(self.now), &self.client, &call);
        if cedar == self.record {
            return Ok(());
        }
        Err(Box::new(Mismatch {
            matcher: self.record.clone(),
            cedar,
        }))
    }

    /// How the bytes were read.
    pub fn protocol(&self) -> Protocol {
        match &self.head {
            None => Protocol::Tcp,
            Some(head) if head.grpc => Protocol::Grpc,
            Some(_) => Protocol::Http,
        }
    }
}

impl OwnedHead {
    fn of(snapshot: &Snapshot, port: u16, head: &Head<'_>) -> Self {
        let mut headers = OwnedHeaders::default();
        let routes = &snapshot.port(port).routes;
        let matches = routes
            .iter()
            .flat_map(|route| &route.rules)
            .flat_map(|rule| &rule.matches);
        let in_routes = matches
            .flat_map(|one| &one.headers)
            .map(|one| one.name.as_str());
        let in_policies = snapshot.compiled().headers.iter().map(|name| &**name);
        for name in in_routes.chain(in_policies) {
            let mut values = Vec::new();
            head.headers
                .for_each_value(name, &mut |value| values.push(value.to_vec()));
            headers.0.insert(name.to_ascii_lowercase(), values);
        }
        Self {
            method: head.method.to_owned(),
            target: head.target.to_owned(),
            host: head.host.map(str::to_owned),
            grpc: head.grpc,
            headers,
        }
    }

    fn borrowed(&self) -> Head<'_> {
        Head {
            method: &self.method,
            target: &self.target,
            host: self.host.as_deref(),
            grpc: self.grpc,
            headers: &self.headers,
        }
    }
}

#[cfg(test)]
mod tests;
