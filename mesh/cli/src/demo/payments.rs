//! payments: a gRPC server (HTTP/2 with prior knowledge) that posts each charge to the ledger.
//!
//! - `shop.v1.Payments/Charge`: one message each way
//! - `shop.v1.Payments/Watch`: a message each 200 ms, for as long as the caller listens
//! - `grpc.health.v1.Health/Check`: serving

use super::attempt::Reporter;
use super::orders::{CHARGE, WATCH};
use super::protobuf::{
    MESSAGE_BYTES_MAX, framed, read_uint_field, string_field, uint_field, unframed,
};
use super::tcp::LedgerClient;
use super::{App, DemoError};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Pause between two messages of a watch.
const WATCH_PACE: Duration = Duration::from_millis(200);
/// Health, as probes ask for it.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// gRPC status "invalid argument".
const INVALID_ARGUMENT: u8 = 3;
/// gRPC status "unimplemented".
const UNIMPLEMENTED: u8 = 12;

/// What all calls share.
struct Payments {
    ledger: Mutex<LedgerClient>,
    reporter: Rc<Reporter>,
}

/// Serves payments until it is ended.
pub(super) async fn run(app: &App) -> Result<(), DemoError> {
    let ledger = LedgerClient::new(app.upstream("MESH_UPSTREAM_", "ledger")?);
    let payments = Rc::new(Payments {
        ledger: Mutex::new(ledger),
        reporter: Rc::clone(&app.reporter),
    });
    let listener = app.listener("grpc").await?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let payments = Rc::clone(&payments);
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve(stream, payments).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, payments: Rc<Payments>) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let payments = Rc::clone(&payments);
        tokio::task::spawn_local(async move {
            if let Err(error) = answer(request, respond, &payments).await {
                tracing::debug!(%error, "a call ended");
            }
        });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    payments: &Payments,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        CHARGE => {
            let Some(message) = read_message(request.into_body()).await? else {
                return refuse(&mut respond, INVALID_ARGUMENT);
            };
            let Some(amount) = read_uint_field(&message, 2) else {
                return refuse(&mut respond, INVALID_ARGUMENT);
            };
            let entry = payments.post(amount).await;
            let mut reply = BytesMut::new();
            string_field(&mut reply, 1, &entry);
            let mut stream = respond.send_response(head(), false)?;
            stream.send_data(framed(&reply), false)?;
            stream.send_trailers(trailers(0))
        }
        WATCH => watch(respond.send_response(head(), false)?).await,
        HEALTH => {
            let mut reply = BytesMut::new();
            uint_field(&mut reply, 1, 1);
            let mut stream = respond.send_response(head(), false)?;
            stream.send_data(framed(&reply), false)?;
            stream.send_trailers(trailers(0))
        }
        _ => refuse(&mut respond, UNIMPLEMENTED),
    }
}

impl Payments {
    /// Posts to the ledger. A charge stands even if the ledger refuses: that edge shows its own verdict.
    async fn post(&self, amount: u64) -> String {
        let mut ledger = self.ledger.lock().await;
        self.reporter
            .attempt("ledger", "tcp", ledger.post(amount))
            .await
            .to_string()
    }
}

/// The request's message, if it is one and short enough.
async fn read_message(mut body: RecvStream) -> Result<Option<Vec<u8>>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(unframed(&bytes).map(<[u8]>::to_vec))
}

/// Sends a message each [`WATCH_PACE`] until the caller goes away.
async fn watch(mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    for sequence in 1_u64.. {
        let mut message = BytesMut::new();
        uint_field(&mut message, 1, sequence);
        stream.send_data(framed(&message), false)?;
        let gone = poll_fn(|context| stream.poll_reset(context));
        if tokio::time::timeout(WATCH_PACE, gone).await.is_ok() {
            return Ok(());
        }
    }
    Ok(())
}

fn refuse(respond: &mut SendResponse<Bytes>, status: u8) -> Result<(), h2::Error> {
    let mut response = head();
    response.headers_mut().extend(trailers(status));
    respond.send_response(response, true).map(drop)
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(status: u8) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from(u16::from(status)),
    )])
}
