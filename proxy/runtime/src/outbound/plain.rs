//! What leaves the mesh: bytes in plaintext, to somebody who has no identity. Each such connection is counted and logged
//! with its reason.

use crate::account::Account;
use crate::copy::{Finish, both_ways};
use crate::core::Core;
use crate::io::{BreakOff, tune};
use crate::limits::{ENDPOINT_ATTEMPTS, OUTSIDE_CONNECT};
use crate::live::Kill;
use crate::telemetry::Ask;
use mesh_proxy_core::metrics::Failure;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a connection leaves in plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Discovery knows nobody at that address.
    Outside,
    /// The pod at that address has no proxy.
    UnmeshedPod,
    /// Of the service's endpoints, one that has no proxy was drawn.
    UnmeshedEndpoint,
}

impl Reason {
    /// As a metric counts it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::UnmeshedPod => "unmeshed-pod",
            Self::UnmeshedEndpoint => "unmeshed-endpoint",
        }
    }
}

/// The endpoints without proxy in the order in which they are tried, if one of them is drawn: each endpoint of a service
/// has the same share, whether it is in the mesh or not.
pub(super) fn drawn(
    unmeshed: &[SocketAddr],
    meshed: usize,
    random: u64,
) -> Option<Vec<SocketAddr>> {
    let all = u64::try_from(unmeshed.len() + meshed).unwrap_or(u64::MAX);
    let drawn = usize::try_from(random % all.max(1)).unwrap_or(0);
    if drawn >= unmeshed.len() {
        return None;
    }
    let mut endpoints = unmeshed.to_vec();
    endpoints.rotate_left(drawn);
    Some(endpoints)
}

/// Carries the stream to the first of `to` that can be reached. What happens to the connection there happens here: an end
/// of either direction, a reset, a refusal. `kill` ends it.
pub(crate) async fn pass(
    core: &Core,
    mut stream: impl AsyncRead + AsyncWrite + BreakOff + Unpin,
    name: &str,
    to: &[SocketAddr],
    (reason, kill): (Reason, &Kill),
) {
    let account = Account::stream_out(core, name);
    let mut measure = core.meter.outbound(name, None, Ask::Tcp).telling(account);
    core.meter.plaintext(reason.as_str());
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in to.iter().take(ENDPOINT_ATTEMPTS) {
        let mut remote = match connect(*address).await {
            Ok(remote) => remote,
            Err(error) => {
                last = error;
                continue;
            }
        };
        tracing::info!(to = %address, target = name, reason = reason.as_str(), "a connection leaves in plaintext");
        measure.allowed(None);
        measure.opened();
        let carried = both_ways(&mut stream, &mut remote, kill).await;
        measure.closed(carried.up, carried.down);
        if let Finish::Ended(end) = carried.finish {
            measure.ended(end);
        }
        if !matches!(carried.finish, Finish::Closed) {
            stream.break_off();
            remote.break_off();
        }
        return;
    }
    measure.failed(if last.kind() == io::ErrorKind::TimedOut {
        Failure::Timeout
    } else {
        Failure::Connect
    });
    stream.break_off();
    tracing::info!(target = name, ?to, error = %last, reason = reason.as_str(), "reset a connection: its destination outside the mesh cannot be reached");
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let connected = timeout(OUTSIDE_CONNECT, TcpStream::connect(to)).await;
    let remote = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tune(&remote);
    Ok(remote)
}
