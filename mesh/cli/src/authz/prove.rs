//! `mesh authz prove`: what must hold of the whole, and whether it does.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{Manifests, MeshSettings};
use crate::output::{Format, Output, Tone, printable};
use clap::Args;
use mesh_platform::{Platform as _, System};
use mesh_policy::snapshot::Source;
use mesh_policy_analysis::graph::Selector;
use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_index::index::Invariant;
use mesh_policy_index::manifest::load;
use mesh_trust::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is to be proved.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProveArgs {
    /// Manifests: a file or a folder, more than once if need be. Every object of kind Invariant in them is proved.
    #[arg(short, long = "file", value_name = "DIR", required = true)]
    files: Vec<PathBuf>,
    /// A file or folder of Invariants that are not among the manifests: these are proved, and not those of the manifests.
    /// May be given more than once.
    #[arg(long = "invariant", value_name = "FILE")]
    invariants: Vec<PathBuf>,
    /// Nobody of FROM reaches TO, directly or over others; each is `namespace` or `namespace/workload`. May be given more
    /// than once.
    #[arg(long, value_names = ["FROM", "TO"], num_args = 2, action = clap::ArgAction::Append, value_parser = Selector::parse)]
    no_path: Vec<Selector>,
    /// Nobody without an identity is allowed anything but declared probes.
    #[arg(long)]
    deny_anonymous: bool,
    #[command(flatten)]
    settings: MeshSettings,
    /// Time to decide at, RFC 3339. Now, if not given.
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::time)]
    at: Option<Timestamp>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Why nothing can be proved.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum ProveError {
    /// Nothing to prove.
    #[error("there is nothing to prove")]
    #[diagnostic(
        code("MESH-0645"),
        help(
            "write an object of kind Invariant, or ask with `--invariant FILE`, `--no-path FROM TO` or `--deny-anonymous`"
        )
    )]
    Nothing,
    /// A file of invariants holds something else, which would change the policy that is asked about.
    #[error("`{}` holds something that is no Invariant, or nothing that can be read", path.display())]
    #[diagnostic(
        code("MESH-0682"),
        help("put other objects among the manifests, named with `-f`")
    )]
    NotInvariants {
        /// The file.
        path: PathBuf,
    },
    /// Part of the manifests is not known.
    #[error("`{place}` cannot be read, so nothing is proved: {why}")]
    #[diagnostic(
        code("MESH-0646"),
        help("mend the file; `mesh authz lint` lists all that is wrong")
    )]
    Unread {
        /// The place.
        place: String,
        /// What is wrong there.
        why: String,
    },
}

/// One question and its answer.
#[derive(Serialize)]
struct Proved {
    claim: String,
    #[serde(flatten)]
    proof: Proof,
}

/// Proves all; ends with 1 if something is violated, else with 11 if something is undecided.
pub(crate) fn run(args: &ProveArgs, output: &mut Output) -> Result<Exit, Fault> {
    let (manifests, further) = read(args)?;
    if let Some(finding) = manifests.unread() {
        return Err(Fault::undecidable(&ProveError::Unread {
            place: finding.source.to_string(),
            why: finding.message.clone(),
        }));
    }
    let index = &manifests.index;
    let mut questions: Vec<(String, Question<'_>)> = index
        .invariants()
        .iter()
        .filter(|one| further.as_ref().is_none_or(|files| stands_in(one, files)))
        .map(|one| (one.id.clone(), Question::Invariant(one)))
        .collect();
    for pair in args.no_path.chunks_exact(2) {
        if let [from, to] = pair {
            for selector in [from, to] {
                selector.among(index).map_err(super::world::unanswered)?;
            }
            let claim = format!("no path from {} to {}", from.text(), to.text());
            questions.push((claim, Question::NoPath(from.clone(), to.clone())));
        }
    }
    if args.deny_anonymous {
        questions.push((
            "nobody without an identity".to_owned(),
            Question::DenyAnonymous,
        ));
    }
    if questions.is_empty() {
        return Err(Fault::usage(&ProveError::Nothing));
    }
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let proved: Vec<Proved> = questions
        .into_iter()
        .map(|(claim, question)| Proved {
            proof: prove(index, &question, now),
            claim,
        })
        .collect();
    output.value(args.output, &proved, |output, proved| {
        proved.iter().try_for_each(|one| print(one, output))
    })?;
    let any = |is: fn(&Proof) -> bool| proved.iter().any(|one| is(&one.proof));
    Ok(if any(|proof| matches!(proof, Proof::Violated { .. })) {
        Exit::Failure
    } else if any(|proof| matches!(proof, Proof::Undecided { .. })) {
        Exit::Undecidable
    } else {
        Exit::Ok
    })
}

/// The manifests with the further invariants, and the files of these, if there are any.
fn read(args: &ProveArgs) -> Result<(Manifests, Option<BTreeSet<String>>), Fault> {
    let mut manifests = Manifests::read(&args.files, &args.settings)?;
    if args.invariants.is_empty() {
        return Ok((manifests, None));
    }
    let mut names = BTreeSet::new();
    let mut all = manifests.files;
    for path in &args.invariants {
        let files = Manifests::read(std::slice::from_ref(path), &args.settings)?.files;
        for (name, content) in files {
            if !load([(name.clone(), &content)]).resources.are_invariants() {
                let path = PathBuf::from(name);
                return Err(Fault::usage(&ProveError::NotInvariants { path }));
            }
            // A file that is among the manifests already is not read twice.
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name.clone(), content));
            }
            names.insert(name);
        }
    }
    manifests = Manifests::of(all, &args.settings);
    Ok((manifests, Some(names)))
}

/// Whether an invariant is declared in one of these files.
fn stands_in(invariant: &Invariant, files: &BTreeSet<String>) -> bool {
    match &invariant.source {
        Source::File { file, .. } => files.contains(file),
        Source::BuiltIn(_) => false,
    }
}

fn print(proved: &Proved, output: &mut Output) -> Result<(), Fault> {
    let claim = printable(&proved.claim);
    match &proved.proof {
        Proof::Holds { decisions } => {
            let word = output.toned(Tone::Good, "holds");
            output.line(format_args!(
                "{word}      {claim} ({decisions} decisions, all classes)"
            ))
        }
        Proof::Undecided { why } => {
            let word = output.toned(Tone::Doubtful, "undecided");
            output.line(format_args!("{word}  {claim}\n  {}", printable(why)))
        }
        Proof::Violated { why, witness } => {
            let word = output.toned(Tone::Bad, "violated");
            output.line(format_args!("{word}   {claim}\n  {}", printable(why)))?;
            for one in witness {
                for source in &one.sources {
                    output.line(format_args!("    by   {}", printable(source)))?;
                }
                let record = serde_json::to_string(&one.request).unwrap_or_default();
                output.line(format_args!("    e.g. {}", printable(&record)))?;
            }
            Ok(())
        }
    }
}
