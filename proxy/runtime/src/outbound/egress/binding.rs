//! Names that let something out, held against the addresses of those names.
//!
//! An application says both where a connection goes and which host it is for, and need not be honest: what policy lets out
//! by name goes to an address of that name, as the resolvers of the proxy say, and nowhere else. If the address that was
//! dialled is none of them, it is led to one that is: resolvers answer in turns, and caches keep old answers. Only what was
//! redirected is held against names: where the configuration says the address, the application has no say.

use super::What;
use crate::core::Core;
use crate::names::NoAddress;
use crate::outbound::Listener;
use crate::services::Behind;
use mesh_policy::Snapshot;
use mesh_policy::egress::EgressDecision;
use mesh_proxy_core::redirect;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// Addresses of the name that let something out.
pub(super) type Looked = Result<Rc<[IpAddr]>, NoAddress>;

/// Why something goes to no address of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NotBound {
    /// It has none that is known.
    No(NoAddress),
    /// One that names of the world do not have.
    Special(IpAddr),
    /// One of the mesh, or of this machine.
    Inside(IpAddr),
    /// One to which the name is not let out.
    NotLetOut(IpAddr),
}

impl NotBound {
    /// In a word of a bounded set, for metrics.
    const fn word(&self) -> &'static str {
        match self {
            Self::No(NoAddress::Absent) => "absent",
            Self::No(NoAddress::Unknown(_)) => "unknown",
            Self::No(NoAddress::Busy) => "busy",
            Self::Special(_) => "special",
            Self::Inside(_) => "inside",
            Self::NotLetOut(_) => "not-let-out",
        }
    }
}

impl NotBound {
    /// What comes of an allow. That nobody knows the addresses is no word about them: the client may try again.
    fn denies(&self, decision: EgressDecision) -> EgressDecision {
        match self {
            Self::No(NoAddress::Unknown(_) | NoAddress::Busy) => {
                decision.at_unknown_address(&self.to_string())
            }
            Self::No(NoAddress::Absent)
            | Self::Special(_)
            | Self::Inside(_)
            | Self::NotLetOut(_) => decision.at_other_address(&self.to_string()),
        }
    }
}

impl fmt::Display for NotBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(NoAddress::Absent) => f.write_str("it has no address"),
            Self::No(NoAddress::Unknown(why)) => {
                write!(f, "no resolver answers: {why}")
            }
            Self::No(NoAddress::Busy) => f.write_str("too many names are being looked up"),
            Self::Special(ip) => write!(
                f,
                "its address is {ip}, which no name of the world has; the EgressNetwork would have to name a block of such addresses"
            ),
            Self::Inside(ip) => write!(f, "its address is {ip}, which is not outside of the mesh"),
            Self::NotLetOut(ip) => write!(
                f,
                "its address is {ip}, to which no EgressNetwork lets this name out"
            ),
        }
    }
}

/// Looks up the name that let something out, if it is to be held against its addresses.
pub(super) async fn look_up(
    core: &Core,
    listener: &Listener,
    decision: &EgressDecision,
) -> Option<Looked> {
    if !listener.is_redirected() {
        return None;
    }
    let name = decision.bound_to()?;
    // Boxed: most of what leaves does not wait for this.
    Some(Box::pin(core.names.addresses(name)).await)
}

/// Where something goes that was decided about: to where it was going, or to other addresses of its name.
/// The decision is a denial, and there is no place, if it goes nowhere.
pub(super) fn bind(
    core: &Core,
    policy: &Snapshot,
    decision: EgressDecision,
    what: &What,
    (listener, looked): (&Listener, Option<Looked>),
) -> (EgressDecision, Vec<SocketAddr>) {
    let to = decision.to;
    if listener.is_redirected()
        && let Err(why) = may_begin(policy, &decision)
    {
        core.meter.name_bound(why.word());
        return (why.denies(decision), Vec::new());
    }
    let (Some(looked), Some(_)) = (looked, decision.bound_to()) else {
        return (decision, vec![to]);
    };
    let discovery = core.shared.discovery.load();
    let judge = |at: SocketAddr| {
        let speakers = policy.egress().at(at);
        if !speakers.expect_names() {
            return Err(NotBound::Special(at.ip()));
        }
        if at == to {
            return Ok(());
        }
        let is_here = |ip| core.locals.contain(ip);
        let elsewhere = redirect::outbound(Some(at), &core.own_ports, is_here).is_ok();
        if !elsewhere || !matches!(discovery.behind(at), Behind::Outside) {
            return Err(NotBound::Inside(at.ip()));
        }
        let there = speakers.decide(&what.seen());
        match decision.allows_instead(&there) {
            true => Ok(()),
            false => Err(NotBound::NotLetOut(at.ip())),
        }
    };
    let places = looked
        .map_err(NotBound::No)
        .and_then(|found| places(to, &found, judge));
    match places {
        Ok(places) => {
            let instead = places.first().copied().filter(|first| *first != to);
            core.meter.name_bound(match instead {
                None => "as-dialled",
                Some(_) => "led",
            });
            let decision = match instead {
                None => decision,
                Some(instead) => decision.led_to(instead),
            };
            (decision, places)
        }
        Err(why) => {
            core.meter.name_bound(why.word());
            (why.denies(decision), Vec::new())
        }
    }
}

/// Whether the proxy may connect to where this was going, if it is to begin TLS. No certificate is for an address that no
/// name of the world has; but how a handshake fails tells whoever dialled it what is there.
fn may_begin(policy: &Snapshot, decision: &EgressDecision) -> Result<(), NotBound> {
    let to = decision.to;
    match decision.tls().is_some() && !policy.egress().at(to).expect_names() {
        true => Err(NotBound::Special(to.ip())),
        false => Ok(()),
    }
}

/// The address that was dialled, if the name has it and it passes; if the name has others, those of them that pass, the
/// families in turns, that of the dialled one first.
fn places(
    to: SocketAddr,
    found: &[IpAddr],
    judge: impl Fn(SocketAddr) -> Result<(), NotBound>,
) -> Result<Vec<SocketAddr>, NotBound> {
    if found.contains(&to.ip()) {
        judge(to)?;
        return Ok(vec![to]);
    }
    let mut refused = NotBound::No(NoAddress::Absent);
    let mut families = [Vec::new(), Vec::new()];
    for ip in found {
        let at = SocketAddr::new(*ip, to.port());
        match judge(at) {
            Ok(()) => {
                let [same, other] = &mut families;
                let family = if at.is_ipv4() == to.is_ipv4() {
                    same
                } else {
                    other
                };
                family.push(at);
            }
            Err(why) => refused = why,
        }
    }
    let [same, other] = families;
    let turns = same.len().max(other.len());
    let in_turns = (0..turns).flat_map(|turn| [same.get(turn), other.get(turn)]);
    let places: Vec<SocketAddr> = in_turns.flatten().copied().collect();
    match places.is_empty() {
        true => Err(refused),
        false => Ok(places),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::egress::fixtures::{get, policy};
    use mesh_policy::decide::Verdict;

    fn decided(policy: &Snapshot, to: &str) -> EgressDecision {
        policy
            .egress()
            .at(to.parse().unwrap())
            .decide(&get().seen())
    }

    #[test]
    fn tls_is_begun_to_no_address_that_names_of_the_world_do_not_have() {
        let begins = "mesh.internal/originate-tls: '443', mesh.internal/tls-roots: system";
        for (block, annotations, to, want) in [
            ("0.0.0.0/0", begins, "203.0.113.9:80", true),
            ("0.0.0.0/0", begins, "169.254.169.254:80", false),
            ("0.0.0.0/0", begins, "168.63.129.16:80", false),
            ("0.0.0.0/0", begins, "127.0.0.1:80", false),
            ("169.254.0.0/16", begins, "169.254.169.254:80", true),
            // Held against its name, if against anything.
            ("0.0.0.0/0", "", "169.254.169.254:80", true),
        ] {
            let policy = policy(block, annotations);
            let decision = decided(&policy, to);
            assert_eq!(decision.verdict(), Verdict::Allow, "{to}: {decision:?}");
            assert_eq!(decision.tls().is_some(), !annotations.is_empty(), "{to}");
            let may = may_begin(&policy, &decision);
            assert_eq!(may.is_ok(), want, "{block} {to}: {may:?}");
            if let Err(why) = may {
                let denied = why.denies(decision);
                assert_eq!((denied.verdict(), denied.status()), (Verdict::Deny, 403));
            }
        }
    }

    #[test]
    fn trouble_with_resolvers_is_no_final_word() {
        let policy = policy("0.0.0.0/0", "");
        for (why, status, word) in [
            (NotBound::No(NoAddress::Busy), 503, "egress-name-unknown"),
            (
                NotBound::No(NoAddress::Unknown("silence".to_owned())),
                503,
                "egress-name-unknown",
            ),
            (NotBound::No(NoAddress::Absent), 403, "egress-other-address"),
            (
                NotBound::Special(ips(&["10.0.0.1"])[0]),
                403,
                "egress-other-address",
            ),
        ] {
            let denied = why.denies(decided(&policy, "203.0.113.9:80"));
            assert_eq!(denied.verdict(), Verdict::Deny, "{why}");
            assert_eq!((denied.status(), denied.cause.word()), (status, word));
            let trouble = super::super::trouble(&denied);
            assert_eq!(trouble.status().as_u16(), status, "{trouble}");
            let grpc = if status == 503 { 14 } else { 7 };
            assert_eq!(
                (trouble.grpc_status(), denied.grpc_status()),
                (grpc, Some(grpc))
            );
            assert!(trouble.to_string().contains(&why.to_string()), "{trouble}");
        }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Judges by the first number: 10 is special, 192 inside, 198 not let out.
    fn judge(at: SocketAddr) -> Result<(), NotBound> {
        let ip = at.ip();
        match ip {
            IpAddr::V4(four) if four.octets()[0] == 10 => Err(NotBound::Special(ip)),
            IpAddr::V4(four) if four.octets()[0] == 192 => Err(NotBound::Inside(ip)),
            IpAddr::V4(four) if four.octets()[0] == 198 => Err(NotBound::NotLetOut(ip)),
            _ => Ok(()),
        }
    }

    fn placed(to: &str, found: &[&str]) -> Result<Vec<String>, NotBound> {
        let placed = places(to.parse().unwrap(), &ips(found), judge)?;
        Ok(placed.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_address_of_the_name_stays_and_another_is_led_to_one() {
        let to = "203.0.113.7:443";
        let stays = placed(to, &["203.0.113.9", "203.0.113.7", "2001:db8::1"]);
        assert_eq!(stays.unwrap(), [to]);
        let led = placed(
            to,
            &[
                "2001:db8::1",
                "203.0.113.9",
                "203.0.113.8",
                "2001:db8::2",
                "2001:db8::3",
            ],
        );
        assert_eq!(
            led.unwrap(),
            [
                "203.0.113.9:443",
                "[2001:db8::1]:443",
                "203.0.113.8:443",
                "[2001:db8::2]:443",
                "[2001:db8::3]:443"
            ]
        );
        let six = placed("[2001:db8::7]:80", &["203.0.113.9", "2001:db8::1"]);
        assert_eq!(six.unwrap(), ["[2001:db8::1]:80", "203.0.113.9:80"]);
    }

    #[test]
    fn whatever_does_not_pass_is_left_out_and_nothing_is_a_refusal() {
        let to = "203.0.113.7:443";
        let led = placed(to, &["10.0.0.1", "203.0.113.9", "198.51.100.1"]);
        assert_eq!(led.unwrap(), ["203.0.113.9:443"]);
        for (found, want) in [
            (&[][..], NotBound::No(NoAddress::Absent)),
            (&["10.0.0.1"][..], NotBound::Special(ips(&["10.0.0.1"])[0])),
            (&["192.0.2.1"][..], NotBound::Inside(ips(&["192.0.2.1"])[0])),
            (
                &["198.51.100.1"][..],
                NotBound::NotLetOut(ips(&["198.51.100.1"])[0]),
            ),
        ] {
            assert_eq!(placed(to, found), Err(want), "{found:?}");
        }
        // The very address that was dialled: rebinding (RD12).
        let rebound = placed("10.0.0.1:80", &["203.0.113.9", "10.0.0.1"]);
        assert_eq!(rebound, Err(NotBound::Special(ips(&["10.0.0.1"])[0])));
    }
}
