//! Filters of the route that took a request: header changes and redirects, in order.

use crate::answer::{Answer, redirect};
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use mesh_policy::fields::may_change;
use mesh_policy::snapshot::Filter;

/// Changes the request, or answers in place of the application.
pub(crate) fn apply(
    filters: &[Filter],
    parts: &mut Parts,
    authority: Option<&Authority>,
) -> Option<Answer> {
    for filter in filters {
        match filter {
            Filter::RequestHeaderModifier { set, add, remove } => modify(parts, set, add, remove),
            Filter::RequestRedirect {
                scheme,
                hostname,
                port,
                path,
                status,
            } => {
                let to = Redirect {
                    scheme: scheme.as_deref(),
                    hostname: hostname.as_deref(),
                    port: *port,
                    path: path.as_deref(),
                };
                return Some(redirect(*status, &to.location(parts, authority)));
            }
        }
    }
    None
}

fn modify(
    parts: &mut Parts,
    set: &[(String, String)],
    add: &[(String, String)],
    remove: &[String],
) {
    // Manifests are checked before they get here; names that only proxies may send, and those that frame, stay out in any case.
    let name = |name: &String| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        may_change(name.as_str()).then_some(name)
    };
    let field =
        |(text, value): &(String, String)| Some((name(text)?, HeaderValue::from_str(value).ok()?));
    for name in remove.iter().filter_map(name) {
        parts.headers.remove(name);
    }
    for (name, value) in set.iter().filter_map(field) {
        parts.headers.insert(name, value);
    }
    for (name, value) in add.iter().filter_map(field) {
        parts.headers.append(name, value);
    }
}

struct Redirect<'a> {
    scheme: Option<&'a str>,
    hostname: Option<&'a str>,
    port: Option<u16>,
    path: Option<&'a str>,
}

impl Redirect<'_> {
    fn location(&self, parts: &Parts, authority: Option<&Authority>) -> String {
        let scheme = self.scheme.unwrap_or("http");
        let hostname = self
            .hostname
            .or(authority.map(Authority::host))
            .unwrap_or("localhost");
        // The request's own port stays only if neither scheme nor host change.
        let own_port = authority
            .and_then(Authority::port_u16)
            .filter(|_| self.scheme.is_none() && self.hostname.is_none());
        let port = self
            .port
            .or(own_port)
            .filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = self.path.unwrap_or(parts.uri.path());
        let query = parts
            .uri
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        format!("{scheme}://{hostname}{port}{path}{query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str) -> Parts {
        http::Request::builder()
            .uri(uri)
            .body(())
            .expect("a request")
            .into_parts()
            .0
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let authority = Authority::from_static("cart:8080");
        for (scheme, hostname, port, path, want) in [
            (None, None, None, None, "http://cart:8080/x?q=1"),
            (Some("https"), None, None, None, "https://cart/x?q=1"),
            (Some("https"), None, Some(443), None, "https://cart/x?q=1"),
            (
                None,
                Some("shop.example"),
                None,
                Some("/y"),
                "http://shop.example/y?q=1",
            ),
            (None, None, Some(81), None, "http://cart:81/x?q=1"),
        ] {
            let redirect = Redirect {
                scheme,
                hostname,
                port,
                path,
            };
            assert_eq!(
                redirect.location(&request("/x?q=1"), Some(&authority)),
                want
            );
        }
    }

    #[test]
    fn no_filter_sets_or_removes_a_name_that_has_an_owner() {
        let mut parts = request("/");
        let set = [
            ("L5D-Client-Id".to_owned(), "root".to_owned()),
            ("content-length".to_owned(), "0".to_owned()),
            ("x-team".to_owned(), "shop".to_owned()),
        ];
        modify(&mut parts, &set, &[], &[]);
        assert_eq!(parts.headers.len(), 1, "{:?}", parts.headers);
        let mut parts = request("/");
        for (name, value) in [("content-length", "5"), ("x-team", "shop")] {
            let value = HeaderValue::from_static(value);
            parts.headers.insert(HeaderName::from_static(name), value);
        }
        let remove = ["Content-Length", "X-Team"].map(str::to_owned);
        modify(&mut parts, &[], &[], &remove);
        assert_eq!(parts.headers.len(), 1, "{:?}", parts.headers);
        assert_eq!(parts.headers["content-length"], "5");
    }
}
