//! What an application reaches outside of the mesh through its proxy, under EgressNetworks: bytes, TLS by its server name,
//! requests by their host; and what ends when policy changes.

use super::world::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// `web` alone, with two addresses outside of the mesh: an application that mirrors requests at host 50, one that echoes
/// bytes at host 51.
pub(crate) struct Stage {
    pub(crate) world: World,
    _apps: [JoinHandle<()>; 2],
}

impl Stage {
    async fn new(policy: impl FnOnce(&World) -> String) -> Self {
        Self::made(World::new(""), policy, mirror).await
    }

    /// With another application than the mirror.
    pub(crate) async fn made(
        mut world: World,
        policy: impl FnOnce(&World) -> String,
        app: impl AsyncFnOnce(SocketAddr) -> JoinHandle<()>,
    ) -> Self {
        world.write_policy(&policy(&world));
        let (web, bytes) = (outside(&world, 50), outside(&world, 51));
        let apps = [app(web).await, echo(bytes).await];
        world.write_svid("web", &world.authority.svid(WEB));
        let listeners: String = [(20, web), (21, bytes)]
            .iter()
            .map(|(host, to)| {
                let listen = world.address(*host, 8000);
                format!("- {{ listen: \"{listen}\", outside: \"{to}\" }}\n")
            })
            .collect();
        let mesh = world.address(11, 15008);
        let parts = format!("inbound:\n  mesh: {mesh}\noutbound:\n{listeners}");
        world.start("web", &parts, world.address(11, 15020));
        Self { world, _apps: apps }
    }

    pub(crate) async fn get(&self, host: &str) -> String {
        let request = format!("GET /a/../b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw(self.world.address(20, 8000), request.as_bytes()).await
    }

    /// What comes back of bytes that are sent to the echo, which sees the end of them.
    pub(crate) async fn echoed(&self, bytes: &[u8]) -> Vec<u8> {
        through(self.bytes_at(), bytes).await
    }

    fn bytes_at(&self) -> SocketAddr {
        self.world.address(21, 8000)
    }

    pub(crate) async fn counted(&self, series: &str) -> u64 {
        let text = get(self.world.address(11, 15020), "/metrics").await;
        let found = text.lines().filter(|line| line.starts_with(series));
        let values = found.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }
}

/// What comes back of bytes and their end.
async fn through(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(at).await else {
        return Vec::new();
    };
    let mut got = Vec::new();
    let exchange = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut got).await
    };
    let done = tokio::time::timeout(Duration::from_secs(10), exchange).await;
    done.expect("an end within ten seconds").ok();
    got
}

fn outside(world: &World, host: u8) -> SocketAddr {
    world.address(host, 443)
}

/// An EgressNetwork for both addresses outside.
pub(crate) fn network(world: &World, namespace: &str, name: &str, traffic: &str) -> String {
    let (one, other) = (outside(world, 50).ip(), outside(world, 51).ip());
    format!(
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {{ name: {name}, namespace: {namespace} }}\n\
         spec: {{ trafficPolicy: {traffic}, networks: [{{ cidr: {one} }}, {{ cidr: {other} }}] }}\n"
    )
}

pub(crate) fn route(kind: &str, version: &str, hostnames: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{ name: out, namespace: shop }}\n\
         spec:\n  parentRefs: [{{ group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 443 }}]\n{hostnames}\
         \x20 rules: [{{ backendRefs: [{{ group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 443 }}] }}]\n"
    )
}

pub(crate) fn hosts(names: &str) -> String {
    format!("  hostnames: [{names}]\n")
}

/// A ClientHello as clients send it, in one record.
pub(crate) fn hello(name: Option<&str>) -> Vec<u8> {
    fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[4 - bytes..], content].concat()
    }
    let server_name = |name: &str| {
        let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
        [&[0, 0][..], &sized(2, &sized(2, &entry))].concat()
    };
    let extensions = name.map(server_name).unwrap_or_default();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &sized(2, &[0x13, 0x01]),
        &sized(1, &[0]),
        &sized(2, &extensions),
    ]
    .concat();
    let message = [&[1][..], &sized(3, &body)].concat();
    [&[0x16, 3, 1][..], &sized(2, &message)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_everything_leaves_and_no_decision_is_made() {
    let mut stage = Stage::new(|_| String::new()).await;
    assert_eq!(stage.echoed(b"\x00any bytes").await, b"\x00any bytes");
    let request = b"GET /a/../b HTTP/1.1\r\nHost: any.example\r\n\r\n";
    let answer = through(stage.world.address(20, 8000), request).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("GET /a/../b "), "byte for byte: {answer}");
    assert_eq!(stage.counted("mesh_egress_decisions_total").await, 0);
    assert!(stage.counted("mesh_outbound_plaintext_total").await >= 2);
    assert!(stage.world.records("web").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_denies_lets_nothing_out_and_says_so() {
    let mut stage = Stage::new(|world| network(world, "shop", "all", "Deny")).await;
    assert!(stage.echoed(b"\x00any bytes").await.is_empty());
    assert!(stage.echoed(&hello(Some("api.example"))).await.is_empty());
    let answer = stage.get("api.example").await;
    assert_eq!(status(&answer), "403", "{answer}");
    assert!(
        answer.contains("MESH-0445") && answer.contains("shop/all"),
        "{answer}"
    );
    assert_eq!(stage.counted("mesh_egress_decisions_total").await, 3);
    assert_eq!(stage.counted("mesh_outbound_plaintext_total").await, 0);
    let denied = stage.counted("mesh_denied_total").await;
    assert_eq!(denied, 3);
    let records = stage.world.records("web");
    assert_eq!(records.len(), 3);
    let to = outside(&stage.world, 51).to_string();
    for record in &records {
        assert_eq!(record["verdict"], "deny", "{record}");
        assert_eq!(record["phase"], "egress");
        assert_eq!(record["client"]["spiffe_id"], WEB);
        assert_eq!(record["reasons"][0], "EgressNetwork/shop/all/deny");
        assert_eq!(record["server"]["workload"], serde_json::Value::Null);
    }
    assert_eq!(records[0]["egress"]["to"], to);
    assert_eq!(records[1]["egress"]["server_name"], "api.example");
    assert_eq!(records[2]["status"], 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_allows_lets_everything_out_unread() {
    let mut stage = Stage::new(|world| network(world, "shop", "all", "Allow")).await;
    // The beginning of a request: whoever read it would wait for more.
    assert_eq!(stage.echoed(b"GET").await, b"GET");
    assert_eq!(stage.echoed(&hello(None)).await, hello(None));
    let records = stage.world.records("web");
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["verdict"], "allow");
    assert_eq!(records[0]["reasons"][0], "EgressNetwork/shop/all/allow");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_leaves_by_the_name_that_it_asks_for() {
    let mut stage = Stage::new(|world| {
        network(world, "shop", "all", "Deny")
            + &route(
                "TLSRoute",
                "v1alpha2",
                &hosts("api.example, \"*.cdn.example\""),
            )
    })
    .await;
    for name in ["api.example", "API.example", "a.cdn.example"] {
        let hello = hello(Some(name));
        assert_eq!(stage.echoed(&hello).await, hello, "{name}: byte for byte");
    }
    for name in [
        Some("evil.example"),
        Some("cdn.example"),
        Some("api.example.evil"),
        None,
    ] {
        assert!(stage.echoed(&hello(name)).await.is_empty(), "{name:?}");
    }
    let mut torn = hello(Some("api.example"));
    torn[5 + 38] = 0xff; // a session id that is longer than the message
    assert!(stage.echoed(&torn).await.is_empty(), "torn");
    assert!(stage.echoed(&torn[..20]).await.is_empty(), "cut off");
    assert!(stage.echoed(b"\x00bytes").await.is_empty());
    assert_eq!(
        status(&stage.get("api.example").await),
        "403",
        "HTTP is not TLS"
    );
    let records = stage.world.records("web");
    let allowed: Vec<_> = records.iter().filter(|r| r["verdict"] == "allow").collect();
    assert_eq!(allowed.len(), 3);
    assert_eq!(allowed[0]["reasons"][0], "TLSRoute/shop/out/0");
    assert_eq!(allowed[0]["route"]["kind"], "TLSRoute");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_leave_by_their_host_each_judged_by_itself() {
    let mut stage = Stage::new(|world| {
        network(world, "shop", "all", "Deny") + &route("HTTPRoute", "v1", &hosts("api.example"))
    })
    .await;
    let answer = stage.get("API.example.").await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        answer.contains("GET /b HTTP/1.1")
            && answer.to_lowercase().contains("host: api.example\r\n"),
        "what was judged is what was sent: {answer}"
    );
    assert_eq!(status(&stage.get("evil.example").await), "403");
    assert_eq!(status(&stage.get("api.example@evil.example").await), "400");
    // Two requests on one connection: the second to another host.
    let both = "GET / HTTP/1.1\r\nHost: api.example\r\n\r\n\
                GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answers = raw(stage.world.address(20, 8000), both.as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
    assert!(
        answers.contains("HTTP/1.1 403") && answers.contains("MESH-0445"),
        "{answers}"
    );
    assert!(stage.echoed(&hello(Some("api.example"))).await.is_empty());
    let connect = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n";
    let answer = raw(stage.world.address(20, 8000), connect).await;
    assert_eq!(status(&answer), "405", "{answer}");
    let records = stage.world.records("web");
    let allowed = records.iter().filter(|r| r["verdict"] == "allow");
    assert_eq!(allowed.count(), 2);
    assert!(
        records
            .iter()
            .any(|r| r["reasons"][0] == "HTTPRoute/shop/out/0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_opens_nothing_that_the_mesh_closes() {
    let stage = Stage::new(|world| {
        network(world, "mesh-system", "guard", "Deny") + &network(world, "shop", "all", "Allow")
    })
    .await;
    assert!(stage.echoed(b"\x00bytes").await.is_empty());
    let answer = stage.get("api.example").await;
    assert!(answer.contains("mesh-system/guard"), "{answer}");
    let yields = network(&stage.world, "mesh-system", "guard", "Deny").replace(
        "namespace: mesh-system }",
        "namespace: mesh-system, annotations: { mesh.internal/namespaces-decide: \"true\" } }",
    );
    let policy = yields + &network(&stage.world, "shop", "all", "Allow");
    stage.world.write_policy(&policy);
    eventually("the mesh leaves it to the namespace", async || {
        stage.echoed(b"\x00bytes").await == b"\x00bytes"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_cannot_be_read_lets_nothing_out() {
    let stage = Stage::new(|world| network(world, "shop", "all", "Allow")).await;
    assert_eq!(stage.echoed(b"\x00bytes").await, b"\x00bytes");
    let good = network(&stage.world, "shop", "all", "Allow");
    for (what, torn) in [
        ("a word that is none", good.replace("Allow", "Alow")),
        (
            "a block that is none",
            good.replace("cidr: 127", "cidr: 927"),
        ),
        ("no YAML", good.replace("spec: {", "spec: {{ [")),
    ] {
        stage.world.write_policy(&torn);
        eventually(what, async || stage.echoed(b"\x00bytes").await.is_empty()).await;
        stage.world.write_policy(&good);
        eventually("mended", async || {
            stage.echoed(b"\x00bytes").await == b"\x00bytes"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_ends_when_policy_no_longer_lets_it_out() {
    let mut stage = Stage::new(|world| {
        network(world, "shop", "all", "Deny")
            + &route("TLSRoute", "v1alpha2", &hosts("api.example, b.example"))
    })
    .await;
    let open = async |name: &str| {
        let mut stream = TcpStream::connect(stage.bytes_at())
            .await
            .expect("a connection");
        let hello = hello(Some(name));
        stream.write_all(&hello).await.expect("room");
        let mut back = vec![0; hello.len()];
        stream.read_exact(&mut back).await.expect("the echo");
        stream
    };
    let (mut ends, mut stays) = (open("api.example").await, open("b.example").await);
    let narrower = network(&stage.world, "shop", "all", "Deny")
        + &route("TLSRoute", "v1alpha2", &hosts("b.example"));
    stage.world.write_policy(&narrower);
    let mut end = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(5), ends.read(&mut end)).await;
    assert!(!matches!(read.expect("an end"), Ok(n) if n > 0), "ended");
    stays.write_all(b"more").await.expect("room");
    let mut back = [0; 4];
    stays.read_exact(&mut back).await.expect("the echo");
    assert_eq!(&back, b"more", "what is still allowed stays");
    drop((ends, stays));
    let records = stage.world.records("web");
    let last = records
        .iter()
        .rfind(|r| r["verdict"] == "deny")
        .expect("a denial");
    assert_eq!(last["egress"]["server_name"], "api.example");
}
