//! One try: a request to an endpoint of one service, in the mesh or outside it, and what came back.

use super::{By, Chosen, Listener};
use crate::account::Account;
use crate::answer::{Limit, Trouble};
use crate::app::{App, root_cause};
use crate::body::{Arriving, Body, Held};
use crate::core::Core;
use crate::deadline;
use crate::http1::{Connection, Nowhere};
use crate::io::Duplex;
use crate::limits::ENDPOINT_ATTEMPTS;
use crate::live::Kill;
use crate::mux::client::SendError;
use crate::outbound::egress::Leave;
use crate::remotes::Standing;
use crate::telemetry::{Ask, Measure};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Version, response};
use mesh_proxy_core::balance::{EndpointId, Outcome};
use mesh_proxy_core::http_hygiene::{Admitted, RequestRefusal, grpc_code, to_app, to_mesh};
use mesh_proxy_core::mesh_header::Kind;
use mesh_proxy_core::metrics::Failure;
use mesh_proxy_core::route::session::Token;
use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::time::{Instant, timeout_at};

/// The way of one request to one service.
#[derive(Clone, Copy)]
pub(super) struct Passage<'a> {
    pub(super) core: &'a Rc<Core>,
    /// The service: that of the listener, or a backend.
    pub(super) to: &'a Rc<Listener>,
    pub(super) grpc: bool,
    /// When the time is over that the client gave the request.
    pub(super) due: Option<Instant>,
    /// How its endpoint is chosen.
    pub(super) by: By,
    /// Where to say which one was.
    pub(super) picked: Option<&'a Cell<Option<EndpointId>>>,
    /// Where what becomes of the request is written down.
    pub(super) account: Option<&'a Rc<Account>>,
    /// Whom it goes to in TLS that begins here; nobody else then gets it.
    pub(super) origin: Option<&'a Rc<App>>,
}

/// Why a request got no answer from a backend.
pub(super) enum Failed {
    /// It, or what a filter made of it, is no request.
    Refused(RequestRefusal),
    /// Something on the way.
    Trouble(Trouble),
}

impl From<RequestRefusal> for Failed {
    fn from(refusal: RequestRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Failed {
    /// Status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::Trouble(trouble) => trouble.status(),
        }
    }
}

/// What came back.
pub(super) struct Reply {
    pub(super) parts: response::Parts,
    pub(super) body: Arriving,
    pub(super) held: Held,
    /// Ends the answer.
    pub(super) kill: Kill,
    /// The endpoint, where a session is to lead back to it.
    pub(super) token: Option<Token>,
}

/// What came back on a connection that may become a tunnel.
pub(super) struct Opened {
    pub(super) response: Response<Arriving>,
    /// The connection as a byte stream, after a `101`.
    pub(super) switched: Option<Box<dyn Duplex>>,
    pub(super) measure: Measure,
    /// Ends the connection.
    pub(super) kill: Kill,
    /// Place of the connection among those in the mesh.
    pub(super) standing: Option<Standing>,
    /// Its place among what has left the mesh.
    pub(super) leave: Option<Leave>,
    /// The endpoint, where a session is to lead back to it.
    pub(super) token: Option<Token>,
}

/// What comes before `until`.
pub(super) async fn within<F: Future>(until: Option<Instant>, future: F) -> Option<F::Output> {
    match until {
        None => Some(future.await),
        // Boxed: most requests have no limit, and should not carry room for one.
        Some(until) => Box::pin(timeout_at(until, future)).await.ok(),
    }
}

impl Passage<'_> {
    /// Sends a request to an endpoint in the form that it has there, inside the mesh or outside; gives up at `until`.
    pub(super) async fn send(
        &self,
        mut head: Parts,
        body: Body,
        admitted: &Admitted,
        until: Option<Instant>,
    ) -> Result<Reply, Failed> {
        match self.outside_drawn() {
            Some(outside) => {
                to_app(&mut head, admitted, None)?;
                let request = Request::from_parts(head, body);
                Ok(self.outside(request, &outside, until).await?)
            }
            None => {
                to_mesh(&mut head, admitted)?;
                self.mesh(Request::from_parts(head, body), until).await
            }
        }
    }

    /// Sends a request in the form that goes between proxies to an endpoint in the mesh; gives up at `until`.
    pub(super) async fn mesh(
        &self,
        mut request: Request<Body>,
        until: Option<Instant>,
    ) -> Result<Reply, Failed> {
        let mut last = None;
        for _ in 0..ENDPOINT_ATTEMPTS {
            let chosen = within(until, self.to.choose(self.core, self.by)).await;
            let Some(mut chosen) = chosen.ok_or_else(|| self.late(false))? else {
                break;
            };
            if let Some(picked) = self.picked {
                picked.set(Some(chosen.id));
            }
            let measure = self.measure(Some(&chosen));
            let place = within(until, chosen.remote.requests(self.core)).await;
            let (sender, flight) = match place {
                Some(Ok(place)) => place,
                Some(Err(error)) => {
                    measure.failed(error.failure());
                    chosen.not_connected(self.core);
                    last = Some(error);
                    continue;
                }
                None => {
                    measure.failed(Failure::Timeout);
                    return Err(self.late(false).into());
                }
            };
            if let Err(over) = self.tell_time(request.headers_mut(), until) {
                measure.failed(Failure::Timeout);
                return Err(over.into());
            }
            measure.allowed(None);
            match within(until, sender.send(request)).await {
                Some(Ok(response)) => {
                    match self.outcome(&response) {
                        Some(outcome) => chosen.ended(self.core, outcome),
                        None => chosen.ran_out(self.core),
                    }
                    let (parts, body) = response.into_parts();
                    let held = Held {
                        measure: Some(measure),
                        flight: Some(flight),
                        ..Held::default()
                    };
                    let body = body.into();
                    return Ok(Reply {
                        parts,
                        body,
                        held,
                        kill: Kill::default(),
                        token: self.token(&chosen),
                    });
                }
                Some(Err(error)) => {
                    measure.failed(Failure::Reset);
                    let outcome = match error {
                        SendError::Broke => Outcome::Failed,
                        // Which say nothing about the endpoint.
                        SendError::TooLong | SendError::Unsent(_) => Outcome::Cancelled,
                    };
                    chosen.ended(self.core, outcome);
                    // What was not sent may go elsewhere; what may have been served is not repeated here.
                    match error {
                        SendError::Unsent(unsent) => request = *unsent,
                        SendError::TooLong => return Err(RequestRefusal::HeadersTooLarge.into()),
                        SendError::Broke => {
                            let why = "its proxy reset the request, or the connection broke";
                            return Err(self.broke_because(why.to_owned()).into());
                        }
                    }
                    chosen.remote.forget_closed();
                }
                None => {
                    measure.failed(Failure::Timeout);
                    match self.is_over() {
                        true => chosen.ran_out(self.core),
                        false => chosen.ended(self.core, Outcome::Failed),
                    }
                    return Err(self.late(true).into());
                }
            }
        }
        Err(self.unreachable(last).into())
    }

    /// Sends a request in the form that its application gets to the first of `endpoints` that can be reached: they are
    /// outside the mesh.
    pub(super) async fn outside(
        &self,
        mut request: Request<Body>,
        endpoints: &[SocketAddr],
        until: Option<Instant>,
    ) -> Result<Reply, Trouble> {
        let measure = self.measure(None);
        let version = request.version();
        let app = self.reach(endpoints, version, until, &measure).await?;
        if let Err(over) = self.tell_time(request.headers_mut(), until) {
            measure.failed(Failure::Timeout);
            return Err(over);
        }
        measure.allowed(None);
        let sent = within(until, async {
            match version {
                Version::HTTP_2 => app.send_http2(request).await,
                _ => app.send_http1(request).await,
            }
        });
        match sent.await {
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                measure.failed(Failure::Reset);
                Err(self.broke_because("it switched protocols unasked".to_owned()))
            }
            Some(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let held = Held {
                    measure: Some(measure),
                    app: Some(app),
                    ..Held::default()
                };
                Ok(Reply {
                    parts,
                    body,
                    held,
                    kill: Kill::default(),
                    token: None,
                })
            }
            Some(Err(trouble)) => {
                measure.failed(Failure::Reset);
                Err(self.broke_because(trouble.to_string()))
            }
            None => {
                measure.failed(Failure::Timeout);
                Err(self.late(true))
            }
        }
    }

    /// The first of `endpoints` to which there is a connection, or can be one.
    async fn reach(
        &self,
        endpoints: &[SocketAddr],
        version: Version,
        until: Option<Instant>,
        measure: &Measure,
    ) -> Result<Rc<App>, Trouble> {
        let mut why = "it has no address".to_owned();
        for endpoint in endpoints.iter().take(ENDPOINT_ATTEMPTS) {
            let app = match self.origin {
                Some(origin) => origin.clone(),
                None => self.to.app_at(*endpoint),
            };
            match within(until, app.reach(version)).await {
                Some(Ok(dialled)) => {
                    match app.tls_with() {
                        _ if !dialled => {}
                        Some(server_name) => self.leaves_in_tls(*endpoint, server_name),
                        None => self.leaves_in_plaintext(*endpoint),
                    }
                    return Ok(app);
                }
                Some(Err(trouble @ Trouble::TlsNotBegun { .. })) => {
                    if let Trouble::TlsNotBegun { why, .. } = &trouble {
                        self.core.meter.tls_begun(why.word());
                        measure.failed(why.failure());
                    }
                    return Err(trouble);
                }
                Some(Err(trouble)) => why = trouble.to_string(),
                None => {
                    measure.failed(Failure::Timeout);
                    return Err(self.late(false));
                }
            }
        }
        measure.failed(Failure::Connect);
        Err(Trouble::Unreachable {
            service: self.to.name.clone(),
            why,
            late: false,
        })
    }

    /// Endpoints outside the mesh, if one of them was drawn. What has an endpoint in the mesh already goes back there.
    pub(super) fn outside_drawn(&self) -> Option<Vec<SocketAddr>> {
        match self.by {
            By::Session(Some(_)) | By::Other(_) => None,
            By::Session(None) | By::Load | By::Key(_) => self.to.draw(self.core),
        }
    }

    /// What stands for an endpoint where a session is to lead back to it.
    fn token(&self, chosen: &Chosen) -> Option<Token> {
        let in_session = matches!(self.by, By::Session(_));
        in_session.then(|| chosen.remote.token(&self.to.name))
    }

    fn leaves_in_tls(&self, to: SocketAddr, server_name: &str) {
        self.core.meter.tls_begun("begun");
        tracing::info!(%to, server_name, target = self.to.name, "a connection leaves in TLS that began here");
    }

    fn leaves_in_plaintext(&self, to: SocketAddr) {
        let reason = self.to.plain_reason().as_str();
        self.core.meter.plaintext(reason);
        tracing::info!(%to, target = self.to.name, reason, "a connection leaves in plaintext");
    }

    /// Sends a request that wants an upgrade over a connection of its own through the mesh.
    pub(super) async fn open(&self, request: Request<Body>) -> Result<Opened, Trouble> {
        let Some(mut chosen) = self.to.choose(self.core, self.by).await else {
            return Err(self.unreachable(None));
        };
        let measure = self.measure(Some(&chosen));
        let stream = match chosen.remote.stream(self.core, Kind::Http1).await {
            Ok((stream, _)) => stream,
            Err(error) => {
                measure.failed(error.failure());
                chosen.not_connected(self.core);
                return Err(self.unreachable(Some(error)));
            }
        };
        chosen.ended(self.core, Outcome::Cancelled);
        let token = self.token(&chosen);
        let standing = self.core.remotes.enter(stream.get_ref().1);
        let kill = standing.kill().clone();
        let answered = tokio::select! {
            biased;
            _ = kill.ended() => return Err(self.broke_because("its proxy is no longer trusted".to_owned())),
            answered = Connection::new(stream).exchange(request, Nowhere) => answered,
        };
        let answered = answered.map_err(|fault| self.broke_because(root_cause(&fault)))?;
        Ok(Opened {
            response: answered.response,
            switched: answered
                .switched
                .map(|stream| Box::new(stream) as Box<dyn Duplex>),
            measure,
            kill,
            standing: Some(standing),
            leave: None,
            token,
        })
    }

    /// The same to the first of `endpoints`, which are outside the mesh.
    pub(super) async fn open_outside(
        &self,
        request: Request<Body>,
        endpoints: &[SocketAddr],
    ) -> Result<Opened, Trouble> {
        let measure = self.measure(None);
        let app = self
            .reach(endpoints, Version::HTTP_11, None, &measure)
            .await?;
        measure.allowed(None);
        match app.send_upgrade(request).await {
            Ok(answered) => Ok(Opened {
                response: answered.response,
                switched: answered
                    .switched
                    .map(|stream| Box::new(stream) as Box<dyn Duplex>),
                measure,
                kill: Kill::default(),
                standing: None,
                leave: None,
                token: None,
            }),
            Err(trouble) => {
                measure.failed(Failure::Reset);
                Err(self.broke_because(trouble.to_string()))
            }
        }
    }

    pub(super) fn measure(&self, chosen: Option<&Chosen>) -> Measure {
        let ask = if self.grpc { Ask::Grpc } else { Ask::Http };
        let edge = chosen.map(|chosen| chosen.remote.edge());
        if let Some(account) = self.account {
            account.endpoint(edge.map(|(server, _)| server));
        }
        let measure = self.core.meter.outbound(&self.to.name, edge, ask);
        measure.telling(self.account.cloned())
    }

    /// What an answer says of its endpoint; `None`: that the client's own time was over.
    fn outcome<B>(&self, response: &Response<B>) -> Option<Outcome> {
        let code = self.grpc.then(|| grpc_code(response.headers())).flatten();
        let late = response.status() == StatusCode::GATEWAY_TIMEOUT || code == Some(4);
        if late && self.due.is_some_and(deadline::may_be_over) {
            return None;
        }
        Some(Outcome::of_answer(response.status().as_u16(), code))
    }

    fn unreachable(&self, last: Option<super::pool::DialError>) -> Trouble {
        let service = self.to.name.clone();
        match last {
            Some(error) if error.no_identity => Trouble::NoIdentity { why: error.why },
            Some(error) => Trouble::Unreachable {
                service,
                why: error.why,
                late: error.late,
            },
            None if self.to.has_endpoints() => {
                let why = "its endpoints failed moments ago".to_owned();
                Trouble::Unreachable {
                    service,
                    why,
                    late: false,
                }
            }
            None => {
                self.measure(None).failed(Failure::NoEndpoint);
                Trouble::NoEndpoint { service }
            }
        }
    }

    fn broke_because(&self, why: String) -> Trouble {
        Trouble::PeerBroke {
            service: self.to.name.clone(),
            why,
        }
    }

    /// Tells whoever gets the request how much of its time is left: until this try is given up, but for gRPC, whose
    /// servers hold the whole call to it, streams included, where the limits of routes end with the answer's head.
    fn tell_time(&self, headers: &mut HeaderMap, until: Option<Instant>) -> Result<(), Trouble> {
        let ends = if self.grpc { self.due } else { until };
        deadline::tell(headers, self.grpc, ends).map_err(|_| self.late(false))
    }

    /// Whether the time is over that the client gave the request.
    fn is_over(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// A limit of time is over.
    pub(super) fn late(&self, sent: bool) -> Trouble {
        match (self.is_over(), sent) {
            (true, false) => Trouble::NoTimeLeft,
            (true, true) => self.timed_out(Limit::Client, sent),
            (false, _) => self.timed_out(Limit::BackendRequest, sent),
        }
    }

    fn timed_out(&self, limit: Limit, sent: bool) -> Trouble {
        Trouble::TimedOut {
            service: self.to.name.clone(),
            limit,
            sent,
        }
    }
}
