//! Whom the CA's operator denied: follows the list, on the Workload API's socket or, from a CA on another machine, beside
//! its trust stream; and says which one is enforced.
//!
//! The last list stays in force whatever happens to its source; an older one never takes its place. A Workload API that
//! is not our CA's serves no such list: nobody is denied then, and it is asked again now and then.

use crate::config::IdentitySource;
use crate::identity;
use crate::limits::{CONTROL_RETRY_MAX, CONTROL_RETRY_MIN};
use crate::state::Shared;
use hyper_util::rt::TokioIo;
use mesh_api::proto::DenialsAck;
use mesh_api::proto::denials_client::DenialsClient;
use mesh_trust::Denials;
use mesh_trust::limits::DENIALS_BYTES_MAX;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

/// Keeps the list fresh for as long as the proxy lives.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    let IdentitySource::WorkloadApi(endpoint) = &shared.config.identity else {
        return;
    };
    let Some(socket) = endpoint.strip_prefix("unix:").map(|path| {
        // `unix:///a` and `unix:/a` are the same socket.
        PathBuf::from(path.strip_prefix("//").unwrap_or(path))
    }) else {
        return;
    };
    let mut pause = CONTROL_RETRY_MIN;
    loop {
        let ended = match connect(&socket).await {
            Ok(channel) => follow(&shared, channel).await,
            Err(ended) => Err(ended),
        };
        pause = after(ended, pause);
        tokio::time::sleep(pause).await;
    }
}

/// The same over a connection to a CA on another machine; whoever polls it ends it with the connection.
pub(crate) async fn follow_beside(shared: &Shared, channel: &Channel) -> Infallible {
    let mut pause = CONTROL_RETRY_MIN;
    loop {
        pause = after(follow(shared, channel.clone()).await, pause);
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait before the next attempt.
fn after(ended: Result<(), Ended>, pause: Duration) -> Duration {
    match ended {
        Ok(()) => CONTROL_RETRY_MIN,
        Err(Ended::NotServed) => CONTROL_RETRY_MAX,
        Err(Ended::Failed(why)) => {
            tracing::debug!(
                why,
                "the deny list is not followed; the last one stays in force"
            );
            (pause * 2).min(CONTROL_RETRY_MAX)
        }
    }
}

enum Ended {
    /// The Workload API knows no deny list.
    NotServed,
    Failed(String),
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            Code::Unimplemented => Self::NotServed,
            _ => Self::Failed(status.to_string()),
        }
    }
}

async fn connect(socket: &Path) -> Result<Channel, Ended> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://local.invalid")
        .connect_with_connector(connect)
        .await
        .map_err(|error| Ended::Failed(error.to_string()))
}

async fn follow(shared: &Shared, channel: Channel) -> Result<(), Ended> {
    let mut client = DenialsClient::new(channel).max_decoding_message_size(DENIALS_BYTES_MAX);
    let (acks, outgoing) = mpsc::channel(1);
    let ack = |generation| DenialsAck { generation };
    // The CA learns at once which list we hold: its own may be older.
    let held = shared.denials.load().generation();
    let _ = acks.send(ack(held)).await;
    let mut updates = client
        .watch(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    while let Some(update) = updates.message().await? {
        let list = Denials::from_json(&update.list_json)
            .map_err(|error| Ended::Failed(error.to_string()))?;
        install(shared, list);
        let enforced = shared.denials.load().generation();
        if acks.send(ack(enforced)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Puts a list into force: handshakes and whatever is alive are judged by it from now on.
fn install(shared: &Shared, list: Denials) {
    let current = shared.denials.load();
    if list.generation() < current.generation() {
        tracing::error!(
            offered = list.generation(),
            enforced = current.generation(),
            "the CA offers an older deny list than the one in force, which stays"
        );
        return;
    }
    if list == **current {
        return;
    }
    tracing::warn!(
        generation = list.generation(),
        entries = list.iter().count(),
        "another deny list is in force"
    );
    // Of a CA on another machine nobody gets an SVID pushed.
    let own = shared.identity.load_full();
    if own.is_some_and(|own| list.denies_chain(own.tls().svid()).is_some()) {
        shared.steering.replace();
    }
    shared.denials.store(Arc::new(list));
    identity::judge_anew(shared);
}
