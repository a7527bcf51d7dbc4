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
use source::{Proxy, Told, Wanted};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Lines that wait to be printed; proxies are slowed down by their own limits, not by this.
const WAITING: usize = 256;
/// Time for all to begin. An API server has ten seconds to run a command, of which it is asked for up to fifty at once.
const BEGIN_WITHIN: Duration = Duration::from_secs(12);
/// A proxy that lives says something every ten seconds; one that says nothing for so long is none.
const SILENT_FOR: Duration = Duration::from_secs(30);

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
    /// It tells what ends from now on.
    Began(String),
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
        let opening = Opening::of(&proxies);
        let came = come_from(proxies, &filter);
        let enough = (args.count, args.for_);
        show_all(came, opening, enough, args.output, output).await
    })
}

/// Shows what comes until nothing more does, or it is enough: so many, or for so long since all have begun.
async fn show_all(
    mut came: mpsc::Receiver<Came>,
    mut opening: Opening,
    (count, limit): (Option<u64>, Option<Duration>),
    form: Lines,
    output: &mut Output,
) -> Result<Exit, Fault> {
    let (mut until, mut shown, mut exit) = (None, 0, Exit::Ok);
    loop {
        if opening.is_over() && until.is_none() {
            until = limit.map(|limit| Instant::now() + limit);
        }
        let came = tokio::select! {
            came = came.recv() => came,
            () = over(until) => break,
            () = opening.late() => {
                exit = Exit::Failure;
                for name in opening.give_up() {
                    output.talk(format_args!("{name} tells nothing yet"));
                }
                continue;
            }
        };
        match came {
            // The last of them has ended.
            None => break,
            Some(Came::Began(name)) => opening.began(&name),
            Some(Came::Ended(name, why)) => {
                opening.ended(&name);
                exit = Exit::Failure;
                output.talk(format_args!("{name} tells no more"));
                if let Some(fault) = why {
                    output.fault(&fault, Format::Text);
                }
            }
            Some(Came::Line(line)) => {
                let counts = matches!(line, TapLine::Request(_) | TapLine::Connection(_));
                show(&line, form, output)?;
                if output.is_closed() {
                    break;
                }
                shown += u64::from(counts);
                if count.is_some_and(|count| shown >= count) {
                    break;
                }
            }
        }
    }
    // Whoever looked at nobody has not seen that there is nothing.
    Ok(if opening.any_began() {
        exit
    } else {
        Exit::Failure
    })
}

/// Proxies that are asked and have neither begun to tell nor ended. On a cluster each takes a process in a container, so
/// the clocks of those who look start when it is over.
pub(crate) struct Opening {
    waited_for: BTreeSet<String>,
    until: Instant,
    any_began: bool,
}

impl Opening {
    /// Of these, which are asked now.
    pub(crate) fn of(proxies: &[Proxy]) -> Self {
        Self {
            waited_for: proxies.iter().map(|proxy| proxy.name.clone()).collect(),
            until: Instant::now() + BEGIN_WITHIN,
            any_began: false,
        }
    }

    pub(crate) fn began(&mut self, name: &str) {
        self.waited_for.remove(name);
        self.any_began = true;
    }

    pub(crate) fn ended(&mut self, name: &str) {
        self.waited_for.remove(name);
    }

    /// Whether nobody is waited for any more.
    pub(crate) fn is_over(&self) -> bool {
        self.waited_for.is_empty()
    }

    /// Whether anybody ever told something.
    pub(crate) fn any_began(&self) -> bool {
        self.any_began
    }

    /// Resolves when those that are waited for have had their time.
    pub(crate) async fn late(&self) {
        over((!self.is_over()).then_some(self.until)).await;
    }

    /// Waits for nobody any more; those who have not begun.
    pub(crate) fn give_up(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.waited_for)
    }
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
        pass_on(proxy, &mut told, send).await
    };
    let why = ended.await.err();
    let _ = send.send(Came::Ended(proxy.name.clone(), why)).await;
}

/// Passes on what a proxy tells, until it tells no more or nobody takes it.
async fn pass_on(proxy: &Proxy, told: &mut Told, send: &mpsc::Sender<Came>) -> Result<(), Fault> {
    let mut began = false;
    loop {
        let next = timeout(SILENT_FOR, told.next()).await;
        let next = next.map_err(|_elapsed| {
            let secs = SILENT_FOR.as_secs();
            proxy.no_tap(format!("it said nothing for {secs} s"))
        })?;
        let Some(line) = next? else { return Ok(()) };
        let line = TapLine::read(&line)
            .map_err(|error| proxy.no_tap(format!("what it says is no line of a tap: {error}")))?;
        if let Some(line) = &line
            && !proxy.may_tell(line)
        {
            return Err(proxy.no_tap("it tells of a workload of another namespace"));
        }
        let first = (!std::mem::replace(&mut began, true)).then(|| Came::Began(proxy.name.clone()));
        // What a newer proxy tells besides is not shown.
        for came in first.into_iter().chain(line.map(Came::Line)) {
            if send.send(came).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn show(line: &TapLine, form: Lines, output: &mut Output) -> Result<(), Fault> {
    match (form, line) {
        (_, TapLine::Open | TapLine::Idle) => {}
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
    use mesh_api::terminal;
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
            path: "/\u{1b}[2Ja\nb\u{9b}\u{7f}\u{202e}\u{2066}\u{2028}\u{a0}\u{200b}".to_owned(),
            status: None,
            ..request()
        };
        let line = request_text(&odd);
        assert!(
            !line.contains(terminal::steers) && line.contains(" left "),
            "{line:?}"
        );
        let json = serde_json::to_string(&odd).expect("JSON");
        assert!(json.contains(terminal::steers), "the encoder leaves some");
        assert!(!terminal::json(&json).contains(terminal::steers));
    }

    /// What becomes of these lines of a proxy; `open`: it then says nothing more, and does not end.
    async fn passed(lines: &[&'static str], open: bool) -> (Vec<Came>, Result<(), Fault>) {
        let (say, said) = mpsc::channel(16);
        for line in lines {
            say.send(*line).await.expect("room");
        }
        let kept = open.then_some(say);
        let (send, mut came) = mpsc::channel(16);
        let proxy = Proxy::for_test("shop/web");
        let ended = pass_on(&proxy, &mut Told::Test(said), &send).await;
        drop((send, kept));
        let mut all = Vec::new();
        while let Some(one) = came.recv().await {
            all.push(one);
        }
        (all, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_says_nothing_is_given_up() {
        let began = Instant::now();
        let (came, ended) = passed(&[r#"{"kind":"open"}"#], true).await;
        assert!(matches!(
            &came[..],
            [Came::Began(_), Came::Line(TapLine::Open)]
        ));
        let fault = ended.expect_err("silence is no good end");
        assert!(
            fault.message().contains("nothing for 30 s"),
            "{}",
            fault.message()
        );
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test]
    async fn a_line_that_is_none_is_a_fault_and_a_newer_one_is_passed_over() {
        let (came, ended) = passed(&[r#"{"kind":"weather"}"#, r#"{"kind":"idle"}"#], false).await;
        assert!(matches!(
            &came[..],
            [Came::Began(_), Came::Line(TapLine::Idle)]
        ));
        assert!(ended.is_ok());
        for line in [r#"{"kind":"request"}"#, "idle", ""] {
            let (came, ended) = passed(&[line], false).await;
            assert!(came.is_empty(), "{line}");
            assert!(ended.is_err(), "{line}");
        }
    }

    /// How `--for 2s` ends, and after how long, where a proxy begins after so many seconds, if ever.
    async fn for_two_seconds(begins_after: Option<u64>) -> (Exit, u64) {
        let opening = Opening::of(&[Proxy::for_test("shop/web")]);
        let (send, came) = mpsc::channel(4);
        let began = Instant::now();
        tokio::spawn(async move {
            if let Some(secs) = begins_after {
                tokio::time::sleep(Duration::from_secs(secs)).await;
                let _ = send.send(Came::Began("shop/web".to_owned())).await;
            }
            send.closed().await;
        });
        let mut output = Output::standard(crate::output::Surroundings::read());
        let enough = (None, Some(Duration::from_secs(2)));
        let exit = show_all(came, opening, enough, Lines::Text, &mut output).await;
        (exit.expect("an end"), began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_counted_from_when_all_tell_and_nobody_is_no_success() {
        assert_eq!(for_two_seconds(Some(0)).await, (Exit::Ok, 2));
        assert_eq!(for_two_seconds(Some(8)).await, (Exit::Ok, 10));
        assert_eq!(for_two_seconds(Some(13)).await, (Exit::Failure, 14));
        assert_eq!(for_two_seconds(None).await, (Exit::Failure, 14));
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
