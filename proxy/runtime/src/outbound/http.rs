//! One request of the application: admitted, sent to an endpoint, answered or refused with the cause.

use super::{Chosen, Listener};
use crate::answer::{Answer, Trouble, closing, refused};
use crate::app::root_cause;
use crate::body::{Arriving, Body, Held};
use crate::core::Core;
use crate::guarded::WireRefusal;
use crate::limits::{ENDPOINT_ATTEMPTS, HEAD_BYTES_MAX, HEADERS_MAX};
use crate::live::Kill;
use crate::mux::client::SendError;
use crate::serve::Service;
use crate::telemetry::{Ask, Measure};
use crate::tunnel;
use http::request::Parts;
use http::{Request, Response, Version, response};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_policy::record::RecordRequest;
use mesh_proxy_core::balance::Outcome;
use mesh_proxy_core::http_hygiene::upgrade::{is_done, restore};
use mesh_proxy_core::http_hygiene::{
    Admitted, Entry, Refusal, RequestLimits, RequestRefusal, Upgrade, admit, is_grpc,
    sanitize_response, to_app, to_mesh,
};
use mesh_proxy_core::mesh_header::Kind;
use mesh_proxy_core::metrics::Failure;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;

/// Where requests of the application leave from: one HTTP connection.
pub(crate) struct Departure {
    core: Rc<Core>,
    listener: Rc<Listener>,
    from: IpAddr,
}

impl Departure {
    pub(crate) fn new(core: Rc<Core>, listener: Rc<Listener>, from: IpAddr) -> Rc<Self> {
        Rc::new(Self {
            core,
            listener,
            from,
        })
    }

    /// Refuses a request that could be read in two ways: counted and recorded here, because it reaches nobody else.
    fn refuse(
        &self,
        refusal: RequestRefusal,
        request: RecordRequest,
        version: Version,
        grpc: bool,
    ) -> Answer {
        self.note_refused(refusal, Some(request), grpc);
        let answer = refused(&Refusal::from(refusal), grpc);
        if refusal.closes() && version < Version::HTTP_2 {
            closing(answer)
        } else {
            answer
        }
    }

    fn note_refused(&self, refusal: RequestRefusal, request: Option<RecordRequest>, grpc: bool) {
        let ask = if grpc { Ask::Grpc } else { Ask::Http };
        let measure = self.core.meter.outbound(&self.listener.name, None, ask);
        measure.refused(refusal, grpc);
        self.listener
            .record_refused(&self.core, self.from, request, grpc);
    }
}

impl Service for Departure {
    fn answer(
        self: Rc<Self>,
        request: Request<Arriving>,
    ) -> impl Future<Output = Answer> + 'static {
        answer(self, request)
    }

    fn on_refused(&self, refusal: &WireRefusal) {
        self.note_refused(refusal.why, refusal.request.clone(), false);
    }
}

/// Answers one request.
async fn answer(from: Rc<Departure>, mut request: Request<Arriving>) -> Answer {
    let version = request.version();
    let grpc = version == Version::HTTP_2 && is_grpc(request.headers());
    let upgrading = request
        .headers()
        .contains_key(http::header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let raw = (parts.method.clone(), parts.uri.clone());
    let refuse = |refusal| {
        let request = RecordRequest {
            method: raw.0.to_string(),
            raw_path: raw.1.to_string(),
            ..RecordRequest::default()
        };
        from.refuse(refusal, request, version, grpc)
    };
    let admitted = match admit(&mut parts, Entry::Plain, &RequestLimits::default()) {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(refusal),
    };
    let call = Outgoing {
        core: &from.core,
        listener: &from.listener,
        admitted: &admitted,
    };
    let answer = match (admitted.upgrade, upgrading) {
        (Some(upgrade), Some(upgrading)) => match to_app(&mut parts, &admitted, None) {
            Ok(()) => call.tunnel(parts, upgrade, upgrading).await,
            Err(refusal) => return refuse(refusal),
        },
        _ => match to_mesh(&mut parts, &admitted) {
            Ok(()) => call.exchange(parts, body).await,
            Err(refusal) => return refuse(refusal),
        },
    };
    answer.unwrap_or_else(|trouble| {
        tracing::warn!(%trouble, "a request failed");
        trouble.answer(admitted.grpc)
    })
}

struct Outgoing<'a> {
    core: &'a Rc<Core>,
    listener: &'a Rc<Listener>,
    admitted: &'a Admitted,
}

impl Outgoing<'_> {
    async fn exchange(&self, parts: Parts, body: Arriving) -> Result<Answer, Trouble> {
        let kill = Kill::default();
        let mut request = Request::from_parts(parts, Body::request(body, kill.clone()));
        let mut last = None;
        for _ in 0..ENDPOINT_ATTEMPTS {
            let Some(chosen) = self.listener.choose(self.core).await else {
                break;
            };
            let measure = self.measure(Some(&chosen));
            let (sender, flight) = match chosen.remote.requests(self.core).await {
                Ok(place) => place,
                Err(error) => {
                    measure.failed(error.failure());
                    self.listener.not_connected(self.core, &chosen);
                    last = Some(error);
                    continue;
                }
            };
            measure.allowed(None);
            match sender.send(request).await {
                Ok(response) => {
                    self.listener.ended(self.core, &chosen, Outcome::Answered);
                    let (parts, body) = response.into_parts();
                    let held = Held {
                        measure: Some(measure),
                        flight: Some(flight),
                        ..Held::default()
                    };
                    return Ok(self.respond(parts, body, kill, held));
                }
                Err(error) => {
                    measure.failed(Failure::Reset);
                    self.listener.ended(self.core, &chosen, Outcome::Failed);
                    // What was not sent may go elsewhere; what may have been served is never repeated.
                    match error {
                        SendError::Unsent(unsent) => request = *unsent,
                        SendError::TooLong => {
                            return Ok(refused(
                                &RequestRefusal::HeadersTooLarge.into(),
                                self.admitted.grpc,
                            ));
                        }
                        SendError::Broke => {
                            return Err(self.broke(
                                "its proxy reset the request, or the connection broke".to_owned(),
                            ));
                        }
                    }
                    chosen.remote.forget_closed();
                }
            }
        }
        Err(self.unreachable(last))
    }

    fn respond(
        &self,
        mut parts: response::Parts,
        body: impl Into<Arriving>,
        kill: Kill,
        held: Held,
    ) -> Answer {
        sanitize_response(&mut parts);
        parts.extensions.clear();
        parts.version = Version::HTTP_11; // the server side of this connection speaks its own
        if let Some(measure) = &held.measure {
            measure.answered_with(parts.status);
        }
        Response::from_parts(parts, Body::response(body, kill, self.admitted.grpc, held))
    }

    /// An upgrade, in the form that its application gets: an HTTP/1.1 connection of its own through the mesh.
    async fn tunnel(
        &self,
        mut parts: Parts,
        upgrade: Upgrade,
        upgrading: OnUpgrade,
    ) -> Result<Answer, Trouble> {
        restore(&mut parts, upgrade);
        let Some(chosen) = self.listener.choose(self.core).await else {
            return Err(self.unreachable(None));
        };
        let measure = self.measure(Some(&chosen));
        let stream = match chosen.remote.stream(self.core, Kind::Http1).await {
            Ok((stream, _)) => stream,
            Err(error) => {
                measure.failed(error.failure());
                self.listener.not_connected(self.core, &chosen);
                return Err(self.unreachable(Some(error)));
            }
        };
        self.listener.ended(self.core, &chosen, Outcome::Cancelled);
        let standing = self.core.remotes.enter(stream.get_ref().1);
        let kill = standing.kill.clone();
        let client = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = client
            .await
            .map_err(|error| self.broke(root_cause(&error)))?;
        tokio::task::spawn_local(async move {
            tokio::select! {
                ended = connection.with_upgrades() => if let Err(error) = ended {
                    tracing::debug!(
                        error = root_cause(&error),
                        "an upgraded mesh connection ended"
                    );
                },
                _ = kill.ended() => {}
            }
        });
        let mut response = sender
            .send_request(Request::from_parts(parts, Body::Empty))
            .await
            .map_err(|error| self.broke(root_cause(&error)))?;
        let switched = hyper::upgrade::on(&mut response);
        let (mut parts, body) = response.into_parts();
        if !is_done(&parts, upgrade) {
            let held = Held {
                measure: Some(measure),
                ..Held::default()
            };
            return Ok(self.respond(parts, body, standing.kill.clone(), held));
        }
        sanitize_response(&mut parts);
        parts.extensions.clear();
        measure.answered_with(parts.status);
        tunnel::carry(
            upgrading,
            switched,
            standing.kill.clone(),
            standing,
            self.core.shared.mark_busy(),
        );
        Ok(Response::from_parts(parts, Body::Empty))
    }

    fn measure(&self, chosen: Option<&Chosen>) -> Measure {
        let ask = if self.admitted.grpc {
            Ask::Grpc
        } else {
            Ask::Http
        };
        self.core.meter.outbound(
            &self.listener.name,
            chosen.map(|chosen| chosen.remote.edge()),
            ask,
        )
    }

    fn unreachable(&self, last: Option<super::pool::DialError>) -> Trouble {
        let service = self.listener.name.clone();
        match last {
            Some(error) if error.no_identity => Trouble::NoIdentity { why: error.why },
            Some(error) => Trouble::Unreachable {
                service,
                why: error.why,
                late: error.late,
            },
            None if self.listener.has_endpoints() => {
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

    fn broke(&self, why: String) -> Trouble {
        Trouble::PeerBroke {
            service: self.listener.name.clone(),
            why,
        }
    }
}
