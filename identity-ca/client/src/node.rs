//! A machine that joins a mesh: from the token that an operator carries to an SVID of its own, and what its agent asks
//! the CA with that.
//!
//! Whom to believe comes first: anybody may answer at the CA's address, and what is said there about trust anchors counts
//! only if it has the hash in the token. The token's secret is said to nobody but the CA that these anchors vouch for.

use crate::limits::{ISSUE_TIMEOUT, NODE_UPDATE_BYTES_MAX, REPLY_BYTES_MAX};
use crate::{ALPN, AskError, certificate_request, unusable};
use mesh_api::proto::nodes_client::NodesClient;
use mesh_api::proto::{
    AnchorsRequest, CertifyRequest, IssueReply, JoinRequest, MintRequest, NodeReport, NodeUpdate,
    RenewRequest,
};
use mesh_issuance::attestation::join::{JoinToken, bundle_hash};
use mesh_trust::tls::{
    ExpectedPeer, TlsIdentity, client_config, client_config_before_trust,
    client_config_without_identity,
};
use mesh_trust::{SpiffeId, Svid, TrustBundle, TrustBundles, TrustDomain};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use zeroize::Zeroizing;

/// Who a CA is where no trust domain's own conventions say otherwise.
const CA_PATH: &str = "/ns/mesh-system/sa/mesh-identity";

/// Which CA, and who must answer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCa {
    /// `host:port`; the name is looked up at each attempt.
    pub address: String,
    /// Who must answer; none: `/ns/mesh-system/sa/mesh-identity` of the trust domain.
    pub identity: Option<SpiffeId>,
    /// The trust domain to join; none: that of the anchors that the token vouches for.
    pub trust_domain: Option<TrustDomain>,
}

/// An SVID with its key, and the bundles that came with it.
pub struct Held {
    /// The SVID, ready for TLS.
    pub tls: TlsIdentity,
    /// Its key, PKCS #8, DER.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// Whom to trust.
    pub bundles: TrustBundles,
}

/// Why a machine does not join, or its agent gets nothing.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum NodeError {
    /// Not reached, or somebody else answers.
    #[error("the CA at `{address}` is not reached: {why}")]
    #[diagnostic(
        code("MESH-0994"),
        help(
            "is it running with `--nodes --listen`, and does a firewall let this machine through? What is in force here stays so until it ends"
        )
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        why: String,
    },
    /// Whoever answers has other trust anchors than the token says.
    #[error("whoever answers at `{address}` is not the CA that made the token")]
    #[diagnostic(
        code("MESH-0200"),
        help(
            "the trust anchors there are not those that the token was made under: the address is another mesh's, somebody is in between, or a root was exchanged since. Nothing was said to them. Make a new token at the CA and check the address"
        )
    )]
    NotTheTokens {
        /// Where.
        address: String,
    },
    /// It refuses, or gives something that cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Answer(#[from] AskError),
}

/// Joins: spends `token` and returns the node's first SVID.
///
/// # Errors
/// [`NodeError`]. Before [`AskError::Refused`] the token was said to nobody, and may be used again.
pub async fn join(ca: &NodeCa, token: &JoinToken) -> Result<(Held, NodeCa), NodeError> {
    let (domain, anchors) = anchors(ca, token).await?;
    let identity = match &ca.identity {
        Some(identity) => identity.clone(),
        None => SpiffeId::parse(&format!("{}{CA_PATH}", domain.id())).map_err(unusable_node)?,
    };
    let known = NodeCa {
        address: ca.address.clone(),
        identity: Some(identity.clone()),
        trust_domain: Some(domain.clone()),
    };
    let bundles = Arc::new(TrustBundles::from(anchors));
    let expected = ExpectedPeer::OneOf(Arc::from([identity]));
    let settings = client_config_without_identity(bundles, expected, &[ALPN]);
    let mut client = dial(&ca.address, settings.map_err(unusable_node)?).await?;
    let (certificate_request, pkcs8) = certificate_request()?;
    let asked = client.join(timed(JoinRequest {
        secret: token.secret().to_vec(),
        certificate_request,
    }));
    let reply = answered(&ca.address, asked).await?;
    Ok((read(reply, pkcs8, &domain)?, known))
}

/// The trust anchors at the CA's address, if they are those of the token.
async fn anchors(ca: &NodeCa, token: &JoinToken) -> Result<(TrustDomain, TrustBundle), NodeError> {
    let settings = client_config_before_trust(&[ALPN]).map_err(unusable_node)?;
    let mut client = dial(&ca.address, settings).await?;
    let reply = answered(&ca.address, client.anchors(timed(AnchorsRequest {}))).await?;
    let not_the_tokens = || NodeError::NotTheTokens {
        address: ca.address.clone(),
    };
    if bundle_hash(reply.anchors.iter().map(Vec::as_slice)) != *token.bundle() {
        return Err(not_the_tokens());
    }
    let domain = TrustDomain::parse(&reply.trust_domain).map_err(|_| not_the_tokens())?;
    if ca
        .trust_domain
        .as_ref()
        .is_some_and(|wanted| *wanted != domain)
    {
        return Err(not_the_tokens());
    }
    let anchors = reply.anchors.into_iter().map(CertificateDer::from);
    // Anchors that name their domain must name this one; a chain under them is checked against it anyway.
    let bundle = TrustBundle::new(domain.clone(), anchors.collect()).map_err(unusable_node)?;
    Ok((domain, bundle))
}

fn unusable_node(error: impl std::fmt::Display) -> NodeError {
    unusable(&error).into()
}

async fn dial(
    address: &str,
    settings: Arc<ClientConfig>,
) -> Result<NodesClient<Channel>, NodeError> {
    let connected = mesh_api::dial::connect(address, settings).await;
    let channel = connected.map_err(|why| NodeError::Unreachable {
        address: address.to_owned(),
        why,
    })?;
    Ok(NodesClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX))
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ISSUE_TIMEOUT);
    request
}

async fn answered<T>(
    address: &str,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, NodeError> {
    match tokio::time::timeout(ISSUE_TIMEOUT, asked).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(refusal(address, &status)),
        Err(_elapsed) => Err(NodeError::Unreachable {
            address: address.to_owned(),
            why: "it did not answer in time".to_owned(),
        }),
    }
}

fn refusal(address: &str, status: &Status) -> NodeError {
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        // The library says so of a connection that broke, and so does a CA that stops.
        Code::Unavailable | Code::Unknown | Code::Cancelled => NodeError::Unreachable {
            address: address.to_owned(),
            why,
        },
        _ => AskError::Refused { why }.into(),
    }
}

fn read(
    reply: IssueReply,
    pkcs8: Zeroizing<Vec<u8>>,
    domain: &TrustDomain,
) -> Result<Held, NodeError> {
    let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
    let svid = Svid::parse(chain).map_err(unusable_node)?;
    let bundles = TrustBundles::from_json(&reply.bundles_json).map_err(unusable_node)?;
    if svid.id().trust_domain() != domain || bundles.get(domain).is_none() {
        return Err(unusable_node(format_args!(
            "`{}` or its bundle is not of `{domain}`",
            svid.id()
        )));
    }
    Held::new(svid, pkcs8, bundles)
}

impl Held {
    /// An SVID with the key that belongs to it.
    ///
    /// # Errors
    /// [`AskError::Unusable`] if the two do not belong together.
    pub fn new(
        svid: Svid,
        pkcs8: Zeroizing<Vec<u8>>,
        bundles: TrustBundles,
    ) -> Result<Self, NodeError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        Ok(Self {
            tls: TlsIdentity::new(svid, key).map_err(unusable_node)?,
            pkcs8,
            bundles,
        })
    }
}

/// An SVID that a node asks for on behalf of a process.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who the process is.
    pub identity: SpiffeId,
    /// Which process: `<pid>.<start time>`.
    pub process: String,
    /// How it was attested.
    pub evidence: String,
    /// Whether it holds an SVID that is in force.
    pub renewal: bool,
}

/// A node's way to its CA: the SVID that it shows, whom it believes, and one connection. Cheap to clone.
#[derive(Clone)]
pub struct NodeLink {
    address: Arc<str>,
    expected: ExpectedPeer,
    domain: TrustDomain,
    shown: Arc<watch::Sender<Shown>>,
    dialed: Arc<Dialed>,
}

/// The one connection that all share who ask, also while it is made: a machine whose agent starts anew asks for hundreds of
/// SVIDs at once.
#[derive(Default)]
struct Dialed {
    /// Of the last attempt: for which SVID and bundles it was, and what came of it.
    last: tokio::sync::Mutex<Option<(u64, Result<Channel, String>)>>,
    /// Attempts that have ended.
    attempts: AtomicU64,
}

/// What a connection is made with.
#[derive(Clone)]
struct Shown {
    version: u64,
    tls: TlsIdentity,
    bundles: Arc<TrustBundles>,
}

impl NodeLink {
    /// The way to `ca`, whose identity and trust domain are known, as whoever `held` names.
    ///
    /// # Errors
    /// [`AskError::Unusable`] if they are not known.
    pub fn new(ca: &NodeCa, held: &Held) -> Result<Self, NodeError> {
        let known = ca.identity.clone().zip(ca.trust_domain.clone());
        let (identity, domain) =
            known.ok_or_else(|| unusable_node("it is not known who the CA is"))?;
        let shown = Shown {
            version: 0,
            tls: held.tls.clone(),
            bundles: Arc::new(held.bundles.clone()),
        };
        Ok(Self {
            address: Arc::from(ca.address.as_str()),
            expected: ExpectedPeer::OneOf(Arc::from([identity])),
            domain,
            shown: Arc::new(watch::Sender::new(shown)),
            dialed: Arc::default(),
        })
    }

    /// Where the CA is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whom the node believes.
    pub fn bundles(&self) -> Arc<TrustBundles> {
        self.shown.borrow().bundles.clone()
    }

    /// The trust domain of the mesh.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The node itself, as it shows itself now.
    pub fn identity(&self) -> TlsIdentity {
        self.shown.borrow().tls.clone()
    }

    /// Shows another SVID from now on, under the bundles in force.
    pub fn show(&self, tls: TlsIdentity) {
        self.shown.send_modify(|shown| {
            shown.version += 1;
            shown.tls = tls;
        });
    }

    /// Believes these bundles from now on. Those in force again change nothing.
    pub fn believe(&self, bundles: &TrustBundles) {
        self.shown.send_if_modified(|shown| {
            if *shown.bundles == *bundles {
                return false;
            }
            shown.version += 1;
            shown.bundles = Arc::new(bundles.clone());
            true
        });
    }

    /// A connection to the CA as somebody else of this machine.
    ///
    /// # Errors
    /// [`NodeError::Unreachable`].
    pub async fn connect_as(&self, tls: &TlsIdentity) -> Result<Channel, NodeError> {
        let bundles = self.shown.borrow().bundles.clone();
        self.connect(tls, bundles).await
    }

    async fn connect(
        &self,
        tls: &TlsIdentity,
        bundles: Arc<TrustBundles>,
    ) -> Result<Channel, NodeError> {
        let settings = client_config(tls, bundles, self.expected.clone(), &[ALPN]);
        let settings = settings.map_err(unusable_node)?;
        let connected = mesh_api::dial::connect(&self.address, settings).await;
        connected.map_err(|why| self.unreachable(why))
    }

    fn unreachable(&self, why: String) -> NodeError {
        NodeError::Unreachable {
            address: self.address.to_string(),
            why,
        }
    }

    async fn client(&self) -> Result<NodesClient<Channel>, NodeError> {
        let before = self.dialed.attempts.load(Ordering::Relaxed);
        let mut last = self.dialed.last.lock().await;
        let shown = self.shown.borrow().clone();
        match &*last {
            Some((version, Ok(channel))) if *version == shown.version => {
                return Ok(NodesClient::new(channel.clone()));
            }
            // It failed while we waited for it: what is true of one attempt is true of all who wanted it.
            Some((version, Err(why)))
                if *version == shown.version
                    && self.dialed.attempts.load(Ordering::Relaxed) != before =>
            {
                return Err(self.unreachable(why.clone()));
            }
            _ => {}
        }
        let made = self.connect(&shown.tls, shown.bundles).await;
        self.dialed.attempts.fetch_add(1, Ordering::Relaxed);
        *last = match &made {
            Ok(channel) => Some((shown.version, Ok(channel.clone()))),
            Err(NodeError::Unreachable { why, .. }) => Some((shown.version, Err(why.clone()))),
            // Nobody was asked: whoever comes next finds out alone.
            Err(_) => None,
        };
        made.map(NodesClient::new)
    }

    /// Another SVID for the node itself.
    ///
    /// # Errors
    /// [`NodeError`]; the one in force stays so.
    pub async fn renew(&self) -> Result<Held, NodeError> {
        let mut client = self
            .client()
            .await?
            .max_decoding_message_size(REPLY_BYTES_MAX);
        let (certificate_request, pkcs8) = certificate_request()?;
        let asked = client.renew(timed(RenewRequest {
            certificate_request,
        }));
        read(answered(&self.address, asked).await?, pkcs8, &self.domain)
    }

    /// An SVID for a process of this machine.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn certify(&self, asked: &Asked) -> Result<Held, NodeError> {
        let mut client = self
            .client()
            .await?
            .max_decoding_message_size(REPLY_BYTES_MAX);
        let (certificate_request, pkcs8) = certificate_request()?;
        let sent = client.certify(timed(CertifyRequest {
            certificate_request,
            spiffe_id: asked.identity.to_string(),
            process: asked.process.clone(),
            evidence: asked.evidence.clone(),
            renewal: asked.renewal,
        }));
        let held = read(answered(&self.address, sent).await?, pkcs8, &self.domain)?;
        if *held.tls.svid().id() != asked.identity {
            let found = held.tls.svid().id();
            return Err(unusable_node(format_args!("it is of `{found}`")));
        }
        Ok(held)
    }

    /// A JWT-SVID for a process of this machine.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn mint(&self, identity: &SpiffeId, audience: &str) -> Result<String, NodeError> {
        let mut client = self.client().await?;
        let asked = client.mint(timed(MintRequest {
            spiffe_id: identity.to_string(),
            audience: audience.to_owned(),
        }));
        Ok(answered(&self.address, asked).await?.token)
    }

    /// Follows what the CA tells this node; `reports` is what it is told, each time it changes.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn watch(
        &self,
        reports: watch::Receiver<NodeReport>,
    ) -> Result<Streaming<NodeUpdate>, NodeError> {
        let client = self.client().await?;
        let mut client = client.max_decoding_message_size(NODE_UPDATE_BYTES_MAX);
        let asked = client.watch(WatchStream::new(reports));
        answered(&self.address, asked).await
    }
}
