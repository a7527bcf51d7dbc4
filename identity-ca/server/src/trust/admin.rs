//! What `mesh trust` asks for, on a socket of mode 0600: whoever runs the CA may also steer its trust, nobody else.

use super::desk::blocker_status;
use super::error::TrustError;
use crate::audit::{self, LogCopy};
use crate::error::IssuanceError;
use crate::federation::book::read_request;
use crate::federation::endpoint::Endpoint;
use crate::federation::error::FederationError;
use crate::federation::keep::Fetcher;
use crate::issuing::{Desk, Issuing};
use mesh_api::error::CodedError;
use mesh_api::federation::FederationStatus;
use mesh_api::proto::trust_admin_server::TrustAdmin;
use mesh_api::proto::{
    AbortRequest, DistrustRequest, FederateRequest, FetchBundleRequest, ResumeRequest,
    RotateRequest, TrustStatusReply, TrustStatusRequest, UnfederateRequest, WaiveRequest,
};
use mesh_api::trust::TrustStatus;
use mesh_issuance::rotation::Event;
use mesh_trust::TrustDomain;
use miette::Diagnostic;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// Answers operators.
#[derive(Clone)]
pub(crate) struct TrustDesk {
    pub(crate) issuing: Issuing,
    pub(crate) copy: LogCopy,
    /// Relations with other trust domains.
    pub(crate) fetcher: Fetcher,
    /// Where our bundle is served to them.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
}

type Reply = Result<Response<TrustStatusReply>, Status>;

impl TrustDesk {
    /// Does something at the desk, and says how trust stands then.
    async fn at_desk(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<TrustStatus, TrustError> + Send + 'static,
    ) -> Reply {
        let outcome: Result<_, IssuanceError> = self.issuing.with_desk(work).await;
        let mut status = outcome
            .map_err(|error| status_of(&error))?
            .map_err(|error| status_of(&error))?;
        status.federation = self.federation();
        self.issuing.trust_moved();
        let status_json =
            serde_json::to_vec(&status).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(TrustStatusReply { status_json }))
    }

    /// How federation stands, if there is any.
    fn federation(&self) -> Option<FederationStatus> {
        let endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.status());
        let relations = self.fetcher.federation.status();
        let any = endpoint.is_some() || !relations.is_empty();
        any.then_some(FederationStatus {
            endpoint,
            relations,
        })
    }

    /// How trust stands after a change of the relations.
    async fn after(&self, changed: Result<(), FederationError>) -> Reply {
        changed.map_err(|error| status_of(&error))?;
        self.at_desk(|desk| Ok(desk.trust_status())).await
    }

    async fn begin(&self, request: FederateRequest) -> Result<(), FederationError> {
        let federation = &self.fetcher.federation;
        let (relation, given) = read_request(federation.own(), request)?;
        federation.add(relation, given).await?;
        self.fetcher.follow().await
    }

    async fn end(&self, domain: &str) -> Result<(), FederationError> {
        let domain = TrustDomain::parse(domain)?;
        self.fetcher.federation.remove(&domain).await?;
        self.fetcher.follow().await
    }

    async fn event(&self, event: Event) -> Reply {
        self.at_desk(move |desk| {
            desk.trust_event(&event)?;
            Ok(desk.trust_status())
        })
        .await
    }

    /// Records who asked for a change, and what came of it.
    fn asked(&self, action: &str, by: &str, what: &str, reply: Reply) -> Reply {
        let outcome = match &reply {
            Ok(_) => "done".to_owned(),
            Err(status) => format!("refused: {}", status.message()),
        };
        let detail = match what {
            "" => outcome,
            what => format!("{what}: {outcome}"),
        };
        audit::record(&self.copy, action, by, detail);
        reply
    }
}

/// The whole coded error travels as details.
fn status_of(error: &dyn Diagnostic) -> Status {
    let coded = CodedError::from(error);
    Status::with_details(
        Code::FailedPrecondition,
        error.to_string(),
        coded.to_json().into_bytes().into(),
    )
}

#[tonic::async_trait]
impl TrustAdmin for TrustDesk {
    async fn status(&self, _: Request<TrustStatusRequest>) -> Reply {
        self.at_desk(|desk| Ok(desk.trust_status())).await
    }

    async fn rotate(&self, request: Request<RotateRequest>) -> Reply {
        let rotate = self.at_desk(|desk| {
            desk.rotate()?;
            Ok(desk.trust_status())
        });
        self.asked("rotate", &audit::who(&request), "", rotate.await)
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Reply {
        let reply = self.event(Event::Abort).await;
        self.asked("abort", &audit::who(&request), "", reply)
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Reply {
        let reply = self.event(Event::Resume).await;
        self.asked("resume", &audit::who(&request), "", reply)
    }

    async fn waive(&self, request: Request<WaiveRequest>) -> Reply {
        let by = audit::who(&request);
        let name = request.into_inner().name;
        let reply = self.event(Event::Waive { name: name.clone() }).await;
        self.asked("waive", &by, &name, reply)
    }

    async fn distrust(&self, request: Request<DistrustRequest>) -> Reply {
        let by = audit::who(&request);
        let DistrustRequest { root, confirmed } = request.into_inner();
        let what = match confirmed {
            true => root.clone(),
            false => format!("{root} (asked what it would cut off)"),
        };
        let reply = self
            .at_desk(move |desk| {
                let radius = desk.distrust(&root, confirmed)?;
                let blast_radius = Some(radius.iter().map(blocker_status).collect());
                Ok(TrustStatus {
                    blast_radius,
                    ..desk.trust_status()
                })
            })
            .await;
        self.asked("distrust", &by, &what, reply)
    }

    async fn federate(&self, request: Request<FederateRequest>) -> Reply {
        let by = audit::who(&request);
        let request = request.into_inner();
        let what = format!("{} at {}", request.trust_domain, request.url);
        let reply = self.after(self.begin(request).await).await;
        self.asked("federate", &by, &what, reply)
    }

    async fn unfederate(&self, request: Request<UnfederateRequest>) -> Reply {
        let by = audit::who(&request);
        let domain = request.into_inner().trust_domain;
        let reply = self.after(self.end(&domain).await).await;
        self.asked("end federation", &by, &domain, reply)
    }

    async fn fetch_bundle(&self, request: Request<FetchBundleRequest>) -> Reply {
        let domain = request.into_inner().trust_domain;
        let fetched = match TrustDomain::parse(&domain) {
            Ok(domain) => self.fetcher.fetch_now(&domain).await,
            Err(error) => Err(error.into()),
        };
        self.after(fetched).await
    }
}
