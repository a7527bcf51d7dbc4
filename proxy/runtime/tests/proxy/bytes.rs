//! Raw TCP: through the mesh as one stream, and refused where policy is made for requests.

use super::world::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let world = World::of_bytes(&cart_policy("opaque", &[WEB]));
    let _app = echo(world.cart_app()).await;
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(&sent).await.expect("room");
        writer.shutdown().await.expect("half-close");
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(send, reader.read_to_end(&mut back));
    read.expect("the echo");
    assert!(
        back == sent,
        "{} of {} bytes came back",
        back.len(),
        sent.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_stream_without_a_grant_is_closed_and_nothing_passes() {
    let mut world = World::of_bytes(&cart_policy("opaque", &[]));
    let _app = echo(world.cart_app()).await;
    assert_eq!(raw(world.web_to_cart(), b"hello").await, "");
    let records = world.cart_records();
    assert_eq!(records[0]["verdict"], "deny", "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_do_not_pass_where_requests_are_expected() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = echo(world.cart_app()).await;
    for bytes in [
        &b"\x00\x01binary"[..],
        b"\x16\x03\x01\x00\x05hello",
        b"SSH-2.0-client\r\n",
    ] {
        assert_eq!(raw(world.web_to_cart(), bytes).await, "", "{bytes:?}");
        assert_eq!(raw(world.cart_plain(), bytes).await, "", "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_and_a_pause_is_no_way_around_detection() {
    let mut world = World::running(&cart_policy("unknown", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let mut stream = TcpStream::connect(world.cart_plain())
        .await
        .expect("a connection");
    stream.write_all(b"G").await.expect("room");
    tokio::time::sleep(Duration::from_millis(2_500)).await; // detection ends after two seconds
    let _ = stream
        .write_all(b"ET /admin HTTP/1.1\r\nHost: cart\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert!(
        world
            .cart_records()
            .iter()
            .all(|record| record["verdict"] == "deny")
    );
}
