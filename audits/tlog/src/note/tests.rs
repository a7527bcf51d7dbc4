//! Notes against the vectors of Go's `golang.org/x/mod/sumdb/note`, and against every edit.

use super::*;

/// note_test.go and example_test.go of golang.org/x/mod/sumdb/note.
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
then you don't know what your problem is.\n\
\n\
\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("log.example/a", KeyType::Ed25519, &[seed; 32]).unwrap()
}

#[test]
fn the_note_that_go_publishes_is_read_verified_and_written_as_it_was() {
    let verifier = VerifierKey::parse(GO_KEY).unwrap();
    assert_eq!(verifier.to_string(), GO_KEY);
    let note = Note::parse(GO_NOTE.as_bytes()).unwrap();
    note.verify(&verifier).unwrap();
    assert_eq!(note.to_string(), GO_NOTE);
    assert_eq!(note.text(), &GO_NOTE[..GO_NOTE.find("\n\n").unwrap() + 1]);
}

#[test]
fn the_key_that_go_publishes_signs_what_go_signed() {
    // The private key of the same example: its last 32 bytes are the seed.
    let seed = BASE64
        .decode(b"AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
        .unwrap();
    let signer = SigningKey::from_seed("PeterNeumann", KeyType::Ed25519, &seed[1..]).unwrap();
    assert_eq!(signer.verifier().to_string(), GO_KEY);
    let text = &GO_NOTE[..GO_NOTE.find("\n\n").unwrap() + 1];
    assert_eq!(Note::sign(text, &signer).unwrap().to_string(), GO_NOTE);
}

#[test]
fn every_edit_of_a_note_is_refused() {
    let verifier = VerifierKey::parse(GO_KEY).unwrap();
    for at in 0..GO_NOTE.len() {
        let mut edited = GO_NOTE.as_bytes().to_vec();
        edited[at] ^= 1;
        let accepted = Note::parse(&edited).is_ok_and(|note| note.verify(&verifier).is_ok());
        assert!(!accepted, "byte {at}");
    }
}

#[test]
fn a_bad_signature_of_a_known_key_condemns_and_one_of_a_stranger_does_not() {
    let text = "a\n";
    let mut note = Note::sign(text, &key(1)).unwrap();
    let stranger = SigningKey::from_seed("log.example/b", KeyType::Ed25519, &[2; 32]).unwrap();
    note.signatures.push(stranger.line(vec![0; 64]));
    note.verify(key(1).verifier()).unwrap();
    assert_eq!(
        note.verify(stranger.verifier()),
        Err(NoteError::Signature {
            name: "log.example/b".into()
        })
    );
    // Of the same name, but of another key.
    assert_eq!(
        note.verify(key(3).verifier()),
        Err(NoteError::Unsigned {
            name: "log.example/a".into()
        })
    );
    // A good one before it does not excuse a bad one of the same key.
    note.signatures.push(key(1).line(vec![0; 64]));
    assert!(matches!(
        note.verify(key(1).verifier()),
        Err(NoteError::Signature { .. })
    ));
}

#[test]
fn what_is_no_note_is_refused() {
    let good = Note::sign("a\nb\n", &key(1)).unwrap().to_string();
    assert!(Note::parse(good.as_bytes()).is_ok());
    let line = good.split_once("\n\n").unwrap().1.to_owned();
    let many = format!("a\n\n{}", line.repeat(SIGNATURES_MAX + 1));
    let sixteen = format!("a\n\n{}", line.repeat(16));
    assert!(
        Note::parse(sixteen.as_bytes()).is_ok(),
        "the document asks for 16"
    );
    let huge = format!("{}\n\n{line}", "a".repeat(NOTE_BYTES_MAX));
    for bad in [
        "",
        "\n",
        "\n\n",
        "a",
        "a\n",
        "a\n\n",
        &good[..good.len() - 1],
        &good.replacen("\n\n", "\n", 1),
        &good.replace('\u{2014}', "-"),
        &good.replace("log.example/a ", "log.example/a  "),
        &good.replace("log.example/a ", "log+example/a "),
        &good.replace("log.example/a ", "log\u{a0}example/a "),
        &good.replace("a\nb\n", "a\tb\n"),
        &good.replace("a\nb\n", "a\r\nb\n"),
        &format!("{good}more\n"),
        "a\n\n\u{2014} n AAAA\n",
        "a\n\n\u{2014} n AAAAAA==\n",
        &many,
        &huge,
    ] {
        assert!(
            matches!(Note::parse(bad.as_bytes()), Err(NoteError::Form { .. })),
            "{:?}",
            &bad[..bad.len().min(80)]
        );
    }
    assert!(matches!(
        Note::parse(b"a\xff\n\n"),
        Err(NoteError::Form { .. })
    ));
    for text in ["", "\n", "a", "a\n\tb\n"] {
        assert!(Note::sign(text, &key(1)).is_err(), "{text:?}");
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let other_type = {
        let bytes = [&[2][..], &[7; 32]].concat();
        format!("n+00000000+{}", BASE64.encode(&bytes))
    };
    for bad in [
        "",
        "n",
        "n+c74f20a3",
        &GO_KEY.replace("c74f20a3", "c74f20a4"),
        &GO_KEY.replace("c74f20a3", "C74F20A3"),
        &GO_KEY.replace("Peter", "peter"),
        &GO_KEY[..GO_KEY.len() - 4],
        &other_type,
        "n+00000000+",
        "+00000000+AQ==",
    ] {
        assert!(VerifierKey::parse(bad).is_err(), "{bad}");
    }
    for name in [
        "",
        "a b",
        "a+b",
        "a\nb",
        "a\u{7f}",
        &"a".repeat(NAME_BYTES_MAX + 1),
    ] {
        assert!(
            matches!(
                SigningKey::from_seed(name, KeyType::Ed25519, &[1; 32]),
                Err(KeyError::Name { .. })
            ),
            "{name:?}"
        );
    }
    assert_eq!(
        SigningKey::from_seed("n", KeyType::Ed25519, &[1; 31]).unwrap_err(),
        KeyError::Private
    );
    assert_eq!(
        SigningKey::from_pkcs8("n", KeyType::Ed25519, b"none").unwrap_err(),
        KeyError::Private
    );
    assert!(
        !format!("{:?}", key(1)).contains("01010101"),
        "the secret is not printed"
    );
}
