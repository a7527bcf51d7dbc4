//! What has left the mesh from one core and still stands, so that a change of policy reaches it.

use crate::live::{End, JudgedHead, Kill};
use crate::roll::{Entered, Roll};
use crate::telemetry::Ask;
use mesh_policy::Snapshot;
use mesh_policy::decide::Verdict;
use mesh_policy::egress::{EgressDecision, Origination, Seen};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// What something is, and so how it is judged.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Bytes.
    Bytes,
    /// TLS that passes through, with the server name that it asks for.
    Tls(Option<String>),
    /// A request, until its answer has ended.
    Http(Rc<JudgedHead>),
}

impl What {
    /// As the decision wants it.
    pub(super) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Bytes => Seen::Bytes,
            Self::Tls(name) => Seen::Tls(name.as_deref()),
            Self::Http(head) => Seen::Http(head.head()),
        }
    }

    pub(super) fn ask(&self) -> Ask {
        match self {
            Self::Http(head) if head.grpc => Ask::Grpc,
            Self::Http(_) => Ask::Http,
            Self::Bytes | Self::Tls(_) => Ask::Tcp,
        }
    }
}

/// One thing that stands.
pub(crate) struct Entry {
    pub(super) from: IpAddr,
    pub(super) to: SocketAddr,
    /// Where it may have gone, if it was held against its name.
    pub(super) places: Vec<SocketAddr>,
    pub(super) what: What,
    /// TLS that was begun for it.
    pub(super) tls: Option<Origination>,
    pub(super) kill: Kill,
}

/// Everything of one core that stands outside of the mesh.
#[derive(Default)]
pub(crate) struct Leaving(Roll<Entry>);

/// A place in [`Leaving`]; dropping it leaves.
pub(crate) type Leave = Entered<Entry>;

/// Something that was ended.
pub(super) struct Ended {
    pub(super) from: IpAddr,
    pub(super) what: What,
    pub(super) decision: EgressDecision,
}

impl Leaving {
    /// Enters something that was allowed.
    pub(super) fn enter(&self, entry: Entry) -> Leave {
        self.0.enter(entry)
    }

    /// Decides about each anew, and ends those that `policy` does not allow, or not in this manner.
    pub(super) fn recheck(&self, policy: &Snapshot) -> Vec<Ended> {
        let entries = self.0.all();
        let denied = entries.iter().filter_map(|(_, entry)| {
            let decide = |at: SocketAddr| policy.egress().at(at).decide(&entry.what.seen());
            let mut places = entry.places.iter().filter(|at| **at != entry.to);
            let denied = places.find_map(|at| {
                let decision = decide(*at);
                (decision.verdict() == Verdict::Deny).then_some(decision)
            });
            let decision = denied.unwrap_or_else(|| decide(entry.to));
            let otherwise = decision.tls() != entry.tls.as_ref();
            (decision.verdict() == Verdict::Deny || otherwise).then(|| {
                entry.kill.end(End::Revoked);
                Ended {
                    from: entry.from,
                    what: entry.what.clone(),
                    decision,
                }
            })
        });
        denied.collect()
    }
}
