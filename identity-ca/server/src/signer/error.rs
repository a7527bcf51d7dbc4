//! Why a private key cannot be used, made or saved: said by the signer, and to be read by an operator of the CA.

use crate::error::with_source;
use mesh_issuance::SignerFailed;
use mesh_issuance::signing::Answer;
use mesh_platform::PlatformError;

/// What is wrong with a signer, or with a key that it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum SignerError {
    /// No process.
    #[error("the signer cannot be started: {why}")]
    #[diagnostic(
        code("MESH-0296"),
        help(
            "nothing can be issued without it; a sandbox may forbid prctl(2), seccomp(2), or a second process"
        )
    )]
    Start {
        /// In the system's words.
        why: String,
    },
    /// It ended, or did not answer in time.
    #[error("the signer does not answer: {why}")]
    #[diagnostic(
        code("MESH-0297"),
        help(
            "the CA starts it again by itself, and clients ask again; if it stays, the CA's log says how the signer ended"
        )
    )]
    Ended {
        /// What was seen.
        why: String,
    },
    /// The file is not what we wrote.
    #[error("it is not the key that was written: PKCS #8 in PEM, or the name of a key in a token")]
    #[diagnostic(
        code("MESH-0233"),
        help("restore it, with the other files of that directory, from a backup")
    )]
    Damaged,
    /// A key that others wrote, in a form that is not known.
    #[error("it is no private key in PEM, PKCS #8 or SEC1, and no name of a key in a token")]
    #[diagnostic(
        code("MESH-0907"),
        help("it must be PEM: `BEGIN PRIVATE KEY` or `BEGIN EC PRIVATE KEY`")
    )]
    Unreadable,
    /// A key that we do not sign with.
    #[error("the key is not on P-256 or P-384")]
    #[diagnostic(
        code("MESH-0937"),
        help(
            "make an elliptic key: ECDSA of 256 bits, in cert-manager `privateKey: {{algorithm: ECDSA, size: 256}}`"
        )
    )]
    Kind,
    /// A file cannot be read or written.
    #[error("{why}")]
    #[diagnostic(
        code("MESH-0298"),
        help(
            "the signer reads and writes in the CA's directory, and reads in the folder given with --issuer: look at their owner and at free space"
        )
    )]
    File {
        /// What was tried, and the system's words.
        why: String,
    },
    /// No random bytes, or too many keys.
    #[error("the signer made no key: {why}")]
    #[diagnostic(code("MESH-0299"), help("a sandbox may forbid getrandom(2)"))]
    NotMade {
        /// Why not.
        why: String,
    },
    /// A file names a key in a token, and there is no token.
    #[error("the key is in a PKCS #11 token, and none is configured")]
    #[diagnostic(
        code("MESH-0225"),
        help("start the CA with --pkcs11-module, --pkcs11-token, --pkcs11-key and --pkcs11-pin")
    )]
    NoToken,
    /// The module cannot be loaded, or fails.
    #[error("the PKCS #11 module `{module}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0226"),
        help(
            "name the vendor's shared library, of this machine's architecture; what it reads and writes beside /etc and /usr must be named with --pkcs11-files"
        )
    )]
    Module {
        /// The file.
        module: String,
        /// In the module's words.
        why: String,
    },
    /// No token of that label, or it is gone.
    #[error("the PKCS #11 token `{token}` is not there: {why}")]
    #[diagnostic(
        code("MESH-0227"),
        help(
            "plug it in, or start what reaches it; `pkcs11-tool --module MODULE -L` lists tokens"
        )
    )]
    Token {
        /// Its label.
        token: String,
        /// What was found.
        why: String,
    },
    /// The PIN is wrong, or its file cannot be used.
    #[error("the PIN of the PKCS #11 token `{token}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0228"),
        help(
            "the file of --pkcs11-pin holds the user PIN alone, mode 0600 and owned by the CA's user; after a few wrong ones a token locks itself, so the CA tries each PIN once"
        )
    )]
    Pin {
        /// Its label.
        token: String,
        /// What the token, or the disk, said.
        why: String,
    },
    /// No such key in the token, several, or one that cannot sign for a CA.
    #[error("the key `{key}` in the PKCS #11 token cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0229"),
        help(
            "the CA uses keys that it made, ECDSA on P-256 or P-384; a key that was removed from its token cannot be restored from the CA's directory"
        )
    )]
    TokenKey {
        /// Its name.
        key: String,
        /// What is wrong.
        why: String,
    },
}

impl SignerError {
    /// A file that cannot be read or written.
    pub(super) fn file(error: &PlatformError) -> Self {
        Self::File {
            why: with_source(error),
        }
    }

    /// The answer that says it. Names and reasons travel as one text, whose parts no name can imitate.
    pub(super) fn to_answer(&self) -> Answer {
        let (code, parts): (u32, [&str; 2]) = match self {
            Self::Start { why } => (296, [why, ""]),
            Self::Ended { why } => (297, [why, ""]),
            Self::Damaged => (233, ["", ""]),
            Self::Unreadable => (907, ["", ""]),
            Self::Kind => (937, ["", ""]),
            Self::File { why } => (298, [why, ""]),
            Self::NotMade { why } => (299, [why, ""]),
            Self::NoToken => (225, ["", ""]),
            Self::Module { module, why } => (226, [why, module]),
            Self::Token { token, why } => (227, [why, token]),
            Self::Pin { token, why } => (228, [why, token]),
            Self::TokenKey { key, why } => (229, [why, key]),
        };
        let [why, name] = parts.map(|part| part.replace('\0', " "));
        Answer::Refused {
            code,
            why: format!("{why}\0{name}"),
        }
    }

    /// What an answer of the signer says.
    pub(super) fn from_answer(code: u32, text: &str) -> Self {
        let (why, name) = text.split_once('\0').unwrap_or((text, ""));
        let (why, name) = (why.to_owned(), name.to_owned());
        match code {
            296 => Self::Start { why },
            233 => Self::Damaged,
            907 => Self::Unreadable,
            937 => Self::Kind,
            298 => Self::File { why },
            299 => Self::NotMade { why },
            225 => Self::NoToken,
            226 => Self::Module { module: name, why },
            227 => Self::Token { token: name, why },
            228 => Self::Pin { token: name, why },
            229 => Self::TokenKey { key: name, why },
            _ => Self::Ended { why },
        }
    }

    /// As the issuing code takes it.
    pub(super) fn failed(&self) -> SignerFailed {
        SignerFailed(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_travels_whole() {
        let why = || "why".to_owned();
        for error in [
            SignerError::Start { why: why() },
            SignerError::Ended { why: why() },
            SignerError::Damaged,
            SignerError::Unreadable,
            SignerError::Kind,
            SignerError::File { why: why() },
            SignerError::NotMade { why: why() },
            SignerError::NoToken,
            SignerError::Module {
                module: "m".to_owned(),
                why: why(),
            },
            SignerError::Token {
                token: "t".to_owned(),
                why: why(),
            },
            SignerError::Pin {
                token: "t".to_owned(),
                why: why(),
            },
            SignerError::TokenKey {
                key: "k".to_owned(),
                why: why(),
            },
        ] {
            let Answer::Refused { code, why } = error.to_answer() else {
                panic!("no refusal");
            };
            let shown = miette::Diagnostic::code(&error).unwrap().to_string();
            assert_eq!(shown, format!("MESH-{code:04}"));
            assert_eq!(SignerError::from_answer(code, &why), error);
        }
    }
}
