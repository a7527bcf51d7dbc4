//! How long a logged text may be. What strangers send must not fill the disk; what was cut is said beside it.

/// Bytes kept of a method; real ones have at most 17.
pub const METHOD_BYTES_MAX: usize = 64;

/// Bytes kept of a path, raw or canonical. Most servers refuse longer ones.
pub const PATH_BYTES_MAX: usize = 4_096;

/// Bytes kept of a host: the longest DNS name with a port.
pub const HOST_BYTES_MAX: usize = 264;

/// Bytes kept of an identity: the longest SPIFFE ID (SPIFFE-ID §2.3).
pub const IDENTITY_BYTES_MAX: usize = 2_048;

/// Bytes kept of any other text: names of objects, addresses, serials, reasons.
pub const NAME_BYTES_MAX: usize = 768;

/// Reasons, near misses or files kept of a list.
pub const LIST_MAX: usize = 256;

/// People kept of those who made or approved one change.
pub const PEOPLE_MAX: usize = 16;

/// Bytes kept of a line of the issuance log; the CA writes none so long. One that was cut is no line of that log any more,
/// which whoever reads it notices.
pub const ISSUANCE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a whole line. Above it the entry is refused and counted as lost; with the limits above it never is.
pub const LINE_BYTES_MAX: usize = 1 << 20;
