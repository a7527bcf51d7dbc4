//! The one door to the world: clocks, randomness, files, sockets by path, processes, signals.
//!
//! Edges get the world as an `Arc<dyn Platform>` where a test must be able to set it, and through plain functions
//! where the kernel itself is what is used (a socket's peer, a lock).
//!
//! - [`Platform`], [`System`], [`Tick`]: clocks, randomness, reading files
//! - [`files`]: whole files or none, append-only files, private directories
//! - [`unix`]: Unix sockets that nobody else can open
//! - [`process`]: who is at the other end, and is it still the same process
//! - [`confine`]: what a process gives up for good
//! - [`systemd`]: which unit a process belongs to
//! - [`lock`]: one process per state directory
//! - [`netlink`]: the kernel's network tables
//! - [`net_namespace`]: a network of a process's own
//! - [`handover`]: open files for another process
//! - [`tree_log`], [`tiles`], [`log_files`]: logs on disk with their Merkle trees, written and read
//! - [`audit_log`]: the thread that owns such a log
//! - [`signals`]: the wish to end
//! - [`error`]: what the operating system refused, with its code

pub mod audit_log;
pub mod confine;
pub mod error;
pub mod files;
pub mod handover;
pub mod lock;
pub mod log_files;
pub mod net_namespace;
pub mod netlink;
pub mod process;
pub mod signals;
mod system;
pub mod systemd;
pub mod tiles;
pub mod tree_log;
pub mod unix;

pub use error::PlatformError;
pub use system::{Platform, System, Tick};
