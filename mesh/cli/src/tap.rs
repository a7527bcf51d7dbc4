//! `mesh tap`: requests and byte streams of a running mesh, or of a cluster, as they end. The proxies filter; this shows.
//!
//! - [`source`]: which proxies are asked, and how they are reached

pub(crate) mod source;

use crate::arguments::duration;
use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, LiveArgs};
use crate::output::{Format, Output, printable};
use clap::{Args, ValueEnum};
use mesh_api::admin::Direction;
use mesh_api::tap::{
    RATE_DEFAULT, RATE_MAX, TapClient, TapConnection, TapDecision, TapFilter, TapLine, TapRequest,
};
use mesh_policy::decide::Verdict;
use mesh_policy::request::Protocol;
use mesh_trust::SpiffeId;
use source::{Proxy, Wanted};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Lines that wait to be printed; proxies are slowed down by their own limits, not by this.
const WAITING: usize = 256;

/// Shows requests and connections as they end: who asked what, what was decided, how it ended. No query, no body, few
/// headers. On a cluster it takes the right to run commands in the containers of proxies (`create` `pods/exec`).
#[derive(Args, Clone, Debug)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Whose proxies are looked at; all by default. On a cluster `deploy/NAME`, `sts/NAME`, `ds/NAME`, `rs/NAME`, `job/NAME`
    /// or `pod/NAME`; else `namespace/name`, or a name that is the only one.
    #[arg(value_name = "WORKLOAD", conflicts_with = "selector")]
    workloads: Vec<String>,
    /// Only proxies of this namespace. Without it those of all; for what is named on a cluster, the context's namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only proxies of pods with these labels, `app=cart,tier!=back`. Of a cluster.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Ends after so many requests and connections.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Ends after this long.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    for_: Option<Duration>,
    /// Form of the lines.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Lines,
}

/// Which requests; all that is said must hold.
#[derive(Args, Clone, Debug)]
pub(crate) struct FilterArgs {
    /// Only what comes in to workloads, or what goes out from them.
    #[arg(long, value_enum)]
    direction: Option<Way>,
    /// Only HTTP without gRPC, only gRPC, or only byte streams.
    #[arg(long, value_enum)]
    protocol: Option<Spoken>,
    /// Only this method.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only paths that begin so.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only this host, as the request names it.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only what this client asks, where it comes in.
    #[arg(long, value_name = "SPIFFE-ID", value_parser = id)]
    from: Option<SpiffeId>,
    /// Only this port of the workload, where it comes in; where it goes out, only this service (`namespace/name:port`).
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only what was allowed, or denied.
    #[arg(long, value_enum)]
    verdict: Option<Said>,
    /// Only this status, or the first digit of a class: 404, or 5.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<u16>,
    /// Requests a second and proxy; the rest is counted.
    #[arg(long, value_name = "N", default_value_t = RATE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Inbound,
    Outbound,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Spoken {
    Http,
    Grpc,
    Tcp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Said {
    Allow,
    Deny,
}

/// Form of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lines {
    /// For people.
    #[default]
    Text,
    /// For programs: an object a line, with the fields of docs/reference/tap.md.
    Jsonl,
}

fn id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

fn status(text: &str) -> Result<u16, String> {
    let status = text.parse::<u16>().ok();
    let status = status.filter(|status| matches!(status, 1..=5 | 100..=599));
    status.ok_or_else(|| format!("`{text}` is no status, nor the first digit of one"))
}

impl FilterArgs {
    fn filter(&self) -> TapFilter {
        TapFilter {
            direction: self.direction.map(|way| match way {
                Way::Inbound => Direction::Inbound,
                Way::Outbound => Direction::Outbound,
            }),
            protocol: self.protocol.map(|protocol| match protocol {
                Spoken::Http => Protocol::Http,
                Spoken::Grpc => Protocol::Grpc,
                Spoken::Tcp => Protocol::Tcp,
            }),
            method: self.method.clone(),
            path: self.path.clone(),
            host: self.host.clone(),
            from: self.from.clone(),
            target: self.target.clone(),
            verdict: self.verdict.map(|verdict| match verdict {
                Said::Allow => Verdict::Allow,
                Said::Deny => Verdict::Deny,
            }),
            status: self.status,
            rate: Some(self.rate),
        }
    }
}

/// What comes from one proxy.
pub(crate) enum Came {
    Line(TapLine),
    /// Nothing more, or never anything.
    Ended(String, Option<Fault>),
}

/// Shows what comes until nothing more does, or it is enough.
///
/// # Errors
/// If there is nobody to look at. A proxy that does not tell, or no longer, is named, and makes the command fail.
pub(crate) fn run(args: &TapArgs, output: &mut Output) -> Result<Exit, Fault> {
    let filter = args.filter.filter();
    live::wait(async {
        let proxies = source::proxies(Wanted {
            live: &args.live,
            cluster: &args.cluster,
            workloads: &args.workloads,
            namespace: args.namespace.as_deref(),
            selector: args.selector.as_deref(),
        })
        .await?;
        let mut came = come_from(proxies, &filter);
        let until = args.for_.map(|limit| Instant::now() + limit);
        let (mut shown, mut exit) = (0, Exit::Ok);
        loop {
            let came = tokio::select! {
                came = came.recv() => came,
                () = over(until) => break,
            };
            match came {
                // The last of them has ended.
                None => break,
                Some(Came::Ended(name, why)) => {
                    exit = Exit::Failure;
                    output.talk(format_args!("{name} tells no more"));
                    if let Some(fault) = why {
                        output.fault(&fault, Format::Text);
                    }
                }
                Some(Came::Line(line)) => {
                    let counts = matches!(line, TapLine::Request(_) | TapLine::Connection(_));
                    show(&line, args.output, output)?;
                    if output.is_closed() {
                        break;
                    }
                    shown += u64::from(counts);
                    if args.count.is_some_and(|count| shown >= count) {
                        break;
                    }
                }
            }
        }
        Ok(exit)
    })
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// What all of these tell, until each has ended.
pub(crate) fn come_from(proxies: Vec<Proxy>, filter: &TapFilter) -> mpsc::Receiver<Came> {
    let (send, came) = mpsc::channel(WAITING);
    let query = filter.to_query();
    for proxy in proxies {
        let (send, query) = (send.clone(), query.clone());
        tokio::spawn(async move { follow(&proxy, &query, &send).await });
    }
    came
}

async fn follow(proxy: &Proxy, query: &str, send: &mpsc::Sender<Came>) {
    let ended = async {
        let mut told = proxy.ask(query).await?;
        while let Some(line) = told.next().await? {
            // What a newer proxy tells besides is not shown.
            let Ok(line) = serde_json::from_slice(&line) else {
                continue;
            };
            if send.send(Came::Line(line)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let why = ended.await.err();
    let _ = send.send(Came::Ended(proxy.name.clone(), why)).await;
}

fn show(line: &TapLine, form: Lines, output: &mut Output) -> Result<(), Fault> {
    match (form, line) {
        (_, TapLine::Idle) => {}
        (Lines::Jsonl, line) => output.json_line(line)?,
        (Lines::Text, TapLine::Request(request)) => output.line(request_text(request))?,
        (Lines::Text, TapLine::Connection(stream)) => output.line(stream_text(stream))?,
        (
            Lines::Text,
            TapLine::Missed {
                over_rate,
                slow_reader,
            },
        ) => output.talk(format_args!(
            "not shown: {over_rate} beyond the rate, {slow_reader} because this reads too slowly"
        )),
    }
    output.flush()
}

/// One request in one line: clients chose some of it, so nothing in it may steer a terminal.
fn request_text(request: &TapRequest) -> String {
    let end = match (request.status, request.grpc_status) {
        (_, Some(code)) if request.protocol == Protocol::Grpc => format!("grpc:{code}"),
        (Some(status), _) => status.to_string(),
        (None, _) => "left".to_owned(),
    };
    let way = Between {
        direction: request.direction,
        workload: &request.workload,
        target: &request.target,
        client: request.client.as_ref(),
    };
    printable(&format!(
        "{} {} {} {} {end} {}{}",
        request.time,
        way.text(),
        request.method,
        request.path,
        ms(request.duration_us),
        ending(request.decision.as_ref(), request.failure.as_deref()),
    ))
}

/// The same of a byte stream.
fn stream_text(stream: &TapConnection) -> String {
    let way = Between {
        direction: stream.direction,
        workload: &stream.workload,
        target: &stream.target,
        client: stream.client.as_ref(),
    };
    printable(&format!(
        "{} {} TCP {} bytes up, {} down {}{}",
        stream.time,
        way.text(),
        stream.from_client_bytes,
        stream.to_client_bytes,
        ms(stream.duration_us),
        ending(stream.decision.as_ref(), stream.failure.as_deref()),
    ))
}

/// From whom to whom.
struct Between<'a> {
    direction: Direction,
    workload: &'a str,
    target: &'a str,
    client: Option<&'a TapClient>,
}

impl Between<'_> {
    fn text(&self) -> String {
        let Self {
            workload, target, ..
        } = self;
        match (self.direction, self.client) {
            (Direction::Outbound, _) => format!("out {workload} → {target}"),
            (Direction::Inbound, None) => format!("in  ? → {workload}:{target}"),
            (Direction::Inbound, Some(client)) => match &client.spiffe_id {
                Some(id) => format!("in  {id} → {workload}:{target}"),
                None => format!("in  {} → {workload}:{target}", client.ip),
            },
        }
    }
}

fn ms(micros: u64) -> String {
    format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100)
}

/// What was decided, and why it failed.
fn ending(decision: Option<&TapDecision>, failure: Option<&str>) -> String {
    let decision = decision.map(|decision| {
        let verdict = match decision.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "DENY",
        };
        format!(" {verdict} {}", decision.reason)
    });
    let failure = failure.map(|why| format!(" failed: {why}"));
    decision.unwrap_or_default() + &failure.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_trust::Timestamp;
    use std::collections::BTreeMap;

    fn request() -> TapRequest {
        TapRequest {
            time: Timestamp::from_unix_secs(0),
            duration_us: 1_250,
            workload: "shop/cart".to_owned(),
            direction: Direction::Inbound,
            protocol: Protocol::Http,
            method: "GET".to_owned(),
            path: "/items".to_owned(),
            host: None,
            target: "8080".to_owned(),
            client: Some(TapClient {
                ip: "10.0.0.9".parse().expect("an address"),
                spiffe_id: None,
            }),
            server: None,
            decision: Some(TapDecision {
                verdict: Verdict::Deny,
                phase: "permit".to_owned(),
                reason: "no-grant".to_owned(),
                server: None,
                route: None,
                generation: Some(1),
            }),
            status: Some(403),
            grpc_status: None,
            failure: None,
            tries: 0,
            trace_id: None,
            headers: BTreeMap::new(),
        }
    }

    #[test]
    fn a_request_is_one_line_that_steers_no_terminal() {
        let line = request_text(&request());
        assert!(
            line.ends_with("in  10.0.0.9 → shop/cart:8080 GET /items 403 1.2ms DENY no-grant"),
            "{line}"
        );
        let odd = TapRequest {
            path: "/\u{1b}[2Ja\nb".to_owned(),
            status: None,
            ..request()
        };
        let line = request_text(&odd);
        assert!(
            !line.contains(['\u{1b}', '\n']) && line.contains(" left "),
            "{line:?}"
        );
    }

    #[test]
    fn a_byte_stream_is_a_line_too_and_a_denial_is_loud() {
        let denied = request();
        let stream = TapConnection {
            time: denied.time,
            duration_us: 2_000,
            workload: denied.workload,
            direction: denied.direction,
            target: "5432".to_owned(),
            client: denied.client,
            server: None,
            decision: denied.decision,
            failure: Some("revoked".to_owned()),
            from_client_bytes: 7,
            to_client_bytes: 0,
        };
        let line = stream_text(&stream);
        let want = "in  10.0.0.9 → shop/cart:5432 TCP 7 bytes up, 0 down 2.0ms DENY no-grant failed: revoked";
        assert!(line.ends_with(want), "{line}");
    }
}
