//! Tokens over the Workload API: as a SPIFFE library that others wrote gets them, and what is refused.

use super::*;
use crate::proto::{JwtsvidResponse, ValidateJwtsvidRequest};
use mesh_trust::jwt::{JwtBundle, JwtBundles, JwtSvid};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

type Raw = SpiffeWorkloadApiClient<Channel>;

/// This process has two identities.
fn two_identities() -> Vec<Registration> {
    let [cart] = <[Registration; 1]>::try_from(open_house()).unwrap();
    let web = Registration {
        identity: id("ns/shop/sa/web"),
        ..cart.clone()
    };
    vec![cart, web]
}

async fn fetch(
    client: &mut Raw,
    audience: &[&str],
    spiffe_id: &str,
) -> Result<JwtsvidResponse, Status> {
    let request = JwtsvidRequest {
        audience: audience.iter().map(|one| (*one).to_owned()).collect(),
        spiffe_id: spiffe_id.to_owned(),
    };
    let response = client.fetch_jwtsvid(with_header(request)).await;
    response.map(tonic::Response::into_inner)
}

async fn validate(client: &mut Raw, audience: &str, svid: &str) -> Result<String, Status> {
    let request = ValidateJwtsvidRequest {
        audience: audience.to_owned(),
        svid: svid.to_owned(),
    };
    let response = client.validate_jwtsvid(with_header(request)).await?;
    Ok(response.into_inner().spiffe_id)
}

async fn bundle(client: &mut Raw) -> JwtBundle {
    let mut stream = client
        .fetch_jwt_bundles(with_header(JwtBundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let message = stream.message().await.unwrap().unwrap();
    let document = &message.bundles["spiffe://cluster.local"];
    JwtBundle::from_json(domain(), document).unwrap()
}

#[tokio::test]
async fn a_spiffe_library_fetches_tokens_and_has_them_validated() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let client = ca.spiffe().await;
    let svid = client.fetch_jwt_svid(["checkout"], None).await.unwrap();
    assert_eq!(
        svid.spiffe_id().to_string(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(svid.audience(), ["checkout".to_owned()]);
    let validated = client
        .validate_jwt_token("checkout", svid.token())
        .await
        .unwrap();
    assert_eq!(validated.spiffe_id(), svid.spiffe_id());
    let bundles = client.fetch_jwt_bundles().await.unwrap();
    let bundle = bundles
        .bundle_for_trust_domain(svid.spiffe_id().trust_domain())
        .unwrap()
        .unwrap();
    assert!(bundle.find_jwt_authority(svid.key_id()).is_some());
    ca.stop().await;
}

#[tokio::test]
async fn a1_every_method_of_the_two_mandatory_profiles_answers() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    let mut svids = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = svids.message().await.unwrap().unwrap();
    let mut roots = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let bundles = roots.message().await.unwrap().unwrap().bundles;
    assert_eq!(bundles["spiffe://cluster.local"], first.svids[0].bundle);
    let token = fetch(&mut client, &["checkout"], "").await.unwrap().svids[0]
        .svid
        .clone();
    assert_eq!(bundle(&mut client).await.key_ids().count(), 1);
    assert!(validate(&mut client, "checkout", &token).await.is_ok());
    ca.stop().await;
}

#[tokio::test]
async fn a6_a_token_is_for_exactly_one_audience() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    let long = "x".repeat(2_049);
    for audience in [&[][..], &[""], &["a", "b"], &["a", ""], &["a\n"], &[&long]] {
        let status = fetch(&mut client, audience, "").await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{audience:?}: {status}"
        );
    }
    for (audience, svid) in [("", "x"), ("checkout", ""), ("", "")] {
        let status = validate(&mut client, audience, svid).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{audience} {svid}: {status}"
        );
    }
    ca.stop().await;
}

#[tokio::test]
async fn a_token_is_given_for_each_own_identity_and_for_no_other() {
    let ca = Running::start(|config| config.registrations = two_identities()).await;
    let mut client = ca.raw().await;
    let all = fetch(&mut client, &["checkout"], "").await.unwrap().svids;
    let ids: Vec<_> = all.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    let (cart, web) = (
        "spiffe://cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/web",
    );
    assert_eq!(ids, [cart, web]);
    let one = fetch(&mut client, &["checkout"], web).await.unwrap().svids;
    assert_eq!((one.len(), one[0].spiffe_id.as_str()), (1, web));
    for (other, code) in [
        (
            "spiffe://cluster.local/ns/shop/sa/payments",
            Code::PermissionDenied,
        ),
        (
            "spiffe://other.example/ns/shop/sa/cart",
            Code::PermissionDenied,
        ),
        ("spiffe://cluster.local", Code::PermissionDenied),
        ("cart", Code::InvalidArgument),
        (
            "spiffe://cluster.local/ns/shop/sa/web/",
            Code::InvalidArgument,
        ),
    ] {
        let status = fetch(&mut client, &["checkout"], other).await.unwrap_err();
        assert_eq!(status.code(), code, "{other}: {status}");
    }
    ca.stop().await;
}

#[tokio::test]
async fn j2_j3_a_token_has_one_audience_a_key_id_and_five_minutes() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    let token = fetch(&mut client, &["checkout"], "").await.unwrap().svids[0]
        .svid
        .clone();
    let now = mesh_platform::Platform::wall_clock(&*System::new());
    let bundles = JwtBundles::from_iter([bundle(&mut client).await]);
    let svid = JwtSvid::verify(&token, "checkout", &bundles, now).unwrap();
    assert_eq!(svid.audience(), ["checkout"]);
    assert!((290..=300).contains(&now.secs_until(svid.expires())));
    ca.stop().await;
}

#[tokio::test]
async fn a8_validation_tells_the_claims_and_refuses_what_is_not_ours() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let other = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    let token = fetch(&mut client, &["checkout"], "").await.unwrap().svids[0]
        .svid
        .clone();
    let request = ValidateJwtsvidRequest {
        audience: "checkout".into(),
        svid: token.clone(),
    };
    let answer = client
        .validate_jwtsvid(with_header(request))
        .await
        .unwrap()
        .into_inner();
    let claims = answer.claims.unwrap().fields;
    let text = |name: &str| match claims[name].kind.clone().unwrap() {
        prost_types::value::Kind::StringValue(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(text("sub"), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(text("jti").len(), 32);
    assert!(claims.contains_key("exp") && claims.contains_key("aud"));
    // The same domain by name, and another CA.
    let foreign = fetch(&mut other.raw().await, &["checkout"], "")
        .await
        .unwrap()
        .svids[0]
        .svid
        .clone();
    let another = fetch(&mut client, &["checkout"], "").await.unwrap().svids[0]
        .svid
        .clone();
    for (audience, svid, code) in [
        ("web", token.as_str(), "MESH-0259"),
        ("checkout", foreign.as_str(), "MESH-0256"),
        (
            "checkout",
            &with_signature_of(&token, &another),
            "MESH-0257",
        ),
        ("checkout", "a.b.c", "MESH-0254"),
        ("checkout", &"x".repeat(20_000), "MESH-0253"),
    ] {
        let status = validate(&mut client, audience, svid).await.unwrap_err();
        let refused = status.code() == Code::InvalidArgument && status.message().contains(code);
        assert!(refused, "{audience} {code}: {status}");
    }
    ca.stop().await;
    other.stop().await;
}

fn with_signature_of(token: &str, other: &str) -> String {
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a7_a_stranger_gets_nothing_by_any_method() {
    let ca = Running::start(|_| {}).await;
    let mut client = ca.raw().await;
    let stream = client
        .fetch_jwt_bundles(with_header(JwtBundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    for status in [
        fetch(&mut client, &["checkout"], "").await.unwrap_err(),
        validate(&mut client, "checkout", "a.b.c")
            .await
            .unwrap_err(),
        end_of(stream).await,
    ] {
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "no identity issued")
        );
    }
    ca.stop().await;
}

#[tokio::test]
async fn e2_no_method_for_tokens_answers_without_the_header() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    let request = JwtsvidRequest {
        audience: vec!["checkout".into()],
        spiffe_id: String::new(),
    };
    let validation = ValidateJwtsvidRequest {
        audience: "checkout".into(),
        svid: "a.b.c".into(),
    };
    for status in [
        client.fetch_jwtsvid(request).await.unwrap_err(),
        client.validate_jwtsvid(validation).await.unwrap_err(),
        client
            .fetch_jwt_bundles(JwtBundlesRequest {})
            .await
            .unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    ca.stop().await;
}

#[tokio::test]
async fn a2_a9_the_stream_of_keys_begins_at_once_and_ends_with_the_right_to_it() {
    let ca = Running::start(|_| {}).await;
    let (mut launches, mut client) = (ca.launches().await, ca.raw().await);
    let pid = std::process::id();
    launches.register(record(pid, "web")).await.unwrap();
    let mut stream = client
        .fetch_jwt_bundles(with_header(JwtBundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = tokio::time::timeout(Duration::from_secs(5), stream.message()).await;
    assert!(first.unwrap().unwrap().is_some());
    assert!(fetch(&mut client, &["checkout"], "").await.is_ok());
    launches
        .unregister(UnregisterRequest { pid })
        .await
        .unwrap();
    assert_eq!(end_of(stream).await.message(), "no identity issued");
    let status = fetch(&mut client, &["checkout"], "").await.unwrap_err();
    assert_eq!(status.message(), "no identity issued");
    ca.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_keys_so_that_tokens_stay_believed() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let token = fetch(&mut ca.raw().await, &["checkout"], "")
        .await
        .unwrap()
        .svids[0]
        .svid
        .clone();
    let ca = Running::start_in(ca.stop().await, |config| {
        config.registrations = open_house()
    })
    .await;
    assert!(
        validate(&mut ca.raw().await, "checkout", &token)
            .await
            .is_ok()
    );
    ca.stop().await;
}

#[tokio::test]
async fn e5_reflection_describes_the_workload_api() {
    let ca = Running::start(|_| {}).await;
    let mut client = ServerReflectionClient::new(channel(ca.api()).await);
    let ask = |request| {
        futures_util::stream::iter([ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        }])
    };
    let listed = client
        .server_reflection_info(ask(MessageRequest::ListServices(String::new())))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = listed.message_response else {
        panic!("{listed:?}");
    };
    assert!(
        services
            .service
            .iter()
            .any(|one| one.name == "SpiffeWorkloadAPI"),
        "{services:?}"
    );
    let symbol = MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI.FetchJWTSVID".into());
    let described = client
        .server_reflection_info(ask(symbol))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        described.message_response,
        Some(MessageResponse::FileDescriptorResponse(_))
    ));
    ca.stop().await;
}

#[tokio::test]
async fn relying_parties_find_the_keys_that_tokens_name() {
    let address: std::net::SocketAddr = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let issuer = format!("http://{address}");
    let oidc = crate::Oidc {
        listen: address,
        issuer: issuer.clone(),
    };
    let ca = Running::start(|config| {
        config.registrations = open_house();
        config.oidc = Some(oidc);
    })
    .await;
    let token = fetch(&mut ca.raw().await, &["checkout"], "")
        .await
        .unwrap()
        .svids[0]
        .svid
        .clone();
    let document: serde_json::Value = get(address, "/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], issuer);
    assert_eq!(document["jwks_uri"], format!("{issuer}/keys"));
    let keys: serde_json::Value = get(address, "/keys").await;
    assert_eq!(keys["keys"][0]["use"], "sig");
    let header = data_encoding::BASE64URL_NOPAD
        .decode(token.split('.').next().unwrap().as_bytes())
        .unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(keys["keys"][0]["kid"], header["kid"]);
    ca.stop().await;
}

/// The JSON at `path`, by the plainest of clients.
async fn get(address: std::net::SocketAddr, path: &str) -> serde_json::Value {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap()
}
