//! Child processes: started, watched, started again, ended.
//!
//! Each child is in a process group of its own, so that Ctrl-C reaches only the supervisor, which then ends them in
//! order. Each is started through `mesh launch`, which asks the kernel to kill it if the supervisor dies.

use super::launches::Launches;
use mesh_api::proto::LaunchRecord;
use mesh_platform::process;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// First pause before a child is started again; doubles up to [`PAUSE_MAX`] while it dies young.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause between two starts of a child that keeps dying.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A child that lived this long is healthy: its next pause is [`PAUSE_MIN`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Lines longer than this from an application are cut: the table needs observations, not payloads.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What a child is for, which decides how the supervisor treats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// CA, controller or proxy: always runs.
    Mesh,
    /// An application: started again after a failure, left alone after exit 0.
    Application,
}

/// How to start one child.
#[derive(Clone, Debug)]
pub(crate) struct ChildSpec {
    /// Name in messages and of its log file, `ca`, `proxy shop/web`.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) role: Role,
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    /// Variables added to the environment.
    pub(crate) env: Vec<(String, String)>,
    /// Directory it starts in.
    pub(crate) directory: PathBuf,
    /// Where its stderr goes.
    pub(crate) log: PathBuf,
    /// Which workload its process is; none for the CA.
    pub(crate) identity: Option<ChildIdentity>,
}

/// The workload that a child's process is attested as.
#[derive(Clone, Debug)]
pub(crate) struct ChildIdentity {
    /// Namespace.
    pub(crate) namespace: String,
    /// Service account.
    pub(crate) service_account: String,
    /// Workload, for the CA's log.
    pub(crate) workload: String,
    /// Whether its descendants are that workload too.
    pub(crate) descendants: bool,
}

/// What happens to children.
#[derive(Debug)]
pub(crate) enum ChildEvent {
    /// It runs.
    Started {
        /// Name of the child.
        name: String,
        /// Its pid.
        pid: u32,
    },
    /// It ended, or could not be started.
    Ended {
        /// Name of the child.
        name: String,
        /// How.
        how: String,
        /// Whether it ended as it should (exit 0, or asked to).
        well: bool,
        /// When it will be started again, if it will.
        again: Option<Duration>,
    },
    /// One line of its stdout.
    Line {
        /// Name of the child.
        name: String,
        /// The line, without its end.
        line: String,
    },
}

/// Keeps one child running until `stop` turns true, then ends it: SIGTERM, and after `grace` SIGKILL.
pub(crate) async fn keep_running(
    spec: ChildSpec,
    launches: Launches,
    events: mpsc::UnboundedSender<ChildEvent>,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let mut pause = PAUSE_MIN;
    while !*stop.borrow() {
        let born = Instant::now();
        let (how, well) = match start(&spec) {
            Ok(child) => run_once(&spec, child, &launches, &events, &mut stop, grace).await,
            Err(error) => (format!("cannot be started: {error}"), false),
        };
        pause = if born.elapsed() >= HEALTHY_AFTER {
            PAUSE_MIN
        } else {
            pause
        };
        let done = *stop.borrow() || (well && spec.role == Role::Application);
        let again = (!done).then_some(pause);
        let _ = events.send(ChildEvent::Ended {
            name: spec.name.clone(),
            how,
            well,
            again,
        });
        if done {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn start(spec: &ChildSpec) -> std::io::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&spec.log)?;
    let mut words = spec.command.iter();
    let program = words.next().cloned().unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("launch").arg("--").arg(program).args(words);
    command.envs(spec.env.iter().map(|(key, value)| (key, value)));
    command
        .current_dir(&spec.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    command.process_group(0).kill_on_drop(true).spawn()
}

async fn run_once(
    spec: &ChildSpec,
    mut child: Child,
    launches: &Launches,
    events: &mpsc::UnboundedSender<ChildEvent>,
    stop: &mut watch::Receiver<bool>,
    grace: Duration,
) -> (String, bool) {
    let Some(pid) = child.id() else {
        return ("ended at once".to_owned(), false);
    };
    let _ = events.send(ChildEvent::Started {
        name: spec.name.clone(),
        pid,
    });
    let lines = tokio::task::spawn_local(forward_lines(
        spec.name.clone(),
        child.stdout.take(),
        events.clone(),
    ));
    let registering = spec.identity.clone().map(|identity| {
        let launches = launches.clone();
        tokio::task::spawn_local(async move {
            if let Some(record) = launch_record(pid, identity) {
                launches.register(record).await;
            }
        })
    });
    let ended = tokio::select! {
        ended = child.wait() => ended,
        _ = stop.wait_for(|stop| *stop) => end(&mut child, pid, grace).await,
    };
    // Descendants of an application that ended must not live on without a supervisor.
    signal_group(pid, Signal::KILL);
    if let Some(task) = registering {
        task.abort();
    }
    launches.unregister(pid).await;
    lines.abort();
    match ended {
        Ok(status) => (status.to_string(), status.success() || *stop.borrow()),
        Err(error) => (error.to_string(), false),
    }
}

async fn end(
    child: &mut Child,
    pid: u32,
    grace: Duration,
) -> std::io::Result<std::process::ExitStatus> {
    signal_group(pid, Signal::TERM);
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            signal_group(pid, Signal::KILL);
            child.wait().await
        }
    }
}

fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only if nobody is left in the group, which is what was wanted.
        let _ = kill_process_group(pid, signal);
    }
}

fn launch_record(pid: u32, identity: ChildIdentity) -> Option<LaunchRecord> {
    Some(LaunchRecord {
        pid,
        start_time_ticks: process::start_time_ticks(pid)?,
        uid: rustix::process::getuid().as_raw(),
        // Not yet known here: `mesh launch` replaces itself with the command at about this moment.
        executable: String::new(),
        namespace: identity.namespace,
        service_account: identity.service_account,
        workload: identity.workload,
        descendants: identity.descendants,
    })
}

async fn forward_lines(
    name: String,
    stdout: Option<tokio::process::ChildStdout>,
    events: mpsc::UnboundedSender<ChildEvent>,
) {
    let Some(stdout) = stdout else { return };
    let mut lines = BufReader::new(stdout).split(b'\n');
    while let Ok(Some(bytes)) = lines.next_segment().await {
        let shown = bytes.get(..LINE_BYTES_MAX).unwrap_or(&bytes);
        let line = String::from_utf8_lossy(shown).into_owned();
        if events
            .send(ChildEvent::Line {
                name: name.clone(),
                line,
            })
            .is_err()
        {
            return;
        }
    }
}
