//! `mesh identity fetch|watch|jwt|validate`: a client of whatever SPIFFE Workload API this process may ask, ours or not.
//!
//! It speaks through the SPIFFE library for Rust that others maintain, so what works here works for programs.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::identity::{Certificate, chain};
use crate::output::{Format, Output};
use clap::{Args, ValueEnum};
use data_encoding::BASE64URL_NOPAD;
use mesh_platform::files;
use mesh_trust::bundle::to_pem;
use mesh_trust::limits::JWT_BYTES_MAX;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use spiffe::{SpiffeId, WorkloadApiClient, WorkloadApiError, X509Context, X509Svid};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_stream::StreamExt;

/// Pause before a stream that ended is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Letters of a line of PEM (RFC 7468 §2).
const PEM_COLUMNS: usize = 64;

/// Which Workload API.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndpointArgs {
    /// Address of the Workload API, `unix:///run/mesh/api.sock` for instance.
    #[arg(long, value_name = "ADDRESS", env = "SPIFFE_ENDPOINT_SOCKET")]
    socket: Option<String>,
}

/// Form of an SVID on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people; no key.
    #[default]
    Text,
    /// For programs; no key.
    Json,
    /// Chain, private key and trust bundle, PEM blocks one after the other.
    Pem,
}

/// One fetch.
#[derive(Args, Clone, Debug)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Folder to write `svid.N.pem`, `svid.N.key` and `bundle.N.pem` to, mode 0600, for each identity from 0.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// All changes.
#[derive(Args, Clone, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    fetch: FetchArgs,
    /// End after so many changes; by default never.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// One token.
#[derive(Args, Clone, Debug)]
pub(crate) struct JwtArgs {
    /// Who will take the token.
    #[arg(long, value_name = "AUDIENCE")]
    audience: String,
    /// Which of this process's identities; by default the first.
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Form of the answer; as text it is the token alone.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One validation.
#[derive(Args, Clone, Debug)]
pub(crate) struct ValidateArgs {
    /// Who takes the token.
    #[arg(long, value_name = "AUDIENCE")]
    audience: String,
    /// File with the token; by default it is read from stdin, so that it stands in no list of processes.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Form {
    fn of_errors(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Text | Self::Pem => Format::Text,
        }
    }
}

impl FetchArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.output.of_errors()
    }
}

impl WatchArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.fetch.format()
    }
}

impl JwtArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.output
    }
}

impl ValidateArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.output
    }
}

/// Why there is no SVID or token.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum WorkloadError {
    /// Nobody said whom to ask.
    #[error("no Workload API is named")]
    #[diagnostic(
        code("MESH-0690"),
        help("set SPIFFE_ENDPOINT_SOCKET, or give `--socket unix:///path/to/api.sock`")
    )]
    NoEndpoint,
    /// The API refused, or does not answer.
    #[error("the Workload API at `{endpoint}` gives nothing")]
    #[diagnostic(
        code("MESH-0691"),
        help(
            "the process must be a workload of the mesh, or registered with its CA, and the socket must be its own machine's"
        )
    )]
    Nothing {
        /// Who was asked.
        endpoint: String,
        /// What it said.
        source: Box<WorkloadApiError>,
    },
    /// A token that is not to be believed.
    #[error("the token is not to be believed for `{audience}`")]
    #[diagnostic(
        code("MESH-0692"),
        help("look at the cause: another audience, a token that is over, or a foreign issuer")
    )]
    NotBelieved {
        /// For whom it should have been.
        audience: String,
        /// What the Workload API said.
        source: Box<WorkloadApiError>,
    },
    /// No token where one should be.
    #[error("there is no token: {why}")]
    #[diagnostic(
        code("MESH-0693"),
        help("give one token and nothing else, in a file or on stdin")
    )]
    NoToken {
        /// What was found.
        why: String,
    },
    /// An identity that is none.
    #[error("`{text}` is no SPIFFE ID")]
    #[diagnostic(
        code("MESH-0694"),
        help("SPIFFE IDs look like spiffe://cluster.local/ns/shop/sa/cart")
    )]
    SpiffeId {
        /// What was given.
        text: String,
    },
}

struct Client {
    endpoint: String,
    api: WorkloadApiClient,
}

impl Client {
    async fn connect(args: &EndpointArgs) -> Result<Self, Fault> {
        let endpoint = args.socket.clone().filter(|socket| !socket.is_empty());
        let endpoint = endpoint.ok_or_else(|| Fault::usage(&WorkloadError::NoEndpoint))?;
        match WorkloadApiClient::connect_to(&endpoint).await {
            Ok(api) => Ok(Self { endpoint, api }),
            Err(source) => Err(nothing(&endpoint, source).into()),
        }
    }

    fn nothing(&self, source: WorkloadApiError) -> WorkloadError {
        nothing(&self.endpoint, source)
    }
}

fn nothing(endpoint: &str, source: WorkloadApiError) -> WorkloadError {
    WorkloadError::Nothing {
        endpoint: endpoint.to_owned(),
        source: Box::new(source),
    }
}

/// Everything of one identity but the key.
#[derive(Serialize)]
struct Shown {
    spiffe_id: String,
    chain: Vec<Certificate>,
    chain_pem: String,
    bundle_pem: String,
}

fn ders(certificates: &[spiffe::cert::Certificate]) -> Vec<CertificateDer<'static>> {
    certificates
        .iter()
        .map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()))
        .collect()
}

fn show(svid: &X509Svid, context: &X509Context, endpoint: &str) -> Result<Shown, Fault> {
    let chain_pem = to_pem(&ders(svid.cert_chain()));
    let bundle = context
        .bundle_set()
        .get(svid.spiffe_id().trust_domain())
        .map(|bundle| to_pem(&ders(bundle.authorities())));
    Ok(Shown {
        spiffe_id: svid.spiffe_id().to_string(),
        chain: chain(chain_pem.as_bytes(), Path::new(endpoint))?,
        chain_pem,
        bundle_pem: bundle.unwrap_or_default(),
    })
}

/// PKCS #8 in PEM. The text is dropped without being wiped: it goes to a file or to stdout anyway.
fn key_pem(svid: &X509Svid) -> String {
    let body = data_encoding::BASE64.encode(svid.private_key().as_bytes());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_COLUMNS));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

/// Writes and prints what `context` says.
fn deliver(
    context: &X509Context,
    args: &FetchArgs,
    endpoint: &str,
    output: &mut Output,
) -> Result<(), Fault> {
    for (place, svid) in context.svids().iter().enumerate() {
        let shown = show(svid, context, endpoint)?;
        if let Some(dir) = &args.write {
            write(dir, place, &shown, svid)?;
        }
        match args.output {
            Form::Json => output.json_line(&shown)?,
            Form::Pem => {
                output.text(&shown.chain_pem)?;
                output.text(key_pem(svid))?;
                output.text(&shown.bundle_pem)?;
            }
            Form::Text => {
                let leaf = shown.chain.first();
                let until = leaf.map(|leaf| leaf.not_after.to_string());
                let serial = leaf.map(|leaf| leaf.serial.as_str());
                output.line(format_args!(
                    "{} until {}, serial {}",
                    shown.spiffe_id,
                    until.unwrap_or_default(),
                    serial.unwrap_or_default()
                ))?;
            }
        }
    }
    output.flush()
}

/// The key first: who sees the new chain finds its key.
fn write(dir: &Path, place: usize, shown: &Shown, svid: &X509Svid) -> Result<(), Fault> {
    files::create_dir_private(dir)?;
    for (name, text) in [
        (format!("svid.{place}.key"), key_pem(svid)),
        (format!("bundle.{place}.pem"), shown.bundle_pem.clone()),
        (format!("svid.{place}.pem"), shown.chain_pem.clone()),
    ] {
        files::write_atomic(&dir.join(name), text.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// `mesh identity fetch`.
pub(crate) async fn fetch(args: &FetchArgs, output: &mut Output) -> Result<Exit, Fault> {
    let client = Client::connect(&args.endpoint).await?;
    let context = client.api.fetch_x509_context().await;
    let context = context.map_err(|error| client.nothing(error))?;
    deliver(&context, args, &client.endpoint, output)?;
    Ok(Exit::Ok)
}

/// `mesh identity watch`: follows until the reader goes, a signal comes, or enough was seen.
pub(crate) async fn watch(args: &WatchArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut left = args.count;
    loop {
        match follow(args, &mut left, output).await {
            Ok(true) => return Ok(Exit::Ok),
            Ok(false) => output.talk("the stream ended; asking again"),
            Err(Followed::Fault(fault)) => return Err(fault),
            Err(Followed::Api(error)) => {
                let error = mesh_api::error::CodedError::from_diagnostic(error);
                output.talk(format_args!("{error}"));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Followed {
    Fault(Fault),
    Api(WorkloadError),
}

impl From<Fault> for Followed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// One stream; true once enough was seen.
async fn follow(
    args: &WatchArgs,
    left: &mut Option<u64>,
    output: &mut Output,
) -> Result<bool, Followed> {
    let client = Client::connect(&args.fetch.endpoint).await?;
    let failed = |error| Followed::Api(client.nothing(error));
    let stream = client.api.stream_x509_contexts().await.map_err(failed)?;
    tokio::pin!(stream);
    while let Some(context) = stream.next().await {
        let context = context.map_err(failed)?;
        deliver(&context, &args.fetch, &client.endpoint, output)?;
        if let Some(left) = left {
            *left = left.saturating_sub(1);
        }
        if *left == Some(0) || output.is_closed() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Serialize)]
struct Token {
    spiffe_id: String,
    audience: Vec<String>,
    /// Seconds since the epoch.
    expires: Option<i64>,
    token: String,
}

/// `mesh identity jwt`.
pub(crate) async fn jwt(args: &JwtArgs, output: &mut Output) -> Result<Exit, Fault> {
    let wanted = args.spiffe_id.as_deref().map(|text| {
        SpiffeId::new(text).map_err(|_| {
            Fault::usage(&WorkloadError::SpiffeId {
                text: text.to_owned(),
            })
        })
    });
    let wanted = wanted.transpose()?;
    let client = Client::connect(&args.endpoint).await?;
    let svid = client
        .api
        .fetch_jwt_svid([args.audience.as_str()], wanted.as_ref())
        .await
        .map_err(|error| client.nothing(error))?;
    let claims = claims_of(svid.token());
    let token = Token {
        spiffe_id: svid.spiffe_id().to_string(),
        audience: svid.audience().to_vec(),
        expires: claims.get("exp").and_then(serde_json::Value::as_i64),
        token: svid.token().to_owned(),
    };
    output.value(args.output, &token, |output, token| {
        output.line(&token.token)
    })?;
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Validated {
    spiffe_id: String,
    claims: serde_json::Value,
}

/// `mesh identity validate`.
pub(crate) async fn validate(args: &ValidateArgs, output: &mut Output) -> Result<Exit, Fault> {
    let token = read_token(args.file.as_deref())?;
    let client = Client::connect(&args.endpoint).await?;
    let svid = client
        .api
        .validate_jwt_token(&args.audience, &token)
        .await
        .map_err(|source| match source {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                client.nothing(source)
            }
            source => WorkloadError::NotBelieved {
                audience: args.audience.clone(),
                source: Box::new(source),
            },
        })?;
    let validated = Validated {
        spiffe_id: svid.spiffe_id().to_string(),
        claims: claims_of(&token),
    };
    output.value(args.output, &validated, |output, validated| {
        output.line(format_args!("believed: {}", validated.spiffe_id))
    })?;
    Ok(Exit::Ok)
}

/// What a token claims; only of tokens that were validated, or that the Workload API just gave us.
fn claims_of(token: &str) -> serde_json::Value {
    token
        .split('.')
        .nth(1)
        .and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok())
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}

fn read_token(file: Option<&Path>) -> Result<String, Fault> {
    let no_token = |why: String| Fault::usage(&WorkloadError::NoToken { why });
    let bytes = match file {
        Some(file) => files::read_limited(file, JWT_BYTES_MAX as u64 + 2)
            .map_err(|error| Fault::usage(&error))?,
        None => {
            let mut bytes = Vec::new();
            // One more than a token and its line feed may have: longer ones show themselves.
            let mut bounded = std::io::stdin().lock().take(JWT_BYTES_MAX as u64 + 2);
            bounded
                .read_to_end(&mut bytes)
                .map_err(|error| no_token(error.to_string()))?;
            bytes
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| no_token("it is no text".to_owned()))?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() || token.len() > JWT_BYTES_MAX {
        return Err(no_token(format!("{} bytes were read", token.len())));
    }
    Ok(token.to_owned())
}
