//! Explanations as text: one line per layer, its facts indented below it, nothing wider than 100 columns.

use super::{Explanation, Layer, Outcome};
use crate::decide::{Phase, Verdict};
use crate::record::NearMiss;
use std::fmt::Write;

/// Columns of a line.
const WIDTH: usize = 100;
/// Column where facts start: after the name of the layer and its outcome.
const INDENT: usize = 20;

pub(super) fn render(explanation: &Explanation) -> String {
    let mut out = String::new();
    headline(&mut out, explanation);
    for layer in &explanation.layers {
        if layer.layer != "dead" {
            render_layer(&mut out, layer);
        }
    }
    for miss in &explanation.decision.near_misses {
        render_miss(&mut out, miss);
    }
    for layer in explanation
        .layers
        .iter()
        .filter(|layer| layer.layer == "dead")
    {
        for note in &layer.notes {
            entry(
                &mut out,
                "dead",
                "",
                &placed(&note.text, note.source.as_deref()),
            );
        }
    }
    out
}

fn headline(out: &mut String, explanation: &Explanation) {
    let decision = &explanation.decision;
    let verdict = match (decision.verdict, decision.audit) {
        (Verdict::Allow, true) => "ALLOWED, audit only".to_owned(),
        (Verdict::Allow, false) => "ALLOWED".to_owned(),
        (Verdict::Deny, _) => format!("DENIED at {}", phase(decision.phase)),
    };
    let status = match (decision.status, decision.grpc_status) {
        (Some(status), Some(grpc)) => format!("  status {status}, gRPC {grpc}"),
        (Some(status), None) => format!("  status {status}"),
        (None, _) => String::new(),
    };
    let text = format!(
        "{verdict} ({}){status}  generation {}",
        explanation.cause, decision.generation.0
    );
    wrapped(out, "", &text, 4);
}

fn render_layer(out: &mut String, layer: &Layer) {
    if layer.outcome == Outcome::Skipped {
        return;
    }
    let outcome = match layer.outcome {
        Outcome::Ok => "ok",
        Outcome::None => "none",
        Outcome::Denied => "DENIED",
        Outcome::Skipped => "-",
        Outcome::Info => "",
    };
    entry(
        out,
        layer.layer,
        outcome,
        &placed(&layer.summary, layer.source.as_deref()),
    );
    for note in &layer.notes {
        entry(out, "", "", &placed(&note.text, note.source.as_deref()));
    }
}

fn render_miss(out: &mut String, miss: &NearMiss) {
    let total = miss.holds.len() + miss.fails.len();
    let text = format!(
        "{}  ({})  {} of {total} hold",
        miss.policy,
        miss.source,
        miss.holds.len()
    );
    entry(out, "near miss", "", &text);
    for clause in &miss.fails {
        entry(out, "", "", &format!("fails: {clause}"));
    }
    for clause in &miss.holds {
        entry(out, "", "", &format!("holds: {clause}"));
    }
}

fn placed(text: &str, source: Option<&str>) -> String {
    match source {
        Some(source) => format!("{text}  ({source})"),
        None => text.to_owned(),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Transport => "transport",
        Phase::Server => "server",
        Phase::Request => "request",
        Phase::Route => "route",
        Phase::Forbid => "forbid",
        Phase::Permit => "permit",
        Phase::RateLimit => "rate-limit",
        Phase::Egress => "egress",
    }
}

fn entry(out: &mut String, label: &str, outcome: &str, text: &str) {
    let mut head = String::new();
    // Writing to a String cannot fail.
    let _ = write!(head, "  {label:<11}{outcome:<7}");
    wrapped(out, &head, text, INDENT);
}

/// Appends `head` and `text`, broken at spaces (inside a word only if it alone is too long) and indented.
fn wrapped(out: &mut String, head: &str, text: &str, indent: usize) {
    let mut line = head.to_owned();
    let mut empty = true;
    for word in text.split_inclusive(' ') {
        let mut word: Vec<char> = word
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        let fits = |line: &str, word: &[char]| {
            let visible = word
                .iter()
                .rposition(|c| *c != ' ')
                .map_or(0, |last| last + 1);
            line.chars().count() + visible <= WIDTH
        };
        if !empty && !fits(&line, &word) {
            finish(out, &mut line, indent);
        }
        while !fits(&line, &word) {
            let room = WIDTH - line.chars().count();
            let rest = word.split_off(room.min(word.len()));
            line.extend(word);
            finish(out, &mut line, indent);
            word = rest;
        }
        line.extend(word);
        empty = false;
    }
    finish(out, &mut line, 0);
}

fn finish(out: &mut String, line: &mut String, indent: usize) {
    out.push_str(line.trim_end());
    out.push('\n');
    *line = " ".repeat(indent);
}
