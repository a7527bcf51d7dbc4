//! What a process gives up for good once it knows what it needs: other programs, other processes, the kernel's
//! administration, and files that it has no business with.
//!
//! Whoever takes over a process that parses the traffic of strangers holds its keys; this keeps that one from the rest of
//! the machine. Two mechanisms of Linux, neither of which can be taken back: a filter of system calls (seccomp(2)), which
//! ends the process at one that it never makes, and rules about files (Landlock, since Linux 5.13), which refuse.

use crate::PlatformError;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Files that a process still uses.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What is read: files, or folders with all below them.
    pub reads: Vec<PathBuf>,
    /// Folders that are written below; they must exist.
    pub writes: Vec<PathBuf>,
}

/// How far the kernel keeps a process from other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesKept {
    /// Wholly.
    Fully,
    /// The kernel is too old for some of the rules.
    Partly,
    /// Not at all: the kernel has no Landlock, or it is switched off.
    NotAtAll,
}

/// What the C library and the kernel have for everybody: names of hosts, certificates, facts about this process.
const SYSTEM: &[&str] = &[
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
];

/// The rules that are asked for. Newer kernels know more, which would refuse what nobody has tried yet.
const RULES: ABI = ABI::V4;

/// System calls that no part of the mesh makes once it runs: other programs, other processes, namespaces, mounts, modules,
/// keys of the kernel, its clocks.
const NEVER: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_personality,
];

/// System calls beyond [`NEVER`] that a process makes that neither dials nor starts anything. What it was born with, one
/// socket for instance, it still reads and writes.
const ALONE: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_memfd_create,
    libc::SYS_process_madvise,
    libc::SYS_inotify_init1,
    libc::SYS_fanotify_init,
    libc::SYS_mq_open,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
];

/// What a sealed process may still reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its files and what it was born with: no network, no other process, not even a thread.
    Files,
    /// Code that others wrote runs in it, and may open sockets, start threads and read what the system has for everybody.
    ForeignCode,
}

/// Seals this process more tightly than [`confine`] does: for one that holds what nobody else may see. It must have one
/// thread.
///
/// # Errors
/// [`PlatformError::Kernel`], as [`confine`].
pub fn seal(files: &Files, reach: Reach) -> Result<FilesKept, PlatformError> {
    match reach {
        Reach::Files => enter(files, &[], &[NEVER, ALONE].concat()),
        Reach::ForeignCode => enter(files, SYSTEM, NEVER),
    }
}

/// Confines this thread, and all that it starts from now on: call it before there is another.
///
/// # Errors
/// [`PlatformError::Kernel`] if the kernel takes no filter. That it has no Landlock is no error, but an answer.
pub fn confine(files: &Files) -> Result<FilesKept, PlatformError> {
    enter(files, SYSTEM, NEVER)
}

fn enter(
    files: &Files,
    system: &[&str],
    never: &[libc::c_long],
) -> Result<FilesKept, PlatformError> {
    let failed = |source: io::Error| PlatformError::Kernel {
        doing: "confine this process",
        source,
    };
    // First, as it also takes away what a set-user-ID program would give back, without which a filter needs root.
    let kept = keep_files(files, system).map_err(|error| failed(io::Error::other(error)))?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| failed(errno.into()))?;
    let filter = filter(never).map_err(|error| failed(io::Error::other(error)))?;
    apply_filter(&filter).map_err(|error| failed(io::Error::other(error)))?;
    Ok(kept)
}

/// Whether this kernel can keep processes from files at all. Changes nothing.
pub fn landlock_is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

fn keep_files(files: &Files, system: &[&str]) -> Result<FilesKept, landlock::RulesetError> {
    let reading: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::from_all(RULES) & !AccessFs::Execute;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(system, reading))?
        .add_rules(path_beneath_rules(&files.reads, reading))?
        .add_rules(path_beneath_rules(&files.writes, writing))?;
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => FilesKept::Fully,
        RulesetStatus::PartiallyEnforced => FilesKept::Partly,
        RulesetStatus::NotEnforced => FilesKept::NotAtAll,
    })
}

fn filter(never: &[libc::c_long]) -> Result<BpfProgram, seccompiler::BackendError> {
    let never: BTreeMap<_, _> = never.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        never,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        std::env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::Command;

    /// Where a child of a test finds the folders that it may read and write.
    const FOLDER: &str = "MESH_CONFINE_TEST";
    const SIGSYS: i32 = 31;

    /// What a confined process can do, one line each. It runs in a process of its own: there is no way back.
    #[test]
    #[ignore = "run by the test below, in a process of its own"]
    #[expect(
        clippy::disallowed_methods,
        reason = "the test is about what the kernel lets through"
    )]
    fn confined() {
        let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
            return;
        };
        let kept = confine(&Files {
            reads: vec![folder.join("reads")],
            writes: vec![folder.join("writes")],
        });
        let can = |what: &str, outcome: io::Result<()>| println!("can {what}: {}", outcome.is_ok());
        println!("kept: {:?}", kept.unwrap());
        let read = |path: &Path| fs::read(path).map(|_| ());
        can("read what it reads", read(&folder.join("reads/file")));
        can("read what it writes", read(&folder.join("writes/file")));
        can("read another's", read(&folder.join("others/file")));
        can(
            "write what it reads",
            fs::write(folder.join("reads/file"), "x"),
        );
        can(
            "write what it writes",
            fs::write(folder.join("writes/new"), "x"),
        );
        can(
            "rename what it writes",
            fs::rename(folder.join("writes/new"), folder.join("writes/file")),
        );
        can(
            "carry away what it writes",
            fs::rename(folder.join("writes/file"), folder.join("others/stolen")),
        );
        can(
            "write another's",
            fs::write(folder.join("others/file"), "x"),
        );
        can("read names of hosts", read(Path::new("/etc/hosts")));
        can("know itself", read(Path::new("/proc/self/stat")));
        let thread = std::thread::spawn(move || read(&folder.join("others/file")).is_ok());
        println!("can read another's in a thread: {}", thread.join().unwrap());
        let killed = Command::new("/bin/true")
            .status()
            .map(|status| status.signal());
        println!("another program ends by: {:?}", killed.ok().flatten());
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the folders that the child may and may not see"
    )]
    fn what_is_confined_keeps_its_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["reads", "writes", "others"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("file"), "x").unwrap();
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "confine::tests::confined",
            ])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(child.stdout).unwrap();
        let answer = |what: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(what));
            line.unwrap_or_else(|| panic!("no `{what}` in {said}"))
                .to_owned()
        };
        assert_eq!(
            answer("another program ends by: "),
            format!("Some({SIGSYS})")
        );
        if answer("kept: ") == "NotAtAll" {
            println!("skipped: files; this kernel has no Landlock");
            return;
        }
        for what in [
            "read what it reads",
            "read what it writes",
            "write what it writes",
            "rename what it writes",
            "read names of hosts",
            "know itself",
        ] {
            assert_eq!(answer(&format!("can {what}: ")), "true", "{what}");
        }
        for what in [
            "read another's",
            "write what it reads",
            "carry away what it writes",
            "write another's",
            "read another's in a thread",
        ] {
            assert_eq!(answer(&format!("can {what}: ")), "false", "{what}");
        }
    }

    /// Which call a sealed process tries.
    const TRIES: &str = "MESH_SEAL_TRIES";

    #[test]
    #[ignore = "run by the test below, in a process of its own"]
    #[expect(
        clippy::disallowed_methods,
        reason = "the test is about what the kernel lets through"
    )]
    fn sealed() {
        let (Some(folder), Ok(tries)) = (std::env::var_os(FOLDER), std::env::var(TRIES)) else {
            return;
        };
        let folder = PathBuf::from(folder);
        let (mut born, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let files = Files {
            reads: vec![],
            writes: vec![folder.join("writes")],
        };
        let kept = seal(&files, Reach::Files).unwrap();
        match tries.as_str() {
            "write what it writes" => fs::write(folder.join("writes/new"), "x").unwrap(),
            "talk on what it was born with" => io::Write::write_all(&mut born, b"x").unwrap(),
            "read the system's" => {
                let refused = fs::read("/etc/hosts").is_err();
                assert!(refused || kept == FilesKept::NotAtAll);
            }
            "dial" => drop(std::net::TcpStream::connect("127.0.0.1:9")),
            "listen" => {
                drop(std::os::unix::net::UnixListener::bind(
                    folder.join("writes/s"),
                ));
            }
            "start a program" => drop(Command::new("/bin/true").spawn()),
            "start a thread" => drop(std::thread::Builder::new().spawn(|| {})),
            "signal" => {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::CONT,
                );
            }
            other => panic!("{other}"),
        }
        println!("went on");
    }

    #[test]
    fn what_is_sealed_has_its_files_and_its_socket_and_ends_when_it_reaches_further() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("writes")).unwrap();
        for (tries, lives) in [
            ("write what it writes", true),
            ("talk on what it was born with", true),
            ("read the system's", true),
            ("dial", false),
            ("listen", false),
            ("start a program", false),
            ("start a thread", false),
            ("signal", false),
        ] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--ignored",
                    "--exact",
                    "--nocapture",
                    "confine::tests::sealed",
                ])
                .env(FOLDER, folder.path())
                .env(TRIES, tries)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert_eq!(said.contains("went on"), lives, "{tries}: {said}");
            let signal = (!lives).then_some(SIGSYS);
            assert_eq!(child.status.signal(), signal, "{tries}: {said}");
        }
    }

    #[test]
    fn no_call_stands_twice_among_those_that_are_never_made() {
        let all = [NEVER, ALONE].concat();
        let mut calls = all.clone();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all.len());
        assert!(filter(&all).unwrap().len() > all.len());
    }
}
