//! SPIFFE bundle documents, PEM, and what may be an anchor.

use super::*;
use crate::authority::AuthorityError;
use crate::forge::{self, *};
use proptest::prelude::*;
use serde_json::{Value, json};

fn td() -> TrustDomain {
    TrustDomain::parse("td").expect("valid")
}

fn rotating() -> TrustBundle {
    let (old, new) = (Authority::root("td"), Authority::root("td"));
    TrustBundle::new(td(), vec![old.der, new.der]).expect("anchors")
}

fn document(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = rotating().with_sequence(7).to_json().parse().expect("JSON");
    edit(&mut value);
    value.to_string().into_bytes()
}

fn read(edit: impl FnOnce(&mut Value)) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_json(td(), &document(edit))
}

#[test]
fn a_bundle_survives_json_and_pem() {
    let bundle = rotating()
        .with_sequence(u64::MAX)
        .with_refresh_hint_secs(300);
    assert_eq!(
        TrustBundle::from_json(td(), bundle.to_json().as_bytes()),
        Ok(bundle.clone())
    );
    let from_pem = TrustBundle::from_pem(td(), bundle.to_pem().as_bytes()).expect("PEM");
    assert_eq!(from_pem.anchors(), bundle.anchors());
    assert_eq!(from_pem.sequence(), None);
    let longest = bundle.to_pem().lines().map(str::len).max();
    assert_eq!(longest, Some(64));
}

#[test]
fn the_document_is_what_spiffe_clients_expect() {
    let bundle = rotating().with_sequence(7).with_refresh_hint_secs(300);
    let value: Value = bundle.to_json().parse().expect("JSON");
    assert_eq!(
        (&value["spiffe_sequence"], &value["spiffe_refresh_hint"]),
        (&json!(7), &json!(300))
    );
    for (key, anchor) in value["keys"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(bundle.anchors())
    {
        assert_eq!(
            (&key["use"], &key["kty"], &key["crv"]),
            (&json!("x509-svid"), &json!("EC"), &json!("P-256"))
        );
        assert_eq!(key["x5c"], json!([STANDARD.encode(anchor)]));
        assert!(key.get("kid").is_none(), "x509-svid keys have no kid");
        assert_eq!(key["x"].as_str().map(str::len), Some(43));
    }
}

#[test]
fn all_kinds_of_anchor_keys_survive_json() {
    for key in [
        forge::Key::p256(),
        forge::Key::p384(),
        forge::Key::ed25519(),
    ] {
        let der = Template::authority("root", "", -1).sign(&key, "root", &key);
        let bundle = TrustBundle::new(td(), vec![der]).expect("an anchor");
        assert_eq!(
            TrustBundle::from_json(td(), bundle.to_json().as_bytes()),
            Ok(bundle)
        );
    }
}

#[test]
fn entries_that_consumers_must_ignore_are_ignored() {
    for entry in [
        json!({ "kty": "EC", "use": "jwt-svid", "kid": "1", "crv": "P-256", "x": "", "y": "" }),
        json!({ "kty": "EC", "use": "wit-svid", "kid": "1" }),
        json!({ "kty": "EC", "x5c": ["AAAA"] }),
        json!({ "kty": "NEW", "use": "x509-svid", "x5c": ["AAAA"] }),
        json!({ "use": "x509-svid", "x5c": ["AAAA"] }),
        json!({ "kty": "EC", "use": "x509-svid" }),
        json!("text"),
    ] {
        let bundle = read(|value| {
            value["keys"]
                .as_array_mut()
                .expect("a list")
                .insert(0, entry.clone())
        })
        .expect("ignored");
        assert_eq!(bundle.anchors().len(), 2, "{entry}");
    }
    assert_eq!(
        read(|value| value["keys"] = json!([]))
            .expect("empty")
            .anchors()
            .len(),
        0
    );
}

#[test]
fn documents_that_are_no_bundle_are_refused() {
    let member = |member, want| Err(BundleError::Member { member, want });
    let number = "a whole number from 0 to 2^64-1";
    assert_eq!(
        read(|value| drop(value.as_object_mut().expect("object").remove("keys"))),
        member("keys", "a list")
    );
    assert_eq!(
        read(|value| value["keys"] = json!({})),
        member("keys", "a list")
    );
    assert_eq!(
        read(|value| *value = json!([])),
        member("bundle", "an object")
    );
    for odd in [json!(-1), json!(1.5), json!("7"), json!(null), json!(1e30)] {
        assert_eq!(
            read(|value| value["spiffe_sequence"] = odd.clone()),
            member("spiffe_sequence", number),
            "{odd}"
        );
        assert_eq!(
            read(|value| value["spiffe_refresh_hint"] = odd.clone()),
            member("spiffe_refresh_hint", number)
        );
    }
    for text in [
        "",
        "{",
        "{}x",
        "[",
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"use":"a","use":"b"}]}"#,
        r#"{"spiffe_sequence":1,"keys":[],"spiffe_sequence":2}"#,
    ] {
        assert!(
            matches!(
                TrustBundle::from_json(td(), text.as_bytes()),
                Err(BundleError::Json { .. })
            ),
            "{text}"
        );
    }
    let huge = vec![b' '; BUNDLE_BYTES_MAX + 1];
    assert_eq!(
        TrustBundle::from_json(td(), &huge),
        Err(BundleError::TooLarge {
            bytes: huge.len(),
            limit: BUNDLE_BYTES_MAX
        })
    );
    let huge = vec![b' '; BUNDLE_MAP_BYTES_MAX + 1];
    assert_eq!(
        TrustBundles::from_json(&huge),
        Err(BundleError::TooLarge {
            bytes: huge.len(),
            limit: BUNDLE_MAP_BYTES_MAX
        })
    );
    let refused = read(|value| value["keys"] = vec![json!({}); BUNDLE_KEYS_MAX + 1].into());
    assert_eq!(
        refused,
        Err(BundleError::TooMany {
            what: "keys",
            limit: BUNDLE_KEYS_MAX
        })
    );
}

#[test]
fn x5c_is_exactly_one_certificate() {
    let x5c = Err(BundleError::X5c { position: 1 });
    for odd in [
        json!([]),
        json!(["AA", "AA"]),
        json!("AAAA"),
        json!([1]),
        json!(["not base64!"]),
        json!(["AA_-"]),
        json!(null),
    ] {
        assert_eq!(
            read(|value| value["keys"][1]["x5c"] = odd.clone()),
            x5c,
            "{odd}"
        );
    }
    let two = read(|value| {
        let chain = json!([value["keys"][0]["x5c"][0], value["keys"][1]["x5c"][0]]);
        value["keys"][1]["x5c"] = chain;
    });
    assert_eq!(two, x5c);
    let garbage = read(|value| value["keys"][1]["x5c"] = json!(["AAAA"]));
    assert!(
        matches!(garbage, Err(BundleError::Anchor { position: 1, .. })),
        "{garbage:?}"
    );
}

#[test]
fn the_key_beside_a_certificate_must_be_its_own() {
    let swapped = read(|value| {
        let other = value["keys"][0]["x"].clone();
        value["keys"][1]["x"] = other;
    });
    assert_eq!(swapped, Err(BundleError::KeyMismatch { position: 1 }));
    assert_eq!(
        read(|value| value["keys"][0]["kty"] = json!("RSA")),
        Err(BundleError::KeyMismatch { position: 0 })
    );
}

#[test]
fn only_authorities_of_the_domain_may_be_anchors() {
    let leaf = Authority::self_signed(&Template::leaf("spiffe://td/x"));
    let foreign = Authority::root("other");
    for (anchor, want) in [(leaf, "MESH-0161"), (foreign, "MESH-0164")] {
        match TrustBundle::new(td(), vec![anchor.der]) {
            Err(BundleError::Anchor {
                position: 0,
                source,
                ..
            }) => assert_eq!(code(&source), want),
            other => panic!("{other:?}"),
        }
    }
}

fn code(error: &AuthorityError) -> String {
    miette::Diagnostic::code(error).expect("a code").to_string()
}

#[test]
fn an_anchor_given_twice_counts_once_and_their_number_is_bounded() {
    let root = Authority::root("td");
    let bundle = TrustBundle::new(td(), vec![root.der.clone(); 100]).expect("one anchor");
    assert_eq!((bundle.anchors().len(), bundle.points().len()), (1, 1));
    let many = (0..=ANCHORS_MAX)
        .map(|_| Authority::root("td").der)
        .collect();
    assert_eq!(
        TrustBundle::new(td(), many),
        Err(BundleError::TooMany {
            what: "anchors",
            limit: ANCHORS_MAX
        })
    );
}

#[test]
fn pem_with_keys_or_without_certificates_is_refused() {
    let pem = rotating().to_pem();
    for kind in [
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
    ] {
        let with_key = format!("{pem}-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        assert_eq!(
            TrustBundle::from_pem(td(), with_key.as_bytes()),
            Err(BundleError::PrivateKey),
            "{kind}"
        );
    }
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        assert!(
            matches!(
                TrustBundle::from_pem(td(), text.as_bytes()),
                Err(BundleError::Pem { .. })
            ),
            "{text}"
        );
    }
    let truncated = pem.get(..pem.len() - 30).expect("ASCII");
    assert!(TrustBundle::from_pem(td(), truncated.as_bytes()).is_err());
    assert!(TrustBundle::from_pem(td(), format!("# roots\n{pem}").as_bytes()).is_ok());
}

#[test]
fn bundle_maps_keep_domains_apart() {
    let bundles: TrustBundles = [
        Authority::root("td").bundle("td"),
        Authority::root("other").bundle("other"),
    ]
    .into_iter()
    .collect();
    let text = bundles.to_json();
    assert_eq!(
        TrustBundles::from_json(text.as_bytes()),
        Ok(bundles.clone())
    );
    let crossed = text
        .replace("\"td\":", "\"x\":")
        .replace("\"other\":", "\"td\":")
        .replace("\"x\":", "\"other\":");
    assert!(matches!(
        TrustBundles::from_json(crossed.as_bytes()),
        Err(BundleError::Anchor { .. })
    ));
}

#[test]
fn bundle_maps_with_a_domain_twice_or_misnamed_are_refused() {
    let one = Authority::root("td").bundle("td").to_json();
    let twice = format!(r#"{{"trust_domains":{{"td":{one},"td":{one}}}}}"#);
    assert!(matches!(
        TrustBundles::from_json(twice.as_bytes()),
        Err(BundleError::Json { .. })
    ));
    for name in ["TD", "spiffe://td", "", "t/d"] {
        let named = format!(r#"{{"trust_domains":{{"{name}":{one}}}}}"#);
        assert!(
            matches!(
                TrustBundles::from_json(named.as_bytes()),
                Err(BundleError::Domain(_))
            ),
            "{name}"
        );
    }
    for text in ["{}", "[]", r#"{"trust_domains":[]}"#] {
        assert!(
            matches!(
                TrustBundles::from_json(text.as_bytes()),
                Err(BundleError::Member { .. })
            ),
            "{text}"
        );
    }
}

#[test]
fn an_inserted_bundle_takes_the_place_of_its_predecessor() {
    let (old, new) = (
        Authority::root("td").bundle("td"),
        Authority::root("td").bundle("td"),
    );
    let mut bundles = TrustBundles::from(old);
    bundles.insert(new.clone());
    assert_eq!(bundles.iter().collect::<Vec<_>>(), [&new]);
    assert_eq!(bundles.remove(&td()), Some(new));
    assert_eq!(bundles.get(&td()), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = TrustBundle::from_json(td(), text.as_bytes());
        let _ = TrustBundles::from_json(&bytes);
        let _ = TrustBundle::from_pem(td(), &bytes);
    }
}
