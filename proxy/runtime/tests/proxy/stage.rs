//! A service with routes on a stage: `web` calls it through two proxies, the applications behind it follow scripts and
//! keep what they receive.

use super::world::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// What an application does with one request.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Status(u16),
    /// A gRPC answer without messages.
    Grpc(&'static str),
    /// 200, after a while.
    Slow(Duration),
    /// Ends the connection without an answer.
    Close,
    /// Becomes a WebSocket that echoes bytes.
    Switch,
}

/// An application that follows its script, then answers 200, and keeps what it received.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) script: Arc<Mutex<VecDeque<Step>>>,
    pub(crate) received: Arc<Mutex<Vec<Received>>>,
    /// Slow requests whose client did not wait for them.
    given_up: Arc<AtomicUsize>,
}

/// One slow request.
struct Waiting {
    given_up: Arc<AtomicUsize>,
    done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// `METHOD path`.
    pub(crate) line: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Origin {
    pub(crate) async fn start(name: &'static str, at: SocketAddr, http2: bool) -> Self {
        let origin = Self {
            name,
            script: Arc::default(),
            received: Arc::default(),
            given_up: Arc::default(),
        };
        let listener = TcpListener::bind(at).await.expect("an address");
        let serving = origin.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (origin, io) = (serving.clone(), TokioIo::new(stream));
                let service = hyper::service::service_fn(move |request| {
                    let origin = origin.clone();
                    async move { origin.answer(request).await }
                });
                if http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(builder.serve_connection(io, service));
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(builder.serve_connection(io, service).with_upgrades());
                }
            }
        });
        origin
    }

    async fn answer(self, mut request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let upgrading = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        self.received.lock().expect("no panic").push(Received {
            line: format!(
                "{} {}",
                parts.method,
                parts.uri.path_and_query().map_or("", |p| p.as_str())
            ),
            headers: parts.headers,
            body,
        });
        let step = self.script.lock().expect("no panic").pop_front();
        let mut response = Response::new(Full::new(Bytes::from(self.name)));
        match step {
            None => {}
            Some(Step::Status(status)) => {
                *response.status_mut() = status.try_into().expect("a status");
            }
            Some(Step::Grpc(code)) => {
                let headers = response.headers_mut();
                headers.insert("content-type", "application/grpc".parse().expect("a value"));
                headers.insert("grpc-status", code.parse().expect("a value"));
                *response.body_mut() = Full::default();
            }
            Some(Step::Slow(wait)) => {
                let mut waiting = Waiting {
                    given_up: self.given_up.clone(),
                    done: false,
                };
                tokio::time::sleep(wait).await;
                waiting.done = true;
            }
            Some(Step::Switch) => {
                *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                *response.body_mut() = Full::default();
                let headers = response.headers_mut();
                headers.insert("connection", "upgrade".parse().expect("a value"));
                headers.insert("upgrade", "websocket".parse().expect("a value"));
                tokio::spawn(async move {
                    let stream = TokioIo::new(upgrading.await.expect("an upgrade"));
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
            Some(Step::Close) => return Err(io::ErrorKind::ConnectionReset.into()),
        }
        response
            .headers_mut()
            .insert("x-app", self.name.parse().expect("a value"));
        Ok(response)
    }

    pub(crate) fn will(&self, steps: &[Step]) {
        self.script.lock().expect("no panic").extend(steps);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    pub(crate) fn given_up(&self) -> usize {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) -> usize {
        self.received.lock().expect("no panic").len()
    }
}

/// The service `echo` with routes, the services `v1` and `v2` in the mesh, `outside` without a proxy, `empty` without
/// anybody. `web` calls `echo`.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) v1: Origin,
    pub(crate) v2: Origin,
    pub(crate) outside: Origin,
}

pub(crate) const PORTS: [u16; 2] = [8081, 8082];

pub(crate) fn policy() -> String {
    let server = |port: &u16| {
        format!(
            "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{ name: port-{port}, namespace: shop }}
spec:
  podSelector: {{ matchLabels: {{ app: cart }} }}
  port: {port}
  proxyProtocol: unknown
  accessPolicy: all-authenticated
---
"
        )
    };
    PORTS.iter().map(server).collect()
}

pub(crate) fn every() -> Value {
    prefix("/")
}

pub(crate) fn prefix(path: &str) -> Value {
    json!({"path": {"prefix": path}, "method": null, "headers": [], "query": []})
}

pub(crate) fn to(name: &str, weight: u32) -> Value {
    json!({"namespace": "shop", "name": name, "port": 80, "weight": weight})
}

pub(crate) fn route(rules: Value) -> Value {
    json!([{"kind": "HTTPRoute", "namespace": "shop", "name": "r", "created": null, "rules": rules, "source": {"builtIn": "test"}}])
}

impl Stage {
    pub(crate) async fn new(routes: Value) -> Self {
        Self::speaking(routes, false).await
    }

    pub(crate) async fn speaking(routes: Value, http2: bool) -> Self {
        Self::with(&json!({"routes": routes}), http2).await
    }

    /// One where `echo` has these fields from the beginning.
    pub(crate) async fn with(of_echo: &Value, http2: bool) -> Self {
        let mut world = World::new(&policy());
        world.discovers = true;
        let stage_v1 = Origin::start("v1", world.address(2, 8081), http2).await;
        let stage_v2 = Origin::start("v2", world.address(2, 8082), http2).await;
        let outside = Origin::start("outside", world.address(3, 8083), http2).await;
        world.write_svid("cart", &world.authority.svid(CART));
        world.write_svid("web", &world.authority.svid(WEB));
        write_services(&world, of_echo, &json!({}));
        let ports = PORTS.map(|port| {
            format!(
                "{{ listen: \"{}\", port: {port}, app: \"{}\" }}",
                world.address(1, port),
                world.address(2, port)
            )
        });
        let inbound = format!(
            "inbound:\n  mesh: {}\n  ports: [{}]\n",
            world.cart_mesh(),
            ports.join(", ")
        );
        world.start("cart", &inbound, world.address(1, 15020));
        let outbound = format!(
            "inbound:\n  mesh: {}\noutbound:\n- {{ listen: \"{}\", service: \"shop/echo:80\" }}\n",
            world.address(11, 15008),
            world.web_to_cart()
        );
        world.start("web", &outbound, world.address(11, 15020));
        Self {
            world,
            v1: stage_v1,
            v2: stage_v2,
            outside,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        get(self.world.web_to_cart(), path).await
    }

    /// One request with these header lines and this body.
    pub(crate) async fn send(&self, line: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(self.world.web_to_cart(), request.as_bytes()).await
    }

    /// The sum of a proxy's counter over all series with these labels.
    pub(crate) async fn counted(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let socket = self.world.path("web/admin.sock");
        let text = mesh_api::admin::get(&socket, "/metrics")
            .await
            .expect("metrics");
        let text = String::from_utf8(text).expect("text");
        let samples = mesh_proxy_core::exposition::parse(&text).expect("samples");
        let wanted = samples.iter().filter(|sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.label(label) == *value)
        });
        wanted.map(|sample| sample.value).sum()
    }
}

pub(crate) fn write_discovery(world: &World, routes: &Value, accrual: &Value) {
    let v1 = match accrual.is_null() {
        true => json!({}),
        false => json!({"failure_accrual": accrual}),
    };
    write_services(world, &json!({"routes": routes}), &v1);
}

/// The services, with further fields of `echo` and `v1`.
pub(crate) fn write_services(world: &World, of_echo: &Value, of_v1: &Value) {
    let endpoint = |port: u16| json!({"proxy": world.cart_mesh(), "port": port, "identity": CART, "workload": "cart"});
    let service = |name: &str, endpoints: Value| json!({"namespace": "shop", "name": name, "port": 80, "protocol": "detect", "endpoints": endpoints});
    let mut echo = service("echo", json!([endpoint(8081), endpoint(8082)]));
    let mut v1 = service("v1", json!([endpoint(8081)]));
    for (service, fields) in [(&mut echo, of_echo), (&mut v1, of_v1)] {
        for (name, value) in fields.as_object().expect("fields") {
            service[name] = value.clone();
        }
    }
    let mut outside = service("outside", json!([]));
    outside["unmeshed"] = json!([world.address(3, 8083)]);
    let services = [
        echo,
        v1,
        service("v2", json!([endpoint(8082)])),
        service("empty", json!([])),
        outside,
    ];
    let path = world.path("discovery.json");
    let text = json!({"services": services, "zone": "a"}).to_string();
    std::fs::write(path.with_extension("new"), text).expect("a file");
    std::fs::rename(path.with_extension("new"), path).expect("a rename");
}

/// The application that answered.
pub(crate) fn app(answer: &str) -> &str {
    let after = answer
        .split_once("x-app: ")
        .map_or("nobody", |(_, after)| after);
    after.split("\r\n").next().unwrap_or_default()
}

pub(crate) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.split("\r\n");
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
