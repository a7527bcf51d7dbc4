//! Names, values and hosts of requests (threats HD, HO), and how a refusal is told on the wire, in the record and in the
//! metric.

use super::h2_floods::first_word;
use super::ways::*;
use super::world::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn get_with(fields: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: cart\r\n{fields}\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn hd4_blanks_around_a_name() {
    assert_refused(&[
        Bad("space before the colon", &get_with("A : b"), 400, "line"),
        Bad("tab before the colon", &get_with("A\t: b"), 400, "line"),
        Bad(
            "of a length",
            b"POST /x HTTP/1.1\r\nHost: cart\r\nContent-Length : 5\r\n\r\nhello",
            400,
            "line",
        ),
        Bad(
            "of a coding",
            b"POST /x HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding : chunked\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "space first",
            b"GET /x HTTP/1.1\r\n Host: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad("tab in a name", &get_with("A\tB: c"), 400, "line"),
        Bad("no name", &get_with(": c"), 400, "line"),
        Bad("no colon", &get_with("abc"), 400, "line"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hd5_folded_lines() {
    assert_refused(&[
        Bad("space", &get_with("A: b\r\n c"), 400, "line"),
        Bad("tab", &get_with("A: b\r\n\tc"), 400, "line"),
        Bad(
            "a name in the fold",
            &get_with("A: b\r\n mesh-client-id: root"),
            400,
            "line",
        ),
        Bad(
            "of a coding",
            b"POST /x HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
            400,
            "framing",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hd6_underscore_twins_of_reserved_names_never_arrive() {
    let mut stage = Stage::new().await;
    let fields = "mesh_client_id: root\r\nl5d_client_id: root\r\nL5D_Client-Id: root\r\nmesh-client_id: root\r\n\
        X_Forwarded_Client_Cert: root\r\nssl_client_verify: root\r\nx_user: kept\r\nx-user: also\r\nConnection: close";
    for way in WAYS {
        let before = stage.application.received().len();
        let answer = stage.send(way, &[&get_with(fields)]).await;
        assert_eq!(status(&answer), "200", "{way:?}: {answer}");
        let received = stage.application.received()[before..].to_lowercase();
        let mut lines: Vec<_> = received.trim_end().lines().collect();
        lines.sort_unstable();
        let id = format!("mesh-client-id: {WEB}");
        let l5d = format!("l5d-client-id: {WEB}");
        let mut want = vec![
            "get /x http/1.1",
            "host: cart",
            "x-user: also",
            "x_user: kept",
        ];
        if way != Way::Plain {
            want.extend([&*id, &*l5d]);
        }
        want.sort_unstable();
        assert_eq!(lines, want, "{way:?}: exactly the canonical request");
    }
    assert!(stage.denials("cart").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hd7_control_bytes_in_a_value() {
    assert_refused(&[
        Bad("NUL", &get_with("A: b\0c"), 400, "line"),
        Bad("CR", &get_with("A: b\rc"), 400, "line"),
        Bad("LF", &get_with("A: b\nmesh-client-id: root"), 400, "line"),
        Bad("ESC", &get_with("A: \x1b[2J"), 400, "line"),
        Bad("DEL", &get_with("A: \x7f"), 400, "line"),
    ])
    .await;
}

/// An HTTP/2 HEADERS frame of one whole request, its fields as literals without index or Huffman code.
pub(super) fn h2_request(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.extend([0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [0, 0, block.len() as u8, 1, 0x5, 0, 0, 0, 1];
    [&preface[..], &settings, &head, &block].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn hd7_control_bytes_in_a_value_of_http_2() {
    let stage = Stage::new().await;
    let request = |value: &'static [u8]| {
        let pseudo: [(&str, &[u8]); 4] = [
            (":method", b"GET"),
            (":scheme", b"http"),
            (":path", b"/x"),
            (":authority", b"cart"),
        ];
        h2_request(&[&pseudo[..], &[("a", value)]].concat())
    };
    for to in [stage.world.cart_plain(), stage.world.web_to_cart()] {
        for value in [&b"b\0c"[..], b"b\rc", b"b\nmesh-client-id: root", b"\x7f"] {
            let mut stream = TcpStream::connect(to).await.expect("a connection");
            stream.write_all(&request(value)).await.expect("room");
            // A HEADERS frame would be an answer; RST_STREAM (3) or GOAWAY (7) is none.
            let kind = first_word(&mut stream).await.expect("a frame");
            assert!(matches!(kind, 3 | 7), "{value:?}: frame {kind}");
            assert_eq!(stage.application.received(), "", "{value:?}");
        }
    }
}

/// The table of docs/reference/records.md: the record has the class, wire and metric the status.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_400_in_the_record_and_as_they_are_spoken_in_the_metric() {
    let line =
        |line: &str| format!("{line}\r\nHost: cart\r\nConnection: close\r\n\r\n").into_bytes();
    let long_target = format!("GET /{} HTTP/1.1", "a".repeat(9_000));
    let long_method = format!("{} / HTTP/1.1", "M".repeat(33));
    let long_name = format!("{}: b", "n".repeat(300));
    let requests = [
        (line("CONNECT cart HTTP/1.1"), 405, "method"),
        (line("TRACE / HTTP/1.1"), 405, "method"),
        (line(&long_target), 414, "target-too-long"),
        (line(&long_method), 400, "method-too-long"),
        (get_with(&"a: b\r\n".repeat(100)), 431, "headers-too-large"),
        (get_with(&long_name), 431, "headers-too-large"),
        (
            get_with(&format!("a: {}", "b".repeat(70_000))),
            431,
            "headers-too-large",
        ),
        (get_with("Expect: wonders"), 400, "expect"),
        (get_with("Host: cart"), 400, "host-twice"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400, "host-missing"),
        (
            b"GET http://other/ HTTP/1.1\r\nHost: cart\r\n\r\n".to_vec(),
            400,
            "host-mismatch",
        ),
    ];
    let mut stage = Stage::new().await;
    for (bytes, want, reason) in &requests {
        let before = [
            stage.counted("cart", *want, reason).await,
            stage.counted("web", *want, reason).await,
        ];
        for way in WAYS {
            let answer = stage.send(way, &[bytes]).await;
            assert_eq!(
                status(&answer),
                want.to_string(),
                "{way:?} {reason}: {answer}"
            );
        }
        let after = [
            stage.counted("cart", *want, reason).await,
            stage.counted("web", *want, reason).await,
        ];
        assert_eq!(
            [after[0] - before[0], after[1] - before[1]],
            [2, 1],
            "{want} {reason}"
        );
    }
    assert_eq!(stage.application.received(), "");
    for (workload, share) in [("cart", 2), ("web", 1)] {
        let denials = stage.denials(workload);
        assert_eq!(denials.len(), requests.len() * share, "{denials:?}");
        denials.iter().for_each(assert_refusal_record);
        let asked = |method: &str| {
            denials
                .iter()
                .filter(|record| record["request"]["method"] == method)
                .count()
        };
        assert_eq!((asked("CONNECT"), asked("TRACE")), (share, share));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_connect_nothing_is_read_as_a_request() {
    let mut stage = Stage::new().await;
    let tunnel = b"CONNECT cart:80 HTTP/1.1\r\nHost: cart:80\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";
    for way in WAYS {
        for segments in [&[&tunnel[..]][..], &[&tunnel[..45], &tunnel[45..]]] {
            let answer = stage.send(way, segments).await;
            assert_eq!(status(&answer), "405", "H1-16 {way:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        }
    }
    assert_eq!(stage.application.received(), "");
    assert_eq!(
        (stage.denials("cart").len(), stage.denials("web").len()),
        (4, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_was_judged_is_what_the_application_gets() {
    let mut stage = Stage::new().await;
    let hosts = [
        ("CART.Shop", "cart.shop", "HO3"),
        ("cart.shop.", "cart.shop", "HO4"),
        ("Cart.shop.:8080", "cart.shop:8080", "HO4 with a port"),
        ("cart:080", "cart:80", "HO5"),
        ("cart:", "cart", "HO5 empty"),
        ("[2001:DB8:0:0::1]:80", "[2001:db8::1]:80", "HO8"),
        ("cart", "cart", "as it came"),
    ];
    for (raw, judged, case) in hosts {
        for way in WAYS {
            let before = stage.application.received().len();
            let request = format!("GET /x HTTP/1.1\r\nHost: {raw}\r\nConnection: close\r\n\r\n");
            let answer = stage.send(way, &[request.as_bytes()]).await;
            assert_eq!(status(&answer), "200", "{case} {way:?}: {answer}");
            let received = stage.application.received()[before..].to_lowercase();
            let hosts: Vec<_> = received
                .lines()
                .filter(|line| line.starts_with("host:"))
                .collect();
            assert_eq!(hosts, [format!("host: {judged}")], "{case} {way:?}");
        }
    }
    let records = stage.world.cart_records();
    let recorded: Vec<_> = records
        .iter()
        .map(|record| record["request"]["host"].clone())
        .collect();
    let judged: Vec<_> = hosts
        .iter()
        .flat_map(|(_, judged, _)| vec![serde_json::json!(judged); 3])
        .collect();
    assert_eq!(recorded, judged, "byte for byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_names_the_host_that_was_judged_and_an_upgrade_goes_on_with_it() {
    let route = "---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: { name: moved, namespace: shop }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: Server, name: cart-http }]
  rules:
  - matches: [{ path: { type: PathPrefix, value: / } }]
    filters: [{ type: RequestRedirect, requestRedirect: { scheme: https } }]
";
    let world = World::running(&(cart_policy("HTTP/1", &[WEB]) + route));
    let request = b"GET /x HTTP/1.1\r\nHost: CART.Shop.\r\nConnection: close\r\n\r\n";
    let answer = raw(world.web_to_cart(), request).await;
    assert!(
        answer
            .to_lowercase()
            .contains("location: https://cart.shop/x\r\n"),
        "{answer}"
    );

    let stage = Stage::new().await;
    let upgrade = b"GET /x HTTP/1.1\r\nHost: CART.Shop.\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for way in WAYS {
        stage.send(way, &[upgrade]).await;
    }
    let received = stage.application.received().to_lowercase();
    assert_eq!(
        received.matches("host: cart.shop\r\n").count(),
        3,
        "{received}"
    );
}
