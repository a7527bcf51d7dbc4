//! `/metrics`, `/ready`, `/live` over plain HTTP, for kubelet and Prometheus. Nothing there changes anything.

use crate::authority::seconds;
use crate::limits::{ACCEPT_PAUSE, ADMIN_CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, LIFE};
use crate::server::with_type;
use crate::state::{BOUNDS, Shared};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Serves without end.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let answer = answer(request.uri().path(), &shared);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HANDSHAKE_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

fn answer(path: &str, shared: &Shared) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    match path {
        "/live" => with_type(StatusCode::OK, PLAIN, "live\n".to_owned()),
        "/ready" => match shared.why_not_ready() {
            None => with_type(StatusCode::OK, PLAIN, "ready\n".to_owned()),
            Some(why) => with_type(
                StatusCode::SERVICE_UNAVAILABLE,
                PLAIN,
                format!("not ready: {why}\n"),
            ),
        },
        "/metrics" => with_type(StatusCode::OK, "text/plain; version=0.0.4", metrics(shared)),
        _ => with_type(
            StatusCode::NOT_FOUND,
            PLAIN,
            "/metrics, /ready, /live\n".to_owned(),
        ),
    }
}

/// Prometheus' text format.
fn metrics(shared: &Shared) -> String {
    let counts = &shared.counts;
    let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let mut out = String::from(
        "# HELP mesh_injector_pods_total New pods, by what became of them.\n# TYPE mesh_injector_pods_total counter\n",
    );
    for (outcome, of) in [
        ("injected", &counts.injected),
        ("not-asked", &counts.not_asked),
        ("disabled", &counts.disabled),
        ("already-injected", &counts.already),
        ("refused", &counts.refused),
        ("undecided", &counts.undecided),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "mesh_injector_pods_total{{outcome=\"{outcome}\"}} {}",
            read(of)
        );
    }
    out.push_str("# HELP mesh_injector_policies_total Policies checked, by the answer.\n# TYPE mesh_injector_policies_total counter\n");
    for (verdict, of) in [
        ("allowed", &counts.policies_allowed),
        ("denied", &counts.policies_denied),
    ] {
        let _ = writeln!(
            out,
            "mesh_injector_policies_total{{verdict=\"{verdict}\"}} {}",
            read(of)
        );
    }
    let _ = writeln!(
        out,
        "# HELP mesh_injector_unreadable_total Requests that were no AdmissionReview.\n# TYPE mesh_injector_unreadable_total counter\nmesh_injector_unreadable_total {}",
        read(&counts.unreadable)
    );
    out.push_str("# HELP mesh_injector_review_duration_seconds From a request's head to its answer.\n# TYPE mesh_injector_review_duration_seconds histogram\n");
    for (bound, of) in BOUNDS.iter().zip(&counts.within) {
        let seconds = std::time::Duration::from_micros(*bound).as_secs_f64();
        let _ = writeln!(
            out,
            "mesh_injector_review_duration_seconds_bucket{{le=\"{seconds}\"}} {}",
            read(of)
        );
    }
    let all = counts.within.last().map_or(0, read);
    let sum = std::time::Duration::from_micros(read(&counts.micros)).as_secs_f64();
    let _ = writeln!(
        out,
        "mesh_injector_review_duration_seconds_bucket{{le=\"+Inf\"}} {all}\nmesh_injector_review_duration_seconds_sum {sum}\nmesh_injector_review_duration_seconds_count {all}"
    );
    let ends = shared.serving.made_at().saturating_add(seconds(LIFE));
    let _ = writeln!(
        out,
        "# HELP mesh_injector_certificate_expires_seconds When the serving certificate ends, in seconds since 1970.\n# TYPE mesh_injector_certificate_expires_seconds gauge\nmesh_injector_certificate_expires_seconds {ends}"
    );
    out
}
