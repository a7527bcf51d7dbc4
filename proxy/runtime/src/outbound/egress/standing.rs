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
    /// The name that it was held against.
    pub(super) held: Option<String>,
    /// Whether the application said where it goes, and so is held to what it says.
    pub(super) redirected: bool,
    pub(super) kill: Kill,
}

impl Entry {
    /// Whether this policy would hold it against a name, or against another, than it was; or against addresses that it did
    /// not look at. What is bound no longer stays where it is: that is an address of its name.
    fn is_astray(&self, decision: &EgressDecision, policy: &Snapshot) -> bool {
        if !self.redirected || decision.verdict() == Verdict::Deny {
            return false;
        }
        let otherwise = decision
            .bound_to()
            .is_some_and(|name| self.held.as_deref() != Some(name));
        let expected = |at: &SocketAddr| policy.egress().at(*at).expect_names();
        let of_names = decision.bound_to().is_some() || decision.tls().is_some();
        let there = match self.places.is_empty() {
            true => std::slice::from_ref(&self.to),
            false => &self.places,
        };
        otherwise || (of_names && !there.iter().all(expected))
    }
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
            let otherwise =
                decision.tls() != entry.tls.as_ref() || entry.is_astray(&decision, policy);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::egress::fixtures::{get, policy};

    const UNBOUND: &str = "mesh.internal/bind-names: 'false'";
    const LINK_LOCAL: &str = "169.254.169.254:80";

    fn entry(to: &str, held: Option<&str>, redirected: bool) -> Entry {
        let to = to.parse().unwrap();
        Entry {
            from: "10.0.0.1".parse().unwrap(),
            to,
            places: vec![to],
            what: get(),
            tls: None,
            held: held.map(str::to_owned),
            redirected,
            kill: Kill::default(),
        }
    }

    #[test]
    fn what_stands_ends_when_policy_holds_it_to_a_name_that_it_was_not_held_to() {
        let name = Some("api.example");
        let world = "203.0.113.9:80";
        for (one, block, annotations, ends) in [
            (entry(world, None, true), "0.0.0.0/0", "", true),
            (
                entry(world, Some("other.example"), true),
                "0.0.0.0/0",
                "",
                true,
            ),
            (entry(world, name, true), "0.0.0.0/0", "", false),
            (entry(world, None, true), "0.0.0.0/0", UNBOUND, false),
            // Its address is one of its name, whatever is asked now.
            (entry(world, name, true), "0.0.0.0/0", UNBOUND, false),
            // Where it goes the configuration says.
            (entry(world, None, false), "0.0.0.0/0", "", false),
            // A block of such addresses spoke for it, and now one of the world's does.
            (entry(LINK_LOCAL, name, true), "169.254.0.0/16", "", false),
            (entry(LINK_LOCAL, name, true), "0.0.0.0/0", "", true),
            (entry(LINK_LOCAL, None, true), "0.0.0.0/0", UNBOUND, false),
        ] {
            let (kill, what) = (one.kill.clone(), format!("{} {:?}", one.to, one.held));
            let all = Leaving::default();
            let _leave = all.enter(one);
            let ended = all.recheck(&policy(block, annotations));
            assert_eq!(
                (ended.len(), kill.is_ended()),
                (usize::from(ends), ends),
                "{what} {block} {annotations}"
            );
            let allowed = |ended: &Ended| ended.decision.verdict() == Verdict::Allow;
            assert!(ended.iter().all(allowed), "{what}");
        }
    }

    #[test]
    fn what_was_led_is_looked_at_where_it_went() {
        let mut one = entry("203.0.113.9:80", Some("api.example"), true);
        one.places = vec![LINK_LOCAL.parse().unwrap()];
        let kill = one.kill.clone();
        let all = Leaving::default();
        let _leave = all.enter(one);
        assert_eq!(all.recheck(&policy("0.0.0.0/0", "")).len(), 1);
        assert!(kill.is_ended());
    }
}
