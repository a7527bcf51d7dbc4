//! Bounds of the multiplex. Both sides have the same ones, so none is negotiated.

/// Streams of one connection at a time: it carries all requests of one core. A power of two, for [`super::StreamId`].
pub const STREAMS_MAX: usize = 256;
/// Bytes of one head or of trailers, as encoded: twice what requests may have ([`crate::http_hygiene::RequestLimits`]).
pub const HEAD_BYTES_MAX: usize = 128 * 1024;
/// Fields of one head. Requests have 100 at most; a gRPC server may answer with more.
pub const FIELDS_MAX: usize = 2048;
/// Bytes of one frame of data: other streams wait at most this long.
pub const DATA_BYTES_MAX: usize = 64 * 1024;
/// Parts of a body below this are copied together while they wait. What waits then holds at most a few times its size.
pub const SMALL_PART_BYTES: usize = 8 * 1024;
/// Bytes that one stream may send before its reader has taken any. Memory is used only for what waits for a slow reader.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for all streams of a connection: bounds what its slow readers can hold.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that wait to be written before bodies are held back. Two records of every stream fit.
pub const OUT_BYTES: usize = 256 * 1024;
/// Bytes that wait to be written at most, control frames included: past it the peer asks faster than it listens.
pub const OUT_BYTES_MAX: usize = OUT_BYTES + STREAMS_MAX * 1024 + HEAD_BYTES_MAX;
/// Streams that a peer may reset more than it lets end (rapid reset, CVE-2023-44487) before its connection ends.
pub const RESETS_MAX: u32 = 1_000;
