//! Versions, groups, suites, tickets: what a handshake may and may not negotiate.

use super::*;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

fn tls13_client(world: &World, provider: CryptoProvider) -> Arc<ClientConfig> {
    let key = forge::Key::p256();
    let leaf = Template::leaf(WEB).sign(&key, &world.root.name, &world.root.key);
    hostile_client(
        &[&rustls::version::TLS13],
        provider,
        Some((vec![leaf], &key)),
    )
}

fn group(connection: &CommonState) -> Option<NamedGroup> {
    connection
        .negotiated_key_exchange_group()
        .map(|group| group.name())
}

#[test]
fn two_workloads_meet_and_each_knows_the_other() {
    let world = World::new();
    for expected in [
        one_of(&[CART]),
        one_of(&[WEB, CART]),
        ExpectedPeer::AnyInDomain(TrustDomain::parse("td").expect("valid")),
    ] {
        let ended = handshake(&world.client(expected), &world.server());
        assert_eq!(
            (ended.client_error.as_ref(), ended.server_error.as_ref()),
            (None, None)
        );
        let (server, client) = (
            verified_peer(&ended.client).expect("verified"),
            verified_peer(&ended.server).expect("verified"),
        );
        assert_eq!((server.id().as_str(), client.id().as_str()), (CART, WEB));
        assert_eq!(
            (client.serial(), client.not_after()),
            ("5a".repeat(16).as_str(), NOW.plus_secs(23 * HOUR))
        );
    }
}

#[test]
fn the_strongest_of_what_we_have_is_negotiated() {
    let world = World::new();
    let ended = handshake(&world.client(one_of(&[CART])), &world.server());
    for (version, suite, group, alpn) in [
        (
            ended.client.protocol_version(),
            ended.client.negotiated_cipher_suite(),
            group(&ended.client),
            ended.client.alpn_protocol(),
        ),
        (
            ended.server.protocol_version(),
            ended.server.negotiated_cipher_suite(),
            group(&ended.server),
            ended.server.alpn_protocol(),
        ),
    ] {
        assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(
            suite.map(|suite| suite.suite()),
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256)
        );
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(alpn, Some(ALPN[0]));
    }
    assert_eq!(ended.server.server_name(), None, "no server name is sent");
}

#[test]
fn a_host_name_given_to_the_client_is_not_sent() {
    let world = World::new();
    let name = ServerName::try_from("cart.shop").expect("a host name");
    let mut client = ClientConnection::new(world.client(one_of(&[CART])), name).expect("a client");
    let mut server = ServerConnection::new(world.server()).expect("a server");
    receive(&mut server, &sent(&mut client), &mut None);
    assert_eq!(server.server_name(), None);
}

#[test]
fn our_order_of_suites_and_groups_wins_over_a_clients() {
    let world = World::new();
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    // A hybrid group that we do not have comes first: one retry, and no more, leads to ours.
    provider.kx_groups = vec![kx_group::SECP256R1MLKEM768, kx_group::X25519MLKEM768];
    let ended = handshake(&tls13_client(&world, provider), &world.server());
    assert_eq!(ended.server_error, None);
    assert_eq!(
        ended
            .server
            .negotiated_cipher_suite()
            .map(|suite| suite.suite()),
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256)
    );
    assert_eq!(group(&ended.server), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(
        ended.server.handshake_kind(),
        Some(HandshakeKind::FullWithHelloRetryRequest)
    );
}

#[test]
fn a_client_without_a_group_or_an_alpn_of_ours_is_refused() {
    let world = World::new();
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::MLKEM1024];
    assert!(!handshake(&tls13_client(&world, provider), &world.server()).server_is_done());
    let mut other = (*tls13_client(&world, aws_lc_rs::default_provider())).clone();
    other.alpn_protocols = vec![b"h2".to_vec()];
    let ended = handshake(&Arc::new(other), &world.server());
    assert_eq!(
        ended.server_error,
        Some(rustls::Error::NoApplicationProtocol)
    );
}

#[test]
fn tls_1_2_is_refused_by_both_sides() {
    let world = World::new();
    let key = forge::Key::p256();
    let leaf = vec![Template::leaf(WEB).sign(&key, &world.root.name, &world.root.key)];
    let old = [&rustls::version::TLS12];
    let ended = handshake(
        &hostile_client(
            &old,
            aws_lc_rs::default_provider(),
            Some((leaf.clone(), &key)),
        ),
        &world.server(),
    );
    assert!(!ended.server_is_done());
    assert!(
        matches!(ended.server_error, Some(rustls::Error::PeerIncompatible(_))),
        "{:?}",
        ended.server_error
    );
    assert_eq!(
        ended.client_error,
        Some(rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion
        ))
    );
    let ended = handshake(
        &world.client(one_of(&[WEB])),
        &hostile_server(&old, leaf, &key),
    );
    assert!(ended.client.is_handshaking());
    assert!(ended.client_error.is_some() || ended.server_error.is_some());
}

#[test]
fn what_is_no_tls_1_3_hello_gets_an_alert_at_most() {
    let world = World::new();
    let sslv2 = [
        0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80, 3, 0, 0x80,
    ];
    let tls10 = [
        &[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1][..],
        &[7; 32],
        &[0, 0, 2, 0, 5, 1, 0],
    ]
    .concat();
    for bytes in [
        &sslv2[..],
        &tls10,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 64],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let mut server = ServerConnection::new(world.server()).expect("a server");
        let mut error = None;
        receive(&mut server, bytes, &mut error);
        let answer = sent(&mut server);
        assert!(error.is_some() && server.is_handshaking(), "{bytes:?}");
        assert!(
            answer.is_empty() || (answer[0] == 0x15 && answer.len() <= 7),
            "{answer:?}"
        );
    }
}

#[test]
fn no_ticket_is_sent_and_no_session_resumed() {
    let world = World::new();
    let (client, server) = (world.client(one_of(&[CART])), world.server());
    let eager = tls13_client(&world, aws_lc_rs::default_provider());
    for client in [client.clone(), client, eager.clone(), eager] {
        let mut ended = handshake(&client, &server);
        assert!(ended.server_is_done());
        assert_eq!(ended.client.tls13_tickets_received(), 0);
        assert_eq!(ended.server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(ended.client.early_data().is_none(), "no early data");
    }
    assert_eq!(
        (server.max_early_data_size, server.send_tls13_tickets),
        (0, 0)
    );
    assert!(!server.session_storage.can_cache());
    assert!(!server.ticketer.enabled());
}

#[test]
fn a_client_of_ours_takes_no_ticket_that_a_server_gives() {
    let world = World::new();
    let key = forge::Key::p256();
    let leaf = vec![Template::leaf(CART).sign(&key, &world.root.name, &world.root.key)];
    let server = hostile_server(&[&rustls::version::TLS13], leaf, &key);
    let client = world.client(one_of(&[CART]));
    for _ in 0..2 {
        let ended = handshake(&client, &server);
        assert_eq!(ended.client.handshake_kind(), Some(HandshakeKind::Full));
        assert!(
            ended.client.tls13_tickets_received() > 0,
            "the server gave one"
        );
    }
}

#[test]
fn a_flight_changed_on_its_way_never_leads_to_a_finished_handshake() {
    let world = World::new();
    let (client, server) = (world.client(one_of(&[CART])), world.server());
    for from_client in [true, false] {
        for place in (0..1_400).step_by(13) {
            let mut changed = false;
            let ended = handshake_through(&client, &server, |to_server, bytes| {
                if to_server == from_client && !changed && place < bytes.len() {
                    bytes[place] ^= 0x40;
                    changed = true;
                }
            });
            assert!(
                !changed || !ended.server_is_done(),
                "byte {place}, from the client: {from_client}"
            );
        }
    }
}

#[test]
fn there_is_no_peer_before_the_end_nor_without_a_certificate() {
    let world = World::new();
    let client =
        ClientConnection::new(world.client(one_of(&[CART])), server_name()).expect("a client");
    assert!(matches!(verified_peer(&client), Err(TlsError::Unfinished)));
    let key = forge::Key::p256();
    let leaf = vec![Template::leaf(CART).sign(&key, &world.root.name, &world.root.key)];
    let ended = handshake(
        &world.client(one_of(&[CART])),
        &hostile_server(&[&rustls::version::TLS13], leaf, &key),
    );
    assert!(verified_peer(&ended.client).is_ok());
    assert!(
        matches!(verified_peer(&ended.server), Err(TlsError::NoPeer)),
        "that server asked for no certificate"
    );
}

#[test]
fn time_comes_from_the_clock_that_the_identity_was_given() {
    let world = World::new();
    let late = world
        .identity(CART)
        .with_clock(Arc::new(At(NOW.plus_secs(24 * HOUR))));
    let server = server_config(&late, world.bundles.clone(), ALPN).expect("a configuration");
    let ended = handshake(&world.client(one_of(&[CART])), &server);
    assert!(matches!(
        refusal(&ended.server_error.expect("refused")),
        Some(PeerRefusal::Path(PathError::Expired { .. }))
    ));
}

#[test]
fn a_key_that_is_not_the_leafs_makes_no_identity() {
    let world = World::new();
    let (key, other) = (forge::Key::p256(), forge::Key::p256());
    let svid = || {
        Svid::parse(vec![Template::leaf(WEB).sign(
            &key,
            &world.root.name,
            &world.root.key,
        )])
        .expect("an SVID")
    };
    assert!(TlsIdentity::new(svid(), key.private()).is_ok());
    for wrong in [
        other.private(),
        forge::Key::p384().private(),
        forge::Key::ed25519().private(),
    ] {
        assert!(matches!(
            TlsIdentity::new(svid(), wrong),
            Err(TlsError::KeyMismatch { .. })
        ));
    }
    let garbage = PrivateKeyDer::Pkcs8(vec![1, 2, 3].into());
    assert!(matches!(
        TlsIdentity::new(svid(), garbage),
        Err(TlsError::Key { .. })
    ));
}

#[test]
fn the_debug_form_of_an_identity_shows_no_key() {
    let text = format!("{:?}", World::new().identity(WEB));
    assert_eq!(
        text,
        format!(
            "TlsIdentity {{ id: {WEB:?}, serial: \"{}\", .. }}",
            "5a".repeat(16)
        )
    );
}
