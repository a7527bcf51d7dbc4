//! Every bound of the injector, with its reason.

use std::time::Duration;

/// Connections at a time. An API server keeps a handful; more come from somewhere else.
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// Connections of one address: many more than an API server needs, too few for one pod to keep it out.
pub(crate) const CONNECTIONS_EACH_MAX: usize = 64;

/// Connections of probes and Prometheus at a time.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How long a client may take for its TLS handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may wait for its next request. API servers end idle ones after 90 s; were we first, a request
/// that is on its way just then would be lost, and a pod refused.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long one review may take, from its body to its answer: less than the 5 s after which the API server gives up, so
/// that what it reports is our reason and not its own.
pub(crate) const REVIEW_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the API server may take to say what a namespace is.
pub(crate) const NAMESPACE_TIMEOUT: Duration = Duration::from_secs(3);

/// Life of a serving certificate and of the authority that signed it. Short, as nobody can revoke it.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Age at which the next one is made: half of the life is left for whatever goes wrong.
pub(crate) const RENEW_AFTER: Duration = Duration::from_secs(12 * 3600);

/// Between adding an authority to the webhook configurations and serving with it: API servers read them within a second.
pub(crate) const HANDOVER: Duration = Duration::from_secs(30);

/// How much earlier than now certificates begin: clocks of API servers may be behind ours.
pub(crate) const SKEW: Duration = Duration::from_secs(300);

/// Authorities in one `caBundle`, at about 700 bytes each: three replicas with two each, and a day of restarts.
pub(crate) const ANCHORS_MAX: usize = 32;

/// How often the age of the certificate is looked at.
pub(crate) const TICK: Duration = Duration::from_secs(30);

/// Pause after the API server refused a watch or a change, so that a broken one is not asked without end.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Pause after a connection could not be accepted.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
