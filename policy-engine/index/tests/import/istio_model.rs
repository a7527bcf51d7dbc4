//! Istio's authorization as its documentation describes it (AuthorizationPolicy, PeerAuthentication, "Authorization policy
//! conditions", "Authorization for TCP traffic"). Slow, plain, and without a line of the importer's.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A field of a source or operation and its values: `("notPrincipals", ["..."])`.
pub(crate) type Field = (&'static str, Vec<String>);

#[derive(Clone, Debug)]
pub(crate) struct When {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
    pub(crate) not_values: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) from: Vec<Vec<Field>>,
    pub(crate) to: Vec<Vec<Field>>,
    pub(crate) when: Vec<When>,
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) action: &'static str,
    pub(crate) selector: Vec<(&'static str, &'static str)>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) dry_run: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) selector: Vec<(&'static str, &'static str)>,
    pub(crate) mode: &'static str,
    pub(crate) ports: Vec<(u16, &'static str)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) policies: Vec<Policy>,
    pub(crate) peers: Vec<Peer>,
}

/// How Istio was told to read a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Tcp,
    Detected,
}

#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) labels: &'static [(&'static str, &'static str)],
    pub(crate) ports: &'static [(u16, Speaks)],
}

/// A request, with what Istio knows of it and this mesh does not.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `<trust domain>/ns/<namespace>/sa/<account>` of the client's certificate.
    pub(crate) principal: Option<String>,
    pub(crate) ip: String,
    pub(crate) port: u16,
    /// `None`: bytes that are no HTTP.
    pub(crate) http: Option<Http>,
    pub(crate) hidden: Hidden,
}

#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
}

/// What this mesh cannot see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hidden {
    /// `<issuer>/<subject>` of a valid token.
    pub(crate) token: Option<String>,
    pub(crate) sni: Option<String>,
    pub(crate) remote_ip: String,
}

pub(crate) const ROOT: &str = "istio-system";

impl Mesh {
    /// Whether Istio lets the request through to the workload.
    pub(crate) fn allows(&self, workload: &Workload, request: &Request) -> bool {
        let speaks = workload
            .ports
            .iter()
            .find(|(p, _)| *p == request.port)
            .map_or(Speaks::Detected, |(_, s)| *s);
        if speaks == Speaks::Http && request.http.is_none() {
            return false; // the HTTP codec refuses it
        }
        let mut seen = request.clone();
        if speaks == Speaks::Tcp {
            seen.http = None;
        }
        match self.mode(workload, request.port) {
            "STRICT" if request.principal.is_none() => return false,
            "DISABLE" => seen.principal = None,
            _ => {}
        }
        let selected: Vec<&Policy> = self
            .policies
            .iter()
            .filter(|p| !p.dry_run && p.selects(workload))
            .collect();
        let of = |action: &str| {
            selected
                .iter()
                .filter(|p| p.action == action)
                .copied()
                .collect::<Vec<_>>()
        };
        // An external provider might refuse anything that it is asked about.
        if of("CUSTOM").iter().any(|p| p.matches(&seen, true))
            || of("DENY").iter().any(|p| p.matches(&seen, true))
        {
            return false;
        }
        let allow = of("ALLOW");
        allow.is_empty() || allow.iter().any(|p| p.matches(&seen, false))
    }

    /// Workload before namespace before mesh; what is unset is inherited, PERMISSIVE at last.
    pub(crate) fn mode(&self, workload: &Workload, port: u16) -> &'static str {
        let find = |namespace: &str, with_selector: bool| {
            let mut found = self.peers.iter().filter(|p| {
                p.namespace == namespace
                    && p.selector.is_empty() != with_selector
                    && p.selector.iter().all(|l| workload.labels.contains(l))
            });
            found.next()
        };
        let mesh = find(ROOT, false);
        let of_namespace = (workload.namespace != ROOT)
            .then(|| find(workload.namespace, false))
            .flatten();
        let of_workload = (workload.namespace != ROOT)
            .then(|| find(workload.namespace, true))
            .flatten();
        let mut mode = "PERMISSIVE";
        for peer in [mesh, of_namespace, of_workload].into_iter().flatten() {
            if peer.mode != "UNSET" {
                mode = peer.mode;
            }
        }
        let port_mode = of_workload
            .and_then(|p| p.ports.iter().find(|(n, _)| *n == port))
            .map(|(_, m)| *m);
        match port_mode {
            Some(m) if m != "UNSET" => m,
            _ => mode,
        }
    }
}

impl Policy {
    pub(crate) fn selects(&self, workload: &Workload) -> bool {
        (self.namespace == ROOT || self.namespace == workload.namespace)
            && self.selector.iter().all(|l| workload.labels.contains(l))
    }

    fn matches(&self, request: &Request, denies: bool) -> bool {
        self.rules
            .iter()
            .any(|r| r.matches(request, &self.namespace, denies))
    }
}

impl Rule {
    fn matches(&self, request: &Request, namespace: &str, denies: bool) -> bool {
        let http_only = self
            .from
            .iter()
            .chain(&self.to)
            .flatten()
            .any(|(f, _)| is_http(f))
            || self.when.iter().any(|w| is_http(&w.key));
        if request.http.is_none() && http_only && !denies {
            return false; // "Istio ignores the rule"
        }
        let holds = |field: &str, values: &[String], not_values: &[String]| {
            if request.http.is_none() && is_http(field) {
                return true; // "missing attributes are treated as matches" in DENY
            }
            let one = |v: &String| value_holds(field, v, request, namespace);
            (values.is_empty() || values.iter().any(one)) && !not_values.iter().any(one)
        };
        let all = |fields: &Vec<Field>| {
            fields.iter().all(|(field, values)| match opposite(field) {
                Some(positive) => holds(positive, &[], values),
                None => holds(field, values, &[]),
            })
        };
        (self.from.is_empty() || self.from.iter().any(all))
            && (self.to.is_empty() || self.to.iter().any(all))
            && self
                .when
                .iter()
                .all(|w| holds(&w.key, &w.values, &w.not_values))
    }
}

/// `principals` of `notPrincipals`.
fn opposite(field: &str) -> Option<&'static str> {
    Some(match field {
        "notPrincipals" => "principals",
        "notNamespaces" => "namespaces",
        "notServiceAccounts" => "serviceAccounts",
        "notIpBlocks" => "ipBlocks",
        "notRemoteIpBlocks" => "remoteIpBlocks",
        "notRequestPrincipals" => "requestPrincipals",
        "notHosts" => "hosts",
        "notPorts" => "ports",
        "notMethods" => "methods",
        "notPaths" => "paths",
        _ => return None,
    })
}

fn is_http(field: &str) -> bool {
    let field = opposite(field).unwrap_or(field);
    ["hosts", "methods", "paths", "requestPrincipals"].contains(&field)
        || field.starts_with("request.")
}

fn value_holds(field: &str, pattern: &str, request: &Request, own: &str) -> bool {
    let principal = request.principal.as_deref();
    let http = request.http.as_ref();
    match field {
        "principals" | "source.principal" => principal.is_some_and(|p| text_holds(pattern, p)),
        "namespaces" | "source.namespace" => {
            principal.is_some_and(|p| glob_holds(&format!("*/ns/{pattern}/*"), p))
        }
        "serviceAccounts" | "source.serviceAccount" => {
            let (n, a) = pattern.split_once('/').unwrap_or((own, pattern));
            principal.is_some_and(|p| glob_holds(&format!("*/ns/{n}/sa/{a}"), p))
        }
        "ipBlocks" | "source.ip" => in_block(pattern, &request.ip),
        "remoteIpBlocks" | "remote.ip" => in_block(pattern, &request.hidden.remote_ip),
        "connection.sni" => request
            .hidden
            .sni
            .as_deref()
            .is_some_and(|s| text_holds(pattern, s)),
        "requestPrincipals" | "request.auth.principal" => request
            .hidden
            .token
            .as_deref()
            .is_some_and(|t| text_holds(pattern, t)),
        "ports" | "destination.port" => pattern == request.port.to_string(),
        "methods" => http.is_some_and(|h| text_holds(pattern, &h.method)),
        "hosts" => {
            http.is_some_and(|h| text_holds(&pattern.to_lowercase(), &h.host.to_lowercase()))
        }
        "paths" if pattern.contains('{') => http.is_some_and(|h| template_holds(pattern, &h.path)),
        "paths" => http.is_some_and(|h| text_holds(pattern, &h.path)),
        header => {
            let name = header
                .trim_start_matches("request.headers[")
                .trim_end_matches(']')
                .to_lowercase();
            let values = http.and_then(|h| h.headers.get(&name));
            values.is_some_and(|values| text_holds(pattern, &values.join(",")))
        }
    }
}

/// Exact, prefix, suffix and presence.
fn text_holds(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        !text.is_empty()
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        text.ends_with(suffix)
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        text.starts_with(prefix)
    } else {
        pattern == text
    }
}

/// `*` is any text: Istio makes a regular expression of namespaces and service accounts.
fn glob_holds(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && glob_holds(rest, &text[at..]))
        }),
    }
}

/// Whether a character may stand where a template has an operator (Envoy's URI templates).
fn in_template(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c)
}

/// `{*}` is one segment, `{**}` any number of them.
fn template_holds(template: &str, path: &str) -> bool {
    fn segments(template: &[&str], path: &[&str]) -> bool {
        match (template, path) {
            ([], []) => true,
            (["{**}", rest @ ..], path) => {
                let taken_whole =
                    |taken: &usize| path[..*taken].iter().all(|s| s.chars().all(in_template));
                (1..=path.len())
                    .filter(taken_whole)
                    .any(|taken| segments(rest, &path[taken..]))
            }
            (["{*}", rest @ ..], [one, others @ ..]) => {
                !one.is_empty() && one.chars().all(in_template) && segments(rest, others)
            }
            ([literal, rest @ ..], [one, others @ ..]) => literal == one && segments(rest, others),
            _ => false,
        }
    }
    let (template, path): (Vec<&str>, Vec<&str>) =
        (template.split('/').collect(), path.split('/').collect());
    segments(&template, &path)
}

fn in_block(block: &str, ip: &str) -> bool {
    let (base, length) = match block.split_once('/') {
        Some((base, length)) => (base, Some(length.parse::<u32>().unwrap())),
        None => (block, None),
    };
    match (
        base.parse::<IpAddr>().unwrap(),
        ip.parse::<IpAddr>().unwrap(),
    ) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - length.unwrap_or(32);
            shift == 32 || u32::from(a) >> shift == u32::from(b) >> shift
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - length.unwrap_or(128);
            shift == 128 || u128::from(a) >> shift == u128::from(b) >> shift
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_reads_patterns_as_the_documentation_does() {
        for (pattern, text, want) in [
            ("*", "", false),
            ("*", "x", true),
            ("ab*", "ab", true),
            ("ab*", "abc", true),
            ("*bc", "abc", true),
            ("*bc", "bcd", false),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            assert_eq!(text_holds(pattern, text), want, "{pattern} {text}");
        }
        for (template, path, want) in [
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/b/c", false),
            ("/a/{*}", "/a/", false),
            ("/a/{*}", "/a", false),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a", false),
            ("/{*}/c", "/a/c", true),
            ("/{*}/x/{**}", "/a/x/", true),
            ("/{*}/x/{**}", "/a/b/x/c", false),
            ("/{**}/c", "/a/b/c", true),
            ("/a/{*}", "/a/\"b\"", false),
            ("/a/{**}", "/a/b/<c>", false),
        ] {
            assert_eq!(template_holds(template, path), want, "{template} {path}");
        }
        for (block, ip, want) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.1.1.1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("::/0", "10.0.0.1", false),
            ("fd00::/8", "fd12::1", true),
        ] {
            assert_eq!(in_block(block, ip), want, "{block} {ip}");
        }
    }
}
