//! Files that are missing, damaged, swapped, too open or half moved: refused with their name and left as they are.

use super::*;
use crate::testing::{DAY, NOW, World, domain, open};
use crate::trust::file::STATE_FILE;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

fn fresh() -> (tempfile::TempDir, Arc<World>) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    open(dir.path(), &world).unwrap();
    (dir, world)
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .filter(|file| file.path().is_file())
        .map(|file| {
            (
                file.file_name().into_string().unwrap(),
                fs::read(file.path()).unwrap(),
            )
        })
        .collect()
}

fn refused(dir: &Path, world: &Arc<World>) -> CaError {
    let before = contents(dir);
    let error = open(dir, world).err().expect("refused");
    assert_eq!(contents(dir), before, "the files were touched: {error}");
    error
}

#[test]
fn the_first_start_makes_files_that_only_we_can_read() {
    let (dir, _) = fresh();
    for name in FILES.into_iter().chain([LOG_FILE, STATE_FILE]) {
        let mode = fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(
        contents(dir.path()).len(),
        FILES.len() + 2,
        "nothing is left over"
    );
}

#[test]
fn a_restart_keeps_root_and_issuer() {
    let (dir, world) = fresh();
    let before = contents(dir.path());
    for _ in 0..3 {
        drop(open(dir.path(), &world).unwrap());
    }
    let after = contents(dir.path());
    for name in FILES {
        assert_eq!(before[name], after[name], "{name}");
    }
}

#[test]
fn another_trust_domain_is_refused_and_named() {
    let (dir, world) = fresh();
    let other = TrustDomain::parse("other.example").unwrap();
    let profile = mesh_issuance::Profile::leaf(60).unwrap();
    let error = crate::issuing::Desk::open(dir.path(), &other, profile, world)
        .err()
        .unwrap();
    assert!(
        matches!(&error, CaError::OtherDomain { found, .. } if *found == domain()),
        "{error}"
    );
}

#[test]
fn nothing_is_made_anew_in_the_place_of_a_missing_file() {
    for name in FILES {
        let (dir, world) = fresh();
        fs::remove_file(dir.path().join(name)).unwrap();
        let error = refused(dir.path(), &world);
        assert!(
            matches!(&error, CaError::Incomplete { path, .. } if path.ends_with(name)),
            "{name}: {error}"
        );
    }
    let (dir, world) = fresh();
    fs::remove_file(dir.path().join(LOG_FILE)).unwrap();
    assert!(matches!(
        refused(dir.path(), &world),
        CaError::LogMissing { .. }
    ));
    overwrite(&dir.path().join(LOG_FILE), b"");
    assert!(matches!(
        refused(dir.path(), &world),
        CaError::LogMissing { .. }
    ));
}

#[test]
fn a_log_that_knows_leaves_forbids_a_new_root() {
    let (dir, world) = fresh();
    let mut desk = open(dir.path(), &world).unwrap();
    desk.issue(vec![crate::testing::request()])
        .remove(0)
        .unwrap();
    drop(desk);
    for name in FILES {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert!(matches!(
        refused(dir.path(), &world),
        CaError::Incomplete { .. }
    ));
}

#[test]
fn files_that_others_could_use_are_refused_with_the_command_that_mends_them() {
    for name in FILES.into_iter().chain([LOG_FILE]) {
        for mode in [0o640, 0o604, 0o620, 0o666] {
            let (dir, world) = fresh();
            let path = dir.path().join(name);
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = refused(dir.path(), &world);
            assert!(matches!(error, CaError::Mode { .. }), "{name}: {error}");
            let help = miette::Diagnostic::help(&error).unwrap().to_string();
            assert!(
                help.contains(&format!("chmod 600 {}", path.display())),
                "{help}"
            );
        }
    }
}

#[test]
fn every_flipped_octet_of_every_file_is_found_and_left_in_place() {
    let (dir, world) = fresh();
    for name in FILES.into_iter().chain([LOG_FILE]) {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(if name == LOG_FILE { 7 } else { 1 }) {
            let mut changed = good.clone();
            changed[at] ^= 1 << (at % 7);
            overwrite(&path, &changed);
            let error = refused(dir.path(), &world);
            assert!(
                miette::Diagnostic::code(&error).is_some(),
                "{name}, octet {at}: {error}"
            );
        }
        overwrite(&path, &good);
    }
    open(dir.path(), &world).unwrap();
}

#[test]
fn empty_truncated_and_foreign_content_is_refused() {
    let (dir, world) = fresh();
    for name in FILES {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        let junk = [
            &good[..0],
            &good[..good.len() / 2],
            &good[..good.len() - 1],
            b"\0\0\0\0",
            &[&good[..], b"\n"].concat(),
            &vec![b'x'; 100_000],
        ]
        .map(<[u8]>::to_vec);
        for bytes in junk {
            overwrite(&path, &bytes);
            refused(dir.path(), &world);
        }
        overwrite(&path, &good);
    }
    open(dir.path(), &world).unwrap();
}

#[test]
fn keys_and_certificates_of_two_cas_do_not_mix() {
    let (ours, world) = fresh();
    let (theirs, _) = fresh();
    let mut seen = Vec::new();
    for name in ["root.key", "root.pem", "issuer.key", "issuer.pem"] {
        let path = ours.path().join(name);
        let good = fs::read(&path).unwrap();
        overwrite(&path, &fs::read(theirs.path().join(name)).unwrap());
        seen.push(
            miette::Diagnostic::code(&refused(ours.path(), &world))
                .unwrap()
                .to_string(),
        );
        overwrite(&path, &good);
    }
    assert_eq!(seen, ["MESH-0234", "MESH-0235", "MESH-0234", "MESH-0235"]);
    let path = ours.path().join("issuer.pem");
    overwrite(&path, &fs::read(ours.path().join("root.pem")).unwrap());
    assert!(
        matches!(refused(ours.path(), &world), CaError::Corrupt { .. }),
        "a root in the issuer's place"
    );
}

#[test]
fn a_file_that_is_a_link_is_refused() {
    let (dir, world) = fresh();
    let (path, elsewhere) = (dir.path().join("root.key"), dir.path().join("elsewhere"));
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    refused(dir.path(), &world);
}

#[test]
fn a_first_start_cut_off_before_its_end_begins_again() {
    // What the staging directory holds at each moment before its last file.
    for count in 0..FILES.len() {
        let (dir, world) = fresh();
        let staging = dir.path().join(FIRST_START);
        fs::remove_file(dir.path().join(STATE_FILE)).unwrap();
        let before = contents(dir.path());
        fs::create_dir(&staging).unwrap();
        for name in &FILES[..count] {
            fs::rename(dir.path().join(name), staging.join(name)).unwrap();
        }
        for name in &FILES[count..] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        open(dir.path(), &world).unwrap();
        assert_ne!(before["root.key"], contents(dir.path())["root.key"]);
        assert!(!staging.exists());
    }
}

#[test]
fn a_first_start_cut_off_while_moving_is_completed() {
    for moved in 0..=FILES.len() {
        let (dir, world) = fresh();
        let before = contents(dir.path());
        let staging = dir.path().join(FIRST_START);
        fs::create_dir(&staging).unwrap();
        // The last file moves last, so until then it is in the staging directory.
        for name in &FILES[moved.min(FILES.len() - 1)..] {
            fs::rename(dir.path().join(name), staging.join(name)).unwrap();
        }
        open(dir.path(), &world).unwrap();
        let after = contents(dir.path());
        for name in FILES {
            assert_eq!(before[name], after[name], "{moved} moved: {name}");
        }
    }
}

#[test]
fn an_unfinished_first_start_never_replaces_finished_files() {
    let (dir, world) = fresh();
    let (other, _) = fresh();
    let staging = dir.path().join(FIRST_START);
    fs::create_dir(&staging).unwrap();
    for name in FILES {
        fs::copy(other.path().join(name), staging.join(name)).unwrap();
    }
    assert!(matches!(
        refused(dir.path(), &world),
        CaError::Corrupt { .. }
    ));
}

#[test]
fn an_issuers_renewal_cut_off_anywhere_leaves_the_old_or_the_new_one() {
    let (dir, world) = fresh();
    let old = contents(dir.path());
    world.set(NOW.plus_secs(4 * DAY));
    drop(open(dir.path(), &world).unwrap());
    let new = contents(dir.path());
    assert_ne!(old["issuer.key"], new["issuer.key"]);
    // The clock of the restart: the old issuer is not due, so what is found is what was left.
    world.set(NOW.plus_secs(3 * DAY));
    type State<'a> = (&'a str, &'a [(&'a str, &'a [u8])], &'a str);
    let states: [State<'_>; 4] = [
        (
            "before",
            &[
                ("issuer.key", &old["issuer.key"]),
                ("issuer.pem", &old["issuer.pem"]),
            ],
            "old",
        ),
        (
            "certificate written",
            &[
                ("issuer.key", &old["issuer.key"]),
                ("issuer.pem", &old["issuer.pem"]),
                ("issuer.next.pem", &new["issuer.pem"]),
            ],
            "old",
        ),
        (
            "both written",
            &[
                ("issuer.key", &old["issuer.key"]),
                ("issuer.pem", &old["issuer.pem"]),
                ("issuer.next.pem", &new["issuer.pem"]),
                ("issuer.next.key", &new["issuer.key"]),
            ],
            "old",
        ),
        (
            "key moved",
            &[
                ("issuer.key", &new["issuer.key"]),
                ("issuer.pem", &old["issuer.pem"]),
                ("issuer.next.pem", &new["issuer.pem"]),
            ],
            "new",
        ),
    ];
    for (moment, files, want) in states {
        for (name, bytes) in files {
            overwrite(&dir.path().join(name), bytes);
        }
        world.set(if want == "new" {
            NOW.plus_secs(4 * DAY)
        } else {
            NOW.plus_secs(3 * DAY)
        });
        drop(open(dir.path(), &world).unwrap_or_else(|error| panic!("{moment}: {error}")));
        let found = contents(dir.path());
        let wanted = if want == "new" { &new } else { &old };
        assert_eq!(found["issuer.key"], wanted["issuer.key"], "{moment}");
        assert_eq!(found["issuer.pem"], wanted["issuer.pem"], "{moment}");
        assert!(
            !found.contains_key("issuer.next.pem") && !found.contains_key("issuer.next.key"),
            "{moment}"
        );
    }
}

#[test]
fn a_status_is_read_without_touching_anything() {
    let (dir, _) = fresh();
    let before = contents(dir.path());
    let status = crate::inspect(dir.path());
    assert_eq!(status.problems, []);
    assert_eq!(status.trust_domain, Some(domain()));
    assert!(
        status
            .root
            .unwrap()
            .pem
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    assert_eq!(
        status.log.unwrap().lines,
        6,
        "a start, intent and final of root and issuer, the first state of trust"
    );
    overwrite(&dir.path().join("root.pem"), b"x");
    let status = crate::inspect(dir.path());
    assert_eq!(status.problems.len(), 1);
    assert_eq!(status.problems[0].code, "MESH-0233");
    overwrite(&dir.path().join("root.pem"), &before["root.pem"]);
    assert_eq!(contents(dir.path()), before);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(crate::inspect(empty.path()).problems.len(), 2);
}
