//! The process that becomes the command: into its network namespace, and no further before what leaves it is captured.

use super::{GO, Handed, RunError, names};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::parts;
use clap::Args;
use mesh_platform::{handover, net_namespace, process};
use mesh_proxy::capture;
use mesh_proxy_core::capture::Capture;
use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// User whose connections the rules leave alone. Nobody's here: the proxy is not in this namespace, and what is not
/// redirected gets nowhere.
const NOBODY: u32 = 15_014;
/// Ports of listeners that are not there; rules have them all the same.
const INBOUND: u16 = 15_006;

/// The command's side of `mesh run`, which starts it.
#[derive(Args, Clone, Debug)]
pub(crate) struct CapturedArgs {
    /// Socket of the process that waits for it.
    #[arg(long, value_name = "SOCKET")]
    hand: PathBuf,
    /// Where redirected connections arrive.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// No questions for names.
    #[arg(long)]
    no_dns: bool,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Becomes the command.
pub(crate) fn run(args: CapturedArgs) -> Result<Exit, Fault> {
    net_namespace::enter().map_err(|error| RunError::NoNamespace { why: said(&error) })?;
    process::die_with_parent()?;
    let resolvers = if args.no_dns {
        Vec::new()
    } else {
        names::resolvers()
    };
    let elsewhere: Vec<IpAddr> = resolvers
        .iter()
        .map(SocketAddr::ip)
        .filter(|ip| !ip.is_loopback())
        .collect();
    net_namespace::open_ways(&elsewhere)
        .map_err(|error| RunError::NoNetwork { why: said(&error) })?;
    let port = args.listen.port();
    let capture = Capture {
        uid: NOBODY,
        inbound: if port == INBOUND {
            INBOUND + 1
        } else {
            INBOUND
        },
        outbound: port,
        open: Vec::new(),
        skip_inbound: Vec::new(),
        skip_outbound: Vec::new(),
        skip_subnets: Vec::new(),
        skip_udp: Vec::new(),
    };
    capture::install(&capture)?;
    // The proof comes before the listeners, whose place it takes for a moment.
    capture::validate(&capture, Duration::ZERO)?;
    let mut stream = hand_over(&args, &resolvers)?;
    let mut word = [0; GO.len()];
    // An end instead: the other process has said why, or was killed.
    if stream.read_exact(&mut word).is_err() || word != GO {
        return Ok(Exit::Failure);
    }
    drop(stream);
    parts::become_command(args.command)
}

/// Hands the sockets of this namespace to the process outside.
fn hand_over(args: &CapturedArgs, resolvers: &[SocketAddr]) -> Result<UnixStream, RunError> {
    let listening = RunError::system("listen in the command's network");
    let mut listeners = vec![listen(args.listen).map_err(&listening)?];
    // Redirected connections of IPv6 arrive at its loopback. Where there is none, none arrive.
    let six = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), args.listen.port());
    if let Ok(listener) = listen(six) {
        listeners.push(listener);
    }
    let asked = resolvers.iter().filter_map(|at| {
        let socket = UdpSocket::bind(at).ok()?;
        Some((socket, *at))
    });
    let (sockets, resolvers): (Vec<_>, Vec<_>) = asked.unzip();
    let handed = Handed {
        listeners: listeners.len(),
        resolvers,
    };
    let handing = RunError::system("hand over the sockets of the command's network");
    let bytes = serde_json::to_vec(&handed).map_err(|error| handing(error.into()))?;
    let files: Vec<BorrowedFd<'_>> = listeners
        .iter()
        .map(AsFd::as_fd)
        .chain(sockets.iter().map(AsFd::as_fd))
        .collect();
    let stream = UnixStream::connect(&args.hand).map_err(&handing)?;
    handover::send(&stream, &bytes, &files).map_err(&handing)?;
    Ok(stream)
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// An error with its cause.
fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
