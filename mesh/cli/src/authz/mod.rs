//! `mesh authz` and `mesh policy`: why, what if, what is wrong.
//!
//! - [`explain`]: one request, every layer of its decision
//! - [`egress`]: what a workload may reach outside of the mesh
//! - [`outside`]: what leaves the mesh, as questions about whole meshes print it
//! - [`fixes`]: what would let a denied request through
//! - [`replay`]: a file of requests, one decision record each
//! - [`lint`]: what is wrong or doubtful in manifests
//! - [`import`]: policies of other meshes as manifests of this one
//! - [`cedar`]: the Cedar policies that manifests become
//! - [`verify`]: whether the compiled matcher and Cedar are the same; [`solver`]: who may be asked that too
//! - [`who_can`]: everybody who reaches a port, everything that an identity reaches
//! - [`matrix`]: which workload reaches which
//! - [`diff`]: what two policies decide differently
//! - [`revision`]: manifests of a git revision
//! - [`prove`]: what must hold of the whole
//! - [`graph`]: who reaches whom over others, and what to remove so that two no longer do
//! - [`test`]: cases, what they exercise, and which mistakes they notice
//! - [`world`]: a whole mesh to ask about
//! - [`unused`], [`suggest`], [`shadow`]: policy from use; [`records`]: what was used
//! - [`target`]: `--from` and `--to`
//! - [`policy`]: where decisions come from, manifests or running proxies

mod cedar;
mod diff;
mod egress;
mod explain;
mod fixes;
mod graph;
mod import;
mod lint;
mod matrix;
mod outside;
mod policy;
mod prove;
mod records;
mod replay;
mod revision;
mod shadow;
mod solver;
mod suggest;
mod target;
mod test;
mod unused;
mod verify;
mod who_can;
mod world;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Subcommand;

/// Questions about authorization.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum AuthzCommand {
    /// Says whether a request is allowed, by what, and if not what is missing. Ends with 0 if it is, 10 if not, 11 if
    /// that cannot be decided.
    Explain(Box<explain::ExplainArgs>),
    /// Says whether a workload may reach an address outside of the mesh, and which EgressNetwork or route decides. Ends
    /// with 0 if it may, 10 if not.
    Egress(Box<egress::EgressArgs>),
    /// Decides recorded requests, one decision record each, in order.
    Replay(replay::ReplayArgs),
    /// Finds what is wrong or doubtful in manifests. Ends with 1 for errors, 2 for input that cannot be read, 3 for
    /// warnings under `--fail-on warn`.
    Lint(lint::LintArgs),
    /// Says who can reach a port, in classes of clients and requests, by which policies; or who gets out of the mesh.
    WhoCan(Box<who_can::WhoCanArgs>),
    /// Says what an identity can reach, in the mesh or outside of it.
    WhatCan(Box<who_can::WhatCanArgs>),
    /// Prints which workload can reach which.
    Matrix(matrix::MatrixArgs),
    /// Says what two policies decide differently, in the mesh and of what leaves it, each with a request that shows it. Ends with 0 if nothing, 1 if
    /// something, 11 if nothing was found but not all could be asked.
    Diff(Box<diff::DiffArgs>),
    /// Proves what must hold, by deciding every class of requests. Ends with 1 if something is violated, 11 if something
    /// cannot be decided.
    Prove(prove::ProveArgs),
    /// Prints who reaches whom, directly and over others, by which policies.
    Graph(Box<graph::GraphArgs>),
    /// Turns Istio's security policies into manifests of this mesh, or checks Linkerd's, and reports everything that does
    /// not mean the same here. Never allows what was not allowed. Ends with 2 for input that cannot be understood, 3
    /// under `--fail-on warn` if anything changed its meaning.
    Import(import::ImportArgs),
    /// Runs test cases against manifests. Ends with 1 if one fails, or fewer parts or mutants than asked for are covered or
    /// noticed, 2 for cases that cannot be read.
    Test(Box<test::TestArgs>),
    /// Lists what recorded traffic did not use of a policy, and what can never apply.
    Unused(Box<unused::UnusedArgs>),
    /// Writes least-privilege policy from recorded traffic, checked on traffic held back. Ends with 1 if more than what was
    /// seen would be allowed.
    Suggest(Box<suggest::SuggestArgs>),
    /// Decides recorded traffic under the live policy and a candidate. Ends with 1 if access is gained or lost.
    Shadow(Box<shadow::ShadowArgs>),
}

/// Policies as the engine sees them.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum PolicyCommand {
    /// Prints the Cedar policies that manifests become, each with its place.
    Cedar(cedar::CedarArgs),
    /// Tries every grant by the compiled matcher and by Cedar, on each combination of what it asks, and with `--symbolic`
    /// every policy on all requests there can be. Ends with 1 if the two differ anywhere, with 11 if a solver does not know.
    Verify(verify::VerifyArgs),
}

impl AuthzCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Explain(args) => args.output,
            Self::Egress(args) => args.output,
            Self::Replay(_) => Format::Json,
            Self::Lint(args) => args.format(),
            Self::WhoCan(args) => args.output,
            Self::WhatCan(args) => args.output,
            Self::Matrix(args) => args.format(),
            Self::Diff(args) => args.format(),
            Self::Prove(args) => args.output,
            Self::Graph(args) => args.format(),
            Self::Import(args) => args.format(),
            Self::Test(args) => args.output,
            Self::Unused(args) => args.output,
            Self::Suggest(args) => args.output,
            Self::Shadow(args) => args.output,
        }
    }
}

impl PolicyCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Cedar(args) => args.output,
            Self::Verify(args) => args.format(),
        }
    }
}

/// Runs one of the questions.
pub(crate) fn run(command: AuthzCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        AuthzCommand::Explain(args) => explain::run(&args, output),
        AuthzCommand::Egress(args) => egress::run(&args, output),
        AuthzCommand::Replay(args) => replay::run(&args, output),
        AuthzCommand::Lint(args) => lint::run(&args, output),
        AuthzCommand::WhoCan(args) => who_can::who(&args, output),
        AuthzCommand::WhatCan(args) => who_can::what(&args, output),
        AuthzCommand::Matrix(args) => matrix::run(&args, output),
        AuthzCommand::Diff(args) => diff::run(&args, output),
        AuthzCommand::Prove(args) => prove::run(&args, output),
        AuthzCommand::Graph(args) => graph::run(&args, output),
        AuthzCommand::Import(args) => import::run(&args, output),
        AuthzCommand::Test(args) => test::run(&args, output),
        AuthzCommand::Unused(args) => unused::run(&args, output),
        AuthzCommand::Suggest(args) => suggest::run(&args, output),
        AuthzCommand::Shadow(args) => shadow::run(&args, output),
    }
}

/// Runs one of the views of policy.
pub(crate) fn run_policy(command: PolicyCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        PolicyCommand::Cedar(args) => cedar::run(&args, output),
        PolicyCommand::Verify(args) => verify::run(&args, output),
    }
}
