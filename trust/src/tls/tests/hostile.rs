//! Chains that must be refused, each shown to a mesh server by a client and to a mesh client by a server.

use super::*;
use crate::limits::CHAIN_CERTIFICATES_MAX;

struct Case {
    what: &'static str,
    chain: Vec<CertificateDer<'static>>,
    key: forge::Key,
    code: &'static str,
}

/// What a leaf may do wrong, signed by the right root.
fn bad_leaves() -> Vec<(&'static str, Template, &'static str)> {
    let web = || Template::leaf(WEB);
    let uri: (u8, &[u8]) = (6, WEB.as_bytes());
    let named = |list: &[(u8, &[u8])]| web().with(NAMES, true, names(list));
    let weak = |last: u8| {
        Some(sequence(&[oid(&[
            0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last,
        ])]))
    };
    vec![
        ("TL2 expired", web().period(-2 * HOUR, -1), "MESH-0173"),
        ("TL3 not yet valid", web().period(1, HOUR), "MESH-0172"),
        (
            "TL6 authority as leaf",
            web().with(BASIC, true, sequence(&[tlv(1, &[0xff])])),
            "MESH-0136",
        ),
        (
            "TL7 keyCertSign",
            web().with(KEY_USAGE, true, key_usage(&[0, 5])),
            "MESH-0140",
        ),
        ("TL8 no key usage", web().without(KEY_USAGE), "MESH-0137"),
        (
            "TL8 no digitalSignature",
            web().with(KEY_USAGE, true, key_usage(&[4])),
            "MESH-0139",
        ),
        (
            "X2 key usage not critical",
            web().with(KEY_USAGE, false, key_usage(&[0])),
            "MESH-0138",
        ),
        (
            "TL9 only serverAuth",
            web().with(PURPOSES, false, purposes(&[SERVER_AUTH])),
            "MESH-0141",
        ),
        (
            "TL9 only clientAuth",
            web().with(PURPOSES, false, purposes(&[CLIENT_AUTH])),
            "MESH-0141",
        ),
        (
            "TL11 two URI names",
            named(&[uri, (6, CART.as_bytes())]),
            "MESH-0133",
        ),
        (
            "TL12 only a DNS name",
            named(&[(2, b"web.shop.svc")]),
            "MESH-0133",
        ),
        (
            "TL14 upper-case scheme",
            named(&[(6, b"SPIFFE://td/ns/shop/sa/web")]),
            "MESH-0134",
        ),
        (
            "TL14 dot segment",
            named(&[(6, b"spiffe://td/ns/shop/./sa/web")]),
            "MESH-0134",
        ),
        ("TL15 no path", named(&[(6, b"spiffe://td")]), "MESH-0135"),
        (
            "TL15 wildcard",
            named(&[(6, b"spiffe://td/*")]),
            "MESH-0134",
        ),
        (
            "TL16 NUL in the URI",
            named(&[(6, b"spiffe://td/ns/shop/sa/web\0x")]),
            "MESH-0128",
        ),
        (
            "TL16 NUL in a DNS name",
            named(&[uri, (2, b"web\0.evil")]),
            "MESH-0128",
        ),
        (
            "TL18 ten thousand names",
            named(&vec![(2, b"a".as_slice()); 10_000]),
            "MESH-0120",
        ),
        (
            "TL19 SHA-1",
            Template {
                algorithm: weak(5),
                ..web()
            },
            "MESH-0130",
        ),
        (
            "TL19 MD5",
            Template {
                algorithm: weak(4),
                ..web()
            },
            "MESH-0130",
        ),
        (
            "TL19 P-224",
            Template {
                info: Some(sequence(&[
                    sequence(&[oid(EC), oid(&[0x2b, 0x81, 0x04, 0x00, 0x21])]),
                    bits(&[4; 57]),
                ])),
                ..web()
            },
            "MESH-0129",
        ),
        (
            "TL19 explicit curve",
            Template {
                info: Some(sequence(&[
                    sequence(&[oid(EC), sequence(&[])]),
                    bits(&[4; 65]),
                ])),
                ..web()
            },
            "MESH-0129",
        ),
        (
            "unknown critical extension",
            web().and(&[0x2a, 3, 4], true, vec![]),
            "MESH-0124",
        ),
        (
            "names not critical",
            web().with(NAMES, false, names(&[uri])),
            "MESH-0142",
        ),
        (
            "bytes after the certificate",
            Template {
                trailing: vec![0],
                ..web()
            },
            "MESH-0121",
        ),
    ]
}

fn cases(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, template, code) in bad_leaves() {
        let key = forge::Key::p256();
        cases.push(Case {
            what,
            chain: vec![template.sign(&key, &world.root.name, &world.root.key)],
            key,
            code,
        });
    }
    let mut chain =
        |what, issuer: &Authority, id: &str, more: Vec<CertificateDer<'static>>, code| {
            let key = forge::Key::p256();
            let leaf = Template::leaf(id).sign(&key, &issuer.name, &issuer.key);
            cases.push(Case {
                what,
                chain: [vec![leaf], more].concat(),
                key,
                code,
            });
        };
    let (other, impostor) = (Authority::root("other"), Authority::root("td"));
    chain(
        "TL4 anchor of somebody else",
        &other,
        WEB,
        vec![],
        "MESH-0171",
    );
    chain(
        "TL4 anchor with our root's name",
        &impostor,
        WEB,
        vec![impostor.der.clone()],
        "MESH-0171",
    );
    chain(
        "TL5 right key, other trust domain",
        &world.root,
        "spiffe://other/ns/shop/sa/web",
        vec![],
        "MESH-0170",
    );

    let workload = world.root.issue(&Template {
        subject: "w".to_owned(),
        ..Template::leaf("spiffe://td/w")
    });
    chain(
        "TL10 leaf signed by a leaf",
        &workload,
        WEB,
        vec![workload.der.clone()],
        "MESH-0174",
    );
    let last = world.root.issue(&Template::authority("last", "", 0));
    let beyond = last.issue(&Template::authority("beyond", "", -1));
    chain(
        "TL10 path length",
        &beyond,
        WEB,
        vec![beyond.der.clone(), last.der.clone()],
        "MESH-0175",
    );
    let foreign = world
        .root
        .issue(&Template::authority("foreign", "spiffe://other", -1));
    chain(
        "X3 intermediate of another domain",
        &foreign,
        WEB,
        vec![foreign.der.clone()],
        "MESH-0174",
    );
    let mute = world
        .root
        .issue(&Template::authority("mute", "", -1).without(KEY_USAGE));
    chain(
        "X3 intermediate without keyCertSign",
        &mute,
        WEB,
        vec![mute.der.clone()],
        "MESH-0174",
    );
    chain(
        "TL18 hundred intermediates",
        &world.root,
        WEB,
        vec![last.der.clone(); 100],
        "MESH-0132",
    );
    chain(
        "TL18 one certificate too many",
        &world.root,
        WEB,
        vec![last.der.clone(); CHAIN_CERTIFICATES_MAX],
        "MESH-0132",
    );
    cases
}

#[test]
fn a_server_refuses_every_bad_client_and_can_say_why() {
    let world = World::new();
    let server = world.server();
    for Case {
        what,
        chain,
        key,
        code,
    } in cases(&world)
    {
        let client = hostile_client(
            &[&rustls::version::TLS13],
            aws_lc_rs::default_provider(),
            Some((chain, &key)),
        );
        let ended = handshake(&client, &server);
        assert!(!ended.server_is_done(), "{what}: accepted");
        assert_eq!(
            reason(ended.server_error.as_ref()),
            code,
            "{what}: {:?}",
            ended.server_error
        );
        assert!(verified_peer(&ended.server).is_err(), "{what}");
        // The peer learns that it was refused and nothing more.
        assert_eq!(
            ended.client_error,
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateUnknown
            )),
            "{what}"
        );
    }
}

#[test]
fn a_client_refuses_every_bad_server_and_can_say_why() {
    let world = World::new();
    let client = world.client(one_of(&[WEB]));
    for Case {
        what,
        chain,
        key,
        code,
    } in cases(&world)
    {
        let ended = handshake(
            &client,
            &hostile_server(&[&rustls::version::TLS13], chain, &key),
        );
        assert!(ended.client.is_handshaking(), "{what}: accepted");
        assert_eq!(
            reason(ended.client_error.as_ref()),
            code,
            "{what}: {:?}",
            ended.client_error
        );
        assert_eq!(
            ended.server_error,
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateUnknown
            )),
            "{what}"
        );
    }
}

fn reason(error: Option<&rustls::Error>) -> String {
    error
        .and_then(refusal)
        .and_then(Diagnostic::code)
        .map(|code| code.to_string())
        .unwrap_or_default()
}

#[test]
fn uri_and_dns_names_together_are_accepted_in_any_order_and_only_the_uri_counts() {
    let world = World::new();
    let uri: (u8, &[u8]) = (6, WEB.as_bytes());
    let dns: (u8, &[u8]) = (2, b"cart.shop.svc");
    for list in [[uri, dns], [dns, uri]] {
        let key = forge::Key::p256();
        let leaf = Template::leaf(WEB).with(NAMES, true, names(&list)).sign(
            &key,
            &world.root.name,
            &world.root.key,
        );
        let client = hostile_client(
            &[&rustls::version::TLS13],
            aws_lc_rs::default_provider(),
            Some((vec![leaf], &key)),
        );
        let ended = handshake(&client, &world.server());
        assert_eq!(
            verified_peer(&ended.server)
                .expect("verified")
                .id()
                .as_str(),
            WEB
        );
    }
}

#[test]
fn a_right_certificate_without_its_key_is_worth_nothing() {
    let world = World::new();
    let (key, thief) = (forge::Key::p256(), forge::Key::p256());
    let leaf = vec![Template::leaf(WEB).sign(&key, &world.root.name, &world.root.key)];
    let client = hostile_client(
        &[&rustls::version::TLS13],
        aws_lc_rs::default_provider(),
        Some((leaf.clone(), &thief)),
    );
    assert!(!handshake(&client, &world.server()).server_is_done());
    let ended = handshake(
        &world.client(one_of(&[WEB])),
        &hostile_server(&[&rustls::version::TLS13], leaf, &thief),
    );
    assert!(ended.client.is_handshaking());
    assert_eq!(
        ended.client_error,
        Some(CertificateError::BadSignature.into())
    );
}

#[test]
fn a_client_without_certificate_is_refused() {
    let world = World::new();
    let client = hostile_client(
        &[&rustls::version::TLS13],
        aws_lc_rs::default_provider(),
        None,
    );
    let ended = handshake(&client, &world.server());
    assert!(!ended.server_is_done());
    assert_eq!(
        ended.server_error,
        Some(rustls::Error::NoCertificatesPresented)
    );
}

#[test]
fn a_certificate_message_of_megabytes_is_refused_unread() {
    let world = World::new();
    let key = forge::Key::p256();
    let chain = vec![CertificateDer::from(vec![0x30; 60_000]); 20];
    let client = hostile_client(
        &[&rustls::version::TLS13],
        aws_lc_rs::default_provider(),
        Some((chain, &key)),
    );
    let ended = handshake(&client, &world.server());
    assert!(!ended.server_is_done());
    assert!(ended.server_error.is_some());
    assert_eq!(
        refusal(&ended.server_error.expect("an error")),
        None,
        "refused by the record layer, before any certificate is read"
    );
}

#[test]
fn another_service_behind_the_address_is_refused_although_its_svid_is_right() {
    let world = World::new();
    for (expected, said) in [
        (one_of(&[WEB]), format!("`{WEB}`")),
        (
            one_of(&["spiffe://other/ns/shop/sa/cart"]),
            "`spiffe://other/ns/shop/sa/cart`".to_owned(),
        ),
        (
            one_of(&["spiffe://td/ns/shop/sa/car"]),
            "`spiffe://td/ns/shop/sa/car`".to_owned(),
        ),
        (one_of(&[]), "nobody".to_owned()),
        (
            ExpectedPeer::AnyInDomain(TrustDomain::parse("other").expect("valid")),
            "anyone in `other`".to_owned(),
        ),
    ] {
        let ended = handshake(&world.client(expected), &world.server());
        let error = ended.client_error.expect("refused");
        assert_eq!(reason(Some(&error)), "MESH-0190");
        let text = refusal(&error).expect("ours").to_string();
        assert_eq!(text, format!("the server is `{CART}`; expected was {said}"));
        assert!(ended.client.is_handshaking());
        let stream = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        assert!(matches!(
            refusal_in_io(&stream),
            Some(PeerRefusal::Unexpected { .. })
        ));
    }
}

#[test]
fn a_bundle_that_lost_its_anchor_refuses_from_the_next_handshake_on() {
    let world = World::new();
    let new = Authority::root("td");
    let both = TrustBundle::new(
        TrustDomain::parse("td").expect("valid"),
        vec![world.root.der.clone(), new.der.clone()],
    )
    .expect("anchors");
    for (bundle, accepted) in [(both, true), (new.bundle("td"), false)] {
        let server = server_config(&world.identity(CART), Arc::new(bundle.into()), ALPN)
            .expect("a configuration");
        let ended = handshake(&world.client(one_of(&[CART])), &server);
        assert_eq!(ended.server_is_done(), accepted);
    }
}

use crate::TrustBundle;
