//! What the guard refuses, what it lets go on, and how far.

use super::*;
use RequestRefusal::{Chunks, Framing, HeadersTooLarge, Line, Target, Version};
use proptest::prelude::*;

const LIMITS: GuardLimits = GuardLimits {
    head_bytes_max: 4_096,
    fields_max: 100,
};

/// What a new guard says of bytes in one piece.
fn told(bytes: &[u8]) -> Result<(), RequestRefusal> {
    read(&mut Http1Guard::new(LIMITS), bytes)
}

fn read(guard: &mut Http1Guard, bytes: &[u8]) -> Result<(), RequestRefusal> {
    match guard.push(bytes).stop {
        Stop::Refused(refused) => Err(refused.why),
        Stop::End | Stop::Waiting => Ok(()),
    }
}

#[test]
fn requests_that_two_servers_could_read_differently_are_refused() {
    for (bytes, why, case) in [
        (
            &b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"[..],
            Framing,
            "H1-1 TE.CL",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing,
            "H1-1 CL.TE",
        ),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing,
            "H1-2 twice",
        ),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n\r\n",
            Framing,
            "H1-2",
        ),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
            Framing,
            "H1-2",
        ),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: \x0bchunked\r\n\r\n",
            Line,
            "H1-2 control",
        ),
        (
            b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing,
            "H1-2 in 1.0",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            Framing,
            "H1-3 same",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            Framing,
            "H1-3",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n",
            Framing,
            "H1-3 list",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: +5\r\n\r\n",
            Framing,
            "H1-4",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 0x5\r\n\r\n",
            Framing,
            "H1-4",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 05\r\n\r\n",
            Framing,
            "H1-4",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
            Framing,
            "H1-4 empty",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            Framing,
            "H1-4 long",
        ),
        (b"GET / HTTP/1.1\nhost: a\n\n", Line, "H1-6 bare LF"),
        (
            b"GET / HTTP/1.1\r\nhost: a\n\r\n",
            Line,
            "H1-6 bare LF in a field",
        ),
        (
            b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            Line,
            "H1-6 bare CR",
        ),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
            Line,
            "HD5 folded",
        ),
        (b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", Line, "HD4"),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", Line, "HD4 no name"),
        (b"GET / HTTP/1.1\r\nhost\r\n\r\n", Line, "no colon"),
        (b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", Line, "HD7"),
        (b"GET  / HTTP/1.1\r\n\r\n", Line, "H1-14 two spaces"),
        (b"GET\t/ HTTP/1.1\r\n\r\n", Line, "H1-14 tab"),
        (b"GET / HTTP/1.1 \r\n\r\n", Line, "H1-14 space at the end"),
        (b"GET / HTTP/1.01\r\n\r\n", Version, "H1-14"),
        (b"GET / HTTP/2.0\r\n\r\n", Version, "H1-14"),
        (b"GET /\r\n\r\n", Line, "PD6"),
        (b"GET / HTTP/0.9\r\n\r\n", Version, "PD6"),
        (b"GET /admin#f HTTP/1.1\r\n\r\n", Target, "PA8"),
        (b"GET /<x> HTTP/1.1\r\n\r\n", Target, "no URI"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", Target, "PA10"),
        (
            b"GET http:// HTTP/1.1\r\n\r\n",
            Target,
            "no host in the target",
        ),
        (b"G{T / HTTP/1.1\r\n\r\n", Line, "PD7"),
        (b"\nGET / HTTP/1.1\r\n\r\n", Line, "PD5"),
        (b"\rGET / HTTP/1.1\r\n\r\n", Line, "PD5"),
    ] {
        assert_eq!(
            told(bytes),
            Err(why),
            "{case}: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn chunks_that_two_servers_could_read_differently_are_refused() {
    for (chunks, why, case) in [
        (&b"0x5\r\nhello\r\n"[..], Framing, "H1-5"),
        (b"+5\r\nhello\r\n", Framing, "H1-5"),
        (b"5_0\r\n", Framing, "H1-5"),
        (b"\r\n", Framing, "H1-5 empty"),
        (b"10000000000000000\r\n", Framing, "H1-5 overflow"),
        (b"5 \r\nhello\r\n", Framing, "H1-5 space"),
        (b"5\nhello\r\n", Line, "H1-6"),
        (b"5\r\nhello\n", Framing, "H1-6 data end"),
        (b"5\r\nhelloX\r\n", Framing, "H1-6 spill"),
        (b"5;a\nb\r\nhello\r\n", Line, "H1-6 LF in an extension"),
        (b"5;a\0\r\nhello\r\n", Framing, "H1-8"),
        (b"0\r\nx y: z\r\n\r\n", Line, "trailer"),
    ] {
        let request = [
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            chunks,
        ]
        .concat();
        assert_eq!(
            told(&request),
            Err(why),
            "{case}: {:?}",
            String::from_utf8_lossy(chunks)
        );
    }
    let long = [
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;".to_vec(),
        vec![b'a'; 300],
    ]
    .concat();
    assert_eq!(told(&long), Err(Chunks), "H1-7");
}

#[test]
fn heads_and_trailers_without_end_are_cut_off() {
    let head = [b"GET / HTTP/1.1\r\n".to_vec(), b"x: y\r\n".repeat(1_000)].concat();
    assert_eq!(told(&head), Err(HeadersTooLarge));
    let line = [b"GET /".to_vec(), vec![b'a'; 5_000]].concat();
    assert_eq!(told(&line), Err(HeadersTooLarge));
    let trailers = [
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n".to_vec(),
        b"x: y\r\n".repeat(1_000),
    ]
    .concat();
    assert_eq!(told(&trailers), Err(HeadersTooLarge));
}

#[test]
fn more_fields_than_allowed_are_refused_in_heads_and_trailers() {
    for (fields, want) in [(100, Ok(())), (101, Err(HeadersTooLarge))] {
        let fields = b"x: y\r\n".repeat(fields);
        let head = [b"GET / HTTP/1.1\r\n", &fields[..], b"\r\n"].concat();
        assert_eq!(told(&head), want, "H1-15");
        let start = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
        let trailers = [start, &fields[..], b"\r\n"].concat();
        assert_eq!(told(&trailers), want, "trailers");
    }
}

#[test]
fn chunks_that_cost_far_more_than_their_data_are_cut_off() {
    let start = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for (chunk, count, want, case) in [
        (
            &b"1\r\nx\r\n"[..],
            60_000,
            Ok(()),
            "some thousand tiny ones",
        ),
        (b"1\r\nx\r\n", 1_000_000, Err(Chunks), "H1-7: a million"),
        (b"5\r\nhello\r\n", 1_000_000, Ok(()), "small messages"),
        (b"5;a=bcd\r\nhello\r\n", 1_000, Ok(()), "some extensions"),
        (
            b"5;a=bcd\r\nhello\r\n",
            2_000,
            Err(Chunks),
            "extensions on and on",
        ),
    ] {
        let mut guard = Http1Guard::new(LIMITS);
        assert_eq!(read(&mut guard, start), Ok(()));
        let result = (0..count).try_for_each(|_| read(&mut guard, chunk));
        assert_eq!(result, want, "{case}");
    }
}

#[test]
fn empty_lines_before_a_request_are_few() {
    for (lines, want) in [(1, Ok(())), (32, Ok(())), (33, Err(Line))] {
        let bytes = [&b"\r\n".repeat(lines)[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(told(&bytes), want, "{lines}");
    }
}

#[test]
fn a_refusal_stays() {
    let mut guard = Http1Guard::new(LIMITS);
    assert_eq!(read(&mut guard, b"GET / HTTP/1.1\n"), Err(Line));
    assert_eq!(read(&mut guard, b"GET / HTTP/1.1\r\n\r\n"), Err(Line));
    guard.resume(true);
    assert_eq!(read(&mut guard, b"x"), Err(Line));
}

#[test]
fn a_head_goes_on_whole_or_not_at_all_and_bodies_as_they_come() {
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n";
    let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let refused = |why, begun| Stop::Refused(Refused { why, begun });
    let mut guard = Http1Guard::new(LIMITS);
    let mut push = |pieces: &[&[u8]]| {
        let reading = guard.push(&pieces.concat());
        (reading.clear, reading.stop, guard.heads())
    };
    assert_eq!(push(&[get]), (get.len(), Stop::End, 1));
    assert_eq!(push(&[b"GET / HT"]), (0, Stop::End, 1), "half a head");
    assert_eq!(push(&[b"TP/1.1\r\n\r\n\r"]), (10, Stop::End, 2));
    assert_eq!(
        push(&[b"\n", post, b"1"]),
        (1 + post.len() + 1, Stop::End, 3)
    );
    assert_eq!(
        push(&[b"234", b"PUT /"]),
        (3, Stop::End, 3),
        "a body, half a head"
    );
    assert_eq!(
        push(&[b"\n"]),
        (0, refused(Line, false), 3),
        "and it is not exact"
    );

    for (pieces, want) in [
        (&[&get[..], b"GET / HTTP/1.1\n"][..], (get.len(), false, 1)),
        (
            &[get, chunked, b"5\r\nhello\r\nx\r\n"],
            (get.len(), false, 1),
        ),
        (
            &[chunked, b"0\r\n\r\n", b"GET / HTTP/1.1\n"],
            (chunked.len() + 5, false, 1),
        ),
    ] {
        let mut guard = Http1Guard::new(LIMITS);
        let reading = guard.push(&pieces.concat());
        let Stop::Refused(refused) = reading.stop else {
            panic!("{reading:?}");
        };
        assert_eq!(
            (reading.clear, refused.begun, guard.heads()),
            want,
            "{refused:?}"
        );
    }
    let mut guard = Http1Guard::new(LIMITS);
    guard.push(chunked);
    assert_eq!(guard.push(b"5").clear, 0, "half a line");
    assert_eq!(guard.push(b";a\r\nhel").clear, 7);
    assert_eq!(guard.push(b"lo\r\n0").clear, 4);
    guard.push(b"\r\n\r\n");
    guard.push(chunked);
    let reading = guard.push(b"5\r\nhello\r\nx\r\n");
    assert_eq!(
        (reading.clear, reading.stop, guard.heads()),
        (0, refused(Framing, true), 2),
        "its head went on before"
    );
}

#[test]
fn the_request_line_is_known_if_it_can_be_read() {
    for (bytes, want) in [
        (
            &b"GET /a?b HTTP/1.1\r\nhost : a\r\n"[..],
            Some(("GET", "/a?b")),
        ),
        (b"GET / HTTP/1.1\r\n\r\nGET\t/x HTTP/1.1\r\n", None),
        (b"GET / HTTP/1.1\r\n\r\n\n", None),
        (b"GET /\xff HTTP/1.1\r\nx\r\n", None),
    ] {
        let mut guard = Http1Guard::new(LIMITS);
        assert!(read(&mut guard, bytes).is_err());
        assert_eq!(
            guard.request_line(),
            want,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn a_body_is_not_read_as_a_request_and_what_follows_it_is() {
    let body = b"GET / HTTP/1.1\nx\n";
    let request = [
        format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        body,
    ]
    .concat();
    assert_eq!(told(&request), Ok(()));
    assert_eq!(
        told(&[&request[..], b"\r\nGET / HTTP/1.1\r\n\r\n"].concat()),
        Ok(())
    );
    assert_eq!(
        told(&[&request[..], b"GET / HTTP/1.1\n"].concat()),
        Err(Line),
        "the next request is judged"
    );
    let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;name=v\r\n\n\r\n\r\n0\r\nx-sum: 1\r\n\r\n";
    assert_eq!(
        told(&[&chunked[..], b"GET / HTTP/1.0\r\n\r\n"].concat()),
        Ok(())
    );
}

#[test]
fn after_a_request_that_may_end_http_nothing_is_read_until_its_answer_is_known() {
    let upgrade = b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let connect = b"CONNECT cart:80 HTTP/1.1\r\nhost: cart:80\r\n\r\n";
    let frame = b"\x81\x05hello\n";
    for head in [&upgrade[..], connect] {
        let mut guard = Http1Guard::new(LIMITS);
        let reading = guard.push(&[head, frame].concat());
        let waiting = Reading {
            clear: head.len(),
            stop: Stop::Waiting,
        };
        assert_eq!(
            reading, waiting,
            "GW7: the early frame is neither read nor let on"
        );
        assert_eq!(
            guard.push(frame),
            Reading {
                clear: 0,
                ..waiting
            }
        );
        guard.resume(true);
        assert_eq!(read(&mut guard, frame), Ok(()), "bytes are bytes");
        assert_eq!(guard.push(frame).clear, frame.len());
    }
    let mut guard = Http1Guard::new(LIMITS);
    guard.push(upgrade);
    guard.resume(false);
    assert_eq!(read(&mut guard, frame), Err(Line), "GW8: it is still HTTP");
    for not_waiting in [
        &b"POST / HTTP/1.1\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\nupgrade: websocket\r\n\r\n",
    ] {
        let reading = Http1Guard::new(LIMITS).push(not_waiting);
        assert_eq!(reading.stop, Stop::End, "can be no upgrade");
    }
    let mut guard = Http1Guard::new(LIMITS);
    guard.resume(true);
    assert_eq!(read(&mut guard, frame), Err(Line), "nobody asked");
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        Just(b"GET /a?b HTTP/1.1\r\nhost: cart\r\n\r\n".to_vec()),
        Just(b"\r\nHEAD / HTTP/1.0\r\n\r\n".to_vec()),
        Just(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n\r\n\r\n".to_vec()),
        Just(
            b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"
                .to_vec()
        ),
    ];
    proptest::collection::vec(one, 1..6).prop_map(|requests| requests.concat())
}

/// The plain oracle: another parser, fed the whole input, bodies skipped. How many requests it reads.
fn count_by_httparse(mut bytes: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(end) = request.parse(bytes).ok()? else {
            return None;
        };
        let value = |name: &str| {
            request
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name))
                .map(|h| h.value)
        };
        let (length, chunked) = (
            value("content-length"),
            value("transfer-encoding").is_some(),
        );
        bytes = &bytes[end..];
        if let Some(length) = length {
            bytes = bytes.get(std::str::from_utf8(length).ok()?.parse::<usize>().ok()?..)?;
        }
        let mut more = chunked;
        while more {
            let httparse::Status::Complete((start, size)) =
                httparse::parse_chunk_size(bytes).ok()?
            else {
                return None;
            };
            bytes = bytes.get(start + size as usize..)?.strip_prefix(b"\r\n")?;
            more = size > 0;
        }
        count += 1;
    }
    Some(count)
}

/// How many requests the guard sees, if it lets all bytes through and they end with a request.
fn count_by_guard(bytes: &[u8]) -> Option<u64> {
    let mut guard = Http1Guard::new(LIMITS);
    read(&mut guard, bytes).ok()?;
    guard.is_between_requests().then_some(guard.heads())
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_answer(mut bytes in requests(), at in any::<prop::sample::Index>(), byte in any::<u8>(), change in any::<bool>(), size in 1usize..20) {
        if change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut guard = Http1Guard::new(LIMITS);
        let mut clear = 0;
        let mut taken = 0;
        let pieces = bytes.chunks(size).try_for_each(|piece| {
            let reading = guard.push(piece);
            if reading.clear > 0 {
                clear = taken + reading.clear;
            }
            taken += piece.len();
            match reading.stop {
                Stop::Refused(refused) => Err(refused.why),
                _ => Ok(()),
            }
        });
        let mut whole = Http1Guard::new(LIMITS);
        let reading = whole.push(&bytes);
        prop_assert_eq!(pieces, told(&bytes));
        // Only the body of a request that was refused for it later may have gone on in pieces.
        if let Stop::Refused(Refused { begun: false, .. }) | Stop::End = reading.stop {
            prop_assert!(clear >= reading.clear, "{} of {}", clear, reading.clear);
            prop_assert!(clear == reading.clear || guard.heads() > whole.heads());
        }
    }

    #[test]
    fn exact_requests_pass_and_another_parser_sees_the_same_ones(mut bytes in requests(), at in any::<prop::sample::Index>(), byte in prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b' '), Just(b':')]) {
        prop_assert_eq!(count_by_guard(&bytes), count_by_httparse(&bytes));
        prop_assert!(count_by_guard(&bytes).is_some());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let (Some(ours), Some(theirs)) = (count_by_guard(&bytes), count_by_httparse(&bytes)) {
            prop_assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), switched in any::<bool>()) {
        let mut guard = Http1Guard::new(LIMITS);
        for piece in bytes.chunks(7) {
            prop_assert!(guard.push(piece).clear <= piece.len());
            guard.resume(switched);
        }
    }
}
