//! `mesh authz egress`: whether a workload may reach an address outside of the mesh, by the code that decides in its proxy.

use super::policy::{Policy, PolicyArgs};
use crate::arguments::{HeaderArgument, headers};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Tone};
use clap::Args;
use mesh_policy::decide::Verdict;
use mesh_policy::egress::Seen;
use mesh_policy::record::{DecisionRecord, RecordClient};
use mesh_policy::request::{Head, TargetRecord};
use mesh_proxy_core::redirect::canonical;
use mesh_trust::SpiffeId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct EgressArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Whose proxy is asked: `namespace/workload`.
    #[arg(long, value_name = "WORKLOAD", value_parser = workload)]
    from: (String, String),
    /// Address and port that it dials.
    #[arg(long, value_name = "IP:PORT")]
    to: SocketAddr,
    /// It speaks TLS, and names this server (SNI).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tls", "host", "method", "path", "headers", "grpc"])]
    sni: Option<String>,
    /// It speaks TLS, and names no server.
    #[arg(long, conflicts_with_all = ["host", "method", "path", "headers", "grpc"])]
    tls: bool,
    /// It sends an HTTP request to this host; one without a host if only method, path, header or `--grpc` are given.
    #[arg(long)]
    host: Option<String>,
    /// Method of the request; GET by default, POST for gRPC.
    #[arg(long)]
    method: Option<String>,
    /// Path of the request, with query if there is one; `/` by default.
    #[arg(long)]
    path: Option<String>,
    /// A header of the request, `name=value`; more than once for more.
    #[arg(long = "header", value_name = "K=V", value_parser = crate::arguments::header)]
    headers: Vec<HeaderArgument>,
    /// The request is one of gRPC.
    #[arg(long)]
    grpc: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// The decision, with who speaks for the address.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    decision: DecisionRecord,
    cause: String,
    speakers: Vec<String>,
}

/// Why no verdict can be given.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum EgressError {
    /// Nobody has this name.
    #[error("there is no workload `{namespace}/{name}`")]
    #[diagnostic(
        code("MESH-0397"),
        help(
            "write `namespace/workload` as in the manifests; `mesh authz matrix` lists all workloads"
        )
    )]
    NoWorkload { namespace: String, name: String },
}

fn workload(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!(
            "`{text}` is no workload: write `namespace/workload`"
        )),
    }
}

/// Decides about one connection or request to outside.
pub(crate) fn run(args: &EgressArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut policy = Policy::open(&args.policy)?;
    let (namespace, name) = &args.from;
    let target = TargetRecord {
        namespace: namespace.clone(),
        pod: Some(name.clone()),
        service: None,
        port: 1,
    };
    let places = policy.places(&target)?;
    let Some(place) = places.first() else {
        return Err(Fault::undecidable(&EgressError::NoWorkload {
            namespace: namespace.clone(),
            name: name.clone(),
        }));
    };
    let headers = headers(&args.headers);
    let seen = args.seen(&headers);
    let speaking = place.snapshot.egress().at(canonical(args.to));
    let decision = speaking.decide(&seen);
    let info = place.snapshot.workload();
    let account = &info.service_account;
    let id = SpiffeId::for_service_account(&policy.trust_domain()?, namespace, account).ok();
    let client = RecordClient {
        spiffe_id: id.as_ref().map(ToString::to_string),
        ..RecordClient::default()
    };
    let answer = Answer {
        cause: decision.cause.to_string(),
        speakers: speaking.titles(),
        decision: decision.record(None, client, namespace, &seen),
    };
    output.value(args.output, &answer, |output, answer| {
        print(args, answer, output)
    })?;
    Ok(Exit::from(answer.decision.verdict))
}

impl EgressArgs {
    fn seen<'a>(&'a self, headers: &'a BTreeMap<String, Vec<String>>) -> Seen<'a> {
        let usual = if self.grpc { "POST" } else { "GET" };
        let http = self.host.is_some()
            || self.method.is_some()
            || self.path.is_some()
            || self.grpc
            || !headers.is_empty();
        match &self.sni {
            _ if http => Seen::Http(Head {
                method: self.method.as_deref().unwrap_or(usual),
                target: self.path.as_deref().unwrap_or("/"),
                host: self.host.as_deref(),
                grpc: self.grpc,
                headers,
            }),
            Some(name) => Seen::Tls(Some(name)),
            None if self.tls => Seen::Tls(None),
            None => Seen::Bytes,
        }
    }
}

fn print(args: &EgressArgs, answer: &Answer, output: &mut Output) -> Result<(), Fault> {
    let (word, tone) = match answer.decision.verdict {
        Verdict::Allow => ("ALLOWED", Tone::Good),
        Verdict::Deny => ("DENIED", Tone::Bad),
    };
    let word = output.toned(tone, word);
    let (namespace, name) = &args.from;
    output.line(format_args!("{word} {namespace}/{name} to {}", args.to))?;
    output.line(format_args!("  cause     {}", answer.cause))?;
    if let Some((port, name)) = answer
        .decision
        .egress
        .as_ref()
        .and_then(|egress| Some((egress.tls_port?, egress.server_name.as_deref()?)))
    {
        output.line(format_args!(
            "  tls       the proxy begins it, to `{name}` at port {port}"
        ))?;
    }
    for reason in &answer.decision.reasons {
        output.line(format_args!("  reason    {reason}"))?;
    }
    for speaker in &answer.speakers {
        output.line(format_args!("  speaks    {speaker}"))?;
    }
    Ok(())
}
