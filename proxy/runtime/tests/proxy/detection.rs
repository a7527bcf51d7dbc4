//! The first bytes of a connection, from outside and from the application (threats PD): what is not certain is not passed.

use super::identity;
use super::streams;
use super::world::*;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An application that counts who connects to it, and says nothing.
async fn counting(at: SocketAddr) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(at).await.expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    count
}

/// A policy under which even raw bytes of strangers may pass: whatever is stopped, detection stopped.
fn open_policy() -> String {
    let open = "proxyProtocol: unknown\n  accessPolicy: all-unauthenticated\n";
    cart_policy("unknown", &[WEB]).replace("proxyProtocol: unknown\n", open)
}

/// Sends the pieces with pauses; everything that comes back until the end, which must come within `within`.
async fn pieces(to: SocketAddr, pieces: &[&[u8]], pause: Duration, within: Duration) -> Vec<u8> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    let exchange = async {
        let send = async {
            for piece in pieces {
                if write.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = send => {}
            _ = read.read_to_end(&mut answer) => {}
        }
    };
    let ended = tokio::time::timeout(within, exchange).await;
    assert!(ended.is_ok(), "{to} still stands after {within:?}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn pd2_a_preface_of_single_bytes_is_http_2() {
    let world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for to in [world.cart_plain(), world.web_to_cart()] {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        for byte in preface {
            stream.write_all(&[*byte]).await.expect("room");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut head = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut head));
        read.await.expect("in time").expect("a frame");
        assert_eq!(head[3], 4, "SETTINGS of an HTTP/2 server: {head:?}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn pd2_the_wait_is_bounded_from_accept_not_by_each_read() {
    let world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    // Every gap is shorter than the two seconds that detection has; all together they are longer.
    let slow: Vec<&[u8]> = b"GET /admin".chunks(1).collect();
    let begun = Instant::now();
    pieces(
        world.cart_plain(),
        &slow,
        Duration::from_millis(700),
        Duration::from_secs(5),
    )
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "not at once");
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn pd3_pd4_half_a_preface_or_a_wrong_one_reaches_nobody() {
    let world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    for (name, bytes) in [
        ("PD3", &b"PRI * HTTP/2.0\r\n\r\n"[..]),
        ("PD3 a byte less", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"),
        ("PD4", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n"),
    ] {
        for to in [world.cart_plain(), world.web_to_cart()] {
            let mut stream = TcpStream::connect(to).await.expect("a connection");
            stream.write_all(bytes).await.expect("room");
            stream.shutdown().await.expect("an end");
            let mut answer = Vec::new();
            let read =
                tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
            read.expect("an end").ok();
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{name}: {answer:?}");
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nobody was dialled");
}

#[tokio::test(flavor = "multi_thread")]
async fn pd10_mesh_tls_at_a_plain_port_is_not_decrypted() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let count = counting(world.cart_app()).await;
    let svid = world.authority.svid(WEB);
    let handshake = identity::handshake_at(&world, &svid, world.cart_plain());
    let refused = tokio::time::timeout(Duration::from_secs(5), handshake).await;
    assert!(refused.expect("an end").is_err(), "nobody speaks TLS there");
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pd11_plaintext_at_the_mesh_port_reaches_nobody() {
    let mut world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"MESH\x01\x0c\x01\x00\x1f\x90\x00\x00hello",
    ] {
        let answer = raw(world.cart_mesh(), bytes).await;
        assert!(!answer.contains("HTTP/1.1"), "{answer}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "not one byte");
    let records = world.cart_records();
    let transport = records.iter().filter(|r| r["phase"] == "transport");
    assert_eq!(transport.count(), 3, "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pd14_http_2_by_prior_knowledge_is_judged_like_any_other() {
    let mut world = World::running(&cart_policy("unknown", &[WEB]));
    streams::say(world.cart_app()).await;
    let denied = streams::call(world.cart_plain(), "/say.Say/Once").await;
    assert_eq!(denied.headers()["grpc-status"], "7", "{denied:?}");
    let allowed = streams::call(world.web_to_cart(), "/say.Say/Once").await;
    assert_eq!(allowed.headers()["x-seen"], WEB, "{allowed:?}");
    drop((denied, allowed));
    let records = world.cart_records();
    let said: Vec<_> = records
        .iter()
        .map(|r| (r["verdict"].clone(), r["request"]["path"].clone()))
        .collect();
    let path = || serde_json::Value::from("/say.Say/Once");
    assert_eq!(said, [("deny".into(), path()), ("allow".into(), path())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pd15_pd16_a_proxy_preamble_changes_no_address_and_goes_nowhere() {
    let mut world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let v2 = |rest: &[u8]| [&signature[..], rest].concat();
    for bytes in [
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: cart\r\n\r\n".to_vec(),
        v2(b"\x21\x11\x00\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02GET / HTTP/1.1\r\n\r\n"),
        v2(b"\x21\x00\xff\xff"),             // UNSPEC, 64 KiB to come
        v2(b"\x21\x11\xff\xff\x03\xff\xff"), // a TLV longer than all
    ] {
        let answer = raw(world.cart_plain(), &bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was forwarded");
    for record in world.cart_records() {
        assert_eq!(record["verdict"], "deny", "{record}");
        assert!(
            record["client"]["ip"]
                .as_str()
                .is_some_and(|ip| ip.starts_with("127.")),
            "{record}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pd17_what_the_mesh_header_promised_must_follow() {
    let world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    let svid = world.authority.svid(WEB);
    let http_2 = b"MESH\x01\x0c\x02\x00\x1f\x90\x00\x00";
    let http_1 = b"MESH\x01\x0c\x03\x00\x1f\x90\x00\x00";
    for (header, bytes) in [
        (http_2, &b"GET / HTTP/1.1\r\nHost: cart\r\n\r\n"[..]),
        (
            http_1,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
    ] {
        let mut stream = identity::connect(&world, &svid, header).await;
        stream.write_all(bytes).await.expect("room");
        let mut answer = Vec::new();
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        read.expect("an end").ok();
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn pd18_a_client_speaks_the_mesh_protocol_or_none() {
    let world = World::running(&open_policy());
    let _app = echo(world.cart_app()).await;
    let svid = world.authority.svid(WEB);
    let many: Vec<Vec<u8>> = (0..200)
        .map(|n| format!("proto/{n}").into_bytes())
        .collect();
    let with_ours = [&many[..], &[b"mesh.internal/1".to_vec()]].concat();
    for (name, protocols, want) in [
        ("none", Vec::new(), false),
        ("HTTP", vec![b"h2".to_vec(), b"http/1.1".to_vec()], false),
        ("200 unknown ones", many, false),
        ("ours after 200 others", with_ours, true),
    ] {
        let answer = identity::dial_speaking(&world, &svid, protocols).await;
        let served = answer.as_deref() == Ok(b"hello");
        assert_eq!(served, want, "{name}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pd19_what_policy_says_after_detection_counts() {
    let world = World::running(&open_policy());
    let count = counting(world.cart_app()).await;
    let mut stream = TcpStream::connect(world.cart_plain())
        .await
        .expect("a connection");
    stream.write_all(b"\x00\x01").await.expect("room");
    let mut early = TcpStream::connect(world.cart_plain())
        .await
        .expect("a connection");
    early.write_all(b"GET /adm").await.expect("room");
    world.write_policy(&cart_policy("HTTP/1", &[WEB]));
    tokio::time::sleep(Duration::from_millis(1_200)).await; // files are looked at twice a second
    early
        .write_all(b"in HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n")
        .await
        .expect("room");
    let mut answer = String::new();
    early.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!(status(&answer), "403", "{answer}");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    read.expect("raw bytes are ended by the new policy").ok();
    let reached = count.load(Ordering::SeqCst);
    assert!(reached <= 1, "only what was allowed before: {reached}");
}
