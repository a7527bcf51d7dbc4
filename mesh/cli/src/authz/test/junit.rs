//! Outcomes as a JUnit report.

use super::file::Suite;
use crate::output::xml_escaped as escaped;
use mesh_policy_analysis::cases::Outcome;
use std::fmt::Write as _;

/// The report: a suite for each file. `outcomes` are those of the suites' cases, in order.
pub(super) fn report(suites: &[Suite], outcomes: &[Outcome]) -> String {
    let failures = outcomes.iter().filter(|one| !one.passed()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let tests = outcomes.len();
    // Writing into a text cannot fail.
    let _ = writeln!(
        out,
        "<testsuites tests=\"{tests}\" failures=\"{failures}\">"
    );
    let mut rest = outcomes;
    for suite in suites {
        let (mine, others) = rest.split_at(suite.cases.len().min(rest.len()));
        rest = others;
        let failures = mine.iter().filter(|one| !one.passed()).count();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\">",
            escaped(&suite.name),
            mine.len()
        );
        for outcome in mine {
            test_case(&mut out, suite, outcome);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn test_case(out: &mut String, suite: &Suite, outcome: &Outcome) {
    let (file, line) = outcome
        .place
        .rsplit_once(':')
        .unwrap_or((&outcome.place, "0"));
    let head = format!(
        "    <testcase name=\"{}\" classname=\"{}\" file=\"{}\" line=\"{}\"",
        escaped(&outcome.name),
        escaped(&suite.name),
        escaped(file),
        escaped(line)
    );
    if outcome.passed() {
        let _ = writeln!(out, "{head}/>");
        return;
    }
    let first = outcome
        .faults
        .first()
        .map(String::as_str)
        .unwrap_or("failed");
    let _ = writeln!(out, "{head}>");
    let _ = writeln!(
        out,
        "      <failure message=\"{}\">{}\n{}</failure>",
        escaped(first),
        escaped(&outcome.faults.join("\n")),
        escaped(&super::said(&outcome.decision))
    );
    out.push_str("    </testcase>\n");
}
