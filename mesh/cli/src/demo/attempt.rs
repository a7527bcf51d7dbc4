//! What an application reports of one attempt, and the words for how it ended.

use crate::output::Output;
use serde::Serialize;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// An attempt that takes longer has failed. Far above anything on one machine, far below a person's patience.
pub(super) const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An HTTP answer with this status.
    Http(u16),
    /// A gRPC answer with this status.
    Grpc(u32),
    /// The line protocol answered as it should.
    Ok,
    /// Accepted, then closed without an answer.
    Closed,
    /// Nobody accepted.
    Refused,
    /// Anything else, in words.
    Error(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(status) => write!(f, "{status}"),
            Self::Grpc(status) => write!(f, "grpc:{status}"),
            Self::Ok => f.write_str("ok"),
            Self::Closed => f.write_str("closed"),
            Self::Refused => f.write_str("refused"),
            Self::Error(text) => write!(f, "error:{text}"),
        }
    }
}

impl From<&io::Error> for Outcome {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Error(error.to_string()),
        }
    }
}

/// One line of the report.
#[derive(Serialize)]
struct Attempt<'a> {
    from: &'a str,
    to: &'a str,
    protocol: &'a str,
    outcome: String,
    latency_us: u64,
}

/// Writes reports on stdout, one line each, at once.
pub(super) struct Reporter {
    from: String,
    output: RefCell<Output>,
}

impl Reporter {
    /// Reports in the name of `from`.
    pub(super) fn new(from: String, output: Output) -> Self {
        Self {
            from,
            output: RefCell::new(output),
        }
    }

    /// Makes one attempt, in bounded time, and reports how it ended.
    pub(super) async fn attempt(
        &self,
        to: &str,
        protocol: &str,
        work: impl Future<Output = Outcome>,
    ) -> Outcome {
        let began = Instant::now();
        let outcome = match tokio::time::timeout(ATTEMPT_MAX, work).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Error("timeout".to_owned()),
        };
        self.report(to, protocol, &outcome, began.elapsed());
        outcome
    }

    /// Reports an attempt that was made elsewhere.
    pub(super) fn report(&self, to: &str, protocol: &str, outcome: &Outcome, took: Duration) {
        let latency_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let line = Attempt {
            from: &self.from,
            to,
            protocol,
            outcome: outcome.to_string(),
            latency_us,
        };
        let mut output = self.output.borrow_mut();
        // A report that cannot be written must not stop the shop: the supervisor may be about to come back.
        let _ = output.json_line(&line).and_then(|()| output.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_stable_words() {
        for (outcome, text) in [
            (Outcome::Http(403), "403"),
            (Outcome::Grpc(7), "grpc:7"),
            (Outcome::Ok, "ok"),
            (
                Outcome::from(&io::Error::from(io::ErrorKind::ConnectionReset)),
                "closed",
            ),
            (
                Outcome::from(&io::Error::from(io::ErrorKind::ConnectionRefused)),
                "refused",
            ),
            (Outcome::Error("timeout".to_owned()), "error:timeout"),
        ] {
            assert_eq!(outcome.to_string(), text);
        }
    }
}
