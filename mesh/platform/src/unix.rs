//! Unix sockets: born with their mode, never in the place of something that lives.

use crate::PlatformError;
use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, listen,
    socket_with,
};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Bytes of a path that fit into `sockaddr_un` beside its terminating zero (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// Connections that wait to be accepted; a Workload API sees all workloads of a machine at once after a restart.
const BACKLOG: i32 = 1_024;

/// Listens on `path` with exactly the permission bits of `mode`. The listener is non-blocking, ready for tokio.
///
/// A socket that a dead process left is removed, but only after a connection to it was refused. The mode is set before
/// the name exists, so nobody can connect in between.
///
/// # Errors
/// [`PlatformError::SocketInUse`] if somebody answers, [`PlatformError::NotASocket`] if the name is taken by something
/// else, [`PlatformError::SocketPathLength`] beyond [`SOCKET_PATH_MAX`], and others naming the path.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, PlatformError> {
    check_length(path)?;
    remove_stale(path)?;
    let failed = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::ADDRINUSE => PlatformError::SocketInUse {
            path: path.to_owned(),
        },
        other => PlatformError::from_io("listen on", path, other.into()),
    };
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(failed)?;
    // Linux gives the new name the mode of the socket's own inode, less the umask.
    fchmod(&socket, Mode::from_raw_mode(mode)).map_err(failed)?;
    bind_socket(&socket, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|source| PlatformError::from_io("set the mode of", path, source))?;
    listen(&socket, BACKLOG).map_err(failed)?;
    Ok(UnixListener::from(socket))
}

fn check_length(path: &Path) -> Result<(), PlatformError> {
    let length = path.as_os_str().as_bytes().len();
    if length > SOCKET_PATH_MAX {
        return Err(PlatformError::SocketPathLength {
            path: path.to_owned(),
            length,
            limit: SOCKET_PATH_MAX,
        });
    }
    Ok(())
}

/// Removes the socket of a process that is gone.
fn remove_stale(path: &Path) -> Result<(), PlatformError> {
    let failed = |source| PlatformError::from_io("listen on", path, source);
    match std::fs::symlink_metadata(path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(PlatformError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(PlatformError::SocketInUse {
            path: path.to_owned(),
        }),
        Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
            match std::fs::remove_file(path) {
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome.map_err(failed),
            }
        }
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_socket_has_its_mode_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        for mode in [0o600, 0o666] {
            let listener = bind(&path, mode).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, mode);
            UnixStream::connect(&path).unwrap();
            drop(listener);
            assert!(path.exists(), "a dropped listener leaves its name");
        }
    }

    #[test]
    fn a_socket_that_answers_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let _living = bind(&path, 0o600).unwrap();
        assert!(matches!(
            bind(&path, 0o600),
            Err(PlatformError::SocketInUse { .. })
        ));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        std::fs::File::create(&path).unwrap();
        assert!(matches!(
            bind(&path, 0o600),
            Err(PlatformError::NotASocket { .. })
        ));
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        assert!(matches!(
            bind(&link, 0o600),
            Err(PlatformError::NotASocket { .. })
        ));
    }

    #[test]
    fn a_path_beyond_the_kernels_limit_is_refused_with_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let fits = SOCKET_PATH_MAX - dir.path().as_os_str().len() - 1;
        bind(&dir.path().join("s".repeat(fits)), 0o600).unwrap();
        let error = bind(&dir.path().join("s".repeat(fits + 1)), 0o600).unwrap_err();
        assert!(
            matches!(error, PlatformError::SocketPathLength { length: 108, .. }),
            "{error}"
        );
    }
}
