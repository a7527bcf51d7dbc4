//! `mesh-proxy capture`: sets, proves, shows or removes the redirection of this network namespace.

use mesh_proxy::capture::{self, CaptureArgs, CaptureError, Proof};
use mesh_proxy_core::capture::{Capture, PortRange};
use std::io::{self, Write};
use std::time::Duration;

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
    let wait = Duration::from_secs(args.wait);
    let proof = match args.unprivileged {
        true => capture::prove(&capture, wait)?,
        false => capture::validate(&capture, wait)?,
    };
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
