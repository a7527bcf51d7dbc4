//! What machines that join, and the agents on them, ask the CA over the network.
//!
//! Everything but the first two questions rests on the SVID that the caller shows: it must be a node's that is in the book
//! and not denied, and what is asked for must be what that node may speak for.

use super::book::{BookError, NodeBook};
use super::{agent_instance, process_instance};
use crate::agent::{Anchors, nobody};
use crate::denials::ListSource;
use crate::denials::remote::is_denied;
use crate::error::coded;
use crate::federation::Foreign;
use crate::issuing::{Chain, Issuing, Turn};
use crate::jwt::TokenSource;
use crate::limits::{JOIN_FAILURE_REFILL, JOIN_FAILURES_BURST, NODE_STREAMS_MAX};
use crate::network::not_issued;
use crate::rate::RateLimit;
use crate::trust::Requester;
use mesh_api::accept::Caller;
use mesh_api::proto::nodes_server::Nodes as NodesService;
use mesh_api::proto::{
    AnchorsReply, AnchorsRequest, CertifyRequest, IssueReply, JoinRequest, MintReply, MintRequest,
    NodeReport, NodeUpdate, RenewRequest,
};
use mesh_issuance::PublicKey;
use mesh_issuance::attestation::join::{JoinError, node_identity};
use mesh_issuance::attestation::node::Node;
use mesh_issuance::csr;
use mesh_issuance::issue::Request as CertificateRequest;
use mesh_issuance::jwt::JwtRequest;
use mesh_issuance::limits::EVIDENCE_BYTES_MAX;
use mesh_platform::Platform;
use mesh_trust::{Denied, SpiffeId};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes that "node NAME: " and cuts leave of the evidence that an agent sends.
const AGENT_EVIDENCE_BYTES_MAX: usize = EVIDENCE_BYTES_MAX / 2;

/// What it takes to answer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodesDesk {
    pub(crate) book: NodeBook,
    pub(crate) issuing: Issuing,
    pub(crate) tokens: Arc<dyn TokenSource>,
    pub(crate) denials: ListSource,
    pub(crate) anchors: watch::Receiver<Arc<Anchors>>,
    pub(crate) foreign: watch::Receiver<Arc<Foreign>>,
    pub(crate) platform: Arc<dyn Platform>,
    /// True once the CA ends.
    pub(crate) stopping: watch::Receiver<bool>,
    failures: Arc<Mutex<RateLimit>>,
    places: Arc<Semaphore>,
}

/// A node whose agent proved to call.
pub(crate) struct CallingNode {
    pub(crate) name: String,
    pub(crate) node: Node,
    pub(crate) identity: SpiffeId,
}

/// Where everything comes from.
pub(crate) struct Sources {
    pub(crate) book: NodeBook,
    pub(crate) tokens: Arc<dyn TokenSource>,
    pub(crate) denials: ListSource,
    pub(crate) foreign: watch::Receiver<Arc<Foreign>>,
}

impl NodesDesk {
    pub(crate) fn new(
        sources: Sources,
        issuing: &Issuing,
        platform: &Arc<dyn Platform>,
        stopping: &watch::Receiver<bool>,
    ) -> Self {
        let Sources {
            book,
            tokens,
            denials,
            foreign,
        } = sources;
        Self {
            book,
            tokens,
            denials,
            foreign,
            anchors: issuing.anchors(),
            issuing: issuing.clone(),
            platform: Arc::clone(platform),
            stopping: stopping.clone(),
            failures: Arc::new(Mutex::new(RateLimit::new(
                JOIN_FAILURES_BURST,
                JOIN_FAILURE_REFILL,
            ))),
            places: Arc::new(Semaphore::new(NODE_STREAMS_MAX)),
        }
    }

    /// The node that calls. Whoever is none learns nothing but that.
    fn node<T>(&self, request: &Request<T>) -> Result<CallingNode, Status> {
        let caller = request.extensions().get::<Caller>();
        let peer = caller.and_then(|caller| caller.peer.as_ref());
        let peer = peer.ok_or_else(nobody)?;
        let found = self.book.by_identity(peer.id());
        let denied = {
            let list = self.denials.lists.borrow();
            let node = found.as_ref().map(|(name, _)| Denied::Node(name.clone()));
            is_denied(&list, peer) || node.is_some_and(|node| list.contains(&node))
        };
        match found {
            Some((name, node)) if !denied => Ok(CallingNode {
                name,
                node,
                identity: peer.id().clone(),
            }),
            _ => {
                tracing::warn!(id = %peer.id(), denied, "refused a caller that is no node in the book");
                Err(nobody())
            }
        }
    }

    /// The identity in `text`, if `calling` may speak for it.
    fn spoken_for(&self, calling: &CallingNode, text: &str) -> Result<SpiffeId, Status> {
        let id = SpiffeId::parse(text).map_err(|error| Status::invalid_argument(coded(&error)))?;
        if calling.node.speaks_for(self.book.domain(), &id) {
            return Ok(id);
        }
        let refused = NotSpokenFor {
            node: calling.name.clone(),
            id,
        };
        tracing::warn!(%refused, "refused an identity");
        Err(Status::permission_denied(coded(&refused)))
    }

    /// Whether one more token that lets nobody in may be tried. One bucket for all: who guesses has as many addresses as
    /// it likes.
    fn may_fail(&self) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.take(&self.book.domain().id(), self.platform.monotonic())
    }

    async fn certify(
        &self,
        (id, key): (SpiffeId, PublicKey),
        requester: Requester,
        turn: Turn,
    ) -> Result<Response<IssueReply>, Status> {
        if !self.issuing.within_rate(&id, self.platform.monotonic()) {
            return Err(Status::resource_exhausted("this identity asks too often"));
        }
        let request = CertificateRequest {
            id: id.clone(),
            key,
            lifetime_secs: None,
            backdate_secs_max: None,
        };
        let issued = self.issuing.issue(request, requester, turn).await;
        let chain = issued.map_err(|error| {
            tracing::warn!(identity = %id, %error, "no SVID");
            not_issued(&error)
        })?;
        tracing::info!(identity = %id, serial = chain.leaf.serial().to_hex(), "issued an SVID to a node");
        Ok(Response::new(self.reply(&chain)))
    }

    fn reply(&self, chain: &Chain) -> IssueReply {
        IssueReply {
            chain: chain.whole().iter().map(|der| der.to_vec()).collect(),
            bundles_json: self.bundles_json(),
        }
    }

    /// All bundles, our own with its sequence number.
    pub(super) fn bundles_json(&self) -> Vec<u8> {
        let published = self.issuing.published();
        let bundles = published.borrow().bundles.to_json();
        bundles.into_bytes()
    }

    /// Spends a token; how it failed is for the log alone.
    async fn spend(&self, secret: [u8; 32]) -> Result<String, Status> {
        let book = self.book.clone();
        let joined = tokio::task::spawn_blocking(move || book.join(&secret)).await;
        let joined = joined.map_err(|_| Status::internal("the join did not end"))?;
        joined.map_err(|error| {
            tracing::warn!(%error, "a machine tried to join");
            match error {
                BookError::Join(JoinError::NotValid) if self.may_fail() => {
                    Status::permission_denied(coded(&JoinError::NotValid))
                }
                BookError::Join(JoinError::NotValid) => {
                    Status::resource_exhausted("too many tokens were tried")
                }
                other => Status::unavailable(coded(&other)),
            }
        })
    }
}

/// A node asks for an identity that its join token did not name.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("node `{node}` may not speak for `{id}`")]
#[diagnostic(
    code("MESH-0990"),
    help(
        "make a join token that names the workload (`mesh node token --node NAME --workload NAMESPACE/SERVICE-ACCOUNT`) and join again with it"
    )
)]
struct NotSpokenFor {
    node: String,
    id: SpiffeId,
}

fn key_of(certificate_request: &[u8]) -> Result<PublicKey, Status> {
    csr::parse(certificate_request).map_err(|error| {
        Status::invalid_argument(format!("the certificate request is refused: {error}"))
    })
}

/// `<pid>.<start time>` and nothing else: it becomes a part of a name.
fn is_process(text: &str) -> bool {
    let number = |text: &str| {
        text.len() <= 20 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    text.split_once('.')
        .is_some_and(|(pid, start)| number(pid) && number(start))
}

/// What an agent says of how it attested, as the log takes it.
fn evidence_of(node: &str, said: &str) -> String {
    let mut said: String = said.chars().filter(|c| !c.is_control()).collect();
    while said.len() > AGENT_EVIDENCE_BYTES_MAX {
        said.pop();
    }
    format!("node {node}: {said}")
}

#[tonic::async_trait]
impl NodesService for NodesDesk {
    type WatchStream = ReceiverStream<Result<NodeUpdate, Status>>;

    async fn anchors(
        &self,
        _request: Request<AnchorsRequest>,
    ) -> Result<Response<AnchorsReply>, Status> {
        let domain = self.book.domain();
        let anchors = self.anchors.borrow().clone();
        let own = anchors.get(domain).into_iter().flatten();
        Ok(Response::new(AnchorsReply {
            anchors: own.map(|der| der.to_vec()).collect(),
            trust_domain: domain.to_string(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<IssueReply>, Status> {
        let JoinRequest {
            secret,
            certificate_request,
        } = request.into_inner();
        // What costs nothing comes first: a bad request must not spend a token.
        let key = key_of(&certificate_request)?;
        let secret: [u8; 32] = secret
            .try_into()
            .map_err(|_| Status::permission_denied(coded(&JoinError::NotValid)))?;
        let name = self.spend(secret).await?;
        let identity = node_identity(self.book.domain(), &name)
            .map_err(|error| Status::internal(coded(&error)))?;
        tracing::info!(node = name, "a machine joined");
        let requester = Requester {
            evidence: format!("node {name}: join token"),
            instance: Some(agent_instance(&name)),
            node: Some(name),
        };
        self.certify((identity, key), requester, Turn::First).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<IssueReply>, Status> {
        let calling = self.node(&request)?;
        let key = key_of(&request.get_ref().certificate_request)?;
        let requester = Requester {
            evidence: format!("node {}: its SVID", calling.name),
            instance: Some(agent_instance(&calling.name)),
            node: Some(calling.name),
        };
        self.certify((calling.identity, key), requester, Turn::Renewal)
            .await
    }

    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<IssueReply>, Status> {
        let calling = self.node(&request)?;
        let CertifyRequest {
            certificate_request,
            spiffe_id,
            process,
            evidence,
            renewal,
        } = request.into_inner();
        let key = key_of(&certificate_request)?;
        let id = self.spoken_for(&calling, &spiffe_id)?;
        if !is_process(&process) {
            return Err(Status::invalid_argument(
                "`process` is no <pid>.<start time>",
            ));
        }
        let requester = Requester {
            evidence: evidence_of(&calling.name, &evidence),
            instance: Some(process_instance(&calling.name, &process)),
            node: Some(calling.name),
        };
        let turn = if renewal { Turn::Renewal } else { Turn::First };
        Self::certify(self, (id, key), requester, turn).await
    }

    async fn mint(&self, request: Request<MintRequest>) -> Result<Response<MintReply>, Status> {
        let calling = self.node(&request)?;
        let MintRequest {
            spiffe_id,
            audience,
        } = request.into_inner();
        let id = self.spoken_for(&calling, &spiffe_id)?;
        if self.denials.lists.borrow().denies_identity(&id) {
            return Err(nobody());
        }
        let request = JwtRequest {
            id,
            audience,
            lifetime_secs: None,
        };
        let minted = self.tokens.mint(&request).await;
        let token = minted.map_err(|error| crate::workload_api::refused(&error))?;
        Ok(Response::new(MintReply { token }))
    }

    async fn watch(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let calling = self.node(&request)?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many agents follow"))?;
        let this = self.clone();
        let reports = request.into_inner();
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            let _place = place;
            if let Err(status) = this.tell(&calling, reports, &out).await {
                // Nobody listens: nothing to say.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_two_numbers() {
        for good in ["1.2", "4194304.18446744073709551615"] {
            assert!(is_process(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "1.2.3",
            "-1.2",
            "1 .2",
            "a.b",
            "1.２",
            "1.000000000000000000001",
        ] {
            assert!(!is_process(bad), "{bad}");
        }
    }

    #[test]
    fn what_an_agent_says_stays_one_bounded_line_under_its_name() {
        let said = "node other: join token\n\u{7}".to_owned() + &"ä".repeat(EVIDENCE_BYTES_MAX);
        let text = evidence_of("worker-1", &said);
        assert!(text.starts_with("node worker-1: node other: join token"));
        assert!(text.len() <= EVIDENCE_BYTES_MAX && !text.chars().any(char::is_control));
    }
}
