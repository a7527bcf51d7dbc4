//! Bundles of other domains, kept fresh: when each is fetched, and what comes of it.
//!
//! Each relation has a task of its own, so that an endpoint that hangs delays nobody else's. Every outcome is in the log,
//! and what changes trust, or was refused for what it would have changed, in the signed log too.

use super::book::Federation;
use super::error::FederationError;
use super::fetch;
use crate::audit::{self, LogCopy};
use crate::issuing::Issuing;
use mesh_issuance::federation::{News, pause};
use mesh_platform::Platform;
use mesh_trust::{Denials, TrustDomain};
use miette::Diagnostic;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Fetches bundles and has them followed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub(crate) federation: Federation,
    pub(crate) issuing: Issuing,
    pub(crate) copy: LogCopy,
    /// Whom nobody trusts any more, endpoints included.
    pub(crate) denials: watch::Receiver<Arc<Denials>>,
    /// Longest fetch.
    pub(crate) limit: Duration,
    pub(crate) platform: Arc<dyn Platform>,
}

impl Fetcher {
    /// Fetches for each relation when it is due, for as long as the CA lives.
    pub(crate) async fn keep_fresh(self) -> Infallible {
        let mut numbers = self.federation.numbers();
        let (mut tasks, mut running) = (JoinSet::new(), BTreeMap::<u64, AbortHandle>::new());
        loop {
            let wanted = numbers.borrow_and_update().clone();
            running.retain(|number, task| {
                let stays = wanted.contains(number);
                if !stays {
                    task.abort();
                }
                stays
            });
            for number in wanted {
                running
                    .entry(number)
                    .or_insert_with(|| tasks.spawn(self.clone().keep_one_fresh(number)));
            }
            tokio::select! {
                changed = numbers.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
                // Only so that what has ended does not pile up.
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn keep_one_fresh(self, number: u64) {
        while self.federation.errand(number).is_some() {
            // The outcome was noted and logged.
            let _ = self.fetch(number).await;
            let Some(errand) = self.federation.errand(number) else {
                return;
            };
            let hint = errand.held.as_ref();
            let hint = hint.and_then(|held| held.x509().refresh_hint_secs());
            tokio::time::sleep(pause(hint, errand.failures, self.platform.dice())).await;
        }
    }

    /// Fetches the bundle of `domain` now.
    ///
    /// # Errors
    /// [`FederationError`]: what was held stays in force.
    pub(crate) async fn fetch_now(&self, domain: &TrustDomain) -> Result<(), FederationError> {
        let number = self.federation.number_of(domain);
        let number = number.ok_or_else(|| FederationError::Unknown {
            domain: domain.clone(),
        })?;
        self.fetch(number).await
    }

    async fn fetch(&self, number: u64) -> Result<(), FederationError> {
        let Some(errand) = self.federation.errand(number) else {
            return Ok(());
        };
        let relation = &errand.relation;
        let denials = self.denials.borrow().clone();
        let fetched = fetch::fetch(relation, errand.held.as_ref(), denials, self.limit).await;
        let sequence = fetched.as_ref().ok().and_then(|bundle| bundle.sequence());
        let outcome = self.federation.note(number, fetched).await;
        let (domain, url) = (relation.domain(), relation.url());
        match &outcome {
            Ok(News::Same) => {
                tracing::info!(%domain, %url, sequence, "fetched a bundle; it is the same")
            }
            Ok(News::Newer) => {
                self.follow().await?;
                tracing::info!(%domain, %url, sequence, "fetched a bundle; it is in force");
                self.record(domain, &format!("{url}: {} is in force", named(sequence)));
            }
            Err(error) => {
                tracing::warn!(%domain, %url, %error, "no new bundle; the one that is held stays in force");
                let code = error.code().map(|code| code.to_string());
                // An endpoint that stays away would fill the log.
                if code != errand.last_error {
                    self.record(domain, &format!("{url}: refused: {error}"));
                }
            }
        }
        outcome.map(drop)
    }

    /// Has every verifier told what is held now.
    pub(crate) async fn follow(&self) -> Result<(), FederationError> {
        let followed = self.issuing.with_desk(|desk| desk.follow_state()).await?;
        if let Err(error) = followed {
            // Told already: what may have failed is the destruction of retired keys, which is done again.
            tracing::warn!(%error, "the desk could not do all that its state says");
        }
        Ok(())
    }

    fn record(&self, domain: &TrustDomain, what: &str) {
        audit::record(
            &self.copy,
            "fetch bundle",
            "the CA",
            format!("{domain} from {what}"),
        );
    }
}

fn named(sequence: Option<u64>) -> String {
    sequence.map_or_else(
        || "a bundle without sequence".to_owned(),
        |n| format!("sequence {n}"),
    )
}
