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
    /// That file may be root's and be readable by this process' group, mode 0440, as a Secret of Kubernetes is mounted: for
    /// pods, in whose group nobody else is.
    #[arg(long, requires = "pkcs11_pin")]
    pkcs11_pin_by_group: bool,
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
            pin_by_group: self.pkcs11_pin_by_group,
            files: self.pkcs11_files.clone(),
        })
    }

    /// The same for a process that works elsewhere: with absolute paths.
    ///
    /// # Errors
    /// If the working directory cannot be found.
    pub(crate) fn absolute(&self) -> std::io::Result<Self> {
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        Ok(Self {
            pkcs11_module: absolute(&self.pkcs11_module)?,
            pkcs11_pin: absolute(&self.pkcs11_pin)?,
            pkcs11_files: self
                .pkcs11_files
                .iter()
                .map(std::path::absolute)
                .collect::<Result<_, _>>()?,
            ..self.clone()
        })
    }

    /// The flags that say it to a CA, or to a signer.
    pub(crate) fn flags(&self) -> Vec<OsString> {
        let Some(token) = self.config() else {
            return Vec::new();
        };
        let mut flags: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: OsString| flags.extend([name.into(), value]);
        flag("--pkcs11-module", token.module.into());
        flag("--pkcs11-token", token.token.into());
        flag("--pkcs11-key", token.key.into());
        flag("--pkcs11-pin", token.pin.into());
        for folder in token.files {
            flag("--pkcs11-files", folder.into());
        }
        if token.pin_by_group {
            flags.push("--pkcs11-pin-by-group".into());
        }
        flags
    }
}

/// How `mesh ca` starts its signer.
pub(crate) fn start(dir: &Path, issuer: Option<&Path>, token: &TokenArgs) -> SignerStart {
    let mut arguments: Vec<OsString> = vec!["signer".into(), "--dir".into(), dir.into()];
    if let Some(issuer) = issuer {
        arguments.extend(["--issuer".into(), issuer.into()]);
    }
    arguments.extend(token.flags());
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    fn read(words: &[OsString]) -> Result<TokenArgs, clap::Error> {
        let line = [&["mesh".into()], words].concat();
        Line::try_parse_from(line).map(|line| line.token)
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    const TOKEN: &str = "--pkcs11-module m.so --pkcs11-token prod --pkcs11-key ca --pkcs11-pin pin";

    #[test]
    fn what_a_ca_is_told_of_its_token_its_signer_is_told_too() {
        let more = format!("{TOKEN} --pkcs11-pin-by-group --pkcs11-files /a --pkcs11-files b");
        let token = read(&words(&more)).expect("whole");
        let config = token.config().expect("a token");
        assert!(config.pin_by_group && config.files.len() == 2);
        assert_eq!(read(&token.flags()).expect("whole").config(), Some(config));
        let elsewhere = token.absolute().expect("a folder");
        let config = elsewhere.config().expect("a token");
        let paths = [&config.module, &config.pin];
        assert!(
            paths
                .into_iter()
                .chain(&config.files)
                .all(|p| p.is_absolute())
        );
        assert!(read(&words(TOKEN)).expect("whole").flags().len() == 8);
    }

    #[test]
    fn half_of_a_token_is_refused() {
        for text in [
            "--pkcs11-module m.so",
            "--pkcs11-token prod",
            "--pkcs11-pin-by-group",
            "--pkcs11-files /a",
            "--pkcs11-module m.so --pkcs11-token prod --pkcs11-key ca",
        ] {
            assert!(read(&words(text)).is_err(), "{text}");
        }
        assert!(read(&[]).expect("nothing").flags().is_empty());
    }
}
