//! `mesh stat` and `mesh edges`: what the proxies of a running mesh, or of a cluster, have counted.
//!
//! - [`top`]: what they count now

pub(crate) mod top;

use crate::cluster::exposition::Metrics;
use crate::cluster::proxies::{self, ProxyPod};
use crate::cluster::{self, ClusterArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::output::{Format, Output, Table, duration};
use crate::up::state::Running;
use clap::Args;
use mesh_api::admin::{DeniedCount, Direction, Edge, EdgeStats, ProxyStatus};
use mesh_policy::request::Protocol;
use mesh_trust::SpiffeId;
use serde::Serialize;

/// Which mesh to count.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only workloads of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Whose edges to show.
#[derive(Args, Clone, Debug)]
pub(crate) struct EdgesArgs {
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only what proxies of this namespace counted.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Edges as callers saw them too; without it only the servers' side, where verdicts are made.
    #[arg(long)]
    all: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Inbound traffic of one workload, since its proxy started.
#[derive(Default, Serialize)]
struct WorkloadStat {
    namespace: String,
    workload: String,
    ready: bool,
    why_not_ready: Option<String>,
    generation: Option<u64>,
    spiffe_id: Option<SpiffeId>,
    svid_remaining_secs: Option<u64>,
    requests: u64,
    allowed: u64,
    denied: u64,
    failed: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// One line of `mesh edges`.
#[derive(Serialize)]
struct EdgeLine {
    direction: Direction,
    from: String,
    to: String,
    identity: String,
    protocol: Protocol,
    verdict: &'static str,
    requests: u64,
    allowed: u64,
    denied: Vec<DeniedCount>,
    failed: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// What one proxy says, or why it says nothing.
type Asked<T> = (String, Result<T, Fault>);

/// A pod with a proxy, and what this counts.
type Counted = (ProxyPod, Result<Metrics, Fault>);

/// Prints one line for each workload.
pub(crate) fn stat(args: &StatArgs, output: &mut Output) -> Result<Exit, Fault> {
    let asked = if args.cluster.is_meant(&args.live) {
        let (domain, found) = ask_cluster(&args.cluster, args.namespace.as_deref())?;
        let one = |(pod, metrics): Counted| {
            let stat = metrics.map(|metrics| WorkloadStat::in_cluster(&pod, &metrics, &domain));
            (pod.title(), stat)
        };
        found.into_iter().map(one).collect()
    } else {
        let live = Live::find(&args.live)?;
        live::wait(async { Ok(ask_machine(&live, args.namespace.as_deref()).await) })?
    };
    let (stats, exit) = answers(asked, args.output, output);
    output.value(args.output, &stats, |output, stats| {
        output.table(&stat_table(stats), args.output)
    })?;
    Ok(exit)
}

async fn ask_machine(live: &Live, namespace: Option<&str>) -> Vec<Asked<WorkloadStat>> {
    let mut out = Vec::new();
    let proxies = live.proxies();
    for (workload, proxy) in proxies.filter(|(one, _)| is_in(&one.namespace, namespace)) {
        let asked = async {
            let status: ProxyStatus = live::answer(&proxy.socket, "/status").await?;
            let edges: EdgeStats = live::answer(&proxy.socket, "/edges").await?;
            Ok::<_, Fault>(WorkloadStat::of(status, &edges))
        };
        let name = format!("{}/{}", workload.namespace, workload.name);
        out.push((name, asked.await));
    }
    out
}

/// What the proxies of a cluster count, and its trust domain.
fn ask_cluster(
    cluster: &ClusterArgs,
    namespace: Option<&str>,
) -> Result<(String, Vec<Counted>), Fault> {
    live::wait(async {
        let client = cluster.connect().await?;
        let asked = (
            cluster::values(&client),
            proxies::list(&client, namespace, None),
        );
        let (values, pods) = tokio::join!(asked.0, asked.1);
        let domain = values?.unwrap_or_default().trust_domain;
        let pods: Vec<ProxyPod> = pods?.into_iter().filter(|pod| pod.running).collect();
        let metrics = proxies::metrics(&client, &pods).await;
        let metrics = metrics.into_iter().map(|one| one.map_err(Fault::from));
        Ok((domain, pods.into_iter().zip(metrics).collect()))
    })
}

fn is_in(namespace: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| wanted == namespace)
}

/// The answers; whoever gave none is named on stderr, and makes the command fail.
fn answers<T>(asked: Vec<Asked<T>>, format: Format, output: &mut Output) -> (Vec<T>, Exit) {
    let mut exit = Exit::Ok;
    let mut out = Vec::new();
    for (name, answer) in asked {
        match answer {
            Ok(answer) => out.push(answer),
            Err(fault) => {
                exit = Exit::Failure;
                output.talk(format_args!("{name} does not answer:"));
                output.fault(&fault, format);
            }
        }
    }
    (out, exit)
}

fn stat_table(stats: &[WorkloadStat]) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD", "READY", "GEN", "SVID", "REQUESTS", "ALLOWED", "DENIED", "FAILED", "P50", "P99",
    ]);
    for stat in stats {
        table.row([
            format!("{}/{}", stat.namespace, stat.workload),
            if stat.ready {
                "yes".to_owned()
            } else {
                "NO".to_owned()
            },
            stat.generation
                .map_or_else(|| "-".to_owned(), |generation| generation.to_string()),
            stat.svid_remaining_secs
                .map_or_else(|| "none".to_owned(), duration),
            stat.requests.to_string(),
            stat.allowed.to_string(),
            stat.denied.to_string(),
            stat.failed.to_string(),
            latency(stat.p50_us),
            latency(stat.p99_us),
        ]);
    }
    table
}

/// Prints who calls whom.
pub(crate) fn edges(args: &EdgesArgs, output: &mut Output) -> Result<Exit, Fault> {
    let namespace = args.namespace.as_deref();
    let (domain, asked) = if args.cluster.is_meant(&args.live) {
        let (domain, found) = ask_cluster(&args.cluster, namespace)?;
        let one = |(pod, metrics): Counted| (pod.title(), metrics.map(|metrics| metrics.edges()));
        (domain, found.into_iter().map(one).collect())
    } else {
        let live = Live::find(&args.live)?;
        let asked = live::wait(async {
            let mut out: Vec<Asked<Vec<Edge>>> = Vec::new();
            let proxies = live.proxies();
            for (workload, proxy) in proxies.filter(|(one, _)| is_in(&one.namespace, namespace)) {
                let stats = live::answer::<EdgeStats>(&proxy.socket, "/edges").await;
                let name = format!("{}/{}", workload.namespace, workload.name);
                out.push((name, stats.map(|stats| stats.edges)));
            }
            Ok(out)
        })?;
        (live.running.trust_domain, asked)
    };
    let (found, exit) = answers(asked, args.output, output);
    let shown = found
        .into_iter()
        .flatten()
        .filter(|edge| args.all || edge.direction == Direction::Inbound);
    let mut lines: Vec<_> = shown.map(|edge| EdgeLine::of(edge, &domain)).collect();
    sort(&mut lines);
    output.value(args.output, &lines, |output, lines| {
        if lines.is_empty() {
            output.talk("no traffic yet");
        }
        let wide = args.output == Format::Wide;
        output.table(&table(lines, args.all, wide), args.output)
    })?;
    Ok(exit)
}

/// Everything that the proxies of `running` have counted; those that do not answer are left out.
pub(crate) async fn counted(running: &Running) -> Vec<Edge> {
    let mut edges = Vec::new();
    let proxies = running
        .workloads
        .iter()
        .filter_map(|workload| workload.proxy.as_ref());
    for proxy in proxies {
        if let Ok(stats) = live::answer::<EdgeStats>(&proxy.socket, "/edges").await {
            edges.extend(stats.edges);
        }
    }
    edges
}

/// The servers' side of `edges`, where verdicts are made, as a table.
pub(crate) fn inbound_table(edges: &[Edge], own_domain: &str) -> Table {
    let inbound = edges
        .iter()
        .filter(|edge| edge.direction == Direction::Inbound);
    let mut lines: Vec<_> = inbound
        .cloned()
        .map(|edge| EdgeLine::of(edge, own_domain))
        .collect();
    sort(&mut lines);
    table(&lines, false, false)
}

fn sort(lines: &mut [EdgeLine]) {
    lines.sort_by(|a, b| {
        (&a.to, &a.from, a.protocol as u8).cmp(&(&b.to, &b.from, b.protocol as u8))
    });
}

fn table(lines: &[EdgeLine], both_sides: bool, wide: bool) -> Table {
    let headings = [
        "FROM", "TO", "PROTOCOL", "VERDICT", "REQUESTS", "P50", "P99",
    ];
    let rows = lines.iter().map(|line| Row {
        direction: line.direction,
        identity: &line.identity,
        cells: [
            line.from.clone(),
            line.to.clone(),
            format!("{:?}", line.protocol).to_lowercase(),
            line.verdict_text(),
            line.requests.to_string(),
            latency(line.p50_us),
            latency(line.p99_us),
        ],
    });
    table_of_edges(headings, rows, both_sides, wide)
}

/// A row of a table of edges.
struct Row<'a, const COLUMNS: usize> {
    direction: Direction,
    identity: &'a str,
    cells: [String; COLUMNS],
}

/// A table of edges: which side saw them where both are shown, and identities where there is room.
fn table_of_edges<'a, const COLUMNS: usize>(
    headings: [&'static str; COLUMNS],
    rows: impl Iterator<Item = Row<'a, COLUMNS>>,
    both_sides: bool,
    wide: bool,
) -> Table {
    let side = both_sides.then_some("SIDE");
    // In the mesh's own trust domain FROM says the identity already.
    let identity = wide.then_some("IDENTITY");
    let headings: Vec<_> = side.into_iter().chain(headings).chain(identity).collect();
    let mut table = Table::new(&headings);
    for row in rows {
        let side = both_sides.then(|| format!("{:?}", row.direction).to_lowercase());
        let identity = wide.then(|| row.identity.to_owned());
        table.row(side.into_iter().chain(row.cells).chain(identity));
    }
    table
}

impl WorkloadStat {
    fn of(status: ProxyStatus, edges: &EdgeStats) -> Self {
        let empty = Self {
            namespace: status.namespace,
            workload: status.workload,
            ready: status.ready,
            why_not_ready: status.why_not_ready,
            generation: status.snapshot.map(|snapshot| snapshot.generation),
            spiffe_id: status.spiffe_id,
            svid_remaining_secs: status.svid_remaining_secs,
            ..Self::default()
        };
        empty.counting(&edges.edges)
    }

    /// What a proxy's metrics say; they say no more of it than that.
    fn in_cluster(pod: &ProxyPod, metrics: &Metrics, domain: &str) -> Self {
        let id = format!(
            "spiffe://{domain}/ns/{}/sa/{}",
            pod.namespace, pod.service_account
        );
        let svid = metrics
            .count("mesh_svid_remaining_seconds")
            .filter(|left| *left > 0);
        let empty = Self {
            namespace: pod.namespace.clone(),
            workload: pod.name.clone(),
            ready: metrics.count("mesh_ready") == Some(1),
            generation: metrics.count("mesh_policy_generation").filter(|it| *it > 0),
            spiffe_id: svid.and_then(|_| SpiffeId::parse(&id).ok()),
            svid_remaining_secs: svid,
            ..Self::default()
        };
        empty.counting(&metrics.edges())
    }

    fn counting(self, edges: &[Edge]) -> Self {
        let inbound: Vec<&Edge> = edges
            .iter()
            .filter(|edge| edge.direction == Direction::Inbound)
            .collect();
        let sum = |count: fn(&Edge) -> u64| inbound.iter().map(|edge| count(edge)).sum();
        // Percentiles of parts cannot be added up; the slowest edge is what an operator looks for.
        let slowest =
            |time: fn(&Edge) -> Option<u64>| inbound.iter().filter_map(|edge| time(edge)).max();
        Self {
            requests: sum(|edge| edge.requests),
            allowed: sum(|edge| edge.allowed),
            denied: sum(denied),
            failed: sum(|edge| edge.failed),
            p50_us: slowest(|edge| edge.p50_us),
            p99_us: slowest(|edge| edge.p99_us),
            ..self
        }
    }
}

impl EdgeLine {
    fn of(edge: Edge, own_domain: &str) -> Self {
        let verdict = match (edge.allowed, denied(&edge)) {
            (_, 0) => "allowed",
            (0, _) => "denied",
            _ => "mixed",
        };
        let (from, to) = match edge.direction {
            Direction::Inbound => (short(&edge.peer, own_domain), edge.target),
            Direction::Outbound => (edge.local, edge.target),
        };
        Self {
            direction: edge.direction,
            from,
            to,
            identity: edge.peer,
            protocol: edge.protocol,
            verdict,
            requests: edge.requests,
            allowed: edge.allowed,
            denied: edge.denied,
            failed: edge.failed,
            p50_us: edge.p50_us,
            p99_us: edge.p99_us,
        }
    }

    /// The verdict and, of denials, the commonest one.
    fn verdict_text(&self) -> String {
        let most = self.denied.iter().max_by_key(|denial| denial.count);
        match (self.verdict, most) {
            ("allowed", _) | (_, None) => self.verdict.to_owned(),
            (_, Some(most)) => {
                let status = match (most.grpc_status, most.status) {
                    (Some(grpc), _) => format!(" grpc:{grpc}"),
                    (None, Some(status)) => format!(" {status}"),
                    (None, None) => String::new(),
                };
                let share = if self.verdict == "mixed" {
                    format!(" {} of {}", most.count, self.requests)
                } else {
                    String::new()
                };
                format!("DENIED{status}{share} {}", most.reason)
            }
        }
    }
}

fn denied(edge: &Edge) -> u64 {
    edge.denied.iter().map(|denial| denial.count).sum()
}

/// `namespace/account` of a SPIFFE ID of that form in `own_domain`; any other text as it is.
fn short(peer: &str, own_domain: &str) -> String {
    let id = SpiffeId::parse(peer)
        .ok()
        .filter(|id| id.trust_domain().as_str() == own_domain);
    let account = id.as_ref().and_then(SpiffeId::service_account);
    account.map_or_else(
        || peer.to_owned(),
        |(namespace, name)| format!("{namespace}/{name}"),
    )
}

fn latency(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 1_000 => format!("{micros}us"),
        Some(micros) if micros < 1_000_000 => {
            format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100)
        }
        Some(micros) => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy::decide::Phase;

    fn edge(allowed: u64, refused: u64) -> Edge {
        let denial = DeniedCount {
            phase: Phase::Permit,
            status: Some(403),
            grpc_status: Some(7),
            reason: "no grant".to_owned(),
            count: refused,
        };
        Edge {
            direction: Direction::Inbound,
            peer: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
            local: "shop/orders".to_owned(),
            target: "shop/orders:8080".to_owned(),
            protocol: Protocol::Grpc,
            requests: allowed + refused,
            allowed,
            denied: if refused == 0 {
                Vec::new()
            } else {
                vec![denial]
            },
            failed: 0,
            p50_us: Some(1_234),
            p99_us: None,
        }
    }

    #[test]
    fn a_denial_is_never_shown_as_allowed() {
        for (allowed, refused, verdict, text) in [
            (3, 0, "allowed", "allowed"),
            (0, 2, "denied", "DENIED grpc:7 no grant"),
            (3, 1, "mixed", "DENIED grpc:7 1 of 4 no grant"),
        ] {
            let line = EdgeLine::of(edge(allowed, refused), "cluster.local");
            assert_eq!(
                (line.verdict, line.verdict_text().as_str()),
                (verdict, text)
            );
        }
    }

    #[test]
    fn sides_and_identities_are_shown_where_they_are_wanted() {
        for (both_sides, wide, want) in [
            (false, false, "FROM"),
            (true, false, "SIDE"),
            (false, true, "FROM"),
            (true, true, "SIDE"),
        ] {
            let lines = [EdgeLine::of(edge(1, 0), "cluster.local")];
            let text = table(&lines, both_sides, wide).in_form(Format::Wide);
            let (head, row) = text.split_once('\n').expect("two lines");
            assert!(head.starts_with(want), "{text}");
            assert_eq!(head.ends_with("IDENTITY"), wide, "{text}");
            assert_eq!(row.starts_with("inbound"), both_sides, "{text}");
            let identity = "spiffe://cluster.local/ns/shop/sa/web";
            assert_eq!(row.trim_end().ends_with(identity), wide, "{text}");
        }
    }

    #[test]
    fn a_caller_of_another_trust_domain_is_shown_in_full() {
        let peer = "spiffe://cluster.local/ns/shop/sa/web";
        assert_eq!(short(peer, "cluster.local"), "shop/web");
        assert_eq!(short(peer, "prod.example"), peer);
    }

    #[test]
    fn latencies_are_short() {
        for (micros, text) in [
            (None, "-"),
            (Some(999), "999us"),
            (Some(1_250), "1.2ms"),
            (Some(2_300_000), "2.3s"),
        ] {
            assert_eq!(latency(micros), text);
        }
    }
}
