//! A network namespace of this process's own, closed to the world: nothing leaves it but what somebody outside carries.
//!
//! With root it is only that; without, a user namespace comes with it, in which this user has the capabilities that
//! [`open_ways`] needs. They end with the next `execve(2)`. [`within`] does one thing in a namespace that others made.

use crate::PlatformError;
use crate::netlink::{Attributes, CREATE, EXCLUSIVE, Family, Message, Netlink};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{getgid, getuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `RTM_NEWLINK`, `RTM_NEWADDR`, `RTM_NEWROUTE` (rtnetlink(7)).
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// Attributes of a link: its name, its kind.
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
/// Attributes of an address: of the other end, and its own.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// Attribute of a route: the link.
const OUT_LINK: u16 = 4;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFA_F_NODAD`: an address of IPv6 may be used at once.
const NO_DETECTION: u8 = 2;

/// The link along which everything would leave.
const WAY_OUT: &str = "mesh0";
/// Kinds of links that need no other end, the first that the kernel has.
const KINDS: [&str; 2] = ["dummy", "veth"];

/// Which kind of namespace this process has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// A network namespace alone.
    AsRoot,
    /// One in a user namespace.
    AsUser,
}

/// Leaves the network namespace of this process for a new one. Call it before there is a second thread.
///
/// # Errors
/// [`PlatformError::Kernel`] if neither is allowed.
pub fn enter() -> Result<Entered, PlatformError> {
    let refused = |doing| move |source: io::Error| PlatformError::Kernel { doing, source };
    let (user, group) = (getuid(), getgid());
    if user.is_root() && unshare(UnshareFlags::NEWNET).is_ok() {
        return Ok(Entered::AsRoot);
    }
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)
        .map_err(refused("make a network namespace"))?;
    // Everybody is who they were; the kernel takes a group's line only once nobody can drop groups.
    let map = refused("say who this user is in the new namespace");
    let (user, group) = (user.as_raw(), group.as_raw());
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{user} {user} 1")),
        ("/proc/self/gid_map", format!("{group} {group} 1")),
    ] {
        let written = File::options()
            .write(true)
            .open(file)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(map)?;
    }
    Ok(Entered::AsUser)
}

/// Does `what` in the network namespace whose file is `path`, on a thread that ends with it: nothing else of this process is
/// there, and nothing has to find its way back.
///
/// # Errors
/// [`PlatformError`] naming the path if there is no such file; [`PlatformError::Kernel`] if it is none of a network namespace,
/// or is the one in which this process lives: what is meant for one of many must not happen to all.
pub fn within<T: Send>(path: &Path, what: impl FnOnce() -> T + Send) -> Result<T, PlatformError> {
    let file = File::open(path)
        .map_err(|source| PlatformError::from_io("open network namespace", path, source))?;
    let own = Path::new("/proc/self/ns/net");
    let identity = |found: io::Result<Metadata>| found.map(|found| (found.dev(), found.ino()));
    let refused = |source: io::Error| PlatformError::Kernel {
        doing: "enter a network namespace",
        source,
    };
    let (theirs, ours) = (identity(file.metadata()), identity(std::fs::metadata(own)));
    if theirs.map_err(refused)? == ours.map_err(refused)? {
        return Err(refused(io::Error::other("it is this process's own")));
    }
    let inside = || -> Result<T, PlatformError> {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), kind).map_err(|error| refused(error.into()))?;
        Ok(what())
    };
    std::thread::scope(|scope| {
        let ended = scope.spawn(inside).join();
        ended.unwrap_or_else(|_| Err(refused(io::Error::other("the thread in it ended early"))))
    })
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for one flag, CLONE_FILES, which is not among these"
)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

/// Gives the namespace of this process loopback, `here` as addresses of its own, and a way out to everywhere that ends
/// nowhere: what is sent along it is lost. IPv6 is left out where the kernel has none.
///
/// # Errors
/// [`PlatformError::Kernel`] with the step that was refused.
pub fn open_ways(here: &[IpAddr]) -> Result<(), PlatformError> {
    let step = |doing| move |source: io::Error| PlatformError::Kernel { doing, source };
    let mut kernel = Netlink::open(Family::Route).map_err(step("speak to the kernel's routing"))?;
    let made = KINDS.iter().map(|kind| kernel.transact([link(kind)]));
    // The error of the last kind, if there is none.
    let made = made.reduce(|before, now| before.or(now)).unwrap_or(Ok(()));
    made.map_err(step("make a network link"))?;
    let loopback = index("lo").map_err(step("find loopback"))?;
    let out = index(WAY_OUT).map_err(step("find a network link"))?;
    for link in [loopback, out] {
        kernel
            .transact([up(link)])
            .map_err(step("switch a network link on"))?;
    }
    for ip in here {
        kernel
            .transact([address(loopback, *ip)])
            .map_err(step("set an address"))?;
    }
    // Private and link-local: whoever reads logs sees that they are of no network.
    let four = IpAddr::from([169, 254, 77, 1]);
    let six = IpAddr::from([0xfd6d, 0x6573, 0x68, 0, 0, 0, 0, 1]);
    for ip in [four, six] {
        let set = kernel
            .transact([address(out, ip)])
            .and_then(|()| kernel.transact([route(out, ip.is_ipv4())]));
        match set {
            Err(_) if ip.is_ipv6() => {}
            set => set.map_err(step("set a route"))?,
        }
    }
    Ok(())
}

fn index(name: &str) -> io::Result<u32> {
    let any = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(name_to_index(any, name)?)
}

fn link(kind: &str) -> Message {
    let info = Attributes::default().with_text(INFO_KIND, kind);
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_head(0, 0))
        .with_text(LINK_NAME, WAY_OUT)
        .with_nested(LINK_INFO, &info)
}

fn up(link: u32) -> Message {
    Message::new(NEW_LINK, 0, &link_head(link, UP))
}

/// `struct ifinfomsg`: the flags in `flags` are set, others stay.
fn link_head(link: u32, flags: u32) -> Vec<u8> {
    let mut head = vec![0; 4]; // family, padding, type
    head.extend(link.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head
}

/// `struct ifaddrmsg`, an address of its own and nothing beside it.
fn address(link: u32, ip: IpAddr) -> Message {
    let (family, bits, octets) = parts(ip);
    let flags = if ip.is_ipv6() { NO_DETECTION } else { 0 };
    let mut head = vec![family, bits, flags, 0];
    head.extend(link.to_ne_bytes());
    Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &head)
        .with(LOCAL, &octets)
        .with(ADDRESS, &octets)
}

/// `struct rtmsg`: to everywhere, in the main table (254), set by hand (4), beyond the link (0), to one receiver (1).
fn route(link: u32, ipv4: bool) -> Message {
    let any = if ipv4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0_u16; 8])
    };
    let (family, ..) = parts(any);
    let mut head = vec![family, 0, 0, 0, 254, 4, 0, 1];
    head.extend([0; 4]);
    Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &head).with(OUT_LINK, &link.to_ne_bytes())
}

/// Family, bits and bytes of an address.
fn parts(ip: IpAddr) -> (u8, u8, Vec<u8>) {
    let family = |family: AddressFamily| u8::try_from(family.as_raw()).unwrap_or_default();
    match ip {
        IpAddr::V4(ip) => (family(AddressFamily::INET), 32, ip.octets().into()),
        IpAddr::V6(ip) => (family(AddressFamily::INET6), 128, ip.octets().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_namespace_of_others_is_entered() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, plain) = (dir.path().join("missing"), dir.path().join("plain"));
        std::fs::File::create(&plain).unwrap();
        for path in [
            &missing,
            &plain,
            Path::new("/proc/self/ns/net"),
            Path::new("/proc/self/ns/uts"),
        ] {
            let done = within(path, || panic!("it must not be called"));
            assert!(done.is_err(), "{}", path.display());
        }
    }
}
