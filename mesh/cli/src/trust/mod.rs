//! `mesh trust`: the roots of a running mesh, and their rotation.
//!
//! - [`federate`]: other trust domains
//! - [`show`]: status in words, the progress of a rotation, what holds it up

mod federate;
mod show;

use crate::arguments::duration;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::output::{Format, Output};
use clap::{Args, Subcommand, ValueEnum};
use mesh_api::error::CodedError;
use mesh_api::proto::trust_admin_client::TrustAdminClient;
use mesh_api::proto::{
    AbortRequest, DistrustRequest, ResumeRequest, RotateRequest, TrustStatusReply,
    TrustStatusRequest, WaiveRequest,
};
use mesh_api::trust::{TrustStatus, channel};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// How often a rotation is looked at while somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a CA that is being started again may stay silent while somebody waits for a rotation.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Trust anchors and their rotation.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum TrustCommand {
    /// Shows the roots, who has acknowledged them, and what a rotation waits for, by name.
    Status(StatusArgs),
    /// Replaces the root: makes a new one, proves it to every verifier, moves all SVIDs, drops the old one.
    Rotate(RotateArgs),
    /// Takes a rotation back: all SVIDs move to the old root, then the new one is dropped.
    Abort(ActArgs),
    /// Goes on with a rotation that halted.
    Resume(ActArgs),
    /// Does not wait for one verifier in this rotation. It may lose its connections.
    Waive(WaiveArgs),
    /// Distrusts a root at once, without waiting for anybody. Says first what would break.
    Compromise(CompromiseArgs),
    /// Federates with other trust domains: lists, begins and ends relations, fetches a bundle now.
    Federate(federate::FederateArgs),
    /// Prints the trust bundle.
    Bundle(BundleArgs),
}

/// Whose trust.
#[derive(Args, Clone, Debug)]
pub(crate) struct StewardArgs {
    #[command(flatten)]
    live: LiveArgs,
    /// Trust socket of a CA, in place of the one of a state directory; in the pod of a CA, /run/mesh/trust.sock.
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
}

/// `mesh trust status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    ca: StewardArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh trust rotate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RotateArgs {
    /// Begins it, and does not wait for its end.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for its end. The rotation goes on afterwards.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    ca: StewardArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh trust abort`, `mesh trust resume`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ActArgs {
    #[command(flatten)]
    ca: StewardArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh trust waive`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WaiveArgs {
    /// SPIFFE ID as `mesh trust status` shows it, with `#` and the instance if only one process is meant.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    ca: StewardArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh trust compromise`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompromiseArgs {
    /// First digits of the root's SHA-256, at least 8; without it, the root in force.
    #[arg(long, value_name = "SHA256", default_value = "")]
    root: String,
    /// Does it. Without this, only what would break is shown.
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    ca: StewardArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `mesh trust bundle`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BundleArgs {
    /// `pem` for TLS libraries, `spiffe` for other trust domains.
    #[arg(long, value_enum, default_value_t)]
    format: BundleFormat,
    #[command(flatten)]
    ca: StewardArgs,
}

/// Form of a bundle.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum BundleFormat {
    /// `BEGIN CERTIFICATE` blocks.
    #[default]
    Pem,
    /// A SPIFFE bundle, JSON.
    Spiffe,
}

/// Why the CA gives no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum TrustCommandError {
    /// Not reachable.
    #[error("the CA does not answer at `{}`: {why}", socket.display())]
    #[diagnostic(
        code("MESH-0930"),
        help(
            "it may be starting again: `mesh check` says how it is; its log is `log/ca.log` in the state directory"
        )
    )]
    NoAnswer {
        /// Its socket.
        socket: PathBuf,
        /// In the transport's words.
        why: String,
    },
    /// A running mesh of an older version.
    #[error("the CA of this mesh has no trust socket")]
    #[diagnostic(
        code("MESH-0931"),
        help("restart the mesh with `mesh up` of this version")
    )]
    NoSocket,
    /// Waited long enough.
    #[error("the rotation has not ended after {secs} s: it is {phase}, and waits for {blockers}")]
    #[diagnostic(
        code("MESH-0932"),
        help(
            "it goes on: `mesh trust status` shows what it waits for; `mesh trust waive NAME` or `mesh trust abort` decide"
        )
    )]
    NotEnded {
        /// How long was waited.
        secs: u64,
        /// Where it stands.
        phase: String,
        /// How many things it waits for, and the first.
        blockers: String,
    },
    /// Halted by itself.
    #[error("the rotation halted by itself: {why}")]
    #[diagnostic(
        code("MESH-0933"),
        help(
            "find out who refuses whom (`mesh edges`), then `mesh trust resume` or `mesh trust abort`"
        )
    )]
    Halted {
        /// Why.
        why: String,
    },
    /// Taken back by somebody else.
    #[error("the rotation was taken back: the old root signs")]
    #[diagnostic(code("MESH-0934"), help("`mesh trust status` shows how trust stands"))]
    TakenBack,
}

impl TrustCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Status(args) => args.output,
            Self::Rotate(args) => args.output,
            Self::Abort(args) | Self::Resume(args) => args.output,
            Self::Waive(args) => args.output,
            Self::Compromise(args) => args.output,
            Self::Federate(args) => args.format(),
            Self::Bundle(_) => Format::Text,
        }
    }
}

/// Runs one of the commands.
pub(crate) fn run(command: TrustCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        TrustCommand::Status(args) => {
            let status = live::wait(Steward::find(&args.ca)?.status())?;
            print(&status, args.output, output)
        }
        TrustCommand::Rotate(args) => rotate(&args, output),
        TrustCommand::Abort(args) => act(&args, output, async |client| {
            client.abort(AbortRequest {}).await
        }),
        TrustCommand::Resume(args) => act(&args, output, async |client| {
            client.resume(ResumeRequest {}).await
        }),
        TrustCommand::Waive(args) => {
            let (name, args) = (
                args.name,
                ActArgs {
                    ca: args.ca,
                    output: args.output,
                },
            );
            act(&args, output, async |client| {
                client.waive(WaiveRequest { name: name.clone() }).await
            })
        }
        TrustCommand::Compromise(args) => compromise(&args, output),
        TrustCommand::Federate(args) => federate::run(&args, output),
        TrustCommand::Bundle(args) => {
            let status = live::wait(Steward::find(&args.ca)?.status())?;
            match args.format {
                BundleFormat::Pem => output.text(status.bundle_pem)?,
                BundleFormat::Spiffe => output.line(status.bundle_json)?,
            }
            Ok(Exit::Ok)
        }
    }
}

/// How the trust of a running mesh stands, for other commands.
///
/// # Errors
/// [`TrustCommandError::NoAnswer`], [`TrustCommandError::NoSocket`].
pub(crate) async fn status_of(live: &Live) -> Result<TrustStatus, Fault> {
    Steward::of(live)?.status().await
}

fn print(status: &TrustStatus, format: Format, output: &mut Output) -> Result<Exit, Fault> {
    output.value(format, status, |output, status| {
        show::status(status, format, output)
    })?;
    Ok(Exit::Ok)
}

fn act(
    args: &ActArgs,
    output: &mut Output,
    call: impl AsyncFnMut(&mut TrustAdminClient<Channel>) -> Result<Response<TrustStatusReply>, Status>,
) -> Result<Exit, Fault> {
    let steward = Steward::find(&args.ca)?;
    let status = live::wait(steward.call(call))?;
    print(&status, args.output, output)
}

fn compromise(args: &CompromiseArgs, output: &mut Output) -> Result<Exit, Fault> {
    let steward = Steward::find(&args.ca)?;
    let (root, confirmed) = (args.root.clone(), args.confirm);
    let status = live::wait(steward.call(async |client| {
        client
            .distrust(DistrustRequest {
                root: root.clone(),
                confirmed,
            })
            .await
    }))?;
    output.value(args.output, &status, |output, status| {
        show::compromise(status, confirmed, output)
    })?;
    if !confirmed {
        output.talk("nothing was changed; `--confirm` distrusts the root at once");
    }
    Ok(Exit::Ok)
}

fn rotate(args: &RotateArgs, output: &mut Output) -> Result<Exit, Fault> {
    let steward = Steward::find(&args.ca)?;
    let status = live::wait(async {
        let first = steward
            .call(async |client| client.rotate(RotateRequest {}).await)
            .await?;
        if args.no_wait {
            return Ok(first);
        }
        follow(&steward, first, args, output).await
    })?;
    print(&status, args.output, output)
}

/// Shows the progress until the rotation has ended.
async fn follow(
    steward: &Steward,
    first: TrustStatus,
    args: &RotateArgs,
    output: &mut Output,
) -> Result<TrustStatus, Fault> {
    let begun = Instant::now();
    let new = first.roots.last().map(|root| root.sha256.clone());
    let mut progress = show::Progress::new(args.output);
    let (mut status, mut heard) = (first, begun);
    loop {
        progress.show(&status, output)?;
        if status.phase == "steady" {
            progress.end(output)?;
            let arrived = status.roots.first().map(|root| &root.sha256) == new.as_ref();
            return if arrived {
                Ok(status)
            } else {
                Err(TrustCommandError::TakenBack.into())
            };
        }
        if let Some(why) = status.halted {
            return Err(TrustCommandError::Halted { why }.into());
        }
        if begun.elapsed() >= args.timeout {
            let error = TrustCommandError::NotEnded {
                secs: begun.elapsed().as_secs(),
                phase: status.phase.clone(),
                blockers: show::blockers_in_short(&status),
            };
            return Err(Fault::ending(Exit::Timeout, &error));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        status = match steward.status().await {
            Ok(fresh) => {
                heard = Instant::now();
                fresh
            }
            // A CA that was killed is started again, and goes on with the rotation.
            Err(_) if heard.elapsed() < SILENT_MAX => status,
            Err(fault) => return Err(fault),
        };
    }
}

/// The CA's trust socket.
struct Steward {
    socket: PathBuf,
}

impl Steward {
    fn find(args: &StewardArgs) -> Result<Self, Fault> {
        match &args.socket {
            Some(socket) => Ok(Self {
                socket: socket.clone(),
            }),
            None => Self::of(&Live::find(&args.live)?),
        }
    }

    fn of(live: &Live) -> Result<Self, Fault> {
        let socket = live
            .running
            .ca
            .trust_socket
            .clone()
            .ok_or(TrustCommandError::NoSocket)?;
        Ok(Self { socket })
    }

    async fn status(&self) -> Result<TrustStatus, Fault> {
        self.call(async |client| client.status(TrustStatusRequest {}).await)
            .await
    }

    async fn call(
        &self,
        mut call: impl AsyncFnMut(
            &mut TrustAdminClient<Channel>,
        ) -> Result<Response<TrustStatusReply>, Status>,
    ) -> Result<TrustStatus, Fault> {
        let mut client = TrustAdminClient::new(channel(&self.socket)?);
        let reply = call(&mut client)
            .await
            .map_err(|status| refusal(&self.socket, &status))?;
        serde_json::from_slice(&reply.into_inner().status_json).map_err(|error| {
            let error = live::LiveError::Malformed {
                from: self.socket.display().to_string(),
                why: error.to_string(),
            };
            error.into()
        })
    }
}

/// The CA's own coded error, if it gave one.
fn refusal(socket: &Path, status: &Status) -> Fault {
    match serde_json::from_slice::<CodedError>(status.details()) {
        Ok(coded) => Fault::coded(coded),
        Err(_) => TrustCommandError::NoAnswer {
            socket: socket.to_owned(),
            why: status.message().to_owned(),
        }
        .into(),
    }
}
