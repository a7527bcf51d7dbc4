//! What can go wrong with the trust of a domain: in its files, in what somebody asks for, in an acknowledgment.

use crate::error::{CaError, IssuanceError};
use mesh_issuance::rotation::roster::AckError;
use mesh_issuance::rotation::{AuthorityId, RotationError};
use mesh_trust::SpiffeId;
use mesh_trust::path::PathError;
use mesh_trust::statement::StatementError;
use mesh_trust::svid::SvidError;
use std::path::PathBuf;

/// Why a state on disk is not believed. The files are left as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum TrustStateError {
    /// Not what was written.
    #[error("`{}` is damaged: {why}", .path.display())]
    #[diagnostic(
        code("MESH-0920"),
        help("restore it, with the issuance log, from one backup; it is left as it is")
    )]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The log says that there was one.
    #[error("`{}` is missing, while the issuance log says that trust changed", .path.display())]
    #[diagnostic(
        code("MESH-0921"),
        help(
            "restore it, with the issuance log, from one backup: it says which roots are trusted"
        )
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Another state than the log's last.
    #[error("`{}` is not the state that the issuance log recorded last (generation {generation})", .path.display())]
    #[diagnostic(
        code("MESH-0922"),
        help(
            "an older copy was put in its place: restore it, with the issuance log, from one backup"
        )
    )]
    Stale {
        /// Where.
        path: PathBuf,
        /// Recorded in the log.
        generation: u64,
    },
    /// The keys of an authority that is in force are gone.
    #[error("the files of authority {authority} are missing below `{}`", .dir.display())]
    #[diagnostic(code("MESH-0923"), help("restore the CA's directory from a backup"))]
    NoAuthority {
        /// Its name.
        authority: String,
        /// The CA's directory.
        dir: PathBuf,
    },
}

/// Why nothing came of what was asked for.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum TrustError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Issuance(#[from] IssuanceError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ack(#[from] AckError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Statement(#[from] StatementError),
    #[error("the acknowledgment was not made with an SVID")]
    #[diagnostic(
        code("MESH-0924"),
        help("acknowledgments are signed with the SVID in use")
    )]
    NoSvid(#[source] SvidError),
    #[error("the acknowledgment was made with an SVID that is not trusted")]
    #[diagnostic(
        code("MESH-0925"),
        help("acknowledgments are signed with the SVID in use")
    )]
    Untrusted(#[source] PathError),
    #[error("the challenge of an acknowledgment has {found} octets; 32 are sent")]
    #[diagnostic(
        code("MESH-0926"),
        help("send back the challenge of the update as it came")
    )]
    Challenge { found: usize },
    #[error("`{text}` names {found} of the roots in the bundle, not one")]
    #[diagnostic(
        code("MESH-0927"),
        help("give at least the first 8 digits of its SHA-256; `mesh trust status` lists them")
    )]
    Root { text: String, found: usize },
    #[error("the roots of this trust domain are kept in {place}, and no other one is there")]
    #[diagnostic(
        code("MESH-0940"),
        help(
            "have the root renewed there, and then the issuer: what is put there is staged by itself"
        )
    )]
    KeptElsewhere { place: String },
    #[error("an issuer below root {root}, which is this CA's own, is kept elsewhere")]
    #[diagnostic(
        code("MESH-0955"),
        help("this CA makes the issuers of its own root itself; give it a root that others keep")
    )]
    OwnRoot { root: AuthorityId },
    #[error("`{by}` brings an acknowledgment of `{id}`")]
    #[diagnostic(
        code("MESH-0956"),
        help("acknowledgments cannot be passed on; look at who sent it")
    )]
    OthersAck { id: SpiffeId, by: SpiffeId },
    #[error("this CA knows of no SVID {serial} of `{id}`")]
    #[diagnostic(
        code("MESH-0957"),
        help(
            "it was replaced and the newer one acknowledged; or the issuance log is another CA's"
        )
    )]
    UnknownSvid { id: SpiffeId, serial: String },
}
