//! Two upgraded HTTP connections (WebSocket) joined into one byte stream, for as long as policy allows the request that
//! opened it.

use crate::copy::{Finish, both_ways};
use crate::live::{Kill, Registration};
use crate::remotes::Standing;
use crate::state::Busy;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

/// Carries bytes between the two once both have switched.
pub(crate) fn carry(
    client: OnUpgrade,
    server: OnUpgrade,
    kill: Kill,
    registration: impl Held,
    busy: Busy,
) {
    spawn_local(async move {
        match tokio::try_join!(client, server) {
            Ok((client, server)) => {
                let carried =
                    both_ways(&mut TokioIo::new(client), &mut TokioIo::new(server), &kill).await;
                if let Finish::Ended(end) = carried.finish {
                    tracing::info!(?end, "ended an upgraded connection");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
        drop((registration, busy));
    });
}

/// What a tunnel keeps until its end.
pub(crate) trait Held: 'static {}
impl Held for Registration {}
impl Held for Option<Standing> {}
impl Held for () {}
