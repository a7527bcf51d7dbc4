//! The leaf rules X1 and X2, each broken once. Everything here is signed correctly by a trusted root.

use super::*;
use crate::forge::{self, *};
use crate::limits::{EXTENSIONS_MAX, SAN_NAMES_MAX};

const CART: &str = "spiffe://td/ns/shop/sa/cart";

fn leaf() -> Template {
    Template::leaf(CART)
}

fn parse(template: &Template) -> Result<Svid, SvidError> {
    parse_with(template, &forge::Key::p256())
}

fn parse_with(template: &Template, key: &forge::Key) -> Result<Svid, SvidError> {
    let root = Authority::root("td");
    Svid::parse(vec![template.sign(key, &root.name, &root.key)])
}

fn id() -> SpiffeId {
    SpiffeId::parse(CART).expect("valid")
}

#[test]
fn a_leaf_as_our_ca_makes_it_is_an_svid() {
    let svid = parse(&leaf()).expect("an SVID");
    assert_eq!(svid.id().as_str(), CART);
    assert_eq!(svid.serial(), "5a".repeat(16));
    assert_eq!(
        (svid.not_before(), svid.not_after()),
        (NOW.plus_secs(-HOUR), NOW.plus_secs(23 * HOUR))
    );
    assert_eq!(svid.remaining_secs(NOW), 23 * 3_600);
    assert_eq!(svid.remaining_secs(NOW.plus_secs(24 * HOUR)), 0);
}

#[test]
fn a_leaf_made_by_another_library_is_an_svid() {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(CART.try_into().expect("ASCII"))];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let key = rcgen::KeyPair::generate().expect("a key");
    let der = params.self_signed(&key).expect("signs").der().clone();
    assert_eq!(Svid::parse(vec![der]).expect("an SVID").id().as_str(), CART);
}

#[test]
fn all_three_kinds_of_keys_are_taken() {
    for key in [
        forge::Key::p256(),
        forge::Key::p384(),
        forge::Key::ed25519(),
    ] {
        assert!(parse_with(&leaf(), &key).is_ok());
    }
}

#[test]
fn what_the_standard_leaves_open_is_accepted() {
    for (template, why) in [
        (leaf().without(BASIC), "no basic constraints: cA is false"),
        (
            leaf().with(BASIC, true, sequence(&[tlv(1, &[0])])),
            "cA written out as false: not DER, but false",
        ),
        (leaf().without(PURPOSES), "extended key usage is optional"),
        (
            leaf().with(KEY_USAGE, true, key_usage(&[0, 2, 4])),
            "keyEncipherment and keyAgreement may be set",
        ),
        (
            leaf().and(&[0x2a, 3, 4], false, vec![1, 2, 3]),
            "an unknown extension that is not critical",
        ),
        (
            leaf().with(
                PURPOSES,
                true,
                purposes(&[SERVER_AUTH, CLIENT_AUTH, &[0x2a, 3]]),
            ),
            "a third purpose",
        ),
        (
            Template {
                subject: "cart".to_owned(),
                ..leaf()
            }
            .with(NAMES, false, names(&[(6, CART.as_bytes())])),
            "a subject, names not critical",
        ),
        (
            Template {
                serial: vec![0, 0x80, 1],
                ..leaf()
            },
            "a sign octet in the serial",
        ),
    ] {
        assert_eq!(
            parse(&template).map(|svid| svid.id().to_string()),
            Ok(CART.to_owned()),
            "{why}"
        );
    }
}

#[test]
fn the_sign_octet_is_no_part_of_the_serial() {
    let svid = parse(&Template {
        serial: vec![0, 0x80, 1],
        ..leaf()
    })
    .expect("an SVID");
    assert_eq!(svid.serial(), "8001");
}

#[test]
fn other_names_do_not_count_and_their_order_does_not_matter() {
    let dns: (u8, &[u8]) = (2, b"cart.shop.svc");
    let uri: (u8, &[u8]) = (6, CART.as_bytes());
    let ip: (u8, &[u8]) = (7, &[10, 0, 0, 9]);
    for list in [vec![uri, dns, ip], vec![dns, uri, ip], vec![ip, dns, uri]] {
        assert_eq!(
            parse(&leaf().with(NAMES, true, names(&list)))
                .expect("an SVID")
                .id(),
            &id()
        );
    }
}

#[test]
fn leaves_without_exactly_one_uri_name_are_refused() {
    let uri: (u8, &[u8]) = (6, CART.as_bytes());
    let web: (u8, &[u8]) = (6, b"https://td/ns/shop/sa/cart");
    let dns: (u8, &[u8]) = (2, b"cart.shop.svc");
    for (list, count) in [
        (vec![uri, uri], 2),
        (vec![uri, web], 2),
        (vec![web, uri], 2),
        (vec![dns], 0),
        (vec![], 0),
    ] {
        assert_eq!(
            parse(&leaf().with(NAMES, true, names(&list))).err(),
            Some(SvidError::UriNames { count })
        );
    }
    assert_eq!(
        parse(&leaf().without(NAMES)).err(),
        Some(SvidError::UriNames { count: 0 })
    );
}

#[test]
fn the_only_uri_name_must_be_a_canonical_spiffe_id() {
    for text in [
        "SPIFFE://td/x",
        "spiffe://TD/x",
        "spiffe://td/%2e",
        "spiffe://td//x",
        "spiffe://td/./x",
        "spiffe://td/x/",
        "spiffe://td/x?y",
        "spiffe://td/x#y",
        "spiffe://td:1/x",
        "spiffe://u@td/x",
        "spiffe://td/*",
        "https://td/x",
        "",
        "spiffe://td/caf\u{e9}",
    ] {
        let refused = parse(&leaf().with(NAMES, true, names(&[(6, text.as_bytes())]))).err();
        assert!(
            matches!(refused, Some(SvidError::Id(_))),
            "{text}: {refused:?}"
        );
    }
    let long = format!("spiffe://td/{}", "a".repeat(2_048));
    let refused = parse(&leaf().with(NAMES, true, names(&[(6, long.as_bytes())]))).err();
    assert!(
        matches!(refused, Some(SvidError::Id(IdError::TooLong(_)))),
        "{refused:?}"
    );
}

#[test]
fn the_id_of_a_trust_domain_names_no_workload() {
    let refused = parse(&leaf().with(NAMES, true, names(&[(6, b"spiffe://td")]))).err();
    assert!(
        matches!(refused, Some(SvidError::NoPath { .. })),
        "{refused:?}"
    );
}

#[test]
fn names_that_readers_could_cut_short_are_refused() {
    let uri: (u8, &[u8]) = (6, CART.as_bytes());
    let other = [oid(&[0x2a, 3]), tlv(0xa0, &tlv(0x0c, b"admin\0.evil"))].concat();
    for (list, kind) in [
        (
            vec![(6, b"spiffe://td/ns/shop\0/sa/evil".as_slice())],
            "URI",
        ),
        (vec![uri, (2, b"cart\0.evil")], "DNS name"),
        (vec![uri, (2, "c\u{e4}rt".as_bytes())], "DNS name"),
        (vec![uri, (1, b"a@b\0")], "e-mail address"),
        (vec![uri, (7, &[10, 0, 0])], "IP address"),
        (vec![uri, (2, &[0xff, 0xfe])], "unreadable"),
        (vec![uri, (9, b"x")], "unreadable"),
        (vec![uri, (3, b"x")], "X.400 address"),
        (vec![uri, (0x20, &other)], "other name"),
    ] {
        let refused = parse(&leaf().with(NAMES, true, names(&list))).err();
        assert_eq!(
            refused,
            Some(CertificateError::Name { kind }.into()),
            "{list:?}"
        );
    }
}

#[test]
fn usages_that_the_standard_forbids_are_refused() {
    let want: &[(Template, SvidError)] = &[
        (
            leaf().with(BASIC, true, sequence(&[tlv(1, &[0xff])])),
            SvidError::IsAuthority { id: id() },
        ),
        (
            leaf().without(KEY_USAGE),
            SvidError::NoKeyUsage { id: id() },
        ),
        (
            leaf().with(KEY_USAGE, false, key_usage(&[0])),
            SvidError::KeyUsageNotCritical { id: id() },
        ),
        (
            leaf().with(KEY_USAGE, true, key_usage(&[2])),
            SvidError::NoDigitalSignature { id: id() },
        ),
        (
            leaf().with(KEY_USAGE, true, key_usage(&[])),
            SvidError::NoDigitalSignature { id: id() },
        ),
        (
            leaf().with(KEY_USAGE, true, key_usage(&[0, 5])),
            SvidError::MaySignCertificates { id: id() },
        ),
        (
            leaf().with(KEY_USAGE, true, key_usage(&[0, 6])),
            SvidError::MaySignCertificates { id: id() },
        ),
        (
            leaf().with(PURPOSES, false, purposes(&[SERVER_AUTH])),
            SvidError::ExtendedKeyUsage { id: id() },
        ),
        (
            leaf().with(PURPOSES, false, purposes(&[CLIENT_AUTH])),
            SvidError::ExtendedKeyUsage { id: id() },
        ),
        (
            leaf().with(PURPOSES, false, purposes(&[])),
            SvidError::ExtendedKeyUsage { id: id() },
        ),
        (
            leaf().with(PURPOSES, false, purposes(&[&[0x55, 0x1d, 37, 0]])),
            SvidError::ExtendedKeyUsage { id: id() },
        ),
        (
            leaf().with(NAMES, false, names(&[(6, CART.as_bytes())])),
            SvidError::NamesNotCritical { id: id() },
        ),
    ];
    for (template, error) in want {
        assert_eq!(parse(template).err().as_ref(), Some(error));
    }
}

#[test]
fn keys_and_algorithms_of_other_kinds_are_refused() {
    let p224 = sequence(&[
        sequence(&[oid(EC), oid(&[0x2b, 0x81, 0x04, 0x00, 0x21])]),
        bits(&[4; 57]),
    ]);
    let p521 = sequence(&[
        sequence(&[oid(EC), oid(&[0x2b, 0x81, 0x04, 0x00, 0x23])]),
        bits(&[4; 133]),
    ]);
    let explicit = sequence(&[
        sequence(&[oid(EC), sequence(&[tlv(2, &[1])])]),
        bits(&[4; 65]),
    ]);
    let compressed = sequence(&[sequence(&[oid(EC), oid(P256)]), bits(&[2; 33])]);
    let infinity = sequence(&[sequence(&[oid(EC), oid(P256)]), bits(&[0])]);
    let ed448 = sequence(&[sequence(&[oid(&[0x2b, 0x65, 0x71])]), bits(&[1; 57])]);
    let rsa = |bytes: usize| {
        let numbers = sequence(&[
            tlv(
                2,
                &[&[0], [0xc1; 2_048].get(..bytes).expect("short")].concat(),
            ),
            tlv(2, &[1, 0, 1]),
        ]);
        sequence(&[
            sequence(&[
                oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]),
                tlv(5, &[]),
            ]),
            bits(&numbers),
        ])
    };
    for info in [
        p224,
        p521,
        explicit,
        compressed,
        infinity,
        ed448,
        rsa(128),
        rsa(256),
        rsa(512),
        rsa(2_048),
    ] {
        let refused = parse(&Template {
            info: Some(info),
            ..leaf()
        })
        .err();
        assert!(
            matches!(
                refused,
                Some(SvidError::Certificate(CertificateError::Key { .. }))
            ),
            "{refused:?}"
        );
    }
    for weak in [
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04][..], // md5WithRSAEncryption
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],     // sha1WithRSAEncryption
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],                 // ecdsa-with-SHA1
        &[0x2b, 0x65, 0x71],                                         // Ed448
    ] {
        let refused = parse(&Template {
            algorithm: Some(sequence(&[oid(weak)])),
            ..leaf()
        })
        .err();
        assert!(
            matches!(
                refused,
                Some(SvidError::Certificate(
                    CertificateError::SignatureAlgorithm { .. }
                ))
            ),
            "{refused:?}"
        );
    }
}

#[test]
fn bytes_that_can_be_read_in_two_ways_are_refused() {
    let malformed = |part| SvidError::from(CertificateError::Malformed { part });
    let doubled = |oid: &str| {
        SvidError::from(CertificateError::DoubledExtension {
            oid: oid.to_owned(),
        })
    };
    let unknown = |oid: &str| {
        SvidError::from(CertificateError::UnknownCriticalExtension {
            oid: oid.to_owned(),
        })
    };
    let san = [0x55, 0x1d, NAMES];
    let two_parts = [names(&[(6, CART.as_bytes())]), vec![5, 0]].concat();
    for (template, error) in [
        (
            Template {
                trailing: vec![0],
                ..leaf()
            },
            malformed("structure"),
        ),
        (
            Template {
                version: 1,
                ..leaf()
            },
            malformed("version"),
        ),
        (
            Template {
                version: 0,
                ..leaf()
            },
            malformed("version"),
        ),
        (
            leaf().with(NAMES, true, two_parts),
            malformed("subject alternative name"),
        ),
        (
            leaf().with(KEY_USAGE, true, [key_usage(&[0]), vec![0]].concat()),
            malformed("key usage"),
        ),
        (
            leaf().with(BASIC, true, vec![0x30, 1, 0]),
            malformed("basic constraints"),
        ),
        (
            leaf().with(BASIC, true, [sequence(&[]), vec![0]].concat()),
            malformed("basic constraints"),
        ),
        (
            leaf().with(PURPOSES, false, vec![1]),
            malformed("extended key usage"),
        ),
        (
            leaf().and(&san, true, names(&[(6, b"spiffe://td/other")])),
            doubled("2.5.29.17"),
        ),
        (
            leaf()
                .and(&[0x2a, 3, 4], false, vec![])
                .and(&[0x2a, 3, 4], false, vec![]),
            doubled("1.2.3.4"),
        ),
        (leaf().and(&[0x2a, 3, 4], true, vec![]), unknown("1.2.3.4")),
        (leaf().with(36, true, vec![0x30, 0]), unknown("2.5.29.36")),
    ] {
        assert_eq!(parse(&template).err(), Some(error));
    }
}

#[test]
fn odd_serials_and_periods_are_refused() {
    for serial in [
        vec![0],
        vec![0x80],
        vec![0, 5],
        vec![0, 0, 0x85],
        vec![0xff; 4],
        vec![1; 21],
        [vec![0, 0xff], vec![1; 20]].concat(),
    ] {
        let refused = parse(&Template { serial, ..leaf() }).err();
        assert!(
            matches!(
                refused,
                Some(SvidError::Certificate(CertificateError::Serial { .. }))
            ),
            "{refused:?}"
        );
    }
    let refused = parse(&leaf().period(HOUR, -HOUR)).err();
    assert!(
        matches!(
            refused,
            Some(SvidError::Certificate(CertificateError::Validity { .. }))
        ),
        "{refused:?}"
    );
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    assert_eq!(Svid::parse(Vec::new()).err(), Some(SvidError::Empty));
    let chain = vec![CertificateDer::from(vec![0x30]); 100];
    assert_eq!(
        Svid::parse(chain).err(),
        Some(SvidError::ChainTooLong { count: 100 })
    );
    let bytes = 16 << 20;
    let huge = Svid::parse(vec![
        CertificateDer::from(vec![0x30]),
        CertificateDer::from(vec![0; bytes]),
    ])
    .err();
    assert_eq!(huge, Some(CertificateError::TooLarge { bytes }.into()));
    let many: Vec<(u8, &[u8])> = vec![(2, b"a"); SAN_NAMES_MAX + 1];
    assert_eq!(
        parse(&leaf().with(NAMES, true, names(&many))).err(),
        Some(CertificateError::TooManyNames.into())
    );
    let crowd: Vec<(u8, &[u8])> = vec![(2, b"a"); 10_000];
    let refused = parse(&leaf().with(NAMES, true, names(&crowd))).err();
    assert!(
        matches!(
            refused,
            Some(SvidError::Certificate(CertificateError::TooLarge { .. }))
        ),
        "{refused:?}"
    );
    let crowded = (0..EXTENSIONS_MAX as u8).fold(leaf(), |template, at| {
        template.and(&[0x2a, at], false, vec![])
    });
    let refused = parse(&crowded).err();
    assert!(
        matches!(
            refused,
            Some(SvidError::Certificate(
                CertificateError::TooManyExtensions { .. }
            ))
        ),
        "{refused:?}"
    );
}

#[test]
fn no_change_of_one_byte_makes_the_reader_panic_or_the_identity_change_unseen() {
    let root = Authority::root("td");
    let honest = leaf().sign(&forge::Key::p256(), &root.name, &root.key);
    let bundles = crate::TrustBundles::from(root.bundle("td"));
    for at in 0..honest.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = honest.to_vec();
            bytes[at] ^= flip;
            if let Ok(svid) = Svid::parse(vec![bytes.into()]) {
                assert!(
                    bundles.verify(&svid, NOW).is_err(),
                    "byte {at} ^ {flip:#x} is still trusted"
                );
            }
        }
    }
    for cut in 0..honest.len() {
        assert!(Svid::parse(vec![honest[..cut].to_vec().into()]).is_err());
    }
}
