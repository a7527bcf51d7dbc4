//! The deny list: kept on disk, changed by the operator on the admin socket, streamed to whoever verifies.
//!
//! A change is on disk before it counts. Then the CA gives a denied identity neither SVIDs nor tokens and ends its
//! streams; a workload whose certificate or key was denied gets a new one at once; a denied issuer is replaced. Every
//! proxy follows the list, on the Workload API's socket ([`Watching`]) or over the network ([`remote`]), and says which
//! one it enforces.

mod enforcers;
pub(crate) mod remote;

pub(crate) use enforcers::{Enforcers, Enforcing, Follower};

use crate::agent::{Agent, nobody};
use crate::audit::{self, LogCopy};
use crate::error::CaError;
use crate::error::coded;
use crate::issuing::Issuing;
use crate::limits::CATCH_UP_EVERY;
use crate::listen::Peer;
use crate::store::Store;
use mesh_api::proto::denial_admin_server::DenialAdmin;
use mesh_api::proto::denials_server::Denials as DenialsService;
use mesh_api::proto::{
    AllowRequest, DenialsAck, DenialsReply, DenialsUpdate, DeniedRequest, DenyRequest,
};
use mesh_platform::{Platform, Tick};
use mesh_trust::deny::{DenialError, Note};
use mesh_trust::limits::DENIALS_BYTES_MAX;
use mesh_trust::{Denials, Denied};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Name of the list in the CA's directory.
const FILE: &str = "denied.json";

/// Why a change was not made.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum ChangeError {
    /// Not on the list, or not of a form that can be.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Denial(#[from] DenialError),
    /// Nothing to allow.
    #[error("{what} is not denied")]
    #[diagnostic(code("MESH-0274"), help("`mesh identity denied` lists what is"))]
    NotDenied {
        /// What was to be allowed.
        what: String,
    },
    /// The list could not be written, so it stays as it was.
    #[error("the deny list was not changed: {why}")]
    #[diagnostic(
        code("MESH-0275"),
        help("make the CA's directory writable, with free space, and try again")
    )]
    NotStored {
        /// What the disk said.
        why: String,
    },
}

/// The list in force, and who enforces it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DenyList {
    store: Arc<Mutex<Store>>,
    list: Arc<watch::Sender<Arc<Denials>>>,
    enforcers: Enforcers,
    /// When it was numbered anew the last time, because somebody held a newer one.
    caught_up: Arc<Mutex<Option<Tick>>>,
    platform: Arc<dyn Platform>,
}

impl DenyList {
    /// Reads the list in `dir`; none is an empty one.
    pub(crate) fn open(dir: &Path, platform: Arc<dyn Platform>) -> Result<Self, CaError> {
        let store = Store::new(dir);
        let list = match store.read_if_there(FILE, DENIALS_BYTES_MAX as u64)? {
            None => Denials::default(),
            Some(text) => Denials::from_json(&text)
                .map_err(|error| store.corrupt(FILE, &error.to_string()))?,
        };
        Ok(Self {
            store: Arc::new(Mutex::new(store)),
            list: Arc::new(watch::Sender::new(Arc::new(list))),
            enforcers: Enforcers::default(),
            caught_up: Arc::default(),
            platform,
        })
    }

    /// The list, as it changes.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Denials>> {
        self.list.subscribe()
    }

    /// The list now.
    pub(crate) fn current(&self) -> Arc<Denials> {
        self.list.borrow().clone()
    }

    /// Puts the list that `change` makes of the present one on disk, and then into force.
    fn change(
        &self,
        change: impl FnOnce(&Denials) -> Result<Denials, ChangeError>,
    ) -> Result<(), ChangeError> {
        // One change at a time, from the reading to the writing.
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let next = change(&self.current())?;
        store
            .write(FILE, next.to_json().as_bytes())
            .map_err(|error| ChangeError::NotStored {
                why: error.to_string(),
            })?;
        self.list.send_replace(Arc::new(next));
        Ok(())
    }

    fn deny(&self, what: Denied, reason: &str) -> Result<(), ChangeError> {
        let now = self.platform.wall_clock();
        tracing::warn!(%what, ?reason, "an operator denied");
        self.change(|list| Ok(list.deny(what, now, reason)?))
    }

    /// Denies what was issued to the nodes on the list, now that nothing more is. Whoever verifies cannot see in a
    /// certificate to which machine it was issued. How many were not denied before.
    pub(crate) async fn deny_what_nodes_hold(
        &self,
        issuing: &Issuing,
    ) -> Result<usize, ChangeError> {
        let list = self.current();
        let nodes: Vec<(String, Note)> = list
            .iter()
            .filter_map(|(what, note)| match what {
                Denied::Node(name) => Some((name.clone(), note.clone())),
                _ => None,
            })
            .collect();
        if nodes.is_empty() {
            return Ok(0);
        }
        let found = issuing.with_desk(move |desk| {
            let held = |(name, note): (String, Note)| {
                let reason = format!("node {name}: {}", note.reason);
                let serials = desk.serials_on(&name);
                serials
                    .into_iter()
                    .map(move |serial| (serial, reason.clone()))
            };
            nodes.into_iter().flat_map(held).collect::<Vec<_>>()
        });
        let found = found.await.map_err(|error| ChangeError::NotStored {
            why: error.to_string(),
        })?;
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.deny_serials(found)).await;
        done.unwrap_or_else(|error| {
            let why = error.to_string();
            Err(ChangeError::NotStored { why })
        })
    }

    /// Denies certificates, each for its reason; those that are denied already stay so for theirs. If the list has no
    /// room for all, it takes what it has room for, and that it does not is the error.
    fn deny_serials(&self, serials: Vec<(String, String)>) -> Result<usize, ChangeError> {
        let list = self.current();
        let new = serials
            .into_iter()
            .map(|(serial, reason)| (Denied::Serial(serial), reason))
            .filter(|(what, _)| !list.contains(what));
        let new: Vec<_> = new.collect();
        let all = new.len();
        if all == 0 {
            return Ok(0);
        }
        let now = self.platform.wall_clock();
        let (mut count, mut left) = (0, None);
        self.change(|list| {
            let mut next = list.clone();
            for (what, reason) in new {
                match next.deny(what, now, &reason) {
                    Ok(longer) => (next, count) = (longer, count + 1),
                    Err(error) => {
                        left = Some(error);
                        break;
                    }
                }
            }
            match left.take_if(|_| count == 0) {
                Some(error) => Err(error.into()),
                None => Ok(next),
            }
        })?;
        tracing::warn!(
            certificates = count,
            of = all,
            "denied what was issued to denied nodes"
        );
        left.map_or(Ok(count), |error| Err(error.into()))
    }

    fn allow(&self, what: &Denied) -> Result<(), ChangeError> {
        tracing::warn!(%what, "an operator allowed again");
        self.change(|list| {
            list.allow(what).ok_or_else(|| ChangeError::NotDenied {
                what: what.to_string(),
            })
        })
    }

    /// A proxy holds a newer list than we do: our files are from a backup. Its number must not hide ours.
    pub(crate) fn catch_up(&self, generation: u64) {
        if generation <= self.current().generation() || !self.may_catch_up() {
            return;
        }
        tracing::error!(
            generation,
            "a proxy holds a newer deny list than this CA, whose files seem to be from a backup: deny again what is missing"
        );
        if let Err(error) = self.change(|list| Ok(list.numbered(generation.saturating_add(1)))) {
            tracing::error!(%error, "the deny list could not be numbered anew");
        }
    }

    fn may_catch_up(&self) -> bool {
        let now = self.platform.monotonic();
        let mut last = self
            .caught_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| now.since(last) >= CATCH_UP_EVERY);
        if may {
            *last = Some(now);
        }
        may
    }

    /// What a stream of the list is fed from.
    pub(crate) fn source(&self) -> ListSource {
        ListSource {
            lists: self.follow(),
            enforcers: self.enforcers.clone(),
            own: Some(self.clone()),
        }
    }

    fn reply(&self) -> DenialsReply {
        DenialsReply {
            list_json: self.current().to_json().into_bytes(),
            enforcers: self.enforcers.all(),
        }
    }
}

/// The list for those who follow it, and what they say. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ListSource {
    pub(crate) lists: watch::Receiver<Arc<Denials>>,
    pub(crate) enforcers: Enforcers,
    /// The list that may be from a backup; none: it is kept on another machine, which is told of everything.
    pub(crate) own: Option<DenyList>,
}

impl ListSource {
    /// Notes that `enforcing` enforces the list of this number.
    pub(crate) fn acknowledged(&self, enforcing: &Enforcing, generation: u64) {
        enforcing.acknowledged(generation);
        if let Some(own) = &self.own {
            own.catch_up(generation);
        }
    }
}

/// Streams the list to attested processes.
pub(crate) struct Watching {
    pub(crate) agent: Agent,
    pub(crate) list: ListSource,
}

async fn follow(
    caller: &crate::agent::Caller,
    list: ListSource,
    mut acks: Streaming<DenialsAck>,
    out: &mpsc::Sender<Result<DenialsUpdate, Status>>,
) -> Result<(), Status> {
    let entitled = caller.attest().await?;
    let first = entitled.first().ok_or_else(nobody)?;
    let enforcing = list.enforcers.begin(Follower {
        id: first.identity.clone(),
        pid: caller.pid(),
        instance: String::new(),
    });
    let mut waits = caller.waits();
    let mut lists = list.lists.clone();
    lists.mark_changed();
    loop {
        caller.recheck(&entitled)?;
        if lists.has_changed().unwrap_or(false) {
            let list_json = lists.borrow_and_update().to_json().into_bytes();
            if out.send(Ok(DenialsUpdate { list_json })).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            ack = acks.message() => match ack? {
                Some(ack) => list.acknowledged(&enforcing, ack.generation),
                None => return Ok(()),
            },
            _ = lists.changed() => lists.mark_changed(),
            waited = caller.wait(&mut waits, out) => waited?,
        }
    }
}

#[tonic::async_trait]
impl DenialsService for Watching {
    type WatchStream = ReceiverStream<Result<DenialsUpdate, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<DenialsAck>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.agent.caller(&request)?;
        let (list, acks) = (self.list.clone(), request.into_inner());
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = follow(&caller, list, acks, &out).await {
                // Nobody listens: nothing to say.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// Takes changes from the operator.
pub(crate) struct Admin {
    pub(crate) list: DenyList,
    pub(crate) issuing: Issuing,
    pub(crate) copy: LogCopy,
}

/// Lets in the CA's own user, and root.
pub(crate) fn check_operator<T>(request: &Request<T>) -> Result<(), Status> {
    let ours = rustix::process::geteuid().as_raw();
    match request.extensions().get::<Peer>() {
        Some(Peer(peer)) if peer.uid == ours || peer.uid == 0 => Ok(()),
        _ => Err(Status::permission_denied("only the CA's own user may")),
    }
}

impl Admin {
    async fn apply(
        &self,
        (action, by, detail): (&str, String, String),
        change: impl FnOnce(&DenyList) -> Result<(), ChangeError> + Send + 'static,
    ) -> Result<Response<DenialsReply>, Status> {
        let list = self.list.clone();
        let done = tokio::task::spawn_blocking(move || change(&list)).await;
        let done = done.map_err(|_| Status::internal("the change did not end"))?;
        let outcome = match &done {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("refused: {error}"),
        };
        audit::record(&self.copy, action, &by, format!("{detail}: {outcome}"));
        done.map_err(|error| status(&error))?;
        Ok(Response::new(self.list.reply()))
    }
}

fn status(error: &ChangeError) -> Status {
    let text = coded(error);
    match error {
        ChangeError::Denial(_) => Status::invalid_argument(text),
        ChangeError::NotDenied { .. } => Status::not_found(text),
        ChangeError::NotStored { .. } => Status::unavailable(text),
    }
}

fn read(json: &[u8]) -> Result<Denied, Status> {
    serde_json::from_slice(json)
        .map_err(|_| Status::invalid_argument("this is nothing that can be denied"))
}

#[tonic::async_trait]
impl DenialAdmin for Admin {
    async fn deny(&self, request: Request<DenyRequest>) -> Result<Response<DenialsReply>, Status> {
        check_operator(&request)?;
        let by = audit::who(&request);
        let DenyRequest { what_json, reason } = request.into_inner();
        let what = read(&what_json)?;
        let asked = ("deny", by.clone(), format!("{what} ({reason})"));
        let is_node = matches!(what, Denied::Node(_));
        let reply = self
            .apply(asked, move |list| list.deny(what, &reason))
            .await?;
        if !is_node {
            return Ok(reply);
        }
        let denied = self.list.deny_what_nodes_hold(&self.issuing).await;
        let outcome = match &denied {
            Ok(count) => format!("{count} certificates of denied nodes: done"),
            Err(error) => format!("certificates of denied nodes: refused: {error}"),
        };
        audit::record(&self.copy, "deny", &by, outcome);
        denied.map_err(|error| status(&error))?;
        Ok(Response::new(self.list.reply()))
    }

    async fn allow(
        &self,
        request: Request<AllowRequest>,
    ) -> Result<Response<DenialsReply>, Status> {
        check_operator(&request)?;
        let by = audit::who(&request);
        let what = read(&request.into_inner().what_json)?;
        let asked = ("allow", by, what.to_string());
        self.apply(asked, move |list| list.allow(&what)).await
    }

    async fn denied(
        &self,
        request: Request<DeniedRequest>,
    ) -> Result<Response<DenialsReply>, Status> {
        check_operator(&request)?;
        Ok(Response::new(self.list.reply()))
    }
}

#[cfg(test)]
mod tests;
