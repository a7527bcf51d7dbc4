//! One request: one reading, one decision, and what was judged is what is forwarded.

use super::{Judged, filter, record, record_refused_request};
use crate::account::{Account, answered};
use crate::answer::{Answer, Trouble, closing, refused};
use crate::body::{Arriving, Body, Held};
use crate::core::{Core, Port};
use crate::deadline;
use crate::live::{Alive, End, JudgedHead, JudgedHeaders, Kill, Peer, Registration};
use crate::pace::Paced;
use crate::serve::Service;
use crate::serve::http1::{OnSwitch, WireRefusal};
use crate::shadow::{self, Policy};
use crate::telemetry::{Ask, Measure};
use crate::tunnel;
use futures_util::FutureExt;
use http::request::Parts;
use http::{Request, StatusCode, Version, response};
use mesh_policy::decide::{Permit, Phase, Verdict};
use mesh_policy::record::RecordRequest;
use mesh_proxy_core::fault::{self, Injection};
use mesh_proxy_core::http_hygiene::upgrade::{is_done, restore};
use mesh_proxy_core::http_hygiene::{
    Admitted, ClientField, Entry, OrigVersion, Refusal, RequestLimits, RequestRefusal, Upgrade,
    admit, is_grpc, sanitize_response, set_host, set_path, to_app,
};
use mesh_proxy_core::metrics::Failure;
use mesh_trust::Timestamp;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// Where a request came in: one HTTP connection.
pub(crate) struct Arrival {
    core: Rc<Core>,
    port: Rc<Port>,
    peer: Rc<Peer>,
    entry: Entry,
    /// Who the peer is, as the application is told.
    client: Option<ClientField>,
}

impl Arrival {
    pub(crate) fn new(core: Rc<Core>, port: Rc<Port>, peer: Rc<Peer>, entry: Entry) -> Rc<Self> {
        let client = peer.client.id.as_ref().and_then(ClientField::new);
        Rc::new(Self {
            core,
            port,
            peer,
            entry,
            client,
        })
    }
}

impl Service for Arrival {
    fn answer(
        self: Rc<Self>,
        mut request: Request<Arriving>,
    ) -> impl Future<Output = Answer> + 'static {
        let account = Account::inbound(&self.core, &mut request, &self.peer, self.entry);
        let told = account.clone();
        answer(self, request, account).map(|answer| answered(told, answer))
    }

    fn on_refused(&self, refusal: &WireRefusal) {
        // One whose head had gone on has an account of its own, which is told.
        if !refusal.has_begun() {
            let request = refusal.request.as_ref();
            Account::refused_in(&self.core, &self.peer, request, refusal.why);
        }
        record_refused_request(&self.core, &self.peer, refusal.request.clone(), false);
        let measure = self.core.meter.inbound(&self.peer, Ask::Http);
        measure.refused(refusal.why, false);
    }
}

/// Answers one request.
async fn answer(
    at: Rc<Arrival>,
    request: Request<Arriving>,
    account: Option<Rc<Account>>,
) -> Answer {
    let grpc = request.version() == Version::HTTP_2 && is_grpc(request.headers());
    let measure = at
        .core
        .meter
        .inbound(&at.peer, if grpc { Ask::Grpc } else { Ask::Http })
        .telling(account);
    let Some(policy) = at.core.shared.policy.load_full() else {
        measure.no_policy();
        return Trouble::NoPolicy.answer(grpc);
    };
    let (mut parts, mut body) = request.into_parts();
    let raw = (parts.method.clone(), parts.uri.clone(), parts.version);
    let mut admitted = match admit(&mut parts, at.entry, &RequestLimits::default()) {
        Ok(admitted) => admitted,
        Err(refusal) => return at.refuse(raw, refusal, grpc, measure),
    };
    let upgrading = body.take_switch();
    let due = deadline::due(&parts.headers, &admitted);
    let head = Rc::new(JudgedHead {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        host: admitted.authority.clone(),
        grpc: admitted.grpc,
        headers: JudgedHeaders(parts.headers.clone()),
    });
    let (permit, fault) = match at.decide(&policy, &head, &measure) {
        Ok(allowed) => allowed,
        Err(answer) => {
            // Between proxies the other one reads on, for its own client.
            if parts.version == Version::HTTP_2 && matches!(body, Arriving::Http(_)) {
                tokio::task::spawn_local(Body::request(body, Kill::default()).part());
            }
            return *answer;
        }
    };
    // From here on the request has the host that was judged; the path follows when it is forwarded.
    if let Some(host) = permit.rewritten_host()
        && let Err(refusal) = set_host(&mut admitted, host)
    {
        measure.failed(Failure::Reset);
        return refused(&Refusal::from(refusal), admitted.grpc);
    }
    let kill = Kill::default();
    let registration = at
        .core
        .live
        .enter(at.peer.clone(), Alive::Http(head), kill.clone());
    let passage = Passage {
        at: &at,
        admitted: &admitted,
        kill,
        registration,
        measure,
        due,
        bytes_per_second: None,
    };
    match fault {
        None => passage.forward(permit, parts, body, upgrading).await,
        // Boxed: what is not disturbed should not carry room for it.
        Some(fault) => {
            let request = (permit, parts, body, upgrading);
            Box::pin(passage.disturbed(fault, request)).await
        }
    }
}

impl Arrival {
    /// Decides, spends the tokens of a limit, records and counts; draws what is injected into what is allowed.
    fn decide(
        &self,
        policy: &Arc<Policy>,
        head: &JudgedHead,
        measure: &Measure,
    ) -> Result<(Permit, Option<Injection>), Box<Answer>> {
        let call = head.call();
        let now = self.core.shared.platform.wall_clock();
        let mut decision = self.peer.decide(policy, &call, now);
        // Authorize before rate-limiting: a forbidden peer must not spend the tokens of an allowed one.
        if decision.verdict == Verdict::Allow
            && let Some(limit) = &policy.port(self.port.port).rate_limit
            && !self.core.shared.within_limit(
                self.port.port,
                limit,
                self.peer.client.id.as_ref(),
                self.core.now_us(),
            )
        {
            decision = decision.rate_limited();
        }
        let otherwise = shadow::otherwise(&self.core, &self.peer, policy, &decision, &call, now);
        let fault = match decision.verdict {
            Verdict::Allow => self.fault(policy, head.grpc, now),
            Verdict::Deny => None,
        };
        let judged = Judged {
            decision: &decision,
            otherwise: otherwise.as_ref(),
            fault: fault.as_ref(),
        };
        if !record(&self.core, &self.peer, judged, &call, now) {
            measure.no_record();
            return Err(Box::new(Trouble::NoRecord.answer(head.grpc)));
        }
        decision
            .permit()
            .map_err(|denial| {
                measure.denied(&denial);
                let refusal = Refusal::for_decision(denial.phase, denial.status);
                Box::new(refused(&refusal, head.grpc))
            })
            .inspect(|permit| measure.allowed(Some(permit)))
            .map(|permit| (permit, fault))
    }

    /// What is injected into an allowed request.
    fn fault(&self, policy: &Policy, grpc: bool, now: Timestamp) -> Option<Injection> {
        let faults = &policy.port(self.port.port).faults;
        if faults.is_empty() {
            return None;
        }
        let (client, random) = (self.peer.client.id.as_ref(), &self.core.random);
        fault::drawn(faults, client, grpc, now, || random.next())
    }

    /// Refuses a request that could be read in two ways: recorded like a decision, in phase `request`.
    fn refuse(
        &self,
        (method, uri, version): (http::Method, http::Uri, Version),
        refusal: RequestRefusal,
        grpc: bool,
        measure: Measure,
    ) -> Answer {
        let request = RecordRequest {
            method: method.to_string(),
            raw_path: uri.to_string(),
            ..RecordRequest::default()
        };
        record_refused_request(&self.core, &self.peer, Some(request), grpc);
        measure.refused(refusal, grpc);
        let answer = refused(&Refusal::from(refusal), grpc);
        if refusal.closes() && version < Version::HTTP_2 {
            closing(answer)
        } else {
            answer
        }
    }
}

/// A permitted request on its way.
struct Passage<'a> {
    at: &'a Rc<Arrival>,
    admitted: &'a Admitted,
    kill: Kill,
    registration: Registration,
    measure: Measure,
    /// When the time is over that the client gave it.
    due: Option<Instant>,
    /// The rate that a fault holds its answer to.
    bytes_per_second: Option<u32>,
}

/// All of an allowed request.
type Allowed = (Permit, Parts, Arriving, Option<OnSwitch>);

impl Passage<'_> {
    /// Forwards under a fault: after a wait, or not at all, or with an answer that comes slowly.
    async fn disturbed(mut self, fault: Injection, request: Allowed) -> Answer {
        self.at.core.meter.fault(&fault);
        if let Some(delay) = fault.delay {
            tokio::select! {
                biased;
                end = self.kill.ended() => return self.ended(end),
                () = tokio::time::sleep(delay) => {}
            }
        }
        if let Some(answer) = fault.abort {
            let trouble = Trouble::Injected {
                fault: fault.fault,
                answer,
            };
            self.measure.answered_with(trouble.status());
            return trouble.answer(self.admitted.grpc);
        }
        self.bytes_per_second = fault.bytes_per_second;
        let (permit, parts, body, upgrading) = request;
        self.forward(permit, parts, body, upgrading).await
    }

    /// Forwards, for the permit that it takes, exactly what was judged.
    async fn forward(
        self,
        permit: Permit,
        mut parts: Parts,
        body: Arriving,
        upgrading: Option<OnSwitch>,
    ) -> Answer {
        if let Some(route) = &permit.route
            && let Some(answer) =
                filter::apply(&route.filters, &mut parts, self.admitted.authority.as_ref())
        {
            self.measure.answered_with(answer.status());
            return answer;
        }
        let judged = permit
            .rewritten_path()
            .map_or(Ok(()), |path| set_path(&mut parts, path));
        if let Err(refusal) =
            judged.and_then(|()| to_app(&mut parts, self.admitted, self.at.client.as_ref()))
        {
            self.measure.failed(Failure::Reset);
            return refused(&Refusal::from(refusal), self.admitted.grpc);
        }
        match (self.admitted.upgrade, upgrading) {
            (Some(upgrade), Some(upgrading)) => self.tunnel(parts, upgrade, upgrading).await,
            _ => self.exchange(parts, body).await,
        }
    }

    async fn exchange(self, mut parts: Parts, body: Arriving) -> Answer {
        let app = &self.at.port.app;
        if deadline::tell(&mut parts.headers, self.admitted.grpc, self.due).is_err() {
            return self.trouble(&Trouble::NoTimeLeft);
        }
        let request = Request::from_parts(parts, Body::request(body, self.kill.clone()));
        let sent = async {
            match self.admitted.version {
                OrigVersion::Http2 => app.send_http2(request).await,
                _ => app.send_http1(request).await,
            }
        };
        let result = tokio::select! {
            biased;
            end = self.kill.ended() => return self.ended(end),
            result = sent => result,
        };
        match result {
            Ok(response) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                let (parts, body) = response.into_parts();
                self.respond(parts, body)
            }
            Ok(_) => {
                let why = "it switched protocols unasked".to_owned();
                let trouble = Trouble::AppBroke {
                    port: self.at.port.port,
                    why,
                    late: false,
                };
                self.trouble(&trouble)
            }
            Err(Trouble::AppBroke { port, why, .. }) => {
                let late = self.due.is_some_and(|due| Instant::now() >= due);
                self.trouble(&Trouble::AppBroke { port, why, late })
            }
            Err(trouble) => self.trouble(&trouble),
        }
    }

    fn respond(self, mut parts: response::Parts, body: Arriving) -> Answer {
        sanitize_response(&mut parts);
        parts.extensions.clear();
        self.measure.answered_with(parts.status);
        let body = match self.bytes_per_second {
            None => body,
            Some(rate) => Arriving::Paced(Box::new(Paced::new(body, rate))),
        };
        let held = Held {
            registration: Some(self.registration),
            measure: Some(self.measure),
            ..Held::default()
        };
        http::Response::from_parts(
            parts,
            Body::response(body, self.kill, self.admitted.grpc, held),
        )
    }

    /// One request that becomes a byte stream, if the application agrees.
    async fn tunnel(self, mut parts: Parts, upgrade: Upgrade, upgrading: OnSwitch) -> Answer {
        restore(&mut parts, upgrade);
        let app = self.at.port.app.clone();
        let result = tokio::select! {
            biased;
            end = self.kill.ended() => return self.ended(end),
            result = app.send_upgrade(Request::from_parts(parts, Body::Empty)) => result,
        };
        let answered = match result {
            Ok(answered) => answered,
            Err(trouble) => return self.trouble(&trouble),
        };
        let (mut parts, body) = answered.response.into_parts();
        let switched = match answered.switched {
            Some(switched) if is_done(&parts, upgrade) => switched,
            _ => return self.respond(parts, body),
        };
        sanitize_response(&mut parts);
        parts.extensions.clear();
        self.measure.answered_with(parts.status);
        tunnel::carry(
            upgrading,
            switched,
            self.kill,
            self.registration,
            self.at.core.shared.mark_busy(),
        );
        http::Response::from_parts(parts, Body::Empty)
    }

    fn ended(self, end: End) -> Answer {
        self.measure.ended(end);
        let refusal = match end {
            End::Revoked => Refusal::for_decision(Phase::Permit, Some(403)),
            // Who has a new certificate may come again at once.
            End::PeerExpired => Refusal::UNAVAILABLE,
        };
        refused(&refusal, self.admitted.grpc)
    }

    fn trouble(self, trouble: &Trouble) -> Answer {
        tracing::warn!(%trouble, "a request failed");
        self.measure.failed(match trouble {
            Trouble::AppNotAnswering { .. } => Failure::Connect,
            Trouble::NoTimeLeft => Failure::Timeout,
            _ => Failure::Reset,
        });
        trouble.answer(self.admitted.grpc)
    }
}
