//! Envoy's side of the socket: names, versions, answers taken and refused, and what is not given.

use super::*;
use crate::proto::envoy::config::core::v3::data_source::Specifier;
use crate::proto::envoy::config::core::v3::{
    BuildVersion, DataSource, Node, RpcStatus, SemanticVersion,
};
use crate::proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::proto::envoy::extensions::transport_sockets::tls::v3::{
    Secret, SpiffeCertValidatorConfig,
};
use crate::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use crate::proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".into(),
        ..DiscoveryRequest::default()
    }
}

fn of_version(mut request: DiscoveryRequest, minor_number: u32) -> DiscoveryRequest {
    let version = SemanticVersion {
        major_number: 1,
        minor_number,
        patch: 0,
    };
    request.node = Some(Node {
        id: "envoy".into(),
        user_agent_build_version: Some(BuildVersion {
            version: Some(version),
        }),
    });
    request
}

async fn client(ca: &Running) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(channel(ca.api()).await)
}

async fn fetch(ca: &Running, request: DiscoveryRequest) -> Result<Vec<Secret>, Status> {
    let response = client(ca).await.fetch_secrets(request).await?;
    Ok(secrets(&response.into_inner()))
}

fn secrets(response: &DiscoveryResponse) -> Vec<Secret> {
    response
        .resources
        .iter()
        .map(|any| Secret::decode(any.value.as_slice()).unwrap())
        .collect()
}

fn pem(source: Option<&DataSource>) -> String {
    let Some(Specifier::InlineBytes(bytes)) = source.unwrap().specifier.clone() else {
        panic!("no bytes");
    };
    String::from_utf8(bytes).unwrap()
}

/// The chain of a certificate secret.
fn chain(secret: &Secret) -> String {
    match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            assert!(pem(certificate.private_key.as_ref()).starts_with("-----BEGIN PRIVATE KEY"));
            pem(certificate.certificate_chain.as_ref())
        }
        other => panic!("{other:?}"),
    }
}

/// The domains of a secret for Envoy's SPIFFE validator, with their roots.
fn domains(secret: &Secret) -> Vec<(String, String)> {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("{secret:?}");
    };
    assert!(context.trusted_ca.is_none());
    let config = context.custom_validator_config.clone().unwrap();
    assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
    let config = config.typed_config.unwrap();
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
    config
        .trust_domains
        .iter()
        .map(|domain| (domain.name.clone(), pem(domain.trust_bundle.as_ref())))
        .collect()
}

#[tokio::test]
async fn each_name_gives_its_secret() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    for name in ["default", CART] {
        let got = fetch(&ca, request(&[name])).await.unwrap();
        assert_eq!((got.len(), got[0].name.as_str()), (1, name));
        assert_eq!(chain(&got[0]).matches("BEGIN CERTIFICATE").count(), 2);
    }
    for name in ["ROOTCA", "ALL", "spiffe://cluster.local"] {
        let got = fetch(&ca, request(&[name])).await.unwrap();
        let domains = domains(&got[0]);
        assert_eq!(
            (got.len(), got[0].name.as_str(), domains.len()),
            (1, name, 1)
        );
        assert_eq!(domains[0].0, "cluster.local");
        assert_eq!(domains[0].1.matches("BEGIN CERTIFICATE").count(), 1);
    }
    let all: Vec<String> = fetch(&ca, request(&[]))
        .await
        .unwrap()
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    assert_eq!(all, [CART, "spiffe://cluster.local"]);
    ca.stop().await;
}

#[tokio::test]
async fn an_envoy_without_the_validator_gets_roots_of_one_domain_only() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let old = fetch(&ca, of_version(request(&["ROOTCA"]), 17))
        .await
        .unwrap();
    let Some(Type::ValidationContext(context)) = &old[0].r#type else {
        panic!("{old:?}");
    };
    assert!(pem(context.trusted_ca.as_ref()).contains("BEGIN CERTIFICATE"));
    assert!(context.custom_validator_config.is_none());
    let status = fetch(&ca, of_version(request(&["ALL"]), 17))
        .await
        .unwrap_err();
    assert!(status.message().contains("MESH-0266"), "{status}");
    assert_eq!(
        domains(&fetch(&ca, of_version(request(&["ALL"]), 18)).await.unwrap()[0]).len(),
        1
    );
    ca.stop().await;
}

#[tokio::test]
async fn secrets_of_others_and_hostile_requests_are_refused() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let many: Vec<String> = (0..65).map(|n| format!("n{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "x".repeat(2_049);
    for (names, code, text) in [
        (
            &["spiffe://cluster.local/ns/shop/sa/web"][..],
            Code::PermissionDenied,
            "MESH-0265",
        ),
        (
            &["spiffe://other.example"],
            Code::PermissionDenied,
            "MESH-0265",
        ),
        (&["rootca"], Code::PermissionDenied, "MESH-0265"),
        (&["default", "x\n"], Code::PermissionDenied, "MESH-0265"),
        (&many, Code::InvalidArgument, "MESH-0267"),
        (&[&long], Code::InvalidArgument, "MESH-0267"),
    ] {
        let status = fetch(&ca, request(names)).await.unwrap_err();
        assert!(
            status.code() == code && status.message().contains(text),
            "{names:?}: {status}"
        );
        assert!(!status.message().contains('\n'), "{status}");
    }
    let clusters = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        ..request(&["default"])
    };
    assert_eq!(
        fetch(&ca, clusters).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    ca.stop().await;
}

#[tokio::test]
async fn a_stranger_gets_no_secret() {
    let ca = Running::start(|_| {}).await;
    let status = fetch(&ca, request(&["ROOTCA"])).await.unwrap_err();
    assert_eq!(status.message(), "no identity issued");
    ca.stop().await;
}

/// A stream whose requests are written one by one.
struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: tonic::Streaming<DiscoveryResponse>,
}

impl Stream {
    async fn open(ca: &Running, first: DiscoveryRequest) -> Self {
        let (requests, outgoing) = mpsc::channel(4);
        requests.send(first).await.unwrap();
        let answers = client(ca)
            .await
            .stream_secrets(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        Self { requests, answers }
    }

    async fn next(&mut self, within: Duration) -> Option<DiscoveryResponse> {
        let answer = tokio::time::timeout(within, self.answers.message()).await;
        answer.ok().map(|answer| answer.unwrap().unwrap())
    }

    async fn reply(&self, names: &[&str], to: &DiscoveryResponse, refusal: Option<&str>) {
        let request = DiscoveryRequest {
            version_info: to.version_info.clone(),
            response_nonce: to.nonce.clone(),
            error_detail: refusal.map(|text| RpcStatus {
                code: 3,
                message: text.to_owned(),
            }),
            ..request(names)
        };
        self.requests.send(request).await.unwrap();
    }
}

const SOON: Duration = Duration::from_secs(8);
const BRIEFLY: Duration = Duration::from_millis(500);

#[tokio::test]
async fn answers_that_were_taken_or_refused_are_not_repeated_and_new_names_are_answered() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut stream = Stream::open(&ca, request(&["default"])).await;
    let first = stream.next(SOON).await.unwrap();
    stream.reply(&["default"], &first, None).await;
    assert!(stream.next(BRIEFLY).await.is_none(), "it was taken");
    stream.reply(&["default"], &first, Some("no\nthanks")).await;
    assert!(
        stream.next(BRIEFLY).await.is_none(),
        "the same again would be refused again"
    );
    stream.reply(&["default", "ROOTCA"], &first, None).await;
    let second = stream.next(SOON).await.unwrap();
    assert_eq!(second.resources.len(), 2);
    assert_ne!(second.nonce, first.nonce);
    stream.reply(&["ALL"], &first, None).await;
    assert!(
        stream.next(BRIEFLY).await.is_none(),
        "it is about an older answer"
    );
    stream
        .reply(&["spiffe://other.example"], &second, None)
        .await;
    assert_eq!(end_of(stream.answers).await.code(), Code::PermissionDenied);
    ca.stop().await;
}

#[tokio::test]
async fn a_renewed_svid_is_pushed_with_a_fresh_key() {
    let ca = Running::start(|config| {
        config.registrations = open_house();
        config.svid_ttl = Duration::from_secs(10);
    })
    .await;
    let mut stream = Stream::open(&ca, request(&["default"])).await;
    let first = stream.next(SOON).await.unwrap();
    stream.reply(&["default"], &first, None).await;
    let second = stream.next(SOON).await.expect("renewed in time");
    assert_ne!(chain(&secrets(&first)[0]), chain(&secrets(&second)[0]));
    assert_ne!(first.version_info, second.version_info);
    ca.stop().await;
}

#[tokio::test]
async fn the_stream_of_secrets_ends_with_the_right_to_them() {
    let ca = Running::start(|_| {}).await;
    let mut launches = ca.launches().await;
    let pid = std::process::id();
    launches.register(record(pid, "web")).await.unwrap();
    let mut stream = Stream::open(&ca, request(&["default"])).await;
    assert!(stream.next(SOON).await.is_some());
    launches
        .unregister(UnregisterRequest { pid })
        .await
        .unwrap();
    assert_eq!(end_of(stream.answers).await.message(), "no identity issued");
    ca.stop().await;
}
