//! `mesh node`: machines that join the mesh of a CA; `mesh join`: the agent of such a machine.

use crate::broker::BrokerArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::identity::{CaAdminArgs, DenyError};
use crate::output::{Format, Output};
use crate::parts::{asked_to_end, log_to_stderr, runtime};
use crate::registrations;
use clap::{Args, Subcommand};
use mesh_api::proto::node_admin_client::NodeAdminClient;
use mesh_api::proto::{MakeTokenRequest, NodesReply, NodesRequest, RemoveNodeRequest};
use mesh_ca::joined::{self, JoinedConfig, SealKey};
use mesh_ca_client::node::NodeCa;
use mesh_issuance::attestation::join::JoinToken;
use mesh_platform::{PlatformError, System, files};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Channel;

/// Bytes of a file with a token: one line of 99, and what an editor adds.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Machines of a mesh.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum NodeCommand {
    /// Makes a token with which one more machine joins, once, within minutes: `mesh join` takes it there.
    Token(TokenArgs),
    /// Lists machines that joined, for whom they speak, and whether their agents are connected.
    List(ListArgs),
    /// Forgets a machine and its tokens: its agent gets nothing new. To cut off what it holds, deny it.
    Remove(RemoveArgs),
}

/// One token.
#[derive(Args, Clone, Debug)]
pub(crate) struct TokenArgs {
    /// Name of the machine: 1 to 63 of a-z, 0-9 and `-`.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Workloads that it may speak for: `NAMESPACE/SERVICE-ACCOUNT`, or `NAMESPACE/*`. May be given several times.
    #[arg(long = "workload", value_name = "NS/SA", required = true)]
    workloads: Vec<String>,
    /// How long the token works, 30 seconds to 10 minutes.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::arguments::duration)]
    ttl: Duration,
    #[command(flatten)]
    ca: CaAdminArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// All machines.
#[derive(Args, Clone, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    ca: CaAdminArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct RemoveArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    node: String,
    #[command(flatten)]
    ca: CaAdminArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The agent of a machine that joins, or has joined.
#[derive(Args, Clone, Debug)]
pub(crate) struct JoinArgs {
    /// File with the token of `mesh node token`; `-` reads it from standard input. Without it, the machine has joined
    /// before.
    #[arg(long, value_name = "FILE", requires = "ca")]
    token_file: Option<PathBuf>,
    /// Where the CA serves the network.
    #[arg(long, value_name = "HOST:PORT", requires = "token_file")]
    ca: Option<String>,
    /// Trust domain to join. Default: that of the CA that made the token
    #[arg(long, value_name = "NAME", requires = "token_file", value_parser = crate::manifests::trust_domain)]
    trust_domain: Option<TrustDomain>,
    /// SPIFFE ID of the CA. Default: `spiffe://TRUST-DOMAIN/ns/mesh-system/sa/mesh-identity`
    #[arg(long, value_name = "ID", requires = "token_file", value_parser = crate::parts::spiffe_id)]
    ca_identity: Option<SpiffeId>,
    /// Folder of the node's SVID and key, and of the last SVIDs of its workloads.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// File of 32 random octets, outside of that folder, under which everything in it is sealed. Default: systemd's
    /// credential `mesh-seal-key`, and without one a secret in the folder, with what tells this machine from others.
    #[arg(long, value_name = "FILE")]
    seal_key_file: Option<PathBuf>,
    /// Socket of the SPIFFE Workload API.
    #[arg(long, value_name = "SOCKET")]
    workload_api: PathBuf,
    /// Permission bits of that socket, octal; 0666 lets in processes of other users.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = crate::arguments::mode)]
    workload_api_mode: u32,
    /// File of processes and who they are: by user, program or systemd service (docs/reference/registrations.md).
    #[arg(long, value_name = "FILE")]
    registrations: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
}

impl NodeCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Token(args) => args.output,
            Self::List(args) => args.output,
            Self::Remove(args) => args.output,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeToken {
    node: String,
    workloads: Vec<String>,
    /// A secret until it is spent.
    token: String,
    expires: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    nodes: Vec<Node>,
    open_tokens: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    name: String,
    spiffe_id: String,
    workloads: Vec<String>,
    joined: Timestamp,
    connected: bool,
}

impl From<NodesReply> for Nodes {
    fn from(reply: NodesReply) -> Self {
        let node = |node: mesh_api::proto::JoinedNode| Node {
            name: node.name,
            spiffe_id: node.spiffe_id,
            workloads: node.workloads,
            joined: Timestamp::from_unix_secs(node.joined_unix_secs),
            connected: node.connected,
        };
        Self {
            nodes: reply.nodes.into_iter().map(node).collect(),
            open_tokens: reply.open_tokens,
        }
    }
}

fn answered<T>(reply: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Fault> {
    let refused = |status: tonic::Status| DenyError::Refused {
        why: status.message().to_owned(),
    };
    Ok(reply.map_err(refused)?.into_inner())
}

/// Runs one of the commands.
pub(crate) fn run(command: NodeCommand, output: &mut Output) -> Result<Exit, Fault> {
    let runtime = runtime()?;
    runtime.block_on(async {
        match command {
            NodeCommand::Token(args) => token(args, output).await,
            NodeCommand::List(args) => {
                let mut client = client(&args.ca).await?;
                let nodes = answered(client.nodes(NodesRequest {}).await)?;
                show(&nodes.into(), args.output, output)
            }
            NodeCommand::Remove(args) => {
                let mut client = client(&args.ca).await?;
                let request = RemoveNodeRequest { node: args.node };
                let nodes = answered(client.remove(request).await)?;
                show(&nodes.into(), args.output, output)
            }
        }
    })
}

async fn client(ca: &CaAdminArgs) -> Result<NodeAdminClient<Channel>, Fault> {
    Ok(NodeAdminClient::new(ca.channel().await?))
}

async fn token(args: TokenArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut client = client(&args.ca).await?;
    let request = MakeTokenRequest {
        node: args.node.clone(),
        workloads: args.workloads.clone(),
        lifetime_secs: args.ttl.as_secs(),
    };
    let made = answered(client.make_token(request).await)?;
    let made = MadeToken {
        node: args.node,
        workloads: args.workloads,
        token: made.token,
        expires: Timestamp::from_unix_secs(made.expires_unix_secs),
    };
    output.value(args.output, &made, |output, made| {
        output.line(&made.token)?;
        output.talk(format_args!(
            "{} joins with it once, until {}, and speaks for {} there: mesh join --ca HOST:PORT --token-file FILE",
            made.node,
            made.expires,
            made.workloads.join(", ")
        ));
        Ok(())
    })?;
    Ok(Exit::Ok)
}

fn show(nodes: &Nodes, format: Format, output: &mut Output) -> Result<Exit, Fault> {
    output.value(format, nodes, |output, nodes| {
        if nodes.nodes.is_empty() {
            output.line("no machine has joined")?;
        }
        for node in &nodes.nodes {
            let state = match node.connected {
                true => "connected",
                false => "not connected",
            };
            output.line(format_args!(
                "{}  {state}  joined {}  speaks for {}",
                node.name,
                node.joined,
                node.workloads.join(", ")
            ))?;
        }
        if nodes.open_tokens > 0 {
            output.line(format_args!("{} tokens are open", nodes.open_tokens))?;
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

/// Runs the agent until it is ended.
pub(crate) fn join(args: JoinArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let registrations = registrations::read(&args.registrations)?;
    let join = match args.token_file.as_deref().zip(args.ca) {
        Some((file, address)) => {
            let ca = NodeCa {
                address,
                identity: args.ca_identity,
                trust_domain: args.trust_domain,
            };
            Some((ca, read_token(file)?))
        }
        None => None,
    };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let credential = || SealKey::credential(credentials.as_deref()?);
    let given = args.seal_key_file.map(SealKey::File);
    let seal_key = given.or_else(credential).unwrap_or_else(SealKey::machine);
    let config = JoinedConfig {
        dir: args.dir,
        seal_key,
        join,
        workload_api: args.workload_api,
        workload_api_mode: args.workload_api_mode,
        registrations,
        broker: args.broker.config(),
        harden: true,
        platform: System::new(),
    };
    runtime()?.block_on(joined::run(config, asked_to_end()))?;
    Ok(Exit::Ok)
}

/// The token in a file, or on standard input: not an argument, which every process of the machine could read.
fn read_token(file: &Path) -> Result<JoinToken, Fault> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin()
            .take(TOKEN_FILE_BYTES_MAX)
            .read_to_end(&mut bytes);
        read.map_err(|source| PlatformError::from_io("read", file, source))?;
        bytes
    } else {
        files::read_limited(file, TOKEN_FILE_BYTES_MAX).map_err(|error| Fault::usage(&error))?
    };
    let text = String::from_utf8_lossy(&bytes);
    text.trim().parse().map_err(|error| Fault::usage(&error))
}
