//! Two upgraded HTTP connections (WebSocket) joined into one byte stream, for as long as policy allows the request that
//! opened it.

use crate::copy::{Finish, both_ways};
use crate::live::{Kill, Registration};
use crate::outbound::egress::Leave;
use crate::remotes::Standing;
use crate::serve::http1::OnSwitch;
use crate::state::Busy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;

/// Carries bytes between the two once the client has switched, too.
pub(crate) fn carry(
    client: OnSwitch,
    mut server: impl AsyncRead + AsyncWrite + Unpin + 'static,
    kill: Kill,
    registration: impl Held,
    busy: Busy,
) {
    spawn_local(async move {
        match client.await {
            Ok(mut client) => {
                let carried = both_ways(&mut client, &mut server, &kill).await;
                if let Finish::Ended(end) = carried.finish {
                    tracing::info!(?end, "ended an upgraded connection");
                }
            }
            Err(_) => tracing::debug!("an upgrade was not completed"),
        }
        drop((registration, busy));
    });
}

/// What a tunnel keeps until its end.
pub(crate) trait Held: 'static {}
impl Held for Registration {}
impl Held for (Option<Standing>, Option<Leave>) {}
impl Held for () {}
