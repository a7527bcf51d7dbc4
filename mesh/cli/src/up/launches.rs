//! Tells the CA which process is which workload, and tells it again when the CA comes back.

use hyper_util::rt::TokioIo;
use mesh_api::proto::launch_client::LaunchClient;
use mesh_api::proto::{LaunchRecord, UnregisterRequest};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long to wait before the CA's control socket is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// The launch records of this mesh. Cheap to clone; belongs to the supervisor's thread, whose process the CA trusts.
#[derive(Clone)]
pub(crate) struct Launches {
    socket: PathBuf,
    records: Rc<RefCell<BTreeMap<u32, LaunchRecord>>>,
    channel: Rc<RefCell<Option<LaunchClient<Channel>>>>,
}

impl Launches {
    /// Records that go to the CA at `socket`.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            records: Rc::default(),
            channel: Rc::default(),
        }
    }

    /// Registers a process, as long as it takes the CA to answer; a CA that comes back later learns it from [`Self::replay`].
    pub(crate) async fn register(&self, record: LaunchRecord) {
        self.records.borrow_mut().insert(record.pid, record.clone());
        self.send(record).await;
    }

    /// Forgets a process that ended.
    pub(crate) async fn unregister(&self, pid: u32) {
        if self.records.borrow_mut().remove(&pid).is_none() {
            return;
        }
        let client = self.channel.borrow().clone();
        if let Some(mut client) = client {
            // A CA that is down forgets by itself: it sees that the process has gone.
            let _ = tokio::time::timeout(
                Duration::from_secs(1),
                client.unregister(UnregisterRequest { pid }),
            )
            .await;
        }
    }

    /// Tells a CA that has just started everything that runs.
    pub(crate) async fn replay(&self) {
        self.channel.borrow_mut().take();
        let records: Vec<_> = self.records.borrow().values().cloned().collect();
        for record in records {
            self.send(record).await;
        }
    }

    async fn send(&self, record: LaunchRecord) {
        // Ends when the process is forgotten: its record is not worth telling any more.
        while self.records.borrow().contains_key(&record.pid) {
            if let Some(mut client) = self.client().await {
                match client.register(record.clone()).await {
                    Ok(_) => return,
                    Err(status) => {
                        tracing::debug!(pid = record.pid, %status, "the CA did not take a launch record");
                        self.channel.borrow_mut().take();
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn client(&self) -> Option<LaunchClient<Channel>> {
        let open = self.channel.borrow().clone();
        if open.is_some() {
            return open;
        }
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is never dialled: the connector above goes to the socket.
        let channel = Endpoint::from_static("http://launch.invalid")
            .connect_with_connector(connect)
            .await
            .ok()?;
        let client = LaunchClient::new(channel);
        *self.channel.borrow_mut() = Some(client.clone());
        Some(client)
    }
}
