//! A caller over HTTP/1.1, on one connection that is kept while it works.

use super::Upstream;
use super::attempt::Outcome;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that is read. The shop's have some dozen bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A caller of one server.
pub(super) struct HttpClient {
    upstream: Upstream,
    host: String,
    open: Option<SendRequest<Empty<Bytes>>>,
}

impl HttpClient {
    /// A caller of `upstream`, which is called `host` in requests; dials later.
    pub(super) fn new(upstream: Upstream, host: &str) -> Self {
        Self {
            upstream,
            host: host.to_owned(),
            open: None,
        }
    }

    /// Asks for `path` and reads the answer to its end.
    pub(super) async fn get(&mut self, path: &str) -> Outcome {
        match self.try_get(path).await {
            Ok(status) => Outcome::Http(status),
            Err(outcome) => {
                self.open = None;
                outcome
            }
        }
    }

    async fn try_get(&mut self, path: &str) -> Result<u16, Outcome> {
        let mut sender = match self.open.take() {
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header("host", &self.host)
            .header("user-agent", "mesh-demo")
            .body(Empty::new())
            .map_err(|error| Outcome::Error(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = response.status().as_u16();
        Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Outcome::Error(format!("body: {error}")))?;
        self.open = Some(sender);
        Ok(status)
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, Outcome> {
        let stream = TcpStream::connect(&*self.upstream.0)
            .await
            .map_err(|error| Outcome::from(&error))?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
        });
        Ok(sender)
    }
}

fn broken(error: &hyper::Error) -> Outcome {
    use std::error::Error as _;
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    match io {
        Some(io) => Outcome::from(io),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            Outcome::Closed
        }
        None => Outcome::Error(error.to_string()),
    }
}
