//! An SVID from a CA that no Unix socket reaches: asked for over TLS with evidence of who we are, and kept fresh.
//!
//! ```text
//! asking --issued--> fresh --50 to 70 % of its life--> asking, with the SVID and new evidence
//! asking --failed--> waiting (jittered, longer each time) --> asking      the last SVID stays in use until it expires
//! ```
//! Each SVID has a key of its own, made here and never sent. The CA is known by the trust bundle that was put into a
//! file, and by its SPIFFE ID; what it answers brings the bundle up to date.
//!
//! [`connect`] leads to the trust stream of the same CA: bundles with their canaries, which whoever holds an SVID
//! acknowledges. What it says reaches the asking side through a [`Steering`]: which bundle the CA is known by from now on,
//! and that the SVID is to be replaced at once, because a rotation moves its holder to another root.

use mesh_api::proto::issuance_client::IssuanceClient;
use mesh_api::proto::issue_request::Evidence;
use mesh_api::proto::{IssueReply, IssueRequest};
use mesh_api::trust::{TrustStreamError, Update};
use mesh_issuance::renewal::{Event, Renewal};
use mesh_platform::Platform;
use mesh_trust::tls::{ExpectedPeer, TlsIdentity, client_config, client_config_without_identity};
use mesh_trust::{SpiffeId, Svid, Timestamp, TrustBundle, TrustBundles, TrustDomain};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Request;
use tonic::transport::Channel;
use zeroize::Zeroizing;

pub mod limits;
pub mod node;

use limits::{FILES_POLL, FIRST_RETRY, ISSUE_TIMEOUT, RENEW_SPREAD, REPLY_BYTES_MAX, WAIT_MAX};

/// The protocol under gRPC.
const ALPN: &[u8] = b"h2";

/// Which CA, and what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCa {
    /// `host:port`; the name is looked up at each attempt.
    pub address: String,
    /// Who must answer there.
    pub identity: SpiffeId,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// A projected service account token of Kubernetes; read again for each attempt, as the kubelet renews it.
    pub token: PathBuf,
    /// Trust anchors of the trust domain, PEM; looked at again when the file changes.
    pub bundle: PathBuf,
}

/// An SVID with its key, and the bundles of its time.
pub struct Material {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Whom to trust.
    pub bundles: TrustBundles,
}

/// Why there is no (new) SVID.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AskError {
    /// A file that must be there is not, or is not what it must be.
    #[error("`{}` cannot be used: {why}", .path.display())]
    #[diagnostic(
        code("MESH-0280"),
        help("in a pod both token and trust bundle are mounted by `mesh inject`; see its volumes")
    )]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The CA is not reached, or somebody else answers.
    #[error("the CA at `{address}` is not reached: {why}")]
    #[diagnostic(
        code("MESH-0281"),
        help("is `mesh-identity` running, and may it be reached from here? `mesh check` asks it")
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        why: String,
    },
    /// It answers, and gives nothing.
    #[error("the CA issues nothing: {why}")]
    #[diagnostic(
        code("MESH-0282"),
        help("the log of the CA says why; the requester is told little on purpose")
    )]
    Refused {
        /// In its words.
        why: String,
    },
    /// It gives something that cannot be used.
    #[error("what the CA issued cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0283"),
        help("the last SVID stays in use; CA and proxy may be of different versions")
    )]
    Unusable {
        /// What is wrong with it.
        why: String,
    },
}

/// What the trust stream tells whoever asks for SVIDs.
#[derive(Debug, Default)]
pub struct Steering {
    renew: Notify,
    bundles: Mutex<Option<Arc<TrustBundles>>>,
}

impl Steering {
    /// Takes note of an update that was put into force.
    pub fn heard(&self, update: &Update) {
        let bundles = Some(Arc::new(update.bundles.clone()));
        *self.bundles.lock().unwrap_or_else(PoisonError::into_inner) = bundles;
        if update.renew {
            self.renew.notify_one();
        }
    }

    /// Has the SVID in use replaced at once.
    pub fn replace(&self) {
        self.renew.notify_one();
    }

    /// The bundles in force, once the stream gave some: newer than any that came with an SVID.
    fn bundles(&self) -> Option<Arc<TrustBundles>> {
        self.bundles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Connects to the CA as whoever `identity` is: for its trust stream and its deny list.
///
/// # Errors
/// [`TrustStreamError::Ended`]; whoever calls tries again.
pub async fn connect(
    config: &RemoteCa,
    identity: &TlsIdentity,
    bundles: Arc<TrustBundles>,
) -> Result<Channel, TrustStreamError> {
    let ended = |why: String| TrustStreamError::Ended {
        ca: config.address.clone(),
        why,
    };
    let expected = ExpectedPeer::OneOf(Arc::from([config.identity.clone()]));
    let settings = client_config(identity, bundles, expected, &[ALPN])
        .map_err(|error| ended(error.to_string()))?;
    mesh_api::dial::connect(&config.address, settings)
        .await
        .map_err(ended)
}

/// Asks for SVIDs for as long as it is polled, and gives each to `take`, also when only the bundle is new.
pub async fn follow(
    config: &RemoteCa,
    platform: &dyn Platform,
    steering: &Steering,
    mut take: impl FnMut(Material),
) {
    let mut asker = Asker {
        config,
        platform,
        steering,
        held: None,
        bundle_seen: None,
    };
    let mut pause = FIRST_RETRY.0;
    while let Err(error) = asker.ask(&mut take).await {
        tracing::warn!(%error, ca = config.address, "no SVID yet; asking again");
        tokio::time::sleep(jittered(platform, pause)).await;
        pause = (pause * 2).min(FIRST_RETRY.1);
    }
    loop {
        asker.wait(&mut take).await;
        if let Err(error) = asker.ask(&mut take).await {
            tracing::warn!(%error, ca = config.address, "the SVID could not be renewed; it stays in use until it expires");
            asker.failed();
        }
    }
}

struct Asker<'a> {
    config: &'a RemoteCa,
    platform: &'a dyn Platform,
    steering: &'a Steering,
    held: Option<Held>,
    /// The bundle file as it was last read.
    bundle_seen: Option<Vec<u8>>,
}

/// What was issued last.
struct Held {
    identity: TlsIdentity,
    pkcs8: Vec<u8>,
    bundles: TrustBundles,
    renewal: Renewal,
}

impl Asker<'_> {
    /// Asks once.
    async fn ask(&mut self, take: &mut impl FnMut(Material)) -> Result<(), AskError> {
        let token = self.text(&self.config.token)?;
        let (request, pkcs8) = certificate_request()?;
        let reply = self.send(request, token).await?;
        let held = self.read(reply, pkcs8.to_vec())?;
        take(held.material());
        self.held = Some(held);
        Ok(())
    }

    async fn send(
        &mut self,
        certificate_request: Vec<u8>,
        token: String,
    ) -> Result<IssueReply, AskError> {
        let settings = self.settings()?;
        let address = &self.config.address;
        let unreachable = |why: String| AskError::Unreachable {
            address: address.clone(),
            why,
        };
        let channel = mesh_api::dial::connect(address, settings)
            .await
            .map_err(unreachable)?;
        let mut client = IssuanceClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX);
        let mut request = Request::new(IssueRequest {
            certificate_request,
            evidence: Some(Evidence::KubernetesToken(token)),
        });
        request.set_timeout(ISSUE_TIMEOUT);
        match tokio::time::timeout(ISSUE_TIMEOUT, client.issue(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(AskError::Refused {
                why: format!("{:?}: {}", status.code(), status.message()),
            }),
            Err(_elapsed) => Err(unreachable("it did not answer in time".to_owned())),
        }
    }

    /// TLS to the CA and nobody else; with the SVID in use, if there is one that still counts.
    fn settings(&mut self) -> Result<Arc<ClientConfig>, AskError> {
        let expected = ExpectedPeer::OneOf(Arc::from([self.config.identity.clone()]));
        let now = self.platform.wall_clock();
        let held = self
            .held
            .as_ref()
            .filter(|held| held.identity.svid().not_after() > now);
        let streamed = self.steering.bundles();
        let made = match (held, streamed) {
            (Some(held), streamed) => {
                let bundles = streamed.unwrap_or_else(|| Arc::new(held.bundles.clone()));
                client_config(&held.identity, bundles, expected, &[ALPN])
            }
            // Without an SVID that counts nobody streams to us: what was streamed last may be as old as that SVID.
            (None, _) => {
                let bundle = Arc::new(TrustBundles::from(self.bundle_file()?));
                client_config_without_identity(bundle, expected, &[ALPN])
            }
        };
        made.map_err(|error| unusable(&error))
    }

    fn bundle_file(&mut self) -> Result<TrustBundle, AskError> {
        let pem = self.bytes(&self.config.bundle)?;
        let bundle = TrustBundle::from_pem(self.config.trust_domain.clone(), &pem);
        self.bundle_seen = Some(pem);
        bundle.map_err(|error| AskError::File {
            path: self.config.bundle.clone(),
            why: error.to_string(),
        })
    }

    /// What was issued, if it is ours and can be used.
    fn read(&self, reply: IssueReply, pkcs8: Vec<u8>) -> Result<Held, AskError> {
        let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
        let svid = Svid::parse(chain).map_err(|error| unusable(&error))?;
        let bundles =
            TrustBundles::from_json(&reply.bundles_json).map_err(|error| unusable(&error))?;
        let domain = &self.config.trust_domain;
        if svid.id().trust_domain() != domain || bundles.get(domain).is_none() {
            return Err(AskError::Unusable {
                why: format!("`{}` or its bundle is not of `{domain}`", svid.id()),
            });
        }
        let now = self.platform.wall_clock();
        let not_after = svid.not_after();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.clone()));
        // Also: that the certificate is for the key that we made.
        let identity = TlsIdentity::new(svid, key).map_err(|error| unusable(&error))?;
        Ok(Held {
            identity,
            pkcs8,
            bundles,
            renewal: Renewal::issued(now, not_after, self.platform.dice()),
        })
    }

    /// Waits until the SVID is to be renewed. A bundle file that changes meanwhile is taken over at once.
    async fn wait(&mut self, take: &mut impl FnMut(Material)) {
        let mut polled = Duration::ZERO;
        loop {
            let now = self.platform.wall_clock();
            let Some(held) = &mut self.held else { return };
            held.renewal = held.renewal.step(Event::Tick, now, self.platform.dice());
            if held.renewal.is_due(now) {
                return;
            }
            let nap = until(held.renewal.wake_at(), now).min(WAIT_MAX);
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = self.steering.renew.notified() => {
                    // Everybody of a wave is told at one moment.
                    return tokio::time::sleep(jittered(self.platform, RENEW_SPREAD)).await;
                }
            }
            polled += nap;
            if polled >= FILES_POLL {
                polled = Duration::ZERO;
                self.look_at_bundle(take);
            }
        }
    }

    fn look_at_bundle(&mut self, take: &mut impl FnMut(Material)) {
        let seen = self.bundle_seen.clone();
        match self.bundle_file() {
            Ok(_) if self.bundle_seen == seen => {}
            Ok(bundle) => {
                if let Some(held) = &mut self.held {
                    held.bundles.insert(bundle);
                    take(held.material());
                }
            }
            Err(error) if self.bundle_seen != seen => {
                tracing::error!(%error, "the new trust bundle cannot be used; the last one stays in force");
            }
            Err(_) => {}
        }
    }

    fn failed(&mut self) {
        let now = self.platform.wall_clock();
        if let Some(held) = &mut self.held {
            held.renewal = held.renewal.step(Event::Failed, now, self.platform.dice());
        }
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, AskError> {
        self.platform
            .read_file(path)
            .map_err(|error| AskError::File {
                path: path.to_owned(),
                why: error.to_string(),
            })
    }

    fn text(&self, path: &Path) -> Result<String, AskError> {
        let text = String::from_utf8(self.bytes(path)?).unwrap_or_default();
        let text = text.trim();
        if text.is_empty() {
            return Err(AskError::File {
                path: path.to_owned(),
                why: "it is empty, or not text".to_owned(),
            });
        }
        Ok(text.to_owned())
    }
}

impl Held {
    fn material(&self) -> Material {
        Material {
            chain: self.identity.svid().chain().to_vec(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone())),
            bundles: self.bundles.clone(),
        }
    }
}

/// A fresh key, PKCS #8, and the request for its certificate, PKCS #10, both DER.
fn certificate_request() -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), AskError> {
    let key = KeyPair::generate().map_err(|error| unusable(&error))?;
    let mut names = CertificateParams::default();
    // Names in a request count for nothing; the library would put some in.
    names.distinguished_name = DistinguishedName::new();
    let request = names
        .serialize_request(&key)
        .map_err(|error| unusable(&error))?;
    Ok((request.der().to_vec(), Zeroizing::new(key.serialize_der())))
}

fn unusable(error: &dyn std::fmt::Display) -> AskError {
    AskError::Unusable {
        why: error.to_string(),
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let micros = at.unix_micros().saturating_sub(now.unix_micros()).max(0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Between half of `pause` and all of it, so that many do not come back at once.
fn jittered(platform: &dyn Platform, pause: Duration) -> Duration {
    let half = pause / 2;
    let share = platform.dice() as f64 / u64::MAX as f64;
    half + half.mul_f64(share)
}
