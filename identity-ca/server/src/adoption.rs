//! Root and issuer that others keep: read again and again, and taken over as [`staging`] decides.
//!
//! A [`Keeper`] says what is there now. It is read at the start, whenever it says that something may have changed, and
//! every half minute whatever it says. The issuer in force lies on our disk too: its keeper may be away for as long as
//! that issuer lasts, and while a new root is being proved the old issuer goes on.
//!
//! - [`files`]: a folder and a bundle, as a Secret and a ConfigMap are mounted

pub mod files;

use crate::error::{self, CaError};
use crate::issuing::{Desk, Issuing};
use crate::limits::{KEEPER_REREAD, ROOTS_ONCE_BYTES_MAX};
use crate::signer::Signing;
use crate::signer::error::SignerError;
use crate::trust::error::TrustError;
use mesh_api::error::{CodedError, Severity};
use mesh_api::trust::KeptStatus;
use mesh_issuance::adoption::AdoptionError;
use mesh_issuance::adoption::preflight::{self, Adoptable, Demands};
use mesh_issuance::adoption::staging::{self, Decision, Finding, InForce, InHand, Offer, Step};
use mesh_issuance::rotation::{AuthorityId, Event, Phase, Transition};
use mesh_platform::files as disk;
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Name of the file that lists roots that were in the bundle since others keep them.
const ROOTS_ONCE: &str = "roots-once-trusted";

/// Code of [`Finding::SameKey`].
const SAME_KEY: &str = "MESH-0952";

/// Somebody who keeps root and issuer.
#[tonic::async_trait]
pub trait Keeper: Send + Sync {
    /// Where they are, for people.
    fn place(&self) -> String;

    /// Whether a CA without anything waits for them to appear; else it refuses to start.
    fn may_come(&self) -> bool;

    /// What is there now. A private key in a file is for the signer to read, never for the CA.
    ///
    /// # Errors
    /// [`KeeperError`]; what is in force goes on.
    async fn read(&self, signing: &Signing) -> Result<Offer, KeeperError>;

    /// Ready once something may have changed since the last reading. It may be wrong both ways.
    async fn changed(&self);
}

/// Why root and issuer cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum KeeperError {
    /// Not there, or not ours to read.
    #[error("{what} cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0953"),
        help(
            "the issuer in force goes on until it ends; on Kubernetes look at the Role of the CA"
        )
    )]
    Unreadable {
        /// Which file or object.
        what: String,
        /// In the system's words.
        why: String,
    },
    /// There, and not what it must be.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Content(#[from] AdoptionError),
    /// The private key cannot be used.
    #[error("the issuer's key in `{file}` cannot be used: {why}")]
    #[diagnostic(forward(why))]
    Key {
        /// Its file.
        file: String,
        /// What the signer says.
        why: SignerError,
    },
}

/// What a desk knows of root and issuer that others keep.
pub(crate) struct Adoption {
    place: String,
    findings: Vec<CodedError>,
    /// What was found when the issuer in force was taken over, and holds for as long as it is: that its key is an old one.
    lasting: Vec<CodedError>,
    /// Roots that were in the bundle since others keep them, those that left it too.
    once_trusted: BTreeSet<AuthorityId>,
    /// What was read last, if its root is not trusted.
    next: Option<Adoptable>,
}

impl Adoption {
    /// Where they are, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// How much is wrong there.
    pub(crate) fn findings(&self) -> u64 {
        u64::try_from(self.findings.len()).unwrap_or(u64::MAX)
    }

    /// An authority that was put there, and that is not trusted.
    pub(crate) fn next(&self) -> Option<Adoptable> {
        self.next.clone()
    }
}

/// What a CA without anything begins with.
///
/// # Errors
/// [`CaError::NothingToAdopt`] with all that is wrong, unless the keeper may still get it: then this waits.
pub(crate) async fn first(
    (keeper, signing): (&dyn Keeper, &Signing),
    domain: &TrustDomain,
    leaf_secs: u64,
    now: impl Fn() -> Timestamp,
    say: impl Fn(&str),
) -> Result<Adoptable, CaError> {
    let mut said = String::new();
    loop {
        let why = match keeper.read(signing).await {
            Ok(Offer { roots, issuer }) => {
                let demands = Demands {
                    roots: &roots,
                    domain,
                    leaf_secs,
                    rotation_policy: None,
                    now: now(),
                };
                match preflight::check(issuer, demands) {
                    Ok(first) => return Ok(first),
                    Err(broken) => broken.iter().map(|one| error::coded(one)).collect(),
                }
            }
            Err(error) => vec![error::coded(&error)],
        };
        let error = CaError::NothingToAdopt {
            place: keeper.place(),
            why: why.join("; "),
        };
        if !keeper.may_come() {
            return Err(error);
        }
        let text = error.to_string();
        if text != said {
            tracing::error!(error = text, "waiting for it");
            say(&text);
            said = text;
        }
        wait(keeper).await;
    }
}

/// Reads the keeper again and again, and has the desk follow. Never ends.
pub(crate) async fn follow(keeper: Arc<dyn Keeper>, signing: Signing, issuing: Issuing) {
    loop {
        let read = keeper.read(&signing).await.map_err(|error| coded(&error));
        match issuing.with_desk(move |desk| desk.adopt(read)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "what is kept elsewhere could not be taken over")
            }
            Err(error) => tracing::error!(%error, "nothing can be taken over"),
        }
        issuing.trust_moved();
        wait(&*keeper).await;
    }
}

async fn wait(keeper: &dyn Keeper) {
    // An event that never comes costs no more than this.
    let _ = tokio::time::timeout(KEEPER_REREAD, keeper.changed()).await;
}

fn coded(error: &dyn miette::Diagnostic) -> CodedError {
    CodedError::from(error)
}

impl Desk {
    /// From now on others keep root and issuer.
    pub(crate) fn kept_in(&mut self, place: String) -> Result<(), CaError> {
        let once_trusted = self.read_once_trusted()?;
        self.adoption = Some(Adoption {
            place,
            findings: Vec::new(),
            lasting: Vec::new(),
            once_trusted,
            next: None,
        });
        Ok(())
    }

    /// Follows what was read at the keeper.
    pub(crate) fn adopt(&mut self, read: Result<Offer, CodedError>) -> Result<(), TrustError> {
        self.remember_trusted()?;
        let in_force = self.in_force();
        let (leaf_secs, now) = (self.leaf_secs(), self.now());
        let (step, mut findings) = match read {
            Ok(offer) => {
                let Decision { step, findings } = staging::decide(offer, &in_force, leaf_secs, now);
                (step, said(&findings))
            }
            Err(error) => {
                let state = staging::state_of(&in_force, leaf_secs, now);
                (Step::Keep, [vec![error], said(&state)].concat())
            }
        };
        let same_key = |one: &CodedError| one.code == SAME_KEY;
        if let Some(adoption) = &mut self.adoption {
            if matches!(step, Step::Renew { .. } | Step::Stage { .. }) {
                adoption.lasting = findings
                    .iter()
                    .filter(|one| same_key(one))
                    .cloned()
                    .collect();
            } else if !findings.iter().any(same_key) {
                findings.extend(adoption.lasting.iter().cloned());
            }
        }
        let (next, done) = match step {
            Step::Keep => (None, Ok(())),
            Step::Renew { id, with } => (None, self.renew_kept(&id, &with)),
            Step::Stage { id, with } => (Some(with.clone()), self.stage_kept(&id, &with)),
            Step::Wait { with, .. } => (Some(with), Ok(())),
            Step::Refuse(broken) => {
                findings.splice(0..0, broken.iter().map(|one| coded(one)));
                (None, Ok(()))
            }
        };
        if let Err(error) = &done {
            findings.insert(0, coded(error));
        }
        self.note(next, findings);
        self.tell_probes();
        done
    }

    fn in_force(&self) -> InForce {
        let state = &self.trust.state;
        let in_hand = |id: &AuthorityId| {
            let pair = self.custody.get(id)?;
            let issuer = &pair.issuer.authority;
            Some(InHand {
                id: id.clone(),
                root: pair.root.certificate().clone(),
                issuer: issuer.certificate().clone(),
                ends: issuer.validity().not_after,
            })
        };
        InForce {
            domain: self.domain().clone(),
            trusted: state.anchors.iter().filter_map(in_hand).collect(),
            active: self.signing_authority().clone(),
            rotating: !matches!(state.phase, Phase::Steady { .. }),
            once_trusted: self
                .adoption
                .as_ref()
                .map(|adoption| adoption.once_trusted.clone())
                .unwrap_or_default(),
        }
    }

    /// Signs with another issuer from now on. Recorded first, as all that changes what is issued.
    fn renew_kept(&mut self, id: &AuthorityId, with: &Adoptable) -> Result<(), TrustError> {
        if self
            .custody
            .get(id)
            .is_none_or(|pair| pair.root_key.is_some())
        {
            // An issuer that somebody made with a copy of our own root's key: nothing of that is in our log.
            return Err(TrustError::OwnRoot { root: id.clone() });
        }
        let until = with.ends().unwrap_or_else(|| self.now());
        self.commit(Transition {
            state: self.trust.state.clone(),
            evidence: format!("an issuer of root {id} that others keep, until {until}"),
        })?;
        let domain = self.domain().clone();
        self.custody.renew_copy(id, &domain, with)?;
        tracing::info!(root = %id, %until, "took over the issuer that others renewed");
        Ok(())
    }

    /// Begins a rotation to an authority that others keep.
    fn stage_kept(&mut self, id: &AuthorityId, with: &Adoptable) -> Result<(), TrustError> {
        let domain = self.domain().clone();
        self.custody.keep_copy(&domain, with)?;
        tracing::info!(root = %id, "staging the root that others renewed");
        let begun = self.trust_event(&Event::Rotate { new: id.clone() });
        if begun.is_err() {
            self.custody.forget(id)?;
        }
        begun.map(drop)
    }

    /// Keeps what is to be said, and says what is new.
    fn note(&mut self, next: Option<Adoptable>, findings: Vec<CodedError>) {
        let Some(adoption) = &mut self.adoption else {
            return;
        };
        adoption.next = next;
        let kind = |one: &CodedError| (one.code.clone(), one.place.clone());
        let known: BTreeSet<_> = adoption.findings.iter().map(kind).collect();
        for finding in &findings {
            if known.contains(&kind(finding)) {
                continue;
            }
            let (code, why) = (&finding.code, &finding.message);
            match finding.severity {
                Severity::Error => tracing::error!(
                    code,
                    why,
                    place = adoption.place,
                    "what is kept there is not taken over; the issuer in force goes on until it ends"
                ),
                _ => tracing::warn!(
                    code,
                    why,
                    place = adoption.place,
                    "what is kept there is not as it should be"
                ),
            }
        }
        adoption.findings = findings;
    }

    /// How it stands with what others keep.
    pub(crate) fn adoption_status(&self) -> Option<KeptStatus> {
        let adoption = self.adoption.as_ref()?;
        let issuer = &self.custody.get(self.signing_authority())?.issuer.authority;
        Some(KeptStatus {
            place: adoption.place.clone(),
            issuer: issuer.subject_text().to_owned(),
            issuer_serial: issuer.serial().to_owned(),
            issuer_until: issuer.validity().not_after,
            findings: adoption.findings.clone(),
        })
    }

    fn read_once_trusted(&self) -> Result<BTreeSet<AuthorityId>, CaError> {
        let path = self.dir().join(ROOTS_ONCE);
        let text = match disk::read_limited(&path, ROOTS_ONCE_BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.is_not_found() => return Ok(BTreeSet::new()),
            Err(error) => return Err(error.into()),
        };
        let ids = text
            .lines()
            .map(|line| AuthorityId::try_from(line.to_owned()));
        ids.collect::<Result<_, _>>()
            .map_err(|why| CaError::Corrupt {
                path,
                why: why.to_owned(),
            })
    }

    /// Adds the roots of the bundle to those that were once trusted.
    fn remember_trusted(&mut self) -> Result<(), CaError> {
        let path = self.dir().join(ROOTS_ONCE);
        let Some(adoption) = &mut self.adoption else {
            return Ok(());
        };
        let before = adoption.once_trusted.len();
        adoption
            .once_trusted
            .extend(self.trust.state.anchors.iter().cloned());
        if adoption.once_trusted.len() == before {
            return Ok(());
        }
        let mut text = String::new();
        for id in &adoption.once_trusted {
            text.push_str(id.as_str());
            text.push('\n');
        }
        Ok(disk::write_atomic(&path, text.as_bytes(), 0o600)?)
    }
}

/// Findings as they are shown. That nothing can be signed is an error, whatever comes of it.
fn said(findings: &[Finding]) -> Vec<CodedError> {
    let said = findings.iter().map(|finding| CodedError {
        severity: match finding {
            Finding::IssuerEnded { .. } => Severity::Error,
            _ => Severity::Warning,
        },
        ..coded(finding)
    });
    said.collect()
}

#[cfg(test)]
mod tests;
