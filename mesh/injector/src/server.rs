//! The webhooks' socket: TLS, HTTP/1.1, one AdmissionReview in, one out. Nothing is kept from one review to the next.

use crate::InjectorError;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTIONS_EACH_MAX, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT,
    NAMESPACE_TIMEOUT, REVIEW_TIMEOUT,
};
use crate::state::Shared;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_cluster::admission::{self, REVIEW_BYTES_MAX, Review};
use mesh_cluster::inject::{Namespace, Outcome, Skip};
use mesh_kubernetes::namespace;
use mesh_policy::snapshot::Severity;
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Serves without end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Places::default();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip().to_canonical()),
            Err(error) => {
                // Out of descriptors, most often: others must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take(from) else {
            tracing::debug!(%from, "too many connections");
            continue;
        };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            connection(stream, acceptor, shared).await;
            drop(place);
        });
    }
}

/// Connections, by the address that they come from.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; given back when dropped.
struct Place {
    places: Places,
    from: IpAddr,
}

impl Places {
    /// One more of `from`, unless it or all together have enough.
    fn take(&self, from: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, all) = (
            counts.get(&from).copied().unwrap_or(0),
            counts.values().sum::<usize>(),
        );
        if own >= CONNECTIONS_EACH_MAX || all >= CONNECTIONS_MAX {
            return None;
        }
        counts.insert(from, own + 1);
        Some(Place {
            places: self.clone(),
            from,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            return;
        }
        Err(_elapsed) => return,
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let begun = shared.platform.monotonic();
    let path = request.uri().path().to_owned();
    if request.method() != Method::POST || !["/inject", "/validate"].contains(&path.as_str()) {
        return text(StatusCode::NOT_FOUND, "POST /inject, POST /validate\n");
    }
    let reviewed = timeout(REVIEW_TIMEOUT, async {
        let body = Limited::new(request.into_body(), REVIEW_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|_| text(StatusCode::PAYLOAD_TOO_LARGE, "too long, or broken off\n"))?
            .to_bytes();
        let request = Review::read(&body).map_err(|error| {
            shared.counts.add(&shared.counts.unreadable);
            tracing::warn!(code = "MESH-0736", "{error}");
            text(StatusCode::BAD_REQUEST, &format!("{error}\n"))
        })?;
        Ok(if path == "/inject" {
            inject(&request, shared).await
        } else {
            validate(&request, shared)
        })
    });
    let response = match reviewed.await {
        Ok(Ok(answer)) => json(&answer),
        Ok(Err(refusal)) => refusal,
        Err(_elapsed) => text(StatusCode::GATEWAY_TIMEOUT, "the review took too long\n"),
    };
    shared.counts.took(shared.platform.monotonic().since(begun));
    response
}

async fn inject(request: &admission::Request, shared: &Shared) -> Value {
    let counts = &shared.counts;
    let namespace = match namespace_of(&request.namespace, shared).await {
        Ok(namespace) => namespace,
        Err(error) => {
            counts.add(&counts.undecided);
            tracing::warn!(code = "MESH-0752", "{error}");
            return admission::undecided(request, &error);
        }
    };
    let (answer, decision) = admission::mutate(request, &namespace, &shared.config.settings);
    let (count, word, why) = match &decision.outcome {
        Outcome::Inject(_) => (&counts.injected, "injected", None),
        Outcome::Skip(Skip::NotAsked) => (&counts.not_asked, Skip::NotAsked.word(), None),
        Outcome::Skip(Skip::Disabled) => (&counts.disabled, Skip::Disabled.word(), None),
        Outcome::Skip(Skip::AlreadyInjected) => {
            (&counts.already, Skip::AlreadyInjected.word(), None)
        }
        Outcome::Refuse(refusal) => (&counts.refused, "refused", Some(refusal.to_string())),
    };
    counts.add(count);
    let name = |path| request.object.pointer(path).and_then(Value::as_str);
    let pod = name("/metadata/name")
        .or_else(|| name("/metadata/generateName"))
        .unwrap_or_default();
    tracing::info!(
        namespace = request.namespace,
        pod,
        outcome = word,
        why,
        warnings = decision.warnings.join("; "),
        "pod"
    );
    answer
}

/// The namespace as the API server has it now. Not from a cache: a pod that is made right after its namespace was annotated
/// must not slip through, and pods are made seldom enough to ask.
async fn namespace_of(name: &str, shared: &Shared) -> Result<Namespace, InjectorError> {
    let error = |why: String| InjectorError::Namespace {
        namespace: name.to_owned(),
        why,
    };
    let marks = match timeout(NAMESPACE_TIMEOUT, namespace::marks(&shared.client, name)).await {
        Ok(marks) => marks.map_err(|e| error(e.to_string()))?,
        Err(_elapsed) => {
            return Err(error(format!(
                "no answer within {} s",
                NAMESPACE_TIMEOUT.as_secs()
            )));
        }
    };
    Ok(Namespace {
        name: name.to_owned(),
        annotations: marks.annotations,
        labels: marks.labels,
    })
}

fn validate(request: &admission::Request, shared: &Shared) -> Value {
    let (answer, findings) = admission::validate(request);
    let denied = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    let counts = &shared.counts;
    counts.add(if denied {
        &counts.policies_denied
    } else {
        &counts.policies_allowed
    });
    answer
}

fn json(value: &Value) -> Response<Full<Bytes>> {
    with_type(StatusCode::OK, "application/json", value.to_string())
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", text.to_owned())
}

pub(crate) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let places = Places::default();
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<Place> = (0..CONNECTIONS_EACH_MAX)
            .filter_map(|_| places.take(greedy))
            .collect();
        assert_eq!(held.len(), CONNECTIONS_EACH_MAX);
        assert!(places.take(greedy).is_none());
        assert!(places.take(other).is_some());
        held.pop();
        assert!(
            places.take(greedy).is_some(),
            "a place that is given back is free"
        );
    }

    #[test]
    fn all_together_have_a_bound_too_and_nothing_is_kept_of_those_who_left() {
        let places = Places::default();
        let held: Vec<Place> = (0..u32::MAX)
            .map_while(|n| places.take(IpAddr::from(n.to_be_bytes())))
            .collect();
        assert_eq!(held.len(), CONNECTIONS_MAX);
        drop(held);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
