//! Connections to the workload that were redirected here on their way: to any of its ports, at any of its addresses.

use super::{plain, record_refused};
use crate::core::Core;
use crate::io::BreakOff;
use crate::original;
use mesh_proxy_core::redirect;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::TcpStream;

/// Handles one connection from accept to end: the policy of the port that was dialled decides.
pub(crate) async fn take(core: Rc<Core>, stream: TcpStream, from: SocketAddr) {
    let original = original::destination(&stream);
    let own = &core.own_ports;
    match redirect::inbound(original, own, |ip| core.locals.contain(ip)) {
        Ok(to) => plain::take(core.clone(), core.port_at(to), stream, from).await,
        Err(why) => {
            core.meter.misdirected(why);
            let port = original.map_or(0, |to| to.port());
            record_refused(&core, from, port);
            stream.break_off(); // as a port would on which nobody listens
            tracing::info!(%from, to = ?original, why = why.as_str(), "refused a connection that is not for the workload");
        }
    }
}
