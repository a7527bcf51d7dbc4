//! One fetch of another domain's bundle: bounded in size and time, without redirects, under the identity that a person
//! named.

use super::error::{FederationError, FetchError};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use mesh_issuance::federation::{EndpointUrl, Profile, Relation};
use mesh_issuance::limits::FOREIGN_BUNDLE_BYTES_MAX;
use mesh_platform::files;
use mesh_trust::bundle::{BundleError, WholeBundle, WholeBundleError};
use mesh_trust::tls::{
    ExpectedPeer, client_config_without_identity, refusal_in_io, server_name, web_client_config,
};
use mesh_trust::{Denials, TrustBundles};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Bytes of a file of roots: those of a whole system have about 200 KiB.
const ROOTS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Fetches the bundle of `relation` within `limit`; `held` is the bundle in force.
///
/// # Errors
/// [`FederationError`]: nothing was given, or it is no bundle of that domain.
pub(crate) async fn fetch(
    relation: &Relation,
    held: Option<&WholeBundle>,
    denials: Arc<Denials>,
    limit: Duration,
) -> Result<WholeBundle, FederationError> {
    let (settings, name) = settings(relation, held, denials)?;
    let document = document(relation.url(), settings, name);
    let document = tokio::time::timeout(limit, document)
        .await
        .map_err(|_elapsed| FetchError::Slow {
            url: relation.url().clone(),
            millis: limit.as_millis(),
        })??;
    read_bundle(relation, &document)
}

/// Reads a bundle of the relation's domain that all of our verifiers can be given.
pub(crate) fn read_bundle(
    relation: &Relation,
    document: &[u8],
) -> Result<WholeBundle, FederationError> {
    let too_large = |bytes| {
        let limit = FOREIGN_BUNDLE_BYTES_MAX;
        WholeBundleError::from(BundleError::TooLarge { bytes, limit })
    };
    if document.len() > FOREIGN_BUNDLE_BYTES_MAX {
        return Err(too_large(document.len()).into());
    }
    let bundle = WholeBundle::from_json(relation.domain().clone(), document)?;
    // As it will travel in the map of all bundles.
    let travels = bundle.x509().to_json().len();
    if travels > FOREIGN_BUNDLE_BYTES_MAX {
        return Err(too_large(travels).into());
    }
    Ok(bundle)
}

/// How the endpoint must prove who it is.
fn settings(
    relation: &Relation,
    held: Option<&WholeBundle>,
    denials: Arc<Denials>,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), FetchError> {
    match relation.profile() {
        Profile::HttpsSpiffe { endpoint_id } => {
            let anchors = held.map(WholeBundle::x509);
            let anchors = anchors.filter(|bundle| !bundle.anchors().is_empty());
            let anchors = anchors.ok_or_else(|| FetchError::NoAnchors {
                domain: relation.domain().clone(),
            })?;
            let bundles = TrustBundles::from(anchors.clone()).with_denials(denials);
            let expected = ExpectedPeer::OneOf(Arc::from([endpoint_id.clone()]));
            let settings =
                client_config_without_identity(Arc::new(bundles), expected, &[b"http/1.1"])?;
            Ok((settings, server_name()))
        }
        Profile::HttpsWeb { roots } => {
            let host = relation.url().host();
            let host = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host);
            let name = ServerName::try_from(host.to_owned());
            let name = name.map_err(|error| FetchError::Connect {
                url: relation.url().clone(),
                why: error.to_string(),
            })?;
            Ok((web_client_config(read_roots(roots)?)?, name))
        }
    }
}

/// The certificates of a file of roots.
pub(crate) fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, FetchError> {
    let failed = |why: String| FetchError::Roots {
        path: path.to_owned(),
        why,
    };
    if !path.is_absolute() {
        return Err(failed("it is no absolute path".to_owned()));
    }
    let pem = files::read_limited(path, ROOTS_BYTES_MAX).map_err(|e| failed(e.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let read = read.map_err(|error| failed(error.to_string()))?;
    if read.is_empty() {
        return Err(failed("it has no `BEGIN CERTIFICATE` block".to_owned()));
    }
    Ok(read)
}

async fn document(
    url: &EndpointUrl,
    settings: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Bytes, FetchError> {
    let stream = connect(url).await.map_err(|error| FetchError::Connect {
        url: url.clone(),
        why: error.to_string(),
    })?;
    let stream = TlsConnector::from(settings).connect(name, stream).await;
    let stream = stream.map_err(|error| FetchError::Identity {
        url: url.clone(),
        why: refusal_in_io(&error).map_or_else(|| error.to_string(), ToString::to_string),
    })?;
    let broken = |error: &dyn Error| FetchError::Protocol {
        url: url.clone(),
        why: error.to_string(),
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    // Ends with this function, however that ends.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let request = Request::get(url.path())
        .header(header::HOST, authority(url))
        .header(header::ACCEPT, "application/json")
        .header(
            header::USER_AGENT,
            concat!("mesh/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| broken(&error))?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status {
            url: url.clone(),
            status: response.status().as_u16(),
        });
    }
    let body = Limited::new(response.into_body(), FOREIGN_BUNDLE_BYTES_MAX);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(FetchError::TooLarge { url: url.clone() })
        }
        Err(error) => Err(broken(&*error)),
    }
}

/// Tries every address of the endpoint's host.
async fn connect(url: &EndpointUrl) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host(format!("{}:{}", url.host(), url.port())).await?;
    let mut failure = io::Error::other("its name has no address");
    for address in found {
        if let Err(why) = check(address) {
            failure = io::Error::other(format!("{}: {why}", address.ip()));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Refuses addresses at which no endpoint of another organisation is, but what clouds keep their secrets at. Loopback may
/// be: only whoever runs the CA names endpoints, and two meshes may share a machine.
fn check(address: SocketAddr) -> Result<(), &'static str> {
    let ip = address.ip().to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if link_local => Err("a link-local address is not fetched from"),
        ip if ip.is_unspecified() || ip.is_multicast() => Err("not the address of one host"),
        _ => Ok(()),
    }
}

fn authority(url: &EndpointUrl) -> String {
    match url.port() {
        443 => url.host().to_owned(),
        port => format!("{}:{port}", url.host()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_no_other_organisation_are_not_fetched_from() {
        for bad in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:443",
            "0.0.0.0:443",
            "[::]:443",
            "224.0.0.1:443",
            "255.255.255.255:443",
        ] {
            assert!(check(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in ["127.0.0.1:8443", "10.0.0.1:443", "[2001:db8::1]:443"] {
            assert!(check(good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
