//! What becomes of an issuer that others keep, each time it is read: nothing, taken over, staged, or refused.
//!
//! ```text
//! same issuer as in force ─────────────▶ keep
//! another, under a trusted root ───────▶ renew: signs at once, its leaves verify everywhere already
//! another, under a root that is new ───▶ stage: a rotation proves that root to every verifier first
//! breaks a constraint ─────────────────▶ refuse: what is in force goes on until it ends
//! ```
//! Decided from what is there now, never from what changed: an event that was missed is made good by the next reading.

use super::AdoptionError;
use super::preflight::{self, Adoptable, Demands};
use super::source::IssuerFiles;
use crate::limits::{ISSUER_MARGIN_SECS, LEAF_LIFETIME_SECS_MIN};
use crate::rotation::AuthorityId;
use mesh_trust::{Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// What was read: whom to trust, and who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The roots of the bundle.
    pub roots: Vec<CertificateDer<'static>>,
    /// The issuer with its key.
    pub issuer: IssuerFiles,
}

/// An authority whose issuer is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Its name.
    pub id: AuthorityId,
    /// Its root.
    pub root: CertificateDer<'static>,
    /// Its issuer.
    pub issuer: CertificateDer<'static>,
    /// Last moment of what is above its leaves.
    pub ends: Timestamp,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Whose identities are signed.
    pub domain: TrustDomain,
    /// The authorities of the bundle.
    pub trusted: Vec<InHand>,
    /// The one that most leaves come from.
    pub active: AuthorityId,
    /// Whether a rotation is under way.
    pub rotating: bool,
    /// Roots that were in the bundle once. One that left it, because a rotation was taken back or somebody distrusted it,
    /// does not come back by itself.
    pub once_trusted: BTreeSet<AuthorityId>,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Sign with this issuer from now on.
    Renew {
        /// The trusted authority that it belongs to.
        id: AuthorityId,
        /// It.
        with: Adoptable,
    },
    /// Rotate to this authority.
    Stage {
        /// Its root.
        id: AuthorityId,
        /// It.
        with: Adoptable,
    },
    /// Nothing yet: a finding says what this authority waits for.
    Wait {
        /// Its root.
        id: AuthorityId,
        /// It.
        with: Adoptable,
    },
    /// Nothing, because of these constraints.
    Refuse(Vec<AdoptionError>),
}

/// A step, and what its reader should know besides.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// What is not as it should be, and does not hold the step up.
    pub findings: Vec<Finding>,
}

/// Something about an issuer or a root that is accepted, and not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum Finding {
    /// Nothing can be signed.
    #[error("the issuer in force ended at {until}: nothing is signed until another is there")]
    #[diagnostic(
        code("MESH-0941"),
        help(
            "renew its Certificate: `cmctl renew NAME`, or delete its Secret; a new issuer is taken over by itself"
        )
    )]
    IssuerEnded {
        /// Its last moment.
        until: Timestamp,
    },
    /// Its keeper is late.
    #[error(
        "the issuer in force ends in {left_secs} s, and twice the life of a leaf is {needed_secs} s"
    )]
    #[diagnostic(
        code("MESH-0942"),
        help("have it renewed earlier: a larger `renewBefore` in its Certificate")
    )]
    IssuerEndsSoon {
        /// Until its end.
        left_secs: u64,
        /// Below this, leaves get shorter.
        needed_secs: u64,
    },
    /// One rotation at a time.
    #[error("the issuer below root {root} waits: another rotation is under way")]
    #[diagnostic(
        code("MESH-0943"),
        help("`mesh trust status` says what that waits for; this one follows by itself")
    )]
    RotationUnderWay {
        /// The root to come.
        root: AuthorityId,
    },
    /// An operator said no, or another root took its place.
    #[error("root {root} was in the bundle before and left it: it does not come back by itself")]
    #[diagnostic(
        code("MESH-0950"),
        help("`mesh trust rotate` rotates to it if that is meant; or put another root there")
    )]
    LeftBefore {
        /// The root.
        root: AuthorityId,
    },
    /// The bundle forgot a root too early.
    #[error(
        "the bundle has lost root {root}, under which SVIDs are in force: it stays trusted until none needs it"
    )]
    #[diagnostic(
        code("MESH-0951"),
        help(
            "nothing is broken here; whoever else reads that bundle refuses these SVIDs already: keep old roots in it"
        )
    )]
    RootWithdrawn {
        /// The root.
        root: AuthorityId,
    },
    /// `rotationPolicy: Never`.
    #[error("the {what} was renewed with the same key")]
    #[diagnostic(
        code("MESH-0952"),
        help(
            "set `privateKey.rotationPolicy: Always` in its Certificate: before cert-manager 1.18 the default is Never, and a stolen key stays good for ever"
        )
    )]
    SameKey {
        /// `issuer` or `root`.
        what: &'static str,
    },
}

/// Decides about what was read. `leaf_secs` is the life of a leaf.
pub fn decide(offer: Offer, in_force: &InForce, leaf_secs: u64, now: Timestamp) -> Decision {
    let mut findings = state_of(in_force, leaf_secs, now);
    findings.extend(withdrawn(&offer.roots, in_force));
    let decided = |step, findings| Decision { step, findings };
    // Before anything else: with an intermediate in it the bundle means something else than its keeper thinks.
    let broken = preflight::roots_broken(&offer.roots);
    if !broken.is_empty() {
        return decided(Step::Refuse(broken), findings);
    }
    let leaf = offer.issuer.chain.first();
    if in_force.trusted.iter().any(|one| Some(&one.issuer) == leaf) {
        return decided(Step::Keep, findings);
    }
    let mut roots = offer.roots;
    // A root that was renewed with its key signed whatever the older one did: then the trusted one counts.
    roots.sort_by_key(|root| !in_force.trusted.iter().any(|one| one.root == *root));
    let demands = Demands {
        roots: &roots,
        domain: &in_force.domain,
        leaf_secs,
        rotation_policy: None,
        now,
    };
    let with = match preflight::check(offer.issuer, demands) {
        Ok(with) => with,
        Err(broken) => return decided(Step::Refuse(broken), findings),
    };
    let id = AuthorityId::of_certificate(&with.root);
    if let Some(trusted) = in_force.trusted.iter().find(|one| one.id == id) {
        let same = with
            .issuer
            .chain
            .first()
            .is_some_and(|new| same_key(new, &trusted.issuer));
        findings.extend(same.then_some(Finding::SameKey { what: "issuer" }));
        return decided(Step::Renew { id, with }, findings);
    }
    let active = in_force
        .trusted
        .iter()
        .find(|one| one.id == in_force.active);
    if active.is_some_and(|active| same_key(&with.root, &active.root)) {
        findings.push(Finding::SameKey { what: "root" });
    }
    if in_force.once_trusted.contains(&id) {
        findings.push(Finding::LeftBefore { root: id.clone() });
        return decided(Step::Wait { id, with }, findings);
    }
    if in_force.rotating {
        findings.push(Finding::RotationUnderWay { root: id.clone() });
        return decided(Step::Wait { id, with }, findings);
    }
    decided(Step::Stage { id, with }, findings)
}

/// What is not as it should be with what is in force, whatever was read.
pub fn state_of(in_force: &InForce, leaf_secs: u64, now: Timestamp) -> Vec<Finding> {
    let Some(active) = in_force
        .trusted
        .iter()
        .find(|one| one.id == in_force.active)
    else {
        return Vec::new();
    };
    let left_secs = now.secs_until(active.ends);
    let needed_secs = leaf_secs.saturating_mul(2);
    if left_secs < LEAF_LIFETIME_SECS_MIN + ISSUER_MARGIN_SECS {
        vec![Finding::IssuerEnded { until: active.ends }]
    } else if left_secs < needed_secs {
        vec![Finding::IssuerEndsSoon {
            left_secs,
            needed_secs,
        }]
    } else {
        Vec::new()
    }
}

/// The root in force, if the bundle does not have it any more. Not during a rotation, whose point that is.
fn withdrawn(roots: &[CertificateDer<'static>], in_force: &InForce) -> Option<Finding> {
    let active = in_force
        .trusted
        .iter()
        .find(|one| one.id == in_force.active)?;
    let gone = !in_force.rotating && !roots.contains(&active.root);
    gone.then(|| Finding::RootWithdrawn {
        root: active.id.clone(),
    })
}

/// Whether two certificates are of one key. One that cannot be read is of none.
fn same_key(one: &[u8], other: &[u8]) -> bool {
    let key = |der| match X509Certificate::from_der(der) {
        Ok((_, read)) => Some(read.public_key().raw.to_vec()),
        Err(_) => None,
    };
    key(one).is_some_and(|one| key(other) == Some(one))
}

#[cfg(test)]
mod tests;
