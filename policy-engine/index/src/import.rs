//! Policies of other meshes: read, judged against this one, and written anew where they are not its own.
//!
//! - [`istio()`]: Istio's security resources to manifests of this mesh, and a [`Report`] of what could not be kept
//! - [`linkerd()`]: Linkerd's resources, which are read as they are, and a [`Report`] of where they mean something else
//!
//! Pure: bytes in, text and report out. The rule above all others: an import never allows what was not allowed before.

mod istio;
mod linkerd;
mod report;
mod yaml;

pub use report::{Fact, FactPlace, Report, Status, Summary, Written};

use crate::Mode;
use crate::manifest::resource::ProbeTarget;
use mesh_policy::snapshot::Finding;
use mesh_trust::TrustDomain;

/// What an import has to know besides the files.
#[derive(Clone, Debug)]
pub struct ImportConfig {
    /// Trust domain of this mesh. Istio's `cluster.local` points to it.
    pub trust_domain: TrustDomain,
    /// Istio's root namespace, whose policies hold for all: `istio-system` unless the installation says otherwise.
    pub root_namespace: String,
    /// Default policy of this mesh. With another than `deny`, what policies of Istio select is refused.
    pub default_policy: Mode,
    /// What becomes of policies that ask an external provider.
    pub custom: CustomAction,
    /// What becomes of requests with tokens of end users.
    pub tokens: TokenAction,
}

impl ImportConfig {
    /// Settings for a mesh of which only the trust domain is known.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            root_namespace: "istio-system".to_owned(),
            default_policy: Mode::Deny,
            custom: CustomAction::Refuse,
            tokens: TokenAction::Deny,
        }
    }
}

/// What becomes of requests to workloads for which Istio checks tokens of end users (RequestAuthentication), as this
/// mesh cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenAction {
    /// What may carry a token is denied: every request, where one may come in the query, which policies do not see. That
    /// is so by default, for Istio looks at the parameter `access_token`.
    #[default]
    Deny,
    /// What carries one in a header is denied. Somebody has to know that no application takes one from the query.
    InHeaders,
}

/// What becomes of an AuthorizationPolicy with action CUSTOM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CustomAction {
    /// It ends the import.
    #[default]
    Refuse,
    /// What its provider would have been asked about is denied.
    Deny,
}

/// What a check of Linkerd's resources has to know besides the files.
#[derive(Clone, Debug)]
pub struct LinkerdConfig {
    /// Trust domain of this mesh.
    pub trust_domain: TrustDomain,
    /// Default policy of this mesh.
    pub default_policy: Mode,
    /// Default policy of the Linkerd installation (`proxy.defaultInboundPolicy`).
    pub linkerd_default: Mode,
}

impl LinkerdConfig {
    /// Both meshes with the defaults that they are installed with.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            default_policy: Mode::Deny,
            linkerd_default: Mode::AllUnauthenticated,
        }
    }
}

/// What an import made.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The manifests, one file for each namespace, sorted by name.
    pub files: Vec<ImportedFile>,
    /// What became of what.
    pub report: Report,
    /// Whether the files held any AuthorizationPolicy or PeerAuthentication.
    pub has_policies: bool,
}

/// One file of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedFile {
    /// Its name, without folder.
    pub name: String,
    /// Its text: YAML, several documents.
    pub text: String,
}

/// Why nothing was imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Input that cannot be understood in full.
    #[error("{} things in the files cannot be understood", findings.len())]
    Input {
        /// Each of them, with its place.
        findings: Vec<Finding>,
    },
    /// A policy in Cedar that we wrote and Cedar does not read. No input is known to lead there.
    #[error("a policy that was written cannot be read: {why}")]
    Cedar {
        /// What Cedar says.
        why: String,
    },
}

/// Imports Istio's security resources: names and contents of files, those of workloads and Services among them.
///
/// # Errors
/// [`ImportError`]; then nothing is to be written.
pub fn istio(files: &[(String, Vec<u8>)], config: &ImportConfig) -> Result<Imported, ImportError> {
    istio::import(files, config)
}

/// Says where Linkerd's resources, which this mesh reads as they are, mean something else here.
///
/// # Errors
/// [`ImportError::Input`] if a document cannot be read at all.
pub fn linkerd(files: &[(String, Vec<u8>)], config: &LinkerdConfig) -> Result<Report, ImportError> {
    linkerd::check(files, config)
}

/// The code of what means something else here, in some cases more.
const OTHERWISE: &str = "MESH-0349";

/// A probe, in words.
fn describe_probe(kind: &ProbeTarget, port: u16) -> String {
    match kind {
        ProbeTarget::Http(path) => format!("the probe `GET {path}` of port {port}"),
        ProbeTarget::Grpc => format!("the gRPC probe of port {port}"),
        ProbeTarget::Tcp => format!("the TCP probe of port {port}"),
    }
}
