//! From objects of the Kubernetes API to facts, and from decisions to what is written into their status.

use super::{IssuerRef, RequestFacts, User, Wish, is_answer};
use mesh_trust::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Annotation in which cert-manager names the Certificate that a request was made for.
pub const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";

/// What is noted in a request's condition `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyReason {
    /// Not yet.
    Pending,
    /// Signed.
    Issued,
    /// Never.
    Failed,
    /// Somebody denied it.
    Denied,
}

impl ReadyReason {
    fn text(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Issued => "Issued",
            Self::Failed => "Failed",
            Self::Denied => "Denied",
        }
    }
}

/// What a request says; none if it is no CertificateRequest, or lacks what every one has.
pub fn facts(request: &Value) -> Option<RequestFacts> {
    let text = |path: &str| request.pointer(path)?.as_str().map(str::to_owned);
    let or_empty = |path: &str| text(path).unwrap_or_default();
    Some(RequestFacts {
        namespace: text("/metadata/namespace")?,
        name: text("/metadata/name")?,
        uid: text("/metadata/uid")?,
        created: text("/metadata/creationTimestamp")?.parse().ok()?,
        certificate: annotation(request, CERTIFICATE_NAME),
        issuer: issuer_ref(request),
        approved: is_true(request, "Approved"),
        denied: is_true(request, "Denied"),
        ready_reason: ready_reason(request).map(str::to_owned),
        user: User {
            name: or_empty("/spec/username"),
            uid: or_empty("/spec/uid"),
            groups: texts(request.pointer("/spec/groups")),
            extra: extra(request.pointer("/spec/extra")),
        },
        // Octets are base64 in JSON; what is not, is no request, and is refused as such.
        csr_pem: text("/spec/request")
            .and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok())
            .unwrap_or_default(),
        // Whatever stands there and is not false is a wish for more.
        is_ca: request
            .pointer("/spec/isCA")
            .is_some_and(|is_ca| *is_ca != Value::Bool(false)),
        duration: wish(request.pointer("/spec/duration")),
        usages: texts(request.pointer("/spec/usages")),
    })
}

/// Whether a request has its answer, by its condition `Ready` alone: most that are seen have, and nothing else of them
/// is read.
pub fn is_answered(request: &Value) -> bool {
    ready_reason(request).is_some_and(is_answer)
}

fn ready_reason(request: &Value) -> Option<&str> {
    condition(request, "Ready")?.get("reason")?.as_str()
}

/// Whom a request names as its issuer.
pub fn issuer_ref(request: &Value) -> IssuerRef {
    let text = |field: &str| {
        let of = request.pointer("/spec/issuerRef")?.get(field)?.as_str()?;
        Some(of.to_owned())
    };
    IssuerRef {
        group: text("group").unwrap_or_default(),
        kind: text("kind").unwrap_or_default(),
        name: text("name").unwrap_or_default(),
    }
}

fn annotation(object: &Value, name: &str) -> Option<String> {
    let all = object.pointer("/metadata/annotations")?;
    all.get(name)?.as_str().map(str::to_owned)
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn extra(map: Option<&Value>) -> BTreeMap<String, Vec<String>> {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries
        .map(|(key, values)| (key.clone(), texts(Some(values))))
        .collect()
}

fn condition<'o>(object: &'o Value, kind: &str) -> Option<&'o Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|one| one.get("type") == Some(&kind.into()))
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|one| one.get("status") == Some(&"True".into()))
}

/// A duration as Go writes it: `2160h0m0s`, `1.5h`, `90m`.
fn wish(duration: Option<&Value>) -> Wish {
    match duration {
        None | Some(Value::Null) => Wish::None,
        Some(Value::String(text)) => go_duration_secs(text).map_or(Wish::Unreadable, Wish::Secs),
        Some(_) => Wish::Unreadable,
    }
}

fn go_duration_secs(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3_600.0),
    ];
    let (mut rest, mut secs) = (text, 0.0);
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let (unit, size) = UNITS
            .iter()
            .find(|(unit, _)| after.strip_prefix(unit).is_some_and(ends_unit))?;
        secs += number.parse::<f64>().ok()? * size;
        rest = after.strip_prefix(unit)?;
    }
    // A century is more than any profile grants.
    (!text.is_empty() && (0.0..3.2e9).contains(&secs)).then_some(secs as u64)
}

/// Whether a unit ends here: what follows is nothing, or the next number.
fn ends_unit(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

/// The status of a request with its condition `Ready` set: what others noted in it stays.
pub fn status_with_ready(
    request: &Value,
    reason: ReadyReason,
    message: &str,
    now: Timestamp,
) -> Map<String, Value> {
    let status = if reason == ReadyReason::Issued {
        "True"
    } else {
        "False"
    };
    let ready = json!({
        "type": "Ready",
        "status": status,
        "reason": reason.text(),
        "message": message,
        "lastTransitionTime": whole_secs(now),
    });
    let mut out = Map::new();
    out.insert("conditions".to_owned(), with_condition(request, ready));
    if matches!(reason, ReadyReason::Failed | ReadyReason::Denied) {
        out.insert("failureTime".to_owned(), whole_secs(now).into());
    }
    out
}

/// Whether an issuer's `Ready` says this already, of what stands in its spec now: then nothing is written.
pub fn issuer_says(issuer: &Value, (ready, reason, message): (bool, &str, &str)) -> bool {
    let seen = condition(issuer, "Ready").and_then(|ready| ready.get("observedGeneration"));
    let status = if ready { "True" } else { "False" };
    seen == issuer.pointer("/metadata/generation") && says(issuer, status, reason, message)
}

/// Whether `Ready` says this already.
fn says(object: &Value, status: &str, reason: &str, message: &str) -> bool {
    condition(object, "Ready").is_some_and(|ready| {
        ready.get("status") == Some(&status.into())
            && ready.get("reason") == Some(&reason.into())
            && ready.get("message") == Some(&message.into())
    })
}

/// Whether a request's `Ready` says that it waits, for this reason.
pub fn says_pending(request: &Value, message: &str) -> bool {
    says(request, "False", ReadyReason::Pending.text(), message)
}

/// The conditions of an issuer with `Ready` set. Its time changes with its status alone.
pub fn issuer_conditions(
    issuer: &Value,
    (ready, reason, message): (bool, &str, &str),
    now: Timestamp,
) -> Value {
    let status = if ready { "True" } else { "False" };
    let since = condition(issuer, "Ready")
        .filter(|old| old.get("status") == Some(&status.into()))
        .and_then(|old| old.get("lastTransitionTime").cloned());
    let condition = json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": issuer.pointer("/metadata/generation").cloned().unwrap_or(0.into()),
        "lastTransitionTime": since.unwrap_or_else(|| whole_secs(now).into()),
    });
    with_condition(issuer, condition)
}

fn with_condition(object: &Value, condition: Value) -> Value {
    let old = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let mut all: Vec<Value> = old.cloned().unwrap_or_default();
    all.retain(|one| one.get("type") != condition.get("type"));
    all.push(condition);
    Value::Array(all)
}

/// RFC 3339 in whole seconds, which is how Kubernetes writes times.
pub fn whole_secs(at: Timestamp) -> String {
    let text = Timestamp::from_unix_secs(at.unix_secs()).to_string();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}
