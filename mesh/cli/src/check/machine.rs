//! Checks of what is on the disk and in the process table: nothing here needs the mesh to answer.

use super::item::Item;
use crate::audit;
use crate::live::Live;
use crate::output::duration;
use mesh_platform::{Platform, System, files, process};
use mesh_trust::Timestamp;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Shares of a certificate's life: below a tenth, renewal has failed for long.
const LIFE_PARTS: u64 = 10;
/// Longest file that is looked at for a key; logs are longer.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Everything that can be seen without asking anybody.
pub(super) fn check(live: &Live) -> Vec<Item> {
    let mut items = vec![state_dir(live), supervisor(live)];
    items.extend(processes(live));
    items.extend(authority(&live.running.ca.dir, System::new().wall_clock()));
    items.push(workload_api(&live.running.ca.workload_api));
    items
}

fn state_dir(live: &Live) -> Item {
    const CATEGORY: &str = "state directory";
    let path = live.state.display();
    match mode(&live.state) {
        Some(mode) if mode & 0o077 == 0 => {
            Item::ok(CATEGORY, format!("{path} belongs to its owner alone"))
        }
        Some(mode) => Item::broken(
            CATEGORY,
            "MESH-0620",
            format!("{path} is open to others (mode {mode:04o}): they can reach keys and sockets"),
            format!("chmod 0700 {path}"),
        ),
        None => Item::broken(
            CATEGORY,
            "MESH-0620",
            format!("{path} cannot be looked at"),
            format!("ls -ld {path}"),
        ),
    }
}

fn supervisor(live: &Live) -> Item {
    const CATEGORY: &str = "processes";
    let pid = live.running.pid;
    if live.supervisor_is_alive() {
        return Item::ok(CATEGORY, format!("supervisor runs as process {pid}"));
    }
    let fix = format!("mesh up --state {}", live.state.display());
    Item::broken(
        CATEGORY,
        "MESH-0621",
        format!("supervisor, process {pid}, is gone"),
        fix,
    )
}

fn processes(live: &Live) -> Vec<Item> {
    const CATEGORY: &str = "processes";
    let running = &live.running;
    let mut parts = vec![
        ("ca".to_owned(), running.ca.pid),
        ("controller".to_owned(), running.controller.pid),
    ];
    for workload in &running.workloads {
        let name = format!("{}/{}", workload.namespace, workload.name);
        if let Some(proxy) = &workload.proxy {
            parts.push((format!("proxy {name}"), proxy.pid));
        }
        parts.push((format!("app {name}"), workload.app_pid));
    }
    let log = |part: &str| {
        live.state
            .join("log")
            .join(format!("{}.log", part.replace('/', ".")))
    };
    let items = parts.into_iter().map(|(part, pid)| {
        if pid != 0 && process::start_time_ticks(pid).is_some() {
            return Item::ok(CATEGORY, format!("{part} runs as process {pid}"));
        }
        let fix = format!("tail -n 20 {}", log(&part).display());
        Item::broken(CATEGORY, "MESH-0621", format!("{part} does not run"), fix)
    });
    items.collect()
}

/// Keys must be their owner's alone, certificates must live, and the issuance log must be whole.
fn authority(folder: &Path, now: Timestamp) -> Vec<Item> {
    const CATEGORY: &str = "certificate authority";
    let status = mesh_ca::inspect(folder);
    let problems = status.problems.iter().map(|problem| {
        let fix = problem
            .hint
            .clone()
            .unwrap_or_else(|| format!("mesh explain {}", problem.code));
        Item::broken(CATEGORY, &problem.code, problem.message.clone(), fix)
    });
    let mut items: Vec<Item> = problems.collect();
    for (kind, authority) in [("root", status.root), ("issuer", status.issuer)] {
        let Some(authority) = authority else { continue };
        let says = format!("{kind} `{}`", authority.subject);
        items.push(life(
            CATEGORY,
            &says,
            authority.not_before,
            authority.not_after,
            now,
        ));
    }
    if let Some(log) = status.log {
        items.push(Item::ok(
            CATEGORY,
            format!(
                "issuance log is whole: {} lines, {} SVIDs",
                log.lines, log.leaves
            ),
        ));
    }
    items.extend(keys(folder));
    items
}

/// Files of the CA that hold keys: by name, or by what stands in them.
fn keys(folder: &Path) -> Vec<Item> {
    const CATEGORY: &str = "certificate authority";
    let mut items = Vec::new();
    for file in files_below(folder) {
        let name = file.display().to_string();
        let bytes = files::read_limited(&file, KEY_BYTES_MAX).unwrap_or_default();
        match mode(&file) {
            _ if !holds_key(&file, &bytes) => {}
            Some(mode) if mode & 0o077 == 0 => {
                items.push(Item::ok(
                    CATEGORY,
                    format!("key {name} belongs to its owner alone"),
                ));
            }
            mode => {
                let mode = mode.map_or_else(|| "unknown".to_owned(), |mode| format!("{mode:04o}"));
                let says = format!("key {name} is open to others (mode {mode})");
                items.push(Item::broken(
                    CATEGORY,
                    "MESH-0622",
                    says,
                    format!("chmod 0600 {name}"),
                ));
            }
        }
    }
    if items.is_empty() {
        let says = format!("there is no key in {}", folder.display());
        items.push(Item::broken(
            CATEGORY,
            "MESH-0622",
            says,
            format!("ls -l {}", folder.display()),
        ));
    }
    items
}

/// Whether a certificate lives, and for long enough.
pub(super) fn life(
    category: &'static str,
    says: &str,
    from: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Item {
    let remaining = now.secs_until(until);
    let whole = from.secs_until(until);
    let fix = "tail -n 20 .mesh/log/ca.log; the CA renews what it signs, `mesh up` starts it again";
    if remaining == 0 {
        Item::broken(
            category,
            "MESH-0623",
            format!("{says} has expired at {until}"),
            fix,
        )
    } else if remaining < whole / LIFE_PARTS {
        Item::doubtful(
            category,
            "MESH-0623",
            format!("{says} ends in {}", duration(remaining)),
            fix,
        )
    } else {
        Item::ok(category, format!("{says}, {} left", duration(remaining)))
    }
}

fn workload_api(socket: &Path) -> Item {
    const CATEGORY: &str = "workload API";
    let name = socket.display();
    let fix = "tail -n 20 .mesh/log/ca.log";
    let broken = |says: String| Item::broken(CATEGORY, "MESH-0624", says, fix);
    match std::fs::symlink_metadata(socket) {
        Err(error) => broken(format!("{name}: {error}")),
        Ok(found) if !found.file_type().is_socket() => broken(format!("{name} is no socket")),
        Ok(_) => match std::os::unix::net::UnixStream::connect(socket) {
            Ok(_) => Item::ok(CATEGORY, format!("{name} answers")),
            Err(error) => broken(format!("{name} does not answer: {error}")),
        },
    }
}

/// The decision logs, each proved as far as it is sealed.
pub(super) fn check_logs(live: &Live) -> Vec<Item> {
    const CATEGORY: &str = "decision logs";
    let logs = audit::logs_in(&live.state.join("audit")).unwrap_or_default();
    if logs.is_empty() {
        return vec![Item::ok(CATEGORY, "none written yet")];
    }
    let items = logs.iter().map(|log| {
        let report = audit::report(log, None, None);
        let name = log.display();
        match report.error {
            Some(error) => Item::broken(
                CATEGORY,
                &error.code,
                format!("{name}: {}", error.message),
                format!("mesh audit verify {name}"),
            ),
            None => Item::ok(
                CATEGORY,
                format!("{name}: {} lines proved", report.lines.unwrap_or_default()),
            ),
        }
    });
    items.collect()
}

fn mode(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o7777)
}

/// Whether a file is a private key, by name or by what stands in it.
fn holds_key(file: &Path, bytes: &[u8]) -> bool {
    let named = file
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.contains("key") && !name.ends_with(".pub"));
    named || bytes.windows(11).any(|window| window == b"PRIVATE KEY")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::super::item::Status;
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    fn a_key_that_others_can_read_is_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("root.key");
        std::fs::write(&key, "x").expect("a file");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        let items = keys(folder.path());
        assert!(
            items
                .iter()
                .any(|item| item.status == Status::Broken && item.says.contains("open to others")),
            "{items:?}"
        );
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        assert!(
            keys(folder.path())
                .iter()
                .all(|item| item.status == Status::Ok)
        );
    }

    #[test]
    fn a_folder_without_an_authority_is_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(
            authority(folder.path(), Timestamp::from_unix_secs(0))
                .iter()
                .all(|item| item.status == Status::Broken)
        );
    }

    #[test]
    fn the_end_of_a_certificate_comes_with_a_warning_before() {
        let at = Timestamp::from_unix_secs;
        for (now, want) in [
            (0, Status::Ok),
            (899, Status::Ok),
            (950, Status::Doubtful),
            (1_000, Status::Broken),
        ] {
            assert_eq!(
                life("c", "x", at(0), at(1_000), at(now)).status,
                want,
                "{now}"
            );
        }
    }
}
