//! Every bound of asking for SVIDs, with its reason.

use std::time::Duration;

/// Pauses between attempts at the first SVID, doubled each time: a pod that starts waits for nothing else.
pub const FIRST_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long one answer may take. An issuance takes milliseconds; the CA itself gives up on a token after 5 s.
pub const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of an answer: a chain, and bundles of all federated domains.
pub const REPLY_BYTES_MAX: usize = 4 << 20;

/// How often the bundle file is looked at.
pub const FILES_POLL: Duration = Duration::from_secs(2);

/// Longest sleep at a time: the wall clock may jump meanwhile.
pub const WAIT_MAX: Duration = Duration::from_secs(1);

/// Time over which a wave of a rotation asks for its SVIDs: as short as a person notices, long enough for some thousands.
pub const RENEW_SPREAD: Duration = Duration::from_millis(500);

/// Octets of what a node is told: the bundles of [`REPLY_BYTES_MAX`], keys for tokens, and the longest deny list.
pub const NODE_UPDATE_BYTES_MAX: usize = 16 << 20;
