//! Runs every target over its seeds and over seeded mutations of them, on stable Rust.
//!
//! `smoke [SECONDS [SEED [TARGET...]]]`: seconds for each target (default 2), seed of the mutations (default 1), targets
//! (default all). Fails with the target, the seed and the input in hex. Finds shallow faults; depth is libFuzzer's work.

use mesh_fuzz::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// One input may take this long on a busy machine. Decoders bound their work; more than this means one does not.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);

/// Mutated inputs do not grow beyond this, so that seconds buy many of them.
const INPUT_BYTES_MAX: usize = 8 * 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: u64| match arguments.next() {
        None => Ok(otherwise),
        Some(text) => text.parse::<u64>().map_err(|_| text),
    };
    let (seconds, seed) = match (number(2), number(1)) {
        (Ok(seconds), Ok(seed)) => (seconds, seed),
        (Err(text), _) | (_, Err(text)) => {
            eprintln!("`{text}` is not a number; usage: smoke [SECONDS [SEED [TARGET...]]]");
            return ExitCode::from(2);
        }
    };
    let names: Vec<String> = arguments.collect();
    let is_known = |name: &&String| TARGETS.iter().any(|(known, _)| known == *name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        eprintln!("`{name}` is no target");
        return ExitCode::from(2);
    }
    let failed = TARGETS
        .iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name))
        .filter(|target| !smoke(target, Duration::from_secs(seconds), seed))
        .count();
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Whether the target held for its share of the time.
fn smoke((name, target): &Target, share: Duration, seed: u64) -> bool {
    let seeds = match read_seeds(name) {
        Ok(seeds) if !seeds.is_empty() => seeds,
        Ok(_) => return complain(name, "has no seeds"),
        Err(error) => return complain(name, &format!("has no readable seeds: {error}")),
    };
    let begin = now();
    let mut random = Random(
        seed ^ name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }),
    );
    let mut runs = 0u64;
    for input in &seeds {
        if !holds(name, *target, input) {
            return false;
        }
        runs += 1;
    }
    while begin.elapsed() < share {
        let input = mutated(&seeds, &mut random);
        if !holds(name, *target, &input) {
            return false;
        }
        runs += 1;
    }
    println!(
        "{name}: {runs} inputs from {} seeds, seed {seed}",
        seeds.len()
    );
    true
}

fn complain(name: &str, what: &str) -> bool {
    eprintln!("{name} {what}");
    false
}

fn holds(name: &str, target: fn(&[u8]), input: &[u8]) -> bool {
    let begin = now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    match outcome {
        Err(_) => complain(name, &format!("panicked on {hex}")),
        Ok(()) if begin.elapsed() > INPUT_TIME_MAX => {
            complain(name, &format!("took {:?} for {hex}", begin.elapsed()))
        }
        Ok(()) => true,
    }
}

fn read_seeds(name: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let mut paths = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths.into_iter().map(std::fs::read).collect()
}

/// One seed, changed one to eight times.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(32)).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = EDGES[random.below(EDGES.len())],
            2 => input.insert(at, EDGES[random.below(EDGES.len())]),
            3 if at < end => drop(input.drain(at..end)),
            4 if at < end => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => input.truncate(at),
            6 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                input.splice(at..at, token.bytes());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

const EDGES: [u8; 20] = *b"\0\x01\x7f\x80\xff\r\n\t /.%:;,@#?\"\\";

const TOKENS: [&str; 24] = [
    "..",
    "//",
    "%2e",
    "%2f",
    "%00",
    "\u{202e}",
    "\u{e9}",
    "\0\0",
    "spiffe://",
    "TD",
    "{}",
    "[]",
    "null",
    "\"keys\":",
    "- ",
    "\n---\n",
    "&a ",
    "*a ",
    "<<: ",
    "18446744073709551616",
    "-1",
    "\r\n",
    "xn--",
    "[::1]",
];

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap_or(0) % bound.max(1)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test runner measures real time"
)]
fn now() -> Instant {
    Instant::now()
}
