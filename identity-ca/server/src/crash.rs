//! Kill -9 and a full disk at every system call that changes files, while certificates are issued and the root is replaced
//! (faults F4, F6). Needs `strace`; without it the tests say so and pass.
//!
//! The test program runs itself under strace as a child that issues and rotates, and prints what it released. Afterwards
//! the files must know all of that, start again, and go on.

use crate::issuing::Desk;
use crate::record::{LOG_FILE, replay};
use crate::signer::Signing;
use crate::signer::link::SignerStart;
use crate::signer::tests::in_process;
use crate::testing::{NOW, World, domain, open};
use crate::trust::tests::{Verifier, finish};
use mesh_issuance::Profile;
use mesh_issuance::rotation::{Event, Phase};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

/// Where the child works; its presence makes [`child`] one.
const DIR: &str = "MESH_CRASH_DIR";
/// Whether the child rotates too.
const ROTATES: &str = "MESH_CRASH_ROTATES";
/// System calls that change files or their names. strace counts each by itself, so each is gone through by itself.
const CALLS: [&str; 14] = [
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "ftruncate",
    "fchmod",
    "chmod",
];

/// What the child prints of each certificate that it released.
const RELEASED: &str = "released ";
/// What it prints when all was done.
const DONE: &str = "all done";

#[test]
#[ignore = "run by the other tests of this module, under strace"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let world = World::at(NOW);
    let Ok(mut desk) = open(Path::new(&dir), &world) else {
        return;
    };
    let rotates = std::env::var_os(ROTATES).is_some();
    if works(&mut desk, rotates, |serial| println!("{RELEASED}{serial}")) {
        println!("{DONE}");
    }
}

/// Issues to two verifiers, and has them follow a rotation if there is to be one. Says whether all of it was done.
fn works(desk: &mut Desk, rotates: bool, mut released: impl FnMut(String)) -> bool {
    let mut verifiers = Vec::new();
    for name in ["a", "b"] {
        let Some(verifier) = Verifier::try_join(desk, name) else {
            return false;
        };
        released(verifier.serial().to_owned());
        verifiers.push(verifier);
    }
    if rotates {
        if matches!(desk.trust.state.phase, Phase::Steady { .. }) && desk.rotate().is_err() {
            return false;
        }
        desk.trust.drain_secs = 0;
        for _ in 0..12 {
            for verifier in &mut verifiers {
                if !verifier.try_follow(desk) {
                    return false;
                }
                released(verifier.serial().to_owned());
            }
            while let Ok(true) = desk.trust_event(&Event::Tick) {}
            if matches!(desk.trust.state.phase, Phase::Steady { .. }) {
                break;
            }
        }
    }
    true
}

fn strace_is_there() -> bool {
    let there = Command::new("strace")
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: strace is not installed");
    }
    there
}

fn run_child(dir: &Path, call: &str, inject: &str, rotates: bool) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", &format!("trace=?{call}")]);
    command.args(["-e", &format!("inject=?{call}:{inject}")]);
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "crash::child",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(DIR, dir.join("ca"));
    if rotates {
        command.env(ROTATES, "1");
    }
    command.output().unwrap()
}

fn released(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.split_once(RELEASED))
        .map(|(_, serial)| serial.to_owned())
        .collect()
}

/// Interrupts the child at its 1st, 2nd, … call of each kind until it gets to its end, and looks at what is left each time.
fn at_every_call(inject: &str, rotates: bool) {
    if !strace_is_there() {
        return;
    }
    let (mut points, mut serials) = (0, BTreeSet::new());
    for call in CALLS {
        // More than a rotation makes of any kind; strace that does nothing must not run for ever.
        for number in 1..1_000 {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("ca")).unwrap();
            let inject = format!("{inject}:when={number}");
            let output = run_child(dir.path(), call, &inject, rotates);
            let finished = String::from_utf8_lossy(&output.stdout).contains(DONE);
            look(
                &dir.path().join("ca"),
                &released(&output),
                &mut serials,
                &format!("{call} {number}"),
            );
            if finished && output.status.success() {
                break;
            }
            points += 1;
        }
    }
    println!("{points} calls interrupted, {} certificates", serials.len());
    assert!(
        points > 20,
        "only {points} calls were interrupted: strace saw nothing"
    );
}

/// What must hold of the files in `ca` wherever the child was interrupted.
fn look(ca: &Path, released: &[String], serials: &mut BTreeSet<String>, at: &str) {
    let log = std::fs::read_to_string(ca.join(LOG_FILE)).unwrap_or_default();
    for serial in released {
        for kind in ["intent", "final"] {
            let kind = format!(r#""kind":"{kind}""#);
            let recorded = log
                .lines()
                .any(|line| line.contains(&kind) && line.contains(serial));
            assert!(recorded, "{at}: {serial} was released without {kind}");
        }
        assert!(
            serials.insert(serial.clone()),
            "{at}: serial {serial} was used twice"
        );
    }
    replay(&ca.join(LOG_FILE)).unwrap_or_else(|error| panic!("{at}: {error}"));
    let mut desk = open(ca, &World::at(NOW))
        .unwrap_or_else(|error| panic!("{at}: it does not start: {error}"));
    let mut verifiers = ["x"].map(|name| Verifier::join(&mut desk, name));
    for gone in ["a", "b"] {
        desk.trust.roster.ended(&Verifier::holder_of(gone));
    }
    if matches!(desk.trust.state.phase, Phase::Steady { .. }) {
        desk.rotate()
            .unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    finish(&mut desk, &mut verifiers);
}

/// The same, with the signer a process of its own: that one is killed at each of its calls, as often as it is started
/// again, and the CA lives.
#[test]
fn a_signer_that_is_killed_at_any_of_its_calls_leaves_files_that_a_ca_starts_with() {
    if !strace_is_there() {
        return;
    }
    let (mut points, mut serials) = (0, BTreeSet::new());
    for call in CALLS {
        for number in 1..1_000 {
            let dir = tempfile::tempdir().unwrap();
            let ca = dir.path().join("ca");
            std::fs::create_dir(&ca).unwrap();
            let at = format!("signer, {call} {number}");
            let (mut released, mut unharmed) = (Vec::new(), false);
            let traced = traced(&ca, call, number);
            if let Ok(signing) = Signing::start(traced) {
                let profile = Profile::leaf(86_400).unwrap();
                let with = (&signing, None, None);
                let opened = Desk::open_with(&ca, &domain(), profile, World::at(NOW), with);
                if let Ok(mut desk) = opened {
                    let done = works(&mut desk, true, |serial| released.push(serial));
                    unharmed = done && signing.lives() == 1;
                }
            }
            look(&ca, &released, &mut serials, &at);
            if unharmed {
                break;
            }
            points += 1;
        }
    }
    println!("{points} calls interrupted");
    assert!(points > 10, "only {points}: strace saw nothing");
}

/// A signer that is killed at its `number`th `call`.
fn traced(ca: &Path, call: &str, number: u32) -> SignerStart {
    let SignerStart::Process { program, arguments } = in_process(ca, &[]) else {
        panic!("no process");
    };
    let inject = format!("inject=?{call}:signal=KILL:when={number}");
    let strace = [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace=?{call}"),
        "-e",
        &inject,
    ]
    .map(Into::into);
    SignerStart::Process {
        program: "/usr/bin/strace".into(),
        arguments: strace
            .into_iter()
            .chain([program.into()])
            .chain(arguments)
            .collect(),
    }
}

#[test]
fn a_kill_at_any_call_of_an_issuance_leaves_no_unrecorded_certificate_and_a_ca_that_starts() {
    at_every_call("signal=KILL", false);
}

#[test]
fn a_kill_at_any_call_of_a_rotation_leaves_a_rotation_that_can_be_finished() {
    at_every_call("signal=KILL", true);
}

#[test]
fn a_disk_that_is_full_for_one_call_of_an_issuance_leaves_no_unrecorded_certificate() {
    at_every_call("error=ENOSPC", false);
}
