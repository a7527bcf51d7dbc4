//! `mesh top --paths`: which requests go to which path now. Paths are in no metric, for clients choose them; so taps of the
//! proxies are the source, and who may tap may look here.
//!
//! A look is what ended while it lasted. What the taps missed is said, or a part would be taken for all.

use super::{Look, Rank, Source, TopArgs, order, per_sec, print, success};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live;
use crate::output::{Format, Output, Table};
use crate::tap::source::Wanted;
use crate::tap::{Came, Opening, come_from, source};
use crate::traffic::{Row, latency, short, table_of_edges};
use mesh_api::admin::Direction;
use mesh_api::tap::{RATE_MAX, TapFilter, TapLine, TapRequest};
use mesh_policy::decide::Verdict;
use mesh_proxy_core::metrics::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Paths of one look; requests to more are counted as missed. About 600 bytes each: 6 MB.
const PATHS_MAX: usize = 10_000;

/// gRPC codes that are the server's fault.
const GRPC_FAILED: [u16; 6] = [2, 4, 12, 13, 14, 15];

/// Requests of one client to one path.
#[derive(Debug, PartialEq, Serialize)]
struct PathRate {
    direction: Direction,
    from: String,
    to: String,
    identity: String,
    method: String,
    path: String,
    requests: u64,
    per_sec: f64,
    denied: u64,
    failed: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// Whose requests to what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    direction: Direction,
    /// SPIFFE ID of the client; of what goes out, the workload.
    from: String,
    to: String,
    method: String,
    path: String,
}

#[derive(Default)]
struct Sum {
    requests: u64,
    denied: u64,
    failed: u64,
    took: Histogram,
}

/// What came while one look lasted.
#[derive(Default)]
struct Seen {
    sums: BTreeMap<Key, Sum>,
    missed: u64,
}

/// Looks, and prints what ended.
///
/// # Errors
/// If there is nobody to look at. A proxy that does not tell is named, and makes the command fail.
pub(super) fn top(
    args: &TopArgs,
    (watched, looks): (bool, u32),
    output: &mut Output,
) -> Result<Exit, Fault> {
    live::wait(async {
        let source = Source::of(args).await?;
        let proxies = source::proxies(Wanted {
            live: &args.live,
            cluster: &args.cluster,
            workloads: &[],
            namespace: args.namespace.as_deref().filter(|_| !args.everywhere),
            selector: args.selector.as_deref(),
        })
        .await?;
        let filter = TapFilter {
            // Verdicts are made on the servers' side; the callers' side tells the same requests again.
            direction: (!args.all).then_some(Direction::Inbound),
            rate: Some(RATE_MAX),
            // Byte streams have none, and would take from the rate.
            path: Some("/".to_owned()),
            ..TapFilter::default()
        };
        let mut opening = Opening::of(&proxies);
        let mut came = come_from(proxies, &filter);
        let mut silent = BTreeMap::new();
        open(&mut came, &mut silent, &mut opening).await;
        let mut look = 0;
        loop {
            let began = Instant::now();
            let until = began + Duration::from_secs(args.every.into());
            let seen = see(&mut came, (&mut silent, &mut opening), until).await;
            let secs = began.elapsed().as_secs_f64();
            if !watched {
                for (name, fault) in &mut silent {
                    if let Some(fault) = fault.take() {
                        output.talk(format_args!("{name} tells nothing:"));
                        output.fault(&fault, args.output);
                    }
                }
            }
            let mut lines = seen.lines(secs, source.domain());
            lines.sort_by(|a, b| order(args.sort, a.rank(), b.rank()));
            let shown = Look {
                secs,
                silent: silent.keys().cloned().collect(),
                missed: Some(seen.missed),
                lines,
            };
            let wide = args.output == Format::Wide;
            let table = |lines: &[PathRate]| table(lines, args.all, wide);
            print(args, &shown, (watched, looks), output, table)?;
            look += 1;
            let over = came.is_closed() && came.is_empty();
            if over
                && watched
                && !opening.any_began()
                && let Some(fault) = first_fault(&mut silent)
            {
                return Err(fault);
            }
            if output.is_closed() || look == looks || over {
                return Ok(match silent.is_empty() {
                    true => Exit::Ok,
                    false => Exit::Failure,
                });
            }
        }
    })
}

/// Those that tell nothing, and why, if that is known.
type Silent = BTreeMap<String, Option<Fault>>;

/// Why nobody tells anything, where a person watches and faults would tear the picture.
fn first_fault(silent: &mut Silent) -> Option<Fault> {
    silent.values_mut().find_map(Option::take)
}

/// Waits until all have begun to tell, or have had their time: what some of them told before belongs to no look.
async fn open(came: &mut mpsc::Receiver<Came>, silent: &mut Silent, opening: &mut Opening) {
    while !opening.is_over() {
        let one = tokio::select! {
            one = came.recv() => one,
            () = opening.late() => {
                silent.extend(opening.give_up().into_iter().map(|name| (name, None)));
                return;
            }
        };
        match one {
            None => return,
            Some(Came::Line(_)) => {}
            Some(Came::Began(name)) => opening.began(&name),
            Some(Came::Ended(name, why)) => {
                opening.ended(&name);
                silent.insert(name, why);
            }
        }
    }
}

/// All that comes until then.
async fn see(
    came: &mut mpsc::Receiver<Came>,
    (silent, opening): (&mut Silent, &mut Opening),
    until: Instant,
) -> Seen {
    let mut seen = Seen::default();
    loop {
        let one = tokio::select! {
            one = came.recv() => one,
            () = sleep_until(until) => return seen,
        };
        match one {
            // Nobody tells any more: the look ends now.
            None => return seen,
            Some(Came::Line(line)) => seen.add(line),
            Some(Came::Began(name)) => {
                opening.began(&name);
                silent.remove(&name);
            }
            Some(Came::Ended(name, why)) => drop(silent.insert(name, why)),
        }
    }
}

impl Seen {
    fn add(&mut self, line: TapLine) {
        match line {
            TapLine::Request(request) => self.request(*request),
            TapLine::Missed {
                over_rate,
                slow_reader,
            } => {
                let missed = over_rate.saturating_add(slow_reader);
                self.missed = self.missed.saturating_add(missed);
            }
            // Byte streams have no paths.
            TapLine::Connection(_) | TapLine::Open | TapLine::Idle => {}
        }
    }

    fn request(&mut self, request: TapRequest) {
        let denied = request
            .decision
            .as_ref()
            .is_some_and(|decision| decision.verdict == Verdict::Deny);
        let failed = !denied && has_failed(&request);
        let (from, to) = match request.direction {
            Direction::Outbound => (request.workload, request.target),
            Direction::Inbound => {
                let id = request.client.and_then(|client| client.spiffe_id);
                let from = id.map_or_else(|| "unauthenticated".to_owned(), |id| id.to_string());
                (from, format!("{}:{}", request.workload, request.target))
            }
        };
        let key = Key {
            direction: request.direction,
            from,
            to,
            method: request.method,
            path: request.path,
        };
        if self.sums.len() >= PATHS_MAX && !self.sums.contains_key(&key) {
            self.missed = self.missed.saturating_add(1);
            return;
        }
        let sum = self.sums.entry(key).or_default();
        sum.requests += 1;
        sum.denied += u64::from(denied);
        sum.failed += u64::from(failed);
        sum.took.record(request.duration_us);
    }

    fn lines(&self, secs: f64, own_domain: &str) -> Vec<PathRate> {
        let line = |(key, sum): (&Key, &Sum)| PathRate {
            direction: key.direction,
            from: short(&key.from, own_domain),
            to: key.to.clone(),
            identity: key.from.clone(),
            method: key.method.clone(),
            path: key.path.clone(),
            requests: sum.requests,
            per_sec: per_sec(sum.requests, secs),
            denied: sum.denied,
            failed: sum.failed,
            p50_us: sum.took.quantile_us(0.5),
            p99_us: sum.took.quantile_us(0.99),
        };
        self.sums.iter().map(line).collect()
    }
}

/// Whether it was not answered, or with a fault of the server.
fn has_failed(request: &TapRequest) -> bool {
    let by_code = request
        .grpc_status
        .is_some_and(|code| GRPC_FAILED.contains(&code));
    let by_status = request.status.is_none_or(|status| status >= 500);
    request.failure.is_some() || by_code || by_status
}

impl PathRate {
    fn rank(&self) -> Rank<'_> {
        let names = [self.to.as_str(), &self.path, &self.from];
        let lost = self.denied + self.failed;
        (self.per_sec, self.p99_us.unwrap_or(0), lost, names)
    }
}

fn table(lines: &[PathRate], both_sides: bool, wide: bool) -> Table {
    let headings = [
        "FROM", "TO", "METHOD", "PATH", "RATE", "SUCCESS", "DENIED", "P50", "P99",
    ];
    let rows = lines.iter().map(|line| Row {
        direction: line.direction,
        identity: &line.identity,
        cells: [
            line.from.clone(),
            line.to.clone(),
            line.method.clone(),
            line.path.clone(),
            format!("{}/s", line.per_sec),
            success(line.requests, line.denied + line.failed),
            line.denied.to_string(),
            latency(line.p50_us),
            latency(line.p99_us),
        ],
    });
    table_of_edges(headings, rows, both_sides, wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::source::Proxy;
    use serde_json::json;

    fn line(path: &str, more: &[(&str, serde_json::Value)]) -> TapLine {
        let mut line = json!({
            "kind": "request", "time": "2026-11-30T22:10:04.123456Z", "duration_us": 100, "workload": "shop/cart",
            "direction": "inbound", "protocol": "http", "method": "GET", "path": path, "host": "cart", "target": "8080",
            "client": { "ip": "10.0.0.9", "spiffe_id": "spiffe://a.b/ns/shop/sa/web" }, "server": null, "decision": null,
            "status": 200, "grpc_status": null, "failure": null, "tries": 0, "trace_id": null, "headers": {},
        });
        for (key, value) in more {
            line[key] = value.clone();
        }
        serde_json::from_value(line).expect("a line of tap")
    }

    #[test]
    fn requests_are_summed_by_who_asks_and_path() {
        let mut seen = Seen::default();
        let denied = json!({ "verdict": "deny", "phase": "permit", "reason": "no-grant", "server": null, "route": null, "generation": 1 });
        seen.add(line("/a", &[]));
        seen.add(line("/a", &[("status", 503.into())]));
        seen.add(line("/a", &[("status", json!(null))]));
        seen.add(line("/a", &[("grpc_status", 14.into())]));
        seen.add(line("/a", &[("decision", denied), ("status", 403.into())]));
        seen.add(line("/b", &[]));
        seen.add(line(
            "/a",
            &[("client", json!({ "ip": "10.0.0.9", "spiffe_id": null }))],
        ));
        seen.add(line(
            "/a",
            &[
                ("direction", "outbound".into()),
                ("target", "shop/db:80".into()),
            ],
        ));
        seen.add(TapLine::Idle);
        let lines = seen.lines(2.0, "a.b");
        let brief: Vec<_> = lines
            .iter()
            .map(|one| {
                (
                    one.from.as_str(),
                    one.to.as_str(),
                    one.path.as_str(),
                    one.requests,
                    one.denied,
                    one.failed,
                )
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("shop/web", "shop/cart:8080", "/a", 5, 1, 3),
                ("shop/web", "shop/cart:8080", "/b", 1, 0, 0),
                ("unauthenticated", "shop/cart:8080", "/a", 1, 0, 0),
                ("shop/cart", "shop/db:80", "/a", 1, 0, 0),
            ]
        );
        assert_eq!(lines[0].per_sec, 2.5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_begins_when_all_tell_and_who_does_not_is_named() {
        let proxies = ["shop/a", "shop/b", "shop/c"].map(Proxy::for_test);
        let mut opening = Opening::of(&proxies);
        let (send, mut came) = mpsc::channel(16);
        let (mut silent, began) = (Silent::new(), Instant::now());
        tokio::spawn(async move {
            for one in [
                Came::Began("shop/a".to_owned()),
                Came::Line(line("/early", &[])),
                Came::Ended("shop/b".to_owned(), Some(proxies[1].no_tap("a test"))),
            ] {
                let _ = send.send(one).await;
            }
            // Later than anybody waits.
            tokio::time::sleep(Duration::from_secs(13)).await;
            for one in [
                Came::Line(line("/late", &[])),
                Came::Began("shop/c".to_owned()),
            ] {
                let _ = send.send(one).await;
            }
        });
        open(&mut came, &mut silent, &mut opening).await;
        assert_eq!(began.elapsed().as_secs(), 12);
        assert!(silent.keys().eq(["shop/b", "shop/c"]));
        let until = Instant::now() + Duration::from_secs(2);
        let seen = see(&mut came, (&mut silent, &mut opening), until).await;
        let paths = seen.sums.keys().map(|key| key.path.as_str());
        assert!(paths.eq(["/late"]), "what came before the look is in none");
        assert!(silent.keys().eq(["shop/b"]), "it tells after all");
        assert!(first_fault(&mut silent).is_some());
    }

    #[test]
    fn what_is_missed_is_said() {
        let mut seen = Seen::default();
        seen.add(TapLine::Missed {
            over_rate: 2,
            slow_reader: 3,
        });
        let mut all = Seen::default();
        for _ in 0..2 {
            all.add(TapLine::Missed {
                over_rate: u64::MAX,
                slow_reader: 1,
            });
        }
        assert_eq!(all.missed, u64::MAX, "whatever a proxy says");
        for number in 0..PATHS_MAX + 7 {
            seen.add(line(&format!("/{number}"), &[]));
        }
        // One that is known still has its place.
        seen.add(line("/1", &[]));
        assert_eq!((seen.sums.len(), seen.missed), (PATHS_MAX, 12));
    }
}
