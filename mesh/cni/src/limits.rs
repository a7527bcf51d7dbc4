//! Sizes and times, with what they cost.

use std::time::Duration;

/// Bytes of a network configuration, from a runtime or from disk. Real ones have up to 4 KiB, previous results included.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a token or a certificate authority.
pub const CREDENTIAL_BYTES_MAX: u64 = 1 << 20;

/// Network configurations of one node that are looked at.
pub const FILES_MAX: usize = 100;

/// Time for the API server to say what a pod is, unless the configuration says otherwise. The pod waits meanwhile, and
/// kubelet tries again after an error.
pub const LOOKUP: Duration = Duration::from_secs(10);

/// The longest time that a configuration may give it: runtimes end a plugin that takes minutes.
pub const LOOKUP_SECS_MAX: u64 = 60;

/// How often the installer looks whether all is in place. It reads a folder of a few files: less than a millisecond.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time for the API server to say whether the DaemonSet is still wanted when a pod of it ends.
pub const FAREWELL: Duration = Duration::from_secs(5);
