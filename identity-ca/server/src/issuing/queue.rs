//! Many who want certificates at one desk: who is next, and how many are served at once.

use super::{Chain, Desk};
use crate::agent::Anchors;
use crate::error::IssuanceError;
use crate::limits::{
    ISSUANCE_BATCH_MAX, ISSUANCE_BURST, ISSUANCE_QUEUE_MAX, ISSUANCE_REFILL, ISSUANCE_WAIT_MAX,
};
use crate::rate::RateLimit;
use crate::trust::{Published, Requester};
use data_encoding::HEXLOWER;
use mesh_issuance::issue::Request;
use mesh_platform::Tick;
use mesh_trust::{Denials, Denied, SpiffeId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot, watch};

/// A desk that many tasks share. What waits while the disk is busy is issued together: renewals first, because whoever
/// renews has something to lose, then in order of arrival. Nobody waits longer than [`ISSUANCE_WAIT_MAX`].
#[derive(Clone)]
pub(crate) struct Issuing {
    desk: Arc<Mutex<Desk>>,
    queue: Arc<Mutex<Queue>>,
    denials: Option<watch::Receiver<Arc<Denials>>>,
    published: watch::Receiver<Arc<Published>>,
    anchors: watch::Receiver<Arc<Anchors>>,
    moved: Arc<Notify>,
    rate: Arc<Mutex<RateLimit>>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Holds an SVID that is in force.
    Renewal,
    /// Has none yet.
    First,
}

#[derive(Default)]
pub(super) struct Queue {
    renewals: VecDeque<Waiting>,
    firsts: VecDeque<Waiting>,
    /// Whether a thread serves it. One does, however many wait: each more would wait for the desk with its own stack and its
    /// own pages of the allocator.
    served: bool,
}

/// While the queue is served: a panic at the desk refuses all who wait.
struct Service<'a>(&'a Issuing);

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.refuse_all();
        }
    }
}

impl Queue {
    /// Takes a place, unless there is none. First requests leave a part of the places to renewals.
    pub(super) fn push(&mut self, turn: Turn, waiting: Waiting) -> Result<(), IssuanceError> {
        let taken = self.renewals.len() + self.firsts.len();
        let (places, line) = match turn {
            Turn::Renewal => (ISSUANCE_QUEUE_MAX, &mut self.renewals),
            Turn::First => (ISSUANCE_QUEUE_MAX / 4 * 3, &mut self.firsts),
        };
        if taken >= places {
            return Err(IssuanceError::Busy);
        }
        line.push_back(waiting);
        Ok(())
    }

    /// Those who are next. Who gave up waiting is passed over: nobody would get the certificate.
    pub(super) fn next(&mut self) -> Vec<Waiting> {
        let mut batch = Vec::new();
        while batch.len() < ISSUANCE_BATCH_MAX {
            let next = self.renewals.pop_front();
            let Some(waiting) = next.or_else(|| self.firsts.pop_front()) else {
                break;
            };
            if !waiting.reply.is_closed() {
                batch.push(waiting);
            }
        }
        batch
    }
}

pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) requester: Requester,
    pub(super) reply: oneshot::Sender<Result<Chain, IssuanceError>>,
}

impl Issuing {
    pub(crate) fn new(desk: Desk) -> Self {
        Self {
            published: desk.trust.subscribe(),
            anchors: desk.trust.anchors(),
            desk: Arc::new(Mutex::new(desk)),
            queue: Arc::default(),
            denials: None,
            moved: Arc::default(),
            rate: Arc::new(Mutex::new(RateLimit::new(ISSUANCE_BURST, ISSUANCE_REFILL))),
        }
    }

    /// Whether this identity may have one more certificate now, of those that are asked for from other machines.
    pub(crate) fn within_rate(&self, id: &SpiffeId, now: Tick) -> bool {
        self.rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(id, now)
    }

    /// The same, which issues nothing to an identity or for a key that is denied.
    pub(crate) fn with_denials(mut self, denials: watch::Receiver<Arc<Denials>>) -> Self {
        self.denials = Some(denials);
        self
    }

    fn check_denials(&self, request: &Request, requester: &Requester) -> Result<(), IssuanceError> {
        let Some(denials) = &self.denials else {
            return Ok(());
        };
        let denials = denials.borrow();
        let key = Denied::Key(HEXLOWER.encode(&request.key.fingerprint()));
        let node = requester.node.clone().map(Denied::Node);
        let on_denied = node.is_some_and(|node| denials.contains(&node));
        if on_denied || denials.denies_identity(&request.id) || denials.contains(&key) {
            return Err(IssuanceError::Denied {
                id: request.id.clone(),
            });
        }
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues one certificate.
    ///
    /// # Errors
    /// [`IssuanceError::Busy`] at once if too many wait, and in any case after [`ISSUANCE_WAIT_MAX`].
    pub(crate) async fn issue(
        &self,
        request: Request,
        requester: Requester,
        turn: Turn,
    ) -> Result<Chain, IssuanceError> {
        self.check_denials(&request, &requester)?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            request,
            requester,
            reply,
        };
        let idle = {
            let mut queue = self.queue();
            queue.push(turn, waiting)?;
            !std::mem::replace(&mut queue.served, true)
        };
        if idle {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.serve());
        }
        match tokio::time::timeout(ISSUANCE_WAIT_MAX, answer).await {
            Ok(answered) => answered.unwrap_or(Err(IssuanceError::Stopped)),
            Err(_elapsed) => Err(IssuanceError::Busy),
        }
    }

    /// Serves all who wait, and all who come meanwhile.
    fn serve(&self) {
        let _service = Service(self);
        // A desk whose holder panicked is in an unknown state: nobody is served any more.
        let Ok(mut desk) = self.desk.lock() else {
            return self.refuse_all();
        };
        loop {
            let batch = {
                let mut queue = self.queue();
                let batch = queue.next();
                // Said under the same lock: whoever comes next either is in the batch or finds nobody serving.
                queue.served = !batch.is_empty();
                batch
            };
            if batch.is_empty() {
                return;
            }
            let (requests, replies): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .filter_map(|waiting| self.still_allowed(waiting))
                .map(|waiting| ((waiting.request, waiting.requester), waiting.reply))
                .unzip();
            for (outcome, reply) in desk.issue(requests).into_iter().zip(replies) {
                // A caller that gave up finds nothing; the log knows what was signed.
                let _ = reply.send(outcome);
            }
        }
    }

    /// What waits, unless it was denied meanwhile. Asked at the desk, so that whoever comes to it after a denial finds all
    /// that was issued in spite of it.
    fn still_allowed(&self, waiting: Waiting) -> Option<Waiting> {
        match self.check_denials(&waiting.request, &waiting.requester) {
            Ok(()) => Some(waiting),
            Err(error) => {
                // A caller that gave up finds nothing.
                let _ = waiting.reply.send(Err(error));
                None
            }
        }
    }

    fn refuse_all(&self) {
        *self.queue() = Queue::default();
    }

    /// Does what is due, and says whether the CA can go on.
    pub(crate) async fn maintain(&self) -> bool {
        let desk = Arc::clone(&self.desk);
        let done = tokio::task::spawn_blocking(move || {
            let Ok(mut desk) = desk.lock() else {
                return false;
            };
            if let Err(error) = desk.maintain() {
                tracing::warn!(%error, "the CA could not do its upkeep; the issuer in force goes on");
            }
            !desk.in_doubt()
        });
        done.await.unwrap_or(false)
    }

    /// Puts another issuer in the place of the present one if `denials` name that.
    pub(crate) async fn replace_denied_issuer(&self, denials: Arc<Denials>) {
        let desk = Arc::clone(&self.desk);
        let done = tokio::task::spawn_blocking(move || {
            let mut desk = desk.lock().map_err(|_| IssuanceError::Stopped)?;
            desk.replace_denied_issuer(&denials)
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!(%error, "the issuer is denied and could not be replaced: nobody trusts what it signs");
        }
    }

    /// Where a rotation stands, and every step of it to come.
    pub(crate) fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// All bundles, as the Workload API hands them out.
    pub(crate) fn anchors(&self) -> watch::Receiver<Arc<Anchors>> {
        self.anchors.clone()
    }

    /// Does something at the desk, where nothing else happens meanwhile.
    pub(crate) async fn with_desk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, IssuanceError> {
        let desk = Arc::clone(&self.desk);
        let done = tokio::task::spawn_blocking(move || {
            // A desk whose holder panicked is in an unknown state: nobody is served any more.
            desk.lock().ok().map(|mut desk| work(&mut desk))
        });
        done.await.ok().flatten().ok_or(IssuanceError::Stopped)
    }

    /// Says that a fact has changed that a rotation may wait for.
    pub(crate) fn trust_moved(&self) {
        self.moved.notify_one();
    }

    /// Ready once a fact has changed since the last time.
    pub(crate) async fn trust_has_moved(&self) {
        self.moved.notified().await;
    }
}
