//! Heads as they go out, and responses as they come: exact ones, doubtful ones, in pieces, beside another reader.

use super::request::put_head;
use super::response::{Part, ResponseError, ResponseLimits, ResponseReader};
use super::writer::WrongLength;
use bytes::BytesMut;
use http::{HeaderMap, Method, Request, request};
use proptest::prelude::*;

const LIMITS: ResponseLimits = ResponseLimits {
    head_bytes_max: 64 * 1024,
    fields_max: 100,
};

/// All of one response, and what was left over.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    done: bool,
    reusable: bool,
    rest: Vec<u8>,
}

/// Reads a response that comes in these pieces; `closes`: the connection ends after them.
fn read<'a>(
    bodiless: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    closes: bool,
) -> Result<Whole, ResponseError> {
    let mut reader = ResponseReader::new(bodiless, LIMITS);
    let (mut input, mut whole) = (BytesMut::new(), Whole::default());
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(part) = reader.next(&mut input)? {
            match part {
                Part::Head(head) => {
                    assert_eq!(whole.status, 0, "one head");
                    whole.status = head.status.as_u16();
                    whole.headers = head.headers;
                }
                Part::Data(data) => {
                    assert!(!data.is_empty() && whole.status != 0);
                    whole.body.extend_from_slice(&data);
                }
                Part::Trailers(trailers) => whole.trailers = Some(trailers),
            }
        }
    }
    if closes {
        reader.on_close()?;
    }
    whole.done = reader.is_done();
    whole.reusable = reader.leaves_reusable(&input);
    whole.rest = input.to_vec();
    Ok(whole)
}

fn once(bytes: &[u8]) -> Result<Whole, ResponseError> {
    read(false, [bytes], false)
}

#[test]
fn responses_are_framed_as_rfc_9112_section_6_3_says() {
    for (bodiless, bytes, status, body, reusable) in [
        (false, &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], 200, &b"ok"[..], true),
        (false, b"HTTP/1.1 200\r\nContent-Length:  0 \t\r\n\r\n", 200, b"", true),
        (false, b"HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, b"hello", true),
        (true, b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n", 200, b"", true),
        (true, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, b"", true),
        (false, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n\r\n", 304, b"", true),
        (false, b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", true),
        (false, b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204, b"", true),
        (false, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x", true),
        (false, b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\nx", 200, b"x", true),
        // Nobody says that it stays, or somebody says that it closes.
        (false, b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x", false),
        (false, b"HTTP/1.1 200 OK\r\nconnection: a, Close\r\ncontent-length: 1\r\n\r\nx", 200, b"x", false),
        (false, b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", 200, b"x", false),
        // A length where there is no body may be meant (H1-13).
        (false, b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204, b"", false),
        (false, b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", 204, b"", false),
    ] {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let whole = read(bodiless, [bytes], false).expect(&shown);
        let seen = (whole.status, &whole.body[..], whole.done, whole.reusable);
        assert_eq!(seen, (status, body, true, reusable), "{shown}");
    }
}

#[test]
fn a_body_without_a_length_ends_with_its_connection_and_no_other_does() {
    let bytes = b"HTTP/1.1 200 OK\r\n\r\nall of it";
    let whole = read(false, [&bytes[..]], true).expect("a response");
    assert_eq!(
        (&whole.body[..], whole.done, whole.reusable),
        (&b"all of it"[..], true, false)
    );
    let open = once(bytes).expect("a response");
    assert!(!open.done && !open.reusable);
    for cut in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_eq!(
            read(false, [cut], true),
            Err(ResponseError::CutOff),
            "{cut:?}"
        );
    }
}

/// H1-12, H1-13.
#[test]
fn what_comes_after_a_response_is_never_taken_for_anything() {
    for (bodiless, bytes) in [
        (false, &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!"[..]),
        (false, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\r\n"),
        (true, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (false, b"HTTP/1.1 204 No Content\r\n\r\nok"),
        (false, b"HTTP/1.1 304 Not Modified\r\n\r\n0\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n"),
        (false, b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\nframes"),
    ] {
        let whole = read(bodiless, [bytes], false).expect("a response");
        assert!(whole.done && !whole.reusable && !whole.rest.is_empty(), "{whole:?}");
    }
    let switched = once(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").expect("a response");
    assert!(switched.done && !switched.reusable, "{switched:?}");
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    use ResponseError::{Chunks, Framing, Line, StatusLine, TooLarge};
    let with = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let chunks =
        |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    let many = |count: usize| "a: b\r\n".repeat(count);
    for (what, bytes, why) in [
        (
            "CL and TE",
            with("content-length: 5\r\ntransfer-encoding: chunked"),
            Framing,
        ),
        (
            "TE and CL",
            with("transfer-encoding: chunked\r\ncontent-length: 5"),
            Framing,
        ),
        (
            "two lengths",
            with("content-length: 5\r\ncontent-length: 6"),
            Framing,
        ),
        (
            "the same length twice",
            with("content-length: 5\r\ncontent-length: 5"),
            Framing,
        ),
        ("a list of lengths", with("content-length: 5, 5"), Framing),
        ("a signed length", with("content-length: +5"), Framing),
        (
            "a length in hexadecimal",
            with("content-length: 0x5"),
            Framing,
        ),
        (
            "a length with a leading zero",
            with("content-length: 05"),
            Framing,
        ),
        (
            "a length past all numbers",
            with("content-length: 99999999999999999999"),
            Framing,
        ),
        ("no length", with("content-length:"), Framing),
        ("another coding", with("transfer-encoding: gzip"), Framing),
        (
            "a list of codings",
            with("transfer-encoding: gzip, chunked"),
            Framing,
        ),
        (
            "two codings",
            with("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            Framing,
        ),
        (
            "chunks in 1.0",
            with("transfer-encoding: chunked").replace("1.1", "1.0"),
            Framing,
        ),
        (
            "a body in 100",
            "HTTP/1.1 100 Continue\r\ncontent-length: 1\r\n\r\nx".into(),
            Framing,
        ),
        (
            "chunks in 101",
            "HTTP/1.1 101 S\r\ntransfer-encoding: chunked\r\n\r\n".into(),
            Framing,
        ),
        ("a folded line", with("a: b\r\n c"), Line),
        ("a line folded with a tab", with("a: b\r\n\tc: d"), Line),
        ("LF alone", with("a: b\nc: d"), Line),
        (
            "LF alone from the first line on",
            "HTTP/1.1 200 OK\ncontent-length: 0\n\n".into(),
            Line,
        ),
        ("CR in a value", with("a: b\rc: d"), Line),
        ("NUL in a value", with("a: \0"), Line),
        ("a blank after a name", with("a : b"), Line),
        ("a blank in a name", with("a b: c"), Line),
        ("no name", with(": b"), Line),
        ("no colon", with("ab"), Line),
        (
            "another version",
            with("a: b").replace("1.1", "2.0"),
            StatusLine,
        ),
        (
            "a version of three digits",
            with("a: b").replace("1.1", "1.01"),
            StatusLine,
        ),
        ("no version", "200 OK\r\n\r\n".into(), StatusLine),
        (
            "a status of two digits",
            with("a: b").replace("200", "20"),
            StatusLine,
        ),
        (
            "a status of four digits",
            with("a: b").replace("200", "2000"),
            StatusLine,
        ),
        (
            "a signed status",
            with("a: b").replace("200", "+20"),
            StatusLine,
        ),
        (
            "two blanks",
            with("a: b").replace(" 200", "  200"),
            StatusLine,
        ),
        (
            "a control byte in the reason",
            with("a: b").replace("OK", "\x1b[31m"),
            StatusLine,
        ),
        (
            "an empty line first",
            format!("\r\n{}", with("a: b")),
            StatusLine,
        ),
        (
            "no response at all",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
            StatusLine,
        ),
        ("too many fields", with(many(101).trim_end()), TooLarge),
        (
            "too long a head",
            with(&format!("a: {}", "b".repeat(64 * 1024))),
            TooLarge,
        ),
        (
            "too long a head without an end",
            format!("HTTP/1.1 200 {}", "O".repeat(64 * 1024)),
            TooLarge,
        ),
        (
            "endless interim heads",
            "HTTP/1.1 102 P\r\n\r\n".repeat(4_000),
            TooLarge,
        ),
        ("no size", chunks("\r\n"), Chunks),
        ("a size of no digits", chunks("x\r\n"), Chunks),
        ("a signed size", chunks("+1\r\na\r\n"), Chunks),
        ("a size with 0x", chunks("0x1\r\na\r\n"), Chunks),
        ("a blank before a size", chunks(" 1\r\na\r\n"), Chunks),
        ("a blank after a size", chunks("1 \r\na\r\n"), Chunks),
        (
            "a size past all numbers",
            chunks("ffffffffffffffffff\r\n"),
            Chunks,
        ),
        ("a size line that ends in LF", chunks("1\na\r\n"), Chunks),
        (
            "a chunk that ends in LF",
            chunks("1\r\na\n0\r\n\r\n"),
            Chunks,
        ),
        (
            "a chunk longer than its size",
            chunks("1\r\nab\r\n"),
            Chunks,
        ),
        ("CR and then something", chunks("1\r\na\rb"), Chunks),
        (
            "a control byte in an extension",
            chunks("1;\x01\r\na\r\n"),
            Chunks,
        ),
        (
            "a long extension",
            chunks(&format!("1;{}\r\na\r\n", "x".repeat(300))),
            TooLarge,
        ),
        (
            "a size line without an end",
            chunks(&"1".repeat(300)),
            TooLarge,
        ),
        (
            "extensions without end",
            chunks(&format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(90)),
            TooLarge,
        ),
        ("a folded trailer", chunks("0\r\na: b\r\n c\r\n\r\n"), Line),
        ("a trailer that ends in LF", chunks("0\r\na: b\n\r\n"), Line),
        (
            "too many trailers",
            chunks(&format!("0\r\n{}\r\n", many(101))),
            TooLarge,
        ),
        (
            "too long trailers",
            chunks(&format!("0\r\na: {}\r\n\r\n", "b".repeat(17_000))),
            TooLarge,
        ),
    ] {
        assert_eq!(once(bytes.as_bytes()), Err(why), "{what}: {bytes:.200?}");
        let bytewise = bytes.as_bytes().chunks(1);
        assert_eq!(
            read(false, bytewise, false),
            Err(why),
            "{what}, byte by byte"
        );
    }
}

#[test]
fn a_refused_response_stays_refused() {
    let mut reader = ResponseReader::new(false, LIMITS);
    let mut input = BytesMut::from(&b"HTTP/1.1 200 OK\n\n"[..]);
    assert!(matches!(reader.next(&mut input), Err(ResponseError::Line)));
    input = BytesMut::from(&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..]);
    assert!(matches!(reader.next(&mut input), Err(ResponseError::Line)));
    assert_eq!(reader.on_close(), Err(ResponseError::Line));
    assert!(!reader.leaves_reusable(b""));
}

#[test]
fn trailers_are_read() {
    let whole = once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nCheck: 1\r\n\r\n");
    let whole = whole.expect("a response");
    assert_eq!(
        whole
            .trailers
            .expect("trailers")
            .get("check")
            .expect("a field"),
        "1"
    );
    assert!(whole.reusable);
}

fn parts(method: Method, target: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

#[test]
fn requests_have_one_form() {
    for (length, said, body, text) in [
        (
            Some(0),
            None,
            &b""[..],
            "POST /a?b HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        (
            Some(0),
            Some("0"),
            b"",
            "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            Some(3),
            None,
            b"abc",
            "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            Some(3),
            Some("3"),
            b"abc",
            "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            None,
            Some("3"),
            b"abc",
            "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            None,
            None,
            b"abc",
            "POST /a?b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            None,
            None,
            b"",
            "POST /a?b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let mut fields = vec![("Host", "h"), ("Transfer-Encoding", "gzip")];
        fields.extend(said.map(|said| ("Content-Length", said)));
        let parts = parts(Method::POST, "/a?b", &fields);
        let mut out = Vec::new();
        let mut writer = put_head(&mut out, &parts, length).expect("one length");
        let after = writer.before_data(&mut out, body.len()).expect("as said");
        out.extend_from_slice(body);
        out.extend_from_slice(after);
        writer.end(&mut out).expect("as said");
        assert_eq!(String::from_utf8_lossy(&out), text);
        assert!(writer.is_done());
    }
    // A body of GET is framed like any other (H1-9).
    let mut out = Vec::new();
    put_head(&mut out, &parts(Method::GET, "*", &[]), None).expect("no length");
    assert_eq!(out, b"GET * HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
}

#[test]
fn a_body_that_is_not_as_long_as_its_head_says_is_not_sent() {
    let begin = |said: &[&str], length| {
        let fields: Vec<_> = said.iter().map(|said| ("content-length", *said)).collect();
        put_head(&mut Vec::new(), &parts(Method::POST, "/", &fields), length)
    };
    for (said, length) in [
        (&["5"][..], Some(0)),
        (&["5"], Some(6)),
        (&["0"], Some(1)),
        (&["5", "5"], None),
        (&["5, 5"], None),
        (&["+5"], None),
        (&["05"], Some(5)),
        (&[""], Some(0)),
    ] {
        assert_eq!(begin(said, length), Err(WrongLength), "{said:?} {length:?}");
    }
    let mut short = begin(&["5"], None).expect("one length");
    assert_eq!(short.before_data(&mut Vec::new(), 4), Ok(&b""[..]));
    assert_eq!(short.end(&mut Vec::new()), Err(WrongLength));
    let mut long = begin(&["5"], None).expect("one length");
    assert_eq!(long.before_data(&mut Vec::new(), 6), Err(WrongLength));
}

/// Bytes of a response, and what they say: status, fields, body.
type Meant = (Vec<u8>, u16, Vec<(String, String)>, Vec<u8>);

/// A response, as one that keeps to the standard might send it.
fn some_response() -> impl Strategy<Value = Meant> {
    let name = "x-[a-z0-9!#$%&'*+.^_`|~-]{1,12}";
    let value = "([!-~]([ -~\t]{0,20}[!-~])?)?";
    let fields = proptest::collection::vec((name, value), 0..8);
    let pieces = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5);
    let status = 200..600_u16;
    (status, fields, pieces, any::<bool>()).prop_map(|(status, fields, pieces, chunked)| {
        let mut out = format!("HTTP/1.1 {status} Some Reason\r\n").into_bytes();
        for (name, value) in &fields {
            out.extend(format!("{name}:  {value}\t\r\n").bytes());
        }
        let bodiless = matches!(status, 204 | 304);
        let body = if bodiless {
            Vec::new()
        } else {
            pieces.concat()
        };
        if bodiless {
            out.extend(b"\r\n");
        } else if chunked {
            out.extend(b"transfer-encoding: chunked\r\n\r\n");
            for piece in &pieces {
                out.extend(format!("{:X};q\r\n", piece.len()).bytes());
                out.extend([piece, &b"\r\n"[..]].concat());
            }
            out.extend(b"0\r\n\r\n");
        } else {
            out.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
            out.extend(&body);
        }
        (out, status, fields, body)
    })
}

proptest! {
    /// However it is cut, a response is what was sent, and nothing is left of it.
    #[test]
    fn exact_responses_are_read_as_they_were_meant((bytes, status, fields, body) in some_response(), size in 1..64_usize) {
        let whole = read(false, bytes.chunks(size), false).expect("exact");
        prop_assert_eq!(whole.status, status);
        prop_assert_eq!(whole.body, body);
        prop_assert!(whole.reusable);
        for (name, value) in fields {
            let values: Vec<_> = whole.headers.get_all(&name).iter().map(|v| v.as_bytes().to_vec()).collect();
            prop_assert!(values.contains(&value.into_bytes()), "{}: {:?}", name, values);
        }
    }

    /// However mangled bytes are cut, they are read in one way.
    #[test]
    fn cuts_change_nothing((mut bytes, ..) in some_response(), at in any::<prop::sample::Index>(), with in any::<u8>(), size in 1..64_usize, closes in any::<bool>()) {
        let at = at.index(bytes.len());
        bytes[at] = with;
        let whole = read(false, [&bytes[..]], closes);
        prop_assert_eq!(whole, read(false, bytes.chunks(size), closes));
    }

    /// Whatever is read, httparse, which is more lenient, reads too, with the same status and fields.
    #[test]
    fn nothing_is_read_that_others_would_not((mut bytes, ..) in some_response(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let at = at.index(bytes.len());
        bytes[at] = with;
        let mut reader = ResponseReader::new(true, LIMITS);
        if let Ok(Some(Part::Head(head))) = reader.next(&mut BytesMut::from(&bytes[..])) {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut other = httparse::Response::new(&mut fields);
            prop_assert!(matches!(other.parse(&bytes), Ok(httparse::Status::Complete(_))), "{:?}", bytes);
            prop_assert_eq!(other.code, Some(head.status.as_u16()));
            prop_assert_eq!(other.headers.len(), head.headers.len());
            for field in other.headers.iter() {
                let mut values = head.headers.get_all(field.name).iter();
                prop_assert!(values.any(|value| value.as_bytes() == field.value), "{:?}", field);
            }
        }
    }
}
