//! Manifests: files to typed objects, each checked, each knowing its file and lines.
//!
//! Nothing here stops at the first mistake. What is wrong becomes a finding with file, line and column; the object it is
//! in becomes invalid; the other objects are read as they are. What an invalid object still does is said in
//! [`crate::index`]: it closes, it never opens.

pub(crate) mod cedar_check;
pub(crate) mod cedar_judge;
pub(crate) mod cedar_kinds;
mod cedar_scan;
mod checked_only;
mod core_kinds;
mod egress;
mod fault_kind;
pub(crate) mod identity;
pub(crate) mod invariant_kind;
mod kinds;
mod limit_kinds;
pub(crate) mod meta;
pub(crate) mod network;
pub(crate) mod object;
pub(crate) mod part;
pub(crate) mod policy_kinds;
pub(crate) mod read;
mod reference_grant;
mod refs;
pub(crate) mod resource;
mod route;
mod route_backend;
mod route_filter;
pub(crate) mod route_match;
mod route_session;
mod selector;
mod server_kinds;
mod service_profile;
pub(crate) mod shadow;
pub(crate) mod term;
pub(crate) mod traffic;
pub(crate) mod tree;

pub use part::{Affected, Declared, Part};
pub use resource::Resources;

use crate::finding::Code;
use mesh_policy::snapshot::Finding;
use object::Loader;
use shadow::Shadow;

/// What [`load`] made of the files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The objects.
    pub resources: Resources,
    /// What is wrong with single objects and documents, sorted.
    pub findings: Vec<Finding>,
}

impl Loaded {
    /// What runs, its Servers, and nothing that grants: no routes, authentications, policies or rate limits.
    pub fn without_grants(&self) -> Self {
        let mut out = self.clone();
        let resources = &mut out.resources;
        resources.server_authorizations.clear();
        resources.authorization_policies.clear();
        resources.mesh_tls.clear();
        resources.network_authentications.clear();
        resources.routes.clear();
        resources.rate_limits.clear();
        resources.cedar_policies.clear();
        resources.invariants.clear();
        out
    }

    /// What is in force: without what is the candidate's alone (`mesh.internal/shadow: add`).
    pub(crate) fn in_force(&self) -> Self {
        self.without(Shadow::Add)
    }

    /// The candidate beside it: without what is in force alone (`mesh.internal/shadow: remove`). `None` if no object
    /// says that the two differ.
    pub(crate) fn candidate(&self) -> Option<Self> {
        self.resources
            .shadowed
            .then(|| self.without(Shadow::Remove))
    }

    /// What was found about an object goes with it, but for the word that it is gone.
    fn without(&self, shadow: Shadow) -> Self {
        let mut out = self.clone();
        if !self.resources.shadowed {
            return out;
        }
        let gone = out.resources.take_out(shadow);
        out.findings.retain(|finding| {
            let object = finding.object.as_ref().map(|object| &object.source);
            finding.code == Code::Shadowed.text()
                || !gone.contains(object.unwrap_or(&finding.source))
        });
        out
    }

    /// These objects, and those of `other`.
    pub fn and(mut self, other: Self) -> Self {
        let (mine, theirs) = (&mut self.resources, other.resources);
        mine.shadowed |= theirs.shadowed;
        mine.servers.extend(theirs.servers);
        mine.routes.extend(theirs.routes);
        mine.mesh_tls.extend(theirs.mesh_tls);
        mine.authorization_policies
            .extend(theirs.authorization_policies);
        self.findings.extend(other.findings);
        self
    }
}

/// Reads manifests: names (for findings) and contents of files. Neither the order of files nor that of documents matters.
pub fn load<B: AsRef<[u8]>>(files: impl IntoIterator<Item = (String, B)>) -> Loaded {
    let parts: Vec<Part> = files
        .into_iter()
        .map(|(name, bytes)| read_part(&name, bytes.as_ref()))
        .collect();
    join(&parts)
}

/// Reads one file: its name (for findings) and content.
pub fn read_part(name: &str, bytes: &[u8]) -> Part {
    let mut loader = Loader::default();
    loader.file(name, bytes);
    loader.part()
}

/// A file, or a part of one that can be read by itself: whoever has two threads reads large files on both.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    name: &'a str,
    content: Content<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    File(&'a [u8]),
    /// Documents, and how many lines of the file stand before them.
    Documents(&'a str, u32),
}

impl<'a> Piece<'a> {
    /// Cuts a file where documents begin, into pieces of about so many bytes. Read and joined in this order they are the
    /// file: what only the whole can tell, and what is no text, stays in one piece.
    pub fn of(name: &'a str, bytes: &'a [u8], about: usize) -> Vec<Self> {
        let whole = || vec![Content::File(bytes)];
        let content = match tree::cut(bytes, about) {
            Some(cut) => cut
                .into_iter()
                .map(|(lines_before, text)| Content::Documents(text, lines_before))
                .collect(),
            None => whole(),
        };
        content
            .into_iter()
            .map(|content| Self { name, content })
            .collect()
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        match self.content {
            Content::File(bytes) => bytes.len(),
            Content::Documents(text, _) => text.len(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads it.
    pub fn read(&self) -> Part {
        let mut loader = Loader::default();
        match self.content {
            Content::File(bytes) => loader.file(self.name, bytes),
            Content::Documents(text, lines_before) => {
                loader.documents(self.name, text, lines_before);
            }
        }
        loader.part()
    }
}

/// [`load`], of files that were read already.
pub fn join<'p>(parts: impl IntoIterator<Item = &'p Part>) -> Loaded {
    part::join(parts)
}

#[cfg(test)]
mod tests;
