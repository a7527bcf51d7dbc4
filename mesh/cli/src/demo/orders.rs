//! orders: an HTTP/1.1 server that charges payments for each order it is asked for, and watches payments all the time.
//!
//! An order is answered with 200 even if payments refuses: each edge of the shop then shows its own verdict.

use super::attempt::{Outcome, Reporter};
use super::grpc::GrpcClient;
use super::protobuf::{framed, string_field, uint_field};
use super::{App, DemoError};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Unary method of payments.
pub(super) const CHARGE: &str = "/shop.v1.Payments/Charge";
/// Server-streaming method of payments.
pub(super) const WATCH: &str = "/shop.v1.Payments/Watch";
/// Pause before a watch that ended is begun again.
const WATCH_AGAIN: Duration = Duration::from_secs(1);
/// gRPC's code for "come again".
const UNAVAILABLE: u32 = 14;
/// While a watch runs, it is reported this often.
const WATCH_REPORT: Duration = Duration::from_secs(1);

/// Serves orders until it is ended.
pub(super) async fn run(app: &App) -> Result<(), DemoError> {
    let upstream = app.upstream("MESH_UPSTREAM_", "payments")?;
    let listener = app.listener("http").await?;
    let payments = Rc::new(GrpcClient::new(upstream.clone()));
    // The watch begins with the first order that is asked for: until then payments may still be starting.
    let opened = Rc::new(Notify::new());
    tokio::task::spawn_local(watch(
        Rc::clone(&opened),
        Rc::clone(&app.reporter),
        GrpcClient::new(upstream),
    ));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (payments, reporter, opened) = (
            Rc::clone(&payments),
            Rc::clone(&app.reporter),
            Rc::clone(&opened),
        );
        let service = service_fn(move |request| {
            opened.notify_one();
            let (payments, reporter) = (Rc::clone(&payments), Rc::clone(&reporter));
            async move { Ok::<_, Infallible>(answer(&request, &payments, &reporter).await) }
        });
        tokio::task::spawn_local(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

async fn answer(
    request: &Request<Incoming>,
    payments: &GrpcClient,
    reporter: &Reporter,
) -> Response<Full<Bytes>> {
    let caller = request
        .headers()
        .get("mesh-client-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or("unknown");
    tracing::debug!(method = %request.method(), path = request.uri().path(), caller, "asked");
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/orders") => (
            StatusCode::OK,
            r#"{"orders":["0","1","2","3","4","5","6","7","8","9"]}"#.to_owned(),
        ),
        (&Method::GET, path) => match path.strip_prefix("/orders/").map(str::parse::<u64>) {
            Some(Ok(number)) => {
                let payment = reporter
                    .attempt("payments", "grpc", charge(payments, number))
                    .await;
                (
                    StatusCode::OK,
                    format!(r#"{{"order":"{number}","payment":"{payment}"}}"#),
                )
            }
            _ => (
                StatusCode::NOT_FOUND,
                r#"{"error":"no such order"}"#.to_owned(),
            ),
        },
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            r#"{"error":"orders can only be read"}"#.to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// Charges payments for one order.
async fn charge(payments: &GrpcClient, number: u64) -> Outcome {
    payments.unary(CHARGE, charge_request(number)).await
}

/// The bytes of a `ChargeRequest`.
pub(super) fn charge_request(number: u64) -> Bytes {
    let mut message = BytesMut::new();
    string_field(&mut message, 1, &format!("order-{number}"));
    uint_field(&mut message, 2, 100 + number);
    framed(&message)
}

/// Keeps a stream to payments open: while it runs it is reported as `grpc:0` once a second, and its end with its status.
async fn watch(opened: Rc<Notify>, reporter: Rc<Reporter>, payments: GrpcClient) {
    opened.notified().await;
    loop {
        let began = Instant::now();
        let mut reported = None::<Instant>;
        let outcome = payments
            .watch(WATCH, framed(b""), |_| {
                if reported.is_none_or(|at| at.elapsed() >= WATCH_REPORT) {
                    reported = Some(Instant::now());
                    reporter.report("payments", "grpc", &Outcome::Grpc(0), began.elapsed());
                }
            })
            .await;
        // UNAVAILABLE after it worked: the certificate of its connection ran out. A good client comes again with the next.
        if reported.is_some() && outcome == Outcome::Grpc(UNAVAILABLE) {
            continue;
        }
        reporter.report("payments", "grpc", &outcome, began.elapsed());
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}
