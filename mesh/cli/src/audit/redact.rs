//! `mesh audit redact`: takes texts out of a log that were logged so that this is possible. All proofs of its lines hold
//! as before, and the log itself says who did it and why.
//!
//! The log must not be written meanwhile. What will be done is recorded and signed first: a crash in between leaves texts
//! that are said to be gone, and the same command again takes them out; never the reverse.

use super::logs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Output, Tone};
use clap::Args;
use mesh_audits::entry::{Entry, Redaction};
use mesh_audits::line::{Parts, encode};
use mesh_audits::redact::{Redactable, redact};
use mesh_platform::lock::LockFile;
use mesh_platform::tree_log::{TreeLog, TreeLogConfig};
use mesh_platform::{Platform, System, files, log_files};
use std::path::{Path, PathBuf};

/// What to take out, and for what reason.
#[derive(Args, Clone, Debug)]
pub(crate) struct RedactArgs {
    /// The log: the file of its newest lines. Its writer must not run.
    log: PathBuf,
    /// Text to take out: client.ip, request.raw_path, request.path or request.host; more than once for more.
    #[arg(long = "field", value_name = "PATH", required = true, value_parser = field)]
    fields: Vec<Redactable>,
    /// First line, by its `seq`.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,
    /// Last line.
    #[arg(long, value_name = "SEQ", default_value_t = u64::MAX)]
    through: u64,
    /// Who does it; stands in the log.
    #[arg(long, value_name = "WHO")]
    by: String,
    /// Why; stands in the log.
    #[arg(long, value_name = "REASON")]
    why: String,
}

fn field(text: &str) -> Result<Redactable, String> {
    Redactable::parse(text).ok_or_else(|| {
        let known = Redactable::ALL.map(Redactable::path).join(", ");
        format!("one of {known}")
    })
}

/// Takes the texts out.
pub(super) fn run(args: &RedactArgs, output: &mut Output) -> Result<Exit, Fault> {
    let directory = match args.log.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let origin = logs::origin_of(&args.log);
    let mut segments: Vec<PathBuf> = log_files::closed_segments(&directory, &origin)?
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    segments.push(args.log.clone());
    let lines = segments.iter().try_fold(0, |sum, segment| {
        rewritten(segment, args).map(|found| sum + found.map_or(0, |(_, lines)| lines))
    })?;
    if lines > 0 {
        record(args, &directory, &origin, lines)?;
        let _lock = LockFile::acquire(&args.log.with_extension("lock"))?;
        for segment in &segments {
            if let Some((bytes, _)) = rewritten(segment, args)? {
                files::write_atomic(segment, &bytes, 0o600)?;
            }
        }
    }
    let ok = output.toned(Tone::Good, "ok ");
    output.line(format_args!(
        "{ok}   {}  texts taken out of {lines} lines",
        args.log.display()
    ))?;
    Ok(Exit::Ok)
}

/// A segment without the texts, and how many lines lose one; none if none does.
fn rewritten(segment: &Path, args: &RedactArgs) -> Result<Option<(Vec<u8>, u64)>, Fault> {
    let bytes = files::read(segment)?;
    let (mut out, mut lines) = (Vec::with_capacity(bytes.len()), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let meant = Parts::of(text).is_some_and(|parts| {
            parts.is_open() && (args.from..=args.through).contains(&parts.seq)
        });
        // A line that cannot be read is the verifier's to name.
        match meant.then(|| redact(text, &args.fields)) {
            Some(Ok(Some(redacted))) => {
                out.extend_from_slice(&redacted);
                out.push(b'\n');
                lines += 1;
            }
            _ => out.extend_from_slice(line),
        }
    }
    Ok((lines > 0).then_some((out, lines)))
}

/// Says so in the log, signed.
fn record(args: &RedactArgs, directory: &Path, origin: &str, lines: u64) -> Result<(), Fault> {
    let now = System::new().wall_clock();
    let config = TreeLogConfig {
        directory: directory.to_owned(),
        origin: origin.to_owned(),
        bundles: false,
    };
    let (mut log, _) = TreeLog::open(&config, now)?;
    let entry = Entry::Redaction(Redaction {
        time: now,
        from: args.from,
        through: args.through.min(log.size().saturating_sub(1)),
        lines,
        fields: args
            .fields
            .iter()
            .map(|field| field.path().to_owned())
            .collect(),
        by: args.by.clone(),
        why: args.why.clone(),
    });
    let line = encode(log.size(), entry, None)?;
    log.append(&[line])?;
    Ok(log.seal(now)?)
}
