//! One row for each control, scope and finding (RFC 4180).

use crate::report::{Report, by_scope};

const COLUMNS: &[&str] = &[
    "framework",
    "control",
    "title",
    "status",
    "scope",
    "scope status",
    "stage",
    "because",
    "finding",
    "check",
    "severity",
    "subject",
    "message",
    "file",
    "line",
    "hint",
    "not covered by the mesh",
    "since",
    "until",
];

/// The report as CSV.
pub fn write(report: &Report) -> String {
    let mut out = String::new();
    row(&mut out, COLUMNS);
    let (since, until) = (
        report.scope.since.to_string(),
        report.scope.until.to_string(),
    );
    let known = report.by_id();
    for framework in &report.frameworks {
        for control in &framework.controls {
            let found = by_scope(&known, &control.findings);
            let stage = control
                .stage
                .as_ref()
                .map_or("", |stage| stage.reached.as_str());
            let head = [
                framework.framework.as_str(),
                &control.id,
                &control.title,
                control.status.text(),
            ];
            let tail = [control.not_covered.as_str(), &since, &until];
            if control.scopes.is_empty() {
                let none = ["", "", stage, "", "", "", "", "", "", "", "", ""];
                row(&mut out, &[&head[..], &none, &tail].concat());
            }
            for scope in &control.scopes {
                let because = scope.because.join("; ");
                let here = [scope.scope.as_str(), scope.status.text(), stage, &because];
                let mut any = false;
                for finding in found.get(scope.scope.as_str()).into_iter().flatten() {
                    any = true;
                    let line = finding
                        .place
                        .as_ref()
                        .map(|place| place.line.to_string())
                        .unwrap_or_default();
                    let cells = [
                        finding.id.as_str(),
                        &finding.check,
                        finding.severity.text(),
                        &finding.subject,
                        &finding.message,
                        finding
                            .place
                            .as_ref()
                            .map_or("", |place| place.file.as_str()),
                        &line,
                        &finding.hint,
                    ];
                    row(&mut out, &[&head[..], &here, &cells, &tail].concat());
                }
                if !any {
                    row(&mut out, &[&head[..], &here, &[""; 8], &tail].concat());
                }
            }
        }
    }
    out
}

/// A table as CSV.
pub fn table(table: &crate::evidence::Table) -> String {
    let mut out = String::new();
    let cells = |cells: &[String]| cells.iter().map(String::clone).collect::<Vec<_>>();
    for one in std::iter::once(&table.columns).chain(&table.rows) {
        let cells = cells(one);
        row(
            &mut out,
            &cells.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    out
}

fn row(out: &mut String, cells: &[&str]) {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        field(out, cell);
    }
    out.push_str("\r\n");
}

/// A field in quotes where it needs them. Spreadsheets run what begins like a formula; a quote before it stops them.
fn field(out: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text != "-";
    let quoted = formula || text.contains([',', '"', '\n', '\r']);
    if !quoted {
        out.push_str(text);
        return;
    }
    out.push('"');
    if formula {
        out.push('\'');
    }
    for c in text.chars() {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_neither_end_early_nor_run_in_a_spreadsheet() {
        for (text, want) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("=HYPERLINK(1)", "\"'=HYPERLINK(1)\""),
            ("@SUM", "\"'@SUM\""),
            ("-1+2", "\"'-1+2\""),
            ("-", "-"),
            ("", ""),
        ] {
            let mut out = String::new();
            field(&mut out, text);
            assert_eq!(out, want);
        }
    }
}
