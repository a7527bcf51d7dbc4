//! E3: what is let in where nobody wrote a rule, and what stands outside the mesh.

use super::metric::Reading;
use super::{Evidence, Finding, Fix, MESH, Place, Severity, Sheet, Table};
use crate::facts::{Facts, PortFact};
use mesh_policy::snapshot::{Severity as Weight, Source};
use std::collections::BTreeMap;

/// Annotations that set a default policy.
const DEFAULT_POLICY: [&str; 2] = [
    "mesh.internal/default-inbound-policy",
    "config.linkerd.io/default-inbound-policy",
];

/// E3.
pub fn posture(facts: &Facts<'_>) -> Evidence {
    let mut sheet = Sheet::default();
    let mut table = Table::new(&[
        "workload",
        "port",
        "server",
        "lets in by default",
        "declared at",
    ]);
    for port in &facts.ports {
        if port.invalid.is_none() {
            check(facts, port, &mut sheet);
        }
        let mode = match &port.invalid {
            Some(_) => "nobody: it is faulty",
            None => port.mode.as_str(),
        };
        table.row(vec![
            port.workload.clone(),
            port.port.clone(),
            port.server.clone(),
            mode.to_owned(),
            port.source.to_string(),
        ]);
    }
    for one in facts.bundle.workloads.iter().filter(|one| !one.meshed) {
        let name = format!("{}/{}", one.namespace, one.name);
        let message = format!("{name} runs without a proxy of the mesh");
        let finding = Finding::new(
            "e3.unmeshed_workloads",
            &one.namespace,
            &name,
            Severity::Medium,
            message,
        );
        sheet.find(finding.hint(
            "give it a proxy, or write down why it has none: nothing here speaks about its traffic",
        ));
        table.row(vec![
            name,
            "-".to_owned(),
            "-".to_owned(),
            "NOT IN THE MESH".to_owned(),
            "-".to_owned(),
        ]);
    }
    faults(facts, &mut sheet);
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for port in &facts.ports {
        *asked.entry(&port.namespace).or_default() += 1;
    }
    for namespace in &facts.namespaces {
        let none = Reading::NotApplicable("no workload of the manifests is in it".to_owned());
        let otherwise = (!asked.contains_key(namespace.as_str())).then_some(none);
        sheet.count(
            &["e3.default_allow_ports", "e3.audit_ports"],
            namespace,
            otherwise.as_ref(),
        );
        let nothing = facts.telemetry(namespace).is_empty();
        let none = Reading::NotApplicable("nothing is known to run there".to_owned());
        sheet.count(
            &["e3.unmeshed_workloads"],
            namespace,
            nothing.then_some(&none),
        );
        sheet.count(&["e3.invalid_objects"], namespace, None);
    }
    sheet.count(&["e3.invalid_objects"], MESH, None);
    let notes = vec![
        "Rules of the network below the mesh (firewalls, NetworkPolicy of Kubernetes) are not seen.".to_owned(),
        "Processes that run beside the mesh are those that were started with it; others are not known.".to_owned(),
    ];
    sheet.evidence("E3", "Default posture", table, notes)
}

fn check(facts: &Facts<'_>, port: &PortFact, sheet: &mut Sheet) {
    let subject = format!("{}:{}", port.workload, port.port);
    let by = if port.default {
        "the default policy".to_owned()
    } else {
        format!("the accessPolicy of Server {}", port.server)
    };
    let (check, severity) = match port.mode.as_str() {
        "deny" => return,
        "audit" => ("e3.audit_ports", Severity::Medium),
        _ => ("e3.default_allow_ports", Severity::High),
    };
    let message = format!(
        "{subject} lets in by default: {by} is `{}` ({})",
        port.mode, port.source
    );
    let mut finding = Finding::new(check, &port.namespace, &subject, severity, message)
        .at(&port.source)
        .hint("set it to `deny` and grant what is needed; `mesh authz suggest` writes grants from recorded traffic");
    finding.fix = fix(facts, &mut finding.place, &port.source, &port.mode);
    sheet.find(finding);
}

/// Replaces the line that sets the mode, if there is exactly one such line in the object.
fn fix(facts: &Facts<'_>, place: &mut Option<Place>, source: &Source, mode: &str) -> Option<Fix> {
    let Source::File {
        file,
        line,
        end_line,
        ..
    } = source
    else {
        return None;
    };
    let text = &facts
        .bundle
        .files
        .iter()
        .find(|one| one.name == *file)?
        .text;
    let sets = |text: &str| {
        let (key, value) = text.trim().split_once(':')?;
        let key = key.trim_matches(['"', '\'']);
        let value = value.trim().trim_matches(['"', '\'']);
        ((DEFAULT_POLICY.contains(&key) || key == "accessPolicy") && value == mode).then_some(())
    };
    let (first, last) = (
        usize::try_from(*line).ok()?,
        usize::try_from(*end_line).ok()?,
    );
    let lines = text.lines().enumerate().map(|(at, text)| (at + 1, text));
    let mut found = lines.filter(|(at, text)| (first..=last).contains(at) && sets(text).is_some());
    let (at, old) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    let number = u32::try_from(at).ok()?;
    *place = Some(Place {
        file: file.clone(),
        line: number,
        end_line: number,
    });
    let (key, _) = old.split_once(':')?;
    Some(Fix {
        what: "deny by default".to_owned(),
        line: number,
        end_line: number,
        text: format!("{key}: deny\n"),
    })
}

/// Objects that lint calls wrong.
fn faults(facts: &Facts<'_>, sheet: &mut Sheet) {
    for fault in facts
        .index
        .findings()
        .iter()
        .filter(|one| one.severity == Weight::Error)
    {
        let object = fault.object.as_ref();
        let scope = object
            .map(|one| one.namespace.as_str())
            .filter(|name| !name.is_empty());
        let subject = match object {
            Some(object) => format!(
                "{} {}/{} {}",
                object.kind, object.namespace, object.name, fault.code
            ),
            None => format!("{} {}", fault.source, fault.code),
        };
        let message = format!("{}: {}", fault.code, fault.message);
        let finding = Finding::new(
            "e3.invalid_objects",
            scope.unwrap_or(MESH),
            &subject,
            Severity::Medium,
            message,
        );
        sheet.find(
            finding.at(&fault.source).hint(
                fault
                    .hint
                    .as_deref()
                    .unwrap_or("`mesh authz lint` says more"),
            ),
        );
    }
}
