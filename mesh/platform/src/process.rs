//! Processes: who is at the other end of a socket, is it still the same one, and will it end with us.
//!
//! A pid alone proves nothing: it is reused. What does is a pidfd (it stands for one process for ever) together with
//! the start time, field 22 of `/proc/PID/stat`, which a reused pid cannot share.

use crate::PlatformError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, pidfd_open,
    pidfd_send_signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Asks the kernel to kill this process (`SIGKILL`) when its parent ends.
///
/// Call it first thing in a child. "Parent" is the *thread* that spawned us (prctl(2)): spawn children that do this
/// from a thread that lives as long as the parent, its main thread for instance.
///
/// # Errors
/// [`PlatformError::Process`] if the parent ended before the request was in force; the caller should end too.
pub fn die_with_parent() -> Result<(), PlatformError> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| PlatformError::Kernel {
        doing: "end this process with its parent",
        source: errno.into(),
    })?;
    if getppid() != parent {
        return Err(PlatformError::Process {
            doing: "end with parent",
            pid: parent.map_or(0, |pid| pid.as_raw_pid().unsigned_abs()),
            why: "it ended already".to_owned(),
        });
    }
    Ok(())
}

/// Keeps private keys out of core files, and debuggers of the same user out of this process.
///
/// Files below `/proc/PID` then belong to root: [`executable`] of this process answers `None` to others of its user,
/// while [`start_time_ticks`] and [`parent_of`] still answer.
///
/// # Errors
/// [`PlatformError::Kernel`] if a sandbox forbids it.
pub fn no_core_dumps() -> Result<(), PlatformError> {
    let failed = |errno: rustix::io::Errno| PlatformError::Kernel {
        doing: "switch core dumps off",
        source: errno.into(),
    };
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}

/// Keeps all memory of this process out of swap space, now and later.
///
/// Pages are locked as they are used: those of a large program that never runs cost nothing.
///
/// # Errors
/// [`PlatformError::Kernel`] if the limit (`RLIMIT_MEMLOCK`, without `CAP_IPC_LOCK`) does not let it.
pub fn lock_memory() -> Result<(), PlatformError> {
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|errno| PlatformError::Kernel {
        doing: "lock the memory of this process",
        source: errno.into(),
    })
}

/// When process `pid` started, in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` if it is gone.
pub fn start_time_ticks(pid: u32) -> Option<u64> {
    stat_field(&stat_of(pid)?, 22)
}

/// The parent of process `pid`; `None` if either is gone.
pub fn parent_of(pid: u32) -> Option<u32> {
    stat_field::<u32>(&stat_of(pid)?, 4).filter(|parent| *parent != 0)
}

/// The file that process `pid` runs; `None` if it is gone or may not be looked at.
///
/// A file that was replaced on disk ends in ` (deleted)`, as the kernel says it.
pub fn executable(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn stat_of(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in the second field may hold any bytes.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Field `number` (from 1, as in proc(5)) of a stat line, for the fields after the name.
///
/// The name is in parentheses and may hold spaces, parentheses and line feeds; no later field has a parenthesis, so
/// the last one ends it.
fn stat_field<T: std::str::FromStr>(line: &str, number: usize) -> Option<T> {
    let (_, after_name) = line.rsplit_once(')')?;
    after_name
        .split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

/// One process, for ever: never another that got the same pid.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Takes hold of process `pid`.
    ///
    /// # Errors
    /// [`PlatformError::Process`] if there is none.
    pub fn open(pid: u32) -> Result<Self, PlatformError> {
        let failed = |why: String| PlatformError::Process {
            doing: "watch",
            pid,
            why,
        };
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| failed("there is no such pid".to_owned()))?;
        let fd = pidfd_open(raw, PidfdFlags::NONBLOCK)
            .map_err(|errno| failed(std::io::Error::from(errno).to_string()))?;
        Ok(Self { fd, pid })
    }

    /// Its pid; meaningful while [`PidFd::is_alive`].
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs; false for one that ended and was not waited for yet.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        ) {
            Ok(0) => true,
            // Readable: it ended. An error tells us nothing, so it is not trusted.
            Ok(_) | Err(_) => false,
        }
    }

    /// When it started; `None` once it has ended. The answer is about this very process: it was alive after the reading.
    pub fn start_time_ticks(&self) -> Option<u64> {
        start_time_ticks(self.pid).filter(|_| self.is_alive())
    }

    /// The file it runs; `None` once it has ended or if it may not be looked at.
    pub fn executable(&self) -> Option<PathBuf> {
        executable(self.pid).filter(|_| self.is_alive())
    }

    /// Ready once it has ended.
    ///
    /// # Errors
    /// [`PlatformError::Kernel`] if it cannot be watched.
    pub async fn exited(&self) -> Result<(), PlatformError> {
        let failed = |source| PlatformError::Kernel {
            doing: "watch a process",
            source,
        };
        // A descriptor of its own: epoll takes each only once, and several may wait for one process.
        let own = self.fd.try_clone().map_err(failed)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; a descriptor that is ours alone cannot change under it"
        )]
        let watched = AsyncFd::with_interest(own, Interest::READABLE).map_err(failed)?;
        watched.readable().await.map(drop).map_err(failed)
    }

    /// Sends `SIGTERM`: please end.
    ///
    /// # Errors
    /// [`PlatformError::Process`] if it is gone or not ours.
    pub fn terminate(&self) -> Result<(), PlatformError> {
        self.send(Signal::TERM)
    }

    /// Sends `SIGKILL`.
    ///
    /// # Errors
    /// [`PlatformError::Process`] if it is gone or not ours.
    pub fn kill(&self) -> Result<(), PlatformError> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> Result<(), PlatformError> {
        pidfd_send_signal(&self.fd, signal).map_err(|errno| PlatformError::Process {
            doing: "signal",
            pid: self.pid,
            why: std::io::Error::from(errno).to_string(),
        })
    }
}

/// The process at the other end of a Unix socket, as it was when it connected.
#[derive(Debug)]
pub struct PeerProcess {
    /// Its pid, in our pid namespace.
    pub pid: u32,
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
    /// Holds the process with that pid now; `None` if it ended meanwhile.
    ///
    /// Taken from the pid right after the connection, not from `SO_PEERPIDFD` (which needs a system call that no
    /// reviewed crate of ours offers yet). So a process that connected and ended at once may have left its pid to
    /// another: compare [`PidFd::start_time_ticks`] with what was registered, and check [`PidFd::is_alive`] again
    /// before every answer. A reused pid has a later start time and fails that comparison.
    pub pidfd: Option<PidFd>,
}

/// Process `pid`, as it is now, for somebody who names it.
///
/// Whoever was meant may have ended and left its pid to another: what comes of it is this one's, as long as it lives.
///
/// # Errors
/// [`PlatformError::Process`] if there is none, or it ends meanwhile.
pub fn by_pid(pid: u32) -> Result<PeerProcess, PlatformError> {
    let pidfd = PidFd::open(pid)?;
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_default();
    // Real, effective, saved, of the file system (proc(5)).
    let effective = |name: &str| -> Option<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    match (effective("Uid:"), effective("Gid:")) {
        // Alive after the reading: it was this one's.
        (Some(uid), Some(gid)) if pidfd.is_alive() => Ok(PeerProcess {
            pid,
            uid,
            gid,
            pidfd: Some(pidfd),
        }),
        _ => Err(PlatformError::Process {
            doing: "look at",
            pid,
            why: "it has ended, or may not be looked at".to_owned(),
        }),
    }
}

/// Who connected on `stream` (`SO_PEERCRED`).
///
/// # Errors
/// [`PlatformError::Kernel`] if the socket is no Unix socket; [`PlatformError::Process`] if the peer has no pid in
/// our namespace.
pub fn peer_of(stream: impl AsFd) -> Result<PeerProcess, PlatformError> {
    let credentials =
        rustix::net::sockopt::socket_peercred(stream).map_err(|errno| PlatformError::Kernel {
            doing: "name the peer of a socket",
            source: errno.into(),
        })?;
    let pid = u32::try_from(credentials.pid.as_raw_pid())
        .ok()
        .filter(|pid| *pid != 0)
        .ok_or_else(|| PlatformError::Process {
            doing: "name",
            pid: 0,
            why: "the peer is in another pid namespace".to_owned(),
        })?;
    Ok(PeerProcess {
        pid,
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pidfd: PidFd::open(pid).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_may_wait_for_one_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = PidFd::open(child.id()).unwrap();
        let (first, second) = (process.exited(), process.exited());
        tokio::pin!(first, second);
        let pause = std::time::Duration::from_millis(20);
        assert!(
            tokio::time::timeout(pause, &mut first).await.is_err(),
            "it lives"
        );
        assert!(
            tokio::time::timeout(pause, &mut second).await.is_err(),
            "it lives for the second one too"
        );
        child.kill().unwrap();
        first.await.unwrap();
        second.await.unwrap();
        child.wait().unwrap();
    }
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_is_named_has_its_effective_user_and_none_that_ended_has() {
        let own = by_pid(std::process::id()).unwrap();
        assert_eq!(
            (own.uid, own.gid),
            (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw()
            )
        );
        assert!(own.pidfd.is_some_and(|pidfd| pidfd.is_alive()));
        let mut child = sleeper();
        let pid = child.id();
        assert!(by_pid(pid).is_ok());
        child.kill().unwrap();
        // Not waited for yet: its pid is still taken.
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            by_pid(pid).is_err()
        });
        assert!(gone, "a process that ended is nobody");
        child.wait().unwrap();
        assert!(by_pid(pid).is_err());
        for pid in [0, u32::MAX, i32::MAX.unsigned_abs()] {
            assert!(by_pid(pid).is_err(), "{pid}");
        }
    }

    fn sleeper() -> std::process::Child {
        Command::new("sleep")
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let tail = "S 41 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21";
        for name in ["cat", "a b", ") S 1 2 3", "(((", "x) R 1", "\n", ""] {
            let line = format!("7 ({name}) {tail}\n");
            assert_eq!(stat_field::<u64>(&line, 22), Some(987_654), "{name:?}");
            assert_eq!(stat_field::<u32>(&line, 4), Some(41), "{name:?}");
        }
        for broken in ["", "7", "7 (cat", "7 (cat) S", "7 (cat) S x"] {
            assert_eq!(stat_field::<u64>(broken, 22), None, "{broken:?}");
        }
    }

    #[test]
    fn our_own_process_is_known_and_pid_zero_is_not() {
        let us = std::process::id();
        assert!(start_time_ticks(us).is_some_and(|ticks| ticks > 0));
        assert_eq!(parent_of(us), Some(std::os::unix::process::parent_id()));
        assert_eq!(executable(us), std::env::current_exe().ok());
        assert!(PidFd::open(0).is_err());
        assert_eq!(start_time_ticks(u32::MAX), None);
    }

    #[tokio::test]
    async fn a_pidfd_sees_the_end_of_its_process_even_before_it_is_reaped() {
        let mut child = sleeper();
        let held = PidFd::open(child.id()).unwrap();
        assert!(held.is_alive());
        assert!(held.start_time_ticks().is_some());
        held.kill().unwrap();
        held.exited().await.unwrap();
        assert!(!held.is_alive(), "a zombie is not alive");
        assert_eq!(held.start_time_ticks(), None);
        child.wait().unwrap();
        assert!(held.terminate().is_err());
        assert!(PidFd::open(child.id()).is_err());
    }

    #[test]
    fn the_peer_of_a_socket_is_the_process_that_connected() {
        let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = peer_of(&one).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert!(peer.pidfd.unwrap().is_alive());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        // The kernel answers with no pid at all for other families.
        assert!(peer_of(&tcp).is_err());
    }
}
