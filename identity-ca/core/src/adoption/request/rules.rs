//! What a `MeshIssuer` or `MeshClusterIssuer` says of who may use it.
//!
//! Without a word, every service account gets its own identity, in its own namespace. A mapping gives the identity of one
//! service account to somebody who is not it: cert-manager itself for instance, which asks on behalf of Certificates. A
//! mapping reaches no further than the namespace in which the request stands; in a `MeshIssuer` that is its own.

use serde::Deserialize;
use serde_json::Value;

/// Mappings of one issuer. Each request is held against all of them.
pub const MAPPINGS_MAX: usize = 64;

/// Why an issuer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum IssuerError {
    /// Unknown fields, values of another type.
    #[error("its `spec` cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0287"),
        help("`kubectl explain meshissuer.spec` and `meshclusterissuer.spec` show all fields")
    )]
    Unreadable {
        /// In the reader's words.
        why: String,
    },
}

/// The rules of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerRules {
    /// Where it may be used; none: everywhere.
    namespaces: Option<Vec<String>>,
    mappings: Vec<Mapping>,
}

/// Whose identity somebody gets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    user: String,
    namespace: String,
    certificate: Option<String>,
    service_account: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpecFile {
    namespaces: Option<Vec<String>>,
    #[serde(default)]
    mappings: Vec<MappingFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MappingFile {
    user: String,
    namespace: Option<String>,
    certificate: Option<String>,
    service_account: String,
}

impl IssuerRules {
    /// Reads `spec` of an issuer: of a `MeshIssuer` in `namespace`, or of a `MeshClusterIssuer`.
    ///
    /// # Errors
    /// [`IssuerError`]: half of what an administrator wrote is not what was meant.
    pub fn read(spec: Option<&Value>, namespace: Option<&str>) -> Result<Self, IssuerError> {
        let unreadable = |why: String| IssuerError::Unreadable { why };
        let Some(spec) = spec else {
            return Err(unreadable("there is none".to_owned()));
        };
        let file = SpecFile::deserialize(spec).map_err(|error| unreadable(error.to_string()))?;
        if file.mappings.len() > MAPPINGS_MAX {
            return Err(unreadable(format!("more than {MAPPINGS_MAX} mappings")));
        }
        if namespace.is_some() && file.namespaces.is_some() {
            return Err(unreadable("a MeshIssuer is for its own namespace".into()));
        }
        let mut mappings = Vec::with_capacity(file.mappings.len());
        for mapping in file.mappings {
            let place = match (namespace, mapping.namespace) {
                (Some(own), None) => own.to_owned(),
                (Some(own), Some(said)) if said == own => said,
                (Some(_), Some(said)) => {
                    let why = format!("a mapping is for namespace `{said}`, which is not its own");
                    return Err(unreadable(why));
                }
                (None, Some(said)) => said,
                (None, None) => {
                    return Err(unreadable("a mapping names no namespace".to_owned()));
                }
            };
            let read = Mapping {
                user: mapping.user,
                namespace: place,
                certificate: mapping.certificate,
                service_account: mapping.service_account,
            };
            if read.user.is_empty() || read.service_account.is_empty() {
                return Err(unreadable("a mapping with an empty name".to_owned()));
            }
            if mappings.iter().any(|other| read.collides(other)) {
                let why = format!("two mappings of `{}` for the same request", read.user);
                return Err(unreadable(why));
            }
            mappings.push(read);
        }
        Ok(Self {
            namespaces: file.namespaces,
            mappings,
        })
    }

    /// Whether it may be used in this namespace.
    pub fn is_for(&self, namespace: &str) -> bool {
        self.namespaces
            .as_ref()
            .is_none_or(|all| all.iter().any(|one| one == namespace))
    }

    /// Whether it maps this user anywhere. It does not have an identity of its own here then.
    pub fn maps(&self, user: &str) -> bool {
        self.mappings.iter().any(|mapping| mapping.user == user)
    }

    /// The service account whose identity this user gets in `namespace` for a request of `certificate`.
    pub fn mapped(&self, user: &str, namespace: &str, certificate: Option<&str>) -> Option<&str> {
        let mut found = self.mappings.iter().filter(|mapping| {
            mapping.user == user
                && mapping.namespace == namespace
                && mapping
                    .certificate
                    .as_deref()
                    .is_none_or(|name| Some(name) == certificate)
        });
        found.next().map(|mapping| mapping.service_account.as_str())
    }
}

impl Mapping {
    /// Whether one request could be meant by both.
    fn collides(&self, other: &Self) -> bool {
        let same_certificate = match (&self.certificate, &other.certificate) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.user == other.user && self.namespace == other.namespace && same_certificate
    }
}
