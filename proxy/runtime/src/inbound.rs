//! From clients to the application: who is it, may they, and only then a connection to the application.
//!
//! - [`mesh`]: the listener for other proxies, over mutual TLS
//! - [`plain`]: the listeners for everybody else; nobody has an identity there
//! - [`redirected`]: the same, for connections that were going to the workload itself
//! - [`http`]: one request, from the wire to the application and back
//! - [`tcp`]: one byte stream

pub(crate) mod filter;
pub(crate) mod http;
pub(crate) mod mesh;
pub(crate) mod plain;
pub(crate) mod redirected;
pub(crate) mod tcp;

use crate::core::Core;
use crate::cross_check::CROSS_CHECKED_SHARE;
use crate::live::{Alive, Peer, Revoked};
use crate::telemetry::Ask;
use mesh_policy::decide::{Decision, Generation, Phase, Verdict};
use mesh_policy::equivalence::Sample;
use mesh_policy::record::{DecisionRecord, RecordClient, RecordRequest, RecordServer};
use mesh_policy::request::{Call, Client, canonical_ip};
use mesh_proxy_core::fault::Injection;
use mesh_proxy_core::first_use::Use;
use mesh_proxy_core::metrics::Failure;
use mesh_trust::Timestamp;
use std::net::SocketAddr;

/// A decision, and what is recorded with it.
#[derive(Clone, Copy)]
pub(crate) struct Judged<'a> {
    pub(crate) decision: &'a Decision,
    /// That of a candidate which decides otherwise.
    pub(crate) otherwise: Option<&'a Decision>,
    /// What is injected into the request.
    pub(crate) fault: Option<&'a Injection>,
}

impl<'a> Judged<'a> {
    /// A decision alone.
    pub(crate) fn only(decision: &'a Decision) -> Self {
        Self {
            decision,
            otherwise: None,
            fault: None,
        }
    }
}

/// Records a decision: every denial, every use of a break-glass grant, every request that a fault is injected into,
/// and of the other allows a sample and each that is new, in itself or in what the candidate makes of it; these are all
/// counted by class too. Hands a few decisions to Cedar, to be made again off this path.
///
/// False if the decision is an allow that must not be acted on: the log is strict and takes nothing.
pub(crate) fn record(
    core: &Core,
    peer: &Peer,
    judged: Judged<'_>,
    call: &Call<'_>,
    now: Timestamp,
) -> bool {
    let Judged {
        decision,
        otherwise,
        fault,
    } = judged;
    // Cedar knows no rate limits; and a port that was caught once need not be caught again.
    let comparable =
        decision.phase != Phase::RateLimit && !decision.snapshot().is_distrusted(decision.port);
    if comparable && core.random.happens(CROSS_CHECKED_SHARE) {
        let sample = Sample::of(decision, &peer.client, call, now);
        if !core.shared.cross_checks.offer(sample) {
            core.shared
                .telemetry
                .count("mesh_policy_cross_checks_skipped_total");
        }
    }
    let Some(audit) = &core.shared.config.audit else {
        return true;
    };
    let allowed = decision.verdict == Verdict::Allow;
    let familiar = allowed
        .then(|| peer.familiar.recall(decision, call, now))
        .flatten();
    let new = allowed
        && familiar.is_none()
        && core
            .first_uses
            .borrow_mut()
            .is_first(&use_of(decision, peer), now);
    let chosen = !allowed
        || decision.break_glass
        || fault.is_some()
        || core.random.happens(audit.allow_sample);
    let turns =
        allowed && otherwise.is_some_and(|one| core.trials.is_first(one, &use_of(one, peer), now));
    if chosen || new || turns {
        let record = DecisionRecord {
            first: !chosen,
            shadow: otherwise.map(|one| one.as_shadow()),
            fault: fault.map(Injection::record),
            ..decision.record(Some(now), &peer.client, call)
        };
        core.shared.records.send(record);
    }
    if decision.verdict == Verdict::Deny {
        return true;
    }
    // Looked at last: this very record may be the one that found no room.
    if core.shared.records.refuses() {
        core.shared.records.count_unrecorded();
        return false;
    }
    let mut classes = core.classes.borrow_mut();
    if !familiar.is_some_and(|place| classes.count_at(place))
        && let Some(place) = classes.count(decision, &peer.client, call)
    {
        peer.familiar.remember(decision, call, now, place);
    }
    true
}

fn use_of<'a>(decision: &'a Decision, peer: &'a Peer) -> Use<'a> {
    Use {
        client: peer.client.id.as_ref(),
        port: decision.port,
        grant: decision.first_reason(),
        route: decision.route.as_deref(),
    }
}

/// Records a request that was refused before it could be decided, because it can be read in two ways. A metric says why;
/// `request` is absent if not even its first line can be read. The status is the class of the verdict, whichever of
/// 400, 405, 414 and 431 the peer gets.
pub(crate) fn record_refused_request(
    core: &Core,
    peer: &Peer,
    request: Option<RecordRequest>,
    grpc: bool,
) {
    let policy = core.shared.policy.load();
    let config = &core.shared.config;
    let server = policy.as_ref().map(|policy| &policy.port(peer.port).server);
    core.shared.records.send(DecisionRecord {
        time: Some(core.shared.platform.wall_clock()),
        generation: policy
            .as_ref()
            .map_or(Generation::default(), |policy| policy.generation()),
        client: RecordClient::of(&peer.client),
        server: RecordServer {
            namespace: server
                .map_or(&config.namespace, |server| &server.namespace)
                .clone(),
            name: server.map(|server| server.name.clone()),
            workload: Some(config.workload.clone()),
            port: peer.port,
            default: server.is_some_and(|server| server.default),
        },
        request,
        grpc_status: grpc.then_some(3),
        ..refusal_record()
    });
}

/// A refusal in phase `request`, of nobody and nothing yet.
pub(crate) fn refusal_record() -> DecisionRecord {
    DecisionRecord {
        time: None,
        generation: Generation::default(),
        client: RecordClient::default(),
        server: RecordServer::default(),
        egress: None,
        route: None,
        request: None,
        verdict: Verdict::Deny,
        status: Some(400),
        grpc_status: None,
        phase: Phase::Request,
        reasons: Vec::new(),
        audit: false,
        first: false,
        near_misses: Vec::new(),
        shadow: None,
        fault: None,
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
        status: None,
        phase: Phase::Transport,
        ..refusal_record()
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
        // What was revoked ends in any case.
        Alive::Tcp => {
            record(
                core,
                &revoked.peer,
                Judged::only(&revoked.decision),
                &Call::Tcp,
                revoked.at,
            );
        }
        Alive::Http(head) => {
            record(
                core,
                &revoked.peer,
                Judged::only(&revoked.decision),
                &head.call(),
                revoked.at,
            );
        }
    }
}
