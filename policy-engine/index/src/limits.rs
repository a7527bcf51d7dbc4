//! Every bound on what manifests may hold, with its reason.

/// Bytes of one file. A namespace's worth of policy is some hundred KiB; past this it is not written by people.
pub const FILE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of one document: what a Kubernetes API server stores as one object (1.5 MiB).
pub const DOCUMENT_BYTES_MAX: usize = 1536 * 1024;

/// Levels of nesting in one document. The deepest field we read stands at 10; the bound keeps every walk off the stack's end.
pub const DEPTH_MAX: usize = 64;

/// Nodes of one document, at about 100 bytes each: 20 MB while it is read.
pub const NODES_MAX: usize = 200_000;

/// Weight (one per node and per 32 bytes of text) that aliases of one document may add.
pub const ALIAS_WEIGHT_MAX: usize = 10_000;

/// Bytes of a literal path, header or query value in a route (Gateway API: 1,024 for paths and queries, 4,096 for headers).
pub const MATCH_VALUE_BYTES_MAX: usize = 4096;

/// Entries of one list in a policy or route (identities, networks, rules, matches): bounds the work of one object.
pub const LIST_MAX: usize = 4096;

/// Requests per second that a rate limit may name.
pub const RATE_MAX: i64 = u32::MAX as i64;

/// Ports of one annotation that get a policy of their own. Wider ranges set the policy of all other ports instead.
pub const LISTED_PORTS_MAX: usize = 512;
