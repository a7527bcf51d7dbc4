//! What filters make of a request: the cases of Gateway API's conformance tests for meshes, and what no filter may do.

use super::*;
use crate::http_hygiene::{Entry, OrigVersion, RequestLimits, admit};
use crate::route::tests::prefix;
use http::Request;

fn request(target: &str, headers: &[(&str, &str)]) -> (Parts, Admitted) {
    let mut builder = Request::get(target).header("host", "echo");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let mut parts = builder.body(()).expect("a request").into_parts().0;
    let admitted = admit(&mut parts, Entry::Plain, &RequestLimits::default()).expect("admitted");
    assert_eq!(admitted.version, OrigVersion::Http11);
    (parts, admitted)
}

fn fields(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let one = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    all.iter().map(one).collect()
}

fn change(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderChange {
    HeaderChange {
        set: fields(set),
        add: fields(add),
        remove: remove.iter().map(ToString::to_string).collect(),
    }
}

fn compile(filter: TrafficFilter, matches: &[RouteMatch]) -> Result<Filters, FilterFault> {
    Filters::compile(&[filter], matches)
}

#[test]
fn headers_change_as_mesh_http_route_request_header_modifier_has_it() {
    let set = change(&[("X-Header-Set", "set-overwrites-values")], &[], &[]);
    let add = change(&[], &[("X-Header-Add", "add-appends-values")], &[]);
    let remove = change(&[], &[], &["X-Header-Remove"]);
    let many = change(
        &[
            ("X-Header-Set-1", "header-set-1"),
            ("X-Header-Set-2", "header-set-2"),
        ],
        &[
            ("X-Header-Add-1", "header-add-1"),
            ("X-Header-Add-2", "header-add-2"),
        ],
        &["X-Header-Remove-1", "X-Header-Remove-2"],
    );
    let empty: &[(&str, &str)] = &[];
    for (change, sent, want) in [
        (
            &set,
            empty,
            &[("x-header-set", "set-overwrites-values")][..],
        ),
        (
            &set,
            &[("Some-Other-Header", "val"), ("X-Header-Set", "other")],
            &[
                ("some-other-header", "val"),
                ("x-header-set", "set-overwrites-values"),
            ],
        ),
        (&add, empty, &[("x-header-add", "add-appends-values")]),
        (
            &add,
            &[("X-Header-Add", "some-other-value")],
            &[("x-header-add", "some-other-value,add-appends-values")],
        ),
        (
            &add,
            &[("X-Header-Add", "a"), ("X-Header-Add", "b")],
            &[("x-header-add", "a,b,add-appends-values")],
        ),
        (
            &remove,
            &[("X-Header-Remove", "val"), ("other", "val")],
            &[("other", "val")],
        ),
        (
            &many,
            &[
                ("X-Header-Set-2", "set-val-2"),
                ("X-Header-Add-2", "add-val-2"),
                ("X-Header-Remove-2", "remove-val-2"),
                ("Another-Header", "another-header-val"),
            ],
            &[
                ("another-header", "another-header-val"),
                ("x-header-add-1", "header-add-1"),
                ("x-header-add-2", "add-val-2,header-add-2"),
                ("x-header-set-1", "header-set-1"),
                ("x-header-set-2", "header-set-2"),
            ],
        ),
    ] {
        let filters = compile(TrafficFilter::RequestHeaders(change.clone()), &[]).expect("filters");
        let (mut parts, mut admitted) = request("/", sent);
        let done = filters.apply(&mut parts, &mut admitted, 80);
        assert_eq!(done, Ok(None));
        let mut got: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        got.sort_unstable();
        assert_eq!(got, want, "{change:?}");
    }
}

#[test]
fn cookies_are_never_joined() {
    let add = change(&[], &[("Set-Cookie", "b=2")], &[]);
    let filters = compile(TrafficFilter::ResponseHeaders(add), &[]).expect("filters");
    let mut headers = HeaderMap::new();
    headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
    filters.apply_to_answer(&mut headers);
    assert_eq!(headers.get_all(SET_COOKIE).iter().count(), 2);
}

#[test]
fn changes_of_answers_leave_requests_alone_and_the_other_way_round() {
    let set = || change(&[("x-a", "1")], &[], &[]);
    let answers = compile(TrafficFilter::ResponseHeaders(set()), &[]).expect("filters");
    let (mut parts, mut admitted) = request("/", &[]);
    assert_eq!(answers.apply(&mut parts, &mut admitted, 80), Ok(None));
    assert!(parts.headers.is_empty());
    let requests = compile(TrafficFilter::RequestHeaders(set()), &[]).expect("filters");
    let mut headers = HeaderMap::new();
    requests.apply_to_answer(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn no_filter_touches_what_proxies_write_or_what_frames() {
    for name in [
        "mesh-client-id",
        "Mesh-Client-Id",
        "mesh_client_id",
        "l5d-client-id",
        "mesh-orig-version",
        "X-Forwarded-Client-Cert",
        "x_spiffe_id",
        "ssl-client-verify",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
    ] {
        let fault = Err(FilterFault::Name {
            name: name.to_owned(),
        });
        for change in [
            change(&[(name, "x")], &[], &[]),
            change(&[], &[(name, "x")], &[]),
            change(&[], &[], &[name]),
        ] {
            let compiled = Changes::compile(&change).map(drop);
            assert_eq!(compiled, fault, "{change:?}");
        }
    }
    for (name, value) in [("x y", "1"), ("", "1"), ("x", "a\r\nb: c"), ("x", "a\0")] {
        let compiled = Changes::compile(&change(&[(name, value)], &[], &[]));
        assert!(
            matches!(compiled, Err(FilterFault::Header { .. })),
            "{name:?} {value:?}"
        );
    }
}

struct To {
    scheme: Option<&'static str>,
    host: Option<&'static str>,
    port: Option<u16>,
    path: Option<PathChange>,
    status: u16,
}

const SAME: To = To {
    scheme: None,
    host: None,
    port: None,
    path: None,
    status: 302,
};

impl To {
    fn filter(&self) -> TrafficFilter {
        TrafficFilter::Redirect {
            scheme: self.scheme.map(str::to_owned),
            hostname: self.host.map(str::to_owned),
            port: self.port,
            path: self.path.clone(),
            status: self.status,
        }
    }
}

fn full(path: &str) -> Option<PathChange> {
    Some(PathChange::Full(path.to_owned()))
}

fn instead(path: &str) -> Option<PathChange> {
    Some(PathChange::Prefix(path.to_owned()))
}

#[test]
fn redirects_lead_where_the_mesh_http_route_redirect_tests_say() {
    let org = Some("example.org");
    for (matched, to, target, want) in [
        // RedirectHostAndStatus
        (
            "/hostname-redirect",
            To { host: org, ..SAME },
            "/hostname-redirect",
            "302 http://example.org/hostname-redirect",
        ),
        (
            "/host-and-status",
            To {
                host: org,
                status: 301,
                ..SAME
            },
            "/host-and-status",
            "301 http://example.org/host-and-status",
        ),
        // RedirectPort
        (
            "/port",
            To {
                port: Some(8083),
                ..SAME
            },
            "/port",
            "302 http://echo:8083/port",
        ),
        (
            "/port-and-host",
            To {
                host: org,
                port: Some(8083),
                ..SAME
            },
            "/port-and-host",
            "302 http://example.org:8083/port-and-host",
        ),
        (
            "/port-and-status",
            To {
                port: Some(8083),
                status: 301,
                ..SAME
            },
            "/port-and-status",
            "301 http://echo:8083/port-and-status",
        ),
        // SchemeRedirect
        (
            "/scheme",
            To {
                scheme: Some("https"),
                ..SAME
            },
            "/scheme",
            "302 https://echo/scheme",
        ),
        (
            "/scheme-and-host",
            To {
                scheme: Some("https"),
                host: org,
                ..SAME
            },
            "/scheme-and-host",
            "302 https://example.org/scheme-and-host",
        ),
        (
            "/s",
            To {
                scheme: Some("https"),
                port: Some(443),
                ..SAME
            },
            "/s",
            "302 https://echo/s",
        ),
        (
            "/s",
            To {
                scheme: Some("https"),
                port: Some(80),
                ..SAME
            },
            "/s",
            "302 https://echo:80/s",
        ),
        (
            "/s",
            To {
                scheme: Some("http"),
                ..SAME
            },
            "/s",
            "302 http://echo/s",
        ),
        // RedirectPath
        (
            "/original-prefix",
            To {
                path: instead("/replacement-prefix"),
                ..SAME
            },
            "/original-prefix/lemon",
            "302 http://echo/replacement-prefix/lemon",
        ),
        (
            "/full",
            To {
                path: full("/full-path-replacement"),
                ..SAME
            },
            "/full/path/original",
            "302 http://echo/full-path-replacement",
        ),
        (
            "/path-and-host",
            To {
                host: org,
                path: instead("/replacement-prefix"),
                ..SAME
            },
            "/path-and-host/lemon",
            "302 http://example.org/replacement-prefix/lemon",
        ),
        (
            "/path-and-status",
            To {
                path: instead("/replacement-prefix"),
                status: 301,
                ..SAME
            },
            "/path-and-status/lemon",
            "301 http://echo/replacement-prefix/lemon",
        ),
        // 303, 307, 308; the query stays
        (
            "/a",
            To {
                status: 303,
                ..SAME
            },
            "/a?q=1",
            "303 http://echo/a?q=1",
        ),
        (
            "/a",
            To {
                status: 307,
                path: full("/b"),
                ..SAME
            },
            "/a?q=1&r",
            "307 http://echo/b?q=1&r",
        ),
        (
            "/a",
            To {
                status: 308,
                ..SAME
            },
            "/a",
            "308 http://echo/a",
        ),
    ] {
        let filters = compile(to.filter(), &[prefix(matched)]).expect("filters");
        let (mut parts, mut admitted) = request(target, &[]);
        let redirection = filters.apply(&mut parts, &mut admitted, 80);
        let redirection = redirection.expect("a request").expect("a redirect");
        let location = redirection.location.to_str().expect("text");
        assert_eq!(format!("{} {location}", redirection.status.as_u16()), want);
    }
}

#[test]
fn the_port_of_a_redirect_is_the_one_that_was_called() {
    for (authority, service_port, want) in [
        ("echo:8080", 8080, "http://echo:8080/"),
        ("echo", 8080, "http://echo:8080/"),
        ("echo:80", 80, "http://echo/"),
        ("echo", 80, "http://echo/"),
        ("127.0.0.1:9000", 80, "http://127.0.0.1:9000/"),
        ("[::1]:9000", 80, "http://[::1]:9000/"),
    ] {
        let filters = compile(SAME.filter(), &[]).expect("filters");
        let (mut parts, mut admitted) = request("/", &[]);
        admitted.authority = Some(authority.parse().expect("an authority"));
        let redirection = filters.apply(&mut parts, &mut admitted, service_port);
        let location = redirection
            .expect("a request")
            .expect("a redirect")
            .location;
        assert_eq!(location, want, "{authority}, service port {service_port}");
    }
}

#[test]
fn nobody_without_a_host_is_redirected() {
    let (mut parts, mut admitted) = request("/", &[]);
    admitted.authority = None;
    let filters = compile(SAME.filter(), &[]).expect("filters");
    let refused = filters.apply(&mut parts, &mut admitted, 80);
    assert_eq!(refused, Err(RequestRefusal::HostMissing));
}

#[test]
fn prefixes_are_replaced_by_the_table_of_gateway_api() {
    for (path, prefixed, with, want) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/any", "/", "/xyz", "/xyz/any"),
        ("/", "/", "/xyz", "/xyz/"),
        // MeshHTTPRouteRewritePath
        ("/prefix/one/two", "/prefix/one", "/one", "/one/two"),
        ("/strip-prefix/three", "/strip-prefix", "/", "/three"),
        ("/foo/a;b/%2F?q=%20", "/foo", "/xyz", "/xyz/a;b/%2F?q=%20"),
    ] {
        let rewrite = TrafficFilter::Rewrite {
            hostname: None,
            path: instead(with),
        };
        let filters = compile(rewrite, &[prefix(prefixed)]).expect("filters");
        let (mut parts, mut admitted) = request(path, &[]);
        assert_eq!(filters.apply(&mut parts, &mut admitted, 80), Ok(None));
        assert_eq!(
            parts.uri.to_string(),
            want,
            "{path}, `{prefixed}` by `{with}`"
        );
    }
}

#[test]
fn of_several_prefixes_the_longest_is_replaced() {
    let rewrite = TrafficFilter::Rewrite {
        hostname: None,
        path: instead("/x"),
    };
    let filters = compile(rewrite, &[prefix("/a"), prefix("/a/b")]).expect("filters");
    for (path, want) in [("/a/b/c", "/x/c"), ("/a/c", "/x/c"), ("/a/bc", "/x/bc")] {
        let (mut parts, mut admitted) = request(path, &[]);
        assert_eq!(filters.apply(&mut parts, &mut admitted, 80), Ok(None));
        assert_eq!(parts.uri.path(), want, "{path}");
    }
}

#[test]
fn rewrites_give_a_whole_path_and_a_host() {
    let rewrite = TrafficFilter::Rewrite {
        hostname: Some("two.example".to_owned()),
        path: full("/one/./two//three"),
    };
    let filters = compile(rewrite, &[]).expect("filters");
    let (mut parts, mut admitted) = request("/full?q=1", &[("x-a", "1")]);
    assert_eq!(filters.apply(&mut parts, &mut admitted, 80), Ok(None));
    assert_eq!(parts.uri.to_string(), "/one/two/three?q=1", "canonical");
    assert_eq!(admitted.authority.expect("a host"), "two.example");
}

#[test]
fn what_no_filter_may_be_is_refused_when_it_is_compiled() {
    let rewrite = |hostname: Option<&str>, path: Option<PathChange>| TrafficFilter::Rewrite {
        hostname: hostname.map(str::to_owned),
        path,
    };
    for (filter, want) in [
        (rewrite(Some("a b"), None), "host"),
        (rewrite(Some("a:80"), None), "host"),
        (rewrite(Some("u@a"), None), "host"),
        (rewrite(Some(""), None), "host"),
        (rewrite(None, full("no-slash")), "path"),
        (rewrite(None, full("/a?b")), "path"),
        (rewrite(None, full("/a\\b")), "path"),
        (rewrite(None, full("/../a")), "path"),
        (rewrite(None, full("/a\r\nx: y")), "path"),
        (rewrite(None, instead("xyz")), "path"),
        (
            To {
                scheme: Some("ftp"),
                ..SAME
            }
            .filter(),
            "scheme",
        ),
        (
            To {
                status: 200,
                ..SAME
            }
            .filter(),
            "status",
        ),
        (
            To {
                status: 304,
                ..SAME
            }
            .filter(),
            "status",
        ),
        (
            To {
                host: Some("a/b"),
                ..SAME
            }
            .filter(),
            "host",
        ),
    ] {
        let shown = format!("{filter:?}");
        let got = match compile(filter, &[prefix("/a")]).map(drop) {
            Err(FilterFault::Host { .. }) => "host",
            Err(FilterFault::Path { .. }) => "path",
            Err(FilterFault::Scheme { .. }) => "scheme",
            Err(FilterFault::Status { .. }) => "status",
            other => panic!("{shown}: {other:?}"),
        };
        assert_eq!(got, want, "{shown}");
    }
}

#[test]
fn filters_are_applied_in_order_and_nothing_follows_a_redirect() {
    let set = |value: &str| TrafficFilter::RequestHeaders(change(&[("x-a", value)], &[], &[]));
    let filters = [set("1"), SAME.filter(), set("2")];
    let filters = Filters::compile(&filters, &[]).expect("filters");
    let (mut parts, mut admitted) = request("/", &[]);
    let redirected = filters.apply(&mut parts, &mut admitted, 80);
    assert!(matches!(redirected, Ok(Some(_))));
    assert_eq!(parts.headers["x-a"], "1");
}

#[test]
fn a_path_is_read_once() {
    for (target, want) in [
        ("/a/../b//c/%7euser", Ok("/b/c/~user")),
        ("/a/../b;c/%2F", Ok("/b;c/%2F")), // a Server may be told to keep them: it decides
        ("/a", Ok("/a")),
        ("/../a", Err(RequestRefusal::Target)),
        ("/%00", Err(RequestRefusal::Target)),
        ("/%zz", Err(RequestRefusal::Target)),
    ] {
        let (mut parts, _) = request(target, &[]);
        let read = canonical_path(&mut parts);
        assert_eq!(read.map(|()| parts.uri.path()), want, "{target}");
    }
}
