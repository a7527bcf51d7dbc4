//! `mesh identity deny|allow|denied`: the operator's list of whom nobody trusts any more.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{Live, LiveArgs};
use crate::output::{Format, Output, Tone};
use clap::Args;
use hyper_util::rt::TokioIo;
use mesh_api::proto::denial_admin_client::DenialAdminClient;
use mesh_api::proto::{AllowRequest, DenialsReply, DeniedRequest, DenyRequest};
use mesh_platform::{Platform, System};
use mesh_trust::limits::DENIALS_BYTES_MAX;
use mesh_trust::{Denials, Denied, SpiffeId, Timestamp};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long to wait for the proxies of this mesh to enforce a change.
const ENFORCED_WITHIN: Duration = Duration::from_secs(5);
/// How often to ask meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What is denied.
#[derive(Args, Clone, Debug)]
#[group(id = "what", required = true, multiple = false)]
struct WhatArgs {
    /// A workload, whatever its certificate.
    #[arg(long, value_name = "SPIFFE_ID", value_parser = identity, group = "what")]
    identity: Option<SpiffeId>,
    /// One certificate, by its serial number in hex.
    #[arg(long, value_name = "HEX", group = "what")]
    serial: Option<String>,
    /// A key and whatever it signed, by SHA-256 of the public key in hex.
    #[arg(long, value_name = "SHA256", group = "what")]
    key: Option<String>,
    /// All that an issuer signed, by its subject key identifier in hex.
    #[arg(long, value_name = "HEX", group = "what")]
    issuer: Option<String>,
    /// A machine: what was issued to it and to what runs there, and whatever it asks for. A node of the cluster, or one
    /// that joined.
    #[arg(long, value_name = "NAME", group = "what")]
    node: Option<String>,
}

/// Which CA.
#[derive(Args, Clone, Debug)]
pub(crate) struct CaAdminArgs {
    /// Admin socket of the CA; by default that of the running mesh.
    #[arg(long, value_name = "SOCKET")]
    ca_admin: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
}

/// One denial.
#[derive(Args, Clone, Debug)]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Why; shown by `mesh identity denied`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    ca: CaAdminArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The end of a denial.
#[derive(Args, Clone, Debug)]
pub(crate) struct AllowArgs {
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    ca: CaAdminArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The list.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeniedArgs {
    #[command(flatten)]
    ca: CaAdminArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl CaAdminArgs {
    /// A connection to that socket.
    pub(crate) async fn channel(&self) -> Result<Channel, Fault> {
        let socket = match &self.ca_admin {
            Some(socket) => socket.clone(),
            None => Live::find(&self.live)?.state.join("run/ca-admin.sock"),
        };
        channel(&socket).await
    }
}

impl DenyArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.output
    }
}

impl AllowArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.output
    }
}

impl DeniedArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        self.output
    }
}

fn identity(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

/// Why the list cannot be changed or read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum DenyError {
    #[error("the CA does not answer on `{}`: {why}", socket.display())]
    #[diagnostic(
        code("MESH-0696"),
        help(
            "the CA must run, with an admin socket (`mesh ca --admin SOCKET`; `mesh up` gives it one), and be of your own user"
        )
    )]
    NoAnswer { socket: PathBuf, why: String },
    #[error("{why}")]
    #[diagnostic(
        code("MESH-0697"),
        help("the code in the text has a page: `mesh explain CODE`")
    )]
    Refused { why: String },
    #[error(
        "{late} of {all} processes did not say within {secs} s that they enforce deny list {generation}"
    )]
    #[diagnostic(
        code("MESH-0698"),
        help("`mesh identity denied` names them; a process that hangs must be ended")
    )]
    Late {
        late: usize,
        all: usize,
        secs: u64,
        generation: u64,
    },
}

impl WhatArgs {
    fn denied(&self) -> Result<Denied, Fault> {
        let kinds = [
            self.identity.clone().map(Denied::Identity),
            self.serial.clone().map(Denied::Serial),
            self.key.clone().map(Denied::Key),
            self.issuer.clone().map(Denied::Issuer),
            self.node.clone().map(Denied::Node),
        ];
        // The group demands exactly one.
        let what = kinds.into_iter().flatten().next().ok_or_else(|| {
            Fault::usage(&DenyError::Refused {
                why: "nothing is named that could be denied".to_owned(),
            })
        })?;
        what.check().map_err(|error| Fault::usage(&error))?;
        Ok(what)
    }
}

struct Client {
    api: DenialAdminClient<Channel>,
}

impl Client {
    async fn connect(args: &CaAdminArgs) -> Result<Self, Fault> {
        let channel = args.channel().await?;
        let api = DenialAdminClient::new(channel).max_decoding_message_size(2 * DENIALS_BYTES_MAX);
        Ok(Self { api })
    }

    async fn denied(&mut self) -> Result<Shown, Fault> {
        read(self.api.denied(DeniedRequest {}).await)
    }

    /// Waits until all who follow the list say that they enforce it.
    async fn enforced(&mut self, mut shown: Shown) -> Result<Shown, Fault> {
        let clock = System::new();
        let begun = clock.monotonic();
        loop {
            let wanted = shown.generation;
            let late = shown
                .enforcers
                .iter()
                .filter(|one| one.generation < wanted)
                .count();
            if late == 0 {
                return Ok(shown);
            }
            if clock.monotonic().since(begun) > ENFORCED_WITHIN {
                return Err(DenyError::Late {
                    late,
                    all: shown.enforcers.len(),
                    secs: ENFORCED_WITHIN.as_secs(),
                    generation: wanted,
                }
                .into());
            }
            tokio::time::sleep(ASK_EVERY).await;
            let now = self.denied().await?;
            shown.enforcers = now.enforcers;
        }
    }
}

async fn channel(socket: &Path) -> Result<Channel, Fault> {
    let path = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let connected = Endpoint::from_static("http://local.invalid")
        .connect_with_connector(connect)
        .await;
    connected.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        DenyError::NoAnswer {
            socket: socket.to_owned(),
            why: cause.unwrap_or_else(|| error.to_string()),
        }
        .into()
    })
}

#[derive(Serialize)]
struct Shown {
    generation: u64,
    denied: Vec<Entry>,
    enforcers: Vec<Enforcer>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    what: Denied,
    since: Timestamp,
    reason: String,
}

#[derive(Serialize)]
struct Enforcer {
    spiffe_id: String,
    pid: u32,
    generation: u64,
    /// Which one it is, if the CA's machine does not run it: a pod, or a process of a node.
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
}

fn read(reply: Result<tonic::Response<DenialsReply>, tonic::Status>) -> Result<Shown, Fault> {
    let reply = reply.map_err(|status| DenyError::Refused {
        why: status.message().to_owned(),
    })?;
    let reply = reply.into_inner();
    let list = Denials::from_json(&reply.list_json)?;
    Ok(Shown {
        generation: list.generation(),
        denied: list
            .iter()
            .map(|(what, note)| Entry {
                what: what.clone(),
                since: note.since,
                reason: note.reason.clone(),
            })
            .collect(),
        enforcers: reply
            .enforcers
            .into_iter()
            .map(|one| Enforcer {
                spiffe_id: one.spiffe_id,
                pid: one.pid,
                generation: one.generation,
                instance: one.instance,
            })
            .collect(),
    })
}

/// `mesh identity deny`.
pub(crate) async fn deny(args: &DenyArgs, output: &mut Output) -> Result<Exit, Fault> {
    let what = args.what.denied()?;
    let mut client = Client::connect(&args.ca).await?;
    let request = DenyRequest {
        what_json: json(&what),
        reason: args.reason.clone(),
    };
    let shown = read(client.api.deny(request).await)?;
    let shown = client.enforced(shown).await?;
    say(&format!("denied {what}"), &shown, args.output, output)
}

/// `mesh identity allow`.
pub(crate) async fn allow(args: &AllowArgs, output: &mut Output) -> Result<Exit, Fault> {
    let what = args.what.denied()?;
    let mut client = Client::connect(&args.ca).await?;
    let request = AllowRequest {
        what_json: json(&what),
    };
    let shown = read(client.api.allow(request).await)?;
    let shown = client.enforced(shown).await?;
    say(
        &format!("allowed {what} again"),
        &shown,
        args.output,
        output,
    )
}

/// `mesh identity denied`.
pub(crate) async fn denied(args: &DeniedArgs, output: &mut Output) -> Result<Exit, Fault> {
    let shown = Client::connect(&args.ca).await?.denied().await?;
    output.value(args.output, &shown, |output, shown| {
        if shown.denied.is_empty() {
            output.line("nobody is denied")?;
        }
        for entry in &shown.denied {
            output.line(format_args!(
                "{}  since {}  {}",
                entry.what, entry.since, entry.reason
            ))?;
        }
        for one in &shown.enforcers {
            let state = if one.generation >= shown.generation {
                output.toned(Tone::Good, "enforces it")
            } else {
                output.toned(Tone::Bad, "does not enforce it yet")
            };
            let which = match one.instance.as_str() {
                "" => format!("pid {}", one.pid),
                elsewhere => elsewhere.to_owned(),
            };
            output.line(format_args!("  {} ({which}) {state}", one.spiffe_id))?;
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

fn say(what: &str, shown: &Shown, format: Format, output: &mut Output) -> Result<Exit, Fault> {
    output.value(format, shown, |output, shown| {
        output.line(format_args!(
            "{what}; list {} is enforced by {} processes",
            shown.generation,
            shown.enforcers.len()
        ))
    })?;
    Ok(Exit::Ok)
}

/// Texts and enums always have a JSON form.
fn json(what: &Denied) -> Vec<u8> {
    serde_json::to_vec(what).unwrap_or_default()
}
