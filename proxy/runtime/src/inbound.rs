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
use crate::cross_check::CROSS_CHECKED_SHARE;
use crate::live::{Alive, Peer, Revoked};
use crate::telemetry::Ask;
use mesh_policy::decide::{Decision, Generation, Phase, Verdict};
use mesh_policy::equivalence::Sample;
use mesh_policy::record::{DecisionRecord, RecordClient, RecordServer};
use mesh_policy::request::{Call, Client, canonical_ip};
use mesh_proxy_core::metrics::Failure;
use mesh_trust::Timestamp;
use std::net::SocketAddr;

/// Records a decision: every denial, every use of a break-glass grant, and a sample of the other allows. Hands a few
/// decisions to Cedar, to be made again off this path.
pub(crate) fn record(
    core: &Core,
    peer: &Peer,
    decision: &Decision,
    call: &Call<'_>,
    now: Timestamp,
) {
    if core.random.happens(CROSS_CHECKED_SHARE) {
        let sample = Sample::of(decision, &peer.client, call, now);
        if !core.shared.cross_checks.offer(sample) {
            core.shared
                .telemetry
                .count("mesh_policy_cross_checks_skipped_total");
        }
    }
    let share = core
        .shared
        .config
        .audit
        .as_ref()
        .map_or(0.0, |audit| audit.allow_sample);
    let always = decision.verdict == Verdict::Deny || decision.break_glass;
    if always || core.random.happens(share) {
        let record = decision.record(Some(now), &peer.client, call);
        core.shared.records.send(record);
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
        Alive::Tcp => record(
            core,
            &revoked.peer,
            &revoked.decision,
            &Call::Tcp,
            revoked.at,
        ),
        Alive::Http(head) => {
            record(
                core,
                &revoked.peer,
                &revoked.decision,
                &head.call(),
                revoked.at,
            );
        }
    }
}
