//! Whatever is written is read back, and nothing else is read.

use super::*;
use crate::testing::TestKey;

const KEY: KeyNumber = KeyNumber(7);

fn questions() -> Vec<Question<'static>> {
    let path = Path::new("/var/lib/mesh/ca/issuer.key");
    vec![
        Question::Open { path },
        Question::OpenKept { path },
        Question::Make,
        Question::MakeInFile,
        Question::Take { key: b"pkcs8" },
        Question::Save { key: KEY, path },
        Question::Sign {
            key: KEY,
            messages: vec![b"one", b"", &[9; SIGNED_BYTES_MAX]],
        },
        Question::Sign {
            key: KEY,
            messages: vec![],
        },
        Question::Close { key: KEY },
        Question::Retire { key: KEY },
        Question::Destroy { path },
        Question::DestroyFile { path },
    ]
}

fn answers() -> Vec<Answer> {
    vec![
        Answer::Key {
            key: KEY,
            public: TestKey::new().public,
        },
        Answer::Signatures(vec![Ok(vec![1, 2]), Err("no".to_owned()), Ok(vec![])]),
        Answer::Signatures(vec![]),
        Answer::Done,
        Answer::Refused {
            code: 233,
            why: "damaged".to_owned(),
        },
    ]
}

fn payload(frame: &[u8]) -> &[u8] {
    let (head, payload) = frame.split_first_chunk().unwrap();
    assert_eq!(payload_bytes(*head), Ok(payload.len()));
    payload
}

#[test]
fn what_is_written_is_read_back() {
    for question in questions() {
        assert_eq!(Question::parse(payload(&question.to_frame())), Ok(question));
    }
    for answer in answers() {
        assert_eq!(Answer::parse(payload(&answer.to_frame())), Ok(answer));
    }
}

#[test]
fn what_is_cut_off_or_goes_on_is_refused() {
    let several = |payload: &[u8]| matches!(payload[0], tag::SIGN | tag::SIGNATURES);
    let frames = questions()
        .iter()
        .map(Question::to_frame)
        .collect::<Vec<_>>();
    let others = answers().iter().map(Answer::to_frame).collect::<Vec<_>>();
    for frame in frames.iter().chain(&others) {
        let whole = payload(frame);
        for cut in 0..whole.len() {
            let part = &whole[..cut];
            // A shorter list of messages is a list of messages; it must then be a shorter one.
            let shorter = cut > 0 && several(whole);
            if let Ok(read) = Question::parse(part) {
                assert!(shorter && *payload(&read.to_frame()) == *part, "{cut}");
            }
            if let Ok(read) = Answer::parse(part) {
                assert!(shorter && *payload(&read.to_frame()) == *part, "{cut}");
            }
        }
        let longer = [whole, &[0]].concat();
        assert!(Question::parse(&longer).is_err() && Answer::parse(&longer).is_err());
    }
}

#[test]
fn what_is_read_has_one_form() {
    let mut read = 0;
    for frame in questions().iter().map(Question::to_frame) {
        let good = payload(&frame);
        for at in 0..good.len().min(200) {
            for flip in [1, 0x80, 0xff] {
                let mut changed = good.to_vec();
                changed[at] ^= flip;
                if let Ok(question) = Question::parse(&changed) {
                    read += 1;
                    assert_eq!(*payload(&question.to_frame()), *changed);
                }
            }
        }
    }
    assert!(read > 0, "the test changed nothing that can be read");
}

#[test]
fn limits_hold() {
    let message = vec![0; SIGNED_BYTES_MAX + 1];
    let messages = vec![&b""[..]; SIGNED_AT_ONCE_MAX + 1];
    let long = "x".repeat(PATH_BYTES_MAX + 1);
    for question in [
        Question::Sign {
            key: KEY,
            messages: vec![&message],
        },
        Question::Sign { key: KEY, messages },
        Question::Open {
            path: Path::new(&long),
        },
        Question::Open {
            path: Path::new(""),
        },
        Question::Open {
            path: Path::new("a\0b"),
        },
        Question::Take {
            key: &[0; PRIVATE_BYTES_MAX + 1],
        },
    ] {
        let frame = question.to_frame();
        assert!(Question::parse(&frame[LENGTH_BYTES..]).is_err());
    }
    let full = Question::Sign {
        key: KEY,
        messages: vec![&message[1..]; SIGNED_AT_ONCE_MAX],
    };
    assert_eq!(
        Question::parse(payload(&full.to_frame())),
        Ok(full),
        "the largest question fits into a frame"
    );
    for head in [0, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1, u32::MAX] {
        assert!(payload_bytes(head.to_be_bytes()).is_err(), "{head}");
    }
    let long = Answer::Refused {
        code: 1,
        why: "ä".repeat(SIGNER_TEXT_BYTES_MAX),
    };
    match Answer::parse(payload(&long.to_frame())) {
        Ok(Answer::Refused { why, .. }) => assert_eq!(why.len(), SIGNER_TEXT_BYTES_MAX),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_tags_are_refused() {
    for tag in 0..=u8::MAX {
        let payload = [tag];
        let (question, answer) = (Question::parse(&payload), Answer::parse(&payload));
        let asked_alone = [tag::MAKE, tag::MAKE_IN_FILE].contains(&tag);
        assert_eq!(question.is_ok(), asked_alone, "{tag}");
        let alone = [tag::DONE, tag::SIGNATURES].contains(&tag);
        assert_eq!(answer.is_ok(), alone, "{tag}");
    }
}
