//! Every bound on what manifests may hold, with its reason.

/// Bytes of one file. A namespace's worth of policy is some hundred KiB; past this it is not written by people.
pub const FILE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of one document: what a Kubernetes API server stores as one object (1.5 MiB).
pub const DOCUMENT_BYTES_MAX: usize = 1536 * 1024;

/// Documents of one file: as many as fit into it at the 200 bytes of the smallest policy.
pub const DOCUMENTS_MAX: usize = 50_000;

/// Findings on one object, and on one document; the rest is counted. Who mends a hundred looks again anyway.
pub const FINDINGS_EACH_MAX: usize = 100;

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

/// Bytes of the Cedar text of one object. A policy of some clauses has 500; what is longer is generated, and can be split.
pub const CEDAR_BYTES_MAX: usize = mesh_policy::limits::CEDAR_TEXT_BYTES_MAX;

/// Depth of one Cedar policy, brackets and chains of operators alike, measured before Cedar's parser sees it. Parser,
/// validator and evaluator walk the tree by calling themselves; 64 levels take up to 800 KiB of the 2 MiB that a thread has.
pub const CEDAR_DEPTH_MAX: usize = 64;

/// Policies of one Cedar object: as many as one workload may have. Each is parsed and validated, at about 0.2 ms.
pub const CEDAR_POLICIES_MAX: usize = mesh_policy::limits::CEDAR_TEXTS_MAX;

/// Bytes of policy texts whose judgements are remembered; with them, about four times as much. Past it all are forgotten.
pub const JUDGED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Seconds that broken glass may stay so after its object was created: one shift and the night after it.
pub const BREAK_GLASS_SECS_MAX: i64 = 24 * 3600;

/// Seconds that a fault may be injected after its object was created: a week of tests.
pub const FAULT_SECS_MAX: i64 = 7 * 24 * 3600;

/// Bytes of the reason of a break-glass grant; it stands in every record of its use.
pub const REASON_BYTES_MAX: usize = 1024;

/// Combinations of a source and an operation in one rule of an Istio policy: each is looked at for every port.
pub const RULE_PIECES_MAX: usize = 1024;

/// Shortest wait before a retry whose route names none, in milliseconds: Linkerd's. Proxies double and jitter it.
pub const RETRY_BACKOFF_MS: u64 = 25;

/// Routes that one port of a Service takes, oldest first; the younger ones are not accepted. Every proxy of the mesh holds them, at
/// about 1 KiB each.
pub const SERVICE_ROUTES_MAX: usize = 256;
