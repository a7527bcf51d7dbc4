//! The way to an OpenTelemetry collector, for whatever is told to it: by gRPC or HTTP, in the mesh or outside of it.
//!
//! A collector in the mesh is reached as any service is, by mutual TLS with the identity that discovery promises, and its
//! policy says who may send; nothing goes to it in plaintext. Only an `address` outside the mesh is dialled as it is.

use crate::app::App;
use crate::body::{Arriving, Body};
use crate::config::{Collector, HostPort, OtlpProtocol, ServiceName, Traces};
use crate::limits::EXPORT_LIMIT;
use crate::mux::client::{self, SendError, Sender};
use crate::outbound::pool;
use crate::state::Shared;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use mesh_api::discovery::Endpoint;
use mesh_api::otlp::{self, ExportResponse, KeyValue, Resource, Scope};
use mesh_proxy_core::http_hygiene::grpc_code;
use mesh_proxy_core::http_hygiene::headers::ORIG_VERSION;
use mesh_proxy_core::mesh_header::Kind;
use mesh_trust::Timestamp;
use mesh_trust::tls::verified_peer;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// Largest answer of a collector that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Codes of gRPC after which it may be tried again (OTLP, "Failures").
const GRPC_AGAIN: [u16; 7] = [1, 4, 8, 10, 11, 14, 15];
/// The same of HTTP.
const HTTP_AGAIN: [u16; 4] = [429, 502, 503, 504];

/// What is told, by where a collector takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    grpc: &'static str,
    http: &'static str,
}

/// Spans.
pub(crate) const SPANS: Signal = Signal {
    grpc: otlp::GRPC_PATH,
    http: otlp::HTTP_PATH,
};

/// Metrics.
pub(crate) const METRICS: Signal = Signal {
    grpc: otlp::metrics::GRPC_PATH,
    http: otlp::metrics::HTTP_PATH,
};

/// A collector, as it is reached.
pub(crate) struct Link<'a> {
    shared: &'a Shared,
    config: &'a Traces,
    signal: Signal,
    way: Option<Way>,
}

/// A connection to a collector.
enum Way {
    Plain {
        app: Rc<App>,
        host: String,
    },
    Mesh {
        sender: Sender,
        host: String,
        /// Of our identity that it was made under.
        version: u64,
        /// End of the collector's certificate.
        expires: Timestamp,
    },
}

/// Why something was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It may be, later: why, and how long the collector asks to be left alone.
    Later(String, Option<Duration>),
    /// It never will be.
    Never(String),
}

use NotTaken::{Later, Never};

/// It may be taken later, as far as anybody knows.
fn later(why: impl Into<String>) -> NotTaken {
    Later(why.into(), None)
}

impl<'a> Link<'a> {
    /// To the collector of `config`; nothing is dialled yet.
    pub(crate) fn new(shared: &'a Shared, config: &'a Traces, signal: Signal) -> Self {
        Self {
            shared,
            config,
            signal,
            way: None,
        }
    }

    /// One try: sends a message in the form of the protocol that is configured, and reads the answer.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<ExportResponse, NotTaken> {
        let sent = timeout(EXPORT_LIMIT, self.once(bytes)).await;
        let sent = sent.unwrap_or_else(|_| {
            let limit = EXPORT_LIMIT.as_secs();
            Err(later(format!("no answer within {limit} s")))
        });
        if sent.is_err() {
            self.way = None;
        }
        sent
    }

    async fn once(&mut self, bytes: Bytes) -> Result<ExportResponse, NotTaken> {
        let (protocol, signal) = (self.config.protocol, self.signal);
        let way = self.reach().await.map_err(later)?;
        let request = request(way, (protocol, signal), bytes).map_err(Never)?;
        let response = way.send(request).await.map_err(later)?;
        let (status, headers, answer) = read(response).await.map_err(later)?;
        match protocol {
            OtlpProtocol::Grpc => match (grpc_code(&headers), status) {
                (Some(0), StatusCode::OK) => Ok(ExportResponse::read_grpc(&answer)),
                (Some(code), _) if GRPC_AGAIN.contains(&code) => {
                    Err(later(format!("gRPC status {code}")))
                }
                (Some(code), _) => Err(Never(format!("gRPC status {code}"))),
                (None, status) => Err(by_status(status, &headers)),
            },
            OtlpProtocol::Http if status == StatusCode::OK => Ok(ExportResponse::read(&answer)),
            OtlpProtocol::Http => Err(by_status(status, &headers)),
        }
    }

    /// A connection that may be used now.
    async fn reach(&mut self) -> Result<&Way, String> {
        let version = {
            let identity = self.shared.identity.load();
            identity.as_ref().map_or(0, |own| own.version)
        };
        let now = self.shared.platform.wall_clock();
        let stands = self.way.take().filter(|way| match way {
            Way::Plain { .. } => true,
            Way::Mesh {
                sender,
                version: made,
                expires,
                ..
            } => !sender.is_closed() && *made == version && *expires >= now,
        });
        let way = match (stands, &self.config.collector) {
            (Some(way), _) => way,
            (None, Collector::Address(address)) => plain(address).await?,
            (None, Collector::Endpoints(endpoints)) => self.mesh(endpoints, None).await?,
            (None, Collector::Service(service)) => {
                let endpoints = self.endpoints(service)?;
                self.mesh(&endpoints, Some(service)).await?
            }
        };
        Ok(self.way.insert(way))
    }

    fn endpoints(&self, service: &ServiceName) -> Result<Vec<Endpoint>, String> {
        let discovery = self.shared.discovery.load();
        let found = discovery.get(&service.namespace, &service.name, service.port);
        let found = found.ok_or_else(|| format!("discovery knows no service `{service}`"))?;
        if found.endpoints.is_empty() {
            // Those outside the mesh are none: spans and metrics tell who calls whom.
            return Err(format!("`{service}` has no endpoint in the mesh"));
        }
        Ok(found.endpoints.clone())
    }

    /// A connection to one of these, which begin at a random one.
    async fn mesh(
        &self,
        endpoints: &[Endpoint],
        service: Option<&ServiceName>,
    ) -> Result<Way, String> {
        let count = endpoints.len().max(1);
        let first = usize::try_from(self.shared.platform.dice() % count as u64).unwrap_or(0);
        let mut why = "it has no endpoint".to_owned();
        for endpoint in endpoints.iter().cycle().skip(first).take(endpoints.len()) {
            let dialled = pool::dial_within(self.shared, endpoint, Kind::Requests).await;
            let (stream, version) = match dialled {
                Ok(dialled) => dialled,
                Err(error) => {
                    why = error.why;
                    continue;
                }
            };
            let peer = verified_peer(stream.get_ref().1).map_err(|error| error.to_string())?;
            let expires = peer.not_after();
            let (sender, connection) = client::connect(stream);
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "the connection to the collector ended");
                }
            });
            let host = service.map_or_else(
                || endpoint.proxy.ip().to_string(),
                |service| format!("{}.{}:{}", service.name, service.namespace, service.port),
            );
            return Ok(Way::Mesh {
                sender,
                host,
                version,
                expires,
            });
        }
        Err(why)
    }

    /// Whose it is, as any message says it.
    pub(crate) fn whose(&self) -> Resource {
        Resource {
            attributes: self.resource(),
        }
    }

    /// What is configured comes before what is known.
    fn resource(&self) -> Vec<KeyValue> {
        let config = &self.shared.config;
        let id = self.shared.identity.load();
        let id = id.as_ref().map(|identity| identity.svid.id().to_string());
        let known = [
            ("service.name", Some(config.workload.clone())),
            ("service.namespace", Some(config.namespace.clone())),
            ("service.instance.id", Some(config.workload_name())),
            ("mesh.spiffe_id", id),
        ];
        let given = &self.config.attributes;
        let known = known
            .into_iter()
            .filter(|(key, _)| !given.contains_key(*key));
        let known = known.filter_map(|(key, value)| Some(KeyValue::text(key, value?)));
        let given = given.iter().map(|(key, value)| KeyValue::text(key, value));
        known.chain(given).collect()
    }
}

/// To an address outside the mesh; a name is looked up each time.
async fn plain(address: &HostPort) -> Result<Way, String> {
    let host = address.to_string();
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let mut found = found.map_err(|error| format!("`{host}` cannot be looked up: {error}"))?;
    let at = found
        .next()
        .ok_or_else(|| format!("`{host}` has no address"))?;
    Ok(Way::Plain {
        app: App::new(at, at.port()),
        host,
    })
}

fn by_status(status: StatusCode, headers: &HeaderMap) -> NotTaken {
    let why = format!("HTTP status {}", status.as_u16());
    if !HTTP_AGAIN.contains(&status.as_u16()) {
        return Never(why);
    }
    // In seconds; a date is not read, for clocks differ.
    let after = headers
        .get(RETRY_AFTER)
        .and_then(|after| after.to_str().ok());
    let secs = after.and_then(|after| after.trim().parse().ok());
    Later(why, secs.map(Duration::from_secs))
}

/// What made it, as any message says it.
pub(crate) fn scope() -> Scope {
    Scope {
        name: "mesh-proxy".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The request that brings these bytes, in the form that goes this way.
fn request(
    way: &Way,
    (protocol, signal): (OtlpProtocol, Signal),
    bytes: Bytes,
) -> Result<Request<Body>, String> {
    let (host, in_mesh) = match way {
        Way::Plain { host, .. } => (host, false),
        Way::Mesh { host, .. } => (host, true),
    };
    let grpc = protocol == OtlpProtocol::Grpc;
    let path = if grpc { signal.grpc } else { signal.http };
    // Between proxies requests have the form of HTTP/2, with a mark of what was spoken.
    let http2 = grpc || in_mesh;
    let target = if http2 {
        format!("http://{host}{path}")
    } else {
        path.to_owned()
    };
    let mut headers = HeaderMap::new();
    let kind = if grpc {
        "application/grpc"
    } else {
        "application/x-protobuf"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    if !http2 {
        let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
    }
    if in_mesh && !grpc {
        headers.insert(ORIG_VERSION, HeaderValue::from_static("HTTP/1.1"));
    }
    let mut request = Request::new(Body::text(bytes));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.parse::<Uri>().map_err(|error| error.to_string())?;
    *request.version_mut() = if http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    *request.headers_mut() = headers;
    Ok(request)
}

impl Way {
    async fn send(&self, request: Request<Body>) -> Result<Response<Arriving>, String> {
        match self {
            Self::Plain { app, .. } => {
                let sent = match request.version() {
                    Version::HTTP_2 => app.send_http2(request).await,
                    _ => app.send_http1(request).await,
                };
                sent.map_err(|trouble| trouble.to_string())
            }
            Self::Mesh { sender, .. } => match sender.send(request).await {
                Ok(response) => Ok(response.map(Arriving::from)),
                Err(SendError::TooLong) => Err("the head is too long".to_owned()),
                Err(SendError::Unsent(_) | SendError::Broke) => {
                    Err("its proxy reset the request, or the connection broke".to_owned())
                }
            },
        }
    }
}

/// Reads an answer: its status, its headers with its trailers, and its body.
async fn read(response: Response<Arriving>) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
    let (parts, mut body) = response.into_parts();
    let (mut headers, mut bytes) = (parts.headers, Vec::new());
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        match frame.map_err(|error| error.to_string())?.into_data() {
            Ok(data) if bytes.len() + data.len() > ANSWER_BYTES_MAX => {
                return Err("its answer is too long".to_owned());
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => headers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((parts.status, headers, bytes))
}
