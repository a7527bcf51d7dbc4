//! What Linkerd's validating webhook, and the schemas before it, refuse. Unknown fields are dropped there, not refused.

use super::{block, list, network, text};
use serde_json::Value;

/// The default policies.
pub(super) const MODES: [&str; 6] = [
    "deny",
    "audit",
    "all-authenticated",
    "all-unauthenticated",
    "cluster-authenticated",
    "cluster-unauthenticated",
];

type Verdict = Result<(), String>;

fn ensure(holds: bool, why: &str) -> Verdict {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

/// Whether a document is stored.
pub(super) fn admit(document: &Value) -> Verdict {
    let spec = document.get("spec").unwrap_or(&Value::Null);
    let own = text(document, "/metadata/namespace").unwrap_or("default");
    match text(document, "/kind").unwrap() {
        "Server" => server(spec),
        "ServerAuthorization" => server_authorization(spec),
        "AuthorizationPolicy" => authorization_policy(spec, own),
        "MeshTLSAuthentication" => mesh_tls(spec),
        "NetworkAuthentication" => networks(spec, "/networks", true),
        "EgressNetwork" => {
            let policy = text(spec, "/trafficPolicy");
            ensure(
                policy.is_some_and(|p| ["Allow", "Deny"].contains(&p)),
                "trafficPolicy",
            )?;
            networks(spec, "/networks", spec.get("networks").is_some())
        }
        "HTTPRoute" => route(spec),
        "HTTPLocalRateLimitPolicy" => rate_limit(spec),
        _ => Ok(()),
    }
}

fn server(spec: &Value) -> Verdict {
    let protocols = ["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"];
    ensure(
        text(spec, "/proxyProtocol").is_none_or(|p| protocols.contains(&p)),
        "proxyProtocol",
    )?;
    ensure(
        text(spec, "/accessPolicy").is_none_or(|p| MODES.contains(&p)),
        "accessPolicy",
    )?;
    ensure(spec["port"].is_u64() || spec["port"].is_string(), "port")?;
    let selectors = ["podSelector", "externalWorkloadSelector"];
    ensure(
        selectors.iter().filter(|s| spec.get(**s).is_some()).count() == 1,
        "selector",
    )
}

fn server_authorization(spec: &Value) -> Verdict {
    let one_of =
        spec.pointer("/server/name").is_some() != spec.pointer("/server/selector").is_some();
    ensure(one_of, "server: name or selector")?;
    let client = spec.get("client").ok_or("client")?;
    let booleans = [
        &client["unauthenticated"],
        &client["meshTLS"]["unauthenticatedTLS"],
    ];
    ensure(
        booleans.iter().all(|b| b.is_null() || b.is_boolean()),
        "no boolean",
    )?;
    if let Some(tls) = client.get("meshTLS") {
        ensure(
            client["unauthenticated"] != true,
            "unauthenticated together with meshTLS",
        )?;
        let named = list(tls, "/identities").count() + list(tls, "/serviceAccounts").count();
        ensure(
            tls["unauthenticatedTLS"] != true || named == 0,
            "unauthenticatedTLS together with identities",
        )?;
    }
    networks(client, "/networks", false)
}

fn authorization_policy(spec: &Value, own: &str) -> Verdict {
    let target = |field: &str| {
        text(spec, &format!("/targetRef/{field}"))
            .unwrap_or("")
            .to_ascii_lowercase()
    };
    let (group, kind) = (target("group"), target("kind"));
    match (group.as_str(), kind.as_str()) {
        ("policy.linkerd.io", "server" | "httproute")
        | ("gateway.networking.k8s.io", "httproute" | "grpcroute") => {}
        ("" | "core", "namespace") => ensure(target("name") == own, "another namespace")?,
        _ => return Err(format!("invalid targetRef kind {kind}")),
    }
    ensure(
        spec.pointer("/targetRef/name").is_some(),
        "targetRef without name",
    )?;
    let references = spec
        .get("requiredAuthenticationRefs")
        .and_then(Value::as_array);
    let references = references.ok_or("requiredAuthenticationRefs is missing")?;
    let of = |reference: &Value| {
        let group = text(reference, "/group").unwrap_or("");
        match (group, text(reference, "/kind").unwrap_or("")) {
            ("policy.linkerd.io", "MeshTLSAuthentication") | ("" | "core", "ServiceAccount") => {
                Some("identity")
            }
            ("policy.linkerd.io", "NetworkAuthentication") => Some("network"),
            _ => None,
        }
    };
    ensure(
        references
            .iter()
            .all(|r| of(r).is_some() && r["name"].is_string()),
        "unsupported authentication kind",
    )?;
    for half in ["identity", "network"] {
        let count = references.iter().filter(|r| of(r) == Some(half)).count();
        ensure(count <= 1, &format!("more than one {half}"))?;
    }
    Ok(())
}

fn mesh_tls(spec: &Value) -> Verdict {
    let (identities, references) = (spec.get("identities"), spec.get("identityRefs"));
    ensure(
        identities.is_some() != references.is_some(),
        "identities or identityRefs",
    )?;
    let given = identities
        .or(references)
        .and_then(Value::as_array)
        .ok_or("a list")?;
    ensure(!given.is_empty(), "an empty list")?;
    if identities.is_some() {
        return given
            .iter()
            .try_for_each(|i| identity(i.as_str().ok_or("a string")?));
    }
    for reference in given {
        let group = text(reference, "/group").unwrap_or("");
        ensure(matches!(group, "" | "core"), "group of an identityRef")?;
        ensure(reference.get("name").is_some(), "name of an identityRef")?;
        match text(reference, "/kind") {
            Some("ServiceAccount") => {}
            Some("Namespace") => ensure(
                reference.get("namespace").is_none(),
                "namespace of a Namespace",
            )?,
            _ => return Err("kind of an identityRef".to_owned()),
        }
    }
    Ok(())
}

/// DNS form, only its first label `*`; or SPIFFE with a lower-case trust domain and plain segments.
fn identity(id: &str) -> Verdict {
    let Some(rest) = id.strip_prefix("spiffe://") else {
        let labels = id.split('.').enumerate();
        let good = |(at, label): (usize, &str)| (at == 0 && label == "*") || is_label(label);
        return ensure(labels.into_iter().all(good), "no DNS form");
    };
    let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    ensure(
        !domain.is_empty() && domain.bytes().all(in_domain),
        "trust domain",
    )?;
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(in_path);
    ensure(path.is_empty() || path[1..].split('/').all(segment), "path")
}

fn is_label(label: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (first, last) = (label.bytes().next(), label.bytes().last());
    first.is_some_and(plain)
        && last.is_some_and(plain)
        && label.bytes().all(|b| plain(b) || b == b'-')
}

fn networks(spec: &Value, pointer: &str, some: bool) -> Verdict {
    let given = spec.pointer(pointer);
    ensure(given.is_none_or(Value::is_array), "networks are no list")?;
    ensure(!some || list(spec, pointer).next().is_some(), "no network")?;
    for one in list(spec, pointer) {
        let blocks = [one.get("cidr")]
            .into_iter()
            .chain(list(one, "/except").map(Some));
        let readable = |b: Option<&Value>| {
            let text = b.and_then(Value::as_str).unwrap_or("");
            text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok()
        };
        ensure(blocks.into_iter().all(readable), "no network")?;
        let (cidr, _) = network(one);
        for except in list(one, "/except").map(block) {
            ensure(!except.contains(&cidr), "completely negated")?;
            ensure(cidr.contains(&except), "exception outside")?;
        }
    }
    Ok(())
}

fn route(spec: &Value) -> Verdict {
    for parent in list(spec, "/parentRefs") {
        let egress = text(parent, "/kind") == Some("EgressNetwork");
        ensure(
            !egress || parent.get("port").is_some(),
            "EgressNetwork without port",
        )?;
    }
    for rule in list(spec, "/rules") {
        for one in list(rule, "/matches") {
            let regex = text(one, "/path/type") == Some("RegularExpression");
            let absolute = text(one, "/path/value").is_none_or(|p| p.starts_with('/'));
            ensure(regex || absolute, "relative path")?;
        }
    }
    Ok(())
}

fn rate_limit(spec: &Value) -> Verdict {
    ensure(text(spec, "/targetRef/kind") == Some("Server"), "targetRef")?;
    let rate = |v: &Value| {
        v["requestsPerSecond"]
            .as_u64()
            .filter(|r| *r > 0)
            .ok_or("requestsPerSecond")
    };
    let total = spec.get("total").map(rate).transpose()?;
    let identity = spec.get("identity").map(rate).transpose()?;
    let overrides: Result<Vec<u64>, &str> = list(spec, "/overrides").map(rate).collect();
    for rate in identity.into_iter().chain(overrides?) {
        ensure(total.is_none_or(|total| rate <= total), "more than total")?;
    }
    for client in list(spec, "/overrides").flat_map(|o| list(o, "/clientRefs")) {
        ensure(
            text(client, "/kind") == Some("ServiceAccount"),
            "clientRefs",
        )?;
    }
    ensure(
        list(spec, "/overrides").all(|o| o.get("clientRefs").is_some()),
        "clientRefs",
    )
}
