//! The rules of a connection, each broken once; and two engines that talk, with what they may not forget.

use super::place::TAKEN;
use super::*;
use crate::mux::MuxError;
use crate::mux::frame::HEAD_LEN;
use crate::mux::head::Malformed;
use bytes::BytesMut;
use http::{Request, Response};
use proptest::prelude::*;

fn hand_over(
    from: &mut Engine,
    to: &mut Engine,
    input: &mut BytesMut,
    events: &mut Vec<Event>,
    piece: usize,
) {
    let bytes = from.out().len().min(piece);
    input.extend_from_slice(&from.out()[..bytes]);
    from.wrote(bytes);
    to.feed(input, events).unwrap();
}

/// Both ends of one connection.
struct Pair {
    client: Engine,
    server: Engine,
    towards: [BytesMut; 2],
}

impl Pair {
    fn new() -> Self {
        Self {
            client: Engine::new(Role::Client),
            server: Engine::new(Role::Server),
            towards: [BytesMut::new(), BytesMut::new()],
        }
    }

    /// Carries everything over, in pieces of `piece` bytes.
    fn carry(&mut self, piece: usize) -> (Vec<Event>, Vec<Event>) {
        let [to_client, to_server] = &mut self.towards;
        let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
        while !self.client.out().is_empty() || !self.server.out().is_empty() {
            let (client, server) = (&mut self.client, &mut self.server);
            hand_over(client, server, to_server, &mut at_server, piece);
            hand_over(server, client, to_client, &mut at_client, piece);
        }
        (at_client, at_server)
    }

    /// A stream that the server knows.
    fn opened(&mut self, request: Request<()>, end: bool) -> (StreamId, request::Parts) {
        let id = self.client.open(&request.into_parts().0, end).unwrap();
        let (_, events) = self.carry(usize::MAX);
        let [
            Event::Request {
                id: there,
                parts,
                end: ended,
            },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((*there, *ended), (id, end));
        (id, parts.as_ref().clone())
    }

    fn answered(&mut self, id: StreamId, response: Response<()>, end: bool) {
        assert!(self.server.respond(id, &response.into_parts().0, end));
        self.carry(usize::MAX);
    }
}

fn get() -> Request<()> {
    Request::get("http://cart:8080/a?b=c").body(()).unwrap()
}

fn post() -> Request<()> {
    Request::post("/upload").body(()).unwrap()
}

fn ok() -> Response<()> {
    Response::new(())
}

fn all(engine: &mut Engine, id: StreamId) -> Vec<u8> {
    let mut all = Vec::new();
    while let Taken::Data(data) = engine.take(id) {
        all.extend_from_slice(&data);
    }
    all
}

/// What the server says to bytes; a head first, so that a stream is there.
fn refused(bytes: &[u8]) -> MuxError {
    let mut pair = Pair::new();
    pair.opened(post(), false);
    pair.server
        .feed(&mut BytesMut::from(bytes), &mut Vec::new())
        .expect_err("a rule is broken")
}

/// A frame for the stream of [`refused`].
fn frame(kind: Kind, end: bool, payload: &[u8]) -> Vec<u8> {
    frame_on(StreamId::new(0, 1), kind, end, payload)
}

fn frame_on(id: StreamId, kind: Kind, end: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&mut out, kind, end, id, payload.len());
    out.extend_from_slice(payload);
    out
}

fn head_of(request: Request<()>) -> Vec<u8> {
    let mut out = Vec::new();
    head::put_request(&mut out, &request.into_parts().0);
    out
}

#[test]
fn a_request_and_its_answer() {
    let mut pair = Pair::new();
    let request = Request::post("http://cart:8080/a?b=c")
        .header("x-one", "1")
        .header("x-one", "2")
        .body(())
        .unwrap();
    let (id, parts) = pair.opened(request, false);
    assert_eq!(parts.uri, "http://cart:8080/a?b=c");
    assert_eq!(parts.headers.get_all("x-one").iter().count(), 2);
    assert_eq!(
        pair.client
            .send_data(id, &mut Bytes::from_static(b"body"), false),
        Sent::All
    );
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    pair.client.send_trailers(id, &trailers);
    pair.carry(1);
    assert!(matches!(pair.server.take(id), Taken::Data(data) if data == "body"));
    assert!(matches!(pair.server.take(id), Taken::Trailers(came) if came == trailers));
    assert!(matches!(pair.server.take(id), Taken::End));
    pair.answered(id, ok(), false);
    assert_eq!(pair.client.take_response(id).unwrap().unwrap().status, 200);
    assert_eq!(
        pair.server
            .send_data(id, &mut Bytes::from_static(b"there"), true),
        Sent::All
    );
    pair.server.finish(id);
    pair.carry(3);
    assert_eq!(all(&mut pair.client, id), b"there");
    assert!(pair.client.is_read(id));
    pair.client.abandon(id);
    assert!(
        pair.client.out().is_empty(),
        "a stream that is over needs no reset"
    );
    assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
}

#[test]
fn every_target_arrives_as_it_was() {
    for target in [
        "*",
        "/",
        "/%2e%2e/a",
        "/a?",
        "/a//b?x=%00",
        "http://[::1]:1/",
        "/ü",
    ] {
        let Ok(request) = Request::options(target).body(()) else {
            continue;
        };
        let (_, parts) = Pair::new().opened(request, true);
        assert_eq!(parts.uri, target);
    }
}

#[test]
fn what_http_2_forbids_is_no_head() {
    let whole = head_of(get());
    let with =
        |field: (&str, &str)| head_of(Request::get("/").header(field.0, field.1).body(()).unwrap());
    let mut upper = with(("x-name", "v"));
    let at = upper.windows(6).position(|w| w == b"x-name").unwrap();
    upper[at] = b'X';
    let mut no_target = Vec::new();
    no_target.extend_from_slice(b"\x03GET\0\0\0\0\0\0");
    for (head, what) in [
        (whole[..whole.len() - 1].to_vec(), "cut off"),
        ([&whole[..], b"x"].concat(), "bytes after the last field"),
        (with(("connection", "close")), "a field of one connection"),
        (
            with(("transfer-encoding", "chunked")),
            "a field of one connection",
        ),
        (with(("upgrade", "websocket")), "a field of one connection"),
        (with(("te", "gzip")), "a `te` that is not `trailers`"),
        (
            b"\x03GET\0\0\0\x01/\0\x01\x01a\0\x02 x".to_vec(),
            "space around a value",
        ),
        (
            b"\x03GET\0\0\0\x01/\0\x01\x01a\0\x02x\t".to_vec(),
            "space around a value",
        ),
        (upper, "name"),
        (no_target, "no target"),
        (b"\x04G T \0\0\0\x01/\0\0".to_vec(), "method"),
        (b"\x03GET\0\x01 \0\x01/\0\0".to_vec(), "authority"),
        (b"\x03GET\0\0\0\x02/\0\0\0".to_vec(), "target"),
        (b"\x03GET\0\0\0\x01/\0\x01\x01a\0\x03a\rb".to_vec(), "value"),
        (b"\x03GET\0\0\0\x01/\xff\xff".to_vec(), "too many fields"),
    ] {
        assert_eq!(
            refused(&frame_on(StreamId::new(1, 1), Kind::Head, true, &head)),
            MuxError::Head { what },
            "{}",
            head.escape_ascii()
        );
    }
    assert_eq!(
        head::response(Bytes::from_static(b"\0\x65\0\0")).err(),
        Some(Malformed("interim status"))
    );
    assert_eq!(
        head::response(Bytes::from_static(b"\x10\0\0\0")).err(),
        Some(Malformed("status"))
    );
    assert_eq!(
        head::trailers(Bytes::from_static(b"\0\x01\x01:\0\0")),
        Err(Malformed("name"))
    );
}

#[test]
fn a_rule_that_is_broken_ends_the_connection() {
    let again = frame(Kind::Head, true, &head_of(get()));
    let out_of_turn = frame_on(StreamId::new(1, 2), Kind::Head, true, &head_of(get()));
    let far = frame_on(StreamId::new(7, 1), Kind::Head, true, &head_of(get()));
    let smuggled = Request::post("/")
        .header("content-length", "1")
        .header("content-length", "2");
    let smuggled = frame_on(
        StreamId::new(1, 1),
        Kind::Head,
        false,
        &head_of(smuggled.body(()).unwrap()),
    );
    let signed = Request::post("/")
        .header("content-length", "+1")
        .body(())
        .unwrap();
    let signed = frame_on(StreamId::new(1, 1), Kind::Head, false, &head_of(signed));
    let short = Request::post("/")
        .header("content-length", "1")
        .body(())
        .unwrap();
    let short = frame_on(StreamId::new(1, 1), Kind::Head, true, &head_of(short));
    let stranger = |kind, end, payload: &[u8]| frame_on(StreamId::new(9, 1), kind, end, payload);
    let future = |kind, end, payload: &[u8]| frame_on(StreamId::new(0, 2), kind, end, payload);
    let nobody = "a stream that nobody opened";
    for (bytes, rule) in [
        (again, "a stream out of turn"),
        (out_of_turn, "a stream out of turn"),
        (far, "a place out of turn"),
        (short, "a body shorter than its length"),
        (stranger(Kind::Data, true, b"x"), nobody),
        (stranger(Kind::Trailers, true, b"\0\0"), nobody),
        (stranger(Kind::Reset, false, b"\x01"), nobody),
        (stranger(Kind::Window, false, &[0, 0, 0, 1]), nobody),
        (future(Kind::Data, true, b"x"), nobody),
        (frame(Kind::Reset, false, b"\0"), "a client that has enough"),
        (
            frame(Kind::Window, false, &[0, 0, 0, 1]),
            "a window larger than windows are",
        ),
        (
            frame_on(StreamId::CONNECTION, Kind::Window, false, &[0xff; 4]),
            "a window larger than windows are",
        ),
        (
            [frame(Kind::Data, true, b"x"), frame(Kind::Data, true, b"x")].concat(),
            "data before a head or after an end",
        ),
        (
            [
                frame(Kind::Data, true, b"x"),
                frame(Kind::Trailers, true, b"\0\0"),
            ]
            .concat(),
            "trailers before a head or after an end",
        ),
        (
            [
                frame_on(StreamId::CONNECTION, Kind::Leave, false, b""),
                frame_on(StreamId::new(1, 1), Kind::Head, true, &head_of(get())),
            ]
            .concat(),
            "a request after leaving",
        ),
    ] {
        assert_eq!(refused(&bytes), MuxError::Rule { what: rule });
    }
    for bytes in [smuggled, signed] {
        assert_eq!(
            refused(&bytes),
            MuxError::Head {
                what: "content-length"
            }
        );
    }
    for (bytes, what) in [
        (
            frame(Kind::Reset, false, b"\x09"),
            "unknown reason of a reset",
        ),
        (frame(Kind::Window, false, &[0; 4]), "a window of nothing"),
        (frame(Kind::Data, false, b""), "data without bytes"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "unknown kind"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "unknown kind"),
    ] {
        assert_eq!(refused(&bytes), MuxError::Frame { what });
    }
}

#[test]
fn a_client_believes_no_answer_it_did_not_ask_for() {
    let refused = |frames: &[Vec<u8>]| {
        let mut client = Engine::new(Role::Client);
        client.open(&get().into_parts().0, true).unwrap();
        client
            .feed(&mut BytesMut::from(&frames.concat()[..]), &mut Vec::new())
            .expect_err("refused")
    };
    let answer = frame(Kind::Head, false, b"\0\xc8\0\0");
    let rule = |what| MuxError::Rule { what };
    assert_eq!(
        refused(&[answer.clone(), answer.clone()]),
        rule("a second response")
    );
    assert_eq!(
        refused(&[frame(Kind::Data, true, b"x")]),
        rule("data before a head or after an end")
    );
    assert_eq!(
        refused(&[frame(Kind::Trailers, true, b"\0\0")]),
        rule("trailers before a head or after an end")
    );
    let other = frame_on(StreamId::new(1, 1), Kind::Head, true, b"\0\xc8\0\0");
    assert_eq!(refused(&[other]), rule("a stream that nobody opened"));
}

#[test]
fn no_more_data_than_the_windows_allow() {
    let piece = vec![0; limits::DATA_BYTES_MAX];
    let window = limits::STREAM_WINDOW as usize / piece.len();
    let frames = vec![frame(Kind::Data, false, &piece); window + 1].concat();
    assert_eq!(
        refused(&frames),
        MuxError::Rule {
            what: "more data than the stream may send"
        }
    );
    // Of several streams: each keeps to its own window, all together to none.
    let mut pair = Pair::new();
    let streams = limits::CONNECTION_WINDOW as usize / limits::STREAM_WINDOW as usize + 1;
    let mut result = Ok(());
    for at in 0..streams {
        let (id, _) = pair.opened(post(), false);
        assert_eq!(id.place(), at);
        let frames = vec![frame_on(id, Kind::Data, false, &piece); window].concat();
        result = pair
            .server
            .feed(&mut BytesMut::from(&frames[..]), &mut Vec::new());
    }
    assert_eq!(
        result,
        Err(MuxError::Rule {
            what: "more data than the connection may send"
        })
    );
}

#[test]
fn a_slow_reader_holds_up_its_own_stream_alone() {
    let mut pair = Pair::new();
    let (slow, _) = pair.opened(post(), false);
    let (fast, _) = pair.opened(post(), false);
    let mut sent = 0;
    let mut data = Bytes::from(vec![7; 3 * limits::STREAM_WINDOW as usize]);
    let whole = data.len();
    while pair.client.send_data(slow, &mut data, true) == Sent::Blocked {
        if pair.client.out().is_empty() {
            break;
        }
        pair.carry(usize::MAX);
        sent = whole - data.len();
    }
    assert_eq!(sent, limits::STREAM_WINDOW as usize);
    assert_eq!(
        pair.client
            .send_data(fast, &mut Bytes::from_static(b"quick"), true),
        Sent::All
    );
    pair.carry(usize::MAX);
    assert_eq!(all(&mut pair.server, fast), b"quick");
    // Once it reads, the rest comes.
    let mut read = 0;
    loop {
        read += all(&mut pair.server, slow).len();
        pair.carry(usize::MAX);
        if pair.client.send_data(slow, &mut data, true) == Sent::All {
            pair.carry(usize::MAX);
            read += all(&mut pair.server, slow).len();
            break;
        }
    }
    assert_eq!(read, whole);
    assert!(pair.server.is_read(slow));
}

#[test]
fn data_that_nobody_reads_do_not_use_the_connection_up() {
    let mut pair = Pair::new();
    for _ in 0..3 * limits::CONNECTION_WINDOW / limits::STREAM_WINDOW {
        let (id, _) = pair.opened(get(), true);
        pair.answered(id, ok(), false);
        let mut data = Bytes::from(vec![0; limits::STREAM_WINDOW as usize]);
        while pair.server.send_data(id, &mut data, true) == Sent::Blocked {
            pair.carry(usize::MAX);
        }
        pair.carry(usize::MAX);
        pair.client.abandon(id);
        pair.server.finish(id);
        pair.carry(usize::MAX);
    }
}

#[test]
fn a_message_of_another_length_than_it_says_breaks_its_own_stream() {
    for (length, sent, trailers) in [
        ("5", "four", false),
        ("3", "four", false),
        ("5", "four", true),
    ] {
        let mut pair = Pair::new();
        let (other, _) = pair.opened(get(), true);
        let (id, _) = pair.opened(get(), true);
        let response = Response::builder()
            .header("content-length", length)
            .body(())
            .unwrap();
        pair.answered(id, response, false);
        pair.client.take_response(id).unwrap().unwrap();
        let end = !trailers;
        pair.server
            .send_data(id, &mut Bytes::copy_from_slice(sent.as_bytes()), end);
        if trailers {
            pair.server.send_trailers(id, &HeaderMap::new());
        }
        pair.carry(usize::MAX);
        assert!(
            matches!(pair.client.take(id), Taken::Broken),
            "{length} {sent}"
        );
        pair.answered(other, ok(), true);
        assert!(pair.client.take_response(other).unwrap().is_some());
    }
    // What a HEAD request or a 304 promises never comes.
    for (request, status) in [(Request::head("/").body(()).unwrap(), 200), (get(), 304)] {
        let mut pair = Pair::new();
        let (id, _) = pair.opened(request, true);
        let response = Response::builder()
            .status(status)
            .header("content-length", "5")
            .body(())
            .unwrap();
        pair.answered(id, response, true);
        assert!(pair.client.take_response(id).unwrap().is_some());
        assert!(pair.client.is_read(id));
    }
}

#[test]
fn an_end_before_its_time_is_no_end() {
    let mut pair = Pair::new();
    let (id, _) = pair.opened(get(), true);
    pair.answered(id, ok(), false);
    pair.client.take_response(id).unwrap().unwrap();
    pair.server
        .send_data(id, &mut Bytes::from_static(b"half"), false);
    pair.server.break_off(id);
    pair.carry(usize::MAX);
    assert!(matches!(pair.client.take(id), Taken::Broken));
    // Whoever answers and goes without an answer breaks off too.
    let (id, _) = pair.opened(get(), true);
    pair.server.finish(id);
    pair.carry(usize::MAX);
    assert!(pair.client.take_response(id).is_err());
}

#[test]
fn an_answer_given_in_full_stands_though_the_request_goes_on() {
    let mut pair = Pair::new();
    let (id, _) = pair.opened(post(), false);
    pair.answered(id, ok(), true);
    pair.server.finish(id);
    pair.carry(usize::MAX);
    assert!(pair.client.take_response(id).unwrap().is_some());
    assert!(pair.client.is_read(id));
    assert_eq!(
        pair.client
            .send_data(id, &mut Bytes::from_static(b"more"), false),
        Sent::Gone
    );
}

#[test]
fn a_place_is_taken_anew_and_late_words_are_for_nobody() {
    let mut pair = Pair::new();
    let (first, _) = pair.opened(post(), false);
    pair.client.abandon(first); // a reset, on its way
    let (second, _) = {
        let id = pair.client.open(&get().into_parts().0, true).unwrap();
        (id, ())
    };
    assert_eq!(first.place(), second.place());
    // Meanwhile the server answers the first.
    pair.server.respond(first, &ok().into_parts().0, false);
    pair.server
        .send_data(first, &mut Bytes::from_static(b"late"), true);
    let (at_client, at_server) = pair.carry(usize::MAX);
    assert!(at_client.is_empty(), "{at_client:?}");
    assert!(
        matches!(&at_server[..], [Event::Broken(id), Event::Request { id: new, .. }] if *id == first && *new == second)
            || matches!(&at_server[..], [Event::Request { id: new, .. }] if *new == second),
        "{at_server:?}"
    );
    assert!(pair.client.take_response(second).unwrap().is_none());
    pair.answered(second, ok(), true);
    assert!(pair.client.take_response(second).unwrap().is_some());
}

#[test]
fn places_are_counted_past_the_end_of_the_count() {
    let mut pair = Pair::new();
    pair.opened(get(), true);
    let places = [&mut pair.client.places[0], &mut pair.server.places[0]];
    for place in places {
        place.taken = TAKEN - 1;
    }
    let last = StreamId::new(0, TAKEN - 1);
    pair.answered(last, ok(), true);
    pair.server.finish(last);
    pair.client.abandon(last);
    let (id, _) = pair.opened(get(), true);
    assert_eq!(id, StreamId::new(0, 1));
    // A late word for the last of the old count.
    let late = frame_on(last, Kind::Window, false, &[0, 0, 0, 1]);
    pair.server
        .feed(&mut BytesMut::from(&late[..]), &mut Vec::new())
        .unwrap();
}

#[test]
fn both_know_when_nothing_is_under_way() {
    let mut pair = Pair::new();
    let (id, _) = pair.opened(get(), true);
    // A request crosses the server's goodbye: it is answered all the same.
    let crossing = pair.client.open(&get().into_parts().0, true).unwrap();
    pair.server.leave();
    let (_, events) = pair.carry(usize::MAX);
    assert!(
        matches!(&events[..], [Event::Request { id, .. }, Event::Left] if *id == crossing),
        "{events:?}"
    );
    assert_eq!(
        pair.client.open(&get().into_parts().0, true),
        Err(OpenError::Left)
    );
    assert!(!pair.server.is_done());
    for id in [id, crossing] {
        pair.answered(id, ok(), true);
        pair.server.finish(id);
        pair.client.abandon(id);
    }
    assert!(pair.server.is_done() && pair.client.is_done());
}

#[test]
fn a_peer_that_only_resets_or_asks_is_cut_off() {
    let mut server = Engine::new(Role::Server);
    let mut result = Ok(());
    let mut taken = 0;
    for _ in 0..limits::RESETS_MAX + 1 {
        taken += 1;
        let id = StreamId::new(0, taken);
        let bytes = [
            frame_on(id, Kind::Head, true, &head_of(get())),
            frame_on(id, Kind::Reset, false, b"\x01"),
        ]
        .concat();
        result = server.feed(&mut BytesMut::from(&bytes[..]), &mut Vec::new());
        server.finish(id);
    }
    // Each was broken, not answered: none is forgiven.
    assert_eq!(result, Err(MuxError::TooMuch { what: "resets" }));
    // Resets that it provokes count too.
    let mut server = Engine::new(Role::Server);
    let length = Request::post("/")
        .header("content-length", "1")
        .body(())
        .unwrap();
    let head = head_of(length);
    let mut result = Ok(());
    for taken in 1..=limits::RESETS_MAX + 1 {
        let id = StreamId::new(0, taken);
        let bytes = [
            frame_on(id, Kind::Head, false, &head),
            frame_on(id, Kind::Data, false, b"xx"),
        ]
        .concat();
        result = server.feed(&mut BytesMut::from(&bytes[..]), &mut Vec::new());
        server.finish(id);
    }
    assert_eq!(result, Err(MuxError::TooMuch { what: "resets" }));
    let pings = frame_on(StreamId::CONNECTION, Kind::Ping, false, b"")
        .repeat(limits::OUT_BYTES_MAX / HEAD_LEN + 1);
    assert_eq!(
        refused(&pings),
        MuxError::TooMuch {
            what: "answers that it does not read"
        }
    );
}

#[test]
fn a_head_that_is_too_long_is_not_sent() {
    let mut pair = Pair::new();
    let long = "x".repeat(60_000);
    let request = Request::get("/")
        .header("a", &long)
        .header("b", &long)
        .header("c", &long)
        .body(())
        .unwrap();
    assert_eq!(
        pair.client.open(&request.into_parts().0, true),
        Err(OpenError::TooLong)
    );
    let name = "x".repeat(256);
    let request = Request::get("/").header(name, "v").body(()).unwrap();
    assert_eq!(
        pair.client.open(&request.into_parts().0, true),
        Err(OpenError::TooLong)
    );
    assert!(pair.client.out().is_empty());
    let (id, _) = pair.opened(get(), true);
    let response = Response::builder()
        .header("a", &long)
        .header("b", &long)
        .header("c", &long)
        .body(())
        .unwrap();
    assert!(!pair.server.respond(id, &response.into_parts().0, true));
    pair.carry(usize::MAX);
    assert!(pair.client.take_response(id).is_err());
}

#[test]
fn a_slow_network_keeps_no_more_than_what_waits() {
    let mut pair = Pair::new();
    let (id, _) = pair.opened(get(), true);
    pair.answered(id, ok(), false);
    let mut data = Bytes::from(vec![0; limits::STREAM_WINDOW as usize]);
    while pair.server.send_data(id, &mut data, true) == Sent::Blocked {
        pair.server.wrote(50_000);
        assert!(
            pair.server.out.len() <= 3 * limits::OUT_BYTES,
            "{}",
            pair.server.out.len()
        );
    }
}

#[test]
fn single_bytes_hold_no_more_than_bytes() {
    let mut pair = Pair::new();
    let (id, _) = pair.opened(post(), false);
    for _ in 0..20_000 {
        let mut input = BytesMut::with_capacity(16 * 1024); // as each read has one
        input.extend_from_slice(&frame_on(id, Kind::Data, false, b"x"));
        pair.server.feed(&mut input, &mut Vec::new()).unwrap();
    }
    assert!(pair.server.places[id.place()].data.len() <= 3);
    assert_eq!(all(&mut pair.server, id), vec![b'x'; 20_000]);
}

#[test]
fn three_slow_readers_do_not_stop_a_fourth() {
    let mut pair = Pair::new();
    let window = limits::STREAM_WINDOW as usize;
    let stuff = |pair: &mut Pair, id| {
        let mut data = Bytes::from(vec![0; window]);
        while pair.client.send_data(id, &mut data, false) == Sent::Blocked {
            assert!(
                !pair.client.out().is_empty(),
                "{} bytes are stuck",
                data.len()
            );
            pair.carry(usize::MAX);
            all(&mut pair.server, StreamId::new(3, 1));
        }
        pair.carry(usize::MAX);
    };
    for _ in 0..3 {
        let (slow, _) = pair.opened(post(), false);
        stuff(&mut pair, slow);
    }
    let (quick, _) = pair.opened(post(), false);
    for _ in 0..8 {
        stuff(&mut pair, quick);
        all(&mut pair.server, quick);
        pair.carry(usize::MAX);
    }
}

#[test]
fn what_waits_for_a_peer_that_does_not_read_is_bounded() {
    let mut client = Engine::new(Role::Client);
    let mut opened = 0;
    while let Ok(id) = client.open(&get().into_parts().0, true) {
        client.abandon(id);
        opened += 1;
    }
    let most = limits::OUT_BYTES_MAX + limits::HEAD_BYTES_MAX;
    assert!(opened > 1_000 && client.out().len() <= most, "{opened}");
}

#[test]
fn only_so_many_streams_at_a_time() {
    let mut pair = Pair::new();
    for _ in 0..limits::STREAMS_MAX {
        pair.opened(get(), true);
    }
    assert_eq!(
        pair.client.open(&get().into_parts().0, true),
        Err(OpenError::Full)
    );
}

/// What may happen on a connection, of its first streams.
#[derive(Clone, Debug)]
enum Step {
    Open {
        body: bool,
    },
    SendUp {
        stream: usize,
        bytes: usize,
        end: bool,
    },
    Answer {
        stream: usize,
        body: bool,
    },
    SendDown {
        stream: usize,
        bytes: usize,
        end: bool,
    },
    Read {
        stream: usize,
    },
    BreakOff {
        stream: usize,
        server: bool,
    },
    Abandon {
        stream: usize,
    },
    Finish {
        stream: usize,
    },
    Carry {
        piece: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..6usize;
    let bytes = || prop_oneof![Just(0), 1..100usize, 60_000..400_000usize];
    prop_oneof![
        any::<bool>().prop_map(|body| Step::Open { body }),
        (stream(), bytes(), any::<bool>()).prop_map(|(stream, bytes, end)| Step::SendUp {
            stream,
            bytes,
            end
        }),
        (stream(), any::<bool>()).prop_map(|(stream, body)| Step::Answer { stream, body }),
        (stream(), bytes(), any::<bool>()).prop_map(|(stream, bytes, end)| Step::SendDown {
            stream,
            bytes,
            end
        }),
        stream().prop_map(|stream| Step::Read { stream }),
        (stream(), any::<bool>()).prop_map(|(stream, server)| Step::BreakOff { stream, server }),
        stream().prop_map(|stream| Step::Abandon { stream }),
        stream().prop_map(|stream| Step::Finish { stream }),
        prop_oneof![Just(1usize), Just(7), Just(usize::MAX)]
            .prop_map(|piece| Step::Carry { piece }),
    ]
}

proptest! {
    /// Whatever two engines do, neither thinks that the other broke a rule, and nothing is kept once all are done.
    #[test]
    fn two_engines_always_agree(steps in proptest::collection::vec(step(), 0..80)) {
        let mut pair = Pair::new();
        let mut client: Vec<StreamId> = Vec::new();
        let mut server: Vec<StreamId> = Vec::new();
        let mut answered = std::collections::HashSet::new();
        let serve = |events: Vec<Event>, server: &mut Vec<StreamId>| {
            for event in events {
                if let Event::Request { id, .. } = event {
                    server.push(id);
                }
            }
        };
        for step in steps {
            match step {
                Step::Open { body } => client.push(pair.client.open(&post().into_parts().0, !body).unwrap()),
                Step::SendUp { stream, bytes, end } => if let Some(id) = client.get(stream) {
                    pair.client.send_data(*id, &mut Bytes::from(vec![1; bytes]), end);
                },
                Step::Answer { stream, body } => if let Some(id) = server.get(stream) && answered.insert(*id) {
                    pair.server.respond(*id, &ok().into_parts().0, !body);
                },
                Step::SendDown { stream, bytes, end } => if let Some(id) = server.get(stream) && answered.contains(id) {
                    pair.server.send_data(*id, &mut Bytes::from(vec![2; bytes]), end);
                },
                Step::Read { stream } => {
                    if let Some(id) = client.get(stream) {
                        let _ = pair.client.take_response(*id);
                        all(&mut pair.client, *id);
                    }
                    if let Some(id) = server.get(stream) {
                        all(&mut pair.server, *id);
                    }
                }
                Step::BreakOff { stream, server: true } => if let Some(id) = server.get(stream) { pair.server.break_off(*id) },
                Step::BreakOff { stream, server: false } => if let Some(id) = client.get(stream) { pair.client.break_off(*id) },
                Step::Abandon { stream } => if stream < client.len() { pair.client.abandon(client.remove(stream)) },
                Step::Finish { stream } => if stream < server.len() { pair.server.finish(server.remove(stream)) },
                Step::Carry { piece } => serve(pair.carry(piece).1, &mut server),
            }
        }
        serve(pair.carry(usize::MAX).1, &mut server);
        client.drain(..).for_each(|id| pair.client.abandon(id));
        serve(pair.carry(usize::MAX).1, &mut server);
        server.drain(..).for_each(|id| pair.server.finish(id));
        pair.carry(usize::MAX);
        prop_assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
        for engine in [&pair.client, &pair.server] {
            // All of the connection's window is there again, or about to be told of.
            prop_assert_eq!(engine.window_in + engine.untold, limits::CONNECTION_WINDOW);
            prop_assert!(engine.places.iter().all(|place| place.data.is_empty() && place.waiting == 0));
        }
        prop_assert_eq!(pair.client.window_out, pair.server.window_in);
        prop_assert_eq!(pair.server.window_out, pair.client.window_in);
    }
}
