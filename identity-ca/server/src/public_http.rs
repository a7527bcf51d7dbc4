//! Documents for everybody, over HTTP/1.1: who asks shows nothing, asks once, and is not waited for.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Answers one request on `stream`. Its head must come within `head_timeout`, and all be over in twice that.
pub(crate) async fn answer_one<T>(
    stream: T,
    head_timeout: Duration,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client that reads slowly must not keep its place for ever.
    let _ = tokio::time::timeout(2 * head_timeout, serving).await;
}

/// Whether a document is asked for, and nothing else.
pub(crate) fn is_read<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET || request.method() == Method::HEAD
}

/// A document.
pub(crate) fn json(document: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(document));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// A status alone.
pub(crate) fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
