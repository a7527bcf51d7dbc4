//! Every limit of the proxy, with its cost and its reason. Those in [`crate::config::Limits`] can be set.

use std::time::Duration;

/// Time for a TLS handshake, from accept. A handshake takes a few milliseconds; a stalled one holds 20 KiB.
pub const HANDSHAKE_SECS: u64 = 10;
/// Handshakes at once and core. One costs about 0.3 ms of CPU: 64 in line are 20 ms, more would starve live traffic.
pub const HANDSHAKES_AT_ONCE: usize = 64;
/// Time from accept until the protocol must be known (threat PD2); also for the mesh header.
pub const DETECT_SECS: u64 = 10;
/// Time from accept, or from the end of the exchange before, to the end of an HTTP/1 head (threat RX1).
pub const HEADER_SECS: u64 = 10;
/// The same for the proxy's own application, with the pauses between its requests: it harms only itself.
pub const APP_QUIET: Duration = Duration::from_secs(60);
/// Time for which a proxy that was just started leaves connections in their listener's queue, until it has a policy and an
/// identity. Clients in the mesh turn to another endpoint after [`CONNECT_MILLIS`].
pub const START_WAIT: Duration = Duration::from_secs(2);
/// Time to connect to an endpoint in the mesh, TLS included.
pub const CONNECT_MILLIS: u64 = 1_000;
/// Time to connect to the application beside the proxy.
pub const APP_CONNECT: Duration = Duration::from_millis(1_000);
/// Open connections of each kind (peers, strangers, the application) and core. One that waits costs about 5 KiB plain and
/// 12 KiB with TLS: 10,000 peers are near 120 MiB.
pub const CONNECTIONS: usize = 10_000;
/// How often a core hands its counts of allowed requests to the log. A crash loses at most so much of them.
pub const COUNTS_EVERY: Duration = Duration::from_secs(10);
/// Classes of allowed requests that one core counts apart at a time: as many as a line of the log holds. One has about
/// 400 bytes; what finds no room is counted together.
pub const CLASSES_MAX: usize = 256;
/// Classes that a connection remembers its place in; what goes beyond that is looked up. One has about 150 bytes.
pub const FAMILIAR_MAX: usize = 4;
/// A decision of a candidate that takes so long is a slow one. A compiled policy takes a microsecond; a millisecond is what a
/// text takes that Cedar must evaluate.
pub const TRIAL_SLOW: Duration = Duration::from_micros(500);
/// How many times as long a slow candidate rests: it has at most a tenth of a core's time.
pub const TRIAL_REST: u64 = 9;
/// Headers of one HTTP/1 message.
pub const HEADERS_MAX: usize = 100;
/// Bytes of one HTTP/1 head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one HTTP/2 header list (RFC 9113 §6.5.2 counts 32 more for each field).
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Streams of one HTTP/2 connection from an application.
pub const H2_STREAMS_MAX: u32 = 128;
/// Requests at once on one connection between proxies: more, because it carries all requests of one core.
pub const MESH_STREAMS_MAX: usize = mesh_proxy_core::mux::limits::STREAMS_MAX;
/// Receive window of one HTTP/2 stream. Memory is used only for data that wait for a slow reader.
pub const H2_STREAM_WINDOW: u32 = 1024 * 1024;
/// Receive window of one HTTP/2 connection: bounds what its slow readers can hold.
pub const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Largest HTTP/2 frame: bulk data spends less on heads, and other streams wait at most this long.
pub const H2_FRAME_BYTES: u32 = 64 * 1024;
/// Bytes queued for sending on one HTTP/2 stream.
pub const H2_SEND_BUFFER: usize = 256 * 1024;
/// Streams that a peer may reset before we accepted them (rapid reset, CVE-2023-44487).
pub const H2_PENDING_RESETS_MAX: usize = 20;
/// Resets a peer may provoke from us (CVE-2025-8671) before its connection ends.
pub const H2_LOCAL_RESETS_MAX: usize = 256;
/// Requests that an HTTP/2 client gives up before their answer, more than it waits for, before its connection ends: as
/// many as on a connection between proxies.
pub const H2_GIVEN_UP_MAX: u32 = mesh_proxy_core::mux::limits::RESETS_MAX;
/// Silence after which an HTTP/2 connection is pinged, and time for the answer (fault F14).
pub const H2_PING_EVERY: Duration = Duration::from_secs(10);
/// See [`H2_PING_EVERY`].
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for one read of a connection between proxies: a TLS record. An idle connection has none.
pub const MUX_READ_BYTES: usize = 16 * 1024;
/// Reads of one such connection before others have their turn.
pub const MUX_READS: usize = 16;
/// Bytes of a message of HTTP/1 that are made ready before they are written.
pub const HTTP1_OUT_BYTES: usize = 64 * 1024;
/// Room for them that an idle connection to an application keeps. One from a client keeps none.
pub const HTTP1_OUT_KEPT: usize = 8 * 1024;
/// Room for one read of HTTP/1 while much arrives. An idle connection has none.
pub const HTTP1_READ_BYTES_MAX: usize = 64 * 1024;
/// Idle connections to one application and core that are kept.
pub const APP_IDLE_MAX: usize = 64;
/// How long they are kept. Shorter than the 5 s after which common servers close.
pub const APP_IDLE: Duration = Duration::from_secs(4);
/// Ports of the workload, and of its addresses, whose connections to the application are pooled where connections are
/// redirected. A client may dial all 65,535: each costs 200 bytes until it is idle.
pub const REACHED_PORTS_MAX: usize = 1_024;
/// Destinations of the application that are remembered, per core, with their balancer and connections (threat RX8). Past
/// it they are forgotten with their last connection.
pub const DESTINATIONS_MAX: usize = 1_024;
/// How long a destination that nobody uses is remembered.
pub const DESTINATION_IDLE: Duration = Duration::from_secs(60);
/// Time to connect to a destination outside the mesh. Applications have limits of their own; this one frees what they
/// left behind.
pub const OUTSIDE_CONNECT: Duration = Duration::from_secs(30);
/// Addresses of names to which connections are kept for one destination outside of the mesh that applications dial: of one
/// more the oldest goes.
pub const OUTSIDE_LED_MAX: usize = 8;
/// Time for a server outside of the mesh to finish a TLS handshake that the proxy began.
pub const ORIGIN_HANDSHAKE: Duration = Duration::from_secs(10);
/// Servers outside of the mesh, by address and name, to whom one core keeps connections in TLS of its own. One that is idle
/// for [`APP_IDLE`] is forgotten; one has about 20 KiB for each connection.
pub const ORIGINS_MAX: usize = 256;
/// Names outside of the mesh whose addresses one core remembers. One has about 100 bytes, and 17 for each address.
pub const NAMES_MAX: usize = 1_024;
/// Addresses of one name that count.
pub const NAME_ADDRESSES_MAX: usize = 64;
/// How long the addresses of a name count: the C library does not tell for how long they are meant to.
pub const NAME_FRESH: Duration = Duration::from_secs(30);
/// How long it counts that there are none, and how long nobody is asked again who did not answer.
pub const NAME_ABSENT: Duration = Duration::from_secs(5);
/// How long the last addresses of a name count while no resolver answers (fault F12).
pub const NAME_KEPT: Duration = Duration::from_secs(600);
/// Time for which somebody waits for the addresses of a name, a place to look it up included. The C library gives each of
/// two resolvers five seconds, and the answer of the second is to be heard.
pub const LOOKUP_WITHIN: Duration = Duration::from_secs(12);
/// Time for which a new answer is waited for where there is an old one.
pub const NAME_SOON: Duration = Duration::from_millis(100);
/// Names that one core looks up at once. Each has a thread while the C library is at work.
pub const LOOKUPS_AT_ONCE: usize = 8;
/// How long roots of the system are used before they are read again: what an update takes away is believed no longer.
pub const SYSTEM_ROOTS_AGE: Duration = Duration::from_secs(3_600);
/// Time for which a connection of the application waits for the first word of discovery. Until it has come nobody knows
/// who is in the mesh, and nothing may leave in plaintext.
pub const DISCOVERY_WAIT: Duration = Duration::from_secs(10);
/// Time for which a connection to outside of the mesh waits for the first policy: until it has come nothing leaves.
pub const POLICY_WAIT: Duration = DISCOVERY_WAIT;
/// First and largest buffer of a byte stream, per direction: 1,000 quiet streams cost 8 MiB, a busy one runs in few system calls.
pub const COPY_BYTES_MIN: usize = 4 * 1024;
/// See [`COPY_BYTES_MIN`].
pub const COPY_BYTES_MAX: usize = 128 * 1024;
/// Buffer of a TLS connection that receives much at once; rustls alone would read 4 KiB for each system call.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Endpoints tried for one request before it fails.
pub const ENDPOINT_ATTEMPTS: usize = 3;
/// Bytes of a request body that are kept so that it can be sent again, or copied: Linkerd's figure. Kept only where a
/// route has retries or copies, or a backend outside the mesh, and until the answer has come.
pub const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// Copies of requests (mirrors) under way at once and core. One more is dropped, and counted.
pub const MIRRORS_MAX: usize = 256;
/// Bytes of the bodies of these together.
pub const MIRROR_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time for which a copy may be under way, its answer included.
pub const MIRROR_LIMIT: Duration = Duration::from_secs(10);
/// Spans that wait to be sent, of all cores. One has about 600 bytes; what finds no room is dropped, and counted.
pub const SPANS_QUEUE: usize = 2_048;
/// Spans that are sent together, and how long the first of them waits for the others.
pub const SPANS_BATCH: usize = 512;
/// See [`SPANS_BATCH`].
pub const EXPORT_EVERY: Duration = Duration::from_secs(1);
/// Time for a collector to take a batch, and how often it is asked to.
pub const EXPORT_LIMIT: Duration = Duration::from_secs(5);
/// See [`EXPORT_LIMIT`].
pub const EXPORT_ATTEMPTS: u32 = 3;
/// Pause before the second of these; each further one is twice as long.
pub const EXPORT_PAUSE: Duration = Duration::from_secs(1);
/// Seconds from one push of metrics to the next unless a configuration says otherwise, and at most.
pub const METRICS_SECS: u64 = 60;
/// See [`METRICS_SECS`].
pub const METRICS_SECS_MAX: u64 = 3_600;
/// Series in one message of metrics. One has 300 to 900 bytes: that stays below the 4 MiB which collectors take by gRPC.
pub const METRICS_POINTS: usize = 2_000;
/// The longest that a collector is left alone because it asks for it (`Retry-After`).
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Time at the end of the proxy for spans that are still there, and for the last counts.
pub const EXPORT_PARTING: Duration = Duration::from_secs(2);
/// Taps that are open at once in a proxy: people and their programs.
pub const TAP_READERS: usize = 4;
/// Lines that wait for the reader of a tap. One has about 300 bytes, and never more than 8 KiB: 2 MiB for a
/// reader, where clients do their worst.
pub const TAP_QUEUE: usize = 256;
/// Requests in each second that are kept for one tap before it is known whether it wants them: about a microsecond each.
pub const TAP_ACCOUNTS: u32 = 5_000;
/// Seconds after which a reader that hears nothing is told so: how long one that is gone may go unnoticed.
pub const TAP_IDLE_SECS: u64 = 10;
/// Seconds after which the place of a reader that takes nothing goes to another that asks for it. More than
/// [`TAP_IDLE_SECS`].
pub const TAP_UNREAD_SECS: u64 = 30;
/// How often live connections are compared with the clock: bounds use of an expired SVID.
pub const EXPIRY_CHECK_EVERY: Duration = Duration::from_millis(500);
/// First and longest pause between attempts to reach the controller.
pub const CONTROL_RETRY_MIN: Duration = Duration::from_millis(100);
/// See [`CONTROL_RETRY_MIN`].
pub const CONTROL_RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest pause before discovery is asked for again that came out unusable, or that the controller does not tell: the next
/// answer is mostly the same, and ten thousand proxies may ask.
pub const DISCOVERY_RETRY_MAX: Duration = Duration::from_secs(60);
/// Largest policy message. 10,000 grants are near 6 MiB of JSON.
pub const POLICY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time between looks at static manifests and identity files.
pub const FILES_POLL: Duration = Duration::from_millis(500);

/// How long a connection that is ended from here may take to tell its streams: a round trip and some scheduling.
pub const PARTING: Duration = Duration::from_millis(250);

/// How long a request over HTTP/2 that has its answer is read on, and how much of it: most are at their end.
pub const UNWANTED: Duration = Duration::from_millis(250);
/// See [`UNWANTED`].
pub const UNWANTED_BYTES: usize = 64 * 1024;
