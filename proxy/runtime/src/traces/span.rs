//! An account as a span of OpenTelemetry: names and attributes by its conventions for HTTP (1.23, stable) and RPC
//! (1.38 and later), and under `mesh.` what they have no name for. No query, no header.

use crate::account::{Place, Told};
use http::Method;
use http::uri::Authority;
use mesh_api::otlp::{KIND_CLIENT, KIND_SERVER, KeyValue, STATUS_ERROR, Span, Status};
use mesh_proxy_core::metrics::Direction;

/// Names of gRPC's status codes, by number.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Those that are the server's fault (conventions for gRPC, "Recording errors").
const GRPC_SERVER_ERRORS: [u16; 6] = [2, 4, 12, 13, 14, 15];

/// Methods of HTTP that may be part of a name (RFC 9110 §9.3, RFC 5789).
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Characters of a gRPC method that is told by name.
const RPC_METHOD_MAX: usize = 128;

/// The span of a request, if it has a place in a trace.
pub(super) fn of(told: &Told) -> Option<Span> {
    let Place { trace, own, parent } = told.place?;
    let start = u64::try_from(told.started.unix_micros()).unwrap_or(0);
    let failed = failure(told);
    Some(Span {
        trace_id: trace.to_vec(),
        span_id: own.to_vec(),
        parent_span_id: parent.map_or_else(Vec::new, |parent| parent.to_vec()),
        name: name(told),
        kind: match told.direction {
            Direction::Inbound => KIND_SERVER,
            Direction::Outbound => KIND_CLIENT,
        },
        start_time_unix_nano: start.saturating_mul(1_000),
        end_time_unix_nano: start.saturating_add(told.took_us).saturating_mul(1_000),
        attributes: attributes(told, failed.as_deref()),
        status: failed.map(|_| Status {
            message: String::new(),
            code: STATUS_ERROR,
        }),
    })
}

fn name(told: &Told) -> String {
    match rpc_method(told) {
        Some(method) => method.to_owned(),
        None if told.grpc => "grpc".to_owned(),
        None if METHODS.contains(&told.method) => told.method.to_string(),
        None => "HTTP".to_owned(),
    }
}

/// `package.Service/Method`, if it reads like one: whoever calls chooses the path.
fn rpc_method(told: &Told) -> Option<&str> {
    let path = told.path.strip_prefix('/').filter(|_| told.grpc)?;
    let (service, method) = path.split_once('/')?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
    };
    (path.len() <= RPC_METHOD_MAX && is_name(service) && is_name(method)).then_some(path)
}

/// What `error.type` is, if it failed by what the conventions call so.
fn failure(told: &Told) -> Option<String> {
    let client = told.direction == Direction::Outbound;
    if let Some(code) = told.grpc_status.filter(|_| told.grpc) {
        let failed = GRPC_SERVER_ERRORS.contains(&code) || (client && code != 0);
        return failed.then(|| grpc_name(code));
    }
    let failed = told
        .status
        .is_some_and(|status| status >= if client { 400 } else { 500 });
    match (told.failure, told.status) {
        (Some(why), _) => Some(why.to_owned()),
        (None, Some(status)) => failed.then(|| status.to_string()),
        (None, None) => Some("client-left".to_owned()),
    }
}

fn grpc_name(code: u16) -> String {
    let name = GRPC_CODES.get(usize::from(code));
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

fn attributes(told: &Told, failed: Option<&str>) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(20);
    let mut text = |key: &str, value: &str| all.push(KeyValue::text(key, value));
    let known = METHODS.contains(&told.method);
    text(
        "http.request.method",
        if known {
            told.method.as_str()
        } else {
            "_OTHER"
        },
    );
    text("url.scheme", "http");
    let authority = told
        .host
        .as_deref()
        .and_then(|host| host.parse::<Authority>().ok());
    match told.direction {
        Direction::Inbound => text("url.path", &told.path),
        Direction::Outbound => {
            let host = told.host.as_deref().unwrap_or(&told.target);
            text("url.full", &format!("http://{host}{}", told.path));
            text("mesh.target", &told.target);
        }
    }
    match &authority {
        Some(authority) => text("server.address", authority.host()),
        None if told.direction == Direction::Outbound => text("server.address", &told.target),
        None => {}
    }
    if let Some(version) = told.version {
        text("network.protocol.name", "http");
        text("network.protocol.version", version);
    }
    if told.grpc {
        text("rpc.system.name", "grpc");
        text("rpc.method", rpc_method(told).unwrap_or("_OTHER"));
        if let Some(code) = told.grpc_status {
            text("rpc.response.status_code", &grpc_name(code));
        }
    }
    if let Some((ip, id)) = &told.client {
        text("client.address", &ip.to_string());
        if let Some(id) = id {
            text("mesh.client.spiffe_id", id.as_str());
        }
    }
    if let Some(server) = &told.server {
        text("mesh.server.spiffe_id", server.as_str());
    }
    if let Some(decided) = &told.decided {
        text(
            "mesh.verdict",
            if decided.allowed { "allow" } else { "deny" },
        );
        text("mesh.phase", decided.phase);
        text("mesh.reason", &decided.reason);
        if let Some(server) = &decided.server {
            text("mesh.server", server);
        }
        if let Some(route) = &decided.route {
            text("mesh.route", route);
        }
    }
    if let Some(failed) = failed {
        text("error.type", failed);
    }
    let mut number = |key: &str, value: i64| all.push(KeyValue::number(key, value));
    if let Some(status) = told.status {
        number("http.response.status_code", i64::from(status));
    }
    if let Some(port) = authority.as_ref().and_then(Authority::port_u16) {
        number("server.port", i64::from(port));
    }
    let generation = told.decided.as_ref().and_then(|decided| decided.generation);
    if let Some(generation) = generation {
        number(
            "mesh.policy.generation",
            i64::try_from(generation).unwrap_or(i64::MAX),
        );
    }
    if told.tries > 1 {
        number("mesh.tries", i64::from(told.tries));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Decided;
    use mesh_api::otlp::Value;
    use mesh_trust::{SpiffeId, Timestamp};

    fn told(direction: Direction) -> Told {
        Told {
            place: Some(Place {
                trace: [1; 16],
                own: [2; 8],
                parent: Some([3; 8]),
            }),
            direction,
            stream: None,
            grpc: false,
            version: Some("1.1"),
            method: Method::GET,
            path: "/items/7".to_owned(),
            host: Some("cart.shop:8080".to_owned()),
            client: None,
            target: "shop/cart:8080".to_owned(),
            server: None,
            started: Timestamp::from_unix_micros(1_000_000),
            took_us: 250,
            decided: None,
            tries: 1,
            status: Some(200),
            grpc_status: None,
            failure: None,
            ended: false,
            headers: Vec::new(),
        }
    }

    fn of(told: Told) -> Span {
        super::of(&told).expect("a place in a trace")
    }

    fn value(span: &Span, key: &str) -> Option<String> {
        let mut all = span.attributes.iter().filter(|one| one.key == key);
        let value = all.next()?.value.clone()?.value?;
        assert!(all.next().is_none(), "{key} stands once");
        Some(match value {
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
        })
    }

    fn error(span: &Span) -> Option<String> {
        let said = value(span, "error.type");
        assert_eq!(
            said.is_some(),
            span.status.is_some(),
            "status and error.type go together"
        );
        said
    }

    #[test]
    fn what_comes_in_is_a_server_span_with_identity_and_decision() {
        let span = of(Told {
            client: Some((
                "10.0.0.9".parse().unwrap(),
                Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
            )),
            decided: Some(Decided {
                allowed: true,
                phase: "permit",
                reason: "AuthorizationPolicy/shop/callers/0".to_owned(),
                generation: Some(7),
                server: Some("shop/cart-http".to_owned()),
                route: Some("HTTPRoute/shop/items/0".to_owned()),
            }),
            ..told(Direction::Inbound)
        });
        assert_eq!((span.kind, span.name.as_str()), (KIND_SERVER, "GET"));
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (1_000_000_000, 1_000_250_000)
        );
        for (key, want) in [
            ("http.request.method", "GET"),
            ("url.path", "/items/7"),
            ("url.scheme", "http"),
            ("server.address", "cart.shop"),
            ("server.port", "8080"),
            ("client.address", "10.0.0.9"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            (
                "mesh.client.spiffe_id",
                "spiffe://cluster.local/ns/shop/sa/web",
            ),
            ("mesh.verdict", "allow"),
            ("mesh.phase", "permit"),
            ("mesh.reason", "AuthorizationPolicy/shop/callers/0"),
            ("mesh.policy.generation", "7"),
            ("mesh.server", "shop/cart-http"),
            ("mesh.route", "HTTPRoute/shop/items/0"),
        ] {
            assert_eq!(value(&span, key).as_deref(), Some(want), "{key}");
        }
        assert_eq!(error(&span), None);
        assert_eq!(value(&span, "url.full"), None);
    }

    #[test]
    fn what_goes_out_is_a_client_span() {
        let span = of(told(Direction::Outbound));
        assert_eq!(span.kind, KIND_CLIENT);
        assert_eq!(
            value(&span, "url.full").as_deref(),
            Some("http://cart.shop:8080/items/7")
        );
        assert_eq!(
            value(&span, "mesh.target").as_deref(),
            Some("shop/cart:8080")
        );
        assert_eq!(value(&span, "mesh.tries"), None, "one is no news");
        let nameless = of(Told {
            host: None,
            tries: 3,
            ..told(Direction::Outbound)
        });
        assert_eq!(
            value(&nameless, "server.address").as_deref(),
            Some("shop/cart:8080")
        );
        assert_eq!(value(&nameless, "mesh.tries").as_deref(), Some("3"));
    }

    #[test]
    fn what_is_an_error_depends_on_the_side() {
        for (direction, status, want) in [
            (Direction::Inbound, Some(403), None),
            (Direction::Outbound, Some(403), Some("403")),
            (Direction::Inbound, Some(502), Some("502")),
            (Direction::Inbound, None, Some("client-left")),
        ] {
            let span = of(Told {
                status,
                ..told(direction)
            });
            assert_eq!(error(&span).as_deref(), want, "{direction:?} {status:?}");
        }
        let reset = of(Told {
            failure: Some("reset"),
            ..told(Direction::Outbound)
        });
        assert_eq!(error(&reset).as_deref(), Some("reset"));
    }

    #[test]
    fn grpc_is_named_by_its_method_and_code() {
        let call = |direction, code| {
            of(Told {
                grpc: true,
                path: "/shop.Cart/Add".to_owned(),
                grpc_status: Some(code),
                ..told(direction)
            })
        };
        let denied = call(Direction::Inbound, 7);
        assert_eq!(denied.name, "shop.Cart/Add");
        assert_eq!(
            value(&denied, "rpc.method").as_deref(),
            Some("shop.Cart/Add")
        );
        assert_eq!(value(&denied, "rpc.system.name").as_deref(), Some("grpc"));
        assert_eq!(
            value(&denied, "rpc.response.status_code").as_deref(),
            Some("PERMISSION_DENIED")
        );
        assert_eq!(error(&denied), None, "the client's fault");
        assert_eq!(
            error(&call(Direction::Outbound, 7)).as_deref(),
            Some("PERMISSION_DENIED")
        );
        assert_eq!(
            error(&call(Direction::Inbound, 14)).as_deref(),
            Some("UNAVAILABLE")
        );
        assert_eq!(error(&call(Direction::Inbound, 99)), None);
    }

    #[test]
    fn names_are_not_what_clients_make_up() {
        let odd = of(Told {
            method: Method::from_bytes(b"BREW").unwrap(),
            ..told(Direction::Inbound)
        });
        assert_eq!(odd.name, "HTTP");
        assert_eq!(
            value(&odd, "http.request.method").as_deref(),
            Some("_OTHER")
        );
        for path in [
            "/",
            "/a",
            "/a/b/c",
            "/a b/c",
            "//x",
            &format!("/a/{}", "x".repeat(200)),
        ] {
            let span = of(Told {
                grpc: true,
                path: path.to_owned(),
                ..told(Direction::Inbound)
            });
            assert_eq!(span.name, "grpc", "{path}");
            assert_eq!(
                value(&span, "rpc.method").as_deref(),
                Some("_OTHER"),
                "{path}"
            );
        }
    }
}
