//! `mesh authz prove`: what must hold of the whole, and whether it does.

use super::solver::SolverArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{Manifests, MeshSettings};
use crate::output::{Format, Output, Tone, printable};
use clap::Args;
use mesh_platform::{Platform as _, System};
use mesh_policy::snapshot::Source;
use mesh_policy_analysis::graph::Selector;
use mesh_policy_analysis::prove::{Proof, Question, Witness, prove};
use mesh_policy_index::index::Invariant;
use mesh_policy_index::manifest::load;
use mesh_policy_symbolic::{Confinement, Outcome, Prover, Verdict, outcome};
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
    /// Nobody of FROM reaches TO, directly or over others; each is `namespace` or `namespace/workload`, and TO may be `outside`.
    /// May be given more than once.
    #[arg(long, value_names = ["FROM", "TO"], num_args = 2, action = clap::ArgAction::Append, value_parser = Selector::parse)]
    no_path: Vec<Selector>,
    /// Nobody without an identity is allowed anything but declared probes.
    #[arg(long)]
    deny_anonymous: bool,
    /// Every CedarPolicy stays in its namespace: elsewhere it neither holds nor fails. Needs `--symbolic`.
    #[arg(long, requires = "symbolic")]
    confined: bool,
    #[command(flatten)]
    solver: SolverArgs,
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
            "write an object of kind Invariant, or ask with `--invariant FILE`, `--no-path FROM TO`, `--deny-anonymous` or `--confined`"
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
    /// Classes and solver contradict each other.
    #[error("classes and solver contradict each other about {claims}")]
    #[diagnostic(
        code("MESH-0649"),
        help(
            "one of the two is wrong: trust neither about this claim, and report it with the manifests and the solver's version"
        )
    )]
    Disagreement {
        /// The claims.
        claims: String,
    },
}

/// One question and its answer.
#[derive(Serialize)]
#[serde(untagged)]
enum Proved {
    /// By classes alone.
    Classes {
        claim: String,
        #[serde(flatten)]
        proof: Proof,
    },
    /// By classes and by a solver.
    Both {
        claim: String,
        verdict: Outcome,
        classes: Proof,
        solver: Solved,
    },
    /// By a solver alone.
    Solver { claim: String, solver: Stays },
}

/// What a solver says of a policy's boundary.
#[derive(Serialize)]
struct Stays {
    name: String,
    #[serde(flatten)]
    verdict: Confinement,
}

/// What a solver says.
#[derive(Serialize)]
struct Solved {
    name: String,
    #[serde(flatten)]
    verdict: Verdict,
}

impl Proved {
    fn claim(&self) -> &str {
        let (Self::Classes { claim, .. } | Self::Both { claim, .. } | Self::Solver { claim, .. }) =
            self;
        claim
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Both { verdict, .. } => *verdict,
            Self::Solver { solver, .. } => match solver.verdict {
                Confinement::Proved { .. } => Outcome::Holds,
                Confinement::Refuted { .. } => Outcome::Violated,
                Confinement::Unknown { .. } => Outcome::Undecided,
            },
            Self::Classes { proof, .. } => match proof {
                Proof::Holds { .. } => Outcome::Holds,
                Proof::Violated { .. } => Outcome::Violated,
                Proof::Undecided { .. } => Outcome::Undecided,
            },
        }
    }
}

/// Proves all; ends with 1 if something is violated or classes and solver disagree, else with 11 if something is undecided.
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
            from.among(index).map_err(super::world::unanswered)?;
            if !to.is_outside(index) {
                to.among(index).map_err(super::world::unanswered)?;
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
    if questions.is_empty() && !args.confined {
        return Err(Fault::usage(&ProveError::Nothing));
    }
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let mut prover = args
        .solver
        .session()?
        .map(|session| Prover::new(index, now, session));
    let mut proved: Vec<Proved> = questions
        .into_iter()
        .map(|(claim, question)| {
            let proof = prove(index, &question, now);
            match &mut prover {
                None => Proved::Classes { claim, proof },
                Some(prover) => {
                    let verdict = prover.prove(&question);
                    Proved::Both {
                        claim,
                        verdict: outcome(&proof, &verdict),
                        classes: proof,
                        solver: Solved {
                            name: prover.solver(),
                            verdict,
                        },
                    }
                }
            }
        })
        .collect();
    if let Some(prover) = prover.as_mut().filter(|_| args.confined) {
        proved.extend(confinement(prover));
    }
    output.value(args.output, &proved, |output, proved| {
        proved.iter().try_for_each(|one| print(one, output))
    })?;
    ended(&proved)
}

/// That each policy which people wrote for a namespace stays there.
fn confinement(prover: &mut Prover<'_>) -> Vec<Proved> {
    let name = prover.solver();
    let claims = prover.confined().into_iter();
    let claims = claims.map(|(policy, verdict)| Proved::Solver {
        claim: format!("{policy} stays in its namespace"),
        solver: Stays {
            name: name.clone(),
            verdict,
        },
    });
    claims.collect()
}

/// How the command ends; one claim about which nothing can be trusted fails it.
fn ended(proved: &[Proved]) -> Result<Exit, Fault> {
    let of = |outcome: Outcome| proved.iter().filter(move |one| one.outcome() == outcome);
    let disagreed: Vec<String> = of(Outcome::Disagreement)
        .map(|one| format!("`{}`", one.claim()))
        .collect();
    if !disagreed.is_empty() {
        let claims = disagreed.join(", ");
        return Err(ProveError::Disagreement { claims }.into());
    }
    Ok(if of(Outcome::Violated).next().is_some() {
        Exit::Failure
    } else if of(Outcome::Undecided).next().is_some() {
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
    let word = match proved.outcome() {
        Outcome::Holds => output.toned(Tone::Good, "holds     "),
        Outcome::Violated => output.toned(Tone::Bad, "violated  "),
        Outcome::Undecided => output.toned(Tone::Doubtful, "undecided "),
        Outcome::Disagreement => output.toned(Tone::Bad, "DISAGREED "),
    };
    let claim = printable(proved.claim());
    match proved {
        Proved::Classes { proof, .. } => match proof {
            Proof::Holds { decisions } => output.line(format_args!(
                "{word}{claim} ({decisions} decisions, all classes)"
            )),
            Proof::Undecided { why } => {
                output.line(format_args!("{word}{claim}\n  {}", printable(why)))
            }
            Proof::Violated { why, witness } => {
                output.line(format_args!("{word}{claim}\n  {}", printable(why)))?;
                witness.iter().try_for_each(|one| show(one, output))
            }
        },
        Proved::Solver { solver, .. } => {
            output.line(format_args!("{word}{claim}"))?;
            let name = printable(&solver.name);
            match &solver.verdict {
                Confinement::Proved { formulas } => {
                    output.line(format_args!("  {name}: proved ({formulas} formulas)"))
                }
                Confinement::Refuted { why } => {
                    output.line(format_args!("  {name}: refuted: {}", printable(why)))
                }
                Confinement::Unknown { why } => {
                    output.line(format_args!("  {name}: unknown: {}", printable(why)))
                }
            }
        }
        Proved::Both {
            classes, solver, ..
        } => {
            output.line(format_args!("{word}{claim}"))?;
            let shown = match classes {
                Proof::Holds { decisions } => {
                    output.line(format_args!("  classes: hold ({decisions} decisions)"))?;
                    false
                }
                Proof::Undecided { why } => {
                    output.line(format_args!("  classes: undecided: {}", printable(why)))?;
                    false
                }
                Proof::Violated { why, witness } => {
                    output.line(format_args!("  classes: violated: {}", printable(why)))?;
                    witness.iter().try_for_each(|one| show(one, output))?;
                    true
                }
            };
            let name = printable(&solver.name);
            match &solver.verdict {
                Verdict::Proved { formulas } => {
                    output.line(format_args!("  {name}: proved ({formulas} formulas)"))
                }
                Verdict::Unknown { why } => {
                    output.line(format_args!("  {name}: unknown: {}", printable(why)))
                }
                Verdict::Refuted { why, witness } => {
                    output.line(format_args!("  {name}: refuted: {}", printable(why)))?;
                    match shown {
                        true => Ok(()),
                        false => show(witness, output),
                    }
                }
            }
        }
    }
}

/// A request that contradicts a claim, and what allows it.
fn show(witness: &Witness, output: &mut Output) -> Result<(), Fault> {
    for source in &witness.sources {
        output.line(format_args!("    by   {}", printable(source)))?;
    }
    let record = serde_json::to_string(&witness.request).unwrap_or_default();
    output.line(format_args!("    e.g. {}", printable(&record)))
}
