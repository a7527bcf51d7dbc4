//! Open files that one process hands to another over a Unix socket (unix(7), `SCM_RIGHTS`), with a few bytes that say what
//! they are.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Files in one message.
pub const FILES_MAX: usize = 8;
/// Bytes beside them.
pub const BYTES_MAX: usize = 4 * 1024;

/// Hands files over. `bytes` is not empty, and goes in one piece.
///
/// # Errors
/// What the kernel says; `InvalidInput` for more than a message holds.
pub fn send(stream: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > BYTES_MAX || files.len() > FILES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    if sent == bytes.len() {
        return Ok(());
    }
    Err(io::ErrorKind::WriteZero.into())
}

/// Takes one message. No bytes: the other side has gone. The files close with a program that this one becomes.
///
/// # Errors
/// What the kernel says.
pub fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    bytes.truncate(received.bytes);
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handed) = message {
            files.extend(handed);
        }
    }
    Ok((bytes, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_handed_over_is_the_same_file() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        send(&here, b"a pipe", &[other.as_fd()]).unwrap();
        let (bytes, mut files) = receive(&there).unwrap();
        assert_eq!((bytes.as_slice(), files.len()), (&b"a pipe"[..], 1));
        let mut handed = UnixStream::from(files.remove(0));
        handed.write_all(b"x").unwrap();
        let mut seen = [0];
        one.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"x");
    }

    #[test]
    fn too_much_is_refused_and_an_end_is_seen() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = there.as_fd();
        for (bytes, files) in [
            (&b""[..], &[][..]),
            (&[1; BYTES_MAX + 1], &[]),
            (b"x", &[file; FILES_MAX + 1]),
        ] {
            assert!(send(&here, bytes, files).is_err());
        }
        drop(here);
        let (bytes, files) = receive(&there).unwrap();
        assert!(bytes.is_empty() && files.is_empty());
    }
}
