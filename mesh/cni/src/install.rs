//! Keeps the plugin in place on a node: its program, its kubeconfig, and our entry in the chain. What the DaemonSet runs.
//!
//! ```text
//! every second: program there? -> kubeconfig with today's token? -> first configuration of the folder has us last?
//! SIGTERM:      the DaemonSet is gone (or denies us)  -> out of the chain, the configuration as it was
//!               it is there, or nobody can say        -> all stays: pods wait for the next of us, none starts uncaptured
//! ```
//!
//! The program stays where it is: a runtime that kept the chain with which it made a pod calls it once more for the pod's
//! end, and cannot let the pod go without.

use crate::chain::{self, Kind};
use crate::error::InstallError;
use crate::kubeconfig::{self, Account};
use crate::limits::{CONFIG_BYTES_MAX, CREDENTIAL_BYTES_MAX, FAREWELL, FILES_MAX, LOOK_EVERY};
use crate::protocol::PLUGIN;
use mesh_kubernetes::{KubernetesError, read};
use mesh_platform::{PlatformError, files, signals};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name of the plugin's kubeconfig, in the folder of configurations. Runtimes look at no file without extension.
pub const KUBECONFIG: &str = "mesh-cni-kubeconfig";

/// What is behind the name of a configuration as it was before us.
const BEFORE: &str = ".before-mesh-cni";

/// This program, as the kernel has it.
pub const SELF: &str = "/proc/self/exe";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is copied to the node: [`SELF`].
    pub program: PathBuf,
    /// Folder of plugins.
    pub bin_dir: PathBuf,
    /// Folder of network configurations, by the same path here and on the node.
    pub conf_dir: PathBuf,
    /// Where the service account is mounted.
    pub account_dir: PathBuf,
    /// The API server's address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Namespaces whose pods the plugin asks nobody about.
    pub exclude_namespaces: Vec<String>,
}

/// What a look found to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The program was copied.
    pub program: bool,
    /// The kubeconfig was written.
    pub kubeconfig: bool,
    /// We came into this configuration.
    pub chain: Option<PathBuf>,
}

/// A configuration that we are to be in.
struct Planned {
    file: PathBuf,
    kind: Kind,
    text: Vec<u8>,
    /// As it has to be; none if it is so.
    list: Option<Value>,
}

impl Settings {
    fn kubeconfig(&self) -> PathBuf {
        self.conf_dir.join(KUBECONFIG)
    }

    /// Where it is on the node.
    fn placed(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    /// Puts in place what is not. The chain comes last: what it names is there.
    ///
    /// # Errors
    /// [`InstallError`] with the first thing that cannot be put in place; what is in place stays.
    pub fn look(&self) -> Result<Changes, InstallError> {
        let mut changes = Changes::default();
        if !self.has_program()? {
            let bytes = files::read(&self.program)?;
            files::write_atomic(&self.placed(), &bytes, 0o755)?;
            changes.program = true;
        }
        let text = self.credentials()?;
        if !self.has_credentials(&text) {
            files::write_atomic(&self.kubeconfig(), text.as_bytes(), 0o600)?;
            changes.kubeconfig = true;
        }
        let planned = self.planned()?;
        if let Some(list) = &planned.list {
            changes.chain = Some(put(&planned, list)?);
        }
        Ok(changes)
    }

    /// Whether all is in place.
    ///
    /// # Errors
    /// [`InstallError`] with what is not.
    pub fn check(&self) -> Result<(), InstallError> {
        let text = self.credentials()?;
        if !self.has_program()? || !self.has_credentials(&text) {
            let why = "program or kubeconfig on the node are not ours yet".to_owned();
            return Err(InstallError::Credentials { why });
        }
        let planned = self.planned()?;
        match planned.list {
            None => Ok(()),
            Some(_) => Err(InstallError::NotChainable {
                file: planned.file,
                why: "the plugin is not in it yet".to_owned(),
            }),
        }
    }

    /// By its size: a program of the same size that is another one is replaced when the installer starts.
    fn has_program(&self) -> Result<bool, InstallError> {
        match files::length(&self.placed()) {
            Ok(length) => Ok(length == files::length(&self.program)?),
            Err(PlatformError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn credentials(&self) -> Result<String, InstallError> {
        let read = |name: &str| {
            let path = self.account_dir.join(name);
            files::read_limited(&path, CREDENTIAL_BYTES_MAX).map_err(|error| {
                InstallError::Credentials {
                    why: error.to_string(),
                }
            })
        };
        let account = Account {
            token: read("token")?,
            authorities: read("ca.crt")?,
        };
        kubeconfig::write(&self.host, self.port, &account)
    }

    fn has_credentials(&self, text: &str) -> bool {
        let path = self.kubeconfig();
        let private = fs::symlink_metadata(&path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o777 == 0o600);
        private
            && files::read_limited(&path, CREDENTIAL_BYTES_MAX)
                .is_ok_and(|found| found == text.as_bytes())
    }

    /// The first configuration, as a runtime finds it, and what it has to become.
    fn planned(&self) -> Result<Planned, InstallError> {
        let found = configurations(&self.conf_dir)?;
        let Some((file, kind)) = found.into_iter().next() else {
            return Err(InstallError::NoNetwork {
                folder: self.conf_dir.clone(),
            });
        };
        let text = files::read_limited(&file, CONFIG_BYTES_MAX)?;
        let list = chain::list(kind, &text).map_err(|why| InstallError::NotChainable {
            file: file.clone(),
            why,
        })?;
        let entry = chain::entry(&self.kubeconfig(), &self.exclude_namespaces);
        let wanted = chain::with(list.clone(), &entry);
        Ok(Planned {
            file,
            kind,
            text,
            list: (kind == Kind::Single || wanted != list).then_some(wanted),
        })
    }

    /// Takes us out of every chain, and our kubeconfig away. Configurations that nobody else changed meanwhile are byte for
    /// byte what they were.
    ///
    /// # Errors
    /// [`InstallError`]; what could not be undone is still chained.
    pub fn remove(&self) -> Result<Vec<PathBuf>, InstallError> {
        let mut out = Vec::new();
        for (file, kind) in configurations(&self.conf_dir)? {
            let text = files::read_limited(&file, CONFIG_BYTES_MAX)?;
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            if kind == Kind::List && chain::holds(&value) {
                take(&file, value)?;
                out.push(file);
            }
        }
        files::remove(&self.kubeconfig())?;
        Ok(out)
    }
}

/// Files that runtimes look at, in their order.
fn configurations(folder: &Path) -> Result<Vec<(PathBuf, Kind)>, InstallError> {
    let failed = |source| PlatformError::from_io("read directory", folder, source);
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(kind) = Kind::of(&path).filter(|_| path.is_file()) {
            out.push((path, kind));
        }
    }
    out.sort();
    out.truncate(FILES_MAX);
    Ok(out)
}

/// Writes the list in the place of the configuration, which is kept beside it.
fn put(planned: &Planned, list: &Value) -> Result<PathBuf, InstallError> {
    let file = &planned.file;
    let mode = mode(file)?;
    let target = match planned.kind {
        Kind::List => file.clone(),
        Kind::Single => file.with_extension("conflist"),
    };
    if planned.kind == Kind::Single && target.exists() {
        let text = files::read_limited(&target, CONFIG_BYTES_MAX)?;
        if !chain::holds(&serde_json::from_slice(&text).unwrap_or_default()) {
            return Err(InstallError::NotChainable {
                file: file.clone(),
                why: format!("`{}` stands beside it and is not ours", target.display()),
            });
        }
    }
    // What has us in it is not what was before us.
    let is_original =
        !serde_json::from_slice(&planned.text).is_ok_and(|value| chain::holds(&value));
    if is_original {
        files::write_atomic(&beside(file), &planned.text, mode)?;
    }
    files::write_atomic(&target, chain::text(list).as_bytes(), mode)?;
    if planned.kind == Kind::Single {
        // Last: until it is gone runtimes use it, as before. Both are never missing.
        files::remove(file)?;
    }
    Ok(target)
}

/// Takes us out of one list.
fn take(file: &Path, list: Value) -> Result<(), InstallError> {
    let mode = mode(file)?;
    let rest = chain::without(list);
    let saved = [
        (file.to_owned(), Kind::List),
        (file.with_extension("conf"), Kind::Single),
        (file.with_extension("json"), Kind::Single),
    ];
    let original = saved.iter().find_map(|(path, kind)| {
        let text = files::read_limited(&beside(path), CONFIG_BYTES_MAX).ok()?;
        let same = chain::list(*kind, &text).is_ok_and(|before| before == rest);
        same.then_some((path, text))
    });
    match original {
        Some((path, text)) => {
            files::write_atomic(path, &text, mode)?;
            if path.as_path() != file {
                files::remove(file)?;
            }
        }
        // Others changed it since: their changes stay.
        None => files::write_atomic(file, chain::text(&rest).as_bytes(), mode)?,
    }
    for (path, _) in &saved {
        files::remove(&beside(path))?;
    }
    Ok(())
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(BEFORE);
    name.into()
}

fn mode(file: &Path) -> Result<u32, InstallError> {
    let found =
        fs::metadata(file).map_err(|source| PlatformError::from_io("read", file, source))?;
    Ok(found.permissions().mode() & 0o777)
}

/// Runs [`run`] to its end, on this thread.
///
/// # Errors
/// As [`run`].
pub fn keep(settings: &Settings, daemon_set: Option<(&str, &str)>) -> Result<(), InstallError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| PlatformError::Kernel {
            doing: "start a runtime",
            source,
        })?;
    runtime.block_on(run(settings, daemon_set))
}

/// Keeps everything in place until the process is asked to end.
///
/// # Errors
/// [`InstallError`] if the program cannot be copied at the start, or what is to be undone at the end is not.
pub async fn run(
    settings: &Settings,
    daemon_set: Option<(&str, &str)>,
) -> Result<(), InstallError> {
    // A program of another version may have the same size.
    let own = files::read(&settings.program)?;
    if files::read(&settings.placed()).ok().as_ref() != Some(&own) {
        files::write_atomic(&settings.placed(), &own, 0o755)?;
        tracing::info!(path = %settings.placed().display(), "the plugin's program is in place");
    }
    drop(own);
    let ended = signals::shutdown_requested();
    tokio::pin!(ended);
    let mut said = String::new();
    loop {
        let says = match settings.look() {
            Ok(changes) => {
                if let Some(file) = &changes.chain {
                    tracing::info!(file = %file.display(), "the plugin is the last of the chain");
                }
                if changes.kubeconfig {
                    tracing::info!("the plugin has a new kubeconfig");
                }
                String::new()
            }
            Err(error) => error.to_string(),
        };
        if says != said && !says.is_empty() {
            tracing::warn!("{says}");
        }
        said = says;
        tokio::select! {
            asked = &mut ended => {
                asked?;
                break;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    if let Some(named) = daemon_set
        && is_wanted(named).await
    {
        tracing::info!(
            "the DaemonSet goes on: the chain stays, and pods wait for the next installer"
        );
        return Ok(());
    }
    for file in settings.remove()? {
        tracing::info!(file = %file.display(), "the plugin is out of the chain");
    }
    Ok(())
}

/// Whether the DaemonSet is to go on. Only who knows that it is not takes the plugin out of the chain.
async fn is_wanted((namespace, name): (&str, &str)) -> bool {
    let like = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "namespace": namespace, "name": name },
    });
    let asked = async {
        let client = mesh_kubernetes::connect(None, None).await?;
        read::named(&client, &like).await
    };
    goes_on(tokio::time::timeout(FAREWELL, asked).await.ok())
}

/// What follows from the API server's answer; none: there was none.
fn goes_on(answer: Option<Result<Option<Value>, KubernetesError>>) -> bool {
    match answer {
        Some(Ok(Some(found))) => found.pointer("/metadata/deletionTimestamp").is_none(),
        Some(Ok(None)) => false,
        // With an uninstallation go the rights, before the pods.
        Some(Err(error)) => !error.is_refusal(),
        None => true,
    }
}

#[cfg(test)]
mod tests;
