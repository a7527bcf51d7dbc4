//! The command line of `mesh-proxy capture`: also what an injected pod says about its own capture.

use clap::{Args, Parser};
use mesh_proxy_core::capture::{Capture, PortRange, Subnet};

/// Redirects all TCP connections of this network namespace to its proxy, in IPv4 and IPv6, refuses UDP but for questions
/// for names, and does not succeed before a connection of its own was redirected.
#[derive(Args, Clone, Debug)]
pub struct CaptureArgs {
    /// User of the proxy, whose own connections are not redirected.
    #[arg(long, value_name = "UID", default_value_t = 15014)]
    uid: u32,
    /// Port of the proxy for redirected connections to the workload (`inbound.transparent`).
    #[arg(long, value_name = "PORT", default_value_t = 15006, value_parser = port())]
    inbound_port: u16,
    /// Port of the proxy for redirected connections of the workload (`outboundTransparent`).
    #[arg(long, value_name = "PORT", default_value_t = 15001, value_parser = port())]
    outbound_port: u16,
    /// Port of the proxy for other proxies (`inbound.mesh`), reached as it is.
    #[arg(long, value_name = "PORT", default_value_t = 15008, value_parser = port())]
    mesh_port: u16,
    /// Port of the proxy for metrics and probes (`admin.listen`), reached as it is.
    #[arg(long, value_name = "PORT", default_value_t = 15020, value_parser = port())]
    admin_port: u16,
    /// Ports of the workload that are reached without the proxy and so without any policy, `22,4000-4010`.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = range)]
    skip_inbound_ports: Vec<PortRange>,
    /// Ports elsewhere that the workload reaches without the proxy, in plaintext.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = range)]
    skip_outbound_ports: Vec<PortRange>,
    /// Addresses that the workload reaches without the proxy, in plaintext, `10.0.0.0/8,fd00::/8`.
    #[arg(long, value_name = "SUBNETS", value_delimiter = ',', value_parser = subnet)]
    skip_subnets: Vec<Subnet>,
    /// Ports of UDP, of the workload and elsewhere, that datagrams reach without any policy, `123,8125`. Datagrams to others
    /// are refused, but for questions for names (port 53).
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = range)]
    skip_udp_ports: Vec<PortRange>,
    /// Changes nothing: succeeds once these very rules are in force and a connection was redirected.
    #[arg(long, conflicts_with_all = ["remove", "print"])]
    pub check: bool,
    /// Reads no rules, which takes rights: proves it by a connection and a datagram of its own alone. For a container without
    /// rights, in a pod whose rules a CNI plugin sets.
    #[arg(long, requires = "check")]
    pub unprivileged: bool,
    /// How long to wait until it works, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with_all = ["remove", "print"])]
    pub wait: u64,
    /// Removes the rules.
    #[arg(long, conflicts_with = "print")]
    pub remove: bool,
    /// Prints the rules as `nft -f` takes them, and changes nothing.
    #[arg(long)]
    pub print: bool,
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn range(text: &str) -> Result<PortRange, &'static str> {
    text.parse()
}

fn subnet(text: &str) -> Result<Subnet, &'static str> {
    text.parse()
}

impl CaptureArgs {
    /// Reads the words of a container as the program itself would: the first is `capture`.
    ///
    /// # Errors
    /// [`ForeignWords`] if they are not those of a capture that sets or proves rules.
    pub fn of_container(words: &[String]) -> Result<Self, ForeignWords> {
        if words.first().map(String::as_str) != Some("capture") {
            return Err(ForeignWords("they do not begin with `capture`".to_owned()));
        }
        let read = Container::try_parse_from(words).map_err(|error| {
            // The first line says what is wrong; the others are for a terminal.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            ForeignWords(line.trim_start_matches("error: ").to_owned())
        })?;
        if read.args.remove || read.args.print {
            return Err(ForeignWords("they set no rules".to_owned()));
        }
        Ok(read.args)
    }

    /// What they say of rules.
    pub fn capture(&self) -> Capture {
        Capture {
            uid: self.uid,
            inbound: self.inbound_port,
            outbound: self.outbound_port,
            open: vec![self.mesh_port, self.admin_port],
            skip_inbound: self.skip_inbound_ports.clone(),
            skip_outbound: self.skip_outbound_ports.clone(),
            skip_subnets: self.skip_subnets.clone(),
            skip_udp: self.skip_udp_ports.clone(),
        }
    }
}

/// The same words where a container has them.
#[derive(Parser)]
#[command(name = "capture")]
struct Container {
    #[command(flatten)]
    args: CaptureArgs,
}

/// Words of a container that are none of a capture: why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ForeignWords(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Capture, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let args = CaptureArgs::of_container(&words).map_err(|ForeignWords(why)| why)?;
        Ok(args.capture())
    }

    #[test]
    fn the_words_of_a_container_mean_what_they_mean_to_the_command() {
        let capture =
            read("capture --uid=2102 --skip-inbound-ports=22,4000-4010 --skip-subnets=10.0.0.0/8")
                .expect("words of a capture");
        assert_eq!(capture.uid, 2102);
        assert_eq!(capture.skip_inbound.len(), 2);
        assert_eq!(capture.skip_subnets.len(), 1);
        // What proves says the same about rules as what sets them.
        assert_eq!(
            read("capture --check --unprivileged --wait=10 --uid=2102"),
            read("capture --uid=2102")
        );
    }

    #[test]
    fn words_that_set_no_rules_or_are_unknown_are_refused() {
        for text in [
            "",
            "tap",
            "--uid=1",
            "capture --remove",
            "capture --print",
            "capture --help",
            "capture --uid=x",
            "capture --uid=-1",
            "capture --nothing",
            "capture more",
            "capture --unprivileged",
            "capture --skip-inbound-ports=0",
            "capture --skip-subnets=10.1.2.3/8",
            "capture --uid=1 --uid=2",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
