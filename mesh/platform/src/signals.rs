//! The wish to end, as the operating system says it.

use crate::PlatformError;
use tokio::signal::unix::{SignalKind, signal};

/// How we were asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// `SIGTERM`: a supervisor.
    Terminate,
    /// `SIGINT`: Ctrl-C at the terminal.
    Interrupt,
}

/// Ready once the process is asked to end. From the first poll on, these signals no longer end it by themselves.
///
/// # Errors
/// [`PlatformError::Kernel`] if the signals cannot be watched.
pub async fn shutdown_requested() -> Result<Shutdown, PlatformError> {
    let watch = |kind| {
        signal(kind).map_err(|source| PlatformError::Kernel {
            doing: "watch signals",
            source,
        })
    };
    let (mut terminate, mut interrupt) = (
        watch(SignalKind::terminate())?,
        watch(SignalKind::interrupt())?,
    );
    Ok(tokio::select! {
        _ = terminate.recv() => Shutdown::Terminate,
        _ = interrupt.recv() => Shutdown::Interrupt,
    })
}
