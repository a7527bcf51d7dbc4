//! What an operator asks about machines that join: tokens, the list, and an end of them.

use super::book::{BookError, NodeBook};
use crate::agent::Anchors;
use crate::audit::{self, LogCopy};
use crate::denials::check_operator;
use crate::error::coded;
use mesh_api::proto::node_admin_server::NodeAdmin;
use mesh_api::proto::{
    JoinedNode, MakeTokenReply, MakeTokenRequest, NodesReply, NodesRequest, RemoveNodeRequest,
};
use mesh_issuance::attestation::join::node_identity;
use mesh_issuance::attestation::node::Workloads;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Answers operators.
pub(crate) struct Admin {
    pub(crate) book: NodeBook,
    pub(crate) anchors: watch::Receiver<Arc<Anchors>>,
    pub(crate) copy: LogCopy,
    /// Whether the CA serves the network, so that a token is of any use.
    pub(crate) reachable: bool,
}

/// Machines cannot reach a CA that listens on Unix sockets alone.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("this CA does not serve the network, so no machine can join")]
#[diagnostic(
    code("MESH-0991"),
    help("start it with `mesh ca --nodes --listen IP:PORT`")
)]
struct NotReachable;

impl Admin {
    async fn change<T: Send + 'static>(
        &self,
        (action, by, detail): (&str, String, String),
        change: impl FnOnce(&NodeBook) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Status> {
        let book = self.book.clone();
        let done = tokio::task::spawn_blocking(move || change(&book)).await;
        let done = done.map_err(|_| Status::internal("the change did not end"))?;
        let outcome = match &done {
            Ok(_) => "done".to_owned(),
            Err(error) => format!("refused: {error}"),
        };
        audit::record(&self.copy, action, &by, format!("{detail}: {outcome}"));
        done.map_err(|error| {
            let text = coded(&error);
            match error {
                BookError::Join(_) => Status::invalid_argument(text),
                BookError::Unknown { .. } => Status::not_found(text),
                BookError::NotStored { .. } => Status::unavailable(text),
            }
        })
    }

    fn reply(&self) -> NodesReply {
        let nodes = self.book.current();
        let one = |(name, node): (&str, &mesh_issuance::attestation::node::Node)| JoinedNode {
            name: name.to_owned(),
            spiffe_id: node_identity(self.book.domain(), name)
                .map(|id| id.to_string())
                .unwrap_or_default(),
            workloads: node.workloads.iter().map(ToString::to_string).collect(),
            joined_unix_secs: node.joined.unix_secs(),
            connected: self.book.is_connected(name),
        };
        NodesReply {
            nodes: nodes.joined().map(one).collect(),
            open_tokens: u32::try_from(self.book.open_tokens()).unwrap_or(u32::MAX),
        }
    }
}

#[tonic::async_trait]
impl NodeAdmin for Admin {
    async fn make_token(
        &self,
        request: Request<MakeTokenRequest>,
    ) -> Result<Response<MakeTokenReply>, Status> {
        check_operator(&request)?;
        if !self.reachable {
            return Err(Status::failed_precondition(coded(&NotReachable)));
        }
        let by = audit::who(&request);
        let MakeTokenRequest {
            node,
            workloads,
            lifetime_secs,
        } = request.into_inner();
        let read = workloads.iter().map(|text| text.parse::<Workloads>());
        let read = read
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Status::invalid_argument(coded(&error)))?;
        let anchors = self.anchors.borrow().clone();
        let own = anchors.get(self.book.domain()).cloned().unwrap_or_default();
        let named: String = node.chars().filter(|c| !c.is_control()).take(64).collect();
        let asked = (
            "join token",
            by,
            format!("node {named} for {}", workloads.join(", ")),
        );
        let made = self.change(asked, move |book| {
            book.make_token((&node, read), &own, lifetime_secs)
        });
        let (token, ends) = made.await?;
        Ok(Response::new(MakeTokenReply {
            token: token.to_string(),
            expires_unix_secs: ends.unix_secs(),
        }))
    }

    async fn nodes(&self, request: Request<NodesRequest>) -> Result<Response<NodesReply>, Status> {
        check_operator(&request)?;
        Ok(Response::new(self.reply()))
    }

    async fn remove(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<NodesReply>, Status> {
        check_operator(&request)?;
        let by = audit::who(&request);
        let name = request.into_inner().node;
        let named: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let asked = ("remove node", by, format!("node {named}"));
        self.change(asked, move |book| book.remove(&name)).await?;
        Ok(Response::new(self.reply()))
    }
}
