//! Forms of single things in manifests: kinds, selectors, matches, and names after them.

use super::super::routes::{Place, Region};
use super::super::scope::{Class, name_part};
use crate::import::yaml::Yaml;

/// Order of kinds in a file: what is protected before who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Server,
    HttpRoute,
    GrpcRoute,
    MeshTls,
    Network,
    AuthorizationPolicy,
    CedarPolicy,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::MeshTls => "MeshTLSAuthentication",
            Self::Network => "NetworkAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::CedarPolicy => "CedarPolicy",
        }
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::Server => "policy.linkerd.io/v1beta3",
            Self::HttpRoute | Self::GrpcRoute => "gateway.networking.k8s.io/v1",
            Self::MeshTls | Self::Network | Self::AuthorizationPolicy => {
                "policy.linkerd.io/v1alpha1"
            }
            Self::CedarPolicy => "mesh.internal/v1alpha1",
        }
    }
}

pub(super) fn selector(class: &Class) -> Yaml {
    let mut fields = Vec::new();
    if !class.labels.is_empty() {
        let labels = class.labels.iter().map(|(k, v)| (k.clone(), v.clone()));
        fields.push(("matchLabels", Yaml::Labels(labels.collect())));
    }
    if !class.excluded.is_empty() {
        let expressions = class.excluded.iter().map(|(key, values)| {
            Yaml::Map(vec![
                ("key", Yaml::text(key)),
                ("operator", Yaml::text("NotIn")),
                (
                    "values",
                    Yaml::List(values.iter().map(Yaml::text).collect()),
                ),
            ])
        });
        fields.push(("matchExpressions", Yaml::List(expressions.collect())));
    }
    Yaml::Map(fields)
}

pub(super) fn http_match(region: &Region) -> Yaml {
    let (kind, value) = match &region.place {
        Place::Prefix(prefix) if prefix.is_empty() => ("PathPrefix", "/"),
        Place::Prefix(prefix) => ("PathPrefix", prefix.as_str()),
        Place::Exact(path) => ("Exact", path.as_str()),
    };
    let path = Yaml::Map(vec![
        ("type", Yaml::text(kind)),
        ("value", Yaml::text(value)),
    ]);
    let mut fields = vec![("path", path)];
    if let Some(method) = &region.method {
        fields.push(("method", Yaml::text(method)));
    }
    Yaml::Map(fields)
}

/// `None` for every method of every service: a rule without matches.
pub(super) fn grpc_match(region: &Region) -> Option<Yaml> {
    let Place::Exact(path) = &region.place else {
        return None;
    };
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let method = Yaml::Map(vec![
        ("service", Yaml::text(service)),
        ("method", Yaml::text(method)),
    ]);
    Some(Yaml::Map(vec![("method", method)]))
}

pub(super) fn slug(region: &Region) -> String {
    let (path, below) = match &region.place {
        Place::Prefix(prefix) => (prefix.as_str(), true),
        Place::Exact(path) => (path.as_str(), false),
    };
    let path = match (path, below) {
        ("", _) => "all".to_owned(),
        ("/", false) => "root".to_owned(),
        (path, true) => format!("below-{}", name_part(path)),
        (path, false) => name_part(path),
    };
    match &region.method {
        Some(method) => format!("{}-{path}", method.to_ascii_lowercase()),
        None => path,
    }
}
