//! Entries and logs for the tests of this crate.

use crate::entry::{Entry, Start};
use crate::line::{Encoded, encode};
use crate::verify::{LogSource, Trust};
use mesh_policy::decide::{Generation, Phase, Verdict};
use mesh_policy::record::{DecisionRecord, RecordClient, RecordRequest, RecordServer};
use mesh_tlog::checkpoint::{Checkpoint, TreeHead};
use mesh_tlog::note::{KeyType, SigningKey};
use mesh_tlog::tile::{Edge, ReadTile, Tile, TileError};
use mesh_trust::Timestamp;
use std::collections::BTreeMap;
use std::io::{self, BufRead};

pub(crate) fn start(origin: &str) -> Start {
    Start {
        time: Timestamp::from_unix_secs(1_790_000_000),
        origin: origin.to_owned(),
        version: "0.1.0".to_owned(),
        torn_bytes: 0,
        missing_from: None,
        allow_sample: None,
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
        egress: None,
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
        fault: None,
    }
}

pub(crate) const ORIGIN: &str = "shop.cart";

/// A log in memory: segments of lines with their line feeds, and the tiles of all that was sealed.
#[derive(Clone, Default)]
pub(crate) struct TestLog {
    pub(crate) segments: Vec<Vec<Vec<u8>>>,
    pub(crate) tiles: BTreeMap<Tile, Vec<u8>>,
    edge: Edge,
}

#[derive(Debug)]
pub(crate) struct NoTile;

impl From<TileError> for NoTile {
    fn from(_: TileError) -> Self {
        Self
    }
}

impl TestLog {
    /// A start and decisions, `lines` in all, sealed.
    pub(crate) fn of(lines: u64) -> (Self, Trust) {
        let mut log = Self::default();
        log.append(Entry::Start(start(ORIGIN)));
        (1..lines).for_each(|number| log.append(Entry::Decision(Box::new(decision(number)))));
        let trust = log.seal();
        (log, trust)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        let encoded = encode(self.edge.size(), entry, None).unwrap();
        self.append_encoded(encoded);
    }

    pub(crate) fn append_encoded(&mut self, encoded: Encoded) {
        self.edge.push(encoded.leaf);
        if self.segments.is_empty() {
            self.segments.push(Vec::new());
        }
        self.segments.last_mut().unwrap().push(encoded.bytes);
    }

    pub(crate) fn size(&self) -> u64 {
        self.edge.size()
    }

    pub(crate) fn checkpoint(&self, seed: u8) -> Checkpoint {
        let head = TreeHead {
            origin: ORIGIN.to_owned(),
            size: self.edge.size(),
            root: self.edge.root(),
            extensions: Vec::new(),
        };
        Checkpoint::sign(head, &key(seed)).unwrap()
    }

    pub(crate) fn seal(&mut self) -> Trust {
        self.tiles.extend(self.edge.take_full());
        self.tiles.extend(self.edge.partial());
        Trust {
            newest: Some(self.checkpoint(1)),
            ..Trust::default()
        }
    }

    /// The only segment's lines.
    pub(crate) fn lines(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.segments[0]
    }
}

impl ReadTile for TestLog {
    type Error = NoTile;

    fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, NoTile> {
        let wider = self.tiles.range(tile..=tile.full()).next();
        wider.map(|(_, bytes)| bytes.clone()).ok_or(NoTile)
    }
}

impl LogSource for TestLog {
    fn segments(&self) -> Vec<String> {
        (0..self.segments.len())
            .map(|number| format!("cart{number}"))
            .collect()
    }

    fn open(&self, segment: usize) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(Box::new(io::Cursor::new(self.segments[segment].concat())))
    }
}

/// A key that is the same in every run.
pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(ORIGIN, KeyType::Ed25519, &[seed; 32]).unwrap()
}
