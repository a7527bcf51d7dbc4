//! Refusals first; then every cut of the bytes gives the same answer.

use super::*;
use proptest::prelude::*;

const TLS: DetectPolicy = DetectPolicy {
    tls: true,
    bytes_max: 16 * 1024,
};
const PLAIN: DetectPolicy = DetectPolicy {
    tls: false,
    bytes_max: 16 * 1024,
};

fn malformed(why: Malformed) -> Detection {
    Detection::Malformed(why)
}

fn opaque() -> Detection {
    Detection::Opaque(OpaqueReason::NotHttp)
}

/// A ClientHello message with this server name, as one handshake message.
fn hello(names: &[&[u8]]) -> Vec<u8> {
    let mut extensions = vec![0, 43, 0, 3, 2, 3, 4]; // supported_versions
    for name in names {
        let mut list = vec![0];
        list.extend((name.len() as u16).to_be_bytes());
        list.extend(*name);
        extensions.extend([0, 0]);
        extensions.extend((list.len() as u16 + 2).to_be_bytes());
        extensions.extend((list.len() as u16).to_be_bytes());
        extensions.extend(list);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    message
}

/// The message cut into records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in message.chunks(size) {
        wire.extend([0x16, 3, 1]);
        wire.extend((piece.len() as u16).to_be_bytes());
        wire.extend(piece);
    }
    wire
}

#[test]
fn what_is_nearly_a_protocol_is_closed_and_never_raw_tcp() {
    for (bytes, why, case) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSN"[..], Malformed::Preface, "PD4"),
        (
            b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n",
            Malformed::Preface,
            "PD4",
        ),
        (b"PRI /x HTTP/1.1\r\n", Malformed::Preface, "PD4"),
        (b" GET / HTTP/1.1\r\n", Malformed::LeadingBytes, "PD5 space"),
        (b"\0GET / HTTP/1.1\r\n", Malformed::LeadingBytes, "PD5 NUL"),
        (
            b"\nGET / HTTP/1.1\r\n",
            Malformed::LeadingBytes,
            "PD5 bare LF",
        ),
        (
            b"\r\n\tPOST / HTTP/1.1\r\n",
            Malformed::LeadingBytes,
            "PD5 tab",
        ),
        (
            b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Malformed::LeadingBytes,
            "PD5 preface",
        ),
        (&[b' '; 65], Malformed::LeadingBytes, "PD5 only blanks"),
        (b"FROB / HTTP/0.9\r\n", Malformed::RequestLine, "PD6"),
        (b"FROB / HTTP/1.01\r\n", Malformed::RequestLine, "H1-14"),
        (b"FROB / HTTP/2.0\r\n", Malformed::RequestLine, "H1-14"),
        (
            b"FROB  / HTTP/1.1\r\n",
            Malformed::RequestLine,
            "H1-14 two spaces",
        ),
        (
            b"FROB / http/1.1\r\n",
            Malformed::RequestLine,
            "lower-case version",
        ),
        (
            b"FROB /a b HTTP/1.1\r\n",
            Malformed::RequestLine,
            "four words",
        ),
        (
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n",
            Malformed::Method,
            "PD7 33 bytes",
        ),
        (b"G{T / HTTP/1.1\r\n", Malformed::Method, "PD7 not a token"),
        (
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\n",
            Malformed::ProxyProtocol,
            "PD15 v1",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
            Malformed::ProxyProtocol,
            "PD15 v2",
        ),
    ] {
        assert_eq!(
            classify(&PLAIN, bytes),
            malformed(why),
            "{case}: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn silence_or_end_within_a_usual_beginning_is_never_raw_tcp() {
    for bytes in [
        &b"G"[..],
        b"GET",
        b"PRI",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        b"\r\n",
        b"\r\n\r\nPO",
        b"OPTIONS",
        b"FROB /admin HTTP/1.",
        b"FROB /admin",
    ] {
        for end in [Detector::on_timeout, Detector::on_eof] {
            let mut detector = Detector::new(PLAIN);
            assert_eq!(detector.push(bytes), Detection::NeedMore, "{bytes:?}");
            assert_eq!(
                end(&mut detector),
                malformed(Malformed::Truncated),
                "{bytes:?}"
            );
        }
    }
}

#[test]
fn a_request_after_the_time_is_up_changes_nothing() {
    let mut detector = Detector::new(PLAIN);
    assert_eq!(detector.push(b"G"), Detection::NeedMore);
    assert_eq!(
        detector.on_timeout(),
        malformed(Malformed::Truncated),
        "PD1"
    );
    assert_eq!(
        detector.push(b"ET /admin HTTP/1.1\r\n\r\n"),
        malformed(Malformed::Truncated),
        "PD1: answers are final"
    );
}

#[test]
fn usual_requests_are_http_1() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"GET ",
        b"POST /x",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"\r\nGET / HTTP/1.1\r\n",
        b"FROB /x HTTP/1.1\r\n",
        b"FROB /x HTTP/1.0\n",
        b"get / HTTP/1.1\r\n",
        b"MKCALENDAR /x HTTP/1.1\r\n",
        b"GET / HTTP/0.9\r\n", // the HTTP parser answers 400 (PD6)
        b"GET\t/ HTTP/1.1\r\n",
        b"GET\r\n",
    ] {
        assert_eq!(
            classify(&PLAIN, bytes),
            Detection::Http1,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn other_protocols_are_raw_tcp() {
    for (bytes, name) in [
        (&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], "PostgreSQL SSLRequest"),
        (b"\0\0\0\x26\0\x03\0\0user\0x\0", "PostgreSQL startup"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
        (b"PING\r\n", "Redis inline"),
        (b"EHLO example.org\r\n", "SMTP"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "SSH"),
        (b"{\"op\":1}\n", "JSON lines"),
        (
            b"\x16\x03\x01\x02\x00\x01",
            "TLS where it is not looked for (PD9)",
        ),
        (b"MQTT\x04\x02", "binary after letters"),
        (b"set a 0 0 1\r\n", "memcached"),
        (b"HTTP/1.1 200 OK\r\n", "a response"),
    ] {
        assert_eq!(classify(&PLAIN, bytes), opaque(), "{name}");
    }
}

#[test]
fn silent_and_empty_connections_are_told_apart() {
    assert_eq!(
        Detector::new(PLAIN).on_timeout(),
        Detection::Opaque(OpaqueReason::Silent),
        "PD12"
    );
    assert_eq!(
        Detector::new(PLAIN).on_eof(),
        Detection::Opaque(OpaqueReason::Empty),
        "a TCP probe"
    );
    let mut detector = Detector::new(PLAIN);
    detector.push(b"PING");
    assert_eq!(
        detector.on_timeout(),
        Detection::Opaque(OpaqueReason::TimedOut)
    );
}

#[test]
fn endless_first_lines_are_cut_off() {
    let endless = vec![b'a'; 16 * 1024];
    assert_eq!(
        classify(&PLAIN, &endless[..16 * 1024 - 1]),
        Detection::NeedMore
    );
    assert_eq!(classify(&PLAIN, &endless), malformed(Malformed::TooLong));
}

#[test]
fn bytes_are_handed_on_unchanged() {
    let mut detector = Detector::new(PLAIN);
    detector.push(b"GE");
    detector.push(b"T / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(
        &detector.into_prefix()[..],
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    );
}

#[test]
fn unusable_server_names_refuse_the_hello() {
    for (names, case) in [
        (&[&b"a\0b"[..]][..], "HO11 NUL"),
        (&[b"a\r\nb"], "HO11 CRLF"),
        (&[b""], "empty"),
        (&[&[b'a'; 254]], "HO11 long"),
        (&[b"10.0.0.1"], "HO11 IP"),
        (&["ä.example".as_bytes()], "not ASCII"),
        (&[b"a.example", b"b.example"], "two"),
    ] {
        let wire = records(&hello(names), 16_000);
        assert_eq!(
            classify(&TLS, &wire),
            malformed(Malformed::ClientHello),
            "{case}"
        );
    }
}

#[test]
fn lying_lengths_refuse_the_hello() {
    let good = hello(&[b"a.example"]);
    for at in [38, 40, 43, 46, 50] {
        let mut bad = good.clone();
        bad[at] = bad[at].wrapping_add(1);
        assert_eq!(
            classify(&TLS, &records(&bad, 16_000)),
            malformed(Malformed::ClientHello),
            "byte {at}"
        );
    }
    let mut second = records(&good, 20);
    second[25] = 0x17;
    assert_eq!(
        classify(&TLS, &second),
        malformed(Malformed::ClientHello),
        "second record of another type"
    );
    let server_hello = [0x16, 3, 3, 0, 4, 2, 0, 0, 0];
    assert_eq!(
        classify(&TLS, &server_hello),
        malformed(Malformed::ClientHello)
    );
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    let message = hello(&[b"Cart.Shop.example"]);
    for size in [1, 2, 5, 33, 16_000] {
        let wire = records(&message, size);
        assert_eq!(
            classify(&TLS, &wire),
            Detection::Tls {
                sni: Some("cart.shop.example".into())
            },
            "PD8, records of {size}"
        );
        let mut cut = Detector::new(TLS);
        cut.push(&wire[..wire.len() - 1]);
        assert_eq!(
            cut.on_timeout(),
            malformed(Malformed::Truncated),
            "PD8: never default handling"
        );
    }
    assert_eq!(
        classify(&TLS, &records(&hello(&[]), 100)),
        Detection::Tls { sni: None }
    );
}

/// Bytes that are often near a decision.
fn near_protocols() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        Just(b"PRI".to_vec()),
        Just(b"GET".to_vec()),
        Just(b"FROB".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"/x".to_vec()),
        Just(b"HTTP/1.1".to_vec()),
        Just(b"PROXY ".to_vec()),
        Just(b"\r\n\r\n\0\r\nQUIT\n".to_vec()),
        Just(records(&hello(&[b"a.example"]), 30)),
        Just(vec![0x16, 3]),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cutting_the_bytes_anywhere_gives_the_same_answer(bytes in near_protocols(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5), tls in any::<bool>()) {
        let policy = DetectPolicy { tls, bytes_max: 120 };
        let whole = Detector::new(policy).push(&bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut detector = Detector::new(policy);
        let mut last = Detection::NeedMore;
        for pair in cuts.windows(2) {
            last = detector.push(&bytes[pair[0]..pair[1]]);
        }
        prop_assert_eq!(last, whole);
        prop_assert_eq!(detector.prefix(), &bytes[..]);
    }

    #[test]
    fn an_answer_stays_however_the_bytes_go_on(bytes in near_protocols(), more in near_protocols(), tls in any::<bool>()) {
        let policy = DetectPolicy { tls, bytes_max: 200 };
        let first = classify(&policy, &bytes);
        if first != Detection::NeedMore {
            let longer = [bytes, more].concat();
            prop_assert_eq!(classify(&policy, &longer), first);
        }
    }

    #[test]
    fn a_request_line_is_never_raw_tcp(blanks in "[\r\n \t\0]{0,3}", method in "[A-Za-z]{1,40}", target in "[!-~]{1,30}", version in "(HTTP|http)/[0-9]\\.[0-9]", cut in 0usize..100) {
        let line = format!("{blanks}{method} {target} {version}\r\n");
        let told = classify(&PLAIN, line.as_bytes());
        prop_assert!(!matches!(told, Detection::Opaque(_) | Detection::NeedMore), "{:?}: {:?}", line, told);
        let mut detector = Detector::new(PLAIN);
        detector.push(line.as_bytes().get(..cut).unwrap_or_default());
        if detector.prefix().contains(&b'/') {
            prop_assert!(!matches!(detector.on_timeout(), Detection::Opaque(_)), "{:?} cut at {}", line, cut);
        }
    }
}
