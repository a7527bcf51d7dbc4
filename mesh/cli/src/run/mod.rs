//! `mesh run -- CMD`: one command in a network namespace of its own, whose every connection goes through a proxy.
//!
//! Two processes. [`inside`] becomes the command: it goes into the namespace, redirects what leaves it, proves that, and
//! hands the sockets at which redirected connections arrive to this one, which stays outside, serves them with a proxy, and
//! lets the other go on once that has identity and policy. The namespace has no other way out, so whatever goes wrong, and
//! after the proxy has gone, nothing leaves.
//!
//! - [`inside`]: the way into the namespace
//! - [`names`]: questions for names, which are not TCP

pub(crate) mod inside;
mod names;

use crate::arguments::duration;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::parts;
use clap::Args;
use mesh_platform::{Platform, System, files, handover, process};
use mesh_proxy::ProxyConfig;
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How often it is looked whether the other process has come, and whether the proxy is ready.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Time for what the command left behind, once it has ended.
const DRAIN: Duration = Duration::from_millis(250);
/// What lets the command start.
const GO: &[u8] = b"go";
/// Added to the number of a signal that ended the command, as shells do.
const BY_SIGNAL: i32 = 128;

/// Runs a command with all its connections captured: a network namespace of its own, and one proxy as the way out.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Configuration of the proxy (docs/reference/proxy-config.md): whose identity, which policy. It needs
    /// `outboundTransparent`; the address there is one of the command's own namespace.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How long the proxy may take until it has identity and policy; the command does not start before.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,
    /// Carries no questions for names to this machine's resolvers: the command knows addresses, or /etc/hosts.
    #[arg(long)]
    no_dns: bool,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Why a command does not run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum RunError {
    /// No network namespace.
    #[error("no network namespace can be made for the command: {why}")]
    #[diagnostic(
        code("MESH-0581"),
        help(
            "run it as root; or let users make namespaces: `sysctl user.max_user_namespaces` must not be 0, nor `kernel.unprivileged_userns_clone`, and `kernel.apparmor_restrict_unprivileged_userns` not 1; a container needs CAP_SYS_ADMIN or a seccomp profile that allows them"
        )
    )]
    NoNamespace {
        /// What the kernel says.
        why: String,
    },
    /// The namespace has no network.
    #[error("the network of the command cannot be set up: {why}")]
    #[diagnostic(
        code("MESH-0582"),
        help(
            "the kernel needs the modules `dummy` or `veth`, `nf_tables`, `nft_chain_nat` and `nft_redir`: `modprobe` loads them"
        )
    )]
    NoNetwork {
        /// Which step, and what the kernel says.
        why: String,
    },
    /// The proxy has no identity or no policy.
    #[error("the proxy did not become ready in {secs} s: {why}; the command was not started")]
    #[diagnostic(
        code("MESH-0583"),
        help(
            "see that CA and controller run and know this workload, or allow more time with `--wait`"
        )
    )]
    NotReady {
        /// How long was waited.
        secs: u64,
        /// What is missing.
        why: String,
    },
    /// Nothing would be captured.
    #[error("`{config}` captures nothing: it has no `outboundTransparent`")]
    #[diagnostic(
        code("MESH-0584"),
        help("add `outboundTransparent: 127.0.0.1:15001`, and what says where services are")
    )]
    NothingCaptured {
        /// The configuration.
        config: String,
    },
    /// The two processes cannot speak to each other.
    #[error("cannot {doing}: {why}")]
    #[diagnostic(
        code("MESH-0585"),
        help(
            "check that the folder for temporary files can be written (`$TMPDIR`), and the limits on processes and open files (`ulimit -a`)"
        )
    )]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        why: String,
    },
}

impl RunError {
    fn system(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System {
            doing,
            why: error.to_string(),
        }
    }
}

/// What the process inside hands over: so many listeners, then a socket for each of these resolvers.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    listeners: usize,
    resolvers: Vec<SocketAddr>,
}

/// Runs the command; ends as it ends.
pub(crate) fn run(args: &RunArgs) -> Result<Exit, Fault> {
    parts::log_to_stderr("warn");
    let platform = System::new();
    let config = mesh_proxy::config::file::load(&*platform, &args.config)
        .map_err(|error| Fault::usage(&error))?;
    let Some(listen) = config.outbound_transparent else {
        let config = args.config.display().to_string();
        return Err(Fault::usage(&RunError::NothingCaptured { config }));
    };
    let meeting = Meeting::new(&*platform)?;
    // From the main thread, which lives as long as this process: the other ends with it.
    let mut child = start(args, &meeting.path, listen)?;
    let met = meeting.wait(&mut child)?;
    drop(meeting);
    let Some(stream) = met else {
        return ended(&mut child); // it has said why
    };
    let (handed, files) = match receive(&stream)? {
        Some(received) => received,
        None => return ended(&mut child),
    };
    let mut files = files.into_iter();
    let listeners: Vec<_> = files
        .by_ref()
        .take(handed.listeners)
        .map(TcpListener::from)
        .collect();
    let resolvers = files.map(UdpSocket::from).zip(handed.resolvers).collect();
    let admin = config.admin_socket.clone();
    let outside = Outside {
        stream,
        admin,
        wait: args.wait,
        resolvers,
    };
    let proxy = match mesh_proxy::start_beside(unlingering(config), platform, &listeners) {
        Ok(proxy) => proxy,
        Err(error) => {
            end(&mut child);
            return Err(error.into());
        }
    };
    drop(listeners);
    let result = outside.serve(&mut child);
    proxy.stop();
    let status = result.inspect_err(|_| end(&mut child))?;
    Ok(Exit::Command(code(status)))
}

/// When the command has ended there is nobody to drain for but what it left behind.
fn unlingering(config: ProxyConfig) -> ProxyConfig {
    ProxyConfig {
        drain: DRAIN,
        ..config
    }
}

fn start(args: &RunArgs, hand: &Path, listen: SocketAddr) -> Result<Child, RunError> {
    let starting = RunError::system("start the process for the command");
    let program = std::env::current_exe().map_err(&starting)?;
    let mut command = Command::new(program);
    command.arg("captured").arg("--hand").arg(hand);
    command.args(["--listen", &listen.to_string()]);
    if args.no_dns {
        command.arg("--no-dns");
    }
    command.arg("--").args(&args.command);
    command.spawn().map_err(&starting)
}

/// Where the two processes meet: a socket in a folder of its own, until they have.
struct Meeting {
    folder: PathBuf,
    path: PathBuf,
    listener: UnixListener,
}

impl Meeting {
    fn new(platform: &dyn Platform) -> Result<Self, RunError> {
        let meeting = RunError::system("make a folder for a socket");
        let name = format!("mesh-run-{:016x}", platform.dice());
        let folder = std::env::temp_dir().join(name);
        files::create_dir_private(&folder).map_err(|error| RunError::System {
            doing: "make a folder for a socket",
            why: error.to_string(),
        })?;
        let path = folder.join("hand.sock");
        let listener = UnixListener::bind(&path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listener.map_err(|error| {
            let _ = std::fs::remove_dir_all(&folder);
            meeting(error)
        })?;
        Ok(Self {
            folder,
            path,
            listener,
        })
    }

    /// Waits for the other process; `None`: it ended.
    fn wait(&self, child: &mut Child) -> Result<Option<UnixStream>, RunError> {
        let meeting = RunError::system("meet the process for the command");
        loop {
            match self.listener.accept() {
                Ok((stream, _))
                    if process::peer_of(&stream).is_ok_and(|peer| peer.pid == child.id()) =>
                {
                    stream.set_nonblocking(false).map_err(&meeting)?;
                    return Ok(Some(stream));
                }
                Ok(_) => {} // somebody else of this user
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if child.try_wait().map_err(&meeting)?.is_some() {
                        return Ok(None);
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => {
                    end(child);
                    return Err(meeting(error));
                }
            }
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        // What stays is an empty folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What was handed over; `None`: the other process ended.
fn receive(stream: &UnixStream) -> Result<Option<(Handed, Vec<OwnedFd>)>, RunError> {
    let receiving = RunError::system("receive the sockets of the command's network");
    let (bytes, files) = handover::receive(stream).map_err(&receiving)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let handed: Handed = serde_json::from_slice(&bytes).map_err(|error| receiving(error.into()))?;
    if handed.listeners + handed.resolvers.len() != files.len() {
        return Err(receiving(io::ErrorKind::InvalidData.into()));
    }
    Ok(Some((handed, files)))
}

/// This process, once there is a proxy.
struct Outside {
    /// To the other process.
    stream: UnixStream,
    admin: PathBuf,
    wait: Duration,
    resolvers: Vec<(UdpSocket, SocketAddr)>,
}

impl Outside {
    /// Lets the command go when the proxy is ready, and waits for its end.
    fn serve(self, child: &mut Child) -> Result<ExitStatus, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RunError::system("start an event loop"))?;
        runtime.block_on(async {
            for (socket, resolver) in self.resolvers {
                let socket = names::listen(socket).map_err(RunError::system("answer for names"))?;
                tokio::spawn(names::carry(socket, resolver));
            }
            let mut signals = Signals::watch().map_err(RunError::system("watch signals"))?;
            tokio::select! {
                ready = until_ready(&self.admin, self.wait) => ready?,
                // Before the command runs, whatever would end it ends this.
                signal = signals.next() => {
                    end(child);
                    return Ok(ExitStatus::from_raw(signal.as_raw()));
                }
                status = wait(child) => return status,
            }
            let going = io::Write::write_all(&mut &self.stream, GO);
            going.map_err(RunError::system("let the command go"))?;
            let pid = Pid::from_child(child);
            let mut status = std::pin::pin!(wait(child));
            loop {
                tokio::select! {
                    biased;
                    status = &mut status => return status,
                    signal = signals.next() => {
                        // Fails only if it has just ended.
                        let _ = kill_process(pid, signal);
                    }
                }
            }
        })
    }
}

/// Waits until the proxy says that it is ready.
async fn until_ready(admin: &Path, within: Duration) -> Result<(), RunError> {
    let deadline = Instant::now() + within;
    loop {
        let why = match mesh_api::admin::get(admin, "/ready").await {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            let secs = within.as_secs();
            return Err(RunError::NotReady { secs, why });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for the end of the process.
async fn wait(child: &mut Child) -> Result<ExitStatus, RunError> {
    let waiting = RunError::system("wait for the command");
    let mut ended = signal(SignalKind::child()).map_err(&waiting)?;
    loop {
        if let Some(status) = child.try_wait().map_err(&waiting)? {
            return Ok(status);
        }
        ended.recv().await;
    }
}

/// Signals that are for the command.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    one: tokio::signal::unix::Signal,
    two: tokio::signal::unix::Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            one: signal(SignalKind::user_defined1())?,
            two: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one that the command does not get by itself: what is typed at the terminal goes to both.
    async fn next(&mut self) -> Signal {
        loop {
            let signal = tokio::select! {
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.quit.recv() => Signal::QUIT,
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.hang_up.recv() => Signal::HUP,
                _ = self.one.recv() => Signal::USR1,
                _ = self.two.recv() => Signal::USR2,
            };
            let typed = [Signal::INT, Signal::QUIT].contains(&signal) && has_terminal();
            if !typed {
                return signal;
            }
        }
    }
}

/// Whether this process and the command are what a terminal's keys reach.
fn has_terminal() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|tty| rustix::termios::tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
}

/// Ends a process that never became the command, or must not stay.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The end of a process that never became the command.
fn ended(child: &mut Child) -> Result<Exit, Fault> {
    let status = child
        .wait()
        .map_err(RunError::system("wait for the command"))?;
    Ok(Exit::Command(code(status)))
}

/// As shells have it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code();
    let code = code.or_else(|| Some(BY_SIGNAL + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_command_is_told_as_shells_tell_it() {
        for (raw, want) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), want, "{raw}");
        }
    }

    #[test]
    fn what_is_handed_over_must_be_what_was_said() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let said = |listeners, resolvers: &[&str]| {
            let handed = Handed {
                listeners,
                resolvers: resolvers
                    .iter()
                    .map(|text| text.parse().expect("an address"))
                    .collect(),
            };
            serde_json::to_vec(&handed).expect("JSON")
        };
        let file = std::os::fd::AsFd::as_fd(&here);
        for (bytes, files) in [
            (said(2, &[]), 1),
            (said(1, &["10.0.0.2:53"]), 1),
            (said(0, &[]), 1),
            (b"nonsense".to_vec(), 1),
        ] {
            handover::send(&there, &bytes, &vec![file; files]).expect("sent");
            assert!(receive(&here).is_err());
        }
        handover::send(&there, &said(1, &["10.0.0.2:53"]), &[file; 2]).expect("sent");
        assert!(receive(&here).expect("right").is_some());
        drop(there);
        assert!(receive(&here).expect("an end").is_none());
    }
}
