//! Which route takes a request: best hostname, then Gateway API precedence.
//!
//! Order among the matches that hold (settled): exact hostname, longest wildcard, no hostname; exact path, longest
//! prefix, regular expression (of gRPC: the service, then the method, each exact, regular expression, not named); a method; more headers; more query parameters; then the order of the list (older, then
//! name) and of the rules. Only the canonical path is matched, never its query.
//!
//! A route that cannot be read in full takes requests all the same, and they are denied: a mistake in a narrow route
//! must not hand its requests to a wider one.

use crate::canonical::{self, CanonicalHost};
use crate::limits::{REGEX_BYTES_MAX, REGEX_COMPILED_BYTES_MAX};
use crate::request::Headers;
use crate::snapshot::{Filter, PathMatch, Route, RouteMatch, Source, TextMatch, ValueMatch};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

/// What route matching looks at; everything canonical.
#[derive(Clone, Copy)]
pub struct RouteRequest<'a> {
    /// Method.
    pub method: &'a str,
    /// Canonical path.
    pub path: &'a str,
    /// Query, as it came.
    pub query: Option<&'a str>,
    /// Canonical host.
    pub host: Option<&'a CanonicalHost<'a>>,
    /// Headers.
    pub headers: &'a dyn Headers,
}

/// The route rule that took a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// `HTTPRoute`, `GRPCRoute`, or `default`.
    pub kind: String,
    /// Namespace; empty for a built-in route.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Index of the rule.
    pub rule: u32,
    /// What the inbound side does to the request.
    pub filters: Vec<Filter>,
    /// Where the route is declared.
    pub source: Source,
}

impl RouteTaken {
    /// A built-in route: `default` where no route is attached, `probe` for probes.
    pub(crate) fn built_in(name: &str) -> Self {
        Self {
            kind: "default".to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
            rule: 0,
            filters: Vec::new(),
            source: Source::BuiltIn(format!("{name} route")),
        }
    }
}

/// The compiled routes of one port.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<CompiledRoute>,
    look_at_headers: bool,
}

/// One route object, compiled.
#[derive(Debug)]
pub struct CompiledRoute {
    hostnames: Vec<Hostname>,
    rules: Vec<CompiledRule>,
    /// Why its requests are denied, if they are.
    pub invalid: Option<Arc<str>>,
}

#[derive(Debug)]
struct CompiledRule {
    taken: Arc<RouteTaken>,
    matches: Vec<CompiledMatch>,
}

/// The rule that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'t> {
    /// Index of the route in [`crate::snapshot::PortPolicy::routes`].
    pub route: u32,
    /// The rule.
    pub taken: &'t Arc<RouteTaken>,
    /// Why its requests are denied, if they are.
    pub invalid: Option<&'t Arc<str>>,
    rank: Rank,
}

/// Which rule took a request, and how well it matched.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Index of the route in [`crate::snapshot::PortPolicy::routes`].
    pub route: u32,
    /// The rule.
    pub taken: Arc<RouteTaken>,
    /// Why its requests are denied, if they are.
    pub invalid: Option<Arc<str>>,
    rank: Rank,
}

impl Candidate {
    /// How this candidate compares with `winner`, for explain: the first criterion on which it is worse.
    pub fn why_behind(&self, winner: &Self) -> &'static str {
        let (mine, theirs) = (&self.rank, &winner.rank);
        match () {
            () if mine.host != theirs.host => "less specific hostname",
            () if mine.path.kinds() != theirs.path.kinds() => "weaker kind of path match",
            () if mine.path != theirs.path => "shorter path",
            () if mine.method != theirs.method => "no method match",
            () if mine.headers != theirs.headers => "fewer header matches",
            () if mine.query != theirs.query => "fewer query matches",
            () if self.route == winner.route => "later rule of the same route",
            () => "younger, or later by name",
        }
    }
}

/// Greater is better; ties go to the earlier route, then the earlier rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    host: (u8, usize),
    path: PathRank,
    method: bool,
    headers: usize,
    query: usize,
}

/// Kind of match, then bytes that were named: of the path, or of gRPC's service and then its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PathRank([(u8, usize); 2]);

impl PathRank {
    fn path(kind: u8, bytes: usize) -> Self {
        Self([(kind, bytes), (0, 0)])
    }

    fn kinds(self) -> [u8; 2] {
        self.0.map(|(kind, _)| kind)
    }
}

#[derive(Debug)]
enum Hostname {
    Exact(String),
    /// `.example.com` of `*.example.com`.
    Suffix(String),
    /// Unreadable: matches nothing.
    Never,
}

#[derive(Debug)]
struct CompiledMatch {
    path: CompiledPath,
    method: Option<String>,
    headers: Vec<(String, CompiledText)>,
    query: Vec<(String, CompiledText)>,
}

#[derive(Debug)]
enum CompiledPath {
    Exact(String),
    /// Without trailing slash; empty for `/`.
    Prefix(String),
    Regex(regex::Regex),
    /// gRPC's service and method.
    Rpc([Option<CompiledText>; 2]),
}

#[derive(Debug)]
enum CompiledText {
    Exact(String),
    Regex(regex::bytes::Regex),
}

/// Why a regular expression is not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum RegexRefusal {
    /// Text over [`REGEX_BYTES_MAX`].
    #[error("a regular expression has {bytes} bytes; the limit is {REGEX_BYTES_MAX}")]
    #[diagnostic(
        code("MESH-0312"),
        help("use a prefix or an exact match, or split the rule")
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Syntax error, or larger than [`REGEX_COMPILED_BYTES_MAX`] once compiled.
    #[error("the regular expression `{pattern}` cannot be compiled: {why}")]
    #[diagnostic(
        code("MESH-0312"),
        help("check it against https://docs.rs/regex; it must stay small once compiled")
    )]
    Invalid {
        /// The expression.
        pattern: String,
        /// What the compiler says.
        why: String,
    },
}

/// Whether a route's regular expression would be compiled; the index asks before it accepts a route.
///
/// # Errors
/// [`RegexRefusal`] if it would not.
pub fn check_regex(pattern: &str) -> Result<(), RegexRefusal> {
    path_regex(pattern).map(drop)?;
    value_regex(pattern).map(drop)
}

/// `pattern` over the whole text: a part that matches is no match.
fn anchored(pattern: &str) -> Result<String, RegexRefusal> {
    if pattern.len() > REGEX_BYTES_MAX {
        return Err(RegexRefusal::TooLong {
            bytes: pattern.len(),
        });
    }
    // Parsed alone first: `a)|(b` would break out of the group below and lose its anchors.
    regex_syntax_check(pattern)?;
    Ok(format!(r"\A(?:{pattern})\z"))
}

fn regex_syntax_check(pattern: &str) -> Result<(), RegexRefusal> {
    build(
        regex::RegexBuilder::new(pattern)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .build(),
        pattern,
    )
    .map(drop)
}

fn path_regex(pattern: &str) -> Result<regex::Regex, RegexRefusal> {
    let text = anchored(pattern)?;
    build(
        regex::RegexBuilder::new(&text)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .build(),
        pattern,
    )
}

fn value_regex(pattern: &str) -> Result<regex::bytes::Regex, RegexRefusal> {
    let text = anchored(pattern)?;
    build(
        regex::bytes::RegexBuilder::new(&text)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .build(),
        pattern,
    )
}

fn build<T>(built: Result<T, regex::Error>, pattern: &str) -> Result<T, RegexRefusal> {
    built.map_err(|error| RegexRefusal::Invalid {
        pattern: pattern.to_owned(),
        why: last_line(&error.to_string()),
    })
}

/// Syntax errors are drawn over several lines; the last one says what is wrong.
fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// A part of a route that could not be compiled.
#[derive(Clone, Debug)]
pub struct RouteProblem {
    /// Index of the route.
    pub route: u32,
    /// What is wrong.
    pub why: String,
}

impl RouteTable {
    /// Compiles the routes of one port, in the order that breaks ties, with what could not be read of them.
    pub fn compile(routes: &[Route]) -> (Self, Vec<RouteProblem>) {
        let mut problems = Vec::new();
        let compiled = (0u32..).zip(routes).map(|(index, route)| {
            let mut why = Vec::new();
            let mut compiled = CompiledRoute::compile(route, &mut why);
            if let (None, Some(first)) = (&compiled.invalid, why.first()) {
                compiled.invalid = Some(Arc::from(first.as_str()));
            }
            problems.extend(
                why.into_iter()
                    .map(|why| RouteProblem { route: index, why }),
            );
            compiled
        });
        (
            Self {
                routes: compiled.collect(),
                look_at_headers: routes
                    .iter()
                    .flat_map(|route| &route.rules)
                    .flat_map(|rule| &rule.matches)
                    .any(|one| !one.headers.is_empty()),
            },
            problems,
        )
    }

    /// Whether no route is attached: then every request takes the default route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether some match depends on headers: then the same target may take another route the next time.
    pub fn look_at_headers(&self) -> bool {
        self.look_at_headers
    }

    /// The rule that takes `request`, if any does.
    pub fn choose(&self, request: &RouteRequest<'_>) -> Option<Chosen<'_>> {
        let mut best: Option<Chosen<'_>> = None;
        for candidate in self.taking(request) {
            if best.is_none_or(|best| candidate.rank > best.rank) {
                best = Some(candidate);
            }
        }
        best
    }

    /// Every rule that would take `request`, best first: the winner, then the runners-up.
    pub fn candidates(&self, request: &RouteRequest<'_>) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = self
            .taking(request)
            .map(|chosen| Candidate {
                route: chosen.route,
                taken: Arc::clone(chosen.taken),
                invalid: chosen.invalid.cloned(),
                rank: chosen.rank,
            })
            .collect();
        all.sort_by_key(|candidate| Reverse(candidate.rank)); // stable: ties stay in order of routes and rules
        all
    }

    /// Every rule that would take `request`, in the order of routes and rules.
    fn taking<'t, 'r>(
        &'t self,
        request: &RouteRequest<'r>,
    ) -> impl Iterator<Item = Chosen<'t>> + use<'t, 'r> {
        let request = *request;
        let hosted = (0u32..)
            .zip(&self.routes)
            .filter_map(move |(index, route)| Some((index, route, route.host_rank(request.host)?)));
        hosted.flat_map(move |(index, route, host)| {
            route.rules.iter().filter_map(move |rule| {
                let ranks = rule.matches.iter();
                let rank = ranks.filter_map(|one| one.rank(&request, host)).max()?;
                Some(Chosen {
                    route: index,
                    taken: &rule.taken,
                    invalid: route.invalid.as_ref(),
                    rank,
                })
            })
        })
    }
}

impl CompiledRoute {
    fn compile(route: &Route, why: &mut Vec<String>) -> Self {
        let hostnames = route
            .hostnames
            .iter()
            .map(|text| Hostname::compile(text, why))
            .collect();
        let rules = (0u32..).zip(&route.rules).map(|(rule, data)| CompiledRule {
            taken: Arc::new(RouteTaken {
                kind: route.kind.clone(),
                namespace: route.namespace.clone(),
                name: route.name.clone(),
                rule,
                filters: data.filters.clone(),
                source: route.source.clone(),
            }),
            matches: data
                .matches
                .iter()
                .filter_map(|one| CompiledMatch::compile(one, why))
                .collect(),
        });
        let rules = rules.collect();
        Self {
            hostnames,
            rules,
            invalid: route.invalid.as_deref().map(Arc::from),
        }
    }

    /// How specifically a hostname of this route names `host`; `None` if none does.
    fn host_rank(&self, host: Option<&CanonicalHost<'_>>) -> Option<(u8, usize)> {
        if self.hostnames.is_empty() {
            return Some((0, 0));
        }
        let name = host?.name();
        self.hostnames
            .iter()
            .filter_map(|hostname| hostname.rank(name))
            .max()
    }
}

impl Hostname {
    fn compile(text: &str, why: &mut Vec<String>) -> Self {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match canonical::dns_name(name) {
            Ok(name) if wildcard => Self::Suffix(format!(".{name}")),
            Ok(name) => Self::Exact(name.into_owned()),
            Err(refusal) => {
                why.push(format!("hostname `{text}`: {refusal}"));
                Self::Never
            }
        }
    }

    fn rank(&self, host: &str) -> Option<(u8, usize)> {
        match self {
            Self::Exact(name) => (name == host).then_some((2, name.len())),
            Self::Suffix(suffix) => {
                (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, suffix.len()))
            }
            Self::Never => None,
        }
    }
}

impl CompiledMatch {
    /// `None`, and the reason in `why`, if some part cannot be read: the match takes nothing then.
    fn compile(one: &RouteMatch, why: &mut Vec<String>) -> Option<Self> {
        let compiled = Self::try_compile(one);
        compiled
            .map_err(|refusal| why.push(refusal.to_string()))
            .ok()
    }

    fn try_compile(one: &RouteMatch) -> Result<Self, RegexRefusal> {
        let part = |text: &Option<TextMatch>| text.as_ref().map(CompiledText::compile).transpose();
        let path = match &one.path {
            PathMatch::Exact(text) => CompiledPath::Exact(text.clone()),
            PathMatch::Prefix(text) => CompiledPath::Prefix(text.trim_end_matches('/').to_owned()),
            PathMatch::Regex(pattern) => CompiledPath::Regex(path_regex(pattern)?),
            PathMatch::Rpc { service, method } => {
                CompiledPath::Rpc([part(service)?, part(method)?])
            }
        };
        let headers = values(&one.headers, str::to_ascii_lowercase)?;
        let query = values(&one.query, str::to_owned)?;
        Ok(Self {
            path,
            method: one.method.clone(),
            headers,
            query,
        })
    }

    fn rank(&self, request: &RouteRequest<'_>, host: (u8, usize)) -> Option<Rank> {
        let path = self.path.rank(request.path)?;
        if self
            .method
            .as_ref()
            .is_some_and(|method| method != request.method)
        {
            return None;
        }
        let headers =
            |(name, value): &(String, CompiledText)| header_holds(request.headers, name, value);
        let query =
            |(name, value): &(String, CompiledText)| query_holds(request.query, name, value);
        if !self.headers.iter().all(headers) || !self.query.iter().all(query) {
            return None;
        }
        let (headers, query) = (self.headers.len(), self.query.len());
        Some(Rank {
            host,
            path,
            method: self.method.is_some(),
            headers,
            query,
        })
    }
}

/// Compiles value matches; of several with one name only the first counts, as Gateway API has it.
fn values(
    all: &[ValueMatch],
    name_of: fn(&str) -> String,
) -> Result<Vec<(String, CompiledText)>, RegexRefusal> {
    let mut compiled: Vec<(String, CompiledText)> = Vec::with_capacity(all.len());
    for one in all {
        let name = name_of(&one.name);
        if compiled.iter().any(|(known, _)| *known == name) {
            continue;
        }
        compiled.push((name, CompiledText::compile(&one.value)?));
    }
    Ok(compiled)
}

impl CompiledPath {
    fn rank(&self, path: &str) -> Option<PathRank> {
        match self {
            Self::Exact(text) => (text == path).then(|| PathRank::path(3, text.len())),
            Self::Prefix(prefix) => covers(prefix, path).then(|| PathRank::path(2, prefix.len())),
            Self::Regex(regex) => regex.is_match(path).then(|| PathRank::path(1, 0)),
            Self::Rpc([service, method]) => {
                let (its_service, its_method) = canonical::grpc_method(path)?;
                Some(PathRank([
                    rpc_rank(service.as_ref(), its_service)?,
                    rpc_rank(method.as_ref(), its_method)?,
                ]))
            }
        }
    }
}

/// How closely a part of a gRPC match names `text`; `None` if it does not. What is not named is the weakest.
fn rpc_rank(part: Option<&CompiledText>, text: &str) -> Option<(u8, usize)> {
    let Some(part) = part else {
        return Some((0, 0));
    };
    part.holds(text.as_bytes()).then_some(match part {
        CompiledText::Exact(_) => (2, text.len()),
        CompiledText::Regex(_) => (1, 0),
    })
}

/// Whether `prefix` (without trailing slash) covers whole segments of `path` from its start: `/adm` is no prefix of `/admin`.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl CompiledText {
    fn compile(text: &TextMatch) -> Result<Self, RegexRefusal> {
        Ok(match text {
            TextMatch::Exact(text) => Self::Exact(text.clone()),
            TextMatch::Regex(pattern) => Self::Regex(value_regex(pattern)?),
        })
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Every value must match, and there must be one; values are never joined.
fn header_holds(headers: &dyn Headers, name: &str, text: &CompiledText) -> bool {
    let (mut any, mut all) = (false, true);
    headers.for_each_value(name, &mut |value| {
        any = true;
        all &= text.holds(value);
    });
    any && all
}

/// As for headers, over the decoded values of one query parameter.
fn query_holds(query: Option<&str>, name: &str, text: &CompiledText) -> bool {
    let (mut any, mut all) = (false, true);
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !pair.is_empty() && *form_decode(key) == *name.as_bytes() {
            any = true;
            all &= text.holds(&form_decode(value));
        }
    }
    any && all
}

/// Decodes one part of a query: `+` is a space, `%hh` a byte; a malformed escape stays as it is.
fn form_decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| {
            bytes
                .get(at + offset)
                .and_then(|&byte| char::from(byte).to_digit(16))
        };
        let decoded = match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        match (byte, decoded) {
            (_, Some(decoded)) => out.push(decoded),
            (b'+', None) => out.push(b' '),
            (_, None) => out.push(byte),
        }
        at += if decoded.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
