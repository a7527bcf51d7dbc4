//! ledger: raw TCP with a line protocol, `POST <amount>` answered by `OK <entries>`.
//!
//! The client speaks first. A server that greets would leave a proxy that detects protocols waiting for bytes that the
//! client will not send; such ports must be declared opaque, and this one works either way.

use super::tcp::LINE_BYTES_MAX;
use super::{App, DemoError};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Keeps the ledger until it is ended.
pub(super) async fn run(app: &App) -> Result<(), DemoError> {
    let listener = app.listener("tcp").await?;
    let entries = Rc::new(Cell::new(0_u64));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let entries = Rc::clone(&entries);
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve(stream, &entries).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, entries: &Cell<u64>) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if (&mut stream)
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        let answer = match line
            .strip_prefix("POST ")
            .map(|amount| amount.trim_end().parse::<u64>())
        {
            Some(Ok(_)) if line.ends_with('\n') => {
                entries.set(entries.get().saturating_add(1));
                format!("OK {}\n", entries.get())
            }
            _ => "ERROR write POST and an amount\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await?;
        if answer.starts_with("ERROR") {
            return Ok(());
        }
    }
}
