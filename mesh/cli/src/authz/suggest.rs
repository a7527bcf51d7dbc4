//! `mesh authz suggest`: least-privilege policy from recorded traffic, checked before anybody sees it.

use super::records::{RecordArgs, warn_of_gaps};
use super::world::unanswered;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{self, MeshSettings};
use crate::output::{Format, Output, OutputError, printable};
use clap::Args;
use mesh_platform::{Platform as _, System};
use mesh_policy::decide::Verdict;
use mesh_policy::snapshot::Severity;
use mesh_policy_analysis::records::{Class, request};
use mesh_policy_analysis::suggest::{Observed, Settings, Skipped, Verified, manifests, verify};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, Loaded, load};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Lines of one kind that text shows; JSON has all.
const SHOWN_MAX: usize = 20;

/// What is learned from.
#[derive(Args, Clone, Debug)]
pub(crate) struct SuggestArgs {
    /// What runs: manifests of workloads and Servers. Grants among them are left out of account.
    #[arg(short, long = "file", required = true, value_name = "DIR")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    settings: MeshSettings,
    /// Percent of each file, its end, that is not learned from but decided by the suggestion.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=90))]
    hold_back: u8,
    /// Different words at one place of a path; more become "any word".
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    words_max: usize,
    /// Warns of what was seen less often than this.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    few: u64,
    /// Form of the answer: the manifests as text, or manifests and findings as one object.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Requests held back that the suggestion denies, alike.
#[derive(Serialize)]
struct Refused {
    #[serde(flatten)]
    class: Class,
    count: u64,
    witness: mesh_policy::request::RequestRecord,
}

/// All that was found.
#[derive(Serialize)]
struct Report {
    manifests: String,
    learned: u64,
    skipped: Skipped,
    held_back: u64,
    held_back_denied: Vec<Refused>,
    warnings: Vec<String>,
    verified: Verified,
}

/// Why a suggestion is none.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum SuggestError {
    /// Nothing to learn from.
    #[error("of {records} records none suggests a policy: {skipped}")]
    #[diagnostic(
        code("MESH-0667"),
        help(
            "records of allowed requests with an identity, to workloads among the manifests, suggest something; is `-f` the mesh that they are of?"
        )
    )]
    Nothing {
        /// Records that were learned from.
        records: u64,
        /// Why each says nothing.
        skipped: String,
    },
    /// Written, but not as it was meant.
    #[error("the suggested manifests have an error: {why}")]
    #[diagnostic(
        code("MESH-0668"),
        help("this is a defect of the mesh: report it with its version")
    )]
    Broken {
        /// The first finding.
        why: String,
    },
}

/// Suggests. Ends with 1 if what stays in force beside the suggestion allows more than was seen.
pub(crate) fn run(args: &SuggestArgs, output: &mut Output) -> Result<Exit, Fault> {
    let now = System::new().wall_clock();
    let base = load(manifests::contents(&args.files)?);
    let index = Index::build(&base, &args.settings.config());
    let settings = Settings {
        words_max: args.words_max,
        few: args.few,
    };
    let ends = args.ends()?;
    let mut observed = Observed::new(&index);
    let tally = args.records.each(|file, at, record, cut| {
        if at < ends.get(file).copied().unwrap_or(0) {
            observed.add(record, cut);
        }
        Ok(())
    })?;
    let learned = ends.iter().sum();
    observed.settle(settings);
    let suggested = manifests(&observed, &args.settings.trust_domain, settings);
    if suggested.objects.is_empty() {
        return Err(Fault::usage(&SuggestError::Nothing {
            records: learned,
            skipped: skipped(&observed.skipped),
        }));
    }
    let text = written(&suggested.objects)?;
    let whole = args.whole(&base, &text)?;
    let verified = verify(&whole, &mut observed, now).map_err(unanswered)?;
    let held_back_denied = args.held_back(&whole, &ends, now)?;
    let report = Report {
        manifests: text,
        learned,
        skipped: observed.skipped.clone(),
        held_back: tally.decisions.saturating_sub(learned),
        held_back_denied,
        warnings: suggested.warnings,
        verified,
    };
    output.value(args.output, &report, |output, report| {
        output.text(&report.manifests)
    })?;
    say(&report, output);
    warn_of_gaps(tally, output);
    let sound = report.verified.excess.is_empty() && report.verified.missing.is_empty();
    Ok(if sound { Exit::Ok } else { Exit::Failure })
}

impl SuggestArgs {
    /// How many records of each file are learned from: those before the part that is held back.
    fn ends(&self) -> Result<Vec<u64>, Fault> {
        let mut counts: Vec<u64> = Vec::new();
        self.records.each(|file, at, _, _| {
            counts.resize(counts.len().max(file.saturating_add(1)), 0);
            if let Some(count) = counts.get_mut(file) {
                *count = at.saturating_add(1);
            }
            Ok(())
        })?;
        let percent = 100_u64.saturating_sub(u64::from(self.hold_back));
        let ends = counts
            .iter()
            .map(|count| count.saturating_mul(percent).div_ceil(100));
        Ok(ends.collect())
    }

    /// The mesh with the suggestion in place of its grants, read from its text like any manifest.
    fn whole(&self, base: &Loaded, text: &str) -> Result<Index, Fault> {
        let ours = load([("suggested.yaml".to_owned(), text.as_bytes().to_vec())]);
        let whole = base.without_grants().and(ours);
        let index = Index::build(&whole, &self.settings.config());
        let wrong = index.findings().iter().find(|finding| {
            finding.severity == Severity::Error
                && finding.source.to_string().starts_with("suggested.yaml:")
        });
        match wrong {
            Some(finding) => Err(SuggestError::Broken {
                why: format!("{}: {}", finding.source, finding.message),
            }
            .into()),
            None => Ok(index),
        }
    }

    /// Requests held back, which were allowed, and which the suggestion denies.
    fn held_back(
        &self,
        index: &Index,
        ends: &[u64],
        now: Timestamp,
    ) -> Result<Vec<Refused>, Fault> {
        let mut replay = Replay::new(index, now);
        let mut denied: BTreeMap<Class, Refused> = BTreeMap::new();
        self.records.each(|file, at, record, cut| {
            let learned = at < ends.get(file).copied().unwrap_or(0);
            if learned || cut || record.verdict == Verdict::Deny {
                return Ok(());
            }
            let asked = request(record);
            let decision = replay.decide(&asked);
            if decision.verdict == Verdict::Deny {
                let class = Class::of(&decision);
                let entry = denied.entry(class.clone()).or_insert_with(|| Refused {
                    class,
                    count: 0,
                    witness: asked,
                });
                entry.count = entry.count.saturating_add(1);
            }
            Ok(())
        })?;
        Ok(denied.into_values().collect())
    }
}

/// The objects as YAML documents.
fn written(objects: &[serde_json::Value]) -> Result<String, Fault> {
    let mut out = String::new();
    for object in objects {
        let text = serde_saphyr::to_string(object).map_err(|error| OutputError::Encode {
            why: error.to_string(),
        })?;
        out.push_str("---\n");
        out.push_str(text.trim_end());
        out.push('\n');
    }
    Ok(out)
}

fn skipped(skipped: &Skipped) -> String {
    let all = [
        (skipped.denied, "denied"),
        (skipped.probes, "probes"),
        (skipped.anonymous, "without an identity"),
        (
            skipped.strangers,
            "of workloads that the manifests do not name",
        ),
        (skipped.cut, "cut or without a path"),
        (skipped.paths, "beyond the paths that are told apart"),
        (skipped.methods, "of methods that no route can name"),
        (
            skipped.mixed,
            "bytes among requests, or requests where bytes are read",
        ),
    ];
    let some = all.iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> = some.map(|(count, why)| format!("{count} {why}")).collect();
    if some.is_empty() {
        "none".to_owned()
    } else {
        some.join(", ")
    }
}

fn say(report: &Report, output: &mut Output) {
    let few = |output: &mut Output, lines: Vec<String>| {
        for line in lines.iter().take(SHOWN_MAX) {
            output.talk(printable(line));
        }
        if lines.len() > SHOWN_MAX {
            output.talk(format_args!("and {} more", lines.len() - SHOWN_MAX));
        }
    };
    output.talk(format_args!(
        "learned from {} records; suggest nothing: {}",
        report.learned,
        skipped(&report.skipped)
    ));
    let warnings = report.warnings.iter().map(|one| format!("look at: {one}"));
    few(output, warnings.collect());
    let denied = report.held_back_denied.iter().map(|one| {
        let witness = serde_json::to_string(&one.witness).unwrap_or_default();
        format!("held back and denied, {} times: {witness}", one.count)
    });
    few(output, denied.collect());
    let refused: u64 = report.held_back_denied.iter().map(|one| one.count).sum();
    output.talk(format_args!(
        "{refused} of {} records held back would be denied",
        report.held_back
    ));
    let verified = &report.verified;
    let excess = verified.excess.iter().map(|one| {
        let witness = serde_json::to_string(&one.witness).unwrap_or_default();
        format!(
            "beyond what was seen, by {}: {witness}",
            one.reasons.join(", ")
        )
    });
    few(output, excess.collect());
    few(
        output,
        verified
            .missing
            .iter()
            .map(|one| format!("seen, but denied: {one}"))
            .collect(),
    );
    let exact = if verified.exact {
        "every class of requests was decided"
    } else {
        "all that was seen was decided, and what regular expressions let be asked"
    };
    output.talk(format_args!(
        "{} decisions, {} beyond what was seen ({exact})",
        verified.decisions,
        verified.excess.len()
    ));
}
