//! `mesh-proxy tap`: asks the proxy of this configuration for requests as they end, over its admin socket, and prints what it
//! tells. Whoever can run this as the proxy's user may look, and nobody else: the socket's mode says so.

use clap::Args;
use mesh_api::admin_http::{AdminError, follow};
use mesh_api::tap::PATH;
use mesh_platform::System;
use mesh_proxy::ProxyError;
use mesh_proxy::config::file;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// A proxy that lives says something every ten seconds; one that says nothing for so long is none.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// Prints requests and byte streams of a running proxy as they end, one line of JSON each.
#[derive(Args, Clone, Debug)]
pub(crate) struct TapArgs {
    /// Configuration of the proxy that is asked, YAML: a file, or `env:NAME` for an environment variable.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Ends when standard input does: whoever runs this from elsewhere may be gone.
    #[arg(long)]
    until_stdin_ends: bool,
    /// Which of them, as `/tap` of the admin socket takes it: `verdict=deny&rate=10`.
    #[arg(value_name = "QUERY", default_value = "")]
    query: String,
}

/// Why nothing is told.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum TapError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ProxyError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Admin(#[from] AdminError),
}

/// Prints lines until the proxy ends, or nobody reads them.
///
/// # Errors
/// [`TapError`] if the proxy refuses or does not answer.
pub(crate) fn run(args: &TapArgs) -> Result<(), TapError> {
    let config = file::load(&*System::new(), &args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ProxyError::Start {
            part: "the runtime of this command",
            why: error.to_string(),
        })?;
    if args.until_stdin_ends {
        // A thread of its own, that ends the process: whoever went away has left standard output full, most likely, and
        // the other thread then waits for room in it that never comes.
        std::thread::spawn(|| {
            let mut byte = [0];
            while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
            std::process::exit(0);
        });
    }
    runtime.block_on(async {
        let question = format!("{PATH}?{}", args.query);
        let mut lines = follow(&config.admin_socket, &question).await?;
        loop {
            let line = timeout(SILENT_FOR, lines.next()).await;
            let line = line.map_err(|_elapsed| AdminError::Timeout {
                socket: config.admin_socket.clone(),
                path: PATH.to_owned(),
                secs: SILENT_FOR.as_secs(),
            })?;
            let Some(mut line) = line? else {
                return Ok(());
            };
            line.push(b'\n');
            let mut out = io::stdout().lock();
            if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                return Ok(()); // nobody reads any more
            }
        }
    })
}
