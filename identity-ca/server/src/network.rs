//! The CA's door to workloads that no Unix socket reaches: gRPC over TLS, evidence in, SVID out.
//!
//! Our own certificate here is an SVID like any other, issued by this CA and renewed with a fresh key. A client may come
//! without one: that is what it comes for. What it gets rests on its evidence alone ([`Cluster`]); an SVID that it shows
//! as well must be of the same identity, so a stolen token does not carry on somebody else's.

use crate::agent::Anchors;
use crate::denials::ListSource;
use crate::denials::remote::RemoteDenials;
use crate::error::{CaError, IssuanceError};
use crate::issuing::{Chain, Issuing, Turn};
use crate::limits::{
    NETWORK_CONNECTIONS_MAX, NETWORK_HANDSHAKE_TIMEOUT, NETWORK_HANDSHAKES_MAX,
    NETWORK_REQUEST_BYTES_MAX, NODE_REPORT_BYTES_MAX, PUBLISH_RETRY, REVIEW_TIMEOUT,
    TRUST_REQUEST_BYTES_MAX,
};
use crate::nodes::desk::NodesDesk;
use crate::own_svid::OwnSvid;
use crate::probes::Probes;
use crate::run::stopped;
use crate::trust::Requester;
use crate::trust::remote::{RemoteTrust, forget_ended_pods};
use mesh_api::accept::{self, Caller, Limits};
use mesh_api::proto::denials_server::DenialsServer;
use mesh_api::proto::issuance_server::{Issuance, IssuanceServer};
use mesh_api::proto::issue_request::Evidence;
use mesh_api::proto::nodes_server::NodesServer;
use mesh_api::proto::trust_server::TrustServer;
use mesh_api::proto::{IssueReply, IssueRequest};
use mesh_issuance::attestation::kubernetes::{self, Attested, Pod, Review, TOKEN_BYTES_MAX};
use mesh_issuance::csr;
use mesh_issuance::issue::Request as CertificateRequest;
use mesh_platform::Platform;
use mesh_trust::tls::{TlsIdentity, server_config_for_strangers};
use mesh_trust::{SpiffeId, TrustBundle, TrustBundles, TrustDomain};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

/// The protocol under gRPC.
const ALPN: &[u8] = b"h2";

/// How the CA serves the network.
#[derive(Clone)]
pub struct NetworkConfig {
    /// Where.
    pub listen: SocketAddr,
    /// Who it is there.
    pub identity: SpiffeId,
    /// Who knows what tokens of a cluster are worth; none: there is no cluster.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// Whether machines may join.
    pub nodes: bool,
}

/// A Kubernetes API server: it knows what a token is worth, and spreads the trust bundle.
#[tonic::async_trait]
pub trait Cluster: Send + Sync {
    /// What is said of a token, for the audience [`kubernetes::AUDIENCE`].
    ///
    /// # Errors
    /// Why it cannot be asked; that a token is bad is an answer.
    async fn review(&self, token: &str) -> Result<Review, String>;

    /// The pod of this name as it is now; `None` if there is none.
    ///
    /// # Errors
    /// Why it cannot be asked.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, String>;

    /// Puts the trust bundle, PEM, where pods that have no SVID yet find it.
    ///
    /// # Errors
    /// Why it cannot be put there.
    async fn publish(&self, bundle_pem: &str) -> Result<(), String>;
}

/// What the network is served from.
pub(crate) struct Served {
    pub(crate) issuing: Issuing,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) denials: ListSource,
    /// None: no machine may join.
    pub(crate) nodes: Option<NodesDesk>,
    pub(crate) probes: Probes,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Serves until `stopping`.
pub(crate) async fn serve(config: NetworkConfig, served: Served) -> Result<(), CaError> {
    let Served {
        issuing,
        trust_domain,
        denials,
        nodes,
        probes,
        platform,
        stopping,
    } = served;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| CaError::Network {
            listen: config.listen,
            why: source.to_string(),
        })?;
    let trust = RemoteTrust::new(issuing.clone(), Arc::clone(&platform), stopping.clone());
    let denials = RemoteDenials::new(issuing.clone(), denials, stopping.clone());
    let own = OwnSvid {
        issuing: issuing.clone(),
        platform: Arc::clone(&platform),
        identity: config.identity,
        door: "the network",
    };
    let desk = Arc::new(Desk {
        anchors: issuing.anchors(),
        issuing: issuing.clone(),
        platform,
        trust_domain,
        cluster: config.cluster.clone(),
    });
    let (settings, following) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let knows = Arc::clone(&desk);
    let made = move |tls: &TlsIdentity| knows.settings(tls);
    tasks.spawn(own.keep(made, settings, move || probes.reachable()));
    if let Some(cluster) = config.cluster {
        tasks.spawn(Arc::clone(&desk).keep_bundle_published(Arc::clone(&cluster)));
        tasks.spawn(forget_ended_pods(issuing, cluster));
    }
    let limits = Limits {
        connections: NETWORK_CONNECTIONS_MAX,
        handshakes: NETWORK_HANDSHAKES_MAX,
        handshake_timeout: NETWORK_HANDSHAKE_TIMEOUT,
    };
    let connections = accept::connections(listener, following, limits, &mut tasks);
    let service =
        IssuanceServer::from_arc(desk).max_decoding_message_size(NETWORK_REQUEST_BYTES_MAX);
    let trust = TrustServer::new(trust).max_decoding_message_size(TRUST_REQUEST_BYTES_MAX);
    let denials = DenialsServer::new(denials).max_decoding_message_size(NETWORK_REQUEST_BYTES_MAX);
    let nodes =
        nodes.map(|nodes| NodesServer::new(nodes).max_decoding_message_size(NODE_REPORT_BYTES_MAX));
    tracing::info!(listen = %config.listen, "the CA serves the network");
    crate::listen::server()
        .add_service(service)
        .add_service(trust)
        .add_service(denials)
        .add_optional_service(nodes)
        .serve_with_incoming_shutdown(connections, stopped(stopping))
        .await
        .map_err(|error| CaError::Network {
            listen: config.listen,
            why: error.to_string(),
        })
}

/// What it takes to answer.
struct Desk {
    issuing: Issuing,
    platform: Arc<dyn Platform>,
    anchors: watch::Receiver<Arc<Anchors>>,
    trust_domain: TrustDomain,
    cluster: Option<Arc<dyn Cluster>>,
}

/// All that a requester learns of a refusal of its evidence; the log has the reason.
fn nobody() -> Status {
    Status::permission_denied("no identity issued")
}

/// What a caller is told whose certificate was not issued. Denied while it waited, it is told what it would be told the next
/// time; all else may go better then.
pub(crate) fn not_issued(error: &IssuanceError) -> Status {
    match error {
        IssuanceError::Denied { .. } => nobody(),
        _ => Status::unavailable("no SVID could be issued; try again"),
    }
}

impl Desk {
    /// The bundles as they are now.
    fn bundles(&self) -> TrustBundles {
        let mut bundles = TrustBundles::default();
        for (domain, anchors) in self.anchors.borrow().iter() {
            match TrustBundle::new(domain.clone(), anchors.clone()) {
                Ok(bundle) => bundles.insert(bundle),
                Err(error) => tracing::error!(%domain, %error, "a trust bundle cannot be used"),
            }
        }
        bundles
    }

    /// Publishes the bundle of our own domain to `cluster`, and again whenever it changes.
    async fn keep_bundle_published(self: Arc<Self>, cluster: Arc<dyn Cluster>) {
        let mut anchors = self.anchors.clone();
        loop {
            let pem = {
                let anchors = anchors.borrow_and_update();
                let own = anchors
                    .get(&self.trust_domain)
                    .map_or(&[][..], Vec::as_slice);
                mesh_trust::bundle::to_pem(own)
            };
            if let Err(why) = cluster.publish(&pem).await {
                tracing::error!(why, "the trust bundle could not be published; trying again");
                tokio::time::sleep(PUBLISH_RETRY).await;
                continue;
            }
            if anchors.changed().await.is_err() {
                return;
            }
        }
    }

    /// Settings under which we can prove who we are, and know whom to trust.
    fn settings(&self, own: &TlsIdentity) -> Result<Arc<ServerConfig>, String> {
        let bundles = self.bundles().only(&self.trust_domain);
        server_config_for_strangers(own, Arc::new(bundles), &[ALPN])
            .map_err(|error| error.to_string())
    }

    async fn certify(
        &self,
        id: SpiffeId,
        key: mesh_issuance::PublicKey,
        requester: Requester,
        turn: Turn,
    ) -> Result<Chain, IssuanceError> {
        let request = CertificateRequest {
            id,
            key,
            lifetime_secs: None,
            backdate_secs_max: None,
        };
        self.issuing.issue(request, requester, turn).await
    }

    /// Who the evidence says the caller is.
    async fn attest(&self, evidence: Option<Evidence>) -> Result<Attested, Status> {
        let Some(Evidence::KubernetesToken(token)) = evidence else {
            return Err(Status::invalid_argument("no evidence of who you are"));
        };
        let Some(cluster) = &self.cluster else {
            return Err(Status::invalid_argument("this CA knows no cluster"));
        };
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(Status::invalid_argument("a token of an impossible length"));
        }
        let unavailable = |why: String| {
            tracing::error!(why, "the API server cannot be asked about a token");
            Status::unavailable("the API server cannot be asked; try again")
        };
        let asked = async {
            let review = cluster.review(&token).await.map_err(unavailable)?;
            let bound = kubernetes::bound(&review).map_err(|why| refuse(&why))?;
            let pod = cluster
                .pod(&bound.namespace, &bound.pod)
                .await
                .map_err(unavailable)?;
            bound
                .attest(pod.as_ref(), &self.trust_domain)
                .map_err(|why| refuse(&why))
        };
        match tokio::time::timeout(REVIEW_TIMEOUT, asked).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(unavailable("it did not answer in time".to_owned())),
        }
    }

    fn within_rate(&self, id: &SpiffeId) -> bool {
        self.issuing.within_rate(id, self.platform.monotonic())
    }
}

fn refuse(why: &kubernetes::Refused) -> Status {
    let code = miette::Diagnostic::code(why).map(|code| code.to_string());
    tracing::warn!(%why, code, "refused an identity");
    nobody()
}

#[tonic::async_trait]
impl Issuance for Desk {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let IssueRequest {
            certificate_request,
            evidence,
        } = request.into_inner();
        // The cheap checks first: a signature costs less than a call of the API server.
        let key = csr::parse(&certificate_request).map_err(|error| {
            Status::invalid_argument(format!("the certificate request is refused: {error}"))
        })?;
        let attested = self.attest(evidence).await?;
        let shown = caller.as_ref().and_then(|caller| caller.peer.as_ref());
        if let Some(peer) = shown
            && *peer.id() != attested.identity
        {
            tracing::warn!(
                shown = %peer.id(), attested = %attested.identity,
                "refused an identity: the SVID of the caller is another's"
            );
            return Err(nobody());
        }
        if !self.within_rate(&attested.identity) {
            return Err(Status::resource_exhausted("this identity asks too often"));
        }
        let identity = attested.identity.clone();
        // Who shows an SVID that counts has something to lose.
        let turn = if shown.is_some() {
            Turn::Renewal
        } else {
            Turn::First
        };
        let requester = Requester {
            instance: Some(attested.instance),
            node: attested.node,
            evidence: attested.evidence,
        };
        let chain = self
            .certify(attested.identity, key, requester, turn)
            .await
            .map_err(|error| {
                tracing::warn!(%identity, %error, "no SVID");
                not_issued(&error)
            })?;
        tracing::info!(%identity, serial = chain.leaf.serial().to_hex(), "issued an SVID over the network");
        let bundles_json = self.bundles().to_json().into_bytes();
        Ok(Response::new(IssueReply {
            chain: chain.whole().iter().map(|der| der.to_vec()).collect(),
            bundles_json,
        }))
    }
}

#[cfg(test)]
mod tests;
