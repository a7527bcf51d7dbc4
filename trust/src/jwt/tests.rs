//! The rules J1 to J5, each broken once; everything else about each token is right, and its signature too.

use super::*;
use crate::limits::JWT_KEY_ID_BYTES_MAX;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RsaEncoding};
use serde_json::json;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

const NOW: Timestamp = Timestamp::from_unix_secs(1_795_260_000);
const CART: &str = "spiffe://td/ns/shop/sa/cart";

/// A private key that signs tokens in tests.
enum Pen {
    Elliptic(EcdsaKeyPair, &'static str, usize),
    Rsa(Box<rsa::KeyPair>),
}

impl Pen {
    fn elliptic(
        algorithm: &'static EcdsaSigningAlgorithm,
        curve: &'static str,
        size: usize,
    ) -> Self {
        Self::Elliptic(
            EcdsaKeyPair::generate(algorithm).expect("a key"),
            curve,
            size,
        )
    }

    fn p256() -> Self {
        Self::elliptic(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", 32)
    }

    fn rsa() -> Self {
        Self::Rsa(Box::new(
            rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key"),
        ))
    }

    fn sign(&self, message: &[u8], algorithm: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Elliptic(pair, ..) => pair
                .sign(&random, message)
                .expect("signs")
                .as_ref()
                .to_vec(),
            Self::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut out)
                    .expect("signs");
                out
            }
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Elliptic(pair, curve, size) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(*size);
                json!({ "kty": "EC", "use": "jwt-svid", "kid": kid, "crv": curve, "x": number(x), "y": number(y) })
            }
            Self::Rsa(pair) => {
                let (_, key) = RSAPublicKey::from_der(pair.public_key().as_ref()).expect("PKCS #1");
                let shortest = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    number(&bytes[zeros..])
                };
                json!({
                    "kty": "RSA", "use": "jwt-svid", "kid": kid,
                    "n": shortest(key.modulus), "e": shortest(key.exponent),
                })
            }
        }
    }
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).expect("a name")
}

fn bundle(name: &str, keys: &[(&str, &Pen)]) -> JwtBundle {
    let keys: Vec<Value> = keys.iter().map(|(kid, pen)| pen.jwk(kid)).collect();
    JwtBundle::from_json(domain(name), json!({ "keys": keys }).to_string().as_bytes())
        .expect("a bundle")
}

fn bundles(pen: &Pen) -> JwtBundles {
    JwtBundles::from_iter([bundle("td", &[("k1", pen)])])
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" })
}

fn claims() -> Value {
    let now = NOW.unix_secs();
    json!({ "sub": CART, "aud": ["checkout"], "exp": now + 300, "iat": now })
}

fn with(mut value: Value, member: &str, new: Value) -> Value {
    match new {
        Value::Null => drop(value.as_object_mut().expect("an object").remove(member)),
        new => value[member] = new,
    }
    value
}

fn text(value: &str) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

fn signed_text(pen: &Pen, header: &str, claims: &str, algorithm: &str) -> String {
    let signed = format!("{}.{}", text(header), text(claims));
    let signature = URL_SAFE_NO_PAD.encode(pen.sign(signed.as_bytes(), algorithm));
    format!("{signed}.{signature}")
}

fn token(pen: &Pen, header: &Value, claims: &Value) -> String {
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or("ES256");
    signed_text(pen, &header.to_string(), &claims.to_string(), algorithm)
}

fn verify(pen: &Pen, header: &Value, claims: &Value) -> Result<JwtSvid, JwtError> {
    JwtSvid::verify(&token(pen, header, claims), "checkout", &bundles(pen), NOW)
}

#[test]
fn a_token_as_our_ca_makes_it_is_believed() {
    let pen = Pen::p256();
    let svid = verify(&pen, &header(), &claims()).expect("believed");
    assert_eq!(svid.id().as_str(), CART);
    assert_eq!(svid.audience(), ["checkout"]);
    assert_eq!(svid.expires(), NOW.plus_secs(300));
    assert_eq!(Value::Object(svid.claims().clone()), claims());
}

#[test]
fn all_nine_algorithms_are_verified_and_each_key_takes_its_own_only() {
    let pens = [
        (Pen::p256(), vec!["ES256"]),
        (
            Pen::elliptic(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", 48),
            vec!["ES384"],
        ),
        (
            Pen::elliptic(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521", 66),
            vec!["ES512"],
        ),
        (
            Pen::rsa(),
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
    ];
    for (pen, own) in &pens {
        for algorithm in Algorithm::ALL.map(Algorithm::name) {
            let header = with(header(), "alg", algorithm.into());
            let got = verify(pen, &header, &claims());
            if own.contains(&algorithm) {
                assert!(got.is_ok(), "{algorithm}: {got:?}");
            } else {
                assert!(
                    matches!(got, Err(JwtError::UnknownKey { .. })),
                    "{algorithm} with a key for {own:?}: {got:?}"
                );
            }
        }
    }
}

#[test]
fn j1_only_the_compact_form_is_read() {
    let pen = Pen::p256();
    let good = token(&pen, &header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let jws = json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] });
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.x"),
        good.replace('.', ""),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        jws.to_string(),
    ] {
        let got = JwtSvid::verify(&bad, "checkout", &bundles(&pen), NOW);
        assert!(
            matches!(got, Err(JwtError::Malformed { .. })),
            "{bad}: {got:?}"
        );
    }
    let long = "x".repeat(JWT_BYTES_MAX + 1);
    assert_eq!(
        JwtSvid::verify(&long, "checkout", &bundles(&pen), NOW),
        Err(JwtError::TooLarge {
            bytes: JWT_BYTES_MAX + 1
        })
    );
}

#[test]
fn j1_headers_have_three_fields_and_no_other() {
    let pen = Pen::p256();
    for typ in ["JWT", "JOSE"] {
        assert!(verify(&pen, &with(header(), "typ", typ.into()), &claims()).is_ok());
    }
    assert!(verify(&pen, &with(header(), "typ", Value::Null), &claims()).is_ok());
    for (member, value) in [
        ("typ", json!("jwt")),
        ("typ", json!("wit+jwt")),
        ("typ", json!(1)),
        ("crit", json!(["exp"])),
        ("jwk", json!({})),
        ("jku", json!("https://evil.example/keys")),
        ("x5c", json!([])),
        ("b64", json!(false)),
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("EdDSA")),
        ("alg", json!("es256")),
        ("alg", json!("ES256K")),
        ("alg", Value::Null),
        ("alg", json!(256)),
    ] {
        let got = verify(&pen, &with(header(), member, value.clone()), &claims());
        assert!(
            matches!(got, Err(JwtError::Header { .. })),
            "{member} {value}: {got:?}"
        );
    }
}

#[test]
fn j1_a_member_given_twice_is_refused_in_header_and_claims() {
    let pen = Pen::p256();
    let twice_alg = r#"{"alg":"ES256","kid":"k1","alg":"ES256"}"#;
    let twice_sub =
        format!(r#"{{"sub":"{CART}","aud":"checkout","exp":9999999999,"sub":"{CART}"}}"#);
    for (header, claims) in [
        (twice_alg.to_owned(), claims().to_string()),
        (header().to_string(), twice_sub),
        (header().to_string(), "[]".to_owned()),
        ("[]".to_owned(), claims().to_string()),
    ] {
        let token = signed_text(&pen, &header, &claims, "ES256");
        let got = JwtSvid::verify(&token, "checkout", &bundles(&pen), NOW);
        assert!(
            matches!(got, Err(JwtError::Malformed { .. })),
            "{header} {claims}: {got:?}"
        );
    }
}

#[test]
fn j2_subject_audience_and_end_are_demanded() {
    let pen = Pen::p256();
    for (claim, value) in [
        ("sub", Value::Null),
        ("sub", json!(7)),
        ("sub", json!("")),
        ("sub", json!("spiffe://td")),
        ("sub", json!("spiffe://TD/ns/shop/sa/cart")),
        ("sub", json!("spiffe://td/ns//sa/cart")),
        ("sub", json!("https://td/ns/shop/sa/cart")),
        ("aud", Value::Null),
        ("aud", json!([])),
        ("aud", json!("")),
        ("aud", json!(["checkout", ""])),
        ("aud", json!(["checkout", 1])),
        ("aud", json!({ "checkout": true })),
        ("aud", json!(vec!["checkout"; JWT_AUDIENCES_MAX + 1])),
        ("exp", Value::Null),
        ("exp", json!("tomorrow")),
        ("exp", json!(1e300)),
        ("exp", json!([9_999_999_999_u64])),
        ("iat", json!("now")),
        ("nbf", json!({})),
    ] {
        let got = verify(&pen, &header(), &with(claims(), claim, value.clone()));
        assert!(
            matches!(got, Err(JwtError::Claim { .. })),
            "{claim} {value}: {got:?}"
        );
    }
    assert!(verify(&pen, &header(), &with(claims(), "aud", json!("checkout"))).is_ok());
    assert!(
        verify(
            &pen,
            &header(),
            &with(claims(), "aud", json!(["x", "checkout"]))
        )
        .is_ok()
    );
}

#[test]
fn j2_a_token_for_another_audience_is_refused() {
    let pen = Pen::p256();
    let token = token(&pen, &header(), &claims());
    for audience in ["check", "checkout2", "CHECKOUT", "", "*", CART] {
        let got = JwtSvid::verify(&token, audience, &bundles(&pen), NOW);
        assert!(
            matches!(got, Err(JwtError::Audience { .. })),
            "{audience}: {got:?}"
        );
    }
}

#[test]
fn j2_the_end_is_sharp_and_a_beginning_may_lie_a_minute_ahead() {
    let pen = Pen::p256();
    let now = NOW.unix_secs();
    for (claim, value, holds) in [
        ("exp", json!(now + 1), true),
        ("exp", json!(now), false),
        ("exp", json!(now - 1), false),
        ("exp", json!(now as f64 + 1.9), true),
        ("exp", json!(now as f64 + 0.9), false),
        ("exp", json!(-1), false),
        ("iat", json!(now + 60), true),
        ("iat", json!(now + 61), false),
        ("nbf", json!(now + 60), true),
        ("nbf", json!(now + 61), false),
    ] {
        let got = verify(&pen, &header(), &with(claims(), claim, value.clone()));
        let refused = matches!(got, Err(JwtError::NotInForce { .. }));
        assert_eq!(
            (got.is_ok(), refused),
            (holds, !holds),
            "{claim} {value}: {got:?}"
        );
    }
}

#[test]
fn j3_a_token_without_a_key_id_is_refused() {
    let pen = Pen::p256();
    for kid in [Value::Null, json!(""), json!(1), json!(["k1"])] {
        let got = verify(&pen, &with(header(), "kid", kid.clone()), &claims());
        assert!(
            matches!(got, Err(JwtError::Header { .. })),
            "{kid}: {got:?}"
        );
    }
    let got = verify(&pen, &with(header(), "kid", json!("k2")), &claims());
    assert!(matches!(got, Err(JwtError::UnknownKey { .. })), "{got:?}");
}

#[test]
fn j4_a_bundle_is_read_whole_or_not_at_all() {
    let pen = Pen::p256();
    let good = pen.jwk("k1");
    let x509 = json!({ "kty": "EC", "use": "x509-svid", "x5c": ["AA=="] });
    let unknown =
        json!({ "kty": "OKP", "use": "jwt-svid", "kid": "k9", "crv": "Ed25519", "x": "AA" });
    let no_use = with(good.clone(), "use", Value::Null);
    let document = json!({ "keys": [x509, unknown, no_use, good.clone()] }).to_string();
    let read = JwtBundle::from_json(domain("td"), document.as_bytes()).expect("read");
    assert_eq!(
        read.key_ids().collect::<Vec<_>>(),
        ["k1"],
        "others are skipped"
    );
    let again = JwtBundle::from_json(domain("td"), read.to_json().as_bytes()).expect("read again");
    assert_eq!(again, read);
    for (member, value) in [
        ("kid", Value::Null),
        ("kid", json!("")),
        ("kid", json!("k".repeat(JWT_KEY_ID_BYTES_MAX + 1))),
        ("crv", json!("secp256k1")),
        ("x", json!("AA")),
        ("y", Value::Null),
        ("y", json!("!")),
    ] {
        let bad = json!({ "keys": [with(good.clone(), member, value.clone())] }).to_string();
        let got = JwtBundle::from_json(domain("td"), bad.as_bytes());
        assert!(got.is_err(), "{member} {value}");
    }
    let (small, even) = ("AQAB", URL_SAFE_NO_PAD.encode([0x80; 255]));
    let padded = URL_SAFE_NO_PAD.encode([&[0][..], &[0x80; 256]].concat());
    for (n, e) in [
        (even.as_str(), small),
        (padded.as_str(), small),
        ("", small),
    ] {
        let bad =
            json!({ "keys": [{ "kty": "RSA", "use": "jwt-svid", "kid": "r", "n": n, "e": e }] });
        assert!(JwtBundle::from_json(domain("td"), bad.to_string().as_bytes()).is_err());
    }
    for bad in [
        json!({ "keys": [good.clone(), good.clone()] }).to_string(),
        json!({ "keys": {} }).to_string(),
        json!({}).to_string(),
        "[]".to_owned(),
        r#"{"keys":[],"keys":[]}"#.to_owned(),
        json!({ "keys": vec![json!({}); 257] }).to_string(),
    ] {
        assert!(
            JwtBundle::from_json(domain("td"), bad.as_bytes()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn j5_only_the_bundle_of_the_subjects_own_domain_counts() {
    let (ours, theirs) = (Pen::p256(), Pen::p256());
    let both = JwtBundles::from_iter([
        bundle("td", &[("k1", &ours)]),
        bundle("other.example", &[("k1", &theirs), ("k2", &theirs)]),
    ]);
    let check = |pen: &Pen, kid: &str| {
        let token = token(pen, &with(header(), "kid", kid.into()), &claims());
        JwtSvid::verify(&token, "checkout", &both, NOW)
    };
    assert!(check(&ours, "k1").is_ok());
    assert_eq!(check(&theirs, "k1"), Err(JwtError::Signature));
    assert!(matches!(
        check(&theirs, "k2"),
        Err(JwtError::UnknownKey { .. })
    ));
    let token = token(&ours, &header(), &claims());
    let none = JwtBundles::default();
    let got = JwtSvid::verify(&token, "checkout", &none, NOW);
    assert!(matches!(got, Err(JwtError::UnknownKey { .. })), "{got:?}");
}

#[test]
fn every_flipped_letter_of_a_token_is_refused() {
    let pen = Pen::p256();
    let good = token(&pen, &header(), &claims());
    let bundles = bundles(&pen);
    for at in 0..good.len() {
        for bit in [1, 2, 4] {
            let mut changed = good.clone().into_bytes();
            changed[at] ^= bit;
            let Ok(changed) = String::from_utf8(changed) else {
                continue;
            };
            let got = JwtSvid::verify(&changed, "checkout", &bundles, NOW);
            assert!(got.is_err(), "letter {at}, bit {bit}: {changed}");
        }
    }
}
