//! `mesh authz who-can` and `what-can`: everybody who reaches a port, everything that an identity reaches.

use super::policy::{Policy, PolicyArgs};
use super::target::{From, To};
use super::world::{Mesh, QuestionError, few, print_access, unanswered, warn_inexact};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Tone};
use clap::Args;
use mesh_policy_analysis::access::{PortAnswer, client_of, what_can, who_can};
use mesh_policy_analysis::classes::Ask;
use mesh_policy_analysis::classes::request::AskProtocol;
use mesh_policy_analysis::survey::Setting;
use mesh_trust::SpiffeId;
use std::collections::BTreeMap;

/// Which port is asked about.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhoCanArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// The port: `namespace/workload:port`, else a Service of that name; `namespace/svc/name:port` is always a Service.
    #[arg(long, value_name = "TARGET", value_parser = To::parse)]
    to: To,
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
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Says who can.
pub(crate) fn who(args: &WhoCanArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut policy = Policy::open(&args.policy)?;
    let (_, places) = policy.places_of(&args.to)?;
    if places.is_empty() {
        let asked = format!("{}/{}", args.to.namespace, args.to.name);
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
    let answers =
        what_can(mesh.world.as_ref(), &client_of(id), mesh.setting()).map_err(unanswered)?;
    answer(&answers, args.output, output)
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
