//! Which connections of a network namespace are redirected to its proxy, as rules of a packet filter.
//!
//! Rules are data here: the runtime gives them to the kernel, and [`Capture::text`] shows them as `nft list table` would.
//! TCP is redirected. ICMP passes as it is, and so do questions for names. Everything else, UDP above all, would pass where
//! no policy sees it: it is refused, and counted, unless its ports are skipped.
//!
//! ```text
//! from elsewhere --prerouting--> the proxy's own ports, skipped ports: as they are     else --> inbound port
//! from inside    --output------> the proxy itself, loopback, skipped:  as they are     else --> outbound port
//! from elsewhere --input-------> TCP, ICMP, answers, loopback, skipped UDP: as they are     else --> refused
//! from inside    --output------> TCP, ICMP, answers, loopback, the proxy itself, names, skipped: as they are     else --> refused
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The table of all rules; everything in it is ours.
pub const TABLE: &str = "mesh_capture";

/// Ranges and subnets of one kind that may be skipped. Each is a rule that every new connection is held against.
pub const SKIPPED_MAX: usize = 256;

/// What is redirected, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// User of the proxy, whose connections are never redirected.
    pub uid: u32,
    /// Port of the proxy for redirected connections to the workload.
    pub inbound: u16,
    /// Port of the proxy for redirected connections of the workload.
    pub outbound: u16,
    /// Ports of the proxy that are reached as they are: for other proxies, for metrics and probes.
    pub open: Vec<u16>,
    /// Ports of the workload that are reached without the proxy.
    pub skip_inbound: Vec<PortRange>,
    /// Ports elsewhere that the workload reaches without the proxy.
    pub skip_outbound: Vec<PortRange>,
    /// Addresses that the workload reaches without the proxy.
    pub skip_subnets: Vec<Subnet>,
    /// Ports of UDP, here and elsewhere, that datagrams reach without any policy.
    pub skip_udp: Vec<PortRange>,
}

/// Port of UDP at which names are asked for. Its answers come back.
pub const NAMES: u16 = 53;

/// Ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest, not 0.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    /// The lowest address.
    ip: IpAddr,
    /// Bits that are alike.
    prefix: u8,
}

/// Where in the kernel a rule is asked, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Connections that arrive: where to.
    Prerouting,
    /// Connections that begin here: where to.
    Output,
    /// Packets for this namespace: whether they may.
    Arriving,
    /// Packets that are made here: whether they may.
    Leaving,
}

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The socket belongs to this user.
    Uid(u32),
    /// The packet comes in through loopback.
    FromLoopback,
    /// The packet goes out through loopback.
    ToLoopback,
    /// The destination is an address of this namespace.
    ToHere,
    /// The destination is one of these addresses.
    ToSubnet(Subnet),
    /// TCP to one of these ports.
    ToPorts(PortRange),
    /// TCP.
    Tcp,
    /// UDP to one of these ports.
    ToUdpPorts(PortRange),
    /// ICMP of IPv4.
    Icmp,
    /// ICMP of IPv6.
    Icmp6,
    /// The packet belongs to what was let through before, in whatever direction.
    Answer,
}

/// What becomes of a packet that meets all conditions of a rule; of the others, the rule after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It goes to this port of this namespace.
    Redirect(u16),
    /// It is counted and goes nowhere; whoever sent it learns that nobody is there.
    Refuse,
}

/// Conditions and verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// Then this.
    pub verdict: Verdict,
}

/// Why rules would not do what they are for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureFault {
    /// Root's connections would all be exempt, and with them most applications.
    #[error(
        "the proxy's user may not be root: applications that run as root would not be redirected"
    )]
    Root,
    /// Two listeners of the proxy on one port.
    #[error("port {0} is given to two listeners of the proxy")]
    PortTwice(u16),
    /// A listener that is skipped.
    #[error("port {0} is the proxy's own and cannot be skipped")]
    OwnPortSkipped(u16),
    /// More exceptions than rules may hold.
    #[error("{0} exceptions; the limit is {SKIPPED_MAX}")]
    TooMany(usize),
}

impl Capture {
    /// Checks that the rules do what they are for.
    ///
    /// # Errors
    /// [`CaptureFault`].
    pub fn check(&self) -> Result<(), CaptureFault> {
        if self.uid == 0 {
            return Err(CaptureFault::Root);
        }
        let mut own = vec![self.inbound, self.outbound];
        own.extend(&self.open);
        own.sort_unstable();
        if let Some([port, _]) = own.array_windows().find(|[one, other]| one == other) {
            return Err(CaptureFault::PortTwice(*port));
        }
        let skipped = [&self.skip_inbound, &self.skip_outbound];
        let skips = |port: &u16| self.skip_inbound.iter().any(|range| range.contains(*port));
        if let Some(port) = own.into_iter().find(skips) {
            return Err(CaptureFault::OwnPortSkipped(port));
        }
        let skipped = skipped.into_iter().chain([&self.skip_udp]);
        let most = skipped.map(Vec::len).max();
        let most = most.unwrap_or(0).max(self.skip_subnets.len());
        if most > SKIPPED_MAX {
            return Err(CaptureFault::TooMany(most));
        }
        Ok(())
    }

    /// The rules of a hook, in order: the first one that a connection meets has the say.
    pub fn rules(&self, hook: Hook) -> Vec<Rule> {
        match hook {
            Hook::Prerouting => self.inbound_rules(),
            Hook::Output => self.outbound_rules(),
            Hook::Arriving => self.arriving_rules(),
            Hook::Leaving => self.leaving_rules(),
        }
    }

    fn inbound_rules(&self) -> Vec<Rule> {
        let mut rules = vec![pass([Match::FromLoopback])];
        let open = self.open.iter().map(|port| PortRange::one(*port));
        let skipped = open.chain(self.skip_inbound.iter().copied());
        rules.extend(skipped.map(|ports| pass([Match::ToPorts(ports)])));
        // What is only passed on through this namespace is not for the workload.
        rules.push(Rule {
            matches: vec![Match::ToHere, Match::Tcp],
            verdict: Verdict::Redirect(self.inbound),
        });
        rules
    }

    fn outbound_rules(&self) -> Vec<Rule> {
        let mut rules = vec![pass([Match::Uid(self.uid)]), pass([Match::ToLoopback])];
        let subnets = self.skip_subnets.iter().copied().map(Match::ToSubnet);
        let ports = self.skip_outbound.iter().copied().map(Match::ToPorts);
        rules.extend(subnets.chain(ports).map(|one| pass([one])));
        rules.push(Rule {
            matches: vec![Match::Tcp],
            verdict: Verdict::Redirect(self.outbound),
        });
        rules
    }

    fn arriving_rules(&self) -> Vec<Rule> {
        let mut rules = vec![pass([Match::FromLoopback])];
        rules.extend(self.seen_elsewhere());
        rules.push(REFUSE);
        rules
    }

    fn leaving_rules(&self) -> Vec<Rule> {
        let mut rules = vec![pass([Match::Uid(self.uid)]), pass([Match::ToLoopback])];
        let subnets = self.skip_subnets.iter().copied().map(Match::ToSubnet);
        rules.extend(subnets.map(|one| pass([one])));
        rules.push(pass([Match::ToUdpPorts(PortRange::one(NAMES))]));
        rules.extend(self.seen_elsewhere());
        rules.push(REFUSE);
        rules
    }

    /// What other rules see, or nobody needs to: TCP, which is redirected; ICMP, without which neither family works; what
    /// belongs to what was let through; and datagrams that are skipped.
    fn seen_elsewhere(&self) -> impl Iterator<Item = Rule> {
        let ports = self.skip_udp.iter().copied().map(Match::ToUdpPorts);
        [Match::Tcp, Match::Icmp, Match::Icmp6, Match::Answer]
            .into_iter()
            .chain(ports)
            .map(|one| pass([one]))
    }

    /// Everything as `nft -s list table inet mesh_capture` shows it, comments aside.
    pub fn text(&self) -> String {
        let chain = |hook: Hook| {
            let rules = self.rules(hook).into_iter();
            let rules: String = rules.map(|rule| format!("\t\t{rule}\n")).collect();
            let (kind, place, priority) = match hook {
                Hook::Prerouting => ("nat", "prerouting", "dstnat"),
                Hook::Output => ("nat", "output", "-100"),
                Hook::Arriving => ("filter", "input", "filter"),
                Hook::Leaving => ("filter", "output", "filter"),
            };
            format!(
                "\tchain {name} {{\n\t\ttype {kind} hook {place} priority {priority}; policy accept;\n{rules}\t}}\n",
                name = hook.name()
            )
        };
        let chains = Hook::ALL.map(chain);
        format!("table inet {TABLE} {{\n{}}}\n", chains.join("\n"))
    }
}

/// What becomes of what no rule lets through.
const REFUSE: Rule = Rule {
    matches: Vec::new(),
    verdict: Verdict::Refuse,
};

fn pass<const N: usize>(matches: [Match; N]) -> Rule {
    Rule {
        matches: matches.into(),
        verdict: Verdict::Pass,
    }
}

impl Hook {
    /// All hooks that have rules.
    pub const ALL: [Self; 4] = [
        Self::Prerouting,
        Self::Output,
        Self::Arriving,
        Self::Leaving,
    ];

    /// The name of its chain.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Arriving => "arriving",
            Self::Leaving => "leaving",
        }
    }
}

impl PortRange {
    /// One port.
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` is among them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl Subnet {
    /// The lowest address, as bytes.
    pub fn octets(&self) -> Vec<u8> {
        match self.ip {
            IpAddr::V4(ip) => ip.octets().into(),
            IpAddr::V6(ip) => ip.octets().into(),
        }
    }

    /// One bits where addresses are alike, as bytes.
    pub fn mask(&self) -> Vec<u8> {
        mask(self.octets().len(), self.prefix)
    }

    /// Whether it is of IPv4.
    pub const fn is_ipv4(&self) -> bool {
        self.ip.is_ipv4()
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (own, mask) = (self.octets(), self.mask());
        let other = Self { ip, prefix: 0 }.octets();
        let bits = other.iter().zip(&mask).map(|(byte, mask)| byte & mask);
        own.len() == other.len() && bits.eq(own.iter().copied())
    }
}

fn mask(bytes: usize, prefix: u8) -> Vec<u8> {
    let full = usize::from(prefix / 8);
    let rest = 0xff_u8.checked_shl(u32::from(8 - prefix % 8)).unwrap_or(0);
    let mut mask = vec![0xff; full];
    mask.push(rest);
    mask.resize(bytes.max(1), 0);
    mask.truncate(bytes);
    mask
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a port from 1 to 65535, or a range like `4000-4010`";
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
            port.ok_or(WRONG)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self {
            first: port(first)?,
            last: port(last)?,
        };
        if range.first > range.last {
            return Err("a range that begins after its end");
        }
        Ok(range)
    }
}

impl FromStr for Subnet {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an address like `10.0.0.1` or a subnet like `10.0.0.0/8`";
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| WRONG)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let prefix = match prefix {
            None => most,
            Some(text) if digits(text) => text.parse::<u8>().map_err(|_| WRONG)?,
            Some(_) => return Err(WRONG),
        };
        if prefix > most {
            return Err("a prefix longer than the address");
        }
        let subnet = Self { ip, prefix };
        // `10.1.2.3/8` may be meant as one address or as a 256th of all: the writer says which.
        if !subnet.contains(ip) {
            return Err("bits after the prefix: write the lowest address of the subnet");
        }
        Ok(subnet)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        let all = if self.ip.is_ipv4() { 32 } else { 128 };
        if self.prefix < all {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            match condition {
                Match::Uid(uid) => write!(f, "meta skuid {uid} ")?,
                Match::FromLoopback => write!(f, "iifname \"lo\" ")?,
                Match::ToLoopback => write!(f, "oifname \"lo\" ")?,
                Match::ToHere => write!(f, "fib daddr type local ")?,
                Match::ToSubnet(subnet) if subnet.is_ipv4() => write!(f, "ip daddr {subnet} ")?,
                Match::ToSubnet(subnet) => write!(f, "ip6 daddr {subnet} ")?,
                Match::ToPorts(ports) => write!(f, "tcp dport {ports} ")?,
                Match::Tcp => write!(f, "meta l4proto tcp ")?,
                Match::ToUdpPorts(ports) => write!(f, "udp dport {ports} ")?,
                Match::Icmp => write!(f, "meta l4proto icmp ")?,
                Match::Icmp6 => write!(f, "meta l4proto ipv6-icmp ")?,
                Match::Answer => write!(f, "ct state established,related ")?,
            }
        }
        match self.verdict {
            Verdict::Refuse => write!(f, "counter reject"),
            Verdict::Pass => write!(f, "return"),
            Verdict::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Capture {
        Capture {
            uid: 15014,
            inbound: 15006,
            outbound: 15001,
            open: vec![15008, 15020],
            skip_inbound: vec!["22".parse().unwrap()],
            skip_outbound: vec!["4000-4010".parse().unwrap()],
            skip_subnets: vec!["10.1.0.0/16".parse().unwrap(), "fd01::/33".parse().unwrap()],
            skip_udp: vec!["123".parse().unwrap(), "8125-8126".parse().unwrap()],
        }
    }

    #[test]
    fn rules_read_as_nft_writes_them() {
        let want = "table inet mesh_capture {
\tchain prerouting {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport 15008 return
\t\ttcp dport 15020 return
\t\ttcp dport 22 return
\t\tfib daddr type local meta l4proto tcp redirect to :15006
\t}

\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid 15014 return
\t\toifname \"lo\" return
\t\tip daddr 10.1.0.0/16 return
\t\tip6 daddr fd01::/33 return
\t\ttcp dport 4000-4010 return
\t\tmeta l4proto tcp redirect to :15001
\t}

\tchain arriving {
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname \"lo\" return
\t\tmeta l4proto tcp return
\t\tmeta l4proto icmp return
\t\tmeta l4proto ipv6-icmp return
\t\tct state established,related return
\t\tudp dport 123 return
\t\tudp dport 8125-8126 return
\t\tcounter reject
\t}

\tchain leaving {
\t\ttype filter hook output priority filter; policy accept;
\t\tmeta skuid 15014 return
\t\toifname \"lo\" return
\t\tip daddr 10.1.0.0/16 return
\t\tip6 daddr fd01::/33 return
\t\tudp dport 53 return
\t\tmeta l4proto tcp return
\t\tmeta l4proto icmp return
\t\tmeta l4proto ipv6-icmp return
\t\tct state established,related return
\t\tudp dport 123 return
\t\tudp dport 8125-8126 return
\t\tcounter reject
\t}
}
";
        assert_eq!(capture().text(), want);
    }

    #[test]
    fn the_last_rule_of_each_hook_redirects_whatever_is_left() {
        for (hook, port) in [(Hook::Prerouting, 15006), (Hook::Output, 15001)] {
            let rules = capture().rules(hook);
            let (last, before) = rules.split_last().unwrap();
            assert_eq!(last.verdict, Verdict::Redirect(port));
            assert!(before.iter().all(|rule| rule.verdict == Verdict::Pass));
            assert!(before.iter().all(|rule| !rule.matches.is_empty()));
        }
    }

    /// A protocol that nobody thought of ends at the last rule, which asks for nothing; UDP is let through by port alone.
    #[test]
    fn whatever_is_neither_redirected_nor_named_is_refused() {
        let bare = Capture {
            skip_subnets: Vec::new(),
            skip_udp: Vec::new(),
            ..capture()
        };
        for (hook, udp) in [(Hook::Arriving, 0), (Hook::Leaving, 1)] {
            for capture in [capture(), bare.clone()] {
                let rules = capture.rules(hook);
                let (last, before) = rules.split_last().unwrap();
                assert_eq!((last.verdict, last.matches.len()), (Verdict::Refuse, 0));
                assert!(before.iter().all(|rule| rule.verdict == Verdict::Pass));
                assert!(before.iter().all(|rule| !rule.matches.is_empty()));
                let ports = before.iter().flat_map(|rule| &rule.matches);
                let ports = ports.filter(|one| matches!(one, Match::ToUdpPorts(_)));
                assert_eq!(ports.count(), udp + capture.skip_udp.len(), "{hook:?}");
            }
        }
        let names = Match::ToUdpPorts(PortRange::one(53));
        let leaving = bare.rules(Hook::Leaving);
        assert!(leaving.iter().any(|rule| rule.matches == [names]));
        let arriving = bare.rules(Hook::Arriving);
        assert!(
            !arriving.iter().any(|rule| rule.matches == [names]),
            "nobody asks the workload for names"
        );
    }

    #[test]
    fn rules_that_would_capture_nothing_are_refused() {
        let skip = |ports: &str| Capture {
            skip_inbound: vec![ports.parse().unwrap()],
            ..capture()
        };
        for (faulty, want) in [
            (
                Capture {
                    uid: 0,
                    ..capture()
                },
                CaptureFault::Root,
            ),
            (
                Capture {
                    inbound: 15001,
                    ..capture()
                },
                CaptureFault::PortTwice(15001),
            ),
            (
                Capture {
                    open: vec![15006],
                    ..capture()
                },
                CaptureFault::PortTwice(15006),
            ),
            (skip("15006"), CaptureFault::OwnPortSkipped(15006)),
            (skip("1-65535"), CaptureFault::OwnPortSkipped(15001)),
            (
                Capture {
                    skip_outbound: vec![PortRange::one(1); SKIPPED_MAX + 1],
                    ..capture()
                },
                CaptureFault::TooMany(SKIPPED_MAX + 1),
            ),
            (
                Capture {
                    skip_udp: vec![PortRange::one(1); SKIPPED_MAX + 1],
                    ..capture()
                },
                CaptureFault::TooMany(SKIPPED_MAX + 1),
            ),
        ] {
            assert_eq!(faulty.check(), Err(want));
        }
        assert_eq!(capture().check(), Ok(()));
    }

    #[test]
    fn ports_and_subnets_are_read_strictly() {
        for text in [
            "0", "65536", "", "a", "1-", "-1", "5-4", "1-2-3", "+1", " 1",
        ] {
            assert!(text.parse::<PortRange>().is_err(), "{text:?}");
        }
        for text in [
            "10.1.2.3/8",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0/8",
            "a/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::1/0",
            "fd00::/7",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text:?}");
        }
        for text in [
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "10.128.0.0/9",
            "10.0.0.1",
            "fc00::/7",
            "::1",
        ] {
            assert_eq!(
                text.parse::<Subnet>()
                    .map(|subnet| subnet.to_string())
                    .as_deref(),
                Ok(text)
            );
        }
        assert_eq!("7-7".parse::<PortRange>().unwrap().to_string(), "7");
    }

    #[test]
    fn a_subnet_holds_what_begins_like_it() {
        for (subnet, ip, want) in [
            ("10.128.0.0/9", "10.255.1.1", true),
            ("10.128.0.0/9", "10.127.255.255", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("fc00::/7", "fd00::1", true),
            ("fc00::/7", "fe00::1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            let subnet: Subnet = subnet.parse().unwrap();
            assert_eq!(subnet.contains(ip.parse().unwrap()), want, "{subnet} {ip}");
        }
    }
}
