//! Requests to outside, by all that routes look at together: paths, methods, headers and queries.
//!
//! Paths have a class for each that is named, one below each prefix, and one for all others; where gRPC's services and
//! methods are named, one for each pair of them as well. Methods, headers and queries have one for each value that is
//! named and one for all others, none included. A request of every combination is asked.

use super::sent::{Classes, HostClass, Request, Sent, SentClass};
use crate::classes::encoded;
use crate::classes::sample::sample;
use mesh_policy::canonical;
use mesh_policy::snapshot::{PathMatch, PathOptions, RouteMatch, TextMatch, ValueMatch};
use std::collections::{BTreeMap, BTreeSet};

/// Classes of what is sent to one port of one class of addresses. A class costs some microseconds.
pub(super) const CLASSES_MAX: usize = 20_000;

/// What routes look at, and the values that they tell apart, with `None` for all others.
struct Dimensions {
    /// What is said of the path, and the path.
    paths: Vec<(String, String)>,
    methods: Vec<Option<String>>,
    headers: Vec<(String, Vec<Option<String>>)>,
    queries: Vec<(String, Vec<Option<String>>)>,
    /// Whether only samples of it are known.
    sampled: bool,
}

/// Requests, on their way into the classes of a port.
pub(super) struct Requests<'o> {
    word: &'o str,
    out: &'o mut Classes,
}

impl<'o> Requests<'o> {
    pub(super) fn new(word: &'o str, out: &'o mut Classes) -> Self {
        Self { word, out }
    }

    /// The requests to a host that these matches tell apart.
    pub(super) fn of_host(&mut self, host: &HostClass, matches: &[&RouteMatch]) {
        // The one target that is no path.
        self.push(
            format!("{}: OPTIONS *", title(host)),
            Request {
                method: "OPTIONS".to_owned(),
                path: "*".to_owned(),
                host: host.host.clone(),
                headers: BTreeMap::new(),
            },
        );
        let all = Dimensions::of(matches, self.word);
        if all.sampled {
            self.inexact("routes have regular expressions: one text was tried of each".to_owned());
        }
        let room = CLASSES_MAX.saturating_sub(self.out.classes.len());
        if all.size() <= room {
            return self.product(host, &all);
        }
        self.inexact(format!(
            "routes tell more than {CLASSES_MAX} requests apart: those that each match names, and no combinations of matches, were tried"
        ));
        self.product(host, &Dimensions::of(&[], self.word));
        for one in matches {
            let own = Dimensions::of(&[*one], self.word);
            if own.size() > CLASSES_MAX.saturating_sub(self.out.classes.len()) {
                self.inexact("some matches of routes were not tried at all".to_owned());
                return;
            }
            self.product(host, &own);
        }
    }

    fn inexact(&mut self, why: String) {
        if !self.out.inexact.contains(&why) {
            self.out.inexact.push(why);
        }
    }

    /// A request of every combination.
    fn product(&mut self, host: &HostClass, of: &Dimensions) {
        for (path_text, path) in &of.paths {
            for method in &of.methods {
                for headers in combinations(&of.headers) {
                    for queries in combinations(&of.queries) {
                        let query: Vec<String> = queries
                            .iter()
                            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
                            .collect();
                        let mark = if query.is_empty() { "" } else { "?" };
                        let request = Request {
                            method: match method {
                                Some(method) => method.clone(),
                                None => of.other_method(self.word),
                            },
                            path: format!("{path}{mark}{}", query.join("&")),
                            host: host.host.clone(),
                            headers: values(&headers),
                        };
                        let what = of.text(host, (path_text, method.as_deref()), &headers, &query);
                        self.push(what, request);
                    }
                }
            }
        }
    }

    fn push(&mut self, what: String, request: Request) {
        let sent = Sent::Http(request);
        self.out.classes.push(SentClass { what, sent });
    }
}

fn title(host: &HostClass) -> String {
    match (host.what.as_str(), &host.host) {
        ("", _) => "HTTP".to_owned(),
        (_, None) => "HTTP without a host".to_owned(),
        (what, Some(_)) => format!("HTTP to {what}"),
    }
}

fn values(headers: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let one = |(name, value): &(&str, &str)| ((*name).to_owned(), vec![(*value).to_owned()]);
    headers.iter().map(one).collect()
}

impl Dimensions {
    fn of(matches: &[&RouteMatch], word: &str) -> Self {
        let mut sampled = false;
        let methods: BTreeSet<&str> = matches
            .iter()
            .filter_map(|one| one.method.as_deref())
            .collect();
        let named = methods.into_iter().map(|method| Some(method.to_owned()));
        Self {
            paths: paths(matches, word, &mut sampled),
            methods: named.chain([None]).collect(),
            headers: fields(
                matches.iter().flat_map(|one| &one.headers),
                str::to_ascii_lowercase,
                &mut sampled,
            ),
            queries: fields(
                matches.iter().flat_map(|one| &one.query),
                str::to_owned,
                &mut sampled,
            ),
            sampled,
        }
    }

    /// Requests that it makes.
    fn size(&self) -> usize {
        let fields = self.headers.iter().chain(&self.queries);
        let fields = fields.fold(1usize, |all, (_, values)| all.saturating_mul(values.len()));
        let plain = self.paths.len().saturating_mul(self.methods.len());
        plain.saturating_mul(fields)
    }

    /// A method that is not named.
    fn other_method(&self, word: &str) -> String {
        let familiar = ["GET", "POST", "HEAD", "PUT"].map(str::to_owned);
        let named = |method: &String| self.methods.contains(&Some(method.clone()));
        let other = familiar.into_iter().find(|method| !named(method));
        other.unwrap_or_else(|| word.to_ascii_uppercase())
    }

    fn text(
        &self,
        host: &HostClass,
        (path, method): (&str, Option<&str>),
        headers: &[(&str, &str)],
        query: &[String],
    ) -> String {
        let mut parts = Vec::new();
        if self.methods.len() > 1 {
            parts.push(method.unwrap_or("any other method").to_owned());
        }
        if self.paths.len() > 1 {
            parts.push(path.to_owned());
        }
        parts.extend(
            headers
                .iter()
                .map(|(name, value)| format!("with {name}: {value}")),
        );
        parts.extend(query.iter().map(|pair| format!("with ?{pair}")));
        match parts.is_empty() {
            true => title(host),
            false => format!("{}: {}", title(host), parts.join(" ")),
        }
    }
}

/// Every choice of one value, or none, for each name.
fn combinations(fields: &[(String, Vec<Option<String>>)]) -> Vec<Vec<(&str, &str)>> {
    let mut out = vec![Vec::new()];
    for (name, values) in fields {
        out = out
            .iter()
            .flat_map(|chosen: &Vec<(&str, &str)>| {
                values.iter().map(move |value| {
                    let mut chosen = chosen.clone();
                    chosen.extend(value.as_deref().map(|value| (name.as_str(), value)));
                    chosen
                })
            })
            .collect();
    }
    out
}

/// Values by name. One that no match names, and none at all, satisfy no match and are one class.
fn fields<'m>(
    all: impl Iterator<Item = &'m ValueMatch>,
    name_of: fn(&str) -> String,
    sampled: &mut bool,
) -> Vec<(String, Vec<Option<String>>)> {
    let mut found: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
    for one in all {
        let values = found.entry(name_of(&one.name)).or_default();
        values.insert(None);
        values.extend(text(&one.value, sampled).map(Some));
    }
    let listed = found
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().collect()));
    listed.collect()
}

/// The text that a match names; one of those that its expression takes.
fn text(one: &TextMatch, sampled: &mut bool) -> Option<String> {
    match one {
        TextMatch::Exact(text) => Some(text.clone()),
        TextMatch::Regex(pattern) => {
            *sampled = true;
            sample(pattern)
        }
    }
}

fn paths(matches: &[&RouteMatch], word: &str, sampled: &mut bool) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let (mut services, mut methods) = (BTreeSet::new(), BTreeSet::new());
    let mut rpc = false;
    for one in matches {
        match &one.path {
            PathMatch::Exact(path) => out.push((path.clone(), path.clone())),
            PathMatch::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                if !prefix.is_empty() {
                    out.push((prefix.to_owned(), prefix.to_owned()));
                    out.push((format!("below {prefix}"), format!("{prefix}/{word}")));
                }
            }
            PathMatch::Regex(pattern) => {
                *sampled = true;
                out.extend(sample(pattern).map(|path| (format!("like {path}"), path)));
            }
            PathMatch::Rpc { service, method } => {
                rpc = true;
                services.extend(service.as_ref().and_then(|part| text(part, sampled)));
                methods.extend(method.as_ref().and_then(|part| text(part, sampled)));
            }
        }
    }
    if rpc {
        out.extend(rpc_paths(&out, (services, methods), word));
    }
    out.push(("any other path".to_owned(), format!("/{word}")));
    let mut known = BTreeSet::new();
    out.retain(|(_, path)| is_canonical(path) && known.insert(path.clone()));
    out
}

/// Paths of every service and method that is named, first segments of other paths included, and below these some that
/// have more segments and so are no method.
fn rpc_paths(
    named: &[(String, String)],
    (mut services, mut methods): (BTreeSet<String>, BTreeSet<String>),
    word: &str,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (_, path) in named {
        services.extend(path.split('/').nth(1).map(str::to_owned));
        out.push((format!("far below {path}"), format!("{path}/{word}/{word}")));
    }
    services.insert(word.to_owned());
    methods.insert(word.to_owned());
    for service in &services {
        let paths = methods.iter().map(|method| format!("/{service}/{method}"));
        out.extend(paths.map(|path| (path.clone(), path)));
    }
    out
}

/// Whether a path can be asked for as it is; what cannot, no request is matched with.
fn is_canonical(path: &str) -> bool {
    let read = canonical::path(path, "GET", PathOptions::default());
    read.is_ok_and(|read| read.as_str() == path && read.query().is_none())
}
