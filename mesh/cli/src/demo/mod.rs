//! The applications of the demo shop, small and honest: each reports every attempt it makes as one JSON line.
//!
//! - [`shop`]: the files of examples/shop, built in
//! - [`attempt`]: what is reported, and the words for outcomes
//! - [`protobuf`], [`grpc`]: the little of gRPC that is needed, client side; [`payments`] has the server side
//! - [`http`], [`tcp`]: callers over HTTP/1.1 and over the ledger's line protocol
//! - [`web`], [`orders`], [`payments`], [`ledger`]: the shop
//! - [`outsiders`]: the intruder, which has an SVID and no grant, and the plaintext client, which has neither

mod attempt;
mod grpc;
mod http;
mod ledger;
mod orders;
mod outsiders;
mod payments;
mod protobuf;
pub(crate) mod shop;
mod tcp;
mod web;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::local_mesh::variable;
use crate::output::Output;
use attempt::Reporter;
use clap::{Args, ValueEnum};
use mesh_platform::signals;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Which application to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Asks orders, ten times a second.
    Web,
    /// HTTP/1.1 server; charges payments and watches it.
    Orders,
    /// gRPC server; posts to the ledger.
    Payments,
    /// TCP server with a line protocol.
    Ledger,
    /// Tries orders, payments and the ledger through its own proxy.
    Intruder,
    /// Tries the pods of orders, payments and ledger in plaintext.
    Plaintext,
}

/// Plays one application of the demo shop. Where to listen comes from MESH_APP_ADDR (`IP:PORT`), whom to call from
/// MESH_UPSTREAM_* and MESH_PLAIN_* (`IP:PORT` or `NAME:PORT`).
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Which application to be.
    #[arg(long, value_enum)]
    role: Role,
    /// Name in reports; the role's name by default.
    #[arg(long)]
    name: Option<String>,
    /// Where to listen, in place of MESH_APP_ADDR.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
}

/// The variables whose names begin with `MESH_`.
pub(crate) type Variables = BTreeMap<String, String>;

/// Why a demo application cannot run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum DemoError {
    /// An address is missing or malformed.
    #[error("the demo application needs an address in `{variable}`, and it is {found}")]
    #[diagnostic(
        code("MESH-0630"),
        help("`mesh up` sets it; by hand write `{variable}=127.0.0.1:8080 mesh demo-app ...`")
    )]
    Address {
        /// The variable.
        variable: String,
        /// What stands in it.
        found: String,
    },
    /// The listener cannot be made.
    #[error("the demo application cannot listen on {address}: {why}")]
    #[diagnostic(
        code("MESH-0631"),
        help("see who has the address with `ss -ltnp`, or give another with `--listen`")
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// The runtime cannot start.
    #[error("the runtime cannot start: {why}")]
    #[diagnostic(
        code("MESH-0632"),
        help("look at the limits of open files and processes (`ulimit -a`)")
    )]
    Runtime {
        /// What the system says.
        why: String,
    },
}

/// Where a server is: `IP:PORT`, as `mesh up` tells it, or `NAME:PORT`, as one writes it on Kubernetes.
#[derive(Clone, Debug)]
struct Upstream(Rc<str>);

impl Upstream {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| Self(text.into()))
    }
}

/// What an application is given: its name, its addresses, and where to report.
struct App {
    name: String,
    listen: Option<SocketAddr>,
    variables: Variables,
    reporter: Rc<Reporter>,
}

/// Plays the application until it is ended.
pub(crate) fn run(args: DemoArgs, variables: Variables, output: Output) -> Result<Exit, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DemoError::Runtime {
            why: error.to_string(),
        })?;
    let name = args.name.unwrap_or_else(|| {
        args.role
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    });
    let reporter = Rc::new(Reporter::new(name.clone(), output));
    let app = App {
        name,
        listen: args.listen,
        variables,
        reporter,
    };
    LocalSet::new().block_on(&runtime, async {
        // The first process of a container is not ended by a signal that it does not handle.
        tokio::select! {
            played = play(args.role, &app) => played,
            Ok(_) = signals::shutdown_requested() => Ok(()),
        }
    })?;
    Ok(Exit::Ok)
}

async fn play(role: Role, app: &App) -> Result<(), DemoError> {
    match role {
        Role::Web => web::run(app).await,
        Role::Orders => orders::run(app).await,
        Role::Payments => payments::run(app).await,
        Role::Ledger => ledger::run(app).await,
        Role::Intruder => outsiders::run(app, "MESH_UPSTREAM_").await,
        Role::Plaintext => outsiders::run(app, "MESH_PLAIN_").await,
    }
}

impl App {
    /// Where the upstream `name` is, from `<prefix><NAME>`.
    fn upstream(&self, prefix: &str, name: &str) -> Result<Upstream, DemoError> {
        self.read(variable(prefix, name), Upstream::parse)
    }

    /// Listens on `--listen`, on `MESH_APP_ADDR_<PORT>`, or on `MESH_APP_ADDR`.
    async fn listener(&self, port_name: &str) -> Result<TcpListener, DemoError> {
        let own = variable("MESH_APP_ADDR_", port_name);
        let address = match self.listen {
            Some(address) => address,
            None if self.variables.contains_key(&own) => self.address(own)?,
            None => self.address("MESH_APP_ADDR".to_owned())?,
        };
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| DemoError::Listen {
                address,
                why: error.to_string(),
            })?;
        tracing::info!(name = self.name, %address, "listening");
        Ok(listener)
    }

    fn address(&self, variable: String) -> Result<SocketAddr, DemoError> {
        self.read(variable, |text| text.parse().ok())
    }

    fn read<T>(
        &self,
        variable: String,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, DemoError> {
        let found = self.variables.get(&variable);
        match found.and_then(|text| parse(text)) {
            Some(address) => Ok(address),
            None => {
                let found = found.map_or_else(|| "not set".to_owned(), |text| format!("`{text}`"));
                Err(DemoError::Address { variable, found })
            }
        }
    }
}
