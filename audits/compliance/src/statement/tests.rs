//! Signed statements: what was signed is what is read, and nothing else is.

use super::*;
use crate::testing::{bundle, report_of};

fn key(seed: u8) -> SigningKey {
    SigningKey(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key"))
}

fn statement() -> Statement {
    let report = report_of(&bundle(), "soc2");
    let files = [
        ("report.json".to_owned(), sha256(b"report")),
        ("bundle.jsonl".to_owned(), sha256(b"bundle")),
    ];
    Statement::of(&report, &files, BTreeMap::new())
}

#[test]
fn a_signed_statement_is_read_by_its_key_alone() {
    let text = key(1).sign(&statement());
    assert_eq!(
        Statement::verify("s", text.as_bytes(), &key(1).public()),
        Ok(statement())
    );
    assert_eq!(key(1).sign(&statement()), text, "the same bytes again");
    let other = Statement::verify("s", text.as_bytes(), &key(2).public());
    assert!(matches!(other, Err(StatementError::Signature { .. })));
}

#[test]
fn every_flipped_byte_of_an_envelope_is_refused_or_changes_nothing() {
    let text = key(1).sign(&statement()).into_bytes();
    let public = key(1).public();
    let mut harmless = 0;
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 0x01;
        // The name of the key is a help, and signed by nobody.
        if let Ok(read) = Statement::verify("s", &changed, &public) {
            assert_eq!(read, statement(), "byte {at}");
            harmless += 1;
        }
    }
    assert!(
        harmless <= 66,
        "{harmless} of {} bytes may change",
        text.len()
    );
}

#[test]
fn files_that_differ_are_missing_or_are_too_many_are_named() {
    let statement = statement();
    let good = vec![
        ("bundle.jsonl".to_owned(), sha256(b"bundle")),
        ("report.json".to_owned(), sha256(b"report")),
    ];
    assert_eq!(statement.check(&good), Ok(()));
    let mut changed = good.clone();
    changed[1].1 = sha256(b"other");
    let mut extra = good.clone();
    extra.push(("report.pdf".to_owned(), sha256(b"pdf")));
    for (files, name, why) in [
        (good[..1].to_vec(), "report.json", "missing"),
        (changed, "report.json", "SHA-256"),
        (extra, "report.pdf", "does not name"),
    ] {
        let error = statement.check(&files).expect_err(why);
        assert!(
            matches!(&error, StatementError::File { file, .. } if file == name)
                && error.to_string().contains(why),
            "{error}"
        );
    }
}

#[test]
fn keys_are_read_in_the_forms_that_others_write() {
    let public = key(1).public();
    let hex = HEXLOWER.encode(&public);
    assert_eq!(public_key("k", format!("{hex}\n").as_bytes()), Ok(public));
    let mut der = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    der.extend_from_slice(&public);
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        BASE64.encode(&der)
    );
    assert_eq!(public_key("k", pem.as_bytes()), Ok(public));
    // PKCS#8 version 1 as OpenSSL writes it: prefix and seed.
    let mut private = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    private.extend_from_slice(&[1; 32]);
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64.encode(&private)
    );
    for form in [private.clone(), pem.into_bytes()] {
        assert_eq!(
            SigningKey::parse("k", &form)
                .map(|key| key.public())
                .expect("a key"),
            public
        );
    }
    for bad in [
        &b""[..],
        b"zz",
        b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
        b"-----BEGIN CERTIFICATE-----",
    ] {
        assert!(
            matches!(public_key("k", bad), Err(StatementError::Key { .. })),
            "{bad:?}"
        );
        assert!(
            matches!(SigningKey::parse("k", bad), Err(StatementError::Key { .. })),
            "{bad:?}"
        );
    }
}
