//! Load on loopback from one thread: what `wrk` does not measure.
//!
//! - `rate TO RATE SECS CONNS`: HTTP/1.1 at a fixed rate, latency from the time at which a request was due ([`rate`])
//! - `tput PORT up|down SECS CONNS`, `echo PORT SECS CONNS`: bytes against `sink PORT` ([`stream`])
//! - `hold TO COUNT SECS`: connections with one request each, then quiet, for sampling memory ([`rate::hold`])
//! - `handshakes PORT SECS CERTS NAME ALPN`: full handshakes of mutual TLS, one after another ([`handshake`])
//!
//! `TO` is a port of 127.0.0.1, or an address with one. Each prints one JSON object.

mod handshake;
mod histogram;
mod http;
mod poll;
mod rate;
mod stream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: see the head of src/main.rs");
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(usage);
    let port = |text: &str| text.parse::<u16>().map_err(|_| usage());
    let address = |text: &str| match text.parse() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().map_err(|_| usage()),
    };
    match words[..] {
        ["rate", to, per_sec, secs, conns] => rate::run(address(to)?, number(per_sec)?, number(secs)?, number(conns)? as usize),
        ["hold", to, count, secs] => rate::hold(address(to)?, number(count)? as usize, number(secs)?),
        ["tput", to, way @ ("up" | "down"), secs, conns] => {
            stream::throughput(port(to)?, way == "up", number(secs)?, number(conns)? as usize)
        }
        ["echo", to, secs, conns] => stream::echo(port(to)?, number(secs)?, number(conns)? as usize),
        ["handshakes", to, secs, certs, name, alpn] => handshake::run(port(to)?, number(secs)?, Path::new(certs), name, alpn),
        ["sink", at] => stream::sink(port(at)?),
        _ => Err(usage()),
    }
}
