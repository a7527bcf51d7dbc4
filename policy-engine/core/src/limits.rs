//! Every bound of this crate, with its cost and its reason.

/// Bytes of a request target, query included. Longer ones are refused (400) before they are read: what is judged must
/// be bounded, and no application we know of takes more than 16 KiB.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a `Host` or `:authority`, port included: 253 of a DNS name, and the port.
pub const HOST_BYTES_MAX: usize = 260;

/// Bytes of one DNS label (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Bytes of a request method.
pub const METHOD_BYTES_MAX: usize = 32;

/// Bytes of the text of one regular expression in a route.
pub const REGEX_BYTES_MAX: usize = 1024;

/// Bytes of one compiled regular expression; `(a{1000}){1000}` stops here.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;

/// Grants of one snapshot. A proxy keeps about 200 bytes of each, which is 3 MB; while Cedar or somebody looks at the policy it is
/// 1.5 KiB, which is 25 MB.
pub const GRANTS_MAX: usize = 16_384;

/// Ports of one snapshot that have policy of their own.
pub const PORTS_MAX: usize = 4_096;

/// References from ports to grants, all ports together: what compiling and validating costs.
pub const PORT_GRANTS_MAX: usize = 65_536;

/// Route matches of one snapshot, all ports together.
pub const MATCHES_MAX: usize = 32_768;

/// Members of all identity sets, and blocks of all network sets, of one snapshot.
pub const MEMBERS_MAX: usize = 262_144;

/// EgressNetworks that concern one workload. Each of their blocks is looked at for each connection to outside.
pub const EGRESS_NETWORKS_MAX: usize = 256;

/// Near misses that one explanation lists, closest first: more is not read.
pub const NEAR_MISSES_MAX: usize = 32;

/// Policies written in Cedar that bear on one workload. Each may be evaluated for every request, at about 100 ns; and the
/// record of a decision marks those that held in a set of this many bits.
pub const CEDAR_TEXTS_MAX: usize = 256;

/// Bytes of one policy written in Cedar: its reader's memory is bounded by this.
pub const CEDAR_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Nesting of a condition that is compiled; a chain of `&&` or of `||` counts once. Each level takes up to some 500 bytes
/// of stack at evaluation; deeper ones go to Cedar, which takes more.
pub const PROGRAM_DEPTH_MAX: u32 = 64;

/// Members of a literal set of entities, addresses or times in a compiled condition: they are compared one after the
/// other. Texts and numbers are sorted and have no such limit.
pub const PROGRAM_SET_MAX: usize = 256;

/// Tries of one request after the first. More only multiply the load on what is already failing.
pub const RETRY_ATTEMPTS_MAX: u32 = 10;

/// Longest wait before a second try beside the first, in milliseconds: who waits a minute needs no hedge.
pub const HEDGE_MS_MAX: u64 = 60_000;

/// Longest time for which an endpoint that joins is new, in milliseconds: an hour.
pub const SLOW_START_MS_MAX: u64 = 3_600_000;

/// Most shares of one endpoint beside others.
pub const ENDPOINT_WEIGHT_MAX: u32 = 100;

/// Longest wait that a fault may put before a request, in milliseconds: five minutes. A request that waits holds a place on
/// its connection, and a client that waits longer was not written.
pub const FAULT_DELAY_MS_MAX: u64 = 300_000;

/// Faults on one Server. Each is looked at for each allowed request there.
pub const FAULTS_MAX: usize = 16;

/// Clients of one fault.
pub const FAULT_CLIENTS_MAX: usize = 64;
