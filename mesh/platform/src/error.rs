//! What the operating system refused: where, why, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A refusal of the operating system, sorted by what the operator can do.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum PlatformError {
    /// We may not.
    #[error("no permission to {doing} `{path}`")]
    #[diagnostic(
        code("MESH-0801"),
        help(
            "run as the user who owns it, or give that user access: `ls -ld` shows owner and mode"
        )
    )]
    Permission {
        /// What was tried, as a verb.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The file system is full, or a quota is.
    #[error("no space left to {doing} `{path}`")]
    #[diagnostic(
        code("MESH-0802"),
        help("free space or inodes on that file system (`df -h`, `df -i`), or raise the quota")
    )]
    NoSpace {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Nothing has this name.
    #[error("cannot {doing} `{path}`: it does not exist")]
    #[diagnostic(
        code("MESH-0803"),
        help("check the path; a state directory of a mesh is made by `mesh up`")
    )]
    NotFound {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A directory where a file was meant, or the reverse.
    #[error("cannot {doing} `{path}`: {why}")]
    #[diagnostic(
        code("MESH-0804"),
        help("move what stands there out of the way, or name another path")
    )]
    WrongKind {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What stands there.
        why: &'static str,
    },
    /// The file system takes no writes.
    #[error("cannot {doing} `{path}`: the file system is read-only")]
    #[diagnostic(
        code("MESH-0805"),
        help("choose a state directory on a writable file system (`--state DIR`)")
    )]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A file beyond the limit of its reader.
    #[error("`{path}` has more than {limit_bytes} bytes")]
    #[diagnostic(
        code("MESH-0806"),
        help("it is not the file that was meant, or must be split")
    )]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// Bytes that the reader takes.
        limit_bytes: u64,
    },
    /// Not text.
    #[error("`{path}` is not UTF-8 text: byte {offset} is no part of a character")]
    #[diagnostic(code("MESH-0807"), help("save it as UTF-8"))]
    NotText {
        /// Where.
        path: PathBuf,
        /// Index of the first bad byte.
        offset: usize,
    },
    /// Any other refusal, in the words of the system.
    #[error("cannot {doing} `{path}`")]
    #[diagnostic(
        code("MESH-0808"),
        help("the cause below is the operating system's; look at that device or limit")
    )]
    Other {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A socket path that the kernel cannot hold.
    #[error("socket path `{path}` has {length} bytes; the kernel takes {limit}")]
    #[diagnostic(
        code("MESH-0810"),
        help("choose a state directory with a shorter path (`--state DIR`)")
    )]
    SocketPathLength {
        /// Where.
        path: PathBuf,
        /// Its length.
        length: usize,
        /// The most that fits.
        limit: usize,
    },
    /// Somebody answers there already.
    #[error("another process answers on socket `{path}`")]
    #[diagnostic(
        code("MESH-0811"),
        help("end the other process (`mesh status` names it), or use another state directory")
    )]
    SocketInUse {
        /// Where.
        path: PathBuf,
    },
    /// The name is taken by something that is no socket; it is left alone.
    #[error("`{path}` exists and is no socket")]
    #[diagnostic(
        code("MESH-0812"),
        help("move it out of the way; it is never overwritten")
    )]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// Somebody holds the lock.
    #[error("`{path}` is locked by {}", holder_text(*.holder))]
    #[diagnostic(
        code("MESH-0813"),
        help(
            "another mesh runs on this state directory: end it with `mesh down`, or use `--state DIR`"
        )
    )]
    Locked {
        /// Where.
        path: PathBuf,
        /// Who, if the file says so.
        holder: Option<u32>,
    },
    /// A process that is gone, or is not what it was.
    #[error("cannot {doing} process {pid}: {why}")]
    #[diagnostic(
        code("MESH-0814"),
        help("the process ended or may not be looked at by this user; start it again")
    )]
    Process {
        /// What was tried.
        doing: &'static str,
        /// Which.
        pid: u32,
        /// Why not.
        why: String,
    },
    /// The kernel refused something that concerns no file.
    #[error("the kernel refused to {doing}")]
    #[diagnostic(
        code("MESH-0815"),
        help("the cause below is the kernel's; a sandbox or a limit may forbid it")
    )]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

impl PlatformError {
    /// Sorts what the system answered when `doing` was tried on `path`.
    pub fn from_io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { doing, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { doing, path }
            }
            io::ErrorKind::NotFound => Self::NotFound { doing, path },
            io::ErrorKind::NotADirectory => Self::WrongKind {
                doing,
                path,
                why: "a part of the path is not a directory",
            },
            io::ErrorKind::IsADirectory => Self::WrongKind {
                doing,
                path,
                why: "it is a directory",
            },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { doing, path },
            _ => Self::Other {
                doing,
                path,
                source,
            },
        }
    }

    /// Whether nothing was there: often no failure at all.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether waiting or cleaning up may help without any change of ours: full or failing storage.
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. } | Self::ReadOnly { .. } | Self::Other { .. }
        )
    }
}
