//! A running mesh: where its state is, who runs, and what its sockets answer.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::up::state::{Running, RunningProxy, RunningWorkload};
use clap::Args;
use mesh_api::admin::{self, AdminError};
use mesh_api::discovery::Discovery;
use mesh_platform::{files, process};
use mesh_policy::Snapshot;
use mesh_policy::snapshot::SnapshotData;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::path::{Path, PathBuf};

/// Folder of the state, looked for from the working directory upwards.
const STATE_DIR: &str = ".mesh";
/// The file in it that says what runs.
const RUNNING_FILE: &str = "run/mesh.json";
/// What that file said when the mesh ended.
pub(crate) const ENDED_FILE: &str = "run/ended.json";

/// Which running mesh is asked.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LiveArgs {
    /// State directory of the running mesh; by default the nearest `.mesh`, from here upwards.
    #[arg(long, value_name = "DIR", env = "MESH_STATE")]
    pub(crate) state: Option<PathBuf>,
}

/// A mesh whose state directory was found.
#[derive(Debug)]
pub(crate) struct Live {
    /// What it says of itself.
    pub(crate) running: Running,
    /// Its state directory.
    pub(crate) state: PathBuf,
}

/// Why a running mesh gives no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum LiveError {
    /// Nowhere a state directory.
    #[error("no mesh is found at `{}`", place.display())]
    #[diagnostic(
        code("MESH-0607"),
        help(
            "start one with `mesh up`, name its state with `--state DIR`, or ask about files with `-f DIR`"
        )
    )]
    NotFound {
        /// Where it was looked for.
        place: PathBuf,
    },
    /// A state directory, and nobody alive in it.
    #[error("the mesh in `{}` no longer runs: its supervisor, process {pid}, is gone", state.display())]
    #[diagnostic(code("MESH-0608"), help("start it again with `mesh up --state {}`", state.display()))]
    Ended {
        /// The state directory.
        state: PathBuf,
        /// The process that was its supervisor.
        pid: u32,
    },
    /// `run/mesh.json`, or an answer of a socket, is not what it should be.
    #[error("`{from}` is malformed: {why}")]
    #[diagnostic(
        code("MESH-0613"),
        help(
            "the mesh and this command are of different versions: restart it with `mesh up` of this version"
        )
    )]
    Malformed {
        /// The file, or socket and path.
        from: String,
        /// What the reader says.
        why: String,
    },
    /// Nobody of that name.
    #[error("no workload `{asked}` with a proxy runs in this mesh")]
    #[diagnostic(code("MESH-0609"), help("{known}"))]
    NoProxy {
        /// What was asked for.
        asked: String,
        /// Who there is, in words.
        known: String,
    },
    /// The runtime.
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

impl Live {
    /// The mesh of `args`, alive.
    ///
    /// # Errors
    /// [`LiveError::NotFound`], [`LiveError::Ended`], [`LiveError::Malformed`].
    pub(crate) fn find(args: &LiveArgs) -> Result<Self, Fault> {
        let live = Self::read(args)?;
        if live.supervisor_is_alive() {
            return Ok(live);
        }
        Err(LiveError::Ended {
            pid: live.running.pid,
            state: live.state,
        }
        .into())
    }

    /// The mesh of `args`, alive or not.
    ///
    /// # Errors
    /// [`LiveError::NotFound`], [`LiveError::Malformed`].
    pub(crate) fn read(args: &LiveArgs) -> Result<Self, Fault> {
        Self::read_file(args, RUNNING_FILE)
    }

    /// The mesh of `args`, alive or not; if none is, the one that ended there last.
    ///
    /// # Errors
    /// As [`Live::read`].
    pub(crate) fn read_or_ended(args: &LiveArgs) -> Result<Self, Fault> {
        Self::read(args).or_else(|fault| Self::read_file(args, ENDED_FILE).map_err(|_| fault))
    }

    fn read_file(args: &LiveArgs, name: &str) -> Result<Self, Fault> {
        let state = match &args.state {
            Some(state) if state.join(name).is_file() => state.clone(),
            Some(state) => {
                return Err(LiveError::NotFound {
                    place: state.clone(),
                }
                .into());
            }
            None => nearest(Path::new("."), name)?,
        };
        let file = state.join(name);
        let running =
            serde_json::from_slice(&files::read(&file)?).map_err(|error| LiveError::Malformed {
                from: file.display().to_string(),
                why: error.to_string(),
            })?;
        Ok(Self { running, state })
    }

    /// Whether the process that wrote the file is the one that now has its pid.
    pub(crate) fn supervisor_is_alive(&self) -> bool {
        process::start_time_ticks(self.running.pid) == Some(self.running.start_time_ticks)
    }

    /// Every workload that has a proxy.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = (&RunningWorkload, &RunningProxy)> {
        self.running
            .workloads
            .iter()
            .filter_map(|workload| Some((workload, workload.proxy.as_ref()?)))
    }

    /// The proxy of `namespace/name`, or of the only workload called `name`.
    ///
    /// # Errors
    /// [`LiveError::NoProxy`] with the names that there are.
    pub(crate) fn proxy(
        &self,
        asked: &str,
    ) -> Result<(&RunningWorkload, &RunningProxy), LiveError> {
        let (namespace, name) = asked
            .split_once('/')
            .map_or((None, asked), |(namespace, name)| (Some(namespace), name));
        let mut found = self.proxies().filter(|(w, _)| {
            w.name == name && namespace.is_none_or(|namespace| w.namespace == namespace)
        });
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            _ => {
                let names: Vec<_> = self
                    .proxies()
                    .map(|(w, _)| format!("{}/{}", w.namespace, w.name))
                    .collect();
                let known = format!("there are: {}", names.join(", "));
                Err(LiveError::NoProxy {
                    asked: asked.to_owned(),
                    known,
                })
            }
        }
    }

    /// Service ports as the proxies know them.
    ///
    /// # Errors
    /// The last proxy's, if none answers.
    pub(crate) async fn discovery(&self) -> Result<Discovery, Fault> {
        let mut last = Err(LiveError::NoProxy {
            asked: "any".to_owned(),
            known: "a mesh without a proxy knows no Services".to_owned(),
        }
        .into());
        for (_, proxy) in self.proxies() {
            last = answer(&proxy.socket, "/discovery").await;
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// The policy that a proxy enforces now, compiled by the same code.
///
/// # Errors
/// [`AdminError`], [`LiveError::Malformed`], or why it does not compile.
pub(crate) async fn snapshot(proxy: &RunningProxy) -> Result<Snapshot, Fault> {
    let data: SnapshotData = answer(&proxy.socket, "/snapshot").await?;
    Ok(Snapshot::compile(data)?)
}

/// Asks an admin socket.
///
/// # Errors
/// [`AdminError`] (exit code 4 if it did not answer in time), [`LiveError::Malformed`].
pub(crate) async fn answer<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Fault> {
    let body = asked(socket, path).await?;
    serde_json::from_slice(&body).map_err(|error| malformed(socket, path, &error))
}

/// Asks an admin socket for a text.
///
/// # Errors
/// As [`answer`].
pub(crate) async fn text(socket: &Path, path: &str) -> Result<String, Fault> {
    let body = asked(socket, path).await?;
    String::from_utf8(body).map_err(|error| malformed(socket, path, &error))
}

async fn asked(socket: &Path, path: &str) -> Result<Vec<u8>, Fault> {
    let body = admin::get(socket, path).await;
    body.map_err(|error| match error {
        AdminError::Timeout { .. } => Fault::ending(Exit::Timeout, &error),
        error => error.into(),
    })
}

fn malformed(socket: &Path, path: &str, why: &dyn std::fmt::Display) -> Fault {
    LiveError::Malformed {
        from: format!("{}{path}", socket.display()),
        why: why.to_string(),
    }
    .into()
}

/// Runs `work` to its end on this thread.
///
/// # Errors
/// [`LiveError::Runtime`], or those of `work`.
pub(crate) fn wait<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| LiveError::Runtime {
            why: error.to_string(),
        })?;
    runtime.block_on(work)
}

/// The nearest state directory that holds the file `name`, in `from` or above.
fn nearest(from: &Path, name: &str) -> Result<PathBuf, LiveError> {
    let not_found = || LiveError::NotFound {
        place: from.join(STATE_DIR),
    };
    let absolute = std::path::absolute(from).map_err(|_| not_found())?;
    let mut candidates = absolute.ancestors().map(|folder| folder.join(STATE_DIR));
    candidates
        .find(|state| state.join(name).is_file())
        .ok_or_else(|| LiveError::NotFound {
            place: absolute.join(STATE_DIR),
        })
}
