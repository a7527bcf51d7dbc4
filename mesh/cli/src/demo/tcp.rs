//! A caller of the ledger: raw TCP, one line each way, on one connection that is kept while it works.

use super::Upstream;
use super::attempt::Outcome;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest line of the protocol.
pub(super) const LINE_BYTES_MAX: u64 = 256;

/// A caller of one ledger.
pub(super) struct LedgerClient {
    upstream: Upstream,
    open: Option<BufReader<TcpStream>>,
}

impl LedgerClient {
    /// A caller of the ledger `upstream`; dials later.
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            open: None,
        }
    }

    /// Posts `amount`: `POST <amount>`, answered by `OK <entries>`.
    pub(super) async fn post(&mut self, amount: u64) -> Outcome {
        let kept = self.open.is_some();
        let mut posted = self.try_post(amount).await;
        if kept && posted == Err(Outcome::Closed) {
            // A kept connection ends with the certificate that it was made with; what counts is a new one.
            posted = self.try_post(amount).await;
        }
        posted.err().unwrap_or(Outcome::Ok)
    }

    async fn try_post(&mut self, amount: u64) -> Result<(), Outcome> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&*self.upstream.0)
                    .await
                    .map_err(|error| Outcome::from(&error))?;
                let _ = stream.set_nodelay(true);
                BufReader::new(stream)
            }
        };
        let line = format!("POST {amount}\n");
        stream
            .write_all(line.as_bytes())
            .await
            .map_err(|error| Outcome::from(&error))?;
        let mut answer = String::new();
        (&mut stream)
            .take(LINE_BYTES_MAX)
            .read_line(&mut answer)
            .await
            .map_err(|error| Outcome::from(&error))?;
        if answer.is_empty() {
            return Err(Outcome::Closed);
        }
        if !answer.starts_with("OK ") || !answer.ends_with('\n') {
            return Err(Outcome::Error("unexpected answer".to_owned()));
        }
        self.open = Some(stream);
        Ok(())
    }
}
