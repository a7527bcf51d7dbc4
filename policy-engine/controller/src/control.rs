//! The main loop: a change of the sources becomes a generation, is stored, published and recorded, in this order.

use crate::authorship::{self, Authorship};
use crate::config::ControllerConfig;
use crate::discovery::Recent;
use crate::effects::{self, Step, Steps};
use crate::error::ControllerError;
use crate::generation::{GenerationStore, Last};
use crate::limits::{DRAIN, EFFECTS_DRAIN, EMPTY_GRACE};
use crate::origin::{Origin, Reader};
use crate::publish::{Published, Publishing};
use crate::reports::Reports;
use crate::sources::Sources;
use crate::state::Shared;
use crate::{admin, identity, serve, spread, status};
use mesh_audits::entry::{Entry, PolicyChange};
use mesh_platform::audit_log::{AuditLog, AuditLogConfig};
use mesh_platform::{Platform, unix};
use mesh_policy::snapshot::Severity;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};

/// Runs a controller until `shutdown` is ready. Needs a tokio runtime with IO and time.
///
/// # Errors
/// [`ControllerError`] if it cannot start. Once it runs, trouble with sources, identity and disk is reported and
/// outlived, not returned.
pub async fn run(
    config: ControllerConfig,
    platform: Arc<dyn Platform>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ControllerError> {
    let mut tasks = tokio::task::JoinSet::new();
    let origin = Origin::open(&config.sources, &mut tasks).await?;
    let (store, last) = GenerationStore::open(&config.state_dir, platform.wall_clock())?;
    let audit = AuditLog::open(&audit_config(&config), Arc::clone(&platform))?;
    let admin_socket = unix::bind(&config.admin_socket, 0o600)?;
    let listener = listen(config.listen).await?;
    let probes = match config.probes {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let shared = Arc::new(Shared {
        started_at: platform.wall_clock(),
        published: watch::Sender::new(None),
        recent: Recent::default(),
        identity: watch::Sender::new(None),
        streamed_bundles: Mutex::new(None),
        steering: mesh_ca_client::Steering::default(),
        held_back: Mutex::new(None),
        audit: audit.handle(),
        watchers: Mutex::new(BTreeMap::new()),
        reports: Reports::default(),
        config,
        platform,
    });
    tasks.spawn(identity::keep_fresh(Arc::clone(&shared)));
    tasks.spawn(crate::trust::keep_fresh(Arc::clone(&shared)));
    tasks.spawn(answer_questions(Arc::clone(&shared), admin_socket)?);
    if let Some(listener) = probes {
        let shared = Arc::clone(&shared);
        tasks.spawn(mesh_api::admin_http::serve(listener, move |path, _| {
            admin::answer_anybody(&shared, path)
        }));
    }
    if let Some((cluster, client)) = origin.cluster() {
        tasks.spawn(spread::keep_spread(
            Arc::clone(&shared),
            cluster,
            client.clone(),
        ));
        tasks.spawn(status::keep_told(Arc::clone(&shared), client));
    }
    let follower = Follower::new(&shared, origin.reader(), store, last);
    let (steps, queued) = effects::queue();
    let effects = tokio::spawn(effects::record(Arc::clone(&shared), queued));
    tasks.spawn(follow_sources(Arc::clone(&shared), follower, origin, steps));
    let outcome = serve_until(Arc::clone(&shared), listener, shutdown).await;
    tasks.shutdown().await;
    // Nobody hands over changes any more; what is still looked at may be finished.
    let _ = tokio::time::timeout(EFFECTS_DRAIN, effects).await;
    // Whoever asks next must not be refused by a name that nobody answers.
    let _ = std::fs::remove_file(&shared.config.admin_socket);
    tracing::info!("the controller ends");
    // Waits for the last lines of the audit log to reach the disk.
    let _ = tokio::task::spawn_blocking(move || drop(audit)).await;
    outcome
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ControllerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ControllerError::Listen {
            listen: address,
            source,
        })
}

fn audit_config(config: &ControllerConfig) -> AuditLogConfig {
    AuditLogConfig::new(
        config.audit_dir.clone(),
        "controller",
        env!("CARGO_PKG_VERSION"),
    )
}

fn answer_questions(
    shared: Arc<Shared>,
    socket: std::os::unix::net::UnixListener,
) -> Result<impl Future<Output = ()> + Send, ControllerError> {
    let listener = UnixListener::from_std(socket).map_err(|source| {
        mesh_platform::PlatformError::from_io("listen on", &shared.config.admin_socket, source)
    })?;
    Ok(mesh_api::admin_http::serve(listener, move |path, query| {
        admin::answer(&shared, path, query)
    }))
}

/// Serves until `shutdown`; then streams get a moment to end, and are cut.
async fn serve_until(
    shared: Arc<Shared>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ControllerError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve::serve(shared, listener, async move {
        // Dropped or sent: both mean the end.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        outcome = &mut serving => return Ok(outcome?),
        () = shutdown => {}
    }
    drop(stop);
    match tokio::time::timeout(DRAIN, serving).await {
        Ok(outcome) => Ok(outcome?),
        // Watch streams never end by themselves; their proxies connect again.
        Err(_elapsed) => Ok(()),
    }
}

async fn follow_sources(
    shared: Arc<Shared>,
    mut follower: Follower,
    mut origin: Origin,
    steps: Steps,
) {
    origin.ready(|why| shared.set_held_back(Some(why))).await;
    loop {
        // Reading, parsing and the flush to the disk block: not on the threads that serve.
        let turn = tokio::task::spawn_blocking(move || {
            let turn = follower.turn();
            (follower, turn)
        });
        let Ok((returned, turn)) = turn.await else {
            // A panic below; it was printed. The supervisor sees that nothing changes any more.
            shared.set_held_back(Some(
                "reading the manifests failed for an unknown reason; restart".to_owned(),
            ));
            return;
        };
        follower = returned;
        match turn {
            Turn::Changed(published, by) => publish(&shared, published, by, &steps),
            Turn::Same => shared.set_held_back(None),
            Turn::Emptied => {
                tokio::time::sleep(EMPTY_GRACE).await;
                follower.accept_empty = true;
                continue;
            }
            Turn::HeldBack(why) => {
                shared.set_held_back(Some(why));
                // Tried again without a change: the cause may be elsewhere.
                let _ = tokio::time::timeout(crate::limits::POLL, origin.changed()).await;
                continue;
            }
        }
        origin.changed().await;
    }
}

fn publish(shared: &Shared, published: Arc<Published>, by: Authorship, steps: &Steps) {
    shared.recent.keep(&published.discovery);
    let before = shared.published.send_replace(Some(Arc::clone(&published)));
    let there = &published.workloads;
    shared.reports.keep(|key| there.contains_key(key));
    shared.set_held_back(None);
    let workloads_changed = published.changed_workloads(before.as_deref());
    let (errors, warnings) = (
        published.count(Severity::Error),
        published.count(Severity::Warning),
    );
    tracing::info!(
        generation = published.generation,
        files = by.files.len(),
        workloads_changed,
        errors,
        warnings,
        "policy in force"
    );
    // A full queue is counted in the log itself.
    let _ = shared.audit.record(Entry::Change(PolicyChange {
        time: published.since,
        generation: published.generation,
        digest: published.digest.clone(),
        files: by.files,
        workloads_changed,
        errors,
        warnings,
        objects: by.objects,
        author: by.author.clone(),
        approver: by.approver,
    }));
    let step = Step {
        before,
        after: published,
        author: by.author,
    };
    if steps.try_send(step).is_err() {
        tracing::warn!(
            "changes of policy come faster than their effect is found; the log lacks one"
        );
    }
}

/// What one look at the sources came to.
enum Turn {
    /// A new policy, stored and ready; and what changed, and who changed it.
    Changed(Arc<Published>, Authorship),
    /// Nothing new.
    Same,
    /// A file that had content is empty: likely half written.
    Emptied,
    /// The policy before stays, for this reason.
    HeldBack(String),
}

/// Turns sources into policy, one change after the other.
struct Follower {
    publishing: Publishing,
    settings: String,
    reader: Reader,
    platform: Arc<dyn Platform>,
    store: GenerationStore,
    last: Option<Last>,
    sources: Sources,
    published: Option<Arc<Published>>,
    /// An empty file has had its time.
    accept_empty: bool,
}

impl Follower {
    fn new(shared: &Shared, reader: Reader, store: GenerationStore, last: Option<Last>) -> Self {
        let publishing = Publishing {
            index: shared.config.index.clone(),
            proxy_port: shared.config.proxy_port,
        };
        Self {
            settings: publishing.text(),
            publishing,
            reader,
            platform: Arc::clone(&shared.platform),
            store,
            last,
            sources: Sources::default(),
            published: None,
            accept_empty: false,
        }
    }

    fn turn(&mut self) -> Turn {
        let sources = match self.reader.read() {
            Ok(sources) => sources,
            Err(error) => return Turn::HeldBack(error.to_string()),
        };
        let accept_empty = std::mem::take(&mut self.accept_empty);
        if !accept_empty && sources.emptied_since(&self.sources) {
            return Turn::Emptied;
        }
        let digest = sources.digest(&self.settings);
        if self
            .published
            .as_ref()
            .is_some_and(|published| published.digest == digest)
        {
            return Turn::Same;
        }
        let next = self.next(digest, sources.revision);
        let published = match self.store_and_build(&sources, &next) {
            Ok(published) => Arc::new(published),
            Err(why) => return Turn::HeldBack(why),
        };
        let before = self.published.as_ref();
        let by = authorship::of(
            before.map(|before| (&self.sources, before.parts())),
            (&sources, published.parts()),
        );
        self.last = Some(next);
        self.sources = sources;
        self.published = Some(Arc::clone(&published));
        Turn::Changed(published, by)
    }

    /// The generation of a policy with this digest: that of the last one if it is the same, after a restart for
    /// instance; else one more. An API server numbers its changes itself, alike for every controller that watches it.
    fn next(&self, digest: String, revision: u64) -> Last {
        let generation = match &self.last {
            Some(last) if last.digest == digest => return last.clone(),
            Some(last) => last.generation.saturating_add(1),
            None => 1,
        };
        Last {
            generation: generation.max(revision),
            digest,
        }
    }

    /// Stores the generation while the policy is built: the flush takes about as long. Published only if stored.
    fn store_and_build(&self, sources: &Sources, next: &Last) -> Result<Published, String> {
        let store = || {
            if self.last.as_ref() == Some(next) {
                Ok(())
            } else {
                self.store.store(next)
            }
        };
        std::thread::scope(|scope| {
            let stored = scope.spawn(store);
            let published = self.publishing.publish(
                sources,
                (next.generation, next.digest.clone()),
                self.platform.wall_clock(),
                self.published.as_deref(),
            );
            match stored.join() {
                Ok(Ok(())) => Ok(published),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_panic) => Err("storing the generation failed".to_owned()),
            }
        })
    }
}
