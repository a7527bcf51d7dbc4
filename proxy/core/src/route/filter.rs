//! What routes change of requests and answers: headers, host, path; and redirects in place of an answer.
//!
//! Everything is checked when it is compiled, so that a request costs no parsing. No filter touches what only proxies
//! write, nor what frames a message: whoever writes routes is not whoever vouches for identities.

use crate::http_hygiene::{Admitted, RequestRefusal, set_host, set_path};
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};
use mesh_policy::canonical;
use mesh_policy::fields::may_change;
use mesh_policy::snapshot::{PathMatch, PathOptions, RouteMatch};
use mesh_policy::traffic::{HeaderChange, PathChange, TrafficFilter};
use std::borrow::Cow;

/// How the client's side reads a path: what a Server may be told to keep passes here, and is judged there.
const KEEP: PathOptions = PathOptions {
    keep_escapes: true,
    keep_parameters: true,
};

/// Brings the path of an admitted request into its canonical form: what routes are matched against, and what goes on.
///
/// # Errors
/// [`RequestRefusal::Target`] if it can be read in two ways.
pub fn canonical_path(parts: &mut Parts) -> Result<(), RequestRefusal> {
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let path =
        canonical::path(target, parts.method.as_str(), KEEP).map_err(|_| RequestRefusal::Target)?;
    if !path.is_rewritten() {
        return Ok(());
    }
    let path = path.into_path().into_owned();
    set_path(parts, &path)
}

/// Why a filter cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterFault {
    /// A name that only proxies may write, or one that frames messages.
    #[error("a filter may not change the header `{name}`")]
    Name {
        /// The name.
        name: String,
    },
    /// Neither a header name nor a header value.
    #[error("`{text}` cannot stand in a header")]
    Header {
        /// What it is.
        text: String,
    },
    /// A host that is none.
    #[error("`{host}` is no host name")]
    Host {
        /// What it is.
        host: String,
    },
    /// A path that is none, or can be read in two ways.
    #[error("`{path}` is no path: {why}")]
    Path {
        /// What it is.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A prefix is to be replaced, and the rule does not match by prefix alone.
    #[error("a prefix is to be replaced, and not every match of the rule is one of a prefix")]
    NoPrefix,
    /// A redirect to neither `http` nor `https`.
    #[error("`{scheme}` is no scheme to redirect to")]
    Scheme {
        /// What it is.
        scheme: String,
    },
    /// A redirect with a status that is none.
    #[error("{status} is no status of a redirect")]
    Status {
        /// What it is.
        status: u16,
    },
}

/// Filters of a rule or of a backend, compiled. Mirrors are not among them.
#[derive(Debug, Default)]
pub struct Filters {
    requests: Vec<Step>,
    answers: Vec<Changes>,
}

/// A redirect to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to.
    pub location: HeaderValue,
}

#[derive(Debug)]
enum Step {
    Headers(Changes),
    Redirect(Redirect),
    Rewrite {
        host: Option<String>,
        path: Option<NewPath>,
    },
}

#[derive(Debug)]
struct Redirect {
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<NewPath>,
    status: StatusCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Changes of headers, checked.
#[derive(Debug, Default)]
pub struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

#[derive(Debug)]
enum NewPath {
    Full(String),
    /// In place of the longest of `prefixes` that covers the path; none of them ends in a slash.
    Prefix {
        prefixes: Vec<String>,
        with: String,
    },
}

impl Filters {
    /// Checks and compiles `filters`; `matches` are those of the rule, for prefixes that are replaced.
    ///
    /// # Errors
    /// [`FilterFault`] naming the first that cannot be applied.
    pub fn compile(filters: &[TrafficFilter], matches: &[RouteMatch]) -> Result<Self, FilterFault> {
        let mut all = Self::default();
        for filter in filters {
            match filter {
                TrafficFilter::RequestHeaders(change) => {
                    all.requests.push(Step::Headers(Changes::compile(change)?));
                }
                TrafficFilter::ResponseHeaders(change) => {
                    all.answers.push(Changes::compile(change)?);
                }
                TrafficFilter::Redirect {
                    scheme,
                    hostname,
                    port,
                    path,
                    status,
                } => all.requests.push(Step::Redirect(Redirect {
                    scheme: scheme.as_deref().map(Scheme::read).transpose()?,
                    host: hostname.as_deref().map(host_name).transpose()?,
                    port: *port,
                    path: NewPath::compile(path.as_ref(), matches)?,
                    status: redirect_status(*status)?,
                })),
                TrafficFilter::Rewrite { hostname, path } => all.requests.push(Step::Rewrite {
                    host: hostname.as_deref().map(host_name).transpose()?,
                    path: NewPath::compile(path.as_ref(), matches)?,
                }),
                TrafficFilter::Mirror { .. } => {}
            }
        }
        Ok(all)
    }

    /// Changes a request whose path is canonical; says where to redirect it, if so. `port` is that of the Service.
    ///
    /// # Errors
    /// [`RequestRefusal`] if what comes out is no request.
    pub fn apply(
        &self,
        parts: &mut Parts,
        admitted: &mut Admitted,
        port: u16,
    ) -> Result<Option<Redirection>, RequestRefusal> {
        for step in &self.requests {
            match step {
                Step::Headers(changes) => changes.apply(&mut parts.headers),
                Step::Redirect(redirect) => return redirect.to(parts, admitted, port).map(Some),
                Step::Rewrite { host, path } => {
                    if let Some(host) = host {
                        set_host(admitted, host)?;
                    }
                    if let Some(path) = path {
                        let new = path.of(parts.uri.path()).into_owned();
                        set_path(parts, &new)?;
                        canonical_path(parts)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Changes the head of an answer.
    pub fn apply_to_answer(&self, headers: &mut HeaderMap) {
        self.answers
            .iter()
            .for_each(|changes| changes.apply(headers));
    }
}

impl Changes {
    /// Checks the names and values of a change.
    ///
    /// # Errors
    /// [`FilterFault::Name`] or [`FilterFault::Header`] for the first that may not be.
    pub fn compile(change: &HeaderChange) -> Result<Self, FilterFault> {
        let name = |name: &String| {
            let read = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| FilterFault::Header { text: name.clone() })?;
            if may_change(read.as_str()) {
                Ok(read)
            } else {
                Err(FilterFault::Name { name: name.clone() })
            }
        };
        let field = |(text, value): &(String, String)| {
            let read = HeaderValue::from_str(value.trim()).map_err(|_| FilterFault::Header {
                text: value.clone(),
            })?;
            Ok((name(text)?, read))
        };
        Ok(Self {
            set: change.set.iter().map(field).collect::<Result<_, _>>()?,
            add: change.add.iter().map(field).collect::<Result<_, _>>()?,
            remove: change.remove.iter().map(name).collect::<Result<_, _>>()?,
        })
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            add(headers, name, value);
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// Adds to what is there, in one field, as Gateway API shows it: `foo, bar` in place of two fields. Cookies cannot be
/// joined so.
fn add(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    let alone = name == SET_COOKIE || name == COOKIE;
    let joined = (!alone).then(|| {
        let mut all = Vec::new();
        for one in headers.get_all(name) {
            all.extend_from_slice(one.as_bytes());
            all.push(b',');
        }
        all.extend_from_slice(value.as_bytes());
        HeaderValue::from_maybe_shared(bytes::Bytes::from(all))
    });
    match joined {
        Some(Ok(joined)) => drop(headers.insert(name, joined)),
        _ => drop(headers.append(name, value.clone())),
    }
}

impl Scheme {
    fn read(text: &str) -> Result<Self, FilterFault> {
        match text {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(FilterFault::Scheme {
                scheme: text.to_owned(),
            }),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

fn redirect_status(status: u16) -> Result<StatusCode, FilterFault> {
    let known = matches!(status, 301 | 302 | 303 | 307 | 308);
    let read = StatusCode::from_u16(status).ok().filter(|_| known);
    read.ok_or(FilterFault::Status { status })
}

/// A host without port.
fn host_name(text: &str) -> Result<String, FilterFault> {
    let fault = || FilterFault::Host {
        host: text.to_owned(),
    };
    let read: Authority = text.parse().map_err(|_| fault())?;
    let host = canonical::host(read.as_str()).map_err(|_| fault())?;
    if read.host() != text || read.port().is_some() {
        return Err(fault());
    }
    Ok(host.name().to_owned())
}

impl Redirect {
    /// What is not named stays as it came. A port follows the scheme, if one is named.
    fn to(
        &self,
        parts: &Parts,
        admitted: &Admitted,
        service_port: u16,
    ) -> Result<Redirection, RequestRefusal> {
        let called = admitted.authority.as_ref();
        let host = self.host.as_deref().or(called.map(Authority::host));
        let host = host.ok_or(RequestRefusal::HostMissing)?;
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(scheme)) => scheme.port(),
            (None, None) => called.and_then(Authority::port_u16).unwrap_or(service_port),
        };
        let port = if port == scheme.port() {
            String::new()
        } else {
            format!(":{port}")
        };
        let old = parts.uri.path();
        let path = self
            .path
            .as_ref()
            .map_or(Cow::Borrowed(old), |path| path.of(old));
        let query = parts.uri.query();
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let location = format!("{}://{host}{port}{path}{query}", scheme.as_str());
        Ok(Redirection {
            status: self.status,
            location: HeaderValue::from_str(&location).map_err(|_| RequestRefusal::Target)?,
        })
    }
}

impl NewPath {
    fn compile(
        change: Option<&PathChange>,
        matches: &[RouteMatch],
    ) -> Result<Option<Self>, FilterFault> {
        Ok(match change {
            None => None,
            Some(PathChange::Full(path)) => Some(Self::Full(checked_path(path)?)),
            Some(PathChange::Prefix(path)) => {
                let prefixes = matches.iter().map(|one| match &one.path {
                    PathMatch::Prefix(prefix) => Ok(prefix.trim_end_matches('/').to_owned()),
                    _ => Err(FilterFault::NoPrefix),
                });
                let with = match path.trim_end_matches('/') {
                    "" => String::new(),
                    path => checked_path(path)?,
                };
                Some(Self::Prefix {
                    prefixes: prefixes.collect::<Result<_, _>>()?,
                    with,
                })
            }
        })
    }

    /// What `old` becomes.
    fn of<'a>(&'a self, old: &str) -> Cow<'a, str> {
        match self {
            Self::Full(path) => Cow::Borrowed(path),
            Self::Prefix { prefixes, with } => {
                let rests = prefixes.iter().filter_map(|prefix| {
                    let rest = old.strip_prefix(prefix.as_str())?;
                    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
                });
                // The longest prefix leaves the shortest rest; the rule took the request, so there is one.
                let rest = rests.min_by_key(|rest| rest.len()).unwrap_or(old);
                match (with.as_str(), rest) {
                    ("", "") => Cow::Borrowed("/"),
                    (with, rest) => Cow::Owned(format!("{with}{rest}")),
                }
            }
        }
    }
}

/// A path that requests may get: canonical, or brought into that form here.
fn checked_path(text: &str) -> Result<String, FilterFault> {
    let fault = |why: String| FilterFault::Path {
        path: text.to_owned(),
        why,
    };
    if text.contains('?') {
        return Err(fault("a `?` would begin a query".to_owned()));
    }
    let path = canonical::path(text, Method::GET.as_str(), KEEP);
    let path = path.map_err(|refusal| fault(refusal.to_string()))?;
    Ok(path.into_path().into_owned())
}

#[cfg(test)]
mod tests;
