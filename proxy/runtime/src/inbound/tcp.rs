//! One byte stream from a client to the application.

use super::{Judged, record};
use crate::account::Account;
use crate::copy::{Finish, both_ways};
use crate::core::{Core, Port};
use crate::io::BreakOff;
use crate::live::{Alive, Kill, Peer};
use crate::shadow;
use crate::telemetry::Ask;
use mesh_policy::decide::Verdict;
use mesh_policy::request::Call;
use mesh_proxy_core::metrics::Failure;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite};

/// What the client did first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// It sent data, or may be waiting for ours.
    Data,
    /// It finished without a byte, as TCP probes do.
    End,
}

/// Decides, and only then connects to the application.
pub(crate) async fn take<T>(
    core: &Rc<Core>,
    port: &Port,
    peer: &Rc<Peer>,
    mut stream: T,
    first: First,
) where
    T: AsyncRead + AsyncWrite + BreakOff + Unpin,
{
    let account = Account::stream_in(core, peer);
    let mut measure = core.meter.inbound(peer, Ask::Tcp).telling(account);
    let Some(policy) = core.shared.policy.load_full() else {
        measure.no_policy();
        return tracing::info!(
            port = port.port,
            "closed a connection: there is no policy yet"
        );
    };
    let now = core.shared.platform.wall_clock();
    let decision = peer.decide(&policy, &Call::Tcp, now);
    if decision.verdict == Verdict::Deny && first == First::End {
        return measure.forgotten(); // a probe: connected, and nothing passed
    }
    let otherwise = shadow::otherwise(core, peer, &policy, &decision, &Call::Tcp, now);
    let judged = Judged {
        otherwise: otherwise.as_ref(),
        ..Judged::only(&decision)
    };
    if !record(core, peer, judged, &Call::Tcp, now) {
        return measure.no_record();
    }
    let permit = match decision.permit() {
        Ok(permit) => permit,
        Err(denial) => return measure.denied(&denial),
    };
    measure.allowed(Some(&permit));
    let kill = Kill::default();
    let _entry = core.live.enter(peer.clone(), Alive::Tcp, kill.clone());
    let mut app = match port.app.connect().await {
        Ok(app) => app,
        Err(trouble) => {
            measure.failed(Failure::Connect);
            stream.break_off(); // as the application's port would have answered
            return tracing::warn!(%trouble, "reset a connection");
        }
    };
    measure.opened();
    drop(permit); // spent: these bytes, and no others
    let carried = both_ways(&mut stream, &mut app, &kill).await;
    measure.closed(carried.up, carried.down);
    if let Finish::Ended(end) = carried.finish {
        measure.ended(end);
    }
    if !matches!(carried.finish, Finish::Closed) {
        stream.break_off();
        app.break_off();
    }
    match carried.finish {
        Finish::Closed => {}
        Finish::Broken(error) => tracing::debug!(%error, port = port.port, "a byte stream broke"),
        Finish::Ended(end) => tracing::info!(?end, port = port.port, "ended a byte stream"),
    }
}
