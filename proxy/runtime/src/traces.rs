//! Spans on their way to an OpenTelemetry collector: gathered from all cores by the control thread, sent in batches over
//! OTLP, with gRPC or HTTP. No request waits for any of this: what the collector does not take in time is dropped and counted.
//!
//! A collector in the mesh is reached as any service is, by mutual TLS with the identity that discovery promises, and its
//! policy says who may send; nothing goes to it in plaintext. Only an `address` outside the mesh is dialled as it is.

mod span;

use crate::account::Told;
use crate::app::App;
use crate::body::{Arriving, Body};
use crate::config::{Collector, HostPort, OtlpProtocol, ServiceName, Traces};
use crate::limits::{
    EXPORT_ATTEMPTS, EXPORT_EVERY, EXPORT_LIMIT, EXPORT_PAUSE, SPANS_BATCH, SPANS_QUEUE,
};
use crate::mux::client::{self, SendError, Sender};
use crate::outbound::pool;
use crate::state::Shared;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use mesh_api::discovery::Endpoint;
use mesh_api::otlp::{
    ExportRequest, ExportResponse, GRPC_PATH, HTTP_PATH, KeyValue, Resource, ResourceSpans, Scope,
    ScopeSpans,
};
use mesh_proxy_core::http_hygiene::grpc_code;
use mesh_proxy_core::http_hygiene::headers::ORIG_VERSION;
use mesh_proxy_core::mesh_header::Kind;
use mesh_trust::Timestamp;
use mesh_trust::tls::verified_peer;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Largest answer of a collector that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Codes of gRPC after which it may be tried again (OTLP, "Failures").
const GRPC_AGAIN: [u16; 7] = [1, 4, 8, 10, 11, 14, 15];
/// The same of HTTP.
const HTTP_AGAIN: [u16; 4] = [429, 502, 503, 504];

/// Where cores leave spans.
pub(crate) struct Queue {
    sender: mpsc::Sender<Arc<Told>>,
    /// Until the one exporter has it.
    receiver: Mutex<Option<mpsc::Receiver<Arc<Told>>>>,
}

impl Queue {
    /// A queue, if traces are sent anywhere.
    pub(crate) fn of(config: Option<&Traces>) -> Option<Self> {
        config?;
        let (sender, receiver) = mpsc::channel(SPANS_QUEUE);
        Some(Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        })
    }

    /// What a core leaves them with.
    pub(crate) fn sender(&self) -> mpsc::Sender<Arc<Told>> {
        self.sender.clone()
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Arc<Told>>> {
        // Whoever panicked in between left it whole.
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.take()
    }
}

/// Sends what comes until the proxy ends, and then once more.
pub(crate) async fn export(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let receiver = shared.traces.as_ref().and_then(Queue::receiver);
    let (Some(config), Some(mut spans)) = (&shared.config.traces, receiver) else {
        return;
    };
    let mut exporter = Exporter {
        shared: &shared,
        config,
        way: None,
        failing: false,
    };
    let mut ending = false;
    while !ending {
        let batch;
        (batch, ending) = gather(&mut spans, &mut stop).await;
        if !batch.is_empty() {
            exporter.send(batch, &mut stop).await;
        }
    }
}

/// The next spans that are sent together, and whether they are the last: the proxy ends.
async fn gather(
    spans: &mut mpsc::Receiver<Arc<Told>>,
    stop: &mut watch::Receiver<bool>,
) -> (Vec<Arc<Told>>, bool) {
    let mut batch = Vec::new();
    let mut until = None;
    while batch.len() < SPANS_BATCH {
        let came = async {
            match until {
                None => Some(spans.recv().await),
                Some(until) => timeout_at(until, spans.recv()).await.ok(),
            }
        };
        tokio::select! {
            biased;
            // An error: whoever would say so is gone.
            _ = stop.wait_for(|stop| *stop) => {
                // In pieces of the usual size: collectors take no message of many megabytes.
                while batch.len() < SPANS_BATCH {
                    match spans.try_recv() {
                        Ok(told) => batch.push(told),
                        Err(_) => return (batch, true),
                    }
                }
                return (batch, false);
            }
            came = came => match came {
                Some(Some(told)) => {
                    batch.push(told);
                    until.get_or_insert_with(|| Instant::now() + EXPORT_EVERY);
                }
                Some(None) => return (batch, true),
                None => break,
            }
        }
    }
    (batch, false)
}

/// A collector, as it is reached.
struct Exporter<'a> {
    shared: &'a Shared,
    config: &'a Traces,
    way: Option<Way>,
    /// Whether the last batch could not be sent; said once.
    failing: bool,
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

/// Why a batch was not taken.
enum NotTaken {
    /// It may be, later.
    Later(String),
    /// It never will be.
    Never(String),
}

use NotTaken::{Later, Never};

impl Exporter<'_> {
    async fn send(&mut self, batch: Vec<Arc<Told>>, stop: &mut watch::Receiver<bool>) {
        let count = batch.len() as u64;
        let request = self.request(batch);
        let bytes = Bytes::from(match self.config.protocol {
            OtlpProtocol::Grpc => request.to_grpc(),
            OtlpProtocol::Http => request.to_bytes(),
        });
        drop(request);
        let mut pause = EXPORT_PAUSE;
        for attempt in 1..=EXPORT_ATTEMPTS {
            let sent = timeout(EXPORT_LIMIT, self.once(bytes.clone())).await;
            let sent = sent.unwrap_or_else(|_| {
                let limit = EXPORT_LIMIT.as_secs();
                Err(Later(format!("no answer within {limit} s")))
            });
            match sent {
                Ok(answer) => return self.taken(count, &answer),
                Err(Never(why)) => {
                    self.way = None;
                    return self.dropped(count, "refused", &why);
                }
                Err(Later(why)) => {
                    self.way = None;
                    if attempt == EXPORT_ATTEMPTS || *stop.borrow() {
                        return self.dropped(count, "unsent", &why);
                    }
                    // What is there when the proxy ends is tried once more.
                    let _ = timeout(pause, stop.wait_for(|stop| *stop)).await;
                    pause *= 2;
                }
            }
        }
    }

    fn taken(&mut self, count: u64, answer: &ExportResponse) {
        let (rejected, why) = answer.rejected();
        let rejected = rejected.min(count);
        let counts = &self.shared.telemetry;
        counts.add("mesh_trace_spans_exported_total", None, count - rejected);
        if rejected > 0 {
            return self.dropped(rejected, "refused", why);
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("the collector takes spans again");
        }
    }

    fn dropped(&mut self, count: u64, how: &'static str, why: &str) {
        let counts = &self.shared.telemetry;
        counts.add("mesh_trace_spans_dropped_total", Some(("why", how)), count);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                code = "MESH-0580",
                why,
                "the collector does not take spans: they are dropped and counted"
            );
        }
    }

    /// One try.
    async fn once(&mut self, bytes: Bytes) -> Result<ExportResponse, NotTaken> {
        let protocol = self.config.protocol;
        let way = self.reach().await.map_err(Later)?;
        let request = request(way, protocol, bytes).map_err(Never)?;
        let response = way.send(request).await.map_err(Later)?;
        let (status, headers, answer) = read(response).await.map_err(Later)?;
        match protocol {
            OtlpProtocol::Grpc => match (grpc_code(&headers), status) {
                (Some(0), StatusCode::OK) => Ok(ExportResponse::read_grpc(&answer)),
                (Some(code), _) if GRPC_AGAIN.contains(&code) => {
                    Err(Later(format!("gRPC status {code}")))
                }
                (Some(code), _) => Err(Never(format!("gRPC status {code}"))),
                (None, status) => Err(by_status(status)),
            },
            OtlpProtocol::Http if status == StatusCode::OK => Ok(ExportResponse::read(&answer)),
            OtlpProtocol::Http => Err(by_status(status)),
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
            // Those outside the mesh are none: spans tell who calls whom.
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

    /// Spans with whose they are.
    fn request(&self, batch: Vec<Arc<Told>>) -> ExportRequest {
        let spans = batch.iter().filter_map(|told| span::of(told)).collect();
        let scope = Scope {
            name: "mesh-proxy".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let scope_spans = ScopeSpans {
            scope: Some(scope),
            spans,
        };
        ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: self.resource(),
                }),
                scope_spans: vec![scope_spans],
            }],
        }
    }

    /// Whose spans these are; what is configured comes before what is known.
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

fn by_status(status: StatusCode) -> NotTaken {
    let why = format!("HTTP status {}", status.as_u16());
    if HTTP_AGAIN.contains(&status.as_u16()) {
        Later(why)
    } else {
        Never(why)
    }
}

/// The request that brings these bytes, in the form that goes this way.
fn request(way: &Way, protocol: OtlpProtocol, bytes: Bytes) -> Result<Request<Body>, String> {
    let (host, in_mesh) = match way {
        Way::Plain { host, .. } => (host, false),
        Way::Mesh { host, .. } => (host, true),
    };
    let grpc = protocol == OtlpProtocol::Grpc;
    let path = if grpc { GRPC_PATH } else { HTTP_PATH };
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
