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
use tokio::sync::oneshot;

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
    let (ends, ended) = oneshot::channel::<()>();
    // Held until the end where standard input says nothing.
    let mut ends = Some(ends);
    if args.until_stdin_ends
        && let Some(ends) = ends.take()
    {
        // A thread of its own: a read of standard input cannot be given up, and must not keep the process.
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
            drop(ends);
        });
    }
    runtime.block_on(async {
        let question = format!("{PATH}?{}", args.query);
        let mut lines = follow(&config.admin_socket, &question).await?;
        tokio::pin!(ended);
        loop {
            let line = tokio::select! {
                line = lines.next() => line?,
                _ = &mut ended => return Ok(()),
            };
            let Some(mut line) = line else {
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
