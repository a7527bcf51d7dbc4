//! One core: an event loop on a thread of its own, with everything that connections share and no lock.

use crate::account::Accounts;
use crate::app::App;
use crate::classes::Classes;
use crate::config::InboundPort;
use crate::error::ProxyError;
use crate::inbound;
use crate::limits::{EXPIRY_CHECK_EVERY, REACHED_PORTS_MAX, START_WAIT};
use crate::live::Live;
use crate::names::Names;
use crate::original::Locals;
use crate::outbound::egress::{Leaving, Origins};
use crate::outbound::mirror::Mirrors;
use crate::outbound::redirected::Destinations;
use crate::outbound::{self, Listener, pool::Pool};
use crate::random::Random;
use crate::remotes::Remotes;
use crate::shadow::Trials;
use crate::state::{Changes, Shared, stopping};
use crate::telemetry::Meter;
use futures_util::FutureExt;
use mesh_proxy_core::first_use::FirstUses;
use mesh_proxy_core::redirect::OwnPorts;
use mesh_trust::Timestamp;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

/// Pause after the operating system refused to accept, for want of files say (threat RX2).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a drain looks whether it is done.
const DRAIN_CHECK_EVERY: Duration = Duration::from_millis(10);
/// How often pools are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What connections on one core share.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Live,
    pub(crate) remotes: Remotes,
    pub(crate) meter: Meter,
    /// Makes accounts of requests, for who wants them.
    pub(crate) accounts: Accounts,
    pub(crate) random: Random,
    /// Uses of policy that were recorded in this hour.
    pub(crate) first_uses: RefCell<FirstUses>,
    /// How trying a candidate goes.
    pub(crate) trials: Trials,
    /// What was allowed since it was last handed to the log.
    pub(crate) classes: RefCell<Classes>,
    pub(crate) pool: Pool,
    /// Handshakes under way.
    pub(crate) handshakes: Semaphore,
    /// What may be reached through the proxy, and what is here: for connections that were redirected.
    pub(crate) own_ports: OwnPorts,
    pub(crate) locals: Locals,
    pub(crate) destinations: Destinations,
    /// Copies of requests under way.
    pub(crate) mirrors: Rc<Mirrors>,
    /// What has left the mesh and stands.
    pub(crate) leaving: Leaving,
    /// Connections to outside in TLS that begins here.
    pub(crate) origins: Origins,
    /// Addresses of names outside of the mesh.
    pub(crate) names: Names,
    ports: HashMap<u16, Rc<Port>>,
    /// Ports of the workload that were reached at its own addresses.
    reached: RefCell<HashMap<SocketAddr, Rc<Port>>>,
    /// Room for connections, by who opens them: strangers who take all of theirs leave that of others (threat RX1).
    room: Room,
}

/// Places for connections of one core.
struct Room {
    peers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    application: Arc<Semaphore>,
}

impl Room {
    fn new(each: usize) -> Self {
        let places = || Arc::new(Semaphore::new(each));
        Self {
            peers: places(),
            strangers: places(),
            application: places(),
        }
    }
}

/// One port of the application, as one core serves it.
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) app: Rc<App>,
}

/// Listeners of one core, bound before any thread starts so that a taken address stops the start.
pub(crate) struct Sockets {
    pub(crate) mesh: Vec<std::net::TcpListener>,
    pub(crate) transparent: Vec<std::net::TcpListener>,
    pub(crate) outbound_transparent: Vec<std::net::TcpListener>,
    pub(crate) ports: Vec<(InboundPort, std::net::TcpListener)>,
    pub(crate) outbound: Vec<(crate::config::Outbound, std::net::TcpListener)>,
}

/// Runs one core until the proxy stops and its connections are done.
///
/// # Errors
/// [`ProxyError::Start`] if there can be no event loop.
pub(crate) fn run(index: usize, shared: &Arc<Shared>, sockets: Sockets) -> Result<(), ProxyError> {
    let start = |error: std::io::Error| ProxyError::Start {
        part: "an event loop",
        why: error.to_string(),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(start)?;
    let shared = shared.clone();
    runtime.block_on(async move {
        let (core, accepting) = open(index, shared, sockets).map_err(start)?;
        let follow = spawn_local(follow_changes(core.clone()));
        let sweep = spawn_local(sweep(core.clone()));
        stopping(&mut core.shared.watch_stopping()).await;
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        core.drained().await;
        core.hand_over_counts(true);
        follow.abort();
        sweep.abort();
        Ok(())
    })
}

type Accepting = Vec<tokio::task::JoinHandle<()>>;

fn open(
    index: usize,
    shared: Arc<Shared>,
    sockets: Sockets,
) -> std::io::Result<(Rc<Core>, Accepting)> {
    let limits = shared.config.limits;
    let ports = sockets.ports.iter().map(|(config, _)| {
        let port = Port {
            port: config.port,
            app: App::new(config.app, config.port),
        };
        (config.port, Rc::new(port))
    });
    let meter = shared.telemetry.core(index, shared.platform.clone());
    let core = Rc::new(Core {
        live: Live::default(),
        remotes: Remotes::default(),
        accounts: Accounts::new(&shared, &meter),
        meter,
        random: Random::seeded(&*shared.platform),
        first_uses: RefCell::default(),
        trials: Trials::default(),
        classes: RefCell::new(Classes::new(index, shared.platform.wall_clock())),
        pool: Pool::default(),
        handshakes: Semaphore::new(limits.handshakes_at_once),
        own_ports: shared.config.own_ports(),
        locals: Locals::default(),
        destinations: Destinations::default(),
        mirrors: Rc::default(),
        leaving: Leaving::default(),
        origins: Origins::default(),
        names: Names::default(),
        ports: ports.collect(),
        reached: RefCell::default(),
        room: Room::new(limits.connections),
        shared,
    });
    let mut accepting = Vec::new();
    let (peers, strangers) = (core.room.peers.clone(), core.room.strangers.clone());
    let application = core.room.application.clone();
    for mesh in sockets.mesh {
        let mesh = TcpListener::from_std(mesh)?;
        let accept = accept(core.clone(), mesh, peers.clone(), inbound::mesh::take);
        accepting.push(spawn_local(once_equipped(core.clone(), accept)));
    }
    for listener in sockets.transparent {
        let listener = TcpListener::from_std(listener)?;
        let take = inbound::redirected::take;
        let accept = accept(core.clone(), listener, strangers.clone(), take);
        accepting.push(spawn_local(once_equipped(core.clone(), accept)));
    }
    for listener in sockets.outbound_transparent {
        let listener = TcpListener::from_std(listener)?;
        let take = outbound::redirected::take;
        let accept = accept(core.clone(), listener, application.clone(), take);
        accepting.push(spawn_local(accept));
    }
    for (config, listener) in sockets.ports {
        let listener = TcpListener::from_std(listener)?;
        let port = core.port(config.port);
        let take = move |core, stream, from| {
            let port = port.clone();
            async move {
                if let Some(port) = port {
                    inbound::plain::take(core, port, stream, from).await;
                }
            }
        };
        let accept = accept(core.clone(), listener, strangers.clone(), take);
        accepting.push(spawn_local(once_equipped(core.clone(), accept)));
    }
    for (config, listener) in sockets.outbound {
        let listener = TcpListener::from_std(listener)?;
        let service = Listener::new(config);
        let take = move |core, stream, from| outbound::take(core, service.clone(), stream, from);
        let accept = accept(core.clone(), listener, application.clone(), take);
        accepting.push(spawn_local(accept));
    }
    Ok((core, accepting))
}

/// Begins to `accept` once there are a policy to decide by and an identity to show, or have not come for a moment. Who
/// connects meanwhile waits in the listener's queue: a proxy that is started anew would otherwise deny whatever came in the
/// milliseconds before its first policy.
async fn once_equipped(core: Rc<Core>, accept: impl Future<Output = ()>) {
    let mut changes = core.shared.watch_changes();
    let equipped = || core.shared.policy.load().is_some() && core.shared.identity.load().is_some();
    let wait = async { while !equipped() && changes.changed().await.is_ok() {} };
    if tokio::time::timeout(START_WAIT, wait).await.is_err() {
        tracing::warn!("connections are taken without policy or identity: all are denied");
    }
    accept.await;
}

/// Takes connections for as long as there is room; each is a task, so that a panic ends one connection only.
async fn accept<F>(
    core: Rc<Core>,
    listener: TcpListener,
    places: Arc<Semaphore>,
    handle: impl Fn(Rc<Core>, TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                crate::io::tune(&stream);
                let busy = core.shared.mark_busy();
                // Mapped, not awaited: a future that awaits another which it was given has room for it twice.
                let connection = handle(core.clone(), stream, from);
                spawn_local(connection.map(move |()| drop((place, busy))));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; waiting");
                drop(place);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Decides everything alive anew when policy or trust changed, and ends peers whose certificate ran out.
async fn follow_changes(core: Rc<Core>) {
    let mut changes = core.shared.watch_changes();
    let mut seen = Changes::default();
    // When the policy in force may say something else by the passing of time alone.
    let mut due = None;
    loop {
        let changed = *changes.borrow_and_update();
        let now = core.shared.platform.wall_clock();
        if changed.policy != seen.policy || due.is_some_and(|due| due <= now) {
            due = recheck_policy(&core, now);
        }
        if changed.identity != seen.identity {
            recheck_trust(&core);
        }
        seen = changed;
        let expired = core.live.end_expired(now);
        if expired > 0 {
            tracing::info!(
                ended = expired,
                "ended what belonged to peers whose certificates ran out"
            );
        }
        if let Ok(Err(_)) = tokio::time::timeout(EXPIRY_CHECK_EVERY, changes.changed()).await {
            return;
        }
    }
}

/// Ends what the policy in force does not allow at `now`; returns when it may next say something else.
fn recheck_policy(core: &Core, now: Timestamp) -> Option<Timestamp> {
    let policy = core.shared.policy.load_full()?;
    for revoked in core.live.recheck(&policy, now) {
        inbound::record_end(core, &revoked);
    }
    outbound::egress::recheck(core, &policy, now);
    policy.next_change(now)
}

fn recheck_trust(core: &Core) {
    let Some(identity) = core.shared.identity.load_full() else {
        return;
    };
    core.pool.retire_before(identity.version);
    let now = core.shared.platform.wall_clock();
    let ended = core.live.end_untrusted(&identity.bundles, now)
        + core.remotes.end_untrusted(&identity.bundles, now);
    if ended > 0 {
        tracing::warn!(
            ended,
            "ended what belonged to peers that are no longer trusted"
        );
    }
}

async fn sweep(core: Rc<Core>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        core.ports.values().for_each(|port| port.app.sweep());
        core.reached.borrow_mut().retain(|_, port| {
            port.app.sweep();
            Rc::strong_count(port) > 1 || !port.app.is_idle()
        });
        core.destinations.sweep(core.now_us());
        core.origins.sweep();
        core.names.sweep();
        core.pool.sweep();
        core.hand_over_counts(false);
    }
}

impl Core {
    /// The port of the workload, if it is one of those configured.
    pub(crate) fn port(&self, port: u16) -> Option<Rc<Port>> {
        self.ports.get(&port).cloned()
    }

    /// A port of the workload at one of its own addresses.
    pub(crate) fn port_at(&self, to: SocketAddr) -> Rc<Port> {
        let mut reached = self.reached.borrow_mut();
        if let Some(port) = reached.get(&to) {
            return port.clone();
        }
        let port = Rc::new(Port {
            port: to.port(),
            app: App::new(to, to.port()),
        });
        // Past the bound a port is forgotten with its last connection, which costs a connection to the application each.
        if reached.len() < REACHED_PORTS_MAX {
            reached.insert(to, port.clone());
        }
        port
    }

    /// Microseconds on a clock that never goes back.
    pub(crate) fn now_us(&self) -> u64 {
        self.shared.platform.monotonic().micros()
    }

    /// Gives the counts of allowed requests to the log, if it is time.
    fn hand_over_counts(&self, ending: bool) {
        let now = self.shared.platform.wall_clock();
        let take = |counts| self.shared.records.send_counts(counts);
        self.classes.borrow_mut().hand_over(now, ending, take);
    }

    /// Resolves once every connection has ended, upgraded ones too. The whole drain is bounded elsewhere.
    async fn drained(&self) {
        while self.shared.busy.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(DRAIN_CHECK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Most connections of most clients wait, and each has room for whatever may become of it.
    #[test]
    fn a_connection_has_room_for_no_more_than_a_wait() {
        let application = size_of_task(outbound::take);
        let strangers = size_of_task(inbound::plain::take);
        assert!(application <= 1_408, "{application} bytes");
        assert!(strangers <= 1_408, "{strangers} bytes");
    }
}
