//! Which systemd unit a process belongs to, as the kernel and the unit files say it; nobody is asked over D-Bus.
//!
//! The system manager puts each service into a control group of its own, `/system.slice/cart.service`, that only root can
//! create or enter. What lies below `user.slice` is made by users' own managers, who may name a unit anything: such
//! groups are never units here. A unit that root made up while the machine runs (`systemd-run`) has no file in a system
//! directory, and does not count either.

use crate::files;
use std::path::Path;

/// Bytes of `/proc/PID/cgroup`.
const CGROUP_BYTES_MAX: u64 = 16 * 1024;

/// Folders of unit files that only the administrator and packages write (systemd.unit(5)), the first one winning.
const UNIT_DIRS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Folders of units that were made up at run time, which hide those of [`UNIT_DIRS`].
const TRANSIENT_DIRS: [&str; 3] = [
    "/run/systemd/transient",
    "/run/systemd/system.control",
    "/run/systemd/system",
];

/// The service unit of process `pid`; none if it is in none of the system manager's.
///
/// True of the process that had the pid when it was read: compare its start time, or hold a
/// [`crate::process::PidFd`] that is alive afterwards.
pub fn unit_of(pid: u32) -> Option<String> {
    let path = format!("/proc/{pid}/cgroup");
    let text = files::read_limited(Path::new(&path), CGROUP_BYTES_MAX).ok()?;
    let unit = unit_in(std::str::from_utf8(&text).ok()?)?;
    is_of_the_system(unit, |path| Path::new(path).exists()).then(|| unit.to_owned())
}

/// The service that `/proc/PID/cgroup` names, if the unified hierarchy does.
fn unit_in(cgroup: &str) -> Option<&str> {
    // With the unified hierarchy alone there is one line; beside others it is the one without controllers.
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    for group in path.split('/') {
        if group == "user.slice" {
            return None;
        }
        if group.ends_with(".slice") {
            continue;
        }
        // The first group that is no slice is the unit; below it the service itself may make groups.
        let name = group.strip_suffix(".service")?;
        return is_unit_name(name).then_some(group);
    }
    None
}

/// Letters of a unit's name (systemd.unit(5)); what else stands there cannot be a file name of one.
fn is_unit_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    !name.is_empty() && name.len() <= 248 && name.bytes().all(allowed)
}

fn is_of_the_system(unit: &str, exists: impl Fn(&str) -> bool) -> bool {
    // `cart@7.service` comes from the file `cart@.service`.
    let template = unit
        .split_once('@')
        .map(|(name, _)| format!("{name}@.service"));
    let in_any =
        |dirs: &[&str], name: &str| dirs.iter().any(|dir| exists(&format!("{dir}/{name}")));
    let names: Vec<&str> = [Some(unit), template.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let transient = names.iter().any(|name| in_any(&TRANSIENT_DIRS, name));
    !transient && names.iter().any(|name| in_any(&UNIT_DIRS, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_first_group_below_system_slices() {
        for (cgroup, unit) in [
            ("0::/system.slice/cart.service\n", Some("cart.service")),
            (
                "0::/system.slice/cart.service/worker/7\n",
                Some("cart.service"),
            ),
            (
                "0::/system.slice/cart.service/web.service\n",
                Some("cart.service"),
            ),
            (
                "0::/system.slice/system-cart.slice/cart@7.service\n",
                Some("cart@7.service"),
            ),
            (
                "0::/shop.slice/shop-eu.slice/cart.service\n",
                Some("cart.service"),
            ),
            ("0::/cart.service\n", Some("cart.service")),
            (
                "12:cpu:/x.service\n1:name=systemd:/y.service\n0::/system.slice/z.service\n",
                Some("z.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/cart.service\n",
                None,
            ),
            ("0::/system.slice/user.slice/cart.service\n", None),
            ("0::/init.scope\n", None),
            ("0::/system.slice/docker-0123.scope/cart.service\n", None),
            ("0::/system.slice\n", None),
            ("0::/kubepods/cart.service\n", None),
            ("0::/system.slice/.service\n", None),
            ("0::/system.slice/a b.service\n", None),
            ("0::/\n", None),
            ("1:name=systemd:/system.slice/cart.service\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(cgroup), unit, "{cgroup}");
        }
    }

    #[test]
    fn only_units_with_a_file_in_a_system_directory_count() {
        let world = |files: &'static [&'static str]| move |path: &str| files.contains(&path);
        let etc = &["/etc/systemd/system/cart.service"];
        assert!(is_of_the_system("cart.service", world(etc)));
        assert!(!is_of_the_system("web.service", world(etc)));
        let template = &["/usr/lib/systemd/system/cart@.service"];
        assert!(is_of_the_system("cart@7.service", world(template)));
        assert!(!is_of_the_system("cart.service", world(template)));
        let made_up = &[
            "/usr/lib/systemd/system/cart.service",
            "/run/systemd/transient/cart.service",
        ];
        assert!(
            !is_of_the_system("cart.service", world(made_up)),
            "the file is hidden"
        );
        let home = &["/home/eve/.config/systemd/user/cart.service"];
        assert!(!is_of_the_system("cart.service", world(home)));
    }

    #[test]
    fn a_process_that_is_gone_has_no_unit() {
        assert_eq!(unit_of(u32::MAX), None);
    }
}
