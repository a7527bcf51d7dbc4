//! One byte stream from the application to a service: one connection in the mesh, made before a byte is read.

use super::Listener;
use crate::account::Account;
use crate::copy::{Finish, both_ways};
use crate::core::Core;
use crate::io::BreakOff;
use crate::limits::ENDPOINT_ATTEMPTS;
use crate::telemetry::Ask;
use http::HeaderMap;
use mesh_proxy_core::balance::Outcome;
use mesh_proxy_core::mesh_header::Kind;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Carries the stream to an endpoint; if none can be reached it is reset, which is all that TCP can say.
pub(crate) async fn take<T: AsyncRead + AsyncWrite + BreakOff + Unpin>(
    core: &Core,
    listener: &Rc<Listener>,
    mut stream: T,
) {
    let account = Account::stream_out(core, &listener.name);
    let by = listener.by(core, &HeaderMap::new());
    for _ in 0..ENDPOINT_ATTEMPTS {
        let Some(mut chosen) = listener.choose(core, by).await else {
            break;
        };
        let edge = chosen.remote.edge();
        if let Some(account) = &account {
            account.endpoint(Some(edge.0));
        }
        let measure = core.meter.outbound(&listener.name, Some(edge), Ask::Tcp);
        let mut measure = measure.telling(account.clone());
        let mut remote = match chosen.remote.stream(core, Kind::Tcp).await {
            Ok((remote, _)) => remote,
            Err(error) => {
                measure.failed(error.failure());
                chosen.not_connected(core);
                tracing::warn!(
                    service = listener.name,
                    why = error.why,
                    "an endpoint cannot be used"
                );
                continue;
            }
        };
        measure.allowed(None);
        measure.opened();
        chosen.ended(core, Outcome::Answered);
        let standing = core.remotes.enter(remote.get_ref().1);
        let carried = both_ways(&mut stream, &mut remote, standing.kill()).await;
        measure.closed(carried.up, carried.down);
        if let Finish::Ended(end) = carried.finish {
            measure.ended(end);
        }
        if !matches!(carried.finish, Finish::Closed) {
            stream.break_off();
            remote.break_off();
        }
        if let Finish::Broken(error) = carried.finish {
            tracing::debug!(%error, service = listener.name, "a byte stream broke");
        }
        return;
    }
    if let Some(account) = &account {
        account.nowhere();
    }
    stream.break_off();
    tracing::warn!(
        service = listener.name,
        "reset a connection: no endpoint can be reached"
    );
}
