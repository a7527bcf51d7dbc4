//! HTTPRoute of `policy.linkerd.io`, in the four versions that Linkerd has had.

use super::linkerd::kind;
use super::schema::{
    any_text, anything, choice, described, integer, list, list_of, object, port_number, rule, text,
    text_of,
};
use super::{Column, Kind, Version};
use serde_json::{Value, json};

/// Entries of lists in a route (Gateway API has 16 and 8; Linkerd's own routes were less bounded).
const ENTRIES_MAX: u64 = 64;

/// HTTPRoute.
pub(super) fn kinds() -> Vec<Kind> {
    let old = |name, why| Version::deprecated(name, spec(false), why);
    let versions = vec![
        old(
            "v1alpha1",
            "policy.linkerd.io/v1alpha1 HTTPRoute is deprecated; use v1beta3",
        ),
        old(
            "v1beta1",
            "policy.linkerd.io/v1beta1 HTTPRoute is deprecated; use v1beta3",
        ),
        Version::new("v1beta2", spec(false)),
        Version::new("v1beta3", spec(true)),
    ];
    let columns = vec![
        Column("Hostnames", ".spec.hostnames", "Hosts that it takes."),
        Column(
            "Parents",
            ".spec.parentRefs[*].name",
            "Servers that it is attached to.",
        ),
    ];
    vec![kind("HTTPRoute", "httproutes", &[], versions, columns)]
}

/// `timeouts` came with v1beta3.
fn spec(timeouts: bool) -> Value {
    let parent = rule(
        object(
            &[
                ("group", any_text()),
                ("kind", any_text()),
                ("name", text_of(253)),
                ("namespace", text_of(63)),
                ("port", port_number()),
                ("sectionName", text_of(253)),
            ],
            &["name"],
        ),
        "!has(self.kind) || self.kind != 'Server' || (!has(self.port) && !has(self.sectionName))",
        "a Server is referred to without `port` and `sectionName`",
    );
    let mut rule_fields = vec![
        ("matches", list_of(request_match(), 0, ENTRIES_MAX)),
        ("filters", list_of(filter(), 0, ENTRIES_MAX)),
        ("backendRefs", list_of(backend(), 0, ENTRIES_MAX)),
    ];
    if timeouts {
        let fields = [("request", duration()), ("backendRequest", duration())];
        rule_fields.push(("timeouts", object(&fields, &[])));
    }
    let rules = list_of(object(&rule_fields, &[]), 0, ENTRIES_MAX);
    object(
        &[
            ("parentRefs", list_of(parent, 0, ENTRIES_MAX)),
            ("hostnames", list_of(text_of(253), 0, ENTRIES_MAX)),
            ("rules", rules),
        ],
        &[],
    )
}

/// Gateway API's form of a duration.
fn duration() -> Value {
    json!({ "type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
}

/// One match: path, method, headers and query, all of which must hold.
fn request_match() -> Value {
    let path = object(
        &[
            (
                "type",
                choice(&["Exact", "PathPrefix", "RegularExpression"]),
            ),
            ("value", text_of(4096)),
        ],
        &[],
    );
    let path = rule(
        path,
        "(has(self.type) && self.type == 'RegularExpression') || !has(self.value) || self.value.startsWith('/')",
        "a path begins with `/`",
    );
    let value = || {
        object(
            &[
                ("type", choice(&["Exact", "RegularExpression"])),
                ("name", text_of(256)),
                ("value", text_of(4096)),
            ],
            &["name", "value"],
        )
    };
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    object(
        &[
            ("path", path),
            ("method", choice(&methods)),
            ("headers", list_of(value(), 0, ENTRIES_MAX)),
            ("queryParams", list_of(value(), 0, ENTRIES_MAX)),
        ],
        &[],
    )
}

fn filter() -> Value {
    let header = || {
        object(
            &[("name", text_of(256)), ("value", text_of(4096))],
            &["name", "value"],
        )
    };
    let modifier = || {
        object(
            &[
                ("set", list(header())),
                ("add", list(header())),
                ("remove", list(text_of(256))),
            ],
            &[],
        )
    };
    let path = object(
        &[
            ("type", choice(&["ReplaceFullPath", "ReplacePrefixMatch"])),
            ("replaceFullPath", text_of(1024)),
            ("replacePrefixMatch", any_text()),
        ],
        &["type"],
    );
    let redirect = object(
        &[
            ("scheme", choice(&["http", "https"])),
            ("hostname", text_of(253)),
            ("path", path),
            ("port", port_number()),
            ("statusCode", integer(300, 399)),
        ],
        &[],
    );
    object(
        &[
            ("type", text()),
            ("requestHeaderModifier", modifier()),
            ("responseHeaderModifier", modifier()),
            ("requestRedirect", redirect),
        ],
        &["type"],
    )
}

/// Where outbound traffic goes; inbound proxies do not look at it.
fn backend() -> Value {
    let reference = object(
        &[
            ("group", any_text()),
            ("kind", any_text()),
            ("name", text_of(253)),
            ("namespace", text_of(63)),
            ("port", port_number()),
            ("weight", integer(0, 1_000_000)),
            ("filters", list_of(anything(), 0, ENTRIES_MAX)),
        ],
        &["name"],
    );
    described(reference, "A Service needs `port`.")
}
