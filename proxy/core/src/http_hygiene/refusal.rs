//! Why a request is refused before policy, and how any refusal is spoken. The peer learns a status and a short fixed
//! text; the reason goes to the decision record.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Response, StatusCode};
use mesh_policy::decide::Phase;

/// The rule that a request breaks. Blame: the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, miette::Diagnostic)]
pub enum RequestRefusal {
    /// CONNECT or TRACE.
    #[error("method CONNECT or TRACE")]
    #[diagnostic(code("MESH-0413"))]
    Method,
    /// A method longer than any.
    #[error("method of more than 32 bytes")]
    #[diagnostic(code("MESH-0413"))]
    MethodTooLong,
    /// Neither HTTP/1.0, 1.1 nor 2, or a false version marker.
    #[error("HTTP version that is not spoken here")]
    #[diagnostic(code("MESH-0410"))]
    Version,
    /// A target that is neither a path nor an absolute URI of HTTP.
    #[error("request target is neither a path nor an HTTP URI")]
    #[diagnostic(code("MESH-0410"))]
    Target,
    /// A target over the limit.
    #[error("request target over the limit")]
    #[diagnostic(code("MESH-0412"))]
    TargetTooLong,
    /// No host where one is due.
    #[error("no host")]
    #[diagnostic(code("MESH-0410"))]
    HostMissing,
    /// Several Host fields.
    #[error("more than one host")]
    #[diagnostic(code("MESH-0410"))]
    HostTwice,
    /// Host and target or `:authority` differ.
    #[error("host and target name different authorities")]
    #[diagnostic(code("MESH-0410"))]
    HostMismatch,
    /// A host that is no host: a user, a list, a path, blanks.
    #[error("malformed host")]
    #[diagnostic(code("MESH-0410"))]
    Host,
    /// A line that does not end in CR LF, is folded, or has a name or bytes that cannot be.
    #[error("malformed line in the request's head")]
    #[diagnostic(code("MESH-0411"))]
    Line,
    /// Content-Length and Transfer-Encoding in any doubtful form.
    #[error("ambiguous body length")]
    #[diagnostic(code("MESH-0411"))]
    Framing,
    /// Chunks that cost far more than the data in them.
    #[error("chunk framing over the limit")]
    #[diagnostic(code("MESH-0412"))]
    Chunks,
    /// A connection-specific field in HTTP/2.
    #[error("connection-specific field in HTTP/2")]
    #[diagnostic(code("MESH-0411"))]
    ConnectionField,
    /// An expectation other than `100-continue`.
    #[error("unknown expectation")]
    #[diagnostic(code("MESH-0411"))]
    Expect,
    /// An upgrade with a body.
    #[error("upgrade with a body")]
    #[diagnostic(code("MESH-0411"))]
    Upgrade,
    /// Too many or too large header fields.
    #[error("header fields over the limit")]
    #[diagnostic(code("MESH-0412"))]
    HeadersTooLarge,
}

impl RequestRefusal {
    /// HTTP status of the answer. Records say 400 for all of them: that is the class of the verdict.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether an HTTP/1 connection must end after the answer, because where the next request begins is in doubt.
    pub const fn closes(self) -> bool {
        // After CONNECT a client may be sending what is not HTTP.
        !matches!(self, Self::MethodTooLong | Self::TargetTooLong)
    }

    /// Short text for logs and metrics, stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::MethodTooLong => "method-too-long",
            Self::Version => "version",
            Self::Target => "target",
            Self::TargetTooLong => "target-too-long",
            Self::HostMissing => "host-missing",
            Self::HostTwice => "host-twice",
            Self::HostMismatch => "host-mismatch",
            Self::Host => "host",
            Self::Line => "line",
            Self::Framing => "framing",
            Self::Chunks => "chunks",
            Self::ConnectionField => "connection-field",
            Self::Expect => "expect",
            Self::Upgrade => "upgrade",
            Self::HeadersTooLarge => "headers-too-large",
        }
    }
}

/// A refusal as the peer hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// gRPC status beside it.
    pub grpc_status: u8,
    /// All that the peer learns.
    pub text: &'static str,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

impl Refusal {
    /// No endpoint to forward to, or none that answers.
    pub const UNAVAILABLE: Self = Self::new(StatusCode::SERVICE_UNAVAILABLE, 14, "unavailable");
    /// The server's side broke the connection or spoke nonsense.
    pub const BAD_GATEWAY: Self = Self::new(StatusCode::BAD_GATEWAY, 14, "bad gateway");
    /// No answer in time.
    pub const TIMEOUT: Self = Self::new(StatusCode::GATEWAY_TIMEOUT, 4, "timeout");
    /// The server's side is not who discovery promised.
    pub const WRONG_PEER: Self =
        Self::new(StatusCode::BAD_GATEWAY, 16, "peer identity not verified");

    const fn new(status: StatusCode, grpc_status: u8, text: &'static str) -> Self {
        Self {
            status,
            grpc_status,
            text,
        }
    }

    /// The refusal that a denial of this phase is spoken as; `status` is the decision's, if it has one.
    pub fn for_decision(phase: Phase, status: Option<u16>) -> Self {
        let given = status
            .and_then(|code| StatusCode::from_u16(code).ok())
            .filter(|code| code.as_u16() >= 400);
        match given.map_or_else(|| Self::status_of(phase), |code| code.as_u16()) {
            400 => Self::new(StatusCode::BAD_REQUEST, 3, "bad request"),
            404 => Self::new(StatusCode::NOT_FOUND, 5, "not found"),
            429 => Self::new(StatusCode::TOO_MANY_REQUESTS, 8, "too many requests"),
            _ => Self::new(StatusCode::FORBIDDEN, 7, "denied"),
        }
    }

    const fn status_of(phase: Phase) -> u16 {
        match phase {
            Phase::Request => 400,
            Phase::Route => 404,
            Phase::RateLimit => 429,
            Phase::Transport | Phase::Server | Phase::Forbid | Phase::Permit | Phase::Egress => 403,
        }
    }

    /// The head of the answer. For gRPC: trailers-only, HTTP 200, and the stream ends with it.
    pub fn head(&self, grpc: bool) -> Response<()> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(self.grpc_status)));
            headers.insert(GRPC_MESSAGE, HeaderValue::from_static(self.text));
        } else {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body(false).len()));
            *response.status_mut() = self.status;
        }
        response
    }

    /// The body of the answer; empty for gRPC.
    pub const fn body(&self, grpc: bool) -> &'static [u8] {
        if grpc { b"" } else { self.text.as_bytes() }
    }
}

impl From<RequestRefusal> for Refusal {
    fn from(refusal: RequestRefusal) -> Self {
        // gRPC knows one word for all of them: INVALID_ARGUMENT, except for what it calls UNIMPLEMENTED.
        let grpc_status = if refusal == RequestRefusal::Method {
            12
        } else {
            3
        };
        Self::new(refusal.status(), grpc_status, "bad request")
    }
}
