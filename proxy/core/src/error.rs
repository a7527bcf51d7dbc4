//! What goes wrong at the borders of this crate: MESH-0400 to MESH-0449.

/// Why bytes are no mesh header. Blame: the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum HeaderError {
    /// Another protocol.
    #[error("the stream does not begin with a mesh header")]
    #[diagnostic(
        code("MESH-0400"),
        help("only mesh proxies may connect here: check what dials the mesh port")
    )]
    Magic,
    /// A version of another time.
    #[error("mesh header has version `{version}`; this proxy speaks version `1`")]
    #[diagnostic(
        code("MESH-0401"),
        help("bring both proxies to versions that speak a common header")
    )]
    Version {
        /// What was sent.
        version: u8,
    },
    /// Not the length of this version.
    #[error("mesh header gives its length as `{length}`; it is `12`")]
    #[diagnostic(
        code("MESH-0401"),
        help("bring both proxies to versions that speak a common header")
    )]
    Length {
        /// What was sent.
        length: u8,
    },
    /// Neither a byte stream nor requests.
    #[error("mesh header names the unknown kind `{kind}`")]
    #[diagnostic(
        code("MESH-0401"),
        help("bring both proxies to versions that speak a common header")
    )]
    Kind {
        /// What was sent.
        kind: u8,
    },
    /// Flags or reserved bytes are set.
    #[error("mesh header has `{byte:#04x}` where only zero is known")]
    #[diagnostic(
        code("MESH-0401"),
        help("bring both proxies to versions that speak a common header")
    )]
    Flags {
        /// What was sent.
        byte: u8,
    },
    /// No port.
    #[error("mesh header names port `0`")]
    #[diagnostic(
        code("MESH-0402"),
        help("the peer's discovery gave it an endpoint without a port")
    )]
    PortZero,
}
