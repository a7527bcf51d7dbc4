//! All forms of a report: the same bytes each time, and nothing in them that nobody may say.

use super::kubernetes::Group;
use super::{csv, html, kubernetes, oscal, pdf, sarif};
use crate::bundle::{Bundle, Traffic};
use crate::framework::{self, Framework};
use crate::report::{self, Report};
use crate::testing::{allowed, bundle, change, denied, workload};

/// A bundle with faults of every kind, and with names that others chose badly.
fn hostile() -> Bundle {
    let mut bundle = bundle();
    let evil = "</script><script>alert(1)</script>\u{1b}[2J\u{202e}\r\n=1+1,\"";
    bundle.traffic.push(Traffic {
        client: None,
        tls: false,
        ..allowed(7)
    });
    bundle.traffic.push(Traffic {
        method: Some(evil.to_owned()),
        workload: evil.to_owned(),
        ..denied(3)
    });
    bundle.workloads.insert(0, workload("bank", "vault"));
    bundle.workloads[0].meshed = false;
    bundle.workloads[0].allow_sample_ppm = 0;
    bundle.changes = vec![crate::bundle::Change {
        files: vec![evil.to_owned()],
        approver: None,
        ..change()
    }];
    bundle.certificates[0].spiffe_id = evil.to_owned();
    bundle
}

fn frameworks() -> Vec<Framework> {
    framework::names()
        .map(|name| framework::built_in(name).expect("a mapping"))
        .collect()
}

fn report(bundle: &Bundle) -> Report {
    report::run(bundle, "ab", &frameworks())
}

/// Every form, as bytes.
fn all(report: &Report) -> Vec<(String, Vec<u8>)> {
    let json = |value: &serde_json::Value| serde_json::to_vec_pretty(value).expect("JSON");
    let mut out = vec![
        ("json".to_owned(), report.to_json().into_bytes()),
        ("html".to_owned(), html::write(report).into_bytes()),
        ("pdf".to_owned(), pdf::write(report)),
        ("csv".to_owned(), csv::write(report).into_bytes()),
        ("sarif".to_owned(), json(&sarif::write(report))),
    ];
    for (name, document) in oscal::write(report, &frameworks()) {
        out.push((name.to_owned(), json(&document)));
    }
    for group in [Group::OpenReports, Group::WgPolicy] {
        let objects = serde_json::Value::from(kubernetes::objects(report, group));
        out.push((format!("{group:?}"), json(&objects)));
    }
    out
}

#[test]
fn two_runs_have_the_same_bytes() {
    let bundle = hostile();
    for (one, two) in all(&report(&bundle)).iter().zip(&all(&report(&bundle))) {
        assert!(one == two, "{}", one.0);
    }
}

#[test]
fn nothing_says_that_a_framework_is_fulfilled() {
    for bundle in [bundle(), hostile()] {
        for (name, bytes) in all(&report(&bundle)) {
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            assert!(!text.contains("complian"), "{name}");
            assert!(!text.contains("certified"), "{name}");
        }
    }
}

#[test]
fn scope_window_sampling_and_what_stands_outside_are_always_there() {
    let report = report(&hostile());
    for (name, bytes) in all(&report).iter().filter(|(name, _)| {
        ["json", "html", "sarif", "oscal-assessment-results.json"].contains(&name.as_str())
    }) {
        let text = String::from_utf8_lossy(bytes);
        for words in [
            "bank/vault",
            "2027-01-15T07:00:00",
            "2027-01-15T08:00:00",
            "every decision",
        ] {
            assert!(text.contains(words), "{name}: {words}");
        }
    }
    let text = String::from_utf8(pdf::write(&report))
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    assert!(text.contains("Outside the mesh") && text.contains("bank/vault"));
}

#[test]
fn what_others_chose_steers_neither_browser_nor_terminal_nor_spreadsheet() {
    for (name, bytes) in all(&report(&hostile())) {
        if name == "pdf" {
            continue;
        }
        let text = String::from_utf8(bytes).expect("text");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{name}");
        if name == "html" {
            assert!(!text.contains("<script"), "{name}");
        }
        if name == "csv" {
            assert!(text.lines().all(|line| !line.contains(",=")), "{name}");
        }
    }
}

#[test]
fn html_loads_nothing_and_forbids_it() {
    let text = html::write(&report(&hostile()));
    assert!(text.contains("default-src 'none'; style-src 'sha256-"));
    for word in [
        "<script", "<img", "<link", "<iframe", "@import", "url(", "style=\"", "src=", "http://",
        "onload=",
    ] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn a_pdf_has_its_pages_in_order_and_ends() {
    let bytes = pdf::write(&report(&hostile()));
    assert!(bytes.starts_with(b"%PDF-1.") && bytes.ends_with(b"%%EOF"));
    let text = String::from_utf8_lossy(&bytes);
    let pages = text.matches("/Type /Page\n").count();
    assert!(pages > 5, "{pages}");
    assert!(
        text.contains(&format!("(page 1 of {pages})"))
            && text.contains(&format!("(page {pages} of {pages})"))
    );
}

#[test]
fn sarif_fixes_take_whole_lines() {
    let mut seeded = bundle();
    let open = "annotations: { config.linkerd.io/default-inbound-policy: all-authenticated }";
    seeded.files[1].text = seeded.files[1].text.replace(
        "metadata: { name: shop }",
        &format!(
            "metadata:\n  name: shop\n  {}",
            open.replace("{ ", "\n    ").replace(" }", "")
        ),
    );
    let log = sarif::write(&report(&seeded));
    let results = log
        .pointer("/runs/0/results")
        .and_then(|one| one.as_array())
        .expect("results");
    let found = results
        .iter()
        .find(|one| one["ruleId"] == "e3.default_allow_ports")
        .expect("a result");
    let fixed = &found["fixes"][0]["artifactChanges"][0]["replacements"][0];
    assert_eq!(
        fixed["insertedContent"]["text"], "    config.linkerd.io/default-inbound-policy: deny\n",
        "{found:#}"
    );
    let line = fixed["deletedRegion"]["startLine"]
        .as_u64()
        .expect("a line");
    let text = seeded.files[1]
        .text
        .lines()
        .nth(usize::try_from(line).expect("small") - 1);
    assert!(text.is_some_and(|text| text.contains("all-authenticated")));
    assert!(
        found["properties"]["controls"]
            .as_array()
            .expect("controls")
            .iter()
            .any(|one| one == "nist-800-53 sc-7.5")
    );
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let report = report(&hostile());
    let text = report.to_json();
    assert_eq!(
        Report::parse("r", text.as_bytes()).map(|read| read.to_json()),
        Ok(text.clone())
    );
    for (bad, line) in [
        (text.replacen("\"version\": 1", "\"version\": 2", 1), 1),
        (text.replacen("audit-report", "audit-rapport", 1), 1),
        (text.replacen("\"generator\"", "\"generators\"", 1), 4),
    ] {
        let error = Report::parse("r", bad.as_bytes()).expect_err("a change");
        assert_eq!(error.line, line, "{error}");
    }
}
