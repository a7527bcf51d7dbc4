//! Answers that the proxy gives itself: refusals by policy, and troubles on the way.
//!
//! A refusal tells the client only that it is refused; its reasons go to the decision record. A trouble names its code,
//! so that an operator who reads the response can look it up.

use crate::body::Body;
use crate::onward::NotBegun;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode, Version};
use mesh_proxy_core::http_hygiene::Refusal;
use std::fmt;
use std::net::SocketAddr;

/// A response of the proxy.
pub(crate) type Answer = Response<Body>;

/// What goes wrong with one request or connection; the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub(crate) enum Trouble {
    /// Nobody listens where the application should.
    #[error("the application on port {port} is not answering: {why}")]
    #[diagnostic(
        code("MESH-0470"),
        help("is it running, and does it listen on the configured address?")
    )]
    AppNotAnswering { port: u16, why: String },
    /// The application broke off.
    #[error("the application on port {port} broke off its answer{}: {why}", if *late { ", whose time was over" } else { "" })]
    #[diagnostic(
        code("MESH-0471"),
        help("its log may say why; the proxy does not repeat requests")
    )]
    AppBroke {
        port: u16,
        why: String,
        /// The time that a client of gRPC gave it was over, which is most often why.
        late: bool,
    },
    /// No endpoint to send to.
    #[error("service `{service}` has no ready endpoint")]
    #[diagnostic(
        code("MESH-0472"),
        help(
            "does the Service select running workloads? `mesh edges` and the controller's status show them"
        )
    )]
    NoEndpoint { service: String },
    /// No endpoint could be reached.
    #[error("service `{service}` cannot be reached: {why}")]
    #[diagnostic(
        code("MESH-0473"),
        help(
            "is the proxy of the server running, and is its identity the one that discovery promises?"
        )
    )]
    Unreachable {
        service: String,
        why: String,
        late: bool,
    },
    /// The peer broke off.
    #[error("service `{service}` broke off its answer: {why}")]
    #[diagnostic(
        code("MESH-0474"),
        help("its proxy may have been restarted; the request may have been served")
    )]
    PeerBroke { service: String, why: String },
    /// Routes are attached, and none of them wants the request.
    #[error("no route of service `{service}` takes this request")]
    #[diagnostic(
        code("MESH-0440"),
        help(
            "routes are attached to the service, so what they do not match goes nowhere: add a rule that matches it, or one for the path prefix `/`"
        )
    )]
    NoRoute { service: String },
    /// The rule that takes the request sends it nowhere.
    #[error("rule {rule} of `{route}` sends requests nowhere: it has no backend with a weight")]
    #[diagnostic(
        code("MESH-0441"),
        help("give the rule a backendRef whose weight is not 0")
    )]
    NoBackend { route: String, rule: u32 },
    /// The backend that was drawn cannot be used.
    #[error("backend `{backend}` of `{route}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0442"),
        help("its share of the requests fails: correct the backendRef, or set its weight to 0")
    )]
    InvalidBackend {
        backend: String,
        route: String,
        why: String,
    },
    /// A limit of time is over: one of a route, or the client's own.
    #[error("service `{service}` did not answer in time: {limit} is over")]
    #[diagnostic(
        code("MESH-0443"),
        help(
            "the request may have been served; `timeouts` of the route's rule, and the client, say how long is waited"
        )
    )]
    TimedOut {
        service: String,
        limit: Limit,
        /// Whether it may have been served.
        sent: bool,
    },
    /// The client's time was over before anything was passed on.
    #[error("the time that the client gave the request was over before it could be passed on")]
    #[diagnostic(
        code("MESH-0447"),
        help(
            "it was not served: `grpc-timeout` or `x-envoy-expected-rq-timeout-ms` said how long it may take, all hops together"
        )
    )]
    NoTimeLeft,
    /// The rule that takes the request cannot be applied.
    #[error("rule {rule} of `{route}` cannot be applied: {why}")]
    #[diagnostic(
        code("MESH-0444"),
        help("its requests fail rather than go another way: correct the rule")
    )]
    UnusableRoute {
        route: String,
        rule: u32,
        why: String,
    },
    /// Policy does not let it out of the mesh.
    #[error("EgressNetwork `{network}` does not let this out to {to}: {why}")]
    #[diagnostic(
        code("MESH-0445"),
        help(
            "a route with this host on the network opens it; the decision in the log of the proxy has address, network and reason"
        )
    )]
    EgressDenied {
        to: SocketAddr,
        network: String,
        why: String,
    },
    /// Policy no longer lets it out of the mesh.
    #[error("policy no longer lets this out to {to}")]
    #[diagnostic(
        code("MESH-0446"),
        help(
            "an EgressNetwork or a route on it changed while the request was under way; it may have been served"
        )
    )]
    EgressRevoked { to: SocketAddr },
    /// The name that lets it out does not lead where it was going.
    #[error(
        "EgressNetwork `{network}` lets this out by its name, and the name does not lead to {to}: {why}"
    )]
    #[diagnostic(
        code("MESH-0406"),
        help(
            "what policy lets out by name goes to the addresses that the proxy's own resolvers have for that name; `mesh.internal/bind-names: \"false\"` on the route leaves the address to the application"
        )
    )]
    OtherAddress {
        to: SocketAddr,
        network: String,
        why: String,
    },
    /// Nobody says where the name leads that lets it out.
    #[error(
        "EgressNetwork `{network}` lets this out to {to} by its name, and which addresses that name has is not known: {why}"
    )]
    #[diagnostic(
        code("MESH-0406"),
        help(
            "it was not sent, and may be tried again: can the proxy reach the resolvers of its own system?"
        )
    )]
    NameUnknown {
        to: SocketAddr,
        network: String,
        why: String,
    },
    /// TLS is to be begun to somebody outside of the mesh, and cannot be.
    #[error("TLS to `{server_name}` at {to} cannot be begun: {why}")]
    #[diagnostic(
        code("MESH-0405"),
        help(
            "nothing was sent: a route says that it leaves in TLS only, to this name, by the roots in its `mesh.internal/tls-roots`"
        )
    )]
    TlsNotBegun {
        to: SocketAddr,
        server_name: String,
        why: NotBegun,
    },
    /// A fault answers in place of the application.
    #[error("HTTPFault `{fault}` answers in place of the application")]
    #[diagnostic(
        code("MESH-0448"),
        help(
            "it is a test, and names this client: delete the HTTPFault to end it; the request was not served"
        )
    )]
    Injected {
        fault: String,
        /// HTTP status, or code of gRPC where the request was one.
        answer: u16,
    },
    /// No policy yet.
    #[error("the proxy has no policy yet and denies everything")]
    #[diagnostic(
        code("MESH-0476"),
        help("is the controller running? /status on the admin socket says what is waited for")
    )]
    NoPolicy,
    /// The audit log takes nothing, and is strict.
    #[error("the request could not be recorded, and nothing passes unrecorded")]
    #[diagnostic(
        code("MESH-0539"),
        help(
            "the disk of the audit log is full or too slow: /status on the admin socket says why"
        )
    )]
    NoRecord,
    /// No usable identity.
    #[error("the proxy has no valid identity: {why}")]
    #[diagnostic(
        code("MESH-0477"),
        help("is the CA running? /identity on the admin socket shows the last SVID")
    )]
    NoIdentity { why: String },
}

/// Whose limit of time it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `timeouts.request`.
    Request,
    /// `timeouts.backendRequest`.
    BackendRequest,
    /// What the client said.
    Client,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "the route's `request` timeout",
            Self::BackendRequest => "the route's `backendRequest` timeout",
            Self::Client => "the time that the client gave it",
        })
    }
}

impl Trouble {
    fn code(&self) -> &'static str {
        match self {
            Self::AppNotAnswering { .. } => "MESH-0470",
            Self::AppBroke { .. } => "MESH-0471",
            Self::NoEndpoint { .. } => "MESH-0472",
            Self::Unreachable { .. } => "MESH-0473",
            Self::PeerBroke { .. } => "MESH-0474",
            Self::NoRoute { .. } => "MESH-0440",
            Self::NoBackend { .. } => "MESH-0441",
            Self::InvalidBackend { .. } => "MESH-0442",
            Self::TimedOut { .. } => "MESH-0443",
            Self::UnusableRoute { .. } => "MESH-0444",
            Self::EgressDenied { .. } => "MESH-0445",
            Self::EgressRevoked { .. } => "MESH-0446",
            Self::TlsNotBegun { .. } => "MESH-0405",
            Self::OtherAddress { .. } | Self::NameUnknown { .. } => "MESH-0406",
            Self::NoTimeLeft => "MESH-0447",
            Self::Injected { .. } => "MESH-0448",
            Self::NoPolicy => "MESH-0476",
            Self::NoRecord => "MESH-0539",
            Self::NoIdentity { .. } => "MESH-0477",
        }
    }

    /// HTTP status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::Injected { answer, .. } => {
                StatusCode::from_u16(*answer).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::EgressDenied { .. } | Self::EgressRevoked { .. } | Self::OtherAddress { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NoBackend { .. } | Self::InvalidBackend { .. } | Self::UnusableRoute { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Unreachable { late: true, .. }
            | Self::AppBroke { late: true, .. }
            | Self::TimedOut { .. }
            | Self::NoTimeLeft => StatusCode::GATEWAY_TIMEOUT,
            Self::AppNotAnswering { .. }
            | Self::AppBroke { .. }
            | Self::PeerBroke { .. }
            | Self::TlsNotBegun { .. } => StatusCode::BAD_GATEWAY,
            Self::NoEndpoint { .. }
            | Self::Unreachable { .. }
            | Self::NameUnknown { .. }
            | Self::NoPolicy
            | Self::NoRecord
            | Self::NoIdentity { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// gRPC code of the answer.
    pub(crate) fn grpc_status(&self) -> u8 {
        match self {
            // DEADLINE_EXCEEDED
            Self::Unreachable { late: true, .. }
            | Self::AppBroke { late: true, .. }
            | Self::TimedOut { .. }
            | Self::NoTimeLeft => 4,
            // PERMISSION_DENIED
            Self::EgressDenied { .. } | Self::EgressRevoked { .. } | Self::OtherAddress { .. } => 7,
            Self::Injected { answer, .. } => u8::try_from(*answer).unwrap_or(14),
            Self::NoRoute { .. } => 12,       // UNIMPLEMENTED
            Self::UnusableRoute { .. } => 13, // INTERNAL
            _ => 14,                          // UNAVAILABLE
        }
    }

    /// Whether the request may have been served all the same.
    pub(crate) fn may_be_served(&self) -> bool {
        matches!(
            self,
            Self::PeerBroke { .. } | Self::AppBroke { .. } | Self::TimedOut { sent: true, .. }
        )
    }

    /// Tells the client.
    pub(crate) fn answer(&self, grpc: bool) -> Answer {
        let text = format!("{}: {self}", self.code());
        if grpc {
            grpc_only(self.grpc_status(), &text)
        } else {
            plain(self.status(), text)
        }
    }
}

/// Tells the client that it is refused, and nothing more.
pub(crate) fn refused(refusal: &Refusal, grpc: bool) -> Answer {
    refusal.head(grpc).map(|()| {
        if grpc {
            Body::Empty
        } else {
            Body::text(refusal.body(grpc))
        }
    })
}

/// Tells an HTTP/1 client that nothing follows on this connection.
pub(crate) fn closing(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Sends the client elsewhere.
pub(crate) fn redirect(status: u16, location: &str) -> Answer {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// A gRPC answer without messages: HTTP 200, the status in the only header block ("trailers-only").
fn grpc_only(status: u8, message: &str) -> Answer {
    let mut answer = Response::new(Body::Empty);
    *answer.version_mut() = Version::HTTP_2;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        headers.insert("grpc-message", message);
    }
    answer
}

/// Percent-encoding of gRPC messages: printable ASCII except `%` stays.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn plain(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Body::text(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}
