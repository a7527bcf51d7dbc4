//! What the CA tells a node and what it is told in return, and the node's own SVID.

use super::state::State;
use crate::agent::Anchors;
use crate::denials::Enforcers;
use crate::federation::Foreign;
use crate::limits::{CLOCK_CHECK, ENDED_PROCESSES_MAX, NODE_RETRY};
use mesh_api::proto::{NodeReport, NodeUpdate};
use mesh_ca_client::node::{NodeError, NodeLink};
use mesh_issuance::renewal::{Event, Renewal};
use mesh_platform::Platform;
use mesh_trust::jwt::JwtBundle;
use mesh_trust::{Denials, Timestamp, TrustBundles, TrustDomain};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Serial numbers of SVIDs that are to be replaced now.
pub(super) type Replace = Arc<BTreeSet<String>>;

/// What was told last, for everybody who follows it.
pub(super) struct Told {
    pub(super) anchors: watch::Sender<Arc<Anchors>>,
    pub(super) keys: watch::Sender<Arc<JwtBundle>>,
    pub(super) foreign: watch::Sender<Arc<Foreign>>,
    pub(super) denials: watch::Sender<Arc<Denials>>,
    pub(super) replace: watch::Sender<Replace>,
}

/// An update, read: all of it or nothing.
struct Read {
    bundles: TrustBundles,
    own_keys: JwtBundle,
    other_keys: Vec<JwtBundle>,
    denials: Denials,
    replace: Replace,
}

fn anchors_of(bundles: &TrustBundles) -> Arc<Anchors> {
    let anchors = bundles
        .iter()
        .map(|bundle| (bundle.domain().clone(), bundle.anchors().to_vec()));
    Arc::new(anchors.collect())
}

impl Told {
    /// What is known before the CA says anything.
    pub(super) fn begin(domain: &TrustDomain, state: &State) -> Self {
        Self {
            anchors: watch::Sender::new(anchors_of(&state.held.bundles)),
            keys: watch::Sender::new(Arc::new(JwtBundle::new(domain.clone()))),
            foreign: watch::Sender::default(),
            denials: watch::Sender::new(state.denials.clone()),
            replace: watch::Sender::default(),
        }
    }

    fn read(&self, domain: &TrustDomain, update: NodeUpdate) -> Result<Read, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let bundles = TrustBundles::from_json(&update.bundles_json).map_err(|e| text(&e))?;
        let own = bundles.get(domain);
        if own.is_none_or(|own| own.anchors().is_empty()) {
            return Err(format!("there are no anchors of `{domain}` in it"));
        }
        let mut keys = BTreeMap::new();
        for (name, document) in update.jwt_bundles {
            let name = TrustDomain::parse(&name).map_err(|e| text(&e))?;
            let bundle = JwtBundle::from_json(name.clone(), &document).map_err(|e| text(&e))?;
            keys.insert(name, bundle);
        }
        let own_keys = keys
            .remove(domain)
            .unwrap_or_else(|| JwtBundle::new(domain.clone()));
        let denials = Denials::from_json(&update.denials_json).map_err(|e| text(&e))?;
        Ok(Read {
            bundles,
            own_keys,
            other_keys: keys.into_values().collect(),
            denials,
            replace: Arc::new(update.replace.into_iter().collect()),
        })
    }

    /// Puts an update into force.
    fn apply(&self, domain: &TrustDomain, read: &Read) {
        let differs = |one: &Arc<Denials>| {
            read.denials.generation() >= one.generation() && **one != read.denials
        };
        if differs(&self.denials.borrow().clone()) {
            tracing::warn!(
                generation = read.denials.generation(),
                "another deny list is in force"
            );
            self.denials.send_replace(Arc::new(read.denials.clone()));
        } else if read.denials.generation() < self.denials.borrow().generation() {
            tracing::error!("the CA offers an older deny list than the one in force, which stays");
        }
        let anchors = anchors_of(&read.bundles);
        replace_if_new(&self.anchors, anchors);
        replace_if_new(&self.keys, Arc::new(read.own_keys.clone()));
        let foreign = self.foreign.borrow().clone();
        let others = read
            .bundles
            .iter()
            .filter(|bundle| bundle.domain() != domain);
        let next = Foreign {
            revision: foreign.revision,
            x509: others.cloned().collect(),
            jwt: read.other_keys.clone(),
        };
        if next != *foreign {
            let revision = foreign.revision + 1;
            self.foreign
                .send_replace(Arc::new(Foreign { revision, ..next }));
        }
        replace_if_new(&self.replace, Arc::clone(&read.replace));
    }
}

fn replace_if_new<T: PartialEq>(sender: &watch::Sender<T>, next: T) {
    sender.send_if_modified(|held| {
        let new = *held != next;
        if new {
            *held = next;
        }
        new
    });
}

/// Processes that held SVIDs and have ended, for the CA to know. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Ended {
    processes: Arc<Mutex<VecDeque<String>>>,
    news: Arc<Notify>,
}

impl Ended {
    /// Notes that a process has ended.
    pub(super) fn note(&self, process: &str) {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if processes.len() >= ENDED_PROCESSES_MAX {
            // A rotation waits for one that is forgotten until its SVID ends.
            processes.pop_front();
        }
        processes.push_back(process.to_owned());
        drop(processes);
        self.news.notify_one();
    }

    fn all(&self) -> Vec<String> {
        let processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.iter().cloned().collect()
    }
}

/// What keeps a node up to date.
pub(super) struct Following {
    pub(super) link: NodeLink,
    pub(super) told: Told,
    pub(super) ended: Ended,
    pub(super) enforcers: Enforcers,
    pub(super) state: State,
    pub(super) platform: Arc<dyn Platform>,
}

impl Following {
    /// Follows the CA and renews the node's SVID, for ever.
    pub(super) async fn run(mut self) -> Infallible {
        let svid = self.link.identity().svid().clone();
        let mut renewal = Renewal::issued(self.now(), svid.not_after(), self.platform.dice());
        let (mut pause, mut stream) = (NODE_RETRY.0, None);
        loop {
            let held = match &mut stream {
                Some(held) => held,
                None => match self.open().await {
                    Ok(opened) => stream.insert(opened),
                    Err(error) => {
                        self.complain(&error);
                        renewal = self.renewed_if_due(renewal).await;
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(NODE_RETRY.1);
                        continue;
                    }
                },
            };
            let nap = until(renewal.wake_at(), self.platform.wall_clock());
            let step = tokio::select! {
                update = held.updates.message() => Step::Told(update),
                () = self.ended.news.notified() => Step::Report,
                changed = held.followers.changed() => match changed {
                    Ok(()) => Step::Report,
                    Err(_) => Step::Told(Ok(None)),
                },
                () = tokio::time::sleep(nap) => Step::Wake,
            };
            match step {
                Step::Told(Ok(Some(update))) => {
                    pause = NODE_RETRY.0;
                    if self.take(update) {
                        renewal = renewal.due_now(self.now());
                    }
                    held.report(self.now_enforced());
                }
                Step::Told(outcome) => {
                    let why = outcome.err().map(|status| status.message().to_owned());
                    tracing::warn!(why, "the CA's stream ended; what is in force stays so");
                    stream = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(NODE_RETRY.1);
                }
                Step::Report => held.report(self.now_enforced()),
                Step::Wake => {}
            }
            renewal = self.renewed_if_due(renewal).await;
        }
    }

    fn now(&self) -> Timestamp {
        self.platform.wall_clock()
    }

    fn complain(&self, error: &NodeError) {
        let over = self.link.identity().svid().not_after() <= self.now();
        if over {
            tracing::error!(%error, "the node's SVID has ended: this machine must join again, with a new token");
        } else {
            tracing::warn!(%error, "the CA is not followed; what is in force stays so");
        }
    }

    async fn open(&self) -> Result<Stream, NodeError> {
        // The CA learns at once what is enforced here: its own list may be older.
        let (reports, outgoing) = watch::channel(self.now_enforced());
        let updates = self.link.watch(outgoing).await?;
        Ok(Stream {
            updates,
            reports,
            followers: self.enforcers.changes(),
        })
    }

    fn now_enforced(&self) -> NodeReport {
        NodeReport {
            denials_generation: self.told.denials.borrow().generation(),
            enforcers: self.enforcers.all(),
            ended_processes: self.ended.all(),
        }
    }

    /// Puts an update into force and on disk, and says whether the node's own SVID is to be replaced.
    fn take(&mut self, update: NodeUpdate) -> bool {
        let domain = self.link.domain().clone();
        let read = match self.told.read(&domain, update) {
            Ok(read) => read,
            Err(why) => {
                tracing::error!(
                    why,
                    "what the CA tells cannot be used; the last of it stays in force"
                );
                return false;
            }
        };
        self.told.apply(&domain, &read);
        self.link.believe(&read.bundles);
        let denials = self.told.denials.borrow().clone();
        if self.state.held.bundles != read.bundles || self.state.denials != denials {
            self.state.held.bundles = read.bundles;
            self.state.denials = denials;
            self.save();
        }
        read.replace.contains(self.link.identity().svid().serial())
    }

    fn save(&self) {
        if let Err(error) = self.state.save() {
            tracing::error!(%error, "the node's files are not up to date: after a restart it may have to join again");
        }
    }

    /// Renews the node's own SVID if it is due.
    async fn renewed_if_due(&mut self, renewal: Renewal) -> Renewal {
        let renewal = renewal.step(Event::Tick, self.now(), self.platform.dice());
        if !renewal.is_due(self.now()) {
            return renewal;
        }
        match self.link.renew().await {
            Ok(mut held) => {
                let (tls, not_after) = (held.tls.clone(), held.tls.svid().not_after());
                tracing::info!(serial = tls.svid().serial(), %not_after, "renewed the node's SVID");
                // What the stream says of bundles is newer than what came with this.
                held.bundles = self.state.held.bundles.clone();
                self.state.held = held;
                self.save();
                self.link.show(tls);
                Renewal::issued(self.now(), not_after, self.platform.dice())
            }
            Err(error) => {
                tracing::warn!(%error, "the node's SVID could not be renewed; it stays in use until it ends");
                renewal.step(Event::Failed, self.now(), self.platform.dice())
            }
        }
    }
}

/// An open stream to the CA.
struct Stream {
    updates: tonic::Streaming<NodeUpdate>,
    /// The newest goes out when there is room for it: each says everything.
    reports: watch::Sender<NodeReport>,
    followers: watch::Receiver<u64>,
}

impl Stream {
    fn report(&self, report: NodeReport) {
        replace_if_new(&self.reports, report);
    }
}

enum Step {
    Told(Result<Option<NodeUpdate>, tonic::Status>),
    Report,
    Wake,
}

/// In pieces: the wall clock may jump meanwhile.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    let micros = at.unix_micros().saturating_sub(now.unix_micros()).max(0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).min(CLOCK_CHECK)
}
