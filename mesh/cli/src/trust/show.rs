//! Trust in words: status, progress, what holds a rotation up.

use super::federate;
use crate::fault::Fault;
use crate::output::{Format, Output, Table, Tone};
use mesh_api::trust::{BlockerStatus, TrustStatus};
use std::collections::BTreeSet;

/// Blockers that a picture of progress names; `mesh trust status` names all.
const BLOCKERS_SHOWN: usize = 8;
/// Letters of a progress bar.
const BAR: usize = 30;

/// The steps of a rotation, in order.
const STEPS: [&str; 5] = ["proving", "cutting over", "retiring", "dropping", "steady"];

/// Prints where others keep root and issuer, and what is wrong there.
fn kept(status: &TrustStatus, output: &mut Output) -> Result<(), Fault> {
    let Some(kept) = &status.kept else {
        return Ok(());
    };
    output.line(format_args!(
        "issuer {}, until {}, kept in {}",
        kept.issuer, kept.issuer_until, kept.place
    ))?;
    for finding in &kept.findings {
        output.line(format_args!("  {}: {}", finding.code, finding.message))?;
        if let Some(hint) = &finding.hint {
            output.line(format_args!("    {hint}"))?;
        }
    }
    Ok(())
}

/// Prints a status for people.
pub(super) fn status(
    status: &TrustStatus,
    format: Format,
    output: &mut Output,
) -> Result<(), Fault> {
    let phase = match status.phase.as_str() {
        "steady" => output.toned(Tone::Good, "steady"),
        phase => output.toned(Tone::Doubtful, phase),
    };
    output.line(format_args!(
        "trust domain {}, bundle generation {}, {phase} since {}",
        status.trust_domain, status.generation, status.since
    ))?;
    let counts = status.verifiers;
    output.line(format_args!(
        "verifiers: {} ({} connected, {} acknowledged generation {})",
        counts.all, counts.connected, counts.acknowledged, status.generation
    ))?;
    if let Some(skew) = status.skew_secs_max {
        output.line(format_args!("largest clock difference: {skew} s"))?;
    }
    let mut roots = Table::new(&["ROOT (SHA-256)", "SIGNS", "LEAVES", "UNTIL"]);
    for root in &status.roots {
        let short = root.sha256.get(..16).unwrap_or(&root.sha256);
        let signs = if root.signs { "yes" } else { "no" };
        roots.row([
            short.to_owned(),
            signs.to_owned(),
            root.leaves.to_string(),
            root.not_after.to_string(),
        ]);
    }
    output.table(&roots, format)?;
    kept(status, output)?;
    federate::in_short(status, output)?;
    if let Some(why) = &status.halted {
        let halted = output.toned(Tone::Bad, "halted");
        output.line(format_args!("{halted}: {why}"))?;
    }
    for name in &status.waived {
        output.line(format_args!("waived: {name}"))?;
    }
    if !status.blockers.is_empty() {
        output.line(format_args!("waits for {}:", status.blockers.len()))?;
        for blocker in &status.blockers {
            output.line(line(blocker))?;
        }
    }
    Ok(())
}

/// Prints what a distrust breaks, or broke.
pub(super) fn compromise(
    status: &TrustStatus,
    confirmed: bool,
    output: &mut Output,
) -> Result<(), Fault> {
    let radius = status.blast_radius.as_deref().unwrap_or_default();
    let whom: BTreeSet<_> = radius
        .iter()
        .map(|blocker| (&blocker.name, &blocker.instance))
        .collect();
    let tense = if confirmed { "lost" } else { "would lose" };
    output.line(format_args!(
        "{} processes {tense} connections until they have the new bundle and a new SVID:",
        whom.len()
    ))?;
    for blocker in radius {
        output.line(line(blocker))?;
    }
    if confirmed {
        let done = output.toned(Tone::Good, "distrusted");
        output.line(format_args!(
            "{done}: bundle generation {} has the new root alone",
            status.generation
        ))?;
    }
    Ok(())
}

fn line(blocker: &BlockerStatus) -> String {
    let instance = blocker
        .instance
        .as_ref()
        .map(|instance| format!("#{instance}"))
        .unwrap_or_default();
    format!("  {}{instance} {}", blocker.name, blocker.reason)
}

/// How many things a rotation waits for, and the first of them.
pub(super) fn blockers_in_short(status: &TrustStatus) -> String {
    match status.blockers.as_slice() {
        [] => "nothing".to_owned(),
        [one] => format!("`{}`", one.name),
        [one, more @ ..] => format!("`{}` and {} more", one.name, more.len()),
    }
}

/// Progress of a rotation: a bar on a terminal, else one line for each step; nothing where a program reads.
pub(super) struct Progress {
    format: Format,
    said: String,
}

impl Progress {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            said: String::new(),
        }
    }

    /// Shows `status`, if it is news.
    pub(super) fn show(&mut self, status: &TrustStatus, output: &mut Output) -> Result<(), Fault> {
        if !matches!(self.format, Format::Text | Format::Wide) {
            return Ok(());
        }
        if output.is_terminal() {
            return output.redraw(&picture(status));
        }
        let said = format!("{}: generation {}", status.phase, status.generation);
        if said != self.said {
            output.talk(&said);
            self.said = said;
        }
        Ok(())
    }

    /// Leaves the last picture and goes on below it.
    pub(super) fn end(&mut self, output: &mut Output) -> Result<(), Fault> {
        output.flush()
    }
}

/// Part of a rotation that is done, 0 to 1.
fn part_done(status: &TrustStatus) -> f64 {
    let at = STEPS
        .iter()
        .position(|step| *step == status.phase)
        .unwrap_or(0) as f64;
    let all = status.verifiers.all.max(1) as f64;
    let blocked: BTreeSet<_> = status
        .blockers
        .iter()
        .map(|blocker| (&blocker.name, &blocker.instance))
        .collect();
    let here = 1.0 - (blocked.len() as f64 / all).min(1.0);
    let steps = (STEPS.len() - 1) as f64;
    ((at + here * 0.99) / steps).min(1.0)
}

fn picture(status: &TrustStatus) -> String {
    let done = (part_done(status) * BAR as f64) as usize;
    let bar: String = (0..BAR)
        .map(|at| if at < done { '#' } else { '.' })
        .collect();
    let mut picture = format!(
        "[{bar}] {}, generation {}\n",
        status.phase, status.generation
    );
    for blocker in status.blockers.iter().take(BLOCKERS_SHOWN) {
        picture.push_str(&line(blocker));
        picture.push('\n');
    }
    let more = status.blockers.len().saturating_sub(BLOCKERS_SHOWN);
    if more > 0 {
        picture.push_str(&format!("  and {more} more\n"));
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::trust::{RootStatus, VerifierCounts};
    use mesh_trust::{Timestamp, TrustDomain};

    fn at(phase: &str, blocked: usize) -> TrustStatus {
        let blocker = |n| BlockerStatus {
            name: format!("spiffe://cluster.local/ns/shop/sa/w{n}"),
            instance: Some("7.1".into()),
            kind: "notAcknowledged".into(),
            reason: "has not acknowledged generation 2".into(),
        };
        TrustStatus {
            trust_domain: TrustDomain::parse("cluster.local").unwrap(),
            generation: 2,
            phase: phase.into(),
            since: Timestamp::from_unix_secs(0),
            halted: None,
            roots: Vec::<RootStatus>::new(),
            verifiers: VerifierCounts {
                all: 20,
                connected: 20,
                acknowledged: 0,
            },
            blockers: (0..blocked).map(blocker).collect(),
            waived: Vec::new(),
            skew_secs_max: None,
            blast_radius: None,
            kept: None,
            federation: None,
            bundle_json: String::new(),
            bundle_pem: String::new(),
        }
    }

    #[test]
    fn progress_never_goes_back_and_is_whole_only_at_the_end() {
        let steps = [
            ("proving", 20),
            ("proving", 5),
            ("cutting over", 1),
            ("retiring", 19),
            ("retiring", 0),
            ("dropping", 20),
            ("dropping", 0),
            ("steady", 0),
        ];
        let parts: Vec<f64> = steps
            .iter()
            .map(|(phase, blocked)| part_done(&at(phase, *blocked)))
            .collect();
        assert!(parts.is_sorted(), "{parts:?}");
        assert!(
            parts[..7].iter().all(|part| *part < 1.0) && parts[7] >= 1.0,
            "{parts:?}"
        );
    }

    #[test]
    fn a_picture_names_who_is_waited_for_and_counts_the_rest() {
        let picture = picture(&at("proving", 11));
        assert!(
            picture.contains("sa/w0#7.1 has not acknowledged generation 2"),
            "{picture}"
        );
        assert!(
            picture.contains("and 3 more") && !picture.contains("sa/w8"),
            "{picture}"
        );
        assert_eq!(
            blockers_in_short(&at("proving", 2)),
            "`spiffe://cluster.local/ns/shop/sa/w0` and 1 more"
        );
    }
}
