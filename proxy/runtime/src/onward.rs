//! A connection that requests go over: in plaintext, or in TLS that the proxy began itself; and why TLS was not begun.

use mesh_proxy_core::metrics::Failure;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection, begun.
pub(crate) enum Onward {
    Plain(TcpStream),
    /// Boxed: its buffers are large, and most connections have none.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Onward {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Onward {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why TLS was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotBegun {
    /// The certificate is for somebody else.
    WrongName,
    /// Nobody among the roots vouches for it.
    UnknownIssuer,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Something else is wrong with it.
    BadCertificate(String),
    /// What came back is no TLS.
    NotTls,
    /// It speaks none of the versions, or of the ciphers, that may be spoken.
    Version,
    /// It does not speak the protocol inside that requests need.
    Inside(&'static str),
    /// It closed the connection.
    Closed,
    /// It did not answer in time.
    Late,
    /// There are no roots to hold it against.
    NoRoots(String),
    /// The host is no name that a certificate can be for.
    BadName,
    /// Something else.
    Other(String),
}

impl NotBegun {
    /// What an error of a handshake says.
    pub(crate) fn of(error: &io::Error) -> Self {
        let inner = error.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(error) => Self::of_tls(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Self::Closed,
                io::ErrorKind::TimedOut => Self::Late,
                _ => Self::Other(error.to_string()),
            },
        }
    }

    fn of_tls(error: &TlsError) -> Self {
        match error {
            TlsError::InvalidCertificate(why) => match why {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                other => Self::BadCertificate(format!("{other:?}")),
            },
            TlsError::InvalidMessage(_) => Self::NotTls,
            TlsError::PeerIncompatible(_)
            | TlsError::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity,
            ) => Self::Version,
            TlsError::NoApplicationProtocol
            | TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Self::Inside("what was offered")
            }
            other => Self::Other(other.to_string()),
        }
    }

    /// As failures of connections are counted.
    pub(crate) const fn failure(&self) -> Failure {
        match self {
            Self::Late => Failure::Timeout,
            Self::NotTls | Self::Version | Self::Inside(_) | Self::Closed | Self::Other(_) => {
                Failure::Connect
            }
            _ => Failure::Identity,
        }
    }

    /// In a word of a bounded set, for metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::WrongName => "wrong-name",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::BadCertificate(_) => "bad-certificate",
            Self::NotTls => "not-tls",
            Self::Version => "version",
            Self::Inside(_) => "alpn",
            Self::Closed => "closed",
            Self::Late => "timeout",
            Self::NoRoots(_) => "no-roots",
            Self::BadName => "bad-name",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongName => f.write_str("its certificate is for another name"),
            Self::UnknownIssuer => {
                f.write_str("its certificate leads to none of the roots that the route names")
            }
            Self::Expired => f.write_str("its certificate, or one above it, has expired"),
            Self::NotYetValid => f.write_str("its certificate, or one above it, is not valid yet"),
            Self::BadCertificate(why) => write!(f, "its certificate cannot be used: {why}"),
            Self::NotTls => f.write_str("what it answered is no TLS"),
            Self::Version => {
                f.write_str("it speaks no version and cipher of TLS that may be spoken with it")
            }
            Self::Inside(protocol) => write!(f, "it does not speak {protocol} inside (ALPN)"),
            Self::Closed => f.write_str("it closed the connection before TLS had begun"),
            Self::Late => f.write_str("it did not answer in time"),
            Self::NoRoots(why) => write!(f, "there are no roots to hold it against: {why}"),
            Self::BadName => f.write_str("the host is no name that a certificate can be for"),
            Self::Other(why) => f.write_str(why),
        }
    }
}
