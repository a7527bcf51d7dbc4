//! The three ways in on which HTTP/1 is read, an application that keeps every byte, and what must hold of a refusal at
//! all of them: at the application, for the client, in the records, in the metrics.

use super::identity;
use super::world::*;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A way to the application of `cart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Straight to its proxy, without a proxy of the client.
    Plain,
    /// From the application `web`, through both proxies.
    Outbound,
    /// As a peer's proxy that says HTTP/1 will follow, as for an upgrade.
    Mesh,
}

pub(crate) const WAYS: [Way; 3] = [Way::Plain, Way::Outbound, Way::Mesh];

/// A mesh header: HTTP/1 follows, for port 8080.
const HTTP1_8080: &[u8] = b"MESH\x01\x0c\x03\x00\x1f\x90\x00\x00";

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An HTTP/1.1 application that answers every whole request with `ok`, and keeps all bytes that it ever received.
#[derive(Clone)]
pub(crate) struct Application(Arc<Mutex<Vec<u8>>>);

impl Application {
    pub(crate) async fn start(at: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.expect("an address");
        let application = Self(Arc::default());
        let received = application.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(received.clone().serve(stream));
            }
        });
        application
    }

    async fn serve(self, mut stream: TcpStream) {
        let (mut unread, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            unread.extend_from_slice(&piece[..count]);
            self.0
                .lock()
                .expect("no panic")
                .extend_from_slice(&piece[..count]);
            while let Some(length) = whole_request(&unread) {
                unread.drain(..length);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Everything so far.
    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

/// Length of the request at the beginning, if all of it is there. Our own proxies frame exactly.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let find = |text: &[u8], within: &[u8]| within.windows(text.len()).position(|w| w == text);
    let head = find(b"\r\n\r\n", bytes)? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let end = match length {
        Some(length) => head + length.parse::<usize>().expect("a number"),
        None if text.contains("transfer-encoding: chunked") => {
            head + find(b"0\r\n\r\n", &bytes[head..])? + 5
        }
        None => head,
    };
    (bytes.len() >= end).then_some(end)
}

/// Both proxies, an application, and a policy that lets everybody in: what does not reach the application was refused.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) application: Application,
    svid: SvidPem,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let mut stage = Self::without_application();
        stage.application = Application::start(stage.world.cart_app()).await;
        stage
    }

    /// The same, for an application of the test's own.
    pub(crate) fn without_application() -> Self {
        let open = "proxyProtocol: HTTP/1\n  accessPolicy: all-unauthenticated\n";
        let policy = cart_policy("HTTP/1", &[WEB]).replace("proxyProtocol: HTTP/1\n", open);
        let world = World::running(&policy);
        let svid = world.authority.svid(WEB);
        Self {
            world,
            application: Application(Arc::default()),
            svid,
        }
    }

    pub(crate) async fn connect(&self, way: Way) -> Box<dyn Stream> {
        let tcp = async |to| TcpStream::connect(to).await.expect("a connection");
        match way {
            Way::Plain => Box::new(tcp(self.world.cart_plain()).await),
            Way::Outbound => Box::new(tcp(self.world.web_to_cart()).await),
            Way::Mesh => Box::new(identity::connect(&self.world, &self.svid, HTTP1_8080).await),
        }
    }

    /// Sends the segments one after the other and reads to the end; an error counts as the end.
    pub(crate) async fn send(&self, way: Way, segments: &[&[u8]]) -> String {
        let (mut reader, mut writer) = tokio::io::split(self.connect(way).await);
        let write = async {
            for segment in segments {
                if writer.write_all(segment).await.is_err() || writer.flush().await.is_err() {
                    break; // refused and closed meanwhile
                }
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        };
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), reader.read_to_end(&mut answer));
        let (_, read) = tokio::join!(write, read);
        drop(read.expect("an end within ten seconds"));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// How many denials in phase `request` a proxy counted with this status and reason.
    pub(crate) async fn counted(&self, workload: &str, status: u16, reason: &str) -> u64 {
        let socket = self.world.path(&format!("{workload}/admin.sock"));
        let metrics = mesh_api::admin::get(&socket, "/metrics")
            .await
            .expect("an answer");
        let metrics = String::from_utf8(metrics).expect("text");
        let wanted = [
            "phase=\"request\"",
            &format!("status=\"{status}\""),
            &format!("reason=\"{reason}\""),
        ];
        let lines = metrics.lines().filter(|line| {
            line.starts_with("mesh_denied_total{") && wanted.iter().all(|part| line.contains(part))
        });
        lines
            .map(|line| {
                line.rsplit(' ')
                    .next()
                    .expect("a value")
                    .parse::<u64>()
                    .expect("a count")
            })
            .sum()
    }

    /// The denials that a proxy recorded, after its end.
    pub(crate) fn denials(&mut self, workload: &str) -> Vec<serde_json::Value> {
        let mut records = self.world.records(workload);
        records.retain(|record| record["verdict"] == "deny");
        records
    }
}

/// A request that must be refused: what it is, its bytes, the answer's status, and the word in the metric.
pub(crate) struct Bad<'a>(
    pub(crate) &'a str,
    pub(crate) &'a [u8],
    pub(crate) u16,
    pub(crate) &'a str,
);

/// Sends each request on every way, alone in one segment, in two, and behind a good one; each must be refused with
/// nothing of it at the application, one answer that closes the connection, one record and one count.
pub(crate) async fn assert_refused(requests: &[Bad<'_>]) {
    let mut stage = Stage::new().await;
    let mut counts = std::collections::BTreeMap::new();
    for Bad(name, bytes, want, reason) in requests {
        let mut times = 0;
        for way in WAYS {
            let middle = bytes.len() / 2;
            let cuts: &[&[&[u8]]] = if has_body(bytes) {
                &[&[bytes]] // once its head is through, a body can only be broken off
            } else {
                &[&[bytes], &[&bytes[..middle], &bytes[middle..]]]
            };
            for segments in cuts {
                times += 1;
                let answer = stage.send(way, segments).await;
                let shown = format!("{name} {way:?} in {}: {answer:?}", segments.len());
                assert_eq!(status(&answer), want.to_string(), "{shown}");
                assert!(answer.contains("connection: close\r\n"), "{shown}");
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown}");
                assert_eq!(stage.application.received(), "", "{shown}");
            }
        }
        *counts.entry((*want, *reason)).or_insert(0) += times;
    }
    for ((status, reason), times) in &counts {
        let cart = stage.counted("cart", *status, reason).await;
        let web = stage.counted("web", *status, reason).await;
        assert_eq!((cart, web), (times / 3 * 2, times / 3), "{status} {reason}");
    }
    let total = counts.values().sum::<u64>() as usize;
    for (workload, share) in [("cart", total / 3 * 2), ("web", total / 3)] {
        let denials = stage.denials(workload);
        assert_eq!(denials.len(), share, "{workload}: {denials:?}");
        denials.iter().for_each(assert_refusal_record);
    }
    assert!(
        stage
            .world
            .cart_records()
            .iter()
            .all(|record| record["verdict"] == "deny")
    );
}

/// Settled reading 4.
pub(crate) fn assert_refusal_record(record: &serde_json::Value) {
    let said = [
        "verdict",
        "status",
        "phase",
        "reasons",
        "route",
        "grpc_status",
    ]
    .map(|key| record[key].clone());
    let want = serde_json::json!(["deny", 400, "request", [], null, null]);
    assert_eq!(serde_json::Value::from(said.to_vec()), want, "{record}");
    assert!(
        record["time"].is_string() && record["client"]["ip"].is_string(),
        "{record}"
    );
}

/// Whether it may be the body alone that is wrong.
fn has_body(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    text.contains("chunked\r\n\r\n") && !text.contains("content-length")
}
