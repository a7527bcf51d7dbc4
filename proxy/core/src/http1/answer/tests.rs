//! Heads of answers: their framing in every case, and that no two lengths ever go out.

use super::*;
use http::{HeaderName, HeaderValue, Response};
use proptest::prelude::*;

const GET: Asked = Asked {
    http11: true,
    head: false,
    may_switch: false,
    persists: true,
};
const HEAD: Asked = Asked { head: true, ..GET };
const OLD: Asked = Asked {
    http11: false,
    ..GET
};

fn parts(status: u16, fields: &[(&str, &str)]) -> Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).expect("a response").into_parts().0
}

#[test]
fn answers_are_framed_by_what_is_asked_and_what_is_known() {
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    for (asked, status, said, length, head, closes, sends) in [
        (
            GET,
            200,
            None,
            Some(2),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
            false,
            true,
        ),
        (
            GET,
            200,
            Some("2"),
            Some(2),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
            false,
            true,
        ),
        (
            GET,
            200,
            Some("2"),
            None,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
            false,
            true,
        ),
        (
            GET,
            200,
            None,
            Some(0),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n",
            false,
            false,
        ),
        (
            GET,
            404,
            None,
            None,
            &format!("HTTP/1.1 404 Not Found\r\n{CHUNKED}"),
            false,
            true,
        ),
        (
            GET,
            299,
            None,
            Some(0),
            "HTTP/1.1 299 \r\ncontent-length: 0\r\n",
            false,
            false,
        ),
        (
            GET,
            204,
            None,
            Some(0),
            "HTTP/1.1 204 No Content\r\n",
            false,
            false,
        ),
        (
            GET,
            204,
            Some("0"),
            None,
            "HTTP/1.1 204 No Content\r\n",
            false,
            false,
        ),
        (
            GET,
            304,
            None,
            Some(0),
            "HTTP/1.1 304 Not Modified\r\n",
            false,
            false,
        ),
        (
            GET,
            304,
            Some("12"),
            Some(0),
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n",
            false,
            false,
        ),
        (
            HEAD,
            200,
            Some("12"),
            Some(0),
            "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n",
            false,
            false,
        ),
        (
            HEAD,
            200,
            None,
            Some(0),
            "HTTP/1.1 200 OK\r\n",
            false,
            false,
        ),
        (HEAD, 200, None, None, "HTTP/1.1 200 OK\r\n", false, false),
        (
            HEAD,
            403,
            None,
            Some(6),
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n",
            false,
            false,
        ),
        (
            OLD,
            200,
            None,
            Some(2),
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n",
            false,
            true,
        ),
        (
            OLD,
            200,
            None,
            None,
            "HTTP/1.0 200 OK\r\nconnection: close\r\n",
            true,
            true,
        ),
        (
            Asked { head: true, ..OLD },
            200,
            None,
            None,
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n",
            false,
            false,
        ),
        (
            Asked {
                persists: false,
                ..GET
            },
            200,
            None,
            Some(0),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n",
            true,
            false,
        ),
    ] {
        let fields: Vec<_> = said.iter().map(|said| ("content-length", *said)).collect();
        let mut out = Vec::new();
        let begun =
            put_head(&mut out, &parts(status, &fields), asked, length, false).expect("an answer");
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("{head}\r\n"),
            "{status} {asked:?}"
        );
        assert_eq!(
            (begun.closes, !begun.body.is_done()),
            (closes, sends),
            "{head}"
        );
    }
}

#[test]
fn an_answer_that_says_close_closes_and_says_it_once() {
    for (asked, fields, closes) in [
        (GET, &[("connection", "close")][..], false),
        (
            GET,
            &[("connection", "x, Close"), ("connection", "keep-alive")],
            false,
        ),
        (GET, &[("connection", "keep-alive")], true),
        (OLD, &[("connection", "close")], true),
    ] {
        let mut out = Vec::new();
        let begun =
            put_head(&mut out, &parts(200, fields), asked, Some(0), closes).expect("an answer");
        let text = String::from_utf8(out).expect("text");
        assert!(begun.closes, "{text}");
        assert_eq!(text.matches("onnection").count(), 1, "{text}");
        assert!(text.ends_with("connection: close\r\n\r\n"), "{text}");
    }
}

#[test]
fn what_would_end_or_begin_something_unasked_is_not_written() {
    let switching = [("connection", "upgrade"), ("upgrade", "websocket")];
    for status in [100, 101, 102, 103, 150] {
        let mut out = Vec::new();
        let told = put_head(&mut out, &parts(status, &switching), GET, Some(0), false);
        assert_eq!(
            (told, &*out),
            (Err(Unspeakable::Status), &b""[..]),
            "{status}"
        );
    }
    let may = Asked {
        may_switch: true,
        ..GET
    };
    let mut out = Vec::new();
    let interim = put_head(&mut out, &parts(100, &switching), may, Some(0), false);
    assert_eq!(interim, Err(Unspeakable::Status));
    let begun =
        put_head(&mut out, &parts(101, &switching), may, Some(0), true).expect("it was asked");
    assert!(begun.body.is_done());
    let want =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), want);
}

#[test]
fn an_answer_of_two_lengths_is_not_written() {
    for (said, length) in [
        (&["5"][..], Some(0)),
        (&["5"], Some(6)),
        (&["0"], Some(1)),
        (&["5", "5"], Some(5)),
        (&["5, 5"], None),
        (&["+5"], Some(5)),
        (&["05"], Some(5)),
        (&[""], Some(0)),
    ] {
        let fields: Vec<_> = said.iter().map(|said| ("content-length", *said)).collect();
        let mut out = Vec::new();
        let told = put_head(&mut out, &parts(200, &fields), GET, length, false);
        assert_eq!(
            (told, &*out),
            (Err(Unspeakable::Length(WrongLength)), &b""[..]),
            "{said:?}"
        );
    }
    // A body that is then not as long is broken off.
    let mut begun = put_head(
        &mut Vec::new(),
        &parts(200, &[("content-length", "5")]),
        GET,
        None,
        false,
    )
    .expect("one length");
    assert!(begun.body.before_data(&mut Vec::new(), 6).is_err());
    assert!(begun.body.before_data(&mut Vec::new(), 4).is_ok());
    assert!(begun.body.end(&mut Vec::new()).is_err());
}

#[test]
fn lengths_are_written_as_they_are() {
    for length in [1, 9, 10, 99, 100, 1_234_567_890, u64::MAX] {
        let mut out = Vec::new();
        put_length(&mut out, length);
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("content-length: {length}\r\n")
        );
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    any::<[bool; 4]>().prop_map(|[http11, head, may_switch, persists]| Asked {
        http11,
        head,
        may_switch,
        persists,
    })
}

proptest! {
    /// Whatever an answer holds, its head has one reading: that of another parser, with one length or one coding.
    #[test]
    fn a_head_is_read_as_it_is_meant(
        asked in asked(),
        status in 100..600_u16,
        fields in proptest::collection::vec(("x-[a-z0-9]{1,8}|connection|transfer-encoding|content-length|upgrade", proptest::collection::vec(any::<u8>(), 0..12)), 0..6),
        length in proptest::option::of(any::<u64>()),
        closes in any::<bool>(),
    ) {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).expect("a status");
        for (name, value) in fields {
            let name = HeaderName::try_from(name).expect("a name");
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                parts.headers.append(name, value);
            }
        }
        let mut out = Vec::new();
        if let Ok(begun) = put_head(&mut out, &parts, asked, length, closes) {
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut read = httparse::Response::new(&mut fields);
            prop_assert_eq!(read.parse(&out), Ok(httparse::Status::Complete(out.len())));
            prop_assert_eq!(read.code, Some(status));
            let count = |name: &str| read.headers.iter().filter(|field| field.name == name).count();
            let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
            prop_assert!(lengths + codings <= 1);
            let bodiless = asked.head || matches!(status, 101 | 204 | 304);
            prop_assert!(!bodiless || begun.body.is_done() && codings == 0);
            prop_assert!(bodiless || lengths + codings == 1 || begun.closes);
            prop_assert!(asked.http11 || codings == 0);
            let says_close = read.headers.iter().any(|field| field.name == "connection" && field.value == b"close");
            prop_assert!(status == 101 || says_close == begun.closes);
            prop_assert!(begun.closes || asked.persists && !closes);
        }
    }
}
