//! Names of HTTP fields that have an owner: only proxies write them, or they concern one connection. One list for those who
//! read manifests and those who carry requests: what a route may ask for is what its proxy does.

/// Names by their beginning that nobody but a proxy may send, in the form of [`normal`].
const RESERVED_PREFIXES: [&[u8]; 4] = [b"mesh-", b"l5d-", b"ssl-client-", b"x-ssl-client-"];
/// Whole names of the same kind.
const RESERVED: [&[u8]; 3] = [b"x-forwarded-client-cert", b"x-client-cert", b"x-spiffe-id"];

/// Fields of one connection (RFC 9110 §7.6.1), `TE` and `Upgrade` included.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// A byte of a name with `_` read as `-`: some servers read `X_Foo` as `X-Foo` (HD6).
fn normal(byte: u8) -> u8 {
    if byte == b'_' {
        b'-'
    } else {
        byte.to_ascii_lowercase()
    }
}

/// Whether only proxies may send a name, written with hyphens or underscores, in any case.
pub fn is_reserved(name: &[u8]) -> bool {
    let matches =
        |text: &[u8], reserved: &[u8]| text.iter().map(|b| normal(*b)).eq(reserved.iter().copied());
    // Most names end here.
    if !matches!(
        name.first().map(u8::to_ascii_lowercase),
        Some(b'm' | b'l' | b's' | b'x')
    ) {
        return false;
    }
    RESERVED_PREFIXES.iter().any(|prefix| {
        name.get(..prefix.len())
            .is_some_and(|start| matches(start, prefix))
    }) || RESERVED.iter().any(|whole| matches(name, whole))
}

/// Whether a field concerns one connection; the name in lower case.
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// Whether a route may change a field: not what only proxies write, nor what frames a message or concerns one hop. The name
/// in lower case.
pub fn may_change(name: &str) -> bool {
    !is_reserved(name.as_bytes())
        && !is_hop_by_hop(name)
        && !matches!(name, "host" | "content-length" | "expect")
}

/// Whether a field may carry a session: what a route may change, but for those in which cookies are. The name in lower
/// case.
pub fn may_carry_session(name: &str) -> bool {
    may_change(name) && !matches!(name, "cookie" | "set-cookie")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_change_no_field_that_has_an_owner() {
        for name in [
            "mesh-client-id",
            "mesh_client_id",
            "l5d-dst-override",
            "l5d_client_id",
            "ssl-client-verify",
            "x-ssl-client-cert",
            "x_ssl_client_cert",
            "x-forwarded-client-cert",
            "x-client-cert",
            "x-spiffe-id",
            "host",
            "content-length",
            "expect",
            "te",
        ]
        .iter()
        .chain(&HOP_BY_HOP)
        {
            assert!(!may_change(name), "{name}");
            assert!(!may_carry_session(name), "{name}");
        }
        for name in ["x-user", "meshy", "x-spiffe", "authorization", "cookie"] {
            assert!(may_change(name), "{name}");
        }
        assert!(may_carry_session("x-user"));
        assert!(!may_carry_session("cookie") && !may_carry_session("set-cookie"));
    }

    #[test]
    fn reserved_names_are_known_in_any_case() {
        assert!(is_reserved(b"Mesh-Client-Id") && is_reserved(b"X_SPIFFE_ID"));
        assert!(!is_reserved(b"x-spiffe-ids") && !is_reserved(b"mesh") && !is_reserved(b""));
    }
}
