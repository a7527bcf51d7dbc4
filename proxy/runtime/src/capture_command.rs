//! `mesh-proxy capture`: sets, proves, shows or removes the redirection of this network namespace.

use clap::Args;
use mesh_proxy::capture::{self, CaptureError, Proof};
use mesh_proxy_core::capture::{Capture, PortRange, Subnet};
use std::io::{self, Write};
use std::time::Duration;

/// Redirects all TCP connections of this network namespace to its proxy, in IPv4 and IPv6, refuses UDP but for questions
/// for names, and does not succeed before a connection of its own was redirected.
#[derive(Args, Clone, Debug)]
pub(crate) struct CaptureArgs {
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
    check: bool,
    /// How long to wait until it works, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with_all = ["remove", "print"])]
    wait: u64,
    /// Removes the rules.
    #[arg(long, conflicts_with = "print")]
    remove: bool,
    /// Prints the rules as `nft -f` takes them, and changes nothing.
    #[arg(long)]
    print: bool,
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
    fn capture(&self) -> Capture {
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

/// Does what the command line asks for.
///
/// # Errors
/// [`CaptureError`] with what to do.
pub(crate) fn run(args: &CaptureArgs) -> Result<(), CaptureError> {
    let capture = args.capture();
    capture.check()?;
    if args.print {
        return say(&capture.text());
    }
    if args.remove {
        capture::remove()?;
        return say("nothing is redirected any more\n");
    }
    if !args.check {
        capture::install(&capture)?;
    }
    let proof = capture::validate(&capture, Duration::from_secs(args.wait))?;
    say(&format!("{}\n", told(&capture, proof)))
}

fn told(capture: &Capture, proof: Proof) -> String {
    let families = match (proof.ipv4, proof.ipv6) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4 (there is no way out in IPv6)",
        _ => "IPv6 (there is no way out in IPv4)",
    };
    let mut text = format!("connections are redirected, in {families}");
    let list = |ranges: &[PortRange]| {
        let shown: Vec<_> = ranges.iter().map(ToString::to_string).collect();
        shown.join(",")
    };
    if !capture.skip_inbound.is_empty() {
        text += &format!(
            "\nunprotected: ports {} of the workload",
            list(&capture.skip_inbound)
        );
    }
    if !capture.skip_udp.is_empty() {
        text += &format!("\nunprotected: UDP at ports {}", list(&capture.skip_udp));
    }
    if !capture.skip_outbound.is_empty() {
        text += &format!(
            "\nunprotected: connections to ports {}",
            list(&capture.skip_outbound)
        );
    }
    if !capture.skip_subnets.is_empty() {
        let shown: Vec<_> = capture
            .skip_subnets
            .iter()
            .map(ToString::to_string)
            .collect();
        text += &format!("\nunprotected: connections to {}", shown.join(","));
    }
    text
}

fn say(text: &str) -> Result<(), CaptureError> {
    // Whoever closed stdout does not want to know.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}
