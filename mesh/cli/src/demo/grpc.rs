//! A gRPC caller over one HTTP/2 connection, opened when it is needed and opened again when it broke.

use super::Upstream;
use super::attempt::Outcome;
use super::protobuf::MESSAGE_BYTES_MAX;
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Version};
use std::cell::RefCell;
use tokio::net::TcpStream;

/// A caller of one server.
pub(super) struct GrpcClient {
    upstream: Upstream,
    open: RefCell<Option<SendRequest<Bytes>>>,
}

impl GrpcClient {
    /// A caller of `upstream`; dials later.
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            open: RefCell::new(None),
        }
    }

    /// Sends one message and reads the answer to its end.
    pub(super) async fn unary(&self, path: &str, message: Bytes) -> Outcome {
        match self.start(path, message).await {
            Ok(Started::Ended(outcome)) => outcome,
            Ok(Started::Streaming(mut body)) => self.finish(&mut body, |_| {}).await,
            Err(outcome) => outcome,
        }
    }

    /// Sends one message and calls `each` for every piece of the answer, until the stream ends.
    pub(super) async fn watch(
        &self,
        path: &str,
        message: Bytes,
        each: impl FnMut(&[u8]),
    ) -> Outcome {
        match self.start(path, message).await {
            Ok(Started::Ended(outcome)) => outcome,
            Ok(Started::Streaming(mut body)) => self.finish(&mut body, each).await,
            Err(outcome) => outcome,
        }
    }

    async fn start(&self, path: &str, message: Bytes) -> Result<Started, Outcome> {
        let mut sender = self.sender().await?;
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{path}", self.upstream.0))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| Outcome::Error(error.to_string()))?;
        let sent = sender
            .send_request(request, false)
            .and_then(|(response, mut stream)| {
                stream.send_data(message, true)?;
                Ok(response)
            });
        let response = match sent {
            Ok(response) => response.await,
            Err(error) => Err(error),
        };
        let response = response.map_err(|error| self.broken(&error))?;
        if response.status() != 200 {
            return Ok(Started::Ended(Outcome::Error(format!(
                "http {}",
                response.status().as_u16()
            ))));
        }
        // Trailers-only: the status stands in the head.
        match grpc_status(response.headers()) {
            Some(status) => Ok(Started::Ended(Outcome::Grpc(status))),
            None => Ok(Started::Streaming(response.into_body())),
        }
    }

    async fn finish(&self, body: &mut RecvStream, mut each: impl FnMut(&[u8])) -> Outcome {
        while let Some(piece) = body.data().await {
            match piece {
                Ok(piece) if piece.len() <= MESSAGE_BYTES_MAX => {
                    let _ = body.flow_control().release_capacity(piece.len());
                    each(&piece);
                }
                Ok(_) => return Outcome::Error("message too long".to_owned()),
                Err(error) => return self.broken(&error),
            }
        }
        match body.trailers().await {
            Ok(Some(trailers)) => grpc_status(&trailers).map_or_else(
                || Outcome::Error("no grpc-status".to_owned()),
                Outcome::Grpc,
            ),
            Ok(None) => Outcome::Error("no trailers".to_owned()),
            Err(error) => self.broken(&error),
        }
    }

    /// The open connection, or a new one.
    async fn sender(&self) -> Result<SendRequest<Bytes>, Outcome> {
        let open = self.open.borrow().clone();
        if let Some(sender) = open
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        let stream = TcpStream::connect(&*self.upstream.0)
            .await
            .map_err(|error| Outcome::from(&error))?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = h2::client::handshake(stream)
            .await
            .map_err(|error| self.broken(&error))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a gRPC connection ended");
            }
        });
        let sender = sender.ready().await.map_err(|error| self.broken(&error))?;
        *self.open.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }

    /// Forgets the connection unless only one stream of it broke, and says how the call ended.
    fn broken(&self, error: &h2::Error) -> Outcome {
        match (error.get_io(), error.reason()) {
            (Some(io), _) => {
                self.open.borrow_mut().take();
                Outcome::from(io)
            }
            (None, Some(reason)) if error.is_reset() => {
                Outcome::Error(format!("reset {}", reason.description()))
            }
            _ => {
                self.open.borrow_mut().take();
                Outcome::Closed
            }
        }
    }
}

/// A call whose head has come.
enum Started {
    /// All there is.
    Ended(Outcome),
    /// Messages follow.
    Streaming(RecvStream),
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
