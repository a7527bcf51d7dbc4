//! Mutation tests that build once: every mutant of some source files is compiled into the same program, and a number in
//! the environment says which of them lives.
//!
//! - `mutants write CRATE FIRST LIST FILE...` rewrites files of a crate in place (in a copy of the tree), appends what
//!   it made to LIST, numbered from FIRST on, and prints the next free number; start at [`places`]
//! - `mutants run LIST FOUND FOLDER=PROGRAM...` runs test programs (with arguments, if any) in their folders, once without
//!   a mutant and then for each mutant until one fails; appends each verdict to FOUND, and leaves out what FOUND has
//!   already; start at [`run`]
//!
//! `tests/mutation` drives both.

mod places;
mod run;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// What a failing step says.
type Fault = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["write", crate_folder, first, list, files @ ..] if !files.is_empty() => {
            write(Path::new(crate_folder), first, Path::new(list), files)
        }
        ["run", list, found, programs @ ..] if !programs.is_empty() => {
            run::run(Path::new(list), Path::new(found), programs)
        }
        _ => Err("usage: mutants write CRATE FIRST LIST FILE... | mutants run LIST FOUND FOLDER=PROGRAM...".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(2)
        }
    }
}

/// What the mutated crate asks; see `mutant_lives`. Written at the end of its `lib.rs`.
const SWITCH: &str = include_str!("switch.rs.txt");

/// Rewrites `files` of a crate, and gives it the switch.
fn write(folder: &Path, first: &str, list: &Path, files: &[&str]) -> Result<(), Fault> {
    let mut next: u32 = first.parse()?;
    let mut listed = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(list)?;
    for file in files {
        let path = folder.join("src").join(file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (mutated, mutants) = places::rewrite(&text, next)?;
        for mutant in &mutants {
            writeln!(
                listed,
                "{next}\t{}/src/{file}:{}\t{}",
                folder.display(),
                mutant.line,
                mutant.what
            )?;
            next += 1;
        }
        fs::write(&path, mutated)?;
    }
    let library = folder.join("src/lib.rs");
    let text = fs::read_to_string(&library)?;
    if !text.contains("fn mutant_lives") {
        fs::write(&library, text + SWITCH)?;
    }
    println!("{next}");
    Ok(())
}
