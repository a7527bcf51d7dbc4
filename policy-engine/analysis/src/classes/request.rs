//! What is asked of a port: a witness for each rule of its routes, that the rule takes and no better one does.
//!
//! A witness has what the match demands and nothing more: a path under the prefix that nothing else names, a method that
//! nothing else names, no further header. A better rule that takes such a witness takes all that the match takes; so a
//! rule without a witness is shadowed in full, and takes nothing. Regular expressions are the exception: one text is
//! sampled of each, and a rule with one that has no witness makes the answer inexact.

use super::client::fresh;
use super::literals::Literals;
use super::sample::sample;
use mesh_policy::Snapshot;
use mesh_policy::decide::decide;
use mesh_policy::request::{
    Call, Client, ClientRecord, Head, Protocol, RequestRecord, TargetRecord,
};
use mesh_policy::snapshot::{
    PathMatch, PortPolicy, ProbeKind, Route, RouteMatch, ServerProtocol, TextMatch, ValueMatch,
};
use mesh_trust::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Pairs of matches that are tried when two route tables are compared. A pair costs some microseconds.
const PAIRS_MAX: usize = 20_000;

/// One request without its client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// How it is read.
    pub protocol: AskProtocol,
    /// Method; empty for bytes.
    pub method: String,
    /// Target.
    pub path: String,
    /// Host.
    pub host: Option<String>,
    /// Headers.
    pub headers: BTreeMap<String, Vec<String>>,
}

/// As [`Protocol`], with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskProtocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
}

/// Requests that a port does not tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestClass {
    /// For people: the rule, and the witness.
    pub what: String,
    /// One of them.
    pub ask: Ask,
}

/// The request classes of a port, and what keeps them from being exact.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// The classes.
    pub classes: Vec<RequestClass>,
    /// Rules that no request reaches: better ones take all of theirs.
    pub shadowed: Vec<String>,
    /// Why these classes might not be all; empty: they are.
    pub inexact: Vec<String>,
}

impl Ask {
    /// The call that is decided.
    pub fn call(&self) -> Call<'_> {
        match self.protocol {
            AskProtocol::Tcp => Call::Tcp,
            AskProtocol::Http | AskProtocol::Grpc => Call::Http(Head {
                method: &self.method,
                target: &self.path,
                host: self.host.as_deref(),
                grpc: self.protocol == AskProtocol::Grpc,
                headers: &self.headers,
            }),
        }
    }

    /// The record that replay takes.
    pub fn record(&self, client: ClientRecord, server: TargetRecord) -> RequestRecord {
        let bytes = self.protocol == AskProtocol::Tcp;
        RequestRecord {
            client,
            server,
            protocol: match self.protocol {
                AskProtocol::Http => Protocol::Http,
                AskProtocol::Grpc => Protocol::Grpc,
                AskProtocol::Tcp => Protocol::Tcp,
            },
            method: (!bytes).then(|| self.method.clone()),
            path: (!bytes).then(|| self.path.clone()),
            host: self.host.clone(),
            headers: self.headers.clone(),
        }
    }

    /// Bytes.
    pub fn bytes() -> Self {
        Self {
            protocol: AskProtocol::Tcp,
            method: String::new(),
            path: String::new(),
            host: None,
            headers: BTreeMap::new(),
        }
    }

    fn http(method: &str, path: &str, host: Option<&str>) -> Self {
        Self {
            protocol: AskProtocol::Http,
            method: method.to_owned(),
            path: path.to_owned(),
            host: host.map(str::to_owned),
            headers: BTreeMap::new(),
        }
    }

    fn grpc(path: &str) -> Self {
        Self {
            protocol: AskProtocol::Grpc,
            ..Self::http("POST", path, None)
        }
    }

    /// `GET /orders`.
    pub fn text(&self) -> String {
        match self.protocol {
            AskProtocol::Tcp => "bytes".to_owned(),
            AskProtocol::Http | AskProtocol::Grpc => format!("{} {}", self.method, self.path),
        }
    }
}

/// One match of one rule, under one hostname of its route.
#[derive(Clone, Copy)]
struct Wanted<'r> {
    route: &'r Route,
    rule: u32,
    hostname: Option<&'r str>,
    one: &'r RouteMatch,
}

/// The request classes of `port` under all of `views` together.
pub fn requests(
    views: &[&Snapshot],
    port: u16,
    now: Timestamp,
    literals: Option<&Literals>,
) -> Requests {
    let policies: Vec<&PortPolicy> = views.iter().map(|view| view.port(port)).collect();
    let mut found = Finder::new(&policies, now);
    for (view, policy) in views.iter().zip(&policies) {
        found.of_table(view, policy, port);
    }
    if let [one, other] = policies.as_slice()
        && one.routes != other.routes
    {
        found.of_pairs(&one.routes, &other.routes);
    }
    found.everywhere(&policies, literals);
    found.out
}

struct Finder<'p> {
    now: Timestamp,
    /// A path segment, host label and method that no route names.
    word: String,
    policies: Vec<&'p PortPolicy>,
    out: Requests,
}

impl<'p> Finder<'p> {
    fn new(policies: &[&'p PortPolicy], now: Timestamp) -> Self {
        let routes = policies.iter().flat_map(|policy| &policy.routes);
        let named = routes
            .map(|route| format!("{:?} {:?}", route.hostnames, route.rules).to_ascii_lowercase())
            .collect::<String>();
        Self {
            now,
            word: fresh("any-other", |word| named.contains(word)),
            policies: policies.to_vec(),
            out: Requests::default(),
        }
    }

    fn push(&mut self, what: String, ask: Ask) {
        if !self.out.classes.iter().any(|class| class.ask == ask) {
            self.out.classes.push(RequestClass { what, ask });
        }
    }

    /// A witness for each rule of one table.
    fn of_table(&mut self, view: &Snapshot, policy: &PortPolicy, port: u16) {
        if policy.server.invalid.is_some() || reads_bytes(policy) {
            return;
        }
        let intricate = policy.routes.iter().any(has_regex);
        for route in &policy.routes {
            for (rule, data) in (0u32..).zip(&route.rules) {
                let title = format!(
                    "{} {}/{} rule {rule}",
                    route.kind, route.namespace, route.name
                );
                let asks = self.candidates(route, rule, &data.matches);
                let takes = |ask: &&Ask| self.taken_by(view, port, ask, route, rule);
                match asks.iter().find(takes).cloned() {
                    Some(ask) => self.push(format!("{title} ({})", ask.text()), ask),
                    None if intricate => self.out.inexact.push(format!(
                        "no request was found that {title} takes; there are regular expressions about"
                    )),
                    None => self.out.shadowed.push(title),
                }
            }
        }
    }

    /// Witnesses of one rule: first those that read well, then those that nothing else can name.
    fn candidates(&self, route: &Route, rule: u32, matches: &[RouteMatch]) -> Vec<Ask> {
        let none = [None];
        let named: Vec<Option<&str>> = route.hostnames.iter().map(|h| Some(h.as_str())).collect();
        let hostnames = if named.is_empty() { &none[..] } else { &named };
        let wanted = matches.iter().flat_map(|one| {
            hostnames.iter().map(move |hostname| Wanted {
                route,
                rule,
                hostname: *hostname,
                one,
            })
        });
        let wanted: Vec<Wanted<'_>> = wanted.collect();
        let plain = wanted.iter().filter_map(|one| self.witness(&[*one], true));
        let fresh = wanted.iter().filter_map(|one| self.witness(&[*one], false));
        plain.chain(fresh).collect()
    }

    fn taken_by(&self, view: &Snapshot, port: u16, ask: &Ask, route: &Route, rule: u32) -> bool {
        // Nobody: the route is chosen before anybody's grants are looked at.
        let client = Client {
            id: None,
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tls: false,
            serial: None,
            expires: None,
        };
        let decision = decide(view, port, &client, &ask.call(), self.now);
        decision.route.as_ref().is_some_and(|taken| {
            taken.rule == rule
                && taken.kind == route.kind
                && taken.namespace == route.namespace
                && taken.name == route.name
        })
    }

    /// What a rule of one table and one of the other both take: there verdicts may differ that differ nowhere else.
    fn of_pairs(&mut self, one: &[Route], other: &[Route]) {
        let (left, right) = (all_wanted(one), all_wanted(other));
        // A rule may have a match more in one table; the witness of the rule as a whole need not be one of that match.
        for one in left.iter().chain(&right) {
            if let Some(ask) = self.witness(&[*one], false) {
                let route = one.route;
                let rule = format!(
                    "{} {}/{} rule {}",
                    route.kind, route.namespace, route.name, one.rule
                );
                self.push(format!("{rule} ({})", ask.text()), ask);
            }
        }
        if left.len().saturating_mul(right.len()) > PAIRS_MAX {
            let message = format!(
                "{} times {} route matches are more pairs than are tried",
                left.len(),
                right.len()
            );
            self.out.inexact.push(message);
            return;
        }
        let mut kinds = one.iter().chain(other).map(|route| &route.kind);
        if kinds
            .next()
            .is_some_and(|first| kinds.any(|kind| kind != first))
        {
            let message = "a table of HTTPRoutes and one of GRPCRoutes are compared by samples";
            self.out.inexact.push(message.to_owned());
        }
        if one.iter().chain(other).any(has_regex) {
            let message =
                "two route tables with regular expressions are compared by samples of these"
                    .to_owned();
            self.out.inexact.push(message);
        }
        for a in &left {
            for b in &right {
                if let Some(ask) = self.witness(&[*a, *b], false) {
                    self.push(
                        format!(
                            "what {}/{} rule {} and {}/{} rule {} take ({})",
                            a.route.namespace,
                            a.route.name,
                            a.rule,
                            b.route.namespace,
                            b.route.name,
                            b.rule,
                            ask.text()
                        ),
                        ask,
                    );
                }
            }
        }
    }

    /// Bytes, the default route, what no route takes, probes, and what opt-outs of path rules let through.
    fn everywhere(&mut self, policies: &[&PortPolicy], literals: Option<&Literals>) {
        let word = self.word.clone();
        let path = format!("/{word}");
        let grpc = policies
            .iter()
            .any(|p| p.server.protocol == ServerProtocol::Grpc);
        let other = if policies.iter().all(|p| p.routes.is_empty()) {
            "any request"
        } else {
            "what no route names"
        };
        if policies.iter().any(|p| !reads_bytes(p)) {
            let host = format!("{word}.invalid");
            let mut ask = Ask::http("GET", &path, Some(&host));
            if policies.iter().all(|p| p.routes.is_empty()) {
                ask = Ask::http("GET", "/", None);
            }
            self.push(format!("{other} ({})", ask.text()), ask);
            if grpc {
                let ask = Ask::grpc(&format!("/{word}.Service/Method"));
                self.push(format!("{other} ({})", ask.text()), ask);
            }
        }
        self.push("bytes".to_owned(), Ask::bytes());
        for probe in policies.iter().flat_map(|policy| &policy.probes) {
            match &probe.kind {
                ProbeKind::Http(path) => {
                    self.push(format!("probe (GET {path})"), Ask::http("GET", path, None));
                }
                ProbeKind::Grpc => {
                    let ask = Ask::grpc("/grpc.health.v1.Health/Check");
                    self.push(format!("probe ({})", ask.text()), ask);
                }
                // A connection that carries nothing asks for nothing.
                ProbeKind::Tcp => {}
            }
        }
        self.opted_out();
        for path in literals.iter().flat_map(|found| &found.paths) {
            for method in literals
                .iter()
                .flat_map(|found| &found.methods)
                .map(String::as_str)
                .chain(["GET"])
            {
                let ask = Ask::http(method, path, None);
                self.push(format!("named in Cedar ({})", ask.text()), ask);
            }
        }
        if literals.is_some() {
            let why = "policies written in Cedar may look at anything of a request; what they name was tried";
            self.out.inexact.push(why.to_owned());
        }
    }

    /// Paths that are refused unless a Server opts out: one below each witness.
    fn opted_out(&mut self) {
        let escapes = self.policies.iter().any(|p| p.paths.keep_escapes);
        let parameters = self.policies.iter().any(|p| p.paths.keep_parameters);
        let kept = [(escapes, "%2Fx"), (parameters, ";x")];
        let asks: Vec<Ask> = self
            .out
            .classes
            .iter()
            .map(|class| class.ask.clone())
            .collect();
        for (_, tail) in kept.iter().filter(|(kept, _)| *kept) {
            for ask in asks.iter().filter(|ask| ask.protocol != AskProtocol::Tcp) {
                let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
                let mark = if query.is_empty() { "" } else { "?" };
                let path = format!("{}/x{tail}{mark}{query}", path.trim_end_matches('/'));
                let ask = Ask {
                    path,
                    ..ask.clone()
                };
                self.push(
                    format!("a path that is kept as it came ({})", ask.text()),
                    ask,
                );
            }
        }
    }

    /// A request that all of `wanted` take; `None` if there is none, or none is found. `plain`: as short as may be.
    fn witness(&self, wanted: &[Wanted<'_>], plain: bool) -> Option<Ask> {
        let grpc = wanted.iter().any(|one| one.route.kind == "GRPCRoute");
        let (first, rest) = wanted.split_first()?;
        let met = rest.iter().try_fold(first.one.path.clone(), |path, one| {
            meet_paths(&path, &one.one.path)
        });
        let mut ask = Ask::http("GET", &self.path(&met?, plain)?, None);
        let mut methods = wanted.iter().filter_map(|one| one.one.method.as_deref());
        if let Some(method) = methods.next() {
            if methods.any(|other| other != method) {
                return None;
            }
            ask.method = method.to_owned();
        } else if grpc {
            ask.method = "POST".to_owned();
        } else if !plain {
            ask.method = self.word.to_ascii_uppercase();
        }
        if grpc {
            ask.protocol = AskProtocol::Grpc;
        }
        ask.host = self.host(wanted, plain)?;
        let mut query: Vec<String> = Vec::new();
        for one in wanted {
            for (name, value) in first_of_each(&one.one.headers) {
                let values = ask.headers.entry(name.to_ascii_lowercase()).or_default();
                let value = value_of(value)?;
                if values.first().is_some_and(|known| *known != value) {
                    return None;
                }
                *values = vec![value];
            }
            for (name, value) in first_of_each(&one.one.query) {
                let pair = format!("{}={}", encoded(name), encoded(&value_of(value)?));
                let key = format!("{}=", encoded(name));
                if query
                    .iter()
                    .any(|known| known.starts_with(&key) && *known != pair)
                {
                    return None;
                }
                if !query.contains(&pair) {
                    query.push(pair);
                }
            }
        }
        if !query.is_empty() {
            ask.path = format!("{}?{}", ask.path, query.join("&"));
        }
        Some(ask)
    }

    fn path(&self, path: &PathMatch, plain: bool) -> Option<String> {
        let word = &self.word;
        match path {
            PathMatch::Exact(text) => Some(text.clone()),
            PathMatch::Regex(pattern) => sample(pattern),
            PathMatch::Prefix(text) if plain && !text.is_empty() => Some(text.clone()),
            PathMatch::Prefix(text) => Some(format!("{}/{word}", text.trim_end_matches('/'))),
            PathMatch::Rpc { service, method } => {
                let part = |part: &Option<TextMatch>| match part {
                    Some(text) => value_of(text),
                    None => Some(word.clone()),
                };
                Some(format!("/{}/{}", part(service)?, part(method)?))
            }
        }
    }

    /// `Some(None)`: without a host. `None`: no host is named by all.
    fn host(&self, wanted: &[Wanted<'_>], plain: bool) -> Option<Option<String>> {
        let mut named: Option<&str> = None;
        for hostname in wanted.iter().filter_map(|one| one.hostname) {
            named = Some(match named {
                None => hostname,
                Some(known) => meet_hosts(known, hostname)?,
            });
        }
        Some(match named.map(|name| (name, name.strip_prefix("*."))) {
            None if plain => None,
            None => Some(format!("{}.invalid", self.word)),
            Some((_, Some(suffix))) => Some(format!("{}.{suffix}", self.word)),
            Some((name, None)) => Some(name.to_owned()),
        })
    }
}

/// Whether requests are read as bytes there, whatever they are.
fn reads_bytes(policy: &PortPolicy) -> bool {
    policy.server.protocol.carries_bytes()
}

fn has_regex(route: &Route) -> bool {
    let text = |value: &ValueMatch| matches!(value.value, TextMatch::Regex(_));
    let part = |part: &Option<TextMatch>| matches!(part, Some(TextMatch::Regex(_)));
    let path = |path: &PathMatch| match path {
        PathMatch::Regex(_) => true,
        PathMatch::Rpc { service, method } => part(service) || part(method),
        PathMatch::Exact(_) | PathMatch::Prefix(_) => false,
    };
    let matches = route.rules.iter().flat_map(|rule| &rule.matches);
    matches
        .into_iter()
        .any(|one| path(&one.path) || one.headers.iter().chain(&one.query).any(text))
}

fn all_wanted(routes: &[Route]) -> Vec<Wanted<'_>> {
    let mut out = Vec::new();
    for route in routes {
        for (rule, data) in (0u32..).zip(&route.rules) {
            for one in &data.matches {
                let wanted = |hostname| Wanted {
                    route,
                    rule,
                    hostname,
                    one,
                };
                if route.hostnames.is_empty() {
                    out.push(wanted(None));
                }
                out.extend(
                    route
                        .hostnames
                        .iter()
                        .map(|name| wanted(Some(name.as_str()))),
                );
            }
        }
    }
    out
}

/// What both paths take; `None`: nothing. Whether a path is taken by an expression is asked of the real one, when the
/// witness is decided.
fn meet_paths(one: &PathMatch, other: &PathMatch) -> Option<PathMatch> {
    let covers = |prefix: &str, path: &str| {
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (one, other) {
        (PathMatch::Exact(a), PathMatch::Exact(b)) => (a == b).then(|| one.clone()),
        (PathMatch::Exact(path), PathMatch::Prefix(prefix)) => {
            covers(prefix, path).then(|| one.clone())
        }
        (PathMatch::Prefix(prefix), PathMatch::Exact(path)) => {
            covers(prefix, path).then(|| other.clone())
        }
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) if covers(a, b) => Some(other.clone()),
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => covers(b, a).then(|| one.clone()),
        (PathMatch::Exact(_), _) => Some(one.clone()),
        (_, PathMatch::Exact(_)) => Some(other.clone()),
        (
            PathMatch::Rpc {
                service: a,
                method: b,
            },
            PathMatch::Rpc {
                service: c,
                method: d,
            },
        ) => Some(PathMatch::Rpc {
            service: meet_parts(a.as_ref(), c.as_ref())?,
            method: meet_parts(b.as_ref(), d.as_ref())?,
        }),
        (PathMatch::Regex(_) | PathMatch::Rpc { .. }, _) => Some(one.clone()),
        (_, PathMatch::Regex(_) | PathMatch::Rpc { .. }) => Some(other.clone()),
    }
}

/// What two parts of a gRPC path both take; outer `None`: nothing.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether anything is left, the inner whether it is named"
)]
fn meet_parts(one: Option<&TextMatch>, other: Option<&TextMatch>) -> Option<Option<TextMatch>> {
    match (one, other) {
        (Some(TextMatch::Exact(a)), Some(TextMatch::Exact(b))) => (a == b).then(|| one.cloned()),
        (Some(TextMatch::Exact(_)), _) | (_, None) => Some(one.cloned()),
        (_, Some(_)) => Some(other.cloned()),
    }
}

/// The narrower of two hostnames, if one is within the other.
fn meet_hosts<'h>(a: &'h str, b: &'h str) -> Option<&'h str> {
    let within = |narrow: &str, wide: &str| {
        let suffix = wide.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        let name = narrow.strip_prefix('*').unwrap_or(narrow);
        narrow == wide
            || suffix.is_some_and(|suffix| name.ends_with(suffix) && name.len() >= suffix.len())
    };
    if within(a, b) {
        Some(a)
    } else {
        within(b, a).then_some(b)
    }
}

/// Of several matches with one name only the first counts.
fn first_of_each(all: &[ValueMatch]) -> impl Iterator<Item = (&str, &TextMatch)> {
    all.iter().enumerate().filter_map(|(at, one)| {
        let before = all.get(..at).unwrap_or_default();
        let known = before
            .iter()
            .any(|b| b.name.eq_ignore_ascii_case(&one.name));
        (!known).then_some((one.name.as_str(), &one.value))
    })
}

fn value_of(value: &TextMatch) -> Option<String> {
    match value {
        TextMatch::Exact(text) => Some(text.clone()),
        TextMatch::Regex(pattern) => sample(pattern),
    }
}

/// A part of a query, so that it reads back as `text`.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
