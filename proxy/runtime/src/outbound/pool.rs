//! Connections to the proxies of endpoints. Requests share connections ([`crate::mux`]), per core and endpoint; a byte stream or
//! an upgrade has one of its own.
//!
//! A connection made under an older SVID or bundle takes no new request: it ends once its requests have.

use crate::core::Core;
use crate::io::ReadAhead;
use crate::limits::MESH_STREAMS_MAX;
use crate::mux::client::{self, Sender};
use crate::state::Shared;
use crate::telemetry::Edges;
use mesh_api::discovery::Endpoint;
use mesh_proxy_core::mesh_header::{self, Header, Kind};
use mesh_proxy_core::metrics::Failure;
use mesh_proxy_core::route::session::Token;
use mesh_trust::tls::{refusal_in_io, server_name, verified_peer};
use mesh_trust::{SpiffeId, Timestamp};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Requests on one connection before another is made: fewer than the server allows, so that none waits for a place.
const STREAMS_BUSY: usize = MESH_STREAMS_MAX - 16;

/// An endpoint and the connections to it. Equal endpoints are equal, whatever their connections.
pub(crate) struct Remote {
    pub(crate) endpoint: Endpoint,
    connections: RefCell<Vec<Connection>>,
    dialing: tokio::sync::Mutex<()>,
    edges: Edges,
    /// Whether the pool of its core knows it.
    noted: Cell<bool>,
    /// What stands for it in sessions, once somebody asked.
    token: OnceCell<Token>,
}

struct Connection {
    sender: Sender,
    /// Version of the identity it was made under.
    version: u64,
    /// End of the server's certificate.
    expires: Timestamp,
    streams: Rc<Cell<usize>>,
}

/// A request's place on its connection.
pub(crate) struct Flight(Rc<Cell<usize>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Why an endpoint cannot be used.
#[derive(Debug)]
pub(crate) struct DialError {
    /// Whether it took too long, rather than failed.
    pub(crate) late: bool,
    /// Whether this proxy itself has nothing to show.
    pub(crate) no_identity: bool,
    pub(crate) why: String,
}

impl PartialEq for Remote {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
    }
}

impl Eq for Remote {}

impl Remote {
    pub(crate) fn new(endpoint: Endpoint) -> Rc<Self> {
        Rc::new(Self {
            endpoint,
            connections: RefCell::default(),
            dialing: tokio::sync::Mutex::default(),
            edges: Edges::default(),
            noted: Cell::default(),
            token: OnceCell::new(),
        })
    }

    /// Who must answer, and where that is counted.
    pub(crate) fn edge(&self) -> (&SpiffeId, &Edges) {
        (&self.endpoint.identity, &self.edges)
    }

    /// What stands for it in sessions of `service`, of which it is an endpoint.
    pub(crate) fn token(&self, service: &str) -> Token {
        *self.token.get_or_init(|| {
            let one = &self.endpoint;
            Token::of(service, &one.workload, one.port, &one.identity)
        })
    }

    /// A place for one request.
    ///
    /// # Errors
    /// [`DialError`] if no connection stands and none can be made.
    pub(crate) async fn requests(&self, core: &Core) -> Result<(Sender, Flight), DialError> {
        let version = core
            .shared
            .identity
            .load()
            .as_ref()
            .map_or(0, |identity| identity.version);
        let now = core.shared.platform.wall_clock();
        if let Some(place) = self.place(version, now) {
            return Ok(place);
        }
        let _alone = self.dialing.lock().await;
        if let Some(place) = self.place(version, now) {
            return Ok(place);
        }
        let (stream, version) = self.stream(core, Kind::Requests).await?;
        let standing = core.remotes.enter(stream.get_ref().1);
        let expires = verified_peer(stream.get_ref().1).map_or(now, |peer| peer.not_after());
        let (sender, connection) = client::connect(stream);
        tokio::task::spawn_local(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a mesh connection ended");
                },
                _ = standing.kill().ended() => {}
            }
        });
        let streams = Rc::new(Cell::new(1));
        self.connections.borrow_mut().push(Connection {
            sender: sender.clone(),
            version,
            expires,
            streams: streams.clone(),
        });
        Ok((sender, Flight(streams)))
    }

    fn place(&self, version: u64, now: Timestamp) -> Option<(Sender, Flight)> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            connection.version >= version
                && connection.expires >= now
                && !connection.sender.is_closed()
        });
        let connection = connections
            .iter()
            .find(|connection| connection.streams.get() < STREAMS_BUSY)?;
        connection.streams.set(connection.streams.get() + 1);
        Some((
            connection.sender.clone(),
            Flight(connection.streams.clone()),
        ))
    }

    /// Forgets connections that were just found unusable.
    pub(crate) fn forget_closed(&self) {
        self.connections
            .borrow_mut()
            .retain(|connection| !connection.sender.is_closed());
    }

    /// A connection of its own, its header sent; with the version of the identity it was made under.
    ///
    /// # Errors
    /// [`DialError`] with the cause.
    pub(crate) async fn stream(
        &self,
        core: &Core,
        kind: Kind,
    ) -> Result<(TlsStream<ReadAhead<TcpStream>>, u64), DialError> {
        dial_within(&core.shared, &self.endpoint, kind).await
    }
}

/// A connection to the proxy of an endpoint, its header sent, within the time for that; with the version of the identity
/// it was made under.
///
/// # Errors
/// [`DialError`] with the cause.
pub(crate) async fn dial_within(
    shared: &Shared,
    endpoint: &Endpoint,
    kind: Kind,
) -> Result<(TlsStream<ReadAhead<TcpStream>>, u64), DialError> {
    let limit = shared.config.limits.connect;
    match timeout(limit, dial(shared, endpoint, kind)).await {
        Ok(result) => result,
        Err(_) => Err(DialError {
            late: true,
            no_identity: false,
            why: format!(
                "`{}` did not answer within {} ms",
                endpoint.proxy,
                limit.as_millis()
            ),
        }),
    }
}

async fn dial(
    shared: &Shared,
    endpoint: &Endpoint,
    kind: Kind,
) -> Result<(TlsStream<ReadAhead<TcpStream>>, u64), DialError> {
    let at = |why: String| DialError::failed(format!("`{}`: {why}", endpoint.proxy));
    let identity = shared.identity.load_full();
    let identity = identity
        .filter(|identity| !identity.expired(shared.platform.wall_clock()))
        .ok_or_else(|| DialError {
            no_identity: true,
            ..DialError::failed("no SVID, or it has expired".to_owned())
        })?;
    let config = identity.client(&endpoint.identity).map_err(&at)?;
    let stream = TcpStream::connect(endpoint.proxy)
        .await
        .map_err(|error| at(error.to_string()))?;
    crate::io::tune(&stream);
    let mut stream = TlsConnector::from(config)
        .connect(server_name(), ReadAhead::new(stream))
        .await
        .map_err(|error| {
            let refusal = refusal_in_io(&error);
            if let Some(refusal) = refusal {
                shared.count_refusal(refusal);
            }
            at(refusal.map_or_else(|| error.to_string(), ToString::to_string))
        })?;
    if stream.get_ref().1.alpn_protocol() != Some(mesh_header::ALPN) {
        return Err(at("it does not speak the mesh protocol".to_owned()));
    }
    let header = mesh_header::encode(&Header {
        kind,
        port: endpoint.port,
    });
    stream
        .write_all(&header)
        .await
        .map_err(|error| at(error.to_string()))?;
    Ok((stream, identity.version))
}

impl DialError {
    fn failed(why: String) -> Self {
        Self {
            late: false,
            no_identity: false,
            why,
        }
    }

    /// As a metric counts it.
    pub(crate) fn failure(&self) -> Failure {
        if self.late {
            Failure::Timeout
        } else {
            Failure::Connect
        }
    }
}

/// All remotes of one core that have been used, for upkeep.
#[derive(Default)]
pub(crate) struct Pool(RefCell<Vec<Weak<Remote>>>);

impl Pool {
    /// Remembers a remote that is in use.
    pub(crate) fn note(&self, remote: &Rc<Remote>) {
        if !remote.noted.replace(true) {
            self.0.borrow_mut().push(Rc::downgrade(remote));
        }
    }

    /// Lets go of connections made under an older identity: they end with their last request.
    pub(crate) fn retire_before(&self, version: u64) {
        for remote in self.0.borrow().iter().filter_map(Weak::upgrade) {
            remote
                .connections
                .borrow_mut()
                .retain(|connection| connection.version >= version);
        }
    }

    /// Drops what has ended.
    pub(crate) fn sweep(&self) {
        self.0
            .borrow_mut()
            .retain(|remote| remote.strong_count() > 0);
        self.0
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|remote| remote.forget_closed());
    }
}
