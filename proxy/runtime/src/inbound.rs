//! From clients to the application: who is it, may they, and only then a connection to the application.
//!
//! - [`mesh`]: the listener for other proxies, over mutual TLS
//! - [`plain`]: the listeners for everybody else; nobody has an identity there
//! - [`http`]: one request, from the wire to the application and back
//! - [`tcp`]: one byte stream

pub(crate) mod filter;
pub(crate) mod http;
pub(crate) mod mesh;
pub(crate) mod plain;
pub(crate) mod tcp;

use crate::core::Core;
use crate::live::{Alive, Peer, Revoked};
use crate::telemetry::Ask;
use mesh_policy::decide::{Decision, Generation, Phase, Verdict};
use mesh_policy::record::{DecisionRecord, RecordClient, RecordServer};
use mesh_policy::request::{Call, Client, canonical_ip};
use mesh_proxy_core::metrics::Failure;
use std::net::SocketAddr;

/// Records a decision: every denial, and a sample of allows.
pub(crate) fn record(core: &Core, peer: &Peer, decision: &Decision, call: &Call<'_>) {
    let share = core
        .shared
        .config
        .audit
        .as_ref()
        .map_or(0.0, |audit| audit.allow_sample);
    if decision.verdict == Verdict::Deny || core.random.happens(share) {
        core.shared.records.send(decision.record(
            Some(core.shared.platform.wall_clock()),
            &peer.client,
            call,
        ));
    }
}

/// Records a connection that was refused before anybody could be decided about. The log and a metric say why.
pub(crate) fn record_refused(core: &Core, from: SocketAddr, port: u16) {
    let config = &core.shared.config;
    let client = Client {
        id: None,
        ip: canonical_ip(from.ip()),
        tls: false,
        serial: None,
        expires: None,
    };
    core.shared.records.send(DecisionRecord {
        time: Some(core.shared.platform.wall_clock()),
        generation: core
            .shared
            .policy
            .load()
            .as_ref()
            .map_or(Generation::default(), |policy| policy.generation()),
        client: RecordClient::of(&client),
        server: RecordServer {
            namespace: config.namespace.clone(),
            name: None,
            workload: Some(config.workload.clone()),
            port,
            default: false,
        },
        route: None,
        request: None,
        verdict: Verdict::Deny,
        status: None,
        grpc_status: None,
        phase: Phase::Transport,
        reasons: Vec::new(),
        audit: false,
        near_misses: Vec::new(),
        shadow: None,
    });
}

/// Records and counts the end of something that a new policy no longer allows.
pub(crate) fn record_end(core: &Core, revoked: &Revoked) {
    let ask = Ask::of(&revoked.what);
    core.meter
        .inbound(&revoked.peer, ask)
        .failed(Failure::Revoked);
    match &revoked.what {
        Alive::Connection => {}
        Alive::Tcp => record(core, &revoked.peer, &revoked.decision, &Call::Tcp),
        Alive::Http(head) => record(core, &revoked.peer, &revoked.decision, &head.call()),
    }
}
