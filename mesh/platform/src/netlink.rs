//! Netlink: requests to the kernel's network tables, each acknowledged or refused.
//!
//! Only what capture and network namespaces need: messages with nested attributes ([`Message`]), sent as one piece
//! ([`Netlink::transact`]) or as a question with many answers ([`Netlink::dump`]). Formats: netlink(7), rtnetlink(7),
//! linux/netfilter/nf_tables.h.

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Largest answer that is read at once; the kernel sends dumps in pieces of at most 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The kernel answers within the call; were it silent, this ends the wait.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Bytes of a message's head.
const HEAD_BYTES: usize = 16;
/// Bytes of an attribute's head.
const ATTRIBUTE_HEAD_BYTES: usize = 4;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`: make it if it is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: fail if it is there.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_APPEND`: at the end.
pub const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLMSG_ERROR`, which acknowledges too.
const ERROR: u16 = 0x2;
/// `NLMSG_DONE`.
const DONE: u16 = 0x3;

/// Which tables a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// Packet filters.
    Netfilter,
}

/// One request, built from the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
    acknowledged: bool,
}

impl Message {
    /// A request of type `kind` with `flags` beyond the usual ones, beginning with the fixed `head` of its kind.
    pub fn new(kind: u16, flags: u16, head: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]); // sequence number, set when it is sent, and port
        bytes.extend(head);
        Self {
            bytes,
            acknowledged: true,
        }
    }

    /// A message that frames others and is not acknowledged itself.
    pub fn frame(kind: u16, head: &[u8]) -> Self {
        let mut message = Self::new(kind, 0, head);
        message.set_flags(REQUEST);
        message.acknowledged = false;
        message
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.bytes, kind, value);
        self
    }

    /// Adds an attribute of text, ended by a zero byte.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        let value = terminated(text);
        self.with(kind, &value)
    }

    /// Adds an attribute that holds others.
    #[must_use]
    pub fn with_nested(self, kind: u16, inside: &Attributes) -> Self {
        self.with(kind | NESTED, &inside.0)
    }

    fn set_flags(&mut self, flags: u16) {
        overwrite(&mut self.bytes, 6, &flags.to_ne_bytes());
    }

    /// The bytes as they are sent.
    fn finished(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        overwrite(&mut self.bytes, 0, &length.to_ne_bytes());
        overwrite(&mut self.bytes, 8, &sequence.to_ne_bytes());
        self.bytes
    }
}

/// Attributes inside an attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    /// Adds an attribute of text, ended by a zero byte.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        let value = terminated(text);
        self.with(kind, &value)
    }

    /// Adds an attribute that holds others.
    #[must_use]
    pub fn with_nested(self, kind: u16, inside: &Self) -> Self {
        self.with(kind | NESTED, &inside.0)
    }

    /// Adds a number as the packet filter wants it: most significant byte first.
    #[must_use]
    pub fn with_number(self, kind: u16, number: u32) -> Self {
        self.with(kind, &number.to_be_bytes())
    }
}

/// One answer: its type, and what follows its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Type of the message.
    pub kind: u16,
    /// Everything after the sixteen bytes that all messages begin with.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of attribute `kind`, after a fixed head of `head` bytes.
    pub fn attribute(&self, head: usize, kind: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(head..)?;
        loop {
            let length = usize::from(number(rest, 0)?);
            let found = number(rest, 2)? & !NESTED;
            if found == kind {
                return rest.get(ATTRIBUTE_HEAD_BYTES..length);
            }
            rest = rest.get(padded(length.max(ATTRIBUTE_HEAD_BYTES))..)?;
        }
    }
}

/// A socket to the kernel, of the network namespace in which it was made.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol: Option<Protocol> = match family {
            Family::Route => None, // it is number 0, which rustix calls none
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends `messages` as one piece and waits until each is acknowledged.
    ///
    /// # Errors
    /// The first refusal. Whether the others took effect is for their kind to say: a batch of packet filter messages
    /// takes effect whole or not at all.
    pub fn transact(&mut self, messages: impl IntoIterator<Item = Message>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        for message in messages {
            self.sequence += 1;
            if message.acknowledged {
                waiting.push(self.sequence);
            }
            bytes.extend(message.finished(self.sequence));
        }
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut refused = None;
        while !waiting.is_empty() {
            for (sequence, answer) in self.receive()? {
                if answer.kind != ERROR {
                    continue;
                }
                if let Some(errno) = errno(&answer.body) {
                    // The refusal of a frame is one of everything in it, and nothing else may follow.
                    if !waiting.contains(&sequence) {
                        return Err(errno.into());
                    }
                    refused.get_or_insert(errno);
                }
                waiting.retain(|number| *number != sequence);
            }
        }
        refused.map_or(Ok(()), |errno| Err(errno.into()))
    }

    /// Asks a question that has many answers.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` if what is asked about is not there.
    pub fn dump(&mut self, mut question: Message) -> io::Result<Vec<Answer>> {
        question.set_flags(REQUEST | DUMP);
        self.sequence += 1;
        let sequence = self.sequence;
        send(
            &self.socket,
            &question.finished(sequence),
            SendFlags::empty(),
        )?;
        let mut answers = Vec::new();
        loop {
            for (_, answer) in self
                .receive()?
                .into_iter()
                .filter(|(of, _)| *of == sequence)
            {
                match answer.kind {
                    DONE => return Ok(answers),
                    ERROR => {
                        let errno = errno(&answer.body).unwrap_or(Errno::INVAL);
                        return Err(errno.into());
                    }
                    _ => answers.push(answer),
                }
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<(u32, Answer)>> {
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let (length, _) = recv(&self.socket, &mut buffer, RecvFlags::empty())?;
        let piece = buffer.get(..length).unwrap_or_default();
        split(piece).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// The messages in one piece, each with its sequence number; `None` if it is malformed.
fn split(mut piece: &[u8]) -> Option<Vec<(u32, Answer)>> {
    let mut answers = Vec::new();
    while piece.len() >= HEAD_BYTES {
        let head = piece.first_chunk::<HEAD_BYTES>()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *head;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = piece.get(HEAD_BYTES..length)?.to_vec();
        let kind = u16::from_ne_bytes([k0, k1]);
        answers.push((u32::from_ne_bytes([s0, s1, s2, s3]), Answer { kind, body }));
        piece = piece.get(padded(length)..).unwrap_or_default();
    }
    Some(answers)
}

/// The refusal in an error message; `None` if it is an acknowledgement.
fn errno(body: &[u8]) -> Option<Errno> {
    let code = body.first_chunk::<4>().copied().map(i32::from_ne_bytes);
    match code {
        Some(0) => None,
        Some(code) => Some(Errno::from_raw_os_error(code.saturating_neg())),
        None => Some(Errno::BADMSG),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*pair))
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEAD_BYTES + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(padded(bytes.len()), 0);
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// `length` rounded up to whole words of four bytes.
const fn padded(length: usize) -> usize {
    length.div_ceil(4) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_the_kernel_reads() {
        let inside = Attributes::default()
            .with_number(2, 0x0102)
            .with_text(1, "lo");
        let message = Message::new(0x0a06, CREATE, &[2, 0, 0, 0])
            .with_text(1, "abc")
            .with_nested(4, &inside);
        let bytes = message.finished(7);
        let le = cfg!(target_endian = "little");
        assert!(le, "the bytes below are of a little-endian machine");
        let want = [
            &[48, 0, 0, 0, 0x06, 0x0a, 5, 4, 7, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 0, 0, 0],
            &[8, 0, 1, 0, b'a', b'b', b'c', 0],
            &[20, 0, 4, 0x80],
            &[8, 0, 2, 0, 0, 0, 1, 2],
            &[7, 0, 1, 0, b'l', b'o', 0, 0],
        ];
        assert_eq!(bytes, want.concat());
    }

    #[test]
    fn answers_are_split_and_malformed_ones_are_refused() {
        let one = Message::new(2, 0, &0i32.to_ne_bytes()).finished(1);
        let two = Message::new(2, 0, &(-17i32).to_ne_bytes()).finished(2);
        let both = split(&[one.clone(), two].concat()).unwrap();
        let codes: Vec<_> = both.iter().map(|(of, a)| (*of, errno(&a.body))).collect();
        assert_eq!(codes, [(1, None), (2, Some(Errno::EXIST))]);
        let mut short = one.clone();
        short[0] = 4;
        assert_eq!(split(&short), None, "shorter than its head");
        let mut long = one;
        long[0] = 200;
        assert_eq!(split(&long), None, "longer than what came");
        assert_eq!(errno(&[1]), Some(Errno::BADMSG));
    }

    #[test]
    fn attributes_are_found_and_broken_ones_end_the_search() {
        let message = Message::new(9, 0, &[1, 2, 3, 4])
            .with(1, b"xy")
            .with_text(2, "name");
        let (_, answer) = split(&message.finished(1)).unwrap().remove(0);
        assert_eq!(answer.attribute(4, 1), Some(&b"xy"[..]));
        assert_eq!(answer.attribute(4, 2), Some(&b"name\0"[..]));
        assert_eq!(answer.attribute(4, 3), None);
        let zero = Answer {
            kind: 9,
            body: vec![0; 64],
        };
        assert_eq!(zero.attribute(0, 1), None, "a length of nothing is no loop");
    }

    #[test]
    fn the_kernel_tells_of_the_loopback_interface() {
        let mut netlink = Netlink::open(Family::Route).unwrap();
        // RTM_GETLINK, struct ifinfomsg; IFLA_IFNAME is attribute 3.
        let links = netlink.dump(Message::new(18, 0, &[0; 16])).unwrap();
        let names: Vec<_> = links.iter().filter_map(|l| l.attribute(16, 3)).collect();
        assert!(names.contains(&&b"lo\0"[..]), "{names:?}");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut netlink = Netlink::open(Family::Route).unwrap();
        // RTM_NEWLINK of nothing at all.
        let error = netlink
            .transact([Message::new(16, 0, &[0; 16])])
            .unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
