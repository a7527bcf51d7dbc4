//! What makes a class of decisions, and what of a log's allows counts: its exact counts, and its records where it has none.

use super::logs::{Window, merge};
use mesh_audits::entry::AllowClass;
use mesh_compliance::bundle::Traffic;
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::record::{DecisionRecord, RecordRoute, RecordServer};
use mesh_policy::request::Protocol;
use mesh_trust::Timestamp;
use std::collections::HashMap;

/// A decision, as far as it makes a class.
pub(super) struct Seen<'a> {
    client: Option<&'a str>,
    tls: bool,
    ip: Option<&'a str>,
    server: &'a RecordServer,
    workload: &'a str,
    route: Option<&'a RecordRoute>,
    method: Option<&'a str>,
    protocol: Protocol,
    verdict: Verdict,
    phase: Phase,
    status: Option<u16>,
    reasons: &'a [String],
    audit: bool,
}

impl<'a> Seen<'a> {
    /// A recorded decision of a workload's proxy.
    pub(super) fn of_record(record: &'a DecisionRecord, workload: &'a str) -> Self {
        let method = record.request.as_ref().map(|one| one.method.as_str());
        let seen = Self {
            client: record.client.spiffe_id.as_deref(),
            tls: record.client.tls,
            ip: record.client.ip.as_deref(),
            server: &record.server,
            workload,
            route: record.route.as_ref(),
            method,
            protocol: protocol(method, record.route.as_ref(), record.grpc_status.is_some()),
            verdict: record.verdict,
            phase: record.phase,
            status: record.status,
            reasons: &record.reasons,
            audit: record.audit,
        };
        match record.verdict {
            Verdict::Allow => seen.allowed(),
            Verdict::Deny => seen,
        }
    }

    /// A class that a proxy counted; none of a workload that is not known.
    pub(super) fn of_class(class: &'a AllowClass) -> Option<Self> {
        let seen = Self {
            client: class.client.as_deref(),
            tls: class.tls,
            ip: None,
            server: &class.server,
            workload: class.server.workload.as_deref()?,
            route: class.route.as_ref(),
            method: class.method.as_deref(),
            protocol: protocol(class.method.as_deref(), class.route.as_ref(), false),
            verdict: Verdict::Allow,
            phase: Phase::Permit,
            status: None,
            reasons: &class.reasons,
            audit: class.audit,
        };
        Some(seen.allowed())
    }

    /// Counts say neither layer nor status of an allow, which are always these.
    fn allowed(mut self) -> Self {
        self.phase = Phase::Permit;
        self.status = self.method.map(|_| 200);
        self
    }

    /// What makes the class, as bytes: no two classes have the same.
    pub(super) fn key(&self, key: &mut Vec<u8>) {
        let mut text = |text: Option<&str>| {
            let length = text.map_or(0, |text| text.len() as u64 + 1);
            key.extend_from_slice(&length.to_le_bytes());
            key.extend_from_slice(text.unwrap_or_default().as_bytes());
        };
        text(self.client);
        text(Some(&self.server.namespace));
        text(Some(self.workload));
        text(self.server.name.as_deref());
        text(self.method);
        for part in [
            self.route.map(|r| &r.kind),
            self.route.map(|r| &r.namespace),
            self.route.map(|r| &r.name),
        ] {
            text(part.map(String::as_str));
        }
        self.reasons.iter().for_each(|reason| text(Some(reason)));
        key.extend_from_slice(&self.route.map_or(0, |route| route.rule).to_le_bytes());
        key.extend_from_slice(&self.server.port.to_le_bytes());
        key.extend_from_slice(&self.status.unwrap_or_default().to_le_bytes());
        key.extend_from_slice(&[
            self.verdict as u8,
            self.phase as u8,
            self.protocol as u8,
            u8::from(self.tls),
            u8::from(self.server.default),
            u8::from(self.audit),
        ]);
    }

    /// The class.
    pub(super) fn traffic(&self, count: u64, (first, last): Window) -> Traffic {
        Traffic {
            namespace: self.server.namespace.clone(),
            workload: self.workload.to_owned(),
            port: self.server.port,
            server: self.server.name.clone().filter(|_| !self.server.default),
            client: self.client.filter(|_| self.tls).map(str::to_owned),
            tls: self.tls,
            ip: self.ip.map(str::to_owned),
            protocol: self.protocol,
            method: self.method.map(str::to_owned),
            route: self.route.map(|route| {
                format!(
                    "{}/{}/{}/{}",
                    route.kind, route.namespace, route.name, route.rule
                )
            }),
            verdict: self.verdict,
            phase: self.phase,
            status: self.status,
            reasons: self.reasons.to_vec(),
            audit: self.audit,
            count,
            first,
            last,
        }
    }
}

fn protocol(method: Option<&str>, route: Option<&RecordRoute>, grpc: bool) -> Protocol {
    let on_grpc = route.is_some_and(|route| route.kind == "GRPCRoute");
    match method {
        None => Protocol::Tcp,
        Some(_) if on_grpc || grpc => Protocol::Grpc,
        Some(_) => Protocol::Http,
    }
}

/// What was allowed, of one log.
#[derive(Default)]
pub(super) struct Allows {
    recorded: HashMap<Vec<u8>, Traffic>,
    counted: HashMap<Vec<u8>, Traffic>,
    key: Vec<u8>,
    /// Counted without a class.
    pub(super) nameless: u64,
}

impl Allows {
    /// An allow that was recorded by itself.
    pub(super) fn record(&mut self, seen: &Seen<'_>, time: Option<Timestamp>) {
        add(&mut self.recorded, &mut self.key, seen, 1, (time, time));
    }

    /// Allows that were counted.
    pub(super) fn count(&mut self, seen: &Seen<'_>, count: u64, window: Window) {
        add(&mut self.counted, &mut self.key, seen, count, window);
    }

    /// Each class: as it was counted, and as it was recorded if it was not counted (yet): proxies count a stretch of time
    /// when it is over, and a log of an older version has no counts.
    pub(super) fn classes(self) -> impl Iterator<Item = (Vec<u8>, Traffic)> {
        let Self {
            mut recorded,
            mut counted,
            ..
        } = self;
        for (key, class) in &mut counted {
            if let Some(same) = recorded.remove(key) {
                // Counts know no address; one that was seen will do.
                class.ip = same.ip;
            }
        }
        counted.into_iter().chain(recorded)
    }
}

fn add(
    to: &mut HashMap<Vec<u8>, Traffic>,
    key: &mut Vec<u8>,
    seen: &Seen<'_>,
    count: u64,
    window: Window,
) {
    key.clear();
    seen.key(key);
    match to.get_mut(key.as_slice()) {
        Some(class) => merge(class, count, window),
        None => drop(to.insert(key.clone(), seen.traffic(count, window))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(count: u64) -> AllowClass {
        AllowClass {
            generation: 1,
            client: Some("spiffe://d/ns/a/sa/b".to_owned()),
            tls: true,
            server: RecordServer {
                namespace: "shop".to_owned(),
                name: Some("orders".to_owned()),
                workload: Some("orders".to_owned()),
                port: 80,
                default: false,
            },
            route: None,
            method: Some("GET".to_owned()),
            reasons: vec!["AuthorizationPolicy/shop/x/0".to_owned()],
            audit: false,
            count,
        }
    }

    fn at(secs: i64) -> Option<Timestamp> {
        Some(Timestamp::from_unix_secs(secs))
    }

    #[test]
    fn a_class_that_was_counted_is_not_counted_again_from_its_sample() {
        let (one, mut other) = (class(7), class(1));
        other.method = Some("POST".to_owned());
        let mut allows = Allows::default();
        let seen = Seen::of_class(&one).unwrap();
        allows.count(&seen, 7, (at(0), at(10)));
        allows.count(&seen, 5, (at(10), at(20)));
        for time in [1, 2] {
            allows.record(&seen, at(time));
        }
        // Recorded, and its stretch of time is not over.
        allows.record(&Seen::of_class(&other).unwrap(), at(21));
        let mut found: Vec<_> = allows
            .classes()
            .map(|(_, one)| (one.method, one.count, one.first, one.last))
            .collect();
        found.sort();
        let get = (Some("GET".to_owned()), 12, at(0), at(20));
        let post = (Some("POST".to_owned()), 1, at(21), at(21));
        assert_eq!(found, [get, post]);
    }
}
