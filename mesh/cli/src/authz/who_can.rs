//! `mesh authz who-can` and `what-can`: everybody who reaches a port, everything that an identity reaches; in the mesh, or
//! outside of it.

use super::outside::print_outgoing;
use super::policy::{Policy, PolicyArgs};
use super::target::{From, To};
use super::world::{Mesh, QuestionError, few, print_access, unanswered, warn_inexact};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Tone};
use clap::Args;
use mesh_policy_analysis::access::{PortAnswer, client_of, identities, what_can, who_can};
use mesh_policy_analysis::classes::Ask;
use mesh_policy_analysis::classes::request::AskProtocol;
use mesh_policy_analysis::error::AnalysisError;
use mesh_policy_analysis::outside::access::{Outgoing, Where, outgoing};
use mesh_policy_analysis::outside::sent::{Request, Sent};
use mesh_policy_analysis::survey::Setting;
use mesh_policy_analysis::world::title;
use mesh_policy_index::WorkloadKey;
use mesh_proxy_core::redirect::canonical;
use mesh_trust::SpiffeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Which port is asked about.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhoCanArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// The port: `namespace/workload:port`, else a Service of that name; `namespace/svc/name:port` is always a Service.
    #[arg(long, value_name = "TARGET", value_parser = To::parse, required_unless_present = "outside")]
    to: Option<To>,
    /// An address outside of the mesh, in place of `--to`: which workloads get there, and which EgressNetwork or route
    /// lets them.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "to")]
    outside: Option<SocketAddr>,
    /// Only TLS to this server (SNI).
    #[arg(long, value_name = "NAME", requires = "outside", conflicts_with_all = ["tls", "host", "method", "path"])]
    sni: Option<String>,
    /// Only TLS that names no server.
    #[arg(long, requires = "outside", conflicts_with_all = ["host", "method", "path"])]
    tls: bool,
    /// Only this path, with query if there is one. Without it, every class of requests is asked.
    #[arg(long)]
    path: Option<String>,
    /// Only this method; GET if a path is given.
    #[arg(long)]
    method: Option<String>,
    /// Only this host.
    #[arg(long)]
    host: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Who is asked about.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhatCanArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Who: `namespace/serviceaccount`, a `spiffe://` ID, or `none` for a client without identity.
    #[arg(long, value_name = "ID", value_parser = From::parse)]
    from: From,
    /// Where its workloads get outside of the mesh, and not what it can in the mesh.
    #[arg(long)]
    outside: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Says who can.
pub(crate) fn who(args: &WhoCanArgs, output: &mut Output) -> Result<Exit, Fault> {
    let Some(to) = &args.to else {
        return who_gets_out(args, output);
    };
    let mut policy = Policy::open(&args.policy)?;
    let (_, places) = policy.places_of(to)?;
    if places.is_empty() {
        let asked = format!("{}/{}", to.namespace, to.name);
        return Err(Fault::usage(&QuestionError::UnknownTarget { asked }));
    }
    let setting = Setting {
        now: args.policy.now(),
        known: &[],
        texts: &[],
        structural: false,
    };
    let mut answers = Vec::with_capacity(places.len());
    for place in &places {
        let survey = who_can(
            &place.workload,
            &place.snapshot,
            place.port,
            setting,
            args.ask(),
        );
        answers.push(PortAnswer::of(&survey.map_err(unanswered)?));
    }
    answer(&answers, args.output, output)
}

/// Says what an identity can.
pub(crate) fn what(args: &WhatCanArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mesh = Mesh::open(&args.policy)?;
    let id = args.from.spiffe_id(&mesh.home);
    let id = id
        .map(|text| SpiffeId::parse(&text))
        .transpose()
        .map_err(|error| Fault::usage(&error))?;
    if args.outside {
        return where_to(&mesh, id.as_ref(), args.output, output);
    }
    let answers =
        what_can(mesh.world.as_ref(), &client_of(id), mesh.setting()).map_err(unanswered)?;
    answer(&answers, args.output, output)
}

fn who_gets_out(args: &WhoCanArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mesh = Mesh::open(&args.policy)?;
    let sent = args.sent();
    let asked = Where {
        to: args.outside.map(canonical),
        sent: sent.as_ref(),
    };
    let found = outgoing(mesh.world.as_ref(), |_| true, asked).map_err(unanswered)?;
    answer_outside(&found, args.output, output)
}

/// Where the workloads of an identity get outside of the mesh.
fn where_to(
    mesh: &Mesh,
    id: Option<&SpiffeId>,
    format: Format,
    output: &mut Output,
) -> Result<Exit, Fault> {
    let world = mesh.world.as_ref();
    let workloads = identities(world, &mesh.home, &world.workloads());
    let runs_as = |key: &WorkloadKey| id.is_some() && workloads.get(&title(key)) == id;
    if !world.workloads().iter().any(runs_as) {
        let asked = id.map_or_else(|| "none".to_owned(), ToString::to_string);
        return Err(Fault::usage(&AnalysisError::NoSuch { asked }));
    }
    let found = outgoing(world, runs_as, Where::default()).map_err(unanswered)?;
    answer_outside(&found, format, output)
}

fn answer_outside(all: &[Outgoing], format: Format, output: &mut Output) -> Result<Exit, Fault> {
    output.value(format, &all, |output, all| print_outgoing(all, output))?;
    for one in all {
        warn_inexact(one.exact, &one.notes, output);
    }
    Ok(Exit::Ok)
}

fn answer(answers: &[PortAnswer], format: Format, output: &mut Output) -> Result<Exit, Fault> {
    output.value(format, &answers, |output, answers| {
        answers.iter().try_for_each(|one| print(one, output))
    })?;
    for one in answers.iter().filter(|one| !one.exact) {
        warn_inexact(one.exact, &one.notes, output);
    }
    if answers.iter().all(|one| one.access.is_empty())
        && matches!(format, Format::Text | Format::Wide)
    {
        output.line("nothing is allowed")?;
    }
    Ok(Exit::Ok)
}

fn print(answer: &PortAnswer, output: &mut Output) -> Result<(), Fault> {
    let title = output.toned(
        Tone::Strong,
        &format!("{}:{}", answer.workload, answer.port),
    );
    output.line(title)?;
    for access in &answer.access {
        output.line(format_args!("  {}", few(&access.who)))?;
        print_access(access, output)?;
    }
    if answer.access.is_empty() {
        output.line("  nobody")?;
    }
    answer
        .notes
        .iter()
        .try_for_each(|note| output.line(format_args!("  note: {note}")))
}

impl WhoCanArgs {
    /// The one connection or request to outside that is asked about, if one is named.
    fn sent(&self) -> Option<Sent> {
        if self.tls || self.sni.is_some() {
            let server_name = self.sni.clone();
            return Some(Sent::Tls { server_name });
        }
        let ask = self.ask()?;
        Some(Sent::Http(Request {
            method: ask.method,
            path: ask.path,
            host: ask.host,
            headers: ask.headers,
        }))
    }

    /// The one request that is asked about, if one is named.
    fn ask(&self) -> Option<Ask> {
        if self.path.is_none() && self.method.is_none() && self.host.is_none() {
            return None;
        }
        Some(Ask {
            protocol: AskProtocol::Http,
            method: self.method.clone().unwrap_or_else(|| "GET".to_owned()),
            path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: self.host.clone(),
            headers: BTreeMap::new(),
        })
    }
}
