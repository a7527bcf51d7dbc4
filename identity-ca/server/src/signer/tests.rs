//! The signer as a process of its own: this test program runs itself as one. It is killed, spoken to wrongly, and its files
//! are changed under it.

mod softhsm;

use super::link::SignerStart;
use super::process::{SignerConfig, serve};
use super::*;
use crate::issuing::Desk;
use crate::record::LOG_FILE;
use crate::testing::{DAY, NOW, World, domain, request};
use crate::{CaError, TokenConfig};
use mesh_issuance::Profile;
use mesh_issuance::signing::{Answer, LENGTH_BYTES, Question};
use mesh_platform::process::PidFd;
use miette::Diagnostic;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The CA's directory; its presence makes [`child`] a signer.
const DIR: &str = "MESH_SIGNER_DIR";
/// Module, token, label, PIN's file and folder, one line each.
const TOKEN: &str = "MESH_SIGNER_TOKEN";

#[test]
#[ignore = "run by the other tests of this module, in a process of its own"]
#[expect(
    clippy::disallowed_methods,
    reason = "this is how it learns what it is"
)]
pub(crate) fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let token = std::env::var(TOKEN).ok().map(|text| {
        let mut parts = text.lines().map(str::to_owned);
        let mut next = || parts.next().unwrap();
        TokenConfig {
            module: next().into(),
            token: next(),
            key: next(),
            pin: next().into(),
            pin_by_group: false,
            files: vec![next().into()],
        }
    });
    let config = SignerConfig {
        dir: dir.into(),
        issuer: None,
        token,
    };
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let ended = serve(&config, UnixStream::from(socket));
    // What libtest says afterwards would be a system call too many for a sealed process.
    std::process::exit(i32::from(ended.is_err()));
}

/// This program as a signer, with these variables.
pub(crate) fn in_process(dir: &Path, variables: &[(&str, String)]) -> SignerStart {
    let mut arguments = vec![format!("{DIR}={}", dir.display())];
    arguments.extend(
        variables
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    arguments.push(std::env::current_exe().unwrap().display().to_string());
    let test = [
        "--exact",
        "signer::tests::child",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ];
    arguments.extend(test.map(str::to_owned));
    SignerStart::Process {
        program: "/usr/bin/env".into(),
        arguments: arguments.into_iter().map(Into::into).collect(),
    }
}

fn open_with(dir: &Path, world: &Arc<World>, signing: &Signing) -> Result<Desk, CaError> {
    let profile = Profile::leaf(86_400).unwrap();
    let with = (signing, None, None);
    Desk::open_with(dir, &domain(), profile, world.clone(), with)
}

/// A CA whose signer is a process.
fn fresh() -> (tempfile::TempDir, Arc<World>, Signing, Desk) {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::at(NOW));
    let signing = Signing::start(in_process(dir.path(), &[])).unwrap();
    let desk = open_with(dir.path(), &world, &signing).unwrap();
    (dir, world, signing, desk)
}

/// Issues until it works again.
fn issues_again(desk: &mut Desk) {
    for _ in 0..500 {
        if desk.issue(vec![request()]).remove(0).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it never issued again");
}

fn kill(signing: &Signing) -> u32 {
    let pid = signing.pid().unwrap();
    PidFd::open(pid).unwrap().kill().unwrap();
    pid
}

#[test]
fn a_ca_issues_by_keys_that_another_process_has() {
    let (dir, _, signing, mut desk) = fresh();
    let batch: Vec<_> = (0..150).map(|_| request()).collect();
    for outcome in desk.issue(batch) {
        outcome.unwrap();
    }
    let pid = signing.pid().unwrap();
    assert_ne!(pid, std::process::id());
    // Of the thread that runs the test there; `mesh signer` has that one alone.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let sealed = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")));
    let sealed = sealed.filter(|status| {
        let status = status.as_deref().unwrap_or_default();
        status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1")
    });
    assert_eq!(sealed.count(), 1, "a filter is in force");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(
        limits.contains("Max core file size        0                    0"),
        "{limits}"
    );
    drop(desk);
    let watched = PidFd::open(pid).unwrap();
    drop(signing);
    for _ in 0..200 {
        if !watched.is_alive() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!watched.is_alive(), "it outlives its CA");
    drop(dir);
}

#[test]
fn what_is_asked_of_a_signer_that_was_killed_fails_is_recorded_and_works_again() {
    let (dir, _, signing, mut desk) = fresh();
    let before = kill(&signing);
    // Until the kernel says that it ended, or after: either way nothing comes of it.
    let failed = desk.issue(vec![request(), request()]);
    for outcome in failed {
        let error = outcome.unwrap_err();
        assert_eq!(error.code().unwrap().to_string(), "MESH-0215", "{error}");
    }
    let log = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
    let count = |kind: &str| log.matches(&format!(r#""kind":"{kind}""#)).count();
    assert_eq!(
        (count("intent"), count("final"), count("failed")),
        (4, 2, 2),
        "{log}"
    );
    issues_again(&mut desk);
    assert_ne!(signing.pid().unwrap(), before);
    // And so on, for as long as it runs.
    kill(&signing);
    issues_again(&mut desk);
}

#[test]
fn a_key_that_is_another_one_after_a_restart_of_the_signer_is_not_used() {
    let (dir, world, signing, mut desk) = fresh();
    let other = tempfile::tempdir().unwrap();
    drop(crate::testing::open(other.path(), &world).unwrap());
    let path = dir.path().join("issuer.key");
    let good = std::fs::read(&path).unwrap();
    for bad in [
        std::fs::read(other.path().join("issuer.key")).unwrap(),
        b"x".to_vec(),
    ] {
        mesh_platform::files::write_atomic(&path, &bad, 0o600).unwrap();
        kill(&signing);
        for _ in 0..20 {
            assert!(desk.issue(vec![request()]).remove(0).is_err());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    mesh_platform::files::write_atomic(&path, &good, 0o600).unwrap();
    issues_again(&mut desk);
}

#[test]
fn an_issuer_is_renewed_and_a_root_replaced_through_a_signer_that_dies_meanwhile() {
    let (dir, world, signing, mut desk) = fresh();
    let first = desk.issuer().serial().to_owned();
    world.set(NOW.plus_secs(4 * DAY));
    kill(&signing);
    // It may fail; then the issuer in force goes on, and upkeep tries again.
    for _ in 0..500 {
        let _ = desk.maintain();
        if desk.issuer().serial() != first {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_ne!(desk.issuer().serial(), first);
    issues_again(&mut desk);
    let serial = desk.issuer().serial().to_owned();
    drop(desk);
    let again = Signing::start(in_process(dir.path(), &[])).unwrap();
    let desk = open_with(dir.path(), &world, &again).unwrap();
    assert_eq!(
        desk.issuer().serial(),
        serial,
        "what was renewed is on disk"
    );
}

/// Speaks to a signer by hand.
struct ByHand {
    socket: UnixStream,
    child: std::process::Child,
}

impl ByHand {
    fn start(dir: &Path) -> Self {
        Self::start_as(in_process(dir, &[]))
    }

    fn start_as(how: SignerStart) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let SignerStart::Process { program, arguments } = how else {
            panic!("no process");
        };
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut this = Self {
            socket: ours,
            child,
        };
        assert_eq!(this.answer(), Answer::Done);
        this
    }

    fn answer(&mut self) -> Answer {
        let mut head = [0; LENGTH_BYTES];
        self.socket.read_exact(&mut head).unwrap();
        let mut payload = vec![0; mesh_issuance::signing::payload_bytes(head).unwrap()];
        self.socket.read_exact(&mut payload).unwrap();
        Answer::parse(&payload).unwrap()
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        self.socket.write_all(&question.to_frame()).unwrap();
        self.answer()
    }
}

#[test]
fn a_signer_hangs_up_on_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [
        &b"\0\0\0\0"[..],
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01\x00",
        b"\0\0\0\x02\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut signer = ByHand::start(dir.path());
        signer.socket.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = signer.socket.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{bytes:?}");
        assert_eq!(signer.child.wait().unwrap().code(), Some(1), "{bytes:?}");
    }
}

#[test]
fn a_signer_refuses_keys_that_it_does_not_hold_and_files_outside_of_its_folder() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut signer = ByHand::start(dir.path());
    let Answer::Key { key, .. } = signer.ask(&Question::Make) else {
        panic!("no key");
    };
    let signed = signer.ask(&Question::Sign {
        key,
        messages: vec![b"a", b"b"],
    });
    assert!(matches!(&signed, Answer::Signatures(two) if two.iter().all(Result::is_ok)));
    let saved = dir.path().join("a.key");
    assert_eq!(
        signer.ask(&Question::Save { key, path: &saved }),
        Answer::Done
    );
    assert_eq!(signer.ask(&Question::Close { key }), Answer::Done);
    let gone = Question::Sign {
        key,
        messages: vec![b"a"],
    };
    assert!(matches!(
        signer.ask(&gone),
        Answer::Refused { code: 297, .. }
    ));
    for (path, code) in [
        (dir.path().join("absent.key"), 298),
        (dir.path().join("junk.key"), 233),
    ] {
        if code == 233 {
            mesh_platform::files::write_atomic(&path, b"junk", 0o600).unwrap();
        }
        let answer = signer.ask(&Question::Open { path: &path });
        assert!(matches!(answer, Answer::Refused { code: found, .. } if found == code));
    }
    let outside = other.path().join("outside.key");
    std::fs::copy(&saved, &outside).unwrap();
    let answer = signer.ask(&Question::Open { path: &outside });
    match mesh_platform::confine::landlock_is_there() {
        true => assert!(matches!(answer, Answer::Refused { code: 298, .. })),
        false => println!("skipped: files outside of its folder; this kernel has no Landlock"),
    }
    drop(signer.socket);
    let ended = signer.child.wait().unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(0), None));
}

#[test]
fn what_cannot_be_looked_at_is_not_said_to_be_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let signing = crate::testing::signing(dir.path()).unwrap();
    let file = dir.path().join("file");
    mesh_platform::files::write_atomic(&file, b"x", 0o600).unwrap();
    // Not "no such file", but "not a directory": what is there nobody knows.
    let hidden = file.join("issuer.key");
    for destroyed in [signing.destroy(&hidden), signing.destroy_file(&hidden)] {
        let code = destroyed.unwrap_err().code().unwrap().to_string();
        assert_eq!(code, "MESH-0298");
    }
    let store = crate::store::Store::new(&file);
    assert!(store.destroy_keys(&signing).is_err());
    let absent = dir.path().join("absent.key");
    assert_eq!(signing.destroy(&absent), Ok(()));
    assert_eq!(signing.destroy_file(&absent), Ok(()));
}

#[test]
fn a_program_that_is_no_signer_is_refused_at_the_start() {
    for (program, code) in [("/bin/true", "MESH-0296"), ("/nowhere/mesh", "MESH-0296")] {
        let start = SignerStart::Process {
            program: program.into(),
            arguments: Vec::new(),
        };
        let error = Signing::start(start).err().unwrap();
        assert_eq!(
            error.code().unwrap().to_string(),
            code,
            "{program}: {error}"
        );
    }
}

#[test]
fn a_ca_without_its_signer_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::CaConfig {
        harden: false,
        ..crate::CaConfig::new(
            &dir.path().join("ca"),
            domain(),
            &dir.path().join("api.sock"),
            SignerStart::Process {
                program: "/bin/true".into(),
                arguments: Vec::new(),
            },
            mesh_platform::System::new(),
        )
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime
        .block_on(crate::run(config, std::future::pending()))
        .unwrap_err();
    assert_eq!(error.code().unwrap().to_string(), "MESH-0296");
    assert!(!dir.path().join("ca/root.pem").exists(), "nothing was made");
}

/// What an issuance costs, by a process and by a thread; not a test of anything.
#[test]
#[ignore = "a measurement: cargo test -p mesh-ca --release -- --ignored --nocapture what_an_issuance_costs"]
#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn what_an_issuance_costs() {
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.to_owned())
            .unwrap_or_default();
        // utime and stime, the 14th and 15th field; the state is the third.
        let mut fields = after.split_whitespace().skip(11).take(2);
        let mut next = || fields.next().and_then(|word| word.parse::<u64>().ok());
        next().unwrap_or(0) + next().unwrap_or(0)
    };
    for (name, batch) in [
        ("process", 1),
        ("process", 8),
        ("process", 64),
        ("thread", 1),
        ("thread", 64),
    ] {
        let (dir, world) = (tempfile::tempdir_in("/dev/shm").unwrap(), World::at(NOW));
        let start = match name {
            "process" => in_process(dir.path(), &[]),
            _ => crate::testing::in_thread(dir.path()),
        };
        let signing = Signing::start(start).unwrap();
        let mut desk = open_with(dir.path(), &world, &signing).unwrap();
        let requests: Vec<_> = (0..8_192).map(|_| request()).collect();
        let count = requests.len();
        let other = signing.pid();
        let used = || ticks(std::process::id()) + other.map_or(0, ticks);
        let (cpu, begun) = (used(), std::time::Instant::now());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let some: Vec<_> = requests.by_ref().take(batch).collect();
            assert!(desk.issue(some).iter().all(Result::is_ok));
        }
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), (used() - cpu) as f64 / 100.0);
        println!(
            "{name}, {batch} at once: {:.0} a second by the clock, {:.0} a second and core (signer included)",
            count as f64 / wall,
            count as f64 / cpu
        );
    }
}

#[test]
fn a_pin_that_a_group_may_read_is_taken_if_it_is_roots_the_group_ours_and_somebody_said_so() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let pin = pin_file(dir.path(), "1234");
    let read = |pin_by_group: bool, mode: u32| {
        std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = TokenConfig {
            module: PathBuf::new(),
            token: "t".to_owned(),
            key: "k".to_owned(),
            pin: pin.clone(),
            pin_by_group,
            files: Vec::new(),
        };
        process::read_pin(&config).map(|pin| pin.to_string())
    };
    for by_group in [false, true] {
        assert_eq!(read(by_group, 0o600), Ok("1234".to_owned()));
    }
    let root = rustix::process::geteuid().is_root();
    assert_eq!(read(true, 0o440).is_ok(), root, "its owner is {root}");
    for (by_group, mode) in [(false, 0o440), (true, 0o444), (true, 0o460), (true, 0o450)] {
        let refused = read(by_group, mode).unwrap_err();
        assert_eq!(refused.code().unwrap().to_string(), "MESH-0228", "{mode:o}");
    }
    if root {
        // Another group than ours, and another owner than root.
        for (owner, group) in [(None, Some(1)), (Some(1), Some(0))] {
            chown(&pin, owner, group).unwrap();
            assert!(read(true, 0o440).is_err(), "{owner:?} {group:?}");
        }
    } else {
        println!("skipped: files of other owners; this test does not run as root");
    }
}

fn pin_file(dir: &Path, pin: &str) -> PathBuf {
    let path = dir.join("pin");
    mesh_platform::files::write_atomic(&path, pin.as_bytes(), 0o600).unwrap();
    path
}
