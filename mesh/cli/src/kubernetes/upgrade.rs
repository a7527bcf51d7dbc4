//! `mesh upgrade` and `mesh prune`: what is on a cluster, as this version has it, and what this version does not have. Both
//! read the cluster and change nothing: what they print is for kubectl.

use super::install::{Part, print};
use crate::cluster::{self, ClusterArgs, ClusterError};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live;
use crate::output::Output;
use clap::Args;
use mesh_cluster::install::prune::{Found, KINDS, surplus};
use mesh_cluster::install::{VERSION, Values};
use mesh_cluster::names::{CONFIG, PART_OF, PART_OF_LABEL};
use mesh_kubernetes::read;
use serde_json::Value;

/// Annotation of what Helm installed.
const HELM: &str = "meta.helm.sh/release-name";

/// Prints what is installed on a cluster as this version has it, with the values that are there.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    part: Part,
    /// Three replicas of controller and injector; the same as `--set highAvailability=true`.
    #[arg(long)]
    ha: bool,
    /// One value in place of the one that is there; may stand several times, the last counts.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints the names of what an older version installed on a cluster, and this one does not have.
#[derive(Args, Clone, Debug)]
pub(crate) struct PruneArgs {
    /// The resource definitions too: every object of those kinds goes with them.
    #[arg(long)]
    crds: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Why nothing is printed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum UpgradeError {
    #[error("version {installed} is installed, and this command is of version {VERSION}")]
    #[diagnostic(
        code("MESH-0592"),
        help(
            "use the command of that version, or of a newer one: there is no way back to an older version"
        )
    )]
    Newer { installed: String },
    #[error("Helm installed the mesh, as release `{release}`")]
    #[diagnostic(
        code("MESH-0593"),
        help(
            "`helm upgrade {release} charts/mesh` knows what it installed, and removes what is no longer there"
        )
    )]
    Helm { release: String },
    #[error(
        "version {installed} is installed, and this command is of version {VERSION}: what it does not know may be needed there"
    )]
    #[diagnostic(
        code("MESH-0594"),
        help("first `mesh upgrade | kubectl apply -f -`, then prune")
    )]
    NotUpgraded { installed: String },
}

/// What stands in the ConfigMap of an installation.
#[derive(Debug)]
struct Installed {
    values: String,
    /// Empty: of before versions were written down.
    version: String,
    /// Helm's release.
    release: Option<String>,
}

impl Installed {
    fn of(map: &Value) -> Result<Self, Fault> {
        let text = |path: &str| map.pointer(path).and_then(Value::as_str);
        let values = text("/data/values.yaml")
            .ok_or_else(|| unreadable("it holds no `values.yaml`"))?
            .to_owned();
        let annotations = map.pointer("/metadata/annotations");
        let release = annotations
            .and_then(|all| all.get(HELM))
            .and_then(Value::as_str);
        Ok(Self {
            values,
            version: text("/data/version").unwrap_or_default().to_owned(),
            release: release.map(str::to_owned),
        })
    }

    /// Its values. To be read once it is known that this version may: a newer one has values that are unknown here.
    fn values(&self) -> Result<Values, Fault> {
        Values::read(&self.values).map_err(|error| unreadable(&error))
    }

    /// Whether this version may take its place.
    fn may_be_upgraded(&self) -> Result<(), UpgradeError> {
        if let Some(release) = self.release.clone() {
            return Err(UpgradeError::Helm { release });
        }
        // What nobody can compare may be newer.
        let known = self.version.is_empty() || number(&self.version).is_some();
        if !known || number(&self.version) > number(VERSION) {
            return Err(UpgradeError::Newer {
                installed: self.version.clone(),
            });
        }
        Ok(())
    }

    /// Whether what this version does not install is nobody's.
    fn may_be_pruned(&self) -> Result<(), UpgradeError> {
        if let Some(release) = self.release.clone() {
            return Err(UpgradeError::Helm { release });
        }
        if self.version == VERSION {
            return Ok(());
        }
        Err(UpgradeError::NotUpgraded {
            installed: match self.version.as_str() {
                "" => "of an unknown number".to_owned(),
                version => version.to_owned(),
            },
        })
    }
}

fn unreadable(why: &(impl std::fmt::Display + ?Sized)) -> Fault {
    let why = format!("ConfigMap {CONFIG}: {why}");
    Fault::from(ClusterError::NotInstalled { why })
}

/// Images that were named by version and do not follow an upgrade.
fn pinned(values: &Values) -> impl Iterator<Item = (&'static str, &str)> {
    let image = values.identity.pkcs11.image.as_str();
    let named = [
        ("image.tag", values.image.tag.as_str()),
        ("identity.pkcs11.image", image),
    ];
    let other = |tag: &str| !tag.is_empty() && tag.rsplit(':').next() != Some(VERSION);
    named.into_iter().filter(move |(_, tag)| other(tag))
}

/// `1.2.3` and what comes behind a `-` or `+`, as numbers.
fn number(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    let number = [next()?, next()?, next()?];
    parts.next().is_none().then_some(number)
}

async fn installed(client: &mesh_kubernetes::Client) -> Result<Installed, Fault> {
    let map = cluster::config(client).await?;
    let map = map.ok_or_else(|| ClusterError::NotInstalled {
        why: format!("there is no ConfigMap {CONFIG}"),
    })?;
    Installed::of(&map)
}

/// Prints definitions, control plane, or both.
pub(crate) fn upgrade(args: &UpgradeArgs, output: &mut Output) -> Result<Exit, Fault> {
    let there = live::wait(async {
        let client = args.cluster.connect().await?;
        installed(&client).await
    })?;
    there.may_be_upgraded()?;
    let values = there.values()?.set_all(&args.set);
    let mut values = values.map_err(|error| Fault::usage(&error))?;
    values.high_availability |= args.ha;
    for (key, tag) in pinned(&values) {
        output.talk(format_args!(
            "{key} stays `{tag}`, and this is version {VERSION}: name another with `--set {key}=…` if it is not of this version"
        ));
    }
    print(&args.part, &values, output)?;
    Ok(Exit::Ok)
}

/// Prints what is to be deleted; what stays although nobody installs it is told.
pub(crate) fn prune(args: &PruneArgs, output: &mut Output) -> Result<Exit, Fault> {
    let surplus = live::wait(async {
        let client = args.cluster.connect().await?;
        let there = installed(&client).await?;
        there.may_be_pruned()?;
        let values = there.values()?;
        let labels = format!("{PART_OF_LABEL}={PART_OF}");
        let mut found = Vec::new();
        for &(api_version, kind) in KINDS {
            let objects = read::list_if_served(&client, (api_version, kind), &labels).await?;
            found.extend(objects.into_iter().map(|object| Found {
                api_version,
                kind,
                object,
            }));
        }
        Ok(surplus(&values, &found, args.crds)?)
    })?;
    for kept in &surplus.keep {
        output.talk(format_args!("{} stays: {}", kept.title, kept.why));
    }
    if surplus.remove.is_empty() {
        output.talk("nothing to remove");
    }
    output.text(surplus.text())?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn installed(version: &str) -> Installed {
        let map =
            json!({ "data": { "values.yaml": "highAvailability: true\n", "version": version } });
        Installed::of(&map).expect("an installation")
    }

    #[test]
    fn an_older_version_and_the_same_are_upgraded_and_a_newer_one_is_not() {
        for version in ["", "0.0.1", VERSION, "0.0.99-rc.1"] {
            assert!(installed(version).may_be_upgraded().is_ok(), "{version}");
        }
        for version in ["99.0.0", "0.999.0", "soon", "1.2", "1.2.3.4", "-1.0.0"] {
            let refused = installed(version).may_be_upgraded();
            assert!(
                matches!(refused, Err(UpgradeError::Newer { .. })),
                "{version}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_one_also_if_its_values_are_unknown_here() {
        let map = json!({ "data": { "values.yaml": "unknown: 1\n", "version": "99.0.0" } });
        let there = Installed::of(&map).expect("an installation");
        assert!(matches!(
            there.may_be_upgraded(),
            Err(UpgradeError::Newer { .. })
        ));
    }

    #[test]
    fn an_image_that_was_named_is_told_unless_it_is_of_this_version() {
        let set = |assignment: String| Values::default().set_all(&[assignment]).expect("allowed");
        assert_eq!(pinned(&Values::default()).count(), 0);
        let old = set("image.tag=0.0.1".to_owned());
        assert_eq!(pinned(&old).collect::<Vec<_>>(), [("image.tag", "0.0.1")]);
        assert_eq!(pinned(&set(format!("image.tag={VERSION}"))).count(), 0);
    }

    #[test]
    fn only_what_this_version_installed_is_pruned() {
        assert!(installed(VERSION).may_be_pruned().is_ok());
        for version in ["", "0.0.1", "99.0.0"] {
            let refused = installed(version).may_be_pruned();
            assert!(
                matches!(refused, Err(UpgradeError::NotUpgraded { .. })),
                "{version}"
            );
        }
    }

    #[test]
    fn what_helm_installed_is_helms() {
        let map = json!({
            "metadata": { "annotations": { HELM: "mesh" } },
            "data": { "values.yaml": "", "version": VERSION },
        });
        let there = Installed::of(&map).expect("an installation");
        assert!(matches!(
            there.may_be_upgraded(),
            Err(UpgradeError::Helm { .. })
        ));
        assert!(matches!(
            there.may_be_pruned(),
            Err(UpgradeError::Helm { .. })
        ));
    }

    #[test]
    fn values_that_this_version_does_not_know_are_no_installation() {
        for values in [
            json!({}),
            json!({ "values.yaml": "unknown: 1\n" }),
            json!({ "values.yaml": "proxy: {uid: 0}\n" }),
        ] {
            let there = Installed::of(&json!({ "data": values }));
            let fault = there.and_then(|there| there.values()).expect_err("refused");
            assert!(fault.text(false).contains("MESH-0781"), "{values}");
        }
    }
}
