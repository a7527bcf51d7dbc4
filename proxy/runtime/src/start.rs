//! Start and end of a proxy: sockets first, then threads; on the way out, whoever is being served is served.

use crate::config::ProxyConfig;
use crate::core;
use crate::error::ProxyError;
use crate::limits::EXPORT_PARTING;
use crate::state::Shared;
use crate::{
    admin, audit, confine, control, cross_check, denials, identity, pages, pushes, traces, trust,
};
use mesh_platform::audit_log::AuditLog;
use mesh_platform::{Platform, files, signals, unix};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1_024;
/// Mode of the admin socket.
const SOCKET_MODE: u32 = 0o600;
/// Stack of a core's thread: futures live on the heap.
const STACK_BYTES: usize = 1024 * 1024;

/// Runs a proxy until SIGTERM or SIGINT, then until its connections are done or `drain` has passed. The process gives up all
/// that a proxy does not need (`confine`), so it should be there for nothing else.
///
/// # Errors
/// [`ProxyError`] if it cannot start.
pub fn run(config: ProxyConfig, platform: Arc<dyn Platform>) -> Result<(), ProxyError> {
    confine::to_what_is_configured(&config)?;
    let proxy = start(config, platform)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| cannot("the signal handler", &error))?;
    match runtime.block_on(signals::shutdown_requested()) {
        Ok(how) => tracing::info!(?how, "asked to end"),
        Err(error) => tracing::error!(%error, "signals cannot be watched; ending"),
    }
    proxy.stop();
    Ok(())
}

/// A proxy that runs. Dropping it without [`Running::stop`] leaves its threads to the end of the process.
pub struct Running {
    shared: Arc<Shared>,
    drain: Duration,
    ended: Receiver<()>,
    cores: usize,
    control: watch::Sender<bool>,
    control_thread: JoinHandle<()>,
    /// Last to go: writes and seals what is queued.
    log: Option<AuditLog>,
}

/// Starts a proxy: all sockets are bound when this returns.
///
/// # Errors
/// [`ProxyError`] with the cause.
pub fn start(config: ProxyConfig, platform: Arc<dyn Platform>) -> Result<Running, ProxyError> {
    identity::check(&config, &*platform)?;
    let sockets = (0..config.cores)
        .map(|_| bind_core(&config))
        .collect::<Result<Vec<_>, _>>()?;
    begin(config, platform, sockets)
}

/// The same, but that redirected connections of the workload arrive at `redirected`, which listens in another network
/// namespace, in place of `outboundTransparent`. Like [`run`] the process gives up all that a proxy does not need.
///
/// # Errors
/// [`ProxyError`] with the cause.
pub fn start_beside(
    config: ProxyConfig,
    platform: Arc<dyn Platform>,
    redirected: &[TcpListener],
) -> Result<Running, ProxyError> {
    confine::to_what_is_configured(&config)?;
    identity::check(&config, &*platform)?;
    let config = ProxyConfig {
        outbound_transparent: None,
        ..config
    };
    let sockets = (0..config.cores).map(|_| {
        let handed = redirected.iter().map(TcpListener::try_clone);
        let handed = handed.collect::<io::Result<_>>();
        Ok(core::Sockets {
            outbound_transparent: handed.map_err(|error| cannot("a listener", &error))?,
            ..bind_core(&config)?
        })
    });
    let sockets = sockets.collect::<Result<Vec<_>, ProxyError>>()?;
    begin(config, platform, sockets)
}

fn begin(
    config: ProxyConfig,
    platform: Arc<dyn Platform>,
    sockets: Vec<core::Sockets>,
) -> Result<Running, ProxyError> {
    let admin = bind_admin(&config)?;
    let (log, records) = audit::open(&config, platform.clone())?;
    let (drain, cores) = (config.drain, config.cores);
    let shared = Arc::new(Shared::new(config, platform, records));
    control::check(&shared)?;
    count_panics(&shared);
    let (control, stop_control) = watch::channel(false);
    let control_thread = spawn_control(&shared, admin, stop_control)?;
    cross_check::spawn(&shared)?;
    let (ends, ended) = channel();
    for (index, sockets) in sockets.into_iter().enumerate() {
        let (shared, ends) = (shared.clone(), ends.clone());
        let thread = std::thread::Builder::new()
            .name(format!("core-{index}"))
            .stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            if let Err(error) = core::run(index, &shared, sockets) {
                tracing::error!(%error, "a core ended");
            }
            drop(ends); // tells the end, whatever it was
        });
        spawned.map_err(|error| cannot("a core", &error))?;
    }
    Ok(Running {
        shared,
        drain,
        ended,
        cores,
        control,
        control_thread,
        log,
    })
}

impl Running {
    /// Stops accepting, lets what runs finish within the drain, and ends.
    pub fn stop(self) {
        self.shared.stop();
        tracing::info!(
            drain_secs = self.drain.as_secs(),
            cores = self.cores,
            "ending: no new connections"
        );
        // Nobody sends: the channel closes when the last core is done.
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(self.drain) {
            let left = self.shared.busy.load(std::sync::atomic::Ordering::Relaxed);
            tracing::warn!(left, "connections are cut off: the drain is over");
        }
        self.control.send_replace(true);
        if self.control_thread.join().is_err() {
            tracing::error!("the control thread had panicked");
        }
        drop(self.log);
    }
}

fn cannot(part: &'static str, error: &io::Error) -> ProxyError {
    ProxyError::Start {
        part,
        why: error.to_string(),
    }
}

fn spawn_control(
    shared: &Arc<Shared>,
    sockets: admin::Sockets,
    mut stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ProxyError> {
    let runtime = Builder::new_current_thread();
    let shared = shared.clone();
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(STACK_BYTES);
    let run = move || {
        let mut runtime = runtime;
        let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the control thread cannot start"),
        };
        runtime.block_on(async move {
            if let Err(error) = admin::open(&shared, sockets) {
                tracing::error!(%error, "the admin server cannot start");
            }
            tokio::task::spawn_local(identity::keep_fresh(shared.clone()));
            tokio::task::spawn_local(denials::keep_fresh(shared.clone()));
            tokio::task::spawn_local(trust::keep_fresh(shared.clone()));
            tokio::task::spawn_local(control::keep_fresh(shared.clone()));
            tokio::task::spawn_local(pages::keep_few(shared.clone()));
            let spans = traces::export(shared.clone(), stop.clone());
            let metrics = pushes::export(shared.clone(), stop.clone());
            let (spans, metrics) = (
                tokio::task::spawn_local(spans),
                tokio::task::spawn_local(metrics),
            );
            // An error means that the proxy was dropped: then this ends as well.
            let _ended = stop.wait_for(|stop| *stop).await.is_err();
            // What spans are there then may still go, and how far counts came.
            let both = async { tokio::join!(spans, metrics) };
            let _sent = tokio::time::timeout(EXPORT_PARTING, both).await.is_ok();
        });
    };
    thread
        .spawn(run)
        .map_err(|error| cannot("the control thread", &error))
}

/// Every panic is counted and logged; it ends one task, not the proxy.
fn count_panics(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(shared) = shared.upgrade() {
            shared
                .panics
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        before(panic);
    }));
}

fn bind_core(config: &ProxyConfig) -> Result<core::Sockets, ProxyError> {
    let ports = config
        .ports
        .iter()
        .map(|port| Ok((*port, bind(port.listen, "inbound.ports")?)));
    let outbound = config
        .outbound
        .iter()
        .map(|service| Ok((service.clone(), bind(service.listen, "outbound")?)));
    let redirected = |address: Option<SocketAddr>, purpose| match address {
        Some(address) => bind_twice(address, purpose),
        None => Ok(Vec::new()),
    };
    Ok(core::Sockets {
        mesh: bind_like(config, config.mesh, "inbound.mesh")?,
        transparent: redirected(config.transparent, "inbound.transparent")?,
        outbound_transparent: redirected(config.outbound_transparent, "outboundTransparent")?,
        ports: ports.collect::<Result<_, ProxyError>>()?,
        outbound: outbound.collect::<Result<_, ProxyError>>()?,
    })
}

/// Binds what is reached beside redirected connections, in as many families.
fn bind_like(
    config: &ProxyConfig,
    address: SocketAddr,
    purpose: &str,
) -> Result<Vec<TcpListener>, ProxyError> {
    match config.transparent {
        Some(_) => bind_twice(address, purpose),
        None => Ok(vec![bind(address, purpose)?]),
    }
}

fn bind_admin(config: &ProxyConfig) -> Result<admin::Sockets, ProxyError> {
    let path = &config.admin_socket;
    let fault = |why: String| ProxyError::Bind {
        address: path.display().to_string(),
        purpose: "admin.socket".to_owned(),
        why,
    };
    files::create_dir_private(path.parent().unwrap_or(Path::new(".")))
        .map_err(|error| fault(error.to_string()))?;
    let unix = unix::bind(path, SOCKET_MODE).map_err(|error| fault(error.to_string()))?;
    unix.set_nonblocking(true)
        .map_err(|error| fault(error.to_string()))?;
    Ok(admin::Sockets {
        tcp: bind_like(config, config.admin, "admin.listen")?,
        unix,
    })
}

fn bind(address: SocketAddr, purpose: &str) -> Result<TcpListener, ProxyError> {
    listen(address, false).map_err(|error| unbound(address, purpose, &error))
}

fn unbound(address: SocketAddr, purpose: &str, error: &io::Error) -> ProxyError {
    ProxyError::Bind {
        address: address.to_string(),
        purpose: purpose.to_owned(),
        why: error.to_string(),
    }
}

/// Binds an address, and its namesake in IPv6: what is redirected in one family is redirected in both. Without IPv6 there
/// is nothing to redirect.
fn bind_twice(address: SocketAddr, purpose: &str) -> Result<Vec<TcpListener>, ProxyError> {
    let mut listeners = vec![bind(address, purpose)?];
    let Some(twin) = twin(address) else {
        return Ok(listeners);
    };
    match listen(twin, true) {
        Ok(listener) => listeners.push(listener),
        Err(error) if lacks_ipv6(&error) => {
            tracing::info!(%error, purpose, "no IPv6 here: listening in IPv4 alone");
        }
        Err(error) => return Err(unbound(twin, purpose, &error)),
    }
    Ok(listeners)
}

/// The address of IPv6 that means the same: every address, or this machine alone.
fn twin(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST,
        _ => return None,
    };
    Some(SocketAddr::new(ip.into(), address.port()))
}

/// The kernel has no IPv6, or it is switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    let family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

/// A listener that other cores may share: the kernel spreads connections over them. `beside`: in IPv6 alone, beside a
/// listener in IPv4 on the same port.
fn listen(address: SocketAddr, beside: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if beside {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
