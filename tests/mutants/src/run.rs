//! Runs test programs for each mutant, until one of them fails.
//!
//! A first round without a mutant says how long a program takes and which mutants it gets to; a program that never
//! gets to one is not run for it.

use crate::Fault;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Beyond the time that a program took without a mutant, as a factor and in seconds: a machine may be busy.
const PATIENCE: (u32, u64) = (4, 20);

/// For a program without a mutant.
const BASELINE_MAX: Duration = Duration::from_secs(1800);

/// A program of tests.
struct Program<'a> {
    folder: &'a str,
    path: &'a str,
    arguments: Vec<&'a str>,
    took: Duration,
    reaches: HashSet<u32>,
}

/// How far a program is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Failure,
    End,
}

/// What became of a mutant under one program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    TooLong,
}

/// Judges every mutant of `list` that `found` does not judge yet.
pub(crate) fn run(list: &Path, found: &Path, programs: &[&str]) -> Result<(), Fault> {
    let mutants = read(list)?;
    let judged: HashSet<u32> = read(found).unwrap_or_default().into_keys().collect();
    let programs = programs
        .iter()
        .map(|text| Program::measured(text))
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(found)?;
    for number in shuffled(mutants.keys().copied()) {
        let Some(what) = mutants.get(&number).filter(|_| !judged.contains(&number)) else {
            continue;
        };
        let reaching = programs
            .iter()
            .filter(|program| program.reaches.contains(&number));
        let (mut verdict, mut tried) = ("not reached".to_owned(), false);
        for program in reaching {
            tried = true;
            let limit = program.took * PATIENCE.0 + Duration::from_secs(PATIENCE.1);
            let (outcome, test) =
                program.run(&[("MUTANT", &number.to_string())], Until::Failure, limit)?;
            match outcome {
                Outcome::Passed => continue,
                Outcome::Failed => verdict = format!("noticed by {test}"),
                Outcome::TooLong => verdict = "noticed: it never ends".to_owned(),
            }
            break;
        }
        if tried && !verdict.starts_with("noticed") {
            verdict = "survived".to_owned();
        }
        writeln!(out, "{number}\t{what}\t{verdict}")?;
    }
    Ok(())
}

/// In an order of chance, but the same each time: whoever stops half-way has a sample of every file.
fn shuffled(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_by_key(|number| number.wrapping_mul(2_654_435_761));
    numbers
}

impl<'a> Program<'a> {
    /// Runs it twice without a mutant: whether it passes, and what it gets to.
    fn measured(text: &'a str) -> Result<Self, Fault> {
        let (folder, command) = text
            .split_once('=')
            .ok_or("a program is FOLDER=PATH [ARGUMENT...]")?;
        let mut words = command.split_whitespace();
        let (path, arguments) = (words.next().unwrap_or_default(), words.collect());
        let mut program = Self {
            folder,
            path,
            arguments,
            took: Duration::ZERO,
            reaches: HashSet::new(),
        };
        let begun = Instant::now();
        let (outcome, test) = program.run(&[], Until::Failure, BASELINE_MAX)?;
        program.took = begun.elapsed();
        if outcome != Outcome::Passed {
            return Err(format!("{command} fails without any mutant: {test}").into());
        }
        let reached = std::env::temp_dir().join(format!("mutants-reached-{}", std::process::id()));
        let _ = fs::remove_file(&reached);
        // Tests that count may fail here; nothing is judged by it.
        let environment = [("MUTANTS_REACHED", &*reached.to_string_lossy())];
        program.run(&environment, Until::End, BASELINE_MAX)?;
        let lines = fs::read_to_string(&reached).unwrap_or_default();
        program.reaches = lines.lines().filter_map(|line| line.parse().ok()).collect();
        let _ = fs::remove_file(&reached);
        eprintln!(
            "{command}: {:.1} s, gets to {} mutants",
            program.took.as_secs_f64(),
            program.reaches.len()
        );
        Ok(program)
    }

    /// Runs it: the outcome, and the test that failed.
    fn run(
        &self,
        environment: &[(&str, &str)],
        until: Until,
        limit: Duration,
    ) -> Result<(Outcome, String), Fault> {
        let mut child = Command::new(self.path)
            .args(&self.arguments)
            .current_dir(self.folder)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let failed = line
                    .strip_prefix("test ")
                    .and_then(|line| line.strip_suffix(" ... FAILED"));
                if let Some(test) = failed
                    && until == Until::Failure
                {
                    let _ = tell.send(test.to_owned());
                    return;
                }
            }
        });
        // The sender goes away when the output ends.
        let (outcome, test) = match told.recv_timeout(limit) {
            Ok(test) => (Outcome::Failed, test),
            Err(mpsc::RecvTimeoutError::Timeout) => (Outcome::TooLong, String::new()),
            Err(mpsc::RecvTimeoutError::Disconnected) => match child.wait()?.success() {
                true => (Outcome::Passed, String::new()),
                false => (Outcome::Failed, "the end of the program".to_owned()),
            },
        };
        let _ = child.kill();
        child.wait()?;
        let _ = reader.join();
        Ok((outcome, test))
    }
}

/// Lines of a list by their number.
fn read(file: &Path) -> Result<BTreeMap<u32, String>, Fault> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().filter_map(|line| {
        let (number, rest) = line.split_once('\t')?;
        Some((number.parse().ok()?, rest.to_owned()))
    });
    Ok(lines.collect())
}
