//! What leaves by a name: with TLS that the proxy begins, and to the addresses of that name.

use super::*;

/// TLS that a decision begins: server name and port.
fn begun(decision: &EgressDecision) -> Option<(&str, u16)> {
    let tls = decision.tls()?;
    Some((&tls.server_name, tls.origin.port))
}

#[test]
fn a_route_begins_tls_for_the_requests_that_it_takes_and_no_others() {
    let own = deny(Layer::Namespace, ALL)
        .with(80, Speaks::Http, &["api.example"])
        .begins_tls(80, &to_port(443))
        .with(80, Speaks::Http, &["plain.example"]);
    let networks = [own];
    let to = "203.0.113.9:80";
    let api = decided(&networks, to, &get(Some("API.example.:80"), "/"));
    assert_eq!(begun(&api), Some(("api.example", 443)));
    let record = api.record(
        None,
        Default::default(),
        "shop",
        &get(Some("api.example"), "/"),
    );
    let egress = record.egress.expect("where it went");
    assert_eq!(egress.to, to);
    assert_eq!(egress.server_name.as_deref(), Some("api.example"));
    assert_eq!(egress.tls_port, Some(443));
    let permit = api.permit().expect("leave");
    assert!(permit.tls().is_some(), "whoever sends it learns of it");
    let plain = decided(&networks, to, &get(Some("plain.example"), "/"));
    assert_eq!((plain.cause.word(), begun(&plain)), ("granted", None));
    for (seen, want) in [
        (get(Some("evil.example"), "/"), "egress-no-route"),
        (get(None, "/"), "egress-no-route"),
        (Seen::Tls(Some("api.example")), "egress-wrong-protocol"),
        (Seen::Bytes, "egress-wrong-protocol"),
    ] {
        let denied = decided(&networks, to, &seen);
        assert_eq!((denied.cause.word(), begun(&denied)), (want, None));
    }
    assert_eq!(
        said(
            &networks,
            "203.0.113.9:443",
            &Seen::Tls(Some("api.example"))
        ),
        "egress-denied",
        "the port that TLS is begun to stays closed to the application"
    );
}

#[test]
fn tls_is_begun_with_a_name_only() {
    let network = |layer| {
        deny(layer, ALL)
            .with(80, Speaks::Http, &[])
            .begins_tls(80, &to_port(443))
    };
    let networks = [network(Layer::Mesh)];
    let to = "203.0.113.9:80";
    for host in [Some("203.0.113.9"), Some("[2001:db8::1]:80"), None] {
        let denied = decided(&networks, to, &get(host, "/"));
        assert_eq!(denied.cause.word(), "egress-no-tls-name", "{host:?}");
        assert_eq!(denied.status(), 403);
        assert_eq!(denied.reasons, ["EgressNetwork/mesh-system/no/deny"]);
        assert!(denied.tls().is_none());
    }
    assert_eq!(said(&networks, to, &get(Some("a.example"), "/")), "granted");
}

#[test]
fn a_namespace_does_not_begin_tls_to_a_port_that_the_mesh_closes() {
    let to = "203.0.113.9:80";
    let asked = get(Some("api.example"), "/");
    let own = deny(Layer::Namespace, ALL)
        .with(80, Speaks::Http, &["api.example"])
        .begins_tls(80, &to_port(8443));
    let mesh = deny(Layer::Mesh, ALL).with(80, Speaks::Http, &["*.example"]);
    let denied = decided(&[mesh.clone(), own.clone()], to, &asked);
    assert_eq!(denied.cause, Cause::TlsPort(8443));
    assert_eq!(denied.reasons, ["EgressNetwork/mesh-system/no/deny"]);
    assert!(denied.tls().is_none() && denied.permit().is_err());
    // By name is to the addresses of that name: the namespace's roots would vouch for any other.
    for (name, want) in [
        ("api.example", "egress-tls-unbound"),
        ("other.example", "egress-tls-port"),
    ] {
        let mesh = mesh.clone().with(8443, Speaks::Tls, &[name]);
        assert_eq!(said(&[mesh, own.clone()], to, &asked), want, "{name}");
    }
    let open = decided(&[allow(Layer::Mesh, ALL), own.clone()], to, &asked);
    assert_eq!(begun(&open), Some(("api.example", 8443)));
    assert_eq!(
        open.reasons,
        [
            "EgressNetwork/mesh-system/yes/allow",
            "HTTPRoute/shop/r80/0"
        ]
    );
}

#[test]
fn a_namespace_does_not_begin_tls_in_place_of_the_addresses_that_the_mesh_binds_to() {
    let to = "203.0.113.9:80";
    let asked = get(Some("api.example"), "/");
    let begins = |layer| {
        deny(layer, ALL)
            .with(80, Speaks::Http, &["api.example"])
            .begins_tls(80, &to_port(443))
    };
    let own = begins(Layer::Namespace);
    let unbind = |mut mesh: EgressNetwork, ports: &[u16]| {
        for port in ports {
            mesh.ports.get_mut(port).unwrap().unbound.insert(0);
        }
        mesh
    };
    let guard = |host: &[&str], server: &[&str]| {
        deny(Layer::Mesh, ALL)
            .with(80, Speaks::Http, host)
            .with(443, Speaks::Tls, server)
    };
    let name = &["api.example"][..];
    for (mesh, want) in [
        (guard(name, name), Cause::TlsUnbound),
        (guard(&[], name), Cause::TlsUnbound),
        (guard(name, &[]), Cause::TlsUnbound),
        (unbind(guard(name, name), &[80]), Cause::TlsUnbound),
        (unbind(guard(name, name), &[443]), Cause::TlsUnbound),
        // The mesh's says that addresses do not matter, at either port.
        (unbind(guard(name, name), &[80, 443]), Cause::Granted),
        (guard(&[], &[]), Cause::Granted),
        // The mesh's says who vouches for the server.
        (begins(Layer::Mesh), Cause::Granted),
    ] {
        let decision = decided(&[mesh, own.clone()], to, &asked);
        assert_eq!(decision.cause, want);
        let denied = want != Cause::Granted;
        assert_eq!(decision.tls().is_none(), denied, "{want:?}");
        if denied {
            assert_eq!(decision.reasons, ["EgressNetwork/mesh-system/no/deny"]);
        }
    }
    // The mesh may do so where a namespace lets out by name.
    let bound = deny(Layer::Namespace, ALL)
        .with(80, Speaks::Http, name)
        .with(443, Speaks::Tls, name);
    let both = [begins(Layer::Mesh), bound];
    assert_eq!(said(&both, to, &asked), "granted");
}

#[test]
fn a_network_that_allows_binds_no_name_to_addresses() {
    let to = "203.0.113.9:80";
    let asked = get(Some("api.example"), "/");
    let open = allow(Layer::Namespace, ALL)
        .with(80, Speaks::Http, &["api.example"])
        .with(80, Speaks::Http, &["tls.example"])
        .begins_tls(80, &to_port(443));
    let networks = [open.clone()];
    assert_eq!(said(&networks, to, &asked), "granted");
    assert_eq!(
        bound(&networks, to, &asked),
        None,
        "a sibling of one that begins TLS"
    );
    let guard = deny(Layer::Mesh, ALL).with(80, Speaks::Http, &["api.example"]);
    assert_eq!(
        bound(&[guard, open], to, &asked).as_deref(),
        Some("api.example"),
        "the mesh's binds all the same"
    );
}

#[test]
fn layers_that_begin_tls_must_agree_how() {
    let to = "203.0.113.9:80";
    let asked = get(Some("api.example"), "/");
    let begins = |layer, origin: &TlsOrigin| {
        deny(layer, ALL)
            .with(80, Speaks::Http, &["api.example"])
            .begins_tls(80, origin)
    };
    let of_its_own = TlsOrigin {
        roots: TlsRoots::Pem("a root".into()),
        ..to_port(443)
    };
    let laxer = TlsOrigin {
        min_version: TlsVersion::V1_2,
        ..to_port(443)
    };
    let mesh = begins(Layer::Mesh, &to_port(443));
    for other in [of_its_own, laxer, to_port(8443)] {
        let both = [mesh.clone(), begins(Layer::Namespace, &other)];
        let denied = decided(&both, to, &asked);
        assert_eq!(denied.cause, Cause::TlsDiffers, "{other:?}");
        assert_eq!(denied.reasons, ["EgressNetwork/shop/no/deny"]);
    }
    let both = [mesh.clone(), begins(Layer::Namespace, &to_port(443))];
    assert_eq!(
        begun(&decided(&both, to, &asked)),
        Some(("api.example", 443))
    );
    // What the mesh says holds for a namespace that says nothing of it, if that lets TLS out there.
    let silent = deny(Layer::Namespace, ALL).with(80, Speaks::Http, &["api.example"]);
    assert_eq!(said(&[mesh.clone(), silent], to, &asked), "egress-tls-port");
    let open = decided(&[mesh, allow(Layer::Namespace, ALL)], to, &asked);
    assert_eq!(begun(&open), Some(("api.example", 443)));
}

#[test]
fn a_network_that_allows_begins_tls_too_and_reads_for_it() {
    let to = "203.0.113.9:80";
    let own = allow(Layer::Namespace, ALL)
        .with(80, Speaks::Http, &["api.example"])
        .begins_tls(80, &to_port(443));
    let (egress, _) = Egress::compile(std::slice::from_ref(&own), Generation(7));
    assert!(!egress.at(to.parse().unwrap()).need_no_reading());
    assert!(
        egress
            .at("203.0.113.9:81".parse().unwrap())
            .need_no_reading()
    );
    let networks = [own];
    let api = decided(&networks, to, &get(Some("api.example"), "/"));
    assert_eq!(begun(&api), Some(("api.example", 443)));
    for seen in [
        get(Some("other.example"), "/"),
        Seen::Tls(Some("api.example")),
        Seen::Tls(Some("no name at all")),
        Seen::Bytes,
    ] {
        let other = decided(&networks, to, &seen);
        assert_eq!((other.cause.word(), begun(&other)), ("granted", None));
        assert_eq!(other.reasons, ["EgressNetwork/shop/yes/allow"]);
    }
}

/// The name whose addresses alone something may go to.
fn bound(networks: &[EgressNetwork], to: &str, seen: &Seen<'_>) -> Option<String> {
    let decision = decided(networks, to, seen);
    decision.bound_to().map(str::to_owned)
}

#[test]
fn what_leaves_by_a_name_is_bound_to_the_addresses_of_that_name() {
    let (http, tls) = ("203.0.113.9:80", "203.0.113.9:443");
    let own = || {
        deny(Layer::Namespace, ALL)
            .with(80, Speaks::Http, &["*.example"])
            .with(443, Speaks::Tls, &["api.example"])
            .with(5432, Speaks::Tcp, &[])
            .with(8080, Speaks::Http, &[])
    };
    let networks = [own()];
    let name = Some("api.example".to_owned());
    assert_eq!(
        bound(&networks, http, &get(Some("API.example.:80"), "/")),
        name
    );
    assert_eq!(bound(&networks, tls, &Seen::Tls(Some("API.example"))), name);
    for (to, seen) in [
        ("203.0.113.9:5432", Seen::Bytes),
        ("203.0.113.9:8080", get(Some("api.example"), "/")),
        (http, get(Some("evil.test"), "/")),
        (tls, Seen::Tls(Some("evil.test"))),
    ] {
        assert_eq!(bound(&networks, to, &seen), None, "{seen:?}");
    }
    let opened = [allow(Layer::Namespace, ALL)];
    assert_eq!(bound(&opened, http, &get(Some("api.example"), "/")), None);
    // One layer is enough, the other way none is needed.
    let both = [allow(Layer::Mesh, ALL), own()];
    assert_eq!(bound(&both, http, &get(Some("api.example"), "/")), name);
    // A certificate says more.
    let begins = [own().begins_tls(80, &to_port(443))];
    assert_eq!(bound(&begins, http, &get(Some("api.example"), "/")), None);
    let mut unbound = own();
    unbound.ports.get_mut(&80).unwrap().unbound.insert(0);
    let networks = [unbound.clone()];
    assert_eq!(bound(&networks, http, &get(Some("api.example"), "/")), None);
    assert_eq!(bound(&networks, tls, &Seen::Tls(Some("api.example"))), name);
    let mesh = deny(Layer::Mesh, ALL).with(80, Speaks::Http, &["api.example"]);
    assert_eq!(
        bound(&[mesh, unbound], http, &get(Some("api.example"), "/")),
        name
    );
}

#[test]
fn an_allow_to_another_address_becomes_a_denial_of_the_network() {
    let own = deny(Layer::Namespace, ALL).with(80, Speaks::Http, &["api.example"]);
    let seen = get(Some("api.example"), "/");
    let decision = decided(&[own], "203.0.113.9:80", &seen);
    let led = decision.clone().led_to("198.51.100.1:80".parse().unwrap());
    let record = led.record(None, Default::default(), "shop", &seen);
    let egress = record.egress.unwrap();
    assert_eq!(egress.to, "203.0.113.9:80");
    assert_eq!(egress.instead.as_deref(), Some("198.51.100.1:80"));
    let denied = decision.at_other_address("it has no address");
    assert_eq!((denied.verdict(), denied.status()), (Verdict::Deny, 403));
    assert_eq!(denied.cause.word(), "egress-other-address");
    assert_eq!(denied.reasons, ["EgressNetwork/shop/no/deny"]);
    assert_eq!(denied.bound_to(), None);
    assert!(denied.permit().is_err());
}

#[test]
fn a_name_that_nobody_knows_is_a_denial_for_now() {
    let own = deny(Layer::Namespace, ALL).with(80, Speaks::Http, &["api.example"]);
    let seen = get(Some("api.example"), "/");
    let decision = decided(&[own], "203.0.113.9:80", &seen);
    let denied = decision.at_unknown_address("no resolver answers");
    assert_eq!((denied.verdict(), denied.status()), (Verdict::Deny, 503));
    assert_eq!(denied.grpc_status(), Some(14));
    assert_eq!(denied.cause.word(), "egress-name-unknown");
    let record = denied.record(None, Default::default(), "shop", &seen);
    assert_eq!(record.status, Some(503));
    assert_eq!(record.reasons, ["EgressNetwork/shop/no/deny"]);
    assert_eq!(denied.bound_to(), None);
    assert!(denied.permit().is_err());
}

#[test]
fn another_address_needs_a_network_that_lets_the_same_out_there() {
    let (block, other) = (&["203.0.113.0/24"][..], &["198.51.100.0/24"][..]);
    let seen = get(Some("api.example"), "/");
    let own = deny(Layer::Namespace, block).with(80, Speaks::Http, &["api.example"]);
    let by_name = |blocks| {
        let mut one = network("other", Layer::Namespace, TrafficPolicy::Deny, blocks);
        one = one.with(80, Speaks::Http, &["api.example"]);
        one
    };
    for (networks, want) in [
        (vec![own.clone()], false),
        (vec![own.clone(), deny(Layer::Namespace, other)], false),
        (vec![own.clone(), by_name(other)], true),
        // Who allows everything there allows this.
        (vec![own.clone(), allow(Layer::Namespace, other)], true),
        (
            vec![own.clone(), by_name(other).begins_tls(80, &to_port(443))],
            false,
        ),
    ] {
        let here = decided(&networks, "203.0.113.9:80", &seen);
        assert_eq!(here.bound_to(), Some("api.example"));
        let there = decided(&networks, "198.51.100.1:80", &seen);
        assert_eq!(here.allows_instead(&there), want, "{there:?}");
    }
}

#[test]
fn addresses_that_are_not_the_worlds_are_names_of_it_only_where_a_block_of_them_says_so() {
    for (mesh, own, to, want) in [
        (Some(ALL), Some(ALL), "203.0.113.9:80", true),
        (None, None, "203.0.113.9:80", true),
        (Some(ALL), None, "127.0.0.1:80", false),
        (Some(ALL), None, "169.254.169.254:80", false),
        (Some(ALL), None, "[fe80::1]:80", false),
        (Some(ALL), None, "[64:ff9b::a9fe:a9fe]:80", false),
        (None, None, "10.0.0.1:80", false),
        (None, Some(&["10.1.0.0/16"][..]), "10.1.0.1:80", true),
        (None, Some(&["10.0.0.0/8"][..]), "10.1.0.1:80", true),
        (None, Some(&["8.0.0.0/5"][..]), "10.1.0.1:80", false),
        (Some(ALL), Some(&["10.1.0.0/16"][..]), "10.1.0.1:80", false),
        (
            Some(&["10.0.0.0/8"][..]),
            Some(&["10.1.0.0/16"][..]),
            "10.1.0.1:80",
            true,
        ),
    ] {
        let mesh = mesh.map(|blocks| deny(Layer::Mesh, blocks));
        let own = own.map(|blocks| deny(Layer::Namespace, blocks));
        let networks: Vec<EgressNetwork> = mesh.into_iter().chain(own).collect();
        let (egress, _) = Egress::compile(&networks, Generation(1));
        let speakers = egress.at(to.parse().unwrap());
        assert_eq!(
            speakers.expect_names(),
            want,
            "{to}: {:?}",
            speakers.titles()
        );
    }
}

#[test]
fn what_begins_tls_is_written_as_it_is_read() {
    let own = deny(Layer::Namespace, ALL)
        .with(80, Speaks::Http, &["api.example"])
        .begins_tls(
            80,
            &TlsOrigin {
                port: 443,
                roots: TlsRoots::Pem("a root".into()),
                min_version: TlsVersion::V1_2,
            },
        );
    let text = serde_json::to_string(&own).unwrap();
    let want = r#""tls":{"0":{"port":443,"roots":{"pem":"a root"},"minVersion":"1.2"}}"#;
    assert!(text.contains(want), "{text}");
    assert_eq!(serde_json::from_str::<EgressNetwork>(&text).unwrap(), own);
    let silent = deny(Layer::Namespace, ALL).with(80, Speaks::Http, &["api.example"]);
    let text = serde_json::to_string(&silent).unwrap();
    assert!(
        !text.contains("tls"),
        "nothing new for those who know nothing of it: {text}"
    );
}
