//! Entries for the tests of this crate.

use crate::chain::ChainState;
use crate::checkpoint::CheckpointKey;
use crate::entry::{Entry, Start};
use mesh_policy::decide::{Generation, Phase, Verdict};
use mesh_policy::record::{DecisionRecord, RecordClient, RecordRequest, RecordServer};
use mesh_trust::Timestamp;

pub(crate) fn start(origin: &str) -> Start {
    Start {
        time: Timestamp::from_unix_secs(1_790_000_000),
        origin: origin.to_owned(),
        version: "0.1.0".to_owned(),
        torn_bytes: 0,
        missing_through: None,
    }
}

pub(crate) fn decision(number: u64) -> DecisionRecord {
    DecisionRecord {
        time: Some(Timestamp::from_unix_secs(1_790_000_000).plus_secs(number as i64)),
        generation: Generation(number),
        client: RecordClient {
            spiffe_id: Some("spiffe://cluster.local/ns/shop/sa/web".to_owned()),
            ip: Some("127.64.1.1".to_owned()),
            tls: true,
            serial: Some("7f00".to_owned()),
            expires: None,
        },
        server: RecordServer {
            namespace: "shop".to_owned(),
            name: Some("cart".to_owned()),
            workload: Some("cart-0".to_owned()),
            port: 8080,
            default: false,
        },
        route: None,
        request: Some(RecordRequest {
            method: "GET".to_owned(),
            path: Some(format!("/items/{number}")),
            raw_path: format!("/items/{number}?q=1"),
            host: Some("cart".to_owned()),
        }),
        verdict: Verdict::Deny,
        status: Some(403),
        grpc_status: None,
        phase: Phase::Permit,
        reasons: Vec::new(),
        audit: false,
        first: false,
        near_misses: Vec::new(),
        shadow: None,
    }
}

/// A log of `lines` lines, the first a start, as lines with their line feeds; and its end.
pub(crate) fn log(origin: &str, lines: u64) -> (Vec<Vec<u8>>, ChainState) {
    let mut chain = ChainState::genesis(origin);
    let mut log = vec![chain.append(Entry::Start(start(origin))).unwrap()];
    log.extend((1..lines).map(|number| {
        chain
            .append(Entry::Decision(Box::new(decision(number))))
            .unwrap()
    }));
    (log, chain)
}

/// A key that is the same in every run.
pub(crate) fn key(seed: u8) -> CheckpointKey {
    CheckpointKey::from_seed(&[seed; 32]).unwrap()
}
