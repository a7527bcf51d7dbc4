//! What has left the mesh and stands when policy no longer lets it, whatever it is; and what logs hold of what left.

use super::egress::{Stage, hello, hosts, network, route};
use super::world::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An application that answers by the path: never, with the beginning of a body, or with another protocol, which echoes.
async fn slow(at: SocketAddr) -> JoinHandle<()> {
    let listener = TcpListener::bind(at).await.expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer: &[u8] = match head.starts_with(b"GET /hangs") {
        true => b"",
        false if head.starts_with(b"GET /chat") => {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        }
        false => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning",
    };
    if stream.write_all(answer).await.is_err() {
        return;
    }
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.ok();
}

fn by_host(world: &World, hostnames: &str) -> String {
    network(world, "shop", "all", "Deny") + &route("HTTPRoute", "v1", &hosts(hostnames))
}

/// A request to the application whose answer has come as far as `until`.
async fn open(stage: &Stage, path: &str, until: &str) -> TcpStream {
    let mut stream = TcpStream::connect(stage.world.address(20, 8000))
        .await
        .expect("a connection");
    let upgrade = match path {
        "/chat" => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        _ => "Connection: close\r\n",
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: api.example\r\n{upgrade}\r\n");
    stream.write_all(request.as_bytes()).await.expect("room");
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(until) {
        let read = stream.read_buf(&mut got).await.expect("readable");
        assert!(read > 0, "{}", String::from_utf8_lossy(&got));
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_ends_when_policy_no_longer_lets_it_out() {
    for (path, until, after) in [
        ("/hangs", "", "MESH-0446"),
        ("/streams", "beginning", ""),
        ("/chat", "101 ", ""),
    ] {
        let policy = |world: &World| by_host(world, "api.example");
        let mut stage = Stage::made(World::new(""), policy, slow).await;
        let mut stream = open(&stage, path, until).await;
        // It is out: the decision has been counted.
        eventually(path, async || {
            stage.counted("mesh_egress_decisions_total").await == 1
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage
            .world
            .write_policy(&by_host(&stage.world, "b.example"));
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let end = tokio::time::timeout(Duration::from_secs(5), end).await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(end.is_ok(), "{path} still stands");
        assert!(rest.contains(after), "{path}: {rest}");
        assert!(
            stage.counted("mesh_egress_decisions_total").await >= 2,
            "{path}: it is counted"
        );
        let records = stage.world.records("web");
        let last = records.iter().rfind(|one| one["verdict"] == "deny");
        assert_eq!(last.expect("a denial")["phase"], "egress", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_network_and_route_that_lets_out_is_recorded_once_in_an_hour_beside_the_sample() {
    let mut world = World::new("");
    world.sample = "0.0";
    let policy = |world: &World| {
        let meshs = |name: &str| {
            let route = route("TLSRoute", "v1alpha2", &hosts(&format!("{name}.example")));
            let route = route.replace("namespace: shop", "namespace: mesh-system");
            route.replace("name: out", &format!("name: {name}"))
        };
        network(world, "mesh-system", "all", "Deny")
            + &network(world, "shop", "all", "Allow")
            + &meshs("one")
            + &meshs("two")
    };
    let mut stage = Stage::made(world, policy, mirror).await;
    for name in ["one.example", "one.example", "two.example", "two.example"] {
        let hello = hello(Some(name));
        assert_eq!(stage.echoed(&hello).await, hello, "{name}");
    }
    assert!(stage.echoed(&hello(Some("evil.example"))).await.is_empty());
    let records = stage.world.records("web");
    let allowed = records.iter().filter(|one| one["verdict"] == "allow");
    let mut found: Vec<(String, bool)> = allowed
        .map(|one| (one["reasons"][1].to_string(), one["first"] == true))
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        [
            ("\"TLSRoute/mesh-system/one/0\"".to_owned(), true),
            ("\"TLSRoute/mesh-system/two/0\"".to_owned(), true)
        ]
    );
    let denied = records.iter().filter(|one| one["verdict"] == "deny");
    let firsts: Vec<bool> = denied.map(|one| one["first"] == true).collect();
    assert_eq!(
        firsts,
        [false],
        "a denial is always recorded, and is no first use"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_log_that_takes_nothing_lets_nothing_out() {
    for (audit, lets_out) in [(", whenFull: strict", false), ("", true)] {
        let mut world = World::new("");
        world.audit = audit;
        std::fs::create_dir_all(world.path("web")).expect("a folder");
        std::os::unix::fs::symlink("/dev/full", world.path("web/web.jsonl")).expect("a link");
        let policy = |world: &World| by_host(world, "api.example") + &tls(world);
        let stage = Stage::made(world, policy, mirror).await;
        if !lets_out {
            // From the first entry that is lost on.
            eventually("the log is known to take nothing", async || {
                status(&stage.get("api.example").await) == "503"
            })
            .await;
        }
        for _ in 0..3 {
            let answer = stage.get("api.example").await;
            let want = if lets_out { "200" } else { "503" };
            assert_eq!(status(&answer), want, "{answer}");
            assert_eq!(answer.contains("MESH-0539"), !lets_out, "{answer}");
            let echoed = stage.echoed(b"\x00bytes").await;
            assert_eq!(echoed == b"\x00bytes", lets_out, "{audit}");
        }
        // What policy denies stays denied, and is no trouble of the disk.
        assert_eq!(status(&stage.get("evil.example").await), "403");
    }
}

/// A network that lets everything out to the address of the echo alone.
fn tls(world: &World) -> String {
    let echo = world.address(51, 443).ip();
    format!(
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {{ name: a-echo, namespace: shop }}\n\
         spec: {{ trafficPolicy: Allow, networks: [{{ cidr: {echo} }}] }}\n"
    )
}
