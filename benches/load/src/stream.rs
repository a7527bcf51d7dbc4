//! Bytes: throughput one way, ping-pong, and the sink behind the proxies that answers both.
//!
//! The first byte of a connection tells the sink what to do: `U` take, `D` send, `E` send back.

use crate::histogram::Histogram;
use crate::poll::{Interest, Poll};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const PIECE: usize = 256 * 1024;
const PING: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);

fn open(port: u16, mode: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[mode])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Moves what can be moved now, in at most four pieces. `None`: the connection is over.
fn move_bytes(stream: &mut TcpStream, up: bool, piece: &mut [u8]) -> Option<u64> {
    let mut moved = 0;
    for _ in 0..4 {
        match if up { stream.write(piece) } else { stream.read(piece) } {
            Ok(0) => return None,
            Ok(count) => moved += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    Some(moved)
}

pub fn throughput(port: u16, up: bool, secs: u64, conns: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for number in 0..conns {
        let stream = open(port, if up { b'U' } else { b'D' })?;
        poll.add(&stream, number, if up { Interest::Write } else { Interest::Read })?;
        streams.push(stream);
    }
    let mut piece = vec![0; PIECE];
    let counted_from = Instant::now() + WARM_UP;
    let end = counted_from + Duration::from_secs(secs);
    let mut bytes = 0;
    while Instant::now() < end {
        for number in poll.wait()? {
            let moved = move_bytes(&mut streams[number], up, &mut piece).ok_or(io::ErrorKind::UnexpectedEof)?;
            if Instant::now() >= counted_from {
                bytes += moved;
            }
        }
    }
    let gbit = bytes as f64 * 8.0 / counted_from.elapsed().as_secs_f64() / 1e9;
    println!("{{\"requests\":0,\"bytes\":{bytes},\"gbit_per_sec\":{gbit:.3}}}");
    Ok(())
}

pub fn echo(port: u16, secs: u64, conns: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let (mut streams, mut sent_at) = (Vec::new(), Vec::new());
    for number in 0..conns {
        let mut stream = open(port, b'E')?;
        poll.add(&stream, number, Interest::Read)?;
        stream.write_all(&[0; PING])?;
        streams.push(stream);
        sent_at.push(Instant::now());
    }
    let (mut latencies, mut done) = (Histogram::new(), 0_u64);
    let begun = Instant::now();
    let mut ping = [0; PING];
    while begun.elapsed() < Duration::from_secs(secs) {
        for number in poll.wait()? {
            if streams[number].read(&mut ping)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            latencies.record(sent_at[number].elapsed());
            done += 1;
            sent_at[number] = Instant::now();
            streams[number].write_all(&ping)?;
        }
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    println!("{{\"requests\":{done},\"requests_per_sec\":{rate:.1},{}}}", latencies.json());
    Ok(())
}

/// Serves until it is stopped.
pub fn sink(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, 0, Interest::Read)?;
    let (mut open, mut next): (HashMap<usize, (TcpStream, u8)>, usize) = (HashMap::new(), 1);
    let mut piece = vec![0; PIECE];
    loop {
        for number in poll.wait()? {
            if number == 0 {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    poll.add(&stream, next, Interest::Read)?;
                    open.insert(next, (stream, 0));
                    next += 1;
                }
            } else if let Some((stream, mode)) = open.get_mut(&number) {
                if serve(&poll, number, stream, mode, &mut piece).is_none() {
                    open.remove(&number);
                }
            }
        }
    }
}

fn serve(poll: &Poll, number: usize, stream: &mut TcpStream, mode: &mut u8, piece: &mut [u8]) -> Option<()> {
    match mode {
        0 => {
            let mut first = [0];
            stream.read_exact(&mut first).ok()?;
            *mode = first[0];
            if *mode == b'D' {
                poll.change(&*stream, number, Interest::Write).ok()?;
            }
        }
        b'U' => drop(move_bytes(stream, false, piece)?),
        b'D' => drop(move_bytes(stream, true, piece)?),
        b'E' => match stream.read(&mut piece[..4096]) {
            Ok(0) => return None,
            Ok(count) => stream.write_all(&piece[..count]).ok()?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        },
        _ => return None,
    }
    Some(())
}
