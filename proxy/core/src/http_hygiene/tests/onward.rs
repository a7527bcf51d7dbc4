//! What goes on: upgrades, trailers, responses, HTTP/1 over HTTP/2, refusals as spoken.

use super::super::headers::ORIG_VERSION;
use super::*;

#[test]
fn upgrades_that_are_not_known_are_dropped() {
    let socket = [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    for (upgrade, extra, case) in [
        (
            &[
                ("upgrade", "h2c"),
                ("connection", "upgrade, http2-settings"),
                ("http2-settings", "AAMAAABk"),
            ][..],
            &[][..],
            "PD13",
        ),
        (&[("upgrade", "h2c")], &[], "PD13 without Connection"),
        (&[("upgrade", "websocket")], &socket, "GW10 no Connection"),
        (
            &[("upgrade", "websocket"), ("connection", "close")],
            &socket,
            "GW10 mismatch",
        ),
        (
            &[("upgrade", "websocket, h2c"), ("connection", "upgrade")],
            &socket,
            "list",
        ),
        (
            &[
                ("upgrade", "websocket"),
                ("upgrade", "h2c"),
                ("connection", "upgrade"),
            ],
            &socket,
            "two",
        ),
        (
            &[("upgrade", "websocket"), ("connection", "upgrade")],
            &[],
            "no key",
        ),
        (
            &[("upgrade", "TLS/1.0"), ("connection", "upgrade")],
            &[],
            "GW10 other",
        ),
    ] {
        let headers = [&[("host", "cart")], upgrade, extra].concat();
        let mut request = http1("GET", "/chat", &headers);
        let admitted = try_admit(&mut request, Entry::Plain).unwrap();
        assert_eq!(admitted.upgrade, None, "{case}");
        assert!(
            !["upgrade", "connection", "http2-settings"]
                .iter()
                .any(|name| request.headers.contains_key(*name)),
            "{case}"
        );
    }
    let asks = [
        &[
            ("host", "cart"),
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
        ],
        &socket[..],
    ]
    .concat();
    let post = try_admit(&mut http1("POST", "/chat", &asks), Entry::Plain).unwrap();
    assert_eq!(post.upgrade, None, "GET only");
    let with_body = [&asks[..], &[("content-length", "5")]].concat();
    assert_eq!(
        try_admit(&mut http1("GET", "/chat", &with_body), Entry::Plain),
        Err(RequestRefusal::Upgrade),
        "GW7"
    );
    let mut request = http1("GET", "/chat", &asks);
    assert_eq!(
        try_admit(&mut request, Entry::Plain).unwrap().upgrade,
        Some(Upgrade::WebSocket)
    );
    upgrade::restore(&mut request, Upgrade::WebSocket);
    assert_eq!(request.headers.get("upgrade").unwrap(), "websocket");
}

#[test]
fn spdy_is_asked_for_by_get_or_post_without_a_body() {
    let asks = [
        ("host", "cart"),
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
    ];
    let admitted = |method, more: &[(&str, &str)]| {
        let mut request = http1(method, "/exec", &[&asks[..], more].concat());
        try_admit(&mut request, Entry::Plain).map(|admitted| admitted.upgrade)
    };
    for method in ["GET", "POST"] {
        let spdy = Ok(Some(Upgrade::Spdy));
        assert_eq!(admitted(method, &[("content-length", "0")]), spdy);
    }
    assert_eq!(admitted("PUT", &[]), Ok(None));
    assert_eq!(admitted("POST", &[("upgrade", "websocket")]), Ok(None));
    for body in [("content-length", "5"), ("transfer-encoding", "chunked")] {
        let refused = admitted("POST", &[body]);
        assert_eq!(refused, Err(RequestRefusal::Upgrade), "GW7");
    }
    let mut other = http1("POST", "/exec", &[asks[0], asks[1], ("upgrade", "SPDY/2")]);
    let other = try_admit(&mut other, Entry::Plain).unwrap();
    assert_eq!(other.upgrade, None);
    let mut request = http1("POST", "/exec", &asks);
    upgrade::restore(&mut request, Upgrade::Spdy);
    assert_eq!(request.headers.get("upgrade").unwrap(), "SPDY/3.1");
    let mut switching = Response::new(());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = |protocol| HeaderValue::from_static(protocol);
    switching
        .headers_mut()
        .insert("upgrade", answer("SPDY/3.1"));
    let (mut switching, ()) = switching.into_parts();
    assert!(upgrade::is_done(&switching, Upgrade::Spdy));
    assert!(!upgrade::is_done(&switching, Upgrade::WebSocket));
    switching.headers.insert("upgrade", answer("websocket"));
    assert!(!upgrade::is_done(&switching, Upgrade::Spdy));
}

#[test]
fn only_101_with_the_same_protocol_is_an_upgrade() {
    let response = |status: u16, protocol: Option<&str>| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(protocol) = protocol {
            response
                .headers_mut()
                .insert("upgrade", HeaderValue::from_str(protocol).unwrap());
        }
        response.into_parts().0
    };
    for (status, protocol, done) in [
        (200, Some("websocket"), false),
        (101, None, false),
        (101, Some("h2c"), false),
        (101, Some("WebSocket"), true),
    ] {
        assert_eq!(
            upgrade::is_done(&response(status, protocol), Upgrade::WebSocket),
            done,
            "GW8: {status} {protocol:?}"
        );
    }
    let mut switching = response(101, Some("websocket"));
    sanitize_response(&mut switching);
    assert_eq!(switching.headers.get("connection").unwrap(), "upgrade");
}

#[test]
fn trailers_cannot_carry_what_belongs_into_the_head() {
    let mut trailers = HeaderMap::new();
    for name in [
        "host",
        "authorization",
        "content-length",
        "transfer-encoding",
        "te",
        "mesh-client-id",
        "l5d_client_id",
        "set-cookie",
        "connection",
    ] {
        trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
    }
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    sanitize_trailers(&mut trailers);
    let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["grpc-status", "x-sum"], "HD12");
}

#[test]
fn responses_lose_what_only_proxies_write() {
    let response = Response::builder()
        .header("l5d-proxy-error", "x")
        .header("mesh_client_id", "x")
        .header("connection", "x-hop, content-type")
        .header("x-hop", "1")
        .header("content-type", "text/plain")
        .header("set-cookie", "a=b");
    let mut parts = response.body(()).unwrap().into_parts().0;
    sanitize_response(&mut parts);
    let mut left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-type", "set-cookie"], "HD13");
}

#[test]
fn http_1_crosses_as_http_2_and_comes_out_as_it_was() {
    for (version, host) in [
        (Version::HTTP_11, Some("cart")),
        (Version::HTTP_10, Some("cart")),
        (Version::HTTP_10, None),
        (Version::HTTP_2, Some("cart")),
    ] {
        let headers: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
        let mut request = parts(version, "GET", "/a?b", &headers);
        let admitted = try_admit(&mut request, Entry::Plain).unwrap();
        to_mesh(&mut request, &admitted).unwrap();
        assert_eq!(
            (request.version, request.headers.contains_key("host")),
            (Version::HTTP_2, false)
        );
        assert!(
            request.uri.authority().is_some() && request.uri.scheme().is_some(),
            "what HTTP/2 needs"
        );

        let far = try_admit(&mut request, Entry::Mesh).unwrap();
        assert_eq!(
            far.authority.as_ref().map(Authority::as_str),
            host,
            "{version:?} {host:?}"
        );
        assert!(!request.headers.contains_key(ORIG_VERSION));
        to_app(&mut request, &far, None).unwrap();
        if version == Version::HTTP_2 {
            assert_eq!(
                (request.version, request.uri.to_string().as_str()),
                (Version::HTTP_2, "http://cart/a?b")
            );
        } else {
            assert_eq!(
                (request.version, request.uri.to_string().as_str()),
                (Version::HTTP_11, "/a?b")
            );
            assert_eq!(request.headers.get("host").unwrap(), host.unwrap_or(""));
        }
    }
}

#[test]
fn te_trailers_stays_where_grpc_needs_it() {
    let mut request = http2(
        "http://cart/a.B/C",
        &[("te", "trailers"), ("content-type", "application/grpc")],
    );
    let admitted = try_admit(&mut request, Entry::Mesh).unwrap();
    assert!(admitted.grpc);
    to_app(&mut request, &admitted, None).unwrap();
    assert_eq!(request.headers.get("te").unwrap(), "trailers");
}

#[test]
fn grpc_is_told_by_its_content_type() {
    for (kind, grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/GRPC; charset=x", true),
        ("application/grpc-web", false),
        ("application/grpcx", false),
        ("application/json", false),
    ] {
        let request = http2("http://cart/", &[("content-type", kind)]);
        assert_eq!(is_grpc(&request.headers), grpc, "{kind}");
    }
    let mut old = http1(
        "POST",
        "/",
        &[("host", "a"), ("content-type", "application/grpc")],
    );
    assert!(
        !try_admit(&mut old, Entry::Plain).unwrap().grpc,
        "a refusal over HTTP/1 is spoken as HTTP"
    );
}

#[test]
fn the_judged_path_replaces_the_raw_one() {
    let mut request = http1("GET", "/a/../b%7e?q=/../x", &[("host", "cart")]);
    try_admit(&mut request, Entry::Plain).unwrap();
    set_path(&mut request, "/b~").unwrap();
    assert_eq!(request.uri, "/b~?q=/../x");
    assert_eq!(set_path(&mut request, "/a b"), Err(RequestRefusal::Target));
    assert_eq!(
        set_path(&mut request, "/a?x"),
        Err(RequestRefusal::Target),
        "a path cannot bring a query"
    );
    assert_eq!(set_path(&mut request, "/a#x"), Err(RequestRefusal::Target));
}

#[test]
fn the_judged_host_replaces_the_raw_one_in_every_version() {
    for (version, raw, judged) in [
        (Version::HTTP_11, "Cart.Shop.", "cart.shop"),
        (Version::HTTP_10, "CART:080", "cart:80"),
        (Version::HTTP_2, "cart.shop.:8080", "cart.shop:8080"),
        (Version::HTTP_11, "[2001:DB8::0001]", "[2001:db8::1]"),
    ] {
        let mut request = parts(version, "GET", "/a", &[("host", raw)]);
        let mut admitted = try_admit(&mut request, Entry::Plain).unwrap();
        set_host(&mut admitted, judged).unwrap();
        to_app(&mut request, &admitted, None).unwrap();
        let forwarded = match request.uri.authority() {
            Some(authority) => authority.as_str(),
            None => request.headers["host"].to_str().unwrap(),
        };
        assert_eq!(forwarded, judged, "HO3, HO4, HO5: {version:?} {raw}");
        assert_eq!(
            request.headers.get_all("host").iter().count(),
            usize::from(version != Version::HTTP_2)
        );
    }
    let mut request = http1("GET", "/", &[("host", "cart")]);
    let mut admitted = try_admit(&mut request, Entry::Plain).unwrap();
    assert_eq!(set_host(&mut admitted, "cart/x"), Err(RequestRefusal::Host));
    assert_eq!(set_host(&mut admitted, ""), Err(RequestRefusal::Host));
}

#[test]
fn refusals_are_spoken_in_the_protocol_of_the_request() {
    for (phase, status, http, grpc) in [
        (Phase::Request, Some(400), 400, "3"),
        (Phase::Route, Some(404), 404, "5"),
        (Phase::Permit, Some(403), 403, "7"),
        (Phase::Forbid, None, 403, "7"),
        (Phase::Server, Some(200), 403, "7"),
        (Phase::RateLimit, Some(429), 429, "8"),
        (Phase::Transport, None, 403, "7"),
    ] {
        let refusal = Refusal::for_decision(phase, status);
        let spoken = refusal.head(false);
        assert_eq!(spoken.status(), http, "{phase:?}");
        assert!(!refusal.body(false).is_empty());
        let spoken = refusal.head(true);
        assert_eq!(
            (
                spoken.status().as_u16(),
                spoken.headers()["grpc-status"].to_str().unwrap()
            ),
            (200, grpc),
            "{phase:?}"
        );
        assert_eq!(spoken.headers()["content-type"], "application/grpc");
        assert!(refusal.body(true).is_empty());
    }
    assert_eq!(
        Refusal::from(RequestRefusal::Framing).head(true).headers()["grpc-status"],
        "3"
    );
    // The table of docs/reference/records.md.
    for (refusal, status, closes) in [
        (RequestRefusal::Method, 405, true),
        (RequestRefusal::MethodTooLong, 400, false),
        (RequestRefusal::TargetTooLong, 414, false),
        (RequestRefusal::HeadersTooLarge, 431, true),
        (RequestRefusal::Chunks, 400, true),
        (RequestRefusal::Version, 400, true),
        (RequestRefusal::Expect, 400, true),
        (RequestRefusal::Line, 400, true),
    ] {
        assert_eq!(
            (
                Refusal::from(refusal).head(false).status().as_u16(),
                refusal.closes()
            ),
            (status, closes),
            "{refusal:?}"
        );
    }
}
