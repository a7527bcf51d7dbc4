//! How many connections a listener holds, and how it ends.
//!
//! ```text
//! Accepting <--room--/--full--> Paused        either --drain--> Draining --none left, or deadline--> Done
//! ```
//! Paused means that the caller stops accepting (the kernel's queue holds newcomers) instead of spinning on a full table;
//! a single address that opens too many is refused alone. Nothing here dials, waits or closes.

use std::collections::HashMap;
use std::net::IpAddr;

/// Bounds of one listener and core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Connections at once. Cost: a file descriptor and a few KiB each.
    pub connections_max: usize,
    /// Of these, from one address; in a mesh one address is one pod.
    pub per_address_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            per_address_max: 8_192,
        }
    }
}

/// Where a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes connections.
    Accepting,
    /// Full: accept again when this is over.
    Paused,
    /// Takes none; those it has may finish until then.
    Draining {
        /// After this, close what is left.
        deadline_us: u64,
    },
    /// Takes none and has none, or may wait no longer: close everything and end.
    Done,
}

/// Whether a connection may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Serve it, and report its end with [`Admission::on_close`].
    Yes,
    /// Close it at once; its end is not reported.
    No(Refused),
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The listener is full.
    Full,
    /// Its address has too many.
    AddressFull,
    /// The listener ends.
    Draining,
}

impl Refused {
    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::AddressFull => "address-full",
            Self::Draining => "draining",
        }
    }
}

/// Connections of one listener.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    open: usize,
    by_address: HashMap<IpAddr, usize>,
    deadline_us: Option<u64>,
    expired: bool,
}

impl Admission {
    /// None yet.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            open: 0,
            by_address: HashMap::new(),
            deadline_us: None,
            expired: false,
        }
    }

    /// Where the listener is.
    pub fn state(&self) -> State {
        match self.deadline_us {
            Some(_) if self.open == 0 || self.expired => State::Done,
            Some(deadline_us) => State::Draining { deadline_us },
            None if self.open >= self.limits.connections_max => State::Paused,
            None => State::Accepting,
        }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// A connection came.
    pub fn on_accept(&mut self, peer: IpAddr) -> Admit {
        let of_peer = self.by_address.get(&peer).copied().unwrap_or_default();
        match self.state() {
            State::Draining { .. } | State::Done => Admit::No(Refused::Draining),
            State::Paused => Admit::No(Refused::Full),
            State::Accepting if of_peer >= self.limits.per_address_max => {
                Admit::No(Refused::AddressFull)
            }
            State::Accepting => {
                self.open += 1;
                self.by_address.insert(peer, of_peer + 1);
                Admit::Yes
            }
        }
    }

    /// One that was admitted ended.
    pub fn on_close(&mut self, peer: IpAddr) -> State {
        if let Some(count) = self.by_address.get_mut(&peer) {
            self.open = self.open.saturating_sub(1);
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&peer);
            }
        }
        self.state()
    }

    /// Takes no more; what is open may finish within the grace. A second call can only shorten it.
    pub fn on_drain(&mut self, grace_us: u64, now_us: u64) -> State {
        let deadline = now_us.saturating_add(grace_us);
        self.deadline_us = Some(
            self.deadline_us
                .map_or(deadline, |earlier| earlier.min(deadline)),
        );
        self.on_tick(now_us)
    }

    /// Time went by.
    pub fn on_tick(&mut self, now_us: u64) -> State {
        self.expired |= self.deadline_us.is_some_and(|deadline| now_us >= deadline);
        self.state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn small() -> Admission {
        Admission::new(AdmissionLimits {
            connections_max: 4,
            per_address_max: 2,
        })
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let mut admission = small();
        assert_eq!(admission.on_accept(peer(1)), Admit::Yes);
        assert_eq!(admission.on_accept(peer(1)), Admit::Yes);
        assert_eq!(
            admission.on_accept(peer(1)),
            Admit::No(Refused::AddressFull)
        );
        assert_eq!(
            admission.on_accept(peer(2)),
            Admit::Yes,
            "others still get in"
        );
    }

    #[test]
    fn a_full_listener_pauses_until_there_is_room() {
        let mut admission = small();
        for n in 0..4 {
            assert_eq!(admission.on_accept(peer(n)), Admit::Yes);
        }
        assert_eq!(admission.state(), State::Paused);
        assert_eq!(admission.on_accept(peer(9)), Admit::No(Refused::Full));
        assert_eq!(
            admission.on_close(peer(9)),
            State::Paused,
            "it was never admitted"
        );
        assert_eq!(admission.on_close(peer(0)), State::Accepting);
    }

    #[test]
    fn draining_takes_nobody_and_ends_with_the_last_or_the_deadline() {
        let mut admission = small();
        admission.on_accept(peer(1));
        admission.on_accept(peer(2));
        assert_eq!(
            admission.on_drain(100, 1_000),
            State::Draining { deadline_us: 1_100 }
        );
        assert_eq!(admission.on_accept(peer(3)), Admit::No(Refused::Draining));
        assert_eq!(
            admission.on_drain(900, 1_001),
            State::Draining { deadline_us: 1_100 },
            "grace never grows"
        );
        assert_eq!(
            admission.on_close(peer(1)),
            State::Draining { deadline_us: 1_100 }
        );
        assert_eq!(
            admission.on_tick(1_099),
            State::Draining { deadline_us: 1_100 }
        );
        assert_eq!(admission.on_tick(1_100), State::Done);

        let mut admission = small();
        admission.on_accept(peer(1));
        admission.on_drain(100, 0);
        assert_eq!(admission.on_close(peer(1)), State::Done);
        assert_eq!(small().on_drain(100, 0), State::Done, "nothing to wait for");
    }

    proptest! {
        #[test]
        fn counts_never_pass_the_limits_nor_leak(events in proptest::collection::vec((any::<bool>(), 0u8..4), 0..200)) {
            let mut admission = small();
            let mut held: Vec<u8> = Vec::new();
            for (open, n) in events {
                if open {
                    if admission.on_accept(peer(n)) == Admit::Yes { held.push(n); }
                } else if let Some(at) = held.iter().position(|held| *held == n) {
                    held.remove(at);
                    admission.on_close(peer(n));
                }
                prop_assert_eq!(admission.open(), held.len());
                prop_assert!(held.len() <= 4);
                prop_assert!((0..4).all(|n| held.iter().filter(|held| **held == n).count() <= 2));
            }
            held.iter().for_each(|n| { admission.on_close(peer(*n)); });
            prop_assert!(admission.by_address.is_empty());
        }
    }
}
