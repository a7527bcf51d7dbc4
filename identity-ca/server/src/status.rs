//! What the files of a CA say, for people and for `mesh check`. Changes nothing, reads no private key.

use crate::error::CaError;
use crate::record::{self, LOG_FILE};
use crate::trust::custody::active_store;
use data_encoding::HEXLOWER;
use mesh_api::error::CodedError;
use mesh_issuance::Authority;
use mesh_trust::{Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How a CA is, by its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// Its directory.
    pub dir: PathBuf,
    /// Whose CA; absent if the files cannot be read.
    pub trust_domain: Option<TrustDomain>,
    /// The trust anchor.
    pub root: Option<AuthorityStatus>,
    /// What signs SVIDs.
    pub issuer: Option<AuthorityStatus>,
    /// The issuance log.
    pub log: Option<LogStatus>,
    /// What is wrong with the files, if something is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<CodedError>,
}

/// A certificate that signs others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Its subject.
    pub subject: String,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// The certificate, PEM.
    pub pem: String,
}

/// What an issuance log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Lines.
    pub lines: u64,
    /// Leaves begun.
    pub leaves: u64,
    /// Intents without an end: the CA was killed between the two.
    pub open: u64,
    /// Hash of the last line, lower-case hex.
    pub head: String,
    /// Time of the last line.
    pub last: Option<Timestamp>,
}

/// Reads the files of the CA in `dir`, also while it runs.
pub fn inspect(dir: &Path) -> CaStatus {
    let mut status = CaStatus {
        dir: dir.to_owned(),
        trust_domain: None,
        root: None,
        issuer: None,
        log: None,
        problems: Vec::new(),
    };
    match active_store(dir).and_then(|store| store.certificates()) {
        Ok(certificates) => {
            status.trust_domain = Some(certificates.trust_domain);
            status.root = Some(AuthorityStatus::of(&certificates.root));
            status.issuer = Some(AuthorityStatus::of(&certificates.issuer));
        }
        Err(error) => status.problems.push(CodedError::from_diagnostic(error)),
    }
    let path = dir.join(LOG_FILE);
    match record::replay(&path) {
        Ok((ledger, _)) if ledger.head().lines == 0 => {
            status
                .problems
                .push(CodedError::from_diagnostic(CaError::LogMissing { path }));
        }
        Ok((ledger, _)) => {
            status.log = Some(LogStatus {
                lines: ledger.head().lines,
                leaves: ledger.leaves(),
                open: u64::try_from(ledger.open()).unwrap_or(u64::MAX),
                head: HEXLOWER.encode(&ledger.head().hash),
                last: ledger.last(),
            });
        }
        Err(error) => status.problems.push(CodedError::from_diagnostic(error)),
    }
    status
}

impl AuthorityStatus {
    fn of(authority: &Authority) -> Self {
        Self {
            subject: authority.subject_text().to_owned(),
            serial: authority.serial().to_owned(),
            not_before: authority.validity().not_before,
            not_after: authority.validity().not_after,
            sha256: HEXLOWER.encode(&authority.fingerprint()),
            pem: mesh_trust::bundle::to_pem(std::slice::from_ref(authority.certificate())),
        }
    }
}
