//! What can go wrong in the CA: in its files, in an issuance, at its sockets.

use crate::signer::error::SignerError;
use crate::trust::error::TrustStateError;
use mesh_api::error::CodedError;
use mesh_issuance::authority::AuthorityError;
use mesh_issuance::issue::IssueError;
use mesh_issuance::log::LogError;
use mesh_issuance::profile::ProfileError;
use mesh_platform::PlatformError;
use mesh_trust::bundle::BundleError;
use mesh_trust::quoted::Quoted;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::path::PathBuf;

/// The error with its code, in one line: as a gRPC message, a condition or another error carries it.
pub(crate) fn coded(error: &dyn miette::Diagnostic) -> String {
    let code = CodedError::from(error).code;
    format!("{code}: {error}")
}

/// The error with what is behind it, in one line.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Why the CA does not run. Its files are left as they were found.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CaError {
    /// The operating system refused.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// The copy of the issuance log in the mesh's log cannot be opened.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Audit(#[from] mesh_platform::audit_log::AuditLogError),
    /// The network cannot be served.
    #[error("the CA cannot serve `{listen}`: {why}")]
    #[diagnostic(
        code("MESH-0284"),
        help("another process has this address (`ss -ltnp`), or it is not of this machine")
    )]
    Network {
        /// Where.
        listen: std::net::SocketAddr,
        /// In the system's words.
        why: String,
    },
    /// Whoever is named as a broker cannot be one.
    #[error("brokers cannot be served: {why}")]
    #[diagnostic(
        code("MESH-0877"),
        help("`--broker` takes the SPIFFE ID of a workload of this trust domain")
    )]
    Broker {
        /// What is wrong.
        why: String,
    },
    /// The certificate of the bundle endpoint cannot be used.
    #[error("the bundle endpoint cannot use the certificate `{}`: {why}", .chain.display())]
    #[diagnostic(
        code("MESH-0978"),
        help(
            "give the chain in PEM, leaf first, and its own key, both readable by the CA's user; or serve by profile https_spiffe, which needs no files"
        )
    )]
    EndpointCertificate {
        /// The file.
        chain: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Files that were there are gone.
    #[error("`{}` is missing, while other files of the CA are there", .path.display())]
    #[diagnostic(
        code("MESH-0230"),
        help("restore the whole directory from a backup; nothing is made anew over an existing trust domain. To begin another trust domain: `mv {} {}.old`", .dir.display(), .dir.display())
    )]
    Incomplete {
        /// What is missing.
        path: PathBuf,
        /// The CA's directory.
        dir: PathBuf,
    },
    /// The directory belongs to another trust domain.
    #[error("`{}` holds the CA of trust domain `{found}`, not of `{wanted}`", .dir.display())]
    #[diagnostic(
        code("MESH-0231"),
        help("start with `--trust-domain {found}`, or with another state directory")
    )]
    OtherDomain {
        /// The CA's directory.
        dir: PathBuf,
        /// Recorded there.
        found: TrustDomain,
        /// Asked for.
        wanted: TrustDomain,
    },
    /// The signer does not run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Signer(#[from] SignerError),
    /// A private key cannot be used, and it is not its file that is damaged.
    #[error("the private key `{}` cannot be used: {why}", .path.display())]
    #[diagnostic(forward(why))]
    Key {
        /// Its file.
        path: PathBuf,
        /// What the signer says.
        why: SignerError,
    },
    /// Others may read or change a file that only we may.
    #[error("`{}` has mode {mode:04o}: other users may use it", .path.display())]
    #[diagnostic(code("MESH-0232"), help("`chmod 600 {}`; if others could read a key, treat it as exposed", .path.display()))]
    Mode {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that is not what we wrote.
    #[error("`{}` is damaged: {why}", .path.display())]
    #[diagnostic(
        code("MESH-0233"),
        help(
            "restore it, with the other files of that directory, from a backup; it is left as it is"
        )
    )]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Key and certificate of different pairs.
    #[error("`{}` is not the key of `{}`", .key.display(), .certificate.display())]
    #[diagnostic(code("MESH-0234"), help("restore both files from the same backup"))]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// A certificate that cannot be one of this CA.
    #[error("`{}` cannot be used", .path.display())]
    #[diagnostic(
        code("MESH-0235"),
        help(
            "restore it, with the other files of that directory, from a backup; it is left as it is"
        )
    )]
    Authority {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: AuthorityError,
    },
    /// The root counts no longer, or not yet.
    #[error("the root counts from {not_before} to {not_after}, and it is {now}")]
    #[diagnostic(code("MESH-0236"), help("look at the clock (`date -u`). A root that ended cannot be renewed: begin a new trust domain, `mv {} {}.old`", .dir.display(), .dir.display()))]
    RootNotInForce {
        /// Its first moment.
        not_before: Timestamp,
        /// Its last moment.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
        /// The CA's directory.
        dir: PathBuf,
    },
    /// No log, or an empty one, beside keys that were used.
    #[error("the issuance log `{}` is missing or empty, while the CA's keys are there", .path.display())]
    #[diagnostic(
        code("MESH-0237"),
        help("restore it from a backup: it says what was issued")
    )]
    LogMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The log is not as it was written.
    #[error("the issuance log `{}` is not as it was written", .path.display())]
    #[diagnostic(
        code("MESH-0238"),
        help("restore it from a backup; it is left as it is")
    )]
    Log {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: LogError,
    },
    /// The CA's own certificates could not be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Issuance(#[from] IssuanceError),
    /// A lifetime that cannot be configured.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Profile(#[from] ProfileError),
    /// A registration that would match everybody, or nobody.
    #[error("the registration of `{identity}` cannot be: {why}")]
    #[diagnostic(
        code("MESH-0243"),
        help(
            "name a user id, an executable (absolute path), a systemd service, or several of them, and an identity of the CA's trust domain"
        )
    )]
    Registration {
        /// Whose.
        identity: SpiffeId,
        /// Why not.
        why: &'static str,
    },
    /// An issuer that relying parties could read differently.
    #[error("`{issuer}` cannot be the issuer of JWT-SVIDs")]
    #[diagnostic(
        code("MESH-0268"),
        help(
            "give an address such as https://oidc.example/mesh: no query, no user, no slash at its end"
        )
    )]
    OidcIssuer {
        /// What was given.
        issuer: Quoted,
    },
    /// The address of the JWT keys cannot be had.
    #[error("cannot listen on `{address}` for readers of the JWT keys: {why}")]
    #[diagnostic(
        code("MESH-0269"),
        help("look at who holds it (`ss -ltnp`), or choose another with `--oidc-listen`")
    )]
    OidcListen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        why: String,
    },
    /// The state of trust on disk is not believed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Trust(#[from] TrustStateError),
    /// Others keep root and issuer, and what is there cannot be begun with.
    #[error("no issuer to begin with is in {place}: {why}")]
    #[diagnostic(
        code("MESH-0954"),
        help("mend what is named; each code has a page: `mesh explain CODE`")
    )]
    NothingToAdopt {
        /// Where it was looked for.
        place: String,
        /// All that is wrong, with codes.
        why: String,
    },
    /// The roots make no bundle.
    #[error("the roots of this CA make no trust bundle")]
    #[diagnostic(
        code("MESH-0928"),
        help("restore the CA's directory from a backup; it is left as it is")
    )]
    Bundle {
        /// The rule broken.
        source: BundleError,
    },
    /// The gRPC server ended.
    #[error("the server on `{}` ended: {why}", .socket.display())]
    #[diagnostic(
        code("MESH-0246"),
        help("start the CA again; its supervisor does so by itself")
    )]
    Server {
        /// Its socket.
        socket: PathBuf,
        /// In the server's words.
        why: String,
    },
}

/// Why nothing was issued.
#[derive(Debug, Clone, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum IssuanceError {
    /// Not prepared, or not signed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Issue(#[from] IssueError),
    /// The serial or key was used before, or the entry has no form.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Log(#[from] LogError),
    /// The log cannot be written, and nothing is signed unrecorded.
    #[error("nothing is issued, because it could not be recorded: {why}")]
    #[diagnostic(
        code("MESH-0240"),
        help(
            "make the disk of the CA's directory writable, with free space (`df -h`); SVIDs in force stay so"
        )
    )]
    NotRecorded {
        /// What the disk said.
        why: String,
    },
    /// More than its share.
    #[error("`{id}` asks for certificates too often")]
    #[diagnostic(
        code("MESH-0241"),
        help(
            "a workload renews once in half a lifetime: look for a process that starts again and again"
        )
    )]
    RateLimited {
        /// Who.
        id: SpiffeId,
    },
    /// On the deny list, or its key is.
    #[error("`{id}`, or the key that it shows, is denied")]
    #[diagnostic(
        code("MESH-0277"),
        help("`mesh identity denied` says since when and why; `mesh identity allow` ends it")
    )]
    Denied {
        /// Who.
        id: SpiffeId,
    },
    /// Too many wait.
    #[error("the CA has too much to do")]
    #[diagnostic(
        code("MESH-0245"),
        help("clients try again by themselves; if it stays, look at the speed of the CA's disk")
    )]
    Busy,
    /// The CA is on another machine, and gives none.
    #[error("the CA elsewhere issues nothing: {why}")]
    #[diagnostic(
        code("MESH-0239"),
        help(
            "this machine has joined a mesh; is its CA reached, and may this node speak for the identity? The agent's log says so, and the CA's says why it refuses"
        )
    )]
    Elsewhere {
        /// In its words.
        why: String,
    },
    /// The CA stops, or its issuing part has failed before.
    #[error("the CA has stopped issuing")]
    #[diagnostic(
        code("MESH-0247"),
        help("its supervisor starts it again; look at its log for the cause")
    )]
    Stopped,
    /// The signer makes no key, or does not answer.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Signer(#[from] SignerError),
    /// No key could be made.
    #[error("no key could be made: the kernel gives no random bytes")]
    #[diagnostic(code("MESH-0248"), help("a sandbox may forbid getrandom(2)"))]
    KeyGeneration,
    /// A file of the CA could not be written while its issuer was renewed.
    #[error("the new issuer could not be stored: {why}")]
    #[diagnostic(
        code("MESH-0249"),
        help("make the CA's directory writable; the issuer in force goes on meanwhile")
    )]
    NotStored {
        /// What the disk said.
        why: String,
    },
}
