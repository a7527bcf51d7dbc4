//! `mesh top`: what moves now. Proxies are asked twice, some seconds apart; what they counted between is shown by rate, and
//! its latencies are of that time alone.
//!
//! A proxy that began anew between counts from nothing; one that was not there before is shown from the next look on.
//!
//! - [`paths`]: by path, which no metric has

mod paths;

use super::{ProxyPod, Row, denied, is_in, latency, short, table_of_edges};
use crate::cluster::exposition::{Metrics, RouteMoved};
use crate::cluster::{self, ClusterArgs, proxies};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::output::{Format, Output, Table};
use clap::{Args, ValueEnum};
use mesh_api::admin::{Direction, Edge};
use mesh_kubernetes::Client;
use mesh_policy::request::Protocol;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Lines on a terminal: what is drawn over must not be higher than the screen.
const TERMINAL_LINES_MAX: usize = 20;

/// What to look at, and how often.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only what proxies of this namespace counted.
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "everywhere")]
    namespace: Option<String>,
    /// What proxies of all namespaces counted, as without it.
    #[arg(short = 'A', long = "all-namespaces")]
    everywhere: bool,
    /// Only what proxies of pods with these labels counted, `app=cart,tier!=back`. Of a cluster.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// By route: which rule takes requests to a Service, and which backend gets them, as the proxies of the callers counted.
    #[arg(long, conflicts_with = "all")]
    routes: bool,
    /// By method and path, without queries, as taps of the proxies tell: up to 1,000 requests a second and proxy, fifty proxies
    /// at most. On a cluster it takes the right that `mesh tap` takes, and to read the ConfigMap `mesh-config` of the mesh.
    #[arg(long, conflicts_with = "routes")]
    paths: bool,
    /// Calls as the proxies of the callers saw them too; without it only the servers' side, where verdicts are made.
    #[arg(long)]
    all: bool,
    /// What comes first.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    every: u32,
    /// How many looks; 0: until it is ended. By default that on a terminal, and one elsewhere.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u32>,
    /// Form of the answer. More than one look as JSON is a line for each.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// The most requests.
    #[default]
    Rate,
    /// The slowest.
    Latency,
    /// The most denials and failures.
    Failures,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum TopError {
    #[error("workloads of a mesh on one machine have no labels: `-l {selector}` selects none")]
    #[diagnostic(
        code("MESH-0591"),
        help("name a namespace with `-n`, or a cluster with `--cluster`")
    )]
    NoLabels { selector: String },
}

/// One look, as data.
#[derive(Serialize)]
struct Look<T> {
    /// Seconds that it covers.
    secs: f64,
    /// Proxies that did not answer.
    silent: Vec<String>,
    /// Requests that ended and are not in `lines`, where that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    /// What moved.
    lines: Vec<T>,
}

/// Requests, or connections, of an edge.
#[derive(Debug, PartialEq, Serialize)]
struct EdgeRate {
    direction: Direction,
    from: String,
    to: String,
    identity: String,
    protocol: Protocol,
    requests: u64,
    per_sec: f64,
    denied: u64,
    failed: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// Requests that a rule of a route took.
#[derive(Debug, PartialEq, Serialize)]
struct RouteRate {
    from: String,
    service: String,
    route: String,
    rule: String,
    backend: String,
    requests: u64,
    per_sec: f64,
    /// Answered with 5xx, or not at all.
    failed: u64,
    retries: u64,
    timeouts: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// What a proxy has counted until some moment.
type Counted = BTreeMap<String, (Metrics, Instant)>;

/// Who is asked.
enum Source {
    Machine(Box<Live>),
    Cluster { client: Client, domain: String },
}

/// Looks, and prints what moved.
///
/// # Errors
/// If no mesh is found, or the cluster does not answer. A proxy that does not answer is named, and makes the command fail.
pub(crate) fn top(args: &TopArgs, output: &mut Output) -> Result<Exit, Fault> {
    let on_cluster = args.cluster.is_meant(&args.live);
    if let Some(selector) = args.selector.clone().filter(|_| !on_cluster) {
        return Err(Fault::usage(&TopError::NoLabels { selector }));
    }
    let watched = output.is_terminal() && matches!(args.output, Format::Text | Format::Wide);
    let looks = args.count.unwrap_or(if watched { 0 } else { 1 });
    if args.paths {
        return paths::top(args, (watched, looks), output);
    }
    live::wait(async {
        let source = Source::of(args).await?;
        let (mut before, mut faults) = source.ask(args).await?;
        let mut exit = Exit::Ok;
        let mut look = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(args.every.into())).await;
            let (now, later) = source.ask(args).await?;
            faults.extend(later);
            if !faults.is_empty() {
                exit = Exit::Failure;
            }
            let moved = moved(&now, &before);
            let silent: Vec<String> = faults.keys().cloned().collect();
            if !watched {
                for (name, fault) in &faults {
                    output.talk(format_args!("{name} does not answer:"));
                    output.fault(fault, args.output);
                }
            }
            show(args, &source, (moved, silent), (watched, looks), output)?;
            look += 1;
            if output.is_closed() || look == looks {
                return Ok(exit);
            }
            (before, faults) = (now, BTreeMap::new());
        }
    })
}

impl Source {
    async fn of(args: &TopArgs) -> Result<Self, Fault> {
        match args.cluster.is_meant(&args.live) {
            true => Self::cluster(&args.cluster).await,
            false => Ok(Self::Machine(Box::new(Live::find(&args.live)?))),
        }
    }

    async fn cluster(args: &ClusterArgs) -> Result<Self, Fault> {
        let client = args.connect().await?;
        let values = cluster::values(&client).await?;
        let domain = values.unwrap_or_default().trust_domain;
        Ok(Self::Cluster { client, domain })
    }

    fn domain(&self) -> &str {
        match self {
            Self::Machine(live) => &live.running.trust_domain,
            Self::Cluster { domain, .. } => domain,
        }
    }

    /// What each proxy has counted, and why some do not say.
    async fn ask(&self, args: &TopArgs) -> Result<(Counted, BTreeMap<String, Fault>), Fault> {
        let namespace = args.namespace.as_deref().filter(|_| !args.everywhere);
        let mut asked: Vec<(String, Result<Metrics, Fault>)> = Vec::new();
        match self {
            Self::Machine(live) => {
                let proxies = live.proxies();
                for (one, proxy) in proxies.filter(|(one, _)| is_in(&one.namespace, namespace)) {
                    let text = live::text(&proxy.socket, "/metrics").await;
                    let metrics = text.map(|text| Metrics::read(&text));
                    asked.push((format!("{}/{}", one.namespace, one.name), metrics));
                }
            }
            Self::Cluster { client, .. } => {
                let pods = proxies::list(client, namespace, args.selector.as_deref()).await?;
                let pods: Vec<ProxyPod> = pods.into_iter().filter(|pod| pod.running).collect();
                let metrics = proxies::metrics(client, &pods).await.into_iter();
                let metrics = metrics.map(|one| one.map_err(Fault::from));
                asked.extend(pods.iter().map(ProxyPod::title).zip(metrics));
            }
        }
        let now = Instant::now();
        let (mut counted, mut faults) = (Counted::new(), BTreeMap::new());
        for (name, answer) in asked {
            match answer {
                Ok(metrics) => drop(counted.insert(name, (metrics, now))),
                Err(fault) => drop(faults.insert(name, fault)),
            }
        }
        Ok((counted, faults))
    }
}

/// What each proxy counted between two looks, and the seconds between them.
fn moved(now: &Counted, before: &Counted) -> (Vec<Metrics>, f64) {
    let mut secs: f64 = 0.0;
    let mut out = Vec::new();
    for (name, (metrics, at)) in now {
        if let Some((old, then)) = before.get(name) {
            secs = secs.max(at.duration_since(*then).as_secs_f64());
            out.push(metrics.since(old));
        }
    }
    (out, secs)
}

/// Prints one look.
fn show(
    args: &TopArgs,
    source: &Source,
    ((moved, secs), silent): ((Vec<Metrics>, f64), Vec<String>),
    (watched, looks): (bool, u32),
    output: &mut Output,
) -> Result<(), Fault> {
    let wide = args.output == Format::Wide;
    if args.routes {
        let routes = moved.iter().flat_map(Metrics::routes);
        let mut lines: Vec<_> = routes.map(|one| RouteRate::of(one, secs)).collect();
        lines.sort_by(|a, b| order(args.sort, a.rank(), b.rank()));
        let look = Look {
            secs,
            silent,
            missed: None,
            lines,
        };
        print(args, &look, (watched, looks), output, route_table)
    } else {
        let edges = moved.iter().flat_map(Metrics::edges);
        let shown = edges.filter(|edge| args.all || edge.direction == Direction::Inbound);
        let mut lines: Vec<_> = shown
            .map(|edge| EdgeRate::of(edge, secs, source.domain()))
            .collect();
        lines.sort_by(|a, b| order(args.sort, a.rank(), b.rank()));
        let look = Look {
            secs,
            silent,
            missed: None,
            lines,
        };
        let table = |lines: &[EdgeRate]| edge_table(lines, args.all, wide);
        print(args, &look, (watched, looks), output, table)
    }
}

fn print<T: Serialize>(
    args: &TopArgs,
    look: &Look<T>,
    (watched, looks): (bool, u32),
    output: &mut Output,
    table: impl Fn(&[T]) -> Table,
) -> Result<(), Fault> {
    if watched {
        let shown = look.lines.get(..TERMINAL_LINES_MAX);
        let (shown, rest) = match shown {
            Some(shown) => (shown, look.lines.len() - shown.len()),
            None => (look.lines.as_slice(), 0),
        };
        let mut picture = table(shown).in_form(args.output);
        if look.lines.is_empty() {
            picture = "nothing moved\n".to_owned();
        }
        if rest > 0 {
            picture.push_str(&format!("and {rest} more\n"));
        }
        if let Some(missed) = look.missed.filter(|missed| *missed > 0) {
            picture.push_str(&format!("{missed} requests more are not shown\n"));
        }
        if !look.silent.is_empty() {
            picture.push_str(&format!("no answer of {}\n", look.silent.join(", ")));
        }
        return output.redraw(&picture);
    }
    if looks != 1 && args.output == Format::Json {
        output.json_line(look)?;
    } else {
        if looks != 1 && args.output == Format::Yaml {
            output.line("---")?;
        }
        output.value(args.output, look, |output, look| {
            if look.lines.is_empty() {
                output.talk("nothing moved");
            }
            if let Some(missed) = look.missed.filter(|missed| *missed > 0) {
                output.talk(format_args!("{missed} requests more are not shown"));
            }
            output.table(&table(&look.lines), args.output)
        })?;
    }
    output.flush()
}

/// What lines are sorted by: requests a second, the slow end of latency, denials and failures; then names.
type Rank<'a> = (f64, u64, u64, [&'a str; 3]);

fn order(sort: Sort, a: Rank<'_>, b: Rank<'_>) -> std::cmp::Ordering {
    let first = match sort {
        Sort::Rate => b.0.total_cmp(&a.0),
        Sort::Latency => b.1.cmp(&a.1),
        Sort::Failures => b.2.cmp(&a.2),
    };
    first.then(b.0.total_cmp(&a.0)).then(a.3.cmp(&b.3))
}

/// So many in so many seconds, to a tenth.
fn per_sec(count: u64, secs: f64) -> f64 {
    (count as f64 / secs.max(0.001) * 10.0).round() / 10.0
}

/// `99.5%`; never rounded up to all.
fn success(requests: u64, lost: u64) -> String {
    let good = requests.saturating_sub(lost);
    if requests == 0 {
        return "-".to_owned();
    }
    let tenths = good.saturating_mul(1_000) / requests;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

impl EdgeRate {
    fn of(edge: Edge, secs: f64, own_domain: &str) -> Self {
        let denied = denied(&edge);
        let from = match edge.direction {
            Direction::Inbound => short(&edge.peer, own_domain),
            Direction::Outbound => edge.local,
        };
        Self {
            direction: edge.direction,
            from,
            to: edge.target,
            identity: edge.peer,
            protocol: edge.protocol,
            requests: edge.requests,
            per_sec: per_sec(edge.requests, secs),
            denied,
            failed: edge.failed,
            p50_us: edge.p50_us,
            p99_us: edge.p99_us,
        }
    }

    fn rank(&self) -> Rank<'_> {
        let names = [self.to.as_str(), &self.from, &self.identity];
        let lost = self.denied + self.failed;
        (self.per_sec, self.p99_us.unwrap_or(0), lost, names)
    }
}

impl RouteRate {
    fn of(moved: RouteMoved, secs: f64) -> Self {
        Self {
            per_sec: per_sec(moved.requests, secs),
            from: moved.workload,
            service: moved.service,
            route: moved.route,
            rule: moved.rule,
            backend: moved.backend,
            requests: moved.requests,
            failed: moved.failed,
            retries: moved.retries,
            timeouts: moved.timeouts,
            p50_us: moved.p50_us,
            p99_us: moved.p99_us,
        }
    }

    fn rank(&self) -> Rank<'_> {
        let names = [self.service.as_str(), &self.route, &self.from];
        (self.per_sec, self.p99_us.unwrap_or(0), self.failed, names)
    }
}

fn edge_table(lines: &[EdgeRate], both_sides: bool, wide: bool) -> Table {
    let headings = [
        "FROM", "TO", "PROTOCOL", "RATE", "SUCCESS", "DENIED", "P50", "P99",
    ];
    let rows = lines.iter().map(|line| Row {
        direction: line.direction,
        identity: &line.identity,
        cells: [
            line.from.clone(),
            line.to.clone(),
            format!("{:?}", line.protocol).to_lowercase(),
            format!("{}/s", line.per_sec),
            success(line.requests, line.denied + line.failed),
            line.denied.to_string(),
            latency(line.p50_us),
            latency(line.p99_us),
        ],
    });
    table_of_edges(headings, rows, both_sides, wide)
}

fn route_table(lines: &[RouteRate]) -> Table {
    let mut table = Table::new(&[
        "FROM", "SERVICE", "ROUTE", "RULE", "BACKEND", "RATE", "SUCCESS", "RETRIES", "P50", "P99",
    ]);
    for line in lines {
        table.row([
            line.from.clone(),
            line.service.clone(),
            line.route.clone(),
            line.rule.clone(),
            line.backend.clone(),
            format!("{}/s", line.per_sec),
            success(line.requests, line.failed),
            line.retries.to_string(),
            latency(line.p50_us),
            latency(line.p99_us),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: u64, secs: u64, from: Instant) -> Counted {
        let edge = r#"workload="shop/cart",direction="inbound",peer="spiffe://a.b/ns/shop/sa/web",target="shop/cart:80",protocol="http""#;
        let text = format!(
            "mesh_requests_total{{{edge}}} {requests}\nmesh_allowed_total{{{edge}}} {requests}\n"
        );
        let at = from + Duration::from_secs(secs);
        Counted::from([("shop/cart".to_owned(), (Metrics::read(&text), at))])
    }

    #[test]
    fn a_rate_is_what_was_counted_between_two_looks() {
        let start = Instant::now();
        let (moved, secs) = moved(&counted(50, 4, start), &counted(20, 0, start));
        assert_eq!(secs, 4.0);
        let edges = moved[0].edges();
        let line = EdgeRate::of(edges[0].clone(), secs, "a.b");
        assert_eq!((line.requests, line.per_sec), (30, 7.5));
        assert_eq!(
            (line.from.as_str(), line.to.as_str()),
            ("shop/web", "shop/cart:80")
        );
    }

    #[test]
    fn who_is_new_is_shown_from_the_next_look_on_and_who_rests_is_not() {
        let start = Instant::now();
        let (lines, _) = moved(&counted(50, 4, start), &Counted::new());
        assert!(lines.is_empty());
        let (lines, _) = moved(&counted(50, 4, start), &counted(50, 0, start));
        assert_eq!(lines[0].edges(), []);
    }

    #[test]
    fn the_most_the_slowest_or_the_worst_comes_first() {
        let line = |to: &str, requests, p99_us, denied| EdgeRate {
            direction: Direction::Inbound,
            from: "shop/web".to_owned(),
            to: to.to_owned(),
            identity: String::new(),
            protocol: Protocol::Http,
            requests,
            per_sec: per_sec(requests, 1.0),
            denied,
            failed: 0,
            p50_us: None,
            p99_us,
        };
        let lines = [
            line("a", 10, Some(5), 0),
            line("b", 5, Some(50), 1),
            line("c", 1, None, 1),
            line("d", 10, Some(5), 0),
        ];
        for (sort, want) in [
            (Sort::Rate, "adbc"),
            (Sort::Latency, "badc"),
            (Sort::Failures, "bcad"),
        ] {
            let mut all: Vec<&EdgeRate> = lines.iter().rev().collect();
            all.sort_by(|a, b| order(sort, a.rank(), b.rank()));
            let names: String = all.iter().map(|line| line.to.as_str()).collect();
            assert_eq!(names, want, "{sort:?}");
        }
    }

    #[test]
    fn nearly_all_is_not_all() {
        for (requests, lost, text) in [
            (0, 0, "-"),
            (10, 0, "100.0%"),
            (100_000, 1, "99.9%"),
            (3, 3, "0.0%"),
            (3, 4, "0.0%"),
        ] {
            assert_eq!(success(requests, lost), text);
        }
        assert_eq!(per_sec(1, 0.0), 1_000.0, "no time is a little time");
    }
}
