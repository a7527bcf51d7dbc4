//! The catalogue of attacks, as far as policy answers them: paths. Hosts and headers are in `catalogue_heads`, objects and
//! protocols in `catalogue_objects`.
//!
//! Each entry has its number. What happens on the wire before a head is read (two `Host` fields, framing, detection) is
//! tested with the proxy; that a head reads in one way is tested with the decision.

use crate::world::{Ask, DENIED, MESHED, SERVER, SHOP, World, policy, route};
use mesh_policy_index::Mode;

pub(crate) fn web() -> Ask {
    Ask::meshed("shop/web")
}

/// Everybody may ask for `/open` and below; `/admin` and below is for nobody.
pub(crate) fn guarded(server: &str) -> World {
    let (open, admin) = (
        route("open", "{value: /open}"),
        route("admin", "{value: /admin}"),
    );
    let on_open = policy("p", "HTTPRoute open", &["MeshTLSAuthentication meshed"]);
    World::of(&[SHOP, server, MESHED, &open, &admin, &on_open])
}

/// Each path, what becomes of it, and the path that is judged.
fn paths(rows: &[(&str, &str, Option<&str>)]) {
    let world = guarded(SERVER);
    for (path, want, judged) in rows {
        let ask = web().path(path);
        assert_eq!(world.answer(&ask), *want, "{path}");
        let request = world.decide(&ask).request.unwrap();
        assert_eq!(
            (request.path.as_deref(), request.raw_path.as_str()),
            (*judged, *path)
        );
    }
}

const REFUSED: (&str, Option<&str>) = ("request 400", None);

fn refused(rows: &[&str]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|path| (*path, REFUSED.0, REFUSED.1))
        .collect();
    paths(&rows);
}

#[test]
fn pa01_dot_segments_are_removed_before_anything_is_judged() {
    paths(&[
        ("/open/../admin", DENIED, Some("/admin")),
        ("/open/./x", "allow", Some("/open/x")),
        ("/admin/..", "route 404", Some("/")),
    ]);
    refused(&["/../admin", "/open/../../admin"]);
}

#[test]
fn pa02_slashes_are_one() {
    paths(&[
        ("//admin", DENIED, Some("/admin")),
        ("/open//x", "allow", Some("/open/x")),
        ("/open//../admin", DENIED, Some("/admin")),
    ]);
}

#[test]
fn pa03_escapes_of_dots_and_letters_are_decoded_once_and_then_removed() {
    paths(&[
        ("/open/%2e%2e/admin", DENIED, Some("/admin")),
        ("/open/%2E/x", "allow", Some("/open/x")),
        ("/%61dmin", DENIED, Some("/admin")),
    ]);
}

#[test]
fn pa04_nothing_is_decoded_twice() {
    paths(&[
        (
            "/open/%252e%252e/admin",
            "allow",
            Some("/open/%252e%252e/admin"),
        ),
        ("/%2561dmin", "route 404", Some("/%2561dmin")),
    ]);
}

#[test]
fn pa05_hidden_separators_are_refused() {
    refused(&[
        "/open%2fadmin",
        "/open%2F..%2Fadmin",
        "/open%5cadmin",
        "/open\\admin",
    ]);
}

#[test]
fn pa06_control_characters_are_refused() {
    refused(&[
        "/open%00",
        "/open%0d%0aadmin",
        "/open%7F",
        "/open\u{1}",
        "/open\u{7f}",
    ]);
}

#[test]
fn pa07_path_parameters_are_refused() {
    refused(&["/admin;x=y/act;z", "/..;/admin", "/.;/", "/open;a"]);
}

#[test]
fn pa08_a_fragment_in_the_request_line_is_refused() {
    refused(&["/admin#f", "/open#/../admin"]);
}

#[test]
fn pa09_a_query_is_no_path_and_an_escaped_question_mark_is() {
    paths(&[
        ("/admin?/open", DENIED, Some("/admin")),
        ("/open?x=/../admin", "allow", Some("/open")),
        ("/admin%3fopen", "route 404", Some("/admin%3Fopen")),
        ("/open/%3Fadmin", "allow", Some("/open/%3Fadmin")),
    ]);
}

#[test]
fn pa10_what_is_not_utf8_in_shortest_form_is_refused() {
    refused(&[
        "/open/%c0%af",
        "/open/%e0%80%af",
        "/open/%ff",
        "/open/%c3",
        "/open/\u{e9}",
    ]);
}

#[test]
fn pa11_look_alikes_are_other_paths() {
    // A fullwidth `a`, and `é` composed and not: bytes are compared.
    paths(&[
        ("/%EF%BD%81dmin", "route 404", Some("/%EF%BD%81dmin")),
        ("/open/%C3%A9", "allow", Some("/open/%C3%A9")),
        ("/open/e%CC%81", "allow", Some("/open/e%CC%81")),
    ]);
}

#[test]
fn pa12_case_counts() {
    paths(&[
        ("/Admin", "route 404", Some("/Admin")),
        ("/OPEN", "route 404", Some("/OPEN")),
    ]);
}

#[test]
fn pa13_near_paths_are_distinct_and_prefixes_end_at_segments() {
    paths(&[
        ("/admin/", DENIED, Some("/admin/")),
        ("/adm", "route 404", Some("/adm")),
        ("/administrator", "route 404", Some("/administrator")),
        ("/admin.", "route 404", Some("/admin.")),
        ("/admin%20", "route 404", Some("/admin%20")),
    ]);
    let exact = route("r", "{type: Exact, value: /x}");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &exact, &on_r]);
    for near in ["/x/", "/x.", "/X", "/x%20"] {
        assert_eq!(world.answer(&web().path(near)), "route 404", "{near}");
    }
}

#[test]
fn pa14_a_missing_leading_slash_is_refused() {
    refused(&["admin", "open/x", "", "?x", "%2Fopen"]);
    let server = SERVER.replace("HTTP/1", "gRPC");
    let world = World::of(&[SHOP, &server]);
    assert_eq!(
        world.decide(&web().grpc("shop.Cart/Add")).grpc_status,
        Some(3)
    );
}

#[test]
fn pa15_an_asterisk_is_for_options_alone() {
    refused(&["*", "**"]);
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    assert_eq!(
        world.answer(&Ask::plain().method("OPTIONS").path("*")),
        "allow"
    );
    assert_eq!(
        world.answer(&Ask::plain().method("OPTIONS").path("**")),
        "request 400"
    );
}

#[test]
fn pa16_an_asterisk_inside_a_path_is_a_letter() {
    paths(&[
        ("/admin/*", DENIED, Some("/admin/*")),
        ("/*/open", "route 404", Some("/*/open")),
    ]);
    let literal = route("r", "{value: '/x*'}");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &literal, &on_r]);
    assert_eq!(
        world.answer(&web().path("/xy")),
        "route 404",
        "nor does a route's asterisk match anything else"
    );
    assert_eq!(world.answer(&web().path("/x*")), "allow");
}

#[test]
fn pa17_an_absolute_target_is_refused_where_a_path_is_judged() {
    // The proxy takes `http://authority/path` apart before; what is left of it here is no path.
    refused(&["http://evil/admin", "http://cart/open", "https://cart"]);
}

#[test]
fn pa18_long_targets_are_refused_and_many_segments_cost_nothing() {
    let world = guarded(SERVER);
    let long = format!("/open/{}", "a".repeat(64 * 1024));
    assert_eq!(world.answer(&web().path(&long)), "request 400");
    let deep = format!("/open{}/admin", "/x/..".repeat(1_000));
    assert_eq!(
        world.answer(&web().path(&deep)),
        "allow",
        "which is /open/admin"
    );
}
