//! Many requests over one connection between two proxies, with as little as that takes.
//!
//! HTTP/2 does the same for strangers; between proxies of one kind its header compression, settings, priorities and
//! padding buy nothing. What stays: frames ([`frame`]), heads as canonical bytes ([`head`]), streams with windows, resets
//! and an orderly end ([`engine`], start at [`Engine`]). No IO: bytes go in and come out.
//!
//! ```text
//! client                       server
//!   Head(end?) ──────────────▶        opens a stream
//!   Data* [Trailers] ────────▶        each direction ends once: with a Head or Data that says so, or with Trailers
//!          ◀──────────── Head Data* [Trailers]
//!   Reset ◀────────────────▶          a stream is over; from a server that has answered in full: read no more
//!   Window ◀───────────────▶          bytes were read: so many more may come
//!   Leave ◀────────────────           open no more streams; answered with Leave, so that both know none is under way
//! ```
//! A stream's id is the place it takes on its connection and how often that place was taken before: to find a stream is
//! to look at a place, and what comes late for a former stream is known to be late.

pub mod engine;
pub mod frame;
pub mod head;
pub mod limits;

pub use engine::{Engine, Event, OpenError, Role, Sent, Taken};

/// A stream of one connection: place in the low eight bits, how often it was taken above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// What concerns no stream.
    pub const CONNECTION: Self = Self(0);

    /// The place, below [`limits::STREAMS_MAX`].
    pub const fn place(self) -> usize {
        self.0 as usize % limits::STREAMS_MAX
    }

    const fn new(place: usize, taken: u32) -> Self {
        Self(taken << limits::STREAMS_MAX.trailing_zeros() | place as u32)
    }

    const fn taken(self) -> u32 {
        self.0 >> limits::STREAMS_MAX.trailing_zeros()
    }
}

/// Why a stream ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The response is whole: the rest of the request is not wanted.
    Enough,
    /// Whoever asked or answered is gone.
    Cancelled,
    /// The proxy cannot go on: a body broke off, or a rule was broken.
    Failed,
}

impl Reset {
    const fn code(self) -> u8 {
        match self {
            Self::Enough => 0,
            Self::Cancelled => 1,
            Self::Failed => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Enough,
            1 => Self::Cancelled,
            2 => Self::Failed,
            _ => return None,
        })
    }
}

/// Why a whole connection ends. Blame: the peer's proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum MuxError {
    /// A frame that has no reading.
    #[error("a frame on a mesh connection cannot be read: {what}")]
    #[diagnostic(
        code("MESH-0403"),
        help("only proxies of the mesh speak here: check the version of the peer's")
    )]
    Frame {
        /// What is wrong.
        what: &'static str,
    },
    /// A head that has no reading.
    #[error("a head on a mesh connection cannot be read: {what}")]
    #[diagnostic(
        code("MESH-0403"),
        help("only proxies of the mesh speak here: check the version of the peer's")
    )]
    Head {
        /// What is wrong.
        what: &'static str,
    },
    /// A frame that may not come now.
    #[error("the peer of a mesh connection broke its rules: {what}")]
    #[diagnostic(
        code("MESH-0403"),
        help("only proxies of the mesh speak here: check the version of the peer's")
    )]
    Rule {
        /// Which.
        what: &'static str,
    },
    /// More of something than a peer may have.
    #[error("the peer of a mesh connection asks for too much: {what}")]
    #[diagnostic(
        code("MESH-0404"),
        help("a proxy that resets or asks without reading is broken, or hostile")
    )]
    TooMuch {
        /// Of what.
        what: &'static str,
    },
}
