//! One request of the application: admitted, sent to an endpoint, answered or refused with the cause.

use super::egress;
use super::route;
use super::send::{Failed, Opened, Passage, Reply};
use super::{By, Listener};
use crate::account::{Account, answered};
use crate::answer::{Answer, Trouble, closing, refused};
use crate::body::{Arriving, Body, Held};
use crate::core::Core;
use crate::deadline;
use crate::live::Kill;
use crate::serve::Service;
use crate::serve::http1::{OnSwitch, WireRefusal};
use crate::telemetry::Ask;
use crate::tunnel;
use futures_util::FutureExt;
use http::request::Parts;
use http::{Request, Response, Version};
use mesh_policy::decide::Phase;
use mesh_policy::record::RecordRequest;
use mesh_proxy_core::http_hygiene::upgrade::{is_done, restore};
use mesh_proxy_core::http_hygiene::{
    Admitted, Entry, Refusal, RequestLimits, RequestRefusal, Upgrade, admit, is_grpc,
    sanitize_response, to_app, to_mesh,
};
use mesh_proxy_core::metrics::phase_label;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::time::Instant;

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
        account: Option<&Account>,
        refusal: RequestRefusal,
        request: RecordRequest,
        version: Version,
        grpc: bool,
    ) -> Answer {
        if let Some(account) = account {
            account.denied(phase_label(Phase::Request), refusal.as_str());
        }
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
        mut request: Request<Arriving>,
    ) -> impl Future<Output = Answer> + 'static {
        let account = Account::outbound(&self.core, &mut request, &self.listener.name);
        let told = account.clone();
        answer(self, request, account).map(|answer| answered(told, answer))
    }

    fn on_refused(&self, refusal: &WireRefusal) {
        // One whose head had gone on has an account of its own, which is told.
        if !refusal.has_begun() {
            let request = refusal.request.as_ref();
            Account::refused_out(&self.core, &self.listener.name, request, refusal.why);
        }
        self.note_refused(refusal.why, refusal.request.clone(), false);
    }
}

/// Answers one request.
async fn answer(
    from: Rc<Departure>,
    request: Request<Arriving>,
    account: Option<Rc<Account>>,
) -> Answer {
    let version = request.version();
    let grpc = version == Version::HTTP_2 && is_grpc(request.headers());
    let (mut parts, mut body) = request.into_parts();
    let raw = (parts.method.clone(), parts.uri.clone());
    let refuse = |refusal| {
        let request = RecordRequest {
            method: raw.0.to_string(),
            raw_path: raw.1.to_string(),
            ..RecordRequest::default()
        };
        from.refuse(account.as_deref(), refusal, request, version, grpc)
    };
    let admitted = match admit(&mut parts, Entry::Plain, &RequestLimits::default()) {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(refusal),
    };
    let upgrade = admitted.upgrade.zip(body.take_switch());
    let call = Outgoing {
        core: &from.core,
        listener: &from.listener,
        admitted: &admitted,
        due: deadline::due(&parts.headers, &admitted),
        account: account.as_ref(),
    };
    let told = |trouble: Trouble| {
        tracing::warn!(%trouble, "a request failed");
        trouble.answer(admitted.grpc)
    };
    let ended = |answered| match answered {
        Ok(answer) => answer,
        Err(Failed::Refused(refusal)) => refuse(refusal),
        Err(Failed::Trouble(trouble)) => told(trouble),
    };
    // Boxed: requests that stay in the mesh and follow no route should not carry room for these.
    if let Some(to) = from.listener.outside() {
        let way = (from.from, to);
        return ended(Box::pin(egress::answer(&call, way, parts, body, upgrade)).await);
    }
    if let Some(routing) = from.listener.routing(&from.core) {
        return ended(Box::pin(route::answer(&call, &routing, parts, body, upgrade)).await);
    }
    let answer = match upgrade {
        Some((upgrade, upgrading)) => match to_app(&mut parts, &admitted, None) {
            Ok(()) => call.tunnel(parts, upgrade, upgrading).await,
            Err(refusal) => return refuse(refusal),
        },
        None => match to_mesh(&mut parts, &admitted) {
            Ok(()) => call.exchange(parts, body).await,
            Err(refusal) => return refuse(refusal),
        },
    };
    answer.unwrap_or_else(told)
}

/// One request on its way.
pub(super) struct Outgoing<'a> {
    pub(super) core: &'a Rc<Core>,
    pub(super) listener: &'a Rc<Listener>,
    pub(super) admitted: &'a Admitted,
    /// When the time is over that the client gave it.
    pub(super) due: Option<Instant>,
    /// Where what becomes of it is written down.
    pub(super) account: Option<&'a Rc<Account>>,
}

impl<'a> Outgoing<'a> {
    /// Its way to a service.
    pub(super) fn to(&self, service: &'a Rc<Listener>) -> Passage<'a> {
        Passage {
            core: self.core,
            to: service,
            grpc: self.admitted.grpc,
            due: self.due,
            by: By::Load,
            picked: None,
            account: self.account,
            origin: None,
        }
    }

    async fn exchange(&self, parts: Parts, body: Arriving) -> Result<Answer, Trouble> {
        let by = self.listener.by(self.core, &parts.headers);
        let request = Request::from_parts(parts, Body::request(body, Kill::default()));
        let passage = Passage {
            by,
            ..self.to(self.listener)
        };
        match passage.mesh(request, self.due).await {
            Ok(reply) => Ok(self.respond(reply)),
            Err(Failed::Refused(refusal)) => Ok(refused(&refusal.into(), self.admitted.grpc)),
            Err(Failed::Trouble(trouble)) => Err(trouble),
        }
    }

    pub(super) fn respond(&self, reply: Reply) -> Answer {
        let Reply {
            mut parts,
            body,
            held,
            kill,
            token: _,
        } = reply;
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
        upgrading: OnSwitch,
    ) -> Result<Answer, Trouble> {
        restore(&mut parts, upgrade);
        let by = self.listener.by(self.core, &parts.headers);
        let request = Request::from_parts(parts, Body::Empty);
        let passage = Passage {
            by,
            ..self.to(self.listener)
        };
        let opened = passage.open(request).await?;
        Ok(self.switch(opened, upgrade, upgrading))
    }

    /// Joins the two connections, if the application agreed.
    pub(super) fn switch(&self, opened: Opened, upgrade: Upgrade, upgrading: OnSwitch) -> Answer {
        let Opened {
            response,
            switched,
            measure,
            kill,
            standing,
            leave,
            token: _,
        } = opened;
        let (mut parts, body) = response.into_parts();
        let switched = switched.filter(|_| is_done(&parts, upgrade));
        sanitize_response(&mut parts);
        let Some(switched) = switched else {
            measure.answered_with(parts.status);
            parts.extensions.clear();
            parts.version = Version::HTTP_11;
            let held = Held {
                measure: Some(measure),
                standing,
                leave,
                ..Held::default()
            };
            return Response::from_parts(
                parts,
                Body::response(body, kill, self.admitted.grpc, held),
            );
        };
        parts.extensions.clear();
        measure.answered_with(parts.status);
        tunnel::carry(
            upgrading,
            switched,
            kill,
            (standing, leave),
            self.core.shared.mark_busy(),
        );
        Response::from_parts(parts, Body::Empty)
    }
}
