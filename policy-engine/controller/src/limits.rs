//! Every bound of the controller, with its cost and reason.

use std::time::Duration;

/// Files that count as manifests. Ten thousand services with ten files each.
pub const FILES_MAX: usize = 100_000;

/// Bytes of one file that are read: one more than the index takes, so that it can say the file is too large.
pub const FILE_BYTES_READ: u64 = mesh_policy_index::limits::FILE_BYTES_MAX as u64 + 1;

/// Bytes of all files; parsed they take about ten times as much memory.
pub const SOURCE_BYTES_MAX: u64 = 256 << 20;

/// Directories below one another; more is a loop or a mistake.
pub const DEPTH_MAX: usize = 32;

/// Quiet time after a change before the files are read: an editor's several steps become one change.
pub const SETTLE: Duration = Duration::from_millis(2);

/// The longest that steady changes may put reading off.
pub const SETTLE_MAX: Duration = Duration::from_millis(50);

/// How long a file that had content and is empty now is given to be filled again: most writers truncate first.
pub const EMPTY_GRACE: Duration = Duration::from_millis(50);

/// How often files are compared without being told of a change: for file systems that tell nothing.
pub const POLL: Duration = Duration::from_secs(2);

/// Connections of proxies, at about 60 KiB each.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Handshakes at a time, each about 0.3 ms of one core; more wait in the kernel's queue.
pub const HANDSHAKES_MAX: usize = 64;

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams that one proxy may open; it needs two, and a third for a report.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 8;

/// Silence after which a proxy is asked whether it lives, and how long it has to answer. A stalled one is found
/// within the sum.
pub const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// How long a workload that is in no manifest may wait to appear before it is told that everything is denied: its
/// manifest may be written at this moment.
pub const UNKNOWN_GRACE: Duration = Duration::from_secs(1);

/// Bytes of a namespace or workload name that a proxy may ask for (Kubernetes: 253).
pub const NAME_BYTES_MAX: usize = 253;

/// Bytes of what a proxy says of its policy: a grant, and the case in which it differs.
pub const REPORT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of an update up to which it carries a candidate beside the policy: a proxy takes 64 MiB, and an update that it does
/// not take would keep a change of policy from it.
pub const CANDIDATE_UPDATE_BYTES_MAX: usize = 48 << 20;

/// Bytes of slices in a message of discovery, after which another one begins: what is ready for each of a thousand proxies
/// that all connect at once lies in memory. A single slice that is larger travels whole.
pub const DISCOVERY_MESSAGE_BYTES: usize = 32 << 10;

/// States of discovery that are kept while proxies may be reading them, and how much they may have that the newest has not.
/// A proxy that is slower begins with the newest.
pub const RECENT_MAX: usize = 64;

/// See [`RECENT_MAX`].
pub const RECENT_BYTES_MAX: usize = 16 << 20;

/// Pauses between attempts to get an SVID, doubled each time.
pub const IDENTITY_RETRY: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(5));

/// How long open streams may take to end at a shutdown.
pub const DRAIN: Duration = Duration::from_millis(500);

/// Pause after a change before statuses are compared: changes come together, and each look is at every object.
pub const STATUS_SETTLE: Duration = Duration::from_millis(100);

/// How long proxies may take to hold a policy before a status says that they do not: a status that is right at once is
/// written once, and a change that reaches everybody soon is no news.
pub const STATUS_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before a status that could not be written is tried again.
pub const STATUS_RETRY: Duration = Duration::from_secs(10);

/// Changes of policy whose effect is not found yet. Each holds the policy before it.
pub const EFFECTS_QUEUED_MAX: usize = 64;

/// How long a controller that ends looks for effects of changes that it made.
pub const EFFECTS_DRAIN: Duration = Duration::from_secs(5);
