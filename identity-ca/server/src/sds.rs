//! Envoy's Secret Discovery Service, version 3: the same SVIDs and anchors as the Workload API, in Envoy's form.
//!
//! | name | secret |
//! |---|---|
//! | `default` | the caller's first SVID with its key |
//! | a SPIFFE ID of the caller | that SVID with its key |
//! | `ROOTCA` | anchors of the caller's own trust domain |
//! | `spiffe://<trust domain>` | anchors of that domain |
//! | `ALL` | anchors of every domain |
//! | (none) | each SVID and each domain, by their IDs |
//!
//! Anchors come as configuration of Envoy's SPIFFE validator, which checks each peer against the anchors of its own
//! domain. Envoy before 1.18 has no such validator: there `ROOTCA` and single domains come as plain roots, and `ALL`,
//! which would pool them (rule X5), is refused. Unlike the Workload API this needs no header: Envoy sends none unless it
//! is configured to.

use crate::agent::{Agent, Anchors, Caller, Mark, State};
use crate::error::coded;
use crate::limits::{SECRET_NAME_BYTES_MAX, SECRET_NAMES_MAX};
use crate::pem;
use crate::proto::envoy::config::core::v3::data_source::Specifier;
use crate::proto::envoy::config::core::v3::{DataSource, Node, TypedExtensionConfig};
use crate::proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain as Domain;
use crate::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
};
use crate::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use crate::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use crate::svids::Material;
use mesh_trust::TrustDomain;
use mesh_trust::bundle::to_pem;
use mesh_trust::quoted::Quoted;
use prost::Message;
use prost_types::Any;
use std::collections::BTreeSet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Type of the one resource there is here.
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const VALIDATOR: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
/// First version of Envoy with a validator for SPIFFE.
const VALIDATOR_SINCE: (u32, u32) = (1, 18);

/// Answers Envoy. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sds(pub(crate) Agent);

/// Why a secret is not given.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum SdsError {
    /// Not of the caller, or nothing by that name.
    #[error("there is no secret `{name}` for this process")]
    #[diagnostic(
        code("MESH-0265"),
        help(
            "names are `default`, `ROOTCA`, `ALL`, an SPIFFE ID of the process, or the ID of a trusted domain"
        )
    )]
    Unknown {
        /// What was asked for.
        name: Quoted,
    },
    /// All anchors for an Envoy that would pool them.
    #[error(
        "this Envoy has no validator for SPIFFE, and without it the anchors of all domains would be pooled"
    )]
    #[diagnostic(
        code("MESH-0266"),
        help("use Envoy 1.18 or newer for `ALL`, or name one trust domain")
    )]
    WouldPool,
    /// More than this service takes.
    #[error(
        "a request for `{names}` secrets, or a name that is too long; the limits are {SECRET_NAMES_MAX} and {SECRET_NAME_BYTES_MAX} bytes"
    )]
    #[diagnostic(code("MESH-0267"), help("ask for fewer names in one stream"))]
    TooMany {
        /// How many.
        names: usize,
    },
}

/// What a client wants, by its last request.
struct Wanted {
    names: BTreeSet<String>,
    validator: bool,
}

impl Wanted {
    fn read(request: &DiscoveryRequest) -> Result<Self, Status> {
        if !request.type_url.is_empty() && request.type_url != SECRET {
            return Err(Status::invalid_argument("only secrets are served here"));
        }
        let names = &request.resource_names;
        let long = names.iter().any(|name| name.len() > SECRET_NAME_BYTES_MAX);
        if names.len() > SECRET_NAMES_MAX || long {
            let error = SdsError::TooMany { names: names.len() };
            return Err(Status::invalid_argument(coded(&error)));
        }
        Ok(Self {
            names: names.iter().cloned().collect(),
            validator: has_validator(request.node.as_ref()),
        })
    }

    /// The secrets, all or none.
    fn secrets(&self, (svids, anchors): &State) -> Result<Vec<Secret>, SdsError> {
        if self.names.is_empty() {
            let own = svids
                .iter()
                .map(|svid| certificate(svid.identity.as_str(), svid));
            let roots = anchors.keys().map(|domain| {
                self.validation(domain.id().as_str(), anchors, |other| other == domain)
            });
            return Ok(own.chain(roots).collect());
        }
        self.names
            .iter()
            .map(|name| self.secret(name, svids, anchors))
            .collect()
    }

    fn secret(
        &self,
        name: &str,
        svids: &[std::sync::Arc<Material>],
        anchors: &Anchors,
    ) -> Result<Secret, SdsError> {
        let unknown = || SdsError::Unknown {
            name: Quoted::new(name),
        };
        let first = svids.first().ok_or_else(unknown)?;
        match name {
            "default" => Ok(certificate(name, first)),
            "ROOTCA" => {
                let own = first.identity.trust_domain();
                Ok(self.validation(name, anchors, |domain| domain == own))
            }
            "ALL" if self.validator => Ok(self.validation(name, anchors, |_| true)),
            "ALL" => Err(SdsError::WouldPool),
            _ => {
                let own = svids.iter().find(|svid| svid.identity.as_str() == name);
                let known = anchors.keys().find(|domain| domain.id().as_str() == name);
                match (own, known) {
                    (Some(svid), _) => Ok(certificate(name, svid)),
                    (None, Some(asked)) => {
                        Ok(self.validation(name, anchors, |domain| domain == asked))
                    }
                    (None, None) => Err(unknown()),
                }
            }
        }
    }

    fn validation(
        &self,
        name: &str,
        anchors: &Anchors,
        wanted: impl Fn(&TrustDomain) -> bool,
    ) -> Secret {
        let chosen = anchors.iter().filter(|(domain, _)| wanted(domain));
        let context = if self.validator {
            let trust_domains = chosen
                .map(|(domain, roots)| Domain {
                    name: domain.to_string(),
                    trust_bundle: Some(inline(to_pem(roots).into_bytes())),
                })
                .collect();
            let config = SpiffeCertValidatorConfig { trust_domains };
            CertificateValidationContext {
                trusted_ca: None,
                custom_validator_config: Some(TypedExtensionConfig {
                    name: "envoy.tls.cert_validator.spiffe".to_owned(),
                    typed_config: Some(Any {
                        type_url: VALIDATOR.to_owned(),
                        value: config.encode_to_vec(),
                    }),
                }),
            }
        } else {
            // One domain: `ALL` is refused above.
            let roots: String = chosen.map(|(_, roots)| to_pem(roots)).collect();
            CertificateValidationContext {
                trusted_ca: Some(inline(roots.into_bytes())),
                custom_validator_config: None,
            }
        };
        Secret {
            name: name.to_owned(),
            r#type: Some(Type::ValidationContext(context)),
        }
    }
}

/// Clients that do not say their version are taken for new ones: what they cannot read they refuse, and pool nothing.
fn has_validator(node: Option<&Node>) -> bool {
    node.and_then(|node| node.user_agent_build_version.as_ref())
        .and_then(|build| build.version.as_ref())
        .is_none_or(|version| (version.major_number, version.minor_number) >= VALIDATOR_SINCE)
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(bytes)),
    }
}

fn certificate(name: &str, svid: &Material) -> Secret {
    let key = pem::encode(pem::PRIVATE_KEY, &svid.key);
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(to_pem(&svid.chain).into_bytes())),
        private_key: Some(inline(key.as_bytes().to_vec())),
    };
    Secret {
        name: name.to_owned(),
        r#type: Some(Type::TlsCertificate(certificate)),
    }
}

fn response(secrets: &[Secret], number: u64) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: number.to_string(),
        resources: secrets
            .iter()
            .map(|secret| Any {
                type_url: SECRET.to_owned(),
                value: secret.encode_to_vec(),
            })
            .collect(),
        type_url: SECRET.to_owned(),
        nonce: number.to_string(),
    }
}

fn not_given(error: &SdsError) -> Status {
    Status::permission_denied(coded(error))
}

/// Follows a stream of requests: each change of material or of names is one answer.
async fn follow(
    caller: &Caller,
    mut requests: Streaming<DiscoveryRequest>,
    out: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
) -> Result<(), Status> {
    let entitled = caller.attest().await?;
    let mut waits = caller.waits_with_svids(&entitled)?;
    let mut wanted: Option<Wanted> = None;
    let mut sent: Option<Mark> = None;
    let mut number = 0_u64;
    loop {
        caller.recheck(&entitled)?;
        if let Some(wanted) = &wanted
            && let Some(state) = waits.state()?
            && sent.as_ref() != Some(&Mark::of(&state))
        {
            let secrets = wanted.secrets(&state).map_err(|error| not_given(&error))?;
            sent = Some(Mark::of(&state));
            number += 1;
            if out.send(Ok(response(&secrets, number))).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            request = requests.message() => {
                let Some(request) = request? else { return Ok(()) };
                if let Some(refusal) = &request.error_detail {
                    tracing::warn!(why = ?refusal.message, "Envoy refused a secret; it is sent again when it changes");
                }
                // About an answer that a newer one replaced: the client will speak of that one too.
                let late = !request.response_nonce.is_empty() && request.response_nonce != number.to_string();
                if late {
                    continue;
                }
                let new = Wanted::read(&request)?;
                match &mut wanted {
                    // Envoy names its version in the first request only.
                    Some(known) if known.names == new.names => {}
                    Some(known) => {
                        known.names = new.names;
                        sent = None;
                    }
                    none => *none = Some(new),
                }
            }
            waited = caller.wait(&mut waits, out) => waited?,
        }
    }
}

/// One answer, once everything is there.
async fn fetch(caller: &Caller, request: &DiscoveryRequest) -> Result<DiscoveryResponse, Status> {
    let wanted = Wanted::read(request)?;
    let entitled = caller.attest().await?;
    let mut waits = caller.waits_with_svids(&entitled)?;
    // Only so that waiting has somebody to wait for.
    let (out, _open) = mpsc::channel::<Result<(), Status>>(1);
    loop {
        caller.recheck(&entitled)?;
        if let Some(state) = waits.state()? {
            let secrets = wanted.secrets(&state).map_err(|error| not_given(&error))?;
            return Ok(response(&secrets, 1));
        }
        caller.wait(&mut waits, &out).await?;
    }
}

type Answers = ReceiverStream<Result<DiscoveryResponse, Status>>;
type DeltaAnswers = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

impl Sds {
    fn open(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = self.0.caller(&request)?;
        let requests = request.into_inner();
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = follow(&caller, requests, &out).await {
                // Nobody listens: nothing to say.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

fn no_deltas() -> Status {
    Status::unimplemented("only whole states are served, not deltas")
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = DeltaAnswers;
    type StreamSecretsStream = Answers;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaAnswers>, Status> {
        Err(no_deltas())
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.open(request)
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let caller = self.0.caller(&request)?;
        fetch(&caller, &request.into_inner())
            .await
            .map(Response::new)
    }
}

/// The same for clients that know the aggregated service alone; resources of other types are refused.
#[tonic::async_trait]
impl AggregatedDiscoveryService for Sds {
    type DeltaAggregatedResourcesStream = DeltaAnswers;
    type StreamAggregatedResourcesStream = Answers;

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaAnswers>, Status> {
        Err(no_deltas())
    }

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.open(request)
    }
}
