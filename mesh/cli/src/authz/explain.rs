//! `mesh authz explain`: one request, every layer of its decision, by the code that decides in the proxy.

use super::fixes;
use super::policy::{Place, Policy, PolicyArgs};
use super::target::{From, To};
use crate::arguments::{HeaderArgument, headers};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::Manifests;
use crate::output::{Format, Output, Tone};
use clap::{Args, ValueEnum};
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy::explain::{Explanation, Layer, Note, Outcome, explain};
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy::snapshot::ServerProtocol;
use mesh_policy_analysis::fixes::{Denied, Fixes};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which request is explained.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Who asks: `namespace/serviceaccount`, a `spiffe://` ID, or `none` for a client without identity.
    #[arg(long, value_name = "ID", value_parser = From::parse)]
    from: From,
    /// Where to: `namespace/workload:port`, else a Service of that name; `namespace/svc/name:port` is always a Service.
    #[arg(long, value_name = "TARGET", value_parser = To::parse)]
    to: To,
    /// Method; GET by default, POST for gRPC.
    #[arg(long)]
    method: Option<String>,
    /// Path, with query if there is one; `/` by default.
    #[arg(long)]
    path: Option<String>,
    /// Host that the request names.
    #[arg(long)]
    host: Option<String>,
    /// A header, `name=value`; more than once for more.
    #[arg(long = "header", value_name = "K=V", value_parser = crate::arguments::header)]
    headers: Vec<HeaderArgument>,
    /// Address that the client comes from; 127.0.0.1 by default.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// What is spoken; by default what the Server says, else http.
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArgument>,
    /// The client speaks TLS to the proxy; implied by an identity, so only of use with `--from none`.
    #[arg(long)]
    tls: bool,
    /// Print the documents of this fix, from 1, and nothing else: for `kubectl apply -f -`, or for review. Ends with 0.
    #[arg(long, value_name = "N", requires = "files", conflicts_with = "output")]
    fix: Option<usize>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolArgument {
    Http,
    Grpc,
    Tcp,
}

/// The decision with its layers and, for one that manifests deny, what would let it through.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(flatten)]
    fixes: Option<Fixes>,
}

/// What would let the request through, if it is denied.
fn find(manifests: &Manifests, record: &RequestRecord, places: &[Place], now: Timestamp) -> Fixes {
    let at = |place: &Place| mesh_policy_analysis::fixes::Place {
        workload: place.workload.clone(),
        port: place.port,
        snapshot: place.snapshot.clone(),
    };
    mesh_policy_analysis::fixes::fixes(&Denied {
        index: &manifests.index,
        files: &manifests.files,
        record,
        places: &places.iter().map(at).collect::<Vec<_>>(),
        now,
    })
}

/// Prints the documents of one fix.
fn print_documents(
    number: usize,
    found: Option<&Fixes>,
    output: &mut Output,
) -> Result<Exit, Fault> {
    let all = found
        .map(|found| found.fixes.as_slice())
        .unwrap_or_default();
    let fix = number.checked_sub(1).and_then(|at| all.get(at));
    let Some(fix) = fix else {
        return Err(Fault::usage(&fixes::FixError::NoSuch {
            number,
            known: all.len(),
        }));
    };
    fixes::print_documents(fix, output)?;
    Ok(Exit::Ok)
}

/// Explains one request.
pub(crate) fn run(args: &ExplainArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut policy = Policy::open(&args.policy)?;
    let trust_domain = policy.trust_domain()?;
    let spiffe_id = args.from.spiffe_id(&trust_domain);
    let (target, places) = policy.places_of(&args.to)?;
    let record = args.record(spiffe_id, target, places.first());
    let now = args.policy.now();
    let explanations: Vec<_> = places
        .iter()
        .map(|place| explain(&place.snapshot, &record, place.port, now))
        .collect();
    let denied = explanations
        .iter()
        .position(|one| one.decision.verdict == Verdict::Deny);
    // Of several pods behind a Service a denial wins: the balancer might have chosen that one.
    let chosen = denied.unwrap_or(0);
    let explanation = match explanations.into_iter().nth(chosen) {
        Some(explanation) => explanation,
        None => unknown_target(&record),
    };
    let found = match &policy {
        Policy::Static(manifests, _) => Some(find(manifests, &record, &places, now)),
        Policy::Live(..) => None,
    };
    if let Some(number) = args.fix {
        return print_documents(number, found.as_ref(), output);
    }
    let exit = Exit::from(explanation.decision.verdict);
    let answer = Answer {
        explanation,
        fixes: found,
    };
    output.value(args.output, &answer, |output, answer| {
        print(&answer.explanation, output)?;
        if let (Policy::Static(manifests, _), Some(found)) = (&policy, &answer.fixes) {
            fixes::print(found, &manifests.files, output)?;
        }
        match places.get(chosen) {
            Some(place) if places.len() > 1 => output.line(format_args!(
                "  pods      {} are behind this Service; shown is {}/{}",
                places.len(),
                place.workload.namespace,
                place.workload.name
            )),
            _ => Ok(()),
        }
    })?;
    Ok(exit)
}

/// The explanation as text, its verdict in colour where that is allowed.
fn print(explanation: &Explanation, output: &mut Output) -> Result<(), Fault> {
    let text = explanation.to_text();
    let (word, tone) = match explanation.decision.verdict {
        Verdict::Allow => ("ALLOWED", Tone::Good),
        Verdict::Deny => ("DENIED", Tone::Bad),
    };
    match text.strip_prefix(word) {
        Some(rest) => {
            let word = output.toned(tone, word);
            output.text(format_args!("{word}{rest}"))
        }
        None => output.text(text),
    }
}

impl ExplainArgs {
    /// The request, with what was not said filled in from the Server it goes to.
    fn record(
        &self,
        spiffe_id: Option<String>,
        server: TargetRecord,
        place: Option<&Place>,
    ) -> RequestRecord {
        let protocol = self.protocol(place);
        let http = protocol != Protocol::Tcp;
        let method = self.method.clone().unwrap_or_else(|| {
            if protocol == Protocol::Grpc {
                "POST".to_owned()
            } else {
                "GET".to_owned()
            }
        });
        RequestRecord {
            client: ClientRecord {
                spiffe_id,
                ip: self.ip.clone(),
                tls: self.tls.then_some(true),
            },
            server,
            protocol,
            method: http.then_some(method),
            path: http.then(|| self.path.clone().unwrap_or_else(|| "/".to_owned())),
            host: self.host.clone().filter(|_| http),
            headers: if http {
                headers(&self.headers)
            } else {
                BTreeMap::new()
            },
        }
    }

    fn protocol(&self, place: Option<&Place>) -> Protocol {
        match self.protocol {
            Some(ProtocolArgument::Http) => Protocol::Http,
            Some(ProtocolArgument::Grpc) => Protocol::Grpc,
            Some(ProtocolArgument::Tcp) => Protocol::Tcp,
            None => {
                let asks_http = self.path.is_some() || self.method.is_some() || self.host.is_some();
                let server = place.map(|place| place.snapshot.port(place.port).server.protocol);
                implied_protocol(server, asks_http)
            }
        }
    }
}

/// What is spoken to a Server, if nobody says: what it reads.
pub(super) fn implied_protocol(server: Option<ServerProtocol>, asks_http: bool) -> Protocol {
    match server {
        Some(ServerProtocol::Grpc) => Protocol::Grpc,
        Some(ServerProtocol::Opaque | ServerProtocol::Tls) if !asks_http => Protocol::Tcp,
        _ => Protocol::Http,
    }
}

/// A target that nobody knows is denied in phase `server`, as on the wire.
fn unknown_target(record: &RequestRecord) -> Explanation {
    let target = &record.server;
    let name = target
        .pod
        .as_ref()
        .or(target.service.as_ref())
        .cloned()
        .unwrap_or_default();
    let cause = format!(
        "no workload or Service `{}/{name}` has port {}",
        target.namespace, target.port
    );
    let decision = DecisionRecord::unknown_target(record, Generation::default());
    let note = Note {
        text: "names and ports are compared exactly; is its manifest among the files?".to_owned(),
        source: None,
    };
    let server = Layer {
        layer: "server",
        outcome: Outcome::Denied,
        summary: cause.clone(),
        source: None,
        notes: vec![note],
    };
    Explanation {
        decision,
        cause,
        layers: vec![server],
    }
}
