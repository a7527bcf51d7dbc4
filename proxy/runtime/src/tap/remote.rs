//! Taps over the mesh, for the identities that may.

use super::lines::{answer, text};
use crate::answer::Answer;
use crate::body::{Arriving, Body};
use crate::limits::PARTING;
use crate::live::{End, Kill};
use crate::serve::Service;
use crate::serve::http1::WireRefusal;
use crate::state::Shared;
use http::{Method, Request, StatusCode, Version};
use mesh_api::tap::PATH;
use mesh_trust::SpiffeId;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// What a mesh connection to the admin port gets, of an identity that may tap.
pub(crate) struct Remote {
    shared: Arc<Shared>,
    who: SpiffeId,
    kill: Kill,
}

impl Remote {
    /// `None`: this identity may not. `kill` ends the connection, and what is told over it.
    pub(crate) fn of(
        shared: &Arc<Shared>,
        who: Option<&SpiffeId>,
        kill: &Kill,
    ) -> Option<Rc<Self>> {
        let who = who.filter(|who| shared.config.tap.contains(who))?.clone();
        let (shared, kill) = (shared.clone(), kill.clone());
        Some(Rc::new(Self { shared, who, kill }))
    }
}

impl Service for Remote {
    fn answer(
        self: Rc<Self>,
        request: Request<Arriving>,
    ) -> impl Future<Output = Answer> + 'static {
        let uri = request.uri();
        let answer = if request.method() == Method::GET && uri.path() == PATH {
            answer(
                &self.shared,
                uri.query().unwrap_or_default(),
                self.who.as_str(),
                self.kill.clone(),
            )
        } else {
            text(StatusCode::NOT_FOUND, "not found\n".to_owned())
        };
        if let Body::Lines(lines) = answer.body()
            && request.version() < Version::HTTP_2
        {
            // The library waits for ever for a reader that takes nothing; here its connection carries nothing else.
            let (over, kill) = (lines.over(), self.kill.clone());
            spawn_local(async move {
                over.wait().await;
                sleep(PARTING).await;
                kill.end(End::Revoked);
            });
        }
        std::future::ready(answer)
    }

    fn on_refused(&self, refusal: &WireRefusal) {
        tracing::info!(
            who = self.who.as_str(),
            why = refusal.why.as_str(),
            "refused a question for a tap"
        );
    }
}
