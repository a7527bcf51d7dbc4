//! One connection that sends a fixed request and reads whole answers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: server.bench\r\nUser-Agent: mesh-bench-load\r\nAccept: */*\r\n\r\n";

/// A connection with at most one request under way.
pub struct Connection {
    pub stream: TcpStream,
    buffer: Box<[u8; 8192]>,
    filled: usize,
}

impl Connection {
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: Box::new([0; 8192]), filled: 0 })
    }

    pub fn send(&mut self) -> io::Result<()> {
        match self.stream.write(REQUEST)? {
            sent if sent == REQUEST.len() => Ok(()),
            _ => Err(io::Error::other("the request did not fit the socket's buffer")),
        }
    }

    /// Reads what is there. `Some(status)` once an answer is whole.
    pub fn receive(&mut self) -> io::Result<Option<u16>> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            let Some((status, whole)) = head(&self.buffer[..self.filled]) else { continue };
            if self.filled >= whole {
                self.filled = 0;
                return Ok(Some(status));
            }
        }
    }
}

/// Status and length of the whole answer, once its head is there. Bodies without a length end with the last chunk.
fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) => Some((status, end + length)),
        None if bytes[end..].ends_with(b"0\r\n\r\n") => Some((status, bytes.len())),
        None => None,
    }
}
