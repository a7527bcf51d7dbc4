//! An API server for tests: it stores objects, lists and watches them, and takes patches. It checks nothing.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_kubernetes::Client;
use mesh_platform::files;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

type Body = BoxBody<Bytes, Infallible>;

/// Where an object lies: group and version with the plural, and namespace with the name.
type Place = (String, String);

/// The server. Cheap to clone.
#[derive(Clone)]
pub(super) struct TestApi {
    objects: Arc<Mutex<BTreeMap<Place, Value>>>,
    /// Every change: its place and event. The revision of each is its index plus one.
    history: Arc<Mutex<Vec<(Place, Value)>>>,
    revision: Arc<watch::Sender<usize>>,
    /// Patches to come that fail.
    pub(super) failing: Arc<AtomicUsize>,
    /// Patches that were taken.
    pub(super) patches: Arc<AtomicUsize>,
    /// Whether questions about the guard of user names get no answer.
    pub(super) stalled: Arc<AtomicBool>,
}

impl TestApi {
    pub(super) fn new() -> Self {
        Self {
            objects: Arc::default(),
            history: Arc::default(),
            revision: Arc::new(watch::Sender::new(0)),
            failing: Arc::default(),
            patches: Arc::default(),
            stalled: Arc::default(),
        }
    }

    /// Stores an object under `apis/…/plural`, or replaces it.
    pub(super) fn put(&self, kind: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let place = (kind.to_owned(), key(namespace.as_deref(), &name));
        let mut history = self.history.lock().unwrap();
        object["metadata"]["resourceVersion"] = json!((history.len() + 1).to_string());
        let old = self
            .objects
            .lock()
            .unwrap()
            .insert(place.clone(), object.clone());
        let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
        history.push((place, json!({ "type": event, "object": object })));
        self.revision.send_replace(history.len());
    }

    pub(super) fn remove(&self, kind: &str, namespace: Option<&str>, name: &str) {
        let place = (kind.to_owned(), key(namespace, name));
        let object = self.objects.lock().unwrap().remove(&place).unwrap();
        let mut history = self.history.lock().unwrap();
        history.push((place, json!({ "type": "DELETED", "object": object })));
        self.revision.send_replace(history.len());
    }

    pub(super) fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        let place = (kind.to_owned(), key(namespace, name));
        self.objects.lock().unwrap().get(&place).cloned()
    }

    /// Waits until an object is as it should be.
    pub(super) async fn until(
        &self,
        (kind, namespace, name): (&str, Option<&str>, &str),
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut revision = self.revision.subscribe();
        let found = async {
            loop {
                revision.borrow_and_update();
                if let Some(object) = self.get(kind, namespace, name).filter(|o| is(o)) {
                    return object;
                }
                revision.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| panic!("{name} is {:?}", self.get(kind, namespace, name)))
    }

    /// Serves on loopback, and a client of it.
    pub(super) async fn serve(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let this = this.clone();
                        async move { Ok::<_, Infallible>(this.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{ "name": "t", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "t", "user": {} }],
            "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
        });
        files::write_atomic(&file, config.to_string().as_bytes(), 0o600).unwrap();
        mesh_kubernetes::connect(Some(&file), None).await.unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().trim_matches('/').to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let (prefix, rest) = match parts.split_first() {
            Some((&"api", _)) => parts.split_at(2),
            _ if parts.len() <= 3 => return self.resources(&path),
            _ => parts.split_at(3),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let kind = |plural: &str| format!("{}/{plural}", prefix.join("/"));
        match (request.method().clone(), rest) {
            (Method::GET, [plural]) if query.contains("watch=true") => {
                self.watch(kind(plural), &query)
            }
            (Method::GET, [plural]) => self.list(&kind(plural), &query),
            (Method::GET, ["validatingadmissionpolicies", _])
                if self.stalled.load(Ordering::SeqCst) =>
            {
                std::future::pending().await
            }
            (Method::GET, [plural, name]) => match self.get(&kind(plural), namespace, name) {
                Some(object) => json_body(StatusCode::OK, &object),
                None => failure(StatusCode::NOT_FOUND),
            },
            (Method::PATCH, [plural, name, ..]) => {
                let patch = request.into_body().collect().await.unwrap().to_bytes();
                let patch: Value = serde_json::from_slice(&patch).unwrap();
                self.patch(&kind(plural), (namespace, name), &patch)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    /// Which kinds a group has: those of which there ever was an object, with their statuses.
    fn resources(&self, path: &str) -> Response<Body> {
        let history = self.history.lock().unwrap();
        let prefix = format!("{path}/");
        let mut plurals: Vec<&str> = history
            .iter()
            .filter_map(|((kind, _), _)| kind.strip_prefix(&prefix))
            .collect();
        plurals.dedup();
        if plurals.is_empty() {
            return failure(StatusCode::NOT_FOUND);
        }
        let resources: Vec<Value> = plurals
            .iter()
            .map(|name| json!({ "name": name, "singularName": "", "kind": "X", "namespaced": true, "verbs": [] }))
            .collect();
        let list = json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "x/v1", "resources": resources });
        json_body(StatusCode::OK, &list)
    }

    fn list(&self, kind: &str, query: &str) -> Response<Body> {
        let revision = self.history.lock().unwrap().len();
        let objects = self.objects.lock().unwrap();
        let items: Vec<&Value> = objects
            .iter()
            .filter(|((of, key), _)| of == kind && is_meant(key, query))
            .map(|(_, object)| object)
            .collect();
        let list = json!({
            "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": { "resourceVersion": revision.to_string() },
        });
        json_body(StatusCode::OK, &list)
    }

    fn watch(&self, kind: String, query: &str) -> Response<Body> {
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="));
        let mut told: usize = from.unwrap_or("0").parse().unwrap();
        let (this, query) = (self.clone(), query.to_owned());
        let (out, frames) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut revision = this.revision.subscribe();
            loop {
                revision.borrow_and_update();
                let news: Vec<_> = this.history.lock().unwrap()[told..].to_vec();
                told += news.len();
                for ((of, key), event) in news {
                    if of == kind && is_meant(&key, &query) {
                        let line = Bytes::from(format!("{event}\n"));
                        if out.send(Ok(Frame::data(line))).await.is_err() {
                            return;
                        }
                    }
                }
                if revision.changed().await.is_err() {
                    return;
                }
            }
        });
        Response::new(StreamBody::new(ReceiverStream::new(frames)).boxed())
    }

    fn patch(
        &self,
        kind: &str,
        (namespace, name): (Option<&str>, &str),
        patch: &Value,
    ) -> Response<Body> {
        let fails = self
            .failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if fails.is_ok() {
            return failure(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let old = self.get(kind, namespace, name);
        let wanted = patch.pointer("/metadata/resourceVersion");
        if let (Some(old), Some(wanted)) = (&old, wanted)
            && old.pointer("/metadata/resourceVersion") != Some(wanted)
        {
            return failure(StatusCode::CONFLICT);
        }
        let mut object = match old {
            Some(object) => object,
            None if patch.get("spec").is_some() => patch.clone(),
            None => return failure(StatusCode::NOT_FOUND),
        };
        merge(&mut object, patch);
        self.patches.fetch_add(1, Ordering::SeqCst);
        self.put(kind, object);
        json_body(StatusCode::OK, &self.get(kind, namespace, name).unwrap())
    }
}

fn key(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

/// Whether a field selector of one name, if there is one, selects this.
fn is_meant(key: &str, query: &str) -> bool {
    match query
        .split('&')
        .find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name"))
    {
        Some(name) => {
            let name = name.trim_start_matches("%3D").trim_start_matches('=');
            key.rsplit('/').next() == Some(&name.replace("%3A", ":"))
        }
        None => true,
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (field, value) in patch {
        merge(&mut object[field], value);
    }
}

fn json_body(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed());
    *response.status_mut() = status;
    response
}

fn failure(status: StatusCode) -> Response<Body> {
    let value = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "as the test says", "reason": "Test", "code": status.as_u16(),
    });
    json_body(status, &value)
}
