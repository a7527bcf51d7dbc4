//! Why there is no relation, or nothing new came of one.

use crate::error::IssuanceError;
use mesh_issuance::federation::{EndpointUrl, RelationError, StaleBundle};
use mesh_issuance::limits::{FOREIGN_BUNDLE_BYTES_MAX, RELATIONS_MAX};
use mesh_platform::PlatformError;
use mesh_trust::TrustDomain;
use mesh_trust::bundle::WholeBundleError;
use mesh_trust::id::IdError;
use mesh_trust::tls::TlsError;
use std::path::PathBuf;

/// Why a fetch gave no document.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub(crate) enum FetchError {
    /// Nothing to know an endpoint of `https_spiffe` by.
    #[error("no anchor of `{domain}` is held, by which its endpoint could be known")]
    #[diagnostic(
        code("MESH-0966"),
        help(
            "give a bundle of that domain to begin with: `--bundle FILE`, fetched by a way that you trust"
        )
    )]
    NoAnchors {
        /// Whose.
        domain: TrustDomain,
    },
    /// Not reachable.
    #[error("`{url}` cannot be reached: {why}")]
    #[diagnostic(
        code("MESH-0967"),
        help("it is tried again by itself; the bundle that is held stays in force")
    )]
    Connect {
        /// Where.
        url: EndpointUrl,
        /// In the system's words.
        why: String,
    },
    /// It is not who it should be, or cannot prove it.
    #[error("`{url}` did not prove who it is: {why}")]
    #[diagnostic(
        code("MESH-0968"),
        help(
            "its certificate ended, or another answers there, or that domain replaced all its roots: ask its operators. The bundle that is held stays in force"
        )
    )]
    Identity {
        /// Where.
        url: EndpointUrl,
        /// The rule broken.
        why: String,
    },
    /// Another answer than a bundle.
    #[error("`{url}` answers with status {status}")]
    #[diagnostic(
        code("MESH-0969"),
        help("give the address of the bundle itself: redirects are not followed")
    )]
    Status {
        /// Where.
        url: EndpointUrl,
        /// HTTP status.
        status: u16,
    },
    /// More than a bundle.
    #[error("`{url}` serves more than {FOREIGN_BUNDLE_BYTES_MAX} bytes")]
    #[diagnostic(
        code("MESH-0970"),
        help(
            "check that a bundle is served there; one of many roots must be shortened by its domain"
        )
    )]
    TooLarge {
        /// Where.
        url: EndpointUrl,
    },
    /// Took too long.
    #[error("`{url}` gave no whole answer within {millis} ms")]
    #[diagnostic(
        code("MESH-0971"),
        help("it is tried again by itself; the bundle that is held stays in force")
    )]
    Slow {
        /// Where.
        url: EndpointUrl,
        /// How long was waited.
        millis: u128,
    },
    /// Not HTTP.
    #[error("`{url}` gave no proper answer: {why}")]
    #[diagnostic(
        code("MESH-0972"),
        help("check that a bundle is served there, over HTTP/1.1 inside TLS")
    )]
    Protocol {
        /// Where.
        url: EndpointUrl,
        /// What broke.
        why: String,
    },
    /// No roots to know an endpoint of `https_web` by.
    #[error("the roots in `{}` cannot be read: {why}", path.display())]
    #[diagnostic(
        code("MESH-0976"),
        help(
            "name a file of root certificates in PEM that the CA's user can read, by its absolute path"
        )
    )]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No TLS.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tls(#[from] TlsError),
}

/// Why a relation is not as somebody wants it.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub(crate) enum FederationError {
    /// No name of a domain or an endpoint.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Id(#[from] IdError),
    /// No such relation can be.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Relation(#[from] RelationError),
    /// A document that is no bundle of that domain.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Bundle(#[from] WholeBundleError),
    /// A bundle that does not count.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Stale(#[from] StaleBundle),
    /// No document.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fetch(#[from] FetchError),
    /// One for each domain.
    #[error("there is a relation with `{domain}` already")]
    #[diagnostic(
        code("MESH-0963"),
        help(
            "`mesh trust federate --remove {domain}` ends it; what was held of it is forgotten then"
        )
    )]
    Exists {
        /// Which.
        domain: TrustDomain,
    },
    /// None.
    #[error("there is no relation with `{domain}`")]
    #[diagnostic(code("MESH-0964"), help("`mesh trust federate` lists them"))]
    Unknown {
        /// Which.
        domain: TrustDomain,
    },
    /// Enough.
    #[error("there are {RELATIONS_MAX} relations already")]
    #[diagnostic(
        code("MESH-0965"),
        help("end those that are not needed: every proxy holds the bundles of all")
    )]
    TooMany,
    /// Profile `https_spiffe` or `https_web`, always said.
    #[error("neither the SPIFFE ID of the endpoint was given, nor the roots by which it is known")]
    #[diagnostic(
        code("MESH-0977"),
        help(
            "`--endpoint-id ID --bundle FILE` for https_spiffe, `--web-roots FILE` for https_web"
        )
    )]
    NoProfile,
    /// Not written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// The CA ends.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Desk(#[from] IssuanceError),
}
