//! Every limit of this crate, with its cost and reason.

/// Bytes of a certificate request. One for P-256 without names has about 250; checked before anything is parsed.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// Bytes of what is signed. A SPIFFE ID may have 2,048 bytes; the rest of an SVID has about 500.
pub const TBS_BYTES_MAX: usize = 4 * 1024;

/// Longest life of a join token, seconds: the machine stands ready when it is made.
pub const JOIN_LIFETIME_SECS_MAX: u64 = 600;

/// Shortest life of a join token, seconds.
pub const JOIN_LIFETIME_SECS_MIN: u64 = 30;

/// Join tokens that are not spent. Each is 100 bytes in one file; a rack of machines joins at once.
pub const JOIN_TOKENS_MAX: usize = 256;

/// Machines that joined. The book of them is one file, written whole with each change.
pub const NODES_MAX: usize = 1024;

/// Service accounts, or namespaces, that one node speaks for: what one machine runs.
pub const NODE_WORKLOADS_MAX: usize = 64;

/// Octets of a serial number (RFC 5280 §4.1.2.2).
pub const SERIAL_BYTES_MAX: usize = 20;

/// Shortest life of a leaf, seconds. Below, a renewal and one retry no longer fit.
pub const LEAF_LIFETIME_SECS_MIN: u64 = 10;

/// Life of a leaf unless configured otherwise, seconds: a day.
pub const LEAF_LIFETIME_SECS: u64 = 24 * 3_600;

/// Longest life of a leaf, seconds: three days. The issuer has at least half of its week left whenever it signs, so no
/// leaf within this bound is ever clamped.
pub const LEAF_LIFETIME_SECS_MAX: u64 = 72 * 3_600;

/// Life of an issuer, seconds: a week.
pub const ISSUER_LIFETIME_SECS: u64 = 7 * 24 * 3_600;

/// Life of a root, seconds: ten years, leap days included.
pub const ROOT_LIFETIME_SECS: u64 = 3_652 * 24 * 3_600;

/// How far `notBefore` lies in the past, seconds, for peers whose clock is late. Peers were seen 5 to 30 s off.
pub const BACKDATE_SECS: u64 = 300;

/// Seconds that an issuer outlives its leaves, for peers whose clock is early.
pub const ISSUER_MARGIN_SECS: u64 = 60;

/// Bytes of one line of the issuance log. A line has about 900; a SPIFFE ID may have 2,048.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the attestation evidence in one log entry; more is cut.
pub const EVIDENCE_BYTES_MAX: usize = 1_024;

/// Life of a JWT-SVID unless less is asked for, and the longest, seconds: whoever reads it may replay it so long.
pub const JWT_LIFETIME_SECS: u64 = 300;

/// Longest life of a JWT-SVID, seconds.
pub const JWT_LIFETIME_SECS_MAX: u64 = 300;

/// Shortest life of a JWT-SVID, seconds.
pub const JWT_LIFETIME_SECS_MIN: u64 = 10;

/// Bytes of a token's audience. A SPIFFE ID may have 2,048.
pub const AUDIENCE_BYTES_MAX: usize = 2_048;

/// How long a key signs JWT-SVIDs, seconds: a week, as the issuer's.
pub const JWT_KEY_LIFE_SECS: i64 = 7 * 24 * 3_600;

/// How long a key is published before it signs, seconds: a day. Verifiers look for new keys every few minutes to hours.
pub const JWT_KEY_PREPARE_SECS: i64 = 24 * 3_600;

/// How long a key stays published after its last token ended, seconds, for clocks that are late.
pub const JWT_KEY_GRACE_SECS: i64 = 3_600;

/// Keys for JWT-SVIDs at one time. Three at the change of the week; a clock that jumps may make more.
pub const JWT_KEYS_MAX: usize = 8;
/// Life of a canary, seconds: far longer than an acknowledgment takes, short enough that nobody could use one.
pub const CANARY_LIFETIME_SECS: u64 = 3_600;

/// How long nobody may need a root before it is dropped, seconds: requests on connections from before end meanwhile.
pub const DRAIN_SECS: u64 = 5;

/// Handshakes that verifiers may refuse during a cutover before it halts. Strangers are refused at any time; a fleet that
/// lacks a root refuses hundreds a second.
pub const HANDSHAKES_REFUSED_MAX: u64 = 50;

/// Waivers of one rotation. A longer list is no list of exceptions.
pub const WAIVERS_MAX: usize = 1_000;

/// Certificates of an issuer that others keep: the issuer and authorities above it. Longer chains are refused by peers.
pub const ADOPTED_CHAIN_MAX: usize = 5;

/// Roots in a bundle that others keep, as many as a trust bundle may have.
pub const ADOPTED_ROOTS_MAX: usize = mesh_trust::limits::ANCHORS_MAX;

/// How long whoever takes certificates from the Kubernetes API has to take a new root too, before anything is signed under
/// it, seconds. A ClusterTrustBundle or ConfigMap reaches a mounted volume within a minute or two (kubelet's sync period);
/// KEP-3257 aims at five minutes for a whole cluster.
pub const OUTSIDE_SECS: i64 = 600;

/// Trust domains that one CA federates with. Each costs every proxy its anchors, and the bundle map of all must fit in one
/// message (`mesh_trust::limits::BUNDLE_MAP_BYTES_MAX`).
pub const RELATIONS_MAX: usize = 32;

/// Bytes of another domain's bundle document: about 50 anchors of P-256, or 16 of RSA-4096.
pub const FOREIGN_BUNDLE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an endpoint's address.
pub const ENDPOINT_URL_BYTES_MAX: usize = 2_048;

/// How often a bundle is fetched whose domain does not say how often, seconds (SPIFFE Federation §4.2.1).
pub const REFRESH_SECS: u64 = 300;

/// Shortest pause between two fetches, seconds, whatever a domain asks for: it cannot have us hammer others.
pub const REFRESH_SECS_MIN: u64 = 30;

/// Longest pause, seconds: a day. Whoever asks for a year would never be heard of again.
pub const REFRESH_SECS_MAX: u64 = 24 * 3_600;

/// Pause after the first failed fetch, seconds; doubled with each further one, up to the usual pause.
pub const FETCH_RETRY_SECS: u64 = 10;

/// How many of our own refresh hints a new root is published before anything is signed under it: a reader may miss two.
pub const HINTS_BEFORE_USE: u64 = 3;

/// Bytes of one message that a signer signs. A certificate has at most [`TBS_BYTES_MAX`]; a token with the longest identity,
/// audience and issuer has about 11,400 in base64.
pub const SIGNED_BYTES_MAX: usize = 12 * 1024;

/// Messages that one question to a signer may hold: as many as share one flush of the log.
pub const SIGNED_AT_ONCE_MAX: usize = 64;

/// Bytes of what a signer says about a refusal; more is cut.
pub const SIGNER_TEXT_BYTES_MAX: usize = 1_024;

/// Shares of a root's key. A share has its number in one octet; nobody gathers a hundred people.
pub const SHARES_MAX: u8 = 100;

/// Bytes of a share, a transcript or another text of a ceremony.
pub const CEREMONY_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Life of an issuer that a root outside signs, unless said otherwise, days: people have to come together for the next one.
pub const CEREMONY_ISSUER_DAYS: u32 = 90;

/// Longest life of such an issuer, days: somewhat more than a year.
pub const CEREMONY_ISSUER_DAYS_MAX: u32 = 398;
