//! The signer of a CA: a process that `mesh ca` starts, and the PKCS #11 token that its keys may lie in.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::parts::log_to_stderr;
use clap::Args;
use mesh_ca::{SignerConfig, SignerError, SignerStart, TokenConfig, serve_signer};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// This very program, also if its file was replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A PKCS #11 token in which keys of roots and issuers are made.
#[derive(Args, Clone, Debug)]
pub(crate) struct TokenArgs {
    /// PKCS #11 module, a shared library: keys of roots and issuers are made in a token, and used there
    /// (docs/guides/ca-keys.md).
    #[arg(long, value_name = "FILE", requires_all = ["pkcs11_token", "pkcs11_key", "pkcs11_pin"])]
    pkcs11_module: Option<PathBuf>,
    /// Label of the token.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pkcs11_token: Option<String>,
    /// Label of the keys that are made in it: of this CA alone.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pkcs11_key: Option<String>,
    /// File that holds the token's user PIN, mode 0600.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pkcs11_pin: Option<PathBuf>,
    /// Folder that the module reads and writes, beside the system's, which it reads; may be given several times.
    #[arg(long, value_name = "DIR", requires = "pkcs11_module")]
    pkcs11_files: Vec<PathBuf>,
}

/// Holds the private keys of a CA, which starts it.
#[derive(Args, Clone, Debug)]
pub(crate) struct SignerArgs {
    /// Folder of the CA.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Folder in which others keep the issuer.
    #[arg(long, value_name = "DIR")]
    issuer: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArgs,
}

impl TokenArgs {
    /// The token that is meant, if one is.
    pub(crate) fn config(&self) -> Option<TokenConfig> {
        Some(TokenConfig {
            module: self.pkcs11_module.clone()?,
            token: self.pkcs11_token.clone()?,
            key: self.pkcs11_key.clone()?,
            pin: self.pkcs11_pin.clone()?,
            files: self.pkcs11_files.clone(),
        })
    }
}

/// How `mesh ca` starts its signer.
pub(crate) fn start(dir: &Path, issuer: Option<&Path>, token: &TokenArgs) -> SignerStart {
    let mut arguments: Vec<OsString> = vec!["signer".into(), "--dir".into(), dir.into()];
    let mut flag = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    if let Some(issuer) = issuer {
        flag("--issuer", issuer.into());
    }
    if let Some(token) = token.config() {
        flag("--pkcs11-module", token.module.into());
        flag("--pkcs11-token", token.token.into());
        flag("--pkcs11-key", token.key.into());
        flag("--pkcs11-pin", token.pin.into());
        for folder in token.files {
            flag("--pkcs11-files", folder.into());
        }
    }
    SignerStart::Process {
        program: THIS_PROGRAM.into(),
        arguments,
    }
}

/// Runs the signer of the CA whose socket is standard input.
pub(crate) fn run(args: SignerArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let start = |why: String| SignerError::Start { why };
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
        .map_err(|error| start(error.to_string()))?;
    // A person who types the command gets no further than this.
    socket.peer_addr().map_err(|_| {
        start("`mesh ca` starts it, and talks to it on its standard input".to_owned())
    })?;
    let config = SignerConfig {
        dir: args.dir,
        issuer: args.issuer,
        token: args.token.config(),
    };
    serve_signer(&config, socket)?;
    Ok(Exit::Ok)
}
