//! Paths and hosts: the catalogue of attacks on them, and laws that hold for any input.

use super::*;
use proptest::prelude::*;

const PLAIN: PathOptions = PathOptions {
    keep_escapes: false,
    keep_parameters: false,
};
const KEEP_ESCAPES: PathOptions = PathOptions {
    keep_escapes: true,
    keep_parameters: false,
};
const KEEP_PARAMETERS: PathOptions = PathOptions {
    keep_escapes: false,
    keep_parameters: true,
};

fn get(raw: &str) -> Result<String, PathRefusal> {
    path(raw, "GET", PLAIN).map(|path| path.as_str().to_owned())
}

fn canonical(pairs: &[(&str, &str)]) {
    for (raw, want) in pairs {
        assert_eq!(get(raw).as_deref(), Ok(*want), "{raw}");
    }
}

fn refused(raws: &[&str]) {
    for raw in raws {
        assert!(
            get(raw).is_err(),
            "`{raw}` must be refused, got {:?}",
            get(raw)
        );
    }
}

#[test]
fn pa01_dot_segments_are_removed() {
    canonical(&[
        ("/a/../admin", "/admin"),
        ("/a/./b", "/a/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/a/..", "/"),
        ("/a/b/../../c", "/c"),
        ("/...", "/..."),
        ("/.a/..b", "/.a/..b"),
    ]);
}

#[test]
fn pa01_climbing_above_the_root_is_refused() {
    for raw in [
        "/..",
        "/../a",
        "/a/../..",
        "/./..",
        "//..",
        "/%2e%2e/a",
        "/a/../../b",
    ] {
        assert_eq!(get(raw), Err(PathRefusal::AboveRoot), "{raw}");
    }
}

#[test]
fn pa02_slashes_are_merged() {
    canonical(&[
        ("//admin", "/admin"),
        ("/a//b", "/a/b"),
        ("/a///", "/a/"),
        ("//", "/"),
        ("/a//../b", "/b"),
    ]);
}

#[test]
fn pa03_escaped_dots_are_decoded_before_segments_are_removed() {
    canonical(&[
        ("/public/%2e%2e/private", "/private"),
        ("/a/%2E/b", "/a/b"),
        ("/a/.%2e/b", "/b"),
        ("/%61", "/a"),
    ]);
    canonical(&[("/%7euser", "/~user"), ("/%2D%5f", "/-_")]);
}

#[test]
fn pa04_escapes_are_decoded_once_only() {
    canonical(&[
        ("/a/%252e%252e/b", "/a/%252e%252e/b"),
        ("/%2561", "/%2561"),
        ("/%25", "/%25"),
    ]);
}

#[test]
fn pa05_hidden_separators_are_refused() {
    for raw in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb"] {
        assert_eq!(
            get(raw),
            Err(PathRefusal::EscapedSeparator { at: 2 }),
            "{raw}"
        );
    }
    assert_eq!(get("/a\\b"), Err(PathRefusal::Byte { byte: b'\\', at: 2 }));
    assert!(
        path("/a\\b", "GET", KEEP_ESCAPES).is_err(),
        "the opt-out is for escapes"
    );
}

#[test]
fn pa05_a_server_may_keep_escaped_separators_as_they_are() {
    for raw in ["/a%2fb", "/a%2Fb", "/a%5Cb", "/%2f"] {
        let kept = path(raw, "GET", KEEP_ESCAPES).unwrap();
        assert_eq!((kept.as_str(), kept.is_rewritten()), (raw, false));
    }
    assert_eq!(
        path("/x/%2fa/../%7e%3f", "GET", KEEP_ESCAPES)
            .unwrap()
            .as_str(),
        "/x/~%3F"
    );
    assert!(path("/a%00", "GET", KEEP_ESCAPES).is_err());
    assert!(path("/a;b", "GET", KEEP_ESCAPES).is_err());
}

#[test]
fn pa06_control_characters_are_refused() {
    refused(&[
        "/%00", "/a%0a", "/a%0D%0a", "/%7f", "/%1F", "/a\tb", "/a\u{7f}", "/a\nb", "/\0", "/%c2%85",
    ]);
}

#[test]
fn pa07_path_parameters_are_refused() {
    refused(&["/admin;x=y/act;z", "/..;/admin", "/.;/", "/a;", "/a/..;"]);
}

#[test]
fn pa07_a_server_may_keep_path_parameters_as_they_are() {
    let kept = path("/a;v=1/b;", "GET", KEEP_PARAMETERS).unwrap();
    assert_eq!((kept.as_str(), kept.is_rewritten()), ("/a;v=1/b;", false));
    assert!(path("/a%2fb", "GET", KEEP_PARAMETERS).is_err());
}

#[test]
fn pa08_fragments_are_refused() {
    refused(&["/admin#f", "/a?x#f", "/#"]);
}

#[test]
fn pa09_the_query_is_no_part_of_the_path() {
    let split = path("/a/../b?x=/../y&z=%zz%2f", "GET", PLAIN).unwrap();
    assert_eq!(
        (split.as_str(), split.query()),
        ("/b", Some("x=/../y&z=%zz%2f"))
    );
    let escaped = path("/admin%3fx", "GET", PLAIN).unwrap();
    assert_eq!((escaped.as_str(), escaped.query()), ("/admin%3Fx", None));
    assert_eq!(path("/a?b?c", "GET", PLAIN).unwrap().query(), Some("b?c"));
    refused(&["/a?x y", "/a?\n", "/a?\u{e9}", "?x=1"]);
}

#[test]
fn pa10_what_is_not_utf8_in_shortest_form_is_refused() {
    refused(&[
        "/%c0%af",
        "/%c0%ae%c0%ae",
        "/%e0%80%af",
        "/%ed%a0%80",
        "/%f5%80%80%80",
        "/%c3",
        "/%c3a",
        "/%c3%28",
        "/%80",
        "/\u{e9}",
    ]);
    canonical(&[
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%E2%82%AC", "/%E2%82%AC"),
        ("/%f0%9f%98%80", "/%F0%9F%98%80"),
    ]);
}

#[test]
fn pa11_look_alikes_are_not_folded() {
    let (composed, decomposed) = (get("/%c3%a9").unwrap(), get("/e%cc%81").unwrap());
    assert_ne!(composed, decomposed);
    assert_ne!(get("/%ef%bc%8f").unwrap(), "/");
}

#[test]
fn pa12_case_is_kept() {
    canonical(&[("/Admin", "/Admin"), ("/%41dmin", "/Admin")]);
}

#[test]
fn pa13_near_paths_stay_distinct() {
    canonical(&[
        ("/admin/", "/admin/"),
        ("/admin.", "/admin."),
        ("/admin%20", "/admin%20"),
        ("/admin", "/admin"),
    ]);
    refused(&["/admin ", " /admin"]);
}

#[test]
fn pa14_a_leading_slash_is_demanded() {
    for raw in [
        "admin",
        "Service/Method",
        "",
        "%2fadmin",
        "http://host/a",
        ".",
    ] {
        assert_eq!(get(raw), Err(PathRefusal::NoLeadingSlash), "{raw}");
    }
}

#[test]
fn pa15_asterisk_form_is_for_options_alone() {
    assert_eq!(path("*", "OPTIONS", PLAIN).unwrap().as_str(), "*");
    for (raw, method) in [
        ("*", "GET"),
        ("*", "options"),
        ("*?a", "OPTIONS"),
        ("**", "OPTIONS"),
    ] {
        assert_eq!(
            path(raw, method, PLAIN),
            Err(PathRefusal::NoLeadingSlash),
            "{method} {raw}"
        );
    }
}

#[test]
fn pa16_an_asterisk_inside_a_path_is_a_letter_like_any() {
    canonical(&[("/a/*/b", "/a/*/b"), ("/*", "/*"), ("/a/../*", "/*")]);
}

#[test]
fn pa17_absolute_form_yields_authority_and_origin_form() {
    let parts =
        |target| split_absolute_form(target, "GET").map(|form| (form.authority, form.target));
    assert_eq!(
        parts("http://evil/admin?x"),
        Some(("evil", "/admin?x".into()))
    );
    assert_eq!(parts("HTTPS://evil:8080"), Some(("evil:8080", "/".into())));
    assert_eq!(parts("http://evil?x=1"), Some(("evil", "/?x=1".into())));
    assert_eq!(parts("/http://evil/admin"), None);
    assert_eq!(parts("ftp://evil/admin"), None);
    assert_eq!(
        split_absolute_form("http://evil", "OPTIONS")
            .unwrap()
            .target,
        "*"
    );
    assert_eq!(
        parts("http://user@evil/a").map(|(authority, _)| host(authority)),
        Some(Err(HostRefusal::Byte { byte: b'@' }))
    );
    assert!(get(&parts("http://evil#/../a").unwrap().1).is_err());
}

#[test]
fn pa18_length_is_bounded_before_anything_is_read() {
    assert!(matches!(
        get(&format!("/{}", "a".repeat(64 * 1024))),
        Err(PathRefusal::TooLong { .. })
    ));
    assert!(matches!(
        get(&"/a".repeat(10_000)),
        Err(PathRefusal::TooLong { .. })
    ));
    assert!(matches!(
        get(&format!("/?{}", "a".repeat(TARGET_BYTES_MAX))),
        Err(PathRefusal::TooLong { .. })
    ));
    assert_eq!(get(&"/a/..".repeat(3_000)).as_deref(), Ok("/"));
}

#[test]
fn bad_escapes_are_refused() {
    for raw in ["/%", "/%2", "/%zz", "/a%g1", "/%+1", "/%%41", "/% 1"] {
        assert_eq!(
            get(raw),
            Err(PathRefusal::BadEscape {
                at: raw.find('%').unwrap()
            }),
            "{raw}"
        );
    }
}

#[test]
fn a_canonical_path_is_not_copied() {
    for raw in ["/", "/a/b?x=y", "/a%20b", "/%C3%A9", "/a:b@c!$&'()*+,=~"] {
        assert!(!path(raw, "GET", PLAIN).unwrap().is_rewritten(), "{raw}");
    }
}

#[test]
fn grpc_paths_are_service_and_method() {
    let method = |raw| {
        path(raw, "POST", PLAIN)
            .unwrap()
            .grpc_method()
            .map(|(s, m)| (s.to_owned(), m.to_owned()))
    };
    assert_eq!(
        method("/shop.Cart/Add"),
        Some(("shop.Cart".to_owned(), "Add".to_owned()))
    );
    for raw in [
        "/",
        "/shop.Cart",
        "/shop.Cart/",
        "/a/b/c",
        "/shop.Cart/Add/",
    ] {
        assert_eq!(method(raw), None, "{raw}");
    }
}

fn name(raw: &str) -> Result<String, HostRefusal> {
    host(raw).map(|host| host.to_string())
}

#[test]
fn ho1_lists_of_hosts_are_refused() {
    for raw in ["a, b", "a,b", "a;b"] {
        assert!(matches!(name(raw), Err(HostRefusal::Byte { .. })), "{raw}");
    }
}

#[test]
fn ho3_hosts_are_compared_without_case() {
    assert_eq!(name("HTTPBIN.Foo").as_deref(), Ok("httpbin.foo"));
}

#[test]
fn ho4_one_trailing_dot_is_removed() {
    assert_eq!(name("svc.ns.").as_deref(), Ok("svc.ns"));
    assert_eq!(name("svc.ns.:80").as_deref(), Ok("svc.ns:80"));
    assert_eq!(name("svc.ns.."), Err(HostRefusal::Label));
    assert_eq!(name("."), Err(HostRefusal::Empty));
}

#[test]
fn ho5_ports_are_read_once() {
    assert_eq!(name("svc:80").as_deref(), Ok("svc:80"));
    assert_eq!(name("svc:080").as_deref(), Ok("svc:80"));
    assert_eq!(name("svc:").as_deref(), Ok("svc"));
    for raw in [
        "svc:0",
        "svc:65536",
        "svc:80:80",
        "svc:-1",
        "svc:+80",
        "svc:8o",
        "svc: 80",
        "svc:000080",
        "::1",
    ] {
        assert!(name(raw).is_err(), "{raw}");
    }
}

#[test]
fn ho6_user_information_paths_and_spaces_are_refused() {
    for raw in [
        "a@svc", "svc/x", "svc x", " svc", "svc?x", "svc#x", "svc\\x", "svc%2e", "svc\0",
        "sv\u{e9}",
    ] {
        assert!(name(raw).is_err(), "{raw}");
    }
}

#[test]
fn ho7_an_empty_host_is_refused() {
    assert_eq!(name(""), Err(HostRefusal::Empty));
    assert_eq!(name(":80"), Err(HostRefusal::Empty));
}

#[test]
fn ho8_ipv6_literals_are_read_and_zones_refused() {
    assert_eq!(
        name("[2001:DB8:0::1]:8080").as_deref(),
        Ok("[2001:db8::1]:8080")
    );
    assert_eq!(name("[::1]").as_deref(), Ok("[::1]"));
    for raw in [
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "fe80::1%eth0",
        "[::1",
        "[]",
        "[svc]",
        "[::1]x",
        "[127.0.0.1]",
    ] {
        assert!(name(raw).is_err(), "{raw}");
    }
}

#[test]
fn ho9_malformed_punycode_is_refused() {
    assert_eq!(
        name("XN--mnchen-3ya.de").as_deref(),
        Ok("xn--mnchen-3ya.de")
    );
    assert_eq!(name("xn--4ca0bs").as_deref(), Ok("xn--4ca0bs"));
    for raw in [
        "xn--",
        "xn--a-",
        "xn--example-",
        "xn--99999999",
        "a.xn--a_b",
    ] {
        assert!(name(raw).is_err(), "{raw}");
    }
}

#[test]
fn labels_are_bounded() {
    assert!(name(&"a".repeat(63)).is_ok());
    for raw in [
        "a".repeat(64),
        "a..b".to_owned(),
        ".a".to_owned(),
        "-a".to_owned(),
        "a-".to_owned(),
        "a.".repeat(140),
    ] {
        assert!(name(&raw).is_err(), "{raw}");
    }
}

#[test]
fn methods_are_tokens() {
    assert!(method("GET").is_ok() && method("get").is_ok() && method("M-SEARCH").is_ok());
    for raw in ["", "GE T", "GET\r", "G(", "\u{e9}", &"A".repeat(33)] {
        assert!(method(raw).is_err(), "{raw:?}");
    }
}

/// Targets that come close to every rule.
fn target() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("//"),
        Just("a"),
        Just("admin"),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%41"),
        Just("%5c"),
        Just("%c3%a9"),
        Just("%c0%af"),
        Just("%00"),
        Just("%20"),
        Just("%25"),
        Just("%3f"),
        Just("%"),
        Just(";"),
        Just("\\"),
        Just("#"),
        Just("?"),
        Just("*"),
        Just(" "),
        Just("\u{e9}"),
        Just("~"),
        Just("%7e"),
        Just("{"),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn options() -> impl Strategy<Value = PathOptions> {
    any::<(bool, bool)>().prop_map(|(keep_escapes, keep_parameters)| PathOptions {
        keep_escapes,
        keep_parameters,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn canonical_paths_are_fixed_points(raw in target(), options in options()) {
        if let Ok(once) = path(&raw, "GET", options) {
            let text = once.as_str().to_owned();
            let twice = path(&text, "GET", options);
            prop_assert_eq!(twice.as_ref().map(CanonicalPath::as_str), Ok(text.as_str()));
            prop_assert!(!twice.unwrap().is_rewritten());
        }
    }

    #[test]
    fn canonical_paths_hold_nothing_ambiguous(raw in target(), options in options()) {
        if let Ok(path) = path(&raw, "GET", options) {
            let text = path.as_str();
            let inner = text.strip_prefix('/').unwrap();
            let last = inner.split('/').count() - 1;
            for (index, segment) in inner.split('/').enumerate() {
                prop_assert!(segment != "." && segment != "..", "{text}");
                prop_assert!(!segment.is_empty() || index == last, "{text}");
            }
            let lower = text.to_ascii_lowercase();
            prop_assert!(!lower.contains("%00") && !lower.contains("%2e") && !lower.contains("%41"), "{text}");
            prop_assert!(options.keep_escapes || !(lower.contains("%2f") || lower.contains("%5c")), "{text}");
            prop_assert!(options.keep_parameters || !text.contains(';'), "{text}");
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte)), "{text}");
        }
    }

    #[test]
    fn any_bytes_are_answered(raw in ".{0,40}") {
        let _ = path(&raw, "GET", PLAIN);
        let _ = split_absolute_form(&raw, "GET");
        if let Ok(first) = host(&raw) {
            let text = first.to_string();
            prop_assert_eq!(host(&text), Ok(first));
        }
    }

    #[test]
    fn host_texts_are_fixed_points(raw in "(xn--)?[A-Za-z0-9.-]{1,12}(:[0-9]{0,6})?") {
        if let Ok(first) = host(&raw) {
            let text = first.to_string();
            prop_assert_eq!(host(&text), Ok(first));
        }
    }
}
