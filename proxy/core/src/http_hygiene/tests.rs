//! What is refused and what is stripped, at every entry.

mod onward;

use super::headers::{CLIENT_ID, CLIENT_ID_L5D};
use super::*;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use mesh_policy::decide::Phase;
use mesh_policy::fields::is_reserved;
use mesh_trust::SpiffeId;
use proptest::prelude::*;

fn parts(version: Version, method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().version(version).method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn http1(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    parts(Version::HTTP_11, method, uri, headers)
}

fn http2(uri: &str, headers: &[(&str, &str)]) -> Parts {
    parts(Version::HTTP_2, "GET", uri, headers)
}

fn try_admit(parts: &mut Parts, entry: Entry) -> Result<Admitted, RequestRefusal> {
    admit(parts, entry, &RequestLimits::default())
}

fn names(parts: &Parts) -> Vec<&str> {
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn methods_that_tunnel_or_echo_are_refused() {
    for (method, uri, why) in [
        ("CONNECT", "cart:80", RequestRefusal::Method),
        ("TRACE", "/", RequestRefusal::Method),
        (
            "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG",
            "/",
            RequestRefusal::MethodTooLong,
        ),
    ] {
        assert_eq!(
            try_admit(&mut http1(method, uri, &[("host", "cart")]), Entry::Plain),
            Err(why),
            "H1-16, H1-17, PD7: {method}"
        );
    }
}

#[test]
fn doubtful_hosts_are_refused() {
    use RequestRefusal::{Host, HostMismatch, HostMissing, HostTwice};
    for (uri, hosts, why, case) in [
        ("/", &["a", "b"][..], HostTwice, "HO1"),
        ("/", &["a", "a"], HostTwice, "HO1 same"),
        ("/", &["a,b"], Host, "HO1 list"),
        ("/", &["a, b"], Host, "HO1 list with space"),
        ("/", &["user@cart"], Host, "HO6"),
        ("/", &["cart/x"], Host, "HO6 path"),
        ("/", &["ca rt"], Host, "HO6 space"),
        ("/", &["cart\\x"], Host, "backslash"),
        ("/", &[""], Host, "HO7 empty"),
        ("/", &[], HostMissing, "HO7 missing"),
        ("http://evil/admin", &["cart"], HostMismatch, "PA17"),
        ("http://cart:81/", &["cart"], HostMismatch, "PA17 port"),
        (
            "http://user@cart/",
            &["user@cart"],
            Host,
            "HO6 in the target",
        ),
    ] {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        assert_eq!(
            try_admit(&mut http1("GET", uri, &headers), Entry::Plain),
            Err(why),
            "{case}"
        );
    }
    assert_eq!(
        try_admit(
            &mut http2("http://cart/", &[("host", "other")]),
            Entry::Plain
        ),
        Err(HostMismatch),
        "HO2"
    );
    assert_eq!(
        try_admit(&mut http2("/", &[]), Entry::Mesh),
        Err(HostMissing)
    );
}

#[test]
fn targets_that_are_no_path_are_refused() {
    for (method, uri, why) in [
        ("GET", "*", RequestRefusal::Target),
        ("GET", "ftp://cart/x", RequestRefusal::Target),
        ("GET", "cart:80", RequestRefusal::HostMismatch),
    ] {
        assert_eq!(
            try_admit(&mut http1(method, uri, &[("host", "cart")]), Entry::Plain),
            Err(why),
            "{method} {uri}"
        );
    }
    let long = format!("/{}", "a".repeat(9_000));
    assert_eq!(
        try_admit(&mut http1("GET", &long, &[("host", "a")]), Entry::Plain),
        Err(RequestRefusal::TargetTooLong),
        "PA18"
    );
    assert!(
        try_admit(
            &mut http1("OPTIONS", "*", &[("host", "cart")]),
            Entry::Plain
        )
        .is_ok(),
        "PA15"
    );
}

#[test]
fn ambiguous_lengths_are_refused() {
    for (headers, case) in [
        (
            &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
            "H1-1",
        ),
        (
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            "H1-2 twice",
        ),
        (&[("transfer-encoding", "chunked, identity")], "H1-2"),
        (&[("transfer-encoding", "xchunked")], "H1-2"),
        (
            &[("transfer-encoding", "gzip, chunked")],
            "H1-2 coding that nobody here undoes",
        ),
        (&[("transfer-encoding", "identity")], "H1-2"),
        (&[("content-length", "5"), ("content-length", "5")], "H1-3"),
        (&[("content-length", "5, 5")], "H1-3 list"),
        (&[("content-length", "+5")], "H1-4"),
        (&[("content-length", "-0")], "H1-4"),
        (&[("content-length", "0x5")], "H1-4"),
        (&[("content-length", "1_0")], "H1-4"),
        (&[("content-length", "1 5")], "H1-4"),
        (&[("content-length", "05")], "H1-4"),
        (&[("content-length", "")], "H1-4"),
        (
            &[("content-length", "123456789012345678901")],
            "H1-4 21 digits",
        ),
    ] {
        let headers = [&[("host", "a")], headers].concat();
        assert_eq!(
            try_admit(&mut http1("POST", "/", &headers), Entry::Plain),
            Err(RequestRefusal::Framing),
            "{case}: {headers:?}"
        );
    }
    let mut old = parts(
        Version::HTTP_10,
        "POST",
        "/",
        &[("transfer-encoding", "chunked")],
    );
    assert_eq!(
        try_admit(&mut old, Entry::Plain),
        Err(RequestRefusal::Framing),
        "H1-2 in HTTP/1.0"
    );
    let mut expects = http1("POST", "/", &[("host", "a"), ("expect", "200-maybe")]);
    assert_eq!(
        try_admit(&mut expects, Entry::Plain),
        Err(RequestRefusal::Expect)
    );
}

#[test]
fn connection_fields_in_http_2_are_refused() {
    for header in [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        let mut request = http2("http://cart/", &[header]);
        assert_eq!(
            try_admit(&mut request, Entry::Mesh),
            Err(RequestRefusal::ConnectionField),
            "H2-10: {header:?}"
        );
    }
}

#[test]
fn heads_over_the_limits_are_refused() {
    let limits = RequestLimits {
        headers_max: 3,
        header_bytes_max: 100,
        name_bytes_max: 20,
        target_bytes_max: 50,
    };
    let long_name = "n".repeat(21);
    let long_value = "v".repeat(100);
    for headers in [
        &[("host", "a"), ("a", "1"), ("b", "2"), ("c", "3")][..],
        &[("host", "a"), (&long_name, "1")],
        &[("host", "a"), ("a", &long_value)],
    ] {
        let refused = admit(&mut http1("GET", "/", headers), Entry::Plain, &limits);
        assert_eq!(refused, Err(RequestRefusal::HeadersTooLarge), "H1-15");
    }
}

#[test]
fn identity_headers_of_clients_never_pass_whoever_sends_them() {
    let forged = [
        ("mesh-client-id", "spiffe://cluster.local/ns/x/sa/boss"),
        ("Mesh_Client_Id", "boss"),
        ("mesh-anything", "1"),
        ("l5d-client-id", "boss"),
        ("l5d_client-id", "boss"),
        ("l5d-dst-override", "other"),
        ("x-forwarded-client-cert", "By=boss"),
        ("X_Forwarded_Client_Cert", "By=boss"),
        ("x-forwarded_client-cert", "By=boss"),
        ("ssl-client-verify", "SUCCESS"),
        ("ssl_client_s_dn", "boss"),
        ("x-ssl-client-cert", "boss"),
    ];
    for entry in [Entry::Plain, Entry::Mesh] {
        let headers = [
            &[
                ("host", "cart"),
                ("x-user", "kept"),
                ("meshed", "kept"),
                ("lanes", "kept"),
            ],
            &forged[..],
        ]
        .concat();
        let mut request = http1("GET", "/", &headers);
        try_admit(&mut request, entry).unwrap();
        assert_eq!(
            names(&request),
            ["lanes", "meshed", "x-user"],
            "HD1, HD6: {entry:?}"
        );
    }
}

#[test]
fn only_a_peer_proxy_says_what_its_application_spoke() {
    let marked = [("mesh-orig-version", "HTTP/1.1")];
    assert_eq!(
        try_admit(&mut http2("http://cart/", &marked), Entry::Plain)
            .unwrap()
            .version,
        OrigVersion::Http2
    );
    assert_eq!(
        try_admit(&mut http2("http://cart/", &marked), Entry::Mesh)
            .unwrap()
            .version,
        OrigVersion::Http11
    );
    for bad in [
        &[("mesh-orig-version", "HTTP/3")][..],
        &[("mesh-orig-version", "")],
        &[marked[0], marked[0]],
    ] {
        assert_eq!(
            try_admit(&mut http2("http://cart/", bad), Entry::Mesh),
            Err(RequestRefusal::Version),
            "{bad:?}"
        );
    }
}

#[test]
fn a_connection_header_drops_what_it_names_but_not_what_is_protected() {
    let headers = [
        ("host", "cart"),
        (
            "connection",
            "close, x-hop, host, content-length, authorization, mesh-client-id",
        ),
        ("connection", "X-Hop-Too"),
        ("x-hop", "1"),
        ("x-hop-too", "1"),
        ("authorization", "Bearer t"),
        ("content-length", "3"),
        ("keep-alive", "5"),
        ("proxy-authorization", "x"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("accept", "kept"),
    ];
    let mut request = http1("POST", "/", &headers);
    assert_eq!(
        try_admit(&mut request, Entry::Plain)
            .unwrap()
            .authority
            .unwrap(),
        "cart"
    );
    assert_eq!(
        names(&request),
        ["accept", "authorization", "content-length"],
        "HD8, HD9"
    );
}

#[test]
fn identity_headers_set_by_us_survive_a_connection_header() {
    let mut request = http1(
        "GET",
        "/",
        &[
            ("host", "cart"),
            ("connection", "mesh-client-id, l5d-client-id"),
        ],
    );
    let admitted = try_admit(&mut request, Entry::Plain).unwrap();
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    to_app(&mut request, &admitted, ClientField::new(&id).as_ref()).unwrap();
    assert_eq!(request.headers.get(CLIENT_ID).unwrap(), id.as_str());
    assert_eq!(request.headers.get_all(CLIENT_ID_L5D).iter().count(), 1);
    assert!(!request.headers.contains_key("connection"));
}

#[test]
fn without_an_identity_no_identity_header_reaches_the_application() {
    let mut request = http1(
        "GET",
        "/",
        &[
            ("host", "cart"),
            ("mesh-client-id", "boss"),
            ("l5d-client-id", "boss"),
        ],
    );
    let admitted = try_admit(&mut request, Entry::Plain).unwrap();
    to_app(&mut request, &admitted, None).unwrap();
    assert_eq!(names(&request), ["host"]);
}

#[test]
fn an_absolute_target_becomes_a_path_with_its_own_authority() {
    let mut request = http1(
        "GET",
        "http://Cart.shop:8080/a?b=c",
        &[("host", "cart.shop:8080")],
    );
    let admitted = try_admit(&mut request, Entry::Plain).unwrap();
    assert_eq!(request.uri, "/a?b=c", "PA17");
    assert_eq!(
        admitted.authority.as_ref().unwrap(),
        "Cart.shop:8080",
        "letters as they came; policy compares canonical hosts"
    );
    let view = HeaderView(&request.headers);
    let head = head(&request, &view, &admitted);
    assert_eq!(
        (head.method, head.target, head.host),
        ("GET", "/a?b=c", Some("Cart.shop:8080"))
    );
}

proptest! {
    #[test]
    fn no_reserved_name_survives_in_any_spelling(stem in "(mesh|l5d|ssl-client|x-ssl-client)", rest in "[a-z0-9_-]{0,12}", under in any::<u32>(), upper in any::<u32>(), mesh in any::<bool>()) {
        let name: String = format!("{stem}-{rest}").chars().enumerate().map(|(at, c)| match c {
            '-' if under >> (at % 32) & 1 == 1 => '_',
            c if upper >> (at % 32) & 1 == 1 => c.to_ascii_uppercase(),
            c => c,
        }).collect();
        prop_assert!(is_reserved(name.as_bytes()));
        let mut request = http1("GET", "/", &[("host", "cart"), (&name, "x"), ("x-kept", "1")]);
        try_admit(&mut request, if mesh { Entry::Mesh } else { Entry::Plain }).unwrap();
        prop_assert_eq!(names(&request), ["x-kept"]);
    }

    #[test]
    fn what_is_admitted_is_in_origin_form_and_clean(
        uri in "(http://(cart|user@cart|other))?/[a-z/%.]{0,10}(\\?[a-z]{0,4})?",
        headers in proptest::collection::vec(("(host|connection|te|upgrade|content-length|transfer-encoding|mesh-x|l5d_x|x-a)", "[ -~]{0,12}"), 0..6),
        version in prop_oneof![Just(Version::HTTP_10), Just(Version::HTTP_11), Just(Version::HTTP_2)],
    ) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut request = parts(version, "GET", &uri, &headers);
        if let Ok(admitted) = try_admit(&mut request, Entry::Plain) {
            prop_assert!(request.uri.authority().is_none() && request.uri.path().starts_with('/'));
            for name in names(&request) {
                prop_assert!(!is_reserved(name.as_bytes()) && !["host", "connection", "upgrade", "transfer-encoding"].contains(&name), "{}", name);
            }
            prop_assert!(admitted.authority.is_some() || version == Version::HTTP_10);
            prop_assert!(to_mesh(&mut request, &admitted).is_ok());
        }
    }
}
