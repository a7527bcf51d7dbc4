//! SVIDs in force, by process and identity: made on the first demand, renewed with a fresh key while somebody listens.
//!
//! Streams of one process share an SVID. When it is due and nobody listens it is forgotten instead, and the next stream
//! gets a new one: what nobody uses is not issued.

use crate::error::IssuanceError;
use crate::issuing::Turn;
use crate::limits::{CLOCK_CHECK, DENIED_PAUSE, ISSUANCE_BURST, ISSUANCE_REFILL};
use crate::rate::RateLimit;
use crate::signer::Pkcs8;
use crate::trust::{Requester, instance};
use mesh_issuance::renewal::{Event, Renewal};
use mesh_issuance::rotation::AuthorityId;
use mesh_platform::Platform;
use mesh_platform::process::PidFd;
use mesh_trust::{Denials, Denied, SpiffeId, Svid, Timestamp};
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Whose SVID: a pid alone is used again, with its start time it is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) start_time_ticks: u64,
    pub(crate) identity: SpiffeId,
}

/// An SVID with its private key, as the Workload API gives it out.
pub(crate) struct Material {
    pub(crate) identity: SpiffeId,
    /// Leaf first, without root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Pkcs8,
    pub(crate) not_after: Timestamp,
    pub(crate) serial: String,
    /// Whose root is above it; none: its issuer, on another machine, says when a rotation wants it replaced.
    pub(crate) authority: Option<AuthorityId>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Material({}, serial {}, until {})",
            self.identity, self.serial, self.not_after
        )
    }
}

/// Who issues SVIDs to processes of this machine: the CA here, or one on another machine.
#[tonic::async_trait]
pub(crate) trait Issuer: Send + Sync {
    /// An SVID of `identity` with a fresh key.
    async fn issue(
        &self,
        identity: &SpiffeId,
        requester: Requester,
        turn: Turn,
    ) -> Result<Material, IssuanceError>;

    /// Ready once a rotation wants another SVID in the place of the one that `requester` has in `slot`.
    async fn misplaced(&self, slot: &watch::Sender<Slot>, owner: (&SpiffeId, Requester));

    /// Takes note that the process `<pid>.<start time>` has ended.
    fn ended(&self, _process: &str) {}
}

/// How an SVID stands.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// The first one is being issued.
    Pending,
    /// In force.
    Ready(Arc<Material>),
    /// There is none: the first could not be issued, or the last one ended and could not be renewed.
    Unavailable(IssuanceError),
}

/// All SVIDs in force. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Svids {
    issuer: Arc<dyn Issuer>,
    platform: Arc<dyn Platform>,
    rate: Arc<Mutex<RateLimit>>,
    denials: watch::Receiver<Arc<Denials>>,
    slots: Arc<Mutex<HashMap<Owner, Arc<watch::Sender<Slot>>>>>,
}

impl Svids {
    pub(crate) fn new(
        issuer: Arc<dyn Issuer>,
        denials: watch::Receiver<Arc<Denials>>,
        platform: Arc<dyn Platform>,
    ) -> Self {
        Self {
            issuer,
            platform,
            denials,
            rate: Arc::new(Mutex::new(RateLimit::new(ISSUANCE_BURST, ISSUANCE_REFILL))),
            slots: Arc::default(),
        }
    }

    /// Follows the SVID of `owner`, which is issued if there is none. `process` is the owner's.
    pub(crate) fn follow(
        &self,
        owner: Owner,
        evidence: &str,
        process: &Arc<PidFd>,
    ) -> watch::Receiver<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&owner) {
            return slot.subscribe();
        }
        let slot = Arc::new(watch::Sender::new(Slot::Pending));
        let receiver = slot.subscribe();
        slots.insert(owner.clone(), Arc::clone(&slot));
        let keeper = Keeper {
            svids: self.clone(),
            owner,
            evidence: evidence.to_owned(),
            slot,
        };
        let process = Arc::clone(process);
        tokio::spawn(async move { keeper.run(&process).await });
        receiver
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.lock().unwrap().len()
    }
}

/// Keeps one SVID in force.
struct Keeper {
    svids: Svids,
    owner: Owner,
    evidence: String,
    slot: Arc<watch::Sender<Slot>>,
}

impl Keeper {
    async fn run(self, process: &PidFd) {
        tokio::select! {
            () = self.keep() => {}
            _ = process.exited() => {
                self.forget(|_| true);
                let (pid, start) = (self.owner.pid, self.owner.start_time_ticks);
                self.svids.issuer.ended(&instance(pid, start));
            }
        }
    }

    async fn keep(&self) {
        let mut renewal = match self.issue(Turn::First).await {
            Ok(renewal) => renewal,
            Err(error) => {
                tracing::warn!(identity = %self.owner.identity, pid = self.owner.pid, %error, "no SVID");
                // Forgotten first: who comes after the failure begins anew.
                self.forget(|_| true);
                self.slot.send_replace(Slot::Unavailable(error));
                return;
            }
        };
        let mut failure = None;
        let mut denials = self.svids.denials.clone();
        loop {
            let fresh = matches!(renewal, Renewal::Fresh { .. });
            renewal = tokio::select! {
                () = tokio::time::sleep(self.until(renewal.wake_at())) => {
                    renewal.step(Event::Tick, self.now(), self.svids.platform.dice())
                }
                () = self.denied(&mut denials) => {
                    tracing::warn!(identity = %self.owner.identity, pid = self.owner.pid, "the SVID was denied; its holder gets another");
                    renewal.due_now(self.now())
                }
                // A rotation moves holders to another authority long before their SVIDs are due; tries that failed wait
                // like those of any renewal.
                () = self.misplaced(), if fresh => renewal.due_now(self.now()),
            };
            if let (Renewal::Expired { .. }, Some(why)) = (&renewal, failure.take()) {
                self.slot.send_replace(Slot::Unavailable(why));
            }
            if !renewal.is_due(self.now()) {
                continue;
            }
            if self.forget(|slot| slot.receiver_count() == 0) {
                return;
            }
            renewal = match self.issue(Turn::Renewal).await {
                Ok(fresh) => fresh,
                Err(error) => {
                    tracing::warn!(identity = %self.owner.identity, pid = self.owner.pid, %error, "an SVID could not be renewed");
                    failure = Some(error);
                    renewal.step(Event::Failed, self.now(), self.svids.platform.dice())
                }
            };
        }
    }

    /// Ready once the SVID in force is on the deny list, by its serial, key or issuer. Who is denied as an identity is
    /// nobody any more, and has no stream that could show another SVID.
    async fn denied(&self, denials: &mut watch::Receiver<Arc<Denials>>) {
        loop {
            let by = match &*self.slot.borrow() {
                Slot::Ready(material) => Svid::parse(material.chain.clone())
                    .ok()
                    .and_then(|svid| denials.borrow_and_update().denies_chain(&svid)),
                Slot::Pending | Slot::Unavailable(_) => None,
            };
            match by {
                Some(Denied::Identity(_)) | None => {}
                Some(_) => {
                    // An issuer that was denied is replaced meanwhile.
                    tokio::time::sleep(DENIED_PAUSE).await;
                    return;
                }
            }
            if denials.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Issues an SVID with a fresh key, shows it, and says when to renew it.
    async fn issue(&self, turn: Turn) -> Result<Renewal, IssuanceError> {
        let identity = &self.owner.identity;
        let now = self.svids.platform.monotonic();
        if !self
            .svids
            .rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(identity, now)
        {
            return Err(IssuanceError::RateLimited {
                id: identity.clone(),
            });
        }
        let issued = self.svids.issuer.issue(identity, self.requester(), turn);
        let material = issued.await?;
        let not_after = material.not_after;
        tracing::info!(%identity, pid = self.owner.pid, serial = material.serial, %not_after, "issued an SVID");
        self.slot.send_replace(Slot::Ready(Arc::new(material)));
        Ok(Renewal::issued(
            self.now(),
            not_after,
            self.svids.platform.dice(),
        ))
    }

    fn requester(&self) -> Requester {
        Requester {
            evidence: self.evidence.clone(),
            instance: Some(instance(self.owner.pid, self.owner.start_time_ticks)),
            node: None,
        }
    }

    /// Ready once the SVID in force is under another authority than its holder belongs under.
    async fn misplaced(&self) {
        let owner = (&self.owner.identity, self.requester());
        self.svids.issuer.misplaced(&self.slot, owner).await;
    }

    /// Takes the SVID off the list if `condition` holds while nobody can join.
    fn forget(&self, condition: impl FnOnce(&watch::Sender<Slot>) -> bool) -> bool {
        let mut slots = self
            .svids
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ours = slots
            .get(&self.owner)
            .is_some_and(|slot| Arc::ptr_eq(slot, &self.slot));
        let forget = ours && condition(&self.slot);
        if forget {
            slots.remove(&self.owner);
        }
        forget
    }

    fn now(&self) -> Timestamp {
        self.svids.platform.wall_clock()
    }

    /// How long to sleep before `at`; in pieces, because the wall clock may jump while we sleep.
    fn until(&self, at: Timestamp) -> Duration {
        let micros = at
            .unix_micros()
            .saturating_sub(self.now().unix_micros())
            .max(0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0)).min(CLOCK_CHECK)
    }
}

#[cfg(test)]
mod tests;
