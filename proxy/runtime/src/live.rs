//! What is alive on one core: connections, byte streams and requests, so that a change of policy or the end of a
//! certificate reaches them.
//!
//! Everything that runs holds a [`Kill`] and a [`Registration`]. [`Live::recheck`] decides each entry anew; whoever is no
//! longer allowed has its [`Kill`] ended, and the task that carries its bytes stops at once.

use crate::classes::Familiar;
use crate::roll::{Entered, Roll};
use crate::shadow::Policy;
use crate::telemetry::Edges;
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Decision, Verdict, decide_on};
use mesh_policy::request::{Call, Client, Head, Headers};
use mesh_trust::{Svid, Timestamp, TrustBundles};
use rustls_pki_types::CertificateDer;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Why something alive was ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Policy no longer allows it.
    Revoked,
    /// The peer's certificate ran out, or its trust anchor is gone.
    PeerExpired,
}

/// Who waits for a [`Kill`]: each has its own place for a waker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// The response body, or the byte stream.
    Response = 0,
    /// The request body.
    Request = 1,
    /// Whoever waits for the response head, or the connection's task.
    Head = 2,
}

/// A switch that ends one live thing. Clones are the same switch.
#[derive(Clone, Default)]
pub(crate) struct Kill(Rc<KillState>);

#[derive(Default)]
struct KillState {
    ended: Cell<Option<End>>,
    wakers: RefCell<[Option<Waker>; 3]>,
}

impl Kill {
    /// Ends it; the first reason stays.
    pub(crate) fn end(&self, why: End) {
        if self.0.ended.get().is_none() {
            self.0.ended.set(Some(why));
            let wakers = std::mem::take(&mut *self.0.wakers.borrow_mut());
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }

    pub(crate) fn poll(&self, slot: Slot, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.0.ended.get() {
            return Poll::Ready(end);
        }
        if let Some(place) = self.0.wakers.borrow_mut().get_mut(slot as usize) {
            match place {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => *place = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }

    /// Whether it was ended; waits for nothing.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.ended.get().is_some()
    }

    /// Why it was ended, if it was.
    pub(crate) fn why(&self) -> Option<End> {
        self.0.ended.get()
    }

    /// Waits in [`Slot::Head`].
    pub(crate) async fn ended(&self) -> End {
        poll_fn(|cx| self.poll(Slot::Head, cx)).await
    }
}

/// A request as it was judged, kept to be judged again.
#[derive(Debug)]
pub(crate) struct JudgedHead {
    pub(crate) method: http::Method,
    /// In origin form, otherwise as it came: the decision canonicalizes it.
    pub(crate) uri: http::Uri,
    pub(crate) host: Option<http::uri::Authority>,
    pub(crate) grpc: bool,
    pub(crate) headers: JudgedHeaders,
}

/// The headers of a [`JudgedHead`], as the decision reads them.
#[derive(Debug)]
pub(crate) struct JudgedHeaders(pub(crate) http::HeaderMap);

impl Headers for JudgedHeaders {
    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0
            .get_all(name)
            .iter()
            .for_each(|value| each(value.as_bytes()));
    }
}

impl JudgedHead {
    /// As the decision wants it.
    pub(crate) fn call(&self) -> Call<'_> {
        Call::Http(self.head())
    }

    /// As it was judged.
    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            method: self.method.as_str(),
            target: self
                .uri
                .path_and_query()
                .map_or("", http::uri::PathAndQuery::as_str),
            host: self.host.as_ref().map(http::uri::Authority::as_str),
            grpc: self.grpc,
            headers: &self.headers,
        }
    }
}

/// What an entry is, and so how it is decided anew.
#[derive(Clone, Debug)]
pub(crate) enum Alive {
    /// A connection: never denied by policy as such, but ends with its peer's certificate.
    Connection,
    /// A byte stream.
    Tcp,
    /// A request, until its response has ended.
    Http(Rc<JudgedHead>),
}

impl Alive {
    fn call(&self) -> Option<Call<'_>> {
        match self {
            Self::Connection => None,
            Self::Tcp => Some(Call::Tcp),
            Self::Http(head) => Some(head.call()),
        }
    }
}

/// Whose it is: what is known of one connection's client, and where it arrived.
pub(crate) struct Peer {
    pub(crate) client: Client,
    /// Chain of the client, to be verified again when trust anchors change; empty without TLS.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Port of the workload.
    pub(crate) port: u16,
    /// The constant half of its decisions, for the snapshot it was made of.
    atoms: RefCell<Option<(Arc<Policy>, ConnectionAtoms)>>,
    /// The same for the candidate beside it, once it was tried.
    beside: RefCell<Option<ConnectionAtoms>>,
    /// Where it is counted.
    pub(crate) edges: Edges,
    /// Where what it is allowed is counted for the log.
    pub(crate) familiar: Familiar,
}

impl Peer {
    pub(crate) fn new(client: Client, chain: Vec<CertificateDer<'static>>, port: u16) -> Rc<Self> {
        Rc::new(Self {
            client,
            chain,
            port,
            atoms: RefCell::default(),
            beside: RefCell::default(),
            edges: Edges::default(),
            familiar: Familiar::default(),
        })
    }

    /// Decides `call` of this client under `policy`.
    pub(crate) fn decide(&self, policy: &Arc<Policy>, call: &Call<'_>, now: Timestamp) -> Decision {
        let mut atoms = self.atoms.borrow_mut();
        match &*atoms {
            Some((of, current)) if Arc::ptr_eq(of, policy) => {
                decide_on(current, self.port, call, now)
            }
            _ => {
                let current = ConnectionAtoms::of(policy, &self.client);
                let decision = decide_on(&current, self.port, call, now);
                *atoms = Some((policy.clone(), current));
                // Whatever was tried beside the policy of before is let go.
                self.beside.take();
                decision
            }
        }
    }

    /// What `candidate` would decide about it.
    pub(crate) fn decide_beside(
        &self,
        candidate: &Snapshot,
        call: &Call<'_>,
        now: Timestamp,
    ) -> Decision {
        let mut beside = self.beside.borrow_mut();
        let known = beside.take().filter(|atoms| atoms.snapshot().is(candidate));
        let atoms = known.unwrap_or_else(|| ConnectionAtoms::of(candidate, &self.client));
        let decision = decide_on(&atoms, self.port, call, now);
        *beside = Some(atoms);
        decision
    }
}

/// Something that runs, and whose it is.
pub(crate) struct Entry {
    peer: Rc<Peer>,
    what: Alive,
    kill: Kill,
}

/// Everything alive on one core that came from a client of this workload.
#[derive(Default)]
pub(crate) struct Live(Roll<Entry>);

/// A place in [`Live`]; dropping it leaves.
pub(crate) type Registration = Entered<Entry>;

/// Something that policy no longer allows.
pub(crate) struct Revoked {
    pub(crate) peer: Rc<Peer>,
    pub(crate) what: Alive,
    pub(crate) decision: Decision,
    /// When it was decided.
    pub(crate) at: Timestamp,
}

impl Live {
    /// Enters something that runs.
    pub(crate) fn enter(&self, peer: Rc<Peer>, what: Alive, kill: Kill) -> Registration {
        self.0.enter(Entry { peer, what, kill })
    }

    /// Decides every entry under `policy` at `now` and ends those that it does not allow.
    pub(crate) fn recheck(&self, policy: &Arc<Policy>, now: Timestamp) -> Vec<Revoked> {
        let mut revoked = Vec::new();
        for (_, entry) in self.0.all().iter() {
            let Some(call) = entry.what.call() else {
                continue;
            };
            let decision = entry.peer.decide(policy, &call, now);
            if decision.verdict == Verdict::Deny {
                entry.kill.end(End::Revoked);
                revoked.push(Revoked {
                    peer: entry.peer.clone(),
                    what: entry.what.clone(),
                    decision,
                    at: now,
                });
            }
        }
        revoked
    }

    /// Ends whatever belongs to a peer whose certificate is past its end at `now`; says how many.
    pub(crate) fn end_expired(&self, now: Timestamp) -> usize {
        self.end_where(|peer| peer.client.expires.is_some_and(|end| end < now))
    }

    /// Ends whatever belongs to a peer that `bundles` would no longer trust; says how many.
    pub(crate) fn end_untrusted(&self, bundles: &TrustBundles, now: Timestamp) -> usize {
        self.end_where(|peer| {
            let untrusted =
                |chain| Svid::parse(chain).is_ok_and(|svid| bundles.verify(&svid, now).is_err());
            !peer.chain.is_empty() && untrusted(peer.chain.clone())
        })
    }

    fn end_where(&self, gone: impl Fn(&Peer) -> bool) -> usize {
        let entries = self.0.all();
        let ended = entries.iter().filter(|(_, entry)| gone(&entry.peer));
        ended
            .map(|(_, entry)| entry.kill.end(End::PeerExpired))
            .count()
    }
}
