//! Requests out of bytes: beside the guard, which is the plain oracle, and beside another parser; cut anywhere.

use super::*;
use RequestRefusal::{Chunks, Framing, HeadersTooLarge, Line, Target, Version as BadVersion};
use proptest::prelude::*;

const LIMITS: GuardLimits = GuardLimits {
    head_bytes_max: 4_096,
    fields_max: 100,
};

/// One request as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Read {
    method: String,
    target: String,
    version: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    whole: bool,
    persists: bool,
    expects: bool,
    may_switch: bool,
}

/// All that comes of bytes in pieces: the requests, why there are no more, and what is left.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Read>, Option<Refused>, Vec<u8>) {
    let mut reader = RequestReader::new(LIMITS);
    let (mut input, mut all) = (BytesMut::new(), Vec::<Read>::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            reader.resume();
            if reader.is_done() {
                match reader.head(&mut input) {
                    Ok(Some(head)) => all.push(begun(&head, &reader)),
                    Ok(None) => break,
                    Err(refused) => return (all, Some(refused), Vec::new()),
                }
            }
            let last = all.last_mut().expect("it began");
            match reader.body(&mut input) {
                Ok(Some(BodyPart::Data(data))) => {
                    assert!(!data.is_empty());
                    last.body.extend_from_slice(&data);
                }
                Ok(Some(BodyPart::Trailers(trailers))) => last.trailers = Some(trailers),
                Ok(None) if !reader.is_done() => break,
                Ok(None) => {}
                Err(refused) => {
                    assert_eq!(reader.head(&mut input).map(drop), Err(refused));
                    return (all, Some(refused), Vec::new());
                }
            }
            last.whole = reader.is_done();
        }
    }
    (all, None, input.to_vec())
}

fn begun(head: &Head, reader: &RequestReader) -> Read {
    let parts = &head.parts;
    let fields = parts.headers.iter();
    assert_eq!(reader.is_waiting(), head.may_switch);
    Read {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        version: format!("{:?}", parts.version),
        fields: fields
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        whole: reader.is_done(),
        persists: head.persists,
        expects: head.expects,
        may_switch: head.may_switch,
        ..Read::default()
    }
}

/// What the guard says: how many heads are clear, why it stopped, and whether it stands between two requests.
fn guarded(bytes: &[u8]) -> (u64, Option<Refused>, bool) {
    let mut guard = Http1Guard::new(LIMITS);
    let mut rest = bytes;
    loop {
        let reading = guard.push(rest);
        match reading.stop {
            Stop::Waiting => {
                guard.resume(false);
                rest = &rest[reading.clear..];
            }
            Stop::End => return (guard.heads(), None, guard.is_between_requests()),
            Stop::Refused(refused) => return (guard.heads(), Some(refused), false),
        }
    }
}

#[test]
fn a_request_is_read_as_it_came() {
    let bytes = b"POST /a?b=%20 HTTP/1.1\r\nHost: cart\r\nX-One:  a b\t\r\nx-one:\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\nGET ";
    let (all, refused, rest) = read([&bytes[..]]);
    assert_eq!((refused, &*rest), (None, &b"GET "[..]));
    let field = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    assert_eq!(
        all,
        [
            Read {
                method: "POST".into(),
                target: "/a?b=%20".into(),
                version: "HTTP/1.1".into(),
                fields: vec![
                    field("host", b"cart"),
                    field("x-one", b"a b"),
                    field("x-one", b""),
                    field("content-length", b"3"),
                ],
                body: b"abc".to_vec(),
                whole: true,
                persists: true,
                ..Read::default()
            },
            Read {
                method: "GET".into(),
                target: "/next".into(),
                version: "HTTP/1.0".into(),
                fields: vec![field("connection", b"Keep-Alive")],
                whole: true,
                persists: true,
                ..Read::default()
            },
        ]
    );
}

#[test]
fn chunks_are_read_with_their_trailers_and_no_extensions() {
    let bytes = b"PUT / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\nA;a=\"b\"\r\n0123456789\r\n1\r\nx\r\n0\r\nSum:  1 \r\nsum: 2\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    for size in [1, 2, 7, bytes.len()] {
        let (all, refused, rest) = read(bytes.chunks(size));
        assert_eq!((all.len(), refused, rest.len()), (2, None, 0), "{size}");
        assert_eq!(all[0].body, b"0123456789x");
        let trailers = all[0].trailers.as_ref().expect("trailers");
        let sums: Vec<_> = trailers.get_all("sum").iter().collect();
        assert_eq!(sums, ["1", "2"]);
        assert!(all[1].trailers.is_none() && all[1].whole);
    }
}

#[test]
fn connections_end_and_expect_and_switch_as_their_heads_say() {
    for (head, persists, expects, switches) in [
        ("GET / HTTP/1.1\r\n", true, false, false),
        ("GET / HTTP/1.0\r\n", false, false, false),
        (
            "GET / HTTP/1.1\r\nconnection: a, Close\r\n",
            false,
            false,
            false,
        ),
        (
            "GET / HTTP/1.1\r\nconnection: keep-alive\r\nconnection: close\r\n",
            false,
            false,
            false,
        ),
        (
            "GET / HTTP/1.1\r\nconnection: close\r\nconnection: keep-alive\r\n",
            false,
            false,
            false,
        ),
        (
            "GET / HTTP/1.0\r\nconnection: keep-alive, close\r\n",
            false,
            false,
            false,
        ),
        (
            "GET / HTTP/1.0\r\nconnection: x, keep-alive\r\n",
            true,
            false,
            false,
        ),
        (
            "GET / HTTP/1.1\r\nconnection: closed\r\n",
            true,
            false,
            false,
        ),
        (
            "POST / HTTP/1.1\r\nexpect: 100-Continue\r\ncontent-length: 1\r\n",
            true,
            true,
            false,
        ),
        (
            "POST / HTTP/1.1\r\nexpect: 100-continue\r\n",
            true,
            false,
            false,
        ),
        (
            "POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n",
            false,
            false,
            false,
        ),
        ("GET / HTTP/1.1\r\nupgrade: x\r\n", true, false, true),
        ("GET / HTTP/1.0\r\nupgrade: x\r\n", false, false, false),
        (
            "GET / HTTP/1.1\r\nupgrade: x\r\ncontent-length: 1\r\n",
            true,
            false,
            false,
        ),
        ("CONNECT a:1 HTTP/1.1\r\n", true, false, true),
        ("CONNECT a:1 HTTP/1.0\r\n", false, false, true),
    ] {
        let (all, ..) = read([format!("{head}\r\n").as_bytes()]);
        let said = all
            .first()
            .map(|one| (one.persists, one.expects, one.may_switch));
        assert_eq!(said, Some((persists, expects, switches)), "{head}");
    }
}

#[test]
fn what_may_be_another_protocol_is_not_read_before_the_answer() {
    let mut reader = RequestReader::new(LIMITS);
    let mut input =
        BytesMut::from(&b"GET /chat HTTP/1.1\r\nupgrade: websocket\r\n\r\n\x81\x05hello"[..]);
    let head = reader.head(&mut input).expect("exact").expect("whole");
    assert!(head.may_switch && reader.is_waiting() && reader.is_done());
    assert!(reader.head(&mut input).expect("not read").is_none());
    assert!(reader.body(&mut input).expect("not read").is_none());
    assert_eq!(&input[..], b"\x81\x05hello", "GW7");
    reader.resume();
    let refused = reader.head(&mut input).map(drop).expect_err("GW8");
    assert_eq!(
        refused,
        Refused {
            why: Line,
            begun: false
        }
    );
}

/// Of a request that is wrong as it came nothing is forwarded; of one that goes wrong later no more.
#[test]
fn refusals_say_whether_the_request_had_begun_and_what_it_was() {
    let head = b"POST /x?y HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let get = b"GET /x HTTP/1.1\r\n\r\n";
    for (pieces, why, begun, line, count) in [
        (
            &[&head[..], b"5\r\nhello\r\nx\r\n"][..],
            Framing,
            true,
            Some(("POST", "/x?y")),
            1,
        ),
        (&[head, b"5\nhello"], Line, true, Some(("POST", "/x?y")), 1),
        (
            &[head, b"0\r\na b: c\r\n"],
            Line,
            true,
            Some(("POST", "/x?y")),
            1,
        ),
        (
            &[&[&head[..], b"5\r\nhellox"].concat()],
            Framing,
            false,
            Some(("POST", "/x?y")),
            0,
        ),
        (
            &[&[&head[..], b"0\r\na:b\n"].concat()],
            Line,
            false,
            Some(("POST", "/x?y")),
            0,
        ),
        (
            &[&[get, &head[..], b"x"].concat(), b"\r\n"],
            Framing,
            true,
            Some(("POST", "/x?y")),
            2,
        ),
        (
            &[get, b"GET /y HTTP/1.1\r\na : b\r\n"],
            Line,
            false,
            Some(("GET", "/y")),
            1,
        ),
        (
            &[b"GET /y HT", b"TP/1.1\r\na : b\r\n\r\n"],
            Line,
            false,
            Some(("GET", "/y")),
            0,
        ),
        (
            &[b"GET /y HTTP/1.1\r\n\n"],
            Line,
            false,
            Some(("GET", "/y")),
            0,
        ),
        (&[b"GET\t/y HTTP/1.1\r\n"], Line, false, None, 0),
        (&[b"GET /y HTTP/3.0\r\n\r\n"], BadVersion, false, None, 0),
        (&[b"GET /y#z HTTP/1.1\r\n\r\n"], Target, false, None, 0),
        (&[b"\0"], Line, false, None, 0),
    ] {
        let mut reader = RequestReader::new(LIMITS);
        let (mut input, mut heads, mut told) = (BytesMut::new(), 0, None);
        for piece in pieces {
            input.extend_from_slice(piece);
            while told.is_none() {
                let more = match reader.is_done() {
                    true => reader.head(&mut input).map(|head| {
                        heads += u32::from(head.is_some());
                        head.is_some()
                    }),
                    false => reader.body(&mut input).map(|part| part.is_some()),
                };
                match more {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(refused) => told = Some(refused),
                }
            }
        }
        let shown = String::from_utf8_lossy(&pieces.concat()).into_owned();
        assert_eq!(told, Some(Refused { why, begun }), "{shown:?}");
        assert_eq!((reader.request_line(), heads), (line, count), "{shown:?}");
        input.clear();
        input.extend_from_slice(get);
        assert!(reader.head(&mut input).is_err(), "a refusal stays");
        assert!(reader.body(&mut input).is_err(), "a refusal stays");
    }
}

/// What the guard refuses in a head, the reader refuses too, in its words; and what both take is no more than this.
#[test]
fn heads_that_two_servers_could_read_differently_are_refused() {
    for (fields, why) in [
        (
            "transfer-encoding: chunked\r\ncontent-length: 5",
            Some(Framing),
        ),
        (
            "content-length: 5\r\nTransfer-Encoding: chunked",
            Some(Framing),
        ),
        ("content-length: 5\r\ncontent-length: 5", Some(Framing)),
        ("content-length: 0\r\ncontent-length: 0", Some(Framing)),
        ("content-length: 5, 5", Some(Framing)),
        ("content-length: +5", Some(Framing)),
        ("content-length: 05", Some(Framing)),
        ("content-length:", Some(Framing)),
        ("content-length: 99999999999999999999", Some(Framing)),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            Some(Framing),
        ),
        ("transfer-encoding: gzip, chunked", Some(Framing)),
        ("transfer-encoding: identity", Some(Framing)),
        ("content-length : 5", Some(Line)),
        (" content-length: 5", Some(Line)),
        ("a: b\r\n c", Some(Line)),
        ("a: b\rc", Some(Line)),
        ("a: b\nc: d", Some(Line)),
        ("a: \0", Some(Line)),
        ("a: \x7f", Some(Line)),
        (": b", Some(Line)),
        ("a", Some(Line)),
        ("content-length: 0", None),
        ("Transfer-Encoding: CHUNKED", None),
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
        for size in [1, 7, bytes.len()] {
            let (_, refused, _) = read(bytes.as_bytes().chunks(size));
            assert_eq!(refused.map(|one| one.why), why, "{fields:?} by {size}");
        }
        assert_eq!(
            guarded(bytes.as_bytes()).1.map(|one| one.why),
            why,
            "{fields:?}"
        );
    }
    let old = b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(read([&old[..]]).1.map(|one| one.why), Some(Framing));
}

#[test]
fn a_head_that_comes_byte_by_byte_costs_no_more_than_its_length() {
    let field = "x: y\r\n";
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", field.repeat(100));
    let mut reader = RequestReader::new(LIMITS);
    let mut input = BytesMut::new();
    for (at, byte) in head.bytes().enumerate() {
        input.extend_from_slice(&[byte]);
        let whole = reader.head(&mut input).expect("exact").is_some();
        assert_eq!(whole, at + 1 == head.len());
        assert!(whole || reader.judged == at + 1, "judged once");
    }
    assert!(
        reader.guard.is_none() && input.capacity() == 0,
        "nothing is kept"
    );
}

/// Otherwise each would cost what is left of all that was sent with it.
#[test]
fn heads_after_empty_lines_are_judged_to_their_end_and_no_further() {
    let one = b"\r\nG / HTTP/1.1\r\nhost:a\r\n\r\n";
    let mut input = BytesMut::from(&one.repeat(1_000)[..]);
    let mut reader = RequestReader::new(LIMITS);
    let mut count = 0;
    while reader.head(&mut input).expect("exact").is_some() {
        assert_eq!(reader.judged, one.len());
        count += 1;
    }
    assert_eq!(count, 1_000);
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        Just(b"GET /a?b HTTP/1.1\r\nhost: cart\r\n\r\n".to_vec()),
        Just(b"\r\nHEAD / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_vec()),
        Just(b"OPTIONS * HTTP/1.1\r\nA!#$%&'*+.^_`|~-:b\r\n\r\n".to_vec()),
        Just(b"GET http://cart:80/x HTTP/1.1\r\nhost: \t cart:80 \t\r\n\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_vec()),
        Just(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n\r\n\r\n".to_vec()),
        framed(),
        Just(b"POST / HTTP/1.1\r\nContent-Length: 0\r\nexpect: 100-continue\r\n\r\n".to_vec()),
        Just(
            b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA;q\r\n0123456789\r\n0\r\n\r\n"
                .to_vec()
        ),
        Just(
            b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\r\n"
                .to_vec()
        ),
    ];
    proptest::collection::vec(one, 1..6).prop_map(|requests| requests.concat())
}

/// A request that may say its length in more ways than one.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    let field = prop::sample::select(vec![
        "content-length: 0\r\n",
        "Content-Length: 5\r\n",
        "transfer-encoding: chunked\r\n",
        "Connection: close\r\n",
        "upgrade: x\r\n",
    ]);
    let version = prop::sample::select(vec!["1.1", "1.0"]);
    let fields = proptest::collection::vec(field, 0..4);
    (version, fields).prop_map(|(version, fields)| {
        format!("POST / HTTP/{version}\r\n{}\r\n", fields.concat()).into_bytes()
    })
}

fn one_byte() -> impl Strategy<Value = u8> {
    let odd = prop::sample::select(&b"\r\n\t 0:;#,xX\0\x7f\x80\xff"[..]);
    prop_oneof![any::<u8>(), odd]
}

type Change = (prop::sample::Index, u8, u8);

/// Puts a byte in the place of another, beside it, or takes it away.
fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (at, byte, how) in changes {
        let at = at.index(bytes.len());
        match how % 3 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            _ if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = (any::<prop::sample::Index>(), one_byte(), any::<u8>());
    proptest::collection::vec(one, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The reader takes what the guard takes, and says what it says.
    #[test]
    fn the_guard_is_the_judge(bytes in requests(), changes in changes()) {
        let bytes = changed(bytes, &changes);
        let (all, refused, rest) = read([&bytes[..]]);
        let (heads, by_guard, between) = guarded(&bytes);
        let shown = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(refused, by_guard, "{:?}", shown);
        prop_assert_eq!(all.len() as u64, heads, "{:?}", shown);
        let whole = all.iter().all(|one| one.whole) && rest.is_empty();
        prop_assert_eq!(refused.is_none() && whole, between, "{:?}", shown);
    }

    /// However bytes are cut, they are read in one way: only how far a request had got that is refused for its body can differ.
    #[test]
    fn cuts_change_nothing(bytes in requests(), changes in changes(), size in 1..64_usize) {
        let bytes = changed(bytes, &changes);
        let (mut all, refused, rest) = read([&bytes[..]]);
        let (mut cut, cut_refused, cut_rest) = read(bytes.chunks(size));
        let shown = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(refused.map(|one| one.why), cut_refused.map(|one| one.why), "{:?}", shown);
        if refused.is_some() {
            cut.retain(|one| one.whole);
            all.retain(|one| one.whole);
        }
        prop_assert_eq!(all, cut, "{:?}", shown);
        prop_assert_eq!(rest, cut_rest, "{:?}", shown);
    }

    /// Whatever head is read, httparse, which is more lenient, reads too, with the same words and fields.
    #[test]
    fn nothing_is_read_that_others_would_not(bytes in requests(), changes in changes()) {
        let bytes = changed(bytes, &changes);
        let mut reader = RequestReader::new(LIMITS);
        if let Ok(Some(head)) = reader.head(&mut BytesMut::from(&bytes[..])) {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut other = httparse::Request::new(&mut fields);
            prop_assert!(matches!(other.parse(&bytes), Ok(httparse::Status::Complete(_))), "{:?}", bytes);
            prop_assert_eq!(other.method, Some(head.parts.method.as_str()));
            let target = other.path.expect("a target").parse::<Uri>().expect("a target");
            prop_assert_eq!(target, head.parts.uri);
            prop_assert_eq!(other.version == Some(1), head.parts.version == Version::HTTP_11);
            prop_assert_eq!(other.headers.len(), head.parts.headers.len());
            for field in other.headers.iter() {
                let mut values = head.parts.headers.get_all(field.name).iter();
                prop_assert!(values.any(|value| value.as_bytes() == field.value), "{:?}", field);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(one_byte(), 0..200), size in 1..20_usize) {
        read(bytes.chunks(size));
    }
}

#[test]
fn limits_are_the_guards() {
    let start = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for (bytes, why) in [
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)),
            HeadersTooLarge,
        ),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(4_096)),
            HeadersTooLarge,
        ),
        (format!("GET /{}", "a".repeat(4_096)), HeadersTooLarge),
        (format!("{start}5;{}", "a".repeat(256)), Chunks),
        (format!("{start}{}", "1\r\nx\r\n".repeat(100_000)), Chunks),
        (
            format!("{start}{}", "5;a=bcd\r\nhello\r\n".repeat(2_000)),
            Chunks,
        ),
        (
            format!("{start}0\r\n{}", "x: y\r\n".repeat(101)),
            HeadersTooLarge,
        ),
        (
            format!("{start}0\r\nx: {}", "y".repeat(8_192)),
            HeadersTooLarge,
        ),
    ] {
        for size in [bytes.len(), 1_000, 61] {
            let (_, refused, _) = read(bytes.as_bytes().chunks(size));
            assert_eq!(
                refused.map(|one| one.why),
                Some(why),
                "{bytes:.80} by {size}"
            );
        }
        assert_eq!(guarded(bytes.as_bytes()).1.map(|one| one.why), Some(why));
    }
    for bytes in [
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100)),
        format!("{start}{}0\r\n\r\n", "5\r\nhello\r\n".repeat(100_000)),
        format!("{start}0\r\n{}\r\n", "x: y\r\n".repeat(100)),
    ] {
        let (all, refused, _) = read([bytes.as_bytes()]);
        assert!(
            refused.is_none() && all.len() == 1 && all[0].whole,
            "{bytes:.80}"
        );
    }
}
