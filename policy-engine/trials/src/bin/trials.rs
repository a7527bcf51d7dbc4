//! `trials [TRIPLES [SEED]]`: that many random requests to random meshes, each decided by the matcher, by Cedar and, if no
//! policy is in Cedar, by the plain reading; and the laws on a mesh in ten. Exit 1 and all that is needed to see it again
//! at the first difference. The default is 200,000 triples from seed 1.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that reports to whoever runs it"
)]

use mesh_policy_trials::{equality, laws};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests to one mesh.
const ASKS: u64 = 400;

/// Requests that a law is tried with.
const LAW_ASKS: u64 = 40;

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|text| text.parse()).collect();
    let Ok(numbers) = numbers else {
        eprintln!("usage: trials [TRIPLES [SEED]]");
        return ExitCode::from(2);
    };
    let triples = numbers.first().copied().unwrap_or(200_000);
    let seed = numbers.get(1).copied().unwrap_or(1);
    match run(triples, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(triples: u64, seed: u64) -> Result<(), String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, done) = (AtomicU64::new(seed), AtomicU64::new(0));
    let work = || {
        let (mut tally, mut law_tally) = (equality::Tally::default(), laws::Tally::default());
        while done.load(Ordering::Relaxed) < triples {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let before = tally.triples;
            equality::try_seed(seed, ASKS, &mut tally)?;
            if seed.is_multiple_of(10) {
                laws::try_seed(seed, LAW_ASKS, &mut law_tally)?;
            }
            done.fetch_add(tally.triples - before, Ordering::Relaxed);
        }
        Ok((tally, law_tally))
    };
    let results: Vec<Result<_, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|end| end.unwrap_or_else(|_| Err("a thread panicked".to_owned())))
            .collect()
    });
    let mut total = equality::Tally::default();
    let (mut compared, mut changed) = (std::collections::BTreeMap::new(), 0);
    for result in results {
        let (tally, law_tally) = result?;
        total.add(tally);
        changed += law_tally.changed;
        for (law, count) in law_tally.compared {
            *compared.entry(law).or_insert(0u64) += count;
        }
    }
    println!(
        "{} requests to {} meshes, seeds from {seed}: matcher = Cedar on all, = plain reading on {}; {} reasons; {} by audit permits, {} over broken glass",
        total.triples, total.meshes, total.plain, total.reasons, total.audit, total.break_glass
    );
    for (outcome, count) in &total.outcomes {
        println!("  {count:>10} {outcome}");
    }
    println!("laws, in pairs of answers compared ({changed} of them differ, as they may)");
    for (law, count) in &compared {
        println!("  {count:>10} {law}");
    }
    Ok(())
}
