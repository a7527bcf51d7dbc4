//! Redirects the connections of the present network namespace to its proxy, refuses what it cannot redirect, and proves
//! that it does.
//!
//! The rules are `mesh_proxy_core::capture`'s; here they become one transaction of the kernel's packet filter
//! ([`encode`]): all of them, or none. [`validate`] compares what is there, and then connects to an address that nobody
//! has ([`probe`]): only if that connection arrives at the proxy's port may the application start (threat RD7). [`prove`]
//! does the second alone, where a CNI plugin sets the rules and the pod has no right to read them.
//!
//! - [`CaptureArgs`]: the same as words of a command line, and of a container

mod arguments;
mod encode;
mod error;
mod probe;

pub use arguments::{CaptureArgs, ForeignWords};
pub use error::CaptureError;

use encode::Found;
use mesh_platform::netlink::{Family, Netlink};
use mesh_proxy_core::capture::{Capture, Hook, TABLE};
use std::time::Duration;

/// How often it is looked again while capture does not work yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a validation saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// A connection in IPv4 was redirected; false if there is no IPv4 route along which anything could leave.
    pub ipv4: bool,
    /// The same in IPv6.
    pub ipv6: bool,
}

/// Puts the rules in place of whatever rules of ours are there. Nobody ever sees a part of them.
///
/// # Errors
/// [`CaptureError`]; the rules are as they were then.
pub fn install(capture: &Capture) -> Result<(), CaptureError> {
    capture.check()?;
    let digest = digest(capture);
    open()?
        .transact(encode::install(capture, &digest))
        .map_err(|error| CaptureError::refused("set rules", &error))
}

/// Removes the rules, if there are any.
///
/// # Errors
/// [`CaptureError`].
pub fn remove() -> Result<(), CaptureError> {
    open()?
        .transact(encode::remove())
        .map_err(|error| CaptureError::refused("remove rules", &error))
}

/// Proves that capture works: the rules are the ones given, and a connection is redirected by them. Looks again until
/// `wait` is over.
///
/// # Errors
/// [`CaptureError`] with what was seen last.
pub fn validate(capture: &Capture, wait: Duration) -> Result<Proof, CaptureError> {
    again(capture, wait, look)
}

/// Proves that capture works by what a process without rights can do: a connection is redirected, and a datagram that no
/// rule lets through is refused. Tries again until `wait` is over.
///
/// That the rules are those of these settings is not seen by this: whoever set them has compared them ([`verify`]).
///
/// # Errors
/// [`CaptureError`] with what was seen last.
pub fn prove(capture: &Capture, wait: Duration) -> Result<Proof, CaptureError> {
    again(capture, wait, |capture| {
        let proof = probe::run(capture).map_err(CaptureError::without_rules)?;
        probe::datagrams(capture).map_err(CaptureError::without_rules)?;
        Ok(proof)
    })
}

/// Compares the rules in force with those that are wanted, and tries nothing.
///
/// # Errors
/// [`CaptureError::NotInstalled`], [`CaptureError::OtherRules`], and those of the kernel.
pub fn verify(capture: &Capture) -> Result<(), CaptureError> {
    capture.check()?;
    compare(capture)
}

/// Looks until it is well, or the time is up.
fn again(
    capture: &Capture,
    wait: Duration,
    look: impl Fn(&Capture) -> Result<Proof, CaptureError>,
) -> Result<Proof, CaptureError> {
    capture.check()?;
    let mut left = wait;
    loop {
        match look(capture) {
            Ok(proof) => return Ok(proof),
            Err(error) if left.is_zero() || !error.may_pass() => return Err(error),
            Err(_) => {}
        }
        let pause = LOOK_EVERY.min(left);
        std::thread::sleep(pause);
        left -= pause;
    }
}

fn look(capture: &Capture) -> Result<Proof, CaptureError> {
    compare(capture)?;
    probe::run(capture)
}

/// Compares the rules in force with those that are wanted.
fn compare(capture: &Capture) -> Result<(), CaptureError> {
    let found = encode::find(&mut open()?)
        .map_err(|error| CaptureError::refused("read the rules", &error))?;
    let Some(Found { digest, rules }) = found else {
        return Err(CaptureError::NotInstalled);
    };
    if digest.as_deref() != Some(self::digest(capture).as_str()) {
        return Err(CaptureError::OtherRules {
            why: "they were made from other settings".to_owned(),
        });
    }
    for (hook, found) in Hook::ALL.into_iter().zip(rules) {
        let wanted = capture.rules(hook).len();
        if found != wanted {
            return Err(CaptureError::OtherRules {
                why: format!("chain `{}` has {found} rules, not {wanted}", hook.name()),
            });
        }
    }
    Ok(())
}

/// What the table is marked with: rules of the same settings have the same mark.
fn digest(capture: &Capture) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, capture.text().as_bytes());
    let start = digest.as_ref().iter().take(8);
    let hex: String = start.map(|byte| format!("{byte:02x}")).collect();
    format!("{TABLE} {hex}")
}

fn open() -> Result<Netlink, CaptureError> {
    Netlink::open(Family::Netfilter)
        .map_err(|error| CaptureError::refused("reach the packet filter", &error))
}
