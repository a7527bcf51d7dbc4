//! HTTP at a fixed rate, whatever comes back. Latency counts from the time at which a request was due, so a stall shows in
//! every request that it delayed and not only in the one that met it.

use crate::histogram::Histogram;
use crate::http::Connection;
use crate::poll::{Interest, Poll};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const GRACE: Duration = Duration::from_secs(3);

pub fn run(to: SocketAddr, per_sec: u64, secs: u64, conns: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut connections = open_warm(&poll, to, conns)?;
    let mut free: Vec<usize> = (0..conns).collect();
    let mut due_of = vec![Instant::now(); conns];
    let (mut latencies, mut lag) = (Histogram::new(), Duration::ZERO);
    let (mut sent, mut done, mut not_200, mut errors) = (0_u64, 0_u64, 0_u64, 0_u64);
    let total = per_sec * secs;
    let start = Instant::now() + Duration::from_millis(1);
    let due = |number: u64| start + Duration::from_nanos(number * 1_000_000_000 / per_sec);
    let end = start + Duration::from_secs(secs) + GRACE;
    while done + errors < total && Instant::now() < end {
        while sent < total && due(sent) <= Instant::now() {
            let Some(number) = free.pop() else { break };
            lag = lag.max(due(sent).elapsed());
            due_of[number] = due(sent);
            sent += 1;
            if connections[number].send().is_err() {
                errors += 1;
            }
        }
        if sent < total && !free.is_empty() {
            poll.wake_in(due(sent).saturating_duration_since(Instant::now()))?;
        }
        for number in poll.wait()? {
            match connections[number].receive() {
                Ok(None) => continue,
                Ok(Some(status)) => {
                    latencies.record(due_of[number].elapsed());
                    not_200 += u64::from(status != 200);
                    done += 1;
                    free.push(number);
                }
                Err(_) => {
                    errors += 1;
                    poll.remove(&connections[number].stream)?;
                }
            }
        }
    }
    errors += total - done - errors;
    let took = start.elapsed().as_secs_f64();
    println!(
        "{{\"requests\":{done},\"errors\":{errors},\"not_200\":{not_200},\"requests_per_sec\":{:.1},{},\"send_lag_max_us\":{}}}",
        done as f64 / took,
        latencies.json(),
        lag.as_micros()
    );
    Ok(())
}

/// Opens `count` connections, sends one request on each, keeps them quiet for `secs`. Prints as soon as all are answered.
pub fn hold(to: SocketAddr, count: usize, secs: u64) -> io::Result<()> {
    let poll = Poll::new()?;
    let connections = open_warm(&poll, to, count)?;
    println!("{{\"held\":{}}}", connections.len());
    std::thread::sleep(Duration::from_secs(secs));
    Ok(())
}

/// Connections that have answered once, so that what they need is there before anything is measured.
fn open_warm(poll: &Poll, to: SocketAddr, count: usize) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let mut connection = Connection::open(to)?;
        connection.send()?;
        let begun = Instant::now();
        while connection.receive()?.is_none() {
            if begun.elapsed() > Duration::from_secs(5) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        poll.add(&connection.stream, number, Interest::Read)?;
        connections.push(connection);
    }
    Ok(connections)
}
