//! Connections from the proxy to its own application, pooled for each core and port; and to what has no proxy, outside of
//! the mesh, where the proxy may begin TLS itself.
//!
//! A connection goes back to the pool only after its response ended well and the whole request was sent; anything else
//! closes it, so that no byte of one exchange is ever taken for another's (threats H1-12, H1-13).

use crate::answer::Trouble;
use crate::body::{Arriving, Body};
use crate::http1::{Answered, Connection, Home, Nowhere};
use crate::limits::{APP_CONNECT, APP_IDLE, APP_IDLE_MAX, ORIGIN_HANDSHAKE};
use crate::onward::{NotBegun, Onward};
use crate::{io, serve};
use http::{Request, Response, Version};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// The application behind one port, as one core reaches it.
pub(crate) struct App {
    address: SocketAddr,
    port: u16,
    begin: Option<Begin>,
    idle: RefCell<Vec<Idle>>,
    h2: RefCell<Option<http2::SendRequest<Body>>>,
    /// When something was last to be sent over HTTP/2.
    h2_used: Cell<Instant>,
    dialing: tokio::sync::Mutex<()>,
}

/// TLS that is begun on each connection.
pub(crate) struct Begin {
    /// Who must be there.
    pub(crate) name: ServerName<'static>,
    /// The same for people.
    pub(crate) shown: String,
    /// For connections that carry HTTP/1.1.
    pub(crate) http1: Arc<ClientConfig>,
    /// For connections that carry HTTP/2.
    pub(crate) http2: Arc<ClientConfig>,
}

struct Idle {
    connection: Box<Connection<Onward>>,
    since: Instant,
}

impl Home<Onward> for Rc<App> {
    fn take_back(&self, connection: Box<Connection<Onward>>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < APP_IDLE_MAX {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

impl App {
    pub(crate) fn new(address: SocketAddr, port: u16) -> Rc<Self> {
        Self::begun_by(address, port, None)
    }

    /// Somebody outside of the mesh, to whom TLS is begun.
    pub(crate) fn outside(address: SocketAddr, begin: Begin) -> Rc<Self> {
        Self::begun_by(address, address.port(), Some(begin))
    }

    fn begun_by(address: SocketAddr, port: u16, begin: Option<Begin>) -> Rc<Self> {
        Rc::new(Self {
            address,
            port,
            begin,
            idle: RefCell::default(),
            h2: RefCell::default(),
            h2_used: Cell::new(Instant::now()),
            dialing: tokio::sync::Mutex::default(),
        })
    }

    /// Sends one request over HTTP/1.
    ///
    /// # Errors
    /// [`Trouble::AppNotAnswering`], [`Trouble::TlsNotBegun`] or [`Trouble::AppBroke`].
    pub(crate) async fn send_http1(
        self: &Rc<Self>,
        request: Request<Body>,
    ) -> Result<Response<Arriving>, Trouble> {
        let connection = match poll_fn(|cx| Poll::Ready(self.take(cx))).await {
            Some(connection) => connection,
            None => self.dial_http1().await?,
        };
        let answered = connection.exchange(request, self.clone()).await;
        let answered = answered.map_err(|fault| self.broke(&fault))?;
        Ok(answered.response)
    }

    /// Sends one request over a connection of its own, which may become a tunnel.
    ///
    /// # Errors
    /// [`Trouble::AppNotAnswering`], [`Trouble::TlsNotBegun`] or [`Trouble::AppBroke`].
    pub(crate) async fn send_upgrade(
        &self,
        request: Request<Body>,
    ) -> Result<Answered<Onward>, Trouble> {
        let answered = self.dial_http1().await?.exchange(request, Nowhere).await;
        answered.map_err(|fault| self.broke(&fault))
    }

    /// Sends one request over HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// [`Trouble::AppNotAnswering`], [`Trouble::TlsNotBegun`] or [`Trouble::AppBroke`].
    pub(crate) async fn send_http2(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Arriving>, Trouble> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut sender = self.http2().await?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(Arriving::Http)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if attempts < 3 => {
                        *self.h2.borrow_mut() = None;
                        request = unsent;
                    }
                    _ => return Err(self.broke(error.error())),
                },
            }
        }
    }

    /// Sees to it that a request of this version has a connection to go on; says whether one was made for it.
    ///
    /// # Errors
    /// [`Trouble::AppNotAnswering`], [`Trouble::TlsNotBegun`] or [`Trouble::AppBroke`].
    pub(crate) async fn reach(self: &Rc<Self>, version: Version) -> Result<bool, Trouble> {
        if version == Version::HTTP_2 {
            let stood = self.h2.borrow().as_ref().is_some_and(|h2| !h2.is_closed());
            self.http2().await?;
            return Ok(!stood);
        }
        let (connection, made) = match poll_fn(|cx| Poll::Ready(self.take(cx))).await {
            Some(connection) => (connection, false),
            None => (self.dial_http1().await?, true),
        };
        self.take_back(connection);
        Ok(made)
    }

    /// A raw connection.
    ///
    /// # Errors
    /// [`Trouble::AppNotAnswering`].
    pub(crate) async fn connect(&self) -> Result<TcpStream, Trouble> {
        let silent = |why: String| Trouble::AppNotAnswering {
            port: self.port,
            why,
        };
        match timeout(APP_CONNECT, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => {
                io::tune(&stream);
                Ok(stream)
            }
            Ok(Err(error)) => Err(silent(format!("`{}`: {error}", self.address))),
            Err(_) => Err(silent(format!(
                "`{}`: no connection within {} ms",
                self.address,
                APP_CONNECT.as_millis()
            ))),
        }
    }

    /// Who is spoken to in TLS that begins here.
    pub(crate) fn tls_with(&self) -> Option<&str> {
        Some(&self.begin.as_ref()?.shown)
    }

    async fn dial_http1(&self) -> Result<Box<Connection<Onward>>, Trouble> {
        Ok(Connection::new(self.dial(Version::HTTP_11).await?))
    }

    /// A connection for requests of this version. Where TLS is to begin, nothing else is ever there.
    async fn dial(&self, version: Version) -> Result<Onward, Trouble> {
        let stream = self.connect().await?;
        let Some(begin) = &self.begin else {
            return Ok(Onward::Plain(stream));
        };
        let not_begun = |why| Trouble::TlsNotBegun {
            to: self.address,
            server_name: begin.shown.clone(),
            why,
        };
        let (config, inside): (_, &[u8]) = match version {
            Version::HTTP_2 => (&begin.http2, b"h2"),
            _ => (&begin.http1, b"http/1.1"),
        };
        let connector = TlsConnector::from(config.clone());
        let begun = timeout(
            ORIGIN_HANDSHAKE,
            connector.connect(begin.name.clone(), stream),
        );
        let stream = match begun.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(not_begun(NotBegun::of(&error))),
            Err(_) => return Err(not_begun(NotBegun::Late)),
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(agreed) if agreed == inside => {}
            // Servers that know nothing of ALPN speak HTTP/1.1.
            None if version != Version::HTTP_2 => {}
            _ if version == Version::HTTP_2 => return Err(not_begun(NotBegun::Inside("HTTP/2"))),
            _ => return Err(not_begun(NotBegun::Inside("HTTP/1.1"))),
        }
        Ok(Onward::Tls(Box::new(stream)))
    }

    async fn http2(&self) -> Result<http2::SendRequest<Body>, Trouble> {
        self.h2_used.set(Instant::now());
        let open = |slot: &RefCell<Option<http2::SendRequest<Body>>>| {
            slot.borrow().as_ref().filter(|s| !s.is_closed()).cloned()
        };
        if let Some(sender) = open(&self.h2) {
            return Ok(sender);
        }
        let _alone = self.dialing.lock().await;
        if let Some(sender) = open(&self.h2) {
            return Ok(sender);
        }
        let stream = self.dial(Version::HTTP_2).await?;
        let handshake = serve::h2_client().handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| self.broke(&error))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the application ended");
            }
        });
        *self.h2.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }

    /// The connection used last: the others can run out.
    fn take(&self, cx: &mut Context<'_>) -> Option<Box<Connection<Onward>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut candidate) = idle.pop() {
            if candidate.since.elapsed() > APP_IDLE {
                idle.clear(); // those below are older still
                return None;
            }
            if candidate.connection.is_quiet(cx) {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Closes connections that were idle for too long. Called now and then.
    pub(crate) fn sweep(&self) {
        let cx = &mut Context::from_waker(Waker::noop());
        self.idle
            .borrow_mut()
            .retain_mut(|idle| idle.since.elapsed() <= APP_IDLE && idle.connection.is_quiet(cx));
    }

    /// Lets go of a connection over HTTP/2 on which nothing was sent for too long. It ends with the last of its streams.
    pub(crate) fn rest(&self) {
        if self.h2_used.get().elapsed() > APP_IDLE {
            *self.h2.borrow_mut() = None;
        }
    }

    /// Whether no connection is kept.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.borrow().is_empty() && self.h2.borrow().as_ref().is_none_or(|h2| h2.is_closed())
    }

    fn broke(&self, error: &dyn Error) -> Trouble {
        Trouble::AppBroke {
            port: self.port,
            why: root_cause(error),
            late: false,
        }
    }
}

/// The innermost cause, which says most.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that has a connection over HTTP/2, to somebody who says nothing; the other end. Needs a `LocalSet`.
    pub(crate) async fn over_h2() -> (Rc<App>, tokio::io::DuplexStream) {
        let app = App::new(SocketAddr::from(([203, 0, 113, 9], 443)), 443);
        let (own, other) = tokio::io::duplex(64 * 1024);
        let (sender, connection) = serve::h2_client()
            .handshake(TokioIo::new(own))
            .await
            .unwrap();
        tokio::task::spawn_local(connection);
        *app.h2.borrow_mut() = Some(sender);
        (app, other)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_over_http2_is_let_go_when_nothing_was_sent_on_it_for_a_while() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (app, _other) = over_h2().await;
                app.rest();
                assert!(!app.is_idle());
                tokio::time::advance(APP_IDLE).await;
                assert!(app.http2().await.is_ok(), "used once more");
                tokio::time::advance(APP_IDLE).await;
                app.rest();
                assert!(!app.is_idle(), "not longer ago than that");
                tokio::time::advance(APP_IDLE).await;
                app.rest();
                assert!(app.is_idle());
            })
            .await;
    }
}
