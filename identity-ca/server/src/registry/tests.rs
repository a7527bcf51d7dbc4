//! Who is who, and above all who is not.

use super::*;
use crate::testing::{domain, id};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn sleeper() -> Child {
    Command::new("sleep")
        .arg("60")
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A shell whose child sleeps; also says the child's pid.
fn parent_and_child() -> (Child, u32) {
    use std::io::BufRead;
    let mut shell = Command::new("sh")
        .args(["-c", "sleep 60 >/dev/null & echo $!; wait"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(shell.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (shell, line.trim().parse().unwrap())
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn peer(pid: u32) -> PeerProcess {
    PeerProcess {
        pid,
        uid: uid(),
        gid: 0,
        pidfd: PidFd::open(pid).ok(),
    }
}

fn launched(pid: u32, path: &str) -> Launched {
    Launched {
        pid,
        start_time_ticks: process::start_time_ticks(pid).unwrap(),
        uid: uid(),
        executable: None,
        descendants: false,
        identity: id(path),
        workload: "shop/cart".into(),
    }
}

fn registry() -> Registry {
    Registry::new(Vec::new(), &domain()).unwrap()
}

fn identities(registry: &Registry, peer: &PeerProcess) -> Vec<String> {
    registry
        .entitlements(peer)
        .into_iter()
        .map(|found| found.identity.path().to_owned())
        .collect()
}

#[tokio::test]
async fn a_launched_process_has_its_identity_until_it_ends() {
    let (registry, child) = (registry(), sleeper());
    let (pid, held) = (child.id(), peer(child.id()));
    assert!(
        identities(&registry, &held).is_empty(),
        "not yet registered"
    );
    let mut changes = registry.changes();
    registry.register(launched(pid, "ns/shop/sa/cart")).unwrap();
    registry.register(launched(pid, "ns/shop/sa/cart")).unwrap();
    assert_eq!(identities(&registry, &held), ["/ns/shop/sa/cart"]);
    assert!(
        identities(&registry, &peer(std::process::id())).is_empty(),
        "its parent is somebody else"
    );
    changes.mark_unchanged();
    end(child);
    assert!(identities(&registry, &held).is_empty());
    tokio::time::timeout(Duration::from_secs(5), changes.changed())
        .await
        .expect("the record goes by itself")
        .unwrap();
    assert!(registry.lock().is_empty());
}

#[tokio::test]
async fn a_record_of_another_start_user_or_program_gives_nothing() {
    let (registry, child) = (registry(), sleeper());
    let (pid, held) = (child.id(), peer(child.id()));
    let honest = launched(pid, "ns/shop/sa/cart");
    let wrong_start = Launched {
        start_time_ticks: honest.start_time_ticks + 1,
        ..honest.clone()
    };
    assert!(matches!(
        registry.register(wrong_start),
        Err(LaunchError::NoProcess { .. })
    ));
    assert!(matches!(
        registry.register(Launched {
            start_time_ticks: 0,
            ..honest.clone()
        }),
        Err(LaunchError::NoProcess { .. })
    ));
    registry
        .register(Launched {
            uid: uid() + 1,
            ..honest.clone()
        })
        .unwrap();
    assert!(identities(&registry, &held).is_empty(), "another user");
    registry
        .register(Launched {
            executable: Some("/bin/false".into()),
            ..honest.clone()
        })
        .unwrap();
    assert!(identities(&registry, &held).is_empty(), "another program");
    registry
        .register(Launched {
            executable: process::executable(pid),
            ..honest.clone()
        })
        .unwrap();
    assert_eq!(identities(&registry, &held), ["/ns/shop/sa/cart"]);
    registry.remove(pid, Some(honest.start_time_ticks + 1));
    assert_eq!(
        identities(&registry, &held).len(),
        1,
        "the record of an earlier process with this pid is not this one"
    );
    registry.remove(pid, None);
    assert!(identities(&registry, &held).is_empty());
    end(child);
    assert!(
        matches!(
            registry.register(honest),
            Err(LaunchError::NoProcess { .. })
        ),
        "a process that is gone"
    );
}

#[tokio::test]
async fn descendants_inherit_only_where_the_record_says_so() {
    let (shell, child) = parent_and_child();
    let registry = registry();
    registry
        .register(launched(shell.id(), "ns/shop/sa/cart"))
        .unwrap();
    assert!(identities(&registry, &peer(child)).is_empty());
    registry
        .register(Launched {
            descendants: true,
            ..launched(shell.id(), "ns/shop/sa/cart")
        })
        .unwrap();
    assert_eq!(identities(&registry, &peer(child)), ["/ns/shop/sa/cart"]);
    registry
        .register(launched(child, "ns/shop/sa/helper"))
        .unwrap();
    assert_eq!(
        identities(&registry, &peer(child)),
        ["/ns/shop/sa/helper"],
        "the nearest record decides"
    );
    registry
        .register(Launched {
            executable: Some("/bin/false".into()),
            ..launched(child, "ns/shop/sa/helper")
        })
        .unwrap();
    assert!(
        identities(&registry, &peer(child)).is_empty(),
        "and it decides alone, also to refuse"
    );
    registry.remove(child, None);
    let orphan = peer(child);
    end(shell);
    assert!(
        identities(&registry, &orphan).is_empty(),
        "an orphan has lost its ancestor"
    );
    PidFd::open(child).unwrap().kill().unwrap();
}

#[tokio::test]
async fn a_connection_without_pidfd_is_nobody() {
    let (registry, child) = (registry(), sleeper());
    registry
        .register(launched(child.id(), "ns/shop/sa/cart"))
        .unwrap();
    assert!(
        identities(
            &registry,
            &PeerProcess {
                pidfd: None,
                ..peer(child.id())
            }
        )
        .is_empty()
    );
    end(child);
}

#[test]
fn registrations_name_a_user_a_program_or_both() {
    let child = sleeper();
    let program = process::executable(child.id());
    // Between fork and exec the child is still this program.
    let program = if program == std::env::current_exe().ok() {
        std::thread::sleep(Duration::from_millis(200));
        process::executable(child.id())
    } else {
        program
    };
    let with = |uid, executable| {
        vec![Registration {
            uid,
            executable,
            unit: None,
            identity: id("ns/shop/sa/cart"),
        }]
    };
    for (registrations, count) in [
        (with(Some(uid()), None), 1),
        (with(Some(uid() + 1), None), 0),
        (with(None, program.clone()), 1),
        (with(Some(uid()), program.clone()), 1),
        (with(Some(uid() + 1), program.clone()), 0),
        (with(Some(uid()), Some("/bin/false".into())), 0),
        ([with(Some(uid()), None), with(None, program)].concat(), 1),
    ] {
        let registry = Registry::new(registrations.clone(), &domain()).unwrap();
        assert_eq!(
            identities(&registry, &peer(child.id())).len(),
            count,
            "{registrations:?}"
        );
    }
    end(child);
}

#[test]
fn registrations_that_match_everybody_or_nobody_are_refused() {
    let other = SpiffeId::parse("spiffe://other.example/ns/a/sa/b").unwrap();
    for (uid, executable, identity) in [
        (None, None, id("ns/a/sa/b")),
        (None, Some(PathBuf::from("app")), id("ns/a/sa/b")),
        (Some(0), None, other),
        (Some(0), None, domain().id()),
    ] {
        let error = Registry::new(
            vec![Registration {
                uid,
                executable,
                unit: None,
                identity,
            }],
            &domain(),
        )
        .unwrap_err();
        assert!(matches!(error, CaError::Registration { .. }), "{error}");
    }
}

#[test]
fn a_unit_must_be_a_service_and_a_process_outside_of_it_is_nobody() {
    let of_unit = |unit: &str| {
        let registration = Registration {
            uid: Some(rustix::process::geteuid().as_raw()),
            executable: None,
            unit: Some(unit.to_owned()),
            identity: id("ns/shop/sa/cart"),
        };
        Registry::new(vec![registration], &domain())
    };
    for bad in ["", "cart", "cart.socket", "cart.scope"] {
        assert!(
            matches!(of_unit(bad), Err(CaError::Registration { .. })),
            "{bad}"
        );
    }
    let registry = of_unit("no-such-unit-of-a-test.service").unwrap();
    let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
    let peer = mesh_platform::process::peer_of(&one).unwrap();
    assert_eq!(
        registry.entitlements(&peer),
        [],
        "the right user in another unit"
    );
}
