//! Checks for other programs: JUnit and SARIF.

use super::item::{Item, Status};
use crate::output::xml_escaped;
use mesh_compliance::formats::sarif as log;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A suite for each heading; a doubt is a test that passed with something to say.
pub(super) fn junit(items: &[Item]) -> String {
    let failed = |items: &[&Item]| {
        items
            .iter()
            .filter(|one| one.status == Status::Broken)
            .count()
    };
    let all: Vec<&Item> = items.iter().collect();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing into a text cannot fail.
    let _ = writeln!(
        out,
        "<testsuites tests=\"{}\" failures=\"{}\">",
        all.len(),
        failed(&all)
    );
    let mut categories: Vec<&str> = Vec::new();
    for item in items {
        if !categories.contains(&item.category) {
            categories.push(item.category);
        }
    }
    for category in categories {
        let mine: Vec<&Item> = all
            .iter()
            .copied()
            .filter(|one| one.category == category)
            .collect();
        let name = xml_escaped(category);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\">",
            mine.len(),
            failed(&mine)
        );
        for item in mine {
            let says = xml_escaped(&item.says);
            let head = format!("    <testcase name=\"{says}\" classname=\"{name}\"");
            let told = xml_escaped(&format!(
                "{} {}\nfix: {}",
                item.code.as_deref().unwrap_or_default(),
                item.says,
                item.fix.as_deref().unwrap_or_default()
            ));
            let _ = match item.status {
                Status::Ok => writeln!(out, "{head}/>"),
                Status::Doubtful => writeln!(
                    out,
                    "{head}>\n      <system-out>{told}</system-out>\n    </testcase>"
                ),
                Status::Broken => writeln!(
                    out,
                    "{head}>\n      <failure message=\"{says}\">{told}</failure>\n    </testcase>"
                ),
            };
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// What is not well, as a SARIF log.
pub(super) fn sarif(items: &[Item]) -> Value {
    let found = items.iter().filter(|one| one.status != Status::Ok);
    let mut rules = BTreeSet::new();
    let results: Vec<Value> = found
        .map(|item| {
            let code = item.code.as_deref().unwrap_or("MESH-0800");
            rules.insert(code.to_owned());
            let level = match item.status {
                Status::Broken => "error",
                Status::Doubtful | Status::Ok => "warning",
            };
            let fix = item.fix.as_ref().map(|fix| format!(" (fix: {fix})")).unwrap_or_default();
            json!({ "ruleId": code, "level": level, "message": { "text": format!("{}: {}{fix}", item.category, item.says) } })
        })
        .collect();
    let rules = rules.iter().map(|code| json!({ "id": code })).collect();
    log::log(env!("CARGO_PKG_VERSION"), rules, results, json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        vec![
            Item::ok("a", "well"),
            Item::broken("a", "MESH-0786", "1 < 2 \"ready\"", "kubectl x"),
            Item::doubtful("b", "MESH-0789", "a pod", "kubectl y"),
        ]
    }

    #[test]
    fn a_junit_report_has_a_failure_for_what_is_broken_alone() {
        let text = junit(&items());
        assert!(
            text.contains("<testsuites tests=\"3\" failures=\"1\">"),
            "{text}"
        );
        assert_eq!(text.matches("<failure").count(), 1);
        assert!(
            text.contains("1 &lt; 2 &quot;ready&quot;") && text.contains("fix: kubectl x"),
            "{text}"
        );
        assert_eq!(text.matches("<testsuite ").count(), 2);
    }

    #[test]
    fn a_sarif_log_has_a_result_for_each_thing_that_is_not_well() {
        let log = sarif(&items());
        let results = log
            .pointer("/runs/0/results")
            .and_then(Value::as_array)
            .expect("results");
        let levels: Vec<_> = results
            .iter()
            .map(|one| one["level"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(levels, ["error", "warning"]);
    }
}
