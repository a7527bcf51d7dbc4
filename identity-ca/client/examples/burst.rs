//! Many workloads that want their first SVIDs at once, asked for as the agent of a node asks: over one warm connection.
//!
//!     cargo run --release -p mesh-ca-client --example burst -- ADDRESS TOKEN_FILE COUNT [AT_ONCE [TOKENS]]
//!
//! Joins the CA at ADDRESS with the token in TOKEN_FILE, which must speak for `batch/*`. Then COUNT identities
//! `batch/w0`, `batch/w1`, … get one SVID each, AT_ONCE of them under way at a time (256 by default), each with a fresh
//! key; and TOKENS JWT-SVIDs are minted. Prints one line of JSON: how many a second, and how long one took. What keys and
//! requests cost this side is part of the time, so run it on another core than the CA.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement for people, with the clock that there is"
)]

use mesh_ca_client::node::{self, Asked, NodeCa, NodeLink};
use mesh_trust::SpiffeId;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token_file, count, rest @ ..] = arguments.as_slice() else {
        return Err("ADDRESS TOKEN_FILE COUNT [AT_ONCE [TOKENS]]".into());
    };
    let number =
        |place: usize, default: usize| rest.get(place).map_or(Ok(default), |text| text.parse());
    let (at_once, tokens) = (number(0, 256)?, number(1, 0)?);
    let token = std::fs::read_to_string(token_file)?.trim().parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ca = NodeCa {
            address: address.clone(),
            identity: None,
            trust_domain: None,
        };
        let (held, known) = node::join(&ca, &token).await?;
        let link = NodeLink::new(&known, &held)?;
        let (svids, times) = run(&link, count.parse()?, at_once, certify).await?;
        println!("{}", report("svids", svids, &times));
        if tokens > 0 {
            let (minted, times) = run(&link, tokens, at_once, mint).await?;
            println!("{}", report("tokens", minted, &times));
        }
        Ok(())
    })
}

fn id(n: usize) -> Outcome<SpiffeId> {
    Ok(SpiffeId::parse(&format!(
        "spiffe://cluster.local/ns/batch/sa/w{n}"
    ))?)
}

async fn certify(link: NodeLink, n: usize) -> Outcome<()> {
    let asked = Asked {
        identity: id(n)?,
        process: format!("{n}.1"),
        evidence: "burst".to_owned(),
        renewal: false,
    };
    Ok(link.certify(&asked).await.map(drop)?)
}

async fn mint(link: NodeLink, n: usize) -> Outcome<()> {
    Ok(link.mint(&id(n)?, "checkout").await.map(drop)?)
}

/// Does `ask` for 0..`count`, `at_once` at a time; how long all and each took.
async fn run<T>(
    link: &NodeLink,
    count: usize,
    at_once: usize,
    ask: impl Fn(NodeLink, usize) -> T + Copy + Send + 'static,
) -> Outcome<(Duration, Vec<Duration>)>
where
    T: Future<Output = Outcome<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..at_once.max(1) {
        let (link, next) = (link.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<_, Box<dyn Error + Send + Sync>>(times);
                }
                let one = Instant::now();
                ask(link.clone(), n).await?;
                times.push(one.elapsed());
            }
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let all = begun.elapsed();
    times.sort_unstable();
    Ok((all, times))
}

fn report(what: &str, all: Duration, times: &[Duration]) -> String {
    let at = |share: usize| {
        let place = (times.len() * share / 1000).min(times.len().saturating_sub(1));
        times.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!(
        r#"{{"what":"{what}","count":{},"secs":{:.3},"per_sec":{:.0},"p50_ms":{:.2},"p99_ms":{:.2},"max_ms":{:.2}}}"#,
        times.len(),
        all.as_secs_f64(),
        times.len() as f64 / all.as_secs_f64(),
        at(500),
        at(990),
        at(1000),
    )
}
