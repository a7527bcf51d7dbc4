//! What leaves the mesh: judged by the EgressNetworks that speak for where it goes, before anything is sent.
//!
//! Where it does not matter what comes, bytes go on unread. Otherwise the first bytes tell what this is: TLS is
//! judged by its server name and passes through, HTTP request by request, and anything else by its address alone. What
//! stands is kept, so that a new policy ends what it no longer allows. For a request that a route says so of, TLS is begun
//! ([`origin`]); what leaves by a name goes to the addresses of that name ([`binding`]).

mod binding;
#[cfg(test)]
mod fixtures;
mod origin;
mod standing;

pub(crate) use origin::Origins;
pub(crate) use standing::{Leave, Leaving, What};

use super::http::{Departure, Outgoing};
use super::plain::{self, Reason};
use super::send::{Failed, Passage, within};
use super::{Listener, Told, told};
use crate::account::Account;
use crate::answer::{Answer, Trouble};
use crate::body::{Arriving, Body};
use crate::core::Core;
use crate::detection::detect;
use crate::io::{BreakOff, Prefixed};
use crate::limits::POLICY_WAIT;
use crate::live::{JudgedHead, JudgedHeaders, Kill};
use crate::serve::http1::OnSwitch;
use crate::serve::serve;
use crate::shadow::Policy;
use crate::telemetry::{Ask, Measure};
use http::Request;
use http::request::Parts;
use mesh_policy::decide::Verdict;
use mesh_policy::egress::{Cause, EgressDecision};
use mesh_policy::record::{DecisionRecord, RecordClient};
use mesh_policy::request::canonical_ip;
use mesh_policy::{Reason as Grant, Snapshot};
use mesh_proxy_core::detect::DetectPolicy;
use mesh_proxy_core::first_use::Use;
use mesh_proxy_core::http_hygiene::upgrade::restore;
use mesh_proxy_core::http_hygiene::{
    RequestRefusal, Upgrade, set_host, set_https, set_path, to_app,
};
use mesh_proxy_core::metrics::Failure;
use mesh_trust::Timestamp;
use standing::Entry;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Handles one connection of the application to `to`, which is outside of the mesh.
pub(super) async fn take(
    core: Rc<Core>,
    listener: Rc<Listener>,
    to: SocketAddr,
    mut stream: TcpStream,
    from: SocketAddr,
) {
    let accepted = Instant::now();
    let Some(policy) = policy_came(&core).await else {
        measure_of(&core, &listener).no_policy();
        stream.break_off();
        return tracing::warn!(%to, "reset a connection to outside: there is no policy yet");
    };
    if policy.egress().at(to).need_no_reading() {
        return bytes(&core, &listener, to, stream, from.ip(), What::Bytes).await;
    }
    let first_bytes = DetectPolicy {
        tls: true,
        ..DetectPolicy::default()
    };
    let until = accepted + core.shared.config.limits.detect;
    let detected = match detect(&mut stream, first_bytes, until).await {
        Ok(detected) => detected,
        Err(error) => {
            return tracing::debug!(%error, "the application broke off before it said anything");
        }
    };
    let stream = Prefixed::new(detected.prefix, stream);
    match told(&core, &listener.name, detected.speaks) {
        Told::Http(speaks) => {
            let departure = Departure::new(core.clone(), listener, from.ip());
            serve(stream, speaks, &core, &Kill::default(), departure).await;
        }
        Told::Tls(name) => {
            bytes(&core, &listener, to, stream, from.ip(), What::Tls(name)).await;
        }
        Told::Bytes => bytes(&core, &listener, to, stream, from.ip(), What::Bytes).await,
        Told::Nothing => {}
    }
}

/// Measures a byte stream that goes nowhere.
fn measure_of(core: &Core, listener: &Listener) -> Measure {
    let account = Account::stream_out(core, &listener.name);
    let measure = core.meter.outbound(&listener.name, None, Ask::Tcp);
    measure.telling(account)
}

/// The policy in force, once it is there; `None` if it has not come for a long time.
async fn policy_came(core: &Core) -> Option<Arc<Policy>> {
    let mut changes = core.shared.watch_changes();
    let wait = async {
        loop {
            if let Some(policy) = core.shared.policy.load_full() {
                return Some(policy);
            }
            changes.changed().await.ok()?;
        }
    };
    timeout(POLICY_WAIT, wait).await.ok().flatten()
}

/// Carries a byte stream to outside, if it may go there.
async fn bytes<T: AsyncRead + AsyncWrite + BreakOff + Unpin>(
    core: &Rc<Core>,
    listener: &Rc<Listener>,
    to: SocketAddr,
    stream: T,
    from: IpAddr,
    what: What,
) {
    // Of what may go, the account begins where it is carried.
    let measure = || measure_of(core, listener);
    let Some(policy) = core.shared.policy.load_full() else {
        measure().no_policy();
        return stream.break_off();
    };
    let decision = policy.egress().at(to).decide(&what.seen());
    let Some((policy, decision, looked)) = looked_up(core, listener, policy, decision, &what).await
    else {
        measure().no_policy();
        return stream.break_off();
    };
    let (decision, places) = binding::bind(core, &policy, decision, &what, (listener, looked));
    let now = core.shared.platform.wall_clock();
    if !record(core, from, &decision, &what, now) {
        measure().no_record();
        return stream.break_off();
    }
    let held = decision.bound_to().map(str::to_owned);
    let permit = match decision.permit() {
        Ok(permit) => permit,
        Err(denied) => {
            measure().egress_denied(&denied, None);
            stream.break_off();
            return tracing::info!(%to, network = network_name(&denied), why = %denied.cause, "reset a connection to outside");
        }
    };
    let kill = Kill::default();
    let _leave = core.leaving.enter(Entry {
        from,
        to,
        places: places.clone(),
        what,
        tls: None,
        held,
        redirected: listener.is_redirected(),
        kill: kill.clone(),
    });
    drop(permit); // spent: these bytes, and no others; TLS is begun for requests alone
    plain::pass(
        core,
        stream,
        &listener.name,
        &places,
        (Reason::Outside, &kill),
    )
    .await;
}

/// The policy in force and its decision once the name that let something out has been looked up, if one is to be: what
/// was decided before may no longer be so. `None`: there is no policy any more.
async fn looked_up(
    core: &Core,
    listener: &Listener,
    policy: Arc<Policy>,
    decision: EgressDecision,
    what: &What,
) -> Option<(Arc<Policy>, EgressDecision, Option<binding::Looked>)> {
    let Some(looked) = binding::look_up(core, listener, &decision).await else {
        return Some((policy, decision, None));
    };
    let policy = core.shared.policy.load_full()?;
    let decision = policy.egress().at(decision.to).decide(&what.seen());
    Some((policy, decision, Some(looked)))
}

/// Answers one request to outside, if it may go there.
pub(super) async fn answer(
    call: &Outgoing<'_>,
    (from, to): (IpAddr, SocketAddr),
    mut parts: Parts,
    body: Arriving,
    upgrade: Option<(Upgrade, OnSwitch)>,
) -> Result<Answer, Failed> {
    let (core, grpc) = (call.core, call.admitted.grpc);
    let passage = call.to(call.listener);
    let Some(policy) = core.shared.policy.load_full() else {
        passage.measure(None).no_policy();
        return Err(Trouble::NoPolicy.into());
    };
    let what = What::Http(Rc::new(JudgedHead {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        host: call.admitted.authority.clone(),
        grpc,
        headers: JudgedHeaders(parts.headers.clone()),
    }));
    let decision = policy.egress().at(to).decide(&what.seen());
    if let Cause::Refused(_) = decision.cause {
        return Err(RequestRefusal::Target.into()); // recorded and counted by whoever refuses it
    }
    let listener = call.listener;
    let looked = looked_up(core, listener, policy, decision, &what);
    let Some(looked) = within(call.due, looked).await else {
        passage.measure(None).failed(Failure::Timeout);
        return Err(passage.late(false).into());
    };
    let Some((policy, decision, looked)) = looked else {
        passage.measure(None).no_policy();
        return Err(Trouble::NoPolicy.into());
    };
    let (decision, places) = binding::bind(core, &policy, decision, &what, (listener, looked));
    let now = core.shared.platform.wall_clock();
    if !record(core, from, &decision, &what, now) {
        passage.measure(None).no_record();
        return Err(Trouble::NoRecord.into());
    }
    let held = decision.bound_to().map(str::to_owned);
    let permit = match decision.permit() {
        Ok(permit) => permit,
        Err(denied) => {
            passage.measure(None).egress_denied(&denied, Some(grpc));
            return Err(trouble(&denied).into());
        }
    };
    let mut admitted = call.admitted.clone();
    if let Some(host) = permit.host() {
        set_host(&mut admitted, host)?;
    }
    if let Some(path) = permit.path() {
        set_path(&mut parts, path)?;
    }
    // What begins in TLS goes to another port of the same address, and to nobody else.
    let tls = permit.tls();
    let origin = match tls {
        None => None,
        Some(tls) => {
            let server = core.origins.server(core, to, tls);
            Some(server.inspect_err(|_| passage.measure(None).failed(Failure::Identity))?)
        }
    };
    let places = match tls {
        None => places,
        Some(tls) => vec![SocketAddr::new(to.ip(), tls.origin.port)],
    };
    let passage = Passage {
        origin: origin.as_ref(),
        ..passage
    };
    let kill = Kill::default();
    let leave = core.leaving.enter(Entry {
        from,
        to,
        places: if tls.is_some() {
            Vec::new()
        } else {
            places.clone()
        },
        what,
        tls: tls.cloned(),
        held,
        redirected: listener.is_redirected(),
        kill: kill.clone(),
    });
    let forward = async {
        match upgrade {
            None => {
                let body = Body::request(body, kill.clone());
                let mut reply = match tls {
                    None if places == [to] => {
                        passage.send(parts, body, &admitted, call.due).await?
                    }
                    _ => {
                        to_app(&mut parts, &admitted, None)?;
                        if tls.is_some() {
                            set_https(&mut parts)?;
                        }
                        let request = Request::from_parts(parts, body);
                        passage.outside(request, &places, call.due).await?
                    }
                };
                reply.kill = kill.clone();
                reply.held.leave = Some(leave);
                Ok(call.respond(reply))
            }
            Some((upgrade, upgrading)) => {
                to_app(&mut parts, &admitted, None)?;
                restore(&mut parts, upgrade);
                let request = Request::from_parts(parts, Body::Empty);
                let mut opened = passage.open_outside(request, &places).await?;
                opened.kill = kill.clone();
                opened.leave = Some(leave);
                Ok(call.switch(opened, upgrade, upgrading))
            }
        }
    };
    tokio::select! {
        biased;
        _ = kill.ended() => Err(Trouble::EgressRevoked { to }.into()),
        answered = forward => answered,
    }
}

/// What the application is told: it is the proxy's own, and may know which network to look at.
fn trouble(denied: &EgressDecision) -> Trouble {
    let (to, network) = (denied.to, network_name(denied));
    match &denied.cause {
        Cause::OtherAddress(why) => Trouble::OtherAddress {
            to,
            network,
            why: why.to_string(),
        },
        Cause::NameUnknown(why) => Trouble::NameUnknown {
            to,
            network,
            why: why.to_string(),
        },
        cause => Trouble::EgressDenied {
            to,
            network,
            why: cause.to_string(),
        },
    }
}

fn network_name(decision: &EgressDecision) -> String {
    let network = decision.network.as_ref();
    network.map_or_else(String::new, |(namespace, name)| {
        format!("{namespace}/{name}")
    })
}

/// Records and counts a decision, where some network speaks: every denial, and of the allows a sample and each that is
/// new in the hour.
///
/// False if it is an allow that must not be acted on: the log is strict and takes nothing.
fn record(
    core: &Core,
    from: IpAddr,
    decision: &EgressDecision,
    what: &What,
    now: Timestamp,
) -> bool {
    if decision.cause == Cause::Unrestricted {
        return true;
    }
    core.meter.egress(decision.cause.word());
    let Some(audit) = &core.shared.config.audit else {
        return true;
    };
    let allowed = decision.verdict() == Verdict::Allow;
    let new = allowed && is_first_use(core, decision, now);
    let chosen = !allowed || core.random.happens(audit.allow_sample);
    if chosen || new {
        let identity = core.shared.identity.load();
        let client = RecordClient {
            spiffe_id: identity.as_ref().map(|own| own.svid.id().to_string()),
            ip: Some(canonical_ip(from).to_string()),
            ..RecordClient::default()
        };
        let namespace = &core.shared.config.namespace;
        core.shared.records.send(DecisionRecord {
            first: !chosen,
            ..decision.record(Some(now), client, namespace, &what.seen())
        });
    }
    if allowed && core.shared.records.refuses() {
        core.shared.records.count_unrecorded();
        return false;
    }
    true
}

/// Whether some network or route lets something out for the first time in the hour: each layer has its own.
fn is_first_use(core: &Core, decision: &EgressDecision, now: Timestamp) -> bool {
    let mut uses = core.first_uses.borrow_mut();
    let firsts = decision.reasons.iter().filter(|reason| {
        let of = Use {
            client: None,
            port: decision.to.port(),
            grant: Some(Grant::whole(reason)),
            route: None,
        };
        uses.is_first(&of, now)
    });
    // All are asked: each is known from now on.
    firsts.count() > 0
}

/// Ends what left under another policy and may not under this one.
pub(crate) fn recheck(core: &Core, policy: &Snapshot, now: Timestamp) {
    for ended in core.leaving.recheck(policy) {
        let ask = ended.what.ask();
        let measure = core.meter.outbound(super::OUTSIDE, None, ask);
        measure.failed(Failure::Revoked);
        if ended.decision.verdict() == Verdict::Allow {
            tracing::info!(to = %ended.decision.to, network = network_name(&ended.decision), "ended what is to leave in another manner: in TLS of the proxy's or no longer, or held to the addresses of its name");
            continue;
        }
        tracing::info!(to = %ended.decision.to, network = network_name(&ended.decision), why = %ended.decision.cause, "ended what policy no longer lets out");
        // What was revoked ends in any case.
        record(core, ended.from, &ended.decision, &ended.what, now);
    }
}
