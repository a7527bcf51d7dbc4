//! Every limit of this crate, with its cost and reason.

use std::time::Duration;

/// Issuances that one identity may ask for at once. A service account of ten replicas starts without waiting.
pub(crate) const ISSUANCE_BURST: u32 = 10;

/// Time in which an identity earns one more issuance. A process that crashes and starts again every second still gets one.
pub(crate) const ISSUANCE_REFILL: Duration = Duration::from_secs(1);

/// JWT-SVIDs that one identity may ask for at once. A signature costs 20 microseconds; a client that asks for each
/// request anew is served up to the rate below.
pub(crate) const TOKEN_BURST: u32 = 200;

/// Time in which an identity earns one more JWT-SVID: 100 a second.
pub(crate) const TOKEN_REFILL: Duration = Duration::from_millis(10);

/// Identities whose issuance rate is remembered; beyond, full buckets are forgotten first. About 200 bytes each.
pub(crate) const RATE_IDENTITIES_MAX: usize = 10_000;

/// Requests that wait for the log's disk. One batch takes one flush; at 1 ms a flush this is far below a second.
pub(crate) const ISSUANCE_QUEUE_MAX: usize = 1_024;

/// How long a request for a certificate may wait; then the client is told to come again. Longer queues only make
/// everybody late.
pub(crate) const ISSUANCE_WAIT_MAX: Duration = Duration::from_secs(2);

/// When a client that was turned away should come again, seconds.
pub(crate) const RETRY_AFTER_SECS: u64 = 2;

/// Issuances that share one flush of the log.
pub(crate) const ISSUANCE_BATCH_MAX: usize = 64;

/// Streams and calls of one process at a time. A client library holds one or two; Envoy one for each secret; each costs a task and about 4 KiB.
pub(crate) const STREAMS_PER_PROCESS_MAX: usize = 64;

/// Connections of one process.
pub(crate) const CONNECTIONS_PER_PROCESS_MAX: usize = 32;

/// Connections in all; beyond, new ones are closed at once.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;

/// Names in one request for secrets: the SVIDs of one process and a handful of domains.
pub(crate) const SECRET_NAMES_MAX: usize = 64;

/// Bytes of one of them: a SPIFFE ID.
pub(crate) const SECRET_NAME_BYTES_MAX: usize = 2_048;

/// Connections to the address of the JWT keys at a time; more wait in the kernel's queue.
pub(crate) const OIDC_CONNECTIONS_MAX: usize = 64;

/// How long the head of a request for JWT keys may take.
pub(crate) const OIDC_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an issuer's address: it is in each token.
pub(crate) const OIDC_ISSUER_BYTES_MAX: usize = 256;

/// Connections to the bundle endpoint at a time, at about 60 KiB; more wait in the kernel's queue. A domain that federates
/// with us comes once in minutes.
pub(crate) const ENDPOINT_CONNECTIONS_MAX: usize = 64;

/// Handshakes at the bundle endpoint at a time: the CA has other work.
pub(crate) const ENDPOINT_HANDSHAKES_MAX: usize = 8;

/// How long the head of a request for our bundle may take; the whole exchange may take twice as long.
pub(crate) const ENDPOINT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the files of the bundle endpoint's certificate are looked at.
pub(crate) const ENDPOINT_CERTIFICATE_POLL: Duration = Duration::from_secs(10);

/// How long a fetch of another domain's bundle may take, from the look-up of its name to the last octet.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Brokers that may be named.
pub(crate) const BROKERS_MAX: usize = 16;

/// Connections of brokers; beyond, new ones are closed at once. A broker needs one.
pub(crate) const BROKER_CONNECTIONS_MAX: usize = 64;

/// Streams and calls of one broker at a time: four streams of each of a thousand workloads; each costs a task and about 4 KiB.
pub(crate) const BROKER_CALLS_MAX: usize = 4_096;

/// Refusals of one identity that are recorded at once, at up to 2 KiB on the disk each.
pub(crate) const BROKER_REFUSALS_BURST: u32 = 20;

/// After how long one more is recorded: at most 170 MiB a day.
pub(crate) const BROKER_REFUSAL_REFILL: Duration = Duration::from_secs(1);

/// Streams on one connection of a broker.
pub(crate) const BROKER_STREAMS_MAX: u32 = 4_096;

/// Bytes of a Workload API request: a token to validate is the largest.
pub(crate) const WORKLOAD_REQUEST_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a launch record: a path and a few names.
pub(crate) const LAUNCH_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the header list of a request.
pub(crate) const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Launch records alive at one time. Each holds a file descriptor.
pub(crate) const LAUNCH_RECORDS_MAX: usize = 512;

/// Generations between a process and the one whose launch record it may inherit.
pub(crate) const ANCESTORS_MAX: usize = 16;

/// How long an unknown process may wait for its launch record: it can be faster than the one who started it.
pub(crate) const ATTESTATION_WAIT: Duration = Duration::from_secs(2);

/// Identities of one process.
pub(crate) const IDENTITIES_PER_PROCESS_MAX: usize = 16;

/// Pause before an SVID that was denied is replaced: its issuer, if that was denied, is replaced first.
pub(crate) const DENIED_PAUSE: Duration = Duration::from_millis(100);

/// Longest sleep before the wall clock is looked at again, so that a suspended machine or a clock set ahead does not
/// delay a renewal.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Connections from the network: each verifier holds one for its trust stream, and each client one more for a moment, at
/// about 60 KiB.
pub(crate) const NETWORK_CONNECTIONS_MAX: usize = 16_384;

/// Trust streams on the network: most of [`NETWORK_CONNECTIONS_MAX`], so that there is always room to ask for an SVID.
pub(crate) const TRUST_STREAMS_MAX: usize = 12_288;

/// How often the API server is asked about pods that a rotation waits for and that are not connected.
pub(crate) const PODS_LOOK: Duration = Duration::from_secs(5);

/// Handshakes from the network at a time, each about 0.3 ms of one core.
pub(crate) const NETWORK_HANDSHAKES_MAX: usize = 64;

/// How long a handshake from the network may take.
pub(crate) const NETWORK_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request from the network: a certificate request and a token.
pub(crate) const NETWORK_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// How long an API server may take to say what a token is worth. Beyond, the client tries again.
pub(crate) const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before the CA tries again to issue its own certificate for the network.
pub(crate) const OWN_SVID_RETRY: Duration = Duration::from_secs(1);

/// Requests of one kind, of those that stand in objects, that are worked on at a time. Each asks the API server two to five
/// questions and waits for the log's disk, about 20 ms in all.
pub(crate) const REQUESTS_AT_ONCE: usize = 16;

/// How often it is looked whether the API server still vouches for user names in requests, while there are issuers. Before
/// each issuance it is looked at anyway.
pub(crate) const GUARD_LOOK: Duration = Duration::from_secs(30);

/// How often an API server is asked whether it has an API by now that it did not have: it begins anew for that.
pub(crate) const API_LOOK: Duration = Duration::from_secs(600);

/// Pause before the trust bundle is published again after a failure.
pub(crate) const PUBLISH_RETRY: Duration = Duration::from_secs(1);

/// Pause between two looks at a rotation whose facts do not change.
pub(crate) const ROTATION_TICK: Duration = Duration::from_millis(500);

/// How often a trust stream says everything anew, with a fresh challenge and, if due, a fresh canary.
pub(crate) const CANARY_RESEND: Duration = Duration::from_secs(20 * 60);

/// Trust streams of one process. It needs one; a second may come before the end of the first is noticed.
pub(crate) const TRUST_STREAMS_PER_PROCESS_MAX: usize = 4;

/// Bytes of an acknowledgment, a chain of a few KiB; or a request of an operator, with the bundle of another domain.
pub(crate) const TRUST_REQUEST_BYTES_MAX: usize = 128 * 1024;

/// Tokens that wait for the signer: at some ten thousand signatures a second, less than half a second.
pub(crate) const TOKENS_WAITING_MAX: usize = 4_096;

/// Keys that a signer holds: two of each authority, those for tokens, and a few that are being made or looked at.
pub(crate) const SIGNER_KEYS_MAX: usize = 256;

/// How long the signer may take to answer. A file takes a millisecond, a token over a network some hundred.
pub(crate) const SIGNER_ANSWER_MAX: Duration = Duration::from_secs(20);

/// Pause before a signer that ended is started again; doubled with each that ends young, up to the longest.
pub(crate) const SIGNER_PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause before that.
pub(crate) const SIGNER_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A signer that lived this long was healthy: the next pause is the shortest again.
pub(crate) const SIGNER_HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Bytes of the file of a PIN. Tokens take 4 to 255 letters.
pub(crate) const PIN_BYTES_MAX: u64 = 512;

/// Bytes of a key or certificate file.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a request for secrets: [`SECRET_NAMES_MAX`] names of the longest kind, and what Envoy says about itself.
pub(crate) const SECRETS_REQUEST_BYTES_MAX: usize = 256 * 1024;

/// How often root and issuer are read where others keep them, whatever was heard of changes there: an event that was
/// missed costs this long.
pub(crate) const KEEPER_REREAD: Duration = Duration::from_secs(30);

/// How often files of others are looked at: a person who put one there waits for it.
pub(crate) const KEEPER_FILES_POLL: Duration = Duration::from_secs(1);

/// Bytes of a file of others: a chain, a key, or a bundle of all roots of an organisation.
pub(crate) const KEEPER_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of the list of roots that were once trusted: one line of 65 each.
pub(crate) const ROOTS_ONCE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of the book of nodes: all that there may be, each with the longest list of workloads.
pub(crate) const NODES_FILE_BYTES_MAX: u64 = 48 * 1024 * 1024;

/// Join tokens that may be tried without success in a burst, and how long one more takes, before the answer is to come
/// back later. A token cannot be guessed, and whoever has one is never kept out by those who try; what trying costs is
/// bounded by handshakes.
pub(crate) const JOIN_FAILURES_BURST: u32 = 20;
pub(crate) const JOIN_FAILURE_REFILL: Duration = Duration::from_secs(1);

/// Streams of agents. There is one of each node, and a second for a moment when it connects anew.
pub(crate) const NODE_STREAMS_MAX: usize = 2 * mesh_issuance::limits::NODES_MAX;

/// Bytes of what an agent reports: those of its processes that follow the deny list, and those that ended.
pub(crate) const NODE_REPORT_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of what a node keeps of itself: the bundles of all federated domains and the longest deny list.
pub(crate) const NODE_STATE_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Bytes of a kept SVID: a chain and its key.
pub(crate) const SVID_FILE_BYTES_MAX: u64 = 128 * 1024;

/// Bytes of the list of versions of a node's sealed files: a hundred for each of ten thousand identities.
pub(crate) const NODE_VERSIONS_BYTES_MAX: u64 = 1024 * 1024;

/// Seconds that an SVID which has ended stays on the disk: a clock that is ahead at boot takes nothing away.
pub(crate) const ENDED_SVID_SECS: i64 = 7 * 86_400;

/// Bytes of a key for sealed files, exactly: as many as AES-256 has.
pub(crate) const SEAL_KEY_BYTES: usize = 32;

/// Bytes of what tells a machine from others, and of the secret that goes with it: an id has 36.
pub(crate) const MACHINE_FACT_BYTES_MAX: u64 = 4 * 1024;

/// Pauses of an agent between attempts to follow its CA, doubled each time.
pub(crate) const NODE_RETRY: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(10));

/// Processes whose end an agent tells its CA of. One that is pushed out is waited for until its SVID ends.
pub(crate) const ENDED_PROCESSES_MAX: usize = 4_096;

/// How often the deny list is numbered anew because somebody holds a newer one: whoever verifies may say so, and each
/// time it is written and goes to all of them.
pub(crate) const CATCH_UP_EVERY: Duration = Duration::from_secs(10);
