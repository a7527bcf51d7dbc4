//! What `mesh trust` asks for, on a socket of mode 0600: whoever runs the CA may also steer its trust, nobody else.

use super::desk::blocker_status;
use super::error::TrustError;
use crate::audit::{self, LogCopy};
use crate::error::IssuanceError;
use crate::issuing::{Desk, Issuing};
use mesh_api::error::CodedError;
use mesh_api::proto::trust_admin_server::TrustAdmin;
use mesh_api::proto::{
    AbortRequest, DistrustRequest, ResumeRequest, RotateRequest, TrustStatusReply,
    TrustStatusRequest, WaiveRequest,
};
use mesh_api::trust::TrustStatus;
use mesh_issuance::rotation::Event;
use miette::Diagnostic;
use tonic::{Code, Request, Response, Status};

/// Answers operators.
#[derive(Clone)]
pub(crate) struct TrustDesk {
    pub(crate) issuing: Issuing,
    pub(crate) copy: LogCopy,
}

type Reply = Result<Response<TrustStatusReply>, Status>;

impl TrustDesk {
    /// Does something at the desk, and says how trust stands then.
    async fn at_desk(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<TrustStatus, TrustError> + Send + 'static,
    ) -> Reply {
        let outcome: Result<_, IssuanceError> = self.issuing.with_desk(work).await;
        let status = outcome
            .map_err(|error| status_of(&error))?
            .map_err(|error| status_of(&error))?;
        self.issuing.trust_moved();
        let status_json =
            serde_json::to_vec(&status).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(TrustStatusReply { status_json }))
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
}
