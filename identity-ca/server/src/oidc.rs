//! OpenID Connect discovery for JWT-SVIDs: relying parties outside of SPIFFE (clouds, gateways) find the keys here.
//!
//! Plain HTTP on an address that was opted into, for a TLS-terminating server in front of it: what is served is public,
//! and relying parties fetch it by the `https` address that tokens name as their issuer.

use crate::error::CaError;
use crate::limits::{OIDC_CONNECTIONS_MAX, OIDC_HEAD_TIMEOUT, OIDC_ISSUER_BYTES_MAX};
use crate::public_http::{self, plain};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, header};
use mesh_trust::jwt::JwtBundle;
use mesh_trust::quoted::Quoted;
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";
/// How long readers may keep the keys, seconds: far below the day for which a key is published before it signs.
const MAX_AGE: &str = "max-age=300";

/// Where keys are served, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// The issuer: what tokens carry as `iss`, `https://host[/path]`.
    pub issuer: String,
}

impl Oidc {
    /// Refuses an issuer that relying parties would read differently.
    ///
    /// # Errors
    /// [`CaError::OidcIssuer`].
    pub(crate) fn check(&self) -> Result<(), CaError> {
        let rest = self
            .issuer
            .strip_prefix("https://")
            .or_else(|| self.issuer.strip_prefix("http://"));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:[]".contains(&byte);
        let holds = self.issuer.len() <= OIDC_ISSUER_BYTES_MAX
            && !self.issuer.ends_with('/')
            && rest.is_some_and(|rest| !rest.starts_with(['/', ':']) && rest.bytes().all(plain));
        if holds {
            Ok(())
        } else {
            Err(CaError::OidcIssuer {
                issuer: Quoted::new(&self.issuer),
            })
        }
    }
}

/// Serves until the task is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    issuer: Arc<str>,
    keys: watch::Receiver<Arc<JwtBundle>>,
) -> Infallible {
    let places = Arc::new(Semaphore::new(OIDC_CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return std::future::pending().await;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for JWT keys");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (issuer, keys) = (issuer.clone(), keys.clone());
        tokio::spawn(async move {
            public_http::answer_one(stream, OIDC_HEAD_TIMEOUT, move |request| {
                answer(request, &issuer, &keys.borrow().clone())
            })
            .await;
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, issuer: &str, keys: &JwtBundle) -> Response<Full<Bytes>> {
    let body = match request.uri().path() {
        DISCOVERY => json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}{KEYS}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
        .to_string(),
        KEYS => keys.to_public_json(),
        _ => return plain(StatusCode::NOT_FOUND),
    };
    if !public_http::is_read(request) {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut response = public_http::json(Bytes::from(body));
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static(MAX_AGE),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::domain;
    use hyper::Method;
    use mesh_trust::jwt::JwtKey;

    fn bundle() -> JwtBundle {
        let (_, key) = crate::signer::generate().unwrap();
        JwtBundle::new(domain()).with_key("k1", JwtKey::from_p256_point(key.point()).unwrap())
    }

    fn ask(method: Method, path: &str) -> Response<Full<Bytes>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap();
        answer(&request, "https://oidc.example", &bundle())
    }

    #[test]
    fn only_two_paths_are_served_and_only_to_readers() {
        for (method, path, status) in [
            (Method::GET, DISCOVERY, 200),
            (Method::GET, KEYS, 200),
            (Method::HEAD, KEYS, 200),
            (Method::GET, "/keys?x=1", 200),
            (Method::POST, KEYS, 405),
            (Method::DELETE, DISCOVERY, 405),
            (Method::GET, "/", 404),
            (Method::GET, "/keys/", 404),
            (Method::GET, "/KEYS", 404),
            (Method::GET, "/../keys", 404),
        ] {
            assert_eq!(
                ask(method.clone(), path).status(),
                status,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn issuers_that_could_be_read_in_two_ways_are_refused() {
        let check = |issuer: &str| {
            let listen = "127.0.0.1:1".parse().unwrap();
            let issuer = issuer.to_owned();
            Oidc { listen, issuer }.check().is_ok()
        };
        for good in [
            "https://oidc.example",
            "https://oidc.example:8443/mesh",
            "http://127.0.0.1:80",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "",
            "oidc.example",
            "ftp://oidc.example",
            "https://",
            "https:///x",
            "https://oidc.example/",
            "https://oidc.example?x",
            "https://oidc.example#x",
            "https://user@oidc.example",
            "https://oidc.example/a b",
            "https://oidc.example/%2e",
            &format!("https://{}", "x".repeat(OIDC_ISSUER_BYTES_MAX)),
        ] {
            assert!(!check(bad), "{bad}");
        }
    }
}
