//! A whole mesh to ask about: manifests, or the snapshots of all running proxies.

use super::policy::PolicyArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::manifests::{Manifests, MeshSettings};
use crate::output::{Output, printable};
use mesh_policy_analysis::error::AnalysisError;
use mesh_policy_analysis::survey::{Access, Setting, known_identities};
use mesh_policy_analysis::world::{Snapshots, World};
use mesh_policy_index::index::WorkloadKey;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};

/// Names of a list that text shows; JSON has all.
const SHOWN_MAX: usize = 8;

/// A mesh, and what questions about it need.
pub(crate) struct Mesh {
    /// Its workloads and their policy.
    pub(crate) world: Box<dyn World>,
    /// Its trust domain.
    pub(crate) home: TrustDomain,
    /// Identities of its workloads.
    known: Vec<SpiffeId>,
    now: Timestamp,
}

/// Why a question about a whole mesh has no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum QuestionError {
    /// Nobody of that name.
    #[error("no workload or Service is `{asked}`")]
    #[diagnostic(
        code("MESH-0643"),
        help("names and ports are compared exactly; is its manifest among the files?")
    )]
    UnknownTarget {
        /// What was asked for.
        asked: String,
    },
}

impl Mesh {
    /// The mesh that `args` name.
    ///
    /// # Errors
    /// Exit code 2 if manifests cannot be read, 11 if no mesh runs or a proxy does not answer.
    pub(crate) fn open(args: &PolicyArgs) -> Result<Self, Fault> {
        let now = args.now();
        match args.manifests()? {
            Some((manifests, settings)) => Ok(Self::of(manifests, &settings, now)),
            None => Self::live(&args.live, now),
        }
    }

    /// The mesh of manifests.
    pub(crate) fn of(manifests: Manifests, settings: &MeshSettings, now: Timestamp) -> Self {
        Self::new(
            Box::new(manifests.index),
            settings.trust_domain.clone(),
            now,
        )
    }

    /// The mesh that runs: what each of its proxies enforces.
    ///
    /// # Errors
    /// Exit code 11 if there is none, or a proxy does not answer.
    pub(crate) fn live(args: &LiveArgs, now: Timestamp) -> Result<Self, Fault> {
        let undecidable = |fault: Fault| fault.with_exit(Exit::Undecidable);
        let live = Live::find(args).map_err(undecidable)?;
        let home = TrustDomain::parse(&live.running.trust_domain)
            .map_err(|error| Fault::undecidable(&error))?;
        let all = async {
            let mut out = Snapshots::default();
            for (workload, proxy) in live.proxies() {
                let key = WorkloadKey {
                    namespace: workload.namespace.clone(),
                    name: workload.name.clone(),
                };
                out.0
                    .insert(key, live::snapshot(proxy).await?.data().clone());
            }
            Ok(out)
        };
        let world = live::wait(all).map_err(undecidable)?;
        Ok(Self::new(Box::new(world), home, now))
    }

    fn new(world: Box<dyn World>, home: TrustDomain, now: Timestamp) -> Self {
        let known = known_identities(world.as_ref(), &home);
        Self {
            world,
            home,
            known,
            now,
        }
    }

    /// What decisions are made under.
    pub(crate) fn setting(&self) -> Setting<'_> {
        Setting {
            now: self.now,
            known: &self.known,
            texts: &[],
            structural: false,
        }
    }
}

/// A question without an answer: exit code 2 if nobody has the name, else 11.
pub(crate) fn unanswered(error: AnalysisError) -> Fault {
    match error {
        AnalysisError::NoSuch { .. } => Fault::usage(&error),
        error => Fault::undecidable(&error),
    }
}

/// The first few of a list.
pub(crate) fn few(all: &[String]) -> String {
    let shown: Vec<String> = all
        .iter()
        .take(SHOWN_MAX)
        .map(|one| printable(one))
        .collect();
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// One kind of access, below whoever has it.
pub(crate) fn print_access(access: &Access, output: &mut Output) -> Result<(), Fault> {
    for (number, request) in access.requests.iter().take(SHOWN_MAX).enumerate() {
        let word = if number == 0 { "may " } else { "    " };
        output.line(format_args!("    {word} {}", printable(request)))?;
    }
    if let Some(more) = access
        .requests
        .len()
        .checked_sub(SHOWN_MAX)
        .filter(|more| *more > 0)
    {
        output.line(format_args!("         and {more} more"))?;
    }
    let from = if access.from.is_empty() {
        "any address".to_owned()
    } else {
        few(&access.from)
    };
    output.line(format_args!("    from {from}"))?;
    for reason in access.reasons.iter().take(SHOWN_MAX) {
        output.line(format_args!(
            "    by   {}  {}",
            printable(&reason.policy),
            printable(&reason.source)
        ))?;
    }
    if let Some(more) = access
        .reasons
        .len()
        .checked_sub(SHOWN_MAX)
        .filter(|more| *more > 0)
    {
        output.line(format_args!("         and {more} more"))?;
    }
    Ok(())
}

/// Says, on stderr, that an answer may not be complete.
pub(crate) fn warn_inexact(exact: bool, notes: &[String], output: &mut Output) {
    if !exact {
        let why = notes
            .first()
            .map(String::as_str)
            .unwrap_or("not every class of requests could be asked");
        output.talk(format_args!("not exact: {}", printable(why)));
    }
}
