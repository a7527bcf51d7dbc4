//! What the proxy tells about itself: readiness and metrics to everybody who reaches its address, the rest over a Unix
//! socket that only its user can open. Nothing here changes anything.

use crate::answer::Answer;
use crate::body::Body;
use crate::config::PolicySource;
use crate::error::ProxyError;
use crate::limits;
use crate::live::Kill;
use crate::state::Shared;
use crate::tap::Over;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_api::admin::{
    AnchorStatus, DeniedCount, Direction, Edge, EdgeStats, IdentityStatus, ProxyStatus,
    SnapshotStatus,
};
use mesh_api::tap;
use mesh_policy::decide::Phase;
use mesh_proxy_core::exposition;
use mesh_proxy_core::metrics::{self, phase_label};
use mesh_trust::bundle::to_pem;
use serde::Serialize;
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_local;

/// Connections at once, of each kind: scrapers and probes, not traffic.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Largest request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after the operating system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sockets of the admin server, bound before anything runs.
pub(crate) struct Sockets {
    pub(crate) tcp: Vec<std::net::TcpListener>,
    pub(crate) unix: std::os::unix::net::UnixListener,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Tcp,
    Unix,
}

/// Serves both doors until the process ends.
///
/// # Errors
/// [`ProxyError::Start`] if the sockets cannot be watched.
pub(crate) fn open(shared: &Arc<Shared>, sockets: Sockets) -> Result<(), ProxyError> {
    let start = |error: io::Error| ProxyError::Start {
        part: "the admin server",
        why: error.to_string(),
    };
    let unix = UnixListener::from_std(sockets.unix).map_err(start)?;
    let room_of_tcp = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for tcp in sockets.tcp {
        let tcp = TcpListener::from_std(tcp).map_err(start)?;
        let (of_tcp, room_of_tcp) = (shared.clone(), room_of_tcp.clone());
        spawn_local(async move {
            loop {
                let accepted = tcp.accept().await.map(|(stream, _)| stream);
                take(&of_tcp, Door::Tcp, &room_of_tcp, accepted).await;
            }
        });
    }
    let (of_unix, room_of_unix) = (shared.clone(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    spawn_local(async move {
        loop {
            let accepted = unix.accept().await.map(|(stream, _)| stream);
            take(&of_unix, Door::Unix, &room_of_unix, accepted).await;
        }
    });
    Ok(())
}

/// Serves a connection if there is room, else closes it: a flood of one door leaves the other open.
async fn take<T>(shared: &Arc<Shared>, door: Door, room: &Arc<Semaphore>, accepted: io::Result<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (stream, place) = match (accepted, room.clone().try_acquire_owned()) {
        (Ok(stream), Ok(place)) => (stream, place),
        (Ok(_), Err(_)) => return,
        (Err(error), _) => {
            tracing::warn!(%error, "the admin server cannot accept");
            return tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    };
    let shared = shared.clone();
    spawn_local(async move {
        let (tells, over) = oneshot::channel();
        let tells = Cell::new(Some(tells));
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(&shared, door, &request);
            if let Body::Lines(lines) = answer.body()
                && let Some(tells) = tells.take()
            {
                let _ = tells.send(lines.over());
            }
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEAD_BYTES);
        let served = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended");
            },
            () = unread(over) => tracing::debug!("a reader of a tap that is over takes nothing"),
        }
        drop(place);
    });
}

/// Resolves when a connection's tap, if it opens one, is over, and its reader has not taken the last of it in a moment: the
/// library waits for a reader for ever, and the connection has a place that others want.
async fn unread(over: oneshot::Receiver<Over>) {
    match over.await {
        Ok(over) => over.wait().await,
        Err(_no_tap) => std::future::pending().await,
    }
    tokio::time::sleep(limits::PARTING).await;
}

fn answer(shared: &Arc<Shared>, door: Door, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "nothing can be changed here\n".to_owned(),
        );
    }
    match (request.uri().path(), door) {
        ("/live", _) => text(StatusCode::OK, "live\n".to_owned()),
        ("/ready", _) => match why_not_ready(shared) {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(why) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {why}\n"),
            ),
        },
        ("/metrics", _) => {
            let mut answer = text(StatusCode::OK, exposition::render(&metrics(shared)));
            answer.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static(exposition::CONTENT_TYPE),
            );
            answer
        }
        (tap::PATH, Door::Unix) if request.method() == Method::GET => {
            let query = request.uri().query().unwrap_or_default();
            crate::tap::answer(shared, query, "this user", Kill::default())
        }
        ("/status", Door::Unix) => json(&status(shared)),
        ("/edges", Door::Unix) => json(&edges(shared)),
        ("/discovery", Door::Unix) => json(&shared.discovery.load().discovery()),
        ("/snapshot", Door::Unix) => match shared.policy.load().as_ref() {
            Some(policy) => json(&*policy.data()),
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "no policy yet\n".to_owned(),
            ),
        },
        ("/identity", Door::Unix) => match identity(shared) {
            Some(identity) => json(&identity),
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "no identity yet\n".to_owned(),
            ),
        },
        _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Body::text(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

fn json<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut answer = Response::new(Body::text(bytes));
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// What is missing, in the order in which it must come.
fn why_not_ready(shared: &Shared) -> Option<String> {
    if shared.is_stopping() {
        return Some("the proxy is ending".to_owned());
    }
    let identity = shared.identity.load();
    match identity.as_ref() {
        None => return Some("no SVID yet: is the CA running?".to_owned()),
        Some(identity) if identity.expired(shared.platform.wall_clock()) => {
            return Some("the SVID has expired: is the CA running?".to_owned());
        }
        Some(_) => {}
    }
    if shared.policy.load().is_none() {
        return Some("no policy yet: is the controller running?".to_owned());
    }
    lacks_discovery(shared).then(|| {
        "no discovery yet: is the controller running, and the workload in a manifest?".to_owned()
    })
}

/// Whether it is still to be told where services are: until then nothing leaves, so the application had better wait.
pub(crate) fn lacks_discovery(shared: &Shared) -> bool {
    let told = matches!(shared.config.policy, PolicySource::Controller { .. });
    told && shared.discovery.load().version == 0
}

/// All that is counted, and how it is now: what is told of it in any form.
pub(crate) fn metrics(shared: &Shared) -> metrics::Registry {
    let mut all = shared.telemetry.merged();
    let now = shared.platform.wall_clock();
    all.set_gauge(
        "mesh_ready",
        f64::from(u8::from(why_not_ready(shared).is_none())),
    );
    all.set_gauge(
        "mesh_controller_connected",
        f64::from(u8::from(shared.control_connected.load(Ordering::Relaxed))),
    );
    all.set_gauge(
        "mesh_connections",
        shared.busy.load(Ordering::Relaxed) as f64,
    );
    if let Some(identity) = shared.identity.load().as_ref() {
        all.set_gauge(
            "mesh_svid_remaining_seconds",
            identity.svid.remaining_secs(now) as f64,
        );
    }
    if let Some(policy) = shared.policy.load().as_ref() {
        all.set_gauge("mesh_policy_generation", policy.generation().0 as f64);
        let tried = u8::from(policy.candidate.is_some());
        all.set_gauge("mesh_shadow_candidate", f64::from(tried));
    }
    all.count("mesh_panics_total", shared.panics.load(Ordering::Relaxed));
    let audit = shared.records.status();
    all.count("mesh_audit_written_total", audit.written);
    all.count("mesh_audit_lost_total", audit.lost);
    all
}

fn status(shared: &Shared) -> ProxyStatus {
    let identity = shared.identity.load();
    let (policy, policy_is) = (shared.policy.load(), shared.policy_is.load());
    ProxyStatus {
        namespace: shared.config.namespace.clone(),
        workload: shared.config.workload.clone(),
        ready: why_not_ready(shared).is_none(),
        why_not_ready: why_not_ready(shared),
        snapshot: policy.as_ref().map(|policy| SnapshotStatus {
            generation: policy.generation().0,
            digest: policy_is.digest.clone(),
            in_force_since: policy_is.since,
            equivalence: shared.cross_checks.assurance(policy),
            unchecked: shared.cross_checks.failed(),
        }),
        controller_connected: shared.control_connected.load(Ordering::Relaxed),
        spiffe_id: identity.as_ref().map(|identity| identity.svid.id().clone()),
        svid_remaining_secs: identity
            .as_ref()
            .map(|identity| identity.svid.remaining_secs(shared.platform.wall_clock())),
        live_connections: shared.busy.load(Ordering::Relaxed) as u64,
        audit: shared.records.status(),
        started_at: shared.started_at,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn identity(shared: &Shared) -> Option<IdentityStatus> {
    let identity = shared.identity.load_full()?;
    let svid = &identity.svid;
    let anchors = identity.bundles.iter().map(|bundle| AnchorStatus {
        trust_domain: bundle.domain().clone(),
        sha256: bundle
            .anchors()
            .iter()
            .map(|anchor| sha256(anchor))
            .collect(),
        pem: bundle.to_pem(),
    });
    Some(IdentityStatus {
        spiffe_id: svid.id().clone(),
        serial: svid.serial().to_owned(),
        not_before: svid.not_before(),
        not_after: svid.not_after(),
        remaining_secs: svid.remaining_secs(shared.platform.wall_clock()),
        issued_by: svid
            .chain()
            .first()
            .map(|leaf| issuer_of(leaf))
            .unwrap_or_default(),
        chain_pem: to_pem(svid.chain()),
        rotations: identity.rotations,
        anchors: anchors.collect(),
    })
}

fn edges(shared: &Shared) -> EdgeStats {
    let all = shared.telemetry.merged();
    let edges = all.edges().into_iter().map(|(key, series)| Edge {
        direction: match key.direction {
            metrics::Direction::Inbound => Direction::Inbound,
            metrics::Direction::Outbound => Direction::Outbound,
        },
        peer: key.peer.to_string(),
        local: shared.config.workload_name(),
        target: key.target.to_string(),
        protocol: key.protocol,
        requests: series.requests,
        allowed: series.allowed,
        denied: series
            .denied
            .iter()
            .map(|(denied, count)| DeniedCount {
                phase: phase(denied.phase),
                status: denied.status,
                grpc_status: denied.grpc_status,
                reason: denied.reason.to_string(),
                count: *count,
            })
            .collect(),
        failed: series.failed_total(),
        p50_us: series.duration.quantile_us(0.5),
        p99_us: series.duration.quantile_us(0.99),
    });
    EdgeStats {
        edges: edges.collect(),
    }
}

/// Distinguished name of a certificate's issuer.
fn issuer_of(certificate: &[u8]) -> String {
    x509_parser::parse_x509_certificate(certificate)
        .map(|(_, certificate)| certificate.issuer().to_string())
        .unwrap_or_default()
}

/// The phase of a label. Every label is one of [`phase_label`]'s.
fn phase(label: &str) -> Phase {
    let all = [
        Phase::Transport,
        Phase::Server,
        Phase::Request,
        Phase::Route,
        Phase::Forbid,
        Phase::Permit,
        Phase::RateLimit,
        Phase::Egress,
    ];
    all.into_iter()
        .find(|phase| phase_label(*phase) == label)
        .unwrap_or(Phase::Permit)
}

/// Lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Records;
    use crate::config::file::parse;
    use mesh_platform::System;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_tap_that_is_over_leaves_the_door_though_nobody_reads_it() {
        let config = parse(include_str!("../sample.yaml"), "proxy.yaml").expect("valid");
        let shared = Arc::new(Shared::new(config, System::new(), Records::default()));
        let room = Arc::new(Semaphore::new(1));
        let served = async {
            // Room for the head of the answer, and a part of the first line.
            let (mut reader, served) = tokio::io::duplex(128);
            take(&shared, Door::Unix, &room, Ok(served)).await;
            let question = b"GET /tap HTTP/1.1\r\nhost: x\r\n\r\n";
            reader.write_all(question).await.expect("room");
            let head = reader.read_u8().await.expect("the head of the answer");
            assert_eq!(head, b'H');
            let place = room.clone().acquire_owned();
            assert!(timeout(Duration::from_secs(1), place).await.is_err());
            shared.stop();
            let place = room.clone().acquire_owned();
            let place = timeout(Duration::from_secs(5), place).await;
            assert!(place.is_ok(), "the place is kept");
            drop(reader);
        };
        LocalSet::new().run_until(served).await;
    }
}
